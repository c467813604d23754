import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { applyDelta, blockBytes, makeDelta, signatureOf } from '../../actors/hasher/delta.ts'
import { rolling } from '../../actors/hasher/rolling.ts'
import { SyncError } from '../../protocol/error.ts'
import { BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, ROLLING_BYTES, SIGNATURE_BLOCKS_MAX } from '../../protocol/limits.ts'
import { edited, edits, noise } from './_random.ts'

const BLOCK = 512
const MULTIPLIER = 6364136223846793005n

/** By the formula. */
function naiveHash(bytes: Uint8Array): bigint {
  return bytes.reduce((hash, byte) => BigInt.asUintN(64, hash * MULTIPLIER + BigInt(byte) + 1n), 0n)
}

function hashOf(bytes: Uint8Array): Uint8Array {
  const hash = new Uint8Array(ROLLING_BYTES)
  rolling().data.set(bytes)
  rolling().sign(0, bytes.length, hash, 0)
  return hash
}

function roundTrip(t: ExecutionContext, base: Uint8Array, target: Uint8Array, block = BLOCK): Uint8Array {
  const delta = makeDelta(target, signatureOf(base, block), block)
  t.deepEqual(Buffer.compare(applyDelta(base, delta, block, target.length), target), 0)
  return delta
}

test('the hash of a window is what the formula says', t => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: BLOCK, maxLength: BLOCK }), bytes => {
      t.is(Buffer.from(hashOf(bytes)).readBigUInt64LE(), naiveHash(bytes))
    }),
    { numRuns: 20 },
  )
})

test('the hashes of docs/delta.md', t => {
  t.is(Buffer.from(hashOf(new Uint8Array(BLOCK))).toString('hex'), '00d69ab777e85039')
  t.is(Buffer.from(hashOf(Uint8Array.from({ length: BLOCK }, (_, at) => at & 255))).toString('hex'), '0055339c4d8069a4')
})

test('a search finds exactly the windows that a naive one finds', t => {
  const letters = fc.uint8Array({ minLength: 1, maxLength: 40, max: 3 })
  fc.assert(
    fc.property(letters, fc.array(letters, { minLength: 1, maxLength: 20 }), fc.nat(1_000), (needle, hay, from) => {
      // Few letters and repeated pieces: windows that are found often, overlap and nearly match.
      const content = Uint8Array.from(
        Buffer.concat([...hay, needle, needle, ...hay].flatMap(part => Array(8).fill(part))),
      )
      const padded = Uint8Array.from(Buffer.concat([content, noise(BLOCK, 1)]))
      const start = Math.min(from, content.length - 1)
      const sought = [padded.subarray(0, BLOCK), padded.subarray(start, start + BLOCK), noise(BLOCK, 2)]
      const search = rolling()
      const hashes = Buffer.concat(sought.map(hashOf))
      search.data.set(padded)
      search.seek(hashes)
      const end = padded.length - BLOCK + 1
      const found: [number, number][] = []
      for (let hit = search.next(0, end, BLOCK); hit; hit = search.next(hit.at + 1, end, BLOCK))
        found.push([hit.at, hit.number])
      const expected: [number, number][] = []
      for (let at = 0; at < end; at++) {
        const number = sought.findIndex(window => Buffer.compare(window, padded.subarray(at, at + BLOCK)) === 0)
        if (number >= 0) expected.push([at, number])
      }
      t.deepEqual(found, expected)
    }),
    { numRuns: 60 },
  )
})

test('a hash that was dropped is not found, and the others still are', t => {
  const content = noise(10 * BLOCK, 3)
  const search = rolling()
  const hashes = Buffer.concat([2, 5, 7].map(number => hashOf(content.subarray(number * BLOCK, (number + 1) * BLOCK))))
  search.data.set(content)
  search.seek(hashes)
  search.drop(hashes.subarray(ROLLING_BYTES, 2 * ROLLING_BYTES))
  t.deepEqual(search.next(0, 9 * BLOCK, BLOCK), { at: 2 * BLOCK, number: 0 })
  t.deepEqual(search.next(2 * BLOCK + 1, 9 * BLOCK, BLOCK), { at: 7 * BLOCK, number: 2 })
  t.is(search.next(7 * BLOCK + 1, 9 * BLOCK, BLOCK), null)
})

test('a delta of any edits, applied to the old content, gives the new', t => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 60_000 }), fc.nat(), edits(4_000), (length, seed, list) => {
      const base = noise(length, seed)
      const target = edited(base, list)
      const delta = roundTrip(t, base, target)
      // What was not touched is not said again: an edit costs its bytes and the blocks that it cuts.
      const added = list.reduce((sum, edit) => sum + ('bytes' in edit ? edit.bytes.length : 0), 0)
      t.true(delta.length <= added + (2 * list.length + 2) * (2 * BLOCK + 32))
    }),
    { numRuns: 150 },
  )
})

test('content of few letters, repeated blocks and zeros comes out right', t => {
  const few = (length: number, letters: number, seed: number) => noise(length, seed).map(byte => byte % letters)
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3 }), fc.nat(20_000), fc.nat(20_000), fc.nat(), (letters, a, b, seed) => {
      roundTrip(t, few(a, letters, seed), few(b, letters, seed + 1))
    }),
    { numRuns: 60 },
  )
  const record = noise(BLOCK, 9)
  const records = Uint8Array.from(Buffer.concat(Array(50).fill(record)))
  t.true(roundTrip(t, records, records.subarray(7)).length < 2 * BLOCK)
  t.true(roundTrip(t, new Uint8Array(100_000), new Uint8Array(90_000)).length < 2 * BLOCK)
  t.is(roundTrip(t, records, new Uint8Array(0)).length, 0)
})

test('a signature that fits everywhere and one of noise cost no more than a search', t => {
  const target = new Uint8Array(1024 * 1024)
  const zeros = signatureOf(new Uint8Array(SIGNATURE_BLOCKS_MAX * BLOCK), BLOCK)
  const noisy = noise(SIGNATURE_BLOCKS_MAX * ROLLING_BYTES, 4)
  const startMs = performance.now()
  t.true(makeDelta(target, zeros, BLOCK).length < 10_000)
  t.is(makeDelta(target, noisy, BLOCK).length, target.length + 8)
  // A hash for each position would take minutes.
  t.true(performance.now() - startMs < 10_000)
})

test('blocks with one hash and different content give a wrong result, never a broken one', t => {
  // Σ ±Mⁿ over the Thue-Morse sequence of 2048 bytes is 0 modulo 2⁶⁴, whatever M is.
  const bits = (number: number): number => (number === 0 ? 0 : (number & 1) ^ bits(number >> 1))
  const one = Uint8Array.from({ length: 2048 }, (_, at) => bits(at))
  const other = one.map(bit => 1 - bit)
  t.deepEqual(hashOf(one), hashOf(other))
  const delta = makeDelta(one, signatureOf(other, 2048), 2048)
  t.deepEqual(applyDelta(other, delta, 2048, 2048), other)
})

test('a delta that breaks its bounds is refused', t => {
  const base = noise(4 * BLOCK, 5)
  const numbers = (...values: number[]) => {
    const bytes = Buffer.alloc(4 * values.length)
    values.forEach((value, index) => {
      bytes.writeUInt32LE(value, 4 * index)
    })
    return bytes
  }
  const refused = (delta: Uint8Array, length: number, words: RegExp) => {
    const error = t.throws(() => applyDelta(base, delta, BLOCK, length), { instanceOf: SyncError, message: words })
    t.is(error.code, 'message_invalid')
  }
  refused(numbers(4, 1), BLOCK, /outside/)
  refused(numbers(3, 2), 2 * BLOCK, /outside/)
  refused(numbers(0, 0xffffffff), BLOCK, /outside/)
  refused(numbers(0, 2), BLOCK, /more than/)
  refused(numbers(0, 0), BLOCK, /nothing/)
  refused(numbers(0, 1), 2 * BLOCK, /less/)
  refused(numbers(0xffffffff, 5), 5, /bytes/)
  refused(numbers(0), 5, /operation/)
  refused(new Uint8Array(0), 5, /less/)
  t.is(applyDelta(base, new Uint8Array(0), BLOCK, 0).length, 0)
})

test('the block length is a power of two within its limits, and signatures stay within theirs', t => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4 * 1024 * 1024 }), bytes => {
      const block = blockBytes(bytes)
      t.true(block >= BLOCK_BYTES_MIN && block <= BLOCK_BYTES_MAX && Number.isInteger(Math.log2(block)))
      t.true(Math.floor(bytes / block) <= SIGNATURE_BLOCKS_MAX)
    }),
  )
})
