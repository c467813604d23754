/** The feed with very many peers: what each of them says must not cost a transaction. What is said is tried in arena-pair.test.ts and the simulator. */
import test from 'ava'
import type { Cache } from '../../actors/arena/cache.ts'
import { type ArenaContext, type ArenaOutput, Problems, Timers } from '../../actors/arena/context.ts'
import type { Disk } from '../../actors/arena/disk.ts'
import { Feed } from '../../actors/arena/feed.ts'
import { Marks } from '../../actors/arena/marks.ts'
import { RecentContent } from '../../actors/arena/recent.ts'
import { RULES } from '../../actors/arena/rules.ts'
import { MemoryTables } from '../../actors/arena/tables-memory.ts'
import type { ArenaName, PeerId, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import type { ArenaSettings } from '../../protocol/ports.ts'
import { digest, hexNext, makeEntry, openOn, peerId } from './_store-entries.ts'
import { author, file, version } from './_versions.ts'

const ARENA = 'a' as ArenaName
const LETTERS = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZ']

class CountingTables extends MemoryTables {
  transactions = 0
  override transact(change: () => void): void {
    this.transactions++
    super.transact(change)
  }
}

function makeFeed() {
  const tables = new CountingTables()
  const store = openOn(tables)
  const said: ArenaOutput[] = []
  let nowMs = 0
  const settings: ArenaSettings = {
    name: ARENA,
    root: '/nowhere',
    storePath: '/nowhere',
    mark: 'real',
    cache: { path: '/nowhere', max: { bytes: 0 }, leave: { bytes: 0 } },
    author: author(0),
    peers: [],
    ignore: [],
    conflicts: 'keep-both',
    versions: { keepMs: 0, bytesMax: 0 },
    guardDeletes: 1,
    rescanMs: 1e9,
    paused: false,
  }
  const context: ArenaContext = {
    settings,
    store,
    // A feed touches no disk.
    disk: {} as Disk,
    cache: {} as Cache,
    clock: { nowMs: () => nowMs, wallMs: () => 0 },
    random: hexNext,
    deliver: output => void said.push(output),
    problems: new Problems(),
    timers: new Timers(),
    recent: new RecentContent(),
    marks: new Marks('real'),
    rules: RULES,
  }
  const events = { learnt() {}, sources() {}, peerChanged() {}, peerReady() {}, begunAfresh() {} }
  const feed = new Feed(context, digest, events, () => ({ scanning: false, pending: 0 }))
  const pass = (ms: number) => {
    nowMs += ms
    context.timers.ring(nowMs)
  }
  const tell = (peer: PeerId, theirs: ReplicaId) => {
    feed.opened(peer, 'peer')
    feed.arenaOpen(peer, {
      type: 'arena_open',
      arena: ARENA,
      replica: theirs,
      session: hexNext() as SessionToken,
      seq: 0,
      conflicts: 'keep-both',
      read: null,
      again: false,
      knows: null,
    })
  }
  return { tables, store, feed, said, pass, tell }
}

test('what many peers open and acknowledge at once is written down together', t => {
  const { tables, store, feed, said, pass, tell } = makeFeed()
  store.transact(writer => writer.putEntry(makeEntry('x', version(file('a'), { 1: 1 }, 1)), true))
  const before = tables.transactions
  const peers = LETTERS.map(peerId)
  for (const peer of peers) tell(peer, hexNext() as ReplicaId)
  t.is(
    said.filter(
      output => output.to === 'peer' && output.message.type === 'send' && output.message.header.type === 'feed',
    ).length,
    peers.length,
  )
  const { replica, seq } = store.state()
  for (const peer of peers)
    feed.feedAck(peer, { type: 'feed_ack', arena: ARENA, source: replica, received: seq, applied: seq, batch: true })
  t.is(tables.transactions, before)
  pass(100)
  t.is(tables.transactions, before + 1)
  for (const peer of peers) t.is(store.peer(peer)?.acknowledged?.seq, seq)
})

test('what a peer has acknowledged holds before it is written down', t => {
  const { store, feed, said, tell } = makeFeed()
  store.transact(writer => writer.putEntry(makeEntry('x', version(file('a'), { 1: 1 }, 1)), true))
  const peer = peerId('B')
  const theirs = hexNext() as ReplicaId
  tell(peer, theirs)
  const { replica, seq } = store.state()
  feed.feedAck(peer, { type: 'feed_ack', arena: ARENA, source: replica, received: seq, applied: seq, batch: true })
  // It asks for less than that at once: its store was rolled back.
  tell(peer, theirs)
  const last = said.filter(output => output.to === 'peer').at(-1)
  t.like(last, { message: { type: 'send', header: { type: 'rolled_back', replica: theirs } } })
})

test('a connection that ends has what was acknowledged on it written down', t => {
  const { store, feed, tell } = makeFeed()
  store.transact(writer => writer.putEntry(makeEntry('x', version(file('a'), { 1: 1 }, 1)), true))
  const peer = peerId('B')
  tell(peer, hexNext() as ReplicaId)
  const { replica, seq } = store.state()
  feed.feedAck(peer, { type: 'feed_ack', arena: ARENA, source: replica, received: seq, applied: seq, batch: true })
  feed.closed(peer)
  t.is(store.peer(peer)?.acknowledged?.seq, seq)
})
