/** What only the disk in memory has: power loss, faults and made-up descriptors. */
import test from 'ava'
import fc from 'fast-check'
import { DiskError } from '../../actors/arena/disk.ts'
import { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import { bytesOf, failsWith, path, statOf, textOf } from './_disk-acceptance.ts'

function makeDisk(): MemoryDisk {
  let nowNs = 0n
  return new MemoryDisk({ nowNs: () => ++nowNs })
}

test('a crash falls back to what the last completed sync covered', t => {
  const disk = makeDisk()
  const answers: (string | null)[] = []
  disk.writeFile('kept', bytesOf('first'))
  disk.sync(error => answers.push(error?.code ?? null))
  disk.writeFile('kept', bytesOf('second'))
  disk.writeFile('lost', bytesOf('x'))
  t.deepEqual(answers, [])
  disk.completeSync()
  t.deepEqual(answers, [null])
  disk.sync(() => t.fail('a sync that a crash cut off must not be answered'))
  disk.crash()
  t.deepEqual(disk.list(undefined).names, ['kept'])
  t.is(textOf(disk.readFile('kept')), 'first')
  disk.completeSync()
})

test('a sync that fails makes nothing durable', t => {
  const disk = makeDisk()
  disk.writeFile('file', bytesOf('x'))
  disk.sync(error => t.is(error?.code, 'EIO'))
  disk.completeSync('EIO')
  disk.crash()
  t.deepEqual(disk.list(undefined).names, [])
})

test('hard links and inodes survive a crash, and writes after it do not reach the durable state', t => {
  const disk = makeDisk()
  disk.autoSync = true
  disk.writeFile('a', bytesOf('x'))
  disk.link('a', 'b')
  disk.sync(error => t.is(error, null))
  const { ino } = statOf(disk, 'a')
  for (let round = 0; round < 2; round++) {
    disk.crash()
    t.is(statOf(disk, 'a').ino, ino)
    t.is(statOf(disk, 'b').links, 2)
    disk.writeFile('a', bytesOf('changed'))
    t.is(textOf(disk.readFile('b')), 'changed')
  }
})

test('a descriptor follows its file and is worthless after a crash', t => {
  const disk = makeDisk()
  const fd = disk.stageOpen('s', 10)
  disk.writeFd(fd, 4, bytesOf('late'))
  disk.stageFinish('s', 8, 5n, false)
  t.is(disk.place('s', path('file'), null), 'placed')
  t.is(textOf(disk.readFd(fd, 4, 100)), 'late')
  t.is(disk.statFd(fd).ino, statOf(disk, 'file').ino)
  disk.crash()
  failsWith(t, 'EBADF', () => disk.readFd(fd, 0, 1))
})

test('a full disk and injected faults fail as the real one would', t => {
  const disk = makeDisk()
  disk.totalBytes = 10
  disk.stageFile('s', bytesOf('123456'), 1n, false)
  failsWith(t, 'ENOSPC', () => disk.stageFile('t', bytesOf('12345'), 1n, false))
  t.deepEqual(disk.free(), { freeBytes: 4, totalBytes: 10 })
  disk.fault = operation => (operation === 'place' ? 'EIO' : null)
  failsWith(t, 'EIO', () => disk.place('s', path('file'), null))
  disk.fault = null
  t.is(disk.place('s', path('file'), null), 'placed')
})

test('a file that is held open for writing is told', t => {
  const disk = makeDisk()
  disk.writeFile('file', bytesOf('x'))
  const release = disk.holdForWriting('file')
  t.true(disk.beingWritten(path('file')))
  failsWith(t, 'EBUSY', () => disk.setMeta(path('file'), statOf(disk, 'file'), 1n, null))
  t.is(disk.takeOut(path('file'), 'slot', statOf(disk, 'file')), 'placed')
  t.true(disk.stageBeingWritten('slot'))
  release()
  t.false(disk.stageBeingWritten('slot'))
})

test('a name that is not well-formed is marked', t => {
  const disk = makeDisk()
  disk.writeFile('bad\udc80', bytesOf('x'))
  t.deepEqual(disk.list(undefined), { names: ['bad\ufffd'], invalid: ['bad\ufffd'] })
  t.deepEqual(disk.listStat(undefined), { entries: [], invalid: ['bad\ufffd'] })
})

test('whatever a power loss leaves, what was synced and not touched since stays, and a rename leaves one of its two names', t => {
  fc.assert(
    fc.property(
      fc.constantFrom('none' as const, 'first' as const, 'some' as const, 'all' as const),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.array(
        fc.record({ do: fc.constantFrom('write', 'rename', 'remove', 'folder'), at: fc.nat(5), to: fc.nat(5) }),
        {
          maxLength: 30,
        },
      ),
      fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
      (steps, torn, actions, numbers) => {
        const disk = makeDisk()
        disk.autoSync = true
        disk.mkdir('d')
        disk.writeFile('still', bytesOf('still'))
        disk.writeFile('d/moved', bytesOf('moved'))
        disk.sync(() => {})
        disk.autoSync = false
        disk.rename('d/moved', 'moved')
        for (const action of actions) {
          const [from, to] = [`f${action.at}`, action.at % 2 === 0 ? `f${action.to}` : `d/f${action.to}`]
          try {
            if (action.do === 'write') disk.writeFile(from, bytesOf(`written ${action.to}`))
            else if (action.do === 'rename') disk.rename(from, to)
            else if (action.do === 'remove') disk.remove(to)
            else disk.mkdir(to)
          } catch (error) {
            if (!(error instanceof DiskError)) throw error
          }
        }
        disk.crash({ steps, torn, chance: () => numbers.next().value as number })
        t.is(textOf(disk.readFile('still')), 'still')
        const places = ['moved', 'd/moved'].filter(place => disk.stat(path(place)) !== null)
        t.is(places.length, 1)
        t.is(textOf(disk.readFile(places[0] as string)), 'moved')
        t.is(disk.stat(path(places[0] as string))?.links, 1)
        // What it shows is durable now.
        const names = disk.list(undefined).names.sort()
        disk.crash()
        t.deepEqual(disk.list(undefined).names.sort(), names)
      },
    ),
    { numRuns: 400 },
  )
})
