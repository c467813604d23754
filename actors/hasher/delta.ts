/**
 * rsync's delta: what of some content is in an older one, at any offset. The one who has the older content signs its blocks, the
 * one who has the newer finds these blocks in it by a rolling hash, and says the newer as copies of blocks and the bytes between.
 * docs/delta.md has the format. Pure.
 *
 * There is no second, strong hash of each block: the result is verified leaf by leaf against the Merkle tree of the newer content,
 * and a leaf that is not right is fetched. So a search never hashes twice, whatever signature it is given: its time grows
 * with the content alone.
 *
 * @see https://rsync.samba.org/tech_report/
 */
import { SyncError } from '../../protocol/error.ts'
import { BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, ROLLING_BYTES, SIGNATURE_BLOCKS_MAX } from '../../protocol/limits.ts'
import { type Rolling, rolling } from './rolling.ts'

/** Each operation begins with two numbers, u32 LE: the first block and how many, or LITERAL and how many bytes follow. */
const OPERATION_BYTES = 8
const LITERAL = 0xffffffff

/**
 * Bytes per block for a base of so many: about the square root of 8 times its length, a power of two, so that the signature and what
 * is lost around a small change cost about the same.
 */
export function blockBytes(baseBytes: number): number {
  let block = BLOCK_BYTES_MIN
  while (block < BLOCK_BYTES_MAX && (block * block < 8 * baseBytes || baseBytes / block > SIGNATURE_BLOCKS_MAX))
    block *= 2
  return block
}

/** Hashes of the whole blocks of `base`; a shorter last one has none. */
export function signatureOf(base: Uint8Array, block: number, search: Rolling = rolling()): Uint8Array {
  const blocks = Math.floor(base.length / block)
  const signature = new Uint8Array(blocks * ROLLING_BYTES)
  search.data.set(base)
  for (let number = 0; number < blocks; number++) search.sign(number * block, block, signature, number * ROLLING_BYTES)
  return signature
}

/** Says `target` by the blocks that were signed. Any bytes will do for a signature; not longer than target + 2 operations a block. */
export function makeDelta(
  target: Uint8Array,
  signature: Uint8Array,
  block: number,
  search: Rolling = rolling(),
): Uint8Array {
  const parts: Uint8Array[] = []
  let literal = 0
  const sayLiteral = (end: number) => {
    if (end === literal) return
    parts.push(operation(LITERAL, end - literal), target.subarray(literal, end))
    literal = end
  }
  const here = new Uint8Array(ROLLING_BYTES)
  const blocks = Math.floor(signature.length / ROLLING_BYTES)
  search.data.set(target)
  search.seek(signature)
  const end = target.length - block + 1
  for (let hit = search.next(0, end, block); hit; hit = search.next(literal, end, block)) {
    sayLiteral(hit.at)
    let count = 1
    // The blocks that follow there most likely follow here: of equal blocks the one that goes on is meant.
    for (; hit.number + count < blocks && hit.at + (count + 1) * block <= target.length; count++) {
      search.sign(hit.at + count * block, block, here, 0)
      const at = (hit.number + count) * ROLLING_BYTES
      if (Buffer.compare(here, signature.subarray(at, at + ROLLING_BYTES)) !== 0) break
    }
    parts.push(operation(hit.number, count))
    literal = hit.at + count * block
  }
  sayLiteral(target.length)
  return Buffer.concat(parts)
}

function operation(first: number, count: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(OPERATION_BYTES)
  bytes.writeUInt32LE(first, 0)
  bytes.writeUInt32LE(count, 4)
  return bytes
}

/** What a delta says: exactly `length` bytes. Throws `message_invalid` where it refers outside of the base or says more or less. */
export function applyDelta(base: Uint8Array, delta: Uint8Array, block: number, length: number): Uint8Array {
  const target = new Uint8Array(length)
  const blocks = Math.floor(base.length / block)
  const view = new DataView(delta.buffer, delta.byteOffset, delta.byteLength)
  let filled = 0
  const take = (bytes: Uint8Array) => {
    if (bytes.length === 0 || filled + bytes.length > length) throw invalid('says more than was asked, or nothing')
    target.set(bytes, filled)
    filled += bytes.length
  }
  for (let at = 0; at < delta.length; ) {
    if (at + OPERATION_BYTES > delta.length) throw invalid('ends in an operation')
    const first = view.getUint32(at, true)
    const count = view.getUint32(at + 4, true)
    at += OPERATION_BYTES
    if (first === LITERAL) {
      if (count > delta.length - at) throw invalid('ends in its bytes')
      take(delta.subarray(at, at + count))
      at += count
    } else {
      if (first + count > blocks) throw invalid('refers outside of its base')
      take(base.subarray(first * block, (first + count) * block))
    }
  }
  if (filled !== length) throw invalid('says less than was asked')
  return target
}

function invalid(what: string): SyncError {
  return new SyncError('message_invalid', `the delta ${what}`)
}
