/**
 * Runs the simulator of a build until something breaks: `_hunt.js seeds CLASSES FROM TO SECONDS`, seed after seed of each class of
 * faults, or `_hunt.js scripts FOLDER`, every script that once failed.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../_run.ts'
import { type Faults, makeScript, type Script } from '../_script.ts'
import { HUNT_OPERATIONS, type Hunted } from './_workshop.ts'

const [what, first = '', from = '', to = '', seconds = ''] = process.argv.slice(2)
const hunted =
  what === 'scripts' ? replay(first) : hunt(first.split(',') as Faults[], Number(from), Number(to), Number(seconds))
process.stdout.write(JSON.stringify(hunted))

function hunt(classes: readonly Faults[], fromSeed: number, toSeed: number, secondsMax: number): Hunted {
  const endMs = performance.now() + secondsMax * 1000
  let runs = 0
  let operations = 0
  for (let seed = fromSeed; seed <= toSeed; seed++) {
    for (const faults of classes) {
      if (performance.now() > endMs) return { found: null, runs, operations }
      const script = makeScript({ seed, peers: 0, operations: HUNT_OPERATIONS, faults })
      const { failure } = run(script)
      runs++
      operations += script.steps.length
      if (failure) return { found: { faults, seed, message: failure.message }, runs, operations }
    }
  }
  return { found: null, runs, operations }
}

function replay(folder: string): Hunted {
  let runs = 0
  let operations = 0
  for (const name of readdirSync(folder).sort()) {
    const script = JSON.parse(readFileSync(join(folder, name), 'utf8')) as Script
    const { failure } = run(script)
    runs++
    operations += script.steps.length
    if (failure) return { found: { faults: name, seed: script.seed, message: failure.message }, runs, operations }
  }
  return { found: null, runs, operations }
}
