/**
 * Finds leaves of a blob in an older file, wherever they lie there: something was inserted or removed before them, or they
 * were moved. A leaf is known by its *anchor*, the rolling hash of its first ANCHOR_BYTES, and is it if its Merkle hash says
 * so. Pure: reads and gives through its arguments.
 *
 * Where a leaf is found, the next one most likely follows: then nothing is searched. The time is bounded whatever the
 * content: a position is looked at once, and finds that turn out wrong are counted.
 */
import { ANCHOR_BYTES, LEAF_BYTES, ROLLING_BYTES } from '../../protocol/limits.ts'
import { HASH_BYTES, leafHash } from './merkle.ts'
import { type Rolling, rolling, SEARCH_BYTES_MAX } from './rolling.ts'

/** An anchor that was wrong so often says nothing: zeros, or a header that all leaves have. */
const MISSES_OF_ANCHOR_MAX = 4
/** So many wrong finds are borne, and one more for each leaf's length that was searched. */
const MISSES_MIN = 64
/** Different leaves with one anchor that are told apart. */
const SAME_ANCHOR_MAX = 4

export interface Source {
  readonly size: number
  /** Reads up to `into.length` bytes; returns how many. */
  read(at: number, into: Uint8Array): number
}

/** Leaves that are to be found, in order. */
export interface Sought {
  /** Their numbers in the blob. */
  readonly leaves: Uint32Array
  /** 32 bytes each. */
  readonly hashes: Uint8Array
  /** ROLLING_BYTES each. */
  readonly anchors: Uint8Array
  /** Bytes of the blob: its last leaf is shorter. */
  readonly size: number
}

export function leafBytes(size: number, leaf: number): number {
  return Math.min(LEAF_BYTES, size - leaf * LEAF_BYTES)
}

/** Writes the anchor of each leaf that begins a chunk of ANCHOR_BYTES in `bytes`. */
export function anchorOf(bytes: Uint8Array, to: Uint8Array, toAt: number, search: Rolling = rolling()): void {
  search.data.set(bytes)
  search.sign(0, ANCHOR_BYTES, to, toAt)
}

/**
 * Searches at the positions from `start` and before `end`, `overlapping` or past what was found. `found` gets each leaf once, with its
 * place and its bytes, which are valid until it returns.
 */
export function findShifted(
  base: Source,
  { start, end, overlapping }: { start: number; end: number; overlapping: boolean },
  sought: Sought,
  found: (leaf: number, place: number, bytes: Uint8Array) => void,
  search: Rolling = rolling(),
): void {
  const { data } = search
  const table = new SoughtTable(sought)
  search.seek(sought.anchors)
  let missesLeft = MISSES_MIN + (end - start) / LEAF_BYTES
  for (let offset = start; offset < end && table.left > 0; ) {
    const there = base.read(offset, data.subarray(0, Math.min(SEARCH_BYTES_MAX, base.size - offset)))
    const last = there < SEARCH_BYTES_MAX
    // A leaf that begins here must be here whole, unless the file ends.
    const positions = Math.min(end - offset, there - (last ? ANCHOR_BYTES : LEAF_BYTES) + 1)
    if (positions <= 0) return
    let at = 0
    for (let hit = search.next(at, positions, ANCHOR_BYTES); hit; hit = search.next(at, positions, ANCHOR_BYTES)) {
      const { at: place, number } = hit
      const match = table.match(number, data.subarray(place, there))
      if (match === null) {
        if (!table.alive(number)) search.drop(table.anchor(number))
        else if (--missesLeft < 0) return
        at = place + 1
        continue
      }
      const bytes = data.subarray(place, place + match.length)
      for (const leaf of match.leaves) found(leaf, offset + place, bytes)
      if (table.left === 0) return
      at = place + (overlapping ? 1 : match.length)
    }
    offset += Math.max(at, positions)
  }
}

interface Candidate {
  readonly hash: Uint8Array
  readonly length: number
  /** Leaves with this content. */
  readonly leaves: number[]
}

/** What is still to be found, by anchor. */
class SoughtTable {
  left = 0
  readonly #sought: Sought
  readonly #byAnchor = new Map<string, { candidates: Candidate[]; misses: number }>()

  constructor(sought: Sought) {
    this.#sought = sought
    sought.leaves.forEach((leaf, number) => {
      const key = this.#key(number)
      const hash = sought.hashes.subarray(number * HASH_BYTES, (number + 1) * HASH_BYTES)
      let same = this.#byAnchor.get(key)
      if (!same) {
        same = { candidates: [], misses: 0 }
        this.#byAnchor.set(key, same)
      }
      const known = same.candidates.find(candidate => Buffer.compare(candidate.hash, hash) === 0)
      if (known) known.leaves.push(leaf)
      else if (same.candidates.length === SAME_ANCHOR_MAX) return
      else same.candidates.push({ hash, length: leafBytes(sought.size, leaf), leaves: [leaf] })
      this.left++
    })
  }

  anchor(number: number): Uint8Array {
    return this.#sought.anchors.subarray(number * ROLLING_BYTES, (number + 1) * ROLLING_BYTES)
  }

  #key(number: number): string {
    return Buffer.from(this.anchor(number)).toString('latin1')
  }

  /** Whether its anchor is still worth a look. */
  alive(number: number): boolean {
    const same = this.#byAnchor.get(this.#key(number))
    return same !== undefined && same.candidates.length > 0 && same.misses < MISSES_OF_ANCHOR_MAX
  }

  /** The leaves with this one's anchor that begin `bytes`. They are not sought any more. */
  match(number: number, bytes: Uint8Array): Candidate | null {
    const same = this.#byAnchor.get(this.#key(number))
    if (!same || !this.alive(number)) return null
    for (const [index, candidate] of same.candidates.entries()) {
      if (candidate.length > bytes.length) continue
      if (Buffer.compare(leafHash(bytes.subarray(0, candidate.length)), candidate.hash) !== 0) continue
      same.candidates.splice(index, 1)
      this.left -= candidate.leaves.length
      return candidate
    }
    same.misses++
    return null
  }
}
