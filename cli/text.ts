/** How things are written for people: sizes, times, tables, colours. Pure. */
import { escapeText } from '../supervisor/escape.ts'

export type Colour = 'green' | 'yellow' | 'red' | 'dim' | 'bold'
const CODES: Record<Colour, number> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 }

/** Writes a text in a colour, or plainly. */
export type Paint = (colour: Colour, text: string) => string

export function painter(colours: boolean): Paint {
  return colours ? (colour, text) => `\u001b[${CODES[colour]}m${text}\u001b[0m` : (_, text) => text
}

/** A template in which every inserted value is escaped: names, paths and reasons come from elsewhere. */
export function safe(parts: TemplateStringsArray, ...values: (string | number)[]): string {
  return parts.reduce((text, part, i) => text + escapeText(String(values[i - 1])) + part)
}

/** JSON on one line, with what a terminal might obey escaped. It reads back as the same value. */
export function jsonText(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

const SIZES = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** "0 B", "1.5 KiB", "120 MiB". */
export function sizeText(bytes: number): string {
  let unit = 0
  let amount = bytes
  // 1023.95 would be written as 1024.
  while (amount >= 1023.95 && unit < SIZES.length - 1) {
    amount /= 1024
    unit++
  }
  const digits = unit === 0 || amount >= 99.95 ? 0 : 1
  return `${amount.toFixed(digits)} ${SIZES[unit]}`
}

/** "12 s", "3 min", "5 h", "2 d". */
export function spanText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`
  return `${Math.floor(seconds / 86_400)} d`
}

/** "3 min ago"; "in 5 h"; "now" within two seconds; the date when it is long ago. */
export function timeText(atMs: number, nowMs: number): string {
  const ago = nowMs - atMs
  if (Math.abs(ago) < 2000) return 'now'
  if (ago < 0) return `in ${spanText(-ago)}`
  if (ago < 30 * 86_400_000) return `${spanText(ago)} ago`
  const date = new Date(atMs)
  return Number.isNaN(date.getTime()) ? '?' : date.toISOString().slice(0, 10)
}

/** "1 file", "2 files". */
export function count(number: number, singular: string, plural = `${singular}s`): string {
  return `${number.toLocaleString('en-US')} ${number === 1 ? singular : plural}`
}

/** Text of a cell, which is escaped here, perhaps with a colour, perhaps set to the right. */
export type Cell = string | { text: string; colour?: Colour; right?: boolean }

/** Rows in aligned columns, each line indented. The last column is not filled up. */
export function table(rows: readonly (readonly Cell[])[], paint: Paint, indent = ''): string[] {
  const cells = rows.map(row =>
    row.map(cell => {
      const { text, colour, right } = typeof cell === 'string' ? { text: cell, colour: undefined, right: false } : cell
      return { text: escapeText(text), colour, right }
    }),
  )
  const widths: number[] = []
  for (const row of cells)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, [...cell.text].length)
  return cells.map(row => {
    const line = row.map((cell, i) => {
      const fill = ' '.repeat((widths[i] ?? 0) - [...cell.text].length)
      const text = cell.colour === undefined ? cell.text : paint(cell.colour, cell.text)
      if (cell.right) return fill + text
      return i === row.length - 1 ? text : text + fill
    })
    return `${indent}${line.join('  ')}`.trimEnd()
  })
}
