/** Runs many seeds and says which fail, why, and the least script that still does: `npm run sim -- --seeds 1000 --faults all`. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { run, shrink } from './_run.ts'
import { FAULTS, type Faults, makeScript, type Script } from './_script.ts'

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '200' },
    from: { type: 'string', default: '1' },
    peers: { type: 'string', default: '0' },
    ops: { type: 'string', default: '40' },
    faults: { type: 'string', default: 'all' },
    /** Stop after so many failing seeds. */
    failures: { type: 'string', default: '3' },
    shrink: { type: 'boolean', default: true },
    /** Print the course of a single seed, or of a saved script. */
    trace: { type: 'boolean', default: false },
    script: { type: 'string' },
    /** Write shrunk scripts into this folder. */
    save: { type: 'string' },
  },
  allowNegative: true,
})

const say = (line: string) => process.stdout.write(`${line}\n`)
const print = values.trace ? (line: string) => process.stdout.write(line) : null
if (!FAULTS.includes(values.faults as Faults)) throw new RangeError(`--faults is one of ${FAULTS.join(', ')}`)

if (values.script !== undefined) {
  const { failure } = run(JSON.parse(readFileSync(values.script, 'utf8')) as Script, print)
  say(failure ? failure.message : 'passes')
  process.exitCode = failure ? 1 : 0
} else seeds()

function seeds(): void {
  const operations = Number(values.ops)
  const from = Number(values.from)
  const totals = new Map<string, number>()
  const failed: number[] = []
  let copies = 0
  let superfluous = 0
  let done = 0
  const startMs = performance.now()
  for (let seed = from; seed < from + Number(values.seeds); seed++) {
    const script = makeScript({ seed, peers: Number(values.peers), operations, faults: values.faults as Faults })
    const outcome = run(script, print)
    done++
    copies += outcome.copies
    superfluous += outcome.superfluous
    for (const [what, count] of outcome.counts) totals.set(what, (totals.get(what) ?? 0) + count)
    if (!outcome.failure) continue
    failed.push(seed)
    say(`seed ${seed}: ${outcome.failure.message}`)
    if (values.shrink) {
      const least = shrink(script, outcome.failure.kind)
      say(`  ${least.steps.length} of ${script.steps.length} steps: ${run(least).failure?.message}`)
      say(JSON.stringify(least))
      if (values.save !== undefined) {
        const saved: Script = { ...least, found: outcome.failure.kind }
        writeFileSync(
          join(values.save, `${outcome.failure.kind.replaceAll(' ', '-')}-${seed}.json`),
          `${JSON.stringify(saved, null, 2)}\n`,
        )
      }
    }
    if (failed.length >= Number(values.failures)) break
  }
  const seconds = (performance.now() - startMs) / 1000
  say(
    [...totals]
      .sort()
      .map(([what, count]) => `${what} ${count}`)
      .join(', '),
  )
  say(`${copies} conflict copies, ${superfluous} of what users had replaced`)
  say(
    `${done} seeds, ${failed.length} failed${failed.length > 0 ? ` (${failed.join(' ')})` : ''}, ${seconds.toFixed(1)} s, ${Math.round((done * operations) / seconds)} operations a second`,
  )
  process.exitCode = failed.length > 0 ? 1 : 0
}
