/** When who waits for a request gives it up. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import test from 'ava'
import { asksToEnd, Interruptions, LOOK_MS } from '../../actors/view/interruptions.ts'
import { within } from '../_deadline.ts'

const { SIGALRM, SIGCHLD, SIGINT, SIGKILL, SIGTERM, SIGTSTP, SIGUSR1, SIGWINCH } = constants.signals

function mask(...signals: number[]): string {
  return signals
    .reduce((bits, signal) => bits | (1n << BigInt(signal - 1)), 0n)
    .toString(16)
    .padStart(16, '0')
}

/** What /proc says of a thread. */
function status(signals: {
  own?: number[]
  shared?: number[]
  blocked?: number[]
  ignored?: number[]
  caught?: number[]
}) {
  const { own = [], shared = [], blocked = [], ignored = [], caught = [] } = signals
  const lines = Object.entries({ SigPnd: own, ShdPnd: shared, SigBlk: blocked, SigIgn: ignored, SigCgt: caught })
  return `Name:\tprogram\nSigQ:\t1/7823\n${lines.map(([name, of]) => `${name}:\t${mask(...of)}\n`).join('')}CapInh:\t0\n`
}

/** Requests of one thread, of which /proc says what is set here, on a clock that is moved by hand. */
class Bench {
  said: string | null = status({})
  looks: (() => void)[] = []
  readonly interruptions = new Interruptions({
    statusOf: () => this.said,
    later: (waitMs, action) => {
      if (waitMs !== LOOK_MS) throw new Error(`waits for ${waitMs} ms`)
      this.looks.push(action)
      return () => {
        this.looks = this.looks.filter(look => look !== action)
      }
    },
  })

  pass(): void {
    for (const look of this.looks.splice(0)) look()
  }
}

test('signals that end a program, or ask it to end, count; those of timers and children do not', t => {
  const ends = [
    { own: [SIGKILL] },
    { shared: [SIGKILL], caught: [SIGALRM] },
    { shared: [SIGINT], caught: [SIGINT, SIGTERM] },
    { shared: [SIGTERM] },
    { shared: [SIGALRM] },
    { own: [SIGUSR1] },
  ]
  const goesOn = [
    {},
    { shared: [SIGALRM], caught: [SIGALRM] },
    { shared: [SIGCHLD, SIGWINCH, SIGUSR1], caught: [SIGCHLD, SIGWINCH, SIGUSR1] },
    { shared: [SIGTSTP] },
    { shared: [SIGTERM], blocked: [SIGTERM] },
    { shared: [SIGINT], ignored: [SIGINT] },
  ]
  for (const one of ends) t.true(asksToEnd(status(one)), JSON.stringify(one))
  for (const one of goesOn) t.false(asksToEnd(status(one)), JSON.stringify(one))
  t.true(asksToEnd(null), 'nobody knows')
})

test('a request goes on through a timer, and is given up when the program is to end while it goes on', t => {
  const bench = new Bench()
  const { interruptions } = bench
  const signal = interruptions.begin(2, 7)
  interruptions.interrupt(2)
  bench.pass()
  bench.pass()
  t.false(signal.aborted)
  bench.said = status({ shared: [SIGTERM] })
  bench.pass()
  t.true(signal.aborted)
  interruptions.end(2)
  t.is(interruptions.size, 0)
  bench.pass()
  t.deepEqual(bench.looks, [], 'it is not looked for what has ended')
})

test('an interruption that comes first is judged when its request comes', t => {
  const bench = new Bench()
  const { interruptions } = bench
  interruptions.interrupt(2)
  t.false(interruptions.begin(2, 7).aborted)
  t.is(bench.looks.length, 1)
  interruptions.interrupt(4)
  bench.said = status({ own: [SIGKILL] })
  t.throws(() => interruptions.begin(4, 8), { code: 'EINTR' })
  interruptions.interrupt(6)
  interruptions.passed(6)
  t.false(interruptions.begin(6, 8).aborted)
})

test('of interruptions without a request the oldest are forgotten', t => {
  const bench = new Bench()
  bench.said = null
  for (let unique = 2; unique < 2002; unique += 2) bench.interruptions.interrupt(unique)
  t.false(bench.interruptions.begin(2, 7).aborted)
  t.throws(() => bench.interruptions.begin(2000, 7), { code: 'EINTR' })
})

test('who cannot be looked at is believed to go, and at the end nothing waits', t => {
  const { interruptions } = new Bench()
  const [hidden, other] = [interruptions.begin(2, 0), interruptions.begin(4, 7)]
  interruptions.interrupt(2)
  t.deepEqual([hidden.aborted, other.aborted], [true, false])
  interruptions.stop()
  t.true(other.aborted)
  t.throws(() => interruptions.begin(6, 7), { code: 'EINTR' })
})

const onLinux = existsSync('/proc/self/status') ? test : test.skip
onLinux('this kernel says of a program what is asked here', async t => {
  // It has no time for signals until it is killed: what came waits.
  const child = spawn(process.execPath, ['-e', 'process.on("SIGALRM", () => {}); console.log(); for (;;);'])
  t.teardown(() => child.kill('SIGKILL'))
  await within(10_000, 'the program runs', once(child.stdout, 'data'))
  const said = () => readFileSync(`/proc/${child.pid}/status`, 'latin1')
  t.false(asksToEnd(said()))
  child.kill('SIGSTOP')
  await within(
    10_000,
    'it stops',
    until(() => /^State:\tT/m.test(said())),
  )
  child.kill('SIGALRM')
  t.regex(said(), new RegExp(`^ShdPnd:\t${mask(SIGALRM)}$`, 'm'))
  t.false(asksToEnd(said()))
  child.kill('SIGTERM')
  t.true(asksToEnd(said()))
})

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise(resolve => setTimeout(resolve, 5))
}
