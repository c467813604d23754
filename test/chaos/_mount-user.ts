/** A user of one peer who works through its mount, as the run of chaos sees them. */
import { Worker } from 'node:worker_threads'
import { within } from '../_deadline.ts'
import { Violation } from './_check.ts'
import type { Told } from './_ledger.ts'
import type { MountOrder, MountReport } from './_mount-worker.ts'
import type { Act } from './_plan.ts'

/** Longest wait for what a program has begun, once everything is healed. */
const REST_MS = 180_000

export class MountUser {
  readonly name: string
  deleted = 0
  undone = 0
  readonly #worker: Worker
  readonly #rested: ((error: Error | null) => void)[] = []

  /** @param root the arena's folder in the mount; `below`: on the disk */
  constructor(name: string, root: string, below: string, told: Told) {
    this.name = name
    this.#worker = new Worker(new URL('./_mount-worker.js', import.meta.url), { workerData: { name, root, below } })
    this.#worker.on('message', (report: MountReport) => {
      if (report.is === 'acted') told.acted(...report.words)
      else if (report.is === 'passed') told.passed(...report.words)
      else if (report.is === 'read') told.read(...report.words)
      else {
        this.deleted = report.deleted
        this.undone = report.undone
        this.#rested.shift()?.(null)
      }
    })
    this.#worker.on('error', error => {
      for (const over of this.#rested.splice(0)) over(error)
      this.#failure = error
    })
  }
  #failure: Error | null = null

  begin(round: number, seed: number): void {
    this.#order({ do: 'begin', round, seed })
  }

  act(act: Act): void {
    this.#order({ do: 'act', act })
  }

  tidy(pathsMax: number, bytesMax: number): void {
    this.#order({ do: 'tidy', pathsMax, bytesMax })
  }

  clear(path: string): void {
    this.#order({ do: 'clear', path })
  }

  /** Until what was begun has ended. */
  async rest(): Promise<void> {
    if (this.#failure) throw this.#failure
    const rested = new Promise<void>((resolve, reject) => {
      this.#rested.push(error => (error ? reject(error) : resolve()))
    })
    this.#order({ do: 'rest' })
    try {
      await within(REST_MS, `the programs of ${this.name} come to an end`, rested)
    } catch (error) {
      throw new Violation('a program hangs at the mount', String(error))
    }
  }

  async close(): Promise<void> {
    await this.#worker.terminate()
  }

  #order(order: MountOrder): void {
    this.#worker.postMessage(order)
  }
}
