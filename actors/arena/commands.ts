/** What people ask of an arena over the control socket: looking, and ordinary changes made for them (docs/control.md). */
import type { Mark } from '../../protocol/control.ts'
import { SyncError } from '../../protocol/error.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { checkPath, joinPath, nameOf, parentOf } from '../../protocol/path.ts'
import type { HistoryEvent, ListedConflict, ListedEntry, ListedVersion } from '../../protocol/status.ts'
import type { Blob } from './cache.ts'
import { childrenOf } from './children.ts'
import { conflictOrigin } from './conflict-name.ts'
import { type ArenaContext, historyOf, tell } from './context.ts'
import { DiskError } from './disk.ts'
import { diskReason, type Fetcher } from './fetch.ts'
import type { LocalChanges } from './local.ts'
import { MARKS_MAX } from './marks.ts'
import { isUnshown } from './plan.ts'
import { statOf } from './steps.ts'
import type { Entry, Kept } from './store.ts'
import { living, mtimeOf, type Version } from './version.ts'
import type { VersionStore } from './versions.ts'
import { sameStamp } from './walk.ts'

/** Rows of one answer. */
const LIST_MAX = 10_000
const CONFLICTS_MAX = 10_000

export class Commands {
  readonly #context: ArenaContext
  readonly #local: LocalChanges
  readonly #versions: VersionStore
  readonly #fetch: Fetcher
  readonly #marksChanged: (path: EntryPath) => void

  constructor(
    context: ArenaContext,
    local: LocalChanges,
    versions: VersionStore,
    fetch: Fetcher,
    marksChanged: (path: EntryPath) => void,
  ) {
    this.#marksChanged = marksChanged
    this.#context = context
    this.#local = local
    this.#versions = versions
    this.#fetch = fetch
  }

  /** Answers at once; throws SyncError. Undefined: not one of these methods. */
  run(method: string, params: Record<string, unknown>): unknown {
    try {
      return this.#run(method, params)
    } catch (error) {
      if (error instanceof DiskError) throw new SyncError('disk_failed', diskReason(error), { cause: error })
      throw error
    }
  }

  #run(method: string, params: Record<string, unknown>): unknown {
    switch (method) {
      case 'mark':
        return this.mark(params.path as string, params.mark as Mark | 'clear')
      case 'conflicts':
        return { conflicts: this.conflicts() }
      case 'resolve':
        return this.resolve(params.path as string, params.keep as 'winner' | 'loser' | 'both')
      case 'versions':
        return { versions: this.versions(params.path as string) }
      case 'restore':
        return this.restore(params.path as string, params.version as string)
      case 'read':
        return this.read(
          params.path as string,
          params.version as string | undefined,
          params.offset as number,
          params.length as number,
        )
      case 'history':
        return {
          events: this.history(
            params.path as string | undefined,
            params.limit as number,
            params.before as number | undefined,
          ),
        }
      default:
        return undefined
    }
  }

  list(text: string | undefined): ListedEntry[] {
    const { store } = this.#context
    const path = folderPath(text)
    const entry = path && store.entry(path)
    if (path && !(entry && (living(entry.known) || entry.dormant || this.#holdsUnreal(entry))))
      throw new SyncError('not_found', `there is no '${path}' in this arena`)
    if (path && entry && living(entry.known) && entry.known.content.type !== 'dir') return [this.#listed(entry)]
    const entries: ListedEntry[] = []
    for (const { entry: child } of childrenOf(store, path)) {
      if (child === null || !(living(child.known) || child.dormant || this.#holdsUnreal(child))) continue
      entries.push(this.#listed(child))
      if (entries.length >= LIST_MAX) break
    }
    return entries
  }

  /** A folder that is deleted and not there, and yet files live in it that are not shown here. */
  #holdsUnreal({ path }: Entry): boolean {
    const { marks, store } = this.#context
    return !marks.allReal && store.hasLivingBelow(path)
  }

  #listed(entry: Entry): ListedEntry {
    const { path, known, have, dormant } = entry
    const { content } = known
    const file = content.type === 'file' ? content : null
    const real = have?.content.type === 'file' && have.content.hash === file?.hash
    const here = file === null ? 0 : real ? file.size : this.#context.cache.bytesOf(file)
    const problem = this.#context.problems.get(path)?.reason ?? (entry.pending ? 'on its way' : undefined)
    return {
      path,
      type: dormant || content.type === 'gone' ? 'dir' : content.type,
      size: file?.size ?? 0,
      mtimeMs: Number(mtimeOf(content) / 1_000_000n),
      exec: file?.exec ?? false,
      mark: this.#context.marks.of(path),
      here,
      ...(content.type === 'symlink' && { target: content.target }),
      ...(problem !== undefined && { problem }),
    }
  }

  /** Gives a path a mark of its own, or takes it away. Nothing need be known of the path yet. */
  mark(text: string, mark: Mark | 'clear'): Record<string, never> {
    const { store, marks, settings } = this.#context
    const path = checkPath(text)
    if (mark === 'real' && settings.root === null)
      throw new SyncError('usage', 'this arena has no folder here: nothing in it can be real')
    if (mark !== 'clear' && marks.own(path) === undefined && marks.size >= MARKS_MAX)
      throw new SyncError(
        'limit_exceeded',
        `there are ${MARKS_MAX} marks in this arena already: mark a folder above instead`,
      )
    const own = mark === 'clear' ? null : mark
    store.transact(writer => writer.putMark(path, own))
    marks.set(path, own)
    this.#marksChanged(path)
    return {}
  }

  conflicts(): ListedConflict[] {
    const { store } = this.#context
    return store.conflicts(CONFLICTS_MAX).flatMap(copy => {
      const origin = conflictOrigin(copy)
      const known = store.entry(copy)?.known
      if (!origin || !known || !living(known)) return []
      const size = known.content.type === 'file' ? known.content.size : 0
      return [
        { path: origin.path, copy, size, mtimeMs: Number(mtimeOf(known.content) / 1_000_000n), author: origin.author },
      ]
    })
  }

  /** Ends the conflicts of a path, or one of them if its copy is named. An ordinary change, which flows to all peers. */
  resolve(text: string, keep: 'winner' | 'loser' | 'both'): Record<string, never> {
    const path = checkPath(text)
    const conflicts = this.conflicts().filter(conflict => conflict.path === path || conflict.copy === path)
    if (conflicts.length === 0)
      throw new SyncError('not_found', `there is no conflict at '${path}': see 'realize conflicts'`)
    if (keep === 'loser' && conflicts.length > 1) {
      throw new SyncError('usage', `'${path}' has ${conflicts.length} conflict copies: name the one to keep`)
    }
    for (const conflict of conflicts) {
      const entry = this.#settled(conflict.copy)
      if (keep === 'both') this.#rename(entry, keptName(conflict.copy))
      else {
        if (keep === 'loser') this.#replace(conflict.path, entry)
        this.#takeAway(entry)
      }
      this.#local.lookAgain(conflict.copy)
      this.#local.lookAgain(conflict.path)
      this.#record('resolved', conflict.path, conflict.copy)
    }
    return {}
  }

  #settled(path: EntryPath): Entry {
    const entry = this.#context.store.entry(path)
    if (entry && isUnshown(entry) && !entry.pending)
      throw new SyncError('usage', `'${path}' is not on this disk: mark it real first, or resolve where it is`)
    if (!entry || entry.pending || !living(entry.have) || this.#local.unsettled(path)) {
      throw new SyncError('busy', `'${path}' is being changed: try again in a moment`)
    }
    return entry
  }

  #rename(entry: Entry, to: EntryPath): void {
    if (this.#context.disk.move(entry.path, to, statOf(entry)) !== 'placed') throw changedNow(entry.path)
    this.#local.lookAgain(to)
  }

  #takeAway(entry: Entry): void {
    const { disk, store } = this.#context
    if (!living(entry.have)) return
    if (entry.have.content.type === 'dir') return disk.removeFolder(entry.path)
    const slot = this.#fetch.newSlot()
    if (disk.takeOut(entry.path, slot, statOf(entry)) !== 'placed') throw changedNow(entry.path)
    const kept = this.#versions.row(entry.path, entry.have)
    disk.keep(slot, kept.id)
    store.transact(writer => this.#versions.add(writer, kept))
  }

  /** Puts a copy of one entry's file at another path; what was there goes to the version store. */
  #replace(path: EntryPath, source: Entry): void {
    const { disk } = this.#context
    const slot = this.#fetch.newSlot()
    const content = source.have?.content
    if (content?.type === 'symlink') disk.stageLink(slot, content.target)
    else if (content?.type === 'file') {
      disk.stageCopy(slot, source.path)
      disk.stageFinish(slot, content.size, content.mtimeNs, content.exec)
    } else throw new SyncError('usage', `'${source.path}' is a folder: move what you want to keep by hand`)
    this.#putInPlace(slot, path)
  }

  #putInPlace(slot: string, path: EntryPath): void {
    const { disk, store } = this.#context
    const entry = store.entry(path)
    const former = entry && living(entry.have) ? entry : null
    if (former?.have?.content.type === 'dir') {
      disk.stageRemove(slot)
      throw new SyncError('already_exists', `'${path}' is a folder now: restore to a file elsewhere with --to`)
    }
    if (disk.place(slot, path, former && statOf(former)) !== 'placed') {
      disk.stageRemove(slot)
      throw changedNow(path)
    }
    if (former?.have) {
      const kept = this.#versions.row(path, former.have)
      disk.keep(slot, kept.id)
      store.transact(writer => this.#versions.add(writer, kept))
    }
  }

  versions(text: string): ListedVersion[] {
    const path = checkPath(text)
    return this.#context.store.kept(path, LIST_MAX).map(kept => ({
      version: kept.id,
      path: kept.path,
      size: kept.size,
      mtimeMs: Number(kept.mtimeNs / 1_000_000n),
      keptMs: kept.keptMs,
      hash: kept.hash ?? '',
    }))
  }

  #kept(path: EntryPath, version: string): Kept {
    const kept = this.#context.store.kept(path, LIST_MAX).find(row => row.id === version)
    if (!kept) throw new SyncError('not_found', `'${path}' has no version '${version}': see 'realize versions'`)
    return kept
  }

  restore(text: string, version: string): Record<string, never> {
    const { disk } = this.#context
    const path = checkPath(text)
    const kept = this.#kept(path, version)
    const entry = this.#context.store.entry(path)
    // It would not be based on what is known there, and be a conflict with it.
    if (entry && isUnshown(entry))
      throw new SyncError(
        'usage',
        `what '${path}' is now is not on this disk: mark it real first, or restore to another file (--to)`,
      )
    const missing: EntryPath[] = []
    for (let folder = parentOf(path); folder !== undefined && disk.stat(folder) === null; folder = parentOf(folder))
      missing.unshift(folder)
    for (const folder of missing) {
      disk.makeFolder(folder)
      this.#local.lookAgain(folder)
    }
    const slot = this.#fetch.newSlot()
    disk.stageCopyKept(slot, kept.id)
    if (disk.stageStat(slot)?.type === 'file') disk.stageFinish(slot, kept.size, kept.mtimeNs, kept.exec)
    this.#putInPlace(slot, path)
    this.#local.lookAgain(path)
    this.#record('restored', path)
    return {}
  }

  #record(action: HistoryEvent['action'], path: EntryPath, other?: EntryPath): void {
    const { store, settings } = this.#context
    const events: HistoryEvent[] = []
    const nothing: Version = { content: { type: 'gone', deleted: null }, vector: [], g: 0, author: settings.author }
    const version = store.entry(other ?? path)?.known ?? nothing
    store.transact(writer =>
      events.push(
        writer.addHistory(historyOf(this.#context, action, path, version, other === undefined ? {} : { other })),
      ),
    )
    tell(this.#context, events)
  }

  /** The blob of a file whose content is not on this disk; null: it is. Throws `not_found`. */
  notHere(text: string): Blob | null {
    const path = checkPath(text)
    const entry = this.#context.store.entry(path)
    if (!entry || !living(entry.known)) throw new SyncError('not_found', `there is no '${path}' in this arena`)
    const { content } = entry.known
    if (content.type !== 'file') throw new SyncError('not_found', `'${path}' is not a file`)
    return entry.have?.content.type === 'file' ? null : { hash: content.hash, size: content.size }
  }

  /** A part of a blob that a file here has, still as its entry says; null: none has. */
  fromFile({ hash, size }: Blob, offset: number, length: number): Uint8Array | null {
    const { store, disk } = this.#context
    for (const path of store.withHash(hash, 4)) {
      const stamp = store.entry(path)?.stamp
      if (!stamp || stamp.size !== size) continue
      try {
        const { fd, stat } = disk.open(path)
        try {
          if (!sameStamp(stamp, stat)) continue
          const bytes = disk.readFd(fd, offset, Math.max(0, Math.min(length, size - offset)))
          const after = disk.stat(path)
          if (after && sameStamp(stamp, after)) return bytes
        } finally {
          disk.close(fd)
        }
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
      }
      this.#local.lookAgain(path)
    }
    return null
  }

  read(
    text: string,
    version: string | undefined,
    offset: number,
    length: number,
  ): { data: string; eof: boolean; size: number } {
    const { disk } = this.#context
    const path = checkPath(text)
    const { fd, stat } = version === undefined ? disk.open(path) : disk.keptOpen(this.#kept(path, version).id)
    try {
      const bytes = disk.readFd(fd, offset, length)
      return { data: Buffer.from(bytes).toString('base64'), eof: offset + bytes.length >= stat.size, size: stat.size }
    } finally {
      disk.close(fd)
    }
  }

  history(text: string | undefined, limit: number, before: number | undefined): HistoryEvent[] {
    const { store } = this.#context
    const path = folderPath(text)
    const events: HistoryEvent[] = []
    let end = before ?? Number.MAX_SAFE_INTEGER
    while (events.length < limit) {
      const page = store.history(end, 1000)
      for (const event of page) {
        const about =
          path === undefined || [event.path, event.other].some(at => at === path || at?.startsWith(`${path}/`))
        if (about && events.length < limit) events.push(event)
      }
      if (page.length < 1000) break
      end = (page.at(-1) as HistoryEvent).number
    }
    return events
  }
}

function folderPath(text: string | undefined): EntryPath | undefined {
  const trimmed = text?.replace(/\/+$/, '')
  return trimmed === undefined || trimmed === '' || trimmed === '.' ? undefined : checkPath(trimmed)
}

/** The copy under a name that speaks of no conflict any more. */
function keptName(copy: EntryPath): EntryPath {
  return joinPath(parentOf(copy), nameOf(copy).replace('.conflict-', '.kept-'))
}

function changedNow(path: EntryPath): SyncError {
  return new SyncError('busy', `'${path}' was changed just now: look at it and try again`)
}
