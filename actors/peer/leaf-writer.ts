/**
 * Verifies leaves and writes them to their place in a staged file, and lets the disk begin with them at once. Knows nothing of
 * threads: a few leaves are written where they came in, many by a thread of their own (writer-thread.ts).
 */
import { writeSync } from 'node:fs'
import koffi from 'koffi'
import { type Failure, SyncError, toFailure } from '../../protocol/error.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import type { LeavesToWrite } from '../../protocol/ports.ts'
import { hashLeaves } from '../hasher/merkle.ts'

/** How far behind the last write a file must be on the disk: as much as a few requests bring. */
const BEHIND_BYTES = 32 * 1024 * 1024
/** Nobody reads a file of this size at once because it came in: it shall not push out of memory what people work with. */
const DROP_BYTES_MIN = 64 * 1024 * 1024

/**
 * Nothing of it is written unless all its leaves are right, nor once its download was stopped, as the first failure does. Zeros are written like anything else: what
 * is at their place may be left from an earlier attempt that was cut.
 *
 * @returns why not (`leaf_invalid`, `disk_failed`, `peer_closed`), or null
 */
export function writeLeaves({ fd, from, payload, hashes, stopped, ending }: LeavesToWrite): Failure | null {
  try {
    if (Buffer.compare(hashLeaves(payload), hashes) !== 0)
      throw new SyncError('leaf_invalid', `content of leaves from ${from} on does not fit its hash`)
    if (Atomics.load(stopped, 0) !== 0) throw new SyncError('peer_closed', 'not wanted any more')
    const start = from * LEAF_BYTES
    for (let written = 0; written < payload.length; )
      written += write(fd, payload, written, payload.length - written, start + written)
    if (ending) writeBehind(fd, ending.start, start + payload.length, ending.size)
    return null
  } catch (error) {
    if (!(error instanceof SyncError)) throw error
    Atomics.store(stopped, 0, 1)
    return toFailure(error)
  }
}

function write(fd: number, payload: Uint8Array, offset: number, length: number, position: number): number {
  try {
    return writeSync(fd, payload, offset, length, position)
  } catch (error) {
    throw diskFailed('write', (error as NodeJS.ErrnoException).code, error)
  }
}

export function diskFailed(what: string, code = 'unknown error', cause?: unknown): SyncError {
  return new SyncError('disk_failed', `${what} failed: ${code}`, { cause })
}

// Linux: sync_file_range(2), posix_fadvise(2)

const WAIT_BEFORE = 1
const WRITE = 2
const WAIT_AFTER = 4
const DONTNEED = 4

interface Calls {
  syncFileRange(fd: number, offset: number, bytes: number, flags: number): number
  fadvise(fd: number, offset: number, bytes: number, advice: number): number
}

let calls: Calls | null | undefined

function bind(): Calls | null {
  if (process.platform !== 'linux') return null
  try {
    const libc = koffi.load(null)
    return {
      syncFileRange: libc.func('int sync_file_range(int fd, int64_t offset, int64_t bytes, unsigned int flags)'),
      fadvise: libc.func('int posix_fadvise(int fd, int64_t offset, int64_t bytes, int advice)'),
    }
  } catch {
    return null
  }
}

/**
 * Has the disk begin with bytes [start, end), and waits for those that lie a while behind: what was not begun would all have to be
 * waited for at the end, and a disk that is slower than the network must hold it back. Makes nothing durable.
 * Throws `disk_failed`.
 */
function writeBehind(fd: number, start: number, end: number, size: number): void {
  calls ??= bind()
  if (!calls) return
  range(calls, fd, start, end, WRITE)
  const [first, last] = [Math.max(0, start - BEHIND_BYTES), Math.max(0, end - BEHIND_BYTES)]
  if (last === first) return
  range(calls, fd, first, last, WAIT_BEFORE | WRITE | WAIT_AFTER)
  // Memory that a file has just left is also the fastest to take for the next part of it.
  if (size >= DROP_BYTES_MIN) calls.fadvise(fd, first, last - first, DONTNEED)
}

const FAULTS = new Set([koffi.os.errno.EIO, koffi.os.errno.ENOSPC, koffi.os.errno.EDQUOT])

/** A file system that cannot do this writes when it likes. */
function range({ syncFileRange }: Calls, fd: number, start: number, end: number, flags: number): void {
  if (syncFileRange(fd, start, end - start, flags) === 0) return
  const errno = koffi.errno()
  if (FAULTS.has(errno)) throw diskFailed('write', koffi.os.errno.EIO === errno ? 'EIO' : 'ENOSPC')
}
