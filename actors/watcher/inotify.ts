/**
 * Folder trees watched with Linux' inotify, all of them in one instance.
 *
 * Why not @parcel/watcher here: it keeps the old path of a folder that was renamed, so that edits below it are told
 * under a name that is gone; it drops the kernel's overflow event in silence; and it holds a second event back for 50 ms.
 *
 * A folder that appears is watched first and listed then, so nothing that is made in it meanwhile goes unwatched; whoever is
 * told of the folder lists it as well. The kernel's queue is read by one blocking read in Node's thread pool, which
 * taking a watch away wakes: that is how it ends, also when the process exits.
 */
import * as fs from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { type SourceEvents, type Subscription, watchFault } from './source.ts'

const IN_MODIFY = 0x2
const IN_ATTRIB = 0x4
const IN_CLOSE_WRITE = 0x8
const IN_MOVED_FROM = 0x40
const IN_MOVED_TO = 0x80
const IN_CREATE = 0x100
const IN_DELETE = 0x200
const IN_DELETE_SELF = 0x400
const IN_MOVE_SELF = 0x800
const IN_UNMOUNT = 0x2000
const IN_Q_OVERFLOW = 0x4000
const IN_IGNORED = 0x8000
const IN_ONLYDIR = 0x1000000
const IN_DONT_FOLLOW = 0x2000000
const IN_EXCL_UNLINK = 0x4000000
const IN_ISDIR = 0x40000000
const IN_CLOEXEC = 0x80000

const CHANGES = IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
const SELF = IN_DELETE_SELF | IN_MOVE_SELF
const MASK = CHANGES | SELF | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK

const QUEUE_BYTES = 64 * 1024
/** Folders are listed in turns of about this long, so that a big tree does not stall the thread. */
const TURN_MS = 8

type Koffi = typeof import('koffi')

function bind(koffi: Koffi) {
  const libc = koffi.load(null)
  const names = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]))
  return {
    init: libc.func('int inotify_init1(int flags)') as (flags: number) => number,
    add: libc.func('int inotify_add_watch(int queue, const char *path, unsigned int mask)') as (
      queue: number,
      path: string,
      mask: number,
    ) => number,
    remove: libc.func('int inotify_rm_watch(int queue, int watch)') as (queue: number, watch: number) => number,
    // Not Node's: a thread that did not open a descriptor with it is warned when it closes it with it.
    close: libc.func('int close(int queue)') as (queue: number) => number,
    lastError: () => names.get(koffi.errno()) ?? `errno ${koffi.errno()}`,
  }
}

let calls: ReturnType<typeof bind> | null = null
try {
  if (process.platform === 'linux') calls = bind(createRequire(import.meta.url)('koffi') as Koffi)
} catch {
  // Without koffi's binary or these functions the other source is used.
}

/** Whether `subscribeInotify` can work here. */
export const hasInotify = calls !== null

interface Tree {
  /** Absolute, without symlinks. */
  root: string
  on: SourceEvents
  /** Folders, relative to the root, that are not watched, with all below them. */
  ignored: readonly string[]
  /** Watch of each folder; '' is the root. */
  watches: Map<string, number>
}

/** A watch that the kernel refused. `code`: errno name. */
class WatchError extends Error {
  override readonly name = 'WatchError'
  readonly code: string
  constructor(code: string) {
    super(code)
    this.code = code
  }
}

class Queue {
  readonly #calls: NonNullable<typeof calls>
  readonly #trees = new Set<Tree>()
  /**
   * Folder of each watch, for each tree (trees may overlap). Stays, if empty, until the kernel has said IGNORED: as
   * long as there is one here, a read will return.
   */
  readonly #folders = new Map<number, Map<Tree, string>>()
  #fd = -1
  #pump: Promise<void> | null = null

  constructor(bound: NonNullable<typeof calls>) {
    this.#calls = bound
    // The thread that reads would keep the process from ending.
    process.on('exit', () => this.#wake())
  }

  async subscribe(root: string, ignored: readonly string[], on: SourceEvents): Promise<Subscription> {
    let tree: Tree | undefined
    try {
      tree = { root: realRoot(root), on, ignored, watches: new Map() }
      this.#trees.add(tree)
      await this.#watch(tree, '')
      // The root may have gone while the rest was listed.
      if (!tree.watches.has('')) throw new WatchError('ENOENT')
    } catch (error) {
      if (tree !== undefined) await this.#drop(tree)
      throw new Error(watchFault(codeOf(error), root))
    }
    const watched = tree
    return { stop: () => this.#drop(watched) }
  }

  /** Watches a folder and all below it, but not what has gone or cannot be read. Throws WatchError. */
  async #watch(tree: Tree, top: string): Promise<void> {
    const folders = [top]
    let turnEndMs = performance.now() + TURN_MS
    for (let path = folders.pop(); path !== undefined; path = folders.pop()) {
      if (!this.#trees.has(tree)) return
      if (isIgnored(tree, path) || !this.#add(tree, path)) continue
      for (const name of subfolders(join(tree.root, path))) folders.push(joined(path, name))
      if (performance.now() < turnEndMs) continue
      await setImmediate()
      turnEndMs = performance.now() + TURN_MS
    }
  }

  /** False if the folder is gone or not ours to read. */
  #add(tree: Tree, path: string): boolean {
    if (this.#fd < 0) {
      this.#fd = this.#calls.init(IN_CLOEXEC)
      if (this.#fd < 0) throw new WatchError(this.#calls.lastError())
    }
    const watch = this.#calls.add(this.#fd, join(tree.root, path), MASK)
    if (watch < 0) {
      const code = this.#calls.lastError()
      if (path !== '' && ['ENOENT', 'ENOTDIR', 'ELOOP', 'EACCES', 'ENAMETOOLONG'].includes(code)) return false
      throw new WatchError(code)
    }
    const former = tree.watches.get(path)
    if (former !== undefined && former !== watch) this.#release(tree, path, former)
    const folders = this.#folders.get(watch) ?? new Map<Tree, string>()
    this.#folders.set(watch, folders)
    // One watch for each folder itself: it was renamed, if it is known by another path.
    const formerPath = folders.get(tree)
    if (formerPath !== undefined && formerPath !== path) tree.watches.delete(formerPath)
    folders.set(tree, path)
    tree.watches.set(path, watch)
    this.#pump ??= this.#read()
    return true
  }

  #release(tree: Tree, path: string, watch: number): void {
    tree.watches.delete(path)
    const folders = this.#folders.get(watch)
    folders?.delete(tree)
    if (folders?.size === 0) this.#calls.remove(this.#fd, watch)
  }

  /** A folder left the tree, with all below it. */
  #releaseBelow(tree: Tree, top: string): void {
    for (const [path, watch] of [...tree.watches]) if (isWithin(path, top)) this.#release(tree, path, watch)
  }

  async #drop(tree: Tree): Promise<void> {
    if (!this.#trees.delete(tree)) return
    this.#releaseBelow(tree, '')
    // The last one waits until the queue is closed, so that nothing is left running.
    if (this.#trees.size === 0) await this.#pump
  }

  #lose(tree: Tree, code: string): void {
    if (!this.#trees.delete(tree)) return
    this.#releaseBelow(tree, '')
    tree.on.lost(watchFault(code, tree.root))
  }

  #wake(): void {
    for (const watch of this.#folders.keys()) this.#calls.remove(this.#fd, watch)
  }

  // Reading

  async #read(): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(QUEUE_BYTES)
    while (this.#folders.size > 0) {
      const length = await readSome(this.#fd, buffer)
      if (!(await this.#take(buffer.subarray(0, length)))) await this.#startAgain()
    }
    this.#close()
    this.#pump = null
  }

  /** Handles what was read. False if the kernel had to drop events. */
  async #take(events: Buffer): Promise<boolean> {
    const touched = new Map<Tree, Set<string>>()
    const fresh: { tree: Tree; path: string }[] = []
    const gone = new Set<Tree>()
    for (let offset = 0; offset < events.length; ) {
      const watch = events.readInt32LE(offset)
      const mask = events.readUInt32LE(offset + 4)
      const nameStart = offset + 16
      offset = nameStart + events.readUInt32LE(offset + 12)
      if (mask & IN_Q_OVERFLOW) return false
      for (const [tree, folder] of this.#folders.get(watch) ?? []) {
        if (mask & (SELF | IN_UNMOUNT)) {
          if (folder === '') gone.add(tree)
          continue
        }
        // Of the folder itself: where it has a name, the folder above tells it as well.
        if (nameStart === offset) continue
        const name = events.toString('utf8', nameStart, events.indexOf(0, nameStart))
        const path = joined(folder, name)
        if (isIgnored(tree, path)) continue
        const paths = touched.get(tree) ?? new Set()
        touched.set(tree, paths.add(path))
        if ((mask & IN_ISDIR) === 0) continue
        if (mask & IN_MOVED_FROM) this.#releaseBelow(tree, path)
        if (mask & (IN_CREATE | IN_MOVED_TO)) fresh.push({ tree, path })
      }
      if (mask & IN_IGNORED) this.#forget(watch)
    }
    for (const { tree, path } of fresh) await this.#watchFresh(tree, path)
    for (const [tree, paths] of touched) if (this.#trees.has(tree)) tree.on.touched([...paths])
    for (const tree of gone) this.#lose(tree, 'ENOENT')
    return true
  }

  async #watchFresh(tree: Tree, path: string): Promise<void> {
    try {
      await this.#watch(tree, path)
    } catch (error) {
      this.#lose(tree, codeOf(error))
    }
  }

  /** The kernel has let a watch go. */
  #forget(watch: number): void {
    for (const [tree, path] of this.#folders.get(watch) ?? [])
      if (tree.watches.get(path) === watch) tree.watches.delete(path)
    this.#folders.delete(watch)
  }

  /** Events were dropped: folders may be unwatched or known by another name, IGNORED may be missing. All anew. */
  async #startAgain(): Promise<void> {
    this.#close()
    this.#folders.clear()
    for (const tree of [...this.#trees]) {
      tree.watches.clear()
      await this.#watchFresh(tree, '')
      if (this.#trees.has(tree)) tree.on.touched(null)
    }
  }

  #close(): void {
    if (this.#fd >= 0) this.#calls.close(this.#fd)
    this.#fd = -1
  }
}

let queue: Queue | undefined

/** Subscribes by inotify. See `Subscribe`. */
export async function subscribeInotify(
  root: string,
  ignored: readonly string[],
  on: SourceEvents,
): Promise<Subscription> {
  if (calls === null) throw new Error('inotify is not available')
  queue ??= new Queue(calls)
  return queue.subscribe(root, ignored, on)
}

function realRoot(root: string): string {
  const real = fs.realpathSync(root)
  if (!fs.statSync(real).isDirectory()) throw new WatchError('ENOTDIR')
  return real
}

/** Names of the folders in a folder; none if it is gone. */
function subfolders(folder: string): string[] {
  try {
    return fs
      .readdirSync(folder, { withFileTypes: true })
      .filter(entry => entry.isDirectory())
      .map(entry => entry.name)
  } catch {
    // Gone, or not ours to read: the arena finds out and says so.
    return []
  }
}

function joined(folder: string, name: string): string {
  return folder === '' ? name : `${folder}/${name}`
}

function isWithin(path: string, top: string): boolean {
  return top === '' || path === top || path.startsWith(`${top}/`)
}

function isIgnored(tree: Tree, path: string): boolean {
  return tree.ignored.some(top => isWithin(path, top))
}

function readSome(fd: number, buffer: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.read(fd, buffer, 0, buffer.length, null, (error, length) => (error === null ? resolve(length) : reject(error)))
  })
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : String(error)
}
