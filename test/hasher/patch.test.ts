/** The tasks of delta transfers in the pool's threads, on real files. */
import { linkSync, readFileSync, renameSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { hashLeaves } from '../../actors/hasher/merkle.ts'
import { pickLeaves } from '../../actors/hasher/patch.ts'
import { createHasherPool, type HasherPool } from '../../actors/hasher/pool.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import type { FileRef, PatchResult, PatchTask, SlotRef, WantedLeaves } from '../../protocol/ports.ts'
import { temporaryFolder } from '../_temp.ts'
import { noise } from './_random.ts'

interface Stage {
  pool: HasherPool
  older: Uint8Array
  newer: Uint8Array
  olderFile: FileRef
  newerFile: FileRef
  slotPath: string
  slot: SlotRef
  wanted(...leaves: number[]): WantedLeaves
  written(leaf: number): boolean
}

function refTo(path: string): FileRef {
  const { size, mtimeNs, ino } = statSync(path, { bigint: true })
  return { path, size: Number(size), mtimeNs, ino }
}

/** An older file of four leaves, a newer one with 17 bytes more at its head, and a slot for that. */
function stage(t: ExecutionContext): Stage {
  const folder = temporaryFolder(t)
  const pool = createHasherPool(1)
  t.teardown(() => pool.close())
  const older = noise(4 * LEAF_BYTES, 1)
  const newer = Uint8Array.from(Buffer.concat([noise(17, 2), older]))
  const slotPath = join(folder, 'slot')
  writeFileSync(join(folder, 'older'), older)
  writeFileSync(join(folder, 'newer'), newer)
  writeFileSync(slotPath, new Uint8Array(newer.length))
  const slot = { path: slotPath, ino: statSync(slotPath, { bigint: true }).ino }
  return {
    pool,
    older,
    newer,
    olderFile: refTo(join(folder, 'older')),
    newerFile: refTo(join(folder, 'newer')),
    slotPath,
    slot,
    wanted: (...leaves) => ({ slot, size: newer.length, ...pickLeaves(Uint32Array.from(leaves), hashLeaves(newer)) }),
    written: leaf => {
      const part = (bytes: Uint8Array) => bytes.subarray(leaf * LEAF_BYTES, (leaf + 1) * LEAF_BYTES)
      return Buffer.compare(part(readFileSync(slotPath)), part(newer)) === 0
    },
  }
}

function bytesOf(result: PatchResult): Uint8Array {
  if (!('bytes' in result)) throw new Error(JSON.stringify(result))
  return result.bytes
}

function leavesOf(result: PatchResult): number[] {
  if (!('leaves' in result)) throw new Error(JSON.stringify(result))
  return [...result.leaves]
}

test('a newer file is put together from an older one by the tasks of both ends', async t => {
  const { pool, olderFile, newerFile, wanted, written, newer, slotPath } = stage(t)
  const anchors = bytesOf(await pool.patch({ is: 'anchors', file: newerFile, leaves: Uint32Array.of(0, 1, 2, 3) }))
  const search: PatchTask = {
    is: 'search',
    base: olderFile,
    start: 0,
    end: olderFile.size,
    anchors,
    overlapping: false,
    ...wanted(0, 1, 2, 3),
  }
  const found = await pool.patch(search)
  t.deepEqual(leavesOf(found), [1, 2, 3])
  t.deepEqual(
    'places' in found && [...found.places],
    [1, 2, 3].map(leaf => leaf * LEAF_BYTES - 17),
  )

  const parts = [{ start: 0, end: 2 * LEAF_BYTES }]
  const signature = bytesOf(await pool.patch({ is: 'sign', base: olderFile, parts, block: 512 }))
  const delta = bytesOf(await pool.patch({ is: 'delta', file: newerFile, from: 0, count: 1, block: 512, signature }))
  t.true(delta.length < 1_100)
  t.deepEqual(
    leavesOf(await pool.patch({ is: 'assemble', base: olderFile, parts, block: 512, delta, ...wanted(0) })),
    [0],
  )
  t.deepEqual(
    [0, 1, 2, 3].map(leaf => written(leaf)),
    [true, true, true, true],
  )
  const tail = { is: 'copy', base: olderFile, places: Float64Array.of(4 * LEAF_BYTES - 17), ...wanted(4) } as const
  t.deepEqual(leavesOf(await pool.patch(tail)), [4])
  t.is(Buffer.compare(readFileSync(slotPath), newer), 0)
})

test('nothing is written that does not fit its hash, and a delta that is none is a failure', async t => {
  const { pool, olderFile, wanted, slotPath, newer } = stage(t)
  const wrong = { is: 'copy', base: olderFile, places: Float64Array.of(0, LEAF_BYTES), ...wanted(0, 1) } as const
  t.deepEqual(leavesOf(await pool.patch(wrong)), [])
  const parts = [{ start: 0, end: LEAF_BYTES }]
  const delta = Buffer.alloc(8)
  delta.writeUInt32LE(0xffff, 0)
  const result = await pool.patch({ is: 'assemble', base: olderFile, parts, block: 512, delta, ...wanted(0) })
  t.like(result, { failure: { code: 'message_invalid' } })
  t.is(Buffer.compare(readFileSync(slotPath), new Uint8Array(newer.length)), 0)
})

test('a slot that has its place in the tree, has two names or became a link is not written', async t => {
  const { pool, olderFile, wanted, slotPath, newer } = stage(t)
  const anywhere: PatchTask = {
    is: 'copy',
    base: olderFile,
    places: Float64Array.of(LEAF_BYTES - 17),
    ...wanted(1),
  }
  const placed = `${slotPath}-placed`
  linkSync(slotPath, placed)
  t.deepEqual(await pool.patch(anywhere), { changed: true })
  renameSync(slotPath, `${slotPath}-former`)
  t.deepEqual(await pool.patch(anywhere), { changed: true })
  symlinkSync(placed, slotPath)
  t.deepEqual(await pool.patch(anywhere), { changed: true })
  t.is(Buffer.compare(readFileSync(placed), new Uint8Array(newer.length)), 0)
})

test('an older file that is not what it was is changed, and one that cannot be read to the end too', async t => {
  const { pool, olderFile, newerFile, wanted } = stage(t)
  const copy = (base: FileRef): PatchTask => ({
    is: 'copy',
    base,
    places: Float64Array.of(LEAF_BYTES - 17),
    ...wanted(1),
  })
  t.deepEqual(await pool.patch(copy({ ...olderFile, mtimeNs: 1n })), { changed: true })
  t.deepEqual(await pool.patch(copy({ ...olderFile, ino: 1n })), { changed: true })
  t.deepEqual(await pool.patch(copy({ ...olderFile, path: `${olderFile.path}-none` })), { changed: true })
  const parts = [{ start: LEAF_BYTES, end: 5 * LEAF_BYTES }]
  t.deepEqual(await pool.patch({ is: 'sign', base: olderFile, parts, block: 512 }), { changed: true })
  t.deepEqual(await pool.patch({ is: 'anchors', file: newerFile, leaves: Uint32Array.of(4) }), { changed: true })
  t.deepEqual(leavesOf(await pool.patch(copy(olderFile))), [1])
})
