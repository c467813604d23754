/** What an edit, a copy or a rename of a big file costs on the way between two real services, counted by a relay. */
import {
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Relay } from '../../bench/relay.ts'
import { noise } from '../hasher/_random.ts'
import { arenaName, freePort, Household } from './_household.ts'

const MIB = 1024 * 1024
const SECONDS = 120

interface Pair {
  /** In alice's root of an arena; and a place for what is written aside and renamed into it, as editors do. */
  there(name: string, arena?: string): string
  /** The same in bob's. */
  here(name: string, arena?: string): string
  aside: string
  /** Lets alice's user do something, and waits until bob has it: bytes that passed between them, both ways. */
  carried(change: () => void): Promise<number>
  /** Whether bob has the same as alice. */
  same(name: string, arena?: string): boolean
}

async function makePair(t: ExecutionContext, arenas = ['docs']): Promise<Pair> {
  const house = new Household(t)
  const [alice, bob] = await house.all('alice', 'bob')
  if (!alice?.port || !bob) throw new Error('two peers were made')
  const relay = await Relay.open(await freePort(), alice.port)
  t.teardown(() => relay.close())
  const { id: aliceId } = await alice.call('id', {})
  const { id: bobId } = await bob.call('id', {})
  for (const peer of [alice, bob]) for (const arena of arenas) await house.share(peer, arena)
  // Only bob can dial, and only through the relay.
  await alice.call('peer_add', { name: 'bob', id: bobId, addresses: [] })
  await bob.call('peer_add', { name: 'alice', id: aliceId, addresses: [`127.0.0.1:${relay.port}`] })
  for (const arena of arenas) await house.together([alice, bob], arena)
  const there = (name: string, arena?: string) => join(house.root(alice, arena), name)
  const here = (name: string, arena?: string) => join(house.root(bob, arena), name)
  return {
    there,
    here,
    aside: join(house.folder, 'aside'),
    same: (name, arena) => readFileSync(here(name, arena)).equals(readFileSync(there(name, arena))),
    async carried(change) {
      const before = relay.toTarget + relay.fromTarget
      change()
      // Alice looks at her disk before she agrees, so that bob has heard of the change by then.
      for (const peer of [alice, bob])
        for (const arena of arenas) await peer.call('wait', { arena: arenaName(arena), timeoutSeconds: SECONDS })
      return relay.toTarget + relay.fromTarget - before
    },
  }
}

test('an insertion at the head of 64 MiB and a megabyte overwritten cost what is new', async t => {
  const { there, aside, carried, same } = await makePair(t)
  const replace = (content: Uint8Array) => () => {
    writeFileSync(aside, content)
    renameSync(aside, there('big'))
  }
  const base = noise(64 * MIB, 1)
  const first = await carried(replace(base))
  t.true(same('big'))
  t.true(first > base.length && first < 1.02 * base.length, `${first} bytes for the file`)

  const inserted = await carried(replace(Buffer.concat([noise(17, 2), base])))
  t.true(same('big'))
  // Hashes of 513 leaves, 4 KiB of anchors, and what entries, states and TLS need.
  t.true(inserted < 64 * 1024, `${inserted} bytes for 17 inserted at the head`)

  const overwritten = await carried(() => {
    const file = openSync(there('big'), 'r+')
    writeSync(file, noise(MIB, 3), 0, MIB, 30 * MIB + 4321)
    closeSync(file)
  })
  t.true(same('big'))
  t.true(overwritten > MIB && overwritten < 1.05 * MIB, `${overwritten} bytes for a megabyte overwritten`)
})

test('of 64 MiB that are copied, renamed and edited, or brought back nothing is sent again', async t => {
  const { there, aside, carried, same } = await makePair(t)
  const base = noise(64 * MIB, 4)
  await carried(() => writeFileSync(there('big'), base))

  const copied = await carried(() => {
    copyFileSync(there('big'), aside)
    renameSync(aside, there('copy'))
  })
  t.true(same('copy'))
  t.true(copied < 64 * 1024, `${copied} bytes for a copy`)

  const edited = await carried(() => {
    renameSync(there('copy'), there('renamed'))
    const file = openSync(there('renamed'), 'r+')
    writeSync(file, noise(100, 5), 0, 100, 20 * MIB)
    closeSync(file)
  })
  t.true(same('renamed'))
  t.true(edited < 64 * 1024, `${edited} bytes for a file that was renamed and edited`)

  const restored = await carried(() => {
    rmSync(there('big'))
    writeFileSync(aside, base)
    renameSync(aside, there('renamed'))
  })
  t.true(same('renamed'))
  t.true(restored < 64 * 1024, `${restored} bytes for content that was replaced and deleted`)
})

test('of 64 MiB that another arena has nothing is sent again, and each arena has a file of its own', async t => {
  const { there, here, aside, carried, same } = await makePair(t, ['docs', 'more'])
  await carried(() => writeFileSync(there('big'), noise(64 * MIB, 6)))

  const copied = await carried(() => {
    copyFileSync(there('big'), aside)
    renameSync(aside, there('copy', 'more'))
  })
  t.log(`${copied} bytes for a file that another arena has`)
  t.true(same('copy', 'more'))
  t.true(copied < 100_000, `${copied} bytes for a file that another arena has`)
  const files = [statSync(here('big')), statSync(here('copy', 'more'))]
  t.deepEqual(
    files.map(({ nlink }) => nlink),
    [1, 1],
  )
  t.not(files[0]?.ino, files[1]?.ino)
})
