/**
 * A household in one thread: real arenas over disks, tables and a clock in memory, with links that a test drives by hand.
 * Nothing happens until `settle`, or one `turn`, lets it; the clock moves only when nobody has anything to do. Hash requests
 * are answered from the disk with the real Merkle functions; the part of a connection that moves leaves is here.
 */
import type { ExecutionContext } from 'ava'
import { Arena } from '../../actors/arena/arena.ts'
import { Cache } from '../../actors/arena/cache.ts'
import { MemoryCacheFiles } from '../../actors/arena/cache-files-memory.ts'
import { type ArenaContext, type ArenaOutput, Problems, Timers } from '../../actors/arena/context.ts'
import { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import { Marks } from '../../actors/arena/marks.ts'
import { RecentContent } from '../../actors/arena/recent.ts'
import { RULES } from '../../actors/arena/rules.ts'
import type { Entry, Kept, Store } from '../../actors/arena/store.ts'
import { openStore } from '../../actors/arena/store-tables.ts'
import type { Tables } from '../../actors/arena/tables.ts'
import { MemoryTables } from '../../actors/arena/tables-memory.ts'
import { engine } from '../../actors/hasher/engine.ts'
import { hashLeaves, verifyLeaf } from '../../actors/hasher/merkle.ts'
import { perform } from '../../actors/hasher/patch.ts'
import { type Failure, SyncError } from '../../protocol/error.ts'
import type { ArenaName, Author, BlobHash, EntryPath, PeerId, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import { LEAF_BYTES, LEAVES_PER_MESSAGE } from '../../protocol/limits.ts'
import type {
  ArenaReport,
  ArenaSettings,
  FileRef,
  FromPeer,
  HashResult,
  HashTask,
  PatchTask,
  ToPeer,
} from '../../protocol/ports.ts'
import type { ArenaStatus, HistoryEvent, ListedConflict, ListedVersion } from '../../protocol/status.ts'
import { type ArenaWireMessage, type WireMessage, wire } from '../../protocol/wire.ts'
import { memoryFiles } from './_memory-files.ts'

export const ARENA = 'tree' as ArenaName
/** Where the clock of every world starts: 2025-06-15 12:00:00 UTC. */
const START_MS = Date.UTC(2025, 5, 15, 12)
/** A household whose next alarm is further off than this is quiet. */
const QUIET_MS = 20_000
const TURNS_MAX = 200_000

export const digest = (bytes: Uint8Array) => engine.hash256(0x10, bytes)

export interface World {
  nowMs: number
  readonly peers: Peer[]
  readonly links: Link[]
  /** Every feed, acknowledgement and other message that was delivered, oldest first. */
  readonly delivered: { from: Peer; to: Peer; header: ArenaWireMessage; payloadBytes: number }[]
  random: number
  /** What somebody on the way does to messages: changes them in place. */
  tamper: ((message: ToPeer) => void) | null
  /** What connections refuse to carry, as with a peer that does not speak it. */
  refuse: ((header: ArenaWireMessage) => boolean) | null
}

/** One direction of a connection. */
interface Link {
  from: Peer
  to: Peer
  queue: ToPeer[]
  /** Transfers that the receiving side of this link asked for. */
  downloads: Map<number, Extract<ToPeer, { type: 'download' }>>
}

export function makeWorld(): World {
  return { nowMs: 0, peers: [], links: [], delivered: [], random: 0, tamper: null, refuse: null }
}

export class Peer {
  readonly id: PeerId
  readonly name: string
  readonly author: Author
  readonly world: World
  disk: MemoryDisk
  tables: MemoryTables
  /** Outlives the arena, as the folder of the cache does. */
  cacheFiles: MemoryCacheFiles
  cache!: Cache
  settings: ArenaSettings
  arena!: Arena
  store!: Store
  status: ArenaStatus | null = null
  readonly logged: string[] = []
  readonly history: HistoryEvent[] = []
  readonly refusals: Failure[] = []
  readonly replies = new Map<number, { result: unknown } | { failure: Failure }>()
  rootLost: string | null = null
  /** What a test does before the hasher works on an order about a delta. */
  beforePatch: (task: PatchTask) => void = () => {}
  /** What another arena of this peer lends. */
  lender: (hash: BlobHash) => FileRef | null = () => null
  /** What was asked of it. */
  readonly borrows: Extract<ArenaReport, { type: 'borrow' }>[] = []
  boot = 'boot-1'
  running = false
  #hashes: Extract<ArenaReport, { type: 'hash' | 'patch' | 'borrow' }>[] = []
  #control = 0
  #ticks = 0n
  #life = 0

  /** `letter` from A to Z gives the peer its name, author and id. */
  constructor(world: World, letter: string, settings: Partial<ArenaSettings> = {}) {
    this.world = world
    this.name = letter
    this.author = letter.repeat(7) as Author
    this.id = Array.from({ length: 8 }, () => letter.repeat(7)).join('-') as PeerId
    this.disk = this.newDisk()
    this.tables = new MemoryTables()
    this.cacheFiles = new MemoryCacheFiles({ open: bytes => this.disk.openApart(bytes) })
    this.settings = {
      name: ARENA,
      root: '/memory',
      storePath: '/memory-store',
      mark: 'real',
      cache: { path: '/memory-cache', max: { bytes: 1e9 }, leave: { bytes: 0 } },
      author: this.author,
      peers: [],
      ignore: [],
      conflicts: 'keep-both',
      versions: { keepMs: 30 * 86_400_000, bytesMax: 1e9 },
      guardDeletes: 0.5,
      rescanMs: 3_600_000,
      paused: false,
      ...settings,
    }
    world.peers.push(this)
  }

  newDisk(): MemoryDisk {
    return new MemoryDisk({ nowNs: () => BigInt(START_MS + this.world.nowMs) * 1_000_000n + this.#ticks++ })
  }

  /** Starts the arena on its disk and tables. `tables`: what stands between it and them, to break it in the middle. */
  start(tables: Tables = this.tables): this {
    const { world } = this
    const random = () =>
      BigInt.asUintN(64, BigInt(++world.random) * 0x9e3779b97f4a7c15n)
        .toString(16)
        .padStart(16, '0')
    this.store = openStore({
      tables,
      digest,
      newReplica: () => random() as ReplicaId,
      newSession: () => random() as SessionToken,
      boot: this.boot,
    })
    this.cache = new Cache({
      tables,
      files: this.cacheFiles,
      limits: this.settings.cache,
      wallMs: () => START_MS + world.nowMs,
      leavesOf: hash => this.store.leaves(hash),
    })
    const context: ArenaContext = {
      settings: this.settings,
      store: this.store,
      disk: this.disk,
      cache: this.cache,
      clock: { nowMs: () => world.nowMs, wallMs: () => START_MS + world.nowMs },
      random,
      deliver: output => this.#deliver(output),
      problems: new Problems(),
      timers: new Timers(),
      recent: new RecentContent(),
      marks: new Marks(this.settings.mark, this.store.marks()),
      rules: RULES,
    }
    const rootLost = (reason: string) => {
      this.rootLost = reason
    }
    this.arena = new Arena({ context, digest, boot: this.boot, rootLost })
    this.#hashes = []
    this.running = true
    this.#endSyncs()
    this.arena.start()
    for (const { from, to } of world.links) {
      if (from !== this) continue
      this.arena.peerOpened(to.id, to.name)
      if (to.running) {
        to.arena.peerClosed(this.id)
        to.arena.peerOpened(this.id, this.name)
      }
    }
    return this
  }

  /** A sync that was asked for in an earlier life is answered to nobody. */
  #endSyncs(): void {
    const life = ++this.#life
    this.disk.sync = done =>
      MemoryDisk.prototype.sync.call(this.disk, error => void (life === this.#life && done(error)))
  }

  /** Gone without a word, as after a kill. */
  stop(): void {
    this.running = false
    this.#life++
    this.#hashes = []
    for (const link of this.world.links) {
      if (link.from !== this && link.to !== this) continue
      link.queue.length = 0
      link.downloads.clear()
      if (link.from === this && link.to.running) link.to.arena.peerClosed(this.id)
    }
    this.disk.fault = null
  }

  restart(): this {
    this.stop()
    return this.start()
  }

  /** Starts the arena so that it dies at its `step`th change of disk or store, before or after it. */
  startDying(step: number): this {
    let left = step
    const die = (): null => {
      if (--left === 0) throw new Killed()
      return null
    }
    this.start(new DyingTables(this.tables, die))
    this.disk.fault = die
    return this
  }

  #deliver(output: ArenaOutput): void {
    if (output.to === 'peer') {
      const link = this.world.links.find(item => item.from === this && item.to.id === output.peer)
      link?.queue.push(output.message)
      return
    }
    const { report } = output
    if (report.type === 'hash' || report.type === 'patch' || report.type === 'borrow') this.#hashes.push(report)
    else if (report.type === 'status') this.status = report.status
    else if (report.type === 'reply') this.replies.set(report.id, { result: report.result })
    else if (report.type === 'refused') this.replies.set(report.id, { failure: report.failure })
    else if (report.type === 'log') this.logged.push(report.event)
    else if (report.type === 'history') this.history.push(...report.events)
  }

  /** Answers one request of the hasher, or for another arena; false if there is none. */
  hashOne(): boolean {
    const request = this.#hashes.shift()
    if (!request) return false
    if (request.type === 'borrow') {
      this.borrows.push(request)
      this.arena.lent(request.id, this.lender(request.hash))
      return true
    }
    if (request.type === 'patch') this.beforePatch(request.task)
    if (request.type === 'patch') this.arena.patched(request.id, perform(request.task, memoryFiles(this.disk)))
    else
      this.arena.hashed(
        request.id,
        request.tasks.map(task => this.#hash(task)),
      )
    return true
  }

  #hash({ path, from, count, size, mtimeNs, ino }: HashTask): HashResult {
    const relative = path.slice('/memory/'.length)
    const stat = this.disk.stat(relative as EntryPath)
    if (stat?.type !== 'file') return { failure: { code: 'disk_failed', message: 'ENOENT' } }
    if (stat.size !== size || stat.mtimeNs !== mtimeNs || stat.ino !== ino) return { changed: true }
    return { leaves: hashLeaves(this.disk.readFile(relative).subarray(from * LEAF_BYTES, (from + count) * LEAF_BYTES)) }
  }

  // A person at this peer

  write(path: string, text: string | Uint8Array): void {
    this.disk.writeFile(path, typeof text === 'string' ? new Uint8Array(Buffer.from(text)) : text)
    this.touch(path)
  }

  mkdir(path: string): void {
    this.disk.mkdir(path)
    this.touch(path)
  }

  remove(path: string): void {
    this.disk.remove(path)
    this.touch(path)
  }

  rename(from: string, to: string): void {
    this.disk.rename(from, to)
    this.touch(from, to)
  }

  symlink(target: string, path: string): void {
    this.disk.symlink(target, path)
    this.touch(path)
  }

  /** What the watcher would say. */
  touch(...paths: string[]): void {
    if (this.running) this.arena.touched(paths)
  }

  read(path: string): string {
    return Buffer.from(this.disk.readFile(path)).toString()
  }

  has(path: string): boolean {
    return this.disk.stat(path as EntryPath) !== null
  }

  entry(path: string): Entry | undefined {
    return this.store.entry(path as EntryPath)
  }

  /** The disk as text: path → content, `/` for a folder, `→ target` for a link. */
  tree(): Record<string, string> {
    const tree: Record<string, string> = {}
    const visit = (folder: EntryPath | undefined) => {
      const names = this.disk.list(folder).names.sort()
      for (const name of names) {
        const path = (folder === undefined ? name : `${folder}/${name}`) as EntryPath
        const type = this.disk.stat(path)?.type
        if (type === 'dir') {
          tree[path] = '/'
          visit(path)
        } else tree[path] = type === 'symlink' ? `→ ${this.disk.readLink(path)}` : this.read(path)
      }
    }
    visit(undefined)
    return tree
  }

  /** Everything that this peer still holds of a person's writing: its tree and its version store. */
  contents(): Set<string> {
    const contents = new Set(Object.values(this.tree()))
    for (const kept of this.kept()) contents.add(this.keptText(kept.id))
    return contents
  }

  kept(path: string | null = null): Kept[] {
    return this.store.kept(path as EntryPath | null, 1000)
  }

  keptText(id: string): string {
    if (this.disk.keptStat(id)?.type !== 'file') return ''
    const { fd, stat } = this.disk.keptOpen(id)
    const text = Buffer.from(this.disk.readFd(fd, 0, stat.size)).toString()
    this.disk.close(fd)
    return text
  }

  /** A command that is answered at once: its result, or its failure thrown. */
  run(method: string, params: Record<string, unknown> = {}): unknown {
    const id = ++this.#control
    this.arena.control({ type: 'control', id, method, params })
    const reply = this.replies.get(id)
    if (!reply) return undefined
    if ('failure' in reply) throw new SyncError(reply.failure.code, reply.failure.message)
    return reply.result
  }

  /** A command that is answered later: what gives its answer, undefined until then. */
  ask(method: string, params: Record<string, unknown> = {}): () => unknown {
    const id = ++this.#control
    this.arena.control({ type: 'control', id, method, params })
    return () => {
      const reply = this.replies.get(id)
      return reply && 'result' in reply ? reply.result : reply?.failure
    }
  }

  conflicts(): ListedConflict[] {
    return (this.run('conflicts') as { conflicts: ListedConflict[] }).conflicts
  }

  versions(path: string): ListedVersion[] {
    return (this.run('versions', { path }) as { versions: ListedVersion[] }).versions
  }

  configure(change: Partial<ArenaSettings>): void {
    this.settings = { ...this.settings, ...change }
    if (this.running) this.arena.settings(this.settings)
  }

  get state(): ArenaStatus {
    return this.arena.status()
  }
}

/** Thrown through an arena where it is killed. */
export class Killed extends Error {}

/** Tables under a process that may die before and after each transaction. */
class DyingTables implements Tables {
  readonly #tables: Tables
  readonly #die: () => null

  constructor(tables: Tables, die: () => null) {
    this.#tables = tables
    this.#die = die
  }
  get: Tables['get'] = (table, key) => this.#tables.get(table, key)
  range: Tables['range'] = (...query) => this.#tables.range(...query)
  put: Tables['put'] = (table, key, value) => this.#tables.put(table, key, value)
  remove: Tables['remove'] = (table, key) => this.#tables.remove(table, key)
  transact: Tables['transact'] = change => {
    this.#die()
    this.#tables.transact(change)
    this.#die()
  }
  flushed: Tables['flushed'] = done => this.#tables.flushed(done)
  close: Tables['close'] = () => this.#tables.close()
}

/** Peers A, B, C …, started, all connected with each other. */
export function makeHousehold(count: number, settings: Partial<ArenaSettings> = {}): { world: World; peers: Peer[] } {
  const world = makeWorld()
  const peers = Array.from({ length: count }, (_, index) => new Peer(world, String.fromCharCode(65 + index), settings))
  for (const peer of peers) peer.start()
  connectAll(world)
  return { world, peers }
}

export function makePair(settings: Partial<ArenaSettings> = {}): { world: World; a: Peer; b: Peer } {
  const { world, peers } = makeHousehold(2, settings)
  const [a, b] = peers as [Peer, Peer]
  settle(world)
  return { world, a, b }
}

export function connect(a: Peer, b: Peer): void {
  const { links } = a.world
  if (links.some(link => link.from === a && link.to === b)) return
  links.push({ from: a, to: b, queue: [], downloads: new Map() }, { from: b, to: a, queue: [], downloads: new Map() })
  if (a.running) a.arena.peerOpened(b.id, b.name)
  if (b.running) b.arena.peerOpened(a.id, a.name)
}

export function connectAll(world: World): void {
  for (const a of world.peers) for (const b of world.peers) if (a.name < b.name) connect(a, b)
}

export function disconnect(a: Peer, b: Peer): void {
  const { links } = a.world
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    const index = links.findIndex(link => link.from === from && link.to === to)
    if (index < 0) continue
    links.splice(index, 1)
    if (from.running) from.arena.peerClosed(to.id)
  }
}

export function disconnectAll(world: World): void {
  for (const { from, to } of [...world.links]) disconnect(from, to)
}

/** Delivers one message of a link; false if there is none. */
export function deliverOne(link: Link): boolean {
  const message = link.queue.shift()
  if (!message) return false
  const { from, to, downloads } = link
  from.world.tamper?.(message)
  switch (message.type) {
    case 'send':
      if ('id' in message.header && from.world.refuse?.(message.header)) {
        const { arena, id } = message.header
        const header = { type: 'fetch_failed', arena, id, code: 'version_unsupported', reason: 'older' } as const
        hand(from, to, { type: 'wire', header })
        break
      }
      deliverWire(link, wireCopy(message.header), message.payload)
      break
    case 'download':
      downloads.set(message.id, message)
      deliverWire(link, {
        type: 'fetch_leaves',
        arena: ARENA,
        id: message.id,
        hash: message.hash,
        from: message.from,
        count: message.count,
        urgent: message.urgent,
      })
      break
    case 'upload':
      upload(link, message)
      break
    case 'cancel': {
      const order = downloads.get(message.id)
      if (!order) break
      downloads.delete(message.id)
      from.disk.close(order.fd)
      const failure: Failure = { code: 'peer_closed', message: 'not wanted any more' }
      from.arena.fromPeer(to.id, { type: 'download_failed', id: message.id, failure })
      break
    }
    case 'refuse':
      from.refusals.push(message.failure)
      disconnect(from, to)
      break
    case 'detach':
      disconnect(from, to)
      break
  }
  return true
}

/** As the other end would read it: through JSON and its schema. */
function wireCopy(header: ArenaWireMessage): ArenaWireMessage {
  return wire.parse(JSON.parse(JSON.stringify(header))) as WireMessage as ArenaWireMessage
}

function deliverWire({ from, to }: Link, header: ArenaWireMessage, payload?: Uint8Array): void {
  if (!to.running) return
  to.world.delivered.push({ from, to, header, payloadBytes: payload?.length ?? 0 })
  const back = linkOf(to, from)
  const download = header.type === 'fetch_failed' ? back?.downloads.get(header.id) : undefined
  if (download && back) {
    back.downloads.delete(download.id)
    to.disk.close(download.fd)
    const failure = { code: 'blob_missing', message: 'not here' } as const
    hand(to, from, { type: 'download_failed', id: download.id, failure })
    return
  }
  hand(to, from, { type: 'wire', header, ...(payload && { payload }) })
}

/** Hands a message to an arena as its shell does: a breach of the protocol ends the connection. */
export function hand(to: Peer, from: Peer, message: FromPeer): void {
  if (!to.running) return
  try {
    to.arena.fromPeer(from.id, message)
    to.arena.step()
  } catch (error) {
    if (!(error instanceof SyncError)) throw error
    to.refusals.push({ code: error.code, message: error.message })
    disconnect(to, from)
  }
}

function linkOf(from: Peer, to: Peer): Link | undefined {
  return from.world.links.find(link => link.from === from && link.to === to)
}

function upload({ from, to }: Link, message: Extract<ToPeer, { type: 'upload' }>): void {
  const back = linkOf(to, from)
  const download = back?.downloads.get(message.id)
  if (back && download && to.running) {
    back.downloads.delete(message.id)
    for (let at = 0; at < message.count; at += LEAVES_PER_MESSAGE) {
      const count = Math.min(LEAVES_PER_MESSAGE, message.count - at)
      for (let leaf = message.from + at; leaf < message.from + at + count; leaf++) {
        const bytes = from.disk.readFd(message.fd, leaf * LEAF_BYTES, LEAF_BYTES)
        if (!verifyLeaf(download.leaves, leaf - download.from, bytes)) throw new Error('a leaf does not fit its hash')
        to.disk.writeFd(download.fd, leaf * LEAF_BYTES, bytes)
      }
      hand(to, from, { type: 'stored', id: message.id, from: message.from + at, count })
    }
    to.disk.close(download.fd)
    hand(to, from, { type: 'downloaded', id: message.id })
  } else {
    for (let at = 0; at < message.count && to.running; at += LEAVES_PER_MESSAGE) {
      const count = Math.min(LEAVES_PER_MESSAGE, message.count - at)
      const first = (message.from + at) * LEAF_BYTES
      const bytes = from.disk.readFd(message.fd, first, Math.min(count * LEAF_BYTES, message.size - first))
      const header = { type: 'leaves', arena: ARENA, id: message.id, from: message.from + at, count } as const
      deliverWire({ from, to, queue: [], downloads: new Map() }, header, bytes)
    }
  }
  if (from.running) from.disk.close(message.fd)
}

/** One round: every link delivers what waits on it, every peer works until it must wait. False: nothing was to be done. */
export function turn(world: World): boolean {
  let worked = false
  for (const link of [...world.links]) {
    for (let waiting = link.queue.length; waiting > 0 && world.links.includes(link); waiting--)
      worked = deliverOne(link) || worked
  }
  for (const peer of world.peers) {
    if (!peer.running) continue
    if (peer.disk.syncsWaiting > 0) {
      peer.disk.completeSync()
      worked = true
    }
    if (peer.hashOne()) worked = true
    if (peer.arena.busy) {
      peer.arena.tick()
      worked = true
    } else if (peer.arena.wakeMs <= world.nowMs) {
      peer.arena.tick()
      worked = true
    } else peer.arena.step()
  }
  return worked
}

/** Lets everybody work until nobody has anything to do for a while; the clock jumps from alarm to alarm. */
export function settle(world: World, quietMs = QUIET_MS): void {
  for (let turns = 0; turns < TURNS_MAX; turns++) {
    if (turn(world)) continue
    const next = Math.min(...world.peers.filter(peer => peer.running).map(peer => peer.arena.wakeMs))
    if (next > world.nowMs + quietMs) return
    world.nowMs = Math.max(world.nowMs, next)
  }
  throw new Error(`the household is not quiet after ${TURNS_MAX} turns`)
}

/** Moves the clock on, everybody working. */
export function pass(world: World, ms: number): void {
  const end = world.nowMs + ms
  for (let turns = 0; turns < TURNS_MAX; turns++) {
    if (turn(world)) continue
    const next = Math.min(...world.peers.filter(peer => peer.running).map(peer => peer.arena.wakeMs))
    if (next > end) break
    world.nowMs = Math.max(world.nowMs, next)
  }
  world.nowMs = end
}

/** Equal trees, equal roots, consensus on both sides, and not a message more afterwards. */
export function assertAgree(t: ExecutionContext, world: World): void {
  const peers = world.peers.filter(peer => peer.running)
  const [first, ...others] = peers as [Peer, ...Peer[]]
  for (const other of others) {
    t.deepEqual(other.tree(), first.tree(), `${other.name} and ${first.name} show different trees`)
    t.is(other.state.root, first.state.root, `${other.name} and ${first.name} have different roots`)
  }
  for (const peer of peers) {
    t.deepEqual(peer.state.missing, [], `${peer.name} is not in consensus`)
    t.deepEqual(peer.store.intents(), [])
    t.deepEqual(peer.disk.stageList(), [], `${peer.name} has left something in staging`)
    t.deepEqual(
      peer.disk.keptList().sort(),
      peer
        .kept()
        .map(kept => kept.id)
        .sort(),
      `${peer.name}: the version store and its rows differ`,
    )
  }
  const seqs = peers.map(peer => peer.store.state().seq)
  const messages = world.delivered.length
  settle(world)
  t.deepEqual(
    peers.map(peer => peer.store.state().seq),
    seqs,
    'entries were announced after all was quiet',
  )
  t.deepEqual(
    world.delivered.slice(messages).map(({ header }) => header.type),
    [],
    'messages flowed after all was quiet',
  )
}
