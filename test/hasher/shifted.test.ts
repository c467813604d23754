import test from 'ava'
import fc from 'fast-check'
import { hashLeaves, leafCount } from '../../actors/hasher/merkle.ts'
import { SEARCH_BYTES_MAX } from '../../actors/hasher/rolling.ts'
import { anchorOf, findShifted, leafBytes, type Sought } from '../../actors/hasher/shifted.ts'
import { ANCHOR_BYTES, LEAF_BYTES, ROLLING_BYTES } from '../../protocol/limits.ts'
import { edited, edits, noise } from './_random.ts'

/** All leaves of a blob that have an anchor. */
function soughtOf(target: Uint8Array, wanted = (_leaf: number) => true): Sought {
  const all = Array.from({ length: leafCount(target.length) }, (_, leaf) => leaf)
  const leaves = all.filter(leaf => wanted(leaf) && leafBytes(target.length, leaf) >= ANCHOR_BYTES)
  const anchors = new Uint8Array(leaves.length * ROLLING_BYTES)
  const hashes = hashLeaves(target)
  leaves.forEach((leaf, number) => {
    anchorOf(target.subarray(leaf * LEAF_BYTES, leaf * LEAF_BYTES + ANCHOR_BYTES), anchors, number * ROLLING_BYTES)
  })
  const wantedHashes = Buffer.concat(leaves.map(leaf => hashes.subarray(leaf * 32, (leaf + 1) * 32)))
  return { leaves: Uint32Array.from(leaves), anchors, hashes: wantedHashes, size: target.length }
}

interface Search {
  places: Map<number, number>
  /** Bytes read of the base. */
  read: number
}

function search(base: Uint8Array, sought: Sought, start = 0, end = base.length, overlapping = false): Search {
  const places = new Map<number, number>()
  let read = 0
  const source = {
    size: base.length,
    read(at: number, into: Uint8Array) {
      const part = base.subarray(at, at + into.length)
      into.set(part)
      read += part.length
      return part.length
    },
  }
  findShifted(source, { start, end, overlapping }, sought, (leaf, place, bytes) => {
    if (places.has(leaf)) throw new Error(`leaf ${leaf} was given twice`)
    if (Buffer.compare(bytes, base.subarray(place, place + bytes.length)) !== 0)
      throw new Error('other bytes were given')
    places.set(leaf, place)
  })
  return { places, read }
}

/** Whether a leaf of the target lies anywhere in the base. */
function lies(base: Uint8Array, target: Uint8Array, leaf: number): boolean {
  return Buffer.from(base).includes(Buffer.from(target.subarray(leaf * LEAF_BYTES, (leaf + 1) * LEAF_BYTES)))
}

test('bytes inserted at the head: every whole leaf but the first is found where it lies', t => {
  const base = noise(6 * 1024 * 1024, 1)
  const target = Uint8Array.from(Buffer.concat([noise(17, 2), base]))
  const { places } = search(base, soughtOf(target))
  const expected = Array.from({ length: 47 }, (_, index) => [index + 1, (index + 1) * LEAF_BYTES - 17])
  t.deepEqual([...places], expected)
})

test('whatever the edits: what is found lies there, and no leaf that lies in the base is missed', t => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 3 * 1024 * 1024 }), fc.nat(), edits(400_000), (length, seed, list) => {
      const base = noise(length, seed)
      const target = edited(base, list)
      const sought = soughtOf(target)
      const { places } = search(base, sought, 0, base.length, true)
      for (const leaf of sought.leaves) {
        const place = places.get(leaf)
        if (place === undefined) t.true(!lies(base, target, leaf), `leaf ${leaf}`)
        else
          t.deepEqual(
            Buffer.compare(
              base.subarray(place, place + leafBytes(target.length, leaf)),
              target.subarray(leaf * LEAF_BYTES, (leaf + 1) * LEAF_BYTES),
            ),
            0,
          )
      }
    }),
    { numRuns: 25 },
  )
})

test('a leaf across the end of what is searched at once is found', t => {
  const base = noise(SEARCH_BYTES_MAX + 3 * LEAF_BYTES, 3)
  const place = SEARCH_BYTES_MAX - LEAF_BYTES / 2 + 1
  const target = base.slice(place, place + LEAF_BYTES)
  t.deepEqual([...search(base, soughtOf(target)).places], [[0, place]])
  t.deepEqual([...search(base, soughtOf(target), 0, place + 1).places], [[0, place]])
  t.deepEqual([...search(base, soughtOf(target), 0, place).places], [], 'it begins after the end')
  t.deepEqual([...search(base, soughtOf(target), place, base.length).places], [[0, place]])
})

test('leaves of equal content are all given at the first find, and a short last leaf is found at the end', t => {
  const leaf = noise(LEAF_BYTES, 4)
  const target = Uint8Array.from(Buffer.concat([leaf, leaf, noise(5_000, 5)]))
  const base = Uint8Array.from(Buffer.concat([noise(100, 6), leaf, noise(5_000, 5)]))
  t.deepEqual(
    [...search(base, soughtOf(target)).places],
    [
      [0, 100],
      [1, 100],
      [2, 100 + LEAF_BYTES],
    ],
  )
})

test('leaves that share their beginning are told apart', t => {
  const head = noise(ANCHOR_BYTES, 7)
  const bodies = [8, 9, 10].map(seed => noise(LEAF_BYTES - ANCHOR_BYTES, seed))
  const target = Uint8Array.from(Buffer.concat(bodies.flatMap(body => [head, body])))
  const base = Uint8Array.from(Buffer.concat([noise(31, 11), ...[...bodies].reverse().flatMap(body => [head, body])]))
  t.deepEqual([...search(base, soughtOf(target)).places.keys()].sort(), [0, 1, 2])
})

test('anchors that fit everywhere do not make a search long', t => {
  // Every leaf begins with zeros, and the base is zeros: each position fits each anchor, none is a leaf.
  const target = new Uint8Array(32 * LEAF_BYTES)
  for (let leaf = 0; leaf < 32; leaf++) target.set(noise(100, leaf), leaf * LEAF_BYTES + ANCHOR_BYTES)
  const base = new Uint8Array(8 * 1024 * 1024)
  const startMs = performance.now()
  const { places, read } = search(base, soughtOf(target))
  t.is(places.size, 0)
  t.true(read < 1.1 * base.length)
  // A Merkle hash for each position would take a quarter of an hour.
  t.true(performance.now() - startMs < 20_000)
})

test('anchors that are right where leaves are wrong end the search in time', t => {
  const target = noise(300 * LEAF_BYTES, 12)
  const sought = soughtOf(target)
  const leaf = (number: number) => target.subarray(number * LEAF_BYTES, (number + 1) * LEAF_BYTES)
  /** The beginnings of so many leaves, then one that is whole. */
  const base = (beginnings: number) => {
    const parts = Array.from({ length: beginnings }, (_, number) => leaf(number).subarray(0, ANCHOR_BYTES))
    return Uint8Array.from(Buffer.concat([...parts, leaf(299)]))
  }
  t.deepEqual([...search(base(50), sought).places.keys()], [299])
  t.deepEqual([...search(base(200), sought).places.keys()], [], 'it was given up before')
})
