/**
 * The service: makes the actors of the tree in their order, follows the configuration, and takes everything down again.
 * Commands of the control socket are in commands.ts, pairing is in pairing.ts; both work on this.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { availableParallelism, networkInterfaces } from 'node:os'
import type { ActorStatus, StatusResult } from '../protocol/control.ts'
import { SyncError, toFailure } from '../protocol/error.ts'
import type { ArenaName } from '../protocol/ids.ts'
import type { LogEvent, LogFields } from '../protocol/log.ts'
import type { PeerSettings } from '../protocol/ports.ts'
import { Arenas } from './arenas.ts'
import { Bell } from './bell.ts'
import type { Clock } from './clock.ts'
import { type Config, decodeConfig, parseConfig } from './config.ts'
import { writeFileAtomic } from './config-write.ts'
import { Connections } from './connections.ts'
import { type Answer, Control } from './control.ts'
import { Hasher } from './hasher.ts'
import type { Home } from './home.ts'
import { authorOf, certificate, type Identity } from './identity.ts'
import { Invites } from './invites.ts'
import { Listener } from './listener.ts'
import type { Log } from './log.ts'
import { type Figures, Metrics } from './metrics.ts'
import { Mounts } from './mounts.ts'
import { ownAddresses } from './own-addresses.ts'
import { arenasOf, rightsChanged, settingsOf } from './rights.ts'
import { composeStatus } from './status.ts'
import { tree } from './tree.ts'

/** An arena that has neither opened nor failed by then does not hold up the service any longer. */
const ARENAS_SETTLED_MS = 30_000

export interface SupervisorOptions {
  home: Home
  identity: Identity
  /** Of the program. */
  version: string
  /** Of the user: what `~` stands for. */
  homedir: string
  clock: Clock
  log: Log
  randomBytes(count: number): Buffer
  /** Other thread entries than the tree's, for tests. */
  entries?: { arena?: URL; peer?: URL; view?: URL }
  /** Answers the methods of the control socket. */
  answer(supervisor: Supervisor): Answer
  /** Takes somebody who proved to know an invite into the household (pairing.ts). */
  pairing(supervisor: Supervisor): ConstructorParameters<typeof Connections>[0]['pairing']
}

export class Supervisor {
  readonly home: Home
  readonly identity: Identity
  readonly version: string
  readonly homedir: string
  readonly clock: Clock
  readonly logbook: Log
  readonly bell = new Bell()
  readonly invites: Invites
  readonly metrics: Metrics
  readonly hasher: Hasher
  readonly arenas: Arenas
  readonly connections: Connections
  readonly mounts: Mounts
  readonly listener: Listener
  readonly control: Control
  #config: Config
  #certificate = ''
  #startedMs: number
  /** Changes of the configuration happen one after the other. */
  #last: Promise<unknown> = Promise.resolve()

  /** Reads the configuration; starts nothing. Throws `config_invalid`. */
  constructor(options: SupervisorOptions) {
    this.home = options.home
    this.identity = options.identity
    this.version = options.version
    this.homedir = options.homedir
    this.clock = options.clock
    this.logbook = options.log
    this.#startedMs = options.clock.nowMs()
    this.#config = this.#parse(this.readConfigText())
    mkdirSync(this.home.state, { recursive: true, mode: 0o700 })

    const log = (event: LogEvent, fields: LogFields) => this.logbook.write(event, fields)
    const count = (name: string, amount: number, of?: string) => this.metrics.count(name, amount, of)
    const changed = () => this.bell.changed()
    const { clock } = this
    this.metrics = new Metrics(() => this.#figures())
    this.invites = new Invites({
      path: `${this.home.state}/invites.json`,
      wallMs: clock.wallMs,
      randomBytes: options.randomBytes,
    })
    this.hasher = new Hasher(availableParallelism())
    this.arenas = new Arenas({
      entry: options.entries?.arena ?? entryOf('arena'),
      policy: tree.arena.policy,
      clock,
      hasher: this.hasher,
      started: arena => {
        this.connections.attachArena(arena)
        this.mounts.arenaStarted(arena)
      },
      changed,
      history: event => {
        const { arena, action, path, other, author, version, size } = event
        log('arena_history', { arena, action, path, other, author, version, size })
        this.bell.history(event)
      },
      log,
      count,
    })
    this.mounts = new Mounts({
      entry: options.entries?.view ?? entryOf('view'),
      policy: tree.view.policy,
      clock,
      path: `${this.home.state}/mounts.json`,
      // An arena without a folder of its own has one in the state folder.
      kept: () => [...this.#roots(this.#config), this.home.state, this.home.cache],
      arenas: () => this.arenas.names,
      attach: (arena, port) => this.arenas.attachView(arena, port),
      changed,
      log,
      count,
    })
    const { placement } = tree.peer
    this.connections = new Connections({
      entry: options.entries?.peer ?? entryOf('peer'),
      threads: placement.on === 'threads' ? placement.count : 1,
      policy: tree.peer.policy,
      clock,
      settings: () => this.#peerSettings(),
      arenasOf: peer => arenasOf(this.#config, peer),
      attach: (...connection) => this.arenas.attach(...connection),
      invites: () => this.invites.attempts(),
      pairing: options.pairing(this),
      changed,
      log,
      count,
    })
    this.listener = new Listener({
      configPath: this.home.config,
      known: address => this.connections.known(address),
      accept: (socket, address, over) => this.connections.accept(socket, address, over),
      refused: address => {
        count('connections_refused', 1)
        log('peer_refused', { address, reason: 'too many handshakes in progress' })
      },
      log,
    })
    this.control = new Control({
      path: this.home.socket,
      answer: options.answer(this),
      failed: (method, error) => {
        log('control_failed', {
          method,
          reason: error instanceof Error ? (error.stack ?? error.message) : String(error),
        })
      },
    })
  }

  get config(): Config {
    return this.#config
  }

  /** Where others can dial this peer, as far as it can know. */
  get addresses(): string[] {
    return ownAddresses(this.listener.addresses, networkInterfaces())
  }

  get status(): StatusResult {
    return composeStatus({
      name: this.#config.peer.name,
      id: this.identity.id,
      version: this.version,
      startedMs: this.#startedMs,
      nowMs: this.clock.nowMs(),
      peers: this.connections.peers,
      arenas: this.arenas.statuses,
      mounts: this.mounts.statuses,
      actors: this.#actors(),
    })
  }

  /**
   * Resolves when peers and commands are accepted and each arena is open or has failed. Throws if the first two cannot be;
   * then `stop` takes down what has been started.
   */
  async start(): Promise<void> {
    this.logbook.write('service_started', { version: this.version, id: this.identity.id, home: this.home.name })
    await this.#inTurn(async () => {
      this.#certificate = await certificate(this.identity.key, this.clock.wallMs())
      await this.control.open()
      // Who may come in is known before anybody can, and nobody is called before it is sure that we stay.
      this.connections.setPeers(this.#config.peers)
      this.connections.start()
      await this.listener.listen(this.#config.peer.listen)
      this.connections.renewSettings()
      await this.arenas.setArenas(this.#settings())
      this.connections.beginDialling()
    })
    await Promise.all([this.arenas.settled(ARENAS_SETTLED_MS), this.mounts.restore()])
    this.logbook.write('service_ready')
  }

  /** Ends everything in order. False if a thread would not end: then only the end of the process does. */
  async stop(): Promise<boolean> {
    this.logbook.write('service_stopping')
    await this.listener.close()
    // While arenas still answer: what programs have written through a mount is on its way.
    const unmounted = await this.mounts.stop()
    const ended = await Promise.all([this.connections.stop(), this.arenas.stop()])
    await this.hasher.close()
    await this.control.close()
    this.logbook.write('service_stopped')
    return unmounted && ended.every(Boolean)
  }

  /** Reads the file again and follows it. Throws `config_invalid`; then everything stays as it was. */
  reload(): Promise<void> {
    return this.#inTurn(() => this.#follow(this.#parse(this.readConfigText())))
  }

  /**
   * Changes the configuration's file and follows it. Throws what `change` throws, or `config_invalid`; then the file and
   * everything else is as it was.
   */
  edit(change: (text: string, config: Config) => string): Promise<void> {
    return this.#inTurn(async () => {
      const before = this.readConfigText()
      // What is changed is what the file says now, though it may not have been followed yet.
      const after = change(before, this.#parse(before))
      const config = this.#parse(after)
      this.mounts.checkRoots(this.#roots(config))
      if (after !== before) writeFileAtomic(this.home.config, after)
      await this.#follow(config)
    })
  }

  readConfigText(): string {
    try {
      return decodeConfig(readFileSync(this.home.config), this.home.config)
    } catch (error) {
      if (error instanceof SyncError) throw error
      throw new SyncError('config_invalid', `${this.home.config} cannot be read: ${toFailure(error).message}`)
    }
  }

  /** For tests: the thread of an actor dies as if it had crashed. Throws `not_found`. */
  async kill(name: string): Promise<void> {
    if (name === this.hasher.name) return this.hasher.kill()
    if ((await this.arenas.kill(name)) || (await this.connections.kill(name)) || (await this.mounts.kill(name))) return
    throw new SyncError('not_found', `there is no worker thread '${name}': \`realize status\` shows the actors`)
  }

  #parse(text: string): Config {
    const own = [this.home.state, this.home.cache]
    return parseConfig(text, this.home.config, { homedir: this.homedir, own })
  }

  async #follow(next: Config): Promise<void> {
    const before = this.#config
    this.mounts.checkRoots(this.#roots(next))
    // The only step that can be refused from outside; it changes nothing if it is.
    await this.listener.listen(next.peer.listen)
    this.#config = next
    const already = new Set<ArenaName>(this.arenas.names)
    this.connections.renewSettings()
    this.connections.setPeers(next.peers)
    await this.arenas.setArenas(this.#settings())
    this.mounts.arenasChanged()
    for (const { peer, gained, lost } of rightsChanged(before, next)) {
      // Arenas that were just begun have been given their connections.
      for (const arena of gained) if (already.has(arena)) this.connections.attachTo(peer, arena)
      if (lost.length > 0) this.connections.reconnect(peer, 'what is shared has changed')
    }
    this.logbook.write('config_loaded', { peers: next.peers.length, arenas: next.arenas.length })
    this.bell.changed()
  }

  #inTurn(action: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(action)
    this.#last = turn.catch(() => {})
    return turn
  }

  #roots(config: Config): string[] {
    return config.arenas.flatMap(({ path }) => (path === null ? [] : [path]))
  }

  #settings() {
    const author = authorOf(this.identity.id)
    return this.#config.arenas.map(arena => settingsOf(this.#config, arena, this.home, author))
  }

  #peerSettings(): PeerSettings {
    return {
      id: this.identity.id,
      name: this.#config.peer.name,
      software: `realize/${this.version}`,
      key: this.identity.key,
      certificate: this.#certificate,
      addresses: this.addresses,
    }
  }

  #actors(): ActorStatus[] {
    const onMain = (name: string, mailbox: number): ActorStatus => ({
      name,
      thread: 0,
      restarts: 0,
      mailbox,
      lastError: null,
    })
    return [
      onMain('control', this.control.clients),
      onMain('listener', this.listener.handshakes),
      this.hasher.actor,
      ...this.connections.actors,
      ...this.arenas.actors,
      ...this.mounts.actors,
    ]
  }

  #figures(): Figures {
    return {
      uptimeSeconds: (this.clock.nowMs() - this.#startedMs) / 1000,
      peers: this.#config.peers.length,
      peersConnected: this.connections.connectedCount,
      handshakes: this.listener.handshakes,
      arenas: this.arenas.statuses,
    }
  }
}

function entryOf(actor: 'arena' | 'peer' | 'view'): URL {
  const { entry } = tree[actor]
  if (!entry) throw new SyncError('internal', `${actor} has no thread entry`)
  return entry
}
