/** Reading what is not real here: which leaves are fetched of whom, what becomes of readers when peers go, and what is read again. */
import { closeSync, openSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type Blob, Cache } from '../../actors/arena/cache.ts'
import { openCacheFiles } from '../../actors/arena/cache-files-posix.ts'
import { type ArenaContext, Timers } from '../../actors/arena/context.ts'
import { isReadId, type PlacedOutcome, type ReadOutcome, Reads } from '../../actors/arena/reads.ts'
import { MemoryTables } from '../../actors/arena/tables-memory.ts'
import { groupNodes, hashLeaves, hashSmall, rootOf, zeroLeafHash } from '../../actors/hasher/merkle.ts'
import type { ArenaName, PeerId } from '../../protocol/ids.ts'
import { GROUP_LEAVES, LEAF_BYTES } from '../../protocol/limits.ts'
import type { ArenaWireMessage } from '../../protocol/wire.ts'
import { temporaryFolder } from '../_temp.ts'
import { connect, deliverOne, disconnect, makeHousehold, type Peer, pass, settle, turn, type World } from './_pair.ts'

/** Content that differs everywhere. */
function contentOf(size: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size)
  let state = seed
  for (let at = 0; at < size; at++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    bytes[at] = state >>> 16
  }
  return bytes
}

function blobOf(bytes: Uint8Array): Blob {
  return { hash: rootOf(bytes.length, hashLeaves(bytes)), size: bytes.length }
}

/** What `deepEqual` says of megabytes takes minutes. */
function same(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && Buffer.compare(a, b) === 0
}

/** The last peer knows of all files and has none of them; all others do. */
function makeFar(others: number): { world: World; peers: Peer[]; reader: Peer } {
  const { world, peers } = makeHousehold(others + 1)
  const reader = peers.at(-1) as Peer
  reader.configure({ mark: 'unreal' })
  settle(world)
  return { world, peers: peers.slice(0, -1), reader }
}

function until(world: World, holds: () => boolean): void {
  for (let turns = 0; !holds(); turns++) {
    if (turns > 100_000) throw new Error('it never comes to that')
    if (!turn(world)) world.nowMs += 1
  }
}

/** Begins a read; what came of it, once something has. */
function begin(reader: Peer, blob: Blob, offset: number, length: number, ahead = 0): () => ReadOutcome | null {
  let result: ReadOutcome | null = null
  reader.arena.read(blob, offset, length, outcome => (result = outcome), { ahead })
  return () => result
}

function bytesOf(outcome: ReadOutcome | null): Uint8Array {
  if (outcome === null) throw new Error('it has not been answered')
  if ('failure' in outcome) throw new Error(outcome.failure.message)
  return outcome.bytes
}

function readNow(world: World, reader: Peer, blob: Blob, offset: number, length: number, ahead = 0): Uint8Array {
  const outcome = begin(reader, blob, offset, length, ahead)
  until(world, () => outcome() !== null)
  return bytesOf(outcome())
}

function asked(world: World, since: number, reader: Peer): ArenaWireMessage[] {
  return world.delivered
    .slice(since)
    .filter(({ from, header }) => from === reader && header.type.startsWith('fetch_'))
    .map(({ header }) => header)
}

function failureOf(t: ExecutionContext, outcome: ReadOutcome | null): string {
  if (outcome === null || !('failure' in outcome)) {
    t.fail('it has not failed')
    return ''
  }
  return outcome.failure.code
}

test('a part in the middle costs the leaf that it lies in and the hashes, and the second time nothing', t => {
  const { world, peers, reader } = makeFar(1)
  const content = contentOf(20 * LEAF_BYTES + 77)
  const blob = blobOf(content)
  peers[0]?.write('film.far', content)
  settle(world)
  t.is(reader.entry('film.far')?.have, null)
  const before = world.delivered.length
  const offset = 7 * LEAF_BYTES + 1000
  t.true(same(readNow(world, reader, blob, offset, 50), content.slice(offset, offset + 50)))
  t.deepEqual(
    asked(world, before, reader).map(header => [
      header.type,
      header.type === 'fetch_leaves' ? [header.from, header.count] : null,
    ]),
    [
      ['fetch_tree', null],
      ['fetch_leaves', [7, 1]],
    ],
  )
  const after = world.delivered.length
  t.true(same(readNow(world, reader, blob, 7 * LEAF_BYTES, LEAF_BYTES), content.slice(7 * LEAF_BYTES, 8 * LEAF_BYTES)))
  t.is(asked(world, after, reader).length, 0)
  t.is(reader.cache.bytes, LEAF_BYTES)
  t.like(reader.run('ls'), { entries: { 0: { path: 'film.far', mark: 'unreal', here: LEAF_BYTES } } })
})

test('hashes and content are asked for together: one round trip to the first byte', t => {
  const { world, peers, reader } = makeFar(1)
  const content = contentOf(3 * LEAF_BYTES)
  peers[0]?.write('a.far', content)
  settle(world)
  const link = world.links.find(({ from }) => from === reader)
  begin(reader, blobOf(content), 0, 10)
  t.deepEqual(
    link?.queue.map(message => message.type === 'send' && message.header.type),
    ['fetch_tree', 'fetch_leaves'],
  )
  settle(world)
})

test('what was cached is read again after a restart with nobody there, held against its hash', t => {
  const { world, peers, reader } = makeFar(1)
  const content = contentOf(5 * LEAF_BYTES)
  const blob = blobOf(content)
  peers[0]?.write('a.far', content)
  settle(world)
  readNow(world, reader, blob, 0, 2 * LEAF_BYTES)
  pass(world, 2_000)
  disconnect(reader, peers[0] as Peer)
  reader.restart()
  t.true(same(readNow(world, reader, blob, 10, 2 * LEAF_BYTES - 10), content.slice(10, 2 * LEAF_BYTES)))
  const missing = begin(reader, blob, 2 * LEAF_BYTES, 1)
  t.is(failureOf(t, missing()), 'unreachable')
})

test('cached content that has changed on the disk is fetched again, not read', t => {
  const { world, peers, reader } = makeFar(1)
  const content = contentOf(2 * LEAF_BYTES)
  const blob = blobOf(content)
  peers[0]?.write('a.far', content)
  settle(world)
  readNow(world, reader, blob, 0, content.length)
  pass(world, 2_000)
  const file = reader.cacheFiles.files.get(blob.hash) as Uint8Array
  file.fill(0, 0, 100)
  reader.restart()
  settle(world)
  t.true(same(readNow(world, reader, blob, 0, content.length), content))
  t.true(same(reader.cacheFiles.files.get(blob.hash), content))
})

test('a peer that goes in the middle of a read is replaced by another', t => {
  const { world, peers, reader } = makeFar(2)
  const content = contentOf(30 * LEAF_BYTES)
  const [a, b] = peers as [Peer, Peer]
  a.write('a.far', content)
  settle(world)
  t.true(b.has('a.far'))
  const outcome = begin(reader, blobOf(content), 0, 8 * LEAF_BYTES)
  const source = world.links.find(({ from, queue }) => from === reader && queue.length > 0)?.to as Peer
  disconnect(reader, source)
  until(world, () => outcome() !== null)
  t.true(same(bytesOf(outcome()), content.slice(0, 8 * LEAF_BYTES)))
})

test('a peer that does not have it is replaced by another, and one that does not answer as well', t => {
  const { world, peers, reader } = makeFar(2)
  const [a, b] = peers as [Peer, Peer]
  b.configure({ mark: 'unreal' })
  const content = contentOf(2 * LEAF_BYTES)
  a.write('a.far', content)
  settle(world)
  t.false(b.has('a.far'))
  t.true(same(readNow(world, reader, blobOf(content), 0, content.length), content))
  const other = contentOf(2 * LEAF_BYTES, 9)
  b.configure({ mark: 'real' })
  a.write('b.far', other)
  settle(world)
  t.true(b.has('b.far'))
  // Whoever is asked first keeps silent.
  const outcome = begin(reader, blobOf(other), 0, 10)
  const silent = world.links.find(({ from, queue }) => from === reader && queue.length > 0)
  if (silent) silent.queue.length = 0
  const startMs = world.nowMs
  until(world, () => outcome() !== null)
  t.true(same(bytesOf(outcome()), other.slice(0, 10)))
  t.true(world.nowMs - startMs < 5_000)
})

test('nobody has it: said when all have been asked twice, then as soon as they have been asked, and at once without a peer', t => {
  const { world, peers, reader } = makeFar(2)
  const nowhere = blobOf(contentOf(2 * LEAF_BYTES, 5))
  const outcome = begin(reader, nowhere, 0, 10)
  const startMs = world.nowMs
  until(world, () => outcome() !== null)
  t.is(failureOf(t, outcome()), 'unreachable')
  const tookMs = world.nowMs - startMs
  t.true(tookMs >= 300 && tookMs < 500, `${tookMs} ms`)
  const second = begin(reader, nowhere, 0, 10)
  const againMs = world.nowMs
  until(world, () => second() !== null)
  t.is(failureOf(t, second()), 'unreachable')
  t.true(world.nowMs - againMs < 100)
  for (const peer of peers) disconnect(reader, peer)
  t.is(failureOf(t, begin(reader, nowhere, 0, 10)()), 'unreachable')
  connect(reader, peers[0] as Peer)
  settle(world)
})

test('readers fail when the last peer goes, and read again when it is back', t => {
  const { world, peers, reader } = makeFar(1)
  const [a] = peers as [Peer]
  const content = contentOf(4 * LEAF_BYTES)
  const blob = blobOf(content)
  a.write('a.far', content)
  settle(world)
  const outcome = begin(reader, blob, 0, 10)
  disconnect(reader, a)
  t.is(failureOf(t, outcome()), 'unreachable')
  connect(reader, a)
  settle(world)
  t.true(same(readNow(world, reader, blob, 0, 10), content.slice(0, 10)))
})

test('content that does not fit its hash is never given to a reader', t => {
  const { world, peers, reader } = makeFar(2)
  const content = contentOf(3 * LEAF_BYTES)
  const [a] = peers as [Peer]
  a.write('a.far', content)
  settle(world)
  const outcome = begin(reader, blobOf(content), 0, content.length)
  const liar = world.links.find(({ from, queue }) => from === reader && queue.length > 0)?.to as Peer
  let lies = 0
  world.tamper = message => {
    if (message.type !== 'upload' || lies > 0) return
    lies++
    liar.disk.close(message.fd)
    message.fd = liar.disk.openApart(content.map((byte, at) => (at === 5 ? byte ^ 1 : byte)))
  }
  until(world, () => outcome() !== null)
  t.true(same(bytesOf(outcome()), content))
  t.true(reader.logged.includes('blob_invalid'))
})

test('who reads on gets the next leaves in advance, in growing steps', t => {
  const { world, peers, reader } = makeFar(1)
  const content = contentOf(64 * LEAF_BYTES)
  const blob = blobOf(content)
  peers[0]?.write('a.far', content)
  settle(world)
  const read = (offset: number) => {
    let outcome: ReadOutcome | null = null
    reader.arena.read(blob, offset, LEAF_BYTES, result => (outcome = result))
    until(world, () => outcome !== null)
    settle(world)
    return bytesOf(outcome)
  }
  const had: number[] = []
  for (let leaf = 0; leaf < 6; leaf++) {
    t.true(same(read(leaf * LEAF_BYTES), content.slice(leaf * LEAF_BYTES, (leaf + 1) * LEAF_BYTES)))
    had.push(reader.cache.bytes / LEAF_BYTES)
  }
  t.deepEqual(had, [1, 4, 7, 12, 21, 38])
})

test('a peer that has cached a part serves that part, and its hashes only once it has all of it', t => {
  const { world, peers, reader } = makeFar(2)
  const [a, b] = peers as [Peer, Peer]
  b.configure({ mark: 'unreal' })
  const content = contentOf(10 * LEAF_BYTES)
  const blob = blobOf(content)
  a.write('a.far', content)
  settle(world)
  readNow(world, b, blob, 2 * LEAF_BYTES, 3 * LEAF_BYTES)
  disconnect(reader, a)
  // Hashes are a proof of having the content: who has a part gives none, and leaves without hashes are nothing.
  const before = world.delivered.length
  const part = begin(reader, blob, 2 * LEAF_BYTES, LEAF_BYTES)
  until(world, () => part() !== null)
  t.is(failureOf(t, part()), 'unreachable')
  const answers = () => world.delivered.slice(before).filter(({ from, to }) => from === b && to === reader)
  t.deepEqual(
    answers().flatMap(({ header }) => (header.type === 'tree' ? [header] : [])),
    [],
  )
  // With the hashes of somebody else its leaves are as good as any.
  connect(reader, a)
  settle(world)
  readNow(world, reader, blob, 9 * LEAF_BYTES, 1)
  disconnect(reader, a)
  const wanted = content.slice(3 * LEAF_BYTES, 4 * LEAF_BYTES)
  t.true(same(readNow(world, reader, blob, 3 * LEAF_BYTES, LEAF_BYTES), wanted))
  const more = begin(reader, blob, 4 * LEAF_BYTES, 3 * LEAF_BYTES)
  until(world, () => more() !== null)
  t.is(failureOf(t, more()), 'unreachable')
  // Whoever has all of it cached is a source like any other.
  readNow(world, b, blob, 0, content.length)
  disconnect(b, a)
  reader.cache.drop(blob.hash)
  reader.restart()
  settle(world)
  t.true(same(readNow(world, reader, blob, 0, content.length), content))
  t.true(answers().some(({ header }) => header.type === 'tree'))
})

test('a small file is one leaf, and an empty one nothing at all', t => {
  const { world, peers, reader } = makeFar(1)
  const text = new Uint8Array(Buffer.from('hello'))
  peers[0]?.write('a.far', text)
  settle(world)
  t.is(Buffer.from(readNow(world, reader, { hash: hashSmall(text), size: 5 }, 1, 100)).toString(), 'ello')
  const empty = { hash: hashSmall(new Uint8Array(0)), size: 0 }
  t.is(bytesOf(begin(reader, empty, 0, 10)()).length, 0)
})

test('without room in the cache it is read all the same, and read ahead', t => {
  const { world, peers, reader } = makeFar(1)
  reader.configure({ cache: { path: '/memory-cache', max: { bytes: 0 }, leave: { bytes: 0 } } })
  const content = contentOf(6 * LEAF_BYTES)
  const blob = blobOf(content)
  peers[0]?.write('a.far', content)
  settle(world)
  t.true(same(readNow(world, reader, blob, 0, LEAF_BYTES, 2 * LEAF_BYTES), content.slice(0, LEAF_BYTES)))
  settle(world)
  const before = world.delivered.length
  t.true(same(readNow(world, reader, blob, LEAF_BYTES, 100), content.slice(LEAF_BYTES, LEAF_BYTES + 100)))
  t.is(asked(world, before, reader).length, 0)
  t.is(reader.cache.bytes, 0)
})

test('a read that is given up is not answered', t => {
  const { world, peers, reader } = makeFar(1)
  const content = contentOf(2 * LEAF_BYTES)
  peers[0]?.write('a.far', content)
  settle(world)
  let answered = false
  const cancel = reader.arena.read(blobOf(content), 0, 10, () => (answered = true))
  cancel()
  settle(world)
  t.false(answered)
})

test('all that is not real below a folder is cached wholly by fetch, and is real for whoever reads it with nobody there', t => {
  const { world, peers, reader } = makeFar(1)
  const [a] = peers as [Peer]
  a.mkdir('folder')
  const big = contentOf(100 * LEAF_BYTES + 5)
  a.write('folder/big.far', big)
  for (let n = 0; n < 50; n++) a.write(`folder/${n}.far`, contentOf(100 + n, n))
  a.write('outside.far', contentOf(10, 99))
  settle(world)
  const outcome = reader.ask('fetch', { path: 'folder' })
  until(world, () => outcome() !== undefined)
  const bytes = big.length + Array.from({ length: 50 }, (_, n) => 100 + n).reduce((sum, size) => sum + size, 0)
  t.deepEqual(outcome(), { files: 51, bytes, problems: [], problemCount: 0 })
  t.is(reader.state.cachedBytes, bytes)
  disconnect(reader, a)
  t.true(same(readNow(world, reader, blobOf(big), 0, big.length), big))
  t.is(failureOf(t, begin(reader, blobOf(contentOf(10, 99)), 0, 1)()), 'unreachable')
})

test('small files travel together when they are fetched, from all who have them; who lacks one or gives something else is replaced', t => {
  const { world, peers, reader } = makeFar(2)
  const [a, b] = peers as [Peer, Peer]
  const contents = Array.from({ length: 3000 }, (_, n) => contentOf(1 + (n % 3000), n))
  const bytes = contents.reduce((sum, content) => sum + content.length, 0)
  for (const [n, content] of contents.entries()) a.write(`${n}.far`, content)
  settle(world)
  let lies = 0
  world.tamper = message => {
    if (message.type !== 'send' || message.header.type !== 'pack' || lies++ > 0) return
    message.header.sizes[0] = -1
    message.payload?.fill(0)
  }
  const before = world.delivered.length
  const outcome = reader.ask('fetch', {})
  until(world, () => outcome() !== undefined)
  t.deepEqual(outcome(), { files: contents.length, bytes, problems: [], problemCount: 0 })
  t.is(reader.state.cachedBytes, bytes)
  t.true(reader.logged.includes('blob_invalid'))
  const requests = asked(world, before, reader)
  t.deepEqual([...new Set(requests.map(({ type }) => type))], ['fetch_blobs'])
  t.true(requests.length < 20, `${requests.length} requests`)
  const from = world.delivered.slice(before).filter(({ header }) => header.type === 'pack')
  for (const peer of [a, b]) t.true(from.some(pack => pack.from === peer))
  for (const peer of peers) disconnect(reader, peer)
  const content = contents[2999] as Uint8Array
  t.true(same(readNow(world, reader, blobOf(content), 0, content.length), content))
})

test('who reads a small file that is to come in a pack does not wait for the pack', t => {
  const { world, peers, reader } = makeFar(1)
  const [a] = peers as [Peer]
  for (let n = 0; n < 50; n++) a.write(`${n}.far`, contentOf(1000 + n, n))
  settle(world)
  const fetched = reader.ask('fetch', {})
  until(world, () => world.links.some(({ from, queue }) => from === reader && queue.length > 0))
  const before = world.delivered.length
  const content = contentOf(1007, 7)
  const outcome = begin(reader, blobOf(content), 0, content.length)
  until(world, () => outcome() !== null)
  t.true(same(bytesOf(outcome()), content))
  until(world, () => fetched() !== undefined)
  t.like(fetched(), { files: 50, problemCount: 0 })
  t.deepEqual(
    asked(world, before, reader).map(header => [header.type, 'urgent' in header && header.urgent]),
    [
      ['fetch_blobs', false],
      ['fetch_leaves', true],
    ],
  )
})

test('a pack that is not answered is asked of another, and who goes in the middle of one is replaced', t => {
  const { world, peers, reader } = makeFar(2)
  const [a, b] = peers as [Peer, Peer]
  for (let n = 0; n < 100; n++) a.write(`${n}.far`, contentOf(1000 + n, n))
  settle(world)
  const first = reader.ask('fetch', {})
  until(world, () => world.links.some(({ from, queue }) => from === reader && queue.length > 0))
  disconnect(reader, a)
  until(world, () => first() !== undefined)
  t.like(first(), { files: 100, problemCount: 0 })
  connect(reader, a)
  for (let n = 0; n < 100; n++) a.write(`more-${n}.far`, contentOf(1000 + n, 1000 + n))
  settle(world)
  world.tamper = message => {
    // Said to nobody.
    if (message.type === 'send' && message.header.type === 'fetch_blobs') message.header.id += 1_000_000
  }
  const second = reader.ask('fetch', {})
  until(world, () => world.links.some(({ from, queue }) => from === reader && queue.length > 0))
  pass(world, 1000)
  world.tamper = null
  t.is(second(), undefined)
  until(world, () => second() !== undefined)
  t.like(second(), { files: 200, problemCount: 0 })
  t.is(b.state.problems.length, 0)
})

test('fetch says what nobody gives', t => {
  const { world, peers, reader } = makeFar(1)
  const [a] = peers as [Peer]
  a.write('a.far', 'some')
  settle(world)
  disconnect(reader, a)
  const outcome = reader.ask('fetch', {})
  until(world, () => outcome() !== undefined)
  t.like(outcome(), { files: 1, problemCount: 1, problems: { 0: { path: 'a.far' } } })
})

test('an urgent answer does not wait behind what was asked before', t => {
  const { world, peers, reader } = makeFar(1)
  const [a] = peers as [Peer]
  const content = contentOf(3 * LEAF_BYTES)
  a.write('a.far', content)
  settle(world)
  begin(reader, blobOf(content), 0, 10)
  const link = world.links.find(({ from }) => from === reader)
  while (link && deliverOne(link));
  const back = world.links.find(({ from }) => from === a)
  t.deepEqual(
    back?.queue.map(message => [message.type, 'urgent' in message && message.urgent]),
    [
      ['send', true],
      ['upload', true],
    ],
  )
  settle(world)
})

test('what is pinned is wholly cached by itself, kept when others go, and follows its path', t => {
  const { world, peers, reader } = makeFar(1)
  const [a] = peers as [Peer]
  reader.configure({ cache: { path: '/memory-cache', max: { bytes: 8 * LEAF_BYTES }, leave: { bytes: 0 } } })
  a.mkdir('kept')
  const content = contentOf(3 * LEAF_BYTES + 1)
  a.write('kept/film', content)
  a.write('other', contentOf(4 * LEAF_BYTES, 2))
  settle(world)
  t.is(reader.cache.bytes, 0)
  reader.run('mark', { path: 'kept', mark: 'pinned' })
  settle(world)
  t.is(reader.cache.bytes, content.length)
  // Everything else has to make room, again and again.
  for (let seed = 3; seed < 6; seed++) {
    const more = contentOf(4 * LEAF_BYTES, seed)
    a.write(`more-${seed}`, more)
    settle(world)
    t.true(same(readNow(world, reader, blobOf(more), 0, more.length), more))
  }
  const edited = contentOf(3 * LEAF_BYTES, 7)
  a.write('kept/film', edited)
  settle(world)
  disconnect(reader, a)
  t.true(same(readNow(world, reader, blobOf(edited), 0, edited.length), edited))
})

test('what is pinned and cannot be had is told, and had when somebody comes who has it', t => {
  const { world, peers, reader } = makeFar(1)
  const [a] = peers as [Peer]
  a.write('file', 'content')
  settle(world)
  disconnect(reader, a)
  reader.run('mark', { path: 'file', mark: 'pinned' })
  settle(world)
  t.like(reader.state.problems[0], { path: 'file', note: true })
  connect(reader, a)
  settle(world)
  t.is(reader.cache.bytes, 7)
  t.deepEqual(reader.state.problems, [])
})

test('what is cached is not fetched again when it is to be real: small files, and the cached leaves of big ones', t => {
  const { world, peers, reader } = makeFar(1)
  const [a] = peers as [Peer]
  const big = contentOf(10 * LEAF_BYTES + 9)
  a.write('big', big)
  a.write('small', 'content')
  settle(world)
  readNow(world, reader, blobOf(big), 2 * LEAF_BYTES, 5 * LEAF_BYTES)
  const text = new Uint8Array(Buffer.from('content'))
  readNow(world, reader, blobOf(text), 0, 7)
  const before = world.delivered.length
  reader.configure({ mark: 'real' })
  settle(world)
  t.true(same(reader.disk.readFile('big'), big))
  t.is(reader.read('small'), 'content')
  const fetched = asked(world, before, reader)
  t.false(fetched.some(({ type }) => type === 'fetch_blobs'))
  let leaves = 0
  for (const header of fetched) if (header.type === 'fetch_leaves') leaves += header.count
  t.is(leaves, 6)
})

// Against peers whose answers the test gives

const HASH = 32
const FIRST = 'first' as PeerId
const SECOND = 'second' as PeerId

/** Reads alone; what is asked is collected. */
function alone(t: ExecutionContext) {
  const asked: { peer: PeerId; header: ArenaWireMessage & { id: number } }[] = []
  let nowMs = 0
  const cache = new Cache({
    tables: new MemoryTables(),
    files: openCacheFiles(join(temporaryFolder(t), 'cache')),
    limits: { max: { bytes: 1e12 }, leave: { bytes: 0 } },
    wallMs: () => nowMs,
    leavesOf: () => undefined,
  })
  const timers = new Timers()
  const context = {
    settings: { name: 'docs' as ArenaName },
    cache,
    timers,
    clock: { nowMs: () => nowMs, wallMs: () => nowMs },
    deliver(output: Parameters<ArenaContext['deliver']>[0]) {
      if (output.to !== 'peer' || output.message.type !== 'send') return
      const header = output.message.header as ArenaWireMessage & { id: number }
      asked.push({ peer: output.peer, header })
    },
  } as unknown as ArenaContext
  const reads = new Reads(context)
  const pass = (ms: number) => {
    nowMs += ms
    timers.ring(nowMs)
  }
  t.teardown(() => cache.dispose())
  return { reads, cache, asked, pass }
}

/** A sparse file of more than one group. */
const LEAVES = GROUP_LEAVES + 4
const HOLES: Blob & { tree: Uint8Array } = (() => {
  const tree = new Uint8Array(LEAVES * HASH)
  for (let leaf = 0; leaf < LEAVES; leaf++) tree.set(zeroLeafHash(), leaf * HASH)
  const size = LEAVES * LEAF_BYTES
  return { hash: rootOf(size, tree), size, tree }
})()

/** Answers one question as somebody who has all of it. */
function answer(reads: Reads, { peer, header }: { peer: PeerId; header: ArenaWireMessage & { id: number } }): void {
  if (header.type === 'fetch_tree') {
    const first = (header.group ?? 0) * GROUP_LEAVES * HASH
    const group = HOLES.tree.slice(first, first + GROUP_LEAVES * HASH)
    return reads.tree(peer, header.id, header.group === null ? groupNodes(HOLES.tree) : group)
  }
  if (header.type === 'fetch_leaves')
    reads.leaves(peer, header.id, header.from, header.count, new Uint8Array(header.count * LEAF_BYTES))
}

function shapeOf({ peer, header }: { peer: PeerId; header: ArenaWireMessage }): unknown[] {
  if (header.type === 'fetch_tree') return [peer, 'tree', header.group]
  return header.type === 'fetch_leaves' ? [peer, 'leaves', header.from, header.count] : [peer, header.type]
}

test('of a blob of several groups only the group that is read is asked for, in any order of answers', t => {
  for (const order of [
    [0, 1, 2],
    [2, 1, 0],
    [1, 2, 0],
  ]) {
    const { reads, asked } = alone(t)
    reads.peerOpened(FIRST)
    let outcome: ReadOutcome | null = null
    reads.read(HOLES, (LEAVES - 1) * LEAF_BYTES + 7, 100, result => (outcome = result))
    const first = asked.splice(0)
    t.deepEqual(first.map(shapeOf), [
      [FIRST, 'tree', null],
      [FIRST, 'tree', 1],
      [FIRST, 'leaves', LEAVES - 1, 1],
    ])
    t.true(first.every(({ header }) => isReadId(header.id)))
    for (const index of order) answer(reads, first[index] as (typeof first)[number])
    // A group that came before the groups were known is asked for again.
    for (let rounds = 0; outcome === null && rounds < 3; rounds++) for (const one of asked.splice(0)) answer(reads, one)
    t.is(bytesOf(outcome).length, 100)
    t.is(reads.outstanding, 0)
  }
})

/** Begins a read in place, and answers all that is asked for it. */
function placed(rig: ReturnType<typeof alone>, offset: number, length: number): PlacedOutcome | null {
  let outcome: PlacedOutcome | null = null
  rig.reads.place(HOLES, offset, length, result => (outcome = result))
  for (let next = rig.asked.shift(); next; next = rig.asked.shift()) answer(rig.reads, next)
  return outcome
}

test('who can read the cache’s files is told of the one with all that is wanted; nothing is moved', t => {
  const rig = alone(t)
  rig.reads.peerOpened(FIRST)
  const outcome = placed(rig, 3 * LEAF_BYTES + 5, 2 * LEAF_BYTES)
  if (outcome === null || !('cached' in outcome)) return t.fail('it is not told of a file')
  t.deepEqual(outcome.cached, rig.cache.where(HOLES))
  t.is(statSync(outcome.cached.path).size, 6 * LEAF_BYTES)
  for (const leaf of [3, 4, 5]) t.true(rig.cache.holds(HOLES, leaf))
  // At once, without a peer, and again as long as it is there.
  rig.reads.peerReset(FIRST)
  t.deepEqual(placed(rig, 4 * LEAF_BYTES, 10), outcome)
  rmSync(outcome.cached.path)
  t.like(placed(rig, 4 * LEAF_BYTES, 10), { failure: { code: 'unreachable' } })
})

test('the cache’s file that is taken away is fetched anew for who would read it', t => {
  const rig = alone(t)
  rig.reads.peerOpened(FIRST)
  const first = placed(rig, 0, LEAF_BYTES)
  if (first === null || !('cached' in first)) return t.fail('it is not told of a file')
  const kept = openSync(first.cached.path, 'r')
  t.teardown(() => closeSync(kept))
  rmSync(first.cached.path)
  const asked = rig.asked.length
  const again = placed(rig, 0, LEAF_BYTES)
  t.is(asked, 0)
  if (again === null || 'failure' in again) return t.fail('it is not read')
  // One way or the other: of the bytes, or of another file.
  if ('cached' in again) t.notDeepEqual(again, first)
  else t.true(same(again.bytes, new Uint8Array(LEAF_BYTES)))
  const last = placed(rig, 0, LEAF_BYTES)
  t.true(last !== null && 'cached' in last && last.cached.ino !== first.cached.ino)
})

test('without room in the cache who would read its files gets bytes, of leaves that were there and of those that were not', t => {
  const rig = alone(t)
  rig.reads.peerOpened(FIRST)
  t.true('cached' in (placed(rig, 0, 2 * LEAF_BYTES) ?? {}))
  rig.cache.setLimits({ max: { bytes: 2 * LEAF_BYTES }, leave: { bytes: 0 } })
  for (const [offset, length] of [
    [LEAF_BYTES + 5, 2 * LEAF_BYTES],
    [5 * LEAF_BYTES, 9 * LEAF_BYTES],
  ] as const) {
    const outcome = placed(rig, offset, length)
    if (outcome === null || !('bytes' in outcome)) return t.fail(`no bytes: ${JSON.stringify(outcome)}`)
    t.true(same(outcome.bytes, new Uint8Array(length)))
  }
  t.true(rig.cache.bytes <= 2 * LEAF_BYTES)
})

test('who refuses hashes is not asked for them again, and nothing is asked round and round', t => {
  const { reads, asked, pass } = alone(t)
  reads.peerOpened(FIRST)
  let outcome: ReadOutcome | null = null
  reads.read(HOLES, 0, 10, result => (outcome = result))
  let questions = 0
  for (let rounds = 0; rounds < 20; rounds++)
    for (const one of asked.splice(0)) {
      questions++
      if (one.header.type === 'fetch_tree') reads.failed(one.peer, one.header.id, 'leaf_missing')
      else answer(reads, one)
    }
  t.is(outcome, null)
  pass(300)
  for (let rounds = 0; rounds < 20; rounds++)
    for (const one of asked.splice(0)) {
      questions++
      if (one.header.type === 'fetch_tree') reads.failed(one.peer, one.header.id, 'leaf_missing')
      else answer(reads, one)
    }
  t.is(failureOf(t, outcome), 'unreachable')
  t.true(questions <= 8, `${questions} questions`)
})

test('of whom a run is asked who has only a part of it, is asked for each leaf by itself', t => {
  const { reads, asked } = alone(t)
  reads.peerOpened(FIRST)
  let outcome: ReadOutcome | null = null
  reads.read(HOLES, 0, 3 * LEAF_BYTES, result => (outcome = result))
  for (const one of asked.splice(0))
    if (one.header.type === 'fetch_tree') answer(reads, one)
    else reads.failed(one.peer, one.header.id, 'leaf_missing')
  t.deepEqual(
    asked.map(shapeOf),
    [0, 1, 2].map(leaf => [FIRST, 'leaves', leaf, 1]),
  )
  for (const one of asked.splice(0)) answer(reads, one)
  t.is(bytesOf(outcome).length, 3 * LEAF_BYTES)
})

test('who does not answer is not waited for: another is asked after two seconds, and without one it is given up', t => {
  const { reads, asked, pass } = alone(t)
  reads.peerOpened(FIRST)
  let first: ReadOutcome | null = null
  reads.read(HOLES, 0, 10, result => (first = result))
  const before = asked.splice(0)
  pass(1_999)
  reads.peerOpened(SECOND)
  t.deepEqual(asked, [])
  pass(1)
  t.true(asked.length > 0 && asked.every(({ peer }) => peer === SECOND))
  // The late one counts as well.
  for (const one of before) answer(reads, one)
  t.is(bytesOf(first).length, 10)
  asked.length = 0
  reads.peerReset(SECOND)
  let second: ReadOutcome | null = null
  reads.read(HOLES, 9 * LEAF_BYTES, 10, result => (second = result))
  pass(14_999)
  t.is(second, null)
  pass(1)
  t.is(failureOf(t, second), 'unreachable')
  // Nobody waits for it again before it has said a word.
  let third: ReadOutcome | null = null
  reads.read(HOLES, 20 * LEAF_BYTES, 10, result => (third = result))
  t.is(failureOf(t, third), 'unreachable')
  answer(reads, asked.find(({ header }) => header.type === 'fetch_leaves') as (typeof asked)[number])
  asked.length = 0
  reads.read(HOLES, 20 * LEAF_BYTES, 10, () => {}, { ahead: 0 })
  t.is(asked.length, 1)
})

test('readers beyond the limit are refused, and those beyond the room wait until others are done', t => {
  const { reads, asked } = alone(t)
  reads.peerOpened(FIRST)
  let done = 0
  const size = 32 * 1024 * 1024
  for (let n = 0; n < 3; n++) reads.read(HOLES, n * size, size, outcome => (done += bytesOf(outcome).length))
  const leaves = () => asked.flatMap(({ header }) => (header.type === 'fetch_leaves' ? [header.from] : []))
  t.true(Math.max(...leaves()) < (2 * size) / LEAF_BYTES)
  for (let rounds = 0; done < 3 * size && rounds < 1000; rounds++) for (const one of asked.splice(0)) answer(reads, one)
  t.is(done, 3 * size)
  let busy = 0
  const cancels = Array.from({ length: 4097 }, () =>
    reads.read(HOLES, 3000 * LEAF_BYTES, 1, outcome => {
      if ('failure' in outcome && outcome.failure.code === 'busy') busy++
    }),
  )
  t.is(busy, 1)
  for (const cancel of cancels) cancel()
  t.is(reads.outstanding, 0)
})
