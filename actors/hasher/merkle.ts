/**
 * The Merkle tree that names a blob. docs/merkle.md has the format with test vectors.
 *
 * ```
 * leaf  = H(0x00 ‖ content)                  128 KiB of it, the last one shorter
 * node  = H(0x01 ‖ left ‖ right)             a node without a partner is promoted as it is
 * root  = H(0x02 ‖ size, u64 LE ‖ top)       top: the one node that is left; nothing for an empty file
 * ```
 *
 * Nodes are paired by position, so an aligned run of 4096 leaves (a *group*) always has a subtree of its own: the top
 * over all leaves is the top over the groups. A blob of any size is checked with one group's leaves in memory.
 *
 * Lists of hashes are one Uint8Array, 32 bytes each. Pure: the engine is an argument, defaulted.
 */
import type { BlobHash } from '../../protocol/ids.ts'
import { GROUP_LEAVES, LEAF_BYTES } from '../../protocol/limits.ts'
import { type Blake2b, engine as defaultEngine, HASH_BYTES } from './engine.ts'

export { HASH_BYTES } from './engine.ts'

const LEAF = 0
const NODE = 1
const ROOT = 2

/** Leaves of a blob of so many bytes; none for an empty one. */
export function leafCount(size: number): number {
  return Math.ceil(size / LEAF_BYTES)
}

/** Groups of a blob of so many bytes. */
export function groupCount(size: number): number {
  return Math.ceil(leafCount(size) / GROUP_LEAVES)
}

/** Hash of one leaf's content: 1 to LEAF_BYTES bytes. */
export function leafHash(bytes: Uint8Array, engine: Blake2b = defaultEngine): Uint8Array {
  if (bytes.length === 0 || bytes.length > LEAF_BYTES)
    throw new RangeError(`a leaf has 1 to ${LEAF_BYTES} bytes, not ${bytes.length}`)
  return engine.hash256(LEAF, bytes)
}

/** Leaf hashes of content that starts at a leaf's start. Nothing for no content. */
export function hashLeaves(bytes: Uint8Array, engine: Blake2b = defaultEngine): Uint8Array {
  const hashes = new Uint8Array(leafCount(bytes.length) * HASH_BYTES)
  for (let offset = 0, at = 0; offset < bytes.length; offset += LEAF_BYTES, at += HASH_BYTES)
    hashes.set(engine.hash256(LEAF, bytes.subarray(offset, offset + LEAF_BYTES)), at)
  return hashes
}

/** Hash of the subtree of each aligned run of GROUP_LEAVES leaves; the last run may be shorter. */
export function groupNodes(leaves: Uint8Array, engine: Blake2b = defaultEngine): Uint8Array {
  return nodesOver(leaves, GROUP_LEAVES, engine)
}

/** Hash of the subtree of each aligned run of so many nodes of one level, a power of two; the last run may be shorter. */
export function nodesOver(list: Uint8Array, width: number, engine: Blake2b = defaultEngine): Uint8Array {
  checkList(list)
  const runBytes = width * HASH_BYTES
  const nodes = new Uint8Array(Math.ceil(list.length / runBytes) * HASH_BYTES)
  for (let offset = 0, at = 0; offset < list.length; offset += runBytes, at += HASH_BYTES)
    nodes.set(topOf(list.subarray(offset, offset + runBytes), engine), at)
  return nodes
}

/** The one node over a list of nodes of one level (leaves or groups). Nothing over nothing. */
export function topOf(nodes: Uint8Array, engine: Blake2b = defaultEngine): Uint8Array {
  checkList(nodes)
  let level = nodes
  while (level.length > HASH_BYTES) {
    const above = new Uint8Array(Math.ceil(level.length / (2 * HASH_BYTES)) * HASH_BYTES)
    for (let offset = 0, at = 0; offset < level.length; offset += 2 * HASH_BYTES, at += HASH_BYTES) {
      const pair = level.subarray(offset, offset + 2 * HASH_BYTES)
      above.set(pair.length === HASH_BYTES ? pair : engine.hash256(NODE, pair), at)
    }
    level = above
  }
  return level.slice()
}

/** A blob's name from its size and all its leaf hashes. Throws RangeError if their number does not fit the size. */
export function rootOf(size: number, leaves: Uint8Array, engine: Blake2b = defaultEngine): BlobHash {
  if (leaves.length !== leafCount(size) * HASH_BYTES)
    throw new RangeError(`${size} bytes do not have ${leaves.length / HASH_BYTES} leaves`)
  return nameOf(size, topOf(leaves, engine), engine)
}

/** The same from its group nodes. */
export function rootOfGroups(size: number, groups: Uint8Array, engine: Blake2b = defaultEngine): BlobHash {
  if (groups.length !== groupCount(size) * HASH_BYTES)
    throw new RangeError(`${size} bytes do not have ${groups.length / HASH_BYTES} groups`)
  return nameOf(size, topOf(groups, engine), engine)
}

/** The same from all nodes of any one level. */
export function nameOver(size: number, nodes: Uint8Array, engine: Blake2b = defaultEngine): BlobHash {
  return nameOf(size, topOf(nodes, engine), engine)
}

/** A blob's name from its content, whole in memory. */
export function hashSmall(bytes: Uint8Array, engine: Blake2b = defaultEngine): BlobHash {
  return rootOf(bytes.length, hashLeaves(bytes, engine), engine)
}

/** Whether `bytes` is the content of leaf number `index` of `leaves` (counted from the start of that list). */
export function verifyLeaf(
  leaves: Uint8Array,
  index: number,
  bytes: Uint8Array,
  engine: Blake2b = defaultEngine,
): boolean {
  if (bytes.length === 0 || bytes.length > LEAF_BYTES) return false
  const expected = leaves.subarray(index * HASH_BYTES, (index + 1) * HASH_BYTES)
  return expected.length === HASH_BYTES && Buffer.compare(expected, engine.hash256(LEAF, bytes)) === 0
}

let zeroes: Uint8Array | undefined

/** Hash of a whole leaf of zeroes, the leaf that a hole in a file gives. Shared: do not change it. */
export function zeroLeafHash(): Uint8Array {
  zeroes ??= leafHash(new Uint8Array(LEAF_BYTES))
  return zeroes
}

function nameOf(size: number, top: Uint8Array, engine: Blake2b): BlobHash {
  if (!Number.isSafeInteger(size) || size < 0) throw new RangeError(`${size} is not a size`)
  const length = new Uint8Array(8)
  new DataView(length.buffer).setBigUint64(0, BigInt(size), true)
  return Buffer.from(engine.hash256(ROOT, length, top)).toString('hex') as BlobHash
}

function checkList(hashes: Uint8Array): void {
  if (hashes.length % HASH_BYTES !== 0) throw new RangeError('a list of hashes has 32 bytes for each')
}
