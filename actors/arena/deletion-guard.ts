/**
 * Whether deletions look like an accident, which stops the arena and asks (I9): many at once, or all that there was. Pure but for what it
 * remembers of the last seconds.
 */

/** Deletions below this number never stop an arena. */
export const GUARD_MIN = 20
/** So many make an arena stop if nothing at all is left. */
export const EMPTIED_MIN = 5
/** Deletions within this time count as one. */
const GUARD_WINDOW_MS = 10_000

export interface Deletions {
  readonly nowMs: number
  /** Entries that are gone now and were not told as such before. */
  readonly count: number
  /** Entries that are known, those among them. */
  readonly known: number
  /** The part of the entries that may be gone at once; from 1 on any may. */
  readonly part: number
  /** Whether nothing is left in the root. */
  readonly emptied: () => boolean
}

export class DeletionGuard {
  /** Deletions that were let through, oldest first. */
  #past: { readonly atMs: number; count: number }[] = []
  #allowed = false

  /** A person said that the next deletions are meant, however many. */
  get allowed(): boolean {
    return this.#allowed
  }

  allow(): void {
    this.#allowed = true
    this.#past = []
  }

  /** Those deletions have been told. */
  endAllowing(): void {
    this.#allowed = false
  }

  /** What is the matter with these deletions, as a sentence; null: they are let through, and count for those that follow. */
  fault({ nowMs, count, known, part, emptied }: Deletions): string | null {
    if (this.#allowed || part >= 1) return null
    this.#past = this.#past.filter(past => nowMs - past.atMs < GUARD_WINDOW_MS)
    const recent = this.#past.reduce((sum, past) => sum + past.count, 0)
    const before = known + recent
    const deleted = recent + count
    const isEmptied = deleted >= EMPTIED_MIN && emptied()
    if (isEmptied || (deleted >= GUARD_MIN && deleted > before * part)) {
      const much = isEmptied ? 'it is empty' : `more than ${Math.round(part * 100)}%`
      return `${deleted} of ${before} entries are gone from the folder, ${much}`
    }
    this.#past.push({ atMs: nowMs, count })
    return null
  }

  /** So many of those that were let through last are not told after all; they come again. */
  takeBack(count: number): void {
    const last = this.#past.at(-1)
    if (last !== undefined) last.count = Math.max(0, last.count - count)
  }
}
