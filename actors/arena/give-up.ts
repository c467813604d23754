/**
 * Gives up the content of files that are not wanted real, and answers peers that want to give up theirs. Nothing is given up unless a
 * peer has just said that it shows the very same file and keeps it for a while (lease.ts), all agree, and the file is what its entry says, durable and not in use.
 * Then it is taken out of the tree as what is removed is, looked at, and dropped when the store is known to have it: until then it goes
 * back whenever something is not as expected, also at the next start. No version changes, and nobody is told: the file lives on.
 */
import type { EvictResult } from '../../protocol/control.ts'
import { SyncError } from '../../protocol/error.ts'
import type { EntryPath, PeerId } from '../../protocol/ids.ts'
import { LEASE_FILES_MAX, LEASE_MS } from '../../protocol/limits.ts'
import { checkPath } from '../../protocol/path.ts'
import type { HistoryEvent } from '../../protocol/status.ts'
import type { ArenaWireMessage } from '../../protocol/wire.ts'
import type { Applier } from './apply.ts'
import { type ArenaContext, count, historyOf, log, tell } from './context.ts'
import { DiskError } from './disk.ts'
import { isExpected } from './disk-rules.ts'
import { diskReason } from './fetch.ts'
import { isInTime, type LeaseAnswer, type LeasedFile, Leases } from './lease.ts'
import type { LocalChanges } from './local.ts'
import { markerWith } from './marker.ts'
import { isBelow } from './order.ts'
import type { Questions } from './questions.ts'
import { statOf } from './steps.ts'
import type { Entry, Intent, StoredLease } from './store.ts'
import { type FileContent, living, sameVersion, type Version } from './version.ts'
import { sameStamp } from './walk.ts'

/** Files that wait for their turn; more are found again. */
const QUEUE_MAX = 4096
/** Entries looked at in one step. */
const STEP_ENTRIES = 256
/** What could not be given up is tried again after this long, doubling, and up to half as much longer by chance. */
const RETRY_FIRST_MS = 1_000
const RETRY_MAX_MS = 10 * 60_000
/** Files of one `evict`. */
export const EVICT_MAX = 10_000
/** Reasons in the answer to one `evict`. */
const REASONS_MAX = 100

type Message<Type extends ArenaWireMessage['type']> = Extract<ArenaWireMessage, { type: Type }>

type LeavingEntry = Entry & { readonly known: Version & { readonly content: FileContent } }

/** One file on its way out. */
interface Leaving extends LeasedFile {
  readonly entry: LeavingEntry
  /** What is written down before it is taken out. */
  intent: Intent | null
  /** Why it is still here. */
  reason: string
}

/** Files that are left together: one question, one sync. */
interface Round {
  left: Leaving[]
  readonly asked: Set<PeerId>
}

/** Files that one peer has granted. */
interface Granted {
  readonly round: Round
  readonly peer: PeerId
  readonly askedMs: number
  /** All of them, for the end of the lease. */
  readonly all: LeasedFile[]
  /** Those that are still on their way out. */
  files: Leaving[]
}

/** What came of an `evict`, but for what was cached. */
type Evicted = Omit<EvictResult, 'cachedBytes'>

interface Eviction {
  readonly waiting: Set<EntryPath>
  readonly outcome: Evicted
  readonly done: (outcome: Evicted) => void
}

export interface GiveUpEvents {
  /** Does what a call of the disk led to: an error of the root itself stops the arena. */
  border(work: () => void): void
  /** Why nothing may be given up now, or null: all connected peers agree. */
  disagreement(): string | null
  /** What the disk shows is to be made durable. */
  syncSoon(): void
  /** Peers that can be asked. */
  peers(): PeerId[]
  /** Whether somebody has the file with this inode number open through a view. */
  inUse(ino: bigint): boolean
  /** Whether a folder above is just being renamed through a view. */
  moving(path: EntryPath): boolean
  /** These are about to be taken out of the tree; and that is over, they being out or back. Nobody is to see nothing meanwhile. */
  leaving(paths: readonly EntryPath[]): void
  left(paths: readonly EntryPath[]): void
  changed(): void
}

export class GiveUp {
  readonly leases: Leases
  readonly #context: ArenaContext
  readonly #local: LocalChanges
  readonly #apply: Applier
  readonly #questions: Questions
  readonly #events: GiveUpEvents
  #active = true
  #queue = new Set<EntryPath>()
  readonly #evictions = new Set<Eviction>()
  /** Where the search for files to give up is; null: at its beginning. */
  #cursor: EntryPath | null = null
  #searching = true
  /** Something was left behind since this search began: there is to be another one. */
  #again = false
  /** After what hindered one all wait. */
  #notBeforeMs = 0
  #retries = 0
  #round: Round | null = null
  /** Steps that are written down and neither done nor taken back. */
  readonly #underWay = new Set<EntryPath>()
  /** Paths that were given a reason here. */
  readonly #noted = new Set<EntryPath>()

  constructor(context: ArenaContext, local: LocalChanges, apply: Applier, questions: Questions, events: GiveUpEvents) {
    this.#context = context
    this.#local = local
    this.#apply = apply
    this.#questions = questions
    this.#events = events
    const rows = context.store.leases()
    const granted = rows.flatMap(({ peer, ...file }) => (peer === null ? [] : [{ peer, ...file }]))
    this.leases = new Leases(granted, context.clock.nowMs())
    // What a former life was about to give up is taken back.
    this.#forget(rows.filter(({ peer }) => peer === null))
    this.#expireLater()
  }

  /** While stopped nothing is changed on the disk. */
  set active(active: boolean) {
    this.#active = active
    if (active) this.search()
    else
      for (const { waiting } of this.#evictions)
        for (const path of waiting) this.#settled(path, 'the arena has stopped')
  }

  /** This arena is let go of: nothing that is still called back does anything. A start takes back what is half done. */
  close(): void {
    this.#closed = true
  }
  #closed = false

  /** Whether the file at this path is on its way out: its absence is our doing. */
  isUnderWay(path: EntryPath): boolean {
    return this.#underWay.has(path)
  }

  isUnderWayBelow(folder: EntryPath): boolean {
    for (const path of this.#underWay) if (isBelow(path, folder)) return true
    return false
  }

  // What is to be given up

  /** Goes through all entries: other marks hold, or what hindered may be gone. */
  search(): void {
    if (!this.#context.marks.allReal && this.#notBeforeMs > this.#context.clock.nowMs()) this.#soon()
    this.#searching = true
    this.#cursor = null
    this.#again = false
    const { store } = this.#context
    const isOver = (path: EntryPath) => !this.#isWanted(store.entry(path)) && !this.isUnderWay(path)
    for (const path of this.#noted) if (isOver(path)) this.#note(path, null)
    for (const { waiting } of this.#evictions)
      for (const path of waiting) if (isOver(path)) this.#settled(path, NOT_NOW)
  }

  /** A peer has come, or has got all that it wanted: it may hold what nobody did. */
  peerReady(): void {
    if (this.#context.marks.allReal) return
    this.#soon()
    if (this.#again && !this.#searching) this.search()
  }

  /** The disk shows these now. */
  shown(paths: readonly EntryPath[]): void {
    const { marks, store } = this.#context
    if (marks.allReal) return
    for (const path of paths) if (this.#isWanted(store.entry(path))) this.#enqueue(path)
    if (this.#queue.size > 0) this.#soon()
  }

  #enqueue(path: EntryPath): void {
    if (this.#queue.size < QUEUE_MAX) this.#queue.add(path)
    else this.#again = true
  }

  /** What has hindered before need not hinder this. */
  #soon(): void {
    this.#retries = 0
    this.#wait(RETRY_FIRST_MS)
  }

  /** Whether this entry's content is here and is to be given up. */
  #isWanted(entry: Entry | undefined): entry is LeavingEntry {
    if (entry?.known.content.type !== 'file' || entry.have !== entry.known) return false
    const { marks } = this.#context
    // What is ignored is its user's alone.
    if (this.#local.rules.ignoresEntry(entry)) return false
    return marks.of(entry.path) === 'unreal' && !marks.wantsReal(entry.path)
  }

  get busy(): boolean {
    if (!this.#active || this.#context.marks.allReal) return false
    if (this.#searching && this.#queue.size < LEASE_FILES_MAX) return true
    return this.#round === null && this.#queue.size > 0 && this.#context.clock.nowMs() >= this.#notBeforeMs
  }

  step(): void {
    if (!this.busy) return
    if (this.#searching && this.#queue.size < LEASE_FILES_MAX) this.#searchOn()
    if (this.#round === null && this.#context.clock.nowMs() >= this.#notBeforeMs) this.#beginRound()
    if (this.#round === null) this.#roundOver()
  }

  #searchOn(): void {
    const page = this.#context.store.page(this.#cursor, STEP_ENTRIES, null)
    for (const entry of page) {
      if (this.#isWanted(entry)) this.#enqueue(entry.path)
      else this.#apply.holdFor(entry)
    }
    this.#cursor = page.at(-1)?.path ?? null
    if (page.length < STEP_ENTRIES) this.#searching = false
  }

  /** A person wants the content below a path (undefined: of all) to be given up now. Throws `usage`, `not_found`. */
  evict(path: EntryPath | undefined, done: (outcome: Evicted) => void): void {
    const { store, marks } = this.#context
    const outcome: Evicted = { files: 0, bytes: 0, kept: 0, reasons: [] }
    const waiting = new Set<EntryPath>()
    const refuse = (entry: Entry) => {
      outcome.kept++
      const mark = marks.of(entry.path)
      const reason = mark === 'unreal' ? 'it is needed here' : `it is marked ${mark}: mark it unreal`
      if (outcome.reasons.length < REASONS_MAX) outcome.reasons.push({ path: entry.path, reason })
    }
    const entry = path === undefined ? undefined : store.entry(path)
    if (path !== undefined && !living(entry?.known))
      throw new SyncError('not_found', `there is no '${path}' in this arena`)
    const take = (one: Entry) => {
      if (one.have?.content.type !== 'file') return
      if (marks.of(one.path) !== 'unreal' || marks.wantsReal(one.path)) refuse(one)
      else waiting.add(one.path)
    }
    if (entry) take(entry)
    if (entry?.known.content.type !== 'file') {
      for (let after: EntryPath | null = null; waiting.size < EVICT_MAX; ) {
        const page: Entry[] = store.page(after, STEP_ENTRIES, path ?? null)
        for (const one of page) take(one)
        if (page.length < STEP_ENTRIES) break
        after = (page.at(-1) as Entry).path
      }
    }
    if (waiting.size === 0) return done(outcome)
    this.#evictions.add({ waiting, outcome, done })
    this.#queue = new Set([...waiting, ...this.#queue])
    this.#retries = 0
    this.#notBeforeMs = 0
  }

  /** What became of a file that a person may wait for: it is given up (null), or stays for a reason. */
  #settled(path: EntryPath, reason: string | null, bytes = 0): void {
    for (const eviction of this.#evictions) {
      const { waiting, outcome, done } = eviction
      if (!waiting.delete(path)) continue
      if (reason === null) {
        outcome.files++
        outcome.bytes += bytes
      } else {
        outcome.kept++
        if (outcome.reasons.length < REASONS_MAX) outcome.reasons.push({ path, reason })
      }
      if (waiting.size > 0) continue
      this.#evictions.delete(eviction)
      done(outcome)
    }
  }

  /** Why a file must stay for now, or null. */
  #hindrance(path: EntryPath, entry: Entry): string | null {
    if (this.leases.isGranted(path, this.#context.clock.nowMs())) return RELIED_ON
    if (this.#isOpen(entry)) return 'it is open'
    if (this.#events.moving(path)) return CHANGED
    try {
      if (this.#shows(path, entry) !== 'durably') return 'it was changed a moment ago'
      return this.#context.disk.beingWritten(path) ? 'a program has it open for writing' : null
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return diskReason(error)
    }
  }

  #isOpen({ stamp }: Entry): boolean {
    return stamp !== null && this.#events.inUse(stamp.ino)
  }

  /** Whether the disk shows just what the entry says. */
  #shows(path: EntryPath, { stamp, seq }: Entry): 'durably' | 'perhaps' {
    const { store, disk } = this.#context
    if (!stamp || this.#local.unsettled(path) || this.#apply.isUnsettled(path)) return 'perhaps'
    const stat = disk.stat(path)
    if (stat?.type !== 'file' || !sameStamp(stamp, stat)) {
      this.#local.lookAgain(path)
      return 'perhaps'
    }
    if (seq <= store.state().durableSeq) return 'durably'
    // After a start nothing else may ask for it.
    this.#events.syncSoon()
    return 'perhaps'
  }

  // Rounds

  /** Takes the next files in hand, if nothing speaks against it. */
  #beginRound(): void {
    const { clock, store } = this.#context
    if (this.#queue.size === 0) return
    const nowMs = clock.nowMs()
    const restMs = this.leases.restsUntilMs - nowMs
    if (restMs > 0) return this.#wait(restMs)
    const reason = this.#events.disagreement()
    if (reason !== null) {
      for (const { waiting } of this.#evictions) for (const path of [...waiting]) this.#settled(path, reason)
      return this.#later()
    }
    const left: Leaving[] = []
    for (const path of this.#queue) {
      if (left.length >= LEASE_FILES_MAX) break
      this.#queue.delete(path)
      const entry = store.entry(path)
      if (!this.#isWanted(entry)) {
        this.#note(path, null)
        this.#settled(path, NOT_NOW)
        continue
      }
      const { hash } = entry.known.content
      const hindrance = this.#hindrance(path, entry)
      if (hindrance !== null) this.#stays(path, hindrance)
      else if (!this.leases.leave({ path, hash }, nowMs)) this.#stays(path, RELIED_ON)
      else left.push({ path, hash, entry, intent: null, reason: NOBODY })
    }
    if (left.length === 0) return
    const round: Round = { left, asked: new Set() }
    this.#round = round
    store.transact(writer => {
      for (const { path, hash } of left) writer.putLease({ peer: null, path, hash })
    })
    // Nobody is asked before it is written down for good that nothing is granted here.
    store.flushed(() => this.#askNext(round))
  }

  /** One peer after the other, until each file has one that keeps it. */
  #askNext(round: Round): void {
    if (this.#closed) return
    const peer = this.#active ? this.#events.peers().find(id => !round.asked.has(id)) : undefined
    const files = round.left
    if (peer === undefined || files.length === 0) return this.#endRound(round)
    round.asked.add(peer)
    const askedMs = this.#context.clock.nowMs()
    const asked = files.map(({ path, hash }) => ({ path, hash }))
    this.#questions.ask<Message<'lease'>>(peer, { type: 'lease', files: asked }, LEASE_MS / 4, answer => {
      const granted = files.filter((_, index) => answer?.answers[index] === 'granted')
      round.left = files.filter(file => !granted.includes(file))
      round.left.forEach(file => {
        file.reason = reasonOf(answer?.answers[files.indexOf(file)]) ?? file.reason
      })
      if (granted.length === 0) return this.#askNext(round)
      const all = granted.map(({ path, hash }) => ({ path, hash }))
      this.#writeDown({ round, peer, askedMs, all, files: granted })
    })
  }

  /** What nobody keeps stays. */
  #endRound(round: Round): void {
    this.#round = null
    this.#stay(round.left)
    for (const { path, reason } of round.left) this.#stays(path, reason)
    this.#roundOver()
  }

  /** Nothing is left to be tried now. */
  #roundOver(): void {
    if (this.#queue.size > 0 || this.#searching) return
    if (!this.#again) this.#retries = 0
    else if (this.#context.clock.nowMs() >= this.#notBeforeMs) this.#later()
  }

  /** What is left is tried again, later and later; by chance, so that two that refuse each other do not go on doing so. */
  #later(): void {
    const part = Number.parseInt(this.#context.random().slice(0, 8), 16) / 2 ** 32
    this.#wait(Math.min(RETRY_FIRST_MS * 2 ** this.#retries, RETRY_MAX_MS) * (1 + part / 2))
    this.#retries = Math.min(this.#retries + 1, 10)
  }

  #wait(ms: number): void {
    const { clock, timers } = this.#context
    this.#notBeforeMs = clock.nowMs() + Math.round(ms)
    timers.set('give up', this.#notBeforeMs, () => {
      if (this.#again && !this.#searching) this.search()
    })
  }

  /** These are not left any more: they may be granted to others. */
  #stay(files: readonly LeasedFile[]): void {
    this.#forget(files.map(({ path, hash }) => ({ peer: null, path, hash })))
    for (const { path } of files) this.leases.ended(path)
  }

  #forget(leases: readonly StoredLease[]): void {
    if (leases.length === 0) return
    this.#context.store.transact(writer => {
      for (const lease of leases) writer.removeLease(lease)
    })
  }

  /** A file could not be given up: the next search finds it again. */
  #stays(path: EntryPath, reason: string): void {
    this.#again = true
    this.#note(path, reason)
    this.#settled(path, reason)
  }

  #note(path: EntryPath, reason: string | null): void {
    const { problems } = this.#context
    if (reason !== null) {
      problems.set(path, `to be given up: ${reason}`, true)
      this.#noted.add(path)
    } else if (this.#noted.delete(path)) problems.clear(path)
    this.#events.changed()
  }

  // The steps of what was granted

  /** The next step, unless time is up or the arena has stopped: then what was done is taken back. */
  #next(granted: Granted, work: () => void): void {
    if (this.#closed) return
    this.#events.border(() => {
      let reason = 'it took too long'
      if (this.#active && isInTime(granted.askedMs, this.#context.clock.nowMs())) {
        try {
          return work()
        } catch (error) {
          if (!(error instanceof DiskError)) throw error
          reason = diskReason(error)
        }
      }
      this.#takeBack(granted.files, reason)
      this.#over(granted)
    })
  }

  /** What is about to be done, and that an older store could not know of it (marker.ts). */
  #writeDown(granted: Granted): void {
    const { store, disk } = this.#context
    const changed = granted.files.filter(file => !this.#isAsBefore(file))
    granted.files = granted.files.filter(file => !changed.includes(file))
    this.#stay(changed)
    for (const { path } of changed) this.#stays(path, CHANGED)
    if (granted.files.length === 0) return this.#over(granted)
    const givenUp = store.state().givenUp + 1
    store.transact(writer => {
      writer.setState({ givenUp })
      for (const file of granted.files) {
        file.intent = intentOf(file.entry, this.#apply.newSlot())
        writer.putIntent(file.intent)
        this.#underWay.add(file.path)
      }
    })
    store.flushed(() =>
      this.#next(granted, () => {
        const id = store.state().disk
        if (id !== null) disk.writeMarker(markerWith(id, givenUp))
        this.#takeOut(granted)
      }),
    )
  }

  #isAsBefore({ path, entry }: Leaving): boolean {
    const now = this.#context.store.entry(path)
    return this.#isWanted(now) && isSameFile(now, entry) && this.#hindrance(path, now) === null
  }

  #takeOut(granted: Granted): void {
    const { disk, store } = this.#context
    this.#events.leaving(granted.files.map(({ path }) => path))
    disk.together(() => {
      for (const { path, entry, intent } of granted.files) {
        const now = store.entry(path)
        if (!this.#isWanted(now) || !isSameFile(now, entry)) continue
        if (this.#isOpen(entry) || this.#events.moving(path) || disk.beingWritten(path)) continue
        disk.takeOut(path, intent?.slot as string, statOf(entry))
      }
    })
    disk.sync(error =>
      this.#next(granted, () => {
        if (error) throw error
        this.#conclude(granted)
      }),
    )
  }

  /** The content is out of the tree, durably: the entries say so. What is not as expected goes back. */
  #conclude(granted: Granted): void {
    const { store } = this.#context
    const odd = granted.files.filter(file => !this.#isOut(file))
    granted.files = granted.files.filter(file => !odd.includes(file))
    this.#takeBack(odd, CHANGED)
    if (granted.files.length === 0) return this.#over(granted)
    const events: HistoryEvent[] = []
    store.transact(writer => {
      for (const { path, hash, entry } of granted.files) {
        writer.putEntry({ ...(store.entry(path) as Entry), have: null, stamp: null, former: null }, false)
        writer.removeLease({ peer: null, path, hash })
        const { size } = entry.known.content
        events.push(writer.addHistory(historyOf(this.#context, 'unrealized', path, entry.known, { size })))
      }
    })
    tell(this.#context, events)
    this.#events.left(granted.files.map(({ path }) => path))
    store.flushed(() => this.#next(granted, () => this.#drop(granted)))
  }

  #isOut({ path, entry, intent }: Leaving): boolean {
    const { store, disk } = this.#context
    const now = store.entry(path)
    const stat = disk.stageStat(intent?.slot as string)
    // It may be wanted again by now.
    if (!this.#isWanted(now) || !isSameFile(now, entry) || this.#isOpen(entry) || stat === null) return false
    // Whoever opened it in the moment before it was taken out may write to it yet.
    return isExpected(stat, statOf(entry)) && !disk.stageBeingWritten(intent?.slot as string)
  }

  /** The store says for good that it is not here: what was taken out is not needed any more. */
  #drop(granted: Granted): void {
    let bytes = 0
    // Until here a start puts them back.
    this.#context.store.transact(writer => {
      for (const { path } of granted.files) writer.removeIntent(path)
    })
    for (const { path, entry, intent } of granted.files) {
      const { size } = entry.known.content
      this.#apply.unstage(intent?.slot as string)
      this.#underWay.delete(path)
      // What a user has put there meanwhile was not looked at; and its folder may have been taken away.
      this.#local.lookAgain(path)
      const now = this.#context.store.entry(path)
      if (now) this.#apply.holdFor(now)
      this.leases.ended(path)
      this.#note(path, null)
      this.#settled(path, null, size)
      bytes += size
    }
    count(this.#context, { given_up: granted.files.length, given_up_bytes: bytes })
    log(this.#context, 'content_given_up', { files: granted.files.length, bytes })
    this.#over(granted)
  }

  /** Puts back what was taken out, now or as soon as the disk can. */
  #takeBack(files: readonly Leaving[], reason: string): void {
    if (files.length === 0) return
    this.#apply.takeBack(files.flatMap(({ intent }) => (intent === null ? [] : [intent])))
    this.#stay(files)
    this.#events.left(files.map(({ path }) => path))
    for (const { path } of files) {
      this.#underWay.delete(path)
      this.#stays(path, reason)
    }
  }

  /** The peer need not keep them any more; what it did not grant is asked of the next one. */
  #over({ round, peer, all }: Granted): void {
    const { deliver, settings } = this.#context
    const header = { type: 'lease_end', arena: settings.name, files: all } as const
    if (this.#events.peers().includes(peer)) deliver({ to: 'peer', peer, message: { type: 'send', header } })
    this.#events.changed()
    this.#askNext(round)
  }

  // What peers ask

  /** A peer wants to give up files that may be here. What is granted is written down before the answer. Throws `path_invalid`. */
  lease(peer: PeerId, { id, files }: Message<'lease'>): void {
    for (const { path } of files) checkPath(path)
    const { store, settings, deliver, clock } = this.#context
    const nowMs = clock.nowMs()
    const answers = files.map(file => this.#answer(peer, file, nowMs))
    const granted = files.filter((_, index) => answers[index] === 'granted')
    const header = { type: 'leased', arena: settings.name, id, answers } as const
    const say = () => deliver({ to: 'peer', peer, message: { type: 'send', header } })
    if (granted.length === 0) return say()
    store.transact(writer => {
      for (const { path, hash } of granted) writer.putLease({ peer, path, hash })
    })
    this.#expireLater()
    store.flushed(say)
  }

  #answer(peer: PeerId, file: LeasedFile, nowMs: number): LeaseAnswer {
    const entry = this.#context.store.entry(file.path)
    const content = entry?.known.content
    const holds = entry && entry.have === entry.known && content?.type === 'file' && content.hash === file.hash
    // What is ignored here may change without a word.
    if (!holds || this.#local.rules.ignoresEntry(entry)) return this.leases.answer(peer, file, false, nowMs)
    try {
      if (!this.#active || this.#shows(file.path, entry) !== 'durably') return 'later'
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return 'later'
    }
    return this.leases.answer(peer, file, true, nowMs)
  }

  /** Throws `path_invalid`. */
  leaseEnd(peer: PeerId, { files }: Message<'lease_end'>): void {
    for (const { path } of files) checkPath(path)
    this.#forget(files.filter(file => this.leases.end(peer, file)).map(({ path, hash }) => ({ peer, path, hash })))
  }

  #expireLater(): void {
    const { timers, clock } = this.#context
    const atMs = this.leases.nextEndMs
    if (atMs === Number.POSITIVE_INFINITY) return
    timers.soon('leases', atMs, () => {
      this.#forget(this.leases.expire(clock.nowMs()))
      this.#expireLater()
    })
  }
}

const NOBODY = 'no other connected peer holds it'
const NOT_NOW = 'it is changing, or not to be given up any more'
const CHANGED = 'it was changed just now'
const RELIED_ON = 'another peer is giving it up and relies on this one'

/** What a peer's answer means to people; undefined: it says nothing new. */
function reasonOf(answer: LeaseAnswer | undefined): string | undefined {
  if (answer === 'leaving') return 'another peer is giving it up as well'
  return answer === 'later' ? 'the peer that holds it cannot promise to keep it now' : undefined
}

function intentOf(entry: LeavingEntry, slot: string): Intent {
  const { path, known, stamp } = entry
  return {
    path,
    slot,
    source: null,
    ino: 0n,
    formerIno: stamp?.ino ?? 0n,
    to: known,
    kept: null,
    copy: null,
    from: known,
  }
}

/** The same version, shown by the same file. */
function isSameFile(now: Entry, before: Entry): boolean {
  if (now.have !== now.known || !now.stamp || !before.stamp || now.pending) return false
  return sameVersion(now.known, before.known) && sameStamp(now.stamp, before.stamp)
}
