/** Counters and gauges of the service, in the text format of Prometheus. */
import { Counter, Gauge, Registry } from 'prom-client'

/** Different counters that actors may bring up; further names are dropped. */
const COUNTERS_MAX = 200

export interface ArenaFigures {
  name: string
  files: number
  bytes: number
  realBytes: number
  needFiles: number
  needBytes: number
  conflicts: number
  problemCount: number
  consensus: boolean
}

/** Read when the metrics are asked for. */
export interface Figures {
  uptimeSeconds: number
  peers: number
  peersConnected: number
  handshakes: number
  arenas: ArenaFigures[]
}

export class Metrics {
  readonly #registry = new Registry()
  readonly #counters = new Map<string, Counter<'of'>>()

  /** @param figures called each time that the metrics are asked for */
  constructor(figures: () => Figures) {
    const gauge = (name: string, help: string, read: (figures: Figures) => number) => {
      new Gauge({
        name: `realize_${name}`,
        help,
        registers: [this.#registry],
        collect() {
          this.set(read(figures()))
        },
      })
    }
    gauge('uptime_seconds', 'Since the service started.', now => now.uptimeSeconds)
    gauge('resident_bytes', 'Memory of the whole process.', () => process.memoryUsage.rss())
    gauge('cpu_seconds', 'Processor time that the process has used so far.', () => {
      const { user, system } = process.cpuUsage()
      return (user + system) / 1e6
    })
    gauge('peers', 'Peers of the household.', now => now.peers)
    gauge('peers_connected', 'Peers that are connected.', now => now.peersConnected)
    gauge('handshakes', 'Incoming connections that have not yet said who they are.', now => now.handshakes)

    const arenaGauge = (name: string, help: string, read: (arena: ArenaFigures) => number) => {
      new Gauge({
        name: `realize_arena_${name}`,
        help,
        labelNames: ['arena'],
        registers: [this.#registry],
        collect() {
          this.reset()
          for (const arena of figures().arenas) this.set({ arena: arena.name }, read(arena))
        },
      })
    }
    arenaGauge('files', 'Living files.', arena => arena.files)
    arenaGauge('bytes', 'Bytes of living files.', arena => arena.bytes)
    arenaGauge('real_bytes', 'Bytes that are real files here.', arena => arena.realBytes)
    arenaGauge('need_files', 'Files still to come.', arena => arena.needFiles)
    arenaGauge('need_bytes', 'Bytes still to come.', arena => arena.needBytes)
    arenaGauge('conflicts', 'Conflicts to resolve.', arena => arena.conflicts)
    arenaGauge('problems', 'Paths that are not as they should be.', arena => arena.problemCount)
    arenaGauge('consensus', '1 in consensus with all connected peers.', arena => (arena.consensus ? 1 : 0))

    // There from the start, so that a rate can be taken of what has not happened yet.
    for (const name of ['peer_bytes_up', 'peer_bytes_down', 'actor_restarts', 'connections_refused', 'pairings']) {
      this.#counter(name)
    }
  }

  /** Adds to the counter `realize_<name>_total`. @param of which peer, arena or actor */
  count(name: string, amount: number, of = ''): void {
    if (!Number.isFinite(amount) || amount < 0) return
    this.#counter(name)?.inc({ of }, amount)
  }

  text(): Promise<string> {
    return this.#registry.metrics()
  }

  #counter(name: string): Counter<'of'> | undefined {
    const known = this.#counters.get(name)
    if (known) return known
    if (this.#counters.size >= COUNTERS_MAX || !/^[a-z][a-z0-9_]{0,80}$/.test(name)) return undefined
    const counter = new Counter({
      name: `realize_${name}_total`,
      help: `${name.replaceAll('_', ' ')} since the service started.`,
      labelNames: ['of'] as const,
      registers: [this.#registry],
    })
    this.#counters.set(name, counter)
    return counter
  }
}
