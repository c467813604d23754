/**
 * How records lie in the store: entries, of which there are very many, as bytes; others as short arrays with binary hashes. The
 * only place that knows their order.
 */
import type { Author, BlobHash, EntryPath, PeerId, ReplicaId } from '../../protocol/ids.ts'
import type { Entry, Intent, Kept, Stamp } from './store.ts'
import type { Content, Vector, Version } from './version.ts'

type Packed = unknown[]

const TYPES = ['gone', 'file', 'dir', 'symlink'] as const

function packHash(hash: string | null): Uint8Array | null {
  return hash === null ? null : Buffer.from(hash, 'hex')
}

function unpackHash(hash: unknown): BlobHash | null {
  return hash === null ? null : (Buffer.from(hash as Uint8Array).toString('hex') as BlobHash)
}

function packContent(content: Content): Packed {
  const type = TYPES.indexOf(content.type)
  switch (content.type) {
    case 'file':
      return [type, packHash(content.hash), content.size, content.mtimeNs, content.exec]
    case 'symlink':
      return [type, content.target]
    case 'gone':
      return content.deleted === null ? [type] : [type, packHash(content.deleted)]
    case 'dir':
      return [type]
  }
}

function unpackContent(packed: Packed): Content {
  const type = TYPES[packed[0] as number]
  switch (type) {
    case 'file':
      return {
        type,
        hash: unpackHash(packed[1]) as BlobHash,
        size: packed[2] as number,
        mtimeNs: BigInt(packed[3] as number | bigint),
        exec: packed[4] as boolean,
      }
    case 'symlink':
      return { type, target: packed[1] as string }
    case 'dir':
      return { type }
    default:
      return { type: 'gone', deleted: packed.length > 1 ? unpackHash(packed[1]) : null }
  }
}

export function packVersion(version: Version): Packed {
  return [packContent(version.content), version.vector.flat(), version.g, version.author]
}

export function unpackVersion(packed: unknown): Version {
  const [content, flat, g, author] = packed as [Packed, (string | number)[], number, Author]
  const vector: [ReplicaId, number][] = []
  for (let i = 0; i < flat.length; i += 2) vector.push([flat[i] as ReplicaId, flat[i + 1] as number])
  return { content: unpackContent(content), vector: vector as Vector, g, author }
}

function packStamp(stamp: Stamp | null): Packed | null {
  return stamp && [stamp.size, stamp.mtimeNs, stamp.ctimeNs, stamp.ino]
}

function unpackStamp(packed: unknown): Stamp | null {
  if (packed === null) return null
  const [size, mtimeNs, ctimeNs, ino] = packed as [number, bigint, bigint, bigint]
  return { size, mtimeNs: BigInt(mtimeNs), ctimeNs: BigInt(ctimeNs), ino: BigInt(ino) }
}

const HAVE_IS_KNOWN = 1
const DORMANT = 2
const PENDING = 4
const ANNOUNCED = 8
const LOST = 16

const HAVE = 16
const STAMP = 32
const ORIGIN = 64
const FORMER = 128

/** The first byte of an entry in bytes. */
const ENTRY_FORM = 1
const EXEC = 4
const DELETED = 8
const HASH_BYTES = 32
/** Room for what an entry holds beside texts, for each of its three versions or for one count of a vector. */
const PART_BYTES = 128
const INT64_MIN = -(2n ** 63n)
const INT64_MAX = 2n ** 63n - 1n

/** Where entries are put together, and how far the one at work is. */
let scratch = Buffer.allocUnsafeSlow(64 * 1024)
let view = new DataView(scratch.buffer)
let end = 0

/**
 * ```
 * entry    form u8, flags u8, seq, known, have if HAVE, stamp if STAMP, origin text if ORIGIN, former if FORMER
 * version  type u8 with EXEC and DELETED, then of a file: hash, size, mtime i64; of a link: target text; of what is gone: hash if DELETED
 *          number of counts, for each of them: replica text, count; g f64, author text
 * stamp    size f64, mtime i64, ctime i64, inode u64
 * ```
 * Numbers without a width are whole, seven bits a byte, the lowest first; a text is its bytes after their number, u16; all else is little endian.
 */
export function packEntry(entry: Entry): unknown {
  const { known, have, stamp, origin, former } = entry
  // An mtime beyond the year 2262 is no i64.
  if ([known, have, former].some(isFar) || (stamp !== null && (isFarTime(stamp.mtimeNs) || isFarTime(stamp.ctimeNs))))
    return packFarEntry(entry)
  const agree = have === known
  end = 0
  reserve(PART_BYTES)
  scratch[end++] = ENTRY_FORM
  scratch[end++] =
    (agree ? HAVE_IS_KNOWN : have === null ? 0 : HAVE) +
    (entry.dormant ? DORMANT : 0) +
    (entry.pending ? PENDING : 0) +
    (entry.announced ? ANNOUNCED : 0) +
    (stamp === null ? 0 : STAMP) +
    (origin === null ? 0 : ORIGIN) +
    (former === null ? 0 : FORMER)
  putNumber(entry.seq)
  putVersion(known)
  if (!agree && have !== null) putVersion(have)
  if (stamp !== null) {
    reserve(PART_BYTES)
    view.setFloat64(end, stamp.size, true)
    view.setBigInt64(end + 8, stamp.mtimeNs, true)
    view.setBigInt64(end + 16, stamp.ctimeNs, true)
    view.setBigUint64(end + 24, stamp.ino, true)
    end += 32
  }
  if (origin !== null) putText(origin)
  if (former !== null) putVersion(former)
  return Buffer.from(scratch.subarray(0, end))
}

function isFar(version: Version | null): boolean {
  return version?.content.type === 'file' && isFarTime(version.content.mtimeNs)
}

function isFarTime(ns: bigint): boolean {
  return ns > INT64_MAX || ns < INT64_MIN
}

function reserve(bytes: number): void {
  if (end + bytes <= scratch.length) return
  const larger = Buffer.allocUnsafeSlow(2 * (end + bytes))
  larger.set(scratch.subarray(0, end))
  scratch = larger
  view = new DataView(scratch.buffer)
}

function putNumber(number: number): void {
  let rest = number
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) scratch[end++] = (rest % 0x80) + 0x80
  scratch[end++] = rest
}

function putText(text: string): void {
  reserve(PART_BYTES + 3 * text.length)
  const bytes = scratch.write(text, end + 2)
  view.setUint16(end, bytes, true)
  end += 2 + bytes
}

function putHash(hash: string): void {
  scratch.write(hash, end, HASH_BYTES, 'hex')
  end += HASH_BYTES
}

function putVersion({ content, vector, g, author }: Version): void {
  reserve(PART_BYTES)
  const type = TYPES.indexOf(content.type)
  switch (content.type) {
    case 'file':
      scratch[end++] = type + (content.exec ? EXEC : 0)
      putHash(content.hash)
      putNumber(content.size)
      view.setBigInt64(end, content.mtimeNs, true)
      end += 8
      break
    case 'symlink':
      scratch[end++] = type
      putText(content.target)
      break
    case 'gone':
      scratch[end++] = type + (content.deleted === null ? 0 : DELETED)
      if (content.deleted !== null) putHash(content.deleted)
      break
    case 'dir':
      scratch[end++] = type
  }
  reserve(PART_BYTES)
  putNumber(vector.length)
  for (const [replica, count] of vector) {
    putText(replica)
    putNumber(count)
  }
  reserve(PART_BYTES)
  view.setFloat64(end, g, true)
  end += 8
  putText(author)
}

/** What is read, and how far that is. */
let source: Buffer = scratch
let sourceView: DataView = view
let at = 0

export function unpackEntry(path: EntryPath, packed: unknown): Entry {
  if (!(packed instanceof Uint8Array)) return unpackFarEntry(path, packed)
  source = Buffer.from(packed.buffer, packed.byteOffset, packed.length)
  sourceView = new DataView(packed.buffer, packed.byteOffset, packed.length)
  const flags = source[1] as number
  at = 2
  const seq = takeNumber()
  const known = takeVersion()
  const have = flags & HAVE_IS_KNOWN ? known : flags & HAVE ? takeVersion() : null
  let stamp: Stamp | null = null
  if (flags & STAMP) {
    stamp = {
      size: sourceView.getFloat64(at, true),
      mtimeNs: sourceView.getBigInt64(at + 8, true),
      ctimeNs: sourceView.getBigInt64(at + 16, true),
      ino: sourceView.getBigUint64(at + 24, true),
    }
    at += 32
  }
  const origin = flags & ORIGIN ? (takeText() as PeerId) : null
  return {
    path,
    seq,
    known,
    have,
    stamp,
    dormant: (flags & DORMANT) !== 0,
    pending: (flags & PENDING) !== 0,
    announced: (flags & ANNOUNCED) !== 0,
    origin,
    former: flags & FORMER ? takeVersion() : null,
  }
}

function takeNumber(): number {
  let number = 0
  for (let factor = 1; ; factor *= 0x80) {
    const byte = source[at++] as number
    number += (byte & 0x7f) * factor
    if (!(byte >= 0x80)) return number
  }
}

function takeText(): string {
  const bytes = sourceView.getUint16(at, true)
  at += 2 + bytes
  return source.toString('utf8', at - bytes, at)
}

function takeHash(): BlobHash {
  at += HASH_BYTES
  return source.toString('hex', at - HASH_BYTES, at) as BlobHash
}

function takeVersion(): Version {
  const content = takeContent()
  const vector: [ReplicaId, number][] = []
  for (let left = takeNumber(); left > 0; left--) {
    const replica = takeText() as ReplicaId
    vector.push([replica, takeNumber()])
  }
  const g = sourceView.getFloat64(at, true)
  at += 8
  return { content, vector, g, author: takeText() as Author }
}

function takeContent(): Content {
  const first = source[at++] as number
  const type = TYPES[first & 3]
  switch (type) {
    case 'file': {
      const hash = takeHash()
      const size = takeNumber()
      at += 8
      return { type, hash, size, mtimeNs: sourceView.getBigInt64(at - 8, true), exec: (first & EXEC) !== 0 }
    }
    case 'symlink':
      return { type, target: takeText() }
    case 'dir':
      return { type }
    default:
      return { type: 'gone', deleted: first & DELETED ? takeHash() : null }
  }
}

/** As stores of an earlier version have all entries: an array. */
function packFarEntry(entry: Entry): Packed {
  const agree = entry.have === entry.known
  const flags =
    (agree ? HAVE_IS_KNOWN : 0) +
    (entry.dormant ? DORMANT : 0) +
    (entry.pending ? PENDING : 0) +
    (entry.announced ? ANNOUNCED : 0) +
    (entry.lost && !agree ? LOST : 0)
  return [
    flags,
    entry.seq,
    packVersion(entry.known),
    agree || entry.have === null ? null : packVersion(entry.have),
    packStamp(entry.stamp),
    entry.origin,
    entry.former && packVersion(entry.former),
  ]
}

function unpackFarEntry(path: EntryPath, packed: unknown): Entry {
  const [flags, seq, knownPacked, havePacked, stamp, origin, former] = packed as [
    number,
    number,
    unknown,
    unknown,
    unknown,
    PeerId | null,
    unknown,
  ]
  const known = unpackVersion(knownPacked)
  return {
    path,
    seq,
    known,
    have: flags & HAVE_IS_KNOWN ? known : havePacked === null ? null : unpackVersion(havePacked),
    stamp: unpackStamp(stamp),
    dormant: (flags & DORMANT) !== 0,
    pending: (flags & PENDING) !== 0,
    announced: (flags & ANNOUNCED) !== 0,
    origin,
    former: former === null || former === undefined ? null : unpackVersion(former),
    ...((flags & LOST) !== 0 && { lost: true as const }),
  }
}

export function packKept(kept: Kept): Packed {
  return [kept.path, packHash(kept.hash), kept.size, kept.mtimeNs, kept.exec, kept.keptMs]
}

export function unpackKept(id: string, packed: unknown): Kept {
  const [path, hash, size, mtimeNs, exec, keptMs] = packed as [EntryPath, unknown, number, bigint, boolean, number]
  return { id, path, hash: unpackHash(hash), size, mtimeNs: BigInt(mtimeNs), exec, keptMs }
}

export function packIntent(intent: Intent): Packed {
  return [
    intent.slot,
    intent.source,
    intent.ino,
    intent.formerIno,
    packVersion(intent.to),
    intent.kept && [intent.kept.id, packKept(intent.kept)],
    intent.copy && [intent.copy.path, packVersion(intent.copy.version)],
    intent.from && packVersion(intent.from),
  ]
}

export function unpackIntent(path: EntryPath, packed: unknown): Intent {
  const [slot, source, ino, formerIno, to, kept, copy, from] = packed as [
    string | null,
    EntryPath | null,
    bigint,
    bigint,
    unknown,
    [string, unknown] | null,
    [EntryPath, unknown] | null,
    unknown,
  ]
  return {
    path,
    slot,
    source,
    ino: BigInt(ino),
    formerIno: BigInt(formerIno),
    to: unpackVersion(to),
    kept: kept && unpackKept(kept[0], kept[1]),
    copy: copy && { path: copy[0], version: unpackVersion(copy[1]) },
    from: from === null ? null : unpackVersion(from),
  }
}
