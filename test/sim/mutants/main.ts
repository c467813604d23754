/**
 * Puts deliberate defects into the engine, one at a time, and says what finds each: `npm run mutants`. One that nothing finds is
 * a hole in simulator or tests, unless it is written down why it may survive.
 */
import { parseArgs } from 'node:util'
import { MUTANTS, type Mutant } from './_mutants.ts'
import { type Verdict, Workshop } from './_workshop.ts'

const { values } = parseArgs({
  options: {
    /** Only those whose name contains this, or one of these, with commas. */
    only: { type: 'string', default: '' },
    /** Seeds of each class of faults, and time, for one defect. */
    seeds: { type: 'string', default: '3000' },
    seconds: { type: 'string', default: '120' },
    /** Copies of the sources that are worked in at once. */
    jobs: { type: 'string', default: '1' },
    /** The table in Markdown at the end, as in docs/guarantees.md. */
    markdown: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
  },
})

const say = (line: string) => process.stdout.write(`${line}\n`)
const wanted = values.only.split(',')
const chosen = MUTANTS.filter(({ name }) => wanted.some(part => name.includes(part)))
if (values.list) for (const { name, takenAway } of chosen) say(`${name}: ${takenAway}`)
else await hunt()

async function hunt(): Promise<void> {
  const limits = { seeds: Number(values.seeds), seconds: Number(values.seconds) }
  const verdicts = new Map<Mutant, Verdict>()
  const waiting = [...chosen]
  const shops: Workshop[] = []
  const close = () => {
    for (const shop of shops) shop.close()
  }
  process.once('SIGINT', () => {
    close()
    process.exit(130)
  })
  const work = async () => {
    const shop = new Workshop()
    shops.push(shop)
    for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
      try {
        const verdict = await shop.try(mutant, limits)
        verdicts.set(mutant, verdict)
        say(line(mutant, verdict))
      } catch (error) {
        say(`${mutant.name}: NOT TRIED: ${(error as Error).message}`)
      }
    }
  }
  try {
    await Promise.all(Array.from({ length: Number(values.jobs) }, work))
  } finally {
    close()
  }
  if (values.markdown) for (const row of table(verdicts)) say(row)
  const survived = chosen.filter(mutant => verdicts.get(mutant)?.by === null)
  const untried = chosen.filter(mutant => !verdicts.has(mutant))
  const unexplained = survived.filter(({ survives }) => survives === undefined)
  say(
    `${verdicts.size} defects, ${verdicts.size - survived.length} found, ${survived.length} survived${names(survived)}, ${unexplained.length} of them without a reason${names(unexplained)}`,
  )
  if (untried.length > 0) say(`not tried:${names(untried)}`)
  process.exitCode = unexplained.length + untried.length > 0 ? 1 : 0
}

function names(mutants: readonly Mutant[]): string {
  return mutants.length === 0 ? '' : ` (${mutants.map(({ name }) => name).join(', ')})`
}

function line({ name, survives }: Mutant, { by, what, runs, operations, seconds }: Verdict): string {
  const effort = `${runs} runs, ${operations} operations, ${seconds.toFixed(1)} s`
  if (by !== null) return `${name}: found by ${by} after ${effort}: ${what.split('\n')[0]}`
  return `${name}: SURVIVED ${effort}${survives === undefined ? '' : `, as it may: ${survives}`}`
}

function table(verdicts: ReadonlyMap<Mutant, Verdict>): string[] {
  const rows = [...verdicts].map(([mutant, { by, what, operations }]) => {
    const kind = (what.split(':')[0] as string).replaceAll('|', '\\|')
    return `| ${mutant.takenAway} | ${by ?? 'survives'} | ${by === null ? mutant.survives : kind} | ${by === null ? '' : operations} |`
  })
  return ['| taken away | found by | as | after operations |', '|---|---|---|---|', ...rows]
}
