/** What was renamed is said by what it was: short where the reader knows that very version, in full where it does not, and always the same. */
import test from 'ava'
import { inFull, shortened } from '../../actors/arena/moved-entries.ts'
import type { Entry } from '../../actors/arena/store.ts'
import { toWire } from '../../actors/arena/wire-entry.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { type ArenaWireMessage, wire } from '../../protocol/wire.ts'
import { assertAgree, connect, disconnect, makePair, type Peer, settle, type World } from './_pair.ts'

const FILES = 12

function fill(a: Peer): void {
  a.mkdir('from')
  for (let file = 0; file < FILES; file++) a.write(`from/${file}`, `content ${file}`)
}

function feeds(world: World, from: Peer): Extract<ArenaWireMessage, { type: 'feed' }>[] {
  return world.delivered.flatMap(({ from: sender, header }) =>
    sender === from && header.type === 'feed' ? [header] : [],
  )
}

/** What a says of the rename of its folder, with what b knew before. */
function renamed(): { said: Entry[]; before: Map<EntryPath, Entry>; world: World; a: Peer; b: Peer } {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  const before = new Map(b.store.page(null, 1000, null).map(entry => [entry.path, entry]))
  const { seq } = a.store.state()
  disconnect(a, b)
  a.rename('from', 'to')
  settle(world)
  return { said: a.store.feed(seq, 1000), before, world, a, b }
}

test('short or in full, the same is understood', t => {
  const { said, before } = renamed()
  const full = said.map(toWire)
  const short = shortened(said, full)
  t.is(short.filter(({ moved }) => moved !== undefined).length, FILES)
  t.is(short.filter(({ type, deleted }) => type === 'gone' && deleted === undefined).length, FILES + 1)
  t.deepEqual(
    inFull(short, path => before.get(path)),
    full,
  )
  t.is(
    inFull(full, () => undefined),
    full,
  )
})

test('what was taken already, or is taken twice, is understood again', t => {
  const { said, world, a, b } = renamed()
  const full = said.map(toWire)
  connect(a, b)
  settle(world)
  t.deepEqual(
    inFull(shortened(said, full), path => b.store.entry(path)),
    full,
  )
})

test('a version that is not known, or has another content here, is not guessed', t => {
  const { said, before } = renamed()
  const short = shortened(said, said.map(toWire))
  const path = 'from/3' as EntryPath
  const entry = before.get(path) as Entry
  const { known } = entry
  if (known.content.type !== 'file') return t.fail()
  const others: (Entry | undefined)[] = [
    undefined,
    {
      ...entry,
      known: { ...known, vector: known.vector.map(([replica, count]) => [replica, count + 1] as const) },
      have: null,
    },
    { ...entry, known: { ...known, content: { ...known.content, mtimeNs: 1n } }, have: null },
    { ...entry, known: { ...known, content: { ...known.content, exec: true } }, have: null },
    { ...entry, known: { ...known, content: { type: 'dir' } }, have: null },
  ]
  for (const other of others)
    t.is(
      inFull(short, one => (one === path ? other : before.get(one))),
      null,
    )
  // What this disk shows still is as good.
  const newer: Entry = { ...entry, known: { ...known, content: { type: 'gone', deleted: null } }, have: known }
  t.truthy(inFull(short, one => (one === path ? newer : before.get(one))))
})

test('a rename goes over the wire without hashes, to a peer that takes that', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  const before = feeds(world, a).length
  a.rename('from', 'to')
  settle(world)
  const entries = feeds(world, a)
    .slice(before)
    .flatMap(({ entries }) => entries)
  t.is(entries.filter(({ moved }) => moved !== undefined).length, FILES)
  t.false(entries.some(({ hash, deleted }) => hash !== undefined || deleted !== undefined))
  t.deepEqual(b.tree(), a.tree())
  assertAgree(t, world)
})

test('a peer that does not take it hears of a rename in full', t => {
  const { world, a, b } = makePair()
  disconnect(a, b)
  world.tamper = message => {
    if (message.type === 'send' && message.header.type === 'arena_open') delete message.header.moves
  }
  connect(a, b)
  fill(a)
  settle(world)
  a.rename('from', 'to')
  settle(world)
  t.false(feeds(world, a).some(({ entries }) => entries.some(({ moved }) => moved !== undefined)))
  t.deepEqual(b.tree(), a.tree())
  assertAgree(t, world)
})

test('who does not know what is named asks once, and gets all of it in full', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  const asked = () =>
    world.delivered.filter(({ from, header }) => from === b && header.type === 'arena_open' && header.moves !== true)
      .length
  disconnect(a, b)
  // Each knows an edit of the other's file that the other one does not, and many batches are on their way.
  for (let file = 0; file < FILES; file++) b.write(`from/${file}`, `edit ${file}`)
  settle(world)
  for (let more = 0; more < 3_000; more++) a.disk.writeFile(`from/more-${more}`, new Uint8Array(Buffer.from(`${more}`)))
  a.touch('from', ...Array.from({ length: 3_000 }, (_, more) => `from/more-${more}`))
  settle(world)
  a.rename('from', 'to')
  settle(world)
  connect(a, b)
  settle(world)
  t.is(asked(), 1)
  assertAgree(t, world)
  for (let file = 0; file < FILES; file++) t.true(a.contents().has(`edit ${file}`))
  t.is(b.read('to/more-2999'), '2999')
})

test('a peer that goes on naming what is not known here breaks the protocol', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  world.tamper = message => {
    if (message.type !== 'send' || message.header.type !== 'feed') return
    for (const entry of message.header.entries) {
      if (entry.type !== 'file') continue
      for (const field of ['hash', 'size', 'mtime', 'exec'] as const) delete entry[field]
      entry.moved = { path: 'nowhere' as EntryPath, vector: entry.vector, tag: '00000000' }
    }
  }
  a.rename('from', 'to')
  settle(world)
  // A few can have been on their way; then it is a breach.
  t.deepEqual(b.refusals, [])
  const again = () => b.arena.fromPeer(a.id, { type: 'wire', header: feeds(world, a).at(-1) as ArenaWireMessage })
  again()
  const error = t.throws(() => {
    for (let times = 0; times < 1_000; times++) again()
  })
  t.like(error, { code: 'message_invalid' })
  t.true(b.has('from/1'))
})

test('names that are no path are refused where they are named', t => {
  const { said, before } = renamed()
  const short = shortened(said, said.map(toWire))
  for (const path of ['../x', '/x', 'a//b', '.realize/x'] as EntryPath[]) {
    const spoilt = short.map(entry => (entry.moved ? { ...entry, moved: { ...entry.moved, path } } : entry))
    t.throws(() => inFull(spoilt, one => before.get(one)), { code: 'path_invalid' })
  }
  t.throws(() => wire.parse({ type: 'feed', entries: [{ ...short[1], moved: { path: 'x', vector: [], tag: 'x' } }] }))
})
