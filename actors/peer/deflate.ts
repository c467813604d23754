/**
 * Frames made smaller where the way is slow: when it pays, what is sent, and how it is read safely. Measured on content of a
 * source tree and on feed entries (zlib level 1, one core): 130 to 165 MB/s for a third to a quarter of the bytes, inflated at
 * 330 to 450 MB/s; higher levels win little. So it pays below some 50 MB/s, and costs time on loopback and a fast network.
 */
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib'
import { SyncError } from '../../protocol/error.ts'
import { encodeFrame, FRAME_LIMITS, type Frame, FrameReader } from '../../protocol/frame.ts'
import { DEFLATED_RATIO_MAX } from '../../protocol/limits.ts'
import type { WireMessage } from '../../protocol/wire.ts'

/** Bytes a second. A limit on sending up to this makes the way slow. */
const SLOW_RATE = 50_000_000
/** So does a socket that was full and has been emptied no faster. */
const SLOW_LINK = 10_000_000
/** A socket that held less than this says nothing about the way. */
const TELLING_BYTES = 256 * 1024
/** Frames smaller than this stay as they are. */
const FRAME_BYTES_MIN = 4 * 1024
/** A piece from the middle tells whether the rest is worth it: most of what is large has been compressed before. */
const SAMPLE_BYTES = 16 * 1024
const SHRUNK_PART = 0.85
const LEVEL = constants.Z_BEST_SPEED

/** How fast a socket is emptied, as far as that has been seen. Clock readings are arguments. */
export class LinkSpeed {
  #fullSinceMs = 0
  #bytes = 0
  /** Bytes a second; undefined while nothing is known. */
  #perSecond: number | undefined

  full(bytes: number, nowMs: number): void {
    this.#bytes = bytes
    this.#fullSinceMs = nowMs
  }

  emptied(nowMs: number): void {
    if (this.#bytes >= TELLING_BYTES) this.#perSecond = (this.#bytes * 1000) / Math.max(1, nowMs - this.#fullSinceMs)
    this.#bytes = 0
  }

  /** @param rate limit on sending, bytes a second; 0: none */
  isSlow(rate: number): boolean {
    return (rate > 0 && rate <= SLOW_RATE) || (this.#perSecond !== undefined && this.#perSecond <= SLOW_LINK)
  }
}

/** Whether a batch names what was renamed: then nothing of it is content or hash, and it shrinks to a tenth. */
export function saysMoves({ entries }: Extract<WireMessage, { type: 'feed' }>): boolean {
  return entries.some(({ moved }) => moved !== undefined)
}

/** The same frame inside a smaller one, or as it is where that is not smaller. @param frame as encodeFrame made it */
export function deflateFrame(frame: Uint8Array[]): Uint8Array[] {
  const bytes = frame.reduce((sum, part) => sum + part.length, 0)
  if (bytes < FRAME_BYTES_MIN) return frame
  const largest = frame.reduce((one, other) => (other.length > one.length ? other : one))
  const from = Math.max(0, Math.floor((largest.length - SAMPLE_BYTES) / 2))
  const sample = largest.subarray(from, from + SAMPLE_BYTES)
  if (deflateRawSync(sample, { level: LEVEL }).length > sample.length * SHRUNK_PART) return frame
  const deflated = deflateRawSync(Buffer.concat(frame), { level: LEVEL })
  if (deflated.length > bytes * SHRUNK_PART || deflated.length * DEFLATED_RATIO_MAX < bytes) return frame
  return encodeFrame({ type: 'deflated', bytes } satisfies WireMessage, deflated)
}

/**
 * The frame that is in a `deflated` message. Never makes more than the message says, and that is bounded by what came.
 * Throws `frame_invalid`, `limit_exceeded`.
 */
export function inflateFrame(bytes: number, payload: Uint8Array | undefined): Frame {
  if (!payload || bytes > payload.length * DEFLATED_RATIO_MAX)
    throw new SyncError('limit_exceeded', `${payload?.length ?? 0} bytes are said to be ${bytes}, deflated`)
  const reader = new FrameReader(FRAME_LIMITS)
  reader.push(inflate(bytes, payload))
  const frame = reader.next()
  if (!frame || reader.heldBytes > 0) throw new SyncError('frame_invalid', 'what was deflated is not one frame')
  return frame
}

function inflate(bytes: number, payload: Uint8Array): Uint8Array {
  let inflated: Buffer
  try {
    inflated = inflateRawSync(payload, { maxOutputLength: bytes })
  } catch (error) {
    throw new SyncError('frame_invalid', 'what was deflated cannot be inflated to what was said', { cause: error })
  }
  if (inflated.length !== bytes)
    throw new SyncError('frame_invalid', `what was deflated is ${inflated.length} bytes, not ${bytes}`)
  return inflated
}
