/** The service as a program: it ends well, is paused and resumed, keeps versions and gives them back, and is checked by verify. */
import { appendFileSync, existsSync, readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { arenaName, Household, isFree } from './_household.ts'
import { Peer, run, SERVICE } from './_peer.ts'
import { randomBytesFrom } from './_random.ts'
import { makeTree } from './_tree.ts'

const DEFAULT_PORT = 9771
const docs = arenaName('docs')

test.serial(
  'SIGTERM in the middle of a transfer ends with 0 within ten seconds, on either side, and it goes on later',
  async t => {
    const household = new Household(t)
    const [alice, bob] = await household.couple()
    await bob.stop()
    bob.editConfig(text => text.replace(/^\[\[peers\]\]\n/m, '[[peers]]\nrate = { up = "20MB", down = "20MB" }\n'))
    makeTree(household.root(alice), {
      large: randomBytesFrom(1, 100_000_000),
      ...Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`small/${i}`, randomBytesFrom(i, 2_000)])),
    })
    await bob.start()
    for (const peer of [bob, alice, bob]) {
      await bob.untilArena('is in the middle of it', 'docs', status => status.needBytes > 0)
      const { code, signal, ms } = await peer.stop()
      t.deepEqual({ code, signal }, { code: 0, signal: null })
      t.true(ms < 10_000, `${ms} ms`)
      await peer.start()
    }
    await household.together([alice, bob])
    t.is((await household.same(t)).size, 502)
    t.deepEqual(household.staged(bob), [])
  },
)

test.serial('a first start makes key and configuration and says what to do next', async t => {
  const household = new Household(t)
  const home = join(household.folder, 'fresh')
  const fresh = new Peer('fresh', home, null)
  household.peers.push(fresh)
  // It listens on the usual port, which another service on this machine may have: then it says so, and the rest is as ever.
  const free = await isFree(DEFAULT_PORT)
  fresh.launch('pretty')
  if (free) await fresh.ready()
  else t.is((await fresh.ended(20_000)).code, 1)
  t.is(statSync(join(home, 'key.pem')).mode & 0o777, 0o600)
  t.true(existsSync(join(home, 'config.toml')))
  t.true(
    fresh.lines.some(line => line.includes('realize join')),
    fresh.report(),
  )
  if (free) {
    t.is(statSync(join(home, 'control.sock')).mode & 0o777, 0o600)
    t.is((await fresh.stop()).code, 0)
  }
  const help = await run(SERVICE, ['--help'])
  t.is(help.code, 0)
  t.true(help.stdout.includes('--home'))
})

test.serial('a paused arena neither sends nor takes anything, and catches up when it is resumed', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  makeTree(household.root(alice), { note: 'one' })
  await household.same(t)
  t.is((await bob.realize('arena', 'pause', 'docs')).code, 0)
  await bob.untilArena('is paused', 'docs', status => status.state === 'paused')
  writeFileSync(join(household.root(alice), 'note'), 'three')
  writeFileSync(join(household.root(bob), 'other'), 'by bob')
  await Promise.all([alice, bob].map(peer => peer.call('rescan', { arena: docs })))
  await alice.untilArena(
    'has looked',
    'docs',
    status => status.bytes === 5 && status.missing.some(cause => cause.includes('paused')),
  )
  t.is(readFileSync(join(household.root(bob), 'note'), 'utf8'), 'one')
  t.false(existsSync(join(household.root(alice), 'other')))
  // A restart does not end it.
  await bob.stop()
  await bob.start()
  await bob.untilArena('is still paused', 'docs', status => status.state === 'paused')
  t.is((await bob.realize('arena', 'resume', 'docs')).code, 0)
  await household.together([alice, bob])
  await household.same(t)
  t.is(readFileSync(join(household.root(bob), 'note'), 'utf8'), 'three')
  t.is(readFileSync(join(household.root(alice), 'other'), 'utf8'), 'by bob')
})

test.serial('a disconnected peer stays away until it is connected again', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  t.is((await bob.realize('peer', 'disconnect', 'alice')).code, 0)
  await bob.until('is paused', status => status.peers[0]!.state === 'paused')
  await alice.until('has lost bob', status => status.peers[0]!.state !== 'connected')
  writeFileSync(join(household.root(alice), 'note'), 'text')
  await household.settled([alice])
  t.false(existsSync(join(household.root(bob), 'note')))
  t.is((await bob.realize('peer', 'connect', 'alice')).code, 0)
  await household.together([alice, bob])
  t.true((await household.same(t)).has('note'))
})

test.serial('what was replaced or deleted from elsewhere is listed, read and restored', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  const [ours, theirs] = [household.root(alice), household.root(bob)]
  makeTree(ours, { 'letter.txt': 'first version', 'gone.txt': 'deleted text' })
  await household.same(t)
  writeFileSync(join(ours, 'letter.txt'), 'second version')
  unlinkSync(join(ours, 'gone.txt'))
  await household.same(t)

  const { versions } = await bob.call('versions', { arena: docs, path: 'letter.txt' })
  t.is(versions.length, 1)
  t.like(versions[0], { path: 'letter.txt', size: 13 })
  const out = join(household.folder, 'out.txt')
  const saved = await bob.realize('restore', 'docs:letter.txt', '--version', versions[0]!.version, '--to', out)
  t.is(saved.code, 0, saved.stderr)
  t.is(readFileSync(out, 'utf8'), 'first version')
  t.is(readFileSync(join(theirs, 'letter.txt'), 'utf8'), 'second version')

  const restored = await bob.realize('restore', 'docs:letter.txt', '--version', versions[0]!.version)
  t.is(restored.code, 0, restored.stderr)
  const [gone] = (await bob.call('versions', { arena: docs, path: 'gone.txt' })).versions
  t.is((await bob.realize('restore', 'docs:gone.txt', '--version', gone!.version)).code, 0)
  await household.same(t)
  t.is(readFileSync(join(ours, 'letter.txt'), 'utf8'), 'first version')
  t.is(readFileSync(join(ours, 'gone.txt'), 'utf8'), 'deleted text')
  // What the restoring replaced is kept as well.
  const later = await bob.call('versions', { arena: docs, path: 'letter.txt' })
  t.true(
    later.versions.some(one => one.size === 'second version'.length),
    JSON.stringify(later),
  )
})

test.serial('ls, cat, history and verify tell of the files as they are', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  makeTree(household.root(alice), { 'folder/a b.txt': 'hello world', link: { link: 'folder' } })
  await household.same(t)
  const listed = await bob.realize('--json', 'ls', 'docs:folder')
  t.is(listed.code, 0, listed.stderr)
  t.true(listed.stdout.includes('folder/a b.txt'))
  const part = await bob.realize('cat', 'docs:folder/a b.txt', '--offset', '6', '--length', '3')
  t.deepEqual({ code: part.code, stdout: part.stdout }, { code: 0, stdout: 'wor' })
  const { events } = await bob.call('history', { arena: docs, limit: 100 })
  t.true(
    events.some(one => one.path === 'folder/a b.txt' && one.action === 'received'),
    JSON.stringify(events),
  )
  const verified = await bob.call('verify', { arena: docs })
  t.like(verified, { files: 1, bytes: 11, bad: [] })
  t.is(verified.peers.length, 1)
  t.true(verified.peers[0]!.equal)
  t.is((await bob.realize('verify', 'docs')).code, 0)

  const diag = join(household.folder, 'diag.tar.gz')
  t.is((await bob.realize('diag', diag)).code, 0)
  t.true(statSync(diag).size > 500)
})

test.serial('history tells edits, renames and deletions as they happen', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  makeTree(household.root(alice), { note: 'one' })
  await household.settled()
  const following = await bob.connect()
  t.teardown(() => following.close())
  const seen: string[] = []
  await following.subscribe({ what: 'history', arena: docs }, notification => {
    if (notification.method === 'history')
      seen.push(...notification.params.events.map(one => `${one.action} ${one.path}`))
  })
  appendFileSync(join(household.root(bob), 'note'), ' two')
  await household.settled()
  unlinkSync(join(household.root(bob), 'note'))
  await household.settled()
  // The answer to a later question on the same connection comes after all notifications.
  await following.call('status', {})
  t.true(seen.includes('received note'), seen.join(', '))
  t.true(seen.includes('edited note'), seen.join(', '))
  t.true(seen.includes('deleted note'), seen.join(', '))
})

test.serial('wait ends with 3 when time is up, and says what is missing', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  await bob.stop()
  bob.editConfig(text => text.replace(/^\[\[peers\]\]\n/m, '[[peers]]\nrate = { up = "1MB", down = "1MB" }\n'))
  writeFileSync(join(household.root(alice), 'large'), randomBytesFrom(5, 30_000_000))
  await bob.start()
  await bob.untilArena('has heard of it', 'docs', status => status.needBytes > 0)
  const waited = await bob.realize('wait', '--timeout', '1')
  t.is(waited.code, 3, waited.stderr)
  t.regex(waited.stderr, /missing: .*not here yet/)
})
