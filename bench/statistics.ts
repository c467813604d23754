/** The few numbers that are made of others. */

/** Middle value; the mean of the two middle ones of an even number. NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** Least value that is not below `part` (0 to 1) of all values, by nearest rank. NaN for none. */
export function percentile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)] ?? Number.NaN
}

/** The median of each figure over the runs that have it. */
export function medians(runs: readonly Record<string, number>[]): Record<string, number> {
  const names = [...new Set(runs.flatMap(run => Object.keys(run)))]
  return Object.fromEntries(
    names.map(name => [name, median(runs.map(run => run[name]).filter(value => value !== undefined))]),
  )
}
