/** In which order requests at paths, and renames of them, are done. */
import test from 'ava'
import { PathOrder, PENDING_MS } from '../../actors/view/path-order.ts'

/** A clock that is moved by hand. */
function bench() {
  const timers = new Set<() => void>()
  const order = new PathOrder({
    later: (waitMs, action) => {
      if (waitMs !== PENDING_MS) throw new Error(`waits for ${waitMs} ms`)
      timers.add(action)
      return () => timers.delete(action)
    },
  })
  const pass = () => {
    for (const action of timers) action()
    timers.clear()
  }
  return { order, timers, pass }
}

/** A promise that is settled from outside. */
function deferred() {
  let resolve = () => {}
  let reject: (error: Error) => void = () => {}
  const promise = new Promise<void>((...settle) => {
    ;[resolve, reject] = settle
  })
  return { promise, resolve, reject }
}

const turn = () => new Promise(resolve => setImmediate(resolve))

/** A rename that ends when the test says so. */
function renaming(order: PathOrder, paths: () => readonly string[]) {
  const end = deferred()
  let begun = false
  const done = order.rename(paths, () => {
    begun = true
    return end.promise
  })
  const hasBegun = async () => {
    await turn()
    return begun
  }
  return { ...end, done, hasBegun }
}

test('a rename waits for those of the same, above and below, and for no other', async t => {
  for (const [paths, waits] of [
    [['a/b', 'x'], true],
    [['a', 'x'], true],
    [['a/b/c/d', 'x'], true],
    [['x', 'a/b/new'], true],
    [['x', 'new'], true],
    [['a/bc', 'x'], false],
    [['a/c', 'x'], false],
  ] as const) {
    const { order } = bench()
    const first = renaming(order, () => ['a/b', 'new'])
    const second = renaming(order, () => paths)
    t.is(await second.hasBegun(), !waits, String(paths))
    first.resolve()
    await first.done
    t.true(await second.hasBegun())
  }
})

test('of those that waited for one rename only one begins, and a failed one is waited for no longer', async t => {
  const { order } = bench()
  const [first, ...others] = ['b', 'c', 'd', 'e'].map(to => renaming(order, () => ['a', to]))
  for (let left = others.length, ended = first; left > 0; left--) {
    ended?.reject(new Error('no'))
    await t.throwsAsync(ended?.done ?? Promise.resolve(), { message: 'no' })
    const begun = await Promise.all(others.map(other => other.hasBegun()))
    t.is(begun.filter(Boolean).length, others.length - left + 1)
    ended = others[begun.lastIndexOf(true)]
  }
})

test('names are those of the moment: who waited may concern something else by then', async t => {
  const { order } = bench()
  const first = renaming(order, () => ['a', 'b'])
  let path = 'a/file'
  const waiting = renaming(order, () => [path, 'x'])
  t.false(await waiting.hasBegun())
  const other = renaming(order, () => ['c', 'd'])
  path = 'd/file'
  first.resolve()
  t.false(await waiting.hasBegun())
  other.resolve()
  t.true(await waiting.hasBegun())
})

test('a rename waits for what is under way at its paths, and not for long', async t => {
  const { order, timers, pass } = bench()
  const [quick, slow] = [deferred(), deferred()]
  const answers = [order.at('d/quick', quick.promise), order.at('d/slow', slow.promise)]
  t.true(await renaming(order, () => ['f', 'g']).hasBegun())
  const waiting = renaming(order, () => ['d', 'e'])
  quick.resolve()
  await answers[0]
  t.false(await waiting.hasBegun())
  pass()
  t.true(await waiting.hasBegun())
  waiting.resolve()
  await waiting.done
  slow.resolve()
  await answers[1]
  t.true(await renaming(order, () => ['d', 'e']).hasBegun())
  t.is(timers.size, 0)
})

test('what is answered at once is in nobody’s way, and leaves no timer', async t => {
  const { order, timers } = bench()
  t.is(order.at('d/file', 7), 7)
  await order.rename(
    () => ['d', 'e'],
    () => {},
  )
  const short = deferred()
  const answer = order.at('d/file', short.promise)
  const waiting = renaming(order, () => ['d', 'e'])
  t.false(await waiting.hasBegun())
  t.is(timers.size, 1)
  short.resolve()
  await answer
  t.true(await waiting.hasBegun())
  t.is(timers.size, 0)
})
