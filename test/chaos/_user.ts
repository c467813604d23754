/**
 * A person and their programs at one peer's real disk: does the acts of a plan, each as such programs do it, and tells the
 * ledger what each replaced and wrote. What is replaced is read from the very file that is then written, where that can be.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmdirSync,
  type Stats,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs'
import { constants as systemConstants } from 'node:os'
import { dirname, join } from 'node:path'
import { OWN_FOLDER } from '../../protocol/path.ts'
import { randomBytesFrom } from '../system/_random.ts'
import { keyAt, keyOfBytes, keyOfFile, keyOfLink, type Told, type Written } from './_ledger.ts'
import type { Act } from './_plan.ts'

/** What a program shrugs off: somebody else was there first, or the disk cannot. */
const SHRUGGED = new Set([
  'ENOENT',
  'EEXIST',
  'ENOTDIR',
  'EISDIR',
  'ENOTEMPTY',
  'ENOSPC',
  'EINVAL',
  'ELOOP',
  'ENAMETOOLONG',
  'EMLINK',
  'EBUSY',
  'ESTALE',
  'EACCES',
])
/** And at a mount: nobody has the content now, or the service or its view has ended. */
const SHRUGGED_AT_MOUNT = new Set([
  'EHOSTUNREACH',
  'ENOTCONN',
  'ECONNABORTED',
  'EIO',
  'EMFILE',
  'ENFILE',
  'EXDEV',
  'EILSEQ',
  'EROFS',
])
/** Larger folders are not deleted in one go: the guard would ask, and rightly. */
const DELETED_MAX = 10
/** A tree grows no further; what would make more does nothing. */
const PATHS_MAX = 400

export class User {
  readonly name: string
  readonly root: string
  /** Nobody works on a volume that is not there. */
  away = false
  /** Paths in this round where nothing is any more, if only for a moment: what the guard may have counted. */
  deleted = 0
  undone = 0
  readonly told: Told
  /** Where the root is a mounted view: the folder below it. */
  readonly #below: string | null
  #round = 0
  #number = 0
  #seed = 0
  /** Files of this round that users have deleted or replaced, under their last name. */
  readonly #unlinked = new Set<string>()
  readonly #busy = new Set<Promise<void>>()

  constructor(name: string, root: string, told: Told, below: string | null = null) {
    this.name = name
    this.root = root
    this.told = told
    this.#below = below
  }

  begin(round: number, seed: number): void {
    this.#round = round
    this.#seed = seed
    this.deleted = 0
    this.#unlinked.clear()
  }

  /** Until what was begun has ended. */
  async rest(): Promise<void> {
    while (this.#busy.size > 0) await Promise.all(this.#busy)
  }

  act(act: Act): void {
    if (this.away) return
    switch (act.do) {
      case 'create':
        return this.#try(() => this.#create(act.path, this.#content(act.size)))
      case 'overwrite':
        return this.#withFile(act.pick, path => this.#rewrite(path, act.do, () => this.#content(act.size)))
      case 'append':
        return this.#withFile(act.pick, path =>
          this.#inPlace(path, act.do, constants.O_RDWR, (fd, size) => this.#put(fd, this.#content(act.size), size)),
        )
      case 'patch':
        return this.#withFile(act.pick, path =>
          this.#inPlace(path, act.do, constants.O_RDWR, (fd, size) =>
            this.#put(fd, this.#content(act.size), Math.floor(size / 3)),
          ),
        )
      case 'same_stamp':
        return this.#withFile(act.pick, path => {
          // A stamp as Node can set it, so that it can be set once more.
          const stamp = lstatSync(this.#at(path)).mtime
          utimesSync(this.#at(path), stamp, stamp)
          this.#later(300, () =>
            this.#inPlace(path, act.do, constants.O_RDWR, (fd, size) => {
              this.#put(fd, this.#content(Math.min(size, 100)), 0)
              futimesSync(fd, stamp, stamp)
            }),
          )
        })
      case 'rewrite':
        return this.#withFile(act.pick, path => {
          this.#unlink(path)
          this.#later(20, () => this.#create(path, this.#content(act.size)))
        })
      case 'truncate':
        return this.#withFile(act.pick, path =>
          this.#inPlace(path, act.do, constants.O_RDWR, (fd, size) => ftruncateSync(fd, Math.floor(size * act.part))),
        )
      case 'save':
        return this.#withFile(act.pick, path => this.#save(path, act.how, this.#content(act.size)))
      case 'hold':
        return this.#try(() => this.#hold(act))
      case 'read':
        return this.#withFile(act.pick, path => {
          const key = keyAt(this.#at(path))
          if (key !== null) this.told.read(this.#by(path), key)
        })
      case 'touch':
        return this.#withFile(act.pick, path => {
          utimesSync(this.#at(path), new Date(), act.mtimeMs / 1000)
          this.#tell(path, act.do, null, null)
        })
      case 'chmod':
        return this.#withFile(act.pick, path => {
          const { mode } = lstatSync(this.#at(path))
          chmodSync(this.#at(path), (mode & 0o111) === 0 ? 0o755 : 0o644)
          this.#tell(path, act.do, null, null)
        })
      case 'delete':
        return this.#withAny(act.pick, path => this.#delete(path))
      case 'recase':
        return this.#withAny(act.pick, path => {
          const name = path.slice(path.lastIndexOf('/') + 1)
          const other = name === name.toUpperCase() ? name.toLowerCase() : name.toUpperCase()
          this.#rename(path, path.slice(0, path.length - name.length) + other)
        })
      case 'rename':
        return this.#withAny(act.pick, path => {
          this.#makeFolders(act.path)
          this.#rename(path, act.path)
        })
      case 'move':
        return this.#withAny(act.pick, path => {
          const folders = ['', ...this.paths('dir')]
          const folder = folders[Math.floor(act.other * folders.length)] as string
          this.#rename(path, join(folder, path.slice(path.lastIndexOf('/') + 1)))
        })
      case 'copy':
        return this.#withFile(act.pick, path => this.#copy(path, act.path))
      case 'link':
        return this.#withFile(act.pick, path => {
          this.#makeFolders(act.path)
          linkSync(this.#at(path), this.#at(act.path))
          this.#tell(act.path, act.do, null, keyAt(this.#at(act.path)))
        })
      case 'swap':
        return this.#swap(act.pick, act.other)
      case 'become':
        return this.#withAny(act.pick, path => {
          if (!this.#delete(path)) return
          if (act.type === 'dir') mkdirSync(this.#at(path))
          else if (act.type === 'symlink') this.#symlink(path)
          else this.#create(path, this.#content(500))
        })
      case 'mkdir':
        return this.#try(() => this.#makeFolders(`${act.path}/.`))
      case 'symlink':
        return this.#try(() => {
          this.#makeFolders(act.path)
          this.#symlink(act.path)
        })
      case 'twins':
        return this.#try(() => {
          this.#create(`${act.path}/Z\u00fcrich`, this.#content(40))
          this.#create(`${act.path}/Zu\u0308rich`, this.#content(40))
          this.#create(`${act.path}/z\u00fcRICH`, this.#content(40))
        })
      case 'sparse':
        return this.#try(() => this.#sparse(act.path, act.size))
      case 'unpack':
        return this.#try(() => {
          if (this.paths().length > PATHS_MAX / 2) return
          for (let index = 0; index < act.count; index++)
            this.#create(`${act.path}/part ${index % 3}/${index}`, this.#content(10 + index * 37))
        })
      case 'invalid_name':
        return this.#try(() => {
          const bytes = this.#content(50)
          const place = Buffer.concat([
            Buffer.from(`${this.root}/invalid `),
            Buffer.from([0xff, 0x30 + (this.#number % 10)]),
          ])
          const before = keyAt(place)
          const fd = openSync(place, 'w')
          writeSync(fd, bytes)
          closeSync(fd)
          this.#tell(place.toString(), act.do, before, keyOfBytes(bytes))
        })
      case 'ignore':
        return this.#try(() => {
          // Unique, so that no two rule files are the same by chance.
          this.#create('.realizeignore', Buffer.from(`# ${this.#word()}\n${act.rules.join('\n')}\n`))
        })
      case 'ignored':
        return this.#try(() => this.#create(act.path, this.#content(60)))
      case 'rename_path':
        return this.#try(() => this.#rename(act.from, act.to))
      default:
        act satisfies never
    }
  }

  /** Deletes some files and empty folders, where there are more than so many paths or bytes. */
  tidy(pathsMax: number, bytesMax: number): void {
    this.#try(() => this.#tidy(pathsMax, bytesMax))
  }

  #tidy(pathsMax: number, bytesMax: number): void {
    const files = this.paths('file').flatMap(path => {
      const bytes = lstatSync(this.#at(path), { throwIfNoEntry: false })?.size
      return bytes === undefined ? [] : [{ path, bytes }]
    })
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
    if (bytes > bytesMax) files.sort((a, b) => b.bytes - a.bytes)
    else if (this.paths().length <= pathsMax) return
    for (const { path } of files.slice(0, DELETED_MAX)) this.#try(() => this.#unlink(path))
    for (const path of this.paths('dir').reverse().slice(0, DELETED_MAX)) {
      this.#try(() => {
        rmdirSync(this.#at(path))
        this.deleted++
      })
    }
  }

  /** Moves a folder away in whose place another peer's file is to come. */
  clear(path: string): void {
    this.#try(() => this.#rename(path, `moved away ${++this.#number}`))
  }

  /** Paths that have a proper name, a folder before what is in it. */
  paths(type?: 'file' | 'dir'): string[] {
    const found: string[] = []
    const walk = (folder: string, prefix: string): void => {
      let items: ReturnType<typeof list>
      try {
        items = list(folder)
      } catch {
        return
      }
      for (const item of items) {
        if (prefix === '' && item.name === OWN_FOLDER) continue
        const path = prefix + item.name
        if (type === undefined || (type === 'dir' ? item.isDirectory() : item.isFile())) found.push(path)
        if (item.isDirectory()) walk(join(folder, item.name), `${path}/`)
      }
    }
    const list = (folder: string) =>
      readdirSync(folder, { withFileTypes: true })
        .filter(item => !item.name.includes('\ufffd'))
        .sort((a, b) => (a.name < b.name ? -1 : 1))
    walk(this.root, '')
    return found
  }

  #at(path: string): string {
    return join(this.root, path)
  }

  #by(path: string): Written {
    return { peer: this.name, path, round: this.#round, atMs: Date.now() }
  }

  #tell(path: string, act: string, before: string | null, after: string | null): void {
    this.told.acted(this.#by(path), act, before, after)
  }

  #word(): string {
    return `${this.name} ${this.#round}.${++this.#number}`
  }

  /** No two are the same. */
  #content(size: number): Buffer {
    if (size === 0) return Buffer.alloc(0)
    const word = `${this.#word()}\n`
    const head = Buffer.from(word.padEnd(Math.min(size, 20), '.'))
    const rest = Math.max(0, size - head.length)
    return Buffer.concat([head, randomBytesFrom(this.#seed + this.#number, rest)])
  }

  #try(work: () => void): void {
    try {
      work()
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (!this.#shrugs(error) || code === undefined) throw error
      this.undone++
    }
  }

  #shrugs(error: unknown): boolean {
    const { code, errno } = error as NodeJS.ErrnoException
    // Node has no name for ESTALE.
    if (errno === -systemConstants.errno.ESTALE) return this.#below !== null
    return code !== undefined && (SHRUGGED.has(code) || (this.#below !== null && SHRUGGED_AT_MOUNT.has(code)))
  }

  /** What an open file holds; if its view has ended, what has come to the disk. */
  #keyNow(fd: number, path: string): string | null {
    try {
      return keyOfFile(fd)
    } catch (error) {
      if (this.#below === null || !this.#shrugs(error)) throw error
      return keyAt(join(this.#below, path))
    }
  }

  /** Tells of an end also if it cannot be known whether it came to be. */
  #ending(path: string, act: string, before: string | null, work: () => void): void {
    try {
      work()
    } catch (error) {
      if (this.#below !== null && this.#shrugs(error)) this.#tell(path, act, before, null)
      throw error
    }
  }

  /** Goes on after a pause, unless the volume has gone. */
  #later(ms: number, work: () => void): void {
    this.#after(ms, () => {
      if (!this.away) this.#try(work)
    })
  }

  #after(ms: number, work: () => void): void {
    const done = new Promise<void>((resolve, reject) => {
      setTimeout(() => {
        try {
          work()
          resolve()
        } catch (error) {
          reject(error)
        }
      }, ms)
    }).finally(() => this.#busy.delete(done))
    this.#busy.add(done)
  }

  #withFile(pick: number, work: (path: string) => void): void {
    const files = this.paths('file')
    const path = files[Math.floor(pick * files.length)]
    if (path !== undefined) this.#try(() => work(path))
  }

  #withAny(pick: number, work: (path: string) => void): void {
    const paths = this.paths()
    const path = paths[Math.floor(pick * paths.length)]
    if (path !== undefined) this.#try(() => work(path))
  }

  #makeFolders(path: string): void {
    mkdirSync(dirname(this.#at(path)), { recursive: true })
  }

  /** All of these bytes, or as many as the disk takes. */
  #put(fd: number, bytes: Uint8Array, position: number): void {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, position + done)
  }

  /** Opens, sees what is there, changes it, and tells what it is then, also if the disk gave out on the way. */
  #inPlace(path: string, act: string, flags: number, change: (fd: number, size: number) => void): void {
    const fd = openSync(this.#at(path), flags, 0o644)
    try {
      const before = keyOfFile(fd)
      try {
        change(fd, fstatSync(fd).size)
      } finally {
        this.#tell(path, act, before, this.#keyNow(fd, path))
      }
    } finally {
      this.#close(fd)
    }
  }

  #create(path: string, bytes: Buffer): void {
    this.#makeFolders(path)
    this.#rewrite(path, 'create', () => bytes, constants.O_CREAT)
  }

  #rewrite(path: string, act: string, content: () => Buffer, flags = 0): void {
    this.#inPlace(path, act, constants.O_RDWR | flags, fd => {
      ftruncateSync(fd, 0)
      this.#put(fd, content(), 0)
    })
  }

  #copy(from: string, to: string): void {
    const fd = openSync(this.#at(from), 'r')
    try {
      const bytes = Buffer.alloc(fstatSync(fd).size)
      let length = 0
      while (length < bytes.length) {
        const read = readSync(fd, bytes, length, bytes.length - length, length)
        if (read === 0) break
        length += read
      }
      this.#create(to, bytes.subarray(0, length))
    } finally {
      closeSync(fd)
    }
  }

  #sparse(path: string, size: number): void {
    this.#makeFolders(path)
    this.#inPlace(path, 'sparse', constants.O_RDWR | constants.O_CREAT, fd => {
      ftruncateSync(fd, 0)
      ftruncateSync(fd, size)
      this.told.passed(this.#by(path), keyOfFile(fd))
      this.#put(fd, this.#content(30), Math.floor(size / 2))
    })
  }

  #hold({ path, size, pieces, pauseMs }: Extract<Act, { do: 'hold' }>): void {
    this.#makeFolders(path)
    const fd = openSync(this.#at(path), constants.O_RDWR | constants.O_CREAT, 0o644)
    // It has a name now, be its inode that of a file that was deleted before.
    this.#unlinked.delete(inodeOf(fstatSync(fd)))
    const write = (left: number): void => {
      let more = left > 1
      try {
        const before = keyOfFile(fd)
        try {
          this.#put(fd, this.#content(size), fstatSync(fd).size)
        } catch (error) {
          // The next piece may fit.
          if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
        } finally {
          const after = this.#keyNow(fd, path)
          // Written to a file that a user has deleted meanwhile: it goes with its last descriptor, as everywhere.
          if (after !== null && this.#isUnlinked(fd)) this.told.passed(this.#by(path), after)
          else this.#tell(path, 'hold', before, after)
        }
      } catch (error) {
        more = false
        if (this.#below === null || !this.#shrugs(error)) throw error
      } finally {
        if (!more) this.#close(fd)
      }
      if (more) this.#after(pauseMs, () => write(left - 1))
    }
    write(pieces)
  }

  #isUnlinked(fd: number): boolean {
    try {
      return this.#unlinked.has(inodeOf(fstatSync(fd)))
    } catch (error) {
      if (this.#below === null || !this.#shrugs(error)) throw error
      return false
    }
  }

  #close(fd: number): void {
    try {
      closeSync(fd)
    } catch (error) {
      if (this.#below === null || !this.#shrugs(error)) throw error
    }
  }

  #save(path: string, how: 'rename' | 'backup' | 'recreate', bytes: Buffer): void {
    if (how === 'recreate') {
      this.#unlink(path)
      return this.#later(5, () => this.#create(path, bytes))
    }
    if (how === 'backup') {
      this.#rename(path, `${path}~`)
      return this.#later(2, () => this.#create(path, bytes))
    }
    const temporary = `${path}.tmp${this.#number % 7}`
    this.#create(temporary, bytes)
    this.#later(3, () => this.#rename(temporary, path))
  }

  #symlink(path: string): void {
    const target = `nowhere/${this.#word()}`
    symlinkSync(target, this.#at(path))
    this.#tell(path, 'symlink', null, keyOfLink(target))
  }

  #unlink(path: string | Buffer): void {
    const place = typeof path === 'string' ? this.#at(path) : path
    const before = keyAt(place)
    const stat = lstatSync(place)
    this.#ending(path.toString(), 'delete', before, () => unlinkSync(place))
    if (stat.nlink === 1) this.#unlinked.add(inodeOf(stat))
    this.deleted++
    this.#tell(path.toString(), 'delete', before, null)
  }

  /** False: it is too large to go in one act. */
  #delete(path: string): boolean {
    if (!lstatSync(this.#at(path)).isDirectory()) {
      this.#unlink(path)
      return true
    }
    const places: { place: Buffer; folder: boolean }[] = []
    const walk = (folder: Buffer): void => {
      for (const item of readdirSync(folder, { withFileTypes: true, encoding: 'buffer' })) {
        const place = Buffer.concat([folder, Buffer.from('/'), item.name])
        places.push({ place, folder: item.isDirectory() })
        if (item.isDirectory()) walk(place)
      }
    }
    walk(Buffer.from(this.#at(path)))
    if (places.length > DELETED_MAX) return false
    for (const { place, folder } of places.reverse()) {
      if (folder) {
        rmdirSync(place)
        this.deleted++
      } else this.#unlink(place)
    }
    rmdirSync(this.#at(path))
    this.deleted++
    this.#tell(path, 'delete', null, null)
    return true
  }

  #rename(from: string, to: string): void {
    if (from === to) return
    const [moved, replaced] = [keyAt(this.#at(from)), keyAt(this.#at(to))]
    const moving = 1 + this.paths().filter(path => path.startsWith(`${from}/`)).length
    const there = lstatSync(this.#at(to), { throwIfNoEntry: false })
    this.#ending(to, 'rename', replaced === moved ? null : replaced, () => renameSync(this.#at(from), this.#at(to)))
    if (there?.nlink === 1) this.#unlinked.add(inodeOf(there))
    this.deleted += moving
    // Two names of one file: rename does nothing.
    if (replaced !== null && replaced !== moved) this.#tell(to, `rename from ${JSON.stringify(from)}`, replaced, null)
    else this.#tell(to, `rename from ${JSON.stringify(from)}`, null, null)
  }

  #swap(pick: number, other: number): void {
    const paths = this.paths()
    const a = paths[Math.floor(pick * paths.length)]
    const b = paths[Math.floor(other * paths.length)]
    if (a === undefined || b === undefined || a === b || `${a}/`.startsWith(`${b}/`) || `${b}/`.startsWith(`${a}/`))
      return
    this.#try(() => {
      this.#rename(a, `${a}.swap`)
      this.#rename(b, a)
      this.#rename(`${a}.swap`, b)
    })
  }
}

function inodeOf({ dev, ino }: Stats): string {
  return `${dev} ${ino}`
}
