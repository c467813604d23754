/**
 * Content that was read a moment ago to be hashed. Peers ask for it next: so it is read once. By hash, so it is right
 * whatever has become of its file. Bounded; the oldest goes first.
 */
import type { BlobHash } from '../../protocol/ids.ts'

export const RECENT_BYTES_MAX = 24 * 1024 * 1024

export class RecentContent {
  readonly #blobs = new Map<BlobHash, Uint8Array>()
  #bytes = 0

  put(hash: BlobHash, bytes: Uint8Array): void {
    if (this.#blobs.has(hash)) return
    this.#blobs.set(hash, bytes)
    this.#bytes += bytes.length
    for (const [oldest, content] of this.#blobs) {
      if (this.#bytes <= RECENT_BYTES_MAX) return
      this.#blobs.delete(oldest)
      this.#bytes -= content.length
    }
  }

  get(hash: BlobHash): Uint8Array | undefined {
    return this.#blobs.get(hash)
  }

  clear(): void {
    this.#blobs.clear()
    this.#bytes = 0
  }
}
