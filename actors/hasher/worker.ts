/**
 * A hasher's thread: a piscina task that hashes parts of files. It decides nothing: a file that is not what the task says, before
 * or after the reading, is `changed`. Synchronous, as the thread has nothing else to do.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import type { HashResult, HashTask } from '../../protocol/ports.ts'
import { HASH_BYTES, hashLeaves, leafCount } from './merkle.ts'

/** Bytes read at a time: whole leaves. */
const PIECE_BYTES = 8 * LEAF_BYTES

/** Absent on Windows, where a link at the end is found by its inode. A FIFO must not hang us. */
const OPEN_FLAGS = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0)

/** Errors that mean: what was there is gone or something else now. */
const GONE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'EISDIR'])

let piece: Buffer | undefined

/** Hashes each task's part; results in the same order. Never throws for a file's sake. */
export default function hashAll(tasks: readonly HashTask[]): HashResult[] {
  return tasks.map(hashOne)
}

function hashOne(task: HashTask): HashResult {
  let fd: number
  try {
    fd = openSync(task.path, OPEN_FLAGS)
  } catch (error) {
    return asResult(error)
  }
  try {
    if (!fits(fd, task)) return { changed: true }
    const first = task.from
    const last = Math.min(first + task.count, leafCount(task.size))
    const leaves = new Uint8Array(Math.max(0, last - first) * HASH_BYTES)
    const end = Math.min(last * LEAF_BYTES, task.size)
    piece ??= Buffer.allocUnsafeSlow(PIECE_BYTES)
    for (let offset = first * LEAF_BYTES, at = 0; offset < end; ) {
      const length = Math.min(PIECE_BYTES, end - offset)
      if (!fill(fd, piece, length, offset)) return { changed: true }
      const hashes = hashLeaves(piece.subarray(0, length))
      leaves.set(hashes, at)
      at += hashes.length
      offset += length
    }
    return fits(fd, task) ? { leaves } : { changed: true }
  } catch (error) {
    return asResult(error)
  } finally {
    closeSync(fd)
  }
}

function fits(fd: number, task: HashTask): boolean {
  const stat = fstatSync(fd, { bigint: true })
  return stat.isFile() && stat.size === BigInt(task.size) && stat.mtimeNs === task.mtimeNs && stat.ino === task.ino
}

/** Reads exactly `length` bytes; false if the file ends before. */
function fill(fd: number, buffer: Buffer, length: number, offset: number): boolean {
  for (let filled = 0; filled < length; ) {
    const count = readSync(fd, buffer, filled, length - filled, offset + filled)
    if (count === 0) return false
    filled += count
  }
  return true
}

function asResult(error: unknown): HashResult {
  const { code, message } = error as NodeJS.ErrnoException
  if (code !== undefined && GONE.has(code)) return { changed: true }
  return { failure: { code: 'disk_failed', message } }
}
