/** Runs many seeds and says which fail, why, and the least script that still does: `npm run sim -- --seeds 1000 --faults all`. */
import { fork } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { addTally, campaign, emptyTally, freshSeed, type Tally } from './_campaign.ts'
import { type Outcome, run, shrink } from './_run.ts'
import { type Script, WANTED, type Wanted } from './_script.ts'

const USAGE = `npm run sim -- [options]
  --seeds N        households to play, a seed each (default 200)
  --from SEED      the first seed, or fresh: one that is another for each version of the sources (default 1)
  --stride N       from a seed to the next (default 1)
  --peers N        in a household; 0: two to five, by the seed (default 0)
  --ops N          operations of users in each (default 40)
  --faults CLASS   ${WANTED.join(', ')} (default all)
  --seconds N      begin no new seed after so long; 0: never (default 0)
  --failures N     stop after so many failing seeds (default 3)
  --jobs N         processes that share the seeds (default 1)
  --no-shrink      do not look for the least script that still fails
  --progress       say every minute how far it is
  --trace          print the course of a single seed, or of a script
  --script FILE    play a saved script
  --save DIR       write shrunk scripts into this folder, which must exist`

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '200' },
    from: { type: 'string', default: '1' },
    stride: { type: 'string', default: '1' },
    peers: { type: 'string', default: '0' },
    ops: { type: 'string', default: '40' },
    faults: { type: 'string', default: 'all' },
    seconds: { type: 'string', default: '0' },
    failures: { type: 'string', default: '3' },
    jobs: { type: 'string', default: '1' },
    /** Of one of those processes: what it comes to goes to its parent. */
    tally: { type: 'boolean', default: false },
    shrink: { type: 'boolean', default: true },
    progress: { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
    script: { type: 'string' },
    save: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
  allowNegative: true,
})

const PROGRESS_MS = 60_000
const say = (line: string) => process.stdout.write(`${line}\n`)
const print = values.trace ? (line: string) => process.stdout.write(line) : null
const jobs = Number(values.jobs)
const from = values.from === 'fresh' ? freshSeed() : Number(values.from)
if (values.from === 'fresh') say(`seeds from ${from}`)
if (!WANTED.includes(values.faults as Wanted)) throw new RangeError(`--faults is one of ${WANTED.join(', ')}`)

const startMs = performance.now()
if (values.help) say(USAGE)
else if (values.script !== undefined) {
  const { failure } = run(JSON.parse(readFileSync(values.script, 'utf8')) as Script, print)
  say(failure ? failure.message : 'passes')
  process.exitCode = failure ? 1 : 0
} else if (jobs > 1) close(await share())
else if (values.tally) process.send?.(one())
else close(one())

function one(): Tally {
  let saidMs = performance.now()
  const seeds = Number(values.seeds)
  return campaign(
    {
      from,
      seeds,
      stride: Number(values.stride),
      peers: Number(values.peers),
      operations: Number(values.ops),
      faults: values.faults as Wanted,
      budgetMs: Number(values.seconds) * 1000 || Number.POSITIVE_INFINITY,
      seedsMin: 1,
      failuresMax: Number(values.failures),
      print,
      failed,
    },
    tally => {
      if (!values.progress || performance.now() - saidMs < PROGRESS_MS) return
      saidMs = performance.now()
      say(closing(tally))
    },
  )
}

/** The same in several processes, each with its part of the seeds. */
async function share(): Promise<Tally> {
  const total = emptyTally()
  const seeds = Number(values.seeds)
  const parts = Array.from({ length: jobs }, (_, index) => {
    const mine = [
      `--from=${from + index * Number(values.stride)}`,
      `--stride=${Number(values.stride) * jobs}`,
      `--seeds=${Math.ceil((seeds - index) / jobs)}`,
      '--jobs=1',
      '--tally',
    ]
    // The last of an option counts.
    const child = fork(process.argv[1] as string, [...process.argv.slice(2), ...mine])
    return new Promise<void>((resolve, reject) => {
      let tally: Tally | null = null
      child.on('message', message => {
        tally = message as Tally
      })
      child.on('error', reject)
      child.on('exit', code => {
        if (tally === null) return reject(new Error(`a part of the seeds ended with ${code}`))
        addTally(total, tally)
        resolve()
      })
    })
  })
  await Promise.all(parts)
  return total
}

function failed(script: Script, { failure }: { failure: NonNullable<Outcome['failure']> }): void {
  say(`seed ${script.seed}: ${failure.message}`)
  if (!values.shrink) return
  const least = shrink(script, failure.kind)
  say(`  ${least.steps.length} of ${script.steps.length} steps: ${run(least).failure?.message}`)
  say(JSON.stringify(least))
  if (values.save === undefined) return
  const saved: Script = { ...least, found: failure.kind }
  writeFileSync(
    join(values.save, `${failure.kind.replaceAll(' ', '-')}-${script.seed}.json`),
    `${JSON.stringify(saved, null, 2)}\n`,
  )
}

function close(tally: Tally): void {
  say(
    Object.entries(tally.counts)
      .sort()
      .map(([what, count]) => `${what} ${count}`)
      .join(', '),
  )
  say(`${tally.copies} conflict copies, ${tally.superfluous} of what users had replaced`)
  say(closing(tally))
  process.exitCode = tally.failed.length > 0 ? 1 : 0
}

function closing({ seeds, failed, operations }: Tally): string {
  const seconds = (performance.now() - startMs) / 1000
  const which = failed.length > 0 ? ` (${failed.join(' ')})` : ''
  return `${seeds} seeds, ${failed.length} failed${which}, ${operations} operations, ${seconds.toFixed(1)} s, ${Math.round(operations / seconds)} operations a second`
}
