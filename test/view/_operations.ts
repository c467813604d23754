/** Random operations of programs on a tree of files, each with its outcome in a form that compares: for a mount beside a plain folder. */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { EXCHANGE, NOREPLACE, renameFlagged } from '../../actors/arena/posix-calls.ts'
import { seek } from '../../actors/view/view-calls.ts'
import { OWN_FOLDER } from '../../protocol/path.ts'

const NAMES = ['a', 'b', 'c', 'd']
const SIZE_MAX = 300_000

/** Mulberry32 (Tommy Ettinger, public domain): small, fast, and good enough to choose operations. */
export function generator(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let bits = Math.imul(state ^ (state >>> 15), 1 | state)
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits
    return ((bits ^ (bits >>> 14)) >>> 0) % below
  }
}

/** One of the two trees, with the files that are open in it. */
export interface Side {
  at: string
  folder: number
  open: (number | null)[]
}

export type Operation = { name: string; run: (side: Side) => unknown }

export const HANDLES = 6

/** What differs between the two sides is not done, or not looked at. */
export interface Choice {
  /** Permissions of a file; `drawn` is below 0o200. */
  mode(drawn: number): number
  stat(stat: fs.Stats): unknown
  /** Whether an operation of this kind is done. */
  has(kind: string): boolean
  /** What else can be done to a file. */
  more(path: string, offset: number, content: Buffer): Operation[]
}

export const ALL: Choice = { mode: drawn => 0o600 | drawn, stat: statOf, has: () => true, more: () => [] }

export function operation(random: (below: number) => number, choice: Choice = ALL): Operation {
  const pick = <Value>(list: readonly Value[]) => list[random(list.length)] as Value
  const path = () => Array.from({ length: 1 + random(3) }, () => pick(NAMES)).join('/')
  const [one, two] = [path(), path()]
  const content = Buffer.alloc(random(random(10) === 0 ? 150_000 : 5000), `${random(1e6)} `)
  const [offset, size, index] = [random(random(4) === 0 ? SIZE_MAX : 9000), random(SIZE_MAX), random(HANDLES)]
  const mode = choice.mode(random(0o200))
  const seconds = random(2 ** 31)
  const flags = pick(['r', 'r+', 'w', 'w+', 'a', 'a+', 'wx', 'ax+'])
  const file = (side: Side) => side.open[index] ?? null
  const withFile = (action: (fd: number) => unknown) => (side: Side) => {
    const fd = file(side)
    return fd === null ? 'closed' : action(fd)
  }
  const operations: Operation[] = [
    { name: `write ${one}`, run: ({ at }) => fs.writeFileSync(join(at, one), content) },
    { name: `append ${one}`, run: ({ at }) => fs.appendFileSync(join(at, one), content) },
    { name: `read ${one}`, run: ({ at }) => fs.readFileSync(join(at, one)) },
    { name: `truncate ${one} ${size}`, run: ({ at }) => fs.truncateSync(join(at, one), size) },
    { name: `mkdir ${one}`, run: ({ at }) => void fs.mkdirSync(join(at, one)) },
    { name: `mkdir ${one}`, run: ({ at }) => void fs.mkdirSync(join(at, one)) },
    { name: `rmdir ${one}`, run: ({ at }) => fs.rmdirSync(join(at, one)) },
    { name: `unlink ${one}`, run: ({ at }) => fs.unlinkSync(join(at, one)) },
    { name: `rename ${one} ${two}`, run: ({ at }) => fs.renameSync(join(at, one), join(at, two)) },
    { name: `rename ${one} ${two}`, run: ({ at }) => fs.renameSync(join(at, one), join(at, two)) },
    { name: `keep ${one} ${two}`, run: ({ folder }) => renameFlagged(folder, one, folder, two, NOREPLACE) },
    { name: `exchange ${one} ${two}`, run: ({ folder }) => renameFlagged(folder, one, folder, two, EXCHANGE) },
    { name: `link ${one} ${two}`, run: ({ at }) => fs.linkSync(join(at, one), join(at, two)) },
    { name: `symlink ${one} ${two}`, run: ({ at }) => fs.symlinkSync(one, join(at, two)) },
    { name: `readlink ${one}`, run: ({ at }) => fs.readlinkSync(join(at, one)) },
    { name: `chmod ${one}`, run: ({ at }) => fs.chmodSync(join(at, one), mode) },
    { name: `utimes ${one}`, run: ({ at }) => fs.utimesSync(join(at, one), seconds, seconds + 0.5) },
    { name: `stat ${one}`, run: ({ at }) => choice.stat(fs.lstatSync(join(at, one))) },
    { name: `list ${one}`, run: ({ at }) => fs.readdirSync(join(at, one), { withFileTypes: true }).map(typed).sort() },
    {
      name: `open ${index} ${one} ${flags}`,
      run: side => {
        const known = file(side)
        if (known !== null) fs.closeSync(known)
        side.open[index] = null
        side.open[index] = fs.openSync(join(side.at, one), flags, mode)
      },
    },
    { name: `write ${index} ${offset}`, run: withFile(fd => fs.writeSync(fd, content, 0, content.length, offset)) },
    { name: `write ${index} ${offset}`, run: withFile(fd => fs.writeSync(fd, content, 0, content.length, offset)) },
    {
      name: `read ${index} ${offset} ${content.length}`,
      run: withFile(fd => {
        const bytes = Buffer.alloc(content.length)
        return [fs.readSync(fd, bytes, 0, bytes.length, offset), bytes]
      }),
    },
    { name: `size ${index} ${size}`, run: withFile(fd => fs.ftruncateSync(fd, size)) },
    { name: `stat ${index}`, run: withFile(fd => choice.stat(fs.fstatSync(fd))) },
    { name: `sync ${index}`, run: withFile(fd => fs.fsyncSync(fd)) },
    { name: `hole ${index} ${offset}`, run: withFile(fd => fs.fstatSync(fd).isFile() && seek(fd, offset, 4) > offset) },
    { name: `mode ${index}`, run: withFile(fd => fs.fchmodSync(fd, mode)) },
    { name: `times ${index}`, run: withFile(fd => fs.futimesSync(fd, seconds, seconds)) },
    ...choice.more(one, offset, content),
  ]
  return pick(operations.filter(({ name }) => choice.has(name.slice(0, name.indexOf(' ')))))
}

export function statOf({ mode, size, nlink, mtimeMs }: fs.Stats): unknown {
  // Times of now differ; those that were set are long ago or far ahead.
  const time = Math.abs(mtimeMs - Date.now()) < 3_600_000 ? 'now' : mtimeMs
  return { mode, size, nlink, time }
}

function typed(entry: fs.Dirent): string {
  return `${entry.name} ${entry.isDirectory()} ${entry.isSymbolicLink()}`
}

/** What came out, in a form that compares. */
export function outcome(operation: Operation, side: Side): unknown {
  try {
    return operation.run(side) ?? 'done'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code
  }
}

export function tree(at: string, stats: (stat: fs.Stats) => unknown = statOf, path = ''): unknown[] {
  return fs
    .readdirSync(join(at, path))
    .filter(name => name !== OWN_FOLDER)
    .sort()
    .flatMap(name => {
      const below = join(path, name)
      const stat = fs.lstatSync(join(at, below))
      if (stat.isDirectory()) return [below, stats(stat), ...tree(at, stats, below)]
      const content = stat.isSymbolicLink() ? fs.readlinkSync(join(at, below)) : fs.readFileSync(join(at, below))
      return [below, stats(stat), content]
    })
}

/** Buffers compared by themselves: `deepEqual` of large ones takes its time. */
export function same(expected: unknown, seen: unknown): boolean {
  if (Buffer.isBuffer(expected)) return Buffer.isBuffer(seen) && expected.equals(seen)
  if (Array.isArray(expected))
    return (
      Array.isArray(seen) && expected.length === seen.length && expected.every((value, at) => same(value, seen[at]))
    )
  return JSON.stringify(expected) === JSON.stringify(seen)
}
