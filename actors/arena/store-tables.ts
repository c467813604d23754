/**
 * The store over ordered tables. Keeps by itself what can be derived: sequence numbers, totals, the Merkle buckets, and
 * the indexes by hash, by pending and by conflict.
 */
import type { Mark } from '../../protocol/control.ts'
import type { BlobHash, EntryPath, PeerId, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import { packEntry, packIntent, packKept, unpackEntry, unpackIntent, unpackKept } from './codec.ts'
import { conflictOrigin } from './conflict-name.ts'
import { openHashIndex } from './hash-index.ts'
import { openHistoryRows } from './history-rows.ts'
import { MARKS_MAX } from './marks.ts'
import { BUCKETS, DIGEST_BYTES, type Digest, entryDigest, sameDigest, toggle } from './merkle-set.ts'
import { compareTree } from './order.ts'
import { isUnshown } from './plan.ts'
import type {
  Entry,
  Intent,
  Kept,
  PeerRecord,
  Session,
  Store,
  StoredLease,
  StoreState,
  Totals,
  Writer,
} from './store.ts'
import type { Row, Tables } from './tables.ts'
import { endOfSubtree, numberKey, pathOf, successor, successorOfPrefix, treeKey } from './tree-keys.ts'
import { living, type Version } from './version.ts'

const STATE = Buffer.from('state')
const BUCKET_KEY = Buffer.from('buckets')
const SESSIONS_KEY = Buffer.from('sessions')
/** Entries at hand, in two generations of so many: those of a batch are asked for again and again until it is done. */
const AT_HAND_MAX = 4096

export interface StoreOptions {
  readonly tables: Tables
  readonly digest: Digest
  readonly newReplica: () => ReplicaId
  readonly newSession: () => SessionToken
  readonly boot: string
}

/** Opens the store and begins a session: its random token is written before any change. */
export function openStore({ tables, digest, newReplica, newSession, boot }: StoreOptions): Store {
  let state = loadState(tables) ?? emptyState(newReplica(), boot)
  // What a transaction has changed so far; becomes `state` when it is kept.
  let draft: { -readonly [Field in keyof StoreState]: StoreState[Field] } | null = null

  const now = () => draft ?? state
  /** The store's own; null: there is none. Nothing is deleted one by one: a map that is emptied from its front gets slow. */
  let atHand = new Map<EntryPath, Entry | null>()
  let atHandBefore = new Map<EntryPath, Entry | null>()
  const intents = openIntents(tables)
  const hashes = openHashIndex(tables)
  const history = openHistoryRows(tables)
  let watcher: ((entries: readonly Entry[]) => void) | null = null
  /** What a transaction has written, for whoever watches. */
  let written = new Map<EntryPath, Entry>()

  function transact(change: (writer: Writer) => void): void {
    const before = state
    const next = { ...state, totals: { ...state.totals } }
    draft = next
    try {
      tables.transact(() => {
        change(makeWriter(next, before.buckets))
        intents.write()
        hashes.write()
        history.write()
        const { buckets, sessions, ...rest } = next
        tables.put('state', STATE, rest)
        if (buckets !== before.buckets) tables.put('state', BUCKET_KEY, buckets)
        if (sessions !== before.sessions) tables.put('state', SESSIONS_KEY, sessions)
      })
      state = next
    } catch (error) {
      written.clear()
      atHand.clear()
      atHandBefore.clear()
      intents.load()
      hashes.forget()
      history.forget()
      throw error
    } finally {
      draft = null
    }
    if (written.size === 0) return
    const entries = [...written.values()]
    written = new Map()
    watcher?.(entries)
  }

  function remember(path: EntryPath, entry: Entry | null): void {
    if (atHand.size >= AT_HAND_MAX) {
      atHandBefore = atHand
      atHand = new Map()
    }
    atHand.set(path, entry)
  }

  function makeWriter(
    next: { -readonly [Field in keyof StoreState]: StoreState[Field] },
    bucketsBefore: Uint8Array,
  ): Writer {
    const totals = next.totals as { -readonly [Field in keyof Totals]: Totals[Field] }
    const toggleLiving = (path: EntryPath, version: Version | undefined) => {
      if (!living(version)) return
      // Other buckets are another object: readers see by that whether the root has changed.
      if (next.buckets === bucketsBefore) next.buckets = Uint8Array.from(bucketsBefore)
      toggle(next.buckets, path, entryDigest(path, version, digest))
    }
    return {
      setState: change => void Object.assign(next, change),
      nextCount: () => ++next.count,
      putEntry(entry, announce) {
        const key = treeKey(entry.path)
        const before = entryOf(entry.path)
        const seq = announce ? ++next.seq : (before?.seq ?? 0)
        if (announce) {
          if (before && before.seq > 0) tables.remove('feed', numberKey(before.seq))
          tables.put('feed', numberKey(seq), entry.path)
        }
        const numbered = { ...entry, seq }
        tables.put('entries', key, packEntry(numbered))
        remember(entry.path, numbered)
        if (watcher !== null) written.set(entry.path, numbered)
        count(totals, before, -1)
        count(totals, entry, 1)
        if (!before || !sameDigest(before.known, entry.known)) {
          toggleLiving(entry.path, before?.known)
          toggleLiving(entry.path, entry.known)
        }
        index(entry.path, key, before, entry)
      },
      putIntent: intent => intents.put(intent),
      removeIntent: path => intents.remove(path),
      putLeaves: (hash, leaves) => tables.put('leaves', Buffer.from(hash, 'hex'), leaves),
      putKept(kept) {
        tables.put('kept', Buffer.from(kept.id), packKept(kept))
        if (kept.hash) tables.put('keptHashes', Buffer.from(kept.hash, 'hex'), kept.id)
      },
      removeKept(id) {
        const packed = tables.get('kept', Buffer.from(id))
        if (packed === undefined) return
        const { hash } = unpackKept(id, packed)
        if (hash && tables.get('keptHashes', Buffer.from(hash, 'hex')) === id)
          tables.remove('keptHashes', Buffer.from(hash, 'hex'))
        tables.remove('kept', Buffer.from(id))
      },
      putPeer: (peer, record) => tables.put('peers', Buffer.from(peer), record),
      putLease: lease => tables.put('leases', leaseKey(lease), lease.hash),
      removeLease: lease => tables.remove('leases', leaseKey(lease)),
      putMark(path, mark) {
        next.marked = null
        if (mark === null) tables.remove('marks', treeKey(path))
        else tables.put('marks', treeKey(path), mark)
      },
      addHistory(event) {
        const number = ++next.historyNumber
        history.add(number, event)
        return { ...event, number }
      },
    }
  }

  function index(path: EntryPath, key: Buffer, before: Entry | undefined, entry: Entry): void {
    const oldHash = fileHash(before)
    const newHash = fileHash(entry)
    if (oldHash !== newHash) {
      if (oldHash) hashes.remove(oldHash, path)
      if (newHash) hashes.add(newHash, path)
    }
    const oldUnreal = unrealHash(before)
    const newUnreal = unrealHash(entry)
    if (oldUnreal !== newUnreal) {
      if (oldUnreal) tables.remove('unreal', Buffer.concat([Buffer.from(oldUnreal, 'hex'), key]))
      if (newUnreal) tables.put('unreal', Buffer.concat([Buffer.from(newUnreal, 'hex'), key]), path)
    }
    if (entry.pending !== (before?.pending ?? false)) {
      if (entry.pending) tables.put('pending', key, path)
      else tables.remove('pending', key)
    }
    if (isConflict(entry) !== isConflict(before)) {
      if (isConflict(entry)) tables.put('conflicts', key, path)
      else tables.remove('conflicts', key)
    }
  }

  function entryOf(path: EntryPath): Entry | undefined {
    const known = atHand.get(path)
    if (known !== undefined) return known ?? undefined
    const before = atHandBefore.get(path)
    const packed = before === undefined ? tables.get('entries', treeKey(path)) : undefined
    const entry = before ?? (packed === undefined ? null : unpackEntry(path, packed))
    remember(path, entry)
    return entry ?? undefined
  }

  const store: Store = {
    state: now,
    entry: entryOf,
    page(after, limit, under) {
      // The path itself is the first key of its subtree; its own entry is not *under* it.
      const start = after ? successor(treeKey(after)) : under ? successor(treeKey(under)) : null
      const end = under ? endOfSubtree(under) : null
      return tables.range('entries', start, end, limit).map(toEntry)
    },
    hasLivingBelow(path) {
      const end = endOfSubtree(path)
      let start = successor(treeKey(path))
      for (;;) {
        const rows = tables.range('entries', start, end, 64)
        for (const row of rows) if (living(toEntry(row).known)) return true
        if (rows.length < 64) return false
        start = successor((rows.at(-1) as Row).key)
      }
    },
    feed(after, limit) {
      const entries: Entry[] = []
      for (const row of tables.range('feed', numberKey(after + 1), null, limit)) {
        const found = entryOf(row.value as EntryPath)
        if (found) entries.push(found)
      }
      return entries
    },
    withHash: (hash, limit) => hashes.paths(hash, limit),
    pendingPage(after, limit) {
      const rows = tables.range('pending', after ? successor(treeKey(after)) : null, null, limit)
      return rows.map(row => row.value as EntryPath)
    },
    intents: () => intents.all(),
    leaves: hash => tables.get('leaves', Buffer.from(hash, 'hex')) as Uint8Array | undefined,
    kept(path, limit) {
      const found: Kept[] = []
      for (let end: Buffer | null = null; found.length < limit; ) {
        const rows = tables.range('kept', null, end, 500, true)
        for (const row of rows) {
          const kept = unpackKept(row.key.toString(), row.value)
          if ((path === null || kept.path === path) && found.length < limit) found.push(kept)
        }
        if (rows.length < 500) break
        end = (rows.at(-1) as Row).key
      }
      return found
    },
    keptWithHash(hash) {
      const id = tables.get('keptHashes', Buffer.from(hash, 'hex')) as string | undefined
      const packed = id === undefined ? undefined : tables.get('kept', Buffer.from(id))
      return id === undefined || packed === undefined ? undefined : unpackKept(id, packed)
    },
    peer: peer => tables.get('peers', Buffer.from(peer)) as PeerRecord | undefined,
    peers: () => tables.range('peers', null, null, 10_000).map(row => row.key.toString() as PeerId),
    unrealWithHash(hash, limit) {
      const key = Buffer.from(hash, 'hex')
      return tables.range('unreal', key, successorOfPrefix(key), limit).map(row => row.value as EntryPath)
    },
    leases: () =>
      tables.range('leases', null, null, Number.MAX_SAFE_INTEGER).map(({ key, value }) => {
        const text = key.toString()
        const end = text.indexOf('\0')
        const path = text.slice(end + 1).replaceAll('\0', '/') as EntryPath
        return { peer: end === 0 ? null : (text.slice(0, end) as PeerId), path, hash: value as BlobHash }
      }),
    marks: () =>
      tables
        .range('marks', null, null, MARKS_MAX)
        .map(row => [pathOf(row.key), row.value as Mark] as [EntryPath, Mark]),
    conflicts: limit => tables.range('conflicts', null, null, limit).map(row => row.value as EntryPath),
    history: (before, limit) => history.read(before, limit),
    transact,
    watch(listener) {
      watcher = listener
    },
    flushed: done => tables.flushed(done),
    close: () => tables.close(),
  }

  const token = newSession()
  transact(writer =>
    writer.setState({
      sessions: [...state.sessions, { token, firstSeq: state.seq }].slice(-SESSIONS_MAX),
      countAtOpening: state.count,
    }),
  )
  return store
}

/** Sessions remembered; a cursor of an older one counts as unknown, which costs its reader one reading from the start. */
const SESSIONS_MAX = 1000

function emptyState(replica: ReplicaId, boot: string): StoreState {
  return {
    replica,
    count: 0,
    seq: 0,
    sessions: [],
    countAtOpening: 0,
    scanned: false,
    disk: null,
    historyNumber: 0,
    marked: null,
    givenUp: 0,
    durableSeq: 0,
    boot,
    totals: { entries: 0, files: 0, bytes: 0, realBytes: 0, pending: 0, pendingBytes: 0, conflicts: 0 },
    buckets: new Uint8Array(BUCKETS * DIGEST_BYTES),
  }
}

function loadState(tables: Tables): StoreState | undefined {
  const rest = tables.get('state', STATE) as Omit<StoreState, 'buckets' | 'sessions'> | undefined
  const buckets = tables.get('state', BUCKET_KEY) as Uint8Array | undefined
  const sessions = (tables.get('state', SESSIONS_KEY) ?? []) as Session[]
  return (
    rest && {
      ...rest,
      marked: rest.marked ?? null,
      givenUp: rest.givenUp ?? 0,
      sessions,
      buckets: buckets ? Uint8Array.from(buckets) : new Uint8Array(BUCKETS * DIGEST_BYTES),
    }
  )
}

function count(
  totals: { -readonly [Field in keyof Totals]: Totals[Field] },
  entry: Entry | undefined,
  sign: 1 | -1,
): void {
  if (!entry) return
  const { known, have } = entry
  if (living(known)) totals.entries += sign
  if (known.content.type === 'file') {
    totals.files += sign
    totals.bytes += sign * known.content.size
  }
  if (have?.content.type === 'file') totals.realBytes += sign * have.content.size
  if (entry.pending) {
    totals.pending += sign
    if (known.content.type === 'file') totals.pendingBytes += sign * known.content.size
  }
  if (isConflict(entry)) totals.conflicts += sign
}

function isConflict(entry: Entry | undefined): boolean {
  return entry !== undefined && living(entry.known) && conflictOrigin(entry.path) !== undefined
}

function fileHash(entry: Entry | undefined): BlobHash | undefined {
  return entry?.have?.content.type === 'file' ? entry.have.content.hash : undefined
}

/** The content of a file that is only known, and is to stay so. */
function unrealHash(entry: Entry | undefined): BlobHash | undefined {
  if (!entry || entry.pending || !isUnshown(entry)) return undefined
  return entry.known.content.type === 'file' ? entry.known.content.hash : undefined
}

function toEntry(row: Row): Entry {
  return unpackEntry(pathOf(row.key), row.value)
}

function leaseKey({ peer, path }: StoredLease): Buffer {
  return Buffer.concat([Buffer.from(`${peer ?? ''}\0`), treeKey(path)])
}

// Intents: those of one transaction are one row, which goes with the last of them.

interface Intents {
  all(): Intent[]
  put(intent: Intent): void
  remove(path: EntryPath): void
  /** Writes what changed; inside the transaction. */
  write(): void
  /** Forgets what was not written. */
  load(): void
}

function openIntents(tables: Tables): Intents {
  const rows = new Map<string, Map<EntryPath, Intent>>()
  const rowOf = new Map<EntryPath, string>()
  const changed = new Set<string>()
  let fresh: string | null = null
  let number = 0

  function load(): void {
    rows.clear()
    rowOf.clear()
    changed.clear()
    fresh = null
    for (const { key, value } of tables.range('intents', null, null, Number.MAX_SAFE_INTEGER)) {
      const name = key.toString('latin1')
      const row = new Map<EntryPath, Intent>()
      for (const [path, packed] of packedIntents(key, value)) row.set(path, unpackIntent(path, packed))
      rows.set(name, row)
      for (const path of row.keys()) rowOf.set(path, name)
    }
  }

  function remove(path: EntryPath): void {
    const name = rowOf.get(path)
    if (name === undefined) return
    rowOf.delete(path)
    rows.get(name)?.delete(path)
    changed.add(name)
  }

  load()
  return {
    load,
    remove,
    all: () => [...rows.values()].flatMap(row => [...row.values()]).sort((a, b) => compareTree(a.path, b.path)),
    put(intent) {
      remove(intent.path)
      if (fresh === null) {
        do fresh = `\0${(++number).toString(36)}`
        while (rows.has(fresh))
        rows.set(fresh, new Map())
      }
      rows.get(fresh)?.set(intent.path, intent)
      rowOf.set(intent.path, fresh)
      changed.add(fresh)
    },
    write() {
      for (const name of changed) {
        const row = rows.get(name)
        if (row !== undefined && row.size > 0) {
          tables.put(
            'intents',
            Buffer.from(name, 'latin1'),
            Array.from(row.values(), intent => [intent.path, packIntent(intent)]),
          )
          continue
        }
        rows.delete(name)
        tables.remove('intents', Buffer.from(name, 'latin1'))
      }
      changed.clear()
      fresh = null
    },
  }
}

/** A row of an earlier version is one intent, by its path. */
function packedIntents(key: Buffer, value: unknown): [EntryPath, unknown][] {
  return key[0] === 0 ? (value as [EntryPath, unknown][]) : [[pathOf(key), value]]
}
