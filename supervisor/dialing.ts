/** When a peer is dialled again, and which of two connections with it is kept: pure. */
import type { PeerId } from '../protocol/ids.ts'

export const DIAL_DELAY_MIN_MS = 500
export const DIAL_DELAY_MAX_MS = 5 * 60_000

/**
 * Milliseconds before the next attempt: 2ⁿ · 0.5 s up to 5 min, with jitter of a quarter either way, so that peers that
 * lost each other at the same moment do not meet in step.
 *
 * @param failures attempts in a row without success, 0 or more
 * @param random in [0, 1)
 */
export function dialDelayMs(failures: number, random: number): number {
  const doubled = DIAL_DELAY_MIN_MS * 2 ** Math.min(failures, 20)
  const jittered = Math.min(doubled, DIAL_DELAY_MAX_MS) * (0.75 + random / 2)
  return Math.round(Math.min(DIAL_DELAY_MAX_MS, Math.max(DIAL_DELAY_MIN_MS, jittered)))
}

/** A connection that has been open for longer cannot be the twin of one that was just made: dialling and greeting end sooner. */
export const TWIN_MS = 30_000

export type Dialler = 'us' | 'them'

/**
 * Which of two open connections between us and a peer is kept. When both dialled at once, both keep the one that the
 * peer with the greater ID dialled, without asking each other. Otherwise the new one is: whoever dialled it has lost
 * the old.
 *
 * @param before who dialled the older one, and how long ago it was opened
 * @param after who dialled the newer one
 */
export function keptOf(
  ours: PeerId,
  theirs: PeerId,
  before: { dialler: Dialler; ageMs: number },
  after: { dialler: Dialler },
): 'before' | 'after' {
  if (before.dialler === after.dialler || before.ageMs > TWIN_MS) return 'after'
  const greater: Dialler = ours > theirs ? 'us' : 'them'
  return before.dialler === greater ? 'before' : 'after'
}
