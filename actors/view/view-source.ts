/**
 * Through what the view reaches content: a tree of files by path, whoever keeps it – a folder on the disk (`folder-source.ts`),
 * memory (`memory-source.ts`), arenas. The view knows the kernel, the source knows the files; a source never hears of node numbers.
 *
 * Paths are relative to the source's root, components joined by `/`; '' is the root itself. Components were checked by the view:
 * valid UTF-8, 1 to 255 bytes, no `/` or NUL, not `.` or `..`.
 *
 * Every method may answer at once or by a promise; at once is the fast way, and the view is not held up by a slow promise. A
 * failure is an error whose `code` is an errno name: ViewError, or any other that has one (DiskError, those of Node). One without
 * is a defect: it is logged and the program gets EIO.
 */
import type { Attributes, Space } from './fuse-reply.ts'
import type { TimeChange } from './view-calls.ts'

export type Answer<Value> = Value | Promise<Value>

/**
 * What a source says no with. Customary codes: ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EACCES, EPERM, EROFS, ENOSPC, EXDEV,
 * EOPNOTSUPP, ENODATA (no such extended attribute), EHOSTUNREACH (content that no connected peer has), EIO, EINTR (given up).
 */
export class ViewError extends Error {
  override readonly name = 'ViewError'
  readonly code: string
  constructor(code: string, message: string) {
    // An answer for a program: where it was given is not asked, and to note it costs more than most answers.
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    super(`${code}: ${message}`)
    Error.stackTraceLimit = stackTraceLimit
    this.code = code
  }
}

/** What is known of one path. */
export interface SourceEntry {
  /**
   * Which file it is, whatever its name: equal for hard links, kept by a rename and by an unreal file that becomes real, never
   * given to another file later.
   */
  readonly id: string
  /** `ino` is shown to programs: unique in the source, and the same each time. */
  readonly attributes: Attributes
  /** Changes whenever the content does. null: mtime, ctime and size together say it. */
  readonly version: string | null
  /** How long the kernel may believe this, ms; absent: as the source says. */
  readonly validMs?: number
}

export interface OpenHow {
  read: boolean
  /** The file becomes a real one if it is not. */
  write: boolean
  append: boolean
  truncate: boolean
}

/** A file or folder that is open. The view closes each exactly once, when nothing is under way on it any more. */
export interface OpenNode {
  readonly entry: SourceEntry
  /** Of what is on the disk: its descriptor. It stays open until `close`. */
  readonly descriptor: number | null
  /** What it is now, also when it has no name any more. */
  look(): Answer<SourceEntry>
  close(): void
}

/** Of a real file the descriptor is opened as asked, and the view reads and writes with it by itself; else `read` is asked. */
export interface OpenFile extends OpenNode {
  /**
   * Content from `offset` on; shorter only at the end of the file. Takes as long as it takes; `signal` says that nobody waits any
   * more. Fails at once with EHOSTUNREACH if the content is not here and no peer can give it.
   */
  read?(offset: number, length: number, signal: AbortSignal): Answer<Uint8Array>
  /**
   * The same if it is there already and can be had without waiting: into the beginning of `into`, as much of it as the file has. How many
   * bytes; null: `read` it. Asked first, if it is there.
   */
  readNow?(offset: number, into: Uint8Array): number | null
  /** Says that it is open once more, by another descriptor, until what is returned is called. */
  hold?(): () => void
  /**
   * The descriptor is a copy of an unreal file's content, only to be read: by the view, and not by the kernel past it, for who
   * has it open goes on with the real file once there is one.
   */
  readonly copied?: boolean
}

export interface OpenFolder extends OpenNode {
  /** What is in it now. */
  names(): Answer<readonly string[]>
  /** What one of the names is; null if it is gone. */
  child(name: string): Answer<SourceEntry | null>
  /** Makes its names durable. */
  sync(): Answer<void>
}

/** Who makes something, as the kernel says. Matters where the source serves several users (as root). */
export interface Owner {
  uid: number
  gid: number
}

/** What shall change of a file; what is absent stays. */
export interface Changes {
  mode?: number
  uid?: number
  gid?: number
  size?: number
  atime?: Exclude<TimeChange, null>
  mtime?: Exclude<TimeChange, null>
}

/** What happened in the source that the view did not do itself. */
export type SourceChange =
  /** Attributes, and with `content` the content, of what is at the path are others now. */
  | { kind: 'changed'; path: string; content: boolean }
  /** Something else, or nothing, may be at the path now; or something is where nothing was. */
  | { kind: 'replaced'; path: string }
  /** Anything may have changed: what was said got lost. */
  | { kind: 'everything' }

export interface ViewSource {
  /**
   * How long the kernel may believe names and attributes without asking, ms. Long where `subscribe` tells every change soon, short
   * (1,000) where it does not.
   */
  readonly validMs: number
  /** A path that must not be served through itself: the view refuses to be mounted inside of it or above it. null: none. */
  readonly root: string | null

  lookup(path: string): Answer<SourceEntry>
  openFolder(path: string): Answer<OpenFolder>
  readLink(path: string): Answer<string>
  /**
   * May take long where content has to come first; `signal` says that nobody waits any more: nothing is made or emptied from then on, as the
   * program may have opened it once more and written to it.
   */
  open(path: string, how: OpenHow, signal: AbortSignal): Answer<OpenFile>
  /** Makes and opens a file; with `exclusive` EEXIST if there is something, else an existing file is opened. */
  create(path: string, how: OpenHow & { exclusive: boolean }, mode: number, owner: Owner): Answer<OpenFile>
  makeFolder(path: string, mode: number, owner: Owner): Answer<SourceEntry>
  makeSymlink(path: string, target: string, owner: Owner): Answer<SourceEntry>
  /** A regular file, a named pipe or a socket, by the type in `mode`. Others: EPERM. */
  makeNode(path: string, mode: number, owner: Owner): Answer<SourceEntry>
  /** A hard link. */
  link(from: string, to: string): Answer<SourceEntry>
  remove(path: string): Answer<void>
  removeFolder(path: string): Answer<void>
  /**
   * @param renamed may be run before all has been done, once the new name is the only one: others need not wait for the rest
   * @param how `replace`: over what is there, as rename(2) does; `keep`: EEXIST if something is; `exchange`: both stay
   */
  rename(from: string, to: string, how: 'replace' | 'keep' | 'exchange', renamed?: () => void): Answer<void>
  /** Changes a file or folder: what is `open` if something is given (its name may lead elsewhere, or be gone), else by name. */
  change(path: string | null, open: OpenNode | null, changes: Changes): Answer<SourceEntry>
  getAttribute(path: string, name: string): Answer<Uint8Array>
  setAttribute(path: string, name: string, value: Uint8Array, mode: 'set' | 'create' | 'replace'): Answer<void>
  listAttributes(path: string): Answer<string[]>
  removeAttribute(path: string, name: string): Answer<void>
  space(): Answer<Space>
  /** Tells changes that did not come through the view, until the returned function is called. */
  subscribe(listener: (change: SourceChange) => void): () => void
  close(): void
}
