/** What the disks have in common and decide alike, without I/O. */
import { DiskError, type DiskStat, type PlaceResult } from './disk.ts'

/** Folders in our own folder, by what they hold. */
export const STAGING = 'staging'
export const VERSIONS = 'versions'
export const MARKER = 'marker'
export const MARKER_BYTES_MAX = 4096
/** `Disk.read` is for small files: more is EFBIG, before anything is allocated. */
export const READ_BYTES_MAX = 64 * 1024 * 1024

/** Whether what is there is what somebody saw before: of a folder its inode alone, as its mtime is its content's. */
export function isExpected(found: DiskStat | null, expected: DiskStat): boolean {
  if (found === null || found.type !== expected.type || found.ino !== expected.ino) return false
  return expected.type === 'dir' || (found.size === expected.size && found.mtimeNs === expected.mtimeNs)
}

/**
 * The same before anything is changed: then also the ctime, which no program can set back. (What we move gets a new one.) An expectation
 * without a ctime does not ask for it.
 */
export function isUntouched(found: DiskStat | null, expected: DiskStat): boolean {
  if (!isExpected(found, expected)) return false
  return expected.type === 'dir' || expected.ctimeNs === 0n || found?.ctimeNs === expected.ctimeNs
}

/** Permission bits with execute bits where the read bits are, or without any. */
export function withExec(mode: number, exec: boolean): number {
  return exec ? mode | ((mode & 0o444) >> 2) : mode & ~0o111
}

/** Mode of a new file, before the umask. */
export function newMode(exec: boolean): number {
  return exec ? 0o777 : 0o666
}

/** Refuses what is no regular file, before or after it was opened. */
export function demandFile(stat: DiskStat, path: string): void {
  switch (stat.type) {
    case 'file':
      return
    case 'dir':
      throw new DiskError('EISDIR', `EISDIR: '${path}' is a folder`)
    case 'symlink':
      throw new DiskError('ELOOP', `ELOOP: '${path}' is a symlink`)
    case 'other':
      throw new DiskError('EINVAL', `EINVAL: '${path}' is not a regular file`)
    default:
      stat.type satisfies never
  }
}

/** A folder cannot be exchanged with a slot or taken out: its content would go with it. */
export function refuseFolder(expected: DiskStat, path: string): void {
  if (expected.type === 'dir') throw new DiskError('EISDIR', `EISDIR: '${path}' is a folder`)
}

/** Slots and kept names are ours, flat and plain; anything else is a mistake in the program. */
export function checkOwnName(name: string): void {
  if (!/^[a-z0-9.-]{1,255}$/.test(name) || name === '.' || name === '..')
    throw new RangeError(`'${name}' is not a name in our own folder`)
}

/** Where content is kept that a race with a user left without a place: the version store, named after the file. */
export function strayName(stat: DiskStat): string {
  return `stray-${stat.ino}-${BigInt.asUintN(64, stat.mtimeNs)}`
}

/**
 * Disk primitives that the steps below are made of. A name is looked at, never followed. `back` exchanges or moves again in
 * the other direction.
 */
export interface ExchangeSteps {
  /** What is in the slot now. */
  slot(): DiskStat | null
  /** Exchanges slot and path in one step; false if the path is gone. */
  exchange(): boolean
  /** Saves what is in the slot into the version store. */
  stray(): void
}

/**
 * Exchanges a slot with a path and looks at what came out; puts it back if it was not expected. A user can replace
 * the file between the two exchanges as well: then the newest goes back to its place, and what it replaced is
 * kept in the version store. The staged content is lost in that case and ESTALE says so.
 */
export function exchangeExpected(expected: DiskStat, path: string, steps: ExchangeSteps): PlaceResult {
  const staged = steps.slot()
  if (staged === null) throw new DiskError('ENOENT', `ENOENT: nothing is staged for '${path}'`)
  if (!steps.exchange()) return 'unexpected'
  if (isExpected(steps.slot(), expected)) return 'placed'
  // Not by its inode alone: a user's new file may have got that of the staged one, which it replaced.
  if (steps.exchange() && isExpected(steps.slot(), staged)) return 'unexpected'
  // What was ours is gone from the path. If something newer came out of it, that goes back.
  if (steps.slot() !== null) {
    steps.exchange()
    steps.stray()
  }
  throw new DiskError('ESTALE', `ESTALE: '${path}' was replaced twice meanwhile`)
}
