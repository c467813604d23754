import test from 'ava'
import fc from 'fast-check'
import { conflictOrigin, conflictPath } from '../../actors/arena/conflict-name.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { MTIME_NS_MAX, MTIME_NS_MIN } from '../../protocol/limits.ts'
import { pathFault } from '../../protocol/path.ts'
import { author, file, version } from './_versions.ts'

const MTIME_NS = BigInt(Date.UTC(2024, 1, 29, 23, 59, 58)) * 1_000_000n + 999_999_999n
const loser = version(file('a', { mtimeNs: MTIME_NS }), { 1: 1 }, 1)

function nameFor(path: string, distinct = false): string {
  return conflictPath(path as EntryPath, loser, distinct)
}

test('the mark stands before the extension, in the folder of the path', t => {
  t.is(nameFor('notes.txt'), 'notes.conflict-20240229-235958-AAAAAAA.txt')
  t.is(nameFor('a/b.c/notes.txt'), 'a/b.c/notes.conflict-20240229-235958-AAAAAAA.txt')
  t.is(nameFor('archive.tar.gz'), 'archive.tar.conflict-20240229-235958-AAAAAAA.gz')
})

test('a name without extension, or that is nothing else, gets the mark at its end', t => {
  t.is(nameFor('Makefile'), 'Makefile.conflict-20240229-235958-AAAAAAA')
  t.is(nameFor('.bashrc'), '.bashrc.conflict-20240229-235958-AAAAAAA')
  t.is(nameFor('a.b/Makefile'), 'a.b/Makefile.conflict-20240229-235958-AAAAAAA')
  t.is(nameFor('ends.'), 'ends.conflict-20240229-235958-AAAAAAA.')
})

test('two losers of one second are told apart by eight digits of what they are', t => {
  t.is(nameFor('f.txt', true), 'f.conflict-20240229-235958-AAAAAAA-aaaaaaaa.txt')
  const link = (target: string) =>
    conflictPath('l' as EntryPath, version({ type: 'symlink', target }, { 1: 1 }, 1), true)
  t.not(link('x'), link('y'))
  t.regex(link('x'), /^l\.conflict-19700101-000000-AAAAAAA-[0-9a-f]{8}$/)
})

test('a copy of a copy speaks of the copy', t => {
  const first = conflictPath('f.txt' as EntryPath, loser)
  const second = conflictPath(first, version(file('b', { mtimeNs: MTIME_NS }), { 1: 2 }, 1, 1))
  t.is<string, string>(second, 'f.conflict-20240229-235958-AAAAAAA.conflict-20240229-235958-BBBBBBB.txt')
  t.deepEqual(conflictOrigin(second), { path: first, author: author(1) })
  t.deepEqual(conflictOrigin(first), { path: 'f.txt' as EntryPath, author: author(0) })
})

test('what is no conflict copy speaks of nothing', t => {
  for (const name of [
    'f.txt',
    'f.conflict-x.txt',
    '.conflict-20240229-235958-AAAAAAA',
    'conflict-20240229-235958-AAAAAAA.txt',
  ]) {
    t.is(conflictOrigin(name as EntryPath), undefined)
  }
})

const nameArbitrary = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 255 })
  .map(name => name.replaceAll('/', '_').replaceAll('\0', '_'))
  .filter(name => pathFault(name) === undefined)

test('the name of a copy is always one that a disk can hold, and the same whoever makes it', t => {
  fc.assert(
    fc.property(
      nameArbitrary,
      fc.bigInt({ min: MTIME_NS_MIN, max: MTIME_NS_MAX }),
      fc.boolean(),
      (name, mtimeNs, distinct) => {
        const lost = version(file('a', { mtimeNs }), { 1: 1 }, 1)
        const copy = conflictPath(name as EntryPath, lost, distinct)
        return (
          pathFault(copy) === undefined &&
          copy === conflictPath(name as EntryPath, { ...lost, vector: [...lost.vector] }, distinct) &&
          conflictOrigin(copy)?.author === lost.author
        )
      },
    ),
    { numRuns: 1000 },
  )
  t.pass()
})

test('a name that had room gives its path back', t => {
  fc.assert(
    fc.property(
      nameArbitrary.filter(name => Buffer.byteLength(name) < 200),
      fc.boolean(),
      (name, distinct) => conflictOrigin(`dir/${nameFor(name, distinct)}` as EntryPath)?.path === `dir/${name}`,
    ),
  )
  t.pass()
})

test('a stem that is too long loses whole characters, and an extension that is too long goes', t => {
  const emoji = nameFor(`${'😀'.repeat(62)}.txt`)
  t.true(emoji.isWellFormed())
  t.true(Buffer.byteLength(emoji) <= 255)
  t.true(emoji.endsWith('-AAAAAAA.txt'))
  const extension = nameFor(`a.${'x'.repeat(253)}`)
  t.true(Buffer.byteLength(extension) <= 255)
  t.is(extension, 'a.conflict-20240229-235958-AAAAAAA')
})
