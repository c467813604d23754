/** What users wrote, and what of it users themselves have replaced or deleted: the measure of I1 and I5. */
import { createHash } from 'node:crypto'
import type { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { OWN_FOLDER } from '../../protocol/path.ts'

export interface Written {
  readonly peer: number
  readonly path: string
  readonly atMs: number
}

export class Ledger {
  /** Everything ever written. */
  readonly written = new Map<string, Written>()
  /** What nobody has knowingly ended. */
  readonly required = new Map<string, Written>()
  /** What a user put over the very same since it was written, or moved there: of one name gone, and of the other nothing to say. */
  readonly overSame = new Set<string>()

  /** By their new names, files that got these through a mount while they were not here: what they hold. Their holder's user did not see that. */
  readonly renamedUnseen = new Map<string, { hash: BlobHash; key: string }>()

  wrote(key: string | null, by: Written): void {
    if (key === null) return
    this.written.set(key, by)
    this.required.set(key, by)
    this.overSame.delete(key)
    this.returned.add(key)
  }

  /** What a power loss made of a file, and a store can tell. */
  readonly torn = new Set<string>()

  /** Since the last check: what was written again, and what a power loss showed where the store does not know that it was deleted. */
  readonly returned = new Set<string>()

  /** A user did something with a file that shows this: what was torn is theirs from now on. */
  handled(key: string | null, by: Written): void {
    if (key !== null && this.torn.delete(key)) this.written.set(key, by)
  }

  /** A user replaced or deleted it, having it on the disk. */
  ended(key: string | null): void {
    if (key !== null) this.required.delete(key)
  }
}

/** Names what a path shows; null for a folder or nothing. */
export function contentKey(disk: MemoryDisk, path: string): string | null {
  const stat = disk.stat(path as EntryPath)
  if (stat?.type === 'symlink') return `link:${disk.readLink(path as EntryPath)}`
  return stat?.type === 'file' ? bytesKey(disk.readFile(path)) : null
}

export function bytesKey(bytes: Uint8Array): string {
  return bytes.length === 0 ? 'empty' : createHash('md5').update(bytes).digest('hex')
}

/** All paths on a disk, a folder before what is in it. */
export function pathsOf(disk: MemoryDisk, folder?: string): string[] {
  const paths: string[] = []
  const { names } = disk.list(folder as EntryPath | undefined)
  for (const name of names.sort()) {
    // Not valid UTF-8: not synced.
    if (name.includes('\ufffd')) continue
    const path = folder === undefined ? name : `${folder}/${name}`
    paths.push(path)
    if (disk.stat(path as EntryPath)?.type === 'dir') paths.push(...pathsOf(disk, path))
  }
  return paths
}

/** One line a path: what peers must agree on. */
export function treeOf(disk: MemoryDisk): Map<string, string> {
  const tree = new Map<string, string>()
  for (const path of pathsOf(disk)) {
    const stat = disk.stat(path as EntryPath)
    const key = contentKey(disk, path)
    if (stat?.type === 'file') tree.set(path, `file ${key} ${stat.exec ? 'x' : '-'} ${stat.mtimeNs}`)
    else tree.set(path, stat?.type === 'dir' ? 'dir' : `${key}`)
  }
  return tree
}

/** Contents at paths, and those in the version store that `listed` names. */
export function contentsOf(disk: MemoryDisk, listed: (kept: string) => boolean = () => true): Set<string> {
  const keys = new Set<string>()
  const kept = disk.keptList().filter(listed)
  for (const path of [...pathsOf(disk), ...kept.map(name => `${OWN_FOLDER}/versions/${name}`)]) {
    const key = contentKey(disk, path)
    if (key !== null) keys.add(key)
  }
  return keys
}

/** The same with what lies in staging: all that a disk holds. */
export function bytesHeld(disk: MemoryDisk): Set<string> {
  const keys = contentsOf(disk)
  for (const slot of disk.stageList()) keys.add(contentKey(disk, `${OWN_FOLDER}/staging/${slot}`) ?? '')
  return keys
}
