/** How records lie in the store: short arrays with binary hashes. The only place that knows their order. */
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

export function packEntry(entry: Entry): Packed {
  const agree = entry.have === entry.known
  const flags =
    (agree ? HAVE_IS_KNOWN : 0) +
    (entry.dormant ? DORMANT : 0) +
    (entry.pending ? PENDING : 0) +
    (entry.announced ? ANNOUNCED : 0)
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

export function unpackEntry(path: EntryPath, packed: unknown): Entry {
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
