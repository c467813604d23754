/**
 * The mounted view beside the folder that it shows: `npm run bench:folder -- --help`. Each case runs in turn in the folder itself, through
 * the view, and, as root, through the view with files given to the kernel; medians of the rounds are shown with their ratio to the folder.
 *
 * Buffers are written before they are measured, and files read once: memory of a virtual machine that is touched for the first time
 * is slow, and would be all that is seen.
 */

import * as fs from 'node:fs'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { cpus, loadavg, release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { Command } from 'commander'
import type { FolderViewData, FolderViewMessage } from '../actors/view/folder-worker.ts'
import { median } from './statistics.ts'

const MIB = 1024 * 1024

interface Options {
  dir: string
  megabytes: number
  entries: number
  rounds: number
}

const program = new Command('bench:folder')
  .description('Measures a mounted view beside the folder that it shows.')
  .option('--dir <folder>', 'where to work', tmpdir())
  .option('--megabytes <number>', 'size of the big file', Number, 128)
  .option('--entries <number>', 'files in the big folder', Number, 10_000)
  .option('--rounds <number>', 'how often each case runs', Number, 5)

/** A case measures one thing in a folder. `prepared`: the same folder by its own path, to prepare it past the view. */
interface Case {
  name: string
  unit: 'MiB/s' | 'µs' | 'ms'
  /** What the design asks for, in words. */
  goal?: string
  run(folder: string, prepared: string, options: Options): number
}

const block = Buffer.alloc(MIB, 1)

const CASES: readonly Case[] = [
  {
    name: 'write, blocks of 1 MiB',
    unit: 'MiB/s',
    goal: '≥ 60 %',
    run: (folder, _, { megabytes }) => {
      const fd = fs.openSync(join(folder, 'written'), 'w')
      const ms = timed(() => {
        for (let count = 0; count < megabytes; count++) fs.writeSync(fd, block)
      })
      fs.closeSync(fd)
      return (megabytes / ms) * 1000
    },
  },
  {
    name: 'overwrite, blocks of 1 MiB',
    unit: 'MiB/s',
    goal: '≥ 60 %',
    run: (folder, _, { megabytes }) => {
      const fd = fs.openSync(join(folder, 'read'), 'r+')
      const ms = timed(() => {
        for (let count = 0; count < megabytes; count++) fs.writeSync(fd, block)
      })
      fs.closeSync(fd)
      return (megabytes / ms) * 1000
    },
  },
  {
    name: 'write, blocks of 4 KiB',
    unit: 'µs',
    run: folder => {
      const fd = fs.openSync(join(folder, 'small'), 'w')
      const small = block.subarray(0, 4096)
      const ms = timed(() => {
        for (let count = 0; count < 2000; count++) fs.writeSync(fd, small)
      })
      fs.closeSync(fd)
      return (ms * 1000) / 2000
    },
  },
  {
    name: 'read again what is cached',
    unit: 'MiB/s',
    goal: '≥ 80 %',
    run: (folder, prepared, { megabytes }) => {
      // A file that has rested for a moment, and was read once.
      waitMs(60)
      readWhole(join(prepared, 'read'))
      readWhole(join(folder, 'read'))
      return (megabytes / timed(() => readWhole(join(folder, 'read')))) * 1000
    },
  },
  {
    name: 'read what only the folder has cached',
    unit: 'MiB/s',
    run: (folder, prepared, { megabytes }) => {
      const now = new Date()
      readWhole(join(prepared, 'read'))
      fs.utimesSync(join(prepared, 'read'), now, now)
      return (megabytes / timed(() => readWhole(join(folder, 'read')))) * 1000
    },
  },
  {
    name: 'stat of a cached entry',
    unit: 'µs',
    goal: '≤ 100 µs',
    run: folder => {
      fs.statSync(join(folder, 'read'))
      const ms = timed(() => {
        for (let count = 0; count < 5000; count++) fs.statSync(join(folder, 'read'))
      })
      return (ms * 1000) / 5000
    },
  },
  {
    name: 'look for a name that is not there',
    unit: 'µs',
    run: folder => {
      const ms = timed(() => {
        for (let count = 0; count < 1000; count++) fs.existsSync(join(folder, `none-${count}`))
      })
      return (ms * 1000) / 1000
    },
  },
  {
    name: 'list a folder of many entries',
    unit: 'ms',
    goal: '≤ 150 ms for 10,000',
    run: folder => timed(() => fs.readdirSync(join(folder, 'many'), { withFileTypes: true })),
  },
  {
    name: 'list them with their attributes',
    unit: 'ms',
    run: folder =>
      timed(() => {
        for (const name of fs.readdirSync(join(folder, 'many'))) fs.lstatSync(join(folder, 'many', name))
      }),
  },
  {
    name: 'make and remove a small file',
    unit: 'µs',
    run: folder => {
      const ms = timed(() => {
        for (let count = 0; count < 500; count++) {
          fs.writeFileSync(join(folder, `file-${count}`), 'content')
          fs.unlinkSync(join(folder, `file-${count}`))
        }
      })
      return (ms * 1000) / 500
    },
  },
]

await main(program.parse().opts<Options>())

async function main(options: Options): Promise<void> {
  const scratch = mkdtempSync(join(options.dir, 'realize-bench-view-'))
  try {
    const root = join(scratch, 'root')
    mkdirSync(join(root, 'many'), { recursive: true })
    for (let count = 0; count < options.entries; count++) fs.writeFileSync(join(root, 'many', `entry-${count}`), '')
    const fd = fs.openSync(join(root, 'read'), 'w')
    for (let count = 0; count < options.megabytes; count++) fs.writeSync(fd, block)
    fs.closeSync(fd)
    const plain = await mount(scratch, root, 'view', false)
    const given = process.geteuid?.() === 0 ? await mount(scratch, root, 'given', true) : null
    const places = [root, plain.at, ...(given?.passthrough ? [given.at] : [])]
    print(`Linux ${release()}, ${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)}, ${options.rounds} rounds\n`)
    print('| case | goal | folder | view | view, files given to the kernel |\n|---|---|--:|--:|--:|')
    for (const each of CASES) print(row(each, measure(each, places, root, options)))
    await Promise.all([plain.close(), given?.close()])
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Medians of the rounds, one for each place; the places take turns. */
function measure(each: Case, places: string[], root: string, options: Options): number[] {
  const runs = places.map((): number[] => [])
  for (let round = 0; round < options.rounds; round++)
    for (const [index, place] of places.entries()) runs[index]?.push(each.run(place, root, options))
  return runs.map(median)
}

function row({ name, goal = '', unit }: Case, [folder = Number.NaN, ...views]: number[]): string {
  const shown = (value: number) => value.toFixed(value < 100 ? 1 : 0)
  // Of speeds more is better, of times less: the ratio is always "as fast as".
  const ratio = (value: number) => ((unit === 'MiB/s' ? value / folder : folder / value) * 100).toFixed(0)
  const cells = views.map(value => `${shown(value)} ${unit} (${ratio(value)} %)`)
  return `| ${name} | ${goal} | ${shown(folder)} ${unit} | ${cells.join(' | ')} |`
}

async function mount(scratch: string, root: string, name: string, passthrough: boolean) {
  const at = join(scratch, name)
  mkdirSync(at)
  const workerData: FolderViewData = { root, mountpoint: at, passthrough }
  const worker = new Worker(new URL('../actors/view/folder-worker.js', import.meta.url), { workerData })
  const said = await new Promise<FolderViewMessage>((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
  })
  if (said.type === 'failed') throw new Error(said.message)
  const gone = new Promise<void>(resolve => worker.once('exit', () => resolve()))
  const close = () => {
    worker.postMessage('close')
    return gone
  }
  return { at, passthrough: said.passthrough, close }
}

function readWhole(path: string): void {
  const fd = fs.openSync(path, 'r')
  while (fs.readSync(fd, block) > 0);
  fs.closeSync(fd)
}

function timed(action: () => unknown): number {
  const start = performance.now()
  action()
  return performance.now() - start
}

function waitMs(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}
