/** `verify`: reads and hashes again what is real here. What does not fit its hash is reported, not changed. */
import type { EntryPath } from '../../protocol/ids.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import type { HashResult, HashTask } from '../../protocol/ports.ts'
import type { Problem } from '../../protocol/status.ts'
import { rootOf } from '../hasher/merkle.ts'
import type { ArenaContext } from './context.ts'
import { DiskError } from './disk.ts'
import type { Entry } from './store.ts'

const REQUESTS_MAX = 4
const PAGE = 128
/** Bytes of one request; a greater file goes alone, in one piece. */
const REQUEST_BYTES = 16 * 1024 * 1024

export interface VerifyOutcome {
  files: number
  bytes: number
  bad: Problem[]
}

/** One run over an arena. Its requests have negative numbers, so that they are told from those of local changes. */
export class Verify {
  readonly #context: ArenaContext
  readonly #done: (outcome: VerifyOutcome) => void
  readonly #requests = new Map<number, Entry[]>()
  readonly #outcome: VerifyOutcome = { files: 0, bytes: 0, bad: [] }
  #after: EntryPath | null = null
  #ended = false
  static #id = 0

  constructor(context: ArenaContext, done: (outcome: VerifyOutcome) => void) {
    this.#context = context
    this.#done = done
    this.#more()
  }

  hashed(id: number, results: readonly HashResult[]): boolean {
    const entries = this.#requests.get(id)
    if (!entries) return false
    this.#requests.delete(id)
    for (const [index, entry] of entries.entries()) this.#check(entry, results[index])
    this.#more()
    return true
  }

  #check({ path, have }: Entry, result: HashResult | undefined): void {
    if (have?.content.type !== 'file' || !result) return
    // Changed while it was read: a user's edit, which the watcher sees to.
    if ('changed' in result) return
    this.#outcome.files++
    this.#outcome.bytes += have.content.size
    if ('failure' in result) this.#outcome.bad.push({ path, reason: `it cannot be read: ${result.failure.message}` })
    else if (rootOf(have.content.size, result.leaves) !== have.content.hash) {
      this.#outcome.bad.push({
        path,
        reason: 'its content is not what its hash says, though size and times are: the disk may be failing',
      })
    }
  }

  #more(): void {
    while (!this.#ended && this.#requests.size < REQUESTS_MAX) {
      const page = this.#context.store.page(this.#after, PAGE, null)
      let batch: Entry[] = []
      let bytes = 0
      for (const entry of page) {
        this.#after = entry.path
        if (entry.have?.content.type !== 'file' || entry.stamp === null) continue
        batch.push(entry)
        bytes += entry.have.content.size
        if (bytes < REQUEST_BYTES) continue
        this.#request(batch)
        batch = []
        bytes = 0
      }
      if (batch.length > 0) this.#request(batch)
      if (page.length < PAGE) this.#ended = true
    }
    if (this.#ended && this.#requests.size === 0) this.#done(this.#outcome)
  }

  #request(entries: Entry[]): void {
    const { disk } = this.#context
    const tasks: HashTask[] = []
    const asked: Entry[] = []
    for (const entry of entries) {
      const { stamp } = entry
      if (!stamp) continue
      try {
        tasks.push({
          path: disk.outsidePath(entry.path),
          from: 0,
          count: Math.ceil(stamp.size / LEAF_BYTES),
          size: stamp.size,
          mtimeNs: stamp.mtimeNs,
          ino: stamp.ino,
        })
        asked.push(entry)
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
      }
    }
    if (asked.length === 0) return
    const id = --Verify.#id
    this.#requests.set(id, asked)
    this.#context.deliver({ to: 'supervisor', report: { type: 'hash', id, tasks } })
  }
}
