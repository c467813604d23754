/**
 * A household of three real services in which files on demand are at home: two hold an arena on their disks, the third has it without
 * a folder, and mounted. For tests, and for the long run at any size (main.ts).
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { within } from '../_deadline.ts'
import type { Cleaning } from '../_temp.ts'
import { arenaName, Household, introduce } from '../system/_household.ts'
import type { Peer } from '../system/_peer.ts'

const DOCS = arenaName('docs')
/** Folders of folders: `year-00/week-00/file-0`. */
export const YEARS = 20
const PER_FOLDER = 50
const SAME_MS = 120_000
const RANDOM_BYTES = 8 * 1024 * 1024

export interface Size {
  /** Small files of all years. */
  files: number
  /** Of `video`: nothing but zeros, apart from a few MiB in its middle. 0: there is none. */
  videoBytes: number
}

export interface World {
  household: Household
  /** Both hold everything. */
  first: Peer
  second: Peer
  /** Has nothing on its disk. */
  guest: Peer
  /** The arena's root at the first one and the second one, and as the guest's mount shows it. */
  there: string
  alsoThere: string
  docs: string
  /** Random bytes in the middle of the video. */
  middle: Buffer
}

/** @param limitMs how long the peers may take to agree about everything */
export async function buildWorld(t: Cleaning, folder: string, size: Size, limitMs: number): Promise<World> {
  const at = join(folder, 'view')
  // Run after the services have been killed: what is mounted is stale then.
  t.teardown(() => {
    spawnSync('umount', ['--lazy', at])
  })
  const household = new Household(t, folder)
  const [first, second, guest] = (await household.all('first', 'second', 'guest')) as [Peer, Peer, Peer]
  const there = await household.share(first)
  await household.pair(first, second)
  await household.pair(first, guest)
  await introduce(second, guest)
  await introduce(guest, second)
  await guest.call('arena_remove', { name: DOCS })
  await guest.call('arena_add', { name: DOCS, path: null })
  await household.together([first, second, guest])
  const middle = fill(there, size)
  const entries = size.files + (size.videoBytes > 0 ? 1 : 0)
  for (const peer of household.peers)
    await peer.untilArena(
      'has heard of everything',
      'docs',
      status => status.files >= entries && status.consensus,
      limitMs,
    )
  await guest.call('mount', { path: at })
  return { household, first, second, guest, there, alsoThere: household.root(second), docs: join(at, 'docs'), middle }
}

/** What a small file holds: a few lines, of which the last names its number. */
export function smallText(number: number): string {
  return `${`a line of file ${number}, which says nothing more\n`.repeat((number * 7) % 60)}needle ${number}\n`
}

/** Path of a small file. */
export function smallPath(number: number): string {
  const year = number % YEARS
  const week = Math.floor(number / YEARS / PER_FOLDER)
  return `year-${String(year).padStart(2, '0')}/week-${String(week).padStart(2, '0')}/file-${number}`
}

function fill(root: string, { files, videoBytes }: Size): Buffer {
  for (let number = 0; number < files; number++) {
    const path = join(root, smallPath(number))
    if (Math.floor(number / YEARS) % PER_FOLDER === 0) fs.mkdirSync(join(path, '..'), { recursive: true })
    fs.writeFileSync(path, smallText(number))
  }
  const middle = Buffer.alloc(Math.min(RANDOM_BYTES, Math.floor(videoBytes / 2)))
  if (videoBytes === 0) return middle
  for (let index = 0, state = 1; index < middle.length; index++) {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    middle[index] = state >> 16
  }
  const fd = fs.openSync(join(root, 'video'), 'w')
  fs.ftruncateSync(fd, videoBytes)
  fs.writeSync(fd, middle, 0, middle.length, Math.floor(videoBytes / 2))
  fs.closeSync(fd)
  return middle
}

/** Runs a command of the shell in a folder; what it printed. Throws what it said if it fails. `out`: its $OUT. */
export async function shell(command: string, folder: string, out: string, limitMs: number): Promise<string> {
  const env = { ...process.env, OUT: out }
  const child = spawn('sh', ['-c', command], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], env })
  let [printed, said] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    printed += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  try {
    const [code] = await within(limitMs, () => `\`${command}\` ends; it said: ${said}`, once(child, 'close'))
    if (code !== 0) throw new Error(`\`${command}\` ended with ${code}: ${said}`)
    return printed
  } finally {
    child.kill('SIGKILL')
  }
}

/** Asserts that programs find the same in these folders. Permissions other than the executable bit, and times of folders, are not synced. */
export async function same(t: ExecutionContext, folder: string, ...others: string[]): Promise<void> {
  for (const other of others)
    t.is(await shell(`rsync -rlEnci --delete --exclude=/.realize ./ '${other}/'`, folder, '', SAME_MS), '', other)
}

export interface Figures {
  /** Processor time of the service so far. */
  cpuMs: number
  residentBytes: number
  /** That have come over the wire. */
  receivedBytes: number
}

export async function figuresOf(peer: Peer): Promise<Figures> {
  const { text } = await peer.call('metrics', {})
  const sum = (name: string) =>
    [...text.matchAll(new RegExp(`^realize_${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].reduce(
      (total, [, value]) => total + Number(value),
      0,
    )
  return {
    cpuMs: sum('cpu_seconds') * 1000,
    residentBytes: sum('resident_bytes'),
    receivedBytes: sum('peer_bytes_down_total'),
  }
}
