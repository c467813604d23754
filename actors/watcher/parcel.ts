/** Folder trees watched with @parcel/watcher: FSEvents on macOS, ReadDirectoryChangesW on Windows, its inotify where ours is missing. */
import { realpathSync } from 'node:fs'
import { relative, sep } from 'node:path'
import watcher from '@parcel/watcher'
import { type SourceEvents, type Subscription, watchFault } from './source.ts'

/** Subscribes by @parcel/watcher. See `Subscribe`. */
export async function subscribeParcel(
  root: string,
  ignored: readonly string[],
  on: SourceEvents,
): Promise<Subscription> {
  let stopped = false
  try {
    const real = realpathSync(root)
    const subscription = await watcher.subscribe(
      real,
      (error, events) => {
        if (stopped) return
        if (error !== null) return on.touched(null)
        const paths = events.map(event => relative(real, event.path))
        if (paths.includes('')) {
          stopped = true
          return on.lost(watchFault('ENOENT', root))
        }
        on.touched(sep === '/' ? paths : paths.map(path => path.replaceAll(sep, '/')))
      },
      { ignore: [...ignored] },
    )
    return {
      async stop() {
        stopped = true
        await subscription.unsubscribe()
      },
    }
  } catch (error) {
    throw new Error(watchFault(codeOf(error), root))
  }
}

/** The native module says the errno in words only. */
function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if ('code' in error && typeof error.code === 'string') return error.code
  if (error.message.includes('No space left on device')) return 'ENOSPC'
  if (error.message.includes('Too many open files')) return 'EMFILE'
  return error.message
}
