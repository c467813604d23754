/**
 * A copy of the sources beside the checkout, in which one defect at a time is made, compiled and looked for: by the simulator,
 * or by tests. Nothing of the checkout is touched.
 */
import { spawn, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run } from '../_run.ts'
import { FAULTS, type Faults, makeScript } from '../_script.ts'
import type { Edit, Mutant } from './_mutants.ts'

/** From dist/test/sim/mutants. */
const CHECKOUT = fileURLToPath(new URL('../../../../', import.meta.url))
const COPIED = [
  'actors',
  'bench',
  'cli',
  'protocol',
  'supervisor',
  'test',
  'tsconfig.json',
  'package.json',
  'ava.config.js',
]
const require = createRequire(import.meta.url)
const COMPILER = join(dirname(require.resolve('typescript/package.json')), 'bin', 'tsc')
const AVA = join(dirname(require.resolve('ava')), 'cli.mjs')
const TESTS_MS_MAX = 180_000

/** Steps of a script, but for its faults. */
export const HUNT_OPERATIONS = 40

export interface Limits {
  /** Seeds of each class of faults. */
  readonly seeds: number
  readonly seconds: number
}

/** What found a defect, and how much was done until then; `by` null: nothing did. */
export interface Verdict {
  readonly mutant: string
  readonly by: string | null
  /** What was broken, in the simulator's or the test's words. */
  readonly what: string
  readonly runs: number
  readonly operations: number
  readonly seconds: number
}

/** What `_hunt.ts` prints. */
export interface Hunted {
  /** `faults`: the class, or the name of a script. */
  readonly found: { readonly faults: Faults | string; readonly seed: number; readonly message: string } | null
  readonly runs: number
  readonly operations: number
}

export class Workshop {
  readonly folder: string
  #children = new Set<ReturnType<typeof spawn>>()

  constructor() {
    this.folder = realpathSync(mkdtempSync(join(tmpdir(), 'realize-mutants-')))
    for (const name of COPIED) cpSync(join(CHECKOUT, name), join(this.folder, name), { recursive: true })
    symlinkSync(join(CHECKOUT, 'node_modules'), join(this.folder, 'node_modules'))
  }

  close(): void {
    for (const child of this.#children) end(child)
    rmSync(this.folder, { recursive: true, force: true })
  }

  /** Makes the defect, looks for it, and mends it again. null: the sources as they are. */
  async try(mutant: Mutant | null, limits: Limits): Promise<Verdict> {
    const edits = mutant?.edits ?? []
    const undo = new Map(edits.map(({ file }) => [file, this.#read(file)]))
    try {
      for (const edit of edits) this.#write(edit.file, edited(this.#read(edit.file), edit))
      this.#compile()
      return await this.#look(mutant, limits)
    } finally {
      for (const [file, text] of undo) this.#write(file, text)
    }
  }

  #read(file: string): string {
    return readFileSync(join(this.folder, file), 'utf8')
  }

  #write(file: string, text: string): void {
    writeFileSync(join(this.folder, file), text)
  }

  /** Without looking at types: a defect need not be well-typed. */
  #compile(): void {
    const { status, stdout, stderr } = spawnSync(process.execPath, [COMPILER, '-p', this.folder, '--noCheck'], {
      encoding: 'utf8',
    })
    if (status !== 0) throw new Error(`the defect does not compile: ${stdout}${stderr}`)
  }

  async #look(mutant: Mutant | null, limits: Limits): Promise<Verdict> {
    const name = mutant?.name ?? 'none'
    const startMs = performance.now()
    let hunted = await this.#hunt(name, mutant?.faults ?? FAULTS, limits)
    const verdict = (by: string | null, what: string): Verdict => ({
      mutant: name,
      by,
      what,
      runs: hunted.runs,
      operations: hunted.operations,
      seconds: (performance.now() - startMs) / 1000,
    })
    if (hunted.found) return verdict(`${hunted.found.faults}, seed ${hunted.found.seed}`, hunted.found.message)
    const replayed = await this.#replay(name)
    hunted = {
      found: replayed.found,
      runs: hunted.runs + replayed.runs,
      operations: hunted.operations + replayed.operations,
    }
    if (hunted.found) return verdict(hunted.found.faults, hunted.found.message)
    for (const test of mutant?.tests ?? []) {
      const failed = await this.#test(test)
      if (failed !== null) return verdict(test, failed)
    }
    return verdict(null, '')
  }

  /** Seeds that fail without the defect, too, show nothing of it. */
  async #hunt(name: string, faults: readonly Faults[], { seeds, seconds }: Limits): Promise<Hunted> {
    const endMs = performance.now() + seconds * 1000
    let runs = 0
    let operations = 0
    for (let from = 1; faults.length > 0 && performance.now() < endMs; ) {
      const leftSeconds = (endMs - performance.now()) / 1000
      const program = join(this.folder, 'dist/test/sim/mutants/_hunt.js')
      const args = [program, 'seeds', faults.join(','), String(from), String(seeds), String(leftSeconds)]
      const { stdout, stderr, code } = await this.#run(args, Math.ceil(leftSeconds + 60) * 1000)
      if (code !== 0) throw new Error(`${name}: the hunt ended with ${code}: ${stderr}`)
      const hunted = JSON.parse(stdout) as Hunted
      runs += hunted.runs
      operations += hunted.operations
      if (!hunted.found) break
      const { faults: kind, seed } = hunted.found
      const { failure } = run(makeScript({ seed, peers: 0, operations: HUNT_OPERATIONS, faults: kind as Faults }))
      if (!failure || name === 'none') return { found: hunted.found, runs, operations }
      process.stderr.write(`${kind}, seed ${seed} fails without a defect: ${failure.message}\n`)
      from = seed + 1
    }
    return { found: null, runs, operations }
  }

  /** Every script that once failed. */
  async #replay(name: string): Promise<Hunted> {
    const program = join(this.folder, 'dist/test/sim/mutants/_hunt.js')
    const args = [program, 'scripts', join(this.folder, 'test/sim/regressions')]
    const { stdout, stderr, code } = await this.#run(args, TESTS_MS_MAX)
    if (code !== 0) throw new Error(`${name}: the scripts ended with ${code}: ${stderr}`)
    return JSON.parse(stdout) as Hunted
  }

  /** The title of the first test of a file that fails, or null. */
  async #test(file: string): Promise<string | null> {
    const { stdout, stderr, code } = await this.#run(
      [AVA, '--tap', '--fail-fast', `dist/${file.replace(/\.ts$/, '.js')}`],
      TESTS_MS_MAX,
    )
    const title = /^not ok \d+ - (.*)$/m.exec(stdout)?.[1]
    if (title === undefined && code === null) return 'it never comes to its end'
    if (title === undefined && code !== 0) throw new Error(`${file} ended with ${code}: ${stderr}${stdout}`)
    return title ?? null
  }

  #run(args: string[], limitMs: number): Promise<{ stdout: string; stderr: string; code: number | null }> {
    const child = spawn(process.execPath, args, {
      cwd: this.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    this.#children.add(child)
    const alarm = setTimeout(() => end(child), limitMs)
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    return new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', code => {
        clearTimeout(alarm)
        this.#children.delete(child)
        resolve({ stdout, stderr, code })
      })
    })
  }
}

/** Ends a program with all that it has started: whoever runs tests starts processes for them. */
function end({ pid }: ReturnType<typeof spawn>): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
}

/** Throws if the text to replace is not there exactly once: then the code has changed, and the defect must be written anew. */
export function edited(text: string, { file, search, replace }: Edit): string {
  const parts = text.split(search)
  if (parts.length !== 2) throw new Error(`${file} has this ${parts.length - 1} times, not once:\n${search}`)
  return parts.join(replace)
}
