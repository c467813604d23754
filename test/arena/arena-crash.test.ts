/** One peer dies at every single step of applying and comes back: the end is that of an undisturbed run, names and all. */
import test from 'ava'
import type { DiskStat } from '../../actors/arena/disk.ts'
import type { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import {
  assertAgree,
  connect,
  disconnect,
  Killed,
  makePair,
  type Peer,
  pass,
  settle,
  turn,
  type World,
} from './_pair.ts'

interface Scene {
  world: World
  a: Peer
  b: Peer
}

/** What both sides do while they are apart; then they meet, and b dies. */
const scenes: Record<string, (scene: Scene) => void> = {
  'a conflict that b loses': ({ world, a, b }) => {
    b.write('f.txt', 'of b')
    edit(world, a, 'f.txt', 3)
  },
  'a conflict that b wins': ({ world, a, b }) => {
    a.write('f.txt', 'of a')
    edit(world, b, 'f.txt', 3)
  },
  'a deletion that wins over an edit': ({ world, a, b }) => {
    b.write('f.txt', 'of b')
    edit(world, a, 'f.txt', 3)
    a.remove('f.txt')
  },
  'new versions, new files, links and folders': ({ a }) => {
    a.write('f.txt', 'second')
    a.mkdir('new')
    a.write('new/x', 'x')
    a.write('new/empty', '')
    a.symlink('f.txt', 'link')
    a.disk.chmod('folder/g', 0o755)
    a.touch('folder/g')
  },
  'renames of a file and a folder': ({ a }) => {
    a.rename('f.txt', 'moved.txt')
    a.rename('folder', 'elsewhere')
    a.touch('folder/g', 'elsewhere/g')
  },
  'the move of a folder with all that is in it': ({ a }) => {
    a.mkdir('folder/deep')
    for (const name of ['1', '2', '3']) a.write(`folder/deep/${name}`, `content ${name}`)
    a.rename('folder', 'elsewhere')
  },
  'the deletion of everything': ({ a }) => {
    a.remove('f.txt')
    a.remove('folder')
    a.touch('folder', 'folder/g')
  },
  'a file that becomes a folder, and a folder a file': ({ a }) => {
    a.remove('f.txt')
    a.mkdir('f.txt')
    a.write('f.txt/inside', 'x')
    a.remove('folder')
    a.touch('folder', 'folder/g')
    a.write('folder', 'now a file')
  },
  'a folder that wins over a file': ({ a, b }) => {
    b.write('thing', 'file of b')
    a.mkdir('thing')
    a.write('thing/inside', 'x')
  },
  'a file that wins where b holds a folder': ({ world, a, b }) => {
    edit(world, a, 'thing', 3)
    b.mkdir('thing')
    b.write('thing/inside', 'x')
  },
  'a folder that comes where the file of b had won': ({ world, a, b }) => {
    a.mkdir('thing')
    a.write('thing/inside', 'x')
    edit(world, b, 'thing', 3)
  },
  'a file of several leaves': ({ a }) => {
    a.write('big', 'big'.repeat(150_000))
  },
}

function edit(world: World, peer: Peer, path: string, times: number): void {
  for (let i = 0; i < times; i++) {
    peer.write(path, `edit ${i} of ${peer.name}`)
    settle(world)
  }
}

/** Killed, only the process is gone; without power the disk falls back to what its last sync covered. */
type End = 'killed' | 'power lost'

/** `step` 0: nobody dies. True: b died, and came back. */
function play(act: (scene: Scene) => void, step: number, end: End): Scene & { died: boolean } {
  const scene = makePair()
  const { world, a, b } = scene
  a.write('f.txt', 'base')
  a.mkdir('folder')
  a.write('folder/g', 'g')
  settle(world)
  disconnect(a, b)
  world.nowMs += 60_000
  act(scene)
  settle(world)
  b.stop()
  let died = false
  try {
    if (step === 0) b.start()
    else b.startDying(step)
    connect(a, b)
    settle(world)
  } catch (error) {
    if (!(error instanceof Killed)) throw error
    died = true
    b.stop()
    if (end === 'power lost') {
      b.disk.crash()
      b.boot = 'boot-2'
    }
    b.start()
    connect(a, b)
    settle(world)
  }
  b.disk.fault = null
  return { ...scene, died }
}

for (const end of ['killed', 'power lost'] as const) {
  for (const [title, act] of Object.entries(scenes)) {
    test(`${end} at any step, b ends where it would have ended: ${title}`, t => {
      const expected = play(act, 0, end)
      assertAgree(t, expected.world)
      const tree = expected.a.tree()
      for (let step = 1; ; step++) {
        const { world, b, died } = play(act, step, end)
        t.deepEqual(b.tree(), tree, `${end} at step ${step}`)
        // Rows of versions that the power loss has undone go in time.
        if (died && end === 'power lost') pass(world, 2 * 3_600_000)
        assertAgree(t, world)
        if (!died) {
          t.true(step > 10, 'b never died')
          return
        }
      }
    })
  }
}

/** A user's change at b has been announced and taken by a, and is not durable yet when the power goes. */
function announcedThenOff(before: string | null, left: (b: Peer) => void): Scene {
  const scene = makePair()
  const { world, a, b } = scene
  if (before !== null) b.write('f', before)
  settle(world)
  b.write('f', 'announced')
  for (let turns = 0; !a.has('f') || a.read('f') !== 'announced'; turns++) {
    if (turns > 1000) throw new Error('a does not get it')
    pass(world, 10)
  }
  b.stop()
  left(b)
  b.boot = 'boot-2'
  b.start()
  settle(world)
  return scene
}

function leave(b: Peer, text: string): void {
  b.disk.writeFile('f', new Uint8Array(Buffer.from(text)))
}

for (const before of [null, 'before']) {
  const what = before === null ? 'a new file' : 'an edit'
  test(`the power loss took the name of ${what} that was announced: it is fetched again, not deleted`, t => {
    const { world, a, b } = announcedThenOff(before, peer => peer.disk.remove('f'))
    t.deepEqual(a.tree(), { f: 'announced' })
    assertAgree(t, world)
    t.true(b.has('f'))
  })

  test(`the power loss took the content of ${what} that was announced: it is fetched again, and nothing cut short is spread`, t => {
    const { world, a, b } = announcedThenOff(before, peer => leave(peer, ''))
    t.deepEqual(a.tree(), { f: 'announced' })
    t.deepEqual(b.tree(), { f: 'announced' })
    assertAgree(t, world)
  })

  test(`somebody wrote over ${what} after the power loss: that is a change like any`, t => {
    const { world, a } = announcedThenOff(before, peer => leave(peer, 'by hand'))
    t.deepEqual(a.tree(), { f: 'by hand' })
    t.true(a.contents().has('announced'))
    assertAgree(t, world)
  })
}

test('somebody wrote over what a power loss may have undone: it is based on what was before, and both stay', t => {
  const { world, a, b } = makePair()
  a.write('f', 'before')
  settle(world)
  a.write('f', 'received')
  for (let turns = 0; b.read('f') !== 'received' && turns < 1000; turns++) pass(world, 10)
  b.stop()
  leave(b, 'by hand')
  b.boot = 'boot-2'
  b.start()
  settle(world)
  t.deepEqual(Object.values(a.tree()).sort(), ['by hand', 'received'])
  assertAgree(t, world)
})

test('what is deleted after all was looked at is deleted, power loss or not', t => {
  const { world, a, b } = makePair()
  b.mkdir('folder')
  b.write('folder/f', 'x')
  b.symlink('x', 'link')
  for (let turns = 0; !a.has('link') && turns < 1000; turns++) pass(world, 10)
  b.stop()
  b.boot = 'boot-2'
  b.start()
  settle(world)
  b.remove('link')
  b.remove('folder')
  b.touch('folder', 'folder/f')
  settle(world)
  t.deepEqual(a.tree(), {})
  assertAgree(t, world)
})

test('the power loss brought back what an edit had replaced: the edit is fetched again', t => {
  const { world, a, b } = announcedThenOff('before', peer => leave(peer, 'before'))
  t.deepEqual(a.tree(), { f: 'announced' })
  t.deepEqual(b.tree(), { f: 'announced' })
  t.true(b.contents().has('before'), 'what was found is in the version store')
  assertAgree(t, world)
})

for (const [torn, bytes] of Object.entries({
  'cut short': 'annou',
  'full of zeros': '\0'.repeat(9),
  'half of zeros': 'annou\0\0\0\0',
  'made of old and new': 'announcre',
})) {
  test(`the power loss left an edit ${torn}: it is fetched again, and what was found is nowhere but in the version store`, t => {
    const { world, a, b } = announcedThenOff('before', peer => {
      const { mtimeNs } = statOf(peer, 'f')
      leave(peer, bytes)
      peer.disk.touch('f', mtimeNs)
    })
    t.deepEqual(a.tree(), { f: 'announced' })
    t.true(b.contents().has(bytes))
    assertAgree(t, world)
  })
}

/** A change that b has announced, and whose content nobody has fetched when the power goes at b. */
function announcedOnly(before: string | null, left: (b: Peer) => void): Scene {
  const scene = makePair()
  const { world, a, b } = scene
  if (before !== null) b.write('f', before)
  settle(world)
  b.write('f', 'announced')
  until(world, 'a hears of it', () => a.entry('f')?.pending === true)
  b.stop()
  left(b)
  b.boot = 'boot-2'
  return scene
}

test('what was before takes the place of an edit that the power loss took before anybody had it', t => {
  const { world, a, b } = announcedOnly('before', peer => leave(peer, 'before'))
  b.start()
  settle(world)
  pass(world, 5 * 60_000)
  t.deepEqual(a.tree(), { f: 'before' })
  t.true(b.logged.includes('content_lost'))
  assertAgree(t, world)
})

test('a new file that the power loss took before anybody had it is deleted, and its torn rest is kept as a version', t => {
  const { world, a, b } = announcedOnly(null, peer => {
    const { mtimeNs } = statOf(peer, 'f')
    leave(peer, 'annou\0\0\0\0')
    peer.disk.touch('f', mtimeNs)
  })
  b.start()
  settle(world)
  pass(world, 5 * 60_000)
  t.deepEqual(a.tree(), {})
  t.deepEqual([...b.contents()], ['annou\0\0\0\0'])
  assertAgree(t, world)
})

test('lost content is not given up while a peer is away that may have it', t => {
  const { world, a, b } = announcedOnly('before', peer => leave(peer, 'before'))
  a.stop()
  b.configure({ peers: [a.id] })
  b.start()
  pass(world, 60 * 60_000)
  t.true(b.entry('f')?.pending)
  t.false(b.logged.includes('content_lost'))
  t.regex(b.state.missing.join(), /no peer is connected that has it/)
})

test('what a store that was put back has forgotten, and its user has overwritten before anybody had it, is replaced by what he has', t => {
  for (const [before, after] of [
    ['a first', 'z second'],
    ['z first', 'a second'],
  ] as const) {
    const { world, a, b } = makePair()
    b.configure({ mark: 'unreal' })
    a.write('given', 'up')
    settle(world)
    // Content was given up in this arena, so that what nobody has is not simply taken for lost.
    a.store.transact(writer => writer.setState({ givenUp: 1 }))
    const old = a.tables.snapshot()
    a.write('file', before)
    settle(world)
    t.is(b.entry('file')?.known.content.type, 'file')
    a.stop()
    a.tables = old
    a.disk.writeFile('file', Buffer.from(after))
    a.start()
    connect(a, b)
    settle(world)
    pass(world, 120_000)
    settle(world)
    t.deepEqual(a.state.missing, [], before)
    t.is(a.read('file'), after)
  }
})

test('a big content that could not be made durable is not fetched again', t => {
  const { world, a, b } = makePair()
  settle(world)
  const completeSync = b.disk.completeSync.bind(b.disk)
  b.disk.completeSync = () => {}
  const film = Buffer.alloc(3 * LEAF_BYTES + 5, 'a film')
  a.write('film', film)
  until(world, 'all of it has come', () => b.disk.syncsWaiting > 0 && b.disk.stageList().length > 0)
  const came = () => world.delivered.filter(({ header }) => header.type === 'fetch_leaves').length
  const asked = came()
  t.true(asked > 0)
  completeSync('EIO')
  t.is(b.disk.stageList().length, 1)
  b.disk.completeSync = completeSync
  settle(world)
  t.is(b.read('film'), film.toString())
  t.is(came(), asked)
  t.deepEqual(b.disk.stageList(), [])
})

test('a big content that had come whole is kept where a power loss made its store forget of it; a part that is wanted goes on', t => {
  const { world, a, b } = makePair()
  settle(world)
  const forgetful = b.tables.snapshot()
  b.disk.completeSync = () => {}
  const film = Buffer.alloc(3 * LEAF_BYTES + 5, 'a film')
  a.write('film', film)
  until(world, 'all of it has come', () => b.disk.syncsWaiting > 0 && b.disk.stageList().length > 0)
  const [slot] = b.disk.stageList()
  const knowing = b.tables.snapshot()
  a.stop()
  b.stop()
  b.tables = forgetful
  b.boot = 'boot-2'
  b.start()
  t.deepEqual(
    b.kept().map(({ path, hash, size }) => [path, hash === null, size]),
    [['lost+found', false, film.length]],
  )
  t.deepEqual(b.disk.stageList(), [])

  // The same slot with less in it is a part, to go on from. What took part in a step may be what was to be replaced, of whatever size.
  const again = () => {
    b.stop()
    b.tables = knowing.snapshot()
    b.boot += ' and on'
    b.start()
    return { slots: b.disk.stageList(), kept: b.kept().length }
  }
  b.stop()
  b.disk.close(b.disk.stageOpen(slot!, film.length))
  const before = b.kept().length
  t.deepEqual(again(), { slots: [slot], kept: before })
  b.disk.stageMove(slot!, `p-${slot!.slice(2)}-1`)
  t.deepEqual(again(), { slots: [], kept: before + 1 })
})

test('a file that was to be moved, and is edited before it is, stays with its edit', t => {
  const { world, a, b } = makePair()
  a.write('old', 'content')
  settle(world)
  // The move is chosen, and waits for the batch before it.
  const completeSync = b.disk.completeSync.bind(b.disk)
  b.disk.completeSync = () => {}
  a.write('first', 'x')
  until(world, 'b syncs a batch', () => b.disk.syncsWaiting > 0 && b.disk.stageList().length > 0)
  a.rename('old', 'new')
  until(world, 'b hears of the rename', () => b.entry('new')?.pending === true)
  b.write('old', 'edited!')
  until(world, 'b has made it a version', () => b.entry('old')?.have?.author.startsWith('B') === true)
  b.disk.completeSync = completeSync
  settle(world)
  t.deepEqual(a.tree(), { first: 'x', new: 'content', old: 'edited!' })
  assertAgree(t, world)
})

test('a folder that was made for what does not come after all goes again', t => {
  const { world, a, b } = makePair()
  settle(world)
  a.mkdir('folder')
  a.write('folder/f', 'content')
  until(world, 'b hears of it', () => b.entry('folder/f')?.pending === true)
  a.remove('folder')
  a.touch('folder/f', 'folder')
  settle(world)
  t.deepEqual(b.tree(), {})
  assertAgree(t, world)
})

function until(world: World, what: string, holds: () => boolean): void {
  for (let turns = 0; !holds(); turns++) {
    if (turns > 10_000) throw new Error(`it does not come to this: ${what}`)
    turn(world)
    world.nowMs += 1
  }
}

function statOf(peer: Peer, path: string): DiskStat {
  return peer.disk.stat(path as EntryPath) as DiskStat
}

/** a has told b of two files whose content the power took, and is about to start again, over many others. */
function afterPowerLoss(files: number): Scene {
  const scene = makePair()
  const { world, a } = scene
  for (let n = 0; n < files; n++) a.write(`m${String(n).padStart(5, '0')}`, `text ${n}`)
  settle(world)
  pass(world, 60_000)
  a.write('a-new', 'A')
  a.write('z-new', 'Z')
  pass(world, 200)
  a.stop()
  a.disk.crash()
  a.boot = 'boot-2'
  return scene
}

const pauses: Record<string, { files: number; pause: (scene: Scene) => void }> = {
  'after the scan': {
    files: 3_000,
    pause: ({ world, a }) => {
      while (a.arena.busy) a.arena.step()
      a.configure({ paused: true })
      pass(world, 1_000)
      a.configure({ paused: false })
    },
  },
  'in the middle of the scan': {
    files: 3_000,
    pause: ({ world, a }) => {
      a.arena.step()
      a.configure({ paused: true })
      pass(world, 1_000)
      a.configure({ paused: false })
    },
  },
  'while the pool still hashes, and its answer comes first': {
    files: 10,
    pause: ({ world, a }) => {
      while (a.arena.busy) a.arena.step()
      a.configure({ paused: true })
      world.nowMs += 1_000
      a.arena.tick()
      a.configure({ paused: false })
      a.hashOne()
    },
  },
}

for (const [title, { files, pause }] of Object.entries(pauses)) {
  test(`what a power loss took comes again, also if the arena is paused ${title}`, t => {
    const scene = afterPowerLoss(files)
    const { world, a, b } = scene
    if (title.includes('pool')) a.disk.writeFile('big', new Uint8Array(LEAF_BYTES * 3).fill(3))
    world.nowMs += 5_000
    t.true(b.has('a-new') && b.has('z-new'))
    t.false(a.has('a-new') || a.has('z-new'))
    a.start()
    pause(scene)
    // A scan of several steps: what it finds missing first is judged before it comes to the last.
    while (a.arena.busy) {
      world.nowMs += 20
      a.arena.tick()
    }
    settle(world)
    for (const peer of [a, b])
      t.deepEqual(
        ['a-new', 'z-new'].map(path => peer.has(path) && peer.read(path)),
        ['A', 'Z'],
      )
    assertAgree(t, world)
  })
}

test('what could not be looked at after a power loss is suspect until it can', t => {
  for (const unreadable of ['a folder', 'a path']) {
    const { world, a, b } = makePair()
    a.mkdir('d')
    for (let n = 0; n < 10; n++) a.write(`d/m${n}`, `text ${n}`)
    settle(world)
    pass(world, 60_000)
    a.write('d/new', 'N')
    pass(world, 200)
    t.true(b.has('d/new'))
    a.stop()
    a.disk.crash()
    a.boot = 'boot-2'
    a.start()
    let refused = 0
    a.disk.fault = (operation, path) => {
      const isIt =
        unreadable === 'a path' ? operation === 'stat' && path === 'd/new' : operation === 'list' && path === 'd'
      if (isIt) refused++
      return isIt ? 'EIO' : null
    }
    settle(world)
    t.true(refused > 0)
    a.disk.fault = null
    a.arena.touched(null)
    settle(world)
    pass(world, 60_000)
    for (const peer of [a, b]) t.is(peer.has('d/new') && peer.read('d/new'), 'N', `${unreadable}, ${peer.name}`)
    assertAgree(t, world)
  }
})

/** a's power goes; all that it wrote is there. A fault of its disk from then on. */
function crashWhole({ world, a }: Scene, fault: MemoryDisk['fault']): void {
  pass(world, 200)
  a.stop()
  a.disk.crash({ steps: 'all', torn: 0, chance: () => 1 })
  a.boot = 'boot-2'
  a.start()
  a.disk.fault = fault
  settle(world)
}

const cannotList: MemoryDisk['fault'] = (operation, path) => (operation === 'list' && path === 'd' ? 'EACCES' : null)

test('a folder that cannot be listed makes nobody doubt what a user does in it later', t => {
  for (const passes of [true, false])
    for (const act of ['remove', 'empty', 'rename'] as const) {
      const scene = makePair()
      const { world, a, b } = scene
      a.mkdir('d')
      for (let n = 0; n < 5; n++) a.write(`d/m${n}`, `text ${n}`)
      settle(world)
      pass(world, 60_000)
      a.write('d/k', 'K')
      crashWhole(scene, cannotList)
      if (passes) a.disk.fault = null
      pass(world, 600_000)
      if (act === 'remove') a.remove('d/k')
      else if (act === 'empty') a.write('d/k', '')
      else a.rename('d/k', 'moved')
      settle(world)
      pass(world, 60_000)
      a.disk.fault = null
      for (const peer of [a, b]) {
        t.is(peer.has('d/k') ? peer.read('d/k') : null, act === 'empty' ? '' : null, `${act}, ${peer.name}`)
        t.is(peer.has('moved'), act === 'rename')
      }
      t.is(a.store.state().boot, 'boot-2')
    }
})

test('once all was looked at after a power loss, what is deleted while the service is stopped stays deleted', t => {
  for (const fault of [null, cannotList]) {
    const scene = makePair()
    const { world, a, b } = scene
    a.mkdir('d')
    a.write('d/k', 'text')
    settle(world)
    pass(world, 60_000)
    a.write('d/new', 'K')
    a.write('new', 'K')
    crashWhole(scene, fault)
    pass(world, 3_600_000)
    a.write('other', 'O')
    settle(world)
    pass(world, 3_600_000)
    t.is(a.store.state().boot, 'boot-2')
    a.stop()
    a.disk.remove('other')
    world.nowMs += 60_000
    a.start()
    settle(world)
    pass(world, 60_000)
    t.false(a.has('other') || b.has('other'))
  }
})
