/** The tree's laws, its test vectors, and libsodium against plain JavaScript. */
import test from 'ava'
import fc from 'fast-check'
import { type Blake2b, engine, loadSodiumEngine, nobleEngine } from '../../actors/hasher/engine.ts'
import {
  groupCount,
  groupNodes,
  HASH_BYTES,
  hashLeaves,
  hashSmall,
  leafCount,
  leafHash,
  rootOf,
  rootOfGroups,
  topOf,
  verifyLeaf,
  zeroLeafHash,
} from '../../actors/hasher/merkle.ts'
import { GROUP_LEAVES, LEAF_BYTES } from '../../protocol/limits.ts'

/** Content of the test vectors: byte i is (31 i + 7 ⌊i / 256⌋) mod 256. */
function pattern(size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => (i * 31 + (i >>> 8) * 7) & 255)
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

/** Made-up leaf hashes: the tree above does not care where they are from. */
function madeUpLeaves(count: number, seed: number): Uint8Array {
  const leaves = new Uint8Array(count * HASH_BYTES)
  const view = new DataView(leaves.buffer)
  for (let index = 0; index < count; index++) view.setUint32(index * HASH_BYTES, (index * 2654435761 + seed) >>> 0)
  return leaves
}

const vectors: [number, string][] = [
  [0, '5c3cd7b696e23b2d800734e78972f333448955cdd73bedd7061bb3e8c6e4edd0'],
  [1, 'df1257d9b71ef6261213b4bc0018cab2d1c67b79bd639c9bc4c2c7919aba14ba'],
  [131_071, '99210896319039ba6ba165e2682d1e0e6befa8da79b2af66b581bb4109809c77'],
  [131_072, '59fde944834345459b892a45a1cce987a93ab4a31f8ce842efe4397c06ab05c6'],
  [131_073, '5323f39a44f29e649a95d5a572519a4e67d02965593352550b455d7d4d87d30b'],
  [262_144, 'cc5ba1057a84b6917d58a5f173e08d8c26eadd6532f070b33b362a65476732a7'],
  [393_216, '1178317dfb7d1f6eab82a2c9dc7679fe4be2c9d00ea86e0365d0d66e8f8ee0ec'],
  [1_000_000, '863fde9a16c17ab67fbdf7ca1a0bb1c9a4095705e13829cac94e03a3f80d72cc'],
]

for (const [size, name] of vectors)
  test(`the name of ${size} bytes is the one in docs/merkle.md, by either engine`, t => {
    t.is<string, string>(hashSmall(pattern(size)), name)
    t.is<string, string>(hashSmall(pattern(size), nobleEngine), name)
  })

test('the vectors that are not of the pattern', t => {
  t.is<string, string>(
    hashSmall(Buffer.from('hello')),
    '38c69c1e57e612561ddd6c058663c682f61414bfbfd03907f935e592e10e7510',
  )
  t.is(hex(zeroLeafHash()), '7fb493389be092b71d9c3878d54f606f4541cf8146ad4d459e2d841d7a05a574')
  const size = 4099 * LEAF_BYTES
  const leaves = new Uint8Array(4099 * HASH_BYTES)
  for (let at = 0; at < leaves.length; at += HASH_BYTES) leaves.set(zeroLeafHash(), at)
  t.is<string, string>(rootOf(size, leaves), '22d9aacabfff852f0fbb2032c79d169674b6ab976b0e2abcb5c6f622bfd99e29')
})

test('three leaves, spelled out', t => {
  const content = pattern(2 * LEAF_BYTES + 5)
  const [a, b, c] = [0, 1, 2].map(n => engine.hash256(0, content.subarray(n * LEAF_BYTES, (n + 1) * LEAF_BYTES))) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ]
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(content.length))
  t.is<string, string>(hashSmall(content), hex(engine.hash256(2, size, engine.hash256(1, engine.hash256(1, a, b), c))))
})

test('libsodium is used where it is there', t => {
  const sodium = loadSodiumEngine()
  t.not(sodium, null)
  t.not(engine, nobleEngine)
})

test('libsodium and plain JavaScript agree on any prefix and parts', t => {
  const sodium = loadSodiumEngine() as Blake2b
  const part = fc.uint8Array({ maxLength: 400 })
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 255 }), fc.array(part, { maxLength: 5 }), (prefix, parts) => {
      t.deepEqual(sodium.hash256(prefix, ...parts), nobleEngine.hash256(prefix, ...parts))
    }),
  )
})

test('the top over all leaves is the top over the groups', t => {
  const count = fc.oneof(
    fc.integer({ min: 0, max: 40 }),
    fc.integer({ min: GROUP_LEAVES - 3, max: GROUP_LEAVES + 3 }),
    fc.integer({ min: 2 * GROUP_LEAVES - 2, max: 3 * GROUP_LEAVES + 2 }),
  )
  fc.assert(
    fc.property(count, fc.nat(), (leafTotal, seed) => {
      const leaves = madeUpLeaves(leafTotal, seed)
      t.deepEqual(topOf(leaves), topOf(groupNodes(leaves)))
      const size = leafTotal * LEAF_BYTES
      t.is(rootOf(size, leaves), rootOfGroups(size, groupNodes(leaves)))
    }),
    { numRuns: 40 },
  )
})

test('leaf hashes of a part are those of the whole', t => {
  const content = pattern(5 * LEAF_BYTES + 100)
  const whole = hashLeaves(content)
  const parts = [content.subarray(0, 2 * LEAF_BYTES), content.subarray(2 * LEAF_BYTES)].map(part => hashLeaves(part))
  t.deepEqual(Buffer.concat(parts), Buffer.from(whole))
})

test('any changed byte changes the name, and so does the size alone', t => {
  const content = pattern(2 * LEAF_BYTES + 10)
  const name = hashSmall(content)
  fc.assert(
    fc.property(fc.nat(content.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      content[at] = (content[at] as number) ^ change
      t.not(hashSmall(content), name)
      content[at] = (content[at] as number) ^ change
    }),
    { numRuns: 20 },
  )
  const leaves = madeUpLeaves(1, 0)
  t.not(rootOf(10, leaves), rootOf(11, leaves))
})

test('a leaf is verified at its own place only', t => {
  const content = pattern(LEAF_BYTES + 7)
  const leaves = hashLeaves(content)
  t.true(verifyLeaf(leaves, 0, content.subarray(0, LEAF_BYTES)))
  t.true(verifyLeaf(leaves, 1, content.subarray(LEAF_BYTES)))
  t.false(verifyLeaf(leaves, 1, content.subarray(0, LEAF_BYTES)))
  t.false(verifyLeaf(leaves, 2, content.subarray(LEAF_BYTES)))
  t.false(verifyLeaf(leaves, -1, content.subarray(LEAF_BYTES)))
  t.false(verifyLeaf(leaves, 1, new Uint8Array(0)))
  t.false(verifyLeaf(leaves, 0, content))
})

test('counts, and what does not fit them', t => {
  t.deepEqual([0, 1, LEAF_BYTES, LEAF_BYTES + 1].map(leafCount), [0, 1, 1, 2])
  t.is(groupCount(GROUP_LEAVES * LEAF_BYTES + 1), 2)
  t.is(hashLeaves(new Uint8Array(0)).length, 0)
  t.is(topOf(new Uint8Array(0)).length, 0)
  for (const action of [
    () => rootOf(LEAF_BYTES + 1, madeUpLeaves(1, 0)),
    () => rootOf(0, madeUpLeaves(1, 0)),
    () => rootOf(-1, new Uint8Array(0)),
    () => rootOfGroups(1, new Uint8Array(0)),
    () => topOf(new Uint8Array(33)),
    () => leafHash(new Uint8Array(0)),
    () => leafHash(new Uint8Array(LEAF_BYTES + 1)),
    () => engine.hash256(256),
  ])
    t.throws(action, { instanceOf: RangeError })
})

/** The definition in docs/merkle.md, by recursion: the left part is the greatest power of two that leaves something for the right. */
function topByDefinition(leaves: Uint8Array): Uint8Array {
  const count = leaves.length / HASH_BYTES
  if (count <= 1) return leaves
  const left = 2 ** Math.ceil(Math.log2(count) - 1) * HASH_BYTES
  return nobleEngine.hash256(1, topByDefinition(leaves.subarray(0, left)), topByDefinition(leaves.subarray(left)))
}

test('the tree is that of its definition, by plain JavaScript, for any number of leaves and across groups', t => {
  const count = fc.oneof(
    fc.integer({ min: 0, max: 70 }),
    fc.constantFrom(127, 128, 129, 1_023, 1_025, GROUP_LEAVES - 1, GROUP_LEAVES, GROUP_LEAVES + 1),
  )
  fc.assert(
    fc.property(count, fc.nat(), (leafTotal, seed) => {
      const leaves = madeUpLeaves(leafTotal, seed)
      t.is(hex(topOf(leaves)), hex(topByDefinition(leaves)))
    }),
    { numRuns: 25 },
  )
})

test('content of any size around a leaf has the name of its definition, by plain JavaScript', t => {
  const size = fc.oneof(
    fc.integer({ min: 0, max: 3_000 }),
    fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: -2, max: 2 })).map(([n, more]) => n * LEAF_BYTES + more),
  )
  fc.assert(
    fc.property(size, bytes => {
      const content = pattern(bytes)
      const leaves = Array.from({ length: leafCount(bytes) }, (_, n) =>
        nobleEngine.hash256(0, content.subarray(n * LEAF_BYTES, (n + 1) * LEAF_BYTES)),
      )
      const length = Buffer.alloc(8)
      length.writeBigUInt64LE(BigInt(bytes))
      t.is<string, string>(
        hashSmall(content),
        hex(nobleEngine.hash256(2, length, topByDefinition(new Uint8Array(Buffer.concat(leaves))))),
      )
    }),
    { numRuns: 12 },
  )
})
