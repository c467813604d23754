/** What `status`, `ls`, `conflicts`, `versions` and `history` show of an arena: the results of an arena's control methods. */
import type { Mark } from './control.ts'
import type { ArenaName, EntryPath, PeerId } from './ids.ts'

/** A path with the reason why it is not as it should be. */
export interface Problem {
  path: EntryPath | string
  reason: string
  /** A `note` is worth knowing and keeps nobody from consensus. */
  note?: boolean
}

export interface ArenaStatus {
  name: ArenaName
  path: string | null
  state: 'idle' | 'scanning' | 'syncing' | 'paused' | 'guarded' | 'failed'
  /** Why it is not simply working, and what to do; null when it is. */
  reason: string | null
  /** All connected peers have equal roots, nothing is pending on any side. True also with no peer connected, if nothing is pending here. */
  consensus: boolean
  /** Why there is no consensus, one line a cause. */
  missing: string[]
  /** Merkle root over living entries, 64 hex digits. */
  root: string
  /** Living files, all bytes of them, and the bytes of them that are real here. */
  files: number
  bytes: number
  realBytes: number
  /** Bytes of files that are not real and are cached here. */
  cachedBytes: number
  /** What `fetch` has cached, of what it was asked for; null: nothing is being fetched so. */
  fetching: FetchProgress | null
  /** What is still to come here. */
  needFiles: number
  needBytes: number
  conflicts: number
  /** At most PROBLEMS_MAX of them; `problemCount` is all. */
  problems: Problem[]
  problemCount: number
  /** How the scan goes on, or null. */
  scan: { done: number } | null
  peers: ArenaPeerStatus[]
}
export const PROBLEMS_MAX = 100

export interface FetchProgress {
  files: number
  filesDone: number
  bytes: number
  bytesDone: number
}

export interface FetchOutcome {
  /** Below the path that are not real, and the bytes of them. */
  files: number
  bytes: number
  /** Those that could not be cached wholly; at most PROBLEMS_MAX of them. */
  problems: Problem[]
  problemCount: number
}

export interface ArenaPeerStatus {
  id: PeerId
  name: string
  /** Their root equals ours and nothing is pending there. */
  consensus: boolean
  pending: number
  /** Entries of ours that they have not yet taken, and of theirs that we have not. */
  toSend: number
  toReceive: number
  /** Why nothing flows (policy differs, not allowed), or null. */
  reason: string | null
}

export type HistoryAction =
  | 'created'
  | 'edited'
  | 'renamed'
  | 'deleted'
  | 'received'
  | 'removed'
  | 'conflicted'
  | 'restored'
  | 'resolved'
  /** Its content was given up here; the file lives on. */
  | 'unrealized'

/** One line of the human-readable log of what happened here. */
export interface HistoryEvent {
  /** Grows by one in each arena. */
  number: number
  /** Milliseconds since 1970. */
  atMs: number
  arena: ArenaName
  action: HistoryAction
  path: EntryPath
  /** The former path of `renamed`; the conflict copy of `conflicted`. */
  other?: EntryPath
  /** Author of the version: who made it. */
  author: string
  /** Short name of the version, the same in the histories and logs of all peers. */
  version: string
  size?: number
}

export interface ListedEntry {
  path: EntryPath
  type: 'file' | 'dir' | 'symlink'
  size: number
  /** Milliseconds since 1970. */
  mtimeMs: number
  exec: boolean
  /** The mark that holds for it: its own, or that of the nearest folder above it that has one. */
  mark: Mark
  /** Bytes of it that are on this disk. */
  here: number
  target?: string
  /** Connected peers that have a file's content, if that was asked: as an ordinary file, or wholly cached. */
  holders?: { name: string; held: 'real' | 'cached' }[]
  /** Why it is not as known, if so. */
  problem?: string
}

export interface ListedConflict {
  path: EntryPath
  copy: EntryPath
  size: number
  mtimeMs: number
  author: string
}

export interface ListedVersion {
  /** Names the version in `restore --version`. */
  version: string
  path: EntryPath
  size: number
  mtimeMs: number
  /** When it was replaced or deleted here. */
  keptMs: number
  hash: string
}
