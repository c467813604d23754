/**
 * What this peer wants of each path: `real` (an ordinary file, kept current), `pinned` (only known, but wholly cached) or `unreal`
 * (only known; cached on demand). A path without a mark of its own has that of the nearest folder above it that has one, else the
 * arena's. Marks are this peer's own affair: never told, no part of what peers compare. Pure: the store keeps them, others follow them.
 */
import type { Mark } from '../../protocol/control.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { isIgnoreFile } from './ignore-rules.ts'
import { isBelow } from './order.ts'

/** Marks of one arena: all of them are in memory. */
export const MARKS_MAX = 10_000

export class Marks {
  readonly #marks = new Map<EntryPath, Mark>()
  /** How many of them are not `real`. */
  #notReal = 0
  /** Files that somebody needs now. */
  readonly #wanted = new Set<EntryPath>()
  /** The arena's own mark. */
  fallback: Mark

  /** @param fallback the arena's own mark */
  constructor(fallback: Mark, marks: Iterable<readonly [EntryPath, Mark]> = []) {
    this.fallback = fallback
    for (const [path, mark] of marks) this.set(path, mark)
  }

  /** How many paths have a mark of their own. */
  get size(): number {
    return this.#marks.size
  }

  /** Whether everything is wanted real: then nobody need ask for a path. */
  get allReal(): boolean {
    return this.fallback === 'real' && this.#notReal === 0
  }

  /** The mark that a path itself has. */
  own(path: EntryPath): Mark | undefined {
    return this.#marks.get(path)
  }

  /** Gives a path a mark of its own, or takes it away (null). */
  set(path: EntryPath, mark: Mark | null): void {
    const before = this.#marks.get(path)
    if (before !== undefined && before !== 'real') this.#notReal--
    if (mark !== null && mark !== 'real') this.#notReal++
    if (mark === null) this.#marks.delete(path)
    else this.#marks.set(path, mark)
  }

  /** The mark that holds for a path. */
  of(path: EntryPath): Mark {
    if (this.#marks.size > 0) {
      for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1)) {
        const mark = this.#marks.get(path.slice(0, end) as EntryPath)
        if (mark !== undefined) return mark
      }
    }
    return this.fallback
  }

  /** Whether a file at this path is to be an ordinary one. Rule files always are: what they say holds for the disk. */
  wantsReal(path: EntryPath): boolean {
    return this.of(path) === 'real' || isIgnoreFile(path) || this.#wanted.has(path)
  }

  /** A file is to be an ordinary one for now, whatever its mark says; not remembered. */
  want(path: EntryPath, wanted: boolean): void {
    if (wanted) this.#wanted.add(path)
    else this.#wanted.delete(path)
  }

  /** Paths that have this mark of their own; null: all that have none. */
  *withMark(mark: Mark): Iterable<EntryPath | null> {
    if (this.fallback === mark) yield null
    for (const [path, own] of this.#marks) if (own === mark) yield path
  }

  /** Whether what is at this path, or anything below it, may be wanted other than real. */
  mayBeUnreal(folder: EntryPath): boolean {
    if (this.of(folder) !== 'real') return true
    for (const [path, mark] of this.#marks) if (mark !== 'real' && isBelow(path, folder)) return true
    return false
  }
}
