/**
 * What happens on this disk becomes versions: looks where the watcher points, scans where it cannot, hashes what is new,
 * and commits changes in bulk. Files that are being written settle first; deletions wait a moment for their other half, a
 * rename; too many of them at once stop the arena and ask.
 */

import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import {
  FILE_BYTES_MAX,
  LEAF_BYTES,
  LINK_TARGET_BYTES_MAX,
  MTIME_NS_MAX,
  MTIME_NS_MIN,
  PACKED_BLOB_BYTES_MAX,
} from '../../protocol/limits.ts'
import { ancestorsOf, foldName, nameOf, parentOf, pathFault } from '../../protocol/path.ts'
import type { HashResult, HashTask } from '../../protocol/ports.ts'
import type { HistoryEvent } from '../../protocol/status.ts'
import { hashLeaves, rootOf } from '../hasher/merkle.ts'
import { type ArenaContext, count, historyOf, log, tell } from './context.ts'
import { DeletionGuard } from './deletion-guard.ts'
import { DiskError, type DiskStat, isAbsence } from './disk.ts'
import { folderOfIgnoreFile, IGNORE_FILE, IGNORE_FILE_BYTES_MAX, IgnoreRules, isIgnoreFile } from './ignore-rules.ts'
import { compareTree, lastBelow } from './order.ts'
import { ownVersion } from './own-version.ts'
import { isUnshown } from './plan.ts'
import { isLostWrite, leftBehind } from './power-loss.ts'
import { type Entry, NO_STAMP, type Writer } from './store.ts'
import { type Change, HeldBack, hasBelow, type Surroundings, tellable, wasFolder } from './telling.ts'
import { type Content, living, mtimeOf, sameContent, type Version } from './version.ts'
import { type Difference, differs, sameStamp, stampOf, walk } from './walk.ts'

/** A deletion is believed when the path is still missing after this long: editors replace by delete and create. */
const MISSING_MS = 60
/** While more goes missing all the time, deletions wait up to this long. */
const MISSING_MAX_MS = 1_500
/** While the disk is still being looked at, where their other halves may be found, they wait longer: a folder of very many files was moved. */
const MISSING_FINDING_MAX_MS = 30_000
/** A file whose mtime is older than this is not asked whether somebody is writing it. */
const FRESH_MS = 2_000
/** A file system's clock goes on at least this often: 10 ms at 100 Hz, the slowest kernels. */
const TICK_MS = 12
/** Between two looks at a file that is being written, and how long that may put it off. */
const SETTLE_MS = 200
const SETTLE_MAX_MS = 10_000
/** What cannot be looked at or read is tried again after this long, doubling. */
const BARRED_FIRST_MS = 5_000
const BARRED_MAX_MS = 10 * 60_000
/** Bytes of one hash request to the pool, files in it, and requests at once. */
const HASH_BYTES = 64 * 1024 * 1024
const HASH_BATCH_BYTES = 8 * 1024 * 1024
const HASH_BATCH_FILES = 1000
const HASH_REQUESTS_MAX = 6
/**
 * Small files are hashed here, where they are read once, hashed and kept for the peers that will ask for them: the way to
 * the pool costs more. So much in one step, and each file counts as so much besides its size.
 */
const STEP_BYTES = 4 * 1024 * 1024
const STEP_FILE_BYTES = 8 * 1024
/** Differences taken from a walk in one step, and changes in one transaction. */
const STEP_DIFFERENCES = 512
const COMMIT_MAX = 1000
const RULES_TOO_LONG = `rules longer than ${IGNORE_FILE_BYTES_MAX} bytes are not read`
/** Entries below a known folder that are looked at when the watcher names it. */
const HOLLOW_LOOKS = 8
/** Entries that are looked through for what a root showed that is empty now. */
const EMPTIED_LOOKS = 10_000
/** Names beside a new folder that are looked at for the folder that it was. */
const SIBLING_LOOKS = 256
/** Files waiting for their hash, above which a walk pauses. */
const LOOKS_MAX = 20_000

interface Look {
  readonly path: EntryPath
  stat: DiskStat
  readonly sinceMs: number
  tries: number
}

interface Hashing {
  readonly look: Look
  readonly parts: (Uint8Array | null)[]
  left: number
}

/** What a file was called before. */
interface FormerName {
  readonly path: EntryPath
  readonly hash: BlobHash
  /** Nor has anything else been done to it: its ctime is the same as well. */
  readonly untouched: boolean
}

export interface LocalEvents {
  /** Entries were announced. */
  announced(): void
  /** These paths may now be worked on, or must be again. */
  pending(): void
  /** What the disk shows at these paths became part of the store. */
  committed(paths: readonly EntryPath[]): void
  /** Whether a step of ours at this path is neither done nor taken back: it is not looked at before. */
  unsettled(path: EntryPath): boolean
  /** What the user saw at a path that showed nothing here, when putting something there; null: nothing. */
  seen(path: EntryPath): Version | null
  /** Whether a user's change of a file below this path, which showed nothing here, is about to be written down. */
  changingBelow(path: EntryPath): boolean
  /** Whether this folder or one above is being renamed through a view: what is missing has not been deleted, and is told with its new name. */
  moving(path: EntryPath): boolean
  /** Whether this peer is giving up the content of this path: its absence is not missed. */
  givingUp(path: EntryPath): boolean
  /** Nothing is at these paths any more: the folders above them may have held nothing else. */
  emptied(paths: readonly EntryPath[]): void
  /** Whether the disk is looked at and changed: the arena is neither paused nor stopped. */
  working(): boolean
  /** The arena must stop and ask. */
  guard(reason: string): void
  /** Asked before a full scan, and before deletions are believed; false: the root is not the one that was synced, so nothing may. */
  rootThere(): boolean
  /** A full scan has ended. */
  scanned(): void
  /** All that was suspect after the machine went down has been looked at. */
  trusted(): void
  /** The paths under this folder changed their being ignored. */
  rulesChanged(): void
}

export class LocalChanges {
  readonly rules: IgnoreRules
  readonly #context: ArenaContext
  readonly #events: LocalEvents
  readonly #surroundings: Surroundings
  /** Paths that the watcher named, not yet looked at. */
  readonly #touched = new Set<EntryPath>()
  readonly #looks = new Map<EntryPath, Look>()
  /** Looks that wait until their file has settled. */
  readonly #settling = new Map<EntryPath, Look>()
  /** What was found missing, and when. */
  readonly #missing = new Map<EntryPath, number>()
  readonly #missingInodes = new Map<bigint, EntryPath>()
  readonly #hashing = new Map<number, Hashing[]>()
  readonly #hashingPaths = new Set<EntryPath>()
  readonly #ready: Change[] = []
  readonly #readyPaths = new Set<EntryPath>()
  /** Of those: told of since. What is committed may not be there any more. */
  readonly #lookAfter = new Set<EntryPath>()
  readonly #walks: { walk: Generator<Difference>; full: boolean }[] = []
  #rescanAsked = false
  #firstScan: boolean
  #hashId = 0
  #looked = 0
  readonly #guard = new DeletionGuard()

  constructor(context: ArenaContext, events: LocalEvents) {
    this.#context = context
    this.#events = events
    this.#firstScan = !context.store.state().scanned
    this.rules = new IgnoreRules(context.settings.ignore)
    this.#surroundings = {
      entry: path => context.store.entry(path),
      typeNow: path => {
        const stat = this.#stat(path)
        return stat ? stat.type : stat
      },
      isGone: path => this.#isGone(path),
      seen: path => events.seen(path),
      unsettled: path => events.unsettled(path),
      settledBelow: (path, from) => this.#settledBelow(path, from),
    }
  }

  /** From the watcher: paths below the root that may have changed; null: anything may have. */
  touched(paths: readonly string[] | null): void {
    if (paths === null) return this.rescan()
    for (const path of paths) if (pathFault(path) === undefined) this.#touched.add(path as EntryPath)
  }

  /** A rule file was put in place, moved away or removed by us. */
  rulesFile(path: EntryPath): void {
    this.#readRules(folderOfIgnoreFile(path))
  }

  /** After the machine went down: these may show what they showed before, or less (R5). `trusted` follows when all were looked at. */
  suspect(paths: readonly EntryPath[]): void {
    for (const path of paths) this.#suspects.add(path)
  }
  readonly #suspects = new Set<EntryPath>()

  /** Looks at one path again, soon. */
  lookAgain(path: EntryPath): void {
    this.#touched.add(path)
  }

  /** Looks at all that is below a folder that we have moved: who was at work in it went along. */
  lookBelow(folder: EntryPath): void {
    this.#walkBelow(folder)
    this.#lookOnceMore(folder)
  }

  rescan(): void {
    this.#rescanAsked = true
  }

  /** The next deletions are meant, however many. */
  allowDeletions(): void {
    this.#guard.allow()
  }

  /** Another folder is the root from now on: what is found in it has no history. */
  beginAnew(): void {
    this.#firstScan = true
    this.#walks.length = 0
    this.#touched.clear()
    this.#looks.clear()
    this.#settling.clear()
    this.#missing.clear()
    this.#missingInodes.clear()
    this.#heldBack.clear()
    this.#hashing.clear()
    this.#hashingPaths.clear()
    this.#partOf.clear()
    this.#ready.length = 0
    this.#readyPaths.clear()
    this.#lookAfter.clear()
    this.#scanEnded = false
  }

  get scanning(): boolean {
    return this.#rescanAsked || this.#walks.some(item => item.full)
  }

  get scanned(): number {
    return this.#looked
  }

  /** Nothing seen that is not yet committed. */
  get quiet(): boolean {
    return (
      !this.#rescanAsked &&
      this.#walks.length === 0 &&
      this.#touched.size === 0 &&
      this.#looks.size === 0 &&
      this.#settling.size === 0 &&
      this.#missing.size === 0 &&
      this.#heldBack.size === 0 &&
      this.#hashing.size === 0 &&
      this.#ready.length === 0
    )
  }

  /** Work that can be done now, without waiting for anything. */
  get busy(): boolean {
    return (
      this.#touched.size > 0 ||
      (this.#rescanAsked && !this.#walks.some(item => item.full)) ||
      (this.#walks.length > 0 && this.#looks.size < LOOKS_MAX) ||
      this.#hashingHere ||
      (this.#looks.size > 0 && this.#hashing.size < HASH_REQUESTS_MAX && this.#walks.length === 0) ||
      this.#ready.length > 0
    )
  }

  /** One slice of work. Throws DiskError if the root itself cannot be read. */
  step(): void {
    this.#goneFolders.clear()
    if (this.#touched.size > 0) this.#context.disk.together(() => this.#lookAtTouched())
    if (this.#rescanAsked && !this.#walks.some(item => item.full)) {
      this.#rescanAsked = false
      if (!this.#events.rootThere()) return
      this.#looked = 0
      this.#scans++
      this.#walks.push({ walk: walk(this.#context.disk, this.#context.store, this.rules, null), full: true })
    }
    if (this.#looks.size < LOOKS_MAX) this.#walkOn()
    this.#hashMore()
    this.#commitReady()
    this.#endMoved()
  }

  /** Whether the path waits to be looked at, or what was found to become known: its entry may not tell what the disk shows. */
  unsettled(path: EntryPath): boolean {
    return (
      this.#touched.has(path) ||
      this.#readyPaths.has(path) ||
      this.#looks.has(path) ||
      this.#settling.has(path) ||
      this.#hashingPaths.has(path) ||
      this.#missing.has(path) ||
      this.#heldBack.has(path)
    )
  }

  hashed(id: number, results: readonly HashResult[]): void {
    const batch = this.#hashing.get(id)
    if (!batch) return
    this.#hashing.delete(id)
    let next = 0
    for (const hashing of batch) {
      const slot = hashing.parts.indexOf(null)
      const result = results[next++] as HashResult
      if (batch.length === 1 && hashing.parts.length > 1) this.#partDone(hashing, this.#partOf.get(id) ?? slot, result)
      else this.#partDone(hashing, slot, result)
    }
    this.#partOf.delete(id)
    if (this.#events.working()) this.#commitReady()
  }
  /** Which part of a big file a request hashes. */
  readonly #partOf = new Map<number, number>()

  #partDone(hashing: Hashing, part: number, result: HashResult): void {
    const { look } = hashing
    if (!('leaves' in result)) {
      if (!this.#hashingPaths.delete(look.path)) return
      if ('changed' in result) this.#retry(look)
      else this.#unreadable(look.path, result.failure.message)
      return
    }
    if (!this.#hashingPaths.has(look.path)) return
    hashing.parts[part] = result.leaves
    if (--hashing.left > 0) return
    this.#hashingPaths.delete(look.path)
    this.#hashedFile(look, Buffer.concat(hashing.parts as Uint8Array[]))
  }

  #hashedFile(look: Look, leaves: Uint8Array): BlobHash {
    const { stat, path } = look
    const hash = rootOf(stat.size, leaves)
    this.#foundFile(path, stat, hash, stat.size > LEAF_BYTES ? leaves : null)
    return hash
  }

  #foundFile(path: EntryPath, stat: DiskStat, hash: BlobHash, leaves: Uint8Array | null, from?: FormerName): void {
    const content: Content = {
      type: 'file',
      size: stat.size,
      mtimeNs: sayableMtime(stat.mtimeNs),
      exec: stat.exec,
      hash,
    }
    // What only has another name is not recognised by it before its content was looked at, be that after a restart.
    const stamp = from === undefined || from.untouched ? stampOf(stat) : NO_STAMP
    this.#makeReady({ path, content, stamp, leaves, ...(from !== undefined && { from: from.path }) })
    if (isIgnoreFile(path)) this.#readRules(folderOfIgnoreFile(path))
  }

  #retry(look: Look): void {
    look.tries++
    this.#putOff(look, Math.min(SETTLE_MS * 2 ** Math.min(look.tries - 1, 4), FRESH_MS))
  }

  #putOff(look: Look, waitMs: number): void {
    const { clock, timers } = this.#context
    this.#settling.set(look.path, look)
    timers.set(`settling:${look.path}`, clock.nowMs() + waitMs, () => {
      if (!this.#settling.delete(look.path)) return
      const stat = this.#stat(look.path)
      if (stat?.type !== 'file') this.#touched.add(look.path)
      else this.#looks.set(look.path, { ...look, stat })
    })
  }

  /** Says why a path is left alone. Each full scan finds again what is still so. */
  #fault(path: string, reason: string, note = false): void {
    this.#faults.set(path, { reason, scan: this.#scans })
    this.#context.problems.set(path, reason, note)
  }
  readonly #faults = new Map<string, { reason: string; scan: number }>()
  /** Full scans begun. */
  #scans = 0

  #faultOver(path: string, reason: string): void {
    const { problems } = this.#context
    if (this.#faults.get(path)?.reason === reason) this.#faults.delete(path)
    if (problems.get(path)?.reason === reason) problems.clear(path)
  }

  /** What the scan that has ended did not find any more. */
  #forgetFaults(): void {
    for (const [path, { reason, scan }] of this.#faults) if (scan !== this.#scans) this.#faultOver(path, reason)
  }

  #unreadable(path: EntryPath, reason: string): void {
    this.#fault(path, `the file cannot be read: ${reason}`)
    this.#tryAgain(path)
  }

  /** null: nothing is there. Undefined: it cannot be looked at, which proves nothing; it will be tried again. */
  #stat(path: EntryPath): DiskStat | null | undefined {
    try {
      return this.#context.disk.stat(path)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#fault(path, `it cannot be looked at (${error.code})`)
      this.#tryAgain(path)
      return undefined
    }
  }
  /** What cannot be looked at or read now is looked at again, later and later. */
  #tryAgain(path: EntryPath): void {
    const { clock, timers } = this.#context
    this.#barred.add(path)
    timers.soon('barred', clock.nowMs() + this.#barredMs, () => {
      this.#barredMs = Math.min(this.#barredMs * 2, BARRED_MAX_MS)
      for (const path of this.#barred) this.#touched.add(path)
      this.#barred.clear()
    })
  }
  readonly #barred = new Set<EntryPath>()
  #barredMs = BARRED_FIRST_MS

  // Where the watcher points

  #lookAtTouched(): void {
    const { store, problems } = this.#context
    const paths = [...this.#touched].sort(compareTree)
    this.#touched.clear()
    const present: { path: EntryPath; stat: DiskStat; entry: Entry | undefined }[] = []
    const emptied: EntryPath[] = []
    // First what is gone, so that what is new can be recognised as its other half.
    for (const path of paths) {
      if (this.#readyPaths.has(path)) this.#lookAfter.add(path)
      const stat = this.#stat(path)
      if (stat === undefined) continue
      const entry = store.entry(path)
      if (this.rules.ignores(path, (stat?.type ?? entry?.have?.content.type) === 'dir')) {
        if (stat === null) emptied.push(path)
        else if (entry && !this.#ignoresShown(entry)) this.#missingTree(entry)
        continue
      }
      if (stat !== null) present.push({ path, stat, entry })
      else if (entry) this.#missingTree(entry)
      else if (path.includes('\ufffd'))
        this.#walks.push({ walk: walk(this.#context.disk, store, this.rules, parentOf(path) ?? null), full: false })
      else problems.clear(path)
    }
    if (emptied.length > 0) this.#events.emptied(emptied)
    for (const { path, stat, entry } of present) {
      // A folder that was not known may hold what the watcher was too late for.
      const unknownFolder = stat.type === 'dir' && differs(entry, stat)
      if (differs(entry, stat)) this.#found(path, stat, entry)
      else this.#missing.delete(path)
      if (unknownFolder || (wasFolder(entry) && (stat.type !== 'dir' || this.#hollow(path)))) {
        this.#walkBelow(path)
      }
      if (unknownFolder) this.#lookOnceMore(path)
    }
  }

  /** Whether a known folder lacks what was in it: it was moved away and made anew, of which the watcher says nothing below it. */
  #hollow(path: EntryPath): boolean {
    const below = this.#context.store.page(null, HOLLOW_LOOKS, path)
    return below.some(entry => onDisk(entry) && this.#stat(entry.path) === null && !this.#missing.has(entry.path))
  }

  /** A new folder may be filled before the watcher sees into it: walk it again shortly after. */
  #lookOnceMore(path: EntryPath): void {
    const { clock, timers } = this.#context
    for (const waitMs of [250, 2_000]) {
      timers.set(`again:${waitMs}:${path}`, clock.nowMs() + waitMs, () => {
        if (this.#stat(path)?.type === 'dir') this.#walkBelow(path)
      })
    }
  }

  #walkBelow(path: EntryPath): void {
    const { disk, store } = this.#context
    this.#walks.push({ walk: walk(disk, store, this.rules, path), full: false })
  }

  /** Whether what this disk showed at a path is ignored. */
  #ignoresShown({ path, have }: Entry): boolean {
    return this.rules.ignores(path, have?.content.type === 'dir')
  }

  /** An entry that is not on the disk, with all that was below it. */
  #missingTree(entry: Entry): void {
    if (onDisk(entry)) this.#noteMissing(entry)
    this.#missingBelow(entry)
  }

  #missingBelow(entry: Entry): void {
    if (wasFolder(entry)) this.#missingUnder(entry.path)
  }

  #missingUnder(folder: EntryPath | null): void {
    const { store } = this.#context
    for (let after: EntryPath | null = null; ; ) {
      const page = store.page(after, 1000, folder)
      for (const child of page) {
        if (onDisk(child) && !this.#ignoresShown(child)) this.#noteMissing(child)
      }
      if (page.length < 1000) return
      after = (page.at(-1) as Entry).path
    }
  }

  #noteMissing(entry: Entry): void {
    if (this.#missing.has(entry.path)) return
    // It is looked at when that is over.
    if (this.#events.givingUp(entry.path)) return
    const { clock, timers } = this.#context
    this.#missing.set(entry.path, clock.nowMs())
    if (entry.stamp && entry.stamp.ino !== 0n) this.#missingInodes.set(entry.stamp.ino, entry.path)
    this.#missingMs = clock.nowMs()
    timers.soon('missing', clock.nowMs() + MISSING_MS, () => this.#commitMissing())
  }
  /** When something was found missing last. */
  #missingMs = 0

  /**
   * A new folder may be one that was renamed: where a scan meets it before the watcher has told of it, the other half is not missed
   * yet. So the folders beside it are looked at first.
   */
  #missSiblings(parent: EntryPath | null): void {
    if (this.#siblingsSeen.has(parent)) return
    this.#siblingsSeen.add(parent)
    const { store } = this.#context
    let after: EntryPath | null = null
    for (let looked = 0; looked < SIBLING_LOOKS; looked++) {
      const [entry]: Entry[] = store.page(after, 1, parent)
      if (!entry) return
      after = lastBelow(entry.path)
      if (entry.have?.content.type !== 'dir' || this.#missing.has(entry.path)) continue
      if (!this.rules.ignores(entry.path, true) && this.#stat(entry.path) === null) this.#missingTree(entry)
    }
  }
  /** Folders in which that was done since something was being looked at. */
  readonly #siblingsSeen = new Set<EntryPath | null>()

  // Walks

  #walkOn(): void {
    let taken = 0
    if (this.#walks.length === 0) this.#siblingsSeen.clear()
    for (let item = this.#walks[0]; item !== undefined; item = this.#walks[0]) {
      for (;;) {
        const step = item.walk.next()
        if (step.done) {
          this.#walks.shift()
          if (item.full) this.#scanDone()
          break
        }
        this.#difference(step.value)
        if (++taken >= STEP_DIFFERENCES || step.value.is === 'progress') return
      }
    }
  }

  #difference(difference: Difference): void {
    switch (difference.is) {
      case 'found':
        return this.#found(difference.path, difference.stat, difference.entry)
      case 'missing':
        return this.#noteMissing(difference.entry)
      case 'problem':
        return this.#fault(difference.path, difference.reason)
      case 'rules':
        return this.#readRules(difference.folder)
      case 'emptied':
        return this.#events.emptied([difference.path])
      case 'progress':
        this.#looked += difference.looked
        return
      default:
        difference satisfies never
    }
  }

  #scanDone(): void {
    log(this.#context, 'arena_scanned', { names: this.#looked })
    count(this.#context, { scans: 1, scanned_names: this.#looked })
    this.#scanEnded = true
    this.#endScanWhenCommitted()
  }
  #scanEnded = false

  /** The first scan is over when all that it found is in the store: only then is a file without history a new file. */
  #endScanWhenCommitted(): void {
    if (!this.#scanEnded || this.#looks.size > 0 || this.#hashing.size > 0 || this.#ready.length > 0) return
    this.#scanEnded = false
    this.#forgetFaults()
    if (this.#faults.size === 0) this.#barredMs = BARRED_FIRST_MS
    this.#suspectsScanned = true
    this.#trustAgain()
    if (this.#missing.size === 0) this.#guard.endAllowing()
    if (this.#firstScan) {
      this.#firstScan = false
      this.#context.store.transact(writer => writer.setState({ scanned: true }))
    }
    this.#events.scanned()
  }

  /** What the scan did not find missing shows what it should; from now on a change there is a user's. */
  #trustAgain(): void {
    if (this.#suspects.size === 0 || !this.#suspectsScanned || this.#ready.length > 0) return
    for (const path of this.#suspects) if (!this.unsettled(path)) this.#suspects.delete(path)
    if (this.#suspects.size === 0) this.#events.trusted()
  }
  #suspectsScanned = false

  #readRules(folder: EntryPath | undefined): void {
    const path = (folder === undefined ? IGNORE_FILE : `${folder}/${IGNORE_FILE}`) as EntryPath
    let text: string | null = null
    let tooLong = false
    try {
      tooLong = (this.#context.disk.stat(path)?.size ?? 0) > IGNORE_FILE_BYTES_MAX
      if (!tooLong) text = Buffer.from(this.#context.disk.read(path).bytes).toString()
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
    }
    if (tooLong) this.#fault(path, RULES_TOO_LONG)
    else this.#faultOver(path, RULES_TOO_LONG)
    const before = this.#ruleTexts.get(path) ?? null
    if (before === text) return
    if (text === null) this.#ruleTexts.delete(path)
    else this.#ruleTexts.set(path, text)
    this.rules.setFolder(folder, text)
    if (!this.#firstScan || before !== null) {
      this.rescan()
      this.#events.rulesChanged()
    }
  }
  readonly #ruleTexts = new Map<EntryPath, string>()

  #makeReady(change: Change): void {
    this.#ready.push(change)
    this.#readyPaths.add(change.path)
  }

  // One path that differs

  #found(path: EntryPath, stat: DiskStat, entry: Entry | undefined): void {
    const { disk } = this.#context
    this.#missing.delete(path)
    const fault = pathFault(path)
    if (fault !== undefined) return this.#fault(path, `${fault}: it is not synced`)
    if (entry && stat.type !== 'dir' && wasFolder(entry)) {
      this.#missingBelow(entry)
      const from = stat.type === 'file' ? this.#movedFrom(stat)?.path : undefined
      if (!this.#settledBelow(path, from)) return this.#holdBack({ path, from })
    }
    switch (stat.type) {
      case 'other':
        return this.#fault(path, 'a device, socket or pipe is not synced', true)
      case 'dir':
        if (entry === undefined) this.#missSiblings(parentOf(path) ?? null)
        this.#makeReady({ path, content: { type: 'dir' }, stamp: null, leaves: null })
        return
      case 'symlink': {
        let target: string
        try {
          target = disk.readLink(path)
        } catch (error) {
          if (!(error instanceof DiskError)) throw error
          this.#touched.add(path)
          return
        }
        if (target.includes('\ufffd') || Buffer.byteLength(target) > LINK_TARGET_BYTES_MAX) {
          return this.#fault(path, 'the target of the link is not valid UTF-8 or too long: it is not synced')
        }
        this.#makeReady({ path, content: { type: 'symlink', target }, stamp: stampOf(stat), leaves: null })
        return
      }
      case 'file': {
        if (stat.size > FILE_BYTES_MAX) return this.#fault(path, `files over ${FILE_BYTES_MAX} bytes are not synced`)
        const have = entry?.have
        // Only linked, renamed or given other rights: still looked at, for same size and mtime prove nothing.
        const moved = this.#movedFrom(stat)
        if (moved && have?.content.type !== 'file') return this.#foundRenamed(path, stat, moved)
        if (this.#looks.has(path)) return
        // News of a file that was being written: perhaps its writer has closed it.
        const sinceMs = this.#settling.get(path)?.sinceMs ?? this.#context.clock.nowMs()
        this.#settling.delete(path)
        this.#looks.set(path, { path, stat, sinceMs, tries: 0 })
      }
    }
  }

  /** The missing file that this one was, if nothing but its name has changed since its hash was taken. */
  #movedFrom(stat: DiskStat): FormerName | undefined {
    const path = this.#missingInodes.get(stat.ino)
    if (path === undefined || !this.#missing.has(path) || stat.links > 1) return undefined
    const entry = this.#context.store.entry(path)
    const { have, stamp } = entry ?? {}
    if (have?.content.type !== 'file' || !stamp || stamp.size !== stat.size || stamp.mtimeNs !== stat.mtimeNs)
      return undefined
    return { path, hash: have.content.hash, untouched: sameStamp(stamp, stat) && !this.#suspects.has(path) }
  }

  /**
   * Both halves of a rename go out together, the new name first: others then move what they have. Its content is looked at
   * after that, for same size and mtime prove nothing – unless a folder above was renamed: that does not touch the file, and its
   * ctime is that of before.
   */
  #foundRenamed(path: EntryPath, stat: DiskStat, moved: FormerName): void {
    this.#foundFile(path, stat, moved.hash, null, moved)
    this.#foundMoved = true
    if (!moved.untouched) this.#looks.set(path, { path, stat, sinceMs: this.#context.clock.nowMs(), tries: 0 })
    if (!this.#isGone(moved.path)) return
    this.#missing.delete(moved.path)
    this.#makeReady({
      path: moved.path,
      content: { type: 'gone', deleted: null },
      stamp: null,
      leaves: null,
      to: path,
    })
  }

  /** Nothing can be in a folder that is not there: of one with many files that is asked once in a step. */
  #isGone(path: EntryPath): boolean {
    const folder = parentOf(path)
    if (folder !== undefined && !this.#goneFolders.has(folder) && this.#stat(folder) === null)
      this.#goneFolders.add(folder)
    return (folder !== undefined && this.#goneFolders.has(folder)) || this.#stat(path) === null
  }
  /** Folders that were not there when that was asked in this step. */
  readonly #goneFolders = new Set<EntryPath>()

  // Hashing

  #hashMore(): void {
    const { disk } = this.#context
    let bytes = 0
    for (const look of this.#looks.values()) bytes += look.stat.size
    // More is being found: a fuller batch costs less than several small ones.
    if (this.#finding && bytes < HASH_BATCH_BYTES && this.#looks.size < HASH_BATCH_FILES) return
    let here = STEP_BYTES
    let batch: Hashing[] = []
    let batchTasks: HashTask[] = []
    let batchBytes = 0
    const send = () => {
      if (batchTasks.length > 0) this.#request(batch, batchTasks)
      batch = []
      batchTasks = []
      batchBytes = 0
    }
    this.#hashingHere = false
    for (const [path, look] of this.#looks) {
      const small = look.stat.size <= PACKED_BLOB_BYTES_MAX
      if (small && here <= 0) {
        this.#hashingHere = true
        break
      }
      if (!small && this.#hashing.size >= HASH_REQUESTS_MAX) continue
      this.#looks.delete(path)
      if (this.#hashingPaths.has(path)) continue
      if (this.#tooFresh(look) || this.#stillWritten(look)) continue
      if (small) {
        here -= look.stat.size + STEP_FILE_BYTES
        this.#hashHere(look)
        continue
      }
      const { stat } = look
      const task = { path: disk.outsidePath(path), size: stat.size, mtimeNs: stat.mtimeNs, ino: stat.ino }
      this.#hashingPaths.add(path)
      if (stat.size > HASH_BYTES) {
        this.#hashInParts(look, task)
        continue
      }
      batch.push({ look, parts: [null], left: 1 })
      batchTasks.push({ ...task, from: 0, count: Math.ceil(stat.size / LEAF_BYTES) })
      batchBytes += stat.size
      if (batchBytes >= HASH_BATCH_BYTES || batch.length >= HASH_BATCH_FILES) send()
    }
    send()
  }

  #request(batch: Hashing[], tasks: HashTask[], part?: number): void {
    const id = ++this.#hashId
    this.#hashing.set(id, batch)
    if (part !== undefined) this.#partOf.set(id, part)
    this.#context.deliver({ to: 'supervisor', report: { type: 'hash', id, tasks } })
  }

  #hashInParts(look: Look, task: Omit<HashTask, 'from' | 'count'>): void {
    const leaves = Math.ceil(look.stat.size / LEAF_BYTES)
    const step = HASH_BYTES / LEAF_BYTES
    const parts = Math.ceil(leaves / step)
    const hashing: Hashing = { look, parts: new Array<Uint8Array | null>(parts).fill(null), left: parts }
    for (let part = 0; part < parts; part++) {
      const from = part * step
      this.#request([hashing], [{ ...task, from, count: Math.min(step, leaves - from) }], part)
    }
  }

  /** Puts a file off that may be written again without its times showing it: until its file system's clock has gone on. */
  #tooFresh(look: Look): boolean {
    const { clock } = this.#context
    const ageMs = clock.wallMs() - Number(look.stat.ctimeNs / 1_000_000n)
    if (ageMs < 0 || ageMs >= TICK_MS || clock.nowMs() - look.sinceMs > SETTLE_MAX_MS) return false
    this.#putOff(look, TICK_MS - ageMs)
    return true
  }

  /** Puts a fresh file off while some process has it open for writing; a file that is open for ever gets its turn. */
  #stillWritten(look: Look): boolean {
    const { clock, disk } = this.#context
    const ageMs = clock.wallMs() - Number(look.stat.mtimeNs / 1_000_000n)
    if (ageMs < -FRESH_MS || ageMs > FRESH_MS || clock.nowMs() - look.sinceMs > SETTLE_MAX_MS) return false
    try {
      if (!disk.beingWritten(look.path)) return false
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return false
    }
    look.tries = 0
    this.#retry(look)
    return true
  }

  /** Where small files are read to, one after the other. */
  readonly #scratch = Buffer.allocUnsafeSlow(PACKED_BLOB_BYTES_MAX)

  #hashHere(look: Look): void {
    try {
      const { before, bytes, after } = this.#context.disk.read(look.path, this.#scratch)
      if (!sameStamp(stampOf(before), after) || bytes.length !== after.size)
        return this.#retry({ ...look, stat: after })
      const leaves = hashLeaves(bytes)
      const hash = this.#hashedFile({ ...look, stat: after }, leaves)
      if (after.size <= PACKED_BLOB_BYTES_MAX) this.#context.recent.put(hash, bytes)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      if (isAbsence(error)) this.#touched.add(look.path)
      else this.#unreadable(look.path, error.code)
    }
  }

  // Committing

  /** The last step left small files for the next one. */
  #hashingHere = false

  get #finding(): boolean {
    return this.#walks.length > 0 || this.#touched.size > 0
  }

  #commitReady(): void {
    // What was renamed does not wait for being hashed again.
    const waits = this.#finding || (this.#hashingHere && !this.#ready.some(({ from }) => from !== undefined))
    if (waits && this.#ready.length < COMMIT_MAX) return
    while (this.#ready.length > 0) this.#commit(this.#ready.splice(0, COMMIT_MAX))
    this.#endScanWhenCommitted()
  }

  /** A folder whose files have all been found elsewhere was moved: it is not waited for. */
  #endMoved(): void {
    if (!this.#foundMoved || this.#finding || this.#ready.length > 0) return
    this.#foundMoved = false
    for (const path of this.#missing.keys()) {
      if (this.#context.store.entry(path)?.have?.content.type !== 'dir') return
    }
    if (this.#missing.size > 0) this.#commitMissing(true)
  }
  /** Other halves of missing files were found since that was asked last. */
  #foundMoved = false

  #commitMissing(atOnce = false): void {
    const { clock, store, settings, timers } = this.#context
    // Nothing that is still missing when the guard has stopped the arena is told.
    if (!this.#events.working()) return this.#missNothing()
    const emptied = !this.#finding && this.#missing.size > 0 && this.#isEmptied()
    if (emptied) this.#missAll()
    const nowMs = clock.nowMs()
    const gone: EntryPath[] = []
    let waiting = false
    // A folder that is just being emptied is seen as a whole, so that the guard can judge it.
    const going = nowMs - this.#missingMs < MISSING_MS
    const longMs = this.#finding ? MISSING_FINDING_MAX_MS : going ? MISSING_MAX_MS : MISSING_MS
    // Where nothing is left, nothing can be the other half of what is missing.
    const emptiedMs = going ? Number.POSITIVE_INFINITY : 0
    const waitMs = atOnce ? 0 : emptied ? emptiedMs : longMs
    const elsewhere = this.#heldBack.formerNames()
    let renamed = false
    for (const [path, sinceMs] of this.#missing) {
      if (nowMs - sinceMs < waitMs) {
        waiting = true
        continue
      }
      if (this.#events.moving(path) || elsewhere.has(path)) {
        renamed = true
        continue
      }
      this.#missing.delete(path)
      const stat = this.#stat(path)
      if (stat === undefined) continue
      const entry = store.entry(path)
      if (entry && this.#ignoresShown(entry)) continue
      // Also where what is ignored has taken its place.
      if (stat === null || this.rules.ignores(path, stat.type === 'dir')) gone.push(path)
      else if (differs(entry, stat)) this.#touched.add(path)
    }
    if (gone.length === 0) this.#trustAgain()
    if (waiting || renamed) timers.soon('missing', nowMs + MISSING_MS, () => this.#commitMissing())
    else this.#missingInodes.clear()
    const allowedEnds = !waiting && !this.scanning
    if (gone.length === 0) return
    if (!this.#events.rootThere()) return this.#missNothing()
    if (this.#forgiving) return this.#forgive(gone)
    const fault = this.#guard.fault({
      nowMs,
      count: this.#ownDeletions(gone),
      known: store.state().totals.entries,
      part: settings.guardDeletes,
      emptied: () => emptied || this.#isEmptied(),
    })
    if (fault !== null) {
      const meant = `if that is meant, run 'realize arena resume ${settings.name}'`
      return this.#events.guard(`${fault}: ${meant}; if not, put them back first`)
    }
    if (allowedEnds) this.#guard.endAllowing()
    // Children before their folders, so that every peer can follow.
    gone.sort((a, b) => compareTree(b, a))
    const rest = { content: { type: 'gone', deleted: null }, stamp: null, leaves: null } as const
    while (gone.length > 0) {
      const held = this.#commit(gone.splice(0, COMMIT_MAX).map(path => ({ path, ...rest })))
      this.#guard.takeBack(this.#ownDeletions(held.map(({ path }) => path)))
    }
  }

  /** Nothing was deleted, as far as can be said now. What is still missing when the arena goes on, its scan finds. */
  #missNothing(): void {
    this.#missing.clear()
    this.#missingInodes.clear()
    this.#context.timers.clear('missing')
  }

  /** Nothing is left in the root: what nobody has told of yet is missing, too, for the guard is to judge the whole. */
  #missAll(): void {
    const { store } = this.#context
    if (this.#guard.allowed) return
    const { totals } = store.state()
    let shown = totals.realBytes
    for (const path of this.#missing.keys()) {
      const content = store.entry(path)?.have?.content
      if (content?.type === 'file') shown -= content.size
    }
    // Where very many are known and nearly all unreal, a root is empty now and then, and that is not looked through each time.
    if (shown > 0 || totals.entries - this.#missing.size <= EMPTIED_LOOKS) this.#missingUnder(null)
  }

  /** Whether nothing is left in the root. That is seldom so, and mostly seen without listing it. */
  #isEmptied(): boolean {
    const { store, disk } = this.#context
    const some = store.page(null, HOLLOW_LOOKS, null)
    if (some.some(entry => onDisk(entry) && !this.#missing.has(entry.path) && this.#stat(entry.path) !== null))
      return false
    try {
      return disk.list(undefined).names.length === 0
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return false
    }
  }

  /** Until this is called off, what is missing was not deleted: this store has forgotten what was given up in its root. */
  set forgiving(forgiving: boolean) {
    this.#forgiving = forgiving
  }
  #forgiving = false

  /** What is missing was not shown, as far as this store can tell: it comes again, where it is wanted. */
  #forgive(paths: readonly EntryPath[]): void {
    const { store } = this.#context
    store.transact(writer => {
      for (const path of paths) {
        const entry = store.entry(path)
        if (!entry) continue
        const pending = living(entry.known)
        const have = pending ? null : entry.known
        writer.putEntry(
          { ...entry, have, stamp: null, dormant: false, pending, announced: false, former: null },
          !pending,
        )
      }
    })
    this.#events.announced()
    this.#events.pending()
  }

  /** Of these those that are deletions of this disk's user: what others have deleted already, this peer only follows. */
  #ownDeletions(paths: readonly EntryPath[]): number {
    const { store } = this.#context
    const own = paths.map(path => store.entry(path)).filter(entry => living(entry?.have) && living(entry?.known))
    return own.length
  }

  /** It is looked at again as soon as what keeps it from being told is over. Until then its former name, if it had one, is not missed. */
  #holdBack({ path, from }: { path: EntryPath; from?: EntryPath | undefined }): void {
    this.#heldBack.add(path, from)
    this.#heldMs = MISSING_MS
    this.#letGoLater()
  }
  readonly #heldBack = new HeldBack()
  #heldMs = MISSING_MS

  #settledBelow(path: EntryPath, from?: EntryPath): boolean {
    return !hasBelow(this.#missing.keys(), path, from) && !this.#events.changingBelow(path)
  }

  #letGoLater(): void {
    const { clock, timers } = this.#context
    timers.soon('held back', clock.nowMs() + this.#heldMs, () => {
      const ready = this.#heldBack.takeReady(
        (path, from) =>
          this.#settledBelow(path, from) && ![path, ...ancestorsOf(path)].some(at => this.#events.unsettled(at)),
      )
      for (const path of ready) this.#touched.add(path)
      const missing = this.#missing.size > 0
      this.#heldMs = Math.min(this.#heldMs * 2, missing ? MISSING_MAX_MS : BARRED_MAX_MS)
      if (this.#heldBack.size > 0) this.#letGoLater()
    })
  }

  /** Makes what can be told part of the store. Returns what waits. */
  #commit(found: readonly Change[]): readonly Change[] {
    const { store, problems } = this.#context
    const events: HistoryEvent[] = []
    const { told: changes, held, again } = tellable(found, this.#surroundings)
    for (const { path } of changes) this.#heldBack.delete(path)
    for (const change of held) this.#holdBack(change)
    for (const path of again) this.#touched.add(path)
    for (const { path } of found) {
      this.#readyPaths.delete(path)
      if (this.#lookAfter.delete(path)) this.#touched.add(path)
    }
    let announced = false
    let pending = false
    store.transact(writer => {
      // A rename's new name goes out before the end of the old one: others then move what they have.
      for (const change of changes) {
        const outcome = this.#take(writer, change, events)
        if (outcome === 'announced') announced = true
        if (outcome === 'pending') pending = true
      }
    })
    for (const { path } of changes) {
      problems.clear(path)
      this.#reportTwin(path)
      // Also when they have gone.
      if (isIgnoreFile(path)) this.#readRules(folderOfIgnoreFile(path))
    }
    count(this.#context, { local_changes: events.length })
    tell(this.#context, events)
    const gone = changes.filter(change => change.content.type === 'gone')
    if (gone.length > 0) this.#events.emptied(gone.map(change => change.path))
    this.#events.committed(changes.map(change => change.path))
    this.#trustAgain()
    if (announced) this.#events.announced()
    if (pending) this.#events.pending()
    return held
  }

  /** Makes one change part of the store; see docs/reconciliation.md for each case. */
  #take(writer: Writer, change: Change, events: HistoryEvent[]): 'nothing' | 'announced' | 'pending' {
    const { store, rules } = this.#context
    const { path, stamp } = change
    const entry = store.entry(path)
    const seen = entry && !living(entry.have) ? this.#events.seen(path) : null
    const base = seen ?? entry?.have ?? null
    const suspect = this.#suspects.delete(path)
    if (change.leaves && change.content.type === 'file') writer.putLeaves(change.content.hash, change.leaves)
    const content: Content =
      change.content.type === 'gone'
        ? { type: 'gone', deleted: base?.content.type === 'file' ? base.content.hash : null }
        : change.content
    if (content.type === 'gone' && !living(base)) {
      // Never shown, or a folder that only held something.
      if (entry?.dormant) writer.putEntry({ ...entry, dormant: false }, false)
      return 'nothing'
    }
    if (content.type === 'dir' && entry?.dormant) return 'nothing'
    if (entry && seen && same(seen.content, content) && !same(entry.known.content, content)) {
      // What the user saw, brought from elsewhere; something else is known by now.
      writer.putEntry({ ...entry, have: seen, stamp, dormant: false, pending: true, announced: false }, false)
      return 'pending'
    }
    if (entry && base && seen === null && same(base.content, content)) {
      // The same as before: only how to recognise it has changed.
      writer.putEntry({ ...entry, stamp, dormant: false }, false)
      return 'nothing'
    }
    if (entry && (entry.pending || isUnshown(entry)) && same(entry.known.content, content)) {
      // What was to come, or need not, is here already: a batch that was cut off, or the user did the same.
      writer.putEntry(
        { ...entry, have: entry.known, stamp, dormant: false, pending: false, announced: false, former: base },
        true,
      )
      return 'announced'
    }
    if (entry && suspect && isLostWrite(entry, content, stamp)) {
      // Not a user's change: the power went before it was durable. What is known is to come again.
      const left = { have: leftBehind(entry, content), stamp, pending: true, announced: false, lost: true } as const
      writer.putEntry({ ...entry, ...left }, false)
      return 'pending'
    }
    const version = ownVersion(this.#context, writer, {
      content,
      // What a power loss may have undone, the user need not have seen.
      base: entry && suspect ? entry.former : (seen ?? rules.base(entry)),
      known: entry?.known ?? null,
      firstScan: this.#firstScan,
    })
    const { known } = rules.meet(entry?.known ?? null, version)
    const have: Version = same(known.content, content) ? known : version
    const pending = have !== known
    // What was merged with a change of ours is news for its origin, too.
    const origin = entry && known === entry.known ? entry.origin : null
    writer.putEntry(
      { path, seq: 0, known, have, stamp, dormant: false, origin, pending, announced: false, former: base },
      !pending,
    )
    this.#record(writer, change, base, version, events)
    return pending ? 'pending' : 'announced'
  }

  #record(writer: Writer, change: Change, base: Version | null, version: Version, events: HistoryEvent[]): void {
    const { content } = version
    const action =
      content.type === 'gone' ? 'deleted' : change.from !== undefined ? 'renamed' : living(base) ? 'edited' : 'created'
    const more = {
      ...(change.from !== undefined && { other: change.from }),
      ...(content.type === 'file' && { size: content.size }),
    }
    if ((this.#firstScan && action === 'created') || change.to !== undefined) return
    events.push(writer.addHistory(historyOf(this.#context, action, change.path, version, more)))
  }

  /** Names in one folder that some disks would merge are worth a word; here both can live. */
  #reportTwin(path: EntryPath): void {
    const { store, problems } = this.#context
    const name = nameOf(path)
    const fold = foldName(name)
    if (fold === name) return
    const parent = parentOf(path)
    const twin = (parent === undefined ? fold : `${parent}/${fold}`) as EntryPath
    if (living(store.entry(twin)?.known) && living(store.entry(path)?.known)) {
      problems.set(path, `differs only in case or Unicode form from '${twin}': some disks cannot hold both`, true)
    }
  }
}

/** The nearest mtime that peers take: some disks know more years. */
function sayableMtime(mtimeNs: bigint): bigint {
  return mtimeNs < MTIME_NS_MIN ? MTIME_NS_MIN : mtimeNs > MTIME_NS_MAX ? MTIME_NS_MAX : mtimeNs
}

function onDisk(entry: Entry): boolean {
  return entry.stamp !== null || entry.dormant || entry.have?.content.type === 'dir'
}

/** The same content and the same mtime: nothing to say. */
function same(a: Content, b: Content): boolean {
  return sameContent(a, b) && mtimeOf(a) === mtimeOf(b)
}
