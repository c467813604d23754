import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { packVersion } from '../../actors/arena/codec.ts'
import type { Entry } from '../../actors/arena/store.ts'
import type { Tables } from '../../actors/arena/tables.ts'
import { openLmdbTables } from '../../actors/arena/tables-lmdb.ts'
import { MemoryTables } from '../../actors/arena/tables-memory.ts'
import { numberKey, treeKey } from '../../actors/arena/tree-keys.ts'
import type { FileContent } from '../../actors/arena/version.ts'
import { within } from '../_deadline.ts'
import { temporaryFolder } from '../_temp.ts'
import { acceptStore, assertDerived } from './_store-acceptance.ts'
import { event, makeEntry, openOn, path, peerId } from './_store-entries.ts'
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

test('a store of an earlier version is read, and goes on', t => {
  const tables = new MemoryTables()
  const known = version(file('a'), { 1: 1 }, 1)
  const { hash } = known.content as FileContent
  const paths = ['a', 'b', 'c']
  const before = openOn(tables)
  for (const at of paths) before.transact(writer => writer.putEntry(makeEntry(at, known), true))
  before.transact(writer => {
    for (const at of paths) writer.addHistory(event(at))
  })
  const key = Buffer.from(hash, 'hex')
  tables.transact(() => {
    // An entry was an array, each event a row of its own, and each path of a content as well.
    for (const at of paths) {
      const { seq } = before.entry(path(at)) as Entry
      tables.put('entries', treeKey(path(at)), [1, seq, packVersion(known), null, null, null, null])
      tables.put('hashes', Buffer.concat([key, treeKey(path(at))]), path(at))
    }
    tables.remove('hashes', key)
    tables.remove('state', Buffer.from('index'))
    for (const [index, at] of paths.entries()) tables.put('history', numberKey(index + 1), event(at))
  })
  const store = openOn(tables)
  assertDerived(t, store)
  t.deepEqual(new Set<string>(store.withHash(hash, 10)), new Set(paths))
  t.deepEqual(store.page(null, 10, null), before.page(null, 10, null))
  store.transact(writer => {
    writer.addHistory(event('d'))
    writer.putEntry(makeEntry('a', version({ type: 'gone', deleted: hash }, { 1: 2 }, 1.5)), true)
  })
  t.deepEqual(
    store.history(100, 3).map(row => [row.number, row.path as string]),
    [
      [4, 'd'],
      [3, 'c'],
      [2, 'b'],
    ],
  )
  t.deepEqual(new Set<string>(store.withHash(hash, 10)), new Set(['b', 'c']))
  assertDerived(t, store)
})

test('of the history the last hundred thousand events are kept, and not many more', t => {
  const tables = new MemoryTables()
  const store = openOn(tables)
  const add = (events: number) =>
    store.transact(writer => {
      for (let left = events; left > 0; left--) writer.addHistory(event('a'))
    })
  for (let times = 0; times < 101; times++) add(1_000)
  add(7)
  const numbers = store.history(Number.MAX_SAFE_INTEGER, 200_000).map(row => row.number)
  t.is(numbers[0], 101_007)
  t.true(numbers.length >= 100_000 && numbers.length <= 101_007)
  t.is(numbers.at(-1), 1_001)
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
