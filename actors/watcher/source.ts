/** Where events of a folder tree come from: inotify on Linux (inotify.ts), @parcel/watcher elsewhere (parcel.ts). */

export interface SourceEvents {
  /** Root-relative paths, `/` between names, that may have changed; null: anything may have. Not sorted, may repeat. */
  touched(paths: string[] | null): void
  /** The source has ended by itself: the root is gone, or there are not enough watches. Called at most once, after the subscription. */
  lost(reason: string): void
}

export interface Subscription {
  /** After this nothing is told any more. */
  stop(): Promise<void>
}

/** Rejects with an Error whose message can be shown, if the tree cannot be watched. */
export type Subscribe = (root: string, ignored: readonly string[], on: SourceEvents) => Promise<Subscription>

/** What to tell of an errno name. */
export function watchFault(code: string, root: string): string {
  switch (code) {
    case 'ENOSPC':
      return 'there are more folders than this system may watch: raise fs.inotify.max_user_watches (as root: sysctl fs.inotify.max_user_watches=1048576)'
    case 'EMFILE':
    case 'ENFILE':
      return 'too many programs watch folders: raise fs.inotify.max_user_instances (as root: sysctl fs.inotify.max_user_instances=1024)'
    case 'ENOENT':
      return `the folder '${root}' is missing`
    case 'ENOTDIR':
      return `'${root}' is not a folder`
    case 'EACCES':
      return `no permission to read the folder '${root}'`
    default:
      return `the folder '${root}' cannot be watched: ${code}`
  }
}
