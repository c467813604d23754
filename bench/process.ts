/** Child processes of the benchmark: started with their output in a file, ended by their number, never by a name. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { familyOf } from './meter.ts'

/** A service that was asked to end is killed after this long. */
const STOP_MS_MAX = 20_000
/** What is shown of the output of a process that failed. */
const TAIL_CHARACTERS = 600

export interface Service {
  readonly pid: number
  /** Lines that it wrote to stdout, one promise for each line asked for. Rejects when it ends first. */
  line(text: string): Promise<void>
  /** SIGTERM, then after a while SIGKILL for it and its children. Resolves when it has ended. */
  stop(): Promise<void>
}

const running = new Set<Service>()

/**
 * @param logPath file that takes its stderr, and its stdout as well
 * @throws Error with the tail of the log when it cannot be started
 */
export function startService(command: string, args: string[], logPath: string, env: NodeJS.ProcessEnv = {}): Service {
  const log = openSync(logPath, 'a')
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', log], env: { ...process.env, ...env } })
  closeSync(log)
  let output = ''
  const ended = new Promise<void>(resolve => {
    child.once('error', () => resolve())
    child.once('exit', () => resolve())
  })
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output = (output + text).slice(-10_000)
  })
  if (child.pid === undefined) throw new Error(`${command} cannot be started`)
  const pid = child.pid
  const service: Service = {
    pid,
    async line(text) {
      let over = false
      void ended.then(() => {
        over = true
      })
      while (!output.split('\n').includes(text)) {
        if (over) throw new Error(`${command} ended before it said '${text}': ${tail(logPath)}`)
        await pause(10)
      }
    },
    async stop() {
      running.delete(service)
      if (child.exitCode !== null || child.signalCode !== null) return
      const family = familyOf(pid)
      child.kill('SIGTERM')
      const timer = setTimeout(() => {
        for (const member of family) killQuietly(member)
      }, STOP_MS_MAX)
      await ended
      clearTimeout(timer)
    },
  }
  running.add(service)
  return service
}

/** Ends whatever still runs, for an interrupted benchmark. */
export async function stopAll(): Promise<void> {
  await Promise.all([...running].map(service => service.stop()))
}

/**
 * Runs a command to its end while a shell around it stays, so that the processor time of the command and of its children can
 * still be read. `release` lets the shell go.
 *
 * @throws Error with what the command wrote to stderr, if its exit code is not 0
 */
export async function runHeld(
  command: string,
  args: string[],
): Promise<{ pid: number; done: Promise<void>; release(): Promise<void> }> {
  const child: ChildProcess = spawn('/bin/sh', ['-c', '"$@"; echo "code $?"; read -r held', 'sh', command, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let output = ''
  let faults = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    faults = (faults + text).slice(-TAIL_CHARACTERS)
  })
  const ended = new Promise<void>(resolve => child.once('exit', () => resolve()))
  const done = new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', () => reject(new Error(`${command} ended early: ${faults}`)))
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-TAIL_CHARACTERS)
      const code = /^code (\d+)$/mu.exec(output)?.[1]
      if (code === '0') resolve()
      else if (code !== undefined) reject(new Error(`${command} failed with code ${code}: ${faults}`))
    })
  })
  done.catch(() => undefined)
  if (child.pid === undefined) throw new Error('/bin/sh cannot be started')
  return {
    pid: child.pid,
    done,
    async release() {
      child.stdin?.end('\n')
      await ended
    },
  }
}

/** A TCP port of the loopback interface that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  await new Promise<void>(resolve => server.close(() => resolve()))
  if (address === null || typeof address === 'string') throw new Error('no free port')
  return address.port
}

/** Asks again and again until the answer is true. @throws Error naming what was waited for */
export async function until(
  what: string,
  timeoutMs: number,
  intervalMs: number,
  ask: () => Promise<boolean>,
): Promise<void> {
  const endMs = performance.now() + timeoutMs
  while (!(await ask())) {
    if (performance.now() > endMs) throw new Error(`gave up waiting until ${what}`)
    await pause(intervalMs)
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, ms))
}

function tail(path: string): string {
  return readFileSync(path, 'utf8').slice(-TAIL_CHARACTERS)
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended meanwhile.
  }
}
