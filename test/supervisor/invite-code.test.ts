/** The pairing code by property: what goes in comes out, however it is pasted, and a slip of the hand never passes. */
import test from 'ava'
import fc from 'fast-check'
import { SyncError } from '../../protocol/error.ts'
import { peerIdOf } from '../../protocol/peer-id.ts'
import { decodeInvite, encodeInvite, type Invite } from '../../supervisor/invite-code.ts'

const hex = (bytes: number) =>
  fc.uint8Array({ minLength: bytes, maxLength: bytes }).map(value => Buffer.from(value).toString('hex'))
const inviteArbitrary: fc.Arbitrary<Invite> = fc.record({
  peer: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(peerIdOf),
  invite: hex(8),
  secret: hex(16),
  expiresAtMs: fc.integer({ min: 1, max: 2 ** 32 }).map(seconds => seconds * 1000),
  addresses: fc.array(
    fc
      .tuple(
        fc.oneof(
          fc.domain(),
          fc.ipV4(),
          fc.ipV6().map(ip => `[${ip}]`),
        ),
        fc.integer({ min: 1, max: 65_535 }),
      )
      .map(([host, port]) => `${host}:${port}`),
    { maxLength: 8 },
  ),
})

test('a code gives back the invite, however it is pasted', t => {
  fc.assert(
    fc.property(inviteArbitrary, fc.boolean(), fc.boolean(), fc.boolean(), (invite, upper, bare, confused) => {
      let text = encodeInvite(invite)
      if (confused) text = text.replaceAll('o', '0').replaceAll('b', '8')
      if (bare) text = text.replaceAll('-', ' ').replace(' ', '\n')
      t.deepEqual(decodeInvite(upper ? text.toUpperCase() : text, 0), invite)
    }),
  )
})

test('a letter that is wrong, missing, doubled or swapped is found', t => {
  fc.assert(
    fc.property(
      inviteArbitrary,
      fc.nat(),
      fc.constantFrom(...'abcdefghijklmnopqrstuvwxyz234567'),
      (invite, at, letter) => {
        const text = encodeInvite(invite).replaceAll('-', '')
        const index = 3 + (at % (text.length - 3))
        const [one, two] = [text.charAt(index), text.charAt(index + 1)]
        const slips = [
          text.slice(0, index) + letter + text.slice(index + 1),
          text.slice(0, index) + text.slice(index + 1),
          text.slice(0, index) + one + text.slice(index),
          text.slice(0, index) + two + one + text.slice(index + 2),
        ]
        for (const slip of slips) {
          if (slip === text) continue
          t.like(
            t.throws(() => decodeInvite(slip, 0), { instanceOf: SyncError }),
            { code: 'invite_invalid' },
          )
        }
      },
    ),
    { numRuns: 60 },
  )
})

test('any text is a code or invite_invalid, and one that has expired is told so', t => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ maxLength: 300 }),
        fc.string({ maxLength: 300 }).map(text => `rz1-${text}`),
      ),
      text => {
        t.like(
          t.throws(() => decodeInvite(text, 0), { instanceOf: SyncError }),
          { code: 'invite_invalid' },
        )
      },
    ),
  )
  fc.assert(
    fc.property(inviteArbitrary, invite => {
      const error = t.throws(() => decodeInvite(encodeInvite(invite), invite.expiresAtMs), { instanceOf: SyncError })
      t.regex(error?.message ?? '', /expired/)
    }),
    { numRuns: 20 },
  )
})
