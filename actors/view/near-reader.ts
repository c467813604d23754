/**
 * Reads the device in the view's own thread while programs ask one thing after another, as `find`, `git status` and `rsync` do. The way
 * of a request through a reading thread costs that thread's awakening, and the view's: on a machine at rest most of an answer's time.
 *
 * Between two requests it looks again and again, with a turn of the event loop for whatever else waits. That costs the processor, so it is
 * paid for: requests earn it some time, and those that it found earn more.
 */
import { constants } from 'node:os'
import { REQUEST_BYTES_MAX } from './fuse-protocol.ts'
import { contentBytesOf } from './fuse-request.ts'

/** Requests further apart do not follow on each other. */
const CLOSE_MS = 0.5
/** How long it looks for the next. */
const LOOK_MS = 0.15
/** Looking costs what it lasts. What a request earns by itself and if it was found here, and how much can be saved. */
const EARNED_MS = 0.01
const EARNED_FOUND_MS = 0.15
const SAVED_MS_MAX = 3
/** A request for so much content is one of many, and for the reading threads: to have taken it from them costs as much as this. */
const LARGE_BYTES = 64 * 1024
const LARGE_COST_MS = 2
const OWED_MS_MAX = 4
/** Requests taken in one turn of the event loop. */
const TURN_REQUESTS = 16

const { EAGAIN, EINTR, ENOENT } = constants.errno

export interface NearReaderOutlet {
  /** Bytes of the next request; or an errno, negated, if there is none. */
  read(bytes: Uint8Array): number
  /** Takes a request; the bytes are its own. */
  receive(bytes: Uint8Array): void
  /** Milliseconds of a clock that only goes on. */
  now(): number
  /** Runs something after one turn of the event loop. */
  nextTurn(action: () => void): void
  /** While it looks the reading threads need not. */
  looking(on: boolean): void
}

export class NearReader {
  readonly #outlet: NearReaderOutlet
  readonly #bytes = new Uint8Array(REQUEST_BYTES_MAX)
  readonly #view = new DataView(this.#bytes.buffer)
  /** When the last request came. */
  #lastMs = Number.NEGATIVE_INFINITY
  /** Until when looking has been paid for. */
  #lookedMs = 0
  #savedMs = SAVED_MS_MAX
  #looking = false
  #stopped = false

  constructor(outlet: NearReaderOutlet) {
    this.#outlet = outlet
  }

  /** A request came, through a reading thread. */
  came(): void {
    const nowMs = this.#outlet.now()
    const close = nowMs - this.#lastMs < CLOSE_MS
    this.#lastMs = nowMs
    this.#earn(EARNED_MS)
    if (!close || this.#looking || this.#stopped || this.#savedMs < LOOK_MS) return
    this.#looking = true
    this.#outlet.looking(true)
    this.#lookedMs = nowMs
    this.#outlet.nextTurn(this.#look)
  }

  /** The device is about to be closed. */
  stop(): void {
    this.#stopped = true
    if (this.#looking) this.#end()
  }

  readonly #look = (): void => {
    const { read, receive, now, nextTurn } = this.#outlet
    for (let taken = 0; taken < TURN_REQUESTS; ) {
      if (this.#stopped) return
      const length = read(this.#bytes)
      if (length === -EINTR || length === -ENOENT) continue
      if (length < 0) {
        // Nothing yet; or the mount is gone, as the reading threads will say.
        const nowMs = now()
        this.#savedMs -= nowMs - this.#lookedMs
        this.#lookedMs = nowMs
        if (length !== -EAGAIN || nowMs - this.#lastMs >= LOOK_MS || this.#savedMs <= 0) return this.#end()
        break
      }
      taken++
      const content = contentBytesOf(this.#view)
      receive(this.#bytes.slice(0, length))
      this.#earn(content !== null && content >= LARGE_BYTES ? -LARGE_COST_MS : EARNED_FOUND_MS)
      this.#lastMs = this.#lookedMs = now()
      // Content is for the reading threads, which may wait for a disk.
      if (content !== null) return this.#end()
    }
    nextTurn(this.#look)
  }

  #end(): void {
    this.#looking = false
    this.#outlet.looking(false)
  }

  #earn(ms: number): void {
    this.#savedMs = Math.max(-OWED_MS_MAX, Math.min(SAVED_MS_MAX, this.#savedMs + ms))
  }
}
