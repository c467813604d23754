/**
 * What the kernel says: requests, read from their bytes. Pure.
 *
 * The kernel is believed (lengths are still kept inside the message); names are checked, because they go on to places where `/` or
 * invalid UTF-8 would mean something else.
 */
import { layout } from './fuse-layout.ts'
import {
  FSYNC_DATA_ONLY,
  GETATTR_FH,
  IN_HEADER_BYTES,
  NAME_BYTES_MAX,
  OPCODES,
  STRUCTS,
  type Struct,
  type StructName,
  WRITE_CONTENT_AT,
} from './fuse-protocol.ts'

/** The old, short form, as FUSE_SETXATTR_EXT is not asked for. */
const SETXATTR_IN = layout({ size: 'u32', flags: 'u32' })

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

/** Of a request to read or write content: how much; null: it is another. */
export function contentBytesOf(view: DataView): number | null {
  const opcode = opcodeOf(view)
  if (opcode !== OPCODES.READ && opcode !== OPCODES.WRITE) return null
  const { size } = STRUCTS[opcode === OPCODES.READ ? 'read_in' : 'write_in'].offsets
  return view.getUint32(IN_HEADER_BYTES + size, true)
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
