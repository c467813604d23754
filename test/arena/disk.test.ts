/** The acceptance suite on each disk, and what only a real one can show. */
import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { type Disk, DiskError } from '../../actors/arena/disk.ts'
import { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import { openDisk } from '../../actors/arena/disk-open.ts'
import { openPortableDisk } from '../../actors/arena/disk-portable.ts'
import { openPosixDisk } from '../../actors/arena/disk-posix.ts'
import { close, FOLDER, openBelow, openRoot, openStepwise, posixFault, READ } from '../../actors/arena/posix-calls.ts'
import { acceptDisk, bytesOf, failsWith, path, type Rig, statOf, textOf } from './_disk-acceptance.ts'

function temporaryFolder(): string {
  return fs.mkdtempSync(join(tmpdir(), 'realize-disk-'))
}

function realRig(open: (root: string) => Disk, mtimeSlackNs: bigint): Rig {
  const root = temporaryFolder()
  const at = (name: string) => join(root, name)
  return {
    disk: open(root),
    user: {
      writeFile: (name, bytes) => fs.writeFileSync(at(name), bytes),
      readFile: name => fs.readFileSync(at(name)),
      mkdir: name => fs.mkdirSync(at(name)),
      symlink: (target, name) => fs.symlinkSync(target, at(name)),
      rename: (from, to) => fs.renameSync(at(from), at(to)),
      remove: name => fs.rmSync(at(name), { recursive: true, force: true }),
      chmod: (name, mode) => fs.chmodSync(at(name), mode),
    },
    mtimeSlackNs,
    cleanUp: () => fs.rmSync(root, { recursive: true, force: true }),
  }
}

function memoryRig(): Rig & { disk: MemoryDisk } {
  let nowNs = 1_700_000_000_000_000_000n
  const disk = new MemoryDisk({ nowNs: () => ++nowNs, autoSync: true })
  return {
    disk,
    user: disk,
    mtimeSlackNs: 0n,
    cleanUp: () => undefined,
  }
}

const hasPosix = posixFault === null
const posixTest = hasPosix ? test : test.skip

if (hasPosix) acceptDisk('posix', () => realRig(openPosixDisk, 0n))
acceptDisk('portable', () => realRig(openPortableDisk, 1_000_000n))
acceptDisk('memory', memoryRig)

function withRoot(body: (t: ExecutionContext, root: string, openAll: (use: (disk: Disk) => void) => void) => void) {
  return (t: ExecutionContext) => {
    const root = temporaryFolder()
    const openAll = (use: (disk: Disk) => void) => {
      for (const open of hasPosix ? [openPosixDisk, openPortableDisk] : [openPortableDisk]) {
        const disk = open(root)
        try {
          use(disk)
        } finally {
          disk.dispose()
        }
      }
    }
    try {
      body(t, root, openAll)
    } finally {
      fs.rmSync(root, { recursive: true, force: true })
    }
  }
}

test('the calls of Linux are there on Linux', t => {
  t.is(process.platform === 'linux' ? posixFault : null, null)
})

test('a root that is missing or a file is refused and not created', t => {
  const root = temporaryFolder()
  fs.writeFileSync(join(root, 'file'), '')
  for (const open of [openDisk, openPortableDisk]) {
    failsWith(t, 'ENOENT', () => open(join(root, 'none')))
    failsWith(t, 'ENOTDIR', () => open(join(root, 'file')))
  }
  t.deepEqual(fs.readdirSync(root), ['file'])
  fs.rmSync(root, { recursive: true })
})

posixTest(
  'a root that was replaced is found by its identity, and used from then on',
  withRoot((t, root) => {
    fs.mkdirSync(join(root, 'arena'))
    const disk = openPosixDisk(join(root, 'arena'))
    disk.writeMarker('one')
    const before = disk.identity()
    fs.renameSync(join(root, 'arena'), join(root, 'former'))
    failsWith(t, 'ENOENT', () => disk.identity())
    fs.mkdirSync(join(root, 'arena'))
    const after = disk.identity()
    t.not(after.rootIno, before.rootIno)
    t.is(after.marker, null)
    disk.makeFolder(path('here'))
    t.deepEqual(fs.readdirSync(join(root, 'arena')), ['here'])
    disk.dispose()
  }),
)

test(
  'names that are not UTF-8 are given and marked, and have no stat',
  withRoot((t, root, openAll) => {
    fs.writeFileSync(Buffer.concat([Buffer.from(`${root}/bad`), Buffer.of(0xff)]), '')
    fs.writeFileSync(join(root, 'honest\ufffd'), '')
    openAll(disk => {
      const { names, invalid } = disk.list(undefined)
      t.deepEqual(names.sort(), ['bad\ufffd', 'honest\ufffd'])
      t.deepEqual(invalid, ['bad\ufffd'])
      const { entries, invalid: unreadable } = disk.listStat(undefined)
      t.deepEqual(
        entries.map(entry => entry.name),
        ['honest\ufffd'],
      )
      t.deepEqual(unreadable, ['bad\ufffd'])
    })
  }),
)

test(
  'a pipe is seen as other, and opening it neither hangs nor works',
  withRoot((t, root, openAll) => {
    execFileSync('mkfifo', [join(root, 'pipe')])
    openAll(disk => {
      t.is(statOf(disk, 'pipe').type, 'other')
      failsWith(t, 'EINVAL', () => disk.open(path('pipe')))
      failsWith(t, 'EINVAL', () => disk.read(path('pipe')))
      failsWith(t, 'EINVAL', () => disk.stageCopy('s', path('pipe')))
    })
  }),
)

test(
  'our own folder is not followed if it is a symlink',
  withRoot((t, root, openAll) => {
    const outside = temporaryFolder()
    fs.symlinkSync(outside, join(root, '.realize'))
    openAll(disk => {
      failsWith(t, ['ELOOP', 'ENOTDIR'], () => disk.stageFile('s', bytesOf('x'), 0n, false))
      failsWith(t, ['ELOOP', 'ENOTDIR'], () => disk.writeMarker('x'))
    })
    t.deepEqual(fs.readdirSync(outside), [])
    fs.rmSync(outside, { recursive: true })
  }),
)

posixTest(
  'a file that somebody has open for writing is told, and its time is not set',
  withRoot((t, root) => {
    const disk = openPosixDisk(root)
    fs.writeFileSync(join(root, 'file'), 'x')
    const writer = fs.openSync(join(root, 'file'), 'a')
    t.true(disk.beingWritten(path('file')))
    failsWith(t, 'EBUSY', () => disk.setMeta(path('file'), statOf(disk, 'file'), 1n, null))
    fs.closeSync(writer)
    const reader = fs.openSync(join(root, 'file'), 'r')
    t.false(disk.beingWritten(path('file')))
    t.is(disk.setMeta(path('file'), statOf(disk, 'file'), 1n, null), 'placed')
    fs.closeSync(reader)
    const late = fs.openSync(join(root, 'file'), 'a')
    t.is(disk.takeOut(path('file'), 'slot', statOf(disk, 'file')), 'placed')
    t.true(disk.stageBeingWritten('slot'), 'it was opened before it was taken out')
    fs.closeSync(late)
    t.false(disk.stageBeingWritten('slot'))
    t.is(disk.place('slot', path('file'), null), 'placed')
    // No lease is left behind: this would wait for one.
    fs.closeSync(fs.openSync(join(root, 'file'), 'a'))
    disk.dispose()
  }),
)

posixTest(
  'a copy of a sparse file stays sparse',
  withRoot((t, root) => {
    const disk = openPosixDisk(root)
    const size = 8 * 1024 * 1024
    const fd = fs.openSync(join(root, 'sparse'), 'w')
    fs.ftruncateSync(fd, size)
    fs.writeSync(fd, Buffer.from('middle'), 0, 6, 4 * 1024 * 1024)
    fs.closeSync(fd)
    disk.stageCopy('s', path('sparse'))
    t.is(disk.stageStat('s')?.size, size)
    t.is(textOf(disk.stageRead('s', 4 * 1024 * 1024, 6)), 'middle')
    t.true(fs.statSync(join(root, '.realize/staging/s')).blocks < 1024)
    disk.dispose()
  }),
)

posixTest(
  'without openat2 the same paths are reached and refused',
  withRoot((t, root) => {
    fs.mkdirSync(join(root, 'a/b'), { recursive: true })
    fs.writeFileSync(join(root, 'a/b/file'), '')
    fs.symlinkSync('a', join(root, 'link'))
    const folder = openRoot(root)
    for (const open of [openBelow, openStepwise]) {
      close(open(folder, 'a/b/file', READ))
      close(open(folder, 'a/b', FOLDER))
      failsWith(t, ['ELOOP', 'ENOTDIR'], () => open(folder, 'link/b', FOLDER))
      failsWith(t, ['ELOOP', 'ENOTDIR'], () => open(folder, 'link', FOLDER))
      failsWith(t, 'ENOTDIR', () => open(folder, 'a/b/file/c', READ))
      failsWith(t, 'ENOENT', () => open(folder, 'a/c/file', READ))
      failsWith(t, 'EXDEV', () => open(folder, 'a/../../x', READ))
    }
    close(folder)
  }),
)

posixTest('no descriptor is left open', t => {
  const rig = realRig(openPosixDisk, 0n)
  const { disk, user } = rig
  const openFiles = () => fs.readdirSync('/proc/self/fd').length
  const before = openFiles()
  const use = () => {
    user.mkdir('folder')
    disk.stageFile('s', bytesOf('x'), 1n, false)
    t.is(disk.place('s', path('folder/file'), null), 'placed')
    disk.read(path('folder/file'))
    disk.listStat(path('folder'))
    disk.stageCopy('s', path('folder/file'))
    disk.setMeta(path('folder/file'), statOf(disk, 'folder/file'), 2n, true)
    failsWith(t, 'EISDIR', () => disk.open(path('folder')))
    failsWith(t, 'ENOENT', () => disk.makeFolder(path('none/x')))
    disk.identity()
    user.remove('folder')
  }
  use()
  const after = openFiles()
  for (let round = 0; round < 20; round++) use()
  t.is(openFiles(), after)
  disk.dispose()
  t.true(openFiles() < before)
  rig.cleanUp()
})

posixTest('nothing appears outside while a folder and a symlink are swapped under us', async t => {
  const root = temporaryFolder()
  const outside = temporaryFolder()
  fs.mkdirSync(join(root, 'target'))
  fs.symlinkSync(outside, join(root, 'spare'))
  const disk = openPosixDisk(root)
  const code = `
    const { renameSync } = require('node:fs')
    const { workerData, parentPort } = require('node:worker_threads')
    const [target, spare, aside] = ['target', 'spare', 'aside'].map(name => workerData.root + '/' + name)
    const stop = new Int32Array(workerData.stop)
    parentPort.postMessage('swapping')
    while (Atomics.load(stop, 0) === 0) {
      renameSync(target, aside); renameSync(spare, target); renameSync(aside, spare); Atomics.add(stop, 1, 1)
    }
    parentPort.postMessage('stopped')
  `
  // Whether to stop, and how often it did its work.
  const stop = new Int32Array(new SharedArrayBuffer(8))
  const worker = new Worker(code, { eval: true, workerData: { root, stop: stop.buffer } })
  t.teardown(() => worker.terminate())
  await new Promise(resolve => worker.once('message', resolve))
  const outcomes = { placed: 0, refused: 0 }
  // The other thread may have to wait for a processor.
  let n = 0
  for (; n < 2000 || (Atomics.load(stop, 1) <= 100 && n < 200_000); n++) {
    disk.stageFile('s', bytesOf(`content ${n}`), 1n, false)
    try {
      if (disk.place('s', path(`target/file-${n}`), null) === 'placed') outcomes.placed++
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      t.true(['ELOOP', 'ENOTDIR', 'ENOENT'].includes(error.code), error.code)
      outcomes.refused++
    }
  }
  const stopped = new Promise(resolve => worker.once('message', resolve))
  Atomics.store(stop, 0, 1)
  await stopped
  t.true(Atomics.load(stop, 1) > 100)
  t.deepEqual(fs.readdirSync(outside), [])
  t.is(outcomes.placed + outcomes.refused, n)
  const inside = ['target', 'spare'].map(name => join(root, name)).filter(name => fs.lstatSync(name).isDirectory())
  t.is(inside.flatMap(name => fs.readdirSync(name)).length, outcomes.placed)
  disk.dispose()
  fs.rmSync(root, { recursive: true })
  fs.rmSync(outside, { recursive: true })
})

posixTest("a user's saves survive while the same file is placed again and again", async t => {
  const root = temporaryFolder()
  const disk = openPosixDisk(root)
  fs.writeFileSync(join(root, 'file'), 'start')
  // Saves as an editor does, by rename, and says what it saved last.
  const code = `
    const { writeFileSync, renameSync } = require('node:fs')
    const { workerData, parentPort } = require('node:worker_threads')
    const stop = new Int32Array(workerData.stop)
    parentPort.postMessage('saving')
    while (Atomics.load(stop, 0) === 0) {
      writeFileSync(workerData.root + '/new', 'user ' + Atomics.add(stop, 1, 1))
      renameSync(workerData.root + '/new', workerData.root + '/file')
    }
    parentPort.postMessage('stopped')
  `
  // Whether to stop, and how often it did its work.
  const stop = new Int32Array(new SharedArrayBuffer(8))
  const worker = new Worker(code, { eval: true, workerData: { root, stop: stop.buffer } })
  t.teardown(() => worker.terminate())
  await new Promise(resolve => worker.once('message', resolve))
  const counts = { placed: 0, unexpected: 0, stale: 0 }
  let n = 0
  for (; n < 3000 || (Atomics.load(stop, 1) <= 100 && n < 300_000); n++) {
    disk.stageFile('s', bytesOf(`peer ${n}`), 1n, false)
    const expected = statOf(disk, 'file')
    try {
      const result = disk.place('s', path('file'), expected)
      counts[result]++
      // A slot after `placed` has what was expected, after `unexpected` what was staged.
      const content = textOf(disk.stageRead('s', 0, 100))
      if (result === 'placed') t.is(disk.stageStat('s')?.ino, expected.ino)
      else t.is(content, `peer ${n}`)
    } catch (error) {
      if (!(error instanceof DiskError) || error.code !== 'ESTALE') throw error
      counts.stale++
      t.is(disk.stageStat('s'), null)
    }
  }
  const stopped = new Promise(resolve => worker.once('message', resolve))
  Atomics.store(stop, 0, 1)
  await stopped
  t.true(Atomics.load(stop, 1) > 100)
  t.is(counts.placed + counts.unexpected + counts.stale, n)
  disk.dispose()
  fs.rmSync(root, { recursive: true })
})
