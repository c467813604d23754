/** What the load test and its processes of simulated peers say to each other over the channel of `fork`. */
import type { ArenaName, PeerId } from '../protocol/ids.ts'

export type Order =
  /** Make so many peers, numbered from `first`; answered by `made`. */
  | { type: 'make'; first: number; count: number }
  /** Connect all of them, and go on until `end`. */
  | { type: 'connect'; service: PeerId; address: string; arena: ArenaName }
  /** This peer makes a file of so many bytes: edit number `number`. */
  | { type: 'edit'; peer: number; number: number; bytes: number }
  /** Answered by `found`. */
  | { type: 'report' }
  | { type: 'end' }

export type Answer =
  /** In the order of their numbers. */
  { type: 'made'; ids: PeerId[] } | { type: 'progress'; progress: Progress } | { type: 'found'; found: Found }

/** How far the peers of one process are; several times a second. */
export interface Progress {
  /** Connected, with the arena open in both directions. */
  open: number
  /** Contents of edits that a peer has received and found right. */
  arrivals: number
  /** Content of all kinds that was fetched and found right. */
  bytes: number
  /** Contents that are announced and not yet here. */
  missing: number
}

/** What the peers of one process have seen since they were made. */
export interface Found {
  /** Connections that did not come to be, and were tried again. */
  refused: number
  /** Milliseconds from the first attempt to an open arena, one for each peer that got there. */
  connectMs: number[]
  /** For each edit: milliseconds from the moment of writing to the content being right at a peer, one for each peer. */
  editMs: Record<number, number[]>
  /** How often each thing happened that should not. */
  errors: Record<string, number>
}

/** The beginning of an edited file says which edit it is and when it was made, by the clock that all processes of a machine share. */
export function editContent(number: number, bytes: number): Buffer {
  const head = `edit ${number} at ${process.hrtime.bigint()} ns\n`
  return Buffer.from(head.padEnd(Math.max(bytes, head.length), '.'))
}

/** @returns which edit, and how many milliseconds ago it was made; undefined for other content */
export function readEdit(content: Uint8Array): { number: number; ms: number } | undefined {
  const head = Buffer.from(content.subarray(0, 80)).toString('latin1')
  const found = /^edit (\d+) at (\d+) ns\n/.exec(head)
  if (!found) return undefined
  return { number: Number(found[1]), ms: Number(process.hrtime.bigint() - BigInt(found[2] ?? 0)) / 1e6 }
}
