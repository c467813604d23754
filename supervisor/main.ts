#!/usr/bin/env node
/** `realized`: the service in the foreground. Reads the command line, makes what a first start needs, and turns signals into calls. */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { homedir, hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { Command, Option } from 'commander'
import { boundHeaps } from '../actors/relief.ts'
import { SyncError } from '../protocol/error.ts'
import { systemClock } from './clock.ts'
import { answer } from './commands.ts'
import { defaultConfig } from './config.ts'
import { freePeerName } from './config-edit.ts'
import { writeFileAtomic } from './config-write.ts'
import { escapeText } from './escape.ts'
import { type Home, homeFlag, homeOf } from './home.ts'
import { createKey, type Identity, readKey } from './identity.ts'
import { LOG_FORMATS, LOG_LEVELS, Log, type LogFormat, type LogLevel } from './log.ts'
import { admit, makeFolder } from './pairing.ts'
import { exitNow, lockFile } from './posix.ts'
import { Supervisor } from './supervisor.ts'

/** After a signal to end, the process is gone by then, whatever still hangs. */
const STOP_MS = 8_000
/** What the arena of a first start is called. */
const FIRST_ARENA = 'realize'
const FIRST_FOLDER = 'Realize'

interface Options {
  home?: string
  logLevel: LogLevel
  logFormat?: LogFormat
}

const version = packageVersion()
const options = new Command('realized')
  .description('The service of Realize: keeps folders the same on all your machines. Runs in the foreground.')
  .version(version)
  .option('--home <dir>', 'everything of this peer under one folder (or REALIZE_HOME)')
  .addOption(new Option('--log-level <level>', 'least level that is logged').choices(LOG_LEVELS).default('info'))
  .addOption(new Option('--log-format <format>', 'pretty on a terminal, else json').choices(LOG_FORMATS))
  .exitOverride(error => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts<Options>()

const format = options.logFormat ?? (process.stderr.isTTY ? 'pretty' : 'json')
const log = new Log({
  level: options.logLevel,
  format,
  colour: process.stderr.isTTY === true && process.env.NO_COLOR === undefined,
  wallMs: systemClock.wallMs,
})

process.on('unhandledRejection', error => {
  log.write('actor_failed', { actor: 'supervisor', reason: stackOf(error) })
})

boundHeaps()
try {
  await run()
} catch (error) {
  process.stderr.write(`realized: ${reasonOf(error)}\n`)
  exitNow(1)
}

async function run(): Promise<void> {
  const home = homeOf({
    ...(options.home === undefined ? {} : { home: options.home }),
    env: process.env,
    platform: process.platform,
    homedir: homedir(),
  })
  for (const folder of [home.state, home.cache, dirname(home.config), dirname(home.key)]) {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
  }
  const lock = lockFile(home.lock)
  if (!lock) throw new SyncError('already_exists', `a service is already running on this home (${home.name})`)
  const identity = identityOf(home)
  const first = existsSync(home.config) ? undefined : createConfig(home)

  const supervisor = new Supervisor({
    home,
    identity,
    version,
    homedir: homedir(),
    clock: systemClock,
    log,
    randomBytes,
    answer,
    pairing: service => (invite, peer, name, addresses) => admit(service, invite, peer, name, addresses),
  })
  if (first !== undefined) tellFirst(home, identity, first)

  let stopping = false
  const stop = (code: number) => {
    // Asked twice, somebody is in a hurry.
    if (stopping) exitNow(code === 0 ? 1 : code)
    stopping = true
    setTimeout(() => exitNow(code), STOP_MS)
    supervisor.stop().then(
      ended => (ended ? process.exit(code) : exitNow(code)),
      error => {
        log.write('actor_failed', { actor: 'supervisor', reason: stackOf(error) })
        exitNow(code)
      },
    )
  }
  process.on('SIGTERM', () => stop(0))
  process.on('SIGINT', () => stop(0))
  process.on('SIGHUP', () => {
    supervisor.reload().catch(error => log.write('config_rejected', { reason: reasonOf(error) }))
  })
  // What reads our output may go before us.
  process.stdout.on('error', () => {})
  process.stderr.on('error', () => {})
  process.on('uncaughtException', error => {
    log.write('actor_failed', { actor: 'supervisor', reason: stackOf(error) })
    stop(1)
  })

  await supervisor.start()
  if (!stopping) process.stdout.write('ready\n')
}

/** This peer's key; a home without one, and without stores that an earlier key has made, gets a new one. */
function identityOf(home: Home): Identity {
  if (existsSync(home.key)) return readKey(home.key)
  if (existsSync(join(home.state, 'arenas'))) {
    throw new SyncError(
      'config_invalid',
      `the key ${home.key} is missing, though this peer has run before: put it back, or remove ${home.state} to begin as a new peer`,
    )
  }
  return createKey(home.key)
}

/** The configuration of a first start, with one arena. Returns its folder. */
function createConfig(home: Home): string {
  const path = join(home.given ?? homedir(), FIRST_FOLDER)
  makeFolder(path)
  const text = home.given === null ? `~/${FIRST_FOLDER}` : path
  writeFileAtomic(
    home.config,
    defaultConfig({ name: freePeerName(hostname(), []), arena: { name: FIRST_ARENA, path: text } }),
  )
  return path
}

function tellFirst(home: Home, identity: Identity, folder: string): void {
  log.write('config_created', { config: home.config, id: identity.id, arena: FIRST_ARENA, folder })
  if (format !== 'pretty') return
  const flag = homeFlag(home)
  process.stderr.write(
    `\nThis is a first start: made a key and ${home.config}. What is in ${folder} is kept the same on all your machines. ` +
      `To add a second machine: run \`realize${flag} invite\` here, start realized there, and run \`realize join CODE\` there ` +
      'with the code that is printed.\n\n',
  )
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return String((JSON.parse(text) as { version: unknown }).version)
}

/** One line. */
function reasonOf(error: unknown): string {
  return escapeText((error instanceof Error ? error.message : String(error)).split('\n')[0] ?? '')
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
