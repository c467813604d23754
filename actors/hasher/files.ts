/**
 * Files as the tasks of a hasher's thread see them: opened by path, without following a symlink at the end, and used only if they are
 * what the task says.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, writeSync } from 'node:fs'
import type { FileRef, SlotRef } from '../../protocol/ports.ts'
import type { Files, Slot } from './patch.ts'

/** Absent on Windows, where a link at the end is found by its inode. A FIFO must not hang us. */
const SAFE_FLAGS = (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0)

/** Errors that mean: what was there is gone or something else now. */
const GONE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'EISDIR'])

/** Descriptor for reading; null if what was there is gone or something else. Throws what else the disk says. */
export function openToRead(path: string): number | null {
  return openIfThere(path, constants.O_RDONLY)
}

function openIfThere(path: string, flags: number): number | null {
  try {
    return openSync(path, flags | SAFE_FLAGS)
  } catch (error) {
    if (GONE.has((error as NodeJS.ErrnoException).code ?? '')) return null
    throw error
  }
}

export function fits(fd: number, file: FileRef): boolean {
  const stat = fstatSync(fd, { bigint: true })
  return stat.isFile() && stat.size === BigInt(file.size) && stat.mtimeNs === file.mtimeNs && stat.ino === file.ino
}

/** Reads up to `length` bytes; fewer where the file ends. */
export function fill(fd: number, buffer: Uint8Array, length: number, offset: number): number {
  let filled = 0
  while (filled < length) {
    const count = readSync(fd, buffer, filled, length - filled, offset + filled)
    if (count === 0) break
    filled += count
  }
  return filled
}

export const systemFiles: Files = {
  open(file) {
    const fd = openToRead(file.path)
    if (fd === null) return null
    if (!fits(fd, file)) {
      closeSync(fd)
      return null
    }
    return {
      size: file.size,
      read: (at, into) => fill(fd, into, into.length, at),
      close: () => closeSync(fd),
    }
  },
  slot(slot) {
    const fd = openIfThere(slot.path, constants.O_WRONLY)
    if (fd === null) return null
    if (isAt(slot)) return openedSlot(fd, slot)
    closeSync(fd)
    return null
  },
}

function openedSlot(fd: number, slot: SlotRef): Slot {
  return {
    write(at, bytes) {
      // Once it has taken its place in the tree it is a user's file.
      if (!isAt(slot)) return false
      for (let written = 0; written < bytes.length; )
        written += writeSync(fd, bytes, written, bytes.length - written, at + written)
      return true
    },
    close: () => closeSync(fd),
  }
}

function isAt({ path, ino }: SlotRef): boolean {
  const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  return stat?.isFile() === true && stat.ino === ino && stat.nlink === 1n
}
