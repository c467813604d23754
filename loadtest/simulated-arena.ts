/**
 * An arena as a simulated peer has it: it opens it, reads the feed and acknowledges it, asks for all content that it hears of,
 * checks it against its hash and throws it away, and announces and serves edits of its own. It keeps no tree, so it
 * takes the service's word for the root. Without I/O but for the clock in the content of edits.
 */
import { groupNodes, hashSmall, leafCount, rootOfGroups, topOf, verifyLeaf } from '../actors/hasher/merkle.ts'
import type { ArenaName, Author, BlobHash, EntryPath, ReplicaId, SessionToken } from '../protocol/ids.ts'
import {
  FETCH_BLOBS_MAX,
  FETCH_LEAVES_MAX,
  GROUP_LEAVES,
  LEAF_BYTES,
  PACK_BYTES_TARGET,
  PACKED_BLOB_BYTES_MAX,
} from '../protocol/limits.ts'
import type { ArenaWireMessage, WireEntry } from '../protocol/wire.ts'
import { editContent } from './messages.ts'

/** Largest content that is asked for: its leaf hashes are one group. */
export const CONTENT_BYTES_MAX = GROUP_LEAVES * LEAF_BYTES
/** How often content that the service did not give is asked for again, and after which time. */
const TRIES_MAX = 20
const RETRY_MS = 250

type Message<Type extends ArenaWireMessage['type']> = Extract<ArenaWireMessage, { type: Type }>

export interface ArenaEvents {
  say(header: ArenaWireMessage, payload?: Uint8Array): void
  /** The arena is open in both directions. */
  opened(): void
  /** Content came and fits its hash. `content`: all of it if it is small, else nothing. */
  arrived(bytes: number, content: Uint8Array): void
  /** Something that must not happen. */
  wrong(what: string): void
  later(ms: number, work: () => void): void
}

interface Wanted {
  readonly hash: BlobHash
  readonly size: number
  tries: number
}

/** A large content on its way, leaf by leaf. */
interface Fetching {
  readonly wanted: Wanted
  leaves: Uint8Array
  next: number
}

export class SimulatedArena {
  readonly #arena: ArenaName
  readonly #author: Author
  readonly #events: ArenaEvents
  readonly #replica: ReplicaId
  readonly #session: SessionToken
  #theirs: { replica: ReplicaId; session: SessionToken } | null = null
  /** Of the service's feed: taken, and all content of it received. */
  #received = 0
  #applied = -1
  #root: string | null = null
  #stateSaid = ''
  /** What was announced and is not here; being asked for; and what is here. */
  readonly #wanted = new Map<BlobHash, Wanted>()
  #asked: Wanted[] = []
  #fetching: Fetching | null = null
  readonly #here = new Set<BlobHash>()
  #request = 0
  /** Own edits, in the order of the feed, and their content. */
  readonly #edits: WireEntry[] = []
  readonly #contents = new Map<BlobHash, Uint8Array>()

  /** @param token a fresh random ID of 16 hex digits */
  constructor(arena: ArenaName, author: Author, token: () => string, events: ArenaEvents) {
    this.#arena = arena
    this.#author = author
    this.#events = events
    this.#replica = token() as ReplicaId
    this.#session = token() as SessionToken
  }

  get missing(): number {
    return this.#wanted.size
  }

  /** On a connection that is open, each time that there is a new one. */
  open(): void {
    this.#theirs = null
    this.#stateSaid = ''
    this.#asked = []
    this.#fetching = null
    this.#sayOpen(null)
  }

  #sayOpen(read: Message<'arena_open'>['read']): void {
    this.#events.say({
      type: 'arena_open',
      arena: this.#arena,
      replica: this.#replica,
      session: this.#session,
      seq: this.#edits.length,
      conflicts: 'keep-both',
      read,
      again: false,
      knows: this.#theirs?.session ?? null,
    })
  }

  heard(message: ArenaWireMessage, payload: Uint8Array | undefined): void {
    switch (message.type) {
      case 'arena_open':
        return this.#opened(message)
      case 'feed':
        return this.#taken(message)
      case 'arena_state':
        this.#root = message.root
        return this.#sayState(0)
      case 'arena_probe':
        return this.#sayState(message.probe)
      case 'pack':
        return this.#unpacked(message, payload ?? new Uint8Array())
      case 'tree':
        return this.#treeCame(payload ?? new Uint8Array())
      case 'leaves':
        return this.#leavesCame(message, payload ?? new Uint8Array())
      case 'fetch_failed':
        return this.#failed(message.code)
      case 'fetch_blobs':
        return this.#serve(message)
      case 'feed_ack':
        return
      case 'arena_close':
        // What is busy for now opens again by itself.
        this.#theirs = null
        if (message.code !== 'busy') this.#events.wrong(`the arena was closed: ${message.code}`)
        return
      default:
        this.#events.wrong(`${message.type} came`)
    }
  }

  #opened(message: Message<'arena_open'>): void {
    const before = this.#theirs
    this.#theirs = { replica: message.replica, session: message.session }
    if (before?.session !== message.session) {
      this.#received = 0
      this.#applied = -1
    }
    if (message.knows !== this.#session) this.#sayOpen(null)
    if (before === null) this.#events.opened()
    this.#announce(message.read?.replica === this.#replica ? message.read.seq : 0)
  }

  // Reading

  #taken(message: Message<'feed'>): void {
    const { source, reader, from, to, entries } = message
    if (source !== this.#theirs?.replica || reader !== this.#replica) return
    if (from > this.#received) return this.#events.wrong('there is a gap in the feed')
    this.#received = Math.max(this.#received, to)
    for (const entry of entries) this.#want(entry)
    this.#acknowledge(to, true)
    this.#ask()
    this.#sayState(0)
  }

  #want({ type, hash, size, has }: WireEntry): void {
    if (type !== 'file' || !has || hash === undefined || size === undefined) return
    if (this.#here.has(hash) || this.#contents.has(hash) || this.#wanted.has(hash)) return
    if (size > CONTENT_BYTES_MAX) return this.#events.wrong('content is larger than a simulated peer takes')
    this.#wanted.set(hash, { hash, size, tries: 0 })
  }

  #acknowledge(received: number, batch: boolean): void {
    if (!this.#theirs) return
    if (this.#wanted.size === 0) this.#applied = this.#received
    this.#events.say({
      type: 'feed_ack',
      arena: this.#arena,
      source: this.#theirs.replica,
      received,
      applied: Math.max(0, Math.min(received, this.#applied)),
      batch,
    })
  }

  #sayState(probe: number): void {
    if (!this.#theirs || this.#root === null) return
    const pending = this.#wanted.size
    const said = `${this.#root} ${this.#edits.length} ${pending}`
    if (probe === 0 && (pending > 0 || said === this.#stateSaid)) return
    this.#stateSaid = said
    if (pending === 0 && this.#applied < this.#received) this.#acknowledge(this.#received, false)
    this.#events.say({
      type: 'arena_state',
      arena: this.#arena,
      root: this.#root,
      seq: this.#edits.length,
      pending,
      scanning: false,
      probe,
    })
  }

  // Fetching

  /** Asks for the next content, unless some is on its way: packs of small ones, large ones one by one. */
  #ask(): void {
    if (this.#asked.length > 0 || this.#fetching || !this.#theirs) return
    const small: Wanted[] = []
    let bytes = 0
    let large: Wanted | undefined
    for (const wanted of this.#wanted.values()) {
      if (wanted.size > PACKED_BLOB_BYTES_MAX) large ??= wanted
      else if (small.length < FETCH_BLOBS_MAX && bytes + wanted.size <= PACK_BYTES_TARGET) {
        small.push(wanted)
        bytes += wanted.size
      }
    }
    const common = { arena: this.#arena, id: ++this.#request }
    if (small.length > 0) {
      this.#asked = small
      this.#events.say({ ...common, type: 'fetch_blobs', hashes: small.map(({ hash }) => hash) })
    } else if (large) {
      this.#fetching = { wanted: large, leaves: new Uint8Array(), next: 0 }
      this.#events.say({ ...common, type: 'fetch_tree', hash: large.hash, group: 0 })
    }
  }

  #unpacked({ sizes }: Message<'pack'>, payload: Uint8Array): void {
    const asked = this.#asked
    this.#asked = []
    let at = 0
    for (const [index, wanted] of asked.entries()) {
      const size = sizes[index] ?? -1
      if (size < 0) {
        this.#again(wanted, 'blob_missing')
        continue
      }
      const content = payload.subarray(at, at + size)
      at += size
      if (hashSmall(content) !== wanted.hash) this.#events.wrong('content does not fit its hash')
      else this.#arrived(wanted, content)
    }
    this.#next()
  }

  #treeCame(leaves: Uint8Array): void {
    const fetching = this.#fetching
    if (!fetching) return
    const { hash, size } = fetching.wanted
    if (rootOfGroups(size, groupNodes(leaves)) !== hash || topOf(leaves).length === 0) {
      this.#fetching = null
      return this.#events.wrong('a tree does not fit its hash')
    }
    fetching.leaves = leaves
    this.#askLeaves(fetching)
  }

  #askLeaves({ wanted: { hash, size }, next }: Fetching): void {
    const count = Math.min(FETCH_LEAVES_MAX, leafCount(size) - next)
    const id = ++this.#request
    this.#events.say({ type: 'fetch_leaves', arena: this.#arena, id, hash, from: next, count, urgent: false })
  }

  #leavesCame({ from, count }: Message<'leaves'>, payload: Uint8Array): void {
    const fetching = this.#fetching
    if (!fetching) return
    for (let i = 0; i < count; i++) {
      const leaf = payload.subarray(i * LEAF_BYTES, (i + 1) * LEAF_BYTES)
      if (!verifyLeaf(fetching.leaves, from + i, leaf)) {
        this.#fetching = null
        return this.#events.wrong('a leaf does not fit its hash')
      }
    }
    fetching.next = from + count
    if (fetching.next === leafCount(fetching.wanted.size)) {
      this.#fetching = null
      this.#arrived(fetching.wanted, new Uint8Array())
      this.#next()
    } else if (fetching.next % FETCH_LEAVES_MAX === 0) this.#askLeaves(fetching)
  }

  #failed(code: string): void {
    const fetching = this.#fetching
    this.#fetching = null
    if (fetching) this.#again(fetching.wanted, code)
    this.#next()
  }

  #arrived(wanted: Wanted, content: Uint8Array): void {
    this.#wanted.delete(wanted.hash)
    this.#here.add(wanted.hash)
    this.#events.arrived(wanted.size, content)
  }

  #next(): void {
    this.#ask()
    this.#sayState(0)
  }

  /** The service may be just reading the file anew. */
  #again(wanted: Wanted, code: string): void {
    this.#wanted.delete(wanted.hash)
    if (++wanted.tries > TRIES_MAX) return this.#events.wrong(`content was not given: ${code}`)
    this.#events.later(RETRY_MS, () => {
      this.#wanted.set(wanted.hash, wanted)
      this.#ask()
    })
  }

  // Editing

  /** Makes a new file: announced now, served when it is asked for. */
  edit(path: EntryPath, number: number, bytes: number): void {
    const content = editContent(number, bytes)
    const hash = hashSmall(content)
    this.#contents.set(hash, content)
    this.#edits.push({
      path,
      type: 'file',
      size: content.length,
      mtime: (BigInt(Date.now()) * 1_000_000n).toString(),
      exec: false,
      hash,
      vector: [[this.#replica, this.#edits.length + 1]],
      g: 1,
      author: this.#author,
      has: true,
    })
    this.#announce(this.#edits.length - 1)
  }

  #announce(from: number): void {
    const to = this.#edits.length
    if (!this.#theirs || from >= to) return
    this.#events.say({
      type: 'feed',
      arena: this.#arena,
      source: this.#replica,
      reader: this.#theirs.replica,
      from,
      to,
      entries: this.#edits.slice(from),
    })
  }

  #serve({ id, hashes }: Message<'fetch_blobs'>): void {
    const contents = hashes.map(hash => this.#contents.get(hash))
    const sizes = contents.map(content => content?.length ?? -1)
    const payload = Uint8Array.from(Buffer.concat(contents.filter(content => content !== undefined)))
    this.#events.say({ type: 'pack', arena: this.#arena, id, sizes }, payload)
  }
}
