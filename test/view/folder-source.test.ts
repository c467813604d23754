/** A plain folder as a source, without a mount: what it refuses, and what it waits for. */
import * as fs from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { close, openBelow, openRoot, READ, releaseLease, takeLease } from '../../actors/arena/posix-calls.ts'
import { openFolderSource } from '../../actors/view/folder-source.ts'
import { viewFault } from '../../actors/view/view-calls.ts'
import type { OpenFile } from '../../actors/view/view-source.ts'
import { type Cleaning, temporaryFolder } from '../_temp.ts'

const onLinux = viewFault === null ? test : test.skip
const never = new AbortController().signal
const reading = { read: true, write: false, append: false, truncate: false }
const writing = { read: true, write: true, append: false, truncate: false }
const nobody = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }

function folder(t: Cleaning) {
  const outside = temporaryFolder(t)
  const root = join(outside, 'root')
  fs.mkdirSync(root)
  const source = openFolderSource(root)
  t.teardown(() => source.close())
  return { outside, root, source }
}

onLinux('nothing outside of the folder is reached, whatever symlinks say', t => {
  const { outside, root, source } = folder(t)
  fs.writeFileSync(join(outside, 'secret'), 'secret')
  fs.mkdirSync(join(outside, 'other'))
  fs.symlinkSync('..', join(root, 'out'))
  fs.symlinkSync('../secret', join(root, 'link'))
  const refused: (() => unknown)[] = [
    () => source.lookup('out/secret'),
    () => source.open('out/secret', reading, never),
    () => source.open('link', writing, never),
    () => source.openFolder('out'),
    () => source.openFolder('out/other'),
    () => source.create('out/new', { ...writing, exclusive: true }, 0o644, nobody),
    () => source.create('link', { ...writing, exclusive: false }, 0o644, nobody),
    () => source.makeFolder('out/new', 0o755, nobody),
    () => source.makeSymlink('out/new', 'x', nobody),
    () => source.remove('out/secret'),
    () => source.removeFolder('out/other'),
    () => source.rename('out/secret', 'mine', 'replace'),
    () => source.rename('link', 'out/theirs', 'replace'),
    () => source.link('out/secret', 'mine'),
    () => source.change('out/secret', null, { size: 0 }),
    () => source.change('link', null, { size: 0 }),
    () => source.change('link', null, { mode: 0o777 }),
    () => source.getAttribute('out/secret', 'user.x'),
    () => source.setAttribute('out/secret', 'user.x', new Uint8Array(1), 'set'),
  ]
  for (const action of refused) t.throws(action, undefined, String(action))
  t.is(fs.readFileSync(join(outside, 'secret'), 'utf8'), 'secret')
  t.deepEqual(fs.readdirSync(outside).sort(), ['other', 'root', 'secret'])
  t.deepEqual(fs.readdirSync(root).sort(), ['link', 'out'])
})

onLinux('what is no file is not opened as one, and nothing hangs on a pipe', async t => {
  const { root, source } = folder(t)
  await source.makeNode('pipe', 0o010644, nobody)
  await source.makeFolder('folder', 0o755, nobody)
  const code = (action: () => unknown) => t.throws<NodeJS.ErrnoException>(() => void action())?.code
  t.is(
    code(() => source.open('pipe', reading, never)),
    'ENXIO',
  )
  t.is(
    code(() => source.open('folder', reading, never)),
    'EISDIR',
  )
  t.is(
    code(() => source.makeNode('device', 0o020644, nobody)),
    'EPERM',
  )
  t.true(fs.statSync(join(root, 'pipe')).isFIFO())
})

onLinux('modes are what the kernel says, whatever our own umask takes', async t => {
  const { root, source } = folder(t)
  const file = await source.create('file', { ...writing, exclusive: true }, 0o100666, nobody)
  file.close()
  await source.makeFolder('folder', 0o777, nobody)
  t.is(fs.statSync(join(root, 'file')).mode & 0o7777, 0o666)
  t.is(fs.statSync(join(root, 'folder')).mode & 0o7777, 0o777)
})

onLinux('names that are not UTF-8 are not shown', async t => {
  const { root, source } = folder(t)
  fs.writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff])]), '')
  fs.writeFileSync(join(root, 'shown'), '')
  const open = await source.openFolder('')
  t.teardown(() => open.close())
  t.deepEqual(await open.names(), ['shown'])
  fs.writeFileSync(join(root, 'second'), '')
  t.deepEqual([...(await open.names())].sort(), ['second', 'shown'])
  t.is(await open.child('none'), null)
})

/** A file that somebody looks at with a lease, until that is released; null: there are no leases on this disk. */
function leased(t: Cleaning) {
  const { root, source } = folder(t)
  fs.writeFileSync(join(root, 'file'), 'content')
  const at = openRoot(root)
  const fd = openBelow(at, 'file', READ)
  t.teardown(() => {
    close(fd)
    close(at)
  })
  return { root, source, release: takeLease(fd) === 'taken' ? () => releaseLease(fd) : null }
}

onLinux('a file that somebody looks at with a lease is opened for writing a moment later', async t => {
  const { source, release } = leased(t)
  if (release === null) return t.pass('no leases on this disk')
  const opening = source.open('file', writing, never)
  t.true(opening instanceof Promise)
  release()
  const file: OpenFile = await opening
  t.is(file.entry.attributes.size, 7)
  file.close()
})

onLinux('a file that somebody looks at with a lease is not emptied once nobody waits for it any more', async t => {
  const { root, source, release } = leased(t)
  if (release === null) return t.pass('no leases on this disk')
  const interruption = new AbortController()
  const opening = Promise.resolve(source.open('file', { ...writing, truncate: true }, interruption.signal))
  interruption.abort()
  release()
  await t.throwsAsync(opening, { code: 'EINTR' })
  t.is(fs.readFileSync(join(root, 'file'), 'utf8'), 'content')
})

onLinux(
  'a file that somebody looks at with a lease is cut off by its name, and opened by who would make it, a moment later',
  async t => {
    const { root, source, release } = leased(t)
    if (release === null) return t.pass('no leases on this disk')
    const cutting = source.change('file', null, { size: 3 })
    const making = source.create('file', { ...writing, exclusive: false }, 0o100644, nobody)
    t.true(cutting instanceof Promise && making instanceof Promise)
    release()
    t.is((await cutting).attributes.size, 3)
    ;(await making).close()
    t.is(fs.readFileSync(join(root, 'file'), 'utf8'), 'con')
  },
)

onLinux('a file keeps its id through renames and links; another in its place has another', async t => {
  const { root, source } = folder(t)
  fs.writeFileSync(join(root, 'a'), '')
  const { id } = await source.lookup('a')
  await source.rename('a', 'b', 'keep')
  await source.link('b', 'c')
  t.is((await source.lookup('b')).id, id)
  t.is((await source.lookup('c')).id, id)
  fs.writeFileSync(join(root, 'd'), '')
  await source.rename('d', 'b', 'replace')
  t.not((await source.lookup('b')).id, id)
})
