/**
 * What happens on this disk becomes versions: looks where the watcher points, scans where it cannot, hashes what is new,
 * and commits changes in bulk. Files that are being written settle first; deletions wait a moment for their other half, a
 * rename; too many of them at once stop the arena and ask.
 */

import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { FILE_BYTES_MAX, LEAF_BYTES, LINK_TARGET_BYTES_MAX, MTIME_NS_MAX, MTIME_NS_MIN } from '../../protocol/limits.ts'
import { ancestorsOf, foldName, nameOf, parentOf, pathFault } from '../../protocol/path.ts'
import type { HashResult } from '../../protocol/ports.ts'
import type { HistoryEvent } from '../../protocol/status.ts'
import { rootOf } from '../hasher/merkle.ts'
import { type ArenaContext, count, log, tell } from './context.ts'
import { DeletionGuard } from './deletion-guard.ts'
import { DiskError, type DiskStat } from './disk.ts'
import { HashQueue } from './hash-queue.ts'
import { folderOfIgnoreFile, IGNORE_FILE, IGNORE_FILE_BYTES_MAX, IgnoreRules, isIgnoreFile } from './ignore-rules.ts'
import { compareTree, lastBelow } from './order.ts'
import { type Entry, NO_STAMP } from './store.ts'
import { takeChange } from './take-change.ts'
import { type Change, HeldBack, hasBelow, type Surroundings, tellable, wasFolder } from './telling.ts'
import { type Content, living, type Version } from './version.ts'
import { type Difference, differs, sameStamp, stampOf, walk } from './walk.ts'

/** A deletion is believed when the path is still missing after this long: editors replace by delete and create. */
const MISSING_MS = 60
/** While more goes missing all the time, deletions wait up to this long. */
const MISSING_MAX_MS = 1_500
/** While the disk is still being looked at, where their other halves may be found, they wait longer: a folder of very many files was moved. */
const MISSING_FINDING_MAX_MS = 30_000
/** What cannot be looked at or read is tried again after this long, doubling. */
const BARRED_FIRST_MS = 5_000
const BARRED_MAX_MS = 10 * 60_000
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
  readonly #hashes: HashQueue
  /** What was found missing, and when. */
  readonly #missing = new Map<EntryPath, number>()
  readonly #missingInodes = new Map<bigint, EntryPath>()
  readonly #ready: Change[] = []
  readonly #readyPaths = new Set<EntryPath>()
  /** Of those: told of since. What is committed may not be there any more. */
  readonly #lookAfter = new Set<EntryPath>()
  readonly #walks: { walk: Generator<Difference>; full: boolean }[] = []
  #rescanAsked = false
  #firstScan: boolean
  #looked = 0
  readonly #guard = new DeletionGuard()

  constructor(context: ArenaContext, events: LocalEvents) {
    this.#context = context
    this.#events = events
    this.#firstScan = !context.store.state().scanned
    this.rules = new IgnoreRules(context.settings.ignore)
    this.#hashes = new HashQueue(context, {
      hashed: (path, stat, leaves) => {
        const hash = rootOf(stat.size, leaves)
        this.#foundFile(path, stat, hash, stat.size > LEAF_BYTES ? leaves : null)
        return hash
      },
      movedOn: path => void this.#touched.add(path),
      unreadable: (path, reason) => this.#unreadable(path, reason),
      stat: path => this.#stat(path),
    })
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
    this.forgetFound()
  }

  /** The arena goes on: what was found before may be of another folder that was in the place of the root. All is looked at again. */
  forgetFound(): void {
    this.#missNothing()
    this.#hashes.clear()
    this.#ready.length = 0
    this.#readyPaths.clear()
    this.#lookAfter.clear()
    for (const path of [...this.#ruleTexts.keys()]) this.#readRules(folderOfIgnoreFile(path as EntryPath))
  }

  /** A scan begins anew, and its end is that of no other. */
  #endScans(): void {
    for (let at = this.#walks.length - 1; at >= 0; at--) if (this.#walks[at]?.full) this.#walks.splice(at, 1)
    this.#siblingsSeen.clear()
    this.#scanEnded = false
    this.#suspectsScanned = false
    this.#rescanAsked = true
  }

  /** Another folder is the root from now on: what is found in it has no history. */
  beginAnew(): void {
    this.#firstScan = true
    this.forgetFound()
    this.#walks.length = 0
    this.#touched.clear()
    this.#heldBack.clear()
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
      this.#hashes.quiet &&
      this.#missing.size === 0 &&
      this.#heldBack.size === 0 &&
      this.#ready.length === 0
    )
  }

  /** Work that can be done now, without waiting for anything. */
  get busy(): boolean {
    return (
      this.#touched.size > 0 ||
      (this.#rescanAsked && !this.#walks.some(item => item.full)) ||
      (this.#walks.length > 0 && !this.#hashes.full) ||
      this.#hashes.stepping ||
      (this.#walks.length === 0 && this.#hashes.ready) ||
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
      this.#suspectsScanned = false
      this.#walks.push({ walk: walk(this.#context.disk, this.#context.store, this.rules, null), full: true })
    }
    if (!this.#hashes.full) this.#walkOn()
    this.#hashes.step(this.#finding)
    this.#commitReady()
    this.#endMoved()
  }

  /** Whether the path waits to be looked at, or what was found to become known: its entry may not tell what the disk shows. */
  unsettled(path: EntryPath): boolean {
    return (
      this.#touched.has(path) ||
      this.#readyPaths.has(path) ||
      this.#hashes.has(path) ||
      this.#missing.has(path) ||
      this.#heldBack.has(path)
    )
  }

  hashed(id: number, results: readonly HashResult[]): void {
    this.#goneFolders.clear()
    this.#hashes.hashed(id, results)
    if (this.#events.working()) this.#commitReady()
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
      // One that was never told of is read, too, where it was seen.
      if (stat === null && !(entry && onDisk(entry)) && isIgnoreFile(path)) this.#readRules(folderOfIgnoreFile(path))
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
    if (!this.#scanEnded || !this.#hashes.idle || this.#ready.length > 0) return
    this.#scanEnded = false
    this.#forgetFaults()
    if (this.#faults.size === 0) this.#barredMs = BARRED_FIRST_MS
    // In a folder that cannot be listed, each by itself.
    for (const path of this.#suspects) if (ancestorsOf(path).some(at => this.#faults.has(at))) this.#touched.add(path)
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
    if (!this.#suspectsScanned || this.#ready.length > 0) return
    for (const path of this.#suspects) if (!this.unsettled(path) && !this.#isUnseen(path)) this.#suspects.delete(path)
    if (this.#suspects.size === 0) this.#events.trusted()
  }
  #suspectsScanned = false

  /** Whether a path could not be looked at, it or a folder above it, and will be again: what it shows is not known. */
  #isUnseen(path: EntryPath): boolean {
    return this.#barred.size > 0 && [path, ...ancestorsOf(path)].some(at => this.#barred.has(at))
  }

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
        this.#hashes.add(path, stat)
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
    if (!moved.untouched) this.#hashes.addAnew(path, stat)
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

  // Committing

  get #finding(): boolean {
    return this.#walks.length > 0 || this.#touched.size > 0
  }

  #commitReady(): void {
    // What was renamed does not wait for being hashed again.
    const waits = this.#finding || (this.#hashes.stepping && !this.#ready.some(({ from }) => from !== undefined))
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
    // What this one has found already is not known at its end any more.
    this.#endScans()
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
    const taking = {
      context: this.#context,
      firstScan: this.#firstScan,
      suspects: this.#suspects,
      seen: this.#surroundings.seen,
    }
    store.transact(writer => {
      // A rename's new name goes out before the end of the old one: others then move what they have.
      for (const change of changes) {
        const outcome = takeChange(taking, writer, change, events)
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
