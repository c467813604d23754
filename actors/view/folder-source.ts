/**
 * A folder on the disk as a source: every file in it is real. All calls are relative to descriptors and follow no symlink in any
 * component (`openat2` through the arena's `posix-calls.ts`), so nothing outside of the folder is ever touched.
 *
 * It tells no changes by itself: what is done in the folder directly is seen when the kernel asks again, after `validMs`, and when
 * a file is opened.
 */
import { chmodSync, constants, statfsSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { DiskError } from '../arena/disk.ts'
import {
  close,
  FOLDER,
  linkIn,
  makeFolderIn,
  NOREPLACE,
  openBelow,
  openRoot,
  READ,
  READ_WRITE,
  readFolder,
  readLinkIn,
  removeFolderIn,
  renameFlagged,
  renameIn,
  setMode,
  symlinkIn,
  truncate,
  unlinkIn,
  WRITE,
} from '../arena/posix-calls.ts'
import type { Space } from './fuse-reply.ts'
import { closeKept, kept } from './kept.ts'
import {
  type FileStat,
  getAttribute,
  LOOK,
  listAttributes,
  lookAt,
  lookIn,
  makeNodeIn,
  openIn,
  ownIn,
  removeAttribute,
  seek,
  setAttribute,
  setTimesIn,
  syncContent,
} from './view-calls.ts'
import {
  type Answer,
  type Changes,
  type OpenFile,
  type OpenFolder,
  type OpenHow,
  type OpenNode,
  type Owner,
  type SourceEntry,
  ViewError,
  type ViewSource,
} from './view-source.ts'

const XATTR_CREATE = 1
const XATTR_REPLACE = 2
const RENAME_EXCHANGE = 2
const SEEK_SET = 0

const TYPE_MASK = 0o170000
const TYPE_FOLDER = 0o040000
const TYPE_FILE = 0o100000
const TYPE_SYMLINK = 0o120000
const TYPES_MADE = new Set([TYPE_FILE, 0o010000, 0o140000])
const SET_GROUP = 0o2000

/** Files are opened without blocking, so that a pipe of that name hangs nobody; a lease then makes it fail instead of wait. */
const LEASE_PAUSE_MS = 2
const LEASE_TRIES = 500

/** How long names and attributes are believed, unless said otherwise. */
export const FOLDER_VALID_MS = 1000

export function openFolderSource(root: string, options: { validMs?: number } = {}): ViewSource {
  return new FolderSource(root, options.validMs ?? FOLDER_VALID_MS)
}

/** As a ViewSource; most of it answers at once. */
export class FolderSource implements ViewSource {
  readonly validMs: number
  readonly root: string
  readonly #root: number
  /** Only root can make files for others. */
  readonly #givesAway = process.geteuid?.() === 0

  constructor(root: string, validMs: number) {
    this.root = root
    this.validMs = validMs
    this.#root = kept(openRoot(root))
  }

  lookup(path: string): SourceEntry {
    if (path === '') return entryOf(lookAt(this.#root))
    return this.#inParent(path, (folder, name) => entryOf(this.#existing(folder, name)))
  }

  /** The same; null: its folder has nothing of that name. What is asked often and seldom there should not cost an error each time. */
  find(path: string): SourceEntry | null {
    if (path === '') return this.lookup(path)
    return this.#inParent(path, (folder, name) => {
      const stat = lookIn(folder, name)
      return stat === null ? null : entryOf(stat)
    })
  }

  openFolder(path: string): OpenFolder {
    const fd = kept(openBelow(this.#root, path === '' ? '.' : path, FOLDER))
    try {
      const look = () => entryOf(lookAt(fd))
      const child = (name: string) => {
        const stat = lookIn(fd, name)
        return stat === null ? null : entryOf(stat)
      }
      const sync = () => syncContent(fd, false)
      return { entry: look(), descriptor: fd, look, names: () => namesIn(fd), child, sync, close: () => closeKept(fd) }
    } catch (error) {
      closeKept(fd)
      throw error
    }
  }

  readLink(path: string): string {
    return this.#inParent(path, readLinkIn)
  }

  open(path: string, how: OpenHow, signal?: AbortSignal): Answer<OpenFile> {
    const flags = (how.write ? (how.read ? READ_WRITE : WRITE) : READ) | (how.append ? constants.O_APPEND : 0)
    return this.#unleased(() => this.#opened(openBelow(this.#root, path, flags), how.truncate), signal)
  }

  /** Does something, a moment later where somebody holds a lease on the file: as the arena does to see whether it is being written. */
  #unleased<Result>(action: () => Result, signal?: AbortSignal): Answer<Result> {
    try {
      return action()
    } catch (error) {
      if (!isLeased(error)) throw error
      return this.#later(action, signal)
    }
  }

  async #later<Result>(action: () => Result, signal?: AbortSignal): Promise<Result> {
    for (let tries = 1; ; tries++) {
      await setTimeout(LEASE_PAUSE_MS)
      if (signal?.aborted) throw new ViewError('EINTR', 'interrupted')
      try {
        return action()
      } catch (error) {
        if (!isLeased(error) || tries >= LEASE_TRIES) throw error
      }
    }
  }

  create(path: string, how: OpenHow & { exclusive: boolean }, mode: number, owner: Owner): Answer<OpenFile> {
    return this.#unleased(() => this.createNow(path, how, mode, owner))
  }

  /** The same. Throws EAGAIN where somebody holds a lease on a file that is there. */
  createNow(path: string, how: OpenHow & { exclusive: boolean }, mode: number, owner: Owner): OpenFile {
    const access = how.write ? (how.read ? constants.O_RDWR : constants.O_WRONLY) : constants.O_RDONLY
    const flags = access | constants.O_NONBLOCK | (how.append ? constants.O_APPEND : 0)
    return this.#inParent(path, (folder, name) => {
      let fd: number
      try {
        fd = openIn(folder, name, flags | constants.O_CREAT | constants.O_EXCL, mode)
      } catch (error) {
        if (how.exclusive || !(error instanceof DiskError) || error.code !== 'EEXIST') throw error
        return this.#opened(openIn(folder, name, flags, 0), how.truncate)
      }
      try {
        this.#give(folder, name, owner)
        // Our own umask took bits that the kernel had already taken by that of the program.
        if ((lookAt(fd).attributes.mode & 0o7777) !== (mode & 0o7777)) setMode(fd, mode)
      } catch (error) {
        close(fd)
        throw error
      }
      return this.#opened(fd, false)
    })
  }

  makeFolder(path: string, mode: number, owner: Owner): SourceEntry {
    return this.#inParent(path, (folder, name) => {
      makeFolderIn(folder, name, mode)
      return this.#made(folder, name, mode, owner)
    })
  }

  makeSymlink(path: string, target: string, owner: Owner): SourceEntry {
    return this.#inParent(path, (folder, name) => {
      symlinkIn(target, folder, name)
      return this.#made(folder, name, null, owner)
    })
  }

  makeNode(path: string, mode: number, owner: Owner): SourceEntry {
    if (!TYPES_MADE.has(mode & TYPE_MASK)) throw new ViewError('EPERM', 'no devices')
    return this.#inParent(path, (folder, name) => {
      makeNodeIn(folder, name, mode, 0)
      return this.#made(folder, name, mode, owner)
    })
  }

  link(from: string, to: string): SourceEntry {
    return this.#inParent(from, (folder, name) =>
      this.#inParent(to, (toFolder, toName) => {
        linkIn(folder, name, toFolder, toName)
        return entryOf(this.#existing(toFolder, toName))
      }),
    )
  }

  remove(path: string): void {
    this.#inParent(path, unlinkIn)
  }

  removeFolder(path: string): void {
    this.#inParent(path, removeFolderIn)
  }

  rename(from: string, to: string, how: 'replace' | 'keep' | 'exchange'): void {
    this.#inParent(from, (folder, name) =>
      this.#inParent(to, (toFolder, toName) => {
        if (how === 'replace') return renameIn(folder, name, toFolder, toName)
        const flag = how === 'keep' ? NOREPLACE : RENAME_EXCHANGE
        if (!renameFlagged(folder, name, toFolder, toName, flag))
          throw new ViewError('EINVAL', 'this file system cannot rename so')
      }),
    )
  }

  change(path: string | null, open: OpenNode | null, changes: Changes): Answer<SourceEntry> {
    return this.#unleased(() => this.#changeNow(path, open, changes))
  }

  #changeNow(path: string | null, open: OpenNode | null, changes: Changes): SourceEntry {
    const descriptor = open?.descriptor ?? null
    if (descriptor !== null) {
      if (changes.size !== undefined) truncate(descriptor, changes.size)
      this.#changeAt(descriptor, changes)
      return entryOf(lookAt(descriptor))
    }
    if (path === null) throw new ViewError('ENOENT', 'neither a name nor an open file')
    const fd = openBelow(this.#root, path === '' ? '.' : path, changes.size === undefined ? LOOK : WRITE)
    try {
      if (changes.size !== undefined) truncate(fd, changes.size)
      this.#changeAt(fd, changes)
      return entryOf(lookAt(fd))
    } finally {
      close(fd)
    }
  }

  getAttribute(path: string, name: string): Uint8Array {
    return this.#byName(path, at => getAttribute(at, name))
  }

  setAttribute(path: string, name: string, value: Uint8Array, mode: 'set' | 'create' | 'replace'): void {
    const flags = mode === 'create' ? XATTR_CREATE : mode === 'replace' ? XATTR_REPLACE : 0
    this.#byName(path, at => setAttribute(at, name, value, flags))
  }

  listAttributes(path: string): string[] {
    return this.#byName(path, listAttributes)
  }

  removeAttribute(path: string, name: string): void {
    this.#byName(path, at => removeAttribute(at, name))
  }

  space(): Space {
    const { bsize, blocks, bfree, bavail, files, ffree } = statfsSync(`/proc/self/fd/${this.#root}`)
    return {
      blockBytes: bsize,
      blocks,
      blocksFree: bfree,
      blocksAvailable: bavail,
      files,
      filesFree: ffree,
    }
  }

  subscribe(): () => void {
    return () => {}
  }

  close(): void {
    closeKept(this.#root)
  }

  /** Runs an action with the folder that a path is in and the path's last component. */
  #inParent<Result>(path: string, action: (folder: number, name: string) => Result): Result {
    const slash = path.lastIndexOf('/')
    if (slash < 0) return action(this.#root, path)
    const folder = openBelow(this.#root, path.slice(0, slash), LOOK | constants.O_DIRECTORY)
    try {
      return action(folder, path.slice(slash + 1))
    } finally {
      close(folder)
    }
  }

  /** Runs an action with a path by /proc of which no component but the last can be a symlink; the last must not be followed. */
  #byName<Result>(path: string, action: (at: string) => Result): Result {
    if (path === '') return action(`/proc/self/fd/${this.#root}/.`)
    return this.#inParent(path, (folder, name) => action(`/proc/self/fd/${folder}/${name}`))
  }

  #existing(folder: number, name: string): FileStat {
    const stat = lookIn(folder, name)
    if (stat === null) throw new ViewError('ENOENT', `'${name}'`)
    return stat
  }

  #opened(fd: number, empty: boolean): OpenFile {
    try {
      const stat = lookAt(fd)
      const type = stat.attributes.mode & TYPE_MASK
      if (type !== TYPE_FILE) throw new ViewError(type === TYPE_FOLDER ? 'EISDIR' : 'ENXIO', 'not a regular file')
      if (empty) truncate(fd, 0)
      const entry = entryOf(empty ? lookAt(fd) : stat)
      return {
        entry,
        descriptor: kept(fd),
        look: () => entryOf(lookAt(fd)),
        close: () => closeKept(fd),
      }
    } catch (error) {
      close(fd)
      throw error
    }
  }

  /** What was just made gets its owner and the bits that our umask took. */
  #made(folder: number, name: string, mode: number | null, owner: Owner): SourceEntry {
    this.#give(folder, name, owner)
    const stat = this.#existing(folder, name)
    const { attributes } = stat
    // A folder inherits this bit from the one that it is in.
    const wanted = mode === null ? attributes.mode : mode | (attributes.mode & SET_GROUP)
    if (((attributes.mode ^ wanted) & 0o7777) === 0) return entryOf(stat)
    const fd = openIn(folder, name, LOOK, 0)
    try {
      this.#changeAt(fd, { mode: wanted })
      return entryOf(lookAt(fd))
    } finally {
      close(fd)
    }
  }

  #give(folder: number, name: string, owner: Owner): void {
    if (!this.#givesAway) return
    const { uid, gid } = this.#existing(folder, name).attributes
    const inherits = (lookAt(folder).attributes.mode & SET_GROUP) !== 0
    if (uid !== owner.uid || (gid !== owner.gid && !inherits)) ownIn(folder, name, owner.uid, inherits ? -1 : owner.gid)
  }

  /** Owner, mode and times by a descriptor, which may be one that was opened with LOOK. Mode last: a new owner clears bits of it. */
  #changeAt(fd: number, { mode, uid, gid, atime, mtime }: Changes): void {
    if (uid !== undefined || gid !== undefined) ownIn(fd, '', uid ?? -1, gid ?? -1)
    if (mode !== undefined) {
      if ((lookAt(fd).attributes.mode & TYPE_MASK) === TYPE_SYMLINK) throw new ViewError('EOPNOTSUPP', 'a symlink')
      chmodSync(`/proc/self/fd/${fd}`, mode & 0o7777)
    }
    if (atime !== undefined || mtime !== undefined) setTimesIn(fd, '', atime ?? null, mtime ?? null)
  }
}

function entryOf({ attributes, id }: FileStat): SourceEntry {
  return { id, attributes, version: null }
}

/** Names of an open folder. What cannot be named in UTF-8 cannot be asked for through the view: better not shown than shown and missing. */
function namesIn(fd: number): string[] {
  seek(fd, 0, SEEK_SET)
  const { names, invalid } = readFolder(fd)
  return invalid.length === 0 ? names : names.filter(name => !invalid.includes(name))
}

function isLeased(error: unknown): boolean {
  return error instanceof DiskError && error.code === 'EAGAIN'
}
