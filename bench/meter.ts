/** What processes cost: processor seconds and peak resident memory of both ends, with all their children, from /proc. */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

/** A short-lived child is seen if it lives this long. */
const SAMPLE_MS = 25

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))

export interface Cost {
  cpuSeconds: number
  /** Sum of the peaks of the processes of one end, bytes. */
  peakBytes: number
}

/** Meters two ends from its start to `stop`. A process of which nobody tells it is not counted. */
export class Meter {
  readonly #ends = { a: new EndMeter(), b: new EndMeter() }
  readonly #timer: NodeJS.Timeout

  constructor(pids: { a: number[]; b: number[] }) {
    for (const pid of pids.a) this.#ends.a.watch(pid)
    for (const pid of pids.b) this.#ends.b.watch(pid)
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS)
  }

  /** Adds a process that has just been started. */
  watch(end: 'a' | 'b', pid: number): void {
    this.#ends[end].watch(pid)
  }

  /** The processes of this end are about to go: this was the last look at them. */
  finish(end: 'a' | 'b'): void {
    this.#ends[end].finish()
  }

  stop(): { a: Cost; b: Cost } {
    clearInterval(this.#timer)
    this.#sample()
    return { a: this.#ends.a.cost(), b: this.#ends.b.cost() }
  }

  #sample(): void {
    this.#ends.a.sample()
    this.#ends.b.sample()
  }
}

class EndMeter {
  /** Root processes with the processor time that they had when they were first seen. */
  readonly #roots = new Map<number, { from: number; now: number }>()
  readonly #peaks = new Map<number, number>()
  #finished = false

  watch(pid: number): void {
    const used = cpuSecondsOf(pid)
    this.#roots.set(pid, { from: used, now: used })
  }

  finish(): void {
    this.sample()
    this.#finished = true
  }

  sample(): void {
    if (this.#finished) return
    for (const [root, used] of this.#roots) {
      const family = familyOf(root)
      used.now = Math.max(used.now, sum(family.map(pid => statSeconds(pid))))
      for (const pid of family) this.#peaks.set(pid, Math.max(this.#peaks.get(pid) ?? 0, memoryOf(pid).peakBytes))
    }
  }

  cost(): Cost {
    return {
      cpuSeconds: sum([...this.#roots.values()].map(used => used.now - used.from)),
      peakBytes: sum([...this.#peaks.values()]),
    }
  }
}

/** Processor seconds of a process, its living children, and those that it has waited for. */
export function cpuSecondsOf(pid: number): number {
  return sum(familyOf(pid).map(member => statSeconds(member)))
}

/** Memory of one process; zeros if it has ended. */
export function memoryOf(pid: number): { residentBytes: number; privateBytes: number; peakBytes: number } {
  const text = readQuietly(`/proc/${pid}/status`)
  return {
    /** Without what belongs to files: programs and memory-mapped stores, which the system takes back when it needs to. */
    privateBytes: Number(/^RssAnon:\s+(\d+) kB/mu.exec(text)?.[1] ?? 0) * 1024,
    residentBytes: Number(/^VmRSS:\s+(\d+) kB/mu.exec(text)?.[1] ?? 0) * 1024,
    peakBytes: Number(/^VmHWM:\s+(\d+) kB/mu.exec(text)?.[1] ?? 0) * 1024,
  }
}

/** A process and all its descendants; the process alone if it has ended. */
export function familyOf(pid: number): number[] {
  const family = [pid]
  for (const member of family) {
    for (const thread of listQuietly(`/proc/${member}/task`)) {
      const children = readQuietly(`/proc/${member}/task/${thread}/children`).trim()
      if (children !== '') family.push(...children.split(' ').map(Number))
    }
  }
  return family
}

/** Fields 14 to 17 of /proc/PID/stat: own and waited-for children's time in user and system mode. */
function statSeconds(pid: number): number {
  const text = readQuietly(`/proc/${pid}/stat`)
  if (text === '') return 0
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return sum(fields.slice(11, 15).map(Number)) / ticksPerSecond
}

function readQuietly(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function listQuietly(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
