import test from 'ava'
import { Problems, Timers } from '../../actors/arena/context.ts'

test('alarms ring in the order of their time, once, and not before it', t => {
  const timers = new Timers()
  const rung: string[] = []
  t.is(timers.nextMs, Number.POSITIVE_INFINITY)
  timers.set('later', 20, () => rung.push('later'))
  timers.set('sooner', 10, () => rung.push('sooner'))
  timers.set('last', 30, () => rung.push('last'))
  t.is(timers.nextMs, 10)
  timers.ring(9)
  t.deepEqual(rung, [])
  timers.ring(20)
  timers.ring(20)
  t.deepEqual(rung, ['sooner', 'later'])
  t.is(timers.nextMs, 30)
})

test('setting moves an alarm, soon only brings it forward', t => {
  const timers = new Timers()
  const rung: string[] = []
  timers.set('a', 10, () => rung.push('first'))
  timers.soon('a', 20, () => rung.push('not this'))
  t.is(timers.nextMs, 10)
  timers.soon('a', 5, () => rung.push('sooner'))
  t.is(timers.nextMs, 5)
  timers.set('a', 50, () => rung.push('moved'))
  timers.ring(49)
  t.deepEqual(rung, [])
  timers.ring(50)
  t.deepEqual(rung, ['moved'])
})

test('an alarm that an earlier one clears, or sets anew, does not ring', t => {
  const timers = new Timers()
  const rung: string[] = []
  timers.set('first', 1, () => {
    timers.clear('second')
    timers.set('third', 100, () => rung.push('third, later'))
  })
  timers.set('second', 2, () => rung.push('second'))
  timers.set('third', 3, () => rung.push('third'))
  timers.ring(10)
  t.deepEqual(rung, [])
  timers.ring(100)
  t.deepEqual(rung, ['third, later'])
})

test('an alarm may set itself again', t => {
  const timers = new Timers()
  let rung = 0
  const again = (atMs: number) => timers.set('tick', atMs, () => void (++rung && again(atMs + 10)))
  again(10)
  for (let nowMs = 0; nowMs <= 50; nowMs += 10) timers.ring(nowMs)
  t.is(rung, 5)
})

test('problems are remembered by path, listed up to a limit, and counted', t => {
  const problems = new Problems()
  for (let i = 0; i < 10_050; i++) problems.set(`p${i}`, 'reason')
  problems.set('p1', 'another', true)
  t.is(problems.count, 10_050)
  t.deepEqual(problems.list(2), [
    { path: 'p0', reason: 'reason' },
    { path: 'p1', reason: 'another', note: true },
  ])
  t.is(problems.get('p10049'), undefined)
  problems.clear('p0')
  t.is(problems.get('p0'), undefined)
  problems.clearAll()
  t.is(problems.count, 0)
})
