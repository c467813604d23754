import test from 'ava'
import { Pace } from '../../supervisor/pace.ts'

test('so many at once, then so many a second', t => {
  const pace = new Pace(10, 2)
  const many = (nowMs: number) => Array.from({ length: 50 }, () => pace.allows('anna', nowMs)).filter(Boolean).length
  t.is(many(0), 10)
  t.is(many(0), 0)
  t.is(many(3_000), 6)
  t.is(many(1_000_000), 10)
  t.is(many(999_000), 0, 'a clock that goes back gives nothing')
})

test('each has its own allowance, and a crowd of names shares one', t => {
  const pace = new Pace(5, 1)
  t.true(pace.allows('anna', 0))
  let allowed = 0
  for (let name = 0; name < 100_000; name++) if (pace.allows(`stranger-${name}`, 0)) allowed++
  t.true(allowed <= 1005, `${allowed} were allowed`)
  t.true(pace.allows('anna', 0), 'who was there before goes on')
  t.true(pace.allows('late', 10_000), 'and the crowd is forgotten in time')
})
