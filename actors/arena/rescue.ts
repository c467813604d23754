/**
 * What lies beside the tree without anybody knowing whose it is, after a power loss or with a store that was rolled back: it may be the
 * last of its content, and is listed as versions, from which it can be taken again.
 */
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import { hashLeaves, hashSmall, rootOf } from '../hasher/merkle.ts'
import type { ArenaContext } from './context.ts'
import type { DiskStat } from './disk.ts'
import { BIG_SLOT, blobOfSlot } from './fetch.ts'
import type { Kept } from './store.ts'
import type { Version } from './version.ts'
import type { VersionStore } from './versions.ts'

/** Versions whose path is not known any more are listed under this one. */
const LOST_AND_FOUND = 'lost+found' as EntryPath
/** After a power loss content of unknown origin is hashed up to this size; larger is kept unseen. */
export const RESCUE_BYTES_MAX = 64 * 1024 * 1024
/** And content whose name says what it is to become, up to this one, in such pieces; larger is taken for a part. */
const WHOLE_BYTES_MAX = 1024 * 1024 * 1024
const PIECE_LEAVES = 64

/** A step of which the store has forgotten that it was begun may have left a user's content in staging, and what had come from a peer there. */
export function rescueStaged(context: ArenaContext, versions: VersionStore): void {
  const { disk } = context
  const rows: Kept[] = []
  for (const slot of disk.stageList()) {
    const stat = disk.stageStat(slot)
    if (stat === null || stat.size === 0 || (stat.type !== 'file' && stat.type !== 'symlink')) continue
    const blob = blobOfSlot(slot)
    let hash: BlobHash | null = null
    if (blob !== null && isWhole(context, slot, stat, blob)) hash = blob
    else if (slot.startsWith(BIG_SLOT)) continue
    else if (stat.type === 'file' && stat.size <= RESCUE_BYTES_MAX) hash = hashSmall(disk.stageRead(slot, 0, stat.size))
    const row = strayRow(context, versions, hash, stat)
    disk.keep(slot, row.id)
    rows.push(row)
  }
  list(context, versions, rows)
}

/** Versions without a row: their store was lost or rolled back. They are listed again, without their path. */
export function listForgotten(context: ArenaContext, versions: VersionStore): void {
  const { disk, store } = context
  const listed = new Set(store.kept(null, Number.MAX_SAFE_INTEGER).map(kept => kept.id))
  const forgotten = disk.keptList().filter(id => !listed.has(id))
  const rows = forgotten.flatMap(id => {
    const stat = disk.keptStat(id)
    return stat === null ? [] : [{ ...strayRow(context, versions, null, stat), id }]
  })
  list(context, versions, rows)
}

function list({ store }: ArenaContext, versions: VersionStore, rows: readonly Kept[]): void {
  if (rows.length === 0) return
  store.transact(writer => {
    for (const row of rows) versions.add(writer, row)
  })
}

function strayRow(
  { store, settings }: ArenaContext,
  versions: VersionStore,
  hash: BlobHash | null,
  { size, mtimeNs, exec }: DiskStat,
): Kept {
  const nobody: Version = { content: { type: 'gone', deleted: null }, vector: [], g: 0, author: settings.author }
  const path = (hash === null ? undefined : store.withHash(hash, 1)[0]) ?? LOST_AND_FOUND
  return { ...versions.row(path, nobody), hash, size, mtimeNs, exec }
}

/** Whether all of a big blob has come: nobody may know any more that it was wanted. */
function isWhole({ disk }: ArenaContext, slot: string, { type, size }: DiskStat, hash: BlobHash): boolean {
  if (type !== 'file' || size > WHOLE_BYTES_MAX) return false
  const leaves: Uint8Array[] = []
  const piece = PIECE_LEAVES * LEAF_BYTES
  for (let offset = 0; offset < size; offset += piece) {
    leaves.push(hashLeaves(disk.stageRead(slot, offset, Math.min(piece, size - offset))))
  }
  return rootOf(size, Buffer.concat(leaves)) === hash
}
