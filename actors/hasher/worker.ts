/**
 * A hasher's thread: piscina tasks that hash parts of files, and those of patch.ts. It decides nothing: a file that is not what the
 * task says, before or after the reading, is `changed`. Synchronous, as the thread has nothing else to do.
 */
import { closeSync } from 'node:fs'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import type { HashResult, HashTask, PatchResult, PatchTask } from '../../protocol/ports.ts'
import { fill, fits, openToRead, systemFiles } from './files.ts'
import { HASH_BYTES, hashLeaves, leafCount } from './merkle.ts'
import { perform } from './patch.ts'

/** Bytes read at a time: whole leaves. */
const PIECE_BYTES = 8 * LEAF_BYTES

let piece: Buffer | undefined

/** Hashes each task's part; results in the same order. Never throws for a file's sake. */
export default function hashAll(tasks: readonly HashTask[]): HashResult[] {
  return tasks.map(hashOne)
}

export function patch(task: PatchTask): PatchResult {
  return perform(task, systemFiles)
}

function hashOne(task: HashTask): HashResult {
  let fd: number | null = null
  try {
    fd = openToRead(task.path)
    if (fd === null || !fits(fd, task)) return { changed: true }
    const first = task.from
    const last = Math.min(first + task.count, leafCount(task.size))
    const leaves = new Uint8Array(Math.max(0, last - first) * HASH_BYTES)
    const end = Math.min(last * LEAF_BYTES, task.size)
    piece ??= Buffer.allocUnsafeSlow(PIECE_BYTES)
    for (let offset = first * LEAF_BYTES, at = 0; offset < end; ) {
      const length = Math.min(PIECE_BYTES, end - offset)
      if (fill(fd, piece, length, offset) < length) return { changed: true }
      const hashes = hashLeaves(piece.subarray(0, length))
      leaves.set(hashes, at)
      at += hashes.length
      offset += length
    }
    return fits(fd, task) ? { leaves } : { changed: true }
  } catch (error) {
    return { failure: { code: 'disk_failed', message: (error as Error).message } }
  } finally {
    if (fd !== null) closeSync(fd)
  }
}
