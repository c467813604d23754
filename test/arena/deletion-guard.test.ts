/** When deletions stop an arena, at the borders of each rule. */
import test from 'ava'
import { DeletionGuard, type Deletions, EMPTIED_MIN, GUARD_MIN } from '../../actors/arena/deletion-guard.ts'

const HALF = 0.5

function deletions(count: number, known: number, more: Partial<Deletions> = {}): Deletions {
  return { nowMs: 0, count, known, part: HALF, emptied: () => false, ...more }
}

test('many at once stop the arena: more than the part that is set, from a number on', t => {
  t.is(new DeletionGuard().fault(deletions(GUARD_MIN, GUARD_MIN * 2)), null, 'just half')
  t.regex(new DeletionGuard().fault(deletions(GUARD_MIN, GUARD_MIN * 2 - 1)) ?? '', /^20 of 39 entries.*50%/)
  t.is(new DeletionGuard().fault(deletions(GUARD_MIN - 1, GUARD_MIN - 1)), null, 'too few to ask about')
  t.regex(new DeletionGuard().fault(deletions(GUARD_MIN, 100, { part: 0.1 })) ?? '', /10%/)
  t.is(new DeletionGuard().fault(deletions(1000, 1000, { part: 1 })), null, 'any may go')
})

test('nothing left stops the arena, though there were few', t => {
  const emptied = () => true
  t.is(new DeletionGuard().fault(deletions(EMPTIED_MIN - 1, EMPTIED_MIN - 1, { emptied })), null)
  t.regex(new DeletionGuard().fault(deletions(EMPTIED_MIN, EMPTIED_MIN, { emptied })) ?? '', /it is empty/)
  const neverAsked = () => t.fail('listed for a few deletions') as never
  t.is(new DeletionGuard().fault(deletions(EMPTIED_MIN - 1, 100, { emptied: neverAsked })), null)
})

test('deletions shortly after each other count as one, and those that are not told after all do not count', t => {
  const guard = new DeletionGuard()
  t.is(guard.fault(deletions(19, 40)), null)
  t.is(guard.fault(deletions(1, 21, { nowMs: 9_999 })), null, '20 of 40')
  t.regex(guard.fault(deletions(1, 20, { nowMs: 9_999 })) ?? '', /^21 of 40/)
  t.is(guard.fault(deletions(1, 20, { nowMs: 10_000 })), null, 'the first are long past')

  const other = new DeletionGuard()
  t.is(other.fault(deletions(15, 40)), null)
  other.takeBack(15)
  t.is(other.fault(deletions(15, 40, { nowMs: 100 })), null, 'the same 15, once more')
  t.regex(other.fault(deletions(6, 25, { nowMs: 200 })) ?? '', /^21 of 40/)
  other.takeBack(100)
  t.is(other.fault(deletions(20, 40, { nowMs: 300 })), null)
  new DeletionGuard().takeBack(1)
})

test('what a person says is meant is let through until it has been told', t => {
  const guard = new DeletionGuard()
  t.truthy(guard.fault(deletions(40, 40)))
  guard.allow()
  t.true(guard.allowed)
  t.is(guard.fault(deletions(40, 40)), null)
  guard.endAllowing()
  t.truthy(guard.fault(deletions(40, 40)), 'what was allowed does not count, and allows nothing more')
})
