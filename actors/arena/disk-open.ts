/** Picks the disk for this machine. */
import type { Disk } from './disk.ts'
import { openPortableDisk } from './disk-portable.ts'
import { openPosixDisk } from './disk-posix.ts'
import { posixFault } from './posix-calls.ts'

/** Throws DiskError if the root is missing (ENOENT) or no folder (ENOTDIR). Creates nothing. */
export function openDisk(root: string): Disk {
  return posixFault === null ? openPosixDisk(root) : openPortableDisk(root)
}
