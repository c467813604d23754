/** Replacing a small file so that it is the old one or the new one at every instant, also after a power cut. */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'

/**
 * Writes a file whole. Its mode stays, a new one gets `mode`. A symlink stays, and what it points to is replaced. Throws
 * what the file system says, and leaves nothing behind.
 */
export function writeFileAtomic(path: string, text: string, mode = 0o600): void {
  const existing = statSync(path, { throwIfNoEntry: false })
  const target = existing ? realpathSync(path) : path
  const folder = dirname(target)
  const temporary = join(folder, `.${randomBytes(6).toString('hex')}.tmp`)
  try {
    const descriptor = openSync(temporary, 'wx', 0o600)
    try {
      const bytes = Buffer.from(text)
      for (let done = 0; done < bytes.length; ) done += writeSync(descriptor, bytes, done)
      fchmodSync(descriptor, existing ? existing.mode & 0o777 : mode)
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    renameSync(temporary, target)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
  syncFolder(folder)
}

/** Makes the rename durable, where folders can be opened. */
function syncFolder(folder: string): void {
  if (process.platform === 'win32') return
  const descriptor = openSync(folder, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}
