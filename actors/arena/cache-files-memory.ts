/** Cached content in memory, for the simulator. */
import type { BlobHash } from '../../protocol/ids.ts'
import type { CacheFiles } from './cache-files.ts'
import { DiskError } from './disk.ts'

export interface MemoryCacheOptions {
  /** Makes a descriptor for these bytes that the disk of the same peer can read and close. */
  open(bytes: Uint8Array): number
  totalBytes?: number
}

export class MemoryCacheFiles implements CacheFiles {
  /** The point at which writes end in ENOSPC. */
  totalBytes: number
  /** Asked before each change; a code makes it fail with that. */
  fault: ((operation: 'write' | 'remove') => string | null) | null = null
  readonly files = new Map<string, Uint8Array>()
  readonly #open: (bytes: Uint8Array) => number

  constructor({ open, totalBytes = 2 ** 40 }: MemoryCacheOptions) {
    this.#open = open
    this.totalBytes = totalBytes
  }

  read(hash: BlobHash, offset: number, length: number): Uint8Array | null {
    return this.files.get(hash)?.slice(offset, offset + length) ?? null
  }

  write(hash: BlobHash, offset: number, bytes: Uint8Array, fresh: boolean): boolean {
    this.#mayFail('write')
    const before = fresh ? new Uint8Array(0) : this.files.get(hash)
    if (!before) return false
    const end = Math.max(before.length, offset + bytes.length)
    if (this.free().freeBytes < end - before.length) throw new DiskError('ENOSPC', 'ENOSPC: the disk is full')
    this.files.set(hash, resized(before, end))
    this.files.get(hash)?.set(bytes, offset)
    return true
  }

  open(hash: BlobHash): number | null {
    const bytes = this.files.get(hash)
    return bytes ? this.#open(bytes) : null
  }

  where(): null {
    return null
  }

  remove(hash: BlobHash): void {
    this.#mayFail('remove')
    this.files.delete(hash)
  }

  list(shelf: number): string[] {
    return [...this.files.keys()].filter(name => Number.parseInt(name.slice(0, 2), 16) === shelf)
  }

  discard(_shelf: number, name: string): void {
    this.files.delete(name)
  }

  free(): { freeBytes: number; totalBytes: number } {
    let used = 0
    for (const { length } of this.files.values()) used += length
    return { freeBytes: this.totalBytes - used, totalBytes: this.totalBytes }
  }

  dispose(): void {}

  #mayFail(operation: 'write' | 'remove'): void {
    const code = this.fault?.(operation)
    if (code) throw new DiskError(code, `${code}: ${operation}`)
  }
}

/** The same bytes and zeroes after them; in the same memory if it has room. */
function resized(bytes: Uint8Array, length: number): Uint8Array {
  if (length <= bytes.buffer.byteLength) return new Uint8Array(bytes.buffer, 0, length)
  const grown = new Uint8Array(new ArrayBuffer(length * 2), 0, length)
  grown.set(bytes)
  return grown
}
