/** Whatever a person does to files on one machine is done on the other, in both directions. */
import {
  appendFileSync,
  chmodSync,
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { arenaName, Household } from './_household.ts'
import type { Peer } from './_peer.ts'
import { randomBytesFrom } from './_random.ts'
import { type Content, differences, makeTree, treeOf } from './_tree.ts'

let undo: (() => unknown)[] = []
let household: Household
let alice: Peer
let bob: Peer
/** A test has failed: what comes after it gets services of its own. */
let failed = true

/** One couple serves all tests for as long as they pass. */
async function begin(t: ExecutionContext): Promise<void> {
  if (failed) {
    await end()
    household = new Household({ teardown: (one: () => unknown) => undo.unshift(one) })
    ;[alice, bob] = await household.couple()
    // Enough that never changes, so that no case deletes a great part of the arena.
    makeTree(
      household.root(alice),
      Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`still/${i}`, `still ${i}`])),
    )
    await household.settled()
    failed = false
  }
  household.explain(t)
  t.teardown(() => {
    failed = !t.passed
  })
}

async function end(): Promise<void> {
  for (const one of undo) await one()
  undo = []
}

test.after.always('the services end', end)

/** What is there before, made by one peer; and what the other does to it. */
interface Case {
  title: string
  start?: Record<string, Content>
  change(root: string): void
}

const NAME_OF_255_BYTES = `${'ü'.repeat(127)}x`

const cases: Case[] = [
  {
    title: 'a file, an empty file, an empty folder and a deep folder are created',
    change: root =>
      makeTree(root, { note: 'text', nothing: '', hollow: null, [`${'deep/'.repeat(30)}file`]: 'far below' }),
  },
  { title: 'a file is edited', start: { note: 'one' }, change: root => writeFileSync(join(root, 'note'), 'two') },
  {
    title: 'a file is appended to, another cut short, a third emptied',
    start: { log: 'line\n', long: 'x'.repeat(400_000), full: 'full' },
    change: root => {
      appendFileSync(join(root, 'log'), 'another line\n')
      truncateSync(join(root, 'long'), 150_000)
      truncateSync(join(root, 'full'), 0)
    },
  },
  {
    title: 'a few bytes inside a larger file are overwritten in place',
    start: { image: randomBytesFrom(1, 3_000_000) },
    change: root => {
      const fd = openSync(join(root, 'image'), 'r+')
      writeSync(fd, 'changed', 1_234_567)
      closeSync(fd)
    },
  },
  {
    title: 'a file gets other content of the same size and the same time',
    start: { note: 'before' },
    change: root => {
      const { atime, mtime } = lstatSync(join(root, 'note'))
      writeFileSync(join(root, 'note'), 'after!')
      utimesSync(join(root, 'note'), atime, mtime)
    },
  },
  {
    title: 'a file is deleted',
    start: { note: 'text', other: 'stays' },
    change: root => unlinkSync(join(root, 'note')),
  },
  {
    title: 'a folder with all that is in it is deleted',
    start: { 'folder/a/b/c': 'text', 'folder/d': '', 'folder/e': null, other: 'stays' },
    change: root => rmSync(join(root, 'folder'), { recursive: true }),
  },
  { title: 'an empty folder is deleted', start: { hollow: null }, change: root => rmdirSync(join(root, 'hollow')) },
  {
    title: 'a file is deleted and made again with other content',
    start: { note: 'first' },
    change: root => {
      unlinkSync(join(root, 'note'))
      writeFileSync(join(root, 'note'), 'second')
    },
  },
  {
    title: 'a file is renamed',
    start: { old: 'text' },
    change: root => renameSync(join(root, 'old'), join(root, 'new')),
  },
  {
    title: 'a file is renamed by case only',
    start: { readme: 'text' },
    change: root => renameSync(join(root, 'readme'), join(root, 'README')),
  },
  {
    title: 'a file moves up, another down, a third across',
    start: { 'a/up': 'up', down: 'down', 'a/across': 'across', b: null },
    change: root => {
      renameSync(join(root, 'a/up'), join(root, 'up'))
      renameSync(join(root, 'down'), join(root, 'a/down'))
      renameSync(join(root, 'a/across'), join(root, 'b/across'))
    },
  },
  {
    title: 'a folder with files is renamed, and moved into another',
    start: { 'old/a': 'a', 'old/b/c': 'c', 'old/empty': null, into: null },
    change: root => {
      renameSync(join(root, 'old'), join(root, 'new'))
      renameSync(join(root, 'new'), join(root, 'into/it'))
    },
  },
  {
    title: 'two files are swapped',
    start: { a: 'content of a', b: 'content of b, longer' },
    change: root => {
      renameSync(join(root, 'a'), join(root, 'c'))
      renameSync(join(root, 'b'), join(root, 'a'))
      renameSync(join(root, 'c'), join(root, 'b'))
    },
  },
  {
    title: 'a file becomes a folder',
    start: { thing: 'a file' },
    change: root => {
      unlinkSync(join(root, 'thing'))
      makeTree(root, { 'thing/inside/file': 'now below' })
    },
  },
  {
    title: 'a folder becomes a file',
    start: { 'thing/inside/file': 'below' },
    change: root => {
      rmSync(join(root, 'thing'), { recursive: true })
      writeFileSync(join(root, 'thing'), 'a file now')
    },
  },
  {
    title: 'a file becomes a symlink, and a symlink a file',
    start: { file: 'text', link: { link: 'file' } },
    change: root => {
      unlinkSync(join(root, 'file'))
      unlinkSync(join(root, 'link'))
      writeFileSync(join(root, 'link'), 'text of its own')
      symlinkSync('link', join(root, 'file'))
    },
  },
  {
    title: 'a folder becomes a symlink, and a symlink a folder',
    start: { 'folder/file': 'text', link: { link: 'folder' } },
    change: root => {
      rmSync(join(root, 'folder'), { recursive: true })
      unlinkSync(join(root, 'link'))
      makeTree(root, { 'link/file': 'text' })
      symlinkSync('link', join(root, 'folder'))
    },
  },
  {
    title: 'symlinks are made: to a file, to nothing, out of the tree, to itself',
    start: { file: 'text' },
    change: root =>
      makeTree(root, {
        good: { link: 'file' },
        dangling: { link: 'nowhere/at all' },
        outside: { link: '/etc/hostname' },
        loop: { link: 'loop' },
      }),
  },
  {
    title: 'a symlink gets another target',
    start: { link: { link: 'one' } },
    change: root => {
      unlinkSync(join(root, 'link'))
      symlinkSync('two', join(root, 'link'))
    },
  },
  {
    title: 'a file is made executable, and another no longer is',
    start: { script: '#!/bin/sh\n', tool: { run: '#!/bin/sh\n' } },
    change: root => {
      chmodSync(join(root, 'script'), 0o755)
      chmodSync(join(root, 'tool'), 0o644)
    },
  },
  {
    title: 'a file is touched only',
    start: { note: 'text' },
    change: root => utimesSync(join(root, 'note'), 1_600_000_000, 1_600_000_000.123456),
  },
  {
    title: 'a file gets a time before 1970, another one far ahead',
    start: { old: 'old', new: 'new' },
    change: root => {
      utimesSync(join(root, 'old'), -86_400, -86_400)
      utimesSync(join(root, 'new'), 4_000_000_000, 4_000_000_000)
    },
  },
  {
    title:
      'names have spaces, quotes, newlines, tabs, percent signs, backslashes, leading dashes and dots, and 255 bytes',
    change: root =>
      makeTree(root, {
        'two words': '1',
        ' leading and trailing ': '2',
        'with "double" and \'single\' quotes': '3',
        'line one\nline two': '4',
        'tab\there': '5',
        '100%s %20': '6',
        'back\\slash': '7',
        '-rf': '8',
        '--': '9',
        '...': '10',
        '$(touch x) `y` ; & | *?[a]': '11',
        '\u001b[31mred': '12',
        [NAME_OF_255_BYTES]: '13',
        [`${'d'.repeat(255)}/${'f'.repeat(255)}`]: '14',
        'emoji 🦊 日本語': '15',
      }),
  },
  {
    title: 'names differ by Unicode form only',
    start: { 'caf\u00e9': 'composed' },
    change: root => makeTree(root, { 'cafe\u0301': 'decomposed' }),
  },
  {
    title: 'a hard-linked pair is made, and edited through one of its names',
    start: { a: 'first' },
    change: root => {
      linkSync(join(root, 'a'), join(root, 'b'))
      appendFileSync(join(root, 'b'), ' and more')
    },
  },
  {
    title: 'a sparse file is made',
    change: root => {
      const fd = openSync(join(root, 'sparse'), 'w')
      writeSync(fd, 'head')
      ftruncateSync(fd, 5_000_000)
      writeSync(fd, 'tail', 4_999_000)
      closeSync(fd)
    },
  },
  {
    title: 'an editor saves by a temporary file, with a backup',
    start: { 'letter.txt': 'draft' },
    change: root => {
      writeFileSync(join(root, '.letter.txt.swp'), 'final')
      renameSync(join(root, 'letter.txt'), join(root, 'letter.txt~'))
      renameSync(join(root, '.letter.txt.swp'), join(root, 'letter.txt'))
    },
  },
  {
    title: 'a copy of a file is made beside it',
    start: { original: randomBytesFrom(2, 500_000) },
    change: root => writeFileSync(join(root, 'copy'), readFileSync(join(root, 'original'))),
  },
  {
    title: 'many files are made, edited and deleted in one go',
    start: Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`set/${i}`, `text ${i}`])),
    change: root => {
      for (let i = 0; i < 30; i++) unlinkSync(join(root, `set/${i}`))
      for (let i = 30; i < 60; i++) appendFileSync(join(root, `set/${i}`), 'more')
      for (let i = 60; i < 90; i++) renameSync(join(root, `set/${i}`), join(root, `set/renamed ${i}`))
      for (let i = 100; i < 150; i++) writeFileSync(join(root, `set/${i}`), `new ${i}`)
    },
  },
]

for (const { title, start, change } of cases)
  test.serial(title, async t => {
    await begin(t)
    const number = cases.findIndex(one => one.title === title)
    const directions = [
      { folder: `case ${number} by bob`, maker: alice, changer: bob },
      { folder: `case ${number} by alice`, maker: bob, changer: alice },
    ]
    for (const { folder, maker } of directions) {
      mkdirSync(join(household.root(maker), folder))
      makeTree(join(household.root(maker), folder), start ?? {})
    }
    await household.settled()
    const expected = directions.map(({ folder, changer }) => {
      change(join(household.root(changer), folder))
      return treeOf(join(household.root(changer), folder))
    })
    await household.settled()
    for (const [index, { folder, maker, changer }] of directions.entries()) {
      t.deepEqual(
        differences(expected[index]!, treeOf(join(household.root(changer), folder)), 'as made', changer.name),
        [],
      )
      t.deepEqual(differences(expected[index]!, treeOf(join(household.root(maker), folder)), 'as made', maker.name), [])
    }
  })

test.serial(
  'after all of that nothing is pending, nothing staged, nothing in conflict, and both trees are equal',
  async t => {
    await begin(t)
    const tree = await household.same(t)
    t.true(tree.size > 300)
    for (const peer of [alice, bob]) {
      const status = await peer.untilArena('is idle', 'docs', one => one.state === 'idle' && one.consensus)
      t.like(status, { reason: null, conflicts: 0, needFiles: 0, needBytes: 0 })
      // Names that differ only in case or form are worth a word, no more.
      t.deepEqual(
        status.problems.filter(problem => problem.note !== true),
        [],
      )
      t.deepEqual(household.staged(peer), [])
    }
  },
)

test.serial('a restart of both finds nothing to do', async t => {
  await begin(t)
  const before = treeOf(household.root(alice))
  await Promise.all([alice, bob].map(peer => peer.stop()))
  await Promise.all([alice, bob].map(peer => peer.start()))
  await household.together([alice, bob])
  const numbers = await Promise.all([alice, bob].map(lastEvent))
  await household.same(t)
  t.deepEqual(differences(before, treeOf(household.root(alice))), [])
  t.deepEqual(await Promise.all([alice, bob].map(lastEvent)), numbers)
})

async function lastEvent(peer: Peer): Promise<number> {
  const { events } = await peer.call('history', { arena: arenaName('docs'), limit: 1 })
  return events[0]!.number
}
