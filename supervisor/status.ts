/** What `status`, `peer list` and `arena list` show, put together from what the actors said last. Pure. */
import type { ActorStatus, ListedArena, MountStatus, PeerStatus, StatusResult } from '../protocol/control.ts'
import type { PeerId } from '../protocol/ids.ts'
import type { ArenaStatus } from '../protocol/status.ts'
import type { ArenaConfig } from './config.ts'

export interface StatusParts {
  name: string
  id: PeerId
  version: string
  /** Monotonic. */
  startedMs: number
  nowMs: number
  peers: PeerStatus[]
  arenas: ArenaStatus[]
  mounts: MountStatus[]
  actors: ActorStatus[]
}

export function composeStatus(parts: StatusParts): StatusResult {
  const uptime = Math.max(0, Math.round((parts.nowMs - parts.startedMs) / 1000))
  return {
    peer: { name: parts.name, id: parts.id, version: parts.version, uptime },
    peers: parts.peers,
    arenas: parts.arenas,
    mounts: parts.mounts,
    actors: parts.actors,
  }
}

/** Each configured arena with how it stands. One that is only now being set up has no status yet. */
export function listArenas(configs: readonly ArenaConfig[], statuses: readonly ArenaStatus[]): ListedArena[] {
  return configs.map(({ name, path, peers, mark, paused }) => {
    const status = statuses.find(one => one.name === name)
    return {
      name,
      path,
      peers: peers === null ? null : [...peers],
      mark,
      state: status?.state ?? (paused ? 'paused' : 'scanning'),
      reason: status?.reason ?? null,
    }
  })
}

/** Why these arenas are not in consensus, one line a cause; empty if they are. */
export function missingOf(statuses: readonly ArenaStatus[]): string[] {
  return statuses
    .filter(status => !status.consensus)
    .flatMap(({ name, missing, reason, state }) => {
      const causes = missing.length > 0 ? missing : [reason ?? `it is ${state}`]
      return causes.map(cause => (cause.includes(name) ? cause : `${name}: ${cause}`))
    })
}
