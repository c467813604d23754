/** Simulator and tests can fail: defects are put into the engine, and found. Here a few; all of them: `npm run mutants`. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { MUTANTS } from './_mutants.ts'
import { edited, Workshop } from './_workshop.ts'

const SOURCES = new URL('../../../../', import.meta.url)
/** Those that are found soonest, each by another promise. */
const QUICK = ['vectors-of-other-content-merged', 'tombstone-dropped', 'replaced-content-thrown-away']

test('each defect still fits the code that it is made in', t => {
  const unfit: string[] = []
  for (const { name, edits } of MUTANTS) {
    const texts = new Map<string, string>()
    t.true(edits.length > 0, name)
    for (const edit of edits) {
      const before = texts.get(edit.file) ?? readFileSync(new URL(edit.file, SOURCES), 'utf8')
      try {
        texts.set(edit.file, edited(before, edit))
      } catch (error) {
        unfit.push(`${name}: ${(error as Error).message}`)
      }
    }
  }
  t.deepEqual(
    unfit,
    [],
    'write these defects anew in test/sim/mutants/_mutants.ts: the code that they are made in has changed',
  )
  t.is(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length)
})

test('the simulator finds defects that are put into the engine', async t => {
  t.timeout(10 * 60_000)
  const shop = new Workshop()
  t.teardown(() => shop.close())
  for (const name of QUICK) {
    const mutant = MUTANTS.find(one => one.name === name)
    if (!mutant) return t.fail(`there is no defect '${name}'`)
    const verdict = await shop.try(mutant, { seeds: 400, seconds: 150 })
    t.log(`${name}: ${verdict.by}, ${verdict.operations} operations, ${verdict.seconds.toFixed(1)} s: ${verdict.what}`)
    t.truthy(verdict.by, `${name} survived ${verdict.runs} runs`)
  }
})
