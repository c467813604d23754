/** Content that is given up while programs look at it through a mount. */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { arenaName } from '../system/_household.ts'
import { againAndAgain, content, eventually, onMount, partialWorld } from './_arenas.ts'

onMount(
  'while content is given up, and while it comes back, the file is there at every moment and stays the same',
  async t => {
    const w = await partialWorld(t, root => fs.writeFileSync(join(root, 'file'), content(5, 300_000)))
    const file = join(w.docs, 'file')
    const name = JSON.stringify(file)
    const end = await againAndAgain(t, `fs.closeSync(fs.openSync(${name})); return fs.statSync(${name}).ino`)
    const { ino } = fs.statSync(file)
    const mark = (mark: 'real' | 'unreal') => w.laptop.call('mark', { arena: arenaName('docs'), mark })
    for (let round = 0; round < 2; round++) {
      await mark('real')
      await eventually('it is on the disk', () => fs.existsSync(join(w.here, 'file')))
      t.is(fs.statSync(file).ino, ino)
      await w.household.settled()
      await mark('unreal')
      // A peer that has just started promises nothing for a while.
      await eventually('it is off the disk', () => !fs.existsSync(join(w.here, 'file')))
      t.is(fs.statSync(file).ino, ino)
    }
    t.true(fs.readFileSync(file).equals(content(5, 300_000)))
    const { turns, results } = await end()
    t.true(turns > 1)
    t.is(results, 1)
  },
)

onMount('a file that is open for writing through a mount is not given up', async t => {
  const w = await partialWorld(t, root => fs.writeFileSync(join(root, 'file'), 'before\n'))
  const fd = fs.openSync(join(w.docs, 'file'), 'a')
  const evicted = await w.laptop.call('evict', { arena: arenaName('docs'), path: 'file' })
  t.is(evicted.files, 0)
  t.true(fs.existsSync(join(w.here, 'file')))
  fs.writeSync(fd, 'after\n')
  fs.closeSync(fd)
  await eventually('what was written is with the other', () => {
    return fs.readFileSync(join(w.there, 'file'), 'utf8') === 'before\nafter\n'
  })
  await eventually('then it is given up', () => !fs.existsSync(join(w.here, 'file')))
  t.is(fs.readFileSync(join(w.docs, 'file'), 'utf8'), 'before\nafter\n')
})

onMount('a file that somebody reads through a mount is not given up: what is written to it, it sees', async t => {
  const w = await partialWorld(t, root => {
    for (const name of ['opened', 'mapped on']) fs.writeFileSync(join(root, name), 'before\n')
  })
  const at = (name: string) => join(w.docs, name)
  // On demand, and with the real file once somebody has written.
  const readers = ['opened', 'mapped on'].map(name => {
    if (name === 'opened') fs.closeSync(fs.openSync(at(name), 'r+'))
    const reader = fs.openSync(at(name), 'r')
    if (name !== 'opened') fs.closeSync(fs.openSync(at(name), 'r+'))
    return { name, reader }
  })
  const read = (fd: number) => {
    const bytes = Buffer.alloc(100)
    return bytes.toString('utf8', 0, fs.readSync(fd, bytes, 0, bytes.length, 0))
  }
  await w.household.settled()
  for (const { name, reader } of readers) {
    t.is(read(reader), 'before\n')
    fs.renameSync(at(name), at(`${name}, renamed`))
    await w.household.settled()
    const path = `${name}, renamed`
    const evicted = await w.laptop.call('evict', { arena: arenaName('docs'), path })
    t.is(evicted.files, 0)
    t.regex(JSON.stringify(evicted), /it is open/)
    fs.appendFileSync(at(path), 'after\n')
    t.is(read(reader), 'before\nafter\n')
    t.is(fs.fstatSync(reader).size, 13)
    fs.closeSync(reader)
    await eventually('then it is given up', () => !fs.existsSync(join(w.here, path)))
    t.is(fs.readFileSync(at(path), 'utf8'), 'before\nafter\n')
    t.is(fs.readFileSync(join(w.there, path), 'utf8'), 'before\nafter\n')
  }
})
