import test from 'ava'
import fc from 'fast-check'
import { conflictOrigin, conflictPath } from '../../actors/arena/conflict-name.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { MTIME_NS_MAX, MTIME_NS_MIN } from '../../protocol/limits.ts'
import { nameOf, pathFault } from '../../protocol/path.ts'
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

test('a copy of a copy without extension speaks of the copy, too', t => {
  const first = conflictPath('Makefile' as EntryPath, loser)
  const second = conflictPath(first, version(file('b', { mtimeNs: MTIME_NS }), { 1: 2 }, 1, 1))
  t.is<string, string>(second, 'Makefile.conflict-20240229-235958-AAAAAAA.conflict-20240229-235958-BBBBBBB')
  t.deepEqual(conflictOrigin(second), { path: first, author: author(1) })
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

test('a path of any length has a copy that every peer takes, through repeated conflicts, with its extension as long as there is room', t => {
  const name = fc.oneof(
    nameArbitrary,
    fc.integer({ min: 1, max: 255 }).map(length => `${'n'.repeat(Math.max(1, length - 4))}.txt`.slice(-length)),
  )
  const pathArbitrary = fc
    .array(name, { minLength: 1, maxLength: 20 })
    .map(names => names.join('/'))
    .filter(path => pathFault(path) === undefined)
  fc.assert(
    fc.property(pathArbitrary, fc.boolean(), (text, distinct) => {
      let copy = text as EntryPath
      for (let round = 0; round < 6; round++) {
        const next = conflictPath(copy, version(file('abcdef'[round] as string), { 1: round + 1 }, 1, round), distinct)
        t.is(pathFault(next), undefined, next)
        t.is(conflictOrigin(next)?.author, author(round))
        copy = next
      }
      const first = conflictPath(text as EntryPath, loser, distinct)
      if (Buffer.byteLength(text) < 1_800 && text.endsWith('.txt') && nameOf(text as EntryPath) !== '.txt')
        t.true(first.endsWith('.txt'), first)
    }),
    { numRuns: 400 },
  )
})

test('losers that are not the same content have different distinct names', t => {
  fc.assert(
    fc.property(nameArbitrary, name => {
      const names = ['a', 'b', 'c', '1', '2'].map(letter =>
        conflictPath(name as EntryPath, version(file(letter), { 1: 1 }, 1), true),
      )
      t.is(new Set(names).size, names.length)
    }),
  )
})
