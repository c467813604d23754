/** Two or three arenas as their users see them: what is done on one disk, and what all disks show when it is quiet. */
import test from 'ava'
import { NO_STAMP } from '../../actors/arena/store.ts'
import { MemoryTables } from '../../actors/arena/tables-memory.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import type { ToPeer } from '../../protocol/ports.ts'
import { type ArenaWireMessage, wire } from '../../protocol/wire.ts'
import {
  ARENA,
  assertAgree,
  connect,
  connectAll,
  disconnect,
  disconnectAll,
  hand,
  makeHousehold,
  makePair,
  makeWorld,
  Peer,
  pass,
  settle,
  turn,
  type World,
} from './_pair.ts'

const LONG = 'n'.repeat(251)

/** Lets everybody work until this holds, and not a step further. */
function until(world: World, holds: () => boolean): void {
  for (let turns = 0; !holds(); turns++) {
    if (turns > 100_000) throw new Error('it never comes to that')
    if (!turn(world)) world.nowMs += 1
  }
}

const isPack = (message: ToPeer) => message.type === 'send' && message.header.type === 'pack'

// Everyday

test('what is created, edited and deleted on one peer is so on the other', t => {
  const { world, a, b } = makePair()
  a.mkdir('folder')
  a.write('folder/file', 'one')
  a.write('empty', '')
  settle(world)
  t.deepEqual(b.tree(), { empty: '', folder: '/', 'folder/file': 'one' })
  b.write('folder/file', 'two')
  settle(world)
  t.is(a.read('folder/file'), 'two')
  a.remove('folder/file')
  a.remove('empty')
  settle(world)
  t.deepEqual(b.tree(), { folder: '/' })
  assertAgree(t, world)
})

test('mtime and execute bit come with a file, and a change of them alone moves no content', t => {
  const { world, a, b } = makePair()
  a.write('file', 'content')
  settle(world)
  const before = b.disk.stat('file' as EntryPath)
  t.is(before?.mtimeNs, a.disk.stat('file' as EntryPath)?.mtimeNs)
  a.disk.touch('file', 1_000_000_007n)
  a.disk.chmod('file', 0o755)
  a.touch('file')
  const messages = world.delivered.length
  settle(world)
  const after = b.disk.stat('file' as EntryPath)
  t.deepEqual([after?.mtimeNs, after?.exec, after?.ino], [1_000_000_007n, true, before?.ino])
  t.false(world.delivered.slice(messages).some(({ header }) => header.type === 'fetch_blobs'))
  assertAgree(t, world)
})

test('a renamed file is moved on the other peer, and no content flows', t => {
  const { world, a, b } = makePair()
  a.write('old', 'content')
  a.mkdir('folder')
  settle(world)
  const { ino } = b.disk.stat('old' as EntryPath) ?? {}
  const messages = world.delivered.length
  a.rename('old', 'folder/new')
  settle(world)
  t.deepEqual(b.tree(), { folder: '/', 'folder/new': 'content' })
  t.is(b.disk.stat('folder/new' as EntryPath)?.ino, ino)
  t.false(world.delivered.slice(messages).some(({ header }) => header.type === 'fetch_blobs'))
  assertAgree(t, world)
})

test('a renamed folder takes what is in it along', t => {
  const { world, a, b } = makePair()
  a.mkdir('from')
  a.mkdir('from/deep')
  for (const name of ['1', '2', '3']) a.write(`from/deep/${name}`, `content ${name}`)
  settle(world)
  a.rename('from', 'to')
  settle(world)
  t.deepEqual(b.tree(), {
    to: '/',
    'to/deep': '/',
    'to/deep/1': 'content 1',
    'to/deep/2': 'content 2',
    'to/deep/3': 'content 3',
  })
  assertAgree(t, world)
})

test('a folder of very many files that is moved is no deletion, however slowly the disk is looked at', t => {
  const { world, a, b } = makePair()
  const FILES = 1_500
  a.mkdir('folder')
  for (let file = 0; file < FILES; file++) a.disk.writeFile(`folder/${file}`, new Uint8Array(Buffer.from(`${file}`)))
  a.touch('folder')
  settle(world)
  t.is(Object.keys(b.tree()).length, FILES + 1)
  disconnect(a, b)
  a.rename('folder', 'moved')
  // With each step of the walk more time passes than a deletion waits.
  for (let turns = 0; turns < 30; turns++) {
    turn(world)
    world.nowMs += 100
  }
  t.is(a.state.reason, null)
  connect(a, b)
  settle(world)
  assertAgree(t, world)
  t.is(b.read('moved/1499'), '1499')
  t.false(b.has('folder'))
  const renamed = a.history.filter(({ action, path }) => action === 'renamed' && path.startsWith('moved/'))
  t.is(renamed.length, FILES)
})

test('a folder that is moved away and made anew holds nothing of what was in it', t => {
  const { world, a, b } = makePair()
  a.mkdir('folder')
  a.write('folder/f', 'x')
  settle(world)
  a.rename('folder', 'moved')
  a.mkdir('folder')
  settle(world)
  t.deepEqual(b.tree(), { folder: '/', moved: '/', 'moved/f': 'x' })
  assertAgree(t, world)
})

test('two files that swap their names have swapped them everywhere', t => {
  const { world, a, b } = makePair()
  a.write('1', 'one')
  a.write('2', 'two')
  settle(world)
  a.disk.rename('1', 'x')
  a.disk.rename('2', '1')
  a.disk.rename('x', '2')
  a.touch('1', '2', 'x')
  settle(world)
  t.deepEqual(b.tree(), { '1': 'two', '2': 'one' })
  assertAgree(t, world)
})

test('a file becomes a folder, the folder a link, and the link a file again', t => {
  const { world, a, b } = makePair()
  a.write('thing', 'file')
  settle(world)
  a.disk.remove('thing')
  a.disk.mkdir('thing')
  a.write('thing/inside', 'x')
  a.touch('thing')
  settle(world)
  t.deepEqual(b.tree(), { thing: '/', 'thing/inside': 'x' })
  a.disk.remove('thing')
  a.disk.symlink('elsewhere', 'thing')
  a.touch('thing', 'thing/inside')
  settle(world)
  t.deepEqual(b.tree(), { thing: '→ elsewhere' })
  a.disk.remove('thing')
  a.write('thing', 'file again')
  settle(world)
  t.deepEqual(b.tree(), { thing: 'file again' })
  assertAgree(t, world)
})

test('a link is taken over as it is, whatever it points to', t => {
  const { world, a, b } = makePair()
  for (const [index, target] of ['/etc/passwd', '../../up', 'nothing here', 'ünï/코드'].entries())
    a.symlink(target, `link${index}`)
  settle(world)
  t.deepEqual(b.tree(), { link0: '→ /etc/passwd', link1: '→ ../../up', link2: '→ nothing here', link3: '→ ünï/코드' })
  assertAgree(t, world)
})

test('a big file travels leaf by leaf, and of a changed one only what a delta says of the leaf that changed', t => {
  const { world, a, b } = makePair()
  const bytes = new Uint8Array(9 * 128 * 1024 + 5)
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + (i >> 13)) & 255
  a.write('big', bytes)
  settle(world)
  t.deepEqual(b.disk.readFile('big'), bytes)
  const changed = bytes.slice()
  changed[300_000] = 1
  const messages = world.delivered.length
  a.write('big', changed)
  settle(world)
  t.deepEqual(b.disk.readFile('big'), changed)
  const asked = world.delivered
    .slice(messages)
    .flatMap(({ header }) =>
      header.type === 'fetch_leaves' || header.type === 'fetch_delta' ? [[header.type, header.from, header.count]] : [],
    )
  t.deepEqual(asked, [['fetch_delta', 2, 1]])
  assertAgree(t, world)
})

test('a name of 255 bytes is carried, and so is its conflict', t => {
  const { world, a, b } = makePair()
  const name = `${LONG}.txt`
  t.is(Buffer.byteLength(name), 255)
  a.write(name, 'base')
  settle(world)
  disconnect(a, b)
  a.write(name, 'of a')
  b.write(name, 'of b')
  settle(world)
  connect(a, b)
  settle(world)
  t.deepEqual(Object.values(a.tree()).sort(), ['of a', 'of b'])
  assertAgree(t, world)
})

test('three peers in a line agree on what each of them did', t => {
  const { world, peers } = makeHousehold(3)
  const [a, b, c] = peers as [Peer, Peer, Peer]
  disconnect(a, c)
  settle(world)
  a.write('of a', '1')
  b.write('of b', '2')
  c.write('of c', '3')
  settle(world)
  t.deepEqual(c.tree(), { 'of a': '1', 'of b': '2', 'of c': '3' })
  c.remove('of a')
  a.write('of c', '4')
  settle(world)
  t.deepEqual(b.tree(), { 'of b': '2', 'of c': '4' })
  assertAgree(t, world)
})

test('names that differ only in case live together on a disk that can hold them, with a note', t => {
  const { world, a, b } = makePair()
  a.write('name', 'small')
  a.write('Name', 'great')
  settle(world)
  t.deepEqual(b.tree(), { Name: 'great', name: 'small' })
  const notes = a.state.problems.filter(({ path }) => path === 'Name')
  t.is(notes.length, 1)
  t.true(notes[0]?.note)
  t.true(a.state.consensus)
})

// Conflicts

test('of two concurrent edits one wins everywhere and the other is one copy of one name on both', t => {
  const { world, a, b } = makePair()
  a.write('notes.txt', 'base')
  settle(world)
  disconnect(a, b)
  world.nowMs += 5_000
  a.write('notes.txt', 'of a')
  world.nowMs += 5_000
  b.write('notes.txt', 'of b')
  settle(world)
  connect(a, b)
  settle(world)
  const tree = a.tree()
  t.deepEqual(Object.values(tree).sort(), ['of a', 'of b'])
  const copy = Object.keys(tree).find(path => path !== 'notes.txt') as string
  t.regex(copy, /^notes\.conflict-20250615-1200\d\d-[AB]{7}\.txt$/)
  t.is(a.state.conflicts, 1)
  t.deepEqual(
    a.conflicts().map(({ path }) => path),
    ['notes.txt'],
  )
  assertAgree(t, world)
})

test('three concurrent edits leave a winner and two copies, the same on all three', t => {
  const { world, peers } = makeHousehold(3)
  peers[0]?.write('f', 'base')
  settle(world)
  disconnectAll(world)
  for (const peer of peers) peer.write('f', `of ${peer.name}`)
  settle(world)
  connectAll(world)
  settle(world)
  t.deepEqual(Object.values((peers[0] as Peer).tree()).sort(), ['of A', 'of B', 'of C'])
  assertAgree(t, world)
})

test('the same edit on two peers is no conflict', t => {
  const { world, a, b } = makePair()
  a.write('f', 'base')
  settle(world)
  disconnect(a, b)
  a.write('f', 'both')
  b.write('f', 'both')
  settle(world)
  connect(a, b)
  settle(world)
  t.deepEqual(a.tree(), { f: 'both' })
  assertAgree(t, world)
})

test('a conflict on a conflict copy keeps both of its contents', t => {
  const { world, a, b } = makePair()
  a.write('f', 'base')
  settle(world)
  disconnect(a, b)
  a.write('f', 'of a')
  b.write('f', 'of b')
  settle(world)
  connect(a, b)
  settle(world)
  const copy = Object.keys(a.tree()).find(path => path !== 'f') as string
  disconnect(a, b)
  a.write(copy, 'copy of a')
  b.write(copy, 'copy of b')
  settle(world)
  connect(a, b)
  settle(world)
  const contents = Object.values(a.tree())
  t.is(contents.length, 3)
  t.true(contents.includes('copy of a') && contents.includes('copy of b'))
  assertAgree(t, world)
})

test('a file without history meets the same file as no conflict, and another one as a conflict', t => {
  const world = makeWorld()
  const a = new Peer(world, 'A')
  const b = new Peer(world, 'B')
  a.write('same', 'content')
  b.write('same', 'content')
  a.write('other', 'of a')
  b.write('other', 'of b')
  a.start()
  b.start()
  connectAll(world)
  settle(world)
  t.is(a.read('same'), 'content')
  t.deepEqual(Object.values(a.tree()).sort(), ['content', 'of a', 'of b'])
  assertAgree(t, world)
})

test('an edit outweighs a concurrent deletion, on either side', t => {
  for (const deleter of [0, 1]) {
    const { world, a, b } = makePair()
    const [gone, edited] = deleter === 0 ? [a, b] : [b, a]
    a.write('f', 'base')
    settle(world)
    disconnect(a, b)
    gone.remove('f')
    edited.write('f', 'edited')
    settle(world)
    connect(a, b)
    settle(world)
    t.deepEqual(a.tree(), { f: 'edited' })
    assertAgree(t, world)
  }
})

test('a deletion after more edits wins over one edit, which is kept as a copy', t => {
  const { world, a, b } = makePair()
  a.write('f', 'base')
  settle(world)
  disconnect(a, b)
  b.write('f', 'of b')
  for (const text of ['1', '2']) {
    a.write('f', text)
    settle(world)
  }
  a.remove('f')
  settle(world)
  connect(a, b)
  settle(world)
  t.deepEqual(Object.values(a.tree()), ['of b'])
  t.false(a.has('f'))
  assertAgree(t, world)
})

test('an edit made on an old version while a newer one is known and not yet here is a conflict', t => {
  const { world, a, b } = makePair()
  a.write('f', 'base')
  settle(world)
  // The content cannot be placed at b: it knows the new version and still shows the old one.
  b.disk.fault = operation => (operation === 'place' || operation === 'stageFile' ? 'EACCES' : null)
  a.write('f', 'second')
  settle(world)
  t.is(b.read('f'), 'base')
  t.true(b.entry('f')?.pending)
  b.disk.fault = null
  b.write('f', 'of b')
  pass(world, 120_000)
  t.deepEqual(Object.values(b.tree()).sort(), ['of b', 'second'])
  assertAgree(t, world)
})

test('a file here and a folder there of one name: the folder stays and the file becomes a copy', t => {
  const { world, a, b } = makePair()
  disconnect(a, b)
  a.write('thing', 'file')
  b.mkdir('thing')
  b.write('thing/inside', 'x')
  settle(world)
  connect(a, b)
  settle(world)
  t.is(b.read('thing/inside'), 'x')
  t.true(Object.values(a.tree()).includes('file'))
  assertAgree(t, world)
})

test('a file that wins where something lives below makes room for the folder', t => {
  const { world, a, b } = makePair()
  disconnect(a, b)
  for (const text of ['1', '2', '3']) {
    a.write('thing', text)
    settle(world)
  }
  b.mkdir('thing')
  b.mkdir('thing/deep')
  b.write('thing/deep/inside', 'x')
  settle(world)
  connect(a, b)
  settle(world)
  t.is(a.read('thing/deep/inside'), 'x')
  t.true(Object.values(b.tree()).includes('3'))
  assertAgree(t, world)
})

test('links that differ are a conflict like files', t => {
  const { world, a, b } = makePair()
  disconnect(a, b)
  a.symlink('there', 'link')
  b.symlink('elsewhere', 'link')
  settle(world)
  connect(a, b)
  settle(world)
  t.deepEqual(Object.values(a.tree()).sort(), ['→ elsewhere', '→ there'])
  assertAgree(t, world)
})

// Folders

test('a folder that is deleted here and gets a new file there lives on for it', t => {
  const { world, a, b } = makePair()
  a.mkdir('folder')
  a.write('folder/old', 'old')
  settle(world)
  disconnect(a, b)
  a.disk.remove('folder')
  a.touch('folder', 'folder/old')
  b.write('folder/new', 'new')
  settle(world)
  connect(a, b)
  settle(world)
  t.deepEqual(a.tree(), { folder: '/', 'folder/new': 'new' })
  t.deepEqual(b.tree(), a.tree())
  t.deepEqual(a.state.missing, [])
  b.remove('folder/new')
  settle(world)
  t.deepEqual(a.tree(), {}, 'a folder that only held something goes with it')
  assertAgree(t, world)
})

test('a deleted folder stays where it holds what is ignored, and goes when that has gone', t => {
  const { world, a, b } = makePair()
  b.configure({ ignore: ['*.tmp'] })
  a.mkdir('folder')
  a.write('folder/file', 'x')
  settle(world)
  b.write('folder/scratch.tmp', 'mine')
  a.disk.remove('folder')
  a.touch('folder', 'folder/file')
  settle(world)
  t.deepEqual(a.tree(), {})
  t.deepEqual(b.tree(), { folder: '/', 'folder/scratch.tmp': 'mine' })
  t.true(a.state.consensus)
  t.true(b.state.consensus)
  t.is(a.state.root, b.state.root)
})

test('a deleted tree goes children first and leaves nothing', t => {
  const { world, a, b } = makePair()
  a.mkdir('1')
  a.mkdir('1/2')
  a.mkdir('1/2/3')
  a.write('1/2/3/f', 'x')
  settle(world)
  b.remove('1')
  b.touch('1', '1/2', '1/2/3', '1/2/3/f')
  settle(world)
  t.deepEqual(a.tree(), {})
  assertAgree(t, world)
})

// Lost, restored and rolled-back stores

test('a store that is lost resurrects nothing: what had been deleted goes to the version store', t => {
  const { world, a, b } = makePair()
  a.write('kept', '1')
  a.write('deleted', '2')
  settle(world)
  b.stop()
  a.remove('deleted')
  settle(world)
  b.tables = new MemoryTables()
  b.start()
  settle(world)
  t.deepEqual(a.tree(), { kept: '1' })
  t.deepEqual(
    b.kept('deleted').map(({ id }) => b.keptText(id)),
    ['2'],
  )
  assertAgree(t, world)
})

test('a store that is lost keeps what was edited meanwhile, as winner or as copy', t => {
  const { world, a, b } = makePair()
  a.write('f', 'base')
  settle(world)
  b.stop()
  b.disk.writeFile('f', new Uint8Array(Buffer.from('of b')))
  a.write('f', 'of a')
  settle(world)
  b.tables = new MemoryTables()
  b.start()
  settle(world)
  t.is(a.read('f'), 'of a', 'nothing wins because somebody lost a database')
  t.deepEqual(Object.values(a.tree()).sort(), ['of a', 'of b'])
  assertAgree(t, world)
})

test('a store that is rolled back takes a fresh replica and loses nothing', t => {
  const { world, a, b } = makePair()
  a.write('before', '1')
  settle(world)
  const backup = a.tables.snapshot()
  const { replica } = a.store.state()
  a.write('after', '2')
  a.write('before', '1 edited')
  settle(world)
  a.stop()
  a.tables = backup
  a.disk.writeFile('later', new Uint8Array(Buffer.from('3')))
  a.start()
  settle(world)
  t.not(a.store.state().replica, replica)
  t.true(a.logged.includes('arena_rolled_back') || b.logged.includes('arena_rolled_back'))
  t.deepEqual(b.tree(), { after: '2', before: '1 edited', later: '3' })
  assertAgree(t, world)
})

test('a store that is rolled back with its disk gets everything again', t => {
  const { world, a, b } = makePair()
  a.write('before', '1')
  settle(world)
  a.disk.sync(() => {})
  a.disk.completeSync()
  const backup = a.tables.snapshot()
  b.write('after', '2')
  b.write('before', '1 edited')
  settle(world)
  a.stop()
  a.tables = backup
  a.disk.writeFile('before', new Uint8Array(Buffer.from('1')))
  a.disk.remove('after')
  a.start()
  settle(world)
  t.is(b.read('after'), '2')
  t.true(a.contents().has('1 edited'))
  // What the version store had got since the backup is listed again; it goes when it is old.
  t.is(a.disk.keptList().length, a.kept().length)
  pass(world, a.settings.versions.keepMs + 7_200_000)
  t.deepEqual(a.disk.keptList(), [])
  assertAgree(t, world)
})

test('a store that was rolled back and went on before it met a peer names no content by a used count', t => {
  const { world, a, b } = makePair()
  a.write('f', 'base')
  settle(world)
  const backup = a.tables.snapshot()
  a.write('f', 'second')
  settle(world)
  a.stop()
  disconnect(a, b)
  a.tables = backup
  a.disk.writeFile('f', new Uint8Array(Buffer.from('third')))
  a.start()
  settle(world)
  connect(a, b)
  settle(world)
  t.deepEqual(Object.values(b.tree()).sort(), ['second', 'third'])
  assertAgree(t, world)
})

test('a disk that was copied with its store meets its original as two replicas', t => {
  const { world, a, b } = makePair()
  a.write('f', 'base')
  settle(world)
  const c = new Peer(world, 'C')
  c.tables = b.tables.snapshot()
  for (const path of Object.keys(b.tree())) c.disk.writeFile(path, b.disk.readFile(path))
  c.disk.writeMarker(b.disk.identity().marker as string)
  c.start()
  settle(world)
  b.write('g', 'of b')
  c.write('g', 'of c')
  settle(world)
  connectAll(world)
  settle(world)
  t.deepEqual(Object.values(a.tree()).sort(), ['base', 'of b', 'of c'])
  assertAgree(t, world)
})

// Policies

test('under `newest` the later edit wins, however many edits the other has', t => {
  const { world, a, b } = makePair({ conflicts: 'newest' })
  a.write('f', 'base')
  settle(world)
  disconnect(a, b)
  for (const text of ['1', '2', '3']) {
    a.write('f', text)
    settle(world)
  }
  world.nowMs += 60_000
  b.write('f', 'later')
  settle(world)
  connect(a, b)
  settle(world)
  t.is(a.read('f'), 'later')
  t.deepEqual(Object.values(a.tree()).sort(), ['3', 'later'])
  assertAgree(t, world)
})

test('under `newest` an edit whose clock is a year behind still replaces what it was made from', t => {
  const { world, a, b } = makePair({ conflicts: 'newest' })
  a.write('f', 'base')
  settle(world)
  b.disk.writeFile('f', new Uint8Array(Buffer.from('edited')))
  b.disk.touch('f', 1_000_000_000_000_000_000n)
  b.touch('f')
  settle(world)
  t.is(a.read('f'), 'edited')
  assertAgree(t, world)
})

test('under `local` a peer goes on showing its own, with a note, and the others theirs', t => {
  const { world, a, b } = makePair()
  b.configure({ conflicts: 'local' })
  a.write('f', 'base')
  settle(world)
  disconnect(a, b)
  b.write('f', 'of b')
  for (const text of ['1', '2']) {
    a.write('f', text)
    settle(world)
  }
  connect(a, b)
  settle(world)
  t.is(a.read('f'), '2')
  t.is(b.read('f'), 'of b')
  t.true(b.state.problems.some(({ path, note }) => path === 'f' && note === true))
})

test('peers whose policies differ do not sync, and say why', t => {
  const { world, a, b } = makePair()
  b.configure({ conflicts: 'newest' })
  settle(world)
  a.write('f', 'x')
  settle(world)
  t.deepEqual(b.tree(), {})
  t.true(a.state.missing.some(line => line.includes('conflicts')))
  b.configure({ conflicts: 'keep-both' })
  settle(world)
  t.deepEqual(b.tree(), { f: 'x' })
  assertAgree(t, world)
})

// Commands

for (const keep of ['winner', 'loser', 'both'] as const) {
  test(`a conflict is resolved with the ${keep} kept`, t => {
    const { world, a, b } = makePair()
    a.write('f.txt', 'base')
    settle(world)
    disconnect(a, b)
    a.write('f.txt', 'of a')
    b.write('f.txt', 'of b')
    settle(world)
    connect(a, b)
    settle(world)
    const winner = a.read('f.txt')
    const loser = winner === 'of a' ? 'of b' : 'of a'
    b.run('resolve', { path: 'f.txt', keep })
    settle(world)
    t.is(a.read('f.txt'), keep === 'loser' ? loser : winner)
    t.deepEqual(
      Object.values(a.tree()).sort(),
      keep === 'both' ? ['of a', 'of b'] : [keep === 'loser' ? loser : winner],
    )
    t.is(a.state.conflicts, 0)
    t.deepEqual(b.conflicts(), [])
    assertAgree(t, world)
  })
}

test('what was replaced or deleted is listed and can be brought back', t => {
  const { world, a, b } = makePair()
  a.mkdir('folder')
  a.write('folder/f', 'first')
  settle(world)
  a.write('folder/f', 'second')
  settle(world)
  t.deepEqual(
    b.versions('folder/f').map(({ size }) => size),
    [5],
  )
  a.disk.remove('folder')
  a.touch('folder', 'folder/f')
  settle(world)
  const versions = b.versions('folder/f')
  t.deepEqual(
    versions.map(({ size }) => size),
    [6, 5],
  )
  b.run('restore', { path: 'folder/f', version: versions[1]?.version })
  settle(world)
  t.is(a.read('folder/f'), 'first')
  assertAgree(t, world)
})

test('a file that is gone for a moment is not deleted elsewhere', t => {
  const { world, a, b } = makePair()
  a.write('f', 'x')
  settle(world)
  // Deleted and made again, as some editors save; of the second half nothing is told in time.
  a.remove('f')
  a.arena.step()
  a.disk.writeFile('f', new Uint8Array(Buffer.from('y')))
  settle(world)
  t.is(b.read('f'), 'y')
  t.deepEqual(
    b.history.filter(({ action, path }) => path === 'f' && action === 'removed'),
    [],
  )
  assertAgree(t, world)
})

test('a folder that was deleted, and still held something, goes with that: looking at it does not make it new', t => {
  const { world, a, b } = makePair()
  a.mkdir('folder')
  a.write('folder/old', 'x')
  settle(world)
  disconnectAll(world)
  a.remove('folder/old')
  a.remove('folder')
  b.write('folder/new', 'y')
  settle(world)
  connectAll(world)
  settle(world)
  t.is(a.read('folder/new'), 'y')
  for (const peer of [a, b]) peer.arena.touched(null)
  for (const peer of [a, b]) peer.touch('folder')
  settle(world)
  b.remove('folder/new')
  settle(world)
  t.deepEqual(a.tree(), {})
  assertAgree(t, world)
})

// Guards

test('too many deletions at once stop the arena until a person says that they are meant', t => {
  const { world, a, b } = makePair()
  for (let i = 0; i < 40; i++) a.write(`f${i}`, `${i}`)
  settle(world)
  for (let i = 0; i < 30; i++) a.disk.remove(`f${i}`)
  a.arena.touched(null)
  settle(world)
  t.is(a.state.state, 'guarded')
  t.regex(a.state.reason ?? '', /30 of 40/)
  t.is(Object.keys(b.tree()).length, 40)
  a.run('accept_guard')
  settle(world)
  t.is(a.state.state, 'idle')
  t.is(Object.keys(b.tree()).length, 10)
  assertAgree(t, world)
})

test('a root without its marker deletes nothing elsewhere; the right one back, it goes on by itself', t => {
  const { world, a, b } = makePair()
  a.write('f', 'x')
  settle(world)
  const right = a.disk
  a.stop()
  a.disk = a.newDisk()
  a.start()
  pass(world, 5_000)
  t.is(a.state.state, 'guarded')
  t.deepEqual(b.tree(), { f: 'x' })
  a.disk.writeMarker(right.identity().marker as string)
  a.write('f', 'x')
  pass(world, 5_000)
  t.is(a.state.state, 'idle')
  assertAgree(t, world)
})

test('a folder that is renamed and then deleted before its new name is known is asked about like any other that is deleted', t => {
  for (const steps of [0, 1, 2, 3]) {
    const { world, a, b } = makePair()
    a.mkdir('folder')
    for (let index = 0; index < 400; index++) a.write(`folder/${index}`, `text ${index}`)
    for (let index = 0; index < 100; index++) a.write(`other-${index}`, `other ${index}`)
    settle(world)
    a.rename('folder', 'renamed')
    for (let step = 0; step < steps; step++) a.arena.step()
    for (const name of a.disk.list('renamed' as EntryPath).names) a.disk.remove(`renamed/${name}`)
    a.remove('renamed')
    settle(world)
    t.is(a.state.state, 'guarded', `${steps} steps`)
    const left = Object.values(b.tree()).filter(text => text.startsWith('text'))
    t.is(left.length, 400, `${steps} steps`)
  }
})

test('a file that takes the place of a folder is renamed as one: it is never nowhere', t => {
  const { world, a, b } = makePair()
  a.mkdir('place')
  a.write('place/inside', 'inside')
  a.write('file', 'content')
  settle(world)
  a.remove('place/inside')
  a.disk.remove('place')
  a.rename('file', 'place')
  until(world, () => a.entry('file')?.known.content.type === 'gone')
  t.is(a.entry('place')?.known.content.type, 'file')
  settle(world)
  t.deepEqual(b.tree(), { place: 'content' })
  assertAgree(t, world)
})

test('a folder is replaced by a file that was in it, two by files of each other, and a hundred at once', t => {
  const { world, a, b } = makePair()
  const many = Array.from({ length: 100 }, (_, index) => `many-${index}`)
  for (const folder of ['one', 'x', 'y', 'deep', 'deep/er', ...many]) a.mkdir(folder)
  for (const path of ['one/f', 'x/f', 'y/g', 'deep/er/f', ...many.map(name => `${name}/${name}`)]) a.write(path, path)
  settle(world)
  const flatten = (file: string, folders: string[]) => {
    a.disk.rename(file, 'moved')
    for (const folder of folders) a.disk.remove(folder)
    a.disk.rename('moved', folders.at(-1) as string)
    a.touch(file, ...folders)
  }
  flatten('one/f', ['one'])
  flatten('deep/er/f', ['deep/er', 'deep'])
  for (const name of many) flatten(`${name}/${name}`, [name])
  for (const [from, to] of [
    ['x/f', 'first'],
    ['y/g', 'second'],
  ] as const)
    a.disk.rename(from, to)
  for (const folder of ['x', 'y']) a.disk.remove(folder)
  for (const [from, to] of [
    ['first', 'y'],
    ['second', 'x'],
  ] as const)
    a.disk.rename(from, to)
  a.touch('x/f', 'y/g', 'x', 'y')
  settle(world)
  const expected: Record<string, string> = { one: 'one/f', deep: 'deep/er/f', x: 'y/g', y: 'x/f' }
  for (const name of many) expected[name] = `${name}/${name}`
  t.deepEqual(b.tree(), expected)
  assertAgree(t, world)
})

test('a root that another folder takes the place of while its files are being missed: nothing of it is deleted', t => {
  const { world, a, b } = makePair()
  for (const name of ['e', 'f', 'g']) a.write(name, `of a: ${name}`)
  settle(world)
  // Its files go one by one, and before that is believed, it is another folder.
  const marker = a.disk.identity().marker as string
  for (const name of ['e', 'f', 'g']) a.remove(name)
  a.arena.step()
  a.disk.writeMarker('of another')
  pass(world, 5_000)
  t.is(a.state.state, 'guarded')
  t.is(Object.keys(b.tree()).length, 3)
  a.disk.writeMarker(marker)
  pass(world, 5_000)
  t.deepEqual(b.tree(), {}, 'what is missing in the right one, its user has deleted')
  assertAgree(t, world)
})

test('what is on its way when another folder takes the place of the root is not staged in it', t => {
  const { world, a, b } = makePair()
  b.write('shown', 'x')
  settle(world)
  const marker = b.disk.identity().marker as string
  a.write('f', 'content')
  const answered = () => world.links.some(({ from, queue }) => from === a && queue.some(isPack))
  until(world, answered)
  b.disk.writeMarker('of another')
  b.arena.touched(null)
  b.arena.tick()
  t.is(b.state.state, 'guarded')
  pass(world, 3_000)
  t.deepEqual(b.disk.stageList(), [])
  b.disk.writeMarker(marker)
  settle(world)
  t.is(b.read('f'), 'content')
  assertAgree(t, world)
})

test('beginning anew with another folder deletes nothing, keeps what it holds, and lets what was newer win', t => {
  const { world, a, b } = makePair()
  a.write('same', 'same')
  a.write('gone', 'gone')
  a.write('changed', 'first')
  settle(world)
  b.write('changed', 'second')
  settle(world)
  a.stop()
  a.disk = a.newDisk()
  a.start()
  a.write('same', 'same')
  a.write('changed', 'older')
  a.write('other', 'other')
  pass(world, 5_000)
  t.is(a.state.state, 'guarded')
  a.run('accept_guard')
  settle(world)
  const { same, gone, changed, other, ...copies } = b.tree()
  t.deepEqual({ same, gone, changed, other }, { same: 'same', gone: 'gone', changed: 'second', other: 'other' })
  t.deepEqual(Object.values(copies), ['older'])
  assertAgree(t, world)
})

test('an arena that is emptied altogether asks, though it was small', t => {
  const { world, a, b } = makePair()
  for (let i = 0; i < 6; i++) a.write(`f${i}`, `${i}`)
  settle(world)
  for (let i = 0; i < 6; i++) a.remove(`f${i}`)
  settle(world)
  t.is(a.state.state, 'guarded')
  t.is(Object.keys(b.tree()).length, 6)
  a.run('accept_guard')
  settle(world)
  assertAgree(t, world)
  t.deepEqual(b.tree(), {})
})

test('an arena that is emptied asks before the first of its deletions is told, whatever the watcher has told of by then', t => {
  const { world, a, b } = makePair()
  a.mkdir('folder')
  for (let i = 0; i < 6; i++) a.write(`folder/f${i}`, `text ${i}`)
  settle(world)
  a.remove('folder/f3')
  for (const i of [0, 1, 2, 4, 5]) a.disk.remove(`folder/f${i}`)
  a.disk.remove('folder')
  settle(world)
  t.is(a.state.state, 'guarded')
  t.regex(a.state.reason ?? '', /7 of 7.*empty/)
  t.is(Object.values(b.tree()).filter(text => text.startsWith('text')).length, 6)
  a.run('accept_guard')
  settle(world)
  assertAgree(t, world)
  t.deepEqual(b.tree(), {})
})

test('a guarded arena tells of no deletion, also of those that are found a moment later', t => {
  const { world, a, b } = makePair()
  for (let i = 0; i < 100; i++) a.write(`f${i}`, `text ${i}`)
  settle(world)
  for (let i = 0; i < 100; i++) {
    a.remove(`f${i}`)
    if (i >= 60) pass(world, 45)
  }
  pass(world, 60_000)
  t.is(a.state.state, 'guarded')
  t.is(Object.keys(b.tree()).length, 100)
  t.is(a.logged.filter(event => event === 'arena_guarded').length, 1)
  for (let i = 0; i < 40; i++) a.write(`f${i}`, `text ${i}`)
  a.run('accept_guard')
  settle(world)
  t.is(Object.keys(b.tree()).length, 40)
  assertAgree(t, world)
})

test('what a stopped or paused arena had found by then is told when it goes on, and not before', t => {
  const { world, a, b } = makePair()
  for (const name of ['e', 'f', 'g']) a.write(name, `text ${name}`)
  settle(world)
  const marker = a.disk.identity().marker as string
  a.disk.writeFile('big', new Uint8Array(LEAF_BYTES * 3).fill(7))
  world.nowMs += 5_000
  a.touch('big')
  a.remove('g')
  while (a.arena.busy) a.arena.step()
  // Its hash is asked for, and comes after the arena has stopped.
  a.disk.writeMarker('of another')
  a.arena.touched(null)
  a.arena.tick()
  t.is(a.state.state, 'guarded')
  t.true(a.hashOne())
  t.is(a.entry('big'), undefined)
  pass(world, 900)
  t.is(a.entry('big'), undefined)
  t.is(a.entry('g')?.known.content.type, 'file')
  a.disk.writeMarker(marker)
  pass(world, 5_000)
  t.deepEqual(Object.keys(b.tree()).sort(), ['big', 'e', 'f'])

  a.remove('f')
  a.arena.step()
  a.configure({ paused: true })
  pass(world, 5_000)
  t.is(a.entry('f')?.known.content.type, 'file')
  a.configure({ paused: false })
  settle(world)
  t.deepEqual(Object.keys(b.tree()).sort(), ['big', 'e'])
  assertAgree(t, world)
})

test('what was read in another root is not told of the right one, however it goes on', t => {
  const content = (byte: number) => new Uint8Array(LEAF_BYTES * 3).fill(byte)
  for (const resume of [false, true]) {
    const { world, a, b } = makePair()
    a.write('f', content(1))
    settle(world)
    world.nowMs += 60_000
    a.disk.unmount('empty')
    a.disk.writeMarker('of another')
    a.disk.writeFile('f', content(2))
    a.disk.writeFile('.realizeignore', Buffer.from('*.log\n'))
    world.nowMs += 5_000
    a.touch('f', '.realizeignore')
    a.arena.step()
    a.arena.touched(null)
    a.arena.tick()
    t.is(a.state.state, 'guarded')
    while (a.hashOne());
    if (!resume) pass(world, 900)
    a.disk.mount()
    if (resume) a.run('accept_guard')
    pass(world, 60_000)
    a.write('x.log', 'wanted')
    settle(world)
    t.deepEqual(
      [a, b].map(peer => peer.disk.readFile('f')[0]),
      [1, 1],
    )
    t.is([...a.history, ...b.history].filter(({ action }) => action === 'edited').length, 0)
    t.true(b.has('x.log'))
    assertAgree(t, world)
  }
})

test('rules that came and went while a scan was going on ignore nothing more', t => {
  for (const knownBefore of [false, true]) {
    const { world, a, b } = makePair()
    for (let n = 0; n < 3_000; n++) a.write(`m${n}`, `text ${n}`)
    if (knownBefore) a.write('.realizeignore', '*.tmp\n')
    settle(world)
    if (knownBefore) a.remove('.realizeignore')
    settle(world)
    world.nowMs += 60_000
    a.disk.writeFile('.realizeignore', Buffer.from('*.log\n'))
    world.nowMs += 5_000
    a.arena.touched(null)
    for (let steps = 0; steps < 2; steps++) a.arena.step()
    a.remove('.realizeignore')
    settle(world)
    t.is(a.entry('.realizeignore')?.known.content.type, knownBefore ? 'gone' : undefined)
    a.write('x.log', 'wanted')
    settle(world)
    t.true(b.has('x.log'))
  }
})

test('an acceptance holds until its own scan has ended, also over a pause', t => {
  const { world, a, b } = makePair()
  const name = (n: number) => `m${String(n).padStart(5, '0')}`
  for (let n = 0; n < 3_000; n++) a.write(name(n), `text ${n}`)
  settle(world)
  world.nowMs += 60_000
  for (let n = 0; n < 1_600; n++) a.disk.remove(name(n))
  a.arena.touched(null)
  settle(world)
  t.is(a.state.state, 'guarded')
  a.run('accept_guard')
  // All that is missing is found, and the scan goes on.
  for (let steps = 0; steps < 4; steps++) a.arena.step()
  a.configure({ paused: true })
  pass(world, 1_000)
  a.configure({ paused: false })
  settle(world)
  t.is(a.logged.filter(event => event === 'arena_guarded').length, 1)
  t.is(Object.keys(b.tree()).length, 1_400)
  t.deepEqual(a.tree(), b.tree())
})

test('deletions that a person says are meant are not asked about a second time, whatever scan ends by then', t => {
  const { world, a, b } = makePair()
  for (let i = 0; i < 100; i++) a.write(`f${i}`, `text ${i}`)
  settle(world)
  a.disk.writeFile('big', new Uint8Array(LEAF_BYTES * 3).fill(1))
  world.nowMs += 5_000
  for (let i = 0; i < 60; i++) a.disk.remove(`f${i}`)
  a.arena.touched(null)
  while (a.arena.busy) a.arena.step()
  for (let ticks = 0; ticks < 2; ticks++) {
    world.nowMs += 70
    a.arena.tick()
  }
  t.is(a.state.state, 'guarded')
  a.run('accept_guard')
  // The scan that found this was begun before.
  t.true(a.hashOne())
  settle(world)
  t.is(a.logged.filter(event => event === 'arena_guarded').length, 1)
  t.is(Object.keys(b.tree()).length, 41)
  assertAgree(t, world)
})

test('an arena that is emptied slowly stops once, and rests', t => {
  for (const [files, atOnce, everyMs] of [
    [240, 8, 50],
    [40, 1, 50],
    [30, 1, 55],
  ] as const) {
    const { world, a, b } = makePair()
    for (let i = 0; i < files; i++) a.write(`f${i}`, `text ${i}`)
    settle(world)
    for (let i = 0; i < files; i++) {
      a.remove(`f${i}`)
      if (i % atOnce === atOnce - 1) pass(world, everyMs)
    }
    pass(world, 3_000)
    const told = files - Object.keys(b.tree()).length
    t.is(a.state.state, 'guarded', `${files} files`)
    t.true(told < files / 2, `${told} of ${files}`)
    let pages = 0
    const page = a.store.page.bind(a.store)
    a.store.page = (...asked) => {
      pages++
      return page(...asked)
    }
    pass(world, 120_000)
    t.true(pages < 10, `looked through the store ${pages} times at rest`)
    t.is(a.logged.filter(event => event === 'arena_guarded').length, 1)
    t.is(Object.keys(b.tree()).length, files - told)
  }
})

test('a folder of links that is emptied is missed as a whole, too', t => {
  const { world, a, b } = makePair()
  for (let i = 0; i < 8; i++) a.symlink('elsewhere', `link ${i}`)
  settle(world)
  a.remove('link 3')
  for (const i of [0, 1, 2, 4, 5, 6, 7]) a.disk.remove(`link ${i}`)
  settle(world)
  t.is(a.state.state, 'guarded')
  t.is(Object.keys(b.tree()).length, 8)
})

test('what cannot be looked at is not gone, and its edit comes as soon as it can be looked at', t => {
  const { world, a, b } = makePair()
  a.mkdir('folder')
  a.write('folder/f', 'x')
  settle(world)
  b.disk.fault = (operation, path) =>
    (operation === 'stat' && path.startsWith('folder/')) || (operation === 'list' && path === 'folder')
      ? 'EACCES'
      : null
  b.write('folder/f', 'y')
  b.touch('folder')
  pass(world, 3_000)
  t.is(a.read('folder/f'), 'x')
  t.regex(b.state.problems.map(({ path, reason }) => `${path}: ${reason}`).join(), /folder\/f: .*EACCES/)
  b.disk.fault = null
  pass(world, 130_000)
  t.is(a.read('folder/f'), 'y')
  b.arena.touched(null)
  settle(world)
  t.deepEqual(b.state.problems, [])
  assertAgree(t, world)
})

// Ignore rules

test('ignore rules that change midway delete nothing, and bring what is wanted again', t => {
  const { world, a, b } = makePair()
  a.write('keep.txt', '1')
  a.write('skip.log', '2')
  settle(world)
  b.configure({ ignore: ['*.log'] })
  settle(world)
  t.true(b.has('skip.log'), 'ignoring is not deleting')
  b.write('skip.log', 'mine')
  a.write('more.log', '3')
  settle(world)
  t.is(a.read('skip.log'), '2')
  t.false(b.has('more.log'))
  t.true(b.state.consensus)
  b.configure({ ignore: [] })
  settle(world)
  t.is(b.read('more.log'), '3')
  t.is(a.read('skip.log'), 'mine')
  assertAgree(t, world)
})

test('a folder that goes while a scan is on its way to it is no new folder', t => {
  const { world, a, b } = makePair()
  a.mkdir('a')
  for (let i = 0; i < 700; i++) a.write(`a/${i}`, `${i}`)
  settle(world)
  // Nobody tells of it, neither when it comes nor when it goes.
  a.disk.mkdir('zz')
  a.arena.touched(null)
  a.arena.step()
  t.true(a.state.scan !== null || a.arena.busy, 'the scan is still among the files')
  a.disk.remove('zz')
  settle(world)
  t.is(a.entry('zz'), undefined)
  t.false(b.has('zz'))
  assertAgree(t, world)
})

test('a peer that touches a file changes no other name of it here', t => {
  const { world, a, b } = makePair()
  a.write('f', 'x')
  settle(world)
  b.disk.link('f', 'g')
  b.touch('g')
  settle(world)
  a.disk.touch('f', 1_578_293_670_423_000_000n)
  a.touch('f')
  pass(world, 5_000)
  t.is(b.disk.stat('f' as EntryPath)?.mtimeNs, 1_578_293_670_423_000_000n)
  t.is(b.disk.stat('g' as EntryPath)?.mtimeNs, a.disk.stat('g' as EntryPath)?.mtimeNs)
  t.not(b.disk.stat('g' as EntryPath)?.mtimeNs, 1_578_293_670_423_000_000n)
  assertAgree(t, world)
})

test('rules for folders hold for one that has gone, too: its end is neither told nor waited for', t => {
  const { world, a, b } = makePair()
  a.mkdir('e')
  a.mkdir('e/scratch')
  a.write('e/scratch/f', 'x')
  a.mkdir('scratch')
  settle(world)
  b.configure({ ignore: ['scratch/'] })
  settle(world)
  // Deleted here: ignored, so that is nobody else's business.
  b.remove('scratch')
  pass(world, 130_000)
  t.true(a.has('scratch'))
  // Deleted there, while here a file has taken the place of all that it was in.
  disconnect(a, b)
  b.stop()
  b.remove('e')
  b.write('e', 'a file')
  b.start()
  a.remove('e/scratch')
  a.touch('e/scratch', 'e/scratch/f')
  pass(world, 5_000)
  connect(a, b)
  pass(world, 130_000)
  t.deepEqual([a.state.missing, b.state.missing, b.state.problems], [[], [], []])
  t.is(a.read('e'), 'a file')
  b.configure({ ignore: [] })
  pass(world, 130_000)
  t.deepEqual([a.state.missing, b.state.missing, b.state.problems], [[], [], []])
  assertAgree(t, world)
})

test('what is ignored in place of a file that is not: the file has gone', t => {
  for (const away of [true, false]) {
    const { world, a, b } = makePair()
    a.write('e', 'x')
    settle(world)
    b.configure({ ignore: ['e/'] })
    settle(world)
    if (away) b.stop()
    b.remove('e')
    b.mkdir('e')
    b.write('e/private', 'mine')
    if (away) b.start()
    else b.touch('e', 'e/private')
    pass(world, 130_000)
    t.false(a.has('e'), `away: ${away}`)
    t.is(b.read('e/private'), 'mine')
    t.deepEqual([a.state.missing, b.state.missing, b.state.problems], [[], [], []])
    // And if others delete the file first.
    a.write('f', 'y')
    settle(world)
    disconnect(a, b)
    a.remove('f')
    pass(world, 5_000)
    b.configure({ ignore: ['e/', 'f/'] })
    b.stop()
    b.remove('f')
    b.mkdir('f')
    b.start()
    connect(a, b)
    pass(world, 130_000)
    t.deepEqual([a.state.missing, b.state.missing, b.state.problems], [[], [], []])
  }
})

test('a rule file in the tree is synced and obeyed', t => {
  const { world, a, b } = makePair()
  a.mkdir('sub')
  a.write('sub/.realizeignore', 'private*\n!private-not\n')
  settle(world)
  b.write('sub/private', 'mine')
  b.write('sub/private-not', 'ours')
  b.write('private', 'elsewhere')
  settle(world)
  t.deepEqual(Object.keys(a.tree()).sort(), ['private', 'sub', 'sub/.realizeignore', 'sub/private-not'])
  t.true(b.has('sub/private'))
  t.true(a.state.consensus)
})

test('a file whose peer ignores what lives below its path makes room all the same', t => {
  const { world, a, b } = makePair()
  a.configure({ ignore: ['e/'] })
  b.configure({ ignore: [] })
  disconnect(a, b)
  for (const text of ['first', 'second', 'third']) {
    a.write('e', text)
    pass(world, 3_000)
  }
  b.mkdir('e')
  b.write('e/x', 'below')
  pass(world, 3_000)
  connect(a, b)
  pass(world, 130_000)
  t.deepEqual([a.state.missing, b.state.missing, b.state.problems], [[], [], []])
  t.is(b.read('e/x'), 'below')
  const { e: _, 'e/x': __, ...copies } = b.tree()
  t.deepEqual(Object.values(copies), ['third'])
  t.true(Object.values(a.tree()).includes('third'))
})

test('what is wanted and cannot be had is not wanted any more once it is ignored', t => {
  const { world, a, b } = makePair()
  a.write('skip.log', 'first')
  until(world, () => b.store.entry('skip.log' as EntryPath)?.pending === true)
  disconnect(a, b)
  // Of which nobody has the content any more, and the new one is ignored.
  a.write('.realizeignore', '*.log\n')
  pass(world, 5_000)
  a.stop()
  a.write('skip.log', 'second')
  a.start()
  pass(world, 5_000)
  connect(a, b)
  pass(world, 130_000)
  t.true(b.has('.realizeignore'))
  t.deepEqual([a.state.missing, b.state.missing, b.state.problems], [[], [], []])
  t.is(a.read('skip.log'), 'second')
})

test('rules end on all peers with the file that holds them: deleted, renamed, or moved with its folder', t => {
  for (const end of ['delete', 'rename', 'move'] as const) {
    const { world, a, b } = makePair()
    a.mkdir('sub')
    a.write('sub/.realizeignore', '*.log\n')
    settle(world)
    a.write('sub/a.log', 'of a')
    b.write('sub/b.log', 'of b')
    settle(world)
    t.false(b.has('sub/a.log'), end)
    if (end === 'delete') a.remove('sub/.realizeignore')
    else if (end === 'rename') a.rename('sub/.realizeignore', 'sub/rules of old')
    else {
      a.rename('sub', 'other')
      a.rename('other/.realizeignore', 'rules of old')
    }
    settle(world)
    const folder = end === 'move' ? 'other' : 'sub'
    t.is(b.read(`${folder}/a.log`), 'of a', end)
    t.is(a.read('sub/b.log'), 'of b', end)
    assertAgree(t, world)
  }
})

test('what hindered an entry is not said any more once the entry is not wanted any more', t => {
  const { world, a, b } = makePair()
  a.write('f', 'content')
  until(world, () => b.store.entry('f' as EntryPath)?.pending === true)
  disconnect(a, b)
  pass(world, 5_000)
  t.deepEqual(
    b.state.problems.map(({ path }) => path),
    ['f'],
  )
  a.remove('f')
  pass(world, 5_000)
  connect(a, b)
  settle(world)
  t.deepEqual(b.state.problems, [])
  assertAgree(t, world)
})

// Messages

test('batches that come twice change nothing', t => {
  const { world, a, b } = makePair()
  a.write('f', 'x')
  a.mkdir('d')
  a.write('d/g', 'y')
  settle(world)
  const feeds = world.delivered.flatMap(({ from, header }) => (from === a && header.type === 'feed' ? [header] : []))
  t.true(feeds.length > 0)
  const { seq } = b.store.state()
  for (const feed of [...feeds, ...feeds.toReversed()]) hand(b, a, { type: 'wire', header: feed })
  settle(world)
  t.deepEqual(b.refusals, [])
  t.is(b.store.state().seq, seq)
  assertAgree(t, world)
})

test('a gap in the feed ends the connection', t => {
  const { world, a, b } = makePair()
  a.write('f', 'x')
  settle(world)
  const feed = world.delivered
    .flatMap(({ from, header }) => (from === a && header.type === 'feed' ? [header] : []))
    .at(-1)
  t.truthy(feed)
  if (feed) hand(b, a, { type: 'wire', header: { ...feed, from: 1000, to: 1001 } })
  t.deepEqual(
    b.refusals.map(({ code }) => code),
    ['message_invalid'],
  )
})

test('a batch for another replica, as a late one is, is discarded', t => {
  const { world, a, b } = makePair()
  const { replica } = b.store.state()
  const common = { type: 'feed' as const, arena: ARENA, from: 0, to: 1, entries: [] }
  hand(b, a, {
    type: 'wire',
    header: { ...common, source: a.store.state().replica, reader: 'f'.repeat(16) as typeof replica },
  })
  hand(b, a, { type: 'wire', header: { ...common, source: 'f'.repeat(16) as typeof replica, reader: replica } })
  settle(world)
  t.deepEqual(b.refusals, [])
  assertAgree(t, world)
})

test('a feed with a path that leaves the tree, or a version that cannot be, ends the connection and changes nothing', t => {
  const bad = [
    { path: '../up' },
    { path: '/etc/passwd' },
    { path: 'a/../../b' },
    { path: '.realize/marker' },
    { path: '.REALIZE/staging/x' },
    { path: 'nul\0' },
    { g: 1_000 },
    { vector: [] },
    { mtime: '9999999999999999999' },
    { type: 'symlink' as const },
    { hash: undefined },
  ]
  for (const fields of bad) {
    const { world, a, b } = makePair()
    const read = b.store.peer(a.id)?.read?.seq ?? 0
    const before = b.store.state()
    const entry = {
      path: 'good' as EntryPath,
      type: 'file' as const,
      size: 1,
      mtime: '5',
      exec: false,
      hash: 'a'.repeat(64),
      vector: [['b'.repeat(16), 1]],
      g: 1,
      author: a.author,
      has: true,
    }
    const good = { ...entry, path: 'other' as EntryPath }
    const feed = {
      type: 'feed',
      arena: ARENA,
      source: a.store.state().replica,
      reader: before.replica,
      from: read,
      to: read + 2,
      entries: [good, { ...entry, ...fields }],
    }
    hand(b, a, {
      type: 'wire',
      header: feed as unknown as Parameters<typeof hand>[2] extends { header: infer H } ? H : never,
    })
    t.is(b.refusals.length, 1, JSON.stringify(fields))
    t.is(b.entry('other'), undefined, 'a batch is taken whole or not at all')
    t.is(b.store.state().seq, before.seq)
    settle(world)
    t.deepEqual(b.tree(), {})
  }
})

test('drift is found by the roots and mended by reading from the start', t => {
  const { world, a, b } = makePair()
  a.write('f', 'w')
  settle(world)
  const old = b.entry('f')
  a.write('f', 'x')
  a.write('g', 'y')
  settle(world)
  // What b knows and shows of f is what it was before, without a trace in its feed.
  b.store.transact(writer => {
    if (old) writer.putEntry({ ...old, stamp: NO_STAMP }, false)
  })
  b.disk.writeFile('f', new Uint8Array(Buffer.from('w')))
  b.disk.touch('f', old?.stamp?.mtimeNs ?? 0n)
  t.not(a.state.root, b.state.root)
  b.arena.touched(null)
  pass(world, 200_000)
  settle(world)
  t.true(a.logged.includes('arena_drifted') || b.logged.includes('arena_drifted'))
  t.deepEqual(b.tree(), { f: 'x', g: 'y' })
  assertAgree(t, world)
})

test('a peer that has lost its disk and its store gets back also what it had made itself', t => {
  const { world, a, b } = makePair()
  a.write('of a', '1')
  b.write('of b', '2')
  settle(world)
  a.stop()
  a.disk = a.newDisk()
  a.tables = new MemoryTables()
  a.start()
  settle(world)
  t.deepEqual(a.tree(), { 'of a': '1', 'of b': '2' })
  assertAgree(t, world)
})

test('an arena that is paused takes and gives nothing, and catches up afterwards', t => {
  const { world, a, b } = makePair()
  b.configure({ paused: true })
  a.write('f', 'x')
  b.write('g', 'y')
  settle(world)
  t.deepEqual(b.tree(), { g: 'y' })
  t.deepEqual(a.tree(), { f: 'x' })
  b.configure({ paused: false })
  settle(world)
  t.deepEqual(a.tree(), { f: 'x', g: 'y' })
  assertAgree(t, world)
})

// Hindrances

test('what a full disk refuses waits with its reason, the rest goes on, and it comes when there is room', t => {
  const { world, a, b } = makePair()
  b.disk.totalBytes = 200
  a.write('great', 'x'.repeat(500))
  a.write('greater', 'y'.repeat(600))
  a.write('small', 'z')
  settle(world)
  t.deepEqual(b.tree(), { small: 'z' })
  t.deepEqual(
    b.state.problems.map(({ path, reason }) => [path, reason]),
    ['great', 'greater'].map(path => [path, 'the disk is full: make room']),
  )
  t.false(b.state.consensus)
  b.disk.totalBytes = Number.POSITIVE_INFINITY
  pass(world, 130_000)
  assertAgree(t, world)
  t.is(b.read('greater').length, 600)
})

test('a file that comes where a folder still holds what is ignored waits, without turning in circles', t => {
  const { world, a, b } = makePair()
  b.configure({ ignore: ['*.tmp'] })
  a.mkdir('thing')
  a.write('thing/f', 'x')
  settle(world)
  b.write('thing/mine.tmp', 'mine')
  a.remove('thing')
  a.touch('thing', 'thing/f')
  a.write('thing', 'now a file')
  settle(world)
  t.is(b.read('thing/mine.tmp'), 'mine')
  t.true(b.state.problems.some(({ path, reason }) => path === 'thing' && reason.includes('not empty')))
  b.remove('thing/mine.tmp')
  pass(world, 130_000)
  t.is(b.read('thing'), 'now a file')
  assertAgree(t, world)
})

test('a child that cannot be deleted keeps its folder, and both go when it can', t => {
  const { world, a, b } = makePair()
  a.mkdir('folder')
  a.write('folder/stuck', 'x')
  a.write('folder/other', 'y')
  settle(world)
  b.disk.fault = (operation, path) => (operation === 'takeOut' && path === 'folder/stuck' ? 'EACCES' : null)
  a.remove('folder')
  a.touch('folder', 'folder/stuck', 'folder/other')
  settle(world)
  t.deepEqual(b.tree(), { folder: '/', 'folder/stuck': 'x' })
  t.regex(b.state.problems.map(({ path, reason }) => `${path}: ${reason}`).join(), /folder\/stuck: no permission/)
  b.disk.fault = null
  pass(world, 130_000)
  t.deepEqual(b.tree(), {})
  assertAgree(t, world)
})

test('content that does not fit its hash is never placed, whoever spoilt it', t => {
  const { world, a, b } = makePair()
  world.tamper = message => {
    if (message.type === 'send' && message.header.type === 'pack' && message.payload?.[0] !== undefined)
      message.payload[0] ^= 1
  }
  a.write('f', 'content')
  settle(world)
  t.deepEqual(b.tree(), {})
  t.true(b.logged.includes('blob_invalid'))
  world.tamper = null
  pass(world, 130_000)
  t.deepEqual(b.tree(), { f: 'content' })
  assertAgree(t, world)
})

test('a link to elsewhere and a path through it write nothing through the link', t => {
  const { world, a, b } = makePair()
  b.mkdir('outside')
  settle(world)
  const replica = 'b'.repeat(16)
  const common = { g: 1, author: a.author, has: true }
  const read = b.store.peer(a.id)?.read?.seq ?? 0
  const entries = [
    { ...common, path: 'x', type: 'symlink', target: 'outside', vector: [[replica, 1]] },
    { ...common, path: 'x/planted', type: 'dir', vector: [[replica, 2]] },
  ]
  const feed = {
    type: 'feed',
    arena: ARENA,
    source: a.store.state().replica,
    reader: b.store.state().replica,
    from: read,
    to: read + 2,
    entries,
  }
  hand(b, a, { type: 'wire', header: wire.parse(feed) as ArenaWireMessage })
  pass(world, 10_000)
  t.false(b.has('outside/planted'))
  t.deepEqual(
    Object.keys(b.tree()).filter(path => path.startsWith('outside')),
    ['outside'],
  )
  t.not(b.disk.stat('x' as EntryPath)?.type, 'file')
})

test('waiting ends when all agree, and at its time with what is missing', t => {
  const { world, a, b } = makePair()
  a.write('f', 'x')
  const agreed = a.ask('settle', { timeoutMs: 60_000 })
  settle(world)
  t.deepEqual(agreed(), { consensus: true, missing: [] })
  b.disk.fault = operation => (operation === 'stageFile' ? 'ENOSPC' : null)
  a.write('f', 'y')
  const late = a.ask('settle', { timeoutMs: 10_000 })
  pass(world, 9_000)
  t.is(late(), undefined)
  pass(world, 2_000)
  t.like(late(), { consensus: false, missing: ['B lacks 1 entries'] })
})

test('history tells what happened here and elsewhere, newest first', t => {
  const { world, a, b } = makePair()
  a.write('f', '1')
  settle(world)
  a.write('f', '2')
  settle(world)
  a.rename('f', 'g')
  settle(world)
  b.remove('g')
  settle(world)
  const actions = (peer: Peer) =>
    (peer.run('history', { limit: 10 }) as { events: { action: string; path: string }[] }).events.map(
      ({ action, path }) => `${action} ${path}`,
    )
  t.deepEqual(actions(a), ['removed g', 'renamed g', 'edited f', 'created f'])
  t.deepEqual(actions(b), ['deleted g', 'renamed g', 'received f', 'received f'])
})

test('who is told that a peer looks at its disk is told when that is over, however soon', t => {
  const { world, a, b } = makePair()
  a.write('f', 'x')
  settle(world)
  // The thread is late: it is told in the very moment in which there is something to look at.
  a.arena.touched(['f'])
  world.nowMs += 1_000
  a.arena.tick()
  settle(world)
  t.deepEqual(b.state.missing, [])
})
