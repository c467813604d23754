/** What an arena does with a file that another arena of the same peer lends: the lender here is a file that the arena ignores. */
import test, { type ExecutionContext } from 'ava'
import { bytesOfLeaves } from '../../actors/peer/peer.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import type { FileRef } from '../../protocol/ports.ts'
import { noise } from '../hasher/_random.ts'
import { assertAgree, connect, disconnect, makeHousehold, makePair, type Peer, settle, type World } from './_pair.ts'

const LEAF = 128 * 1024
const LENT = 'lent'
const base = noise(40 * LEAF + 777, 1)

function lent(peer: Peer, content: Uint8Array): FileRef {
  peer.disk.writeFile(LENT, content)
  const stat = peer.disk.stat(LENT as EntryPath)
  if (stat?.type !== 'file') throw new Error('it was written just now')
  return { path: `/memory/${LENT}`, size: stat.size, mtimeNs: stat.mtimeNs, ino: stat.ino }
}

/** The peers agree, but for the file that was lent. */
function assertAgreeWithout(t: ExecutionContext, world: World, lender: Peer): void {
  if (lender.has(LENT)) lender.disk.remove(LENT)
  assertAgree(t, world)
}

/** Bytes of leaves that a peer asked for. */
function fetched(world: World, peer: Peer): number {
  return world.delivered.reduce(
    (sum, { from, header }) =>
      from === peer && header.type === 'fetch_leaves'
        ? sum + bytesOfLeaves(base.length, header.from, header.count)
        : sum,
    0,
  )
}

function saidTypes(world: World, peer: Peer): Set<string> {
  return new Set(world.delivered.filter(({ from }) => from === peer).map(({ header }) => header.type))
}

test('what is lent is copied, and no leaf is fetched', t => {
  const { world, a, b } = makePair({ ignore: [LENT] })
  const file = lent(b, base)
  b.lender = () => file
  a.write('big', base)
  settle(world)
  t.is(b.borrows.length, 1)
  t.like(b.entry('big')?.known.content, { hash: b.borrows[0]?.hash })
  t.is(fetched(world, b), 0)
  assertAgreeWithout(t, world, b)
})

test('of a lent file that is not what it should be only the leaves that fit are taken, and no peer hears of the others', t => {
  const { world, a, b } = makePair({ ignore: [LENT] })
  const other = Uint8Array.from(base)
  other.set(noise(10, 2), 7 * LEAF + 100)
  other.copyWithin(20 * LEAF, 20 * LEAF + 5, 22 * LEAF)
  const file = lent(b, other)
  b.lender = () => file
  a.write('big', base)
  settle(world)
  t.is(Buffer.compare(b.disk.readFile('big'), base), 0)
  t.is(fetched(world, b), 3 * LEAF)
  const said = saidTypes(world, b)
  t.false(said.has('fetch_anchors') || said.has('fetch_delta'))
  assertAgreeWithout(t, world, b)
})

test('a lent file that is edited or goes before it is copied is fetched instead', t => {
  for (const change of ['edited', 'gone'] as const) {
    const { world, a, b } = makePair({ ignore: [LENT] })
    const file = lent(b, base)
    b.lender = () => file
    let orders = 0
    b.beforePatch = () => {
      if (++orders > 1) return
      if (change === 'edited') b.disk.writeFile(LENT, noise(base.length, 3))
      else b.disk.remove(LENT)
    }
    a.write('big', base)
    settle(world)
    t.is(orders, 1, change)
    t.is(Buffer.compare(b.disk.readFile('big'), base), 0, change)
    t.is(fetched(world, b), base.length, change)
    assertAgreeWithout(t, world, b)
  }
})

test('what is not lent after all is taken from an older version', t => {
  const { world, a, b } = makePair()
  a.write('big', base)
  settle(world)
  const before = fetched(world, b)
  const target = Uint8Array.from(base)
  target.set(noise(10, 4), 3 * LEAF)
  a.write('big', target)
  settle(world)
  t.is(b.borrows.length, 2)
  t.is(Buffer.compare(b.disk.readFile('big'), target), 0)
  t.true(fetched(world, b) - before <= LEAF)
  assertAgree(t, world)
})

test('what this arena has itself is not borrowed', t => {
  const { world, a, b } = makePair()
  a.write('big', base)
  settle(world)
  a.write('copy', base)
  settle(world)
  t.is(b.borrows.length, 1)
  assertAgree(t, world)
})

test('only peers that have proven to have the content are named: not those that pass its entry on', t => {
  const { world, peers } = makeHousehold(3)
  const [a, b, c] = peers as [Peer, Peer, Peer]
  settle(world)
  disconnect(a, b)
  // Has the tree, and no room for the content; and whoever speaks of an entry says that it has it.
  c.disk.free = () => ({ freeBytes: 0, totalBytes: 1e12 })
  world.tamper = message => {
    if (message.type === 'send' && message.header.type === 'feed')
      for (const entry of message.header.entries) entry.has = true
  }
  a.write('big', base)
  settle(world)
  t.like(b.entry('big'), { pending: true })
  t.is(b.borrows.length, 0)
  connect(a, b)
  settle(world)
  t.deepEqual(
    b.borrows.map(({ peers: named }) => named),
    [[a.id]],
  )
  t.is(c.borrows.length, 0)
})
