/** Who wants to hear of changes, and what changed: the service's bell for subscriptions and waits. */
import type { HistoryEvent } from '../protocol/status.ts'

export class Bell {
  readonly #changed = new Set<() => void>()
  readonly #history = new Set<(event: HistoryEvent) => void>()

  /** Something that `status` shows is different. Returns what ends the listening. */
  onChanged(listener: () => void): () => void {
    this.#changed.add(listener)
    return () => this.#changed.delete(listener)
  }

  onHistory(listener: (event: HistoryEvent) => void): () => void {
    this.#history.add(listener)
    return () => this.#history.delete(listener)
  }

  changed(): void {
    for (const listener of [...this.#changed]) listener()
  }

  history(event: HistoryEvent): void {
    for (const listener of [...this.#history]) listener(event)
  }

  /** Resolves at the next change, when time is up, or when aborted. Never rejects. */
  nextChange(limitMs: number, abort: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      if (abort.aborted) return resolve()
      const done = () => {
        clearTimeout(timer)
        end()
        abort.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, limitMs)
      const end = this.onChanged(done)
      abort.addEventListener('abort', done)
    })
  }
}
