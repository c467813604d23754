/**
 * The cache's file of one blob, as one reader has it open: parts that the arena has said to be in it are read from there, and no
 * bytes cross threads. The file may be removed and begun anew; each part is read from the one that it was said to be in.
 */
import type { CachedFile } from '../../protocol/ports.ts'
import { DiskError } from '../arena/disk.ts'
import { openCachedFile } from './cached-file.ts'
import { closeKept, kept } from './kept.ts'
import type { Part } from './read-ahead.ts'
import { readContent } from './view-calls.ts'

export class PartialCopy {
  #open: { readonly file: CachedFile; readonly fd: number } | null = null

  /** @param answer what the arena said of a part of the content, which begins at `offset` */
  part(offset: number, answer: Uint8Array | CachedFile): Part {
    if (answer instanceof Uint8Array)
      return (from, into) => {
        into.set(answer.subarray(from - offset, from - offset + into.length))
        return true
      }
    return (from, into) => {
      const fd = this.#descriptorOf(answer)
      return fd !== null && readContent(fd, into, into.length, from) === into.length
    }
  }

  close(): void {
    if (this.#open) closeKept(this.#open.fd)
    this.#open = null
  }

  /** null: it is gone. */
  #descriptorOf(file: CachedFile): number | null {
    const known = this.#open?.file
    if (this.#open && known?.ino === file.ino && known.birthtimeNs === file.birthtimeNs) return this.#open.fd
    let fd: number | null = null
    try {
      fd = openCachedFile(file)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
    }
    if (fd === null) return null
    this.close()
    this.#open = { file, fd: kept(fd) }
    return fd
  }
}
