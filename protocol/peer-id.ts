/**
 * A peer's ID: its Ed25519 public key as text that people can read out, compare and type.
 *
 * 32 bytes are 52 characters of base32 (A–Z, 2–7); 4 more are a check over the key: 20 bits of BLAKE2b. All 56 are shown
 * as 8 groups of 7. A mistyped character, a swap or any other change passes the check once in 2^20 (about a million);
 * a change among the check characters alone is always found. Pure.
 */
import { blake2b } from '@noble/hashes/blake2.js'
import { SyncError } from './error.ts'
import type { Author, PeerId } from './ids.ts'

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
const KEY_BYTES = 32
const KEY_CHARS = 52
const CHECK_CHARS = 4
const GROUP_CHARS = 7
const CHECK_DOMAIN = new TextEncoder().encode('realize peer id 1')
/** `1` may stand for I or L: with more of them than this only I is tried, so that guesses do not wear out the check. */
const AMBIGUOUS_MAX = 4

/** @param publicKey 32 bytes, raw Ed25519 */
export function peerIdOf(publicKey: Uint8Array): PeerId {
  if (publicKey.length !== KEY_BYTES)
    throw new RangeError(`a public key has ${KEY_BYTES} bytes, not ${publicKey.length}`)
  const text = encodeBase32(publicKey) + checkOf(publicKey)
  const groups: string[] = []
  for (let start = 0; start < text.length; start += GROUP_CHARS) groups.push(text.slice(start, start + GROUP_CHARS))
  return groups.join('-') as PeerId
}

/** The raw key, 32 bytes, own buffer. The ID must have come from `peerIdOf`, `parsePeerId` or a checked message; throws `config_invalid` otherwise. */
export function publicKeyOf(id: PeerId): Uint8Array {
  const key = keyIn(id.replaceAll('-', ''))
  if (!key) throw new SyncError('config_invalid', `'${id.slice(0, 80)}' is not a peer's ID`)
  return key
}

/**
 * Reads an ID as people write it: any case, dashes and spaces anywhere or nowhere, `0` for O, `1` for I or L, `8` for B.
 * Throws `config_invalid` with what is wrong.
 */
export function parsePeerId(text: string): PeerId {
  const bare = unconfuse(text)
  const length = KEY_CHARS + CHECK_CHARS
  if (bare.length !== length)
    throw new SyncError('config_invalid', `a peer's ID has ${length} letters and digits, this one has ${bare.length}`)
  const wrong = /[^A-Z2-71]/.exec(bare)
  if (wrong)
    throw new SyncError('config_invalid', `a peer's ID has only letters and the digits 2 to 7, not '${wrong[0]}'`)
  for (const candidate of readings(bare)) {
    const key = keyIn(candidate)
    if (key) return peerIdOf(key)
  }
  throw new SyncError('config_invalid', "the peer's ID is mistyped: its check letters do not fit; copy it again")
}

/** The first group of an ID. */
export function authorOf(id: PeerId): Author {
  return id.slice(0, GROUP_CHARS) as Author
}

/** RFC 4648 without padding, upper case. */
export function encodeBase32(bytes: Uint8Array): string {
  let text = ''
  let bits = 0
  let value = 0
  for (const byte of bytes) {
    value = ((value << 8) | byte) & 0xfff
    bits += 8
    while (bits >= 5) {
      bits -= 5
      text += ALPHABET[(value >> bits) & 31]
    }
  }
  if (bits > 0) text += ALPHABET[(value << (5 - bits)) & 31]
  return text
}

/** Undefined if a character is not of the alphabet, the length is none that bytes give, or the bits left over are not 0. */
export function decodeBase32(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(Math.floor((text.length * 5) / 8))
  if (Math.ceil((bytes.length * 8) / 5) !== text.length) return undefined
  let bits = 0
  let value = 0
  let length = 0
  for (const char of text) {
    const digit = ALPHABET.indexOf(char)
    if (digit < 0) return undefined
    value = ((value << 5) | digit) & 0xfff
    bits += 5
    if (bits >= 8) {
      bits -= 8
      bytes[length++] = (value >> bits) & 255
    }
  }
  return (value & ((1 << bits) - 1)) === 0 ? bytes : undefined
}

/** Upper case without spaces and dashes (the typographic ones too), `0` and `8` as the letters they resemble. `1` stays. */
export function unconfuse(text: string): string {
  return text
    .replace(/[\s\u00ad\u200b\u2010-\u2015\u2212-]/gu, '')
    .toUpperCase()
    .replaceAll('0', 'O')
    .replaceAll('8', 'B')
}

/** Every way to read the `1`s: all as I first. */
export function* readings(text: string): Iterable<string> {
  const ones = text.split('1').length - 1
  if (ones > AMBIGUOUS_MAX) return yield text.replaceAll('1', 'I')
  for (let choice = 0; choice < 1 << ones; choice++) {
    let place = 0
    yield text.replace(/1/g, () => (((choice >> place++) & 1) === 1 ? 'L' : 'I'))
  }
}

/** The key in 56 characters, if the check fits. */
function keyIn(text: string): Uint8Array | undefined {
  if (text.length !== KEY_CHARS + CHECK_CHARS) return undefined
  const key = decodeBase32(text.slice(0, KEY_CHARS))
  return key && text.slice(KEY_CHARS) === checkOf(key) ? key : undefined
}

function checkOf(key: Uint8Array): string {
  const digest = blake2b.create({ dkLen: 32 }).update(CHECK_DOMAIN).update(key).digest()
  return encodeBase32(digest.subarray(0, 3)).slice(0, CHECK_CHARS)
}
