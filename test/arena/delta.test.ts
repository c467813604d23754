import test from 'ava'
import { bytesOfLeaves } from '../../actors/peer/peer.ts'
import type { PatchTask } from '../../protocol/ports.ts'
import { edited, noise } from '../hasher/_random.ts'
import { assertAgree, makeHousehold, makePair, type Peer, settle, type World } from './_pair.ts'

const LEAF = 128 * 1024

/** Content that came to a peer since then, bytes: payloads, and leaves that were asked for of a blob of this size. */
function received(world: World, peer: Peer, since: number, size: number): number {
  return world.delivered.slice(since).reduce((sum, { to, from, header, payloadBytes }) => {
    if (to === peer) return sum + payloadBytes
    return from === peer && header.type === 'fetch_leaves' ? sum + bytesOfLeaves(size, header.from, header.count) : sum
  }, 0)
}

function concat(...parts: Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts))
}

const base = noise(40 * LEAF + 777, 1)

/** `edit` on one side, with what it may cost on the way to the other. */
const carried = test.macro({
  title: (what = '') => `carried in few bytes: ${what}`,
  exec(t, target: Uint8Array, bytesMax: number) {
    const { world, a, b } = makePair()
    a.write('big', base)
    settle(world)
    const since = world.delivered.length
    a.write('big', target)
    settle(world)
    t.is(Buffer.compare(b.disk.readFile('big'), target), 0)
    const bytes = received(world, b, since, target.length)
    t.true(bytes <= bytesMax, `${bytes} bytes`)
    assertAgree(t, world)
  },
})

// The tree's leaf hashes that differ are 32 bytes each, of 41 leaves.
test('17 bytes inserted at the head', carried, concat(noise(17, 2), base), 8_000)
test(
  '17 bytes inserted in the middle',
  carried,
  concat(base.subarray(0, 20 * LEAF + 9), noise(17, 3), base.subarray(20 * LEAF + 9)),
  8_000,
)
test('17 bytes removed at the head', carried, base.slice(17), 8_000)
test('a byte changed', carried, concat(base.subarray(0, 1_000_000), Uint8Array.of(7), base.subarray(1_000_001)), 6_000)
test('a little appended', carried, concat(base, noise(100, 4)), 4_000)
test('cut in the middle of a leaf', carried, base.slice(0, 9 * LEAF + 5_000), 9_000)
test('halves swapped', carried, concat(base.subarray(2_000_001), base.subarray(0, 2_000_001)), 16_000)
test('a part copied to the front', carried, concat(base.subarray(3_000_000, 4_000_000), base), 30_000)
test(
  'a megabyte of new content inserted',
  carried,
  concat(base.subarray(0, 999), noise(1024 * 1024, 5), base.subarray(999)),
  1024 * 1024 + 40_000,
)
test(
  'edits of all kinds, of which a move leaves leaves of two pieces',
  carried,
  edited(base, [
    { do: 'insert', at: 0.05, bytes: noise(300, 6) },
    { do: 'remove', at: 0.15, length: 70_000 },
    { do: 'overwrite', at: 0.3, bytes: noise(9_000, 7) },
    { do: 'move', at: 0.4, length: 200_000, to: 0.9 },
    { do: 'insert', at: 0.8, bytes: noise(1, 8) },
  ]),
  240_000,
)

test('a file that has nothing of the former one is fetched, leaf by leaf', t => {
  const { world, a, b } = makePair()
  a.write('big', base)
  settle(world)
  const target = noise(20 * LEAF, 20)
  a.write('big', target)
  settle(world)
  t.is(Buffer.compare(b.disk.readFile('big'), target), 0)
  assertAgree(t, world)
})

test('an older version that changes while it is used does no harm', t => {
  const { world, a, b } = makePair()
  a.write('big', base)
  settle(world)
  let orders = 0
  b.beforePatch = () => {
    if (++orders === 2) b.disk.writeFile('big', noise(12 * LEAF, 30))
  }
  const target = concat(noise(17, 2), base)
  a.write('big', target)
  settle(world)
  t.true(orders >= 2)
  b.beforePatch = () => {}
  b.touch('big')
  settle(world)
  assertAgree(t, world)
  const held = [...Object.keys(b.tree())].map(path => b.disk.readFile(path))
  t.true(
    held.some(bytes => Buffer.compare(bytes, target) === 0),
    'what a wrote is there',
  )
  t.true(
    held.some(bytes => Buffer.compare(bytes, noise(12 * LEAF, 30)) === 0),
    'what b wrote is there',
  )
})

test('a file that is wanted no more while it is put together: its slot is not touched once the next one has its place', t => {
  const { world, a, b } = makePair()
  a.write('big', base)
  settle(world)
  const one = concat(noise(17, 2), base)
  const two = concat(noise(23, 3), base)
  let orders = 0
  b.beforePatch = () => {
    // Content that goes and comes while the orders of its first transfer are under way.
    if (++orders === 1) a.write('big', two)
    if (orders === 3) a.write('big', one)
  }
  a.write('big', one)
  settle(world)
  t.is(Buffer.compare(b.disk.readFile('big'), one), 0)
  assertAgree(t, world)
})

test('an answer that is wrong costs its leaves, not the content', t => {
  const { world, a, b } = makePair()
  a.write('big', base)
  settle(world)
  const spoilt: string[] = []
  world.tamper = message => {
    if (message.type !== 'send' || !message.payload) return
    const { type } = message.header
    if (type !== 'anchors' && type !== 'delta') return
    spoilt.push(type)
    message.payload = type === 'anchors' ? message.payload.map(byte => byte ^ 1) : noise(1000, 40)
  }
  const target = concat(base.subarray(0, 3 * LEAF), noise(17, 2), base.subarray(3 * LEAF))
  a.write('big', target)
  settle(world)
  t.is(Buffer.compare(b.disk.readFile('big'), target), 0)
  t.deepEqual([...new Set(spoilt)].sort(), ['anchors', 'delta'])
  assertAgree(t, world)
})

test('a peer that speaks an older version is asked for leaves', t => {
  const { world, a, b } = makePair()
  a.write('big', base)
  settle(world)
  const refused: string[] = []
  // As its connection answers in its place.
  world.refuse = header => {
    const newer = ['fetch_nodes', 'fetch_anchors', 'fetch_delta'].includes(header.type)
    if (newer) refused.push(header.type)
    return newer
  }
  const changed = base.slice()
  changed[5 * LEAF] = (base[5 * LEAF] as number) ^ 1
  const since = world.delivered.length
  a.write('big', changed)
  settle(world)
  t.is(Buffer.compare(b.disk.readFile('big'), changed), 0)
  t.true(received(world, b, since, changed.length) <= LEAF + 41 * 32)
  t.deepEqual(refused, ['fetch_anchors'])
  assertAgree(t, world)
})

test('what a peer asks is bounded by what there is', t => {
  const { world, peers } = makeHousehold(2)
  const [a, b] = peers as [Peer, Peer]
  settle(world)
  a.write('big', base)
  settle(world)
  const content = a.entry('big')?.known.content
  const hash = content?.type === 'file' ? content.hash : undefined
  const orders: PatchTask['is'][] = []
  a.beforePatch = task => orders.push(task.is)
  const ask = (header: object, payload?: Uint8Array): string => {
    const id = ++asked
    const before = world.delivered.length
    a.arena.fromPeer(b.id, {
      type: 'wire',
      header: { arena: 'tree', id, hash, ...header } as never,
      ...(payload && { payload }),
    })
    settle(world)
    const answer = world.delivered.slice(before).find(({ header: one }) => 'id' in one && one.id === id)?.header
    return answer?.type === 'fetch_failed' ? answer.code : (answer?.type ?? 'nothing')
  }
  let asked = 1_000_000
  const signature = noise(80, 1)
  t.is(ask({ type: 'fetch_anchors', runs: [[0, 40]] }), 'anchors')
  t.is(ask({ type: 'fetch_delta', from: 33, count: 8, block: 512 }, signature), 'delta')
  t.is(ask({ type: 'fetch_nodes', level: 0, from: 0, count: 41 }), 'tree')
  t.deepEqual(orders, ['anchors', 'delta'])
  // The last leaf has 777 bytes: no anchor.
  t.is(ask({ type: 'fetch_anchors', runs: [[0, 41]] }), 'message_invalid')
  t.is(ask({ type: 'fetch_anchors', runs: Array.from({ length: 1000 }, () => [0, 33]) }), 'message_invalid')
  t.is(ask({ type: 'fetch_delta', from: 34, count: 8, block: 512 }, signature), 'message_invalid')
  t.is(ask({ type: 'fetch_delta', from: 0, count: 1, block: 700 }, signature), 'message_invalid')
  t.is(ask({ type: 'fetch_nodes', level: 6, from: 1, count: 1 }), 'message_invalid')
  t.is(ask({ type: 'fetch_nodes', level: 1, from: 0, count: 4096 }), 'message_invalid')
  const other = '0'.repeat(64)
  for (const type of ['fetch_anchors', 'fetch_delta', 'fetch_nodes'])
    t.is(ask({ type, hash: other, runs: [[0, 1]], from: 0, count: 1, block: 512, level: 0 }, signature), 'blob_missing')
  t.is(orders.length, 2)
  a.disk.writeFile('big', noise(10, 1))
  t.is(ask({ type: 'fetch_anchors', runs: [[0, 1]] }), 'blob_changed')
})

test('a disk that is full when the content is asked for gets it when there is room', t => {
  const { world, a, b } = makePair()
  let opened = 0
  let refused = 0
  // The first makes the slot, the next ones are for the content.
  b.disk.fault = operation => {
    if (operation !== 'stageOpen' || ++opened === 1 || opened > 5) return null
    refused++
    return 'ENOSPC'
  }
  a.write('big', base)
  settle(world)
  t.is(refused, 4)
  t.is(Buffer.compare(b.disk.readFile('big'), base), 0)
  assertAgree(t, world)
})

test('a big file that was copied, renamed and edited, or brought back costs next to nothing', t => {
  const { world, a, b } = makePair()
  a.write('big', base)
  settle(world)
  const cost = (change: () => void): number => {
    const since = world.delivered.length
    change()
    settle(world)
    assertAgree(t, world)
    return received(world, b, since, base.length)
  }
  t.is(
    cost(() => a.write('copy', base)),
    0,
    'a copy',
  )
  t.is(Buffer.compare(b.disk.readFile('copy'), base), 0)
  const edited = concat(base.subarray(0, 100_000), noise(30, 5), base.subarray(100_000))
  const renamed = cost(() => {
    a.remove('copy')
    a.write('folder with another name', edited)
  })
  t.true(renamed < 8_000, `${renamed} bytes for a file that was renamed and edited`)
  t.is(Buffer.compare(b.disk.readFile('folder with another name'), edited), 0)
  const like = cost(() => a.write('big', edited.slice(7)))
  t.true(like < 12_000, `${like} bytes for two edits in one leaf`)
  t.is(
    cost(() => a.write('big', base)),
    0,
    'the former content, which is in the version store',
  )
  t.is(
    cost(() => {
      a.remove('big')
      settle(world)
      a.write('again', base)
    }),
    0,
    'deleted, then brought back under another name',
  )
})

test('a file from which another one is copied can be renamed or deleted meanwhile', t => {
  for (const meanwhile of ['rename', 'remove'] as const) {
    const { world, a, b } = makePair()
    a.write('big', base)
    settle(world)
    let orders = 0
    b.beforePatch = () => {
      if (++orders > 1) return
      if (meanwhile === 'rename') b.rename('big', 'elsewhere')
      else b.remove('big')
    }
    a.write('copy', base)
    settle(world)
    t.true(orders > 0)
    assertAgree(t, world)
    t.is(Buffer.compare(b.disk.readFile('copy'), base), 0)
    t.deepEqual(Object.keys(a.tree()).sort(), meanwhile === 'rename' ? ['copy', 'elsewhere'] : ['copy'])
  }
})
