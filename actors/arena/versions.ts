/** The version store: what was replaced or deleted here, for as long and as much as the settings say. */
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { type ArenaContext, count } from './context.ts'
import { DiskError } from './disk.ts'
import { markerId } from './marker.ts'
import type { Kept, Writer } from './store.ts'
import type { Version } from './version.ts'

const PRUNE_MS = 60 * 60 * 1000
/** Who reads a file elsewhere when it is deleted or replaced gets the rest of it for so long. */
const GIVEN_ON_MS = 10 * 60_000
/** For a peer that asks: pending entries looked at for what content they await, and for how long the answer is believed. */
const AWAITED_MAX = 10_000
const AWAITED_MS = 100
const PENDING_PAGE = 1000
/** Above the limit by this part, old versions go at once and not with the next hour. */
const SLACK = 1.1

export class VersionStore {
  readonly #context: ArenaContext
  /** Content that a peer relies on for a while: it is not dropped. */
  promised: () => ReadonlySet<BlobHash> = () => new Set()
  #bytes = 0
  /** What of it had to stay when it was last looked through. */
  #spared = 0
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
    if (this.#bytes - this.#spared > this.#context.settings.versions.bytesMax * SLACK) this.#soon(0)
  }

  /** The version was moved out of the store. */
  taken(writer: Writer, kept: Kept): void {
    writer.removeKept(kept.id)
    this.#bytes -= kept.size
  }

  /**
   * The version with a content that a file which is on its way here is to have, and no path shows: it has left one name before it came to the
   * other, and this may be the last of it. null: there is none, or nothing awaits it.
   */
  awaited(hash: BlobHash): Kept | null {
    const { store } = this.#context
    const kept = store.keptWithHash(hash)
    return kept && store.withHash(hash, 1).length === 0 && this.isAwaited(hash) ? kept : null
  }

  /** Whether a file that is on its way here is to have this content. */
  isAwaited(hash: BlobHash): boolean {
    return this.#awaited().has(hash)
  }

  /** What peers may have of a content that no path shows: what awaits a place, and what was given up here a little while ago. */
  givable(hash: BlobHash): Kept | null {
    const kept = this.#context.store.keptWithHash(hash)
    if (kept && this.#context.clock.wallMs() - kept.keptMs < GIVEN_ON_MS) return kept
    return this.awaited(hash)
  }

  #awaited(): ReadonlySet<BlobHash> {
    const nowMs = this.#context.clock.nowMs()
    if (nowMs >= this.#asked.untilMs)
      this.#asked = { hashes: this.#pendingHashes(AWAITED_MAX), untilMs: nowMs + AWAITED_MS }
    return this.#asked.hashes
  }
  #asked: { hashes: ReadonlySet<BlobHash>; untilMs: number } = { hashes: new Set(), untilMs: Number.NEGATIVE_INFINITY }

  /** Contents of files that are to come here, of as many pending entries. */
  #pendingHashes(entriesMax: number): Set<BlobHash> {
    const { store } = this.#context
    const hashes = new Set<BlobHash>()
    for (let after: EntryPath | null = null, looked = 0; looked < entriesMax; ) {
      const page: EntryPath[] = store.pendingPage(after, PENDING_PAGE)
      for (const path of page) {
        const content = store.entry(path)?.known.content
        if (content?.type === 'file') hashes.add(content.hash)
      }
      if (page.length < PENDING_PAGE) break
      looked += page.length
      after = page.at(-1) as EntryPath
    }
    return hashes
  }

  #isSpared({ id, hash }: Kept, promised: ReadonlySet<BlobHash>, awaited: ReadonlySet<BlobHash>): boolean {
    const { store } = this.#context
    if (hash === null) return false
    if (promised.has(hash)) return true
    return awaited.has(hash) && store.withHash(hash, 1).length === 0 && store.keptWithHash(hash)?.id === id
  }

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
      const { marker } = disk.identity()
      if (marker === null || markerId(marker) !== store.state().disk) return
      const files = new Set(disk.keptList())
      const dropped: Kept[] = []
      const promised = this.promised()
      // What may be the last of a file that is on its way from one name to another stays until it is there.
      const awaited = this.#pendingHashes(Number.POSITIVE_INFINITY)
      const spared = new Set(rows.filter(kept => files.has(kept.id) && this.#isSpared(kept, promised, awaited)))
      this.#spared = 0
      for (const { size } of spared) this.#spared += size
      for (const kept of rows) {
        if (spared.has(kept)) continue
        const fits = this.#bytes - this.#spared <= settings.versions.bytesMax
        if (files.has(kept.id) && kept.keptMs >= oldestMs && fits) continue
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
