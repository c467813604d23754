/**
 * Finds what is here of a blob that is wanted: a file with its very content, the version that it replaces, or one that is most like it
 * among those removed lately and those in the same folder, as when a file is saved under another name. Only hints: what is
 * taken from them is verified.
 */
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import { nameOf, parentOf } from '../../protocol/path.ts'
import type { FileRef } from '../../protocol/ports.ts'
import { HASH_BYTES } from '../hasher/merkle.ts'
import type { ArenaContext } from './context.ts'

/** A blob of which a file is here. */
export interface OlderVersion {
  readonly hash: BlobHash
  /** 32 bytes each. */
  readonly leaves: Uint8Array
}

/** Files compared to find the one most alike, and entries looked at to find such files. */
const RELATIVES_MAX = 64
const ENTRIES_MAX = 256
/** More than so many times the size, or less than this part of it, is not taken for the same file. */
const SIZE_FACTOR_MAX = 8
/** What was removed so lately, or is in the same folder, and has nearly the size, may be the same file under another name. */
const LATELY_MS = 60_000
const SIZE_DIFFERENCE_MAX = 1 / 8

/** The file that has this content now, under whatever name: it may have moved to the version store since it was found. */
export function fileWith({ store, disk }: ArenaContext, hash: BlobHash): FileRef | null {
  for (const path of store.withHash(hash, 2)) {
    const stamp = store.entry(path)?.stamp
    if (stamp && stamp.ino !== 0n)
      return { path: disk.outsidePath(path), size: stamp.size, mtimeNs: stamp.mtimeNs, ino: stamp.ino }
  }
  const kept = store.keptWithHash(hash)
  const stat = kept ? disk.keptStat(kept.id) : null
  if (!kept || stat?.type !== 'file') return null
  return { path: disk.outsideKept(kept.id), size: stat.size, mtimeNs: stat.mtimeNs, ino: stat.ino }
}

/** What can be told from the names alone: the content itself, or the version that one of these paths shows. */
export function olderByName(context: ArenaContext, hash: BlobHash, paths: Iterable<EntryPath>): OlderVersion | null {
  const { store } = context
  const same = fileWith(context, hash) && versionOf(context, hash)
  if (same) return same
  for (const path of paths) {
    const content = store.entry(path)?.have?.content
    const version = content?.type === 'file' ? versionOf(context, content.hash) : null
    if (version) return version
  }
  return null
}

/** The one that shares most leaves with this tree; else one of the same path, name or about the size. */
export function olderByContent(
  context: ArenaContext,
  size: number,
  tree: Uint8Array,
  paths: ReadonlySet<EntryPath>,
): OlderVersion | null {
  const names = new Set(Array.from(paths, nameOf))
  const wanted = new Set<string>()
  for (let leaf = 0; leaf * HASH_BYTES < tree.length; leaf++) wanted.add(keyOf(tree, leaf))
  let best: OlderVersion | null = null
  let bestScore = 0
  const nowMs = context.clock.wallMs()
  const relatives = [...removed(context), ...siblings(context, paths)].filter(
    ({ bytes }) => bytes > LEAF_BYTES && bytes <= size * SIZE_FACTOR_MAX && bytes * SIZE_FACTOR_MAX >= size,
  )
  for (const { path, hash, bytes, atMs } of relatives.slice(0, RELATIVES_MAX)) {
    const version = versionOf(context, hash)
    if (!version) continue
    // One leaf in common says more than a name.
    const alike = nowMs - atMs < LATELY_MS && Math.abs(bytes - size) < size * SIZE_DIFFERENCE_MAX
    let score = paths.has(path) ? 0.5 : names.has(nameOf(path)) ? 0.25 : alike ? 0.1 : 0
    for (let leaf = 0; leaf * HASH_BYTES < version.leaves.length; leaf++)
      if (wanted.has(keyOf(version.leaves, leaf))) score++
    if (score <= bestScore) continue
    best = version
    bestScore = score
  }
  return best
}

function versionOf({ store }: ArenaContext, hash: BlobHash): OlderVersion | null {
  const leaves = store.leaves(hash)
  return leaves ? { hash, leaves } : null
}

interface Relative {
  path: EntryPath
  hash: BlobHash
  bytes: number
  atMs: number
}

/** Files that are about to be removed, and those that were removed last. */
function removed({ store, clock }: ArenaContext): Relative[] {
  const found: Relative[] = []
  for (const path of store.pendingPage(null, ENTRIES_MAX)) {
    const entry = store.entry(path)
    const shown = entry?.have?.content
    if (entry?.known.content.type === 'gone' && shown?.type === 'file')
      found.push({ path, hash: shown.hash, bytes: shown.size, atMs: clock.wallMs() })
  }
  for (const { path, hash, size, keptMs } of store.kept(null, RELATIVES_MAX))
    if (hash !== null) found.push({ path, hash, bytes: size, atMs: keptMs })
  return found
}

/** Files in the folder of one of these paths, or below. */
function siblings({ store, clock }: ArenaContext, paths: ReadonlySet<EntryPath>): Relative[] {
  const found: Relative[] = []
  for (const path of paths) {
    for (const entry of store.page(null, ENTRIES_MAX, parentOf(path) ?? null)) {
      const shown = entry.have?.content
      if (shown?.type === 'file')
        found.push({ path: entry.path, hash: shown.hash, bytes: shown.size, atMs: clock.wallMs() })
    }
    break
  }
  return found
}

function keyOf(hashes: Uint8Array, leaf: number): string {
  return Buffer.from(hashes.buffer, hashes.byteOffset + leaf * HASH_BYTES, HASH_BYTES).toString('latin1')
}
