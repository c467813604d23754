/**
 * What waits to be written to a connection, and in which order. Pure.
 *
 * First what concerns the connection itself; then messages for which somebody waits; then those without a payload, which are small; then
 * uploads for which somebody waits; then messages with a payload and bulk uploads by turns. Arena messages of a kind keep their order among
 * themselves. Of several uploads each has one message, then the next.
 */
import { SyncError } from '../../protocol/error.ts'

/** Bytes of encoded messages that may wait. Arenas only answer what was asked, so more means that the other end asks and does not read. */
export const QUEUE_BYTES_MAX = 64 * 1024 * 1024
/** Messages about the connection itself that may wait: an honest peer never has more than a few pings and requests open. */
export const CONTROLS_MAX = 1000
/** What an encoded message costs beside its bytes: a flood of tiny ones is bounded too. */
const MESSAGE_OVERHEAD_BYTES = 200

/** An encoded message: its header, and its payload if it has one (protocol/frame.ts). */
export type Encoded = Uint8Array[]

interface Urgency {
  readonly urgent: boolean
}

export class Outbox<Upload extends Urgency> {
  #control: Encoded[] = []
  #waitedFor: Encoded[] = []
  #messages: Encoded[] = []
  #urgent: Upload[] = []
  #bulk: Upload[] = []
  #bytes = 0
  /** Whose turn among messages with a payload and bulk uploads it is. */
  #turn: 'message' | 'upload' = 'message'

  /** Throws `limit_exceeded`. */
  pushControl(message: Encoded): void {
    if (this.#control.length >= CONTROLS_MAX)
      throw new SyncError('limit_exceeded', 'the other end goes on asking and does not read')
    this.#count(message)
    this.#control.push(message)
  }

  /** Throws `limit_exceeded`. `urgent`: somebody waits for it, and its place among the others does not matter. */
  push(message: Encoded, urgent = false): void {
    this.#count(message)
    ;(urgent ? this.#waitedFor : this.#messages).push(message)
  }

  addUpload(upload: Upload): void {
    ;(upload.urgent ? this.#urgent : this.#bulk).push(upload)
  }

  removeUpload(upload: Upload): void {
    this.#urgent = this.#urgent.filter(one => one !== upload)
    this.#bulk = this.#bulk.filter(one => one !== upload)
  }

  /** Whether something waits that a rate limit can hold back. */
  get hasBulk(): boolean {
    return this.#waitedFor.length > 0 || this.#messages.length > 0 || this.#urgent.length > 0 || this.#bulk.length > 0
  }

  /**
   * Takes what is to be written next. An upload goes to the end of its line: remove it once it is done.
   *
   * @param bulk false: only what no rate limit holds back
   */
  next(bulk: boolean): { message: Encoded } | { upload: Upload } | undefined {
    const control = this.#control.shift()
    if (control) return this.#taken(control)
    if (this.#waitedFor.length > 0 && (bulk || this.#waitedFor[0]?.length === 1))
      return this.#taken(this.#waitedFor.shift() as Encoded)
    const small = this.#messages[0]?.length === 1
    if (small) return this.#taken(this.#messages.shift() as Encoded)
    if (!bulk) return undefined
    const urgent = this.#urgent.shift()
    if (urgent) {
      this.#urgent.push(urgent)
      return { upload: urgent }
    }
    if (this.#messages.length > 0 && (this.#turn === 'message' || this.#bulk.length === 0)) {
      this.#turn = 'upload'
      return this.#taken(this.#messages.shift() as Encoded)
    }
    this.#turn = 'message'
    const upload = this.#bulk.shift()
    if (!upload) return undefined
    this.#bulk.push(upload)
    return { upload }
  }

  #count(message: Encoded): void {
    const bytes = sizeOf(message)
    if (this.#bytes + bytes > QUEUE_BYTES_MAX)
      throw new SyncError(
        'limit_exceeded',
        `more than ${QUEUE_BYTES_MAX} bytes of answers wait: the other end goes on asking and does not read`,
      )
    this.#bytes += bytes
  }

  #taken(message: Encoded): { message: Encoded } {
    this.#bytes -= sizeOf(message)
    return { message }
  }
}

function sizeOf(message: Encoded): number {
  return message.reduce((sum, part) => sum + part.length, MESSAGE_OVERHEAD_BYTES)
}
