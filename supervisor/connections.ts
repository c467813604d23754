/**
 * Who is connected: the peer threads, the connections that they carry, dialling and dialling again, and which of two
 * connections with one peer stays. What flows over a connection is between its thread and the arenas.
 */
import type { Socket } from 'node:net'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { closeDescriptor, type DescriptorTable, noteDescriptor } from '../actors/descriptors.ts'
import { handOver } from '../actors/peer/hand-over.ts'
import { releaseMemory } from '../actors/relief.ts'
import type { ActorStatus, PeerStatus } from '../protocol/control.ts'
import { type Failure, fromFailure, SyncError, toFailure } from '../protocol/error.ts'
import type { ArenaName, PeerId } from '../protocol/ids.ts'
import type { LogEvent, LogFields } from '../protocol/log.ts'
import type { PairAttempt, PeerCommand, PeerReport, PeerSettings, Rate, SharedArena } from '../protocol/ports.ts'
import { ActorThread } from './actor-thread.ts'
import { plainAddress } from './admission.ts'
import type { Clock } from './clock.ts'
import type { PeerConfig } from './config.ts'
import { type Dialler, dialDelayMs, keptOf } from './dialing.ts'
import { Pace } from './pace.ts'
import { RateMeter } from './rate-meter.ts'
import type { RestartPolicy } from './restart.ts'

/** A connection that ends sooner than this was no success: the next attempt waits longer. */
const STEADY_MS = 10_000
/** A peer thread answers each command in its own time, but a handshake that says nothing at all is given up. */
const HANDSHAKE_MS = 60_000
/** Connections that one peer may open in this time: each makes every arena open anew. */
const OPENINGS = { burst: 100, perSecond: 5 }
const NO_LIMIT: Rate = { up: 0, down: 0 }

export interface ConnectionsOptions {
  entry: URL
  threads: number
  policy: RestartPolicy
  clock: Clock
  settings(): PeerSettings
  /** Arenas that this peer may have, that run here. */
  arenasOf(peer: PeerId): ArenaName[]
  /** Gives an arena its end of a connection, whose thread notes descriptors there. False if the arena is not there now. */
  attach(
    arena: ArenaName,
    peer: PeerId,
    peerName: string,
    connection: number,
    port: MessagePort,
    descriptors: DescriptorTable,
  ): boolean
  /** Invitations open now. */
  invites(): PairAttempt[]
  /** Somebody proved to know an invite: takes it into the household. Throws what the other is to be told. */
  pairing(invite: string, peer: PeerId, name: string, addresses: string[]): Promise<SharedArena[]>
  /** Something that `peers` shows has changed. */
  changed(): void
  log(event: LogEvent, fields: LogFields): void
  count(name: string, amount: number, of?: string): void
}

/** What a join gets from the one who invited. */
export interface Paired {
  peer: PeerId
  name: string
  addresses: string[]
  arenas: SharedArena[]
}

interface Peer {
  config: PeerConfig
  state: PeerStatus['state']
  address: string | null
  sinceMs: number | null
  error: string | null
  /** The connection that is open. */
  open: Connection | undefined
  /** The connection that is being dialled. */
  dialling: Connection | undefined
  failures: number
  /** Which address is tried next. */
  turn: number
  timer: NodeJS.Timeout | undefined
  up: RateMeter
  down: RateMeter
}

interface Connection {
  number: number
  thread: Thread
  dialler: Dialler
  address: string
  /** Who it should be (dialled) or has proved to be (opened). */
  peer: PeerId | undefined
  openedMs: number | undefined
  /** Once: the handshake has ended, well or not. */
  greeted: () => void
  paired: { resolve(paired: Paired): void; reject(error: SyncError): void } | undefined
}

type Thread = ActorThread<PeerCommand, PeerReport>

export class Connections {
  readonly #options: ConnectionsOptions
  readonly #threads: Thread[] = []
  readonly #peers = new Map<PeerId, Peer>()
  readonly #connections = new Map<number, Connection>()
  /** Addresses without port at which peers of the household were last seen. */
  readonly #seenAt = new Map<PeerId, string>()
  readonly #openings = new Pace(OPENINGS.burst, OPENINGS.perSecond)
  #number = 0
  #dialling = false
  #stopping = false

  constructor(options: ConnectionsOptions) {
    this.#options = options
  }

  start(): void {
    for (let i = 1; i <= this.#options.threads; i++) {
      const thread: Thread = new ActorThread<PeerCommand, PeerReport>({
        name: `peer-${i}`,
        entry: this.#options.entry,
        policy: this.#options.policy,
        clock: this.#options.clock,
        workerData: (gate, descriptors) => ({ gate, descriptors }),
        started: () => {
          thread.post({ type: 'settings', settings: this.#options.settings() })
          thread.post(this.#household)
          this.#options.changed()
        },
        receive: report => this.#receive(report),
        died: failure => {
          this.#options.count('actor_restarts', 1, thread.name)
          for (const connection of [...this.#connections.values()]) {
            if (connection.thread === thread) this.#closed(connection, { ...failure, code: 'peer_closed' })
          }
          this.#options.changed()
        },
        log: this.#options.log,
      })
      this.#threads.push(thread)
      thread.start()
    }
  }

  /** Until then peers can come in, and none is called. */
  beginDialling(): void {
    this.#dialling = true
    for (const peer of this.#peers.values()) this.#dial(peer)
  }

  /** Closes every connection and ends the threads. False if a thread could not be ended. */
  async stop(): Promise<boolean> {
    this.#stopping = true
    for (const peer of this.#peers.values()) clearTimeout(peer.timer)
    const ended = await Promise.all(this.#threads.map(thread => thread.stop({ type: 'stop' })))
    for (const connection of [...this.#connections.values()]) {
      this.#closed(connection, { code: 'peer_closed', message: 'the service stops' })
    }
    return ended.every(Boolean)
  }

  /** The peers of the household, from now on. Who is gone is disconnected, who is new is dialled. */
  setPeers(configs: readonly PeerConfig[]): void {
    const wanted = new Set(configs.map(config => config.id))
    for (const [id, peer] of this.#peers) {
      if (wanted.has(id)) continue
      clearTimeout(peer.timer)
      this.#peers.delete(id)
      this.#seenAt.delete(id)
      this.#closeAll(id, { code: 'not_allowed', message: 'no longer a peer of this household' })
    }
    for (const config of configs) {
      const peer = this.#peers.get(config.id)
      if (peer) this.#reconfigure(peer, config)
      else this.#addPeer(config)
    }
    for (const thread of this.#threads) thread.post(this.#household)
    this.#options.changed()
  }

  get #household(): PeerCommand {
    return { type: 'household', peers: [...this.#peers.keys()] }
  }

  /** This peer's own settings have changed (name, addresses). */
  renewSettings(): void {
    for (const thread of this.#threads) thread.post({ type: 'settings', settings: this.#options.settings() })
  }

  /** Dials now, whatever the back-off. */
  connect(id: PeerId): void {
    const peer = this.#peers.get(id)
    if (!peer || peer.open || peer.dialling) return
    peer.failures = 0
    this.#dial(peer)
  }

  /** An arena is there (again): gives it its connections. */
  attachArena(arena: ArenaName): void {
    for (const peer of this.#peers.values()) {
      if (peer.open && this.#options.arenasOf(peer.config.id).includes(arena)) this.#attach(peer.open, peer, arena)
    }
  }

  /** This peer may have this arena now, too. */
  attachTo(id: PeerId, arena: ArenaName): void {
    const peer = this.#peers.get(id)
    if (peer?.open) this.#attach(peer.open, peer, arena)
  }

  /** Closes the connection with a peer whose rights have changed; it comes back with the new ones. */
  reconnect(id: PeerId, reason: string): void {
    const peer = this.#peers.get(id)
    if (!peer?.open) return
    this.#close(peer.open, { code: 'peer_closed', message: reason })
  }

  /** Whether somebody of the household was seen at this address. */
  known(address: string): boolean {
    for (const seen of this.#seenAt.values()) if (seen === address) return true
    return false
  }

  /** Takes over an accepted socket, paused and unread. @param over called once when the handshake has ended */
  accept(socket: Socket, address: string, over: () => void): void {
    const thread = this.#leastLoaded()
    if (!thread || this.#stopping) {
      socket.destroy()
      over()
      return
    }
    let fd: number
    try {
      fd = handOver(socket)
    } catch (error) {
      socket.destroy()
      over()
      this.#options.log('peer_refused', { address, reason: toFailure(error).message })
      return
    }
    if (!noteDescriptor(thread.descriptors, fd)) {
      closeDescriptor(fd)
      over()
      return
    }
    const connection = this.#connection(thread, 'them', address, undefined, over)
    thread.post({
      type: 'accept',
      connection: connection.number,
      fd,
      address,
      invites: this.#options.invites(),
    })
  }

  /** Dials an address with an invite's secret. Rejects with the reason if it does not come to a pairing. */
  pair(peer: PeerId, address: string, attempt: PairAttempt): Promise<Paired> {
    const thread = this.#leastLoaded()
    if (!thread) return Promise.reject(new SyncError('busy', 'no connection thread is running: try again'))
    return new Promise((resolve, reject) => {
      const connection = this.#connection(thread, 'us', address, peer, () => {})
      connection.paired = { resolve, reject }
      thread.post({ type: 'dial', connection: connection.number, peer, address, rate: NO_LIMIT, pair: attempt })
    })
  }

  get peers(): PeerStatus[] {
    const nowMs = this.#options.clock.nowMs()
    return [...this.#peers.values()].map(peer => ({
      name: peer.config.name,
      id: peer.config.id,
      state: peer.state,
      address: peer.address,
      since: peer.sinceMs,
      error: peer.error,
      rates: { up: peer.up.perSecond(nowMs), down: peer.down.perSecond(nowMs) },
    }))
  }

  get connectedCount(): number {
    let count = 0
    for (const peer of this.#peers.values()) if (peer.open) count++
    return count
  }

  get actors(): ActorStatus[] {
    return this.#threads.map(thread => ({
      name: thread.name,
      thread: thread.threadId,
      restarts: thread.restarts,
      mailbox: this.#load(thread, connection => connection.openedMs === undefined),
      lastError: thread.lastError,
    }))
  }

  /** False if there is no thread of this name. */
  async kill(name: string): Promise<boolean> {
    const thread = this.#threads.find(one => one.name === name)
    await thread?.kill()
    return thread !== undefined
  }

  // Reports

  #receive(report: PeerReport): void {
    if (report.type === 'ready') return
    if (report.type === 'rested') {
      releaseMemory()
      return
    }
    if (report.type === 'log') {
      this.#options.log(report.event, report.fields)
      return
    }
    if (report.type === 'count') {
      for (const [name, amount] of Object.entries(report.counters)) this.#options.count(name, amount)
      return
    }
    const connection = this.#connections.get(report.connection)
    if (!connection) return
    switch (report.type) {
      case 'opened':
        this.#opened(connection, report.peer, report.name)
        return
      case 'pairing':
        void this.#pairing(connection, report)
        return
      case 'paired':
        connection.paired?.resolve({
          peer: report.peer,
          name: report.name,
          addresses: report.addresses,
          arenas: report.arenas,
        })
        connection.paired = undefined
        return
      case 'closed':
        this.#closed(connection, report.failure)
        return
      case 'traffic':
        this.#traffic(connection, report.up, report.down)
        return
      default:
        report satisfies never
    }
  }

  #opened(connection: Connection, id: PeerId, theirName: string): void {
    connection.greeted()
    const peer = this.#peers.get(id)
    if (!peer) {
      this.#close(connection, { code: 'not_allowed', message: 'not a peer of this household' })
      return
    }
    if (peer.config.paused) {
      this.#close(connection, { code: 'peer_closed', message: 'paused' })
      return
    }
    const nowMs = this.#options.clock.nowMs()
    if (!this.#openings.allows(id, nowMs)) {
      this.#close(connection, { code: 'busy', message: 'too many connections one after the other: wait a while' })
      return
    }
    connection.peer = id
    connection.openedMs = nowMs
    if (peer.dialling === connection) peer.dialling = undefined
    const before = peer.open
    if (before) {
      const ours = this.#options.settings().id
      const ageMs = nowMs - (before.openedMs ?? nowMs)
      const kept = keptOf(ours, id, { dialler: before.dialler, ageMs }, { dialler: connection.dialler })
      const twin: Failure = { code: 'peer_closed', message: 'duplicate' }
      if (kept === 'before') {
        this.#close(connection, twin)
        return
      }
      // Taken over first: the end of the twin is then no end of the peer.
      peer.open = connection
      this.#close(before, twin)
    }
    clearTimeout(peer.timer)
    peer.open = connection
    peer.turn = 0
    this.#seenAt.set(id, hostOf(connection.address))
    this.#setState(peer, 'connected', connection.address, null)
    connection.thread.post({ type: 'rate', connection: connection.number, rate: peer.config.rate })
    this.#options.log('peer_opened', {
      peer: peer.config.name,
      theirName,
      address: connection.address,
      dialler: connection.dialler,
    })
    for (const arena of this.#options.arenasOf(id)) this.#attach(connection, peer, arena)
  }

  async #pairing(connection: Connection, report: PeerReport & { type: 'pairing' }): Promise<void> {
    connection.greeted()
    try {
      const arenas = await this.#options.pairing(report.invite, report.peer, report.name, report.addresses)
      connection.thread.post({ type: 'pair_accept', connection: connection.number, arenas })
    } catch (error) {
      this.#close(connection, toFailure(error))
    }
  }

  /** The last word on a connection: bookkeeping, and the next attempt. Safe to call again. */
  #closed(connection: Connection, failure: Failure): void {
    if (!this.#connections.delete(connection.number)) return
    connection.greeted()
    connection.paired?.reject(fromFailure(failure))
    const peer = connection.peer === undefined ? undefined : this.#peers.get(connection.peer)
    if (connection.openedMs === undefined && connection.dialler === 'them') this.#options.count('handshakes_failed', 1)
    if (!peer || (peer.open !== connection && peer.dialling !== connection)) return
    const nowMs = this.#options.clock.nowMs()
    if (peer.dialling === connection) {
      peer.dialling = undefined
      this.#options.log('peer_dial_failed', {
        peer: peer.config.name,
        address: connection.address,
        code: failure.code,
        reason: failure.message,
      })
    } else {
      peer.open = undefined
      const steady = nowMs - (connection.openedMs ?? nowMs) >= STEADY_MS
      if (steady) peer.failures = 0
      this.#options.log('peer_closed', { peer: peer.config.name, code: failure.code, reason: failure.message })
    }
    // Another connection with this peer may be open or on its way.
    if (peer.open) return
    if (peer.dialling) {
      this.#setState(peer, 'connecting', peer.dialling.address, failure.message)
      return
    }
    this.#setState(peer, peer.config.paused ? 'paused' : 'disconnected', connection.address, failure.message)
    this.#dialLater(peer)
  }

  #traffic(connection: Connection, up: number, down: number): void {
    const peer = connection.peer === undefined ? undefined : this.#peers.get(connection.peer)
    const nowMs = this.#options.clock.nowMs()
    peer?.up.add(up, nowMs)
    peer?.down.add(down, nowMs)
    this.#options.count('peer_bytes_up', up, peer?.config.name)
    this.#options.count('peer_bytes_down', down, peer?.config.name)
    this.#options.changed()
  }

  // Peers

  #addPeer(config: PeerConfig): void {
    const peer: Peer = {
      config,
      state: config.paused ? 'paused' : 'disconnected',
      address: null,
      sinceMs: this.#options.clock.wallMs(),
      error: null,
      open: undefined,
      dialling: undefined,
      failures: 0,
      turn: 0,
      timer: undefined,
      up: new RateMeter(),
      down: new RateMeter(),
    }
    this.#peers.set(config.id, peer)
    this.#dial(peer)
  }

  #reconfigure(peer: Peer, config: PeerConfig): void {
    const before = peer.config
    peer.config = config
    if (peer.open && (before.rate.up !== config.rate.up || before.rate.down !== config.rate.down)) {
      peer.open.thread.post({ type: 'rate', connection: peer.open.number, rate: config.rate })
    }
    if (config.paused && !before.paused) {
      clearTimeout(peer.timer)
      this.#closeAll(config.id, { code: 'peer_closed', message: 'paused' })
      this.#setState(peer, 'paused', peer.address, null)
    } else if (!config.paused && (before.paused || before.addresses.join() !== config.addresses.join())) {
      if (before.paused) this.#setState(peer, 'disconnected', peer.address, null)
      if (!peer.open && !peer.dialling) this.connect(config.id)
    }
  }

  #setState(peer: Peer, state: PeerStatus['state'], address: string | null, error: string | null): void {
    if (peer.state !== state) peer.sinceMs = this.#options.clock.wallMs()
    peer.state = state
    peer.address = address
    peer.error = error
    this.#options.changed()
  }

  // Dialling

  #dial(peer: Peer): void {
    clearTimeout(peer.timer)
    if (!this.#dialling || this.#stopping || peer.config.paused || peer.open || peer.dialling) return
    const { addresses, id, rate } = peer.config
    const address = addresses[peer.turn % addresses.length]
    // Without an address a peer can only be waited for.
    if (address === undefined) return
    const thread = this.#leastLoaded()
    if (!thread) {
      this.#dialLater(peer)
      return
    }
    peer.turn++
    const connection = this.#connection(thread, 'us', address, id, () => {})
    peer.dialling = connection
    this.#setState(peer, 'connecting', address, peer.error)
    this.#options.log('peer_dialing', { peer: peer.config.name, address, failures: peer.failures })
    thread.post({ type: 'dial', connection: connection.number, peer: id, address, rate, pair: null })
  }

  /** The next address at once, and after the last one a pause that grows. */
  #dialLater(peer: Peer): void {
    clearTimeout(peer.timer)
    const { addresses, paused } = peer.config
    if (this.#stopping || paused || addresses.length === 0) return
    const more = peer.turn % addresses.length !== 0
    const delayMs = more ? 0 : dialDelayMs(peer.failures, this.#options.clock.random())
    if (!more) peer.failures++
    peer.timer = setTimeout(() => this.#dial(peer), delayMs)
  }

  // Connections

  #connection(
    thread: Thread,
    dialler: Dialler,
    address: string,
    peer: PeerId | undefined,
    over: () => void,
  ): Connection {
    let greeting = true
    const connection: Connection = {
      number: ++this.#number,
      thread,
      dialler,
      address,
      peer,
      openedMs: undefined,
      greeted: () => {
        clearTimeout(timer)
        if (greeting) over()
        greeting = false
      },
      paired: undefined,
    }
    const timer = setTimeout(() => {
      this.#close(connection, { code: 'timed_out', message: 'the handshake did not end' })
    }, HANDSHAKE_MS)
    this.#connections.set(connection.number, connection)
    return connection
  }

  #attach(connection: Connection, peer: Peer, arena: ArenaName): void {
    const { port1, port2 } = new MessageChannel()
    const { descriptors } = connection.thread
    const given = this.#options.attach(arena, peer.config.id, peer.config.name, connection.number, port2, descriptors)
    if (given && connection.thread.post({ type: 'attach', connection: connection.number, arena, port: port1 }, [port1]))
      return
    // Closing one end closes the other, wherever it is.
    port1.close()
  }

  /** Tells the thread to close it, and does not wait for its word: from here on the connection is gone. */
  #close(connection: Connection, failure: Failure): void {
    connection.thread.post({ type: 'close', connection: connection.number, failure })
    this.#closed(connection, failure)
  }

  #closeAll(id: PeerId, failure: Failure): void {
    for (const connection of [...this.#connections.values()]) {
      if (connection.peer === id) this.#close(connection, failure)
    }
  }

  #leastLoaded(): Thread | undefined {
    let least: Thread | undefined
    for (const thread of this.#threads) {
      if (thread.threadId === null) continue
      if (!least || this.#load(thread) < this.#load(least)) least = thread
    }
    return least
  }

  #load(thread: Thread, which: (connection: Connection) => boolean = () => true): number {
    let count = 0
    for (const connection of this.#connections.values()) if (connection.thread === thread && which(connection)) count++
    return count
  }
}

/** The host of host:port, without brackets. */
function hostOf(address: string): string {
  return plainAddress(address.slice(0, address.lastIndexOf(':')).replace(/^\[|\]$/g, ''))
}
