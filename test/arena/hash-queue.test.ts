/** Files until their content is known: who hashes them, in what portions, and when those that are being written get their turn. */
import test from 'ava'
import { Timers } from '../../actors/arena/context.ts'
import { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import { HashQueue } from '../../actors/arena/hash-queue.ts'
import { RecentContent } from '../../actors/arena/recent.ts'
import { hashLeaves, rootOf } from '../../actors/hasher/merkle.ts'
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { LEAF_BYTES, PACKED_BLOB_BYTES_MAX } from '../../protocol/limits.ts'
import type { HashTask } from '../../protocol/ports.ts'
import { path } from './_store-entries.ts'

const MB = 1024 * 1024
const START_MS = 1_700_000_000_000
/** Old enough not to be asked for its writers. */
const RESTED_MS = 10_000

class Bench {
  nowMs = 0
  readonly disk = new MemoryDisk({ nowNs: () => BigInt(START_MS + this.nowMs) * 1_000_000n })
  readonly timers = new Timers()
  readonly recent = new RecentContent()
  readonly asked: { id: number; tasks: readonly HashTask[] }[] = []
  readonly hashed = new Map<string, BlobHash>()
  readonly movedOn: string[] = []
  readonly unreadable = new Map<string, string>()
  readonly queue = new HashQueue(
    {
      disk: this.disk,
      timers: this.timers,
      recent: this.recent,
      clock: { nowMs: () => this.nowMs, wallMs: () => START_MS + this.nowMs },
      deliver: output => {
        if (output.to === 'supervisor' && output.report.type === 'hash') this.asked.push(output.report)
      },
    },
    {
      hashed: (at, stat, leaves) => {
        const hash = rootOf(stat.size, leaves)
        this.hashed.set(at, hash)
        return hash
      },
      movedOn: at => void this.movedOn.push(at),
      unreadable: (at, reason) => void this.unreadable.set(at, reason),
      stat: at => this.disk.stat(at),
    },
  )

  write(at: string, bytes: Uint8Array | string): void {
    this.disk.writeFile(at, typeof bytes === 'string' ? Buffer.from(bytes) : bytes)
  }

  add(...at: string[]): void {
    for (const one of at) {
      const stat = this.disk.stat(one as EntryPath)
      if (stat) this.queue.add(path(one), stat)
    }
  }

  pass(ms: number): void {
    this.nowMs += ms
    this.timers.ring(this.nowMs)
  }

  /** The pool answers what it was asked, in this order. */
  answer(asked = this.asked.splice(0)): void {
    for (const { id, tasks } of asked)
      this.queue.hashed(
        id,
        tasks.map(task => ({ leaves: this.leavesOf(task) })),
      )
  }

  /** The pool's answer to one task. */
  leavesOf({ path: outside, from, count }: HashTask): Uint8Array {
    const bytes = this.disk.readFile(outside.slice('/memory/'.length))
    return hashLeaves(bytes.subarray(from * LEAF_BYTES, (from + count) * LEAF_BYTES))
  }
}

test('small files are hashed at once and kept for who asks next, so many in one step', t => {
  const bench = new Bench()
  for (let n = 0; n < 1000; n++) bench.write(`f${n}`, `text ${n}`)
  bench.pass(RESTED_MS)
  bench.add(...Array.from({ length: 1000 }, (_, n) => `f${n}`))
  bench.queue.step(false)
  t.true(bench.hashed.size > 100 && bench.hashed.size < 1000, `${bench.hashed.size} in one step`)
  t.true(bench.queue.stepping)
  while (bench.queue.ready) bench.queue.step(false)
  t.is(bench.hashed.size, 1000)
  t.is(bench.asked.length, 0)
  t.true(bench.queue.quiet)
  const hash = bench.hashed.get('f7') as BlobHash
  t.is(Buffer.from(bench.recent.get(hash) ?? []).toString(), 'text 7')
})

test('others are hashed by the pool, several in one request, never too many requests at once', t => {
  const bench = new Bench()
  const sizes = Array.from({ length: 60 }, () => MB)
  for (const [n, size] of sizes.entries()) bench.write(`f${n}`, new Uint8Array(size).fill(n))
  bench.pass(RESTED_MS)
  bench.add(...sizes.map((_, n) => `f${n}`))
  bench.queue.step(false)
  t.deepEqual(
    bench.asked.map(({ tasks }) => tasks.length),
    [8, 8, 8, 8, 8, 8],
  )
  t.false(bench.queue.ready)
  bench.answer()
  t.is(bench.hashed.size, 48)
  t.true(bench.queue.ready)
  bench.queue.step(false)
  t.is(bench.asked.length, 2)
  bench.answer()
  t.is(bench.hashed.size, 60)
  t.is(bench.hashed.get('f3'), rootOf(MB, hashLeaves(new Uint8Array(MB).fill(3))))
  t.true(bench.queue.quiet)
})

test('where more is being found, a fuller batch is waited for', t => {
  const bench = new Bench()
  bench.write('f', 'text')
  bench.pass(RESTED_MS)
  bench.add('f')
  bench.queue.step(true)
  t.is(bench.hashed.size, 0)
  bench.queue.step(false)
  t.is(bench.hashed.size, 1)
})

test('a big file is hashed in parts, which may come in any order', t => {
  const bench = new Bench()
  const size = 130 * MB + 5
  const bytes = new Uint8Array(size)
  for (let at = 0; at < size; at += LEAF_BYTES) bytes[at] = at / LEAF_BYTES
  bench.write('big', bytes)
  bench.pass(RESTED_MS)
  bench.add('big')
  bench.queue.step(false)
  t.deepEqual(
    bench.asked.map(({ tasks }) => tasks.map(({ from, count }) => [from, count])),
    [[[0, 512]], [[512, 512]], [[1024, 17]]],
  )
  t.true(bench.queue.has(path('big')))
  bench.answer(bench.asked.reverse())
  t.is(bench.hashed.get('big'), rootOf(size, hashLeaves(bytes)))
  t.false(bench.queue.has(path('big')))
})

test('what changed while it was hashed is looked at again, what cannot be read is told', t => {
  const bench = new Bench()
  for (const name of ['changed', 'broken', 'gone']) bench.write(name, new Uint8Array(PACKED_BLOB_BYTES_MAX + 1))
  bench.pass(RESTED_MS)
  bench.add('changed', 'broken', 'gone')
  bench.queue.step(false)
  t.is(bench.asked.length, 1)
  const [{ id, tasks }] = bench.asked as [(typeof bench.asked)[number]]
  t.is(tasks.length, 3)
  bench.queue.hashed(id, [
    { changed: true },
    { failure: { code: 'disk_failed', message: 'EIO: it is broken' } },
    { changed: true },
  ])
  t.deepEqual([...bench.unreadable], [['broken', 'EIO: it is broken']])
  t.true(bench.queue.has(path('changed')))
  bench.disk.remove('gone')
  bench.pass(250)
  t.deepEqual(bench.movedOn, ['gone'])
  bench.queue.step(false)
  t.deepEqual(
    bench.asked.slice(1).map(({ tasks }) => tasks.length),
    [1],
  )
})

test('a file that is found changed while the pool works on it is looked at once more', t => {
  const bench = new Bench()
  bench.write('f', new Uint8Array(MB))
  bench.pass(RESTED_MS)
  bench.add('f')
  bench.queue.step(false)
  const [{ id, tasks }] = bench.asked as [(typeof bench.asked)[number]]
  const leaves = tasks.map(task => ({ leaves: bench.leavesOf(task) }))
  bench.write('f', new Uint8Array(MB).fill(1))
  bench.pass(RESTED_MS)
  bench.add('f')
  bench.queue.step(false)
  t.is(bench.asked.length, 1, 'not twice at once')
  bench.queue.hashed(id, leaves)
  t.deepEqual(bench.movedOn, ['f'])
  t.true(bench.queue.quiet)
})

test('a second word of an unchanged file that the pool works on costs nothing', t => {
  const bench = new Bench()
  bench.write('f', new Uint8Array(MB))
  bench.pass(RESTED_MS)
  bench.add('f')
  bench.queue.step(false)
  bench.add('f')
  bench.queue.step(false)
  t.is(bench.asked.length, 1)
  bench.answer()
  t.deepEqual(bench.movedOn, [])
  t.true(bench.queue.quiet)
})

test('a file that has gone before it is read is looked at anew', t => {
  const bench = new Bench()
  bench.write('f', 'text')
  bench.pass(RESTED_MS)
  bench.add('f')
  bench.disk.remove('f')
  bench.queue.step(false)
  t.deepEqual(bench.movedOn, ['f'])
  t.true(bench.queue.quiet)
})

test('a file that somebody writes waits until it is closed, at most ten seconds', t => {
  for (const closedMs of [1_000, 60_000]) {
    const bench = new Bench()
    bench.write('f', 'text')
    const close = bench.disk.holdForWriting('f')
    bench.add('f')
    let waitedMs = 0
    for (; bench.hashed.size === 0 && waitedMs < 30_000; waitedMs += 50) {
      bench.queue.step(false)
      if (bench.nowMs % 500 === 0) bench.write('f', `text ${bench.nowMs}`)
      bench.pass(50)
      if (waitedMs === closedMs) close()
    }
    t.is(bench.hashed.size, 1)
    t.true(waitedMs > Math.min(closedMs, 10_000) - 50 && waitedMs < Math.min(closedMs + 700, 13_000), `${waitedMs} ms`)
  }
})

test('what is forgotten is not told when its answer comes', t => {
  const bench = new Bench()
  bench.write('f', new Uint8Array(MB))
  bench.pass(RESTED_MS)
  bench.add('f')
  bench.queue.step(false)
  for (let n = 0; n < 1000; n++) bench.write(`small-${n}`, `text ${n}`)
  bench.pass(RESTED_MS)
  bench.add(...Array.from({ length: 1000 }, (_, n) => `small-${n}`))
  bench.queue.step(false)
  t.true(bench.queue.stepping)
  const { size } = bench.hashed
  bench.queue.clear()
  t.true(bench.queue.quiet)
  t.false(bench.queue.stepping)
  t.is(bench.asked.length, 1)
  bench.answer()
  t.is(bench.hashed.size, size)
})

test('a file that was changed a moment ago waits until its change would show in its times', t => {
  const bench = new Bench()
  bench.write('f', 'text')
  bench.add('f')
  bench.queue.step(false)
  t.is(bench.hashed.size, 0)
  bench.pass(12)
  bench.queue.step(false)
  t.is(bench.hashed.size, 1)
})

test('news of a file that waits does not make it wait longer', t => {
  const bench = new Bench()
  bench.write('f', 'text')
  bench.disk.holdForWriting('f')
  bench.add('f')
  let waitedMs = 0
  for (; bench.hashed.size === 0 && waitedMs < 30_000; waitedMs += 100) {
    bench.write('f', `text ${waitedMs}`)
    bench.add('f')
    bench.queue.step(false)
    bench.pass(100)
  }
  t.true(waitedMs > 9_000 && waitedMs < 12_500, `${waitedMs} ms`)
})
