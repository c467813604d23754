/**
 * Lets requests that take their time keep their paths: a rename waits for others above and below it, and for what is under way at its
 * paths. The kernel sees to that only in the folder itself. Pure.
 */
import type { Answer } from './view-source.ts'

/** How long a rename waits for what is under way; then that finds its path gone, and looks for the new one. */
export const PENDING_MS = 500

export interface PathOrderOutlet {
  /** Runs something after so long; returns how to leave it. */
  later(waitMs: number, action: () => void): () => void
}

export class PathOrder {
  readonly #outlet: PathOrderOutlet
  readonly #pending = new Set<{ readonly path: string; readonly end: Promise<void> }>()
  readonly #renames = new Set<{ readonly paths: readonly string[]; readonly end: Promise<void> }>()

  constructor(outlet: PathOrderOutlet) {
    this.#outlet = outlet
  }

  /** Something is done at a path; given back as it is. */
  at<Result>(path: string, answer: Answer<Result>): Answer<Result> {
    if (!(answer instanceof Promise)) return answer
    const one = { path, end: answer.then(nothing, nothing) }
    this.#pending.add(one)
    return answer.finally(() => this.#pending.delete(one))
  }

  /**
   * Renames something once that may begin.
   *
   * @param paths what it concerns, by the names of that moment: they may change while it waits
   * @param action does it, by the same names
   */
  async rename(paths: () => readonly string[], action: () => Answer<void>): Promise<void> {
    let isLate = false
    let leave = nothing
    let late: Promise<void> | null = null
    // Between the last look and the action nothing else gets its turn.
    for (;;) {
      const hindrance = this.#hindrance(paths())
      if (hindrance === undefined || (hindrance.mayBeLeft && isLate)) break
      late ??= new Promise<void>(resolve => {
        leave = this.#outlet.later(PENDING_MS, () => {
          isLate = true
          resolve()
        })
      })
      await (hindrance.mayBeLeft ? Promise.race([hindrance.end, late]) : hindrance.end)
    }
    leave()
    const concerned = paths()
    const answer = action()
    if (!(answer instanceof Promise)) return
    const one = { paths: concerned, end: answer.then(nothing, nothing) }
    this.#renames.add(one)
    try {
      await answer
    } finally {
      this.#renames.delete(one)
    }
  }

  #hindrance(paths: readonly string[]): { end: Promise<void>; mayBeLeft: boolean } | undefined {
    const concerns = (path: string) => paths.some(one => areRelated(one, path))
    for (const rename of this.#renames) if (rename.paths.some(concerns)) return { end: rename.end, mayBeLeft: false }
    for (const { path, end } of this.#pending) if (concerns(path)) return { end, mayBeLeft: true }
    return undefined
  }
}

/** Whether one path is the other, or above it. */
function areRelated(one: string, other: string): boolean {
  return one === other || one.startsWith(`${other}/`) || other.startsWith(`${one}/`)
}

function nothing(): void {}
