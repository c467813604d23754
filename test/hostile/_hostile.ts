/**
 * A peer that breaks every rule: a valid key, real TLS, and frames made by hand. It checks nothing that it says and understands
 * just enough of what it hears to carry an arena on.
 */
import { randomBytes } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { connect, type TLSSocket } from 'node:tls'
import { hashSmall } from '../../actors/hasher/merkle.ts'
import { FrameReader } from '../../protocol/frame.ts'
import type { BlobHash, PeerId } from '../../protocol/ids.ts'
import { certificate, generateIdentity, type Identity } from '../../supervisor/identity.ts'
import { within } from '../_deadline.ts'

/** What was heard: a header, whatever it is, and its payload. */
export interface Heard {
  type: string
  arena?: string
  id?: number
  payload: Uint8Array
  [field: string]: unknown
}

/** Whatever the test wants to say. */
export type Header = Record<string, unknown>

const WAIT_MS = 30_000
const LIMITS = { headerBytesMax: 2 ** 24, payloadBytesMax: 2 ** 24, frameBytesMax: 2 ** 25 }

export interface HostileOptions {
  identity?: Identity
  /** Source address on loopback. */
  from?: string
  /** Sends hello by itself. */
  greet?: boolean
  /** Its name, as hello says it. */
  name?: string
  purpose?: 'sync' | 'pair'
}

/** Those that are connected: a test that fails leaves none behind. */
const connected = new Set<Hostile>()

export function leaveAll(): void {
  for (const hostile of connected) hostile.socket.destroy()
}

export class Hostile {
  readonly identity: Identity
  readonly socket: TLSSocket
  /** Everything heard, oldest first. */
  readonly heard: Heard[] = []
  /** What the other end gave as its reason; null: it said nothing. */
  readonly ended: Promise<{ code: string; reason: string } | null>
  /** 16 hex digits: this store's replica and session. */
  readonly replica = randomBytes(8).toString('hex')
  readonly session = randomBytes(8).toString('hex')
  /** Content given to whoever asks, by hash. */
  readonly content = new Map<string, Uint8Array>()
  /** Called for each request; true: it has been dealt with here. */
  onRequest: (request: Heard) => boolean = () => false
  readonly #changes = new EventEmitter().setMaxListeners(0)
  readonly #taken = new Set<Heard>()
  /** Last number of each arena's feed. */
  readonly #seq = new Map<string, number>()

  private constructor(identity: Identity, socket: TLSSocket) {
    this.identity = identity
    this.socket = socket
    const reader = new FrameReader(LIMITS)
    let close: { code: string; reason: string } | null = null
    connected.add(this)
    socket.on('error', () => {})
    socket.on('data', chunk => {
      reader.push(chunk)
      for (let frame = reader.next(); frame; frame = reader.next()) {
        const message = { ...(frame.header as object), payload: frame.payload ?? new Uint8Array(0) } as Heard
        if (message.type === 'close') close = message as unknown as { code: string; reason: string }
        if (!(message.type.startsWith('fetch_') && (this.onRequest(message) || this.#serve(message))))
          this.heard.push(message)
        this.#changes.emit('heard')
      }
    })
    this.ended = new Promise(resolve => {
      socket.once('close', () => {
        connected.delete(this)
        resolve(close)
        this.#changes.emit('heard')
      })
    })
  }

  /** Connects to a service that knows its key, says hello and waits for the answer. */
  static async connect(port: number, options: HostileOptions = {}): Promise<Hostile> {
    const identity = options.identity ?? generateIdentity()
    const socket = connect({
      host: '127.0.0.1',
      port,
      ...(options.from !== undefined && { localAddress: options.from }),
      key: identity.key,
      cert: await certificate(identity.key),
      rejectUnauthorized: false,
      ALPNProtocols: ['realize/1'],
    })
    const hostile = new Hostile(identity, socket)
    if (options.greet === false) return hostile
    hostile.hello(options.name, options.purpose)
    await hostile.hears('hello')
    return hostile
  }

  hello(name = 'mallory', purpose: 'sync' | 'pair' = 'sync'): void {
    this.say({ type: 'hello', versions: { min: 1, max: 1 }, name, software: 'hostile', purpose, addresses: [] })
  }

  /** Any header and payload, whatever their size. */
  say(header: Header, payload?: Uint8Array): boolean {
    return this.sayText(JSON.stringify(header), payload)
  }

  sayText(json: string, payload: Uint8Array = new Uint8Array(0)): boolean {
    const head = Buffer.alloc(8 + Buffer.byteLength(json))
    head.writeUInt32BE(head.length - 8, 0)
    head.writeUInt32BE(payload.length, 4)
    head.write(json, 8)
    const room = this.socket.write(head)
    return payload.length > 0 ? this.socket.write(payload) : room
  }

  /** Resolves when the socket takes more, or is gone. */
  async drained(): Promise<void> {
    if (!this.socket.writableNeedDrain || this.socket.destroyed) return
    await Promise.race([once(this.socket, 'drain').catch(() => {}), this.ended])
  }

  /** The next message of this type that nobody has taken yet. */
  async hears(type: string, fits: (message: Heard) => boolean = () => true): Promise<Heard> {
    const look = () => this.heard.find(one => one.type === type && !this.#taken.has(one) && fits(one))
    const wait = async (): Promise<Heard> => {
      for (;;) {
        const found = look()
        if (found) {
          this.#taken.add(found)
          return found
        }
        if (this.socket.destroyed) throw new Error(`closed before '${type}': ${JSON.stringify(await this.ended)}`)
        await once(this.#changes, 'heard')
      }
    }
    const seen = () => `'${type}' is heard; there is: ${JSON.stringify(this.heard.slice(-20)).slice(0, 1500)}`
    return within(WAIT_MS, seen, wait())
  }

  /** The reason with which the other end closes; null if it just ends. */
  async refused(ms = WAIT_MS): Promise<string | null> {
    const close = await within(ms, 'the connection is closed', this.ended)
    return close?.code ?? null
  }

  /** Opens an arena as any peer would, from the start of both feeds. Resolves to the replica of the other end. */
  async open(arena = 'docs'): Promise<string> {
    const theirs = await this.hears('arena_open', one => one.arena === arena)
    this.sayOpen(arena, { knows: theirs.session })
    return theirs.replica as string
  }

  sayOpen(arena: string, more: Header = {}): void {
    this.say({
      type: 'arena_open',
      arena,
      replica: this.replica,
      session: this.session,
      seq: 0,
      conflicts: 'keep-both',
      read: null,
      again: false,
      knows: null,
      ...more,
    })
  }

  /** One batch of the feed. */
  feed(reader: string, entries: Header[], more: Header = {}): boolean {
    const arena = (more.arena as string | undefined) ?? 'docs'
    const from = this.#seq.get(arena) ?? 0
    this.#seq.set(arena, from + entries.length)
    const to = from + entries.length
    return this.say({ type: 'feed', arena, source: this.replica, reader, from, to, entries, ...more })
  }

  /** Waits until a batch of the feed has been taken, durably. */
  async acknowledged(seq: number): Promise<void> {
    await this.hears('feed_ack', one => (one.received as number) >= seq)
  }

  get fed(): number {
    return this.#seq.get('docs') ?? 0
  }

  /** A new file's entry; its content is given to whoever asks. */
  file(path: string, content: string | Uint8Array, more: Header = {}): Header {
    const bytes = typeof content === 'string' ? Buffer.from(content) : content
    const hash = hashSmall(bytes)
    this.content.set(hash, bytes)
    return this.entry(path, {
      type: 'file',
      size: bytes.length,
      mtime: '1700000000000000000',
      exec: false,
      hash,
      ...more,
    })
  }

  /** An entry of any kind, with a version that only this store made. */
  entry(path: string, more: Header): Header {
    this.#changesMade++
    return { path, vector: [[this.replica, this.#changesMade]], g: 1, author: this.author, has: true, ...more }
  }
  #changesMade = 0

  get author(): string {
    return this.identity.id.slice(0, 7)
  }

  /** Leaves without a word. */
  async leave(): Promise<void> {
    this.socket.destroy()
    await this.ended
  }

  /** Answers honestly where it has the content. */
  #serve(request: Heard): boolean {
    const { arena, id } = request
    if (request.type === 'fetch_blobs') {
      const found = (request.hashes as BlobHash[]).map(hash => this.content.get(hash))
      this.say(
        { type: 'pack', arena, id, sizes: found.map(bytes => bytes?.length ?? -1) },
        Buffer.concat(found.filter(bytes => bytes !== undefined)),
      )
      return true
    }
    return false
  }
}

export type { PeerId }
