import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { NODES_LEVEL, type TreeAsk, TreeFetch } from '../../actors/arena/tree-fetch.ts'
import { groupNodes, HASH_BYTES, nodesOver, rootOf } from '../../actors/hasher/merkle.ts'
import { GROUP_LEAVES, LEAF_BYTES } from '../../protocol/limits.ts'
import { noise } from '../hasher/_random.ts'

/** What a peer that has the tree answers. */
function answerOf(tree: Uint8Array, ask: TreeAsk): Uint8Array {
  const part = (from: number, count: number) => tree.slice(from * HASH_BYTES, (from + count) * HASH_BYTES)
  switch (ask.is) {
    case 'groups':
      return groupNodes(tree)
    case 'group':
      return part(ask.group * GROUP_LEAVES, GROUP_LEAVES)
    case 'branches':
    case 'leaves': {
      const width = 2 ** NODES_LEVEL[ask.is]
      return nodesOver(part(ask.from * width, ask.count * width), width)
    }
  }
}

/** Asks until nothing is left to be asked; how many bytes came. */
function run(t: ExecutionContext, size: number, tree: Uint8Array, older: Uint8Array | null): number {
  const fetch = new TreeFetch(size, rootOf(size, tree), older)
  let bytes = 0
  for (let ask = fetch.next(); ask; ask = fetch.next()) {
    const payload = answerOf(tree, ask)
    bytes += payload.length
    t.true(fetch.answer(ask, payload))
  }
  t.true(fetch.done)
  t.is(Buffer.compare(fetch.tree, tree), 0)
  return bytes
}

/** A list of made-up leaf hashes, with some of them changed. */
function changed(tree: Uint8Array, leaves: readonly number[]): Uint8Array {
  const copy = tree.slice()
  for (const leaf of leaves) copy.set(noise(HASH_BYTES, leaf + 1), leaf * HASH_BYTES)
  return copy
}

test('without an older version every leaf hash comes once', t => {
  for (const leaves of [2, 64, 65, GROUP_LEAVES, GROUP_LEAVES + 1, 2 * GROUP_LEAVES]) {
    const tree = noise(leaves * HASH_BYTES, leaves)
    const groups = leaves > GROUP_LEAVES ? Math.ceil(leaves / GROUP_LEAVES) * HASH_BYTES : 0
    t.is(run(t, leaves * LEAF_BYTES - 1, tree, null), tree.length + groups)
  }
})

test('of a tree with one other leaf only its branch comes, whatever the sizes', t => {
  fc.assert(
    fc.property(
      fc.integer({ min: 65, max: 9_000 }),
      fc.nat(),
      fc.integer({ min: -70, max: 70 }),
      (leaves, pick, more) => {
        const tree = noise(leaves * HASH_BYTES, leaves)
        const older = changed(tree, [pick % leaves])
        const resized =
          more < 0 ? older.subarray(0, more * HASH_BYTES) : Buffer.concat([older, noise(more * HASH_BYTES, 5)])
        const bytes = run(t, leaves * LEAF_BYTES, tree, Uint8Array.from(resized))
        // Group nodes, the branches of at most two groups, and at most four branches' leaves: at the change and at a shorter end.
        t.true(bytes <= (3 + 2 * 64 + 4 * 64) * HASH_BYTES, `${bytes} bytes`)
      },
    ),
    { numRuns: 40 },
  )
})

test('a tree of which nothing is the same costs a fiftieth more, and an equal one next to nothing', t => {
  const tree = noise(2 * GROUP_LEAVES * HASH_BYTES, 1)
  const size = 2 * GROUP_LEAVES * LEAF_BYTES
  t.true(run(t, size, tree, noise(tree.length, 2)) < 1.02 * tree.length)
  t.is(run(t, size, tree, tree), 2 * HASH_BYTES)
})

test('a wrong answer changes nothing: it is asked again, and an older peer in the old way', t => {
  const leaves = GROUP_LEAVES + 200
  const tree = noise(leaves * HASH_BYTES, 1)
  const size = leaves * LEAF_BYTES
  const fetch = new TreeFetch(size, rootOf(size, tree), changed(tree, [3, GROUP_LEAVES + 100]))
  const asked: string[] = []
  for (let ask = fetch.next(); ask; ask = fetch.next()) {
    const payload = answerOf(tree, ask)
    const wrong = payload.slice()
    wrong[wrong.length - 1]! ^= 1
    t.false(fetch.answer(ask, wrong))
    t.false(fetch.answer(ask, payload.subarray(0, -HASH_BYTES)))
    t.false(fetch.answer(ask, Buffer.concat([payload, noise(HASH_BYTES, 9)])))
    t.false(fetch.answer(ask, new Uint8Array(0)))
    asked.push(ask.is)
    // The first time nobody answers; what was about nodes is then asked by the group.
    const again = asked.filter(is => is === ask.is).length === 1
    if (again || ask.is === 'branches') fetch.again(ask, true)
    else t.true(fetch.answer(ask, payload))
  }
  t.true(fetch.done)
  t.is(Buffer.compare(fetch.tree, tree), 0)
  t.deepEqual(asked, ['groups', 'groups', 'branches', 'group', 'group', 'branches', 'group'])
})
