/** A plain folder, seen through a real mount: what programs do with files does the same there as on a disk. */
import { execFile, execFileSync, spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { close, EXCHANGE, NOREPLACE, openRoot, renameFlagged } from '../../actors/arena/posix-calls.ts'
import { getAttribute, listAttributes, removeAttribute, setAttribute } from '../../actors/view/view-calls.ts'
import { within } from '../_deadline.ts'
import { cannotMount, type Mounted, mounted } from './_mount.ts'

const run = promisify(execFile)
const root = process.geteuid?.() === 0

type Body = (t: ExecutionContext, m: Mounted) => unknown

/** Once with content going through the view, once (as root, on a kernel that can) past it. */
function onMount(title: string, body: Body): void {
  if (cannotMount !== null) return test.skip(`${title} (skipped: ${cannotMount})`, t => t.fail())
  for (const passthrough of root ? [false, true] : [false])
    test.serial(`${title}${passthrough ? ' – files given to the kernel' : ''}`, async t => {
      const m = await mounted(t, { passthrough })
      await body(t, m)
    })
}

function code(t: ExecutionContext, action: () => unknown): string | undefined {
  return t.throws<NodeJS.ErrnoException>(() => void action())?.code
}

onMount('content that is written is on the disk at once, and content on the disk is read', (t, { root, at }) => {
  const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 253))
  fs.writeFileSync(join(at, 'made'), bytes)
  t.true(fs.readFileSync(join(root, 'made')).equals(bytes))
  fs.writeFileSync(join(root, 'there'), bytes)
  t.true(fs.readFileSync(join(at, 'there')).equals(bytes))
  t.deepEqual(fs.readdirSync(at).sort(), ['made', 'there'])
  const fd = fs.openSync(join(at, 'made'), 'r+')
  fs.writeSync(fd, Buffer.from('xyz'), 0, 3, 299_999)
  const part = Buffer.alloc(10)
  t.is(fs.readSync(fd, part, 0, 10, 299_998), 4)
  t.is(part.toString('latin1', 1, 4), 'xyz')
  t.is(fs.fstatSync(fd).size, 300_002)
  fs.closeSync(fd)
})

onMount('attributes are those of the disk, to the nanosecond', (t, { root, at }) => {
  const file = join(at, 'file')
  fs.writeFileSync(file, 'content')
  execFileSync('touch', ['-d', '1965-03-04 05:06:07.123456789 UTC', file])
  t.is(fs.statSync(file, { bigint: true }).mtimeNs, fs.statSync(join(root, 'file'), { bigint: true }).mtimeNs)
  t.is(fs.statSync(file, { bigint: true }).mtimeNs % 1_000_000_000n, -1_000_000_000n + 123_456_789n)
  fs.chmodSync(file, 0o4751)
  const seen = fs.statSync(file, { bigint: true })
  const real = fs.statSync(join(root, 'file'), { bigint: true })
  for (const key of ['mode', 'nlink', 'uid', 'gid', 'ino', 'size', 'blocks', 'mtimeNs', 'ctimeNs'] as const)
    t.is(seen[key], real[key], key)
  const before = Date.now()
  execFileSync('touch', [file])
  t.true(fs.statSync(file).mtimeMs >= before - 1000)
})

onMount('sizes are set, shrinking and growing with zeros, by path and by descriptor', (t, { at }) => {
  const file = join(at, 'file')
  fs.writeFileSync(file, 'abcdef')
  fs.truncateSync(file, 3)
  t.is(fs.readFileSync(file, 'latin1'), 'abc')
  const fd = fs.openSync(file, 'r+')
  fs.ftruncateSync(fd, 5)
  t.is(fs.readFileSync(file, 'latin1'), 'abc\0\0')
  fs.closeSync(fd)
  fs.closeSync(fs.openSync(file, 'w'))
  t.is(fs.statSync(file).size, 0)
})

onMount('names are made and removed, with the errors of a disk', (t, { root, at }) => {
  fs.mkdirSync(join(at, 'a/b/c'), { recursive: true })
  fs.writeFileSync(join(at, 'a/file'), '')
  t.is(
    code(t, () => fs.rmdirSync(join(at, 'a'))),
    'ENOTEMPTY',
  )
  t.is(
    code(t, () => fs.mkdirSync(join(at, 'a/b'))),
    'EEXIST',
  )
  t.is(
    code(t, () => fs.openSync(join(at, 'a/file'), 'wx')),
    'EEXIST',
  )
  t.is(
    code(t, () => fs.readFileSync(join(at, 'a/none'))),
    'ENOENT',
  )
  t.is(
    code(t, () => fs.readFileSync(join(at, 'a/file/below'))),
    'ENOTDIR',
  )
  t.is(
    code(t, () => fs.readFileSync(join(at, 'a/b'))),
    'EISDIR',
  )
  t.is(
    code(t, () => fs.unlinkSync(join(at, 'a/b'))),
    'EISDIR',
  )
  fs.unlinkSync(join(at, 'a/file'))
  fs.rmdirSync(join(at, 'a/b/c'))
  t.deepEqual(fs.readdirSync(join(root, 'a')), ['b'])
  fs.rmSync(join(at, 'a'), { recursive: true })
  t.deepEqual(fs.readdirSync(root), [])
})

onMount('a name has up to 255 bytes', (t, { root, at }) => {
  const longest = `${'ä'.repeat(127)}x`
  fs.writeFileSync(join(at, longest), 'long')
  t.is(fs.readFileSync(join(root, longest), 'utf8'), 'long')
  t.deepEqual(fs.readdirSync(at), [longest])
  t.is(
    code(t, () => fs.writeFileSync(join(at, `${longest}x`), '')),
    'ENAMETOOLONG',
  )
  t.is(
    code(t, () => fs.statSync(join(at, 'x'.repeat(256)))),
    'ENAMETOOLONG',
  )
  for (const name of [' ', 'a\nb', '"%\\', '-rf', 'é', 'e\u0301', '🙂']) {
    fs.writeFileSync(join(at, name), name)
    t.is(fs.readFileSync(join(root, name), 'utf8'), name)
  }
  const odd = Buffer.concat([Buffer.from(`${at}/`), Buffer.from([0xff, 0xfe])])
  t.is(
    code(t, () => fs.writeFileSync(odd, '')),
    'EILSEQ',
  )
  t.false(fs.existsSync(odd))
})

onMount('files and folders are renamed, over files too, without replacing and by exchange', (t, { root, at }) => {
  fs.mkdirSync(join(at, 'one/deep'), { recursive: true })
  fs.writeFileSync(join(at, 'one/deep/file'), 'deep')
  fs.renameSync(join(at, 'one'), join(at, 'two'))
  t.is(fs.readFileSync(join(at, 'two/deep/file'), 'utf8'), 'deep')
  t.is(
    code(t, () => fs.statSync(join(at, 'one'))),
    'ENOENT',
  )
  fs.writeFileSync(join(at, 'a'), 'A')
  fs.writeFileSync(join(at, 'b'), 'B')
  const open = fs.openSync(join(at, 'b'), 'r')
  fs.renameSync(join(at, 'a'), join(at, 'b'))
  t.is(fs.readFileSync(join(at, 'b'), 'utf8'), 'A')
  const letter = Buffer.alloc(1)
  fs.readSync(open, letter, 0, 1, 0)
  t.is(letter.toString(), 'B', 'what was replaced can still be read by who has it open')
  t.is(fs.fstatSync(open).nlink, 0)
  fs.closeSync(open)

  fs.writeFileSync(join(at, 'c'), 'C')
  const folder = openRoot(at)
  t.teardown(() => close(folder))
  t.is(
    code(t, () => renameFlagged(folder, 'b', folder, 'c', NOREPLACE)),
    'EEXIST',
  )
  t.true(renameFlagged(folder, 'b', folder, 'd', NOREPLACE))
  t.true(renameFlagged(folder, 'c', folder, 'two', EXCHANGE))
  t.is(fs.readFileSync(join(at, 'two'), 'utf8'), 'C')
  t.is(fs.readFileSync(join(at, 'c/deep/file'), 'utf8'), 'deep')
  t.is(fs.readFileSync(join(root, 'c/deep/file'), 'utf8'), 'deep')
  t.deepEqual(fs.readdirSync(root).sort(), ['c', 'd', 'two'])
  t.is(
    code(t, () => fs.renameSync(join(at, 'c'), join(at, 'c/deep/below'))),
    'EINVAL',
  )
})

onMount('an open file without a name is read, written, resized, looked at, and opened again', (t, { root, at }) => {
  const file = join(at, 'file')
  fs.writeFileSync(file, 'content')
  const fd = fs.openSync(file, 'r+')
  fs.unlinkSync(file)
  t.false(fs.existsSync(join(root, 'file')))
  fs.writeSync(fd, 'CON', 0)
  fs.ftruncateSync(fd, 5)
  fs.fchmodSync(fd, 0o600)
  fs.futimesSync(fd, 1000, 2000)
  const stat = fs.fstatSync(fd)
  t.like(stat, { size: 5, nlink: 0, mtimeMs: 2_000_000, mode: 0o100600 })
  const again = fs.openSync(`/proc/self/fd/${fd}`, 'r')
  t.is(fs.readFileSync(again, 'utf8'), 'CONte')
  fs.closeSync(again)
  fs.writeFileSync(file, 'another')
  t.is(fs.readFileSync(fd, 'utf8'), 'CONte')
  fs.closeSync(fd)
  t.is(fs.readFileSync(file, 'utf8'), 'another')
})

onMount('symlinks lead where they say, also to nothing and out', (t, { root, at }) => {
  fs.writeFileSync(join(at, 'file'), 'content')
  fs.symlinkSync('file', join(at, 'link'))
  t.is(fs.readFileSync(join(at, 'link'), 'utf8'), 'content')
  t.is(fs.readlinkSync(join(root, 'link')), 'file')
  t.is(fs.lstatSync(join(at, 'link')).size, 4)
  const long = 'x'.repeat(4000)
  fs.symlinkSync(long, join(at, 'long'))
  t.is(fs.readlinkSync(join(at, 'long')), long)
  t.is(
    code(t, () => fs.readFileSync(join(at, 'long'))),
    'ENAMETOOLONG',
  )
  fs.lutimesSync(join(at, 'link'), 1, 2)
  t.is(fs.lstatSync(join(root, 'link')).mtimeMs, 2000)
  t.not(fs.statSync(join(root, 'file')).mtimeMs, 2000)
  fs.unlinkSync(join(at, 'link'))
  fs.symlinkSync('/', join(at, 'link'))
  t.is(fs.readlinkSync(join(at, 'link')), '/')
})

onMount('hard links are one file', (t, { root, at }) => {
  fs.writeFileSync(join(at, 'a'), 'one')
  fs.mkdirSync(join(at, 'folder'))
  fs.linkSync(join(at, 'a'), join(at, 'folder/b'))
  t.is(fs.statSync(join(at, 'a')).nlink, 2)
  t.is(fs.statSync(join(at, 'a')).ino, fs.statSync(join(at, 'folder/b')).ino)
  fs.appendFileSync(join(at, 'folder/b'), ' two')
  t.is(fs.readFileSync(join(at, 'a'), 'utf8'), 'one two')
  fs.unlinkSync(join(at, 'a'))
  t.is(fs.readFileSync(join(at, 'folder/b'), 'utf8'), 'one two')
  t.is(fs.statSync(join(at, 'folder/b')).nlink, 1)
  t.deepEqual(fs.readdirSync(root), ['folder'])
})

onMount('appending programs do not overwrite each other', async (t, { root, at }) => {
  const script = 'for i in $(seq 100); do echo "$0 $i" >>"$1"; done'
  await Promise.all(['a', 'b', 'c'].map(name => run('sh', ['-c', script, name, join(at, 'log')])))
  const lines = fs.readFileSync(join(root, 'log'), 'utf8').trim().split('\n')
  t.is(lines.length, 300)
  for (const name of ['a', 'b', 'c'])
    t.deepEqual(
      lines.filter(line => line.startsWith(name)),
      Array.from({ length: 100 }, (_, index) => `${name} ${index + 1}`),
    )
})

onMount('extended attributes are set, listed, read and removed', (t, { root, at }) => {
  const file = join(at, 'file')
  fs.writeFileSync(file, '')
  if (code(t, () => getAttribute(join(root, 'file'), 'user.none')) !== 'ENODATA') return t.pass('not on this disk')
  setAttribute(file, 'user.colour', Buffer.from('blue'), 0)
  setAttribute(file, 'user.big', Buffer.alloc(1000, 7), 0)
  t.is(Buffer.from(getAttribute(join(root, 'file'), 'user.colour')).toString(), 'blue')
  t.is(Buffer.from(getAttribute(file, 'user.colour')).toString(), 'blue')
  t.is(getAttribute(file, 'user.big').length, 1000)
  t.deepEqual(listAttributes(file).sort(), ['user.big', 'user.colour'])
  t.is(
    code(t, () => setAttribute(file, 'user.colour', Buffer.from('red'), 1)),
    'EEXIST',
  )
  t.is(
    code(t, () => setAttribute(file, 'user.none', Buffer.from('red'), 2)),
    'ENODATA',
  )
  removeAttribute(file, 'user.colour')
  t.deepEqual(listAttributes(join(root, 'file')), ['user.big'])
  // What no file here has, whatever the disk has.
  for (const name of ['system.posix_acl_access', 'security.selinux'])
    t.is(
      code(t, () => getAttribute(file, name)),
      'EOPNOTSUPP',
      name,
    )
  t.is(
    code(t, () => setAttribute(file, 'security.selinux', Buffer.from('any'), 0)),
    'EOPNOTSUPP',
  )
  t.deepEqual(listAttributes(file), ['user.big'])
  t.is(
    code(t, () => getAttribute(file, 'security.systems')),
    'ENODATA',
  )
})

onMount('the space of the file system is told', (t, { root, at }) => {
  const [seen, real] = [fs.statfsSync(at), fs.statfsSync(root)]
  t.is(seen.blocks * seen.bsize, real.blocks * real.bsize)
  t.is(seen.files, real.files)
  t.true(seen.bavail > 0)
})

onMount('a big folder is listed whole, and files may go while it is', (t, { root, at }) => {
  const names = Array.from({ length: 2000 }, (_, index) => `file-${index}`)
  for (const name of names) fs.writeFileSync(join(root, name), '')
  t.deepEqual(fs.readdirSync(at).sort(), [...names].sort())
  const types = fs.readdirSync(at, { withFileTypes: true })
  t.true(types.every(entry => entry.isFile()))
  const folder = fs.opendirSync(at)
  fs.mkdirSync(join(root, 'other'))
  for (let entry = folder.readSync(); entry !== null; entry = folder.readSync())
    fs.rmSync(join(at, entry.name), { recursive: true, force: true })
  folder.closeSync()
  t.true(fs.readdirSync(root).every(name => name === 'other'))
})

onMount('holes, allocation and copies inside the kernel keep their content', async (t, { at, root }) => {
  const file = join(at, 'sparse')
  fs.closeSync(fs.openSync(file, 'w'))
  fs.truncateSync(file, 10_000_000)
  const fd = fs.openSync(file, 'r+')
  fs.writeSync(fd, 'end', 9_000_000)
  fs.fsyncSync(fd)
  fs.fdatasyncSync(fd)
  fs.closeSync(fd)
  t.true(fs.statSync(file).blocks * 512 < 1_000_000)
  await run('fallocate', ['-o', '0', '-l', '1000000', join(at, 'full')])
  t.is(fs.statSync(join(root, 'full')).size, 1_000_000)
  t.true(fs.statSync(join(at, 'full')).blocks * 512 >= 1_000_000)
  fs.copyFileSync(file, join(at, 'copy'))
  t.true(fs.readFileSync(join(root, 'copy')).equals(fs.readFileSync(join(root, 'sparse'))))
  await run('cp', ['--sparse=always', file, join(at, 'copy2')])
  t.true(fs.readFileSync(join(root, 'copy2')).equals(fs.readFileSync(join(root, 'sparse'))))
})

onMount('locks hold between programs', async (t, { at }) => {
  const lock = join(at, 'lock')
  const holder = spawn('flock', [lock, 'sh', '-c', 'echo held; read line'])
  t.teardown(() => holder.kill('SIGKILL'))
  const exit = new Promise(resolve => holder.once('exit', resolve))
  await within(30_000, 'the lock is held', new Promise(resolve => holder.stdout.once('data', resolve)))
  await t.throwsAsync(run('flock', ['-n', lock, 'true']))
  holder.stdin.end('\n')
  await within(30_000, 'the lock is given up', exit)
  await t.notThrowsAsync(run('flock', ['-n', lock, 'true']))
})

onMount('named pipes and sockets are made and work', async (t, { at }) => {
  await run('mkfifo', [join(at, 'pipe')])
  t.true(fs.statSync(join(at, 'pipe')).isFIFO())
  const { stdout } = await run('sh', ['-c', 'echo through >"$0" & cat "$0"; wait', join(at, 'pipe')])
  t.is(stdout, 'through\n')
})

onMount('what is changed on the disk directly is seen when it is opened, and soon by name', async (t, { root, at }) => {
  fs.writeFileSync(join(at, 'file'), 'first')
  t.is(fs.readFileSync(join(at, 'file'), 'utf8'), 'first')
  fs.writeFileSync(join(root, 'file'), 'second, longer')
  fs.utimesSync(join(root, 'file'), 5, 5)
  t.is(await eventually(() => fs.readFileSync(join(at, 'file'), 'utf8'), 'second, longer'), 'second, longer')
  fs.writeFileSync(join(root, 'new'), 'replaced')
  fs.renameSync(join(root, 'new'), join(root, 'file'))
  t.is(await eventually(() => fs.readFileSync(join(at, 'file'), 'utf8'), 'replaced'), 'replaced')
  fs.renameSync(join(root, 'file'), join(root, 'elsewhere'))
  t.is(await eventually(() => fs.existsSync(join(at, 'file')), false), false)
  t.is(fs.readFileSync(join(at, 'elsewhere'), 'utf8'), 'replaced')
})

/** Looks until it is as expected; the kernel may believe what it knew for a second. */
async function eventually<Value>(look: () => Value, expected: Value): Promise<Value> {
  for (let tries = 0; ; tries++) {
    const seen = look()
    if (seen === expected || tries > 500) return seen
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

if (root) {
  onMount(
    'as root, files belong to who makes them, and lose rights over others when others write to them',
    async (t, { root, at }) => {
      const other = await mounted(t, { allowOther: true, passthrough: false })
      fs.chmodSync(other.root, 0o777)
      fs.chmodSync(join(other.at, '..'), 0o755)
      fs.chmodSync(join(at, '..'), 0o755)
      const nobody = (...args: string[]) =>
        run('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', ...args])
      await nobody('sh', '-c', 'umask 022; echo hi >"$0/file"; mkdir "$0/folder"; ln -s x "$0/link"', other.at)
      for (const name of ['file', 'folder', 'link']) t.is(fs.lstatSync(join(other.root, name)).uid, 65534, name)
      t.is(fs.statSync(join(other.root, 'file')).mode & 0o777, 0o644)
      fs.chmodSync(join(other.root, 'file'), 0o6777)
      fs.chownSync(join(other.root, 'file'), 0, 0)
      fs.chmodSync(join(other.root, 'file'), 0o6777)
      await eventually(() => fs.statSync(join(other.at, 'file')).mode & 0o7777, 0o6777)
      await nobody('sh', '-c', 'echo more >>"$0/file"', other.at)
      t.is(fs.statSync(join(other.root, 'file')).mode & 0o7777, 0o777)
      t.is(fs.readFileSync(join(other.root, 'file'), 'utf8'), 'hi\nmore\n')
      fs.writeFileSync(join(other.at, 'secret'), '', { mode: 0o600 })
      await t.throwsAsync(nobody('cat', join(other.at, 'secret')), { message: /Permission denied/ })
      await t.throwsAsync(nobody('ls', at), { message: /Permission denied/ }, 'the other one is for its owner alone')
      t.deepEqual(fs.readdirSync(root), [])
    },
  )
}
