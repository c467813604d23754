/**
 * Files of which nothing is on the disk until they are written to, as an arena has them: content is given on demand, when the
 * test allows it. Read-only but for opening for writing, which makes a file a real one in a scratch folder.
 */
import { closeSync, constants, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { truncate } from '../../actors/arena/posix-calls.ts'
import type { Attributes, Space } from '../../actors/view/fuse-reply.ts'
import { lookAt } from '../../actors/view/view-calls.ts'
import {
  type Answer,
  type OpenFile,
  type OpenFolder,
  type OpenHow,
  type SourceChange,
  type SourceEntry,
  ViewError,
  type ViewSource,
} from '../../actors/view/view-source.ts'

export interface MemoryFile {
  content: Uint8Array
  /** Called for each read; the content is given once it has resolved. */
  reading?: (signal: AbortSignal) => Answer<void>
  /** Set once the file is a real one. */
  real?: string
  version?: string
}

/** All in one folder. */
export class MemorySource implements ViewSource {
  readonly validMs: number
  readonly root = null
  readonly files = new Map<string, MemoryFile>()
  /** Files that are open now, and all that were ever closed. */
  open_ = 0
  closed = 0
  readonly #scratch: string
  readonly #listeners = new Set<(change: SourceChange) => void>()

  constructor(scratch: string, validMs = 1000) {
    this.#scratch = scratch
    this.validMs = validMs
  }

  /** Says a change to whoever listens. */
  tell(change: SourceChange): void {
    for (const listener of this.#listeners) listener(change)
  }

  lookup(path: string): SourceEntry {
    if (path === '') return entryOf('', 0o040755, 0)
    const file = this.#file(path)
    const size = file.real === undefined ? file.content.length : this.#realSize(file.real)
    return { ...entryOf(path, 0o100644, size), version: file.version ?? null }
  }

  openFolder(): OpenFolder {
    const look = () => this.lookup('')
    const child = (name: string) => (this.files.has(name) ? this.lookup(name) : null)
    const names = () => [...this.files.keys()]
    return { entry: look(), descriptor: null, look, names, child, sync: () => {}, close: () => {} }
  }

  open(path: string, how: OpenHow): Answer<OpenFile> {
    const file = this.#file(path)
    if (how.write && file.real === undefined) {
      file.real = join(this.#scratch, path)
      writeFileSync(file.real, file.content)
    }
    const look = () => this.lookup(path)
    this.open_++
    if (file.real !== undefined) {
      const flags = how.write ? constants.O_RDWR : constants.O_RDONLY
      const descriptor = openSync(file.real, flags | (how.append ? constants.O_APPEND : 0))
      if (how.truncate) truncate(descriptor, 0)
      return { entry: look(), descriptor, look, close: () => this.#close(descriptor) }
    }
    const read = async (offset: number, length: number, signal: AbortSignal) => {
      await file.reading?.(signal)
      return file.content.subarray(offset, offset + length)
    }
    return { entry: look(), descriptor: null, look, read, close: () => this.#close(null) }
  }

  change(path: string | null): SourceEntry {
    return this.lookup(path ?? '')
  }

  space(): Space {
    return { blockBytes: 4096, blocks: 1000, blocksFree: 500, blocksAvailable: 400, files: 10, filesFree: 5 }
  }

  subscribe(listener: (change: SourceChange) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  readLink = refuse
  create = refuse
  makeFolder = refuse
  makeSymlink = refuse
  makeNode = refuse
  link = refuse
  remove = (path: string) => void this.files.delete(path)
  removeFolder = refuse
  rename = refuse
  getAttribute = () => {
    throw new ViewError('ENODATA', 'none')
  }
  setAttribute = refuse
  listAttributes = () => []
  removeAttribute = refuse
  close = () => {}

  #file(path: string): MemoryFile {
    const file = this.files.get(path)
    if (file === undefined) throw new ViewError('ENOENT', path)
    return file
  }

  #realSize(path: string): number {
    const fd = openSync(path, constants.O_RDONLY)
    const { size } = lookAt(fd).attributes
    closeSync(fd)
    return size
  }

  #close(descriptor: number | null): void {
    this.open_--
    this.closed++
    if (descriptor !== null) closeSync(descriptor)
  }
}

function refuse(): never {
  throw new ViewError('EROFS', 'these files cannot be changed so')
}

function entryOf(path: string, mode: number, size: number): SourceEntry {
  const attributes: Attributes = {
    ino: BigInt(100 + [...path].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 0)),
    size,
    blocks: Math.ceil(size / 512),
    atimeNs: 1n,
    mtimeNs: 1_600_000_000_123_456_789n,
    ctimeNs: 2n,
    mode,
    links: 1,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    rdev: 0,
  }
  return { id: `memory:${path}`, attributes, version: null }
}
