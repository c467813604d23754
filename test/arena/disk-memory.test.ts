/** What only the disk in memory has: power loss, faults and made-up descriptors. */
import test from 'ava'
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
  release()
  t.false(disk.beingWritten(path('file')))
})

test('a name that is not well-formed is marked', t => {
  const disk = makeDisk()
  disk.writeFile('bad\udc80', bytesOf('x'))
  t.deepEqual(disk.list(undefined), { names: ['bad\ufffd'], invalid: ['bad\ufffd'] })
  t.deepEqual(disk.listStat(undefined), { entries: [], invalid: ['bad\ufffd'] })
})
