/**
 * Takes TCP connections from peers and hands them on, unread, before their handshake. How many handshakes may be in
 * progress is limited (admission.ts); what is over the limit is cut at once. Connections that are established do not count.
 */
import { createServer, type Server, type Socket } from 'node:net'
import { SyncError } from '../protocol/error.ts'
import type { LogEvent, LogFields } from '../protocol/log.ts'
import { Admission, plainAddress } from './admission.ts'
import { formatAddress, type ListenAddress } from './config.ts'
import { Pace } from './pace.ts'

/** Connections that the system has taken and we have not: all of a large household, when this peer has been away. */
const BACKLOG = 1024
/**
 * Handshakes at once and a second: each takes a processor a few milliseconds. From one strange address, from all of them,
 * and from one where a peer of the household was seen, which may be a thousand of them behind one address.
 */
const STRANGER = { burst: 40, perSecond: 5 }
const STRANGERS = { burst: 200, perSecond: 50 }
const KNOWN = { burst: 500, perSecond: 200 }

export interface ListenerOptions {
  /** For the error about a taken port. */
  configPath: string
  /** Whether a peer of the household has been seen at this address. */
  known(address: string): boolean
  /** Takes over the socket, paused and unread. `over` is to be called once, when the handshake has ended, well or not. */
  accept(socket: Socket, address: string, over: () => void): void
  refused(address: string): void
  log(event: LogEvent, fields: LogFields): void
}

export class Listener {
  readonly #options: ListenerOptions
  readonly #admission = new Admission()
  readonly #strangerPace = new Pace(STRANGER.burst, STRANGER.perSecond)
  readonly #strangersPace = new Pace(STRANGERS.burst, STRANGERS.perSecond)
  readonly #knownPace = new Pace(KNOWN.burst, KNOWN.perSecond)
  #servers = new Map<string, Server>()

  constructor(options: ListenerOptions) {
    this.#options = options
  }

  /** Where it listens now; a port of 0 in the configuration appears as the one it got. */
  get addresses(): ListenAddress[] {
    return [...this.#servers.values()].flatMap(server => {
      const address = server.address()
      return address !== null && typeof address === 'object' ? [{ host: address.address, port: address.port }] : []
    })
  }

  get handshakes(): number {
    return this.#admission.count
  }

  /**
   * Listens exactly there from now on; connections already made stay. Throws `config_invalid` if one of the places
   * cannot be had, and then nothing has changed.
   */
  async listen(wanted: readonly ListenAddress[]): Promise<void> {
    const next = new Map<string, Server>()
    const opened: Server[] = []
    try {
      for (const place of wanted) {
        const key = formatAddress(place)
        const server = this.#servers.get(key) ?? next.get(key)
        if (server) {
          next.set(key, server)
          continue
        }
        const fresh = await this.#open(place)
        opened.push(fresh)
        next.set(key, fresh)
        this.#options.log('listening', { address: key })
      }
    } catch (error) {
      for (const server of opened) server.close()
      throw error
    }
    for (const [key, server] of this.#servers) if (!next.has(key)) server.close()
    this.#servers = next
  }

  close(): Promise<void> {
    return this.listen([])
  }

  #open(place: ListenAddress): Promise<Server> {
    const server = createServer({ pauseOnConnect: true, noDelay: true }, socket => this.#admit(socket))
    return new Promise((resolve, reject) => {
      server.once('error', error => reject(this.#listenFailure(error, place)))
      server.listen({ host: place.host, port: place.port, backlog: BACKLOG, exclusive: true }, () => {
        server.removeAllListeners('error')
        // Later errors are of single connections (no descriptors left): the server goes on.
        server.on('error', error => this.#options.log('control_failed', { what: 'listener', reason: error.message }))
        resolve(server)
      })
    })
  }

  #admit(socket: Socket): void {
    // A socket that fails before anybody has taken it over must not take the service with it.
    socket.on('error', () => socket.destroy())
    const address = plainAddress(socket.remoteAddress ?? '')
    if (address === '') {
      socket.destroy()
      return
    }
    const known = this.#options.known(address)
    const ticket = this.#inPace(address, known) ? this.#admission.admit(address, known) : undefined
    if (!ticket) {
      socket.destroy()
      this.#options.refused(address)
      return
    }
    let open = true
    this.#options.accept(socket, formatAddress({ host: address, port: socket.remotePort ?? 0 }), () => {
      if (open) this.#admission.release(ticket)
      open = false
    })
  }

  #inPace(address: string, known: boolean): boolean {
    const nowMs = performance.now()
    if (known) return this.#knownPace.allows(address, nowMs)
    return this.#strangerPace.allows(address, nowMs) && this.#strangersPace.allows('', nowMs)
  }

  #listenFailure(error: NodeJS.ErrnoException, { host, port }: ListenAddress): SyncError {
    const advice = `change \`listen\` in ${this.#options.configPath}`
    switch (error.code) {
      case 'EADDRINUSE':
        return new SyncError(
          'config_invalid',
          `port ${port} on ${host} is taken: stop the program that has it, or ${advice}`,
        )
      case 'EACCES':
        return new SyncError('config_invalid', `port ${port} on ${host} is not allowed to this user: ${advice}`)
      case 'EADDRNOTAVAIL':
      case 'ENOTFOUND':
        return new SyncError('config_invalid', `${host} is not an address of this machine: ${advice}`)
      default:
        return new SyncError('config_invalid', `cannot listen on ${host} port ${port} (${error.message}): ${advice}`)
    }
  }
}
