import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { close, closeThenTerminate, createGate, enter, leave, within } from '../../actors/write-gate.ts'

function start(stay: boolean) {
  const gate = createGate()
  const witness = new Int32Array(new SharedArrayBuffer(8))
  const worker = new Worker(new URL('./_gate-worker.js', import.meta.url), { workerData: { gate, witness, stay } })
  return { gate, witness, worker }
}

test('a thread that goes in and out without pause is never terminated inside', async t => {
  for (let round = 0; round < 5; round++) {
    const { gate, witness, worker } = start(false)
    await once(worker, 'message')
    t.true(await closeThenTerminate(worker, gate))
    t.is(Atomics.load(witness, 0), 0)
    t.is(Atomics.load(gate, 1), 0)
  }
})

test('a thread that does not come out is left alone', async t => {
  const { gate, witness, worker } = start(true)
  await once(worker, 'message')
  t.false(await closeThenTerminate(worker, gate, 50))
  t.not(worker.threadId, -1)
  // Once it is out, it can be ended.
  Atomics.store(witness, 0, 1)
  Atomics.notify(witness, 0)
  t.true(await closeThenTerminate(worker, gate))
})

test('inside may be entered again, and a closed gate does not stop who is in already', async t => {
  const gate = createGate()
  enter(gate)
  const closing = close(gate, 10_000)
  within(gate, () => t.pass())
  leave(gate)
  t.true(await closing)
})

test('an action that throws leaves the gate', t => {
  const gate = createGate()
  t.throws(
    () =>
      within(gate, () => {
        throw new Error('no')
      }),
    { message: 'no' },
  )
  t.is(gate[1], 0)
})
