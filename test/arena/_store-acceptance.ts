/** What every store must do, whatever its tables are made of. A rig can open its tables again, as a new process would. */
import test, { type ExecutionContext } from 'ava'
import { BUCKETS, DIGEST_BYTES, entryDigest, rootOfBuckets, toggle } from '../../actors/arena/merkle-set.ts'
import { compareTree } from '../../actors/arena/order.ts'
import { isUnshown } from '../../actors/arena/plan.ts'
import type { Entry, Intent, Kept, Store, Totals } from '../../actors/arena/store.ts'
import type { Tables } from '../../actors/arena/tables.ts'
import { type FileContent, living, type Version } from '../../actors/arena/version.ts'
import type { BlobHash, EntryPath, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import { digest, event, hexNext, makeEntry, openOn, path, peerId } from './_store-entries.ts'
import { file, gone, hash, version } from './_versions.ts'

export interface StoreRig {
  /** Opens the tables; what was opened before is closed. */
  open(): Promise<Tables>
  cleanUp(): Promise<void>
}

const one = version(file('a'), { 1: 1 }, 1)
const two = version(file('b', { size: 10 }), { 1: 2 }, 2)
const folder = version({ type: 'dir' }, { 1: 1 }, 1)
const deleted = version(gone, { 1: 3 }, 2.5)

function put(store: Store, announce: boolean, ...entries: Entry[]): void {
  store.transact(writer => {
    for (const entry of entries) writer.putEntry(entry, announce)
  })
}

const pathsOf = (entries: readonly Entry[]) => entries.map(entry => entry.path as string)

/** What the store keeps by itself, counted again from its entries. */
export function assertDerived(t: ExecutionContext, store: Store): void {
  const entries: Entry[] = []
  for (let after: EntryPath | null = null; ; ) {
    const page = store.page(after, 7, null)
    entries.push(...page)
    if (page.length < 7) break
    after = (page.at(-1) as Entry).path
  }
  t.deepEqual(
    entries,
    entries.toSorted((a, b) => compareTree(a.path, b.path)),
  )
  const buckets = new Uint8Array(BUCKETS * DIGEST_BYTES)
  const totals = { entries: 0, files: 0, bytes: 0, realBytes: 0, pending: 0, pendingBytes: 0 }
  for (const { path: at, known, have, pending } of entries) {
    const size = known.content.type === 'file' ? known.content.size : 0
    if (living(known)) {
      toggle(buckets, at, entryDigest(at, known, digest))
      totals.entries++
    }
    if (known.content.type === 'file') totals.files++
    totals.bytes += size
    if (have?.content.type === 'file') totals.realBytes += have.content.size
    if (pending) totals.pending++
    if (pending) totals.pendingBytes += size
  }
  const { conflicts, ...counted }: Totals = store.state().totals
  t.deepEqual(counted, totals)
  t.is(conflicts, store.conflicts(1000).length)
  t.is(rootOfBuckets(store.state().buckets, digest), rootOfBuckets(buckets, digest))
  const announced = entries.filter(entry => entry.seq > 0).sort((a, b) => a.seq - b.seq)
  t.deepEqual(store.feed(0, 1_000_000), announced)
  t.true(announced.every((entry, index) => index === 0 || entry.seq > (announced[index - 1] as Entry).seq))
  const unreal = entries.filter(entry => isUnshown(entry) && !entry.pending)
  for (const { known } of unreal) {
    const { hash } = known.content as FileContent
    const paths = unreal.filter(other => (other.known.content as FileContent).hash === hash).map(other => other.path)
    t.deepEqual(store.unrealWithHash(hash, 1000), paths)
  }
  t.deepEqual(
    store.pendingPage(null, 1000),
    entries.filter(entry => entry.pending).map(entry => entry.path),
  )
}

/** Declares the suite's tests for one kind of tables. */
export function acceptStore(kind: string, makeRig: () => StoreRig): void {
  const accept = (title: string, body: (t: ExecutionContext, store: Store, rig: StoreRig) => void | Promise<void>) =>
    test(`${kind}: ${title}`, async t => {
      const rig = makeRig()
      try {
        await body(t, openOn(await rig.open()), rig)
      } finally {
        await rig.cleanUp()
      }
    })

  accept('an entry is found as it was put', (t, store) => {
    const entry = makeEntry('a/b', two, { have: one, pending: true, origin: peerId('B'), former: one })
    put(store, true, entry)
    t.deepEqual(store.entry(path('a/b')), { ...entry, seq: 1 })
    t.is(store.entry(path('a')), undefined)
    assertDerived(t, store)
  })

  accept('marks are kept in tree order, replaced, taken away, and found again', async (t, store, rig) => {
    store.transact(writer => {
      writer.putMark(path('b'), 'unreal')
      writer.putMark(path('a b/c'), 'pinned')
      writer.putMark(path('a/é'), 'real')
      writer.putMark(path('a'), 'pinned')
    })
    store.transact(writer => {
      writer.putMark(path('b'), 'real')
      writer.putMark(path('a/é'), null)
      writer.putMark(path('never'), null)
    })
    const marks = [
      ['a', 'pinned'],
      ['a b/c', 'pinned'],
      ['b', 'real'],
    ]
    t.deepEqual(store.marks() as unknown, marks)
    const again = openOn(await rig.open())
    t.deepEqual(again.marks() as unknown, marks)
    assertDerived(t, again)
  })

  accept('leases are kept by peer and path, and files about to be left beside them', async (t, store, rig) => {
    const long = path(`${'n'.repeat(250)}/`.repeat(7) + 'n'.repeat(143))
    const leases = [
      { peer: null, path: path('a/b'), hash: hash('a') },
      { peer: peerId('B'), path: path('a/b'), hash: hash('a') },
      { peer: peerId('C'), path: path('a/b'), hash: hash('a') },
      { peer: peerId('C'), path: long, hash: hash('b') },
    ]
    store.transact(writer => {
      for (const lease of leases) writer.putLease(lease)
      writer.putLease({ peer: peerId('D'), path: path('a'), hash: hash('a') })
    })
    store.transact(writer => writer.removeLease({ peer: peerId('D'), path: path('a'), hash: hash('a') }))
    t.deepEqual(openOn(await rig.open()).leases(), leases)
  })

  accept('a transaction that throws leaves no trace', (t, store) => {
    put(store, true, makeEntry('a', one))
    const before = store.state()
    const error = t.throws(() =>
      store.transact(writer => {
        writer.putEntry(makeEntry('a', deleted, { have: null, pending: true }), true)
        writer.putEntry(makeEntry('b', two), true)
        writer.nextCount()
        writer.addHistory(event('b'))
        writer.putLeaves(hash('a'), new Uint8Array(64))
        writer.putPeer(peerId('B'), { read: null, acknowledged: null })
        writer.putMark(path('a'), 'unreal')
        writer.putLease({ peer: null, path: path('a'), hash: hash('a') })
        writer.setState({ scanned: true })
        throw new Error('no')
      }),
    )
    t.is(error?.message, 'no')
    t.deepEqual(store.state(), before)
    t.deepEqual(store.entry(path('a'))?.known, one)
    t.is(store.entry(path('b')), undefined)
    t.is(store.leaves(hash('a')), undefined)
    t.deepEqual(store.marks(), [])
    t.deepEqual(store.leases(), [])
    t.is(store.peer(peerId('B')), undefined)
    t.deepEqual(store.history(100, 10), [])
    assertDerived(t, store)
    put(store, true, makeEntry('b', two))
    t.is(store.entry(path('b'))?.seq, 2)
    assertDerived(t, store)
  })

  accept('what a transaction has written it can read', (t, store) => {
    store.transact(writer => {
      writer.putEntry(makeEntry('a', one), true)
      t.deepEqual(store.entry(path('a'))?.known, one)
      t.is(store.state().seq, 1)
      writer.putEntry(makeEntry('a', two), true)
      t.deepEqual(pathsOf(store.feed(0, 10)), ['a'])
    })
    t.is(store.state().seq, 2)
    assertDerived(t, store)
  })

  accept('pages come in tree order, a folder before what is in it, from any place and under any folder', (t, store) => {
    const sorted = ['a', 'a/b', 'a/b/c', 'a/z', 'a!', 'a.b', 'ab', 'b', '가', '\ue000', '😀']
    put(store, true, ...sorted.toReversed().map(at => makeEntry(at, one)))
    t.deepEqual(pathsOf(store.page(null, 100, null)), sorted)
    t.deepEqual(pathsOf(store.page(path('a/b'), 3, null)), ['a/b/c', 'a/z', 'a!'])
    t.deepEqual(pathsOf(store.page(null, 100, path('a'))), ['a/b', 'a/b/c', 'a/z'])
    t.deepEqual(pathsOf(store.page(path('a/b'), 1, path('a'))), ['a/b/c'])
    t.deepEqual(pathsOf(store.page(path('a/z'), 9, path('a'))), [])
    t.deepEqual(pathsOf(store.page(null, 100, path('none'))), [])
    t.deepEqual(pathsOf(store.page(path('a/nothing here'), 2, null)), ['a/z', 'a!'])
    assertDerived(t, store)
  })

  accept('living things below a folder are seen, tombstones and siblings are not', (t, store) => {
    put(
      store,
      true,
      makeEntry('a', folder),
      makeEntry('a/x', deleted, { have: null }),
      makeEntry('a-b', one),
      makeEntry('ab', one),
    )
    t.false(store.hasLivingBelow(path('a')))
    put(store, true, makeEntry('a/deep/y', one))
    t.true(store.hasLivingBelow(path('a')))
    put(
      store,
      true,
      ...Array.from({ length: 130 }, (_, i) =>
        makeEntry(`many/${String(i).padStart(3, '0')}`, i < 129 ? deleted : one),
      ),
    )
    t.true(store.hasLivingBelow(path('many')))
  })

  accept('the feed has each entry once, at its last announcement', (t, store) => {
    put(store, true, makeEntry('a', one), makeEntry('b', one), makeEntry('c', one))
    put(store, true, makeEntry('a', two))
    put(store, false, makeEntry('b', two))
    t.deepEqual(
      store.feed(0, 10).map(entry => [entry.path as string, entry.seq]),
      [
        ['b', 2],
        ['c', 3],
        ['a', 4],
      ],
    )
    t.deepEqual(pathsOf(store.feed(2, 1)), ['c'])
    t.deepEqual(pathsOf(store.feed(4, 10)), [])
    t.is(store.state().seq, 4)
    assertDerived(t, store)
  })

  accept('what is not announced has no place in the feed', (t, store) => {
    put(store, false, makeEntry('a', one, { have: null, pending: true }))
    t.deepEqual(store.feed(0, 10), [])
    t.is(store.state().seq, 0)
    put(store, true, makeEntry('a', one))
    t.deepEqual(pathsOf(store.feed(0, 10)), ['a'])
    assertDerived(t, store)
  })

  accept('content is found by its hash, by what the disk shows and not by what is only known', (t, store) => {
    put(
      store,
      true,
      makeEntry('x', one),
      makeEntry('a/y', one),
      makeEntry('z', two, { have: one, pending: true }),
      makeEntry('w', one, { have: null, pending: true }),
    )
    t.deepEqual([...store.withHash(hash('a'), 10)].sort(), ['a/y', 'x', 'z'].map(path))
    t.is(store.withHash(hash('a'), 2).length, 2)
    t.deepEqual(store.withHash(hash('b'), 10), [])
    put(store, true, makeEntry('x', two), makeEntry('z', two), makeEntry('a/y', deleted, { stamp: null }))
    t.deepEqual(store.withHash(hash('a'), 10), [])
    t.deepEqual([...store.withHash(hash('b'), 10)].sort(), ['x', 'z'].map(path))
    const all = 'f'.repeat(64) as BlobHash
    put(
      store,
      true,
      makeEntry('edge', version(file('f'), { 1: 1 }, 1)),
      makeEntry('\u{10ffff}', version(file('f'), { 1: 1 }, 1)),
    )
    t.is(store.withHash(all, 10).length, 2)
  })

  accept(
    'files that are only known are found by their hash, until they are shown, on their way or gone',
    (t, store) => {
      const only = { have: null, stamp: null }
      put(
        store,
        true,
        makeEntry('b', one, only),
        makeEntry('a/c', one, only),
        makeEntry('d', two, only),
        makeEntry('e', one),
      )
      t.deepEqual(store.unrealWithHash(hash('a'), 9), [path('a/c'), path('b')])
      t.deepEqual(store.unrealWithHash(hash('a'), 1), [path('a/c')])
      assertDerived(t, store)
      put(
        store,
        false,
        makeEntry('a/c', one, { ...only, pending: true }),
        makeEntry('b', one),
        makeEntry('d', deleted, only),
      )
      t.deepEqual(store.unrealWithHash(hash('a'), 9), [])
      t.deepEqual(store.unrealWithHash(hash('b'), 9), [])
      assertDerived(t, store)
    },
  )

  accept('what is pending is listed in tree order until it is not', (t, store) => {
    put(store, false, ...['b', 'a/x', 'a'].map(at => makeEntry(at, two, { have: one, pending: true })))
    t.deepEqual(store.pendingPage(null, 10), ['a', 'a/x', 'b'].map(path))
    t.deepEqual(store.pendingPage(path('a'), 1), ['a/x'].map(path))
    put(store, true, makeEntry('a/x', two))
    t.deepEqual(store.pendingPage(null, 10), ['a', 'b'].map(path))
    assertDerived(t, store)
  })

  accept('conflict copies are listed while they live', (t, store) => {
    const copy = 'd/f.conflict-20250101-000000-AAAAAAA.txt'
    put(store, true, makeEntry(copy, one), makeEntry('d/f.txt', one))
    t.deepEqual(store.conflicts(10), [path(copy)])
    put(store, true, makeEntry(copy, deleted, { stamp: null }))
    t.deepEqual(store.conflicts(10), [])
    assertDerived(t, store)
  })

  const kept = (id: string, at: string, letter: string | null): Kept => ({
    id,
    path: path(at),
    hash: letter === null ? null : hash(letter),
    size: 1,
    mtimeNs: 5n,
    exec: false,
    keptMs: 7,
  })

  accept('versions are listed newest first, of one path or of all, and found by hash', (t, store) => {
    store.transact(writer => {
      writer.putKept(kept('001', 'a', 'a'))
      writer.putKept(kept('002', 'b', 'b'))
      writer.putKept(kept('003', 'a', null))
    })
    t.deepEqual(
      store.kept(null, 10).map(row => row.id),
      ['003', '002', '001'],
    )
    t.deepEqual(store.kept(path('a'), 10), [kept('003', 'a', null), kept('001', 'a', 'a')])
    t.deepEqual(
      store.kept(path('a'), 1).map(row => row.id),
      ['003'],
    )
    t.deepEqual(store.keptWithHash(hash('b')), kept('002', 'b', 'b'))
    store.transact(writer => {
      writer.putKept(kept('004', 'c', 'b'))
      writer.removeKept('002')
      writer.removeKept('none')
    })
    t.is(store.keptWithHash(hash('b'))?.id, '004')
    store.transact(writer => writer.removeKept('004'))
    t.is(store.keptWithHash(hash('b')), undefined)
    t.deepEqual(
      store.kept(null, 10).map(row => row.id),
      ['003', '001'],
    )
  })

  accept('more versions than one page are all listed', (t, store) => {
    store.transact(writer => {
      for (let i = 0; i < 1200; i++)
        writer.putKept(kept(String(i).padStart(5, '0'), i % 2 === 0 ? 'even' : 'odd', null))
    })
    t.is(store.kept(null, 10_000).length, 1200)
    t.is(store.kept(path('odd'), 10_000).length, 600)
    t.is(store.kept(path('odd'), 10_000)[0]?.id, '01199')
  })

  accept('intents stay until they are taken away', (t, store) => {
    const intent: Intent = {
      path: path('a/b'),
      slot: 's-1',
      source: null,
      ino: 2n ** 60n,
      formerIno: 0n,
      to: two,
      kept: kept('001', 'a/b', 'a'),
      copy: { path: path('a/b.conflict'), version: one },
      from: one,
    }
    store.transact(writer => writer.putIntent(intent))
    t.deepEqual(store.intents(), [intent])
    store.transact(writer => writer.removeIntent(path('a/b')))
    t.deepEqual(store.intents(), [])
  })

  accept('history is numbered and read newest first', (t, store) => {
    store.transact(writer => {
      for (const at of ['a', 'b', 'c']) writer.addHistory(event(at))
    })
    t.deepEqual(
      store.history(Number.MAX_SAFE_INTEGER, 2).map(row => [row.number, row.path as string]),
      [
        [3, 'c'],
        [2, 'b'],
      ],
    )
    t.deepEqual(store.history(2, 10), [{ ...event('a'), number: 1 }])
  })

  accept('history of several transactions is read from any number on, within a transaction as well', (t, store) => {
    const numbers = (before: number, limit: number) => store.history(before, limit).map(row => row.number)
    store.transact(writer => {
      for (const at of ['a', 'b', 'c', 'd']) writer.addHistory({ ...event(at), size: 7 })
    })
    store.transact(writer => {
      writer.addHistory({ ...event('e'), other: path('x') })
      t.deepEqual(numbers(100, 3), [5, 4, 3])
    })
    t.deepEqual(numbers(4, 2), [3, 2])
    t.deepEqual(numbers(6, 100), [5, 4, 3, 2, 1])
    t.deepEqual(numbers(1, 100), [])
    t.deepEqual(store.history(6, 2), [
      { ...event('e'), other: path('x'), number: 5 },
      { ...event('d'), size: 7, number: 4 },
    ])
    t.throws(() =>
      store.transact(writer => {
        writer.addHistory(event('f'))
        throw new Error('broken off')
      }),
    )
    t.deepEqual(numbers(100, 1), [5])
  })

  accept('a content is found at all of its paths, however many, while some of them come and go', (t, store) => {
    const paths = Array.from({ length: 12 }, (_, number) => `p${String(number).padStart(2, '0')}`)
    const content = one.content.type === 'file' ? one.content.hash : hash('a')
    const expected = new Set<string>()
    const check = (limit: number) => {
      const found = store.withHash(content, limit)
      t.is(found.length, Math.min(limit, expected.size))
      t.is(new Set(found).size, found.length)
      t.true(found.every(at => expected.has(at)))
    }
    for (const order of [paths, paths.toReversed(), [...paths.slice(5), ...paths.slice(0, 5)]]) {
      for (const at of order) {
        store.transact(writer => {
          writer.putEntry(makeEntry(at, one), true)
          expected.add(at)
          check(100)
        })
        check(3)
      }
      for (const at of [...order.slice(2), ...order.slice(0, 2)]) {
        put(store, true, makeEntry(at, deleted))
        expected.delete(at)
        check(100)
        check(5)
      }
    }
    assertDerived(t, store)
  })

  accept('leaf hashes are found by the blob’s name', (t, store) => {
    const leaves = new Uint8Array(96).fill(7)
    store.transact(writer => writer.putLeaves(hash('a'), leaves))
    t.deepEqual(Uint8Array.from(store.leaves(hash('a')) as Uint8Array), leaves)
    t.is(store.leaves(hash('b')), undefined)
  })

  accept('what is remembered of peers is by peer', (t, store) => {
    const record = {
      read: { replica: hexNext() as ReplicaId, session: hexNext() as SessionToken, seq: 9 },
      acknowledged: { replica: hexNext() as ReplicaId, ours: hexNext() as ReplicaId, seq: 3 },
    }
    store.transact(writer => {
      writer.putPeer(peerId('B'), record)
      writer.putPeer(peerId('C'), { read: null, acknowledged: null })
    })
    t.deepEqual(store.peer(peerId('B')), record)
    t.deepEqual(store.peers(), [peerId('B'), peerId('C')])
  })

  accept('a count is given once', (t, store) => {
    const counts: number[] = []
    store.transact(writer => counts.push(writer.nextCount(), writer.nextCount()))
    store.transact(writer => counts.push(writer.nextCount()))
    t.deepEqual(counts, [1, 2, 3])
    t.is(store.state().count, 3)
  })

  accept('each opening is a session, and all else is as it was', async (t, first, rig) => {
    put(first, true, makeEntry('a', one), makeEntry('d', folder), makeEntry('d/b', two, { have: one, pending: true }))
    put(first, true, makeEntry('a', deleted, { stamp: null }))
    first.transact(writer => {
      writer.setState({ scanned: true, disk: 'marker', durableSeq: 2 })
      writer.nextCount()
      writer.addHistory(event('a'))
    })
    const before = first.state()
    const entries = first.page(null, 100, null)
    const second = openOn(await rig.open())
    const after = second.state()
    t.is(after.sessions.length, before.sessions.length + 1)
    t.deepEqual(after.sessions.slice(0, -1), before.sessions)
    t.not(after.sessions.at(-1)?.token, before.sessions.at(-1)?.token)
    t.is(after.sessions.at(-1)?.firstSeq, before.seq)
    t.is(after.countAtOpening, before.count)
    t.deepEqual({ ...after, sessions: [], countAtOpening: 0 }, { ...before, sessions: [], countAtOpening: 0 })
    t.deepEqual(second.page(null, 100, null), entries)
    t.is(second.history(100, 10).length, 1)
    assertDerived(t, second)
  })

  accept('it says when what was written is durable', async (t, store) => {
    put(store, true, makeEntry('a', one))
    await new Promise<void>(done => store.flushed(done))
    t.is(store.state().seq, 1)
  })

  accept('what it keeps by itself fits its entries after many changes', (t, store) => {
    const contents = [one, two, folder, deleted, version({ type: 'symlink', target: 'x' }, { 2: 1 }, 1)]
    for (let i = 0; i < 400; i++) {
      const known = contents[(i * 7) % contents.length] as Version
      const have = contents[(i * 3) % contents.length] as Version
      const agrees = i % 3 === 0
      put(store, i % 2 === 0, makeEntry(`d${i % 5}/p${i % 37}`, known, agrees ? {} : { have, pending: true }))
    }
    assertDerived(t, store)
  })
}
