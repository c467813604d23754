/** A service that is only its control socket: it answers as a test says, and remembers what it was asked. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { lineReader } from '../../cli/client.ts'
import {
  type ControlMethodName,
  type ControlParams,
  type ControlResult,
  isControlMethod,
  parseParams,
  RPC_FAILED,
  RPC_INVALID_PARAMS,
  RPC_UNKNOWN_METHOD,
  type RpcNotification,
  type RpcRequest,
  type StatusResult,
} from '../../protocol/control.ts'
import { type ErrorCode, SyncError } from '../../protocol/error.ts'
import type { ArenaName, PeerId } from '../../protocol/ids.ts'
import type { ArenaStatus } from '../../protocol/status.ts'
import { type Cleaning, temporaryFolder } from '../_temp.ts'

export interface Caller {
  notify(notification: RpcNotification): void
  /** Cuts the connection. */
  hangUp(): void
}

export type Answers = {
  [Name in ControlMethodName]?: (
    params: ControlParams<Name>,
    caller: Caller,
  ) => ControlResult<Name> | Promise<ControlResult<Name>>
}

/** What a fake answers with: an error with data beside its code. */
export class Refusal extends SyncError {
  readonly missing: string[] | undefined
  constructor(code: ErrorCode, message: string, missing?: string[]) {
    super(code, message)
    this.missing = missing
  }
}

export interface FakeService {
  /** Folder for `--home`. */
  home: string
  socket: string
  /** In the order in which they came; parameters have passed their schemas. */
  requests: { method: string; params: unknown }[]
}

export async function fakeService(t: Cleaning, answers: Answers = {}): Promise<FakeService> {
  const home = temporaryFolder(t)
  const socketPath = join(home, 'control.sock')
  const requests: FakeService['requests'] = []
  const open = new Set<Socket>()
  const server = createServer(socket => {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
    socket.on('error', () => socket.destroy())
    const lines = lineReader(1024 * 1024)
    socket.on('data', bytes => {
      for (const line of lines(bytes)) void answer(socket, JSON.parse(line) as RpcRequest)
    })
  })
  const answer = async (socket: Socket, request: RpcRequest) => {
    const send = (message: unknown) => socket.write(`${JSON.stringify(message)}\n`)
    const head = { jsonrpc: '2.0', id: request.id }
    const { method } = request
    if (!isControlMethod(method))
      return send({ ...head, error: { code: RPC_UNKNOWN_METHOD, message: `unknown method ${method}` } })
    let params: ControlParams<typeof method>
    try {
      params = parseParams(method, request.params)
    } catch (error) {
      return send({ ...head, error: { code: RPC_INVALID_PARAMS, message: (error as Error).message } })
    }
    requests.push({ method, params })
    const later: RpcNotification[] = []
    let answered = false
    const caller: Caller = {
      notify: notification => {
        if (answered) send(notification)
        else later.push(notification)
      },
      hangUp: () => socket.end(),
    }
    const reply = answers[method] as ((params: unknown, caller: Caller) => unknown) | undefined
    try {
      send({ ...head, result: reply ? await reply(params, caller) : {} })
    } catch (error) {
      if (!(error instanceof SyncError)) throw error
      const missing = error instanceof Refusal && error.missing ? { missing: error.missing } : {}
      send({ ...head, error: { code: RPC_FAILED, message: error.message, data: { code: error.code, ...missing } } })
    }
    answered = true
    for (const notification of later) send(notification)
  }
  server.listen(socketPath)
  await once(server, 'listening')
  t.teardown(
    () =>
      new Promise<void>(resolve => {
        for (const socket of open) socket.destroy()
        server.close(() => resolve())
      }),
  )
  return { home, socket: socketPath, requests }
}

export interface Outcome {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

const mainPath = fileURLToPath(new URL('../../cli/main.js', import.meta.url))

/** Starts the built program on a home. */
export function startCli(t: Cleaning, home: string, words: readonly string[], env: Record<string, string> = {}) {
  const { NO_COLOR, REALIZE_HOME, ...inherited } = process.env
  const child = spawn(process.execPath, [mainPath, ...words], {
    env: { ...inherited, REALIZE_HOME: home, ...env },
    cwd: home,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  return child
}

/** Runs it to its end. */
export async function runCli(
  t: Cleaning,
  home: string,
  words: readonly string[],
  env: Record<string, string> = {},
): Promise<Outcome> {
  const child = startCli(t, home, words, env)
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout.on('data', (bytes: Buffer) => stdout.push(bytes))
  child.stderr.on('data', (bytes: Buffer) => stderr.push(bytes))
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  return { code, signal, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }
}

export const arenaName = (name: string) => name as ArenaName
export const SERVER_ID = 'XDOKLQW-ODINK26-2GPLURC-QXFRHTW-QBHJLQY-FV6N63U-RSED5HH-3SA5UNW' as PeerId

export function sampleArena(changes: Partial<ArenaStatus> = {}): ArenaStatus {
  return {
    name: arenaName('docs'),
    path: '/home/ada/Documents',
    state: 'idle',
    reason: null,
    consensus: true,
    missing: [],
    root: 'ab'.repeat(32),
    files: 3,
    bytes: 2048,
    realBytes: 2048,
    cachedBytes: 0,
    fetching: null,
    needFiles: 0,
    needBytes: 0,
    conflicts: 0,
    problems: [],
    problemCount: 0,
    scan: null,
    peers: [],
    ...changes,
  }
}

export function sampleStatus(changes: Partial<StatusResult> = {}): StatusResult {
  return {
    peer: { name: 'laptop', id: SERVER_ID, version: '0.1.0', uptime: 7300 },
    peers: [],
    arenas: [sampleArena()],
    mounts: [],
    actors: [],
    ...changes,
  }
}
