/** Real trees of real size, both ways and through restarts. */
import {
  appendFileSync,
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { Household } from './_household.ts'
import { randomBytesFrom, randomFrom } from './_random.ts'
import { type Content, makeTree, type Tree } from './_tree.ts'

const PACKAGES = realpathSync(fileURLToPath(new URL('../../../node_modules', import.meta.url)))
const FILES_MIN = 20_000
/** Native programs of tens of megabytes: not what makes a tree of packages hard. */
const LARGE = new Set(['@biomejs', '@typescript'])

test.serial(
  'a folder of installed packages, 20,000 files with links and programs, goes both ways through restarts',
  async t => {
    t.timeout(480_000)
    const household = new Household(t)
    const [alice, bob] = await household.couple()
    const ours = join(household.folder, 'prepared')
    cpSync(PACKAGES, ours, {
      recursive: true,
      verbatimSymlinks: true,
      filter: source => !LARGE.has(source.slice(PACKAGES.length + 1)),
    })
    // All at once, as when a folder is moved in; bob is stopped and started in the middle of it.
    renameSync(ours, join(household.root(alice), 'node_modules'))
    await bob.untilArena('has begun', 'docs', status => status.files > 500 || status.consensus)
    await bob.kill()
    await bob.start()
    await household.together([alice, bob])
    const first = await household.same(t)
    t.true(count(first, 'plain file') > 5_000, `${first.size} entries`)
    t.true(count(first, 'link to') > 5)
    t.true(count(first, 'executable file') > 5)

    // The rest of the 20,000 the other way, in packages that are made up; alice is restarted in the middle of it.
    const missing = Math.max(2_000, FILES_MIN - count(first, 'plain file') - count(first, 'executable file'))
    const made = join(household.folder, 'made')
    makeTree(made, madePackages(missing))
    renameSync(made, join(household.root(bob), 'node_modules', 'made'))
    await alice.untilArena('has begun', 'docs', status => status.files > first.size || status.consensus)
    await alice.stop()
    await alice.start()
    await household.together([alice, bob])
    const second = await household.same(t)
    t.true(count(second, 'plain file') + count(second, 'executable file') >= FILES_MIN, `${second.size} entries`)

    // An upgrade of some packages on each side, while the other is away.
    await alice.stop()
    for (let i = 0; i < 20; i++)
      rmSync(join(household.root(bob), `node_modules/made/package-${i}`), { recursive: true })
    for (let i = 20; i < 40; i++)
      appendFileSync(join(household.root(bob), `node_modules/made/package-${i}/index.js`), '// newer\n')
    renameSync(
      join(household.root(bob), 'node_modules/made/package-50'),
      join(household.root(bob), 'node_modules/made/renamed'),
    )
    await alice.start()
    await household.together([alice, bob])
    const third = await household.same(t)
    t.false(third.has('node_modules/made/package-0'))
    t.true(third.has('node_modules/made/renamed/index.js'))
    for (const peer of [alice, bob]) {
      t.like(await peer.arena('docs'), { conflicts: 0, problemCount: 0 })
      t.deepEqual(household.staged(peer), [])
    }
  },
)

test.serial(
  'a folder of three files of 200 MiB goes over, is edited, renamed and added to from the other side',
  async t => {
    t.timeout(480_000)
    const household = new Household(t)
    const [alice, bob] = await household.couple()
    const size = 200 * 1024 * 1024
    mkdirSync(join(household.root(alice), 'films'))
    for (let i = 0; i < 3; i++) writeFileSync(join(household.root(alice), `films/${i}`), randomBytesFrom(100 + i, size))
    const first = await household.same(t)
    t.is(count(first, `plain file, ${size} bytes`), 3)

    const films = join(household.root(bob), 'films')
    const fd = openSync(join(films, '0'), 'r+')
    writeSync(fd, 'changed in the middle', size / 2)
    closeSync(fd)
    appendFileSync(join(films, '1'), 'more at the end')
    renameSync(join(films, '2'), join(films, 'two'))
    writeFileSync(join(films, '3'), randomBytesFrom(103, size / 4))
    renameSync(films, join(household.root(bob), 'cinema'))
    const second = await household.same(t)
    t.deepEqual([...second.keys()], ['cinema', 'cinema/0', 'cinema/1', 'cinema/3', 'cinema/two'])
    for (const peer of [alice, bob]) t.deepEqual(household.staged(peer), [])
  },
)

function count(tree: Tree, kind: string): number {
  let found = 0
  for (const line of tree.values()) if (line.startsWith(kind)) found += 1
  return found
}

/** Package folders with at least so many files in all: small modules, a program, a link to it, some empty files and folders. */
function madePackages(files: number): Record<string, Content> {
  const random = randomFrom(7)
  const tree: Record<string, Content> = {}
  for (let i = 0, made = 0; made < files; i++) {
    const folder = `package-${i}`
    tree[`${folder}/package.json`] = JSON.stringify({ name: folder, version: `1.${i}.0`, main: 'index.js' })
    tree[`${folder}/index.js`] = `export const number = ${i}\n`
    tree[`${folder}/bin/cli.js`] = { run: `#!/usr/bin/env node\n// ${i}\n` }
    tree[`.bin/${folder}`] = { link: `../${folder}/bin/cli.js` }
    tree[`${folder}/lib/empty.js`] = ''
    tree[`${folder}/test`] = null
    for (let k = 0; k < 46; k++)
      tree[`${folder}/lib/part-${k}.js`] = randomBytesFrom(i * 64 + k, 64 + Math.floor(random() * 3000))
    made += 50
  }
  return tree
}
