/**
 * The disk of an arena where there are no directory descriptors to work with: macOS, Windows, odd C libraries. Plain node:fs;
 * every folder on the way is looked at (`lstat`) before each operation and refused if it is a symlink. Unlike on
 * Linux, somebody who swaps a folder for a symlink between the look and the operation can lead us astray, and an exchange
 * is a link and a rename: the path always has content, but an edit in between is only kept if the file system has hard links.
 */
import * as fs from 'node:fs'
import { dirname, join, sep } from 'node:path'
import type { EntryPath } from '../../protocol/ids.ts'
import { foldName, OWN_FOLDER, parentOf } from '../../protocol/path.ts'
import { type Disk, DiskError, type DiskStat, isAbsence, type PlaceResult } from './disk.ts'
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

/** Throws DiskError if the root is missing (ENOENT) or no folder (ENOTDIR). Creates nothing. */
export function openPortableDisk(root: string): Disk {
  return new PortableDisk(root)
}

type OwnFolder = typeof STAGING | typeof VERSIONS

// Absent on Windows.
const NOFOLLOW = fs.constants.O_NOFOLLOW ?? 0
const NONBLOCK = fs.constants.O_NONBLOCK ?? 0
const READ = fs.constants.O_RDONLY | NOFOLLOW | NONBLOCK
const READ_WRITE = fs.constants.O_RDWR | NOFOLLOW | NONBLOCK
/** For flushing and for setting times: Windows asks for a descriptor that may write. */
const META = process.platform === 'win32' ? READ_WRITE : READ
const CREATE = fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL | NOFOLLOW

class PortableDisk implements Disk {
  readonly #root: string
  /** Absolute paths that changed since the last `sync`. */
  readonly #unsynced = new Set<string>()
  #folds: { case: boolean; unicode: boolean } | undefined

  constructor(root: string) {
    this.#root = root
    this.#demandRoot()
  }

  // Looking

  stat(path: EntryPath): DiskStat | null {
    try {
      return lookAt(this.#checked(path))
    } catch (error) {
      if (isAbsence(error)) return null
      throw error
    }
  }

  list(path: EntryPath | undefined): { names: string[]; invalid: string[] } {
    const folder = path === undefined ? this.#demandRoot() : this.#checked(path)
    const found = run(() => {
      // readdir follows a symlink; a listing must not.
      if (path !== undefined && fs.lstatSync(folder).isSymbolicLink()) fail('ENOTDIR', path)
      return fs.readdirSync(folder, { encoding: 'buffer' })
    })
    const names: string[] = []
    const invalid: string[] = []
    for (const bytes of found) {
      const name = bytes.toString()
      if (path === undefined && name === OWN_FOLDER) continue
      names.push(name)
      if (name.includes('\ufffd') && !Buffer.from(name).equals(bytes)) invalid.push(name)
    }
    return { names, invalid }
  }

  listStat(path: EntryPath | undefined): { entries: { name: string; stat: DiskStat }[]; invalid: string[] } {
    const { names, invalid } = this.list(path)
    const unreadable = new Set(invalid)
    const folder = path === undefined ? this.#root : this.#checked(path)
    const entries: { name: string; stat: DiskStat }[] = []
    for (const name of names) {
      if (unreadable.has(name)) continue
      const stat = lookAt(join(folder, name))
      if (stat !== null) entries.push({ name, stat })
    }
    return { entries, invalid }
  }

  readLink(path: EntryPath): string {
    return run(() => fs.readlinkSync(this.#checked(path), 'utf8'))
  }

  read(path: EntryPath, into?: Uint8Array): { before: DiskStat; bytes: Uint8Array; after: DiskStat } {
    const { fd, stat: before } = this.open(path)
    try {
      if (before.size > READ_BYTES_MAX) fail('EFBIG', path)
      const bytes = into && into.length >= before.size ? into : Buffer.allocUnsafeSlow(before.size)
      const length = readAt(fd, bytes, before.size, 0)
      return { before, bytes: bytes.subarray(0, length), after: statOpen(fd) }
    } finally {
      fs.closeSync(fd)
    }
  }

  open(path: EntryPath): { fd: number; stat: DiskStat } {
    return openFile(this.#checked(path), path)
  }

  close(fd: number): void {
    run(() => fs.closeSync(fd))
  }

  readFd(fd: number, offset: number, length: number): Uint8Array {
    const bytes = Buffer.allocUnsafeSlow(length)
    return bytes.subarray(0, readAt(fd, bytes, length, offset))
  }

  writeFd(fd: number, offset: number, bytes: Uint8Array): void {
    writeAt(fd, bytes, offset)
  }

  beingWritten(path: EntryPath): boolean {
    this.close(this.open(path).fd)
    return false
  }

  outsidePath(path: EntryPath): string {
    return join(this.#root, path)
  }

  // Staging

  stageFile(slot: string, bytes: Uint8Array, mtimeNs: bigint, exec: boolean): DiskStat {
    return this.#fillSlot(slot, exec, fd => {
      writeAt(fd, bytes, 0)
      setMtime(fd, mtimeNs)
    })
  }

  stageOpen(slot: string, size: number): number {
    const path = this.#own(STAGING, slot)
    const existing = lookAt(path)
    // A slot that a place left here can be a user's file under another name: not one to write into.
    if (existing?.type === 'file' && existing.links === 1) {
      this.#touched(path)
      return run(() => fs.openSync(path, READ_WRITE))
    }
    const fd = this.#createSlot(slot, false)
    try {
      run(() => fs.ftruncateSync(fd, size))
      return fd
    } catch (error) {
      fs.closeSync(fd)
      throw error
    }
  }

  stageRead(slot: string, offset: number, length: number): Uint8Array {
    const { fd, stat } = openFile(this.#own(STAGING, slot), slot)
    try {
      const bytes = Buffer.allocUnsafeSlow(Math.max(0, Math.min(length, stat.size - offset)))
      return bytes.subarray(0, readAt(fd, bytes, bytes.length, offset))
    } finally {
      fs.closeSync(fd)
    }
  }

  stageFinish(slot: string, size: number, mtimeNs: bigint, exec: boolean): DiskStat {
    const fd = run(() => fs.openSync(this.#own(STAGING, slot), READ_WRITE))
    try {
      const stat = statOpen(fd)
      demandFile(stat, slot)
      run(() => {
        if (stat.size !== size) fs.ftruncateSync(fd, size)
        if (stat.exec !== exec) fs.fchmodSync(fd, withExec(fs.fstatSync(fd).mode, exec) & 0o7777)
      })
      setMtime(fd, mtimeNs)
      this.#touched(this.#own(STAGING, slot))
      return statOpen(fd)
    } finally {
      fs.closeSync(fd)
    }
  }

  stageLink(slot: string, target: string): DiskStat {
    const path = this.#own(STAGING, slot)
    this.#makeOwn()
    this.stageRemove(slot)
    run(() => fs.symlinkSync(target, path))
    this.#touched(path)
    return lookAt(path) ?? fail('ENOENT', slot)
  }

  stageCopy(slot: string, from: EntryPath, clone = false): { before: DiskStat; after: DiskStat } {
    return this.#copy(slot, this.#checked(from), from, clone)
  }

  stageCopyKept(slot: string, kept: string, clone = false): void {
    this.#copy(slot, this.#own(VERSIONS, kept), kept, clone)
  }

  stageMove(slot: string, to: string): void {
    const from = this.#own(STAGING, slot)
    const target = this.#own(STAGING, to)
    if (lookAt(target) !== null) fail('EEXIST', to)
    run(() => fs.renameSync(from, target))
    this.#moved(from, target)
  }

  outsideSlot(slot: string): string {
    return this.#own(STAGING, slot)
  }

  stageBeingWritten(): boolean {
    return false
  }

  stageStat(slot: string): DiskStat | null {
    return lookAt(this.#own(STAGING, slot))
  }

  stageRemove(slot: string): void {
    removeIfAny(this.#own(STAGING, slot))
  }

  stageList(): string[] {
    return listIfAny(join(this.#root, OWN_FOLDER, STAGING))
  }

  // Changing the tree

  place(slot: string, path: EntryPath, expected: DiskStat | null): PlaceResult {
    const staged = this.#own(STAGING, slot)
    const target = this.#checked(path)
    if (expected === null) return this.#moveNew(staged, target)
    refuseFolder(expected, path)
    if (!isUntouched(lookAt(target), expected)) return 'unexpected'
    return exchangeExpected(expected, path, {
      slot: () => lookAt(staged),
      exchange: () => {
        if (!exchange(staged, target)) return false
        this.#touched(staged)
        this.#touched(target)
        return true
      },
      stray: () => this.#stray(slot),
    })
  }

  takeOut(path: EntryPath, slot: string, expected: DiskStat): PlaceResult {
    refuseFolder(expected, path)
    const staged = this.#own(STAGING, slot)
    const target = this.#checked(path)
    if (!isUntouched(lookAt(target), expected)) return 'unexpected'
    this.#makeOwn()
    this.stageRemove(slot)
    try {
      if (this.#moveNew(target, staged) === 'unexpected') fail('EEXIST', slot)
    } catch (error) {
      if (error instanceof DiskError && error.code === 'ENOENT') return 'unexpected'
      throw error
    }
    if (isExpected(lookAt(staged), expected)) return 'placed'
    if (this.#moveNew(staged, target) === 'unexpected') this.#stray(slot)
    return 'unexpected'
  }

  move(from: EntryPath, to: EntryPath, expected: DiskStat): PlaceResult {
    const source = this.#checked(from)
    const target = this.#checked(to)
    if (!isUntouched(lookAt(source), expected)) return 'unexpected'
    if (this.#moveNew(source, target) === 'unexpected') return 'unexpected'
    if (isExpected(lookAt(target), expected)) return 'placed'
    this.#moveNew(target, source)
    return 'unexpected'
  }

  makeFolder(path: EntryPath): void {
    const folder = this.#checked(path)
    run(() => fs.mkdirSync(folder))
    this.#touched(folder)
  }

  removeFolder(path: EntryPath): void {
    const folder = this.#checked(path)
    run(() => fs.rmdirSync(folder))
    this.#touched(folder)
  }

  setMeta(path: EntryPath, expected: DiskStat, mtimeNs: bigint | null, exec: boolean | null): PlaceResult {
    if (!isExpected(this.stat(path), expected)) return 'unexpected'
    const { fd, stat } = openFile(this.#checked(path), path, META)
    try {
      if (!isExpected(stat, expected)) return 'unexpected'
      if (exec !== null && exec !== stat.exec)
        run(() => fs.fchmodSync(fd, withExec(fs.fstatSync(fd).mode, exec) & 0o7777))
      if (mtimeNs !== null) setMtime(fd, mtimeNs)
      this.#touched(this.outsidePath(path))
      return 'placed'
    } finally {
      fs.closeSync(fd)
    }
  }

  // Version store

  keep(slot: string, kept: string): void {
    const target = this.#own(VERSIONS, kept)
    this.#makeOwn()
    if (this.#moveNew(this.#own(STAGING, slot), target) === 'unexpected') fail('EEXIST', kept)
  }

  linkKept(kept: string, path: EntryPath): PlaceResult {
    const from = this.#own(VERSIONS, kept)
    const target = this.#checked(path)
    try {
      fs.linkSync(from, target)
      this.#touched(target)
      return 'placed'
    } catch (error) {
      const code = codeOf(error)
      if (code === 'EEXIST') return 'unexpected'
      if (!LINKLESS.has(code)) throw asDiskError(error)
    }
    const slot = `link-${kept}`.slice(0, 255)
    this.stageCopyKept(slot, kept)
    const result = this.#moveNew(this.#own(STAGING, slot), target)
    if (result === 'unexpected') this.stageRemove(slot)
    return result
  }

  keptOpen(kept: string): { fd: number; stat: DiskStat } {
    return openFile(this.#own(VERSIONS, kept), kept)
  }

  outsideKept(kept: string): string {
    return this.#own(VERSIONS, kept)
  }

  keptStat(kept: string): DiskStat | null {
    return lookAt(this.#own(VERSIONS, kept))
  }

  keptRemove(kept: string): void {
    removeIfAny(this.#own(VERSIONS, kept))
  }

  keptList(): string[] {
    return listIfAny(join(this.#root, OWN_FOLDER, VERSIONS))
  }

  // The file system

  together<Result>(steps: () => Result): Result {
    return steps()
  }

  /**
   * There is no syncfs to call: what went through this disk since the last time is fsynced, file by file, then the folders. What
   * users wrote themselves is not among it.
   */
  sync(done: (error: DiskError | null) => void): void {
    const paths = [...this.#unsynced]
    this.#unsynced.clear()
    syncEach(paths).then(
      () => done(null),
      error => {
        for (const path of paths) this.#unsynced.add(path)
        done(asDiskError(error))
      },
    )
  }

  identity(): { device: string; rootIno: string; marker: string | null } {
    this.#demandRoot()
    const stat = run(() => fs.statSync(this.#root, { bigint: true }))
    return { device: String(stat.dev), rootIno: String(stat.ino), marker: this.#readMarker() }
  }

  writeMarker(text: string): void {
    const bytes = Buffer.from(text)
    if (bytes.length > MARKER_BYTES_MAX) throw new RangeError('the marker is too long')
    this.#fillSlot(MARKER, false, fd => writeAt(fd, bytes, 0))
    const marker = join(this.#root, OWN_FOLDER, MARKER)
    run(() => fs.renameSync(this.#own(STAGING, MARKER), marker))
    this.#moved(this.#own(STAGING, MARKER), marker)
  }

  get foldsCase(): boolean {
    return this.#probe().case
  }

  get foldsUnicode(): boolean {
    return this.#probe().unicode
  }

  free(): { freeBytes: number; totalBytes: number } {
    const { bavail, blocks, bsize } = run(() => fs.statfsSync(this.#root))
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize }
  }

  dispose(): void {
    // Holds no descriptors.
  }

  // Folders

  #demandRoot(): string {
    if (!run(() => fs.statSync(this.#root)).isDirectory()) fail('ENOTDIR', this.#root)
    return this.#root
  }

  /** Absolute path of an entry, every folder above it looked at: ENOENT, ENOTDIR, ELOOP. */
  #checked(path: EntryPath): string {
    // There a backslash separates names, and a colon a drive or a stream.
    if (process.platform === 'win32' && /[\\:]/.test(path)) fail('EINVAL', path)
    const parent = parentOf(path)
    let folder = this.#root
    for (const name of parent?.split('/') ?? []) {
      if (name === '..') fail('EXDEV', path)
      folder = join(folder, name)
      const stat = lookAt(folder) ?? fail('ENOENT', path)
      if (stat.type === 'symlink') fail('ELOOP', path)
      if (stat.type !== 'dir') fail('ENOTDIR', path)
    }
    return join(this.#root, path)
  }

  #own(which: OwnFolder, name: string): string {
    checkOwnName(name)
    for (const folder of [join(this.#root, OWN_FOLDER), join(this.#root, OWN_FOLDER, which)])
      if (lookAt(folder)?.type === 'symlink') fail('ELOOP', folder)
    return join(this.#root, OWN_FOLDER, which, name)
  }

  #makeOwn(): void {
    this.#demandRoot()
    for (const folder of [[OWN_FOLDER], [OWN_FOLDER, STAGING], [OWN_FOLDER, VERSIONS]]) {
      const path = join(this.#root, ...folder)
      if (lookAt(path) === null) run(() => fs.mkdirSync(path, 0o700))
    }
  }

  #createSlot(slot: string, exec: boolean): number {
    const path = this.#own(STAGING, slot)
    this.#makeOwn()
    removeIfAny(path)
    this.#touched(path)
    return run(() => fs.openSync(path, CREATE, newMode(exec)))
  }

  #fillSlot(slot: string, exec: boolean, fill: (fd: number) => void): DiskStat {
    const fd = this.#createSlot(slot, exec)
    try {
      fill(fd)
      return statOpen(fd)
    } catch (error) {
      this.stageRemove(slot)
      throw error
    } finally {
      fs.closeSync(fd)
    }
  }

  #copy(slot: string, from: string, name: string, clone: boolean): { before: DiskStat; after: DiskStat } {
    const { fd, stat: before } = openFile(from, name)
    try {
      this.#fillSlot(slot, before.exec, to =>
        run(() => {
          const { mode } = fs.fstatSync(to)
          const { COPYFILE_FICLONE, COPYFILE_FICLONE_FORCE } = fs.constants
          fs.copyFileSync(from, this.#own(STAGING, slot), clone ? COPYFILE_FICLONE_FORCE : COPYFILE_FICLONE)
          // Copying brings the source's mode; the slot's own has the umask in it.
          fs.fchmodSync(to, mode & 0o7777)
          setMtime(to, before.mtimeNs)
        }),
      )
      return { before, after: statOpen(fd) }
    } finally {
      fs.closeSync(fd)
    }
  }

  #stray(slot: string): void {
    const stat = this.stageStat(slot)
    if (stat !== null) this.#moveNew(this.#own(STAGING, slot), this.#own(VERSIONS, strayName(stat)))
  }

  #readMarker(): string | null {
    try {
      return fs.readFileSync(join(this.#root, OWN_FOLDER, MARKER), 'utf8').slice(0, MARKER_BYTES_MAX)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null
      throw asDiskError(error)
    }
  }

  #probe(): { case: boolean; unicode: boolean } {
    if (this.#folds !== undefined) return this.#folds
    this.#makeOwn()
    const staging = join(this.#root, OWN_FOLDER, STAGING)
    const folds = (name: string, twin: string): boolean => {
      run(() => fs.writeFileSync(join(staging, name), ''))
      const folded = lookAt(join(staging, twin)) !== null
      removeIfAny(join(staging, name))
      return folded
    }
    this.#folds = { case: folds('probe-case', 'PROBE-CASE'), unicode: folds('probe-\u00e9', 'probe-e\u0301') }
    return this.#folds
  }

  #moveNew(from: string, to: string): PlaceResult {
    const result = moveNew(from, to)
    if (result === 'placed') this.#moved(from, to)
    return result
  }

  /** A name was made or filled here; its folder's list of names changed as well. */
  #touched(path: string): void {
    this.#unsynced.add(path)
    this.#unsynced.add(dirname(path))
  }

  /** A name moved, and with it whatever below it is not durable yet. */
  #moved(from: string, to: string): void {
    const below = from + sep
    for (const path of [...this.#unsynced]) {
      if (path !== from && !path.startsWith(below)) continue
      this.#unsynced.delete(path)
      this.#unsynced.add(to + path.slice(from.length))
    }
    this.#unsynced.add(dirname(from))
    this.#touched(to)
  }
}

/** Answers of a file system that has no hard links, or has enough of this file's. */
const LINKLESS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK', 'EINVAL', 'ENOSYS'])

/** Moves to a name that must be free: a link and an unlink where there are hard links, else a look and a rename. */
function moveNew(from: string, to: string): PlaceResult {
  return run(() => {
    const stat = lookAt(from) ?? fail('ENOENT', from)
    if (stat.type !== 'dir') {
      try {
        fs.linkSync(from, to)
        fs.unlinkSync(from)
        return 'placed'
      } catch (error) {
        const code = codeOf(error)
        if (code === 'EEXIST' && lookAt(to)?.ino !== stat.ino) return 'unexpected'
        if (code !== 'EEXIST' && !LINKLESS.has(code)) throw error
      }
    }
    // The same inode: another spelling of one name, on a disk that folds names. Renaming is what is wanted.
    const there = lookAt(to)
    if (there !== null && (there.ino !== stat.ino || !isSameName(from, to))) return 'unexpected'
    fs.renameSync(from, to)
    return 'placed'
  })
}

function isSameName(a: string, b: string): boolean {
  return a !== b && foldName(a) === foldName(b)
}

/** Exchanges a slot with a path that always has content meanwhile; false if the path is gone. */
function exchange(staged: string, target: string): boolean {
  return run(() => {
    const aside = `${staged}.aside`
    removeIfAny(aside)
    try {
      fs.linkSync(target, aside)
    } catch (error) {
      const code = codeOf(error)
      if (code === 'ENOENT') return false
      if (!LINKLESS.has(code)) throw error
      fs.renameSync(target, aside)
    }
    fs.renameSync(staged, target)
    fs.renameSync(aside, staged)
    return true
  })
}

/** Files before folders, so that no folder durably names what is not. What is gone meanwhile needs no syncing. */
async function syncEach(paths: readonly string[]): Promise<void> {
  const folders: string[] = []
  for (const path of paths) {
    const stat = lookAt(path)
    if (stat?.type === 'dir') folders.push(path)
    if (stat?.type === 'file') await syncOne(path, META)
  }
  // Windows cannot open a folder, and needs not: NTFS journals its names.
  if (process.platform !== 'win32') for (const folder of folders) await syncOne(folder, READ)
}

async function syncOne(path: string, flags: number): Promise<void> {
  try {
    const handle = await fs.promises.open(path, flags)
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch (error) {
    // Read-only files of a user cannot be opened for writing; gone ones not at all.
    if (!['ENOENT', 'EACCES', 'EPERM', 'ELOOP'].includes(codeOf(error))) throw error
  }
}

// node:fs with our errors

function lookAt(path: string): DiskStat | null {
  try {
    return asDiskStat(fs.lstatSync(path, { bigint: true }))
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ENAMETOOLONG'].includes(codeOf(error))) return null
    throw asDiskError(error)
  }
}

function statOpen(fd: number): DiskStat {
  return run(() => asDiskStat(fs.fstatSync(fd, { bigint: true })))
}

function asDiskStat(stat: fs.BigIntStats): DiskStat {
  return {
    type: stat.isFile() ? 'file' : stat.isDirectory() ? 'dir' : stat.isSymbolicLink() ? 'symlink' : 'other',
    size: Number(stat.size),
    mtimeNs: stat.mtimeNs,
    ctimeNs: stat.ctimeNs,
    ino: stat.ino,
    exec: (stat.mode & 0o111n) !== 0n,
    links: Number(stat.nlink),
  }
}

function openFile(path: string, name: string, flags = READ): { fd: number; stat: DiskStat } {
  const found = lookAt(path) ?? fail('ENOENT', name)
  demandFile(found, name)
  const fd = run(() => fs.openSync(path, flags))
  try {
    const stat = statOpen(fd)
    demandFile(stat, name)
    return { fd, stat }
  } catch (error) {
    fs.closeSync(fd)
    throw error
  }
}

function readAt(fd: number, bytes: Uint8Array, length: number, offset: number): number {
  let done = 0
  while (done < length) {
    const count = run(() => fs.readSync(fd, bytes, done, length - done, offset + done))
    if (count === 0) break
    done += count
  }
  return done
}

function writeAt(fd: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.length; )
    done += run(() => fs.writeSync(fd, bytes, done, bytes.length - done, offset + done))
}

/**
 * Node takes times as seconds in a double, which cannot hold today's nanoseconds: what is set is the nearest time that the
 * double and the disk can say, within a microsecond. A negative number it takes for the present; a Date before 1970 is
 * passed on, in milliseconds.
 */
function setMtime(fd: number, mtimeNs: bigint): void {
  const time = mtimeNs < 0n ? new Date(Math.floor(Number(mtimeNs) / 1e6)) : Number(mtimeNs) / 1e9
  run(() => fs.futimesSync(fd, fs.fstatSync(fd).atime, time))
}

function removeIfAny(path: string): void {
  try {
    fs.unlinkSync(path)
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw asDiskError(error)
  }
}

function listIfAny(folder: string): string[] {
  try {
    return fs.readdirSync(folder)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return []
    throw asDiskError(error)
  }
}

function run<T>(action: () => T): T {
  try {
    return action()
  } catch (error) {
    throw asDiskError(error)
  }
}

/** Node's errors as ours; anything else is a mistake in the program and stays what it is. */
function asDiskError(error: unknown): DiskError {
  if (error instanceof DiskError) return error
  const code = codeOf(error)
  if (code === '') throw error
  return new DiskError(code, (error as Error).message)
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''
}

function fail(code: string, path: string): never {
  throw new DiskError(code, `${code}: '${path}'`)
}
