/**
 * Files on demand, measured: `npm run bench:view -- --help`. Two real services share an arena, the second wants little of it real and is
 * mounted; what is done through the mount is compared with the same done in the arena's folder, what is fetched with the plain transfer.
 *
 * As root everything is measured twice: as root, for whom the kernel reads real files by itself, and in a process of an ordinary user.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import * as fs from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import type { EntryPath } from '../protocol/ids.ts'
import { machineOf } from './machine.ts'
import { freePort, pause, stopAll, until } from './process.ts'
import { type Aim, joined, type ReadsResults, type Row, type Setting, toMarkdown, type Unit } from './reads-report.ts'
import { ARENA, type Instance, launch, makeInstance, type Running, statusOf } from './realize.ts'
import { Relay } from './relay.ts'

const MB = 1024 * 1024
/** Real entries are believed for one second by the kernel, unreal ones for thirty. */
const EXPIRED_MS = 31_000
const ROUND_TRIP_MS = 50
const WAIT_SECONDS = 300
const COMMAND_MS_MAX = 300_000

interface Options {
  dir: string
  megabytes: number
  entries: number
  rounds: number
  user: string
  only?: string
  out?: string
  from?: string[]
  docs?: boolean
  note?: string
}

const program = new Command('bench:view')
  .description('Measures files on demand through a mount, beside the folder of the arena and the plain transfer.')
  .option('--dir <folder>', 'where to work; should be on the disk that counts, not in memory', tmpdir())
  .option('--megabytes <number>', 'size of the big files', Number, 512)
  .option('--entries <number>', 'files in the big folders', Number, 10_000)
  .option('--rounds <number>', 'how often each case runs; medians are shown', Number, 5)
  .option('--user <name>', 'an ordinary user, for whom root measures as well; "" for none', 'nobody')
  .option('--only <words>', 'only the sections that begin so: content, fetched, attributes, writing, delay')
  .option('--out <file>', 'write the results as JSON')
  .option('--from <files>', 'take the results of earlier --out, separated by commas, instead of measuring', text =>
    text.split(','),
  )
  .option('--docs', 'write docs/performance-on-demand.md')
  .option('--note <sentence>', 'what a reader of the report should know of the machine')

/** null: it is not installed. */
let fioKnown: string | null | undefined

await main(program.parse().opts<Options>())

async function main(options: Options): Promise<void> {
  const results =
    options.from === undefined
      ? await measureAll(options)
      : joined(
          options.from.map(file => JSON.parse(fs.readFileSync(file, 'utf8')) as ReadsResults),
          options.note,
        )
  const markdown = toMarkdown(results)
  if (options.out !== undefined) fs.writeFileSync(options.out, `${JSON.stringify(results, null, 2)}\n`)
  if (options.docs)
    fs.writeFileSync(fileURLToPath(new URL('../../docs/performance-on-demand.md', import.meta.url)), markdown)
  process.stdout.write(markdown)
}

async function measureAll(options: Options): Promise<ReadsResults> {
  const loadBefore = loadavg()[0] ?? 0
  const folder = fs.mkdtempSync(join(options.dir, 'realize-bench-'))
  fs.chmodSync(folder, 0o755)
  const interrupted = (): void => {
    void stopAll().then(() => {
      fs.rmSync(folder, { recursive: true, force: true })
      process.exit(130)
    })
  }
  process.once('SIGINT', interrupted)
  process.once('SIGTERM', interrupted)
  try {
    const settings = [await measure(options, join(folder, 'own'))]
    if (process.geteuid?.() === 0 && options.user !== '') {
      const theirs = asUser(options, join(folder, 'user'))
      if (theirs !== null) settings.push(theirs)
    }
    const { rounds, megabytes, entries } = options
    return {
      date: new Date().toISOString().slice(0, 10),
      machine: { ...machineOf(folder, loadBefore), note: options.note ?? null },
      rounds,
      megabytes,
      entries,
      fio: fioVersion(),
      settings,
    }
  } finally {
    await stopAll()
    fs.rmSync(folder, { recursive: true, force: true })
  }
}

/** The same in a process of another user; null, with the reason said, if that user cannot mount. */
function asUser(options: Options, folder: string): Setting | null {
  const idOf = (flag: string) => Number(execFileSync('id', [flag, options.user], { encoding: 'utf8' }))
  const [uid, gid] = [idOf('-u'), idOf('-g')]
  fs.mkdirSync(folder)
  fs.chownSync(folder, uid, gid)
  const out = join(folder, 'results.json')
  const passed = ['dir', 'megabytes', 'entries', 'rounds', 'only'] as const
  const given = passed.flatMap(name => (options[name] === undefined ? [] : [`--${name}`, String(options[name])]))
  const args = [fileURLToPath(import.meta.url), ...given, '--dir', folder, '--out', out]
  const { status } = spawnSync(process.execPath, args, {
    uid,
    gid,
    cwd: folder,
    env: { ...process.env, HOME: folder },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (status !== 0) {
    progress(`${options.user} could not measure: no figures of an ordinary user`)
    return null
  }
  return (JSON.parse(fs.readFileSync(out, 'utf8')) as ReadsResults).settings[0] ?? null
}

/** What all cases use. */
interface Bench {
  readonly options: Options
  readonly a: Instance
  readonly b: Instance
  atA: Running
  atB: Running
  /** The arena in the mount. */
  readonly mounted: string
  row(section: string, name: string, unit: Unit, aim: Aim | null): (measured: number, base?: number) => void
}

async function measure(options: Options, folder: string): Promise<Setting> {
  fs.mkdirSync(folder)
  const a = await makeInstance(folder, 'a', join(folder, 'root-a'))
  const b = await makeInstance(folder, 'b', join(folder, 'root-b'))
  makeTree(options, a.root)
  const mountpoint = join(folder, 'mount')
  const rows: Row[] = []
  const row: Bench['row'] = (section, name, unit, aim) => {
    const made: Row = { section, name, unit, aim, base: [], measured: [] }
    rows.push(made)
    return (measured, base) => {
      made.measured.push(measured)
      if (base !== undefined) made.base.push(base)
      progress(
        `${section}: ${name}: ${measured.toFixed(1)}${base === undefined ? '' : ` of ${base.toFixed(1)}`} ${unit}`,
      )
    }
  }
  const atA = await launch(a)
  const atB = await launch(b)
  await atA.control.call('peer_add', { name: 'b', id: b.id, addresses: [] })
  await atB.control.call('peer_add', { name: 'a', id: a.id, addresses: [`127.0.0.1:${a.port}`] })
  await atA.control.call('arena_add', { name: ARENA, path: a.root })
  await atB.control.call('arena_add', { name: ARENA, path: b.root, mark: 'unreal' })
  for (const path of ['real', 'written', ...mixedNames(options)])
    await atB.control.call('mark', { arena: ARENA, path: path as EntryPath, mark: 'real' })
  const { passthrough } = await atB.control.call('mount', { path: mountpoint })
  const bench: Bench = { options, a, b, atA, atB, mounted: join(mountpoint, ARENA), row }
  try {
    await connected(bench)
    await settled(bench)
    progress('everything is where it shall be')
    const cases = { attributes, fetched, content, writing, delay }
    for (const [name, run] of Object.entries(cases)) {
      if (options.only === undefined || options.only.split(',').includes(name)) await run(bench)
    }
  } finally {
    await bench.atB.stop()
    await bench.atA.stop()
  }
  const name = process.geteuid?.() === 0 ? 'as root' : 'as an ordinary user'
  return { name, passthrough: passthrough === true, rows }
}

async function connected({ atA, atB }: Bench): Promise<void> {
  await until('the two services are connected', 60_000, 50, async () =>
    (await Promise.all([atA, atB].map(service => statusOf(service)))).every(
      status => status?.peers.length === 1 && status.peers[0]?.reason === null,
    ),
  )
}

async function settled({ atA, atB }: Bench): Promise<void> {
  for (const { control } of [atA, atB]) await control.call('wait', { arena: ARENA, timeoutSeconds: WAIT_SECONDS })
}

function makeTree({ megabytes, entries }: Options, root: string): void {
  for (const folder of ['real', 'written', 'unreal', 'mixed', 'real/many', 'unreal/many'])
    fs.mkdirSync(join(root, folder), { recursive: true })
  for (const film of ['real/film', 'unreal/film']) makeFilm(join(root, film), megabytes)
  for (const folder of ['real/many', 'unreal/many', 'mixed'])
    for (let n = 0; n < entries; n++) fs.writeFileSync(join(root, folder, `entry-${n}`), `${folder} ${n}`)
}

function makeFilm(path: string, megabytes: number): void {
  const block = Buffer.alloc(MB)
  const fd = fs.openSync(path, 'w')
  for (let n = 0; n < megabytes; n++) fs.writeSync(fd, randomFillSync(block))
  fs.closeSync(fd)
}

/** Every second entry is real. */
function mixedNames({ entries }: Options): string[] {
  return Array.from({ length: Math.floor(entries / 2) }, (_, n) => `mixed/entry-${n * 2}`)
}

// Cases

/** Content that is here. */
async function content({ options, b, mounted, atB, row }: Bench): Promise<void> {
  const film = join(b.root, 'real/film')
  await fetchWhole(atB, 'unreal/film')
  const cached = cacheFile(b, options)
  const files = [
    { kind: 'real', path: join(mounted, 'real/film'), below: film },
    { kind: 'cached', path: join(mounted, 'unreal/film'), below: cached },
  ]
  execFileSync('sync')
  const goal: Aim = { part: 0.8 }
  for (const { kind, path, below } of files) {
    const cases: { how: string; aim: Aim | null; dropped: string[] }[] = [
      { how: 'again', aim: goal, dropped: [] },
      { how: 'mount’s pages dropped', aim: null, dropped: [path] },
      { how: 'from the disk', aim: goal, dropped: [path, below, film] },
    ]
    const measured = (
      name: string,
      how: string,
      aim: Aim | null,
      dropped: string[],
      read: (path: string) => number,
    ) => {
      const note = row(name, how, 'MB/s', aim)
      for (let round = 0; round < options.rounds; round++) {
        for (const one of dropped) dropPages(one)
        const base = read(film)
        for (const one of dropped) dropPages(one)
        note(read(path), base)
      }
    }
    ddRead(film)
    ddRead(path)
    for (const { how, aim, dropped } of cases) {
      measured('Content that is here, in sequence', `${kind}, ${how}: dd`, aim, dropped, ddRead)
      if (fioVersion() === null) continue
      measured('Content that is here, in sequence', `${kind}, ${how}: fio`, aim, dropped, path =>
        fioRead(path, 'read', '128k'),
      )
      measured('Content that is here, 4 KiB at random', `${kind}, ${how}: fio`, null, dropped, path =>
        fioRead(path, 'randread', '4k'),
      )
    }
    ddRead(film)
  }
}

/** Content that is elsewhere. */
async function fetched({ options, b, mounted, atB, row }: Bench): Promise<void> {
  const path = join(mounted, 'unreal/film')
  const target = join(b.root, 'unreal/film')
  const programs: [string, (path: string) => number][] = [['dd', ddRead]]
  if (fioVersion() !== null) programs.push(['fio', path => fioRead(path, 'read', '128k')])
  const section = 'Content that is elsewhere, in sequence'
  const notes = programs.map(([name]) => row(section, `not cached: ${name}`, 'MB/s', { part: 0.6 }))
  const whole = row(section, 'fetched into the cache', 'MB/s', null)
  for (let round = 0; round < options.rounds; round++) {
    const startMs = performance.now()
    await atB.control.call('mark', { arena: ARENA, path: 'unreal/film' as EntryPath, mark: 'real' })
    await until('the film is real', COMMAND_MS_MAX, 5, async () => fs.existsSync(target))
    const base = speed(options, startMs)
    await atB.control.call('mark', { arena: ARENA, path: 'unreal/film' as EntryPath, mark: 'unreal' })
    await until('the film is unreal', COMMAND_MS_MAX, 200, async () => {
      await atB.control.call('evict', { arena: ARENA, path: 'unreal/film' as EntryPath })
      return !fs.existsSync(target)
    })
    for (const [index, [, read]] of programs.entries()) {
      await evict(atB, 'unreal/film')
      dropPages(path)
      notes[index]?.(read(path), base)
    }
    await evict(atB, 'unreal/film')
    const fetchMs = performance.now()
    await fetchWhole(atB, 'unreal/film')
    whole(speed(options, fetchMs), base)
  }
  await evict(atB, 'unreal/film')
}

async function attributes({ options, b, mounted, row }: Bench): Promise<void> {
  const folders = [
    ['real', 'real/many', 'real/many'],
    ['unreal', 'unreal/many', 'real/many'],
    ['mixed', 'mixed', 'real/many'],
  ] as const
  const stats = folders.map(([kind]) =>
    row('Attributes and listings', `stat, attributes expired: ${kind}`, 'µs', { most: 100 }),
  )
  const aim: Aim = { most: 150 }
  const scaled = options.entries === 10_000 ? aim : null
  const lists = folders.map(([kind]) => row('Attributes and listings', `ls: ${kind}`, 'ms', scaled))
  const longs = folders.map(([kind]) => row('Attributes and listings', `ls -l: ${kind}`, 'ms', scaled))
  const plus = folders.map(([kind]) =>
    row('Attributes and listings', `each name, then its stat, by Node: ${kind}`, 'ms', scaled),
  )
  for (let round = 0; round < options.rounds; round++) {
    for (const [, folder] of folders) fs.readdirSync(join(mounted, folder))
    await pause(EXPIRED_MS)
    for (const [index, [, folder, same]] of folders.entries()) {
      const base = statEach(join(b.root, same), options.entries)
      stats[index]?.(statEach(join(mounted, folder), options.entries), base)
    }
    for (const [index, [, folder, same]] of folders.entries()) {
      lists[index]?.(listBy('-f', join(mounted, folder)), listBy('-f', join(b.root, same)))
      longs[index]?.(listBy('-l', join(mounted, folder)), listBy('-l', join(b.root, same)))
      plus[index]?.(listAndLook(join(mounted, folder)), listAndLook(join(b.root, same)))
    }
  }
}

async function writing(bench: Bench): Promise<void> {
  const { options, b, mounted, row } = bench
  const goal: Aim = { part: 0.6 }
  const folders = { base: join(b.root, 'written'), measured: join(mounted, 'written') }
  const both = async (name: string, unit: Unit, aim: Aim | null, run: (folder: string) => number): Promise<void> => {
    const note = row('Writing', name, unit, aim)
    for (let round = 0; round < options.rounds; round++) {
      await settled(bench)
      const base = run(folders.base)
      await settled(bench)
      note(run(folders.measured), base)
    }
  }
  const blocks = Math.ceil(options.megabytes / 2)
  await both('a new file: dd', 'MB/s', goal, folder => {
    fs.rmSync(join(folder, 'new'), { force: true })
    return dd(['if=/dev/zero', `of=${join(folder, 'new')}`, 'bs=1M', `count=${blocks}`])
  })
  await both('over what is there: dd', 'MB/s', goal, folder =>
    dd(['if=/dev/zero', `of=${join(folder, 'new')}`, 'bs=1M', `count=${blocks}`, 'conv=notrunc']),
  )
  if (fioVersion() !== null) {
    await both('over what is there: fio', 'MB/s', goal, folder =>
      fioWrite(join(folder, 'new'), 'write', '128k', blocks),
    )
    await both('4 KiB at random: fio', 'MB/s', null, folder => fioWrite(join(folder, 'new'), 'randwrite', '4k', blocks))
  }
  await both('small files made and removed', 'µs', null, folder => {
    const startMs = performance.now()
    for (let n = 0; n < 500; n++) {
      fs.writeFileSync(join(folder, `file-${n}`), 'content')
      fs.unlinkSync(join(folder, `file-${n}`))
    }
    return ((performance.now() - startMs) * 1000) / 500
  })
  await settled(bench)
}

/** Last of all: the peer gets far away, and then goes. */
async function delay(bench: Bench): Promise<void> {
  const { options, a, mounted, row } = bench
  const relay = await Relay.open(await freePort(), a.port)
  try {
    await bench.atB.control.call('peer_remove', { name: 'a' })
    await bench.atB.control.call('peer_add', { name: 'a', id: a.id, addresses: [`127.0.0.1:${relay.port}`] })
    await connected(bench)
    await settled(bench)
    await evict(bench.atB, 'unreal/film')
    const path = join(mounted, 'unreal/film')
    dropPages(path)
    const section = `A peer ${ROUND_TRIP_MS} ms away`
    relay.delayMs = ROUND_TRIP_MS / 2
    const first = row(section, 'first 4 KiB of a part that is not cached', 'ms', { most: ROUND_TRIP_MS * 2 })
    for (let round = 0; round < options.rounds; round++) {
      const offset = Math.floor(((round * 2 + 1) * options.megabytes) / (options.rounds * 2)) * MB
      first(await firstByte(path, offset))
    }
    relay.delayMs = 0
    relay.refusing = true
    relay.cut()
    await until('it is alone', 60_000, 20, async () => (await statusOf(bench.atB))?.peers[0]?.reason !== null)
    const alone = row('No peer at all', 'reading what is not cached fails', 'ms', { most: 1000 })
    for (let round = 0; round < options.rounds; round++) {
      const offset = Math.floor(((round * 2 + 1) * options.megabytes) / (options.rounds * 2)) * MB + MB / 2
      const startMs = performance.now()
      const code = await firstByte(path, offset).then(
        () => 'none',
        error => (error as NodeJS.ErrnoException).code,
      )
      if (code !== 'EHOSTUNREACH') throw new Error(`reading without a peer ended with ${code}`)
      alone(performance.now() - startMs)
    }
  } finally {
    relay.heal()
    await relay.close()
  }
}

// Steps

/** Milliseconds until 4 KiB are read; without standing in the relay's way. */
async function firstByte(path: string, offset: number): Promise<number> {
  const file = await fs.promises.open(path, 'r')
  try {
    const startMs = performance.now()
    await file.read(Buffer.alloc(4096), 0, 4096, offset)
    return performance.now() - startMs
  } finally {
    await file.close()
  }
}

async function fetchWhole(service: Running, path: string): Promise<void> {
  await service.control.call('fetch', { arena: ARENA, path: path as EntryPath })
}

/** Where the only big file that is cached is. */
function cacheFile({ home }: Instance, { megabytes }: Options): string {
  const folder = join(home, 'cache', ARENA)
  for (const shelf of fs.readdirSync(folder))
    for (const name of fs.readdirSync(join(folder, shelf))) {
      const path = join(folder, shelf, name)
      if (fs.statSync(path).size === megabytes * MB) return path
    }
  throw new Error('it is not in the cache')
}

/** Nothing is cached any more; what is still open at first, goes a moment later. */
async function evict(service: Running, path: string): Promise<void> {
  await until('nothing is cached', 60_000, 100, async () => {
    await service.control.call('evict', { arena: ARENA, path: path as EntryPath })
    return ((await statusOf(service))?.cachedBytes ?? 0) === 0
  })
}

function speed({ megabytes }: Options, startMs: number): number {
  return (megabytes * MB) / 1e6 / ((performance.now() - startMs) / 1000)
}

/** What the kernel has of a file, as the program that reads it sees it. */
function dropPages(path: string): void {
  run('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none'])
}

function ddRead(path: string): number {
  return dd([`if=${path}`, 'of=/dev/null', 'bs=1M'])
}

/** MB/s as dd has it. */
function dd(args: string[]): number {
  const said = run('dd', args).stderr
  const found = /^(\d+) bytes .* copied, ([\d.e+-]+) s/mu.exec(said)
  if (found === null) throw new Error(`dd said '${said}'`)
  return Number(found[1]) / 1e6 / Number(found[2])
}

function fioRead(path: string, how: 'read' | 'randread', block: string): number {
  const size = fs.statSync(path).size
  // Of parts at random not more than a quarter, or the slow ones would take minutes.
  const limit = how === 'randread' ? [`--io_size=${Math.floor(size / 4 / 4096) * 4096}`, '--runtime=10'] : []
  return fio(path, [`--rw=${how}`, `--bs=${block}`, `--size=${size}`, '--readonly', ...limit]).read
}

function fioWrite(path: string, how: 'write' | 'randwrite', block: string, megabytes: number): number {
  const limit = how === 'randwrite' ? [`--io_size=${Math.ceil(megabytes / 4)}M`, '--runtime=10'] : []
  return fio(path, [`--rw=${how}`, `--bs=${block}`, `--size=${megabytes}M`, '--overwrite=1', ...limit]).write
}

/** MB/s. */
function fio(path: string, args: string[]): { read: number; write: number } {
  const common = [
    '--name=job',
    '--ioengine=psync',
    '--invalidate=0',
    '--randrepeat=1',
    '--fallocate=none',
    '--output-format=json',
  ]
  const { stdout } = run('fio', [...common, `--filename=${path}`, ...args])
  const [job] = (JSON.parse(stdout) as { jobs: { read: { bw_bytes: number }; write: { bw_bytes: number } }[] }).jobs
  if (job === undefined) throw new Error('fio did nothing')
  return { read: job.read.bw_bytes / 1e6, write: job.write.bw_bytes / 1e6 }
}

function fioVersion(): string | null {
  if (fioKnown === undefined) {
    const { status, stdout } = spawnSync('fio', ['--version'], { encoding: 'utf8' })
    fioKnown = status === 0 ? stdout.trim() : null
  }
  return fioKnown
}

/** Mean of all, µs. */
function statEach(folder: string, entries: number): number {
  const startMs = performance.now()
  for (let n = 0; n < entries; n++) fs.lstatSync(join(folder, `entry-${n}`))
  return ((performance.now() - startMs) * 1000) / entries
}

function listBy(flag: string, folder: string): number {
  const startMs = performance.now()
  run('ls', [flag, folder], 'ignore')
  return performance.now() - startMs
}

function listAndLook(folder: string): number {
  const startMs = performance.now()
  for (const name of fs.readdirSync(folder)) fs.lstatSync(join(folder, name))
  return performance.now() - startMs
}

function run(command: string, args: string[], stdout: 'pipe' | 'ignore' = 'pipe'): { stdout: string; stderr: string } {
  const done = spawnSync(command, args, {
    encoding: 'utf8',
    stdio: ['ignore', stdout, 'pipe'],
    timeout: COMMAND_MS_MAX,
    maxBuffer: 64 * MB,
    env: { ...process.env, LC_ALL: 'C' },
  })
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${done.error?.message ?? done.stderr}`)
  return done
}

function progress(line: string): void {
  process.stderr.write(`${line}\n`)
}
