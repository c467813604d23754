/** The two calls of the system that Node does not have: locking a file, and leaving without tidying up. */
import { closeSync, openSync } from 'node:fs'
import koffi from 'koffi'

const LOCK_EXCLUSIVE = 2
const LOCK_WITHOUT_WAITING = 4

/** Undefined where there is no such call. */
function systemCall(declaration: string): ((...args: number[]) => number) | undefined {
  if (process.platform === 'win32') return undefined
  try {
    return koffi.load(null).func(declaration) as (...args: number[]) => number
  } catch {
    return undefined
  }
}

/**
 * Takes a file's lock for the life of this process; the kernel gives it back however the process ends. Null: another
 * process has it. Where there is no `flock` (Windows) the lock is always given: the named pipe of the control socket
 * cannot be had twice there.
 */
export function lockFile(path: string): { release(): void } | null {
  const flock = systemCall('int flock(int fd, int operation)')
  const fd = openSync(path, 'a', 0o600)
  if (flock && flock(fd, LOCK_EXCLUSIVE | LOCK_WITHOUT_WAITING) !== 0) {
    closeSync(fd)
    return null
  }
  return { release: () => closeSync(fd) }
}

/**
 * Ends the process at once. `process.exit` waits for the worker threads, and one that is stuck in a transaction of its
 * store would keep it waiting for ever.
 */
export function exitNow(code: number): never {
  systemCall('void _exit(int status)')?.(code)
  process.exit(code)
}
