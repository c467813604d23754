/**
 * Files that were found and whose content is to become known: waits until nobody writes them any more, hashes small ones here and has
 * others hashed by the pool, big ones in parts.
 */
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { LEAF_BYTES, PACKED_BLOB_BYTES_MAX } from '../../protocol/limits.ts'
import type { HashResult, HashTask } from '../../protocol/ports.ts'
import { hashLeaves } from '../hasher/merkle.ts'
import type { ArenaContext } from './context.ts'
import { DiskError, type DiskStat, isAbsence } from './disk.ts'
import { sameStamp, stampOf } from './walk.ts'

/** A file whose mtime is older than this is not asked whether somebody is writing it. */
const FRESH_MS = 2_000
/** A file system's clock goes on at least this often: 10 ms at 100 Hz, the slowest kernels. */
const TICK_MS = 12
/** Between two looks at a file that is being written, and how long that may put it off. */
const SETTLE_MS = 200
const SETTLE_MAX_MS = 10_000
/** Bytes of one request to the pool, files in it, and requests at once. */
const REQUEST_BYTES = 64 * 1024 * 1024
const BATCH_BYTES = 8 * 1024 * 1024
const BATCH_FILES = 1000
const REQUESTS_MAX = 6
/**
 * Small files are hashed here, where they are read once, hashed and kept for the peers that will ask for them: the way to
 * the pool costs more. So much in one step, and each file counts as so much besides its size.
 */
const STEP_BYTES = 4 * 1024 * 1024
const STEP_FILE_BYTES = 8 * 1024
/** Files that wait, above which no more shall be looked for. */
const FILES_MAX = 20_000

interface Look {
  readonly path: EntryPath
  readonly stat: DiskStat
  readonly sinceMs: number
  readonly tries: number
}

interface Hashing {
  readonly look: Look
  readonly parts: (Uint8Array | null)[]
  left: number
}

interface Request {
  readonly files: readonly Hashing[]
  /** Which part of its one file, if that is hashed in parts. */
  readonly part: number
}

export interface HashQueueEvents {
  /** What a file holds, as it was at `stat`; `leaves`: the hashes of its leaves, 32 bytes each. Returns its own hash. */
  hashed(path: EntryPath, stat: DiskStat, leaves: Uint8Array): BlobHash
  /** It is to be looked at anew: it has gone, or is no file any more. */
  movedOn(path: EntryPath): void
  unreadable(path: EntryPath, reason: string): void
  /** Of what is there now; null: nothing; undefined: it cannot be looked at. */
  stat(path: EntryPath): DiskStat | null | undefined
}

/** What it needs of an arena. */
export type HashQueueContext = Pick<ArenaContext, 'disk' | 'clock' | 'timers' | 'recent' | 'deliver'>

export class HashQueue {
  readonly #context: HashQueueContext
  readonly #events: HashQueueEvents
  readonly #looks = new Map<EntryPath, Look>()
  /** Looks that wait until their file has settled. */
  readonly #settling = new Map<EntryPath, Look>()
  readonly #requests = new Map<number, Request>()
  /** Files that the pool works on, as they were found first, and whether one was found changed meanwhile: the pool may have seen either. */
  readonly #atPool = new Map<EntryPath, { readonly stat: DiskStat; changed: boolean }>()
  #id = 0
  /** The last step left small files for the next one. */
  #stepping = false
  /** Where small files are read to, one after the other. */
  readonly #scratch = Buffer.allocUnsafeSlow(PACKED_BLOB_BYTES_MAX)

  constructor(context: HashQueueContext, events: HashQueueEvents) {
    this.#context = context
    this.#events = events
  }

  /** A file was found. One that waits already keeps its place; news of one that was being written: perhaps its writer has closed it. */
  add(path: EntryPath, stat: DiskStat): void {
    if (this.#looks.has(path)) return
    const sinceMs = this.#settling.get(path)?.sinceMs ?? this.#context.clock.nowMs()
    this.#settling.delete(path)
    this.#looks.set(path, { path, stat, sinceMs, tries: 0 })
  }

  /** A file was found that is not what waits under its name. */
  addAnew(path: EntryPath, stat: DiskStat): void {
    this.#looks.set(path, { path, stat, sinceMs: this.#context.clock.nowMs(), tries: 0 })
  }

  has(path: EntryPath): boolean {
    return this.#looks.has(path) || this.#settling.has(path) || this.#atPool.has(path)
  }

  /** Nothing waits, nothing is being written or hashed. */
  get quiet(): boolean {
    return this.idle && this.#settling.size === 0
  }

  /** Nothing waits or is being hashed; files may be being written. */
  get idle(): boolean {
    return this.#looks.size === 0 && this.#requests.size === 0
  }

  /** No more files shall be looked for now. */
  get full(): boolean {
    return this.#looks.size >= FILES_MAX
  }

  /** Small files are left that can be hashed at once. */
  get stepping(): boolean {
    return this.#stepping
  }

  /** There is work that can be begun now. */
  get ready(): boolean {
    return this.#stepping || (this.#looks.size > 0 && this.#requests.size < REQUESTS_MAX)
  }

  /** Forgets all. Answers to what was asked are of no interest any more. */
  clear(): void {
    this.#looks.clear()
    this.#settling.clear()
    this.#requests.clear()
    this.#atPool.clear()
    this.#stepping = false
  }

  /** One slice of work. `finding`: more files may come at once. */
  step(finding: boolean): void {
    const { disk } = this.#context
    // A fuller batch costs less than several small ones.
    if (finding && this.#looks.size < BATCH_FILES && this.#bytes() < BATCH_BYTES) return
    let here = STEP_BYTES
    let batch: Hashing[] = []
    let tasks: HashTask[] = []
    let batchBytes = 0
    const send = () => {
      if (tasks.length > 0) this.#request(batch, tasks, 0)
      batch = []
      tasks = []
      batchBytes = 0
    }
    this.#stepping = false
    for (const [path, look] of this.#looks) {
      const small = look.stat.size <= PACKED_BLOB_BYTES_MAX
      if (small && here <= 0) {
        this.#stepping = true
        break
      }
      if (!small && this.#requests.size >= REQUESTS_MAX) continue
      this.#looks.delete(path)
      const atPool = this.#atPool.get(path)
      if (atPool) {
        atPool.changed ||= !sameStamp(stampOf(atPool.stat), look.stat)
        continue
      }
      if (this.#tooFresh(look) || this.#stillWritten(look)) continue
      if (small) {
        here -= look.stat.size + STEP_FILE_BYTES
        this.#hashHere(look)
        continue
      }
      const { stat } = look
      const task = { path: disk.outsidePath(path), size: stat.size, mtimeNs: stat.mtimeNs, ino: stat.ino }
      this.#atPool.set(path, { stat, changed: false })
      if (stat.size > REQUEST_BYTES) {
        this.#hashInParts(look, task)
        continue
      }
      batch.push({ look, parts: [null], left: 1 })
      tasks.push({ ...task, from: 0, count: Math.ceil(stat.size / LEAF_BYTES) })
      batchBytes += stat.size
      if (batchBytes >= BATCH_BYTES || batch.length >= BATCH_FILES) send()
    }
    send()
  }

  /** The pool's answer. */
  hashed(id: number, results: readonly HashResult[]): void {
    const request = this.#requests.get(id)
    if (!request) return
    this.#requests.delete(id)
    const { files, part } = request
    for (const [index, hashing] of files.entries()) this.#partDone(hashing, part, results[index] as HashResult)
  }

  #partDone(hashing: Hashing, part: number, result: HashResult): void {
    const { path, stat } = hashing.look
    const atPool = this.#atPool.get(path)
    if (atPool === undefined) return
    if (!('leaves' in result)) {
      this.#atPool.delete(path)
      if ('changed' in result) this.#retry(hashing.look)
      else this.#events.unreadable(path, result.failure.message)
      return
    }
    hashing.parts[part] = result.leaves
    if (--hashing.left > 0) return
    this.#atPool.delete(path)
    this.#events.hashed(path, stat, Buffer.concat(hashing.parts as Uint8Array[]))
    if (atPool.changed) this.#events.movedOn(path)
  }

  #bytes(): number {
    let bytes = 0
    for (const { stat } of this.#looks.values()) bytes += stat.size
    return bytes
  }

  #request(files: readonly Hashing[], tasks: HashTask[], part: number): void {
    const id = ++this.#id
    this.#requests.set(id, { files, part })
    this.#context.deliver({ to: 'supervisor', report: { type: 'hash', id, tasks } })
  }

  #hashInParts(look: Look, task: Omit<HashTask, 'from' | 'count'>): void {
    const leaves = Math.ceil(look.stat.size / LEAF_BYTES)
    const step = REQUEST_BYTES / LEAF_BYTES
    const parts = Math.ceil(leaves / step)
    const hashing: Hashing = { look, parts: new Array<Uint8Array | null>(parts).fill(null), left: parts }
    for (let part = 0; part < parts; part++) {
      const from = part * step
      this.#request([hashing], [{ ...task, from, count: Math.min(step, leaves - from) }], part)
    }
  }

  #hashHere(look: Look): void {
    const { disk, recent } = this.#context
    try {
      const { before, bytes, after } = disk.read(look.path, this.#scratch)
      if (!sameStamp(stampOf(before), after) || bytes.length !== after.size)
        return this.#retry({ ...look, stat: after })
      const hash = this.#events.hashed(look.path, after, hashLeaves(bytes))
      if (after.size <= PACKED_BLOB_BYTES_MAX) recent.put(hash, bytes)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      if (isAbsence(error)) this.#events.movedOn(look.path)
      else this.#events.unreadable(look.path, error.code)
    }
  }

  // Files that are being written

  /** Puts a file off that may be written again without its times showing it: until its file system's clock has gone on. */
  #tooFresh(look: Look): boolean {
    const { clock } = this.#context
    const ageMs = clock.wallMs() - Number(look.stat.ctimeNs / 1_000_000n)
    if (ageMs < 0 || ageMs >= TICK_MS || clock.nowMs() - look.sinceMs > SETTLE_MAX_MS) return false
    this.#putOff(look, TICK_MS - ageMs)
    return true
  }

  /** Puts a fresh file off while some process has it open for writing; a file that is open for ever gets its turn. */
  #stillWritten(look: Look): boolean {
    const { clock, disk } = this.#context
    const ageMs = clock.wallMs() - Number(look.stat.mtimeNs / 1_000_000n)
    if (ageMs < -FRESH_MS || ageMs > FRESH_MS || clock.nowMs() - look.sinceMs > SETTLE_MAX_MS) return false
    try {
      if (!disk.beingWritten(look.path)) return false
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      return false
    }
    this.#retry({ ...look, tries: 0 })
    return true
  }

  #retry(look: Look): void {
    const tries = look.tries + 1
    this.#putOff({ ...look, tries }, Math.min(SETTLE_MS * 2 ** Math.min(tries - 1, 4), FRESH_MS))
  }

  #putOff(look: Look, waitMs: number): void {
    const { clock, timers } = this.#context
    const { path } = look
    this.#settling.set(path, look)
    timers.set(`settling:${path}`, clock.nowMs() + waitMs, () => {
      if (!this.#settling.delete(path)) return
      const stat = this.#events.stat(path)
      if (stat?.type !== 'file') this.#events.movedOn(path)
      else this.#looks.set(path, { ...look, stat })
    })
  }
}
