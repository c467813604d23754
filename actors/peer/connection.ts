/**
 * The shell of one connection: TLS socket, arena ports and transfers around the state machine of peer.ts.
 *
 * Nothing that a peer does throws out of here: its mistakes close its connection, with the reason said and logged, and so does a
 * fault of ours, for this connection only.
 */
import type { X509Certificate } from 'node:crypto'
import { Socket } from 'node:net'
import { connect, type SecureContext, TLSSocket } from 'node:tls'
import type { MessagePort } from 'node:worker_threads'
import { ERRORS, type ErrorCode, type Failure, SyncError, toFailure } from '../../protocol/error.ts'
import { encodeFrame, FRAME_LIMITS, FrameReader, GREETING_LIMITS } from '../../protocol/frame.ts'
import type { ArenaName, PeerId } from '../../protocol/ids.ts'
import { LEAF_BYTES, LEAVES_PER_MESSAGE } from '../../protocol/limits.ts'
import type { FromPeer, PairAttempt, PeerReport, Rate, SharedArena, ToPeer } from '../../protocol/ports.ts'
import { type WireMessage, wire } from '../../protocol/wire.ts'
import { closeDescriptor, type DescriptorTable, forgetDescriptor } from '../descriptors.ts'
import { Bucket } from './bucket.ts'
import { deflateFrame, inflateFrame, LinkSpeed, saysMoves } from './deflate.ts'
import { giveBuffer, isMessageBuffer, MESSAGE_BYTES, takeBuffer } from './message-buffers.ts'
import { Outbox } from './outbox.ts'
import * as machine from './peer.ts'
import { Download, Upload } from './transfer.ts'
import { idIn, PAIR_EXPORTER } from './verify.ts'
import type { LeafWriter } from './writer-thread.ts'

const ALPN = 'realize/1'
/** Bytes written and not yet taken by the kernel before writing stops. One message of leaves is on its way while the next is read. */
const WRITE_AHEAD_BYTES = 1024 * 1024
/** How long the last words may take. */
const FAREWELL_MS = 2000
const PORT_FAREWELL_MS = 5000
/**
 * Messages, and bytes of them, that may wait at our arenas before the socket is not read any more: what an arena is slower
 * than must wait at the other end. Reading goes on when half of it has been dealt with. The bytes are more than
 * an honest peer ever sends at once: its answers to all that an arena asks for.
 */
const UNTAKEN_MESSAGES_MAX = 500
const UNTAKEN_BYTES_MAX = 16 * 1024 * 1024
/** The same for leaves that are not written yet: what the disk is slower than. Of one connection, and how many of all of the thread leave it only its next message. */
const UNWRITTEN_BYTES_MAX = 8 * 1024 * 1024
const UNWRITTEN_BYTES_TOTAL = 16 * 1024 * 1024

/** What the thread gives each of its connections. */
export interface Surroundings {
  self: machine.Self
  secureContext: SecureContext
  deadlines: machine.Deadlines
  /** Of this thread: what is handed to it is noted there, and forgotten when it is closed. */
  descriptors: DescriptorTable
  /** Of this thread: writes what comes in. */
  writer: LeafWriter
  /** Of this thread: takes what is read, of one connection at a time, for as long as it is dealt with. */
  readBuffer: Uint8Array
  /** Monotonic milliseconds. */
  now(): number
  report(report: PeerReport): void
  count(counter: string): void
  /** The connection has reported `closed`: forget it. */
  gone(connection: number): void
}

/** A download under way. */
interface Receiving {
  arena: ArenaName
  /** The arena's, as it was attached then: it hears of it, and no later one. */
  port: MessagePort
  /** The arena's number. */
  id: number
  file: Download
}

/** An arena that this connection carries. */
interface Attached {
  port: MessagePort
  /** Each message that it was sent and has not dealt with yet, oldest first: its bytes, and what it was lent. */
  untaken: { bytes: number; lent: Uint8Array | null }[]
}

export class Connection {
  readonly #number: number
  readonly #around: Surroundings
  readonly #peer: machine.Peer
  readonly #socket: TLSSocket
  readonly #reader = new FrameReader(GREETING_LIMITS, (header, bytes) => this.#bufferFor(header, bytes))
  readonly #outbox = new Outbox<Upload>()
  readonly #ports = new Map<ArenaName, Attached>()
  readonly #uploads = new Set<Upload>()
  /** By request number on the wire. */
  readonly #downloads = new Map<number, Receiving>()
  readonly #speed = new LinkSpeed()
  readonly #up: Bucket
  readonly #down: Bucket
  #rate: Rate
  /** Messages and bytes that wait at our arenas, and whether that is too much to read on. */
  #untakenMessages = 0
  #untakenBytes = 0
  /** Bytes of leaves that are being written. */
  #unwrittenBytes = 0
  #behind = false
  /** The socket has taken as much as it wants for now. */
  #full = false
  #pumping = false
  /** TLS is up: what is said now can be heard. */
  #tls = false
  #upTimer: NodeJS.Timeout | undefined
  #downTimer: NodeJS.Timeout | undefined
  #farewellTimer: NodeJS.Timeout | undefined
  /** Why the connection closes; undefined while it does not. */
  #closing: Failure | undefined
  /** Of the frame that is just being dealt with. */
  #frameBytes = 0
  /** Frame bytes since the last report. */
  #bytesUp = 0
  #bytesDown = 0

  private constructor(number: number, around: Surroundings, purpose: machine.Purpose, socket: TLSSocket, rate: Rate) {
    this.#number = number
    this.#around = around
    this.#peer = machine.openPeer(around.self, purpose, around.deadlines, around.now())
    this.#socket = socket
    this.#rate = rate
    this.#up = new Bucket(rate.up, around.now())
    this.#down = new Bucket(rate.down, around.now())
    socket.on('error', error => this.#close(socketFailure(error, this.#peer), false))
    socket.on('end', () => this.#close({ code: 'peer_closed', message: 'the other end closed the connection' }, false))
    socket.on('close', () => this.#closed())
    socket.on('drain', () => {
      this.#full = false
      this.#speed.emptied(around.now())
      this.#guard(() => this.#pump())
    })
    socket.once(purpose.is === 'dial' ? 'secureConnect' : 'secure', () => this.#guard(() => this.#secured()))
  }

  /** Throws on an address that is none. */
  static dial(
    number: number,
    around: Surroundings,
    to: { peer: PeerId; address: string; rate: Rate; pair: PairAttempt | null },
  ): Connection {
    const { host, port } = parseAddress(to.address)
    const options = {
      host,
      port,
      secureContext: around.secureContext,
      ALPNProtocols: [ALPN],
      // Who it must be is a key and no name: checked when TLS is up, before a word is said.
      rejectUnauthorized: false,
      servername: 'realize',
      highWaterMark: WRITE_AHEAD_BYTES,
      // One buffer for all that comes: each chunk in one of its own gives the garbage collector as much to do as TLS has.
      onread: {
        buffer: around.readBuffer,
        callback(bytes: number, buffer: Uint8Array) {
          connection.#guard(() => connection.#heard(buffer.subarray(0, bytes)))
          return true
        },
      },
    }
    const socket = connect(options)
    socket.setNoDelay(true)
    const { peer, address, pair } = to
    const connection: Connection = new Connection(number, around, { is: 'dial', peer, address, pair }, socket, to.rate)
    socket.once('connect', () => machine.connected(connection.#peer, around.now()))
    return connection
  }

  /** Takes over a descriptor. Throws if it is no open socket. */
  static accept(
    number: number,
    around: Surroundings,
    from: { fd: number; address: string; household: ReadonlySet<PeerId>; invites: PairAttempt[] },
  ): Connection {
    const plain = socketOf(from.fd, around.descriptors)
    plain.setNoDelay(true)
    const options = {
      isServer: true,
      secureContext: around.secureContext,
      ALPNProtocols: [ALPN],
      requestCert: true,
      rejectUnauthorized: false,
      highWaterMark: WRITE_AHEAD_BYTES,
    }
    const socket = new TLSSocket(plain, options)
    // TLS reads the descriptor itself and tells of faults; what the plain socket still notices must not be unheard.
    plain.on('error', error => socket.destroy(error))
    const { address, household, invites } = from
    const purpose = { is: 'accept' as const, address, household, invites }
    return new Connection(number, around, purpose, socket, { up: 0, down: 0 })
  }

  // Commands

  /** The port is closed, with `closed` said on it, when the connection does not carry arenas. */
  attach(arena: ArenaName, port: MessagePort): void {
    if (this.#closing || this.#peer.state.is !== 'open') {
      const failure = this.#closing ?? { code: 'peer_closed', message: 'the connection is not open' }
      farewell(port, failure, this.#around.descriptors)
      return
    }
    this.#guard(() => {
      this.#release(arena, null)
      this.#ports.set(arena, { port, untaken: [] })
      const current = () => this.#ports.get(arena)?.port === port
      port.on('message', (message: ToPeer) => {
        if (current()) this.#guard(() => this.#fromArena(arena, message))
      })
      // The arena's thread ended without a word.
      port.on('close', () => {
        if (current()) this.#guard(() => this.#detach(arena))
      })
      this.#run(machine.attach(this.#peer, arena))
    })
  }

  acceptPair(arenas: SharedArena[]): void {
    this.#guard(() => this.#run(machine.acceptPair(this.#peer, arenas)))
  }

  setRate(rate: Rate): void {
    const now = this.#around.now()
    this.#rate = rate
    this.#up.set(rate.up, now)
    this.#down.set(rate.down, now)
    this.#guard(() => {
      this.#listen()
      this.#pump()
    })
  }

  close(failure: Failure): void {
    this.#close(failure, true)
  }

  /** Once a second: time passes, traffic is reported. */
  tick(): void {
    this.#reportTraffic()
    if (this.#closing) return
    // It is we who do not listen.
    if (this.#behind) this.#listened(this.#around.now())
    this.#guard(() => this.#run(machine.tick(this.#peer, this.#around.now())))
  }

  // The border: what goes wrong inside ends this connection and nothing else

  #guard(work: () => void): void {
    if (this.#closing) return
    try {
      work()
    } catch (error) {
      this.#refuse(error)
    }
  }

  #refuse(error: unknown): void {
    const failure = toFailure(error)
    const { state, purpose } = this.#peer
    if (failure.code === 'internal') {
      const stack = error instanceof Error ? error.stack : undefined
      this.#log('actor_failed', { actor: 'peer', connection: this.#number, reason: stack ?? failure.message })
    } else if (ERRORS[failure.code].retry === 'never') {
      const peer = 'peer' in state ? state.peer : undefined
      this.#log('peer_refused', { peer, address: purpose.address, code: failure.code, reason: failure.message })
      this.#around.count('peers_refused')
    }
    // Whoever is not the one that was dialled is told nothing.
    const impostor = purpose.is === 'dial' && failure.code === 'peer_unknown'
    this.#close(failure, !impostor)
  }

  #log(
    event: Extract<PeerReport, { type: 'log' }>['event'],
    fields: Extract<PeerReport, { type: 'log' }>['fields'],
  ): void {
    this.#around.report({ type: 'log', event, fields })
  }

  // Coming in

  #secured(): void {
    this.#tls = true
    if (this.#socket.alpnProtocol !== ALPN)
      throw new SyncError('version_unsupported', `the other end does not speak ${ALPN}`)
    const found = idIn(this.#socket.getPeerX509Certificate() as X509Certificate | undefined)
    const exporter = this.#socket.exportKeyingMaterial(PAIR_EXPORTER.bytes, PAIR_EXPORTER.label, Buffer.alloc(0))
    this.#run(machine.secured(this.#peer, found, exporter, this.#around.now()))
    // A socket that was accepted takes no buffer of ours.
    if (this.#peer.purpose.is === 'accept')
      this.#socket.on('data', (chunk: Uint8Array) => this.#guard(() => this.#heard(chunk)))
  }

  /** @param chunk all of it is used, or never will be, when this returns */
  #heard(chunk: Uint8Array): void {
    const now = this.#around.now()
    this.#bytesDown += chunk.length
    this.#reader.push(chunk)
    let whole = false
    for (let frame = this.#reader.next(); frame && !this.#closing; frame = this.#reader.next()) {
      whole = true
      let message = wire.parse(frame.header)
      if (message.type === 'deflated' && this.#peer.state.is === 'open') {
        frame = inflateFrame(message.bytes, frame.payload)
        message = wire.parse(frame.header)
      }
      this.#frameBytes = frame.bytes
      this.#run(machine.heard(this.#peer, message, frame.payload, now))
    }
    this.#peer.heardMs = now
    const bytes = this.#reader.begunBytes
    const sinceMs = whole ? now : (this.#peer.begun?.sinceMs ?? now)
    this.#peer.begun = bytes === 0 ? null : { sinceMs, bytes }
    if (this.#down.rate === 0 && !this.#behind) return
    this.#down.take(chunk.length, now)
    this.#listen()
  }

  /** As if something had been heard just now. */
  #listened(now: number): void {
    this.#peer.heardMs = now
    if (this.#peer.begun) this.#peer.begun.sinceMs = now
  }

  /** Our arenas have more to do than before, or less. */
  #wait(messages: number, bytes: number): void {
    this.#untakenMessages += messages
    this.#untakenBytes += bytes
    this.#holdBack()
  }

  /** Reads on only while little enough waits here. */
  #holdBack(): void {
    const part = this.#behind ? 0.5 : 1
    const behind =
      this.#untakenMessages > UNTAKEN_MESSAGES_MAX * part ||
      this.#untakenBytes > UNTAKEN_BYTES_MAX * part ||
      this.#unwrittenBytes > UNWRITTEN_BYTES_MAX * part ||
      (this.#unwrittenBytes > MESSAGE_BYTES * part && this.#around.writer.unwrittenBytes > UNWRITTEN_BYTES_TOTAL)
    if (behind === this.#behind) return
    this.#behind = behind
    if (behind) this.#around.count('peers_held_back')
    else this.#listened(this.#around.now())
    this.#listen()
  }

  /** Reads on, or waits until our arenas and the rate allow it. What is not read fills the other end's window: it slows down. */
  #listen(): void {
    clearTimeout(this.#downTimer)
    if (this.#behind && !this.#closing) {
      this.#socket.pause()
      return
    }
    const waitMs = this.#closing ? 0 : this.#down.waitMs(this.#around.now())
    if (waitMs === 0) {
      this.#socket.resume()
    } else {
      this.#socket.pause()
      this.#downTimer = setTimeout(() => this.#listen(), waitMs)
    }
  }

  #run(outputs: Iterable<machine.PeerOutput>): void {
    for (const output of outputs) this.#deliver(output)
    this.#pump()
  }

  #deliver(output: machine.PeerOutput): void {
    if (this.#closing) return
    switch (output.to) {
      case 'wire':
        this.#outbox.pushControl(encodeFrame(output.header))
        return
      case 'wire_arena':
        this.#outbox.push(this.#encoded(output.header, output.payload), output.urgent)
        return
      case 'arena': {
        const { header, payload } = output
        this.#toArena(output.arena, payload ? { type: 'wire', header, payload } : { type: 'wire', header }, payload)
        return
      }
      case 'download':
        this.#received(output)
        return
      case 'download_failed': {
        const { code, reason } = output.failure
        this.#endDownload(output.request, { code: codeOf(code), message: reason })
        return
      }
      case 'supervisor':
        this.#around.report({ ...output.report, connection: this.#number } as PeerReport)
        return
      case 'reader':
        this.#reader.limits = FRAME_LIMITS
        return
      case 'close':
        this.#close({ code: codeOf(output.code), message: output.reason }, output.say)
        return
      case 'log':
        this.#log(output.event, output.fields)
        return
      default:
        output satisfies never
    }
  }

  #toArena(arena: ArenaName, message: FromPeer, payload?: Uint8Array): void {
    const attached = this.#ports.get(arena)
    if (!attached) return
    try {
      const lent = payload && isMessageBuffer(payload) ? payload : null
      attached.port.postMessage(message, payload && !lent ? [payload.buffer as ArrayBuffer] : [])
      if (message.type !== 'wire') return
      attached.untaken.push({ bytes: this.#frameBytes, lent })
      this.#wait(1, this.#frameBytes)
    } catch (error) {
      // A header can be nested too deep to be passed on, in fields that we do not know.
      if (message.type !== 'wire') throw error
      throw new SyncError('message_invalid', `${message.header.type} cannot be passed on`, { cause: error })
    }
  }

  // Arenas

  #fromArena(arena: ArenaName, message: ToPeer): void {
    switch (message.type) {
      case 'send':
        this.#run(machine.say(this.#peer, arena, message.header, message.payload, message.urgent))
        return
      case 'upload':
        this.#upload(arena, message)
        return
      case 'download':
        this.#download(arena, message)
        return
      case 'cancel':
        this.#cancel(arena, message.id)
        return
      case 'detach':
        this.#detach(arena)
        return
      case 'refuse':
        throw new SyncError(message.failure.code, message.failure.message)
      case 'taken': {
        const taken = this.#ports.get(arena)?.untaken.splice(0, message.count)
        for (const { lent } of taken ?? []) if (lent) giveBuffer(lent)
        this.#took(taken)
        return
      }
      default:
        message satisfies never
    }
  }

  #took(untaken: Attached['untaken'] = []): void {
    this.#wait(-untaken.length, -untaken.reduce((sum, { bytes }) => sum + bytes, 0))
  }

  #detach(arena: ArenaName): void {
    this.#release(arena, null)
    this.#run(machine.detach(this.#peer, arena))
  }

  /** Ends an arena's transfers and closes its port; with a failure, says so there. Either only when nothing is being written any more. */
  #release(arena: ArenaName, failure: Failure | null): void {
    const attached = this.#ports.get(arena)
    if (!attached) return
    const { port, untaken } = attached
    this.#ports.delete(arena)
    this.#took(untaken)
    for (const upload of this.#uploads) if (upload.arena === arena) this.#endUpload(upload)
    let writing = 1
    const written = () => {
      if (--writing > 0) return
      if (failure) sayClosed(port, failure)
      else port.close()
    }
    for (const [request, receiving] of this.#downloads) {
      if (receiving.port !== port) continue
      writing++
      if (failure) this.#endDownload(request, failure, written)
      else this.#dropDownload(request, written)
    }
    closeUnheard(port, this.#around.descriptors)
    written()
  }

  // Uploads

  #upload(arena: ArenaName, order: Extract<ToPeer, { type: 'upload' }>): void {
    const upload = new Upload({ ...order, arena }, this.#around.descriptors)
    // The request may have been refused meanwhile: its arena was attached anew.
    if (!machine.owes(this.#peer, arena, order.id)) {
      upload.close()
      return
    }
    this.#uploads.add(upload)
    this.#outbox.addUpload(upload)
    this.#pump()
  }

  #endUpload(upload: Upload): void {
    this.#uploads.delete(upload)
    this.#outbox.removeUpload(upload)
    upload.close()
  }

  /** Reads the next leaves of an upload and writes them. */
  #uploadNext(upload: Upload): void {
    const { arena, id } = upload
    try {
      const { from, count, payload } = upload.read(leavesFor(this.#rate.up))
      machine.answer(this.#peer, arena, id, count)
      const written = () => giveBuffer(payload)
      this.#write(encodeFrame({ type: 'leaves', arena, id, from, count } satisfies WireMessage, payload), written)
      if (upload.done) this.#endUpload(upload)
    } catch (error) {
      if (!(error instanceof SyncError)) throw error
      machine.answer(this.#peer, arena, id, Infinity)
      this.#endUpload(upload)
      const { code, message } = error
      this.#outbox.pushControl(
        encodeFrame({ type: 'fetch_failed', arena, id, code, reason: message } satisfies WireMessage),
      )
    }
  }

  // Downloads

  #download(arena: ArenaName, order: Extract<ToPeer, { type: 'download' }>): void {
    const port = this.#ports.get(arena)?.port
    const file = new Download(order, this.#around.descriptors, this.#around.writer)
    const last = machine.bytesOfLeaves(order.size, order.from + order.count - 1, 1)
    const asked = last > 0 && order.count > 0 ? machine.download(this.#peer, arena, order) : null
    if (!port || !asked) {
      const failure: Failure = { code: 'internal', message: `the blob has no leaves [${order.from}, +${order.count})` }
      file.close(() => this.#toArena(arena, { type: 'download_failed', id: order.id, failure }))
      return
    }
    this.#downloads.set(asked.request, { arena, port, id: order.id, file })
    this.#run(asked.outputs)
  }

  #received(output: Extract<machine.PeerOutput, { to: 'download' }>): void {
    const { request, from, count, payload, last } = output
    const receiving = this.#downloads.get(request)
    // It has failed already, and what comes after is thrown away.
    if (!receiving) return
    const { port, id, file } = receiving
    const { length } = payload
    this.#unwrittenBytes += length
    this.#holdBack()
    file.store(from, payload, last, failure => {
      this.#unwrittenBytes -= length
      this.#holdBack()
      // It has ended meanwhile, or its arena has.
      if (this.#downloads.get(request) !== receiving) return
      if (failure) return this.#notWritten(request, receiving, failure)
      port.postMessage({ type: 'stored', id, from, count } satisfies FromPeer)
      if (last) this.#dropDownload(request, () => port.postMessage({ type: 'downloaded', id } satisfies FromPeer))
    })
  }

  /**
   * Leaves of a download are received where they are written from. Many leaves that go to an arena are lent to it until it has dealt with them:
   * new memory for each message would have its collector at work all the time.
   */
  #bufferFor(header: unknown, bytes: number): Uint8Array | undefined {
    const { type, id } = (header ?? {}) as { type?: unknown; id?: unknown }
    const awaited = type === 'leaves' && typeof id === 'number' && this.#downloads.has(id)
    const lent = type === 'leaves' && bytes > MESSAGE_BYTES / 2
    return (awaited || lent) && bytes <= MESSAGE_BYTES ? takeBuffer(bytes) : undefined
  }

  #notWritten(request: number, { arena }: Receiving, failure: Failure): void {
    if (failure.code === 'leaf_invalid') {
      this.#log('blob_invalid', { arena, address: this.#peer.purpose.address, reason: failure.message })
      this.#around.count('leaves_invalid')
    }
    this.#endDownload(request, failure)
  }

  #cancel(arena: ArenaName, id: number): void {
    for (const [request, receiving] of this.#downloads) {
      if (receiving.arena === arena && receiving.id === id)
        this.#endDownload(request, { code: 'peer_closed', message: 'not wanted any more' })
    }
  }

  /** Says that a download has failed, once nothing of it is being written any more. */
  #endDownload(request: number, failure: Failure, ended = () => {}): void {
    const receiving = this.#downloads.get(request)
    this.#dropDownload(request, () => {
      receiving?.port.postMessage({ type: 'download_failed', id: receiving.id, failure } satisfies FromPeer)
      ended()
    })
  }

  #dropDownload(request: number, dropped: () => void): void {
    const receiving = this.#downloads.get(request)
    this.#downloads.delete(request)
    if (receiving) receiving.file.close(dropped)
    else dropped()
  }

  // Going out

  /** Writes what waits, as long as the socket takes it and the rate allows. */
  #pump(): void {
    if (this.#pumping) return
    this.#pumping = true
    clearTimeout(this.#upTimer)
    try {
      while (!this.#full && !this.#closing) {
        const waitMs = this.#up.waitMs(this.#around.now())
        const next = this.#outbox.next(waitMs === 0)
        if (!next) {
          if (waitMs > 0 && this.#outbox.hasBulk)
            this.#upTimer = setTimeout(() => this.#guard(() => this.#pump()), waitMs)
          return
        }
        if ('message' in next) this.#write(next.message)
        else this.#uploadNext(next.upload)
      }
    } finally {
      this.#pumping = false
    }
  }

  #encoded(header: WireMessage, payload: Uint8Array | undefined): Uint8Array[] {
    const frame = encodeFrame(header, payload)
    if (header.type === 'feed' && saysMoves(header)) this.#repetitive.add(frame)
    return frame
  }
  /** Frames that become so much smaller that it pays on any way. */
  readonly #repetitive = new WeakSet<Uint8Array[]>()

  /** @param written called once the last part is with the kernel, or never will be */
  #write(whole: Uint8Array[], written?: () => void): void {
    const now = this.#around.now()
    this.#peer.saidMs = now
    const shrinks = this.#repetitive.has(whole) || this.#speed.isSlow(this.#rate.up)
    const parts = this.#peer.inflates && shrinks ? deflateFrame(whole) : whole
    for (const part of parts) {
      this.#bytesUp += part.length
      this.#up.take(part.length, now)
      // Parts are written one by one: together they would be copied into one.
      this.#full = !this.#socket.write(part, part === parts.at(-1) ? written : undefined)
    }
    if (this.#full) this.#speed.full(this.#socket.writableLength, now)
  }

  // The end

  /** Tells everybody who waits here, says our reason if the other end may hear it, and lets the socket finish. */
  #close(failure: Failure, say: boolean): void {
    if (this.#closing) return
    this.#closing = failure
    clearTimeout(this.#upTimer)
    clearTimeout(this.#downTimer)
    for (const arena of [...this.#ports.keys()]) this.#release(arena, failure)
    if (!this.#tls || this.#socket.destroyed || !this.#socket.writable) {
      this.#socket.destroy()
      return
    }
    if (say) {
      const reason = failure.message.slice(0, 500)
      for (const part of encodeFrame({ type: 'close', code: failure.code, reason } satisfies WireMessage)) {
        this.#bytesUp += part.length
        this.#socket.write(part)
      }
    }
    this.#socket.end()
    // What still comes is thrown away but read: unread bytes would make the kernel reset the connection, and our last words be lost.
    this.#socket.resume()
    this.#farewellTimer = setTimeout(() => this.#socket.destroy(), FAREWELL_MS)
  }

  #closed(): void {
    this.#close({ code: 'peer_closed', message: 'the connection was lost' }, false)
    clearTimeout(this.#farewellTimer)
    this.#reportTraffic()
    const failure = this.#closing ?? { code: 'peer_closed', message: 'the connection was lost' }
    this.#around.report({ type: 'closed', connection: this.#number, failure })
    this.#around.gone(this.#number)
  }

  #reportTraffic(): void {
    if (this.#bytesUp === 0 && this.#bytesDown === 0) return
    this.#around.report({ type: 'traffic', connection: this.#number, up: this.#bytesUp, down: this.#bytesDown })
    this.#bytesUp = 0
    this.#bytesDown = 0
  }
}

/** Leaves in one message: fewer at a low rate, so that one message is not a long burst. */
function leavesFor(rateUp: number): number {
  if (rateUp === 0) return LEAVES_PER_MESSAGE
  return Math.max(1, Math.min(LEAVES_PER_MESSAGE, Math.floor(rateUp / 16 / LEAF_BYTES)))
}

/** Tells an arena that the connection is gone. */
export function farewell(port: MessagePort, failure: Failure, descriptors: DescriptorTable): void {
  closeUnheard(port, descriptors)
  sayClosed(port, failure)
}

/** What an arena sends before it knows that the connection is gone may carry descriptors, which are ours to close. */
function closeUnheard(port: MessagePort, descriptors: DescriptorTable): void {
  port.on('message', (message: ToPeer) => {
    if (message.type !== 'upload' && message.type !== 'download') return
    forgetDescriptor(descriptors, message.fd)
    closeDescriptor(message.fd)
  })
  port.unref()
}

/** The port stays open until the arena closes it, or a while. */
function sayClosed(port: MessagePort, failure: Failure): void {
  port.postMessage({ type: 'closed', failure } satisfies FromPeer)
  setTimeout(() => port.close(), PORT_FAREWELL_MS).unref()
}

/** From here on the socket closes it, also when the thread is killed. Throws if the descriptor is no open socket; it is closed then. */
function socketOf(fd: number, descriptors: DescriptorTable): Socket {
  forgetDescriptor(descriptors, fd)
  try {
    return new Socket({ fd, readable: true, writable: true })
  } catch (error) {
    closeDescriptor(fd)
    throw error
  }
}

/** A code from the other end, if we know it. */
function codeOf(code: string): ErrorCode {
  return Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'peer_closed'
}

/** @param address host:port, IPv6 in brackets. Throws `config_invalid`. */
export function parseAddress(address: string): { host: string; port: number } {
  const match = /^(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:[\]]+)):([0-9]{1,5})$/.exec(address)
  const port = Number(match?.[3])
  const host = match?.[1] ?? match?.[2]
  if (!host || port < 1 || port > 65535)
    throw new SyncError('config_invalid', `'${address.slice(0, 100)}' is not HOST:PORT`)
  return { host, port }
}

/** What the operating system or TLS said, as one sentence. */
function socketFailure(error: Error, peer: machine.Peer): Failure {
  const { address } = peer.purpose
  const code = (error as NodeJS.ErrnoException).code ?? error.message
  if (peer.state.is === 'connecting') {
    if (code === 'ECONNREFUSED')
      return { code: 'peer_closed', message: `nobody listens at ${address}: is the service running there?` }
    if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
      return { code: 'peer_closed', message: `the name in ${address} is not known (${code})` }
    return { code: 'peer_closed', message: `${address} cannot be reached (${code})` }
  }
  if (peer.state.is === 'securing')
    return { code: 'peer_closed', message: `no TLS handshake with ${address} (${code}): is it a peer of Realize?` }
  return { code: 'peer_closed', message: `the connection with ${address} was lost (${code})` }
}
