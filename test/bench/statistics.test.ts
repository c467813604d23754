import test from 'ava'
import { median, medians, percentile } from '../../bench/statistics.ts'

test('the median of an even number of values lies between the two in the middle', t => {
  t.is(median([3]), 3)
  t.is(median([9, 1, 5]), 5)
  t.is(median([4, 1, 3, 2]), 2.5)
  t.is(median([]), Number.NaN)
})

test('a percentile is one of the values, by nearest rank', t => {
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i)
  t.is(percentile(hundred, 0.95), 95)
  t.is(percentile(hundred, 1), 100)
  t.is(percentile([7], 0.5), 7)
})

test('a figure that only some rounds have is taken over those', t => {
  t.deepEqual(medians([{ a: 1, b: 10 }, { a: 3 }, { a: 2 }]), { a: 2, b: 10 })
})
