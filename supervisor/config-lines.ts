/** Where in a TOML text a key stands, for messages, and where its blocks begin and end, for edits. */
import { TomlDocument } from '@decimalturn/toml-patch'

type Block = TomlDocument['cst'][number]
type Row = Extract<Block, { type: 'KeyValue' }>
export type InlineArray = Extract<Row['value'], { type: 'InlineArray' }>

/** A `[table]`, `[[table]]` or key of the root, with the lines that it takes, the first being 1. */
export interface TomlBlock {
  /** Keys from the root, with an index after each name of a `[[table]]`. A row of the root is a block of its own. */
  path: (string | number)[]
  firstLine: number
  /** Line of its last value, or of its head. Comments after it belong to nobody. */
  lastLine: number
  kind: 'table' | 'element' | 'row'
  rows: Row[]
}

/** The blocks of a document in their order; undefined if it cannot be told. */
export function blocksOf(text: string): TomlBlock[] | undefined {
  let items: Block[]
  try {
    items = new TomlDocument(text).cst
  } catch {
    // smol-toml has the say about what is valid; lines are a kindness.
    return undefined
  }
  const counts = new Map<string, number>()
  const blocks: TomlBlock[] = []
  for (const item of items) {
    if (item.type === 'Comment') continue
    const rows = item.type === 'KeyValue' ? [item] : item.items.filter(row => row.type === 'KeyValue')
    const keys = item.type === 'KeyValue' ? [] : item.key.item.value
    if (item.type === 'TableArray') counts.set(keys.join('\0'), (counts.get(keys.join('\0')) ?? -1) + 1)
    blocks.push({
      path: indexed(keys, counts),
      firstLine: item.loc.start.line,
      lastLine: rows.at(-1)?.loc.end.line ?? item.loc.start.line,
      kind: item.type === 'KeyValue' ? 'row' : item.type === 'TableArray' ? 'element' : 'table',
      rows,
    })
  }
  return blocks
}

/** Line of the value at a path, or of the nearest thing around it; undefined if it cannot be told. */
export function lineOf(text: string, path: readonly (string | number)[]): number | undefined {
  let best: { line: number; depth: number } | undefined
  const offer = (line: number, depth: number) => {
    if (!best || depth > best.depth) best = { line, depth }
  }
  for (const block of blocksOf(text) ?? []) {
    if (block.kind !== 'row') {
      if (begins(path, block.path)) offer(block.firstLine, block.path.length)
      // A list of tables is where its first is.
      else if (begins(block.path, path)) offer(block.firstLine, path.length)
    }
    for (const row of block.rows) descend(row, block.path, path, offer)
  }
  return best?.line
}

function descend(
  row: Row,
  base: (string | number)[],
  path: readonly (string | number)[],
  offer: (line: number, depth: number) => void,
): void {
  const here = [...base, ...row.key.value]
  // A dotted key `a.b = 1` is also the place of `a`.
  const reached = begins(path, here) ? here : begins(here, path) ? path : undefined
  if (!reached) return
  offer(row.loc.start.line, reached.length)
  if (row.value.type === 'InlineTable') {
    for (const item of row.value.items) descend(item.item, here, path, offer)
  } else if (row.value.type === 'InlineArray') {
    for (const [i, item] of row.value.items.entries()) {
      const element = [...here, i]
      if (!begins(path, element)) continue
      offer(item.loc.start.line, element.length)
      const inner = item.item as Row['value']
      if (inner.type === 'InlineTable') for (const row of inner.items) descend(row.item, element, path, offer)
    }
  }
}

/** Whether `head` is how `path` begins. */
function begins(path: readonly (string | number)[], head: readonly (string | number)[]): boolean {
  return head.length <= path.length && head.every((part, i) => part === path[i])
}

function indexed(keys: readonly string[], counts: Map<string, number>): (string | number)[] {
  const path: (string | number)[] = []
  for (const [i, key] of keys.entries()) {
    path.push(key)
    const count = counts.get(keys.slice(0, i + 1).join('\0'))
    if (count !== undefined) path.push(count)
  }
  return path
}
