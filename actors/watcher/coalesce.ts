/**
 * When to tell what was touched: at once after a quiet time, then together, less often the longer a burst goes on.
 *
 * ```
 * idle ──touch──► delivered at once, open for 20 ms ──► collects; at its end delivers, opens twice as long (≤ 200 ms)
 *   ▲                                                    │
 *   └──────────── a window that nothing came in ◄────────┘
 * ```
 *
 * Bounded: of more than `pathsMax` paths in one window only that is told (`null`), and the arena looks at everything. Pure: time is an
 * argument, and the timer is the caller's: it calls `due` at `dueMs`.
 */

export interface CoalesceLimits {
  /** First window of a burst. */
  windowMs: number
  /** Longest window. */
  windowMsMax: number
  /** Paths of one delivery; more are told as `null`. */
  pathsMax: number
}

export const COALESCE_LIMITS: CoalesceLimits = { windowMs: 20, windowMsMax: 200, pathsMax: 20_000 }

/** Paths in the order in which they were first touched, each once; `null`: too many to tell, or nobody knows which. */
export type Touched = string[] | null

export class Coalescer {
  readonly #limits: CoalesceLimits
  /** Collected in the open window; null: anything. */
  #paths: Set<string> | null = new Set()
  #windowMs = 0
  #dueMs: number | null = null

  constructor(limits: CoalesceLimits = COALESCE_LIMITS) {
    this.#limits = limits
  }

  /** When `due` must be called, or null while nothing is awaited. */
  get dueMs(): number | null {
    return this.#dueMs
  }

  /** These paths were touched (`null`: anything may have been). Returns what to deliver now: undefined for nothing yet. */
  touch(touched: Touched, nowMs: number): Touched | undefined {
    this.#collect(touched)
    if (this.#dueMs !== null || this.#empty) return undefined
    this.#open(this.#limits.windowMs, nowMs)
    return this.#take()
  }

  /** The window's end has come. Returns what to deliver now: undefined for nothing. */
  due(nowMs: number): Touched | undefined {
    if (this.#dueMs === null || nowMs < this.#dueMs) return undefined
    if (this.#empty) {
      this.#dueMs = null
      return undefined
    }
    this.#open(Math.min(this.#windowMs * 2, this.#limits.windowMsMax), nowMs)
    return this.#take()
  }

  get #empty(): boolean {
    return this.#paths?.size === 0
  }

  #collect(touched: Touched): void {
    if (touched === null) this.#paths = null
    for (const path of touched ?? []) this.#paths?.add(path)
    if (this.#paths !== null && this.#paths.size > this.#limits.pathsMax) this.#paths = null
  }

  #open(windowMs: number, nowMs: number): void {
    this.#windowMs = windowMs
    this.#dueMs = nowMs + windowMs
  }

  #take(): Touched {
    const paths = this.#paths
    this.#paths = new Set()
    return paths === null ? null : [...paths]
  }
}
