import { createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { idIn } from '../../actors/peer/verify.ts'
import { SyncError } from '../../protocol/error.ts'
import { certificate, createKey, generateIdentity, peerIdOf, readKey } from '../../supervisor/identity.ts'
import { decodeInvite, encodeInvite } from '../../supervisor/invite-code.ts'

const codeOf = (work: () => unknown) => {
  try {
    work()
  } catch (error) {
    return error instanceof SyncError ? error.code : error
  }
  return undefined
}

test('a key is created once, readable by its owner only, and read again', t => {
  const folder = mkdtempSync(join(tmpdir(), 'realize-key-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'key.pem')
  t.is(
    codeOf(() => readKey(path)),
    'not_found',
  )
  const made = createKey(path)
  t.is(statSync(path).mode & 0o777, 0o600)
  t.deepEqual(readKey(path), made)
  t.is(
    codeOf(() => createKey(path)),
    'already_exists',
  )
  chmodSync(path, 0o640)
  t.regex(t.throws(() => readKey(path))?.message ?? '', /chmod 600/)
})

test('a file that is no Ed25519 key is refused', t => {
  const folder = mkdtempSync(join(tmpdir(), 'realize-key-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'key.pem')
  writeFileSync(path, 'nothing', { mode: 0o600 })
  t.is(
    codeOf(() => readKey(path)),
    'config_invalid',
  )
  const other = generateKeyPairSync('x25519').privateKey.export({ type: 'pkcs8', format: 'pem' })
  writeFileSync(path, other)
  t.regex(t.throws(() => readKey(path))?.message ?? '', /x25519/)
})

test('a certificate carries the key of its identity', async t => {
  const identity = generateIdentity()
  const made = new X509Certificate(await certificate(identity.key))
  t.is(idIn(made), identity.id)
  t.true(made.verify(createPublicKey(identity.key)))
  t.true(new Date(made.validTo).getTime() > Date.now() + 19 * 365 * 86_400_000)
  t.is(
    codeOf(() => idIn(undefined)),
    'peer_unknown',
  )
})

const hex = (bytes: number) =>
  fc.uint8Array({ minLength: bytes, maxLength: bytes }).map(value => Buffer.from(value).toString('hex'))
const invite = fc.record({
  peer: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(peerIdOf),
  invite: hex(8),
  secret: hex(16),
  expiresAtMs: fc.integer({ min: 1, max: 8_640_000_000 }).map(seconds => seconds * 1000),
  addresses: fc.array(fc.constantFrom('192.168.1.20:9771', '[fe80::1]:9771', 'server.lan:1'), { maxLength: 8 }),
})

test('a pairing code gives back its invite, however it is pasted', t => {
  fc.assert(
    fc.property(invite, value => {
      const code = encodeInvite(value)
      t.regex(code, /^rz1(-[a-z2-7]{1,8})+$/)
      t.deepEqual(decodeInvite(code, 0), value)
      t.deepEqual(decodeInvite(` ${code.toUpperCase().replaceAll('-', '\n').replaceAll('O', '0')} `, 0), value)
    }),
  )
})

test('every single typo in a pairing code is found', t => {
  const [value] = fc.sample(invite, { numRuns: 1, seed: 4 })
  const code = encodeInvite(value!)
  for (let at = 4; at < code.length; at++) {
    if (code[at] === '-') continue
    const wrong = code.slice(0, at) + (code[at] === 'a' ? 'c' : 'a') + code.slice(at + 1)
    t.is(
      codeOf(() => decodeInvite(wrong, 0)),
      'invite_invalid',
    )
  }
  t.is(
    codeOf(() => decodeInvite(code.slice(0, -3), 0)),
    'invite_invalid',
  )
})

test('a code that cannot be used says why', t => {
  const [value] = fc.sample(invite, { numRuns: 1, seed: 5 })
  const code = encodeInvite(value!)
  t.regex(t.throws(() => decodeInvite('hello', 0))?.message ?? '', /not a pairing code/)
  t.regex(t.throws(() => decodeInvite(`rz2${code.slice(3)}`, 0))?.message ?? '', /another version/)
  t.regex(t.throws(() => decodeInvite(code.slice(0, 40), 0))?.message ?? '', /mistyped or not complete/)
  t.regex(t.throws(() => decodeInvite(code, value!.expiresAtMs))?.message ?? '', /expired/)
})

test('any text is a code or a SyncError', t => {
  fc.assert(
    fc.property(fc.string(), fc.boolean(), (text, prefixed) => {
      t.is(
        codeOf(() => decodeInvite(prefixed ? `rz1-${text}` : text, 0)),
        'invite_invalid',
      )
    }),
  )
})

test('what a code cannot hold is not encoded', t => {
  const [value] = fc.sample(invite, { numRuns: 1, seed: 6 })
  t.throws(() => encodeInvite({ ...value!, addresses: Array(9).fill('a:1') }), { instanceOf: RangeError })
  t.throws(() => encodeInvite({ ...value!, addresses: ['no port'] }), { instanceOf: RangeError })
  t.throws(() => encodeInvite({ ...value!, secret: 'ab' }), { instanceOf: RangeError })
})
