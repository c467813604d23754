/**
 * What an arena needs of a disk, and nothing more. Synchronous: an arena has a thread of its own, where
 * synchronous calls are the fast way. `disk-posix.ts` is the real one; `disk-memory.ts` that of the simulator. Both pass
 * test/arena/disk-acceptance.
 *
 * Every path is relative to the root and is resolved below it without following a symlink in any component, the last
 * included. A *slot* is a name in the staging folder (`.realize/staging`), a *kept* name one in the version store
 * (`.realize/versions`): both are flat, made by the caller from `[a-z0-9.-]`, and on the root's own file system.
 */
import type { EntryPath } from '../../protocol/ids.ts'

/** What lstat says. `other`: a device, socket or pipe, which is never synced. */
export interface DiskStat {
  type: 'file' | 'dir' | 'symlink' | 'other'
  /** Bytes; of a symlink, of its target text. */
  size: number
  mtimeNs: bigint
  ctimeNs: bigint
  ino: bigint
  /** Any of the three execute bits. */
  exec: boolean
  links: number
}

/** Errors that a caller handles: `code` is the errno name (ENOENT, EEXIST, ENOTEMPTY, ENOSPC, EACCES, ENOTDIR, ELOOP, EIO …). */
export class DiskError extends Error {
  override readonly name = 'DiskError'
  readonly code: string
  constructor(code: string, message: string) {
    // That nothing is there is an answer like any other; to note where it was given costs more than the question.
    const { stackTraceLimit } = Error
    if (ANSWERS.has(code)) Error.stackTraceLimit = 0
    super(message)
    Error.stackTraceLimit = stackTraceLimit
    this.code = code
  }
}

const ANSWERS: ReadonlySet<string> = new Set(['ENOENT', 'ENODATA'])

/** Nothing of this name can be there: it or a folder above it is missing, or is no folder. */
export function isAbsence(error: unknown): boolean {
  return error instanceof DiskError && ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(error.code)
}

/** Whether the disk will go on saying so until somebody does something about it. Others come of what is at a path just then. */
export function isLasting(code: string): boolean {
  return !['ENOENT', 'ENOTDIR', 'ELOOP', 'EEXIST', 'ENOTEMPTY', 'EISDIR', 'EBUSY', 'ESTALE'].includes(code)
}

export type PlaceResult = 'placed' | 'unexpected'

export interface Disk {
  /** null if nothing is there, or a parent is missing or not a directory. */
  stat(path: EntryPath): DiskStat | null
  /**
   * Names in a folder (undefined: the root), unsorted, without `.` and `..`, and without our own folder at the root.
   * A name that is not valid UTF-8 is given with U+FFFD in it, and again in `invalid`. Throws ENOENT, ENOTDIR, EACCES.
   */
  list(path: EntryPath | undefined): { names: string[]; invalid: string[] }
  /** `list` and a stat for each name, as cheap as one readdir and one stat a name. What vanished meanwhile is left out. */
  listStat(path: EntryPath | undefined): { entries: { name: string; stat: DiskStat }[]; invalid: string[] }
  /** Target of a symlink. Throws EINVAL if it is none; the text may be anything, U+FFFD for invalid UTF-8. */
  readLink(path: EntryPath): string
  /**
   * Content of a small file, whole, with the stat before and after the reading. Throws if it is not a regular file. `into`: where it
   * may be put if there is room; then it is the caller's who says how long it is of use.
   */
  read(path: EntryPath, into?: Uint8Array): { before: DiskStat; bytes: Uint8Array; after: DiskStat }
  /** Descriptor of a regular file, for reading. The caller closes it (`close`) or hands it on. */
  open(path: EntryPath): { fd: number; stat: DiskStat }
  close(fd: number): void
  /** Up to `length` bytes from an open file; shorter at its end. */
  readFd(fd: number, offset: number, length: number): Uint8Array
  /** Writes all of it to a slot opened by `stageOpen`. */
  writeFd(fd: number, offset: number, bytes: Uint8Array): void
  /** Whether any process has the file open for writing now (Linux: a read lease is refused); false where that cannot be told. */
  beingWritten(path: EntryPath): boolean
  /** A path that another thread can open for reading (hashing). Not race-free: what is read is checked by stat and hash. */
  outsidePath(path: EntryPath): string

  // Staging

  /** Writes a new file in a slot, replacing what is there: content, mtime, mode (0666 or 0777 less the umask). */
  stageFile(slot: string, bytes: Uint8Array, mtimeNs: bigint, exec: boolean): DiskStat
  /** Opens or creates a slot for writing pieces of a big file; a new one is a hole of `size` bytes. The caller hands it on or closes it. */
  stageOpen(slot: string, size: number): number
  /** Reads a part of a slot (resuming: which leaves are right already). */
  stageRead(slot: string, offset: number, length: number): Uint8Array
  /** Sets size, mtime and mode of a slot that was written piece by piece. */
  stageFinish(slot: string, size: number, mtimeNs: bigint, exec: boolean): DiskStat
  stageLink(slot: string, target: string): DiskStat
  /**
   * Copies a file of the tree into a slot (a clone where the disk can), with the stat of the source before and after.
   * `clone`: throws EOPNOTSUPP where the disk cannot do that without copying bytes.
   */
  stageCopy(slot: string, from: EntryPath, clone?: boolean): { before: DiskStat; after: DiskStat }
  /** The same from the version store. */
  stageCopyKept(slot: string, kept: string, clone?: boolean): void
  /** Gives what is in a slot another one, which must be empty (EEXIST). Throws ENOENT. */
  stageMove(slot: string, to: string): void
  stageStat(slot: string): DiskStat | null
  /** `beingWritten` of a file in a slot: one that was taken out may have been opened just before. */
  stageBeingWritten(slot: string): boolean
  /** A path by which another thread can open a slot for writing (delta transfers), which checks that it is the right one. */
  outsideSlot(slot: string): string
  stageRemove(slot: string): void
  stageList(): string[]

  // Changing the tree. None of these follows a symlink or replaces what it does not know.

  /**
   * Puts a slot in place in one step. `expected` null: nothing may be there ('unexpected' otherwise). Else what is there
   * is exchanged with the slot; if what came out is not `expected` (type, size, mtimeNs, ino), it is exchanged
   * back and the answer is 'unexpected'. After 'placed' with something expected, the slot holds the former content.
   * Throws ENOENT if a parent is missing.
   */
  place(slot: string, path: EntryPath, expected: DiskStat | null): PlaceResult
  /** Takes a file or symlink out of the tree into a slot; if it is not `expected` it is put back. */
  takeOut(path: EntryPath, slot: string, expected: DiskStat): PlaceResult
  /** Renames within the tree, file, symlink or folder, never over something. If what moved is not `expected` (for a folder: ino alone) it is moved back. */
  move(from: EntryPath, to: EntryPath, expected: DiskStat): PlaceResult
  /** Throws EEXIST, ENOENT. Mode 0777 less the umask. */
  makeFolder(path: EntryPath): void
  /** Throws ENOTEMPTY, ENOENT, ENOTDIR. */
  removeFolder(path: EntryPath): void
  /** Sets mtime (null: leaves it) and execute bits (null: leaves them; they follow the read bits) of the regular file that is `expected`. */
  setMeta(path: EntryPath, expected: DiskStat, mtimeNs: bigint | null, exec: boolean | null): PlaceResult

  // Version store

  /** Moves a slot into the version store, never over something (EEXIST). */
  keep(slot: string, kept: string): void
  /** Links a version into the tree, never over something ('unexpected' if something is there). Its link in the version store stays. */
  linkKept(kept: string, path: EntryPath): PlaceResult
  keptOpen(kept: string): { fd: number; stat: DiskStat }
  keptStat(kept: string): DiskStat | null
  /** A path by which another thread can read a version; as `outsidePath`. */
  outsideKept(kept: string): string
  keptRemove(kept: string): void
  keptList(): string[]

  // The file system

  /** Steps that follow each other at once: a folder may be held open from one to the next. */
  together<Result>(steps: () => Result): Result
  /** Makes everything written so far durable (syncfs). Calls back once; with few changes the disk may fsync those alone. */
  sync(done: (error: DiskError | null) => void): void
  /** Identity of the file system and the root folder, to tell another disk or an empty mount point from the real one. */
  identity(): { device: string; rootIno: string; marker: string | null }
  /** Writes our marker file (`.realize/marker`), creating our folders. */
  writeMarker(text: string): void
  /** True if this disk cannot hold two names that differ only in case (or only in Unicode form). */
  readonly foldsCase: boolean
  readonly foldsUnicode: boolean
  free(): { freeBytes: number; totalBytes: number }
  /** Releases descriptors. */
  dispose(): void
}
