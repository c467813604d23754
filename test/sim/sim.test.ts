/** A few hundred seeds of each kind of fault, and every script that once failed. Many more: `npm run sim -- --seeds 10000`. */
import { readdirSync, readFileSync } from 'node:fs'
import test from 'ava'
import { run } from './_run.ts'
import { FAULTS, type Faults, makeScript, type Script } from './_script.ts'

/** Beside the sources: the compiler copies no JSON. */
const REGRESSIONS = new URL('../../../test/sim/regressions/', import.meta.url)
const SEEDS = 40
const OPERATIONS = 40

const agree = test.macro({
  exec(t, faults: Faults) {
    const failed: string[] = []
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { failure } = run(makeScript({ seed, peers: 0, operations: OPERATIONS, faults }))
      if (failure) failed.push(`SEED=${seed}: ${failure.message}`)
    }
    t.deepEqual(failed, [], `npm run sim -- --faults ${faults} --seeds ${SEEDS} shrinks them`)
  },
  title: (_, faults) => `peers lose nothing and agree once the household heals (faults: ${faults})`,
})

for (const faults of FAULTS) test(agree, faults)

test('the same seed takes the same course', t => {
  for (const seed of [3, 17, 25]) {
    const script = makeScript({ seed, peers: 0, operations: OPERATIONS, faults: 'all' })
    t.is(run(script).trace, run(script).trace, `SEED=${seed}`)
  }
})

for (const name of readdirSync(REGRESSIONS).sort()) {
  test(`what once failed does not: ${name.replace('.json', '').replaceAll('-', ' ')}`, t => {
    const script = JSON.parse(readFileSync(new URL(name, REGRESSIONS), 'utf8')) as Script
    t.is(run(script).failure?.message, undefined)
  })
}
