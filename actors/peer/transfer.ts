/**
 * The pumps: file to message (`Upload`) and message to file (`Download`). Each owns a descriptor and closes it once.
 * When to run them, and what the peer is told, is for connection.ts.
 */
import { readSync, writeSync } from 'node:fs'
import { SyncError } from '../../protocol/error.ts'
import type { ArenaName } from '../../protocol/ids.ts'
import { LEAF_BYTES, LEAVES_PER_MESSAGE } from '../../protocol/limits.ts'
import { closeDescriptor, type DescriptorTable, forgetDescriptor } from '../descriptors.ts'
import { hashLeaves } from '../hasher/merkle.ts'
import { bytesOfLeaves } from './peer.ts'

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

/** Buffers of whole messages that were written: allocating one for each message costs more than reading into it. */
const spare: Buffer[] = []
const SPARE_MAX = 8
const MESSAGE_BYTES = LEAVES_PER_MESSAGE * LEAF_BYTES

function takeBuffer(bytes: number): Buffer {
  return (bytes === MESSAGE_BYTES ? spare.pop() : undefined) ?? Buffer.allocUnsafeSlow(bytes)
}

/** Takes back the payload of an upload that nobody reads any more. */
export function giveBuffer(payload: Buffer): void {
  if (payload.length === MESSAGE_BYTES && spare.length < SPARE_MAX) spare.push(payload)
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
      throw diskFailed('read', error)
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

/** Checks leaves as they come and writes them to their place. */
export class Download {
  readonly #descriptor: Descriptor
  readonly #from: number
  readonly #leaves: Uint8Array

  constructor(order: DownloadOrder, table: DescriptorTable) {
    this.#descriptor = new Descriptor(order.fd, table)
    this.#from = order.from
    this.#leaves = order.leaves
  }

  /**
   * Nothing of a message is written unless all its leaves are right. Zeros are written like anything else: what is at their
   * place may be left from an earlier attempt that was cut.
   *
   * Throws `leaf_invalid`, `disk_failed`.
   */
  store(from: number, payload: Uint8Array): void {
    const hashes = hashLeaves(payload)
    const start = (from - this.#from) * HASH_BYTES
    const expected = this.#leaves.subarray(start, start + hashes.length)
    if (Buffer.compare(hashes, expected) !== 0)
      throw new SyncError('leaf_invalid', `content of leaves from ${from} on does not fit its hash`)
    for (let written = 0; written < payload.length; )
      written += this.#write(payload, written, from * LEAF_BYTES + written)
  }

  close(): void {
    this.#descriptor.close()
  }

  #write(payload: Uint8Array, written: number, position: number): number {
    try {
      return writeSync(this.#descriptor.fd, payload, written, payload.length - written, position)
    } catch (error) {
      throw diskFailed('write', error)
    }
  }
}

function diskFailed(what: string, error: unknown): SyncError {
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown error'
  return new SyncError('disk_failed', `${what} failed: ${code}`, { cause: error })
}
