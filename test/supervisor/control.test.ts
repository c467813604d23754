import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, statSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import test, { type ExecutionContext } from 'ava'
import { CONTROL_REQUEST_BYTES_MAX } from '../../protocol/control.ts'
import { SyncError } from '../../protocol/error.ts'
import { Control, ControlError, type ControlOptions, type Session } from '../../supervisor/control.ts'
import { tempFolder } from './_temp.ts'

async function openControl(t: ExecutionContext, answer: ControlOptions['answer'] = async () => ({})) {
  const path = join(tempFolder(t), 'realize', 'control.sock')
  const failures: string[] = []
  const control = new Control({ path, answer, failed: method => failures.push(method) })
  await control.open()
  t.teardown(() => control.close())
  return { control, path, failures }
}

function dial(t: ExecutionContext, path: string) {
  const socket: Socket = connect(path)
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]()
  return {
    socket,
    async next(): Promise<unknown> {
      return JSON.parse(String((await lines.next()).value)) as unknown
    },
    async ask(request: unknown): Promise<unknown> {
      socket.write(`${typeof request === 'string' ? request : JSON.stringify(request)}\n`)
      return this.next()
    },
  }
}

test('a request is answered with its id, and the socket is for its user alone', async t => {
  const { path } = await openControl(t, async method => ({ asked: method }))
  t.is(statSync(path).mode & 0o777, 0o600)
  t.is(statSync(join(path, '..')).mode & 0o777, 0o700)
  const client = dial(t, path)
  t.deepEqual(await client.ask({ jsonrpc: '2.0', id: 'a', method: 'status' }), {
    jsonrpc: '2.0',
    id: 'a',
    result: { asked: 'status' },
  })
})

const refusal = test.macro(async (t, request: unknown, code: number, id: unknown) => {
  const { path } = await openControl(t)
  t.like(await dial(t, path).ask(request), { id, error: { code } })
})
test('what is not JSON is a parse error', refusal, '{"jsonrpc":', -32700, null)
test('a batch is an invalid request', refusal, [], -32600, null)
test('a request without a version is an invalid request', refusal, { id: 1, method: 'status' }, -32600, 1)
test('an unknown method is said to be unknown', refusal, { jsonrpc: '2.0', id: 2, method: 'toString' }, -32601, 2)
test(
  'parameters that do not fit are refused',
  refusal,
  { jsonrpc: '2.0', id: 3, method: 'arena_pause', params: { name: '../x' } },
  -32602,
  3,
)

test('a failure comes with its code and what belongs to it', async t => {
  const { path, failures } = await openControl(t, async method => {
    if (method === 'wait') throw new ControlError('timed_out', 'late', { missing: ['docs: 3 files'] })
    if (method === 'id') throw new SyncError('peer_unknown', 'who?')
    throw new TypeError('ours')
  })
  const client = dial(t, path)
  t.like(await client.ask({ jsonrpc: '2.0', id: 1, method: 'wait' }), {
    error: { code: -32000, message: 'late', data: { code: 'timed_out', missing: ['docs: 3 files'] } },
  })
  t.like(await client.ask({ jsonrpc: '2.0', id: 2, method: 'id' }), { error: { data: { code: 'peer_unknown' } } })
  t.deepEqual(failures, [])
  t.like(await client.ask({ jsonrpc: '2.0', id: 3, method: 'status' }), { error: { data: { code: 'internal' } } })
  t.deepEqual(failures, ['status'])
})

test('a line of more than a mebibyte ends the connection with a reason', async t => {
  const { path, control } = await openControl(t)
  const client = dial(t, path)
  client.socket.write('x'.repeat(CONTROL_REQUEST_BYTES_MAX + 1))
  t.like(await client.next(), { error: { code: -32600 } })
  await once(client.socket, 'close')
  // The next one is served.
  t.like(await dial(t, path).ask({ jsonrpc: '2.0', id: 1, method: 'id' }), { id: 1, result: {} })
  t.true(control.clients >= 1)
})

test('requests that come in pieces or many at a time are all answered', async t => {
  const { path } = await openControl(t, async method => method)
  const client = dial(t, path)
  const text = [1, 2, 3].map(id => `${JSON.stringify({ jsonrpc: '2.0', id, method: 'id' })}\r\n`).join('\n')
  client.socket.write(text.slice(0, 20))
  client.socket.write(text.slice(20))
  for (const id of [1, 2, 3]) t.like(await client.next(), { id, result: 'id' })
})

test('a client that goes is noticed by who serves it', async t => {
  const sessions: Session[] = []
  const { path } = await openControl(t, async (_method, _params, session) => sessions.push(session))
  const client = dial(t, path)
  await client.ask({ jsonrpc: '2.0', id: 1, method: 'id' })
  const session = sessions[0]
  if (!session) return t.fail()
  const gone = once(session.gone, 'abort')
  client.socket.destroy()
  await gone
  t.true(session.gone.aborted)
})

test('a socket that a dead service left is replaced', async t => {
  const path = join(tempFolder(t), 'control.sock')
  const dead = spawn(process.execPath, [
    '-e',
    `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`,
  ])
  await once(dead, 'exit')
  t.true(existsSync(path))
  const control = new Control({ path, answer: async () => 'alive', failed: () => {} })
  await control.open()
  t.teardown(() => control.close())
  t.like(await dial(t, path).ask({ jsonrpc: '2.0', id: 1, method: 'id' }), { result: 'alive' })
})

test('a socket where a service answers is left to it', async t => {
  const path = join(tempFolder(t), 'control.sock')
  const other = createServer().listen(path)
  await once(other, 'listening')
  t.teardown(() => other.close())
  const control = new Control({ path, answer: async () => ({}), failed: () => {} })
  const error = await t.throwsAsync(control.open(), { name: 'SyncError' })
  t.true(error?.message.startsWith('a service is already running on this home'))
})
