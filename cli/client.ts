/**
 * The client of the control socket: JSON-RPC 2.0, one object a line. The command line and the tests use nothing else.
 * docs/control.md describes the protocol.
 */
import { createConnection, type Socket } from 'node:net'
import {
  CONTROL_ANSWER_BYTES_MAX,
  type ControlErrorData,
  type ControlMethodName,
  type ControlParams,
  type ControlResult,
  RPC_INVALID_PARAMS,
  RPC_UNKNOWN_METHOD,
  type RpcError,
  type RpcNotification,
  type RpcResponse,
} from '../protocol/control.ts'
import { ERRORS, type ErrorCode, SyncError } from '../protocol/error.ts'

export interface ControlClient {
  /** Throws a ControlError as the service answered, or `no_service` if it went away. */
  call<Name extends ControlMethodName>(method: Name, params: ControlParams<Name>): Promise<ControlResult<Name>>
  /**
   * Notifications come to `take`, first what there is, then changes. The subscription ends with the client; the promise
   * is settled when it has begun.
   */
  subscribe(params: ControlParams<'subscribe'>, take: (notification: RpcNotification) => void): Promise<void>
  /** Settled when the connection has ended, by either side: with why, or null after `close`. */
  readonly closed: Promise<SyncError | null>
  close(): void
}

/** An error that the service answered with. */
export class ControlError extends SyncError {
  readonly data: ControlErrorData
  constructor(message: string, data: ControlErrorData) {
    super(data.code, message)
    this.data = data
  }
}

/** Connects to a service. Throws `no_service` if none listens there, `not_allowed` if it is another user's. */
export function connectControl(socketPath: string): Promise<ControlClient> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath)
    const fail = (error: NodeJS.ErrnoException) => {
      socket.destroy()
      reject(
        error.code === 'EACCES' || error.code === 'EPERM'
          ? new SyncError('not_allowed', `the control socket ${socketPath} belongs to another user`, { cause: error })
          : new SyncError('no_service', `no service listens on ${socketPath} (${error.code})`, { cause: error }),
      )
    }
    socket.once('error', fail)
    socket.once('connect', () => {
      socket.off('error', fail)
      resolve(clientOn(socket))
    })
  })
}

function clientOn(socket: Socket): ControlClient {
  const waiting = new Map<number, { resolve(result: unknown): void; reject(error: Error): void }>()
  const takers: ((notification: RpcNotification) => void)[] = []
  const lines = lineReader(CONTROL_ANSWER_BYTES_MAX)
  let lastId = 0
  let ended: SyncError | null | undefined
  let settle: (reason: SyncError | null) => void
  const closed = new Promise<SyncError | null>(resolve => {
    settle = resolve
  })

  const end = (reason: SyncError | null) => {
    if (ended !== undefined) return
    ended = reason
    socket.destroy()
    const error = reason ?? new SyncError('no_service', 'the connection with the service was closed')
    for (const { reject } of waiting.values()) reject(error)
    waiting.clear()
    settle(reason)
  }

  socket.on('data', (bytes: Buffer) => {
    try {
      for (const line of lines(bytes)) receive(JSON.parse(line) as RpcResponse | RpcNotification)
    } catch (error) {
      end(
        new SyncError('message_invalid', 'the service does not speak JSON-RPC on its control socket', { cause: error }),
      )
    }
  })
  socket.on('error', error =>
    end(new SyncError('no_service', `the service went away: ${error.message}`, { cause: error })),
  )
  socket.on('close', () => end(new SyncError('no_service', 'the service has stopped')))

  const receive = (message: RpcResponse | RpcNotification) => {
    if ('method' in message) {
      for (const take of takers) take(message)
      return
    }
    if (message.id === null && 'error' in message) return end(failureOf(message.error))
    const call = waiting.get(Number(message.id))
    if (!call) return
    waiting.delete(Number(message.id))
    if ('error' in message) call.reject(failureOf(message.error))
    else call.resolve(message.result)
  }

  const call = <Name extends ControlMethodName>(method: Name, params: ControlParams<Name>) =>
    new Promise<ControlResult<Name>>((resolve, reject) => {
      if (ended !== undefined)
        return reject(ended ?? new SyncError('no_service', 'the connection with the service was closed'))
      const id = ++lastId
      waiting.set(id, { resolve: result => resolve(result as ControlResult<Name>), reject })
      socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`)
    })

  return {
    call,
    async subscribe(params, take) {
      const name = params.what === 'events' ? 'event' : params.what
      // Before the call: the first notification may come together with the answer.
      takers.push(notification => {
        if (notification.method === name) take(notification)
      })
      await call('subscribe', params)
    },
    closed,
    close: () => end(null),
  }
}

function failureOf(error: RpcError): SyncError {
  const code = error.data?.code
  if (code !== undefined && Object.hasOwn(ERRORS, code)) return new ControlError(error.message, { ...error.data, code })
  const fallback: ErrorCode =
    error.code === RPC_UNKNOWN_METHOD ? 'version_unsupported' : error.code === RPC_INVALID_PARAMS ? 'usage' : 'internal'
  const hint = fallback === 'version_unsupported' ? ': the service is of another version, start it again' : ''
  return new ControlError(error.message + hint, { code: fallback })
}

/**
 * Cuts a stream into lines. The function gives the lines that are complete with these bytes, and throws `limit_exceeded`
 * once one is longer than the limit.
 */
export function lineReader(bytesMax: number): (bytes: Buffer) => string[] {
  // Pieces of the line that has no end yet: joined once, so that a long line does not cost its square.
  let pieces: Buffer[] = []
  let held = 0
  return bytes => {
    const lines: string[] = []
    let from = 0
    for (let newline = bytes.indexOf(10); newline >= 0; newline = bytes.indexOf(10, from)) {
      pieces.push(bytes.subarray(from, newline))
      const line = Buffer.concat(pieces).toString('utf8')
      pieces = []
      held = 0
      from = newline + 1
      if (line.trim() !== '') lines.push(line)
    }
    if (from < bytes.length) {
      pieces.push(bytes.subarray(from))
      held += bytes.length - from
    }
    if (held > bytesMax) throw new SyncError('limit_exceeded', `a line is longer than ${bytesMax} bytes`)
    return lines
  }
}
