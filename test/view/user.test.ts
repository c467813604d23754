/**
 * A mount as an ordinary user, by fusermount3. The service runs as `nobody` in a mount namespace of its own, where the device is open to all:
 * on this machine it may not be, and is left as it is.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { temporaryFolder } from '../_temp.ts'
import { shell } from '../household/_world.ts'
import { arenaName, Household } from '../system/_household.ts'
import type { Peer } from '../system/_peer.ts'
import { cannotMount } from './_mount.ts'

const USER = 65534
const LIMIT_MS = 120_000
const DOCS = arenaName('docs')
const AS_USER = ['setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--clear-groups']

/** Why this cannot be tried here; null: it can. */
const cannot = cannotMount ?? cannotBeUser()

function cannotBeUser(): string | null {
  if (process.geteuid?.() !== 0) return 'not root, who can be another user'
  for (const program of ['fusermount3', 'unshare', 'nsenter', 'setpriv'])
    if (spawnSync(program, ['--version']).error !== undefined) return `no ${program} here`
  if ((fs.statSync(execFileSync('sh', ['-c', 'command -v fusermount3']).toString().trim()).mode & 0o4000) === 0)
    return 'fusermount3 has no rights of its own'
  const tried = spawnSync('unshare', ['--mount', ...AS_USER, process.execPath, '--version'])
  return tried.status === 0 ? null : `${USER} cannot run node in a namespace: ${String(tried.stderr)}`
}

function asUser(title: string, body: (t: ExecutionContext) => Promise<void>): void {
  if (cannot !== null) return test.skip(`${title} (skipped: ${cannot})`, t => t.fail())
  test.serial(title, async t => {
    t.timeout(LIMIT_MS)
    await body(t)
  })
}

interface World {
  household: Household
  server: Peer
  /** Runs as the user, and wants nothing real. */
  laptop: Peer
  there: string
  at: string
  /** Runs a command as the user where the laptop runs, in the folder of the mount. */
  run(command: string): Promise<string>
}

/** @param options words for the program that changes to the user */
async function world(t: ExecutionContext, options: string[] = []): Promise<World> {
  const folder = temporaryFolder(t)
  const household = new Household(t, folder)
  const [server, laptop] = await household.couple(['server', 'laptop'])
  await laptop.call('mark', { arena: DOCS, mark: 'unreal' })
  await laptop.stop()
  const at = join(folder, 'view')
  fs.mkdirSync(at)
  fs.chmodSync(folder, 0o755)
  for (const own of [laptop.home, household.root(laptop), at]) execFileSync('chown', ['-R', `${USER}:${USER}`, own])
  const device = join(folder, 'fuse')
  execFileSync('mknod', ['-m', '0666', device, 'c', '10', '229'])
  const script = 'mount --bind "$0" /dev/fuse && exec "$@"'
  laptop.before = ['unshare', '--mount', 'sh', '-c', script, device, ...AS_USER, ...options]
  await laptop.start()
  const there = household.root(server)
  const enter = () => `nsenter --mount=/proc/${laptop.pid}/ns/mnt ${AS_USER.join(' ')}`
  const run = (command: string) => shell(`${enter()} sh -c 'cd ${at} && ${command}'`, folder, folder, LIMIT_MS)
  return { household, server, laptop, there, at, run }
}

asUser('an ordinary user mounts, reads, writes, and mounts again after a kill; others see nothing of it', async t => {
  const w = await world(t)
  for (let index = 0; index < 30; index++) fs.writeFileSync(join(w.there, `file-${index}`), `needle ${index}\n`)
  fs.writeFileSync(join(w.there, 'big'), Buffer.alloc(3_000_000, 'content'))
  await w.household.settled()
  const { passthrough } = await w.laptop.call('mount', { path: w.at })
  t.false(passthrough, 'the kernel takes files from root alone')
  t.is((await w.run('ls docs | wc -l')).trim(), '31')
  t.is((await w.run('grep -rl needle docs | wc -l')).trim(), '30')
  t.is((await w.run('tail -c 7 docs/big')).length, 7)
  t.is((await w.laptop.arena('docs')).realBytes, 0)
  await w.run('echo more >> docs/file-1 && mkdir docs/folder && cp docs/file-2 docs/folder/copy && rm docs/file-3')
  await w.run('printf "#!/bin/sh\\necho it runs\\n" > docs/program && chmod +x docs/program && docs/program')
  t.is(await w.run('stat -c %u docs/program docs/file-4 | sort -u'), `${USER}\n`)
  const asRoot = spawnSync('nsenter', [`--mount=/proc/${w.laptop.pid}/ns/mnt`, 'ls', join(w.at, 'docs')])
  t.regex(String(asRoot.stderr), /Permission denied/)
  await w.household.settled()
  t.is(fs.readFileSync(join(w.there, 'file-1'), 'utf8'), 'needle 1\nmore\n')
  t.is(fs.readFileSync(join(w.there, 'folder/copy'), 'utf8'), 'needle 2\n')
  t.false(fs.existsSync(join(w.there, 'file-3')))
  t.is((await w.laptop.realize('umount', w.at)).code, 0)
  t.is(await w.run('ls'), '')
  await w.laptop.call('mount', { path: w.at })

  // A namespace ends with the last process in it, and with it what is mounted there: so that something is left over, one stays.
  const { pid } = w.laptop
  const stays = `nsenter --mount=/proc/${pid}/ns/mnt sh -c 'sleep 600 >/dev/null 2>&1 & echo $!'`
  const sleeper = Number(await shell(stays, '/', '', LIMIT_MS))
  t.teardown(() => process.kill(sleeper, 'SIGKILL'))
  await w.laptop.kill()
  w.laptop.before = ['nsenter', `--mount=/proc/${sleeper}/ns/mnt`, ...AS_USER]
  await w.laptop.start()
  await w.laptop.until('it is mounted again', status => status.mounts[0]?.state === 'mounted')
  await w.household.together([w.server, w.laptop])
  t.is((await w.run('cat docs/file-5')).trim(), 'needle 5')
  const { code } = await w.laptop.stop()
  t.is(code, 0)
})

asUser('a service that may gain no rights says why it cannot mount, and does all else', async t => {
  const w = await world(t, ['--no-new-privs'])
  const { code, stderr } = await w.laptop.realize('mount', w.at)
  t.is(code, 1)
  t.regex(stderr, /NoNewPrivileges.*docs\/install\.md/)
  fs.writeFileSync(join(w.there, 'file'), 'content')
  await w.household.settled()
  const read = await w.laptop.realize('cat', 'docs:file')
  t.is(read.stdout, 'content', read.stderr)
  t.false((await w.run('cat /proc/self/mounts')).includes(w.at))
})
