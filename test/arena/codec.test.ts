import test from 'ava'
import fc from 'fast-check'
import {
  packEntry,
  packIntent,
  packKept,
  packVersion,
  unpackEntry,
  unpackIntent,
  unpackKept,
  unpackVersion,
} from '../../actors/arena/codec.ts'
import { type Entry, type Intent, type Kept, NO_STAMP } from '../../actors/arena/store.ts'
import type { Version } from '../../actors/arena/version.ts'
import type { EntryPath, PeerId, ReplicaId } from '../../protocol/ids.ts'
import { file, hash, historyArbitrary, version } from './_versions.ts'

const path = (text: string) => text as EntryPath
const peer = Array.from({ length: 8 }, () => 'AAAAAAA').join('-') as PeerId
const older = version(file('a'), { 1: 1 }, 1)
const newer = version(file('b', { exec: true, mtimeNs: -5n, size: 2 ** 41 }), { 1: 2, 2: 7 }, 2.5, 1)

/** As the tables give it back: by structured clone, which is what LMDB's encoding amounts to. */
const stored = <T>(value: T): T => structuredClone(value)

const kept: Kept = {
  id: 'k-1',
  path: path('a/b'),
  hash: hash('c'),
  size: 9,
  mtimeNs: -1n,
  exec: true,
  keptMs: 1_700_000_000_000,
}

test('every version survives', t => {
  fc.assert(
    fc.property(historyArbitrary, history => {
      for (const { made } of history) t.deepEqual(unpackVersion(stored(packVersion(made))), made)
    }),
  )
  const remembering = version({ type: 'gone', deleted: hash('d') }, { 1: 1 }, 0.5)
  t.deepEqual(unpackVersion(stored(packVersion(remembering))), remembering)
})

test('every combination of what an entry may say survives', t => {
  const flag = fc.boolean()
  const stamp = fc.constantFrom(null, NO_STAMP, { size: 5, mtimeNs: 7n, ctimeNs: 2n ** 62n, ino: 2n ** 63n })
  fc.assert(
    fc.property(
      flag,
      flag,
      flag,
      stamp,
      fc.constantFrom('known', 'other', null),
      fc.constantFrom(peer, null),
      flag,
      fc.nat(),
      (dormant, pending, announced, how, have, origin, former, seq) => {
        const entry: Entry = {
          path: path('p'),
          seq,
          known: newer,
          have: have === 'known' ? newer : have === null ? null : older,
          stamp: how,
          dormant,
          pending,
          announced,
          origin,
          former: former ? older : null,
        }
        const unpacked = unpackEntry(entry.path, stored(packEntry(entry)))
        t.deepEqual(unpacked, entry)
        t.is(unpacked.have === unpacked.known, have === 'known', 'agreeing is being the same object')
      },
    ),
  )
})

test('whatever an entry holds survives: many counts, long texts, great numbers, no counts at all', t => {
  const many = Array.from({ length: 1000 }, (_, number): [ReplicaId, number] => [
    number.toString(16).padStart(16, '0') as ReplicaId,
    2 ** 40 - number,
  ])
  const versions: Version[] = [
    { content: { type: 'symlink', target: 'é'.repeat(2000) }, vector: many, g: 2 ** 51 + 0.5, author: newer.author },
    { content: { type: 'gone', deleted: hash('e') }, vector: [], g: 0.5, author: newer.author },
    { content: { type: 'gone', deleted: null }, vector: many.slice(0, 128), g: 0, author: newer.author },
    { content: { type: 'dir' }, vector: many.slice(0, 1), g: 1, author: newer.author },
    ...[0, 127, 128, 2 ** 32, 2 ** 41, Number.MAX_SAFE_INTEGER].map(size =>
      version(file('a', { size }), { 1: size }, 1),
    ),
    // Years that are no 64-bit number of nanoseconds; some disks know them.
    ...[-(2n ** 63n), 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n].map(mtimeNs =>
      version(file('a', { mtimeNs }), { 1: 1 }, 1),
    ),
  ]
  const none = { path: path('p'), dormant: false, pending: true, announced: false, stamp: null, origin: null }
  for (const known of versions) {
    for (const other of [...versions, null]) {
      const entry: Entry = { ...none, seq: 2 ** 50, known, have: other, former: other }
      t.deepEqual(unpackEntry(entry.path, stored(packEntry(entry))), entry)
    }
  }
  const far = { size: 1, mtimeNs: 2n ** 63n, ctimeNs: 5n, ino: 2n ** 64n - 1n }
  const entry: Entry = { ...none, seq: 1, known: newer, have: older, former: null, stamp: far }
  t.deepEqual(unpackEntry(entry.path, stored(packEntry(entry))), entry)
})

test('entries of a store of an earlier version are read', t => {
  const row = [1, 7, packVersion(newer), null, [5, 7n, 8n, 9n], peer, packVersion(older)]
  t.deepEqual(unpackEntry(path('p'), stored(row)), {
    path: path('p'),
    seq: 7,
    known: newer,
    have: newer,
    stamp: { size: 5, mtimeNs: 7n, ctimeNs: 8n, ino: 9n },
    dormant: false,
    pending: false,
    announced: false,
    origin: peer,
    former: older,
  })
})

test('a kept version survives, with and without a hash', t => {
  for (const row of [kept, { ...kept, hash: null, exec: false }])
    t.deepEqual(unpackKept(row.id, stored(packKept(row))), row)
})

test('every form of an intent survives', t => {
  const full: Intent = {
    path: path('p'),
    slot: 's-1',
    source: path('q'),
    ino: 2n ** 63n,
    formerIno: 5n,
    to: newer,
    kept,
    copy: { path: path('p.conflict'), version: older },
    from: older,
  }
  const bare: Intent = {
    path: path('p'),
    slot: null,
    source: null,
    ino: 0n,
    formerIno: 0n,
    to: newer,
    kept: null,
    copy: null,
    from: null,
  }
  for (const intent of [full, bare, { ...full, copy: null }, { ...bare, kept }]) {
    t.deepEqual(unpackIntent(intent.path, stored(packIntent(intent))), intent)
  }
})
