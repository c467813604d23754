/**
 * What must be done on the disk so that an entry's `have` becomes its `known`. Pure: looks at the entry, never at the disk.
 */
import type { Entry, Intent } from './store.ts'
import {
  compareVectors,
  type FileContent,
  living,
  mtimeOf,
  type SymlinkContent,
  sameContent,
  type Version,
} from './version.ts'

export type Work =
  /** Nothing is to be done: what is here is what is known. */
  | { do: 'nothing' }
  /** Make a folder; `over`: something else is in its place. */
  | { do: 'folder'; over: boolean }
  | { do: 'link'; content: SymlinkContent }
  | { do: 'file'; content: FileContent }
  /** Same bytes: only mtime or exec bit. */
  | { do: 'meta'; content: FileContent }
  /** Take a file or link away. */
  | { do: 'remove' }
  | { do: 'remove_folder' }
  /** This peer goes on showing its own (policy `local`). */
  | { do: 'leave' }
  /** Nothing is shown here, and nothing is wanted but to know of the file. */
  | { do: 'unreal'; content: FileContent }

/** @param wantsReal whether the path's mark is `real`. What is shown already is kept current all the same, until it is given up. */
export function workFor(entry: Entry, policy: 'keep-both' | 'newest' | 'local', wantsReal: boolean): Work {
  const { known, have } = entry
  const content = known.content
  if (have === known) return { do: 'nothing' }
  const shown = living(have) ? have.content : null
  if (policy === 'local' && loses(entry) && shown?.type !== 'dir') return { do: 'leave' }
  switch (content.type) {
    case 'gone':
      if (entry.dormant) return { do: 'remove_folder' }
      if (shown === null) return { do: 'nothing' }
      return shown.type === 'dir' ? { do: 'remove_folder' } : { do: 'remove' }
    case 'dir':
      if (shown?.type === 'dir') return { do: 'nothing' }
      return { do: 'folder', over: shown !== null }
    case 'symlink':
      return shown !== null && sameContent(shown, content) ? { do: 'nothing' } : { do: 'link', content }
    case 'file':
      if (shown?.type === 'file' && shown.hash === content.hash && (!loses(entry) || shown.exec === content.exec)) {
        return shown.exec === content.exec && mtimeOf(shown) === content.mtimeNs
          ? { do: 'nothing' }
          : { do: 'meta', content }
      }
      if (!wantsReal && isUnshown(entry)) return { do: 'unreal', content }
      return { do: 'file', content }
  }
}

/** A living file of which this disk shows nothing: neither the file nor anything in its place. */
export function isUnshown({ known, have, dormant }: Entry): boolean {
  return known.content.type === 'file' && !living(have) && !dormant
}

/**
 * Whether applying `known` replaces something on this disk that it does not include: then that is kept as a conflict copy
 * (R3). One vector for two contents includes neither. Folders hold nothing of their own.
 */
export function loses(entry: Entry): boolean {
  const { known, have } = entry
  if (!living(have) || have.content.type === 'dir' || sameContent(known.content, have.content)) return false
  return compareVectors(known.vector, have.vector) !== 'newer'
}

/** Content that a deletion remembers having deleted needs no copy (R7): it is in the version store. */
export function needsCopy(entry: Entry): boolean {
  return loses(entry) && !wasDeleted(entry.known, entry.have)
}

/** A file without history whose very content was deleted: it comes from a store that was lost, not from a user. */
function wasDeleted(known: Version, have: Version | null): boolean {
  return (
    known.content.type === 'gone' &&
    known.content.deleted !== null &&
    have?.g === 0 &&
    have.content.type === 'file' &&
    have.content.hash === known.content.deleted
  )
}

/** Whether a step takes content out of the tree because it is not wanted real: nothing takes its place, and no version changes. */
export function givesUp({ to, slot, ino, source }: Intent): boolean {
  return to.content.type === 'file' && slot !== null && ino === 0n && source === null
}
