/**
 * Content that was read a moment ago to be hashed. Peers ask for it next: so it is read once. By hash, so it is right
 * whatever has become of its file. Bounded; the oldest goes first. Its memory is used again and again: a page that is touched for
 * the first time costs more than the reading of what is put there.
 */
import type { BlobHash } from '../../protocol/ids.ts'

/** Blobs lie in slabs, one after the other; a slab is given up as a whole. No larger blob is kept. */
export const SLAB_BYTES = 256 * 1024
export const SLABS_MAX = 96

interface Slab {
  readonly bytes: Uint8Array
  readonly hashes: BlobHash[]
}

export class RecentContent {
  readonly #blobs = new Map<BlobHash, Uint8Array>()
  #slabs: Slab[] = []
  #at = -1
  /** Of the slab at `#at`; until there is one, nothing fits. */
  #used = Number.POSITIVE_INFINITY

  /** Keeps a copy. */
  put(hash: BlobHash, bytes: Uint8Array): void {
    if (bytes.length > SLAB_BYTES || this.#blobs.has(hash)) return
    const slab = this.#used + bytes.length <= SLAB_BYTES ? (this.#slabs[this.#at] as Slab) : this.#nextSlab()
    const copy = slab.bytes.subarray(this.#used, this.#used + bytes.length)
    copy.set(bytes)
    this.#used += bytes.length
    slab.hashes.push(hash)
    this.#blobs.set(hash, copy)
  }

  #nextSlab(): Slab {
    this.#at = (this.#at + 1) % SLABS_MAX
    this.#used = 0
    const slab = this.#slabs[this.#at] ?? { bytes: Buffer.allocUnsafeSlow(SLAB_BYTES), hashes: [] }
    for (const hash of slab.hashes) this.#blobs.delete(hash)
    slab.hashes.length = 0
    this.#slabs[this.#at] = slab
    return slab
  }

  /** Only for this turn: what is put later may take its place. */
  get(hash: BlobHash): Uint8Array | undefined {
    return this.#blobs.get(hash)
  }

  clear(): void {
    this.#blobs.clear()
    this.#slabs = []
    this.#at = -1
    this.#used = Number.POSITIVE_INFINITY
  }
}
