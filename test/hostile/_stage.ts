/**
 * Where the hostile peer appears: two real services that share an arena, alice, who is attacked, and bob, who wants to go on
 * working with her. What an attack costs is read from the outside, in /proc.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import { generateIdentity, type Identity } from '../../supervisor/identity.ts'
import type { Cleaning } from '../_temp.ts'
import { Household } from '../system/_household.ts'
import type { Peer } from '../system/_peer.ts'
import { Hostile, type HostileOptions, leaveAll } from './_hostile.ts'

/** How long an edit may take to the other peer while an attack is under way: generous, for a machine of two loaded cores. */
const UNDISTURBED_MS = 60_000
const POLL_MS = 10

export interface Cost {
  rssMiB: number
  descriptors: number
}

export class Stage {
  readonly household: Household
  readonly alice: Peer
  readonly bob: Peer
  /** A key that alice knows. */
  readonly identity: Identity
  #edits = 0

  private constructor(household: Household, alice: Peer, bob: Peer, identity: Identity) {
    this.household = household
    this.alice = alice
    this.bob = bob
    this.identity = identity
  }

  static async open(t: Cleaning): Promise<Stage> {
    const household = new Household(t)
    t.teardown(leaveAll)
    const [alice, bob] = await household.couple()
    const identity = generateIdentity()
    await alice.call('peer_add', { name: 'mallory', id: identity.id, addresses: [] })
    return new Stage(household, alice, bob, identity)
  }

  get root(): string {
    return this.household.root(this.alice)
  }

  /** Comes in with the key that alice knows. */
  async mallory(options: HostileOptions = {}): Promise<Hostile> {
    return Hostile.connect(this.alice.port!, { identity: this.identity, ...options })
  }

  /** The same, with the arena open on both sides; `reader` is alice's replica. */
  async guest(options: HostileOptions = {}): Promise<{ mallory: Hostile; reader: string }> {
    const mallory = await this.mallory(options)
    return { mallory, reader: await mallory.open() }
  }

  /** An edit of bob's arrives at alice, and one of alice's at bob: how long the slower one took, milliseconds. */
  async undisturbed(): Promise<number> {
    const number = ++this.#edits
    const sinceMs = performance.now()
    await Promise.all([
      this.#travels(this.bob, this.alice, `from-bob-${number}.txt`),
      this.#travels(this.alice, this.bob, `from-alice-${number}.txt`),
    ])
    return performance.now() - sinceMs
  }

  async #travels(from: Peer, to: Peer, name: string): Promise<void> {
    const text = `${name} ${Date.now()}`
    writeFileSync(join(this.household.root(from), name), text)
    const place = join(this.household.root(to), name)
    await until(`${name} is at ${to.name}`, UNDISTURBED_MS, () => textOf(place) === text)
  }

  /** Alice logs an event with these fields (a string: contained in it). */
  async logged(event: string, fields: Record<string, string> = {}): Promise<Record<string, unknown>> {
    const look = () => {
      for (const line of this.alice.lines) {
        if (!line.startsWith('{')) continue
        const found = JSON.parse(line) as Record<string, unknown>
        if (found.event !== event) continue
        if (Object.entries(fields).every(([key, value]) => String(found[key]).includes(value))) return found
      }
      return undefined
    }
    let found: Record<string, unknown> | undefined
    const seen = () => {
      found = look()
      return found !== undefined
    }
    await until(`alice logs ${event} ${JSON.stringify(fields)}`, 15_000, seen)
    return found!
  }

  /** Memory and descriptors of alice's process. */
  cost(): Cost {
    const { pid } = this.alice
    const rss = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
    return { rssMiB: Math.round(Number(rss?.[1]) / 1024), descriptors: readdirSync(`/proc/${pid}/fd`).length }
  }

  /** Waits until alice has no more descriptors open than before, but for a few that her own work takes. */
  async descriptorsBack(before: Cost): Promise<void> {
    const now = () => this.cost().descriptors
    await until(
      () => `${now()} descriptors, ${before.descriptors} before`,
      15_000,
      () => now() <= before.descriptors + 4,
    )
  }

  /** Waits until memory is back: a burst lets heaps grow, and what it left is collected a few seconds after it. */
  async memoryBack(before: Cost, rssMiBMax: number): Promise<void> {
    const now = () => this.cost().rssMiB
    await until(
      () => `memory grew from ${before.rssMiB} to ${now()} MiB, ${rssMiBMax} are allowed`,
      15_000,
      () => now() - before.rssMiB <= rssMiBMax,
    )
  }

  /** After an attack: alice still runs, bob and she go on, nothing is left open, and memory has not grown by more than this. */
  async unharmed(t: ExecutionContext, before: Cost, rssMiBMax = 150): Promise<void> {
    t.true(this.alice.isRunning)
    const ms = await this.undisturbed()
    await this.descriptorsBack(before)
    const most = this.cost().rssMiB
    t.true(most - before.rssMiB <= 2 * rssMiBMax, `memory grew from ${before.rssMiB} to ${most} MiB`)
    await this.memoryBack(before, rssMiBMax)
    const after = this.cost()
    t.log(
      `an edit took ${Math.round(ms)} ms; memory ${before.rssMiB} to ${after.rssMiB} MiB, descriptors ${before.descriptors} to ${after.descriptors}`,
    )
    const { actors } = await this.alice.call('status', {})
    t.deepEqual(
      actors.filter(actor => actor.restarts > 0 || actor.lastError !== null),
      [],
      'no actor had to be restarted',
    )
  }
}

function textOf(place: string): string | undefined {
  try {
    return readFileSync(place, 'utf8')
  } catch {
    return undefined
  }
}

/** Resolves as soon as it holds: what another process does to a disk or to itself tells no event here. */
export async function until(what: string | (() => string), ms: number, holds: () => boolean): Promise<void> {
  const endMs = performance.now() + ms
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`not within ${ms} ms: ${typeof what === 'string' ? what : what()}`)
    await delay(POLL_MS)
  }
}
