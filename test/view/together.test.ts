/** Several programs at work in a mounted arena at once: what they are told is what a disk tells them. */
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { temporaryFolder } from '../_temp.ts'
import { arenaName } from '../system/_household.ts'
import { againAndAgain, content, mountOn, onMount, type PartialWorld, partialWorld } from './_arenas.ts'
import { cannotCompile } from './_compiled.ts'
import { signalledProgram, writeSignalled } from './_signalled.ts'

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))
const named = (folder: string, name: string) => JSON.stringify(join(folder, name))

/** Files `f0`, `f1`, … of 3,000 bytes in a folder. */
function fill(folder: string, count: number): void {
  fs.mkdirSync(folder, { recursive: true })
  for (let index = 0; index < count; index++) fs.writeFileSync(join(folder, `f${index}`), content(index, 3000))
}

/** Whatever they have done, both peers show the same and nothing was in conflict. */
async function agree(t: ExecutionContext, w: PartialWorld, names: readonly string[]): Promise<void> {
  await w.household.settled()
  for (const at of [w.docs, w.there]) {
    const found = fs.readdirSync(at, { recursive: true }) as string[]
    t.deepEqual(found.filter(name => !name.startsWith('.realize')).sort(), [...names].sort(), at)
  }
  t.deepEqual((await w.laptop.call('conflicts', { arena: arenaName('docs') })).conflicts, [])
}

const numbered = (folder: string, count: number) => Array.from({ length: count }, (_, index) => `${folder}/f${index}`)

/** A mount for programs that rename and delete most of a small tree again and again: nobody is to be asked whether that is meant. */
async function unguarded(t: ExecutionContext, fill: (root: string) => void): Promise<PartialWorld> {
  const w = await partialWorld(t, fill)
  w.laptop.editConfig(text => text.replace(/^\[\[arenas\]\]\n/m, '[[arenas]]\nguard = { deletes = "100%" }\n'))
  await w.laptop.call('config_reload', {})
  return w
}

/** Runs programs side by side for a while; each fails the test if it throws. */
async function together(t: ExecutionContext, forMs: number, works: readonly string[]): Promise<void> {
  const ends: Awaited<ReturnType<typeof againAndAgain>>[] = []
  for (const work of works) ends.push(await againAndAgain(t, work))
  await pause(forMs)
  for (const end of ends) t.true((await end()).turns > 0)
}

onMount('who opens a file and would make it finds it or makes it, whatever others delete', async t => {
  const w = await unguarded(t, root => fs.writeFileSync(join(root, 'file'), 'unreal'))
  const file = named(w.docs, 'file')
  await together(t, 3000, [
    `for (let n = 0; n < 20; n++) fs.closeSync(fs.openSync(${file}, n % 2 ? 'a' : 'w'))`,
    `for (let n = 0; n < 20; n++) fs.rmSync(${file}, { force: true })`,
  ])
  fs.writeFileSync(join(w.docs, 'file'), 'at last')
  await agree(t, w, ['file'])
})

onMount('a file is there while others give it a second name and take that away', async t => {
  const count = 5
  const w = await unguarded(t, root => fill(join(root, 'd'), count))
  const each = (work: string) =>
    `for (let n = 0; n < ${count}; n++) { const name = ${named(w.docs, 'd/f')} + n; ${work} }`
  await together(t, 4000, [
    each(`fs.linkSync(name, name + '~'); fs.unlinkSync(name + '~')`),
    each(`const fd = fs.openSync(name, 'r+'); fs.fstatSync(fd); fs.closeSync(fd); fs.statSync(name)`),
    each(`const fd = fs.openSync(name, 'w'); fs.writeSync(fd, 'more'); fs.fstatSync(fd); fs.closeSync(fd)`),
  ])
  await agree(t, w, ['d', ...numbered('d', count)])
})

onMount('who works in a folder goes on with it while it is renamed, with files that are not here', async t => {
  const count = 12
  const w = await unguarded(t, root => fill(join(root, 'd'), count))
  const end = await againAndAgain(
    t,
    `
    process.chdir(globalThis.inside ??= ${named(w.docs, 'd')})
    globalThis.inside = '.'
    const name = 'f' + turns % ${count}
    if (fs.statSync(name).size !== 3000) throw new Error('a size')
    if (fs.readFileSync(name).length !== 3000) throw new Error('a length')
    fs.writeFileSync('new', name)
    fs.unlinkSync('new')
    if (fs.readdirSync('.').length !== ${count}) throw new Error('files are missing')`,
  )
  await pause(300)
  for (let round = 0; round < 40; round++) {
    const [from, to] = round % 2 === 0 ? ['d', 'e'] : ['e', 'd']
    fs.renameSync(join(w.docs, from), join(w.docs, to))
    await pause(20)
  }
  t.true((await end()).turns > 1)
  await agree(t, w, ['d', ...numbered('d', count)])
})

onMount('folders that are renamed at once, one in the other, stay whole', async t => {
  const count = 12
  const w = await unguarded(t, root => fill(join(root, 'd/sub'), count))
  const swing = (one: string, other: string) =>
    `fs.renameSync('${one}', '${other}'); fs.renameSync('${other}', '${one}')`
  // Others may just have renamed it.
  const inside = (path: string) => `
    while (!globalThis.inside)
      try { process.chdir(${named(w.docs, path)}); globalThis.inside = true } catch {}`
  await together(t, 6000, [
    `${inside('')}; ${swing('d', 'e')}`,
    `${inside('d')}; ${swing('sub', 'sub2')}`,
    `${inside('d/sub')}
    const name = 'f' + turns % ${count}
    if (fs.readFileSync(name).length !== 3000) throw new Error('a length')
    fs.closeSync(fs.openSync(name, 'r+'))`,
  ])
  await agree(t, w, ['d', 'd/sub', ...numbered('d/sub', count)])
})

onMount('files are saved in a folder while it is renamed, and all of them are in it afterwards', async t => {
  const count = 60
  const w = await unguarded(t, root => fill(join(root, 'd'), count))
  const folder = await fs.promises.open(join(w.docs, 'd'), 'r')
  let saved = false
  const renamed = (async () => {
    for (let round = 0; !saved; round++) {
      const [from, to] = round % 2 === 0 ? ['d', 'e'] : ['e', 'd']
      await fs.promises.rename(join(w.docs, from), join(w.docs, to))
      await pause(5)
    }
  })()
  for (let index = 0; index < count; index++) {
    const flags = index % 2 === 0 ? fs.constants.O_WRONLY | fs.constants.O_TRUNC : fs.constants.O_RDWR
    const file = await fs.promises.open(`/proc/self/fd/${folder.fd}/f${index}`, flags)
    await file.write('new')
    await file.close()
  }
  saved = true
  await renamed
  await folder.close()
  const name = fs.existsSync(join(w.docs, 'd')) ? 'd' : 'e'
  await agree(t, w, [name, ...numbered(name, count)])
  for (let index = 0; index < count; index++) {
    const expected = Buffer.concat([Buffer.from('new'), content(index, index % 2 === 0 ? 0 : 3000).subarray(3)])
    t.true(fs.readFileSync(join(w.there, name, `f${index}`)).equals(expected), `f${index}`)
  }
})

onMount(
  'several that save the same files at the same time, through two mounts, find them',
  async t => {
    const program = signalledProgram(t)
    const count = 200
    const w = await partialWorld(t, root => fill(join(root, 'd'), count))
    const second = join(temporaryFolder(t), 'view')
    t.teardown(() => void spawnSync('umount', ['--lazy', second]))
    await mountOn(w.laptop, second)
    const saving = [w.docs, join(second, 'docs'), w.docs, join(second, 'docs')].map((docs, index) =>
      writeSignalled(program, { folder: join(docs, 'd'), count, by: 'nobody', byte: 66 + index }),
    )
    await Promise.all(saving)
    await agree(t, w, ['d', ...numbered('d', count)])
  },
  cannotCompile,
)
