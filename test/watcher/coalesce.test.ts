import test from 'ava'
import fc from 'fast-check'
import { Coalescer, type Touched } from '../../actors/watcher/coalesce.ts'

const limits = { windowMs: 20, windowMsMax: 200, pathsMax: 5 }

test('the first touch after quiet is delivered at once', t => {
  const coalescer = new Coalescer(limits)
  t.is(coalescer.dueMs, null)
  t.deepEqual(coalescer.touch(['a', 'b', 'a'], 1000), ['a', 'b'])
  t.is(coalescer.dueMs, 1020)
})

test('touches in a window are delivered together at its end, each once', t => {
  const coalescer = new Coalescer(limits)
  coalescer.touch(['a'], 0)
  t.is(coalescer.touch(['b'], 5), undefined)
  t.is(coalescer.touch(['c', 'b'], 10), undefined)
  t.is(coalescer.due(19), undefined)
  t.deepEqual(coalescer.due(20), ['b', 'c'])
})

test('windows grow while a burst goes on, up to the longest, and start small again after quiet', t => {
  const coalescer = new Coalescer(limits)
  coalescer.touch(['a'], 0)
  const windows: number[] = []
  for (let at = coalescer.dueMs ?? 0, round = 0; round < 6; round++) {
    coalescer.touch(['a'], at - 1)
    t.deepEqual(coalescer.due(at), ['a'])
    windows.push((coalescer.dueMs as number) - at)
    at = coalescer.dueMs as number
  }
  t.deepEqual(windows, [40, 80, 160, 200, 200, 200])
  t.is(coalescer.due(coalescer.dueMs as number), undefined)
  t.is(coalescer.dueMs, null)
  t.deepEqual(coalescer.touch(['b'], 9000), ['b'])
  t.is(coalescer.dueMs, 9020)
})

test('too many paths, or not knowing which, are told as null', t => {
  const coalescer = new Coalescer(limits)
  t.deepEqual(coalescer.touch(['1', '2', '3', '4', '5'], 0), ['1', '2', '3', '4', '5'])
  for (const path of ['1', '2', '3', '4', '5', '6']) coalescer.touch([path], 1)
  t.is(coalescer.due(20), null)
  coalescer.touch(['1'], 21)
  coalescer.touch(null, 22)
  coalescer.touch(['2'], 23)
  t.is(coalescer.due(60), null)
  t.is(new Coalescer(limits).touch(null, 0), null)
  t.is(new Coalescer(limits).touch([], 0), undefined)
})

test('whatever the timing, all that was touched is delivered by the time it is quiet', t => {
  const step = fc.record({ pauseMs: fc.nat(300), paths: fc.array(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g')) })
  fc.assert(
    fc.property(fc.array(step), steps => {
      const coalescer = new Coalescer(limits)
      let nowMs = 0
      let waiting = new Set<string>()
      const deliver = (touched: Touched | undefined) => {
        if (touched === undefined) return
        if (touched !== null) t.deepEqual(new Set(touched), waiting)
        waiting = new Set()
      }
      const ringUntil = (endMs: number) => {
        while (coalescer.dueMs !== null && coalescer.dueMs <= endMs) {
          nowMs = coalescer.dueMs
          deliver(coalescer.due(nowMs))
        }
        nowMs = Math.max(nowMs, endMs)
      }
      for (const { pauseMs, paths } of steps) {
        ringUntil(nowMs + pauseMs)
        for (const path of paths) waiting.add(path)
        deliver(coalescer.touch(paths, nowMs))
      }
      ringUntil(nowMs + 1000)
      t.is(waiting.size, 0)
      t.is(coalescer.dueMs, null)
    }),
  )
  t.pass()
})
