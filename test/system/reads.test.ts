/**
 * Reading what is not real here, with real services, sockets and disks: what it costs, what it waits for, and who may go. Tests that look at
 * the clock run one after the other: relays are in this process, which stands still while another one writes its big files.
 */
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { Relay } from '../../bench/relay.ts'
import type { ControlResult } from '../../protocol/control.ts'
import { SyncError } from '../../protocol/error.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import { arenaName, Household, introduce } from './_household.ts'
import type { Peer } from './_peer.ts'

const MIB = 1024 * 1024
const DOCS = arenaName('docs')
/** A second is promised; a loaded machine may be slower, and whoever waits for a silent peer waits for 15 s. */
const AT_ONCE_MS_MAX = 5_000

/** `host` has an arena; `guest` dials it through a relay, and wants nothing of it real. */
async function farPair(t: ExecutionContext): Promise<{ house: Household; host: Peer; guest: Peer; relay: Relay }> {
  const house = new Household(t)
  const [host, guest, relay] = await house.relayed(t)
  await wantNothing(guest)
  return { house, host, guest, relay }
}

async function wantNothing(peer: Peer): Promise<void> {
  peer.editConfig(text => text.replace(/^\[\[arenas\]\]\n/m, '[[arenas]]\nmark = "unreal"\n'))
  await peer.call('config_reload', {})
}

/** Until the peer knows of a file of that size. */
async function knows(peer: Peer, bytes: number): Promise<void> {
  await peer.untilArena(`knows of ${bytes} bytes`, 'docs', status => status.bytes >= bytes)
}

async function read(peer: Peer, path: string, offset: number, length: number): Promise<Buffer> {
  const { data } = await peer.call('read', { arena: DOCS, path, offset, length, ahead: 0 })
  return Buffer.from(data, 'base64')
}

async function failure(work: Promise<unknown>): Promise<{ code: string; ms: number }> {
  const startMs = performance.now()
  try {
    await work
  } catch (error) {
    if (error instanceof SyncError) return { code: error.code, ms: performance.now() - startMs }
    throw error
  }
  return { code: 'none', ms: performance.now() - startMs }
}

test('cat of a part costs that part on the way, also for a big file, and the second time nothing', async t => {
  const { house, host, guest, relay } = await farPair(t)
  const content = randomBytes(64 * MIB)
  writeFileSync(join(house.root(host), 'film'), content)
  await knows(guest, content.length)
  await house.settled([host, guest])
  t.false(existsSync(join(house.root(guest), 'film')))
  const before = relay.fromTarget
  const offset = 40 * MIB + 1234
  const args = ['cat', 'docs:film', '--offset', `${offset}`, '--length', '5000', '--json']
  const first = await guest.realize(...args)
  t.is(first.code, 0, first.stderr)
  t.deepEqual(Buffer.from(JSON.parse(first.stdout).data, 'base64'), content.subarray(offset, offset + 5000))
  const cost = relay.fromTarget - before
  // One leaf, the hashes of all 512 of them, and what the connection says besides.
  t.log(`${cost} bytes for 5000 of ${content.length}`)
  t.true(cost >= LEAF_BYTES && cost < LEAF_BYTES + 100_000, `${cost} bytes`)
  relay.stall('fromTarget')
  relay.stall('toTarget')
  t.deepEqual(await read(guest, 'film', offset, 5000), content.subarray(offset, offset + 5000))
  relay.heal()
  const status = await guest.untilArena('tells what is cached', 'docs', arena => arena.cachedBytes > 0)
  t.is(status.cachedBytes, LEAF_BYTES)
})

test.serial('the first byte comes after about one round trip, though hashes and content are to be fetched', async t => {
  const { house, host, guest, relay } = await farPair(t)
  const content = randomBytes(4 * MIB)
  writeFileSync(join(house.root(host), 'film'), content)
  await knows(guest, content.length)
  await house.settled([host, guest])
  // Round trips so long that nothing else can be taken for one.
  relay.delayMs = 2_000
  const startMs = performance.now()
  t.deepEqual(await read(guest, 'film', MIB, 10), content.subarray(MIB, MIB + 10))
  const ms = performance.now() - startMs
  t.log(`${Math.round(ms)} ms with a round trip of 4000 ms`)
  t.true(ms >= 3_900 && ms < 7_900, `${ms} ms`)
})

test.serial('a read overtakes a big file that is on its way', async t => {
  const { house, host, guest, relay } = await farPair(t)
  await guest.call('mark', { arena: DOCS, path: 'big', mark: 'real' })
  const content = randomBytes(2 * MIB)
  writeFileSync(join(house.root(host), 'film'), content)
  await knows(guest, content.length)
  await house.settled([host, guest])
  relay.bytesPerSecond = 2 * MIB
  const big = 200 * MIB
  writeFileSync(join(house.root(host), 'big'), randomBytes(big))
  await guest.untilArena('fetches', 'docs', status => status.needBytes >= big)
  // Until it really comes.
  const before = relay.fromTarget
  await guest.untilArena('gets it', 'docs', () => relay.fromTarget > before + 4 * MIB)
  const startMs = performance.now()
  t.deepEqual(await read(guest, 'film', MIB, 10), content.subarray(MIB, MIB + 10))
  t.log(`${Math.round(performance.now() - startMs)} ms beside ${big / MIB} MiB at 2 MiB/s`)
  const { needBytes } = await guest.arena('docs')
  t.true(needBytes >= big, 'the big file is still on its way')
})

test.serial(
  'peers are killed in the middle of a read, others go on; with all gone it fails at once, what is cached is read, and back they serve',
  async t => {
    const house = new Household(t)
    const [alice, bob] = await house.couple()
    const carol = await house.peer('carol')
    await house.pair(alice, carol)
    await introduce(bob, carol)
    await introduce(carol, bob)
    await house.together([alice, bob, carol])
    await wantNothing(carol)
    const content = randomBytes(96 * MIB)
    writeFileSync(join(house.root(alice), 'film'), content)
    await house.settled([alice, bob, carol])
    t.true(existsSync(join(house.root(bob), 'film')))

    // One of both goes while the file is read, and the reader sees nothing of it.
    let position = 0
    let killed = false
    for (; position < 64 * MIB; position += MIB) {
      if (position === 16 * MIB) {
        void alice.kill()
        killed = true
      }
      const { data } = await carol.call('read', { arena: DOCS, path: 'film', offset: position, length: MIB })
      const right = Buffer.compare(Buffer.from(data, 'base64'), content.subarray(position, position + MIB)) === 0
      if (!right) return t.fail(`wrong bytes at ${position}`)
    }
    t.true(killed)

    await bob.kill()
    await carol.until('sees that they are gone', status => status.peers.every(peer => peer.state !== 'connected'))
    const gone = await failure(read(carol, 'film', 95 * MIB, 10))
    t.is(gone.code, 'unreachable')
    t.log(`said after ${Math.round(gone.ms)} ms that nobody has it`)
    t.true(gone.ms < AT_ONCE_MS_MAX)
    t.deepEqual(await read(carol, 'film', 3 * MIB, 100), content.subarray(3 * MIB, 3 * MIB + 100))

    // Also after the service itself was killed.
    await carol.untilArena('has noted it', 'docs', status => status.cachedBytes >= 64 * MIB)
    await carol.stop()
    await carol.start()
    t.deepEqual(await read(carol, 'film', 60 * MIB, 100), content.subarray(60 * MIB, 60 * MIB + 100))

    await bob.start()
    await house.together([bob, carol])
    t.deepEqual(await read(carol, 'film', 95 * MIB, 10), content.subarray(95 * MIB, 95 * MIB + 10))
  },
)

test.serial('a read that waits for a peer which is killed fails at once', async t => {
  const { house, host, guest, relay } = await farPair(t)
  writeFileSync(join(house.root(host), 'film'), randomBytes(4 * MIB))
  await knows(guest, 4 * MIB)
  await house.settled([host, guest])
  relay.stall('fromTarget')
  const waiting = failure(read(guest, 'film', 0, 10))
  // It has been asked for when the other end has heard of it.
  const asked = relay.toTarget
  for (let looks = 0; relay.toTarget === asked && looks < 1000; looks++) await guest.call('id', {})
  relay.refusing = true
  const startMs = performance.now()
  relay.cut()
  t.is((await waiting).code, 'unreachable')
  const ms = performance.now() - startMs
  t.log(`said after ${Math.round(ms)} ms`)
  t.true(ms < AT_ONCE_MS_MAX, `${ms} ms`)
})

test('fetch caches a folder wholly and tells how far it is; pinned is kept by itself; a removed arena leaves nothing in the cache', async t => {
  const { house, host, guest, relay } = await farPair(t)
  const root = house.root(host)
  for (let n = 0; n < 30; n++) writeFileSync(join(root, `small-${n}`), randomBytes(3000 + n))
  writeFileSync(join(root, 'big'), randomBytes(20 * MIB))
  const bytes = 20 * MIB + Array.from({ length: 30 }, (_, n) => 3000 + n).reduce((sum, size) => sum + size, 0)
  await knows(guest, bytes)
  await house.settled([host, guest])
  const seen: NonNullable<ControlResult<'status'>['arenas'][number]['fetching']>[] = []
  const watching = guest.until('tells how far it is', status => {
    const fetching = status.arenas[0]?.fetching
    if (fetching) seen.push(fetching)
    return seen.length > 0 && !fetching
  })
  // A few seconds' work: what is over between two statuses is seen by nobody.
  relay.bytesPerSecond = 5 * MIB
  const outcome = await guest.realize('fetch', 'docs')
  t.is(outcome.code, 0, outcome.stderr)
  t.regex(outcome.stdout, /31 files can be read here without a peer/)
  await watching
  t.true(seen.every(one => one.filesDone <= one.files && one.bytesDone <= one.bytes))
  t.is((await guest.untilArena('has all', 'docs', status => status.cachedBytes === bytes)).cachedBytes, bytes)

  relay.heal()
  await guest.call('mark', { arena: DOCS, path: 'kept', mark: 'pinned' })
  const kept = randomBytes(300_000)
  writeFileSync(join(root, 'kept'), kept)
  await guest.untilArena('has what is pinned', 'docs', status => status.cachedBytes === bytes + kept.length)
  relay.refusing = true
  relay.cut()
  await guest.until('is alone', status => status.peers.every(peer => peer.state !== 'connected'))
  t.deepEqual(await read(guest, 'kept', 0, kept.length), kept)

  const place = join(guest.home, 'cache', 'docs')
  t.true(readdirSync(place).length > 0)
  await guest.call('arena_remove', { name: DOCS })
  t.false(existsSync(place))
})
