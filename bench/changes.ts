/**
 * Changes of a tree that both ends have: how long until B shows them, and what goes over the wire for it. B dials A through a relay
 * that counts bytes. The clock starts with the change on A (for what is prepared beside the root: with the rename that
 * puts it there) and stops when a reader on B finds it.
 */

import { randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Case, CaseSettings, Figures } from './cases.ts'
import { BIG_BYTES, costOf, count, EDIT_BYTES, EDIT_FILES, edit } from './cases.ts'
import { compareTrees, makeBigFile, makeFiles } from './input.ts'
import { Meter } from './meter.ts'
import { freePort, pause, until } from './process.ts'
import { Relay } from './relay.ts'
import { median, percentile } from './statistics.ts'
import type { Expected, Pair, Tool } from './tool.ts'

const OVERWRITE_BYTES = 1024 ** 2
const INSERT_BYTES = 17
const FOLDER_FILES = 10_000
const FOLDER_BYTES = 1024
/** Time to rest after the tree is the same on both ends. */
const REST_MS = 3_000
/** After B shows it: last acknowledgements count, too. */
const AFTER_MS = 1_000
const LOOK_MS = 5
const CHANGE_MS_MAX = 600_000
/** Edits begin when this much of the large file has passed. */
const UNDER_WAY_PART = 0.05
const EDIT_PAUSE_MS = 50

interface Change {
  /** Makes the tree, `input` of both roots. */
  make(folder: string, scale: number): Expected
  /** Prepares what need not be measured, beside the root. */
  prepare?(input: string, beside: string): void
  change(input: string, beside: string): void
  /** Whether the changed tree can be seen. Cheap. */
  shown(input: string, changed: string): boolean
}

export const CHANGES = {
  overwrite: caseOf(
    scale => `1 MiB overwritten in place in the middle of a file of ${count((BIG_BYTES * scale) / 1024 ** 2)} MiB`,
    {
      make: (folder, scale) => makeBigFile(folder, bigBytes(scale)),
      change: input => {
        const file = openSync(join(input, 'big.bin'), 'r+')
        const { size } = statSync(join(input, 'big.bin'))
        writeSync(file, randomBytes(Math.min(OVERWRITE_BYTES, size)), 0, undefined, middleOf(size))
        closeSync(file)
      },
      shown: (input, changed) => samePiece(input, changed, middleOf),
    },
  ),
  insert: caseOf(
    scale =>
      `${INSERT_BYTES} bytes inserted at the head of a file of ${count((BIG_BYTES * scale) / 1024 ** 2)} MiB, as an editor does: a new file takes its place`,
    {
      make: (folder, scale) => makeBigFile(folder, bigBytes(scale)),
      prepare: (input, beside) => prepend(randomBytes(INSERT_BYTES), join(input, 'big.bin'), join(beside, 'big.bin')),
      change: (input, beside) => renameSync(join(beside, 'big.bin'), join(input, 'big.bin')),
      shown: (input, changed) => samePiece(input, changed, () => 0),
    },
  ),
  rename_file: caseOf(scale => `A file of ${count((BIG_BYTES * scale) / 1024 ** 2)} MiB renamed`, {
    make: (folder, scale) => makeBigFile(folder, bigBytes(scale)),
    change: input => renameSync(join(input, 'big.bin'), join(input, 'other.bin')),
    shown: input => existsSync(join(input, 'other.bin')) && !existsSync(join(input, 'big.bin')),
  }),
  rename_folder: caseOf(scale => `A folder of ${count(FOLDER_FILES * scale)} files renamed`, {
    make: (folder, scale) =>
      makeFiles(join(folder, 'before'), Math.ceil(FOLDER_FILES * scale), FOLDER_BYTES, FOLDER_BYTES),
    change: input => renameSync(join(input, 'before'), join(input, 'after')),
    shown: (input, changed) =>
      !existsSync(join(input, 'before')) && filesBelow(join(input, 'after')) === filesBelow(join(changed, 'after')),
  }),
  edit_during: {
    manyFiles: false,
    title: ({ scale }) =>
      `Edits of 1 KiB in place while a file of ${count((BIG_BYTES * scale) / 1024 ** 2)} MiB is on its way: from the write on A to the content visible on B`,
    excludes: tool => (tool.continuous ? null : 'does not watch its folder'),
    run: runEditDuring,
  },
  idle_wire: {
    manyFiles: false,
    title: ({ idleSeconds }) => `Two ends over ${count(EDIT_FILES)} files at rest, for ${2 * idleSeconds} s`,
    excludes: tool => (tool.continuous ? null : 'has no connection at rest'),
    run: runIdleWire,
  },
} satisfies Record<string, Case>

function caseOf(title: (scale: number) => string, change: Change): Case {
  return {
    manyFiles: false,
    title: ({ scale }) => title(scale),
    excludes: tool => (tool.name === 'cp' ? 'copies everything anew' : null),
    run: (tool, settings) => runChange(tool, settings, change),
  }
}

/** Counts what passes between the ends. */
class Wire {
  #relay: Relay | undefined

  readonly detour = async (port: number): Promise<number> => {
    this.#relay = await Relay.open(await freePort(), port)
    return this.#relay.port
  }

  get bytes(): number {
    return (this.#relay?.toTarget ?? 0) + (this.#relay?.fromTarget ?? 0)
  }

  async close(): Promise<void> {
    await this.#relay?.close()
  }
}

async function runChange(
  tool: Tool,
  settings: CaseSettings,
  { make, prepare, change, shown }: Change,
): Promise<Figures> {
  const beside = join(settings.folder, 'beside')
  mkdirSync(beside)
  return withTree(tool, settings, make, async (pair, wire, expected) => {
    const [here, there] = [join(pair.a, 'input'), join(pair.b, 'input')]
    prepare?.(here, beside)
    const before = wire.bytes
    const meter = new Meter(pair.pids)
    const startMs = performance.now()
    change(here, beside)
    const carried = pair.carry(expected, meter)
    carried.catch(() => {})
    await until('the change can be seen', CHANGE_MS_MAX, LOOK_MS, () => Promise.resolve(shown(there, here)))
    const shownMs = performance.now()
    await carried
    await pause(AFTER_MS)
    const cost = meter.stop()
    const wireBytes = wire.bytes - before
    compareTrees(here, there)
    return { visible_s: (shownMs - startMs) / 1000, wire_mb: wireBytes / 1e6, ...costOf(cost) }
  })
}

/** Two ends that have the same tree, at rest. */
async function withTree(
  tool: Tool,
  { folder, scale }: CaseSettings,
  make: Change['make'],
  work: (pair: Pair, wire: Wire, expected: Expected) => Promise<Figures>,
): Promise<Figures> {
  const wire = new Wire()
  const prepared = join(folder, 'prepared')
  const expected = make(prepared, scale)
  const pair = await tool.openPair(folder, wire.detour)
  try {
    renameSync(prepared, join(pair.a, 'input'))
    const filling = new Meter(pair.pids)
    await pair.carry(expected, filling)
    filling.stop()
    await pause(REST_MS)
    return await work(pair, wire, expected)
  } finally {
    await pair.close()
    await wire.close()
  }
}

async function runEditDuring(tool: Tool, settings: CaseSettings): Promise<Figures> {
  const large = join(settings.folder, 'large')
  const { bytes } = makeBigFile(large, bigBytes(settings.scale))
  const make = (folder: string) => makeFiles(folder, EDIT_FILES, EDIT_BYTES, EDIT_BYTES)
  return withTree(tool, settings, make, async (pair, wire, expected) => {
    const before = wire.bytes
    const startMs = performance.now()
    renameSync(large, join(pair.a, 'large'))
    let over = false
    const meter = new Meter(pair.pids)
    const all = { files: expected.files + 1, bytes: expected.bytes + bytes }
    const carried = pair.carry(all, meter).finally(() => {
      over = true
    })
    carried.catch(() => {})
    await until('the large file is under way', CHANGE_MS_MAX, LOOK_MS, () =>
      Promise.resolve(over || wire.bytes - before > bytes * UNDER_WAY_PART),
    )
    const latencies: number[] = []
    const there = join(pair.b, 'large', 'big.bin')
    do {
      latencies.push(await edit(pair, join('input', 'folder-0000', 'file-000007.bin'), latencies.length))
      await pause(EDIT_PAUSE_MS)
    } while (!existsSync(there))
    const transferMs = performance.now() - startMs
    await carried
    return {
      p50_ms: median(latencies),
      p95_ms: percentile(latencies, 0.95),
      max_ms: Math.max(...latencies),
      edits: latencies.length,
      transfer_s: transferMs / 1000,
      ...costOf(meter.stop()),
    }
  })
}

async function runIdleWire(tool: Tool, settings: CaseSettings): Promise<Figures> {
  const make = (folder: string) => makeFiles(folder, EDIT_FILES, EDIT_BYTES, EDIT_BYTES)
  return withTree(tool, settings, make, async (_pair, wire) => {
    await pause(REST_MS)
    const before = wire.bytes
    await pause(2 * settings.idleSeconds * 1000)
    return { wire_kb: (wire.bytes - before) / 1000 }
  })
}

function bigBytes(scale: number): number {
  return Math.ceil(BIG_BYTES * scale)
}

function middleOf(size: number): number {
  return Math.floor(size / 2)
}

/** Whether the large file of both trees has one size and there the same bytes. */
function samePiece(input: string, changed: string, from: (size: number) => number): boolean {
  const [ours, theirs] = [join(changed, 'big.bin'), join(input, 'big.bin')]
  const size = statSync(ours).size
  if (statSync(theirs, { throwIfNoEntry: false })?.size !== size) return false
  const length = Math.min(OVERWRITE_BYTES, size - from(size))
  return readPiece(ours, from(size), length).equals(readPiece(theirs, from(size), length))
}

function readPiece(path: string, from: number, length: number): Buffer {
  const file = openSync(path, 'r')
  const piece = Buffer.alloc(length)
  readSync(file, piece, 0, length, from)
  closeSync(file)
  return piece
}

/** Writes a new file: some bytes, then all of another. */
function prepend(head: Buffer, from: string, to: string): void {
  const pieceBytes = 4 * 1024 ** 2
  const [source, target] = [openSync(from, 'r'), openSync(to, 'wx')]
  writeSync(target, head)
  const piece = Buffer.alloc(pieceBytes)
  for (let read = readSync(source, piece); read > 0; read = readSync(source, piece)) writeSync(target, piece, 0, read)
  closeSync(source)
  closeSync(target)
}

function filesBelow(folder: string): number {
  if (!existsSync(folder)) return 0
  return readdirSync(folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile()).length
}
