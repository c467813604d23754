/**
 * Token bucket: how many bytes may pass now. Pure: clock readings are arguments.
 *
 * What is sent is taken at once and whole, into debt if need be; then nothing passes until the debt is paid. So single
 * messages may be greater than the bucket and the average is still exact.
 */
export class Bucket {
  /** Bytes a second; 0: no limit. */
  #rate: number
  /** Bytes that may pass; negative: debt. */
  #level = 0
  #atMs: number

  constructor(rate: number, nowMs: number) {
    this.#rate = rate
    this.#atMs = nowMs
  }

  get rate(): number {
    return this.#rate
  }

  /** Changes the rate from now on. Debt stays, and is paid at the new rate. */
  set(rate: number, nowMs: number): void {
    this.#settle(nowMs)
    this.#rate = rate
    if (rate === 0) this.#level = 0
  }

  take(bytes: number, nowMs: number): void {
    if (this.#rate === 0) return
    this.#settle(nowMs)
    this.#level -= bytes
  }

  /** Milliseconds until something may pass, whole and rounded up; 0: now. */
  waitMs(nowMs: number): number {
    if (this.#rate === 0) return 0
    this.#settle(nowMs)
    return this.#level >= 0 ? 0 : Math.ceil((-this.#level / this.#rate) * 1000)
  }

  /** While idle 50 ms worth is saved up: enough to forgive late timers, too little to exceed the rate noticeably. */
  #settle(nowMs: number): void {
    this.#level = Math.min(this.#rate / 20, this.#level + (Math.max(0, nowMs - this.#atMs) / 1000) * this.#rate)
    this.#atMs = nowMs
  }
}
