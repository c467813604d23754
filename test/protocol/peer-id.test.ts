import test from 'ava'
import fc from 'fast-check'
import { SyncError } from '../../protocol/error.ts'
import type { Author, PeerId } from '../../protocol/ids.ts'
import { authorOf, decodeBase32, encodeBase32, parsePeerId, peerIdOf, publicKeyOf } from '../../protocol/peer-id.ts'

const key = fc.uint8Array({ minLength: 32, maxLength: 32 })
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

test('an ID gives back its key, however it is written', t => {
  fc.assert(
    fc.property(key, fc.boolean(), (bytes, spaced) => {
      const id = peerIdOf(bytes)
      t.regex(id, /^[A-Z2-7]{7}(-[A-Z2-7]{7}){7}$/)
      t.deepEqual([...publicKeyOf(id)], [...bytes])
      t.is(parsePeerId(id), id)
      t.is(parsePeerId(id.toLowerCase().replaceAll('-', spaced ? ' ' : '')), id)
      t.is(parsePeerId(id.replaceAll('O', '0').replaceAll('B', '8').replace('I', '1')), id)
      t.is(parsePeerId(id.replace('L', '1')), id)
      t.is(authorOf(id), id.slice(0, 7) as Author)
    }),
  )
})

test('every single typo and every swap of neighbours in an ID is found', t => {
  const id = peerIdOf(new Uint8Array(32).map((_, i) => i * 7))
  const bare = id.replaceAll('-', '')
  for (let at = 0; at < bare.length; at++) {
    for (const letter of ALPHABET) {
      if (letter === bare[at]) continue
      t.throws(() => parsePeerId(bare.slice(0, at) + letter + bare.slice(at + 1)), { instanceOf: SyncError })
    }
    const [one, two] = [bare[at], bare[at + 1]]
    if (two === undefined || one === two) continue
    t.throws(() => parsePeerId(bare.slice(0, at) + two + one + bare.slice(at + 2)), { instanceOf: SyncError })
  }
})

test('what is no ID is told apart from what is mistyped', t => {
  const id = peerIdOf(new Uint8Array(32))
  t.regex(t.throws(() => parsePeerId('hello'))?.message ?? '', /56 letters and digits/)
  t.regex(t.throws(() => parsePeerId(id.replace('A', '9')))?.message ?? '', /not '9'/)
  t.regex(t.throws(() => parsePeerId(id.replace('A', 'C')))?.message ?? '', /mistyped/)
  t.is(t.throws(() => parsePeerId(''), { instanceOf: SyncError })?.code, 'config_invalid')
})

test('any text is an ID or a SyncError', t => {
  fc.assert(
    fc.property(fc.string({ maxLength: 80 }), text => {
      t.throws(() => parsePeerId(text), { instanceOf: SyncError })
    }),
  )
})

test('an ID of a known key is the one it always was', t => {
  t.is(
    peerIdOf(new Uint8Array(32).map((_, i) => i)),
    'AAAQEAY-EAUDAOC-AJBIFQY-DIOB4IB-CEQTCQK-RMFYYDE-NBWHA5D-YPQD7ZH' as PeerId,
  )
})

test('base32 gives back every length, and refuses left-over bits', t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), bytes => {
      t.deepEqual([...(decodeBase32(encodeBase32(bytes)) ?? [])], [...bytes])
    }),
  )
  t.is(encodeBase32(Buffer.from('foobar')), 'MZXW6YTBOI', 'RFC 4648, section 10')
  t.is(decodeBase32('MB'), undefined)
  t.is(decodeBase32('M'), undefined)
})

// One in 2^20 passes the check: with keys of every run's own this would fail in one run of 600.
test('single typos in IDs of all kinds are found', t => {
  fc.assert(
    fc.property(key, fc.nat(55), (bytes, at) => {
      const bare = peerIdOf(bytes).replaceAll('-', '')
      for (const letter of ALPHABET) {
        if (letter !== bare[at])
          t.throws(() => parsePeerId(bare.slice(0, at) + letter + bare.slice(at + 1)), { instanceOf: SyncError })
      }
    }),
    { numRuns: 60, seed: 1 },
  )
})
