/** Runs the simulator of a build, seed after seed of each class of faults, until something breaks: `_hunt.js CLASSES FROM TO SECONDS`. */
import { run } from '../_run.ts'
import { type Faults, makeScript } from '../_script.ts'
import { HUNT_OPERATIONS, type Hunted } from './_workshop.ts'

const [classes = '', from = '', to = '', seconds = ''] = process.argv.slice(2)
process.stdout.write(JSON.stringify(hunt(classes.split(',') as Faults[], Number(from), Number(to), Number(seconds))))

function hunt(faults: readonly Faults[], from: number, to: number, secondsMax: number): Hunted {
  const endMs = performance.now() + secondsMax * 1000
  let runs = 0
  let operations = 0
  for (let seed = from; seed <= to; seed++) {
    for (const kind of faults) {
      if (performance.now() > endMs) return { found: null, runs, operations }
      const script = makeScript({ seed, peers: 0, operations: HUNT_OPERATIONS, faults: kind })
      const { failure } = run(script)
      runs++
      operations += script.steps.length
      if (failure) return { found: { faults: kind, seed, message: failure.message }, runs, operations }
    }
  }
  return { found: null, runs, operations }
}
