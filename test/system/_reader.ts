/**
 * A program of its own that opens one file again and again, as fast as it can, and looks at what it gets. Each content
 * that the test writes is BYTES times one letter. It prints `reading` once it has read the file, and when its stdin ends, what it
 * has seen as one line of JSON.
 *
 * Usage: node _reader.js FILE BYTES
 */
import { closeSync, openSync, readSync } from 'node:fs'

export interface Seen {
  reads: number
  /** How many times another content than before was read. */
  changes: number
  /** The first few wrong readings. */
  faults: string[]
}

const [file, bytesText] = process.argv.slice(2) as [string, string]
const bytes = Number(bytesText)
const buffer = Buffer.alloc(bytes + 1)
const seen: Seen = { reads: 0, changes: 0, faults: [] }
let last = -1
let ended = false

process.stdin.on('end', () => {
  ended = true
})
process.stdin.resume()

function fault(text: string): void {
  if (seen.faults.length < 10) seen.faults.push(`read ${seen.reads}: ${text}`)
}

function look(): void {
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
    if (length !== bytes) fault(`${length} bytes in place of ${bytes}`)
    else if (!buffer.subarray(0, bytes).equals(Buffer.alloc(bytes, letter))) fault('a mix of two contents')
    if (letter !== last) seen.changes += 1
    last = letter
  } finally {
    closeSync(fd)
  }
}

function turn(): void {
  for (let i = 0; i < 200; i++) look()
  if (!ended) setImmediate(turn)
  else process.stdout.write(`${JSON.stringify(seen)}\n`)
}

look()
process.stdout.write('reading\n')
turn()
