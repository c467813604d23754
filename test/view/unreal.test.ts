/** Files that only another peer holds, in a mount: programs find, read and change them as if they were on the disk. */
import { execFile, execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { getAttribute, listAttributes, removeAttribute, setAttribute } from '../../actors/view/view-calls.ts'
import { arenaName } from '../system/_household.ts'
import { againAndAgain, content, eventually, namesIn, onMount, partialWorld } from './_arenas.ts'
import { cannotCompile } from './_compiled.ts'
import { signalledProgram, writeSignalled } from './_signalled.ts'

const run = promisify(execFile)

const IDENTITY = {
  GIT_AUTHOR_NAME: 'A',
  GIT_AUTHOR_EMAIL: 'a@example.org',
  GIT_COMMITTER_NAME: 'A',
  GIT_COMMITTER_EMAIL: 'a@example.org',
  GIT_CONFIG_GLOBAL: '/dev/null',
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
  const w = await partialWorld(t, root => {
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
  t.is(attribute('user.realize.peers', 'deep/3'), 'server')
  t.deepEqual(listAttributes(join(w.docs, 'deep/3')), [])
  t.throws(() => getAttribute(join(w.docs, 'deep/3'), 'user.other'), { code: 'ENODATA' })
  t.deepEqual(realFiles(w.here), [], 'looking makes nothing real')
})

onMount('a mark is set, told and taken away as an attribute, and heeded', async t => {
  const w = await partialWorld(t, root => {
    fs.mkdirSync(join(root, 'folder'))
    fs.writeFileSync(join(root, 'folder/file'), 'content')
    fs.writeFileSync(join(root, 'other'), 'content')
  })
  const folder = join(w.docs, 'folder')
  const markOf = (path: string) => Buffer.from(getAttribute(path, 'user.realize.mark')).toString()
  const set = (path: string, name: string, value: string) => setAttribute(path, name, Buffer.from(value), 0)
  set(folder, 'user.realize.mark', 'real')
  t.is(markOf(join(folder, 'file')), 'real')
  t.is(markOf(join(w.docs, 'other')), 'unreal')
  await eventually('what is below is real', () => String(realFiles(w.here)) === 'file')
  t.throws(() => set(folder, 'user.realize.mark', 'red'), { code: 'EINVAL' })
  t.throws(() => set(folder, 'user.realize.status', 'real'), { code: 'EPERM' })
  t.throws(() => set(w.docs, 'user.realize.mark', 'real'), { code: 'EPERM' })
  removeAttribute(folder, 'user.realize.mark')
  t.is(markOf(join(folder, 'file')), 'unreal')
})

onMount('what is made, changed and deleted elsewhere is seen without looking twice', async t => {
  const w = await partialWorld(t, root => {
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
  const w = await partialWorld(t, root => {
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
  const inner = fs.statSync(at('a/b/inner')).ino
  fs.renameSync(at('a/b'), at('a/c'))
  t.is(fs.statSync(at('a/c/inner')).ino, inner)
  t.false(fs.existsSync(at('a/b')))
  fs.renameSync(at('a/c'), at('a/b'))
  t.deepEqual(namesIn(at('a/b')), ['inner'])
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
  const w = await partialWorld(t, root => {
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

onMount(
  'what an interrupted program opens once more is emptied once, and several that save at the same time find the file',
  async t => {
    const program = signalledProgram(t)
    const [count, bytes] = [300, 3000]
    const w = await partialWorld(t, root => {
      for (const folder of ['timer', 'person', 'together']) {
        fs.mkdirSync(join(root, folder))
        for (let index = 0; index < count; index++)
          fs.writeFileSync(join(root, folder, `f${index}`), content(index, bytes))
      }
    })
    const folder = (name: string) => ({ folder: join(w.docs, name), count })
    t.is(await writeSignalled(program, { ...folder('timer'), by: 'timer', byte: 65 }), 0, 'a timer interrupts nothing')
    const interrupted = await writeSignalled(program, { ...folder('person'), by: 'person', byte: 65 })
    t.true(interrupted > 0)
    const together = [66, 67, 68].map(byte => writeSignalled(program, { ...folder('together'), by: 'nobody', byte }))
    await Promise.all(together)
    t.log(`${interrupted} openings interrupted`)
    await w.household.settled()
    for (let index = 0; index < count; index++) {
      const kept = index % 3 === 2 ? content(index, bytes).subarray(500) : Buffer.alloc(0)
      const expected = Buffer.concat([Buffer.alloc(500, 65), kept])
      for (const at of [w.docs, w.there])
        for (const by of ['timer', 'person']) t.true(fs.readFileSync(join(at, by, `f${index}`)).equals(expected))
      t.true(
        fs
          .readFileSync(join(w.docs, `together/f${index}`))
          .equals(fs.readFileSync(join(w.there, `together/f${index}`))),
      )
    }
    t.deepEqual((await w.laptop.call('conflicts', { arena: arenaName('docs') })).conflicts, [])
  },
  cannotCompile,
)

onMount('a file that took the place of an unreal one and is deleted at once is deleted, not brought back', async t => {
  const w = await partialWorld(t, root => {
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

onMount('programs read what is not here: grep, cmp, a part of a big file, git, rsync, gcc', async t => {
  const big = content(1, 24_000_000)
  const w = await partialWorld(t, root => {
    for (let index = 0; index < 100; index++)
      fs.writeFileSync(join(root, `text-${index}`), `line ${index}\nneedle ${index}\n`)
    fs.writeFileSync(join(root, 'big'), big)
    fs.writeFileSync(join(root, 'empty'), '')
    fs.copyFileSync('/bin/echo', join(root, 'program that is not here'))
    fs.writeFileSync(join(root, 'answer.h'), '#define ANSWER 42\n')
    fs.writeFileSync(
      join(root, 'main.c'),
      '#include <stdio.h>\n#include "answer.h"\nint main() { printf("%d\\n", ANSWER); return 0; }\n',
    )
    execFileSync('git', ['init', '-q', '-b', 'main', join(root, 'repository')])
    fs.writeFileSync(join(root, 'repository/file'), 'committed\n')
    for (const words of [
      ['add', '.'],
      ['commit', '-qm', 'first'],
    ])
      execFileSync('git', ['-C', join(root, 'repository'), ...words], { env: { ...process.env, ...IDENTITY } })
  })
  const part = Buffer.alloc(100_000)
  const fd = fs.openSync(join(w.docs, 'big'), 'r')
  t.is(fs.readSync(fd, part, 0, part.length, 11_111_111), part.length)
  t.true(part.equals(big.subarray(11_111_111, 11_211_111)))
  fs.closeSync(fd)
  t.true((await w.laptop.arena('docs')).cachedBytes < 10_000_000, 'the rest was not fetched')
  t.is((await run('sh', ['-c', 'grep -rh needle . | sort | wc -l'], { cwd: w.docs })).stdout.trim(), '100')
  t.is(fs.readFileSync(join(w.docs, 'empty')).length, 0)
  await run('cmp', [join(w.docs, 'big'), join(w.there, 'big')])
  await run('gcc', ['-o', 'program', 'main.c'], { cwd: w.docs })
  t.is((await run(join(w.docs, 'program'))).stdout, '42\n')
  t.is((await run(join(w.docs, 'program that is not here'), ['it', 'runs'])).stdout, 'it runs\n')
  const git = async (...words: string[]) =>
    (await run('git', ['-C', join(w.docs, 'repository'), ...words], { env: { ...process.env, ...IDENTITY } })).stdout
  await git('fsck', '--strict')
  t.is(await git('status', '--porcelain'), '')
  fs.appendFileSync(join(w.docs, 'repository/file'), 'more\n')
  await git('commit', '-qam', 'second')
  t.is((await git('log', '--oneline')).trim().split('\n').length, 2)
  await run('rsync', ['-a', `${w.docs}/`, join(w.household.folder, 'copy/')])
  await run('rsync', ['-a', '--delete', `${w.household.folder}/copy/repository/`, `${w.docs}/second/`])
  await w.household.settled()
  // Permissions other than the executable bit, and times of folders, are not synced.
  const differs = async (from: string, to: string) => (await run('rsync', ['-rlnci', `${from}/`, `${to}/`])).stdout
  t.is(await differs(join(w.household.folder, 'copy'), w.there), '')
  t.is(await differs(join(w.docs, 'second'), join(w.there, 'second')), '')
  t.deepEqual((await w.laptop.call('conflicts', { arena: arenaName('docs') })).conflicts, [])
})

onMount(
  'with the peers gone what was not read fails at once, what was read is there, and all of it once they are back',
  async t => {
    const w = await partialWorld(t, root => {
      for (const [seed, name] of ['read', 'unread', 'open'].entries())
        fs.writeFileSync(join(root, name), content(seed, 1_000_000))
    })
    const before = fs.readFileSync(join(w.docs, 'read'))
    const open = fs.openSync(join(w.docs, 'open'), 'r')
    const first = Buffer.alloc(10)
    fs.readSync(open, first, 0, 10, 0)
    await w.server.kill()
    await w.laptop.until('the server is gone', status => status.peers.every(peer => peer.state !== 'connected'))
    const startMs = performance.now()
    t.throws(() => void fs.readFileSync(join(w.docs, 'unread')), { code: 'EHOSTUNREACH' })
    t.throws(() => fs.appendFileSync(join(w.docs, 'unread'), 'x'), { code: 'EHOSTUNREACH' })
    const ms = performance.now() - startMs
    t.true(ms < 1000, `${ms} ms`)
    t.deepEqual(namesIn(w.docs), ['open', 'read', 'unread'])
    t.true(fs.readFileSync(join(w.docs, 'read')).equals(before))
    fs.renameSync(join(w.docs, 'unread'), join(w.docs, 'renamed meanwhile'))
    await w.server.start()
    await eventually('it can be read again', () => {
      return readIfThere(join(w.docs, 'renamed meanwhile'))?.equals(content(1, 1_000_000)) ?? false
    })
    t.is(fs.readSync(open, first, 0, 10, 999_000), 10)
    fs.closeSync(open)
    await w.household.settled()
    t.deepEqual(namesIn(w.there), ['.realize', 'open', 'read', 'renamed meanwhile'])
  },
)

onMount(
  'who reads while the file is replaced elsewhere gets the former content or the new one, never a mix',
  async t => {
    const size = 600_000
    const w = await partialWorld(t, root => fs.writeFileSync(join(root, 'file'), Buffer.alloc(size, 0)))
    // Where the former content is nowhere any more that is said, and no other put in its place.
    const work = `
    let bytes
    try {
      bytes = fs.readFileSync(${JSON.stringify(join(w.docs, 'file'))})
    } catch (error) {
      if (error.code === 'EHOSTUNREACH') return 'unreachable'
      throw error
    }
    if (bytes.length !== ${size} || bytes.some(byte => byte !== bytes[0])) throw new Error('a mix')
    return bytes[0]`
    const readers = [await againAndAgain(t, work), await againAndAgain(t, work)]
    for (let round = 1; round <= 12; round++) {
      // As an editor does it: never half a file on the disk.
      fs.writeFileSync(join(w.household.folder, 'next'), Buffer.alloc(size, round))
      fs.renameSync(join(w.household.folder, 'next'), join(w.there, 'file'))
      await eventually('it is seen', () => readIfThere(join(w.docs, 'file'))?.[0] === round)
    }
    for (const end of readers) t.true((await end()).results > 1)
  },
)

onMount(
  'what is cached wholly is read without peers, arena or cache, and who has it open sees what is written to it',
  async t => {
    const before = content(3, 3_000_000)
    const w = await partialWorld(t, root => {
      fs.writeFileSync(join(root, 'film'), before)
      fs.writeFileSync(join(root, 'song'), before.subarray(1))
    })
    const [film, song] = [join(w.docs, 'film'), join(w.docs, 'song')]
    t.true(fs.readFileSync(film).equals(before))
    t.true(fs.readFileSync(song).equals(before.subarray(1)))
    const open = fs.openSync(film, 'r')
    const other = fs.openSync(song, 'r')
    const at = (fd: number, offset: number) => {
      const bytes = Buffer.alloc(5)
      return bytes.subarray(0, fs.readSync(fd, bytes, 0, 5, offset))
    }
    // What the kernel has of it is forgotten: it asks again.
    const forget = (path: string) => run('dd', [`if=${path}`, 'iflag=nocache', 'count=0'])
    const cache = join(w.laptop.home, 'cache', 'docs')
    await w.server.kill()
    fs.rmSync(cache, { recursive: true })
    await forget(film)
    await forget(song)
    t.deepEqual(at(open, 2_000_000), before.subarray(2_000_000, 2_000_005))
    t.deepEqual(at(other, 999_999), before.subarray(1_000_000, 1_000_005))
    await w.server.start()
    await w.household.together([w.server, w.laptop])

    fs.futimesSync(open, 1_000_000_000, 1_000_000_000)
    t.is(fs.fstatSync(open).mtimeMs, 1e12)
    fs.appendFileSync(film, 'more\n')
    t.is(at(open, before.length).toString(), 'more\n')
    const writer = fs.openSync(film, 'r+')
    fs.writeSync(writer, 'other', 2_000_000)
    t.is(at(open, 2_000_000).toString(), 'other')
    t.is(fs.fstatSync(open).size, before.length + 5)
    fs.ftruncateSync(writer, 10)
    t.is(at(open, 2_000_000).length, 0)
    fs.closeSync(writer)
    for (const fd of [open, other]) fs.closeSync(fd)
    t.is(fs.readFileSync(film).length, 10)
    t.true(fs.readFileSync(song).equals(before.subarray(1)))
  },
)

/** Content of a file; null if nobody can give it now. */
function readIfThere(path: string): Buffer | null {
  try {
    return fs.readFileSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EHOSTUNREACH') return null
    throw error
  }
}

onMount(
  'who reads an unreal file on demand sees what others cut off and change by its name, also once it has none',
  async t => {
    const whole = content(3, 300_000)
    const w = await partialWorld(t, root => {
      for (const name of ['cut', 'longer', 'emptied', 'run', 'touched']) fs.writeFileSync(join(root, name), whole)
    })
    const at = (name: string) => join(w.docs, name)
    const open = (name: string) => {
      const fd = fs.openSync(at(name), 'r')
      t.teardown(() => fs.closeSync(fd))
      t.is(fs.readSync(fd, Buffer.alloc(10), 0, 10, 0), 10)
      return fd
    }
    const sizes = { cut: 200_001, longer: 400_000, emptied: 0 }
    for (const [name, size] of Object.entries(sizes)) {
      const fd = open(name)
      fs.truncateSync(at(name), size)
      for (const has of ['its name', 'no name']) {
        t.is(fs.fstatSync(fd).size, size, `${name}, with ${has}`)
        const bytes = Buffer.alloc(500_000)
        t.is(fs.readSync(fd, bytes, 0, bytes.length, 0), size)
        const kept = Math.min(size, whole.length)
        t.true(bytes.subarray(0, kept).equals(whole.subarray(0, kept)))
        t.true(bytes.subarray(kept).every(byte => byte === 0))
        if (has === 'its name') fs.unlinkSync(at(name))
      }
    }
    const [run, touched] = [open('run'), open('touched')]
    fs.chmodSync(at('run'), 0o755)
    fs.utimesSync(at('touched'), 1_000_000_000, 1_000_000_000)
    for (const name of ['run', 'touched']) fs.unlinkSync(at(name))
    t.is(fs.fstatSync(run).mode & 0o777, 0o755)
    t.is(fs.fstatSync(touched).mtimeMs, 1_000_000_000_000)
    await w.household.settled()
    t.deepEqual(namesIn(w.there), ['.realize'])
  },
)
