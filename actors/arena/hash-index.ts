/**
 * Which paths show a content: the index by hash. Nearly every content has one path, and one that is renamed has two for a moment: a row
 * holds the first few, the rest have rows of their own, by hash and path. What a transaction changes is written once, at its end and
 * in the order of the hashes, so that each page of the table is touched once.
 */
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import type { Row, Tables } from './tables.ts'
import { successor, successorOfPrefix, treeKey } from './tree-keys.ts'

/** Paths in the row of a hash, at most. */
const TOGETHER_MAX = 4
const HASH_BYTES = 32
/** Says in which form the index is. */
const FORM_KEY = Buffer.from('index')
const FORM = 2

/** The first path, whether there are others in rows of their own, and those that are with it. */
type HashRow = readonly [EntryPath, boolean, ...EntryPath[]]

export interface HashIndex {
  /** At most `limit` of the paths; sees what a transaction has changed so far. */
  paths(hash: BlobHash, limit: number): EntryPath[]
  /** Inside a transaction. */
  add(hash: BlobHash, path: EntryPath): void
  remove(hash: BlobHash, path: EntryPath): void
  /** Writes what changed; inside the transaction. */
  write(): void
  /** Forgets what was not written. */
  forget(): void
}

export function openHashIndex(tables: Tables): HashIndex {
  /** Rows that this transaction has changed; null: none is left. */
  const changed = new Map<BlobHash, HashRow | null>()

  function rowOf(hash: BlobHash, key: Buffer): HashRow | null {
    const row = changed.get(hash)
    return row !== undefined ? row : ((tables.get('hashes', key) as HashRow | undefined) ?? null)
  }

  function add(hash: BlobHash, path: EntryPath): void {
    const key = Buffer.from(hash, 'hex')
    const row = rowOf(hash, key)
    if (row === null) return void changed.set(hash, [path, false])
    const [first, others, ...more] = row
    if (first === path || more.includes(path)) return
    if (more.length + 1 < TOGETHER_MAX) return void changed.set(hash, [first, others, ...more, path])
    if (!others) changed.set(hash, [first, true, ...more])
    tables.put('hashes', Buffer.concat([key, treeKey(path)]), path)
  }

  function remove(hash: BlobHash, path: EntryPath): void {
    const key = Buffer.from(hash, 'hex')
    const row = rowOf(hash, key)
    if (row === null || row.lastIndexOf(path) < 0) return tables.remove('hashes', Buffer.concat([key, treeKey(path)]))
    const [first, others, ...more] = row
    const [next, ...rest] = [first, ...more].filter(other => other !== path)
    if (next !== undefined) return void changed.set(hash, [next, others, ...rest])
    const apart = others ? pathsApart(tables, key, 1)[0] : undefined
    if (apart === undefined) return void changed.set(hash, null)
    tables.remove('hashes', Buffer.concat([key, treeKey(apart)]))
    changed.set(hash, [apart, true])
  }

  if (tables.get('state', FORM_KEY) !== FORM) {
    tables.transact(() => {
      indexAnew(tables, add, write)
      tables.put('state', FORM_KEY, FORM)
    })
  }

  function write(): void {
    for (const hash of [...changed.keys()].sort()) {
      const row = changed.get(hash)
      if (row) tables.put('hashes', Buffer.from(hash, 'hex'), row)
      else tables.remove('hashes', Buffer.from(hash, 'hex'))
    }
    changed.clear()
  }

  return {
    paths(hash, limit) {
      const key = Buffer.from(hash, 'hex')
      const row = limit < 1 ? null : rowOf(hash, key)
      if (row === null) return []
      const [first, others, ...more] = row
      const together = [first, ...more]
      if (!others || together.length >= limit) return together.slice(0, limit)
      return [...together, ...pathsApart(tables, key, limit - together.length)]
    },
    add,
    remove,
    write,
    forget: () => changed.clear(),
  }
}

function pathsApart(tables: Tables, hash: Buffer, limit: number): EntryPath[] {
  return tables.range('hashes', successor(hash), successorOfPrefix(hash), limit).map(row => row.value as EntryPath)
}

/** A store of an earlier version has a row by hash and path for each path. */
function indexAnew(tables: Tables, add: HashIndex['add'], write: () => void): void {
  for (let after: Buffer | null = null; ; ) {
    const rows: Row[] = tables.range('hashes', after && successor(after), null, 1000)
    for (const { key, value } of rows) {
      if (key.length === HASH_BYTES) continue
      tables.remove('hashes', key)
      add(key.subarray(0, HASH_BYTES).toString('hex') as BlobHash, value as EntryPath)
    }
    write()
    if (rows.length < 1000) return
    after = (rows.at(-1) as Row).key
  }
}
