import test from 'ava'
import fc from 'fast-check'
import {
  Admission,
  HANDSHAKES_MAX,
  HANDSHAKES_PER_STRANGER_MAX,
  plainAddress,
  type Ticket,
} from '../../supervisor/admission.ts'

test('one strange address gets eight places, and another one still gets its own', t => {
  const admission = new Admission()
  for (let i = 0; i < HANDSHAKES_PER_STRANGER_MAX; i++) t.truthy(admission.admit('192.0.2.1', false))
  t.is(admission.admit('192.0.2.1', false), undefined)
  t.truthy(admission.admit('192.0.2.2', false))
})

test('a crowd of strangers does not keep out who is known', t => {
  const admission = new Admission()
  for (let i = 0; i < HANDSHAKES_MAX; i++) t.truthy(admission.admit(`192.0.2.${i}`, false))
  t.is(admission.admit('198.51.100.1', false), undefined)
  t.truthy(admission.admit('198.51.100.2', true))
})

test('any admitting and releasing keeps to the limits and forgets nothing', t => {
  const step = fc.record({ host: fc.nat(12), known: fc.boolean(), release: fc.boolean() })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), steps => {
      const admission = new Admission()
      const held: Ticket[] = []
      for (const { host, known, release } of steps) {
        if (release) {
          const ticket = held.shift()
          if (ticket) admission.release(ticket)
        } else {
          const ticket = admission.admit(`h${host}`, known)
          if (ticket) held.push(ticket)
        }
        const strangers = held.filter(ticket => !ticket.known)
        const here = strangers.filter(ticket => ticket.address === `h${host}`)
        if (admission.count !== held.length || strangers.length > HANDSHAKES_MAX) return false
        if (here.length > HANDSHAKES_PER_STRANGER_MAX) return false
      }
      return true
    }),
  )
  t.pass()
})

test('an IPv4 address in IPv6 form is the same address', t => {
  t.is(plainAddress('::ffff:192.0.2.1'), '192.0.2.1')
  t.is(plainAddress('2001:db8::1'), '2001:db8::1')
})
