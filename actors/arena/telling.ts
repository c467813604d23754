/**
 * Which of the changes that were found on this disk can be told to others now, and which have to wait. Pure.
 *
 * Between being found and being told things move on; and some changes mean something else if they are told by themselves: a file in the place
 * of a folder whose files are not yet told as gone, a file in a folder that was a file, the end of an old name without the new one.
 */
import type { EntryPath } from '../../protocol/ids.ts'
import { ancestorsOf } from '../../protocol/path.ts'
import { isBelow } from './order.ts'
import type { Entry, Stamp } from './store.ts'
import { type Content, living, type Version } from './version.ts'

/** What was found at a path and is ready to become part of the store. */
export interface Change {
  readonly path: EntryPath
  readonly content: Content
  readonly stamp: Stamp | null
  readonly leaves: Uint8Array | null
  /** The path that this content came from, by the same inode. */
  readonly from?: EntryPath
  /** A deletion that is the other half of a rename. */
  readonly to?: EntryPath
}

/** What is asked about the paths of changes and about those around them. */
export interface Surroundings {
  entry(path: EntryPath): Entry | undefined
  /** What is on the disk at this moment; null: nothing; undefined: it cannot be looked at. */
  typeNow(path: EntryPath): 'file' | 'dir' | 'symlink' | 'other' | null | undefined
  /** Whether nothing is there at this moment. */
  isGone(path: EntryPath): boolean
  /** What the user saw at a path that showed nothing here, when putting something there; null: nothing. */
  seen(path: EntryPath): Version | null
  /** Whether a step of ours at this path is neither done nor taken back. */
  unsettled(path: EntryPath): boolean
  /** Whether nothing that was below a path is still to be told as gone, but `from`, which is to be found at the path itself. */
  settledBelow(path: EntryPath, from?: EntryPath): boolean
}

export interface Telling {
  /** What can be told, folders that became ones with it. */
  readonly told: readonly Change[]
  /** What waits until something around it is over. */
  readonly held: readonly Change[]
  /** What is to be looked at anew: it has moved on. */
  readonly again: readonly EntryPath[]
}

export function tellable(found: readonly Change[], around: Surroundings): Telling {
  const held: Change[] = []
  const again: EntryPath[] = []
  const there: Change[] = []
  for (const change of found) {
    if (!isStillThere(change, around)) again.push(change.path)
    else if (takesFoldersPlace(change, around)) held.push(change)
    else there.push(change)
  }
  const settled: Change[] = []
  for (const change of withFolders(there, around, held)) (around.unsettled(change.path) ? held : settled).push(change)
  const named = new Set(settled.flatMap(({ path, content }) => (content.type === 'file' ? [path] : [])))
  const told: Change[] = []
  for (const change of settled) {
    // By itself the end of the old name would be a deletion, of which the guard and the history know nothing.
    const { path, to } = change
    if (to === undefined || named.has(to) || tookName(path, to, around)) told.push(change)
    else again.push(path)
  }
  return { told, held, again }
}

/**
 * What was found a while ago may have gone or moved away with a folder above it since; of a listing nobody would tell that again. A
 * file in a folder that is no more would make others bring the folder back.
 */
function isStillThere({ path, content, to }: Change, around: Surroundings): boolean {
  // A deletion was looked for when it was believed, the other half of a rename when that was found.
  if (content.type === 'gone') return to === undefined || around.isGone(path)
  return around.typeNow(path) === content.type
}

/**
 * Where a folder has become a file, what was in the folder is gone, or has other names, and that is told first: by itself the file would be
 * in the place of a folder in which files live, and make room for it (R4).
 */
function takesFoldersPlace({ path, content, from }: Change, around: Surroundings): boolean {
  if (content.type === 'dir' || content.type === 'gone') return false
  return wasFolder(around.entry(path)) && !around.settledBelow(path, from)
}

/** Whether a path is known to show what this one did. */
function tookName(path: EntryPath, to: EntryPath, around: Surroundings): boolean {
  const [was, is] = [around.entry(path)?.have?.content, around.entry(to)?.have?.content]
  return was?.type === 'file' && is?.type === 'file' && was.hash === is.hash
}

/**
 * Where a file has become a folder, and what is in the folder is heard of first, both are told together: a user has replaced the file.
 * By itself what is below would only displace it (R4); so it is left out where that cannot be told yet, or is no more.
 */
function withFolders(changes: readonly Change[], around: Surroundings, held: Change[]): readonly Change[] {
  const folders: Change[] = []
  const holding = new Map(changes.map(({ path, content }) => [path, mayHold(path, content, around)]))
  const told = changes.filter(change => {
    if (change.content.type === 'gone') return true
    for (const folder of ancestorsOf(change.path)) {
      let holds = holding.get(folder)
      if (holds === undefined) {
        const leaf = showsLeaf(folder, around)
        holds = !leaf || (around.typeNow(folder) === 'dir' && !around.unsettled(folder))
        holding.set(folder, holds)
        if (holds && leaf) folders.push({ path: folder, content: { type: 'dir' }, stamp: null, leaves: null })
      }
      if (holds) continue
      held.push(change)
      return false
    }
    return true
  })
  return folders.length > 0 ? [...folders, ...told] : told
}

/** Whether something can be in what this change says of a path. */
function mayHold(path: EntryPath, content: Content, around: Surroundings): boolean {
  if (content.type !== 'dir' && content.type !== 'gone') return false
  return !(showsLeaf(path, around) && around.unsettled(path))
}

/** Whether a file or link is what this disk shows at a path, as far as that is known. */
function showsLeaf(path: EntryPath, around: Surroundings): boolean {
  const shown = around.seen(path) ?? around.entry(path)?.have
  return living(shown) && shown.content.type !== 'dir'
}

export function wasFolder(entry: Entry | undefined): boolean {
  return entry?.have?.content.type === 'dir' || entry?.dormant === true
}

/** Changes that were found and wait, and the names that they had before. */
export class HeldBack {
  readonly #former = new Map<EntryPath, EntryPath | null>()

  get size(): number {
    return this.#former.size
  }

  has(path: EntryPath): boolean {
    return this.#former.has(path)
  }

  add(path: EntryPath, from?: EntryPath): void {
    this.#former.set(path, from ?? null)
  }

  delete(path: EntryPath): void {
    this.#former.delete(path)
  }

  clear(): void {
    this.#former.clear()
  }

  /** Takes out what needs not wait any more. */
  takeReady(isReady: (path: EntryPath, from?: EntryPath) => boolean): EntryPath[] {
    const ready = [...this.#former].flatMap(([path, from]) => (isReady(path, from ?? undefined) ? [path] : []))
    for (const path of ready) this.#former.delete(path)
    return ready
  }

  /**
   * Files whose new name is held back: they are not gone, and told together with it. But not those that were in a folder in whose place
   * something is held back until all that was in it is told.
   */
  formerNames(): ReadonlySet<EntryPath> {
    const found = new Set<EntryPath>()
    for (const from of this.#former.values())
      if (from !== null && !ancestorsOf(from).some(folder => this.#former.has(folder))) found.add(from)
    return found
  }
}

/** Whether any of these paths, but `except`, is below a folder. */
export function hasBelow(paths: Iterable<EntryPath>, folder: EntryPath, except?: EntryPath): boolean {
  for (const path of paths) if (path !== except && isBelow(path, folder)) return true
  return false
}
