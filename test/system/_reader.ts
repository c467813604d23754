/**
 * A program of its own that opens files again and again, as fast as it can, and looks at what it gets. Each content that the
 * test writes is BYTES times one letter. It prints `reading` once it has read the files, and when its stdin ends, what it has
 * seen as one line of JSON.
 *
 * Usage: node _reader.js BYTES FILE…
 */
import { closeSync, openSync, readSync } from 'node:fs'

export interface Seen {
  reads: number
  /** How many times another content than before was read. */
  changes: number
  /** The first few wrong readings. */
  faults: string[]
}

const FAULTS_MAX = 10
const READS_PER_TURN = 200

const [bytesText, ...files] = process.argv.slice(2)
const bytes = Number(bytesText)
const buffer = Buffer.alloc(bytes + 1)
const seen: Seen = { reads: 0, changes: 0, faults: [] }
const last = new Map<string, number>()
let ended = false

process.stdin.on('end', () => {
  ended = true
})
process.stdin.resume()

function look(file: string): void {
  seen.reads += 1
  let fd: number
  try {
    fd = openSync(file, 'r')
  } catch (error) {
    fault(String(error))
    return
  }
  try {
    const length = readSync(fd, buffer, 0, bytes + 1, 0)
    const letter = buffer[0]!
    if (length !== bytes) fault(`${file}: ${length} bytes in place of ${bytes}`)
    else if (!buffer.subarray(0, bytes).equals(Buffer.alloc(bytes, letter))) fault(`${file}: a mix of two contents`)
    if (letter !== last.get(file)) seen.changes += 1
    last.set(file, letter)
  } finally {
    closeSync(fd)
  }
}

function fault(text: string): void {
  if (seen.faults.length < FAULTS_MAX) seen.faults.push(`read ${seen.reads}: ${text}`)
}

function turn(): void {
  for (let i = 0; i < READS_PER_TURN; i++) look(files[i % files.length]!)
  if (ended) process.stdout.write(`${JSON.stringify(seen)}\n`)
  else setImmediate(turn)
}

turn()
process.stdout.write('reading\n')
