/** What is carried: made once, the same for every tool; and the check that it has arrived. */
import { randomBytes, randomInt } from 'node:crypto'
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Expected } from './tool.ts'

const FILES_PER_FOLDER = 100
const PIECE_BYTES = 4 * 1024 * 1024

/** Fills a new folder with `count` files of random content and size, a hundred to a folder. */
export function makeFiles(folder: string, count: number, bytesMin: number, bytesMax: number): Expected {
  let bytes = 0
  for (let i = 0; i < count; i++) {
    const parent = join(folder, `folder-${String(Math.floor(i / FILES_PER_FOLDER)).padStart(4, '0')}`)
    if (i % FILES_PER_FOLDER === 0) mkdirSync(parent, { recursive: true })
    const content = randomBytes(randomInt(bytesMin, bytesMax + 1))
    const file = openSync(join(parent, `file-${String(i).padStart(6, '0')}.bin`), 'wx')
    writeSync(file, content)
    closeSync(file)
    bytes += content.length
  }
  return { files: count, bytes }
}

/** One file of random content in a new folder. */
export function makeBigFile(folder: string, bytes: number): Expected {
  mkdirSync(folder, { recursive: true })
  const file = openSync(join(folder, 'big.bin'), 'wx')
  for (let done = 0; done < bytes; ) done += writeSync(file, randomBytes(Math.min(PIECE_BYTES, bytes - done)))
  closeSync(file)
  return { files: 1, bytes }
}

/** Compares two trees byte by byte. @throws Error that names the first difference */
export function compareTrees(ours: string, theirs: string): Expected {
  const found: Expected = { files: 0, bytes: 0 }
  const names = readdirSync(ours, { withFileTypes: true })
  const others = new Set(readdirSync(theirs))
  for (const entry of names) {
    const [here, there] = [join(ours, entry.name), join(theirs, entry.name)]
    if (!others.delete(entry.name)) throw new Error(`${there} has not arrived`)
    const below = entry.isDirectory() ? compareTrees(here, there) : compareFiles(here, there)
    found.files += below.files
    found.bytes += below.bytes
  }
  for (const name of others) throw new Error(`${join(theirs, name)} came from nowhere`)
  return found
}

function compareFiles(here: string, there: string): Expected {
  const bytes = statSync(here).size
  if (statSync(there).size !== bytes) throw new Error(`${there} has another size`)
  if (bytes <= PIECE_BYTES) {
    if (!readFileSync(here).equals(readFileSync(there))) throw new Error(`${there} has other content`)
    return { files: 1, bytes }
  }
  const [ours, theirs] = [openSync(here, 'r'), openSync(there, 'r')]
  const [one, two] = [Buffer.alloc(PIECE_BYTES), Buffer.alloc(PIECE_BYTES)]
  try {
    for (let at = 0; at < bytes; at += PIECE_BYTES) {
      const length = readSync(ours, one, 0, PIECE_BYTES, at)
      readSync(theirs, two, 0, PIECE_BYTES, at)
      if (!one.subarray(0, length).equals(two.subarray(0, length))) throw new Error(`${there} has other content`)
    }
  } finally {
    closeSync(ours)
    closeSync(theirs)
  }
  return { files: 1, bytes }
}
