/**
 * Versions of one path: what they hold, which includes which, which wins. Pure algebra, no paths, no disk, no clock.
 *
 * Three rules stand here (docs/reconciliation.md): a local change is based on what this disk shows (R1), the winner's
 * order extends causality (R2), and vectors are merged only where the content is the same.
 */
import type { Author, BlobHash, ReplicaId } from '../../protocol/ids.ts'
import { MTIME_NS_MAX } from '../../protocol/limits.ts'

/** For each replica how many of its changes are included; sorted by replica, no zero counts. */
export type Vector = readonly (readonly [ReplicaId, number])[]

export interface FileContent {
  readonly type: 'file'
  readonly size: number
  /** Data to restore, not evidence: it is no part of what makes two contents the same. */
  readonly mtimeNs: bigint
  readonly exec: boolean
  readonly hash: BlobHash
}
export interface SymlinkContent {
  readonly type: 'symlink'
  readonly target: string
}
/** A tombstone. `deleted`: the hash that went, if it was a file. */
export interface GoneContent {
  readonly type: 'gone'
  readonly deleted: BlobHash | null
}
export type Content = FileContent | SymlinkContent | { readonly type: 'dir' } | GoneContent

export interface Version {
  readonly content: Content
  readonly vector: Vector
  /**
   * Generation: edit ⌊g(base)⌋+1, delete ⌊g(base)⌋+½, touch g(base), first scan of a file without history 0. Under
   * the policy `newest` a stamp in milliseconds takes its place, never less than the base's.
   */
  readonly g: number
  readonly author: Author
}

export type Order = 'same' | 'newer' | 'older' | 'concurrent'

/** How `a` stands to `b`: `newer` includes it. Both sorted; O(n). */
export function compareVectors(a: Vector, b: Vector): Order {
  let aMore = false
  let bMore = false
  let i = 0
  let j = 0
  while (i < a.length || j < b.length) {
    const left = a[i]
    const right = b[j]
    if (right === undefined || (left !== undefined && left[0] < right[0])) {
      aMore = true
      i++
    } else if (left === undefined || right[0] < left[0]) {
      bMore = true
      j++
    } else {
      if (left[1] > right[1]) aMore = true
      else if (left[1] < right[1]) bMore = true
      i++
      j++
    }
    if (aMore && bMore) return 'concurrent'
  }
  return aMore ? 'newer' : bMore ? 'older' : 'same'
}

/** Whether everything in `b` is in `a`. */
export function includes(a: Vector, b: Vector): boolean {
  const order = compareVectors(a, b)
  return order === 'same' || order === 'newer'
}

/** The least vector that includes both. */
export function joinVectors(a: Vector, b: Vector): Vector {
  const counts = new Map<ReplicaId, number>(a)
  for (const [replica, count] of b) counts.set(replica, Math.max(counts.get(replica) ?? 0, count))
  return sorted(counts)
}

/** The vector with one replica's count set; 0 takes it out. */
export function withCount(vector: Vector, replica: ReplicaId, count: number): Vector {
  const counts = new Map<ReplicaId, number>(vector)
  if (count === 0) counts.delete(replica)
  else counts.set(replica, count)
  return sorted(counts)
}

export function countOf(vector: Vector, replica: ReplicaId): number {
  for (const [id, count] of vector) if (id === replica) return count
  return 0
}

function sorted(counts: Map<ReplicaId, number>): Vector {
  return [...counts].sort((x, y) => (x[0] < y[0] ? -1 : 1))
}

/** Type, hash, exec bit, link target. Not the mtime, not what a tombstone remembers. */
export function sameContent(a: Content, b: Content): boolean {
  if (a.type === 'file') return b.type === 'file' && a.hash === b.hash && a.exec === b.exec
  if (a.type === 'symlink') return b.type === 'symlink' && a.target === b.target
  return a.type === b.type
}

export function living(version: Version | null | undefined): version is Version {
  return version !== null && version !== undefined && version.content.type !== 'gone'
}

const RANK = { dir: 3, file: 2, symlink: 1, gone: 0 } as const

/**
 * Total order of concurrent versions, greater wins: g, then directory > file > symlink > nothing, then content, then
 * author and vector. Symmetric; 0 only for versions that are the same in all of it.
 */
export function compareWinners(a: Version, b: Version): number {
  return (
    a.g - b.g ||
    RANK[a.content.type] - RANK[b.content.type] ||
    compareText(contentKey(a.content), contentKey(b.content)) ||
    compareText(a.author, b.author) ||
    compareText(JSON.stringify(a.vector), JSON.stringify(b.vector))
  )
}

function contentKey(content: Content): string {
  if (content.type === 'file') return content.hash + (content.exec ? 'x' : '-')
  return content.type === 'symlink' ? content.target : ''
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

export interface Meeting {
  /** What is known after both are known. */
  readonly known: Version
  /** `ours`: nothing new. `theirs`: they win. `merged`: same content, a vector that includes both. `same`: the very same. */
  readonly outcome: 'ours' | 'theirs' | 'merged' | 'same'
  /** Neither includes the other and the contents differ: whoever has the loser on its disk keeps a copy of it. */
  readonly conflict: boolean
}

/** Two versions of one path meet. The same known version comes out whatever the order of arrival. */
export function meet(ours: Version | null, theirs: Version): Meeting {
  if (ours === null) return { known: theirs, outcome: 'theirs', conflict: false }
  const order = compareVectors(ours.vector, theirs.vector)
  const equal = sameContent(ours.content, theirs.content)
  if (order === 'newer') return { known: ours, outcome: 'ours', conflict: false }
  if (order === 'older') return { known: theirs, outcome: 'theirs', conflict: false }
  if (equal) {
    // Merges in another order can leave one vector with another mtime or author: then the greater, like any merge.
    const meeting = merge(ours, theirs)
    return order === 'same' && sameInAll(meeting.known, ours)
      ? { known: ours, outcome: 'same', conflict: false }
      : meeting
  }
  // Concurrent, or one vector for two contents (a store was copied): the same winner everywhere.
  const theyWin = compareWinners(theirs, ours) > 0
  return { known: theyWin ? theirs : ours, outcome: theyWin ? 'theirs' : 'ours', conflict: true }
}

function merge(ours: Version, theirs: Version): Meeting {
  const known: Version = {
    content: mergedContent(ours.content, theirs.content),
    vector: joinVectors(ours.vector, theirs.vector),
    g: Math.max(ours.g, theirs.g),
    author: compareText(ours.author, theirs.author) > 0 ? ours.author : theirs.author,
  }
  return { known, outcome: 'merged', conflict: false }
}

/** Whether two versions of one vector and content are the same in what a merge chooses, too. */
function sameInAll(a: Version, b: Version): boolean {
  const remembered = ({ content }: Version) => (content.type === 'gone' ? content.deleted : null)
  return (
    a.g === b.g && a.author === b.author && mtimeOf(a.content) === mtimeOf(b.content) && remembered(a) === remembered(b)
  )
}

/** The later mtime; of tombstones the greater remembered hash, so that the order of merging does not show. */
function mergedContent(a: Content, b: Content): Content {
  if (a.type === 'file' && b.type === 'file') return a.mtimeNs >= b.mtimeNs ? a : b
  if (a.type === 'gone' && b.type === 'gone') return (a.deleted ?? '') >= (b.deleted ?? '') ? a : b
  return a
}

export function mtimeOf(content: Content): bigint {
  return content.type === 'file' ? content.mtimeNs : 0n
}

/** Whether two versions are the same in everything that peers compare. */
export function sameVersion(a: Version, b: Version): boolean {
  return (
    a.g === b.g &&
    sameContent(a.content, b.content) &&
    mtimeOf(a.content) === mtimeOf(b.content) &&
    compareVectors(a.vector, b.vector) === 'same'
  )
}

/**
 * A version's short name, 8 hex digits, the same on every peer: it follows one change through the histories and logs of a
 * household (FNV-1a of the vector; for reading, not for deciding).
 */
export function versionTag({ vector }: Version): string {
  let sum = 2166136261
  const text = JSON.stringify(vector)
  for (let at = 0; at < text.length; at++) sum = Math.imul(sum ^ text.charCodeAt(at), 16777619)
  return (sum >>> 0).toString(16).padStart(8, '0')
}

export interface LocalChange {
  /** What the disk shows now. */
  readonly content: Content
  /** What the disk showed: *have*. null: nothing that was known. */
  readonly base: Version | null
  /** The best version that was heard of. null: none. */
  readonly known: Version | null
  readonly replica: ReplicaId
  /** The replica's next number, used for this change only. */
  readonly count: number
  readonly author: Author
  /** The store has no history yet: a file that was there before it (g = 0). */
  readonly firstScan: boolean
  readonly policy: 'keep-both' | 'newest'
  /** Only a stamp for `newest`. */
  readonly nowMs: number
}

/**
 * The version that a user's change makes: based on what the disk showed, never on what was only heard of (R1). But its count includes all
 * earlier changes of this replica. Of them *known* may be one that the disk no longer shows, as after a power loss; then it is
 * outdone: a version never has a lesser generation than one that it includes, or peers would choose by the order of what they hear.
 */
export function changeVersion(change: LocalChange): Version {
  const { base, content, known } = change
  const vector = withCount(base?.vector ?? [], change.replica, change.count)
  const outdone = known !== null && includes(vector, known.vector) ? generation({ ...change, base: known }) : 0
  return { content, vector, g: Math.max(generation(change), outdone), author: change.author }
}

function generation({ base, content, firstScan, policy, nowMs }: LocalChange): number {
  if (policy === 'newest') {
    const stampMs = content.type === 'file' ? Number(content.mtimeNs / 1_000_000n) : nowMs
    return Math.max(0, stampMs, base === null ? 0 : Math.floor(base.g) + 1)
  }
  if (base === null) return firstScan ? 0 : 1
  if (content.type === 'gone') return Math.floor(base.g) + 0.5
  // A touch does not outweigh somebody's edit.
  if (sameContent(base.content, content)) return base.g
  return Math.floor(base.g) + 1
}

/**
 * Whether a version's g can be honest: no more than one for each change that its vector counts. Counts are shared by all
 * paths of a replica, so this bounds, it does not prove.
 */
export function plausible(version: Version, policy: 'keep-both' | 'newest'): boolean {
  let changes = 0
  for (const [, count] of version.vector) changes += count
  // A stamp is an mtime, or one more than the base's: so it is bounded, too, whoever builds on it.
  const stampMax = policy === 'newest' ? Number(MTIME_NS_MAX / 1_000_000n) : 0
  return version.vector.length > 0 && version.g <= stampMax + changes + 0.5
}
