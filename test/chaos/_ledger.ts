/** What users wrote, and what of it users themselves have replaced or deleted, having it on their disk: the measure of I1, I4 and I5. */
import { createHash } from 'node:crypto'
import { closeSync, constants, fstatSync, lstatSync, openSync, readlinkSync, readSync } from 'node:fs'

export interface Written {
  readonly peer: string
  readonly path: string
  readonly round: number
  readonly atMs: number
}

/** Every file is empty at some moment, so an empty one proves nothing. */
export const EMPTY = 'empty'

/** Who is told of what users do. */
export interface Told {
  acted(by: Written, act: string, before: string | null, after: string | null): void
  passed(by: Written, key: string): void
  read(by: Written, key: string): void
}

export class Ledger implements Told {
  /** What programs have read since the last check. */
  readonly reads: { by: Written; key: string }[] = []
  /** Everything ever written, states in between included. */
  readonly written = new Map<string, Written>()
  /** What nobody has knowingly ended. */
  readonly required = new Map<string, Written>()
  /** Since when it is at no path of any peer: it must not come back by itself. */
  absent: ReadonlySet<string> = new Set()
  readonly #log: (line: object) => void

  constructor(log: (line: object) => void) {
    this.#log = log
  }

  /** A user's act at one path: `before` is what it replaced there. */
  acted(by: Written, act: string, before: string | null, after: string | null): void {
    this.#log({ ...by, act, before, after })
    if (before !== null && before !== after) this.required.delete(before)
    if (after === null || after === EMPTY) return
    this.written.set(after, by)
    this.required.set(after, by)
  }

  /** What a program got when it read a file. */
  read(by: Written, key: string): void {
    this.reads.push({ by, key })
  }

  /** A state that a program's file goes through on its way. */
  passed(by: Written, key: string): void {
    if (!this.written.has(key)) this.written.set(key, by)
  }
}

const buffer = Buffer.allocUnsafe(1024 * 1024)

/** Names what an open file holds. */
export function keyOfFile(fd: number): string {
  const hash = createHash('sha256')
  let bytes = 0
  for (
    let read = readSync(fd, buffer, 0, buffer.length, 0);
    read > 0;
    read = readSync(fd, buffer, 0, buffer.length, bytes)
  ) {
    hash.update(buffer.subarray(0, read))
    bytes += read
  }
  return bytes === 0 ? EMPTY : hash.digest('hex').slice(0, 32)
}

export function keyOfBytes(bytes: Uint8Array): string {
  return bytes.length === 0 ? EMPTY : createHash('sha256').update(bytes).digest('hex').slice(0, 32)
}

export function keyOfLink(target: Buffer | string): string {
  return `link:${target.toString()}`
}

/** Names what a path shows; null for a folder, something else, or nothing. */
export function keyAt(place: string | Buffer): string | null {
  try {
    const stat = lstatSync(place)
    if (stat.isSymbolicLink()) return keyOfLink(readlinkSync(place))
    if (!stat.isFile()) return null
    const fd = openSync(place, constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      return fstatSync(fd).isFile() ? keyOfFile(fd) : null
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    // Gone or replaced between the two looks.
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP') return null
    throw error
  }
}
