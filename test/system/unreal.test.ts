/** Real services that do not want everything real: content leaves a disk for good, and never the last one. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { ListedEntry } from '../../protocol/status.ts'
import { arenaName, Household } from './_household.ts'
import type { Peer } from './_peer.ts'
import { randomBytesFrom } from './_random.ts'

/** Nothing is given up in the first 20 s after a start, and the machine may be slow. */
const GIVEN_UP_MS = 120_000
const docs = arenaName('docs')

async function list(peer: Peer, path?: string): Promise<ListedEntry[]> {
  const { entries } = await peer.call('ls', { arena: docs, holders: true, ...(path === undefined ? {} : { path }) })
  return entries
}

test('a file drop: what is written here becomes real there, leaves this disk, and is listed here on', async t => {
  t.timeout(4 * GIVEN_UP_MS)
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  await alice.call('mark', { arena: docs, path: 'outbox', mark: 'unreal' })
  const here = household.root(alice)
  const there = household.root(bob)
  const film = Buffer.from(randomBytesFrom(5, 3_000_000))
  mkdirSync(join(here, 'outbox'))
  writeFileSync(join(here, 'outbox/film'), film)
  writeFileSync(join(here, 'outbox/text'), 'text')
  writeFileSync(join(here, 'stays'), 'stays')
  await alice.untilArena('gave up both', 'docs', status => status.files === 3 && status.realBytes === 5, GIVEN_UP_MS)
  t.deepEqual(readFileSync(join(there, 'outbox/film')), film)
  t.is(readFileSync(join(there, 'outbox/text'), 'utf8'), 'text')
  await alice.untilArena('emptied its staging', 'docs', () => household.staged(alice).length === 0)
  t.false(existsSync(join(here, 'outbox/film')))
  t.false(existsSync(join(here, 'outbox/text')))
  t.is(readFileSync(join(here, 'stays'), 'utf8'), 'stays')
  const listed = await list(alice, 'outbox')
  t.deepEqual(
    listed.map(({ path, size, mark, holders }) => ({ path: path as string, size, mark, holders })),
    [
      { path: 'outbox/film', size: 3_000_000, mark: 'unreal', holders: [{ name: 'bob', held: 'real' }] },
      { path: 'outbox/text', size: 4, mark: 'unreal', holders: [{ name: 'bob', held: 'real' }] },
    ],
  )
  await household.settled()
  // What is not there is not missed, by a scan or by the next start.
  await alice.kill()
  await alice.start()
  await alice.call('rescan', { arena: docs })
  await household.together([alice, bob])
  await household.settled()
  t.deepEqual(readFileSync(join(there, 'outbox/film')), film)
  // And it comes back when it is wanted.
  await alice.call('mark', { arena: docs, path: 'outbox/film', mark: 'real' })
  await household.settled()
  t.deepEqual(readFileSync(join(here, 'outbox/film')), film)
})

test('two peers that evict the same files at once: none of them is left by both', async t => {
  t.timeout(4 * GIVEN_UP_MS)
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  const names = Array.from({ length: 40 }, (_, i) => `file-${i}`)
  for (const name of names) writeFileSync(join(household.root(alice), name), `content of ${name}`)
  await household.settled()
  const peers = [alice, bob]
  await Promise.all(peers.map(peer => peer.call('mark', { arena: docs, mark: 'unreal' })))
  let given = 0
  for (let round = 0; round < 3; round++) {
    const outcomes = await Promise.all(peers.map(peer => peer.call('evict', { arena: docs })))
    for (const { files } of outcomes) given += files
    for (const name of names) {
      const holders = peers.filter(peer => existsSync(join(household.root(peer), name)))
      t.true(holders.length > 0, `nobody has ${name}`)
      for (const peer of holders) t.is(readFileSync(join(household.root(peer), name), 'utf8'), `content of ${name}`)
    }
  }
  t.true(given <= names.length)
  // One of them gets rid of each in the end.
  const held = () =>
    names.reduce((sum, name) => sum + peers.filter(peer => existsSync(join(household.root(peer), name))).length, 0)
  while (held() > names.length) await Promise.race(peers.map(peer => peer.changed()))
  t.is(held(), names.length)
  await household.settled()
})

test('an arena without a folder: all is known, nothing is real, and what is wanted real is refused', async t => {
  t.timeout(GIVEN_UP_MS)
  const household = new Household(t)
  const [alice, bob] = (await household.all('alice', 'bob')) as [Peer, Peer]
  const root = await household.share(alice)
  mkdirSync(join(root, 'folder'))
  writeFileSync(join(root, 'folder/file'), 'content')
  const { code } = await alice.call('invite', { arenas: [docs] })
  await bob.call('join', { code, path: household.root(bob) })
  await bob.call('arena_remove', { name: docs })
  const added = await bob.realize('arena', 'add', 'docs')
  t.is(added.code, 0, added.stderr)
  await bob.untilArena('knows the file', 'docs', status => status.files === 1 && status.consensus, GIVEN_UP_MS)
  const status = await bob.arena('docs')
  t.like(status, { path: null, realBytes: 0, needFiles: 0, state: 'idle' })
  t.deepEqual(
    (await list(bob, 'folder')).map(({ path, here, mark }) => [path as string, here, mark]),
    [['folder/file', 0, 'unreal']],
  )
  await t.throwsAsync(bob.call('mark', { arena: docs, path: 'folder', mark: 'real' }), { code: 'usage' })
  await t.throwsAsync(bob.call('mark', { arena: docs, mark: 'real' }), { code: 'usage' })
  await bob.call('arena_remove', { name: docs })
  t.is(readFileSync(join(root, 'folder/file'), 'utf8'), 'content')
})
