/** Frames made smaller: what comes out is what went in, and a hostile one is refused before it takes memory. */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import test from 'ava'
import { deflateFrame, inflateFrame, LinkSpeed } from '../../actors/peer/deflate.ts'
import { encodeFrame, FRAME_LIMITS, FrameReader } from '../../protocol/frame.ts'
import type { ArenaName, Author, BlobHash, EntryPath, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import { DEFLATED_RATIO_MAX, LEAF_BYTES } from '../../protocol/limits.ts'
import type { ArenaWireMessage } from '../../protocol/wire.ts'
import { generateIdentity } from '../../supervisor/identity.ts'
import { openPair, Stranger, stopThreads, Thread } from './_threads.ts'

test.afterEach.always(stopThreads)

const text = Buffer.from(Array.from({ length: 20_000 }, (_, i) => `line ${i} of ${i * i}\n`).join(''))

const arena = 'docs' as ArenaName
const opening: ArenaWireMessage = {
  type: 'arena_open',
  arena,
  replica: '0'.repeat(16) as ReplicaId,
  session: '0'.repeat(16) as SessionToken,
  seq: 0,
  conflicts: 'keep-both',
  read: null,
  again: false,
  knows: null,
}

function read(parts: Uint8Array[]) {
  const reader = new FrameReader(FRAME_LIMITS)
  for (const part of parts) reader.push(part)
  return reader.next()!
}

test('a frame that shrinks comes out as it went in', t => {
  for (const payload of [text, undefined]) {
    const header = { type: 'any', words: payload ? [] : text.toString().split('\n') }
    const frame = encodeFrame(header, payload)
    const smaller = deflateFrame(frame)
    const size = (parts: Uint8Array[]) => parts.reduce((sum, part) => sum + part.length, 0)
    t.true(size(smaller) < size(frame) / 2, `${size(smaller)} of ${size(frame)}`)
    const outer = read(smaller)
    const { type, bytes } = outer.header as { type: string; bytes: number }
    t.is(type, 'deflated')
    const inner = inflateFrame(bytes, outer.payload)
    t.deepEqual(inner.header, header)
    t.deepEqual(inner.payload && Buffer.from(inner.payload), payload)
  }
})

test('what is small, does not shrink, or shrinks beyond belief is sent as it is', t => {
  for (const frame of [
    encodeFrame({ type: 'small' }),
    encodeFrame({ type: 'random' }, randomBytes(500_000)),
    encodeFrame({ type: 'zeros' }, new Uint8Array(1_000_000)),
  ])
    t.is(deflateFrame(frame), frame)
})

test('what was deflated is never more than it says, and no more than so many times of what came', t => {
  const inner = Buffer.concat(encodeFrame({ type: 'x' }, text))
  const deflated = deflateRawSync(inner)
  t.is(inflateFrame(inner.length, deflated).payload?.length, text.length)
  t.throws(() => inflateFrame(inner.length - 1, deflated), { code: 'frame_invalid' })
  t.throws(() => inflateFrame(inner.length + 1, deflated), { code: 'frame_invalid' })
  t.throws(() => inflateFrame(inner.length, randomBytes(5_000)), { code: 'frame_invalid' })
  t.throws(() => inflateFrame(1, undefined), { code: 'limit_exceeded' })
  const bomb = deflateRawSync(Buffer.alloc(4_000_000))
  t.throws(() => inflateFrame(4_000_000, bomb), { code: 'limit_exceeded' })
  t.throws(() => inflateFrame(bomb.length * DEFLATED_RATIO_MAX, bomb), { code: 'frame_invalid' })
  for (const other of [Buffer.concat([inner, inner]), inner.subarray(0, -1), Buffer.concat([inner, Buffer.alloc(3)])])
    t.throws(() => inflateFrame(other.length, deflateRawSync(other)), { code: 'frame_invalid' })
})

test('the way is slow under a limit, and where a full socket is emptied slowly', t => {
  const speed = new LinkSpeed()
  t.deepEqual(
    [0, 10_000_000, 500_000_000].map(rate => speed.isSlow(rate)),
    [false, true, false],
  )
  speed.full(1_000_000, 0)
  speed.emptied(10)
  t.false(speed.isSlow(0))
  speed.full(1_000_000, 100)
  speed.emptied(400)
  t.true(speed.isSlow(0))
  // Little that took long says nothing.
  speed.full(1_000, 1_000)
  speed.emptied(9_000)
  speed.full(1_000_000, 10_000)
  speed.emptied(10_010)
  t.false(speed.isSlow(0))
})

test.serial('under a limit content that shrinks takes a part of the bytes, and arrives', async t => {
  const { a, b } = await openPair()
  const folder = mkdtempSync(join(tmpdir(), 'realize-peer-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const content = Buffer.concat(Array.from({ length: 8 }, () => text)).subarray(0, 16 * LEAF_BYTES)
  b.send({ type: 'rate', connection: 1001, rate: { up: 8_000_000, down: 0 } })
  const [atA, atB] = [a.attach(1, 'docs'), b.attach(1001, 'docs')]
  const before = a.bytesDown
  for (const end of [atA, atB]) {
    // Each is sure that the other is there.
    end.post({ type: 'send', header: opening })
    await (end === atA ? atB : atA).inbox.take('wire', item => item.header.type === 'arena_open')
  }
  atA.post({ type: 'send', header: { type: 'fetch_blobs', arena, id: 1, hashes: ['00'.repeat(32) as BlobHash] } })
  await atB.inbox.take('wire', item => item.header.type === 'fetch_blobs')
  writeFileSync(join(folder, 'sent'), content)
  const payload = Uint8Array.from(readFileSync(join(folder, 'sent')))
  atB.post({ type: 'send', header: { type: 'pack', arena, id: 1, sizes: [payload.length] }, payload })
  const answer = await atA.inbox.take('wire', item => item.header.type === 'pack')
  t.true(Buffer.from(answer.payload ?? []).equals(content))
  await a.stop()
  t.true(a.bytesDown - before < content.length / 2, `${a.bytesDown - before} bytes for ${content.length}`)
})

test.serial('a batch of renames takes a part of the bytes on any way', async t => {
  const { a, b } = await openPair()
  const [atA, atB] = [a.attach(1, 'docs'), b.attach(1001, 'docs')]
  const before = a.bytesDown
  for (const end of [atA, atB]) {
    end.post({ type: 'send', header: opening })
    await (end === atA ? atB : atA).inbox.take('wire', item => item.header.type === 'arena_open')
  }
  const replica = '0123456789abcdef' as ReplicaId
  const common = { g: 1, author: 'AAAAAAA' as Author, has: true }
  const header: ArenaWireMessage = {
    type: 'feed',
    arena,
    source: replica,
    reader: replica,
    from: 0,
    to: 1_000,
    entries: Array.from({ length: 500 }, (_, file) => [
      {
        ...common,
        path: `to/${file}` as EntryPath,
        type: 'file' as const,
        vector: [[replica, 1_000 + 2 * file] as [ReplicaId, number]],
        moved: {
          path: `from/${file}` as EntryPath,
          vector: [[replica, 1 + file] as [ReplicaId, number]],
          tag: randomBytes(4).toString('hex'),
        },
      },
      {
        ...common,
        path: `from/${file}` as EntryPath,
        type: 'gone' as const,
        vector: [[replica, 1_001 + 2 * file] as [ReplicaId, number]],
      },
    ]).flat(),
  }
  atB.post({ type: 'send', header })
  const taken = await atA.inbox.take('wire', item => item.header.type === 'feed')
  t.deepEqual(taken.header, header)
  await a.stop()
  // Two entries a file.
  t.true(a.bytesDown - before < 500 * 60, `${a.bytesDown - before} bytes for 500 files`)
})

test.serial('deflated words that are no frame, or before their time, end the connection', async t => {
  const known = generateIdentity()
  const b = await Thread.start('b')
  const address = await b.listen([known])
  const bomb = deflateRawSync(Buffer.alloc(2_000_000))
  const nested = Buffer.concat(encodeFrame({ type: 'deflated', bytes: 20 }, randomBytes(20)))
  for (const [hello, bytes, payload, code] of [
    [true, 2_000_000, bomb, 'limit_exceeded'],
    [true, 100, randomBytes(50), 'frame_invalid'],
    [true, nested.length, deflateRawSync(nested), 'message_invalid'],
    [true, -1, randomBytes(50), 'message_invalid'],
    [false, 100, randomBytes(50), 'message_invalid'],
  ] as const) {
    const stranger = await Stranger.dial(address, known)
    await stranger.inbox.take('hello')
    if (hello) {
      stranger.hello()
      await b.reports.take('opened')
    }
    stranger.say({ type: 'deflated', bytes }, payload)
    t.is((await stranger.inbox.take('close')).code, code)
    await b.reports.take('closed')
  }
})
