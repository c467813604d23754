/** What an edit of a big file costs on the way between two real services, counted by a relay. */
import { closeSync, openSync, readFileSync, renameSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { noise } from '../hasher/_random.ts'
import { arenaName, freePort, Household } from './_household.ts'
import { Relay } from './_proxy.ts'

const MIB = 1024 * 1024
const SECONDS = 120

test('an insertion at the head of 64 MiB, a megabyte overwritten and a little appended cost what is new', async t => {
  const house = new Household(t)
  const [alice, bob] = await house.all('alice', 'bob')
  if (!alice?.port || !bob) throw new Error('two peers were made')
  const relay = await Relay.open(await freePort(), alice.port)
  t.teardown(() => relay.close())
  const { id: aliceId } = await alice.call('id', {})
  const { id: bobId } = await bob.call('id', {})
  await house.share(alice)
  await house.share(bob)
  // Only bob can dial, and only through the relay.
  await alice.call('peer_add', { name: 'bob', id: bobId, addresses: [] })
  await bob.call('peer_add', { name: 'alice', id: aliceId, addresses: [`127.0.0.1:${relay.port}`] })
  await house.together([alice, bob])

  const there = join(house.root(alice), 'big')
  const here = join(house.root(bob), 'big')
  const carried = async (edit: () => void): Promise<number> => {
    const before = relay.toTarget + relay.fromTarget
    edit()
    await bob.untilArena('knows of the edit', 'docs', ({ bytes }) => bytes === statSync(there).size, SECONDS * 1000)
    await bob.call('wait', { arena: arenaName('docs'), timeoutSeconds: SECONDS })
    t.true(readFileSync(here).equals(readFileSync(there)))
    return relay.toTarget + relay.fromTarget - before
  }
  /** Written aside, as an editor does, so that it is there at once. */
  const replace = (content: Uint8Array) => () => {
    writeFileSync(join(house.folder, 'aside'), content)
    renameSync(join(house.folder, 'aside'), there)
  }
  const base = noise(64 * MIB, 1)
  const first = await carried(replace(base))
  t.true(first > base.length && first < 1.02 * base.length, `${first} bytes for the file`)

  const inserted = await carried(replace(Buffer.concat([noise(17, 2), base])))
  // Hashes of 513 leaves, 4 KiB of anchors, and what entries, states and TLS need.
  t.true(inserted < 64 * 1024, `${inserted} bytes for 17 inserted at the head`)

  const overwritten = await carried(() => {
    const file = openSync(there, 'r+')
    writeSync(file, noise(MIB, 3), 0, MIB, 30 * MIB + 4321)
    writeSync(file, noise(7, 4), 0, 7, 64 * MIB + 17)
    closeSync(file)
  })
  t.true(overwritten > MIB && overwritten < 1.05 * MIB, `${overwritten} bytes for a megabyte overwritten`)
})
