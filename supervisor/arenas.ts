/**
 * The arenas that run here: a thread for each, its watcher on the main thread, its hash requests to the pool, and its last
 * word on how it stands. What an arena does is its own affair.
 */
import { rmSync } from 'node:fs'
import type { MessagePort } from 'node:worker_threads'
import type { DescriptorTable } from '../actors/descriptors.ts'
import type { HasherPool } from '../actors/hasher/pool.ts'
import { releaseMemory } from '../actors/relief.ts'
import { watchRoot } from '../actors/watcher/watcher.ts'
import type { ActorStatus } from '../protocol/control.ts'
import { SyncError, toFailure } from '../protocol/error.ts'
import type { ArenaName, BlobHash, PeerId } from '../protocol/ids.ts'
import type { LogEvent, LogFields } from '../protocol/log.ts'
import type {
  ArenaCommand,
  ArenaReport,
  ArenaSettings,
  FileRef,
  HashResult,
  HashTask,
  PatchTask,
} from '../protocol/ports.ts'
import type { ArenaStatus, HistoryEvent } from '../protocol/status.ts'
import { ActorThread } from './actor-thread.ts'
import type { Clock } from './clock.ts'
import type { RestartPolicy } from './restart.ts'

export interface ArenasOptions {
  entry: URL
  policy: RestartPolicy
  clock: Clock
  hasher: HasherPool
  /** The arena's thread runs (again): it has no connections yet. */
  started(arena: ArenaName): void
  /** How an arena stands has changed. */
  changed(): void
  history(event: HistoryEvent): void
  log(event: LogEvent, fields: LogFields): void
  count(name: string, amount: number, of?: string): void
}

type Thread = ActorThread<ArenaCommand, ArenaReport>

interface Arena {
  settings: ArenaSettings
  thread: Thread
  watcher: { stop(): Promise<void> } | undefined
  watcherFault: string | null
  /** As the arena said last. */
  status: ArenaStatus | undefined
  /** Why its thread is not there; null while it is. */
  failed: string | null
  /** It has opened, or failed to. */
  settled: boolean
  /** It is not asked to lend anything before this time: it did not answer. */
  lendsFromMs: number
}

/** How long an arena may take to say what it lends: what it has to do comes first, and the content may as well be fetched. */
const LEND_MS = 500
/** One that has not answered is left alone for so long. */
const LEND_PAUSE_MS = 10_000

const ZERO_ROOT = '0'.repeat(64)

export class Arenas {
  readonly #options: ArenasOptions
  readonly #arenas = new Map<ArenaName, Arena>()
  readonly #waiting = new Set<() => void>()

  constructor(options: ArenasOptions) {
    this.#options = options
  }

  get names(): ArenaName[] {
    return [...this.#arenas.keys()]
  }

  get settings(): ArenaSettings[] {
    return [...this.#arenas.values()].map(arena => arena.settings)
  }

  /** In the order of the configuration. */
  get statuses(): ArenaStatus[] {
    return [...this.#arenas.values()].map(statusOf)
  }

  /** Throws `arena_unknown`. */
  status(name: ArenaName): ArenaStatus {
    return statusOf(this.#get(name))
  }

  get actors(): ActorStatus[] {
    return [...this.#arenas.values()].flatMap(({ thread, settings, watcher, watcherFault }) => [
      {
        name: thread.name,
        thread: thread.threadId,
        restarts: thread.restarts,
        mailbox: thread.mailbox,
        lastError: thread.lastError,
      },
      ...(watcher
        ? [{ name: `watcher-${settings.name}`, thread: 0, restarts: 0, mailbox: 0, lastError: watcherFault }]
        : []),
    ])
  }

  /** Runs exactly these arenas from now on. One whose folder has moved is begun anew. */
  async setArenas(wanted: readonly ArenaSettings[]): Promise<void> {
    const names = new Set(wanted.map(settings => settings.name))
    for (const [name, arena] of this.#arenas) if (!names.has(name)) await this.#end(arena)
    for (const settings of wanted) {
      const arena = this.#arenas.get(settings.name)
      if (!arena) this.#begin(settings)
      else if (arena.settings.root !== settings.root || arena.settings.storePath !== settings.storePath) {
        await this.#end(arena)
        this.#begin(settings)
      } else await this.#renew(arena, settings)
    }
    this.#options.changed()
  }

  /** Resolves once every arena has opened or failed to, or time is up. */
  settled(limitMs: number): Promise<void> {
    if (this.#allSettled()) return Promise.resolve()
    return new Promise(resolve => {
      const done = () => {
        clearTimeout(timer)
        this.#waiting.delete(done)
        resolve()
      }
      const timer = setTimeout(done, limitMs)
      this.#waiting.add(done)
    })
  }

  /** Forgets what the store of an arena that no longer runs knew, and what was cached. Its folder is not touched. */
  forget(settings: ArenaSettings): void {
    if (this.#arenas.has(settings.name)) return
    for (const folder of [settings.storePath, settings.cache.path]) rmSync(folder, { recursive: true, force: true })
  }

  /**
   * A user's command. Throws `arena_unknown`, `arena_unavailable`, `timed_out`, or what the arena answers.
   *
   * @param limitMs Infinity: as long as the arena's thread lives
   */
  ask(name: ArenaName, method: string, params: Record<string, unknown>, limitMs: number): Promise<unknown> {
    const { thread } = this.#get(name)
    return thread.ask(id => ({ type: 'control', id, method, params }), limitMs)
  }

  /** False, and the port left alone, if the arena is not running. */
  attach(
    name: ArenaName,
    peer: PeerId,
    peerName: string,
    connection: number,
    port: MessagePort,
    descriptors: DescriptorTable,
  ): boolean {
    const arena = this.#arenas.get(name)
    return arena?.thread.post({ type: 'peer_opened', peer, peerName, connection, port, descriptors }, [port]) ?? false
  }

  /** Gives an arena its end of the port to a mounted view. False, and the port left alone, if the arena is not running. */
  attachView(name: ArenaName, port: MessagePort): boolean {
    return this.#arenas.get(name)?.thread.post({ type: 'view_opened', port }, [port]) ?? false
  }

  /** False if there is no arena thread of this name. */
  async kill(threadName: string): Promise<boolean> {
    const arena = [...this.#arenas.values()].find(one => one.thread.name === threadName)
    if (!arena) return false
    if (!(await arena.thread.kill()))
      throw new SyncError('busy', `${threadName} is inside a transaction that does not end`)
    return true
  }

  /** False if a thread could not be ended. */
  async stop(): Promise<boolean> {
    const ended = await Promise.all([...this.#arenas.values()].map(arena => this.#end(arena)))
    return ended.every(Boolean)
  }

  #get(name: ArenaName): Arena {
    const arena = this.#arenas.get(name)
    if (!arena)
      throw new SyncError(
        'arena_unknown',
        `there is no arena '${name}' here: \`realize arena list\` shows what there is`,
      )
    return arena
  }

  #begin(settings: ArenaSettings): void {
    const arena: Arena = {
      settings,
      thread: new ActorThread<ArenaCommand, ArenaReport>({
        name: `arena-${settings.name}`,
        entry: this.#options.entry,
        policy: this.#options.policy,
        clock: this.#options.clock,
        workerData: gate => ({ settings: arena.settings, gate }),
        started: () => {
          arena.failed = null
          // A watcher that runs already has said its fault to the thread before this one.
          if (arena.watcher) arena.thread.post({ type: 'watcher', fault: arena.watcherFault })
          this.#options.started(settings.name)
          this.#options.changed()
        },
        receive: report => this.#receive(arena, report),
        died: failure => {
          this.#options.count('actor_restarts', 1, arena.thread.name)
          arena.failed = failure.message
          this.#settle(arena)
          this.#options.changed()
        },
        log: this.#options.log,
      }),
      watcher: undefined,
      watcherFault: null,
      status: undefined,
      failed: null,
      settled: false,
      lendsFromMs: Number.NEGATIVE_INFINITY,
    }
    this.#arenas.set(settings.name, arena)
    arena.thread.start()
    this.#watch(arena)
  }

  async #renew(arena: Arena, settings: ArenaSettings): Promise<void> {
    const before = arena.settings
    if (JSON.stringify(before) === JSON.stringify(settings)) return
    arena.settings = settings
    arena.thread.post({ type: 'settings', settings })
    if (before.paused === settings.paused) return
    if (settings.paused) await this.#unwatch(arena)
    else this.#watch(arena)
  }

  async #end(arena: Arena): Promise<boolean> {
    this.#arenas.delete(arena.settings.name)
    await this.#unwatch(arena)
    const ended = await arena.thread.stop({ type: 'stop' })
    this.#settle(arena)
    return ended
  }

  #watch(arena: Arena): void {
    const { root, paused, name } = arena.settings
    if (root === null || paused || arena.watcher) return
    arena.watcher = watchRoot(
      root,
      { ignored: [] },
      {
        touched: paths => {
          arena.thread.post({ type: 'touched', paths })
        },
        fault: fault => {
          if (fault !== null && fault !== arena.watcherFault)
            this.#options.log('watcher_failed', { arena: name, reason: fault })
          arena.watcherFault = fault
          arena.thread.post({ type: 'watcher', fault })
        },
      },
    )
  }

  async #unwatch(arena: Arena): Promise<void> {
    const { watcher } = arena
    arena.watcher = undefined
    arena.watcherFault = null
    try {
      await watcher?.stop()
    } catch (error) {
      this.#options.log('watcher_failed', { arena: arena.settings.name, reason: toFailure(error).message })
    }
  }

  #receive(arena: Arena, report: ArenaReport): void {
    const { name } = arena.settings
    switch (report.type) {
      case 'ready':
        this.#settle(arena)
        return
      case 'reply':
        arena.thread.answer(report.id, report.result)
        return
      case 'refused':
        arena.thread.refuse(report.id, report.failure)
        return
      case 'status': {
        const { status } = report
        const before = arena.status?.state
        arena.status = status
        if (before !== status.state) {
          this.#options.log('arena_state', { arena: name, state: status.state, before, reason: status.reason })
          if (status.state === 'failed' || status.state === 'guarded') this.#settle(arena)
        }
        this.#options.changed()
        return
      }
      case 'history':
        for (const event of report.events) this.#options.history(event)
        return
      case 'rested':
        releaseMemory()
        return
      case 'log':
        this.#options.log(report.event, { arena: name, ...report.fields })
        return
      case 'count':
        for (const [counter, amount] of Object.entries(report.counters)) this.#options.count(counter, amount, name)
        return
      case 'hash':
        void this.#hash(arena, report.id, report.tasks)
        return
      case 'patch':
        void this.#patch(arena, report.id, report.task)
        return
      case 'borrow':
        void this.#borrow(arena, report.id, report.hash, report.peers)
        return
      case 'stopped':
        return
      default:
        report satisfies never
    }
  }

  async #hash(arena: Arena, id: number, tasks: HashTask[]): Promise<void> {
    const thread = arena.thread.threadId
    let results: HashResult[]
    try {
      results = await this.#options.hasher.run(tasks)
    } catch (error) {
      results = tasks.map(() => ({ failure: toFailure(error) }))
    }
    // The ids are the asker's own: a thread that came after it would take them for others.
    if (arena.thread.threadId === thread) arena.thread.post({ type: 'hashed', id, results })
  }

  async #patch(arena: Arena, id: number, task: PatchTask): Promise<void> {
    const thread = arena.thread.threadId
    const result = await this.#options.hasher.patch(task).catch(error => ({ failure: toFailure(error) }))
    if (arena.thread.threadId === thread) arena.thread.post({ type: 'patched', id, result })
  }

  /** Always answered: an arena that is gone, or busy for too long, lends nothing. */
  async #borrow(arena: Arena, id: number, hash: BlobHash, peers: readonly PeerId[]): Promise<void> {
    const thread = arena.thread.threadId
    const others = [...this.#arenas.values()].filter(other => other !== arena)
    const file = await Promise.any(others.map(other => this.#lend(other, hash, peers))).catch(() => null)
    if (arena.thread.threadId === thread) arena.thread.post({ type: 'lent', id, file })
  }

  /** Throws if it does not lend it to one who has heard of it from these peers. Why that counts: actors/arena/fetch.ts. */
  async #lend(lender: Arena, hash: BlobHash, peers: readonly PeerId[]): Promise<FileRef> {
    const { clock } = this.#options
    const lends = () =>
      this.#arenas.get(lender.settings.name) === lender && lender.settings.peers.some(peer => peers.includes(peer))
    if (!lends() || clock.nowMs() < lender.lendsFromMs) throw new SyncError('blob_missing', 'not asked')
    try {
      const file = await lender.thread.ask(asked => ({ type: 'lend', id: asked, hash }), LEND_MS)
      // It may have been taken from the peer meanwhile.
      if (file !== null && lends()) return file as FileRef
    } catch (error) {
      if (error instanceof SyncError && error.code === 'timed_out') lender.lendsFromMs = clock.nowMs() + LEND_PAUSE_MS
      throw error
    }
    throw new SyncError('blob_missing', 'not lent')
  }

  #settle(arena: Arena): void {
    arena.settled = true
    if (this.#allSettled()) for (const done of [...this.#waiting]) done()
  }

  #allSettled(): boolean {
    for (const arena of this.#arenas.values()) if (!arena.settled) return false
    return true
  }
}

/** What the arena said last, or what can be said without it. */
function statusOf({ settings, status, failed }: Arena): ArenaStatus {
  const known: ArenaStatus = status ?? {
    name: settings.name,
    path: settings.root,
    state: settings.paused ? 'paused' : 'scanning',
    reason: null,
    consensus: false,
    missing: [`arena ${settings.name} is being opened`],
    root: ZERO_ROOT,
    files: 0,
    bytes: 0,
    realBytes: 0,
    cachedBytes: 0,
    fetching: null,
    needFiles: 0,
    needBytes: 0,
    conflicts: 0,
    problems: [],
    problemCount: 0,
    scan: null,
    peers: [],
  }
  if (failed === null) return known
  const reason = `its thread failed: ${failed}`
  return { ...known, state: 'failed', reason, consensus: false, missing: [reason], scan: null }
}
