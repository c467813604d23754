import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { HANDSHAKES_PER_STRANGER_MAX } from '../../supervisor/admission.ts'
import { Listener } from '../../supervisor/listener.ts'
import { signal } from './_temp.ts'

interface Taken {
  socket: Socket
  over: () => void
}

function listenerOf(t: ExecutionContext, known = false) {
  const taken: Taken[] = []
  const refused: string[] = []
  const arrival = { ...signal(), wanted: Infinity }
  const listener = new Listener({
    configPath: '/home/me/config.toml',
    known: () => known,
    accept(socket, _address, over) {
      taken.push({ socket, over })
      if (taken.length >= arrival.wanted) arrival.resolve()
    },
    refused: address => refused.push(address),
    log: () => {},
  })
  const clients: Socket[] = []
  t.teardown(async () => {
    for (const { socket } of taken) socket.destroy()
    for (const client of clients) client.destroy()
    await listener.close()
  })
  return {
    listener,
    taken,
    refused,
    /** Resolves when so many have been handed on, counted from the start. */
    arrived(count: number) {
      arrival.wanted = count
      if (taken.length >= count) arrival.resolve()
      return arrival.promise
    },
    dial() {
      const [place] = listener.addresses
      const client = connect(place?.port ?? 0, '127.0.0.1')
      client.on('error', () => {})
      clients.push(client)
      return client
    },
  }
}

test('the ninth handshake of a stranger is cut, and those before it are not', async t => {
  const { listener, taken, refused, arrived, dial } = listenerOf(t)
  await listener.listen([{ host: '127.0.0.1', port: 0 }])
  for (let i = 0; i < HANDSHAKES_PER_STRANGER_MAX; i++) dial()
  await arrived(HANDSHAKES_PER_STRANGER_MAX)
  await once(dial().resume(), 'close')
  t.is(taken.length, HANDSHAKES_PER_STRANGER_MAX)
  t.deepEqual(refused, ['127.0.0.1'])
  t.true(taken.every(({ socket }) => !socket.destroyed))
})

test('a place is free again when a handshake is over, and only once', async t => {
  const { listener, taken, arrived, dial } = listenerOf(t)
  await listener.listen([{ host: '127.0.0.1', port: 0 }])
  for (let i = 0; i < HANDSHAKES_PER_STRANGER_MAX; i++) dial()
  await arrived(HANDSHAKES_PER_STRANGER_MAX)
  taken[0]?.over()
  taken[0]?.over()
  t.is(listener.handshakes, HANDSHAKES_PER_STRANGER_MAX - 1)
  dial()
  await once(dial().resume(), 'close')
  t.is(listener.handshakes, HANDSHAKES_PER_STRANGER_MAX)
})

test('a known address gets more', async t => {
  const { listener, arrived, dial, refused } = listenerOf(t, true)
  await listener.listen([{ host: '127.0.0.1', port: 0 }])
  for (let i = 0; i < HANDSHAKES_PER_STRANGER_MAX * 2; i++) dial()
  await arrived(HANDSHAKES_PER_STRANGER_MAX * 2)
  t.deepEqual(refused, [])
})

test('a taken port is named, with what to do, and where it listened before it still does', async t => {
  const first = listenerOf(t)
  const second = listenerOf(t)
  await first.listener.listen([{ host: '127.0.0.1', port: 0 }])
  await second.listener.listen([{ host: '127.0.0.1', port: 0 }])
  const before = second.listener.addresses
  const port = first.listener.addresses[0]?.port ?? 0
  const error = await t.throwsAsync(second.listener.listen([{ host: '127.0.0.1', port }]), { name: 'SyncError' })
  t.true(error?.message.startsWith(`port ${port} on 127.0.0.1 is taken`))
  t.true(error?.message.includes('change `listen` in /home/me/config.toml'))
  t.deepEqual(second.listener.addresses, before)
})

test('a change of where it listens keeps what stays and drops what goes', async t => {
  const { listener } = listenerOf(t)
  await listener.listen([{ host: '127.0.0.1', port: 0 }])
  const before = listener.addresses
  await listener.listen([{ host: '127.0.0.1', port: 0 }])
  t.deepEqual(listener.addresses, before)
  await listener.listen([])
  t.deepEqual(listener.addresses, [])
})
