/** Content leaves a disk: when another peer keeps it, never the last of it, and through anything that happens meanwhile. */
import test, { type ExecutionContext } from 'ava'
import type { EvictResult } from '../../protocol/control.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { LEASE_MS } from '../../protocol/limits.ts'
import type { ListedEntry } from '../../protocol/status.ts'
import type { ArenaWireMessage } from '../../protocol/wire.ts'
import {
  ARENA,
  connect,
  disconnect,
  Killed,
  makeHousehold,
  makePair,
  type Peer,
  pass,
  settle,
  turn,
  type World,
} from './_pair.ts'

function until(world: World, holds: () => boolean): void {
  for (let turns = 0; !holds(); turns++) {
    if (turns > 100_000) throw new Error('it never comes to that')
    if (turn(world)) continue
    const next = Math.min(...world.peers.filter(peer => peer.running).map(peer => peer.arena.wakeMs))
    world.nowMs = Math.max(world.nowMs, Math.min(next, world.nowMs + 1_000))
  }
}

function said(world: World, type: ArenaWireMessage['type']): number {
  return world.delivered.filter(({ header }) => header.type === type).length
}

function listed(peer: Peer, path: string): ListedEntry | undefined {
  return (peer.run('ls', { path }) as { entries: ListedEntry[] }).entries[0]
}

/** Nothing is left to be done, and each living file is shown by somebody. */
function assertSettled(t: ExecutionContext, world: World): void {
  settle(world)
  t.is(new Set(world.peers.map(peer => peer.state.root)).size, 1)
  for (const peer of world.peers) {
    t.deepEqual(peer.state.missing, [])
    t.deepEqual(peer.store.intents(), [])
    t.deepEqual(peer.store.leases(), [])
    t.deepEqual(peer.disk.stageList(), [])
    for (const entry of peer.store.page(null, 1000, null)) {
      if (entry.known.content.type !== 'file') continue
      t.true(
        world.peers.some(other => other.has(entry.path)),
        `nobody shows ${entry.path}`,
      )
    }
  }
}

test('a file drop: what is written here becomes real there, leaves this disk, and is listed on', t => {
  const { world, a, b } = makePair()
  a.configure({ mark: 'unreal' })
  a.mkdir('out')
  a.write('out/film', new Uint8Array(400_000).fill(3))
  a.write('out/text', 'text')
  settle(world, 100_000)
  t.deepEqual(a.tree(), { out: '/' })
  t.is(b.read('out/text'), 'text')
  t.like(listed(a, 'out/film'), { size: 400_000, here: 0, mark: 'unreal' })
  t.is(listed(a, 'out/film')?.problem, undefined)
  t.is(a.state.realBytes, 0)
  t.deepEqual(
    a.history
      .filter(event => event.action === 'unrealized')
      .map(event => event.path as string)
      .sort(),
    ['out/film', 'out/text'],
  )
  t.deepEqual(a.kept(), [], 'what was given up is no version')
  t.deepEqual(
    b.history.filter(event => event.action === 'removed' || event.action === 'deleted'),
    [],
  )
  assertSettled(t, world)
  a.restart()
  a.run('rescan')
  assertSettled(t, world)
  t.is(b.read('out/text'), 'text')
})

test('nothing is given up while no peer is there to keep it, and the reason can be read', t => {
  const { world, a, b } = makePair()
  disconnect(a, b)
  a.configure({ mark: 'unreal' })
  a.write('file', 'content')
  pass(world, 3 * LEASE_MS)
  t.is(a.read('file'), 'content')
  connect(a, b)
  settle(world, 100_000)
  t.false(a.has('file'))
  t.is(b.read('file'), 'content')
  assertSettled(t, world)
})

test('two that both want to be rid of a file: one of them keeps it, and says why', t => {
  const { world, a, b } = makePair()
  a.write('file', 'content')
  settle(world)
  a.configure({ mark: 'unreal' })
  b.configure({ mark: 'unreal' })
  pass(world, 10 * LEASE_MS)
  const holder = a.has('file') ? a : b
  t.is(holder.read('file'), 'content')
  t.false((holder === a ? b : a).has('file'))
  t.is(listed(holder, 'file')?.problem, 'to be given up: no other connected peer holds it')
  t.true(holder.state.problems.every(problem => problem.note))
  assertSettled(t, world)
})

test('evict says what became of each file, and what is wanted real stays', t => {
  const { world, a, b } = makePair()
  a.mkdir('films')
  a.write('films/one', 'one')
  a.write('films/two', 'two!')
  a.write('text', 'text')
  settle(world)
  pass(world, LEASE_MS)
  t.like(a.ask('evict', { path: 'text' })(), { files: 0, kept: 1 })
  a.run('mark', { path: 'films', mark: 'unreal' })
  const answer = a.ask('evict', {})
  t.is(answer(), undefined)
  until(world, () => answer() !== undefined)
  const { reasons, ...rest } = answer() as EvictResult
  t.deepEqual(rest, { files: 2, bytes: 7, cachedBytes: 0, kept: 1 })
  t.deepEqual(reasons as unknown, [{ path: 'text', reason: 'it is marked real: mark it unreal' }])
  t.deepEqual(a.tree(), { films: '/', text: 'text' })
  t.like(a.ask('evict', { path: 'films/one' })(), { files: 0, bytes: 0, kept: 0 })
  t.like(a.ask('evict', { path: 'nothing' })(), { code: 'not_found' })
  t.deepEqual(b.tree(), { films: '/', 'films/one': 'one', 'films/two': 'two!', text: 'text' })
  assertSettled(t, world)
})

test('ls says who has a file', t => {
  const { world, peers } = makeHousehold(3)
  const [a, b] = peers as [Peer, Peer]
  b.configure({ mark: 'unreal' })
  a.write('file', 'content')
  a.mkdir('folder')
  settle(world)
  const holders = (peer: Peer) => {
    const answer = peer.ask('ls', { holders: true })
    until(world, () => answer() !== undefined)
    return (answer() as { entries: ListedEntry[] }).entries.map(entry => entry.holders)
  }
  t.deepEqual(holders(a), [[{ name: 'C', held: 'real' }], undefined])
  t.deepEqual(holders(b), [
    [
      { name: 'A', held: 'real' },
      { name: 'C', held: 'real' },
    ],
    undefined,
  ])
  world.refuse = header => header.type === 'holds'
  t.deepEqual(holders(b), [[], undefined])
})

test('pinned content stays where it is', t => {
  const { world, a } = makePair()
  a.write('file', 'content')
  settle(world)
  a.configure({ mark: 'pinned' })
  pass(world, 5 * LEASE_MS)
  t.is(a.read('file'), 'content')
  t.is(said(world, 'lease'), 0)
  assertSettled(t, world)
})

test('nothing is given up while there is no consensus, and nothing that is open for writing or through a view', t => {
  const { world, peers } = makeHousehold(3)
  const [a, b, c] = peers as [Peer, Peer, Peer]
  for (const name of ['free', 'written', 'viewed']) a.write(name, name)
  settle(world)
  pass(world, LEASE_MS)
  const close = a.disk.holdForWriting('written')
  world.refuse = header => header.type === 'fetch_blobs'
  b.write('more', 'more')
  pass(world, 100)
  const view = a.arena.openView(() => {})
  const viewed = { file: a.disk.stat('viewed' as EntryPath)?.ino ?? 0n }
  view.receive({ type: 'opened', is: viewed })
  a.configure({ mark: 'unreal' })
  pass(world, 2 * LEASE_MS)
  t.is(c.state.consensus, false)
  t.deepEqual(Object.keys(a.tree()).sort(), ['free', 'viewed', 'written'])
  t.is(said(world, 'lease'), 0)
  world.refuse = null
  for (const other of [a, c]) {
    disconnect(other, b)
    connect(other, b)
  }
  pass(world, 5 * LEASE_MS)
  t.deepEqual(Object.keys(a.tree()).sort(), ['viewed', 'written'])
  t.regex(listed(a, 'written')?.problem ?? '', /open for writing/)
  t.regex(listed(a, 'viewed')?.problem ?? '', /it is open/)
  close()
  view.receive({ type: 'closed', is: viewed })
  a.configure({ mark: 'real' })
  a.configure({ mark: 'unreal' })
  settle(world, 100_000)
  t.deepEqual(a.tree(), {})
  assertSettled(t, world)
})

test('what a user does between the steps is kept', t => {
  for (const what of ['saves', 'deletes', 'renames', 'replaces'] as const) {
    for (const moment of ['leased', 'taken out'] as const) {
      const { world, a, b } = makePair()
      a.write('file', 'content')
      settle(world)
      pass(world, LEASE_MS)
      a.configure({ mark: 'unreal' })
      const leased = said(world, 'leased')
      if (moment === 'leased') until(world, () => said(world, 'leased') > leased || !a.has('file'))
      else until(world, () => !a.has('file'))
      if (what === 'saves' || (what === 'replaces' && !a.has('file'))) a.write('file', 'saved')
      else if (what === 'replaces') {
        a.write('temporary', 'saved')
        a.rename('temporary', 'file')
      } else if (a.has('file')) {
        if (what === 'deletes') a.remove('file')
        else a.rename('file', 'renamed')
      }
      settle(world, 100_000)
      const contents = new Set(world.peers.flatMap(peer => [...peer.contents()]))
      const title = `${what}, ${moment}: ${JSON.stringify([a.tree(), b.tree()])}`
      t.true(contents.has('content'), title)
      if (what === 'saves' || what === 'replaces') t.true(Object.values(b.tree()).includes('saved'), title)
      assertSettled(t, world)
    }
  }
})

test('what is wanted real again between the steps is real again', t => {
  for (const moment of ['leased', 'taken out', 'given up'] as const) {
    const { world, a, b } = makePair()
    a.write('file', 'content')
    settle(world)
    pass(world, LEASE_MS)
    a.configure({ mark: 'unreal' })
    const leased = said(world, 'leased')
    if (moment === 'leased') until(world, () => said(world, 'leased') > leased)
    else if (moment === 'taken out') until(world, () => !a.has('file'))
    else until(world, () => a.entry('file')?.have === null)
    a.configure({ mark: 'real' })
    settle(world)
    t.deepEqual(a.tree(), { file: 'content' }, moment)
    t.deepEqual(b.tree(), { file: 'content' }, moment)
    assertSettled(t, world)
  }
})

test('what others do between the steps is followed', t => {
  for (const what of ['edits', 'deletes', 'renames'] as const) {
    const { world, a, b } = makePair()
    a.write('file', 'content')
    settle(world)
    pass(world, LEASE_MS)
    a.configure({ mark: 'unreal' })
    const leased = said(world, 'leased')
    until(world, () => said(world, 'leased') > leased)
    if (what === 'edits') b.write('file', 'edited')
    else if (what === 'deletes') b.remove('file')
    else b.rename('file', 'renamed')
    settle(world, 100_000)
    t.deepEqual(b.tree(), what === 'edits' ? { file: 'edited' } : what === 'deletes' ? {} : { renamed: 'content' })
    t.deepEqual(a.tree(), {})
    assertSettled(t, world)
  }
})

test('killed at any moment, it has given the content up or shows it, and nothing is deleted', t => {
  let outcomes = ''
  for (let step = 1; ; step++) {
    const { world, a, b } = makePair()
    a.mkdir('folder')
    a.write('folder/file', 'content')
    settle(world)
    a.stop()
    a.settings = { ...a.settings, mark: 'unreal' }
    let died = false
    try {
      a.startDying(step)
      settle(world, 100_000)
    } catch (error) {
      if (!(error instanceof Killed)) throw error
      died = true
      a.restart()
    }
    if (!died) break
    outcomes += a.has('folder/file') ? 'h' : 'g'
    settle(world, 100_000)
    t.is(b.read('folder/file'), 'content', `step ${step}`)
    t.deepEqual(a.tree(), { folder: '/' }, `step ${step}`)
    t.is(a.state.realBytes, 0)
    assertSettled(t, world)
  }
  t.regex(outcomes, /^h{4,}g+$/)
})

test('a store that was put back from before content was given up takes nothing for deleted', t => {
  const { world, a, b } = makePair()
  a.write('one', 'one')
  a.write('two', 'two')
  settle(world)
  const backup = a.tables.snapshot()
  a.configure({ mark: 'unreal' })
  settle(world, 100_000)
  t.deepEqual(a.tree(), {})
  a.stop()
  a.tables = backup
  a.settings = { ...a.settings, mark: 'real' }
  a.start()
  settle(world, 100_000)
  t.deepEqual(b.tree(), { one: 'one', two: 'two' })
  t.deepEqual(a.tree(), b.tree(), 'what it has forgotten comes again')
  a.remove('one')
  settle(world, 100_000)
  t.deepEqual(b.tree(), { two: 'two' }, 'and what is deleted after that is deleted')
  assertSettled(t, world)
})

test('a peer that answers late, refuses, or has gone: the content stays', t => {
  for (const how of ['silent', 'refuses', 'gone'] as const) {
    const { world, a, b } = makePair()
    a.write('file', 'content')
    settle(world)
    pass(world, LEASE_MS)
    if (how === 'refuses') world.refuse = header => header.type === 'lease'
    a.configure({ mark: 'unreal' })
    if (how !== 'refuses')
      world.tamper = message => {
        if (message.type !== 'send' || message.header.type !== 'leased') return
        if (how === 'gone') disconnect(a, b)
        else message.header.id += 1_000_000
      }
    pass(world, 4 * LEASE_MS)
    t.is(a.read('file'), 'content', how)
    t.is(b.read('file'), 'content', how)
    world.refuse = null
    world.tamper = null
    connect(a, b)
    settle(world, 100_000)
    t.deepEqual(a.tree(), {}, how)
    assertSettled(t, world)
  }
})

test('who has promised to keep a file keeps what replaces it, too, until the promise is over', t => {
  const { world, a, b } = makePair({ versions: { keepMs: 0, bytesMax: 0 } })
  a.write('file', 'content')
  settle(world)
  const content = a.entry('file')?.known.content
  const hash = content?.type === 'file' ? content.hash : ''
  // As a peer that is about to give it up.
  const lease = { type: 'lease', arena: 'tree', id: 2 ** 49, files: [{ path: 'file', hash }] } as never
  b.arena.fromPeer(a.id, { type: 'wire', header: lease })
  a.write('file', 'other')
  settle(world, 400)
  t.is(b.read('file'), 'other')
  t.true([...b.contents()].includes('content'))
  pass(world, LEASE_MS + 3_600_000)
  t.false([...b.contents()].includes('content'))
})

test('what is ignored is neither given up nor promised', t => {
  const { world, a, b } = makePair()
  a.write('here', 'here')
  a.write('there', 'there')
  settle(world)
  a.configure({ ignore: ['here'], mark: 'unreal' })
  b.configure({ ignore: ['there'] })
  pass(world, 5 * LEASE_MS)
  t.deepEqual(a.tree(), { here: 'here', there: 'there' })
  t.regex(listed(a, 'there')?.problem ?? '', /no other connected peer holds it/)
  t.deepEqual(b.store.leases(), [])
})

test('a path that cannot be one is a breach, and what is not here is promised to nobody', t => {
  const { world, a, b } = makePair()
  a.write('file', 'content')
  settle(world)
  const content = a.entry('file')?.known.content
  const hash = content?.type === 'file' ? content.hash : ''
  const say = (type: 'lease' | 'lease_end', path: string, of = hash) => {
    const header = { type, arena: 'tree', id: 2 ** 49, files: [{ path, hash: of }] } as never
    b.arena.fromPeer(a.id, { type: 'wire', header })
  }
  for (const path of ['../file', '.realize/marker', 'ü'.repeat(1000), 'a\0b'])
    for (const type of ['lease', 'lease_end'] as const) t.throws(() => say(type, path), { code: 'path_invalid' })
  say('lease', 'nothing')
  say('lease', 'file', '0'.repeat(64))
  t.deepEqual(b.store.leases(), [])
  say('lease', 'file')
  t.like(b.store.leases(), [{ peer: a.id, path: 'file' as EntryPath }])
  say('lease_end', 'file')
  t.deepEqual(b.store.leases(), [])
})

test('a store that begins afresh has forgotten what it promised: it gives nothing up for a while', t => {
  const { world, a, b } = makePair()
  a.write('file', 'content')
  settle(world)
  const backup = a.tables.snapshot()
  a.write('other', 'other')
  settle(world)
  a.stop()
  a.tables = backup
  a.settings = { ...a.settings, mark: 'unreal' }
  a.start()
  disconnect(a, b)
  pass(world, LEASE_MS)
  connect(a, b)
  const freshMs = world.nowMs
  until(world, () => !a.has('file'))
  t.true(world.nowMs - freshMs >= LEASE_MS - 1_000, `${world.nowMs - freshMs}`)
  assertSettled(t, world)
})

test('a folder that is taken away while a file in it is given up is not made again, unless the file is out already', t => {
  for (const moment of ['takeOut', 'sync'] as const) {
    const { world, a, b } = makePair()
    a.mkdir('out')
    a.write('out/file', 'content')
    settle(world)
    let moved = false
    const made: string[] = []
    const takeAway = () => {
      if (moved) return
      moved = true
      if (moment === 'takeOut') a.disk.rename('out', 'other')
      else a.disk.remove('out')
      a.touch('out', 'other')
    }
    a.disk.fault = (operation, path) => {
      if (operation === 'takeOut' && moment === 'takeOut') takeAway()
      if (operation === 'makeFolder') made.push(path)
      return null
    }
    const sync = a.disk.sync.bind(a.disk)
    a.disk.sync = done => {
      if (moment === 'sync' && a.disk.stageList().length > 0) takeAway()
      sync(done)
    }
    a.configure({ mark: 'unreal' })
    pass(world, 4 * LEASE_MS)
    t.true(moved)
    if (moment === 'takeOut') {
      t.deepEqual(made, [])
      t.deepEqual(a.tree(), { other: '/' })
      t.deepEqual(b.tree(), { other: '/', 'other/file': 'content' })
    } else {
      t.deepEqual(a.tree(), { out: '/' })
      t.deepEqual(b.tree(), { out: '/', 'out/file': 'content' })
    }
    assertSettled(t, world)
  }
})

test('content that was given up and that nobody can give now is never taken for lost', t => {
  const { world, a, b } = makePair()
  a.write('file', 'content')
  settle(world)
  a.configure({ mark: 'unreal' })
  until(world, () => a.history.some(event => event.action === 'unrealized'))
  settle(world)
  // The other one shares the arena no more, for the moment: it is set up anew there.
  disconnect(a, b)
  a.arena.peerOpened(b.id, b.name)
  const header = { type: 'arena_close', arena: ARENA, code: 'arena_unknown', reason: 'it is not shared' } as const
  a.arena.fromPeer(b.id, { type: 'wire', header })
  a.configure({ mark: 'real' })
  pass(world, 10 * 60_000)
  t.is(a.entry('file')?.known.content.type, 'file')
  a.arena.peerClosed(b.id)
  connect(a, b)
  settle(world)
  t.is(a.read('file'), 'content')
  t.is(b.read('file'), 'content')
  assertSettled(t, world)
})

test('a file that is opened for writing in the moment before it is taken out goes back', t => {
  const { world, a, b } = makePair()
  a.write('file', 'content')
  settle(world)
  let release: (() => void) | null = null
  a.disk.fault = operation => {
    if (operation === 'takeOut') release ??= a.disk.holdForWriting('file')
    return null
  }
  a.configure({ mark: 'unreal' })
  until(world, () => release !== null)
  pass(world, LEASE_MS)
  t.is(a.read('file'), 'content', 'its writer may write yet')
  release!()
  pass(world, 10 * LEASE_MS)
  t.false(a.has('file'))
  t.is(b.read('file'), 'content')
  assertSettled(t, world)
})
