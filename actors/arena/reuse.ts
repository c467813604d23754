/**
 * Takes from an older version of a file what it has of a newer one, cheapest first: leaves that are in it at any leaf's place; leaves
 * that are in it anywhere; and of what is left, next to those, the parts that a delta finds. docs/delta.md tells the same as a
 * story. What remains is fetched by whoever runs this.
 *
 * Nothing that comes from here is trusted: each leaf is verified before it is written. The work itself is done by the hasher pool
 * (hasher/patch.ts). Faults only end it early.
 */
import {
  ANCHOR_BYTES,
  ANCHOR_LEAVES_MAX,
  ANCHOR_RUNS_MAX,
  DELTA_LEAVES_MAX,
  LEAF_BYTES,
  ROLLING_BYTES,
} from '../../protocol/limits.ts'
import type { FilePart, FileRef, PatchResult, PatchTask, SlotRef, WantedLeaves } from '../../protocol/ports.ts'
import { blockBytes } from '../hasher/delta.ts'
import { HASH_BYTES } from '../hasher/merkle.ts'
import { pickLeaves } from '../hasher/patch.ts'
import { leafBytes } from '../hasher/shifted.ts'

/** Orders and deltas under way: what keeps two cores busy and leaves room for others. */
const ORDERS_MAX = 2
const DELTAS_MAX = 4
/** Leaves of one order to copy: 64 MiB. */
const COPY_LEAVES = 512
/** Bytes of the older version that one order searches. */
const SEARCH_BYTES = 64 * 1024 * 1024
/** How far from its former place content is searched. */
const REACH_BYTES = 4 * 1024 ** 3
/** Where more than this is missing in one piece, a delta is asked for at both its ends only: the rest is new. */
const EDGE_LEAVES = 16
/** More than this, and this part of the older version, must be missing to search again where leaves were found: for what was copied. */
const COPIED_LEAVES_MIN = 4
const COPIED_PART_MIN = 1 / 32
/** How far around its presumed place a delta looks. */
const SLACK_BYTES = LEAF_BYTES
/** Without any leaf that was found, a delta is tried against an older version up to this size. */
const WHOLE_BYTES_MAX = 4 * 1024 * 1024
/** Less is fetched as it is: a signature would cost as much. */
const DELTA_BYTES_MIN = 8 * 1024

export interface ReuseTarget {
  readonly size: number
  readonly tree: Uint8Array
  readonly slot: SlotRef
}

/** Where the older version is now. */
export interface OlderFile {
  /** Leaf hashes, 32 bytes each. */
  readonly leaves: Uint8Array
  file: FileRef
}

export type ReuseQuestion =
  | { type: 'fetch_anchors'; runs: [number, number][] }
  | { type: 'fetch_delta'; from: number; count: number; block: number }

export interface ReuseHost {
  missing(leaf: number): boolean
  /** The leaf lies in the slot, verified. `how`: `copied` from the older version, or `patched`. */
  mark(leaf: number, how: 'copied' | 'patched'): void
  order(task: PatchTask, done: (result: PatchResult) => void): void
  /** Asks a peer that has the newer version; null is the answer if there is none or it cannot. */
  ask(question: ReuseQuestion, payload: Uint8Array | undefined, done: (payload: Uint8Array | null) => void): void
  /** The older version has another place by now: it was renamed or went to the version store. */
  find(): FileRef | null
  /** All that could be taken has been. */
  done(): void
}

/** A piece to be said by a delta: leaves [from, from + count) from parts of the older version. */
interface Piece {
  from: number
  count: number
  parts: FilePart[]
}

type OlderTask = Extract<PatchTask, { base: FileRef }>

export class Reuse {
  readonly #host: ReuseHost
  readonly #target: ReuseTarget
  readonly #base: OlderFile
  readonly #count: number
  /** Where each leaf lay in the older version; −1: not found. */
  readonly #places: Float64Array
  /** Leaves of the older version that the newer has in place: nothing else is expected in them. */
  readonly #used: Uint8Array
  /** Leaves up to here have had their search. */
  #searched = 0
  #found = false
  #over = false
  /** The older version is not what it was, or the disk refuses: what is left is fetched. */
  #broken = false

  constructor(host: ReuseHost, target: ReuseTarget, base: OlderFile) {
    this.#host = host
    this.#target = target
    this.#base = base
    this.#count = target.tree.length / HASH_BYTES
    this.#places = new Float64Array(this.#count).fill(-1)
    this.#used = new Uint8Array(base.leaves.length / HASH_BYTES)
  }

  start(): void {
    this.#each(this.#copies(), ORDERS_MAX, () => this.#searchOn())
  }

  /** Leaves that lie at a leaf's place, and no more: no peer hears anything about this file. */
  startCopies(): void {
    this.#each(this.#copies(), ORDERS_MAX, () => this.#end())
  }

  /** Nobody wants it any more: answers that still come are dropped. */
  stop(): void {
    this.#over = true
  }

  #end(): void {
    if (this.#over) return
    this.#over = true
    this.#host.done()
  }

  /** Runs orders, so many at a time; then goes on. The next one is made when there is room for it, from what is missing by then. */
  #each(tasks: Iterator<OlderTask>, atOnce: number, then: () => void): void {
    let running = 0
    let ended = false
    const more = (): void => {
      while (!ended && running < atOnce) {
        const { value, done } = tasks.next()
        if (done === true) {
          ended = true
          break
        }
        running++
        this.#order(value as OlderTask, result => {
          running--
          if ('leaves' in result) this.#took(result, 'copied')
          else {
            this.#broken = true
            ended = true
          }
          more()
        })
      }
      if (!ended || running > 0) return
      if (this.#broken) this.#end()
      else then()
    }
    more()
  }

  /** An order that reads the older version: again, once, if that has moved meanwhile. */
  #order(task: OlderTask, done: (result: PatchResult) => void): void {
    this.#host.order(task, result => {
      if (this.#over) return
      const moved = 'changed' in result ? this.#host.find() : null
      if (!moved || moved.path === task.base.path) return done(result)
      this.#base.file = moved
      this.#host.order({ ...task, base: moved }, again => {
        if (!this.#over) done(again)
      })
    })
  }

  #took({ leaves, places }: { leaves: Uint32Array; places: Float64Array }, how: 'copied' | 'patched'): void {
    for (const [number, leaf] of leaves.entries()) {
      if (leaf >= this.#count) continue
      const place = places[number] as number
      if (place >= 0) {
        this.#places[leaf] = place
        this.#found = true
      }
      this.#host.mark(leaf, how)
    }
  }

  #wanted(leaves: Uint32Array): WantedLeaves {
    const { size, slot, tree } = this.#target
    return { slot, size, ...pickLeaves(leaves, tree) }
  }

  // Leaves that are in it at a leaf's place

  *#copies(): Generator<OlderTask> {
    const { tree, size } = this.#target
    const { leaves: baseLeaves } = this.#base
    const index = new Map<string, number>()
    for (let leaf = 0; leaf < this.#used.length; leaf++) index.set(keyOf(baseLeaves, leaf), leaf)
    let leaves: number[] = []
    let places: number[] = []
    const order = (): OlderTask => {
      const task: OlderTask = {
        is: 'copy',
        base: this.#base.file,
        places: Float64Array.from(places),
        ...this.#wanted(Uint32Array.from(leaves)),
      }
      leaves = []
      places = []
      return task
    }
    for (let leaf = 0; leaf < this.#count; leaf++) {
      const key = keyOf(tree, leaf)
      // Where it was is the best guess of equal ones, and tells how the rest has moved.
      const same = leaf < this.#used.length && keyOf(baseLeaves, leaf) === key ? leaf : index.get(key)
      if (same === undefined) continue
      this.#used[same] = 1
      if (!this.#host.missing(leaf)) {
        this.#places[leaf] = same * LEAF_BYTES
        continue
      }
      leaves.push(leaf)
      places.push(same * LEAF_BYTES)
      if (leaves.length === COPY_LEAVES) yield order()
    }
    if (leaves.length > 0 && size > 0) yield order()
  }

  // Leaves that are in it anywhere

  #missingRuns(from: number): [number, number][] {
    const runs: [number, number][] = []
    for (let leaf = from; leaf < this.#count; leaf++) {
      if (!this.#host.missing(leaf)) continue
      const last = runs.at(-1)
      if (last && last[0] + last[1] === leaf) last[1]++
      else runs.push([leaf, 1])
    }
    return runs
  }

  /** One round of search; then the next, and at last the deltas. */
  #searchOn(): void {
    const runs = this.#roundOfRuns()
    const file = this.#base.file
    if (runs.length === 0 || file.size < ANCHOR_BYTES) return this.#patchRest()
    const leaves = Uint32Array.from(
      runs.flatMap(([first, count]) => Array.from({ length: count }, (_, at) => first + at)),
    )
    const question: ReuseQuestion = { type: 'fetch_anchors', runs }
    this.#host.ask(question, undefined, anchors => {
      if (this.#over) return
      // Whoever cannot tell anchors makes no deltas either.
      if (anchors?.length !== leaves.length * ROLLING_BYTES) return this.#end()
      this.#each(this.#searches(leaves, anchors, false), ORDERS_MAX, () => {
        const left = leaves.reduce((sum, leaf) => sum + (this.#host.missing(leaf) ? 1 : 0), 0)
        const copied = left >= COPIED_LEAVES_MIN && left * LEAF_BYTES >= file.size * COPIED_PART_MIN
        // Where nothing was found all has been searched.
        if (!copied || !this.#found) return this.#searchOn()
        this.#each(this.#searches(leaves, anchors, true), ORDERS_MAX, () => this.#searchOn())
      })
    })
  }

  /** Missing leaves that have an anchor, as many as one question may name. */
  #roundOfRuns(): [number, number][] {
    const whole = leafBytes(this.#target.size, this.#count - 1) >= ANCHOR_BYTES ? this.#count : this.#count - 1
    const round: [number, number][] = []
    let room = ANCHOR_LEAVES_MAX
    for (const [first, count] of this.#missingRuns(this.#searched)) {
      const taken = Math.min(count, room, whole - first)
      if (taken <= 0 || round.length === ANCHOR_RUNS_MAX) break
      round.push([first, taken])
      room -= taken
      this.#searched = first + taken
    }
    return round
  }

  *#searches(leaves: Uint32Array, anchors: Uint8Array, overlapping: boolean): Generator<OlderTask> {
    const first = Math.max(0, (leaves[0] as number) * LEAF_BYTES - REACH_BYTES)
    const last = Math.min(this.#base.file.size, ((leaves.at(-1) as number) + 1) * LEAF_BYTES + REACH_BYTES)
    for (const [start, end] of overlapping ? [[first, last] as const] : this.#unused(first, last)) {
      for (let at = start; at < end; at += SEARCH_BYTES) {
        const left: number[] = []
        for (const [number, leaf] of leaves.entries()) if (this.#host.missing(leaf)) left.push(number)
        if (left.length === 0) return
        const wanted = this.#wanted(Uint32Array.from(left, number => leaves[number] as number))
        const theirs = new Uint8Array(left.length * ROLLING_BYTES)
        for (const [at, number] of left.entries())
          theirs.set(anchors.subarray(number * ROLLING_BYTES, (number + 1) * ROLLING_BYTES), at * ROLLING_BYTES)
        yield {
          is: 'search',
          base: this.#base.file,
          start: at,
          end: Math.min(end, at + SEARCH_BYTES),
          anchors: theirs,
          overlapping,
          ...wanted,
        }
      }
    }
  }

  /** Runs of bytes of the older version that the newer does not have in place. */
  *#unused(start: number, end: number): Generator<[number, number]> {
    let from = -1
    for (let leaf = Math.floor(start / LEAF_BYTES); leaf * LEAF_BYTES < end; leaf++) {
      if (this.#used[leaf] !== 1) {
        if (from < 0) from = leaf * LEAF_BYTES
      } else if (from >= 0) {
        yield [from, leaf * LEAF_BYTES]
        from = -1
      }
    }
    if (from >= 0) yield [from, end]
  }

  // Parts of leaves

  #patchRest(): void {
    const pieces = this.#pieces()
    let running = 0
    let refused = false
    const more = (): void => {
      while (!refused && running < DELTAS_MAX) {
        const piece = pieces.shift()
        if (!piece) break
        running++
        this.#patch(piece, outcome => {
          running--
          if (outcome === 'refused') refused = true
          more()
        })
      }
      if (running === 0 && (refused || pieces.length === 0)) this.#end()
    }
    more()
  }

  #patch({ from, count, parts }: Piece, done: (outcome: 'done' | 'refused') => void): void {
    const base = this.#base.file
    const block = blockBytes(bytesOf(parts))
    this.#order({ is: 'sign', base, parts, block }, signed => {
      if (!('bytes' in signed) || signed.bytes.length === 0) return done('refused')
      this.#host.ask({ type: 'fetch_delta', from, count, block }, signed.bytes, delta => {
        if (this.#over) return
        if (delta === null) return done('refused')
        const leaves = Uint32Array.from({ length: count }, (_, at) => from + at)
        const task: OlderTask = { is: 'assemble', base: this.#base.file, parts, block, delta, ...this.#wanted(leaves) }
        this.#order(task, result => {
          if ('leaves' in result) this.#took(result, 'patched')
          done('done')
        })
      })
    })
  }

  /** What is left, with the part of the older version in which most of it is likely to be. */
  #pieces(): Piece[] {
    const pieces: Piece[] = []
    for (const [first, count] of this.#missingRuns(0)) {
      const after = first + count
      const before = this.#shiftAt(first - 1)
      const behind = this.#shiftAt(after)
      if (before === null && behind === null) {
        const size = this.#base.file.size
        if (size > WHOLE_BYTES_MAX || count > EDGE_LEAVES) continue
        for (const piece of cut(first, after)) pieces.push({ ...piece, parts: [{ start: 0, end: size }] })
        continue
      }
      const long = count > 2 * EDGE_LEAVES
      const head = before === null ? first : long ? first + EDGE_LEAVES : after
      for (const piece of cut(first, head)) pieces.push(this.#around(piece, before, long ? null : behind))
      if (behind === null || (before !== null && !long)) continue
      const tail = long ? after - EDGE_LEAVES : first
      for (const piece of cut(Math.max(head, tail), after)) pieces.push(this.#around(piece, null, behind))
    }
    return pieces.filter(({ from, count, parts }) => {
      const bytes = Math.min(this.#target.size, (from + count) * LEAF_BYTES) - from * LEAF_BYTES
      return bytes >= DELTA_BYTES_MIN && bytesOf(parts) >= DELTA_BYTES_MIN
    })
  }

  /** How far a leaf has moved, in bytes; null if it was not found. */
  #shiftAt(leaf: number): number | null {
    const place = leaf < 0 ? -1 : (this.#places[leaf] ?? -1)
    return place < 0 ? null : place - leaf * LEAF_BYTES
  }

  /** Where the leaf before and the one behind say that it should lie: one part if they agree. */
  #around({ from, count }: { from: number; count: number }, before: number | null, behind: number | null): Piece {
    const { size } = this.#base.file
    const parts: FilePart[] = []
    for (const shift of [before, behind].filter(shift => shift !== null).sort((a, b) => a - b)) {
      const start = Math.max(0, from * LEAF_BYTES + shift - SLACK_BYTES)
      const end = Math.min(size, (from + count) * LEAF_BYTES + shift + SLACK_BYTES)
      const last = parts.at(-1)
      if (last && start <= last.end) last.end = Math.max(last.end, end)
      else if (start < end) parts.push({ start, end })
    }
    return { from, count, parts }
  }
}

function bytesOf(parts: readonly FilePart[]): number {
  return parts.reduce((sum, { start, end }) => sum + end - start, 0)
}

/** Leaves [from, end) in pieces that one delta can say. */
function cut(from: number, end: number): { from: number; count: number }[] {
  const pieces: { from: number; count: number }[] = []
  for (let at = from; at < end; at += DELTA_LEAVES_MAX)
    pieces.push({ from: at, count: Math.min(DELTA_LEAVES_MAX, end - at) })
  return pieces
}

function keyOf(hashes: Uint8Array, leaf: number): string {
  return Buffer.from(hashes.buffer, hashes.byteOffset + leaf * HASH_BYTES, HASH_BYTES).toString('latin1')
}
