/**
 * The history in its table: what one transaction records is one row, under the number of its first event. The oldest rows are dropped as a
 * whole.
 */
import type { ArenaName, EntryPath } from '../../protocol/ids.ts'
import type { HistoryAction, HistoryEvent } from '../../protocol/status.ts'
import type { Row, Tables } from './tables.ts'
import { numberKey, numberOf } from './tree-keys.ts'

/** Events kept, at least; older ones are dropped. */
const HISTORY_MAX = 100_000
/** Events of one row. */
const ROW_MAX = 1000

type Event = Omit<HistoryEvent, 'number'>
/** In the order of `packEvent`. */
type PackedEvent = [number, ArenaName, HistoryAction, EntryPath, EntryPath | null, string, string, number | null]

export interface HistoryRows {
  /** Inside a transaction. `number`: one more than the last. */
  add(number: number, event: Event): void
  /** Up to `limit` events with numbers below `before`, newest first; sees what a transaction has added so far. */
  read(before: number, limit: number): HistoryEvent[]
  /** Writes what was added; inside the transaction. */
  write(): void
  /** Forgets what was not written. */
  forget(): void
}

export function openHistoryRows(tables: Tables): HistoryRows {
  let added: HistoryEvent[] = []

  return {
    add: (number, event) => void added.push({ ...event, number }),
    read(before, limit) {
      const events: HistoryEvent[] = []
      const take = (those: readonly HistoryEvent[]) => {
        for (let at = those.length - 1; at >= 0 && events.length < limit; at--) {
          const event = those[at] as HistoryEvent
          if (event.number < before) events.push(event)
        }
      }
      take(added)
      for (let end = numberKey(before); events.length < limit; ) {
        const rows = tables.range('history', null, end, Math.min(limit, 64), true)
        for (const row of rows) take(eventsOf(row))
        if (rows.length === 0) break
        end = (rows.at(-1) as Row).key
      }
      return events
    },
    write() {
      for (let from = 0; from < added.length; from += ROW_MAX) {
        const row = added.slice(from, from + ROW_MAX)
        tables.put('history', numberKey((row[0] as HistoryEvent).number), row.map(packEvent))
      }
      const last = added.at(-1)?.number
      added = []
      if (last !== undefined && last > HISTORY_MAX) dropOldest(tables, last - HISTORY_MAX)
    },
    forget() {
      added = []
    },
  }
}

/** Rows of which every event has a number up to `upTo`. */
function dropOldest(tables: Tables, upTo: number): void {
  for (;;) {
    const [row] = tables.range('history', null, numberKey(upTo + 1), 1)
    if (row === undefined || numberOf(row.key) + lengthOf(row) - 1 > upTo) return
    tables.remove('history', row.key)
  }
}

/** A row of an earlier version is one event. */
function lengthOf({ value }: Row): number {
  return Array.isArray(value) ? value.length : 1
}

function eventsOf({ key, value }: Row): HistoryEvent[] {
  const first = numberOf(key)
  if (!Array.isArray(value)) return [{ ...(value as Event), number: first }]
  return (value as PackedEvent[]).map((packed, index) => ({ ...unpackEvent(packed), number: first + index }))
}

function packEvent({ atMs, arena, action, path, other, author, version, size }: HistoryEvent): PackedEvent {
  return [atMs, arena, action, path, other ?? null, author, version, size ?? null]
}

function unpackEvent([atMs, arena, action, path, other, author, version, size]: PackedEvent): Event {
  return {
    atMs,
    arena,
    action,
    path,
    author,
    version,
    ...(other !== null && { other }),
    ...(size !== null && { size }),
  }
}
