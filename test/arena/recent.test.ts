/** Content that was just read is at hand, in memory that does not grow. */
import test from 'ava'
import { RecentContent, SLAB_BYTES, SLABS_MAX } from '../../actors/arena/recent.ts'
import type { BlobHash } from '../../protocol/ids.ts'

const hash = (number: number) => number.toString(16).padStart(64, '0') as BlobHash

test('what was put is a copy, found by its hash until it is cleared', t => {
  const recent = new RecentContent()
  const scratch = Buffer.from('first')
  recent.put(hash(2), Buffer.from(''))
  recent.put(hash(1), scratch)
  scratch.write('FIRST')
  recent.put(hash(1), Buffer.from('other'))
  t.is(Buffer.from(recent.get(hash(1))!).toString(), 'first')
  t.is(recent.get(hash(2))?.length, 0)
  t.is(recent.get(hash(3)), undefined)
  recent.clear()
  t.is(recent.get(hash(1)), undefined)
  recent.put(hash(4), Buffer.from('again'))
  t.is(Buffer.from(recent.get(hash(4))!).toString(), 'again')
})

test('the oldest goes first, and what is at hand is always whole', t => {
  const recent = new RecentContent()
  const size = SLAB_BYTES / 2 - 1000
  const count = 5 * SLABS_MAX
  for (let number = 0; number < count; number++) recent.put(hash(number), Buffer.alloc(size, number))
  const kept = Array.from({ length: count }, (_, number) => number).filter(number => recent.get(hash(number)))
  t.deepEqual(
    kept,
    Array.from({ length: kept.length }, (_, index) => count - kept.length + index),
  )
  t.true(kept.length >= 2 * (SLABS_MAX - 1) && kept.length <= 2 * SLABS_MAX)
  for (const number of kept) t.true(Buffer.alloc(size, number).equals(recent.get(hash(number))!), `${number}`)
})

test('what is too large for it is not kept', t => {
  const recent = new RecentContent()
  recent.put(hash(1), Buffer.alloc(SLAB_BYTES + 1))
  recent.put(hash(2), Buffer.alloc(SLAB_BYTES, 2))
  t.is(recent.get(hash(1)), undefined)
  t.is(recent.get(hash(2))?.length, SLAB_BYTES)
})
