/** The things under a simulated arena that can be pulled away: its disk, its tables, and the moment of a kill. */

import { DiskError, type DiskStat, type PlaceResult } from '../../actors/arena/disk.ts'
import { MemoryDisk, type MemoryDiskOptions } from '../../actors/arena/disk-memory.ts'
import type { Row, TableName, Tables } from '../../actors/arena/tables.ts'
import type { MemoryTables } from '../../actors/arena/tables-memory.ts'
import type { EntryPath } from '../../protocol/ids.ts'

/** Thrown inside the arena where its process ends; nothing there may catch it. */
export class Killed extends Error {}

/** Something that must never happen. `kind` names the invariant. */
export class SimulationFailure extends Error {
  readonly kind: string
  constructor(kind: string, message: string) {
    super(`${kind}: ${message}`)
    this.kind = kind
  }
}

export interface DiskHooks {
  /** Before the arena changes something; a code makes it fail. May throw Killed. */
  readonly change: (operation: string, path: string) => string | null
  /** After it has changed something in the tree. */
  readonly changed: (operation: 'place' | 'takeOut' | 'move' | 'linkKept', path: EntryPath, from?: EntryPath) => void
  /** Before the arena looks at something; a code makes it fail. */
  readonly look: (operation: string) => string | null
  /** A sync was asked for: call `complete` when it is done. */
  readonly syncing: (complete: () => void) => void
}

const TREE_CHANGES = new Set(['place', 'takeOut', 'move', 'makeFolder', 'removeFolder', 'setMeta', 'linkKept'])
const LOOKS = new Set(['stat', 'list'])

export class SimulatedDisk extends MemoryDisk {
  readonly #hooks: DiskHooks
  /** Changes that the arena made, of any kind. */
  changes = 0

  constructor(options: MemoryDiskOptions, hooks: DiskHooks) {
    super(options)
    this.#hooks = hooks
    this.fault = (operation, path) => {
      if (LOOKS.has(operation)) return null
      this.changes++
      return hooks.change(TREE_CHANGES.has(operation) ? operation : `own ${operation}`, path)
    }
  }

  /** The arena is at work: what is asked now is asked by it, not by a user or a check. */
  inside = false

  #looking(operation: string, path: string): void {
    if (!this.inside) return
    const code = this.#hooks.look(operation)
    if (code !== null) throw new DiskError(code, `${code}: ${operation} '${path}'`)
  }

  override stat(path: EntryPath): DiskStat | null {
    this.#looking('stat', path)
    return super.stat(path)
  }

  override list(path: EntryPath | undefined): ReturnType<MemoryDisk['list']> {
    this.#looking('list', path ?? '')
    return super.list(path)
  }

  override readLink(path: EntryPath): string {
    this.#looking('readLink', path)
    return super.readLink(path)
  }

  override read(path: EntryPath): ReturnType<MemoryDisk['read']> {
    this.#looking('read', path)
    return super.read(path)
  }

  override open(path: EntryPath): ReturnType<MemoryDisk['open']> {
    this.#looking('open', path)
    return super.open(path)
  }

  /** What the arena has staged, by inode: the content that it may put in place. */
  readonly #staged = new Map<bigint, Uint8Array>()

  override stageFile(slot: string, bytes: Uint8Array, mtimeNs: bigint, exec: boolean): DiskStat {
    const stat = super.stageFile(slot, bytes, mtimeNs, exec)
    this.#staged.set(stat.ino, bytes)
    return stat
  }

  override stageFinish(slot: string, size: number, mtimeNs: bigint, exec: boolean): DiskStat {
    const stat = super.stageFinish(slot, size, mtimeNs, exec)
    this.#staged.set(stat.ino, super.stageRead(slot, 0, size))
    return stat
  }

  /** Whether a file is as the arena has staged it: nobody has written to it since. */
  asStaged(ino: bigint, bytes: Uint8Array): boolean {
    const staged = this.#staged.get(ino)
    return staged !== undefined && Buffer.compare(staged, bytes) === 0
  }

  /** What a user has written is no longer what was staged, be it the same. */
  override writeFile(path: string, bytes: Uint8Array): void {
    super.writeFile(path, bytes)
    const stat = super.stat(path as EntryPath)
    if (stat !== null) this.#staged.delete(stat.ino)
  }

  override keptOpen(kept: string): ReturnType<MemoryDisk['keptOpen']> {
    this.#looking('open', kept)
    return super.keptOpen(kept)
  }

  override stageStat(slot: string): DiskStat | null {
    this.#looking('stat', slot)
    return super.stageStat(slot)
  }

  override stageRead(slot: string, offset: number, length: number): Uint8Array {
    this.#looking('read', slot)
    return super.stageRead(slot, offset, length)
  }

  override stageList(): string[] {
    this.#looking('list', 'staging')
    return super.stageList()
  }

  override keptStat(kept: string): DiskStat | null {
    this.#looking('stat', kept)
    return super.keptStat(kept)
  }

  override keptList(): string[] {
    this.#looking('list', 'versions')
    return super.keptList()
  }

  override identity(): ReturnType<MemoryDisk['identity']> {
    this.#looking('stat', 'the root')
    return super.identity()
  }

  override move(from: EntryPath, to: EntryPath, expected: DiskStat): PlaceResult {
    this.#hooks.change('moved', to)
    return this.#after('move', to, super.move(from, to, expected), from)
  }

  override place(slot: string, path: EntryPath, expected: DiskStat | null): PlaceResult {
    return this.#after('place', path, super.place(slot, path, expected))
  }

  override takeOut(path: EntryPath, slot: string, expected: DiskStat): PlaceResult {
    return this.#after('takeOut', path, super.takeOut(path, slot, expected))
  }

  override linkKept(kept: string, path: EntryPath): PlaceResult {
    return this.#after('linkKept', path, super.linkKept(kept, path))
  }

  #after(
    operation: 'place' | 'takeOut' | 'move' | 'linkKept',
    path: EntryPath,
    result: PlaceResult,
    from?: EntryPath,
  ): PlaceResult {
    if (result === 'placed') this.#hooks.changed(operation, path, from)
    return result
  }

  override sync(done: (error: DiskError | null) => void): void {
    super.sync(done)
    this.#hooks.syncing(() => this.completeSync())
  }
}

type Write = { readonly table: TableName; readonly key: Buffer; readonly value: unknown; readonly gone: boolean }

/** Tables whose last transactions are not durable yet, like LMDB's with overlapping syncs. */
export class SimulatedTables implements Tables {
  #live: MemoryTables
  #durable: MemoryTables
  #log: Write[][] = []
  #writes: Write[] = []
  readonly #commit: () => void
  readonly #flush: (complete: () => void) => void
  readonly #background: (complete: () => void) => void

  /**
   * `commit` is called before each transaction ends, and may throw; `flush` when durability is asked for; `background` after each
   * transaction, which becomes durable soon by itself.
   */
  constructor(
    tables: MemoryTables,
    commit: () => void,
    flush: (complete: () => void) => void,
    background: (complete: () => void) => void,
  ) {
    this.#live = tables
    this.#durable = tables.snapshot()
    this.#commit = commit
    this.#flush = flush
    this.#background = background
  }

  get(table: TableName, key: Buffer): unknown {
    return this.#live.get(table, key)
  }

  range(table: TableName, start: Buffer | null, end: Buffer | null, limit: number, descending?: boolean): Row[] {
    return this.#live.range(table, start, end, limit, descending)
  }

  put(table: TableName, key: Buffer, value: unknown): void {
    this.#live.put(table, key, value)
    this.#writes.push({ table, key, value, gone: false })
  }

  remove(table: TableName, key: Buffer): void {
    this.#live.remove(table, key)
    this.#writes.push({ table, key, value: undefined, gone: true })
  }

  transact(change: () => void): void {
    this.#writes = []
    this.#live.transact(() => {
      change()
      this.#commit()
    })
    this.#log.push(this.#writes)
    this.#background(this.#covering())
  }

  flushed(done: () => void): void {
    const complete = this.#covering()
    this.#flush(() => {
      complete()
      done()
    })
  }
  /** Transactions that have left the log. */
  #flushedBefore = 0

  /** Makes durable what is in the log now. */
  #covering(): () => void {
    const until = this.#flushedBefore + this.#log.length
    return () => {
      if (until <= this.#flushedBefore) return
      this.#makeDurable(until - this.#flushedBefore)
      this.#flushedBefore = until
    }
  }

  #makeDurable(count: number): void {
    if (count <= 0) return
    const writes = this.#log.splice(0, count).flat()
    this.#durable.transact(() => {
      for (const { table, key, value, gone } of writes) {
        if (gone) this.#durable.remove(table, key)
        else this.#durable.put(table, key, value)
      }
    })
  }

  close(): void {}

  snapshot(): MemoryTables {
    return this.#live.snapshot()
  }

  /** All of it is durable: the process ended in order. */
  completeFlush(): void {
    this.#flushedBefore += this.#log.length
    this.#makeDurable(this.#log.length)
  }

  /** What is left after the power went: all that was flushed, and this part, 0 to 1, of the transactions since. */
  afterPowerLoss(part: number): MemoryTables {
    this.#makeDurable(Math.floor(part * this.#log.length))
    this.#flushedBefore = Number.POSITIVE_INFINITY
    return this.#durable.snapshot()
  }
}
