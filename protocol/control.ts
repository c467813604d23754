/**
 * What can be asked of the service on its control socket: JSON-RPC 2.0, one object a line (docs/control.md).
 *
 * `controlMethods` is the whole of it: for each method its parameters as a schema, with limits, its result as a type, and
 * who answers. The socket is ours (mode 0600), so results are not checked again by those who read them.
 */
import { type Static, type TObject, type TProperties, type TUnsafe, Type } from '@sinclair/typebox'
import { type TypeCheck, TypeCompiler } from '@sinclair/typebox/compiler'
import type { ErrorCode } from './error.ts'
import { SyncError } from './error.ts'
import { ArenaName, type PeerId } from './ids.ts'
import { ARENAS_MAX, FILE_BYTES_MAX, PATH_BYTES_MAX } from './limits.ts'
import type { EVENTS, LogEvent, LogFields } from './log.ts'
import { firstFault } from './message.ts'
import type {
  ArenaStatus,
  FetchOutcome,
  HistoryEvent,
  ListedConflict,
  ListedEntry,
  ListedVersion,
  Problem,
} from './status.ts'

/** One request, as a line of JSON with its newline. The service closes a connection that sends more. */
export const CONTROL_REQUEST_BYTES_MAX = 1024 * 1024
/** One answer or notification. A client gives up on a service that sends more. */
export const CONTROL_ANSWER_BYTES_MAX = 256 * 1024 * 1024
/** Content in one answer to `read`. */
export const CONTROL_READ_BYTES_MAX = 1024 * 1024
/** Events in one answer to `history`. */
export const HISTORY_LIMIT_MAX = 1000
/** How many past events a subscription starts with, at most. */
export const SUBSCRIBED_PAST_MAX = 100
/** Places where one peer can be dialled. */
export const ADDRESSES_MAX = 16

// JSON-RPC 2.0

export type RpcId = number | string | null

export interface RpcRequest {
  jsonrpc: '2.0'
  id: RpcId
  method: string
  params?: Record<string, unknown>
}

export interface RpcError {
  code: number
  message: string
  /** Always there when `code` is RPC_FAILED. */
  data?: ControlErrorData
}

export type RpcResponse =
  | { jsonrpc: '2.0'; id: RpcId; result: unknown }
  | { jsonrpc: '2.0'; id: RpcId; error: RpcError }

/** After `subscribe`, on the same connection, without an id. */
export type RpcNotification =
  | { jsonrpc: '2.0'; method: 'status'; params: StatusResult }
  | { jsonrpc: '2.0'; method: 'history'; params: { events: HistoryEvent[] } }
  | { jsonrpc: '2.0'; method: 'event'; params: { events: ServiceEvent[] } }

export interface ControlErrorData {
  code: ErrorCode
  /** With `timed_out` from `wait`: what keeps from consensus, one line a cause. */
  missing?: string[]
}

export const RPC_PARSE_ERROR = -32700
export const RPC_INVALID_REQUEST = -32600
export const RPC_UNKNOWN_METHOD = -32601
export const RPC_INVALID_PARAMS = -32602
/** The method was understood and failed; `data.code` says how. */
export const RPC_FAILED = -32000

// Results

export interface PeerStatus {
  name: string
  id: PeerId
  state: 'connected' | 'connecting' | 'disconnected' | 'paused'
  /** host:port of the connection, or of the last attempt; null if there was none. */
  address: string | null
  /** When the state began, milliseconds since 1970; null if unknown. */
  since: number | null
  /** Why the last connection ended or did not come to be; null while connected. */
  error: string | null
  /** Bytes a second. */
  rates: { up: number; down: number }
}

export interface ActorStatus {
  name: string
  /** Number of the worker thread; 0 is the main thread, null without one. */
  thread: number | null
  restarts: number
  /** Messages waiting. */
  mailbox: number
  lastError: string | null
}

export interface MountStatus {
  /** The folder that it is mounted on, absolute. */
  path: string
  state: 'mounting' | 'mounted' | 'failed'
  /** Why it could not be made or kept; it is tried again. null while it is there. */
  error: string | null
  /** Whether other users see it, too. */
  allowOther: boolean
  /** Whether the kernel reads and writes real files by itself; null unless it is mounted. */
  passthrough: boolean | null
}

export interface StatusResult {
  /** `uptime` in seconds. */
  peer: { name: string; id: PeerId; version: string; uptime: number }
  peers: PeerStatus[]
  arenas: ArenaStatus[]
  mounts: MountStatus[]
  actors: ActorStatus[]
}

export interface ListedArena {
  name: ArenaName
  path: string | null
  /** Names of the peers it is shared with; null: the whole household. */
  peers: string[] | null
  mark: Mark
  state: ArenaStatus['state']
  reason: string | null
}

export interface VerifyResult {
  files: number
  bytes: number
  bad: Problem[]
  root: string
  /** `equal`: their root is ours. */
  peers: { id: PeerId; root: string; equal: boolean }[]
}

export interface EvictResult {
  /** Files whose content was given up, and their bytes. */
  files: number
  bytes: number
  /** Of what was only cached, and is not any more. */
  cachedBytes: number
  /** Files that stay real, the first hundred of them with their reasons. */
  kept: number
  reasons: Problem[]
}

/** One line of the log, as data. */
export interface ServiceEvent {
  /** Milliseconds since 1970. */
  atMs: number
  level: (typeof EVENTS)[LogEvent]
  event: LogEvent
  fields: LogFields
}

/** What a support bundle is made of. No file content, no keys. */
export interface DiagResult {
  /** config.toml with addresses and anything secret taken out. */
  config: string
  status: StatusResult
  /** As `metrics` gives it. */
  metrics: string
  /** Recent lines, oldest first. */
  logs: string[]
  /** Of Realize, Node, the platform and the libraries. */
  versions: Record<string, string>
}

// Parameters

export const Mark = Type.Union([Type.Literal('real'), Type.Literal('pinned'), Type.Literal('unreal')])
export type Mark = Static<typeof Mark>

/** What a peer is called here: 1 to 64 characters, none of them control, line or direction marks. */
export const PeerName = Type.String({
  // Of code units above ffff only whole pairs: half of one cannot be written to a file.
  pattern:
    '^(?:[^\\u0000-\\u001f\\u007f-\\u009f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff\\ud800-\\udfff]|' +
    '[\\ud800-\\udbff][\\udc00-\\udfff])+$',
  maxLength: 64,
})
/** host:port, [IPv6]:port. */
export const Address = Type.String({ minLength: 3, maxLength: 300, pattern: '^[^\\s]+:[0-9]{1,5}$' })
export const Addresses = Type.Array(Address, { maxItems: ADDRESSES_MAX })
/** A peer's ID as a person types it: `parsePeerId` makes it exact. */
const PeerIdText = Type.String({ minLength: 1, maxLength: 200 })
const LocalPath = Type.String({ minLength: 1, maxLength: 4096 })
/** In an arena; checked by `checkPath` before it is used. */
const Path = Type.String({ minLength: 1, maxLength: PATH_BYTES_MAX })
const VersionName = Type.String({ minLength: 1, maxLength: 200 })
const Offset = Type.Integer({ minimum: 0, maximum: FILE_BYTES_MAX })

type Answerer = 'supervisor' | 'arena'

/** A method of the supervisor. */
function method<Result>() {
  return <Params extends TProperties>(params: Params) => declare<Result, Params, 'supervisor'>('supervisor', params)
}

/** A method of one arena: `arena` names it on the socket, and is taken off before the arena's thread gets the rest. */
function arenaMethod<Result>() {
  return <Params extends TProperties>(params: Params) =>
    declare<Result, Params & { arena: typeof ArenaName }, 'arena'>('arena', { arena: ArenaName, ...params })
}

function declare<Result, Params extends TProperties, By extends Answerer>(forwardedTo: By, params: Params) {
  return {
    forwardedTo,
    params: Type.Object(params, { additionalProperties: false }),
    result: Type.Unsafe<Result>({}),
  }
}

type Nothing = Record<string, never>

export const controlMethods = {
  // Answered by the supervisor
  id: method<{ id: PeerId; name: string }>()({}),
  status: method<StatusResult>()({}),
  arena_add: method<{ name: ArenaName; path: string | null }>()({
    name: ArenaName,
    /** Absolute. null: nothing real here. */
    path: Type.Union([LocalPath, Type.Null()]),
    /** Names of peers; absent: the whole household. */
    peers: Type.Optional(Type.Array(PeerName, { maxItems: 1000 })),
    mark: Type.Optional(Mark),
  }),
  arena_list: method<{ arenas: ListedArena[] }>()({}),
  /** Stops sharing; the folder and its files stay. */
  arena_remove: method<Nothing>()({ name: ArenaName }),
  arena_pause: method<Nothing>()({ name: ArenaName }),
  /** Also goes on after a guard has stopped the arena. */
  arena_resume: method<Nothing>()({ name: ArenaName }),
  /**
   * What is wanted of a path and all below it, here: `real`, `pinned` or `unreal`. Absent path: of the arena, if a path says nothing
   * else. `clear`: a path gets the mark of the folder above it; an arena what it has if nothing is said.
   */
  mark: method<Nothing>()({
    arena: ArenaName,
    path: Type.Optional(Path),
    mark: Type.Union([...Mark.anyOf, Type.Literal('clear')]),
  }),
  peer_add: method<{ name: string; id: PeerId }>()({ name: PeerName, id: PeerIdText, addresses: Addresses }),
  peer_list: method<{ peers: PeerStatus[] }>()({}),
  peer_remove: method<Nothing>()({ name: PeerName }),
  /** Ends `peer_disconnect` and dials now. */
  peer_connect: method<Nothing>()({ name: PeerName }),
  /** Closes the connection and takes no new one until `peer_connect`. */
  peer_disconnect: method<Nothing>()({ name: PeerName }),
  /** Shows all arenas as folders of one folder, which is made if it is missing and must be empty. Until `umount`, also after a restart. */
  mount: method<MountStatus>()({
    /** Absolute. */
    path: LocalPath,
    allowOther: Type.Optional(Type.Boolean()),
  }),
  umount: method<Nothing>()({ path: LocalPath }),
  invite: method<{ code: string; expiresAtMs: number }>()({
    /** Absent: all arenas. */
    arenas: Type.Optional(Type.Array(ArenaName, { maxItems: ARENAS_MAX })),
    expiresSeconds: Type.Optional(Type.Integer({ minimum: 10, maximum: 7 * 86_400 })),
  }),
  join: method<{ peer: { name: string; id: PeerId }; arenas: { name: ArenaName; path: string }[] }>()({
    code: Type.String({ minLength: 1, maxLength: 2000 }),
    /** Absolute: the folder of the arena, if one is shared, or the folder that gets one folder for each. Absent: ~/NAME. */
    path: Type.Optional(LocalPath),
  }),
  /** Reads the configuration again and follows it, as after SIGHUP. */
  config_reload: method<Nothing>()({}),
  diag: method<DiagResult>()({}),
  /** In the text format of Prometheus. */
  metrics: method<{ text: string }>()({}),
  /** For tests: the thread of this actor dies as if it had crashed. */
  debug_kill_thread: method<Nothing>()({ name: Type.String({ minLength: 1, maxLength: 200 }) }),
  /**
   * Notifications of that name follow (`event` for events): first what there is, then each change. Status comes whole each
   * time; events oldest first, at most SUBSCRIBED_PAST_MAX past ones.
   */
  subscribe: method<Nothing>()({
    what: Type.Union([Type.Literal('status'), Type.Literal('history'), Type.Literal('events')]),
    arena: Type.Optional(ArenaName),
  }),
  /** Looks at all disks, then waits for consensus with all connected peers. Absent time: as long as it takes. */
  wait: method<{ consensus: true }>()({
    arena: Type.Optional(ArenaName),
    timeoutSeconds: Type.Optional(Type.Number({ minimum: 0, maximum: 30 * 86_400 })),
  }),

  // Forwarded to the arena
  rescan: arenaMethod<Nothing>()({}),
  settle: arenaMethod<{ consensus: boolean; missing: string[] }>()({
    timeoutMs: Type.Integer({ minimum: 0, maximum: 30 * 86_400_000 }),
  }),
  accept_guard: arenaMethod<Nothing>()({}),
  /** What is in a folder (absent: the root), or the file itself. */
  ls: arenaMethod<{ entries: ListedEntry[] }>()({
    path: Type.Optional(Path),
    /** Also asks the connected peers who has the content; of 1,024 files at most. */
    holders: Type.Optional(Type.Boolean()),
  }),
  /**
   * Gives up what is real below a path (absent: everywhere) and marked `unreal`, as far as another peer is known to hold it; at most 10,000 files. What
   * is cached of it goes as well.
   * Answered when it is known what became of each.
   */
  evict: arenaMethod<EvictResult>()({ path: Type.Optional(Path) }),
  conflicts: arenaMethod<{ conflicts: ListedConflict[] }>()({}),
  resolve: arenaMethod<Nothing>()({
    path: Path,
    keep: Type.Union([Type.Literal('winner'), Type.Literal('loser'), Type.Literal('both')]),
  }),
  versions: arenaMethod<{ versions: ListedVersion[] }>()({ path: Path }),
  /** Puts a kept version back in the tree. */
  restore: arenaMethod<Nothing>()({ path: Path, version: VersionName }),
  /**
   * A part of a file's content, or of one of its kept versions, in base64. `size` is that of the whole. What is not here is fetched;
   * `ahead`: so many bytes after it will be read next (absent: it is guessed).
   */
  read: arenaMethod<{ data: string; eof: boolean; size: number }>()({
    path: Path,
    version: Type.Optional(VersionName),
    offset: Offset,
    length: Type.Integer({ minimum: 0, maximum: CONTROL_READ_BYTES_MAX }),
    ahead: Type.Optional(Offset),
  }),
  /** Caches wholly what is not real here: a file, or all below a folder (absent: the root). */
  fetch: arenaMethod<FetchOutcome>()({ path: Type.Optional(Path) }),
  /** Newest first; `before` is the number of an event. */
  history: arenaMethod<{ events: HistoryEvent[] }>()({
    path: Type.Optional(Path),
    limit: Type.Integer({ minimum: 1, maximum: HISTORY_LIMIT_MAX }),
    before: Type.Optional(Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })),
  }),
  /** Reads and hashes again what is real here, and compares roots with the connected peers. */
  verify: arenaMethod<VerifyResult>()({}),
} as const satisfies Record<string, { forwardedTo: Answerer; params: TObject; result: TUnsafe<unknown> }>

export type ControlMethodName = keyof typeof controlMethods
export type ControlParams<Name extends ControlMethodName> = Static<(typeof controlMethods)[Name]['params']>
export type ControlResult<Name extends ControlMethodName> = Static<(typeof controlMethods)[Name]['result']>

export type ArenaMethodName = {
  [Name in ControlMethodName]: (typeof controlMethods)[Name]['forwardedTo'] extends 'arena' ? Name : never
}[ControlMethodName]
/** What the arena's thread gets: the parameters without `arena`. */
export type ArenaParams<Name extends ArenaMethodName> = Omit<ControlParams<Name>, 'arena'>

const checks = new Map<ControlMethodName, TypeCheck<TObject>>()

export function isControlMethod(name: string): name is ControlMethodName {
  return Object.hasOwn(controlMethods, name)
}

/** Checks the parameters of a request (absent: none). Throws `message_invalid` with the first fault. */
export function parseParams<Name extends ControlMethodName>(name: Name, params: unknown): ControlParams<Name> {
  let check = checks.get(name)
  if (!check) {
    check = TypeCompiler.Compile<TObject>(controlMethods[name].params)
    checks.set(name, check)
  }
  const value = params ?? {}
  if (!check.Check(value)) throw new SyncError('message_invalid', `${name}: ${firstFault(check, value)}`)
  return value as ControlParams<Name>
}
