/**
 * Tables in memory, for the simulator: sorted arrays, with a transaction that can be undone. Values are handed out as they
 * are, not as copies: nobody may change one.
 */
import type { Row, TableName, Tables } from './tables.ts'

export class MemoryTables implements Tables {
  readonly #tables = new Map<TableName, { keys: string[]; values: Map<string, unknown> }>()
  #undo: (() => void)[] | null = null

  #table(name: TableName): { keys: string[]; values: Map<string, unknown> } {
    let table = this.#tables.get(name)
    if (!table) {
      table = { keys: [], values: new Map() }
      this.#tables.set(name, table)
    }
    return table
  }

  get(name: TableName, key: Buffer): unknown {
    return this.#table(name).values.get(key.toString('latin1'))
  }

  range(name: TableName, start: Buffer | null, end: Buffer | null, limit: number, descending = false): Row[] {
    const { keys, values } = this.#table(name)
    const first = start ? lowerBound(keys, start.toString('latin1')) : 0
    const last = end ? lowerBound(keys, end.toString('latin1')) : keys.length
    const chosen = descending
      ? keys.slice(Math.max(first, last - limit), Math.max(first, last)).reverse()
      : keys.slice(first, Math.min(last, first + limit))
    return chosen.map(key => ({ key: Buffer.from(key, 'latin1'), value: values.get(key) }))
  }

  put(name: TableName, key: Buffer, value: unknown): void {
    const table = this.#table(name)
    const text = key.toString('latin1')
    const had = table.values.has(text)
    const before = table.values.get(text)
    if (!had) table.keys.splice(lowerBound(table.keys, text), 0, text)
    table.values.set(text, value)
    this.#undo?.push(() => (had ? table.values.set(text, before) : this.#drop(name, text)))
  }

  remove(name: TableName, key: Buffer): void {
    const text = key.toString('latin1')
    const before = this.#table(name).values.get(text)
    if (!this.#drop(name, text)) return
    this.#undo?.push(() => this.put(name, key, before))
  }

  #drop(name: TableName, text: string): boolean {
    const table = this.#table(name)
    if (!table.values.delete(text)) return false
    table.keys.splice(lowerBound(table.keys, text), 1)
    return true
  }

  transact(change: () => void): void {
    this.#undo = []
    try {
      change()
    } catch (error) {
      const undo = this.#undo
      this.#undo = null
      for (const step of undo.reverse()) step()
      throw error
    } finally {
      this.#undo = null
    }
  }

  flushed(done: () => void): void {
    done()
  }

  close(): void {}

  /** A copy of everything, as a restored backup would be. */
  snapshot(): MemoryTables {
    const copy = new MemoryTables()
    for (const [name, table] of this.#tables) {
      const target = copy.#table(name)
      target.keys.push(...table.keys)
      for (const [key, value] of table.values) target.values.set(key, value)
    }
    return copy
  }
}

function lowerBound(keys: readonly string[], key: string): number {
  let low = 0
  let high = keys.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((keys[middle] as string) < key) low = middle + 1
    else high = middle
  }
  return low
}
