/**
 * A household in one thread: real arenas over disks and tables in memory, a network that delays and cuts, watchers that
 * forget, people who write. One queue of events, one clock, one seed: the same script gives the same course.
 */
import { createHash } from 'node:crypto'
import { Arena } from '../../actors/arena/arena.ts'
import { Cache } from '../../actors/arena/cache.ts'
import { MemoryCacheFiles } from '../../actors/arena/cache-files-memory.ts'
import { type ArenaOutput, Problems, Timers } from '../../actors/arena/context.ts'
import type { TornFile } from '../../actors/arena/disk-journal.ts'
import { Marks } from '../../actors/arena/marks.ts'
import { givesUp } from '../../actors/arena/plan.ts'
import { isReadId } from '../../actors/arena/reads.ts'
import { RecentContent } from '../../actors/arena/recent.ts'
import { RULES, type Rules } from '../../actors/arena/rules.ts'
import type { Store } from '../../actors/arena/store.ts'
import { openStore } from '../../actors/arena/store-tables.ts'
import { MemoryTables } from '../../actors/arena/tables-memory.ts'
import { living } from '../../actors/arena/version.ts'
import type { ViewDesk } from '../../actors/arena/views.ts'
import { engine } from '../../actors/hasher/engine.ts'
import { hashLeaves, hashSmall, leafCount } from '../../actors/hasher/merkle.ts'
import { perform } from '../../actors/hasher/patch.ts'
import type { Mark } from '../../protocol/control.ts'
import { type ErrorCode, type Failure, SyncError } from '../../protocol/error.ts'
import type { ArenaName, Author, EntryPath, PeerId, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import { LEAF_BYTES, LEAVES_PER_MESSAGE } from '../../protocol/limits.ts'
import { ancestorsOf, OWN_FOLDER } from '../../protocol/path.ts'
import type { ArenaReport, ArenaSettings, FromView, HashResult, HashTask, ToPeer } from '../../protocol/ports.ts'
import { type ArenaWireMessage, wire } from '../../protocol/wire.ts'
import { memoryFiles } from '../arena/_memory-files.ts'
import { randomFrom } from '../system/_random.ts'
import { bytesHeld, bytesKey, contentKey, contentsOf, Ledger, pathsOf } from './_ledger.ts'
import { Killed, SimulatedDisk, SimulatedTables, SimulationFailure } from './_parts.ts'
import { type Script, type Step, TICK_NS } from './_script.ts'
import { User } from './_user.ts'
import { ViewUser } from './_view.ts'

const START_MS = Date.UTC(2026, 0, 1)
const ARENA = 'sim' as ArenaName
const RESCAN_MS = 60_000
/** A transaction is durable after this long, asked for or not. */
const STORE_DURABLE_MS = 100
const LETTERS = 'ABCDEFGHIJ'
/** More events than this in one phase: the world runs in circles. */
const EVENTS_MAX = 1_500_000
const HASH_BYTES = 32
/** Without a trace only some messages are held against their schema. */
const CHECKED_EVERY = 16
/** Characters of the trace that are hashed at once. */
const TRACE_CHUNK = 16_384

type PowerStep = Extract<Step, { do: 'power' }>

export interface Peer {
  readonly index: number
  readonly id: PeerId
  readonly name: string
  readonly disk: SimulatedDisk
  readonly user: User
  /** The same person at a mount. */
  readonly viewUser: ViewUser
  /** The arena's end of the mount. */
  desk: ViewDesk | null
  /** What the view has said and the arena has not heard yet. */
  readonly viewWords: (() => void)[]
  /** Paths where the user has taken something away, and no deletion was told since. */
  readonly removed: Set<string>
  /** The same, for what was just out of place in a folder that they took away. */
  readonly removedBelow: Set<string>
  arena: Arena | null
  store: Store | null
  /** What it wants of each path, and of the arena. */
  marks: Marks
  mark: Mark
  tables: SimulatedTables
  /** Outlives the process. */
  readonly cacheFiles: MemoryCacheFiles
  boot: number
  /** What is wrong with its wall clock. */
  readonly clock: { aheadMs: number }
  /** Counts starts: what an earlier process asked for is not answered to a later one. */
  life: number
  wakes: number
  /** Changes until the process ends; null: it does not. */
  fuse: number | null
  onFuse: () => void
  backup: MemoryTables | null
  /** A number counts who wants it down. */
  full: number
  /** Calls of its disk that fail, while there are any such. */
  errors: { code: string; part: number } | null
  /** How its volume is taken away now. */
  away: 'nothing' | 'empty' | null
  guards: string[]
  paused: boolean
  /** What its user is about to do, in order. */
  readonly plans: { readonly atMs: number; readonly step: Step; done: boolean }[]
}

interface Transfer {
  readonly order: Extract<ToPeer, { type: 'download' }>
  readonly life: number
  next: number
}

/** One TCP connection between two peers; `ends[0]` is the lower index. */
interface Connection {
  readonly ends: readonly [Peer, Peer]
  readonly lives: readonly [number, number]
  readonly open: [boolean, boolean]
  readonly lastMs: [number, number]
  readonly downloads: readonly [Map<number, Transfer>, Map<number, Transfer>]
}

export class World {
  readonly peers: Peer[] = []
  readonly ledger = new Ledger()
  readonly script: Script
  /** How often what happened: events of the log, and what the world did. */
  readonly counts = new Map<string, number>()
  /** A log for people, if wanted. */
  print: ((line: string) => void) | null = null
  /** The course is noted, for its hash or for people. */
  traced = true
  nowMs = 0
  events = 0
  feedEntries = 0
  /** When a user did something last. */
  userMs = 0
  readonly #trace = createHash('md5')
  /** Of the trace, not yet hashed. */
  #lines = ''
  readonly #random: () => number
  readonly #queue: { atMs: number; order: number; run: () => void }[] = []
  #order = 0
  readonly #connections = new Map<string, Connection>()
  /** Pairs that cannot reach each other, with the number of reasons. */
  readonly #severed = new Map<string, number>()
  #tick = 0
  #messages = 0
  #healthy = false

  /** Users write rule files. */
  readonly ignoring: boolean
  /** Not everybody wants everything real. */
  readonly marking: boolean
  /** Users work through mounts. */
  readonly viewed: boolean
  /** Users make hard links: what is done through one name no watcher tells of the other; a scan finds it. */
  readonly linked: boolean

  readonly #rules: Rules

  constructor(script: Script, rules: Rules = RULES) {
    this.script = script
    this.#rules = rules
    this.linked = script.steps.some(step => step.do === 'link')
    this.marking = script.steps.some(step => step.do === 'mark')
    this.viewed = script.steps.some(step => step.do === 'view')
    this.ignoring = script.steps.some(step => step.do === 'ignore')
    this.#random = randomFrom(script.seed * 31 + 7)
    for (let index = 0; index < script.peers; index++) this.peers.push(this.#makePeer(index))
  }

  // The queue

  at(atMs: number, run: () => void): void {
    const event = { atMs: Math.max(atMs, this.nowMs), order: ++this.#order, run }
    const queue = this.#queue
    let child = queue.push(event) - 1
    while (child > 0) {
      const parent = (child - 1) >> 1
      if (before(queue[parent] as typeof event, event)) break
      queue[child] = queue[parent] as typeof event
      child = parent
    }
    queue[child] = event
  }

  after(waitMs: number, run: () => void): void {
    this.at(this.nowMs + waitMs, run)
  }

  #next(): { atMs: number; run: () => void } | undefined {
    const queue = this.#queue
    const first = queue[0]
    const last = queue.pop()
    if (first === undefined || last === undefined || queue.length === 0) return first
    let parent = 0
    for (;;) {
      let child = 2 * parent + 1
      if (child >= queue.length) break
      if (child + 1 < queue.length && before(queue[child + 1] as typeof last, queue[child] as typeof last)) child++
      if (before(last, queue[child] as typeof last)) break
      queue[parent] = queue[child] as typeof last
      parent = child
    }
    queue[parent] = last
    return first
  }

  /** Runs everything that is due until then. */
  runUntil(atMs: number): void {
    while ((this.#queue[0]?.atMs ?? Number.POSITIVE_INFINITY) <= atMs) {
      const event = this.#next() as { atMs: number; run: () => void }
      this.nowMs = event.atMs
      if (++this.events > EVENTS_MAX)
        throw new SimulationFailure('circles', `more than ${EVENTS_MAX} events in one phase`)
      event.run()
    }
    this.nowMs = atMs
  }

  note(line: string): void {
    if (!this.traced) return
    const text = `${this.nowMs.toFixed(2)} ${line}\n`
    this.#lines += text
    if (this.#lines.length > TRACE_CHUNK) this.#hashTrace()
    this.print?.(text)
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by)
  }

  #hashTrace(): void {
    this.#trace.update(this.#lines)
    this.#lines = ''
  }

  traceHash(): string {
    this.#hashTrace()
    return this.#trace.copy().digest('hex')
  }

  chance(): number {
    return this.#random()
  }

  #hex(): string {
    return Array.from({ length: 16 }, () => Math.floor(this.#random() * 16).toString(16)).join('')
  }

  // Peers

  #makePeer(index: number): Peer {
    const letter = LETTERS[index] as string
    const author = letter.repeat(7)
    const clock = { aheadMs: 0 }
    const disk = new SimulatedDisk(
      { nowNs: () => this.#nowNs(clock), mtimeGrainNs: BigInt(this.script.grainNs ?? 1) },
      {
        change: (operation, path) => this.#changing(peer, operation, path),
        changed: (operation, path, from) => this.#changed(peer, operation, path, from),
        look: operation => this.#looking(peer, operation),
        syncing: complete => this.#syncing(peer, complete),
      },
    )
    const user = new User({
      peer: index,
      disk,
      ledger: this.ledger,
      nowMs: () => this.nowMs,
      touched: (...paths) => this.#watch(peer, paths),
      later: (waitMs, work) => this.#laterFor(peer, waitMs, work),
      inAnyCase: (waitMs, work) => this.after(waitMs, work),
      overflow: () => this.#enter(peer, arena => arena.touched(null)),
      removed: (path, ...below) => {
        peer.removedBelow.add(path)
        for (const one of [path, ...below]) peer.removed.add(one)
      },
    })
    const viewUser = new ViewUser({
      disk,
      ledger: this.ledger,
      user,
      store: () => peer.store,
      tell: (message, arriving) => this.#fromView(peer, message, arriving),
      later: (waitMs, work) => this.#laterFor(peer, waitMs, work),
      keyOf: hash => {
        const bytes = this.#contentOf(hash)
        return bytes && bytesKey(bytes)
      },
      count: what => this.count(what),
    })
    const peer: Peer = {
      index,
      id: Array.from({ length: 8 }, () => author).join('-') as PeerId,
      name: letter,
      disk,
      user,
      viewUser,
      desk: null,
      viewWords: [],
      removed: new Set(),
      removedBelow: new Set(),
      arena: null,
      store: null,
      marks: new Marks('real'),
      mark: 'real',
      tables: this.#newTables(new MemoryTables(), () => peer),
      cacheFiles: new MemoryCacheFiles({ open: bytes => disk.openApart(bytes) }),
      boot: 0,
      clock,
      life: 0,
      wakes: 0,
      fuse: null,
      onFuse: () => {},
      backup: null,
      full: 0,
      errors: null,
      away: null,
      guards: [],
      paused: false,
      plans: [],
    }
    return peer
  }

  /** A user goes on after a pause, unless the volume has gone. */
  #laterFor(peer: Peer, waitMs: number, work: () => void): void {
    this.after(waitMs, () => {
      if (peer.away !== null) return
      this.userMs = this.nowMs
      work()
      this.#noteReplaced(peer)
    })
  }

  #newTables(tables: MemoryTables, peerOf: () => Peer): SimulatedTables {
    return new SimulatedTables(
      tables,
      () => this.#burn(peerOf()),
      complete => {
        const peer = peerOf()
        const { life } = peer
        this.after(1 + this.chance() * 20, () => {
          if (peer.life === life) this.#enter(peer, () => complete())
        })
      },
      complete => this.after(STORE_DURABLE_MS, complete),
    )
  }

  #wallMs(clock: Peer['clock']): number {
    return START_MS + Math.floor(this.nowMs) + clock.aheadMs
  }

  #nowNs(clock: Peer['clock']): bigint {
    const nowNs = BigInt(this.#wallMs(clock)) * 1_000_000n + BigInt(++this.#tick % 1_000_000)
    const grainNs = BigInt(this.script.grainNs === TICK_NS ? TICK_NS : 1)
    return nowNs - (nowNs % grainNs)
  }

  start(peer: Peer): void {
    if (peer.arena !== null) return
    if (peer.away === 'nothing') return this.after(ROOT_RETRY_MS, () => this.start(peer))
    peer.life++
    peer.fuse = null
    this.note(`${peer.name} starts`)
    peer.disk.inside = true
    try {
      const store = openStore({
        tables: peer.tables,
        digest,
        newReplica: () => this.#hex() as ReplicaId,
        newSession: () => this.#hex() as SessionToken,
        boot: `boot-${peer.boot}`,
      })
      peer.store = store
      peer.marks = new Marks(peer.mark, store.marks())
      const { life, clock } = peer
      const arena = new Arena({
        context: {
          settings: this.#settingsOf(peer, false),
          store,
          disk: peer.disk,
          cache: new Cache({
            tables: peer.tables,
            files: peer.cacheFiles,
            limits: { max: { bytes: 2 ** 40 }, leave: { bytes: 0 } },
            wallMs: () => this.#wallMs(clock),
            leavesOf: hash => store.leaves(hash),
          }),
          clock: { nowMs: () => this.nowMs, wallMs: () => this.#wallMs(clock) },
          random: () => this.#hex(),
          deliver: output => {
            if (peer.life === life) this.#deliver(peer, output)
          },
          problems: new Problems(),
          timers: new Timers(),
          recent: new RecentContent(),
          marks: peer.marks,
          rules: this.#rules,
        },
        digest,
        boot: `boot-${peer.boot}`,
        rootLost: () => this.#rootLost(peer),
      })
      peer.arena = arena
      arena.start()
      if (this.viewed) this.#openView(peer)
    } catch (error) {
      this.#border(peer, error)
    } finally {
      peer.disk.inside = false
    }
    for (const other of this.peers) this.#connect(peer, other)
    this.#wake(peer)
  }

  #openView(peer: Peer): void {
    const { life } = peer
    peer.viewUser.reset()
    peer.desk?.close()
    peer.desk =
      peer.arena?.openView(message =>
        this.after(VIEW_MS * this.chance(), () => {
          if (peer.life === life) peer.viewUser.heard(message)
        }),
      ) ?? null
  }

  #fromView(peer: Peer, message: FromView, arriving: (() => void) | undefined): void {
    const { life, desk } = peer
    peer.viewWords.push(() => {
      if (peer.life !== life || peer.desk !== desk) return
      arriving?.()
      this.#enter(peer, () => desk?.receive(message))
    })
    // A moment later, and in their order: as through a port.
    this.after(VIEW_MS * this.chance(), () => peer.viewWords.shift()?.())
  }

  /** The shell lets go of an arena whose root is gone, and opens it again when it is back. */
  #rootLost(peer: Peer): void {
    const { life } = peer
    this.after(0, () => {
      if (peer.life !== life) return
      this.#down(peer)
      this.after(ROOT_RETRY_MS, () => this.start(peer))
    })
  }

  /** Lets the arena do something, then what follows from it. A kill ends it there. */
  #enter(peer: Peer, work: (arena: Arena) => void): void {
    const { arena } = peer
    if (arena === null) return
    const { inside } = peer.disk
    peer.disk.inside = true
    try {
      work(arena)
      arena.step()
    } catch (error) {
      this.#border(peer, error)
    } finally {
      peer.disk.inside = inside
    }
    this.#wake(peer)
  }

  #border(peer: Peer, error: unknown): void {
    if (error instanceof Killed) {
      peer.disk.inside = false
      return this.#down(peer)
    }
    if (error instanceof SimulationFailure) throw error
    if (error instanceof SyncError)
      throw new SimulationFailure('breach', `${peer.name} refused its peer: ${error.message}`)
    throw new SimulationFailure('crash', `${peer.name}: ${(error as Error).stack}`)
  }

  #wake(peer: Peer): void {
    const { arena } = peer
    if (arena === null) return
    const wake = ++peer.wakes
    const atMs = arena.busy ? this.nowMs + 0.02 + this.chance() * 0.5 : Math.max(arena.wakeMs, this.nowMs + 0.02)
    if (atMs === Number.POSITIVE_INFINITY) return
    this.at(atMs, () => {
      if (peer.wakes === wake) this.#enter(peer, () => arena.tick())
    })
  }

  // Ends

  #burn(peer: Peer): void {
    if (peer.fuse === null || --peer.fuse > 0) return
    peer.fuse = null
    throw new Killed()
  }

  /** The process is gone; its disk and store are as they are. */
  #down(peer: Peer): void {
    if (peer.arena === null) return
    this.note(`${peer.name} ends`)
    peer.arena = null
    peer.store = null
    peer.desk = null
    peer.viewUser.reset()
    peer.life++
    peer.fuse = null
    peer.disk.dispose()
    for (const other of this.peers) this.#disconnect(peer, other)
    const { onFuse } = peer
    peer.onFuse = () => {}
    onFuse()
  }

  #kill(peer: Peer, after: number, downMs: number, then: () => void): void {
    const again = () => {
      then()
      this.after(downMs, () => this.start(peer))
    }
    if (peer.arena === null) return
    peer.onFuse = again
    if (after === 0) return this.#down(peer)
    peer.fuse = after
    const { life } = peer
    // Nothing to interrupt: it ends anyway.
    this.after(3_000, () => {
      if (peer.life === life) this.#down(peer)
    })
  }

  #powerLoss(peer: Peer, { disk, store, left, torn = 0 }: PowerStep): void {
    if (peer.away !== null) {
      // Its volume was unmounted in order before.
      peer.boot++
      peer.tables = this.#newTables(peer.tables.afterPowerLoss(store), () => peer)
      return
    }
    const held = bytesHeld(peer.disk)
    if (disk) {
      peer.disk.completeSync()
      peer.disk.sync(() => {})
      peer.disk.completeSync()
    }
    const tornFiles = peer.disk.crash({ steps: left ?? 'none', torn, chance: () => this.chance() })
    peer.boot++
    peer.tables = this.#newTables(peer.tables.afterPowerLoss(store), () => peer)
    this.#noteTorn(peer, tornFiles)
    // What others have only staged, they may have no use for in the end.
    const others = this.peers.flatMap(other =>
      other === peer || other.away !== null ? [] : [...contentsOf(other.disk)],
    )
    const kept = new Set([...bytesHeld(peer.disk), ...others])
    // What was on that disk alone, and not yet durable, nobody can bring back.
    for (const key of held) if (!kept.has(key)) this.ledger.ended(key)
  }

  /** Torn content that the store cannot tell from a user's, because it never saw the whole, is what its user finds and keeps. */
  #noteTorn(peer: Peer, tornFiles: readonly TornFile[]): void {
    const files = new Map(tornFiles.map(file => [file.ino, file]))
    const store = this.#storeOf(peer)
    for (const path of pathsOf(peer.disk)) {
      const stat = peer.disk.stat(path as EntryPath)
      const file = files.get(stat?.ino ?? 0n)
      // A deletion that neither the disk nor the store remembers was none: nobody but its user can know of it.
      const shown = contentKey(peer.disk, path)
      if (shown !== null && store.entry(path as EntryPath)?.known.content.type !== 'gone')
        this.ledger.returned.add(shown)
      if (stat === null || file === undefined) continue
      if (peer.disk.asStaged(file.ino, file.whole))
        throw new SimulationFailure('I5 placed before it was durable', `${peer.name} has ${path} torn`)
      const have = store.entry(path as EntryPath)?.have?.content
      const known = have?.type === 'file' && have.hash === hashSmall(file.whole) && have.mtimeNs >= stat.mtimeNs
      this.note(`${peer.name} has ${path} torn, ${known ? 'and can tell' : 'which it cannot tell'}`)
      this.count(known ? 'torn' : 'torn unseen')
      const key = bytesKey(file.bytes)
      if (known) this.ledger.torn.add(key)
      else this.ledger.written.set(key, { peer: peer.index, path, atMs: this.nowMs })
    }
    // What was being replaced when the power went is kept as it is found.
    for (const slot of peer.disk.stageList()) {
      const file = files.get(peer.disk.stageStat(slot)?.ino ?? 0n)
      if (file) this.ledger.written.set(bytesKey(file.bytes), { peer: peer.index, path: slot, atMs: this.nowMs })
    }
  }

  // Disk

  #changing(peer: Peer, operation: string, path: string): string | null {
    if (peer.arena === null) return null
    this.#burn(peer)
    this.#race(peer)
    if (peer.full > 0 && FILLING.has(operation) && this.chance() < 0.5) return 'ENOSPC'
    if (peer.errors && this.chance() < peer.errors.part) {
      const { code } = peer.errors
      if (code === 'ENOSPC' ? FILLING.has(operation) : code !== 'EMFILE' || OPENING.has(operation)) return code
    }
    if (!operation.startsWith('own ')) {
      this.note(`${peer.name} ${operation} ${path}`)
      this.#watch(peer, [path])
    }
    return null
  }

  #looking(peer: Peer, operation: string): string | null {
    if (!peer.errors || peer.errors.code === 'ENOSPC' || this.chance() >= peer.errors.part) return null
    return peer.errors.code !== 'EMFILE' || OPENING.has(operation) ? peer.errors.code : null
  }

  /** I5 and I6 at every step: only what users wrote comes to a path, and nothing leaves it that only gets a successor. */
  #changed(peer: Peer, operation: 'place' | 'takeOut' | 'move' | 'linkKept', path: EntryPath, from?: EntryPath): void {
    const { disk, store } = peer
    // What the user has just taken away below a folder is missing under its new name.
    if (from !== undefined)
      for (const gone of [...peer.removed])
        if (gone.startsWith(`${from}/`)) peer.removed.add(path + gone.slice(from.length))
    const { inside } = disk
    disk.inside = false
    const key = contentKey(disk, path)
    disk.inside = inside
    if (operation !== 'takeOut' && key !== null && key !== 'empty' && !this.ledger.written.has(key))
      throw new SimulationFailure('I5 invented content', `${peer.name} ${operation} ${path} (${key})`)
    if (operation !== 'takeOut') return
    const next = store?.entry(path)?.known.content.type
    if (store?.intents().some(intent => intent.path === path && givesUp(intent))) return
    if (next === 'file' || next === 'symlink')
      throw new SimulationFailure('I6 not atomic', `${path} leaves its place for a ${next} at ${peer.name}`)
  }

  #syncing(peer: Peer, complete: () => void): void {
    const { life, boot } = peer
    this.after(0.5 + this.chance() * 30, () => {
      if (peer.life === life) this.#enter(peer, complete)
      else if (peer.boot === boot) complete()
    })
  }

  #watch(peer: Peer, paths: readonly string[]): void {
    if (this.chance() < this.script.loss && !this.#healthy) return
    const { life } = peer
    this.after(0.5 + this.chance() * 60, () => {
      if (peer.life === life) this.#enter(peer, arena => arena.touched([...paths]))
    })
  }

  // What an arena says

  #deliver(peer: Peer, output: ArenaOutput): void {
    if (output.to === 'supervisor') return this.#report(peer, output.report)
    const { message } = output
    const other = this.peers.find(item => item.id === output.peer) as Peer
    const connection = this.#connections.get(pairOf(peer, other))
    const side = connection?.ends[0] === peer ? 0 : 1
    if (!connection?.open[side]) {
      if (message.type === 'upload' || message.type === 'download') peer.disk.close(message.fd)
      return
    }
    switch (message.type) {
      case 'send':
        return this.#send(connection, side, message.header, message.payload)
      case 'download': {
        connection.downloads[side].set(message.id, { order: message, life: peer.life, next: message.from })
        const { id, hash, from, count, urgent } = message
        return this.#send(connection, side, { type: 'fetch_leaves', arena: ARENA, id, hash, from, count, urgent })
      }
      case 'upload':
        return this.#upload(connection, side, message)
      case 'cancel': {
        const { id } = message
        const transfer = connection.downloads[side].get(id)
        if (!transfer) return
        connection.downloads[side].delete(id)
        if (transfer.life === peer.life) peer.disk.close(transfer.order.fd)
        const failure: Failure = { code: 'peer_closed', message: 'not wanted any more' }
        const { life } = peer
        return this.after(this.chance(), () => {
          if (peer.life === life && connection.open[side])
            this.#enter(peer, arena => arena.fromPeer(other.id, { type: 'download_failed', id, failure }))
        })
      }
      default:
        throw new SimulationFailure('breach', `${peer.name} broke off: ${JSON.stringify(message)}`)
    }
  }

  #report(peer: Peer, report: ArenaReport): void {
    if (report.type === 'log') {
      this.count(report.event)
      if (this.traced) this.note(`${peer.name} ${report.event} ${JSON.stringify(report.fields)}`)
      // It mends what a defect has torn apart, and must not be needed, but where another folder was taken for the root.
      const otherRoot = this.script.steps.some(step => step.do === 'unmount')
      if (report.event === 'arena_drifted' && !otherRoot)
        throw new SimulationFailure('drift', JSON.stringify(report.fields))
      if (report.event === 'arena_guarded') peer.guards.push(String(report.fields.reason))
    } else if (report.type === 'hash') {
      const { life } = peer
      const { id, tasks } = report
      this.after(0.5 + this.chance() * 100, () => {
        if (peer.life !== life) return
        const results = tasks.map(task => hashTask(peer.disk, task))
        this.#enter(peer, arena => arena.hashed(id, results))
      })
    } else if (report.type === 'patch') {
      const { life } = peer
      const { id, task } = report
      this.after(0.5 + this.chance() * 100, () => {
        if (peer.life !== life) return
        this.#enter(peer, arena => arena.patched(id, perform(task, memoryFiles(peer.disk))))
      })
    } else if (report.type === 'borrow') {
      // There is one arena on each peer: nobody lends. Without chance, so that older scripts play as they did.
      const { life } = peer
      const { id } = report
      this.after(0, () => {
        if (peer.life === life) this.#enter(peer, arena => arena.lent(id, null))
      })
    } else if (report.type === 'history') {
      for (const { action, path, other, author } of report.events) {
        this.note(`${peer.name} history ${action} ${path}${other === undefined ? '' : ` from ${other}`} by ${author}`)
        if (action === 'unrealized') this.#givenUp(peer, path)
        if (action === 'deleted' && author === (LETTERS[peer.index] as string).repeat(7)) this.#deleted(peer, path)
      }
    }
  }

  /** I8 at every step: what this peer tells as a deletion, its user has done. A store that was put back may take it for news. */
  #deleted(peer: Peer, path: EntryPath): void {
    if (peer.removed.delete(path) || ancestorsOf(path).some(folder => peer.removedBelow.has(folder))) return
    if (this.script.steps.some(step => FORGETTING.has(step.do))) return
    throw new SimulationFailure('I8 deleted by nobody', `${peer.name} tells of the end of ${path}`)
  }

  /** What a user puts where the very same peer has made a file, and given it up, replaces it: its count includes it. */
  #noteReplaced(peer: Peer): void {
    if (!this.marking) return
    const store = peer.store ?? this.#storeOf(peer)
    const { inside } = peer.disk
    peer.disk.inside = false
    for (const { path, known, have, dormant } of store.page(null, 10_000, null)) {
      const { content, author } = known
      if (content.type !== 'file' || living(have) || dormant || author !== (LETTERS[peer.index] as string).repeat(7))
        continue
      if (peer.disk.stat(path) === null) continue
      for (const { disk } of this.peers)
        if (hashAt(disk, path) === content.hash) this.ledger.ended(contentKey(disk, path))
    }
    peer.disk.inside = inside
  }

  /** What the store of a peer that is down says. */
  #storeOf(peer: Peer): Store {
    return openStore({
      tables: peer.tables.snapshot(),
      digest,
      newReplica: () => '0'.repeat(16) as ReplicaId,
      newSession: () => '0'.repeat(16) as SessionToken,
      boot: '',
    })
  }

  /** I7 at every step: what is given up is on another disk at the same path, or its user has just ended it there. */
  #givenUp(peer: Peer, path: EntryPath): void {
    this.count('given up')
    const content = peer.store?.entry(path)?.known.content
    if (content?.type !== 'file' || content.size === 0) return
    const { inside } = peer.disk
    peer.disk.inside = false
    const slot = peer.disk.stageList().find(name => hashAt(peer.disk, `${OWN_FOLDER}/staging/${name}`) === content.hash)
    const key = slot === undefined ? null : contentKey(peer.disk, `${OWN_FOLDER}/staging/${slot}`)
    peer.disk.inside = inside
    const others = this.peers.filter(other => other !== peer && other.away === null)
    if (others.some(({ disk }) => hashAt(disk, path) === content.hash)) return
    if (key === null || !this.ledger.required.has(key) || others.some(({ disk }) => contentsOf(disk).has(key))) return
    throw new SimulationFailure('I7 last copy', `${peer.name} gives up ${path} (${key}), and nobody else shows it`)
  }

  // Network

  #mayMeet(a: Peer, b: Peer): boolean {
    return this.script.topology !== 'line' || Math.abs(a.index - b.index) <= 1
  }

  #reachable(a: Peer, b: Peer): boolean {
    if (a === b || a.arena === null || b.arena === null) return false
    if (this.script.topology === 'line' && Math.abs(a.index - b.index) > 1) return false
    if (this.script.topology === 'star' && a.index * b.index !== 0) return false
    return (this.#severed.get(pairOf(a, b)) ?? 0) === 0
  }

  /** Both dial; a while later they are connected, if they still can be. */
  #connect(a: Peer, b: Peer): void {
    if (!this.#reachable(a, b)) return
    const lives = [a.life, b.life]
    this.after(1 + this.chance() * 200, () => {
      if (!this.#reachable(a, b) || a.life !== lives[0] || b.life !== lives[1]) return
      const pair = pairOf(a, b)
      if (this.#connections.has(pair)) return
      const ends: [Peer, Peer] = a.index < b.index ? [a, b] : [b, a]
      const connection: Connection = {
        ends,
        lives: [ends[0].life, ends[1].life],
        open: [true, true],
        lastMs: [0, 0],
        downloads: [new Map(), new Map()],
      }
      this.#connections.set(pair, connection)
      this.note(`${ends[0].name} and ${ends[1].name} are connected`)
      for (const side of [0, 1] as const) {
        // The other end may see the former connection end only now.
        this.#enter(ends[side], arena => arena.peerClosed(ends[1 - side]?.id as PeerId))
        this.#enter(ends[side], arena => arena.peerOpened(ends[1 - side]?.id as PeerId, ends[1 - side]?.name as string))
      }
    })
  }

  #disconnect(a: Peer, b: Peer): void {
    const pair = pairOf(a, b)
    const connection = this.#connections.get(pair)
    if (!connection) return
    this.#connections.delete(pair)
    this.note(`${a.name} and ${b.name} are cut off`)
    for (const side of [0, 1] as const) {
      const peer = connection.ends[side]
      const other = connection.ends[1 - side] as Peer
      connection.open[side] = false
      for (const { order, life } of connection.downloads[side].values())
        if (peer.life === life) peer.disk.close(order.fd)
      connection.downloads[side].clear()
      this.after(this.chance() * 300, () => {
        // Unless a new connection has come before the end of this one was noticed.
        if (peer.life === connection.lives[side] && !this.#connections.has(pair))
          this.#enter(peer, arena => arena.peerClosed(other.id))
      })
    }
    this.after(500, () => this.#connect(a, b))
  }

  /** Cuts what `cut` names, and joins it again later. */
  #sever(pairs: readonly (readonly [Peer, Peer])[], downMs: number): void {
    for (const [a, b] of pairs) {
      const pair = pairOf(a, b)
      this.#severed.set(pair, (this.#severed.get(pair) ?? 0) + 1)
      this.#disconnect(a, b)
    }
    this.after(downMs, () => {
      for (const [a, b] of pairs) {
        const pair = pairOf(a, b)
        this.#severed.set(pair, Math.max(0, (this.#severed.get(pair) ?? 0) - 1))
        this.#connect(a, b)
      }
    })
  }

  #send(connection: Connection, side: 0 | 1, header: ArenaWireMessage, payload?: Uint8Array): void {
    const text = JSON.stringify(header)
    const copy = payload && Uint8Array.from(payload)
    const atMs = Math.max(connection.lastMs[side], this.nowMs + 0.1 + this.chance() * this.script.latencyMs)
    connection.lastMs[side] = atMs
    if (header.type === 'feed') this.feedEntries += header.entries.length
    // Who reads acknowledges what is durable there: only a store that was put back can ask for less.
    if (header.type === 'rolled_back' && !this.script.steps.some(step => step.do === 'restore_store'))
      throw new SimulationFailure(
        'R7 acknowledged too soon',
        `${connection.ends[1 - side]?.name} asks for less than it had`,
      )
    this.#arriveAt(atMs, connection, side, text, copy)
    // As after crossing openings: the reader has had it.
    if (header.type === 'feed' && this.script.twice && this.chance() < this.script.twice) {
      connection.lastMs[side] = atMs + this.chance() * this.script.latencyMs
      this.#arriveAt(connection.lastMs[side], connection, side, text, copy)
    }
  }

  #arriveAt(atMs: number, connection: Connection, side: 0 | 1, text: string, copy: Uint8Array | undefined): void {
    this.at(atMs, () => {
      const far = side === 0 ? 1 : 0
      const to = connection.ends[far]
      const from = connection.ends[side]
      if (!connection.open[far] || to.life !== connection.lives[far]) return
      if (this.traced) this.note(`${from.name}>${to.name} ${text}`)
      const parsed = parse(text, this.traced || ++this.#messages % CHECKED_EVERY === 0)
      if (this.#answersDownload(connection, far, parsed, copy)) return
      this.#enter(to, arena =>
        arena.fromPeer(from.id, { type: 'wire', header: parsed, ...(copy && { payload: copy }) }),
      )
    })
  }

  #upload(connection: Connection, side: 0 | 1, order: Extract<ToPeer, { type: 'upload' }>): void {
    const peer = connection.ends[side]
    const { life } = peer
    let next = order.from
    const end = order.from + order.count
    const more = () => {
      if (peer.life !== life) return
      if (!connection.open[side]) return peer.disk.close(order.fd)
      const count = Math.min(LEAVES_PER_MESSAGE, end - next)
      const bytes = Math.min(order.size, (next + count) * LEAF_BYTES) - next * LEAF_BYTES
      const payload = peer.disk.readFd(order.fd, next * LEAF_BYTES, bytes)
      if (payload.length < bytes) {
        this.#send(connection, side, {
          type: 'fetch_failed',
          arena: ARENA,
          id: order.id,
          code: 'blob_changed',
          reason: 'shorter',
        })
        return peer.disk.close(order.fd)
      }
      this.#send(connection, side, { type: 'leaves', arena: ARENA, id: order.id, from: next, count }, payload)
      next += count
      if (next < end) this.after(0.2 + this.chance() * 5, more)
      else peer.disk.close(order.fd)
    }
    this.after(0.1 + this.chance() * 5, more)
  }

  /** What the connection's own thread does with leaves that were asked for. */
  #answersDownload(
    connection: Connection,
    side: 0 | 1,
    header: ArenaWireMessage,
    payload: Uint8Array | undefined,
  ): boolean {
    if (header.type !== 'leaves' && header.type !== 'fetch_failed') return false
    const transfer = connection.downloads[side].get(header.id)
    const peer = connection.ends[side]
    const other = connection.ends[1 - side] as Peer
    // What was asked for without a place to write it to is the arena's own.
    if (!transfer) return header.type === 'leaves' && !isReadId(header.id)
    const { order } = transfer
    const end = (failure: Failure | null) => {
      connection.downloads[side].delete(order.id)
      peer.disk.close(order.fd)
      this.#enter(peer, arena =>
        arena.fromPeer(
          other.id,
          failure === null ? { type: 'downloaded', id: order.id } : { type: 'download_failed', id: order.id, failure },
        ),
      )
    }
    if (header.type === 'fetch_failed') {
      end({ code: header.code as ErrorCode, message: header.reason })
      return true
    }
    const bytes = payload ?? new Uint8Array(0)
    const hashes = hashLeaves(bytes)
    const start = (header.from - order.from) * HASH_BYTES
    if (Buffer.compare(hashes, order.leaves.subarray(start, start + hashes.length)) !== 0) {
      end({ code: 'leaf_invalid', message: 'it does not fit its hash' })
      return true
    }
    peer.disk.writeFd(order.fd, header.from * LEAF_BYTES, bytes)
    transfer.next += header.count
    this.#enter(peer, arena =>
      arena.fromPeer(other.id, { type: 'stored', id: order.id, from: header.from, count: header.count }),
    )
    if (transfer.next >= order.from + order.count && connection.downloads[side].has(order.id)) end(null)
    return true
  }

  // Steps of the script

  schedule(step: Step, baseMs: number): void {
    const peer = this.peers[step.peer]
    if (!peer) return
    const plan = { atMs: baseMs + step.atMs, step, done: false }
    if (!OUTSIDE.has(step.do)) peer.plans.push(plan)
    this.at(plan.atMs, () => {
      if (!plan.done) this.#do(peer, step)
      plan.done = true
    })
  }

  /** Lets the user do in the very moment before the arena's own change what they were to do soon anyway. */
  #race(peer: Peer): void {
    if (this.chance() >= this.script.race) return
    // Where mtimes stand still for seconds, what is written over a file in the moment of its placing cannot be told from it.
    if ((this.script.grainNs ?? 1) > TICK_NS) return
    const plan = peer.plans.find(item => !item.done)
    // What does not show in size or mtime can only be seen a moment later.
    if (!plan || plan.step.do === 'sneak' || plan.atMs > this.nowMs + RACE_MS) return
    plan.done = true
    this.count('race')
    const { inside } = peer.disk
    peer.disk.inside = false
    this.#do(peer, plan.step)
    peer.disk.inside = inside
  }

  #do(peer: Peer, step: Step): void {
    this.note(`${peer.name} does ${JSON.stringify(step)}`)
    this.count(`${OUTSIDE.has(step.do) ? 'fault' : 'user'} ${step.do}`)
    switch (step.do) {
      case 'kill':
        return this.#kill(peer, step.after, step.downMs, () => {})
      case 'power':
        return this.#kill(peer, step.after, step.downMs, () => this.#powerLoss(peer, step))
      case 'backup':
        peer.backup = peer.tables.snapshot()
        return
      case 'lose_store':
        return this.#kill(peer, 0, step.downMs, () => {
          peer.tables = this.#newTables(new MemoryTables(), () => peer)
        })
      case 'restore_store':
        return this.#kill(peer, 0, step.downMs, () => {
          if (peer.backup) peer.tables = this.#newTables(peer.backup.snapshot(), () => peer)
        })
      case 'cut': {
        const other = this.peers[step.other]
        if (other && other !== peer) this.#sever([[peer, other]], step.downMs)
        return
      }
      case 'partition':
        return this.#sever(
          this.peers.flatMap(a =>
            this.peers
              .filter(b => a.index < b.index && ((step.mask >> a.index) & 1) !== ((step.mask >> b.index) & 1))
              .map(b => [a, b] as const),
          ),
          step.downMs,
        )
      case 'full':
        peer.full++
        this.after(step.downMs, () => {
          peer.full = Math.max(0, peer.full - 1)
        })
        return
      case 'stall': {
        const other = this.peers[step.other]
        const connection = other && this.#connections.get(pairOf(peer, other))
        const side = connection?.ends[0] === peer ? 0 : 1
        if (connection) connection.lastMs[side] = Math.max(connection.lastMs[side], this.nowMs + step.downMs)
        return
      }
      case 'errors': {
        const errors = { code: step.code, part: step.part }
        peer.errors = errors
        this.after(step.downMs, () => {
          if (peer.errors === errors) peer.errors = null
        })
        return
      }
      case 'unmount':
        return this.#unmount(peer, step)
      case 'reboot':
        this.#down(peer)
        peer.tables.completeFlush()
        peer.disk.sync(() => {})
        peer.disk.completeSync()
        peer.boot++
        return this.after(step.downMs, () => this.start(peer))
      case 'clock':
        peer.clock.aheadMs += step.jumpMs
        return
      case 'mark': {
        if (step.path !== '') return this.#command(peer, 'mark', { path: step.path, mark: step.mark })
        peer.mark = step.mark === 'clear' ? 'real' : step.mark
        return this.#enter(peer, arena => arena.settings(this.#settingsOf(peer, peer.paused)))
      }
      case 'read':
        return this.#read(peer, step)
      case 'lose_cache':
        // What was held against its hash is trusted until the process ends: content is torn while it is down.
        if (step.how === 'gone') return this.#loseCache(peer, step)
        return this.#kill(peer, 0, 500, () => this.#loseCache(peer, step))
      case 'view':
        return peer.viewUser.act(step)
      case 'kill_view':
        if (this.viewed && peer.arena !== null) this.#openView(peer)
        return
      case 'evict':
        return this.#command(peer, 'evict', step.path === '' ? {} : { path: step.path })
      case 'pause':
        this.#setPaused(peer, true)
        return this.after(step.downMs, () => this.#setPaused(peer, false))
      default:
        if (peer.away !== null) return
        this.userMs = this.nowMs
        peer.user.act(step)
        return this.#noteReplaced(peer)
    }
  }

  #unmount(peer: Peer, { shows, down, downMs }: Extract<Step, { do: 'unmount' }>): void {
    if (peer.away !== null) return
    if (down) this.#down(peer)
    peer.away = shows
    this.#atDisk(peer, () => peer.disk.unmount(shows))
    if (down) this.after(downMs / 2, () => this.start(peer))
    this.after(downMs, () => this.#mount(peer))
  }

  #mount(peer: Peer): void {
    if (peer.away === null) return
    peer.away = null
    this.#atDisk(peer, () => peer.disk.mount())
  }

  /** Does something that may call the arena back, if there is one. */
  #atDisk(peer: Peer, work: () => void): void {
    if (peer.arena === null) work()
    else this.#enter(peer, work)
  }

  #command(peer: Peer, method: string, params: Record<string, unknown>): void {
    this.#enter(peer, arena => arena.control({ type: 'control', id: 9, method, params }))
  }

  /** What is read is what the file's name says; and it comes, or it is said that it does not. */
  #read(peer: Peer, { pick, from, part }: Extract<Step, { do: 'read' }>): void {
    const { store, life } = peer
    const unreal = (store?.page(null, 10_000, null) ?? []).filter(
      ({ known, have }) => known.content.type === 'file' && known.content.size > 0 && !living(have),
    )
    const content = unreal[pick % unreal.length]?.known.content
    if (content?.type !== 'file') return
    const { hash, size } = content
    const offset = Math.floor(from * size)
    const length = Math.ceil(part * (size - offset))
    this.count('read')
    const read = { peer, life, sinceMs: this.nowMs, over: false }
    this.#reads.push(read)
    this.#enter(peer, arena => {
      arena.read({ hash, size }, offset, length, outcome => {
        read.over = true
        if ('failure' in outcome) return this.count(`read ${outcome.failure.code}`)
        this.count('read answered')
        const right = this.#contentOf(hash)?.subarray(offset, offset + length)
        if (right && Buffer.compare(right, outcome.bytes) !== 0)
          throw new SimulationFailure('I5 invented content', `${peer.name} reads what is not ${hash}`)
      })
    })
  }
  readonly #reads: { readonly peer: Peer; readonly life: number; readonly sinceMs: number; over: boolean }[] = []

  /** Reads of processes that still run, and of which nothing was heard for so long. */
  hangingReads(forMs: number): number {
    return this.#reads.filter(
      ({ peer, life, sinceMs, over }) =>
        !over && peer.arena !== null && peer.life === life && this.nowMs - sinceMs > forMs,
    ).length
  }

  /** As a disk shows it now; null: none does. */
  #contentOf(hash: string): Uint8Array | null {
    for (const { disk } of this.peers) {
      const { inside } = disk
      disk.inside = false
      try {
        for (const path of pathsOf(disk)) if (hashAt(disk, path) === hash) return disk.readFile(path)
      } finally {
        disk.inside = inside
      }
    }
    return null
  }

  #loseCache({ cacheFiles }: Peer, { how, pick }: Extract<Step, { do: 'lose_cache' }>): void {
    const names = [...cacheFiles.files.keys()].sort()
    const name = names[pick % names.length]
    const bytes = name === undefined ? undefined : cacheFiles.files.get(name)
    if (name === undefined || !bytes) return
    this.count('cache lost')
    if (how === 'gone') cacheFiles.files.delete(name)
    else if (how === 'short') cacheFiles.files.set(name, bytes.slice(0, Math.floor(bytes.length / 2)))
    else bytes.fill(0, 0, Math.min(bytes.length, 512))
  }

  #setPaused(peer: Peer, paused: boolean): void {
    peer.paused = paused
    this.#enter(peer, arena => arena.settings(this.#settingsOf(peer, paused)))
  }

  #settingsOf(peer: Peer, paused: boolean): ArenaSettings {
    return {
      name: ARENA,
      root: '/memory',
      storePath: '/store',
      mark: peer.mark,
      cache: { path: '/cache', max: { bytes: 2 ** 40 }, leave: { bytes: 0 } },
      author: (LETTERS[peer.index] as string).repeat(7) as Author,
      // As in the configuration of each: those that it can reach.
      peers: this.peers.filter(other => this.#mayMeet(peer, other)).map(other => other.id),
      ignore: [],
      conflicts: ((this.script.local ?? 0) >> peer.index) & 1 ? 'local' : (this.script.conflicts ?? 'keep-both'),
      versions: { keepMs: 100 * 365 * 24 * 3600_000, bytesMax: 2 ** 40 },
      guardDeletes: 1,
      rescanMs: RESCAN_MS,
      paused,
    }
  }

  /** Everybody is up, everything is reachable, nothing is full; each looks at its whole disk once. */
  heal(): void {
    this.note('healed')
    this.#healthy = true
    this.#severed.clear()
    for (const peer of this.peers) {
      peer.full = 0
      peer.errors = null
      peer.fuse = null
      this.#mount(peer)
      this.start(peer)
      this.#setPaused(peer, false)
    }
    for (const a of this.peers) for (const b of this.peers) this.#connect(a, b)
    for (const peer of this.peers) {
      this.#enter(peer, arena => {
        arena.control({ type: 'control', id: 1, method: 'accept_guard', params: {} })
        arena.control({ type: 'control', id: 2, method: 'rescan', params: {} })
      })
    }
  }

  /** Descriptors that a peer's connections hold for transfers that were not ended: those of an arena that paused meanwhile. */
  heldByConnections(peer: Peer): number {
    let held = 0
    for (const { ends, downloads } of this.#connections.values())
      ends.forEach((end, side) => {
        if (end === peer) held += downloads[side]?.size ?? 0
      })
    return held
  }

  /** A person has looked, and says that it is to go on. */
  resume(): void {
    for (const peer of this.peers) {
      if (peer.arena?.status().state !== 'guarded') continue
      this.#enter(peer, arena => arena.control({ type: 'control', id: 3, method: 'accept_guard', params: {} }))
    }
  }

  trouble(): void {
    this.#healthy = false
    this.events = 0
  }
}

/** Not a user's doing, or nothing on the disk. */
const OUTSIDE = new Set([
  'kill',
  'power',
  'backup',
  'lose_store',
  'restore_store',
  'cut',
  'partition',
  'full',
  'clock',
  'pause',
  'mark',
  'evict',
  'read',
  'lose_cache',
  'kill_view',
  'overflow',
  'stall',
  'errors',
  'unmount',
  'reboot',
])
/** After these a disk may show less than its store knows. */
const FORGETTING = new Set<Step['do']>(['power', 'lose_store', 'restore_store', 'unmount', 'errors', 'full'])
/** How often a root that is not there is looked for. */
const ROOT_RETRY_MS = 1_000
/** Longest way between a view and its arena. */
const VIEW_MS = 3
/** How far ahead of its time a race can bring what a user does. */
const RACE_MS = 3_000

const FILLING = new Set([
  'own stageFile',
  'own stageOpen',
  'own stageCopy',
  'own stageCopyKept',
  'own stageLink',
  'makeFolder',
  'linkKept',
  'own keep',
])

/** What needs a descriptor. */
const OPENING = new Set([
  'open',
  'read',
  'list',
  'own stageFile',
  'own stageOpen',
  'own stageCopy',
  'own stageCopyKept',
])

function before(a: { atMs: number; order: number }, b: { atMs: number; order: number }): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}

/** Name of the content that a path shows; null: no file. */
function hashAt(disk: SimulatedDisk, path: string): string | null {
  return disk.stat(path as EntryPath)?.type === 'file' ? hashSmall(disk.readFile(path)) : null
}

function pairOf(a: Peer, b: Peer): string {
  return a.index < b.index ? `${a.index}-${b.index}` : `${b.index}-${a.index}`
}

function digest(bytes: Uint8Array): Uint8Array {
  return engine.hash256(0x10, bytes)
}

/** Reads a message as a peer would; `checked`: against its schema. */
function parse(text: string, checked: boolean): ArenaWireMessage {
  const message: unknown = JSON.parse(text)
  try {
    return (checked ? wire.parse(message) : message) as ArenaWireMessage
  } catch (error) {
    throw new SimulationFailure('breach', `${(error as Error).message} in ${text.slice(0, 500)}`)
  }
}

/** What a hasher's thread does, on a disk in memory. */
function hashTask(disk: SimulatedDisk, task: HashTask): HashResult {
  const path = task.path.slice('/memory/'.length)
  const stat = disk.stat(path as EntryPath)
  if (stat?.type !== 'file') return { changed: true }
  if (stat.size !== task.size || stat.mtimeNs !== task.mtimeNs || stat.ino !== task.ino) return { changed: true }
  const last = Math.min(task.from + task.count, leafCount(task.size))
  return { leaves: hashLeaves(disk.readFile(path).subarray(task.from * LEAF_BYTES, last * LEAF_BYTES)) }
}
