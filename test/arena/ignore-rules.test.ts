import test from 'ava'
import { folderOfIgnoreFile, IgnoreRules, isIgnoreFile } from '../../actors/arena/ignore-rules.ts'
import type { EntryPath } from '../../protocol/ids.ts'

const path = (text: string) => text as EntryPath

const verdicts = test.macro((t, patterns: string[], cases: Record<string, boolean>) => {
  const rules = new IgnoreRules(patterns)
  for (const [text, ignored] of Object.entries(cases)) {
    const folder = text.endsWith('/')
    t.is(rules.ignores(path(folder ? text.slice(0, -1) : text), folder), ignored, text)
  }
})

test('a pattern without a slash is about any depth', verdicts, ['*.tmp'], {
  'a.tmp': true,
  'x/y/a.tmp': true,
  'a.tmp.txt': false,
})
test('a pattern with a slash is about its place', verdicts, ['/build', 'a/b'], {
  build: true,
  'x/build': false,
  'a/b': true,
  'x/a/b': false,
})
test('a pattern with a slash at its end is about folders', verdicts, ['cache/'], {
  'cache/': true,
  cache: false,
  'cache/x': true,
  'x/cache/y/z': true,
})
test('two stars reach over folders', verdicts, ['a/**/z', '**/logs'], {
  'a/z': true,
  'a/b/c/z': true,
  'b/z': false,
  'x/y/logs': true,
})
test('a later negation takes back', verdicts, ['*.log', '!keep.log'], {
  'a.log': true,
  'keep.log': false,
  'x/keep.log': false,
})
test('below an ignored folder nothing can be taken back', verdicts, ['out/', '!out/keep'], {
  'out/': true,
  'out/keep': true,
})
test('what is in a folder can be ignored but for some', verdicts, ['out/*', '!out/keep'], {
  'out/': false,
  'out/a': true,
  'out/keep': false,
})
test('comments and empty lines say nothing', verdicts, ['# a', '', '\\#real'], {
  '# a': false,
  a: false,
  '#real': true,
})
test('brackets and question marks', verdicts, ['[ab]?.x'], { 'a1.x': true, 'b2.x': true, 'c1.x': false, 'a.x': false })
test('names are told apart by case', verdicts, ['Thumbs.db'], { 'Thumbs.db': true, 'thumbs.db': false })
test('no patterns ignore nothing', verdicts, [], { a: false, 'b/': false })

test('a rule file speaks of its folder, and the deepest has the last word', t => {
  const rules = new IgnoreRules(['*.log'])
  t.true(rules.setFolder(path('a'), '!keep.log\nsecret'))
  t.true(rules.setFolder(path('a/b'), 'keep.log\n/top'))
  const ignored = (text: string) => rules.ignores(path(text), false)
  t.true(ignored('keep.log'))
  t.false(ignored('a/keep.log'))
  t.true(ignored('a/b/keep.log'))
  t.true(ignored('a/secret'))
  t.true(ignored('a/b/secret'))
  t.false(ignored('secret'))
  t.true(ignored('a/b/top'))
  t.false(ignored('a/b/c/top'))
})

test('rules are replaced and taken away', t => {
  const rules = new IgnoreRules(['a'])
  t.false(rules.empty)
  rules.configure([])
  t.true(rules.empty)
  t.false(rules.ignores(path('a'), false))
  rules.setFolder(undefined, 'b')
  t.true(rules.ignores(path('b'), false))
  t.true(rules.setFolder(undefined, null))
  t.false(rules.setFolder(undefined, null))
  t.true(rules.empty)
})

test('a rule file itself is never ignored, unless its folder is', t => {
  const rules = new IgnoreRules(['.*', 'out/'])
  t.false(rules.ignores(path('.realizeignore'), false))
  t.false(rules.ignores(path('a/.realizeignore'), false))
  t.true(rules.ignores(path('out/.realizeignore'), false))
  t.true(isIgnoreFile(path('a/.realizeignore')))
  t.false(isIgnoreFile(path('a/realizeignore')))
  t.is(folderOfIgnoreFile(path('a/.realizeignore')), path('a'))
})

test('what a walk asks of a child is what is asked of the whole path when no folder above is ignored', t => {
  const rules = new IgnoreRules(['*.log', '/a/x'])
  for (const text of ['a/x', 'a/y', 'a/b.log'])
    t.is(rules.ignoresChild(path(text), false), rules.ignores(path(text), false))
})

test('a rule that is no rule, as when a large file gets the name of a rule file, is not heeded, and the others are', t => {
  const rules = new IgnoreRules(['x'.repeat(200_000), 'b'])
  t.true(rules.setFolder(undefined, `${'f....'.repeat(50_000)}\na\n`))
  for (const [name, ignored] of [
    ['a', true],
    ['b', true],
    ['c', false],
    ['f....', false],
  ] as const)
    t.is(rules.ignores(name as EntryPath, false), ignored, name)
})
