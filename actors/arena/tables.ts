/** What the store needs of a key-value engine: ordered tables of binary keys, one transaction at a time. */

export type TableName =
  | 'entries'
  | 'feed'
  | 'hashes'
  | 'pending'
  | 'intents'
  | 'leaves'
  | 'kept'
  | 'keptHashes'
  | 'peers'
  | 'conflicts'
  | 'history'
  | 'marks'
  | 'leases'
  | 'unreal'
  | 'state'
  | 'cached'
  | 'cachedAges'
  | 'cachedParts'
  | 'cachedTrees'

export const TABLES: readonly TableName[] = [
  'entries',
  'feed',
  'hashes',
  'pending',
  'intents',
  'leaves',
  'kept',
  'keptHashes',
  'peers',
  'conflicts',
  'history',
  'marks',
  'leases',
  'unreal',
  'state',
  'cached',
  'cachedAges',
  'cachedParts',
  'cachedTrees',
]

export interface Tables {
  get(table: TableName, key: Buffer): unknown
  /** Keys from `start` (included) to `end` (excluded), ascending, or descending from below `end`. */
  range(table: TableName, start: Buffer | null, end: Buffer | null, limit: number, descending?: boolean): Row[]
  /** Only inside `transact`. */
  put(table: TableName, key: Buffer, value: unknown): void
  remove(table: TableName, key: Buffer): void
  transact(change: () => void): void
  flushed(done: () => void): void
  close(): void
}
export interface Row {
  key: Buffer
  value: unknown
}
