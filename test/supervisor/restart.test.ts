import test from 'ava'
import fc from 'fast-check'
import { decide, type FailureHistory, noFailures, type RestartPolicy } from '../../supervisor/restart.ts'

const policy: RestartPolicy = {
  restart: 'always',
  failureHalfLifeMs: 60_000,
  failuresMax: 3,
  backoffMs: 100,
  pauseMs: 10_000,
}

test('the first failure is followed by a restart at once, further ones wait twice as long each', t => {
  let history: FailureHistory = noFailures
  const waits: number[] = []
  for (let i = 0; i < 4; i++) {
    const decision = decide(policy, history, 1_000_000)
    if (decision.action !== 'start') return t.fail()
    waits.push(decision.afterMs)
    history = decision.history
  }
  t.deepEqual(waits, [0, 100, 200, 10_000])
})

test('what must not be restarted is dropped', t => {
  t.deepEqual(decide({ ...policy, restart: 'never' }, noFailures, 5), { action: 'drop' })
})

const gaps = fc.array(fc.integer({ min: 0, max: 200_000 }), { minLength: 1, maxLength: 50 })

test('however it fails, the wait has its limit, and it rests exactly when it failed too often', t => {
  fc.assert(
    fc.property(gaps, list => {
      let history = noFailures
      let nowMs = 0
      for (const gap of list) {
        nowMs += gap
        const decayed = history.failures * 0.5 ** ((nowMs - history.lastMs) / policy.failureHalfLifeMs) + 1
        const decision = decide(policy, history, nowMs)
        if (decision.action !== 'start') return false
        if (decision.afterMs < 0 || decision.afterMs > policy.pauseMs) return false
        if (decision.resting !== decayed > policy.failuresMax) return false
        history = decision.history
      }
      return true
    }),
  )
  t.pass()
})

test('failures that are far apart never add up to a rest', t => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 60_000, max: 10_000_000 }), { maxLength: 50 }), list => {
      let history = noFailures
      let nowMs = 0
      return list.every(gap => {
        nowMs += gap
        const decision = decide(policy, history, nowMs)
        if (decision.action === 'start') history = decision.history
        return decision.action === 'start' && !decision.resting
      })
    }),
  )
  t.pass()
})
