/** Tables in LMDB: one environment for an arena. A kill at any moment leaves a state that the store once had. */
import { type Database, open, type RootDatabase } from 'lmdb'
import { TABLES, type TableName, type Tables } from './tables.ts'

/** Told before and after each write transaction, so that nobody ends the thread inside one (actors/write-gate.ts). */
export interface TransactionGuard {
  enter(): void
  leave(): void
}

export function openLmdbTables(folder: string, guard: TransactionGuard): Tables {
  const environment: RootDatabase<unknown, Buffer> = open({
    path: folder,
    noSubdir: false,
    maxDbs: TABLES.length + 4,
    keyEncoding: 'binary',
    // What is committed asynchronously is durable a moment later, in order; `transact` returns when it is (strace: fdatasync, then the
    // meta page through a synchronous descriptor).
    overlappingSync: true,
  })
  const databases = new Map<TableName, Database<unknown, Buffer>>()
  guard.enter()
  try {
    for (const name of TABLES) databases.set(name, environment.openDB<unknown, Buffer>(name, { keyEncoding: 'binary' }))
  } finally {
    guard.leave()
  }
  const table = (name: TableName) => databases.get(name) as Database<unknown, Buffer>
  return {
    get: (name, key) => table(name).get(key),
    range(name, start, end, limit, descending = false) {
      const range = table(name).getRange(
        descending
          ? { ...(end && { start: end, exclusiveStart: true }), ...(start && { end: start }), limit, reverse: true }
          : { ...(start && { start }), ...(end && { end }), limit },
      )
      return Array.from(range, ({ key, value }) => ({ key: Buffer.from(key), value }))
    },
    put: (name, key, value) => void table(name).putSync(key, value),
    remove: (name, key) => void table(name).removeSync(key),
    transact(change) {
      guard.enter()
      try {
        environment.transactionSync(change)
      } finally {
        guard.leave()
      }
    },
    flushed: done => void environment.flushed.then(done, done),
    close: () => void environment.close(),
  }
}
