/** What is marked `pinned` is wholly cached: looked at when it changes, when marks do, and again when somebody who may have it comes. */
import type { EntryPath } from '../../protocol/ids.ts'
import type { ArenaContext } from './context.ts'
import { isUnshown } from './plan.ts'
import { type Reads, WHOLE_WEIGHT_MAX, weightOf } from './reads.ts'
import type { Entry } from './store.ts'

/** Paths to be looked at; with more of them everything that is pinned is looked at. */
const PATHS_MAX = 10_000
/** Entries looked at in one step. */
const PAGE = 200
/** What could not be had is tried again. */
const AGAIN_MS = 60_000
/** Paths of which it is told that they are not here. */
const TOLD_MAX = 1000

export class Pins {
  readonly #context: ArenaContext
  readonly #reads: Reads
  readonly #changed: () => void
  readonly #paths = new Set<EntryPath>()
  /** Pinned folders and files that are still to be walked (null: everything), and how far the first of them was. */
  #roots: (EntryPath | null)[] = []
  #after: EntryPath | null = null
  /** Under way, and how much that weighs. */
  readonly #open = new Set<EntryPath>()
  #weight = 0
  readonly #told = new Set<EntryPath>()

  constructor(context: ArenaContext, reads: Reads, changed: () => void) {
    this.#context = context
    this.#reads = reads
    this.#changed = changed
  }

  /** These paths have changed. */
  look(paths: Iterable<EntryPath>): void {
    const { marks } = this.#context
    if (marks.allReal) return
    for (const path of paths) if (marks.of(path) === 'pinned') this.#paths.add(path)
    if (this.#paths.size > PATHS_MAX) this.lookAtAll()
  }

  lookAtAll(): void {
    this.#paths.clear()
    this.#after = null
    this.#roots = [...this.#context.marks.withMark('pinned')]
  }

  get busy(): boolean {
    return this.#weight < WHOLE_WEIGHT_MAX && (this.#paths.size > 0 || this.#roots.length > 0)
  }

  step(): void {
    const before = this.#weight
    this.#work()
    if (this.#weight !== before) this.#reads.step()
  }

  #work(): void {
    const { store } = this.#context
    for (const path of this.#paths) {
      if (this.#weight >= WHOLE_WEIGHT_MAX) return
      this.#paths.delete(path)
      this.#keep(store.entry(path))
    }
    if (this.#weight >= WHOLE_WEIGHT_MAX || this.#paths.size > 0 || this.#roots.length === 0) return
    const root = this.#roots[0] ?? null
    if (this.#after === null && root !== null) this.#look(store.entry(root))
    const page: Entry[] = store.page(this.#after, PAGE, root)
    for (const entry of page) this.#look(entry)
    this.#after = page.at(-1)?.path ?? null
    if (page.length >= PAGE) return
    this.#roots.shift()
    this.#after = null
  }

  #look(entry: Entry | undefined): void {
    if (entry && isUnshown(entry) && this.#context.marks.of(entry.path) === 'pinned') this.#paths.add(entry.path)
  }

  #keep(entry: Entry | undefined): void {
    const { cache, marks } = this.#context
    if (!entry || !isUnshown(entry) || entry.known.content.type !== 'file') return
    const { path } = entry
    const { hash, size } = entry.known.content
    if (size === 0 || marks.of(path) !== 'pinned' || this.#open.has(path)) return
    const blob = { hash, size }
    if (cache.bytesOf(blob) === size) return this.#kept(path, () => cache.pin(blob, path))
    const weight = weightOf(blob)
    this.#open.add(path)
    this.#weight += weight
    this.#reads.whole(blob, failure => {
      this.#open.delete(path)
      this.#weight -= weight
      if (failure) this.#failed(path, failure.message)
      else this.#kept(path, () => cache.pin(blob, path))
      this.#changed()
    })
  }

  #kept(path: EntryPath, pin: () => void): void {
    pin()
    if (this.#told.delete(path)) this.#context.problems.clear(path)
  }

  #failed(path: EntryPath, reason: string): void {
    const { problems, timers, clock } = this.#context
    if (problems.get(path) === undefined && this.#told.size < TOLD_MAX) {
      this.#told.add(path)
      problems.set(path, `pinned, and not wholly cached: ${reason}`, true)
    }
    timers.soon('pins', clock.nowMs() + AGAIN_MS, () => this.lookAtAll())
  }
}
