#!/usr/bin/env node
/** The program `realize`: its surroundings, signals and exit code. */
import { homedir, hostname } from 'node:os'
import { interrupt } from './interrupt.ts'
import { isClosedPipe, run } from './program.ts'
import { stopProgress } from './progress.ts'

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.on(signal, () => {
    stopProgress()
    if (!interrupt()) process.exit(code)
  })
}
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', error => {
    if (isClosedPipe(error)) process.exit(0)
    throw error
  })
}

process.exitCode = await run(process.argv.slice(2), {
  env: process.env,
  platform: process.platform,
  homedir: homedir(),
  hostname: hostname(),
  cwd: process.cwd(),
  stdout: process.stdout,
  stderr: process.stderr,
  nowMs: () => Date.now(),
})
