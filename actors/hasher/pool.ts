/** The hasher pool: one thread a core, which come when there is work and end after a minute without. */
import { Piscina } from 'piscina'
import { type Failure, toFailure } from '../../protocol/error.ts'
import type { HashResult, HashTask, PatchResult, PatchTask } from '../../protocol/ports.ts'

const IDLE_MS = 60_000
/** Leaves dealt to a thread at once: enough to hide the cost of a message, few enough to share the work. */
const BATCH_LEAVES = 64
/** A small file costs an open and two stats, about as much as this many leaves' hashing. */
const FILE_LEAVES = 0.5

export interface HasherPool {
  /** Results in the order of the tasks. Rejects only when the pool was closed; what failed for another reason is a result. */
  run(tasks: readonly HashTask[]): Promise<HashResult[]>
  /** Rejects only when the pool was closed. */
  patch(task: PatchTask): Promise<PatchResult>
  close(): Promise<void>
}

/** @param threads most threads at a time, 1 or more */
export function createHasherPool(threads: number, workerFile = new URL('./worker.js', import.meta.url)): HasherPool {
  let piscina = makePiscina()
  let closed = false

  function makePiscina(): Piscina {
    const made = new Piscina({
      filename: workerFile.href,
      minThreads: 0,
      maxThreads: threads,
      idleTimeout: IDLE_MS,
      concurrentTasksPerWorker: 1,
    })
    // A thread that cannot even start, as without descriptors, fails no task: the queue would wait for ever.
    made.on('error', () => {
      if (closed || piscina !== made) return
      piscina = makePiscina()
      void made.destroy()
    })
    return made
  }

  /** Work whose thread died is tried once more: a bad disk or a full memory should not fail what another thread can do. */
  async function attempt<Result>(run: () => Promise<Result>, failed: (failure: Failure) => Result): Promise<Result> {
    for (let again = false; ; again = true) {
      if (closed) throw new Error('the hasher pool was closed')
      try {
        return await run()
      } catch (error) {
        if (closed) throw error
        if (again) return failed(toFailure(error))
      }
    }
  }

  const runBatch = (tasks: readonly HashTask[]): Promise<HashResult[]> =>
    attempt(
      () => piscina.run(tasks),
      failure => tasks.map(() => ({ failure })),
    )

  return {
    async run(tasks) {
      return (await Promise.all(deal(tasks).map(runBatch))).flat()
    },
    patch: task =>
      attempt<PatchResult>(
        () => piscina.run(task, { name: 'patch' }),
        failure => ({ failure }),
      ),
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
