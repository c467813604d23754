/**
 * The rules of docs/reconciliation.md as far as an arena asks them: one object, so that a test can put the form that one would
 * write first in a rule's place and show what that loses. Production has `RULES` and nothing else.
 */
import type { Cursor, Entry, StoreState } from './store.ts'
import { type Meeting, meet, type Version } from './version.ts'

export interface Rules {
  /** R1: the version that a user's change is based on; null: none. */
  readonly base: (entry: Entry | undefined) => Version | null
  /** R2: what is known once two versions of a path are known. */
  readonly meet: (ours: Version | null, theirs: Version) => Meeting
  /** R3: each change of the tree is written down before it is made. */
  readonly intends: boolean
  /** R4: a folder that only holds something is no version of it, and one that is deleted and still holds something counts as deleted. */
  readonly holds: boolean
  /** R5: what was staged is durable before it gets a name. */
  readonly syncsFirst: boolean
  /** R6: what is remembered of a path when a peer says `theirs` of it: tombstones, too. */
  readonly remembered: (entry: Entry | undefined, theirs: Version) => Entry | undefined
  /** R7: whether a reader's cursor speaks of this very store, as it is. */
  readonly isOurs: (read: Cursor, state: StoreState) => boolean
}

export const RULES: Rules = {
  base: entry => entry?.have ?? null,
  meet,
  intends: true,
  holds: true,
  syncsFirst: true,
  remembered: entry => entry,
  isOurs: (read, state) => {
    const index = state.sessions.findIndex(past => past.token === read.session)
    if (index < 0) return false
    const next = state.sessions[index + 1]
    return read.seq <= (next ? next.firstSeq : state.seq)
  },
}
