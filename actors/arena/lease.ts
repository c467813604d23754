/**
 * Who may give up a file's content, and who must not meanwhile: no content may leave its last disk. Pure: the clock is an argument,
 * what is to be kept through a kill is kept by its caller.
 *
 * Who leaves a file writes that down and grants nothing for it from then on, and asks a peer that shows the very same file at the same path. That one
 * promises for LEASE_MS neither to leave it nor to drop its content. The promise is good for the leaver for half that time, by its
 * own clock, counted from before it asked: what is not done by then is taken back. Two that leave the same file refuse each other.
 * What was promised before a start cannot be known to the millisecond, nor what a store that was put back has forgotten: after
 * either nothing is left, and what is written down is kept, for a whole LEASE_MS.
 */
import type { BlobHash, EntryPath, PeerId } from '../../protocol/ids.ts'
import { LEASE_MS } from '../../protocol/limits.ts'

/** A file: content at a path. */
export interface LeasedFile {
  readonly path: EntryPath
  readonly hash: BlobHash
}

/** A promise that was given. */
export interface GrantedLease extends LeasedFile {
  readonly peer: PeerId
}

/** Promises in force, all peers together: more are refused. */
export const LEASES_MAX = 10_000

export type LeaseAnswer =
  /** It stays here until the lease ends. */
  | 'granted'
  /** It is not shown here, or not just so. */
  | 'missing'
  /** It is about to leave this disk as well. */
  | 'leaving'
  /** Not now; ask again. */
  | 'later'

export class Leases {
  readonly #granted = new Map<EntryPath, { readonly hash: BlobHash; readonly untilMs: Map<PeerId, number> }>()
  readonly #leaving = new Map<EntryPath, BlobHash>()
  #restsUntilMs: number
  #count = 0

  /** @param granted what was promised before this start */
  constructor(granted: Iterable<GrantedLease>, nowMs: number) {
    this.#restsUntilMs = nowMs + LEASE_MS
    for (const { peer, ...file } of granted) this.#note(peer, file, nowMs)
  }

  /** Nothing is left for a whole lease's time: this store may have forgotten what it promised. */
  rest(nowMs: number): void {
    this.#restsUntilMs = nowMs + LEASE_MS
  }

  /** When files may be left, monotonic milliseconds; it may be past. */
  get restsUntilMs(): number {
    return this.#restsUntilMs
  }

  // Staying

  /** @param holds whether this disk shows the file, complete and durable, and is not about to change it */
  answer(peer: PeerId, file: LeasedFile, holds: boolean, nowMs: number): LeaseAnswer {
    if (!holds) return 'missing'
    if (this.#leaving.has(file.path)) return 'leaving'
    if (this.#count >= LEASES_MAX) this.expire(nowMs)
    const before = this.#granted.get(file.path)
    // Of other content at the same path; the file has changed since.
    if (this.#count >= LEASES_MAX || (before && before.hash !== file.hash)) return 'later'
    this.#note(peer, file, nowMs)
    return 'granted'
  }

  #note(peer: PeerId, { path, hash }: LeasedFile, nowMs: number): void {
    const lease = this.#granted.get(path) ?? { hash, untilMs: new Map<PeerId, number>() }
    if (!lease.untilMs.has(peer)) this.#count++
    lease.untilMs.set(peer, nowMs + LEASE_MS)
    this.#granted.set(path, lease)
  }

  /** The leaver has left, or stays. True: there was such a lease. */
  end(peer: PeerId, { path, hash }: LeasedFile): boolean {
    const lease = this.#granted.get(path)
    if (lease?.hash !== hash || !lease.untilMs.delete(peer)) return false
    this.#count--
    if (lease.untilMs.size === 0) this.#granted.delete(path)
    return true
  }

  /** Ends all whose time is over; they are returned. */
  expire(nowMs: number): GrantedLease[] {
    const ended: GrantedLease[] = []
    for (const [path, { hash, untilMs }] of this.#granted)
      for (const [peer, ms] of untilMs) if (ms <= nowMs) ended.push({ peer, path, hash })
    for (const lease of ended) this.end(lease.peer, lease)
    return ended
  }

  /** When the next one ends; Infinity: none. */
  get nextEndMs(): number {
    let next = Number.POSITIVE_INFINITY
    for (const { untilMs } of this.#granted.values()) for (const ms of untilMs.values()) next = Math.min(next, ms)
    return next
  }

  /** Whether a peer relies on this file's being here. */
  isGranted(path: EntryPath, nowMs: number): boolean {
    for (const ms of this.#granted.get(path)?.untilMs.values() ?? []) if (ms > nowMs) return true
    return false
  }

  /** Content that a peer relies on: it may be in the version store by now. */
  promised(nowMs: number): Set<BlobHash> {
    const hashes = new Set<BlobHash>()
    for (const [path, { hash }] of this.#granted) if (this.isGranted(path, nowMs)) hashes.add(hash)
    return hashes
  }

  // Leaving

  /** Begins to leave a file; false: it must stay for now. */
  leave({ path, hash }: LeasedFile, nowMs: number): boolean {
    if (nowMs < this.#restsUntilMs || this.#leaving.has(path) || this.isGranted(path, nowMs)) return false
    this.#leaving.set(path, hash)
    return true
  }

  /** It was left, or stays. */
  ended(path: EntryPath): void {
    this.#leaving.delete(path)
  }

  isLeaving(path: EntryPath): boolean {
    return this.#leaving.has(path)
  }
}

/** Whether what was promised to a leaver may still be relied on. `askedMs`: by its own clock, before it asked. */
export function isInTime(askedMs: number, nowMs: number): boolean {
  return nowMs - askedMs < LEASE_MS / 2
}
