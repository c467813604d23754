/**
 * Requests that may take long, and when who waits for one gives it up. Pure.
 *
 * The kernel interrupts a request for any signal, of timers and children, too. On a disk none of these interrupts a read or an opening,
 * and many programs take what failed for that as an error; a program with a quick timer would never come to an end of it. So a request is
 * given up only for a signal that ends the program, or asks it to end. As the kernel speaks only once, it is looked again for one after.
 */
import { constants } from 'node:os'
import { ViewError } from './view-source.ts'

/** Between two looks at a program whose request was interrupted. */
export const LOOK_MS = 100
/** Requests that were interrupted before they came here: several threads read, so they may overtake. */
const EARLY_MAX = 256

const { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH } =
  constants.signals
/** They ask a program to end also where it does something of its own then. */
const ASKING = bits([SIGHUP, SIGINT, SIGQUIT, SIGTERM])
/** They end no program that does nothing of its own then. */
const HARMLESS = bits([SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH])

export interface InterruptionsOutlet {
  /** The kernel's `/proc/PID/status` of a thread (proc(5)); null: it cannot be looked at. */
  statusOf(pid: number): string | null
  /** Runs something after so long; returns how to leave it. */
  later(waitMs: number, action: () => void): () => void
}

interface Running {
  readonly abort: AbortController
  readonly pid: number
}

export class Interruptions {
  readonly #outlet: InterruptionsOutlet
  readonly #running = new Map<number, Running>()
  /** Those that were interrupted and go on. */
  readonly #interrupted = new Set<number>()
  readonly #early = new Set<number>()
  #leave: (() => void) | null = null
  #stopped = false

  constructor(outlet: InterruptionsOutlet) {
    this.#outlet = outlet
  }

  /** How many requests there are. */
  get size(): number {
    return this.#running.size
  }

  /** A request begins, which a thread waits for. Throws EINTR if that does not wait any more. */
  begin(unique: number, pid: number): AbortSignal {
    const early = this.#early.delete(unique)
    if (this.#stopped || (early && this.#givesUp(pid))) throw new ViewError('EINTR', 'interrupted')
    const abort = new AbortController()
    this.#running.set(unique, { abort, pid })
    if (early) this.#watch(unique)
    return abort.signal
  }

  end(unique: number): void {
    this.#running.delete(unique)
    this.#interrupted.delete(unique)
  }

  /** A request was answered at once. */
  passed(unique: number): void {
    this.#early.delete(unique)
  }

  /** The kernel says that a signal came for who waits for a request. */
  interrupt(unique: number): void {
    const running = this.#running.get(unique)
    if (running !== undefined) {
      if (this.#givesUp(running.pid)) running.abort.abort()
      else this.#watch(unique)
      return
    }
    this.#early.add(unique)
    if (this.#early.size <= EARLY_MAX) return
    for (const oldest of this.#early) {
      this.#early.delete(oldest)
      break
    }
  }

  /** Gives up all, and whatever begins. */
  stop(): void {
    this.#stopped = true
    this.#leave?.()
    for (const { abort } of [...this.#running.values()]) abort.abort()
  }

  #givesUp(pid: number): boolean {
    return pid === 0 || asksToEnd(this.#outlet.statusOf(pid))
  }

  #watch(unique: number): void {
    this.#interrupted.add(unique)
    this.#leave ??= this.#outlet.later(LOOK_MS, () => this.#look())
  }

  #look(): void {
    this.#leave = null
    const interrupted = [...this.#interrupted]
    this.#interrupted.clear()
    for (const unique of interrupted) if (this.#running.has(unique)) this.interrupt(unique)
  }
}

/** Whether a signal waits for a thread that ends its program, or asks it to end; also if that cannot be said. */
export function asksToEnd(status: string | null): boolean {
  if (status === null) return true
  const mask = (name: string) => BigInt(`0x${new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? '0'}`)
  const waiting = (mask('SigPnd') | mask('ShdPnd')) & ~mask('SigBlk') & ~mask('SigIgn')
  const caught = mask('SigCgt')
  return (waiting & ((caught & ASKING) | (~caught & ~HARMLESS))) !== 0n
}

function bits(signals: readonly number[]): bigint {
  return signals.reduce((mask, signal) => mask | (1n << BigInt(signal - 1)), 0n)
}
