import test from 'ava'
import fc from 'fast-check'
import type { PeerId } from '../../protocol/ids.ts'
import {
  DIAL_DELAY_MAX_MS,
  DIAL_DELAY_MIN_MS,
  type Dialler,
  dialDelayMs,
  keptOf,
  TWIN_MS,
} from '../../supervisor/dialing.ts'

const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

test('the wait before dialling again stays within half a second and five minutes', t => {
  fc.assert(
    fc.property(fc.nat(10_000), random, (failures, chance) => {
      const delay = dialDelayMs(failures, chance)
      return delay >= DIAL_DELAY_MIN_MS && delay <= DIAL_DELAY_MAX_MS
    }),
  )
  t.pass()
})

test('the wait doubles with each failure, by the middle of its jitter', t => {
  t.deepEqual(
    [0, 1, 2, 3, 20].map(failures => dialDelayMs(failures, 0.5)),
    [500, 1000, 2000, 4000, 300_000],
  )
})

const lesser = 'A'.repeat(7) as PeerId
const greater = 'B'.repeat(7) as PeerId
const mirrored: Record<Dialler, Dialler> = { us: 'them', them: 'us' }

test('both ends keep the same one of two connections, in whatever order they saw them open', t => {
  for (const [ours, theirs] of [
    [lesser, greater],
    [greater, lesser],
  ] as const) {
    for (const first of ['us', 'them'] as const) {
      for (const sameOrder of [true, false]) {
        // Each end names the dialler of the connection that it keeps, from its own side.
        const here = kept(ours, theirs, first, mirrored[first])
        const theirFirst = sameOrder ? mirrored[first] : first
        const there = kept(theirs, ours, theirFirst, mirrored[theirFirst])
        t.is(here, mirrored[there])
        t.is(here, ours === greater ? 'us' : 'them')
      }
    }
  }
})

function kept(ours: PeerId, theirs: PeerId, before: Dialler, after: Dialler): Dialler {
  return keptOf(ours, theirs, { dialler: before, ageMs: 100 }, { dialler: after }) === 'before' ? before : after
}

test('a second connection from the same dialler replaces the first, which that one has lost', t => {
  t.is(keptOf(greater, lesser, { dialler: 'us', ageMs: 1 }, { dialler: 'us' }), 'after')
  t.is(keptOf(lesser, greater, { dialler: 'them', ageMs: 1 }, { dialler: 'them' }), 'after')
})

test('a connection that has been open for long gives way to a new one', t => {
  t.is(keptOf(greater, lesser, { dialler: 'us', ageMs: TWIN_MS + 1 }, { dialler: 'them' }), 'after')
})
