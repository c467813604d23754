/** Which peer may have which arena, and what follows from the configuration for each arena's settings. Pure. */
import { join } from 'node:path'
import type { ArenaName, Author, PeerId } from '../protocol/ids.ts'
import type { ArenaSettings, SharedArena } from '../protocol/ports.ts'
import type { ArenaConfig, Config } from './config.ts'

/** Peers that may have an arena: those it names, or the whole household. */
export function peersOf(config: Config, arena: ArenaConfig): PeerId[] {
  const { peers } = arena
  return config.peers.filter(peer => peers === null || peers.includes(peer.name)).map(peer => peer.id)
}

/** Arenas that a peer may have, in the configuration's order. */
export function arenasOf(config: Config, peer: PeerId): ArenaName[] {
  return config.arenas.filter(arena => peersOf(config, arena).includes(peer)).map(arena => arena.name)
}

/** Rights of peers that both configurations know: what each gained and lost. */
export function rightsChanged(
  before: Config,
  after: Config,
): { peer: PeerId; gained: ArenaName[]; lost: ArenaName[] }[] {
  const known = new Set(before.peers.map(peer => peer.id))
  return after.peers
    .filter(peer => known.has(peer.id))
    .map(({ id }) => {
      const had = arenasOf(before, id)
      const has = arenasOf(after, id)
      return {
        peer: id,
        gained: has.filter(name => !had.includes(name)),
        lost: had.filter(name => !has.includes(name)),
      }
    })
    .filter(({ gained, lost }) => gained.length > 0 || lost.length > 0)
}

/** @param home its folders */
export function settingsOf(
  config: Config,
  arena: ArenaConfig,
  home: { readonly state: string; readonly cache: string },
  author: Author,
): ArenaSettings {
  return {
    name: arena.name,
    root: arena.path,
    storePath: join(home.state, 'arenas', arena.name),
    mark: arena.mark,
    cache: { path: join(home.cache, arena.name), ...arena.cache },
    author,
    peers: peersOf(config, arena),
    ignore: [...arena.ignore],
    conflicts: arena.conflicts,
    versions: { ...arena.versions },
    guardDeletes: arena.guard.deletes,
    rescanMs: arena.rescanMs,
    paused: arena.paused,
  }
}

/** What one who joins is told of an arena. `local` is our own choice; towards others it is the usual rule. */
export function sharedOf(arena: ArenaConfig): SharedArena {
  return { name: arena.name, conflicts: arena.conflicts === 'newest' ? 'newest' : 'keep-both' }
}
