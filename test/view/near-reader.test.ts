/** When the view's thread looks at the device itself, for how long, and when it lets the reading threads do it; on a clock of the test's. */
import { constants } from 'node:os'
import test from 'ava'
import { OPCODES, STRUCTS } from '../../actors/view/fuse-protocol.ts'
import { NearReader } from '../../actors/view/near-reader.ts'

const { EAGAIN, ENODEV, ENOENT } = constants.errno
/** What a look at the device lasts here. */
const LOOK_COST_MS = 0.005
const TURNS_MAX = 100_000

function request(opcode: number, contentBytes = 0): Uint8Array {
  const bytes = new Uint8Array(STRUCTS.in_header.bytes + 40)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, bytes.length, true)
  view.setUint32(4, opcode, true)
  view.setUint32(STRUCTS.in_header.bytes + STRUCTS.read_in.offsets.size, contentBytes, true)
  return bytes
}

class Bench {
  nowMs = 0
  /** What comes: when, and the request or an errno. */
  readonly coming: { atMs: number; what: Uint8Array | number }[] = []
  readonly received: number[] = []
  looks = 0
  looking = false
  #turn: (() => void) | null = null
  readonly reader = new NearReader({
    read: bytes => {
      this.looks++
      this.nowMs += LOOK_COST_MS
      const next = this.coming[0]
      if (next === undefined || next.atMs > this.nowMs) return -EAGAIN
      this.coming.shift()
      if (typeof next.what === 'number') return -next.what
      bytes.set(next.what)
      return next.what.length
    },
    receive: bytes => this.received.push(new DataView(bytes.buffer).getUint32(4, true)),
    now: () => this.nowMs,
    nextTurn: action => {
      this.#turn = action
    },
    looking: on => {
      this.looking = on
    },
  })

  get turning(): boolean {
    return this.#turn !== null
  }

  turn(): void {
    const turn = this.#turn
    this.#turn = null
    turn?.()
  }

  /** All turns, until it looks no more; how long that lasted. */
  run(): number {
    const { nowMs } = this
    for (let turns = 0; this.turning && turns < TURNS_MAX; turns++) this.turn()
    return this.nowMs - nowMs
  }

  /** Two requests through the reading threads, one after the other. */
  burst(): void {
    this.reader.came()
    this.nowMs += 0.1
    this.reader.came()
  }
}

test('it looks when requests follow on each other, and not for a single one', t => {
  const bench = new Bench()
  bench.reader.came()
  t.false(bench.turning)
  bench.nowMs += 10
  bench.reader.came()
  t.false(bench.turning, 'the last was long ago')
  bench.nowMs += 0.1
  bench.reader.came()
  t.true(bench.turning)
  t.true(bench.looking)
  bench.reader.came()
  const lasted = bench.run()
  t.false(bench.looking)
  t.true(lasted >= 0.15 && lasted < 0.17, `${lasted} ms`)
})

test('what comes shortly after what came is taken, as often as that is so', t => {
  const bench = new Bench()
  for (let n = 1; n <= 1000; n++) bench.coming.push({ atMs: n * 0.1, what: request(OPCODES.LOOKUP) })
  bench.burst()
  bench.run()
  t.is(bench.received.length, 1000)
  t.false(bench.looking)
  t.true(bench.nowMs < 100.5, 'it ended soon after the last')
})

test('many in one turn leave the event loop its turn', t => {
  const bench = new Bench()
  for (let n = 0; n < 40; n++) bench.coming.push({ atMs: 0, what: request(OPCODES.GETATTR) })
  bench.burst()
  bench.turn()
  t.is(bench.received.length, 16)
  t.true(bench.turning)
  bench.run()
  t.is(bench.received.length, 40)
})

test('where it looks in vain, it costs little: a hundredth of a millisecond for a request', t => {
  const bench = new Bench()
  const requests = 10_000
  for (let n = 0; n < requests; n++) {
    bench.reader.came()
    bench.run()
    bench.nowMs += 0.2
  }
  const vain = bench.looks * LOOK_COST_MS
  t.is(bench.received.length, 0)
  t.true(vain < requests * 0.01 + 4, `${vain} ms`)
  t.true(vain > 1, 'it tries again now and then')
})

test('content is left to the reading threads: small amounts for the moment, large ones for a while', t => {
  for (const opcode of [OPCODES.READ, OPCODES.WRITE]) {
    const small = new Bench()
    small.coming.push({ atMs: 0.1, what: request(opcode, 4096) }, { atMs: 0.1, what: request(OPCODES.LOOKUP) })
    small.burst()
    small.run()
    t.deepEqual(small.received, [opcode])
    t.false(small.looking)
    small.burst()
    t.true(small.looking, 'it looks again with the next requests')

    const large = new Bench()
    const takes = () => {
      large.coming.push({ atMs: 0, what: request(opcode, 1024 * 1024) })
      large.burst()
      large.run()
      const taken = large.coming.length === 0
      large.coming.length = 0
      return taken
    }
    t.true(takes())
    t.true(takes())
    t.false(takes(), 'what was saved is used up')
    let requests = 0
    while (!takes()) requests += 2
    t.true(requests > 50 && requests < 1000, `${requests} requests`)
  }
})

test('an interrupted request is passed over; with the mount gone it looks no more', t => {
  const bench = new Bench()
  bench.coming.push({ atMs: 0.1, what: ENOENT }, { atMs: 0.1, what: request(OPCODES.LOOKUP) })
  bench.coming.push({ atMs: 0.15, what: ENODEV })
  bench.burst()
  bench.run()
  t.deepEqual(bench.received, [OPCODES.LOOKUP])
  t.false(bench.looking)
  t.false(bench.turning)
  t.is(bench.coming.length, 0)
})

test('once stopped it touches the device no more', t => {
  const bench = new Bench()
  bench.burst()
  bench.reader.stop()
  t.false(bench.looking, 'the reading threads are not held up')
  bench.run()
  t.is(bench.looks, 0)
  bench.burst()
  t.false(bench.turning)
})
