/**
 * What an arena remembers, behind a small synchronous interface: `store-lmdb.ts` keeps it on disk, `store-memory.ts` in
 * memory for the simulator. Both pass test/arena/store-acceptance.
 *
 * Everything that changes goes through `transact`: all of it is kept or nothing, also through a kill.
 */
import type { Mark } from '../../protocol/control.ts'
import type { BlobHash, EntryPath, PeerId, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import type { HistoryEvent } from '../../protocol/status.ts'
import type { Version } from './version.ts'

/** How the disk showed `have`, to see at a glance whether it still does. All zero: unknown, look again. */
export interface Stamp {
  readonly size: number
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
  readonly ino: bigint
}
export const NO_STAMP: Stamp = { size: -1, mtimeNs: 0n, ctimeNs: 0n, ino: 0n }

/** What is known of one path. */
export interface Entry {
  readonly path: EntryPath
  /** Place in this store's change feed; 0: not announced yet. */
  readonly seq: number
  /** The best version heard of. */
  readonly known: Version
  /**
   * The version that this disk shows; null: it never showed one, or its content was given up. The same object as `known` when they
   * agree.
   */
  readonly have: Version | null
  /** null: nothing is on the disk at this path (or only a dormant folder). */
  readonly stamp: Stamp | null
  /** The disk shows a folder here that no version speaks of: it only holds something. */
  readonly dormant: boolean
  /** The peer whose announcement made `known` what it is; it needs no echo. null: made here. */
  readonly origin: PeerId | null
  /** `have` is not `known` yet, for whatever reason. */
  readonly pending: boolean
  /** While pending: announced without its content, so that others need not wait for us. */
  readonly announced: boolean
  /** What `have` was before, while the change is not known to be durable (R5). */
  readonly former: Version | null
  /** This disk had `known`, and the power went before that was durable: perhaps nobody has it any more. Only while `have` is another. */
  readonly lost?: true
}

/** What one change of the tree is about to do, written before it is done, so that a start after a kill can finish it (R3). */
export interface Intent {
  readonly path: EntryPath
  /** The slot that is put in place, or that takes what is taken out; null for a move. */
  readonly slot: string | null
  /** A move within the tree: where from. */
  readonly source: EntryPath | null
  /** Inode of what was to be put at `path`; 0: nothing (a removal, a new folder, or content that is given up). */
  readonly ino: bigint
  /** Inode of what was to be replaced or removed; 0: nothing was there. */
  readonly formerIno: bigint
  readonly to: Version
  /** Name in the version store for what is replaced or removed; null: nothing to keep. */
  readonly kept: Kept | null
  /** The loser's copy: its path and the loser. */
  readonly copy: { readonly path: EntryPath; readonly version: Version } | null
  /** What `have` was, with how the disk showed it. */
  readonly from: Version | null
}

/** What was promised to a peer for a file; `peer` null: this peer is about to give it up. */
export interface StoredLease {
  readonly peer: PeerId | null
  readonly path: EntryPath
  readonly hash: BlobHash
}

/** One version in the version store. */
export interface Kept {
  /** Name in the version store; grows with time, so that it sorts by age. */
  readonly id: string
  readonly path: EntryPath
  readonly hash: BlobHash | null
  readonly size: number
  readonly mtimeNs: bigint
  readonly exec: boolean
  readonly keptMs: number
}

export interface Cursor {
  readonly replica: ReplicaId
  readonly session: SessionToken
  readonly seq: number
}

/** What is remembered of one peer. */
export interface PeerRecord {
  /** How far we have read its feed; null: from the start. */
  readonly read: Cursor | null
  /** How far it has acknowledged ours, and as which replica of it. */
  readonly acknowledged: { readonly replica: ReplicaId; readonly ours: ReplicaId; readonly seq: number } | null
}

/** One opening of the store. */
export interface Session {
  readonly token: SessionToken
  /** The last sequence number before the session. */
  readonly firstSeq: number
}

/** The single record of the store as a whole. */
export interface StoreState {
  readonly replica: ReplicaId
  /** The last count given to a change of this replica; never used twice. */
  readonly count: number
  /** The last sequence number given out. */
  readonly seq: number
  readonly sessions: readonly Session[]
  /** `count` when the current session was opened: changes since then are above it. */
  readonly countAtOpening: number
  /** The whole tree has been scanned once: from now on a file without history is a new file. */
  readonly scanned: boolean
  /** Identity of the disk that was last scanned (Disk.identity), to notice another one. */
  readonly disk: string | null
  readonly historyNumber: number
  /** The arena's own mark that all entries have been looked at with, and all marks of paths; null: there are others since. */
  readonly marked: Mark | null
  /** How often content was given up in this root (marker.ts). */
  readonly givenUp: number
  /** Entries up to this number are durable on the disk, names and bytes; those above it are volatile (R5). */
  readonly durableSeq: number
  /** The machine's boot in which the volatile ones were written. */
  readonly boot: string
  readonly totals: Totals
  /** XOR of the digests of living entries, in 256 buckets of 32 bytes (merkle-set.ts). The same object until they change. */
  readonly buckets: Uint8Array
}

export interface Totals {
  readonly entries: number
  readonly files: number
  readonly bytes: number
  readonly realBytes: number
  readonly pending: number
  readonly pendingBytes: number
  readonly conflicts: number
}

export interface Store {
  state(): StoreState
  entry(path: EntryPath): Entry | undefined
  /** Up to `limit` entries after `after` in tree order (a folder before what is in it), `under` a folder or everywhere. */
  page(after: EntryPath | null, limit: number, under: EntryPath | null): Entry[]
  /** Whether a living entry is known below a folder. */
  hasLivingBelow(path: EntryPath): boolean
  /** Entries with sequence numbers above `after`, in order, with the last number looked at. */
  feed(after: number, limit: number): Entry[]
  /** Paths whose `have` is a file with this hash; at most `limit`. */
  withHash(hash: BlobHash, limit: number): EntryPath[]
  /** Paths of files that are known with this hash and not shown, nor on their way; at most `limit`. */
  unrealWithHash(hash: BlobHash, limit: number): EntryPath[]
  /** Paths of pending entries in tree order. */
  pendingPage(after: EntryPath | null, limit: number): EntryPath[]
  intents(): Intent[]
  /** Leaf hashes, 32 bytes each, of a blob of several leaves. */
  leaves(hash: BlobHash): Uint8Array | undefined
  kept(path: EntryPath | null, limit: number): Kept[]
  keptWithHash(hash: BlobHash): Kept | undefined
  peer(peer: PeerId): PeerRecord | undefined
  peers(): PeerId[]
  conflicts(limit: number): EntryPath[]
  /** Leases in force when this was written, and files about to be given up (lease.ts). */
  leases(): StoredLease[]
  /** Paths with a mark of their own, in tree order. */
  marks(): [EntryPath, Mark][]
  history(before: number, limit: number): HistoryEvent[]
  transact(change: (writer: Writer) => void): void
  /** Calls back after each transaction with the entries that it has written; null: no longer. */
  watch(listener: ((entries: readonly Entry[]) => void) | null): void
  /** Calls back when every transaction so far is durable. */
  flushed(done: () => void): void
  close(): void
}

/** Inside a transaction. Reads of the store see what was written. */
export interface Writer {
  /** Replaces the store's record, but for what the writer keeps itself: seq, totals, buckets. */
  setState(state: Partial<Omit<StoreState, 'seq' | 'totals' | 'buckets'>>): void
  /** Writes an entry; `announce` gives it the next sequence number, so that it flows to the peers. */
  putEntry(entry: Entry, announce: boolean): void
  /** The replica's next count. */
  nextCount(): number
  putIntent(intent: Intent): void
  removeIntent(path: EntryPath): void
  putLeaves(hash: BlobHash, leaves: Uint8Array): void
  putKept(kept: Kept): void
  removeKept(id: string): void
  putPeer(peer: PeerId, record: PeerRecord): void
  putLease(lease: StoredLease): void
  removeLease(lease: StoredLease): void
  /** null: the path has no mark of its own any more. */
  putMark(path: EntryPath, mark: Mark | null): void
  addHistory(event: Omit<HistoryEvent, 'number'>): HistoryEvent
}
