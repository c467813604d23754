/**
 * The disk of an arena on Linux: every operation is relative to a directory descriptor that was reached without following a
 * symlink, so nobody who swaps folders for symlinks meanwhile can lead us out of the root.
 *
 * A parent folder is opened for each operation and closed after it. Keeping descriptors would save about 1 µs an operation
 * (openat2 and close cost 2.4 µs, asking whether a kept descriptor still is what its path says 1.3 µs), and would widen the
 * moment in which a user can rename the folder away under us. Only the root, staging and version folders stay open.
 *
 * The root stays the folder that it was when it was opened, even if it is renamed; `identity` looks at its path again.
 */
import { statfsSync } from 'node:fs'
import { join } from 'node:path'
import type { EntryPath } from '../../protocol/ids.ts'
import { nameOf, OWN_FOLDER, parentOf } from '../../protocol/path.ts'
import { type Disk, DiskError, type DiskStat, type PlaceResult } from './disk.ts'
import {
  checkOwnName,
  demandFile,
  exchangeExpected,
  isExpected,
  isUntouched,
  MARKER,
  MARKER_BYTES_MAX,
  newMode,
  READ_BYTES_MAX,
  refuseFolder,
  STAGING,
  strayName,
  VERSIONS,
  withExec,
} from './disk-rules.ts'
import * as posix from './posix-calls.ts'

/** Throws DiskError if the root is missing (ENOENT) or no folder (ENOTDIR). Creates nothing. */
export function openPosixDisk(root: string): Disk {
  return new PosixDisk(root)
}

type OwnFolder = typeof STAGING | typeof VERSIONS

class PosixDisk implements Disk {
  readonly #path: string
  #root: number
  #own: { [name in OwnFolder]?: number } = {}
  #folds: { case: boolean; unicode: boolean } | undefined
  #disposed = false

  constructor(path: string) {
    this.#path = path
    this.#root = posix.openRoot(path)
  }

  // Looking

  stat(path: EntryPath): DiskStat | null {
    return this.#inParentIfAny(path, null, (folder, name) => posix.statIn(folder, name))
  }

  list(path: EntryPath | undefined): { names: string[]; invalid: string[] } {
    return this.#withFolder(path, folder => this.#readFolder(folder, path))
  }

  listStat(path: EntryPath | undefined): { entries: { name: string; stat: DiskStat }[]; invalid: string[] } {
    return this.#withFolder(path, folder => {
      const { names, invalid } = this.#readFolder(folder, path)
      const unreadable = new Set(invalid)
      const entries: { name: string; stat: DiskStat }[] = []
      for (const name of names) {
        if (unreadable.has(name)) continue
        const stat = posix.statIn(folder, name)
        if (stat !== null) entries.push({ name, stat })
      }
      return { entries, invalid }
    })
  }

  readLink(path: EntryPath): string {
    return this.#inParent(path, (folder, name) => posix.readLinkIn(folder, name))
  }

  read(path: EntryPath, into?: Uint8Array): { before: DiskStat; bytes: Uint8Array; after: DiskStat } {
    const { fd, stat: before } = this.open(path)
    try {
      if (before.size > READ_BYTES_MAX) throw new DiskError('EFBIG', `EFBIG: '${path}' is no small file`)
      const bytes = into && into.length >= before.size ? into : Buffer.allocUnsafeSlow(before.size)
      const length = posix.readAt(fd, bytes, before.size, 0)
      return { before, bytes: bytes.subarray(0, length), after: posix.statOpen(fd) }
    } finally {
      posix.close(fd)
    }
  }

  open(path: EntryPath): { fd: number; stat: DiskStat } {
    return openFile(this.#root, path)
  }

  close(fd: number): void {
    posix.close(fd)
  }

  readFd(fd: number, offset: number, length: number): Uint8Array {
    const bytes = Buffer.allocUnsafeSlow(length)
    return bytes.subarray(0, posix.readAt(fd, bytes, length, offset))
  }

  writeFd(fd: number, offset: number, bytes: Uint8Array): void {
    posix.writeAt(fd, bytes, offset)
  }

  beingWritten(path: EntryPath): boolean {
    return isBusy(this.open(path).fd)
  }

  outsidePath(path: EntryPath): string {
    return join(this.#path, path)
  }

  // Staging

  stageFile(slot: string, bytes: Uint8Array, mtimeNs: bigint, exec: boolean): DiskStat {
    return this.#fillSlot(slot, exec, fd => {
      posix.writeAt(fd, bytes, 0)
      posix.setMtime(fd, mtimeNs)
    })
  }

  stageOpen(slot: string, size: number): number {
    const existing = this.#openOwn(STAGING, slot, posix.READ_WRITE)
    if (existing !== null) {
      const stat = posix.statOpen(existing)
      // A slot that a place left here can be a user's file under another name: not one to write into.
      if (stat.type === 'file' && stat.links === 1) return existing
      posix.close(existing)
    }
    const fd = this.#createSlot(slot, false)
    try {
      posix.truncate(fd, size)
      return fd
    } catch (error) {
      posix.close(fd)
      throw error
    }
  }

  stageRead(slot: string, offset: number, length: number): Uint8Array {
    const fd = this.#demandOwn(STAGING, slot, posix.READ)
    try {
      // Not more than there is: a length that does not fit the file must not allocate.
      const there = Math.max(0, Math.min(length, posix.statOpen(fd).size - offset))
      const bytes = Buffer.allocUnsafeSlow(there)
      return bytes.subarray(0, posix.readAt(fd, bytes, there, offset))
    } finally {
      posix.close(fd)
    }
  }

  stageFinish(slot: string, size: number, mtimeNs: bigint, exec: boolean): DiskStat {
    const fd = this.#demandOwn(STAGING, slot, posix.READ_WRITE)
    try {
      const stat = posix.statOpen(fd)
      demandFile(stat, slot)
      if (stat.size !== size) posix.truncate(fd, size)
      if (stat.exec !== exec) posix.setMode(fd, withExec(stat.mode, exec))
      posix.setMtime(fd, mtimeNs)
      return posix.statOpen(fd)
    } finally {
      posix.close(fd)
    }
  }

  stageLink(slot: string, target: string): DiskStat {
    this.stageRemove(slot)
    return this.#intoOwn(STAGING, folder => {
      posix.symlinkIn(target, folder, slot)
      return posix.statIn(folder, slot) ?? fail('ENOENT', slot)
    })
  }

  stageCopy(slot: string, from: EntryPath, clone = false): { before: DiskStat; after: DiskStat } {
    return this.#copy(slot, this.open(from), clone)
  }

  stageCopyKept(slot: string, kept: string, clone = false): void {
    this.#copy(slot, this.keptOpen(kept), clone)
  }

  stageMove(slot: string, to: string): void {
    checkOwnName(slot)
    checkOwnName(to)
    const staging = this.#ownFolder(STAGING)
    if (this.#moveNew(staging, slot, staging, to) === 'unexpected') fail('EEXIST', to)
  }

  outsideSlot(slot: string): string {
    checkOwnName(slot)
    return join(this.#path, OWN_FOLDER, STAGING, slot)
  }

  stageBeingWritten(slot: string): boolean {
    return isBusy(this.#demandOwn(STAGING, slot, posix.READ))
  }

  stageStat(slot: string): DiskStat | null {
    return this.#statOwn(STAGING, slot)
  }

  stageRemove(slot: string): void {
    this.#removeOwn(STAGING, slot)
  }

  stageList(): string[] {
    return this.#listOwn(STAGING)
  }

  // Changing the tree

  place(slot: string, path: EntryPath, expected: DiskStat | null): PlaceResult {
    checkOwnName(slot)
    const staging = this.#ownFolder(STAGING)
    return this.#inParent(path, (folder, name) => {
      if (expected === null) return this.#moveNew(staging, slot, folder, name)
      refuseFolder(expected, path)
      if (!isUntouched(posix.statIn(folder, name), expected)) return 'unexpected'
      return exchangeExpected(expected, path, {
        slot: () => posix.statIn(staging, slot),
        exchange: () => exchange(staging, slot, folder, name),
        stray: () => this.#stray(slot),
      })
    })
  }

  takeOut(path: EntryPath, slot: string, expected: DiskStat): PlaceResult {
    refuseFolder(expected, path)
    this.#forgetRemoved()
    const staging = this.#ownFolder(STAGING)
    return this.#inParent(path, (folder, name) => {
      if (!isUntouched(posix.statIn(folder, name), expected)) return 'unexpected'
      this.stageRemove(slot)
      try {
        if (this.#moveNew(folder, name, staging, slot) === 'unexpected') return fail('EEXIST', slot)
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return 'unexpected'
        throw error
      }
      if (isExpected(posix.statIn(staging, slot), expected)) return 'placed'
      // Put back; if the user has made something new there by now, what was taken is kept as a version.
      if (this.#moveNew(staging, slot, folder, name) === 'unexpected') this.#stray(slot)
      return 'unexpected'
    })
  }

  move(from: EntryPath, to: EntryPath, expected: DiskStat): PlaceResult {
    const source = parentOf(from)
    const folder = source === undefined ? this.#root : posix.openBelow(this.#root, source, posix.FOLDER)
    const name = nameOf(from)
    try {
      return this.#inParent(to, (toFolder, toName) => {
        if (!isUntouched(posix.statIn(folder, name), expected)) return 'unexpected'
        if (this.#moveNew(folder, name, toFolder, toName) === 'unexpected') return 'unexpected'
        if (isExpected(posix.statIn(toFolder, toName), expected)) return 'placed'
        this.#moveNew(toFolder, toName, folder, name)
        return 'unexpected'
      })
    } finally {
      if (folder !== this.#root) posix.close(folder)
    }
  }

  makeFolder(path: EntryPath): void {
    this.#letGo()
    this.#inParent(path, (folder, name) => posix.makeFolderIn(folder, name, 0o777))
  }

  removeFolder(path: EntryPath): void {
    this.#letGo()
    this.#inParent(path, (folder, name) => posix.removeFolderIn(folder, name))
  }

  /** Throws EBUSY while somebody has the file open for writing: the new mtime would hide what is being written. */
  setMeta(path: EntryPath, expected: DiskStat, mtimeNs: bigint | null, exec: boolean | null): PlaceResult {
    let fd: number
    try {
      fd = posix.openBelow(this.#root, path, posix.READ)
    } catch (error) {
      if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes(codeOf(error))) return 'unexpected'
      throw error
    }
    let lease: ReturnType<typeof posix.takeLease> | undefined
    try {
      if (!isExpected(posix.statOpen(fd), expected)) return 'unexpected'
      demandFile(expected, path)
      lease = posix.takeLease(fd)
      if (lease === 'busy') throw new DiskError('EBUSY', `EBUSY: '${path}' is being written`)
      // Again: somebody may have written and closed it before the lease.
      const stat = posix.statOpen(fd)
      if (!isExpected(stat, expected)) return 'unexpected'
      if (exec !== null && exec !== stat.exec) posix.setMode(fd, withExec(stat.mode, exec))
      if (mtimeNs !== null) posix.setMtime(fd, mtimeNs)
      return 'placed'
    } finally {
      if (lease === 'taken') posix.releaseLease(fd)
      posix.close(fd)
    }
  }

  // Version store

  keep(slot: string, kept: string): void {
    checkOwnName(slot)
    checkOwnName(kept)
    const result = this.#intoOwn(VERSIONS, versions => this.#moveNew(this.#ownFolder(STAGING), slot, versions, kept))
    if (result === 'unexpected') fail('EEXIST', kept)
  }

  linkKept(kept: string, path: EntryPath): PlaceResult {
    checkOwnName(kept)
    const versions = this.#ownFolder(VERSIONS)
    return this.#inParent(path, (folder, name) => {
      try {
        posix.linkIn(versions, kept, folder, name)
        return 'placed'
      } catch (error) {
        const code = codeOf(error)
        if (code === 'EEXIST') return 'unexpected'
        if (!LINKLESS.has(code)) throw error
      }
      const slot = `link-${kept}`.slice(0, 255)
      this.stageCopyKept(slot, kept)
      const result = this.#moveNew(this.#ownFolder(STAGING), slot, folder, name)
      if (result === 'unexpected') this.stageRemove(slot)
      return result
    })
  }

  keptOpen(kept: string): { fd: number; stat: DiskStat } {
    checkOwnName(kept)
    return openFile(this.#ownFolder(VERSIONS), kept)
  }

  outsideKept(kept: string): string {
    checkOwnName(kept)
    return join(this.#path, OWN_FOLDER, VERSIONS, kept)
  }

  keptStat(kept: string): DiskStat | null {
    return this.#statOwn(VERSIONS, kept)
  }

  keptRemove(kept: string): void {
    this.#removeOwn(VERSIONS, kept)
  }

  keptList(): string[] {
    return this.#listOwn(VERSIONS)
  }

  // The file system

  sync(done: (error: DiskError | null) => void): void {
    // A descriptor of its own: `dispose` may come before the answer.
    posix.syncAndClose(posix.openBelow(this.#root, '.', posix.FOLDER), done)
  }

  /** Looks at the root's path again, and goes on with the folder that is there now. Throws ENOENT, ENOTDIR. */
  identity(): { device: string; rootIno: string; marker: string | null } {
    const root = posix.openRoot(this.#path)
    this.dispose()
    this.#disposed = false
    this.#root = root
    const stat = posix.statOpen(root)
    return { device: stat.device, rootIno: String(stat.ino), marker: this.#readMarker() }
  }

  writeMarker(text: string): void {
    const bytes = Buffer.from(text)
    if (bytes.length > MARKER_BYTES_MAX) throw new RangeError('the marker is too long')
    this.#ownFolder(VERSIONS)
    this.#fillSlot(MARKER, false, fd => posix.writeAt(fd, bytes, 0))
    this.#withOwn(own => posix.renameIn(this.#ownFolder(STAGING), MARKER, own, MARKER))
  }

  get foldsCase(): boolean {
    return this.#probe().case
  }

  get foldsUnicode(): boolean {
    return this.#probe().unicode
  }

  free(): { freeBytes: number; totalBytes: number } {
    try {
      const { bavail, blocks, bsize } = statfsSync(this.#path)
      return { freeBytes: bavail * bsize, totalBytes: blocks * bsize }
    } catch (error) {
      throw new DiskError(codeOf(error), (error as Error).message)
    }
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#letGo()
    this.#closeOwn()
    posix.close(this.#root)
    this.#root = -1
  }

  // Folders

  #inParent<T>(path: EntryPath, use: (folder: number, name: string) => T): T {
    const parent = parentOf(path)
    if (parent === undefined) return use(this.#root, path)
    if (this.#depth > 0) return use(this.#hold(parent), nameOf(path))
    const folder = posix.openBelow(this.#root, parent, posix.FOLDER)
    try {
      return use(folder, nameOf(path))
    } finally {
      posix.close(folder)
    }
  }

  /** The same, with an answer for a parent that is missing or no folder. */
  #inParentIfAny<T>(path: EntryPath, otherwise: T, use: (folder: number, name: string) => T): T {
    let entered = false
    try {
      return this.#inParent(path, (folder, name) => {
        entered = true
        return use(folder, name)
      })
    } catch (error) {
      if (!entered && ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG'].includes(codeOf(error))) return otherwise
      throw error
    }
  }

  together<Result>(steps: () => Result): Result {
    this.#depth++
    try {
      return steps()
    } finally {
      if (--this.#depth === 0) this.#letGo()
    }
  }

  /** The folder that the last step was in, while steps follow each other. */
  #hold(path: EntryPath): number {
    if (this.#held?.path === path) return this.#held.folder
    this.#letGo()
    const folder = posix.openBelow(this.#root, path, posix.FOLDER)
    this.#held = { path, folder }
    return folder
  }

  #letGo(): void {
    if (this.#held !== null) posix.close(this.#held.folder)
    this.#held = null
  }
  #held: { readonly path: EntryPath; readonly folder: number } | null = null
  #depth = 0

  #withFolder<T>(path: EntryPath | undefined, use: (folder: number) => T): T {
    // The root too: a descriptor that was listed is at its end.
    const folder = posix.openBelow(this.#root, path ?? '.', posix.FOLDER)
    try {
      return use(folder)
    } finally {
      posix.close(folder)
    }
  }

  #readFolder(folder: number, path: EntryPath | undefined): { names: string[]; invalid: string[] } {
    const found = posix.readFolder(folder)
    if (path === undefined) found.names = found.names.filter(name => name !== OWN_FOLDER)
    return found
  }

  /** Moves to a name that must be free, in one step where the file system can. */
  #moveNew(from: number, name: string, to: number, toName: string): PlaceResult {
    try {
      if (posix.renameFlagged(from, name, to, toName, posix.NOREPLACE)) return 'placed'
      const stat = posix.statIn(from, name) ?? fail('ENOENT', name)
      if (stat.type !== 'dir') {
        try {
          posix.linkIn(from, name, to, toName)
          posix.unlinkIn(from, name)
          return 'placed'
        } catch (error) {
          if (!LINKLESS.has(codeOf(error))) throw error
        }
      }
      if (posix.statIn(to, toName) !== null) return 'unexpected'
      posix.renameIn(from, name, to, toName)
      return 'placed'
    } catch (error) {
      if (codeOf(error) === 'EEXIST') return 'unexpected'
      throw error
    }
  }

  // Our own folder

  /** Opened at the first use, created if need be. */
  #ownFolder(which: OwnFolder): number {
    const known = this.#own[which]
    if (known !== undefined) return known
    const folder = this.#withOwn(own => {
      makeIfMissing(own, which)
      return posix.openBelow(own, which, posix.FOLDER)
    })
    this.#own[which] = folder
    return folder
  }

  /** Forgets our folders if somebody removed one: a folder without a link takes no names. Whether that was so. */
  #forgetRemoved(): boolean {
    if (!Object.values(this.#own).some(fd => posix.statOpen(fd).links === 0)) return false
    this.#closeOwn()
    return true
  }

  /** Puts a name into one of our folders, once more if the folder itself was removed meanwhile. */
  #intoOwn<T>(which: OwnFolder, use: (folder: number) => T): T {
    try {
      return use(this.#ownFolder(which))
    } catch (error) {
      if (codeOf(error) !== 'ENOENT' || !this.#forgetRemoved()) throw error
      return use(this.#ownFolder(which))
    }
  }

  #withOwn<T>(use: (own: number) => T): T {
    makeIfMissing(this.#root, OWN_FOLDER)
    const own = posix.openBelow(this.#root, OWN_FOLDER, posix.FOLDER)
    try {
      return use(own)
    } finally {
      posix.close(own)
    }
  }

  /** The same for reading: null if it is not there, and nothing is created. */
  #ownFolderIfAny(which: OwnFolder): number | null {
    const path = `${OWN_FOLDER}/${which}`
    if (this.#own[which] === undefined && this.#missing(path)) return null
    return this.#ownFolder(which)
  }

  #missing(path: string): boolean {
    try {
      posix.close(posix.openBelow(this.#root, path, posix.FOLDER))
      return false
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return true
      throw error
    }
  }

  #closeOwn(): void {
    for (const fd of Object.values(this.#own)) posix.close(fd)
    this.#own = {}
  }

  #openOwn(which: OwnFolder, name: string, flags: number): number | null {
    checkOwnName(name)
    const folder = this.#ownFolderIfAny(which)
    if (folder === null) return null
    try {
      return posix.openBelow(folder, name, flags)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null
      throw error
    }
  }

  #demandOwn(which: OwnFolder, name: string, flags: number): number {
    return this.#openOwn(which, name, flags) ?? fail('ENOENT', name)
  }

  #statOwn(which: OwnFolder, name: string): DiskStat | null {
    checkOwnName(name)
    const folder = this.#ownFolderIfAny(which)
    return folder === null ? null : posix.statIn(folder, name)
  }

  #removeOwn(which: OwnFolder, name: string): void {
    checkOwnName(name)
    const folder = this.#ownFolderIfAny(which)
    if (folder === null) return
    try {
      posix.unlinkIn(folder, name)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
    }
  }

  #listOwn(which: OwnFolder): string[] {
    if (this.#ownFolderIfAny(which) === null) return []
    return this.#withFolder(`${OWN_FOLDER}/${which}` as EntryPath, folder => posix.readFolder(folder).names)
  }

  /** A new file in a slot, in place of what is there; open for reading and writing. */
  #createSlot(slot: string, exec: boolean): number {
    checkOwnName(slot)
    return this.#intoOwn(STAGING, folder => {
      try {
        return posix.create(folder, slot, newMode(exec))
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error
        // Never written into: it may be a user's file under another name.
        posix.unlinkIn(folder, slot)
        return posix.create(folder, slot, newMode(exec))
      }
    })
  }

  /** Creates and fills a slot; removes it again if that fails. */
  #fillSlot(slot: string, exec: boolean, fill: (fd: number) => void): DiskStat {
    const fd = this.#createSlot(slot, exec)
    try {
      fill(fd)
      return posix.statOpen(fd)
    } catch (error) {
      this.stageRemove(slot)
      throw error
    } finally {
      posix.close(fd)
    }
  }

  /** Content, mtime and execute bits. Closes the source. */
  #copy(slot: string, from: { fd: number; stat: DiskStat }, clone: boolean): { before: DiskStat; after: DiskStat } {
    try {
      this.#fillSlot(slot, from.stat.exec, fd => {
        if (!posix.cloneContent(from.fd, fd, from.stat.size)) {
          if (clone) fail('EOPNOTSUPP', slot)
          posix.copyContent(from.fd, fd, from.stat.size)
        }
        posix.setMtime(fd, from.stat.mtimeNs)
      })
      return { before: from.stat, after: posix.statOpen(from.fd) }
    } finally {
      posix.close(from.fd)
    }
  }

  #stray(slot: string): void {
    const stat = this.stageStat(slot)
    if (stat !== null) this.#moveNew(this.#ownFolder(STAGING), slot, this.#ownFolder(VERSIONS), strayName(stat))
  }

  #readMarker(): string | null {
    let fd: number
    try {
      fd = posix.openBelow(this.#root, `${OWN_FOLDER}/${MARKER}`, posix.READ)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null
      throw error
    }
    try {
      const bytes = Buffer.alloc(MARKER_BYTES_MAX)
      return bytes.toString('utf8', 0, posix.readAt(fd, bytes, bytes.length, 0))
    } finally {
      posix.close(fd)
    }
  }

  #probe(): { case: boolean; unicode: boolean } {
    if (this.#folds !== undefined) return this.#folds
    const staging = this.#ownFolder(STAGING)
    const folds = (name: string, twin: string): boolean => {
      if (posix.statIn(staging, name) === null) posix.close(posix.create(staging, name, 0o600))
      const folded = posix.statIn(staging, twin) !== null
      posix.unlinkIn(staging, name)
      return folded
    }
    this.#folds = { case: folds('probe-case', 'PROBE-CASE'), unicode: folds('probe-\u00e9', 'probe-e\u0301') }
    return this.#folds
  }
}

/** Answers of a file system that has no hard links, or has enough of this file's. */
const LINKLESS = new Set(['EPERM', 'EOPNOTSUPP', 'EMLINK', 'EINVAL', 'ENOSYS'])

function openFile(folder: number, path: string): { fd: number; stat: DiskStat } {
  const fd = posix.openBelow(folder, path, posix.READ)
  try {
    const stat = posix.statOpen(fd)
    demandFile(stat, path)
    return { fd, stat }
  } catch (error) {
    posix.close(fd)
    throw error
  }
}

/** Whether anybody has a file open for writing; closes its descriptor. */
function isBusy(fd: number): boolean {
  try {
    const lease = posix.takeLease(fd)
    if (lease === 'taken') posix.releaseLease(fd)
    return lease === 'busy'
  } finally {
    posix.close(fd)
  }
}

/** Exchanges a slot with a name; false if that name is gone. */
function exchange(staging: number, slot: string, folder: number, name: string): boolean {
  try {
    if (posix.renameFlagged(staging, slot, folder, name, posix.EXCHANGE)) return true
    // Not one step here, but the path always has content: the former is linked aside, then replaced.
    const aside = `aside-${slot}`.slice(0, 255)
    if (posix.statIn(staging, aside) !== null) posix.unlinkIn(staging, aside)
    try {
      posix.linkIn(folder, name, staging, aside)
    } catch (error) {
      if (!LINKLESS.has(codeOf(error))) throw error
      posix.renameIn(folder, name, staging, aside)
    }
    posix.renameIn(staging, slot, folder, name)
    posix.renameIn(staging, aside, staging, slot)
    return true
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false
    throw error
  }
}

function makeIfMissing(folder: number, name: string): void {
  if (posix.statIn(folder, name) !== null) return
  try {
    posix.makeFolderIn(folder, name, 0o700)
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''
}

function fail(code: string, path: string): never {
  throw new DiskError(code, `${code}: '${path}'`)
}
