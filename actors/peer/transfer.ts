/**
 * The pumps: file to message (`Upload`) and message to file (`Download`). Each owns a descriptor and closes it once.
 * When to run them, and what the peer is told, is for connection.ts.
 */
import { readSync } from 'node:fs'
import { type Failure, SyncError } from '../../protocol/error.ts'
import type { ArenaName } from '../../protocol/ids.ts'
import { LEAF_BYTES, LEAVES_PER_MESSAGE } from '../../protocol/limits.ts'
import { closeDescriptor, type DescriptorTable, forgetDescriptor } from '../descriptors.ts'
import { leafCount } from '../hasher/merkle.ts'
import { diskFailed } from './leaf-writer.ts'
import { giveBuffer, isMessageBuffer, takeBuffer } from './message-buffers.ts'
import { bytesOfLeaves } from './peer.ts'
import { type LeafWriter, writerHere } from './writer-thread.ts'

const HASH_BYTES = 32

/** A descriptor that was handed to us, and is noted in the table of this thread. */
class Descriptor {
  readonly fd: number
  readonly #table: DescriptorTable
  #open = true

  constructor(fd: number, table: DescriptorTable) {
    this.fd = fd
    this.#table = table
  }

  close(): void {
    if (!this.#open) return
    this.#open = false
    forgetDescriptor(this.#table, this.fd)
    closeDescriptor(this.fd)
  }
}

export interface UploadOrder {
  arena: ArenaName
  id: number
  fd: number
  size: number
  from: number
  count: number
  urgent: boolean
}

/** Reads the leaves that were asked for, a message at a time. */
export class Upload {
  readonly arena: ArenaName
  readonly id: number
  readonly urgent: boolean
  readonly #descriptor: Descriptor
  readonly #size: number
  readonly #end: number
  #next: number

  constructor(order: UploadOrder, table: DescriptorTable) {
    this.arena = order.arena
    this.id = order.id
    this.urgent = order.urgent
    this.#descriptor = new Descriptor(order.fd, table)
    this.#size = order.size
    this.#next = order.from
    this.#end = order.from + order.count
  }

  get done(): boolean {
    return this.#next >= this.#end
  }

  /** The next leaves, in a buffer of their own: `giveBuffer` when it is written. Throws `blob_changed` if the file is shorter than it was, `disk_failed`. */
  read(leavesMax: number): { from: number; count: number; payload: Buffer } {
    const from = this.#next
    const count = Math.min(leavesMax, this.#end - from)
    const payload = takeBuffer(bytesOfLeaves(this.#size, from, count))
    for (let filled = 0; filled < payload.length; ) {
      const read = this.#read(payload, filled, from * LEAF_BYTES + filled)
      if (read === 0) throw new SyncError('blob_changed', 'the file has become shorter')
      filled += read
    }
    if (payload.length === 0) throw new SyncError('blob_changed', 'the blob has no such leaves')
    this.#next += count
    return { from, count, payload }
  }

  close(): void {
    this.#descriptor.close()
  }

  #read(payload: Buffer, filled: number, position: number): number {
    try {
      return readSync(this.#descriptor.fd, payload, filled, payload.length - filled, position)
    } catch (error) {
      throw diskFailed('read', (error as NodeJS.ErrnoException).code, error)
    }
  }
}

export interface DownloadOrder {
  fd: number
  size: number
  from: number
  count: number
  /** Expected hashes, 32 bytes each, of leaves [from, from + count). */
  leaves: Uint8Array
}

/** Has leaves verified and written as they come, by a writer that may be another thread. */
export class Download {
  readonly #order: DownloadOrder
  readonly #descriptor: Descriptor
  readonly #writer: LeafWriter
  readonly #stopped = new Int32Array(new SharedArrayBuffer(4))
  /** Messages that are with the writer. */
  #writing = 0
  #closed: (() => void) | null = null

  /** @param far the writer for downloads of many leaves; a few are written here, at once */
  constructor(order: DownloadOrder, table: DescriptorTable, far: LeafWriter) {
    this.#order = order
    this.#descriptor = new Descriptor(order.fd, table)
    this.#writer = order.count > LEAVES_PER_MESSAGE ? far : writerHere
  }

  /**
   * @param payload taken over, and given back to the buffers of messages
   * @param last no more leaves come after these
   * @param written with why it was not written, if it was not: `leaf_invalid`, `disk_failed`
   */
  store(from: number, payload: Uint8Array, last: boolean, written: (failure: Failure | null) => void): void {
    const { fd, size, leaves } = this.#order
    const start = (from - this.#order.from) * HASH_BYTES
    const hashes = leaves.slice(start, start + leafCount(payload.length) * HASH_BYTES)
    const ending = last ? { start: this.#order.from * LEAF_BYTES, size } : null
    const shared = isMessageBuffer(payload) ? payload : copyOf(payload)
    this.#writing++
    this.#writer.write({ fd, from, payload: shared, hashes, stopped: this.#stopped, ending }, failure => {
      giveBuffer(shared)
      this.#writing--
      written(failure)
      this.#closeIfDone()
    })
  }

  /** Nothing more is begun to be written; `closed` is called once nothing is being written either. */
  close(closed: () => void): void {
    Atomics.store(this.#stopped, 0, 1)
    this.#closed = closed
    this.#closeIfDone()
  }

  #closeIfDone(): void {
    const closed = this.#closed
    if (this.#writing > 0 || !closed) return
    this.#closed = null
    this.#descriptor.close()
    closed()
  }
}

function copyOf(payload: Uint8Array): Uint8Array {
  const copy = takeBuffer(payload.length)
  copy.set(payload)
  return copy
}
