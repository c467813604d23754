/**
 * The control socket: JSON-RPC 2.0, one object a line, for the user of this machine alone (socket 0600 in a folder 0700).
 * Who answers the methods is given; here are the socket, the lines, the checks and the errors.
 */
import { chmodSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import {
  CONTROL_REQUEST_BYTES_MAX,
  type ControlErrorData,
  type ControlMethodName,
  isControlMethod,
  parseParams,
  RPC_FAILED,
  RPC_INVALID_PARAMS,
  RPC_INVALID_REQUEST,
  RPC_PARSE_ERROR,
  RPC_UNKNOWN_METHOD,
  type RpcId,
  type RpcNotification,
  type RpcResponse,
} from '../protocol/control.ts'
import { SyncError, toFailure } from '../protocol/error.ts'

/** Clients at one time. */
const CLIENTS_MAX = 64
/** Requests of one client that may be unanswered. */
const REQUESTS_OPEN_MAX = 64
/** What may wait to be read by one client, beyond a single large answer, before a notification is too much. */
const UNREAD_BYTES_MAX = 16 * 1024 * 1024
/** How long a service that may live at a socket has to take a connection. */
const PROBE_MS = 2_000

/** One client, for as long as it is connected. */
export interface Session {
  notify(notification: RpcNotification): void
  /** Aborted when the client has gone. */
  readonly gone: AbortSignal
}

/** Throws a SyncError, or a ControlError with more to tell, for what the client is to be told. */
export type Answer = (method: ControlMethodName, params: Record<string, unknown>, session: Session) => Promise<unknown>

/** A SyncError with more data for the client. */
export class ControlError extends SyncError {
  readonly data: Omit<ControlErrorData, 'code'>
  constructor(code: SyncError['code'], message: string, data: Omit<ControlErrorData, 'code'>) {
    super(code, message)
    this.data = data
  }
}

export interface ControlOptions {
  /** Path of a Unix socket, or name of a Windows pipe. */
  path: string
  answer: Answer
  /** Something of ours went wrong in answering. */
  failed(method: string, error: unknown): void
}

export class Control {
  readonly #options: ControlOptions
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined

  constructor(options: ControlOptions) {
    this.#options = options
  }

  /** Listens; a socket that a dead service has left is replaced. Throws `already_exists` if a service answers there. */
  async open(): Promise<void> {
    const { path } = this.#options
    const pipe = path.startsWith('\\\\')
    if (!pipe) {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
      if (await answers(path))
        throw new SyncError('already_exists', `a service is already running on this home (${path} answers)`)
      rmSync(path, { force: true })
    }
    const server = createServer(socket => this.#connected(socket))
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, () => resolve())
      // The socket is there when `listen` returns. A umask would do it too, but it is that of the arenas' threads as well.
      if (!pipe && existsSync(path)) chmodSync(path, 0o600)
    })
    server.removeAllListeners('error')
    server.on('error', error => this.#options.failed('accept', error))
    this.#server = server
  }

  async close(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (!server) return
    const closed = new Promise<void>(resolve => server.close(() => resolve()))
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  get clients(): number {
    return this.#sockets.size
  }

  #connected(socket: Socket): void {
    if (this.#sockets.size >= CLIENTS_MAX) {
      socket.end(`${JSON.stringify(failure(null, RPC_FAILED, 'too many clients of this socket', { code: 'busy' }))}\n`)
      return
    }
    this.#sockets.add(socket)
    const gone = new AbortController()
    let requests = 0
    const send = (message: RpcResponse | RpcNotification) => {
      if (!socket.destroyed && socket.writable) socket.write(`${JSON.stringify(message)}\n`)
    }
    const session: Session = {
      gone: gone.signal,
      notify(notification) {
        // A subscriber that does not read: it can come back and ask for the whole again.
        if (socket.writableLength > UNREAD_BYTES_MAX) socket.destroy()
        else send(notification)
      },
    }
    const reader = new LineReader(CONTROL_REQUEST_BYTES_MAX)
    socket.on('data', (chunk: Buffer) => {
      const lines = reader.push(chunk)
      for (const line of lines) {
        requests++
        void this.#respond(line, session, requests > REQUESTS_OPEN_MAX).then(response => {
          requests--
          if (response) send(response)
        })
      }
      if (reader.overflowed) {
        const message = `a line of more than ${CONTROL_REQUEST_BYTES_MAX} bytes`
        socket.end(`${JSON.stringify(failure(null, RPC_INVALID_REQUEST, message))}\n`)
        socket.pause()
      }
    })
    socket.on('error', () => socket.destroy())
    socket.on('end', () => socket.end())
    socket.on('close', () => {
      this.#sockets.delete(socket)
      gone.abort()
    })
  }

  /** Undefined: a notification, which gets no answer. Never rejects. */
  async #respond(line: string, session: Session, tooMany: boolean): Promise<RpcResponse | undefined> {
    const request = parseRequest(line)
    if ('error' in request) return request
    const { id, method, params } = request
    const respond = (response: RpcResponse) => (id === undefined ? undefined : response)
    if (!isControlMethod(method)) {
      return respond(failure(id ?? null, RPC_UNKNOWN_METHOD, `unknown method '${method.slice(0, 100)}'`))
    }
    if (tooMany) return respond(failure(id ?? null, RPC_FAILED, 'too many requests at once', { code: 'busy' }))
    let parsed: Record<string, unknown>
    try {
      parsed = parseParams(method, params)
    } catch (error) {
      return respond(failure(id ?? null, RPC_INVALID_PARAMS, toFailure(error).message))
    }
    try {
      const result = await this.#options.answer(method, parsed, session)
      return respond({ jsonrpc: '2.0', id: id ?? null, result: result ?? {} })
    } catch (error) {
      if (!(error instanceof SyncError) || error.code === 'internal') this.#options.failed(method, error)
      const { code, message } = toFailure(error)
      const more = error instanceof ControlError ? error.data : {}
      return respond(failure(id ?? null, RPC_FAILED, message, { code, ...more }))
    }
  }
}

/** Cuts a stream of bytes into lines of at most `limit` bytes; looks at each byte once. */
class LineReader {
  readonly #limit: number
  #parts: Buffer[] = []
  #length = 0
  /** A line was too long; nothing more is read. */
  overflowed = false

  constructor(limit: number) {
    this.#limit = limit
  }

  push(chunk: Buffer): string[] {
    const lines: string[] = []
    let from = 0
    while (!this.overflowed) {
      const end = chunk.indexOf(10, from)
      const part = chunk.subarray(from, end < 0 ? chunk.length : end)
      this.#length += part.length
      if (this.#length > this.#limit) this.overflowed = true
      else this.#parts.push(part)
      if (end < 0 || this.overflowed) break
      const line = Buffer.concat(this.#parts).toString('utf8').trim()
      if (line !== '') lines.push(line)
      this.#parts = []
      this.#length = 0
      from = end + 1
    }
    return lines
  }
}

type Request = { id: RpcId | undefined; method: string; params: unknown }

function parseRequest(line: string): Request | Extract<RpcResponse, { error: unknown }> {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return failure(null, RPC_PARSE_ERROR, 'not JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return failure(null, RPC_INVALID_REQUEST, 'a request is one object; batches are not supported')
  }
  const { jsonrpc, id, method, params } = value as Record<string, unknown>
  const known = id === null || typeof id === 'number' || typeof id === 'string' ? id : undefined
  if (jsonrpc !== '2.0' || typeof method !== 'string' || (id !== undefined && known === undefined)) {
    return failure(
      known ?? null,
      RPC_INVALID_REQUEST,
      'a request has jsonrpc "2.0", a method and an id that is text or a number',
    )
  }
  return { id: known, method, params }
}

function failure(
  id: RpcId,
  code: number,
  message: string,
  data?: ControlErrorData,
): Extract<RpcResponse, { error: unknown }> {
  return { jsonrpc: '2.0', id, error: { code, message, ...(data ? { data } : {}) } }
}

/** Whether somebody takes connections at this socket. */
function answers(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path)
    const settle = (alive: boolean) => {
      socket.destroy()
      resolve(alive)
    }
    socket.setTimeout(PROBE_MS, () => settle(true))
    socket.once('connect', () => settle(true))
    socket.once('error', () => settle(false))
  })
}
