/** A change that was found on this disk becomes part of the store, case by case as docs/reconciliation.md has them. */
import type { EntryPath } from '../../protocol/ids.ts'
import type { HistoryEvent } from '../../protocol/status.ts'
import { type ArenaContext, historyOf } from './context.ts'
import { ownVersion } from './own-version.ts'
import { isUnshown } from './plan.ts'
import { isLostWrite, leftBehind } from './power-loss.ts'
import type { Writer } from './store.ts'
import type { Change } from './telling.ts'
import { type Content, living, mtimeOf, sameContent, type Version } from './version.ts'

/** What it takes besides the change. */
export interface Taking {
  readonly context: ArenaContext
  /** The first scan is going on: what it finds has no history. */
  readonly firstScan: boolean
  /** Paths that may show less than they should since the machine went down. Those that are taken are none any more. */
  readonly suspects: Set<EntryPath>
  /** What the user saw at a path that showed nothing here, when putting something there; null: nothing. */
  seen(path: EntryPath): Version | null
}

/** What comes of it: nothing that others need to know, news for them, or work here. */
export type Taken = 'nothing' | 'announced' | 'pending'

/** Makes one change part of the store. `events`: history is added. */
export function takeChange(around: Taking, writer: Writer, change: Change, events: HistoryEvent[]): Taken {
  const { context, firstScan } = around
  const { store, rules } = context
  const { path, stamp } = change
  const entry = store.entry(path)
  const seen = entry && !living(entry.have) ? around.seen(path) : null
  const base = seen ?? entry?.have ?? null
  const suspect = around.suspects.delete(path)
  if (change.leaves && change.content.type === 'file') writer.putLeaves(change.content.hash, change.leaves)
  const content: Content =
    change.content.type === 'gone'
      ? { type: 'gone', deleted: base?.content.type === 'file' ? base.content.hash : null }
      : change.content
  if (content.type === 'gone' && !living(base)) {
    // Never shown, or a folder that only held something.
    if (entry?.dormant) writer.putEntry({ ...entry, dormant: false }, false)
    return 'nothing'
  }
  if (content.type === 'dir' && entry?.dormant) return 'nothing'
  if (entry && seen && same(seen.content, content) && !same(entry.known.content, content)) {
    // What the user saw, brought from elsewhere; something else is known by now.
    writer.putEntry({ ...entry, have: seen, stamp, dormant: false, pending: true, announced: false }, false)
    return 'pending'
  }
  if (entry && base && seen === null && same(base.content, content)) {
    // The same as before: only how to recognise it has changed.
    writer.putEntry({ ...entry, stamp, dormant: false }, false)
    return 'nothing'
  }
  if (entry && (entry.pending || isUnshown(entry)) && same(entry.known.content, content)) {
    // What was to come, or need not, is here already: a batch that was cut off, or the user did the same.
    writer.putEntry(
      { ...entry, have: entry.known, stamp, dormant: false, pending: false, announced: false, former: base },
      true,
    )
    return 'announced'
  }
  if (entry && suspect && isLostWrite(entry, content, stamp)) {
    // Not a user's change: the power went before it was durable. What is known is to come again.
    const left = { have: leftBehind(entry, content), stamp, pending: true, announced: false, lost: true } as const
    writer.putEntry({ ...entry, ...left }, false)
    return 'pending'
  }
  const version = ownVersion(context, writer, {
    content,
    // What a power loss may have undone, the user need not have seen.
    base: entry && suspect ? entry.former : (seen ?? rules.base(entry)),
    known: entry?.known ?? null,
    firstScan,
  })
  const { known } = rules.meet(entry?.known ?? null, version)
  const have: Version = same(known.content, content) ? known : version
  const pending = have !== known
  // What was merged with a change of ours is news for its origin, too.
  const origin = entry && known === entry.known ? entry.origin : null
  writer.putEntry(
    { path, seq: 0, known, have, stamp, dormant: false, origin, pending, announced: false, former: base },
    !pending,
  )
  record(around, writer, change, base, version, events)
  return pending ? 'pending' : 'announced'
}

function record(
  { context, firstScan }: Taking,
  writer: Writer,
  change: Change,
  base: Version | null,
  version: Version,
  events: HistoryEvent[],
): void {
  const { content } = version
  const action =
    content.type === 'gone' ? 'deleted' : change.from !== undefined ? 'renamed' : living(base) ? 'edited' : 'created'
  const more = {
    ...(change.from !== undefined && { other: change.from }),
    ...(content.type === 'file' && { size: content.size }),
  }
  if ((firstScan && action === 'created') || change.to !== undefined) return
  events.push(writer.addHistory(historyOf(context, action, change.path, version, more)))
}

/** The same content and the same mtime: nothing to say. */
function same(a: Content, b: Content): boolean {
  return sameContent(a, b) && mtimeOf(a) === mtimeOf(b)
}
