/**
 * A view's end of the port to one arena: questions with their answers, and what the arena tells by itself. When the arena's
 * thread has gone, what was asked fails with EIO.
 */
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import type { FromView, ToView, ViewAnswers, ViewChange, ViewQuestion } from '../../protocol/ports.ts'
import { ViewError } from './view-source.ts'

export interface ArenaWords {
  root(root: string | null, reason: string | null): void
  changed(changes: readonly ViewChange[] | null): void
  gone(): void
}

type Answered<Question extends ViewQuestion> = ViewAnswers[Question['type']]

interface Asked {
  take(result: unknown): void
  reject(error: Error): void
}

export class ArenaLink {
  readonly #port: MessagePort
  readonly #words: ArenaWords
  readonly #asked = new Map<number, Asked>()
  #id = 0
  #closed = false

  constructor(port: MessagePort, words: ArenaWords) {
    this.#port = port
    this.#words = words
    port.on('message', (message: ToView) => this.#receive(message))
    port.on('close', () => {
      this.close()
      words.gone()
    })
  }

  /**
   * @param take called with the answer before anything else that the arena has said after it
   * @param signal nobody waits any more: rejects with EINTR
   */
  ask<Question extends ViewQuestion>(
    question: Question,
    signal?: AbortSignal,
    take?: (answer: Answered<Question>) => void,
  ): Promise<Answered<Question>> {
    if (this.#closed) return Promise.reject(new ViewError('EIO', 'the arena does not run'))
    if (signal?.aborted) return Promise.reject(new ViewError('EINTR', 'interrupted'))
    const id = ++this.#id
    return new Promise((resolve, reject) => {
      const abandon = () => {
        this.#asked.delete(id)
        this.tell({ type: 'abandon', id })
        reject(new ViewError('EINTR', 'interrupted'))
      }
      const over = () => signal?.removeEventListener('abort', abandon)
      this.#asked.set(id, {
        take: result => {
          over()
          take?.(result as Answered<Question>)
          resolve(result as Answered<Question>)
        },
        reject: error => {
          over()
          reject(error)
        },
      })
      signal?.addEventListener('abort', abandon, { once: true })
      this.tell({ ...question, id })
    })
  }

  tell(message: FromView): void {
    if (!this.#closed) this.#port.postMessage(message)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#port.close()
    for (const { reject } of this.#asked.values()) reject(new ViewError('EIO', 'the arena has stopped'))
    this.#asked.clear()
  }

  /**
   * Takes what the arena has said by now. It speaks before it acts: who sees on the disk what it has done, and calls this, has heard of
   * it, too.
   */
  drain(): void {
    if (this.#closed) return
    for (let next = receiveMessageOnPort(this.#port); next; next = receiveMessageOnPort(this.#port))
      this.#receive(next.message)
  }

  #receive(message: ToView): void {
    switch (message.type) {
      case 'root':
        return this.#words.root(message.root, message.reason)
      case 'changed':
        return this.#words.changed(message.changes)
      case 'answer':
        return this.#taken(message.id)?.take(message.result)
      case 'failed':
        return this.#taken(message.id)?.reject(new ViewError(message.code, message.message))
      default:
        message satisfies never
    }
  }

  #taken(id: number): Asked | undefined {
    const asked = this.#asked.get(id)
    this.#asked.delete(id)
    return asked
  }
}
