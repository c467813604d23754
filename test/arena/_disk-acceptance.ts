/** What every disk must do, whatever it is made of. A rig is a disk with the user's side of it. */
import test, { type ExecutionContext } from 'ava'
import type { Disk, DiskStat } from '../../actors/arena/disk.ts'
import { DiskError } from '../../actors/arena/disk.ts'
import type { EntryPath } from '../../protocol/ids.ts'

/** The tree as a user's programs see it. Paths are relative to the root. */
export interface User {
  writeFile(path: string, bytes: Uint8Array): void
  readFile(path: string): Uint8Array
  mkdir(path: string): void
  symlink(target: string, path: string): void
  rename(from: string, to: string): void
  remove(path: string): void
  chmod(path: string, mode: number): void
}

export interface Rig {
  disk: Disk
  user: User
  /** How far an mtime may be from what was asked for. */
  mtimeSlackNs: bigint
  cleanUp(): void
}

const MTIME = 1_234_567_890_123_456_789n

export function path(text: string): EntryPath {
  return text as EntryPath
}

export function bytesOf(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text))
}

export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString()
}

/** Asserts that an action fails with this errno name. */
export function failsWith(t: ExecutionContext, codes: string | string[], action: () => unknown): void {
  const error = t.throws(action, { instanceOf: DiskError })
  if (error instanceof DiskError) t.true([codes].flat().includes(error.code), `${error.code} is not ${codes}`)
}

export function statOf(disk: Disk, at: string): DiskStat {
  const stat = disk.stat(path(at))
  if (stat === null) throw new Error(`nothing is at ${at}`)
  return stat
}

/** Declares the suite's tests for one kind of disk. */
export function acceptDisk(kind: string, makeRig: () => Rig): void {
  const accept = (title: string, body: (t: ExecutionContext, rig: Rig) => void | Promise<void>) =>
    test(`${kind}: ${title}`, async t => {
      const rig = makeRig()
      try {
        await body(t, rig)
      } finally {
        rig.disk.dispose()
        rig.cleanUp()
      }
    })

  const near = (t: ExecutionContext, rig: Rig, mtimeNs: bigint, wanted = MTIME) => {
    const distance = mtimeNs > wanted ? mtimeNs - wanted : wanted - mtimeNs
    t.true(distance <= rig.mtimeSlackNs, `${mtimeNs} is not ${wanted}`)
  }

  accept('a stat tells type, size, exec and links, and null where nothing can be', (t, { disk, user }) => {
    user.mkdir('folder')
    user.writeFile('folder/file', bytesOf('hello'))
    user.symlink('folder', 'link')
    t.like(statOf(disk, 'folder'), { type: 'dir' })
    t.like(statOf(disk, 'folder/file'), { type: 'file', size: 5, exec: false, links: 1 })
    t.like(statOf(disk, 'link'), { type: 'symlink', size: 6 })
    user.chmod('folder/file', 0o755)
    t.true(statOf(disk, 'folder/file').exec)
    for (const missing of ['none', 'none/below', 'folder/file/below', 'link/file']) t.is(disk.stat(path(missing)), null)
  })

  accept('a listing has every name but our own folder, and each with its stat', (t, { disk, user }) => {
    disk.writeMarker('mine')
    user.mkdir('folder')
    user.mkdir('folder/.realize')
    const names = ['plain', 'with space', "quote'", 'new\nline', '-leading', '%', 'é', 'e\u0301', 'x'.repeat(255)]
    for (const name of names) user.writeFile(`folder/${name}`, bytesOf(name))
    t.deepEqual(disk.list(undefined), { names: ['folder'], invalid: [] })
    t.deepEqual(disk.list(path('folder')).names.sort(), [...names, '.realize'].sort())
    const { entries, invalid } = disk.listStat(path('folder'))
    t.deepEqual(invalid, [])
    t.is(entries.length, names.length + 1)
    for (const { name, stat } of entries) t.deepEqual(stat, statOf(disk, `folder/${name}`))
  })

  accept('a listing of what is no folder fails', (t, { disk, user }) => {
    user.writeFile('file', bytesOf(''))
    user.mkdir('folder')
    user.symlink('folder', 'link')
    failsWith(t, 'ENOENT', () => disk.list(path('none')))
    failsWith(t, 'ENOTDIR', () => disk.list(path('file')))
    failsWith(t, ['ENOTDIR', 'ELOOP'], () => disk.list(path('link')))
    failsWith(t, ['ENOTDIR', 'ELOOP'], () => disk.listStat(path('link')))
  })

  accept('a folder with thousands of names is listed whole', (t, { disk, user }) => {
    user.mkdir('many')
    for (let n = 0; n < 3000; n++) user.writeFile(`many/some-rather-long-name-${n}`, bytesOf(''))
    t.is(new Set(disk.list(path('many')).names).size, 3000)
  })

  accept('a link is read, and only a link', (t, { disk, user }) => {
    user.symlink('../any where\n', 'link')
    user.writeFile('file', bytesOf(''))
    t.is(disk.readLink(path('link')), '../any where\n')
    failsWith(t, 'EINVAL', () => disk.readLink(path('file')))
    failsWith(t, 'ENOENT', () => disk.readLink(path('none')))
  })

  accept('a small file is read with its stat before and after', (t, { disk, user }) => {
    user.writeFile('file', bytesOf('content'))
    user.writeFile('empty', bytesOf(''))
    const { before, bytes, after } = disk.read(path('file'))
    t.is(textOf(bytes), 'content')
    t.deepEqual(before, after)
    t.deepEqual(before, statOf(disk, 'file'))
    t.is(disk.read(path('empty')).bytes.length, 0)
  })

  accept('only regular files are opened, and none through a symlink', (t, { disk, user }) => {
    user.mkdir('folder')
    user.writeFile('folder/file', bytesOf('x'))
    user.symlink('folder/file', 'link')
    user.symlink('folder', 'way')
    const { fd, stat } = disk.open(path('folder/file'))
    t.deepEqual(stat, statOf(disk, 'folder/file'))
    disk.close(fd)
    failsWith(t, 'EISDIR', () => disk.open(path('folder')))
    failsWith(t, 'ELOOP', () => disk.open(path('link')))
    failsWith(t, ['ELOOP', 'ENOTDIR'], () => disk.read(path('way/file')))
    failsWith(t, 'ENOENT', () => disk.open(path('none')))
    t.false(disk.beingWritten(path('folder/file')))
  })

  accept('a staged file has its content, time and mode, and replaces an older one', (t, rig) => {
    const { disk } = rig
    disk.stageFile('s', bytesOf('an older and longer one'), 1n, true)
    const stat = disk.stageFile('s', bytesOf('new'), MTIME, false)
    t.like(stat, { type: 'file', size: 3, exec: false })
    near(t, rig, stat.mtimeNs)
    t.deepEqual(disk.stageStat('s'), stat)
    t.is(textOf(disk.stageRead('s', 0, 100)), 'new')
    t.true(disk.stageFile('t', bytesOf(''), MTIME, true).exec)
    t.deepEqual(disk.stageList().sort(), ['s', 't'])
    disk.stageRemove('s')
    disk.stageRemove('s')
    t.is(disk.stageStat('s'), null)
    failsWith(t, 'ENOENT', () => disk.stageRead('s', 0, 1))
  })

  accept('times before 1970 and far ahead are set', (t, rig) => {
    for (const mtimeNs of [-1n, -1_500_000_000n, 0n, 4_000_000_000_999_999_999n])
      near(t, rig, rig.disk.stageFile('s', bytesOf('x'), mtimeNs, false).mtimeNs, mtimeNs)
  })

  accept('a big file is staged in pieces, resumed and finished', (t, rig) => {
    const { disk } = rig
    const first = disk.stageOpen('big', 300_000)
    disk.writeFd(first, 200_000, bytesOf('late'))
    disk.close(first)
    const again = disk.stageOpen('big', 300_000)
    disk.writeFd(again, 0, bytesOf('early'))
    disk.close(again)
    t.is(disk.stageStat('big')?.size, 300_000)
    t.is(textOf(disk.stageRead('big', 200_000, 4)), 'late')
    t.is(textOf(disk.stageRead('big', 0, 5)), 'early')
    t.deepEqual([...disk.stageRead('big', 5, 3)], [0, 0, 0])
    t.is(disk.stageRead('big', 299_999, 100).length, 1)
    t.is(disk.stageRead('big', 400_000, 100).length, 0)
    const stat = disk.stageFinish('big', 200_004, MTIME, true)
    t.like(stat, { size: 200_004, exec: true })
    near(t, rig, stat.mtimeNs)
    t.false(disk.stageFinish('big', 200_004, MTIME, false).exec)
  })

  accept('a slot that is a file under another name as well is not written into', (t, { disk, user }) => {
    disk.stageFile('v', bytesOf('version'), MTIME, false)
    disk.keep('v', 'k')
    t.is(disk.linkKept('k', path('file')), 'placed')
    t.is(disk.linkKept('k', path('taken')), 'placed')
    t.is(disk.takeOut(path('taken'), 's', statOf(disk, 'taken')), 'placed')
    const fd = disk.stageOpen('s', 7)
    disk.writeFd(fd, 0, bytesOf('spoiled'))
    disk.close(fd)
    t.is(textOf(user.readFile('file')), 'version')
  })

  accept('a staged link is placed', (t, { disk }) => {
    disk.stageFile('s', bytesOf('in the way'), MTIME, false)
    t.like(disk.stageLink('s', 'some where'), { type: 'symlink', size: 10 })
    t.is(disk.place('s', path('link'), null), 'placed')
    t.is(disk.readLink(path('link')), 'some where')
    failsWith(t, 'ENOENT', () => disk.stageLink('s', ''))
  })

  accept('a copy has content, time and execute bits of its source', (t, { disk, user }) => {
    const content = new Uint8Array(400_000)
    content.fill(7, 300_000, 300_100)
    user.writeFile('file', content)
    user.chmod('file', 0o755)
    const { before, after } = disk.stageCopy('s', path('file'))
    t.deepEqual(before, after)
    t.deepEqual(Buffer.from(disk.stageRead('s', 0, 500_000)), Buffer.from(content))
    t.like(disk.stageStat('s'), { exec: true, size: 400_000, links: 1 })
    disk.keep('s', 'k')
    disk.stageCopyKept('copy', 'k')
    t.deepEqual(Buffer.from(disk.stageRead('copy', 0, 500_000)), Buffer.from(content))
    t.not(disk.stageStat('copy')?.ino, disk.keptStat('k')?.ino)
    user.writeFile('empty', bytesOf(''))
    disk.stageCopy('empty', path('empty'))
    t.is(disk.stageStat('empty')?.size, 0)
    failsWith(t, 'ENOENT', () => disk.stageCopy('s', path('none')))
    failsWith(t, 'ENOENT', () => disk.stageCopyKept('s', 'none'))
    user.mkdir('folder')
    failsWith(t, 'EISDIR', () => disk.stageCopy('s', path('folder')))
  })

  accept('where only a clone is wanted there is one, or nothing', (t, { disk, user }) => {
    user.writeFile('file', bytesOf('content'))
    disk.stageFile('k', bytesOf('kept'), MTIME, false)
    disk.keep('k', 'k')
    const cloned = (slot: string, text: string, clone: () => void) => {
      try {
        clone()
      } catch (error) {
        t.true(error instanceof DiskError)
        t.is(disk.stageStat(slot), null)
        return
      }
      t.is(textOf(disk.stageRead(slot, 0, 100)), text)
    }
    cloned('s', 'content', () => disk.stageCopy('s', path('file'), true))
    cloned('t', 'kept', () => disk.stageCopyKept('t', 'k', true))
  })

  accept('a new file is placed where nothing is, and only there', (t, { disk, user }) => {
    disk.stageFile('s', bytesOf('new'), MTIME, false)
    user.writeFile('file', bytesOf('theirs'))
    user.mkdir('folder')
    user.symlink('nowhere', 'link')
    for (const taken of ['file', 'folder', 'link']) t.is(disk.place('s', path(taken), null), 'unexpected')
    failsWith(t, 'ENOENT', () => disk.place('s', path('none/file'), null))
    failsWith(t, ['ELOOP', 'ENOTDIR'], () => disk.place('s', path('link/file'), null))
    t.is(disk.place('s', path('folder/file'), null), 'placed')
    t.is(textOf(user.readFile('folder/file')), 'new')
    t.is(textOf(user.readFile('file')), 'theirs')
    t.is(disk.stageStat('s'), null)
    failsWith(t, 'ENOENT', () => disk.place('s', path('other'), null))
  })

  accept('what is expected is replaced and its former content is in the slot', (t, { disk, user }) => {
    user.writeFile('file', bytesOf('old'))
    const expected = statOf(disk, 'file')
    disk.stageFile('s', bytesOf('new'), MTIME, false)
    t.is(disk.place('s', path('file'), expected), 'placed')
    t.is(textOf(user.readFile('file')), 'new')
    t.is(textOf(disk.stageRead('s', 0, 10)), 'old')
    t.is(disk.stageStat('s')?.ino, expected.ino)
    t.is(disk.stageStat('s')?.mtimeNs, expected.mtimeNs)
  })

  accept('what is not expected is left alone', (t, { disk, user }) => {
    user.writeFile('file', bytesOf('old'))
    const expected = statOf(disk, 'file')
    disk.stageFile('s', bytesOf('new'), MTIME, false)
    user.writeFile('other', bytesOf('edited'))
    user.rename('other', 'file')
    t.is(disk.place('s', path('file'), expected), 'unexpected')
    t.is(disk.takeOut(path('file'), 't', expected), 'unexpected')
    t.is(disk.move(path('file'), path('elsewhere'), expected), 'unexpected')
    t.is(disk.setMeta(path('file'), expected, MTIME, true), 'unexpected')
    t.is(textOf(user.readFile('file')), 'edited')
    t.false(statOf(disk, 'file').exec)
    user.remove('file')
    t.is(disk.place('s', path('file'), expected), 'unexpected')
    t.is(disk.takeOut(path('file'), 't', expected), 'unexpected')
    t.is(disk.move(path('file'), path('elsewhere'), expected), 'unexpected')
    t.is(disk.setMeta(path('file'), expected, MTIME, true), 'unexpected')
    t.is(disk.stat(path('file')), null)
    t.is(textOf(disk.stageRead('s', 0, 10)), 'new')
  })

  accept('a folder is neither exchanged nor taken out', (t, { disk, user }) => {
    user.mkdir('folder')
    disk.stageFile('s', bytesOf('new'), MTIME, false)
    const folder = statOf(disk, 'folder')
    failsWith(t, 'EISDIR', () => disk.place('s', path('folder'), folder))
    failsWith(t, 'EISDIR', () => disk.takeOut(path('folder'), 's', folder))
    t.is(statOf(disk, 'folder').ino, folder.ino)
  })

  accept('a file and a symlink are taken out into a slot', (t, { disk, user }) => {
    user.writeFile('file', bytesOf('gone'))
    user.symlink('target', 'link')
    disk.stageFile('s', bytesOf('older'), MTIME, false)
    t.is(disk.takeOut(path('file'), 's', statOf(disk, 'file')), 'placed')
    t.is(textOf(disk.stageRead('s', 0, 10)), 'gone')
    t.is(disk.takeOut(path('link'), 'l', statOf(disk, 'link')), 'placed')
    t.is(disk.stageStat('l')?.type, 'symlink')
    t.deepEqual(disk.list(undefined).names, [])
  })

  accept('files and folders are moved, never over something', (t, { disk, user }) => {
    user.mkdir('a')
    user.writeFile('a/file', bytesOf('x'))
    user.mkdir('b')
    user.writeFile('taken', bytesOf('y'))
    const file = statOf(disk, 'a/file')
    t.is(disk.move(path('a/file'), path('taken'), file), 'unexpected')
    t.is(textOf(user.readFile('taken')), 'y')
    t.is(disk.move(path('a/file'), path('b/moved'), file), 'placed')
    t.is(statOf(disk, 'b/moved').ino, file.ino)
    const folder = statOf(disk, 'b')
    t.is(disk.move(path('b'), path('a'), folder), 'unexpected')
    t.is(disk.move(path('b'), path('a/b'), folder), 'placed')
    t.is(textOf(user.readFile('a/b/moved')), 'x')
    failsWith(t, 'EINVAL', () => disk.move(path('a'), path('a/b/a'), statOf(disk, 'a')))
    failsWith(t, 'ENOENT', () => disk.move(path('taken'), path('none/taken'), statOf(disk, 'taken')))
  })

  accept('a folder whose content changed is still the folder that is expected', (t, { disk, user }) => {
    user.mkdir('a')
    const expected = statOf(disk, 'a')
    user.writeFile('a/file', bytesOf('x'))
    t.is(disk.move(path('a'), path('b'), expected), 'placed')
    user.mkdir('c')
    t.is(disk.move(path('c'), path('d'), expected), 'unexpected')
  })

  accept('folders are made and removed, never with content', (t, { disk, user }) => {
    disk.makeFolder(path('a'))
    disk.makeFolder(path('a/b'))
    failsWith(t, 'EEXIST', () => disk.makeFolder(path('a')))
    failsWith(t, 'ENOENT', () => disk.makeFolder(path('none/b')))
    user.symlink('a', 'link')
    failsWith(t, ['ELOOP', 'ENOTDIR'], () => disk.makeFolder(path('link/c')))
    failsWith(t, 'ENOTEMPTY', () => disk.removeFolder(path('a')))
    failsWith(t, 'ENOTDIR', () => disk.removeFolder(path('link')))
    failsWith(t, 'ENOENT', () => disk.removeFolder(path('none')))
    disk.removeFolder(path('a/b'))
    disk.removeFolder(path('a'))
    t.deepEqual(disk.list(undefined).names, ['link'])
  })

  accept('time and execute bits of a file are set, each without the other', (t, rig) => {
    const { disk, user } = rig
    user.writeFile('file', bytesOf('x'))
    user.chmod('file', 0o640)
    const expected = statOf(disk, 'file')
    t.is(disk.setMeta(path('file'), expected, null, true), 'placed')
    t.like(statOf(disk, 'file'), { exec: true, mtimeNs: expected.mtimeNs })
    t.is(disk.setMeta(path('file'), expected, MTIME, null), 'placed')
    const after = statOf(disk, 'file')
    near(t, rig, after.mtimeNs)
    t.true(after.exec)
    t.is(disk.setMeta(path('file'), after, null, false), 'placed')
    t.false(statOf(disk, 'file').exec)
  })

  accept('a version is kept, opened, linked into the tree and taken back', (t, { disk, user }) => {
    disk.stageFile('s', bytesOf('version'), MTIME, false)
    disk.keep('s', 'k')
    t.deepEqual(disk.keptList(), ['k'])
    t.is(disk.stageStat('s'), null)
    const { fd, stat } = disk.keptOpen('k')
    t.is(textOf(disk.readFd(fd, 0, stat.size)), 'version')
    disk.close(fd)
    disk.stageFile('s', bytesOf('other'), MTIME, false)
    failsWith(t, 'EEXIST', () => disk.keep('s', 'k'))
    failsWith(t, 'ENOENT', () => disk.keep('none', 'k2'))
    user.writeFile('taken', bytesOf('y'))
    t.is(disk.linkKept('k', path('taken')), 'unexpected')
    t.is(disk.linkKept('k', path('file')), 'placed')
    failsWith(t, 'ENOENT', () => disk.linkKept('k', path('none/file')))
    failsWith(t, 'ENOENT', () => disk.linkKept('none', path('other')))
    t.is(disk.keptStat('k')?.ino, statOf(disk, 'file').ino)
    disk.keptRemove('k')
    t.deepEqual(disk.keptList(), [])
    failsWith(t, 'ENOENT', () => disk.keptOpen('k'))
  })

  accept('what is in a slot moves to another one that is empty', (t, { disk }) => {
    const { ino } = disk.stageFile('s', bytesOf('staged'), MTIME, false)
    disk.stageFile('other', bytesOf('in the way'), MTIME, false)
    failsWith(t, 'EEXIST', () => disk.stageMove('s', 'other'))
    disk.stageMove('s', 'new')
    t.deepEqual(disk.stageList().sort(), ['new', 'other'])
    t.is(disk.stageStat('new')?.ino, ino)
    t.is(textOf(disk.stageRead('new', 0, 10)), 'staged')
    t.is(textOf(disk.stageRead('other', 0, 10)), 'in the way')
    failsWith(t, 'ENOENT', () => disk.stageMove('s', 'third'))
  })

  accept('names in our own folder are plain', (t, { disk }) => {
    for (const name of ['', '.', '..', 'a/b', 'A', '../x', 'a\0']) {
      t.throws(() => disk.stageFile(name, bytesOf(''), MTIME, false), { instanceOf: RangeError })
      t.throws(() => disk.keptStat(name), { instanceOf: RangeError })
    }
  })

  accept('a name of 255 bytes is placed, one of 256 is refused', (t, { disk, user }) => {
    disk.stageFile('s', bytesOf('x'), MTIME, false)
    failsWith(t, 'ENAMETOOLONG', () => disk.place('s', path('é'.repeat(128)), null))
    t.is(disk.place('s', path('é'.repeat(127)), null), 'placed')
    t.is(textOf(user.readFile('é'.repeat(127))), 'x')
    t.is(disk.stat(path('x'.repeat(256))), null)
  })

  accept('the marker is part of the identity, and looking creates nothing', (t, { disk }) => {
    t.is(disk.identity().marker, null)
    t.deepEqual([disk.stageList(), disk.keptList(), disk.stageStat('s'), disk.keptStat('k')], [[], [], null, null])
    disk.stageRemove('s')
    t.is(disk.stat(path('.realize')), null)
    disk.writeMarker('first')
    const { device, rootIno } = disk.identity()
    disk.writeMarker('second, which is longer')
    t.deepEqual(disk.identity(), { device, rootIno, marker: 'second, which is longer' })
    t.deepEqual(disk.stageList(), [])
    t.throws(() => disk.writeMarker('x'.repeat(5000)), { instanceOf: RangeError })
  })

  accept('our own folders come back after a user removed them', (t, { disk, user }) => {
    disk.stageFile('s', bytesOf('lost'), MTIME, false)
    user.remove('.realize')
    t.is(disk.stageStat('s'), null)
    disk.stageFile('s', bytesOf('again'), MTIME, false)
    t.is(disk.place('s', path('file'), null), 'placed')
    user.remove('.realize')
    t.is(disk.takeOut(path('file'), 's', statOf(disk, 'file')), 'placed')
    disk.keep('s', 'k')
    t.deepEqual(disk.keptList(), ['k'])
  })

  accept('a sync is answered once', async (t, { disk }) => {
    disk.stageFile('s', bytesOf('x'), MTIME, false)
    t.is(disk.place('s', path('file'), null), 'placed')
    const error = await new Promise<DiskError | null>(resolve => disk.sync(resolve))
    t.is(error, null)
  })

  accept('free space is a part of the whole', (t, { disk }) => {
    const { freeBytes, totalBytes } = disk.free()
    t.true(freeBytes > 0 && freeBytes <= totalBytes)
    t.is(typeof disk.foldsCase, 'boolean')
    t.is(typeof disk.foldsUnicode, 'boolean')
  })
}
