/** Small programs in C, for what Node cannot do with a file: compiled by the test that needs them. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Cleaning, temporaryFolder } from '../_temp.ts'

/** Why such programs cannot be had here, or null. */
export const cannotCompile: string | null =
  spawnSync('gcc', ['--version'], { stdio: 'ignore' }).status === 0 ? null : 'gcc is not installed'

/** Compiles a program; where it is. */
export function compiled(t: Cleaning, name: string, text: string): string {
  const folder = temporaryFolder(t)
  const [source, program] = [join(folder, `${name}.c`), join(folder, name)]
  writeFileSync(source, text)
  const { status, stderr } = spawnSync('gcc', ['-O2', '-Wall', '-Werror', '-o', program, source], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`gcc: ${stderr}`)
  return program
}
