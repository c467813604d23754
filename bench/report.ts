/** Turns results into docs/performance.md and its chart. Pure: results in, text out. */
import type { CaseName, Figures } from './cases.ts'
import { medians } from './statistics.ts'
import type { ToolName } from './tool.ts'

export interface Machine {
  processor: string
  processors: number
  memoryBytes: number
  kernel: string
  fileSystem: string
  node: string
  /** Load average over a minute before the first run: what others do on this machine. */
  loadBefore: number
  /** What else a reader should know of it, a sentence; null: nothing. */
  note: string | null
}

export interface Results {
  /** ISO 8601, day only. */
  date: string
  machine: Machine
  settings: { rounds: number; scale: number; edits: number; idleSeconds: number }
  tools: { name: ToolName; version: string | null; missing: string | null }[]
  cases: CaseResult[]
}

export interface CaseResult {
  name: CaseName
  title: string
  tools: ToolResult[]
}

export interface ToolResult {
  tool: ToolName
  /** Why there is no figure, or null. */
  excluded: string | null
  /** One for each round that went well, in order. */
  runs: Figures[]
  failures: string[]
}

/** A load above this part of the processors before the start spoils the figures. */
const BUSY_PART = 0.25

/** The figure of each case that its chart and its ratios are about. */
const HEADLINE: Record<CaseName, string> = {
  small: 'durable_s',
  small100k: 'durable_s',
  big: 'durable_s',
  overwrite: 'visible_s',
  insert: 'visible_s',
  rename_file: 'visible_s',
  rename_folder: 'visible_s',
  edit: 'p50_ms',
  edit_during: 'p50_ms',
  idle: 'rss_mb',
  idle_wire: 'wire_kb',
  million: 'rss_mb',
  loadtest: 'all_ms',
}

/** What Realize is to reach on a machine of two processors, by case: a figure, and at most how much; of another tool's: that part of it. */
const AIMS: [name: CaseName, figure: string, most: number, of?: ToolName][] = [
  ['small', 'durable_s', 1.3],
  ['small', 'durable_s', 1 / 8, 'syncthing'],
  ['small100k', 'durable_s', 15],
  ['small100k', 'peak_a_mb', 200],
  ['small100k', 'peak_b_mb', 200],
  ['big', 'durable_s', 0.75, 'rsync'],
  ['overwrite', 'visible_s', 2.5],
  ['overwrite', 'wire_mb', 1.3],
  ['insert', 'visible_s', 2.5],
  ['insert', 'wire_mb', 0.5],
  ['rename_file', 'visible_s', 0.2],
  ['rename_file', 'wire_mb', 0.01],
  ['rename_folder', 'visible_s', 0.5],
  ['rename_folder', 'wire_mb', 0.4],
  ['edit', 'p50_ms', 20],
  ['edit', 'p95_ms', 60],
  ['edit_during', 'p95_ms', 300],
  ['idle_wire', 'wire_kb', 2],
  ['million', 'rss_mb', 250],
  ['million', 'cpu_percent', 0.5],
  ['million', 'rescan_s', 8],
  ['million', 'restart_s', 12],
  ['loadtest', 'connect_s', 20],
  ['loadtest', 'all_ms', 2_000],
  ['loadtest', 'connection_kb', 200],
]

const COLUMNS: Record<string, string> = {
  durable_s: 'durable (s)',
  copied_s: 'command returned (s)',
  visible_s: 'visible on B (s)',
  wire_mb: 'on the wire (MB)',
  wire_kb: 'on the wire (kB)',
  connect_s: 'all connected (s)',
  connects_per_s: 'connections a second',
  all_ms: 'p99 at all (ms)',
  p50_ms: 'p50 (ms)',
  p95_ms: 'p95 (ms)',
  p99_ms: 'p99 (ms)',
  max_ms: 'max (ms)',
  edits: 'edits',
  transfer_s: 'large file (s)',
  fetch_mbs: 'fetch (MB/s)',
  connection_kb: 'memory a connection (kB)',
  connection_cpu_ms: 'CPU a connection (ms)',
  rss_mb: 'RSS at rest (MB)',
  private_mb: 'of it private (MB)',
  cpu_percent: 'CPU at rest (%)',
  rss_after_first_scan_mb: 'RSS after the first scan (MB)',
  first_scan_s: 'first scan (s)',
  ready_s: 'start until ready (s)',
  restart_s: 'start until idle (s)',
  rescan_s: 'rescan without changes (s)',
  cpu_a_s: 'CPU A (s)',
  cpu_b_s: 'CPU B (s)',
  peak_a_mb: 'peak RSS A (MB)',
  peak_b_mb: 'peak RSS B (MB)',
}

export function toMarkdown(results: Results): string {
  const { machine, settings } = results
  const lines = [
    '# Performance',
    '',
    '<!-- Written by `npm run bench -- --docs`. Change bench/report.ts, not this file. -->',
    '',
    `Measured on ${results.date}: the tools in turn, both ends on one machine over loopback; of several rounds the medians.`,
    ...machineLines(machine),
    ...(settings.scale === 1 ? [] : [`**Inputs are scaled to ${settings.scale} of the published size.**`]),
    '',
    '![The headline figure of each case, a bar for each tool; shorter is better](performance.svg)',
    '',
  ]
  lines.push(...aimLines(results))
  for (const result of results.cases) lines.push(...caseLines(result), '')
  lines.push('## The tools', '')
  for (const tool of results.tools) lines.push(`- ${tool.name}: ${tool.version ?? `not measured, ${tool.missing}`}`)
  lines.push(
    '',
    'Syncthing runs as two instances that know each other’s address, with discovery, relays, NAT traversal, upgrades and reports off,',
    'its watcher delay at the least value that it takes (1 s), at normal priority, and is told to scan as soon as the files are there. rsync is a client of a daemon,',
    'without compression. Neither rsync nor `cp` makes anything durable; a `sync` of the file system follows within the measured time.',
    '',
    '## How it is measured',
    '',
    '- New homes and empty roots for every run; the two ends are connected and at rest when the clock starts.',
    '- `small` and `big`: the prepared folder is renamed into the root of A. The clock stops when the tool says that B has it all and',
    '  it is durable. Then the trees are compared byte by byte; a run with a difference is a failure.',
    '- `overwrite`, `insert`, `rename_file`, `rename_folder`: both ends have the tree and rest. The clock starts with the change on A and stops when a reader on B',
    '  finds it; then the trees are compared. B dials A through a relay of this benchmark, which counts the bytes in both directions; what is on the wire is',
    '  counted until a second after the tool said that it is done. rsync is started with the change, with `--delete`.',
    '- `edit_during` and `idle_wire` go through the relay as well.',
    '- `edit`: 1 KiB is overwritten in place in one file of 1,000; a reader that waits on B for events of the folder reads the file until the new content is there.',
    '  20 edits to warm up are not counted.',
    '- `million` is `idle` with that many files; `loadtest` is `realize loadtest`, all of whose peers run on this machine.',
    '- `idle`: one service over a full root, started again after its first scan. Resident memory is read at the end of the time at rest.',
    '  *Private* is without mapped files: the program itself and, with Realize, the store’s pages, which the system takes back when it needs to.',
    '- CPU seconds and peak resident memory are those of the processes and their children, from `/proc`.',
    '',
    'Run it yourself: `npm run bench` (needs Linux; Syncthing and rsync are installed through apt-get where that is possible, else skipped). `npm run bench -- --help` lists the options.',
    '',
  )
  return lines.join('\n')
}

/** What a reader must know of the machine. */
export function machineLines(machine: Machine): string[] {
  return [
    `${machine.processor}, ${machine.processors} processors, ${Math.round(machine.memoryBytes / 1e9)} GB of memory, Linux ${machine.kernel}, ${machine.fileSystem}, Node ${machine.node}.`,
    ...(machine.loadBefore < machine.processors * BUSY_PART
      ? []
      : [
          `**The machine was busy with other things (load ${machine.loadBefore.toFixed(1)} before the start): these figures are no more than a hint.**`,
        ]),
    ...(machine.note === null ? [] : [machine.note]),
  ]
}

/** Each aim that was measured, and whether it was met. */
function aimLines(results: Results): string[] {
  if (results.settings.scale !== 1) return []
  const rows: string[] = []
  for (const [name, figure, most, of] of AIMS) {
    const result = results.cases.find(one => one.name === name)
    const ours = figureOf(result, 'realize', figure)
    const theirs = of && figureOf(result, of, figure)
    if (ours === undefined || (of && theirs === undefined)) continue
    const limit = theirs === undefined ? most : most * theirs
    const part = of && (most < 0.5 ? `1/${Math.round(1 / most)} of ${of}: ` : `${most} × ${of}: `)
    const aim = `${part ?? ''}${format(limit)}`
    rows.push(`| ${name} | ${COLUMNS[figure]} | ${aim} | ${format(ours)} | ${ours <= limit ? 'yes' : '**no**'} |`)
  }
  if (rows.length === 0) return []
  return [
    '## What is aimed at',
    '',
    '| case | figure | at most | measured | met |',
    '|---|---|---:|---:|---|',
    ...rows,
    '',
  ]
}

function figureOf(result: CaseResult | undefined, tool: ToolName, figure: string): number | undefined {
  const runs = result?.tools.find(one => one.tool === tool)?.runs ?? []
  return runs.length > 0 ? medians(runs)[figure] : undefined
}

function caseLines(result: CaseResult): string[] {
  const measured = result.tools.filter(tool => tool.runs.length > 0)
  const columns = Object.keys(COLUMNS).filter(column => measured.some(tool => tool.runs.some(run => column in run)))
  const headline = HEADLINE[result.name]
  const ours = headlineOf(result, 'realize')
  const rounds = Math.max(...result.tools.map(tool => tool.runs.length + tool.failures.length))
  const lines = [
    `## ${result.name}`,
    '',
    `${result.title}. ${rounds === 1 ? 'One round' : `${rounds} rounds`}.`,
    '',
    `| tool | ${columns.map(column => COLUMNS[column]).join(' | ')} | ${COLUMNS[headline]?.replace(/ \(.*/u, '')} ÷ Realize’s |`,
    `|---|${columns.map(() => '---:|').join('')}---:|`,
  ]
  for (const tool of measured) {
    const figures = medians(tool.runs)
    const cells = columns.map(column => format(figures[column]))
    const value = figures[headline]
    const ratio = ours === undefined || value === undefined ? '–' : (value / ours).toFixed(2)
    lines.push(`| ${tool.tool} | ${cells.join(' | ')} | ${ratio} |`)
  }
  for (const tool of result.tools) {
    if (tool.excluded !== null) lines.push('', `${tool.tool}: ${tool.excluded}.`)
    for (const failure of tool.failures) lines.push('', `${tool.tool} failed in a round: ${failure}`)
  }
  return lines
}

function headlineOf(result: CaseResult, tool: ToolName): number | undefined {
  return figureOf(result, tool, HEADLINE[result.name])
}

/** Three significant digits, without an exponent. */
export function format(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return '–'
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2
  return value.toFixed(digits)
}

const COLOURS: Record<ToolName, string> = { realize: '#2563eb', syncthing: '#94a3b8', rsync: '#94a3b8', cp: '#cbd5e1' }
const WIDTH = 760
const BAR_LEFT = 110
const BAR_WIDTH_MAX = 540
const BAR_HEIGHT = 18
const LINE_HEIGHT = 26

/** Bars of the headline figures, each case on its own scale. */
export function toSvg(results: Results): string {
  const parts: string[] = []
  let y = 30
  for (const result of results.cases) {
    const bars = result.tools
      .map(({ tool }) => ({ tool, value: headlineOf(result, tool) }))
      .filter((bar): bar is { tool: ToolName; value: number } => bar.value !== undefined)
    if (bars.length === 0) continue
    // Nothing on the wire is no bar.
    const greatest = Math.max(...bars.map(bar => bar.value)) || 1
    parts.push(
      `<text x="16" y="${y}" font-weight="bold">${escapeXml(`${result.name}: ${COLUMNS[HEADLINE[result.name]]}`)}</text>`,
    )
    parts.push(`<text x="16" y="${y + 16}" font-size="11" fill="#475569">${escapeXml(result.title)}</text>`)
    y += 28
    for (const { tool, value } of bars) {
      const width = Math.max(1, (value / greatest) * BAR_WIDTH_MAX)
      parts.push(
        `<text x="${BAR_LEFT - 8}" y="${y + 13}" text-anchor="end">${tool}</text>`,
        `<rect x="${BAR_LEFT}" y="${y}" width="${width.toFixed(1)}" height="${BAR_HEIGHT}" rx="2" fill="${COLOURS[tool]}"/>`,
        `<text x="${(BAR_LEFT + width + 6).toFixed(1)}" y="${y + 13}">${format(value)}</text>`,
      )
      y += LINE_HEIGHT
    }
    y += 26
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}" font-family="system-ui, sans-serif" font-size="13" fill="#0f172a">`,
    `<rect width="${WIDTH}" height="${y}" fill="#ffffff"/>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n')
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
