/**
 * All arenas as one source: each is a folder at the top, under its name. What is in it is the arena's own (arena-folder.ts); nothing
 * can be made beside the arenas, and between two of them files are copied, as between two disks.
 */
import type { MessagePort } from 'node:worker_threads'
import type { ArenaName } from '../../protocol/ids.ts'
import { ArenaFolder } from './arena-folder.ts'
import type { Attributes, Space } from './fuse-reply.ts'
import {
  type Answer,
  type Changes,
  type OpenFile,
  type OpenFolder,
  type OpenHow,
  type OpenNode,
  type Owner,
  type SourceChange,
  type SourceEntry,
  ViewError,
  type ViewSource,
} from './view-source.ts'

const FOLDER_MODE = 0o040555
const TOP_INO = 1n
/** Of an arena's folder while nothing is known of it. */
const STILL_INO = 2n

interface Place {
  arena: ArenaFolder
  /** Path in it; '' for its folder. */
  path: string
}

export class ArenasSource implements ViewSource {
  /** As of a plain folder: what other programs do on the disk below is seen when the kernel asks again. */
  readonly validMs = 1000
  /** The supervisor sees to it that no mount is inside an arena's root. */
  readonly root = null
  readonly #arenas = new Map<string, ArenaFolder>()
  readonly #listeners = new Set<(change: SourceChange) => void>()
  #changedNs = BigInt(Date.now()) * 1_000_000n

  /** Shows exactly these arenas. */
  setArenas(names: readonly ArenaName[]): void {
    const wanted = new Set<string>(names)
    for (const [name, arena] of this.#arenas) {
      if (wanted.has(name)) continue
      this.#arenas.delete(name)
      arena.close()
      this.#topChanged(name)
    }
    for (const name of names) {
      if (this.#arenas.has(name)) continue
      this.#arenas.set(name, new ArenaFolder(name, { replaced: path => this.#replaced(`${name}/${path}`) }))
      this.#topChanged(name)
    }
  }

  /** The arena's thread runs (again), and is spoken to over this port. */
  attach(name: ArenaName, port: MessagePort): void {
    const arena = this.#arenas.get(name)
    if (arena === undefined) return port.close()
    arena.attach(port)
  }

  #topChanged(name: string): void {
    this.#changedNs = BigInt(Date.now()) * 1_000_000n
    this.#replaced(name)
  }

  #replaced(path: string): void {
    for (const listener of this.#listeners) listener({ kind: 'replaced', path })
  }

  lookup(path: string): Answer<SourceEntry> {
    if (path === '') return this.#top()
    return this.#in(path, (arena, rest) => arena.lookup(rest))
  }

  #top(): SourceEntry {
    return { id: 'arenas', attributes: attributesOf(TOP_INO, this.#arenas.size, this.#changedNs), version: null }
  }

  openFolder(path: string): Answer<OpenFolder> {
    if (path !== '') return this.#in(path, (arena, rest) => arena.openFolder(rest))
    return {
      entry: this.#top(),
      descriptor: null,
      look: () => this.#top(),
      names: () => [...this.#arenas.keys()].sort(),
      child: name => {
        const arena = this.#arenas.get(name)
        if (arena === undefined) return null
        // Listing the top waits for no arena.
        try {
          if (arena.ready) return arena.lookup('')
        } catch {
          // Its root is just going: the arena will say so.
        }
        return { id: `arena:${name}`, attributes: attributesOf(STILL_INO, 0, this.#changedNs), version: null }
      },
      sync: () => {},
      close: () => {},
    }
  }

  readLink(path: string): Answer<string> {
    return this.#in(path, (arena, rest) => arena.readLink(rest))
  }

  open(path: string, how: OpenHow, signal: AbortSignal): Answer<OpenFile> {
    return this.#in(path, (arena, rest) => arena.open(rest, how, signal))
  }

  create(path: string, how: OpenHow & { exclusive: boolean }, mode: number, owner: Owner): Answer<OpenFile> {
    return this.#inside(path, (arena, rest) => arena.create(rest, how, mode, owner))
  }

  makeFolder(path: string, mode: number, owner: Owner): Answer<SourceEntry> {
    return this.#inside(path, (arena, rest) => arena.makeFolder(rest, mode, owner))
  }

  makeSymlink(path: string, target: string, owner: Owner): Answer<SourceEntry> {
    return this.#inside(path, (arena, rest) => arena.makeSymlink(rest, target, owner))
  }

  makeNode(path: string, mode: number, owner: Owner): Answer<SourceEntry> {
    return this.#inside(path, (arena, rest) => arena.makeNode(rest, mode, owner))
  }

  link(from: string, to: string): Answer<SourceEntry> {
    return this.#between(from, to, (arena, rest, toRest) => arena.link(rest, toRest))
  }

  remove(path: string): Answer<void> {
    return this.#inside(path, (arena, rest) => arena.remove(rest))
  }

  removeFolder(path: string): Answer<void> {
    return this.#inside(path, (arena, rest) => arena.removeFolder(rest))
  }

  rename(from: string, to: string, how: 'replace' | 'keep' | 'exchange', renamed?: () => void): Answer<void> {
    return this.#between(from, to, (arena, rest, toRest) => arena.rename(rest, toRest, how, renamed))
  }

  change(path: string | null, open: OpenNode | null, changes: Changes): Answer<SourceEntry> {
    if (path === '') throw new ViewError('EPERM', 'the folder of all arenas')
    if (path !== null) return this.#in(path, (arena, rest) => arena.change(rest, open, changes))
    // A file that has no name any more is changed by its descriptor, whatever arena it was in.
    for (const arena of this.#arenas.values()) if (arena.ready) return arena.change(null, open, changes)
    throw new ViewError('ESTALE', 'a file that is gone')
  }

  getAttribute(path: string, name: string): Answer<Uint8Array> {
    if (path === '') throw new ViewError('ENODATA', 'no such attribute')
    return this.#in(path, (arena, rest) => arena.getAttribute(rest, name))
  }

  setAttribute(path: string, name: string, value: Uint8Array, mode: 'set' | 'create' | 'replace'): Answer<void> {
    return this.#inside(path, (arena, rest) => arena.setAttribute(rest, name, value, mode))
  }

  listAttributes(path: string): Answer<string[]> {
    if (path === '') return []
    return this.#in(path, (arena, rest) => arena.listAttributes(rest))
  }

  removeAttribute(path: string, name: string): Answer<void> {
    return this.#inside(path, (arena, rest) => arena.removeAttribute(rest, name))
  }

  /** That of all file systems that the arenas are on, each once. */
  space(): Space {
    const sum: Space = { blockBytes: 4096, blocks: 0, blocksFree: 0, blocksAvailable: 0, files: 0, filesFree: 0 }
    const seen = new Set<string>()
    for (const arena of this.#arenas.values()) {
      if (!arena.ready) continue
      const { device, space } = arena.space()
      if (seen.has(device)) continue
      seen.add(device)
      const blocks = space.blockBytes / sum.blockBytes
      sum.blocks += Math.floor(space.blocks * blocks)
      sum.blocksFree += Math.floor(space.blocksFree * blocks)
      sum.blocksAvailable += Math.floor(space.blocksAvailable * blocks)
      sum.files += space.files
      sum.filesFree += space.filesFree
    }
    return sum
  }

  subscribe(listener: (change: SourceChange) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  close(): void {
    for (const arena of this.#arenas.values()) arena.close()
    this.#arenas.clear()
  }

  #place(path: string): Place {
    const slash = path.indexOf('/')
    const name = slash < 0 ? path : path.slice(0, slash)
    const arena = this.#arenas.get(name)
    if (arena === undefined) throw new ViewError('ENOENT', `there is no arena '${name}'`)
    return { arena, path: slash < 0 ? '' : path.slice(slash + 1) }
  }

  /** Does something in the arena that a path leads to, once its folder can be used. */
  #in<Result>(path: string, action: (arena: ArenaFolder, path: string) => Answer<Result>): Answer<Result> {
    const place = this.#place(path)
    if (place.arena.ready) return action(place.arena, place.path)
    return place.arena.whenReady().then(() => action(place.arena, place.path))
  }

  /** The same where the arena's folder itself must stay as it is, and nothing can be made beside it. */
  #inside<Result>(path: string, action: (arena: ArenaFolder, path: string) => Answer<Result>): Answer<Result> {
    if (!path.includes('/')) throw new ViewError('EPERM', 'arenas are added and removed with `realize arena`')
    return this.#in(path, action)
  }

  #between<Result>(
    from: string,
    to: string,
    action: (arena: ArenaFolder, from: string, to: string) => Answer<Result>,
  ): Answer<Result> {
    if (!to.includes('/')) throw new ViewError('EPERM', 'arenas are added and removed with `realize arena`')
    return this.#inside(from, (arena, rest) => {
      const target = this.#place(to)
      if (target.arena !== arena) throw new ViewError('EXDEV', 'another arena')
      return action(arena, rest, target.path)
    })
  }
}

/** Of a folder that is on no disk. */
function attributesOf(ino: bigint, folders: number, changedNs: bigint): Attributes {
  return {
    ino,
    size: 0,
    blocks: 0,
    atimeNs: changedNs,
    mtimeNs: changedNs,
    ctimeNs: changedNs,
    mode: FOLDER_MODE,
    links: 2 + folders,
    uid: process.geteuid?.() ?? 0,
    gid: process.getegid?.() ?? 0,
    rdev: 0,
  }
}
