/** A process that writes one transaction after the other to a store, until it is killed. Says each that is durable. */
import { openLmdbTables } from '../../actors/arena/tables-lmdb.ts'
import type { ReplicaId, SessionToken } from '../../protocol/ids.ts'
import { event, makeEntry, openOn, peerId } from './_store-entries.ts'
import { file, version } from './_versions.ts'

const PATHS = 90

const store = openOn(openLmdbTables(process.argv[2] as string, { enter: () => {}, leave: () => {} }))

function write(): void {
  store.transact(writer => {
    const count = writer.nextCount()
    const known = version(file('abcdef'[count % 6] as string, { size: count }), { 1: count }, count)
    writer.putEntry(makeEntry(`d${count % 9}/p${count % PATHS}`, known, { pending: count % 2 === 0 }), true)
    const cursor = { replica: 'r' as ReplicaId, session: 's' as SessionToken, seq: count }
    writer.putPeer(peerId('B'), { read: cursor, acknowledged: null })
    writer.addHistory(event(`p${count % PATHS}`))
  })
  const { count } = store.state()
  if (count % 10 === 0) store.flushed(() => process.send?.(count))
  setImmediate(write)
}
write()
