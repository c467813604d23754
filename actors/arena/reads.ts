/**
 * Content that somebody waits for: a part of a blob, from what is cached or from the peers that have it, ahead of all bulk
 * transfer. Only the leaves that are needed are fetched, each verified before it counts, and kept in the cache. Who
 * reads on gets the next leaves in advance. Small blobs that nobody waits for yet travel together. Nobody has it: that is said at once.
 *
 * A state machine: it is told what came and asks for what is wanted, in one place (`step`), from what is.
 */
import type { Failure } from '../../protocol/error.ts'
import type { PeerId } from '../../protocol/ids.ts'
import {
  FETCH_BLOBS_MAX,
  FETCH_LEAVES_MAX,
  GROUP_LEAVES,
  LEAF_BYTES,
  PACK_BYTES_TARGET,
  PACKED_BLOB_BYTES_MAX,
} from '../../protocol/limits.ts'
import type { CachedFile } from '../../protocol/ports.ts'
import type { ArenaWireMessage } from '../../protocol/wire.ts'
import { leafCount } from '../hasher/merkle.ts'
import { type Blob, type Cache, groupOf, leafBytes } from './cache.ts'
import { type ArenaContext, count, log } from './context.ts'

/** Numbers of requests of reads: the fetcher's are below, those of questions above. */
const IDS_FROM = 2 ** 40
const IDS_END = 2 ** 48

/** Whether a request with this number is one of ours. */
export function isReadId(id: number): boolean {
  return id >= IDS_FROM && id < IDS_END
}

/** A peer that owes something and has said nothing for so long: what it was asked for is asked of another, too. */
const SLOW_MS = 2_000
/** And for so long: nobody waits for it any more. */
const MUTE_MS = 15_000
/**
 * All who could be asked have said that they do not have it: they are asked once more after so long, for who moves a file has it again a
 * moment later. Where that did not help, others are told at once for a while.
 */
const SECOND_CHANCE_MS = 300
const NO_CHANCE_MS = 10_000
/** Leaves asked of one peer in advance and not yet here: 8 MiB. */
const AHEAD_LEAVES_MAX = 64
/** In one request, when nobody waits for them yet: they come a MiB at a time. */
const AHEAD_RUN = 8
/** Of a blob that is fetched whole: wanted at once. */
const WHOLE_LEAVES = 64
/** Packs asked of one peer and not yet here. */
const PACKS_MAX = 4
/** Blobs that are fetched whole at once, by their weight. */
export const WHOLE_WEIGHT_MAX = 2048
/** Of one that does not travel in a pack. */
const BIG_WEIGHT = 64
/** Blobs of which it is remembered where somebody reads on, and who gave it. */
const STREAMS_MAX = 64
/** Readers that wait, and bytes that they wait for; others wait until there is room, or are refused. */
const READERS_MAX = 4096
const READING_BYTES_MAX = 64 * 1024 * 1024
/** Leaves that found no room in the cache, for those who read on: 16 MiB. */
const PASSING_LEAVES_MAX = 128

export type ReadOutcome = { readonly bytes: Uint8Array } | { readonly failure: Failure }
/** `cached`: all of it lies in this file of the cache, verified, at its place. */
export type PlacedOutcome = ReadOutcome | { readonly cached: CachedFile }

export interface ReadOptions {
  /** Bytes after the part that will be read next; absent: it is told from the reads before. */
  readonly ahead?: number
}

interface Reader {
  readonly reading: Reading
  readonly offset: number
  readonly end: number
  readonly options: ReadOptions
  begun: boolean
  /** null: it has not begun, or needs none as long as all of it goes to the cache. */
  bytes: Uint8Array | null
  readonly inPlace: boolean
  /** Leaves of it that have not come. */
  readonly missing: Set<number>
  readonly done: (outcome: PlacedOutcome) => void
  /** It has been answered, or given up. */
  over: boolean
}

/** Fetches all leaves of a blob. */
interface Whole {
  next: number
  /** Wanted, and not yet here. */
  readonly missing: Set<number>
  readonly done: (failure: Failure | null) => void
  over: boolean
}

/** A blob of which something is wanted. */
interface Reading {
  readonly blob: Blob
  readonly leaves: number
  readonly readers: Set<Reader>
  readonly wholes: Set<Whole>
  /** Wanted in advance. */
  readonly ahead: Set<number>
  /** Requests under way for each leaf; and for the tree of each group (NODES: of the groups). */
  readonly asked: Map<number, Set<number>>
  readonly treeAsked: Map<number, Set<number>>
  /** Who has nothing of it, or has sent something else; who has not this leaf; and leaves that are asked for one by one. */
  readonly refused: Set<PeerId>
  readonly refusedLeaf: Map<number, Set<PeerId>>
  /** Who has a part of it, and so gives no hashes. */
  readonly refusedTree: Set<PeerId>
  readonly single: Set<number>
  /** When all are to be asked once more after they had refused, or were; null: there was no cause yet. */
  secondChance: { readonly atMs: number; given: boolean } | null
  /** Came before their hash. Copies: what a message brings is lent. */
  readonly early: Map<number, { readonly peer: PeerId; readonly bytes: Uint8Array }>
}

type Request =
  | {
      readonly is: 'leaves'
      readonly peer: PeerId
      readonly reading: Reading
      readonly from: number
      readonly count: number
    }
  | { readonly is: 'tree'; readonly peer: PeerId; readonly reading: Reading; readonly group: number }
  | { readonly is: 'pack'; readonly peer: PeerId; readonly readings: readonly Reading[]; readonly urgent: boolean }

/** In place of a group's number: the nodes of all groups. */
const NODES = -1

/** What is remembered of a blob that was read. */
interface Stream {
  /** Where who reads on goes on, and how many leaves ahead it gets. */
  next: number
  window: number
  /** Who gave it. */
  readonly sources: Set<PeerId>
}

export class Reads {
  readonly #context: ArenaContext
  readonly #cache: Cache
  readonly #readings = new Map<string, Reading>()
  readonly #requests = new Map<number, Request>()
  /** Not begun, for want of room. */
  readonly #waiting = new Set<Reader>()
  #readers = 0
  #readingBytes = 0
  readonly #peers = new Set<PeerId>()
  /** When each peer that owes something said something last, or was asked first. */
  readonly #heardMs = new Map<PeerId, number>()
  readonly #mute = new Set<PeerId>()
  readonly #streams = new Map<string, Stream>()
  readonly #passing = new Map<string, Uint8Array>()
  #id = IDS_FROM

  constructor(context: ArenaContext) {
    this.#context = context
    this.#cache = context.cache
  }

  /** How many wait. */
  get outstanding(): number {
    return this.#readers + this.#waiting.size
  }

  /**
   * Bytes [offset, offset + length) of a blob, fewer at its end. `done` may be called before this returns; not after the answer, which
   * gives the read up, was called. Failures: `unreachable`, `busy`.
   */
  read(
    blob: Blob,
    offset: number,
    length: number,
    done: (outcome: ReadOutcome) => void,
    options: ReadOptions = {},
  ): () => void {
    return this.#read(blob, offset, length, done as (outcome: PlacedOutcome) => void, options, false)
  }

  /** The same where whoever asks can read the cache's files by himself: no bytes are moved if all of it is there. */
  place(blob: Blob, offset: number, length: number, done: (outcome: PlacedOutcome) => void): () => void {
    return this.#read(blob, offset, length, done, {}, true)
  }

  #read(
    blob: Blob,
    offset: number,
    length: number,
    done: (outcome: PlacedOutcome) => void,
    options: ReadOptions,
    inPlace: boolean,
  ): () => void {
    const end = Math.min(blob.size, offset + length)
    if (end <= offset) {
      done({ bytes: new Uint8Array(0) })
      return () => {}
    }
    if (this.outstanding >= READERS_MAX) {
      done({ failure: { code: 'busy', message: 'too many reads wait already: try again' } })
      return () => {}
    }
    const reading = this.#readingOf(blob)
    const reader: Reader = {
      reading,
      offset,
      end,
      options,
      begun: false,
      bytes: null,
      inPlace,
      missing: new Set(),
      done,
      over: false,
    }
    reading.readers.add(reader)
    this.#waiting.add(reader)
    this.step()
    return () => {
      reader.over = true
      this.#dismiss(reader)
      this.step()
    }
  }

  /** These small blobs will be read next, as far as can be told. */
  soon(blobs: readonly Blob[]): void {
    for (const blob of blobs) if (isSmall(blob) && !this.#has(blob, 0)) this.#readingOf(blob).ahead.add(0)
    this.step()
  }

  /** Has all of a blob in the cache, from the next `step` on; `done` with null, or why not. The answer gives it up. */
  whole(blob: Blob, done: (failure: Failure | null) => void): () => void {
    const reading = this.#readingOf(blob)
    const whole: Whole = { next: 0, missing: new Set(), done, over: false }
    reading.wholes.add(whole)
    return () => {
      whole.over = true
      reading.wholes.delete(whole)
      this.step()
    }
  }

  /** Everybody who waits is told that nothing comes any more. */
  close(): void {
    const failure: Failure = { code: 'arena_unavailable', message: 'the arena has stopped' }
    for (const reading of this.#readings.values()) {
      this.#cache.close(reading.blob.hash)
      for (const reader of [...reading.readers]) this.#answer(reader, { failure })
      for (const whole of [...reading.wholes]) this.#conclude(reading, whole, failure)
    }
    this.#readings.clear()
    this.#requests.clear()
    this.#peers.clear()
    for (const answer of this.#answers.splice(0)) answer()
  }

  #readingOf(blob: Blob): Reading {
    const key = keyOf(blob)
    let reading = this.#readings.get(key)
    if (!reading) {
      reading = {
        blob,
        leaves: leafCount(blob.size),
        readers: new Set(),
        wholes: new Set(),
        ahead: new Set(),
        asked: new Map(),
        treeAsked: new Map(),
        refused: new Set(),
        refusedLeaf: new Map(),
        refusedTree: new Set(),
        single: new Set(),
        secondChance: null,
        early: new Map(),
      }
      this.#readings.set(key, reading)
      this.#cache.open(blob.hash)
    }
    return reading
  }

  // Peers

  peerOpened(peer: PeerId): void {
    this.#peers.add(peer)
    this.#mute.delete(peer)
    for (const reading of this.#readings.values()) this.#hope(reading, peer)
    this.step()
  }

  /** What it was asked it will not answer. */
  peerReset(peer: PeerId): void {
    this.#peers.delete(peer)
    this.#mute.delete(peer)
    this.#heardMs.delete(peer)
    for (const [id, request] of this.#requests) if (request.peer === peer) this.#ended(id)
    for (const reading of this.#readings.values()) this.#hope(reading, peer)
    this.step()
  }

  #hope(reading: Reading, peer: PeerId): void {
    reading.refused.delete(peer)
    reading.refusedTree.delete(peer)
    for (const peers of reading.refusedLeaf.values()) peers.delete(peer)
  }

  #heardFrom(peer: PeerId): void {
    this.#mute.delete(peer)
    if (this.#owes(peer)) this.#heardMs.set(peer, this.#context.clock.nowMs())
    else this.#heardMs.delete(peer)
  }

  #owes(peer: PeerId): boolean {
    for (const request of this.#requests.values()) if (request.peer === peer) return true
    return false
  }

  /** It owes something and has not said a word for a while. */
  #slow(peer: PeerId): boolean {
    const sinceMs = this.#heardMs.get(peer)
    return sinceMs !== undefined && this.#context.clock.nowMs() - sinceMs >= SLOW_MS
  }

  #noteMute(): void {
    const { clock, timers } = this.#context
    for (const [peer, sinceMs] of this.#heardMs) {
      const silentMs = clock.nowMs() - sinceMs
      if (silentMs >= MUTE_MS) {
        this.#heardMs.delete(peer)
        this.#mute.add(peer)
        for (const [id, request] of this.#requests) if (request.peer === peer) this.#ended(id)
      } else timers.soon('reads', sinceMs + (silentMs < SLOW_MS ? SLOW_MS : MUTE_MS), () => this.step())
    }
  }

  // What is wanted

  /** Answers whom it can, and asks for what is wanted. Safe to call at any time. */
  step(): void {
    this.#again = true
    if (this.#stepping) return
    this.#stepping = true
    try {
      while (this.#again) {
        this.#again = false
        this.#advance()
        // Whoever is answered may ask for more.
        for (const answer of this.#answers.splice(0)) answer()
      }
    } finally {
      this.#stepping = false
    }
  }
  #stepping = false
  #again = false
  readonly #answers: (() => void)[] = []

  #answer(reader: Reader, outcome: PlacedOutcome): void {
    this.#dismiss(reader)
    this.#answers.push(() => {
      if (!reader.over) reader.done(outcome)
      reader.over = true
    })
    this.#again = true
  }

  #conclude(reading: Reading, whole: Whole, failure: Failure | null): void {
    reading.wholes.delete(whole)
    this.#answers.push(() => {
      if (!whole.over) whole.done(failure)
      whole.over = true
    })
    this.#again = true
  }

  #advance(): void {
    this.#noteMute()
    this.#begin()
    this.#giveSecondChances()
    const [soon, later]: [Reading[], Reading[]] = [[], []]
    for (const [key, reading] of this.#readings) {
      this.#fill(reading)
      this.#ask(reading)
      if (isSmall(reading.blob) && this.#toBeAsked(reading, 0, false)) {
        if (reading.ahead.size > 0) soon.push(reading)
        else if (reading.wholes.size > 0) later.push(reading)
      }
      if (reading.readers.size > 0 || reading.wholes.size > 0 || reading.ahead.size > 0) continue
      if (reading.asked.size > 0 || reading.treeAsked.size > 0) continue
      this.#readings.delete(key)
      this.#cache.close(reading.blob.hash)
    }
    this.#askPacks(soon, true)
    this.#askPacks(later, false)
  }

  /** Readers begin as long as there is room for what they wait for; one always. */
  #begin(): void {
    for (const reader of this.#waiting) {
      const bytes = reader.end - reader.offset
      if (this.#readers > 0 && this.#readingBytes + bytes > READING_BYTES_MAX) return
      this.#waiting.delete(reader)
      this.#readers++
      this.#readingBytes += bytes
      reader.begun = true
      if (reader.inPlace) this.#look(reader)
      else this.#gather(reader)
      this.#wantAhead(reader)
      this.#answerIfDone(reader)
    }
  }

  /** Notes what is missing; for want of room in the cache some of it may have to be taken from elsewhere. */
  #look(reader: Reader): void {
    const { blob } = reader.reading
    for (const leaf of leavesOf(reader)) {
      if (this.#cache.holds(blob, leaf)) continue
      if (this.#passing.has(`${keyOf(blob)}:${leaf}`)) return this.#gather(reader)
      reader.missing.add(leaf)
    }
  }

  /** Takes what is here, and notes what is missing. */
  #gather(reader: Reader): void {
    const { blob } = reader.reading
    reader.bytes = new Uint8Array(reader.end - reader.offset)
    reader.missing.clear()
    for (const leaf of leavesOf(reader)) {
      const { from, to } = overlap(reader, leaf)
      const bytes = this.#local(blob, leaf, from - leaf * LEAF_BYTES, to - leaf * LEAF_BYTES)
      if (bytes) reader.bytes.set(bytes, from - reader.offset)
      else reader.missing.add(leaf)
    }
  }

  /** Bytes of a leaf that are here. */
  #local(blob: Blob, leaf: number, start: number, end: number): Uint8Array | null {
    return (
      this.#cache.part(blob, leaf, start, end) ??
      this.#passing.get(`${keyOf(blob)}:${leaf}`)?.subarray(start, end) ??
      null
    )
  }

  #answerIfDone(reader: Reader): void {
    if (!reader.begun || reader.missing.size > 0) return
    if (reader.bytes === null) {
      const cached = this.#placeOf(reader)
      if (cached) return this.#answer(reader, { cached })
      // Taken away meanwhile, or it is no file that others can open.
      this.#gather(reader)
      this.#again = true
    }
    if (reader.bytes !== null && reader.missing.size === 0) this.#answer(reader, { bytes: reader.bytes })
  }

  /** The cache's file, if all that is wanted is in it. */
  #placeOf(reader: Reader): CachedFile | null {
    const { blob } = reader.reading
    const file = this.#cache.where(blob)
    return file && [...leavesOf(reader)].every(leaf => this.#cache.holds(blob, leaf)) ? file : null
  }

  #dismiss(reader: Reader): void {
    if (!reader.reading.readers.delete(reader)) return
    if (this.#waiting.delete(reader)) return
    this.#readers--
    this.#readingBytes -= reader.end - reader.offset
  }

  /** Who reads on gets twice as much ahead each time, up to a limit. */
  #wantAhead({ reading, offset, end, options }: Reader): void {
    const { blob, leaves } = reading
    if (leaves === 1) return
    const stream = this.#streamOf(blob)
    const onward = Math.abs(offset - stream.next) <= LEAF_BYTES && stream.next > 0
    stream.window = onward ? Math.min(AHEAD_LEAVES_MAX, Math.max(2, stream.window * 2)) : 0
    stream.next = end
    const bytes = options.ahead ?? stream.window * LEAF_BYTES
    const first = Math.ceil(end / LEAF_BYTES)
    const last = Math.min(leaves, Math.ceil((end + bytes) / LEAF_BYTES), first + AHEAD_LEAVES_MAX)
    for (let leaf = first; leaf < last; leaf++) if (!this.#has(blob, leaf)) reading.ahead.add(leaf)
  }

  #has(blob: Blob, leaf: number): boolean {
    return this.#cache.has(blob, leaf) || this.#passing.has(`${keyOf(blob)}:${leaf}`)
  }

  #streamOf(blob: Blob): Stream {
    const key = keyOf(blob)
    const stream = this.#streams.get(key) ?? { next: 0, window: 0, sources: new Set() }
    this.#streams.delete(key)
    this.#streams.set(key, stream)
    for (const oldest of this.#streams.keys()) {
      if (this.#streams.size <= STREAMS_MAX) break
      this.#streams.delete(oldest)
    }
    return stream
  }

  /** What is to be fetched whole wants its next leaves. */
  #fill(reading: Reading): void {
    for (const whole of reading.wholes) {
      while (whole.missing.size < WHOLE_LEAVES && whole.next < reading.leaves) {
        const leaf = whole.next++
        if (!this.#cache.has(reading.blob, leaf)) whole.missing.add(leaf)
      }
      if (whole.missing.size > 0) continue
      this.#conclude(reading, whole, null)
    }
  }

  // Asking

  #ask(reading: Reading): void {
    for (const leaf of reading.ahead) if (this.#has(reading.blob, leaf)) reading.ahead.delete(leaf)
    if (reading.readers.size > 0) {
      const waitedFor = new Set<number>()
      for (const { missing } of reading.readers) for (const leaf of missing) waitedFor.add(leaf)
      this.#askFor(reading, waitedFor, FETCH_LEAVES_MAX, true)
    }
    if (isSmall(reading.blob)) return
    this.#askFor(reading, reading.ahead, AHEAD_RUN, true, AHEAD_LEAVES_MAX)
    for (const { missing } of [...reading.wholes]) this.#askFor(reading, missing, AHEAD_RUN, false, AHEAD_LEAVES_MAX)
  }

  /** @param openMax leaves that may be under way from one peer; absent: any number */
  #askFor(reading: Reading, wanted: ReadonlySet<number>, runMax: number, urgent: boolean, openMax = Infinity): void {
    const leaves = [...wanted].sort((a, b) => a - b)
    for (let at = 0; at < leaves.length; ) {
      const from = leaves[at] as number
      if (!this.#toBeAsked(reading, from, urgent)) {
        at++
        continue
      }
      const candidates = this.#candidates(reading, from, urgent)
      if (candidates.length === 0 || !this.#hashesCome(reading, groupOf(from))) {
        at++
        if (!this.#isAsked(reading, from)) this.#unreachable(reading, from)
        continue
      }
      const peer = candidates.find(one => this.#openLeaves(one) < openMax)
      if (peer === undefined) return
      let run = 1
      const most = reading.single.has(from) ? 1 : runMax
      while (
        run < most &&
        leaves[at + run] === from + run &&
        groupOf(from + run) === groupOf(from) &&
        !reading.single.has(from + run) &&
        !this.#isAsked(reading, from + run) &&
        !reading.refusedLeaf.get(from + run)?.has(peer)
      )
        run++
      this.#askLeaves(reading, peer, from, run, urgent)
      at += run
    }
  }

  #isAsked(reading: Reading, leaf: number): boolean {
    return (reading.asked.get(leaf)?.size ?? 0) > 0 || reading.early.has(leaf)
  }

  /** It is not under way, or only from peers that do not get on with it. */
  #toBeAsked(reading: Reading, leaf: number, urgent: boolean): boolean {
    if (reading.early.has(leaf)) return false
    return this.#askedOf(reading, leaf, urgent).every(peer => this.#slow(peer))
  }

  /** Who has been asked for a leaf; if somebody waits for it, not by a pack for which nobody waits. */
  #askedOf(reading: Reading, leaf: number, urgent: boolean): PeerId[] {
    const peers: PeerId[] = []
    for (const id of reading.asked.get(leaf) ?? []) {
      const request = this.#requests.get(id)
      if (request && !(urgent && request.is === 'pack' && !request.urgent)) peers.push(request.peer)
    }
    return peers
  }

  #mayGive(reading: Reading, leaf: number, peer: PeerId): boolean {
    return !reading.refused.has(peer) && !reading.refusedLeaf.get(leaf)?.has(peer) && !this.#mute.has(peer)
  }

  /** Who may be asked for a leaf, best first. */
  #candidates(reading: Reading, leaf: number, urgent: boolean): PeerId[] {
    const sources = this.#streams.get(keyOf(reading.blob))?.sources
    const asked = this.#askedOf(reading, leaf, urgent)
    return [...this.#peers]
      .filter(peer => this.#mayGive(reading, leaf, peer) && !asked.includes(peer))
      .map(peer => ({
        peer,
        slow: Number(this.#slow(peer)),
        unknown: Number(!sources?.has(peer)),
        open: this.#openLeaves(peer),
      }))
      .sort((a, b) => a.slow - b.slow || a.unknown - b.unknown || a.open - b.open)
      .map(({ peer }) => peer)
  }

  #openLeaves(peer: PeerId): number {
    let leaves = 0
    for (const request of this.#requests.values())
      if (request.peer === peer && request.is === 'leaves') leaves += request.count
    return leaves
  }

  /** Small blobs that nobody waits for yet, many in a request, from all who can be asked. */
  #askPacks(small: readonly Reading[], urgent: boolean): void {
    if (small.length === 0) return
    const open = new Map([...this.#peers].map(peer => [peer, 0]))
    for (const request of this.#requests.values())
      if (request.is === 'pack' && request.urgent === urgent) open.set(request.peer, (open.get(request.peer) ?? 0) + 1)
    const packs = new Map<PeerId, { bytes: number; readings: Reading[] }>()
    for (const reading of small) {
      const givers = [...this.#peers].filter(peer => this.#mayGive(reading, 0, peer))
      const asked = this.#askedOf(reading, 0, urgent)
      if (givers.length === 0 && asked.length === 0) this.#unreachable(reading, 0)
      let [best, bytes] = [null as PeerId | null, 0]
      for (const peer of givers) {
        if (asked.includes(peer) || (open.get(peer) ?? 0) >= PACKS_MAX) continue
        const load = Number(this.#slow(peer)) * Number.MAX_SAFE_INTEGER + (packs.get(peer)?.bytes ?? 0)
        if (best === null || load < bytes) [best, bytes] = [peer, load]
      }
      if (best === null) continue
      const pack = packs.get(best) ?? { bytes: 0, readings: [] }
      packs.set(best, pack)
      pack.readings.push(reading)
      pack.bytes += reading.blob.size
      if (pack.bytes < PACK_BYTES_TARGET && pack.readings.length < FETCH_BLOBS_MAX) continue
      this.#askPack(best, pack.readings, urgent)
      packs.delete(best)
      open.set(best, (open.get(best) ?? 0) + 1)
    }
    for (const [peer, { readings }] of packs) this.#askPack(peer, readings, urgent)
  }

  #askPack(peer: PeerId, readings: readonly Reading[], urgent: boolean): void {
    const id = this.#request({ is: 'pack', peer, readings, urgent })
    for (const { asked } of readings) asked.set(0, (asked.get(0) ?? new Set()).add(id))
    const hashes = readings.map(({ blob }) => blob.hash)
    this.#send(peer, { type: 'fetch_blobs', arena: this.#context.settings.name, id, hashes, urgent })
  }

  #askLeaves(reading: Reading, peer: PeerId, from: number, leaves: number, urgent: boolean): void {
    this.#askTree(reading, peer, groupOf(from), urgent)
    const id = this.#request({ is: 'leaves', peer, reading, from, count: leaves })
    for (let leaf = from; leaf < from + leaves; leaf++) {
      const asked = reading.asked.get(leaf) ?? new Set()
      reading.asked.set(leaf, asked.add(id))
    }
    const { hash } = reading.blob
    this.#send(peer, {
      type: 'fetch_leaves',
      arena: this.#context.settings.name,
      id,
      hash,
      from,
      count: leaves,
      urgent,
    })
  }

  /** Who may be asked for hashes: the one who is asked for leaves, if it gives them. */
  #treeSource(reading: Reading, first: PeerId | null): PeerId | undefined {
    const may = (peer: PeerId) =>
      this.#peers.has(peer) && !reading.refused.has(peer) && !reading.refusedTree.has(peer) && !this.#mute.has(peer)
    if (first !== null && may(first)) return first
    const peers = [...this.#peers].filter(may)
    return peers.find(peer => !this.#slow(peer)) ?? peers[0]
  }

  /** Whether a group's hashes are known, or can be. Without them leaves are nothing. */
  #hashesCome(reading: Reading, group: number): boolean {
    if (reading.leaves <= 1 || this.#cache.tree(reading.blob, group)) return true
    return reading.treeAsked.has(group) || this.#treeSource(reading, null) !== undefined
  }

  /** Hashes are asked for together with the leaves: the first byte is one round trip away. */
  #askTree(reading: Reading, leafSource: PeerId, group: number, urgent: boolean): void {
    const { blob, leaves } = reading
    if (leaves <= 1 || this.#cache.tree(blob, group)) return
    const peer = this.#treeSource(reading, leafSource)
    if (peer === undefined) return
    const wanted = leaves > GROUP_LEAVES && !this.#cache.groups(blob) ? [NODES, group] : [group]
    for (const one of wanted) {
      const asked = reading.treeAsked.get(one) ?? new Set()
      if ([...asked].some(id => this.#requests.get(id)?.peer === peer)) continue
      const id = this.#request({ is: 'tree', peer, reading, group: one })
      reading.treeAsked.set(one, asked.add(id))
      const header = {
        type: 'fetch_tree',
        arena: this.#context.settings.name,
        id,
        hash: blob.hash,
        group: one === NODES ? null : one,
        urgent,
      } as const
      this.#send(peer, header)
    }
  }

  #request(request: Request): number {
    const id = ++this.#id
    this.#requests.set(id, request)
    const { clock, timers } = this.#context
    if (!this.#heardMs.has(request.peer)) this.#heardMs.set(request.peer, clock.nowMs())
    timers.soon('reads', clock.nowMs() + SLOW_MS, () => this.step())
    return id
  }

  #send(peer: PeerId, header: ArenaWireMessage): void {
    this.#context.deliver({ to: 'peer', peer, message: { type: 'send', header } })
  }

  #unreachable(reading: Reading, leaf: number): void {
    if (reading.ahead.delete(leaf)) this.#again = true
    if (this.#hasSecondChance(reading)) return
    const failure: Failure = { code: 'unreachable', message: this.#reason() }
    for (const reader of [...reading.readers]) {
      if (reader.missing.has(leaf)) this.#answer(reader, { failure })
    }
    for (const whole of [...reading.wholes]) {
      if (whole.missing.has(leaf)) this.#conclude(reading, whole, failure)
    }
  }

  /** Whether all who said that they do not have it are asked again before anybody is told so. */
  #hasSecondChance(reading: Reading): boolean {
    const { clock, timers } = this.#context
    const nowMs = clock.nowMs()
    if (reading.readers.size === 0 && reading.wholes.size === 0) return false
    const { secondChance } = reading
    if (secondChance !== null && !secondChance.given) return true
    if (secondChance !== null && nowMs - secondChance.atMs < NO_CHANCE_MS) {
      this.#chancesFromMs = nowMs + NO_CHANCE_MS
      return false
    }
    if (nowMs < this.#chancesFromMs || [...this.#peers].every(peer => this.#mute.has(peer))) return false
    const atMs = nowMs + SECOND_CHANCE_MS
    reading.secondChance = { atMs, given: false }
    timers.soon('second chances', atMs, () => this.step())
    return true
  }

  #giveSecondChances(): void {
    const { clock, timers } = this.#context
    for (const reading of this.#readings.values()) {
      const { secondChance } = reading
      if (secondChance === null || secondChance.given) continue
      if (clock.nowMs() < secondChance.atMs) timers.soon('second chances', secondChance.atMs, () => this.step())
      else {
        secondChance.given = true
        for (const peer of this.#peers) this.#hope(reading, peer)
      }
    }
  }
  /** None are given before: the last one did not help. */
  #chancesFromMs = 0

  #reason(): string {
    if (this.#peers.size === 0) return 'its content is not here, and no peer is connected'
    if ([...this.#peers].every(peer => this.#mute.has(peer)))
      return 'its content is not here, and the peers that are connected do not answer'
    return 'its content is not here, and none of the connected peers has it'
  }

  // Answers

  tree(peer: PeerId, id: number, payload: Uint8Array): void {
    const request = this.#requests.get(id)
    if (request?.is !== 'tree' || request.peer !== peer) return this.#heardFrom(peer)
    const { reading, group } = request
    const { blob } = reading
    const fits = group === NODES ? this.#cache.takeGroups(blob, payload) : this.#cache.takeTree(blob, group, payload)
    if (fits === false) this.#invalid(reading, peer)
    if (fits === true) this.#takeEarly(reading)
    this.#ended(id)
    this.#heardFrom(peer)
    this.step()
  }

  /** Leaves that came before their hashes. */
  #takeEarly(reading: Reading): void {
    for (const [leaf, { peer, bytes }] of reading.early) {
      const fits = this.#cache.fits(reading.blob, leaf, bytes)
      if (fits === null) continue
      reading.early.delete(leaf)
      if (fits) this.#arrived(reading, peer, leaf, bytes)
      else this.#invalid(reading, peer)
    }
  }

  leaves(peer: PeerId, id: number, from: number, leaves: number, payload: Uint8Array): void {
    const request = this.#requests.get(id)
    if (request?.is !== 'leaves' || request.peer !== peer) return this.#heardFrom(peer)
    const { reading } = request
    count(this.#context, { blob_bytes_received: payload.length })
    for (let leaf = from; leaf < from + leaves; leaf++) {
      const start = (leaf - from) * LEAF_BYTES
      const bytes = payload.subarray(start, start + leafBytes(reading.blob, leaf))
      this.#notAsked(reading, leaf, id)
      const fits = this.#cache.fits(reading.blob, leaf, bytes)
      if (fits === true) this.#arrived(reading, peer, leaf, bytes)
      else if (fits === false) this.#invalid(reading, peer)
      else if (this.#treeComes(reading, leaf)) reading.early.set(leaf, { peer, bytes: Uint8Array.from(bytes) })
    }
    if (from + leaves >= request.from + request.count) this.#ended(id)
    this.#heardFrom(peer)
    this.step()
  }

  /** Whole small blobs, in the order asked; a size of -1: the peer does not have it. */
  pack(peer: PeerId, id: number, sizes: readonly number[], payload: Uint8Array): void {
    const request = this.#requests.get(id)
    if (request?.is !== 'pack' || request.peer !== peer) return this.#heardFrom(peer)
    this.#ended(id)
    count(this.#context, { blob_bytes_received: payload.length })
    let offset = 0
    for (const [index, reading] of request.readings.entries()) {
      const size = sizes[index] ?? -1
      if (size < 0) {
        reading.refused.add(peer)
        continue
      }
      const bytes = payload.subarray(offset, offset + size)
      offset += size
      if (this.#cache.fits(reading.blob, 0, bytes) === true) this.#arrived(reading, peer, 0, bytes)
      else this.#invalid(reading, peer)
    }
    this.#heardFrom(peer)
    this.step()
  }

  #treeComes(reading: Reading, leaf: number): boolean {
    return (reading.treeAsked.get(groupOf(leaf))?.size ?? 0) > 0
  }

  #arrived(reading: Reading, peer: PeerId, leaf: number, bytes: Uint8Array): void {
    const { blob } = reading
    const kept = this.#cache.put(blob, leaf, bytes)
    if (reading.leaves > 1) this.#streamOf(blob).sources.add(peer)
    reading.refusedLeaf.delete(leaf)
    reading.single.delete(leaf)
    const ahead = reading.ahead.delete(leaf)
    if (!kept && ahead) this.#pass(blob, leaf, bytes)
    for (const reader of [...reading.readers]) {
      if (!reader.missing.has(leaf)) continue
      if (reader.bytes === null && !kept) this.#gather(reader)
      reader.missing.delete(leaf)
      const { from, to } = overlap(reader, leaf)
      reader.bytes?.set(bytes.subarray(from - leaf * LEAF_BYTES, to - leaf * LEAF_BYTES), from - reader.offset)
      this.#answerIfDone(reader)
    }
    for (const whole of [...reading.wholes]) {
      if (!whole.missing.delete(leaf) || kept) continue
      const message = 'there is no room in the cache: make room on its disk, or allow it more (cache.max, cache.leave)'
      this.#conclude(reading, whole, { code: 'limit_exceeded', message })
    }
  }

  /** Without room in the cache it is kept for a moment for who reads on. */
  #pass(blob: Blob, leaf: number, bytes: Uint8Array): void {
    this.#passing.set(`${keyOf(blob)}:${leaf}`, Uint8Array.from(bytes))
    for (const oldest of this.#passing.keys()) {
      if (this.#passing.size <= PASSING_LEAVES_MAX) break
      this.#passing.delete(oldest)
    }
  }

  #invalid(reading: Reading, peer: PeerId): void {
    reading.refused.add(peer)
    this.#streams.get(keyOf(reading.blob))?.sources.delete(peer)
    log(this.#context, 'blob_invalid', { peer, hash: reading.blob.hash })
    count(this.#context, { blobs_invalid: 1 })
  }

  /** A request was refused. */
  failed(peer: PeerId, id: number, code: string): void {
    const request = this.#ended(id)
    this.#heardFrom(peer)
    if (request?.peer === peer) this.#refused(request, code)
    this.step()
  }

  #refused(request: Request, code: string): void {
    const { peer } = request
    if (request.is === 'pack') {
      for (const { refused } of request.readings) refused.add(peer)
      return
    }
    const { reading } = request
    if (code !== 'leaf_missing') {
      reading.refused.add(peer)
      this.#streams.get(keyOf(reading.blob))?.sources.delete(peer)
      return
    }
    if (request.is === 'tree') {
      reading.refusedTree.add(peer)
      return
    }
    for (let leaf = request.from; leaf < request.from + request.count; leaf++) {
      if (request.count > 1) {
        reading.single.add(leaf)
        continue
      }
      const peers = reading.refusedLeaf.get(leaf) ?? new Set()
      reading.refusedLeaf.set(leaf, peers.add(peer))
    }
  }

  /** It is not waited for any more; what it was, if it was. */
  #ended(id: number): Request | undefined {
    const request = this.#requests.get(id)
    if (!request) return undefined
    this.#requests.delete(id)
    if (request.is === 'pack') {
      for (const reading of request.readings) this.#notAsked(reading, 0, id)
      return request
    }
    const { reading } = request
    if (request.is === 'leaves')
      for (let leaf = request.from; leaf < request.from + request.count; leaf++) this.#notAsked(reading, leaf, id)
    else {
      const asked = reading.treeAsked.get(request.group)
      asked?.delete(id)
      if (asked?.size === 0) reading.treeAsked.delete(request.group)
      // Without their hashes they are nothing.
      for (const leaf of [...reading.early.keys()])
        if (!this.#treeComes(reading, leaf) && !this.#cache.tree(reading.blob, groupOf(leaf)))
          reading.early.delete(leaf)
    }
    return request
  }

  #notAsked(reading: Reading, leaf: number, id: number): void {
    const asked = reading.asked.get(leaf)
    asked?.delete(id)
    if (asked?.size === 0) reading.asked.delete(leaf)
  }
}

function keyOf({ hash, size }: Blob): string {
  return `${hash}:${size}`
}

/** It travels in a pack, and is one leaf. */
function isSmall({ size }: Blob): boolean {
  return size > 0 && size <= PACKED_BLOB_BYTES_MAX
}

/** What a blob counts among those that are fetched whole at once. */
export function weightOf(blob: Blob): number {
  return isSmall(blob) ? 1 : BIG_WEIGHT
}

function* leavesOf({ offset, end }: Reader): Iterable<number> {
  for (let leaf = Math.floor(offset / LEAF_BYTES); leaf < Math.ceil(end / LEAF_BYTES); leaf++) yield leaf
}

/** The bytes of a leaf that a reader wants, as offsets in the blob. */
function overlap({ offset, end }: Reader, leaf: number): { from: number; to: number } {
  return { from: Math.max(offset, leaf * LEAF_BYTES), to: Math.min(end, (leaf + 1) * LEAF_BYTES) }
}
