/**
 * Fresh seeds for each version of the engine, as many as fit into the time, of all kinds of fault; and every script that once
 * failed. SIM_FROM=… begins with another seed, SIM_SECONDS=… gives it more time; many more, and those of CI:
 * `npm run sim -- --from fresh --seeds 3000 --faults mixed --jobs 2`.
 */
import { readdirSync, readFileSync } from 'node:fs'
import test from 'ava'
import { campaign, freshSeed } from './_campaign.ts'
import { run } from './_run.ts'
import { makeScript, type Script } from './_script.ts'

/** Beside the sources: the compiler copies no JSON. */
const REGRESSIONS = new URL('../../../test/sim/regressions/', import.meta.url)
const OPERATIONS = 40
/** However slow the machine: some of each kind. */
const SEEDS_MIN = 100
const SEEDS_MAX = 4_000
const BUDGET_MS = 1000 * Number(process.env.SIM_SECONDS ?? 30)
const FROM = Number(process.env.SIM_FROM ?? freshSeed())

test('peers lose nothing and agree once the household heals: fresh seeds of every kind of fault', t => {
  t.timeout(10 * 60_000)
  const failed: string[] = []
  const startMs = performance.now()
  const { seeds, operations } = campaign({
    from: FROM,
    seeds: SEEDS_MAX,
    stride: 1,
    peers: 0,
    operations: OPERATIONS,
    faults: 'mixed',
    budgetMs: BUDGET_MS,
    seedsMin: SEEDS_MIN,
    failuresMax: 3,
    print: null,
    failed: ({ seed }, { failure }) => failed.push(`seed ${seed}: ${failure.message}`),
  })
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1)
  t.log(`${seeds} seeds from ${FROM}, ${operations} operations, ${seconds} s`)
  t.deepEqual(failed, [], 'npm run sim -- --faults mixed --seeds 1 --from SEED shows and shrinks one')
  t.true(seeds >= SEEDS_MIN && operations > SEEDS_MIN * (OPERATIONS / 2))
})

test('the same seed takes the same course', t => {
  for (const seed of [3, 17, 25]) {
    const script = makeScript({ seed, peers: 0, operations: OPERATIONS, faults: 'all' })
    t.is(run(script).trace, run(script).trace, `seed ${seed}`)
  }
})

for (const name of readdirSync(REGRESSIONS).sort()) {
  test(`what once failed does not: ${name.replace('.json', '').replaceAll('-', ' ')}`, t => {
    const script = JSON.parse(readFileSync(new URL(name, REGRESSIONS), 'utf8')) as Script
    t.is(run(script).failure?.message, undefined)
  })
}
