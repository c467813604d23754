/**
 * Rules of the engine in the form that one would write first. `naive/` has a script for each that fails with that form alone: found and
 * shrunk by the simulator (R1, R2, R5), or written by hand for what the rule is there for: R3, killed in the middle of replacing a
 * loser; R4, a deleted folder that holds what is ignored; R6, deleted here and touched there while apart; R7, a store put back that has
 * counted on before its reader comes.
 */
import { RULES, type Rules } from '../../actors/arena/rules.ts'
import { compareVectors, living, meet, type Version } from '../../actors/arena/version.ts'

export interface Naive {
  readonly what: string
  readonly rules: Rules
}

const hashOf = ({ content }: Version) => (content.type === 'file' ? content.hash : '')

export const NAIVE: Readonly<Record<string, Naive>> = {
  R1: {
    what: 'a change is based on what is known, shown or not',
    rules: { ...RULES, base: entry => entry?.known ?? null },
  },
  R2: {
    what: 'of concurrent versions the greater hash wins',
    rules: {
      ...RULES,
      meet: (ours, theirs) => {
        const meeting = meet(ours, theirs)
        if (ours === null || !meeting.conflict || compareVectors(ours.vector, theirs.vector) === 'same') return meeting
        const theyWin = hashOf(theirs) > hashOf(ours)
        return { known: theyWin ? theirs : ours, outcome: theyWin ? 'theirs' : 'ours', conflict: true }
      },
    },
  },
  R3: { what: 'nothing is written down before it is done', rules: { ...RULES, intends: false } },
  R4: { what: 'a folder that is deleted stays pending until it is empty', rules: { ...RULES, holds: false } },
  R5: { what: 'what was staged is not synced first', rules: { ...RULES, syncsFirst: false } },
  R6: {
    what: 'a deletion is forgotten once it is done',
    rules: {
      ...RULES,
      remembered: (entry, theirs) => (entry?.known.content.type === 'gone' && living(theirs) ? undefined : entry),
    },
  },
  R7: { what: 'a cursor is a number', rules: { ...RULES, isOurs: (read, state) => read.seq <= state.seq } },
}
