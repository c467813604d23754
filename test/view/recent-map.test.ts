import test from 'ava'
import { RecentMap } from '../../actors/view/recent-map.ts'

test('what was used lately is remembered, and never more than the limit', t => {
  const map = new RecentMap<number, string>(10)
  for (let key = 0; key < 1000; key++) {
    map.set(key, `value ${key}`)
    t.is(map.get(0), 'value 0', 'it is used all the time')
    t.is(map.get(key), `value ${key}`)
    t.true(map.size <= 10)
    for (let recent = Math.max(0, key - 3); recent <= key; recent++) t.true(map.keys().includes(recent))
  }
  t.is(map.get(900), undefined)
  map.delete(0)
  map.delete(999)
  t.is(map.get(0), undefined)
  t.is(map.get(999), undefined)
  t.false(map.keys().includes(0))
})

test('a key that is set again has its new value, also if it was old', t => {
  const map = new RecentMap<string, number>(4)
  map.set('a', 1)
  map.set('b', 2)
  map.set('c', 3)
  map.set('a', 4)
  t.is(map.get('a'), 4)
  t.deepEqual(map.keys().filter(key => key === 'a').length, 1)
})
