/**
 * One connection with another peer: who it is, what may be said when, which requests are open, whether it still lives.
 *
 * Pure: no socket, clock or port. `connection.ts` carries out what this yields. Functions change `peer`; what the
 * other end did wrong is thrown as a SyncError and closes the connection.
 *
 * ```
 * connecting → securing → greeting ─┬─ open                (household)
 *                                   ├─ joining             (we dialled with a code)
 *                                   └─ inviting            (a stranger, or a member again, with our code)
 * ```
 */
import { SyncError } from '../../protocol/error.ts'
import type { ArenaName, PeerId } from '../../protocol/ids.ts'
import { ARENAS_MAX, LEAF_BYTES, REQUESTS_MAX, ROLLING_BYTES, SIGNATURE_BLOCKS_MAX } from '../../protocol/limits.ts'
import type { LogEvent, LogFields } from '../../protocol/log.ts'
import type { PairAttempt, PeerReport, SharedArena } from '../../protocol/ports.ts'
import { type ArenaWireMessage, WIRE_VERSION, type WireMessage } from '../../protocol/wire.ts'
import { type Channel, checkAccepted, checkDialled, pairProof, proofsEqual, proven } from './verify.ts'

/** Versions of the protocol that we speak. */
export const VERSIONS = { min: 1, max: WIRE_VERSION }

/** A frame that takes longer than silence may last must come at least at this rate. */
const FRAME_BYTES_A_SECOND_MIN = 256

/** How long each state may last, and silence. Milliseconds. */
export interface Deadlines {
  connectMs: number
  secureMs: number
  helloMs: number
  pairMs: number
  /** Without a word in either direction for so long: a ping. */
  pingMs: number
  /** Nothing heard for so long: closed. */
  silentMs: number
}

export const DEADLINES: Deadlines = {
  connectMs: 10_000,
  secureMs: 10_000,
  helloMs: 10_000,
  pairMs: 30_000,
  pingMs: 30_000,
  silentMs: 90_000,
}

/** What we say of ourselves. */
export interface Self {
  readonly id: PeerId
  readonly name: string
  readonly software: string
  readonly addresses: readonly string[]
}

export type Purpose =
  /** `pair`: with a code, to join. */
  | { is: 'dial'; peer: PeerId; address: string; pair: PairAttempt | null }
  | { is: 'accept'; address: string; household: ReadonlySet<PeerId>; invites: readonly PairAttempt[] }

/** The other end, as TLS proved it. */
interface Secured {
  peer: PeerId
  /** Keying material of the channel. */
  exporter: Uint8Array
  stranger: boolean
}
interface Greeted extends Secured {
  name: string
  addresses: string[]
}
type State =
  | { is: 'connecting' }
  | { is: 'securing' }
  | ({ is: 'greeting' } & Secured)
  | ({ is: 'joining' } & Greeted)
  /** `invite`: what the joiner has proved; null until then. */
  | ({ is: 'inviting'; invite: PairAttempt | null } & Greeted)
  | ({ is: 'open' } & Greeted)

/** A request of ours. On the wire it has a number of its own: each arena counts for itself, and one that is attached anew from the start. */
interface OurRequest {
  arena: ArenaName
  /** Which attachment of the arena asked. The answer to one that is gone is dropped. */
  attachment: number
  /** The arena's number. */
  id: number
  /** Its content goes into a file and not to the arena. */
  download: boolean
  urgent: boolean
  expects:
    | { is: 'pack' | 'tree' | 'anchors' | 'delta' | 'held' | 'leased' }
    | { is: 'leaves'; next: number; end: number; size: number }
}
/** A request of theirs that one of our arenas has to answer. `leaves`: how many are still to be sent. */
interface TheirRequest {
  arena: ArenaName
  leaves: number
}
interface Attachment {
  number: number
  /** We have said arena_open and not arena_close since. */
  said: boolean
}

type ArenaRequest = Extract<
  ArenaWireMessage,
  {
    type:
      | 'fetch_blobs'
      | 'fetch_tree'
      | 'fetch_leaves'
      | 'fetch_nodes'
      | 'fetch_anchors'
      | 'fetch_delta'
      | 'holds'
      | 'lease'
  }
>
type ArenaAnswer = Extract<
  ArenaWireMessage,
  { type: 'pack' | 'tree' | 'leaves' | 'anchors' | 'delta' | 'held' | 'leased' | 'fetch_failed' }
>
type LeavesMessage = Extract<WireMessage, { type: 'leaves' }>
type HelloMessage = Extract<WireMessage, { type: 'hello' }>
type ArenaOpenMessage = Extract<WireMessage, { type: 'arena_open' }>

/** What may have a payload. */
const LADEN: ReadonlySet<string> = new Set(['pack', 'tree', 'leaves', 'anchors', 'fetch_delta', 'delta'])
/** The answer that each request gets, and the first version of the protocol that has it. */
const REQUESTS = {
  fetch_blobs: { answer: 'pack', since: 1 },
  fetch_tree: { answer: 'tree', since: 1 },
  fetch_nodes: { answer: 'tree', since: 2 },
  fetch_anchors: { answer: 'anchors', since: 2 },
  fetch_delta: { answer: 'delta', since: 2 },
  holds: { answer: 'held', since: 3 },
  lease: { answer: 'leased', since: 3 },
} as const

export interface Peer {
  readonly self: Self
  readonly purpose: Purpose
  readonly deadlines: Deadlines
  state: State
  /** The version of the protocol that is spoken, from their hello on. */
  version: number
  /** It takes `deflated`. */
  inflates: boolean
  /** When the state began. Monotonic clock, as all readings here. */
  sinceMs: number
  /** When the last bytes came, and when we last wrote. */
  heardMs: number
  /** The frame that has begun and is not whole: since when, and how much of it has come. */
  begun: { sinceMs: number; bytes: number } | null
  saidMs: number
  pings: number
  /** Attached arenas. */
  readonly arenas: Map<ArenaName, Attachment>
  attachments: number
  /** Last arena_open for each arena that is not attached: handed over when it is. */
  readonly openings: Map<ArenaName, ArenaOpenMessage>
  /** Open requests by their number on the wire, at most REQUESTS_MAX. */
  readonly ours: Map<number, OurRequest>
  requests: number
  /** Requests of ours that wait until one of the open ones is answered. */
  waiting: { header: ArenaRequest; request: OurRequest; payload: Uint8Array | undefined }[]
  readonly theirs: Map<number, TheirRequest>
}

type Unnumbered<Report> = Report extends { connection: number } ? Omit<Report, 'connection'> : never

export type PeerOutput =
  /** About the connection itself: no rate limit holds it back. */
  | { to: 'wire'; header: WireMessage }
  /** A message of an arena of ours. `urgent`: somebody waits for it. */
  | { to: 'wire_arena'; header: ArenaWireMessage; payload?: Uint8Array; urgent?: boolean }
  | { to: 'arena'; arena: ArenaName; header: ArenaWireMessage; payload?: Uint8Array }
  /** Content for a download; `last`: it is complete with this. */
  | { to: 'download'; request: number; from: number; count: number; payload: Uint8Array; last: boolean }
  | { to: 'download_failed'; request: number; failure: { code: string; reason: string } }
  | { to: 'supervisor'; report: Unnumbered<PeerReport> }
  /** Frames may be as large as the protocol allows from here on. */
  | { to: 'reader' }
  /** Close in peace. `say`: our reason, for the other end; null: they said theirs. */
  | { to: 'close'; code: string; reason: string; say: boolean }
  | { to: 'log'; event: LogEvent; fields: LogFields }

export function openPeer(self: Self, purpose: Purpose, deadlines: Deadlines, nowMs: number): Peer {
  return {
    self,
    purpose,
    deadlines,
    state: { is: purpose.is === 'dial' ? 'connecting' : 'securing' },
    version: VERSIONS.min,
    inflates: false,
    sinceMs: nowMs,
    heardMs: nowMs,
    begun: null,
    saidMs: nowMs,
    pings: 0,
    arenas: new Map(),
    attachments: 0,
    openings: new Map(),
    ours: new Map(),
    requests: 0,
    waiting: [],
    theirs: new Map(),
  }
}

function enter(peer: Peer, state: State, nowMs: number): void {
  peer.state = state
  peer.sinceMs = nowMs
}

export function connected(peer: Peer, nowMs: number): void {
  enter(peer, { is: 'securing' }, nowMs)
}

/** TLS is up; `found` is who it is. Says hello, or throws `peer_unknown`. */
export function* secured(peer: Peer, found: PeerId, exporter: Uint8Array, nowMs: number): Iterable<PeerOutput> {
  const { purpose, self } = peer
  let stranger = false
  if (purpose.is === 'dial') checkDialled(purpose.peer, found, purpose.address)
  else stranger = checkAccepted(found, self.id, purpose.household, purpose.invites) === 'stranger'
  enter(peer, { is: 'greeting', peer: found, exporter, stranger }, nowMs)
  peer.heardMs = nowMs
  yield {
    to: 'wire',
    header: {
      type: 'hello',
      versions: VERSIONS,
      name: self.name,
      software: self.software,
      purpose: purpose.is === 'dial' && purpose.pair ? 'pair' : 'sync',
      // Where we can be found is nothing for strangers.
      addresses: stranger ? [] : [...self.addresses],
      inflates: true,
    },
  }
}

/** Takes a message, form checked. Throws what the sender did wrong. */
export function* heard(
  peer: Peer,
  message: WireMessage,
  payload: Uint8Array | undefined,
  nowMs: number,
): Iterable<PeerOutput> {
  if (payload && !LADEN.has(message.type)) throw new SyncError('message_invalid', `${message.type} has no payload`)
  if (message.type === 'close') return yield { to: 'close', code: message.code, reason: message.reason, say: false }
  const state = peer.state
  if (state.is === 'greeting') {
    if (message.type !== 'hello') throw new SyncError('message_invalid', `${message.type} before hello`)
    return yield* greeted(peer, state, message, nowMs)
  }
  if (message.type === 'ping') return yield { to: 'wire', header: { type: 'pong', id: message.id } }
  if (message.type === 'pong') return
  switch (state.is) {
    case 'open':
      if ('arena' in message) return yield* heardOfArena(peer, message, payload)
      break
    case 'joining':
      if (message.type === 'pair_accepted') return yield* pairAccepted(peer, state, message)
      break
    case 'inviting':
      if (message.type === 'pair_request') return yield* pairRequested(peer, state, message)
      break
  }
  throw new SyncError('message_invalid', `${message.type} does not belong here`)
}

function* greeted(
  peer: Peer,
  state: Extract<State, { is: 'greeting' }>,
  hello: HelloMessage,
  nowMs: number,
): Iterable<PeerOutput> {
  checkVersions(hello, peer.self.name)
  peer.version = Math.min(hello.versions.max, VERSIONS.max)
  peer.inflates = hello.inflates === true
  const { purpose } = peer
  const known: Greeted = {
    peer: state.peer,
    exporter: state.exporter,
    stranger: state.stranger,
    name: hello.name,
    addresses: hello.addresses,
  }
  if (purpose.is === 'dial' && purpose.pair) {
    enter(peer, { is: 'joining', ...known }, nowMs)
    const proof = pairProof('join', purpose.pair.secret, channelOf(peer, known))
    return yield { to: 'wire', header: { type: 'pair_request', invite: purpose.pair.invite, proof } }
  }
  if (purpose.is === 'accept' && hello.purpose === 'pair') {
    if (purpose.invites.length === 0)
      throw new SyncError('invite_invalid', 'no invite is open here: ask for a new code')
    return enter(peer, { is: 'inviting', invite: null, ...known }, nowMs)
  }
  if (state.stranger)
    throw new SyncError('peer_unknown', `${state.peer} is not in the household of ${peer.self.id}: it may only pair`)
  enter(peer, { is: 'open', ...known }, nowMs)
  yield { to: 'reader' }
  yield {
    to: 'supervisor',
    report: { type: 'opened', peer: known.peer, name: known.name, addresses: known.addresses },
  }
}

/** Throws `version_unsupported`, saying who must be updated, in words that are right on both sides. */
export function checkVersions(hello: Pick<HelloMessage, 'versions' | 'name'>, ourName: string, ours = VERSIONS): void {
  const theirs = hello.versions
  if (theirs.min > theirs.max)
    throw new SyncError('message_invalid', 'hello: versions.min is greater than versions.max')
  const tooOld = (old: string, max: number, young: string, min: number) =>
    new SyncError(
      'version_unsupported',
      `'${old}' speaks version ${max} of the protocol at most, '${young}' needs ${min} at least: update Realize on '${old}'`,
    )
  if (theirs.max < ours.min) throw tooOld(hello.name, theirs.max, ourName, ours.min)
  if (ours.max < theirs.min) throw tooOld(ourName, ours.max, hello.name, theirs.min)
}

// Pairing

function channelOf(peer: Peer, greeted: Secured): Channel {
  const [joiner, inviter] = peer.purpose.is === 'dial' ? [peer.self.id, greeted.peer] : [greeted.peer, peer.self.id]
  return { joiner, inviter, exporter: greeted.exporter }
}

/** One attempt a connection: an honest joiner's proof is never wrong, since the code has a check of its own. */
function* pairRequested(
  peer: Peer,
  state: Extract<State, { is: 'inviting' }>,
  message: Extract<WireMessage, { type: 'pair_request' }>,
): Iterable<PeerOutput> {
  if (state.invite) throw new SyncError('message_invalid', 'pair_request was sent already')
  const invites = peer.purpose.is === 'accept' ? peer.purpose.invites : []
  const invite = proven(message, invites, channelOf(peer, state))
  if (!invite) {
    yield { to: 'log', event: 'invite_refused', fields: { peer: state.peer, address: peer.purpose.address } }
    throw new SyncError('invite_invalid', 'the code is wrong, used or expired: ask for a new one')
  }
  state.invite = invite
  yield {
    to: 'supervisor',
    report: {
      type: 'pairing',
      invite: invite.invite,
      peer: state.peer,
      name: state.name,
      addresses: state.addresses,
    },
  }
}

/** The supervisor took the joiner into the household. Ignored if nobody waits for it any more. */
export function* acceptPair(peer: Peer, arenas: SharedArena[]): Iterable<PeerOutput> {
  const { state } = peer
  if (state.is !== 'inviting' || !state.invite) return
  const proof = pairProof('invite', state.invite.secret, channelOf(peer, state))
  yield { to: 'wire', header: { type: 'pair_accepted', proof, peer: peer.self.id, arenas } }
}

function* pairAccepted(
  peer: Peer,
  state: Extract<State, { is: 'joining' }>,
  message: Extract<WireMessage, { type: 'pair_accepted' }>,
): Iterable<PeerOutput> {
  const secret = peer.purpose.is === 'dial' ? (peer.purpose.pair?.secret ?? '') : ''
  const right = pairProof('invite', secret, channelOf(peer, state))
  if (!proofsEqual(right, message.proof) || message.peer !== state.peer)
    throw new SyncError('invite_invalid', 'the other end does not know the secret of the code')
  // It kept its addresses from a stranger: the one that we dialled is right.
  const addresses = state.addresses.length > 0 ? state.addresses : [peer.purpose.address]
  yield {
    to: 'supervisor',
    report: { type: 'paired', peer: state.peer, name: state.name, addresses, arenas: message.arenas },
  }
  yield { to: 'close', code: 'peer_closed', reason: 'paired', say: true }
}

// Arenas

/** Connects an arena of ours, in place of an earlier attachment of it. Throws `peer_closed` if the connection does not carry arenas (yet). */
export function* attach(peer: Peer, arena: ArenaName): Iterable<PeerOutput> {
  if (peer.state.is !== 'open') throw new SyncError('peer_closed', 'the connection is not open')
  if (peer.arenas.has(arena)) yield* detach(peer, arena)
  peer.arenas.set(arena, { number: ++peer.attachments, said: false })
  const opening = peer.openings.get(arena)
  peer.openings.delete(arena)
  if (opening) yield { to: 'arena', arena, header: opening }
}

/** The arena is gone from this connection: what it owed is refused, what it asked for is dropped. */
export function* detach(peer: Peer, arena: ArenaName): Iterable<PeerOutput> {
  const attachment = peer.arenas.get(arena)
  if (!attachment) return
  peer.arenas.delete(arena)
  peer.waiting = peer.waiting.filter(held => held.request.arena !== arena)
  for (const [id, request] of peer.theirs) {
    if (request.arena !== arena) continue
    peer.theirs.delete(id)
    yield fetchFailed(arena, id, 'arena_unavailable', 'the arena has stopped')
  }
  if (attachment.said)
    yield {
      to: 'wire_arena',
      header: { type: 'arena_close', arena, code: 'arena_unavailable', reason: 'the arena has stopped' },
    }
}

/** Our arena says something. Answers to what is no open request of theirs are dropped: it was refused meanwhile. */
export function* say(
  peer: Peer,
  arena: ArenaName,
  header: ArenaWireMessage,
  payload: Uint8Array | undefined,
  urgent = false,
): Iterable<PeerOutput> {
  const attachment = peer.arenas.get(arena)
  if (!attachment) return
  switch (header.type) {
    case 'fetch_blobs':
    case 'fetch_tree':
    case 'fetch_nodes':
    case 'fetch_anchors':
    case 'fetch_delta':
    case 'holds':
    case 'lease': {
      const { answer: is, since } = REQUESTS[header.type]
      if (peer.version < since) return yield notSpoken(arena, header.id)
      // What somebody waits for; and small.
      const waitedFor = is === 'held' || is === 'leased' || ('urgent' in header && header.urgent === true)
      const request = { ...base(arena, attachment, header.id), urgent: waitedFor, expects: { is } }
      return yield* ask(peer, header, request, payload)
    }
    case 'fetch_leaves': {
      const expects = { is: 'leaves' as const, next: header.from, end: header.from + header.count, size: Infinity }
      const request = { ...base(arena, attachment, header.id), urgent: header.urgent, expects }
      return yield* ask(peer, header, request, undefined)
    }
    case 'pack':
    case 'tree':
    case 'anchors':
    case 'delta':
    case 'held':
    case 'leased':
    case 'fetch_failed':
      if (!answer(peer, arena, header.id, Infinity)) return
      break
    case 'leaves':
      if (!answer(peer, arena, header.id, header.count)) return
      break
    case 'arena_open':
      attachment.said = true
      break
    case 'arena_close':
      attachment.said = false
      break
  }
  yield { to: 'wire_arena', header, ...(payload && { payload }), ...(urgent && { urgent }) }
}

/** The other end is older: it is answered here as it would answer if it could. */
function notSpoken(arena: ArenaName, id: number): PeerOutput {
  const reason = 'the other end speaks an older version of the protocol'
  return { to: 'arena', arena, header: { type: 'fetch_failed', arena, id, code: 'version_unsupported', reason } }
}

function base(arena: ArenaName, attachment: Attachment, id: number) {
  return { arena, attachment: attachment.number, id, download: false, urgent: false }
}

/** A part of an answer to a request of theirs. False if there is no such request. */
export function answer(peer: Peer, arena: ArenaName, id: number, leaves: number): boolean {
  const request = peer.theirs.get(id)
  if (request?.arena !== arena) return false
  request.leaves -= leaves
  if (request.leaves <= 0) peer.theirs.delete(id)
  return true
}

/** Whether a request of theirs still waits for its answer from this arena. */
export function owes(peer: Peer, arena: ArenaName, id: number): boolean {
  return peer.theirs.get(id)?.arena === arena
}

export interface DownloadRequest {
  id: number
  hash: Extract<ArenaWireMessage, { type: 'fetch_leaves' }>['hash']
  size: number
  from: number
  count: number
  urgent: boolean
}

/** Registers a download and asks for it as soon as the limit of open requests allows. The number is that of its outputs; null if the arena is not attached. */
export function download(
  peer: Peer,
  arena: ArenaName,
  order: DownloadRequest,
): { request: number; outputs: Iterable<PeerOutput> } | null {
  const attachment = peer.arenas.get(arena)
  if (!attachment) return null
  const { id, hash, size, from, count, urgent } = order
  const request: OurRequest = {
    ...base(arena, attachment, id),
    download: true,
    urgent,
    expects: { is: 'leaves', next: from, end: from + count, size },
  }
  const number = queue(peer, { type: 'fetch_leaves', arena, id, hash, from, count, urgent }, request, undefined)
  return { request: number, outputs: askWaiting(peer) }
}

function* ask(
  peer: Peer,
  header: ArenaRequest,
  request: OurRequest,
  payload: Uint8Array | undefined,
): Iterable<PeerOutput> {
  queue(peer, header, request, payload)
  yield* askWaiting(peer)
}

/** Gives a request its number on the wire. */
function queue(peer: Peer, header: ArenaRequest, request: OurRequest, payload: Uint8Array | undefined): number {
  peer.requests++
  peer.waiting.push({ header: { ...header, id: peer.requests }, request, payload })
  return peer.requests
}

/** Sends waiting requests while there is room, urgent ones first. */
function* askWaiting(peer: Peer): Iterable<PeerOutput> {
  while (peer.ours.size < REQUESTS_MAX && peer.waiting.length > 0) {
    const urgent = peer.waiting.findIndex(held => held.request.urgent)
    const [held] = peer.waiting.splice(Math.max(urgent, 0), 1)
    if (!held) return
    const { header, request, payload } = held
    peer.ours.set(header.id, request)
    yield { to: 'wire_arena', header, ...(payload && { payload }), ...(request.urgent && { urgent: true }) }
  }
}

function* heardOfArena(peer: Peer, message: ArenaWireMessage, payload: Uint8Array | undefined): Iterable<PeerOutput> {
  switch (message.type) {
    case 'pack':
    case 'tree':
    case 'leaves':
    case 'anchors':
    case 'delta':
    case 'held':
    case 'leased':
    case 'fetch_failed':
      return yield* answered(peer, message, payload)
    case 'fetch_blobs':
    case 'fetch_tree':
    case 'fetch_leaves':
    case 'fetch_nodes':
    case 'fetch_anchors':
    case 'fetch_delta':
    case 'holds':
    case 'lease':
      return yield* asked(peer, message, payload)
  }
  if (peer.arenas.has(message.arena)) return yield { to: 'arena', arena: message.arena, header: message }
  // Its thread may attach a moment later than theirs: what opens the arena is kept for it. Nothing else flows before that.
  if (message.type === 'arena_open') {
    peer.openings.set(message.arena, plainOpening(message))
    if (peer.openings.size > ARENAS_MAX) throw new SyncError('limit_exceeded', `more than ${ARENAS_MAX} arenas`)
  } else if (message.type === 'arena_close') {
    // Never answered: two sides without the arena would go on for ever.
    peer.openings.delete(message.arena)
  } else {
    const { arena } = message
    yield {
      to: 'wire_arena',
      header: { type: 'arena_close', arena, code: 'arena_unknown', reason: 'not synced with you here' },
    }
  }
}

/** Only the fields that we know: a thousand of them are kept, and what else a header holds can be large. */
function plainOpening(message: ArenaOpenMessage): ArenaOpenMessage {
  const { type, arena, replica, session, seq, conflicts, read, again, knows } = message
  const cursor = read && { replica: read.replica, session: read.session, seq: read.seq }
  return { type, arena, replica, session, seq, conflicts, read: cursor, again, knows }
}

function* asked(peer: Peer, message: ArenaRequest, payload: Uint8Array | undefined): Iterable<PeerOutput> {
  const { arena, id } = message
  if (message.type === 'fetch_delta' && !isSignature(payload))
    throw new SyncError(
      'message_invalid',
      `a signature has 1 to ${SIGNATURE_BLOCKS_MAX} hashes of ${ROLLING_BYTES} bytes`,
    )
  if (peer.theirs.has(id)) throw new SyncError('message_invalid', `request ${id} is open already`)
  if (!peer.arenas.has(arena)) return yield fetchFailed(arena, id, 'arena_unknown', 'not synced with you here')
  if (peer.theirs.size >= REQUESTS_MAX)
    throw new SyncError('limit_exceeded', `more than ${REQUESTS_MAX} requests at once`)
  peer.theirs.set(id, { arena, leaves: message.type === 'fetch_leaves' ? message.count : 1 })
  yield payload ? { to: 'arena', arena, header: message, payload } : { to: 'arena', arena, header: message }
}

function isSignature(payload: Uint8Array | undefined): boolean {
  const blocks = (payload?.length ?? 0) / ROLLING_BYTES
  return Number.isInteger(blocks) && blocks >= 1 && blocks <= SIGNATURE_BLOCKS_MAX
}

function* answered(peer: Peer, message: ArenaAnswer, payload: Uint8Array | undefined): Iterable<PeerOutput> {
  const request = peer.ours.get(message.id)
  if (!request || request.arena !== message.arena)
    throw new SyncError('message_invalid', `${message.type} answers no open request`)
  if (message.type !== 'fetch_failed' && message.type !== request.expects.is)
    throw new SyncError('message_invalid', `${message.type} in answer to a request for ${request.expects.is}`)
  const last = message.type !== 'leaves' || tookLeaves(request, message, payload?.length ?? 0)
  if (last) peer.ours.delete(message.id)
  if (peer.arenas.get(request.arena)?.number === request.attachment) {
    if (!request.download) {
      const header = { ...message, id: request.id }
      yield payload
        ? { to: 'arena', arena: request.arena, header, payload }
        : { to: 'arena', arena: request.arena, header }
    } else if (message.type === 'fetch_failed') {
      yield { to: 'download_failed', request: message.id, failure: { code: message.code, reason: message.reason } }
    } else if (message.type === 'leaves' && payload) {
      yield { to: 'download', request: message.id, from: message.from, count: message.count, payload, last }
    }
  }
  if (last) yield* askWaiting(peer)
}

/** Checks order and size of a `leaves` message. True if it is the last of its request. */
function tookLeaves(request: OurRequest, message: LeavesMessage, bytes: number): boolean {
  const { expects } = request
  if (expects.is !== 'leaves') return false
  const { from, count } = message
  if (from !== expects.next || from + count > expects.end)
    throw new SyncError(
      'message_invalid',
      `leaves [${from}, ${from + count}) where ${expects.next} was next of ${expects.end}`,
    )
  const fits =
    expects.size === Infinity
      ? bytes > (count - 1) * LEAF_BYTES && bytes <= count * LEAF_BYTES
      : bytes === bytesOfLeaves(expects.size, from, count)
  if (!fits) throw new SyncError('message_invalid', `${bytes} bytes for leaves [${from}, ${from + count})`)
  expects.next = from + count
  return expects.next === expects.end
}

/** Bytes of leaves [from, from + count) of a blob. */
export function bytesOfLeaves(size: number, from: number, count: number): number {
  return Math.max(0, Math.min(size, (from + count) * LEAF_BYTES) - from * LEAF_BYTES)
}

function fetchFailed(arena: ArenaName, id: number, code: string, reason: string): PeerOutput {
  return { to: 'wire_arena', header: { type: 'fetch_failed', arena, id, code, reason } }
}

// Time

/** Run about once a second. Pings, and throws `timed_out` or `peer_silent`. */
export function* tick(peer: Peer, nowMs: number): Iterable<PeerOutput> {
  const { state, deadlines, purpose } = peer
  const lastedMs = nowMs - peer.sinceMs
  switch (state.is) {
    case 'connecting':
      return expect(lastedMs, deadlines.connectMs, `no TCP connection with ${purpose.address}`)
    case 'securing':
      return expect(lastedMs, deadlines.secureMs, `no TLS handshake with ${purpose.address}`)
    case 'greeting':
      return expect(lastedMs, deadlines.helloMs, `no hello from ${purpose.address}`)
    case 'joining':
    case 'inviting':
      return expect(lastedMs, deadlines.pairMs, 'the pairing was not finished')
    case 'open': {
      const silentMs = nowMs - peer.heardMs
      if (silentMs >= deadlines.silentMs)
        throw new SyncError('peer_silent', `nothing heard for ${Math.round(silentMs / 1000)} s`)
      if (endless(peer, nowMs)) throw new SyncError('timed_out', 'a frame that was begun is not ended')
      // Our own silence counts too: the other end may be deaf behind its own slow sending, but must hear that we live.
      if (Math.max(silentMs, nowMs - peer.saidMs) < deadlines.pingMs) return
      if (nowMs - peer.saidMs < deadlines.pingMs / 3) return
      peer.saidMs = nowMs
      yield { to: 'wire', header: { type: 'ping', id: ++peer.pings } }
    }
  }
}

/** Whoever says a byte now and then is not silent and says nothing: a frame may be slow, but not stand still. */
function endless({ begun, deadlines }: Peer, nowMs: number): boolean {
  return begun !== null && nowMs - begun.sinceMs >= deadlines.silentMs + (begun.bytes / FRAME_BYTES_A_SECOND_MIN) * 1000
}

function expect(lastedMs: number, limitMs: number, what: string): void {
  if (lastedMs >= limitMs) throw new SyncError('timed_out', `${what} within ${limitMs / 1000} s`)
}
