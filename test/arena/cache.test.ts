/** The cache: what counts as here, what survives what, what goes first, and that its limits hold whatever is done. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { type Blob, Cache, type CacheLimits, leafBytes } from '../../actors/arena/cache.ts'
import { type CacheFiles, SHELVES } from '../../actors/arena/cache-files.ts'
import { MemoryCacheFiles } from '../../actors/arena/cache-files-memory.ts'
import { openCacheFiles } from '../../actors/arena/cache-files-posix.ts'
import { close } from '../../actors/arena/posix-calls.ts'
import type { Tables } from '../../actors/arena/tables.ts'
import { openLmdbTables } from '../../actors/arena/tables-lmdb.ts'
import { MemoryTables } from '../../actors/arena/tables-memory.ts'
import { hashLeaves, rootOf } from '../../actors/hasher/merkle.ts'
import { openCachedFile } from '../../actors/view/cached-file.ts'
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import { temporaryFolder } from '../_temp.ts'

const NO_LIMITS: CacheLimits = { max: { bytes: 1e12 }, leave: { bytes: 0 } }

interface Sample {
  blob: Blob
  content: Buffer
  tree: Uint8Array
}

function sample(size: number, seed: number): Sample {
  const content = Buffer.alloc(size)
  for (let at = 0; at + 4 <= size; at += 4096) content.writeUInt32LE(seed * 65_537 + at, at)
  if (size > 0) content[size - 1] = seed
  const tree = hashLeaves(content)
  return { blob: { hash: rootOf(size, tree), size }, content, tree }
}

function leafOf({ content }: Sample, leaf: number): Buffer {
  return content.subarray(leaf * LEAF_BYTES, (leaf + 1) * LEAF_BYTES)
}

interface Rig {
  tables: Tables
  files: CacheFiles
  limits: CacheLimits
  nowMs: number
  cache: Cache
  reopen(): Cache
}

function makeRig(tables: Tables, files: CacheFiles, limits = NO_LIMITS): Rig {
  const rig = { tables, files, limits, nowMs: 1_000_000 } as Rig
  rig.reopen = () => {
    rig.cache = new Cache({
      tables: rig.tables,
      files: rig.files,
      limits: rig.limits,
      wallMs: () => rig.nowMs,
      leavesOf: () => undefined,
    })
    return rig.cache
  }
  rig.reopen()
  return rig
}

function memoryRig(limits = NO_LIMITS, totalBytes = 2 ** 40): Rig & { files: MemoryCacheFiles } {
  const files = new MemoryCacheFiles({ open: () => -1, totalBytes })
  return makeRig(new MemoryTables(), files, limits) as Rig & { files: MemoryCacheFiles }
}

/** As reads do: the tree first, then leaves that fit it. */
function put(t: ExecutionContext, cache: Cache, one: Sample, leaves: number[]): boolean[] {
  if (one.tree.length > 32) t.true(cache.takeTree(one.blob, 0, one.tree))
  return leaves.map(leaf => {
    t.true(cache.fits(one.blob, leaf, leafOf(one, leaf)))
    return cache.put(one.blob, leaf, leafOf(one, leaf))
  })
}

function whole(cache: Cache, { blob, content }: Sample, leaf: number): boolean {
  const bytes = cache.part(blob, leaf, 0, leafBytes(blob, leaf))
  return (
    bytes !== null && Buffer.compare(bytes, content.subarray(leaf * LEAF_BYTES, leaf * LEAF_BYTES + bytes.length)) === 0
  )
}

const none = { enter() {}, leave() {} }

test('leaves are here from the moment they are put, and after a restart if they were noted', t => {
  const rig = memoryRig()
  const one = sample(5 * LEAF_BYTES + 10, 1)
  t.deepEqual(put(t, rig.cache, one, [1, 5]), [true, true])
  t.deepEqual(
    [0, 1, 2, 5].map(leaf => rig.cache.has(one.blob, leaf)),
    [false, true, false, true],
  )
  t.is(rig.cache.bytes, LEAF_BYTES + 10)
  t.true(rig.cache.dirty)
  rig.cache.flush()
  t.false(rig.cache.dirty)
  put(t, rig.cache, one, [2])
  // A kill: what was not noted is not here, what was is.
  rig.reopen()
  t.deepEqual(
    [0, 1, 2, 5].map(leaf => rig.cache.has(one.blob, leaf)),
    [false, true, false, true],
  )
  t.is(rig.cache.bytes, LEAF_BYTES + 10)
  t.true(whole(rig.cache, one, 1))
  t.true(whole(rig.cache, one, 5))
  t.is(rig.cache.part(one.blob, 2, 0, 10), null)
  t.deepEqual(
    Buffer.from(rig.cache.part(one.blob, 1, 7, 20) as Uint8Array),
    one.content.subarray(LEAF_BYTES + 7, LEAF_BYTES + 20),
  )
})

test('what a power loss has torn, or somebody has changed, is not given and not counted any more', t => {
  const rig = memoryRig()
  const one = sample(3 * LEAF_BYTES, 2)
  put(t, rig.cache, one, [0, 1, 2])
  rig.cache.flush()
  const file = rig.files.files.get(one.blob.hash) as Uint8Array
  file.fill(0, LEAF_BYTES, LEAF_BYTES + 4096)
  rig.files.files.set(one.blob.hash, file.subarray(0, 2 * LEAF_BYTES + 5))
  rig.reopen()
  t.true(whole(rig.cache, one, 0))
  t.is(rig.cache.part(one.blob, 1, 4096, 4097), null)
  t.is(rig.cache.part(one.blob, 2, 0, 1), null)
  t.is(rig.cache.bytes, LEAF_BYTES)
  rig.cache.flush()
  rig.reopen()
  t.deepEqual(
    [0, 1, 2].map(leaf => rig.cache.has(one.blob, leaf)),
    [true, false, false],
  )
})

test('a file that somebody took away is forgotten, and can be cached again', t => {
  const rig = memoryRig()
  const one = sample(3 * LEAF_BYTES, 3)
  put(t, rig.cache, one, [0, 1])
  rig.cache.flush()
  rig.files.files.clear()
  t.deepEqual(put(t, rig.cache, one, [2]), [true])
  t.is(rig.cache.bytes, LEAF_BYTES)
  t.is(rig.cache.part(one.blob, 0, 0, 1), null)
  t.true(whole(rig.cache, one, 2))
  rig.cache.flush()
  rig.reopen()
  t.is(rig.cache.bytes, LEAF_BYTES)
  t.true(whole(rig.cache, one, 2))
  rig.files.files.clear()
  t.is(rig.cache.part(one.blob, 2, 0, 1), null)
  t.is(rig.cache.bytes, 0)
  t.false(rig.cache.hasAny(one.blob.hash))
})

test('what was used longest ago goes first, and its leaf hashes with it', t => {
  const rig = memoryRig({ max: { bytes: 4 * LEAF_BYTES }, leave: { bytes: 0 } })
  const samples = [1, 2, 3, 4].map(seed => sample(LEAF_BYTES * 2, seed))
  const [a, b, c, d] = samples as [Sample, Sample, Sample, Sample]
  for (const one of [a, b]) {
    put(t, rig.cache, one, [0, 1])
    rig.nowMs += 100_000
  }
  t.true(whole(rig.cache, a, 0))
  rig.nowMs += 100_000
  t.deepEqual(put(t, rig.cache, c, [0, 1]), [true, true])
  t.deepEqual(
    samples.map(({ blob }) => rig.cache.hasAny(blob.hash)),
    [true, false, true, false],
  )
  rig.cache.drop(a.blob.hash)
  rig.cache.drop(c.blob.hash)
  rig.cache.flush()
  t.is(rig.cache.bytes, 0)
  t.is(rig.files.files.size, 0)
  for (const table of ['cachedAges', 'cachedParts', 'cachedTrees'] as const)
    t.deepEqual(rig.tables.range(table, null, null, 10), [], table)
  t.deepEqual(put(t, rig.cache, d, [1]), [true])
})

test('what is pinned, being read or open through a view stays, and without room nothing is put', t => {
  const rig = memoryRig({ max: { bytes: 3 * LEAF_BYTES }, leave: { bytes: 0 } })
  const [pinned, read, open, more] = [1, 2, 3, 4].map(seed => sample(LEAF_BYTES, seed)) as [
    Sample,
    Sample,
    Sample,
    Sample,
  ]
  for (const one of [pinned, read, open]) put(t, rig.cache, one, [0])
  rig.cache.pin(pinned.blob, 'a' as EntryPath)
  rig.cache.wantsPinned = (path, hash) => path === 'a' && hash === pinned.blob.hash
  rig.cache.open(read.blob.hash)
  rig.cache.inUse = hash => hash === open.blob.hash
  t.deepEqual(put(t, rig.cache, more, [0]), [false])
  t.is(rig.cache.bytes, 3 * LEAF_BYTES)
  rig.cache.close(read.blob.hash)
  t.deepEqual(put(t, rig.cache, more, [0]), [true])
  t.false(rig.cache.hasAny(read.blob.hash))
  t.true(whole(rig.cache, pinned, 0))
  rig.cache.wantsPinned = () => false
  rig.cache.inUse = () => false
  rig.cache.setLimits({ max: { bytes: 0 }, leave: { bytes: 0 } })
  t.is(rig.cache.bytes, 0)
})

test('a disk that fills up makes the cache give back, and one that is full leaves it working', t => {
  const rig = memoryRig({ max: { part: 1 }, leave: { bytes: 2 * LEAF_BYTES } }, 6 * LEAF_BYTES)
  const samples = [1, 2, 3, 4].map(seed => sample(LEAF_BYTES, seed))
  for (const one of samples) {
    rig.nowMs += 100_000
    t.deepEqual(put(t, rig.cache, one, [0]), [true])
  }
  rig.cache.flush()
  rig.files.totalBytes = 4 * LEAF_BYTES
  rig.cache.trim()
  t.true(rig.cache.bytes <= 2 * LEAF_BYTES)
  t.true(rig.cache.hasAny((samples[3] as Sample).blob.hash))
  // Free space is said to be there, and is not: quotas.
  let refused = 0
  rig.files.fault = operation => (operation === 'write' && refused++ === 0 ? 'EDQUOT' : null)
  t.deepEqual(put(t, rig.cache, sample(LEAF_BYTES, 9), [0]), [true])
  rig.files.fault = operation => (operation === 'write' ? 'ENOSPC' : null)
  t.deepEqual(put(t, rig.cache, sample(LEAF_BYTES, 10), [0]), [false])
  rig.files.fault = () => 'EACCES'
  t.deepEqual(put(t, rig.cache, sample(LEAF_BYTES, 11), [0]), [false])
})

test('leaf hashes that are not the blob’s are refused, and content that does not fit them', t => {
  const { cache } = memoryRig()
  const one = sample(3 * LEAF_BYTES, 1)
  const wrong = Uint8Array.from(one.tree)
  wrong[40] = (wrong[40] as number) ^ 1
  t.false(cache.takeTree(one.blob, 0, wrong))
  t.false(cache.takeTree(one.blob, 0, one.tree.subarray(0, 64)))
  t.is(cache.fits(one.blob, 0, leafOf(one, 0)), null)
  t.true(cache.takeTree(one.blob, 0, one.tree))
  t.false(cache.fits(one.blob, 0, leafOf(one, 1)))
  t.false(cache.fits(one.blob, 2, leafOf(one, 2).subarray(1)))
  t.false(cache.takeTree({ ...one.blob, size: one.blob.size - 1 }, 0, one.tree), 'another size is another blob')
})

test('a size that is not the blob’s disturbs nothing of what is here', t => {
  const rig = memoryRig()
  const one = sample(3 * LEAF_BYTES, 1)
  put(t, rig.cache, one, [0])
  rig.cache.flush()
  const liar = { ...one.blob, size: one.blob.size + 5 }
  for (const cache of [rig.cache, rig.reopen()]) {
    t.false(cache.has(liar, 0))
    t.is(cache.tree(liar, 0), null)
    t.is(cache.part(liar, 0, 0, 1), null)
    t.true(whole(cache, one, 0))
    t.is(cache.sizeOf(one.blob.hash), one.blob.size)
  }
})

test('what comes again after its file was taken away is here', t => {
  const rig = memoryRig()
  const one = sample(2 * LEAF_BYTES, 1)
  for (let times = 0; times < 2; times++) {
    t.deepEqual(put(t, rig.cache, one, [1]), [true])
    t.true(whole(rig.cache, one, 1))
    rig.files.files.delete(one.blob.hash)
  }
})

test('limits hold, and what is said to be here is here and right, whatever is done in whatever order', t => {
  const samples = Array.from({ length: 6 }, (_, seed) => sample((seed % 3) * LEAF_BYTES + 1 + seed * 100, seed + 1))
  const step = fc.oneof(
    fc.record({ do: fc.constant('put' as const), blob: fc.nat(5), leaf: fc.nat(2) }),
    fc.record({ do: fc.constant('read' as const), blob: fc.nat(5), leaf: fc.nat(2) }),
    fc.record({ do: fc.constant('drop' as const), blob: fc.nat(5) }),
    fc.record({ do: fc.constant('take' as const), blob: fc.nat(5) }),
    fc.record({ do: fc.constant('tear' as const), blob: fc.nat(5), at: fc.nat(3 * LEAF_BYTES) }),
    fc.record({ do: fc.constant('open' as const), blob: fc.nat(5) }),
    fc.record({ do: fc.constant('close' as const), blob: fc.nat(5) }),
    fc.constant({ do: 'flush' as const }),
    fc.constant({ do: 'kill' as const }),
    fc.record({ do: fc.constant('limit' as const), leaves: fc.nat(8) }),
  )
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), steps => {
        let max = 6 * LEAF_BYTES
        const rig = memoryRig({ max: { bytes: max }, leave: { bytes: 0 } })
        const open = new Map<BlobHash, number>()
        for (const one of steps) {
          rig.nowMs += 61_000
          const at = 'blob' in one ? (samples[one.blob] as Sample) : null
          if (one.do === 'put' && at && one.leaf * LEAF_BYTES < at.blob.size) {
            if (at.tree.length > 32) rig.cache.takeTree(at.blob, 0, at.tree)
            const had = rig.cache.bytes
            const kept = rig.cache.put(at.blob, one.leaf, leafOf(at, one.leaf))
            // One that finds room is here; one that does not costs nothing.
            if (kept && !whole(rig.cache, at, one.leaf)) return false
            if (!kept && rig.cache.bytes > had) return false
            if (kept && rig.cache.bytes > Math.max(max, had)) return false
          } else if (one.do === 'read' && at && one.leaf * LEAF_BYTES < at.blob.size) {
            const bytes = rig.cache.part(at.blob, one.leaf, 0, leafBytes(at.blob, one.leaf))
            if (bytes && Buffer.compare(bytes, leafOf(at, one.leaf)) !== 0) return false
          } else if (one.do === 'drop' && at) rig.cache.drop(at.blob.hash)
          else if (one.do === 'take' && at) rig.files.files.delete(at.blob.hash)
          else if (one.do === 'tear' && at) {
            const file = rig.files.files.get(at.blob.hash)
            if (file && one.at < file.length) file[one.at] = (file[one.at] as number) ^ 1
            rig.cache.flush()
            rig.reopen()
            open.clear()
          } else if (one.do === 'open' && at) {
            rig.cache.open(at.blob.hash)
            open.set(at.blob.hash, (open.get(at.blob.hash) ?? 0) + 1)
          } else if (one.do === 'close' && at && (open.get(at.blob.hash) ?? 0) > 0) {
            rig.cache.close(at.blob.hash)
            open.set(at.blob.hash, (open.get(at.blob.hash) ?? 1) - 1)
          } else if (one.do === 'flush') rig.cache.flush()
          else if (one.do === 'kill') {
            rig.reopen()
            open.clear()
          } else if (one.do === 'limit') {
            max = one.leaves * LEAF_BYTES
            rig.limits = { max: { bytes: max }, leave: { bytes: 0 } }
            rig.cache.setLimits(rig.limits)
            const held = [...open].some(([, times]) => times > 0)
            if (!held && rig.cache.bytes > max) return false
          }
          let sum = 0
          for (const { blob } of samples) sum += rig.cache.bytesOf(blob)
          if (sum !== rig.cache.bytes) return false
        }
        rig.cache.flush()
        const { bytes } = rig.cache
        return rig.reopen().bytes === bytes
      }),
      { numRuns: 300 },
    ),
  )
})

test('on a real disk: sparse files that survive a restart; leftovers of a kill are swept away', t => {
  const folder = temporaryFolder(t)
  const place = join(folder, 'cache', 'docs')
  const open = () => makeRig(openLmdbTables(join(folder, 'index'), none), openCacheFiles(place))
  mkdirSync(join(folder, 'index'), { recursive: true })
  let rig = open()
  const one = sample(40 * LEAF_BYTES, 1)
  put(t, rig.cache, one, [0, 30])
  const small = sample(100, 7)
  put(t, rig.cache, small, [0])
  rig.cache.flush()
  rig.cache.dispose()
  rig.tables.close()
  const stray = sample(200, 8).blob.hash
  mkdirSync(join(place, stray.slice(0, 2)), { recursive: true })
  writeFileSync(join(place, stray.slice(0, 2), stray), 'left by a kill')
  writeFileSync(join(place, stray.slice(0, 2), 'what is this'), '')
  rig = open()
  for (let shelf = 0; shelf < SHELVES; shelf++) rig.cache.sweep()
  t.false(rig.cache.sweeping)
  const names = readdirSync(place).flatMap(shelf => readdirSync(join(place, shelf)))
  t.deepEqual(names.sort(), [one.blob.hash, small.blob.hash].sort())
  t.true(whole(rig.cache, one, 30))
  t.true(whole(rig.cache, one, 0))
  t.false(rig.cache.has(one.blob, 1))
  t.true(whole(rig.cache, small, 0))
  t.is(rig.cache.bytes, 2 * LEAF_BYTES + 100)
  // Somebody cleans up while we run.
  rmSync(place, { recursive: true })
  t.is(rig.cache.part(one.blob, 30, 0, 1), null)
  t.deepEqual(put(t, rig.cache, one, [3]), [true])
  t.true(whole(rig.cache, one, 3))
  t.false(rig.cache.has(one.blob, 30))
  rig.cache.dispose()
  rig.tables.close()
})

test('a file is told of once all of a blob is in it and verified; who has it open keeps it, whatever becomes of it', t => {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'index'), { recursive: true })
  const tables = openLmdbTables(join(folder, 'index'), none)
  const rig = makeRig(tables, openCacheFiles(join(folder, 'cache')))
  const leaves = Array.from({ length: 20 }, (_, leaf) => leaf)
  const one = sample(20 * LEAF_BYTES - 5, 1)
  put(t, rig.cache, one, leaves.slice(1))
  t.is(rig.cache.whole(one.blob), null)
  put(t, rig.cache, one, [0])
  const told = rig.cache.whole(one.blob)
  t.deepEqual(told && readFileSync(told.path), one.content)
  const fd = told && openCachedFile(told)
  if (told === null || fd === null) return t.fail('it cannot be opened')

  // After a start not more is verified at once than takes a moment; what is read is verified by that.
  rig.cache.flush()
  rig.cache.dispose()
  rig.reopen()
  t.is(rig.cache.whole(one.blob), null)
  for (const leaf of leaves.slice(0, 10)) t.true(whole(rig.cache, one, leaf))
  t.deepEqual(rig.cache.whole(one.blob), told)

  // Taken away, and begun again: another file.
  rmSync(told.path)
  t.is(rig.cache.whole(one.blob), null)
  t.is(openCachedFile(told), null)
  t.is(rig.cache.part(one.blob, 0, 0, 1), null)
  put(t, rig.cache, one, [3])
  t.is(openCachedFile(told), null)
  // Begun again over what somebody has put there.
  rig.cache.drop(one.blob.hash)
  writeFileSync(told.path, one.content)
  const theirs = readFileSync(told.path)
  put(t, rig.cache, one, [3])
  t.is(openCachedFile(told), null)
  t.deepEqual(readFileSync(fd), one.content)
  t.deepEqual(theirs, one.content)
  close(fd)
  rig.cache.dispose()
  tables.close()
})

test('what was changed is not told of as whole', t => {
  const rig = memoryRig()
  const one = sample(3 * LEAF_BYTES, 1)
  put(t, rig.cache, one, [0, 1, 2])
  rig.cache.flush()
  rig.reopen()
  const bytes = rig.files.files.get(one.blob.hash)
  bytes?.set([1, 2, 3], LEAF_BYTES)
  t.is(rig.cache.whole(one.blob), null)
  t.is(rig.cache.bytesOf(one.blob), 2 * LEAF_BYTES)
})

test('more blobs, and more leaf hashes, than are held at hand', t => {
  const rig = memoryRig()
  const samples = Array.from({ length: 600 }, (_, seed) => sample(seed % 2 ? LEAF_BYTES + 1 : 10, seed + 1))
  for (const one of samples) put(t, rig.cache, one, [0])
  rig.cache.flush()
  t.true(samples.every(one => whole(rig.cache, one, 0)))
  const { bytes } = rig.cache
  t.is(
    bytes,
    samples.reduce((sum, one) => sum + leafBytes(one.blob, 0), 0),
  )
})

// What files must do, on the disk and in memory

for (const [where, make] of [
  ['on the disk', (t: ExecutionContext) => openCacheFiles(join(temporaryFolder(t), 'new', 'folder'))],
  ['in memory', () => new MemoryCacheFiles({ open: () => 1 })],
] as const) {
  const hash = 'ab'.repeat(32) as BlobHash
  test(`files ${where}: begun anew, written anywhere, read with holes, gone when removed`, t => {
    const files = make(t)
    t.is(files.read(hash, 0, 10), null)
    t.is(files.open(hash), null)
    t.false(files.write(hash, 0, Buffer.from('x'), false))
    t.true(files.write(hash, 5, Buffer.from('hello'), true))
    t.deepEqual(Buffer.from(files.read(hash, 3, 100) as Uint8Array), Buffer.from('\0\0hello'))
    t.true(files.write(hash, 0, Buffer.from('ab'), false))
    t.deepEqual(Buffer.from(files.read(hash, 0, 6) as Uint8Array), Buffer.from('ab\0\0\0h'))
    t.deepEqual(files.list(0xab), [hash])
    t.deepEqual(files.list(0xac), [])
    t.true(files.free().totalBytes > 0)
    t.true(files.write(hash, 0, Buffer.from('z'), true))
    t.is(files.read(hash, 0, 10)?.length, 1)
    files.remove(hash)
    files.remove(hash)
    t.is(files.read(hash, 0, 1), null)
    t.false(files.write(hash, 0, Buffer.from('x'), false))
    files.write(hash, 0, Buffer.from('x'), true)
    files.discard(0xab, hash)
    t.deepEqual(files.list(0xab), [])
    t.is(files.read(hash, 0, 1), null)
    files.dispose()
  })
}
