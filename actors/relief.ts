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
const STORE_MAP = /^([0-9a-f]+)-([0-9a-f]+) r--s \S+ \S+ \S+ +(\/.*\/data\.mdb)$/gm
/**
 * A burst makes garbage by the hundred megabytes of which little lives on. V8 would let a thread's old objects grow to a quarter of a gigabyte before it
 * collects them for the first time, and to four times what lives after that.
 */
const HEAP_FLAGS = ['--initial-old-space-size=48', '--heap-growing-percent=100']

/** For heaps of threads that start from now on; the growth for this thread's as well. */
export function boundHeaps(): void {
  for (const flag of HEAP_FLAGS) setFlagsFromString(flag)
}

let collect: (() => void) | undefined

/** Collects this thread's garbage. */
export function collectGarbage(): void {
  if (!collect) {
    setFlagsFromString('--expose-gc')
    collect = runInNewContext('gc') as () => void
  }
  collect()
}

/** For the whole process: free pages of the allocator. Linux with glibc; elsewhere nothing. */
export function releaseMemory(): void {
  collectGarbage()
  systemCalls()?.trim(0)
}

/**
 * What is mapped of one store: a burst that reads here and there in it would make all of it resident. Only for the thread that has opened this
 * store: for any other the map can have gone since it was looked for, and something else be in its place, which would be wiped.
 *
 * @param file the store's data file, without symlinks in its path
 */
export function releaseStoreMap(file: string): void {
  const calls = systemCalls()
  if (!calls) return
  for (const { start, bytes, path } of storeMaps()) if (path === file) calls.advise(start, bytes, MADV_DONTNEED)
}

interface SystemCalls {
  trim(pad: number): number
  advise(address: bigint, bytes: bigint, advice: number): number
}
let loaded: SystemCalls | null | undefined

/** null: not Linux with glibc; the memory stays with the process. */
function systemCalls(): SystemCalls | null {
  if (loaded !== undefined) return loaded
  loaded = null
  if (process.platform !== 'linux') return loaded
  try {
    const system = koffi.load(null)
    const trim = system.func('int malloc_trim(size_t pad)')
    const advise = system.func('int madvise(uintptr_t address, size_t length, int advice)')
    loaded = { trim, advise }
  } catch {
    // musl has no malloc_trim.
  }
  return loaded
}

function storeMaps(): { start: bigint; bytes: bigint; path: string }[] {
  return Array.from(readFileSync('/proc/self/maps', 'utf8').matchAll(STORE_MAP), ([, from, to, path]) => {
    const start = BigInt(`0x${from}`)
    return { start, bytes: BigInt(`0x${to}`) - start, path: path as string }
  })
}
