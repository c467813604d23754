/**
 * What programs of every day take in a mount of files that are not here: `npm run household -- --files 100000`.
 *
 * Two services hold an arena of small files and a video, a third has it without a folder, and mounted. Each step is a program in
 * the mount; shown are its time, the processor time of the guest's service, how its memory grew, and what came over the wire.
 */
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { arenaName } from '../system/_household.ts'
import { buildWorld, figuresOf, shell, type World } from './_world.ts'

const USAGE = `npm run household -- [--files N] [--video GIB] [--only TEXT] [--dir DIR]
  --files N    small files, in folders of 50 (default 100000)
  --video GIB  size of the video, nearly all of it zeros (default 4)
  --only TEXT  only steps whose names contain it
  --dir DIR    where homes and roots go (default: in the system's temporary folder)`

const { values } = parseArgs({
  options: {
    files: { type: 'string', default: '100000' },
    video: { type: 'string', default: '4' },
    only: { type: 'string', default: '' },
    dir: { type: 'string', default: tmpdir() },
    help: { type: 'boolean', default: false },
  },
})

const MIB = 1024 * 1024
const LIMIT_MS = 1_200_000
/** A connection tells what it has received once a second. */
const COUNTED_MS = 1_500

const say = (line: string) => process.stdout.write(`${line}\n`)

interface Step {
  name: string
  run(world: World): unknown
}

const inMount =
  (command: string) =>
  ({ docs, household }: World) =>
    shell(command, docs, household.folder, LIMIT_MS)

const STEPS: readonly Step[] = [
  { name: 'find . | wc -l', run: inMount('find . | wc -l') },
  { name: 'find . | wc -l, again', run: inMount('find . | wc -l') },
  { name: 'ls -lR', run: inMount('ls -lR >/dev/null') },
  { name: 'ls -lR, again', run: inMount('ls -lR >/dev/null') },
  { name: 'du -s', run: inMount('du -s . >/dev/null') },
  { name: 'video: first 10 bytes at its middle', run: ({ docs }) => readMiddle(docs, 10) },
  { name: 'video: 300 KiB behind them', run: world => readMiddle(world.docs, 300 * 1024, MIB, world.middle) },
  {
    name: 'video: 64 MiB one after the other',
    run: inMount('dd if=video bs=1M skip=100 count=64 status=none >/dev/null'),
  },
  { name: 'grep -r in a year', run: inMount('grep -r needle year-00 >/dev/null') },
  { name: 'grep -r in a year, again', run: inMount('grep -r needle year-00 >/dev/null') },
  { name: 'cp -r of a year out', run: inMount('cp -r year-01 $OUT/copy-01') },
  { name: 'rsync -a of a year out', run: inMount('rsync -a year-02/ $OUT/copy-02/') },
  { name: 'rsync -a, again', run: inMount('rsync -a year-02/ $OUT/copy-02/') },
  { name: 'tar of a year', run: inMount('tar -cf $OUT/year-03.tar year-03') },
  { name: 'fetch of a year', run: world => fetchYear(world, 'year-04') },
  { name: 'cp -r of that year', run: inMount('cp -r year-04 $OUT/copy-04') },
  { name: 'rsync -a of a year in', run: inMount('rsync -a $OUT/copy-02/ new-02/') },
  { name: 'cp -r within', run: inMount('cp -r year-04 new-04') },
  { name: 'all settled', run: world => settle(world) },
  { name: 'mv of a year', run: inMount('mv year-05 renamed-05') },
  { name: 'rm -r of a year', run: inMount('rm -r year-06') },
  { name: 'all settled', run: world => settle(world) },
]

function readMiddle(docs: string, bytes: number, behind = 0, expected: Buffer | null = null): void {
  const fd = fs.openSync(join(docs, 'video'), 'r')
  const at = Math.floor(fs.fstatSync(fd).size / 2) + behind
  const part = Buffer.alloc(bytes)
  const count = fs.readSync(fd, part, 0, bytes, at)
  fs.closeSync(fd)
  if (count !== bytes) throw new Error(`only ${count} bytes`)
  if (expected !== null && !part.equals(expected.subarray(behind, behind + bytes))) throw new Error('other bytes')
}

async function fetchYear({ guest }: World, path: string): Promise<void> {
  const { problems } = await guest.call('fetch', { arena: arenaName('docs'), path })
  if (problems.length > 0) throw new Error(JSON.stringify(problems[0]))
}

async function settle({ household }: World): Promise<void> {
  await household.settled(household.peers, 'docs', LIMIT_MS / 1000)
}

if (values.help) say(USAGE)
else await main()

async function main(): Promise<void> {
  const folder = fs.mkdtempSync(join(fs.realpathSync(values.dir), 'household-'))
  const undo: (() => unknown)[] = []
  const end = async () => {
    for (const work of undo.splice(0).reverse()) await work()
    fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => void end().finally(() => process.exit(130)))
  try {
    const files = Number(values.files)
    const startMs = performance.now()
    const size = { files, videoBytes: Number(values.video) * 1024 * MIB }
    const world = await buildWorld({ teardown: work => undo.push(work) }, folder, size, LIMIT_MS)
    const residentMib = async () => Math.round((await figuresOf(world.guest)).residentBytes / MIB)
    say(
      `${files} files; ready after ${seconds(performance.now() - startMs)} s; the guest has ${await residentMib()} MiB`,
    )
    say('| step | s | s of processor | MiB resident | KiB received |\n|---|---|---|---|---|')
    const steps = STEPS.filter(({ name }) => size.videoBytes > 0 || !name.startsWith('video'))
    for (const { name, run } of steps.filter(step => step.name.includes(values.only))) {
      const before = await figuresOf(world.guest)
      const beginMs = performance.now()
      await run(world)
      const ms = performance.now() - beginMs
      const after = await figuresOf(world.guest)
      const resident = Math.round(after.residentBytes / MIB)
      await setTimeout(COUNTED_MS)
      const counted = await figuresOf(world.guest)
      const received = Math.round((counted.receivedBytes - before.receivedBytes) / 1024)
      say(`| ${name} | ${seconds(ms)} | ${seconds(after.cpuMs - before.cpuMs)} | ${resident} | ${received} |`)
    }
  } finally {
    await end()
  }
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(2)
}
