/** The hasher pool as an actor: it can be lost and is then made anew, and what it had not finished is asked again. */
import { createHasherPool, type HasherPool } from '../actors/hasher/pool.ts'
import type { ActorStatus } from '../protocol/control.ts'
import type { HashResult, HashTask, PatchResult, PatchTask } from '../protocol/ports.ts'

export class Hasher implements HasherPool {
  readonly name = 'hasher'
  readonly #threads: number
  #pool: HasherPool
  #restarts = 0
  #running = 0
  #closed = false

  constructor(threads: number) {
    this.#threads = threads
    this.#pool = createHasherPool(threads)
  }

  run(tasks: readonly HashTask[]): Promise<HashResult[]> {
    return this.#ask(tasks.length, pool => pool.run(tasks))
  }

  patch(task: PatchTask): Promise<PatchResult> {
    return this.#ask(1, pool => pool.patch(task))
  }

  async #ask<Result>(tasks: number, run: (pool: HasherPool) => Promise<Result>): Promise<Result> {
    const pool = this.#pool
    this.#running += tasks
    try {
      return await run(pool)
    } catch (error) {
      if (this.#closed || pool === this.#pool) throw error
      return await run(this.#pool)
    } finally {
      this.#running -= tasks
    }
  }

  /** All its threads end at once, as in a crash. */
  async kill(): Promise<void> {
    const lost = this.#pool
    this.#pool = createHasherPool(this.#threads)
    this.#restarts++
    await lost.close()
  }

  close(): Promise<void> {
    this.#closed = true
    return this.#pool.close()
  }

  get actor(): ActorStatus {
    return { name: this.name, thread: null, restarts: this.#restarts, mailbox: this.#running, lastError: null }
  }
}
