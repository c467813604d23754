/** Questions to the hasher pool about deltas, and who waits for each answer. */
import type { PatchResult, PatchTask } from '../../protocol/ports.ts'
import type { ArenaContext } from './context.ts'

export class PatchOrders {
  readonly #context: ArenaContext
  readonly #waiting = new Map<number, (result: PatchResult) => void>()
  #id = 0

  constructor(context: ArenaContext) {
    this.#context = context
  }

  order(task: PatchTask, done: (result: PatchResult) => void): void {
    const id = ++this.#id
    this.#waiting.set(id, done)
    this.#context.deliver({ to: 'supervisor', report: { type: 'patch', id, task } })
  }

  patched(id: number, result: PatchResult): void {
    const done = this.#waiting.get(id)
    this.#waiting.delete(id)
    done?.(result)
  }
}
