/** The hasher pool: one thread a core, which come when there is work and end after a minute without. */
import { Piscina } from 'piscina'
import { toFailure } from '../../protocol/error.ts'
import type { HashResult, HashTask } from '../../protocol/ports.ts'

const IDLE_MS = 60_000
/** Leaves dealt to a thread at once: enough to hide the cost of a message, few enough to share the work. */
const BATCH_LEAVES = 64
/** A small file costs an open and two stats, about as much as this many leaves' hashing. */
const FILE_LEAVES = 0.5

export interface HasherPool {
  /** Results in the order of the tasks. Rejects only when the pool was closed; what failed for another reason is a result. */
  run(tasks: readonly HashTask[]): Promise<HashResult[]>
  close(): Promise<void>
}

/** @param threads most threads at a time, 1 or more */
export function createHasherPool(threads: number, workerFile = new URL('./worker.js', import.meta.url)): HasherPool {
  const piscina = new Piscina({
    filename: workerFile.href,
    minThreads: 0,
    maxThreads: threads,
    idleTimeout: IDLE_MS,
    concurrentTasksPerWorker: 1,
  })
  let closed = false

  /** A batch whose thread died is tried once more: a bad disk or a full memory should not fail what another thread can do. */
  async function runBatch(tasks: readonly HashTask[]): Promise<HashResult[]> {
    for (let attempt = 0; ; attempt++) {
      if (closed) throw new Error('the hasher pool was closed')
      try {
        return (await piscina.run(tasks)) as HashResult[]
      } catch (error) {
        if (closed) throw error
        if (attempt === 1) return tasks.map(() => ({ failure: toFailure(error) }))
      }
    }
  }

  return {
    async run(tasks) {
      return (await Promise.all(deal(tasks).map(runBatch))).flat()
    },
    async close() {
      closed = true
      await piscina.destroy()
    },
  }
}

/** Cuts a list of tasks into runs of about BATCH_LEAVES leaves, at least one task each. */
function deal(tasks: readonly HashTask[]): HashTask[][] {
  const batches: HashTask[][] = []
  let room = 0
  for (const task of tasks) {
    const cost = task.count + FILE_LEAVES
    if (room < cost) {
      batches.push([])
      room = BATCH_LEAVES
    }
    batches.at(-1)!.push(task)
    room -= cost
  }
  return batches
}
