/**
 * One arena: what this peer has of a shared set of files, and what the others say they have.
 *
 * Ties its parts together: local changes (local.ts) and peers' feeds (feed.ts) meet in the store; what is known but not here
 * is fetched (fetch.ts) and applied (apply.ts); peers are served (serve.ts), people answered (commands.ts). It decides
 * nothing itself but when it must stop and ask. No thread, socket, disk or clock of its own: worker.ts brings them, or
 * the simulator.
 */
import { SyncError, toFailure } from '../../protocol/error.ts'
import type { BlobHash, PeerId } from '../../protocol/ids.ts'
import { HOLDS_MAX } from '../../protocol/limits.ts'
import { checkPath } from '../../protocol/path.ts'
import { authorOf } from '../../protocol/peer-id.ts'
import type { ArenaControl, ArenaSettings, FileRef, FromPeer, HashResult, PatchResult } from '../../protocol/ports.ts'
import { type ArenaStatus, type ListedEntry, PROBLEMS_MAX } from '../../protocol/status.ts'
import type { ArenaWireMessage } from '../../protocol/wire.ts'
import { Applier } from './apply.ts'
import type { Blob } from './cache.ts'
import { Commands } from './commands.ts'
import { type ArenaContext, log } from './context.ts'
import { DiskError, isLasting } from './disk.ts'
import { Feed } from './feed.ts'
import { diskReason, Fetcher } from './fetch.ts'
import { GiveUp } from './give-up.ts'
import { isIgnoreFile } from './ignore-rules.ts'
import { LocalChanges } from './local.ts'
import { givenUpIn, markerId, markerWith } from './marker.ts'
import type { Digest } from './merkle-set.ts'
import { PatchOrders } from './patches.ts'
import { Pins } from './pins.ts'
import { isUnshown } from './plan.ts'
import { doubted } from './power-loss.ts'
import { Questions } from './questions.ts'
import { isReadId, type PlacedOutcome, type ReadOptions, type ReadOutcome, Reads } from './reads.ts'
import { Server } from './serve.ts'
import { Siblings } from './siblings.ts'
import type { Entry } from './store.ts'
import { Verify, type VerifyOutcome } from './verify.ts'
import { living } from './version.ts'
import { VersionStore } from './versions.ts'
import { HINDERED_MS, type ViewDesk, Views } from './views.ts'
import { Wholes } from './wholes.ts'

/** A status is sent at most this often; the first after quiet at once. */
const STATUS_MS = 40
/** With very many peers it is long: then it takes no more than this part of the time. */
const STATUS_PART = 1 / 20
/** Why a paused arena is closed to its peers, in their words. */
const PAUSED = 'it is paused there'
/** How often it is looked whether the right folder is back in the place of a wrong one. */
const ROOT_AGAIN_MS = 1_000
/** What came into the cache is written down after this long; how often it is held against its limits. */
const CACHE_NOTED_MS = 1_000
const CACHE_TRIM_MS = 60_000
/** How long a peer may take to say what it has. */
const HOLDS_MS = 2_000
/** Changes on the disk are made durable at least this long after they were made. */
const SYNC_MS = 1_000

type HoldsMessage = Extract<ArenaWireMessage, { type: 'holds' }>

export interface ArenaParts {
  readonly context: ArenaContext
  readonly digest: Digest
  /** This boot of the machine: volatile entries of another one are looked at again (R5). */
  readonly boot: string
  /** The root is gone: the arena must be opened anew when it is back. */
  readonly rootLost: (reason: string) => void
}

type Holder = NonNullable<ListedEntry['holders']>[number]

interface Settle {
  readonly control: number
  readonly probes: Set<PeerId>
  scanned: boolean
}

export class Arena {
  readonly #context: ArenaContext
  readonly #parts: ArenaParts
  readonly #local: LocalChanges
  readonly #feed: Feed
  readonly #fetch: Fetcher
  readonly #reads: Reads
  readonly #siblings: Siblings
  readonly #wholes: Wholes
  readonly #pins: Pins
  readonly #patches: PatchOrders
  readonly #apply: Applier
  readonly #questions: Questions
  readonly #giveUp: GiveUp
  readonly #server: Server
  readonly #commands: Commands
  readonly #versions: VersionStore
  readonly #views: Views
  /** Connected peers, opened or not: those to open when the arena goes on. */
  readonly #peers = new Map<PeerId, string>()
  #guard: string | null = null
  /** It stopped because another folder is in the place of the root. */
  #foreignRoot = false
  #paused = false
  #recovered = false
  /** All rule files have been read: what is not ignored can be told, and so what is wanted. Until then the end of the scan sees to it. */
  #marksHeeded = false
  /** Until all has been looked at: how often content was given up that this store does not know of; 0: it does. */
  #forgiving = 0
  /** All has been looked at since. */
  #forgivingSeen = false
  #marking = false
  #statusDueMs = Number.NEGATIVE_INFINITY
  #statusSaid = ''
  #syncing = false
  #unsynced = false
  /** After the machine went down, until everything volatile has been looked at. */
  #suspecting = false
  #powerLost = false
  #settles: Settle[] = []
  /** Peers that asked us to look at our disk: answered when we have. */
  readonly #probed = new Map<PeerId, number>()
  #probe = 0
  #verifies = new Set<Verify>()
  #watcherFault: string | null = null
  /** What the peers were told last of our looking at the disk. */
  #scanningSaid = false

  constructor(parts: ArenaParts) {
    this.#parts = parts
    const { context } = parts
    this.#context = context
    this.#versions = new VersionStore(context)
    this.#local = new LocalChanges(context, {
      announced: () => this.#announced(),
      pending: () => this.#apply.again(),
      committed: paths => {
        this.#apply.changed(paths)
        this.#giveUp.shown(paths)
        if (context.settings.conflicts === 'local') this.#reconsiderLeft()
      },
      unsettled: path => this.#apply.isUnsettled(path),
      seen: path => this.#views.seen(path),
      changingBelow: path => this.#views.isChangingBelow(path),
      moving: path => this.#views.isMoving(path),
      givingUp: path => this.#giveUp.isUnderWay(path),
      emptied: paths => this.#apply.wakeDormant(paths),
      working: () => this.#working,
      guard: reason => this.#stop(reason),
      rootThere: () => this.#checkRoot(),
      scanned: () => this.#scanned(),
      trusted: () => this.#trusted(),
      rulesChanged: () => {
        this.#reconsiderLeft()
        this.#views.everythingChanged()
      },
    })
    context.cache.wantsPinned = (path, hash) => {
      const content = context.store.entry(path)?.known.content
      return content?.type === 'file' && content.hash === hash && context.marks.of(path) === 'pinned'
    }
    context.cache.inUse = hash => this.#views.isRead(hash)
    this.#reads = new Reads(context)
    this.#siblings = new Siblings(context, this.#reads, path => !this.#local.rules.ignores(path, false))
    this.#wholes = new Wholes(context, this.#reads, () => this.#statusSoon())
    this.#pins = new Pins(context, this.#reads, () => this.#statusSoon())
    this.#patches = new PatchOrders(context)
    this.#fetch = new Fetcher(context, this.#patches, {
      staged: (path, slot, content, ino) => this.#apply.staged(path, slot, content, ino),
      stuck: (path, reason, hindrance) => this.#apply.stuck(path, reason, hindrance),
      copiedLater: path => this.#apply.copiedLater(path),
      progress: () => this.#statusSoon(),
    })
    this.#apply = new Applier(context, this.#fetch, this.#local, this.#versions, {
      border: work => this.#border(work),
      announced: () => this.#announced(),
      changed: () => this.#statusSoon(),
      shown: paths => this.#giveUp.shown(paths),
      nowhere: (hash, then) => this.#ifNowhere(hash, then),
      rulesApplied: path => {
        if (isIgnoreFile(path)) this.#local.rulesFile(path)
      },
    })
    this.#feed = new Feed(
      context,
      parts.digest,
      {
        learnt: paths => {
          this.#apply.known(paths)
          this.#pins.look(paths)
        },
        sources: (peer, paths) => this.#sources(peer, paths),
        peerChanged: () => this.#statusSoon(),
        peerReady: () => this.#giveUp.peerReady(),
        begunAfresh: () => this.#giveUp.leases.rest(context.clock.nowMs()),
      },
      () => {
        const scanning = this.#scanning
        // Whoever hears of it is to hear of its end, however soon that is.
        if (scanning) this.#scanningSaid = true
        return { scanning, pending: context.store.state().totals.pending }
      },
    )
    this.#questions = new Questions(context)
    this.#giveUp = new GiveUp(context, this.#local, this.#apply, this.#questions, {
      border: work => this.#border(work),
      disagreement: () => this.#missing()[0] ?? (this.#openPeers.length === 0 ? 'no other peer is connected' : null),
      syncSoon: () => {
        this.#unsynced = true
        this.#syncLater()
      },
      peers: () => this.#openPeers,
      inUse: ino => this.#views.isOpen(ino),
      moving: path => this.#views.isMoving(path),
      leaving: paths => this.#views.leaving(paths),
      left: paths => {
        this.#views.left(paths)
        this.#pins.look(paths)
      },
      changed: () => this.#statusSoon(),
    })
    this.#apply.givingUp = path => this.#giveUp.isUnderWay(path)
    this.#versions.promised = () => this.#giveUp.leases.promised(context.clock.nowMs())
    this.#server = new Server(context, this.#local, this.#patches, this.#versions)
    this.#commands = new Commands(context, this.#local, this.#versions, this.#fetch, path => this.#marksChanged(path))
    this.#views = new Views(context, this.#local, {
      announced: () => this.#announced(),
      working: () => this.#working,
      changed: paths => {
        this.#apply.changed(paths)
        this.#apply.wakeDormant(paths)
      },
      placing: path => this.#apply.isPlacing(path) || this.#giveUp.isUnderWay(path),
      read: (file, offset, length, done) => this.#place(file, offset, length, done),
      save: (file, failed) => {
        const giveUp = this.#reads.whole(file, failure => {
          if (failure !== null) failed()
        })
        this.#reads.step()
        return giveUp
      },
      awaited: hash => this.#versions.isAwaited(hash),
      leavingBelow: folder => this.#giveUp.isUnderWayBelow(folder),
      begun: (path, file) => this.#siblings.read(path, file),
      want: (path, wanted) => this.#want(path, wanted),
      hindrance: (entry, sinceMs) => this.#hindrance(entry, sinceMs),
      mark: (path, mark) => void this.#commands.mark(path, mark),
      holders: (hash, done) =>
        this.#holders([hash], holders => done((holders.get(hash) ?? []).map(({ name }) => name))),
    })
    this.#apply.caughtUp = () =>
      [...this.#feed.sessions.values()].every(session => !session.state || session.received >= session.state.seq)
    this.#apply.moreToCome = () =>
      [...this.#feed.sessions.values()].some(
        ({ theirs, state, received }) => theirs && state && (state.scanning || received < state.seq),
      )
    this.#apply.everybodyHeard = () =>
      this.#context.settings.peers.every(
        peer => authorOf(peer) === this.#context.settings.author || this.#feed.hasSaidAll(peer),
      )
  }

  /** Checks the root, recovers what a kill left half done, and begins the first scan. */
  start(): void {
    const { settings } = this.#context
    this.#trimLater()
    this.#powerLost = this.#context.store.state().boot !== this.#parts.boot
    this.#paused = settings.paused
    this.#border(() => {
      // The root first: what was begun in one folder must not be finished in another.
      if (this.#checkRoot() && this.#recover()) this.#goOn()
    })
  }

  /** Nothing is looked at before what was half done is done; a disk that cannot do it stops the arena. */
  #recover(): boolean {
    if (this.#recovered) return true
    this.#border(() => {
      this.#apply.recover(this.#powerLost)
      this.#recovered = true
      this.#suspectVolatile()
    })
    return this.#recovered
  }

  /** It is let go of: whoever waits for content is told so. */
  close(): void {
    this.#reads.close()
    this.#giveUp.close()
  }

  // The shell's side

  get busy(): boolean {
    const parts = [this.#local, this.#apply, this.#fetch, this.#wholes, this.#pins, this.#giveUp]
    return this.#working && parts.some(part => part.busy)
  }

  /** When to call `tick` next, monotonic milliseconds. */
  get wakeMs(): number {
    return this.#context.timers.nextMs
  }

  tick(): void {
    this.#border(() => this.#context.timers.ring(this.#context.clock.nowMs()))
    this.step()
  }

  /** One slice of work. */
  step(): void {
    if (this.#working) {
      this.#border(() => {
        this.#local.step()
        this.#apply.step()
        this.#fetch.step()
        this.#wholes.step()
        this.#giveUp.step()
        this.#endForgiving()
        this.#pins.step()
      })
    }
    this.#border(() => this.#views.step())
    this.#noteCached()
    this.#answerWaiting()
  }

  /** A mounted view shows this arena. What is in the buffers of `say` is handed over. */
  openView(say: Parameters<Views['open']>[0]): ViewDesk {
    const desk = this.#views.open(say)
    return { receive: message => this.#border(() => desk.receive(message)), close: () => desk.close() }
  }

  /** A file becomes a real one, whatever its mark. */
  #want(path: Entry['path'], wanted: boolean): void {
    const { store, marks } = this.#context
    marks.want(path, wanted)
    const entry = store.entry(path)
    if (wanted) this.#apply.hurry(path)
    if (wanted && entry && isUnshown(entry) && !entry.pending)
      store.transact(writer => writer.putEntry({ ...entry, pending: true }, false))
    this.#apply.marksChanged()
    if (!wanted) this.#giveUp.shown([path])
  }

  /** Why a file that somebody has waited for since then does not come; null: it may yet. */
  #hindrance({ path, known }: Entry, sinceMs: number): { code: string; reason: string } | null {
    const { store, problems, clock } = this.#context
    if (!this.#working) return { code: 'EHOSTUNREACH', reason: this.#guard ?? 'the arena is paused' }
    const hash = known.content.type === 'file' ? known.content.hash : null
    const here = hash !== null && (store.withHash(hash, 1).length > 0 || store.keptWithHash(hash) !== undefined)
    if (this.#peers.size === 0 && hash !== null && !here)
      return { code: 'EHOSTUNREACH', reason: 'no peer is connected' }
    const problem = problems.get(path)
    if (!problem || problem.note) return null
    const { reason } = problem
    const hindrance = this.#apply.hindrance(path)
    if (hindrance?.is === 'disk' && isLasting(hindrance.code)) return { code: hindrance.code, reason }
    const nowhere = hindrance?.is === 'content' && hash !== null && this.#fetch.isNowhere(hash)
    // Most of what is in the way goes by itself: a folder that was just moved, a peer that is just moving what it has.
    if (!nowhere && clock.nowMs() - sinceMs < HINDERED_MS) return null
    return { code: hindrance?.is === 'content' ? 'EHOSTUNREACH' : 'EBUSY', reason }
  }

  /** Errors of the root itself stop the arena; others are defects and end the thread. */
  #border(work: () => void): void {
    try {
      work()
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#rootFailed(error)
    }
  }

  get #working(): boolean {
    return this.#guard === null && !this.#paused
  }

  // The root

  /** Whether the folder at the root's path is the one that was synced; stops the arena if not. Throws DiskError. */
  #checkRoot(): boolean {
    const { store, disk, settings, timers, clock } = this.#context
    const written = disk.identity().marker
    const marker = written === null ? null : markerId(written)
    const known = store.state().disk
    if (written !== null && marker === known) this.#noteGivenUp(givenUpIn(written))
    if (known === null || (marker === null && !this.#showsAnything())) {
      const text = marker ?? known ?? this.#context.random()
      const givenUp = Math.max(store.state().givenUp, written === null ? 0 : givenUpIn(written))
      if (marker === null) disk.writeMarker(markerWith(text, givenUp))
      if (known === text || this.#marking) return true
      // The store must not know of a marker that a power loss can take away.
      this.#marking = true
      disk.sync(error => {
        this.#marking = false
        if (!error) store.transact(writer => writer.setState({ disk: text, givenUp }))
      })
      return true
    }
    if (marker === known) return true
    const what =
      marker === null
        ? 'its marker is gone: it was emptied, or another disk is mounted there'
        : 'it belongs to another arena or peer'
    this.#stop(
      `the folder is not the one that was synced (${what}): put the right one back, and it goes on by itself; or run 'realize arena resume ${settings.name}' to begin anew with this one: nothing is deleted elsewhere, and what it lacks comes again`,
    )
    this.#foreignRoot = true
    timers.set('root', clock.nowMs() + ROOT_AGAIN_MS, () => this.#lookForRoot())
    return false
  }

  /** Content was given up since this store was as it is: it was put back, and must not take that for deleted. */
  #noteGivenUp(inRoot: number): void {
    if (inRoot <= this.#context.store.state().givenUp) return
    this.#forgiving = inRoot
    this.#local.forgiving = true
  }

  /** All that this store had forgotten of is known again. */
  #endForgiving(): void {
    if (!this.#forgivingSeen || !this.#local.quiet) return
    const givenUp = this.#forgiving
    this.#forgivingSeen = false
    this.#forgiving = 0
    this.#local.forgiving = false
    this.#context.store.transact(writer => writer.setState({ givenUp }))
  }

  /** Goes on once the right folder is back. */
  #lookForRoot(): void {
    if (!this.#foreignRoot || !this.#checkRoot()) return
    this.#local.forgetFound()
    this.#foreignRoot = false
    this.#guard = null
    if (this.#recover()) this.#goOn()
  }

  /** Whether the disk is known to hold anything at all, that could be missed. */
  #showsAnything(): boolean {
    const { store } = this.#context
    for (let after: Entry['path'] | null = null; ; ) {
      const page: Entry[] = store.page(after, 1000, null)
      if (page.some(entry => living(entry.have))) return true
      if (page.length < 1000) return false
      after = (page.at(-1) as Entry).path
    }
  }

  #rootFailed(error: DiskError): void {
    const root = this.#context.settings.root ?? 'of this arena'
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR' || error.code === 'ENODEV' || error.code === 'ESTALE') {
      this.#parts.rootLost(
        `the folder ${root} is gone: nothing is deleted elsewhere; it goes on when the folder is back`,
      )
      this.#stop(`the folder ${root} is gone: nothing is deleted elsewhere; it goes on when the folder is back`)
    } else
      this.#stop(
        `the folder ${root} cannot be used: ${diskReason(error)}, then run 'realize arena resume ${this.#context.settings.name}'`,
      )
  }

  /** Nothing more is changed, here or elsewhere, until a person says so. */
  #stop(reason: string): void {
    this.#foreignRoot = false
    if (this.#guard === reason) return
    this.#guard = reason
    this.#apply.active = false
    this.#giveUp.active = false
    // What is still on its way must not be staged in a folder that may be another one.
    for (const peer of this.#feed.sessions.keys()) this.#fetch.peerReset(peer)
    log(this.#context, 'arena_guarded', { reason })
    this.#statusSoon()
    this.#feed.stateSoon()
  }

  #acceptGuard(): void {
    const { disk, store } = this.#context
    const { marker } = disk.identity()
    const text = marker ?? this.#context.random()
    if (marker === null) disk.writeMarker(text)
    if (markerId(text) !== store.state().disk) this.#beginAnew(text)
    this.#foreignRoot = false
    this.#guard = null
    this.#local.allowDeletions()
    if (this.#recover()) this.#goOn()
  }

  /**
   * Takes another folder for the root. What the former one showed tells nothing about this one: what is missing here was not
   * deleted, a file that is here has no history (R7), and versions that were kept in the former are not here.
   */
  #beginAnew(marker: string): void {
    const { store } = this.#context
    for (let after: Entry['path'] | null = null; ; ) {
      const page: Entry[] = store.page(after, 1000, null)
      const shown = page.filter(entry => entry.have !== null || entry.stamp !== null || entry.dormant)
      store.transact(writer => {
        for (const entry of shown) {
          const pending = living(entry.known)
          const have = pending ? null : entry.known
          writer.putEntry({ ...entry, have, stamp: null, dormant: false, pending, former: null }, false)
        }
      })
      if (page.length < 1000) break
      after = (page.at(-1) as Entry).path
    }
    const lost = store.kept(null, Number.MAX_SAFE_INTEGER).filter(({ id }) => this.#context.disk.keptStat(id) === null)
    store.transact(writer => {
      for (const { id } of lost) writer.removeKept(id)
      writer.setState({ disk: markerId(marker), givenUp: givenUpIn(marker), scanned: false })
    })
    this.#local.beginAnew()
    this.#recovered = false
  }

  #goOn(): void {
    const { settings, timers, clock } = this.#context
    this.#apply.active = this.#working
    this.#giveUp.active = this.#working
    if (!this.#working) return this.#statusSoon()
    this.#local.rescan()
    for (const session of this.#feed.sessions.values()) if (session.theirs) this.#fetch.peerOpened(session.id)
    for (const [peer, name] of this.#peers) if (!this.#feed.sessions.has(peer)) this.#openPeer(peer, name)
    timers.set('rescan', clock.nowMs() + settings.rescanMs, () => this.#rescanAgain())
    this.#statusSoon()
  }

  #rescanAgain(): void {
    const { settings, timers, clock } = this.#context
    if (this.#working) this.#local.rescan()
    // Without a watcher only scans see changes.
    const waitMs = this.#watcherFault === null ? settings.rescanMs : Math.min(settings.rescanMs, 10_000)
    timers.set('rescan', clock.nowMs() + waitMs, () => this.#rescanAgain())
  }

  /** After the machine itself went down, what was not known to be durable is looked at again: what was just recovered as well. */
  #suspectVolatile(): void {
    const { store, settings } = this.#context
    const { boot, durableSeq } = store.state()
    if (boot === this.#parts.boot) return
    // What came from a peer was durable before it had its place.
    const volatile = ({ have, former }: Entry) => have !== null && (former !== null || have.author === settings.author)
    const suspects: Entry[] = []
    for (let after = durableSeq; ; ) {
      const page = store.feed(after, 1000)
      suspects.push(...page.filter(entry => entry.have !== null))
      if (page.length < 1000) break
      after = (page.at(-1) as Entry).seq
    }
    // What is shown here and was not announced has no number of its own.
    for (let after: Entry['path'] | null = null; ; ) {
      const page: Entry['path'][] = store.pendingPage(after, 1000)
      for (const path of page) {
        const entry = store.entry(path)
        if (entry && entry.seq <= durableSeq && volatile(entry)) suspects.push(entry)
      }
      if (page.length < 1000) break
      after = page.at(-1) as Entry['path']
    }
    if (suspects.length === 0) return store.transact(writer => writer.setState({ boot: this.#parts.boot }))
    // The boot is written down when all have been looked at: a kill before that must not make them trusted.
    this.#suspecting = true
    store.transact(writer => {
      for (const entry of suspects) if (entry.stamp) writer.putEntry({ ...entry, stamp: doubted(entry.stamp) }, false)
    })
    this.#local.suspect(suspects.map(entry => entry.path))
  }

  #trusted(): void {
    if (!this.#suspecting) return
    this.#suspecting = false
    this.#context.store.transact(writer => writer.setState({ boot: this.#parts.boot }))
    this.#unsynced = true
    this.#syncLater()
  }

  // Commands of the supervisor

  settings(settings: ArenaSettings): void {
    const before = this.#context.settings
    this.#context.settings = settings
    this.#context.cache.setLimits(settings.cache)
    const rules = JSON.stringify(before.ignore) !== JSON.stringify(settings.ignore)
    if (rules) {
      this.#local.rules.configure(settings.ignore)
      this.#reconsiderLeft()
      this.#local.rescan()
    }
    if (before.conflicts !== settings.conflicts) {
      this.#feed.reopen()
      this.#reconsiderLeft()
    }
    if (before.mark !== settings.mark) {
      this.#context.marks.fallback = settings.mark
      this.#marksChanged(null)
    }
    if (settings.paused !== this.#paused) {
      this.#paused = settings.paused
      if (settings.paused) {
        for (const peer of this.#feed.sessions.keys()) {
          this.#fetch.peerReset(peer)
          this.#reads.peerReset(peer)
        }
        this.#feed.suspend(PAUSED)
        this.#apply.active = false
        this.#giveUp.active = false
      } else this.#goOn()
    }
    this.#statusSoon()
  }

  touched(paths: string[] | null): void {
    this.#local.touched(paths)
    if (this.#working) this.#feed.stateSoon()
  }

  watcher(fault: string | null): void {
    this.#watcherFault = fault
    if (fault === null) this.#context.problems.clear('')
    else {
      this.#context.problems.set('', `changes are found by scanning only: ${fault}`, true)
      this.#rescanAgain()
    }
    this.#statusSoon()
  }

  hashed(id: number, results: HashResult[]): void {
    this.#border(() => {
      if (id >= 0) return this.#local.hashed(id, results)
      for (const verify of this.#verifies) if (verify.hashed(id, results)) return
    })
  }

  patched(id: number, result: PatchResult): void {
    this.#border(() => this.#patches.patched(id, result))
  }

  /** For another arena here. One that is guarded or paused lends nothing: its folder may be another one. */
  lend(hash: BlobHash): FileRef | null {
    return this.#working ? this.#server.lend(hash) : null
  }

  lent(id: number, file: FileRef | null): void {
    this.#border(() => this.#fetch.lent(id, file))
  }

  control({ id, method, params }: ArenaControl): void {
    const { deliver } = this.#context
    try {
      const result = this.#control(id, method, params)
      if (result !== undefined) deliver({ to: 'supervisor', report: { type: 'reply', id, result } })
    } catch (error) {
      deliver({ to: 'supervisor', report: { type: 'refused', id, failure: toFailure(error) } })
      if (!(error instanceof SyncError || error instanceof DiskError)) throw error
    }
  }

  /** Undefined: answered later. */
  #control(id: number, method: string, params: Record<string, unknown>): unknown {
    switch (method) {
      case 'rescan':
        this.#local.rescan()
        return {}
      case 'accept_guard':
        if (this.#guard !== null) this.#border(() => this.#acceptGuard())
        if (this.#guard !== null) throw new SyncError('arena_unavailable', this.#guard)
        return {}
      case 'read':
        return this.#readFor(id, params)
      case 'fetch':
        this.#wholes.fetch(params.path as string | undefined, outcome =>
          this.#context.deliver({ to: 'supervisor', report: { type: 'reply', id, result: outcome } }),
        )
        return undefined
      case 'ls':
        if (params.holders !== true) return { entries: this.#commands.list(params.path as string | undefined) }
        this.#list(id, params.path as string | undefined)
        return undefined
      case 'evict':
        this.#evict(id, params.path as string | undefined)
        return undefined
      case 'settle':
        this.#settle(id, params.timeoutMs as number)
        return undefined
      case 'verify':
        this.#verify(id)
        return undefined
      default: {
        const result = this.#commands.run(method, params)
        if (result === undefined) throw new SyncError('message_invalid', `an arena does not know '${method}'`)
        return result
      }
    }
  }

  /** Of what is real here at once; else as soon as a peer has given it. */
  #readFor(id: number, params: Record<string, unknown>): unknown {
    const { deliver } = this.#context
    const offset = params.offset as number
    const blob = params.version === undefined ? this.#commands.notHere(params.path as string) : null
    if (!blob) return this.#commands.run('read', params)
    const ahead = params.ahead as number | undefined
    const options = ahead === undefined ? {} : { ahead }
    this.read(
      blob,
      offset,
      params.length as number,
      outcome => {
        if ('failure' in outcome)
          return deliver({ to: 'supervisor', report: { type: 'refused', id, failure: outcome.failure } })
        const { bytes } = outcome
        const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
        const result = { data, eof: offset + bytes.length >= blob.size, size: blob.size }
        deliver({ to: 'supervisor', report: { type: 'reply', id, result } })
      },
      options,
    )
    return undefined
  }

  /**
   * Bytes [offset, offset + length) of a blob, fewer at its end: from a file or the cache here, or from the peers, ahead of bulk
   * transfer. `done` may be called before this returns; the answer gives the read up. Failures: `unreachable` (EHOSTUNREACH: it is not
   * here and nobody who is connected gives it; said at once), `busy`.
   */
  read(
    blob: Blob,
    offset: number,
    length: number,
    done: (outcome: ReadOutcome) => void,
    options: ReadOptions = {},
  ): () => void {
    const bytes = this.#commands.fromFile(blob, offset, length)
    if (bytes) {
      done({ bytes })
      return () => {}
    }
    const cancel = this.#reads.read(blob, offset, length, done, options)
    this.#noteCached()
    return cancel
  }

  /** The same for who can read the cache's files. */
  #place(blob: Blob, offset: number, length: number, done: (outcome: PlacedOutcome) => void): () => void {
    const bytes = this.#commands.fromFile(blob, offset, length)
    if (bytes) {
      done({ bytes })
      return () => {}
    }
    const cancel = this.#reads.place(blob, offset, length, done)
    this.#noteCached()
    return cancel
  }

  /** Written down in bulk: a kill costs what came in the last second. */
  #noteCached(): void {
    const { cache, timers, clock } = this.#context
    if (!cache.dirty) return
    timers.soon('cache', clock.nowMs() + CACHE_NOTED_MS, () => {
      cache.flush()
      this.#statusSoon()
      this.#trimLater()
    })
  }

  /** Others fill the disk, too. */
  #trimLater(): void {
    const { cache, timers, clock } = this.#context
    if (cache.bytes === 0) return
    timers.soon('trim', clock.nowMs() + CACHE_TRIM_MS, () => {
      cache.trim()
      this.#statusSoon()
      this.#trimLater()
    })
  }

  /** Lists with who has the content: asked of all connected peers, and answered when all have, or time is up. */
  #list(id: number, path: string | undefined): void {
    const { store, deliver } = this.#context
    const entries = this.#commands.list(path)
    const files = entries.flatMap(entry => {
      const content = store.entry(entry.path)?.known.content
      return content?.type === 'file' ? [{ entry, hash: content.hash }] : []
    })
    const hashes = [...new Set(files.map(({ hash }) => hash))].slice(0, HOLDS_MAX)
    this.#holders(hashes, holders => {
      for (const { entry, hash } of files) {
        const those = holders.get(hash)
        if (those && this.#openPeers.length > 0) entry.holders = those
      }
      deliver({ to: 'supervisor', report: { type: 'reply', id, result: { entries } } })
    })
  }

  /** Asks all connected peers who of them has these contents, by name; what none has has an empty list. */
  #holders(hashes: readonly BlobHash[], done: (holders: Map<BlobHash, Holder[]>) => void): void {
    const holders = new Map<BlobHash, Holder[]>(hashes.map(hash => [hash, []]))
    const peers = hashes.length > 0 ? this.#openPeers : []
    let left = peers.length
    if (left === 0) return done(holders)
    for (const peer of peers) {
      const name = this.#feed.sessions.get(peer)?.name ?? peer
      this.#questions.ask<HoldsMessage>(peer, { type: 'holds', hashes: [...hashes] }, HOLDS_MS, answer => {
        for (const [index, hash] of hashes.entries()) {
          const held = answer?.held[index] ?? 'none'
          if (held !== 'none') holders.get(hash)?.push({ name, held })
        }
        if (--left > 0) return
        for (const those of holders.values()) those.sort((a, b) => (a.name < b.name ? -1 : 1))
        done(holders)
      })
    }
  }

  /** Who cannot give a content just now may have it all the same: an edit, or a disk that fails for a moment. */
  #ifNowhere(hash: BlobHash, then: () => void): void {
    const peers = this.#openPeers
    let left = peers.length
    for (const peer of peers)
      this.#questions.ask<HoldsMessage>(peer, { type: 'holds', hashes: [hash] }, HOLDS_MS, answer => {
        if (answer?.held[0] === 'none' && --left === 0) then()
      })
    if (left === 0) then()
  }

  #evict(id: number, text: string | undefined): void {
    const { deliver } = this.#context
    if (!this.#working) throw new SyncError('arena_unavailable', this.#guard ?? 'the arena is paused')
    const path = text === undefined ? undefined : checkPath(text)
    this.#giveUp.evict(path, outcome => {
      const result = { ...outcome, cachedBytes: this.#dropCached(path ?? null) }
      deliver({ to: 'supervisor', report: { type: 'reply', id, result } })
      this.#statusSoon()
    })
  }

  /** What is cached of unreal files, and neither pinned nor being read, goes. How many bytes that were. */
  #dropCached(under: Entry['path'] | null): number {
    const { store, marks, cache } = this.#context
    let bytes = 0
    const drop = ({ path, known }: Entry) => {
      if (known.content.type === 'file' && marks.of(path) === 'unreal') bytes += cache.release(known.content.hash)
    }
    const self = under === null ? undefined : store.entry(under)
    if (self) drop(self)
    for (let after: Entry['path'] | null = null; cache.bytes > 0; ) {
      const page: Entry[] = store.page(after, 1000, under)
      for (const entry of page) drop(entry)
      if (page.length < 1000) break
      after = (page.at(-1) as Entry).path
    }
    return bytes
  }

  #verify(id: number): void {
    const { deliver } = this.#context
    let outcome: VerifyOutcome | null = null
    const finish = (done: VerifyOutcome) => {
      const root = this.#feed.root
      const peers = [...this.#feed.sessions.values()].flatMap(session =>
        session.state ? [{ id: session.id, root: session.state.root, equal: session.state.root === root }] : [],
      )
      deliver({ to: 'supervisor', report: { type: 'reply', id, result: { ...done, root, peers } } })
    }
    const verify = new Verify(this.#context, done => {
      outcome = done
      this.#verifies.delete(verify)
      finish(done)
    })
    if (outcome === null) this.#verifies.add(verify)
  }

  // Peers

  peerOpened(peer: PeerId, name: string): void {
    this.#peers.set(peer, name)
    if (!this.#paused) this.#openPeer(peer, name)
  }

  #openPeer(peer: PeerId, name: string): void {
    this.#feed.opened(peer, name)
  }

  peerClosed(peer: PeerId): void {
    this.#peers.delete(peer)
    this.#probed.delete(peer)
    for (const settle of this.#settles) settle.probes.delete(peer)
    this.#feed.closed(peer)
    this.#fetch.peerClosed(peer)
    this.#reads.peerReset(peer)
    this.#questions.peerReset(peer)
  }

  /** Throws SyncError if the peer broke the protocol. */
  fromPeer(peer: PeerId, message: FromPeer): void {
    switch (message.type) {
      case 'wire':
        if (this.#feed.sessions.has(peer))
          return this.#border(() => this.#wire(peer, message.header, message.payload ?? new Uint8Array(0)))
        // Who is told that this arena is closed says its `arena_open` again when ours comes.
        if (message.header.type === 'arena_open') this.#feed.decline(peer, PAUSED)
        return
      // What the connection still writes, and when it has stopped, counts also while this arena is closed.
      case 'stored':
        return this.#fetch.stored(message.id, message.from, message.count)
      case 'downloaded':
        return this.#fetch.downloaded(message.id)
      case 'download_failed':
        return this.#fetch.failed(peer, message.id, message.failure)
      case 'closed':
        return this.peerClosed(peer)
      default:
        message satisfies never
    }
  }

  #wire(peer: PeerId, header: ArenaWireMessage, payload: Uint8Array): void {
    switch (header.type) {
      case 'arena_open':
        this.#feed.arenaOpen(peer, header)
        if (header.again || !this.#feed.sessions.get(peer)?.theirs) return
        this.#fetch.peerReset(peer)
        this.#reads.peerReset(peer)
        this.#reads.peerOpened(peer)
        this.#questions.peerReset(peer)
        this.#pins.lookAtAll()
        if (this.#working) this.#fetch.peerOpened(peer)
        return
      case 'arena_close':
        this.#fetch.peerReset(peer)
        this.#reads.peerReset(peer)
        this.#questions.peerReset(peer)
        return this.#feed.arenaClose(peer, header)
      case 'rolled_back':
        return this.#feed.rolledBack(peer, header)
      case 'feed':
        return this.#feed.take(peer, header)
      case 'feed_ack':
        return this.#feed.feedAck(peer, header)
      case 'arena_state':
        this.#feed.arenaState(peer, header)
        if (header.probe > 0) for (const settle of this.#settles) settle.probes.delete(peer)
        return
      case 'arena_probe':
        this.#local.rescan()
        this.#probed.set(peer, header.probe)
        return
      case 'fetch_blobs':
        return this.#server.fetchBlobs(peer, header)
      case 'pack':
        return (isReadId(header.id) ? this.#reads : this.#fetch).pack(peer, header.id, header.sizes, payload)
      case 'fetch_tree':
        return this.#server.fetchTree(peer, header)
      case 'tree':
        return (isReadId(header.id) ? this.#reads : this.#fetch).tree(peer, header.id, payload)
      case 'fetch_leaves':
        return this.#server.fetchLeaves(peer, header)
      case 'fetch_nodes':
        return this.#server.fetchNodes(peer, header)
      case 'fetch_anchors':
        return this.#server.fetchAnchors(peer, header)
      case 'fetch_delta':
        return this.#server.fetchDelta(peer, header, payload)
      case 'anchors':
      case 'delta':
        return this.#fetch.answered(peer, header.id, payload)
      case 'holds':
        return this.#server.holds(peer, header)
      case 'lease':
        return this.#giveUp.lease(peer, header)
      case 'lease_end':
        return this.#giveUp.leaseEnd(peer, header)
      case 'held':
      case 'leased':
        this.#questions.answered(peer, header)
        return
      case 'fetch_failed':
        if (isReadId(header.id)) return this.#reads.failed(peer, header.id, header.code)
        if (this.#questions.answered(peer, header)) return
        return this.#fetch.failed(peer, header.id, { code: 'blob_missing', message: header.reason })
      case 'leaves':
        if (!isReadId(header.id)) throw new SyncError('message_invalid', 'leaves that nobody asked for')
        return this.#reads.leaves(peer, header.id, header.from, header.count, payload)
      default:
        header satisfies never
    }
  }

  #sources(peer: PeerId, paths: readonly Entry['path'][]): void {
    const { store } = this.#context
    const hashes = paths.flatMap(path => {
      const entry = store.entry(path)
      return entry?.pending && entry.known.content.type === 'file' ? [entry.known.content.hash] : []
    })
    if (hashes.length > 0) this.#fetch.holders(peer, hashes)
  }

  /** Peers that have this arena open and have said how they stand. */
  get #openPeers(): PeerId[] {
    return [...this.#feed.sessions.values()].flatMap(({ id, theirs, state }) => (theirs && state ? [id] : []))
  }

  // What follows from what

  #announced(): void {
    this.#unsynced = true
    this.#feed.pump()
    this.#feed.stateSoon()
    if (this.#context.store.state().totals.pending > 0) this.#apply.again()
    this.#syncLater()
    this.#statusSoon()
  }

  /** In bulk and off the path of the changes: what was announced or applied becomes durable (R5). */
  #syncLater(): void {
    const { timers, clock, disk, store } = this.#context
    if (this.#syncing) return
    timers.soon('sync', clock.nowMs() + SYNC_MS, () => {
      if (!this.#unsynced) return
      this.#unsynced = false
      this.#syncing = true
      const { seq } = store.state()
      disk.sync(error => {
        this.#syncing = false
        if (error) this.#unsynced = true
        else if (!this.#suspecting)
          store.transact(writer => writer.setState({ durableSeq: Math.max(store.state().durableSeq, seq) }))
        if (this.#unsynced) this.#syncLater()
      })
    })
  }

  #scanned(): void {
    this.#forgivingSeen = this.#forgiving > 0
    this.#marksHeeded = true
    // Changed while this was not running, or in the moment in which it was killed.
    if (this.#context.store.state().marked !== this.#context.settings.mark) this.#marksChanged(null)
    // Folders that a user has taken away, or a kill, are made again for what is only known below them.
    else if (!this.#context.marks.allReal) this.#giveUp.search()
    this.#apply.sweep()
    for (const settle of this.#settles) settle.scanned = true
    this.#feed.stateSoon()
    this.#apply.again()
    this.#statusSoon()
  }

  /**
   * After a change of rules, policy or marks, or of a file of our own that kept theirs out: what was left alone may be wanted. `under`: a
   * folder; else everywhere.
   */
  #reconsiderLeft(under: Entry['path'] | null = null): void {
    const { store } = this.#context
    for (let after: Entry['path'] | null = null; ; ) {
      const page: Entry[] = store.page(after, 1000, under)
      const wrong = page.filter(
        entry =>
          entry.have !== entry.known &&
          !entry.pending &&
          (living(entry.have) || living(entry.known)) &&
          !(isUnshown(entry) && !this.#context.marks.wantsReal(entry.path)) &&
          !this.#local.rules.ignoresEntry(entry),
      )
      if (wrong.length > 0) {
        store.transact(writer => {
          for (const entry of wrong) writer.putEntry({ ...entry, pending: true }, false)
        })
      }
      if (page.length < 1000) break
      after = (page.at(-1) as Entry).path
    }
    this.#apply.rulesChanged()
  }

  /** Other marks hold for a path and what is below it; null: for everything. */
  #marksChanged(path: Entry['path'] | null): void {
    if (this.#marksHeeded) this.#heedMarks(path)
    this.#apply.marksChanged()
    this.#giveUp.search()
    this.#pins.lookAtAll()
    this.#feed.stateSoon()
    this.#statusSoon()
  }

  /** What becomes wanted real is looked for; and that this was done is written down after it, so that a kill in between is made good. */
  #heedMarks(path: Entry['path'] | null): void {
    const { store, marks, settings } = this.#context
    const entry = path === null ? undefined : store.entry(path)
    if (entry && isUnshown(entry) && !entry.pending && marks.wantsReal(entry.path))
      store.transact(writer => writer.putEntry({ ...entry, pending: true }, false))
    if (entry?.known.content.type !== 'file') this.#reconsiderLeft(path)
    store.transact(writer => writer.setState({ marked: settings.mark }))
  }

  // Status

  get #scanning(): boolean {
    return this.#working && !this.#local.quiet
  }

  #missing(): string[] {
    const { store, problems } = this.#context
    const missing: string[] = []
    if (this.#guard !== null) missing.push(this.#guard)
    if (this.#paused) missing.push('it is paused')
    if (this.#scanning) missing.push('changes on this disk are being looked at')
    const { totals, seq } = store.state()
    if (totals.pending > 0) {
      missing.push(`${totals.pending} entries (${totals.pendingBytes} bytes) are not here yet`)
      for (const problem of problems.list(20)) if (!problem.note) missing.push(`${problem.path}: ${problem.reason}`)
    }
    const root = this.#feed.root
    for (const session of this.#feed.sessions.values()) {
      const reason = this.#feed.missingWith(session, root, seq)
      if (reason !== null) missing.push(reason)
    }
    return missing
  }

  status(): ArenaStatus {
    const { settings, store, problems } = this.#context
    const { totals } = store.state()
    const missing = this.#missing()
    const scanning = this.#working && this.#local.scanning
    const syncing = totals.pending > 0 || this.#scanning
    return {
      name: settings.name,
      path: settings.root,
      state:
        this.#guard !== null
          ? 'guarded'
          : this.#paused
            ? 'paused'
            : scanning
              ? 'scanning'
              : syncing
                ? 'syncing'
                : 'idle',
      reason: this.#guard,
      consensus: missing.length === 0,
      missing,
      root: this.#feed.root,
      files: totals.files,
      bytes: totals.bytes,
      realBytes: totals.realBytes,
      cachedBytes: this.#context.cache.bytes,
      fetching: this.#wholes.progress,
      needFiles: totals.pending,
      needBytes: totals.pendingBytes,
      conflicts: totals.conflicts,
      problems: problems.list(PROBLEMS_MAX),
      problemCount: problems.count,
      scan: scanning ? { done: this.#local.scanned } : null,
      peers: this.#feed.describe(),
    }
  }

  #statusSoon(): void {
    const { clock, timers } = this.#context
    const dueMs = Math.max(clock.nowMs(), this.#statusDueMs)
    timers.soon('status', dueMs, () => {
      const startMs = clock.nowMs()
      const status = this.status()
      const said = JSON.stringify(status)
      if (said !== this.#statusSaid) this.#context.deliver({ to: 'supervisor', report: { type: 'status', status } })
      this.#statusSaid = said
      this.#statusDueMs = startMs + Math.max(STATUS_MS, (clock.nowMs() - startMs) / STATUS_PART)
    })
  }

  // Waiting for consensus

  /** Looks at the disk, has the peers look at theirs, and answers when all agree or time is up. */
  #settle(control: number, timeoutMs: number): void {
    const { clock, timers } = this.#context
    const probes = new Set<PeerId>()
    for (const session of this.#feed.sessions.values()) {
      if (!session.theirs) continue
      probes.add(session.id)
      this.#feed.probe(session.id, ++this.#probe)
    }
    this.#local.rescan()
    this.#settles.push({ control, probes, scanned: false })
    timers.set(`settle:${control}`, clock.nowMs() + timeoutMs, () => this.#settled(control))
  }

  #settled(control: number): void {
    const settle = this.#settles.find(item => item.control === control)
    if (!settle) return
    this.#settles = this.#settles.filter(item => item !== settle)
    this.#context.timers.clear(`settle:${control}`)
    const missing = this.#missing()
    for (const peer of settle.probes)
      missing.push(`${this.#feed.sessions.get(peer)?.name ?? peer} has not answered yet`)
    const result = { consensus: missing.length === 0, missing }
    this.#context.deliver({ to: 'supervisor', report: { type: 'reply', id: control, result } })
  }

  /** Answers probes and settles whose time has come: run after everything, it looks at what is. */
  #answerWaiting(): void {
    if (this.#scanning !== this.#scanningSaid) {
      this.#scanningSaid = this.#scanning
      this.#feed.stateSoon()
      this.#statusSoon()
    }
    if (this.#probed.size > 0 && !this.#local.scanning && this.#local.quiet) {
      for (const [peer, probe] of this.#probed) this.#feed.answerProbe(peer, probe)
      this.#probed.clear()
    }
    if (this.#settles.length === 0) return
    const ready = this.#settles.filter(settle => settle.scanned && settle.probes.size === 0)
    if (ready.length > 0 && this.#missing().length === 0) for (const settle of ready) this.#settled(settle.control)
  }
}
