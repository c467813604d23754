/** Versions that this peer makes: a user's change here, or what the peer itself does instead of one. */
import type { ArenaContext } from './context.ts'
import type { Writer } from './store.ts'
import { type Content, changeVersion, type Version } from './version.ts'

/**
 * Counted as this replica's next change; inside the transaction that stores it.
 *
 * @param change `base`: what the change was made of; `known`: the best version heard of, null for either if there is none; `firstScan`:
 *   whether the store has no history yet (default: it has)
 */
export function ownVersion(
  { store, settings, clock }: ArenaContext,
  writer: Writer,
  change: { content: Content; base: Version | null; known: Version | null; firstScan?: boolean },
): Version {
  return changeVersion({
    firstScan: false,
    ...change,
    replica: store.state().replica,
    count: writer.nextCount(),
    author: settings.author,
    policy: settings.conflicts === 'newest' ? 'newest' : 'keep-both',
    nowMs: clock.wallMs(),
  })
}
