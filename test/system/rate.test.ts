/** Limits of bytes a second with a peer, with real services: seen from outside, by what appears on the receiver's disk. */
import { lstatSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { Household, setRate } from './_household.ts'
import type { Peer } from './_peer.ts'
import { randomBytesFrom } from './_random.ts'

const MB = 1_000_000
const FILE_BYTES = 160 * 1024 * 1024
/** How much is looked at, and how often again if the machine was too busy to keep up with the limit. */
const SECONDS = 3
const ATTEMPTS = 4
const TOLERANCE = 0.05

/** Bytes of unfinished content that the receiver has on its disk. */
function stagedBytes(folder: string): number {
  let bytes = 0
  for (const name of readdirSync(folder)) {
    const stat = lstatSync(join(folder, name), { throwIfNoEntry: false })
    bytes += (stat?.blocks ?? 0) * 512
  }
  return bytes
}

/** Bytes a second that arrive, from one moment at which something came to another, some seconds later. */
async function arriving(folder: string): Promise<number> {
  const step = async (): Promise<{ bytes: number; ms: number }> => {
    const before = stagedBytes(folder)
    for (;;) {
      await setTimeout(5)
      const bytes = stagedBytes(folder)
      if (bytes > before) return { bytes, ms: performance.now() }
    }
  }
  const first = await step()
  let last = first
  while (last.ms - first.ms < SECONDS * 1000) last = await step()
  return ((last.bytes - first.bytes) * 1000) / (last.ms - first.ms)
}

/** Never more than the limit, and as much as the limit as soon as the machine can. */
async function holds(t: ExecutionContext, limit: number, folder: string): Promise<void> {
  const seen: number[] = []
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const rate = await arriving(folder)
    seen.push(rate)
    t.true(rate <= limit * (1 + TOLERANCE), `${rate} bytes a second where ${limit} are allowed`)
    if (rate >= limit * (1 - TOLERANCE)) break
  }
  t.log(`${limit / MB} MB/s: ${seen.map(rate => (rate / MB).toFixed(3)).join(', ')}`)
  t.true(seen.at(-1)! >= limit * (1 - TOLERANCE), `${seen} bytes a second where ${limit} are allowed`)
}

for (const direction of ['up', 'down'] as const) {
  test.serial(
    `a limit ${direction} holds within 5 %, and follows the configuration without a new connection`,
    async t => {
      t.timeout(170_000)
      const household = new Household(t)
      const [alice, bob] = await household.couple()
      // Bob receives: what he may be sent is Alice's limit up, or his own limit down.
      const limited: Peer = direction === 'up' ? alice : bob
      const limit = async (rate: string | undefined): Promise<void> => {
        setRate(limited, rate === undefined ? {} : { [direction]: rate })
        const followed = limited.logged('config_loaded')
        limited.signal('SIGHUP')
        await followed
      }
      await limit('2MB')
      const { since } = (await bob.call('status', {})).peers[0]!
      writeFileSync(join(household.root(alice), 'large'), randomBytesFrom(1, FILE_BYTES))
      const staging = join(household.root(bob), '.realize', 'staging')
      await bob.untilArena('hears of the file', 'docs', status => status.needFiles === 1)
      await holds(t, 2 * MB, staging)
      await limit('10MB')
      // What was on its way under the old limit is there.
      await arriving(staging)
      await holds(t, 10 * MB, staging)
      await limit(undefined)
      await household.same(t)
      const { state, since: sinceNow } = (await bob.call('status', {})).peers[0]!
      t.deepEqual({ state, since: sinceNow }, { state: 'connected', since })
    },
  )
}
