/**
 * An arena without files, for tests of the supervisor: it opens itself to every peer, says in the log whom it has met, and
 * answers what it is asked.
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import type { ReplicaId, SessionToken } from '../../protocol/ids.ts'
import type { ArenaCommand, ArenaReport, ArenaSettings, FromPeer, ToPeer } from '../../protocol/ports.ts'
import type { ArenaStatus } from '../../protocol/status.ts'

const data = workerData as { settings: ArenaSettings; gate: Int32Array }
let { settings } = data
let paths: string[] | null = []

function report(message: ArenaReport): void {
  parentPort?.postMessage(message)
}

function tell(): void {
  const status: ArenaStatus = {
    name: settings.name,
    path: settings.root,
    state: settings.paused ? 'paused' : 'idle',
    reason: settings.paused ? 'paused' : null,
    consensus: !settings.paused,
    missing: settings.paused ? ['paused'] : [],
    root: '0'.repeat(64),
    files: 0,
    bytes: 0,
    realBytes: 0,
    cachedBytes: 0,
    fetching: null,
    needFiles: 0,
    needBytes: 0,
    conflicts: 0,
    problems: [],
    problemCount: 0,
    scan: null,
    peers: [],
  }
  report({ type: 'status', status })
}

function meet(peer: string, port: MessagePort): void {
  const open: ToPeer = {
    type: 'send',
    header: {
      type: 'arena_open',
      arena: settings.name,
      replica: '0'.repeat(16) as ReplicaId,
      session: '0'.repeat(16) as SessionToken,
      seq: 0,
      conflicts: 'keep-both',
      read: null,
      again: false,
      knows: null,
    },
  }
  port.on('message', (message: FromPeer) => {
    if (message.type === 'wire') report({ type: 'log', event: 'arena_peer_opened', fields: { peer } })
    if (message.type === 'closed') {
      report({ type: 'log', event: 'arena_peer_closed', fields: { peer } })
      port.close()
    }
  })
  port.postMessage(open)
}

parentPort?.on('message', (command: ArenaCommand) => {
  switch (command.type) {
    case 'control':
      return control(command.id, command.method)
    case 'settings':
      settings = command.settings
      return tell()
    case 'peer_opened':
      return meet(command.peer, command.port)
    case 'touched':
      paths = command.paths
      return
    case 'stop':
      report({ type: 'stopped' })
      return parentPort?.close()
    case 'view_opened':
    case 'watcher':
    case 'hashed':
    case 'patched':
    case 'lend':
    case 'lent':
      return
    default:
      command satisfies never
  }
})

function control(id: number, method: string): void {
  if (method === 'settle') {
    report({ type: 'reply', id, result: { consensus: !settings.paused, missing: [] } })
    return
  }
  if (method === 'history') {
    report({ type: 'reply', id, result: { events: [] } })
    return
  }
  // Names for what a test wants to know or to happen.
  if (method === 'ls') {
    report({ type: 'reply', id, result: { entries: [], settings, paths } })
    return
  }
  if (method === 'verify') throw new Error('the arena died of a test')
  report({ type: 'refused', id, failure: { code: 'not_found', message: `no ${method} here` } })
}

if (settings.root?.endsWith('broken')) throw new Error('the store is broken')
report({ type: 'ready' })
tell()
