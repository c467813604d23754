import test from 'ava'
import { RateMeter } from '../../supervisor/rate-meter.ts'

test('a steady flow shows as what it is, and a silence as nothing', t => {
  const meter = new RateMeter()
  for (let ms = 0; ms < 20_000; ms += 100) meter.add(1000, ms)
  t.is(meter.perSecond(19_999), 10_000)
  t.is(meter.perSecond(40_000), 0)
})

test('what a burst left is forgotten after five seconds', t => {
  const meter = new RateMeter()
  meter.add(5_000_000, 100_000)
  t.is(meter.perSecond(100_001), 1_000_000)
  t.is(meter.perSecond(104_000), 1_000_000)
  t.is(meter.perSecond(105_500), 0)
})
