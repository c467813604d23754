/** Time and chance, handed to whoever needs them, so that a test can hold them still. */

export interface Clock {
  /** Monotonic milliseconds. */
  nowMs(): number
  /** Milliseconds since 1970. */
  wallMs(): number
  /** In [0, 1). */
  random(): number
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  random: () => Math.random(),
}
