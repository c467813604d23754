/** Programs of every day in a mounted folder: they must not be able to tell it from a disk. */
import { execFile, spawn, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { within } from '../_deadline.ts'
import { temporaryFolder } from '../_temp.ts'
import { cannotMount, type Mounted, mounted } from './_mount.ts'

const run = promisify(execFile)

/** Where a program is missing or nothing can be mounted the title says so. */
function withProgram(title: string, programs: string[], body: (t: ExecutionContext, m: Mounted) => unknown): void {
  const missing = programs.find(program => spawnSync(program, ['--version']).error !== undefined)
  const reason = cannotMount ?? (missing === undefined ? null : `no ${missing} here`)
  if (reason !== null) return test.skip(`${title} (skipped: ${reason})`, t => t.fail())
  for (const passthrough of process.geteuid?.() === 0 ? [false, true] : [false])
    test.serial(`${title}${passthrough ? ' – files given to the kernel' : ''}`, async t => {
      const m = await mounted(t, { passthrough })
      await body(t, m)
    })
}

const IDENTITY = {
  GIT_AUTHOR_NAME: 'A',
  GIT_AUTHOR_EMAIL: 'a@example.org',
  GIT_COMMITTER_NAME: 'A',
  GIT_COMMITTER_EMAIL: 'a@example.org',
  GIT_CONFIG_GLOBAL: '/dev/null',
}

withProgram('git keeps a repository', ['git'], async (t, { root, at }) => {
  const git = async (...args: string[]) =>
    (await run('git', ['-C', at, ...args], { env: { ...process.env, ...IDENTITY } })).stdout.trim()
  await git('init', '-q', '-b', 'main')
  fs.mkdirSync(join(at, 'src/deep'), { recursive: true })
  for (let index = 0; index < 60; index++)
    fs.writeFileSync(join(at, `src/deep/${index}.txt`), `line ${index}\n`.repeat(index))
  await git('add', '.')
  await git('commit', '-qm', 'first')
  t.is(await git('status', '--porcelain'), '')
  fs.appendFileSync(join(at, 'src/deep/7.txt'), 'more\n')
  fs.rmSync(join(at, 'src/deep/8.txt'))
  fs.writeFileSync(join(at, 'new'), 'new')
  t.deepEqual(
    (await git('status', '--porcelain')).split('\n').map(line => line.trim()),
    ['M src/deep/7.txt', 'D src/deep/8.txt', '?? new'],
  )
  await git('checkout', '-qb', 'other')
  await git('commit', '-qam', 'second')
  await git('checkout', '-q', 'main')
  t.true(fs.existsSync(join(root, 'src/deep/8.txt')))
  await git('merge', '-q', 'other')
  t.is((await git('log', '--oneline')).split('\n').length, 2)
  await git('gc', '-q')
  await git('fsck', '--strict')
  t.is(await git('status', '--porcelain'), '?? new')
  t.is(
    (await run('git', ['-C', root, '-c', `safe.directory=${root}`, 'rev-parse', 'HEAD'])).stdout.trim(),
    await git('rev-parse', 'HEAD'),
  )
})

const PROGRAM = `
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "size.h"
int main(int count, char **names) {
  int fd = open(names[1], O_RDWR);
  char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) { perror("mmap"); return 1; }
  close(fd);
  if (memcmp(map, "before", 6) != 0) { puts("not what was written"); return 2; }
  memcpy(map + SIZE - 5, "after", 5);
  if (count > 2) {
    puts("mapped");
    fflush(stdout);
    getchar();
    return 0;
  }
  if (msync(map, SIZE, MS_SYNC) != 0) { perror("msync"); return 3; }
  munmap(map, SIZE);
  puts("mapped");
  return 0;
}
`

withProgram('gcc builds a program there, it runs, and maps a file into its memory', ['gcc'], async (t, m) => {
  const { root, at } = m
  const size = 100_000
  fs.writeFileSync(join(at, 'size.h'), `#define SIZE ${size}\n`)
  fs.writeFileSync(join(at, 'map.c'), PROGRAM)
  await run('gcc', ['-O1', '-c', '-o', 'map.o', 'map.c'], { cwd: at })
  await run('gcc', ['-o', 'map', 'map.o'], { cwd: at })
  fs.writeFileSync(join(at, 'file'), Buffer.concat([Buffer.from('before'), Buffer.alloc(size - 6, 0x2e)]))
  t.is((await run(join(at, 'map'), [join(at, 'file')])).stdout, 'mapped\n')
  for (const folder of [root, at]) {
    const bytes = fs.readFileSync(join(folder, 'file'))
    t.is(bytes.length, size)
    t.is(bytes.toString('latin1', 0, 7), 'before.')
    t.is(bytes.toString('latin1', size - 6), '.after')
  }
  // And what is only in memory when the view is closed is not lost.
  fs.writeFileSync(join(at, 'other'), Buffer.concat([Buffer.from('before'), Buffer.alloc(size - 6, 0x2e)]))
  const child = spawn(join(root, 'map'), [join(at, 'other'), 'hold'])
  const exit = new Promise(resolve => child.once('exit', resolve))
  await within(30_000, 'the file is mapped', new Promise(resolve => child.stdout.once('data', resolve)))
  await m.close()
  t.is(fs.readFileSync(join(root, 'other'), 'latin1').slice(-6), '.after')
  child.stdin.end('\n')
  await within(30_000, 'the program ends', exit)
})

withProgram('rsync copies a tree in and out with all that it knows of it', ['rsync'], async (t, { root, at }) => {
  const folder = temporaryFolder(t)
  const tree = join(folder, 'tree')
  fs.mkdirSync(join(tree, 'deep/er'), { recursive: true })
  for (let index = 0; index < 100; index++)
    fs.writeFileSync(join(tree, `deep/${index}`), String(index).repeat(index * 10))
  fs.writeFileSync(join(tree, 'deep/er/big'), Buffer.alloc(3_000_000, 'content'))
  fs.symlinkSync('deep/1', join(tree, 'link'))
  fs.linkSync(join(tree, 'deep/2'), join(tree, 'twin'))
  fs.chmodSync(join(tree, 'deep/3'), 0o751)
  fs.utimesSync(join(tree, 'deep/4'), 1_000_000_000.5, 1_000_000_000.25)
  await run('rsync', ['-aHX', `${tree}/`, `${at}/copy/`])
  const differs = async (from: string, to: string) =>
    (await run('rsync', ['-aHXnci', '--delete', `${from}/`, `${to}/`])).stdout
  t.is(await differs(tree, join(at, 'copy')), '')
  t.is(await differs(tree, join(root, 'copy')), '')
  fs.appendFileSync(join(tree, 'deep/er/big'), 'more')
  fs.rmSync(join(tree, 'deep/5'))
  await run('rsync', ['-aHX', '--delete', '--no-whole-file', '--inplace', `${tree}/`, `${at}/copy/`])
  await run('rsync', ['-aHX', `${at}/copy/`, `${folder}/back/`])
  t.is(await differs(tree, join(folder, 'back')), '')
})

withProgram('files saved the ways that editors save them are whole at every moment', [], async (t, { root, at }) => {
  const file = join(at, 'notes.txt')
  const ways: Record<string, (text: string) => void> = {
    'in place': text => fs.writeFileSync(file, text),
    'temporary file, synced and renamed over it': text => {
      const fd = fs.openSync(join(at, '.notes.txt.swp'), 'wx', 0o644)
      fs.writeSync(fd, text)
      fs.fsyncSync(fd)
      fs.closeSync(fd)
      fs.renameSync(join(at, '.notes.txt.swp'), file)
    },
    'old one renamed to a backup, new one made': text => {
      fs.renameSync(file, `${file}~`)
      fs.writeFileSync(file, text, { flag: 'wx' })
    },
    'old one linked as a backup, temporary renamed': text => {
      fs.rmSync(`${file}.bak`, { force: true })
      fs.linkSync(file, `${file}.bak`)
      fs.writeFileSync(join(at, '4913'), text)
      fs.renameSync(join(at, '4913'), file)
    },
    'copied to a backup, then truncated and written': text => {
      fs.copyFileSync(file, `${file}.copy`)
      const fd = fs.openSync(file, 'r+')
      fs.ftruncateSync(fd, 0)
      fs.writeSync(fd, text, 0)
      fs.closeSync(fd)
    },
    'removed and made again': text => {
      fs.unlinkSync(file)
      fs.writeFileSync(file, text)
    },
  }
  fs.writeFileSync(file, 'start')
  let round = 0
  for (let again = 0; again < 5; again++)
    for (const [way, save] of Object.entries(ways)) {
      const text = `${way}, ${++round}\n`.repeat(((round * 7) % 90) + 1)
      save(text)
      t.is(fs.readFileSync(file, 'utf8'), text, way)
      t.is(fs.readFileSync(join(root, 'notes.txt'), 'utf8'), text, way)
      t.is(fs.statSync(file).size, text.length)
    }
})

withProgram('tar, find and du see the same there as on the disk', ['tar', 'find', 'du'], async (t, { root, at }) => {
  fs.mkdirSync(join(root, 'a/b/c'), { recursive: true })
  for (let index = 0; index < 200; index++) fs.writeFileSync(join(root, `a/b/${index}`), 'x'.repeat(index))
  fs.symlinkSync('b', join(root, 'a/link'))
  const both = async (command: string) =>
    Promise.all([root, at].map(async folder => (await run('sh', ['-c', command], { cwd: folder })).stdout))
  for (const command of [
    'find . -printf "%p %s %b %m %n %i %T@ %y %l\\n" | sort',
    'du -s --apparent-size .',
    'tar --sort=name -cf - . | md5sum',
    'ls -laiR',
  ]) {
    // The folder above the mount is another one, and makes the columns of `ls` wider.
    const [disk, view] = (await both(command)).map(text =>
      text
        .replace(/^.* \.\.$/gm, '')
        .replace(/ +/g, ' ')
        .replace(/^ |^total .*$/gm, ''),
    )
    t.is(view, disk)
  }
})
