/**
 * How often something may happen, by whom: so many at once, so many a second after that. Pure: clock readings are arguments.
 *
 * Remembered of each is only what it has used up; of whom nothing is remembered may do all of it. Beyond SUBJECTS_MAX all others
 * share one allowance, so a crowd of names is no way around it.
 */

const SUBJECTS_MAX = 1000
/** Who can be forgotten is looked for no more often. */
const FORGET_MS = 1000

interface Used {
  count: number
  atMs: number
}

export class Pace {
  readonly #burst: number
  readonly #perSecond: number
  readonly #used = new Map<string, Used>()
  #forgotMs = Number.NEGATIVE_INFINITY

  constructor(burst: number, perSecond: number) {
    this.#burst = burst
    this.#perSecond = perSecond
  }

  /** Whether this one may, now; if so it counts. */
  allows(subject: string, nowMs: number): boolean {
    const used = this.#of(subject, nowMs)
    used.count = Math.max(0, used.count - (Math.max(0, nowMs - used.atMs) / 1000) * this.#perSecond)
    used.atMs = nowMs
    if (used.count + 1 > this.#burst) return false
    used.count++
    return true
  }

  #of(subject: string, nowMs: number): Used {
    const known = this.#used.get(subject)
    if (known) return known
    if (this.#used.size >= SUBJECTS_MAX && Math.abs(nowMs - this.#forgotMs) >= FORGET_MS) this.#forget(nowMs)
    const name = this.#used.size >= SUBJECTS_MAX ? '' : subject
    const used = this.#used.get(name) ?? { count: 0, atMs: nowMs }
    this.#used.set(name, used)
    return used
  }

  /** Those who have all of it again. */
  #forget(nowMs: number): void {
    this.#forgotMs = nowMs
    for (const [subject, { count, atMs }] of this.#used)
      if (count <= ((nowMs - atMs) / 1000) * this.#perSecond) this.#used.delete(subject)
  }
}
