/** Real connection threads on loopback, as the supervisor would start them, with arenas and strangers played by the test. */
import { EventEmitter, once } from 'node:events'
import { constants, readdirSync, readlinkSync } from 'node:fs'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { connect, type TLSSocket } from 'node:tls'
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import koffi from 'koffi'
import { handOver } from '../../actors/peer/hand-over.ts'
import type { Deadlines } from '../../actors/peer/peer.ts'
import { encodeFrame, FRAME_LIMITS, FrameReader } from '../../protocol/frame.ts'
import type { ArenaName } from '../../protocol/ids.ts'
import type { FromPeer, PairAttempt, PeerCommand, PeerReport, ToPeer } from '../../protocol/ports.ts'
import type { WireMessage } from '../../protocol/wire.ts'
import { certificate, generateIdentity, type Identity } from '../../supervisor/identity.ts'

/** Values as they come, each given out once to whoever waits for one like it. */
export class Inbox<T extends { type: string }> {
  readonly #items: T[] = []
  readonly #waiting = new Set<() => void>()
  readonly #ignored: ReadonlySet<string>

  constructor(...ignored: T['type'][]) {
    this.#ignored = new Set(ignored)
  }

  put(item: T): void {
    if (this.#ignored.has(item.type)) return
    this.#items.push(item)
    for (const look of [...this.#waiting]) look()
  }

  /** The first of this type that fits; the others stay. */
  take<Type extends T['type']>(
    type: Type,
    fits: (item: Extract<T, { type: Type }>) => boolean = () => true,
  ): Promise<Extract<T, { type: Type }>> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const index = this.#items.findIndex(item => item.type === type && fits(item as Extract<T, { type: Type }>))
        if (index < 0) return
        clearTimeout(deadline)
        this.#waiting.delete(look)
        resolve(this.#items.splice(index, 1)[0] as Extract<T, { type: Type }>)
      }
      const deadline = setTimeout(() => {
        this.#waiting.delete(look)
        reject(new Error(`no '${type}' came; there is: ${JSON.stringify(this.#items).slice(0, 1000)}`))
      }, 20_000)
      this.#waiting.add(look)
      look()
    })
  }

  /** How many of a type wait to be taken. */
  count(type: T['type']): number {
    return this.#items.filter(item => item.type === type).length
  }
}

export interface Arena {
  port: MessagePort
  inbox: Inbox<FromPeer>
  post(message: ToPeer): void
}

export class Thread {
  readonly identity: Identity
  readonly certificate: string
  readonly reports = new Inbox<PeerReport>('traffic')
  /** Frame bytes that came in so far, over all connections. */
  #bytesDown = 0
  readonly #traffic = new EventEmitter()
  readonly #worker: Worker
  readonly #servers: Server[] = []
  readonly #ports: MessagePort[] = []
  #accepted = 1000

  private constructor(identity: Identity, certificatePem: string, worker: Worker) {
    running.add(this)
    this.identity = identity
    this.certificate = certificatePem
    this.#worker = worker
    worker.on('message', (report: PeerReport) => {
      if (report.type === 'traffic') {
        this.#bytesDown += report.down
        this.#traffic.emit('down')
      }
      this.reports.put(report)
    })
  }

  get bytesDown(): number {
    return this.#bytesDown
  }

  static async start(name: string, deadlines: Partial<Deadlines> = {}, tickMs = 20): Promise<Thread> {
    const identity = generateIdentity()
    const pem = await certificate(identity.key)
    const worker = new Worker(new URL('../../actors/peer/worker.js', import.meta.url), {
      workerData: { deadlines, tickMs },
    })
    const thread = new Thread(identity, pem, worker)
    await thread.reports.take('ready')
    const { id, key } = identity
    const settings = { id, name, software: 'realize test', key, certificate: pem, addresses: [`${name}.test:9771`] }
    thread.send({ type: 'settings', settings })
    return thread
  }

  send(command: PeerCommand): void {
    this.#worker.postMessage(command, command.type === 'attach' ? [command.port] : [])
  }

  /** Accepts connections on loopback; the first has the number 1001. Resolves to the address. */
  async listen(household: Identity[], invites: PairAttempt[] = []): Promise<string> {
    this.send({ type: 'household', peers: household.map(one => one.id) })
    const server = createServer({ pauseOnConnect: true }, socket => {
      this.#accepted++
      this.send({
        type: 'accept',
        connection: this.#accepted,
        fd: handOver(socket),
        address: 'loopback',
        invites,
      })
    })
    this.#servers.push(server)
    await once(server.listen(0, '127.0.0.1'), 'listening')
    return `127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  dial(connection: number, peer: Identity, address: string, pair: PairAttempt | null = null): void {
    this.send({ type: 'dial', connection, peer: peer.id, address, rate: { up: 0, down: 0 }, pair })
  }

  attach(connection: number, name: string): Arena {
    const { port1, port2 } = new MessageChannel()
    this.#ports.push(port1)
    const inbox = new Inbox<FromPeer>()
    port1.on('message', (message: FromPeer) => inbox.put(message))
    this.send({ type: 'attach', connection, arena: name as ArenaName, port: port2 })
    return {
      port: port1,
      inbox,
      post: message =>
        port1.postMessage(
          message,
          message.type === 'send' && message.payload ? [message.payload.buffer as ArrayBuffer] : [],
        ),
    }
  }

  /** Resolves once so many bytes have come in. */
  async received(bytes: number): Promise<void> {
    while (this.#bytesDown < bytes) await once(this.#traffic, 'down')
  }

  async stop(): Promise<number> {
    running.delete(this)
    for (const server of this.#servers) server.close()
    const exited = once(this.#worker, 'exit')
    this.send({ type: 'stop' })
    const [code] = await exited
    for (const port of this.#ports) port.close()
    return code as number
  }
}

const running = new Set<Thread>()

/** Stops what a failed test left. */
export async function stopThreads(): Promise<void> {
  await Promise.all([...running].map(thread => thread.stop()))
}

/** Two threads with an open connection: number 1 at `a`, which dialled, number 1001 at `b`. */
export async function openPair(deadlines: Partial<Deadlines> = {}): Promise<{ a: Thread; b: Thread }> {
  const [a, b] = await Promise.all([Thread.start('a', deadlines), Thread.start('b', deadlines)])
  a.dial(1, b.identity, await b.listen([a.identity]))
  await Promise.all([a.reports.take('opened'), b.reports.take('opened')])
  return { a, b }
}

/** A peer that the test plays itself, byte by byte. */
export class Stranger {
  readonly socket: TLSSocket
  readonly inbox = new Inbox<WireMessage>()
  readonly closed: Promise<unknown>

  constructor(socket: TLSSocket) {
    this.socket = socket
    this.closed = new Promise(resolve => socket.once('close', resolve))
    const reader = new FrameReader(FRAME_LIMITS)
    socket.on('error', () => {})
    socket.on('data', chunk => {
      reader.push(chunk)
      for (let frame = reader.next(); frame; frame = reader.next()) this.inbox.put(frame.header as WireMessage)
    })
  }

  static async dial(address: string, identity: Identity, options: { alpn?: string } = {}): Promise<Stranger> {
    const [host, port] = address.split(':')
    const socket = connect({
      host,
      port: Number(port),
      key: identity.key,
      cert: await certificate(identity.key),
      rejectUnauthorized: false,
      ALPNProtocols: [options.alpn ?? 'realize/1'],
    })
    return new Stranger(socket)
  }

  say(message: object, payload?: Uint8Array): void {
    for (const part of encodeFrame(message, payload)) this.socket.write(part)
  }

  /** A header that is no object of ours. */
  sayText(json: string): void {
    const head = Buffer.alloc(8)
    head.writeUInt32BE(Buffer.byteLength(json), 0)
    this.socket.write(Buffer.concat([head, Buffer.from(json)]))
  }

  hello(versions = { min: 1, max: 1 }): void {
    this.say({ type: 'hello', versions, name: 'stranger', software: 'test', purpose: 'sync', addresses: [] })
  }
}

const openRaw: (path: string, flags: number) => number = koffi.load(null).func('int open(const char *, int)')

/** Opens an existing file past Node, which would close the descriptor with the thread that opened it, whoever has it by then. */
export function openFile(path: string, mode: 'r' | 'r+'): number {
  const fd = openRaw(path, mode === 'r' ? constants.O_RDONLY : constants.O_RDWR)
  if (fd < 0) throw new Error(`${path} cannot be opened`)
  return fd
}

/** Open descriptors of files below a folder, in all threads: others test at the same time in this process. */
export function openFilesIn(folder: string): number {
  return readdirSync('/proc/self/fd').filter(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder)
    } catch {
      return false
    }
  }).length
}
