/**
 * Reads and writes big files past the page cache, where the system can do that (Linux: open(2), O_DIRECT). Nobody reads such a file at once
 * because it came in, nor the one that it replaces: they shall not push out of memory what people work with; the processor does not find memory
 * for them and copy them once more, a third of what an update of a big file cost; and at the end nothing is left to be waited for. Small
 * files, and what does not begin and end at a block, go the usual way. Makes nothing durable.
 */
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs'

/** Files of this size and more. */
export const DIRECT_BYTES_MIN = 64 * 1024 * 1024
/** Read or written at once; what follows each other is gathered up to it. */
const PIECE_BYTES = 1024 * 1024
/** What offsets, lengths and memory must be a multiple of: blocks of disks are not larger. */
const BLOCK = 4096
const DIRECT = constants.O_DIRECT as number | undefined
/** This file system cannot do it, or not here. */
const REFUSED = new Set(['EINVAL', 'EOPNOTSUPP'])

/** Its memory begins at a page. What we use of it, whose types come with those of browsers only. */
const { WebAssembly } = globalThis as unknown as {
  WebAssembly: { Memory: new (pages: { initial: number }) => { readonly buffer: ArrayBuffer } }
}
const WASM_PAGE = 65_536

/** Of each thread: a task reads one file and writes another. */
const SPARE_MAX = 2
const spare: Uint8Array[] = []

function takeBuffer(): Uint8Array {
  return spare.pop() ?? new Uint8Array(new WebAssembly.Memory({ initial: PIECE_BYTES / WASM_PAGE }).buffer)
}

function giveBuffer(buffer: Uint8Array | null): void {
  if (buffer !== null && spare.length < SPARE_MAX) spare.push(buffer)
}

/** The same file once more, whatever its name is now; null where it is small or this cannot be done. */
function openDirect(fd: number, flags: number): number | null {
  if (DIRECT === undefined || process.platform !== 'linux' || fstatSync(fd).size < DIRECT_BYTES_MIN) return null
  try {
    return openSync(`/proc/self/fd/${fd}`, flags | DIRECT)
  } catch {
    return null
  }
}

function isRefused(error: unknown): boolean {
  return REFUSED.has((error as NodeJS.ErrnoException).code ?? '')
}

/** Reads ahead by a piece where it is read on; what lies elsewhere is read alone. */
export class DirectReader {
  readonly #fd: number
  #direct: number | null
  #buffer: Uint8Array | null = null
  /** What the buffer has of the file. */
  #start = 0
  #end = 0

  /** @param fd open for reading, and kept open by the caller */
  constructor(fd: number) {
    this.#fd = fd
    this.#direct = openDirect(fd, constants.O_RDONLY)
  }

  /** Fills `into` from this place on; fewer bytes where the file ends. Throws what the disk says. */
  read(at: number, into: Uint8Array): number {
    for (let filled = 0; filled < into.length; ) {
      const place = at + filled
      if (place < this.#start || place >= this.#end) {
        if (!this.#load(place, into.length - filled)) return filled + fill(this.#fd, into.subarray(filled), place)
        if (place >= this.#end) return filled
      }
      const piece = (this.#buffer as Uint8Array).subarray(place - this.#start, this.#end - this.#start)
      into.set(piece.subarray(0, into.length - filled), filled)
      filled += Math.min(piece.length, into.length - filled)
    }
    return into.length
  }

  /** False: it must be read the usual way. */
  #load(place: number, bytes: number): boolean {
    if (this.#direct === null) return false
    this.#buffer ??= takeBuffer()
    const wanted = Math.ceil(((place % BLOCK) + bytes) / BLOCK) * BLOCK
    const length = place === this.#end ? PIECE_BYTES : Math.min(wanted, PIECE_BYTES)
    this.#start = place - (place % BLOCK)
    this.#end = this.#start
    try {
      this.#end += readSync(this.#direct, this.#buffer, 0, length, this.#start)
      return true
    } catch (error) {
      if (!isRefused(error)) throw error
      closeSync(this.#direct)
      this.#direct = null
      return false
    }
  }

  close(): void {
    if (this.#direct !== null) closeSync(this.#direct)
    this.#direct = null
    this.#start = this.#end = 0
    giveBuffer(this.#buffer)
    this.#buffer = null
  }
}

export class DirectWriter {
  readonly #fd: number
  readonly #mayWrite: () => boolean
  #direct: number | null
  #buffer: Uint8Array | null = null
  /** Gathered: so many bytes, for this place in the file. */
  #filled = 0
  #at = 0

  /**
   * @param fd open for writing, and kept open by the caller
   * @param mayWrite asked before each write to the file; with false nothing more is written
   */
  constructor(fd: number, mayWrite: () => boolean = () => true) {
    this.#fd = fd
    this.#mayWrite = mayWrite
    this.#direct = openDirect(fd, constants.O_WRONLY)
  }

  /** Whether it goes past the page cache: then the disk need not be told to begin. */
  get direct(): boolean {
    return this.#direct !== null
  }

  /** Takes over the bytes, and writes them now or with those that follow. False: it must not be written to any more. Throws what the disk says. */
  write(bytes: Uint8Array, at: number): boolean {
    if (this.#direct === null) return this.#put(this.#fd, bytes, at)
    if (at !== this.#at + this.#filled && !this.flush()) return false
    for (let done = 0; done < bytes.length; ) {
      if (this.#filled === 0) this.#at = at + done
      this.#buffer ??= takeBuffer()
      // The next write begins where a block does, whatever this one does.
      const room = PIECE_BYTES - (this.#at % BLOCK) - this.#filled
      const piece = bytes.subarray(done, done + room)
      this.#buffer.set(piece, this.#filled)
      this.#filled += piece.length
      done += piece.length
      if (piece.length === room && !this.flush()) return false
    }
    return true
  }

  /** Writes what was gathered. */
  flush(): boolean {
    if (this.#filled === 0 || this.#buffer === null) return true
    const gathered = this.#buffer.subarray(0, this.#filled)
    const whole = this.#at % BLOCK === 0 ? gathered.length - (gathered.length % BLOCK) : 0
    this.#filled = 0
    return (
      this.#putDirect(gathered.subarray(0, whole), this.#at) &&
      this.#put(this.#fd, gathered.subarray(whole), this.#at + whole)
    )
  }

  close(): void {
    if (this.#direct !== null) closeSync(this.#direct)
    this.#direct = null
    giveBuffer(this.#buffer)
    this.#buffer = null
  }

  #putDirect(bytes: Uint8Array, at: number): boolean {
    if (this.#direct === null) return this.#put(this.#fd, bytes, at)
    try {
      return this.#put(this.#direct, bytes, at)
    } catch (error) {
      if (!isRefused(error)) throw error
      closeSync(this.#direct)
      this.#direct = null
      return this.#put(this.#fd, bytes, at)
    }
  }

  #put(fd: number, bytes: Uint8Array, at: number): boolean {
    if (bytes.length === 0) return true
    if (!this.#mayWrite()) return false
    for (let written = 0; written < bytes.length; )
      written += writeSync(fd, bytes, written, bytes.length - written, at + written)
    return true
  }
}

/** Reads as much as fits into the buffer; fewer bytes where the file ends. */
export function fill(fd: number, buffer: Uint8Array, offset: number): number {
  let filled = 0
  while (filled < buffer.length) {
    const count = readSync(fd, buffer, filled, buffer.length - filled, offset + filled)
    if (count === 0) break
    filled += count
  }
  return filled
}
