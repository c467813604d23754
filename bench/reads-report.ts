/** Turns what bench/reads.ts has measured into docs/performance-on-demand.md. Pure: results in, text out. */
import type { Machine } from './report.ts'
import { format, machineLines } from './report.ts'
import { median } from './statistics.ts'

export type Unit = 'MB/s' | 'µs' | 'ms' | 's'

/** What is aimed at: a part of what it is compared with, or so much at most. */
export type Aim = { readonly part: number } | { readonly most: number }

export interface Row {
  readonly section: string
  readonly name: string
  readonly unit: Unit
  readonly aim: Aim | null
  /** One for each round, of what it is compared with. Empty: it is compared with nothing. */
  readonly base: number[]
  /** One for each round. */
  readonly measured: number[]
}

/** Who mounted: root, for whom the kernel reads real files by itself, or an ordinary user. */
export interface Setting {
  readonly name: string
  readonly passthrough: boolean
  readonly rows: Row[]
}

export interface ReadsResults {
  /** ISO 8601, day only. */
  readonly date: string
  readonly machine: Machine
  readonly rounds: number
  readonly megabytes: number
  readonly entries: number
  readonly fio: string | null
  readonly settings: Setting[]
}

/** Several measurements as one: of who was measured more than once, all rows; of a row that was measured twice, the later one. */
export function joined(all: readonly ReadsResults[], note: string | undefined): ReadsResults {
  const last = all.at(-1)
  if (!last) throw new Error('there is nothing to take the results from')
  const settings = new Map<string, Setting>()
  for (const setting of all.flatMap(one => one.settings)) {
    const before = settings.get(setting.name)?.rows ?? []
    const isSame = (a: Row, b: Row) => a.section === b.section && a.name === b.name
    const kept = before.filter(row => !setting.rows.some(other => isSame(row, other)))
    settings.set(setting.name, { ...setting, rows: [...kept, ...setting.rows] })
  }
  return {
    ...last,
    machine: {
      ...last.machine,
      loadBefore: Math.max(...all.map(({ machine }) => machine.loadBefore)),
      note: note ?? last.machine.note,
    },
    rounds: Math.max(...all.map(({ rounds }) => rounds)),
    megabytes: Math.max(...all.map(({ megabytes }) => megabytes)),
    entries: Math.max(...all.map(({ entries }) => entries)),
    settings: [...settings.values()],
  }
}

export function toMarkdown(results: ReadsResults): string {
  const { settings, rounds, megabytes, entries, fio } = results
  const lines = [
    '# Performance of files on demand',
    '',
    '<!-- Written by `npm run bench:view -- --docs`. Change bench/reads-report.ts, not this file. -->',
    '',
    `Measured on ${results.date}: a mount of a real service’s arena, with a second service as its peer over TLS on loopback; medians of up to ${rounds} rounds.`,
    ...machineLines(results.machine),
    '',
    `Big files have ${megabytes} MB, folders ${entries.toLocaleString('en')} entries. ${fio === null ? 'fio is not installed and was left out.' : `${fio}.`}`,
    '',
  ]
  for (const { name, passthrough } of settings)
    lines.push(`- ${name}: the kernel reads real files ${passthrough ? 'by itself (passthrough)' : 'through the view'}`)
  lines.push('')
  const sections = new Map<string, Row[]>()
  for (const { rows } of settings)
    for (const row of rows) {
      const section = sections.get(row.section) ?? []
      sections.set(row.section, section)
      if (!section.some(({ name }) => name === row.name)) section.push(row)
    }
  for (const [section, rows] of sections) {
    const heads = settings.map(({ name }) => ` ${name} | met |`)
    lines.push(
      `## ${section}`,
      '',
      `| | aim |${heads.join('')}`,
      `|---|---|${settings.map(() => '---:|---|').join('')}`,
    )
    for (const { name, aim } of rows) {
      const cells = settings.map(setting =>
        cellsOf(setting.rows.find(row => row.section === section && row.name === name)),
      )
      lines.push(`| ${name} | ${aimText(aim, rows.find(row => row.name === name)?.unit ?? 's')} |${cells.join('')}`)
    }
    lines.push('')
  }
  lines.push(...METHODS, '')
  return lines.join('\n')
}

function aimText(aim: Aim | null, unit: Unit): string {
  if (aim === null) return ''
  return 'part' in aim ? `≥ ${Math.round(aim.part * 100)} %` : `≤ ${aim.most} ${unit}`
}

/** Of speeds more is better, of times less: the part is always "as fast as". */
function partOf({ unit, base, measured }: Row): number | null {
  if (base.length === 0) return null
  return unit === 'MB/s' ? median(measured) / median(base) : median(base) / median(measured)
}

export function isMet(row: Row): boolean | null {
  if (row.aim === null) return null
  return 'part' in row.aim ? (partOf(row) ?? 0) >= row.aim.part : median(row.measured) <= row.aim.most
}

function cellsOf(row: Row | undefined): string {
  if (row === undefined || row.measured.length === 0) return ' – | |'
  const part = partOf(row)
  const of = part === null ? '' : ` of ${format(median(row.base))}`
  const met = isMet(row)
  const percent = part === null ? '' : ` (${Math.round(part * 100)} %)`
  return ` ${format(median(row.measured))}${of} ${row.unit}${percent} | ${met === null ? '' : met ? 'yes' : '**no**'} |`
}

const METHODS = [
  '## Where the time goes',
  '',
  '- A cached file whose pages the kernel has dropped for the mount is copied three times where the folder’s is copied once: from the cache’s file to a thread that reads the device, from there to',
  '  the pages of the mounted file, from there to the program; 1 MiB at a time as root, 128 KiB for others, as far as the kernel reads ahead. The kernel could read the cache’s file by itself, as it',
  '  reads real files for root, but could not be told to go on with the real file once somebody writes.',
  '- For an ordinary user real files go through the view as well: what is written is copied twice and costs a request for each 128 KiB of `fio`, as no write is collected in the kernel.',
  '- Parts at random that the kernel has not got are a question each, of two changes of thread.',
  '- What is fetched is decrypted, held against its hash, written to the cache, and copied to the pages of the mounted file; the plain transfer does without the last of these. With two processors',
  '  both services and the program that reads share them.',
  '- A name is found, and a listing made, in one thread of Node: 6 to 10 µs an entry in a listing; by name there are two changes of thread as well, where requests do not follow on each other. Most of it are the kernel’s own calls.',
  '- `ls -l` asks for the SELinux label and the access control list of the first file only, as it is told that there are none on this file system.',
  '',
  '## How it is measured',
  '',
  '- “x of y” is the figure through the mount and that of the same thing done in the arena’s folder itself, in turn.',
  '- *Again*: pages of the file are in the kernel’s cache, for the mount as for the folder. *Mount’s pages dropped*: those of the mounted file are dropped before',
  '  each read (`posix_fadvise`), those of the file below stay. *From the disk*: both are dropped.',
  '- *Cached*: an unreal file whose content is wholly in Realize’s cache. *Not cached*: nothing of it is here; it is fetched from the peer, verified and kept. The plain transfer is',
  '  the same content becoming a real file, from the command until it is there.',
  '- `dd` reads and writes blocks of 1 MiB; `fio` runs one job that waits for each of its requests (`psync`), 128 KiB in sequence or 4 KiB at random.',
  '- *Attributes expired*: all entries of a folder are looked at one after the other after what the kernel knew of them has expired.',
  '- The round trip of 50 ms is made by a relay between the two services, which delays both directions.',
]
