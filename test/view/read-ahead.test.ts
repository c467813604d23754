/** Reading on: what is asked for, and that whatever comes in whatever order, readers get their bytes. */
import test from 'ava'
import fc from 'fast-check'
import { type Ask, PART_BYTES_MAX, type Part, ReadAhead, type SequentialReader } from '../../actors/view/read-ahead.ts'

const KIB = 1024
const MIB = 1024 * KIB

/** Somebody who does not give up. */
const patient = () => new AbortController().signal

/** A prime number of bytes, again and again: no two places that a mistake could take for each other are alike. */
const PERIOD = 65_521
const pattern = Buffer.alloc(
  2 * MIB,
  Buffer.from(Uint8Array.from({ length: PERIOD }, (_, at) => (at * 7 + (at >> 8)) & 0xff)),
)

function contentOf(offset: number, length: number): Uint8Array {
  return pattern.subarray(offset % PERIOD, (offset % PERIOD) + length)
}

function same(actual: Uint8Array, offset: number, length: number): boolean {
  return Buffer.compare(actual, contentOf(offset, length)) === 0
}

/** What is lost is not given. */
function partOf(start: number, bytes: Uint8Array, lost = () => false): Part {
  return (offset, into) => {
    if (offset < start || offset + into.length > start + bytes.length) throw new RangeError(`${offset} is not in it`)
    into.set(bytes.subarray(offset - start, offset - start + into.length))
    return !lost()
  }
}

/** As a view reads: at once, or else later. */
async function read(reader: SequentialReader, offset: number, length: number): Promise<Uint8Array> {
  const into = new Uint8Array(length)
  if (!reader.readNow(offset, into)) await reader.read(offset, into, patient())
  return into
}

interface Asked {
  offset: number
  length: number
  signal: AbortSignal
  answer(): void
  fail(): void
}

/** What is asked waits until it is told to go on. */
function source(): { ask: Ask; asked: Asked[] } {
  const asked: Asked[] = []
  const ask: Ask = (offset, length, signal) =>
    new Promise((resolve, reject) => {
      const answer = () => resolve(partOf(offset, contentOf(offset, length)))
      const fail = () => reject(Object.assign(new Error('nobody has it'), { code: 'EHOSTUNREACH' }))
      signal.addEventListener('abort', () => reject(new Error('given up')))
      asked.push({ offset, length, signal, answer, fail })
    })
  return { ask, asked }
}

const rangesOf = (asked: Asked[]) => asked.map(({ offset, length }) => [offset / KIB, length / KIB])

test('the first read, and what is read here and there, is asked for as it is', t => {
  const { ask, asked } = source()
  const reader = new ReadAhead().open(100 * MIB, ask)
  for (const at of [0, 50 * MIB, 10 * MIB, 90 * MIB]) void read(reader, at, 4 * KIB)
  t.deepEqual(
    asked.map(({ offset, length }) => [offset, length]),
    [0, 50 * MIB, 10 * MIB, 90 * MIB].map(at => [at, 4 * KIB]),
  )
  t.is(reader.parts, 0)
})

test('who reads on has the next part asked for in advance, in parts that grow, and never beyond the end', async t => {
  const { ask, asked } = source()
  const size = 5 * MIB + 100
  const reader = new ReadAhead().open(size, ask)
  for (let offset = 0; offset < size; offset += 128 * KIB) {
    const length = Math.min(128 * KIB, size - offset)
    const answer = read(reader, offset, length)
    for (const one of asked) one.answer()
    t.true(same(await answer, offset, length))
  }
  const whole = asked.slice(0, -1)
  t.deepEqual(rangesOf(whole).slice(0, 5), [
    [0, 128],
    [128, 128],
    [256, 256],
    [512, 512],
    [1024, 1024],
  ])
  t.true(asked.every(({ length }) => length <= PART_BYTES_MAX))
  // Each byte once.
  let end = 0
  for (const { offset, length } of asked) {
    t.is(offset, end)
    end += length
  }
  t.is(end, size)
})

test('of what is there already a read is answered at once', async t => {
  const { ask, asked } = source()
  const reader = new ReadAhead().open(MIB, ask)
  const first = [read(reader, 0, 64 * KIB), read(reader, 64 * KIB, 64 * KIB)]
  for (const one of asked) one.answer()
  await Promise.all(first)
  const into = new Uint8Array(64 * KIB)
  t.true(reader.readNow(128 * KIB, into))
  t.true(same(into, 128 * KIB, 64 * KIB))
})

test('where a part cannot be had as a whole, who wants less of it asks for that', async t => {
  const { ask, asked } = source()
  const reader = new ReadAhead().open(10 * MIB, ask)
  const before = [0, 128 * KIB].map(offset => read(reader, offset, 128 * KIB))
  for (const one of asked.slice(0, 2)) one.answer()
  await Promise.all(before)
  const waiting = read(reader, 256 * KIB, 128 * KIB)
  const part = asked.find(({ offset }) => offset === 256 * KIB)
  part?.fail()
  await new Promise(resolve => setImmediate(resolve))
  const again = asked.at(-1)
  t.deepEqual(rangesOf(again ? [again] : []), [[256, 128]])
  again?.answer()
  t.true(same(await waiting, 256 * KIB, 128 * KIB))
})

test('what is under way is given up when the file is closed, or read elsewhere', t => {
  for (const leave of ['close', 'read'] as const) {
    const { ask, asked } = source()
    const reader = new ReadAhead().open(100 * MIB, ask)
    const reads = [0, 128 * KIB].map(offset => read(reader, offset, 128 * KIB))
    for (const one of reads) one.catch(() => {})
    if (leave === 'close') reader.close()
    else void read(reader, 50 * MIB, KIB)
    t.true(asked.slice(1, 3).every(one => one.signal.aborted))
    t.is(reader.parts, 0)
  }
})

test('of many readers those that were not heard of for longest begin again', async t => {
  const ahead = new ReadAhead()
  const readers = Array.from({ length: 40 }, () =>
    ahead.open(10 * MIB, async (offset, length) => partOf(offset, contentOf(offset, length))),
  )
  for (const reader of readers) for (const offset of [0, 128 * KIB]) await read(reader, offset, 128 * KIB)
  t.is(readers.filter(({ parts }) => parts > 0).length, 16)
  t.true(readers.slice(-16).every(({ parts }) => parts > 0))
  for (const reader of readers) t.true(same(await read(reader, 256 * KIB, 128 * KIB), 256 * KIB, 128 * KIB))
})

test('whoever reads what in whatever order gets it, whatever cannot be had in large parts', async t => {
  const size = 3 * MIB + 17
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ jump: fc.integer({ min: -2, max: 6 }), length: fc.integer({ min: 1, max: 300 * KIB }) }), {
        maxLength: 30,
      }),
      fc.integer({ min: 1, max: 5 }),
      async (reads, fault) => {
        let asks = 0
        let looks = 0
        const reader = new ReadAhead().open(size, async (offset, length) => {
          if (offset < 0 || length < 1 || offset + length > size) throw new RangeError(`${offset} ${length}`)
          if (length > 300 * KIB && ++asks % fault === 0) throw Object.assign(new Error('no'), { code: 'EHOSTUNREACH' })
          return partOf(offset, contentOf(offset, length), () => ++looks % 7 === 0)
        })
        let at = 0
        const got = []
        for (const { jump, length } of reads) {
          const offset = Math.max(0, Math.min(size - 1, at + jump * 64 * KIB))
          const end = Math.min(size, offset + length)
          at = end
          got.push(read(reader, offset, end - offset).then(bytes => ({ offset, end, bytes })))
          if (got.length % 3 === 0) await got.at(-1)
        }
        for (const { offset, end, bytes } of await Promise.all(got))
          if (!same(bytes, offset, end - offset)) throw new Error(`wrong at ${offset}`)
        return reader.parts <= 6
      },
    ),
    { numRuns: 40 },
  )
  t.pass()
})
