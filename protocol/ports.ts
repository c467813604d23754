/**
 * What actors of one peer say to each other over MessagePorts. Both ends are ours and of one build, so
 * these are types without validators; what came from another peer inside them has passed `wire.parse`.
 *
 * ```
 * supervisor ── ArenaCommand / ArenaReport ── arena          (one port for each arena)
 * supervisor ── PeerCommand / PeerReport ──── peer thread    (one port for each thread)
 * arena ─────── ToPeer / FromPeer ─────────── connection     (one port for each arena and connection)
 * supervisor ── ViewCommand / ViewReport ──── view           (one port for each mount)
 * arena ─────── ToView / FromView ─────────── view           (one port for each arena and mount)
 * peer thread ─ WriterOrder / WriterReport ─── its writer     (one port for each thread)
 * ```
 */
import type { MessagePort } from 'node:worker_threads'
import type { Mark } from './control.ts'
import type { Failure } from './error.ts'
import type { ArenaName, Author, BlobHash, EntryPath, PeerId } from './ids.ts'
import type { LogEvent, LogFields } from './log.ts'
import type { ArenaStatus, HistoryEvent } from './status.ts'
import type { ArenaWireMessage } from './wire.ts'

// Supervisor ⇄ arena

/** A size, or a part (0 to 1) of the disk that it is on. */
export type Space = { bytes: number } | { part: number }

/** An arena's settings, as the configuration says or its defaults. */
export interface ArenaSettings {
  name: ArenaName
  /** Absolute path of the root, or null: nothing real here. Then a folder beside the store takes its place, for what must be. */
  root: string | null
  /** Folder of this arena's store. */
  storePath: string
  /** What is wanted of paths that have no mark of their own, and none above them. */
  mark: Mark
  /** Folder of content that is cached, what it may take, and what is left free on its disk. */
  cache: { path: string; max: Space; leave: Space }
  /** This peer as an author of versions. */
  author: Author
  /** Peers that may see and change the arena. */
  peers: PeerId[]
  ignore: string[]
  conflicts: 'keep-both' | 'newest' | 'local'
  versions: { keepMs: number; bytesMax: number }
  /** A scan that would delete more than this part of the entries, 0 to 1, stops the arena and asks. */
  guardDeletes: number
  rescanMs: number
  paused: boolean
}

/** A user's command, from the control socket; answered by one `reply` with the same id. Methods and results: protocol/control.ts. */
export interface ArenaControl {
  type: 'control'
  id: number
  method: string
  params: Record<string, unknown>
}

export type ArenaCommand =
  | ArenaControl
  | { type: 'settings'; settings: ArenaSettings }
  /**
   * A connection with a peer that may have this arena; `port` speaks ToPeer / FromPeer. What is handed over on it is noted in
   * `descriptors` first (actors/descriptors.ts).
   */
  | {
      type: 'peer_opened'
      peer: PeerId
      peerName: string
      connection: number
      port: MessagePort
      descriptors: Int32Array
    }
  /** A mounted view shows this arena; `port` speaks ToView / FromView. It closes when either has gone. */
  | { type: 'view_opened'; port: MessagePort }
  /** From the watcher: these paths (relative to the root) may have changed. `null`: anything may have. */
  | { type: 'touched'; paths: string[] | null }
  /** The watcher works (`null`) or does not, and why: then the arena scans more often. */
  | { type: 'watcher'; fault: string | null }
  | { type: 'hashed'; id: number; results: HashResult[] }
  | { type: 'patched'; id: number; result: PatchResult }
  /** For another arena here, to copy from: a file with this content, of those that this arena's peers can fetch. Answered with `reply`, FileRef or null. */
  | { type: 'lend'; id: number; hash: BlobHash }
  /** Answer to `borrow`. The file is another arena's, and may be something else by now; null: none is lent. */
  | { type: 'lent'; id: number; file: FileRef | null }
  | { type: 'stop' }

export type ArenaReport =
  | { type: 'ready' }
  | { type: 'reply'; id: number; result: unknown }
  | { type: 'refused'; id: number; failure: Failure }
  | { type: 'status'; status: ArenaStatus }
  | { type: 'history'; events: HistoryEvent[] }
  /** Nothing has been done for a while: memory can be given back. */
  | { type: 'rested' }
  | { type: 'log'; event: LogEvent; fields: LogFields }
  | { type: 'count'; counters: Record<string, number> }
  | { type: 'hash'; id: number; tasks: HashTask[] }
  | { type: 'patch'; id: number; task: PatchTask }
  /**
   * Has another arena here this content? `peers`: those that say that they have it themselves; only what one of them may read is
   * lent. Answered with `lent`.
   */
  | { type: 'borrow'; id: number; hash: BlobHash; peers: PeerId[] }
  | { type: 'stopped' }

// Arena → hasher pool (through the supervisor)

/** Hash one file, or one part of it. `path` is absolute; it is opened without following a symlink at its end. */
export interface HashTask {
  path: string
  /** First leaf and number of leaves; the last part may be shorter than it says. */
  from: number
  count: number
  /** The size and mtime that the file must have before and after, or the answer is `changed`. */
  size: number
  mtimeNs: bigint
  ino: bigint
}
/** `leaves`: 32 bytes for each leaf of the part. */
export type HashResult = { leaves: Uint8Array } | { changed: true } | { failure: Failure }

/** A file as it must be: opened without following a symlink at its end. */
export type FileRef = Pick<HashTask, 'path' | 'size' | 'mtimeNs' | 'ino'>
/** A slot in staging, to be written into. Nothing is written when its path leads to something else by then. */
export interface SlotRef {
  path: string
  ino: bigint
}
/** Bytes [start, end). */
export interface FilePart {
  start: number
  end: number
}
/** Leaves of a blob of `size` bytes that belong into a slot, with their hashes, 32 bytes each. What does not fit is not written. */
export interface WantedLeaves {
  slot: SlotRef
  size: number
  leaves: Uint32Array
  hashes: Uint8Array
}

/** Work with the content of big files, for those who have an older version of them (docs/delta.md). */
export type PatchTask =
  /** For the other end: anchors of these leaves. */
  | { is: 'anchors'; file: FileRef; leaves: Uint32Array }
  /** For the other end: these leaves by the blocks of its signature. */
  | { is: 'delta'; file: FileRef; from: number; count: number; block: number; signature: Uint8Array }
  /** Signature of parts of the older file, as if they were one. */
  | { is: 'sign'; base: FileRef; parts: FilePart[]; block: number }
  /** Leaves that should lie at these places of the older file. */
  | ({ is: 'copy'; base: FileRef; places: Float64Array } & WantedLeaves)
  /** Leaves that may lie anywhere from `start` and before `end`; `overlapping`: also where another one was found. */
  | ({
      is: 'search'
      base: FileRef
      start: number
      end: number
      anchors: Uint8Array
      overlapping: boolean
    } & WantedLeaves)
  /** Leaves one after the other that a delta says, from the parts that were signed. */
  | ({ is: 'assemble'; base: FileRef; parts: FilePart[]; block: number; delta: Uint8Array } & WantedLeaves)

export type PatchResult =
  /** `anchors`, `delta`, `sign`. */
  | { bytes: Uint8Array }
  /** The leaves that were written, and where they lay in the older file (`assemble`: −1). */
  | { leaves: Uint32Array; places: Float64Array }
  | { changed: true }
  | { failure: Failure }

// Arena ⇄ connection

export type ToPeer =
  /** Goes out as one frame. `payload` is transferred. `urgent`: somebody waits for this answer. */
  | { type: 'send'; header: ArenaWireMessage; payload?: Uint8Array; urgent?: boolean }
  /**
   * Answer a `fetch_leaves`: read leaves [from, from + count) from `fd` and send them as `leaves` messages.
   * The connection owns the descriptor from here on and closes it.
   */
  | { type: 'upload'; id: number; fd: number; size: number; from: number; count: number; urgent: boolean }
  /**
   * Ask for leaves, verify each against `leaves` (32 bytes each, for [from, from + count)), write them to `fd` at
   * their place. The connection owns the descriptor from here on and closes it. Answered with `stored` for
   * each message that came, then `downloaded` or `download_failed`.
   */
  | {
      type: 'download'
      id: number
      hash: BlobHash
      fd: number
      size: number
      from: number
      count: number
      leaves: Uint8Array
      urgent: boolean
    }
  /** A download is not wanted any more: it is dropped, and `download_failed` follows, unless it has ended already. */
  | { type: 'cancel'; id: number }
  /** The arena has broken off with this peer. The connection drops the port and its transfers. */
  | { type: 'detach' }
  /** The peer broke the protocol: close the connection with this reason. */
  | { type: 'refuse'; failure: Failure }
  /** So many `wire` messages have been dealt with: the connection reads on as long as few enough wait. */
  | { type: 'taken'; count: number }

export type FromPeer =
  /**
   * A message of the arena, form checked. `leaves` messages of a `download` do not appear here. A payload in shared memory is lent: until
   * the arena has dealt with the message.
   */
  | { type: 'wire'; header: ArenaWireMessage; payload?: Uint8Array }
  | { type: 'stored'; id: number; from: number; count: number }
  | { type: 'downloaded'; id: number }
  | { type: 'download_failed'; id: number; failure: Failure }
  | { type: 'closed'; failure: Failure }

// Arena ⇄ view

/** A regular file that is known and of which the disk shows nothing: not yet, or because it is not wanted here for real. */
export interface UnrealFile {
  size: number
  mtimeNs: bigint
  exec: boolean
  hash: BlobHash
}

/** Names of unreal files in one folder, sorted; `next`: the last one looked at, where there is more; null: that was all. */
export interface UnrealNames {
  files: [name: string, file: UnrealFile][]
  next: string | null
}

/** What can be asked about a path, for people: the extended attributes `user.realize.*`. */
export interface PathFacts {
  mark: string
  /** `real`, `cached`, `partly cached`, `unreal`, `on its way`, or what keeps it from being as it is known. */
  status: string
  version: string
  /** Names of connected peers that have the content. */
  peers: string[]
}

/** A file of the cache, and what tells it from another one that takes its name. It is never changed, but may be removed. */
export interface CachedFile {
  /** Absolute. */
  path: string
  ino: bigint
  birthtimeNs: bigint
}

/** What a view asks of an arena; each is answered by one `answer` or `failed` with its id. Paths as in entries; folder '': the root. */
export type ViewQuestion =
  /** Names after `after`, in an order of their own. Answered with UnrealNames. */
  | { type: 'list'; folder: EntryPath | ''; after: string | null }
  /** Answered with UnrealFile or null. */
  | { type: 'look'; path: EntryPath }
  /** Whether there are unreal files anywhere below, and whether they can be moved together now. */
  | { type: 'below'; folder: EntryPath }
  /**
   * Part of a content that was known at this path, wherever it is now. Answered with the cache's file once all of the part is there, or else with
   * a Uint8Array; EHOSTUNREACH: no peer has it now.
   */
  | { type: 'read'; path: EntryPath; hash: BlobHash; size: number; offset: number; length: number }
  /** Where this content is cached wholly and verified, to be read there. Answered with CachedFile, or null: `read` it. */
  | { type: 'cached'; path: EntryPath; hash: BlobHash; size: number }
  /** Answered when the file is on the disk, or nothing is known at the path any more. */
  | { type: 'make_real'; path: EntryPath }
  /**
   * The user has seen this content at the path: what the disk shows there next replaces it, and is no conflict with it. Until
   * `unseen`, or until something is there.
   */
  | { type: 'seen'; path: EntryPath; hash: BlobHash }
  /** Something was put in the place of a file that was `seen`. Answered when that is noted: what was said before is out of date. */
  | { type: 'placed'; path: EntryPath }
  /** A user's changes of an unreal file. ESTALE: it is another one by now, or none. EXDEV (rename): not without its content. */
  | { type: 'remove'; path: EntryPath; hash: BlobHash }
  | { type: 'rename'; path: EntryPath; hash: BlobHash; to: EntryPath }
  /** A folder was renamed on the disk: the unreal files below it follow. Answered when those have that can. */
  | { type: 'rename_below'; folder: EntryPath; to: EntryPath }
  | { type: 'retouch'; path: EntryPath; hash: BlobHash; mtimeNs: bigint | null; exec: boolean | null }
  /** Answered with PathFacts; ENODATA: nothing is known of it. */
  | { type: 'facts'; path: EntryPath }
  /** Gives a path a mark of its own, or takes it away. EPERM, ENOSPC: why not. */
  | { type: 'mark'; path: EntryPath; mark: Mark | 'clear' }

export interface ViewAnswers {
  list: UnrealNames
  look: UnrealFile | null
  below: 'none' | 'movable' | 'fixed'
  read: Uint8Array | CachedFile
  cached: CachedFile | null
  make_real: null
  seen: null
  placed: null
  remove: null
  rename: null
  rename_below: null
  retouch: null
  facts: PathFacts
  mark: null
}

export type FromView =
  | ({ id: number } & ViewQuestion)
  /** Nobody waits for the answer any more; it may still come. */
  | { type: 'abandon'; id: number }
  /** The end of `seen`. */
  | { type: 'unseen'; path: EntryPath }
  /** A folder is about to be renamed, until it has been or has not: nothing below is given up or counts as deleted meanwhile. */
  | { type: 'moving' | 'moved'; folder: EntryPath }
  /** Something was changed on the disk through the view. */
  | { type: 'touched'; paths: EntryPath[] }
  /** Somebody has a real file open, by its inode number, or reads a content, until it is said to be closed as often. */
  | { type: 'opened' | 'closed'; is: OpenedByView }

/** `path`: where the content was when it was opened. */
export type OpenedByView = { file: bigint } | { content: BlobHash; size: number; path: EntryPath }

/** What is at a path may be something else than before, on the disk or not. */
export interface ViewChange {
  path: EntryPath
  unreal: UnrealFile | null
}

export type ToView =
  /** First, and whenever it changes: the folder on the disk; null: it is not there, and why. */
  | { type: 'root'; root: string | null; reason: string | null }
  /** Said before any answer that shows it. null: anything may have changed. */
  | { type: 'changed'; changes: ViewChange[] | null }
  | { type: 'answer'; id: number; result: unknown }
  /** `code` is an errno name. */
  | { type: 'failed'; id: number; code: string; message: string }

// Supervisor ⇄ view

export interface ViewSettings {
  /** Absolute, of an existing folder. */
  mountpoint: string
  /** Whether other users see it, too. */
  allowOther: boolean
}

export type ViewCommand =
  /** The arenas that are shown from now on. */
  | { type: 'arenas'; names: ArenaName[] }
  /** The arena's thread runs (again); `port` speaks FromView / ToView with it. */
  | { type: 'attach'; arena: ArenaName; port: MessagePort }
  | { type: 'stop' }

export type ViewReport =
  /** It is mounted. `passthrough`: the kernel reads and writes real files by itself. */
  | { type: 'mounted'; passthrough: boolean }
  | { type: 'log'; event: LogEvent; fields: LogFields }
  /** The last word: somebody has taken the mount away, or it was stopped; or, with a reason, it could not be made or kept. */
  | { type: 'ended'; reason: string | null }

// Peer thread ⇄ its writer

/** Leaves to be verified and written to their place. */
export interface LeavesToWrite {
  fd: number
  /** Number of the first. */
  from: number
  /** In shared memory; the writer's until it has answered. */
  payload: Uint8Array
  /** Expected, 32 bytes for each leaf. */
  hashes: Uint8Array
  /** Shared: its integer is not 0 once nothing more of this download may be written. */
  stopped: Int32Array
  /** With the last leaves of a download: where its first byte lies in the file, and the size of the file. */
  ending: { start: number; size: number } | null
}

export interface WriterOrder {
  id: number
  leaves: LeavesToWrite
}

export type WriterReport =
  | { type: 'ready' }
  /** Answer to each order. `failure` null: it is written. */
  | { type: 'written'; id: number; failure: Failure | null }

// Supervisor ⇄ peer thread

export interface PeerSettings {
  /** This peer. */
  id: PeerId
  name: string
  software: string
  /** PEM. */
  key: string
  certificate: string
  addresses: string[]
}

export type PeerCommand =
  | { type: 'settings'; settings: PeerSettings }
  /** Who may come in, from now on. */
  | { type: 'household'; peers: PeerId[] }
  /** Dial an address (host:port) and demand exactly this key. Ends in `opened`, or `paired` with `pair`, or `closed`. */
  | { type: 'dial'; connection: number; peer: PeerId; address: string; rate: Rate; pair: PairAttempt | null }
  /**
   * Take over an accepted TCP connection by its descriptor, a duplicate that the thread owns. A key of the household may
   * sync; any other may only pair, and only while there are `invites`. Ends in `opened`, `pairing` or `closed`.
   */
  | { type: 'accept'; connection: number; fd: number; address: string; invites: PairAttempt[] }
  /** Answer to `pairing`: the peer is in the household now; tell it so, with what is shared. */
  | { type: 'pair_accept'; connection: number; arenas: SharedArena[] }
  /** This connection carries this arena; `port` speaks FromPeer / ToPeer with it. */
  | { type: 'attach'; connection: number; arena: ArenaName; port: MessagePort }
  | { type: 'rate'; connection: number; rate: Rate }
  | { type: 'close'; connection: number; failure: Failure }
  | { type: 'stop' }

export interface SharedArena {
  name: ArenaName
  conflicts: 'keep-both' | 'newest'
}

/** Bytes a second; 0: no limit. */
export interface Rate {
  up: number
  down: number
}

export interface PairAttempt {
  /** 16 hex digits. */
  invite: string
  /** 32 hex digits. */
  secret: string
}

export type PeerReport =
  | { type: 'ready' }
  /** TLS is up, keys checked, hellos exchanged. `addresses`: where the peer says it can be dialled. */
  | { type: 'opened'; connection: number; peer: PeerId; name: string; addresses: string[] }
  /** Somebody proved that it knows the invite's secret. Until `pair_accept` or `close` it waits. */
  | { type: 'pairing'; connection: number; invite: string; peer: PeerId; name: string; addresses: string[] }
  /** We joined: the inviter proved the same. The connection closes by itself. */
  | { type: 'paired'; connection: number; peer: PeerId; name: string; addresses: string[]; arenas: SharedArena[] }
  /** The connection is gone, or never came to be; `failure.code` says why. Last word on a connection. */
  | { type: 'closed'; connection: number; failure: Failure }
  /** Payload and header bytes since the last report. About once a second while there is traffic. */
  | { type: 'traffic'; connection: number; up: number; down: number }
  /** No connection has begun or ended for a while, or nothing big has come in any more: memory can be given back. */
  | { type: 'rested' }
  | { type: 'log'; event: LogEvent; fields: LogFields }
  | { type: 'count'; counters: Record<string, number> }
