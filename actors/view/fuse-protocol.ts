/**
 * The words of the kernel's FUSE protocol 7.x: numbers, layouts, and what is agreed at the start. Pure. `fuse-request.ts` reads what the
 * kernel says, `fuse-reply.ts` writes what it is told.
 *
 * Layouts, numbers and meanings are those of the kernel's include/uapi/linux/fuse.h; a test compares them with the header that is
 * installed. Which of the optional parts are used, and why, stands at `negotiate`.
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

/**
 * Extended attributes that no file in a view has, whatever the disk below has. Access control lists would say something else than the modes
 * by which the kernel decides. Labels of SELinux the kernel gives by itself where they mean something. `ls -l` asks for both of every
 * file, and the kernel remembers no answer.
 */
export function isForeignAttribute(name: string): boolean {
  return name.startsWith('system.') || name === 'security.selinux'
}

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

export type StructName = keyof typeof STRUCTS
export type Struct<Name extends StructName> =
  (typeof STRUCTS)[Name] extends Layout<infer F extends Fields> ? Values<F> : never

export const IN_HEADER_BYTES = STRUCTS.in_header.bytes
export const OUT_HEADER_BYTES = STRUCTS.out_header.bytes
/** Where the content of a WRITE starts in its request. */
export const WRITE_CONTENT_AT = IN_HEADER_BYTES + STRUCTS.write_in.bytes
/** Size of the buffer that requests are read into; the kernel wants at least `max_write` and the headers. */
export const REQUEST_BYTES_MAX = TRANSFER_BYTES_MAX + 4096

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
