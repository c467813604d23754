/**
 * The thread that verifies and writes leaves for all connections of one thread, while that one decrypts the next. It comes with the
 * first big download and goes when there has been none for a while.
 */
import { Worker } from 'node:worker_threads'
import type { Failure } from '../../protocol/error.ts'
import type { LeavesToWrite, WriterOrder, WriterReport } from '../../protocol/ports.ts'
import { enter, leave } from '../write-gate.ts'
import { writeLeaves } from './leaf-writer.ts'

const IDLE_MS = 10_000
/** Run from the compiled output or, in development, from the sources: with this file's own ending. */
const ENTRY = new URL(`./writer-worker${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url)

/** With null it is written. Nobody reads the payload any more. */
export type Written = (failure: Failure | null) => void

export interface LeafWriter {
  /** Of all that `write` was given and that has not been written. */
  readonly unwrittenBytes: number
  /** `written` follows, once. */
  write(leaves: LeavesToWrite, written: Written): void
}

/** In this thread, at once. */
export const writerHere: LeafWriter = {
  unwrittenBytes: 0,
  write: (leaves, written) => written(writeLeaves(leaves)),
}

/** `ended`: by a fault, and none is made anew until nothing has been written for a while. */
type Thread = { is: 'loading' | 'ready'; worker: Worker } | { is: 'none' | 'ended' }

export class WriterThread implements LeafWriter {
  readonly #gate: Int32Array
  readonly #entry: URL
  readonly #rested: () => void
  readonly #waiting = new Map<number, Written>()
  unwrittenBytes = 0
  #thread: Thread = { is: 'none' }
  #number = 0
  #idle: NodeJS.Timeout | undefined

  /**
   * @param gate of this thread (write-gate.ts): it must not be terminated while the writer's thread loads its native modules
   * @param rested called when nothing has been written for a while
   */
  constructor(gate: Int32Array, rested: () => void = () => {}, entry = ENTRY) {
    this.#gate = gate
    this.#rested = rested
    this.#entry = entry
  }

  get ready(): boolean {
    return this.#thread.is === 'ready'
  }

  /** Nothing waits for the thread to come: until it has, and without it, leaves are written here. */
  write(leaves: LeavesToWrite, written: Written): void {
    this.#idle ??= setTimeout(() => this.#rest(), IDLE_MS).unref()
    this.#idle.refresh()
    if (this.#thread.is === 'none') this.#start()
    if (this.#thread.is !== 'ready') {
      writerHere.write(leaves, written)
      return
    }
    const id = ++this.#number
    const { length } = leaves.payload
    this.unwrittenBytes += length
    this.#waiting.set(id, failure => {
      this.unwrittenBytes -= length
      written(failure)
    })
    this.#thread.worker.ref()
    this.#thread.worker.postMessage({ id, leaves } satisfies WriterOrder)
  }

  #start(): void {
    enter(this.#gate)
    const worker = new Worker(this.#entry, { name: 'leaf writer', trackUnmanagedFds: false })
    const thread: Thread = { is: 'loading', worker }
    this.#thread = thread
    const loaded = () => {
      if (thread.is === 'loading') leave(this.#gate)
      thread.is = 'ready'
    }
    let reason = 'the thread that writes has ended'
    worker.on('message', (report: WriterReport) => {
      if (report.type === 'written') return this.#written(report.id, report.failure)
      loaded()
      // At rest it may end with this thread.
      worker.unref()
    })
    worker.on('error', error => {
      reason = `the thread that writes has failed: ${error instanceof Error ? error.message : String(error)}`
    })
    worker.on('exit', () => {
      loaded()
      if (this.#thread !== thread) return
      this.#thread = { is: 'ended' }
      for (const id of [...this.#waiting.keys()]) this.#written(id, { code: 'disk_failed', message: reason })
    })
  }

  #written(id: number, failure: Failure | null): void {
    const written = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (this.#waiting.size === 0 && this.#thread.is === 'ready') this.#thread.worker.unref()
    written?.(failure)
  }

  /** Nothing has come to be written for a while. */
  #rest(): void {
    const thread = this.#thread
    if (thread.is === 'loading' || this.#waiting.size > 0) {
      this.#idle?.refresh()
      return
    }
    this.#thread = { is: 'none' }
    if (thread.is === 'ready') void thread.worker.terminate()
    this.#rested()
  }
}
