/**
 * A TCP relay on loopback between two services: it counts what passes in each direction, whoever is killed, and can cut
 * what is open in mid-frame, hold it back, slow it down, delay it, or refuse whoever dials.
 */
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

type Direction = 'toTarget' | 'fromTarget'

export class Relay {
  readonly port: number
  /** Bytes from the one who dials to the one who listens, and the other way. */
  toTarget = 0
  fromTarget = 0
  /** Who dials is disconnected at once. */
  refusing = false
  /** Bytes a second in each direction. */
  bytesPerSecond = Number.POSITIVE_INFINITY
  /** What passes arrives so much later, in each direction. */
  delayMs = 0
  private readonly server: Server
  private readonly sockets = new Set<Socket>()
  cuts = 0
  /** Cut after each so many bytes from the target, so many times. */
  private cutting = { bytes: Number.POSITIVE_INFINITY, times: 0 }
  private sinceCut = 0
  /** Directions in which nothing passes. */
  private readonly stalled = new Set<Direction>()
  /** Who waits until it is healed, or for its time. */
  private readonly waiting = new Set<() => void>()

  private constructor(server: Server, port: number) {
    this.server = server
    this.port = port
  }

  static async open(port: number, targetPort: number): Promise<Relay> {
    const server = createServer()
    const relay = new Relay(server, port)
    server.on('connection', socket => {
      if (relay.refusing) socket.resetAndDestroy()
      else relay.join(socket, connect(targetPort, '127.0.0.1'))
    })
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    return relay
  }

  /** Resets every connection each time that so many more bytes have come from the target. */
  cutEvery(bytes: number, times: number): void {
    this.cutting = { bytes, times: this.cuts + times }
    this.sinceCut = 0
  }

  /** Resets every connection now. */
  cut(): void {
    this.cuts += 1
    for (const socket of this.sockets) socket.resetAndDestroy()
  }

  /** Nothing passes in this direction any more; the connections stay. */
  stall(direction: Direction): void {
    this.stalled.add(direction)
  }

  /** Everything passes again, at full speed. */
  heal(): void {
    this.refusing = false
    this.bytesPerSecond = Number.POSITIVE_INFINITY
    this.delayMs = 0
    this.cutting = { bytes: Number.POSITIVE_INFINITY, times: 0 }
    this.stalled.clear()
    for (const goOn of [...this.waiting]) goOn()
  }

  async close(): Promise<void> {
    const closed = once(this.server, 'close')
    this.server.close()
    for (const socket of this.sockets) socket.destroy()
    await closed
  }

  private join(dialler: Socket, target: Socket): void {
    for (const socket of [dialler, target]) {
      this.sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.on('close', () => {
        this.sockets.delete(socket)
        dialler.destroy()
        target.destroy()
      })
    }
    this.pass(dialler, target, 'toTarget')
    this.pass(target, dialler, 'fromTarget')
  }

  private pass(from: Socket, to: Socket, direction: Direction): void {
    let draining = false
    const goOn = () => {
      if (draining || this.stalled.has(direction)) return
      this.waiting.delete(goOn)
      from.resume()
    }
    to.on('drain', () => {
      draining = false
      if (!this.waiting.has(goOn)) goOn()
    })
    from.on('close', () => this.waiting.delete(goOn))
    from.on('end', () => (this.delayMs > 0 ? setTimeout(() => to.end(), this.delayMs) : to.end()))
    from.on('data', chunk => {
      this[direction] += chunk.length
      if (direction === 'fromTarget') {
        this.sinceCut += chunk.length
        if (this.cuts < this.cutting.times && this.sinceCut >= this.cutting.bytes) {
          this.sinceCut = 0
          return this.cut()
        }
      }
      if (this.delayMs > 0) setTimeout(() => to.writable && to.write(chunk), this.delayMs)
      else draining = !to.write(chunk)
      const pauseMs = (chunk.length / this.bytesPerSecond) * 1000
      if (pauseMs >= 1 || this.stalled.has(direction)) {
        this.waiting.add(goOn)
        if (pauseMs >= 1) setTimeout(goOn, pauseMs).unref()
      } else if (!draining) return
      from.pause()
    })
  }
}
