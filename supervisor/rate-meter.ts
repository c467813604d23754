/** Bytes a second over the last few seconds, from counts as they come. Pure: the clock comes in. */

const SPAN_MS = 5_000
const SLOT_MS = 500
const SLOTS = SPAN_MS / SLOT_MS

export class RateMeter {
  readonly #slots = new Float64Array(SLOTS)
  #newest = 0

  add(bytes: number, nowMs: number): void {
    this.#advance(nowMs)
    const slot = this.#newest % SLOTS
    this.#slots[slot] = (this.#slots[slot] ?? 0) + bytes
  }

  perSecond(nowMs: number): number {
    this.#advance(nowMs)
    let bytes = 0
    for (const slot of this.#slots) bytes += slot
    return Math.round((bytes * 1000) / SPAN_MS)
  }

  #advance(nowMs: number): void {
    const current = Math.floor(nowMs / SLOT_MS)
    const emptied = Math.min(SLOTS, current - this.#newest)
    for (let i = 1; i <= emptied; i++) this.#slots[(this.#newest + i) % SLOTS] = 0
    if (current > this.#newest) this.#newest = current
  }
}
