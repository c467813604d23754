/** A person and their programs at one peer's disk: does the steps of a script, and tells the ledger what was written and ended. */

import { DiskError, type DiskStat } from '../../actors/arena/disk.ts'
import type { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import { IGNORE_FILE } from '../../actors/arena/ignore-rules.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { bytesKey, contentKey, type Ledger, pathsOf } from './_ledger.ts'
import { type Action, TICK_NS } from './_script.ts'

export interface UserSurroundings {
  readonly peer: number
  readonly disk: MemoryDisk
  readonly ledger: Ledger
  readonly nowMs: () => number
  /** What a watcher would see. */
  readonly touched: (...paths: string[]) => void
  /** Goes on after a pause. */
  readonly later: (waitMs: number, work: () => void) => void
  /** Like `later`, also if the volume is gone by then. */
  readonly inAnyCase: (waitMs: number, work: () => void) => void
  readonly overflow: () => void
  /** The user has taken away what was at a path, and at those below it. */
  readonly removed: (path: string, ...below: string[]) => void
}

export class User {
  readonly #at: UserSurroundings

  constructor(surroundings: UserSurroundings) {
    this.#at = surroundings
  }

  act(action: Action): void {
    const { disk, later } = this.#at
    switch (action.do) {
      case 'write':
        this.makeFolders(action.path)
        return this.write(action.path, content(action.text, action.size))
      case 'edit':
        return this.#withFile(action.pick, path => this.write(path, content(action.text, action.size)))
      case 'append':
        return this.#withFile(action.pick, path => this.append(path, content(action.text, action.size)))
      case 'hold':
        return this.#withFile(action.pick, path => this.#hold(path, action.text, action.size))
      case 'truncate':
        return this.#withFile(action.pick, path => {
          const bytes = disk.readFile(path)
          this.write(path, bytes.subarray(0, Math.floor(bytes.length * action.part)))
        })
      case 'save':
        return this.#withFile(action.pick, path => this.#save(path, action.how, content(action.text, action.size)))
      case 'touch':
        return this.#withFile(action.pick, path => {
          disk.touch(path, BigInt(action.mtimeMs) * 1_000_000n)
          this.#at.touched(path)
        })
      case 'sneak':
        return this.#withFile(action.pick, path => this.#sneak(path as EntryPath, action.text))
      case 'sparse':
        this.makeFolders(action.path)
        return this.write(action.path, Buffer.concat([Buffer.alloc(action.size), Buffer.from(action.text)]))
      case 'invalid':
        return this.#try(() => {
          disk.writeFile(`\ud800${action.text}`, content(action.text, 20))
          this.#at.touched(`\ufffd${action.text}`)
        })
      case 'move':
        return this.#try(() => {
          if (disk.stat(action.from as EntryPath) === null) return
          this.#handled(action.from)
          this.makeFolders(action.path)
          this.rename(action.from, action.path)
        })
      case 'ignore':
        return this.#ignore(action.path, action.rules, action.text)
      case 'chmod':
        return this.#withFile(action.pick, path => {
          disk.chmod(path, disk.stat(path as EntryPath)?.exec ? 0o644 : 0o755)
          this.#at.touched(path)
        })
      case 'delete':
        return this.#withAny(action.pick, path => this.#delete(path))
      case 'rewrite':
        return this.#withFile(action.pick, path => {
          const bytes = disk.readFile(path)
          this.#delete(path)
          later(20, () => this.#try(() => this.write(path, bytes)))
        })
      case 'rename':
        return this.#withAny(action.pick, path => {
          this.makeFolders(action.path)
          this.rename(path, action.path)
        })
      case 'copy':
        return this.#withFile(action.pick, path => {
          this.makeFolders(action.path)
          this.write(action.path, disk.readFile(path))
        })
      case 'link':
        return this.#withFile(action.pick, path => {
          disk.link(path, action.path)
          this.#at.touched(action.path)
        })
      case 'swap':
        return this.#swap(action.pick, action.other)
      case 'move_folder':
        return this.#moveFolder(action.pick, action.path)
      case 'mkdir':
        this.makeFolders(`${action.path}/.`)
        return
      case 'symlink':
        this.makeFolders(action.path)
        return this.#try(() => this.#symlink(action.text, action.path))
      case 'become':
        return this.#withAny(action.pick, path => {
          this.#delete(path)
          if (action.type === 'dir') disk.mkdir(path)
          else if (action.type === 'symlink') return this.#symlink(action.text, path)
          else return this.write(path, content(action.text, 30))
          this.#at.touched(path)
        })
      case 'bulk':
        for (let index = 0; index < action.count; index++) {
          const path = `${action.path}/n${index}`
          this.makeFolders(path)
          this.#try(() => this.write(path, content(`${action.text}${index}.`, 25)))
        }
        return
      case 'overflow':
        return this.#at.overflow()
      default:
        throw new Error(`'${action.do}' is nothing that a user does`)
    }
  }

  #try(work: () => void): void {
    try {
      work()
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
    }
  }

  #withFile(pick: number, work: (path: string) => void): void {
    const { disk } = this.#at
    const files = pathsOf(disk).filter(path => disk.stat(path as EntryPath)?.type === 'file')
    const path = files[Math.floor(pick * files.length)]
    if (path === undefined) return
    this.#handled(path)
    this.#try(() => work(path))
  }

  #withAny(pick: number, work: (path: string) => void): void {
    const paths = pathsOf(this.#at.disk)
    const path = paths[Math.floor(pick * paths.length)]
    if (path === undefined) return
    this.#handled(path)
    this.#try(() => work(path))
  }

  /** Theirs from now on, with all that is in it. */
  #handled(path: string): void {
    const { disk, ledger, peer, nowMs } = this.#at
    const below = disk.stat(path as EntryPath)?.type === 'dir' ? pathsOf(disk, path) : []
    for (const one of [path, ...below]) ledger.handled(contentKey(disk, one), { peer, path: one, atMs: nowMs() })
  }

  makeFolders(path: string): void {
    const { disk, touched } = this.#at
    const names = path.split('/').slice(0, -1)
    for (let length = 1; length <= names.length; length++) {
      const folder = names.slice(0, length).join('/')
      if (disk.stat(folder as EntryPath) !== null) continue
      this.#try(() => {
        disk.mkdir(folder)
        touched(folder)
      })
    }
  }

  #wrote(path: string, key: string | null): void {
    const { ledger, peer, nowMs } = this.#at
    ledger.wrote(key === 'empty' ? null : key, { peer, path, atMs: nowMs() })
  }

  write(path: string, bytes: Uint8Array): void {
    const { disk, ledger, touched } = this.#at
    this.#try(() => {
      const before = contentKey(disk, path)
      disk.writeFile(path, bytes)
      ledger.ended(before)
      this.#wrote(path, bytesKey(bytes))
      if (before !== null && before === bytesKey(bytes)) ledger.overSame.add(before)
      touched(path)
    })
  }

  /**
   * Other content of the same size, with the same mtime. On a disk with a coarse clock that can also have the ctime of what stood there,
   * if that was put there in the same tick: then no look could tell, and nothing is promised (docs/guarantees.md). So it has another.
   */
  #sneak(path: EntryPath, text: string): void {
    const { disk, later, touched } = this.#at
    const before = disk.stat(path) as DiskStat
    this.write(path, content(text, before.size))
    const bringBack = () => {
      disk.touch(path, before.mtimeNs)
      touched(path)
    }
    bringBack()
    const unseen = () => {
      const { ino, ctimeNs } = disk.stat(path) ?? {}
      return ino === before.ino && ctimeNs === before.ctimeNs
    }
    if (unseen()) later(TICK_NS / 1e6, () => this.#try(() => unseen() && bringBack()))
  }

  append(path: string, bytes: Uint8Array): void {
    this.write(path, Buffer.concat([this.#at.disk.readFile(path), bytes]))
  }

  #ignore(folder: string, rules: readonly string[], text: string): void {
    const path = folder === '' ? IGNORE_FILE : `${folder}/${IGNORE_FILE}`
    if (rules.length === 0) return this.#try(() => this.#delete(path))
    this.makeFolders(path)
    this.write(path, Buffer.from(`# ${text}\n${rules.join('\n')}\n`))
  }

  /** A program that has the file open, and writes to it twice. */
  #hold(path: string, text: string, size: number): void {
    const { disk, later, inAnyCase } = this.#at
    const release = disk.holdForWriting(path)
    this.append(path, content(text, size))
    inAnyCase(300, release)
    later(300, () => this.#try(() => this.append(path, content(`${text}2`, size))))
  }

  #save(path: string, how: Extract<Action, { do: 'save' }>['how'], bytes: Uint8Array): void {
    const { later, disk, touched } = this.#at
    if (how === 'in_place') {
      // Beside a file of its own, for as long as it is open.
      this.write(`${path}.swp`, content(`${bytes.length}`, 8))
      this.write(path, bytes)
      return later(40, () => this.#try(() => this.#delete(`${path}.swp`)))
    }
    if (how === 'linked') {
      disk.link(path, `${path}~`)
      touched(`${path}~`)
      this.#delete(path)
      this.write(path, bytes)
      return later(4, () => this.#try(() => this.#delete(`${path}~`)))
    }
    if (how === 'recreate') {
      this.#delete(path)
      return later(5, () => this.write(path, bytes))
    }
    const temporary = `${path}~new`
    if (how === 'rename') {
      this.write(temporary, bytes)
      return later(3, () => this.#try(() => this.rename(temporary, path)))
    }
    this.rename(path, `${path}~`)
    later(2, () => this.write(path, bytes))
    if (bytes.length % 2 === 0) later(9, () => this.#try(() => this.#delete(`${path}~`)))
  }

  #symlink(target: string, path: string): void {
    const { disk, touched } = this.#at
    disk.symlink(target, path)
    this.#wrote(path, `link:${target}`)
    touched(path)
  }

  /** Deletes what is there, if it can. */
  remove(path: string): void {
    this.#try(() => this.#delete(path))
  }

  /** Through a view, where the disk shows nothing. */
  removed(path: string): void {
    this.#at.removed(path)
  }

  #delete(path: string): void {
    const { disk, ledger, touched, removed } = this.#at
    const below = disk.stat(path as EntryPath)?.type === 'dir' ? pathsOf(disk, path) : []
    const keys = [path, ...below].map(item => contentKey(disk, item))
    disk.remove(path)
    for (const key of keys) ledger.ended(key)
    removed(path, ...below)
    touched(...below.reverse(), path)
  }

  rename(from: string, to: string): void {
    const { disk, ledger, touched, removed } = this.#at
    const replaced = contentKey(disk, to)
    const moved = contentKey(disk, from)
    if (from === to) return
    const below = disk.stat(from as EntryPath)?.type === 'dir' ? pathsOf(disk, from) : []
    const same = moved !== null && replaced === moved && sameToPeers(disk, from, to)
    disk.rename(from, to)
    if (same) ledger.overSame.add(moved)
    if (replaced !== moved) ledger.ended(replaced)
    removed(from, ...below)
    touched(from, to)
  }

  #moveFolder(pick: number, path: string): void {
    const { disk } = this.#at
    const paths = pathsOf(disk)
    const folders = paths.filter(
      one => disk.stat(one as EntryPath)?.type === 'dir' && paths.some(other => other.startsWith(`${one}/`)),
    )
    const from = folders[Math.floor(pick * folders.length)]
    if (from === undefined) return
    const to = disk.stat(path as EntryPath) === null && !path.startsWith(`${from}/`) ? path : `${from}.moved`
    if (disk.stat(to as EntryPath) !== null) return
    this.#handled(from)
    this.makeFolders(to)
    this.#try(() => this.rename(from, to))
  }

  #swap(pick: number, other: number): void {
    const paths = pathsOf(this.#at.disk)
    const a = paths[Math.floor(pick * paths.length)]
    const b = paths[Math.floor(other * paths.length)]
    if (a === undefined || b === undefined || a === b || `${a}/`.startsWith(`${b}/`) || `${b}/`.startsWith(`${a}/`))
      return
    this.#handled(a)
    this.#handled(b)
    this.#try(() => {
      this.rename(a, `${a}.swap`)
      this.rename(b, a)
      this.rename(`${a}.swap`, b)
    })
  }
}

/** Of two files or symlinks of the same content: nothing that is synced tells them apart. */
function sameToPeers(disk: MemoryDisk, a: string, b: string): boolean {
  const one = disk.stat(a as EntryPath)
  const other = disk.stat(b as EntryPath)
  if (one?.type !== other?.type) return false
  return one?.type === 'symlink' || (one?.mtimeNs === other?.mtimeNs && one?.exec === other?.exec)
}

/** Text, over and over: no two texts give the same content. */
export function content(text: string, size: number): Uint8Array {
  return Buffer.alloc(size, text.padEnd(5, '.'))
}
