/** Writing a new file that a user named: whole or not at all, and never over something. */
import { randomBytes } from 'node:crypto'
import { type FileHandle, link, open, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { SyncError } from '../protocol/error.ts'

/** Calls `write` with a temporary file beside the target, which takes its place once it is complete. Throws `already_exists`. */
export async function saveNew(path: string, mode: number, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const target = resolve(path)
  await refuseExisting(target)
  const temporary = join(dirname(target), `.${basename(target).slice(0, 100)}.${randomBytes(4).toString('hex')}.part`)
  try {
    const file = await open(temporary, 'wx', mode)
    try {
      await write(file)
      await file.sync()
    } finally {
      await file.close()
    }
    await place(temporary, target)
  } catch (error) {
    if (error instanceof SyncError) throw error
    throw new SyncError('disk_failed', `${target} cannot be written: ${(error as Error).message}`, { cause: error })
  } finally {
    await rm(temporary, { force: true })
  }
}

/** A link fails if something is there; a rename would replace it. */
async function place(temporary: string, target: string): Promise<void> {
  try {
    await link(temporary, target)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') throw exists(target)
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw error
    // A disk without hard links.
    await refuseExisting(target)
    await rename(temporary, target)
  }
}

async function refuseExisting(target: string): Promise<void> {
  try {
    await stat(target)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  throw exists(target)
}

function exists(target: string): SyncError {
  return new SyncError('already_exists', `${target} exists: choose another name, it is not overwritten`)
}
