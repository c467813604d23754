import test from 'ava'
import fc from 'fast-check'
import {
  BUCKETS,
  bucketOf,
  DIGEST_BYTES,
  entryDigest,
  rootOfBuckets,
  sameDigest,
  toggle,
} from '../../actors/arena/merkle-set.ts'
import type { Version } from '../../actors/arena/version.ts'
import { engine } from '../../actors/hasher/engine.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { author, file, gone, version } from './_versions.ts'

const digest = (bytes: Uint8Array) => engine.hash256(0x10, bytes)
const path = (text: string) => text as EntryPath
const empty = () => new Uint8Array(BUCKETS * DIGEST_BYTES)
const base = version(file('a'), { 1: 1, 2: 3 }, 2)

function rootOf(entries: readonly (readonly [string, Version])[]): string {
  const buckets = empty()
  for (const [at, known] of entries) toggle(buckets, path(at), entryDigest(path(at), known, digest))
  return rootOfBuckets(buckets, digest)
}

const entriesArbitrary = fc
  .uniqueArray(fc.string({ minLength: 1 }), { maxLength: 40 })
  .map(paths =>
    paths.map((at, index) => [at, version(file('abcdef'[index % 6] as string), { 1: index + 1 }, 1)] as const),
  )

test('the digest of an entry is that of its path, type, content, vector and g as JSON', t => {
  const link: Version = version({ type: 'symlink', target: 'a "b"\n\\' }, { 1: 2 ** 40 }, 0.5)
  const cases: [string, Version, unknown[]][] = [
    ['a "quoted"\n\u0001é\\', base, []],
    ['link', link, ['a "b"\n\\']],
    ['folder', version({ type: 'dir' }, { 1: 1 }, 2 ** 51), []],
  ]
  for (const [at, known, what] of cases) {
    const { content, vector, g } = known
    const said =
      content.type === 'file' ? [content.hash, content.size, content.exec ? 1 : 0, `${content.mtimeNs}`] : what
    const json = JSON.stringify([at, content.type, said, vector, g])
    t.deepEqual(entryDigest(path(at), known, digest), digest(Buffer.from(json)))
  }
})

test('the root does not depend on the order of entries', t => {
  fc.assert(fc.property(entriesArbitrary, entries => rootOf(entries) === rootOf(entries.toReversed())))
  t.pass()
})

test('an entry that is put in and taken out leaves nothing', t => {
  fc.assert(fc.property(entriesArbitrary, entries => rootOf([...entries, ...entries]) === rootOf([])))
  t.is(rootOf([]), rootOfBuckets(empty(), digest))
})

test('one entry more, less or other is another root', t => {
  fc.assert(
    fc.property(
      entriesArbitrary.filter(entries => entries.length > 0),
      entries => {
        const [[at]] = entries as [readonly [string, Version]]
        const changed = entries.map(entry => (entry[0] === at ? ([at, base] as const) : entry))
        return rootOf(entries) !== rootOf(entries.slice(1)) && rootOf(entries) !== rootOf(changed)
      },
    ),
  )
  t.pass()
})

test('all that peers must agree on is in the digest of an entry', t => {
  const others: (readonly [string, string, Version])[] = [
    ['path', 'q', base],
    ['hash', 'p', { ...base, content: file('b') }],
    ['exec bit', 'p', { ...base, content: file('a', { exec: true }) }],
    ['mtime', 'p', { ...base, content: file('a', { mtimeNs: 1_000_000_001n }) }],
    ['type', 'p', { ...base, content: { type: 'dir' } }],
    ['target', 'p', { ...base, content: { type: 'symlink', target: 'x' } }],
    ['another target', 'p', { ...base, content: { type: 'symlink', target: 'y' } }],
    ['vector', 'p', { ...base, vector: version(file('a'), { 1: 1, 2: 4 }, 2).vector }],
    ['g', 'p', { ...base, g: 2.5 }],
  ]
  const seen = new Map([[rootOf([['p', base]]), 'the entry itself']])
  for (const [what, at, known] of others) {
    const root = rootOf([[at, known]])
    t.false(seen.has(root), `${what} is told from ${seen.get(root)}`)
    seen.set(root, what)
  }
  t.is(rootOf([['p', { ...base, author: author(5) }]]), rootOf([['p', base]]), 'the author is a name, not a content')
})

test('entries are spread over the buckets', t => {
  const buckets = new Set(Array.from({ length: 4000 }, (_, index) => bucketOf(path(`folder/file-${index}`))))
  t.is(buckets.size, BUCKETS)
  for (const bucket of buckets) t.true(Number.isInteger(bucket) && bucket >= 0 && bucket < BUCKETS)
})

test('versions are told to have the same digest exactly if they have it', t => {
  const link = { type: 'symlink', target: 't' } as const
  const contents = [
    file('a'),
    file('b'),
    file('a', { mtimeNs: 5n }),
    file('a', { exec: true }),
    { type: 'dir' } as const,
  ]
  const versions = [...contents, link, { ...link, target: 'u' }, gone].flatMap(content => [
    version(content, { 1: 1 }, 1),
    version(content, { 1: 1 }, 2),
    version(content, { 1: 2 }, 1),
    { ...version(content, { 1: 1 }, 1), author: author(3) },
  ])
  const hex = (of: Version) => Buffer.from(entryDigest(path('p'), of, digest)).toString('hex')
  for (const a of versions) for (const b of versions) t.is(sameDigest(a, b), hex(a) === hex(b))
})
