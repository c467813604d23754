/**
 * The same random operations in a mounted folder and in a plain one: every answer, every error and in the end every file must be
 * the same. `VIEW_OPERATIONS=100000` for a long run, `SEED=25` to play one again.
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { close, EXCHANGE, NOREPLACE, openRoot, renameFlagged } from '../../actors/arena/posix-calls.ts'
import { seek } from '../../actors/view/view-calls.ts'
import { cannotMount, type Mounted, mounted } from './_mount.ts'

const OPERATIONS = Number(process.env.VIEW_OPERATIONS ?? 4000)
const SEED = Number(process.env.SEED ?? 7)
const NAMES = ['a', 'b', 'c', 'd']
const SIZE_MAX = 300_000

/** Mulberry32 (Tommy Ettinger, public domain): small, fast, and good enough to choose operations. */
function generator(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let bits = Math.imul(state ^ (state >>> 15), 1 | state)
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits
    return ((bits ^ (bits >>> 14)) >>> 0) % below
  }
}

/** One of the two trees, with the files that are open in it. */
interface Side {
  at: string
  folder: number
  open: (number | null)[]
}

type Operation = { name: string; run: (side: Side) => unknown }

const HANDLES = 6

function operation(random: (below: number) => number): Operation {
  const pick = <Value>(list: readonly Value[]) => list[random(list.length)] as Value
  const path = () => Array.from({ length: 1 + random(3) }, () => pick(NAMES)).join('/')
  const [one, two] = [path(), path()]
  const content = Buffer.alloc(random(random(10) === 0 ? 150_000 : 5000), `${random(1e6)} `)
  const [offset, size, index] = [random(random(4) === 0 ? SIZE_MAX : 9000), random(SIZE_MAX), random(HANDLES)]
  const mode = 0o600 | random(0o200)
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
    { name: `stat ${one}`, run: ({ at }) => statOf(fs.lstatSync(join(at, one))) },
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
    { name: `stat ${index}`, run: withFile(fd => statOf(fs.fstatSync(fd))) },
    { name: `sync ${index}`, run: withFile(fd => fs.fsyncSync(fd)) },
    { name: `hole ${index} ${offset}`, run: withFile(fd => fs.fstatSync(fd).isFile() && seek(fd, offset, 4) > offset) },
    { name: `mode ${index}`, run: withFile(fd => fs.fchmodSync(fd, mode)) },
    { name: `times ${index}`, run: withFile(fd => fs.futimesSync(fd, seconds, seconds)) },
  ]
  return pick(operations)
}

function statOf({ mode, size, nlink, mtimeMs }: fs.Stats): unknown {
  // Times of now differ; those that were set are long ago or far ahead.
  const time = Math.abs(mtimeMs - Date.now()) < 3_600_000 ? 'now' : mtimeMs
  return { mode, size, nlink, time }
}

function typed(entry: fs.Dirent): string {
  return `${entry.name} ${entry.isDirectory()} ${entry.isSymbolicLink()}`
}

/** What came out, in a form that compares. */
function outcome(operation: Operation, side: Side): unknown {
  try {
    return operation.run(side) ?? 'done'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code
  }
}

function tree(at: string, path = ''): unknown[] {
  return fs
    .readdirSync(join(at, path))
    .sort()
    .flatMap(name => {
      const below = join(path, name)
      const stat = fs.lstatSync(join(at, below))
      if (stat.isDirectory()) return [below, statOf(stat), ...tree(at, below)]
      const content = stat.isSymbolicLink() ? fs.readlinkSync(join(at, below)) : fs.readFileSync(join(at, below))
      return [below, statOf(stat), content]
    })
}

async function compare(t: ExecutionContext, m: Mounted): Promise<void> {
  // On the same kind of file system as the served folder.
  const plain = fs.mkdtempSync(join(m.root, '../plain-'))
  t.teardown(() => fs.rmSync(plain, { recursive: true, force: true }))
  const sides = [plain, m.at].map(at => ({ at, folder: openRoot(at), open: [] as (number | null)[] })) as [Side, Side]
  t.teardown(() => {
    for (const { folder, open } of sides) {
      close(folder)
      for (const fd of open) if (fd != null) fs.closeSync(fd)
    }
  })
  const random = generator(SEED)
  const done: string[] = []
  for (let step = 0; step < OPERATIONS; step++) {
    const next = operation(random)
    done.push(next.name)
    const [expected, seen] = [outcome(next, sides[0]), outcome(next, sides[1])]
    if (!same(expected, seen)) {
      t.log(`SEED=${SEED}, after: ${done.slice(-30).join(', ')}`)
      t.deepEqual(seen, expected, `step ${step}: ${next.name}`)
      return
    }
    if (step % 500 === 499) await new Promise(resolve => setImmediate(resolve))
  }
  t.deepEqual(tree(m.at), tree(plain))
  t.deepEqual(tree(m.root), tree(plain))
}

/** Buffers compared by themselves: `deepEqual` of large ones takes its time. */
function same(expected: unknown, seen: unknown): boolean {
  if (Buffer.isBuffer(expected)) return Buffer.isBuffer(seen) && expected.equals(seen)
  if (Array.isArray(expected))
    return (
      Array.isArray(seen) && expected.length === seen.length && expected.every((value, at) => same(value, seen[at]))
    )
  return JSON.stringify(expected) === JSON.stringify(seen)
}

for (const passthrough of process.geteuid?.() === 0 ? [false, true] : [false]) {
  const title = `${OPERATIONS} random operations do there what they do on a disk (SEED=${SEED}${passthrough ? ', files given to the kernel' : ''})`
  if (cannotMount !== null) test.skip(`${title} (skipped: ${cannotMount})`, t => t.fail())
  else
    test.serial(title, async t => {
      t.timeout(3_600_000)
      await compare(t, await mounted(t, { passthrough }))
    })
}
