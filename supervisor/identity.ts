/**
 * Who this peer is: its Ed25519 key on disk, and the throw-away certificate that carries the key through TLS.
 *
 * What others verify is the raw public key alone (actors/peer/verify.ts): names, dates and signatures in the certificate
 * mean nothing. IDs as text: protocol/peer-id.ts.
 */
import 'reflect-metadata'
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, webcrypto } from 'node:crypto'
import { closeSync, fstatSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { cryptoProvider, X509CertificateGenerator } from '@peculiar/x509'
import { SyncError } from '../protocol/error.ts'
import type { PeerId } from '../protocol/ids.ts'
import { peerIdOf } from '../protocol/peer-id.ts'

export { authorOf, parsePeerId, peerIdOf, publicKeyOf } from '../protocol/peer-id.ts'

/** A peer's private key (PKCS8, PEM) and the ID that follows from it. */
export interface Identity {
  id: PeerId
  key: string
}

/** A new key, not yet on any disk. */
export function generateIdentity(): Identity {
  return identityOf(generateKeyPairSync('ed25519').privateKey)
}

/** Makes a key and writes it to a file that must not be there yet (0600). Throws `already_exists`, `disk_failed`. */
export function createKey(path: string): Identity {
  const identity = generateIdentity()
  try {
    const fd = openSync(path, 'wx', 0o600)
    try {
      writeSync(fd, identity.key)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    // The name must be durable too: a key that is lost after its ID was told to others is a peer that is lost.
    syncFolder(dirname(path))
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'EEXIST') throw new SyncError('already_exists', `there is a key in ${path} already`)
    throw new SyncError('disk_failed', `the key cannot be written to ${path} (${code})`, { cause: error })
  }
  return identity
}

/**
 * Reads the key of this peer. Throws `not_found` without a file, `config_invalid` if others may read it or it is no
 * Ed25519 key, `disk_failed`.
 */
export function readKey(path: string): Identity {
  let text: string
  try {
    const fd = openSync(path, 'r')
    try {
      const { mode } = fstatSync(fd)
      if (process.platform !== 'win32' && (mode & 0o077) !== 0)
        throw new SyncError('config_invalid', `others may read the key ${path}: run 'chmod 600 ${path}'`)
      text = readFileSync(fd, 'utf8')
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if (error instanceof SyncError) throw error
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT') throw new SyncError('not_found', `there is no key in ${path}`)
    throw new SyncError('disk_failed', `the key ${path} cannot be read (${code})`, { cause: error })
  }
  return parseKey(text, path)
}

/** @param source what the error calls the key's place. Throws `config_invalid`. */
export function parseKey(pem: string, source: string): Identity {
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch (error) {
    throw new SyncError('config_invalid', `${source} is not a private key in PEM form`, { cause: error })
  }
  if (key.asymmetricKeyType !== 'ed25519')
    throw new SyncError('config_invalid', `${source} is a key of type ${key.asymmetricKeyType}, not Ed25519`)
  return identityOf(key)
}

/** A self-signed certificate (PEM) around the key, good for twenty years from yesterday by this clock; made anew at each start. */
export async function certificate(keyPem: string, nowMs: number = Date.now()): Promise<string> {
  const dayMs = 86_400_000
  const privateKey = createPrivateKey(keyPem)
  const algorithm = { name: 'Ed25519' }
  const privateDer = privateKey.export({ type: 'pkcs8', format: 'der' })
  const publicDer = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  cryptoProvider.set(webcrypto)
  const made = await X509CertificateGenerator.createSelfSigned({
    serialNumber: '01',
    name: 'CN=realize',
    notBefore: new Date(nowMs - dayMs),
    notAfter: new Date(nowMs + 20 * 365 * dayMs),
    signingAlgorithm: algorithm,
    keys: {
      privateKey: await webcrypto.subtle.importKey('pkcs8', privateDer, algorithm, false, ['sign']),
      publicKey: await webcrypto.subtle.importKey('spki', publicDer, algorithm, true, ['verify']),
    },
  })
  return made.toString('pem')
}

function identityOf(key: KeyObject): Identity {
  const raw = Buffer.from(String(createPublicKey(key).export({ format: 'jwk' }).x), 'base64url')
  return { id: peerIdOf(raw), key: String(key.export({ type: 'pkcs8', format: 'pem' })) }
}

function syncFolder(folder: string): void {
  if (process.platform === 'win32') return
  const fd = openSync(folder, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
