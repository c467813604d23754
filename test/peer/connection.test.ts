import { createHash, randomBytes } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { connect as connectTcp, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { MessageChannel } from 'node:worker_threads'
import test from 'ava'
import { createDescriptorTable } from '../../actors/descriptors.ts'
import { hashLeaves } from '../../actors/hasher/merkle.ts'
import { Connection } from '../../actors/peer/connection.ts'
import { DEADLINES } from '../../actors/peer/peer.ts'
import { secureContextOf } from '../../actors/peer/secure.ts'
import { type LeafWriter, type Written, writerHere } from '../../actors/peer/writer-thread.ts'
import type { ErrorCode } from '../../protocol/error.ts'
import type { ArenaName, BlobHash, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import { FETCH_LEAVES_MAX, LEAF_BYTES, REQUESTS_MAX } from '../../protocol/limits.ts'
import type { FromPeer, LeavesToWrite, PeerReport, ToPeer } from '../../protocol/ports.ts'
import type { ArenaWireMessage } from '../../protocol/wire.ts'
import { certificate, generateIdentity } from '../../supervisor/identity.ts'
import { type Arena, Inbox, openFile, openFilesIn, openPair, Stranger, stopThreads, Thread } from './_threads.ts'

const docs = 'docs' as ArenaName
const hash = 'ab'.repeat(32) as BlobHash
const opening = {
  type: 'arena_open' as const,
  arena: docs,
  replica: '0123456789abcdef' as ReplicaId,
  session: 'fedcba9876543210' as SessionToken,
  seq: 7,
  conflicts: 'keep-both' as const,
  read: null,
  again: false,
  knows: null,
}

/** How much longer than by its limit a transfer may take on a loaded machine. How exact a limit is: test/system/rate.test.ts. */
const SLOWER_MAX = 20

test.afterEach.always(stopThreads)

test.serial('the right key on both sides opens the connection, and each learns who the other is', async t => {
  const [a, b] = await Promise.all([Thread.start('a'), Thread.start('b')])
  a.dial(1, b.identity, await b.listen([a.identity]))
  const atA = await a.reports.take('opened')
  const atB = await b.reports.take('opened')
  t.deepEqual(atA, { type: 'opened', connection: 1, peer: b.identity.id, name: 'b', addresses: ['b.test:9771'] })
  t.deepEqual(atB, { type: 'opened', connection: 1001, peer: a.identity.id, name: 'a', addresses: ['a.test:9771'] })
  t.is(await a.stop(), 0)
  t.deepEqual((await b.reports.take('closed')).failure, { code: 'peer_closed', message: 'the service stops' })
  t.is(await b.stop(), 0)
})

test.serial('another key than the one that was dialled is refused, and both IDs are named', async t => {
  const [a, b] = await Promise.all([Thread.start('a'), Thread.start('b')])
  const expected = generateIdentity()
  a.dial(1, expected, await b.listen([a.identity]))
  const { failure } = await a.reports.take('closed')
  t.is(failure.code, 'peer_unknown')
  t.true(failure.message.includes(expected.id) && failure.message.includes(b.identity.id))
  await a.reports.take('log', log => log.event === 'peer_refused')
  await Promise.all([a.stop(), b.stop()])
  t.is(a.reports.count('opened'), 0)
})

test.serial('a key that is not of the household is told so and closed', async t => {
  const [a, b] = await Promise.all([Thread.start('a'), Thread.start('b')])
  a.dial(1, b.identity, await b.listen([]))
  const { failure } = await a.reports.take('closed')
  t.is(failure.code, 'peer_unknown')
  t.true(failure.message.includes(a.identity.id))
  t.is((await b.reports.take('closed')).failure.code, 'peer_unknown')
  await Promise.all([a.stop(), b.stop()])
  t.is(b.reports.count('opened'), 0)
})

test.serial('a stranger that may pair may not sync', async t => {
  const b = await Thread.start('b')
  const stranger = await Stranger.dial(
    await b.listen([], [{ invite: '00'.repeat(8), secret: '00'.repeat(16) }]),
    generateIdentity(),
  )
  const hello = await stranger.inbox.take('hello')
  t.deepEqual(hello.addresses, [], 'a stranger is not told where we are')
  stranger.hello()
  t.is((await stranger.inbox.take('close')).code, 'peer_unknown')
  await stranger.closed
  await b.stop()
})

test.serial('garbage instead of TLS closes the connection and nothing else', async t => {
  const { a, b } = await openPair()
  const address = await b.listen([a.identity])
  const [host, port] = address.split(':')
  const socket = connectTcp(Number(port), host)
  const gone = new Promise(resolve => socket.once('close', resolve))
  socket.on('error', () => {})
  socket.write(randomBytes(4096))
  const { failure, connection } = await b.reports.take('closed')
  t.is(connection, 1002)
  t.is(failure.code, 'peer_closed')
  socket.destroy()
  await gone
  a.dial(2, b.identity, address)
  await a.reports.take('opened')
  a.send({ type: 'close', connection: 2, failure: { code: 'peer_closed', message: 'done' } })
  await Promise.all([a.reports.take('closed'), b.reports.take('closed')])
  t.is(b.reports.count('closed') + a.reports.count('closed'), 0)
  await Promise.all([a.stop(), b.stop()])
})

test.serial('a client that speaks another ALPN is turned away', async t => {
  const b = await Thread.start('b')
  const stranger = await Stranger.dial(await b.listen([]), generateIdentity(), { alpn: 'h2' })
  await stranger.closed
  t.is((await b.reports.take('closed')).failure.code, 'peer_closed')
  await b.stop()
})

test.serial('a silent TCP client and a silent TLS client are closed at their deadlines', async t => {
  const b = await Thread.start('b', { secureMs: 100, helloMs: 100 })
  const known = generateIdentity()
  const address = await b.listen([known])
  const [host, port] = address.split(':')
  const socket = connectTcp(Number(port), host)
  const first = await b.reports.take('closed')
  t.is(first.failure.code, 'timed_out')
  t.regex(first.failure.message, /TLS/)
  socket.destroy()
  const stranger = await Stranger.dial(address, known)
  const close = await stranger.inbox.take('close')
  t.is(close.code, 'timed_out')
  t.regex(close.reason, /hello/)
  await stranger.closed
  await b.stop()
})

test.serial('an address where nobody listens says so; one that is silent ends at its deadline', async t => {
  const a = await Thread.start('a', { secureMs: 100 })
  const taken: Socket[] = []
  const server = createServer(socket => taken.push(socket))
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as { port: number }
  const peer = generateIdentity()
  a.dial(1, peer, `127.0.0.1:${port}`)
  t.is((await a.reports.take('closed')).failure.code, 'timed_out')
  for (const socket of taken) socket.destroy()
  const closed = once(server, 'close')
  server.close()
  await closed
  a.dial(2, peer, `127.0.0.1:${port}`)
  t.regex((await a.reports.take('closed')).failure.message, /nobody listens/)
  a.dial(3, peer, 'no address')
  t.is((await a.reports.take('closed')).failure.code, 'config_invalid')
  t.is(await a.stop(), 0)
})

test.serial('versions without overlap close the connection and say who must be updated', async t => {
  const b = await Thread.start('b')
  const known = generateIdentity()
  const stranger = await Stranger.dial(await b.listen([known]), known)
  stranger.hello({ min: 5, max: 9 })
  const close = await stranger.inbox.take('close')
  t.is(close.code, 'version_unsupported')
  t.regex(close.reason, /update Realize on 'b'/)
  t.is((await b.reports.take('closed')).failure.code, 'version_unsupported')
  await stranger.closed
  await b.stop()
})

test.serial('silence is met with pings, then closed', async t => {
  const b = await Thread.start('b', { pingMs: 50, silentMs: 300 })
  const known = generateIdentity()
  const stranger = await Stranger.dial(await b.listen([known]), known)
  stranger.hello()
  await stranger.inbox.take('ping')
  t.is((await stranger.inbox.take('close')).code, 'peer_silent')
  t.is((await b.reports.take('closed')).failure.code, 'peer_silent')
  await stranger.closed
  await b.stop()
})

test.serial('peers with nothing to say stay connected', async t => {
  const { a, b } = await openPair({ pingMs: 30, silentMs: 400 })
  // Pings and their answers for several times the limit of silence.
  await Promise.all([a.received(3000), b.received(3000)])
  t.is(a.reports.count('closed') + b.reports.count('closed'), 0)
  await Promise.all([a.stop(), b.stop()])
})

test.serial(
  'messages of an arena pass both ways, with their payload, and those before it was attached are kept or refused',
  async t => {
    const { a, b } = await openPair()
    const atA = a.attach(1, docs)
    atA.post({ type: 'send', header: opening })
    atA.post({ type: 'send', header: { type: 'arena_probe', arena: docs, probe: 1 } })
    atA.post({ type: 'send', header: { type: 'fetch_tree', arena: docs, id: 3, hash, group: null } })
    const refused = await wireOf(atA, 'arena_close')
    t.is(refused.header.code, 'arena_unknown')
    t.deepEqual((await wireOf(atA, 'fetch_failed')).header.id, 3)

    const atB = b.attach(1001, docs)
    t.deepEqual((await wireOf(atB, 'arena_open')).header, opening)

    atB.post({ type: 'send', header: { type: 'fetch_blobs', arena: docs, id: 1, hashes: [hash] } })
    const asked = await wireOf(atA, 'fetch_blobs')
    const content = randomBytes(1_500_000)
    const payload = new Uint8Array(content)
    atA.post({
      type: 'send',
      header: { type: 'pack', arena: docs, id: asked.header.id, sizes: [payload.length] },
      payload,
    })
    const pack = await wireOf(atB, 'pack')
    t.is(pack.header.id, 1)
    t.true(content.equals(pack.payload as Uint8Array))
    await Promise.all([a.stop(), b.stop()])
  },
)

test.serial(
  'an arena that is attached anew counts its requests from the start, and late answers to the former are dropped',
  async t => {
    const { a, b } = await openPair()
    const atA = a.attach(1, docs)
    const former = b.attach(1001, docs)
    former.post({ type: 'send', header: opening })
    await wireOf(atA, 'arena_open')
    former.post({ type: 'send', header: { type: 'fetch_tree', arena: docs, id: 1, hash, group: null } })
    const first = await wireOf(atA, 'fetch_tree')
    former.port.close()
    t.is((await wireOf(atA, 'arena_close')).header.code, 'arena_unavailable')
    const latter = b.attach(1001, docs)
    latter.post({ type: 'send', header: { type: 'fetch_tree', arena: docs, id: 1, hash, group: 0 } })
    const second = await wireOf(atA, 'fetch_tree')
    t.not(first.header.id, second.header.id)
    atA.post({
      type: 'send',
      header: { type: 'tree', arena: docs, id: first.header.id },
      payload: new Uint8Array(32).fill(1),
    })
    atA.post({
      type: 'send',
      header: { type: 'tree', arena: docs, id: second.header.id },
      payload: new Uint8Array(32).fill(2),
    })
    const tree = await wireOf(latter, 'tree')
    t.is(tree.header.id, 1)
    t.is((tree.payload as Uint8Array)[0], 2)
    await Promise.all([a.stop(), b.stop()])
  },
)

test.serial('256 MiB go from a file to a file, verified, and no descriptor is left', async t => {
  const { a, b } = await openPair()
  const folder = mkdtempSync(join(tmpdir(), 'realize-peer-'))
  const content = randomBytes(256 * 1024 * 1024 - 12345)
  writeFileSync(join(folder, 'from'), content)
  const [atA, atB] = await attachBoth(a, b)
  uploader(atB, join(folder, 'from'), content.length)
  const start = process.hrtime.bigint()
  await downloadAll(atA, join(folder, 'to'), content)
  const seconds = Number(process.hrtime.bigint() - start) / 1e9
  t.log(`${Math.round(content.length / 1e6 / seconds)} MB/s`)
  t.is(sha(readFileSync(join(folder, 'to'))), sha(content))
  t.is(openFilesIn(folder), 0)
  rmSync(folder, { recursive: true })
  await Promise.all([a.stop(), b.stop()])
})

test.serial(
  'many leaves for an arena lie in memory that is its until it has dealt with them, and is used again then',
  async t => {
    const { a, b } = await openPair()
    const folder = mkdtempSync(join(tmpdir(), 'realize-peer-'))
    const content = randomBytes(40 * LEAF_BYTES)
    writeFileSync(join(folder, 'from'), content)
    const [atA, atB] = await attachBoth(a, b)
    uploader(atB, join(folder, 'from'), content.length)
    const runOf = (run: number) => content.subarray(run * 8 * LEAF_BYTES, (run + 1) * 8 * LEAF_BYTES)
    const read = async (run: number) => {
      const header = {
        type: 'fetch_leaves',
        arena: docs,
        id: run + 1,
        hash,
        from: run * 8,
        count: 8,
        urgent: true,
      } as const
      atA.post({ type: 'send', header })
      const { payload } = await wireOf(atA, 'leaves')
      return payload as Uint8Array
    }
    const lent = []
    for (let run = 0; run < 4; run++) lent.push(await read(run))
    t.true(lent.every((payload, run) => Buffer.compare(payload, runOf(run)) === 0))
    // With the first word of the arena that is five.
    atA.post({ type: 'taken', count: 5 })
    const again = await read(4)
    t.is(Buffer.compare(again, runOf(4)), 0)
    t.is(lent.filter(payload => Buffer.compare(payload, runOf(4)) === 0).length, 1)
    rmSync(folder, { recursive: true })
    await Promise.all([a.stop(), b.stop()])
  },
)

test.serial('more downloads than may be open at once wait for each other', async t => {
  const { a, b } = await openPair()
  const folder = mkdtempSync(join(tmpdir(), 'realize-peer-'))
  const content = randomBytes(LEAF_BYTES)
  writeFileSync(join(folder, 'from'), content)
  writeFileSync(join(folder, 'to'), '')
  const [atA, atB] = await attachBoth(a, b)
  const count = REQUESTS_MAX + 10
  for (let id = 1; id <= count; id++) {
    const fd = openFile(join(folder, 'to'), 'r+')
    const leaves = hashLeaves(content)
    atA.post({ type: 'download', id, hash, fd, size: LEAF_BYTES, from: 0, count: 1, leaves, urgent: id === count })
  }
  const asked = []
  for (let i = 0; i < REQUESTS_MAX; i++) asked.push((await wireOf(atB, 'fetch_leaves')).header)
  t.is(atB.inbox.count('wire'), 0)
  const answer = (id: number) => {
    const fd = openFile(join(folder, 'from'), 'r')
    atB.post({ type: 'upload', id, fd, size: LEAF_BYTES, from: 0, count: 1, urgent: false })
  }
  answer(asked[0]!.id)
  const next = await wireOf(atB, 'fetch_leaves')
  t.true(next.header.urgent, 'the one for which somebody waits goes first')
  uploader(atB, join(folder, 'from'), LEAF_BYTES)
  for (const header of [...asked.slice(1), next.header]) answer(header.id)
  for (let i = 0; i < count; i++) await atA.inbox.take('downloaded')
  t.is(a.reports.count('closed'), 0)
  rmSync(folder, { recursive: true })
  await Promise.all([a.stop(), b.stop()])
})

test.serial('content that does not fit its hash fails its download and nothing else', async t => {
  const { a, b } = await openPair()
  const folder = mkdtempSync(join(tmpdir(), 'realize-peer-'))
  const content = randomBytes(20 * LEAF_BYTES)
  writeFileSync(join(folder, 'from'), content)
  writeFileSync(join(folder, 'to'), '')
  const leaves = hashLeaves(content)
  leaves[10 * 32]! ^= 1
  const [atA, atB] = await attachBoth(a, b)
  uploader(atB, join(folder, 'from'), content.length)
  const fd = openFile(join(folder, 'to'), 'r+')
  atA.post({ type: 'download', id: 9, hash, fd, size: content.length, from: 0, count: 20, leaves, urgent: false })
  t.deepEqual(await atA.inbox.take('stored'), { type: 'stored', id: 9, from: 0, count: 8 })
  const failed = await atA.inbox.take('download_failed')
  t.is(failed.failure.code, 'leaf_invalid')
  t.true(readFileSync(join(folder, 'to')).equals(content.subarray(0, 8 * LEAF_BYTES)), 'nothing wrong was written')
  await downloadAll(atA, join(folder, 'to'), content)
  t.true(readFileSync(join(folder, 'to')).equals(content))
  t.is((await a.reports.take('count')).counters.leaves_invalid, 1)
  rmSync(folder, { recursive: true })
  await Promise.all([a.stop(), b.stop()])
})

test.serial('a file that became shorter fails the request, not the connection', async t => {
  const { a, b } = await openPair()
  const folder = mkdtempSync(join(tmpdir(), 'realize-peer-'))
  const content = randomBytes(12 * LEAF_BYTES)
  writeFileSync(join(folder, 'from'), content)
  writeFileSync(join(folder, 'to'), '')
  truncateSync(join(folder, 'from'), 9 * LEAF_BYTES)
  const [atA, atB] = await attachBoth(a, b)
  uploader(atB, join(folder, 'from'), content.length)
  const fd = openFile(join(folder, 'to'), 'r+')
  atA.post({
    type: 'download',
    id: 1,
    hash,
    fd,
    size: content.length,
    from: 0,
    count: 12,
    leaves: hashLeaves(content),
    urgent: true,
  })
  t.is((await atA.inbox.take('download_failed')).failure.code, 'blob_changed')
  t.is(openFilesIn(folder), 0)
  rmSync(folder, { recursive: true })
  await Promise.all([a.stop(), b.stop()])
})

test.serial('a connection cut in mid-transfer fails what was under way and leaves no descriptor', async t => {
  const known = generateIdentity()
  const a = await Thread.start('a')
  const stranger = await Stranger.dial(await a.listen([known]), known)
  stranger.hello()
  await a.reports.take('opened')
  const folder = mkdtempSync(join(tmpdir(), 'realize-peer-'))
  const content = randomBytes(10 * LEAF_BYTES)
  writeFileSync(join(folder, 'file'), content)
  const arena = a.attach(1001, docs)
  const fd = openFile(join(folder, 'file'), 'r+')
  arena.post({
    type: 'download',
    id: 5,
    hash,
    fd,
    size: content.length,
    from: 0,
    count: 10,
    leaves: hashLeaves(content),
    urgent: false,
  })
  truncateSync(join(folder, 'file'), FETCH_LEAVES_MAX * LEAF_BYTES)
  const asked = await stranger.inbox.take('fetch_leaves')
  // Enough of uploads that they cannot be in the buffers of the kernel: this side never reads them.
  stranger.socket.pause()
  const many = REQUESTS_MAX / 2
  for (let id = 1; id <= many; id++)
    stranger.say({ type: 'fetch_leaves', arena: docs, id, hash, from: 0, count: FETCH_LEAVES_MAX, urgent: false })
  for (let id = 1; id <= many; id++) {
    await wireOf(arena, 'fetch_leaves')
    const source = openFile(join(folder, 'file'), 'r')
    arena.post({
      type: 'upload',
      id,
      fd: source,
      size: FETCH_LEAVES_MAX * LEAF_BYTES,
      from: 0,
      count: FETCH_LEAVES_MAX,
      urgent: false,
    })
  }
  stranger.say({ type: 'leaves', arena: docs, id: asked.id, from: 0, count: 8 }, content.subarray(0, 8 * LEAF_BYTES))
  await arena.inbox.take('stored')
  stranger.socket.destroy()
  const failed = await arena.inbox.take('download_failed')
  t.is(failed.id, 5)
  t.is(failed.failure.code, 'peer_closed')
  await arena.inbox.take('closed')
  await a.reports.take('closed')
  while (openFilesIn(folder) > 0) await setImmediate()
  await a.stop()
  rmSync(folder, { recursive: true })
})

test.serial('breaches of the protocol close the connection with a reason', async t => {
  const b = await Thread.start('b')
  const known = generateIdentity()
  const address = await b.listen([known])
  const breaches: [ErrorCode, string, (stranger: Stranger) => void][] = [
    ['limit_exceeded', 'a header over the limit', stranger => stranger.socket.write(lengths(0xffffffff, 0))],
    ['limit_exceeded', 'a payload over the limit', stranger => stranger.socket.write(lengths(10, 0x7fffffff))],
    ['frame_invalid', 'no header', stranger => stranger.socket.write(lengths(0, 0))],
    [
      'frame_invalid',
      'a header that is no JSON',
      stranger => stranger.socket.write(Buffer.concat([lengths(3, 0), Buffer.from('{]}')])),
    ],
    ['message_invalid', 'an unknown message', stranger => stranger.say({ type: 'nonsense' })],
    ['message_invalid', 'a second hello', stranger => stranger.hello()],
    [
      'message_invalid',
      'a field out of range',
      stranger => stranger.say({ type: 'arena_probe', arena: docs, probe: -1 }),
    ],
    [
      'message_invalid',
      'an answer to nothing',
      stranger => stranger.say({ type: 'tree', arena: docs, id: 1 }, new Uint8Array(32)),
    ],
    [
      'message_invalid',
      'a payload where there is none',
      stranger => stranger.say({ type: 'ping', id: 1 }, new Uint8Array(32)),
    ],
    [
      'message_invalid',
      'a header nested too deep',
      stranger =>
        stranger.sayText(`${JSON.stringify(opening).slice(0, -1)},"more":${'['.repeat(20_000)}${']'.repeat(20_000)}}`),
    ],
    [
      'limit_exceeded',
      'too many requests',
      stranger => {
        for (let id = 1; id <= REQUESTS_MAX + 1; id++)
          stranger.say({ type: 'fetch_tree', arena: docs, id, hash, group: null })
      },
    ],
  ]
  for (const [code, what, breach] of breaches) {
    const stranger = await Stranger.dial(address, known)
    stranger.hello()
    const { connection } = await b.reports.take('opened')
    const arena = b.attach(connection, docs)
    stranger.say({ type: 'arena_probe', arena: docs, probe: 1 })
    await Promise.race([arena.inbox.take('wire'), stranger.inbox.take('arena_close')])
    breach(stranger)
    const close = await stranger.inbox.take('close')
    t.is(close.code, code, what)
    const { failure } = await b.reports.take('closed')
    t.is(failure.code, code, what)
    t.is((await arena.inbox.take('closed')).failure.code, code, what)
    await b.reports.take('log', log => log.event === 'peer_refused')
    await stranger.closed
  }
  const early = await Stranger.dial(address, known)
  early.socket.write(lengths(20_000, 0))
  t.is((await early.inbox.take('close')).code, 'limit_exceeded', 'before hello the limits are narrow')
  await early.closed
  t.is(await b.stop(), 0)
})

test.serial('what an arena does not get through waits at the other end, and all of it comes in the end', async t => {
  const b = await Thread.start('b', { pingMs: 300, silentMs: 5000 })
  const known = generateIdentity()
  const stranger = await Stranger.dial(await b.listen([known]), known)
  stranger.hello()
  const { connection } = await b.reports.take('opened')
  const arena = b.attach(connection, docs)
  // Each header is 20 kB: a thousand of them do not fit into what may wait.
  const filler = 'x'.repeat(20_000)
  const messages = 1500
  arena.post({ type: 'send', header: opening })
  await stranger.inbox.take('arena_open')
  for (let probe = 1; probe <= messages; probe++) stranger.say({ type: 'arena_probe', arena: docs, probe, filler })
  await b.reports.take('count', report => (report.counters.peers_held_back ?? 0) > 0)
  // It is not the other end that is silent now.
  for (let ping = 0; ping < 20; ping++) await stranger.inbox.take('ping')
  const waiting = arena.inbox.count('wire')
  t.true(waiting <= 550, `${waiting} messages wait at the arena`)
  t.true(stranger.socket.writableLength > 0, 'the rest waits at the sender')
  for (let taken = 0; taken < messages; taken++) {
    const { header } = await arena.inbox.take('wire')
    t.is((header as { probe?: number }).probe, taken + 1)
    arena.post({ type: 'taken', count: 1 })
  }
  stranger.socket.destroy()
  t.is((await b.reports.take('closed')).failure.code, 'peer_closed')
  await b.stop()
})

test.serial(
  'a header that never ends and a frame that never ends are given up, however often a byte comes',
  async t => {
    const b = await Thread.start('b', { pingMs: 500, silentMs: 2000 })
    const known = generateIdentity()
    const address = await b.listen([known])
    const ping = Buffer.from(JSON.stringify({ type: 'ping', id: 1 }))
    for (const [what, beginning] of [
      ['header', lengths(100_000, 0)],
      ['frame', Buffer.concat([lengths(ping.length, 100_000), ping])],
      ['lengths', Buffer.alloc(1)],
    ] as const) {
      const stranger = await Stranger.dial(address, known)
      stranger.hello()
      await b.reports.take('opened')
      stranger.socket.write(beginning)
      // Sooner than silence, and far from enough; a second byte of the lengths would be one too many.
      const dribbling = setInterval(() => what !== 'lengths' && stranger.socket.write(' '), 100)
      const { code, reason } = await stranger.inbox.take('close')
      t.is(code, what === 'lengths' ? 'peer_silent' : 'timed_out', `${what}: ${reason}`)
      await b.reports.take('closed', closed => closed.failure.code === code)
      stranger.socket.destroy()
      clearInterval(dribbling)
    }
    await b.stop()
  },
)

const heldBack = test.macro(async (t, others: number, bytesMax: number) => {
  const folder = mkdtempSync(join(tmpdir(), 'realize-peer-'))
  const content = randomBytes(5 * FETCH_LEAVES_MAX * LEAF_BYTES)
  writeFileSync(join(folder, 'from'), content)
  const [identity, b] = await Promise.all([generateIdentity(), Thread.start('b')])
  const pem = await certificate(identity.key)
  const disk = new SlowDisk(others)
  const reports = new Inbox<PeerReport>('traffic', 'log')
  const counted = new EventEmitter()
  const connection = Connection.dial(
    1,
    {
      self: { id: identity.id, name: 'a', software: 'realize test', addresses: [] },
      secureContext: secureContextOf({ key: identity.key, certificate: pem }),
      deadlines: DEADLINES,
      descriptors: createDescriptorTable(),
      writer: disk,
      readBuffer: new Uint8Array(16 * 1024),
      now: () => performance.now(),
      report: report => reports.put(report),
      count: counter => counted.emit(counter),
      gone: () => {},
    },
    { peer: b.identity.id, address: await b.listen([identity]), rate: { up: 0, down: 0 }, pair: null },
  )
  await Promise.all([reports.take('opened'), b.reports.take('opened')])
  const { port1, port2 } = new MessageChannel()
  const inbox = new Inbox<FromPeer>()
  port1.on('message', (message: FromPeer) => inbox.put(message))
  connection.attach(docs, port2)
  const atA: Arena = { port: port1, inbox, post: message => port1.postMessage(message) }
  const atB = b.attach(1001, docs)
  atA.post({ type: 'send', header: opening })
  atB.post({ type: 'send', header: opening })
  await Promise.all([wireOf(atA, 'arena_open'), wireOf(atB, 'arena_open')])
  uploader(atB, join(folder, 'from'), content.length)
  const held = once(counted, 'peers_held_back')
  const all = downloadAll(atA, join(folder, 'to'), content)
  await held
  disk.writeOneByOne()
  await all
  t.true(disk.bytesMax <= bytesMax, `${disk.bytesMax} bytes waited to be written`)
  t.true(readFileSync(join(folder, 'to')).equals(content))
  connection.close({ code: 'peer_closed', message: 'done' })
  await reports.take('closed')
  port1.close()
  rmSync(folder, { recursive: true })
  await b.stop()
})

const MiB = 1024 * 1024
test.serial(
  'leaves that a disk does not get through wait at the other end, and all of them come in the end',
  heldBack,
  0,
  12 * MiB,
)
test.serial(
  'with much to write for others a connection has little more than a message that waits',
  heldBack,
  17 * MiB,
  4 * MiB,
)

test.serial('an arena can have a peer refused, with its reason', async t => {
  const { a, b } = await openPair()
  const arena = b.attach(1001, docs)
  arena.post({ type: 'refuse', failure: { code: 'message_invalid', message: 'a gap in the feed' } })
  t.deepEqual((await a.reports.take('closed')).failure, { code: 'message_invalid', message: 'a gap in the feed' })
  t.is((await arena.inbox.take('closed')).failure.message, 'a gap in the feed')
  await Promise.all([a.stop(), b.stop()])
})

test.serial('an arena for a connection that is gone is told so, and its descriptors are closed', async t => {
  const a = await Thread.start('a')
  const arena = a.attach(77, docs)
  const folder = mkdtempSync(join(tmpdir(), 'realize-peer-'))
  writeFileSync(join(folder, 'file'), '')
  const fd = openFile(join(folder, 'file'), 'r+')
  arena.post({ type: 'upload', id: 1, fd, size: 1, from: 0, count: 1, urgent: false })
  t.is((await arena.inbox.take('closed')).failure.code, 'peer_closed')
  while (openFilesIn(folder) > 0) await setImmediate()
  await a.stop()
  rmSync(folder, { recursive: true })
})

test.serial('a rate holds in both directions, and can be lifted while a transfer runs', async t => {
  const { a, b } = await openPair()
  const folder = mkdtempSync(join(tmpdir(), 'realize-peer-'))
  const content = randomBytes(256 * LEAF_BYTES)
  writeFileSync(join(folder, 'from'), content)
  const [atA, atB] = await attachBoth(a, b)
  uploader(atB, join(folder, 'from'), content.length)
  const rate = 16 * 1024 * 1024
  const expected = content.length / rate
  b.send({ type: 'rate', connection: 1001, rate: { up: rate, down: 0 } })
  const up = await timed(() => downloadAll(atA, join(folder, 'to'), content))
  t.true(up > expected * 0.92 && up < expected * SLOWER_MAX, `${up} s up, expected ${expected}`)
  b.send({ type: 'rate', connection: 1001, rate: { up: 0, down: 0 } })
  a.send({ type: 'rate', connection: 1, rate: { up: 0, down: rate } })
  const down = await timed(() => downloadAll(atA, join(folder, 'to'), content))
  t.true(down > expected * 0.92 && down < expected * SLOWER_MAX, `${down} s down, expected ${expected}`)
  a.send({ type: 'rate', connection: 1, rate: { up: 0, down: rate / 1000 } })
  const lifted = timed(() => downloadAll(atA, join(folder, 'to'), content))
  await atA.inbox.take('stored')
  a.send({ type: 'rate', connection: 1, rate: { up: 0, down: 0 } })
  t.true((await lifted) < expected * SLOWER_MAX)
  rmSync(folder, { recursive: true })
  await Promise.all([a.stop(), b.stop()])
})

/** Writes nothing until it is told to, and then a message at a time. */
class SlowDisk implements LeafWriter {
  bytesMax = 0
  unwrittenBytes: number
  readonly #others: number
  readonly #waiting: [LeavesToWrite, Written][] = []
  #writes = false

  /** @param others bytes that wait to be written for other connections, all the time */
  constructor(others: number) {
    this.#others = others
    this.unwrittenBytes = others
  }

  write(leaves: LeavesToWrite, written: Written): void {
    this.#waiting.push([leaves, written])
    this.unwrittenBytes += leaves.payload.length
    this.bytesMax = Math.max(this.bytesMax, this.unwrittenBytes - this.#others)
    if (this.#writes && this.#waiting.length === 1) this.writeOneByOne()
  }

  writeOneByOne(): void {
    this.#writes = true
    setTimeout(() => {
      const [next] = this.#waiting.splice(0, 1)
      if (!next) return
      const [leaves, written] = next
      this.unwrittenBytes -= leaves.payload.length
      writerHere.write(leaves, written)
      if (this.#waiting.length > 0) this.writeOneByOne()
    }, 5)
  }
}

/** The arena on both sides, each sure that the other is there. */
async function attachBoth(a: Thread, b: Thread): Promise<[Arena, Arena]> {
  const [atA, atB] = [a.attach(1, docs), b.attach(1001, docs)]
  atA.post({ type: 'send', header: opening })
  atB.post({ type: 'send', header: opening })
  await Promise.all([wireOf(atA, 'arena_open'), wireOf(atB, 'arena_open')])
  return [atA, atB]
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await work()
  return (performance.now() - start) / 1000
}

/** Answers every fetch_leaves of an arena from one file. */
function uploader(arena: Arena, path: string, size: number): void {
  arena.port.on('message', (message: FromPeer) => {
    if (message.type !== 'wire' || message.header.type !== 'fetch_leaves') return
    const { id, from, count, urgent } = message.header
    arena.post({ type: 'upload', id, fd: openFile(path, 'r'), size, from, count, urgent } satisfies ToPeer)
  })
}

/** Downloads a blob as an arena would: some requests at once. */
async function downloadAll(arena: Arena, path: string, content: Buffer): Promise<void> {
  writeFileSync(path, '')
  const leaves = hashLeaves(content)
  const total = leaves.length / 32
  const open: Promise<unknown>[] = []
  for (let from = 0, id = 1; from < total; from += FETCH_LEAVES_MAX, id++) {
    const count = Math.min(FETCH_LEAVES_MAX, total - from)
    const fd = openFile(path, 'r+')
    const part = leaves.slice(from * 32, (from + count) * 32)
    arena.post({ type: 'download', id, hash, fd, size: content.length, from, count, leaves: part, urgent: false })
    open.push(arena.inbox.take('downloaded', done => done.id === id))
    if (open.length >= 4) await open.shift()
  }
  await Promise.all(open)
}

type Wire<Type> = { header: Extract<ArenaWireMessage, { type: Type }>; payload?: Uint8Array }

function wireOf<Type extends ArenaWireMessage['type']>(arena: Arena, type: Type): Promise<Wire<Type>> {
  return arena.inbox.take('wire', message => message.header.type === type) as unknown as Promise<Wire<Type>>
}

function lengths(header: number, payload: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32BE(header, 0)
  bytes.writeUInt32BE(payload, 4)
  return bytes
}

function sha(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
