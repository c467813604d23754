/**
 * Buffers for the leaves of one message, used again and again: allocating one for each costs more than filling it. Of shared memory,
 * so that they are passed to another thread as they are, and the garbage collector does not count them on their way.
 */
import { LEAF_BYTES, LEAVES_PER_MESSAGE } from '../../protocol/limits.ts'

export const MESSAGE_BYTES = LEAVES_PER_MESSAGE * LEAF_BYTES
/** More than the number in use changes by: memory that is shared is not counted, so none may become garbage all the time. */
const SPARE_MAX = 16

let spare: SharedArrayBuffer[] = []

/** @param bytes up to MESSAGE_BYTES. Its content is what was in it before. */
export function takeBuffer(bytes: number): Buffer {
  return Buffer.from(spare.pop() ?? new SharedArrayBuffer(MESSAGE_BYTES), 0, bytes)
}

export function isMessageBuffer(payload: Uint8Array): boolean {
  return payload.buffer instanceof SharedArrayBuffer
}

/** Takes back what nobody reads or writes any more. */
export function giveBuffer({ buffer }: Uint8Array): void {
  if (buffer instanceof SharedArrayBuffer && spare.length < SPARE_MAX) spare.push(buffer)
}

/** Lets go of those that nobody uses now. */
export function dropBuffers(): void {
  spare = []
}
