/** A root that is missing, emptied or another one stops the arena and asks; nothing is deleted elsewhere. */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
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

/** Deletes everything in a root but our own folder. */
function empty(root: string): void {
  for (const name of readdirSync(root)) if (name !== '.realize') rmSync(join(root, name), { recursive: true })
}

const stopped = (state: string) => state === 'guarded' || state === 'failed'

test.serial('a root that was emptied stops the arena and asks; arena resume goes on with the deletion', async t => {
  const household = new Household(t)
  const [alice, bob, before] = await stocked(household)
  empty(household.root(bob))
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

test.serial('another folder in place of the root, as an empty mount point is, stops the arena', async t => {
  const household = new Household(t)
  const [alice, bob, before] = await stocked(household)
  await bob.stop()
  renameSync(household.root(bob), join(household.folder, 'unmounted'))
  mkdirSync(household.root(bob))
  makeTree(household.root(bob), { 'of another disk': 'text' })
  await bob.start()
  const status = await bob.untilArena('stops', 'docs', one => stopped(one.state))
  t.truthy(status.reason)
  t.deepEqual(differences(before, treeOf(household.root(alice))), [])
  t.deepEqual([...treeOf(household.root(bob)).keys()], ['of another disk'])
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
