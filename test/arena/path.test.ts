import test from 'ava'
import fc from 'fast-check'
import { SyncError } from '../../protocol/error.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { ancestorsOf, checkPath, foldName, isOwn, joinPath, nameOf, parentOf, pathFault } from '../../protocol/path.ts'

const path = (text: string) => text as EntryPath

const refused = test.macro({
  exec(t, text: string, reason: RegExp) {
    t.regex(pathFault(text) ?? '', reason)
    const error = t.throws(() => checkPath(text), { instanceOf: SyncError })
    t.is(error instanceof SyncError && error.code, 'path_invalid')
  },
  title: title => `refused: ${title}`,
})

test('the empty path', refused, '', /empty/)
test('an absolute path', refused, '/etc/passwd', /empty name/)
test('a slash at the end', refused, 'a/', /empty name/)
test('two slashes', refused, 'a//b', /empty name/)
test('one step up', refused, '../a', /'\.\.'/)
test('a step up in the middle', refused, 'a/../../b', /'\.\.'/)
test('a dot', refused, 'a/./b', /'\.'/)
test('a NUL', refused, 'a\0b', /NUL/)
test('a lone surrogate', refused, 'a\ud800', /Unicode/)
test('a name of 256 bytes', refused, 'n'.repeat(256), /255/)
test('a name of 64 four-byte characters', refused, '😀'.repeat(64), /255/)
test(
  'a path of 1901 bytes',
  refused,
  Array.from({ length: 20 }, () => 'n'.repeat(95))
    .join('/')
    .slice(0, 1901)
    .padEnd(1901, 'x'),
  /1900/,
)
test('257 folders deep', refused, Array.from({ length: 257 }, () => 'n').join('/'), /256/)
for (const own of [
  '.realize',
  '.Realize',
  '.REALIZE',
  '.ｒealize',
  '.rea\u200blize',
  '.real\u200dize',
  '\ufeff.realize',
  '.re\u202ealize',
]) {
  test(`our own folder, spelt ${JSON.stringify(own)}`, refused, own, /reserved/)
  test(`below our own folder, spelt ${JSON.stringify(own)}`, refused, `${own}/staging/x`, /reserved/)
}

test('names that other systems would refuse are names here', t => {
  const names = [
    'a\\b',
    '-rf',
    '%2e%2e',
    '"quoted"',
    'line\nbreak',
    'con',
    'aux.txt',
    'trailing.',
    ' ',
    '...',
    '.hidden',
    '\u202eevil',
    '~',
    '*',
  ]
  for (const name of names) t.is(pathFault(name), undefined, name)
})

test('our own name is only reserved at the top', t => {
  t.is(pathFault('sub/.realize'), undefined)
  t.is(pathFault('.realizeignore'), undefined)
  t.is(pathFault('.realize-not'), undefined)
})

test('the limits themselves are allowed', t => {
  t.is(pathFault('n'.repeat(255)), undefined)
  t.is(pathFault(Array.from({ length: 256 }, () => 'n').join('/')), undefined)
  t.is(pathFault(Array.from({ length: 20 }, () => 'n'.repeat(94)).join('/')), undefined)
})

test('a path that passes never leaves its root, whatever it is made of', t => {
  const part = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 8 }),
    fc.constantFrom('.', '..', '', '.realize', '\0', '\\'),
  )
  fc.assert(
    fc.property(fc.array(part, { maxLength: 5 }), parts => {
      const text = parts.join('/')
      if (pathFault(text) !== undefined) return true
      const names = text.split('/')
      return (
        !names.includes('..') &&
        !names.includes('.') &&
        !names.includes('') &&
        !text.includes('\0') &&
        !isOwn(names[0] as string)
      )
    }),
    { numRuns: 2000 },
  )
  t.pass()
})

test('names that a disk would merge have one fold', t => {
  t.is(foldName('Ärger'), foldName('A\u0308RGER'))
  t.is(foldName('ﬁle'), foldName('FILE'))
  t.not(foldName('a'), foldName('b'))
  fc.assert(fc.property(fc.string({ unit: 'grapheme' }), name => foldName(foldName(name)) === foldName(name)))
})

test('a path is put together and taken apart', t => {
  t.is(parentOf(path('a/b/c')), path('a/b'))
  t.is(parentOf(path('a')), undefined)
  t.is(nameOf(path('a/b')), 'b')
  t.is(joinPath(undefined, 'a'), path('a'))
  t.is(joinPath(path('a'), 'b'), path('a/b'))
  t.deepEqual(ancestorsOf(path('a/b/c')), [path('a'), path('a/b')])
  t.deepEqual(ancestorsOf(path('a')), [])
})

/** The same rules, said another way. */
function allowed(text: string): boolean {
  if (text.length === 0 || Buffer.from(text).toString() !== text || Buffer.from(text).includes(0)) return false
  if (Buffer.from(text).length > 1_900) return false
  const names = text.split('/')
  const plain = /^(?!\.{1,2}$)[^/]+$/s
  const own = (name: string) => foldName(name) === '.realize'
  return (
    names.length <= 256 &&
    names.every(name => plain.test(name) && Buffer.from(name).length <= 255) &&
    !own(names[0] ?? '')
  )
}

test('a path is refused exactly if it breaks a rule, and then as a SyncError that says which', t => {
  const part = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 6 }),
    fc.constantFrom('.', '..', '...', '', '.realize', '.REALIZE', '.Reali\u0137e', 'a', '\ud800', '\0', ' ', '\\'),
    fc.integer({ min: 250, max: 260 }).map(length => 'n'.repeat(length)),
    fc.integer({ min: 60, max: 66 }).map(length => '😀'.repeat(length)),
  )
  const texts = fc.oneof(
    fc.array(part, { maxLength: 9 }).map(parts => parts.join('/')),
    fc.integer({ min: 250, max: 260 }).map(depth => Array.from({ length: depth }, () => 'd').join('/')),
  )
  fc.assert(
    fc.property(texts, text => {
      const fault = pathFault(text)
      t.is(fault === undefined, allowed(text), `${JSON.stringify(text)}: ${fault}`)
      if (fault === undefined) t.is<string, string>(checkPath(text), text)
      else
        t.like(
          t.throws(() => checkPath(text), { instanceOf: SyncError }),
          { code: 'path_invalid', message: fault },
        )
    }),
    { numRuns: 3_000 },
  )
})

test('ancestors, parent and name of a path put it together again', t => {
  const names = fc.array(
    fc.string({ minLength: 1, maxLength: 5 }).map(name => name.replaceAll('/', '-')),
    {
      minLength: 1,
      maxLength: 6,
    },
  )
  fc.assert(
    fc.property(names, parts => {
      const whole = path(parts.join('/'))
      t.is(joinPath(parentOf(whole), nameOf(whole)), whole)
      t.deepEqual(
        ancestorsOf(whole),
        parts.slice(1).map((_, index) => path(parts.slice(0, index + 1).join('/'))),
      )
    }),
  )
})
