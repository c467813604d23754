/**
 * Gives memory back when the service has come to rest. After a burst V8 keeps its garbage, the allocator its free pages, and
 * the stores' maps stay resident; none of it is needed while nothing happens, and all of it comes back by itself.
 */
import { readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import koffi from 'koffi'

/** Pages are dropped from the process; the file and the page cache keep them (madvise(2)). */
const MADV_DONTNEED = 4
/** Read-only maps of LMDB's data files, as /proc/self/maps shows them. */
const STORE_MAP = /^([0-9a-f]+)-([0-9a-f]+) r--s .*\/data\.mdb$/gm

let collect: (() => void) | undefined

/** Collects this thread's garbage. */
export function collectGarbage(): void {
  if (!collect) {
    setFlagsFromString('--expose-gc')
    collect = runInNewContext('gc') as () => void
  }
  collect()
}

/** For the whole process: free pages of the allocator, and what is mapped of the stores. Linux with glibc; elsewhere nothing. */
export function releaseMemory(): void {
  collectGarbage()
  if (process.platform !== 'linux') return
  try {
    const system = koffi.load(null)
    system.func('int malloc_trim(size_t pad)')(0)
    const madvise = system.func('int madvise(uintptr_t address, size_t length, int advice)')
    for (const [, from, to] of readFileSync('/proc/self/maps', 'utf8').matchAll(STORE_MAP)) {
      const start = BigInt(`0x${from}`)
      madvise(start, BigInt(`0x${to}`) - start, MADV_DONTNEED)
    }
  } catch {
    // musl has no malloc_trim: the memory stays with the process.
  }
}
