/**
 * Reading on: who reads a file on demand from one end to the other is given larger parts than the kernel asks for – 128 KiB at a time –
 * and the next part is asked for while the last one is being read. Each question to the arena costs two changes of thread, and a reader
 * that waits for each of them reads at a fraction of the speed. What is read here and there is asked for as it is.
 *
 * Pure: it is told where the content comes from.
 */
import { LEAF_BYTES } from '../../protocol/limits.ts'
import { ViewError } from './view-source.ts'

/**
 * A part of a file's content. Fills `into` with what the file has from `offset` on, all of which is in the part; false: it has been lost.
 */
export type Part = (offset: number, into: Uint8Array) => boolean

/** Has content [offset, offset + length) of a file, all of which is in the file. Rejects with an errno. */
export type Ask = (offset: number, length: number, signal: AbortSignal) => Promise<Part>

/** The first part is a leaf; later ones grow up to this. */
export const PART_BYTES_MAX = 1024 * 1024
/** How far from where it is expected a read may be: the kernel's requests overtake each other. */
const SLACK_BYTES = 256 * 1024
/** Who reads on at one time; the one that was not heard of for longest begins again. Each has up to six parts of together 3 MiB. */
const READERS_MAX = 16
/** How often what is lost between the answer and the reading of it is asked for again. */
const TRIES_MAX = 3

interface Expected {
  readonly offset: number
  readonly end: number
  readonly coming: Promise<Part>
  /** null: it has not come. */
  part: Part | null
}

/** Readers that have parts; the last one heard of is the last. */
export class ReadAhead {
  readonly #readers = new Set<SequentialReader>()

  open(size: number, ask: Ask): SequentialReader {
    const reader: SequentialReader = new SequentialReader(size, ask, () => this.#note(reader))
    return reader
  }

  #note(reader: SequentialReader): void {
    this.#readers.delete(reader)
    if (reader.parts > 0) this.#readers.add(reader)
    for (const oldest of this.#readers) {
      if (this.#readers.size <= READERS_MAX) return
      this.#readers.delete(oldest)
      oldest.forget()
    }
  }
}

export class SequentialReader {
  readonly #size: number
  readonly #ask: Ask
  readonly #changed: () => void
  /** One after the other, without gaps. */
  #parts: Expected[] = []
  /** Gives up what has not come. */
  #abort = new AbortController()
  /** Where a reader that reads on would read next. */
  #next = -1
  #partBytes = 0

  constructor(size: number, ask: Ask, changed: () => void) {
    this.#size = size
    this.#ask = ask
    this.#changed = changed
  }

  /** How many there are. */
  get parts(): number {
    return this.#parts.length
  }

  /** Fills `into` from `offset` on, all of which is in the file, if it is there already; false: `read` it. Asked first for each read. */
  readNow(offset: number, into: Uint8Array): boolean {
    const end = offset + into.length
    const onward = this.#next >= 0 && Math.abs(offset - this.#next) <= SLACK_BYTES
    this.#next = onward ? Math.max(this.#next, end) : end
    if (onward) this.#prepare(offset, end)
    else this.forget()
    const parts = this.#partsOf(offset, end)
    if (parts === null || parts.some(({ part }) => part === null)) return false
    return copied(parts, offset, end, into)
  }

  /** The same as soon as it is there. */
  async read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    const end = offset + into.length
    const parts = this.#partsOf(offset, end)
    if (parts !== null) {
      try {
        await Promise.all(parts.map(({ coming }) => coming))
        if (copied(parts, offset, end, into)) return
        this.forget()
      } catch {
        // Something of the part cannot be had; perhaps not what is wanted.
      }
    }
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const part = await this.#ask(offset, into.length, signal)
      if (part(offset, into)) return
    }
    throw new ViewError('EIO', 'what was read is lost each time')
  }

  /** Those that have all of it between them; null: there are none. */
  #partsOf(offset: number, end: number): Expected[] | null {
    const parts = this.#parts.filter(part => part.offset < end && part.end > offset)
    const [first] = parts
    return first && first.offset <= offset && (parts.at(-1) as Expected).end >= end ? parts : null
  }

  /** It is read no more: what has not come is given up. */
  close(): void {
    this.forget()
  }

  forget(): void {
    if (this.#parts.length === 0) return
    this.#parts = []
    this.#partBytes = 0
    this.#abort.abort()
    this.#abort = new AbortController()
    this.#changed()
  }

  /** Asks for the part that a read lies in, and for the next one as soon as it is in the last. */
  #prepare(offset: number, end: number): void {
    const first = this.#parts[0]
    // A late one, from before: it is asked for by itself.
    if (first && offset < first.offset) return
    if (this.#parts.length === 0) this.#begin(offset, end - offset)
    for (let last = this.#parts.at(-1); last && last.offset < end && last.end < this.#size; last = this.#parts.at(-1))
      this.#begin(last.end, Math.max(0, end - last.end))
    while (this.#parts.length > 1 && (this.#parts[0] as Expected).end + SLACK_BYTES <= offset) this.#parts.shift()
    this.#changed()
  }

  /** Parts grow as it goes on: of a file of which only the beginning is read, little is fetched. */
  #begin(offset: number, least: number): void {
    this.#partBytes = Math.min(PART_BYTES_MAX, Math.max(least, LEAF_BYTES, this.#partBytes * 2))
    const end = Math.min(this.#size, offset + this.#partBytes)
    const coming = this.#ask(offset, end - offset, this.#abort.signal)
    const expected: Expected = { offset, end, coming, part: null }
    this.#parts.push(expected)
    coming.then(
      part => {
        expected.part = part
      },
      () => {
        // Whoever waits for it asks by himself; what comes next begins anew.
        if (this.#parts.includes(expected)) this.forget()
      },
    )
  }
}

function copied(parts: readonly Expected[], offset: number, end: number, into: Uint8Array): boolean {
  return parts.every(({ offset: start, end: stop, part }) => {
    const from = Math.max(offset, start)
    const to = Math.min(end, stop)
    return part?.(from, into.subarray(from - offset, to - offset)) ?? false
  })
}
