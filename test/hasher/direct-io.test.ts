import { closeSync, constants, ftruncateSync, openSync, readFileSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { DIRECT_BYTES_MIN, DirectReader, DirectWriter } from '../../actors/direct-io.ts'
import { type Cleaning, temporaryFolder } from '../_temp.ts'
import { noise } from './_random.ts'

const SIZE = DIRECT_BYTES_MIN + 12_345
const PIECE = 1024 * 1024

/** A file of holes, open for reading and writing. */
function holes(t: Cleaning, size: number): { path: string; fd: number } {
  const path = join(temporaryFolder(t), 'file')
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT)
  t.teardown(() => closeSync(fd))
  ftruncateSync(fd, size)
  return { path, fd }
}

for (const [size, kind] of [
  [SIZE, 'big'],
  [3 * PIECE + 77, 'small'],
] as const) {
  test(`what is written to a ${kind} file in any pieces is there, and nothing else`, t => {
    const { path, fd } = holes(t, size)
    const expected = Buffer.alloc(size)
    const writer = new DirectWriter(fd)
    if (process.platform !== 'linux' || kind === 'small') t.false(writer.direct)
    const places: [at: number, length: number][] = [
      [0, 131_072],
      [131_072, 131_072],
      [262_144, 2 * PIECE + 5],
      [262_144 + 2 * PIECE + 5, 4096],
      [7, 9],
      [4096, 4095],
      [8192, 0],
      [size - 1, 1],
      [size - 100_001, 100_001],
    ]
    for (const [seed, [at, length]] of places.entries()) {
      const bytes = noise(length, seed + 1)
      expected.set(bytes, at)
      t.true(writer.write(bytes, at))
    }
    t.true(writer.flush())
    writer.close()
    t.is(statSync(path).size, size)
    t.is(Buffer.compare(readFileSync(path), expected), 0)
  })

  test(`a ${kind} file is read from any place to its end, and not beyond`, t => {
    const { path, fd } = holes(t, size)
    const writer = new DirectWriter(fd)
    for (let at = 0; at < size; at += 5 * PIECE) writer.write(noise(Math.min(PIECE, size - at), at + 1), at)
    writer.flush()
    writer.close()
    const content = readFileSync(path)
    const reader = new DirectReader(fd)
    const reads: [at: number, length: number][] = [
      [0, 131_072],
      [131_072, 131_072],
      [262_144, 3 * PIECE],
      [17, 1],
      [5 * PIECE - 1, 2 * PIECE + 2],
      [size - 10, 10],
      [size - 10, 20],
      [size, 5],
    ]
    for (const [at, length] of reads) {
      const into = Buffer.alloc(length)
      const count = reader.read(at, into)
      t.is(count, Math.max(0, Math.min(length, size - at)), `${length} bytes from ${at} on`)
      t.is(Buffer.compare(into.subarray(0, count), content.subarray(at, at + count)), 0)
    }
    reader.close()
  })
}

test('nothing is written to a file any more that is not ours', t => {
  const { fd } = holes(t, SIZE)
  let ours = true
  const writer = new DirectWriter(fd, () => ours)
  t.true(writer.write(new Uint8Array(4096).fill(1), 0))
  ours = false
  t.false(writer.flush())
  t.false(writer.write(new Uint8Array(2 * PIECE).fill(1), PIECE))
  writer.close()
  const found = Buffer.alloc(2 * PIECE)
  readSync(fd, found, 0, found.length, 0)
  t.true(found.every(byte => byte === 0))
})
