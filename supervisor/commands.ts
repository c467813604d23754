/** The methods of the control socket that the supervisor answers itself, and the way of the others to their arena. */
import { arch, platform, release } from 'node:os'
import { isAbsolute } from 'node:path'
import {
  type ControlMethodName,
  type ControlParams,
  type ControlResult,
  controlMethods,
  type DiagResult,
} from '../protocol/control.ts'
import { SyncError, toFailure } from '../protocol/error.ts'
import type { ArenaName } from '../protocol/ids.ts'
import { addArena, addPeer, removeArena, removePeer, setArenaKey, setPeerKey } from './config-edit.ts'
import { ControlError, type Session } from './control.ts'
import { parsePeerId } from './identity.ts'
import { invite, joinByCode, makeFolder } from './pairing.ts'
import { listArenas, missingOf } from './status.ts'
import { subscribe } from './subscriptions.ts'
import type { Supervisor } from './supervisor.ts'

type Command<Name extends ControlMethodName> = (
  supervisor: Supervisor,
  params: ControlParams<Name>,
  session: Session,
) => ControlResult<Name> | Promise<ControlResult<Name>>

type SupervisorMethodName = {
  [Name in ControlMethodName]: (typeof controlMethods)[Name]['forwardedTo'] extends 'supervisor' ? Name : never
}[ControlMethodName]

/** An arena that is busy with something large answers late; one that says nothing for this long is given up on. */
const ARENA_ANSWER_MS = 120_000
/** These take as long as there is content or there are files. */
const UNLIMITED: ReadonlySet<ControlMethodName> = new Set([
  'rescan',
  'settle',
  'verify',
  'restore',
  'resolve',
  'fetch',
  'evict',
])
/** One round of asking an arena to settle: a client that has gone is noticed between two. */
const SETTLE_ROUND_MS = 60_000
/** How long arenas that each have settled may take to be in consensus at the same time, before all are asked again. */
const TOGETHER_MS = 5_000
/** Before an arena that could not answer is asked again. */
const SETTLE_AGAIN_MS = 500

/** Answers one request. Throws SyncErrors. */
export function answer(supervisor: Supervisor) {
  return async (method: ControlMethodName, params: Record<string, unknown>, session: Session): Promise<unknown> => {
    if (controlMethods[method].forwardedTo === 'arena') {
      const { arena, ...rest } = params
      return supervisor.arenas.ask(arena as ArenaName, method, rest, UNLIMITED.has(method) ? Infinity : ARENA_ANSWER_MS)
    }
    const command = commands[method as SupervisorMethodName] as Command<SupervisorMethodName>
    // The parameters have passed this method's schema.
    return command(supervisor, params as ControlParams<SupervisorMethodName>, session)
  }
}

const commands: { [Name in SupervisorMethodName]: Command<Name> } = {
  id: ({ identity, config }) => ({ id: identity.id, name: config.peer.name }),

  status: supervisor => supervisor.status,

  async arena_add(supervisor, { name, path, peers, mark }) {
    if (path !== null && !isAbsolute(path)) throw new SyncError('usage', `'${path}' is not an absolute path`)
    if (path === null && mark === 'real') throw noFolder(name)
    if (path !== null) supervisor.mounts.checkRoots([path])
    await supervisor.edit((text, config) => {
      const edited = addArena(text, { name, path, ...(peers ? { peers } : {}), ...(mark ? { mark } : {}) })
      for (const peer of peers ?? []) {
        if (!config.peers.some(one => one.name === peer)) throw unknownPeer(peer)
      }
      if (path !== null) makeFolder(path)
      return edited
    })
    return { name, path }
  },

  arena_list: ({ config, arenas }) => ({ arenas: listArenas(config.arenas, arenas.statuses) }),

  async arena_remove(supervisor, { name }) {
    const settings = supervisor.arenas.settings.find(one => one.name === name)
    // What could not be given up yet may be nowhere else.
    const left = settings?.root === null ? supervisor.arenas.status(name).realBytes : 0
    if (left > 0)
      throw new SyncError(
        'busy',
        `${left} bytes of '${name}' are still here, perhaps nowhere else: 'realize ls' says why; try again`,
      )
    await supervisor.edit(text => removeArena(text, name))
    // A later arena of this name begins anew: it would take what this one knew for deleted.
    if (settings) supervisor.arenas.forget(settings)
    return {}
  },

  async arena_pause(supervisor, { name }) {
    await supervisor.edit(text => setArenaKey(text, name, 'paused', true))
    return {}
  },

  async arena_resume(supervisor, { name }) {
    await supervisor.edit(text => setArenaKey(text, name, 'paused', false))
    if (supervisor.arenas.status(name).state === 'guarded') {
      await supervisor.arenas.ask(name, 'accept_guard', {}, ARENA_ANSWER_MS)
    }
    return {}
  },

  async mark(supervisor, { arena, path, mark }) {
    if (path !== undefined) {
      await supervisor.arenas.ask(arena, 'mark', { path, mark }, ARENA_ANSWER_MS)
      return {}
    }
    if (mark === 'real' && supervisor.config.arenas.some(one => one.name === arena && one.path === null))
      throw noFolder(arena)
    await supervisor.edit(text => setArenaKey(text, arena, 'mark', mark === 'clear' ? null : mark))
    return {}
  },

  async peer_add(supervisor, { name, id, addresses }) {
    const parsed = parsePeerId(id)
    if (parsed === supervisor.identity.id) throw new SyncError('usage', 'this is the ID of this very peer')
    await supervisor.edit(text => addPeer(text, { name, id: parsed, addresses }))
    return { name, id: parsed }
  },

  peer_list: ({ connections }) => ({ peers: connections.peers }),

  async peer_remove(supervisor, { name }) {
    await supervisor.edit(text => removePeer(text, name))
    return {}
  },

  async peer_connect(supervisor, { name }) {
    await supervisor.edit(text => setPeerKey(text, name, 'paused', false))
    const peer = supervisor.config.peers.find(one => one.name === name)
    if (peer) supervisor.connections.connect(peer.id)
    return {}
  },

  async peer_disconnect(supervisor, { name }) {
    await supervisor.edit(text => setPeerKey(text, name, 'paused', true))
    return {}
  },

  mount(supervisor, { path, allowOther }) {
    if (!isAbsolute(path)) throw new SyncError('usage', `'${path}' is not an absolute path`)
    return supervisor.mounts.mount(path, allowOther ?? false)
  },

  async umount(supervisor, { path }) {
    if (!isAbsolute(path)) throw new SyncError('usage', `'${path}' is not an absolute path`)
    await supervisor.mounts.umount(path)
    return {}
  },

  invite: (supervisor, { arenas, expiresSeconds }) =>
    invite(supervisor, arenas, expiresSeconds === undefined ? undefined : expiresSeconds * 1000),

  join(supervisor, { code, path }) {
    if (path !== undefined && !isAbsolute(path)) throw new SyncError('usage', `'${path}' is not an absolute path`)
    if (path !== undefined) supervisor.mounts.checkRoots([path])
    return joinByCode(supervisor, code, path)
  },

  async config_reload(supervisor) {
    await supervisor.reload()
    return {}
  },

  diag: supervisor => diagnose(supervisor),

  metrics: async ({ metrics }) => ({ text: await metrics.text() }),

  async debug_kill_thread(supervisor, { name }) {
    await supervisor.kill(name)
    return {}
  },

  async subscribe(supervisor, params, session) {
    await subscribe(supervisor, params, session)
    return {}
  },

  wait: (supervisor, params, session) => waitForConsensus(supervisor, params, session),
}

/**
 * Resolves when all arenas in question (without `arena`: those that are not paused) have looked at their disks and are in
 * consensus at the same time. Throws `timed_out` with what is missing.
 */
async function waitForConsensus(
  supervisor: Supervisor,
  { arena, timeoutSeconds }: ControlParams<'wait'>,
  session: Session,
): Promise<{ consensus: true }> {
  const { arenas, bell, clock } = supervisor
  if (arena !== undefined) arenas.status(arena)
  const endMs = clock.nowMs() + (timeoutSeconds ?? Infinity) * 1000
  const leftMs = () => Math.max(0, endMs - clock.nowMs())
  const wanted = () =>
    arenas.statuses.filter(one => (arena === undefined ? one.state !== 'paused' : one.name === arena))
  for (;;) {
    const names = wanted().map(one => one.name)
    const round = Math.floor(Math.min(SETTLE_ROUND_MS, leftMs()))
    const answers = await Promise.all(names.map(name => settle(supervisor, name, round)))
    const missing = answers.flatMap(one => one.missing)
    // What was settled first may have changed until the last one was, and a status may come a little after its answer.
    const togetherMs = clock.nowMs() + TOGETHER_MS
    while (missing.length === 0 && !session.gone.aborted) {
      if (missingOf(wanted()).length === 0) return { consensus: true }
      const restMs = Math.min(togetherMs - clock.nowMs(), leftMs())
      if (restMs <= 0) break
      await bell.nextChange(restMs, session.gone)
    }
    if (session.gone.aborted) throw new SyncError('peer_closed', 'the one who asked has gone')
    if (leftMs() === 0) {
      const causes = missing.length > 0 ? missing : missingOf(wanted())
      const list = causes.length > 0 ? causes : ['the arenas did not answer in time']
      throw new ControlError('timed_out', `not in consensus: ${list.slice(0, 3).join('; ')}`, { missing: list })
    }
    if (answers.some(one => one.again)) await bell.nextChange(Math.min(SETTLE_AGAIN_MS, leftMs()), session.gone)
  }
}

interface Settled {
  /** Empty: in consensus. */
  missing: string[]
  /** It could not even be asked: not at once again. */
  again: boolean
}

async function settle({ arenas }: Supervisor, name: ArenaName, timeoutMs: number): Promise<Settled> {
  try {
    const answer = await arenas.ask(name, 'settle', { timeoutMs }, timeoutMs + ARENA_ANSWER_MS)
    const { consensus, missing } = answer as { consensus: boolean; missing: string[] }
    if (consensus) return { missing: [], again: false }
    return {
      missing: missing.length > 0 ? missing.map(cause => `${name}: ${cause}`) : [`${name} is not in consensus`],
      again: true,
    }
  } catch (error) {
    return { missing: [`${name}: ${toFailure(error).message}`], again: true }
  }
}

async function diagnose(supervisor: Supervisor): Promise<DiagResult> {
  return {
    config: redact(supervisor.readConfigText()),
    status: supervisor.status,
    metrics: await supervisor.metrics.text(),
    logs: supervisor.logbook.lines,
    versions: {
      realize: supervisor.version,
      platform: `${platform()} ${release()} ${arch()}`,
      ...Object.fromEntries(Object.entries(process.versions).map(([name, version]) => [name, version ?? ''])),
    },
  }
}

/** The configuration without comments (anything may stand there) and without the places where peers can be found. */
export function redact(config: string): string {
  return config
    .replace(/^[ \t]*#.*$/gm, '#')
    .replace(/(\b(?:addresses|listen)"?\s*=\s*)\[[^\]]*\](?:[^\]\n]*"[^\n]*)?/g, '$1["(removed)"]')
}

function noFolder(arena: string): SyncError {
  return new SyncError('usage', `'${arena}' has no folder here: nothing in it can be real`)
}

function unknownPeer(name: string): SyncError {
  return new SyncError('peer_unknown', `there is no peer '${name}': \`realize peer list\` shows them`)
}
