/** Leases as a state machine: what is promised, for how long, and that no content can leave its last disk. */
import test from 'ava'
import fc from 'fast-check'
import { isInTime, LEASES_MAX, type LeasedFile, Leases } from '../../actors/arena/lease.ts'
import { LEASE_MS } from '../../protocol/limits.ts'
import { path, peerId } from './_store-entries.ts'
import { hash } from './_versions.ts'

const file: LeasedFile = { path: path('file'), hash: hash('a') }
const other: LeasedFile = { path: path('file'), hash: hash('b') }
const B = peerId('B')
const C = peerId('C')

/** After the time in which nothing is left. */
function rested(): Leases {
  return new Leases([], -LEASE_MS)
}

test('what is shown is granted, what is not is missing, what is being left is refused', t => {
  const leases = rested()
  t.is(leases.answer(B, file, false, 0), 'missing')
  t.is(leases.answer(B, file, true, 0), 'granted')
  t.true(leases.isGranted(file.path, 0))
  t.true(leases.end(B, file))
  t.true(leases.leave(file, 0))
  t.is(leases.answer(B, file, true, 0), 'leaving')
  leases.ended(file.path)
  t.is(leases.answer(B, file, true, 0), 'granted')
})

test('what is promised is neither left nor dropped before it is over, whoever else lets go of it', t => {
  const leases = rested()
  leases.answer(B, file, true, 0)
  leases.answer(C, file, true, 5)
  t.false(leases.leave(file, 5))
  t.true(leases.end(B, file))
  t.false(leases.end(B, file))
  t.false(leases.leave(file, LEASE_MS - 1))
  t.deepEqual([...leases.promised(LEASE_MS - 1)], [file.hash])
  t.true(leases.leave(file, LEASE_MS + 5))
  t.deepEqual([...leases.promised(LEASE_MS + 5)], [])
})

test('what was promised ends with its time, and is told once', t => {
  const leases = rested()
  leases.answer(B, file, true, 0)
  leases.answer(C, file, true, 10)
  t.is(leases.nextEndMs, LEASE_MS)
  t.deepEqual(leases.expire(LEASE_MS), [{ peer: B, ...file }])
  t.is(leases.nextEndMs, LEASE_MS + 10)
  t.deepEqual(leases.expire(LEASE_MS), [])
  t.is(leases.expire(LEASE_MS + 10).length, 1)
  t.is(leases.nextEndMs, Number.POSITIVE_INFINITY)
})

test('asked again, a peer has the promise for longer', t => {
  const leases = rested()
  leases.answer(B, file, true, 0)
  leases.answer(B, file, true, 10)
  t.is(leases.nextEndMs, LEASE_MS + 10)
  t.deepEqual(leases.expire(LEASE_MS), [])
})

test('of other content at the same path nothing is promised while the former is', t => {
  const leases = rested()
  leases.answer(B, file, true, 0)
  t.is(leases.answer(C, other, true, 0), 'later')
  t.false(leases.end(B, other))
  leases.end(B, file)
  t.is(leases.answer(C, other, true, 0), 'granted')
})

test('after a start nothing is left for a whole lease, and what was promised before holds as long', t => {
  const leases = new Leases([{ peer: B, ...file }], 1000)
  const free: LeasedFile = { path: path('free'), hash: hash('b') }
  t.false(leases.leave(free, 1000))
  t.false(leases.leave(free, 999 + LEASE_MS))
  t.true(leases.isGranted(file.path, 999 + LEASE_MS))
  t.true(leases.leave(free, 1000 + LEASE_MS))
  t.true(leases.leave(file, 1000 + LEASE_MS))
  leases.rest(2000 + LEASE_MS)
  t.false(leases.leave({ path: path('third'), hash: hash('b') }, 1999 + 2 * LEASE_MS))
})

test('no more is promised than there is room for, until something has ended', t => {
  const leases = rested()
  for (let i = 0; i < LEASES_MAX; i++)
    t.is(leases.answer(B, { path: path(`${i}`), hash: hash('a') }, true, i), 'granted')
  t.is(leases.answer(B, file, true, LEASES_MAX), 'later')
  t.is(leases.answer(B, file, true, LEASE_MS), 'granted')
})

test('a leaver relies on half of what it was promised, from before it asked', t => {
  t.true(isInTime(0, LEASE_MS / 2 - 1))
  t.false(isInTime(0, LEASE_MS / 2))
})

// Peers that leave, ask, answer, take their time, crash and start, in any order and with any delays: somebody always shows it.

type Event =
  | { do: 'leave'; peer: number; asks: number }
  | { do: 'arrive' | 'answer' | 'finish'; which: number }
  | { do: 'crash'; peer: number }
  | { do: 'end'; which: number }
  | { do: 'wait'; ms: number }

const PEERS = 3
const event = fc.oneof<fc.Arbitrary<Event>[]>(
  fc.record({ do: fc.constant('leave' as const), peer: fc.nat(PEERS - 1), asks: fc.nat(PEERS - 1) }),
  fc.record({ do: fc.constantFrom('arrive' as const, 'answer' as const, 'finish' as const), which: fc.nat(5) }),
  fc.record({ do: fc.constant('crash' as const), peer: fc.nat(PEERS - 1) }),
  fc.record({ do: fc.constant('end' as const), which: fc.nat(5) }),
  fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1, LEASE_MS / 4, LEASE_MS / 2, LEASE_MS) }),
)

interface Try {
  readonly from: number
  readonly to: number
  readonly askedMs: number
  readonly life: number
  state: 'asked' | 'arrived' | 'granted' | 'over'
  answer: string
}

test('however peers ask, wait, crash and come back, the last one that shows a file keeps it', t => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), events => {
      let nowMs = 0
      // Each peer's clock has its own beginning, and runs a little fast or slow.
      const clock = (peer: number) => nowMs * (1 + (peer - 1) * 0.1) + peer * 12_345
      const shows = Array<boolean>(PEERS).fill(true)
      const lives = Array<number>(PEERS).fill(0)
      const leases = Array.from({ length: PEERS }, (_, peer) => new Leases([], clock(peer) - LEASE_MS))
      const tries: Try[] = []
      const id = (peer: number) => peerId('ABC'[peer] as string)
      const pick = (which: number, state: Try['state']) => {
        const open = tries.filter(one => one.state === state)
        return open[which % Math.max(1, open.length)]
      }
      for (const step of events) {
        if (step.do === 'wait') nowMs += step.ms
        else if (step.do === 'crash') {
          // Its store remembers what was promised; what it was leaving it has taken back.
          lives[step.peer]!++
          const granted = [0, 1, 2].flatMap(peer =>
            leases[step.peer]!.isGranted(file.path, clock(step.peer)) ? [peer] : [],
          )
          leases[step.peer] = new Leases(
            granted.map(peer => ({ peer: id(peer), ...file })),
            clock(step.peer),
          )
        } else if (step.do === 'leave') {
          const { peer, asks } = step
          if (peer === asks || !shows[peer] || !leases[peer]!.leave(file, clock(peer))) continue
          tries.push({ from: peer, to: asks, askedMs: clock(peer), life: lives[peer]!, state: 'asked', answer: '' })
        } else if (step.do === 'arrive') {
          const one = pick(step.which, 'asked')
          if (!one) continue
          one.answer = leases[one.to]!.answer(id(one.from), file, shows[one.to]!, clock(one.to))
          one.state = 'arrived'
        } else if (step.do === 'answer') {
          const one = pick(step.which, 'arrived')
          if (!one) continue
          one.state = one.answer === 'granted' && one.life === lives[one.from] ? 'granted' : 'over'
          if (one.state === 'over' && one.life === lives[one.from]) leases[one.from]!.ended(file.path)
        } else if (step.do === 'finish') {
          const one = pick(step.which, 'granted')
          if (!one) continue
          one.state = 'over'
          if (one.life !== lives[one.from]) continue
          if (isInTime(one.askedMs, clock(one.from))) shows[one.from] = false
          leases[one.from]!.ended(file.path)
        } else {
          const one = pick(step.which, 'over')
          if (one) leases[one.to]!.end(id(one.from), file)
        }
        if (!shows.some(Boolean)) return false
      }
      return true
    }),
    { numRuns: 3_000 },
  )
  t.pass()
})
