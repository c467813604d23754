/**
 * Who is at the other end: checks of keys and of pairing proofs. Pure.
 *
 * TLS has proved that the other end holds the private key of the certificate it presented (its CertificateVerify is a
 * signature over this handshake; a wrong one is fatal whatever is trusted). All that is left is whose key it is.
 */
import { timingSafeEqual, type X509Certificate } from 'node:crypto'
import { blake2b } from '@noble/hashes/blake2.js'
import { SyncError } from '../../protocol/error.ts'
import type { PeerId } from '../../protocol/ids.ts'
import { peerIdOf, publicKeyOf } from '../../protocol/peer-id.ts'
import type { PairAttempt } from '../../protocol/ports.ts'

/** Label and length of the keying material that binds a proof to its TLS channel (RFC 8446, 7.5). */
export const PAIR_EXPORTER = { label: 'EXPORTER-realize-pair', bytes: 32 }

/** The ID in a certificate. Throws `peer_unknown` if there is none or its key is not Ed25519. */
export function idIn(certificate: X509Certificate | undefined): PeerId {
  if (!certificate) throw new SyncError('peer_unknown', 'the other end presented no certificate')
  const key = certificate.publicKey
  if (key.asymmetricKeyType !== 'ed25519')
    throw new SyncError('peer_unknown', `the other end presented a key of type ${key.asymmetricKeyType}, not Ed25519`)
  return peerIdOf(Buffer.from(String(key.export({ format: 'jwk' }).x), 'base64url'))
}

/** The dialler demands exactly one key. Throws `peer_unknown` naming both. */
export function checkDialled(expected: PeerId, found: PeerId, address: string): void {
  if (expected !== found)
    throw new SyncError('peer_unknown', `at ${address} is ${found}, not ${expected}: check the peer's address and ID`)
}

/** A member of the household may sync; a stranger may only pair, while there is an invite. Throws `peer_unknown`. */
export function checkAccepted(
  found: PeerId,
  self: PeerId,
  household: ReadonlySet<PeerId>,
  invites: readonly PairAttempt[],
): 'household' | 'stranger' {
  if (household.has(found)) return 'household'
  if (invites.length > 0 && found !== self) return 'stranger'
  throw new SyncError(
    'peer_unknown',
    `${found} is not in the household of ${self}: add it there with 'realize peer add'`,
  )
}

/** What a proof is bound to. */
export interface Channel {
  joiner: PeerId
  inviter: PeerId
  /** Keying material of this TLS channel, PAIR_EXPORTER.bytes. */
  exporter: Uint8Array
}

/**
 * Proof of knowing an invite's secret: BLAKE2b-256 with the secret (16 bytes) as key, over
 * `realize pair 1 join` or `realize pair 1 invite`, the joiner's key, the inviter's key, the exporter.
 *
 * @returns 64 hex digits
 */
export function pairProof(side: 'join' | 'invite', secret: string, channel: Channel): string {
  const hash = blake2b.create({ dkLen: 32, key: Buffer.from(secret, 'hex') })
  hash.update(Buffer.from(`realize pair 1 ${side}`, 'latin1'))
  hash.update(publicKeyOf(channel.joiner)).update(publicKeyOf(channel.inviter)).update(channel.exporter)
  return Buffer.from(hash.digest()).toString('hex')
}

/** Compares in constant time. Both are 64 hex digits. */
export function proofsEqual(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a, 'hex'), Buffer.from(b, 'hex')]
  return left.length === right.length && timingSafeEqual(left, right)
}

/** The invite that a request names and proves, or undefined. Takes as long for an unknown invite as for a wrong secret. */
export function proven(
  request: { invite: string; proof: string },
  invites: readonly PairAttempt[],
  channel: Channel,
): PairAttempt | undefined {
  const invite = invites.find(one => one.invite === request.invite)
  const expected = pairProof('join', invite?.secret ?? '00'.repeat(16), channel)
  return proofsEqual(expected, request.proof) && invite ? invite : undefined
}
