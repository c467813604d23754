/**
 * Brings content that is wanted into the staging folder: small blobs by the pack, big ones leaf by leaf, from any peer that has
 * them, each verified against its Merkle tree before it counts. What an interrupted transfer left here, is cached, an older
 * version has (reuse.ts) or another arena of this peer lends is not fetched.
 *
 * A file that is borrowed from another arena becomes one of this arena, for all its peers to read. So only what a peer has proven to
 * have in *this* arena is borrowed, and only if that peer may read the other arena, too: else whoever knows a hash could announce it
 * here and then fetch the file of an arena that is not shared with it. What proves it is a right answer about the blob's
 * tree: an honest peer gives one only of a file that it shows in this arena or has cached wholly for it, so whoever may read this arena
 * can have it from that peer; a dishonest one can read it in the other arena anyway. That an entry says so is no proof: a peer passes on what others say.
 */
import type { ErrorCode, Failure } from '../../protocol/error.ts'
import type { BlobHash, EntryPath, PeerId } from '../../protocol/ids.ts'
import {
  FETCH_BLOBS_MAX,
  FETCH_LEAVES_MAX,
  LEAF_BYTES,
  PACK_BYTES_TARGET,
  PACKED_BLOB_BYTES_MAX,
} from '../../protocol/limits.ts'
import type { FileRef } from '../../protocol/ports.ts'
import { hashSmall, leafCount, leafHash, rootOf, zeroLeafHash } from '../hasher/merkle.ts'
import type { Hindrance } from './apply.ts'
import { type ArenaContext, count, log } from './context.ts'
import { DiskError } from './disk.ts'
import { fileWith, type OlderVersion, olderByContent, olderByName } from './older.ts'
import type { PatchOrders } from './patches.ts'
import { type OlderFile, Reuse, type ReuseHost, type ReuseQuestion, type ReuseTarget } from './reuse.ts'
import { NODES_LEVEL, type TreeAsk, TreeFetch } from './tree-fetch.ts'
import type { FileContent } from './version.ts'

/** Packs asked of one peer and not yet here; chunks of leaves likewise. */
const PACKS_MAX = 4
const CHUNKS_MAX = 3
/** Big blobs in the works at once; and with those that wait for a peer that does not answer. */
const DOWNLOADS_MAX = 4
const DOWNLOADS_WAITING_MAX = 64
/** A peer that owes answers and has given none for so long is asked for nothing more until it gives one. */
const MUTE_MS = 10_000
/** Questions about one blob's tree at once. */
const TREE_ASKS_MAX = 8
/** Leaves looked at in one step when a transfer is resumed: 4 MiB. */
const STEP_LEAVES = 32
const HASH = 32
/** Slots of big blobs, and of parts of them, outlive a restart, to go on from there. */
export const BIG_SLOT = 'b-'
/** And those of big blobs that take part in a step: what is exchanged with them is a user's. */
const PLACED_SLOT = 'p-'
/** A big blob is not begun unless so much stays free: this part of the disk, and no more than that many bytes. */
const ROOM_PART = 0.01
const ROOM_BYTES_MAX = 64 * 1024 * 1024
const RETRY_FIRST_MS = 250
const RETRY_MAX_MS = 60_000
/** After so many times who waits is told that nobody has it. */
const NOWHERE_TRIES = 2

/** One path that wants a blob. */
export interface Wish {
  readonly path: EntryPath
  readonly content: FileContent
}

export interface FetchEvents {
  /** The content of a path lies in a slot, complete, verified, with its mtime and mode. */
  /** `ino`: what the slot holds. */
  staged(path: EntryPath, slot: string, content: FileContent, ino: bigint): void
  /** Not to be had now; `reason` for people. */
  stuck(path: EntryPath, reason: string, hindrance: Hindrance): void
  /** It is about to be put at another path, and can be copied from there. */
  copiedLater(path: EntryPath): void
  /** Bytes came. */
  progress(bytes: number): void
}

interface Want {
  readonly hash: BlobHash
  readonly size: number
  readonly wishes: Map<EntryPath, FileContent>
  /** Peers that said they do not have it, or sent something else. */
  readonly refused: Set<PeerId>
  /** Peers that gave a right answer about its tree: they have it, in this arena. */
  readonly proven: Set<PeerId>
  /** Asked of this peer; null: waiting. */
  asked: PeerId | null
  tries: number
  notBeforeMs: number
}

interface Chunk {
  readonly peer: PeerId
  readonly from: number
  readonly count: number
}

interface Download {
  readonly want: Want
  readonly slot: string
  readonly leaves: number
  /** `older`: what could be borrowed is here, an older version comes next. */
  phase: 'tree' | 'resume' | 'reuse' | 'older' | 'fetch'
  /** Leaf hashes as far as they are known; complete after the phase `tree`. */
  tree: Uint8Array
  readonly treeFetch: TreeFetch | null
  readonly treeAsks: Map<number, { peer: PeerId; ask: TreeAsk }>
  /** One byte a leaf: 0 missing, 1 asked for, 2 here. */
  readonly has: Uint8Array
  here: number
  at: number
  /** The slot was made for this download: nothing is in it but what came since. */
  fresh: boolean
  firstMissing: number
  readonly chunks: Map<number, Chunk>
  /** An older version on this disk, if one could be told before the tree was known. */
  readonly older: OlderVersion | null
  reuse: Reuse | null
  /** Where `reuse` puts what it takes; set before it. */
  target: ReuseTarget | null
  /** Questions of `reuse` that are not answered. */
  readonly questions: Map<number, { peer: PeerId; done: (payload: Uint8Array | null) => void }>
}

export class Fetcher {
  readonly #context: ArenaContext
  readonly #events: FetchEvents
  readonly #patches: PatchOrders
  readonly #small = new Map<BlobHash, Want>()
  readonly #big = new Map<BlobHash, Want>()
  readonly #downloads = new Map<BlobHash, Download>()
  readonly #packs = new Map<number, { peer: PeerId; hashes: BlobHash[] }>()
  readonly #requests = new Map<number, BlobHash>()
  /** What other arenas were asked to lend; each question is answered. */
  readonly #loans = new Map<number, (file: FileRef | null) => void>()
  /**
   * Who may still write into a slot, although nobody may be waiting for it any more: chunks by their number, and how many orders
   * of the hasher. A slot that has a place in the tree must have none.
   */
  readonly #chunkWriters = new Map<number, { peer: PeerId; slot: string }>()
  readonly #orderWriters = new Map<string, number>()
  readonly #peers = new Set<PeerId>()
  /** When each peer that owes something answered last, or was asked first; and who has not for too long. */
  readonly #answeredMs = new Map<PeerId, number>()
  readonly #mute = new Set<PeerId>()
  /** Who said that it has a blob; only a hint. */
  readonly #holders = new Map<BlobHash, Set<PeerId>>()
  readonly #slotPrefix: string
  #slot = 0
  #id = 0

  constructor(context: ArenaContext, patches: PatchOrders, events: FetchEvents) {
    this.#context = context
    this.#patches = patches
    this.#events = events
    this.#slotPrefix = `s-${context.random()}`
  }

  newSlot(): string {
    return `${this.#slotPrefix}-${(++this.#slot).toString(36)}`
  }

  /** The slot with which staged content takes part in a step: never that of a big blob, whose next transfer would write there. */
  toPlace(slot: string): string {
    if (!slot.startsWith(BIG_SLOT)) return slot
    const placed = `${PLACED_SLOT}${slot.slice(BIG_SLOT.length)}-${this.newSlot()}`
    this.#context.disk.stageMove(slot, placed)
    return placed
  }

  /** What was to be placed and was not is where a transfer of it goes on. False: it is not a big blob, or there is one already. */
  takeBack(slot: string): boolean {
    const blob = blobOfSlot(slot)
    const { disk } = this.#context
    if (slot.startsWith(BIG_SLOT) && disk.stageStat(slot) !== null) {
      this.#swept = false
      return true
    }
    if (blob === null || disk.stageStat(slot) === null || disk.stageStat(Fetcher.slotOf(blob)) !== null) return false
    disk.stageMove(slot, Fetcher.slotOf(blob))
    this.#swept = false
    return true
  }

  get outstanding(): number {
    return this.#small.size + this.#big.size
  }

  /** Small blobs that are on their way or can be asked for: a batch may wait for them. */
  get flowing(): boolean {
    return this.#packs.size > 0
  }

  wanted(path: EntryPath, hash: BlobHash): boolean {
    return (this.#small.get(hash) ?? this.#big.get(hash))?.wishes.has(path) ?? false
  }

  /** Whether every peer that could be asked has said that it does not have this, and none is being asked. */
  isStuck(hash: BlobHash): boolean {
    const want = this.#small.get(hash) ?? this.#big.get(hash)
    return want !== undefined && want.tries > 0 && want.asked === null && !this.#downloads.has(hash)
  }

  /** The same, and they have had a second chance: what was on its way from one name to another is back by then. */
  isNowhere(hash: BlobHash): boolean {
    return this.isStuck(hash) && (this.#small.get(hash) ?? (this.#big.get(hash) as Want)).tries >= NOWHERE_TRIES
  }

  /** Somebody waits for it: all are asked again now. */
  hurry(hash: BlobHash): void {
    const want = this.#small.get(hash) ?? this.#big.get(hash)
    if (!want || want.asked !== null || this.#downloads.has(hash)) return
    want.refused.clear()
    want.tries = 0
    want.notBeforeMs = 0
  }

  /** Asks for a path's content; `from`: a path whose older version may hold parts of it. */
  want({ path, content }: Wish): void {
    const table = content.size <= PACKED_BLOB_BYTES_MAX ? this.#small : this.#big
    const want = table.get(content.hash)
    if (want) want.wishes.set(path, content)
    else {
      table.set(content.hash, {
        hash: content.hash,
        size: content.size,
        wishes: new Map([[path, content]]),
        refused: new Set(),
        proven: new Set(),
        asked: null,
        tries: 0,
        notBeforeMs: 0,
      })
    }
  }

  /** A path wants this no longer: something newer came. */
  forget(path: EntryPath, hash: BlobHash): void {
    for (const table of [this.#small, this.#big]) {
      const want = table.get(hash)
      if (!want) continue
      want.wishes.delete(path)
      if (want.wishes.size > 0) return
      table.delete(hash)
      const download = this.#downloads.get(hash)
      if (download) this.#drop(download)
    }
  }

  /** Parts of blobs that nobody wants any more. Call when nothing is pending. */
  sweep(): void {
    if (!this.#swept && this.outstanding === 0) {
      this.#swept = true
      for (const slot of this.#context.disk.stageList())
        if (slot.startsWith(BIG_SLOT)) this.#context.disk.stageRemove(slot)
    }
  }
  #swept = false

  #drop(download: Download): void {
    this.#downloads.delete(download.want.hash)
    download.reuse?.stop()
    const { chunks, treeAsks, questions } = download
    for (const open of [chunks, treeAsks, questions]) for (const id of open.keys()) this.#requests.delete(id)
    for (const id of chunks.keys()) this.#cancel(id)
  }

  peerOpened(peer: PeerId): void {
    this.#peers.add(peer)
    this.#again(peer)
  }

  /** The connection is gone, and with it all that it was writing. */
  peerClosed(peer: PeerId): void {
    for (const [id, writer] of this.#chunkWriters) if (writer.peer === peer) this.#chunkWriters.delete(id)
    this.peerReset(peer)
  }

  /** What this peer was asked before, it may never have heard. The connection stays, and may be writing. */
  peerReset(peer: PeerId): void {
    this.#peers.delete(peer)
    this.#answeredMs.delete(peer)
    this.#mute.delete(peer)
    for (const [id, pack] of this.#packs) if (pack.peer === peer) this.#packDone(id)
    for (const download of this.#downloads.values()) {
      for (const [id, chunk] of download.chunks) if (chunk.peer === peer) this.#chunkFailed(download, id)
      for (const [id, asked] of download.treeAsks) if (asked.peer === peer) this.#treeFailed(download, id, false)
      for (const [id, asked] of download.questions) if (asked.peer === peer) this.#answered(download, id, null)
    }
    for (const holders of this.#holders.values()) holders.delete(peer)
  }

  /** A peer says that it has these blobs. */
  holders(peer: PeerId, hashes: readonly BlobHash[]): void {
    for (const hash of hashes) {
      const want = this.#small.get(hash) ?? this.#big.get(hash)
      if (want?.refused.delete(peer)) want.notBeforeMs = 0
      let holders = this.#holders.get(hash)
      if (!holders) {
        // Bounded: a hint that is forgotten costs a question more.
        if (this.#holders.size >= 50_000) this.#holders.clear()
        holders = new Set()
        this.#holders.set(hash, holders)
      }
      holders.add(peer)
    }
  }

  #again(peer: PeerId): void {
    for (const table of [this.#small, this.#big]) {
      for (const want of table.values()) {
        want.refused.delete(peer)
        want.notBeforeMs = 0
      }
    }
  }

  /** Work on this disk that does not wait for a peer. */
  get busy(): boolean {
    for (const download of this.#downloads.values()) if (download.phase === 'resume') return true
    return false
  }

  step(): void {
    this.#noteMute()
    this.#askPacks()
    for (const want of this.#big.values()) {
      if (this.#downloads.size >= DOWNLOADS_WAITING_MAX || this.#moving >= DOWNLOADS_MAX) break
      if (this.#downloads.has(want.hash) || want.notBeforeMs > this.#context.clock.nowMs()) continue
      if (!this.#beingWritten(Fetcher.slotOf(want.hash))) this.#begin(want)
    }
    for (const download of [...this.#downloads.values()]) {
      try {
        this.#advance(download)
        // What this disk could give has been taken: ask for the rest in the same step.
        if (download.phase === 'fetch' && this.#downloads.has(download.want.hash)) this.#askLeaves(download)
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
        this.#giveUp(download, diskReason(error), error.code)
      }
    }
  }

  /** Downloads that do not wait for peers that do not answer. */
  get #moving(): number {
    let moving = 0
    for (const { chunks } of this.#downloads.values()) {
      if (chunks.size === 0 || [...chunks.values()].some(({ peer }) => !this.#mute.has(peer))) moving++
    }
    return moving
  }

  // Who answers

  #asked(peer: PeerId): void {
    const { clock, timers } = this.#context
    if (this.#answeredMs.has(peer)) return
    this.#answeredMs.set(peer, clock.nowMs())
    timers.soon('mute', clock.nowMs() + MUTE_MS, () => {})
  }

  /** Also by an answer that nobody waits for any more: it speaks again. */
  #heardFrom(peer: PeerId): void {
    if (this.#mute.delete(peer)) this.#again(peer)
    if (this.#owes(peer)) this.#answeredMs.set(peer, this.#context.clock.nowMs())
    else this.#answeredMs.delete(peer)
  }

  #owes(peer: PeerId): boolean {
    const here = (open: ReadonlyMap<number, { readonly peer: PeerId }>) => {
      for (const asked of open.values()) if (asked.peer === peer) return true
      return false
    }
    if (here(this.#packs)) return true
    for (const { chunks, treeAsks, questions } of this.#downloads.values())
      if (here(chunks) || here(treeAsks) || here(questions)) return true
    return false
  }

  /** What a peer that does not answer was asked for may be asked of others; if it answers all the same, the better. */
  #noteMute(): void {
    const { clock, timers } = this.#context
    for (const [peer, sinceMs] of this.#answeredMs) {
      if (this.#mute.has(peer)) continue
      if (!this.#owes(peer)) this.#answeredMs.delete(peer)
      else if (clock.nowMs() - sinceMs < MUTE_MS) timers.soon('mute', sinceMs + MUTE_MS, () => {})
      else {
        this.#mute.add(peer)
        for (const want of this.#small.values()) if (want.asked === peer) want.asked = null
        for (const download of this.#downloads.values()) {
          for (const [id, asked] of download.treeAsks) if (asked.peer === peer) this.#treeFailed(download, id, false)
          for (const [id, asked] of download.questions) if (asked.peer === peer) this.#answered(download, id, null)
        }
      }
    }
  }

  // Small blobs

  #mayAsk(want: Want, peer: PeerId): boolean {
    if (want.refused.has(peer) || this.#mute.has(peer)) return false
    // Whoever announced it first; others when those could not help.
    const holders = this.#holders.get(want.hash)
    if (!holders || holders.size === 0 || holders.has(peer)) return true
    for (const holder of holders)
      if (this.#peers.has(holder) && !want.refused.has(holder) && !this.#mute.has(holder)) return false
    return true
  }

  #askPacks(): void {
    const nowMs = this.#context.clock.nowMs()
    // Looked at with every word of every peer: mostly all of it is asked for already.
    if (!someOf(this.#small.values(), want => want.asked === null && want.notBeforeMs <= nowMs)) return
    this.#takeCachedSmall()
    const open = new Map<PeerId, number>()
    for (const { peer } of this.#packs.values()) open.set(peer, (open.get(peer) ?? 0) + 1)
    for (const peer of this.#peers) {
      let free = PACKS_MAX - (open.get(peer) ?? 0)
      if (free <= 0) continue
      let hashes: BlobHash[] = []
      let bytes = 0
      for (const want of this.#small.values()) {
        if (want.asked !== null || want.notBeforeMs > nowMs || !this.#mayAsk(want, peer)) continue
        want.asked = peer
        hashes.push(want.hash)
        bytes += want.size
        if (bytes >= PACK_BYTES_TARGET || hashes.length >= FETCH_BLOBS_MAX) {
          this.#askPack(peer, hashes)
          hashes = []
          bytes = 0
          if (--free === 0) break
        }
      }
      if (hashes.length > 0) this.#askPack(peer, hashes)
    }
    this.#noteStuck(this.#small, nowMs)
  }

  #takeCachedSmall(): void {
    const { cache } = this.#context
    if (cache.bytes === 0) return
    for (const want of [...this.#small.values()]) {
      if (want.asked !== null || !cache.hasAny(want.hash)) continue
      const bytes = cache.part(want, 0, 0, want.size)
      if (!bytes) continue
      this.#small.delete(want.hash)
      this.#holders.delete(want.hash)
      this.#stageSmall(want, bytes)
    }
  }

  #askPack(peer: PeerId, hashes: BlobHash[]): void {
    const id = ++this.#id
    this.#packs.set(id, { peer, hashes })
    this.#asked(peer)
    const header = { type: 'fetch_blobs', arena: this.#context.settings.name, id, hashes } as const
    this.#context.deliver({ to: 'peer', peer, message: { type: 'send', header } })
  }

  #packDone(id: number): { peer: PeerId; hashes: BlobHash[] } | undefined {
    const pack = this.#packs.get(id)
    if (!pack) return undefined
    this.#packs.delete(id)
    for (const hash of pack.hashes) {
      const want = this.#small.get(hash)
      if (want?.asked === pack.peer) want.asked = null
    }
    return pack
  }

  pack(peer: PeerId, id: number, sizes: readonly number[], payload: Uint8Array): void {
    const pack = this.#packs.get(id)
    if (!pack || pack.peer !== peer) return
    this.#packDone(id)
    this.#heardFrom(peer)
    let offset = 0
    pack.hashes.forEach((hash, index) => {
      const size = sizes[index] ?? -1
      const want = this.#small.get(hash)
      const bytes = size < 0 ? null : payload.subarray(offset, offset + size)
      if (size > 0) offset += size
      if (!want) return
      if (bytes === null) want.refused.add(peer)
      else if (bytes.length !== want.size || hashSmall(bytes) !== hash) {
        want.refused.add(peer)
        this.#invalid(peer, hash)
      } else {
        this.#small.delete(hash)
        this.#holders.delete(hash)
        this.#events.progress(bytes.length)
        this.#stageSmall(want, bytes)
      }
    })
    count(this.#context, { blobs_received: pack.hashes.length, blob_bytes_received: payload.length })
  }

  #stageSmall(want: Want, bytes: Uint8Array): void {
    for (const [path, content] of want.wishes) {
      const slot = this.newSlot()
      let ino: bigint
      try {
        ino = this.#context.disk.stageFile(slot, bytes, content.mtimeNs, content.exec).ino
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
        this.#events.stuck(path, diskReason(error), { is: 'disk', code: error.code })
        continue
      }
      this.#events.staged(path, slot, content, ino)
    }
  }

  #invalid(peer: PeerId, hash: BlobHash): void {
    log(this.#context, 'blob_invalid', { peer, hash })
    count(this.#context, { blobs_invalid: 1 })
  }

  /** Wants that nobody connected can fill: say so, and ask all again later. */
  #noteStuck(table: Map<BlobHash, Want>, nowMs: number): void {
    const { timers } = this.#context
    const allAnswer = this.#peers.size > 0 && this.#mute.size === 0
    for (const want of table.values()) {
      if (want.asked !== null || (allAnswer && want.refused.size === 0)) continue
      if (want.notBeforeMs > nowMs || this.#downloads.has(want.hash)) continue
      if ([...this.#peers].some(peer => this.#mayAsk(want, peer))) continue
      want.tries++
      want.refused.clear()
      want.notBeforeMs = nowMs + Math.min(RETRY_FIRST_MS * 2 ** (want.tries - 1), RETRY_MAX_MS)
      timers.soon('fetch', want.notBeforeMs, () => {})
      const reason =
        this.#peers.size === 0
          ? 'no peer is connected that has it'
          : this.#mute.size === this.#peers.size
            ? 'the peer that was asked for it does not answer'
            : 'none of the connected peers has it now'
      for (const path of want.wishes.keys()) this.#events.stuck(path, reason, { is: 'content' })
    }
  }

  // Big blobs

  static slotOf(hash: BlobHash): string {
    return `${BIG_SLOT}${hash}`
  }

  /** By somebody who was asked when this blob was wanted before. */
  #beingWritten(slot: string): boolean {
    for (const writer of this.#chunkWriters.values()) if (writer.slot === slot) return true
    return this.#orderWriters.has(slot)
  }

  #begin(want: Want): void {
    const leaves = leafCount(want.size)
    this.#swept = false
    const known = this.#context.store.leaves(want.hash)
    const usable = known && known.length === leaves * HASH && rootOf(want.size, known) === want.hash
    const older = olderByName(this.#context, want.hash, want.wishes.keys())
    const treeFetch = usable ? null : new TreeFetch(want.size, want.hash, older?.leaves ?? null)
    this.#downloads.set(want.hash, {
      want,
      slot: Fetcher.slotOf(want.hash),
      leaves,
      phase: usable ? 'resume' : 'tree',
      tree: usable ? known : new Uint8Array(0),
      treeFetch,
      treeAsks: new Map(),
      has: new Uint8Array(leaves),
      here: 0,
      at: 0,
      fresh: false,
      firstMissing: 0,
      chunks: new Map(),
      older,
      reuse: null,
      target: null,
      questions: new Map(),
    })
  }

  #advance(download: Download): void {
    switch (download.phase) {
      case 'tree':
        return this.#askTree(download)
      case 'resume':
        return this.#resume(download)
      case 'older':
        download.phase = 'fetch'
        if (download.target && download.here < download.leaves) this.#takeOlder(download, download.target)
        return
      case 'reuse':
      case 'fetch':
        return
      default:
        download.phase satisfies never
    }
  }

  #source(want: Want): PeerId | undefined {
    for (const peer of this.#peers) if (this.#mayAsk(want, peer)) return peer
    return undefined
  }

  #askTree(download: Download): void {
    const { want, treeFetch, treeAsks } = download
    const arena = this.#context.settings.name
    while (treeFetch && treeAsks.size < TREE_ASKS_MAX) {
      const peer = this.#source(want)
      if (peer === undefined) return treeAsks.size === 0 ? this.#wait(download) : undefined
      const ask = treeFetch.next()
      if (!ask) return
      const id = ++this.#id
      treeAsks.set(id, { peer, ask })
      this.#asked(peer)
      this.#requests.set(id, want.hash)
      const header =
        ask.is === 'groups' || ask.is === 'group'
          ? ({ type: 'fetch_tree', arena, id, hash: want.hash, group: ask.is === 'groups' ? null : ask.group } as const)
          : ({
              type: 'fetch_nodes',
              arena,
              id,
              hash: want.hash,
              level: NODES_LEVEL[ask.is],
              from: ask.from,
              count: ask.count,
            } as const)
      this.#context.deliver({ to: 'peer', peer, message: { type: 'send', header } })
    }
  }

  tree(peer: PeerId, id: number, payload: Uint8Array): void {
    this.#heardFrom(peer)
    const download = this.#downloadOf(id)
    const asked = download?.treeAsks.get(id)
    if (!download?.treeFetch || asked?.peer !== peer) return
    const { want, treeFetch } = download
    if (!treeFetch.answer(asked.ask, payload)) {
      want.refused.add(peer)
      this.#invalid(peer, want.hash)
      return this.#treeFailed(download, id, false)
    }
    want.proven.add(peer)
    this.#requests.delete(id)
    download.treeAsks.delete(id)
    if (!treeFetch.done) return
    download.tree = treeFetch.tree
    download.phase = 'resume'
    // Kept at once: after a kill the leaves that are here can be told without a peer.
    this.#context.store.transact(writer => writer.putLeaves(want.hash, download.tree))
  }

  #treeFailed(download: Download, id: number, oldWay: boolean): void {
    const asked = download.treeAsks.get(id)
    this.#requests.delete(id)
    if (download.treeAsks.delete(id) && asked) download.treeFetch?.again(asked.ask, oldWay)
  }

  #downloadOf(id: number): Download | undefined {
    const hash = this.#requests.get(id)
    return hash === undefined ? undefined : this.#downloads.get(hash)
  }

  /** Looks at what an interrupted transfer left in the slot. */
  #resume(download: Download): void {
    const { disk } = this.#context
    if (download.at === 0 && disk.stageStat(download.slot) === null) {
      disk.close(disk.stageOpen(download.slot, download.want.size))
      this.#markZeroes(download)
      if (!this.#context.cache.hasAny(download.want.hash)) return this.#toReuse(download)
      download.fresh = true
    }
    const end = Math.min(download.leaves, download.at + STEP_LEAVES)
    const bytes = download.fresh
      ? new Uint8Array(0)
      : disk.stageRead(download.slot, download.at * LEAF_BYTES, (end - download.at) * LEAF_BYTES)
    for (let leaf = download.at; leaf < end; leaf++) {
      const start = (leaf - download.at) * LEAF_BYTES
      const part = bytes.subarray(start, Math.min(start + LEAF_BYTES, start + this.#leafBytes(download, leaf)))
      if (part.length === this.#leafBytes(download, leaf) && this.#fits(download, leaf, part))
        this.#mark(download, leaf)
    }
    this.#takeCached(download, download.at, end)
    download.at = end
    if (end === download.leaves) this.#toReuse(download)
  }

  /** Leaves [from, end) that are cached and not in the slot. */
  #takeCached(download: Download, from: number, end: number): void {
    const { disk, cache } = this.#context
    const { want, slot } = download
    if (!cache.hasAny(want.hash)) return
    const fd = disk.stageOpen(slot, want.size)
    try {
      for (let leaf = from; leaf < end; leaf++) {
        if (download.has[leaf] === 2) continue
        const bytes = cache.part(want, leaf, 0, this.#leafBytes(download, leaf))
        if (!bytes || !this.#fits(download, leaf, bytes)) continue
        disk.writeFd(fd, leaf * LEAF_BYTES, bytes)
        this.#mark(download, leaf)
        count(this.#context, { leaves_reused: 1 })
      }
    } finally {
      disk.close(fd)
    }
  }

  #leafBytes(download: Download, leaf: number): number {
    return Math.min(LEAF_BYTES, download.want.size - leaf * LEAF_BYTES)
  }

  #fits(download: Download, leaf: number, bytes: Uint8Array): boolean {
    return Buffer.compare(leafHash(bytes), this.#hashAt(download.tree, leaf)) === 0
  }

  #hashAt(tree: Uint8Array, leaf: number): Uint8Array {
    return tree.subarray(leaf * HASH, (leaf + 1) * HASH)
  }

  #mark(download: Download, leaf: number): void {
    if (download.has[leaf] === 2) return
    download.has[leaf] = 2
    download.here++
  }

  /** A fresh slot is one hole: leaves of zeroes are there already. */
  #markZeroes(download: Download): void {
    const zero = zeroLeafHash()
    for (let leaf = 0; leaf < download.leaves; leaf++) {
      if (
        this.#leafBytes(download, leaf) === LEAF_BYTES &&
        Buffer.compare(this.#hashAt(download.tree, leaf), zero) === 0
      ) {
        this.#mark(download, leaf)
      }
    }
  }

  #toReuse(download: Download): void {
    download.at = 0
    download.phase = 'fetch'
    const { want, slot, tree } = download
    if (download.here === download.leaves) return
    if (!this.#hasRoom()) {
      return this.#giveUp(download, `the disk has no room for its ${download.want.size} bytes: make room`, 'ENOSPC')
    }
    const stat = this.#context.disk.stageStat(slot)
    if (!stat) return
    download.target = { size: want.size, tree, slot: { path: this.#context.disk.outsideSlot(slot), ino: stat.ino } }
    if (download.older?.hash === want.hash || want.proven.size === 0) return this.#takeOlder(download, download.target)
    this.#borrow(download, download.target)
  }

  /** What another arena of this peer has of it. */
  #borrow(download: Download, target: ReuseTarget): void {
    const { want, tree } = download
    const id = ++this.#id
    const done = () => {
      download.phase = 'older'
    }
    download.phase = 'reuse'
    this.#loans.set(id, file => {
      if (this.#downloads.get(want.hash) !== download) return
      if (file?.size !== want.size) return done()
      download.reuse = this.#reuseOf(download, target, { leaves: tree, file }, 'leaves_borrowed', () => null, done)
      // No more than that: a signature would tell this arena's peers of what the file has become.
      download.reuse.startCopies()
    })
    this.#context.deliver({
      to: 'supervisor',
      report: { type: 'borrow', id, hash: want.hash, peers: [...want.proven] },
    })
  }

  lent(id: number, file: FileRef | null): void {
    const take = this.#loans.get(id)
    this.#loans.delete(id)
    take?.(file)
  }

  /** What an older version of this arena has of it. */
  #takeOlder(download: Download, target: ReuseTarget): void {
    const { want, tree } = download
    const older = download.older ?? olderByContent(this.#context, want.size, tree, new Set(want.wishes.keys()))
    const find = () => older && fileWith(this.#context, older.hash)
    const file = find()
    if (!older || !file) return
    download.phase = 'reuse'
    download.reuse = this.#reuseOf(download, target, { leaves: older.leaves, file }, 'leaves_reused', find, () => {
      download.phase = 'fetch'
    })
    download.reuse.start()
  }

  /** `copies`: the counter of leaves that are copied from it. */
  #reuseOf(
    download: Download,
    target: ReuseTarget,
    older: OlderFile,
    copies: 'leaves_reused' | 'leaves_borrowed',
    find: () => FileRef | null,
    done: () => void,
  ): Reuse {
    const { slot, has } = download
    const host: ReuseHost = {
      missing: leaf => has[leaf] !== 2,
      mark: (leaf, how) => {
        this.#mark(download, leaf)
        count(this.#context, { [how === 'copied' ? copies : 'leaves_patched']: 1 })
      },
      order: (task, answered) => {
        this.#orderWriters.set(slot, (this.#orderWriters.get(slot) ?? 0) + 1)
        this.#patches.order(task, result => {
          const left = (this.#orderWriters.get(slot) ?? 1) - 1
          if (left > 0) this.#orderWriters.set(slot, left)
          else this.#orderWriters.delete(slot)
          answered(result)
        })
      },
      find,
      ask: (question, payload, answered) => this.#ask(download, question, payload, answered),
      done,
    }
    return new Reuse(host, target, older)
  }

  /** Whether what all downloads still lack fits: a disk that is filled to its last byte serves nobody. */
  #hasRoom(): boolean {
    const { freeBytes, totalBytes } = this.#context.disk.free()
    let bytes = Math.min(ROOM_BYTES_MAX, totalBytes * ROOM_PART)
    for (const { leaves, here } of this.#downloads.values()) bytes += (leaves - here) * LEAF_BYTES
    return bytes <= freeBytes
  }

  #ask(
    download: Download,
    question: ReuseQuestion,
    payload: Uint8Array | undefined,
    done: (payload: Uint8Array | null) => void,
  ): void {
    const { want, questions } = download
    const peer = this.#source(want)
    if (peer === undefined) return done(null)
    const id = ++this.#id
    questions.set(id, { peer, done })
    this.#asked(peer)
    this.#requests.set(id, want.hash)
    const header = { ...question, arena: this.#context.settings.name, id, hash: want.hash }
    this.#context.deliver({ to: 'peer', peer, message: { type: 'send', header, ...(payload && { payload }) } })
  }

  /** An `anchors` or `delta`. */
  answered(peer: PeerId, id: number, payload: Uint8Array): void {
    this.#heardFrom(peer)
    const download = this.#downloadOf(id)
    if (download?.questions.get(id)?.peer !== peer) return
    count(this.#context, { blob_bytes_received: payload.length })
    this.#answered(download, id, payload)
  }

  #answered({ questions }: Download, id: number, payload: Uint8Array | null): void {
    const asked = questions.get(id)
    this.#requests.delete(id)
    questions.delete(id)
    asked?.done(payload)
  }

  #askLeaves(download: Download): void {
    if (download.here === download.leaves) {
      // A late write would reach the file after it was put in place, and perhaps somebody's edit of it.
      if (!this.#beingWritten(download.slot)) this.#finish(download)
      return
    }
    const { want } = download
    let open = 0
    let able = 0
    for (const peer of this.#peers) {
      if (!this.#mayAsk(want, peer)) continue
      able++
      let chunks = this.#chunksOf(peer)
      while (chunks < CHUNKS_MAX && this.#askChunk(download, peer)) chunks++
      open += chunks
    }
    if (able === 0 && open === 0 && download.chunks.size === 0) this.#wait(download)
  }

  /** Over all downloads: what is under way is lost with a connection. */
  #chunksOf(peer: PeerId): number {
    let chunks = 0
    for (const { chunks: open } of this.#downloads.values()) {
      for (const chunk of open.values()) if (chunk.peer === peer) chunks++
    }
    return chunks
  }

  #askChunk(download: Download, peer: PeerId): boolean {
    const { has, leaves, want } = download
    while (download.firstMissing < leaves && has[download.firstMissing] === 2) download.firstMissing++
    let from = download.firstMissing
    while (from < leaves && has[from] !== 0) from++
    if (from === leaves) return false
    let end = from
    while (end < leaves && end - from < FETCH_LEAVES_MAX && has[end] === 0) end++
    // Before anything is noted: a disk that refuses must leave no trace of a chunk that nobody was asked for.
    const fd = this.#context.disk.stageOpen(download.slot, want.size)
    has.fill(1, from, end)
    const id = ++this.#id
    download.chunks.set(id, { peer, from, count: end - from })
    this.#chunkWriters.set(id, { peer, slot: download.slot })
    this.#asked(peer)
    this.#requests.set(id, want.hash)
    this.#context.deliver({
      to: 'peer',
      peer,
      message: {
        type: 'download',
        id,
        hash: want.hash,
        fd,
        size: want.size,
        from,
        count: end - from,
        leaves: Uint8Array.from(download.tree.subarray(from * HASH, end * HASH)),
        urgent: false,
      },
    })
    return true
  }

  stored(id: number, from: number, leaves: number): void {
    const writer = this.#chunkWriters.get(id)
    if (writer) this.#heardFrom(writer.peer)
    const download = this.#downloadOf(id)
    if (!download?.chunks.has(id)) return
    for (let leaf = from; leaf < from + leaves; leaf++) this.#mark(download, leaf)
    this.#events.progress(leaves * LEAF_BYTES)
    count(this.#context, { blob_bytes_received: leaves * LEAF_BYTES })
  }

  downloaded(id: number): void {
    this.#chunkWriters.delete(id)
    const download = this.#downloadOf(id)
    if (download) this.#chunkFailed(download, id)
  }

  /** A request ended without its answer. */
  failed(peer: PeerId, id: number, failure: Failure): void {
    this.#chunkWriters.delete(id)
    this.#heardFrom(peer)
    const download = this.#downloadOf(id)
    if (!download) return
    const code: ErrorCode = failure.code
    // What only saves something is done without.
    if (download.questions.has(id)) return this.#answered(download, id, null)
    const ask = download.treeAsks.get(id)?.ask
    if (ask?.is === 'branches' || ask?.is === 'leaves') return this.#treeFailed(download, id, true)
    if (code === 'leaf_invalid') this.#invalid(peer, download.want.hash)
    if (code === 'disk_failed') return this.#giveUp(download, failure.message, 'EIO')
    if (code !== 'peer_closed' && code !== 'busy') download.want.refused.add(peer)
    if (ask) this.#treeFailed(download, id, false)
    if (download.chunks.has(id)) this.#chunkFailed(download, id)
  }

  /** Ends a chunk: what did not come is missing again. */
  #chunkFailed(download: Download, id: number): void {
    const chunk = download.chunks.get(id)
    this.#requests.delete(id)
    if (!chunk) return
    download.chunks.delete(id)
    this.#cancel(id)
    for (let leaf = chunk.from; leaf < chunk.from + chunk.count; leaf++)
      if (download.has[leaf] === 1) download.has[leaf] = 0
  }

  /** The connection is to stop writing, and says `download_failed` when it has. */
  #cancel(id: number): void {
    const writer = this.#chunkWriters.get(id)
    if (writer) this.#context.deliver({ to: 'peer', peer: writer.peer, message: { type: 'cancel', id } })
  }

  #finish(download: Download): void {
    const { want, slot } = download
    const [path, content] = [...want.wishes][0] as [EntryPath, FileContent]
    const { ino } = this.#context.disk.stageFinish(slot, want.size, content.mtimeNs, content.exec)
    this.#drop(download)
    this.#big.delete(want.hash)
    this.#holders.delete(want.hash)
    log(this.#context, 'blob_fetched', { hash: want.hash, size: want.size })
    this.#events.staged(path, slot, content, ino)
    // The others copy it when it is in place.
    for (const other of want.wishes.keys()) if (other !== path) this.#events.copiedLater(other)
  }

  /** Nobody can help now: the slot stays for later. */
  #wait(download: Download): void {
    this.#drop(download)
    this.#noteStuck(new Map([[download.want.hash, download.want]]), this.#context.clock.nowMs())
  }

  /** @param code an errno name */
  #giveUp(download: Download, reason: string, code: string): void {
    this.#drop(download)
    this.#big.delete(download.want.hash)
    for (const path of download.want.wishes.keys()) this.#events.stuck(path, reason, { is: 'disk', code })
  }
}

/** What a person reads when the disk refuses. */
export function diskReason(error: DiskError): string {
  switch (error.code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return 'the disk is full: make room'
    case 'EACCES':
    case 'EPERM':
      return `no permission to change it (${error.code}): check the folder's owner and rights`
    case 'EROFS':
      return 'the disk is read-only (EROFS): make it writable'
    case 'ENAMETOOLONG':
    case 'EILSEQ':
    case 'EINVAL':
      return `this disk cannot hold the name (${error.code}): rename it on another peer`
    default:
      return `the disk said ${error.code}: ${error.message}`
  }
}

function someOf<T>(items: Iterable<T>, holds: (item: T) => boolean): boolean {
  for (const item of items) if (holds(item)) return true
  return false
}

/** The big blob that a slot, or what took part in a step by it, was made for. */
export function blobOfSlot(slot: string): BlobHash | null {
  if (slot.startsWith(BIG_SLOT)) return slot.slice(BIG_SLOT.length) as BlobHash
  return slot.startsWith(PLACED_SLOT) ? (slot.slice(PLACED_SLOT.length).split('-', 1)[0] as BlobHash) : null
}
