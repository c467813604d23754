/**
 * A TCP relay on loopback between two services: it counts what passes in each direction, whoever is killed, and can cut
 * what is open in mid-frame.
 */
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

export class Relay {
  readonly port: number
  /** Bytes from the one who dials to the one who listens, and the other way. */
  toTarget = 0
  fromTarget = 0
  private readonly server: Server
  private readonly sockets = new Set<Socket>()
  cuts = 0
  /** Cut after each so many bytes from the target, so many times. */
  private cutting = { bytes: Number.POSITIVE_INFINITY, times: 0 }
  private sinceCut = 0

  private constructor(server: Server, port: number) {
    this.server = server
    this.port = port
  }

  static async open(port: number, targetPort: number): Promise<Relay> {
    const server = createServer()
    const relay = new Relay(server, port)
    server.on('connection', socket => relay.join(socket, connect(targetPort, '127.0.0.1')))
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    return relay
  }

  /** Resets every connection each time that so many bytes have come from the target. */
  cutEvery(bytes: number, times: number): void {
    this.cutting = { bytes, times }
    this.sinceCut = 0
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
    dialler.on('data', chunk => {
      this.toTarget += chunk.length
    })
    target.on('data', chunk => {
      this.fromTarget += chunk.length
      this.sinceCut += chunk.length
      if (this.cuts >= this.cutting.times || this.sinceCut < this.cutting.bytes) return
      this.sinceCut = 0
      this.cuts += 1
      for (const socket of this.sockets) socket.resetAndDestroy()
    })
    dialler.pipe(target)
    target.pipe(dialler)
  }
}
