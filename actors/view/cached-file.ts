/** Opens what an arena's cache has told of, for a view to read. */

import { fstatSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import type { CachedFile } from '../../protocol/ports.ts'
import { DiskError } from '../arena/disk.ts'
import { close, openBelow, openRoot, READ } from '../arena/posix-calls.ts'

/**
 * A descriptor for reading; null: the file is gone, or another file has its name. Throws DiskError. Node must not know of it: it is closed
 * with `close` of posix-calls.ts, by whoever comes last, and a thread that ends would close the number once more, whosever it is by then.
 */
export function openCachedFile({ path, ino, birthtimeNs }: CachedFile): number | null {
  const fd = openIfThere(path)
  if (fd === null) return null
  const found = fstatSync(fd, { bigint: true })
  if (found.isFile() && found.ino === ino && found.birthtimeNs === birthtimeNs) return fd
  close(fd)
  return null
}

function openIfThere(path: string): number | null {
  let shelf: number | null = null
  try {
    shelf = openRoot(dirname(path))
    return openBelow(shelf, basename(path), READ)
  } catch (error) {
    if (error instanceof DiskError && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return null
    throw error
  } finally {
    if (shelf !== null) close(shelf)
  }
}
