/** Entries as peers say them: from ours, and from theirs with every check that a schema cannot make. */
import { SyncError } from '../../protocol/error.ts'
import type { BlobHash, ReplicaId } from '../../protocol/ids.ts'
import {
  COUNT_MAX,
  GENERATION_MAX,
  LINK_TARGET_BYTES_MAX,
  MTIME_NS_MAX,
  MTIME_NS_MIN,
  VECTOR_MAX,
} from '../../protocol/limits.ts'
import { checkPath } from '../../protocol/path.ts'
import type { WireEntry } from '../../protocol/wire.ts'
import type { Entry } from './store.ts'
import { type Content, plausible, type Version } from './version.ts'

export function toWire(entry: Entry): WireEntry {
  const { path, known } = entry
  const { content, vector, g, author } = known
  const has = entry.have === known
  const common = {
    path,
    vector: vector.map(([replica, count]): [ReplicaId, number] => [replica, count]),
    g,
    author,
    has,
  }
  switch (content.type) {
    case 'file':
      return {
        ...common,
        type: 'file',
        size: content.size,
        mtime: content.mtimeNs.toString(),
        exec: content.exec,
        hash: content.hash,
      }
    case 'symlink':
      return { ...common, type: 'symlink', target: content.target }
    case 'gone':
      return { ...common, type: 'gone', ...(content.deleted !== null && { deleted: content.deleted }) }
    case 'dir':
      return { ...common, type: 'dir' }
  }
}

/** JSON bytes of an entry, at least: what escaping makes of its texts is counted. */
export function wireBytes({ path, target, vector }: WireEntry): number {
  return 350 + jsonBytes(path) + (target === undefined ? 0 : jsonBytes(target)) + 40 * vector.length
}

function jsonBytes(text: string): number {
  return Buffer.byteLength(/[\u0000-\u001f"\\]/.test(text) ? JSON.stringify(text) : text)
}

/** Why a version of ours cannot be said to a peer, who would take it for a breach; null: it can. */
export function unsayable({ vector, g }: Version): string | null {
  if (vector.length > VECTOR_MAX)
    return `its version counts changes of ${vector.length} stores, more than ${VECTOR_MAX}: it is not told to peers; rename it`
  if (g > GENERATION_MAX || vector.some(([, count]) => count > COUNT_MAX))
    return 'its version has a number that is too great: it is not told to peers; rename it'
  return null
}

/** Throws `message_invalid` or `path_invalid`: the peer breaks the protocol. */
export function fromWire(wire: WireEntry, policy: 'keep-both' | 'newest'): Version {
  checkPath(wire.path)
  const version: Version = { content: contentOf(wire), vector: wire.vector, g: wire.g, author: wire.author }
  let last = ''
  for (const [replica, count] of wire.vector) {
    if (replica <= last || count === 0) throw new SyncError('message_invalid', 'a version vector is not sorted')
    last = replica
  }
  if (!plausible(version, policy)) throw new SyncError('message_invalid', 'a generation does not fit its version')
  return version
}

function contentOf(wire: WireEntry): Content {
  switch (wire.type) {
    case 'file': {
      if (wire.size === undefined || wire.hash === undefined || wire.mtime === undefined || wire.exec === undefined) {
        throw new SyncError('message_invalid', 'a file lacks its size, hash, mtime or exec bit')
      }
      const mtimeNs = BigInt(wire.mtime)
      if (mtimeNs < MTIME_NS_MIN || mtimeNs > MTIME_NS_MAX)
        throw new SyncError('message_invalid', 'an mtime is out of range')
      return { type: 'file', size: wire.size, mtimeNs, exec: wire.exec, hash: wire.hash }
    }
    case 'symlink': {
      const { target } = wire
      if (
        target === undefined ||
        target.includes('\0') ||
        !target.isWellFormed() ||
        Buffer.byteLength(target) > LINK_TARGET_BYTES_MAX
      ) {
        throw new SyncError('message_invalid', 'a link has no valid target')
      }
      return { type: 'symlink', target }
    }
    case 'gone':
      return { type: 'gone', deleted: (wire.deleted as BlobHash | undefined) ?? null }
    case 'dir':
      return { type: 'dir' }
  }
}
