/**
 * The same random operations in a mounted arena and in a plain folder, while its files are given up, come back, and the peer that has
 * them is killed and started: every answer, every error and in the end every file must be the same, here and at the peer.
 * `VIEW_OPERATIONS=100000` for a long run, `SEED=25` to play one again.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { close, openRoot } from '../../actors/arena/posix-calls.ts'
import { OWN_FOLDER } from '../../protocol/path.ts'
import { within } from '../_deadline.ts'
import { arenaName } from '../system/_household.ts'
import { onMount, type PartialWorld, partialWorld } from './_arenas.ts'
import { cannotCompile } from './_compiled.ts'
import { mappedProgram } from './_mapped.ts'
import {
  type Choice,
  generator,
  type Operation,
  operation,
  outcome,
  type Side,
  same,
  statOf,
  tree,
} from './_operations.ts'

const OPERATIONS = Number(process.env.VIEW_OPERATIONS ?? 2400)
const SEED = Number(process.env.SEED ?? 13)
/** After so many operations something happens elsewhere: `VIEW_EVERY`. */
const EVERY = Number(process.env.VIEW_EVERY ?? 200)
/** Nothing is given up in the first 20 s after a start, and the machine may be slow. */
const REST_MS = 30_000
const GIVEN_UP_MS = 120_000
const ERRNO = Object.fromEntries(Object.entries(constants.errno).map(([name, number]) => [number, name]))

/**
 * Without what is not synced or not the same: hard links, holes, other permissions than the executable bit, anything of folders but their
 * mode. And attributes are changed by name: those of a file that was deleted while it was open, and never was on this disk, cannot be.
 */
function choiceFor(program: string): Choice {
  const mapped = (at: string, words: string[]): Buffer => {
    const [how, path, ...more] = words as [string, string, ...string[]]
    const { status, stdout } = spawnSync(program, [how, join(at, path), ...more], { maxBuffer: 1e6 })
    if (status !== 0) throw Object.assign(new Error('the mapping failed'), { code: ERRNO[status ?? -1] ?? status })
    return stdout
  }
  return {
    mode: drawn => (drawn % 2 === 0 ? 0o644 : 0o755),
    stat: stat => {
      if (stat.isDirectory()) return { mode: stat.mode }
      return { ...(statOf(stat) as object), nlink: null }
    },
    has: kind => !['link', 'hole', 'mode', 'times'].includes(kind),
    more: (path, offset, content) => {
      const [from, length] = [`${offset}`, `${content.length}`]
      const byte = `${content[0] ?? 0}`
      return [
        { name: `map ${path} ${offset}`, run: ({ at }) => mapped(at, ['read', path, from, length]) },
        { name: `mapwrite ${path} ${offset}`, run: ({ at }) => mapped(at, ['write', path, from, length, byte]) },
      ]
    },
  }
}

/** Content by its hash: a difference that can be read. */
function sketch(value: unknown): unknown {
  if (Buffer.isBuffer(value))
    return `${value.length} bytes ${createHash('sha256').update(value).digest('hex').slice(0, 12)}`
  return Array.isArray(value) ? value.map(sketch) : value
}

/** What one tree shows and the other does not. */
function differences(left: unknown[], right: unknown[]): string[] {
  return differentLines(linesOf(left), linesOf(right))
}

function differentLines(ours: readonly string[], theirs: readonly string[]): string[] {
  return [
    ...ours.filter(line => !theirs.includes(line)).map(line => `- ${line}`),
    ...theirs.filter(line => !ours.includes(line)).map(line => `+ ${line}`),
  ].sort((a, b) => (a.slice(2) < b.slice(2) ? -1 : 1))
}

/** A path, and what follows it of its own: its attributes, its content. */
function linesOf(shown: unknown[]): string[] {
  const lines: string[] = []
  for (const [at, item] of shown.entries()) {
    if (typeof item === 'string' && typeof shown[at + 1] === 'object' && !Buffer.isBuffer(shown[at + 1]))
      lines.push(item)
    else lines[lines.length - 1] += ` ${JSON.stringify(sketch(item))}`
  }
  return lines
}

/** What has happened, for people. */
interface Course {
  done: string[]
  givenUp: number
  kills: number
  unreachable: number
  notMoved: number
}

function namesBelow(at: string): string[] {
  const names = fs.readdirSync(at, { recursive: true }) as string[]
  return names.filter(name => name.split('/', 1)[0] !== OWN_FOLDER)
}

function isTreeFile(entry: fs.Dirent): boolean {
  return entry.isFile() && !entry.parentPath.includes('/.realize')
}

class Play {
  readonly #world: PartialWorld
  readonly #sides: [Side, Side]
  readonly #random: (below: number) => number
  readonly course: Course = { done: [], givenUp: 0, kills: 0, unreachable: 0, notMoved: 0 }
  /** Handles that are open for writing. */
  readonly #writing = new Set<number>()
  readonly #evictions = new Set<Promise<void>>()

  constructor(world: PartialWorld, sides: [Side, Side], random: (below: number) => number) {
    this.#world = world
    this.#sides = sides
    this.#random = random
  }

  /** Does one operation on both sides: what came out, if it is not the same. */
  step(next: Operation): { seen: unknown; expected: unknown } | null {
    const [plain, mount] = this.#sides
    const { course } = this
    const at = course.done.push(next.name) - 1
    const [kind, handle, , flags] = next.name.split(' ')
    const index = Number(handle)
    if (kind === 'open') {
      if (flags === 'r') this.#writing.delete(index)
      else this.#writing.add(index)
    }
    const seen = outcome(next, mount)
    if (typeof seen === 'string' && seen !== 'done') course.done[at] += ` ${seen}`
    const unreachable = seen === 'EHOSTUNREACH' && !this.#world.server.isRunning
    const notMoved = seen === 'EXDEV' && (kind === 'rename' || kind === 'keep' || kind === 'exchange')
    if (unreachable || notMoved) {
      // It is said, and nothing is done.
      if (unreachable) course.unreachable++
      else course.notMoved++
      if (kind === 'open') this.#close(plain, index)
      return null
    }
    const expected = outcome(next, plain)
    return same(expected, seen) ? null : { seen, expected }
  }

  #close(side: Side, index: number): void {
    const fd = side.open[index] ?? null
    side.open[index] = null
    if (fd !== null) fs.closeSync(fd)
  }

  /** Something else happens. What is wrong once all has come to rest. */
  async event(): Promise<string[]> {
    const { server } = this.#world
    const what = this.#random(5)
    if (!server.isRunning) {
      await server.start()
      await this.#world.household.together([this.#world.server, this.#world.laptop])
      this.course.done.push('* started')
    } else if (what === 0) {
      await server.kill()
      await this.#world.laptop.until('the server is gone', status =>
        status.peers.every(one => one.state !== 'connected'),
      )
      this.course.kills++
      this.course.done.push('* killed')
    } else if (what <= 2) {
      await this.settle()
      this.course.done.push('* settled')
      // A name too many, or at another place, is seen near to where it came about.
      const wrong = this.#wrongNames()
      if (wrong.length > 0) return wrong
      await this.#evict()
      // A peer that has just started gives nothing up for a while.
      for (const endMs = Date.now() + REST_MS; this.course.givenUp === 0 && Date.now() < endMs; ) {
        await new Promise(resolve => setTimeout(resolve, 500))
        await this.#evict()
      }
      this.course.done.push('* evicted')
    } else {
      const evicting = this.#evict().finally(() => this.#evictions.delete(evicting))
      evicting.catch(() => {})
      this.#evictions.add(evicting)
      await new Promise(resolve => setTimeout(resolve, this.#random(30)))
      this.course.done.push('* evicting')
    }
    return []
  }

  #wrongNames(): string[] {
    const { docs, there } = this.#world
    const plain = namesBelow(this.#sides[0].at)
    return [docs, there].flatMap(at => differentLines(namesBelow(at), plain).map(line => `${line} in ${at}`))
  }

  /** A peer that has just started gives nothing up for a while. */
  async giveUpUntil(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await this.#evict()
      await new Promise(resolve => setTimeout(resolve, 200))
    }
  }

  async #evict(): Promise<void> {
    const { files } = await this.#world.laptop.call('evict', { arena: arenaName('docs') })
    this.course.givenUp += files
  }

  /** What is written is written; both peers agree. */
  async settle(): Promise<void> {
    await Promise.all(this.#evictions)
    for (const index of this.#writing) for (const side of this.#sides) this.#close(side, index)
    this.#writing.clear()
    if (!this.#world.server.isRunning) await this.#world.server.start()
    await this.#world.household.settled()
  }

  end(): void {
    for (const side of this.#sides) {
      close(side.folder)
      for (const index of side.open.keys()) this.#close(side, index)
    }
  }
}

/** What happened before something was found to be wrong. */
async function explain(t: ExecutionContext, w: PartialWorld, course: Course): Promise<void> {
  t.log(`SEED=${SEED}, after: ${course.done.slice(-2 * EVERY).join(', ')}`)
  t.log('on its disk', JSON.stringify(fs.readdirSync(w.here, { recursive: true }).sort()))
  for (const peer of [w.laptop, w.server].filter(one => one.isRunning)) {
    const { events } = await peer.call('history', { arena: arenaName('docs'), limit: 1000 })
    t.log(peer.name, events.map(event => JSON.stringify(event)).join('\n'))
    t.log(peer.name, peer.lines.join('\n'))
  }
}

async function compare(t: ExecutionContext): Promise<void> {
  t.timeout(3_600_000)
  const random = generator(SEED)
  const choice = choiceFor(mappedProgram(t))
  const w = await partialWorld(t, root => {
    const side: Side = { at: root, folder: openRoot(root), open: [] }
    const filling: Choice = { ...choice, has: kind => ['write', 'append', 'mkdir', 'utimes', 'symlink'].includes(kind) }
    for (let step = 0; step < 300; step++) outcome(operation(random, filling), side)
    close(side.folder)
    for (const fd of side.open) if (fd != null) fs.closeSync(fd)
  })
  // Programs that delete most of a small tree are not to be asked.
  w.laptop.editConfig(text => text.replace(/^\[\[arenas\]\]\n/m, '[[arenas]]\nguard = { deletes = "100%" }\n'))
  await w.laptop.call('config_reload', {})
  const plain = join(w.household.folder, 'plain')
  fs.mkdirSync(plain)
  spawnSync('cp', ['-a', `${w.there}/.`, plain])
  fs.rmSync(join(plain, '.realize'), { recursive: true })
  const sides = [plain, w.docs].map(at => ({ at, folder: openRoot(at), open: [] as (number | null)[] })) as [Side, Side]
  const play = new Play(w, sides, random)
  t.teardown(() => play.end())
  const wrongAt = (at: string, stat = choice.stat) => differences(tree(at, stat), tree(plain, stat))
  t.deepEqual(wrongAt(w.docs), [], 'at first')
  for (let step = 0; step < OPERATIONS; step++) {
    const wrong = step % EVERY === EVERY - 1 ? await play.event() : []
    if (wrong.length > 0) {
      await explain(t, w, play.course)
      t.deepEqual(wrong, [], `before step ${step}`)
      return
    }
    if (step % 50 === 49) await new Promise(resolve => setImmediate(resolve))
    const next = operation(random, choice)
    const difference = play.step(next)
    if (difference === null) continue
    await explain(t, w, play.course)
    t.deepEqual(sketch(difference.seen), sketch(difference.expected), `step ${step}: ${next.name}`)
    return
  }
  await play.settle()
  t.deepEqual(wrongAt(w.docs), [], 'in the mount')
  t.deepEqual(
    wrongAt(w.there, stat => (stat.isDirectory() ? {} : choice.stat(stat))),
    [],
    'at the peer',
  )
  t.deepEqual((await w.laptop.call('conflicts', { arena: arenaName('docs') })).conflicts, [])
  const { done, ...course } = play.course
  t.log(`${done.length} done`, JSON.stringify(course))
  // All of it once more, with nothing on the disk.
  const realFiles = () => fs.readdirSync(w.here, { recursive: true, withFileTypes: true }).filter(isTreeFile)
  await within(
    GIVEN_UP_MS,
    () => `all is given up: ${realFiles().map(({ name }) => name)}`,
    play.giveUpUntil(() => realFiles().length === 0),
  )
  t.deepEqual(wrongAt(w.docs), [], 'read from the peer')
  const warnings = w.laptop.lines.filter(line => line.includes('Warning'))
  t.deepEqual(warnings, [])
}

onMount(
  `${OPERATIONS} random operations in a mounted arena do what they do on a disk, while files are given up and the peer that has them goes (SEED=${SEED})`,
  compare,
  cannotCompile,
)
