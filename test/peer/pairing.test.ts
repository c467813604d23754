import test from 'ava'
import type { ArenaName } from '../../protocol/ids.ts'
import { generateIdentity } from '../../supervisor/identity.ts'
import { Stranger, stopThreads, Thread } from './_threads.ts'

const invite = { invite: '0011223344556677', secret: '00112233445566778899aabbccddeeff' }

test.afterEach.always(stopThreads)

test.serial(
  'the right secret pairs: each side proves it to the other, and the joiner learns what is shared',
  async t => {
    const [joiner, inviter] = await Promise.all([Thread.start('joiner'), Thread.start('inviter')])
    const address = await inviter.listen([], [{ invite: 'ff'.repeat(8), secret: 'ff'.repeat(16) }, invite])
    joiner.dial(1, inviter.identity, address, invite)
    t.deepEqual(await inviter.reports.take('pairing'), {
      type: 'pairing',
      connection: 1001,
      invite: invite.invite,
      peer: joiner.identity.id,
      name: 'joiner',
      addresses: ['joiner.test:9771'],
    })
    const arenas = [{ name: 'docs' as ArenaName, conflicts: 'keep-both' as const }]
    inviter.send({ type: 'pair_accept', connection: 1001, arenas })
    t.deepEqual(await joiner.reports.take('paired'), {
      type: 'paired',
      connection: 1,
      peer: inviter.identity.id,
      name: 'inviter',
      addresses: [address],
      arenas,
    })
    t.is((await joiner.reports.take('closed')).failure.code, 'peer_closed')
    t.is((await inviter.reports.take('closed')).failure.message, 'paired')
    await Promise.all([joiner.stop(), inviter.stop()])
  },
)

test.serial('a wrong secret and an unknown invite are refused alike', async t => {
  const [joiner, inviter] = await Promise.all([Thread.start('joiner'), Thread.start('inviter')])
  const address = await inviter.listen([], [invite])
  const messages: string[] = []
  for (const wrong of [
    { ...invite, secret: '00'.repeat(16) },
    { ...invite, invite: '00'.repeat(8) },
  ]) {
    joiner.dial(1, inviter.identity, address, wrong)
    const { failure } = await joiner.reports.take('closed')
    t.is(failure.code, 'invite_invalid')
    messages.push(failure.message)
    t.is((await inviter.reports.take('closed')).failure.code, 'invite_invalid')
    await inviter.reports.take('log', log => log.event === 'invite_refused')
  }
  t.is(messages[0], messages[1])
  await Promise.all([joiner.stop(), inviter.stop()])
  t.is(inviter.reports.count('pairing'), 0)
})

test.serial('a member of the household may join again with a code, but not where none is open', async t => {
  const [joiner, inviter] = await Promise.all([Thread.start('joiner'), Thread.start('inviter')])
  joiner.dial(1, inviter.identity, await inviter.listen([joiner.identity], [invite]), invite)
  await inviter.reports.take('pairing')
  inviter.send({ type: 'close', connection: 1001, failure: { code: 'invite_invalid', message: 'used already' } })
  t.deepEqual((await joiner.reports.take('closed')).failure, { code: 'invite_invalid', message: 'used already' })
  joiner.dial(2, inviter.identity, await inviter.listen([joiner.identity]), invite)
  t.is((await joiner.reports.take('closed')).failure.code, 'invite_invalid')
  await Promise.all([joiner.stop(), inviter.stop()])
})

test.serial('a pairing that nobody finishes ends at its deadline', async t => {
  const inviter = await Thread.start('inviter', { pairMs: 100 })
  const stranger = await Stranger.dial(await inviter.listen([], [invite]), generateIdentity())
  stranger.say({ type: 'hello', versions: { min: 1, max: 1 }, name: 's', software: '', purpose: 'pair', addresses: [] })
  t.is((await stranger.inbox.take('close')).code, 'timed_out')
  await stranger.closed
  await inviter.stop()
})
