/**
 * Tells an arena what was touched in its root. Hosted on the main thread: a module that blocks or keeps threads of its own
 * does not survive the end of a worker.
 *
 * It says too much rather than too little: a path that is told may have changed, or not; a folder that is told is to be
 * listed; `null` means look at everything. What it cannot tell (it does not work, or did not for a while) it says, too.
 */
import { OWN_FOLDER } from '../../protocol/path.ts'
import { COALESCE_LIMITS, Coalescer, type Touched } from './coalesce.ts'
import { hasInotify, subscribeInotify } from './inotify.ts'
import { subscribeParcel } from './parcel.ts'
import type { Subscribe, Subscription } from './source.ts'

export interface WatchOptions {
  /** Folders, relative to the root, that need not be watched. Our own never is. */
  ignored: readonly string[]
  /** First and longest pause before trying again after a failure. */
  retryMs?: number
  retryMsMax?: number
  /** Where events come from; the best of this system if nothing is said. */
  subscribe?: Subscribe
}

export interface WatchEvents {
  /** Paths relative to the root, `/` between names, each once. null: anything may have changed, as after each start of the watching. */
  touched(paths: string[] | null): void
  /** Why it does not work, and what to do; null once it works. It goes on trying by itself. */
  fault(reason: string | null): void
}

export interface Watcher {
  /** Nothing is told after this was called; the promise waits for the system's side to end. */
  stop(): Promise<void>
}

const RETRY_MS = 1000
const RETRY_MS_MAX = 5 * 60_000

export function watchRoot(root: string, options: WatchOptions, on: WatchEvents): Watcher {
  const subscribe = options.subscribe ?? (hasInotify ? subscribeInotify : subscribeParcel)
  const retryMsMax = options.retryMsMax ?? RETRY_MS_MAX
  const coalescer = new Coalescer(COALESCE_LIMITS)
  let stopped = false
  let subscription: Subscription | undefined
  let retryMs = options.retryMs ?? RETRY_MS
  let retryTimer: NodeJS.Timeout | undefined
  let dueTimer: NodeJS.Timeout | undefined
  let starting = start()

  async function start(): Promise<void> {
    let lost: string | undefined
    try {
      const started = await subscribe(root, [OWN_FOLDER, ...options.ignored], {
        touched: paths => deliver(coalescer.touch(paths, performance.now())),
        lost: reason => {
          lost = reason
          if (subscription !== undefined) failed(reason)
        },
      })
      if (stopped || lost !== undefined) {
        await started.stop()
        if (lost !== undefined) failed(lost)
        return
      }
      subscription = started
      retryMs = options.retryMs ?? RETRY_MS
      on.fault(null)
      // What happened before nobody has seen.
      deliver(coalescer.touch(null, performance.now()))
    } catch (error) {
      failed(error instanceof Error ? error.message : String(error))
    }
  }

  function failed(reason: string): void {
    if (stopped) return
    const ended = subscription
    subscription = undefined
    // What has failed may fail once more at its end.
    const ending = Promise.resolve(ended?.stop()).catch(() => undefined)
    starting = starting.then(() => ending)
    on.fault(reason)
    retryTimer = setTimeout(() => {
      starting = starting.then(start)
    }, retryMs)
    retryMs = Math.min(retryMs * 2, retryMsMax)
  }

  function deliver(touched: Touched | undefined): void {
    if (stopped) return
    if (touched !== undefined) on.touched(touched)
    if (coalescer.dueMs === null || dueTimer !== undefined) return
    dueTimer = setTimeout(
      () => {
        dueTimer = undefined
        deliver(coalescer.due(performance.now()))
      },
      Math.max(1, Math.ceil(coalescer.dueMs - performance.now())),
    )
  }

  return {
    async stop() {
      stopped = true
      clearTimeout(retryTimer)
      clearTimeout(dueTimer)
      await starting
      await subscription?.stop()
    },
  }
}
