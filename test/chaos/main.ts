/**
 * Real services under everything at once, until the time is up or a promise is broken: `npm run chaos -- --minutes 10`.
 *
 * Three services share an arena; in each round users work on all three disks while faults strike; then everything is healed,
 * and what the disks show must be what the ledger of all writes allows. On a violation everything is kept for whoever
 * looks for the cause.
 */
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { Violation } from './_check.ts'
import { planRound } from './_plan.ts'
import { Surroundings } from './_surroundings.ts'
import { World } from './_world.ts'

const USAGE = `npm run chaos -- [--minutes M] [--seed S] [--from ROUND] [--keep] [--dir DIR]
  --minutes M   how long (default 10); the round that is going on is played to its end
  --seed S      of the plans of the rounds (default: by the clock)
  --from ROUND  begin with this round's plan (default 1)
  --keep        keep homes, roots and logs also when nothing was found
  --dir DIR     where they go, a new folder (default: in the system's temporary folder)`

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seed: { type: 'string' },
    from: { type: 'string', default: '1' },
    keep: { type: 'boolean', default: false },
    dir: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

const say = (line: string) => process.stdout.write(`${line}\n`)
const minutes = Number(values.minutes)
const seed = Number(values.seed ?? Math.floor(Date.now() / 1000) % 1_000_000)
const from = Number(values.from)

if (values.help) say(USAGE)
else if (!(minutes > 0) || !Number.isSafeInteger(seed) || !(Number.isSafeInteger(from) && from >= 1)) {
  process.stderr.write(`${USAGE}\n`)
  process.exitCode = 2
} else await main()

async function main(): Promise<void> {
  if (values.dir !== undefined) mkdirSync(values.dir, { recursive: false })
  const folder = realpathSync(values.dir === undefined ? mkdtempSync(join(tmpdir(), 'chaos-')) : resolve(values.dir))
  const undo: (() => unknown)[] = []
  const surroundings = new Surroundings(folder)
  const world = new World({ teardown: work => undo.push(work) }, folder, surroundings)
  let interrupted = false
  let keep = values.keep
  const end = async (): Promise<void> => {
    await world.close(keep)
    for (const work of undo.splice(0).reverse()) await work()
    if (!keep) rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      interrupted = true
      end().finally(() => process.exit(130))
    })
  }

  say(`chaos: seed ${seed}, ${minutes} minutes, in ${folder}`)
  for (const kind of ['clock', 'few_files', 'no_access', 'full_disk', 'unmount', 'kill_view'] as const) {
    const reason = surroundings.missing(kind)
    if (reason !== null) say(`chaos: without '${kind}': ${reason.split('\n')[0]}`)
  }
  let startMs = performance.now()
  const elapsedMinutes = () => (performance.now() - startMs) / 60_000
  let number = from
  let violations = 0
  try {
    await world.open()
    startMs = performance.now()
    for (; elapsedMinutes() < minutes; number++) {
      await world.play(planRound(seed, number))
      const faults = [...world.faults.values()].reduce((sum, count) => sum + count, 0)
      say(
        `chaos: ${elapsedMinutes().toFixed(1)} min, round ${number}: ${world.operations} operations, ${faults} faults, ` +
          `agreed in ${(world.settledMs / 1000).toFixed(1)} s, ${world.ledger.required.size} contents required`,
      )
    }
  } catch (error) {
    if (interrupted) return
    violations = 1
    keep = true
    const found = error instanceof Violation ? error.message : ((error as Error).stack ?? String(error))
    await world.collect()
    writeFileSync(join(folder, 'violation.txt'), `seed ${seed}, round ${number}\n${found}\n`)
    writeFileSync(join(folder, 'plan.json'), JSON.stringify(planRound(seed, number), null, 1))
    say(`chaos: VIOLATION in round ${number}: ${found}`)
    say(
      `chaos: everything is kept in ${folder}: NAME.log, NAME.status.json, NAME.history.ndjson, operations.ndjson, rounds.ndjson, plan.json`,
    )
    say(`chaos: again: npm run chaos -- --seed ${seed} --from ${number} --minutes ${minutes}`)
  }
  if (interrupted) return
  await end()
  const kinds = [...world.faults].sort().map(([kind, count]) => `${kind} ${count}`)
  const faults = [...world.faults.values()].reduce((sum, count) => sum + count, 0)
  say(
    `chaos: ${number - from} rounds, ${world.operations} operations, ${faults} faults (${kinds.join(', ')}), ` +
      `${world.givenUp} files given up and ${world.reads} read at rest, ${elapsedMinutes().toFixed(1)} minutes, ${violations} violations`,
  )
  process.exitCode = violations
}
