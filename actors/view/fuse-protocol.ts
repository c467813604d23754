/**
 * The words of the kernel's FUSE protocol 7.x: requests read, replies and notifications written. Pure.
 *
 * Layouts, numbers and meanings are those of the kernel's include/uapi/linux/fuse.h (a test compares them with the header
 * that is installed); which of the optional parts are used, and why, stands at `negotiate`. For what the header does not say –
 * which errors make the kernel stop asking, what may be left out – go-fuse (hanwen/go-fuse, fuse/opcode.go), bazil.org/fuse and
 * fuser (cberner/fuser, src/ll) were read.
 *
 * What the kernel says is believed (lengths are still kept inside the message); names are checked, because they go on to
 * places where `/` or invalid UTF-8 would mean something else.
 */
import { type Fields, type Layout, layout, type Values } from './fuse-layout.ts'

export const FUSE_MAJOR = 7
/** The newest minor version whose layouts are here; the kernel uses the lesser of its own and this. */
export const FUSE_MINOR = 40
/** Minor version of Linux 4.20 (2018), the oldest that is served: since then `max_pages` is negotiated. */
export const FUSE_MINOR_MIN = 28

export const ROOT_NODE = 1

/** Longest name of one component, in bytes, as everywhere on Linux. */
export const NAME_BYTES_MAX = 255

/** Content in one READ or WRITE. 1 MiB is 256 pages of 4 KiB, the most that the kernel grants without a sysctl. */
export const TRANSFER_BYTES_MAX = 1024 * 1024

export const OPCODES = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SYNCFS: 50,
  TMPFILE: 51,
} as const

export const NOTIFY = { INVAL_INODE: 2, INVAL_ENTRY: 3, STORE: 4, DELETE: 6 } as const

/** Bits of INIT's `flags`; those from 2³² on stand in `flags2`, shifted down. */
export const INIT_FLAGS = {
  ASYNC_READ: 2 ** 0,
  ATOMIC_O_TRUNC: 2 ** 3,
  BIG_WRITES: 2 ** 5,
  AUTO_INVAL_DATA: 2 ** 12,
  DO_READDIRPLUS: 2 ** 13,
  ASYNC_DIO: 2 ** 15,
  PARALLEL_DIROPS: 2 ** 18,
  ABORT_ERROR: 2 ** 21,
  MAX_PAGES: 2 ** 22,
  CACHE_SYMLINKS: 2 ** 23,
  HANDLE_KILLPRIV_V2: 2 ** 28,
  INIT_EXT: 2 ** 30,
  PASSTHROUGH: 2 ** 37,
} as const

export const SET = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  FH: 1 << 6,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  CTIME: 1 << 10,
  KILL_SUIDGID: 1 << 11,
} as const

export const OPEN_DIRECT_IO = 1 << 0
export const OPEN_KEEP_CACHE = 1 << 1
export const OPEN_NOFLUSH = 1 << 5
export const OPEN_PASSTHROUGH = 1 << 7
export const GETATTR_FH = 1 << 0
export const FSYNC_DATA_ONLY = 1 << 0
export const WRITE_KILL_SUIDGID = 1 << 2
export const OPEN_KILL_SUIDGID = 1 << 0

/** Structs by their name in the header, without `fuse_`. Exported for the test that compares them with it. */
export const STRUCTS = {
  in_header: layout(
    { len: 'u32', opcode: 'u32', unique: 'u64', nodeid: 'u64', uid: 'u32', gid: 'u32', pid: 'u32' },
    40,
  ),
  out_header: layout({ len: 'u32', error: 'i32', unique: 'u64' }),
  attr: layout({
    ino: 'big',
    size: 'u64',
    blocks: 'u64',
    atime: 'i64',
    mtime: 'i64',
    ctime: 'i64',
    atimensec: 'u32',
    mtimensec: 'u32',
    ctimensec: 'u32',
    mode: 'u32',
    nlink: 'u32',
    uid: 'u32',
    gid: 'u32',
    rdev: 'u32',
    blksize: 'u32',
    flags: 'u32',
  }),
  forget_in: layout({ nlookup: 'u64' }),
  forget_one: layout({ nodeid: 'u64', nlookup: 'u64' }),
  batch_forget_in: layout({ count: 'u32' }, 8),
  getattr_in: layout({ getattr_flags: 'u32', dummy: 'u32', fh: 'u64' }),
  mknod_in: layout({ mode: 'u32', rdev: 'u32', umask: 'u32' }, 16),
  mkdir_in: layout({ mode: 'u32', umask: 'u32' }),
  rename_in: layout({ newdir: 'u64' }),
  rename2_in: layout({ newdir: 'u64', flags: 'u32' }, 16),
  link_in: layout({ oldnodeid: 'u64' }),
  setattr_in: layout(
    {
      valid: 'u32',
      fh: 'u64',
      size: 'u64',
      lock_owner: 'big',
      atime: 'i64',
      mtime: 'i64',
      ctime: 'i64',
      atimensec: 'u32',
      mtimensec: 'u32',
      ctimensec: 'u32',
      mode: 'u32',
      unused4: 'u32',
      uid: 'u32',
      gid: 'u32',
    },
    88,
  ),
  open_in: layout({ flags: 'u32', open_flags: 'u32' }),
  create_in: layout({ flags: 'u32', mode: 'u32', umask: 'u32', open_flags: 'u32' }),
  open_out: layout({ fh: 'u64', open_flags: 'u32', backing_id: 'i32' }),
  release_in: layout({ fh: 'u64', flags: 'u32', release_flags: 'u32', lock_owner: 'big' }),
  flush_in: layout({ fh: 'u64', unused: 'u32', padding: 'u32', lock_owner: 'big' }),
  read_in: layout({ fh: 'u64', offset: 'u64', size: 'u32', read_flags: 'u32', lock_owner: 'big', flags: 'u32' }, 40),
  write_in: layout({ fh: 'u64', offset: 'u64', size: 'u32', write_flags: 'u32', lock_owner: 'big', flags: 'u32' }, 40),
  write_out: layout({ size: 'u32' }, 8),
  kstatfs: layout(
    {
      blocks: 'u64',
      bfree: 'u64',
      bavail: 'u64',
      files: 'u64',
      ffree: 'u64',
      bsize: 'u32',
      namelen: 'u32',
      frsize: 'u32',
    },
    80,
  ),
  fsync_in: layout({ fh: 'u64', fsync_flags: 'u32' }, 16),
  getxattr_in: layout({ size: 'u32' }, 8),
  getxattr_out: layout({ size: 'u32' }, 8),
  access_in: layout({ mask: 'u32' }, 8),
  init_in: layout({ major: 'u32', minor: 'u32', max_readahead: 'u32', flags: 'u32', flags2: 'u32' }, 64),
  init_out: layout(
    {
      major: 'u32',
      minor: 'u32',
      max_readahead: 'u32',
      flags: 'u32',
      max_background: 'u16',
      congestion_threshold: 'u16',
      max_write: 'u32',
      time_gran: 'u32',
      max_pages: 'u16',
      map_alignment: 'u16',
      flags2: 'u32',
      // Since 7.40; before it is unused.
      max_stack_depth: 'u32',
    },
    64,
  ),
  interrupt_in: layout({ unique: 'u64' }),
  ioctl_in: layout({ fh: 'u64', flags: 'u32', cmd: 'u32', arg: 'big', in_size: 'u32', out_size: 'u32' }),
  fallocate_in: layout({ fh: 'u64', offset: 'u64', length: 'u64', mode: 'u32' }, 32),
  dirent: layout({ ino: 'big', off: 'u64', namelen: 'u32', type: 'u32' }),
  lseek_in: layout({ fh: 'u64', offset: 'u64', whence: 'u32' }, 24),
  lseek_out: layout({ offset: 'u64' }),
  copy_file_range_in: layout({
    fh_in: 'u64',
    off_in: 'u64',
    nodeid_out: 'u64',
    fh_out: 'u64',
    off_out: 'u64',
    len: 'u64',
    flags: 'u64',
  }),
  notify_inval_inode_out: layout({ ino: 'u64', off: 'i64', len: 'i64' }),
  notify_inval_entry_out: layout({ parent: 'u64', namelen: 'u32', flags: 'u32' }),
  notify_delete_out: layout({ parent: 'u64', child: 'u64', namelen: 'u32' }, 24),
  notify_store_out: layout({ nodeid: 'u64', offset: 'u64', size: 'u32' }, 24),
} as const satisfies Record<string, Layout<Fields>>

type StructName = keyof typeof STRUCTS
type Struct<Name extends StructName> = (typeof STRUCTS)[Name] extends Layout<infer F extends Fields> ? Values<F> : never

/** The old, short form, as FUSE_SETXATTR_EXT is not asked for. */
const SETXATTR_IN = layout({ size: 'u32', flags: 'u32' })

const IN_HEADER_BYTES = STRUCTS.in_header.bytes
export const OUT_HEADER_BYTES = STRUCTS.out_header.bytes
/** Where the content of a WRITE starts in its request. */
export const WRITE_CONTENT_AT = IN_HEADER_BYTES + STRUCTS.write_in.bytes
/** Size of the buffer that requests are read into; the kernel wants at least `max_write` and the headers. */
export const REQUEST_BYTES_MAX = TRANSFER_BYTES_MAX + 4096

// Requests

/** Who asks, and of what. */
export interface RequestHeader {
  /** Names the request in its reply and in INTERRUPT. */
  unique: number
  node: number
  uid: number
  gid: number
  pid: number
}

/** One component of a path that may be used as one, or why it may not. */
export type Name = string | NameFault

/** `EILSEQ`: not UTF-8; `EINVAL`: empty, `.` or `..`, or with `/` or NUL. */
export interface NameFault {
  readonly fault: 'ENAMETOOLONG' | 'EILSEQ' | 'EINVAL'
}

type Bodies =
  | ({ op: 'INIT' } & Struct<'init_in'>)
  | { op: 'LOOKUP' | 'UNLINK' | 'RMDIR'; name: Name }
  | { op: 'REMOVEXATTR'; name: string }
  | { op: 'FORGET'; count: number }
  | { op: 'BATCH_FORGET'; forgets: { node: number; count: number }[] }
  | { op: 'GETATTR'; fh: number | null }
  | ({ op: 'SETATTR' } & Struct<'setattr_in'>)
  | { op: 'READLINK' | 'STATFS' | 'DESTROY' }
  | { op: 'SYMLINK'; name: Name; target: string }
  | { op: 'MKNOD'; name: Name; mode: number; rdev: number }
  | { op: 'MKDIR'; name: Name; mode: number }
  | { op: 'RENAME'; name: Name; newParent: number; newName: Name; flags: number }
  | { op: 'LINK'; oldNode: number; name: Name }
  | { op: 'OPEN' | 'OPENDIR'; flags: number; openFlags: number }
  | { op: 'CREATE'; name: Name; flags: number; mode: number; openFlags: number }
  | { op: 'READ' | 'READDIR' | 'READDIRPLUS'; fh: number; offset: number; size: number }
  | { op: 'WRITE'; fh: number; offset: number; writeFlags: number; content: Uint8Array }
  | { op: 'RELEASE' | 'RELEASEDIR'; fh: number }
  | { op: 'FSYNC' | 'FSYNCDIR'; fh: number; dataOnly: boolean }
  | { op: 'SETXATTR'; name: string; value: Uint8Array; flags: number }
  | { op: 'GETXATTR'; name: string; size: number }
  | { op: 'LISTXATTR'; size: number }
  | { op: 'FLUSH'; fh: number }
  | { op: 'ACCESS'; mask: number }
  | { op: 'INTERRUPT'; interrupted: number }
  | { op: 'IOCTL' }
  | { op: 'FALLOCATE'; fh: number; offset: number; length: number; mode: number }
  | { op: 'LSEEK'; fh: number; offset: number; whence: number }
  | ({ op: 'COPY_FILE_RANGE' } & Struct<'copy_file_range_in'>)
  | { op: 'unknown'; opcode: number }

/** A member for each operation, so that a `switch` tells them apart. */
type Each<Body> = Body extends { op: infer Op } ? (Op extends string ? Omit<Body, 'op'> & { op: Op } : never) : never

export type RequestBody = Each<Bodies>
export type Request = RequestHeader & RequestBody
export type Operation<Op extends Request['op']> = Extract<Request, { op: Op }>

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** One component of a path as it comes from the kernel. */
export function checkedName(bytes: Uint8Array): Name {
  if (bytes.length > NAME_BYTES_MAX) return { fault: 'ENAMETOOLONG' }
  if (bytes.length === 0 || bytes.includes(0) || bytes.includes(0x2f)) return { fault: 'EINVAL' }
  try {
    const name = strict.decode(bytes)
    return name === '.' || name === '..' ? { fault: 'EINVAL' } : name
  } catch {
    return { fault: 'EILSEQ' }
  }
}

/** Reads text that ends with NUL, and what comes after it. */
class Tail {
  readonly bytes: Uint8Array
  at: number
  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes
    this.at = at
  }
  text(): Uint8Array {
    const nul = this.bytes.indexOf(0, this.at)
    const end = nul < 0 ? this.bytes.length : nul
    const text = this.bytes.subarray(this.at, end)
    this.at = end + 1
    return text
  }
  name(): Name {
    return checkedName(this.text())
  }
  /** Text that is not a name of ours: an attribute's name, a link's target. Invalid UTF-8 is given with U+FFFD. */
  string(): string {
    return Buffer.from(this.text()).toString('utf8')
  }
}

/** Of a request: its opcode. The only look that a reading thread takes at most of them. */
export function opcodeOf(view: DataView): number {
  return view.getUint32(4, true)
}

/** A whole request as read from the device. Content (of WRITE, SETXATTR) is a part of `bytes`, not a copy. */
export function readRequest(bytes: Uint8Array): Request {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const header = STRUCTS.in_header.read(view, 0)
  const { unique, nodeid, uid, gid, pid } = header
  return { unique, node: nodeid, uid, gid, pid, ...readBody(header.opcode, bytes, view) }
}

function readBody(opcode: number, bytes: Uint8Array, view: DataView): RequestBody {
  const at = IN_HEADER_BYTES
  const take = <Name extends StructName>(name: Name) => STRUCTS[name].read(view, at) as unknown as Struct<Name>
  const after = (name: StructName) => new Tail(bytes, at + STRUCTS[name].bytes)
  switch (opcode) {
    case OPCODES.INIT:
      return { op: 'INIT', ...(bytes.length >= at + 20 ? take('init_in') : shortInit(view, at)) }
    case OPCODES.LOOKUP:
      return { op: 'LOOKUP', name: new Tail(bytes, at).name() }
    case OPCODES.UNLINK:
      return { op: 'UNLINK', name: new Tail(bytes, at).name() }
    case OPCODES.RMDIR:
      return { op: 'RMDIR', name: new Tail(bytes, at).name() }
    case OPCODES.REMOVEXATTR:
      return { op: 'REMOVEXATTR', name: new Tail(bytes, at).string() }
    case OPCODES.FORGET:
      return { op: 'FORGET', count: take('forget_in').nlookup }
    case OPCODES.BATCH_FORGET:
      return { op: 'BATCH_FORGET', forgets: readForgets(take('batch_forget_in').count, bytes, view) }
    case OPCODES.GETATTR: {
      const { getattr_flags, fh } = take('getattr_in')
      return { op: 'GETATTR', fh: getattr_flags & GETATTR_FH ? fh : null }
    }
    case OPCODES.SETATTR:
      return { op: 'SETATTR', ...take('setattr_in') }
    case OPCODES.READLINK:
      return { op: 'READLINK' }
    case OPCODES.STATFS:
      return { op: 'STATFS' }
    case OPCODES.DESTROY:
      return { op: 'DESTROY' }
    case OPCODES.SYMLINK: {
      const tail = new Tail(bytes, at)
      return { op: 'SYMLINK', name: tail.name(), target: tail.string() }
    }
    case OPCODES.MKNOD: {
      const { mode, rdev } = take('mknod_in')
      return { op: 'MKNOD', mode, rdev, name: after('mknod_in').name() }
    }
    case OPCODES.MKDIR:
      return { op: 'MKDIR', mode: take('mkdir_in').mode, name: after('mkdir_in').name() }
    case OPCODES.RENAME: {
      const tail = after('rename_in')
      return { op: 'RENAME', newParent: take('rename_in').newdir, flags: 0, name: tail.name(), newName: tail.name() }
    }
    case OPCODES.RENAME2: {
      const { newdir, flags } = take('rename2_in')
      const tail = after('rename2_in')
      return { op: 'RENAME', newParent: newdir, flags, name: tail.name(), newName: tail.name() }
    }
    case OPCODES.LINK:
      return { op: 'LINK', oldNode: take('link_in').oldnodeid, name: after('link_in').name() }
    case OPCODES.OPEN:
    case OPCODES.OPENDIR: {
      const { flags, open_flags } = take('open_in')
      return { op: opcode === OPCODES.OPEN ? 'OPEN' : 'OPENDIR', flags, openFlags: open_flags }
    }
    case OPCODES.CREATE: {
      const { flags, mode, open_flags } = take('create_in')
      return { op: 'CREATE', flags, mode, openFlags: open_flags, name: after('create_in').name() }
    }
    case OPCODES.READ:
    case OPCODES.READDIR:
    case OPCODES.READDIRPLUS: {
      const { fh, offset, size } = take('read_in')
      const op = opcode === OPCODES.READ ? 'READ' : opcode === OPCODES.READDIR ? 'READDIR' : 'READDIRPLUS'
      return { op, fh, offset, size }
    }
    case OPCODES.WRITE: {
      const { fh, offset, size, write_flags } = take('write_in')
      const content = bytes.subarray(WRITE_CONTENT_AT, WRITE_CONTENT_AT + size)
      return { op: 'WRITE', fh, offset, writeFlags: write_flags, content }
    }
    case OPCODES.RELEASE:
      return { op: 'RELEASE', fh: take('release_in').fh }
    case OPCODES.RELEASEDIR:
      return { op: 'RELEASEDIR', fh: take('release_in').fh }
    case OPCODES.FSYNC:
    case OPCODES.FSYNCDIR: {
      const { fh, fsync_flags } = take('fsync_in')
      const dataOnly = (fsync_flags & FSYNC_DATA_ONLY) !== 0
      return { op: opcode === OPCODES.FSYNC ? 'FSYNC' : 'FSYNCDIR', fh, dataOnly }
    }
    case OPCODES.SETXATTR: {
      const { size, flags } = SETXATTR_IN.read(view, at)
      const tail = new Tail(bytes, at + SETXATTR_IN.bytes)
      const name = tail.string()
      return { op: 'SETXATTR', name, flags, value: bytes.subarray(tail.at, tail.at + size) }
    }
    case OPCODES.GETXATTR:
      return { op: 'GETXATTR', size: take('getxattr_in').size, name: after('getxattr_in').string() }
    case OPCODES.LISTXATTR:
      return { op: 'LISTXATTR', size: take('getxattr_in').size }
    case OPCODES.FLUSH:
      return { op: 'FLUSH', fh: take('flush_in').fh }
    case OPCODES.ACCESS:
      return { op: 'ACCESS', mask: take('access_in').mask }
    case OPCODES.INTERRUPT:
      return { op: 'INTERRUPT', interrupted: take('interrupt_in').unique }
    case OPCODES.IOCTL:
      return { op: 'IOCTL' }
    case OPCODES.FALLOCATE: {
      const { fh, offset, length, mode } = take('fallocate_in')
      return { op: 'FALLOCATE', fh, offset, length, mode }
    }
    case OPCODES.LSEEK: {
      const { fh, offset, whence } = take('lseek_in')
      return { op: 'LSEEK', fh, offset, whence }
    }
    case OPCODES.COPY_FILE_RANGE:
      return { op: 'COPY_FILE_RANGE', ...take('copy_file_range_in') }
    default:
      return { op: 'unknown', opcode }
  }
}

/** INIT of a kernel before 7.36 ends after `flags`. */
function shortInit(view: DataView, at: number): Struct<'init_in'> {
  const { major, minor, max_readahead, flags } = layout({
    major: 'u32',
    minor: 'u32',
    max_readahead: 'u32',
    flags: 'u32',
  }).read(view, at)
  return { major, minor, max_readahead, flags, flags2: 0 }
}

function readForgets(count: number, bytes: Uint8Array, view: DataView): { node: number; count: number }[] {
  const forgets: { node: number; count: number }[] = []
  const one = STRUCTS.forget_one
  let at = IN_HEADER_BYTES + STRUCTS.batch_forget_in.bytes
  for (let index = 0; index < count && at + one.bytes <= bytes.length; index++, at += one.bytes) {
    const { nodeid, nlookup } = one.read(view, at)
    forgets.push({ node: nodeid, count: nlookup })
  }
  return forgets
}

// Negotiation

export interface Negotiated {
  minor: number
  /** Whether real files may be handed to the kernel wholly (FUSE_PASSTHROUGH, Linux 6.9, as root). */
  passthrough: boolean
  /** The body of the answer. */
  body: Uint8Array
}

/**
 * The answer to INIT, or null if the kernel is too old for this program.
 *
 * Asked for where the kernel has it: 1 MiB in a request; reads side by side; names of a folder always with their
 * attributes, as a source looks at each anyway;
 * lookups and listings of one folder side by side; O_TRUNC in OPEN; the clearing of set-user-id bits left to the file system
 * below, so that not every write costs a question for `security.capability`; link targets cached.
 *
 * Not asked for, and why:
 * - WRITEBACK_CACHE: a write would be done when the kernel has it, not when the disk below has it. A crash of the view would lose
 *   what programs believe to be written, and the kernel would hold its own size and mtime against what peers change.
 * - EXPLICIT_INVAL_DATA: pages are dropped when mtime or size turn out to be others, also where no notification came.
 * - NO_OPEN, NO_OPENDIR: the source must know what is open. POSIX_LOCKS, FLOCK_LOCKS: locks hold inside this machine only, and
 *   the kernel does that alone. POSIX_ACL, DONT_MASK: modes suffice. EXPORT_SUPPORT: node numbers do not outlive FORGET.
 *   SPLICE: content is copied once more in memory instead, which is cheaper than the calls it takes from here.
 */
export function negotiate(init: Struct<'init_in'>, wanted: { passthrough: boolean }): Negotiated | null {
  if (init.major < FUSE_MAJOR || (init.major === FUSE_MAJOR && init.minor < FUSE_MINOR_MIN)) return null
  const bytes = STRUCTS.init_out.bytes
  const body = new Uint8Array(bytes)
  const view = new DataView(body.buffer)
  // Not in one number: 64 bits do not fit.
  const has = (flag: number) =>
    Math.floor(flag < 2 ** 32 ? init.flags / flag : (init.flags2 * 2 ** 32) / flag) % 2 === 1
  const passthrough = wanted.passthrough && has(INIT_FLAGS.INIT_EXT) && has(INIT_FLAGS.PASSTHROUGH)
  let flags = 0
  for (const [name, flag] of Object.entries(INIT_FLAGS))
    if (name === 'PASSTHROUGH' ? passthrough : has(flag)) flags += flag
  STRUCTS.init_out.write(view, 0, {
    major: FUSE_MAJOR,
    minor: Math.min(init.minor, FUSE_MINOR),
    max_readahead: Math.min(init.max_readahead, TRANSFER_BYTES_MAX),
    flags: flags % 2 ** 32,
    // Requests of the kernel's own accord (read-ahead) that may be open at once; at the threshold it holds back.
    max_background: 64,
    congestion_threshold: 48,
    max_write: TRANSFER_BYTES_MAX,
    time_gran: 1,
    max_pages: TRANSFER_BYTES_MAX / 4096,
    map_alignment: 0,
    flags2: Math.floor(flags / 2 ** 32),
    // How many stacked file systems may be below: an ordinary one is 0.
    max_stack_depth: passthrough ? 1 : 0,
  })
  return { minor: Math.min(init.minor, FUSE_MINOR), passthrough, body }
}

// Replies

/** A reply that says that it went well, with its body. */
export function reply(unique: number, body?: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(OUT_HEADER_BYTES + (body?.length ?? 0))
  writeReplyHeader(bytes, unique, bytes.length)
  if (body !== undefined) bytes.set(body, OUT_HEADER_BYTES)
  return bytes
}

/** Writes the header of a reply whose body of `length` − 16 bytes is in place already. */
export function writeReplyHeader(bytes: Uint8Array, unique: number, length: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  STRUCTS.out_header.write(view, 0, { len: length, error: 0, unique })
}

/** @param errno positive, as in errno(3) */
export function replyError(unique: number, errno: number): Uint8Array {
  const bytes = new Uint8Array(OUT_HEADER_BYTES)
  STRUCTS.out_header.write(new DataView(bytes.buffer), 0, { len: OUT_HEADER_BYTES, error: -errno, unique })
  return bytes
}

/** Attributes of a node in the view's own words; times in nanoseconds since 1970. */
export interface Attributes {
  ino: bigint
  size: number
  /** Of 512 bytes. */
  blocks: number
  atimeNs: bigint
  mtimeNs: bigint
  ctimeNs: bigint
  /** Type and permission bits, as st_mode. */
  mode: number
  links: number
  uid: number
  gid: number
  rdev: number
}

const ATTR_BYTES = STRUCTS.attr.bytes
const ATTR_OUT_BYTES = 16 + ATTR_BYTES
const ENTRY_OUT_BYTES = 40 + ATTR_BYTES
const BLOCK_BYTES = 4096

function writeAttributes(view: DataView, at: number, attributes: Attributes): void {
  const [atime, atimensec] = secondsOf(attributes.atimeNs)
  const [mtime, mtimensec] = secondsOf(attributes.mtimeNs)
  const [ctime, ctimensec] = secondsOf(attributes.ctimeNs)
  const { ino, size, blocks, mode, links: nlink, uid, gid, rdev } = attributes
  const times = { atime, mtime, ctime, atimensec, mtimensec, ctimensec }
  STRUCTS.attr.write(view, at, {
    ino,
    size,
    blocks,
    ...times,
    mode,
    nlink,
    uid,
    gid,
    rdev,
    blksize: BLOCK_BYTES,
    flags: 0,
  })
}

const NS = 1_000_000_000

/** Whole seconds, rounded down, and the nanoseconds that are left. */
export function secondsOf(ns: bigint): [seconds: number, nanoseconds: number] {
  const rest = Number(ns % 1_000_000_000n)
  const seconds = Number(ns / 1_000_000_000n)
  return rest < 0 ? [seconds - 1, rest + NS] : [seconds, rest]
}

export function nanosecondsOf(seconds: number, nanoseconds: number): bigint {
  return BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds)
}

/** Reads back what `writeAttributes` wrote. */
export function readAttributes(view: DataView, at: number): Attributes {
  const { ino, size, blocks, mode, nlink, uid, gid, rdev, ...times } = STRUCTS.attr.read(view, at)
  return {
    ino,
    size,
    blocks,
    mode,
    links: nlink,
    uid,
    gid,
    rdev,
    atimeNs: nanosecondsOf(times.atime, times.atimensec),
    mtimeNs: nanosecondsOf(times.mtime, times.mtimensec),
    ctimeNs: nanosecondsOf(times.ctime, times.ctimensec),
  }
}

/** How long the kernel may go without asking again. */
function writeValidity(view: DataView, seconds: number, nanoseconds: number, ms: number): void {
  STRUCTS.lseek_out.write(view, seconds, { offset: Math.floor(ms / 1000) })
  view.setUint32(nanoseconds, (ms % 1000) * 1_000_000, true)
}

/** Body of GETATTR and SETATTR. */
export function attrBody(attributes: Attributes, validMs: number): Uint8Array {
  const bytes = new Uint8Array(ATTR_OUT_BYTES)
  const view = new DataView(bytes.buffer)
  writeValidity(view, 0, 8, validMs)
  writeAttributes(view, 16, attributes)
  return bytes
}

/** A node as LOOKUP, CREATE and READDIRPLUS give it to the kernel. */
export interface NodeEntry {
  /** 0 in READDIRPLUS: only the name is given. */
  node: number
  generation: number
  attributes: Attributes
  validMs: number
}

function writeEntry(bytes: Uint8Array, at: number, entry: NodeEntry): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, ENTRY_OUT_BYTES)
  STRUCTS.forget_one.write(view, 0, { nodeid: entry.node, nlookup: entry.generation })
  writeValidity(view, 16, 32, entry.validMs)
  writeValidity(view, 24, 36, entry.validMs)
  writeAttributes(view, 40, entry.attributes)
}

/** Body of LOOKUP, MKNOD, MKDIR, SYMLINK and LINK. */
export function entryBody(entry: NodeEntry): Uint8Array {
  const bytes = new Uint8Array(ENTRY_OUT_BYTES)
  writeEntry(bytes, 0, entry)
  return bytes
}

export interface OpenAnswer {
  fh: number
  /** OPEN_… bits. */
  flags: number
  /** With OPEN_PASSTHROUGH: the descriptor as the kernel knows it. */
  backing: number
}

/** Body of OPEN and OPENDIR. */
export function openBody(answer: OpenAnswer): Uint8Array {
  const bytes = new Uint8Array(STRUCTS.open_out.bytes)
  const { fh, flags, backing } = answer
  STRUCTS.open_out.write(new DataView(bytes.buffer), 0, { fh, open_flags: flags, backing_id: backing })
  return bytes
}

/** Body of CREATE. */
export function createBody(entry: NodeEntry, answer: OpenAnswer): Uint8Array {
  const bytes = new Uint8Array(ENTRY_OUT_BYTES + STRUCTS.open_out.bytes)
  writeEntry(bytes, 0, entry)
  bytes.set(openBody(answer), ENTRY_OUT_BYTES)
  return bytes
}

/** Body of WRITE, COPY_FILE_RANGE, and of GETXATTR and LISTXATTR that asked for the size only. */
export function sizeBody(size: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setUint32(0, size, true)
  return bytes
}

/** Body of LSEEK. */
export function offsetBody(offset: number): Uint8Array {
  const bytes = new Uint8Array(8)
  STRUCTS.lseek_out.write(new DataView(bytes.buffer), 0, { offset })
  return bytes
}

/** Space of a file system; blocks of `blockBytes`. */
export interface Space {
  blockBytes: number
  blocks: number
  blocksFree: number
  blocksAvailable: number
  files: number
  filesFree: number
}

export function statfsBody(space: Space): Uint8Array {
  const bytes = new Uint8Array(STRUCTS.kstatfs.bytes)
  STRUCTS.kstatfs.write(new DataView(bytes.buffer), 0, {
    blocks: space.blocks,
    bfree: space.blocksFree,
    bavail: space.blocksAvailable,
    files: space.files,
    ffree: space.filesFree,
    bsize: space.blockBytes,
    namelen: NAME_BYTES_MAX,
    frsize: space.blockBytes,
  })
  return bytes
}

const DIRENT_BYTES = STRUCTS.dirent.bytes

/** Body of READDIR or READDIRPLUS, filled name by name up to the size that was asked for. */
export class ListingBody {
  readonly #bytes: Uint8Array
  readonly #plus: boolean
  #at = 0

  constructor(size: number, plus: boolean) {
    this.#bytes = new Uint8Array(Math.min(size, TRANSFER_BYTES_MAX))
    this.#plus = plus
  }

  /** Whether a name of so many bytes has room. Asked before an entry is added, as adding counts as a lookup. */
  fits(nameBytes: number): boolean {
    return this.#at + this.#recordBytes(nameBytes) <= this.#bytes.length
  }

  /** @param offset of the entry that follows, as the kernel will ask for it */
  add(name: Uint8Array, offset: number, entry: NodeEntry): void {
    let at = this.#at
    this.#at += this.#recordBytes(name.length)
    if (this.#plus) {
      if (entry.node !== 0) writeEntry(this.#bytes, at, entry)
      at += ENTRY_OUT_BYTES
    }
    const type = (entry.attributes.mode & 0o170000) >> 12
    const view = new DataView(this.#bytes.buffer)
    STRUCTS.dirent.write(view, at, { ino: entry.attributes.ino, off: offset, namelen: name.length, type })
    this.#bytes.set(name, at + DIRENT_BYTES)
  }

  get body(): Uint8Array {
    return this.#bytes.subarray(0, this.#at)
  }

  #recordBytes(nameBytes: number): number {
    return (this.#plus ? ENTRY_OUT_BYTES : 0) + Math.ceil((DIRENT_BYTES + nameBytes) / 8) * 8
  }
}

// Notifications

function notification(code: number, body: number, name: Uint8Array): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(OUT_HEADER_BYTES + body + name.length)
  bytes.set(name, OUT_HEADER_BYTES + body)
  STRUCTS.out_header.write(new DataView(bytes.buffer), 0, { len: bytes.length, error: code, unique: 0 })
  return { bytes, view: new DataView(bytes.buffer, OUT_HEADER_BYTES) }
}

/** The name with the NUL that the kernel wants behind it. */
function terminated(name: string): Uint8Array {
  return Buffer.from(`${name}\0`)
}

/** Attributes of a node are no longer to be believed; with `content`, neither are its cached pages. */
export function notifyInvalidInode(node: number, content: boolean): Uint8Array {
  const { bytes, view } = notification(NOTIFY.INVAL_INODE, STRUCTS.notify_inval_inode_out.bytes, new Uint8Array(0))
  STRUCTS.notify_inval_inode_out.write(view, 0, { ino: node, off: content ? 0 : -1, len: 0 })
  return bytes
}

/** What is under a name is no longer to be believed. */
export function notifyInvalidEntry(parent: number, name: string): Uint8Array {
  const text = terminated(name)
  const { bytes, view } = notification(NOTIFY.INVAL_ENTRY, STRUCTS.notify_inval_entry_out.bytes, text)
  STRUCTS.notify_inval_entry_out.write(view, 0, { parent, namelen: text.length - 1, flags: 0 })
  return bytes
}

/** A name is gone; unlike `notifyInvalidEntry` this tells those who watch the folder. */
export function notifyDeleted(parent: number, child: number, name: string): Uint8Array {
  const text = terminated(name)
  const { bytes, view } = notification(NOTIFY.DELETE, STRUCTS.notify_delete_out.bytes, text)
  STRUCTS.notify_delete_out.write(view, 0, { parent, child, namelen: text.length - 1 })
  return bytes
}

/** Puts content into the kernel's cache of a node. */
export function notifyStore(node: number, offset: number, content: Uint8Array): Uint8Array {
  const { bytes, view } = notification(NOTIFY.STORE, STRUCTS.notify_store_out.bytes, content)
  STRUCTS.notify_store_out.write(view, 0, { nodeid: node, offset, size: content.length })
  return bytes
}
