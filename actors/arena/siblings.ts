/**
 * Who reads the small files of a folder one after the other, as `grep -r` and `cp -r` do, gets others of that folder in advance. Programs
 * go through a folder in orders of their own: what counts is that several of its files have been read, and then, whether those that came in
 * advance are. In the next folder it goes on at once.
 */
import type { EntryPath } from '../../protocol/ids.ts'
import { PACK_BYTES_TARGET, PACKED_BLOB_BYTES_MAX } from '../../protocol/limits.ts'
import { parentOf } from '../../protocol/path.ts'
import type { Blob } from './cache.ts'
import type { ArenaContext } from './context.ts'
import { lastBelow } from './order.ts'
import { isUnshown } from './plan.ts'
import type { Reads } from './reads.ts'

/** Files of a folder that are read before others come in advance. */
const READ_FIRST = 3
/** Files in advance that have not been read: at first, more for each that is read, and for each that was there in advance, and at most. */
const SOON_FIRST = 32
const SOON_READ = 2
const SOON_USED = 8
const SOON_MAX = 256
/** And their bytes; another pack may come on top. */
const SOON_BYTES_MAX = 2 * PACK_BYTES_TARGET
/** Entries looked at for one reader. */
const LOOKED_MAX = 1000
const PAGE = 100
/** Folders in which somebody reads, and for how long after the last reading. */
const FOLDERS_MAX = 32
const READ_MS = 60_000

interface Folder {
  /** The first files that were read, and how often one was after these. */
  readonly first: Set<EntryPath>
  reads: number
  /** In advance, and not read. */
  readonly soon: Map<EntryPath, number>
  soonBytes: number
  /** Of those in advance, all and read. */
  given: number
  used: number
  /** What has been looked at up to here, from where the reader began to the end, and then from the start; null: nothing. */
  after: EntryPath | null
  round: 'first' | 'second' | 'over'
  readMs: number
}

export class Siblings {
  readonly #context: ArenaContext
  readonly #reads: Reads
  readonly #shown: (path: EntryPath) => boolean
  /** The one read last is the last. */
  readonly #folders = new Map<EntryPath | null, Folder>()

  /** @param shown false: this path is ignored here */
  constructor(context: ArenaContext, reads: Reads, shown: (path: EntryPath) => boolean) {
    this.#context = context
    this.#reads = reads
    this.#shown = shown
  }

  /** Somebody begins to read this file. */
  read(path: EntryPath, { size }: Blob): void {
    if (size > PACKED_BLOB_BYTES_MAX) return
    const under = parentOf(path) ?? null
    const nowMs = this.#context.clock.nowMs()
    const folder = this.#folderAt(under, nowMs)
    folder.readMs = nowMs
    const bytes = folder.soon.get(path)
    if (bytes !== undefined) {
      folder.soon.delete(path)
      folder.soonBytes -= bytes
      folder.used++
    }
    if (folder.first.size < READ_FIRST) folder.first.add(path)
    if (folder.first.size < READ_FIRST || folder.round === 'over') return
    folder.reads++
    const most = Math.min(SOON_MAX, SOON_FIRST + SOON_READ * folder.reads + SOON_USED * folder.used)
    if (folder.soon.size > most / 2 || folder.soonBytes > SOON_BYTES_MAX) return
    if (folder.round === 'first') folder.after ??= path
    this.#reads.soon(this.#next(under, folder, most - folder.soon.size))
  }

  #folderAt(under: EntryPath | null, nowMs: number): Folder {
    let folder = this.#folders.get(under)
    const former = [...this.#folders.values()].at(-1)
    this.#folders.delete(under)
    if (folder === undefined || nowMs - folder.readMs > READ_MS) {
      folder = {
        first: new Set(),
        reads: 0,
        soon: new Map(),
        soonBytes: 0,
        given: 0,
        used: 0,
        after: null,
        round: 'first',
        readMs: nowMs,
      }
      // Who has gone through one folder goes through the next.
      const goesOn = former !== undefined && former.used > 0 && former.used * 2 >= former.given
      if (goesOn && nowMs - former.readMs <= READ_MS) for (const path of former.first) folder.first.add(path)
    }
    this.#folders.set(under, folder)
    for (const oldest of this.#folders.keys()) {
      if (this.#folders.size <= FOLDERS_MAX) break
      this.#folders.delete(oldest)
    }
    return folder
  }

  /** Small files of the folder that are not here, as they come next. */
  #next(under: EntryPath | null, folder: Folder, files: number): Blob[] {
    const { store, cache } = this.#context
    const blobs: Blob[] = []
    let bytes = 0
    for (let looked = 0; looked < LOOKED_MAX && folder.round !== 'over'; ) {
      const page = store.page(folder.after, PAGE, under)
      let whole = true
      for (const entry of page) {
        looked++
        const { path, known } = entry
        const isDirect = (parentOf(path) ?? null) === under
        if (!isDirect || known.content.type === 'dir') {
          // What is below a folder is passed over.
          folder.after = lastBelow(isDirect ? path : childAbove(path, under))
          whole = false
          break
        }
        folder.after = path
        if (known.content.type !== 'file' || !isUnshown(entry) || folder.soon.has(path)) continue
        const { hash, size } = known.content
        if (size === 0 || size > PACKED_BLOB_BYTES_MAX || cache.hasAny(hash) || !this.#shown(path)) continue
        blobs.push({ hash, size })
        folder.soon.set(path, size)
        folder.soonBytes += size
        folder.given++
        bytes += size
        if (blobs.length >= files || bytes >= PACK_BYTES_TARGET) return blobs
      }
      if (!whole || page.length === PAGE) continue
      folder.round = folder.round === 'first' ? 'second' : 'over'
      folder.after = null
    }
    return blobs
  }
}

/** The folder directly below `under` that a path is in. */
function childAbove(path: EntryPath, under: EntryPath | null): EntryPath {
  const start = under === null ? 0 : under.length + 1
  return path.slice(0, path.indexOf('/', start)) as EntryPath
}
