/**
 * Where everything of this peer is. Both programs use this one function, so that they agree. Pure: it looks at what it is
 * given and creates nothing.
 */
import { createHash } from 'node:crypto'
import { posix, win32 } from 'node:path'
import { SyncError } from '../protocol/error.ts'

/** Absolute paths. */
export interface Home {
  /** How to name this home to a person: the folder given, or the folder of the configuration. */
  name: string
  /** The folder given by `--home` or REALIZE_HOME; null: the platform's own places. */
  given: string | null
  /** The file config.toml. */
  config: string
  /** The private key, PEM, mode 0600. */
  key: string
  /** Folder of the stores. */
  state: string
  /** Folder of what can be fetched again. */
  cache: string
  /** Control socket, mode 0600; on Windows a named pipe. */
  socket: string
  /** Held by the service while it runs. */
  lock: string
}

export interface HomeOptions {
  /** From `--home`; goes before REALIZE_HOME. */
  home?: string | undefined
  env: Readonly<Record<string, string | undefined>>
  platform: NodeJS.Platform
  /** Of the user, absolute. */
  homedir: string
  /** What a relative folder is relative to. */
  cwd?: string
}

/** The kernel's limit is 108 bytes on Linux and 104 on macOS, the closing NUL included. */
export const SOCKET_PATH_BYTES_MAX = 103

/** Throws `config_invalid` if the socket's path would be longer than the kernel takes. */
export function homeOf(options: HomeOptions): Home {
  const { join, resolve } = options.platform === 'win32' ? win32 : posix
  const given = options.home || options.env.REALIZE_HOME || null
  if (given !== null) {
    const folder = resolve(options.cwd ?? process.cwd(), expandHome(given, options.homedir))
    const state = join(folder, 'state')
    return checked(options.platform, {
      name: folder,
      given: folder,
      config: join(folder, 'config.toml'),
      key: join(folder, 'key.pem'),
      state,
      cache: join(folder, 'cache'),
      socket: options.platform === 'win32' ? pipeOf(folder) : join(folder, 'control.sock'),
      lock: join(state, 'lock'),
    })
  }
  const { config, state, cache, socket } = customary(options)
  return checked(options.platform, {
    name: config,
    given: null,
    config: join(config, 'config.toml'),
    key: join(config, 'key.pem'),
    state,
    cache,
    socket,
    lock: join(state, 'lock'),
  })
}

/** What a user types to reach this home again: ` --home DIR`, or nothing. */
export function homeFlag(home: Home): string {
  if (home.given === null) return ''
  return /^[\w./:\\@%+,=-]+$/.test(home.given)
    ? ` --home ${home.given}`
    : ` --home '${home.given.replaceAll("'", "'\\''")}'`
}

/** `~` and what begins with `~/`, below the user's folder; everything else as it is. */
export function expandHome(path: string, homedir: string): string {
  if (path === '~') return homedir
  if (path.startsWith('~/') || path.startsWith('~\\')) return `${homedir.replace(/[/\\]+$/, '')}/${path.slice(2)}`
  return path
}

/** The folders where this platform keeps such things. */
function customary({ env, platform, homedir }: HomeOptions) {
  if (platform === 'win32') {
    const local = absoluteOr(env.LOCALAPPDATA, win32.join(homedir, 'AppData', 'Local'), win32.isAbsolute)
    const roaming = absoluteOr(env.APPDATA, win32.join(homedir, 'AppData', 'Roaming'), win32.isAbsolute)
    const config = win32.join(roaming, 'realize')
    return {
      config,
      state: win32.join(local, 'realize', 'state'),
      cache: win32.join(local, 'realize', 'cache'),
      socket: pipeOf(config),
    }
  }
  if (platform === 'darwin') {
    const support = posix.join(homedir, 'Library', 'Application Support', 'realize')
    return {
      config: support,
      state: posix.join(support, 'state'),
      cache: posix.join(homedir, 'Library', 'Caches', 'realize'),
      socket: posix.join(support, 'control.sock'),
    }
  }
  // The XDG specification: a variable that is not an absolute path is ignored.
  const place = (variable: string, ...usual: string[]) =>
    posix.join(absoluteOr(env[variable], posix.join(homedir, ...usual), posix.isAbsolute), 'realize')
  const state = place('XDG_STATE_HOME', '.local', 'state')
  const runtime = env.XDG_RUNTIME_DIR
  return {
    config: place('XDG_CONFIG_HOME', '.config'),
    state,
    cache: place('XDG_CACHE_HOME', '.cache'),
    socket:
      runtime && posix.isAbsolute(runtime)
        ? posix.join(runtime, 'realize', 'control.sock')
        : posix.join(state, 'control.sock'),
  }
}

function absoluteOr(value: string | undefined, usual: string, absolute: (path: string) => boolean): string {
  return value && absolute(value) ? value : usual
}

/** Pipes have one flat name space for all users and homes; Windows ignores the case of a path. */
function pipeOf(folder: string): string {
  return `\\\\.\\pipe\\realize-${createHash('sha256').update(folder.toLowerCase()).digest('hex').slice(0, 24)}`
}

function checked(platform: NodeJS.Platform, home: Home): Home {
  const bytes = Buffer.byteLength(home.socket)
  if (platform === 'win32' || bytes <= SOCKET_PATH_BYTES_MAX) return home
  // A shorter place elsewhere would have to be guessed by both programs and kept safe from other users.
  throw new SyncError(
    'config_invalid',
    `the control socket ${home.socket} has a path of ${bytes} bytes, and the system allows ${SOCKET_PATH_BYTES_MAX}: ` +
      'choose a folder with a shorter path (--home DIR)',
  )
}
