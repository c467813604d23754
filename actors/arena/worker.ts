/**
 * Thread entry of an arena: binds it to its store, its disk, its ports and the clock. Opens it when the root is there, and
 * again when a root that went has come back; until then it says why.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { SyncError, toFailure } from '../../protocol/error.ts'
import type { PeerId, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import type {
  ArenaCommand,
  ArenaReport,
  ArenaSettings,
  FromPeer,
  FromView,
  ToPeer,
  ToView,
} from '../../protocol/ports.ts'
import { type DescriptorTable, noteDescriptor } from '../descriptors.ts'
import { engine } from '../hasher/engine.ts'
import { collectGarbage, releaseStoreMap } from '../relief.ts'
import { enter, leave } from '../write-gate.ts'
import { Arena } from './arena.ts'
import { Cache } from './cache.ts'
import { openCacheFiles } from './cache-files-posix.ts'
import { type ArenaContext, type ArenaOutput, Problems, Timers } from './context.ts'
import { type Disk, DiskError } from './disk.ts'
import { openDisk } from './disk-open.ts'
import { Marks } from './marks.ts'
import { RecentContent } from './recent.ts'
import { RULES } from './rules.ts'
import type { Store } from './store.ts'
import { openStore } from './store-tables.ts'
import type { Tables } from './tables.ts'
import { openLmdbTables } from './tables-lmdb.ts'
import type { ViewDesk } from './views.ts'

/** How often a root that is not there is looked for. */
const ROOT_RETRY_MS = 1_000
/** How long nothing must have been done before memory is given back. */
const RESTED_MS = 4_000
/** While something is done, what is mapped of the store is given back this often. */
const RELEASE_MS = 500
/** Domain of digests that are no part of a Merkle tree of content. */
const DIGEST_PREFIX = 0x10

interface WorkerData {
  settings: ArenaSettings
  gate: Int32Array
}

const port = parentPort as MessagePort
const data = workerData as WorkerData
let settings = data.settings
const clock = { nowMs: () => performance.now(), wallMs: () => Date.now() }
const random = () => randomBytes(8).toString('hex')
const digest = (bytes: Uint8Array) => engine.hash256(DIGEST_PREFIX, bytes)
const recent = new RecentContent()
const boot = bootId()

let arena: Arena | null = null
let disk: Disk | null = null
let store: Store | null = null
let tables: Tables | null = null
let cache: Cache | null = null
let sweep: NodeJS.Immediate | null = null
let waiting: string | null = null
const peers = new Map<PeerId, { name: string; port: MessagePort; descriptors: DescriptorTable }>()
/** Mounted views; null while the arena is not open. */
const views = new Map<MessagePort, ViewDesk | null>()
let timer: NodeJS.Timeout | null = null
let turn: NodeJS.Immediate | null = null
let retry: NodeJS.Timeout | null = null
let rest: NodeJS.Timeout | null = null

/** Changes with each boot of the machine: only then can a disk have lost what the kernel had. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return 'unknown'
  }
}

function report(message: ArenaReport): void {
  port.postMessage(message)
}

function deliver(output: ArenaOutput): void {
  if (output.to === 'supervisor') return report(output.report)
  const { message } = output
  const peer = peers.get(output.peer)
  // A connection that is gone cannot own a descriptor.
  if (
    (message.type === 'upload' || message.type === 'download') &&
    !(peer && noteDescriptor(peer.descriptors, message.fd))
  )
    return disk?.close(message.fd)
  const payload = message.type === 'send' ? message.payload : undefined
  peer?.port.postMessage(message, payload ? [payload.buffer as ArrayBuffer] : [])
}

/** Lets the arena go on as long as it has work, and wakes it when it asked to be. */
function carryOn(): void {
  if (!arena) return
  if (arena.busy) {
    stir()
    if (clock.nowMs() - releasedMs >= RELEASE_MS) releaseStore()
    turn ??= setImmediate(() => {
      turn = null
      arena?.tick()
      carryOn()
    })
    return
  }
  if (timer) clearTimeout(timer)
  timer = null
  const waitMs = arena.wakeMs - clock.nowMs()
  if (waitMs === Number.POSITIVE_INFINITY) return
  timer = setTimeout(
    () => {
      timer = null
      arena?.tick()
      carryOn()
    },
    Math.min(Math.max(0, waitMs), 2 ** 30),
  )
}

function stir(): void {
  rest?.refresh()
  rest ??= setTimeout(rested, RESTED_MS)
}

/** A burst that touches entries here and there would make all of the store resident. */
function releaseStore(): void {
  if (!store) return
  releasedMs = clock.nowMs()
  storeFile ??= join(realpathSync(settings.storePath), 'index', 'data.mdb')
  releaseStoreMap(storeFile)
}
let releasedMs = 0
let storeFile: string | null = null

/** A burst is over: what it left in memory is given back. */
function rested(): void {
  rest = null
  recent.clear()
  collectGarbage()
  releaseStore()
  report({ type: 'rested' })
}

function open(): void {
  try {
    store ??= openArenaStore()
    cache ??= openCache(store)
    disk = openRoot()
  } catch (error) {
    if (!(error instanceof DiskError)) throw error
    return waitForRoot(rootReason(error))
  }
  waiting = null
  const context: ArenaContext = {
    settings,
    store,
    disk,
    cache,
    clock,
    random,
    deliver,
    problems: new Problems(),
    timers: new Timers(),
    recent,
    marks: new Marks(settings.mark, store.marks()),
    rules: RULES,
  }
  arena = new Arena({ context, digest, boot, rootLost })
  arena.start()
  for (const [peer, { name }] of peers) arena.peerOpened(peer, name)
  for (const view of views.keys()) beginView(view)
  carryOn()
}

function openArenaStore(): Store {
  mkdirSync(settings.storePath, { recursive: true, mode: 0o700 })
  const guard = { enter: () => enter(data.gate), leave: () => leave(data.gate) }
  tables = openLmdbTables(join(settings.storePath, 'index'), guard)
  return openStore({
    tables,
    digest,
    newReplica: () => random() as ReplicaId,
    newSession: () => random() as SessionToken,
    boot,
  })
}

/** Folders, links, and what waits to be given up, need a place also where nothing is to be real. */
function rootPath(): string {
  return settings.root ?? join(settings.storePath, 'root')
}

function openCache(of: Store): Cache {
  const files = openCacheFiles(settings.cache.path)
  const opened = new Cache({
    tables: tables as Tables,
    files,
    limits: settings.cache,
    wallMs: clock.wallMs,
    leavesOf: hash => of.leaves(hash),
  })
  const sweepOn = () => {
    opened.sweep()
    sweep = opened.sweeping ? setImmediate(sweepOn) : null
  }
  sweep = setImmediate(sweepOn)
  return opened
}

function openRoot(): Disk {
  if (settings.root === null) mkdirSync(rootPath(), { recursive: true, mode: 0o700 })
  return openDisk(rootPath())
}

function rootReason({ code, message }: DiskError): string {
  const { name } = settings
  const root = rootPath()
  if (code === 'ENOENT')
    return `the folder ${root} is missing: put it back or make it, and it goes on by itself; nothing is deleted elsewhere`
  if (code === 'ENOTDIR' || code === 'EEXIST')
    return `${root} is not a folder: move the file away, or give the arena another path`
  if (code === 'EACCES' || code === 'EPERM') return `${root} cannot be read (${code}): check its owner and rights`
  return `${root} cannot be used (${code}: ${message}): mend it; '${name}' goes on by itself`
}

function waitForRoot(reason: string): void {
  if (waiting !== reason) report({ type: 'log', event: 'arena_guarded', fields: { arena: settings.name, reason } })
  waiting = reason
  for (const view of views.keys()) tellRoot(view)
  reportWaiting()
  retry ??= setTimeout(openAgain, ROOT_RETRY_MS)
}

function openAgain(): void {
  if (retry) clearTimeout(retry)
  retry = null
  open()
}

function reportWaiting(): void {
  const totals = store?.state().totals
  report({
    type: 'status',
    status: {
      name: settings.name,
      path: settings.root,
      state: settings.paused ? 'paused' : 'guarded',
      reason: waiting,
      consensus: false,
      missing: waiting === null ? [] : [waiting],
      root: '0'.repeat(64),
      files: totals?.files ?? 0,
      bytes: totals?.bytes ?? 0,
      realBytes: totals?.realBytes ?? 0,
      cachedBytes: 0,
      fetching: null,
      needFiles: totals?.pending ?? 0,
      needBytes: totals?.pendingBytes ?? 0,
      conflicts: totals?.conflicts ?? 0,
      problems: [],
      problemCount: 0,
      scan: null,
      peers: [],
    },
  })
}

/** After the arena has come to its end of this turn: let go of the root, and wait for it. */
function rootLost(reason: string): void {
  setImmediate(() => {
    if (!arena) return
    arena.close()
    arena = null
    if (timer) clearTimeout(timer)
    if (turn) clearImmediate(turn)
    timer = null
    turn = null
    disk?.dispose()
    disk = null
    for (const [view, desk] of views) {
      desk?.close()
      views.set(view, null)
    }
    for (const { port: channel } of peers.values()) decline(channel)
    waitForRoot(reason)
  })
}

/** Tells a peer that this arena is closed for now: then it says its `arena_open` again when ours comes. */
function decline(channel: MessagePort): void {
  const header = { type: 'arena_close', arena: settings.name, code: 'busy', reason: 'its folder is not there' } as const
  channel.postMessage({ type: 'send', header } satisfies ToPeer)
}

function openPeer(peer: PeerId, name: string, channel: MessagePort, descriptors: DescriptorTable): void {
  stir()
  closePeer(peer)
  peers.set(peer, { name, port: channel, descriptors })
  let taken = 0
  channel.on('message', (message: FromPeer) => {
    fromPeer(peer, channel, message)
    if (message.type !== 'wire') return
    // One word for all that were taken in this turn.
    if (++taken > 1) return
    setImmediate(() => {
      channel.postMessage({ type: 'taken', count: taken } satisfies ToPeer)
      taken = 0
    })
  })
  channel.on('close', () => {
    if (peers.get(peer)?.port === channel) closePeer(peer)
  })
  arena?.peerOpened(peer, name)
}

function closePeer(peer: PeerId): void {
  const channel = peers.get(peer)?.port
  if (!channel) return
  peers.delete(peer)
  channel.close()
  arena?.peerClosed(peer)
  carryOn()
}

function fromPeer(peer: PeerId, channel: MessagePort, message: FromPeer): void {
  if (peers.get(peer)?.port !== channel) return
  if (message.type === 'closed') return closePeer(peer)
  if (!arena && message.type === 'wire' && message.header.type === 'arena_open') return decline(channel)
  try {
    arena?.fromPeer(peer, message)
    arena?.step()
  } catch (error) {
    // Their mistake closes their connection; ours ends the thread.
    if (!(error instanceof SyncError)) throw error
    report({
      type: 'log',
      event: 'peer_refused',
      fields: { arena: settings.name, peer, code: error.code, reason: error.message },
    })
    channel.postMessage({ type: 'refuse', failure: toFailure(error) } satisfies ToPeer)
    closePeer(peer)
  }
  carryOn()
}

/** A mounted view shows this arena, from now on and whenever the arena is open. */
function openView(view: MessagePort): void {
  views.set(view, null)
  view.on('message', (message: FromView) => {
    const desk = views.get(view)
    if (desk) {
      desk.receive(message)
      arena?.step()
      return carryOn()
    }
    const failed = { type: 'failed', code: 'EIO', message: waiting ?? 'the arena is starting' } as const
    if ('id' in message && message.type !== 'abandon') view.postMessage({ ...failed, id: message.id } satisfies ToView)
  })
  view.on('close', () => {
    views.get(view)?.close()
    views.delete(view)
    // Others may have waited for it.
    arena?.step()
    carryOn()
  })
  if (arena) beginView(view)
  else if (waiting !== null) tellRoot(view)
}

function beginView(view: MessagePort): void {
  const say = (message: ToView, transfer: ArrayBuffer[] = []) => view.postMessage(message, transfer)
  views.set(view, arena?.openView(say) ?? null)
  tellRoot(view)
}

function tellRoot(view: MessagePort): void {
  const root = arena ? rootPath() : null
  view.postMessage({ type: 'root', root, reason: root === null ? waiting : null } satisfies ToView)
}

function stop(): void {
  for (const peer of [...peers.keys()]) closePeer(peer)
  for (const [view, desk] of views) {
    desk?.close()
    view.close()
  }
  arena?.close()
  arena = null
  if (timer) clearTimeout(timer)
  if (turn) clearImmediate(turn)
  if (retry) clearTimeout(retry)
  if (rest) clearTimeout(rest)
  if (sweep) clearImmediate(sweep)
  cache?.dispose()
  const ended = () => {
    store?.close()
    disk?.dispose()
    report({ type: 'stopped' })
    port.close()
  }
  if (store) store.flushed(ended)
  else ended()
}

port.on('message', (message: ArenaCommand) => {
  switch (message.type) {
    case 'control':
      // Who asks may have put the folder back a moment ago.
      if (!arena && waiting !== null) openAgain()
      if (arena) arena.control(message)
      else
        report({
          type: 'refused',
          id: message.id,
          failure: { code: 'arena_unavailable', message: waiting ?? 'the arena is starting' },
        })
      break
    case 'settings':
      settings = message.settings
      arena?.settings(settings)
      if (!arena) reportWaiting()
      break
    case 'peer_opened':
      openPeer(message.peer, message.peerName, message.port, message.descriptors)
      break
    case 'view_opened':
      openView(message.port)
      break
    case 'touched':
      arena?.touched(message.paths)
      break
    case 'watcher':
      arena?.watcher(message.fault)
      break
    case 'hashed':
      arena?.hashed(message.id, message.results)
      break
    case 'patched':
      arena?.patched(message.id, message.result)
      break
    case 'lend':
      report({ type: 'reply', id: message.id, result: arena?.lend(message.hash) ?? null })
      break
    case 'lent':
      arena?.lent(message.id, message.file)
      break
    case 'stop':
      return stop()
    default:
      message satisfies never
  }
  arena?.step()
  carryOn()
})

// A fault of ours ends the thread, not what it has open.
process.on('exit', () => disk?.dispose())

open()
report({ type: 'ready' })
