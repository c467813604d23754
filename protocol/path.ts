/** What a path in an arena may be. Everything from outside passes here before it is a key, a name or an argument. */
import { SyncError } from './error.ts'
import type { EntryPath } from './ids.ts'
import { NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX } from './limits.ts'

/** Ours at the top of every root: never synced, never taken from a peer. Compared without case and in NFC, as some disks do. */
export const OWN_FOLDER = '.realize'

/** Throws `path_invalid` with the reason; returns the path as a brand. */
export function checkPath(path: string): EntryPath {
  const reason = pathFault(path)
  if (reason !== undefined) throw new SyncError('path_invalid', reason)
  return path as EntryPath
}

/** Why a path cannot be an entry's, or undefined. */
export function pathFault(path: string): string | undefined {
  if (path === '') return 'the path is empty'
  if (!path.isWellFormed()) return 'the path is not valid Unicode'
  if (path.includes('\0')) return 'the path contains a NUL'
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) return `the path is longer than ${PATH_BYTES_MAX} bytes`
  const names = path.split('/')
  if (names.length > PATH_DEPTH_MAX) return `the path is deeper than ${PATH_DEPTH_MAX} folders`
  for (const name of names) {
    if (name === '') return 'the path has an empty name'
    if (name === '.' || name === '..') return `the path contains '${name}'`
    if (Buffer.byteLength(name) > NAME_BYTES_MAX) return `a name in the path is longer than ${NAME_BYTES_MAX} bytes`
  }
  if (isOwn(names[0] as string)) return `'${OWN_FOLDER}' is reserved`
  return undefined
}

/** Whether a name at the top of a root is ours, in any spelling that a case-blind or normalising disk would merge with it. */
export function isOwn(name: string): boolean {
  // Windows drops dots and spaces at the end, takes what follows a colon for a stream, and gives long names a short one.
  const folded = foldName(name).replace(/:.*$|[. ]+$/su, '')
  return folded === OWN_FOLDER || /^realiz~[0-9]+$/.test(folded)
}

/** Two names with the same fold cannot live together on a disk that ignores case or normalises Unicode. */
export function foldName(name: string): string {
  return name
    .normalize('NFKC')
    .replace(/[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u206a-\u206f\ufeff]/gu, '')
    .toLowerCase()
    .normalize('NFC')
}

export function parentOf(path: EntryPath): EntryPath | undefined {
  const slash = path.lastIndexOf('/')
  return slash < 0 ? undefined : (path.slice(0, slash) as EntryPath)
}

export function nameOf(path: EntryPath): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

export function joinPath(parent: EntryPath | undefined, name: string): EntryPath {
  return (parent === undefined ? name : `${parent}/${name}`) as EntryPath
}

/** All folders above a path, the outermost first. */
export function ancestorsOf(path: EntryPath): EntryPath[] {
  const ancestors: EntryPath[] = []
  for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1))
    ancestors.push(path.slice(0, slash) as EntryPath)
  return ancestors
}
