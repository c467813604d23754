/** How many strangers may be at the door at once. Pure: the listener asks before it takes a connection and tells when the handshake is over. */

/** Handshakes in progress in all. Addresses that are known have as many places again of their own. */
export const HANDSHAKES_MAX = 64
/** Handshakes in progress from one address that is not known. */
export const HANDSHAKES_PER_STRANGER_MAX = 8

export interface Ticket {
  readonly address: string
  readonly known: boolean
}

export class Admission {
  readonly #strangers = new Map<string, number>()
  #strangerCount = 0
  #knownCount = 0

  /** A ticket, to be given back to `release` once, or undefined: refuse. @param known a peer of the household was seen at this address */
  admit(address: string, known: boolean): Ticket | undefined {
    if (known) {
      if (this.#knownCount >= HANDSHAKES_MAX) return undefined
      this.#knownCount++
      return { address, known }
    }
    const here = this.#strangers.get(address) ?? 0
    if (this.#strangerCount >= HANDSHAKES_MAX || here >= HANDSHAKES_PER_STRANGER_MAX) return undefined
    this.#strangerCount++
    this.#strangers.set(address, here + 1)
    return { address, known }
  }

  release(ticket: Ticket): void {
    if (ticket.known) {
      this.#knownCount--
      return
    }
    this.#strangerCount--
    const here = (this.#strangers.get(ticket.address) ?? 1) - 1
    if (here > 0) this.#strangers.set(ticket.address, here)
    else this.#strangers.delete(ticket.address)
  }

  /** Handshakes in progress. */
  get count(): number {
    return this.#strangerCount + this.#knownCount
  }
}

/** One spelling for an address: IPv4 in IPv6 clothing is IPv4. */
export function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address
}
