/**
 * Three real services with a relay on each way between them, their users, and what can be made to go wrong with them: plays
 * the plan of a round, heals everything, waits for agreement, and has it checked.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  closeSync,
  cpSync,
  existsSync,
  fchmodSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { IGNORE_FILE_BYTES_MAX, isIgnoreFile } from '../../actors/arena/ignore-rules.ts'
import { Relay } from '../../bench/relay.ts'
import { ControlError } from '../../cli/client.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import type { ArenaStatus } from '../../protocol/status.ts'
import { within } from '../_deadline.ts'
import type { Cleaning } from '../_temp.ts'
import { arenaName, freePort, Household } from '../system/_household.ts'
import { mountFolder, mountMemory, remount, unmount } from '../system/_mount.ts'
import { type Peer, run, SERVICE } from '../system/_peer.ts'
import {
  absentFrom,
  checkContents,
  checkEqual,
  checkNothingLeft,
  checkReads,
  checkShown,
  type Keys,
  look,
  type Sight,
  Violation,
} from './_check.ts'
import { Ledger } from './_ledger.ts'
import { MountUser } from './_mount-user.ts'
import { type Fault, MOUNT_PEER, PEERS, type Round, SMALL_DISK_PEER } from './_plan.ts'
import { isAlarming, type Usage, usageOf } from './_services.ts'
import type { Surroundings } from './_surroundings.ts'
import { User } from './_user.ts'

const ARENA = 'docs'
const NAMES = ['alice', 'bob', 'carol']
const DISK_MIB = 96
const CONNECT_MS = 90_000
const SETTLE_MS = 240_000
/** One `wait` of many. */
const WAIT_SECONDS = 20
/** How long nothing may happen to be called quiet, and when it must be. */
const QUIET_MS = 2_500
const QUIET_WITHIN_MS = 60_000
/** On one relay in that time: a ping and its answer. */
const PING_BYTES = 1_500
/** A tree larger than this is tidied up before the next round. */
const PATHS_MAX = 150
const BYTES_MAX = 16 * 1024 * 1024
/** Kept versions of all peers, above which they are thrown away, as people do. */
const KEPT_BYTES_MAX = 15 * 1024 * 1024
/** A service at rest. */
const DESCRIPTORS_MAX = 250
const RSS_BYTES_MAX = 700 * 1024 * 1024
/** The service promises ten seconds, on a machine that has time for it. */
const STOP_MS_MAX = 20_000
/** Nothing is given up in the first 20 s after a start. */
const EVICT_MS = 90_000
/** Files that are read through the mount when everything is at rest. */
const READS = 40
/** A user who deleted fewer entries is not to be asked whether that was meant. */
const DELETED_MIN = 20

export class World {
  readonly ledger: Ledger
  readonly surroundings: Surroundings
  operations = 0
  readonly faults = new Map<string, number>()
  /** Of the last round. */
  settledMs = 0
  /** Files that were given up when everything was at rest, and that were read through the mount then. */
  givenUp = 0
  reads = 0
  readonly #household: Household
  readonly #folder: string
  readonly #users: User[] = []
  /** Works at the mount in some rounds. */
  #mountUser: MountUser | null = null
  #mounted = false
  /** Paths that have a mark ('': the arena), of each peer. */
  readonly #marked = new Map<Peer, Set<string>>()
  readonly #relays = new Map<string, Relay>()
  readonly #keys: Keys = new Map()
  /** What is done to one service after the other. */
  readonly #chains: Promise<unknown>[] = Array.from({ length: PEERS }, () => Promise.resolve())
  /** Further faults that are not over. */
  readonly #lasting = new Set<Promise<unknown>>()
  readonly #hastening = new Set<() => void>()
  readonly #alarms: string[] = []
  readonly #strained = new Set<Peer>()
  readonly #unmounted = new Set<Peer>()
  readonly #rolledBack = new Set<Peer>()
  /** Processes with a wrong clock. */
  readonly #faked = new Set<number>()
  readonly #backups = new Map<Peer, string>()
  readonly #usage = new Map<number, Usage>()
  #round = 0

  constructor(cleaning: Cleaning, folder: string, surroundings: Surroundings) {
    this.#folder = folder
    this.surroundings = surroundings
    const operations = join(folder, 'operations.ndjson')
    this.ledger = new Ledger(line => appendFileSync(operations, `${JSON.stringify(line)}\n`))
    this.#household = new Household(cleaning, folder)
    cleaning.teardown(async () => {
      for (const relay of this.#relays.values()) await relay.close()
    })
  }

  get #peers(): Peer[] {
    return this.#household.peers
  }

  #relay(from: number, to: number): Relay {
    return this.#relays.get(`${from} ${to}`) as Relay
  }

  /** Both ways between two peers. */
  #way(peer: number, other: number): [Relay, Relay] {
    const far = (peer + other) % PEERS
    return [this.#relay(peer, far), this.#relay(far, peer)]
  }

  async open(): Promise<void> {
    const household = this.#household
    for (const name of NAMES) {
      const peer = await household.peer(name, { start: false })
      peer.before = this.surroundings.fewerRights
      const log = join(this.#folder, `${name}.log`)
      peer.heard = line => {
        appendFileSync(log, `${line}\n`)
        if (isAlarming(line, this.#strained.has(peer))) this.#alarms.push(`${name}: ${line}`)
      }
      mkdirSync(household.root(peer), { recursive: true })
    }
    const small = this.#peers[SMALL_DISK_PEER] as Peer
    if (this.surroundings.mounts) {
      const volume = this.#volume
      mkdirSync(volume)
      mountMemory(volume, `${DISK_MIB}m`)
      mkdirSync(join(volume, 'root'))
      this.#mount(small)
    }
    for (const peer of this.#peers) {
      await this.#start(peer)
      await household.share(peer, ARENA)
      this.#users.push(new User(peer.name, household.root(peer), this.ledger))
    }
    for (const [from, peer] of this.#peers.entries()) {
      for (const [to, other] of this.#peers.entries()) {
        if (from === to) continue
        const relay = await Relay.open(await freePort(), other.port as number)
        this.#relays.set(`${from} ${to}`, relay)
        const { id } = await other.call('id', {})
        await peer.call('peer_add', { name: other.name, id, addresses: [`127.0.0.1:${relay.port}`] })
      }
    }
    await household.together(this.#peers, ARENA)
    if (!this.surroundings.views) return
    mkdirSync(this.#mounts)
    // While nothing is mounted there, nobody writes there.
    if (process.getuid?.() === 0) mountMemory(this.#mounts, '64k')
    mkdirSync(this.#view)
    if (process.getuid?.() === 0) remount(this.#mounts, 'ro')
    else chmodSync(this.#view, 0o555)
    const mounting = this.#peers[MOUNT_PEER] as Peer
    await mounting.call('mount', { path: this.#view })
    const below = household.root(mounting)
    this.#mountUser = new MountUser(`${mounting.name} at the mount`, join(this.#view, ARENA), below, this.ledger)
  }

  get #mounts(): string {
    return join(this.#folder, 'mounts')
  }

  get #view(): string {
    return join(this.#mounts, 'view')
  }

  /** Who does a peer's acts in this round. */
  #acting(index: number): User | MountUser {
    return (index === MOUNT_PEER && this.#mounted && this.#mountUser) || (this.#users[index] as User)
  }

  /** Ends the services as they are, and the volume. What is on it goes beside it if `keep`. */
  async close(keep: boolean): Promise<void> {
    await this.#household.end()
    this.#sweep()
    if (this.#mountUser !== null) {
      for (const place of [this.#view, this.#mounts]) spawnSync('umount', ['--lazy', place])
      await this.#mountUser.close()
    }
    if (!this.surroundings.mounts || !existsSync(this.#volume)) return
    const root = this.#household.root(this.#peers[SMALL_DISK_PEER] as Peer)
    if (keep)
      // Node does not copy names that are not UTF-8.
      execFileSync('cp', ['-a', join(this.#volume, 'root'), `${root}.kept`])
    for (const place of [root, this.#volume]) {
      try {
        unmount(place)
      } catch {
        // It was not mounted.
      }
    }
  }

  /** Plays a round to its end and checks what came of it. Throws a Violation. */
  async play(round: Round): Promise<void> {
    this.#round = round.number
    this.#mounted = round.mounted
    this.#note({ round: round.number, seed: round.seed, begins: new Date().toISOString() })
    for (const [index, user] of this.#users.entries()) {
      user.begin(round.number, (round.seed * 31 + round.number) * PEERS + index)
      if (index === MOUNT_PEER) this.#mountUser?.begin(round.number, (round.seed * 37 + round.number) * PEERS + index)
      this.#acting(index).tidy(PATHS_MAX, BYTES_MAX)
    }
    const startMs = performance.now()
    for (const step of round.steps) {
      await pause(startMs + step.atMs - performance.now())
      if (step.is === 'fault') this.#strike(step.peer, step.fault)
      else {
        this.operations++
        this.#acting(step.peer).act(step.act)
      }
    }
    await this.#heal()
    await this.#settle()
    checkReads(this.ledger)
    if (round.real) await this.#wantAll()
    const sights = this.#marked.size > 0 ? await this.#checkPartial() : await this.#checkWhole()
    checkContents(sights, this.ledger)
    this.#checkProcesses()
    this.ledger.absent = absentFrom(sights, this.ledger)
    this.#note({ round: round.number, ends: new Date().toISOString(), paths: sights[0]?.synced.size ?? 0 })
    await this.#cleanUp(sights)
  }

  async #checkWhole(): Promise<Sight[]> {
    const sights = await this.#quiet()
    checkEqual(sights)
    await this.#checkHonest(sights)
    return sights
  }

  /** Everything is wanted real again: so each content must be somewhere. */
  async #wantAll(): Promise<void> {
    if (this.#marked.size === 0) return
    for (const [peer, paths] of this.#marked) {
      for (const path of paths)
        if (path !== '') await peer.call('mark', { arena: arenaName(ARENA), path, mark: 'clear' })
      await peer.call('mark', { arena: arenaName(ARENA), mark: 'real' })
    }
    this.#marked.clear()
    await this.#settle()
  }

  /** Not everybody shows everything: what may be given up is, what somebody showed somebody shows, and what is read is right. */
  async #checkPartial(): Promise<Sight[]> {
    const before = this.#lookAll()
    for (const peer of this.#marked.keys()) {
      const { files, kept } = await within(EVICT_MS, 'an evict', peer.call('evict', { arena: arenaName(ARENA) }))
      this.#note({ round: this.#round, peer: peer.name, evicted: files, kept })
      this.givenUp += files
    }
    await this.#settle()
    const sights = this.#lookAll()
    checkNothingLeft(before, sights)
    checkShown(sights)
    if (this.#mountUser !== null) {
      for (let index = 0; index < READS; index++) this.#mountUser.act({ do: 'read', pick: index / READS })
      await this.#mountUser.rest()
      this.reads += this.ledger.reads.length
      checkReads(this.ledger)
    }
    return sights
  }

  #lookAll(): Sight[] {
    return this.#peers.map(peer => look(peer.name, this.#household.root(peer), this.#keys))
  }

  /** What was going on, for whoever looks for the cause. */
  async collect(): Promise<void> {
    for (const peer of this.#peers) {
      if (!peer.isRunning) continue
      try {
        peer.signal('SIGCONT')
        const status = await within(10_000, 'status', peer.call('status', {}))
        writeFileSync(join(this.#folder, `${peer.name}.status.json`), JSON.stringify(status, null, 2))
        const events: unknown[] = []
        for (let before: number | undefined; events.length < 20_000; ) {
          const page = await within(
            10_000,
            'history',
            peer.call('history', { arena: arenaName(ARENA), limit: 1000, ...(before !== undefined && { before }) }),
          )
          events.push(...page.events)
          before = page.events.at(-1)?.number
          if (page.events.length < 1000) break
        }
        const lines = events.map(event => JSON.stringify(event))
        writeFileSync(join(this.#folder, `${peer.name}.history.ndjson`), `${lines.join('\n')}\n`)
      } catch (error) {
        appendFileSync(join(this.#folder, `${peer.name}.log`), `* chaos could not ask it: ${String(error)}\n`)
      }
    }
  }

  #note(line: object): void {
    appendFileSync(join(this.#folder, 'rounds.ndjson'), `${JSON.stringify(line)}\n`)
  }

  async #start(peer: Peer): Promise<void> {
    peer.launch()
    if (Object.keys(peer.variables).length > 0) this.#faked.add(peer.pid)
    await peer.ready()
  }

  /** libfaketime leaves two files in shared memory when its process is killed. */
  #sweep(): void {
    for (const pid of this.#faked) {
      if (existsSync(`/proc/${pid}`)) continue
      this.#faked.delete(pid)
      for (const name of [`faketime_shm_${pid}`, `sem.faketime_sem_${pid}`])
        rmSync(join('/dev/shm', name), { force: true })
    }
  }

  // Faults

  #strike(index: number, fault: Fault): void {
    const peer = this.#peers[index] as Peer
    const note = (more: object) =>
      this.#note({ round: this.#round, at: new Date().toISOString(), peer: peer.name, ...fault, ...more })
    const reason = this.surroundings.missing(fault.do)
    if (reason !== null) return note({ skipped: reason })
    this.faults.set(fault.do, (this.faults.get(fault.do) ?? 0) + 1)
    if (fault.do in this.#besides) {
      note({})
      const lasting = this.#strikeBeside(index, fault).finally(() => this.#lasting.delete(lasting))
      lasting.catch(() => {})
      this.#lasting.add(lasting)
      return
    }
    this.#chains[index] = (this.#chains[index] as Promise<unknown>).then(async () => {
      note({ begins: true })
      await this.#strikeService(peer, this.#users[index] as User, fault)
    })
    this.#chains[index]?.catch(() => {})
  }

  readonly #besides = {
    cut: 0,
    refuse: 0,
    stall: 0,
    stall_one_way: 0,
    slow: 0,
    reset: 0,
    no_access: 0,
    full_disk: 0,
    mark: 0,
    evict: 0,
    fetch: 0,
    cache_limit: 0,
  }

  /** What goes on beside everything else. */
  async #strikeBeside(index: number, fault: Fault): Promise<void> {
    switch (fault.do) {
      case 'cut':
        for (const relay of this.#way(index, fault.other)) relay.cut()
        return
      case 'refuse':
      case 'stall':
      case 'slow': {
        const way = this.#way(index, fault.other)
        for (const relay of way) {
          if (fault.do === 'slow') relay.bytesPerSecond = fault.bytesPerSecond
          else if (fault.do === 'refuse') {
            relay.refusing = true
            relay.cut()
          } else {
            relay.stall('toTarget')
            relay.stall('fromTarget')
          }
        }
        await this.#meanwhile(fault.forMs)
        for (const relay of way) relay.heal()
        return
      }
      case 'stall_one_way': {
        const [out, back] = this.#way(index, fault.other)
        out.stall('toTarget')
        back.stall('fromTarget')
        await this.#meanwhile(fault.forMs)
        out.heal()
        back.heal()
        return
      }
      case 'reset':
        for (const relay of this.#way(index, fault.other)) relay.cutEvery(fault.bytes, fault.times)
        return
      case 'no_access':
        return this.#withoutAccess(this.#users[index] as User, fault.pick, fault.mode, fault.forMs)
      case 'full_disk':
        return this.#fill(fault.spareBytes, fault.forMs)
      case 'mark':
      case 'evict':
      case 'fetch':
      case 'cache_limit':
        return this.#command(this.#peers[index] as Peer, fault)
      default:
        throw new Error(`'${fault.do}' strikes a service`)
    }
  }

  /** What a person asks of a service, which may not be there. */
  async #command(peer: Peer, fault: Extract<Fault, { do: 'mark' | 'evict' | 'fetch' | 'cache_limit' }>): Promise<void> {
    const arena = arenaName(ARENA)
    const path = 'path' in fault && fault.path !== '' ? { path: fault.path } : {}
    try {
      if (fault.do === 'mark') {
        const marked = this.#marked.get(peer) ?? new Set()
        this.#marked.set(peer, marked.add(fault.path))
        await peer.call('mark', { arena, ...path, mark: fault.mark })
      } else if (fault.do === 'cache_limit') {
        const line = `cache = { max = "${fault.bytes / 1e6}MB" }\n`
        peer.editConfig(text =>
          text
            .replace(/^cache = .*\n/m, '')
            .replace(/^\[\[arenas\]\]\n/m, `[[arenas]]\n${line}# ${performance.now()}\n`),
        )
        await peer.call('config_reload', {})
      } else await peer.call(fault.do, { arena, ...path })
    } catch (error) {
      // It has ended meanwhile, or there is nothing at this path.
      this.#note({ round: this.#round, peer: peer.name, [fault.do]: String(error) })
    }
  }

  async #strikeService(peer: Peer, user: User, fault: Fault): Promise<void> {
    switch (fault.do) {
      case 'kill':
        await peer.kill()
        await this.#meanwhile(fault.forMs)
        if (fault.early !== null) {
          peer.launch()
          this.#faked.add(peer.pid)
          await this.#meanwhile(fault.early)
          await peer.kill()
        }
        return this.#start(peer)
      case 'term':
        await this.#stop(peer)
        await this.#meanwhile(fault.forMs)
        return this.#start(peer)
      case 'pause':
        peer.signal('SIGSTOP')
        await this.#meanwhile(fault.forMs)
        peer.signal('SIGCONT')
        return
      case 'kill_thread': {
        this.#strained.add(peer)
        const { actors } = await peer.call('status', {})
        const names = actors.filter(actor => actor.thread !== null && actor.thread > 0).map(actor => actor.name)
        const name = names[Math.floor(fault.pick * names.length)]
        if (name !== undefined) await peer.call('debug_kill_thread', { name })
        return
      }
      case 'kill_view': {
        this.#strained.add(peer)
        const { actors } = await peer.call('status', {})
        const view = actors.find(actor => actor.thread !== null && actor.thread > 0 && actor.name.includes('view'))
        if (view) await peer.call('debug_kill_thread', { name: view.name })
        return
      }
      case 'second_service': {
        const { code, stderr } = await run(SERVICE, ['--home', peer.home, '--log-level', 'error'])
        if (code !== 1 || !stderr.includes('already'))
          throw new Violation('two services on one home', `the second at ${peer.name} ended with ${code}: ${stderr}`)
        return
      }
      case 'lose_store':
        await peer.kill()
        rmSync(this.#store(peer), { recursive: true })
        await this.#meanwhile(fault.forMs)
        return this.#start(peer)
      case 'backup_store': {
        await peer.kill()
        const copy = join(this.#folder, `${peer.name}.store`)
        rmSync(copy, { recursive: true, force: true })
        cpSync(this.#store(peer), copy, { recursive: true })
        this.#backups.set(peer, copy)
        await this.#meanwhile(fault.forMs)
        return this.#start(peer)
      }
      case 'restore_store': {
        const copy = this.#backups.get(peer)
        if (copy === undefined) return
        this.#rolledBack.add(peer)
        await peer.kill()
        const store = this.#store(peer)
        rmSync(store, { recursive: true })
        cpSync(copy, store, { recursive: true })
        await this.#meanwhile(fault.forMs)
        return this.#start(peer)
      }
      case 'clock':
        await peer.kill()
        peer.variables = this.surroundings.clock(fault.offsetSeconds)
        return this.#start(peer)
      case 'few_files': {
        this.#strained.add(peer)
        const { pid } = peer
        const limit = usageOf(pid).descriptors + fault.spare
        const before = execFileSync('prlimit', ['--pid', `${pid}`, '--nofile', '--noheadings', '--output', 'SOFT'], {
          encoding: 'utf8',
        })
        execFileSync('prlimit', ['--pid', `${pid}`, `--nofile=${limit}:`])
        await this.#meanwhile(fault.forMs)
        execFileSync('prlimit', ['--pid', `${pid}`, `--nofile=${before.trim()}:`])
        return
      }
      case 'unmount':
        return this.#unmount(peer, user, fault.running, fault.forMs)
      default:
        throw new Error(`'${fault.do}' does not strike a service`)
    }
  }

  /** Lets time go by, or ends at once when the round is over. */
  async #meanwhile(ms: number): Promise<void> {
    await new Promise<void>(resolve => {
      const timer = setTimeout(() => over(), ms)
      const over = (): void => {
        clearTimeout(timer)
        this.#hastening.delete(over)
        resolve()
      }
      this.#hastening.add(over)
    })
  }

  async #stop(peer: Peer): Promise<void> {
    const { code, signal, ms } = await peer.stop()
    if (code !== 0 || ms > STOP_MS_MAX)
      throw new Violation('SIGTERM', `${peer.name} ended with ${signal ?? code} after ${Math.round(ms)} ms`)
  }

  /** The folder of the arena's store, below the state folder. */
  #store(peer: Peer): string {
    const items = readdirSync(join(peer.home, 'state'), { recursive: true, withFileTypes: true })
    const found = items.find(item => item.isDirectory() && item.name === ARENA)
    if (!found) throw new Error(`no store of ${ARENA} below ${peer.home}/state`)
    return join(found.parentPath, found.name)
  }

  async #withoutAccess(user: User, pick: number, barred: number, forMs: number): Promise<void> {
    const folders = user.paths('dir')
    const folder = folders[Math.floor(pick * folders.length)]
    if (folder === undefined || user.away) return
    // By descriptor: it may be renamed meanwhile.
    const fd = openSync(join(user.root, folder), 'r')
    const { mode } = fstatSync(fd)
    fchmodSync(fd, barred)
    await this.#meanwhile(forMs)
    fchmodSync(fd, mode | 0o755)
    closeSync(fd)
  }

  // The small disk

  get #volume(): string {
    return join(this.#folder, 'volume')
  }

  #mount(peer: Peer): void {
    mountFolder(join(this.#volume, 'root'), this.#household.root(peer))
  }

  async #fill(spareBytes: number, forMs: number): Promise<void> {
    const place = join(this.#volume, `filler ${performance.now()}`)
    const { bavail, bsize } = statfsSync(this.#volume)
    const fd = openSync(place, 'w')
    const piece = Buffer.alloc(256 * 1024)
    try {
      for (let left = bavail * bsize - spareBytes; left > 0; )
        left -= writeSync(fd, piece, 0, Math.min(left, piece.length))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
    } finally {
      closeSync(fd)
    }
    await this.#meanwhile(forMs)
    rmSync(place)
  }

  async #unmount(peer: Peer, user: User, running: boolean, forMs: number): Promise<void> {
    const root = this.#household.root(peer)
    this.#unmounted.add(peer)
    if (!running) await this.#stop(peer)
    user.away = true
    unmount(root)
    if (!running) await this.#start(peer)
    await this.#meanwhile(forMs)
    if (!running) await this.#stop(peer)
    const left = readdirSync(root)
    if (left.length > 0)
      throw new Violation('I9 guard', `${peer.name} wrote where its volume was not mounted: ${left.join(', ')}`)
    this.#mount(peer)
    user.away = false
    if (!running) await this.#start(peer)
  }

  // After a round

  async #heal(): Promise<void> {
    for (const over of [...this.#hastening]) over()
    // What begins now, waiting for its turn, is over at once as well.
    const hasten = setInterval(() => {
      for (const over of [...this.#hastening]) over()
    }, 50)
    try {
      await Promise.all([...this.#chains, ...this.#lasting, ...this.#users.map(user => user.rest())])
      await this.#mountUser?.rest()
    } finally {
      clearInterval(hasten)
    }
    for (const relay of this.#relays.values()) relay.heal()
    for (const peer of this.#peers) if (!peer.isRunning) throw new Violation('a service ended by itself', peer.report())
    const startMs = performance.now()
    for (const peer of this.#peers)
      for (const other of this.#peers) if (other !== peer) await peer.call('peer_connect', { name: other.name })
    for (const peer of this.#peers) {
      await peer
        .until(
          'is connected with all others',
          ({ peers }) => peers.every(one => one.state === 'connected'),
          CONNECT_MS - (performance.now() - startMs),
        )
        .catch(error => {
          throw new Violation('no connection', String(error))
        })
    }
  }

  async #settle(): Promise<void> {
    const startMs = performance.now()
    for (let tries = 0; ; tries++) {
      for (const peer of this.#peers) await this.#unguard(peer)
      const missing: string[] = []
      for (const peer of this.#peers) missing.push(...(await this.#wait(peer)))
      const states = await Promise.all(this.#peers.map(peer => peer.arena(ARENA)))
      const agreed = states.every(state => state.consensus && state.root === states[0]?.root)
      this.settledMs = performance.now() - startMs
      if (agreed && missing.length === 0) return
      if (this.settledMs > SETTLE_MS)
        throw new Violation('I2 no consensus', `${missing.join('\n')}\n${JSON.stringify(states)}`)
      if (missing.length > 0) this.#makeRoom(states)
      this.#note({ round: this.#round, at: new Date().toISOString(), tries, missing })
    }
  }

  /** What keeps this peer from consensus after a while. */
  async #wait(peer: Peer): Promise<string[]> {
    try {
      await peer.call('wait', { arena: arenaName(ARENA), timeoutSeconds: WAIT_SECONDS })
      return []
    } catch (error) {
      if (!(error instanceof ControlError)) throw error
      return [`${peer.name}: ${error.message} (${(error.data.missing ?? []).join('; ')})`]
    }
  }

  /** A person answers the guard, if it had reason to ask. */
  async #unguard(peer: Peer): Promise<void> {
    const { state, reason } = await peer.arena(ARENA)
    if (state !== 'guarded') return
    const index = this.#peers.indexOf(peer)
    const deleted = (this.#users[index] as User).deleted + (index === MOUNT_PEER ? (this.#mountUser?.deleted ?? 0) : 0)
    const meant = /entries are gone/.test(reason ?? '')
      ? deleted >= DELETED_MIN || this.#rolledBack.has(peer)
      : /ENOSPC|EMFILE/.test(reason ?? '') || this.#unmounted.has(peer)
    this.#note({ round: this.#round, peer: peer.name, guarded: reason })
    if (!meant) throw new Violation('I9 stopped without need', `${peer.name}: ${reason} (its user deleted ${deleted})`)
    await peer.call('arena_resume', { name: arenaName(ARENA) })
  }

  /** What one's own things keep out is a matter for its user, who moves them away. */
  #makeRoom(states: readonly ArenaStatus[]): void {
    for (const [index, { problems }] of states.entries()) {
      const user = this.#users[index] as User
      for (const { path, reason } of problems) if (reason.includes('not empty')) user.clear(path)
    }
  }

  /** Nothing moves any more, on disks or between peers (I3). What it all looks like then. */
  async #quiet(): Promise<Sight[]> {
    const endMs = performance.now() + QUIET_WITHIN_MS
    let sights = this.#lookAll()
    for (;;) {
      const before = sights
      const bytes = this.#passed()
      const stores = this.#storeStamps()
      await pause(QUIET_MS)
      sights = this.#lookAll()
      const passed = this.#passed().map((now, index) => now - (bytes[index] as number))
      const changed = sights.filter((sight, index) => sight.stamps !== before[index]?.stamps).map(sight => sight.peer)
      const written = this.#storeStamps() !== stores
      if (changed.length === 0 && !written && passed.every(count => count <= PING_BYTES)) return sights
      if (performance.now() > endMs) {
        const what = `after ${QUIET_WITHIN_MS} ms of agreement: ${passed.join(', ')} bytes passed; disks changed: ${changed.join(', ')}; stores written: ${written}`
        throw new Violation('I3 not quiet', what)
      }
    }
  }

  #passed(): number[] {
    return [...this.#relays.values()].map(relay => relay.toTarget + relay.fromTarget)
  }

  #storeStamps(): string {
    return this.#peers
      .flatMap(peer => {
        const store = this.#store(peer)
        // Readers come and go in the lock's file.
        const files = readdirSync(store, { recursive: true, encoding: 'utf8' }).filter(name => !name.includes('lock'))
        return files.map(name => statSync(join(store, name)).mtimeMs)
      })
      .join()
  }

  /** I12, I13: nothing is left half done, and what cannot be synced is said. */
  async #checkHonest(sights: readonly Sight[]): Promise<void> {
    for (const [index, peer] of this.#peers.entries()) {
      const sight = sights[index] as Sight
      if (sight.staged.length > 0)
        throw new Violation('I12 left in staging', `${peer.name}: ${sight.staged.join(', ')}`)
      const status = await peer.arena(ARENA)
      if (!status.consensus)
        throw new Violation('I13 honest', `${peer.name} denies the consensus: ${status.missing.join('; ')}`)
      if (status.needFiles !== 0 || status.needBytes !== 0)
        throw new Violation('I13 honest', `${peer.name} needs ${status.needFiles} files, ${status.needBytes} bytes`)
      const files = [...sight.synced.values()].filter(shown => shown.type === 'file').length
      const named = new Set(status.problems.map(problem => problem.path as string))
      for (const { path, reason, note } of status.problems) {
        if (note || sight.own.has(path) || sight.invalid.includes(path)) continue
        // Rules that are too long are synced, and not heeded.
        if (isIgnoreFile(path as EntryPath) && (sight.synced.get(path)?.bytes ?? 0) > IGNORE_FILE_BYTES_MAX) continue
        throw new Violation(
          'I13 honest',
          `${peer.name} says of ${JSON.stringify(path)}, where nothing is wrong: ${reason}`,
        )
      }
      for (const path of sight.invalid) {
        if (path.includes('/') || named.has(path)) continue
        throw new Violation('I13 honest', `${peer.name} does not say that it leaves ${JSON.stringify(path)} alone`)
      }
      // What one ignores, it may know from another.
      if (sights.every(({ own }) => own.size === 0) && status.files !== files)
        throw new Violation('I13 honest', `${peer.name} counts ${status.files} files, there are ${files}`)
    }
  }

  #checkProcesses(): void {
    const alarm = this.#alarms[0]
    if (alarm !== undefined) throw new Violation('the log of a service', `${this.#alarms.slice(0, 5).join('\n')}`)
    this.#strained.clear()
    this.#unmounted.clear()
    this.#rolledBack.clear()
    for (const peer of this.#peers) {
      const usage = usageOf(peer.pid)
      this.#note({ round: this.#round, peer: peer.name, pid: peer.pid, ...usage })
      const first = this.#usage.get(peer.pid) ?? usage
      this.#usage.set(peer.pid, first)
      const more = usage.descriptors - first.descriptors
      if (usage.descriptors > DESCRIPTORS_MAX || more > 60)
        throw new Violation('I12 descriptors', `${peer.name} has ${usage.descriptors}, ${more} more than at first`)
      if (usage.rssBytes > RSS_BYTES_MAX)
        throw new Violation('I12 memory', `${peer.name} takes ${Math.round(usage.rssBytes / 1e6)} MB`)
    }
  }

  /** Throws away kept versions where they have become many, while the service is away. */
  async #cleanUp(sights: readonly Sight[]): Promise<void> {
    this.#sweep()
    const folders = this.#peers.map(peer => join(this.#household.root(peer), '.realize', 'versions'))
    if (Math.max(...sights.map(sight => sight.keptBytes)) < KEPT_BYTES_MAX) return
    await Promise.all(this.#peers.map(peer => this.#stop(peer)))
    for (const folder of folders)
      for (const name of existsSync(folder) ? readdirSync(folder) : []) rmSync(join(folder, name), { force: true })
    this.#keys.clear()
    const present = new Set(
      sights.flatMap(({ synced, own }) => [...synced.values(), ...own.values()].map(({ key }) => key)),
    )
    for (const key of [...this.ledger.required.keys()]) if (!present.has(key)) this.ledger.required.delete(key)
    await Promise.all(this.#peers.map(peer => this.#start(peer)))
  }
}

async function pause(ms: number): Promise<void> {
  if (ms > 0) await new Promise(resolve => setTimeout(resolve, ms))
}
