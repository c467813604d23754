/** Goes in and out of the gate for ever; with `stay`, goes in and does not come out. */
import { parentPort, workerData } from 'node:worker_threads'
import { enter, leave } from '../../actors/write-gate.ts'

const { gate, witness, stay } = workerData as { gate: Int32Array; witness: Int32Array; stay: boolean }

/** Turns until the main thread has been told that this one runs. */
const TELL_AFTER = 100

enter(gate)
if (stay) {
  parentPort?.postMessage('inside')
  Atomics.wait(witness, 0, 0)
}
leave(gate)
for (let turn = 0; ; turn++) {
  enter(gate)
  Atomics.store(witness, 0, 1)
  for (let i = 0; i < 1000; i++) Atomics.add(witness, 1, 1)
  Atomics.store(witness, 0, 0)
  leave(gate)
  if (turn === TELL_AFTER) parentPort?.postMessage('running')
}
