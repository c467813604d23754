/** Several real services that know each other, over real TLS on loopback, and what a test asks of them together. */
import { once } from 'node:events'
import { mkdirSync, readdirSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { Relay } from '../../bench/relay.ts'
import type { ArenaName } from '../../protocol/ids.ts'
import { within } from '../_deadline.ts'
import { type Cleaning, temporaryFolder } from '../_temp.ts'
import { Peer } from './_peer.ts'
import { differences, type Tree, treeOf } from './_tree.ts'

export const SETTLE_SECONDS = 90
/** Below the range from which the kernel takes ports for outgoing connections, so that a port is still free after a restart. */
const PORTS = { from: 15_000, to: 32_000 }

export class Household {
  readonly folder: string
  readonly peers: Peer[] = []

  /** Everything in it ends with the test. `folder`: where homes and roots go, if not into one that ends too. */
  constructor(t: ExecutionContext | Cleaning, folder?: string) {
    this.folder = folder ?? temporaryFolder(t)
    t.teardown(() => this.end())
    if ('log' in t) this.explain(t)
  }

  /** If the test fails, each service's last lines are printed. */
  explain(t: ExecutionContext): void {
    t.teardown(() => {
      if (!t.passed) for (const peer of this.peers) t.log(peer.report())
    })
  }

  /** A new service, made and started. `listen: false`: it dials only. */
  async peer(name: string, options: { listen?: boolean; start?: boolean } = {}): Promise<Peer> {
    const port = options.listen === false ? null : await freePort()
    const peer = new Peer(name, join(this.folder, name), port)
    this.peers.push(peer)
    await peer.init()
    if (options.start !== false) await peer.start()
    return peer
  }

  async all(...names: string[]): Promise<Peer[]> {
    return Promise.all(names.map(name => this.peer(name)))
  }

  /** Where a peer has an arena, as these helpers lay it out. */
  root(peer: Peer, arena = 'docs'): string {
    return join(this.folder, `${peer.name}-${arena}`)
  }

  /** Gives a peer an arena with an (empty) root of its own. */
  async share(peer: Peer, arena = 'docs'): Promise<string> {
    const root = this.root(peer, arena)
    mkdirSync(root, { recursive: true })
    await peer.call('arena_add', { name: arenaName(arena), path: root })
    return root
  }

  /** `guest` joins `host` by a code that shares the arena, and both are connected with it. */
  async pair(host: Peer, guest: Peer, arena = 'docs'): Promise<void> {
    const { code } = await host.call('invite', { arenas: [arenaName(arena)] })
    await guest.call('join', { code, path: this.root(guest, arena) })
    await this.together([host, guest], arena)
  }

  /** Two peers that share one arena. */
  async couple(names: [string, string] = ['alice', 'bob'], arena = 'docs'): Promise<[Peer, Peer]> {
    const [alice, bob] = (await this.all(...names)) as [Peer, Peer]
    await this.share(alice, arena)
    await this.pair(alice, bob, arena)
    return [alice, bob]
  }

  /** Two peers that share one arena; the second dials only, and only through a relay. */
  async relayed(t: Cleaning): Promise<[Peer, Peer, Relay]> {
    const alice = await this.peer('alice')
    const bob = await this.peer('bob', { listen: false })
    await this.share(alice)
    await this.pair(alice, bob)
    const relay = await Relay.open(await freePort(), alice.port!)
    t.teardown(() => relay.close())
    await bob.stop()
    bob.editConfig(text => text.replaceAll(`:${alice.port}"`, `:${relay.port}"`))
    await bob.start()
    await this.together([alice, bob])
    return [alice, bob, relay]
  }

  /** Three peers, each connected with both others. */
  async triangle(arena = 'docs'): Promise<[Peer, Peer, Peer]> {
    const [alice, bob, carol] = (await this.all('alice', 'bob', 'carol')) as [Peer, Peer, Peer]
    await this.share(alice, arena)
    await this.pair(alice, bob, arena)
    await this.pair(alice, carol, arena)
    await introduce(bob, carol)
    await introduce(carol, bob)
    await this.together([alice, bob, carol], arena)
    return [alice, bob, carol]
  }

  /** Three peers in a row: the first and the last know only the one between them. */
  async chain(arena = 'docs'): Promise<[Peer, Peer, Peer]> {
    const [alice, bob, carol] = (await this.all('alice', 'bob', 'carol')) as [Peer, Peer, Peer]
    await this.share(alice, arena)
    await this.pair(alice, bob, arena)
    await this.pair(bob, carol, arena)
    return [alice, bob, carol]
  }

  /** Waits until each of them is connected with each other one, the arena included. */
  async together(peers: Peer[], arena = 'docs'): Promise<void> {
    await Promise.all(
      peers.map(peer =>
        peer.untilArena(`is connected with ${peers.length - 1} others in ${arena}`, arena, status =>
          peers.every(
            other => other === peer || status.peers.some(one => one.name === other.name && one.reason === null),
          ),
        ),
      ),
    )
  }

  /** Waits until all of them say that they are in consensus, and say so of the same root. Throws what is missing otherwise. */
  async settled(peers: Peer[] = this.peers, arena = 'docs', seconds = SETTLE_SECONDS): Promise<void> {
    // In a row of peers the first may agree with its neighbour before the last has been asked; twice round, nobody is left.
    const rounds = peers.length > 2 ? 2 : 1
    for (let round = 0; round < rounds; round++)
      for (const peer of peers) await peer.call('wait', { arena: arenaName(arena), timeoutSeconds: seconds })
    // The question to a later peer may have made an earlier one look at its disk again.
    const endMs = performance.now() + seconds * 1000
    for (;;) {
      const changed = Promise.race(peers.map(peer => peer.changed()))
      const states = await Promise.all(peers.map(peer => peer.arena(arena)))
      if (states.every(state => state.consensus && state.root === states[0]!.root)) return
      await within(Math.max(0, endMs - performance.now()), () => `they agree: ${JSON.stringify(states)}`, changed)
    }
  }

  /** Settles, and asserts that all roots hold the same; what they hold. */
  async same(t: ExecutionContext, peers: Peer[] = this.peers, arena = 'docs'): Promise<Tree> {
    await this.settled(peers, arena)
    const first = treeOf(this.root(peers[0]!, arena))
    for (const peer of peers.slice(1)) {
      const wrong = differences(first, treeOf(this.root(peer, arena)), peers[0]!.name, peer.name)
      t.deepEqual(wrong, [])
    }
    return first
  }

  async end(): Promise<void> {
    await Promise.all(this.peers.filter(peer => peer.isRunning).map(peer => peer.kill()))
  }

  /** What a peer has in its staging folder. */
  staged(peer: Peer, arena = 'docs'): string[] {
    try {
      return readdirSync(join(this.root(peer, arena), '.realize', 'staging'))
    } catch {
      return []
    }
  }
}

/** Tells one peer of another by its ID and address, as `realize peer add` does. */
export async function introduce(peer: Peer, other: Peer): Promise<void> {
  const { id } = await other.call('id', {})
  await peer.call('peer_add', { name: other.name, id, addresses: [`127.0.0.1:${other.port}`] })
}

/** Writes what the only peer in this configuration may be sent and give, as texts like "10MB"; nothing: no limit. */
export function setRate(peer: Peer, rate: { up?: string; down?: string }): void {
  const limits = Object.entries(rate).map(([direction, limit]) => `${direction} = "${limit}"`)
  const line = limits.length > 0 ? `rate = { ${limits.join(', ')} }\n` : ''
  peer.editConfig(text => text.replace(/^rate = .*\n/m, '').replace(/^\[\[peers\]\]\n/m, `[[peers]]\n${line}`))
}

/** A name as the control methods take it; the service checks it. */
export function arenaName(name: string): ArenaName {
  return name as ArenaName
}

export async function freePort(): Promise<number> {
  for (;;) {
    const port = PORTS.from + Math.floor(Math.random() * (PORTS.to - PORTS.from))
    if (await isFree(port)) return port
  }
}

/** Whether nobody listens on this port, on any address. */
export async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port)
  try {
    await once(server, 'listening')
  } catch {
    return false
  }
  server.close()
  await once(server, 'close')
  return true
}
