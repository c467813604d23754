/** The version store: what was replaced or deleted here, for as long and as much as the settings say. */
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { type ArenaContext, count } from './context.ts'
import { DiskError } from './disk.ts'
import type { Kept, Writer } from './store.ts'
import type { Version } from './version.ts'

const PRUNE_MS = 60 * 60 * 1000
/** Pending entries looked at for what content they await, and for how long the answer is believed. */
const AWAITED_MAX = 10_000
const AWAITED_MS = 100
/** Above the limit by this part, old versions go at once and not with the next hour. */
const SLACK = 1.1

export class VersionStore {
  readonly #context: ArenaContext
  /** Content that a peer relies on for a while: it is not dropped. */
  promised: () => ReadonlySet<BlobHash> = () => new Set()
  #bytes = 0
  #number = 0

  constructor(context: ArenaContext) {
    this.#context = context
    for (const kept of context.store.kept(null, Number.MAX_SAFE_INTEGER)) this.#bytes += kept.size
    this.#soon(PRUNE_MS)
  }

  /** A row for what is about to be replaced or removed; its name sorts by time. */
  row(path: EntryPath, version: Version): Kept {
    const { content } = version
    const keptMs = this.#context.clock.wallMs()
    const file = content.type === 'file' ? content : null
    return {
      id: `${keptMs.toString(36).padStart(9, '0')}-${(this.#number++).toString(36)}-${this.#context.random().slice(0, 6)}`,
      path,
      hash: file?.hash ?? null,
      size: file?.size ?? 0,
      mtimeNs: file?.mtimeNs ?? 0n,
      exec: file?.exec ?? false,
      keptMs,
    }
  }

  add(writer: Writer, kept: Kept): void {
    writer.putKept(kept)
    this.#bytes += kept.size
    if (this.#bytes > this.#context.settings.versions.bytesMax * SLACK) this.#soon(0)
  }

  /** The version was moved out of the store. */
  taken(writer: Writer, kept: Kept): void {
    writer.removeKept(kept.id)
    this.#bytes -= kept.size
  }

  /**
   * The version with a content that a living file is to have and no path shows: it has left one name before it came to the other, and this
   * may be the last of it. null: there is none, or nothing awaits it.
   */
  awaited(hash: BlobHash): Kept | null {
    const { store } = this.#context
    const kept = store.keptWithHash(hash)
    return kept && store.withHash(hash, 1).length === 0 && this.#isAwaited(hash) ? kept : null
  }

  #isAwaited(hash: BlobHash): boolean {
    return this.#context.store.unrealWithHash(hash, 1).length > 0 || this.#pendingHashes().has(hash)
  }

  #pendingHashes(): ReadonlySet<BlobHash> {
    const { store, clock } = this.#context
    const { seq, totals } = store.state()
    const known = this.#pending
    if (known.seq === seq && known.count === totals.pending && clock.nowMs() < known.untilMs) return known.hashes
    const hashes = new Set<BlobHash>()
    for (const path of store.pendingPage(null, AWAITED_MAX)) {
      const content = store.entry(path)?.known.content
      if (content?.type === 'file') hashes.add(content.hash)
    }
    this.#pending = { seq, count: totals.pending, untilMs: clock.nowMs() + AWAITED_MS, hashes }
    return hashes
  }
  #pending = { seq: -1, count: 0, untilMs: 0, hashes: new Set<BlobHash>() as ReadonlySet<BlobHash> }

  #soon(waitMs: number): void {
    const { timers, clock } = this.#context
    timers.soon('prune', clock.nowMs() + waitMs, () => this.prune())
  }

  /** Drops what is too old, then the oldest until the rest fits; rows whose file is gone; and old files that no row speaks of. */
  prune(): void {
    this.#soon(PRUNE_MS)
    const { store, disk, settings, clock } = this.#context
    const rows = store.kept(null, Number.MAX_SAFE_INTEGER).reverse()
    const oldestMs = clock.wallMs() - settings.versions.keepMs
    try {
      // Another disk in this one's place says nothing of what we keep.
      if (disk.identity().marker !== store.state().disk) return
      const files = new Set(disk.keptList())
      const dropped: Kept[] = []
      const promised = this.promised()
      for (const kept of rows) {
        if (files.has(kept.id) && kept.hash !== null && promised.has(kept.hash)) continue
        if (files.has(kept.id) && kept.keptMs >= oldestMs && this.#bytes <= settings.versions.bytesMax) continue
        if (files.has(kept.id) && kept.hash !== null && this.awaited(kept.hash)?.id === kept.id) continue
        this.#bytes -= kept.size
        dropped.push(kept)
      }
      if (dropped.length > 0) {
        store.transact(writer => {
          for (const kept of dropped) writer.removeKept(kept.id)
        })
        count(this.#context, { versions_dropped: dropped.length })
      }
      const known = new Set(rows.map(row => row.id))
      // A store that was rolled back has forgotten some. What was just moved in gets its row in a moment.
      for (const id of files) if (!known.has(id) && Number.parseInt(id, 36) < oldestMs) disk.keptRemove(id)
      for (const { id } of dropped) if (files.has(id)) disk.keptRemove(id)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
    }
  }
}
