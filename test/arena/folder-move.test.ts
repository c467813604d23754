/** A folder that one peer renames: the other's disk does it in one step where all fits, entry by entry where not, and nothing is lost by it. */
import test from 'ava'
import { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { assertAgree, connect, disconnect, Killed, makeHousehold, makePair, type Peer, settle } from './_pair.ts'

const FILES = 40

/** A folder with files, a link, an empty file, a program and folders, known to all. */
function fill(a: Peer, folder = 'from'): void {
  a.mkdir(folder)
  for (const deep of ['deep', 'deep/er', 'empty']) a.mkdir(`${folder}/${deep}`)
  for (let file = 0; file < FILES; file++) a.write(`${folder}/deep/${file}`, `content ${file}`)
  a.write(`${folder}/deep/er/last`, 'the last')
  a.write(`${folder}/nothing`, '')
  a.write(`${folder}/program`, 'program')
  a.disk.chmod(`${folder}/program`, 0o755)
  a.symlink('deep/1', `${folder}/link`)
}

/** What this peer's service does to its tree from now on; `before` is done in the moment before each step. */
function steps(peer: Peer, before: (operation: string, path: string) => void = () => {}): string[] {
  const seen: string[] = []
  const tree = new Set(['place', 'takeOut', 'move', 'makeFolder', 'removeFolder', 'setMeta', 'linkKept'])
  peer.disk.fault = (operation, path) => {
    if (!tree.has(operation)) return null
    seen.push(operation)
    before(operation, path)
    return null
  }
  return seen
}

test('a renamed folder is one step on the disk of the other peer, whatever is in it', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  const ino = b.disk.stat('from' as EntryPath)?.ino
  const done = steps(b)
  a.rename('from', 'to')
  settle(world)
  t.deepEqual(done, ['move'])
  t.is(b.disk.stat('to' as EntryPath)?.ino, ino)
  t.deepEqual(b.tree(), a.tree())
  t.is(b.read('to/deep/er/last'), 'the last')
  t.false(b.has('from'))
  assertAgree(t, world)
  t.deepEqual(b.kept(), [])
  const renamed = b.history.filter(({ action, other }) => action === 'renamed' && other === 'from/deep/7')
  t.deepEqual(
    renamed.map(({ path }) => path),
    ['to/deep/7'],
  )
})

test('what was only moved with its folder is not read again; what was written to behind its size and mtime is', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  const read: string[] = []
  for (const { disk } of [a, b]) {
    disk.read = path => {
      read.push(path)
      return MemoryDisk.prototype.read.call(disk, path)
    }
  }
  const { mtimeNs } = a.disk.stat('from/deep/3' as EntryPath)!
  a.disk.writeFile('from/deep/3', new Uint8Array(Buffer.from('CONTENT 3')))
  a.disk.touch('from/deep/3', mtimeNs)
  a.rename('from', 'to')
  settle(world)
  t.deepEqual(new Set(read), new Set(['to/deep/3']))
  assertAgree(t, world)
  t.is(b.read('to/deep/3'), 'CONTENT 3')
})

test('a rename that a scan meets before the watcher has told of it is one step as well', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  const done = steps(b)
  // In the order of names the new one comes first.
  a.disk.rename('from', 'early')
  a.run('rescan')
  settle(world)
  t.deepEqual(done, ['move'])
  t.is(a.history.filter(({ action }) => action === 'renamed').length, FILES + 3)
  assertAgree(t, world)
})

test('a folder that is renamed into a new folder, and back, is one step each time', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  const there = steps(b)
  a.mkdir('new')
  a.rename('from', 'new/to')
  settle(world)
  t.deepEqual(there.sort(), ['makeFolder', 'move'])
  const back = steps(b)
  a.rename('new/to', 'from')
  settle(world)
  t.deepEqual(back, ['move'])
  assertAgree(t, world)
})

test('a folder of more files than a batch holds is one step, though its batches come one by one', t => {
  const { world, a, b } = makePair()
  const MANY = 2_500
  a.mkdir('from')
  for (let file = 0; file < MANY; file++) a.disk.writeFile(`from/${file}`, new Uint8Array(Buffer.from(`${file}`)))
  a.touch('from')
  settle(world)
  const done = steps(b)
  a.rename('from', 'to')
  settle(world)
  t.deepEqual(done, ['move'])
  t.is(Object.keys(b.tree()).length, MANY + 1)
  assertAgree(t, world)
})

test('a peer that hears of the rename from another one does it in one step as well', t => {
  const { world, peers } = makeHousehold(3)
  const [a, , c] = peers as [Peer, Peer, Peer]
  disconnect(a, c)
  fill(a)
  settle(world)
  const done = steps(c)
  a.rename('from', 'to')
  settle(world)
  t.deepEqual(done, ['move'])
  t.deepEqual(c.tree(), a.tree())
})

test('what is ignored in a folder stays where it is, and all else moves', t => {
  const { world, a, b } = makePair()
  b.configure({ ignore: ['*.tmp'] })
  fill(a)
  settle(world)
  b.write('from/deep/scratch.tmp', 'mine')
  a.rename('from', 'to')
  settle(world)
  t.is(b.read('from/deep/scratch.tmp'), 'mine')
  t.is(b.read('to/deep/3'), 'content 3')
  t.false(b.has('to/deep/scratch.tmp'))
  t.false(b.has('from/deep/3'))
  t.true(a.state.consensus && b.state.consensus)
})

test('an edit in the folder that the peers have not seen, and a file that they do not know, stay with it', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  disconnect(a, b)
  a.rename('from', 'to')
  settle(world)
  b.disk.writeFile('from/deep/3', new Uint8Array(Buffer.from('edited by b')))
  b.disk.writeFile('from/deep/new', new Uint8Array(Buffer.from('new of b')))
  connect(a, b)
  settle(world)
  b.touch('from/deep/3', 'from/deep/new')
  settle(world)
  assertAgree(t, world)
  const contents = Object.values(a.tree())
  t.true(contents.includes('edited by b') && contents.includes('new of b'))
  t.is(a.read('to/deep/4'), 'content 4')
})

test('what a user does in the very moment goes along with the folder, and becomes a change of its own', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  const done = steps(b, operation => {
    if (operation !== 'move') return
    b.disk.writeFile('from/deep/3', new Uint8Array(Buffer.from('edited in between')))
    b.disk.writeFile('from/deep/new', new Uint8Array(Buffer.from('made in between')))
    b.disk.remove('from/deep/4')
    b.disk.rename('from/deep/5', 'from/five')
  })
  a.rename('from', 'to')
  settle(world)
  t.is(done[0], 'move')
  assertAgree(t, world)
  t.is(a.read('to/deep/3'), 'edited in between')
  t.is(a.read('to/deep/new'), 'made in between')
  t.false(a.has('to/deep/4'))
  t.is(a.read('to/five'), 'content 5')
  t.false(a.has('to/deep/5'))
  t.is(a.read('to/deep/6'), 'content 6')
})

test('a folder that a user puts in its place in the very moment is not moved over', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  steps(b, operation => {
    if (operation !== 'move' || b.has('to')) return
    b.mkdir('to')
    b.write('to/mine', 'of b')
  })
  a.rename('from', 'to')
  settle(world)
  assertAgree(t, world)
  t.is(a.read('to/mine'), 'of b')
  t.is(a.read('to/deep/9'), 'content 9')
  t.false(a.has('from'))
})

test('a folder of which only a part was moved keeps the rest', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  a.mkdir('to')
  a.rename('from/deep', 'to/deep')
  settle(world)
  assertAgree(t, world)
  t.deepEqual(b.tree(), a.tree())
  t.is(b.read('from/program'), 'program')
  a.mkdir('part')
  for (const name of ['program', 'nothing']) a.rename(`from/${name}`, `part/${name}`)
  settle(world)
  assertAgree(t, world)
  t.true(b.has('from/link') && b.has('part/program'))
})

test('a file that comes into the old folder from elsewhere keeps it, and the rest moves', t => {
  const { world, peers } = makeHousehold(3)
  const [a, b, c] = peers as [Peer, Peer, Peer]
  disconnect(a, c)
  fill(a)
  settle(world)
  disconnect(b, c)
  disconnect(a, b)
  c.write('from/late', 'of c')
  a.rename('from', 'to')
  settle(world)
  connect(b, c)
  connect(a, b)
  settle(world)
  for (const peer of peers) t.is(peer.read('from/late'), 'of c')
  for (const peer of peers) t.is(peer.read('to/deep/8'), 'content 8')
  t.deepEqual(a.tree(), b.tree())
  t.deepEqual(c.tree(), b.tree())
})

test('a move that the disk refuses is done entry by entry', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  let refused = 0
  b.disk.fault = (operation, path) => (operation === 'move' && path === 'from' && ++refused > 0 ? 'EXDEV' : null)
  a.rename('from', 'to')
  settle(world)
  t.is(refused, 1)
  t.deepEqual(b.tree(), a.tree())
  assertAgree(t, world)
})

test('a peer that is killed right after it has moved a folder goes on from there', t => {
  const { world, a, b } = makePair()
  fill(a)
  settle(world)
  disconnect(a, b)
  a.rename('from', 'to')
  settle(world)
  const ino = b.disk.stat('from' as EntryPath)?.ino
  let deaths = 0
  for (let step = 1; ; step++) {
    const before = b.disk
    b.stop()
    try {
      b.startDying(step)
      connect(a, b)
      settle(world)
    } catch (error) {
      if (!(error instanceof Killed)) throw error
      b.stop()
      if (b.has('to') && b.entry('from/deep/1')?.pending) deaths++
      b.start()
      connect(a, b)
      continue
    }
    t.is(b.disk, before)
    break
  }
  b.disk.fault = null
  settle(world)
  t.is(deaths, 1)
  t.is(b.disk.stat('to' as EntryPath)?.ino, ino)
  assertAgree(t, world)
})
