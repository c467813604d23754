/**
 * One real service in a test: the built `realized` in a process of its own with its own home, spoken to over its control
 * socket and by the built `realize`. It can be killed, stopped and started again; what it printed is kept for when a test fails.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type ControlClient, connectControl } from '../../cli/client.ts'
import type { ControlMethodName, ControlParams, ControlResult, StatusResult } from '../../protocol/control.ts'
import type { ArenaStatus } from '../../protocol/status.ts'
import { within } from '../_deadline.ts'

export const SERVICE = fileURLToPath(new URL('../../supervisor/main.js', import.meta.url))
const COMMAND_LINE = fileURLToPath(new URL('../../cli/main.js', import.meta.url))
const START_MS_MAX = 60_000
const STOP_MS_MAX = 30_000
/** A thread that waits in the kernel for a disk with much to write dies only afterwards. */
const KILL_MS_MAX = 120_000
const LINES_MAX = 400

/** Of all services that this process has started: none outlives it. */
const running = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export interface Outcome {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** Runs a program to its end with nothing on its stdin. */
export async function run(program: string, args: string[], ms = 60_000): Promise<Outcome> {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: environment() })
  running.add(child)
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  try {
    const closed = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>
    const [code, signal] = await within(ms, () => `\`${args.join(' ')}\` ends; it printed: ${stdout}${stderr}`, closed)
    return { code, signal, stdout, stderr }
  } finally {
    child.kill('SIGKILL')
    running.delete(child)
  }
}

/** Without what belongs to the person who runs the tests. */
function environment(): NodeJS.ProcessEnv {
  const { REALIZE_HOME: _home, XDG_RUNTIME_DIR: _runtime, FORCE_COLOR: _colour, ...rest } = process.env
  return { ...rest, NO_COLOR: '1' }
}

export class Peer {
  readonly name: string
  readonly home: string
  /** Where it listens on loopback; null: it dials only. */
  readonly port: number | null
  /** The last lines of all its lives, oldest first. */
  readonly lines: string[] = []
  /** A program with its words that starts the service. */
  before: string[] = []
  /** Added to the service's environment. */
  variables: Record<string, string> = {}
  /** Gets each line too. */
  heard: (line: string) => void = () => {}
  private child: ChildProcess | null = null
  private client: ControlClient | null = null
  private watched: ControlClient | null = null
  private latest: StatusResult | null = null
  private readonly changes = new EventEmitter().setMaxListeners(100)

  constructor(name: string, home: string, port: number | null) {
    this.name = name
    this.home = home
    this.port = port
  }

  get socketPath(): string {
    return join(this.home, 'control.sock')
  }

  get configPath(): string {
    return join(this.home, 'config.toml')
  }

  get pid(): number {
    if (this.child?.pid === undefined) throw new Error(`${this.name} is not running`)
    return this.child.pid
  }

  /** Makes key and configuration by `realize init`. */
  async init(): Promise<void> {
    mkdirSync(this.home, { recursive: true })
    const listen = this.port === null ? [] : ['--listen', `127.0.0.1:${this.port}`]
    const outcome = await this.realize('init', '--name', this.name, ...listen)
    if (outcome.code !== 0) throw new Error(`realize init ended with ${outcome.code}: ${outcome.stderr}`)
    if (this.port === null) this.editConfig(text => text.replace(/^listen = .*$/m, 'listen = []'))
  }

  /** Starts the service and waits for `ready`. */
  async start(): Promise<void> {
    this.launch()
    await this.ready()
  }

  /** Starts the process only. */
  launch(format: 'json' | 'pretty' = 'json'): void {
    if (this.child) throw new Error(`${this.name} is running`)
    this.note('starts')
    const service = [process.execPath, SERVICE, '--home', this.home, '--log-level', 'info', '--log-format', format]
    const [program, ...words] = [...this.before, ...service]
    const child = spawn(program as string, words, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...environment(), ...this.variables },
    })
    this.child = child
    running.add(child)
    createInterface({ input: child.stdout }).on('line', line => {
      this.keep(line)
      if (line === 'ready') this.changes.emit('ready')
    })
    createInterface({ input: child.stderr }).on('line', line => {
      this.keep(line)
      this.changes.emit('line', line)
    })
    child.once('exit', (code, signal) => {
      running.delete(child)
      this.child = null
      this.note(`ended with ${signal ?? code}`)
      this.changes.emit('ended', code, signal)
    })
  }

  /** Waits for `ready`, then connects to the control socket. */
  async ready(): Promise<void> {
    const waiting = new AbortController()
    const ended = once(this.changes, 'ended', { signal: waiting.signal }).then((): never => {
      throw new Error(`${this.name} ended before it was ready`)
    })
    ended.catch(() => {})
    try {
      const ready = once(this.changes, 'ready', { signal: waiting.signal })
      await within(START_MS_MAX, `${this.name} is ready`, Promise.race([ready, ended]))
    } finally {
      waiting.abort()
    }
    this.client = await connectControl(this.socketPath)
    this.watched = await connectControl(this.socketPath)
    this.latest = null
    await this.watched.subscribe({ what: 'status' }, notification => {
      if (notification.method !== 'status') return
      this.latest = notification.params
      this.changes.emit('status')
    })
  }

  /** kill -9, and waits until the process is gone. */
  async kill(): Promise<void> {
    await this.end('SIGKILL')
  }

  /** SIGTERM, and waits until the process is gone: how it ended, and after how long. */
  async stop(): Promise<{ code: number | null; signal: NodeJS.Signals | null; ms: number }> {
    return this.end('SIGTERM')
  }

  /** Waits until the process is gone by itself. */
  async ended(ms: number): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    const [code, signal] = (await within(ms, `${this.name} ends`, once(this.changes, 'ended'))) as [
      number | null,
      NodeJS.Signals | null,
    ]
    this.forget()
    return { code, signal }
  }

  signal(name: NodeJS.Signals): void {
    process.kill(this.pid, name)
  }

  /** Stops it where it is, until SIGCONT. A signal alone takes effect in each thread only when that gets a processor. */
  async freeze(): Promise<void> {
    this.signal('SIGSTOP')
    const tasks = `/proc/${this.pid}/task`
    const isStopped = (task: string) => {
      try {
        return /\) T/.test(readFileSync(join(tasks, task, 'stat'), 'utf8'))
      } catch {
        // A thread that has just ended.
        return true
      }
    }
    const stopped = async () => {
      while (!readdirSync(tasks).every(isStopped)) await sleep(1)
    }
    await within(10_000, `${this.name} stops where it is`, stopped())
  }

  get isRunning(): boolean {
    return this.child !== null
  }

  async call<Name extends ControlMethodName>(method: Name, params: ControlParams<Name>): Promise<ControlResult<Name>> {
    if (!this.client) throw new Error(`${this.name} is not connected`)
    return this.client.call(method, params)
  }

  /** A further connection to its control socket; the caller closes it. */
  async connect(): Promise<ControlClient> {
    return connectControl(this.socketPath)
  }

  /** Runs `realize` against this home. */
  async realize(...args: string[]): Promise<Outcome> {
    return run(COMMAND_LINE, ['--home', this.home, ...args])
  }

  /** Waits until its status holds; the status that did. */
  async until(what: string, holds: (status: StatusResult) => boolean, ms = 30_000): Promise<StatusResult> {
    const seen = async (): Promise<StatusResult> => {
      for (;;) {
        if (this.latest && holds(this.latest)) return this.latest
        await once(this.changes, 'status')
      }
    }
    return within(ms, () => `${this.name}: ${what}; its status: ${JSON.stringify(this.latest)}`, seen())
  }

  /** Resolves with the next status that it sends. */
  async changed(): Promise<void> {
    await once(this.changes, 'status')
  }

  async untilArena(
    what: string,
    arena: string,
    holds: (status: ArenaStatus) => boolean,
    ms = 30_000,
  ): Promise<ArenaStatus> {
    const status = await this.until(what, whole => whole.arenas.some(one => one.name === arena && holds(one)), ms)
    return status.arenas.find(one => one.name === arena)!
  }

  async arena(name: string): Promise<ArenaStatus> {
    const found = (await this.call('status', {})).arenas.find(one => one.name === name)
    if (!found) throw new Error(`${this.name} has no arena ${name}`)
    return found
  }

  /** Resolves when it logs this event from now on. */
  async logged(event: string, ms = 30_000): Promise<void> {
    const seen = async (): Promise<void> => {
      for (;;) {
        const [line] = (await once(this.changes, 'line')) as [string]
        if (line.includes(`"${event}"`)) return
      }
    }
    await within(ms, `${this.name} logs ${event}`, seen())
  }

  editConfig(edit: (text: string) => string): void {
    const before = readFileSync(this.configPath, 'utf8')
    const after = edit(before)
    if (after === before) throw new Error(`nothing to change in the configuration of ${this.name}:\n${before}`)
    writeFileSync(this.configPath, after)
  }

  /** Its last words, for a failing test. */
  report(): string {
    return [
      `--- ${this.name} (${this.home}), last lines`,
      ...this.lines.slice(-60).map(line => line.slice(0, 400)),
    ].join('\n')
  }

  private async end(
    how: 'SIGKILL' | 'SIGTERM',
  ): Promise<{ code: number | null; signal: NodeJS.Signals | null; ms: number }> {
    const startMs = performance.now()
    const gone = this.ended(how === 'SIGKILL' ? KILL_MS_MAX : STOP_MS_MAX)
    this.signal(how)
    const outcome = await gone
    return { ...outcome, ms: performance.now() - startMs }
  }

  private forget(): void {
    this.client?.close()
    this.watched?.close()
    this.client = null
    this.watched = null
    this.latest = null
  }

  private note(text: string): void {
    this.keep(`* ${new Date().toISOString()} ${this.name} ${text}`)
  }

  private keep(line: string): void {
    this.heard(line)
    this.lines.push(line)
    if (this.lines.length > LINES_MAX) this.lines.splice(0, this.lines.length - LINES_MAX)
  }
}
