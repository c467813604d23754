/**
 * The disk of the simulator: a tree in memory with inodes and hard links, which forgets in a crash what no completed sync covered.
 * It has the user's side as well: operations that another program would do, on any path, with the clock that was given.
 *
 * A name with a lone surrogate stands for one that is not valid UTF-8. Descriptors are made-up numbers that only `readFd` and `writeFd` of the same disk understand.
 */
import type { EntryPath } from '../../protocol/ids.ts'
import { OWN_FOLDER } from '../../protocol/path.ts'
import { type Disk, DiskError, type DiskStat, type PlaceResult } from './disk.ts'
import { Journal, type PowerLoss, type TornFile } from './disk-journal.ts'
import {
  checkOwnName,
  demandFile,
  isExpected,
  isUntouched,
  MARKER,
  MARKER_BYTES_MAX,
  newMode,
  refuseFolder,
  STAGING,
  VERSIONS,
  withExec,
} from './disk-rules.ts'
import { copyTree, type FileNode, type FolderNode, type Inode, type LinkNode, type TreeNode } from './memory-tree.ts'

export interface MemoryDiskOptions {
  /** The clock of this disk: what a write sets mtime and ctime to. */
  nowNs: () => bigint
  /** Steps of its mtimes: what they are rounded down to. */
  mtimeGrainNs?: bigint
  /** A sync completes within the call. Otherwise when `completeSync` is called. */
  autoSync?: boolean
  foldsCase?: boolean
  foldsUnicode?: boolean
  /** Identity of the file system. */
  device?: string
}

/** Made-up descriptors start here, so that one that leaks to a real call fails. */
const FIRST_FD = 1_000_000
const UMASK = 0o022
const NAME_BYTES_MAX = 255

export class MemoryDisk implements Disk {
  readonly foldsCase: boolean
  readonly foldsUnicode: boolean
  device: string
  autoSync: boolean
  /** Answers of `free`, and the point at which writes end in ENOSPC. */
  totalBytes = Number.POSITIVE_INFINITY
  /** Asked before each change that the arena makes; a code makes it fail with that. */
  fault: ((operation: string, path: string) => string | null) | null = null
  readonly #nowNs: () => bigint
  readonly #mtimeGrainNs: bigint
  #root: FolderNode
  #durable: FolderNode
  #inoNext = 2n
  #fdNext = FIRST_FD
  readonly #open = new Map<number, FileNode>()
  /** The volume, while it is not there. */
  #away: { root: FolderNode; durable: FolderNode; device: string } | null = null
  #nothing = false
  /** What happened since `#durable`. */
  readonly #journal = new Journal()
  #syncs: { snapshot: FolderNode; position: number; done: (error: DiskError | null) => void }[] = []

  constructor(options: MemoryDiskOptions) {
    this.#nowNs = options.nowNs
    this.#mtimeGrainNs = options.mtimeGrainNs ?? 1n
    this.autoSync = options.autoSync ?? false
    this.foldsCase = options.foldsCase ?? false
    this.foldsUnicode = options.foldsUnicode ?? false
    this.device = options.device ?? 'memory'
    this.#root = this.#newFolder()
    this.#durable = copyTree(this.#root)
  }

  // Looking

  stat(path: EntryPath): DiskStat | null {
    this.#mayFail('stat', path)
    return this.#statAny(path)
  }

  list(path: EntryPath | undefined): { names: string[]; invalid: string[] } {
    this.#mayFail('list', path ?? '')
    const names = [...this.#folder(path).children.keys()].filter(name => path !== undefined || name !== OWN_FOLDER)
    const invalid = names.filter(name => !name.isWellFormed())
    return { names: names.map(name => name.toWellFormed()), invalid: invalid.map(name => name.toWellFormed()) }
  }

  listStat(path: EntryPath | undefined): { entries: { name: string; stat: DiskStat }[]; invalid: string[] } {
    const { names, invalid } = this.list(path)
    const { children } = this.#folder(path)
    const entries: { name: string; stat: DiskStat }[] = []
    for (const name of names) {
      const node = children.get(name)
      if (node !== undefined) entries.push({ name, stat: statOf(node) })
    }
    return { entries, invalid }
  }

  readLink(path: EntryPath): string {
    const node = this.#demand(path)
    return node.type === 'symlink' ? node.target : fail('EINVAL', path)
  }

  read(path: EntryPath): { before: DiskStat; bytes: Uint8Array; after: DiskStat } {
    const node = this.#demandFile(path)
    return { before: statOf(node), bytes: node.bytes.slice(), after: statOf(node) }
  }

  open(path: EntryPath): { fd: number; stat: DiskStat } {
    return this.#openNode(this.#demandFile(path))
  }

  /** A descriptor of a file that is nowhere in the tree. */
  openApart(bytes: Uint8Array): number {
    return this.#openNode(this.#newFile(bytes, 0o600)).fd
  }

  close(fd: number): void {
    if (!this.#open.delete(fd)) fail('EBADF', String(fd))
  }

  beingWritten(path: EntryPath): boolean {
    return this.#demandFile(path).writers > 0
  }

  outsidePath(path: EntryPath): string {
    return `/memory/${path}`
  }

  // Staging

  stageFile(slot: string, bytes: Uint8Array, mtimeNs: bigint, exec: boolean): DiskStat {
    this.#mayFail('stageFile', slot)
    const staging = this.#own(STAGING, slot)
    this.#reserve(bytes.length)
    const node = this.#newFile(bytes.slice(), newMode(exec) & ~UMASK)
    node.mtimeNs = mtimeNs
    this.#put(staging, slot, node)
    return statOf(node)
  }

  stageOpen(slot: string, size: number): number {
    this.#mayFail('stageOpen', slot)
    const staging = this.#own(STAGING, slot)
    let node = staging.children.get(slot)
    if (node?.type !== 'file' || node.links > 1) {
      node = this.#newFile(new Uint8Array(size), newMode(false) & ~UMASK)
      this.#put(staging, slot, node)
    }
    return this.#openNode(node).fd
  }

  stageRead(slot: string, offset: number, length: number): Uint8Array {
    return this.#ownFile(STAGING, slot).bytes.slice(offset, offset + length)
  }

  stageFinish(slot: string, size: number, mtimeNs: bigint, exec: boolean): DiskStat {
    this.#mayFail('stageFinish', slot)
    const node = this.#ownFile(STAGING, slot)
    if (node.bytes.length !== size) node.bytes = resized(node.bytes, size)
    if (exec !== isExec(node)) node.mode = withExec(node.mode, exec)
    node.mtimeNs = mtimeNs
    this.#changed(node)
    return statOf(node)
  }

  stageLink(slot: string, target: string): DiskStat {
    this.#mayFail('stageLink', slot)
    if (target === '') fail('ENOENT', slot)
    const node = this.#newLink(target)
    this.#put(this.#own(STAGING, slot), slot, node)
    return statOf(node)
  }

  stageCopy(slot: string, from: EntryPath, clone = false): { before: DiskStat; after: DiskStat } {
    if (clone) fail('EOPNOTSUPP', slot)
    this.#mayFail('stageCopy', slot)
    const source = this.#demandFile(from)
    this.#copy(slot, source)
    return { before: statOf(source), after: statOf(source) }
  }

  stageCopyKept(slot: string, kept: string, clone = false): void {
    if (clone) fail('EOPNOTSUPP', slot)
    this.#mayFail('stageCopyKept', slot)
    this.#copy(slot, this.#ownFile(VERSIONS, kept))
  }

  stageMove(slot: string, to: string): void {
    this.#mayFail('stageMove', slot)
    const staging = this.#own(STAGING, slot)
    const node = staging.children.get(slot) ?? fail('ENOENT', slot)
    if (this.#own(STAGING, to).children.has(to)) fail('EEXIST', to)
    this.#rename(staging, slot, staging, to, node)
  }

  outsideSlot(slot: string): string {
    return `/memory/${OWN_FOLDER}/${STAGING}/${slot}`
  }

  stageBeingWritten(slot: string): boolean {
    return this.#demandFile(`${OWN_FOLDER}/${STAGING}/${slot}`).writers > 0
  }

  stageStat(slot: string): DiskStat | null {
    checkOwnName(slot)
    return this.#statAny(`${OWN_FOLDER}/${STAGING}/${slot}`)
  }

  stageRemove(slot: string): void {
    this.#removeOwn(STAGING, slot)
  }

  stageList(): string[] {
    return this.#listOwn(STAGING)
  }

  // Changing the tree

  place(slot: string, path: EntryPath, expected: DiskStat | null): PlaceResult {
    this.#mayFail('place', path)
    const staging = this.#own(STAGING, slot)
    const { folder, name } = this.#parent(path)
    const staged = staging.children.get(slot) ?? fail('ENOENT', slot)
    const there = folder.children.get(name)
    if (expected === null) {
      if (there !== undefined) return 'unexpected'
      this.#rename(staging, slot, folder, name, staged)
      return 'placed'
    }
    refuseFolder(expected, path)
    if (there === undefined || !isUntouched(statOf(there), expected)) return 'unexpected'
    const now = this.#nowNs()
    staging.children.set(slot, there)
    folder.children.set(name, staged)
    for (const node of [staged, there]) node.ctimeNs = now
    for (const node of [staging, folder]) node.mtimeNs = now
    this.#journal.together(() => {
      this.#journal.name({ folder: staging, name: slot, node: there, before: staged })
      this.#journal.name({ folder, name, node: staged, before: there })
    })
    return 'placed'
  }

  takeOut(path: EntryPath, slot: string, expected: DiskStat): PlaceResult {
    this.#mayFail('takeOut', path)
    refuseFolder(expected, path)
    const staging = this.#own(STAGING, slot)
    const { folder, name } = this.#parent(path)
    const node = folder.children.get(name)
    if (node === undefined || !isUntouched(statOf(node), expected)) return 'unexpected'
    this.#rename(folder, name, staging, slot, node)
    return 'placed'
  }

  move(from: EntryPath, to: EntryPath, expected: DiskStat): PlaceResult {
    this.#mayFail('move', from)
    const source = this.#parent(from)
    const target = this.#parent(to)
    const node = source.folder.children.get(source.name)
    if (node === undefined || !isUntouched(statOf(node), expected)) return 'unexpected'
    if (target.folder.children.has(target.name)) return 'unexpected'
    if (`${to}/`.startsWith(`${from}/`)) fail('EINVAL', to)
    this.#rename(source.folder, source.name, target.folder, target.name, node)
    return 'placed'
  }

  makeFolder(path: EntryPath): void {
    this.#mayFail('makeFolder', path)
    this.mkdir(path)
  }

  removeFolder(path: EntryPath): void {
    this.#mayFail('removeFolder', path)
    const { folder, name } = this.#parent(path)
    const node = folder.children.get(name) ?? fail('ENOENT', path)
    if (node.type !== 'dir') fail('ENOTDIR', path)
    if (node.children.size > 0) fail('ENOTEMPTY', path)
    this.#drop(folder, name)
  }

  setMeta(path: EntryPath, expected: DiskStat, mtimeNs: bigint | null, exec: boolean | null): PlaceResult {
    this.#mayFail('setMeta', path)
    const node = this.#find(path)
    if (node === null || !isExpected(statOf(node), expected)) return 'unexpected'
    if (node.type !== 'file') demandFile(statOf(node), path)
    else if (node.writers > 0) fail('EBUSY', path)
    if (exec !== null && exec !== isExec(node)) node.mode = withExec(node.mode, exec)
    if (mtimeNs !== null) node.mtimeNs = mtimeNs
    this.#changed(node)
    return 'placed'
  }

  // Version store

  keep(slot: string, kept: string): void {
    this.#mayFail('keep', kept)
    const staging = this.#own(STAGING, slot)
    const versions = this.#own(VERSIONS, kept)
    const node = staging.children.get(slot) ?? fail('ENOENT', slot)
    if (versions.children.has(kept)) fail('EEXIST', kept)
    this.#rename(staging, slot, versions, kept, node)
  }

  linkKept(kept: string, path: EntryPath): PlaceResult {
    this.#mayFail('linkKept', path)
    const node = this.#own(VERSIONS, kept).children.get(kept) ?? fail('ENOENT', kept)
    const { folder, name } = this.#parent(path)
    if (folder.children.has(name)) return 'unexpected'
    this.#put(folder, name, node)
    return 'placed'
  }

  keptOpen(kept: string): { fd: number; stat: DiskStat } {
    return this.#openNode(this.#ownFile(VERSIONS, kept))
  }

  outsideKept(kept: string): string {
    return `/memory/${OWN_FOLDER}/${VERSIONS}/${kept}`
  }

  keptStat(kept: string): DiskStat | null {
    checkOwnName(kept)
    return this.#statAny(`${OWN_FOLDER}/${VERSIONS}/${kept}`)
  }

  keptRemove(kept: string): void {
    this.#removeOwn(VERSIONS, kept)
  }

  keptList(): string[] {
    return this.#listOwn(VERSIONS)
  }

  // The file system

  together<Result>(steps: () => Result): Result {
    return steps()
  }

  /** Covers what was written before the call. With `autoSync` it calls back before it returns. */
  sync(done: (error: DiskError | null) => void): void {
    this.#syncs.push({ snapshot: copyTree(this.#root), position: this.#journal.position, done })
    if (this.autoSync) this.completeSync()
  }

  identity(): { device: string; rootIno: string; marker: string | null } {
    if (this.#nothing) fail('ENOENT', 'the root')
    const marker = this.#find(`${OWN_FOLDER}/${MARKER}`)
    const text = marker?.type === 'file' ? Buffer.from(marker.bytes).toString() : null
    return { device: this.device, rootIno: String(this.#root.ino), marker: text }
  }

  writeMarker(text: string): void {
    this.#mayFail('writeMarker', MARKER)
    this.#ownFolder(STAGING)
    this.#ownFolder(VERSIONS)
    const bytes = Buffer.from(text)
    if (bytes.length > MARKER_BYTES_MAX) throw new RangeError('the marker is too long')
    this.writeFile(`${OWN_FOLDER}/${MARKER}`, bytes)
  }

  free(): { freeBytes: number; totalBytes: number } {
    const totalBytes = Math.min(this.totalBytes, Number.MAX_SAFE_INTEGER)
    return { freeBytes: Math.max(0, totalBytes - usedBytes(this.#root)), totalBytes }
  }

  dispose(): void {
    this.#open.clear()
  }

  // Descriptors

  readFd(fd: number, offset: number, length: number): Uint8Array {
    return this.#opened(fd).bytes.slice(offset, offset + length)
  }

  writeFd(fd: number, offset: number, bytes: Uint8Array): void {
    const node = this.#opened(fd)
    const size = Math.max(node.bytes.length, offset + bytes.length)
    this.#reserve(size - node.bytes.length)
    const content = resized(node.bytes, size)
    content.set(bytes, offset)
    this.#setContent(node, content)
  }

  statFd(fd: number): DiskStat {
    return statOf(this.#opened(fd))
  }

  // Power

  /** Completes the syncs that wait, in their order; what they cover is durable, unless they fail with `code`. */
  completeSync(code: string | null = null): void {
    const syncs = this.#syncs
    this.#syncs = []
    for (const { snapshot, position, done } of syncs) {
      if (code === null) {
        this.#durable = snapshot
        this.#journal.durable(position)
      }
      done(code === null ? null : new DiskError(code, `${code}: sync`))
    }
  }

  /**
   * The volume goes, in order: all that was written is durable. What is asked for then is not there at all, or its mount point
   * shows, an empty folder of another device. Syncs that wait fail; open descriptors stay with the volume.
   */
  unmount(shows: 'nothing' | 'empty'): void {
    this.#away ??= { root: this.#root, durable: copyTree(this.#root), device: this.device }
    this.completeSync('EIO')
    this.#nothing = shows === 'nothing'
    this.#root = this.#newFolder()
    this.#durable = copyTree(this.#root)
    this.#journal.clear()
    this.device = `under ${this.#away.device}`
  }

  mount(): void {
    if (this.#away === null) return
    this.#root = this.#away.root
    this.#durable = this.#away.durable
    this.#journal.clear()
    this.device = this.#away.device
    this.#away = null
    this.#nothing = false
    this.completeSync('EIO')
  }

  get mounted(): boolean {
    return this.#away === null
  }

  /** Descriptors that are open. */
  get openFiles(): number {
    return this.#open.size
  }

  get syncsWaiting(): number {
    return this.#syncs.length
  }

  /**
   * Power loss: back to what the last completed sync covered, with what else `loss` leaves. Open descriptors and waiting syncs are
   * gone. Returns the files that show what nobody wrote.
   */
  crash(loss: PowerLoss = { steps: 'none', torn: 0, chance: () => 0 }): TornFile[] {
    const { root, torn } = this.#journal.after(this.#durable, loss)
    this.#root = root
    // After it has started again, nothing is only in memory.
    this.#durable = copyTree(root)
    this.#journal.clear()
    this.#syncs = []
    this.#open.clear()
    return torn
  }

  // The user's side. Paths are strings: users may touch our own folder, too. Throws DiskError like the system calls would.

  /** Writes over a file in place (its inode stays), or creates it. */
  writeFile(path: string, bytes: Uint8Array): void {
    const { folder, name } = this.#parent(path)
    const there = folder.children.get(name)
    if (there === undefined) this.#put(folder, name, this.#newFile(bytes.slice(), newMode(false) & ~UMASK))
    else if (there.type === 'file') this.#setContent(there, bytes.slice())
    else demandFile(statOf(there), path)
  }

  readFile(path: string): Uint8Array {
    return this.#demandFile(path).bytes.slice()
  }

  /** Like rename(2): over a file or an empty folder, if there is one. */
  rename(from: string, to: string): void {
    const source = this.#parent(from)
    const target = this.#parent(to)
    const node = source.folder.children.get(source.name) ?? fail('ENOENT', from)
    const there = target.folder.children.get(target.name)
    if (there === node) return
    if (`${to}/`.startsWith(`${from}/`)) fail('EINVAL', to)
    if (there !== undefined) {
      if (there.type === 'dir' && node.type !== 'dir') fail('EISDIR', to)
      if (there.type !== 'dir' && node.type === 'dir') fail('ENOTDIR', to)
      if (there.type === 'dir' && there.children.size > 0) fail('ENOTEMPTY', to)
    }
    this.#rename(source.folder, source.name, target.folder, target.name, node)
  }

  link(from: string, to: string): void {
    const node = this.#demandFile(from)
    this.#putNew(to, node)
  }

  /** A file, symlink or folder with all that is in it; nothing if it is not there. */
  remove(path: string): void {
    const { folder, name } = this.#parent(path)
    const node = folder.children.get(name)
    if (node === undefined) return
    // Not one step on a disk: what is in it goes first.
    if (node.type === 'dir') for (const child of [...node.children.keys()]) this.remove(`${path}/${child}`)
    this.#drop(folder, name)
  }

  mkdir(path: string): void {
    this.#putNew(path, this.#newFolder())
  }

  symlink(target: string, path: string): void {
    this.#putNew(path, this.#newLink(target))
  }

  chmod(path: string, mode: number): void {
    const node = this.#demand(path)
    node.mode = mode
    this.#changed(node)
  }

  touch(path: string, mtimeNs: bigint): void {
    const node = this.#demand(path)
    node.mtimeNs = mtimeNs
    this.#changed(node)
  }

  /** Some program has the file open for writing until what is returned is called. */
  holdForWriting(path: string): () => void {
    const node = this.#demandFile(path)
    node.writers++
    return () => {
      node.writers--
    }
  }

  // Nodes

  #inode(mode: number): Inode {
    const now = this.#nowNs()
    return { ino: this.#inoNext++, mtimeNs: now - (now % this.#mtimeGrainNs), ctimeNs: now, mode, links: 0 }
  }

  #newFolder(): FolderNode {
    return { type: 'dir', children: new Map(), ...this.#inode(0o755) }
  }

  #newFile(bytes: Uint8Array, mode: number): FileNode {
    return { type: 'file', bytes, writers: 0, ...this.#inode(mode) }
  }

  #newLink(target: string): LinkNode {
    return { type: 'symlink', target, ...this.#inode(0o777) }
  }

  #put(folder: FolderNode, name: string, node: TreeNode): void {
    if (folder.children.has(name)) this.#drop(folder, name)
    const isNew = node.links === 0
    folder.children.set(name, node)
    node.links++
    node.ctimeNs = this.#nowNs()
    folder.mtimeNs = node.ctimeNs
    this.#journal.name({ folder, name, node, before: null })
    if (isNew && node.type === 'file') this.#journal.state(node)
  }

  #putNew(path: string, node: TreeNode): void {
    const { folder, name } = this.#parent(path)
    if (folder.children.has(name)) fail('EEXIST', path)
    this.#put(folder, name, node)
  }

  #drop(folder: FolderNode, name: string): void {
    const node = folder.children.get(name) as TreeNode
    folder.children.delete(name)
    node.links--
    node.ctimeNs = this.#nowNs()
    folder.mtimeNs = node.ctimeNs
    this.#journal.name({ folder, name, node: null, before: node })
  }

  /** One step, over whatever is there. */
  #rename(from: FolderNode, name: string, to: FolderNode, toName: string, node: TreeNode): void {
    this.#journal.together(() => {
      if (to.children.has(toName)) this.#drop(to, toName)
      this.#drop(from, name)
      // It has a name all the time.
      node.links++
      this.#put(to, toName, node)
      node.links--
    })
  }

  /** Its metadata changed. */
  #changed(node: TreeNode): void {
    node.ctimeNs = this.#nowNs()
    if (node.type === 'file') this.#journal.state(node)
  }

  #setContent(node: FileNode, bytes: Uint8Array): void {
    const now = this.#nowNs()
    node.bytes = bytes
    node.mtimeNs = now - (now % this.#mtimeGrainNs)
    node.ctimeNs = now
    this.#journal.state(node)
  }

  #copy(slot: string, source: FileNode): void {
    const staging = this.#own(STAGING, slot)
    this.#reserve(source.bytes.length)
    const node = this.#newFile(source.bytes, newMode(isExec(source)) & ~UMASK)
    node.mtimeNs = source.mtimeNs
    this.#put(staging, slot, node)
  }

  #openNode(node: FileNode): { fd: number; stat: DiskStat } {
    const fd = this.#fdNext++
    this.#open.set(fd, node)
    return { fd, stat: statOf(node) }
  }

  #opened(fd: number): FileNode {
    return this.#open.get(fd) ?? fail('EBADF', String(fd))
  }

  #reserve(bytes: number): void {
    if (bytes > 0 && this.totalBytes !== Number.POSITIVE_INFINITY && this.free().freeBytes < bytes)
      fail('ENOSPC', `${bytes} bytes`)
  }

  #mayFail(operation: string, path: string): void {
    const code = this.fault?.(operation, path) ?? null
    if (code !== null) fail(code, path)
  }

  // Paths

  #folder(path: string | undefined): FolderNode {
    if (this.#nothing) return fail('ENOENT', path ?? '')
    let folder = this.#root
    for (const name of path?.split('/') ?? []) {
      const node = folder.children.get(name) ?? fail('ENOENT', path as string)
      if (node.type === 'symlink') return fail('ELOOP', path as string)
      if (node.type !== 'dir') return fail('ENOTDIR', path as string)
      folder = node
    }
    return folder
  }

  #parent(path: string): { folder: FolderNode; name: string } {
    const slash = path.lastIndexOf('/')
    const name = path.slice(slash + 1)
    if (Buffer.byteLength(name) > NAME_BYTES_MAX) fail('ENAMETOOLONG', path)
    return { folder: this.#folder(slash < 0 ? undefined : path.slice(0, slash)), name }
  }

  #find(path: string): TreeNode | null {
    if (this.#nothing) return null
    let node: TreeNode | undefined = this.#root
    for (const name of path.split('/')) {
      if (node?.type !== 'dir') return null
      node = node.children.get(name)
    }
    return node ?? null
  }

  #demand(path: string): TreeNode {
    const { folder, name } = this.#parent(path)
    return folder.children.get(name) ?? fail('ENOENT', path)
  }

  #demandFile(path: string): FileNode {
    const node = this.#demand(path)
    if (node.type === 'file') return node
    demandFile(statOf(node), path)
    return fail('EINVAL', path)
  }

  #statAny(path: string): DiskStat | null {
    const node = this.#find(path)
    return node === null ? null : statOf(node)
  }

  // Our own folder

  #ownFolder(which: string): FolderNode {
    if (this.#nothing) return fail('ENOENT', which)
    let folder = this.#root
    for (const name of [OWN_FOLDER, which]) {
      let node = folder.children.get(name)
      if (node === undefined) {
        node = this.#newFolder()
        this.#put(folder, name, node)
      }
      if (node.type !== 'dir') return fail(node.type === 'symlink' ? 'ELOOP' : 'ENOTDIR', name)
      folder = node
    }
    return folder
  }

  #own(which: string, name: string): FolderNode {
    checkOwnName(name)
    return this.#ownFolder(which)
  }

  #ownFile(which: string, name: string): FileNode {
    checkOwnName(name)
    return this.#demandFile(`${OWN_FOLDER}/${which}/${name}`)
  }

  #removeOwn(which: string, name: string): void {
    this.#mayFail('remove', name)
    checkOwnName(name)
    if (this.#find(`${OWN_FOLDER}/${which}/${name}`) !== null) this.#drop(this.#ownFolder(which), name)
  }

  #listOwn(which: string): string[] {
    const folder = this.#find(`${OWN_FOLDER}/${which}`)
    return folder?.type === 'dir' ? [...folder.children.keys()] : []
  }
}

function statOf(node: TreeNode): DiskStat {
  return {
    type: node.type,
    size: sizeOf(node),
    mtimeNs: node.mtimeNs,
    ctimeNs: node.ctimeNs,
    ino: node.ino,
    exec: isExec(node),
    links: node.links,
  }
}

function sizeOf(node: TreeNode): number {
  if (node.type === 'file') return node.bytes.length
  return node.type === 'symlink' ? Buffer.byteLength(node.target) : 0
}

function isExec(node: TreeNode): boolean {
  return (node.mode & 0o111) !== 0
}

function resized(bytes: Uint8Array, size: number): Uint8Array {
  const content = new Uint8Array(size)
  content.set(bytes.subarray(0, size))
  return content
}

function usedBytes(node: TreeNode, seen = new Set<TreeNode>()): number {
  if (seen.has(node)) return 0
  seen.add(node)
  if (node.type !== 'dir') return sizeOf(node)
  let bytes = 0
  for (const child of node.children.values()) bytes += usedBytes(child, seen)
  return bytes
}

function fail(code: string, path: string): never {
  throw new DiskError(code, `${code}: '${path}'`)
}
