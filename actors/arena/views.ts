/**
 * Answers mounted views: which files are known and not on the disk, their content, and a user's changes of them. (What is on the
 * disk a view serves by itself; what is changed there comes as any change of the disk.)
 *
 * A user who sees an unreal file and deletes, renames or replaces it does so knowing that very version: the change is based on what
 * is known, where one that is found on the disk is based on what the disk showed (R1). So a deletion through a view is one, and
 * a file that is merely missing on the disk is none.
 */
import type { Mark } from '../../protocol/control.ts'
import { type ErrorCode, SyncError } from '../../protocol/error.ts'
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { parentOf, pathFault } from '../../protocol/path.ts'
import type {
  FromView,
  OpenedByView,
  PathFacts,
  ToView,
  UnrealFile,
  UnrealNames,
  ViewAnswers,
  ViewChange,
  ViewQuestion,
} from '../../protocol/ports.ts'
import type { HistoryEvent } from '../../protocol/status.ts'
import { childrenOf } from './children.ts'
import { type ArenaContext, count, historyOf, log, tell } from './context.ts'
import { DiskError } from './disk.ts'
import { isIgnoreFile } from './ignore-rules.ts'
import type { LocalChanges } from './local.ts'
import { isBelow } from './order.ts'
import { ownVersion } from './own-version.ts'
import { isUnshown } from './plan.ts'
import type { PlacedOutcome } from './reads.ts'
import type { Entry, Writer } from './store.ts'
import { type Content, type FileContent, living, type Version, versionTag } from './version.ts'

/** Names in one answer, and entries looked at for it: an arena has other things to do. */
const LIST_NAMES_MAX = 1000
const LIST_LOOKED_MAX = 2000
/** Questions that wait for something, of all views. */
const WAITING_MAX = 10_000
/** Files that users are replacing. */
const SEEN_MAX = 10_000
/** What was put in place of an unreal file and is missing after this long was deleted again: programs delete and make anew. */
const MISSING_MS = 60
/** Deletions of unreal files are written down when none has come for so long, after so long at the latest, or when there are so many. */
const GONE_MS = 20
const GONE_MS_MAX = 200
const GONE_MAX = 1000
/** Questions for whose answers it makes no difference whether they are written down. */
const UNMOVED: ReadonlySet<ViewQuestion['type']> = new Set(['remove', 'look', 'list', 'read'])
/** How long a file may wait for the folder that it is moved into to be known, and nobody being about to look at it: it was just made. */
const FOLDER_MS = 10_000
/** And where the arena is about to look at it: a folder of very many files takes its time. */
const LOOKED_AT_MS = 120_000
/** A content that is read is looked for so long after something changed; and so long after it could not be had. */
const GOES_MS = 1_000
const SAVED_AGAIN_MS = 5_000
/** Contents that are open: of more it is not looked whether they are known yet. */
const SAVED_LOOKS_MAX = 1000
/** What keeps a file that a program waits for from coming is told to the program when it has not gone by then. */
export const HINDERED_MS = 5_000
/** Between two looks for it. */
const FOLLOW_MS = 20
/** Unreal files that follow a folder that is renamed, and those of one transaction. */
const MOVED_MAX = 32_768
const MOVED_BATCH = 1000
/** Of those that could not follow, as many are logged. */
const LEFT_LOGGED = 20

/** What a program is told when content cannot be read, by the failure's code; else EIO. */
const READ_ERRNO: Partial<Record<ErrorCode, string>> = { unreachable: 'EHOSTUNREACH', busy: 'EBUSY' }

/** Why a question fails: an errno name, for the program that waits. */
class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

export interface ViewEvents {
  announced(): void
  /** Whether the disk is looked at and changed: the arena is neither paused nor stopped. */
  working(): boolean
  /** These became pending, or are not any more. */
  changed(paths: readonly EntryPath[]): void
  /** Whether a step of ours at this path is under way, which must come to its end first. */
  placing(path: EntryPath): boolean
  /** Whether something below a folder is just on its way out of the tree. */
  leavingBelow(folder: EntryPath): boolean
  /** Has a part of a content in the cache, or reads it; returns how to give up. */
  read(
    file: { hash: BlobHash; size: number },
    offset: number,
    length: number,
    done: (answer: PlacedOutcome) => void,
  ): () => void
  /** Has all of a content in the cache; `failed` if that cannot be now. Returns how to give up. */
  save(file: { hash: BlobHash; size: number }, failed: () => void): () => void
  /** Whether a file that is on its way here is to have this content. */
  awaited(hash: BlobHash): boolean
  /** Somebody begins to read the file at a path. */
  begun(path: EntryPath, file: { hash: BlobHash; size: number }): void
  /** A file is wanted as a real one, whatever its mark; until it is not. */
  want(path: EntryPath, wanted: boolean): void
  /**
   * Why a file that is wanted does not come, with what a program is told, an errno name; null: it may yet.
   * @param sinceMs when it was asked for
   */
  hindrance(entry: Entry, sinceMs: number): { code: string; reason: string } | null
  /** As people mark a path. Throws SyncError. */
  mark(path: EntryPath, mark: Mark | 'clear'): void
  /** Names of connected peers that say that they have a content. */
  holders(hash: BlobHash, done: (names: string[]) => void): void
}

/** A view's end here. */
export interface ViewDesk {
  receive(message: FromView): void
  close(): void
}

/** A content that programs read, which goes on also if it is deleted or replaced. */
interface ReadContent {
  readonly size: number
  /** Where it was when it was opened. */
  readonly path: EntryPath
  times: number
  /** It is known nowhere any more, and comes to the cache wholly while somebody has it; how to give that up. */
  saved: (() => void) | null
}

interface Desk {
  readonly say: (message: ToView, transfer?: ArrayBuffer[]) => void
  /** What is under way, and how to give it up. */
  readonly asked: Map<number, () => void>
  readonly seen: Set<EntryPath>
  /** Real files that are open, by inode number, and contents that are read, each with how often. */
  readonly files: Map<bigint, number>
  readonly contents: Map<BlobHash, ReadContent>
  /** Folders that are about to be renamed, with how often. */
  readonly moving: Map<EntryPath, number>
}

/** A question that waits until `look` has its answer. */
interface Waiting {
  readonly desk: Desk
  readonly id: number
  /** Undefined: not yet. Throws Refusal. */
  readonly look: () => unknown
  readonly over?: () => void
}

interface Seen {
  readonly version: Version
  readonly desk: Desk
  /** Something was put in its place. */
  placed: boolean
}

export class Views {
  readonly #context: ArenaContext
  readonly #local: LocalChanges
  readonly #events: ViewEvents
  readonly #desks = new Set<Desk>()
  readonly #waiting = new Set<Waiting>()
  readonly #seen = new Map<EntryPath, Seen>()
  /** How many questions want a file real. */
  readonly #wanted = new Map<EntryPath, number>()
  readonly #leaving = new Set<EntryPath>()
  /** Deleted, and not yet written down; with what was deleted. */
  readonly #gone = new Map<EntryPath, Version>()
  /** When the first of them was. */
  #goneMs = 0

  constructor(context: ArenaContext, local: LocalChanges, events: ViewEvents) {
    this.#context = context
    this.#local = local
    this.#events = events
  }

  /** A view shows this arena from now on. What is in the buffers of `say` is handed over. */
  open(say: Desk['say']): ViewDesk {
    const desk: Desk = {
      say,
      asked: new Map(),
      seen: new Set(),
      files: new Map(),
      contents: new Map(),
      moving: new Map(),
    }
    this.#desks.add(desk)
    this.#context.store.watch(entries => this.#stored(entries))
    return { receive: message => this.#receive(desk, message), close: () => this.#close(desk) }
  }

  /**
   * Whether somebody has this file open through a view: then its content stays. It would come back as another file, and who has had it open
   * all the time would not see what is written to that.
   *
   * @param ino its inode number
   */
  isOpen(ino: bigint): boolean {
    for (const desk of this.#desks) if (desk.files.has(ino)) return true
    return false
  }

  /** Whether somebody reads this content through a view. */
  isRead(hash: BlobHash): boolean {
    for (const desk of this.#desks) if (desk.contents.has(hash)) return true
    return false
  }

  /**
   * Whether this folder, or one above, is just being renamed through a view: what left the disk now would not come along, and what is missing
   * there is not deleted.
   */
  isMoving(path: EntryPath): boolean {
    for (const desk of this.#desks)
      for (const folder of desk.moving.keys()) if (path === folder || isBelow(path, folder)) return true
    return false
  }

  /**
   * A file's content is about to be given up: views know of the unreal file before the disk shows nothing, and never see neither. Until
   * `left`, when that is done or has not come to be.
   */
  leaving(paths: readonly EntryPath[]): void {
    if (this.#desks.size === 0) return
    for (const path of paths) this.#leaving.add(path)
    for (const path of paths) this.#tellOf(path)
  }

  left(paths: readonly EntryPath[]): void {
    for (const path of paths) if (this.#leaving.delete(path)) this.#tellOf(path)
  }

  /** What the user saw at a path when putting something in its place; null: nothing. */
  seen(path: EntryPath): Version | null {
    return this.#seen.get(path)?.version ?? this.#gone.get(path) ?? null
  }

  /** Whether a user's change of an unreal file below a path is about to be written down. */
  isChangingBelow(path: EntryPath): boolean {
    for (const changing of [this.#seen, this.#gone])
      for (const at of changing.keys()) if (isBelow(at, path)) return true
    return false
  }

  /** Other paths are ignored now, or wanted real: what is shown may be anything. */
  everythingChanged(): void {
    for (const desk of this.#desks) desk.say({ type: 'changed', changes: null })
  }

  /** Looks at what waits: run after everything that may have changed something. */
  step(): void {
    for (const waiting of this.#waiting) {
      try {
        const result = waiting.look()
        if (result === undefined) continue
        this.#answered(waiting)
        waiting.desk.say({ type: 'answer', id: waiting.id, result })
      } catch (error) {
        this.#answered(waiting)
        this.#refuse(waiting.desk, waiting.id, error)
      }
    }
  }

  #answered(waiting: Waiting): void {
    this.#waiting.delete(waiting)
    waiting.desk.asked.delete(waiting.id)
    waiting.over?.()
  }

  #close(desk: Desk): void {
    if (!this.#desks.delete(desk)) return
    this.flush()
    for (const giveUp of [...desk.asked.values()]) giveUp()
    for (const content of desk.contents.values()) content.saved?.()
    // What was put in place is a user's change all the same.
    for (const path of desk.seen) if (this.#seen.get(path)?.placed === false) this.#forgetSeen(path)
    if (this.#desks.size === 0) this.#context.store.watch(null)
  }

  #receive(desk: Desk, message: FromView): void {
    switch (message.type) {
      case 'abandon':
        desk.asked.get(message.id)?.()
        return
      case 'unseen':
        if (this.#seen.get(message.path)?.desk === desk) this.#forgetSeen(message.path)
        return
      case 'moving':
        return add(desk.moving, message.folder, 1)
      case 'moved':
        return add(desk.moving, message.folder, -1)
      case 'touched':
        return this.#touched(message.paths)
      case 'opened':
        noteOpen(desk, message.is, 1)
        return this.#lookForWhatGoes(GOES_MS)
      case 'closed':
        return noteOpen(desk, message.is, -1)
      default:
        try {
          if (!UNMOVED.has(message.type)) this.flush()
          const result = this.#answer(desk, message.id, message)
          if (result !== undefined) desk.say({ type: 'answer', id: message.id, result })
        } catch (error) {
          this.#refuse(desk, message.id, error)
        }
    }
  }

  /** Throws what is a defect. */
  #refuse(desk: Desk, id: number, error: unknown): void {
    if (!(error instanceof Refusal || error instanceof DiskError)) throw error
    desk.say({ type: 'failed', id, code: error.code, message: error.message })
  }

  /** Undefined: answered later. */
  #answer(desk: Desk, id: number, question: ViewQuestion): unknown {
    switch (question.type) {
      case 'list':
        return this.#list(question.folder, question.after)
      case 'look':
        return this.#unrealAt(question.path)
      case 'below':
        return this.#whenPlaced(desk, id, [], () =>
          this.#events.leavingBelow(question.folder) ? undefined : this.#below(question.folder),
        )
      case 'read':
        return this.#read(desk, id, question)
      case 'cached':
        return this.#cached(question)
      case 'make_real':
        return this.#makeReal(desk, id, question.path)
      case 'seen':
        return this.#whenPlaced(desk, id, [question.path], () => this.#noteSeen(desk, question.path, question.hash))
      case 'placed':
        return this.#placed(desk, question.path)
      case 'remove':
        return this.#whenPlaced(desk, id, [question.path], () => this.#remove(question.path, question.hash))
      case 'rename':
        return this.#whenPlaced(desk, id, [question.path, question.to], sinceMs =>
          this.#rename(question.path, question.hash, question.to, sinceMs),
        )
      case 'rename_below':
        return this.#moveBelow(desk, id, question.folder, question.to)
      case 'retouch':
        return this.#whenPlaced(desk, id, [question.path], () => this.#retouch(question))
      case 'facts':
        return this.#facts(desk, id, question.path)
      case 'mark':
        return this.#mark(question.path, question.mark)
      default:
        return question satisfies never
    }
  }

  #wait(desk: Desk, id: number, look: () => unknown, over?: () => void): undefined {
    if (this.#waiting.size >= WAITING_MAX) throw new Refusal('EBUSY', 'too much waits')
    const waiting: Waiting = { desk, id, look, ...(over && { over }) }
    this.#waiting.add(waiting)
    desk.asked.set(id, () => this.#answered(waiting))
    return undefined
  }

  // What there is

  /** Nothing in the whole arena can be unreal. */
  get #none(): boolean {
    return this.#seen.size === 0 && this.#context.marks.allReal && this.#context.store.state().totals.pending === 0
  }

  #unrealAt(path: EntryPath): UnrealFile | null {
    const entry = this.#none ? undefined : this.#context.store.entry(path)
    return entry ? this.#unreal(entry) : null
  }

  /** A file that is known, of which the disk shows nothing, and in whose place nothing was put. */
  #unreal(entry: Entry): UnrealFile | null {
    const { known, path } = entry
    const { content } = known
    if (content.type !== 'file' || !(isUnshown(entry) || this.#leaving.has(path))) return null
    // Until something is in its place it is there: at no moment neither is.
    if (this.#seen.get(path)?.placed || this.#gone.has(path) || this.#local.rules.ignores(path, false)) return null
    const { size, mtimeNs, exec, hash } = content
    return { size, mtimeNs, exec, hash }
  }

  #list(folder: EntryPath | '', after: string | null): UnrealNames {
    const files: UnrealNames['files'] = []
    if (this.#none) return { files, next: null }
    let looked = 0
    for (const { name, entry } of childrenOf(this.#context.store, folder === '' ? undefined : folder, after)) {
      const file = entry === null ? null : this.#unreal(entry)
      if (file !== null) files.push([name, file])
      if (files.length >= LIST_NAMES_MAX || ++looked >= LIST_LOOKED_MAX) return { files, next: name }
    }
    return { files, next: null }
  }

  #below(folder: EntryPath): ViewAnswers['below'] {
    if (this.#none) return 'none'
    let files = 0
    for (let after: EntryPath | null = null; ; ) {
      const page: Entry[] = this.#context.store.page(after, 1000, folder)
      for (const entry of page) if (this.#unreal(entry) !== null) files++
      // While nothing is looked at the new folder does not become known.
      if (files > MOVED_MAX || (files > 0 && !this.#events.working())) return 'fixed'
      if (page.length < 1000) return files > 0 ? 'movable' : 'none'
      after = (page.at(-1) as Entry).path
    }
  }

  #mark(path: EntryPath, mark: Mark | 'clear'): null {
    try {
      this.#events.mark(path, mark)
      return null
    } catch (error) {
      if (!(error instanceof SyncError)) throw error
      throw new Refusal(error.code === 'limit_exceeded' ? 'ENOSPC' : 'EPERM', error.message)
    }
  }

  #facts(desk: Desk, id: number, path: EntryPath): PathFacts | undefined {
    const entry = this.#context.store.entry(path)
    if (!entry || !(living(entry.known) || living(entry.have))) throw new Refusal('ENODATA', 'nothing is known of it')
    const { known, have } = entry
    const { content } = known
    const problem = this.#context.problems.get(path)?.reason
    const status =
      problem ?? (have === known ? 'real' : this.#unreal(entry) === null ? 'on its way' : this.#unrealStatus(content))
    const facts: PathFacts = { mark: this.#context.marks.of(path), status, version: versionTag(known), peers: [] }
    if (content.type !== 'file') return facts
    let over = false
    desk.asked.set(id, () => {
      over = true
      desk.asked.delete(id)
    })
    this.#events.holders(content.hash, peers => {
      if (over) return
      desk.asked.delete(id)
      desk.say({ type: 'answer', id, result: { ...facts, peers } satisfies PathFacts })
    })
    return undefined
  }

  #unrealStatus(content: Content): string {
    if (content.type !== 'file') return 'unreal'
    const cached = this.#context.cache.bytesOf(content)
    return cached >= content.size ? 'cached' : cached > 0 ? 'partly cached' : 'unreal'
  }

  // What has changed

  #stored(entries: readonly Entry[]): void {
    const changes: ViewChange[] = []
    // Before anything else becomes of them.
    if (this.#gone.size > 0 && entries.some(entry => this.#gone.has(entry.path))) this.flush()
    for (const entry of entries) {
      // What was put in place is known as what it is.
      if ((living(entry.have) || !living(entry.known)) && this.#seen.has(entry.path)) this.#forgetSeen(entry.path)
      changes.push({ path: entry.path, unreal: this.#unreal(entry) })
    }
    for (const desk of this.#desks) desk.say({ type: 'changed', changes })
    this.#lookForWhatGoes(GOES_MS)
  }

  /** A moment later: what is renamed is known under its new name by then. */
  #lookForWhatGoes(waitMs: number): void {
    const { timers, clock } = this.#context
    if (![...this.#desks].some(({ contents }) => contents.size > 0)) return
    timers.soon('read contents', clock.nowMs() + waitMs, () => {
      for (const desk of this.#desks) this.#saveWhatGoes(desk)
    })
  }

  /** What is read, and is known nowhere any more, peers have for a little while yet: it is fetched wholly, as a deleted file is there while it is open. */
  #saveWhatGoes({ contents }: Desk): void {
    const { store } = this.#context
    if (contents.size > SAVED_LOOKS_MAX) return
    for (const [hash, content] of contents) {
      const at = store.entry(content.path)?.known.content
      const known =
        (at?.type === 'file' && at.hash === hash) ||
        store.withHash(hash, 1).length > 0 ||
        store.unrealWithHash(hash, 1).length > 0 ||
        this.#events.awaited(hash)
      if (known) {
        content.saved?.()
        content.saved = null
      } else
        content.saved ??= this.#events.save({ hash, size: content.size }, () => {
          content.saved = null
          this.#lookForWhatGoes(SAVED_AGAIN_MS)
        })
    }
  }

  #tellOf(path: EntryPath): void {
    const entry = this.#context.store.entry(path)
    if (entry) this.#stored([entry])
  }

  // Content

  /** Where all of a content is in the cache: it is read there then, without a word to us. */
  #cached({ path, hash, size }: Extract<ViewQuestion, { type: 'cached' }>): ViewAnswers['cached'] {
    const file = this.#context.cache.whole({ hash, size })
    if (file !== null) this.#events.begun(path, { hash, size })
    return file
  }

  #read(desk: Desk, id: number, question: Extract<ViewQuestion, { type: 'read' }>): undefined {
    const { path, hash, size, offset, length } = question
    let over = false
    const giveUp = this.#events.read({ hash, size }, offset, length, answer => {
      if (over) return
      over = true
      desk.asked.delete(id)
      if ('failure' in answer) {
        const { code, message } = answer.failure
        return desk.say({ type: 'failed', id, code: READ_ERRNO[code] ?? 'EIO', message })
      }
      if ('cached' in answer) return desk.say({ type: 'answer', id, result: answer.cached })
      const { bytes } = answer
      const own = bytes.byteLength === bytes.buffer.byteLength ? bytes : Uint8Array.from(bytes)
      desk.say({ type: 'answer', id, result: own }, [own.buffer as ArrayBuffer])
    })
    if (!over)
      desk.asked.set(id, () => {
        over = true
        desk.asked.delete(id)
        giveUp()
      })
    if (offset === 0) this.#events.begun(path, { hash, size })
    return undefined
  }

  /** Of those who wait for a file to become real, for names of alarms. */
  #alarm = 0

  #makeReal(desk: Desk, id: number, path: EntryPath): null | undefined {
    const { store, timers, clock } = this.#context
    const sinceMs = clock.nowMs()
    const alarm = `real:${++this.#alarm}`
    const look = () => {
      const entry = store.entry(path)
      if (!entry || this.#unreal(entry) === null) return null
      // Its content may have been given up since.
      if (this.#wanted.has(path) && isUnshown(entry) && !entry.pending) this.#events.want(path, true)
      const hindrance = this.#events.hindrance(entry, sinceMs)
      if (hindrance !== null) throw new Refusal(hindrance.code, `'${path}': ${hindrance.reason}`)
      return undefined
    }
    const entry = store.entry(path)
    if (!entry || this.#unreal(entry) === null) return null
    const waiting = this.#wait(desk, id, look, () => {
      add(this.#wanted, path, -1)
      timers.clear(alarm)
      if (!this.#wanted.has(path)) this.#events.want(path, false)
    })
    add(this.#wanted, path, 1)
    timers.set(alarm, sinceMs + HINDERED_MS, () => {})
    // What hindered it before is tried again.
    this.#events.want(path, true)
    return waiting
  }

  // A user's changes

  #noteSeen(desk: Desk, path: EntryPath, hash: BlobHash): null {
    const entry = this.#expected(path, hash)
    if (this.#seen.size >= SEEN_MAX) throw new Refusal('EBUSY', 'too many files are being replaced')
    this.#seen.set(path, { version: entry.known, desk, placed: false })
    desk.seen.add(path)
    return null
  }

  #forgetSeen(path: EntryPath): void {
    this.#seen.get(path)?.desk.seen.delete(path)
    this.#seen.delete(path)
  }

  #touched(paths: readonly EntryPath[]): void {
    this.flush()
    this.#local.touched(paths)
    for (const path of paths) if (this.#seen.get(path)?.placed) this.#lookLater(path)
  }

  #placed(desk: Desk, path: EntryPath): null {
    this.#local.touched([path])
    const seen = this.#seen.get(path)
    if (seen?.desk !== desk || seen.placed) return null
    seen.placed = true
    this.#tellOf(path)
    this.#lookLater(path)
    return null
  }

  #lookLater(path: EntryPath): void {
    const { timers, clock } = this.#context
    timers.set(`replaced:${path}`, clock.nowMs() + MISSING_MS, () => this.#lookForReplaced(path))
  }

  /** What was put in the place of an unreal file and is gone before it was looked at was deleted, and so is what it replaced. */
  #lookForReplaced(path: EntryPath): void {
    const { disk, store } = this.#context
    const seen = this.#seen.get(path)
    if (!seen?.placed) return
    const entry = store.entry(path)
    if (disk.stat(path) !== null || this.#local.unsettled(path) || this.#events.placing(path)) {
      this.#lookLater(path)
      return
    }
    this.#forgetSeen(path)
    if (entry && !living(entry.have))
      this.#transact([path], writer => [this.#deleted(writer, this.#takeOut(writer, entry, seen.version), path)])
  }

  /** Does something as soon as no step of ours is under way at these paths, and nobody is about to put something there. */
  #whenPlaced(desk: Desk, id: number, paths: readonly EntryPath[], action: (sinceMs: number) => unknown): unknown {
    const sinceMs = this.#context.clock.nowMs()
    const busy = (path: EntryPath) => this.#events.placing(path) || this.#seen.get(path)?.placed === false
    const look = () => (paths.some(busy) ? undefined : action(sinceMs))
    const result = look()
    return result === undefined ? this.#wait(desk, id, look) : result
  }

  /** Throws ESTALE if the file at a path is not the one that the view knows. */
  #expected(path: EntryPath, hash: BlobHash): Entry & { known: { content: FileContent } } {
    const entry = this.#context.store.entry(path)
    const file = entry ? this.#unreal(entry) : null
    if (file?.hash !== hash || file === null) throw new Refusal('ESTALE', `'${path}' is another file by now`)
    return entry as Entry & { known: { content: FileContent } }
  }

  /** Programs delete one file after the other: that is written down together, a moment later, as on a disk. */
  #remove(path: EntryPath, hash: BlobHash): null {
    const { timers, clock } = this.#context
    const version = this.#expected(path, hash).known
    if (this.#gone.size === 0) this.#goneMs = clock.nowMs()
    this.#gone.set(path, version)
    const atMs = Math.min(clock.nowMs() + GONE_MS, this.#goneMs + GONE_MS_MAX)
    if (this.#gone.size >= GONE_MAX) this.flush()
    else timers.set('view deletions', atMs, () => this.flush())
    for (const desk of this.#desks) desk.say({ type: 'changed', changes: [{ path, unreal: null }] })
    return null
  }

  /** Writes down what was deleted. */
  flush(): void {
    const { store } = this.#context
    if (this.#gone.size === 0) return
    const gone = [...this.#gone]
    this.#gone.clear()
    const deleted = gone.flatMap(([path, version]) => {
      const entry = store.entry(path)
      // Something is on the disk there by now: it was based on what was deleted.
      return entry && !living(entry.have) ? [{ entry, version }] : []
    })
    if (deleted.length === 0) return
    this.#transact(
      deleted.map(({ entry }) => entry.path),
      writer =>
        deleted.map(({ entry, version }) => this.#deleted(writer, this.#takeOut(writer, entry, version), entry.path)),
    )
  }

  /** @param sinceMs when it was asked */
  #rename(path: EntryPath, hash: BlobHash, to: EntryPath, sinceMs: number): null | undefined {
    const { store, disk } = this.#context
    const entry = this.#expected(path, hash)
    const there = store.entry(to)
    const replaced = there && this.#unreal(there) !== null ? there : null
    const needsContent =
      isIgnoreFile(path) ||
      isIgnoreFile(to) ||
      this.#local.rules.ignores(to, false) ||
      this.#seen.has(to) ||
      (living(there?.known) && replaced === null) ||
      disk.stat(to) !== null
    if (needsContent) throw new Refusal('EXDEV', `'${to}' needs the file itself`)
    if (!this.#folderKnown(parentOf(to), sinceMs)) return undefined
    this.#transact([path, to], writer => [this.#renamed(writer, entry, there, to)])
    return null
  }

  #moveBelow(desk: Desk, id: number, folder: EntryPath, to: EntryPath): unknown {
    const sinceMs = this.#context.clock.nowMs()
    const look = () => this.#renameBelow(folder, to, sinceMs)
    const result = look()
    if (result !== undefined) return result
    const waiting = this.#wait(desk, id, look, () => add(desk.moving, folder, -1))
    add(desk.moving, folder, 1)
    return waiting
  }

  /** One batch of what is to follow a folder that was renamed; undefined: there is more. What cannot stays where it is. */
  #renameBelow(folder: EntryPath, to: EntryPath, sinceMs: number): null | undefined {
    const { store, timers, clock } = this.#context
    const left: { path: EntryPath; to: EntryPath; reason: string }[] = []
    const moves: [Entry & { known: { content: FileContent } }, EntryPath][] = []
    let more = false
    for (let after: EntryPath | null = null; !more || after === null; ) {
      const page: Entry[] = store.page(after, MOVED_BATCH, folder)
      for (const entry of page) {
        if (this.#unreal(entry) === null) continue
        const path = `${to}${entry.path.slice(folder.length)}` as EntryPath
        const may = this.#mayFollow(entry.path, path, sinceMs)
        if (may === 'later' || (may === 'now' && moves.length >= MOVED_BATCH)) more = true
        else if (may === 'now') moves.push([entry as (typeof moves)[number][0], path])
        else left.push({ path: entry.path, to: path, reason: may.not })
      }
      if (page.length < MOVED_BATCH) break
      after = (page.at(-1) as Entry).path
    }
    if (moves.length > 0)
      this.#transact(
        moves.flat().map(one => (typeof one === 'string' ? one : one.path)),
        writer => moves.map(([entry, path]) => this.#renamed(writer, entry, store.entry(path), path)),
      )
    if (!more) {
      for (const one of left.slice(0, LEFT_LOGGED))
        log(this.#context, 'unreal_left_behind', { ...one, of: left.length })
      return null
    }
    timers.set('view folders', clock.nowMs() + FOLLOW_MS, () => {})
    return undefined
  }

  /** Whether an unreal file can follow its folder to a path, or why it cannot. */
  #mayFollow(from: EntryPath, to: EntryPath, sinceMs: number): 'now' | 'later' | { not: string } {
    const { store, disk, clock } = this.#context
    const fault = pathFault(to)
    if (fault !== undefined) return { not: fault }
    if (isIgnoreFile(from) || this.#local.rules.ignores(to, false))
      return { not: 'it needs its content, or is ignored there' }
    if (disk.stat(to) !== null) return { not: 'something else has its name there' }
    const there = store.entry(to)
    if (living(there?.known)) {
      if (!living(there?.have)) return { not: 'another file has its name there' }
      // What the disk showed there was moved away just now, and that is looked at first.
      if (this.#awaits(to, sinceMs)) return 'later'
      if (clock.nowMs() - sinceMs > FOLDER_MS) return { not: 'what had its name there is not known to be gone' }
      this.#local.lookAgain(to)
      return 'later'
    }
    // Who was about to put something in its place finds the folder gone.
    if (this.#seen.has(from) || this.#events.placing(from) || this.#events.placing(to)) return 'later'
    try {
      return this.#folderKnown(parentOf(to), sinceMs) ? 'now' : 'later'
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      return { not: error.message }
    }
  }

  /** The new name goes out before the end of the old one: others then move what they have. */
  #renamed(
    writer: Writer,
    entry: Entry & { known: { content: FileContent } },
    there: Entry | undefined,
    to: EntryPath,
  ): HistoryEvent {
    const { content } = entry.known
    const base = there && this.#unreal(there) !== null ? there.known : (there?.have ?? null)
    const named = this.#put(writer, there, to, content, base)
    this.#takeOut(writer, entry, entry.known)
    const more = { other: entry.path, size: content.size }
    return writer.addHistory(historyOf(this.#context, 'renamed', to, named, more))
  }

  /** Whether a folder is known to be one; false: it was just made, and is being looked at. Throws ENOENT if there is none. */
  #folderKnown(folder: EntryPath | undefined, sinceMs: number): boolean {
    const { store, disk, timers, clock } = this.#context
    if (folder === undefined) return true
    const entry = store.entry(folder)
    // Also one that only holds something, which no version speaks of (R4).
    if (entry?.have?.content.type === 'dir' || entry?.dormant) return true
    if (disk.stat(folder)?.type !== 'dir') throw new Refusal('ENOENT', `there is no folder '${folder}'`)
    if (this.#local.rules.ignores(folder, true)) throw new Refusal('EXDEV', `the folder '${folder}' is ignored`)
    timers.set('view folders', clock.nowMs() + FOLDER_MS, () => {})
    // While the arena is at it this takes as long as it takes: it may be one of very many files.
    if (this.#awaits(folder, sinceMs)) return false
    if (clock.nowMs() - sinceMs > FOLDER_MS) throw new Refusal('EXDEV', `the folder '${folder}' is not known`)
    this.#local.lookAgain(folder)
    return false
  }

  /** Whether the arena is about to look at a path, for which somebody has waited since then. */
  #awaits(path: EntryPath, sinceMs: number): boolean {
    const { clock } = this.#context
    return this.#events.working() && clock.nowMs() - sinceMs <= LOOKED_AT_MS && this.#local.unsettled(path)
  }

  #retouch({ path, hash, mtimeNs, exec }: Extract<ViewQuestion, { type: 'retouch' }>): null {
    const entry = this.#expected(path, hash)
    const { content } = entry.known
    const touched = { ...content, mtimeNs: mtimeNs ?? content.mtimeNs, exec: exec ?? content.exec }
    this.#transact([path], writer => {
      const version = this.#put(writer, entry, path, touched, entry.known)
      return [writer.addHistory(historyOf(this.#context, 'edited', path, version, { size: content.size }))]
    })
    return null
  }

  #transact(paths: readonly EntryPath[], change: (writer: Writer) => HistoryEvent[]): void {
    let events: HistoryEvent[] = []
    this.#context.store.transact(writer => {
      events = change(writer)
    })
    count(this.#context, { local_changes: events.length })
    tell(this.#context, events)
    this.#events.changed(paths)
    this.#events.announced()
  }

  /** A file is known at a path from now on, of which the disk shows nothing. */
  #put(writer: Writer, entry: Entry | undefined, path: EntryPath, content: FileContent, base: Version | null): Version {
    const { known } = this.#met(writer, entry, content, base)
    // Others need not wait for us to have it.
    const pending = this.#context.marks.wantsReal(path)
    const nothing = { stamp: null, dormant: false, origin: null, former: null }
    writer.putEntry({ path, seq: 0, known, have: null, pending, announced: pending, ...nothing }, true)
    return known
  }

  /** Nothing is at a path from now on: a deletion of what the user saw. */
  #takeOut(writer: Writer, entry: Entry, base: Version): Version {
    const { path } = entry
    const deleted = base.content.type === 'file' ? base.content.hash : null
    const { known, made } = this.#met(writer, entry, { type: 'gone', deleted }, base)
    const pending = known !== made
    const nothing = { stamp: null, dormant: false, origin: null, former: null }
    writer.putEntry({ path, seq: 0, known, have: made, pending, announced: false, ...nothing }, !pending)
    return made
  }

  #deleted(writer: Writer, version: Version, path: EntryPath): HistoryEvent {
    return writer.addHistory(historyOf(this.#context, 'deleted', path, version))
  }

  /** The version of a user's change, and what is known once it has met what was known. */
  #met(
    writer: Writer,
    entry: Entry | undefined,
    content: Content,
    base: Version | null,
  ): { known: Version; made: Version } {
    const { rules } = this.#context
    const made = ownVersion(this.#context, writer, { content, base, known: entry?.known ?? null })
    const { known } = rules.meet(entry?.known ?? null, made)
    return { known, made }
  }
}

function noteOpen(desk: Desk, is: OpenedByView, change: 1 | -1): void {
  if ('file' in is) add(desk.files, is.file, change)
  else {
    const { content: hash, size, path } = is
    const content = desk.contents.get(hash) ?? { size, path, times: 0, saved: null }
    content.times += change
    if (content.times > 0) desk.contents.set(hash, content)
    else if (desk.contents.delete(hash)) content.saved?.()
  }
}

function add<Key>(counts: Map<Key, number>, key: Key, change: 1 | -1): void {
  const next = (counts.get(key) ?? 0) + change
  if (next > 0) counts.set(key, next)
  else counts.delete(key)
}
