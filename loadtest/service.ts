/**
 * The service that is put under load: one of its own in a temporary home, or the one that runs on an existing home, to which the
 * simulated peers and an arena are added for the time of the test and taken off again. All through its configuration and its
 * control socket.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type ControlClient, connectControl } from '../cli/client.ts'
import { SyncError } from '../protocol/error.ts'
import type { ArenaName, PeerId } from '../protocol/ids.ts'
import type { ArenaStatus } from '../protocol/status.ts'
import { defaultConfig, formatAddress, quote, readConfig } from '../supervisor/config.ts'
import { writeFileAtomic } from '../supervisor/config-write.ts'
import { type Home, homeOf } from '../supervisor/home.ts'

const START_MS_MAX = 60_000
const STOP_MS_MAX = 15_000
/** Peers that can be named for one arena (protocol/control.ts, `arena_add`). */
const NAMED_MAX = 1_000
const MARKS = { begin: '# realize loadtest: begin', end: '# realize loadtest: end' }
const PROGRAM = fileURLToPath(new URL('../supervisor/main.js', import.meta.url))

export interface ServiceUnderLoad {
  readonly id: PeerId
  readonly arena: ArenaName
  /** Folder of the arena, empty at first. */
  readonly root: string
  /** Where it can be dialled. */
  readonly address: string
  readonly control: ControlClient
  /** Resident memory of the process, and the processor time that it has used so far. */
  cost(): Promise<{ residentBytes: number; cpuSeconds: number }>
  status(): Promise<ArenaStatus | undefined>
  /** Takes everything away that was made for the test. Safe to call again. */
  end(): Promise<void>
}

/** @param names what the peers are called, with their IDs. Throws SyncErrors that say what to do. */
export async function ownService(peers: ReadonlyMap<string, PeerId>): Promise<ServiceUnderLoad> {
  // Short: sockets below it have a limit of about 100 bytes.
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'realize-load-')))
  const home = homeAt(join(folder, 'home'))
  const root = join(folder, 'root')
  const port = await freePort()
  const arena = 'loadtest' as ArenaName
  mkdirSync(root)
  mkdirSync(home.given ?? folder, { recursive: true, mode: 0o700 })
  const config = defaultConfig({ name: 'service', listen: [`127.0.0.1:${port}`], arena: { name: arena, path: root } })
  writeFileAtomic(home.config, config + peerBlock(peers), 0o600)
  let child: ChildProcess | undefined
  const drop = () => {
    process.off('exit', drop)
    child?.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  process.on('exit', drop)
  try {
    child = launch(home, folder)
    await ready(child)
    const control = await connectControl(home.socket)
    let ended: Promise<void> | undefined
    const end = async () => {
      control.close()
      await stopped(child)
      drop()
    }
    return {
      ...(await reached(control, arena)),
      root,
      address: `127.0.0.1:${port}`,
      end: () => {
        ended ??= end()
        return ended
      },
    }
  } catch (error) {
    drop()
    throw error
  }
}

/** Throws SyncErrors: `no_service` if none runs there. */
export async function existingService(home: Home, peers: ReadonlyMap<string, PeerId>): Promise<ServiceUnderLoad> {
  if (peers.size > NAMED_MAX)
    throw new SyncError('usage', `an existing service takes at most ${NAMED_MAX} simulated peers: leave out --home`)
  const [listen] = readConfig(home.config).peer.listen
  if (!listen || listen.port === 0)
    throw new SyncError('usage', `${home.config} says no port to listen on: the simulated peers have to dial it`)
  const control = await connectControl(home.socket)
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'realize-load-')))
  const arena = `loadtest-${randomBytes(4).toString('hex')}` as ArenaName
  const root = join(folder, 'root')
  mkdirSync(root)
  const drop = () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  const end = async () => {
    await control.call('arena_remove', { name: arena }).catch(() => {})
    writeFileAtomic(home.config, withoutBlock(readFileSync(home.config, 'utf8')))
    await control.call('config_reload', {})
    control.close()
    drop()
  }
  let ended: Promise<void> | undefined
  try {
    writeFileAtomic(home.config, withoutBlock(readFileSync(home.config, 'utf8')) + peerBlock(peers))
    await control.call('config_reload', {})
    await control.call('arena_add', { name: arena, path: root, peers: [...peers.keys()] })
    const anywhere = listen.host === '0.0.0.0' || listen.host === '::'
    return {
      ...(await reached(control, arena)),
      root,
      address: formatAddress({ host: anywhere ? '127.0.0.1' : listen.host, port: listen.port }),
      end: () => {
        ended ??= end()
        return ended
      },
    }
  } catch (error) {
    await end().catch(drop)
    throw error
  }
}

async function reached(control: ControlClient, arena: ArenaName) {
  const { id } = await control.call('id', {})
  return {
    id,
    arena,
    control,
    async cost() {
      const { text } = await control.call('metrics', {})
      return { residentBytes: metricIn(text, 'resident_bytes'), cpuSeconds: metricIn(text, 'cpu_seconds') }
    },
    status: async () => (await control.call('status', {})).arenas.find(one => one.name === arena),
  }
}

function metricIn(text: string, name: string): number {
  return Number(new RegExp(`^realize_${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN)
}

function peerBlock(peers: ReadonlyMap<string, PeerId>): string {
  const tables = [...peers].map(([name, id]) => `[[peers]]\nname = ${quote(name)}\nid = ${quote(id)}\n`)
  return `\n${MARKS.begin}\n${tables.join('\n')}${MARKS.end}\n`
}

/** Also takes off what a test has left that could not end well. */
function withoutBlock(text: string): string {
  const from = text.indexOf(`\n${MARKS.begin}\n`)
  const to = text.indexOf(`${MARKS.end}\n`, from)
  return from < 0 || to < 0 ? text : text.slice(0, from) + text.slice(to + MARKS.end.length + 1)
}

function homeAt(folder: string): Home {
  return homeOf({ home: folder, env: {}, platform: process.platform, homedir: homedir() })
}

function launch(home: Home, folder: string): ChildProcess {
  return spawn(process.execPath, [PROGRAM, '--home', home.name, '--log-level', 'warn', '--log-format', 'json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // The terminal's Ctrl-C is for the one who started it.
    detached: true,
    cwd: folder,
  })
}

/** Resolves when it says so. Throws `internal` with its last words. */
async function ready(child: ChildProcess): Promise<void> {
  let said = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-2_000)
  })
  await new Promise<void>((resolve, reject) => {
    const fail = (what: string) => {
      clearTimeout(timer)
      reject(new SyncError('internal', `the service under load ${what}: ${said}`))
    }
    const timer = setTimeout(() => fail('was not ready in time'), START_MS_MAX)
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (!text.includes('ready\n')) return
      clearTimeout(timer)
      resolve()
    })
    child.once('error', error => fail(error.message))
    child.once('exit', () => fail('ended'))
  })
}

async function stopped(child: ChildProcess | undefined): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return
  const exit = new Promise<void>(resolve => child.once('exit', () => resolve()))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX)
  await exit
  clearTimeout(timer)
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  await new Promise<void>(resolve => server.close(() => resolve()))
  if (address === null || typeof address === 'string') throw new SyncError('internal', 'no port is free')
  return address.port
}
