/**
 * Reading on: who reads a file on demand from one end to the other is given larger parts than the kernel asks for – 128 KiB at a time –
 * and the next part is asked for while the last one is being read. Each question to the arena costs two changes of thread, and a reader
 * that waits for each of them reads at a fraction of the speed. What is read here and there is asked for as it is.
 *
 * Pure: it is told where the content comes from.
 */
import type { Answer } from './view-source.ts'

/** Content [offset, offset + length) of a file, all of which is there. Rejects with an errno. */
export type Ask = (offset: number, length: number, signal: AbortSignal) => Promise<Uint8Array>

/** The largest part. */
export const PART_BYTES_MAX = 1024 * 1024
/** How far from where it is expected a read may be: the kernel's requests overtake each other. */
const SLACK_BYTES = 256 * 1024
/** Who reads on at one time; the one that was not heard of for longest begins again. Each has up to three parts. */
const READERS_MAX = 16

interface Part {
  readonly offset: number
  readonly end: number
  readonly coming: Promise<Uint8Array>
  /** null: it has not come. */
  bytes: Uint8Array | null
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
  #parts: Part[] = []
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

  /** @param length all of which is in the file */
  read(offset: number, length: number, signal: AbortSignal): Answer<Uint8Array> {
    const end = offset + length
    const onward = this.#next >= 0 && Math.abs(offset - this.#next) <= SLACK_BYTES
    this.#next = onward ? Math.max(this.#next, end) : end
    if (!onward) this.forget()
    else this.#prepare(offset, end)
    const parts = this.#parts.filter(part => part.offset < end && part.end > offset)
    const whole = parts.length > 0 && (parts[0] as Part).offset <= offset && (parts.at(-1) as Part).end >= end
    if (!whole) return this.#ask(offset, length, signal)
    if (parts.every(part => part.bytes !== null)) return joined(parts, offset, end)
    return Promise.all(parts.map(part => part.coming)).then(
      () => joined(parts, offset, end),
      // Something of the part cannot be had; perhaps not what is wanted.
      () => this.#ask(offset, length, signal),
    )
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
    while (this.#parts.length > 1 && (this.#parts[0] as Part).end + SLACK_BYTES <= offset) this.#parts.shift()
    this.#changed()
  }

  /** Parts grow as it goes on: of a file of which only the beginning is read, little is fetched. */
  #begin(offset: number, least: number): void {
    this.#partBytes = Math.min(PART_BYTES_MAX, Math.max(least, this.#partBytes * 2))
    const end = Math.min(this.#size, offset + this.#partBytes)
    const coming = this.#ask(offset, end - offset, this.#abort.signal)
    const part: Part = { offset, end, coming, bytes: null }
    this.#parts.push(part)
    coming.then(
      bytes => {
        part.bytes = bytes
      },
      () => {
        // Whoever waits for it asks by himself; what comes next begins anew.
        if (this.#parts.includes(part)) this.forget()
      },
    )
  }
}

function joined(parts: readonly Part[], offset: number, end: number): Uint8Array {
  const [only] = parts
  if (parts.length === 1 && only?.bytes) return only.bytes.subarray(offset - only.offset, end - only.offset)
  const bytes = new Uint8Array(end - offset)
  for (const part of parts) {
    const from = Math.max(offset, part.offset)
    const to = Math.min(end, part.end)
    bytes.set((part.bytes as Uint8Array).subarray(from - part.offset, to - part.offset), from - offset)
  }
  return bytes
}
