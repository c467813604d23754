/** Many seeds, one after the other, until enough, out of time, or too many have failed: for the command line and for the tests. */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { type Outcome, run } from './_run.ts'
import { classOf, makeScript, type Script, type Wanted } from './_script.ts'

export interface CampaignOptions {
  readonly from: number
  readonly seeds: number
  /** From one seed to the next: several processes share a range. */
  readonly stride: number
  /** 0: two to five, by the seed. */
  readonly peers: number
  readonly operations: number
  readonly faults: Wanted
  /** No new seed is begun after this time. */
  readonly budgetMs: number
  /** As many seeds are run whatever the time. */
  readonly seedsMin: number
  readonly failuresMax: number
  /** For people, if wanted. */
  readonly print: ((line: string) => void) | null
  readonly failed: (script: Script, outcome: Outcome & { failure: NonNullable<Outcome['failure']> }) => void
}

/**
 * The first of many seeds, others for each state of the engine and of the simulator: a change meets seeds that nobody has seen,
 * and who repeats a run of the same sources meets the same. Small enough for the generator of chance.
 */
export function freshSeed(): number {
  const hash = createHash('sha256')
  for (const folder of ['actors/arena', 'protocol', 'test/sim']) {
    const url = new URL(`../../../${folder}/`, import.meta.url)
    const names = readdirSync(url).filter(name => name.endsWith('.ts'))
    for (const name of names.sort()) hash.update(name).update(readFileSync(new URL(name, url)))
  }
  return (hash.digest().readUInt32BE(0) % 500_000) * 4_000
}

/** What a campaign came to; sums of several are one campaign again. */
export interface Tally {
  seeds: number
  operations: number
  failed: number[]
  counts: Record<string, number>
  /** Conflict copies at the end, and those of them whose content users had replaced. */
  copies: number
  superfluous: number
}

export function emptyTally(): Tally {
  return { seeds: 0, operations: 0, failed: [], counts: {}, copies: 0, superfluous: 0 }
}

export function addTally(sum: Tally, more: Tally): void {
  sum.seeds += more.seeds
  sum.operations += more.operations
  sum.failed.push(...more.failed)
  sum.copies += more.copies
  sum.superfluous += more.superfluous
  for (const [what, count] of Object.entries(more.counts)) sum.counts[what] = (sum.counts[what] ?? 0) + count
}

/** Runs them; calls `progress` after each seed. */
export function campaign(options: CampaignOptions, progress: (tally: Tally) => void = () => {}): Tally {
  const { from, seeds, stride, peers, operations, faults } = options
  const tally = emptyTally()
  const endMs = performance.now() + options.budgetMs
  for (let seed = from; seed < from + seeds * stride; seed += stride) {
    if (tally.seeds >= options.seedsMin && performance.now() > endMs) break
    const script = makeScript({ seed, peers, operations, faults: classOf(faults, seed) })
    const outcome = run(script, options.print, false)
    addTally(tally, {
      seeds: 1,
      operations: userOperations(outcome.counts),
      failed: outcome.failure ? [seed] : [],
      counts: Object.fromEntries(outcome.counts),
      copies: outcome.copies,
      superfluous: outcome.superfluous,
    })
    const { failure } = outcome
    if (failure) options.failed(script, { ...outcome, failure })
    progress(tally)
    if (tally.failed.length >= options.failuresMax) break
  }
  return tally
}

/** What users did; faults do not count. */
function userOperations(counts: ReadonlyMap<string, number>): number {
  let sum = 0
  for (const [what, count] of counts) if (what.startsWith('user ')) sum += count
  return sum
}
