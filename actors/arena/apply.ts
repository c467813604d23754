/**
 * Makes the disk show what is known. Content is staged and durable before it is put in place; what each step is about to do
 * is written down before it is done (R3); what the disk shows is checked at the last moment, and if it is not what the
 * entry says, it is a user's change and goes back to be looked at. Steps go in batches: one sync, two transactions.
 */
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import { ancestorsOf, joinPath, parentOf } from '../../protocol/path.ts'
import { hashSmall } from '../hasher/merkle.ts'
import { conflictPath } from './conflict-name.ts'
import { type ArenaContext, count, log } from './context.ts'
import { DiskError, type DiskStat } from './disk.ts'
import { BIG_SLOT, diskReason, Fetcher } from './fetch.ts'
import { FolderMoves } from './folder-move.ts'
import type { LocalChanges } from './local.ts'
import { compareTree } from './order.ts'
import { ownVersion } from './own-version.ts'
import { isUnshown, needsCopy, workFor } from './plan.ts'
import { standIn } from './power-loss.ts'
import { listForgotten, rescueStaged } from './rescue.ts'
import { Steps, statOf } from './steps.ts'
import type { Entry, Intent, Stamp } from './store.ts'
import { type FileContent, includes, living, mtimeOf, sameContent, sameVersion, type Version } from './version.ts'
import type { VersionStore } from './versions.ts'

/** Entries in the works at once, and content staged for one batch. */
const ACTIVE_MAX = 4096
/** The same, with those whose content nobody gives now: they must not keep others out, nor grow without end. */
const WAITING_MAX = 8 * ACTIVE_MAX
const BATCH_MAX = 1000
const BATCH_BYTES = 48 * 1024 * 1024
/** A batch waits so long for more while more is on its way: each costs a sync and two transactions. */
const GATHER_MS = 100
/** What could not be done is tried again after this long, doubling. */
const RETRY_FIRST_MS = 500
const RETRY_MAX_MS = 60_000
/** A file that a folder keeps out waits so long for the peer that shows it, or for the end of what lives below. */
const DISPLACED_MS = 5_000
/** The same where the file's content is not here: whoever shows it may ignore what lives below, and so never make room. */
const DISPLACED_ELSEWHERE_MS = 30_000
/** Content that no peer has is given up after this long, by who made it. */
const LOST_MS = 10_000
/** Stands for whatever is in a folder. */
const ANY_NAME = '-'
/** Other names of one content that are seen to when it leaves a path. */
const RESCUED_MAX = 8
/** Pending entries looked at in one step. */
const PLAN_STEP = 512
const PLAN_PAGE = 256

/**
 * Why a pending entry does not come. `content`: nobody gives it now. `place`: something else is where it is to be. `disk`: what this disk
 * said, an errno name.
 */
export type Hindrance = { readonly is: 'content' | 'place' } | { readonly is: 'disk'; readonly code: string }

/** One entry in the works. */
interface Task {
  readonly path: EntryPath
  readonly known: Version
  /** Staged content, and its inode; null: none needed. */
  slot: string | null
  ino: bigint
  /** The path whose file becomes this one. */
  from: EntryPath | null
  bytes: number
  /** It is not wanted real, and comes so that it is not lost. */
  rescued: boolean
}

export interface ApplyEvents {
  /** Does what a call of the disk led to: an error of the root itself stops the arena. */
  border(work: () => void): void
  announced(): void
  changed(): void
  /** The disk shows these now. */
  shown(paths: readonly EntryPath[]): void
  /** Asks all peers whether they have this content, and calls back if each of them says that it does not. */
  nowhere(hash: BlobHash, then: () => void): void
  /** Rules may have come with what was applied, or gone with it. */
  rulesApplied(path: EntryPath): void
}

export class Applier {
  readonly #context: ArenaContext
  readonly #fetch: Fetcher
  readonly #local: LocalChanges
  readonly #versions: VersionStore
  readonly #events: ApplyEvents
  readonly #folders: FolderMoves
  readonly #steps: Steps
  /** Waiting for content. */
  readonly #fetching = new Map<EntryPath, Task>()
  /** Those of them whose content nobody gives now. */
  readonly #stalled = new Set<EntryPath>()
  /** To be announced without their content. */
  readonly #passingOn = new Set<EntryPath>()
  /** Ready for the next batch. */
  #ready = new Map<EntryPath, Task>()
  #readyBytes = 0
  #readySinceMs = 0
  /** In the batch that is being synced. */
  #syncing: Task[] | null = null
  #syncingPaths: Set<EntryPath> | null = null
  /** Deletions of this pass: after all that may use what is deleted. */
  #removals: Task[] = []
  /** Files that a ready task will move. */
  readonly #moving = new Set<EntryPath>()
  /** Big blobs that lie complete in a slot. */
  readonly #placing = new Set<BlobHash>()
  #cursor: EntryPath | null = null
  #passing = false
  /** Files that wait because something lives below their path, and since when. */
  readonly #displacedSince = new Map<EntryPath, number>()
  /** Paths that were given a problem here, and why. */
  readonly #hindered = new Map<EntryPath, Hindrance>()
  #dirty = true
  #retries = 0
  #active = true
  #caughtUp: () => boolean = () => true
  /** Whether the content at a path is on its way out: others see to that step (give-up.ts). */
  givingUp: (path: EntryPath) => boolean = () => false
  #moreToCome: () => boolean = () => false
  #everybodyHeard: () => boolean = () => false
  /** Versions made here whose content no peer has, and since when that is known. */
  readonly #lostSince = new Map<EntryPath, number>()

  constructor(context: ArenaContext, fetch: Fetcher, local: LocalChanges, versions: VersionStore, events: ApplyEvents) {
    this.#context = context
    this.#fetch = fetch
    this.#local = local
    this.#versions = versions
    this.#events = events
    this.#steps = new Steps(context, local, versions, {
      ...events,
      active: () => this.#active,
      inTheWay: (path, reason) => this.#problem(path, reason, IN_PLACE),
      unlessDiskFails: (path, work) => this.#unlessDiskFails(path, work),
      discard: (path, slot) => this.#discard(path, slot),
      givingUp: path => this.givingUp(path),
      holdsUnreal: folder => this.#holdsUnreal(folder),
      holdBelow: folder => this.#holdBelow(folder),
      movedFolder: (writer, intent, happened) => this.#folders.conclude(writer, intent, happened),
      again: () => this.again(),
    })
    this.#folders = new FolderMoves(context, local, {
      inWorks: path => this.#inWorks(path) || this.#moving.has(path),
      moreToCome: () => this.#moreToCome(),
      done: intent => {
        this.#steps.conclude([intent])
        this.wakeDormant([intent.source as EntryPath])
      },
      brokenOff: (error, path) => {
        this.#diskProblem(path, error)
        this.#steps.settleAgain()
      },
      again: () => this.again(),
    })
  }

  set caughtUp(test: () => boolean) {
    this.#caughtUp = test
  }

  /** Whether a peer has more to say than was heard, or may have soon. */
  set moreToCome(test: () => boolean) {
    this.#moreToCome = test
  }

  /** Whether every peer of the arena is here and has said all that it has. */
  set everybodyHeard(test: () => boolean) {
    this.#everybodyHeard = test
  }

  /** Something became pending, or what hindered may be gone: go through what is pending once more. */
  again(): void {
    this.#dirty = true
  }

  /** While stopped nothing is changed on the disk. */
  set active(active: boolean) {
    this.#active = active
    if (active) this.again()
  }

  get busy(): boolean {
    if (!this.#active) return false
    return (
      ((this.#dirty || this.#passing) && this.#room) ||
      (this.#syncing === null && this.#removals.length > 0 && !this.#passing) ||
      this.#passingOn.size > 0 ||
      this.#batchDue
    )
  }

  get idle(): boolean {
    return !this.busy && this.#ready.size === 0 && this.#syncing === null && this.#fetching.size === 0
  }

  get #room(): boolean {
    const active = this.#fetching.size - this.#stalled.size + this.#ready.size
    return active < ACTIVE_MAX && this.#readyBytes < 2 * BATCH_BYTES
  }

  get #batchDue(): boolean {
    if (this.#ready.size === 0 || this.#syncing !== null) return false
    const full = this.#ready.size >= BATCH_MAX || this.#readyBytes >= BATCH_BYTES
    const waited = this.#context.clock.nowMs() - this.#readySinceMs >= GATHER_MS
    return full || waited || (!this.#fetch.flowing && !this.#passing && !this.#dirty)
  }

  step(): void {
    if (!this.#active) return
    this.#plan()
    if (this.#batchDue) this.#beginBatch()
    if (!this.#passing && this.#removals.length > 0 && this.#syncing === null) this.#remove()
    this.#leaveNow()
    this.#passOnNow()
  }

  // Planning

  #plan(): void {
    const { store } = this.#context
    if (!this.#passing) {
      if (!this.#dirty) return
      this.#dirty = false
      if (this.#steps.unsettled) this.#steps.settleAgain()
      for (const slot of this.#litter) this.#unstage(slot)
      this.#passing = true
      this.#cursor = null
      this.#removals = []
    }
    this.#letStalledGo()
    pages: for (let looked = 0; looked < PLAN_STEP && this.#room; ) {
      const page = store.pendingPage(this.#cursor, PLAN_PAGE)
      for (const path of page) {
        this.#cursor = path
        const beyond = this.#folders.beyond(path)
        if (beyond !== null && compareTree(path, beyond) < 0) {
          this.#cursor = beyond
          continue pages
        }
        if (beyond !== null || this.#inWorks(path)) continue
        looked++
        const entry = store.entry(path)
        if (entry?.pending) this.#unlessDiskFails(path, () => this.#consider(entry))
      }
      if (page.length < PLAN_PAGE) {
        this.#passing = false
        this.#leaveNow()
        this.#retryLater()
        return
      }
    }
  }

  /** Those that have stalled for longest come again in the next pass. */
  #letStalledGo(): void {
    for (const path of this.#stalled) {
      if (this.#fetching.size < WAITING_MAX) return
      const task = this.#fetching.get(path)
      if (task) this.#cancel(task)
    }
  }

  #unfetch(path: EntryPath): boolean {
    this.#stalled.delete(path)
    return this.#fetching.delete(path)
  }

  #inWorks(path: EntryPath): boolean {
    return this.#fetching.has(path) || this.#ready.has(path) || (this.#syncingPaths?.has(path) ?? false)
  }

  /** Something else became known of these. */
  known(paths: readonly EntryPath[]): void {
    this.changed(paths)
    this.#folders.learnt()
    // What was to come into a folder that stands for it alone may be deleted before it came.
    this.wakeDormant(paths.filter(path => this.#context.store.entry(path)?.pending === false))
    this.again()
  }

  /** What was on its way to these and is not wanted any more is given up. */
  changed(paths: readonly EntryPath[]): void {
    const { store } = this.#context
    for (const path of paths) {
      if (this.#holdsUnreal(path)) this.#holdAgain(path)
      const task = this.#fetching.get(path) ?? this.#ready.get(path)
      if (!task) continue
      const entry = store.entry(path)
      const wanted = entry?.pending && sameContent(task.known.content, entry.known.content)
      if (!wanted || mtimeOf(task.known.content) !== mtimeOf(entry.known.content)) this.#cancel(task)
    }
  }

  /** Other paths are ignored now: what is on its way to them is given up. */
  rulesChanged(): void {
    for (const task of [...this.#fetching.values(), ...this.#ready.values()]) {
      if (this.#local.rules.ignores(task.path, task.known.content.type === 'dir')) this.#cancel(task)
    }
    this.again()
  }

  /** Other marks hold: what is on its way to where only to be known of is wanted now is given up. */
  marksChanged(): void {
    const { store, settings, marks } = this.#context
    for (const task of [...this.#fetching.values(), ...this.#ready.values()]) {
      const entry = store.entry(task.path)
      if (!entry || task.rescued) continue
      if (workFor(entry, settings.conflicts, marks.wantsReal(task.path)).do === 'unreal') this.#cancel(task)
    }
    this.again()
  }

  #cancel(task: Task): void {
    if (this.#unfetch(task.path) && task.known.content.type === 'file') {
      this.#fetch.forget(task.path, task.known.content.hash)
    }
    if (this.#ready.delete(task.path)) {
      this.#readyBytes -= task.bytes
      if (task.slot) this.#unstage(task.slot)
      this.#release(task)
    }
  }

  /** What hindered an entry is over when the entry is not pending any more, however that came. */
  #forgetProblems(): void {
    const { store, problems } = this.#context
    for (const path of this.#hindered.keys()) {
      if (store.entry(path)?.pending) continue
      this.#hindered.delete(path)
      problems.clear(path)
    }
  }

  /** What was left undone is looked at again, later and later. */
  #retryLater(): void {
    const { store, timers, clock } = this.#context
    this.#forgetProblems()
    const left = store.state().totals.pending - this.#fetching.size - this.#ready.size - this.#removals.length
    if (left <= 0) {
      if (store.state().totals.pending === 0 && this.#syncing === null) this.#fetch.sweep()
      return
    }
    const waitMs = Math.min(RETRY_FIRST_MS * 2 ** this.#retries, RETRY_MAX_MS)
    this.#retries++
    timers.soon('apply', clock.nowMs() + waitMs, () => this.again())
  }

  /** Why an entry does not come, as far as that was found here; null: it is on its way, or was not looked at yet. */
  hindrance(path: EntryPath): Hindrance | null {
    return this.#hindered.get(path) ?? null
  }

  /** Somebody waits for it: what hindered it is tried again now. */
  hurry(path: EntryPath): void {
    if (!this.#hindered.delete(path)) return
    this.#context.problems.clear(path)
    this.#stalled.delete(path)
    const content = this.#fetching.get(path)?.known.content
    if (content?.type === 'file') this.#fetch.hurry(content.hash)
    this.again()
  }

  #diskProblem(path: EntryPath, error: DiskError): void {
    this.#problem(path, diskReason(error), { is: 'disk', code: error.code })
  }

  #problem(path: EntryPath, reason: string, hindrance: Hindrance): void {
    this.#hindered.set(path, hindrance)
    if (this.#context.problems.get(path)?.reason === reason) return
    this.#context.problems.set(path, reason)
    this.#events.changed()
  }

  /** What one path meets on the disk is its own problem; others go on. */
  #unlessDiskFails<Result>(path: EntryPath, work: () => Result): Result | undefined {
    try {
      return work()
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#diskProblem(path, error)
      return undefined
    }
  }

  /** Empties a slot, now or when the disk can. */
  unstage(slot: string): void {
    this.#unstage(slot)
  }

  #unstage(slot: string): void {
    const { disk } = this.#context
    try {
      if (disk.stageStat(slot)) disk.stageRemove(slot)
      this.#litter.delete(slot)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#litter.add(slot)
    }
  }
  /** Slots that nobody needs and the disk would not let go of. */
  readonly #litter = new Set<string>()

  /** Slots that were left because the disk was not there when they were to be emptied. Call when nothing is pending. */
  sweep(): void {
    const { disk, store } = this.#context
    if (!this.idle || this.#steps.unsettled || store.state().totals.pending > 0 || store.intents().length > 0) return
    try {
      for (const slot of disk.stageList()) if (!slot.startsWith(BIG_SLOT)) disk.stageRemove(slot)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
    }
  }

  /** Whether a step at this path is written down and waits for the disk: what stands there is not a user's change. */
  isUnsettled(path: EntryPath): boolean {
    return this.givingUp(path) || this.#steps.isUnsettled(path)
  }

  /** Whether something is being put at this path, or taken from it, now. */
  isPlacing(path: EntryPath): boolean {
    return (this.#syncingPaths?.has(path) ?? false) || this.isUnsettled(path)
  }

  /** Decides what one pending entry needs, and brings it on its way. */
  #consider(entry: Entry): void {
    const { store, settings, marks } = this.#context
    const { path, known } = entry
    if (this.#local.rules.ignoresEntry(entry)) {
      // Known and passed on, not ours to hold.
      store.transact(writer => writer.putEntry({ ...entry, pending: false }, !entry.announced))
      return this.#events.announced()
    }
    if (this.#local.unsettled(path) || this.#rescueFirst(entry)) return
    const work = this.#belowOwn(path)
      ? ({ do: 'leave' } as const)
      : workFor(entry, settings.conflicts, marks.wantsReal(path))
    const task: Task = { path, known, slot: null, ino: 0n, from: null, bytes: 0, rescued: work.do === 'unreal' }
    switch (work.do) {
      case 'leave':
        store.transact(writer => writer.putEntry({ ...entry, pending: false }, !entry.announced))
        this.#context.problems.set(path, 'other peers have another version (conflicts = "local")', true)
        return this.#events.announced()
      case 'nothing':
        return this.#agree(entry)
      case 'remove':
      case 'remove_folder':
        this.#removals.push(task)
        return
      case 'folder':
        if (!this.#parentReady(path)) return this.#passOn(path)
        if (!work.over && this.#folders.consider(entry) !== 'no') return
        return this.#makeReady(task)
      case 'meta':
        if (!this.#parentReady(path)) return this.#passOn(path)
        // Another name of the same file would change with it: this one becomes a file of its own.
        if (this.#shared(path) && known.content.type === 'file' && this.#copyFrom(entry, task, known.content, false))
          return
        return this.#makeReady(task)
      case 'link':
        if (this.#displaced(entry) || !this.#parentReady(path)) return this.#passOn(path)
        return this.#stage(task, slot => this.#context.disk.stageLink(slot, work.content.target))
      case 'file':
        if (this.#displaced(entry) || !this.#parentReady(path)) return this.#passOn(path)
        return this.#bring(entry, task, work.content)
      case 'unreal':
        // Folders are held and make room for it as if it came.
        if (this.#displaced(entry) || !this.#parentReady(path)) return this.#passOn(path)
        if (!this.#rescue(entry, task, work.content)) this.#leaving.add(path)
        return
    }
  }

  /** To be left as they are: known, and that is all that is wanted. */
  readonly #leaving = new Set<EntryPath>()

  /** All of a step in one transaction: there can be as many as the arena has files. */
  #leaveNow(): void {
    if (this.#leaving.size === 0) return
    const { store, settings, marks } = this.#context
    const entries: Entry[] = []
    for (const path of this.#leaving) {
      const entry = store.entry(path)
      if (!entry?.pending || this.#inWorks(path)) continue
      if (workFor(entry, settings.conflicts, marks.wantsReal(path)).do === 'unreal') entries.push(entry)
    }
    this.#leaving.clear()
    if (entries.length === 0) return
    store.transact(writer => {
      for (const entry of entries)
        writer.putEntry({ ...entry, have: null, stamp: null, pending: false, announced: false }, !entry.announced)
    })
    this.#events.announced()
  }

  /**
   * Content that is about to leave its place here, or has, may be the last of it, for nobody who only knows of another name holds any. So it
   * comes to the other name, and is given up there as any other: once a peer has said that it shows it.
   */
  #rescue(entry: Entry, task: Task, content: FileContent): boolean {
    const { store } = this.#context
    if (content.size === 0) return false
    const shown = store.withHash(content.hash, RESCUED_MAX)
    const here = shown.length > 0 ? shown.every(path => isLeft(store.entry(path))) : store.keptWithHash(content.hash)
    if (!here) return false
    this.#bring(entry, task, content)
    return true
  }

  /** What is about to leave this path comes first to where it is only known. */
  #rescueFirst(entry: Entry): boolean {
    const { store, marks } = this.#context
    const shown = entry.have?.content
    if (marks.allReal || shown?.type !== 'file' || shown.size === 0 || !isLeft(entry)) return false
    if (!store.withHash(shown.hash, RESCUED_MAX).every(path => isLeft(store.entry(path)))) return false
    const names = store.unrealWithHash(shown.hash, RESCUED_MAX).flatMap(path => store.entry(path) ?? [])
    const wanted = names.filter(name => !this.#local.rules.ignoresEntry(name))
    if (wanted.length === 0) return false
    store.transact(writer => {
      for (const name of wanted) writer.putEntry({ ...name, pending: true, announced: true }, false)
    })
    this.again()
    return true
  }

  /** Whether this peer goes on showing its own file or link where others have a folder (policy `local`). */
  #belowOwn(path: EntryPath): boolean {
    const { store, settings } = this.#context
    if (settings.conflicts !== 'local') return false
    return ancestorsOf(path).some(folder => {
      const entry = store.entry(folder)
      return entry !== undefined && !entry.pending && living(entry.have) && entry.have.content.type !== 'dir'
    })
  }

  /** The disk shows it already, under another version. */
  #agree(entry: Entry): void {
    this.#context.store.transact(writer =>
      writer.putEntry({ ...entry, have: entry.known, pending: false, announced: false, former: entry.have }, true),
    )
    this.#context.problems.clear(entry.path)
    this.#events.announced()
  }

  #makeReady(task: Task): void {
    if (this.#ready.size === 0) {
      const { clock, timers } = this.#context
      this.#readySinceMs = clock.nowMs()
      timers.soon('gather', this.#readySinceMs + GATHER_MS, () => {})
    }
    this.#unfetch(task.path)
    this.#ready.set(task.path, task)
    this.#readyBytes += task.bytes
  }

  #stage(task: Task, write: (slot: string) => DiskStat): void {
    const slot = this.#fetch.newSlot()
    let ino: bigint
    try {
      ino = write(slot).ino
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return this.#diskProblem(task.path, error)
    }
    this.#makeReady({ ...task, slot, ino })
  }

  /** Content from the cheapest place: nothing at all, a file that is to go, a copy here, the version store, a peer. */
  #bring(entry: Entry, task: Task, content: FileContent): void {
    const { disk, store } = this.#context
    if (content.size === 0) {
      return this.#stage(task, slot => disk.stageFile(slot, new Uint8Array(0), content.mtimeNs, content.exec))
    }
    for (const path of store.withHash(content.hash, 8)) {
      const source = store.entry(path)
      if (!source || this.#local.unsettled(path)) continue
      if (path !== entry.path && !this.#moving.has(path) && this.#movable(source, entry) && !this.#shared(path)) {
        this.#moving.add(path)
        return this.#makeReady({ ...task, from: path })
      }
      if (this.#copyFrom(source, task, content)) return
    }
    // On its way to another path: it can be copied from there.
    if (this.#placing.has(content.hash)) return
    const kept = store.keptWithHash(content.hash)
    if (kept && this.#copyKept(kept.id, task, content)) return
    this.#fetching.set(task.path, task)
    this.#fetch.want({ path: task.path, content })
  }

  /** A file that is itself about to be deleted, with nothing to keep of it, can become the new one by a rename. */
  #movable(source: Entry, target: Entry): boolean {
    if (source.known.content.type !== 'gone' || !source.pending || living(target.have) || source.stamp === null)
      return false
    return living(source.have) && includes(source.known.vector, source.have.vector)
  }

  /** Whether the file has other names, hard links. */
  #shared(path: EntryPath): boolean {
    return (this.#context.disk.stat(path)?.links ?? 0) > 1
  }

  /** Whether the file that a task is to move is still that of which it was planned: its user may have saved it since. */
  #stillMovable(from: EntryPath, target: Entry): boolean {
    const source = this.#context.store.entry(from)
    if (!source || this.#local.unsettled(from) || !this.#movable(source, target)) return false
    const shown = source.have?.content
    const wanted = target.known.content
    return shown?.type === 'file' && wanted.type === 'file' && shown.hash === wanted.hash
  }

  /** @param cloneOnly what would have to be copied is left to the fetcher */
  #copyFrom(source: Entry, task: Task, content: FileContent, cloneOnly = this.#copiedElsewhere(content)): boolean {
    const { disk } = this.#context
    const slot = this.#fetch.newSlot()
    let ino: bigint
    try {
      const { before, after } = disk.stageCopy(slot, source.path, cloneOnly)
      if (!source.stamp || !same(source.stamp, before) || !same(source.stamp, after)) {
        disk.stageRemove(slot)
        this.#local.lookAgain(source.path)
        return false
      }
      ino = disk.stageFinish(slot, content.size, content.mtimeNs, content.exec).ino
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#unstage(slot)
      return false
    }
    count(this.#context, { blobs_reused: 1, bytes_reused: content.size })
    this.#makeReady({ ...task, slot, ino, bytes: content.size })
    return true
  }

  /** The hasher pool copies big files, for the fetcher: here they would keep the arena from everything else. A clone costs nothing. */
  #copiedElsewhere({ size, hash }: FileContent): boolean {
    return size > LEAF_BYTES && this.#context.store.leaves(hash) !== undefined
  }

  /** A version is re-hashed before use; a big one as a resumed transfer, leaf by leaf. */
  #copyKept(id: string, task: Task, content: FileContent): boolean {
    const { disk, store } = this.#context
    const big = content.size > LEAF_BYTES
    const slot = big ? Fetcher.slotOf(content.hash) : this.#fetch.newSlot()
    if (big && (!store.leaves(content.hash) || disk.stageStat(slot) !== null)) return false
    let ino: bigint
    try {
      disk.stageCopyKept(slot, id, this.#copiedElsewhere(content))
      if (big) return false
      if (hashSmall(disk.stageRead(slot, 0, content.size)) !== content.hash) {
        disk.stageRemove(slot)
        return false
      }
      ino = disk.stageFinish(slot, content.size, content.mtimeNs, content.exec).ino
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#unstage(slot)
      return false
    }
    count(this.#context, { blobs_reused: 1, bytes_reused: content.size })
    this.#makeReady({ ...task, slot, ino, bytes: content.size })
    return true
  }

  /** From the fetcher: content lies in a slot. */
  staged(path: EntryPath, slot: string, content: FileContent, ino: bigint): void {
    const task = this.#fetching.get(path)
    if (task?.known.content.type !== 'file' || task.known.content.hash !== content.hash) {
      this.#unstage(slot)
      return this.again()
    }
    if (content.size > LEAF_BYTES) this.#placing.add(content.hash)
    this.#makeReady({ ...task, slot, ino, bytes: content.size })
  }

  /** From the fetcher: another path gets this blob first; then it can be copied. */
  copiedLater(path: EntryPath): void {
    this.#unfetch(path)
    this.again()
  }

  /** From the fetcher: not to be had now. */
  stuck(path: EntryPath, reason: string, hindrance: Hindrance): void {
    this.#problem(path, reason, hindrance)
    const task = this.#fetching.get(path)
    if (task?.known.content.type === 'file' && !this.#fetch.wanted(path, task.known.content.hash)) {
      // The fetcher has let go of it, because this disk failed: from the start, later.
      this.#unfetch(path)
      this.#retryLater()
    } else if (task) {
      this.#stalled.add(path)
    }
    this.#passOn(path)
    this.#noteLost(path)
  }

  /**
   * A power loss can take the content of a change whose announcement has got away. When all peers have been here for a while and none
   * has it, nobody ever will: the peer that made the change replaces it by a new one, with what is left (standIn).
   */
  #noteLost(path: EntryPath): void {
    const { clock, store } = this.#context
    if (this.#lostSince.has(path) || !this.#isOurs(store.entry(path))) return
    this.#lostSince.set(path, clock.nowMs())
    this.#lookForLost()
  }

  /**
   * Made here, and lost here: what was given up, or renamed through a view, is with others, whoever of them can be asked now. But what this
   * disk's own user has put in its place is later anyhow: a store that was put back has forgotten of both.
   */
  #isOurs(entry: Entry | undefined): entry is Entry {
    const { settings, marks, store } = this.#context
    if (entry?.known.content.type !== 'file' || !entry.pending || entry.known.author !== settings.author) return false
    if (entry.have?.content.type === 'file' && entry.have.author === settings.author) return true
    return entry.lost === true || (marks.allReal && store.state().givenUp === 0)
  }

  #lookForLost(): void {
    const { clock, timers } = this.#context
    timers.soon('lost', clock.nowMs() + LOST_MS / 4, () => this.#giveUpLost())
  }

  #giveUpLost(): void {
    const { clock, store } = this.#context
    const nowMs = clock.nowMs()
    const heard = this.#everybodyHeard()
    for (const [path, sinceMs] of this.#lostSince) {
      const entry = store.entry(path)
      const { known } = entry ?? {}
      if (!this.#isOurs(entry) || known?.content.type !== 'file' || !this.#fetch.wanted(path, known.content.hash)) {
        this.#lostSince.delete(path)
      } else if (!heard) this.#lostSince.set(path, nowMs)
      else if (nowMs - sinceMs >= LOST_MS && this.#fetch.isStuck(known.content.hash) && !this.#local.unsettled(path)) {
        this.#lostSince.delete(path)
        this.#events.nowhere(known.content.hash, () => this.#giveUpIfLost(path, known))
      }
    }
    if (this.#lostSince.size > 0) this.#lookForLost()
  }

  /** Nobody has it, not even one who could not give it just now. */
  #giveUpIfLost(path: EntryPath, lost: Version): void {
    const entry = this.#context.store.entry(path)
    if (!this.#active || !this.#isOurs(entry) || !sameVersion(entry.known, lost) || this.#local.unsettled(path)) return
    if (lost.content.type === 'file' && this.#fetch.isStuck(lost.content.hash)) this.#giveUp(path, entry)
  }

  #giveUp(path: EntryPath, entry: Entry): void {
    const { store, settings, problems } = this.#context
    const task = this.#fetching.get(path)
    if (task) this.#cancel(task)
    store.transact(writer => {
      const known = ownVersion(this.#context, writer, {
        content: standIn(entry),
        base: entry.known,
        known: entry.known,
      })
      const agrees = living(known)
        ? entry.have !== null &&
          sameContent(entry.have.content, known.content) &&
          mtimeOf(entry.have.content) === mtimeOf(known.content)
        : !living(entry.have)
      // What was before has had its turn: if nobody has that either, nothing is left.
      writer.putEntry(
        {
          ...entry,
          known,
          have: agrees ? known : entry.have,
          origin: null,
          pending: !agrees,
          announced: !agrees,
          former: null,
        },
        true,
      )
    })
    log(this.#context, 'content_lost', { path, author: settings.author })
    problems.set(path, 'its last content was lost before any peer had it: the one before it is shown', true)
    this.#events.announced()
    this.wakeDormant([path])
    this.again()
  }

  /** What has to wait here is announced without its content: others need not wait for us to hear of it. */
  #passOn(path: EntryPath): void {
    this.#passingOn.add(path)
  }

  /** All of a step in one transaction: there can be thousands. */
  #passOnNow(): void {
    if (this.#passingOn.size === 0) return
    const { store } = this.#context
    const entries: Entry[] = []
    for (const path of this.#passingOn) {
      const entry = store.entry(path)
      if (entry?.pending && !entry.announced) entries.push(entry)
    }
    this.#passingOn.clear()
    if (entries.length === 0) return
    store.transact(writer => {
      for (const entry of entries) writer.putEntry({ ...entry, announced: true }, true)
    })
    this.#events.announced()
  }

  // Folders above

  /** Whether the folder above is there or will be by the time that this is applied; makes what only has to hold something. */
  #parentReady(path: EntryPath): boolean {
    const { store } = this.#context
    for (const folder of ancestorsOf(path)) {
      const entry = store.entry(folder)
      if (entry && (showsFolder(entry) || this.#ready.has(folder))) continue
      if (this.#syncingPaths?.has(folder)) continue
      if (entry && living(entry.known) && entry.known.content.type !== 'dir' && entry.have === entry.known) {
        // A file won where something lives below: it makes room, if this peer knows all that there is.
        if (!this.#caughtUp() || !this.#displace(entry)) return false
        log(this.#context, 'entry_displaced', { path: folder, below: path })
        continue
      }
      if (entry && living(entry.have) && entry.have.content.type !== 'dir') return false
      if (entry?.pending && entry.known.content.type === 'dir') return false
      if (!this.#holdFolder(folder, entry, path)) return false
    }
    return true
  }

  /** Whether files live in a folder that this disk need not show. */
  #holdsUnreal(folder: EntryPath): boolean {
    const { marks, store } = this.#context
    if (marks.allReal || !marks.mayBeUnreal(folder) || !store.hasLivingBelow(folder)) return false
    for (let after: EntryPath | null = null; ; ) {
      const page: Entry[] = store.page(after, 1000, folder)
      if (page.some(entry => this.#needsFolder(entry))) return true
      if (page.length < 1000) return false
      after = (page.at(-1) as Entry).path
    }
  }

  /** A file that this disk does not show, in a folder that it is to show. What is ignored here is as if it were not. */
  #needsFolder(entry: Entry): boolean {
    return isUnshown(entry) && !this.#local.rules.ignoresEntry(entry)
  }

  /** A folder that its user has removed, in which files live that this disk does not show. */
  #holdAgain(folder: EntryPath): void {
    const entry = this.#context.store.entry(folder)
    if (!this.#active || !entry || living(entry.known) || entry.pending || entry.dormant) return
    this.#holdBelow(folder)
  }

  /**
   * All folders below one in which files live that this disk does not show. What it showed, and was not looked at since its folder went, has
   * gone along with that, or is missed.
   */
  #holdBelow(folder: EntryPath): void {
    const folders = new Set<EntryPath>()
    for (let after: EntryPath | null = null; ; ) {
      const page: Entry[] = this.#context.store.page(after, 1000, folder)
      // What is just being given up may have gone with its folder: then that is told first.
      for (const entry of page)
        if (this.#needsFolder(entry) && !this.givingUp(entry.path)) folders.add(parentOf(entry.path) ?? folder)
      if (page.length < 1000) break
      after = (page.at(-1) as Entry).path
    }
    for (const held of folders) this.#unlessDiskFails(held, () => this.#parentReady(joinPath(held, ANY_NAME)))
  }

  /** The folders above a file that is only known are there; a kill may have come before they were made again. */
  holdFor(entry: Entry): void {
    const parent = parentOf(entry.path)
    if (!this.#active || parent === undefined || entry.pending || !isUnshown(entry)) return
    const above = this.#context.store.entry(parent)
    if ((above && showsFolder(above)) || this.#local.rules.ignoresEntry(entry)) return
    this.#unlessDiskFails(entry.path, () => this.#parentReady(entry.path))
  }

  /** A folder that no version speaks of, but something lives in it: it is made, and dormant (R4). */
  #holdFolder(folder: EntryPath, entry: Entry | undefined, held: EntryPath): boolean {
    const { disk, store, settings, rules } = this.#context
    try {
      disk.makeFolder(folder)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      if (error.code !== 'EEXIST' || disk.stat(folder)?.type !== 'dir') {
        this.#diskProblem(held, error)
        return false
      }
    }
    log(this.#context, 'folder_held', { path: folder, below: held })
    const nobody: Version = { content: { type: 'gone', deleted: null }, vector: [], g: 0, author: settings.author }
    store.transact(writer =>
      writer.putEntry(
        entry
          ? { ...entry, dormant: rules.holds, stamp: null }
          : {
              path: folder,
              seq: 0,
              known: nobody,
              have: null,
              stamp: null,
              dormant: rules.holds,
              origin: null,
              pending: false,
              announced: false,
              former: null,
            },
        false,
      ),
    )
    return true
  }

  /** A file that is to come where something lives below waits until a peer that holds it has made room. */
  #displaced(entry: Entry): boolean {
    const { path } = entry
    const { clock, timers } = this.#context
    if (!this.#context.store.hasLivingBelow(path)) {
      this.#displacedSince.delete(path)
      return false
    }
    this.#problem(path, 'a folder with newer content is in its place: its file becomes a conflict copy', IN_PLACE)
    const sinceMs = this.#displacedSince.get(path) ?? clock.nowMs()
    this.#displacedSince.set(path, sinceMs)
    const waitMs = this.#holds(entry.known) ? DISPLACED_MS : DISPLACED_ELSEWHERE_MS
    if (clock.nowMs() - sinceMs < waitMs) timers.soon('displaced', sinceMs + waitMs, () => this.again())
    else if (this.#caughtUp()) this.#makeRoom(entry)
    return true
  }

  #holds({ content }: Version): boolean {
    const { store } = this.#context
    if (content.type !== 'file' || content.size === 0) return true
    return store.withHash(content.hash, 1).length > 0 || store.keptWithHash(content.hash) !== undefined
  }

  /** No peer shows the file any more, or none that is connected: its conflict copy and the folder are made without it. */
  #makeRoom(entry: Entry): void {
    const { store, rules } = this.#context
    const { path, known } = entry
    const copy = this.#freeName(path, known)
    this.#displacedSince.delete(path)
    store.transact(writer => {
      const folder = ownVersion(this.#context, writer, { content: { type: 'dir' }, base: known, known })
      const before = store.entry(copy)
      const loser = rules.meet(before?.known ?? null, known).known
      const none = { path: copy, seq: 0, have: null, stamp: null, dormant: false, former: null }
      if (loser !== before?.known) {
        writer.putEntry({ ...none, ...before, known: loser, origin: null, pending: true, announced: true }, true)
      }
      writer.putEntry({ ...entry, known: folder, origin: null, pending: true, announced: true }, true)
    })
    log(this.#context, 'entry_conflict', { path, copy })
    this.#events.announced()
    this.again()
  }

  /** Moves a file out of the way of a folder that lives: conflict copy, then the folder as a new version. */
  #displace(entry: Entry): boolean {
    const { disk, store } = this.#context
    const { path, known, stamp } = entry
    if (!stamp || this.isUnsettled(path)) return false
    const copy = this.#freeName(path, known)
    let to = known
    store.transact(writer => {
      to = ownVersion(this.#context, writer, { content: { type: 'dir' }, base: known, known })
      writer.putIntent({
        path,
        slot: null,
        source: null,
        ino: 0n,
        formerIno: stamp.ino,
        to,
        kept: null,
        copy: { path: copy, version: known },
        from: known,
      })
    })
    const intent = store.intents().find(item => item.path === path) as Intent
    try {
      if (disk.move(path, copy, statOf(entry)) === 'unexpected') {
        store.transact(writer => writer.removeIntent(path))
        this.#local.lookAgain(path)
        return false
      }
      disk.makeFolder(path)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#steps.settleAgain()
      this.#diskProblem(path, error)
      return false
    }
    this.#steps.conclude([intent])
    return true
  }

  // A batch

  #beginBatch(): void {
    const { disk, rules } = this.#context
    const tasks = [...this.#ready.values()].sort((a, b) => compareTree(a.path, b.path))
    this.#ready = new Map()
    this.#readyBytes = 0
    this.#syncing = tasks
    this.#syncingPaths = new Set(tasks.map(task => task.path))
    // Only what was staged must be durable before it gets a name.
    if (!rules.syncsFirst || !tasks.some(task => task.slot !== null)) return this.#endBatch(tasks)
    disk.sync(error => {
      if (this.#syncing !== tasks) return
      if (!error) this.#events.border(() => this.#endBatch(tasks))
      else {
        this.#syncing = null
        this.#syncingPaths = null
        for (const task of tasks) this.#diskProblem(task.path, error)
        for (const task of tasks) this.#discard(task.path, task.slot)
        for (const task of tasks) this.#release(task)
        this.#retryLater()
      }
      this.#events.changed()
    })
  }

  #endBatch(tasks: Task[]): void {
    this.#syncing = null
    this.#syncingPaths = null
    this.#goOn(this.#run(tasks))
  }

  /** What was done may let other things be done at once; what could not be done gets its time. */
  #goOn(done: number): void {
    if (done > 0) {
      this.#retries = 0
      this.again()
    } else this.#retryLater()
  }

  #remove(): void {
    // What a ready task is about to move is not removed.
    const tasks = this.#removals
      .filter(task => !this.#moving.has(task.path) && this.#folders.beyond(task.path) === null)
      .sort((a, b) => compareTree(b.path, a.path))
    this.#removals = []
    let done = 0
    for (let at = 0; at < tasks.length; at += BATCH_MAX) done += this.#run(tasks.slice(at, at + BATCH_MAX))
    this.wakeDormant(tasks.map(task => task.path))
    if (this.#context.store.state().totals.pending > 0) this.#goOn(done)
  }

  /** Writes down what will be done, does it, writes down that it was done. Returns how many steps were done. */
  #run(tasks: readonly Task[]): number {
    const { store, rules } = this.#context
    const steps: { task: Task; entry: Entry; intent: Intent }[] = []
    store.transact(writer => {
      for (const task of tasks) {
        const entry = store.entry(task.path)
        const step = entry && this.#unlessDiskFails(task.path, () => this.#intend(task, entry))
        if (!entry || !step) {
          this.#discard(task.path, task.slot)
          continue
        }
        if (rules.intends) writer.putIntent(step)
        steps.push({ task, entry, intent: step })
      }
    })
    const done = this.#context.disk.together(() => this.#performAll(steps))
    this.wakeDormant(done.flatMap(({ source }) => (source === null ? [] : [source])))
    for (const task of tasks) this.#release(task)
    return done.length
  }

  #performAll(steps: readonly { task: Task; entry: Entry; intent: Intent }[]): Intent[] {
    const done: Intent[] = []
    const dropped: Intent[] = []
    for (const { task, entry, intent } of steps) {
      let outcome: 'done' | 'unexpected' | 'waits'
      try {
        outcome = this.#steps.perform(entry, intent)
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
        this.#diskProblem(task.path, error)
        outcome = 'waits'
      }
      if (outcome === 'done') done.push(intent)
      else if (this.#steps.isHalfDone(intent)) {
        // It could not even go back: the step stays written down until the disk can do the rest.
        this.#steps.brokenOff()
        this.#local.lookAgain(task.path)
        this.again()
      } else {
        dropped.push(intent)
        this.#discard(task.path, task.slot)
        if (outcome === 'waits') this.#passOn(task.path)
        if (outcome === 'unexpected') {
          this.#local.lookAgain(task.path)
          if (task.from) this.#local.lookAgain(task.from)
          this.#unlessDiskFails(task.path, () => this.#reportIgnored(task.path))
        }
      }
    }
    this.#steps.conclude(done, dropped)
    return done
  }

  /** What is ignored is not looked at: nobody would learn that it is in the way. */
  #reportIgnored(path: EntryPath): void {
    const stat = this.#context.disk.stat(path)
    if (stat === null || !this.#local.rules.ignores(path, stat.type === 'dir')) return
    this.#problem(path, 'what is in its place is ignored here: rename that, or change the rules', IN_PLACE)
  }

  /** The task is over, however it ended. */
  #release({ known, from }: Task): void {
    if (known.content.type === 'file') this.#placing.delete(known.content.hash)
    if (from !== null) this.#moving.delete(from)
  }

  /** Content that was staged is not placed: a big blob waits in its slot until it is, or until nobody wants it. */
  #discard(path: EntryPath, slot: string | null): void {
    if (slot && !this.#unlessDiskFails(path, () => this.#fetch.takeBack(slot))) this.#unstage(slot)
  }

  /** The step that brings this entry to what is known now, or undefined if that is something else than was planned. */
  #intend(task: Task, entry: Entry): Intent | undefined {
    const { known } = entry
    if (!entry.pending || this.#local.unsettled(task.path)) return undefined
    if (this.isUnsettled(task.path)) return undefined
    if (!sameContent(task.known.content, known.content) || mtimeOf(task.known.content) !== mtimeOf(known.content))
      return undefined
    const shown = living(entry.have) && entry.have.content.type !== 'dir' ? entry.have : null
    if (shown && !entry.stamp) return undefined
    const { settings, marks } = this.#context
    const work = workFor(entry, settings.conflicts, task.rescued || marks.wantsReal(task.path))
    if (work.do === 'nothing' || work.do === 'leave' || work.do === 'unreal') return undefined
    if (work.do === 'file' && task.slot === null && task.from === null) return undefined
    if (work.do === 'link' && task.slot === null) return undefined
    if (task.from !== null && !this.#stillMovable(task.from, entry)) return undefined
    const ino = task.from === null ? task.ino : (this.#context.store.entry(task.from)?.stamp?.ino ?? 0n)
    const replaces = shown !== null && (work.do !== 'meta' || task.slot !== null)
    const kept = replaces && shown ? this.#versions.row(task.path, shown) : null
    const copy = kept && shown && needsCopy(entry) ? { path: this.#freeName(task.path, shown), version: shown } : null
    if (task.slot !== null) task.slot = this.#fetch.toPlace(task.slot)
    return {
      path: task.path,
      // What is taken out goes to a slot of its own.
      slot: task.slot ?? (replaces ? this.#fetch.newSlot() : null),
      source: task.from,
      ino,
      formerIno: replaces ? (entry.stamp?.ino ?? 0n) : 0n,
      to: known,
      kept,
      copy,
      from: entry.have,
    }
  }

  /** The conflict copy's name; a longer one where another loser has it. */
  #freeName(path: EntryPath, loser: Version): EntryPath {
    const { store, disk } = this.#context
    const plain = conflictPath(path, loser)
    const known = store.entry(plain)
    if (known && living(known.known) && sameContent(known.known.content, loser.content)) return plain
    if (!known && disk.stat(plain) === null) return plain
    if (known?.known.content.type === 'gone' && disk.stat(plain) === null && includes(loser.vector, known.known.vector))
      return plain
    return conflictPath(path, loser, true)
  }

  /** Folders above these, if they only held what has gone now (R4). */
  wakeDormant(paths: readonly EntryPath[]): void {
    const { store, disk } = this.#context
    if (!this.#active) return
    const folders = new Set<EntryPath>()
    for (const path of paths) for (const folder of ancestorsOf(path)) folders.add(folder)
    for (const folder of [...folders].sort((a, b) => compareTree(b, a))) {
      const entry = store.entry(folder)
      if (!entry?.dormant || store.hasLivingBelow(folder)) continue
      try {
        disk.removeFolder(folder)
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
        if (error.code !== 'ENOENT') continue
      }
      store.transact(writer => writer.putEntry({ ...entry, dormant: false }, false))
    }
  }

  // After a start

  /**
   * Finishes what a killed process had begun; before the first scan or batch. What is left in staging is not needed. With
   * `powerLost` the store may be older than the disk: then it is looked at first.
   */
  recover(powerLost: boolean): void {
    const { disk } = this.#context
    this.#steps.settle(powerLost)
    if (powerLost) rescueStaged(this.#context, this.#versions)
    listForgotten(this.#context, this.#versions)
    for (const slot of disk.stageList()) {
      // Big blobs and parts of them are kept, to go on from there.
      if (!slot.startsWith(BIG_SLOT) && !this.#fetch.takeBack(slot)) disk.stageRemove(slot)
    }
  }

  /** Content was not given up after all: what was taken out goes back, now or when the disk can. */
  takeBack(intents: readonly Intent[]): void {
    this.#steps.takeBack(intents)
  }

  newSlot(): string {
    return this.#fetch.newSlot()
  }
}

const IN_PLACE: Hindrance = { is: 'place' }

/** Another content, or nothing, is to take the place of the file that is shown. */
function isLeft(entry: Entry | undefined): boolean {
  if (!entry?.pending || entry.have?.content.type !== 'file') return false
  const { content } = entry.known
  return content.type !== 'file' || content.hash !== entry.have.content.hash
}

function showsFolder(entry: Entry): boolean {
  return entry.dormant || entry.have?.content.type === 'dir'
}

function same(stamp: Stamp, stat: DiskStat): boolean {
  return (
    stamp.size === stat.size &&
    stamp.mtimeNs === stat.mtimeNs &&
    stamp.ctimeNs === stat.ctimeNs &&
    stamp.ino === stat.ino
  )
}
