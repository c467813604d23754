/**
 * What peers say to each other. One frame is a JSON header, one of these, and beside it a binary payload
 * (protocol/frame.ts). Open: unknown fields are ignored. Bounded: every array, string and number has a limit.
 * docs/protocol.md tells the same as a story.
 */
import { type Static, Type } from '@sinclair/typebox'
import { ArenaName, Author, BlobHash, EntryPath, MtimeText, PeerId, ReplicaId, SessionToken } from './ids.ts'
import {
  ANCHOR_LEAVES_MAX,
  ANCHOR_RUNS_MAX,
  ARENAS_MAX,
  BLOCK_BYTES_MAX,
  BLOCK_BYTES_MIN,
  COUNT_MAX,
  DELTA_LEAVES_MAX,
  FEED_ENTRIES_MAX,
  FETCH_BLOBS_MAX,
  FETCH_LEAVES_MAX,
  FILE_BYTES_MAX,
  GENERATION_MAX,
  GROUP_LEAVES,
  HEADER_BYTES_MAX,
  HOLDS_MAX,
  LEASE_FILES_MAX,
  LEAVES_PER_MESSAGE,
  LINK_TARGET_BYTES_MAX,
  NODES_MAX,
  PAYLOAD_BYTES_MAX,
  VECTOR_MAX,
} from './limits.ts'
import { type MessageOf, mailbox, message } from './message.ts'

/**
 * Raised when there is something to say that an old peer could not read. 2: `fetch_nodes`, `fetch_anchors`, `fetch_delta` and
 * their answers. 3: `holds`, `lease` and their answers, `lease_end`.
 */
export const WIRE_VERSION = 3

const Count = Type.Integer({ minimum: 0, maximum: COUNT_MAX })
const Seq = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Size = Type.Integer({ minimum: 0, maximum: FILE_BYTES_MAX })
const LeafIndex = Type.Integer({ minimum: 0, maximum: GROUP_LEAVES * GROUP_LEAVES })
/** Chosen by the one who asks, unique among its open requests on this connection. */
const RequestId = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER })
const Reason = Type.String({ maxLength: 500 })
const Code = Type.String({ maxLength: 40, pattern: '^[a-z_]+$' })

/** For each replica, how many of its changes are included. Sorted by replica, no count of 0. */
export const WireVector = Type.Array(Type.Tuple([ReplicaId, Count]), { maxItems: VECTOR_MAX })

/**
 * What is known of one path. By type: a `file` has size, mtime, exec and hash; a `symlink` has target; a
 * `gone` (tombstone) may have `deleted`, the hash that went. The receiver checks that the fields fit the type.
 *
 * To a reader that takes `moves`: a `file` may have `moved` in place of size, mtime, exec and hash, which are those of the version
 * at that path, and the entry after it, that path's `gone`, is without `deleted`.
 */
export const WireEntry = Type.Object({
  path: EntryPath,
  type: Type.Union([Type.Literal('file'), Type.Literal('dir'), Type.Literal('symlink'), Type.Literal('gone')]),
  size: Type.Optional(Size),
  mtime: Type.Optional(MtimeText),
  exec: Type.Optional(Type.Boolean()),
  hash: Type.Optional(BlobHash),
  target: Type.Optional(Type.String({ minLength: 1, maxLength: LINK_TARGET_BYTES_MAX })),
  deleted: Type.Optional(BlobHash),
  moved: Type.Optional(
    Type.Object({
      path: EntryPath,
      vector: WireVector,
      /** FNV-1a, 32 bits, of the text "hash size mtime exec" that is left out. */
      tag: Type.String({ pattern: '^[0-9a-f]{8}$' }),
    }),
  ),
  vector: WireVector,
  /** Generation: a multiple of one half. */
  g: Type.Number({ minimum: 0, maximum: GENERATION_MAX, multipleOf: 0.5 }),
  author: Author,
  /** Whether the sender holds what the entry describes, complete, and can be asked for it. */
  has: Type.Boolean(),
})
export type WireEntry = Static<typeof WireEntry>

// Connection

/** First in both directions. Frames before it are limited to GREETING_BYTES_MAX. */
export const Hello = message('hello', {
  versions: Type.Object({ min: Type.Integer({ minimum: 1 }), max: Type.Integer({ minimum: 1 }) }),
  name: Type.String({ minLength: 1, maxLength: 64 }),
  software: Type.String({ maxLength: 64 }),
  /** `sync` between peers of a household; `pair` from one who has a code. */
  purpose: Type.Union([Type.Literal('sync'), Type.Literal('pair')]),
  /** Where the sender can be dialled, host:port. */
  addresses: Type.Array(Type.String({ maxLength: 300 }), { maxItems: 16 }),
  /** Whether it takes `deflated`. */
  inflates: Type.Optional(Type.Boolean()),
})
/**
 * Another frame, whole, made smaller: its payload is the raw deflate (RFC 1951) of a frame of so many bytes, lengths included.
 * Only to a peer that `inflates`, on an open connection. What is inside is no `deflated`.
 */
export const Deflated = message('deflated', {
  bytes: Type.Integer({ minimum: 1, maximum: HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX + 8 }),
})
export const Ping = message('ping', { id: RequestId })
export const Pong = message('pong', { id: RequestId })
/** Last in a direction: why the sender closes. */
export const Close = message('close', { code: Code, reason: Reason })

// Pairing (docs/pairing.md)

const Proof = Type.String({ pattern: '^[0-9a-f]{64}$' })
/** The one who joins proves that it knows the code's secret, bound to this TLS channel and both keys. */
export const PairRequest = message('pair_request', { invite: Type.String({ pattern: '^[0-9a-f]{16}$' }), proof: Proof })
/** The one who invited proves the same, and says what is shared. */
export const PairAccepted = message('pair_accepted', {
  proof: Proof,
  peer: PeerId,
  arenas: Type.Array(
    Type.Object({ name: ArenaName, conflicts: Type.Union([Type.Literal('keep-both'), Type.Literal('newest')]) }),
    { maxItems: ARENAS_MAX },
  ),
})

// Feed: what changed, in the order in which the sender learnt of it

/** How far the sender of this has read the receiver's feed: {the receiver's replica, its session, the last seq taken}. */
const Cursor = Type.Object({ replica: ReplicaId, session: SessionToken, seq: Seq })

/** "I have this arena too." Both sides send it; feeds flow once both have. Sent again after a fresh replica. */
export const ArenaOpen = message('arena_open', {
  arena: ArenaName,
  replica: ReplicaId,
  session: SessionToken,
  /** Last sequence number given out so far. */
  seq: Seq,
  conflicts: Type.Union([Type.Literal('keep-both'), Type.Literal('newest')]),
  /** null: from the start. */
  read: Type.Union([Cursor, Type.Null()]),
  /** The sender reads from the start on purpose, though it had read more: its root differs. */
  again: Type.Boolean(),
  /** The receiver's session that the sender has heard of; if that is not its present one, it says its own `arena_open` again. */
  knows: Type.Union([SessionToken, Type.Null()]),
  /** The sender takes entries with `moved`. Said again without it: it did not know what one of them named, and reads on from `read`. */
  moves: Type.Optional(Type.Boolean()),
})
/** The sender will not sync this arena with the receiver now. */
export const ArenaClose = message('arena_close', { arena: ArenaName, code: Code, reason: Reason })
/** The receiver of this asked for less than it had acknowledged: its store was rolled back, and it must take a fresh replica. */
export const RolledBack = message('rolled_back', { arena: ArenaName, replica: ReplicaId })
/** The entries that have sequence numbers in (from, to], each once, in order; a gap is a breach. */
export const Feed = message('feed', {
  arena: ArenaName,
  /** The replica of the sender and of the receiver that this batch belongs to: others are discarded. */
  source: ReplicaId,
  reader: ReplicaId,
  from: Seq,
  to: Seq,
  entries: Type.Array(WireEntry, { maxItems: FEED_ENTRIES_MAX }),
})
/** The receiver of the feed has taken it up to `seq` (`received`), and all of it up to `applied` is on its disk, durable. `batch`: answers one batch. */
export const FeedAck = message('feed_ack', {
  arena: ArenaName,
  source: ReplicaId,
  received: Seq,
  applied: Seq,
  batch: Type.Boolean(),
})
/** What the sender would need for consensus. Sent when it changed and the sender is quiet, or when probed. */
export const ArenaState = message('arena_state', {
  arena: ArenaName,
  /** Root over the living entries, 64 hex digits. */
  root: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  seq: Seq,
  /** Entries not yet as known on the sender's disk, for whatever reason. */
  pending: Type.Integer({ minimum: 0 }),
  /** Whether the sender is looking at its disk, or has changes that it has not looked at. */
  scanning: Type.Boolean(),
  /** Answers the probe of this number; 0 if not probed. */
  probe: Type.Integer({ minimum: 0 }),
})
/** Look at your disk now, then answer with `arena_state`. */
export const ArenaProbe = message('arena_probe', { arena: ArenaName, probe: RequestId })

// Content: always asked for by hash

/** Whole small blobs. Answered with one `pack` (in the order asked; what does not fit is left out and marked `busy`) . */
export const FetchBlobs = message('fetch_blobs', {
  arena: ArenaName,
  id: RequestId,
  hashes: Type.Array(BlobHash, { minItems: 1, maxItems: FETCH_BLOBS_MAX }),
  /** Somebody waits for them: they overtake bulk transfer. */
  urgent: Type.Optional(Type.Boolean()),
})
/** Payload: the content of all blobs with a size of 0 or more, one after the other. A size of -1: not here. */
export const Pack = message('pack', {
  arena: ArenaName,
  id: RequestId,
  sizes: Type.Array(Type.Integer({ minimum: -1, maximum: FILE_BYTES_MAX }), { maxItems: FETCH_BLOBS_MAX }),
})
/**
 * Hashes of a blob's Merkle tree. `group` null: the nodes of the group level (one for each 4096 leaves);
 * else the leaf hashes of that group. Answered with `tree`.
 */
export const FetchTree = message('fetch_tree', {
  arena: ArenaName,
  id: RequestId,
  hash: BlobHash,
  group: Type.Union([Type.Null(), Type.Integer({ minimum: 0, maximum: GROUP_LEAVES - 1 })]),
  /** Somebody waits for it: it overtakes bulk transfer. */
  urgent: Type.Optional(Type.Boolean()),
})
/** Payload: hashes of 32 bytes each. */
export const Tree = message('tree', { arena: ArenaName, id: RequestId })
/** Leaves [from, from + count). Answered with `leaves` messages in order, until all have come or `fetch_failed`. */
export const FetchLeaves = message('fetch_leaves', {
  arena: ArenaName,
  id: RequestId,
  hash: BlobHash,
  from: LeafIndex,
  count: Type.Integer({ minimum: 1, maximum: FETCH_LEAVES_MAX }),
  /** Somebody waits for it: it overtakes bulk transfer. */
  urgent: Type.Boolean(),
})
/** Payload: the content of leaves [from, from + count), each LEAF_BYTES but for the blob's last. */
export const Leaves = message('leaves', {
  arena: ArenaName,
  id: RequestId,
  from: LeafIndex,
  count: Type.Integer({ minimum: 1, maximum: LEAVES_PER_MESSAGE }),
})
/**
 * Version 2. Nodes [from, from + count) of one level of a blob's Merkle tree, each over 2^level leaves; level 0 are the leaf hashes.
 * Answered with `tree`. Who has an older version asks only for what differs.
 */
export const FetchNodes = message('fetch_nodes', {
  arena: ArenaName,
  id: RequestId,
  hash: BlobHash,
  level: Type.Integer({ minimum: 0, maximum: 12 }),
  from: LeafIndex,
  count: Type.Integer({ minimum: 1, maximum: NODES_MAX }),
})
/**
 * Version 2. By what these leaves can be found in an older file, wherever they lie: runs [first leaf, how many], of leaves that
 * have ANCHOR_BYTES. Answered with `anchors`.
 */
export const FetchAnchors = message('fetch_anchors', {
  arena: ArenaName,
  id: RequestId,
  hash: BlobHash,
  runs: Type.Array(Type.Tuple([LeafIndex, Type.Integer({ minimum: 1, maximum: ANCHOR_LEAVES_MAX })]), {
    minItems: 1,
    maxItems: ANCHOR_RUNS_MAX,
  }),
})
/** Payload: the rolling hash of each leaf's first ANCHOR_BYTES, u64 LE, in the order asked. */
export const Anchors = message('anchors', { arena: ArenaName, id: RequestId })
/**
 * Version 2. Leaves [from, from + count), said by blocks that the asker has. Payload: the rolling hash of each of its blocks, u64 LE.
 * Answered with `delta`.
 */
export const FetchDelta = message('fetch_delta', {
  arena: ArenaName,
  id: RequestId,
  hash: BlobHash,
  from: LeafIndex,
  count: Type.Integer({ minimum: 1, maximum: DELTA_LEAVES_MAX }),
  /** Bytes of a block: a power of two. */
  block: Type.Integer({ minimum: BLOCK_BYTES_MIN, maximum: BLOCK_BYTES_MAX }),
})
/** Payload: copies of blocks and bytes between (docs/delta.md). */
export const Delta = message('delta', { arena: ArenaName, id: RequestId })
/** Version 3. How does the receiver have these blobs? Answered with `held`. */
export const Holds = message('holds', {
  arena: ArenaName,
  id: RequestId,
  hashes: Type.Array(BlobHash, { minItems: 1, maxItems: HOLDS_MAX }),
})
/** In the order asked. `real`: as an ordinary file. `cached`: all of it, but it may go at any moment. */
export const Held = message('held', {
  arena: ArenaName,
  id: RequestId,
  held: Type.Array(Type.Union([Type.Literal('real'), Type.Literal('cached'), Type.Literal('none')]), {
    maxItems: HOLDS_MAX,
  }),
})
const LeaseFiles = Type.Array(Type.Object({ path: EntryPath, hash: BlobHash }), {
  minItems: 1,
  maxItems: LEASE_FILES_MAX,
})
/**
 * Version 3. The sender wants to give up the content of these files, and grants nothing for them itself from here on. Answered with
 * `leased` (docs/reconciliation.md).
 */
export const Lease = message('lease', { arena: ArenaName, id: RequestId, files: LeaseFiles })
/** In the order asked. `granted`: the sender keeps the file for LEASE_MS, or until `lease_end`. */
export const Leased = message('leased', {
  arena: ArenaName,
  id: RequestId,
  answers: Type.Array(
    Type.Union([Type.Literal('granted'), Type.Literal('missing'), Type.Literal('leaving'), Type.Literal('later')]),
    { maxItems: LEASE_FILES_MAX },
  ),
})
/** Version 3. What was granted for these files is not relied on any more. */
export const LeaseEnd = message('lease_end', { arena: ArenaName, files: LeaseFiles })
/** Ends any of these requests but `fetch_blobs`: `blob_missing`, `blob_changed`, `not_allowed`, `busy`. */
export const FetchFailed = message('fetch_failed', { arena: ArenaName, id: RequestId, code: Code, reason: Reason })

export const wire = mailbox(
  Hello,
  Deflated,
  Ping,
  Pong,
  Close,
  PairRequest,
  PairAccepted,
  ArenaOpen,
  ArenaClose,
  RolledBack,
  Feed,
  FeedAck,
  ArenaState,
  ArenaProbe,
  FetchBlobs,
  Pack,
  FetchTree,
  Tree,
  FetchLeaves,
  Leaves,
  FetchNodes,
  FetchAnchors,
  Anchors,
  FetchDelta,
  Delta,
  Holds,
  Held,
  Lease,
  Leased,
  LeaseEnd,
  FetchFailed,
)
export type WireMessage = MessageOf<typeof wire>
/** The messages that belong to an arena: a connection hands them on, unread but for their form. */
export type ArenaWireMessage = Extract<WireMessage, { arena: ArenaName }>
