/**
 * What the cache needs of a disk: one sparse file for each blob, by its hash. Synchronous. `cache-files-posix.ts` is the real one,
 * `cache-files-memory.ts` that of the simulator; both pass test/arena/_cache-files-acceptance.
 *
 * All of it may be taken away at any moment: whoever cleans up caches is right to do so.
 */
import type { BlobHash } from '../../protocol/ids.ts'
import type { CachedFile } from '../../protocol/ports.ts'

/** Files of a shelf are listed together; there are SHELVES. */
export const SHELVES = 256

export interface CacheFiles {
  /** Up to `length` bytes; shorter at the file's end, a hole gives zeroes. null: there is no such file. Throws DiskError. */
  read(hash: BlobHash, offset: number, length: number): Uint8Array | null
  /**
   * Writes all of it at its place. `fresh`: begins a new file, whatever was there, of which who has it open sees nothing; else false, and nothing is written, if there is
   * no such file. Throws DiskError (ENOSPC, EACCES …).
   */
  write(hash: BlobHash, offset: number, bytes: Uint8Array, fresh: boolean): boolean
  /** A descriptor for reading, which the caller hands on or closes; null: there is no such file. It outlives `remove`. */
  open(hash: BlobHash): number | null
  /** Where it is, for `openCachedFile`; null: there is no such file, or none that others can open. Throws DiskError. */
  where(hash: BlobHash): CachedFile | null
  /** Nothing happens if there is none. Throws DiskError. */
  remove(hash: BlobHash): void
  /** Names in a shelf, 0 to SHELVES - 1: also of what is no blob. */
  list(shelf: number): string[]
  /** Removes what is no blob of ours from a shelf. */
  discard(shelf: number, name: string): void
  free(): { freeBytes: number; totalBytes: number }
  /** Releases descriptors. */
  dispose(): void
}
