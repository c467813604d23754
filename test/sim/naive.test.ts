/** Scripts that hold with the rules of the engine and fail when one of them has the form that one would write first. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { NAIVE } from './_naive.ts'
import { run } from './_run.ts'
import type { Script } from './_script.ts'

/** Beside the sources: the compiler copies no JSON. */
const SCRIPTS = new URL('../../../test/sim/naive/', import.meta.url)

for (const [rule, { what, rules }] of Object.entries(NAIVE)) {
  test(`${rule} in its naive form, ${what}, fails where the rule holds`, t => {
    const script = JSON.parse(readFileSync(new URL(`${rule}.json`, SCRIPTS), 'utf8')) as Script
    t.is(run(script).failure?.message, undefined)
    t.is(run(script, null, true, rules).failure?.kind, script.found)
  })
}
