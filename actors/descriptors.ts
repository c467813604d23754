/**
 * Descriptors that belong to a thread, written down where its death does not take them: a thread that is killed runs nothing
 * any more, and a descriptor that was handed to it – perhaps still on its way – would stay open for ever.
 *
 * A table of shared integers, one for each life of a thread. Who hands a descriptor over notes it first; the thread forgets it
 * when it closes it; whoever saw the thread end sweeps what is left. Each note is taken out by exactly one of them.
 */
import { closeSync } from 'node:fs'
import koffi from 'koffi'

/** Descriptors in a table: more are handed over all the same, and are lost if the thread is killed. */
const NOTES_MAX = 8192
/** The first integer: 1 once the table has been swept. */
const SWEPT = 0

export type DescriptorTable = Int32Array

export function createDescriptorTable(): DescriptorTable {
  return new Int32Array(new SharedArrayBuffer(4 * (1 + NOTES_MAX)))
}

/** Before a descriptor is handed over. False: the thread is gone, and the descriptor is still the caller's. */
export function noteDescriptor(table: DescriptorTable, fd: number): boolean {
  // A free place may be taken by another thread between the look and the step: look again.
  for (let place = table.indexOf(0, 1); place > 0; place = table.indexOf(0, place)) {
    if (Atomics.compareExchange(table, place, 0, fd + 1) !== 0) continue
    // Swept before it saw the note: then it is taken back; or after, and it has been closed.
    return Atomics.load(table, SWEPT) === 0 || Atomics.compareExchange(table, place, fd + 1, 0) !== fd + 1
  }
  return Atomics.load(table, SWEPT) === 0
}

/** The thread closes it itself, or something else does from here on. */
export function forgetDescriptor(table: DescriptorTable, fd: number): void {
  const place = table.indexOf(fd + 1, 1)
  if (place > 0) Atomics.compareExchange(table, place, fd + 1, 0)
}

/** After the thread has ended: closes what it left. Returns how many. */
export function sweepDescriptors(table: DescriptorTable): number {
  Atomics.store(table, SWEPT, 1)
  let swept = 0
  for (let place = 1; place < table.length; place++) {
    const note = Atomics.exchange(table, place, 0)
    if (note === 0) continue
    closeDescriptor(note - 1)
    swept++
  }
  return swept
}

const closeRaw: ((fd: number) => number) | undefined =
  process.platform === 'win32' ? undefined : koffi.load(null).func('int close(int)')

/**
 * Closes a descriptor that another thread opened. Past Node, which keeps a list of descriptors for each thread and warns of
 * strangers. Nothing hangs on what close says: downloads are made durable by the arena, by another way.
 */
export function closeDescriptor(fd: number): void {
  if (closeRaw) {
    closeRaw(fd)
    return
  }
  try {
    closeSync(fd)
  } catch {
    // It was none.
  }
}
