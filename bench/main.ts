/**
 * The benchmark: Realize beside Syncthing, rsync and cp, on this machine, with the same inputs, in turn.
 * `npm run bench -- --help` lists the options. Prints progress to stderr and the result's table to stdout.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command, InvalidArgumentError } from 'commander'
import { CASE_NAMES, CASES, type CaseName, type CaseSettings } from './cases.ts'
import { machineOf } from './machine.ts'
import { stopAll } from './process.ts'
import { realize } from './realize.ts'
import { type CaseResult, type Results, type ToolResult, toMarkdown, toSvg } from './report.ts'
import { cp, rsync } from './rsync.ts'
import { syncthing } from './syncthing.ts'
import { TOOL_NAMES, type Tool, type ToolName } from './tool.ts'

const TOOLS: Record<ToolName, Tool> = { realize, syncthing, rsync, cp }

interface Options {
  cases: CaseName[]
  only: ToolName[]
  rounds: number
  scale: number
  edits: number
  idleSeconds: number
  install: boolean
  dir: string
  out?: string
  docs?: boolean
  keep?: boolean
  from?: string[]
  note?: string
}

const program = new Command('bench')
  .description('Measures Realize beside Syncthing, rsync and cp, both ends on this machine.')
  .option('--cases <names>', `which of ${CASE_NAMES.join(', ')}`, list(CASE_NAMES), [...CASE_NAMES])
  .option('--only <tools>', `which of ${TOOL_NAMES.join(', ')}`, list(TOOL_NAMES), [...TOOL_NAMES])
  .option('--rounds <number>', 'how often each tool runs each case; medians are shown', positive, 3)
  .option('--scale <factor>', 'size of the inputs; 1 is the published size', positive, 1)
  .option('--edits <number>', 'edits counted in the case edit', positive, 100)
  .option('--idle-seconds <number>', 'how long the case idle watches a service at rest', positive, 30)
  .option('--no-install', 'do not install missing tools through apt-get')
  .option('--dir <folder>', 'where to work; should be on the disk that counts, not in memory', tmpdir())
  .option('--out <file>', 'write the results as JSON')
  .option('--keep', 'leave what it made: files that were just deleted make creating others slow for minutes')
  .option('--docs', 'write docs/performance.md and docs/performance.svg')
  .option('--from <files>', 'take the results of earlier --out, separated by commas, instead of measuring', text =>
    text.split(','),
  )
  .option('--note <sentence>', 'what a reader of the report should know of the machine')

await main(program.parse().opts<Options>())

async function main(options: Options): Promise<void> {
  const results = options.from === undefined ? await measure(options) : joined(options.from, options.note)
  const markdown = toMarkdown(results)
  if (options.out !== undefined) {
    mkdirSync(dirname(resolve(options.out)), { recursive: true })
    writeFileSync(options.out, `${JSON.stringify(results, null, 2)}\n`)
  }
  if (options.docs) {
    const docs = fileURLToPath(new URL('../../docs/', import.meta.url))
    writeFileSync(join(docs, 'performance.md'), markdown)
    writeFileSync(join(docs, 'performance.svg'), toSvg(results))
  }
  process.stdout.write(markdown)
  if (results.cases.some(result => result.tools.some(tool => tool.failures.length > 0))) process.exitCode = 1
}

/** Several measurements as one: a case that was measured twice is that of the later file. */
function joined(files: readonly string[], note: string | undefined): Results {
  const all = files.map(file => JSON.parse(readFileSync(file, 'utf8')) as Results)
  const last = all.at(-1)
  if (!last) throw new Error('there is nothing to take the results from')
  if (all.some(({ settings }) => settings.scale !== last.settings.scale))
    throw new Error('these were measured with inputs of different sizes')
  // Of what was measured twice the later counts, tool by tool.
  const cases = new Map<CaseName, CaseResult>()
  for (const one of all.flatMap(results => results.cases)) {
    const before = cases.get(one.name)?.tools ?? []
    const tools = TOOL_NAMES.flatMap(name => [...one.tools, ...before].find(({ tool }) => tool === name) ?? [])
    cases.set(one.name, { ...one, tools })
  }
  return {
    ...last,
    machine: {
      ...last.machine,
      loadBefore: Math.max(...all.map(({ machine }) => machine.loadBefore)),
      note: note ?? last.machine.note,
    },
    cases: CASE_NAMES.flatMap(name => cases.get(name) ?? []),
  }
}

async function measure(options: Options): Promise<Results> {
  const loadBefore = loadavg()[0] ?? 0
  mkdirSync(options.dir, { recursive: true })
  const folder = mkdtempSync(join(options.dir, 'realize-bench-'))
  const interrupted = (): void => {
    void stopAll().then(() => {
      rmSync(folder, { recursive: true, force: true })
      process.exit(130)
    })
  }
  process.once('SIGINT', interrupted)
  process.once('SIGTERM', interrupted)
  try {
    if (options.install) for (const name of options.only) install(TOOLS[name])
    const tools = options.only.map(name => ({ name, ...probe(TOOLS[name]) }))
    for (const tool of tools) if (tool.missing !== null) progress(`${tool.name} is skipped: ${tool.missing}`)
    const present = tools.filter(tool => tool.missing === null).map(tool => TOOLS[tool.name])
    const cases: CaseResult[] = []
    for (const name of options.cases) cases.push(await measureCase(name, present, options, folder))
    return {
      date: new Date().toISOString().slice(0, 10),
      machine: { ...machineOf(folder, loadBefore), note: options.note ?? null },
      settings: {
        rounds: options.rounds,
        scale: options.scale,
        edits: options.edits,
        idleSeconds: options.idleSeconds,
      },
      tools,
      cases,
    }
  } finally {
    await stopAll()
    if (!options.keep) rmSync(folder, { recursive: true, force: true })
  }
}

async function measureCase(name: CaseName, tools: Tool[], options: Options, folder: string): Promise<CaseResult> {
  const definition = CASES[name]
  const results = new Map<Tool, ToolResult>(
    tools.map(tool => [tool, { tool: tool.name, excluded: definition.excludes(tool), runs: [], failures: [] }]),
  )
  const inputs = join(folder, `${name}-inputs`)
  mkdirSync(inputs)
  for (let round = 1; round <= options.rounds; round++) {
    for (const [tool, result] of results) {
      if (result.excluded !== null) continue
      progress(`${name} · round ${round} of ${options.rounds} · ${tool.name} …`)
      const own = join(folder, `${name}-${round}-${tool.name}`)
      mkdirSync(own)
      const settings: CaseSettings = { ...options, folder: own, inputs }
      try {
        const figures = await definition.run(tool, settings)
        result.runs.push(figures)
        progress(
          `    ${Object.entries(figures)
            .map(([figure, value]) => `${figure} ${value.toFixed(2)}`)
            .join('  ')}`,
        )
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        result.failures.push(reason)
        progress(`    failed: ${reason}`)
      } finally {
        if (!definition.manyFiles) rmSync(own, { recursive: true, force: true })
      }
    }
  }
  return { name, title: definition.title(options), tools: [...results.values()] }
}

/** If it is missing, and this is a system with apt-get and a user who may use it. What does not succeed is seen when the tool is asked for. */
function install(tool: Tool): void {
  if (tool.aptPackage === null || probe(tool).missing === null || process.getuid?.() !== 0) return
  progress(`${tool.name} is missing: installing the package ${tool.aptPackage} …`)
  try {
    execFileSync('apt-get', ['install', '--yes', '--no-install-recommends', tool.aptPackage], { stdio: 'ignore' })
  } catch (error) {
    progress(`    apt-get failed: ${String(error).split('\n')[0]}`)
  }
}

function probe(tool: Tool): { version: string | null; missing: string | null } {
  try {
    return { version: tool.version(), missing: null }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    return { version: null, missing: code === 'ENOENT' ? 'it is not installed' : (String(error).split('\n')[0] ?? '') }
  }
}

function list<Name extends string>(known: readonly Name[]): (text: string) => Name[] {
  return text =>
    text.split(',').map(word => {
      const name = known.find(candidate => candidate === word.trim())
      if (name === undefined) throw new InvalidArgumentError(`'${word}' is none of ${known.join(', ')}.`)
      return name
    })
}

function positive(text: string): number {
  const number = Number(text)
  if (!(number > 0)) throw new InvalidArgumentError('Expected a number greater than 0.')
  return number
}

function progress(line: string): void {
  process.stderr.write(`${line}\n`)
}
