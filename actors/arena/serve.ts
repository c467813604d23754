/**
 * Answers peers that ask for content. Always by hash: what this arena has just read, has as a real file that is still what its
 * entry says, has cached, or has in the version store: because a file that lives is between two names, or somebody may be reading what was
 * replaced or deleted just now. The one who asked verifies it besides.
 */
import type { ErrorCode } from '../../protocol/error.ts'
import type { BlobHash, EntryPath, PeerId } from '../../protocol/ids.ts'
import {
  ANCHOR_BYTES,
  ANCHOR_LEAVES_MAX,
  GROUP_LEAVES,
  LEAF_BYTES,
  PACKED_BLOB_BYTES_MAX,
  PAYLOAD_BYTES_MAX,
} from '../../protocol/limits.ts'
import type { FileRef, PatchTask } from '../../protocol/ports.ts'
import type { ArenaWireMessage } from '../../protocol/wire.ts'
import { groupCount, groupNodes, leafCount, nodesOver } from '../hasher/merkle.ts'
import type { Blob } from './cache.ts'
import { type ArenaContext, count } from './context.ts'
import { DiskError } from './disk.ts'
import type { LocalChanges } from './local.ts'
import type { PatchOrders } from './patches.ts'
import type { VersionStore } from './versions.ts'
import { sameStamp } from './walk.ts'

type Message<Type extends ArenaWireMessage['type']> = Extract<ArenaWireMessage, { type: Type }>
const HASH = 32

export class Server {
  readonly #context: ArenaContext
  readonly #local: LocalChanges
  readonly #patches: PatchOrders
  readonly #versions: VersionStore

  constructor(context: ArenaContext, local: LocalChanges, patches: PatchOrders, versions: VersionStore) {
    this.#context = context
    this.#local = local
    this.#patches = patches
    this.#versions = versions
  }

  fetchBlobs(peer: PeerId, { id, hashes, urgent = false }: Message<'fetch_blobs'>): void {
    const sizes: number[] = []
    const parts: Uint8Array[] = []
    let bytes = 0
    for (const hash of hashes) {
      const content = bytes < PAYLOAD_BYTES_MAX - PACKED_BLOB_BYTES_MAX ? this.#small(hash) : null
      sizes.push(content ? content.length : -1)
      if (!content) continue
      parts.push(content)
      bytes += content.length
    }
    // A buffer of its own: it is handed over to the connection's thread.
    const payload = new Uint8Array(bytes)
    let offset = 0
    for (const part of parts) {
      payload.set(part, offset)
      offset += part.length
    }
    count(this.#context, { blobs_served: parts.length, blob_bytes_served: bytes })
    this.#send(peer, { type: 'pack', arena: this.#context.settings.name, id, sizes }, payload, urgent)
  }

  #small(hash: BlobHash): Uint8Array | null {
    const { store, disk, recent } = this.#context
    // Read in this arena a moment ago, whatever has become of its file since: who knows the hash was told of it.
    const read = recent.get(hash)
    if (read) return read
    for (const path of store.withHash(hash, 4)) {
      const entry = store.entry(path)
      if (!entry?.stamp || entry.stamp.size > PACKED_BLOB_BYTES_MAX) continue
      try {
        const { before, bytes, after } = disk.read(path)
        if (sameStamp(entry.stamp, before) && sameStamp(entry.stamp, after) && bytes.length === entry.stamp.size)
          return bytes
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
      }
      this.#local.lookAgain(path)
    }
    const blob = this.#cached(hash)
    const cached = blob && blob.size <= PACKED_BLOB_BYTES_MAX ? this.#context.cache.part(blob, 0, 0, blob.size) : null
    return cached ?? this.#smallKept(hash)
  }

  #smallKept(hash: BlobHash): Uint8Array | null {
    const { disk } = this.#context
    const opened = this.#openKept(hash)
    if (opened === null) return null
    try {
      return opened.size <= PACKED_BLOB_BYTES_MAX ? disk.readFd(opened.fd, 0, opened.size) : null
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return null
    } finally {
      disk.close(opened.fd)
    }
  }

  /**
   * What a living file is to have and is between two names: with its peers it is as if it were at one of them. And what was replaced or
   * deleted a little while ago, for those who are reading it.
   */
  #openKept(hash: BlobHash): { fd: number; size: number } | null {
    const kept = this.#versions.givable(hash)
    if (kept === null) return null
    try {
      const { fd, stat } = this.#context.disk.keptOpen(kept.id)
      if (stat.size === kept.size) return { fd, size: stat.size }
      this.#context.disk.close(fd)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
    }
    return null
  }

  #cached(hash: BlobHash): Blob | null {
    const size = this.#context.cache.sizeOf(hash)
    return size === undefined ? null : { hash, size }
  }

  fetchTree(peer: PeerId, { id, hash, group, urgent = false }: Message<'fetch_tree'>): void {
    const leaves = this.#leaves(hash)
    if (!leaves) return this.#cachedTree(peer, id, hash, group, urgent)
    const first = (group ?? 0) * GROUP_LEAVES
    if (first * HASH >= leaves.length) return this.#fail(peer, id, 'message_invalid', 'this blob has no such group')
    const payload = group === null ? groupNodes(leaves) : leaves.slice(first * HASH, (first + GROUP_LEAVES) * HASH)
    this.#send(peer, { type: 'tree', arena: this.#context.settings.name, id }, Uint8Array.from(payload), urgent)
  }

  /**
   * Only of what is cached wholly: a right answer proves to whoever asks that the content can be had here (fetch.ts). Hashes alone
   * can be had without any content.
   */
  #cachedTree(peer: PeerId, id: number, hash: BlobHash, group: number | null, urgent: boolean): void {
    const { cache, settings } = this.#context
    const blob = this.#cached(hash)
    if (!blob) return this.#fail(peer, id, 'blob_missing', 'this blob is not here')
    if ((group ?? 0) >= groupCount(blob.size))
      return this.#fail(peer, id, 'message_invalid', 'this blob has no such group')
    const whole = cache.bytesOf(blob) === blob.size
    const payload = !whole ? null : group === null ? cache.groups(blob) : cache.tree(blob, group)
    if (!payload) return this.#fail(peer, id, 'leaf_missing', 'this blob is not here wholly')
    this.#send(peer, { type: 'tree', arena: settings.name, id }, Uint8Array.from(payload), urgent)
  }

  fetchNodes(peer: PeerId, { id, hash, level, from, count: nodes }: Message<'fetch_nodes'>): void {
    const width = 2 ** level
    const leaves = this.#leaves(hash)
    if (!leaves) return this.#fail(peer, id, 'blob_missing', 'this blob is not here')
    // As much work and as many bytes as one group at most.
    if (nodes * width > GROUP_LEAVES || (from + nodes - 1) * width * HASH >= leaves.length)
      return this.#fail(peer, id, 'message_invalid', 'this blob has no such nodes, or they are too many')
    const below = leaves.subarray(from * width * HASH, (from + nodes) * width * HASH)
    this.#send(peer, { type: 'tree', arena: this.#context.settings.name, id }, nodesOver(below, width))
  }

  fetchAnchors(peer: PeerId, { id, hash, runs }: Message<'fetch_anchors'>): void {
    const wanted = runs.reduce((sum, [, leaves]) => sum + leaves, 0)
    if (wanted > ANCHOR_LEAVES_MAX) return this.#fail(peer, id, 'message_invalid', 'too many leaves at once')
    const file = this.#file(hash)
    if (!file) return this.#fail(peer, id, 'blob_missing', 'this blob is not here')
    const whole = Math.floor((file.ref.size - ANCHOR_BYTES) / LEAF_BYTES) + 1
    if (runs.some(([from, leaves]) => from + leaves > whole))
      return this.#fail(peer, id, 'message_invalid', 'this blob has no such leaves, or they have no anchor')
    const leaves = new Uint32Array(wanted)
    let at = 0
    for (const [from, run] of runs) for (let leaf = from; leaf < from + run; leaf++) leaves[at++] = leaf
    this.#order(peer, id, file.path, 'anchors', { is: 'anchors', file: file.ref, leaves })
  }

  fetchDelta(peer: PeerId, header: Message<'fetch_delta'>, signature: Uint8Array): void {
    const { id, hash, from, count: leaves, block } = header
    const file = this.#file(hash)
    if (!file) return this.#fail(peer, id, 'blob_missing', 'this blob is not here')
    if (from + leaves > leafCount(file.ref.size) || !Number.isInteger(Math.log2(block)))
      return this.#fail(peer, id, 'message_invalid', 'this blob has no such leaves, or the block is no power of two')
    this.#order(peer, id, file.path, 'delta', { is: 'delta', file: file.ref, from, count: leaves, block, signature })
  }

  /** A file that has this content, to be opened in the hasher pool, which looks whether it still is what its entry says. */
  #file(hash: BlobHash): { path: EntryPath; ref: FileRef } | null {
    const { store, disk } = this.#context
    for (const path of store.withHash(hash, 1)) {
      const stamp = store.entry(path)?.stamp
      if (!stamp || stamp.size <= LEAF_BYTES) return null
      const { size, mtimeNs, ino } = stamp
      return { path, ref: { path: disk.outsidePath(path), size, mtimeNs, ino } }
    }
    return null
  }

  /** Only what this arena's peers can fetch: what the version store keeps of it is not theirs any more. */
  lend(hash: BlobHash): FileRef | null {
    return this.#file(hash)?.ref ?? null
  }

  #order(peer: PeerId, id: number, path: EntryPath, answer: 'anchors' | 'delta', task: PatchTask): void {
    this.#patches.order(task, result => {
      if ('bytes' in result) {
        count(this.#context, { blob_bytes_served: result.bytes.length })
        return this.#send(peer, { type: answer, arena: this.#context.settings.name, id }, result.bytes)
      }
      if ('changed' in result) this.#local.lookAgain(path)
      this.#fail(peer, id, 'blob_changed', 'this blob is not here any more')
    })
  }

  /** Only of what a file here has: peers take an answer about the tree for the proof of that (fetch.ts). */
  #leaves(hash: BlobHash): Uint8Array | null {
    const { store } = this.#context
    const here = store.withHash(hash, 1).length > 0 || this.#versions.givable(hash) !== null
    return here ? (store.leaves(hash) ?? null) : null
  }

  fetchLeaves(peer: PeerId, header: Message<'fetch_leaves'>): void {
    const { id, hash, from, count: leaves } = header
    const { store } = this.#context
    for (const path of store.withHash(hash, 4)) {
      const opened = this.#open(path)
      if (!opened) continue
      if (from + leaves > leafCount(opened.size)) {
        this.#context.disk.close(opened.fd)
        return this.#fail(peer, id, 'message_invalid', 'this blob has no such leaves')
      }
      return this.#upload(peer, header, opened)
    }
    const kept = this.#openKept(hash)
    if (kept && from + leaves <= leafCount(kept.size)) return this.#upload(peer, header, kept)
    if (kept) this.#context.disk.close(kept.fd)
    const blob = this.#cached(hash)
    if (!blob) return this.#fail(peer, id, 'blob_missing', 'this blob is not here')
    if (from + leaves > leafCount(blob.size))
      return this.#fail(peer, id, 'message_invalid', 'this blob has no such leaves')
    const fd = this.#context.cache.openLeaves(blob, from, leaves)
    if (fd === null) return this.#fail(peer, id, 'leaf_missing', 'this part of the blob is not here')
    this.#upload(peer, header, { fd, size: blob.size })
  }

  #upload(
    peer: PeerId,
    { id, from, count: leaves, urgent }: Message<'fetch_leaves'>,
    { fd, size }: { fd: number; size: number },
  ): void {
    count(this.#context, { leaves_served: leaves, blob_bytes_served: Math.min(leaves * LEAF_BYTES, size) })
    this.#context.deliver({ to: 'peer', peer, message: { type: 'upload', id, fd, size, from, count: leaves, urgent } })
  }

  /** How these blobs are here. */
  holds(peer: PeerId, { id, hashes }: Message<'holds'>): void {
    const { store, settings, cache } = this.#context
    const held = hashes.map(hash => {
      if (store.withHash(hash, 1).length > 0) return 'real' as const
      if (this.#versions.awaited(hash) !== null) return 'cached' as const
      const blob = this.#cached(hash)
      return blob && cache.bytesOf(blob) >= blob.size ? ('cached' as const) : ('none' as const)
    })
    this.#send(peer, { type: 'held', arena: settings.name, id, held })
  }

  #open(path: EntryPath): { fd: number; size: number } | null {
    const { store, disk } = this.#context
    const stamp = store.entry(path)?.stamp
    try {
      const { fd, stat } = disk.open(path)
      if (stamp && sameStamp(stamp, stat)) return { fd, size: stat.size }
      disk.close(fd)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
    }
    this.#local.lookAgain(path)
    return null
  }

  #fail(peer: PeerId, id: number, code: ErrorCode, reason: string): void {
    this.#send(peer, { type: 'fetch_failed', arena: this.#context.settings.name, id, code, reason })
  }

  #send(peer: PeerId, header: ArenaWireMessage, payload?: Uint8Array, urgent = false): void {
    const message = { type: 'send', header, ...(payload && { payload }), ...(urgent && { urgent }) } as const
    this.#context.deliver({ to: 'peer', peer, message })
  }
}
