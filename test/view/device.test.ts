/** Mounting, unmounting, and what is left when a view dies. */

import assert from 'node:assert/strict'
import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { isStale, mountpoints, unmountStale, unmountView } from '../../actors/view/fuse-device.ts'
import { within } from '../_deadline.ts'
import { type Cleaning, temporaryFolder } from '../_temp.ts'
import { MEMORY_BYTES, memoryContent } from './_memory-worker.ts'
import { cannotMount, mounted } from './_mount.ts'

const run = promisify(execFile)
const onMount = cannotMount === null ? test.serial : skipped
const onHelper = cannotMount ?? (spawnSync('fusermount3', ['--version']).error ? 'no fusermount3 here' : null)

function skipped(title: string, _body: unknown): void {
  test.skip(`${title} (skipped: ${cannotMount})`, t => t.fail())
}

const memoryEntry = new URL('./_memory-worker.js', import.meta.url)
const WAIT_MS = 30_000
const NOBODY = ['--reuid=65534', '--regid=65534', '--clear-groups']

/** A view in a process of its own, that can be killed. */
async function viewProcess(t: Cleaning, root: string, mountpoint: string, as: string[] = []): Promise<ChildProcess> {
  const entry = new URL('../../actors/view/folder-worker.js', import.meta.url).href
  const code = `const { Worker } = await import('node:worker_threads');
    new Worker(new URL(${JSON.stringify(entry)}), { workerData: ${JSON.stringify({ root, mountpoint })} })
      .on('message', message => console.log(message.type))`
  const place = temporaryFolder(t)
  fs.chmodSync(place, 0o755)
  const script = join(place, 'view.mjs')
  fs.writeFileSync(script, code)
  const [program = process.execPath, ...before] = [...as, process.execPath]
  const child = spawn(program, [...before, script], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await unmountStale(mountpoint)
  })
  await within(WAIT_MS, 'the view is mounted', new Promise(resolve => child.stdout?.once('data', resolve))).then(said =>
    assert.equal(String(said), 'mounted\n'),
  )
  return child
}

onMount('closing unmounts and leaves the folder as it was', async t => {
  const m = await mounted(t)
  t.true(mountpoints().includes(m.at))
  fs.writeFileSync(join(m.at, 'file'), 'content')
  await m.close()
  t.false(mountpoints().includes(m.at))
  t.deepEqual(fs.readdirSync(m.at), [])
  t.is(fs.readFileSync(join(m.root, 'file'), 'utf8'), 'content')
})

onMount('whoever has a file open when it is closed gets an error and does not hang', async t => {
  const m = await mounted(t, { passthrough: false })
  fs.writeFileSync(join(m.at, 'file'), 'content')
  const fd = fs.openSync(join(m.at, 'file'), 'r+')
  await m.close()
  const error = t.throws<NodeJS.ErrnoException>(() => fs.writeSync(fd, 'x'))
  t.regex(error?.code ?? '', /^(ENOTCONN|ECONNABORTED|EIO)$/)
  try {
    fs.closeSync(fd)
  } catch {
    // The kernel cannot tell the view any more; the descriptor is closed all the same.
  }
})

onMount('a view that others unmount ends by itself', async t => {
  const m = await mounted(t)
  const gone = new Promise(resolve => m.worker.once('exit', resolve))
  await unmountView(m.at)
  await within(WAIT_MS, 'the view ends', gone)
  t.false(mountpoints().includes(m.at))
})

onMount('a killed view leaves a stale mount, which is recognised and replaced, with nothing lost', async t => {
  const folder = temporaryFolder(t)
  const [root, at] = [join(folder, 'root'), join(folder, 'view')]
  fs.mkdirSync(root)
  fs.mkdirSync(at)
  const child = await viewProcess(t, root, at)
  fs.writeFileSync(join(at, 'file'), 'written before the kill')
  const exit = new Promise(resolve => child.once('exit', resolve))
  child.kill('SIGKILL')
  await within(WAIT_MS, 'the process ends', exit)
  t.true(isStale(at))
  t.is(t.throws<NodeJS.ErrnoException>(() => fs.readdirSync(at))?.code, 'ENOTCONN')
  t.is(fs.readFileSync(join(root, 'file'), 'utf8'), 'written before the kill')
  const again = await mounted(t, { root, mountpoint: at })
  t.false(isStale(at))
  t.is(fs.readFileSync(join(at, 'file'), 'utf8'), 'written before the kill')
  t.is(mountpoints().filter(place => place === at).length, 1)
  await again.close()
})

onMount('a view whose thread is ended leaves programs with an error, not hanging', async t => {
  const m = await mounted(t)
  fs.writeFileSync(join(m.at, 'file'), 'content')
  await within(WAIT_MS, 'the thread ends', m.worker.terminate())
  t.true(isStale(m.at))
  t.true(await unmountStale(m.at))
  t.false(await unmountStale(m.at))
  t.false(mountpoints().includes(m.at))
})

onMount('a place that is taken, full, missing, or inside of what is shown is refused', async t => {
  const m = await mounted(t)
  const refused = async (options: { root?: string; mountpoint: string }, code: string) =>
    t.is((await t.throwsAsync<NodeJS.ErrnoException>(mounted(t, options)))?.code, code)
  const folder = temporaryFolder(t)
  fs.mkdirSync(join(folder, 'root/inside'), { recursive: true })
  fs.mkdirSync(join(folder, 'full/thing'), { recursive: true })
  fs.writeFileSync(join(folder, 'file'), '')
  await refused({ mountpoint: m.at }, 'EBUSY')
  await refused({ mountpoint: join(folder, 'full') }, 'ENOTEMPTY')
  await refused({ mountpoint: join(folder, 'none') }, 'ENOENT')
  await refused({ mountpoint: join(folder, 'file') }, 'ENOTDIR')
  await refused({ root: join(folder, 'root'), mountpoint: join(folder, 'root/inside') }, 'EINVAL')
  await refused({ root: join(folder, 'root/inside'), mountpoint: join(folder, 'root') }, 'EINVAL')
  await refused({ root: join(folder, 'root'), mountpoint: join(folder, 'root') }, 'EINVAL')
  fs.writeFileSync(join(m.at, 'still'), 'there')
  t.is(fs.readFileSync(join(m.root, 'still'), 'utf8'), 'there')
})

if (onHelper === null)
  test.serial('fusermount3 mounts too, as for those who are not root', async t => {
    const m = await mounted(t, { by: 'helper' })
    fs.writeFileSync(join(m.at, 'file'), 'content')
    t.is(fs.readFileSync(join(m.root, 'file'), 'utf8'), 'content')
    t.regex(execFileSync('grep', [m.at, '/proc/mounts']).toString(), /^realize .* fuse\.realize rw,nosuid,nodev/)
    await m.close()
    t.false(mountpoints().includes(m.at))
    const folder = temporaryFolder(t)
    const error = await t.throwsAsync(mounted(t, { by: 'helper', mountpoint: join(folder, 'none') }))
    t.regex(error?.message ?? '', /none/)
  })
else test.skip(`fusermount3 mounts too (skipped: ${onHelper})`, t => t.fail())

/** Why an ordinary user cannot mount here, or null. */
function userFault(): string | null {
  if (onHelper !== null || process.geteuid?.() !== 0) return onHelper ?? 'only root can become another user'
  if ((fs.statSync('/dev/fuse').mode & 0o6) !== 0o6) return '/dev/fuse is for root alone'
  const checked = spawnSync('setpriv', [...NOBODY, process.execPath, '--check', new URL(import.meta.url).pathname])
  return checked.status === 0 ? null : 'this checkout is for root alone'
}

const userTitle = 'an ordinary user mounts, works and unmounts without rights'
if (userFault() !== null) test.skip(`${userTitle} (skipped: ${userFault()})`, t => t.fail())
else
  test.serial(userTitle, async t => {
    const folder = temporaryFolder(t)
    const [root, at] = [join(folder, 'root'), join(folder, 'view')]
    fs.chmodSync(folder, 0o755)
    for (const place of [root, at]) {
      fs.mkdirSync(place)
      fs.chownSync(place, 65534, 65534)
    }
    const child = await viewProcess(t, root, at, ['setpriv', ...NOBODY])
    const exit = new Promise(resolve => child.once('exit', resolve))
    const nobody = async (command: string) =>
      (await run('setpriv', [...NOBODY, 'sh', '-c', command], { cwd: '/' })).stdout
    await nobody(`cd ${at} && mkdir a && echo content >a/b && chmod 600 a/b && mv a/b c && ln c d && ln -s c e`)
    t.is(await nobody(`cd ${at} && cat d e && ls`), 'content\ncontent\na\nc\nd\ne\n')
    t.is(fs.statSync(join(root, 'c')).uid, 65534)
    t.is(fs.readFileSync(join(root, 'c'), 'utf8'), 'content\n')
    child.kill('SIGKILL')
    await within(WAIT_MS, 'the process ends', exit)
    // Only its owner is told so.
    await t.throwsAsync(nobody(`ls ${at}`), { message: /not connected/ })
    const again = await viewProcess(t, root, at, ['setpriv', ...NOBODY])
    const end = new Promise(resolve => again.once('exit', resolve))
    t.is(await nobody(`cat ${at}/c`), 'content\n')
    t.is(await nobody(`fusermount3 -u ${at} && ls ${at}`), '')
    await within(WAIT_MS, 'the view ends', end)
  })

onMount('content that comes late holds up nobody else, and arrives whole', async t => {
  const m = await mounted(t, { entry: memoryEntry })
  const asked = new Promise(resolve => m.worker.once('message', resolve))
  const slow = run('sha256sum', [join(m.at, 'slow')])
  await within(WAIT_MS, 'the slow file is read', asked)
  const content = Buffer.from(memoryContent())
  t.true(fs.readFileSync(join(m.at, 'fast')).equals(content))
  t.deepEqual(fs.readdirSync(m.at).sort(), ['fast', 'lost', 'slow'])
  t.is(t.throws<NodeJS.ErrnoException>(() => fs.readFileSync(join(m.at, 'lost')))?.code, 'EHOSTUNREACH')
  m.worker.on('message', () => m.worker.postMessage('give'))
  m.worker.postMessage('give')
  const { stdout: late } = await within(WAIT_MS, 'the slow file comes', slow)
  const { stdout: quick } = await run('sha256sum', [join(m.at, 'fast')])
  t.is(late.slice(0, 64), quick.slice(0, 64))
  t.is(fs.statSync(join(m.at, 'slow')).size, MEMORY_BYTES)
})

onMount('a program that waits for content can be interrupted', async t => {
  const m = await mounted(t, { entry: memoryEntry })
  const asked = new Promise(resolve => m.worker.once('message', resolve))
  const child = spawn('cat', [join(m.at, 'slow')], { stdio: 'ignore' })
  const exit = new Promise<string | null>(resolve => child.once('exit', (_, signal) => resolve(signal)))
  await within(WAIT_MS, 'the slow file is read', asked)
  child.kill('SIGINT')
  t.is(await within(WAIT_MS, 'the program ends', exit), 'SIGINT')
  t.is(fs.readFileSync(join(m.at, 'fast')).length, MEMORY_BYTES)
})

onMount('a file that others change or remove is seen so at once where the source says it', async t => {
  const m = await mounted(t, { entry: memoryEntry })
  t.is(fs.readFileSync(join(m.at, 'fast')).length, MEMORY_BYTES)
  const until = async (what: string, look: () => boolean) =>
    within(
      WAIT_MS,
      what,
      (async () => {
        while (!look()) await new Promise(resolve => setTimeout(resolve, 5))
      })(),
    )
  m.worker.postMessage('change fast')
  await until('the change is seen', () => fs.readFileSync(join(m.at, 'fast'), 'latin1') === 'AAAAA')
  m.worker.postMessage('remove fast')
  await until('the removal is seen', () => !fs.existsSync(join(m.at, 'fast')))
  t.deepEqual(fs.readdirSync(m.at).sort(), ['lost', 'slow'])
})

onMount('a file on demand becomes real when it is written', async t => {
  const m = await mounted(t, { entry: memoryEntry })
  fs.appendFileSync(join(m.at, 'fast'), 'more')
  t.is(fs.readFileSync(join(m.at, 'fast')).length, MEMORY_BYTES + 4)
  t.is(fs.readFileSync(join(m.root, 'fast'), 'latin1').slice(-4), 'more')
})
