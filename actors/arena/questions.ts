/** Questions to peers that bring no content: each is answered once, or ends without an answer when its time is over or its peer has gone. */
import type { PeerId } from '../../protocol/ids.ts'
import type { ArenaWireMessage } from '../../protocol/wire.ts'
import type { ArenaContext } from './context.ts'

type Question = Extract<ArenaWireMessage, { type: 'holds' | 'lease' }>
type AnswerOf<Asked extends Question> = Extract<
  ArenaWireMessage,
  { type: Asked['type'] extends 'holds' ? 'held' : 'leased' }
>
type Unnumbered<Asked> = Asked extends Question ? Omit<Asked, 'id' | 'arena'> : never

/** Numbers of these requests: none that transfers have. */
const FIRST_ID = 2 ** 48

export class Questions {
  readonly #context: ArenaContext
  readonly #open = new Map<
    number,
    { readonly peer: PeerId; readonly done: (answer: ArenaWireMessage | null) => void }
  >()
  #id = FIRST_ID

  constructor(context: ArenaContext) {
    this.#context = context
  }

  /** @param done gets the answer, or null: there is none */
  ask<Asked extends Question>(
    peer: PeerId,
    question: Unnumbered<Asked>,
    limitMs: number,
    done: (answer: AnswerOf<Asked> | null) => void,
  ): void {
    const { settings, deliver, timers, clock } = this.#context
    const id = ++this.#id
    this.#open.set(id, { peer, done: done as (answer: ArenaWireMessage | null) => void })
    timers.set(`question:${id}`, clock.nowMs() + limitMs, () => this.#end(id, null))
    const header = { ...question, arena: settings.name, id } as Question
    deliver({ to: 'peer', peer, message: { type: 'send', header } })
  }

  /** False: this is no answer to one of these. */
  answered(peer: PeerId, message: Extract<ArenaWireMessage, { type: 'held' | 'leased' | 'fetch_failed' }>): boolean {
    if (this.#open.get(message.id)?.peer !== peer) return message.id > FIRST_ID
    this.#end(message.id, message.type === 'fetch_failed' ? null : message)
    return true
  }

  /** What this peer was asked, it may never have heard. */
  peerReset(peer: PeerId): void {
    for (const [id, question] of [...this.#open]) if (question.peer === peer) this.#end(id, null)
  }

  #end(id: number, answer: ArenaWireMessage | null): void {
    const question = this.#open.get(id)
    if (!question) return
    this.#open.delete(id)
    this.#context.timers.clear(`question:${id}`)
    question.done(answer)
  }
}
