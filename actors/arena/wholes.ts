/** `fetch`: has what is not real below a path cached wholly, a few blobs at a time, behind whatever somebody waits for. */
import { SyncError } from '../../protocol/error.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { checkPath } from '../../protocol/path.ts'
import { type FetchOutcome, type FetchProgress, PROBLEMS_MAX, type Problem } from '../../protocol/status.ts'
import type { Blob } from './cache.ts'
import type { ArenaContext } from './context.ts'
import { type Reads, WHOLE_WEIGHT_MAX, weightOf } from './reads.ts'
import type { Entry } from './store.ts'
import { living } from './version.ts'

/** Entries looked at in one step. */
const PAGE = 500

interface Job {
  readonly under: EntryPath | null
  readonly done: (outcome: FetchOutcome) => void
  /** Everything is counted first, then fetched. */
  phase: 'count' | 'fetch' | 'wait'
  after: EntryPath | null
  files: number
  bytes: number
  filesDone: number
  bytesDone: number
  readonly problems: Problem[]
  problemCount: number
  open: number
}

export class Wholes {
  readonly #context: ArenaContext
  readonly #reads: Reads
  readonly #progress: () => void
  readonly #jobs = new Set<Job>()
  /** Of what is under way, of all that is being fetched: its weight. */
  #open = 0

  constructor(context: ArenaContext, reads: Reads, progress: () => void) {
    this.#context = context
    this.#reads = reads
    this.#progress = progress
  }

  /** Entries to be looked at. */
  get busy(): boolean {
    for (const { phase } of this.#jobs)
      if (phase === 'count' || (phase === 'fetch' && this.#open < WHOLE_WEIGHT_MAX)) return true
    return false
  }

  /** Of all that is being fetched now. */
  get progress(): FetchProgress | null {
    if (this.#jobs.size === 0) return null
    const sum = { files: 0, filesDone: 0, bytes: 0, bytesDone: 0 }
    for (const job of this.#jobs) {
      sum.files += job.files
      sum.filesDone += job.filesDone
      sum.bytes += job.bytes
      sum.bytesDone += job.bytesDone
    }
    return sum
  }

  /** `text`: a file or folder; undefined: everything. Throws `not_found`. */
  fetch(text: string | undefined, done: (outcome: FetchOutcome) => void): void {
    const under = text === undefined ? null : checkPath(text)
    const entry = under && this.#context.store.entry(under)
    if (under && !(entry && living(entry.known)))
      throw new SyncError('not_found', `there is no '${under}' in this arena`)
    const job: Job = {
      under,
      done,
      phase: 'count',
      after: null,
      files: 0,
      bytes: 0,
      filesDone: 0,
      bytesDone: 0,
      problems: [],
      problemCount: 0,
      open: 0,
    }
    this.#jobs.add(job)
  }

  step(): void {
    const before = this.#open
    for (const job of [...this.#jobs]) {
      if (job.phase === 'count') this.#count(job)
      else if (job.phase === 'fetch') this.#begin(job)
      this.#endIfDone(job)
    }
    if (this.#open !== before) this.#reads.step()
  }

  #count(job: Job): void {
    for (const { content } of this.#next(job)) {
      job.files++
      job.bytes += content.size
    }
    if (job.after !== null) return
    job.phase = 'fetch'
    this.#progress()
  }

  #begin(job: Job): void {
    if (this.#open >= WHOLE_WEIGHT_MAX) return
    for (const { path, content } of this.#next(job)) {
      this.#whole(job, path, content)
      if (this.#open < WHOLE_WEIGHT_MAX) continue
      job.after = path
      return
    }
    if (job.after === null) job.phase = 'wait'
  }

  /** What is not real in the next page; `after` is null when that was the last. */
  *#next(job: Job): Iterable<{ path: EntryPath; content: Blob }> {
    const { store } = this.#context
    const limit = job.phase === 'count' ? PAGE : Math.max(1, Math.min(PAGE, WHOLE_WEIGHT_MAX - this.#open))
    const page = store.page(job.after, limit, job.under)
    const self = job.after === null && job.under ? store.entry(job.under) : undefined
    job.after = page.length < limit ? null : (page.at(-1) as Entry).path
    for (const { path, known, have } of self ? [self, ...page] : page)
      if (known.content.type === 'file' && have?.content.type !== 'file') yield { path, content: known.content }
  }

  #whole(job: Job, path: EntryPath, { hash, size }: Blob): void {
    const blob = { hash, size }
    const weight = weightOf(blob)
    job.open++
    this.#open += weight
    this.#reads.whole(blob, failure => {
      job.open--
      this.#open -= weight
      job.filesDone++
      job.bytesDone += size
      if (failure) {
        job.problemCount++
        if (job.problems.length < PROBLEMS_MAX) job.problems.push({ path, reason: failure.message })
      }
      this.#progress()
      this.#endIfDone(job)
    })
  }

  #endIfDone(job: Job): void {
    if (job.phase !== 'wait' || job.open > 0 || !this.#jobs.delete(job)) return
    const { files, bytes, problems, problemCount } = job
    this.#progress()
    job.done({ files, bytes, problems, problemCount })
  }
}
