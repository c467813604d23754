import test from 'ava'
import fc from 'fast-check'
import type { Entry } from '../../actors/arena/store.ts'
import type { Version } from '../../actors/arena/version.ts'
import { fromWire, toWire } from '../../actors/arena/wire-entry.ts'
import { type ErrorCode, SyncError } from '../../protocol/error.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { VECTOR_MAX } from '../../protocol/limits.ts'
import { type WireEntry, wire } from '../../protocol/wire.ts'
import { author, file, hash, historyArbitrary, replica, version } from './_versions.ts'

const good: WireEntry = {
  path: 'folder/file' as EntryPath,
  type: 'file',
  size: 5,
  mtime: '1700000000123456789',
  exec: true,
  hash: hash('a'),
  vector: [
    [replica(1), 2],
    [replica(2), 1],
  ],
  g: 2,
  author: author(0),
  has: true,
}

function entryOf(known: Version, path = 'p'): Entry {
  return {
    path: path as EntryPath,
    seq: 1,
    known,
    have: known,
    stamp: null,
    dormant: false,
    origin: null,
    pending: false,
    announced: false,
    former: null,
  }
}

/** The way of an entry to another peer: its schema, then our checks. */
function received(entry: unknown): Version {
  const header = { type: 'feed', arena: 'a', source: replica(1), reader: replica(2), from: 0, to: 1, entries: [entry] }
  const parsed = wire.parse(JSON.parse(JSON.stringify(header)))
  if (parsed.type !== 'feed') throw new Error('not a feed')
  return fromWire(parsed.entries[0] as WireEntry, 'keep-both')
}

test('every version arrives as it was sent', t => {
  fc.assert(
    fc.property(historyArbitrary, history => {
      for (const { made } of history) t.deepEqual(received(toWire(entryOf(made))), made)
    }),
  )
  t.deepEqual(received(toWire(entryOf(version({ type: 'gone', deleted: hash('b') }, { 1: 1 }, 1.5)))).content, {
    type: 'gone',
    deleted: hash('b'),
  })
})

test('nanoseconds, also before 1970, and the greatest size arrive exactly', t => {
  for (const mtimeNs of [
    -2_208_988_800_000_000_000n,
    -1n,
    0n,
    1_700_000_000_123_456_789n,
    9_200_000_000_000_000_000n,
  ]) {
    const sent = version(file('a', { mtimeNs, size: 2 ** 41 }), { 1: 1 }, 1)
    t.deepEqual(received(toWire(entryOf(sent))), sent)
  }
})

test('what is not on this disk is announced without its content', t => {
  const known = version(file('a'), { 1: 2 }, 2)
  t.true(toWire(entryOf(known)).has)
  t.false(toWire({ ...entryOf(known), have: null }).has)
  t.false(toWire({ ...entryOf(known), have: version(file('b'), { 1: 1 }, 1) }).has)
})

test('unknown fields of a newer peer are ignored', t => {
  t.deepEqual(received({ ...good, colour: 'blue' }), received(good))
})

const refused = test.macro({
  exec(t, fields: Record<string, unknown>, code: ErrorCode) {
    t.notThrows(() => received(good))
    const error = t.throws(() => received({ ...good, ...fields }), { instanceOf: SyncError })
    t.is(error instanceof SyncError && error.code, code)
  },
  title: title => `refused: ${title}`,
})

const INVALID = 'message_invalid'
const without = (field: string) => ({ [field]: undefined })

test('a path that goes up', refused, { path: 'a/../../b' }, 'path_invalid')
test('an absolute path', refused, { path: '/etc/passwd' }, 'path_invalid')
test('a path into our own folder', refused, { path: '.Realize/staging/s' }, 'path_invalid')
test('a path with a NUL', refused, { path: 'a\0' }, 'path_invalid')
test('a path with a lone surrogate', refused, { path: 'a\udc00' }, 'path_invalid')
test('a name of 256 bytes', refused, { path: 'é'.repeat(128) }, 'path_invalid')
test('an endless path', refused, { path: 'x/'.repeat(100_000) }, INVALID)
test(
  'a path of thousands of folders',
  refused,
  { path: Array.from({ length: 900 }, () => 'x').join('/') },
  'path_invalid',
)
test('no path', refused, without('path'), INVALID)
test('an empty path', refused, { path: '' }, INVALID)
test('an unknown type', refused, { type: 'socket' }, INVALID)
for (const field of ['size', 'mtime', 'exec', 'hash']) test(`a file without ${field}`, refused, without(field), INVALID)
for (const size of [-1, 0.5, 2 ** 53, 1e300, null, '5'])
  test(`a size of ${JSON.stringify(size)}`, refused, { size }, INVALID)
for (const mtime of [
  '9200000000000000001',
  '-2208988800000000001',
  '9'.repeat(19),
  '9'.repeat(20),
  '1e3',
  '',
  '0x10',
  ' 1',
  5,
]) {
  test(`an mtime of ${JSON.stringify(mtime)}`, refused, { mtime }, INVALID)
}
for (const bad of ['a'.repeat(63), 'A'.repeat(64), 'g'.repeat(64), '../../../../etc/passwd']) {
  test(`a hash of ${bad.length} × ${bad[0]}`, refused, { hash: bad }, INVALID)
}
test('a link without target', refused, { type: 'symlink' }, INVALID)
test('a link with an empty target', refused, { type: 'symlink', target: '' }, INVALID)
test('a link target with a NUL', refused, { type: 'symlink', target: 'a\0b' }, INVALID)
test('a link target that is not Unicode', refused, { type: 'symlink', target: '\ud800' }, INVALID)
test('a link target of too many bytes', refused, { type: 'symlink', target: 'é'.repeat(2_048) }, INVALID)
test('no vector', refused, without('vector'), INVALID)
test('an empty vector', refused, { vector: [] }, INVALID)
test('a vector out of order', refused, { vector: [...good.vector].reverse() }, INVALID)
test('a replica named twice', refused, { vector: [good.vector[0], good.vector[0]] }, INVALID)
test(
  'a count of zero',
  refused,
  {
    vector: [
      [replica(1), 0],
      [replica(2), 9],
    ],
  },
  INVALID,
)
test('a negative count', refused, { vector: [[replica(1), -1]] }, INVALID)
test('a count of 2^53', refused, { vector: [[replica(1), 2 ** 53]] }, INVALID)
test('a replica that is none', refused, { vector: [['x'.repeat(16), 5]] }, INVALID)
test(
  'a vector of too many replicas',
  refused,
  {
    vector: Array.from({ length: VECTOR_MAX + 1 }, (_, index) => [index.toString(16).padStart(16, '0'), 1]),
  },
  INVALID,
)
test('a generation above what its vector counts', refused, { g: 4 }, INVALID)
test('a negative generation', refused, { g: -0.5 }, INVALID)
test('a generation that is no multiple of one half', refused, { g: 1.25 }, INVALID)
test('a generation beyond all counts', refused, { g: 1e300 }, INVALID)
test('an author that is none', refused, { author: '../evil' }, INVALID)
test('a remembered hash that is none', refused, { type: 'gone', deleted: 'x' }, INVALID)
test('no word on having it', refused, without('has'), INVALID)
