/** Real services whose arenas copy from one another: at once, and while what is copied is changed in the middle. */
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, renameSync, rmSync, watch, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { within } from '../_deadline.ts'
import { noise } from '../hasher/_random.ts'
import { arenaName, Household } from './_household.ts'
import type { Peer } from './_peer.ts'

const MIB = 1024 * 1024
const SECONDS = 120
const content = noise(64 * MIB, 1)

interface Stage {
  house: Household
  alice: Peer
  bob: Peer
}

/** Bob has the content in `docs`; alice puts it into `more`, and as soon as bob's `more` has begun with it something happens to it in `docs`. */
async function borrowed(t: ExecutionContext, change: (stage: Stage) => unknown): Promise<Stage> {
  const house = new Household(t)
  const [alice, bob] = await house.couple()
  for (const peer of [alice, bob]) await house.share(peer, 'more')
  await house.together([alice, bob], 'more')
  writeFileSync(join(house.root(alice), 'big'), content)
  await house.settled([alice, bob], 'docs', SECONDS)
  const aside = join(house.folder, 'aside')
  writeFileSync(aside, content)
  const watcher = watch(join(house.root(bob, 'more'), '.realize', 'staging'))
  t.teardown(() => watcher.close())
  const begun = once(watcher, 'change')
  renameSync(aside, join(house.root(alice, 'more'), 'big'))
  await within(SECONDS * 1000, 'bob begins with it', begun)
  await change({ house, alice, bob })
  await house.settled([alice, bob], 'more', SECONDS)
  t.true(readFileSync(join(house.root(bob, 'more'), 'big')).equals(content))
  return { house, alice, bob }
}

test('a file that is edited while another arena copies it is whole in both', async t => {
  const { house, alice, bob } = await borrowed(t, stage => {
    const file = openSync(join(stage.house.root(stage.bob), 'big'), 'r+')
    for (let at = 0; at < 64; at++) writeSync(file, noise(100, 2 + at), 0, 100, at * MIB)
    closeSync(file)
  })
  await house.settled([alice, bob], 'docs', SECONDS)
  const edited = Buffer.from(content)
  for (let at = 0; at < 64; at++) edited.set(noise(100, 2 + at), at * MIB)
  for (const peer of [alice, bob]) t.true(readFileSync(join(house.root(peer), 'big')).equals(edited), peer.name)
})

test('an arena that is removed, with all its files, while another one copies from it only ends the saving', async t => {
  const { house, alice } = await borrowed(t, async ({ house: whole, bob }) => {
    await bob.call('arena_remove', { name: arenaName('docs') })
    rmSync(whole.root(bob), { recursive: true })
  })
  t.true(readFileSync(join(house.root(alice), 'big')).equals(content))
})

test('two arenas that borrow from one another at once both end', async t => {
  const house = new Household(t)
  const [alice, bob] = await house.couple()
  for (const peer of [alice, bob]) await house.share(peer, 'more')
  await house.together([alice, bob], 'more')
  const arenas = ['docs', 'more']
  const settled = async () => {
    for (const arena of arenas) await house.settled([alice, bob], arena, SECONDS)
  }
  const part = (number: number) => content.subarray(number * 4 * MIB, (number + 1) * 4 * MIB)
  const place = (peer: Peer, arena: number, name: number) => join(house.root(peer, arenas[arena]), `file-${name}`)
  for (let name = 0; name < 8; name++) writeFileSync(place(alice, name % 2, name), part(name))
  await settled()
  for (let name = 0; name < 8; name++) writeFileSync(place(alice, 1 - (name % 2), name), part(name))
  await settled()
  for (let name = 0; name < 8; name++)
    for (const arena of [0, 1]) t.true(readFileSync(place(bob, arena, name)).equals(part(name)), `${name} in ${arena}`)
})
