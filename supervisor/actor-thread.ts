/**
 * A worker thread that runs an actor: started, spoken to, questioned, restarted when it dies (restart.ts decides), and
 * stopped. What the messages mean is for the owner to know.
 */
import { Worker } from 'node:worker_threads'
import { createDescriptorTable, type DescriptorTable, sweepDescriptors } from '../actors/descriptors.ts'
import { closeThenTerminate, createGate, enter, leave } from '../actors/write-gate.ts'
import { type ErrorCode, type Failure, SyncError } from '../protocol/error.ts'
import type { LogEvent, LogFields } from '../protocol/log.ts'
import type { Clock } from './clock.ts'
import { decide, type FailureHistory, noFailures, type RestartPolicy } from './restart.ts'

/** Questions that may be open at one actor. */
const QUESTIONS_MAX = 1_000
/** How long a thread may take to end by itself after `stop`. */
export const STOP_MS = 5_000

/** A timer of more than this rings at once. */
const TIMER_MAX_MS = 2 ** 31 - 1

type Transferable = Parameters<Worker['postMessage']>[1]

export interface ActorThreadOptions<Report> {
  name: string
  entry: URL
  policy: RestartPolicy
  clock: Clock
  /** What it opens by Node and still has open when it ends is closed with it. Not where descriptors are handed from thread to thread. */
  closesOwn?: boolean
  /** Made anew for each start, around the gate (write-gate.ts) and the table (descriptors.ts) of that start. */
  workerData(gate: Int32Array, descriptors: DescriptorTable): unknown
  receive(report: Report): void
  /** A thread runs and can be posted to: on the first start and after each restart. */
  started(): void
  /** The thread died. Open questions have been refused. `resting`: it has died too often and is left alone for a while. */
  died(failure: Failure, resting: boolean): void
  log(event: LogEvent, fields: LogFields): void
}

interface Question {
  resolve(result: unknown): void
  reject(error: SyncError): void
  timer: NodeJS.Timeout | undefined
}

export class ActorThread<Command, Report> {
  readonly name: string
  restarts = 0
  lastError: string | null = null

  readonly #options: ActorThreadOptions<Report>
  readonly #questions = new Map<number, Question>()
  #worker: Worker | null = null
  #gate = createGate()
  #descriptors = createDescriptorTable()
  #history: FailureHistory = noFailures
  #restartTimer: NodeJS.Timeout | undefined
  #questionId = 0
  #stopping = false

  constructor(options: ActorThreadOptions<Report>) {
    this.name = options.name
    this.#options = options
  }

  /** Number of the thread, null while there is none. */
  get threadId(): number | null {
    return this.#worker?.threadId ?? null
  }

  /** Where what is handed to the thread is noted. Of its present life. */
  get descriptors(): DescriptorTable {
    return this.#descriptors
  }

  /** Questions not yet answered: what is known from outside of how far the actor is behind. */
  get mailbox(): number {
    return this.#questions.size
  }

  start(): void {
    clearTimeout(this.#restartTimer)
    const gate = createGate()
    this.#gate = gate
    // Inside until its first word: terminating a thread that is just loading a native module ends the whole process.
    enter(gate)
    let loading = true
    const loaded = () => {
      if (loading) leave(gate)
      loading = false
    }
    const descriptors = createDescriptorTable()
    this.#descriptors = descriptors
    const worker = new Worker(this.#options.entry, {
      name: this.name,
      workerData: this.#options.workerData(gate, descriptors),
      // Where descriptors are handed from thread to thread one that ends must not close what another has by now.
      trackUnmanagedFds: this.#options.closesOwn ?? false,
    })
    this.#worker = worker
    let failure: Failure = { code: 'internal', message: 'the thread ended without being asked to' }
    worker.on('message', (report: Report) => {
      loaded()
      if (this.#worker === worker) this.#options.receive(report)
    })
    worker.on('error', error => {
      failure = { code: 'internal', message: errorText(error) }
    })
    worker.on('messageerror', error => {
      this.#options.log('actor_failed', { actor: this.name, reason: `unreadable message: ${errorText(error)}` })
    })
    worker.on('exit', () => {
      loaded()
      sweepDescriptors(descriptors)
      if (this.#worker !== worker) return
      this.#worker = null
      this.#ended(failure)
    })
    this.#options.log('actor_started', { actor: this.name, thread: worker.threadId })
    this.#options.started()
  }

  /** False, and nothing sent (what was to be transferred stays here), if there is no thread now. */
  post(command: Command, transfer: Transferable = []): boolean {
    if (!this.#worker || this.#stopping) return false
    this.#worker.postMessage(command, transfer)
    return true
  }

  /**
   * Posts a command that carries a fresh id and waits for `answer` or `refuse` with it. Rejects with a SyncError:
   * `timed_out`, `busy`, `arena_unavailable` if the thread is not there or dies.
   *
   * @param limitMs Infinity: as long as the thread lives
   */
  ask(make: (id: number) => Command, limitMs: number): Promise<unknown> {
    if (this.#questions.size >= QUESTIONS_MAX) return refused('busy', `${this.name} has too many open questions`)
    const id = ++this.#questionId
    if (!this.post(make(id))) {
      return refused('arena_unavailable', `${this.name} is not running: ${this.lastError ?? 'it is being stopped'}`)
    }
    return new Promise((resolve, reject) => {
      const expired = () => {
        this.#questions.delete(id)
        reject(new SyncError('timed_out', `${this.name} did not answer within ${Math.round(limitMs / 1000)} s`))
      }
      const timer = limitMs <= TIMER_MAX_MS ? setTimeout(expired, limitMs) : undefined
      this.#questions.set(id, { resolve, reject, timer })
    })
  }

  answer(id: number, result: unknown): void {
    this.#take(id)?.resolve(result)
  }

  refuse(id: number, failure: Failure): void {
    this.#take(id)?.reject(new SyncError(failure.code, failure.message))
  }

  /** Makes the thread die as a crash would; it is restarted by its policy. False if it could not be done safely. */
  async kill(): Promise<boolean> {
    return this.#worker ? closeThenTerminate(this.#worker, this.#gate) : true
  }

  /** Posts `command`, waits for the thread to end, ends it if it does not. False if even that was not possible. */
  async stop(command: Command, limitMs = STOP_MS): Promise<boolean> {
    clearTimeout(this.#restartTimer)
    const worker = this.#worker
    if (!worker || this.#stopping) {
      this.#stopping = true
      return true
    }
    const exit = new Promise<true>(resolve => worker.once('exit', () => resolve(true)))
    worker.postMessage(command)
    this.#stopping = true
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<false>(resolve => {
      timer = setTimeout(resolve, limitMs, false)
    })
    const ended = await Promise.race([exit, late])
    clearTimeout(timer)
    return ended || closeThenTerminate(worker, this.#gate)
  }

  #take(id: number): Question | undefined {
    const question = this.#questions.get(id)
    this.#questions.delete(id)
    clearTimeout(question?.timer)
    return question
  }

  #ended(failure: Failure): void {
    for (const id of [...this.#questions.keys()]) {
      this.refuse(id, { code: 'arena_unavailable', message: `${this.name} stopped before it answered` })
    }
    if (this.#stopping) return
    this.lastError = failure.message
    const decision = decide(this.#options.policy, this.#history, this.#options.clock.nowMs())
    const resting = decision.action === 'drop' || decision.resting
    this.#options.log(resting ? 'actor_given_up' : 'actor_failed', {
      actor: this.name,
      reason: failure.message,
      restartMs: decision.action === 'start' ? decision.afterMs : null,
    })
    this.#options.died(failure, resting)
    // `died` may have stopped it.
    if (decision.action === 'drop' || this.#stopping) return
    this.#history = decision.history
    this.#restartTimer = setTimeout(() => {
      this.restarts++
      this.#options.log('actor_restarted', { actor: this.name, restarts: this.restarts })
      this.start()
    }, decision.afterMs)
  }
}

function refused(code: ErrorCode, message: string): Promise<never> {
  return Promise.reject(new SyncError(code, message))
}

function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
