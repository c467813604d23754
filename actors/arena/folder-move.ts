/**
 * A folder that others have renamed is renamed here, too: one `rename` for all that is in it. Entries stay what they are: each
 * deletion and each new path is a change of its own. Only where the deletions of all that a folder shows and the new paths
 * below another one are the same tree, and the disk shows exactly that tree, the disk does it at once. Whatever does not fit is left to
 * the way of each entry (apply.ts); what a user does in that very moment moves along and is looked at after that.
 */
import type { EntryPath } from '../../protocol/ids.ts'
import { ancestorsOf, parentOf } from '../../protocol/path.ts'
import type { HistoryEvent } from '../../protocol/status.ts'
import { type ArenaContext, historyOf, log } from './context.ts'
import { DiskError, type DiskStat } from './disk.ts'
import { isIgnoreFile } from './ignore-rules.ts'
import type { LocalChanges } from './local.ts'
import { isBelow, lastBelow } from './order.ts'
import type { Entry, Intent, Writer } from './store.ts'
import { type Content, includes, living, mtimeOf, sameContent, versionTag } from './version.ts'
import { differs } from './walk.ts'

/** Entries of a move wait for the rest of it: so long after the last word, as long as a peer has more to say, and so long in all. */
const HOLD_MS = 400
const HOLD_MAX_MS = 30_000
/** Folders that wait so at once, and refusals remembered. */
const HELD_MAX = 16
const REFUSED_MAX = 1_000
/** Entries of one move: all are looked at and concluded in one piece. */
const ENTRIES_MAX = 32_768
const PAGE = 1_000
/** New files from which the folder is guessed that they were in; each may have come from several paths. */
const GUESSES = 4
const GUESS_PAGE = 64
const SOURCES_MAX = 8

export interface FolderMoveEvents {
  /** Whether content is on its way to this path, or a file from it to another one. */
  inWorks(path: EntryPath): boolean
  /** Whether a peer has more to say, or is looking at its disk. */
  moreToCome(): boolean
  /** The step has been done. */
  done(intent: Intent): void
  /** The disk broke the step off: it is settled by what the disk shows. */
  brokenOff(error: DiskError, path: EntryPath): void
  /** What waited may go on. */
  again(): void
}

interface Held {
  readonly from: EntryPath
  readonly sinceMs: number
}

export class FolderMoves {
  readonly #context: ArenaContext
  readonly #local: LocalChanges
  readonly #events: FolderMoveEvents
  /** New folders that wait for the rest of their move, with the folder that they were. */
  readonly #held = new Map<EntryPath, Held>()
  /** New folders that are made by themselves, with the version of which that was decided. */
  readonly #refused = new Map<EntryPath, string>()
  #newsMs = 0

  constructor(context: ArenaContext, local: LocalChanges, events: FolderMoveEvents) {
    this.#context = context
    this.#local = local
    this.#events = events
  }

  /** More became known. */
  learnt(): void {
    this.#newsMs = this.#context.clock.nowMs()
  }

  /** If the path is part of a move that waits for its rest: the last path that is. Else null. A new folder itself is asked anew. */
  beyond(path: EntryPath): EntryPath | null {
    if (this.#held.size === 0) return null
    const nowMs = this.#context.clock.nowMs()
    for (const [to, held] of this.#held) {
      const { from } = held
      if (!this.#waits(held, nowMs)) continue
      if (isBelow(path, to)) return lastBelow(to)
      if (path === from || isBelow(path, from)) return lastBelow(from)
    }
    return null
  }

  /** Whether the new folder, which is pending, was one that is here: then it is `moved` at once, or is `held` until more is known. */
  consider(entry: Entry): 'moved' | 'held' | 'no' {
    const { path, known } = entry
    const tag = versionTag(known)
    if (this.#refused.get(path) === tag) return 'no'
    const from = this.#sourceOf(path)
    if (from === null) {
      this.#held.delete(path)
      return 'no'
    }
    const fit = this.#fits(entry, from)
    if (fit === 'later' && this.#hold(path, from)) return 'held'
    this.#held.delete(path)
    if (fit !== 'later' && fit !== 'no') {
      const outcome = this.#move(entry, from, fit)
      if (outcome === 'moved') return 'moved'
    }
    if (this.#refused.size >= REFUSED_MAX) this.#refused.clear()
    this.#refused.set(path, tag)
    return 'no'
  }

  #hold(path: EntryPath, from: EntryPath): boolean {
    const { clock, timers } = this.#context
    const nowMs = clock.nowMs()
    const held = { from, sinceMs: this.#held.get(path)?.sinceMs ?? nowMs }
    if (!this.#waits(held, nowMs)) return false
    if (this.#held.size >= HELD_MAX) this.#letGo(nowMs)
    if (this.#held.size >= HELD_MAX && !this.#held.has(path)) return false
    this.#held.set(path, held)
    timers.soon('folder move', Math.max(nowMs, this.#newsMs) + HOLD_MS, () => this.#events.again())
    return true
  }

  #waits({ sinceMs }: Held, nowMs: number): boolean {
    if (nowMs >= sinceMs + HOLD_MAX_MS) return false
    return nowMs < Math.max(sinceMs, this.#newsMs) + HOLD_MS || this.#events.moreToCome()
  }

  /** Those whose time is over: they may not be wanted any more, and so are not asked for. */
  #letGo(nowMs: number): void {
    for (const [to, held] of this.#held) if (!this.#waits(held, nowMs)) this.#held.delete(to)
  }

  /** The folder here that is likely to have become this one: by files below both whose content and relative path are the same. */
  #sourceOf(to: EntryPath): EntryPath | null {
    const { store } = this.#context
    let guesses = 0
    for (const { path, known, have, pending } of store.page(null, GUESS_PAGE, to)) {
      if (!pending || known.content.type !== 'file' || living(have)) continue
      const relative = path.slice(to.length)
      for (const other of store.withHash(known.content.hash, SOURCES_MAX)) {
        const from = other.slice(0, -relative.length) as EntryPath
        if (from === '' || from === to || !other.endsWith(relative) || isBelow(to, from) || isBelow(from, to)) continue
        const source = store.entry(other)
        if (source && goes(source) && store.entry(from)?.have?.content.type === 'dir') return from
      }
      if (++guesses >= GUESSES) return null
    }
    return null
  }

  /** `later`: not all of it is known yet, or something is on its way. The folder as the disk shows it: it can be moved. */
  #fits(target: Entry, from: EntryPath): DiskStat | 'no' | 'later' {
    const { store, disk } = this.#context
    const to = target.path
    const source = store.entry(from)
    const parent = parentOf(to)
    const above = parent === undefined ? undefined : store.entry(parent)
    if (store.intents().length > 0 || (above && !above.dormant && above.have?.content.type !== 'dir')) return 'later'
    if (!source || source.dormant || target.dormant || this.#ignores(from, to, true)) return 'no'
    if (!goes(source)) return 'later'
    const shown = new Map<EntryPath, Entry>([[from, source]])
    for (let after: EntryPath | null = null; ; ) {
      const page: Entry[] = store.page(after, PAGE, from)
      for (const entry of page) {
        if (living(entry.known) || entry.dormant) return 'no'
        if (!living(entry.have) && entry.stamp === null) continue
        if (!goes(entry) || isIgnoreFile(entry.path) || shown.size >= ENTRIES_MAX) return 'no'
        const fresh = store.entry(pathAfter(entry.path, from, to))
        if (!fresh || !comes(fresh, entry) || this.#ignores(entry.path, fresh.path, isFolder(entry))) return 'no'
        if (this.#busy(entry.path) || this.#busy(fresh.path)) return 'later'
        shown.set(entry.path, entry)
      }
      if (page.length < PAGE) break
      after = (page.at(-1) as Entry).path
    }
    if (this.#busy(from) || this.#busy(to)) return 'later'
    try {
      const stat = disk.stat(from)
      if (stat?.type !== 'dir' || disk.stat(to) !== null) return 'no'
      return this.#showsExactly(from, shown) ? stat : 'no'
    } catch (error) {
      // What cannot be seen is not moved.
      if (!(error instanceof DiskError)) throw error
      return 'no'
    }
  }

  #busy(path: EntryPath): boolean {
    return this.#local.unsettled(path) || this.#events.inWorks(path)
  }

  #ignores(from: EntryPath, to: EntryPath, folder: boolean): boolean {
    return this.#local.rules.ignores(from, folder) || this.#local.rules.ignores(to, folder)
  }

  /** Whether all that is below the folder on the disk is what these entries say, and nothing of it is missing. */
  #showsExactly(folder: EntryPath, entries: ReadonlyMap<EntryPath, Entry>): boolean {
    let left = entries.size - 1
    const folders = [folder]
    for (let next = folders.pop(); next !== undefined; next = folders.pop()) {
      const listing = this.#context.disk.listStat(next)
      if (listing.invalid.length > 0) return false
      for (const { name, stat } of listing.entries) {
        const path = `${next}/${name}` as EntryPath
        const entry = entries.get(path)
        if (!entry) return false
        if (differs(entry, stat)) {
          this.#local.lookAgain(path)
          return false
        }
        left--
        if (stat.type === 'dir') folders.push(path)
      }
    }
    return left === 0
  }

  #move({ path, known, have }: Entry, source: EntryPath, stat: DiskStat): 'moved' | 'no' {
    const { store, disk, rules } = this.#context
    const intent: Intent = {
      path,
      slot: null,
      source,
      ino: stat.ino,
      formerIno: 0n,
      to: known,
      kept: null,
      copy: null,
      from: have,
    }
    if (rules.intends) store.transact(writer => writer.putIntent(intent))
    try {
      if (disk.move(source, path, stat) !== 'placed') {
        store.transact(writer => writer.removeIntent(path))
        this.#local.lookAgain(source)
        return 'no'
      }
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#refused.set(path, versionTag(known))
      this.#events.brokenOff(error, path)
      return 'moved'
    }
    this.#events.done(intent)
    return 'moved'
  }

  /**
   * What the disk has moved is what we have at the new paths, and no longer at the old ones. Also after a kill; and if the disk failed
   * in between, something else may have become known meanwhile: that is pending still, or found when it is looked at.
   */
  conclude(writer: Writer, { path: to, source, ...intent }: Intent, events: HistoryEvent[]): void {
    const { store } = this.#context
    const from = source as EntryPath
    writer.removeIntent(to)
    const moved = [...this.#shownBelow(from)]
    const folder = store.entry(from)
    // In the order in which it was heard: each file's old path after its new one, old folders last. Who reads this can do the same.
    this.#showAt(writer, to, { have: intent.to, stamp: null }, events, from)
    for (const entry of moved) {
      if (living(entry.have)) this.#showAt(writer, pathAfter(entry.path, from, to), entry, events, entry.path)
      if (!isFolder(entry)) endAt(writer, entry)
    }
    for (const entry of moved.reverse()) if (isFolder(entry)) endAt(writer, entry)
    if (folder) endAt(writer, folder)
    this.#local.lookBelow(to)
    log(this.#context, 'folder_moved', { path: to, from, entries: moved.length })
  }

  *#shownBelow(folder: EntryPath): Generator<Entry> {
    for (let after: EntryPath | null = null; ; ) {
      const page: Entry[] = this.#context.store.page(after, PAGE, folder)
      for (const entry of page) if (living(entry.have) || entry.dormant) yield entry
      if (page.length < PAGE) return
      after = (page.at(-1) as Entry).path
    }
  }

  #showAt(
    writer: Writer,
    path: EntryPath,
    { have, stamp }: Pick<Entry, 'have' | 'stamp'>,
    events: HistoryEvent[],
    other: EntryPath,
  ): void {
    const entry = this.#context.store.entry(path)
    // Something else was heard of it since: what the disk shows there is looked at as what it is.
    if (!entry || !have || !same(entry.known.content, have.content)) return
    const { known } = entry
    writer.putEntry(
      { ...entry, have: known, stamp, dormant: false, pending: false, announced: false, former: entry.have },
      true,
    )
    if (known.content.type === 'dir') return
    const more = { other, ...(known.content.type === 'file' && { size: known.content.size }) }
    events.push(writer.addHistory(historyOf(this.#context, 'renamed', path, known, more)))
  }
}

function endAt(writer: Writer, entry: Entry): void {
  const gone = entry.known.content.type === 'gone'
  writer.putEntry(
    {
      ...entry,
      have: gone ? entry.known : null,
      stamp: null,
      dormant: false,
      pending: !gone,
      announced: false,
      former: entry.have,
    },
    gone,
  )
}

/** Shown here, and to be deleted with nothing to keep of it. */
function goes({ known, have, pending }: Entry): boolean {
  return pending && known.content.type === 'gone' && living(have) && includes(known.vector, have.vector)
}

/** Not here yet, and to be what the other one shows. */
function comes({ known, have, stamp, pending, dormant }: Entry, shown: Entry): boolean {
  if (!pending || dormant || living(have) || stamp !== null) return false
  return shown.have !== null && same(known.content, shown.have.content)
}

function same(a: Content, b: Content): boolean {
  return sameContent(a, b) && mtimeOf(a) === mtimeOf(b)
}

function isFolder(entry: Entry): boolean {
  return entry.dormant || entry.have?.content.type === 'dir'
}

function pathAfter(path: EntryPath, from: EntryPath, to: EntryPath): EntryPath {
  return `${to}${path.slice(from.length)}` as EntryPath
}

/** Whether a step moves a folder with all that is in it. */
export function movesFolder({ source, to }: Intent): boolean {
  return source !== null && to.content.type === 'dir'
}

/** Whether what the path shows may be part of a step that is written down. */
export function concerns({ path, source, ...intent }: Intent, asked: EntryPath): boolean {
  if (path === asked) return true
  if (!movesFolder({ path, source, ...intent }) || source === null) return false
  return asked === source || ancestorsOf(asked).some(folder => folder === path || folder === source)
}
