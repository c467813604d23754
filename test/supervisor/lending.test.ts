/** Which arena is asked to lend what another one wants, and what becomes of one that does not answer. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import type { HasherPool } from '../../actors/hasher/pool.ts'
import type { ArenaName, Author, PeerId } from '../../protocol/ids.ts'
import type { ArenaSettings } from '../../protocol/ports.ts'
import { Arenas } from '../../supervisor/arenas.ts'
import { type Clock, systemClock } from '../../supervisor/clock.ts'
import { tree } from '../../supervisor/tree.ts'

const BOB = 'bob' as PeerId
const CAROL = 'carol' as PeerId
const LIMIT_MS = 60_000

function settingsOf(name: string, peers: PeerId[]): ArenaSettings {
  return {
    name: name as ArenaName,
    root: null,
    storePath: '/nowhere',
    mark: 'real',
    cache: { path: '/nowhere', max: { bytes: 0 }, leave: { bytes: 0 } },
    author: 'AAAAAAA' as Author,
    peers,
    ignore: [],
    conflicts: 'keep-both',
    versions: { keepMs: 1, bytesMax: 1 },
    guardDeletes: 0.5,
    rescanMs: 60_000,
    paused: false,
  }
}

async function run(t: ExecutionContext, settings: ArenaSettings[], clock: Clock = systemClock): Promise<Arenas> {
  const arenas = new Arenas({
    entry: new URL('./_lending-worker.js', import.meta.url),
    policy: tree.arena.policy,
    clock,
    // Nothing is hashed here.
    hasher: {} as HasherPool,
    started: () => {},
    changed: () => {},
    history: () => {},
    log: () => {},
    count: () => {},
  })
  t.teardown(() => arenas.stop())
  await arenas.setArenas(settings)
  await arenas.settled(LIMIT_MS)
  return arenas
}

/** What the arena `wanting` gets that has heard of content from these peers: the path of the lent file, or null. */
function borrow(arenas: Arenas, peers: PeerId[]): Promise<unknown> {
  return arenas.ask('wanting' as ArenaName, 'borrow', { hash: '0'.repeat(64), peers }, LIMIT_MS)
}

const wanting = settingsOf('wanting', [BOB, CAROL])

test('an arena that one of the peers may read lends; one that none of them may read is not asked', async t => {
  const arenas = await run(t, [wanting, settingsOf('private', [BOB])])
  t.is(await borrow(arenas, [CAROL]), null)
  t.is(await borrow(arenas, [CAROL, BOB]), '/private')
  t.is(await borrow(arenas, []), null)
})

test('an arena that is taken from the peer, or removed, lends nothing any more', async t => {
  const arenas = await run(t, [wanting, settingsOf('private', [BOB])])
  t.is(await borrow(arenas, [BOB]), '/private')
  await arenas.setArenas([wanting, settingsOf('private', [CAROL])])
  t.is(await borrow(arenas, [BOB]), null)
  t.is(await borrow(arenas, [CAROL]), '/private')
  await arenas.setArenas([wanting])
  t.is(await borrow(arenas, [CAROL]), null)
})

test('nothing is lent by the arena that wants it, nor by one that does not have it', async t => {
  t.is(await borrow(await run(t, [wanting]), [BOB]), null)
  const arenas = await run(t, [wanting, settingsOf('empty', [BOB]), settingsOf('full', [BOB])])
  t.is(await borrow(arenas, [BOB]), '/full')
})

test('an arena that does not answer keeps nobody waiting, and is not asked again for a while', async t => {
  let laterMs = 0
  const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + laterMs }
  const arenas = await run(t, [wanting, settingsOf('mute', [BOB])], clock)
  const asked = () => arenas.ask('mute' as ArenaName, 'asked', {}, LIMIT_MS)
  t.is(await borrow(arenas, [BOB]), null)
  t.is(await asked(), 1)
  t.is(await borrow(arenas, [BOB]), null)
  t.is(await asked(), 1)
  laterMs = 60_000
  t.is(await borrow(arenas, [BOB]), null)
  t.is(await asked(), 2)
})

test('an arena that dies of the question lends nothing', async t => {
  const arenas = await run(t, [wanting, settingsOf('dying', [BOB])])
  t.is(await borrow(arenas, [BOB]), null)
})

test('an arena that is removed while it is asked lends nothing', async t => {
  const arenas = await run(t, [wanting, settingsOf('mute', [BOB])])
  const borrowed = borrow(arenas, [BOB])
  while (arenas.actors.find(actor => actor.name === 'arena-mute')?.mailbox === 0) await nextTurn()
  await arenas.setArenas([wanting])
  t.is(await borrowed, null)
})
