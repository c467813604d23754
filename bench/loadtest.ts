/** `realize loadtest` as a case: run as a person runs it, its JSON taken. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { LoadResult } from '../loadtest/run.ts'

const COMMAND_LINE = fileURLToPath(new URL('../cli/main.js', import.meta.url))

/** @param folder for its temporary files. Throws with its words if there is no result */
export async function loadtest(words: string[], folder: string): Promise<LoadResult> {
  const child = spawn(process.execPath, [COMMAND_LINE, '--json', 'loadtest', ...words], {
    env: { ...process.env, TMPDIR: folder, REALIZE_HOME: '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const end = () => child.kill('SIGTERM')
  process.once('exit', end)
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-1_000)
  })
  await once(child, 'close')
  process.off('exit', end)
  const result = stdout === '' ? null : (JSON.parse(stdout) as LoadResult | { error: { message: string } })
  if (result === null || 'error' in result) throw new Error(`the load test failed: ${stdout}${stderr}`)
  return result
}
