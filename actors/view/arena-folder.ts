/**
 * One arena as a view shows it: what is on its disk, and the files that are known and not there, as one tree.
 *
 * Folders, symlinks and real files are served from the arena's root by the plain folder source; the arena learns of changes by its
 * watcher, and is told at once besides. What is not on the disk is looked for among the unreal files, of which the arena tells. The
 * disk is asked first: what it shows is always the file that a program would find there. A change of an unreal file is made by the
 * arena, in its thread; what needs the file itself – writing into it, linking it – makes it real first.
 */
import type { MessagePort } from 'node:worker_threads'
import type { Mark } from '../../protocol/control.ts'
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { isOwn } from '../../protocol/path.ts'
import type {
  OpenedByView,
  PathFacts,
  UnrealFile,
  UnrealNames,
  ViewChange,
  ViewQuestion,
} from '../../protocol/ports.ts'
import { ArenaLink } from './arena-link.ts'
import { openCachedFile } from './cached-file.ts'
import { FolderSource } from './folder-source.ts'
import type { Attributes, Space } from './fuse-reply.ts'
import { Identities } from './identities.ts'
import { closeKept, kept } from './kept.ts'
import { PartialCopy } from './partial-copy.ts'
import { ReadAhead } from './read-ahead.ts'
import { UnrealFiles } from './unreal-files.ts'
import {
  type Answer,
  type Changes,
  type OpenFile,
  type OpenFolder,
  type OpenHow,
  type OpenNode,
  type Owner,
  type SourceEntry,
  ViewError,
} from './view-source.ts'

/** How long a program waits for an arena that is being started. */
const ATTACH_MS = 30_000
/** How long names of unreal files are believed: the arena tells when they change. */
const UNREAL_VALID_MS = 30_000
/** Changes on the disk are told together. */
const TOLD_MS = 10
/** How often something is begun again because a file came or went in that very moment. */
const TRIES_MAX = 5
/** Of the paths told at once: beyond, the watcher tells them. */
const TOUCHED_MAX = 10_000
/** The first letters of the extended attributes that tell of a path. */
export const FACTS = 'user.realize.'
/** The one of them that is also set, and taken away. */
const MARK = `${FACTS}mark`

const TYPE_MASK = 0o170000
const TYPE_FILE = 0o100000
const TYPE_FOLDER = 0o040000
const EXECUTE_BITS = 0o111

const umask = process.umask()
const ours: Owner = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }

export interface ArenaFolderEvents {
  /** Something else may be at this path of the arena. */
  replaced(path: string): void
}

export class ArenaFolder {
  readonly name: string
  readonly #events: ArenaFolderEvents
  readonly #files = new UnrealFiles()
  readonly #identities: Identities
  readonly #ahead = new ReadAhead()
  readonly #touched = new Set<EntryPath>()
  #touching: NodeJS.Timeout | null = null
  #link: ArenaLink | null = null
  #folder: FolderSource | null = null
  /** Why there is no folder, once the arena has said so. */
  #reason: string | null = null
  readonly #waiting = new Set<() => void>()
  #closed = false

  constructor(name: string, events: ArenaFolderEvents) {
    this.name = name
    this.#events = events
    this.#identities = new Identities(name)
  }

  /** The arena's thread runs, or runs again. */
  attach(port: MessagePort): void {
    this.#link?.close()
    const link: ArenaLink = new ArenaLink(port, {
      root: (root, reason) => this.#rooted(root, reason),
      changed: changes => this.#changed(changes),
      gone: () => {
        if (this.#link === link) this.#link = null
      },
    })
    this.#link = link
    for (const is of this.#open) link.tell({ type: 'opened', is })
    for (const { folder } of this.#moves) link.tell({ type: 'moving', folder })
    this.#forgetFiles()
  }

  close(): void {
    this.#closed = true
    if (this.#touching) clearTimeout(this.#touching)
    this.#link?.close()
    this.#link = null
    this.#folder?.close()
    this.#folder = null
    this.#wake()
  }

  /** The root can be used now. */
  get ready(): boolean {
    return this.#folder !== null
  }

  /** Resolves once the root can be used. Rejects with EIO if it is not there, or the arena does not come. */
  async whenReady(): Promise<void> {
    const endMs = performance.now() + ATTACH_MS
    while (this.#folder === null) await this.#change(endMs)
  }

  #rooted(root: string | null, reason: string | null): void {
    this.#folder?.close()
    this.#folder = null
    this.#reason = reason
    try {
      if (root !== null) this.#folder = new FolderSource(root, 1000)
    } catch (error) {
      this.#reason = error instanceof Error ? error.message : String(error)
    }
    this.#wake()
  }

  #wake(): void {
    for (const wake of this.#waiting) wake()
  }

  /** Waits until something about the arena has changed. */
  async #change(endMs: number): Promise<void> {
    const leftMs = endMs - performance.now()
    if (this.#closed || this.#reason !== null || leftMs <= 0)
      throw new ViewError('EIO', this.#reason ?? `the arena ${this.name} does not run`)
    await new Promise<void>(resolve => {
      const done = () => {
        clearTimeout(timer)
        this.#waiting.delete(done)
        resolve()
      }
      const timer = setTimeout(done, leftMs)
      this.#waiting.add(done)
    })
  }

  // What the source is asked. Paths are relative to the arena's root; '' is the root itself.

  lookup(path: string): Answer<SourceEntry> {
    refuseOwn(path, 'ENOENT')
    const real = this.#real(path)
    if (real !== null) return real
    const unreal = this.#unreal(path)
    return then(unreal, file => {
      // It may have become real while the arena was asked.
      const now = file === null || unreal instanceof Promise ? this.#real(path) : null
      if (now !== null) return now
      return file === null ? missing(path) : this.#entryOf(path, file)
    })
  }

  openFolder(path: string): Answer<OpenFolder> {
    refuseOwn(path, 'ENOENT')
    const opened = this.#root.openFolder(path)
    // Who lists it goes on while it, or a folder above, is renamed.
    const at = { path }
    this.#folders.add(at)
    // Of a folder that is too large to be remembered: what there was when it was listed.
    let large: ReadonlyMap<string, UnrealFile> = new Map()
    const entry = (name: string) => this.#shown(below(at.path, name), opened.child(name) as SourceEntry | null)
    return {
      ...opened,
      entry: this.#mapped(path, opened.entry),
      look: () => then(opened.look(), found => this.#mapped(at.path, found)),
      names: async () => {
        const before = await this.#settledNames(at)
        const real = await opened.names()
        // What has just left the disk was told of; what has just come to it was there before, or is there now.
        this.#link?.drain()
        const { path } = at
        const known = this.#files.names(path)
        const unreal = known ?? (await this.#listed(path))
        if (unreal instanceof Map && this.#files.names(path) === undefined) large = unreal
        const more = before === undefined || known === undefined ? await opened.names() : before
        return allNames(path, [...more, ...real], unreal instanceof Map ? unreal.keys() : unreal)
      },
      child: name => {
        if (at.path === '' && isOwn(name)) return null
        const real = entry(name)
        if (real !== null) return real
        const listed = large.get(name)
        if (listed !== undefined) return { ...this.#entryOf(below(at.path, name), listed), validMs: 0 }
        return then(this.#unreal(below(at.path, name)), file => {
          return file === null ? entry(name) : this.#entryOf(below(at.path, name), file)
        })
      },
      close: () => {
        this.#folders.delete(at)
        opened.close()
      },
    }
  }
  readonly #folders = new Set<{ path: string }>()

  /** Unreal files of a folder as far as they are known here, once what is to follow it has. Undefined: they are not. */
  async #settledNames(at: { path: string }): Promise<string[] | undefined> {
    for (let end = this.#followed(at.path); end !== undefined; end = this.#followed(at.path)) await end
    this.#link?.drain()
    return this.#files.names(at.path)
  }

  /** Whoever lists a folder that was renamed, or one below, lists it under its new name. */
  #foldersMoved(from: string, to: string, exchanged: boolean): void {
    for (const at of this.#folders) {
      const moved = movedPath(at.path, from, to) ?? (exchanged ? movedPath(at.path, to, from) : null)
      if (moved !== null) at.path = moved
    }
  }

  readLink(path: string): string {
    refuseOwn(path, 'ENOENT')
    return this.#root.readLink(path)
  }

  open(path: string, how: OpenHow, signal: AbortSignal): Answer<OpenFile> {
    refuseOwn(path, 'ENOENT')
    // The arena may have been waited for.
    notInterrupted(signal)
    let opened: Answer<OpenFile>
    try {
      opened = this.#root.open(path, how, signal)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
      return this.#openUnreal(path, how, signal)
    }
    if (!(opened instanceof Promise)) return this.#given(path, opened, how)
    return opened.then(
      file => this.#given(path, file, how),
      error => {
        // It was given up while it was waited for.
        if (codeOf(error) !== 'ENOENT') throw error
        return this.#openUnreal(path, how, signal)
      },
    )
  }

  /** After whatever was waited for the program may have gone away, to open it again: then nothing is emptied or made any more. */
  async #openUnreal(path: string, how: OpenHow, signal: AbortSignal | undefined): Promise<OpenFile> {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const file = await this.#unreal(path)
      notInterrupted(signal)
      if (file !== null && !how.write) {
        const opened = await this.#onDemand(path, file, signal)
        // Who began to write it meanwhile did not know of this reader.
        if (this.#looked(path) === null) return opened
        opened.close()
      }
      try {
        const replaced = file !== null && how.write && how.truncate ? file : null
        const made = replaced === null ? null : await this.#begunAnew(path, replaced, how, signal)
        if (made !== null) return made
        if (file !== null && how.write && !how.truncate) await this.#makeReal(path, signal)
        return this.#given(path, await this.#root.open(path, how, signal), how)
      } catch (error) {
        // It has just come, or somebody else puts something in its place.
        const again = file !== null && (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESTALE')
        if (!again) throw error
      }
    }
    throw new ViewError('EBUSY', `'${path}' comes and goes`)
  }

  /** A file that is read where its content is: from the cache's file if all of it is there, else by asking the arena. */
  async #onDemand(path: string, file: UnrealFile, signal: AbortSignal | undefined): Promise<OpenFile> {
    const entry = this.#entryOf(path, file)
    const at = path as EntryPath
    const { hash, size } = file
    const closed = this.#opened({ content: hash, size, path: at })
    const look = () => entry
    try {
      const descriptor = await this.#copyOf(at, hash, size, signal)
      if (descriptor !== null) {
        const close = () => {
          closeKept(descriptor)
          closed()
        }
        return { entry, descriptor, copied: true, look, close }
      }
    } catch (error) {
      closed()
      throw error
    }
    const copy = new PartialCopy()
    const reader = this.#ahead.open(size, async (offset, length, signal) =>
      copy.part(offset, await this.#ask({ type: 'read', path: at, hash, size, offset, length }, signal)),
    )
    return {
      entry,
      descriptor: null,
      look,
      readNow: (offset, into) => {
        const bytes = into.subarray(0, Math.max(0, size - offset))
        return bytes.length === 0 || reader.readNow(offset, bytes) ? bytes.length : null
      },
      read: async (offset, length, signal) => {
        const bytes = new Uint8Array(Math.max(0, Math.min(length, size - offset)))
        if (bytes.length > 0) await reader.read(offset, bytes, signal)
        return bytes
      },
      close: () => {
        reader.close()
        copy.close()
        closed()
      },
    }
  }

  /** A descriptor of the cache's file with all of a content; null: it is not all there, or the arena cannot say. Throws EINTR. */
  async #copyOf(
    path: EntryPath,
    hash: BlobHash,
    size: number,
    signal: AbortSignal | undefined,
  ): Promise<number | null> {
    if (size === 0 || this.#link === null) return null
    try {
      const cached = await this.#link.ask({ type: 'cached', path, hash, size }, signal)
      const descriptor = cached && openCachedFile(cached)
      return descriptor === null ? null : kept(descriptor)
    } catch (error) {
      if (signal?.aborted || codeOf(error) === null) throw error
      return null
    }
  }

  /** An unreal file that is opened to be written from its start: an empty one takes its place. null: something is there by now. */
  async #begunAnew(
    path: string,
    file: UnrealFile,
    how: OpenHow,
    signal: AbortSignal | undefined,
  ): Promise<OpenFile | null> {
    return this.#replacing(path, file, () => {
      notInterrupted(signal)
      try {
        const made = this.#root.createNow(path, { ...how, exclusive: true }, modeOf(file), ours)
        this.#identities.became(path, made.entry.id)
        return this.#given(path, made, how)
      } catch (error) {
        if (codeOf(error) === 'EEXIST') return null
        throw error
      }
    })
  }

  /** Puts something on the disk in place of an unreal file that the user knows; null from `put`: it did not. */
  async #replacing<Result>(path: string, file: UnrealFile, put: () => Result | null): Promise<Result | null> {
    const at = path as EntryPath
    await this.#ask({ type: 'seen', path: at, hash: file.hash })
    let result: Result | null = null
    try {
      result = put()
    } finally {
      if (result === null) this.#link?.tell({ type: 'unseen', path: at })
      else this.#isPlaced(at)
    }
    return result
  }

  /** Something on the disk took the place of an unreal file. What the arena says of the path is out of date until it has heard of it. */
  #isPlaced(path: EntryPath): void {
    this.#noLonger(path)
    if (this.#link === null) return
    const mine = {}
    this.#placed.set(path, mine)
    const heard = () => {
      if (this.#placed.get(path) === mine) this.#placed.delete(path)
    }
    this.#link.ask({ type: 'placed', path }, undefined, heard).catch(heard)
  }
  readonly #placed = new Map<string, object>()

  create(path: string, how: OpenHow & { exclusive: boolean }, mode: number, owner: Owner): Answer<OpenFile> {
    refuseOwn(path, 'EPERM')
    return then(this.#unreal(path), file => {
      // Where something real is, the disk says what comes of it.
      if (file === null || this.#real(path) !== null)
        return then(this.#root.create(path, how, mode, owner), made => this.#given(path, made, how))
      if (how.exclusive) throw new ViewError('EEXIST', `'${path}'`)
      return this.#openUnreal(path, how, undefined).catch(async error => {
        if (codeOf(error) !== 'ENOENT') throw error
        // It went just now.
        return this.#given(path, await this.#root.create(path, how, mode, owner), how)
      })
    })
  }

  makeFolder(path: string, mode: number, owner: Owner): Answer<SourceEntry> {
    return this.#made(path, root => root.makeFolder(path, mode, owner))
  }

  makeSymlink(path: string, target: string, owner: Owner): Answer<SourceEntry> {
    return this.#made(path, root => root.makeSymlink(path, target, owner))
  }

  makeNode(path: string, mode: number, owner: Owner): Answer<SourceEntry> {
    return this.#made(path, root => root.makeNode(path, mode, owner))
  }

  #made(path: string, make: (root: FolderSource) => SourceEntry): Answer<SourceEntry> {
    refuseOwn(path, 'EPERM')
    return then(this.#unreal(path), file => {
      if (file !== null) throw new ViewError('EEXIST', `'${path}'`)
      const entry = this.#mapped(path, make(this.#root))
      this.#tell([path])
      return entry
    })
  }

  async link(from: string, to: string): Promise<SourceEntry> {
    refuseOwn(from, 'ENOENT')
    for (let tries = 1; ; tries++) {
      try {
        if (this.#real(from) === null) await this.#makeReal(from)
        return await this.#made(to, root => root.link(from, to))
      } catch (error) {
        // It may have come, gone or been replaced since it was looked at: linkat(2) fails for a name that leads to another file just then.
        if (codeOf(error) !== 'ENOENT' || tries >= TRIES_MAX) throw error
        if ((this.#real(from) ?? (await this.#unreal(from))) === null) throw error
      }
    }
  }

  remove(path: string): Answer<void> {
    refuseOwn(path, 'ENOENT')
    try {
      this.#root.remove(path)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
      return this.#removeUnreal(path)
    }
    this.#identities.forget(path)
    this.#tell([path])
  }

  async #removeUnreal(path: string): Promise<void> {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const file = await this.#unreal(path)
      if (file === null) {
        // Unless it has become real meanwhile, there is nothing.
        this.#root.remove(path)
        return this.#tell([path])
      }
      try {
        await this.#ask({ type: 'remove', path: path as EntryPath, hash: file.hash })
      } catch (error) {
        if (codeOf(error) !== 'ESTALE') throw error
        continue
      }
      this.#identities.forget(path)
      return
    }
    throw new ViewError('EBUSY', `'${path}' comes and goes`)
  }

  removeFolder(path: string): Answer<void> {
    refuseOwn(path, 'ENOENT')
    return then(this.#unrealNames(path), names => {
      if (names.length > 0 && this.#real(path) !== null) throw new ViewError('ENOTEMPTY', `'${path}'`)
      this.#root.removeFolder(path)
      this.#files.drop(path)
      this.#tell([path])
    })
  }

  /** @param renamed run as soon as the disk shows it under its new name: what is not there may follow yet */
  async rename(
    from: string,
    to: string,
    how: 'replace' | 'keep' | 'exchange',
    renamed: () => void = () => {},
  ): Promise<void> {
    refuseOwn(from, 'ENOENT')
    refuseOwn(to, 'EPERM')
    let failure: unknown = new ViewError('EBUSY', `'${from}' or '${to}' comes and goes`)
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      try {
        if (await this.#renamed(from, to, how, renamed)) return
      } catch (error) {
        // Its content may have been given up since it was looked at, or somebody else puts something in the other's place.
        const code = codeOf(error)
        if (code !== 'ENOENT' && code !== 'ESTALE') throw error
        if (code === 'ENOENT' && (this.#real(from) ?? (await this.#unreal(from))) === null) throw error
        failure = error
      }
    }
    throw failure
  }

  /** False: something has come or gone meanwhile; to be tried again. */
  async #renamed(
    from: string,
    to: string,
    how: 'replace' | 'keep' | 'exchange',
    renamed: () => void,
  ): Promise<boolean> {
    for (const path of [from, to]) await this.#followed(path)
    const source = this.#real(from)
    const unrealSource = source === null ? await this.#unreal(from) : null
    if (source === null && unrealSource === null) {
      if (this.#real(from) === null) missing(from)
      return false
    }
    const target = this.#real(to)
    const unrealTarget = target === null ? await this.#unreal(to) : null
    if (how === 'keep' && (target !== null || unrealTarget !== null)) throw new ViewError('EEXIST', `'${to}'`)
    if (how === 'exchange') {
      if (unrealSource !== null) await this.#makeReal(from)
      if (unrealTarget !== null) await this.#makeReal(to)
    }
    const moving = [
      [from, to, source],
      [to, from, how === 'exchange' ? target : null],
    ] as const
    const replaces = how !== 'exchange' && unrealTarget !== null
    if (source === null && how !== 'exchange') return this.#renamedUnreal(from, unrealSource as UnrealFile, to, target)
    // Nothing below is given up meanwhile: it would not come along.
    const ends: (() => void)[] = []
    try {
      let follow = false
      for (const [path, other, entry] of moving) {
        if (entry === null || !isFolder(entry)) continue
        ends.push(this.#moving(path as EntryPath))
        if (await this.#mayMove(path, other, how)) follow = true
      }
      if (source !== null && isFolder(source) && replaces) throw new ViewError('ENOTDIR', `'${to}'`)
      const rename = () => {
        this.#root.rename(from, to, how)
        return true
      }
      if (replaces) await this.#replacing(to, unrealTarget, rename)
      else rename()
      this.#identities.forget(to)
      this.#tellNow([from as EntryPath, to as EntryPath])
      renamed()
      this.#foldersMoved(from, to, how === 'exchange')
      if (follow) await this.#moveBelow(from, to)
      return true
    } finally {
      for (const end of ends) end()
    }
  }

  /** The arena is told that a folder is about to be renamed; and when it runs again, once more. Returns how to end that. */
  #moving(folder: EntryPath): () => void {
    const move = { folder }
    this.#moves.add(move)
    this.#link?.tell({ type: 'moving', folder })
    return () => {
      this.#moves.delete(move)
      this.#link?.tell({ type: 'moved', folder })
    }
  }
  readonly #moves = new Set<{ readonly folder: EntryPath }>()

  async #renamedUnreal(from: string, file: UnrealFile, to: string, target: SourceEntry | null): Promise<boolean> {
    if (from === to) return true
    if (target !== null && isFolder(target)) throw new ViewError('EISDIR', `'${to}'`)
    try {
      // What the disk shows at the other path is replaced by the file itself.
      if (target !== null) throw new ViewError('EXDEV', `'${to}'`)
      await this.#ask({ type: 'rename', path: from as EntryPath, hash: file.hash, to: to as EntryPath })
      this.#identities.moved(from, to)
      return true
    } catch (error) {
      if (codeOf(error) === 'EXDEV') await this.#makeReal(from)
      else if (codeOf(error) !== 'ESTALE') throw error
      return false
    }
  }

  /**
   * Whether a folder has unreal files, which must follow it. Throws EXDEV, as between two disks, where they cannot: programs move
   * them one by one then.
   */
  async #mayMove(from: string, to: string, how: 'replace' | 'keep' | 'exchange'): Promise<boolean> {
    if (how === 'replace' && this.#real(to) !== null && (await this.#unrealNames(to)).length > 0)
      throw new ViewError('ENOTEMPTY', `'${to}'`)
    const below = await this.#ask({ type: 'below', folder: from as EntryPath })
    if (below === 'fixed' || (below === 'movable' && how === 'exchange'))
      throw new ViewError('EXDEV', `'${from}' has files that are not here`)
    return below === 'movable'
  }

  /** What a folder has that is not on the disk comes after it, before whoever renamed it goes on. */
  async #moveBelow(from: string, to: string): Promise<void> {
    this.#identities.movedBelow(from, to)
    this.#files.dropBelow(from)
    this.#files.dropBelow(to)
    const moved = this.#ask({ type: 'rename_below', folder: from as EntryPath, to: to as EntryPath })
    const follow = { to, end: moved.then(nothing, nothing) }
    this.#follows.add(follow)
    try {
      await moved
    } finally {
      this.#follows.delete(follow)
    }
  }

  /** Folders that were renamed on the disk, and what is not there has not followed yet. */
  readonly #follows = new Set<{ readonly to: string; readonly end: Promise<void> }>()

  /** Waits for what is to follow a folder that this path is, or is in. Undefined: nothing. */
  #followed(path: string): Promise<void> | undefined {
    for (const { to, end } of this.#follows) if (path === to || path.startsWith(`${to}/`)) return end
    return undefined
  }

  change(path: string | null, open: OpenNode | null, changes: Changes): Answer<SourceEntry> {
    if (path !== null) refuseOwn(path, 'ENOENT')
    // A copy of an unreal file's content is not the file.
    const real = open === null || ('copied' in open && open.copied) ? null : open
    if (path === null && real?.descriptor == null) throw new ViewError('ESTALE', 'a file that is gone')
    const failed = (error: unknown) => {
      if (codeOf(error) !== 'ENOENT' || path === null) throw error
      return this.#changeUnreal(path, changes)
    }
    const done = (changed: SourceEntry) => {
      if (path === null) return { ...changed, id: real?.entry.id ?? changed.id }
      this.#tell([path])
      return this.#mapped(path, changed)
    }
    let changed: Answer<SourceEntry>
    try {
      changed = this.#root.change(path, real, changes)
    } catch (error) {
      return failed(error)
    }
    return changed instanceof Promise ? changed.then(done, failed) : done(changed)
  }

  async #changeUnreal(path: string, changes: Changes): Promise<SourceEntry> {
    for (let tries = 1; ; tries++) {
      const file = await this.#unreal(path)
      try {
        return await (file === null ? this.#changeReal(path, changes) : this.#changeFile(path, file, changes))
      } catch (error) {
        // It was renamed, came or was given up in this very moment, or somebody puts something in its place.
        const again = file !== null && (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESTALE')
        if (!again || tries >= TRIES_MAX) throw error
      }
    }
  }

  async #changeReal(path: string, changes: Changes): Promise<SourceEntry> {
    const changed = await this.#root.change(path, null, changes)
    this.#tell([path])
    return this.#mapped(path, changed)
  }

  async #changeFile(path: string, file: UnrealFile, changes: Changes): Promise<SourceEntry> {
    const { mode, uid, gid, size, mtime } = changes
    const exec = mode === undefined ? file.exec : (mode & EXECUTE_BITS) !== 0
    const owned = (uid === undefined || uid === ours.uid) && (gid === undefined || gid === ours.gid)
    const plain = mode === undefined || (mode & 0o7777) === (modeOf({ exec }) & 0o7777)
    if (size === 0) (await this.#openUnreal(path, TRUNCATING, undefined)).close()
    else if (size !== undefined || !owned || !plain) await this.#makeReal(path)
    else {
      const mtimeNs = mtime === undefined ? null : mtime === 'now' ? BigInt(Date.now()) * 1_000_000n : mtime
      if (mtimeNs === null && exec === file.exec) return this.#entryOf(path, file)
      const { hash } = file
      await this.#ask({
        type: 'retouch',
        path: path as EntryPath,
        hash,
        mtimeNs,
        exec: exec === file.exec ? null : exec,
      })
      return this.lookup(path)
    }
    return this.#changeReal(path, changes)
  }

  getAttribute(path: string, name: string): Answer<Uint8Array> {
    refuseOwn(path, 'ENOENT')
    if (name.startsWith(FACTS)) return this.#fact(path, name.slice(FACTS.length))
    return this.#ofReal(path, root => root.getAttribute(path, name), noAttribute)
  }

  async #fact(path: string, name: string): Promise<Uint8Array> {
    if (path === '') noAttribute()
    const facts = await this.#ask({ type: 'facts', path: path as EntryPath })
    if (!Object.hasOwn(facts, name)) noAttribute()
    const value = facts[name as keyof PathFacts]
    return Buffer.from(typeof value === 'string' ? value : value.join(','))
  }

  setAttribute(path: string, name: string, value: Uint8Array, mode: 'set' | 'create' | 'replace'): Answer<void> {
    refuseOwn(path, 'ENOENT')
    if (name === MARK) return this.#mark(path, Buffer.from(value).toString().trim())
    if (name.startsWith(FACTS)) throw new ViewError('EPERM', `${name} tells and is not set`)
    const set = (root: FolderSource) => root.setAttribute(path, name, value, mode)
    return this.#ofReal(path, set, () => then(this.#makeReal(path), () => set(this.#root)))
  }

  async #mark(path: string, mark: string): Promise<void> {
    if (path === '') throw new ViewError('EPERM', 'the mark of a whole arena is set with `realize mark`')
    if (!isMark(mark)) throw new ViewError('EINVAL', `'${mark}' is no mark`)
    await this.#ask({ type: 'mark', path: path as EntryPath, mark })
  }

  /** Those that tell of a path are not listed: whoever copies all attributes of a file would try to set them. */
  listAttributes(path: string): Answer<string[]> {
    refuseOwn(path, 'ENOENT')
    return this.#ofReal(
      path,
      root => root.listAttributes(path),
      () => [],
    )
  }

  removeAttribute(path: string, name: string): Answer<void> {
    refuseOwn(path, 'ENOENT')
    if (name === MARK) return this.#mark(path, 'clear')
    return this.#ofReal<void>(path, root => root.removeAttribute(path, name), noAttribute)
  }

  /** Does it where there is something real, else what is to be done of an unreal file. */
  #ofReal<Result>(path: string, real: (root: FolderSource) => Result, unreal: () => Answer<Result>): Answer<Result> {
    try {
      return real(this.#root)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
      return then(this.#unreal(path), file => {
        return file === null ? real(this.#root) : unreal()
      })
    }
  }

  /** Of the file system that it is on, with what tells that from others. */
  space(): { device: string; space: Space } {
    const device = this.#root.lookup('').id.split(':', 1)[0] as string
    return { device, space: this.#root.space() }
  }

  // Real files

  get #root(): FolderSource {
    if (this.#folder === null) throw new ViewError('EIO', this.#reason ?? `the arena ${this.name} does not run`)
    return this.#folder
  }

  /** What the disk shows; null: nothing. */
  #real(path: string): SourceEntry | null {
    try {
      return this.#shown(path, this.#root.find(path))
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null
      throw error
    }
  }

  /** The same where nobody asked. */
  #looked(path: string): SourceEntry | null {
    try {
      return this.#real(path)
    } catch {
      return null
    }
  }

  #shown(path: string, entry: SourceEntry | null): SourceEntry | null {
    return entry === null ? null : this.#mapped(path, entry)
  }

  #mapped(path: string, entry: SourceEntry): SourceEntry {
    const shown = this.#identities.real(path, entry)
    // The arena's own folder is the same one also while its root is not there.
    return path === '' ? { ...shown, id: `arena:${this.name}` } : shown
  }

  #given(path: string, file: OpenFile, how: OpenHow): OpenFile {
    const entry = this.#mapped(path, file.entry)
    const hold = () => this.#opened({ file: file.entry.attributes.ino })
    const end = hold()
    return {
      ...file,
      entry,
      hold,
      look: () =>
        then(file.look(), found => ({
          ...found,
          id: entry.id,
          attributes: { ...found.attributes, ino: entry.attributes.ino },
        })),
      close: () => {
        file.close()
        end()
        if (how.write) this.#tell([path])
      },
    }
  }

  /** The arena is told that somebody has something open; and when it runs again, once more. Returns how to end that. */
  #opened(is: OpenedByView): () => void {
    this.#open.add(is)
    this.#link?.tell({ type: 'opened', is })
    return () => {
      if (this.#open.delete(is)) this.#link?.tell({ type: 'closed', is })
    }
  }
  readonly #open = new Set<OpenedByView>()

  /** Tells the arena, soon, that something was changed on the disk. */
  #tell(paths: readonly string[]): void {
    if (this.#touched.size < TOUCHED_MAX) for (const path of paths) this.#touched.add(path as EntryPath)
    this.#touching ??= setTimeout(() => this.#tellNow([]), TOLD_MS)
  }

  #tellNow(paths: readonly EntryPath[]): void {
    if (this.#touching) clearTimeout(this.#touching)
    this.#touching = null
    for (const path of paths) this.#touched.add(path)
    this.#link?.tell({ type: 'touched', paths: [...this.#touched] })
    this.#touched.clear()
  }

  // Unreal files

  #entryOf(path: string, file: UnrealFile): SourceEntry {
    const { id, ino } = this.#identities.unreal(path, file)
    const { size, mtimeNs, hash } = file
    const attributes: Attributes = {
      ino,
      size,
      // As if it were there: a program that takes a file without blocks for a hole would not read it.
      blocks: Math.ceil(size / 512),
      atimeNs: mtimeNs,
      mtimeNs,
      ctimeNs: mtimeNs,
      mode: modeOf(file),
      links: 1,
      ...ours,
      rdev: 0,
    }
    return { id, attributes, version: hash, validMs: UNREAL_VALID_MS }
  }

  /** The unreal file at a path, of which the disk shows nothing; null: none. */
  #unreal(path: string): Answer<UnrealFile | null> {
    const followed = this.#followed(path)
    return followed === undefined ? this.#unrealNow(path) : followed.then(() => this.#unreal(path))
  }

  #unrealNow(path: string): Answer<UnrealFile | null> {
    if (path === '') return null
    const slash = path.lastIndexOf('/')
    const folder = slash < 0 ? '' : path.slice(0, slash)
    // The disk may show nothing because the arena has just taken the file away.
    this.#link?.drain()
    const known = this.#files.get(folder, path.slice(slash + 1))
    if (known !== undefined) return known
    // The one that is wanted now, and the whole folder for those that follow.
    const asked = this.#ask({ type: 'look', path: path as EntryPath })
    this.#list(folder)
    return asked.then(file => (this.#placed.has(path) ? null : file))
  }

  #unrealNames(folder: string): Answer<readonly string[]> {
    const followed = this.#followed(folder)
    if (followed !== undefined) return followed.then(() => this.#unrealNames(folder))
    this.#link?.drain()
    return this.#files.names(folder) ?? this.#listed(folder).then(files => [...files.keys()])
  }

  /** All unreal files of a folder, from the arena: also of one that is too large to be remembered. */
  async #listed(folder: string): Promise<Map<string, UnrealFile>> {
    const remembering = this.#files.begin(folder)
    const files = new Map<string, UnrealFile>()
    let after: string | null = null
    for (;;) {
      const question: Extract<ViewQuestion, { type: 'list' }> = {
        type: 'list',
        folder: folder as EntryPath | '',
        after,
      }
      const take = (answer: UnrealNames) => remembering && this.#take(folder, answer)
      const page: UnrealNames = await this.#ask(question, undefined, take).catch(error => {
        this.#files.drop(folder)
        throw error
      })
      for (const [name, file] of page.files) if (!this.#placed.has(below(folder, name))) files.set(name, file)
      if (page.next === null) return files
      after = page.next
    }
  }

  /** Lists a folder for what will be asked next. */
  #list(folder: string): void {
    if (!this.#files.begin(folder)) return
    const next = (after: string | null) => {
      let more: string | null = null
      this.#ask({ type: 'list', folder: folder as EntryPath | '', after }, undefined, page => {
        if (this.#take(folder, page)) more = page.next
      })
        .then(() => {
          if (more !== null) next(more)
        })
        .catch(() => this.#files.drop(folder))
    }
    next(null)
  }

  /** True if the next page is wanted. */
  #take(folder: string, page: UnrealNames): boolean {
    const files = page.files.filter(([name]) => !this.#placed.has(below(folder, name)))
    return this.#files.page(folder, { ...page, files })
  }

  #noLonger(path: string): void {
    const slash = path.lastIndexOf('/')
    this.#files.set(slash < 0 ? '' : path.slice(0, slash), path.slice(slash + 1), null)
  }

  async #makeReal(path: string, signal?: AbortSignal): Promise<void> {
    await this.#ask({ type: 'make_real', path: path as EntryPath }, signal)
  }

  /** Asks the arena, once it runs. */
  async #ask<Question extends ViewQuestion>(
    question: Question,
    signal?: AbortSignal,
    take?: Parameters<typeof ArenaLink.prototype.ask<Question>>[2],
  ) {
    const endMs = performance.now() + ATTACH_MS
    while (this.#link === null) await this.#change(endMs)
    return this.#link.ask(question, signal, take)
  }

  #changed(changes: readonly ViewChange[] | null): void {
    if (changes === null) return this.#forgetFiles()
    for (const { path, unreal: said } of changes) {
      const unreal = this.#placed.has(path) ? null : said
      const real = unreal === null || this.#folder === null ? null : this.#looked(path)
      if (unreal !== null && real !== null) this.#identities.leaves(path, unreal, real)
      const slash = path.lastIndexOf('/')
      this.#files.set(slash < 0 ? '' : path.slice(0, slash), path.slice(slash + 1), unreal)
    }
    for (const { path } of changes) this.#events.replaced(path)
  }

  #forgetFiles(): void {
    const known = [...this.#files.all()]
    this.#files.clear()
    for (const [folder, name] of known) this.#events.replaced(below(folder, name))
    this.#wake()
  }
}

const TRUNCATING: OpenHow = { read: false, write: true, append: false, truncate: true }

/** Acts on what was answered, at once if it was answered at once. */
export function then<Value, Result>(answer: Answer<Value>, action: (value: Value) => Answer<Result>): Answer<Result> {
  return answer instanceof Promise ? answer.then(action) : action(answer)
}

/** What a folder shows: what is on the disk, without our own folder at the top, and what is not. */
function allNames(folder: string, real: readonly string[], unreal: Iterable<string>): readonly string[] {
  const shown = folder === '' ? real.filter(name => !isOwn(name)) : real
  return [...new Set([...shown, ...unreal])]
}

/** Where a path is once a folder has another name; null: as before. */
function movedPath(path: string, from: string, to: string): string | null {
  return path === from || path.startsWith(`${from}/`) ? `${to}${path.slice(from.length)}` : null
}

function below(folder: string, name: string): string {
  return folder === '' ? name : `${folder}/${name}`
}

/** Our own folder at the top of every root is not shown, and nothing is made in its place. */
function refuseOwn(path: string, code: 'ENOENT' | 'EPERM'): void {
  if (isOwn(path.split('/', 1)[0] as string)) throw new ViewError(code, `'${path}' is reserved`)
}

function isMark(text: string): text is Mark | 'clear' {
  return text === 'real' || text === 'pinned' || text === 'unreal' || text === 'clear'
}

/** Whoever was told that nothing has come of it does it once more: that must not be undone by the first time. */
function notInterrupted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new ViewError('EINTR', 'interrupted')
}

function nothing(): void {}

function missing(path: string): never {
  throw new ViewError('ENOENT', `'${path}'`)
}

function noAttribute(): never {
  throw new ViewError('ENODATA', 'no such attribute')
}

function codeOf(error: unknown): string | null {
  return error instanceof Error && 'code' in error ? String(error.code) : null
}

function isFolder({ attributes }: SourceEntry): boolean {
  return (attributes.mode & TYPE_MASK) === TYPE_FOLDER
}

/** As a real file would be made here. */
function modeOf({ exec }: { exec: boolean }): number {
  return TYPE_FILE | ((exec ? 0o777 : 0o666) & ~umask)
}
