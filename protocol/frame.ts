/**
 * Frames: how a stream of bytes is cut into messages. Pure.
 *
 * A frame is the length of the header (u32, big endian), the length of the payload (u32, big endian), the header (JSON,
 * UTF-8) and the payload. What a header means is not known here (protocol/wire.ts).
 */
import { SyncError } from './error.ts'
import { GREETING_BYTES_MAX, HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX } from './limits.ts'

/** The two lengths. */
const LENGTHS_BYTES = 8

export interface FrameLimits {
  headerBytesMax: number
  payloadBytesMax: number
  /** Header and payload together. */
  frameBytesMax: number
}

/** Before a peer has said who it is. */
export const GREETING_LIMITS: FrameLimits = {
  headerBytesMax: GREETING_BYTES_MAX,
  payloadBytesMax: GREETING_BYTES_MAX,
  frameBytesMax: GREETING_BYTES_MAX,
}

export const FRAME_LIMITS: FrameLimits = {
  headerBytesMax: HEADER_BYTES_MAX,
  payloadBytesMax: PAYLOAD_BYTES_MAX,
  frameBytesMax: HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX,
}

export interface Frame {
  /** Any JSON value: not checked. */
  header: unknown
  /** With a buffer of its own, which can be transferred, unless the reader was told of another. Absent if there is none. */
  payload?: Uint8Array
  /** Header and payload together. */
  bytes: number
}

/**
 * The bytes of a frame, to be written one after the other. The payload is not copied: it must not change until it is
 * written. Throws `limit_exceeded` on what every receiver would refuse.
 */
export function encodeFrame(header: object, payload?: Uint8Array): Uint8Array[] {
  const json = JSON.stringify(header)
  const headerBytes = Buffer.byteLength(json)
  const payloadBytes = payload?.length ?? 0
  checkLengths(headerBytes, payloadBytes, FRAME_LIMITS)
  const head = Buffer.allocUnsafe(LENGTHS_BYTES + headerBytes)
  head.writeUInt32BE(headerBytes, 0)
  head.writeUInt32BE(payloadBytes, 4)
  head.write(json, LENGTHS_BYTES, 'utf8')
  return payload && payloadBytes > 0 ? [head, payload] : [head]
}

/**
 * Cuts chunks, as they come, into frames. Each byte of a payload is copied once, from its chunk into the payload's own
 * buffer; nothing is looked at twice. Chunks are kept until `next` has used them: call `next` until it has
 * nothing more before the next `push`, or what is kept grows.
 *
 * After an error the stream has lost its place: the reader throws the same again.
 */
export class FrameReader {
  limits: FrameLimits
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  #chunks: Uint8Array[] = []
  /** Used bytes of the first chunk. */
  #used = 0
  /** Bytes in chunks, less the used ones. */
  #available = 0
  /** What is being filled: the lengths, then the header, then the payload. */
  #part: 'lengths' | 'header' | 'payload' = 'lengths'
  #target: Uint8Array = new Uint8Array(LENGTHS_BYTES)
  #filled = 0
  #headerBytes = 0
  #payloadBytes = 0
  #header: unknown
  #error: SyncError | undefined
  readonly #bufferFor: (header: unknown, bytes: number) => Uint8Array | undefined

  /**
   * @param bufferFor gives the buffer for a payload of so many bytes, if not a new one. The header is not checked yet, and the
   *   payload may never become whole.
   */
  constructor(
    limits: FrameLimits,
    bufferFor: (header: unknown, bytes: number) => Uint8Array | undefined = () => undefined,
  ) {
    this.limits = limits
    this.#bufferFor = bufferFor
  }

  /** The chunk is kept, not copied: it must not change afterwards. */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0 || this.#error) return
    this.#chunks.push(chunk)
    this.#available += chunk.length
  }

  /** Bytes pushed and not yet part of a frame that was given out, allocated buffers included. For tests of the limits. */
  get heldBytes(): number {
    return this.#available + (this.#part === 'lengths' ? 0 : this.#target.length)
  }

  /** Bytes of the frame that has begun and is not whole yet; 0 between two frames. */
  get begunBytes(): number {
    if (this.#part === 'lengths') return this.#filled
    const before = this.#part === 'header' ? LENGTHS_BYTES : LENGTHS_BYTES + this.#headerBytes
    return before + this.#filled
  }

  /** The next whole frame, or undefined until more is pushed. Throws `frame_invalid`, `limit_exceeded`. */
  next(): Frame | undefined {
    if (this.#error) throw this.#error
    try {
      return this.#next()
    } catch (error) {
      if (!(error instanceof SyncError)) throw error
      this.#error = error
      this.#chunks = []
      this.#available = 0
      throw error
    }
  }

  #next(): Frame | undefined {
    while (this.#fill()) {
      const filled = this.#target
      this.#filled = 0
      if (this.#part === 'lengths') {
        const view = new DataView(filled.buffer, filled.byteOffset)
        this.#headerBytes = view.getUint32(0)
        this.#payloadBytes = view.getUint32(4)
        checkLengths(this.#headerBytes, this.#payloadBytes, this.limits)
        this.#part = 'header'
        this.#target = allocate(this.#headerBytes)
      } else if (this.#part === 'header') {
        this.#header = this.#parse(filled)
        if (this.#payloadBytes === 0) return this.#finish(undefined)
        this.#part = 'payload'
        this.#target = this.#bufferFor(this.#header, this.#payloadBytes) ?? allocate(this.#payloadBytes)
      } else {
        return this.#finish(filled)
      }
    }
    return undefined
  }

  #finish(payload: Uint8Array | undefined): Frame {
    const header = this.#header
    this.#header = undefined
    this.#part = 'lengths'
    this.#target = new Uint8Array(LENGTHS_BYTES)
    const bytes = this.#headerBytes + this.#payloadBytes
    return payload ? { header, payload, bytes } : { header, bytes }
  }

  /** Moves bytes into the target. True once it is full. */
  #fill(): boolean {
    while (this.#filled < this.#target.length) {
      const chunk = this.#chunks[0]
      if (!chunk) return false
      const count = Math.min(chunk.length - this.#used, this.#target.length - this.#filled)
      this.#target.set(chunk.subarray(this.#used, this.#used + count), this.#filled)
      this.#filled += count
      this.#used += count
      this.#available -= count
      if (this.#used === chunk.length) {
        this.#chunks.shift()
        this.#used = 0
      }
    }
    return true
  }

  #parse(bytes: Uint8Array): unknown {
    let text: string
    try {
      text = this.#decoder.decode(bytes)
    } catch (error) {
      throw new SyncError('frame_invalid', 'the header of a frame is not UTF-8', { cause: error })
    }
    try {
      return JSON.parse(text)
    } catch (error) {
      throw new SyncError('frame_invalid', 'the header of a frame is not JSON', { cause: error })
    }
  }
}

/** With a buffer of its own (a pooled one cannot be transferred), not zeroed: it is filled before anybody sees it. */
function allocate(bytes: number): Uint8Array {
  return Buffer.allocUnsafeSlow(bytes)
}

function checkLengths(headerBytes: number, payloadBytes: number, limits: FrameLimits): void {
  if (headerBytes === 0) throw new SyncError('frame_invalid', 'a frame without a header')
  if (headerBytes > limits.headerBytesMax)
    throw new SyncError('limit_exceeded', `a header of ${headerBytes} bytes; the limit is ${limits.headerBytesMax}`)
  if (payloadBytes > limits.payloadBytesMax)
    throw new SyncError('limit_exceeded', `a payload of ${payloadBytes} bytes; the limit is ${limits.payloadBytesMax}`)
  if (headerBytes + payloadBytes > limits.frameBytesMax)
    throw new SyncError(
      'limit_exceeded',
      `a frame of ${headerBytes + payloadBytes} bytes; the limit is ${limits.frameBytesMax}`,
    )
}
