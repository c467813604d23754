/**
 * The configuration: one closed schema with defaults, units and reasons, read once and handed down frozen.
 *
 * `parseConfig` is pure and refuses what it does not know, with the key and its line. Changing the file is config-edit.ts.
 * docs/config.md is the manual; a test compares it with the schema.
 */
import { readFileSync } from 'node:fs'
import { homedir as userFolder } from 'node:os'
import { isAbsolute, relative, resolve, sep } from 'node:path'
import { type Static, type TObject, type TSchema, Type } from '@sinclair/typebox'
import { type TypeCheck, TypeCompiler } from '@sinclair/typebox/compiler'
import { parse, TomlError } from 'smol-toml'
import { ADDRESSES_MAX, Mark, PeerName } from '../protocol/control.ts'
import { SyncError, toFailure } from '../protocol/error.ts'
import { ArenaName, type PeerId } from '../protocol/ids.ts'
import { ARENAS_MAX } from '../protocol/limits.ts'
import { parsePeerId } from '../protocol/peer-id.ts'
import type { Rate, Space } from '../protocol/ports.ts'
import { lineOf } from './config-lines.ts'
import { expandHome } from './home.ts'

/** Bytes of a file that is still taken for a configuration. */
export const CONFIG_BYTES_MAX = 4 * 1024 * 1024

// What the file may say

const closed = { additionalProperties: false }
const Text = (description: string, options: { default?: string } = {}) =>
  Type.String({ maxLength: 4096, description, ...options })

const RateText = Type.Object(
  {
    up: Type.Optional(Text('Bytes a second sent to this peer, at least "1kB". Absent: no limit.')),
    down: Type.Optional(Text('Bytes a second taken from this peer, at least "1kB". Absent: no limit.')),
  },
  { ...closed, default: {}, description: 'Limits of the connection with this peer.' },
)

const PeerTable = Type.Object(
  {
    name: Type.Unsafe<string>({ ...PeerName, description: 'What this peer is called by the others.' }),
    listen: Type.Array(Type.String({ maxLength: 300 }), {
      maxItems: 16,
      default: ['0.0.0.0:9771'],
      description: 'Where to take connections, HOST:PORT each; [] dials only. Port 0 takes any free one.',
    }),
  },
  closed,
)

const PeersTable = Type.Object(
  {
    name: Type.Unsafe<string>({ ...PeerName, description: 'What the peer is called here; unique.' }),
    id: Text('Its ID, as `realize id` prints it there. Case, spaces and dashes do not matter.'),
    addresses: Type.Array(Type.String({ maxLength: 300 }), {
      maxItems: ADDRESSES_MAX,
      default: [],
      description: 'Where it can be dialled, HOST or HOST:PORT; [] waits for it to dial.',
    }),
    rate: RateText,
    paused: Type.Boolean({ default: false, description: 'Whether to stay disconnected from it.' }),
  },
  closed,
)

const ArenasTable = Type.Object(
  {
    name: Type.Unsafe<ArenaName>({
      ...ArenaName,
      description: 'The same on all its peers: letters, digits, ".", "_", "-", at most 64.',
    }),
    path: Type.Optional(Text('Its folder here, absolute or below "~/". Absent: nothing real here.')),
    peers: Type.Optional(
      Type.Array(Type.String({ maxLength: 64 }), {
        maxItems: 1000,
        description: 'Names of the peers that share it. Absent: the whole household; []: nobody.',
      }),
    ),
    mark: Type.Optional(
      Type.Unsafe<Mark>({
        ...Mark,
        description:
          'What is held here if a path says nothing else: "real" (ordinary files), "pinned" (on demand, but all of it cached) or "unreal" (on demand). Absent: "real" with a path, else "unreal".',
      }),
    ),
    ignore: Type.Array(Type.String({ maxLength: 1000 }), {
      maxItems: 10_000,
      default: [],
      description: 'What is not synced, in gitignore syntax; besides .realizeignore files in the tree.',
    }),
    conflicts: Type.Union([Type.Literal('keep-both'), Type.Literal('newest'), Type.Literal('local')], {
      default: 'keep-both',
      description: 'What becomes of two versions made at the same time. The same on all its peers, but for "local".',
    }),
    versions: Type.Object(
      {
        keep: Text('How long what was replaced or deleted here is kept, "0d" to "100y".', { default: '30d' }),
        max: Text('How many bytes of it are kept at most; the oldest goes first.', { default: '5GB' }),
      },
      { ...closed, default: {}, description: 'Former content, in the folder .realize of the arena.' },
    ),
    cache: Type.Object(
      {
        max: Text('Most that content fetched on demand may take: bytes, or a part of the disk.', { default: '10%' }),
        leave: Text('Space that is left free on the disk: bytes, or a part of it.', { default: '5GB' }),
      },
      { ...closed, default: {}, description: 'Content of unreal files.' },
    ),
    guard: Type.Object(
      {
        deletes: Text(
          'When more than this part of the entries is gone from the folder at once (20 or more of them, or 5 or more and nothing is left), the arena stops and asks. `"100%"`: never. Deletions that come from a peer were asked about there, and are kept in the version store here.',
          {
            default: '50%',
          },
        ),
      },
      { ...closed, default: {}, description: 'What stops the arena before harm is done.' },
    ),
    rescan: Text('How often the whole folder is looked at, besides watching it: "1s" to "24d".', { default: '1h' }),
    paused: Type.Boolean({ default: false, description: 'Whether the arena rests: nothing scanned, sent or taken.' }),
  },
  closed,
)

export const ConfigFile = Type.Object(
  {
    peer: PeerTable,
    peers: Type.Array(PeersTable, { maxItems: 10_000, default: [] }),
    arenas: Type.Array(ArenasTable, { maxItems: ARENAS_MAX, default: [] }),
  },
  closed,
)

// What the service works with

export interface ListenAddress {
  host: string
  /** 0: any free one. */
  port: number
}

export interface PeerConfig {
  name: string
  id: PeerId
  /** host:port each. */
  addresses: string[]
  /** Bytes a second; 0: no limit. */
  rate: Rate
  paused: boolean
}

export interface ArenaConfig {
  name: ArenaName
  /** Absolute, or null: nothing real here. */
  path: string | null
  /** Names of peers; null: the whole household. */
  peers: string[] | null
  mark: Mark
  ignore: string[]
  conflicts: 'keep-both' | 'newest' | 'local'
  versions: { keepMs: number; bytesMax: number }
  cache: { max: Space; leave: Space }
  /** A part, 0 to 1. */
  guard: { deletes: number }
  rescanMs: number
  paused: boolean
}

/** Frozen, all the way down. */
export interface Config {
  peer: { name: string; listen: ListenAddress[] }
  peers: PeerConfig[]
  arenas: ArenaConfig[]
}

export interface ConfigContext {
  /** What `~` stands for. */
  homedir: string
  /** Folders of our own (state, cache): an arena may not hold them, nor lie in them. */
  own?: readonly string[]
}

/** Reads and checks the file. Throws `config_invalid` with file and line, or that it cannot be read. */
export function readConfig(path: string, own: readonly string[] = []): Config {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw new SyncError('config_invalid', `${path} cannot be read: ${toFailure(error).message}`, { cause: error })
  }
  return parseConfig(decodeConfig(bytes, path), path, { homedir: userFolder(), own })
}

/** Text of a configuration file. Throws `config_invalid` if it is too large or not UTF-8. */
export function decodeConfig(bytes: Uint8Array, fileName: string): string {
  if (bytes.length > CONFIG_BYTES_MAX)
    throw new SyncError('config_invalid', `${fileName} is larger than ${CONFIG_BYTES_MAX} bytes`)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (error) {
    throw new SyncError('config_invalid', `${fileName} is not valid UTF-8`, { cause: error })
  }
}

/**
 * Fills defaults, refuses unknown keys and contradictions, freezes. Throws `config_invalid`, with a message of the form
 * `config.toml:12: …`, for the first fault.
 *
 * @param fileName for messages
 */
export function parseConfig(text: string, fileName: string, context: ConfigContext): Config {
  const refuse: Refuse = (path, fault) => {
    const line = lineOf(text, path)
    throw new SyncError('config_invalid', `${fileName}${line === undefined ? '' : `:${line}`}: ${fault}`)
  }
  const input = parseToml(text, fileName)
  refuseUnknown(ConfigFile, input, [], refuse)
  const file = withDefaults(ConfigFile, input)
  if (!configCheck.Check(file)) return refuseInvalid(configCheck, file, refuse)
  const config = {
    peer: {
      name: file.peer.name,
      listen: file.peer.listen.map((text, i) => listen(text, ['peer', 'listen', i], refuse)),
    },
    peers: file.peers.map((peer, i) => peerOf(peer, ['peers', i], refuse)),
    arenas: file.arenas.map((arena, i) => arenaOf(arena, ['arenas', i], context, refuse)),
  }
  refuseContradictions(config, context.own ?? [], refuse)
  return freeze(config)
}

/** A document as smol-toml reads it. Throws `config_invalid` with the line of the fault. */
export function parseToml(text: string, fileName: string): Record<string, unknown> {
  try {
    return parse(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const reason = error.message.split('\n')[0]?.replace(/^Invalid TOML document: /, '')
    throw new SyncError('config_invalid', `${fileName}:${error.line}: not valid TOML: ${reason}`, { cause: error })
  }
}

/** For a first start: what a new peer's file says. An arena to begin with, or null. */
export function defaultConfig(options: {
  name: string
  listen?: readonly string[]
  arena?: { name: string; path: string } | null
}): string {
  const listen = options.listen ?? ['0.0.0.0:9771']
  const lines = [
    '# Realize, the configuration of this peer. docs/config.md says what else can stand here.',
    '# `realize peer …` and `realize arena …` edit this file and keep your comments.',
    '',
    '[peer]',
    `name = ${quote(options.name)}`,
    `listen = [${listen.map(quote).join(', ')}]  # [] dials only`,
    '',
    '# The peers of the household: `realize invite` here and `realize join CODE` there adds one to both.',
    '#',
    '# [[peers]]',
    '# name = "server"',
    '# id = "…"                        # `realize id` there',
    '# addresses = ["server.lan:9771"]',
    '',
    '# The folders that are shared: `realize arena add NAME PATH` adds one.',
    '#',
    '# [[arenas]]',
    '# name = "documents"',
    '# path = "~/Documents"',
    '# ignore = ["*.tmp"]',
    '# versions = { keep = "30d", max = "5GB" }',
  ]
  if (options.arena) {
    lines.push('', '[[arenas]]', `name = ${quote(options.arena.name)}`, `path = ${quote(options.arena.path)}`)
  }
  return `${lines.join('\n')}\n`
}

/** A TOML basic string. */
export function quote(text: string): string {
  return JSON.stringify(text).replaceAll('\u007f', '\\u007f')
}

// Units

const SIZE_UNITS: Record<string, number> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
}
const DURATION_UNITS: Record<string, number> = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 7 * 86_400_000,
  y: 365 * 86_400_000,
}
const BYTES_MAX = 2 ** 53 - 1

/** "10MB" is 10,000,000, "10MiB" 10,485,760. Throws a RangeError that says what is wrong. */
export function parseSize(text: string, minimum = 0): number {
  const match = /^(\d{1,15}(?:\.\d{1,6})?) *([a-z]{1,3})$/i.exec(text.trim())
  const unit = SIZE_UNITS[match?.[2]?.toLowerCase() ?? '']
  if (!match || unit === undefined) throw new RangeError(`'${text}' is not a size such as "10MB" or "1.5GiB"`)
  const bytes = Math.round(Number(match[1]) * unit)
  if (bytes > BYTES_MAX) throw new RangeError(`'${text}' is too large`)
  if (bytes < minimum) throw new RangeError(`'${text}' is too small: at least ${minimum} bytes`)
  return bytes
}

/** "30d" in milliseconds. Throws a RangeError that says what is wrong. */
export function parseDuration(text: string, limits: { minimum: string; maximum: string }): number {
  const read = (duration: string): number | undefined => {
    const match = /^(\d{1,12}(?:\.\d{1,6})?) *([smhdwy])$/.exec(duration.trim())
    const unit = DURATION_UNITS[match?.[2] ?? '']
    return match && unit !== undefined ? Math.round(Number(match[1]) * unit) : undefined
  }
  const ms = read(text)
  if (ms === undefined) throw new RangeError(`'${text}' is not a duration such as "30s", "1h" or "30d"`)
  if (ms < (read(limits.minimum) ?? 0) || ms > (read(limits.maximum) ?? 0))
    throw new RangeError(`'${text}' is not within ${limits.minimum} and ${limits.maximum}`)
  return ms
}

/** "50%" is 0.5. Throws a RangeError that says what is wrong. */
export function parsePart(text: string): number {
  const match = /^(\d{1,3}(?:\.\d{1,6})?) *%$/.exec(text.trim())
  const part = match ? Number(match[1]) / 100 : Number.NaN
  if (!(part >= 0 && part <= 1)) throw new RangeError(`'${text}' is not a part such as "50%"`)
  return part
}

function parseSpace(text: string): Space {
  return text.trim().endsWith('%') ? { part: parsePart(text) } : { bytes: parseSize(text) }
}

/** What a peer listens on if nothing is said; an address without a port means it too. */
export const DEFAULT_PORT = 9771

/** HOST, HOST:PORT, [IPV6], [IPV6]:PORT. Throws a RangeError that says what is wrong. */
export function parseAddress(text: string, portMin = 1): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.%\w]+)\]|([^\s:[\]/]+))(?::(\d{1,5}))?$/.exec(text.trim())
  const host = match?.[1] ?? match?.[2]
  if (!match || host === undefined || host.length > 253)
    throw new RangeError(`'${text}' is not an address such as "server.lan:${DEFAULT_PORT}" or "[::1]:${DEFAULT_PORT}"`)
  const port = match[3] === undefined ? DEFAULT_PORT : Number(match[3])
  if (port < portMin || port > 65_535) throw new RangeError(`'${text}' has no valid port: ${portMin} to 65535`)
  return { host, port }
}

/** host:port, with the brackets that an IPv6 address needs. */
export function formatAddress({ host, port }: ListenAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

// Faults

/** Keys and indexes from the document's root. */
export type TomlPath = readonly (string | number)[]
type Refuse = (path: TomlPath, fault: string) => never

const configCheck = TypeCompiler.Compile(ConfigFile)

function refuseUnknown(schema: TSchema, value: unknown, path: TomlPath, refuse: Refuse): void {
  if (schema.type === 'array' && Array.isArray(value)) {
    for (const [i, item] of value.entries()) refuseUnknown(schema.items as TSchema, item, [...path, i], refuse)
  }
  if (schema.type !== 'object' || !isTable(value)) return
  const { properties } = schema as TObject
  for (const [key, item] of Object.entries(value)) {
    const inner = [...path, key]
    const known = Object.hasOwn(properties, key) ? properties[key] : undefined
    if (!known) {
      const near = nearest(key, Object.keys(properties))
      refuse(inner, `unknown key '${key}' in ${placeOf(path, value)}${near ? `; did you mean '${near}'?` : ''}`)
    } else refuseUnknown(known, item, inner, refuse)
  }
}

function refuseInvalid(check: TypeCheck<TSchema>, value: unknown, refuse: Refuse): never {
  const fault = check.Errors(value).First()
  const pointer = fault?.path.split('/').slice(1) ?? []
  const path = pointer.map(key => (/^\d+$/.test(key) ? Number(key) : key.replaceAll('~1', '/').replaceAll('~0', '~')))
  const key = path.findLast(part => typeof part === 'string')
  const place = placeOf(path.slice(0, path.lastIndexOf(key ?? '')), undefined)
  if (fault?.value === undefined) return refuse(path, `'${key}' is missing in ${place}`)
  return refuse(path, `'${key}' in ${place}: ${expectation(fault.schema, fault.message)}`)
}

/** What a schema asks for, in words. */
function expectation(schema: TSchema, message: string): string {
  const choices = (schema.anyOf as TSchema[] | undefined)?.map(choice => JSON.stringify(choice.const))
  if (choices) return `expected one of ${choices.join(', ')}`
  if (schema.pattern === ArenaName.pattern)
    return 'expected letters, digits, ".", "_" and "-", at most 64, not beginning with a sign'
  if (schema.pattern !== undefined) return 'expected 1 to 64 characters without control characters'
  if (schema.type === 'object') return 'expected a table, such as { keep = "30d" }'
  return message.charAt(0).toLowerCase() + message.slice(1)
}

/** A table by its name in the file: `[[arenas]] 'documents'`, `[[arenas]] versions`, `the file`. */
function placeOf(path: TomlPath, table: Record<string, unknown> | undefined): string {
  if (path.length === 0) return 'the file'
  const inner = path.filter(part => typeof part === 'string').slice(1)
  const head = typeof path[1] === 'number' ? `[[${path[0]}]]` : `[${path[0]}]`
  const name = path.length === 2 && typeof table?.name === 'string' ? ` '${table.name}'` : ''
  return [head + name, ...inner].join(' ')
}

/** The word that was probably meant: at most two letters (or a third of the word) away. */
function nearest(word: string, known: readonly string[]): string | undefined {
  const limit = Math.max(1, Math.min(2, Math.floor(word.length / 3)))
  return known
    .map(candidate => ({ candidate, distance: distance(word.toLowerCase(), candidate) }))
    .filter(({ distance }) => distance <= limit)
    .sort((a, b) => a.distance - b.distance)[0]?.candidate
}

/** Letters to insert, delete, replace to come from one word to the other. */
function distance(from: string, to: string): number {
  if (Math.abs(from.length - to.length) > 2) return Number.POSITIVE_INFINITY
  let row = Array.from({ length: to.length + 1 }, (_, i) => i)
  for (let i = 1; i <= from.length; i++) {
    const next = [i]
    for (let j = 1; j <= to.length; j++) {
      const replaced = (row[j - 1] as number) + (from[i - 1] === to[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[to.length] as number
}

// From what the file says to what the service works with

type PeersTable = Static<typeof PeersTable>
type ArenasTable = Static<typeof ArenasTable>

function listen(text: string, path: TomlPath, refuse: Refuse): ListenAddress {
  return attempt(() => parseAddress(text, 0), path, refuse)
}

function peerOf(peer: PeersTable, path: TomlPath, refuse: Refuse): PeerConfig {
  const rate = (way: 'up' | 'down') => {
    const text = peer.rate[way]
    return text === undefined ? 0 : attempt(() => parseSize(text, 1000), [...path, 'rate', way], refuse)
  }
  return {
    name: peer.name,
    id: attempt(() => parsePeerId(peer.id), [...path, 'id'], refuse),
    addresses: peer.addresses.map((text, i) =>
      attempt(() => formatAddress(parseAddress(text)), [...path, 'addresses', i], refuse),
    ),
    rate: { up: rate('up'), down: rate('down') },
    paused: peer.paused,
  }
}

function markOf({ name, path: folder, mark }: ArenasTable, path: TomlPath, refuse: Refuse): Mark {
  if (folder === undefined && mark === 'real')
    refuse([...path, 'mark'], `'mark' in [[arenas]] '${name}': without a path nothing is real`)
  return mark ?? (folder === undefined ? 'unreal' : 'real')
}

function arenaOf(arena: ArenasTable, path: TomlPath, context: ConfigContext, refuse: Refuse): ArenaConfig {
  return {
    name: arena.name,
    path:
      arena.path === undefined
        ? null
        : attempt(() => localPath(arena.path as string, context.homedir), [...path, 'path'], refuse),
    peers: arena.peers ?? null,
    mark: markOf(arena, path, refuse),
    ignore: arena.ignore,
    conflicts: arena.conflicts,
    versions: {
      keepMs: attempt(
        () => parseDuration(arena.versions.keep, { minimum: '0d', maximum: '100y' }),
        [...path, 'versions', 'keep'],
        refuse,
      ),
      bytesMax: attempt(() => parseSize(arena.versions.max), [...path, 'versions', 'max'], refuse),
    },
    cache: {
      max: attempt(() => parseSpace(arena.cache.max), [...path, 'cache', 'max'], refuse),
      leave: attempt(() => parseSpace(arena.cache.leave), [...path, 'cache', 'leave'], refuse),
    },
    guard: { deletes: attempt(() => parsePart(arena.guard.deletes), [...path, 'guard', 'deletes'], refuse) },
    // A timer of more than 2^31 ms (24.8 days) would ring at once.
    rescanMs: attempt(
      () => parseDuration(arena.rescan, { minimum: '1s', maximum: '24d' }),
      [...path, 'rescan'],
      refuse,
    ),
    paused: arena.paused,
  }
}

function localPath(text: string, homedir: string): string {
  const path = expandHome(text, homedir)
  if (path === '' || path.includes('\0') || !isAbsolute(path))
    throw new RangeError(`'${text}' is not an absolute path and does not begin with "~/"`)
  return resolve(path)
}

/** Runs a reading of one value; its fault is told with the value's place. */
function attempt<T>(read: () => T, path: TomlPath, refuse: Refuse): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof RangeError) && !(error instanceof SyncError)) throw error
    const key = path.findLast(part => typeof part === 'string')
    return refuse(path, `'${key}': ${error.message}`)
  }
}

function refuseContradictions(config: Config, own: readonly string[], refuse: Refuse): void {
  const names = new Map<string, number>()
  const ids = new Map<PeerId, string>()
  for (const [i, peer] of config.peers.entries()) {
    if (names.has(peer.name)) refuse(['peers', i, 'name'], `two peers are called '${peer.name}'`)
    names.set(peer.name, i)
    const twin = ids.get(peer.id)
    if (twin !== undefined) refuse(['peers', i, 'id'], `the peers '${twin}' and '${peer.name}' have the same id`)
    ids.set(peer.id, peer.name)
  }
  const arenas = new Map<string, string>()
  const roots: { path: string; name: string }[] = []
  for (const [i, arena] of config.arenas.entries()) {
    // Their stores are folders, perhaps on a disk that ignores case.
    const twin = arenas.get(arena.name.toLowerCase())
    if (twin === arena.name) refuse(['arenas', i, 'name'], `two arenas are called '${arena.name}'`)
    if (twin !== undefined)
      refuse(['arenas', i, 'name'], `the arenas '${twin}' and '${arena.name}' differ only in upper and lower case`)
    arenas.set(arena.name.toLowerCase(), arena.name)
    for (const [j, name] of (arena.peers ?? []).entries()) {
      if (names.has(name)) continue
      const near = nearest(name, [...names.keys()])
      refuse(
        ['arenas', i, 'peers', j],
        `arena '${arena.name}' names the peer '${name}', and no [[peers]] is called so${near ? `; did you mean '${near}'?` : ''}`,
      )
    }
    if (arena.path === null) continue
    for (const folder of own) {
      if (contains(arena.path, folder) || contains(folder, arena.path))
        refuse(['arenas', i, 'path'], `arena '${arena.name}' and Realize's own folder ${folder} are one in the other`)
    }
    for (const other of roots) {
      if (contains(other.path, arena.path) || contains(arena.path, other.path))
        refuse(
          ['arenas', i, 'path'],
          `the folders of the arenas '${other.name}' and '${arena.name}' are one in the other`,
        )
    }
    roots.push({ path: arena.path, name: arena.name })
  }
}

/** Whether `inner` is `outer` or below it. */
function contains(outer: string, inner: string): boolean {
  const way = relative(outer, inner)
  return way === '' || (way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way))
}

// Values

type Filled = Static<typeof ConfigFile>

/** A copy of the input with what it leaves out; what does not fit its schema stays as it is, for the check to find. */
function withDefaults(schema: TSchema, value: unknown): Filled {
  return fill(schema, value) as Filled
}

function fill(schema: TSchema, value: unknown): unknown {
  const given = value === undefined ? structuredClone(schema.default) : value
  if (schema.type === 'array' && Array.isArray(given)) return given.map(item => fill(schema.items as TSchema, item))
  if (schema.type !== 'object' || !isTable(given)) return given
  const filled: Record<string, unknown> = {}
  for (const [key, inner] of Object.entries((schema as TObject).properties)) {
    const item = fill(inner, given[key])
    if (item !== undefined) filled[key] = item
  }
  return filled
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const inner of Object.values(value)) freeze(inner)
    Object.freeze(value)
  }
  return value
}
