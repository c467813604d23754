/**
 * The cache of an arena: content of blobs that are not real here, leaf by leaf, each verified before it counts. Which leaves of
 * which blobs are here, what may be dropped, and what must go for something new. Nothing in it is ever the only copy of anything.
 *
 * Bytes are written first and noted later, in bulk: a kill in between costs fetching them again. What is noted is not believed
 * either: after each start a leaf is held against its hash when it is first read, so that neither a power loss, nor whoever cleans up or restores
 * caches, makes it answer with anything but what the blob's name says.
 */
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { GROUP_LEAVES, LEAF_BYTES } from '../../protocol/limits.ts'
import type { CachedFile, Space } from '../../protocol/ports.ts'
import { groupCount, HASH_BYTES, leafCount, leafHash, nameOver, rootOfGroups, topOf } from '../hasher/merkle.ts'
import { type CacheFiles, SHELVES } from './cache-files.ts'
import { DiskError } from './disk.ts'
import type { Row, Tables } from './tables.ts'

/** Content by its name. */
export interface Blob {
  readonly hash: BlobHash
  readonly size: number
}

export interface CacheLimits {
  /** Most that it may take. */
  readonly max: Space
  /** What it leaves free on its disk. */
  readonly leave: Space
}

export interface CacheOptions {
  readonly tables: Tables
  readonly files: CacheFiles
  readonly limits: CacheLimits
  /** Milliseconds since 1970: only for the order in which things are dropped. */
  readonly wallMs: () => number
  /** Leaf hashes of a blob as the store has them, if it does. */
  readonly leavesOf: (hash: BlobHash) => Uint8Array | undefined
}

/** Blobs at hand, and bytes of their trees; what is not written down yet is at hand in any case. */
const AT_HAND_MAX = 256
const TREE_BYTES_MAX = 16 * 1024 * 1024
/** When something must go, so much more than needed goes: not one blob for each leaf that comes. */
const SLACK_BYTES_MAX = 16 * 1024 * 1024
const SLACK_PART = 1 / 64
/** Blobs looked at to find some that may go. */
const LOOKED_AT_MAX = 1000
/** A blob that is used is noted as used this often. */
const USED_EVERY_MS = 60_000
/** Leaves held against their hashes in one step when somebody wants the whole: 2 MiB. */
const WHOLE_STEP_LEAVES = 16

/** What is remembered of a blob. */
interface CachedRow {
  readonly size: number
  /** Of all leaves that are here. */
  readonly bytes: number
  readonly usedMs: number
  /** The path that wanted it pinned. */
  readonly pinnedBy: EntryPath | null
}

/** A blob at hand. */
interface Cached {
  readonly blob: Blob
  bytes: number
  usedMs: number
  pinnedBy: EntryPath | null
  /** As it is in the tables; null: it is not. */
  noted: CachedRow | null
  /** For each group a bit for each leaf: here; and held against its hash since this start. Loaded as they are needed. */
  readonly here: Map<number, Uint8Array>
  readonly verified: Map<number, Uint8Array>
  /** Verified nodes of the group level; null: not known (a blob of one group needs none). */
  groups: Uint8Array | null
  /** Verified leaf hashes of each group that is known. */
  readonly trees: Map<number, Uint8Array>
  readonly dirtyHere: Set<number>
  readonly dirtyTrees: Set<number>
  dirtyGroups: boolean
}

const TOTALS = Buffer.from('totals')
/** In place of a group's number: the nodes of all groups. */
const GROUPS = 0xffff
const PART_BYTES = GROUP_LEAVES / 8

export class Cache {
  readonly #tables: Tables
  readonly #files: CacheFiles
  readonly #options: CacheOptions
  #limits: CacheLimits
  /** The one used last is the last. */
  readonly #atHand = new Map<BlobHash, Cached>()
  readonly #dirty = new Set<Cached>()
  #treeBytes = 0
  /** How many readers each blob has just now. */
  readonly #open = new Map<BlobHash, number>()
  /** Of all leaves that are here. */
  #bytes: number
  #notedBytes: number
  #shelf = 0
  /** Whether this path still wants this blob wholly cached. */
  wantsPinned: (path: EntryPath, hash: BlobHash) => boolean = () => false
  /** Whether somebody has it open. */
  inUse: (hash: BlobHash) => boolean = () => false

  constructor(options: CacheOptions) {
    this.#options = options
    this.#tables = options.tables
    this.#files = options.files
    this.#limits = options.limits
    this.#notedBytes = (this.#tables.get('cached', TOTALS) as number | undefined) ?? 0
    this.#bytes = this.#notedBytes
  }

  /** Of all content that is cached. */
  get bytes(): number {
    return this.#bytes
  }

  /** Whether something is not written down yet: `flush` does it. */
  get dirty(): boolean {
    return this.#dirty.size > 0
  }

  setLimits(limits: CacheLimits): void {
    this.#limits = limits
    this.trim()
  }

  // Content

  /** Bytes of the blob that are here. */
  bytesOf({ hash }: Blob): number {
    const cached = this.#atHand.get(hash)
    return cached?.bytes ?? this.#row(hash)?.bytes ?? 0
  }

  hasAny(hash: BlobHash): boolean {
    return this.sizeOf(hash) !== undefined
  }

  has(blob: Blob, leaf: number): boolean {
    const cached = this.#find(blob)
    return cached !== null && bit(this.#partOf(cached, groupOf(leaf)), leaf)
  }

  /** Size of a blob of which something is here. */
  sizeOf(hash: BlobHash): number | undefined {
    const cached = this.#atHand.get(hash)
    // Of whom only hashes are known, nothing is here.
    return cached && cached.bytes > 0 ? cached.blob.size : this.#row(hash)?.size
  }

  /** Bytes [start, end) of a leaf, verified; null: they are not here. */
  part(blob: Blob, leaf: number, start: number, end: number): Uint8Array | null {
    const cached = this.#find(blob)
    if (!cached || !bit(this.#partOf(cached, groupOf(leaf)), leaf)) return null
    this.#used(cached)
    const length = leafBytes(blob, leaf)
    const offset = leaf * LEAF_BYTES
    try {
      if (bit(this.#verifiedOf(cached, groupOf(leaf)), leaf)) {
        const bytes = this.#files.read(blob.hash, offset + start, end - start)
        if (bytes?.length === end - start) return bytes
        this.drop(blob.hash)
        return null
      }
      const bytes = this.#files.read(blob.hash, offset, length)
      if (bytes === null) {
        this.drop(blob.hash)
        return null
      }
      if (bytes.length === length && this.fits(blob, leaf, bytes) === true) {
        setBit(this.#verifiedOf(cached, groupOf(leaf)), leaf, true)
        return bytes.subarray(start, end)
      }
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return null
    }
    // Noted, and lost with the power, or changed by somebody.
    this.#unmark(cached, leaf)
    return null
  }

  /** Whether a leaf is here, verified. */
  holds(blob: Blob, leaf: number): boolean {
    const cached = this.#find(blob)
    if (!cached || !bit(this.#partOf(cached, groupOf(leaf)), leaf)) return false
    return (
      bit(this.#verifiedOf(cached, groupOf(leaf)), leaf) || this.part(blob, leaf, 0, leafBytes(blob, leaf)) !== null
    )
  }

  /** The file with what is here of a blob. null: it was taken away, or cannot be opened by others. */
  where(blob: Blob): CachedFile | null {
    const cached = this.#find(blob)
    if (!cached || cached.bytes === 0) return null
    this.#used(cached)
    try {
      return this.#files.where(blob.hash)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return null
    }
  }

  /** Keeps a leaf that fits its hash. False: there is no room, or the disk refuses. */
  put(blob: Blob, leaf: number, bytes: Uint8Array): boolean {
    const known = this.#find(blob)
    const noted = known !== null && bit(this.#partOf(known, groupOf(leaf)), leaf)
    // Unless somebody has taken the file away.
    if (noted && this.part(blob, leaf, 0, leafBytes(blob, leaf)) !== null) return true
    const cached = this.#find(blob) ?? this.#begin(blob)
    this.#used(cached)
    // What is being written must not make room for itself.
    return this.#whileOpen(blob.hash, () => {
      if (!this.#makeRoom(bytes.length)) return false
      if (!this.#write(cached, leaf, bytes)) return false
      setBit(this.#partOf(cached, groupOf(leaf)), leaf, true)
      setBit(this.#verifiedOf(cached, groupOf(leaf)), leaf, true)
      cached.bytes += bytes.length
      this.#bytes += bytes.length
      cached.dirtyHere.add(groupOf(leaf))
      this.#dirty.add(cached)
      return true
    })
  }

  #write(cached: Cached, leaf: number, bytes: Uint8Array): boolean {
    const { hash } = cached.blob
    for (let again = true; ; again = false) {
      try {
        if (this.#files.write(hash, leaf * LEAF_BYTES, bytes, cached.bytes === 0)) return true
        // Somebody has taken the file away, and with it all that was here.
        this.#forgetContent(cached)
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
        const full = error.code === 'ENOSPC' || error.code === 'EDQUOT'
        if (!again || !full || !this.#evict(bytes.length)) return false
      }
    }
  }

  /** Descriptor of leaves [from, from + count), all here and verified, which the caller hands on or closes. */
  openLeaves(blob: Blob, from: number, count: number): number | null {
    for (let leaf = from; leaf < from + count; leaf++) if (!this.has(blob, leaf)) return null
    const cached = this.#find(blob)
    if (!cached) return null
    for (let leaf = from; leaf < from + count; leaf++) {
      if (bit(this.#verifiedOf(cached, groupOf(leaf)), leaf)) continue
      if (this.part(blob, leaf, 0, leafBytes(blob, leaf)) === null) return null
    }
    try {
      return this.#files.open(blob.hash)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return null
    }
  }

  /**
   * The file of a blob of which everything is here and verified: who opens it can read all of it without asking. null: it is not so, or too
   * much was not read since this start.
   */
  whole(blob: Blob): CachedFile | null {
    const cached = this.#find(blob)
    if (!cached || cached.bytes !== blob.size) return null
    let unverified = 0
    for (let leaf = 0; leaf < leafCount(blob.size); ) {
      const verified = this.#verifiedOf(cached, groupOf(leaf))
      // Eight at once: a big blob has a million.
      if (leaf % 8 === 0 && verified[(leaf % GROUP_LEAVES) / 8] === 0xff) leaf += 8
      else if (bit(verified, leaf)) leaf++
      else if (++unverified > WHOLE_STEP_LEAVES || !this.holds(blob, leaf)) return null
      else leaf++
    }
    return this.where(blob)
  }

  // Trees

  /** Nodes of the group level of a blob of several groups. */
  groups(blob: Blob): Uint8Array | null {
    return this.#withTrees(blob).groups
  }

  /** Leaf hashes of a group. */
  tree(blob: Blob, group: number): Uint8Array | null {
    const cached = this.#withTrees(blob)
    let tree = cached.trees.get(group) ?? null
    if (tree === null && cached.noted) {
      tree = (this.#tables.get('cachedTrees', partKey(blob.hash, group)) as Uint8Array | undefined) ?? null
      if (tree) this.#addTree(cached, group, tree)
    }
    if (tree === null) {
      const all = this.#options.leavesOf(blob.hash)
      if (all?.length === leafCount(blob.size) * HASH_BYTES && nameOver(blob.size, all) === blob.hash) {
        tree = Uint8Array.from(all.subarray(group * GROUP_LEAVES * HASH_BYTES, (group + 1) * GROUP_LEAVES * HASH_BYTES))
        this.#addTree(cached, group, tree)
        cached.dirtyTrees.add(group)
      }
    }
    return tree
  }

  /** False if they are not this blob's. */
  takeGroups(blob: Blob, nodes: Uint8Array): boolean {
    if (nodes.length !== groupCount(blob.size) * HASH_BYTES || rootOfGroups(blob.size, nodes) !== blob.hash)
      return false
    const cached = this.#withTrees(blob)
    if (!cached.groups) this.#treeBytes += nodes.length
    cached.groups = Uint8Array.from(nodes)
    cached.dirtyGroups = true
    if (cached.bytes > 0) this.#dirty.add(cached)
    return true
  }

  /** False if they are not this blob's; null: that cannot be told before the groups are known. */
  takeTree(blob: Blob, group: number, hashes: Uint8Array): boolean | null {
    if (hashes.length !== leavesOfGroup(blob, group) * HASH_BYTES) return false
    const cached = this.#withTrees(blob)
    if (groupCount(blob.size) === 1) {
      if (nameOver(blob.size, hashes) !== blob.hash) return false
    } else {
      if (!cached.groups) return null
      const node = cached.groups.subarray(group * HASH_BYTES, (group + 1) * HASH_BYTES)
      if (Buffer.compare(topOf(hashes), node) !== 0) return false
    }
    this.#addTree(cached, group, Uint8Array.from(hashes))
    cached.dirtyTrees.add(group)
    if (cached.bytes > 0) this.#dirty.add(cached)
    return true
  }

  /** Whether this is the content of a leaf; null: its hash is not known. */
  fits(blob: Blob, leaf: number, bytes: Uint8Array): boolean | null {
    if (bytes.length !== leafBytes(blob, leaf)) return false
    if (leafCount(blob.size) === 1) return nameOver(blob.size, leafHash(bytes)) === blob.hash
    const tree = this.tree(blob, groupOf(leaf))
    if (!tree) return null
    const at = (leaf % GROUP_LEAVES) * HASH_BYTES
    return Buffer.compare(leafHash(bytes), tree.subarray(at, at + HASH_BYTES)) === 0
  }

  // Who needs it

  /** Not dropped until it was closed as often. */
  open(hash: BlobHash): void {
    this.#open.set(hash, (this.#open.get(hash) ?? 0) + 1)
  }

  close(hash: BlobHash): void {
    const left = (this.#open.get(hash) ?? 0) - 1
    if (left > 0) this.#open.set(hash, left)
    else this.#open.delete(hash)
  }

  #whileOpen<Result>(hash: BlobHash, work: () => Result): Result {
    this.open(hash)
    try {
      return work()
    } finally {
      this.close(hash)
    }
  }

  /** Not dropped as long as this path wants it pinned. Nothing happens if nothing of it is here. */
  pin(blob: Blob, path: EntryPath): void {
    const cached = this.#find(blob)
    if (!cached || cached.pinnedBy === path) return
    cached.pinnedBy = path
    this.#dirty.add(cached)
  }

  // What goes

  /** Drops what is here of a blob, open or not. */
  drop(hash: BlobHash): void {
    const cached = this.#atHand.get(hash)
    const row = this.#row(hash)
    const bytes = cached ? cached.bytes : (row?.bytes ?? 0)
    try {
      this.#files.remove(hash)
    } catch (error) {
      // It is cleaned up at a start.
      if (!(error instanceof DiskError)) throw error
    }
    this.#bytes -= bytes
    if (cached) this.#letGo(cached)
    if (row) this.#transact(() => this.#removeRows(hash, row))
  }

  /** Drops what is here of a blob unless it is pinned or somebody needs it just now. How many bytes went. */
  release(hash: BlobHash): number {
    const before = this.#bytes
    if (!this.hasAny(hash) || this.#open.has(hash) || this.inUse(hash)) return 0
    const pinnedBy = this.#atHand.get(hash)?.pinnedBy ?? this.#row(hash)?.pinnedBy ?? null
    if (pinnedBy === null || !this.wantsPinned(pinnedBy, hash)) this.drop(hash)
    return before - this.#bytes
  }

  /** Brings it below its limits. */
  trim(): void {
    this.#makeRoom(0)
  }

  #makeRoom(bytes: number): boolean {
    let room: number
    try {
      const { freeBytes, totalBytes } = this.#files.free()
      const max = bytesOfSpace(this.#limits.max, totalBytes)
      room = Math.min(max - this.#bytes, freeBytes - bytesOfSpace(this.#limits.leave, totalBytes))
      if (room >= bytes) return true
      // More than there is room for at all: nothing is gained by dropping everything else.
      if (bytes > max) return false
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return false
    }
    const needed = bytes - room
    return this.#evict(needed) >= needed
  }

  /** Drops what was used longest ago, so many bytes and a little more, if it can. How many went. */
  #evict(needed: number): number {
    this.flush()
    const wanted = needed + Math.min(SLACK_BYTES_MAX, this.#bytes * SLACK_PART)
    const victims: { hash: BlobHash; row: CachedRow }[] = []
    const kept: { hash: BlobHash; row: CachedRow }[] = []
    let bytes = 0
    for (const { key } of this.#tables.range('cachedAges', null, null, LOOKED_AT_MAX)) {
      if (bytes >= wanted) break
      const hash = key.subarray(AGE_BYTES).toString('hex') as BlobHash
      const row = this.#row(hash)
      if (!row) continue
      const pinned = row.pinnedBy !== null && this.wantsPinned(row.pinnedBy, hash)
      if (pinned || this.#open.has(hash) || this.inUse(hash)) kept.push({ hash, row })
      else {
        victims.push({ hash, row })
        bytes += row.bytes
      }
    }
    // Files first: of a file without a row nothing would be known until the next start.
    let freed = 0
    const gone = victims.filter(({ hash, row }) => {
      try {
        this.#files.remove(hash)
        freed += row.bytes
        return true
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
        return false
      }
    })
    this.#bytes -= freed
    for (const { hash } of gone) {
      const cached = this.#atHand.get(hash)
      if (cached) this.#letGo(cached)
    }
    this.#transact(() => {
      for (const { hash, row } of gone) this.#removeRows(hash, row)
      // Those that may not go are not looked at again each time.
      for (const { hash, row } of kept) {
        const cached = this.#atHand.get(hash)
        const usedMs = this.#options.wallMs()
        const renewed = { ...row, usedMs }
        this.#putRow(hash, row, renewed)
        if (cached) {
          cached.usedMs = usedMs
          cached.noted = renewed
        }
      }
    })
    return freed
  }

  // What is remembered

  /** Writes down what has come; what was written to files before counts after a restart, too. */
  flush(): void {
    if (this.#dirty.size === 0) return
    this.#transact(() => {
      for (const cached of this.#dirty) this.#note(cached)
    })
    for (const cached of this.#dirty) {
      cached.dirtyHere.clear()
      cached.dirtyTrees.clear()
      cached.dirtyGroups = false
    }
    this.#dirty.clear()
    this.#makeLight()
  }

  #note(cached: Cached): void {
    const { blob, bytes, usedMs, pinnedBy } = cached
    const { hash, size } = blob
    for (const group of cached.dirtyHere)
      this.#tables.put('cachedParts', partKey(hash, group), Buffer.from(this.#partOf(cached, group)))
    for (const group of cached.dirtyTrees) {
      const tree = cached.trees.get(group)
      if (tree) this.#tables.put('cachedTrees', partKey(hash, group), Buffer.from(tree))
    }
    if (cached.dirtyGroups && cached.groups)
      this.#tables.put('cachedTrees', partKey(hash, GROUPS), Buffer.from(cached.groups))
    const row = { size, bytes, usedMs, pinnedBy }
    this.#putRow(hash, cached.noted, row)
    cached.noted = row
  }

  #putRow(hash: BlobHash, before: CachedRow | null, row: CachedRow): void {
    if (before && before.usedMs !== row.usedMs) this.#tables.remove('cachedAges', ageKey(before.usedMs, hash))
    if (before?.usedMs !== row.usedMs) this.#tables.put('cachedAges', ageKey(row.usedMs, hash), true)
    const { size, bytes, usedMs, pinnedBy } = row
    this.#tables.put('cached', keyOf(hash), [size, bytes, usedMs, pinnedBy])
  }

  #removeRows(hash: BlobHash, row: CachedRow): void {
    this.#tables.remove('cached', keyOf(hash))
    this.#tables.remove('cachedAges', ageKey(row.usedMs, hash))
    for (const table of ['cachedParts', 'cachedTrees'] as const) {
      const end = Buffer.concat([keyOf(hash), Buffer.of(0xff, 0xff, 0xff)])
      for (let rows: Row[] = []; ; ) {
        rows = this.#tables.range(table, keyOf(hash), end, 256)
        for (const { key } of rows) this.#tables.remove(table, key)
        if (rows.length < 256) break
      }
    }
  }

  /** With the sum of all, as it is then. */
  #transact(change: () => void): void {
    this.#tables.transact(() => {
      change()
      let unnoted = 0
      for (const { bytes, noted } of this.#dirty) unnoted += bytes - (noted?.bytes ?? 0)
      this.#notedBytes = this.#bytes - unnoted
      this.#tables.put('cached', TOTALS, this.#notedBytes)
    })
  }

  #row(hash: BlobHash): CachedRow | undefined {
    const row = this.#tables.get('cached', keyOf(hash)) as [number, number, number, EntryPath | null] | undefined
    return row && { size: row[0], bytes: row[1], usedMs: row[2], pinnedBy: row[3] }
  }

  // At hand

  /** null: nothing of it is here. */
  #find(blob: Blob): Cached | null {
    const cached = this.#atHand.get(blob.hash)
    if (cached?.blob.size === blob.size) {
      this.#atHand.delete(blob.hash)
      this.#atHand.set(blob.hash, cached)
      return cached
    }
    // One of both sizes is not the blob's: it is the one of which no leaf was ever right.
    if (cached && cached.bytes > 0) return null
    const row = this.#row(blob.hash)
    if (row?.size !== blob.size) return null
    return this.#add({ ...fresh(blob), bytes: row.bytes, usedMs: row.usedMs, pinnedBy: row.pinnedBy, noted: row })
  }

  #begin(blob: Blob): Cached {
    const cached = { ...fresh(blob), usedMs: this.#options.wallMs() }
    return this.hasAny(blob.hash) ? cached : this.#add(cached)
  }

  #add(cached: Cached): Cached {
    this.#atHand.set(cached.blob.hash, cached)
    this.#makeLight()
    return cached
  }

  /** A tree is known before anything else is here. */
  #withTrees(blob: Blob): Cached {
    const cached = this.#find(blob) ?? this.#begin(blob)
    if (cached.groups === null && cached.noted && groupCount(blob.size) > 1) {
      const nodes = this.#tables.get('cachedTrees', partKey(blob.hash, GROUPS)) as Uint8Array | undefined
      cached.groups = nodes ?? null
      this.#treeBytes += nodes?.length ?? 0
    }
    return cached
  }

  #addTree(cached: Cached, group: number, tree: Uint8Array): void {
    this.#treeBytes += tree.length - (cached.trees.get(group)?.length ?? 0)
    cached.trees.set(group, tree)
    this.#makeLight()
  }

  /** Lets go of what was not used for long; the tables have it, or a peer. */
  #makeLight(): void {
    // The one in use is the last.
    let others = this.#atHand.size - 1
    for (const cached of this.#atHand.values()) {
      if (others-- <= 0 || (this.#atHand.size <= AT_HAND_MAX && this.#treeBytes <= TREE_BYTES_MAX)) return
      if (!this.#dirty.has(cached)) this.#letGo(cached)
    }
  }

  #letGo(cached: Cached): void {
    this.#treeBytes -= cached.groups?.length ?? 0
    for (const tree of cached.trees.values()) this.#treeBytes -= tree.length
    this.#atHand.delete(cached.blob.hash)
    this.#dirty.delete(cached)
  }

  #used(cached: Cached): void {
    const nowMs = this.#options.wallMs()
    if (Math.abs(nowMs - cached.usedMs) < USED_EVERY_MS) return
    cached.usedMs = nowMs
    if (cached.bytes > 0) this.#dirty.add(cached)
  }

  #partOf(cached: Cached, group: number): Uint8Array {
    let part = cached.here.get(group)
    if (!part) {
      const noted = cached.noted && (this.#tables.get('cachedParts', partKey(cached.blob.hash, group)) as Uint8Array)
      part = noted ? Uint8Array.from(noted) : new Uint8Array(PART_BYTES)
      cached.here.set(group, part)
    }
    return part
  }

  #verifiedOf(cached: Cached, group: number): Uint8Array {
    let part = cached.verified.get(group)
    if (!part) {
      part = new Uint8Array(PART_BYTES)
      cached.verified.set(group, part)
    }
    return part
  }

  #unmark(cached: Cached, leaf: number): void {
    const length = leafBytes(cached.blob, leaf)
    setBit(this.#partOf(cached, groupOf(leaf)), leaf, false)
    cached.bytes -= length
    this.#bytes -= length
    cached.dirtyHere.add(groupOf(leaf))
    this.#dirty.add(cached)
    if (cached.bytes === 0) this.drop(cached.blob.hash)
  }

  /** Nothing of it is here any more; its trees still are. */
  #forgetContent(cached: Cached): void {
    this.#bytes -= cached.bytes
    cached.bytes = 0
    cached.verified.clear()
    cached.here.clear()
    const { hash } = cached.blob
    cached.noted = null
    const row = this.#row(hash)
    if (row) this.#transact(() => this.#removeRows(hash, row))
    cached.dirtyHere.clear()
    for (const group of cached.trees.keys()) cached.dirtyTrees.add(group)
    cached.dirtyGroups = cached.groups !== null
  }

  // Cleaning up

  /** Whether `sweep` has more to look at. */
  get sweeping(): boolean {
    return this.#shelf < SHELVES
  }

  /** Removes files of which nothing is known, a shelf at a time: a kill has left them, or the store was lost. */
  sweep(): void {
    const shelf = this.#shelf++
    try {
      for (const name of this.#files.list(shelf)) {
        const blob = /^[0-9a-f]{64}$/.test(name) ? (name as BlobHash) : null
        if (blob && (this.#atHand.has(blob) || this.#row(blob))) continue
        this.#files.discard(shelf, name)
      }
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
    }
  }

  dispose(): void {
    this.flush()
    this.#files.dispose()
  }
}

/** Bytes of one leaf. */
export function leafBytes({ size }: Blob, leaf: number): number {
  return Math.min(LEAF_BYTES, size - leaf * LEAF_BYTES)
}

export function groupOf(leaf: number): number {
  return Math.floor(leaf / GROUP_LEAVES)
}

function leavesOfGroup({ size }: Blob, group: number): number {
  return Math.min(GROUP_LEAVES, leafCount(size) - group * GROUP_LEAVES)
}

function bytesOfSpace(space: Space, totalBytes: number): number {
  return 'bytes' in space ? space.bytes : space.part * totalBytes
}

function fresh(blob: Blob): Cached {
  return {
    blob: { hash: blob.hash, size: blob.size },
    bytes: 0,
    usedMs: 0,
    pinnedBy: null,
    noted: null,
    here: new Map(),
    verified: new Map(),
    groups: null,
    trees: new Map(),
    dirtyHere: new Set(),
    dirtyTrees: new Set(),
    dirtyGroups: false,
  }
}

function bit(part: Uint8Array, leaf: number): boolean {
  const at = leaf % GROUP_LEAVES
  return ((part[at >> 3] as number) & (1 << (at & 7))) !== 0
}

function setBit(part: Uint8Array, leaf: number, on: boolean): void {
  const at = leaf % GROUP_LEAVES
  const mask = 1 << (at & 7)
  part[at >> 3] = on ? (part[at >> 3] as number) | mask : (part[at >> 3] as number) & ~mask
}

const AGE_BYTES = 8

function keyOf(hash: BlobHash): Buffer {
  return Buffer.from(hash, 'hex')
}

function ageKey(usedMs: number, hash: BlobHash): Buffer {
  const key = Buffer.alloc(AGE_BYTES)
  key.writeBigUInt64BE(BigInt(Math.max(0, Math.floor(usedMs))))
  return Buffer.concat([key, keyOf(hash)])
}

function partKey(hash: BlobHash, group: number): Buffer {
  return Buffer.concat([keyOf(hash), Buffer.of(group >> 8, group & 0xff)])
}
