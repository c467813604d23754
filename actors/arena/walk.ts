/**
 * The merge-join of a disk's tree with the store's entries: both in tree order, one listing a folder, one stat a name, no
 * query a file. Yields only where they differ, and now and then nothing, so that its caller can do other things.
 */
import type { EntryPath } from '../../protocol/ids.ts'
import { joinPath } from '../../protocol/path.ts'
import { type Disk, DiskError, type DiskStat, isAbsence } from './disk.ts'
import { IGNORE_FILE, type IgnoreRules } from './ignore-rules.ts'
import { compareNames, compareTree, isBelow } from './order.ts'
import type { Entry, Stamp, Store } from './store.ts'

export type Difference =
  /** The disk shows something that `have` is not, or is no longer. */
  | { is: 'found'; path: EntryPath; stat: DiskStat; entry: Entry | undefined }
  /** Nothing is there where `have` is something. */
  | { is: 'missing'; path: EntryPath; entry: Entry }
  | { is: 'problem'; path: string; reason: string }
  /** Nothing is in a folder that only held something; `path` is what might have been in it. */
  | { is: 'emptied'; path: EntryPath }
  /** A rule file was met, before the rest of its folder. */
  | { is: 'rules'; folder: EntryPath | undefined }
  /** Names looked at since the last word. */
  | { is: 'progress'; looked: number }

const PAGE = 512
/** Stands for any name in an empty folder. */
const EMPTY = '-'
/** Names between two words of progress. */
const PROGRESS = 500

interface Frame {
  folder: EntryPath | undefined
  entries: { name: string; stat: DiskStat }[]
  next: number
}

/** Walks everything (`under` null) or what is below one folder, which itself is not compared. */
export function* walk(disk: Disk, store: Store, rules: IgnoreRules, under: EntryPath | null): Generator<Difference> {
  let page = store.page(null, PAGE, under)
  let at = 0
  let last: EntryPath | null = null
  // Folders whose content could not be seen: what the store knows below them is not missing.
  let unseen: EntryPath | null = null
  let looked = 0
  const stack: Frame[] = []

  function peek(): Entry | undefined {
    if (at >= page.length && page.length === PAGE) {
      page = store.page(last, PAGE, under)
      at = 0
    }
    return page[at]
  }
  function take(): void {
    last = (page[at] as Entry).path
    at++
  }
  function* missing(entry: Entry): Generator<Difference> {
    if (entry.stamp === null && !entry.dormant && !showsFolder(entry)) return
    if (unseen !== null && (unseen === entry.path || isBelow(entry.path, unseen))) return
    if (rules.ignores(entry.path, entry.have?.content.type === 'dir')) return
    yield { is: 'missing', path: entry.path, entry }
  }
  function* open(folder: EntryPath | undefined): Generator<Difference> {
    let listing: ReturnType<Disk['listStat']>
    try {
      listing = disk.listStat(folder)
    } catch (error) {
      if (!(error instanceof DiskError) || folder === undefined) throw error
      // Gone meanwhile: what was below it is missing. Not readable: unknown.
      if (!isAbsence(error)) {
        unseen = folder
        yield {
          is: 'problem',
          path: folder,
          reason: `the folder cannot be read (${error.code}): check its permissions`,
        }
      }
      return
    }
    for (const name of listing.invalid) {
      const path = folder === undefined ? name : `${folder}/${name}`
      yield { is: 'problem', path, reason: 'the name is not valid UTF-8: rename it' }
    }
    const invalid = new Set(listing.invalid)
    const entries = listing.entries.filter(entry => !invalid.has(entry.name))
    entries.sort((a, b) => compareNames(a.name, b.name))
    if (entries.some(entry => entry.name === IGNORE_FILE)) yield { is: 'rules', folder }
    stack.push({ folder, entries, next: 0 })
  }

  yield* open(under ?? undefined)
  while (stack.length > 0) {
    const frame = stack.at(-1) as Frame
    const item = frame.entries[frame.next++]
    if (item === undefined) {
      stack.pop()
      continue
    }
    if (++looked % PROGRESS === 0) yield { is: 'progress', looked: PROGRESS }
    const path = joinPath(frame.folder, item.name)
    let entry = peek()
    while (entry !== undefined && compareTree(entry.path, path) < 0) {
      take()
      yield* missing(entry)
      entry = peek()
    }
    const known = entry !== undefined && entry.path === path ? entry : undefined
    if (known) take()
    if (rules.ignoresChild(path, item.stat.type === 'dir')) {
      // What is ignored, in place of what is not.
      if (known) yield* missing(known)
      continue
    }
    if (differs(known, item.stat)) yield { is: 'found', path, stat: item.stat, entry: known }
    if (item.stat.type !== 'dir') continue
    yield* open(path)
    if (known?.dormant && stack.at(-1)?.entries.length === 0) yield { is: 'emptied', path: joinPath(path, EMPTY) }
  }
  for (let entry = peek(); entry !== undefined; entry = peek()) {
    take()
    yield* missing(entry)
  }
  yield { is: 'progress', looked: looked % PROGRESS }
}

function showsFolder(entry: Entry): boolean {
  return entry.have?.content.type === 'dir'
}

/** Whether the disk shows something else than the entry says, or may. */
export function differs(entry: Entry | undefined, stat: DiskStat): boolean {
  if (stat.type === 'other') return true
  if (entry === undefined) return true
  if (stat.type === 'dir') return !entry.dormant && !showsFolder(entry)
  const content = entry.have?.content
  if (content?.type !== stat.type || entry.stamp === null || !sameStamp(entry.stamp, stat)) return true
  // A ctime can stand still for some milliseconds.
  return content.type === 'file' && content.exec !== stat.exec
}

/** The very same file, untouched: size, mtime, ctime and inode. */
export function sameStamp(stamp: Stamp, stat: DiskStat | Stamp): boolean {
  return (
    stamp.size === stat.size &&
    stamp.mtimeNs === stat.mtimeNs &&
    stamp.ctimeNs === stat.ctimeNs &&
    stamp.ino === stat.ino
  )
}

export function stampOf(stat: DiskStat): Stamp {
  return { size: stat.size, mtimeNs: stat.mtimeNs, ctimeNs: stat.ctimeNs, ino: stat.ino }
}
