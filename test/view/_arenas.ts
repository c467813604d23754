/** Real services with their arenas mounted, for tests in a process of its own: it may use the mount with synchronous calls. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { within } from '../_deadline.ts'
import { temporaryFolder } from '../_temp.ts'
import { arenaName, Household } from '../system/_household.ts'
import type { Peer } from '../system/_peer.ts'
import { cannotMount } from './_mount.ts'

const EVENTUALLY_MS = 60_000

/** A household, and a place for a mount that is free again at the end of the test, whatever has become of the services. */
export function householdWithMount(t: ExecutionContext): { household: Household; at: string } {
  const folder = temporaryFolder(t)
  const at = join(folder, 'view')
  // Run after the services have been killed: what is mounted is stale then.
  t.teardown(() => {
    spawnSync('umount', ['--lazy', at])
  })
  return { household: new Household(t, folder), at }
}

export async function mountOn(peer: Peer, at: string): Promise<void> {
  await peer.call('mount', { path: at })
}

/** Looks until it holds: where a file is to come from elsewhere, or the kernel may believe what it knew for a second. */
export async function eventually(what: string, holds: () => boolean): Promise<void> {
  const looking = async () => {
    while (!holds()) await new Promise(resolve => setTimeout(resolve, 10))
  }
  await within(EVENTUALLY_MS, what, looking())
}

/** Names of a folder, or the code of the error. */
export function namesIn(folder: string): string[] | string {
  try {
    return readdirSync(folder).sort()
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error)
  }
}

/** Where nothing can be mounted the title says so. `missing`: what else is not here, or null. */
export function onMount(
  title: string,
  body: (t: ExecutionContext) => Promise<void>,
  missing: string | null = null,
): void {
  const reason = cannotMount ?? missing
  if (reason !== null) return test.skip(`${title} (skipped: ${reason})`, t => t.fail())
  test.serial(title, body)
}

/** Two peers that share an arena, of which one has nothing on its disk. */
export interface PartialWorld {
  household: Household
  /** Holds everything. */
  server: Peer
  /** Has the arena mounted, and wants nothing real. */
  laptop: Peer
  /** The arena's root at the one, at the other, and as the mount shows it. */
  there: string
  here: string
  docs: string
}

/** What `fill` writes is at the server; the laptop only knows of it. */
export async function partialWorld(t: ExecutionContext, fill: (root: string) => void): Promise<PartialWorld> {
  const { household, at } = householdWithMount(t)
  const [server, laptop] = await household.couple(['server', 'laptop'])
  await laptop.call('mark', { arena: arenaName('docs'), mark: 'unreal' })
  const [there, here] = [household.root(server), household.root(laptop)]
  fill(there)
  await household.settled()
  await mountOn(laptop, at)
  return { household, server, laptop, there, here, docs: join(at, 'docs') }
}

/** Bytes that differ for each seed. */
export function content(seed: number, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes)
  for (let index = 0, state = seed + 1; index < bytes; index++) {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    buffer[index] = state >> 16
  }
  return buffer
}

/**
 * A program of its own that does something again and again, until the function that is returned is called: how often it did it,
 * and how many different results there were. It fails as soon as that throws.
 *
 * @param work the body of a function, in JavaScript; `fs` is there
 */
export async function againAndAgain(
  t: ExecutionContext,
  work: string,
): Promise<() => Promise<{ turns: number; results: number }>> {
  const script = `
    const fs = require('node:fs')
    const results = new Set()
    let turns = 0
    const work = () => { ${work} }
    process.on('message', () => {
      console.log(JSON.stringify({ turns, results: results.size }))
      process.exit(0)
    })
    setInterval(() => { results.add(work()); turns++ }, 1)
    process.send('ready')`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
  t.teardown(() => child.kill('SIGKILL'))
  let printed = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (bytes: Buffer) => {
      printed += bytes
    })
  const closed = once(child, 'close')
  await within(EVENTUALLY_MS, 'a program runs', once(child, 'message'))
  return async () => {
    if (child.connected) child.send('end')
    const [code] = await within(EVENTUALLY_MS, 'the program ends', closed)
    if (code !== 0) throw new Error(`the program failed: ${printed}`)
    return JSON.parse(printed)
  }
}
