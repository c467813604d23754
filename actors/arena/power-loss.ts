/**
 * What to think of a disk after its machine went down: which of the things it shows are a user's doing and which only the traces of
 * writes that were lost, and what stands in for content that nobody has any more. Pure.
 */
import { type Entry, NO_STAMP, type Stamp } from './store.ts'
import { type Content, living, mtimeOf, sameContent, type Version } from './version.ts'

/** Fits nothing, so that the path is looked at again, and still tells when it was seen. */
export function doubted(stamp: Stamp): Stamp {
  return { ...stamp, size: NO_STAMP.size }
}

/**
 * Whether what a path shows now, after its last change may have been lost, is what lost writes leave: nothing, an empty file, what was
 * there before, or a file that was not touched since its content was taken and yet holds something else: torn.
 */
export function isLostWrite(entry: Entry, content: Content, stamp: Stamp | null): boolean {
  if (content.type === 'gone') return living(entry.known)
  if (content.type !== 'file') return isFormer(entry, content)
  return content.size === 0 || isFormer(entry, content) || untouched(entry, content.mtimeNs, stamp)
}

function isFormer({ former }: Entry, content: Content): boolean {
  return former !== null && sameContent(former.content, content)
}

/** Not written to since what we know of it: by its ctime, or by its mtime, if that was not restored. */
function untouched({ have, former, stamp: seen }: Entry, mtimeNs: bigint, stamp: Stamp | null): boolean {
  if (seen !== null && stamp !== null && stamp.ctimeNs <= seen.ctimeNs) return true
  const shown = have?.content.type === 'file' ? have : former
  return shown?.content.type === 'file' && mtimeNs <= mtimeOf(shown.content)
}

/** What such a path shows, as a version. null: nothing. Torn content is in every version, so nobody makes a copy of it. */
export function leftBehind(entry: Entry, content: Content): Version | null {
  if (content.type === 'gone') return null
  // With the mtime that it really has.
  if (entry.former !== null && isFormer(entry, content)) return { ...entry.former, content }
  return { ...entry.known, content, vector: [], g: 0 }
}

/**
 * What takes the place of `known`, whose content is lost: what a user made here besides, else what was there before, else
 * nothing. Never the torn rest of it.
 */
export function standIn({ have, former }: Entry): Content {
  for (const version of [have, former]) if (living(version) && version.vector.length > 0) return version.content
  return { type: 'gone', deleted: null }
}
