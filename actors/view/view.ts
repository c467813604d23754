/**
 * The file system that the kernel sees: requests in, replies and notifications out, over a source that has the files.
 *
 * It answers for node numbers, open handles, what the kernel may keep in its cache, and for the customs of Linux file systems
 * that a source need not know. It does no I/O of its own but on descriptors that the source gave it. Of those descriptors content
 * is read and written by `device-loop.ts`, where requests arrive; a handle's number is then the descriptor itself.
 *
 * Requests are answered side by side: one that waits for its source holds up no other. The kernel sees to it that what must not
 * overlap does not (it locks a folder while something is made or removed in it, and closes a file only when all is answered).
 */
import { constants, fstatSync } from 'node:fs'
import { constants as osConstants } from 'node:os'
import { setMode } from '../arena/posix-calls.ts'
import {
  isForeignAttribute,
  type Negotiated,
  negotiate,
  OPEN_DIRECT_IO,
  OPEN_KEEP_CACHE,
  OPEN_KILL_SUIDGID,
  OPEN_PASSTHROUGH,
  OUT_HEADER_BYTES,
  SET,
  TRANSFER_BYTES_MAX,
  WRITE_KILL_SUIDGID,
} from './fuse-protocol.ts'
import {
  attrBody,
  createBody,
  entryBody,
  ListingBody,
  type NodeEntry,
  nanosecondsOf,
  notifyInvalidEntry,
  notifyInvalidInode,
  type OpenAnswer,
  offsetBody,
  openBody,
  reply,
  replyError,
  sizeBody,
  statfsBody,
  writeReplyHeader,
} from './fuse-reply.ts'
import { type Name, type Operation, type Request, readRequest } from './fuse-request.ts'
import { Interruptions, type InterruptionsOutlet } from './interruptions.ts'
import { closeKept, kept } from './kept.ts'
import { type Node, NodeTable } from './node-table.ts'
import { PathOrder } from './path-order.ts'
import {
  allocate,
  copyRange,
  lookAt,
  openFollowing,
  readContent,
  replaceDescriptor,
  seek,
  syncContent,
  writeContent,
} from './view-calls.ts'
import {
  type Answer,
  type Changes,
  type OpenFile,
  type OpenFolder,
  type OpenHow,
  type SourceChange,
  type SourceEntry,
  ViewError,
  type ViewSource,
} from './view-source.ts'

/** Files and folders open at once. */
export const HANDLES_MAX = 65_536
/** Requests that wait for their source. */
export const RUNNING_MAX = 4096
/** How often something is begun again because a folder was renamed meanwhile. */
const TRIES_MAX = 10
/** Handles that are no descriptors are numbered from here. */
export const VIRTUAL_HANDLE = 2 ** 32
/** A file that changed later than this before it was opened may change again within one tick of its clock. */
const STEADY_NS = 50_000_000n
/** What one COPY_FILE_RANGE does; the program asks again for the rest. */
const COPY_BYTES_MAX = 64 * 1024 * 1024

const SET_ID_BITS = 0o6000
const TYPE_MASK = 0o170000
const TYPE_FILE = 0o100000
const RENAME_KEEP = 1
const RENAME_EXCHANGE = 2
const XATTR_CREATE = 1
const XATTR_REPLACE = 2
const SEEK_DATA = 3
const SEEK_HOLE = 4

export interface ViewLimits {
  handlesMax?: number
  runningMax?: number
}

/** Where a view's words go, and what it cannot know by itself. */
export interface ViewOutlet extends InterruptionsOutlet {
  /** Not to be kept: its memory is used again. */
  reply(bytes: Uint8Array): void
  /**
   * A notification. Not to be written from the thread that answers: the kernel takes a folder's lock for it, which a request
   * that waits for this thread may hold.
   */
  notify(bytes: Uint8Array): void
  /** The kernel's answer to INIT is on its way; null: it is too old. */
  negotiated(result: Negotiated | null): void
  log(event: 'view_defect' | 'view_full', fields: Record<string, unknown>): void
  /** Nanoseconds since 1970. */
  now(): bigint
  /** Registers a file for requests that the kernel answers itself; 0 if it does not. */
  openBacking(descriptor: number): number
  closeBacking(backing: number): void
}

interface FileHandle {
  readonly kind: 'file'
  readonly node: Node
  readonly how: OpenHow
  file: OpenFile
  /** What was opened instead, once the file had become a real one. */
  former: OpenFile | null
  /** Requests on it that are under way. */
  busy: number
  released: boolean
  passthrough: boolean
}

interface FolderHandle {
  readonly kind: 'folder'
  readonly node: Node
  readonly file: OpenFolder
  /** Names as they were when it was read from its start; null: not read yet. */
  names: readonly string[] | null
  /** What `.` and `..` are. */
  dots: readonly SourceEntry[]
  busy: number
  released: boolean
}

/** A name in a folder. */
interface Child {
  readonly parent: Node
  readonly name: string
  readonly path: string
}

type Handle = FileHandle | FolderHandle

/** The kernel's number for a node's file, while anybody has it open that way. */
interface Backing {
  readonly number: number
  users: number
  /** Which file that is. */
  readonly file: string
}

const errnos: Readonly<Record<string, number>> = osConstants.errno
const { EIO } = osConstants.errno

/** errno of an error by its `code`; 0 if it has none and is a defect. */
function errnoOf(error: unknown): number {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return 0
  return errnos[error.code] ?? 0
}

export class View {
  readonly #source: ViewSource
  readonly #outlet: ViewOutlet
  readonly #nodes: NodeTable
  readonly #handles = new Map<number, Handle>()
  /** Who has a node open. */
  readonly #open = new Map<Node, Set<Handle>>()
  readonly #backings = new Map<Node, Backing>()
  /** Requests that wait and can be interrupted. */
  readonly #waiting: Interruptions
  readonly #order: PathOrder
  /** How many times something was renamed. */
  #moves = 0
  readonly #wantsPassthrough: boolean
  readonly #handlesMax: number
  readonly #runningMax: number
  #passthrough = false
  #nextHandle = VIRTUAL_HANDLE
  readonly #unsubscribe: () => void
  /** A reply with content that was there. */
  readonly #content = new Uint8Array(OUT_HEADER_BYTES + TRANSFER_BYTES_MAX)
  /** Root may write to set-user-id files without losing the bits; for others the kernel below clears them. */
  readonly #clearsIds = process.geteuid?.() === 0

  /** @param root what the source says of its path '' */
  constructor(
    source: ViewSource,
    root: SourceEntry,
    outlet: ViewOutlet,
    options: ViewLimits & { passthrough: boolean },
  ) {
    this.#source = source
    this.#outlet = outlet
    this.#waiting = new Interruptions(outlet)
    this.#order = new PathOrder(outlet)
    this.#nodes = new NodeTable(root.id)
    this.#wantsPassthrough = options.passthrough
    this.#handlesMax = options.handlesMax ?? HANDLES_MAX
    this.#runningMax = options.runningMax ?? RUNNING_MAX
    this.#unsubscribe = source.subscribe(change => this.#changed(change))
  }

  /** How much is open and known, for status and tests. */
  get counts(): { nodes: number; handles: number; running: number } {
    return { nodes: this.#nodes.size, handles: this.#handles.size, running: this.#waiting.size }
  }

  /** Takes a request as it was read from the device. `bytes` is the view's from now on. */
  receive(bytes: Uint8Array): void {
    const request = readRequest(bytes)
    switch (request.op) {
      case 'FORGET':
        return this.#forget(request.node, request.count)
      case 'BATCH_FORGET':
        for (const { node, count } of request.forgets) this.#forget(node, count)
        return
      case 'INTERRUPT':
        return this.#waiting.interrupt(request.interrupted)
      case 'INIT':
        return this.#init(request)
      default:
        void this.#serve(request)
    }
  }

  /** Ends all that waits, and lets nothing wait any more. */
  stop(): void {
    this.#unsubscribe()
    this.#waiting.stop()
  }

  /** Closes all that is open. Nobody may use a handle any more. */
  close(): void {
    this.stop()
    for (const fh of [...this.#handles.keys()]) this.#release(fh)
  }

  #init(request: Operation<'INIT'>): void {
    const result = negotiate(request, { passthrough: this.#wantsPassthrough })
    this.#passthrough = result?.passthrough ?? false
    this.#outlet.reply(
      result === null ? replyError(request.unique, errnos.EPROTO ?? EIO) : reply(request.unique, result.body),
    )
    this.#outlet.negotiated(result)
  }

  /** Answers one request, whatever happens: without an answer the program would hang. */
  async #serve(request: Request): Promise<void> {
    try {
      if (request.op === 'READ' && this.#readNow(request)) return
      const body = await (request.op === 'READ' || request.op === 'OPEN' ? this.#wait(request) : this.#answer(request))
      this.#outlet.reply(reply(request.unique, body))
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === 0) this.#outlet.log('view_defect', { operation: request.op, error: describe(error) })
      this.#outlet.reply(replyError(request.unique, errno === 0 ? EIO : errno))
    }
  }

  /**
   * What may take long because of content that is elsewhere. Whoever is to end gets away at once, without waiting for the source to
   * notice, and opens it again: the source empties nothing any more then. All else is done to its end, as on a disk: a folder that was made
   * must not be told as not made.
   */
  #wait(request: Operation<'READ' | 'OPEN'>): Promise<Uint8Array> {
    const { unique, pid } = request
    if (this.#waiting.size >= this.#runningMax) {
      this.#waiting.passed(unique)
      this.#outlet.log('view_full', { running: this.#waiting.size })
      throw new ViewError('EBUSY', 'too many requests wait')
    }
    const signal = this.#waiting.begin(unique, pid)
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => {
        this.#waiting.end(unique)
        reject(new ViewError('EINTR', 'interrupted'))
      })
      const done = request.op === 'READ' ? this.#read(request, signal) : this.#openFile(request, signal)
      done.finally(() => this.#waiting.end(unique)).then(resolve, reject)
    })
  }

  /** Body of the reply. */
  #answer(request: Exclude<Request, { op: 'READ' | 'OPEN' }>): Answer<Uint8Array | undefined> {
    switch (request.op) {
      case 'LOOKUP':
        return this.#lookup(request)
      case 'GETATTR':
        return this.#getAttributes(request)
      case 'SETATTR':
        return this.#setAttributes(request)
      case 'READLINK':
        return this.#readLink(request)
      case 'SYMLINK':
        return this.#make(request, path => this.#source.makeSymlink(path, request.target, request))
      case 'MKNOD':
        return this.#make(request, path => this.#source.makeNode(path, request.mode, request))
      case 'MKDIR':
        return this.#make(request, path => this.#source.makeFolder(path, request.mode, request))
      case 'LINK':
        return this.#make(request, path => this.#source.link(this.#path(request.oldNode), path))
      case 'UNLINK':
      case 'RMDIR':
        return this.#remove(request)
      case 'RENAME':
        return this.#rename(request)
      case 'CREATE':
        return this.#create(request)
      case 'WRITE':
        return this.#write(request)
      case 'RELEASE':
      case 'RELEASEDIR':
        this.#release(request.fh)
        return undefined
      case 'FSYNC':
        return this.#sync(request)
      case 'FSYNCDIR':
        return this.#syncFolder(request)
      case 'OPENDIR':
        return this.#openFolder(request)
      case 'READDIR':
      case 'READDIRPLUS':
        return this.#readFolder(request)
      case 'STATFS':
        return this.#space()
      case 'GETXATTR':
        return this.#getAttribute(request)
      case 'LISTXATTR':
        return this.#listAttributes(request)
      case 'SETXATTR':
        return this.#setAttribute(request)
      case 'REMOVEXATTR':
        return this.#removeAttribute(request)
      case 'FALLOCATE':
        return this.#allocate(request)
      case 'LSEEK':
        return this.#seek(request)
      case 'COPY_FILE_RANGE':
        return this.#copyRange(request)
      case 'DESTROY':
        return undefined
      case 'IOCTL':
        throw new ViewError('ENOTTY', 'no ioctl')
      // The kernel never asks again. FLUSH: what was written is with the source already. ACCESS: `default_permissions` decides.
      case 'FLUSH':
      case 'ACCESS':
      case 'unknown':
        throw new ViewError('ENOSYS', request.op)
      default:
        throw new Error(`${request.op} is served elsewhere`)
    }
  }

  // Nodes

  #node(number: number): Node {
    const node = this.#nodes.get(number)
    if (node === undefined) throw new ViewError('ESTALE', `node ${number}`)
    return node
  }

  #path(number: number): string {
    const path = this.#nodes.pathOf(this.#node(number))
    if (path === null) throw new ViewError('ESTALE', `node ${number} has no name`)
    return path
  }

  /** A folder, and the path of a name in it. */
  #child(number: number, name: Name): Child {
    const checked = nameOf(name)
    const folder = this.#path(number)
    return { parent: this.#node(number), name: checked, path: folder === '' ? checked : `${folder}/${checked}` }
  }

  /** Does something at a name in a folder; once more where the folder was renamed while that waited. */
  async #at<Result>(number: number, name: Name, action: (path: string) => Answer<Result>): Promise<Result> {
    for (let tries = 1; ; tries++) {
      const { path } = this.#child(number, name)
      const moves = this.#moves
      try {
        return await this.#order.at(path, action(path))
      } catch (error) {
        if (!isMissing(error) || this.#moves === moves || tries >= TRIES_MAX) throw error
      }
    }
  }

  /** The node of what was found at a name in a folder. */
  #reach(number: number, name: Name, entry: SourceEntry): Node {
    const node = this.#nodes.reach(this.#node(number), nameOf(name), entry.id)
    if (node === null) throw new ViewError('ESTALE', `'${name}' is a folder that it is in`)
    return node
  }

  #give(node: Node, entry: SourceEntry): NodeEntry {
    this.#nodes.give(node)
    return { node: node.number, generation: 0, attributes: entry.attributes, validMs: this.#validMs(entry) }
  }

  #validMs(entry: SourceEntry): number {
    return entry.validMs ?? this.#source.validMs
  }

  #forget(number: number, count: number): void {
    this.#nodes.forget(number, count)
  }

  async #lookup({ node, name }: Operation<'LOOKUP'>): Promise<Uint8Array> {
    if (typeof name !== 'string' && name.fault === 'EILSEQ') throw new ViewError('ENOENT', 'a name that is not UTF-8')
    try {
      let entry: SourceEntry
      let moves: number
      let tries = 0
      // What was found by a former path may be something else.
      do {
        moves = this.#moves
        entry = await this.#at(node, name, path => this.#source.lookup(path))
      } while (this.#moves !== moves && ++tries < TRIES_MAX)
      return entryBody(this.#give(this.#reach(node, name, entry), entry))
    } catch (error) {
      const parent = this.#nodes.get(node)
      if (isMissing(error) && parent !== undefined && typeof name === 'string') this.#nodes.detach(parent, name)
      throw error
    }
  }

  async #getAttributes({ node: number, fh }: Operation<'GETATTR'>): Promise<Uint8Array> {
    const entry = await this.#look(this.#node(number), fh)
    return attrBody(entry.attributes, this.#validMs(entry))
  }

  /** What a node is now: by the handle if there is one, by its name, or, where it has none, by whatever has it open. */
  async #look(node: Node, fh: number | null): Promise<SourceEntry> {
    const handle = fh === null ? undefined : this.#handles.get(fh)
    if (handle !== undefined) return handle.file.look()
    const entry = await this.#byName(node, path => this.#source.lookup(path))
    if (entry?.id === node.id) return entry
    if (entry !== null && node !== this.#nodes.root) this.#loseName(node)
    const open = this.#anyOpen(node)
    if (open === undefined) throw new ViewError('ESTALE', `node ${node.number} has no name`)
    return open.file.look()
  }

  /** Does something by a name of a node that leads somewhere. null: none does. */
  async #byName<Result>(node: Node, action: (path: string) => Answer<Result>): Promise<Result | null> {
    for (let tries = 1; ; tries++) {
      const [place] = node.places
      const path = this.#nodes.pathOf(node)
      if (path === null) return null
      const moves = this.#moves
      try {
        return await this.#order.at(path, action(path))
      } catch (error) {
        if (place === undefined || !isMissing(error)) throw error
        if (this.#moves !== moves && tries < TRIES_MAX) continue
        // It was removed or renamed just now: another of its names may be there, and under this one the kernel looks again.
        if (node.places[0] === place && this.#nodes.pathOf(node) === path) this.#nodes.detach(place.parent, place.name)
      }
    }
  }

  /** Something else was found under a node's name. */
  #loseName(node: Node): void {
    const place = node.places[0]
    if (place !== undefined) this.#nodes.detach(place.parent, place.name)
  }

  #anyOpen(node: Node): Handle | undefined {
    for (const handle of this.#open.get(node) ?? []) return handle
    return undefined
  }

  async #setAttributes(request: Operation<'SETATTR'>): Promise<Uint8Array> {
    const node = this.#node(request.node)
    const { valid } = request
    const changes: Changes = {}
    if (valid & SET.MODE) changes.mode = request.mode & 0o7777
    if (valid & SET.UID) changes.uid = request.uid
    if (valid & SET.GID) changes.gid = request.gid
    if (valid & SET.SIZE) changes.size = request.size
    if (valid & SET.ATIME)
      changes.atime = valid & SET.ATIME_NOW ? 'now' : nanosecondsOf(request.atime, request.atimensec)
    if (valid & SET.MTIME)
      changes.mtime = valid & SET.MTIME_NOW ? 'now' : nanosecondsOf(request.mtime, request.mtimensec)
    if (valid & SET.SIZE && valid & SET.KILL_SUIDGID && this.#clearsIds && changes.mode === undefined) {
      const { mode } = (await this.#look(node, null)).attributes
      if (mode & SET_ID_BITS) changes.mode = mode & 0o7777 & ~SET_ID_BITS
    }
    const handle = valid & SET.FH ? this.#handles.get(request.fh) : undefined
    const named = await this.#byName(node, path => {
      const resized = handle === undefined && valid & SET.SIZE && this.#readOnDemand(node).length > 0
      return resized ? this.#resize(node, path, changes) : this.#source.change(path, handle?.file ?? null, changes)
    })
    const entry = named ?? (await this.#changeNameless(node, handle ?? this.#anyOpen(node), changes))
    if (entry.id !== node.id) {
      this.#loseName(node)
      throw new ViewError('ESTALE', 'something else has this name now')
    }
    // It may lose its name, and then they are all that tells of it.
    for (const reader of this.#readOnDemand(node)) reader.file = { ...reader.file, look: () => entry }
    if (valid & SET.SIZE) node.cached = null
    return attrBody(entry.attributes, this.#validMs(entry))
  }

  #changeNameless(node: Node, open: Handle | undefined, changes: Changes): Answer<SourceEntry> {
    if (open === undefined) throw new ViewError('ESTALE', `node ${node.number} has no name`)
    return this.#source.change(null, open.file, changes)
  }

  /** Handles that read a file where its content is, and not the real file. */
  #readOnDemand(node: Node): FileHandle[] {
    const handles = [...(this.#open.get(node) ?? [])].filter(handle => handle.kind === 'file')
    return handles.filter(({ file }) => file.descriptor === null || file.copied)
  }

  /** Cuts off or extends a file that somebody reads on demand, who is to see it: so it is opened to be written, as by a program. */
  async #resize(node: Node, path: string, changes: Changes): Promise<SourceEntry> {
    const how = { read: false, write: true, append: false, truncate: changes.size === 0 }
    const file = await this.#source.open(path, how, new AbortController().signal)
    try {
      if (file.entry.id !== node.id) return file.entry
      if (file.descriptor !== null && !file.copied) this.#becameReal(node, file)
      return await this.#source.change(path, file, changes)
    } finally {
      file.close()
    }
  }

  async #readLink({ node }: Operation<'READLINK'>): Promise<Uint8Array> {
    return Buffer.from(await this.#source.readLink(this.#path(node)))
  }

  async #make(
    request: Operation<'SYMLINK' | 'MKNOD' | 'MKDIR' | 'LINK'>,
    make: (path: string) => Answer<SourceEntry>,
  ): Promise<Uint8Array> {
    const entry = await this.#at(request.node, request.name, make)
    return entryBody(this.#give(this.#reach(request.node, request.name, entry), entry))
  }

  async #remove(request: Operation<'UNLINK' | 'RMDIR'>): Promise<undefined> {
    await this.#at(request.node, request.name, path =>
      request.op === 'UNLINK' ? this.#source.remove(path) : this.#source.removeFolder(path),
    )
    this.#nodes.detach(this.#node(request.node), nameOf(request.name))
    return undefined
  }

  async #rename(request: Operation<'RENAME'>): Promise<undefined> {
    const { flags } = request
    if (flags !== 0 && flags !== RENAME_KEEP && flags !== RENAME_EXCHANGE)
      throw new ViewError('EINVAL', 'unknown flags')
    const how = flags === 0 ? 'replace' : flags === RENAME_KEEP ? 'keep' : 'exchange'
    const from = () => this.#child(request.node, request.name)
    const to = () => this.#child(request.newParent, request.newName)
    const action = async () => {
      const [source, target] = [from(), to()]
      let isMoved = false
      const move = () => {
        if (isMoved) return
        isMoved = true
        this.#moves++
        this.#nodes.move(source.parent, source.name, target.parent, target.name, how === 'exchange')
      }
      await this.#source.rename(source.path, target.path, how, move)
      move()
    }
    await this.#order.rename(() => [from().path, to().path], action)
  }

  // Files

  async #openFile(request: Operation<'OPEN'>, signal: AbortSignal): Promise<Uint8Array> {
    this.#checkRoom()
    const node = this.#node(request.node)
    const how = howOf(request.flags)
    const file = await this.#openNode(node, how, signal)
    if (signal.aborted) {
      // Nobody will ever close it.
      file.close()
      throw new ViewError('EINTR', 'interrupted')
    }
    if (how.truncate && request.openFlags & OPEN_KILL_SUIDGID) clearIds(file, this.#clearsIds)
    return openBody(this.#opened(node, file, how))
  }

  async #openNode(node: Node, how: OpenHow, signal: AbortSignal): Promise<OpenFile> {
    for (let tries = 1; ; tries++) {
      const moves = this.#moves
      const named = await this.#byName(node, path => this.#source.open(path, how, signal))
      const file = named ?? this.#openAgain(node, how)
      if (file.entry.id === node.id) return file
      file.close()
      // By a former path something else was opened.
      if (this.#moves !== moves && tries < TRIES_MAX) continue
      if (named !== null) this.#loseName(node)
      throw new ViewError('ESTALE', 'something else has this name now')
    }
  }

  async #create(request: Operation<'CREATE'>): Promise<Uint8Array> {
    this.#checkRoom()
    const how = { ...howOf(request.flags), exclusive: (request.flags & constants.O_EXCL) !== 0 }
    const file = await this.#at(request.node, request.name, path =>
      this.#source.create(path, how, request.mode, request),
    )
    let node: Node
    try {
      node = this.#reach(request.node, request.name, file.entry)
    } catch (error) {
      file.close()
      throw error
    }
    const { entry } = file
    const opened = this.#opened(node, file, how)
    return createBody(this.#give(node, entry), opened)
  }

  /** A file without a name that is still open, once more: by /proc, as a program can do it with a file of a disk. */
  #openAgain(node: Node, how: OpenHow): OpenFile {
    for (const { kind, file } of this.#open.get(node) ?? []) {
      if (kind === 'folder' || file.descriptor === null || file.copied) continue
      const flags =
        (how.write ? (how.read ? constants.O_RDWR : constants.O_WRONLY) : 0) | (how.append ? constants.O_APPEND : 0)
      return openedAgain(file, flags | (how.truncate ? constants.O_TRUNC : 0))
    }
    throw new ViewError('ESTALE', `node ${node.number} has no name`)
  }

  /** Takes a file that was just opened; closes it if that fails. */
  #opened(node: Node, file: OpenFile, how: OpenHow): OpenAnswer {
    try {
      if (this.#isAnother(node, file)) {
        this.#nodes.retire(node)
        throw new ViewError('ESTALE', `node ${node.number} is a file that was given up while it was open`)
      }
      if (file.descriptor !== null && !file.copied && how.write) this.#becameReal(node, file)
      const siblings = this.#open.get(node)?.size ?? 0
      // Inside the kernel a node's content goes either through its cache or through it to the file, for all who have it open.
      const mixed = siblings > 0 && !this.#backings.has(node)
      const backing = mixed ? 0 : this.#useBacking(node, file.copied ? null : file.descriptor)
      const passthrough = backing !== 0
      const handle: FileHandle = { kind: 'file', node, how, file, former: null, busy: 0, released: false, passthrough }
      const fh = this.#addHandle(handle, file.descriptor)
      if (passthrough) {
        // What goes past the kernel's cache of this node leaves it out of date.
        node.cached = null
        return { fh, flags: OPEN_PASSTHROUGH, backing }
      }
      // What is written by handles that cannot read is a new version anyway, and its pages would be dropped at the next opening: so
      // it does not take the way over them.
      if (!how.read) {
        node.cached = null
        return { fh, flags: OPEN_DIRECT_IO, backing: 0 }
      }
      return { fh, flags: this.#mayKeepCache(node, file.entry, how) ? OPEN_KEEP_CACHE : 0, backing: 0 }
    } catch (error) {
      file.close()
      throw error
    }
  }

  /**
   * Whether somebody has a real file open as this node, and this is another one: its content was given up since, and has come back.
   * The kernel would go on with the former one, and what is written would be lost with it; it looks again for a number of its own.
   */
  #isAnother(node: Node, { descriptor, copied }: OpenFile): boolean {
    if (descriptor === null || copied) return false
    const backing = this.#backings.get(node)
    if (backing !== undefined) return backing.file !== fileOf(descriptor)
    for (const { kind, file } of this.#open.get(node) ?? []) {
      if (kind === 'folder' || file.descriptor === null || file.copied) continue
      return fileOf(descriptor) !== fileOf(file.descriptor)
    }
    return false
  }

  /** @param number the handle's, which for a file is its descriptor */
  #addHandle(handle: Handle, number: number | null): number {
    const fh = number ?? this.#nextHandle++
    this.#handles.set(fh, handle)
    const others = this.#open.get(handle.node)
    if (others === undefined) this.#open.set(handle.node, new Set([handle]))
    else others.add(handle)
    return fh
  }

  #checkRoom(): void {
    if (this.#handles.size >= this.#handlesMax) throw new ViewError('ENFILE', 'too many open files')
  }

  /** @param descriptor of the real file; null: it is read on demand. What the kernel has as this node already is the same content. */
  #useBacking(node: Node, descriptor: number | null): number {
    if (!this.#passthrough) return 0
    const known = this.#backings.get(node)
    if (known !== undefined) {
      known.users++
      return known.number
    }
    if (descriptor === null) return 0
    const number = this.#outlet.openBacking(descriptor)
    if (number !== 0) this.#backings.set(node, { number, users: 1, file: fileOf(descriptor) })
    return number
  }

  /**
   * Whether the pages that the kernel still has of a file are its content: if its version is the one that it had when it was
   * opened last, and that one cannot have hidden a later change.
   */
  #mayKeepCache(node: Node, entry: SourceEntry, how: OpenHow): boolean {
    const { mtimeNs, ctimeNs, size } = entry.attributes
    const version = entry.version ?? `${mtimeNs}:${ctimeNs}:${size}`
    const keep = node.cached === version && !how.truncate
    const steady = entry.version !== null || this.#outlet.now() - ctimeNs > STEADY_NS
    node.cached = steady && !how.write ? version : null
    return keep
  }

  /** Whoever reads a file on demand reads the real one from now on, or would miss what is written to it. */
  #becameReal(node: Node, real: OpenFile): void {
    for (const handle of this.#open.get(node) ?? []) {
      if (handle.kind === 'folder') continue
      if (handle.file.copied) handle.file = inPlaceOf(handle.file, real)
      if (handle.file.descriptor !== null) continue
      const file = openedAgain(real, constants.O_RDONLY)
      handle.former = handle.file
      handle.file = file
    }
  }

  /** Runs something on an open file, which is not closed before it has ended. */
  #using<Result>(fh: number, action: (handle: FileHandle) => Answer<Result>): Promise<Result> {
    const handle = this.#handles.get(fh)
    if (handle?.kind !== 'file') throw new ViewError('EBADF', `no file ${fh}`)
    return this.#keeping(handle, () => action(handle))
  }

  #usingFolder<Result>(fh: number, action: (handle: FolderHandle) => Answer<Result>): Promise<Result> {
    const handle = this.#handles.get(fh)
    if (handle?.kind !== 'folder') throw new ViewError('EBADF', `no folder ${fh}`)
    return this.#keeping(handle, () => action(handle))
  }

  async #keeping<Result>(handle: Handle, action: () => Answer<Result>): Promise<Result> {
    handle.busy++
    try {
      return await action()
    } finally {
      handle.busy--
      if (handle.released && handle.busy === 0) closeAll(handle)
    }
  }

  /** Answers a read of what is there already, from memory that is used again: others wait for the next. */
  #readNow({ unique, fh, offset, size }: Operation<'READ'>): boolean {
    const handle = this.#handles.get(fh)
    if (handle?.kind !== 'file' || handle.file.descriptor !== null || handle.file.readNow === undefined) return false
    const length = Math.min(size, TRANSFER_BYTES_MAX)
    const count = handle.file.readNow(offset, this.#content.subarray(OUT_HEADER_BYTES, OUT_HEADER_BYTES + length))
    if (count === null) return false
    this.#waiting.passed(unique)
    writeReplyHeader(this.#content, unique, OUT_HEADER_BYTES + count)
    this.#outlet.reply(this.#content.subarray(0, OUT_HEADER_BYTES + count))
    return true
  }

  #read({ fh, offset, size }: Operation<'READ'>, signal: AbortSignal): Promise<Uint8Array> {
    return this.#using(fh, async ({ file }) => {
      if (file.descriptor === null) {
        if (file.read === undefined) throw new ViewError('EIO', 'a file that cannot be read')
        const content = await file.read(offset, size, signal)
        return content.length > size ? content.subarray(0, size) : content
      }
      const bytes = new Uint8Array(size)
      return bytes.subarray(0, counted(readContent(file.descriptor, bytes, size, offset)))
    })
  }

  #write({ fh, offset, content, writeFlags }: Operation<'WRITE'>): Promise<Uint8Array> {
    return this.#using(fh, ({ file }) => {
      if (file.descriptor === null) throw new ViewError('EBADF', 'a file that is not open for writing')
      if (writeFlags & WRITE_KILL_SUIDGID) clearIds(file, this.#clearsIds)
      return sizeBody(counted(writeContent(file.descriptor, content, offset)))
    })
  }

  #release(fh: number): void {
    const handle = this.#handles.get(fh)
    if (handle === undefined) return
    this.#handles.delete(fh)
    const others = this.#open.get(handle.node)
    others?.delete(handle)
    if (others?.size === 0) this.#open.delete(handle.node)
    if (handle.kind === 'file' && handle.passthrough) this.#unuseBacking(handle.node)
    handle.released = true
    if (handle.busy === 0) closeAll(handle)
  }

  #unuseBacking(node: Node): void {
    const backing = this.#backings.get(node)
    if (backing === undefined || --backing.users > 0) return
    this.#backings.delete(node)
    this.#outlet.closeBacking(backing.number)
  }

  #sync({ fh, dataOnly }: Operation<'FSYNC'>): Promise<undefined> {
    return this.#using(fh, async ({ file }) => {
      if (file.descriptor !== null) await syncContent(file.descriptor, dataOnly)
      return undefined
    })
  }

  #allocate({ fh, mode, offset, length }: Operation<'FALLOCATE'>): Promise<undefined> {
    return this.#using(fh, async ({ file, node }) => {
      if (file.descriptor === null) throw new ViewError('EBADF', 'a file that is not open for writing')
      node.cached = null
      await allocate(file.descriptor, mode, offset, length)
      return undefined
    })
  }

  #seek({ fh, offset, whence }: Operation<'LSEEK'>): Promise<Uint8Array> {
    return this.#using(fh, async ({ file }) => {
      if (file.descriptor !== null) return offsetBody(seek(file.descriptor, offset, whence))
      if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw new ViewError('EINVAL', 'unknown whence')
      const { size } = file.entry.attributes
      if (offset >= size) throw new ViewError('ENXIO', 'beyond the end')
      return offsetBody(whence === SEEK_DATA ? offset : size)
    })
  }

  #copyRange(request: Operation<'COPY_FILE_RANGE'>): Promise<Uint8Array> {
    return this.#using(request.fh_in, from =>
      this.#using(request.fh_out, async to => {
        const [source, target] = [from.file.descriptor, to.file.descriptor]
        if (source === null || target === null) throw new ViewError('EOPNOTSUPP', 'the kernel shall copy')
        to.node.cached = null
        const length = Math.min(request.len, COPY_BYTES_MAX)
        return sizeBody(await copyRange(source, request.off_in, target, request.off_out, length))
      }),
    )
  }

  // Folders

  async #openFolder(request: Operation<'OPENDIR'>): Promise<Uint8Array> {
    this.#checkRoom()
    const node = this.#node(request.node)
    const file = await this.#source.openFolder(this.#path(request.node))
    if (file.entry.id !== node.id) {
      file.close()
      this.#loseName(node)
      throw new ViewError('ESTALE', 'something else has this name now')
    }
    const handle: FolderHandle = { kind: 'folder', node, file, names: null, dots: [], busy: 0, released: false }
    return openBody({ fh: this.#addHandle(handle, null), flags: 0, backing: 0 })
  }

  /** Offsets count names, after `.` and `..`. From the start it is listed anew, as rewinddir(3) wants it. */
  #readFolder({ op, fh, offset, size }: Operation<'READDIR' | 'READDIRPLUS'>): Promise<Uint8Array> {
    return this.#usingFolder(fh, async handle => {
      if (offset === 0 || handle.names === null) {
        handle.dots = [await handle.file.look(), await this.#above(handle)]
        handle.names = await handle.file.names()
      }
      const { node, names, dots, file } = handle
      const plus = op === 'READDIRPLUS'
      const body = new ListingBody(size, plus)
      for (let index = offset; index < names.length + 2; index++) {
        const name = index < 2 ? '.'.repeat(index + 1) : (names[index - 2] as string)
        const bytes = Buffer.from(name)
        if (!body.fits(bytes.length)) break
        const entry = index < 2 ? (dots[index] ?? null) : await file.child(name)
        if (entry === null) continue
        const known = index >= 2 && plus ? this.#nodes.reach(node, name, entry.id) : null
        body.add(bytes, index + 1, known === null ? notGiven(entry) : this.#give(known, entry))
      }
      return body.body
    })
  }

  /** What `..` of a folder is: of the root, the root itself, as the kernel knows better. */
  async #above({ node, file }: FolderHandle): Promise<SourceEntry> {
    const above = node.places[0]?.parent
    const path = above === undefined ? null : this.#nodes.pathOf(above)
    return path === null ? file.look() : this.#source.lookup(path)
  }

  #syncFolder({ fh }: Operation<'FSYNCDIR'>): Promise<undefined> {
    return this.#usingFolder(fh, async ({ file }) => {
      await file.sync()
      return undefined
    })
  }

  async #space(): Promise<Uint8Array> {
    return statfsBody(await this.#source.space())
  }

  // Extended attributes

  async #getAttribute({ node, name, size }: Operation<'GETXATTR'>): Promise<Uint8Array> {
    checkAttribute(name)
    return sized(await this.#source.getAttribute(this.#path(node), name), size)
  }

  async #listAttributes({ node, size }: Operation<'LISTXATTR'>): Promise<Uint8Array> {
    const names = (await this.#source.listAttributes(this.#path(node))).filter(name => !isForeignAttribute(name))
    return sized(Buffer.from(names.map(name => `${name}\0`).join('')), size)
  }

  async #setAttribute({ node, name, value, flags }: Operation<'SETXATTR'>): Promise<undefined> {
    checkAttribute(name)
    const mode = flags & XATTR_CREATE ? 'create' : flags & XATTR_REPLACE ? 'replace' : 'set'
    await this.#source.setAttribute(this.#path(node), name, value, mode)
  }

  async #removeAttribute({ node, name }: Operation<'REMOVEXATTR'>): Promise<undefined> {
    checkAttribute(name)
    await this.#source.removeAttribute(this.#path(node), name)
  }

  // Changes that did not come through the kernel

  #changed(change: SourceChange): void {
    if (change.kind === 'everything') {
      for (const node of this.#nodes.all()) {
        this.#invalidate(node, true)
        for (const name of node.children.keys()) this.#outlet.notify(notifyInvalidEntry(node.number, name))
      }
      return
    }
    if (change.kind === 'changed') {
      const node = this.#nodes.find(change.path)
      if (node !== undefined) this.#invalidate(node, change.content)
      return
    }
    const slash = change.path.lastIndexOf('/')
    const parent = this.#nodes.find(slash < 0 ? '' : change.path.slice(0, slash))
    if (parent === undefined) return
    const name = change.path.slice(slash + 1)
    this.#invalidate(parent, false)
    const node = parent.children.get(name)
    if (node !== undefined) void this.#compare(parent, name, node, change.path)
  }

  /**
   * A name that still leads to the same file is left to the kernel: it would take its name away even from a folder that programs are
   * at work in, and they could not tell any more where they are.
   */
  async #compare(parent: Node, name: string, node: Node, path: string): Promise<void> {
    try {
      const answer = this.#source.lookup(path)
      const entry = answer instanceof Promise ? await answer : answer
      if (entry.id === node.id) return this.#invalidate(node, false)
    } catch {
      // Nothing is there, or it cannot be said: the kernel shall ask.
    }
    this.#outlet.notify(notifyInvalidEntry(parent.number, name))
  }

  #invalidate(node: Node, content: boolean): void {
    if (content) node.cached = null
    this.#outlet.notify(notifyInvalidInode(node.number, content))
  }
}

/** Which file is open, whatever it is called. */
function fileOf(descriptor: number): string {
  const { dev, ino } = fstatSync(descriptor, { bigint: true })
  return `${dev}:${ino}`
}

/** In a listing: the name with its type, without a node. */
function notGiven(entry: SourceEntry): NodeEntry {
  return { node: 0, generation: 0, attributes: entry.attributes, validMs: 0 }
}

/** A real file once more, by /proc: also where it has no name. */
function openedAgain(file: OpenFile, flags: number): OpenFile {
  const fd = kept(openFollowing(`/proc/self/fd/${file.descriptor}`, flags))
  const { ino } = file.entry.attributes
  const look = () => ({ ...file.entry, attributes: { ...lookAt(fd).attributes, ino } })
  const end = file.hold?.()
  const close = () => {
    closeKept(fd)
    end?.()
  }
  return { entry: look(), descriptor: fd, look, close, ...(file.hold && { hold: file.hold }) }
}

/** What was a copy of the content is the real file: by the same descriptor, which is the handle's number. */
function inPlaceOf(copy: OpenFile, real: OpenFile): OpenFile {
  const fd = copy.descriptor as number
  replaceDescriptor(openFollowing(`/proc/self/fd/${real.descriptor}`, constants.O_RDONLY), fd)
  const { ino } = copy.entry.attributes
  const look = () => ({ ...copy.entry, attributes: { ...lookAt(fd).attributes, ino } })
  const end = real.hold?.()
  const close = () => {
    copy.close()
    end?.()
  }
  return { entry: copy.entry, descriptor: fd, look, close, ...(real.hold && { hold: real.hold }) }
}

function howOf(flags: number): OpenHow {
  const access = flags & 3
  const write = access !== constants.O_RDONLY
  return {
    read: access !== constants.O_WRONLY,
    write,
    append: write && (flags & constants.O_APPEND) !== 0,
    truncate: (flags & constants.O_TRUNC) !== 0,
  }
}

/** Writing to a program that runs with its owner's rights takes that away from it, as the kernel asks. */
function clearIds({ descriptor }: OpenFile, clears: boolean): void {
  if (!clears || descriptor === null) return
  const { mode } = lookAt(descriptor).attributes
  if ((mode & TYPE_MASK) === TYPE_FILE && mode & SET_ID_BITS) setMode(descriptor, mode & ~SET_ID_BITS)
}

function closeAll(handle: Handle): void {
  handle.file.close()
  if (handle.kind === 'file') handle.former?.close()
}

/** A count, or an error from a negated errno. */
function counted(count: number): number {
  if (count >= 0) return count
  const code = Object.keys(errnos).find(name => errnos[name] === -count) ?? 'EIO'
  throw new ViewError(code, 'reading or writing')
}

/** An attribute as it was asked for: first its size, then itself. */
function sized(value: Uint8Array, size: number): Uint8Array {
  if (size === 0) return sizeBody(value.length)
  if (value.length > size) throw new ViewError('ERANGE', 'the attribute is larger')
  return value
}

function checkAttribute(name: string): void {
  if (isForeignAttribute(name)) throw new ViewError('EOPNOTSUPP', name)
}

/** Throws what the name is at fault for. */
function nameOf(name: Name): string {
  if (typeof name !== 'string') throw new ViewError(name.fault, 'a name that cannot be used')
  return name
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
