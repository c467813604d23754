/** Taking a peer into the household by a code: the side that invited and the side that joins. */
import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { ADDRESSES_MAX, type ControlResult } from '../protocol/control.ts'
import { SyncError, toFailure } from '../protocol/error.ts'
import type { ArenaName, PeerId } from '../protocol/ids.ts'
import type { SharedArena } from '../protocol/ports.ts'
import { type Config, formatAddress, parseAddress } from './config.ts'
import { addArena, addPeer, addPeerToArena, freePeerName, setArenaKey } from './config-edit.ts'
import type { Paired } from './connections.ts'
import { decodeInvite, encodeInvite, INVITE_ADDRESSES_MAX } from './invite-code.ts'
import { sharedOf } from './rights.ts'
import type { Supervisor } from './supervisor.ts'

/** The next address of a code is tried this long after the one before, if that has not answered yet. */
const NEXT_ADDRESS_MS = 500

/** @param arenas undefined: all there are when the code is used. Throws `arena_unknown`, `limit_exceeded`, `config_invalid` */
export function invite(
  supervisor: Supervisor,
  arenas: ArenaName[] | undefined,
  lifeMs: number | undefined,
): ControlResult<'invite'> {
  for (const name of arenas ?? []) {
    if (!supervisor.config.arenas.some(arena => arena.name === name)) {
      throw new SyncError(
        'arena_unknown',
        `there is no arena '${name}' here: \`realize arena list\` shows what there is`,
      )
    }
  }
  const addresses = supervisor.addresses.slice(0, INVITE_ADDRESSES_MAX)
  if (addresses.length === 0) {
    throw new SyncError(
      'config_invalid',
      `this peer takes no connections, so nobody could use a code: set \`listen\` in ${supervisor.home.config}, or invite from the other peer`,
    )
  }
  const made = supervisor.invites.create(arenas ?? null, lifeMs)
  supervisor.logbook.write('invite_created', {
    arenas: arenas?.join(),
    expires: new Date(made.expiresAtMs).toISOString(),
  })
  const code = encodeInvite({ ...made, peer: supervisor.identity.id, addresses })
  return { code, expiresAtMs: made.expiresAtMs }
}

/** Somebody proved to know an invite's secret. Throws `invite_invalid` if it is used up. */
export async function admit(
  supervisor: Supervisor,
  inviteId: string,
  peer: PeerId,
  theirName: string,
  addresses: string[],
): Promise<SharedArena[]> {
  const invitation = supervisor.invites.take(inviteId)
  if (!invitation || peer === supervisor.identity.id) {
    supervisor.logbook.write('invite_refused', { peer, theirName })
    throw used()
  }
  let name = ''
  await supervisor.edit((text, config) => {
    const known = config.peers.find(one => one.id === peer)
    name =
      known?.name ??
      freePeerName(
        theirName,
        config.peers.map(one => one.name),
      )
    let edited = known ? text : restrict(text, config, invitation.arenas)
    if (!known) edited = addPeer(edited, { name, id: peer, addresses: sound(addresses) })
    for (const arena of config.arenas) {
      if (invitation.arenas === null || invitation.arenas.includes(arena.name))
        edited = addPeerToArena(edited, arena.name, name)
    }
    return edited
  })
  supervisor.metrics.count('pairings', 1)
  supervisor.logbook.write('peer_paired', { peer: name, id: peer, by: 'our invitation' })
  return supervisor.config.arenas
    .filter(arena => invitation.arenas === null || invitation.arenas.includes(arena.name))
    .map(sharedOf)
}

/** Uses a code. @param path absolute: the folder of the arena if one is shared, else the folder for their folders */
export async function joinByCode(
  supervisor: Supervisor,
  code: string,
  path: string | undefined,
): Promise<ControlResult<'join'>> {
  const invitation = decodeInvite(code, supervisor.clock.wallMs())
  if (invitation.peer === supervisor.identity.id) {
    throw new SyncError('invite_invalid', 'this code was made by this very peer: use it on the other one')
  }
  const attempt = { invite: invitation.invite, secret: invitation.secret }
  const paired = await firstOf(invitation.addresses, address =>
    supervisor.connections.pair(invitation.peer, address, attempt),
  )
  const name = await addInviter(supervisor, paired, invitation.addresses)
  const arenas: { name: ArenaName; path: string }[] = []
  const problems: string[] = []
  for (const shared of paired.arenas) {
    try {
      arenas.push(
        await addShared(supervisor, shared, name, folderOf(supervisor, shared.name, path, paired.arenas.length)),
      )
    } catch (error) {
      problems.push(`${shared.name}: ${toFailure(error).message}`)
    }
  }
  supervisor.connections.connect(paired.peer)
  supervisor.metrics.count('pairings', 1)
  supervisor.logbook.write('peer_paired', { peer: name, id: paired.peer, by: 'their invitation' })
  if (problems.length > 0) {
    throw new SyncError(
      'config_invalid',
      `paired with ${name}, but not every arena could be added: ${problems.join('; ')}. Add it with \`realize arena add\``,
    )
  }
  return { peer: { name, id: paired.peer }, arenas }
}

async function addInviter(supervisor: Supervisor, paired: Paired, dialled: readonly string[]): Promise<string> {
  const addresses = sound([...dialled, ...paired.addresses])
  let name = ''
  await supervisor.edit((text, config) => {
    const known = config.peers.find(one => one.id === paired.peer)
    name =
      known?.name ??
      freePeerName(
        paired.name,
        config.peers.map(one => one.name),
      )
    return known ? text : addPeer(text, { name, id: paired.peer, addresses })
  })
  return name
}

async function addShared(
  supervisor: Supervisor,
  shared: SharedArena,
  peerName: string,
  folder: { path: string; text: string },
): Promise<{ name: ArenaName; path: string }> {
  const present = () => supervisor.config.arenas.find(arena => arena.name === shared.name)
  await supervisor.edit((text, config) => {
    if (config.arenas.some(arena => arena.name === shared.name)) return addPeerToArena(text, shared.name, peerName)
    makeFolder(folder.path)
    return addArena(text, {
      name: shared.name,
      path: folder.text,
      ...(shared.conflicts === 'newest' ? { conflicts: 'newest' } : {}),
    })
  })
  return { name: shared.name, path: present()?.path ?? folder.path }
}

/** Where an arena that somebody shares goes, and how that is written in the configuration. */
function folderOf(
  supervisor: Supervisor,
  name: ArenaName,
  path: string | undefined,
  count: number,
): { path: string; text: string } {
  const { given } = supervisor.home
  if (path !== undefined) {
    const whole = count === 1 ? path : join(path, name)
    return { path: whole, text: whole }
  }
  if (given !== null) return { path: join(given, name), text: join(given, name) }
  return { path: join(supervisor.homedir, name), text: `~/${name}` }
}

/** The folder a user asked for. Throws `config_invalid` if something else is there or it cannot be made. */
export function makeFolder(path: string): void {
  const there = statSync(path, { throwIfNoEntry: false })
  if (there && !there.isDirectory())
    throw new SyncError('config_invalid', `${path} is not a folder: choose another path`)
  try {
    mkdirSync(path, { recursive: true })
  } catch (error) {
    throw new SyncError('config_invalid', `the folder ${path} cannot be made: ${toFailure(error).message}`)
  }
}

/**
 * An invitation to some arenas is to no others: those that are shared with the whole household are from now on shared with
 * the peers that it has today.
 */
function restrict(text: string, config: Config, invited: readonly ArenaName[] | null): string {
  if (invited === null) return text
  const present = config.peers.map(peer => peer.name)
  return config.arenas
    .filter(arena => arena.peers === null && !invited.includes(arena.name))
    .reduce((edited, arena) => setArenaKey(edited, arena.name, 'peers', present), text)
}

function used(): SyncError {
  return new SyncError('invite_invalid', 'this code has been used or has expired: ask for a new one')
}

/** Addresses that can stand in a configuration, each once: what comes from another peer may be anything. */
function sound(addresses: readonly string[]): string[] {
  const texts = new Set<string>()
  for (const address of addresses) {
    try {
      texts.add(formatAddress(parseAddress(address)))
    } catch {
      // Of no use to anybody.
    }
  }
  return [...texts].slice(0, ADDRESSES_MAX)
}

/** Tries addresses, each a little after the one before, until one leads to a pairing. Throws the most telling failure. */
async function firstOf(addresses: readonly string[], pair: (address: string) => Promise<Paired>): Promise<Paired> {
  const found = new AbortController()
  const failures: string[] = []
  let told: SyncError | undefined
  const attempts = addresses.map(async (address, i) => {
    await delay(i * NEXT_ADDRESS_MS, undefined, { signal: found.signal })
    try {
      return await pair(address)
    } catch (error) {
      const failure = toFailure(error)
      failures.push(`${address}: ${failure.message}`)
      // The other one answered and refused: no other address will change its mind.
      if (failure.code === 'invite_invalid' || failure.code === 'version_unsupported') {
        told ??= new SyncError(failure.code, failure.message)
      }
      // With no code open there, a stranger is refused before it can show one. (Somebody else at this address is no answer.)
      if (failure.code === 'peer_unknown' && !failure.message.startsWith(`at ${address} is`)) told ??= used()
      throw error
    }
  })
  try {
    return await Promise.any(attempts)
  } catch {
    if (told) throw told
    throw new SyncError('peer_closed', `the peer that invited could not be reached: ${failures.join('; ')}`)
  } finally {
    found.abort()
  }
}
