/**
 * Thread entry of connections: several share one thread. Binds the supervisor's port (PeerCommand, PeerReport) to them.
 * `workerData` may shorten the deadlines, for tests.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { toFailure } from '../../protocol/error.ts'
import type { PeerId } from '../../protocol/ids.ts'
import type { PeerCommand, PeerReport, PeerSettings } from '../../protocol/ports.ts'
import { createDescriptorTable, type DescriptorTable } from '../descriptors.ts'
import { collectGarbage } from '../relief.ts'
import { createGate } from '../write-gate.ts'
import { Connection, farewell, type Surroundings } from './connection.ts'
import { dropBuffers } from './message-buffers.ts'
import { DEADLINES, type Deadlines } from './peer.ts'
import { secureContextOf } from './secure.ts'
import { WriterThread } from './writer-thread.ts'

interface PeerWorkerData {
  gate?: Int32Array
  descriptors?: DescriptorTable
  deadlines?: Partial<Deadlines>
  tickMs?: number
}

/** Nothing was begun or ended for so many ticks: what handshakes have left in memory is given back. */
const RESTED_TICKS = 5

if (!parentPort) throw new Error('worker.ts is the entry of a worker thread')
const supervisor = parentPort
const data = (workerData ?? {}) as PeerWorkerData
const deadlines: Deadlines = { ...DEADLINES, ...data.deadlines }
const descriptors = data.descriptors ?? createDescriptorTable()
/** A TLS record is never longer than 16 KiB. */
const readBuffer = new Uint8Array(16 * 1024)
const writer = new WriterThread(data.gate ?? createGate(), () => {
  dropBuffers()
  rest()
})
const connections = new Map<number, Connection>()
const counters = new Map<string, number>()
let surroundings: Surroundings | undefined
/** Who may come in: one set for all connections, for with a copy each a large household would take its square of memory. */
let household: ReadonlySet<PeerId> = new Set()
let stopping = false
/** Ticks since a connection began or ended. */
let quietTicks = RESTED_TICKS

function report(message: PeerReport): void {
  supervisor.postMessage(message)
}

function take(settings: PeerSettings): void {
  const { id, name, software, addresses } = settings
  surroundings = {
    self: { id, name, software, addresses },
    secureContext: secureContextOf(settings),
    deadlines,
    descriptors,
    writer,
    readBuffer,
    now: () => performance.now(),
    report,
    count: counter => counters.set(counter, (counters.get(counter) ?? 0) + 1),
    gone(connection) {
      quietTicks = 0
      connections.delete(connection)
      leaveIfDone()
    },
  }
}

/** Makes a connection, or reports at once that it came to nothing. */
function begin(number: number, make: (around: Surroundings) => Connection): void {
  quietTicks = 0
  try {
    if (!surroundings) throw new Error('settings come before connections')
    connections.set(number, make(surroundings))
  } catch (error) {
    report({ type: 'closed', connection: number, failure: toFailure(error) })
  }
}

function obey(command: PeerCommand): void {
  switch (command.type) {
    case 'settings':
      take(command.settings)
      return
    case 'dial':
      begin(command.connection, around => Connection.dial(command.connection, around, command))
      return
    case 'household':
      household = new Set(command.peers)
      return
    case 'accept':
      begin(command.connection, around => Connection.accept(command.connection, around, { ...command, household }))
      return
    case 'pair_accept':
      connections.get(command.connection)?.acceptPair(command.arenas)
      return
    case 'attach': {
      const connection = connections.get(command.connection)
      if (connection) {
        connection.attach(command.arena, command.port)
        return
      }
      farewell(command.port, { code: 'peer_closed', message: 'the connection is gone' }, descriptors)
      return
    }
    case 'rate':
      connections.get(command.connection)?.setRate(command.rate)
      return
    case 'close':
      connections.get(command.connection)?.close(command.failure)
      return
    case 'stop':
      stopping = true
      for (const connection of connections.values())
        connection.close({ code: 'peer_closed', message: 'the service stops' })
      leaveIfDone()
      return
    default:
      command satisfies never
  }
}

/** A burst is over: what it left in memory is given back. */
function rest(): void {
  collectGarbage()
  report({ type: 'rested' })
}

function reportCounters(): void {
  if (counters.size === 0) return
  report({ type: 'count', counters: Object.fromEntries(counters) })
  counters.clear()
}

/** With the supervisor's port closed nothing keeps the thread. */
function leaveIfDone(): void {
  if (!stopping || connections.size > 0) return
  reportCounters()
  clearInterval(ticking)
  supervisor.close()
}

const ticking = setInterval(() => {
  for (const connection of connections.values()) connection.tick()
  reportCounters()
  if (++quietTicks === RESTED_TICKS) rest()
}, data.tickMs ?? 1000)

supervisor.on('message', obey)
report({ type: 'ready' })
