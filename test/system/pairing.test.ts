/** Two, three and a row of machines: how they come to know each other, and that what one does reaches all. */
import { appendFileSync, existsSync, lstatSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { arenaName, Household, introduce } from './_household.ts'
import { randomBytesFrom } from './_random.ts'
import { makeTree } from './_tree.ts'

test.serial(
  'two machines are paired by a code on the command line, wait returns 0, and edits flow both ways',
  async t => {
    const household = new Household(t)
    const [alice, bob] = await household.all('alice', 'bob')
    const root = household.root(alice!)
    makeTree(root, { 'a/note': 'from alice' })

    const added = await alice!.realize('arena', 'add', 'docs', root)
    t.is(added.code, 0, added.stderr)
    const invited = await alice!.realize('--json', 'invite', '--arena', 'docs')
    t.is(invited.code, 0, invited.stderr)
    const { code } = JSON.parse(invited.stdout) as { code: string }
    const joined = await bob!.realize('join', code, household.root(bob!))
    t.is(joined.code, 0, joined.stderr)
    await household.together([alice!, bob!])

    const waited = await bob!.realize('wait', '--timeout', '30')
    t.is(waited.code, 0, waited.stderr)
    t.is(readFileSync(join(household.root(bob!), 'a/note'), 'utf8'), 'from alice')

    appendFileSync(join(household.root(bob!), 'a/note'), ', and from bob')
    t.is((await alice!.realize('wait', 'docs', '--timeout', '30')).code, 0)
    t.is(readFileSync(join(root, 'a/note'), 'utf8'), 'from alice, and from bob')

    const shown = await alice!.realize('--json', 'status')
    t.is(shown.code, 0)
    const status = JSON.parse(shown.stdout) as Awaited<ReturnType<typeof statusOf>>
    t.like(status, { peer: { name: 'alice' }, peers: [{ name: 'bob', state: 'connected' }] })
    t.like(
      status.arenas.find(one => one.name === 'docs'),
      { files: 1, bytes: 24, needFiles: 0 },
    )
    t.deepEqual(await household.same(t), await household.same(t))

    async function statusOf() {
      return alice!.call('status', {})
    }
  },
)

test.serial('a code works once, and not after its time', async t => {
  const household = new Household(t)
  const [alice, bob, carol] = await household.all('alice', 'bob', 'carol')
  await household.share(alice!)
  const { code, expiresAtMs } = await alice!.call('invite', { arenas: [arenaName('docs')] })
  t.true(expiresAtMs > Date.now())
  await bob!.call('join', { code, path: household.root(bob!) })
  const again = await carol!.realize('join', code, household.root(carol!))
  t.is(again.code, 1)
  t.regex(again.stderr, /code|invite/i)
  t.false(again.stderr.includes('    at '))
  t.deepEqual((await carol!.call('peer_list', {})).peers, [])
  t.is((await alice!.call('peer_list', {})).peers.length, 1)
})

test.serial(
  'what was there on both before they met is merged: equal files once, different ones as a conflict',
  async t => {
    const household = new Household(t)
    const [alice, bob] = await household.all('alice', 'bob')
    makeTree(household.root(alice!), { same: 'same', 'only/alice': 'a', differs: 'by alice' })
    makeTree(household.root(bob!), { same: 'same', 'only/bob': 'b', differs: 'by bob' })
    await household.share(alice!)
    await household.pair(alice!, bob!)
    const tree = await household.same(t)
    const names = [...tree.keys()].filter(name => !name.startsWith('differs.conflict-'))
    t.deepEqual(names, ['differs', 'only', 'only/alice', 'only/bob', 'same'])
    t.is(tree.size, names.length + 1)
    const copy = [...tree.keys()].find(name => name.startsWith('differs.conflict-'))!
    const both = [
      readFileSync(join(household.root(alice!), 'differs'), 'utf8'),
      readFileSync(join(household.root(alice!), copy), 'utf8'),
    ]
    t.deepEqual(both.sort(), ['by alice', 'by bob'])
  },
)

test.serial('three machines that all know each other hold the same, whoever edits', async t => {
  const household = new Household(t)
  const peers = await household.triangle()
  for (const [index, peer] of peers.entries())
    makeTree(household.root(peer), {
      [`by ${peer.name}/note`]: `text ${index}`,
      [`by ${peer.name}/image`]: randomBytesFrom(index, 700_000),
      [`by ${peer.name}/run`]: { run: '#!/bin/sh\n' },
    })
  t.is((await household.same(t)).size, 12)
  for (const [index, peer] of peers.entries())
    appendFileSync(join(household.root(peer), `by ${peers[(index + 1) % 3]!.name}/note`), '+')
  await household.same(t)
  for (const peer of peers)
    t.regex(readFileSync(join(household.root(peers[0]), `by ${peer.name}/note`), 'utf8'), /^text \d\+$/)
  for (const peer of peers) t.like(await peer.arena('docs'), { conflicts: 0, problemCount: 0 })
})

test.serial('two machines that never meet exchange everything through the one that both know', async t => {
  const household = new Household(t)
  const [alice, bob, carol] = await household.chain()
  makeTree(household.root(alice), { 'from alice': 'a', 'large from alice': randomBytesFrom(3, 5_000_000) })
  makeTree(household.root(carol), { 'from carol': 'c', 'folder/from carol': { link: '../from alice' } })
  t.is((await household.same(t)).size, 5)
  t.deepEqual(
    (await alice.call('peer_list', {})).peers.map(one => one.name),
    ['bob'],
  )
  t.deepEqual(
    (await carol.call('peer_list', {})).peers.map(one => one.name),
    ['bob'],
  )

  // The two ends are never on at the same time: what alice leaves behind reaches carol through bob alone.
  await carol.stop()
  writeFileSync(join(household.root(alice), 'from alice'), 'edited while carol was away')
  await household.settled([alice, bob])
  await alice.stop()
  await carol.start()
  await household.together([bob, carol])
  await household.settled([bob, carol])
  t.is(readFileSync(join(household.root(carol), 'from alice'), 'utf8'), 'edited while carol was away')
  writeFileSync(join(household.root(carol), 'from alice'), 'and by carol')
  await household.settled([bob, carol])
  await carol.stop()
  await alice.start()
  await household.together([alice, bob])
  await household.settled([alice, bob])
  t.is(readFileSync(join(household.root(alice), 'from alice'), 'utf8'), 'and by carol')
  t.is((await bob.arena('docs')).conflicts, 0)
})

test.serial('two arenas between the same machines do not touch each other', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  await household.share(bob, 'photos')
  await household.pair(bob, alice, 'photos')
  makeTree(household.root(alice), { note: 'in docs' })
  makeTree(household.root(bob, 'photos'), { picture: 'in photos' })
  t.deepEqual([...(await household.same(t, [alice, bob], 'docs')).keys()], ['note'])
  t.deepEqual([...(await household.same(t, [alice, bob], 'photos')).keys()], ['picture'])
})

test.serial('a peer that is not known is turned away, and both sides say why', async t => {
  const household = new Household(t)
  const [alice, mallory] = await household.all('alice', 'mallory')
  const root = await household.share(alice!)
  makeTree(root, { secret: 'text' })
  await introduce(mallory!, alice!)
  await household.share(mallory!)
  const status = await mallory!.until('says why alice turned it away', whole =>
    whole.peers.some(one => one.error !== null),
  )
  t.not(status.peers[0]!.state, 'connected')
  t.false(status.peers[0]!.error!.includes('    at '))
  const refusals = alice!.lines.filter(line => line.includes('peer_refused') || line.includes('peer_unknown'))
  t.true(refusals.length > 0, alice!.report())
  t.false(existsSync(join(household.root(mallory!), 'secret')))
})

test.serial('ignored files stay where they are, on both sides, and ignoring is never deleting', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  const [ours, theirs] = [household.root(alice), household.root(bob)]
  makeTree(ours, { kept: 'k', 'build/out.o': 'shared before it was ignored' })
  await household.same(t)

  makeTree(ours, { '.realizeignore': '*.tmp\nbuild/\n!important.tmp\n' })
  await household.settled()
  makeTree(ours, { 'a.tmp': 'of alice', 'important.tmp': 'synced', 'sub/b.tmp': 'of alice' })
  makeTree(theirs, { 'c.tmp': 'of bob', 'build/new.o': 'of bob' })
  await household.settled()
  t.true(existsSync(join(theirs, 'important.tmp')))
  t.true(existsSync(join(theirs, 'build/out.o')), 'ignoring deleted a file elsewhere')
  for (const path of ['a.tmp', 'sub/b.tmp']) t.false(existsSync(join(theirs, path)), path)
  for (const path of ['c.tmp', 'build/new.o']) t.false(existsSync(join(ours, path)), path)
  t.true(lstatSync(join(ours, 'sub')).isDirectory())
})

test.serial('a folder deleted elsewhere stays while it holds something ignored, and goes with it', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  const [ours, theirs] = [household.root(alice), household.root(bob)]
  makeTree(ours, { '.realizeignore': '*.log\n', 'project/source': 's', 'other/file': 'o' })
  await household.settled()
  makeTree(theirs, { 'project/run.log': 'of bob' })
  rmSync(join(ours, 'project'), { recursive: true })
  await household.settled()
  t.false(existsSync(join(theirs, 'project/source')))
  t.is(readFileSync(join(theirs, 'project/run.log'), 'utf8'), 'of bob')
  t.false(existsSync(join(ours, 'project')), 'the deleted folder came back')
  rmSync(join(theirs, 'project/run.log'))
  await household.settled()
  t.false(existsSync(join(theirs, 'project')), 'the empty folder stayed')
})

test.serial('a file whose name is no valid text is a problem with a reason, and everything else is synced', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  mkdirSync(household.root(alice), { recursive: true })
  writeFileSync(Buffer.concat([Buffer.from(`${household.root(alice)}/bad-`), Buffer.from([0xff, 0xfe])]), 'text')
  makeTree(household.root(alice), { good: 'text' })
  await household.settled()
  t.true(existsSync(join(household.root(bob), 'good')))
  const { problems } = await alice.arena('docs')
  t.true(
    problems.some(one => one.path.startsWith('bad-') && one.reason.length > 10),
    JSON.stringify(problems),
  )
})
