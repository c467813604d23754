/**
 * What is measured. Every case starts from new homes and empty roots, on one machine, over loopback.
 *
 * The clock of `small` and `big` starts when the prepared folder is renamed into A's root, with both ends connected and
 * at rest, and stops when the tool says that B has it all; for a tool that does not make it durable, a `sync` of B's file
 * system follows inside the measured time. Then the trees are compared byte by byte, outside it.
 */
import { execFileSync } from 'node:child_process'
import { closeSync, type FSWatcher, openSync, readFileSync, renameSync, rmSync, watch, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { compareTrees, makeBigFile, makeFiles } from './input.ts'
import { type Cost, cpuSecondsOf, familyOf, Meter, memoryOf } from './meter.ts'
import { pause } from './process.ts'
import { median, percentile } from './statistics.ts'
import type { Expected, Pair, Tool } from './tool.ts'

export const CASE_NAMES = ['small', 'big', 'edit', 'idle'] as const
export type CaseName = (typeof CASE_NAMES)[number]

/** Measured values by name; the unit is the last word of the name. */
export type Figures = Record<string, number>

export interface CaseSettings {
  /** Empty folder of this run, on the disk that is measured. */
  folder: string
  /** Folder that keeps the inputs from run to run. */
  inputs: string
  /** 1 is the published size of each case; less for a quick look. */
  scale: number
  edits: number
  /** How long `idle` looks at a service at rest. */
  idleSeconds: number
}

export interface Case {
  /**
   * What it leaves on the disk stays until all is measured: ext4 does not give out an inode again for minutes after its file was
   * deleted, and looks for others one by one, so that whoever creates files next pays for it many times over.
   */
  readonly manyFiles: boolean
  /** Says what is done, for the report. */
  readonly title: (settings: Pick<CaseSettings, 'scale' | 'edits' | 'idleSeconds'>) => string
  /** Why this tool has no figure, or null. */
  excludes(tool: Tool): string | null
  run(tool: Tool, settings: CaseSettings): Promise<Figures>
}

const SMALL_FILES = 10_000
const SMALL_BYTES_MIN = 1024
const SMALL_BYTES_MAX = 16 * 1024
const BIG_BYTES = 1024 ** 3
const EDIT_FILES = 1_000
const EDIT_WARM_UPS = 20
const EDIT_BYTES = 1024
const EDIT_MS_MAX = 120_000
/** Quiet time between two edits, so that each finds a system at rest. */
const EDIT_PAUSE_MS = 100
const IDLE_FILES = 100_000
const IDLE_BYTES_MAX = 1024
/** A service is left alone for this long before it is looked at. */
const IDLE_PAUSE_MS = 15_000

export const CASES: Record<CaseName, Case> = {
  small: {
    manyFiles: true,
    title: ({ scale }) => `${count(SMALL_FILES * scale)} files of 1 to 16 KiB, from nothing to the same and durable`,
    excludes: () => null,
    run: (tool, settings) =>
      carryFolder(tool, settings, 'small', folder =>
        makeFiles(folder, Math.ceil(SMALL_FILES * settings.scale), SMALL_BYTES_MIN, SMALL_BYTES_MAX),
      ),
  },
  big: {
    manyFiles: false,
    title: ({ scale }) =>
      `One file of ${count((BIG_BYTES * scale) / 1024 ** 2)} MiB of random bytes, durable at the end`,
    excludes: () => null,
    run: (tool, settings) =>
      carryFolder(tool, settings, 'big', folder => makeBigFile(folder, Math.ceil(BIG_BYTES * settings.scale))),
  },
  edit: {
    manyFiles: true,
    title: ({ edits }) =>
      `${count(edits)} edits of 1 KiB in place on a quiet system of ${count(EDIT_FILES)} files: from the write on A to the content visible on B`,
    excludes: needsWatching,
    run: runEdits,
  },
  idle: {
    manyFiles: true,
    title: ({ scale, idleSeconds }) =>
      `A service over ${count(IDLE_FILES * scale)} files at rest, watched for ${idleSeconds} s`,
    excludes: needsWatching,
    run: runIdle,
  },
}

function needsWatching(tool: Tool): string | null {
  return tool.continuous ? null : 'does not watch its folder'
}

const inputs = new Map<string, Expected>()

async function carryFolder(
  tool: Tool,
  settings: CaseSettings,
  name: string,
  make: (folder: string) => Expected,
): Promise<Figures> {
  const prepared = join(settings.inputs, name)
  const expected = inputs.get(name) ?? make(prepared)
  inputs.set(name, expected)
  const pair = await tool.openPair(settings.folder)
  const placed = join(pair.a, 'input')
  let moved = false
  try {
    execFileSync('sync')
    const meter = new Meter(pair.pids)
    const startMs = performance.now()
    renameSync(prepared, placed)
    moved = true
    const { durable } = await pair.carry(expected, meter)
    const saidMs = performance.now()
    if (!durable) execFileSync('sync', ['--file-system', pair.b])
    const durableMs = performance.now()
    const cost = meter.stop()
    const found = compareTrees(placed, join(pair.b, 'input'))
    if (found.files !== expected.files || found.bytes !== expected.bytes)
      throw new Error('what arrived is not what was sent')
    return {
      ...(durable ? {} : { copied_s: (saidMs - startMs) / 1000 }),
      durable_s: (durableMs - startMs) / 1000,
      ...costOf(cost),
    }
  } finally {
    await pair.close()
    if (moved) renameSync(placed, prepared)
  }
}

async function runEdits(tool: Tool, settings: CaseSettings): Promise<Figures> {
  const prepared = join(settings.inputs, 'edit')
  const expected = makeFiles(prepared, EDIT_FILES, EDIT_BYTES, EDIT_BYTES)
  const pair = await tool.openPair(settings.folder)
  try {
    renameSync(prepared, join(pair.a, 'input'))
    const filling = new Meter(pair.pids)
    await pair.carry(expected, filling)
    filling.stop()
    await pause(2_000)
    const meter = new Meter(pair.pids)
    const latencies: number[] = []
    for (let number = 0; number < EDIT_WARM_UPS + settings.edits; number++) {
      const elapsedMs = await edit(pair, join('input', 'folder-0000', 'file-000007.bin'), number)
      if (number >= EDIT_WARM_UPS) latencies.push(elapsedMs)
      await pause(EDIT_PAUSE_MS)
    }
    const cost = meter.stop()
    return {
      p50_ms: median(latencies),
      p95_ms: percentile(latencies, 0.95),
      max_ms: Math.max(...latencies),
      ...costOf(cost),
    }
  } finally {
    await pair.close()
    rmSync(prepared, { recursive: true, force: true })
  }
}

/** Overwrites a file in place on A. @returns milliseconds until a reader finds the whole new content on B */
function edit(pair: Pair, path: string, number: number): Promise<number> {
  const content = Buffer.alloc(EDIT_BYTES, `edit ${number} `)
  const target = join(pair.b, path)
  return new Promise((resolve, reject) => {
    let startMs = 0
    let watcher: FSWatcher | undefined
    const look = (): void => {
      if (startMs === 0 || !readWhole(target)?.equals(content)) return
      const elapsedMs = performance.now() - startMs
      watcher?.close()
      clearInterval(poll)
      clearTimeout(timer)
      resolve(elapsedMs)
    }
    // Events of the folder wake the reader at once; the poll is for a file system that has none.
    watcher = watch(dirname(target), look)
    const poll = setInterval(look, 25)
    const timer = setTimeout(() => {
      watcher?.close()
      clearInterval(poll)
      reject(new Error(`edit ${number} has not arrived within ${EDIT_MS_MAX / 1000} s`))
    }, EDIT_MS_MAX)
    const file = openSync(join(pair.a, path), 'r+')
    startMs = performance.now()
    writeSync(file, content)
    closeSync(file)
  })
}

function readWhole(path: string): Buffer | undefined {
  try {
    return readFileSync(path)
  } catch {
    return undefined
  }
}

async function runIdle(tool: Tool, settings: CaseSettings): Promise<Figures> {
  const root = join(settings.folder, 'root')
  const expected = makeFiles(root, Math.ceil(IDLE_FILES * settings.scale), 1, IDLE_BYTES_MAX)
  const alone = await tool.openAlone(settings.folder, root)
  try {
    const addedMs = performance.now()
    const first = await alone.start()
    await alone.settled(expected)
    const scannedMs = performance.now()
    await pause(IDLE_PAUSE_MS)
    const afterScan = residentOf(first).residentBytes
    await alone.stop()

    const startedMs = performance.now()
    const pid = await alone.start()
    await alone.settled(expected)
    const readyMs = performance.now()
    await pause(IDLE_PAUSE_MS)
    const cpuBefore = cpuSecondsOf(pid)
    await pause(settings.idleSeconds * 1000)
    const cpuSeconds = cpuSecondsOf(pid) - cpuBefore
    return {
      rss_mb: residentOf(pid).residentBytes / 1e6,
      private_mb: residentOf(pid).privateBytes / 1e6,
      cpu_percent: (100 * cpuSeconds) / settings.idleSeconds,
      rss_after_first_scan_mb: afterScan / 1e6,
      first_scan_s: (scannedMs - addedMs) / 1000,
      restart_s: (readyMs - startedMs) / 1000,
    }
  } finally {
    await alone.stop()
  }
}

/** An end without a process of its own has no figures. */
function costOf(cost: { a: Cost; b: Cost }): Figures {
  const figures: Figures = {}
  for (const end of ['a', 'b'] as const) {
    if (cost[end].peakBytes === 0) continue
    figures[`cpu_${end}_s`] = cost[end].cpuSeconds
    figures[`peak_${end}_mb`] = cost[end].peakBytes / 1e6
  }
  return figures
}

function residentOf(pid: number): { residentBytes: number; privateBytes: number } {
  const total = { residentBytes: 0, privateBytes: 0 }
  for (const member of familyOf(pid)) {
    const memory = memoryOf(member)
    total.residentBytes += memory.residentBytes
    total.privateBytes += memory.privateBytes
  }
  return total
}

function count(number: number): string {
  return Math.ceil(number).toLocaleString('en-GB')
}
