/** Every limit on what comes from outside or grows. Bytes unless the name says otherwise. */

/** One leaf of a Merkle tree. */
export const LEAF_BYTES = 128 * 1024
/** Leaves below one node of the group level: 512 MiB of content; its leaf hashes are 128 KiB. */
export const GROUP_LEAVES = 4096
/** Largest file: 4096 groups of 512 MiB. */
export const FILE_BYTES_MAX = 4096 * GROUP_LEAVES * LEAF_BYTES

/** JSON header of one frame. */
export const HEADER_BYTES_MAX = 2 * 1024 * 1024
/** Binary payload of one frame. */
export const PAYLOAD_BYTES_MAX = 2 * 1024 * 1024
/** How much larger than what came a frame may be that was deflated: one chunk of a socket must not become hundreds of megabytes. */
export const DEFLATED_RATIO_MAX = 100
/** Frames before a peer has said who it is (`hello`), header and payload together. */
export const GREETING_BYTES_MAX = 16 * 1024

export const NAME_BYTES_MAX = 255
/** A whole path in an arena. LMDB's key limit is 1978 at its page size of 4096. */
export const PATH_BYTES_MAX = 1900
export const PATH_DEPTH_MAX = 256
export const LINK_TARGET_BYTES_MAX = 4095

/** Replicas in one version vector. */
export const VECTOR_MAX = 1000
/** A count of a replica: a thousand changes a second for 34 years. VECTOR_MAX of them still add up exactly. */
export const COUNT_MAX = 2 ** 40
/**
 * A generation: more than a version can have whose changes are counted, or whose stamp is an mtime in milliseconds
 * (`plausible`). Whoever builds on such a version stays below as well.
 */
export const GENERATION_MAX = 2 ** 51

/** Entries in one batch of the feed. */
export const FEED_ENTRIES_MAX = 1000
/** JSON bytes of the entries of one batch, as a target for the sender. */
export const FEED_BYTES_TARGET = 1024 * 1024
/** Batches sent and not yet acknowledged. */
export const FEED_WINDOW = 4

/** Blobs asked for in one `fetch_blobs`. */
export const FETCH_BLOBS_MAX = 1024
/** A blob up to this size travels whole in a pack; larger ones travel as leaves. */
export const PACKED_BLOB_BYTES_MAX = LEAF_BYTES
/** Content of one pack, as a target for the one who asks. */
export const PACK_BYTES_TARGET = 1024 * 1024
/** Leaves asked for in one `fetch_leaves`: 8 MiB. */
export const FETCH_LEAVES_MAX = 64
/** Leaves in one `leaves` message: 1 MiB. */
export const LEAVES_PER_MESSAGE = 8
/** Nodes of a Merkle tree in one `tree`. */
export const NODES_MAX = GROUP_LEAVES
/** A leaf is found elsewhere by the hash of so many bytes at its beginning. */
export const ANCHOR_BYTES = 4096
/** Runs of leaves, and leaves, whose anchors are asked for in one `fetch_anchors`: 4 GiB of content. */
export const ANCHOR_RUNS_MAX = 1000
export const ANCHOR_LEAVES_MAX = 32_768
/** One rolling hash: an anchor, or a block's in a signature. */
export const ROLLING_BYTES = 8
/** Leaves said by one `delta`: 1 MiB. */
export const DELTA_LEAVES_MAX = 8
/** Blocks of the older content that a `fetch_delta` signs: their length, a power of two, and their number. */
export const BLOCK_BYTES_MIN = 512
export const BLOCK_BYTES_MAX = 32 * 1024
export const SIGNATURE_BLOCKS_MAX = 4096
/** Requests of one peer that may be open at once. More is a breach of the protocol. */
export const REQUESTS_MAX = 64

/** Blobs asked about in one `holds`. */
export const HOLDS_MAX = 1024
/** Files of one `lease`. */
export const LEASE_FILES_MAX = 128
/** For so long a peer that has granted a lease keeps the file; who was granted it relies on half of that, milliseconds. */
export const LEASE_MS = 20_000

/** Arenas that one connection can carry. */
export const ARENAS_MAX = 1000
/** Nanoseconds since 1970 that an mtime may have: years 1900 to 2261, so that hostile values cannot reach a disk. */
export const MTIME_NS_MIN = -2_208_988_800_000_000_000n
export const MTIME_NS_MAX = 9_200_000_000_000_000_000n
