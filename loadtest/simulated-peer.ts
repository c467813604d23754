/**
 * One simulated peer: a key of its own and a connection as every peer makes it (actors/peer/connection.ts), with a simulated arena
 * on it. It dials until it is connected, with the pauses that a real peer makes, and again if it is cut off.
 */
import { randomBytes } from 'node:crypto'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { createDescriptorTable } from '../actors/descriptors.ts'
import { Connection, type Surroundings } from '../actors/peer/connection.ts'
import { DEADLINES } from '../actors/peer/peer.ts'
import { secureContextOf } from '../actors/peer/secure.ts'
import { writerHere } from '../actors/peer/writer-thread.ts'
import type { ArenaName, EntryPath, PeerId } from '../protocol/ids.ts'
import { authorOf } from '../protocol/peer-id.ts'
import type { FromPeer, PeerReport, ToPeer } from '../protocol/ports.ts'
import { dialDelayMs } from '../supervisor/dialing.ts'
import { certificate, generateIdentity, type Identity } from '../supervisor/identity.ts'
import { SimulatedArena } from './simulated-arena.ts'

export interface PeerEvents {
  /** The connection came to be and the arena is open; `ms` after the first attempt. */
  opened(ms: number): void
  /** An attempt came to nothing; it is made again. */
  refused(): void
  arrived(bytes: number, content: Uint8Array): void
  wrong(what: string): void
}

/** Simulated arenas hand over no files: one table is enough for all. */
const descriptors = createDescriptorTable()
const readBuffer = new Uint8Array(16 * 1024)

export class SimulatedPeer {
  readonly number: number
  readonly #identity: Identity
  readonly #certificate: string
  readonly #events: PeerEvents
  #to: { service: PeerId; address: string; arena: ArenaName } | undefined
  #arena: SimulatedArena | undefined
  #connection: Connection | undefined
  #port: MessagePort | undefined
  #attempts = 0
  #sinceMs = 0
  #open = false
  #ended = false
  readonly #timers = new Set<NodeJS.Timeout>()

  private constructor(number: number, identity: Identity, certificatePem: string, events: PeerEvents) {
    this.number = number
    this.#identity = identity
    this.#certificate = certificatePem
    this.#events = events
  }

  static async make(number: number, events: PeerEvents): Promise<SimulatedPeer> {
    const identity = generateIdentity()
    return new SimulatedPeer(number, identity, await certificate(identity.key), events)
  }

  get id(): PeerId {
    return this.#identity.id
  }

  /** Connected, with the arena open in both directions. */
  get open(): boolean {
    return this.#open
  }

  get missing(): number {
    return this.#arena?.missing ?? 0
  }

  connect(to: { service: PeerId; address: string; arena: ArenaName }): void {
    this.#to = to
    this.#sinceMs = performance.now()
    this.#arena = new SimulatedArena(to.arena, authorOf(this.id), () => randomBytes(8).toString('hex'), {
      say: (header, payload) => {
        const message: ToPeer = payload ? { type: 'send', header, payload } : { type: 'send', header }
        this.#port?.postMessage(message, payload ? [payload.buffer as ArrayBuffer] : [])
      },
      opened: () => {
        this.#open = true
        this.#events.opened(performance.now() - this.#sinceMs)
      },
      arrived: (bytes, content) => this.#events.arrived(bytes, content),
      wrong: what => this.#events.wrong(what),
      later: (ms, work) => this.#later(ms, work),
    })
    this.#dial()
  }

  edit(number: number, bytes: number): void {
    this.#arena?.edit(`peer-${this.number}-${number}.txt` as EntryPath, number, bytes)
  }

  /** Once a second: time passes on the connection. */
  tick(): void {
    this.#connection?.tick()
  }

  end(): void {
    this.#ended = true
    for (const timer of this.#timers) clearTimeout(timer)
    this.#connection?.close({ code: 'peer_closed', message: 'the load test ends' })
  }

  #dial(): void {
    const to = this.#to
    if (!to || this.#ended) return
    this.#attempts++
    const { key } = this.#identity
    const around: Surroundings = {
      self: { id: this.id, name: `loadtest-${this.number}`, software: 'realize loadtest', addresses: [] },
      secureContext: secureContextOf({ key, certificate: this.#certificate }),
      deadlines: DEADLINES,
      descriptors,
      writer: writerHere,
      readBuffer,
      now: () => performance.now(),
      report: report => this.#heard(report),
      count: () => {},
      gone: () => {},
    }
    const order = { peer: to.service, address: to.address, rate: { up: 0, down: 0 }, pair: null }
    this.#connection = Connection.dial(this.number, around, order)
  }

  #heard(report: PeerReport): void {
    switch (report.type) {
      case 'opened':
        return this.#attach()
      case 'closed':
        return this.#closed(report.failure.message)
      case 'log':
        if (!this.#ended) this.#events.wrong(`${report.event}: ${report.fields.reason}`)
    }
  }

  #attach(): void {
    const { arena } = this.#to ?? {}
    if (!arena || !this.#connection) return
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    port1.on('message', (message: FromPeer) => {
      if (message.type !== 'wire') return
      port1.postMessage({ type: 'taken', count: 1 } satisfies ToPeer)
      if (this.#port === port1) this.#arena?.heard(message.header, message.payload)
    })
    this.#connection.attach(arena, port2)
    this.#arena?.open()
  }

  #closed(reason: string): void {
    this.#connection = undefined
    this.#port?.close()
    this.#port = undefined
    if (this.#ended) return
    if (this.#open) this.#events.wrong(`a connection was lost: ${reason}`)
    else this.#events.refused()
    this.#open = false
    this.#later(dialDelayMs(this.#attempts - 1, Math.random()), () => this.#dial())
  }

  #later(ms: number, work: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      if (!this.#ended) work()
    }, ms)
    this.#timers.add(timer)
  }
}
