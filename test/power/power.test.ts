/**
 * Real services that lose their power: what their disks hold afterwards is what they had synced, and little else (_shadow.ts).
 * Whatever the moment, both start again by themselves, agree, have lost nothing that was durable, and show nothing that nobody wrote.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { within } from '../_deadline.ts'
import { Ledger } from '../sim/_ledger.ts'
import { Household } from '../system/_household.ts'
import type { Peer } from '../system/_peer.ts'
import { randomFrom } from '../system/_random.ts'
import { type Left, Shadow } from './_shadow.ts'

const SEED = Number(process.env.SEED ?? 1)
const LOSSES = 30
const SETTLE_EVERY = 10
const SETTLE_SECONDS = 120
const SOURCE = fileURLToPath(new URL('../../../test/power/preload.c', import.meta.url))

/** Why there can be no power loss here, or null. */
function lacking(): string | null {
  if (process.platform !== 'linux') return `${process.platform} has no LD_PRELOAD like Linux`
  return spawnSync('gcc', ['--version']).status === 0 ? null : 'there is no gcc'
}
const missing = lacking()
const powered = missing === null ? test.serial : test.serial.skip
const why = missing === null ? '' : ` (skipped: ${missing})`

/** A peer with a person at it, and a disk that forgets. */
class Machine {
  readonly peer: Peer
  readonly root: string
  readonly shadow: Shadow
  readonly #house: House

  constructor(house: House, peer: Peer, root: string, shadow: Shadow) {
    this.#house = house
    this.peer = peer
    this.root = root
    this.shadow = shadow
  }

  /** Contents at paths, with what is kept besides if `kept`. */
  contents(kept: boolean): Set<string> {
    const found = new Set(this.paths().map(path => keyOf(readFileSync(join(this.root, path)))))
    if (kept) for (const path of filesBelow(join(this.root, '.realize/versions'))) found.add(keyOf(readFileSync(path)))
    return found
  }

  /** Where this content lies, below the root. */
  places(key: string): string[] {
    return filesBelow(this.root)
      .filter(path => keyOf(readFileSync(path)) === key)
      .map(path => `${this.peer.name}:${path.slice(this.root.length + 1)}`)
  }

  held(): Set<string> {
    const staged = filesBelow(join(this.root, '.realize/staging')).map(path => keyOf(readFileSync(path)))
    return new Set([...this.contents(true), ...staged])
  }

  /** Files below the root, but for ours. */
  paths(): string[] {
    return filesBelow(this.root)
      .map(path => path.slice(this.root.length + 1))
      .filter(path => !path.startsWith('.realize/'))
  }

  write(path: string, content: Buffer, how: 'in place' | 'by rename' = 'in place'): void {
    const place = join(this.root, path)
    this.#act(path, () => {
      mkdirSync(dirname(place), { recursive: true })
      if (lstatSync(place, { throwIfNoEntry: false })?.isDirectory()) return
      this.#end(path)
      if (how === 'in place') writeFileSync(place, content)
      else {
        writeFileSync(`${place}~`, content)
        renameSync(`${place}~`, place)
      }
      this.#house.ledger.wrote(keyOf(content), { peer: 0, path, atMs: 0 })
    })
  }

  remove(path: string): void {
    this.#act(path, () => {
      this.#end(path)
      rmSync(join(this.root, path), { force: true })
    })
  }

  rename(path: string, to: string): void {
    this.#act(path, () => {
      const place = join(this.root, to)
      mkdirSync(dirname(place), { recursive: true })
      if (lstatSync(place, { throwIfNoEntry: false })) return
      renameSync(join(this.root, path), place)
    })
  }

  sync(path: string): void {
    this.shadow.syncFile(join(this.root, path))
  }

  /** What the service does meanwhile is no part of it. A parent that is a file, or a file that has gone, is nothing to a person. */
  #act(_path: string, work: () => void): void {
    this.shadow.frozen(() => {
      try {
        work()
      } catch (error) {
        if (!['ENOTDIR', 'ENOENT', 'EEXIST', 'EISDIR'].includes((error as NodeJS.ErrnoException).code ?? ''))
          throw error
      }
    })
  }

  #end(path: string): void {
    const place = join(this.root, path)
    if (lstatSync(place, { throwIfNoEntry: false })?.isFile()) this.#house.ledger.ended(keyOf(readFileSync(place)))
  }

  async losePower(left: Left): Promise<void> {
    const { ledger, machines } = this.#house
    if (this.peer.isRunning) await this.peer.kill()
    const before = this.held()
    for (const { path, whole, torn } of this.shadow.restore(left)) {
      // Torn by the power loss before the service could know it: it is what its user finds. What came from a peer is never torn.
      const isUsers =
        path.startsWith(`${this.root}/`) && !path.includes('/.realize/') && ledger.unsynced.has(keyOf(whole))
      if (isUsers) ledger.written.set(keyOf(torn), { peer: 0, path, atMs: 0 })
    }
    const kept = this.held()
    for (const machine of machines) if (machine !== this) for (const key of machine.contents(true)) kept.add(key)
    for (const key of before) if (!kept.has(key)) ledger.ended(key)
    for (const key of ledger.required.keys()) {
      const places = machines.flatMap(machine => machine.places(key))
      ledger.lastHeld.set(key, `after ${this.peer.name} lost power (${left}): ${places.join(', ') || 'nowhere'}`)
    }
  }
}

class UserLedger extends Ledger {
  /** What its user wrote and did not sync. */
  readonly unsynced = new Set<string>()
  /** Where each content was that nobody had ended, after the last power loss. */
  readonly lastHeld = new Map<string, string>()
}

class House {
  readonly machines: Machine[] = []
  readonly ledger = new UserLedger()
  readonly household: Household

  private constructor(household: Household) {
    this.household = household
  }

  /** Two machines that share one arena. */
  static async open(t: ExecutionContext, chance: () => number): Promise<House> {
    const household = new Household(t)
    const house = new House(household)
    const library = join(household.folder, 'preload.so')
    execFileSync('gcc', ['-shared', '-fPIC', '-O1', '-Wall', '-Werror', '-o', library, SOURCE, '-ldl'])
    for (const name of ['alice', 'bob']) {
      const peer = await household.peer(name, { start: false })
      const root = household.root(peer)
      mkdirSync(root)
      const pid = () => (peer.isRunning ? peer.pid : null)
      const shadow = await Shadow.open(join(household.folder, `p-${name}`), [peer.home, root], pid, chance)
      t.teardown(() => shadow.close())
      peer.variables = shadow.variables(library)
      house.machines.push(new Machine(house, peer, root, shadow))
      await peer.start()
    }
    const [alice, bob] = house.peers
    await household.share(alice)
    await household.pair(alice, bob)
    return house
  }

  get peers(): [Peer, Peer] {
    return this.machines.map(machine => machine.peer) as [Peer, Peer]
  }

  /** Everybody is up and connected. */
  async up(): Promise<void> {
    for (const peer of this.peers) if (!peer.isRunning) await peer.start()
    const [alice, bob] = this.peers
    await bob.call('peer_connect', { name: alice.name })
    await this.household.together([alice, bob])
  }

  async settle(): Promise<void> {
    await this.up()
    await this.household.settled(this.peers, 'docs', SETTLE_SECONDS)
  }

  /** What is wrong, a line each, once all has settled. */
  faults(): string[] {
    const faults: string[] = []
    const kept = new Set(this.machines.flatMap(machine => [...machine.contents(true)]))
    for (const [key, { path }] of this.ledger.required) {
      if (!kept.has(key))
        faults.push(`I1 lost: ${path} (${key}), ${this.ledger.lastHeld.get(key) ?? 'before any power loss'}`)
    }
    for (const { peer, root, paths } of this.machines.map(machine => ({ ...machine, paths: machine.paths() }))) {
      for (const path of paths) {
        const key = keyOf(readFileSync(join(root, path)))
        if (!this.ledger.written.has(key)) faults.push(`I5 invented: ${path} at ${peer.name} (${key})`)
      }
    }
    return faults
  }
}

function keyOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16)
}

function filesBelow(folder: string): string[] {
  if (!lstatSync(folder, { throwIfNoEntry: false })) return []
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  return entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
}

powered(
  `services that lose their power ${LOSSES} times lose nothing, agree, and show nothing torn (SEED=${SEED})${why}`,
  async t => {
    t.timeout(600_000)
    const random = randomFrom(SEED)
    const below = (limit: number) => Math.floor(random() * limit)
    const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T
    const house = await House.open(t, random)
    let number = 0
    const path = () => pick(['a', 'b', 'c', 'd/a', 'd/b', 'd/e/a']) + pick(['', '.txt', `-${below(20)}`])
    const content = (bytes: number) => Buffer.alloc(bytes, `content ${++number} of this test. `)

    const act = (machine: Machine): void => {
      const paths = machine.paths()
      const roll = random()
      if (roll < 0.15 && paths.length > 0) return machine.remove(pick(paths))
      if (roll < 0.25 && paths.length > 0) return machine.rename(pick(paths), path())
      const places = roll < 0.4 ? Array.from({ length: 12 }, (_, index) => `many/${below(3)}/${index}`) : [path()]
      if (roll > 0.8 && paths.length > 0) places[0] = pick(paths)
      for (const place of places) {
        const bytes = content(random() < 0.1 ? 300_000 + below(400_000) : 40 + below(5_000))
        machine.write(place, bytes, random() < 0.7 ? 'in place' : 'by rename')
        if (random() < 0.5) machine.sync(place)
        else house.ledger.unsynced.add(keyOf(bytes))
      }
    }

    const faults: string[] = []
    const left = new Map<Left, number>()
    let losses = 0
    for (let round = 1; losses < LOSSES; round++) {
      await house.up()
      const victims = random() < 0.7 ? house.machines : [pick(house.machines)]
      for (let actions = 2 + below(4); actions > 0; actions--) {
        act(pick(house.machines))
        await moment(random() * 80)
      }
      await moment(random() ** 2 * 800)
      for (const victim of victims) {
        const how = pick<Left>(['synced', 'synced', 'names', 'all'])
        left.set(how, (left.get(how) ?? 0) + 1)
        await victim.losePower(how)
        losses++
      }
      if (round % SETTLE_EVERY !== 0 && losses < LOSSES) continue
      await house.settle()
      faults.push(...house.faults())
      t.deepEqual(faults, [], `after ${losses} losses`)
      await house.household.same(t)
    }
    const syncs = house.machines.map(({ shadow }) => `${shadow.counts.system} and ${shadow.counts.file}`).join(', ')
    t.log(
      `${losses} losses (${[...left].map(([how, count]) => `${how} ${count}`).join(', ')}), ${number} contents written, ${house.ledger.required.size} still required, syncs of file system and files: ${syncs}`,
    )
  },
)

for (const lies of [false, true]) {
  const title = lies
    ? 'where the file system does not do what a sync says, these tests notice'
    : 'what a peer has got and put in place is whole after a power loss that left only names'
  powered(`${title}${why}`, async t => {
    t.timeout(300_000)
    const house = await House.open(t, randomFrom(SEED + 1))
    const [alice, bob] = house.machines as [Machine, Machine]
    bob.shadow.lies = lies
    for (let index = 0; index < 40; index++) {
      alice.write(`f${index}`, Buffer.alloc(3_000 + index, `content ${index}. `))
      alice.sync(`f${index}`)
    }
    await house.settle()
    // One sync before the next file is put in place, one after: then what came before it is durable, as far as bob can know.
    const syncs = bob.shadow.counts.system + 2
    alice.write('last', Buffer.from('last'))
    alice.sync('last')
    await house.settle()
    await within(
      60_000,
      'bob has synced',
      bob.shadow.until(counts => counts.system >= syncs),
    )
    const { range } = bob.shadow.counts
    alice.write('very last', Buffer.from('very last'))
    alice.sync('very last')
    await within(
      60_000,
      'bob has written that down',
      bob.shadow.until(counts => counts.range > range),
    )
    await house.settle()
    await bob.losePower('names')
    await house.settle()
    const faults = house.faults()
    if (lies)
      t.true(
        faults.some(fault => fault.startsWith('I5 invented')),
        'nothing was noticed',
      )
    else t.deepEqual(faults, [])
  })
}

async function moment(ms: number): Promise<void> {
  await new Promise(resolve => setTimeout(resolve, ms))
}
