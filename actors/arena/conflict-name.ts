/** Where the loser of a conflict goes: a name made from the loser alone, so that every peer that makes it makes the same. */
import type { EntryPath } from '../../protocol/ids.ts'
import { NAME_BYTES_MAX, PATH_BYTES_MAX } from '../../protocol/limits.ts'
import { joinPath, nameOf, parentOf } from '../../protocol/path.ts'
import type { Version } from './version.ts'

const MARK = '.conflict-'
const MARK_AT_END = /.\.conflict-\d{8}-\d{6}-[A-Z2-7]{7}(?:-[0-9a-f]{8})?$/s
const PATTERN = /^(.+)\.conflict-(\d{8}-\d{6})-([A-Z2-7]{7})(?:-([0-9a-f]{8}))?(\.[^.]*)?$/s

/**
 * `NAME.conflict-<YYYYMMDD-HHMMSS of its mtime, UTC>-<author>.EXT`; with `distinct`, eight digits more tell apart two losers
 * of one second. A name too long for a disk loses characters of its stem; where not even the shortest fits into a path, the copy
 * goes into the nearest folder above where it does.
 */
export function conflictPath(path: EntryPath, loser: Version, distinct = false): EntryPath {
  const name = nameOf(path)
  // What ends with a mark has no extension: the copy of a copy gets its mark behind it.
  const dot = MARK_AT_END.test(name) ? 0 : name.lastIndexOf('.')
  const stem = dot > 0 ? name.slice(0, dot) : name
  const extension = dot > 0 ? name.slice(dot) : ''
  const mark = `.conflict-${stamp(loser)}-${loser.author}${distinct ? `-${digits(loser)}` : ''}`
  const shortest = Buffer.byteLength([...stem][0] + mark)
  let folder = parentOf(path)
  while (folder !== undefined && bytesLeft(folder) < shortest) folder = parentOf(folder)
  const bytesMax = bytesLeft(folder)
  let kept = stem
  while ([...kept].length > 1 && Buffer.byteLength(kept + mark + extension) > bytesMax)
    kept = [...kept].slice(0, -1).join('')
  const short = Buffer.byteLength(kept + mark + extension) > bytesMax ? '' : extension
  return joinPath(folder, kept + mark + short)
}

/** How long a name in this folder may be. */
function bytesLeft(folder: EntryPath | undefined): number {
  const before = folder === undefined ? 0 : Buffer.byteLength(folder) + 1
  return Math.min(NAME_BYTES_MAX, PATH_BYTES_MAX - before)
}

/** The path that a conflict copy's name speaks of, or undefined if it is no such name. */
export function conflictOrigin(path: EntryPath): { path: EntryPath; author: string } | undefined {
  // Asked with each change of each entry: nearly none has such a name.
  const match = path.includes(MARK) ? PATTERN.exec(nameOf(path)) : null
  if (!match) return undefined
  return { path: joinPath(parentOf(path), `${match[1]}${match[5] ?? ''}`), author: match[3] as string }
}

function stamp({ content }: Version): string {
  const ms = content.type === 'file' ? Number(content.mtimeNs / 1_000_000n) : 0
  // Years before 1000 or after 9999 cannot come here: mtimes are bounded by MTIME_NS_MIN and MTIME_NS_MAX.
  return new Date(ms).toISOString().replace(/[-:]/g, '').replace('T', '-').slice(0, 15)
}

function digits({ content, vector }: Version): string {
  if (content.type === 'file') return content.hash.slice(0, 8)
  // Links and folders have no hash: a small stable number of what they are.
  let sum = 2166136261
  for (const byte of Buffer.from(JSON.stringify([content, vector]))) sum = Math.imul(sum ^ byte, 16777619) >>> 0
  return sum.toString(16).padStart(8, '0')
}
