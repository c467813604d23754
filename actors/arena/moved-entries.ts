/**
 * Entries of what was renamed, said shortly: the file at its new path by the path and version that it was, which the reader
 * has, in place of size, mtime, exec bit and hash; and the deletion of the old path without the hash that went. Pure. What is said so
 * is taken only if the reader knows that very version; else it asks for everything in full.
 */
import type { EntryPath } from '../../protocol/ids.ts'
import { checkPath } from '../../protocol/path.ts'
import type { WireEntry } from '../../protocol/wire.ts'
import type { Entry } from './store.ts'
import { compareVectors, type FileContent, sameContent, type Version } from './version.ts'

/**
 * @param said what the store has of the entries of a batch, in the same order
 * @param batch the same as they are said in full
 */
export function shortened(said: readonly Entry[], batch: readonly WireEntry[]): WireEntry[] {
  let from: EntryPath | null = null
  return batch.map((wire, index) => {
    if (wire.path === from) {
      const { deleted: _, ...rest } = wire
      return rest
    }
    from = null
    const base = baseOf(said[index] as Entry, said[index + 1])
    if (base === null) return wire
    from = base.path
    const { size: _size, mtime: _mtime, exec: _exec, hash: _hash, ...rest } = wire
    const vector = base.version.vector.map(([replica, count]): WireEntry['vector'][number] => [replica, count])
    return { ...rest, moved: { path: base.path, vector, tag: tagOf(base.content) } }
  })
}

/** The version whose very content this entry is, if the one after it is the end of that. */
function baseOf(
  { known }: Entry,
  next: Entry | undefined,
): { path: EntryPath; version: Version; content: FileContent } | null {
  const { content } = known
  const former = next?.former?.content
  if (!next?.former || content.type !== 'file' || former?.type !== 'file') return null
  if (next.known.content.type !== 'gone' || next.known.content.deleted !== content.hash) return null
  if (!sameContent(content, former) || content.size !== former.size || content.mtimeNs !== former.mtimeNs) return null
  return { path: next.path, version: next.former, content: former }
}

/** Entries as they would have been said in full; null: one names a version that is not known here. Throws `path_invalid`. */
export function inFull(
  entries: readonly WireEntry[],
  known: (path: EntryPath) => Entry | undefined,
): readonly WireEntry[] | null {
  if (!entries.some(({ moved }) => moved !== undefined)) return entries
  const full: WireEntry[] = []
  let source: { path: EntryPath; content: FileContent } | null = null
  for (const { moved, ...wire } of entries) {
    if (moved === undefined || wire.type !== 'file' || wire.hash !== undefined) {
      const ends = source !== null && wire.path === source.path && wire.type === 'gone' && wire.deleted === undefined
      full.push(ends && source !== null ? { ...wire, deleted: source.content.hash } : wire)
      source = null
      continue
    }
    checkPath(wire.path)
    checkPath(moved.path)
    const here = known(wire.path)
    const there = known(moved.path)
    const content =
      contentOf(here?.known, wire.vector, moved.tag) ??
      contentOf(there?.known, moved.vector, moved.tag) ??
      contentOf(there?.have, moved.vector, moved.tag) ??
      contentOf(there?.former, moved.vector, moved.tag)
    if (content === null) return null
    source = { path: moved.path, content }
    const { size, exec, hash } = content
    full.push({ ...wire, size, mtime: content.mtimeNs.toString(), exec, hash })
  }
  return full
}

/** The content of exactly that version. One vector names one content; where a store was copied the tag tells. */
function contentOf(version: Version | null | undefined, vector: Version['vector'], tag: string): FileContent | null {
  if (version?.content.type !== 'file' || compareVectors(version.vector, vector) !== 'same') return null
  return tagOf(version.content) === tag ? version.content : null
}

/** FNV-1a of all that is left out, 8 hex digits. */
function tagOf({ hash, size, mtimeNs, exec }: FileContent): string {
  const text = `${hash} ${size} ${mtimeNs} ${exec}`
  let sum = 2166136261
  for (let at = 0; at < text.length; at++) sum = Math.imul(sum ^ text.charCodeAt(at), 16777619)
  return (sum >>> 0).toString(16).padStart(8, '0')
}
