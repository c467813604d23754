/**
 * The change feeds between this store and its peers' stores: who has read how far, what goes out, what comes in; and when a
 * store was lost, restored or rolled back (R7). Entries only become known here; applying them is apply.ts.
 */
import { SyncError } from '../../protocol/error.ts'
import type { EntryPath, PeerId, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import { FEED_BYTES_TARGET, FEED_ENTRIES_MAX, FEED_WINDOW } from '../../protocol/limits.ts'
import type { ArenaPeerStatus } from '../../protocol/status.ts'
import type { ArenaWireMessage, WireEntry } from '../../protocol/wire.ts'
import { type ArenaContext, count, log } from './context.ts'
import type { Digest } from './merkle-set.ts'
import { rootOfBuckets } from './merkle-set.ts'
import { inFull, shortened } from './moved-entries.ts'
import type { Cursor, Entry, PeerRecord, StoreState, Writer } from './store.ts'
import { countOf, living, mtimeOf, sameContent, type Version, withCount } from './version.ts'
import { fromWire, toWire, unsayable, wireBytes } from './wire-entry.ts'

/** Our state is told to the peers this long after it has changed last. */
const STATE_DELAY_MS = 15
/** What peers have acknowledged is written down together, at most this long after: a transaction for each costs more than all the rest with many peers. */
const RECORD_DELAY_MS = 100
/** Roots that differ although both are quiet: after this long the peer's feed is read from the start again. */
const DRIFT_MS = 5_000

/** Batches of a peer that may be on their way when it is asked to say everything in full. */
const PASSED_OVER_MAX = 16 * FEED_WINDOW

/** How often a peer may say that this store has gone back, or make it so. */
const AFRESH_MAX = 10
const AFRESH_WINDOW_MS = 600_000

type Message<Type extends ArenaWireMessage['type']> = Extract<ArenaWireMessage, { type: Type }>

/** One connected peer, as far as this arena goes. */
export interface PeerSession {
  readonly id: PeerId
  readonly name: string
  /** What its `arena_open` said; null: not yet, so nothing flows. */
  theirs: { replica: ReplicaId; session: SessionToken; seq: number; moves: boolean } | null
  /** One side has said `arena_close` since our last `arena_open`: theirs must be answered with another one. */
  closed: boolean
  /** Ours: given out in batches, and acknowledged. */
  sent: number
  acknowledged: number
  openBatches: number
  /** Entries up to this number are said to it even if they came from it: it may have lost them since. */
  echoUpTo: number
  /** It named a version that is not known here: it is to say everything in full, and what is on its way may not fit. */
  plain: boolean
  rereading: boolean
  /** Batches that were not taken because of that. */
  passedOver: number
  /** Theirs: taken; and that durably, which alone may be acknowledged. */
  received: number
  durable: number
  appliedSaid: number
  state: { root: string; pending: number; seq: number; scanning: boolean } | null
  stateSaid: string
  /** Why nothing flows. */
  reason: string | null
  absent: boolean
  driftSinceMs: number | null
  rereadAtMs: number
}

export interface FeedEvents {
  /** Something new is known of these; most of them are not on the disk. */
  learnt(paths: readonly EntryPath[]): void
  /** A peer says that it has the content of these. */
  sources(peer: PeerId, paths: readonly EntryPath[]): void
  peerChanged(): void
  /** A peer has opened this arena, or has got all that it lacked. */
  peerReady(): void
  /** This store has forgotten what it once knew. */
  begunAfresh(): void
}

export interface Quiet {
  readonly scanning: boolean
  readonly pending: number
}

export class Feed {
  readonly sessions = new Map<PeerId, PeerSession>()
  readonly #context: ArenaContext
  readonly #digest: Digest
  readonly #events: FeedEvents
  readonly #quiet: () => Quiet

  constructor(context: ArenaContext, digest: Digest, events: FeedEvents, quiet: () => Quiet) {
    this.#context = context
    this.#digest = digest
    this.#events = events
    this.#quiet = quiet
  }

  /** What all living entries come to. Not to be asked within a transaction. */
  get root(): string {
    const { buckets } = this.#context.store.state()
    if (buckets !== this.#rootOf) {
      this.#rootOf = buckets
      this.#root = rootOfBuckets(buckets, this.#digest)
    }
    return this.#root
  }
  /** The buckets that `#root` was computed from: asked many times for each change. */
  #rootOf: Uint8Array | null = null
  #root = ''
  /** Records of peers that are to be written down soon. A kill before that loses nothing but that they are said once more. */
  readonly #unsaved = new Map<PeerId, PeerRecord>()

  opened(peer: PeerId, name: string): void {
    this.sessions.set(peer, {
      id: peer,
      name,
      theirs: null,
      closed: false,
      sent: 0,
      acknowledged: 0,
      openBatches: 0,
      echoUpTo: 0,
      plain: false,
      rereading: false,
      passedOver: 0,
      received: 0,
      durable: 0,
      appliedSaid: -1,
      state: null,
      stateSaid: '',
      reason: null,
      absent: false,
      driftSinceMs: null,
      rereadAtMs: 0,
    })
    this.#sayOpen(peer)
    this.#events.peerChanged()
  }

  /** Says what this store is, to all: after a change of settings. */
  reopen(): void {
    for (const peer of this.sessions.keys()) this.#sayOpen(peer)
  }

  /** This arena stops for now; the connection stays. */
  suspend(reason: string): void {
    for (const peer of this.sessions.keys()) this.decline(peer, reason)
    this.sessions.clear()
  }

  /** Not now: the peer will hear from us when we go on, and then says again what it has. */
  decline(peer: PeerId, reason: string): void {
    this.#send(peer, { type: 'arena_close', arena: this.#context.settings.name, code: 'busy', reason })
  }

  closed(peer: PeerId): void {
    this.#save()
    this.sessions.delete(peer)
    this.#events.peerChanged()
  }

  #record(peer: PeerId): PeerRecord | undefined {
    return this.#unsaved.get(peer) ?? this.#context.store.peer(peer)
  }

  #recordSoon(peer: PeerId, record: PeerRecord): void {
    const { timers, clock } = this.#context
    this.#unsaved.set(peer, record)
    timers.soon('records', clock.nowMs() + RECORD_DELAY_MS, () => this.#save())
  }

  #save(): void {
    if (this.#unsaved.size === 0) return
    this.#context.store.transact(writer => {
      for (const [peer, record] of this.#unsaved) writer.putPeer(peer, record)
    })
    this.#unsaved.clear()
  }

  #send(peer: PeerId, header: ArenaWireMessage): void {
    this.#context.deliver({ to: 'peer', peer, message: { type: 'send', header } })
  }

  #sayOpen(peer: PeerId, again = false): void {
    if (!this.#announced) return
    const { store, settings } = this.#context
    const state = store.state()
    const read = this.#record(peer)?.read ?? null
    const session = this.sessions.get(peer)
    if (session) {
      session.closed = false
      // Who hears this forgets what it was told of our state.
      session.stateSaid = ''
      this.stateSoon()
    }
    this.#send(peer, {
      type: 'arena_open',
      arena: settings.name,
      replica: state.replica,
      session: sessionOf(state),
      seq: state.seq,
      conflicts: settings.conflicts === 'newest' ? 'newest' : 'keep-both',
      read: again ? null : read,
      again,
      knows: this.sessions.get(peer)?.theirs?.session ?? null,
      // Who reads from the start because the roots differ wants to hear what the other has, not to be pointed to what is here.
      moves: !again && session?.plain !== true,
    })
  }

  // Opening

  arenaOpen(peer: PeerId, message: Message<'arena_open'>): void {
    const session = this.sessions.get(peer)
    if (!session || !this.#announced) return
    const { store, settings } = this.#context
    const ours = settings.conflicts === 'newest' ? 'newest' : 'keep-both'
    if (message.conflicts !== ours) {
      session.reason = `it has conflicts = "${message.conflicts}", we have "${ours}": make both the same`
      session.theirs = null
      session.closed = true
      session.state = null
      this.#send(peer, { type: 'arena_close', arena: settings.name, code: 'not_allowed', reason: session.reason })
      return this.#events.peerChanged()
    }
    const { replica, read } = message
    if (replica === store.state().replica) {
      // One of the two stores is a copy of the other, and both go on counting as one.
      log(this.#context, 'arena_rolled_back', { peer: session.name })
      return this.#beginAfresh(peer)
    }
    if (read !== null && read.replica === store.state().replica && !this.#context.rules.isOurs(read, store.state())) {
      // The peer read what this store no longer knows of: it is this store that went back.
      log(this.#context, 'arena_rolled_back', { peer: session.name, seq: read.seq })
      return this.#beginAfresh(peer)
    }
    const current = store.state()
    const from = read !== null && read.replica === current.replica ? read.seq : 0
    const known = this.#record(peer)
    const before = known?.acknowledged
    if (
      !message.again &&
      before &&
      before.replica === replica &&
      before.ours === current.replica &&
      from < before.seq
    ) {
      session.theirs = null
      this.#send(peer, { type: 'rolled_back', arena: settings.name, replica })
      return
    }
    const cursor = known?.read && known.read.replica === replica ? known.read : null
    // What it says it has read need not be durable there yet: only what it acknowledges is.
    const acknowledged = before?.replica === replica && before.ours === current.replica ? Math.min(before.seq, from) : 0
    this.#recordSoon(peer, { read: cursor, acknowledged: { replica, ours: current.replica, seq: acknowledged } })
    if (before?.replica !== replica && current.totals.pending > 0)
      store.transact(writer => this.#forgetOrigin(writer, peer))
    session.theirs = { replica, session: message.session, seq: message.seq, moves: message.moves === true }
    session.reason = null
    session.absent = false
    session.sent = from
    session.acknowledged = from
    session.openBatches = 0
    session.echoUpTo = current.seq
    session.received = cursor?.seq ?? 0
    session.durable = 0
    this.#whenDurable(peer, session, session.received)
    session.stateSaid = ''
    session.state = null
    if (message.knows !== sessionOf(store.state())) this.#sayOpen(peer)
    log(this.#context, 'arena_peer_opened', { peer: session.name, from, read: session.received })
    this.#events.peerReady()
    this.#pump(session)
    this.stateSoon()
    this.#events.peerChanged()
  }

  /** The peer's store is another one: what is to be applied here and came from the former one is news for it, too. */
  #forgetOrigin(writer: Writer, peer: PeerId): void {
    const { store } = this.#context
    for (let after: EntryPath | null = null; ; ) {
      const page: EntryPath[] = store.pendingPage(after, 1000)
      for (const path of page) {
        const entry = store.entry(path)
        if (entry?.origin === peer) writer.putEntry({ ...entry, origin: null }, false)
      }
      if (page.length < 1000) return
      after = page.at(-1) as EntryPath
    }
  }

  arenaClose(peer: PeerId, message: Message<'arena_close'>): void {
    const session = this.sessions.get(peer)
    if (!session) return
    session.theirs = null
    session.closed = true
    session.state = null
    session.reason = message.reason
    // A peer that does not have this arena is not waited for.
    session.absent = message.code === 'arena_unknown'
    this.#events.peerChanged()
  }

  /** A peer says that we ask for less than we had taken: our store was restored from an older copy. */
  rolledBack(peer: PeerId, message: Message<'rolled_back'>): void {
    const { store } = this.#context
    if (message.replica !== store.state().replica) return
    log(this.#context, 'arena_rolled_back', { peer: this.sessions.get(peer)?.name ?? peer })
    this.#beginAfresh(peer)
  }

  /**
   * Goes on as a fresh replica. Nobody hears of it before it is durable: who has read it tells by that what this store was, and a
   * store that lost it would not know itself. Each peer answers the new session with a new `arena_open`, and reads all of it
   * again: so no peer may bring that about too often. Throws `limit_exceeded`.
   */
  #beginAfresh(because: PeerId): void {
    const nowMs = this.#context.clock.nowMs()
    const past = (this.#begunAfresh.get(because) ?? []).filter(atMs => nowMs - atMs < AFRESH_WINDOW_MS)
    if (past.length >= AFRESH_MAX)
      throw new SyncError('limit_exceeded', `it made this store begin afresh ${AFRESH_MAX} times within ten minutes`)
    this.#begunAfresh.set(because, [...past, nowMs])
    this.#freshReplica()
    this.#events.begunAfresh()
    const afresh = ++this.#afresh
    this.#announced = false
    this.#context.store.flushed(() => {
      if (this.#afresh !== afresh) return
      this.#announced = true
      for (const id of this.sessions.keys()) this.#sayOpen(id)
    })
  }
  #afresh = 0
  /** Whether the replica that this is may be named. */
  #announced = true
  /** When each peer made this store begin afresh. */
  readonly #begunAfresh = new Map<PeerId, number[]>()

  /**
   * A new replica id and session; cursors forgotten; versions that this opening made renumbered, for their counts may
   * have been used before the store went back (R7).
   */
  #freshReplica(): void {
    const { store, random } = this.#context
    const { replica: old, countAtOpening } = store.state()
    const replica = random() as ReplicaId
    const affected: EntryPath[] = []
    for (let after: EntryPath | null = null; ; ) {
      const page: Entry[] = store.page(after, 1000, null)
      for (const { path, known, have } of page) {
        if (countOf(known.vector, old) > countAtOpening || (have && countOf(have.vector, old) > countAtOpening))
          affected.push(path)
      }
      if (page.length < 1000) break
      after = (page.at(-1) as Entry).path
    }
    store.transact(writer => {
      // Counts go on from where they were: a generation is never greater than the sum of its version's counts.
      writer.setState({
        replica,
        sessions: [{ token: random() as SessionToken, firstSeq: store.state().seq }],
        countAtOpening: 0,
      })
      this.#unsaved.clear()
      for (const peer of store.peers()) writer.putPeer(peer, { read: null, acknowledged: null })
      for (const path of affected) this.#renumber(writer, path, old, countAtOpening, replica)
    })
    // Nothing flows until each peer has answered the new session.
    for (const session of this.sessions.values()) session.theirs = null
    log(this.#context, 'arena_replica_fresh', { replica, renumbered: affected.length })
    count(this.#context, { fresh_replicas: 1 })
  }

  #renumber(writer: Writer, path: EntryPath, old: ReplicaId, upTo: number, fresh: ReplicaId): void {
    const entry = this.#context.store.entry(path)
    if (!entry) return
    const fix = (version: Version): Version =>
      countOf(version.vector, old) <= upTo
        ? version
        : { ...version, vector: withCount(withCount(version.vector, old, upTo), fresh, writer.nextCount()) }
    const known = fix(entry.known)
    const have = entry.have === entry.known ? known : entry.have && fix(entry.have)
    writer.putEntry({ ...entry, known, have, origin: null }, true)
  }

  // Going out

  /** Sends what peers have not had, as far as their windows allow. */
  pump(): void {
    for (const session of this.sessions.values()) this.#pump(session)
  }

  #pump(session: PeerSession): void {
    while (session.theirs && session.openBatches < FEED_WINDOW && this.#sendBatch(session, session.theirs));
  }

  #sendBatch(session: PeerSession, { replica: reader, moves }: NonNullable<PeerSession['theirs']>): boolean {
    const { store, settings } = this.#context
    const { seq: last, replica } = store.state()
    if (session.sent >= last) return false
    const said: Entry[] = []
    const batch: WireEntry[] = []
    let to = session.sent
    let bytes = 0
    const rows = store.feed(session.sent, FEED_ENTRIES_MAX)
    for (const entry of rows) {
      to = entry.seq
      // What came from this peer, it has.
      if (entry.origin === session.id && entry.seq > session.echoUpTo) continue
      // One entry that no peer could take must not keep all others back.
      const fault = unsayable(entry.known)
      if (fault !== null) {
        this.#context.problems.set(entry.path, fault)
        continue
      }
      const wire = toWire(entry)
      said.push(entry)
      batch.push(wire)
      bytes += wireBytes(wire)
      if (bytes > FEED_BYTES_TARGET) break
    }
    if (rows.length < FEED_ENTRIES_MAX && bytes <= FEED_BYTES_TARGET) to = last
    this.#send(session.id, {
      type: 'feed',
      arena: settings.name,
      source: replica,
      reader,
      from: session.sent,
      to,
      entries: moves ? shortened(said, batch) : batch,
    })
    session.sent = to
    session.openBatches++
    return true
  }

  feedAck(peer: PeerId, message: Message<'feed_ack'>): void {
    const session = this.sessions.get(peer)
    const { store } = this.#context
    const state = store.state()
    if (!session?.theirs || message.source !== state.replica) return
    if (message.received > session.sent)
      throw new SyncError('message_invalid', 'an acknowledgement of what was never sent')
    if (message.received > session.acknowledged) {
      session.acknowledged = message.received
      const { replica } = session.theirs
      this.#recordSoon(peer, {
        read: this.#record(peer)?.read ?? null,
        acknowledged: { replica, ours: state.replica, seq: message.received },
      })
    }
    // One answer for each batch; later ones only say that more was applied.
    if (message.batch) session.openBatches = Math.max(0, session.openBatches - 1)
    this.#pump(session)
    this.#events.peerChanged()
  }

  // Coming in

  /** Takes a batch: all of it becomes known in one transaction with the cursor. */
  take(peer: PeerId, message: Message<'feed'>): void {
    const session = this.sessions.get(peer)
    const { store, settings } = this.#context
    if (!session?.theirs) return
    if (message.source !== session.theirs.replica || message.reader !== store.state().replica) return
    // What comes twice, as after crossing `arena_open`s, changes nothing; what is missing must not be guessed.
    if (message.from > session.received || message.to < message.from) {
      if (session.rereading) return this.#passOver(session)
      throw new SyncError('message_invalid', `a gap in the feed: ${message.from} after ${session.received}`)
    }
    const entries = inFull(message.entries, path => store.entry(path))
    session.rereading = entries === null
    if (entries === null) return this.#wantInFull(peer, session)
    const policy = settings.conflicts === 'newest' ? 'newest' : 'keep-both'
    const versions = entries.map(entry => fromWire(entry, policy))
    const { replica: own, count: given } = store.state()
    if (versions.some(version => countOf(version.vector, own) > given)) {
      // A change of ours that this store does not know: it was rolled back, and nobody is left whose cursor says so.
      log(this.#context, 'arena_rolled_back', { peer: session.name })
      this.#beginAfresh(peer)
      return
    }
    const sources: EntryPath[] = []
    const before = this.#record(peer)
    const learnt: EntryPath[] = []
    const cursor: Cursor = {
      replica: session.theirs.replica,
      session: session.theirs.session,
      seq: Math.max(session.received, message.to),
    }
    store.transact(writer => {
      entries.forEach((wire, index) => {
        const outcome = this.#learn(writer, peer, wire.path, versions[index] as Version)
        if (outcome !== 'nothing') learnt.push(wire.path)
        if (wire.has) sources.push(wire.path)
      })
      writer.putPeer(peer, { acknowledged: before?.acknowledged ?? null, read: cursor })
    })
    this.#unsaved.delete(peer)
    session.received = cursor.seq
    count(this.#context, { feed_entries_received: message.entries.length, feed_entries_new: learnt.length })
    this.#whenDurable(peer, session, cursor.seq, () => {
      if (this.#quiet().pending === 0) session.appliedSaid = session.durable
      this.#send(peer, {
        type: 'feed_ack',
        arena: settings.name,
        source: cursor.replica,
        received: message.to,
        applied: Math.max(0, session.appliedSaid),
        batch: true,
      })
    })
    if (sources.length > 0) this.#events.sources(peer, sources)
    if (learnt.length > 0) this.#events.learnt(learnt)
    // Also what we only say again.
    this.pump()
    this.stateSoon()
    this.#events.peerChanged()
  }

  /** Reads on from where it is, of a peer that names nothing any more. */
  #wantInFull(peer: PeerId, session: PeerSession): void {
    this.#passOver(session)
    if (session.plain) return
    session.plain = true
    this.#sayOpen(peer)
  }

  #passOver(session: PeerSession): void {
    if (++session.passedOver > PASSED_OVER_MAX)
      throw new SyncError('message_invalid', 'versions are named that are not known here')
  }

  /** An acknowledgement is a promise: only what is durable is given it. */
  #whenDurable(peer: PeerId, session: PeerSession, taken: number, then: () => void = () => {}): void {
    const replica = session.theirs?.replica
    this.#context.store.flushed(() => {
      if (this.sessions.get(peer) !== session || session.theirs?.replica !== replica) return
      session.durable = Math.max(session.durable, taken)
      then()
    })
  }

  /** One entry of a peer meets ours. */
  #learn(writer: Writer, peer: PeerId, path: EntryPath, theirs: Version): 'nothing' | 'known' | 'pending' {
    const { store, rules } = this.#context
    const entry = rules.remembered(store.entry(path), theirs)
    const { known, outcome, conflict } = rules.meet(entry?.known ?? null, theirs)
    if (outcome === 'ours' || outcome === 'same') {
      // They know less than we do although they had ours: they lost it. Say it again.
      if (outcome === 'ours' && !conflict && entry && this.#hadOurs(peer, entry)) {
        writer.putEntry({ ...entry, origin: entry.origin === peer ? null : entry.origin }, true)
      }
      return 'nothing'
    }
    const have = entry?.have ?? null
    const origin = outcome === 'theirs' ? peer : null
    const base = {
      path,
      seq: 0,
      known,
      dormant: entry?.dormant ?? false,
      former: entry?.former ?? null,
      origin,
      announced: false,
    }
    // Nothing to do on the disk: the same content, or a deletion of what never was here.
    const agrees =
      have !== null && sameContent(have.content, known.content) && mtimeOf(have.content) === mtimeOf(known.content)
    const neverHere = known.content.type === 'gone' && !living(have) && !base.dormant
    if (agrees || neverHere) {
      writer.putEntry({ ...base, have: known, stamp: entry?.stamp ?? null, pending: false }, true)
      return 'known'
    }
    writer.putEntry({ ...base, have, stamp: entry?.stamp ?? null, pending: true }, false)
    return 'pending'
  }

  #hadOurs(peer: PeerId, entry: Entry): boolean {
    const session = this.sessions.get(peer)
    return session?.theirs != null && entry.seq > 0 && entry.seq <= session.acknowledged
  }

  // Consensus

  stateSoon(): void {
    const { timers, clock } = this.#context
    timers.soon('state', clock.nowMs() + STATE_DELAY_MS, () => this.sayState())
  }

  /** Tells each peer what it would need for consensus, if that changed. */
  sayState(): void {
    const root = this.root
    const quiet = this.#quiet()
    for (const session of this.sessions.values()) {
      if (session.theirs) this.#sayStateTo(session, root, quiet, 0)
    }
    this.checkDrift()
  }

  #sayStateTo(session: PeerSession, root: string, quiet: Quiet, probe: number): void {
    const { store, settings } = this.#context
    const { seq } = store.state()
    const said = `${root} ${seq} ${quiet.pending} ${quiet.scanning}`
    if (probe === 0 && session.stateSaid === said) return
    session.stateSaid = said
    if (session.theirs && quiet.pending === 0 && session.appliedSaid < session.durable) {
      session.appliedSaid = session.durable
      this.#send(session.id, {
        type: 'feed_ack',
        arena: settings.name,
        source: session.theirs.replica,
        received: session.durable,
        applied: session.durable,
        batch: false,
      })
    }
    this.#send(session.id, { type: 'arena_state', arena: settings.name, root, seq, ...quiet, probe })
  }

  answerProbe(peer: PeerId, probe: number): void {
    const session = this.sessions.get(peer)
    if (session) this.#sayStateTo(session, this.root, this.#quiet(), probe)
  }

  probe(peer: PeerId, probe: number): void {
    this.#send(peer, { type: 'arena_probe', arena: this.#context.settings.name, probe })
  }

  arenaState(peer: PeerId, message: Message<'arena_state'>): void {
    const session = this.sessions.get(peer)
    if (!session) return
    const { root, pending, seq, scanning } = message
    const lacked = session.state !== null && session.state.pending > 0
    session.state = { root, pending, seq, scanning }
    if (lacked && pending === 0) this.#events.peerReady()
    this.#checkDrift(session)
    this.#events.peerChanged()
  }

  /** Whether a peer is here and has told us all; or does not have this arena. */
  hasSaidAll(peer: PeerId): boolean {
    const session = this.sessions.get(peer)
    if (session?.absent) return true
    const { state } = session ?? {}
    // Who looks at its disk may find anything.
    return Boolean(session?.theirs && state && !state.scanning && session.received >= state.seq)
  }

  /** What keeps this peer and us from consensus, or null. */
  missingWith(session: PeerSession, root: string, lastSeq: number): string | null {
    if (session.absent) return null
    if (session.reason !== null) return `${session.name}: ${session.reason}`
    if (!session.theirs) return null
    if (!session.state) return `${session.name} has not said its state yet`
    if (session.acknowledged < lastSeq)
      return `${session.name} has not taken ${lastSeq - session.acknowledged} of our changes`
    if (session.received < session.state.seq)
      return `${session.name} has ${session.state.seq - session.received} changes for us`
    if (session.state.pending > 0) return `${session.name} lacks ${session.state.pending} entries`
    if (session.state.scanning) return `${session.name} is looking at its disk`
    if (session.state.root !== root) return `${session.name} knows something else than we do`
    return null
  }

  checkDrift(): void {
    for (const session of this.sessions.values()) this.#checkDrift(session)
  }

  /** Both sides quiet, everything read, and yet the roots differ: read their feed from the start. */
  #checkDrift(session: PeerSession): void {
    const { store, clock, timers } = this.#context
    const nowMs = clock.nowMs()
    const { theirs, state } = session
    const quiet = this.#quiet()
    const drifted =
      theirs &&
      state &&
      quiet.pending === 0 &&
      !quiet.scanning &&
      state.pending === 0 &&
      !state.scanning &&
      state.root !== this.root &&
      session.acknowledged >= store.state().seq &&
      session.received >= state.seq
    if (!drifted) {
      session.driftSinceMs = null
      return
    }
    session.driftSinceMs ??= nowMs
    const dueMs = Math.max(session.driftSinceMs + DRIFT_MS, session.rereadAtMs + 12 * DRIFT_MS)
    if (nowMs < dueMs) {
      timers.soon('drift', dueMs, () => this.checkDrift())
      return
    }
    session.rereadAtMs = nowMs
    session.driftSinceMs = null
    log(this.#context, 'arena_drifted', { peer: session.name })
    this.#recordSoon(session.id, { acknowledged: this.#record(session.id)?.acknowledged ?? null, read: null })
    this.#sayOpen(session.id, true)
    session.received = 0
  }

  /** Rows for `status`. */
  describe(): ArenaPeerStatus[] {
    const root = this.root
    const lastSeq = this.#context.store.state().seq
    return [...this.sessions.values()].map(session => ({
      id: session.id,
      name: session.name,
      consensus: session.theirs !== null && this.missingWith(session, root, lastSeq) === null,
      pending: session.state?.pending ?? 0,
      toSend: session.theirs ? lastSeq - session.acknowledged : 0,
      toReceive: session.theirs && session.state ? Math.max(0, session.state.seq - session.received) : 0,
      reason: session.reason ?? (session.theirs ? null : 'it has not opened this arena'),
    }))
  }
}

function sessionOf(state: StoreState): SessionToken {
  return state.sessions.at(-1)?.token as SessionToken
}
