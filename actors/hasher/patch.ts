/**
 * The work of delta transfers, one task at a time: signatures, anchors and deltas for the other end, and leaves that are made from
 * an older file, verified, and written to their place. What it reads and writes is behind `Files`: the disk for the
 * pool's threads, a disk in memory for the simulator.
 */
import { SyncError, toFailure } from '../../protocol/error.ts'
import { ANCHOR_BYTES, LEAF_BYTES, ROLLING_BYTES } from '../../protocol/limits.ts'
import type { FilePart, FileRef, PatchResult, PatchTask, SlotRef, WantedLeaves } from '../../protocol/ports.ts'
import { applyDelta, makeDelta, signatureOf } from './delta.ts'
import { HASH_BYTES, verifyLeaf } from './merkle.ts'
import { anchorOf, findShifted, leafBytes, type Source } from './shifted.ts'

export interface Slot {
  /** False if the slot is not at its path any more: nothing was written. */
  write(at: number, bytes: Uint8Array): boolean
  close(): void
}

/** Both give null for what is not there or not what was expected. Faults of the disk are thrown. */
export interface Files {
  open(file: FileRef): (Source & { close(): void }) | null
  slot(slot: SlotRef): Slot | null
}

/** Never throws for a file's or a peer's sake. */
export function perform(task: PatchTask, files: Files): PatchResult {
  try {
    switch (task.is) {
      case 'anchors':
        return using(files.open(task.file), source => anchors(source, task.leaves))
      case 'delta':
        return using(files.open(task.file), source => {
          const { from, count, block, signature } = task
          const end = Math.min(task.file.size, (from + count) * LEAF_BYTES)
          const target = readExactly(source, from * LEAF_BYTES, end - from * LEAF_BYTES)
          return target ? { bytes: makeDelta(target, signature, block) } : { changed: true }
        })
      case 'sign':
        return using(files.open(task.base), source => {
          const bytes = readParts(source, task.parts)
          return bytes ? { bytes: signatureOf(bytes, task.block) } : { changed: true }
        })
      default:
        return using(files.open(task.base), source => using(files.slot(task.slot), slot => fill(task, source, slot)))
    }
  } catch (error) {
    if (error instanceof SyncError) return { failure: toFailure(error) }
    if (!(error instanceof Error) || !('code' in error)) throw error
    return { failure: { code: 'disk_failed', message: error.message } }
  }
}

function using<Thing extends { close(): void }>(thing: Thing | null, work: (thing: Thing) => PatchResult): PatchResult {
  if (thing === null) return { changed: true }
  try {
    return work(thing)
  } finally {
    thing.close()
  }
}

function anchors(source: Source, leaves: Uint32Array): PatchResult {
  const bytes = new Uint8Array(leaves.length * ROLLING_BYTES)
  const head = new Uint8Array(ANCHOR_BYTES)
  for (const [number, leaf] of leaves.entries()) {
    if (source.read(leaf * LEAF_BYTES, head) !== ANCHOR_BYTES) return { changed: true }
    anchorOf(head, bytes, number * ROLLING_BYTES)
  }
  return { bytes }
}

function fill(
  task: Extract<PatchTask, { is: 'copy' | 'search' | 'assemble' }>,
  source: Source,
  slot: Slot,
): PatchResult {
  const leaves: number[] = []
  const places: number[] = []
  const put = (leaf: number, place: number, bytes: Uint8Array) => {
    if (!slot.write(leaf * LEAF_BYTES, bytes)) return
    leaves.push(leaf)
    places.push(place)
  }
  switch (task.is) {
    case 'copy':
      copy(task, source, put)
      break
    case 'search':
      findShifted(source, task, task, put)
      break
    case 'assemble': {
      const base = readParts(source, task.parts)
      if (!base) return { changed: true }
      assemble(task, base, put)
      break
    }
    default:
      task satisfies never
  }
  return { leaves: Uint32Array.from(leaves), places: Float64Array.from(places) }
}

type Put = (leaf: number, place: number, bytes: Uint8Array) => void

function copy(task: Extract<PatchTask, { is: 'copy' }>, source: Source, put: Put): void {
  const buffer = new Uint8Array(LEAF_BYTES)
  for (const [number, leaf] of task.leaves.entries()) {
    const place = task.places[number] as number
    const bytes = buffer.subarray(0, leafBytes(task.size, leaf))
    if (source.read(place, bytes) === bytes.length && verifyLeaf(task.hashes, number, bytes)) put(leaf, place, bytes)
  }
}

function assemble(task: Extract<PatchTask, { is: 'assemble' }>, base: Uint8Array, put: Put): void {
  const lengths = Array.from(task.leaves, leaf => leafBytes(task.size, leaf))
  const length = lengths.reduce((sum, one) => sum + one, 0)
  const target = applyDelta(base, task.delta, task.block, length)
  let at = 0
  for (const [number, leaf] of task.leaves.entries()) {
    const bytes = target.subarray(at, at + (lengths[number] as number))
    at += bytes.length
    if (verifyLeaf(task.hashes, number, bytes)) put(leaf, -1, bytes)
  }
}

function readParts(source: Source, parts: readonly FilePart[]): Uint8Array | null {
  const read = parts.map(({ start, end }) => readExactly(source, start, end - start))
  return read.every(part => part !== null) ? Buffer.concat(read) : null
}

function readExactly(source: Source, offset: number, length: number): Uint8Array | null {
  if (length <= 0) return null
  const bytes = new Uint8Array(length)
  return source.read(offset, bytes) === length ? bytes : null
}

/** Wanted leaves, picked out of a blob's whole tree. */
export function pickLeaves(leaves: Uint32Array, tree: Uint8Array): Pick<WantedLeaves, 'leaves' | 'hashes'> {
  const hashes = new Uint8Array(leaves.length * HASH_BYTES)
  for (const [number, leaf] of leaves.entries())
    hashes.set(tree.subarray(leaf * HASH_BYTES, (leaf + 1) * HASH_BYTES), number * HASH_BYTES)
  return { leaves, hashes }
}
