/** Both sides edit while apart: nothing is lost, all choose the same, and one command ends it. */
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { arenaName, Household } from './_household.ts'
import type { Peer } from './_peer.ts'
import { type Content, makeTree } from './_tree.ts'

const docs = arenaName('docs')

/** Two peers with a common tree; then both are stopped, each side changes its folder, and both come back and settle. */
async function apart(
  household: Household,
  start: Record<string, Content>,
  changes: { alice(root: string): void; bob(root: string): void },
): Promise<[Peer, Peer]> {
  const [alice, bob] = await household.couple()
  const still = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`still/${i}`, String(i)]))
  makeTree(household.root(alice), { ...still, ...start })
  await household.settled()
  await Promise.all([alice.stop(), bob.stop()])
  changes.alice(household.root(alice))
  changes.bob(household.root(bob))
  await Promise.all([alice.start(), bob.start()])
  await household.together([alice, bob])
  await household.settled()
  return [alice, bob]
}

/** Names and texts of all files at the top of a root whose name begins so. */
function texts(root: string, prefix: string): Record<string, string> {
  const names = readdirSync(root).filter(name => name.startsWith(prefix))
  return Object.fromEntries(names.sort().map(name => [name, readFileSync(join(root, name), 'utf8')]))
}

test.serial('edits of different files on both sides while apart are merged without a conflict', async t => {
  const household = new Household(t)
  const [alice, bob] = await apart(
    household,
    { a: 'a', b: 'b', 'gone by alice': 'x', 'gone by bob': 'y', 'folder/file': 'f' },
    {
      alice(root) {
        appendFileSync(join(root, 'a'), ' edited by alice')
        unlinkSync(join(root, 'gone by alice'))
        makeTree(root, { 'new/by alice': 'n', both: 'the same text' })
        renameSync(join(root, 'folder'), join(root, 'renamed by alice'))
      },
      bob(root) {
        appendFileSync(join(root, 'b'), ' edited by bob')
        unlinkSync(join(root, 'gone by bob'))
        makeTree(root, { 'new/by bob': 'n', both: 'the same text' })
        chmodSync(join(root, 'a'), 0o644)
      },
    },
  )
  const tree = await household.same(t)
  const names = [...tree.keys()].filter(path => !path.startsWith('still'))
  t.deepEqual(names, [
    'a',
    'b',
    'both',
    'new',
    'new/by alice',
    'new/by bob',
    'renamed by alice',
    'renamed by alice/file',
  ])
  for (const peer of [alice, bob]) t.is((await peer.arena('docs')).conflicts, 0)
})

for (const keep of ['winner', 'loser', 'both'] as const)
  test.serial(
    `a file edited on both sides has one winner and one copy on all peers, and keeping ${keep} ends it on all`,
    async t => {
      const household = new Household(t)
      const [alice, bob] = await apart(
        household,
        { 'plan.txt': 'common' },
        {
          alice: root => writeFileSync(join(root, 'plan.txt'), 'by alice'),
          bob: root => writeFileSync(join(root, 'plan.txt'), 'by bob, longer'),
        },
      )
      await household.same(t)
      const found = texts(household.root(alice), 'plan')
      t.is(Object.keys(found).length, 2, JSON.stringify(found))
      const winner = found['plan.txt']!
      const copy = Object.keys(found).find(name => name !== 'plan.txt')!
      t.regex(copy, /^plan\.conflict-\d{8}-\d{6}-[A-Z2-7]{7}\.txt$/)
      const loser = found[copy]!
      t.deepEqual([winner, loser].sort(), ['by alice', 'by bob, longer'])

      for (const peer of [alice, bob]) {
        t.is((await peer.arena('docs')).conflicts, 1)
        const { conflicts } = await peer.call('conflicts', { arena: docs })
        t.like(conflicts, [{ path: 'plan.txt', copy, size: loser.length }])
        t.is(conflicts.length, 1)
      }
      const listed = await bob.realize('conflicts', 'docs')
      t.is(listed.code, 0)
      t.true(listed.stdout.includes('plan.txt'))

      const resolved = await bob.realize('resolve', 'docs:plan.txt', '--keep', keep)
      t.is(resolved.code, 0, resolved.stderr)
      await household.same(t)
      const after = texts(household.root(alice), 'plan')
      t.is(after['plan.txt'], keep === 'loser' ? loser : winner)
      if (keep === 'both') t.deepEqual(Object.values(after).sort(), [winner, loser].sort())
      else t.deepEqual(Object.keys(after), ['plan.txt'])
      for (const peer of [alice, bob]) {
        await peer.untilArena('the conflict is over', 'docs', status => status.conflicts === 0)
        t.deepEqual((await peer.call('conflicts', { arena: docs })).conflicts, [])
      }
    },
  )

test.serial('a file edited on one side and deleted on the other keeps the edit', async t => {
  const household = new Household(t)
  await apart(
    household,
    { note: 'common', other: 'other' },
    {
      alice: root => writeFileSync(join(root, 'note'), 'edited by alice'),
      bob: root => unlinkSync(join(root, 'note')),
    },
  )
  const tree = await household.same(t)
  const kept = [...tree.keys()].filter(path => path.startsWith('note'))
  t.is(kept.length, 1, JSON.stringify(kept))
  t.is(readFileSync(join(household.root(household.peers[1]!), kept[0]!), 'utf8'), 'edited by alice')
})

test.serial('a file deleted on both sides is gone, without a conflict', async t => {
  const household = new Household(t)
  const [alice] = await apart(
    household,
    { note: 'common', other: 'other' },
    { alice: root => unlinkSync(join(root, 'note')), bob: root => unlinkSync(join(root, 'note')) },
  )
  t.false((await household.same(t)).has('note'))
  t.is((await alice.arena('docs')).conflicts, 0)
})

test.serial(
  'a file on one side and a folder on the other at one path: the folder stays, the file becomes a copy',
  async t => {
    const household = new Household(t)
    const [alice] = await apart(
      household,
      { other: 'other' },
      {
        alice: root => writeFileSync(join(root, 'thing'), 'a file by alice'),
        bob: root => makeTree(root, { 'thing/inside': 'a folder by bob' }),
      },
    )
    const tree = await household.same(t)
    t.is(tree.get('thing'), 'folder')
    t.is(readFileSync(join(household.root(alice), 'thing/inside'), 'utf8'), 'a folder by bob')
    const copies = [...tree.keys()].filter(path => path.startsWith('thing.conflict-'))
    t.is(copies.length, 1)
    t.is(readFileSync(join(household.root(alice), copies[0]!), 'utf8'), 'a file by alice')
  },
)

test.serial('a new file in a folder that the other side deleted brings the folder back for it', async t => {
  const household = new Household(t)
  const [, bob] = await apart(
    household,
    { 'folder/old': 'old', other: 'other' },
    {
      alice: root => writeFileSync(join(root, 'folder/new'), 'new by alice'),
      bob: root => rmSync(join(root, 'folder'), { recursive: true }),
    },
  )
  const tree = await household.same(t)
  t.true(tree.has('folder/new'))
  t.false(tree.has('folder/old'))
  t.is(readFileSync(join(household.root(bob), 'folder/new'), 'utf8'), 'new by alice')
})

test.serial('crossed moves of two folders lose nothing', async t => {
  const household = new Household(t)
  await apart(
    household,
    { 'a/in a': 'of a', 'b/in b': 'of b' },
    {
      alice: root => renameSync(join(root, 'a'), join(root, 'b/a')),
      bob: root => renameSync(join(root, 'b'), join(root, 'a/b')),
    },
  )
  const tree = await household.same(t)
  const files = [...tree.keys()].filter(path => /in [ab]$/.test(path)).map(path => path.slice(-4))
  t.deepEqual([...new Set(files)].sort(), ['in a', 'in b'])
})

test.serial('a conflict on a conflict copy keeps everything', async t => {
  const household = new Household(t)
  const [alice, bob] = await apart(
    household,
    { note: 'common' },
    {
      alice: root => writeFileSync(join(root, 'note'), 'alice 1'),
      bob: root => writeFileSync(join(root, 'note'), 'bob 1'),
    },
  )
  const copy = Object.keys(texts(household.root(alice), 'note')).find(name => name !== 'note')!
  await Promise.all([alice.stop(), bob.stop()])
  writeFileSync(join(household.root(alice), copy), 'alice 2')
  writeFileSync(join(household.root(bob), copy), 'bob 2')
  await Promise.all([alice.start(), bob.start()])
  await household.together([alice, bob])
  await household.same(t)
  const all = Object.values(texts(household.root(alice), 'note'))
  t.is(all.length, 3)
  t.true(all.includes('alice 2') && all.includes('bob 2'))
})

test.serial('three peers that all edited one file while apart agree on one winner and two copies', async t => {
  const household = new Household(t)
  const peers = await household.triangle()
  makeTree(household.root(peers[0]), { note: 'common' })
  await household.settled()
  await Promise.all(peers.map(peer => peer.stop()))
  for (const peer of peers) writeFileSync(join(household.root(peer), 'note'), `by ${peer.name}`)
  await Promise.all(peers.map(peer => peer.start()))
  await household.together(peers)
  await household.same(t)
  t.deepEqual(Object.values(texts(household.root(peers[2]), 'note')).sort(), ['by alice', 'by bob', 'by carol'])
  for (const peer of peers) t.is((await peer.call('conflicts', { arena: docs })).conflicts.length, 2)
})

test.serial('a winner that arrives while the user is editing the same file here loses neither', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  mkdirSync(join(household.root(alice), 'live'))
  for (let round = 0; round < 30; round++) {
    // Both write at once, connected, without waiting: each content must survive or have been seen by the one who replaced it.
    writeFileSync(join(household.root(alice), `live/${round}`), `alice ${round}`)
    mkdirSync(join(household.root(bob), 'live'), { recursive: true })
    writeFileSync(join(household.root(bob), `live/${round}`), `bob ${round}`)
  }
  const tree = await household.same(t)
  const contents = [...tree.keys()]
    .filter(path => path.startsWith('live/'))
    .map(path => readFileSync(join(household.root(bob), path), 'utf8'))
  for (let round = 0; round < 30; round++) {
    t.true(contents.includes(`alice ${round}`), `lost: alice ${round}`)
    t.true(contents.includes(`bob ${round}`), `lost: bob ${round}`)
  }
  t.true(existsSync(join(household.root(alice), 'live/0')))
})
