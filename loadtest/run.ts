/**
 * The load test: one service, many simulated peers in a few processes. Phases, one after the other:
 *
 * ```
 * prepare → connect → rest → edits (at the service and at peers by turns) → fetch (a large file, to all) → rest → consensus
 * ```
 */
import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { SyncError } from '../protocol/error.ts'
import type { PeerId } from '../protocol/ids.ts'
import type { Home } from '../supervisor/home.ts'
import { type Answer, editContent, type Found, type Order, type Progress } from './messages.ts'
import { existingService, ownService, type ServiceUnderLoad } from './service.ts'

export interface LoadOptions {
  peers: number
  processes: number
  /** How long edits are made. */
  seconds: number
  editsPerSecond: number
  editBytes: number
  /** Of the file that every peer fetches at the end; 0: none. */
  fetchBytes: number
  /** How long it rests before memory and processor at rest are looked at. */
  restSeconds: number
  /** The service that runs there; null: one of our own. */
  home: Home | null
  progress(done: number, total: number, text: string): void
  /** To be broken off: everything is taken down and `interrupted` thrown. */
  signal: AbortSignal
}

export interface Spread {
  p50: number
  p99: number
  max: number
}

/** Times in milliseconds unless the name says otherwise, sizes in bytes. Null: not measured. */
export interface LoadResult {
  peers: number
  processes: number
  connect: {
    seconds: number
    perSecond: number
    each: Spread
    attemptsRefused: number
    cpuSecondsPerConnection: number
  }
  edits: {
    atService: number
    atPeers: number
    bytes: number
    seconds: number
    /** Contents that had to arrive at peers, and those that did. */
    expected: number
    arrived: number
    /** From the write to the content being right, for each edit and peer. */
    each: Spread | null
    /** The same until the last peer has it, for each edit. */
    all: Spread | null
    cpuSecondsPerEdit: number | null
  }
  fetch: { bytes: number; seconds: number; megabytesPerSecond: number } | null
  service: {
    residentBefore: number
    residentConnected: number
    residentAtEnd: number
    /** At rest after all are connected. */
    residentPerConnection: number
    /** Of one processor, connected and at rest. */
    cpuPercentAtRest: number
  }
  consensus: boolean
  errors: Record<string, number>
}

const PREPARE_MS_MAX = 120_000
const CONNECT_MS_MAX = 180_000
const ARRIVE_MS_MAX = 60_000
const FETCH_MS_MAX = 600_000
const CONSENSUS_SECONDS = 60
const ASK_MS = 50
/** A prime: multiples of it hit all peers. */
const SPREAD = 7919
const PROCESS = fileURLToPath(new URL('process.js', import.meta.url))

/** Throws SyncErrors; whatever happens, nothing that it started or made is left. */
export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const over = new AbortController()
  const died = (error: SyncError) => over.abort(error)
  const interrupted = () => over.abort(new SyncError('internal', 'interrupted'))
  options.signal.addEventListener('abort', interrupted)
  const crowds: Crowd[] = []
  const each = Math.ceil(options.peers / options.processes)
  for (let first = 0; first < options.peers; first += each)
    crowds.push(new Crowd(first, Math.min(each, options.peers - first), died))
  let service: Promise<ServiceUnderLoad> | undefined
  const drop = () => {
    for (const crowd of crowds) crowd.kill()
  }
  process.once('exit', drop)
  try {
    const begin = (names: ReadonlyMap<string, PeerId>) => {
      service = options.home ? existingService(options.home, names) : ownService(names)
      return service
    }
    const aborted = new Promise<never>((_, reject) => {
      over.signal.addEventListener('abort', () => reject(over.signal.reason))
    })
    return await Promise.race([new Run(options, crowds, over.signal).all(begin), aborted])
  } catch (error) {
    // What was broken off fails in many ways; why it was, is the reason.
    throw over.signal.aborted ? over.signal.reason : error
  } finally {
    options.signal.removeEventListener('abort', interrupted)
    await Promise.all(crowds.map(crowd => crowd.end()))
    // It may be just starting.
    const begun = await service?.catch(() => undefined)
    await begun?.end()
    process.off('exit', drop)
  }
}

/** The phases of one test, over processes that run. Rejects when `over` is aborted. */
class Run {
  readonly #options: LoadOptions
  readonly #crowds: readonly Crowd[]
  readonly #over: AbortSignal

  constructor(options: LoadOptions, crowds: readonly Crowd[], over: AbortSignal) {
    this.#options = options
    this.#crowds = crowds
    this.#over = over
  }

  async all(begin: (names: ReadonlyMap<string, PeerId>) => Promise<ServiceUnderLoad>): Promise<LoadResult> {
    const { peers, progress, restSeconds } = this.#options
    progress(0, peers, 'making keys')
    const ids = (await Promise.all(this.#crowds.map(crowd => crowd.make()))).flat()
    const service = await begin(new Map(ids.map((id, number) => [`loadtest-${number}`, id])))
    await this.#until('the arena is open', PREPARE_MS_MAX, async () => (await service.status())?.state === 'idle')
    await this.#rest()
    const before = await service.cost()

    const connectSeconds = await this.#connect(service)
    const connected = await service.cost()
    progress(peers, peers, 'all connected, at rest')
    await this.#rest()
    const restFrom = await service.cost()
    await this.#rest()
    const rested = await service.cost()

    const edits = await this.#edit(service)
    const edited = await service.cost()
    const fetch = this.#options.fetchBytes > 0 ? await this.#fetchLarge(service) : null

    progress(peers, peers, 'waiting for consensus')
    const consensus = await service.control
      .call('wait', { arena: service.arena, timeoutSeconds: CONSENSUS_SECONDS })
      .then(() => true)
      .catch(() => false)
    await this.#rest()
    const end = await service.cost()

    const found = await Promise.all(this.#crowds.map(crowd => crowd.report()))
    const editMs = merged(found.map(one => one.editMs))
    const arrived = Object.values(editMs).flat()
    const count = edits.atService + edits.atPeers
    return {
      peers,
      processes: this.#crowds.length,
      connect: {
        seconds: connectSeconds,
        perSecond: peers / connectSeconds,
        each: spread(found.flatMap(one => one.connectMs)),
        attemptsRefused: found.reduce((sum, one) => sum + one.refused, 0),
        cpuSecondsPerConnection: (connected.cpuSeconds - before.cpuSeconds) / peers,
      },
      edits: {
        ...edits,
        arrived: arrived.length,
        each: arrived.length > 0 ? spread(arrived) : null,
        all: arrived.length > 0 ? spread(Object.values(editMs).map(each => greatest(each))) : null,
        cpuSecondsPerEdit: count > 0 ? (edited.cpuSeconds - rested.cpuSeconds) / count : null,
      },
      fetch,
      service: {
        residentBefore: before.residentBytes,
        residentConnected: connected.residentBytes,
        residentAtEnd: end.residentBytes,
        residentPerConnection: (rested.residentBytes - before.residentBytes) / peers,
        cpuPercentAtRest: ((rested.cpuSeconds - restFrom.cpuSeconds) / restSeconds) * 100,
      },
      consensus,
      errors: summed(found.map(one => one.errors)),
    }
  }

  #total(what: keyof Progress): number {
    return this.#crowds.reduce((sum, crowd) => sum + crowd.progress[what], 0)
  }

  async #rest(): Promise<void> {
    await this.#pause(this.#options.restSeconds * 1000)
  }

  async #pause(ms: number): Promise<void> {
    await pause(ms, undefined, { signal: this.#over })
  }

  /** Asks again and again until it is so. Throws `timed_out` with what was waited for. */
  async #until(what: string, limitMs: number, holds: () => boolean | Promise<boolean>): Promise<void> {
    const endMs = performance.now() + limitMs
    while (!(await holds())) {
      if (performance.now() > endMs)
        throw new SyncError('timed_out', `not within ${Math.round(limitMs / 1000)} s: ${what}`)
      await this.#pause(ASK_MS)
    }
  }

  /** @returns seconds until all are connected */
  async #connect({ id, address, arena }: ServiceUnderLoad): Promise<number> {
    const { peers, progress } = this.#options
    const startMs = performance.now()
    for (const crowd of this.#crowds) crowd.order({ type: 'connect', service: id, address, arena })
    await this.#until('all peers are connected', CONNECT_MS_MAX, () => {
      const open = this.#total('open')
      progress(open, peers, `${open} of ${peers} connected`)
      return open === peers
    })
    return (performance.now() - startMs) / 1000
  }

  /** Even ones at the service, odd ones at a peer, each a file of its own. Resolves when all peers have all, or time is up. */
  async #edit({ root }: ServiceUnderLoad) {
    const { peers, seconds, editsPerSecond, editBytes, progress } = this.#options
    const edits = Math.round(seconds * editsPerSecond)
    const startMs = performance.now()
    const arrivedBefore = this.#total('arrivals')
    let expected = 0
    let atPeers = 0
    const arrived = () => {
      const done = this.#total('arrivals') - arrivedBefore
      progress(done, edits * peers, `${expected} contents to arrive, ${done} have`)
      return done
    }
    for (let number = 0; number < edits; number++) {
      await this.#pause(Math.max(0, startMs + (number * 1000) / editsPerSecond - performance.now()))
      if (number % 2 === 1) {
        // Spread over all of them, and the processes by turns.
        const peer = (number * SPREAD) % peers
        this.#crowds.find(crowd => crowd.has(peer))?.order({ type: 'edit', peer, number, bytes: editBytes })
        atPeers++
        expected += peers - 1
      } else {
        place(root, `edit-${number}.txt`, editContent(number, editBytes))
        expected += peers
      }
      arrived()
    }
    try {
      await this.#until('all edits are at all peers', ARRIVE_MS_MAX, () => arrived() >= expected)
    } catch (error) {
      // What has not arrived is a result.
      if (this.#over.aborted) throw error
    }
    const tookSeconds = (performance.now() - startMs) / 1000
    return { atService: edits - atPeers, atPeers, bytes: editBytes, seconds: tookSeconds, expected }
  }

  async #fetchLarge({ root }: ServiceUnderLoad): Promise<LoadResult['fetch']> {
    const { peers, fetchBytes, progress } = this.#options
    const before = this.#total('bytes')
    const bytes = fetchBytes * peers
    const content = randomBytes(fetchBytes)
    const startMs = performance.now()
    place(root, 'large.bin', content)
    await this.#until('all peers have the large file', FETCH_MS_MAX, () => {
      const done = this.#total('bytes') - before
      progress(done, bytes, `fetching: ${Math.round(done / 1e6)} of ${Math.round(bytes / 1e6)} MB`)
      return done >= bytes
    })
    const seconds = (performance.now() - startMs) / 1000
    return { bytes, seconds, megabytesPerSecond: bytes / 1e6 / seconds }
  }
}

/** Whole at once: what is written slowly is synced when it rests. */
function place(root: string, name: string, content: Uint8Array): void {
  const temporary = `${root}-next`
  writeFileSync(temporary, content)
  renameSync(temporary, join(root, name))
}

/** One process of simulated peers. */
class Crowd {
  progress: Progress = { open: 0, arrivals: 0, bytes: 0, missing: 0 }
  readonly #first: number
  readonly #count: number
  readonly #child: ChildProcess
  #answered: ((answer: Answer) => void) | undefined
  #ending = false

  constructor(first: number, count: number, died: (error: SyncError) => void) {
    this.#first = first
    this.#count = count
    this.#child = fork(PROCESS, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], serialization: 'advanced' })
    this.#child.on('message', (answer: Answer) => {
      if (answer.type === 'progress') this.progress = answer.progress
      else this.#answered?.(answer)
    })
    this.#child.once('exit', (code, signal) => {
      if (!this.#ending) died(new SyncError('internal', `a process of simulated peers ended with ${signal ?? code}`))
    })
  }

  has(peer: number): boolean {
    return peer >= this.#first && peer < this.#first + this.#count
  }

  order(order: Order): void {
    if (this.#child.connected) this.#child.send(order)
  }

  async make(): Promise<PeerId[]> {
    const answer = await this.#ask({ type: 'make', first: this.#first, count: this.#count })
    return answer.type === 'made' ? answer.ids : []
  }

  async report(): Promise<Found> {
    const answer = await this.#ask({ type: 'report' })
    if (answer.type !== 'found') throw new SyncError('internal', `${answer.type} in answer to report`)
    return answer.found
  }

  async end(): Promise<void> {
    this.#ending = true
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exit = new Promise<void>(resolve => this.#child.once('exit', () => resolve()))
    this.order({ type: 'end' })
    const timer = setTimeout(() => this.kill(), 5_000)
    await exit
    clearTimeout(timer)
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  #ask(order: Order): Promise<Answer> {
    return new Promise(resolve => {
      this.#answered = resolve
      this.order(order)
    })
  }
}

function merged(all: readonly Record<number, number[]>[]): Record<number, number[]> {
  const result: Record<number, number[]> = {}
  for (const one of all)
    for (const [number, times] of Object.entries(one))
      result[Number(number)] = [...(result[Number(number)] ?? []), ...times]
  return result
}

function summed(all: readonly Record<string, number>[]): Record<string, number> {
  const result: Record<string, number> = {}
  for (const one of all) for (const [what, times] of Object.entries(one)) result[what] = (result[what] ?? 0) + times
  return result
}

function greatest(values: readonly number[]): number {
  return values.reduce((most, value) => Math.max(most, value), 0)
}

/** By nearest rank. */
function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (part: number) => sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99), max: at(1) }
}
