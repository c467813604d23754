/**
 * What the disk of one service under test would hold after a power loss: its home and roots as far as completed syncs cover
 * them. Told of each sync by preload.c, it copies what the call covers at its beginning and counts it as durable when it returns.
 *
 * A new file's own sync makes its name durable too, as Linux's file systems do; nothing else is assumed of them.
 */
import { EventEmitter, once } from 'node:events'
import {
  chmodSync,
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { setMtime } from '../../actors/arena/posix-calls.ts'

interface FileRecord {
  readonly type: 'file'
  readonly bytes: Buffer
}
interface FolderRecord {
  readonly type: 'folder'
  readonly names: ReadonlyMap<string, bigint>
}
interface LinkRecord {
  readonly type: 'link'
  readonly target: string
}
type Inode = (FileRecord | FolderRecord | LinkRecord) & {
  /** When it was copied: a later copy is newer. */
  readonly turn: number
  readonly mode: number
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
}
type Inodes = ReadonlyMap<bigint, Inode>

/** What survives besides what was synced: nothing, everything, or all names and times but not the new contents. */
export type Left = 'synced' | 'all' | 'names'

const PAGE_BYTES = 4096
const DATABASE = 'data.mdb'

export class Shadow {
  /** A sync of the file system returns and covers nothing: what the tests must notice. */
  lies = false
  /** Syncs that were told, by kind. */
  readonly counts = { system: 0, file: 0, range: 0 }
  readonly #folder: string
  readonly #places: readonly string[]
  readonly #pid: () => number | null
  readonly #chance: () => number
  readonly #server: Server
  readonly #connections = new Set<Socket>()
  readonly #syncs = new EventEmitter()
  #durable = new Map<bigint, Inode>()
  /** Inodes of restored files, and what they were before. */
  #before = new Map<bigint, { ctimeNs: bigint; ino: bigint; ctimeNsBefore: bigint }>()
  #turn = 0
  #life = 0

  /**
   * @param folder for its own files, on the same file system as the places
   * @param places folders that it watches over
   * @param pid of the service; null while it is down
   * @param chance 0 to 1
   */
  private constructor(folder: string, places: readonly string[], pid: () => number | null, chance: () => number) {
    this.#folder = folder
    this.#places = places
    this.#pid = pid
    this.#chance = chance
    this.#server = createServer(connection => this.#hear(connection))
  }

  static async open(
    folder: string,
    places: readonly string[],
    pid: () => number | null,
    chance: () => number,
  ): Promise<Shadow> {
    mkdirSync(folder)
    const shadow = new Shadow(folder, places, pid, chance)
    shadow.#newBoot()
    shadow.#writeInodes()
    shadow.#durable = shadow.#live()
    await new Promise<void>(resolve => shadow.#server.listen(join(folder, 'socket'), resolve))
    return shadow
  }

  /** What the service needs in its environment. */
  variables(library: string): Record<string, string> {
    return {
      LD_PRELOAD: library,
      TEST_POWER_SOCKET: join(this.#folder, 'socket'),
      TEST_POWER_BOOT: join(this.#folder, 'boot'),
      TEST_POWER_INODES: join(this.#folder, 'inodes'),
    }
  }

  close(): void {
    for (const connection of this.#connections) connection.destroy()
    this.#server.close()
  }

  /** Resolves when the counts of syncs hold. */
  async until(holds: (counts: Shadow['counts']) => boolean): Promise<void> {
    while (!holds(this.counts)) await once(this.#syncs, 'sync')
  }

  /** With the service stopped in between two of its instructions. */
  frozen<T>(work: () => T): T {
    const pid = this.#pid()
    if (pid === null) return work()
    process.kill(pid, 'SIGSTOP')
    try {
      for (let tries = 0; !isStopped(pid); tries++) {
        if (tries > 20_000) throw new Error(`process ${pid} does not stop`)
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 0.2)
      }
      return work()
    } finally {
      process.kill(pid, 'SIGCONT')
    }
  }

  /** A user's program syncs its file. */
  syncFile(path: string): void {
    this.#coverFile(path)
  }

  // Syncs

  #hear(connection: Socket): void {
    const life = this.#life
    this.#connections.add(connection)
    connection.on('error', () => {})
    connection.on('close', () => this.#connections.delete(connection))
    let text = ''
    connection.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      if (!text.endsWith('\n')) return
      const [kind, offset, length, path] = text.trimEnd().split('\t') as [
        keyof typeof this.counts,
        string,
        string,
        string,
      ]
      this.counts[kind]++
      this.#syncs.emit('sync')
      const answer = () => connection.write('k')
      if (kind !== 'system') {
        if (kind === 'range') this.#coverRange(path, Number(offset), Number(length))
        else this.#coverFile(path)
        return answer()
      }
      const copy = this.lies ? null : this.frozen(() => this.#live())
      // A disk takes its time. What happens meanwhile is not covered.
      setTimeout(() => {
        if (life !== this.#life) return
        if (copy !== null) this.#cover(copy)
        answer()
      }, this.#chance() * 30)
    })
  }

  /** A copy of everything becomes durable, but for what was copied since. */
  #cover(copy: Map<bigint, Inode>): void {
    const turn = Math.max(...[...copy.values()].map(inode => inode.turn), 0)
    for (const [ino, inode] of this.#durable) if (inode.turn > turn) copy.set(ino, inode)
    this.#durable = copy
  }

  #coverFile(path: string): void {
    if (!this.#places.some(place => `${path}/`.startsWith(`${place}/`))) return
    const inode = this.#read(path, ++this.#turn)
    if (inode === null) return
    if (inode.record.type !== 'folder') {
      this.#durable.set(inode.ino, inode.record)
      return this.#coverName(path, inode.ino)
    }
    this.#durable.set(inode.ino, inode.record)
    for (const [name, ino] of inode.record.names) {
      const child = this.#durable.has(ino) ? null : this.#read(join(path, name), this.#turn)
      if (child !== null) this.#durable.set(ino, withoutContent(child.record))
    }
    this.#coverName(path, inode.ino)
  }

  /** A name that is new in its folder is durable with what it names. */
  #coverName(path: string, ino: bigint): void {
    if (this.#places.includes(path)) return
    const parent = this.#read(dirname(path), this.#turn)
    if (parent === null) return
    const known = this.#durable.get(parent.ino) ?? withoutContent(parent.record)
    if (known.type !== 'folder') return
    if (known.names.get(basename(path)) !== ino) {
      const names = new Map([...known.names].filter(([, other]) => other !== ino))
      this.#durable.set(parent.ino, { ...known, turn: this.#turn, names: names.set(basename(path), ino) })
    }
    this.#coverName(dirname(path), parent.ino)
  }

  #coverRange(path: string, offset: number, length: number): void {
    const found = this.#read(path, ++this.#turn, false)
    const known = found && this.#durable.get(found.ino)
    if (!found || known?.type !== 'file') return this.#coverFile(path)
    const bytes = Buffer.alloc(Math.max(known.bytes.length, offset + length))
    known.bytes.copy(bytes)
    const fd = openSync(path, 'r')
    try {
      readSync(fd, bytes, offset, length, offset)
    } finally {
      closeSync(fd)
    }
    this.#durable.set(found.ino, { ...known, turn: this.#turn, bytes })
  }

  // Copies

  #live(): Map<bigint, Inode> {
    const inodes = new Map<bigint, Inode>()
    const turn = ++this.#turn
    const visit = (path: string) => {
      const found = this.#read(path, turn)
      if (found === null) return
      inodes.set(found.ino, found.record)
      if (found.record.type === 'folder') for (const name of found.record.names.keys()) visit(join(path, name))
    }
    for (const place of this.#places) visit(place)
    return inodes
  }

  /** null: nothing, or what is no file, folder or link. */
  #read(path: string, turn: number, content = true): { ino: bigint; record: Inode } | null {
    const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false })
    if (!stat) return null
    const before = this.#before.get(stat.ino)
    const ino = before?.ino ?? stat.ino
    const ctimeNs = before?.ctimeNs === stat.ctimeNs ? before.ctimeNsBefore : stat.ctimeNs
    const more = { turn, mode: Number(stat.mode & 0o7777n), mtimeNs: stat.mtimeNs, ctimeNs }
    if (stat.isSymbolicLink()) return { ino, record: { ...more, type: 'link', target: readlinkSync(path) } }
    if (stat.isDirectory()) {
      const names = new Map<string, bigint>()
      for (const name of readdirSync(path)) {
        const child = lstatSync(join(path, name), { bigint: true, throwIfNoEntry: false })
        if (child?.isFile() || child?.isDirectory() || child?.isSymbolicLink())
          names.set(name, this.#before.get(child.ino)?.ino ?? child.ino)
      }
      return { ino, record: { ...more, type: 'folder', names } }
    }
    if (!stat.isFile()) return null
    const known = this.#durable.get(ino)
    const same = known?.type === 'file' && known.ctimeNs === ctimeNs && known.bytes.length === Number(stat.size)
    const bytes = same || !content ? (known?.type === 'file' ? known.bytes : Buffer.alloc(0)) : readFileSync(path)
    return { ino, record: { ...more, type: 'file', bytes } }
  }

  // Power loss

  /**
   * Puts what is left in the place of what the killed service had. Returns the files whose content was lost: what they held and
   * what they hold now.
   */
  restore(left: Left): { path: string; whole: Buffer; torn: Buffer }[] {
    this.#life++
    for (const connection of this.#connections) connection.destroy()
    const live = this.#live()
    const inodes: Inodes = left === 'synced' ? this.#durable : live
    const torn: { path: string; whole: Buffer; torn: Buffer }[] = []
    const roots = this.#places.map(place => this.#read(place, 0)?.ino as bigint)
    const grave = join(this.#folder, `life-${this.#life}`)
    mkdirSync(grave)
    // Never deleted: their inodes must not be given to other files.
    this.#places.forEach((place, index) => {
      renameSync(place, join(grave, String(index)))
    })
    const made = new Map<bigint, { ctimeNs: bigint; ino: bigint; ctimeNsBefore: bigint }>()
    /** By inode: where its content is already. Its other names are links to that, as they were. */
    const filled = new Map<bigint, { path: string; bytes: Buffer }>()
    const left_ = (path: string, ino: bigint, inode: FileRecord): Buffer => {
      if (left !== 'names') return inode.bytes
      const durable = this.#durable.get(ino)
      const old = durable?.type === 'file' ? durable.bytes : Buffer.alloc(0)
      if (old.equals(inode.bytes)) return inode.bytes
      if (basename(path) === DATABASE) return this.#someWritten(old, inode.bytes)
      const bytes = this.#torn(old, inode.bytes)
      torn.push({ path, whole: inode.bytes, torn: bytes })
      return bytes
    }
    const make = (path: string, ino: bigint): void => {
      const inode = inodes.get(ino)
      if (inode === undefined) return
      if (inode.type === 'link') symlinkSync(inode.target, path)
      else if (inode.type === 'folder') {
        mkdirSync(path)
        for (const [name, child] of inode.names) make(join(path, name), child)
        chmodSync(path, inode.mode)
      } else if (filled.has(ino)) {
        const { path: first, bytes } = filled.get(ino)!
        linkSync(first, path)
        if (!bytes.equals(inode.bytes)) torn.push({ path, whole: inode.bytes, torn: bytes })
        return
      } else {
        const bytes = left_(path, ino, inode)
        filled.set(ino, { path, bytes })
        writeFileSync(path, bytes)
        chmodSync(path, inode.mode)
        const fd = openSync(path, 'r+')
        try {
          setMtime(fd, inode.mtimeNs)
        } finally {
          closeSync(fd)
        }
      }
      const stat = lstatSync(path, { bigint: true })
      made.set(stat.ino, { ctimeNs: stat.ctimeNs, ino, ctimeNsBefore: inode.ctimeNs })
    }
    this.#places.forEach((place, index) => {
      make(place, roots[index] as bigint)
    })
    this.#before = made
    this.#newBoot()
    this.#writeInodes()
    this.#durable = this.#live()
    return torn
  }

  /** Some of the pages that were written since the last sync. */
  #someWritten(old: Buffer, live: Buffer): Buffer {
    const bytes = Buffer.alloc(Math.max(old.length, live.length))
    old.copy(bytes)
    for (let at = 0; at < live.length; at += PAGE_BYTES)
      if (this.#chance() < 0.5) live.copy(bytes, at, at, Math.min(at + PAGE_BYTES, live.length))
    return bytes
  }

  #torn(old: Buffer, live: Buffer): Buffer {
    const cut = Math.floor(this.#chance() * live.length)
    const zeros = Buffer.alloc(live.length)
    switch (Math.floor(this.#chance() * 4)) {
      case 0:
        return Buffer.alloc(0)
      case 1:
        return zeros
      case 2:
        return live.subarray(0, cut)
      default:
        old.copy(zeros)
        live.copy(zeros, 0, 0, cut)
        return zeros
    }
  }

  #newBoot(): void {
    const id = Array.from({ length: 32 }, () => Math.floor(this.#chance() * 16).toString(16)).join('')
    writeFileSync(join(this.#folder, 'boot'), `${id.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')}\n`)
  }

  #writeInodes(): void {
    const rows = [...this.#before].sort(([a], [b]) => (a < b ? -1 : 1))
    const bytes = Buffer.alloc(rows.length * 32)
    rows.forEach(([real, { ctimeNs, ino, ctimeNsBefore }], index) => {
      bytes.writeBigUInt64LE(real, index * 32)
      bytes.writeBigInt64LE(ctimeNs, index * 32 + 8)
      bytes.writeBigUInt64LE(ino, index * 32 + 16)
      bytes.writeBigInt64LE(ctimeNsBefore, index * 32 + 24)
    })
    writeFileSync(join(this.#folder, 'inodes'), bytes)
  }
}

/** New, and nothing of what is in it. */
function withoutContent(inode: Inode): Inode {
  if (inode.type === 'file') return { ...inode, bytes: Buffer.alloc(0) }
  return inode.type === 'folder' ? { ...inode, names: new Map() } : inode
}

/** Every thread of it. One may end while we look. */
function isStopped(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).every(task => {
      const stat = readFileSync(`/proc/${pid}/task/${task}/stat`, 'latin1')
      return 'TtZX'.includes(stat.charAt(stat.lastIndexOf(')') + 2))
    })
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return false
    throw error
  }
}
