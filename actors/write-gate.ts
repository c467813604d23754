/**
 * Lets a thread be killed without killing it inside a transaction of its store.
 *
 * `worker.terminate()` that lands inside an LMDB write transaction leaves the environment's lock taken, and the whole
 * process waits for it for ever. So both sides share two integers: the worker says when it is inside, the killer says
 * that nobody may go in any more, waits until nobody is, and only then terminates.
 */
import type { Worker } from 'node:worker_threads'
import { SyncError } from '../protocol/error.ts'

/** 1 once the gate is closed. */
const CLOSED = 0
/** How deep the worker is inside; 0: outside. */
const INSIDE = 1

/** How long a closed gate waits for the one inside to come out. */
export const GATE_WAIT_MS = 5_000
/** How long a worker at a closed gate waits to be terminated before it throws. */
const PARK_MS = 30_000

/** A new, open gate, for `workerData`. */
export function createGate(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(8))
}

/**
 * Before a write transaction. At a closed gate this does not return: the thread stops here until it is terminated
 * (or throws `internal` after PARK_MS, if nobody does). Entering again while inside is allowed.
 */
export function enter(gate: Int32Array): void {
  // First in, then look: the killer closes first and looks afterwards, so one of both sees the other.
  if (Atomics.add(gate, INSIDE, 1) > 0) return
  if (Atomics.load(gate, CLOSED) === 0) return
  leave(gate)
  Atomics.wait(gate, CLOSED, 1, PARK_MS)
  throw new SyncError('internal', 'the thread is being stopped')
}

/** After the transaction, whatever its outcome. */
export function leave(gate: Int32Array): void {
  if (Atomics.sub(gate, INSIDE, 1) === 1) Atomics.notify(gate, INSIDE)
}

/** Runs a synchronous action inside the gate. */
export function within<Result>(gate: Int32Array, action: () => Result): Result {
  enter(gate)
  try {
    return action()
  } finally {
    leave(gate)
  }
}

/** Closes the gate; true once nobody is inside, false if somebody still is after `waitMs`. */
export async function close(gate: Int32Array, waitMs = GATE_WAIT_MS): Promise<boolean> {
  Atomics.store(gate, CLOSED, 1)
  const endMs = performance.now() + waitMs
  for (;;) {
    const inside = Atomics.load(gate, INSIDE)
    if (inside === 0) return true
    const leftMs = endMs - performance.now()
    if (leftMs <= 0) return false
    const waiting = Atomics.waitAsync(gate, INSIDE, inside, leftMs)
    if (waiting.async) await keepingAlive(waiting.value, leftMs)
  }
}

/** A pending `waitAsync` does not keep the event loop alive; its timer does. */
async function keepingAlive<Value>(promise: Promise<Value>, limitMs: number): Promise<Value> {
  const timer = setTimeout(() => {}, limitMs + 1000)
  try {
    return await promise
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Ends a thread at a moment when it is not inside a transaction. False, and the thread left alone, if it did not come
 * out of one in time: terminating it then could stop the whole process.
 */
export async function closeThenTerminate(worker: Worker, gate: Int32Array, waitMs = GATE_WAIT_MS): Promise<boolean> {
  if (!(await close(gate, waitMs))) return false
  await worker.terminate()
  return true
}
