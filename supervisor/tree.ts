/**
 * Every kind of actor: where it runs, what it needs first and what becomes of it when it dies. Entries, numbers of threads
 * and restart policies are taken from here; `after` is the order that `Supervisor.start` keeps.
 */
import type { RestartPolicy } from './restart.ts'

const steady: RestartPolicy = {
  restart: 'always',
  failureHalfLifeMs: 60_000,
  failuresMax: 5,
  backoffMs: 200,
  pauseMs: 30_000,
}
/** Ends and begins with the service itself. */
const never: RestartPolicy = { ...steady, restart: 'never' }

export type Placement =
  /** On the supervisor's own thread. */
  | { on: 'main' }
  /** A worker thread for each. */
  | { on: 'own thread' }
  /** So many worker threads of ours, to which the actors are dealt. */
  | { on: 'threads'; count: number }
  /** A piscina pool of one thread a core. */
  | { on: 'pool' }

export interface ActorSpec {
  placement: Placement
  /** Thread entry, or null for what runs on the main thread or brings its own. */
  entry: URL | null
  /** One for each of these. */
  each: 'service' | 'arena' | 'connection' | 'mount'
  after: readonly ActorKind[]
  policy: RestartPolicy
}

export type ActorKind = 'control' | 'hasher' | 'arena' | 'watcher' | 'peer' | 'listener' | 'view'

export const tree: Record<ActorKind, ActorSpec> = {
  hasher: { placement: { on: 'pool' }, entry: null, each: 'service', after: [], policy: steady },
  arena: {
    placement: { on: 'own thread' },
    entry: entry('arena'),
    each: 'arena',
    after: ['hasher', 'listener'],
    policy: steady,
  },
  // @parcel/watcher cannot be loaded again in a worker once the thread that loaded it has ended.
  watcher: { placement: { on: 'main' }, entry: null, each: 'arena', after: ['arena'], policy: steady },
  peer: {
    placement: { on: 'threads', count: 2 },
    entry: entry('peer'),
    each: 'connection',
    after: ['control'],
    policy: steady,
  },
  view: { placement: { on: 'own thread' }, entry: entry('view'), each: 'mount', after: ['arena'], policy: steady },
  listener: { placement: { on: 'main' }, entry: null, each: 'service', after: ['peer'], policy: never },
  control: { placement: { on: 'main' }, entry: null, each: 'service', after: [], policy: never },
}

/** The compiled worker of an actor, beside this compiled file. */
function entry(actor: 'arena' | 'peer' | 'view'): URL {
  return new URL(`../actors/${actor}/worker.js`, import.meta.url)
}
