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
import type { EntryPath, PeerId } from '../../protocol/ids.ts'
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
