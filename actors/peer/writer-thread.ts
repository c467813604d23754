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
  /** `written` follows, once. */
  write(leaves: LeavesToWrite, written: Written): void
}

/** In this thread, at once. */
export const writerHere: LeafWriter = {
  write: (leaves, written) => written(writeLeaves(leaves)),
}

export class WriterThread implements LeafWriter {
  readonly #gate: Int32Array
  readonly #entry: URL
  readonly #waiting = new Map<number, Written>()
  #worker: Worker | null = null
  #number = 0
  #idle: NodeJS.Timeout | undefined

  /** @param gate of this thread (write-gate.ts): it must not be terminated while the writer's thread loads its native modules */
  constructor(gate: Int32Array, entry = ENTRY) {
    this.#gate = gate
    this.#entry = entry
  }

  write(leaves: LeavesToWrite, written: Written): void {
    clearTimeout(this.#idle)
    this.#worker ??= this.#start()
    const id = ++this.#number
    this.#waiting.set(id, written)
    this.#worker.postMessage({ id, leaves } satisfies WriterOrder)
  }

  #start(): Worker {
    enter(this.#gate)
    let loading = true
    const loaded = () => {
      if (loading) leave(this.#gate)
      loading = false
    }
    const worker = new Worker(this.#entry, { name: 'leaf writer', trackUnmanagedFds: false })
    let reason = 'the thread that writes has ended'
    worker.on('message', (report: WriterReport) => {
      if (report.type === 'written') return this.#written(report.id, report.failure)
      loaded()
      // From now on it may end with this thread.
      worker.unref()
    })
    worker.on('error', error => {
      reason = `the thread that writes has failed: ${error instanceof Error ? error.message : String(error)}`
    })
    worker.on('exit', () => {
      loaded()
      if (this.#worker !== worker) return
      this.#worker = null
      for (const id of [...this.#waiting.keys()]) this.#written(id, { code: 'disk_failed', message: reason })
    })
    return worker
  }

  #written(id: number, failure: Failure | null): void {
    const written = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (this.#waiting.size === 0) this.#rest()
    written?.(failure)
  }

  #rest(): void {
    clearTimeout(this.#idle)
    this.#idle = setTimeout(() => {
      const worker = this.#worker
      this.#worker = null
      void worker?.terminate()
    }, IDLE_MS).unref()
  }
}
