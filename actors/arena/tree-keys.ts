/** Keys of the store's tables: a path with NUL for `/`, so that a folder's entries follow it directly and byte order is tree order. */
import type { EntryPath } from '../../protocol/ids.ts'

export function treeKey(path: EntryPath): Buffer {
  return Buffer.from(path.replaceAll('/', '\0'))
}

export function pathOf(key: Buffer): EntryPath {
  return key.toString().replaceAll('\0', '/') as EntryPath
}

/** The least key after this one. */
export function successor(key: Buffer): Buffer {
  return Buffer.concat([key, Buffer.of(0)])
}

export function endOfSubtree(path: EntryPath): Buffer {
  return Buffer.concat([treeKey(path), Buffer.of(1)])
}

export function successorOfPrefix(prefix: Buffer): Buffer {
  return Buffer.concat([prefix, Buffer.alloc(1, 0xff)])
}

/** 8 bytes, big endian, so that byte order is the order of numbers. */
export function numberKey(number: number): Buffer {
  const key = Buffer.allocUnsafe(8)
  const least = Math.min(number, Number.MAX_SAFE_INTEGER)
  const high = Math.floor(least / 2 ** 32)
  key.writeUInt32BE(high, 0)
  key.writeUInt32BE(least - high * 2 ** 32, 4)
  return key
}

export function numberOf(key: Buffer): number {
  return key.readUInt32BE(0) * 2 ** 32 + key.readUInt32BE(4)
}
