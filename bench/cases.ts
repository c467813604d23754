/**
 * What is measured. Every case starts from new homes and empty roots, on one machine, over loopback. Changes of a tree that is the
 * same on both ends are in changes.ts.
 *
 * The clock of `small` and `big` starts when the prepared folder is renamed into A's root, with both ends connected and
 * at rest, and stops when the tool says that B has it all; for a tool that does not make it durable, a `sync` of B's file
 * system follows inside the measured time. Then the trees are compared byte by byte, outside it.
 */
import { execFileSync } from 'node:child_process'
import { closeSync, type FSWatcher, openSync, readFileSync, renameSync, rmSync, watch, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { CHANGES } from './changes.ts'
import { compareTrees, makeBigFile, makeFiles } from './input.ts'
import { loadtest } from './loadtest.ts'
import { type Cost, cpuSecondsOf, familyOf, Meter, memoryOf } from './meter.ts'
import { pause } from './process.ts'
import { median, percentile } from './statistics.ts'
import type { Expected, Pair, Tool } from './tool.ts'

export const CASE_NAMES = [
  'small',
  'small100k',
  'big',
  'overwrite',
  'insert',
  'rename_file',
  'rename_folder',
  'edit',
  'edit_during',
  'idle',
  'idle_wire',
  'million',
  'loadtest',
] as const
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
const SMALL100K_FILES = 100_000
export const BIG_BYTES = 1024 ** 3
export const EDIT_FILES = 1_000
const EDIT_WARM_UPS = 20
export const EDIT_BYTES = 1024
const EDIT_MS_MAX = 120_000
/** Quiet time between two edits, so that each finds a system at rest. */
const EDIT_PAUSE_MS = 100
const IDLE_FILES = 100_000
const IDLE_BYTES_MAX = 1024
const MILLION_FILES = 1_000_000
/** Next to nothing: what counts is their number. */
const MILLION_BYTES_MAX = 16
const LOAD_PEERS = 1_000
const LOAD_SECONDS = 20
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
  small100k: {
    manyFiles: true,
    title: ({ scale }) =>
      `${count(SMALL100K_FILES * scale)} files of 1 to 16 KiB, from nothing to the same and durable`,
    excludes: () => null,
    run: (tool, settings) =>
      carryFolder(tool, settings, 'small100k', folder =>
        makeFiles(folder, Math.ceil(SMALL100K_FILES * settings.scale), SMALL_BYTES_MIN, SMALL_BYTES_MAX),
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
  ...CHANGES,
  idle: {
    manyFiles: true,
    title: ({ scale, idleSeconds }) =>
      `A service over ${count(IDLE_FILES * scale)} files at rest, watched for ${idleSeconds} s`,
    excludes: needsWatching,
    run: (tool, settings) => runIdle(tool, settings, IDLE_FILES, IDLE_BYTES_MAX),
  },
  million: {
    manyFiles: true,
    title: ({ scale, idleSeconds }) =>
      `A service over ${count(MILLION_FILES * scale)} files at rest, watched for ${idleSeconds} s, then told to look at all of them again`,
    excludes: needsWatching,
    run: (tool, settings) => runIdle(tool, settings, MILLION_FILES, MILLION_BYTES_MAX),
  },
  loadtest: {
    manyFiles: false,
    title: ({ scale }) =>
      `One service, ${count(LOAD_PEERS * scale)} simulated peers on the same machine, an edit of 1 KiB every other second`,
    excludes: tool => (tool.name === 'realize' ? null : 'has no simulated peers'),
    run: runLoadtest,
  },
}

function needsWatching(tool: Tool): string | null {
  return tool.continuous ? null : 'does not watch its folder'
}

async function runLoadtest(_tool: Tool, { scale, folder }: CaseSettings): Promise<Figures> {
  const words = [
    '--peers',
    `${Math.ceil(LOAD_PEERS * scale)}`,
    '--seconds',
    `${LOAD_SECONDS}`,
    '--edits-per-second',
    '0.5',
  ]
  const { connect, edits, fetch, service, errors, consensus } = await loadtest(words, folder)
  if (!consensus || Object.keys(errors).length > 0 || edits.arrived !== edits.expected)
    throw new Error(`the load test found faults: ${JSON.stringify({ consensus, errors, edits })}`)
  return {
    connect_s: connect.seconds,
    connects_per_s: connect.perSecond,
    p50_ms: edits.each?.p50 ?? Number.NaN,
    p99_ms: edits.each?.p99 ?? Number.NaN,
    all_ms: edits.all?.p99 ?? Number.NaN,
    fetch_mbs: fetch?.megabytesPerSecond ?? Number.NaN,
    connection_kb: service.residentPerConnection / 1000,
    connection_cpu_ms: connect.cpuSecondsPerConnection * 1000,
    cpu_percent: service.cpuPercentAtRest,
  }
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
export function edit(pair: Pair, path: string, number: number): Promise<number> {
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

async function runIdle(tool: Tool, settings: CaseSettings, files: number, bytesMax: number): Promise<Figures> {
  const root = join(settings.folder, 'root')
  const expected = makeFiles(root, Math.ceil(files * settings.scale), 1, bytesMax)
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
    const readyMs = performance.now()
    await alone.settled(expected)
    const settledMs = performance.now()
    await pause(IDLE_PAUSE_MS)
    const cpuBefore = cpuSecondsOf(pid)
    await pause(settings.idleSeconds * 1000)
    const cpuSeconds = cpuSecondsOf(pid) - cpuBefore
    const { residentBytes, privateBytes } = residentOf(pid)
    const rescanMs = performance.now()
    await alone.rescan()
    const rescannedMs = performance.now()
    return {
      rss_mb: residentBytes / 1e6,
      private_mb: privateBytes / 1e6,
      cpu_percent: (100 * cpuSeconds) / settings.idleSeconds,
      rss_after_first_scan_mb: afterScan / 1e6,
      first_scan_s: (scannedMs - addedMs) / 1000,
      ready_s: (readyMs - startedMs) / 1000,
      restart_s: (settledMs - startedMs) / 1000,
      rescan_s: (rescannedMs - rescanMs) / 1000,
    }
  } finally {
    await alone.stop()
  }
}

/** An end without a process of its own has no figures. */
export function costOf(cost: { a: Cost; b: Cost }): Figures {
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

export function count(number: number): string {
  return Math.ceil(number).toLocaleString('en-GB')
}
