/** Files that only another peer holds, in a mount: programs find, read and change them as if they were on the disk. */
import { execFile } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { getAttribute, listAttributes } from '../../actors/view/view-calls.ts'
import { arenaName, type Household } from '../system/_household.ts'
import type { Peer } from '../system/_peer.ts'
import { eventually, householdWithMount, mountOn, namesIn } from './_arenas.ts'
import { cannotMount } from './_mount.ts'

const run = promisify(execFile)

interface World {
  household: Household
  /** Holds everything. */
  server: Peer
  /** Has the arena mounted, and wants nothing real. */
  laptop: Peer
  /** The arena's root at each of them, and the mount. */
  there: string
  here: string
  docs: string
}

function onMount(title: string, body: (t: ExecutionContext) => Promise<void>): void {
  if (cannotMount !== null) return test.skip(`${title} (skipped: ${cannotMount})`, t => t.fail())
  test.serial(title, body)
}

/** Two peers; what `fill` writes is at the one, and the other only knows of it. */
async function world(t: ExecutionContext, fill: (root: string) => void): Promise<World> {
  const { household, at } = householdWithMount(t)
  const [server, laptop] = await household.couple(['server', 'laptop'])
  await laptop.call('mark', { arena: arenaName('docs'), mark: 'unreal' })
  const [there, here] = [household.root(server), household.root(laptop)]
  fill(there)
  await household.settled()
  await mountOn(laptop, at)
  return { household, server, laptop, there, here, docs: join(at, 'docs') }
}

/** Files that the disk below shows, at any depth. */
function realFiles(root: string): string[] {
  const found = fs.readdirSync(root, { recursive: true, withFileTypes: true })
  return found
    .filter(entry => entry.isFile() && !entry.parentPath.includes('.realize'))
    .map(entry => entry.name)
    .sort()
}

onMount('unreal files are listed, found and looked at like real ones', async t => {
  const w = await world(t, root => {
    fs.mkdirSync(join(root, 'deep/er'), { recursive: true })
    for (let index = 0; index < 50; index++) fs.writeFileSync(join(root, `deep/${index}`), 'x'.repeat(index))
    fs.writeFileSync(join(root, 'deep/er/program'), 'run', { mode: 0o755 })
    fs.symlinkSync('deep/7', join(root, 'link'))
    fs.utimesSync(join(root, 'deep/3'), 1_000_000_000, 1_000_000_000)
  })
  t.deepEqual(realFiles(w.here), [])
  const listing = 'find . -path ./.realize -prune -o -printf "%p %s %m %y %l %T@\\n" | sort'
  const listed = async (folder: string) =>
    (await run('sh', ['-c', listing], { cwd: folder })).stdout
      .replace(/^(\S+ )\d+( \d+ d .*) \S+$/gm, '$1$2')
      .replace(/(l \S+) \S+$/gm, '$1')
  t.is(await listed(w.docs), await listed(w.there))
  t.is(fs.statSync(join(w.docs, 'deep/9')).blocks, 1)
  t.is(fs.statSync(join(w.docs, 'deep/9')).ino, fs.statSync(join(w.docs, 'deep/9')).ino)
  t.is(namesIn(join(w.docs, 'deep/9')), 'ENOTDIR')
  t.false(fs.existsSync(join(w.docs, 'deep/99')))
  const attribute = (name: string, path: string) => Buffer.from(getAttribute(join(w.docs, path), name)).toString()
  t.is(attribute('user.realize.mark', 'deep/3'), 'unreal')
  t.is(attribute('user.realize.status', 'deep/3'), 'unreal')
  t.regex(attribute('user.realize.version', 'deep/3'), /^[0-9a-f]{8}$/)
  t.deepEqual(listAttributes(join(w.docs, 'deep/3')), [])
  t.throws(() => getAttribute(join(w.docs, 'deep/3'), 'user.other'), { code: 'ENODATA' })
  t.deepEqual(realFiles(w.here), [], 'looking makes nothing real')
})

onMount('what is made, changed and deleted elsewhere is seen without looking twice', async t => {
  const w = await world(t, root => {
    fs.mkdirSync(join(root, 'folder'))
    fs.writeFileSync(join(root, 'folder/file'), 'one')
  })
  const file = join(w.docs, 'folder/file')
  t.is(fs.statSync(file).size, 3)
  const { ino } = fs.statSync(file)
  fs.writeFileSync(join(w.there, 'folder/new'), '')
  await eventually('a new file is there', () => String(namesIn(join(w.docs, 'folder'))) === 'file,new')
  fs.writeFileSync(join(w.there, 'folder/file'), 'another')
  await eventually('its size is the new one', () => fs.statSync(file).size === 7)
  t.not(fs.statSync(file).ino, ino, 'new content is another file, as if it had been replaced')
  fs.rmSync(join(w.there, 'folder/file'))
  await eventually('it is gone', () => !fs.existsSync(file))
  t.deepEqual(realFiles(w.here), [])
})

onMount('deleting, renaming and touching unreal files fetches nothing and reaches everybody', async t => {
  const w = await world(t, root => {
    fs.mkdirSync(join(root, 'a/b'), { recursive: true })
    for (const name of ['one', 'two', 'three', 'four', 'five']) fs.writeFileSync(join(root, `a/${name}`), name)
    fs.writeFileSync(join(root, 'a/b/inner'), 'inner')
  })
  const at = (path: string) => join(w.docs, path)
  fs.unlinkSync(at('a/one'))
  t.false(fs.existsSync(at('a/one')))
  t.throws(() => fs.unlinkSync(at('a/one')), { code: 'ENOENT' })
  const { ino } = fs.statSync(at('a/two'))
  fs.renameSync(at('a/two'), at('a/zwei'))
  t.is(fs.statSync(at('a/zwei')).ino, ino)
  t.throws(() => fs.statSync(at('a/two')), { code: 'ENOENT' })
  fs.renameSync(at('a/three'), at('a/four'))
  fs.mkdirSync(at('made'))
  fs.renameSync(at('a/five'), at('made/five'))
  fs.utimesSync(at('made/five'), 1_234_567_890, 1_234_567_890)
  fs.chmodSync(at('made/five'), 0o755)
  t.throws(() => fs.rmdirSync(at('a/b')), { code: 'ENOTEMPTY' })
  t.throws(() => fs.renameSync(at('a/b'), at('c')), { code: 'EXDEV' })
  t.throws(() => fs.mkdirSync(at('a/four')), { code: 'EEXIST' })
  t.throws(() => fs.symlinkSync('x', at('a/four')), { code: 'EEXIST' })
  t.throws(() => fs.openSync(at('a/four'), 'wx'), { code: 'EEXIST' })
  t.throws(() => fs.renameSync(at('a/four'), at('a/b')), { code: 'EISDIR' })
  t.deepEqual(namesIn(at('a')), ['b', 'four', 'zwei'])
  await w.household.settled()
  t.deepEqual(namesIn(join(w.there, 'a')), ['b', 'four', 'zwei'])
  t.is(fs.readFileSync(join(w.there, 'a/four'), 'utf8'), 'three')
  t.is(fs.readFileSync(join(w.there, 'a/zwei'), 'utf8'), 'two')
  t.is(fs.readFileSync(join(w.there, 'made/five'), 'utf8'), 'five')
  t.is(fs.statSync(join(w.there, 'made/five')).mtimeMs, 1_234_567_890_000)
  t.is(fs.statSync(join(w.there, 'made/five')).mode & 0o111, 0o111)
  t.deepEqual(realFiles(w.here), [])
  fs.rmSync(at('a'), { recursive: true })
  await w.household.settled()
  t.deepEqual(namesIn(w.there), ['.realize', 'made'])
  t.deepEqual((await w.laptop.call('conflicts', { arena: arenaName('docs') })).conflicts, [])
})

onMount('a file that is written into becomes real first, and whoever saves over one makes no conflict', async t => {
  const w = await world(t, root => {
    for (const name of ['appended', 'emptied', 'replaced', 'backed-up', 'removed', 'patched', 'linked'])
      fs.writeFileSync(join(root, name), `${name} before\n`)
  })
  const at = (name: string) => join(w.docs, name)
  const { ino } = fs.statSync(at('appended'))
  fs.appendFileSync(at('appended'), 'more\n')
  t.is(fs.readFileSync(at('appended'), 'utf8'), 'appended before\nmore\n')
  t.is(fs.statSync(at('appended')).ino, ino)
  fs.writeFileSync(at('emptied'), 'anew')
  fs.writeFileSync(at('tmp'), 'renamed over it')
  fs.renameSync(at('tmp'), at('replaced'))
  fs.renameSync(at('backed-up'), at('backed-up~'))
  fs.writeFileSync(at('backed-up'), 'second', { flag: 'wx' })
  fs.unlinkSync(at('removed'))
  fs.writeFileSync(at('removed'), 'made again')
  const fd = fs.openSync(at('patched'), 'r+')
  fs.writeSync(fd, 'P', 0)
  fs.closeSync(fd)
  fs.linkSync(at('linked'), at('other name'))
  const expected: Record<string, string> = {
    appended: 'appended before\nmore\n',
    emptied: 'anew',
    replaced: 'renamed over it',
    'backed-up': 'second',
    'backed-up~': 'backed-up before\n',
    removed: 'made again',
    patched: 'Patched before\n',
    linked: 'linked before\n',
    'other name': 'linked before\n',
  }
  t.deepEqual(namesIn(w.docs), Object.keys(expected).sort())
  await w.household.settled()
  for (const [name, text] of Object.entries(expected)) t.is(fs.readFileSync(join(w.there, name), 'utf8'), text, name)
  t.deepEqual(namesIn(w.there), ['.realize', ...Object.keys(expected)].sort())
  t.deepEqual((await w.laptop.call('conflicts', { arena: arenaName('docs') })).conflicts, [])
})

onMount('a file that took the place of an unreal one and is deleted at once is deleted, not brought back', async t => {
  const w = await world(t, root => {
    for (let index = 0; index < 20; index++) fs.writeFileSync(join(root, `file-${index}`), `content ${index}`)
  })
  for (let index = 0; index < 20; index++) {
    fs.writeFileSync(join(w.docs, `file-${index}`), 'short life')
    fs.unlinkSync(join(w.docs, `file-${index}`))
    t.false(fs.existsSync(join(w.docs, `file-${index}`)))
  }
  t.deepEqual(namesIn(w.docs), [])
  await eventually('they are gone everywhere', () => String(namesIn(w.there)) === '.realize')
  await w.household.settled()
  t.deepEqual(namesIn(w.docs), [])
})
