/** Cached content on the file system: `HH/HASH` in a folder of the arena's own, made when it is needed. */
import * as fs from 'node:fs'
import { dirname, join } from 'node:path'
import type { BlobHash } from '../../protocol/ids.ts'
import type { CacheFiles } from './cache-files.ts'
import { DiskError } from './disk.ts'

/** Files held open: a reader comes again for the next part. */
const OPEN_MAX = 32

/** Makes nothing. */
export function openCacheFiles(folder: string): CacheFiles {
  /** The one used last is the last. */
  const held = new Map<BlobHash, number>()

  const pathOf = (hash: BlobHash) => join(folder, hash.slice(0, 2), hash)

  function release(hash: BlobHash): void {
    const fd = held.get(hash)
    if (fd === undefined) return
    held.delete(hash)
    fs.closeSync(fd)
  }

  function hold(hash: BlobHash, fd: number): number {
    held.set(hash, fd)
    for (const oldest of held.keys()) {
      if (held.size <= OPEN_MAX) break
      release(oldest)
    }
    return fd
  }

  /** null: there is no such file. */
  function use(hash: BlobHash): number | null {
    const fd = held.get(hash)
    if (fd !== undefined) {
      // Somebody may have cleaned up: what is written into a file without a name is lost.
      if (fs.fstatSync(fd).nlink > 0) {
        held.delete(hash)
        return hold(hash, fd)
      }
      release(hash)
    }
    const opened = openIfThere(pathOf(hash), fs.constants.O_RDWR)
    return opened === null ? null : hold(hash, opened)
  }

  function create(hash: BlobHash): number {
    release(hash)
    const path = pathOf(hash)
    // A file of its own: who reads the former one goes on with that.
    fs.rmSync(path, { force: true })
    const flags = fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL | NO_FOLLOW
    try {
      return hold(hash, fs.openSync(path, flags, 0o600))
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
      fs.mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
      return hold(hash, fs.openSync(path, flags, 0o600))
    }
  }

  return {
    read: (hash, offset, length) =>
      asDisk(() => {
        const fd = use(hash)
        if (fd === null) return null
        const bytes = Buffer.allocUnsafeSlow(length)
        let filled = 0
        while (filled < length) {
          const read = fs.readSync(fd, bytes, filled, length - filled, offset + filled)
          if (read === 0) break
          filled += read
        }
        return bytes.subarray(0, filled)
      }),
    write: (hash, offset, bytes, fresh) =>
      asDisk(() => {
        const fd = fresh ? create(hash) : use(hash)
        if (fd === null) return false
        for (let written = 0; written < bytes.length; )
          written += fs.writeSync(fd, bytes, written, bytes.length - written, offset + written)
        return true
      }),
    open: hash => asDisk(() => openIfThere(pathOf(hash), fs.constants.O_RDONLY)),
    where: hash =>
      asDisk(() => {
        const fd = use(hash)
        if (fd === null) return null
        const { ino, birthtimeNs } = fs.fstatSync(fd, { bigint: true })
        return { path: pathOf(hash), ino, birthtimeNs }
      }),
    remove: hash =>
      asDisk(() => {
        release(hash)
        fs.rmSync(pathOf(hash), { force: true })
      }),
    list: shelf =>
      asDisk(() => {
        try {
          return fs.readdirSync(join(folder, shelfName(shelf)))
        } catch (error) {
          if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return []
          throw error
        }
      }),
    discard: (shelf, name) =>
      asDisk(() => fs.rmSync(join(folder, shelfName(shelf), name), { recursive: true, force: true })),
    free: () =>
      asDisk(() => {
        for (let at = folder; ; at = dirname(at)) {
          try {
            const { bavail, blocks, bsize } = fs.statfsSync(at)
            return { freeBytes: bavail * bsize, totalBytes: blocks * bsize }
          } catch (error) {
            if (codeOf(error) !== 'ENOENT' || at === dirname(at)) throw error
          }
        }
      }),
    dispose() {
      for (const hash of [...held.keys()]) release(hash)
    },
  }
}

const NO_FOLLOW = fs.constants.O_NOFOLLOW ?? 0

function shelfName(shelf: number): string {
  return shelf.toString(16).padStart(2, '0')
}

function openIfThere(path: string, flags: number): number | null {
  try {
    return fs.openSync(path, flags | NO_FOLLOW)
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return null
    throw error
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code
}

function asDisk<Result>(work: () => Result): Result {
  try {
    return work()
  } catch (error) {
    const code = codeOf(error)
    if (code === undefined || code.startsWith('ERR_')) throw error
    throw new DiskError(code, (error as Error).message)
  }
}
