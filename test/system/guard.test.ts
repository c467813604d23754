/**
 * A root that is missing, emptied or another one stops the arena and asks; nothing is deleted elsewhere. What `status` says
 * to do then is done here, and works. Volumes that go, fill up or cannot be written: guard-volume.test.ts.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { EntryPath } from '../../protocol/ids.ts'
import { Household } from './_household.ts'
import type { Peer } from './_peer.ts'
import { differences, makeTree, type Tree, treeOf } from './_tree.ts'

async function stocked(household: Household): Promise<[Peer, Peer, Tree]> {
  const [alice, bob] = await household.couple()
  makeTree(
    household.root(alice),
    Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`folder ${i % 4}/${i}`, `text ${i}`])),
  )
  await household.settled()
  return [alice, bob, treeOf(household.root(alice))]
}

/** Deletes everything in a root but our own folder, at one moment for its peer: a few deletions alone are nothing to ask about. */
async function empty(peer: Peer, root: string): Promise<void> {
  if (peer.isRunning) await peer.freeze()
  for (const name of readdirSync(root)) if (name !== '.realize') rmSync(join(root, name), { recursive: true })
  if (peer.isRunning) peer.signal('SIGCONT')
}

const stopped = (state: string) => state === 'guarded' || state === 'failed'

test.serial('a root that was emptied stops the arena and asks; arena resume goes on with the deletion', async t => {
  const household = new Household(t)
  const [alice, bob, before] = await stocked(household)
  await empty(bob, household.root(bob))
  await bob.realize('arena', 'rescan', 'docs')
  const status = await bob.untilArena('asks', 'docs', one => one.state === 'guarded')
  t.regex(status.reason!, /resume/)
  t.false(status.consensus)
  t.deepEqual(differences(before, treeOf(household.root(alice))), [])
  // Also after a restart.
  await bob.stop()
  await bob.start()
  await bob.untilArena('asks again', 'docs', one => one.state === 'guarded')
  t.deepEqual(differences(before, treeOf(household.root(alice))), [])

  const resumed = await bob.realize('arena', 'resume', 'docs')
  t.is(resumed.code, 0, resumed.stderr)
  await household.together([alice, bob])
  t.is((await household.same(t)).size, 0)

  // Who was asked was bob; what alice's disk gave up for it can be had back there.
  const { versions } = await alice.call('versions', { arena: status.name, path: 'folder 0/0' as EntryPath })
  const restored = await alice.realize('restore', 'docs:folder 0/0', '--version', versions[0]!.version)
  t.is(restored.code, 0, restored.stderr)
  t.deepEqual([...(await household.same(t)).keys()], ['folder 0', 'folder 0/0'])
  t.is(readFileSync(join(household.root(bob), 'folder 0/0'), 'utf8'), 'text 0')
})

test.serial('a small folder that is emptied is asked about, too; the last few files are not', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  const root = household.root(bob)
  makeTree(root, Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`${i}`, `text ${i}`])))
  await household.settled()
  await empty(bob, root)
  const status = await bob.untilArena('asks', 'docs', one => one.state === 'guarded')
  t.regex(status.reason!, /empty.*realize arena resume docs/)
  t.is(treeOf(household.root(alice)).size, 8)
  makeTree(root, { 0: 'text 0', 1: 'text 1', 2: 'text 2' })
  t.is((await bob.realize('arena', 'resume', 'docs')).code, 0)
  t.is((await household.same(t)).size, 3)
  await empty(bob, root)
  t.is((await household.same(t)).size, 0)
})

test.serial('a root that was emptied while the service was away is filled again by putting the files back', async t => {
  const household = new Household(t)
  const [alice, bob, before] = await stocked(household)
  await bob.stop()
  const aside = join(household.folder, 'aside')
  mkdirSync(aside)
  for (const name of readdirSync(household.root(bob)))
    if (name !== '.realize') renameSync(join(household.root(bob), name), join(aside, name))
  await bob.start()
  await bob.untilArena('asks', 'docs', one => one.state === 'guarded')
  t.deepEqual(differences(before, treeOf(household.root(alice))), [])
  for (const name of readdirSync(aside)) renameSync(join(aside, name), join(household.root(bob), name))
  t.is((await bob.realize('arena', 'resume', 'docs')).code, 0)
  await household.together([alice, bob])
  t.deepEqual(differences(before, await household.same(t)), [])
})

test.serial('a root that is missing deletes nothing elsewhere, and works again when it is back', async t => {
  const household = new Household(t)
  const [alice, bob, before] = await stocked(household)
  await bob.stop()
  const away = join(household.folder, 'unmounted')
  renameSync(household.root(bob), away)
  await bob.start()
  const status = await bob.untilArena('says that it is missing', 'docs', one => stopped(one.state))
  t.truthy(status.reason)
  t.false(existsSync(household.root(bob)), 'the root was made anew in place of the missing one')
  makeTree(household.root(alice), { 'made meanwhile': 'text' })
  await alice.call('rescan', { arena: status.name })
  t.deepEqual([...treeOf(household.root(alice)).keys()].sort(), [...before.keys(), 'made meanwhile'].sort())
  renameSync(away, household.root(bob))
  await household.together([alice, bob])
  const after = await household.same(t)
  t.is(after.size, before.size + 1)
})

test.serial('a root that goes missing while the service runs deletes nothing elsewhere', async t => {
  const household = new Household(t)
  const [alice, bob, before] = await stocked(household)
  const away = join(household.folder, 'unmounted')
  renameSync(household.root(bob), away)
  await bob.realize('arena', 'rescan', 'docs')
  await bob.untilArena('stops', 'docs', one => stopped(one.state))
  t.deepEqual(differences(before, treeOf(household.root(alice))), [])
  renameSync(away, household.root(bob))
  await bob.untilArena('works again', 'docs', one => !stopped(one.state))
  await household.together([alice, bob])
  t.deepEqual(differences(before, await household.same(t)), [])
})

test.serial(
  'another folder in place of the root stops the arena; it goes on by itself when the right one is back',
  async t => {
    const household = new Household(t)
    const [alice, bob, before] = await stocked(household)
    const root = household.root(bob)
    const away = join(household.folder, 'unmounted')
    const wrong = join(household.folder, 'wrong')
    await bob.stop()
    renameSync(root, away)
    makeTree(root, { 'of another disk': 'text' })
    await bob.start()
    const status = await bob.untilArena('stops', 'docs', one => one.state === 'guarded')
    t.regex(status.reason!, /not the one that was synced.*by itself.*realize arena resume docs/)
    t.deepEqual(differences(before, treeOf(household.root(alice))), [])
    t.deepEqual([...treeOf(root).keys()], ['of another disk'])
    renameSync(root, wrong)
    renameSync(away, root)
    await household.together([alice, bob])
    t.deepEqual(differences(before, await household.same(t)), [])

    // The same while the service runs, with the folder of another peer.
    renameSync(root, away)
    makeTree(wrong, { '.realize/marker': 'of somebody else' })
    renameSync(wrong, root)
    await bob.untilArena('stops', 'docs', one => one.state === 'guarded')
    t.deepEqual(differences(before, treeOf(household.root(alice))), [])
    renameSync(root, wrong)
    renameSync(away, root)
    await bob.untilArena('goes on', 'docs', one => one.state !== 'guarded')
    await household.together([alice, bob])
    t.deepEqual(differences(before, await household.same(t)), [])
  },
)

test.serial('arena resume begins anew with another folder: nothing is deleted, and what it holds is kept', async t => {
  const household = new Household(t)
  const [alice, bob, before] = await stocked(household)
  const root = household.root(bob)
  renameSync(root, join(household.folder, 'unmounted'))
  makeTree(root, { 'of another disk': 'text', 'folder 0/0': 'text 0', 'folder 1/1': 'older text' })
  await bob.realize('arena', 'rescan', 'docs')
  await bob.untilArena('stops', 'docs', one => one.state === 'guarded')
  const resumed = await bob.realize('arena', 'resume', 'docs')
  t.is(resumed.code, 0, resumed.stderr)
  await household.together([alice, bob])
  const after = await household.same(t)
  for (const path of before.keys()) t.true(after.has(path), `${path} is gone`)
  t.is(readFileSync(join(household.root(alice), 'of another disk'), 'utf8'), 'text')
  // What was newer is what it was; what the other folder had there is beside it.
  t.is(readFileSync(join(root, 'folder 1/1'), 'utf8'), 'text 1')
  const copies = [...after.keys()].filter(path => path.includes('.conflict-'))
  t.is(copies.length, 1, copies.join(' '))
  t.is(readFileSync(join(household.root(alice), copies[0]!), 'utf8'), 'older text')
  t.is(after.size, before.size + 2)
})

test.serial('arena resume looks for the folder at once, and says so if it is not there', async t => {
  const household = new Household(t)
  const [alice, bob, before] = await stocked(household)
  const root = household.root(bob)
  renameSync(root, join(household.folder, 'unmounted'))
  await bob.realize('arena', 'rescan', 'docs')
  const { reason } = await bob.untilArena('stops', 'docs', one => one.state === 'guarded')
  t.regex(reason!, /is (gone|missing)/)
  const refused = await bob.realize('arena', 'resume', 'docs')
  t.is(refused.code, 1)
  t.regex(refused.stderr, /is missing: put it back or make it/)
  mkdirSync(root)
  t.is((await bob.realize('arena', 'resume', 'docs')).code, 0)
  await household.together([alice, bob])
  t.deepEqual(differences(before, await household.same(t)), [])
})

test.serial('a folder of links and empty files is missed like any other', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  const root = household.root(bob)
  makeTree(root, { empty: '', link: { link: 'empty' }, folder: null })
  await household.settled()
  await bob.stop()
  rmSync(root, { recursive: true })
  mkdirSync(root)
  await bob.start()
  await bob.untilArena('stops', 'docs', one => one.state === 'guarded')
  t.is(treeOf(household.root(alice)).size, 3)
  t.is((await bob.realize('arena', 'resume', 'docs')).code, 0)
  await household.together([alice, bob])
  t.is((await household.same(t)).size, 3)
})

test.serial('a file or a link in place of the root stops the arena until the root is back', async t => {
  const household = new Household(t)
  const [alice, bob, before] = await stocked(household)
  const root = household.root(bob)
  const away = join(household.folder, 'away')
  const elsewhere = join(household.folder, 'elsewhere')
  mkdirSync(elsewhere)
  for (const [reason, put] of [
    [/is not a folder/, () => writeFileSync(root, 'a file')],
    [/not the one that was synced/, () => symlinkSync(elsewhere, root)],
    [/is missing/, () => symlinkSync(join(household.folder, 'nowhere'), root)],
  ] as const) {
    renameSync(root, away)
    put()
    await bob.realize('arena', 'rescan', 'docs')
    const status = await bob.untilArena(`stops: ${reason}`, 'docs', one => reason.test(one.reason ?? ''))
    t.is(status.state, 'guarded')
    t.false(status.consensus)
    t.deepEqual(differences(before, treeOf(household.root(alice))), [])
    rmSync(root)
    renameSync(away, root)
    await bob.untilArena('goes on', 'docs', one => !stopped(one.state))
    await household.together([alice, bob])
    t.deepEqual(differences(before, await household.same(t)), [])
  }
  t.deepEqual(readdirSync(elsewhere), [])
})

test.serial('a scan that would delete more than the set part stops and asks; a small deletion does not', async t => {
  const household = new Household(t)
  const [alice, bob] = await stocked(household)
  await bob.stop()
  rmSync(join(household.root(bob), 'folder 0'), { recursive: true })
  await bob.start()
  await household.together([alice, bob])
  t.false((await household.same(t)).has('folder 0'))
  await bob.stop()
  for (const folder of ['folder 1', 'folder 2']) rmSync(join(household.root(bob), folder), { recursive: true })
  await bob.start()
  const status = await bob.untilArena('asks', 'docs', one => one.state === 'guarded')
  t.truthy(status.reason)
  t.true(existsSync(join(household.root(alice), 'folder 1')))
})

test.serial('an arena that is removed deletes nothing, here or elsewhere', async t => {
  const household = new Household(t)
  const [alice, bob, before] = await stocked(household)
  t.is((await bob.realize('arena', 'remove', 'docs')).code, 0)
  await alice.untilArena('misses bob', 'docs', one => one.peers.every(peer => peer.reason !== null || !peer.consensus))
  rmSync(join(household.root(bob), 'folder 0'), { recursive: true })
  await alice.realize('arena', 'rescan', 'docs')
  t.deepEqual(differences(before, treeOf(household.root(alice))), [])
  t.is(treeOf(household.root(bob)).size, before.size - 11)
  // Taken up again it begins anew: what was deleted here meanwhile is not deleted elsewhere.
  await household.share(bob)
  await household.together([alice, bob])
  t.deepEqual(differences(before, await household.same(t)), [])
})
