/**
 * Rules of the engine in the form that one would write first. `naive/` has a script for each, as the simulator found and shrank it,
 * that fails with that form alone. (R3, R4, R6 and R7: test/arena/naive-forms.test.ts, and test/sim/mutants.)
 */
import { RULES, type Rules } from '../../actors/arena/rules.ts'
import { compareVectors, meet, type Version } from '../../actors/arena/version.ts'

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
  R5: { what: 'what was staged is not synced first', rules: { ...RULES, syncsFirst: false } },
}
