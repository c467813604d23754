/** What the parts of an arena share: its store and disk, its clock, and where its words go. */
import type { BlobHash, EntryPath, PeerId } from '../../protocol/ids.ts'
import type { LogEvent, LogFields } from '../../protocol/log.ts'
import type { ArenaReport, ArenaSettings, ToPeer } from '../../protocol/ports.ts'
import type { HistoryEvent, Problem } from '../../protocol/status.ts'
import type { Cache } from './cache.ts'
import type { Disk } from './disk.ts'
import type { Marks } from './marks.ts'
import type { RecentContent } from './recent.ts'
import type { Rules } from './rules.ts'
import type { Store } from './store.ts'
import { type Version, versionTag } from './version.ts'

export interface Clock {
  /** Monotonic milliseconds. */
  nowMs(): number
  /** Milliseconds since 1970: for people, for names and for what mtimes are compared with; never to order changes. */
  wallMs(): number
}

export type ArenaOutput = { to: 'supervisor'; report: ArenaReport } | { to: 'peer'; peer: PeerId; message: ToPeer }

export interface ArenaContext {
  settings: ArenaSettings
  readonly store: Store
  readonly disk: Disk
  readonly cache: Cache
  readonly clock: Clock
  /** 16 random hex digits. */
  readonly random: () => string
  readonly deliver: (output: ArenaOutput) => void
  readonly problems: Problems
  readonly timers: Timers
  readonly recent: RecentContent
  readonly marks: Marks
  readonly rules: Rules
}

export function log(context: ArenaContext, event: LogEvent, fields: LogFields): void {
  context.deliver({
    to: 'supervisor',
    report: { type: 'log', event, fields: { arena: context.settings.name, ...fields } },
  })
}

export function count(context: ArenaContext, counters: Record<string, number>): void {
  context.deliver({ to: 'supervisor', report: { type: 'count', counters } })
}

export function tell(context: ArenaContext, events: readonly HistoryEvent[]): void {
  if (events.length > 0) context.deliver({ to: 'supervisor', report: { type: 'history', events: [...events] } })
}

/** A row of history, without its number. */
export function historyOf(
  context: ArenaContext,
  action: HistoryEvent['action'],
  path: EntryPath,
  version: Version,
  more: { other?: EntryPath; size?: number } = {},
): Omit<HistoryEvent, 'number'> {
  return {
    atMs: context.clock.wallMs(),
    arena: context.settings.name,
    action,
    path,
    author: version.author,
    version: versionTag(version),
    ...more,
  }
}

/** Paths that are not as they should be, each with its reason; bounded. */
export class Problems {
  readonly #reasons = new Map<EntryPath | string, Problem>()
  #dropped = 0

  set(path: EntryPath | string, reason: string, note = false): void {
    if (!this.#reasons.has(path) && this.#reasons.size >= PROBLEMS_REMEMBERED) {
      this.#dropped++
      return
    }
    this.#reasons.set(path, { path, reason, ...(note && { note }) })
  }

  clear(path: EntryPath | string): void {
    this.#reasons.delete(path)
  }

  clearAll(): void {
    this.#reasons.clear()
    this.#dropped = 0
  }

  get(path: EntryPath | string): Problem | undefined {
    return this.#reasons.get(path)
  }

  get count(): number {
    return this.#reasons.size + this.#dropped
  }

  list(limit: number): Problem[] {
    const list: Problem[] = []
    for (const problem of this.#reasons.values()) {
      if (list.length >= limit) break
      list.push(problem)
    }
    return list
  }
}
const PROBLEMS_REMEMBERED = 10_000

/** Named alarms on the injected clock. The shell asks for `nextMs` and calls `ring`. */
export class Timers {
  readonly #alarms = new Map<string, { atMs: number; run: () => void }>()

  /** Sets or moves an alarm. */
  set(name: string, atMs: number, run: () => void): void {
    this.#alarms.set(name, { atMs, run })
  }

  /** Sets an alarm unless it is set already for an earlier time. */
  soon(name: string, atMs: number, run: () => void): void {
    const alarm = this.#alarms.get(name)
    if (!alarm || alarm.atMs > atMs) this.set(name, atMs, run)
  }

  clear(name: string): void {
    this.#alarms.delete(name)
  }

  get nextMs(): number {
    let next = Number.POSITIVE_INFINITY
    for (const { atMs } of this.#alarms.values()) next = Math.min(next, atMs)
    return next
  }

  ring(nowMs: number): void {
    const due = [...this.#alarms].filter(([, alarm]) => alarm.atMs <= nowMs).sort((a, b) => a[1].atMs - b[1].atMs)
    for (const [name, alarm] of due) {
      if (this.#alarms.get(name) !== alarm) continue
      this.#alarms.delete(name)
      alarm.run()
    }
  }
}

/** Content whose hash is known: what a look at a file brings. */
export interface Hashed {
  readonly hash: BlobHash
  /** Leaf hashes if there is more than one. */
  readonly leaves: Uint8Array | null
}
