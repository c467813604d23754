import { existsSync, mkdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import test from 'ava'
import type { RpcNotification, StatusResult } from '../../protocol/control.ts'
import type { ArenaName } from '../../protocol/ids.ts'
import { generateIdentity } from '../../supervisor/identity.ts'
import { connected, pair, startService } from './_service.ts'
import { signal } from './_temp.ts'

const docs = 'docs' as ArenaName
const photos = 'photos' as ArenaName

test('a code pairs two services, shares the arena, and is good for one use', async t => {
  const anna = await startService(t, { name: 'anna' })
  const bert = await startService(t, { name: 'bert', arena: null })
  const carl = await startService(t, { name: 'carl', arena: null })
  const { code } = await anna.client.call('invite', {})
  const joined = await bert.client.call('join', { code })
  t.deepEqual(joined, {
    peer: { name: 'anna', id: anna.identity.id },
    arenas: [{ name: docs, path: join(bert.folder, 'docs') }],
  })
  t.true(existsSync(join(bert.folder, 'docs')))
  await connected(anna, bert)
  await Promise.all([anna.logged('arena_peer_opened'), bert.logged('arena_peer_opened')])
  t.true(anna.config().includes('name = "bert"'))
  t.like(await t.throwsAsync(carl.client.call('join', { code })), { code: 'invite_invalid' })
  t.deepEqual(carl.supervisor.config.peers, [])
})

test('a code that is mistyped or from the peer itself is refused with a reason', async t => {
  const anna = await startService(t, { name: 'anna' })
  const { code } = await anna.client.call('invite', {})
  t.like(await t.throwsAsync(anna.client.call('join', { code })), { code: 'invite_invalid' })
  t.like(await t.throwsAsync(anna.client.call('join', { code: `${code.slice(0, -3)}aaa` })), { code: 'invite_invalid' })
})

test('a code without an address that answers says which it tried', async t => {
  const anna = await startService(t, { name: 'anna' })
  const bert = await startService(t, { name: 'bert', arena: null })
  const { code } = await anna.client.call('invite', {})
  await anna.supervisor.listener.close()
  const error = await t.throwsAsync(bert.client.call('join', { code }))
  t.regex(error?.message ?? '', /could not be reached: 127\.0\.0\.1:\d+/)
})

test('an invitation to one arena shares no other one', async t => {
  const anna = await startService(t, { name: 'anna' })
  const bert = await startService(t, { name: 'bert', arena: null })
  await anna.client.call('arena_add', { name: photos, path: join(anna.folder, 'photos') })
  const { code } = await anna.client.call('invite', { arenas: [photos] })
  const { arenas } = await bert.client.call('join', { code, path: join(bert.folder, 'pictures') })
  t.deepEqual(arenas, [{ name: photos, path: join(bert.folder, 'pictures') }])
  await connected(anna, bert)
  const { arenas: listed } = await anna.client.call('arena_list', {})
  t.deepEqual(
    listed.map(({ name, peers }) => ({ name, peers })),
    [
      { name: docs, peers: [] },
      { name: photos, peers: null },
    ],
  )
})

test('a killed peer thread is restarted, and its connections come back', async t => {
  const anna = await startService(t, { name: 'anna' })
  const bert = await startService(t, { name: 'bert', arena: null })
  await pair(anna, bert)
  await bert.logged('arena_peer_opened')
  const before = bert.supervisor.connections.actors.length
  await bert.client.call('debug_kill_thread', { name: 'peer-1' })
  await bert.client.call('debug_kill_thread', { name: 'peer-2' })
  await bert.logged('peer_closed', { peer: 'anna' })
  await connected(anna, bert)
  await bert.logged('arena_peer_opened', {}, 2)
  const { actors } = await bert.client.call('status', {})
  const peers = actors.filter(actor => actor.name.startsWith('peer-'))
  t.is(peers.length, before)
  t.true(peers.every(actor => actor.restarts === 1 && actor.lastError !== null && actor.thread !== null))
})

test('a killed arena thread is restarted and gets its connections again', async t => {
  const anna = await startService(t, { name: 'anna' })
  const bert = await startService(t, { name: 'bert', arena: null })
  await pair(anna, bert)
  await Promise.all([anna.logged('arena_peer_opened'), bert.logged('arena_peer_opened')])
  await anna.client.call('debug_kill_thread', { name: 'arena-docs' })
  await bert.logged('arena_peer_opened', {}, 2)
  const status = await anna.until(({ arenas }) => arenas[0]?.state === 'idle')
  t.is(status.peers[0]?.state, 'connected')
  t.is(status.actors.find(actor => actor.name === 'arena-docs')?.restarts, 1)
})

test('an arena that dies refuses what it was asked, and the service goes on', async t => {
  const anna = await startService(t, { name: 'anna' })
  t.like(await t.throwsAsync(anna.client.call('verify', { arena: docs })), { code: 'arena_unavailable' })
  await anna.until(({ arenas }) => arenas[0]?.state === 'idle')
  t.deepEqual(await anna.client.call('rescan', { arena: docs }).catch(error => error.code), 'not_found')
  t.like(await t.throwsAsync(anna.client.call('rescan', { arena: photos })), { code: 'arena_unknown' })
})

test('an arena that cannot even start is shown as failed, with why, and hinders nobody', async t => {
  const anna = await startService(t, { name: 'anna', arena: 'broken' })
  const { arenas } = await anna.until(status => status.arenas[0]?.state === 'failed')
  t.is(arenas[0]?.reason, 'its thread failed: the store is broken')
  await anna.client.call('arena_add', { name: docs, path: join(anna.folder, 'docs') })
  await anna.until(status => status.arenas[1]?.state === 'idle')
})

test('pausing is kept in the configuration and told to the arena', async t => {
  const anna = await startService(t, { name: 'anna' })
  await anna.client.call('arena_pause', { name: docs })
  await anna.until(({ arenas }) => arenas[0]?.state === 'paused')
  t.true(anna.config().includes('paused = true'))
  const error = await t.throwsAsync(anna.client.call('wait', { arena: docs, timeoutSeconds: 0 }))
  t.like(error, { code: 'timed_out', data: { missing: ['docs is not in consensus'] } })
  t.deepEqual(await anna.client.call('wait', { timeoutSeconds: 0 }), { consensus: true })
  await anna.client.call('arena_resume', { name: docs })
  await anna.until(({ arenas }) => arenas[0]?.state === 'idle')
  t.false(anna.config().includes('paused'))
  t.deepEqual(await anna.client.call('wait', { timeoutSeconds: 10 }), { consensus: true })
})

test('a disconnected peer stays away until it is connected again', async t => {
  const anna = await startService(t, { name: 'anna' })
  const bert = await startService(t, { name: 'bert', arena: null })
  await pair(anna, bert)
  await anna.client.call('peer_disconnect', { name: 'bert' })
  await anna.until(({ peers }) => peers[0]?.state === 'paused')
  await bert.until(({ peers }) => peers[0]?.state !== 'connected')
  await anna.client.call('peer_connect', { name: 'bert' })
  await connected(anna, bert)
  t.pass()
})

test('a removed peer is disconnected and is no longer let in', async t => {
  const anna = await startService(t, { name: 'anna' })
  const bert = await startService(t, { name: 'bert', arena: null })
  await pair(anna, bert)
  await anna.client.call('peer_remove', { name: 'bert' })
  await bert.logged('peer_dial_failed', { code: 'peer_unknown' })
  t.deepEqual((await anna.client.call('peer_list', {})).peers, [])
})

test('a reload follows what was changed, and refuses what is wrong', async t => {
  const anna = await startService(t, { name: 'anna' })
  const before = anna.config()
  const path = join(anna.folder, 'photos')
  mkdirSync(path)
  anna.write(`${before}\n[[arenas]]\nname = "photos"\npath = ${JSON.stringify(path)}\n`)
  await anna.supervisor.reload()
  await anna.until(({ arenas }) => arenas.length === 2 && arenas[1]?.state === 'idle')
  anna.write(`${before}\ncolour = "red"\n`)
  t.like(await t.throwsAsync(anna.supervisor.reload()), { code: 'config_invalid' })
  t.is(anna.supervisor.config.arenas.length, 2)
  anna.write(before)
  await anna.supervisor.reload()
  const { arenas } = await anna.client.call('status', {})
  t.deepEqual(arenas.map(arena => arena.name) as string[], ['docs'])
})

test('a change that is refused leaves the file as it was', async t => {
  const anna = await startService(t, { name: 'anna' })
  const before = anna.config()
  const nested = join(anna.folder, 'docs', 'inner')
  t.like(await t.throwsAsync(anna.client.call('arena_add', { name: photos, path: nested })), { code: 'config_invalid' })
  t.like(
    await t.throwsAsync(
      anna.client.call('arena_add', { name: photos, path: join(anna.folder, 'p'), peers: ['nobody'] }),
    ),
    { code: 'peer_unknown' },
  )
  t.is(anna.config(), before)
})

test('a status subscription tells the whole at first and then what changes', async t => {
  const anna = await startService(t, { name: 'anna' })
  const first = signal<StatusResult>()
  const paused = signal()
  await anna.client.subscribe({ what: 'status' }, ({ params }: RpcNotification) => {
    const status = params as StatusResult
    first.resolve(status)
    if (status.arenas[0]?.state === 'paused') paused.resolve()
  })
  t.is((await first.promise).peer.name, 'anna')
  await anna.client.call('arena_pause', { name: docs })
  await paused.promise
})

test('an events subscription tells of peers, arenas and failures', async t => {
  const anna = await startService(t, { name: 'anna' })
  const seen = signal()
  const wanted = new Set(['listening', 'arena_state', 'actor_failed'])
  await anna.client.subscribe({ what: 'events' }, notification => {
    if (notification.method !== 'event') return
    for (const { event } of notification.params.events) wanted.delete(event)
    if (wanted.size === 0) seen.resolve()
  })
  await anna.client.call('debug_kill_thread', { name: 'arena-docs' })
  await seen.promise
  t.pass()
})

test('the bundle for support tells no address of the configuration', async t => {
  const anna = await startService(t, { name: 'anna' })
  await anna.client.call('peer_add', { name: 'carl', id: generateIdentity().id, addresses: ['192.0.2.200:1234'] })
  const diag = await anna.client.call('diag', {})
  t.true(diag.config.includes('carl'))
  t.false(diag.config.includes('192.0.2.200'))
  t.true(diag.metrics.includes('realize_peers 1'))
  t.is(diag.versions.realize, '0.0.0')
  t.true(diag.logs.length > 0)
})

test('strangers that only hold a connection open do not keep a peer out', async t => {
  const anna = await startService(t, { name: 'anna' })
  const bert = await startService(t, { name: 'bert', arena: null })
  await pair(anna, bert)
  const port = anna.supervisor.listener.addresses[0]?.port ?? 0
  const strangers = Array.from({ length: 100 }, () => connect(port, '127.0.0.1').on('error', () => {}))
  t.teardown(() => {
    for (const stranger of strangers) stranger.destroy()
  })
  await anna.client.call('debug_kill_thread', { name: 'peer-1' })
  await anna.client.call('debug_kill_thread', { name: 'peer-2' })
  await anna.logged('peer_closed')
  await connected(anna, bert)
  t.pass()
})

test('an actor that is not a thread of ours cannot be killed', async t => {
  const anna = await startService(t, { name: 'anna' })
  t.like(await t.throwsAsync(anna.client.call('debug_kill_thread', { name: 'control' })), { code: 'not_found' })
  await t.notThrowsAsync(anna.client.call('debug_kill_thread', { name: 'hasher' }))
})
