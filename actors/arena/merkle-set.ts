/**
 * One number for all living entries, so that two peers can see whether they know the same. Each entry has a digest; digests
 * are XORed into 256 buckets chosen by the path; the root is the digest of the buckets. A change costs O(1).
 */
import type { EntryPath } from '../../protocol/ids.ts'
import { type Content, compareVectors, mtimeOf, type Version } from './version.ts'

/** BLAKE2b-256. */
export type Digest = (bytes: Uint8Array) => Uint8Array

export const BUCKETS = 256
export const DIGEST_BYTES = 32

/** Path, type, hash, exec bit, target, mtime, vector and g: all that peers must agree on. */
export function entryDigest(path: EntryPath, version: Version, digest: Digest): Uint8Array {
  return digest(Buffer.from(wholeOf(path, version)))
}

/** `[path, type, what, vector, g]` as JSON, put together by hand: it is made twice for each change of each entry. */
function wholeOf(path: EntryPath, { content, vector, g }: Version): string {
  let counts = ''
  for (const [replica, count] of vector) counts += `${counts === '' ? '' : ','}["${replica}",${count}]`
  return `[${JSON.stringify(path)},"${content.type}",${whatOf(content)},[${counts}],${g}]`
}

function whatOf(content: Content): string {
  if (content.type === 'file')
    return `["${content.hash}",${content.size},${content.exec ? 1 : 0},"${mtimeOf(content)}"]`
  return content.type === 'symlink' ? `[${JSON.stringify(content.target)}]` : '[]'
}

/** Whether two versions have the same digest, without computing it. */
export function sameDigest(a: Version, b: Version): boolean {
  return a === b || (a.g === b.g && sameWhole(a.content, b.content) && compareVectors(a.vector, b.vector) === 'same')
}

function sameWhole(a: Content, b: Content): boolean {
  if (a.type === 'file')
    return b.type === 'file' && a.hash === b.hash && a.size === b.size && a.exec === b.exec && a.mtimeNs === b.mtimeNs
  return a.type === b.type && (a.type !== 'symlink' || b.type !== 'symlink' || a.target === b.target)
}

export function bucketOf(path: EntryPath): number {
  // FNV-1a over the path: only spreads entries over buckets, so that a difference can be narrowed down.
  let sum = 2166136261
  for (let i = 0; i < path.length; i++) sum = Math.imul(sum ^ path.charCodeAt(i), 16777619)
  return (sum >>> 0) % BUCKETS
}

/** Adds an entry's digest to its bucket, or takes it out: the same operation. Changes `buckets`. */
export function toggle(buckets: Uint8Array, path: EntryPath, entry: Uint8Array): void {
  const at = bucketOf(path) * DIGEST_BYTES
  for (let i = 0; i < DIGEST_BYTES; i++) buckets[at + i] = (buckets[at + i] as number) ^ (entry[i] as number)
}

export function rootOfBuckets(buckets: Uint8Array, digest: Digest): string {
  return Buffer.from(digest(buckets)).toString('hex')
}
