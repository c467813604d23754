/** What the kernel is told: replies to its requests, and notifications. Pure. */
import { NAME_BYTES_MAX, NOTIFY, OUT_HEADER_BYTES, STRUCTS, TRANSFER_BYTES_MAX } from './fuse-protocol.ts'

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
