/** Arenas of which one peer does not want everything real: what it shows, what it asks for, and what the others see of that. */
import test, { type ExecutionContext } from 'ava'
import { LEASE_MS } from '../../protocol/limits.ts'
import type { ListedEntry } from '../../protocol/status.ts'
import {
  connectAll,
  disconnectAll,
  Killed,
  makeHousehold,
  makePair,
  type Peer,
  pass,
  settle,
  type World,
} from './_pair.ts'

/** Too short for content to be given up. */
const SHORT_MS = 400
/** Whatever asks for content, or brings it. */
const CONTENT = new Set(['fetch_blobs', 'pack', 'fetch_tree', 'tree', 'fetch_leaves', 'leaves', 'fetch_nodes'])

function contentMessages({ delivered }: World, to: Peer): number {
  return delivered.filter(one => CONTENT.has(one.header.type) && (one.to === to || one.from === to)).length
}

function listed(peer: Peer, path?: string): ListedEntry[] {
  return (peer.run('ls', path === undefined ? {} : { path }) as { entries: ListedEntry[] }).entries
}

/** All know the same, each says so, and nothing more is said. */
function assertQuiet(t: ExecutionContext, world: World): void {
  const roots = new Set(world.peers.map(peer => peer.state.root))
  t.is(roots.size, 1, 'the roots differ')
  for (const peer of world.peers) {
    t.deepEqual(peer.state.missing, [], `${peer.name} is not in consensus`)
    t.true(peer.state.consensus)
    t.deepEqual(peer.store.intents(), [])
    t.deepEqual(peer.disk.stageList(), [])
  }
  const messages = world.delivered.length
  settle(world)
  t.deepEqual(
    world.delivered.slice(messages).map(({ header }) => header.type),
    [],
  )
}

test('an unreal file is known and listed, its content is not asked for, and there is consensus', t => {
  const { world, a, b } = makePair()
  b.configure({ mark: 'unreal' })
  a.mkdir('folder')
  a.write('folder/file', 'content')
  a.write('big', new Uint8Array(300_000))
  a.symlink('folder/file', 'link')
  settle(world)
  t.deepEqual(b.tree(), { folder: '/', link: '→ folder/file' })
  t.is(contentMessages(world, b), 0)
  t.deepEqual(
    listed(b, 'folder').map(({ path, type, size, mark, here, problem }) => ({ path, type, size, mark, here, problem })),
    [{ path: 'folder/file' as never, type: 'file', size: 7, mark: 'unreal', here: 0, problem: undefined }],
  )
  t.like(b.entry('folder/file'), { have: null, stamp: null, pending: false })
  t.like(b.state, { files: 2, bytes: 300_007, realBytes: 0, needFiles: 0, needBytes: 0, problems: [] })
  assertQuiet(t, world)
})

test('what becomes real is fetched, a file, a folder or all of it, and only that', t => {
  const { world, a, b } = makePair()
  b.configure({ mark: 'unreal' })
  for (const name of ['one', 'two', 'three']) {
    a.mkdir(name)
    a.write(`${name}/file`, name)
    a.write(`${name}/other`, `${name} other`)
  }
  settle(world)
  b.run('mark', { path: 'one/file', mark: 'real' })
  settle(world)
  const folders = { one: '/', two: '/', three: '/' }
  t.deepEqual(b.tree(), { ...folders, 'one/file': 'one' })
  b.run('mark', { path: 'two', mark: 'real' })
  settle(world)
  t.deepEqual(b.tree(), { ...folders, 'one/file': 'one', 'two/file': 'two', 'two/other': 'two other' })
  t.deepEqual(
    listed(b, 'two').map(({ mark, here }) => [mark, here]),
    [
      ['real', 3],
      ['real', 9],
    ],
  )
  b.configure({ mark: 'real' })
  settle(world)
  t.deepEqual(b.tree(), a.tree())
  assertQuiet(t, world)
})

test('a mark is heeded for what comes later, survives a restart, and ends with clear', t => {
  const { world, a, b } = makePair()
  b.run('mark', { path: 'films', mark: 'unreal' })
  a.mkdir('films')
  a.write('films/one', 'one')
  a.write('text', 'text')
  settle(world)
  t.deepEqual(b.tree(), { films: '/', text: 'text' })
  b.restart()
  a.write('films/two', 'two')
  settle(world)
  t.deepEqual(b.tree(), { films: '/', text: 'text' })
  t.is(listed(b).find(entry => entry.path === 'films')?.mark, 'unreal')
  b.run('mark', { path: 'films', mark: 'clear' })
  settle(world)
  t.deepEqual(b.tree(), a.tree())
  assertQuiet(t, world)
})

test('marks that change while nobody looks, or in the moment of a kill, are heeded by the next start', t => {
  const { world, a, b } = makePair()
  a.mkdir('films')
  for (const name of ['films/one', 'films/two', 'text']) a.write(name, name)
  b.configure({ mark: 'unreal' })
  settle(world)
  pass(world, 30_000)
  t.deepEqual(b.tree(), { films: '/' })
  // As with an edited configuration.
  b.stop()
  b.settings = { ...b.settings, mark: 'real' }
  b.start()
  settle(world)
  t.deepEqual(b.tree(), a.tree())
  b.run('mark', { path: 'films', mark: 'unreal' })
  pass(world, 30_000)
  t.deepEqual(b.tree(), { films: '/', text: 'text' })
  for (let step = 1, died = true; died; step++) {
    died = false
    b.run('mark', { path: 'films', mark: 'unreal' })
    pass(world, 60_000)
    t.deepEqual(b.tree(), { films: '/', text: 'text' })
    b.stop()
    try {
      b.startDying(step)
      pass(world, 1_000)
      b.run('mark', { path: 'films', mark: 'real' })
      settle(world)
    } catch (error) {
      if (!(error instanceof Killed)) throw error
      died = true
    }
    b.restart()
    const marked = b.store.marks().some(([, mark]) => mark === 'real')
    settle(world)
    pass(world, 60_000)
    t.deepEqual(b.tree(), marked ? a.tree() : { films: '/', text: 'text' }, `step ${step}`)
  }
})

test('an unreal file follows its path: edited, renamed and deleted elsewhere', t => {
  const { world, a, b } = makePair()
  b.configure({ mark: 'unreal' })
  a.mkdir('folder')
  a.write('folder/file', 'one')
  settle(world)
  a.write('folder/file', 'two!')
  settle(world)
  t.is(listed(b, 'folder')[0]?.size, 4)
  a.rename('folder', 'moved')
  settle(world)
  t.deepEqual(b.tree(), { moved: '/' })
  t.is(listed(b, 'moved')[0]?.path as string, 'moved/file')
  a.remove('moved/file')
  settle(world)
  t.deepEqual(listed(b, 'moved'), [])
  t.is(contentMessages(world, b), 0)
  t.is(b.state.files, 0)
  assertQuiet(t, world)
})

test('what is not shown is not missed: a scan, a restart and a removed folder delete no unreal file', t => {
  const { world, a, b } = makePair()
  b.configure({ mark: 'unreal' })
  a.mkdir('folder')
  a.mkdir('folder/inner')
  a.write('folder/inner/file', 'content')
  settle(world)
  b.run('rescan')
  settle(world)
  b.restart()
  settle(world)
  t.is(a.read('folder/inner/file'), 'content')
  b.remove('folder/inner')
  b.remove('folder')
  settle(world)
  t.is(a.read('folder/inner/file'), 'content')
  t.deepEqual(b.tree(), { folder: '/', 'folder/inner': '/' }, 'what lives makes its folders')
  t.deepEqual(
    listed(b, 'folder/inner').map(({ path }) => path as string),
    ['folder/inner/file'],
  )
  assertQuiet(t, world)
  a.remove('folder/inner/file')
  settle(world)
  t.deepEqual(b.tree(), {})
  t.deepEqual(a.tree(), {})
  assertQuiet(t, world)
})

test('a folder that is deleted elsewhere stays as long as an unreal file lives in it', t => {
  const { world, peers } = makeHousehold(3)
  const [a, b, c] = peers as [Peer, Peer, Peer]
  b.configure({ mark: 'unreal' })
  a.mkdir('folder')
  a.write('folder/old', 'old')
  settle(world)
  disconnectAll(world)
  a.remove('folder/old')
  a.remove('folder')
  c.write('folder/new', 'new')
  settle(world)
  connectAll(world)
  settle(world)
  t.deepEqual(c.tree(), { folder: '/', 'folder/new': 'new' })
  t.deepEqual(b.tree(), { folder: '/' })
  assertQuiet(t, world)
  c.remove('folder/new')
  settle(world)
  for (const peer of peers) t.deepEqual(peer.tree(), {})
  assertQuiet(t, world)
})

test('a folder that is deleted does not stay for what is ignored here and lives elsewhere', t => {
  const { world, a, b } = makePair()
  a.mkdir('folder')
  settle(world)
  b.configure({ mark: 'unreal', ignore: ['*.ignored'] })
  settle(world)
  disconnectAll(world)
  a.write('folder/one.ignored', '1')
  settle(world)
  connectAll(world)
  settle(world)
  b.remove('folder')
  settle(world)
  t.deepEqual(b.tree(), {})
  t.deepEqual(a.tree(), { folder: '/', 'folder/one.ignored': '1' })
  t.deepEqual([a.state.missing, b.state.missing], [[], []])
})

test('a file that a user makes where an unreal one is known replaces nothing unseen: both are kept', t => {
  const { world, a, b } = makePair()
  b.configure({ mark: 'unreal' })
  a.write('file', 'of a')
  settle(world)
  b.write('file', 'of b')
  settle(world)
  const contents = Object.values(a.tree()).sort()
  t.deepEqual(contents, ['of a', 'of b'])
  t.is(a.conflicts().length, 1)
  t.is(b.conflicts().length, 1)
  assertQuiet(t, world)
})

test('the same file, found where an unreal one is known, is that one: nothing is announced', t => {
  const { world, a, b } = makePair()
  b.configure({ mark: 'unreal' })
  a.write('file', 'content')
  settle(world)
  const { mtimeNs } = a.disk.stat('file' as never) ?? { mtimeNs: 0n }
  const known = b.entry('file')?.known
  b.disk.writeFile('file', Buffer.from('content'))
  b.disk.touch('file', mtimeNs)
  b.touch('file')
  settle(world, SHORT_MS)
  t.deepEqual(b.entry('file')?.have, known)
  t.deepEqual(a.entry('file')?.known, known)
  t.deepEqual(a.conflicts(), [])
  settle(world)
  assertQuiet(t, world)
})

test('content on its way to a path that becomes unreal is given up', t => {
  const { world, a, b } = makePair()
  a.write('big', new Uint8Array(3_000_000).fill(7))
  world.refuse = header => header.type === 'fetch_tree'
  settle(world)
  t.is(b.state.needFiles, 1)
  b.configure({ mark: 'unreal' })
  world.refuse = null
  settle(world)
  t.deepEqual(b.tree(), {})
  t.is(b.state.needFiles, 0)
  t.is(a.state.consensus, true)
})

test('a file is deleted here under its name and lives on under another, where it is not wanted real: it is moved', t => {
  const { world, a, b } = makePair()
  a.write('old', 'content')
  settle(world)
  b.configure({ mark: 'unreal' })
  const { ino } = b.disk.stat('old' as never) ?? {}
  a.rename('old', 'new')
  settle(world, SHORT_MS)
  t.is(b.disk.stat('new' as never)?.ino, ino)
  t.false(b.has('old'))
})

test('content that leaves a path where it is shown comes first to another that is only known: it may be the last of it', t => {
  for (const order of ['together', 'apart'] as const) {
    for (const what of ['deleted', 'replaced'] as const) {
      const { world, a, b } = makePair()
      a.write('old', 'content')
      settle(world)
      // As a view at A renames what A only knows of: nobody but B has the content.
      b.configure({ mark: 'unreal' })
      a.configure({ mark: 'unreal' })
      a.write('new', 'content')
      a.disk.touch('new', a.disk.stat('old' as never)?.mtimeNs ?? 0n)
      if (order === 'apart') settle(world, SHORT_MS)
      if (what === 'deleted') a.remove('old')
      else a.write('old', 'other')
      settle(world, SHORT_MS)
      t.is(b.read('new'), 'content', `${order}, ${what}`)
      t.is(b.state.problems.length, 0)
    }
  }
})

test('content that its holder cannot give for a while is not lost, for its author does not show it any more', t => {
  const { world, a, b } = makePair()
  a.configure({ mark: 'unreal' })
  a.write('file', 'content')
  settle(world, 30_000)
  t.false(a.has('file'))
  b.restart()
  a.restart()
  settle(world)
  // As if each reading failed.
  world.tamper = message => {
    if (message.type !== 'send' || message.header.type !== 'pack') return
    message.header.sizes.fill(-1)
    message.payload = new Uint8Array(0)
  }
  a.configure({ mark: 'real' })
  pass(world, 120_000)
  t.false(a.has('file'))
  t.is(b.read('file'), 'content')
  t.false(a.logged.includes('content_lost'))
  world.tamper = null
  pass(world, 120_000)
  t.is(a.read('file'), 'content')
  assertQuiet(t, world)
})

test('rule files are real whatever the mark says', t => {
  const { world, a, b } = makePair({ mark: 'unreal' })
  a.write('.realizeignore', '*.tmp\n')
  a.write('text', 'text')
  settle(world)
  t.is(b.read('.realizeignore'), '*.tmp\n')
  t.false(b.has('text'))
})

test('a mark that cannot be is refused', t => {
  const { world, a } = makePair({ root: null })
  t.throws(() => a.run('mark', { path: 'a', mark: 'real' }), { code: 'usage' })
  t.throws(() => a.run('mark', { path: '../a', mark: 'unreal' }), { code: 'path_invalid' })
  settle(world)
  t.deepEqual(a.store.marks(), [])
})

test('where a file is not on the disk, a version is not put beside it as a conflict, and a conflict is not resolved: it is said what to do', t => {
  const { world, a, b } = makePair()
  a.write('file', '1')
  settle(world)
  a.write('file', '2')
  settle(world)
  disconnectAll(world)
  a.write('both', 'of a')
  b.write('both', 'of b')
  settle(world)
  connectAll(world)
  settle(world)
  b.configure({ mark: 'unreal' })
  pass(world, 10 * LEASE_MS)
  t.deepEqual(b.tree(), {})
  const restore = { path: 'file', version: b.versions('file')[0]?.version }
  t.like(b.ask('restore', restore)(), { code: 'usage' })
  const copy = b.conflicts()[0]?.copy
  t.like(b.ask('resolve', { path: 'both', keep: 'winner' })(), { code: 'usage' })
  for (const path of ['file', copy]) b.run('mark', { path, mark: 'real' })
  settle(world)
  b.run('restore', restore)
  b.run('resolve', { path: 'both', keep: 'winner' })
  settle(world)
  t.is(a.read('file'), '1')
  t.deepEqual(a.conflicts(), [])
  t.deepEqual(Object.keys(a.tree()).sort(), ['both', 'file'])
})
