import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { folderOfIgnoreFile, IgnoreRules, isIgnoreFile } from '../../actors/arena/ignore-rules.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { temporaryFolder } from '../_temp.ts'

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

// git is the oracle

const git = spawnSync('git', ['--version']).status === 0
const withGit = git ? test : test.skip

// Plain letters: to git `?` is a byte, to us a character.
const segment = fc.constantFrom('a', 'b', 'ab', 'A', 'x.o', 'y.tmp', '.h', 'a b')
const glob = fc.constantFrom('a', 'b', '*', 'a*', '*.o', '*.tmp', '?', '[ab]', '[!a]', '**', '.h', 'A', 'a\\ b', 'a?')
const ruleArbitrary = fc
  .tuple(
    fc.constantFrom('', '', '!'),
    fc.constantFrom('', '', '/'),
    fc.array(glob, { minLength: 1, maxLength: 3 }),
    fc.constantFrom('', '', '/'),
  )
  .map(([negation, anchor, parts, end]) => `${negation}${anchor}${parts.join('/')}${end}`)
  // What a rule of stars alone reaches is a matter of taste: git and its manual differ.
  .filter(rule => !/\*\*.*\*\*/.test(rule))
const treeArbitrary = fc.uniqueArray(
  fc.array(segment, { minLength: 1, maxLength: 3 }).map(names => names.join('/')),
  { minLength: 1, maxLength: 12 },
)

withGit(`random rules mean what git makes of them${git ? '' : ' (skipped: there is no git)'}`, t => {
  const folder = temporaryFolder(t)
  const run = (...args: string[]) =>
    spawnSync('git', ['-C', folder, '-c', 'core.quotePath=false', ...args], { encoding: 'utf8' })
  t.is(run('init', '-q').status, 0)
  run('config', 'core.excludesFile', join(folder, '.git', 'none'))
  run('config', 'core.ignoreCase', 'false')
  rmSync(join(folder, '.git', 'info'), { recursive: true, force: true })
  fc.assert(
    fc.property(
      fc.array(ruleArbitrary, { maxLength: 5 }),
      fc.array(ruleArbitrary, { maxLength: 3 }),
      treeArbitrary,
      (top, below, files) => {
        // A folder `a` with rules of its own; files that would be folders are left out.
        const paths = files.filter(one => one !== 'a' && !files.some(other => other.startsWith(`${one}/`)))
        for (const name of readdirSync(folder)) if (name !== '.git') rmSync(join(folder, name), { recursive: true })
        mkdirSync(join(folder, 'a'))
        writeFileSync(join(folder, '.gitignore'), `${top.join('\n')}\n`)
        writeFileSync(join(folder, 'a', '.gitignore'), `${below.join('\n')}\n`)
        for (const one of paths) {
          mkdirSync(dirname(join(folder, one)), { recursive: true })
          writeFileSync(join(folder, one), '')
        }
        const rules = new IgnoreRules([])
        rules.setFolder(undefined, top.join('\n'))
        rules.setFolder(path('a'), below.join('\n'))
        const said = spawnSync('git', ['-C', folder, 'check-ignore', '--no-index', '-z', '--stdin'], {
          encoding: 'utf8',
          input: paths.join('\0'),
        })
        t.true(said.status === 0 || said.status === 1, said.stderr)
        const ours = paths.filter(one => rules.ignores(path(one), false))
        t.deepEqual(
          ours,
          said.stdout.split('\0').filter(one => one !== ''),
          JSON.stringify({ top, below, paths }),
        )
      },
    ),
    { numRuns: 150 },
  )
})
