/**
 * Which file is which, for files that come and go between unreal and real: id and inode number of an unreal file, and that a real
 * one goes on being what it was while it was unreal. Pure.
 *
 * New content of an unreal file is another file, as if it had been replaced on a disk: whoever has the former one open goes on
 * with it, and the kernel never mixes the two in its cache. What is forgotten here gets another id, and the kernel looks again.
 */
import { createHash } from 'node:crypto'
import type { UnrealFile } from '../../protocol/ports.ts'
import { RecentMap } from './recent-map.ts'
import type { SourceEntry } from './view-source.ts'

/** Unreal files, and real ones that were unreal, whose ids are remembered: half as many for certain. */
export const IDENTITIES_MAX = 200_000

const TYPE_MASK = 0o170000
const TYPE_FILE = 0o100000
/** Inode numbers stay below 2^52, which programs in every language can hold. Those of unreal files have this bit. */
const UNREAL_BIT = 1n << 51n
/** Where an arena's number stands in those of its real files: above what common file systems give out. */
const ARENA_SHIFT = 36n
const ARENA_MASK = (1n << 15n) - 1n

export interface Identity {
  readonly id: string
  readonly ino: bigint
}

interface Unreal extends Identity {
  readonly hash: string
  size: number
  mtimeNs: bigint
}

export class Identities {
  readonly #arena: string
  readonly #salt: bigint
  /** By path. */
  readonly #unreal: RecentMap<string, Unreal>
  /** By the id of the real file. */
  readonly #real: RecentMap<string, Identity>
  #next = 0

  /** @param arena its name: two arenas on two disks may have the same inode numbers */
  constructor(arena: string, max = IDENTITIES_MAX) {
    this.#arena = arena
    this.#salt = (number(arena) & ARENA_MASK) << ARENA_SHIFT
    this.#unreal = new RecentMap(max)
    this.#real = new RecentMap(max)
  }

  /** Of an unreal file at a path: the same each time until its content changes. */
  unreal(path: string, file: UnrealFile): Identity {
    const known = this.#unreal.get(path)
    if (known?.hash === file.hash) {
      known.size = file.size
      known.mtimeNs = file.mtimeNs
      return known
    }
    const ino = UNREAL_BIT | (number(`${this.#arena}/${path}\0${file.hash}`) & (UNREAL_BIT - 1n))
    const { hash, size, mtimeNs } = file
    const made = { id: `unreal:${this.#arena}:${++this.#next}`, ino, hash, size, mtimeNs }
    this.#unreal.set(path, made)
    return made
  }

  /** What a disk says of a real file, as the view shows it. A file that comes with an unreal one's size and mtime is that one. */
  real(path: string, entry: SourceEntry): SourceEntry {
    const { attributes } = entry
    const former = this.#unreal.get(path)
    const id = this.#real.get(entry.id)?.id ?? entry.id
    if (former !== undefined && former.id !== id && looksLike(entry, former)) this.became(path, entry.id)
    const known = this.#real.get(entry.id)
    if (known !== undefined) return { ...entry, id: known.id, attributes: { ...attributes, ino: known.ino } }
    return { ...entry, attributes: { ...attributes, ino: attributes.ino ^ this.#salt } }
  }

  /** A real file is about to be given up, or was just now: as an unreal one it stays what it is. `entry`: as the view shows it. */
  leaves(path: string, file: UnrealFile, entry: SourceEntry): void {
    if (!looksLike(entry, file)) return
    const { hash, size, mtimeNs } = file
    const left = { id: entry.id, ino: entry.attributes.ino, hash, size, mtimeNs }
    this.#unreal.set(path, left)
  }

  /** The unreal file at a path is this real one from now on. */
  became(path: string, realId: string): void {
    const former = this.#unreal.get(path)
    if (former === undefined) return
    this.#unreal.delete(path)
    this.#real.set(realId, former)
  }

  /** An unreal file has another path; what was there is gone. */
  moved(from: string, to: string): void {
    const moving = this.#unreal.get(from)
    this.#unreal.delete(from)
    this.#unreal.delete(to)
    if (moving !== undefined) this.#unreal.set(to, moving)
  }

  /** The same for all unreal files below a folder. */
  movedBelow(from: string, to: string): void {
    for (const path of this.#unreal.keys()) {
      if (path.startsWith(`${from}/`)) this.moved(path, `${to}${path.slice(from.length)}`)
    }
  }

  /** The unreal file at a path is gone. */
  forget(path: string): void {
    this.#unreal.delete(path)
  }
}

/** Whether a real file can be what an unreal one was: it would come with its size and mtime. */
function looksLike({ attributes }: SourceEntry, { size, mtimeNs }: Pick<UnrealFile, 'size' | 'mtimeNs'>): boolean {
  const isFile = (attributes.mode & TYPE_MASK) === TYPE_FILE
  return isFile && attributes.size === size && attributes.mtimeNs === mtimeNs
}

/** 64 bits of a text's hash. */
function number(text: string): bigint {
  return createHash('sha256').update(text).digest().readBigUInt64BE()
}
