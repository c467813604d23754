/**
 * The pairing code: one text that says whom to dial, where, and with which secret. Pure.
 *
 * `rz1-` and base32 in groups of 8, of: public key (32) · invite (8) · secret (16) · end, seconds since 1970 (5, big
 * endian) · number of addresses (1) · each: length (1), host:port in ASCII · check (4: BLAKE2b over all before it).
 * A changed code passes the check once in 2^32.
 */
import { blake2b } from '@noble/hashes/blake2.js'
import { SyncError } from '../protocol/error.ts'
import type { PeerId } from '../protocol/ids.ts'
import { decodeBase32, encodeBase32, peerIdOf, publicKeyOf, readings, unconfuse } from '../protocol/peer-id.ts'

/** Addresses in one code. */
export const INVITE_ADDRESSES_MAX = 8
/** Bytes of one address. */
const ADDRESS_BYTES_MAX = 255
/** Longer texts are no code; the check is not even computed. */
const CODE_CHARS_MAX = 5000
const PREFIX = 'RZ'
const VERSION = '1'
const CHECK_BYTES = 4
const CHECK_DOMAIN = new TextEncoder().encode('realize invite 1')
const FIXED_BYTES = 32 + 8 + 16 + 5 + 1
const GROUP_CHARS = 8
const ADDRESS = /^[\x21-\x7e]+:[0-9]{1,5}$/

export interface Invite {
  /** Who invites. */
  peer: PeerId
  /** Names the invite there: 16 hex digits. */
  invite: string
  /** 32 hex digits. Whoever knows it may join. */
  secret: string
  /** End of its life, milliseconds since 1970; the code holds whole seconds, rounded down. */
  expiresAtMs: number
  /** host:port, ASCII, at most INVITE_ADDRESSES_MAX; IPv6 in brackets. */
  addresses: string[]
}

/** Throws RangeError if the invite cannot be told by a code. */
export function encodeInvite(invite: Invite): string {
  const seconds = Math.floor(invite.expiresAtMs / 1000)
  if (!(seconds >= 0 && seconds < 2 ** 40)) throw new RangeError('the end of the invite is out of range')
  if (invite.addresses.length > INVITE_ADDRESSES_MAX)
    throw new RangeError(`a code holds at most ${INVITE_ADDRESSES_MAX} addresses`)
  const end = Buffer.alloc(5)
  end.writeUIntBE(seconds, 0, 5)
  const parts: Uint8Array[] = [publicKeyOf(invite.peer), hex(invite.invite, 8), hex(invite.secret, 16), end]
  parts.push(Uint8Array.of(invite.addresses.length))
  for (const address of invite.addresses) {
    if (!ADDRESS.test(address) || address.length > ADDRESS_BYTES_MAX)
      throw new RangeError(`'${address.slice(0, 80)}' is not host:port`)
    parts.push(Uint8Array.of(address.length), Buffer.from(address, 'latin1'))
  }
  const body = Buffer.concat(parts)
  const text = encodeBase32(Buffer.concat([body, checkOf(body)])).toLowerCase()
  const groups = [`${PREFIX}${VERSION}`.toLowerCase()]
  for (let start = 0; start < text.length; start += GROUP_CHARS) groups.push(text.slice(start, start + GROUP_CHARS))
  return groups.join('-')
}

/**
 * Reads a code as people paste it: any case, spaces and line breaks, `0` for O, `1` for I or L, `8` for B.
 * Throws `invite_invalid`: not a code, of a newer version, mistyped, or expired at `nowMs`.
 */
export function decodeInvite(text: string, nowMs: number): Invite {
  const bare = unconfuse(text)
  if (bare.length > CODE_CHARS_MAX || !bare.startsWith(PREFIX))
    throw new SyncError('invite_invalid', "this is not a pairing code: a code begins with 'rz1-'")
  const version = bare.charAt(PREFIX.length)
  if (!['1', 'I', 'L'].includes(version))
    throw new SyncError(
      'invite_invalid',
      'this code is of another version of Realize: update this peer or the one that invites',
    )
  for (const reading of readings(bare.slice(PREFIX.length + 1))) {
    const bytes = decodeBase32(reading)
    if (!bytes || bytes.length < FIXED_BYTES + CHECK_BYTES) continue
    const body = Buffer.from(bytes.subarray(0, -CHECK_BYTES))
    if (!checkOf(body).equals(bytes.subarray(-CHECK_BYTES))) continue
    const invite = inviteIn(body)
    if (!invite) continue
    if (invite.expiresAtMs <= nowMs)
      throw new SyncError(
        'invite_invalid',
        `this code expired at ${new Date(invite.expiresAtMs).toISOString()}: ask for a new one`,
      )
    return invite
  }
  throw new SyncError('invite_invalid', 'this code is mistyped or not complete: copy all of it again')
}

/** Undefined if the lengths in it do not fit: somebody made a right check over wrong content. */
function inviteIn(body: Buffer): Invite | undefined {
  const count = body.readUInt8(FIXED_BYTES - 1)
  if (count > INVITE_ADDRESSES_MAX) return undefined
  const addresses: string[] = []
  let at = FIXED_BYTES
  for (let i = 0; i < count; i++) {
    const length = body[at]
    if (length === undefined || at + 1 + length > body.length) return undefined
    const address = body.toString('latin1', at + 1, at + 1 + length)
    if (!ADDRESS.test(address)) return undefined
    addresses.push(address)
    at += 1 + length
  }
  if (at !== body.length) return undefined
  const expiresAtMs = body.readUIntBE(56, 5) * 1000
  // What a Date can tell: a code that says more was made to break whoever prints it.
  if (expiresAtMs > 8.64e15) return undefined
  return {
    peer: peerIdOf(body.subarray(0, 32)),
    invite: body.toString('hex', 32, 40),
    secret: body.toString('hex', 40, 56),
    expiresAtMs,
    addresses,
  }
}

function checkOf(body: Uint8Array): Buffer {
  return Buffer.from(blake2b.create({ dkLen: 32 }).update(CHECK_DOMAIN).update(body).digest().subarray(0, CHECK_BYTES))
}

function hex(text: string, bytes: number): Buffer {
  const value = Buffer.from(text, 'hex')
  if (value.length !== bytes || text.length !== bytes * 2) throw new RangeError(`expected ${bytes * 2} hex digits`)
  return value
}
