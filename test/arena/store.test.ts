import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import type { Tables } from '../../actors/arena/tables.ts'
import { openLmdbTables } from '../../actors/arena/tables-lmdb.ts'
import { MemoryTables } from '../../actors/arena/tables-memory.ts'
import { within } from '../_deadline.ts'
import { temporaryFolder } from '../_temp.ts'
import { acceptStore, assertDerived } from './_store-acceptance.ts'
import { makeEntry, openOn, path, peerId } from './_store-entries.ts'
import { file, version } from './_versions.ts'

const guard = { enter: () => {}, leave: () => {} }

async function closed(tables: Tables | null): Promise<void> {
  if (tables === null) return
  await new Promise<void>(done => tables.flushed(done))
  tables.close()
}

acceptStore('memory', () => {
  const tables = new MemoryTables()
  return { open: async () => tables, cleanUp: async () => {} }
})

acceptStore('LMDB', () => {
  const folder = mkdtempSync(join(tmpdir(), 'realize-'))
  let tables: Tables | null = null
  return {
    async open() {
      await closed(tables)
      tables = openLmdbTables(join(folder, 'index'), guard)
      return tables
    },
    async cleanUp() {
      await closed(tables)
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
    },
  }
})

test('a snapshot in memory is a state of its own, as a restored backup is', t => {
  const tables = new MemoryTables()
  const store = openOn(tables)
  const known = version(file('a'), { 1: 1 }, 1)
  store.transact(writer => writer.putEntry(makeEntry('a', known), true))
  const restored = openOn(tables.snapshot())
  store.transact(writer => writer.putEntry(makeEntry('b', known), true))
  t.is(restored.entry(path('b')), undefined)
  t.is(restored.state().replica, store.state().replica)
  assertDerived(t, restored)
})

test('the guard is told of every write and of its end, also of one that throws', async t => {
  const told: string[] = []
  const tables = openLmdbTables(join(temporaryFolder(t), 'index'), {
    enter: () => void told.push('enter'),
    leave: () => void told.push('leave'),
  })
  told.length = 0
  t.throws(() =>
    tables.transact(() => {
      t.deepEqual(told, ['enter'])
      throw new Error('no')
    }),
  )
  t.deepEqual(told, ['enter', 'leave'])
  await closed(tables)
})

for (const round of [1, 2, 3]) {
  test(`a process that is killed while it writes leaves a state that the store once had (${round})`, async t => {
    const folder = join(temporaryFolder(t), 'index')
    const child = fork(new URL('_store-writer.js', import.meta.url), [folder], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    t.teardown(() => child.kill('SIGKILL'))
    let durable = 0
    const enough = new Promise<void>(resolve => {
      child.on('message', count => {
        durable = count as number
        if (durable >= 100 * round + 30) resolve()
      })
    })
    await within(30_000, 'enough transactions', enough)
    child.kill('SIGKILL')
    await once(child, 'exit')
    const tables = openLmdbTables(folder, guard)
    const store = openOn(tables)
    const { count, seq, historyNumber } = store.state()
    t.true(count >= durable, 'what was said to be durable is there')
    t.deepEqual([seq, historyNumber, store.peer(peerId('B'))?.read?.seq], [count, count, count])
    t.is(store.entry(path(`d${count % 9}/p${count % 90}`))?.seq, count)
    t.is(store.feed(0, 1000).length, 90)
    assertDerived(t, store)
    await closed(tables)
  })
}
