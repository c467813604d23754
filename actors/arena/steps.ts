/**
 * One step on the disk: it is written down before it is done (R3), done only if the disk shows what is expected there, and concluded when
 * it is done. What a kill or the disk has broken off is finished or taken back by what the disk shows. Which steps there are is
 * decided in apply.ts.
 */
import type { EntryPath } from '../../protocol/ids.ts'
import { foldName, nameOf, parentOf } from '../../protocol/path.ts'
import type { HistoryEvent } from '../../protocol/status.ts'
import { hashSmall } from '../hasher/merkle.ts'
import { type ArenaContext, count, historyOf, log, tell } from './context.ts'
import { DiskError, type DiskStat, isAbsence } from './disk.ts'
import { isUntouched } from './disk-rules.ts'
import { concerns, movesFolder } from './folder-move.ts'
import type { LocalChanges } from './local.ts'
import { givesUp } from './plan.ts'
import { RESCUE_BYTES_MAX } from './rescue.ts'
import { type Entry, type Intent, NO_STAMP, type Stamp, type Writer } from './store.ts'
import { living, mtimeOf, sameContent, sameVersion, type Version } from './version.ts'
import type { VersionStore } from './versions.ts'
import { stampOf } from './walk.ts'

/** A step that the disk broke off is looked at again after this long. */
const SETTLE_MS = 5_000

export interface StepEvents {
  /** While stopped nothing is changed on the disk. */
  active(): boolean
  /** It cannot be put there now; `reason` for people. */
  inTheWay(path: EntryPath, reason: string): void
  /** What one path meets on the disk is its own problem. */
  unlessDiskFails<Result>(path: EntryPath, work: () => Result): Result | undefined
  /** Content was staged for this path, and was not placed. */
  discard(path: EntryPath, slot: string): void
  /** Whether the content at a path is on its way out: others see to that step (give-up.ts). */
  givingUp(path: EntryPath): boolean
  /** Whether files live in a folder that this disk need not show. */
  holdsUnreal(folder: EntryPath): boolean
  /** Makes the folders in which they live. */
  holdBelow(folder: EntryPath): void
  /** A whole folder was moved (folder-move.ts): its entries are concluded there. */
  movedFolder(writer: Writer, intent: Intent, events: HistoryEvent[]): void
  rulesApplied(path: EntryPath): void
  announced(): void
  /** The disk shows these now. */
  shown(paths: readonly EntryPath[]): void
  /** What waited for a step may go on. */
  again(): void
}

export class Steps {
  readonly #context: ArenaContext
  readonly #local: LocalChanges
  readonly #versions: VersionStore
  readonly #events: StepEvents
  /** A step is written down that is neither done nor taken back. */
  #unsettled = false

  constructor(context: ArenaContext, local: LocalChanges, versions: VersionStore, events: StepEvents) {
    this.#context = context
    this.#local = local
    this.#versions = versions
    this.#events = events
  }

  /** Whether a step was broken off and waits for the disk. */
  get unsettled(): boolean {
    return this.#unsettled
  }

  /** A step stays written down until the disk can do the rest of it, or take it back. */
  brokenOff(): void {
    this.#unsettled = true
  }

  /** The same, at this path: what stands there is not a user's change. */
  isUnsettled(path: EntryPath): boolean {
    return this.#unsettled && this.#context.store.intents().some(left => concerns(left, path))
  }

  /** Whether what was to go has left its place without being where it belongs, or may have. */
  isHalfDone(intent: Intent): boolean {
    try {
      return this.#taken(intent)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return true
    }
  }

  perform(entry: Entry, intent: Intent): 'done' | 'unexpected' | 'waits' {
    const { disk, store } = this.#context
    const { path, to } = intent
    const former = intent.formerIno !== 0n ? statOf(entry) : null
    const content = to.content
    if (this.#twin(entry)) return 'waits'
    if (content.type === 'gone') {
      if (former && intent.slot) return this.#takeOut(intent, former)
      return this.#removeFolder(entry)
    }
    if (content.type === 'dir') {
      if (former && intent.slot) return this.#takeOut(intent, former, () => this.#makeFolderUnlessTaken(path))
      try {
        disk.makeFolder(path)
      } catch (error) {
        if (!(error instanceof DiskError) || error.code !== 'EEXIST') throw error
        if (disk.stat(path)?.type !== 'dir') return 'unexpected'
      }
      return 'done'
    }
    if (content.type === 'file' && intent.slot === null && intent.source === null) {
      const there = disk.stat(path)
      if (!there || !isUntouched(there, statOf(entry))) return 'unexpected'
      return disk.setMeta(path, statOf(entry), content.mtimeNs, content.exec) === 'placed' ? 'done' : 'unexpected'
    }
    // A folder is in the way: what was in it has gone before, or is not ours to remove.
    if (entry.have?.content.type === 'dir' || entry.dormant) {
      const removed = this.#removeFolder(entry)
      if (removed !== 'done') return removed
    }
    if (intent.source !== null) {
      const source = store.entry(intent.source)
      if (!source?.stamp || disk.move(intent.source, path, statOf(source)) !== 'placed') return 'unexpected'
      // Still as it was before: what a user has written since keeps its own mtime, and is looked at. What the disk refuses now does
      // not undo the move.
      this.#events.unlessDiskFails(path, () => {
        if (content.type === 'file') disk.setMeta(path, statOf(source), content.mtimeNs, content.exec)
      })
      return 'done'
    }
    if (disk.place(intent.slot as string, path, former) !== 'placed') return 'unexpected'
    if (former) this.#orBack(intent, () => this.#keepFormer(intent))
    return 'done'
  }

  #takeOut(intent: Intent, former: DiskStat, then = () => {}): 'done' | 'unexpected' {
    const { disk } = this.#context
    if (!this.#tookOut(intent, former)) {
      return disk.stat(intent.path) === null ? 'done' : 'unexpected'
    }
    this.#orBack(intent, () => {
      then()
      this.#keepFormer(intent)
    })
    return 'done'
  }

  /** Where a folder above it has gone, or is no folder any more, it has gone as well. */
  #tookOut({ path, slot }: Intent, former: DiskStat): boolean {
    try {
      return this.#context.disk.takeOut(path, slot as string, former) === 'placed'
    } catch (error) {
      if (!isAbsence(error)) throw error
      return false
    }
  }

  /** If what follows fails, what has left its place goes back there. */
  #orBack({ path, slot, ino, formerIno, to }: Intent, work: () => void): void {
    const { disk } = this.#context
    try {
      work()
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      if (slot !== null && disk.stageStat(slot)?.ino === formerIno) {
        const there = disk.stat(path)
        if (there?.type === 'dir') disk.removeFolder(path)
        // What a user has put there meanwhile stays.
        if (there === null || there.type === 'dir') disk.place(slot, path, null)
        else if (there.ino === ino && this.#trusted(path, there, to)) disk.place(slot, path, there)
      }
      throw error
    }
  }

  /** Whatever a user has put in its place in this moment is looked at as their change. */
  #makeFolderUnlessTaken(path: EntryPath): void {
    try {
      this.#context.disk.makeFolder(path)
    } catch (error) {
      if (!(error instanceof DiskError) || error.code !== 'EEXIST') throw error
      this.#local.lookAgain(path)
    }
  }

  /** What came out of the tree goes to the version store, or becomes the conflict copy. */
  #keepFormer({ slot, kept, copy, formerIno }: Intent, powerLost = false): void {
    const { disk } = this.#context
    if (kept === null) return
    // Any of these may have been done before a kill.
    if (slot !== null && disk.stageStat(slot) !== null) disk.keep(slot, kept.id)
    if (copy === null || disk.keptStat(kept.id) === null) return
    // What was not durable may be torn: that is kept, but no copy for everybody.
    if (powerLost && !this.#keptIs(kept.id, copy.version)) return
    try {
      if (disk.linkKept(kept.id, copy.path) === 'placed' || disk.stat(copy.path)?.ino === formerIno)
        disk.keptRemove(kept.id)
    } catch (error) {
      // No room for the copy, or its folder has gone: then it stays in the version store.
      if (!(error instanceof DiskError)) throw error
    }
  }

  #keptIs(id: string, { content }: Version): boolean {
    const { disk } = this.#context
    if (content.type !== 'file') return true
    if (disk.keptStat(id)?.type !== 'file') return false
    const { fd, stat } = disk.keptOpen(id)
    try {
      if (stat.size !== content.size || stat.size > RESCUE_BYTES_MAX) return false
      return hashSmall(disk.readFd(fd, 0, stat.size)) === content.hash
    } finally {
      disk.close(fd)
    }
  }

  #removeFolder(entry: Entry): 'done' | 'waits' {
    const { disk, store, rules } = this.#context
    try {
      if (!this.#events.holdsUnreal(entry.path)) {
        disk.removeFolder(entry.path)
        return 'done'
      }
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      if (isAbsence(error)) {
        // Something else may stand there by now.
        if (error.code !== 'ENOENT') this.#local.lookAgain(entry.path)
        return 'done'
      }
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
    }
    // It holds what is not ours to remove, or not yet removed.
    if (!rules.holds || entry.known.content.type !== 'gone' || this.#holdsPending(entry.path)) {
      if (entry.known.content.type !== 'gone')
        this.#events.inTheWay(entry.path, 'a folder that is not empty is in its place')
      return 'waits'
    }
    store.transact(writer =>
      writer.putEntry(
        {
          ...entry,
          have: entry.known,
          stamp: null,
          dormant: true,
          pending: false,
          announced: false,
          former: null,
        },
        true,
      ),
    )
    this.#events.announced()
    return 'waits'
  }

  #holdsPending(folder: EntryPath): boolean {
    const { store } = this.#context
    for (let after: EntryPath | null = null; ; ) {
      const page: Entry[] = store.page(after, 256, folder)
      for (const entry of page) if (entry.pending && living(entry.have)) return true
      if (page.length < 256) return false
      after = (page.at(-1) as Entry).path
    }
  }

  /** A name that this disk would merge with another one stays out, with its reason. */
  #twin(entry: Entry): boolean {
    const { disk } = this.#context
    if (!(disk.foldsCase || disk.foldsUnicode) || living(entry.have) || !living(entry.known)) return false
    const stat = disk.stat(entry.path)
    if (!stat) return false
    const name = nameOf(entry.path)
    const { names } = disk.list(parentOf(entry.path))
    const twin = names.includes(name) ? undefined : names.find(other => foldName(other) === foldName(name))
    if (twin === undefined) return false
    this.#events.inTheWay(
      entry.path,
      `this disk cannot hold it beside '${twin}', which differs only in case or Unicode form: rename one`,
    )
    return true
  }

  /** One transaction: what was done is what we have now. `since`: it was done a while ago, and may have been written to. */
  conclude(done: readonly Intent[], dropped: readonly Intent[] = [], since = false): void {
    const { store, problems } = this.#context
    if (done.length === 0 && dropped.length === 0) return
    for (const intent of dropped) this.#standAgain(intent)
    const events: HistoryEvent[] = []
    let bytes = 0
    try {
      store.transact(writer => {
        for (const intent of dropped) writer.removeIntent(intent.path)
        for (const intent of done) {
          this.#concludeOne(writer, intent, events, since)
          if (intent.to.content.type === 'file' && intent.slot) bytes += intent.to.content.size
        }
      })
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      // What was done stays written down until the disk can say what it shows.
      this.#settleLater()
      return
    }
    for (const { path, source } of done) {
      problems.clear(path)
      this.#events.rulesApplied(path)
      if (source !== null) this.#events.rulesApplied(source)
    }
    if (done.length === 0) return
    for (const { path, to } of done)
      if (to.content.type === 'dir' && this.#events.holdsUnreal(path)) this.#events.holdBelow(path)
    this.#events.shown(done.flatMap(({ path, copy }) => (copy === null ? [path] : [path, copy.path])))
    count(this.#context, { applied: done.length, applied_bytes: bytes })
    log(this.#context, 'batch_applied', { entries: done.length, bytes })
    tell(this.#context, events)
    this.#events.announced()
  }

  #concludeOne(writer: Writer, intent: Intent, events: HistoryEvent[], since: boolean): void {
    if (movesFolder(intent)) return this.#events.movedFolder(writer, intent, events)
    const { store, disk, rules } = this.#context
    const { path, to, kept, copy, source } = intent
    writer.removeIntent(path)
    const entry = store.entry(path)
    // Something newer may have become known while this was done: then it stays pending.
    const displaced = intent.slot === null && copy !== null
    const known = displaced ? rules.meet(entry?.known ?? null, to).known : (entry?.known ?? to)
    const agrees = sameContent(known.content, to.content) && mtimeOf(known.content) === mtimeOf(to.content)
    writer.putEntry(
      {
        path,
        seq: 0,
        known,
        have: agrees ? known : to,
        stamp: this.#stampAfter(path, to, intent.ino, since),
        dormant: false,
        origin: displaced ? null : (entry?.origin ?? null),
        pending: !agrees,
        announced: false,
        former: intent.from,
      },
      true,
    )
    if (source !== null) {
      const from = store.entry(source)
      if (from) {
        const gone = from.known.content.type === 'gone'
        writer.putEntry(
          { ...from, have: gone ? from.known : null, stamp: null, pending: !gone, announced: false, former: from.have },
          gone,
        )
      }
    }
    const copied = copy !== null && disk.stat(copy.path)?.ino === intent.formerIno
    if (copied) this.#concludeCopy(writer, intent, copy, events, since)
    // Where the loser's copy stood already, it is in the version store besides.
    else if (kept && disk.keptStat(kept.id)) this.#versions.add(writer, kept)
    this.#record(writer, intent, events)
  }

  #concludeCopy(
    writer: Writer,
    { path, formerIno }: Intent,
    copy: NonNullable<Intent['copy']>,
    events: HistoryEvent[],
    since: boolean,
  ): void {
    const { store, rules } = this.#context
    const before = store.entry(copy.path)
    const known = before ? rules.meet(before.known, copy.version).known : copy.version
    // The loser as it was: a touch of its copy that has been heard of is to be done yet.
    const agrees =
      sameContent(known.content, copy.version.content) && mtimeOf(known.content) === mtimeOf(copy.version.content)
    writer.putEntry(
      {
        path: copy.path,
        seq: 0,
        known,
        have: agrees ? known : copy.version,
        stamp: this.#stampAfter(copy.path, copy.version, formerIno, since),
        dormant: false,
        origin: null,
        pending: !agrees,
        announced: false,
        former: null,
      },
      true,
    )
    events.push(writer.addHistory(historyOf(this.#context, 'conflicted', path, copy.version, { other: copy.path })))
    log(this.#context, 'entry_conflict', { path, copy: copy.path })
  }

  /**
   * How to recognise what was put there, by its inode `ino` (0: it was there already). Somebody may have changed, replaced
   * or removed it since: then it is looked at again. Where there was time to bring size and mtime back as well, in any case.
   */
  #stampAfter(path: EntryPath, version: Version, ino: bigint, since: boolean): Stamp | null {
    if (!living(version) || version.content.type === 'dir') return null
    const stat = since ? null : this.#context.disk.stat(path)
    if (stat && (ino === 0n || stat.ino === ino) && this.#trusted(path, stat, version)) return stampOf(stat)
    this.#local.lookAgain(path)
    return NO_STAMP
  }

  /** The disk shows exactly what was put there; else somebody has written since, and it must be looked at. */
  #trusted(path: EntryPath, stat: DiskStat, { content }: Version): boolean {
    if (content.type === 'symlink') return stat.type === 'symlink' && this.#linkTarget(path) === content.target
    if (content.type !== 'file' || stat.type !== 'file') return false
    return stat.size === content.size && stat.mtimeNs === content.mtimeNs && stat.exec === content.exec
  }

  #linkTarget(path: EntryPath): string | null {
    try {
      return this.#context.disk.readLink(path)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return null
    }
  }

  #record(writer: Writer, { path, to, from, source, copy, slot }: Intent, events: HistoryEvent[]): void {
    if (slot === null && copy !== null) return
    const { content } = to
    const action = content.type === 'gone' ? 'removed' : source !== null ? 'renamed' : 'received'
    const more = { ...(source !== null && { other: source }), ...(content.type === 'file' && { size: content.size }) }
    if (content.type === 'dir' && living(from)) return
    events.push(writer.addHistory(historyOf(this.#context, action, path, to, more)))
  }

  /** Finishes or takes back every step that is written down. With `powerLost` what was staged stays: it may be the last of it. */
  settle(powerLost = false): void {
    const { store } = this.#context
    const done: Intent[] = []
    const dropped: Intent[] = []
    for (const intent of store.intents()) {
      if (this.#events.givingUp(intent.path)) continue
      if (this.#finished(intent)) {
        this.#keepFormer(intent, powerLost)
        done.push(intent)
      } else {
        if (givesUp(intent)) this.#giveBack(intent, powerLost)
        else this.#putBack(intent, powerLost)
        dropped.push(intent)
      }
    }
    this.#unsettled = false
    this.conclude(done, dropped, true)
    if (done.length > 0) log(this.#context, 'intent_finished', { finished: done.length, dropped: dropped.length })
  }

  /** A step that the disk broke off is settled as soon as the disk can. */
  settleAgain(): void {
    try {
      this.settle()
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#settleLater()
    }
  }

  /** Content was not given up after all: what was taken out goes back, now or when the disk can. */
  takeBack(intents: readonly Intent[]): void {
    try {
      // What stopped the arena may be another folder in the place of the root.
      if (!this.#events.active()) return this.#settleLater()
      for (const intent of intents) this.#giveBack(intent, false)
      this.conclude([], intents)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#settleLater()
    }
  }

  /** Content that was taken out goes back to its path; or, if it had been given up and others have replaced it since, to the version store. */
  #giveBack(intent: Intent, powerLost: boolean): void {
    const { disk, store } = this.#context
    const { path, slot, to } = intent
    const entry = store.entry(path)
    this.#local.lookAgain(path)
    if (entry && !living(entry.have) && !sameVersion(entry.known, to)) {
      if (slot === null || disk.stageStat(slot) === null) return
      const kept = this.#versions.row(path, to)
      disk.keep(slot, kept.id)
      store.transact(writer => this.#versions.add(writer, kept))
    } else this.#putBack(intent, powerLost)
  }

  #settleLater(): void {
    const { timers, clock } = this.#context
    this.#unsettled = true
    timers.soon('settle intents', clock.nowMs() + SETTLE_MS, () => this.#events.again())
  }

  /** A slot that holds something else than what we staged holds what a user had just written: it goes back. */
  #putBack({ slot, ino, path }: Intent, powerLost: boolean): void {
    const { disk, store } = this.#context
    const stat = slot === null ? null : disk.stageStat(slot)
    if (slot === null || stat === null) return
    if (stat.ino === ino) return powerLost ? undefined : this.#events.discard(path, slot)
    try {
      if (disk.place(slot, path, null) === 'placed') return
    } catch (error) {
      // Its folder has gone meanwhile.
      if (!(error instanceof DiskError)) throw error
    }
    const nobody = store.entry(path)?.known
    if (!nobody) return
    const kept = {
      ...this.#versions.row(path, nobody),
      hash: null,
      size: stat.size,
      mtimeNs: stat.mtimeNs,
      exec: stat.exec,
    }
    disk.keep(slot, kept.id)
    store.transact(writer => this.#versions.add(writer, kept))
  }

  /** Whether the step had reached the disk. */
  #finished(intent: Intent): boolean {
    const { disk } = this.#context
    const { path, slot, source, ino, formerIno, to } = intent
    const stat = disk.stat(path)
    // What nobody needs to give up now goes back.
    if (givesUp(intent)) return false
    const taken = this.#taken(intent)
    if (source !== null) return stat !== null && stat.ino === ino
    if (to.content.type === 'dir') {
      if (formerIno !== 0n && !taken) return false
      return stat === null ? this.#madeFolder(path) : stat.type === 'dir'
    }
    if (to.content.type === 'gone') return formerIno !== 0n ? taken : stat === null
    if (slot === null) return stat !== null && this.#trusted(path, stat, to)
    // What was to go has gone: what stands there now, or nothing, is what a user made of it since.
    return taken || (stat !== null && ino !== 0n && stat.ino === ino)
  }

  /** Whether what was to go is on its way: in the slot, in the version store, or at the copy's path. */
  #taken({ slot, formerIno, copy, kept }: Intent): boolean {
    const { disk } = this.#context
    return (
      formerIno !== 0n &&
      ((slot !== null && disk.stageStat(slot)?.ino === formerIno) ||
        (kept !== null && disk.keptStat(kept.id)?.ino === formerIno) ||
        (copy !== null && disk.stat(copy.path)?.ino === formerIno))
    )
  }

  /** A folder goes just before what takes its place comes: if that does not come, it is there again, and nobody has deleted it. */
  #standAgain({ path, from, to }: Intent): void {
    if (from?.content.type !== 'dir' || !living(to) || to.content.type === 'dir') return
    this.#events.unlessDiskFails(path, () => {
      if (this.#context.disk.stat(path) === null) this.#madeFolder(path)
    })
  }

  #madeFolder(path: EntryPath): boolean {
    try {
      this.#context.disk.makeFolder(path)
      return true
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return false
    }
  }
}

/** What an entry expects the disk to show. */
export function statOf(entry: Entry): DiskStat {
  const stamp = entry.stamp ?? NO_STAMP
  const content = entry.have?.content
  return {
    type: content?.type === 'symlink' ? 'symlink' : content?.type === 'dir' ? 'dir' : 'file',
    ...stamp,
    exec: content?.type === 'file' && content.exec,
    links: 1,
  }
}
