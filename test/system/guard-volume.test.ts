/** A volume that is unmounted, full or read-only: nothing is deleted elsewhere, `status` says why, and it goes on. Needs mounts. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import anyTest from 'ava'
import { Household } from './_household.ts'
import { mountFault, mountFolder, mountMemory, mountPoint, remount, unmount } from './_mount.ts'
import type { Peer } from './_peer.ts'
import { differences, makeTree, treeOf } from './_tree.ts'

const fault = mountFault()
const test = fault === null ? anyTest.serial : anyTest.serial.skip
if (fault !== null) process.stderr.write(`volumes cannot be tested here: ${fault}\n`)

/** alice has an arena in an ordinary folder, bob joins it with one that the test has mounted. */
async function pairWith(household: Household, root: string): Promise<[Peer, Peer]> {
  const [alice, bob] = (await household.all('alice', 'bob')) as [Peer, Peer]
  await household.share(alice)
  const { code } = await alice.call('invite', { arenas: [(await alice.arena('docs')).name] })
  await bob.call('join', { code, path: root })
  return [alice, bob]
}

test('a volume that is unmounted while the service runs deletes nothing elsewhere, and goes on when it is back', async t => {
  const household = new Household(t)
  const volume = join(household.folder, 'volume')
  mkdirSync(volume)
  const root = mountPoint(t, household.folder, 'bob-docs')
  mountFolder(volume, root)
  const [alice, bob] = await pairWith(household, root)
  makeTree(household.root(alice), Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`f/${i}`, `text ${i}`])))
  await household.together([alice, bob])
  const before = await household.same(t)

  unmount(root)
  await bob.realize('arena', 'rescan', 'docs')
  const status = await bob.untilArena('stops', 'docs', one => one.state === 'guarded')
  t.regex(status.reason!, /not the one that was synced.*another disk is mounted/)
  writeFileSync(join(household.root(alice), 'made meanwhile'), 'text')
  await alice.untilArena('sees it', 'docs', one => one.files === 31)
  t.deepEqual(readdirSync(root), [], 'something was written where the volume was not')

  mountFolder(volume, root)
  await bob.untilArena('goes on', 'docs', one => one.state !== 'guarded')
  await household.together([alice, bob])
  const after = await household.same(t)
  t.deepEqual(differences(before, after), [`"made meanwhile": left: nothing; right: ${after.get('made meanwhile')}`])
})

test('on a full volume what does not fit waits with its reason, the rest goes on, and all comes when there is room', async t => {
  const household = new Household(t)
  const root = mountPoint(t, household.folder, 'bob-docs')
  mountMemory(root, '4m')
  const [alice, bob] = await pairWith(household, root)
  makeTree(household.root(alice), { note: 'text', big: Buffer.alloc(8 * 1024 * 1024, 'big. ') })
  const status = await bob.untilArena(
    'says that it is full',
    'docs',
    one => one.problems.some(({ path }) => path === 'big') && one.files === 2,
  )
  t.regex(status.problems.find(({ path }) => path === 'big')!.reason, /no room.*make room/)
  t.false(status.consensus)
  const waited = await bob.realize('wait', 'docs', '--timeout', '1')
  t.is(waited.code, 3)
  t.regex(waited.stderr, /big/)
  // Small things still come and go.
  makeTree(household.root(alice), { 'another note': 'text' })
  writeFileSync(join(root, 'of bob'), 'text')
  await bob.untilArena('has the small ones', 'docs', one => one.files === 4 && one.needFiles === 1)
  await alice.untilArena('has that of bob', 'docs', one => one.files === 4 && one.needFiles === 0)
  t.is(readFileSync(join(root, 'another note'), 'utf8'), 'text')

  remount(root, 'size=64m')
  t.deepEqual([...(await household.same(t)).keys()].sort(), ['another note', 'big', 'note', 'of bob'])
})

test('a root that cannot be written says so, gives what it has, and takes the rest when it can be written', async t => {
  const household = new Household(t)
  const root = mountPoint(t, household.folder, 'bob-docs')
  mountMemory(root, '16m')
  makeTree(root, { 'of bob': 'text' })
  // Not even our own folder can be made there.
  remount(root, 'ro')
  const [alice, bob] = await pairWith(household, root)
  const first = await bob.untilArena(
    'says why',
    'docs',
    one => one.state === 'guarded' && /EROFS/.test(one.reason ?? ''),
  )
  t.regex(first.reason!, /read-only.*realize arena resume docs/i)
  const refused = await bob.realize('arena', 'resume', 'docs')
  t.is(refused.code, 1)
  t.regex(refused.stderr, /read-only/)
  await bob.untilArena('still says why', 'docs', one => one.state === 'guarded' && /EROFS/.test(one.reason ?? ''))
  remount(root, 'rw')
  t.is((await bob.realize('arena', 'resume', 'docs')).code, 0)
  await household.together([alice, bob])
  t.true((await household.same(t)).has('of bob'))

  remount(root, 'ro')
  makeTree(household.root(alice), { 'of alice': 'text' })
  rmSync(join(household.root(alice), 'of bob'))
  const status = await bob.untilArena(
    'says why',
    'docs',
    one => one.problems.some(({ path }) => path === 'of alice') && one.problems.some(({ path }) => path === 'of bob'),
  )
  for (const { path, reason } of status.problems) t.regex(reason, /EROFS|read-only/i, path)
  t.false(status.consensus)
  t.deepEqual([...treeOf(root).keys()], ['of bob'])
  remount(root, 'rw')
  t.deepEqual([...(await household.same(t)).keys()], ['of alice'])
})
