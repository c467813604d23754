/** Whatever is killed, cut or thrown away: everything converges, nothing is lost, and nothing is fetched twice without need. */
import { cpSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { StatusResult } from '../../protocol/control.ts'
import { arenaName, Household, setRate } from './_household.ts'
import type { Peer } from './_peer.ts'
import { randomBytesFrom, randomFrom } from './_random.ts'
import { type Content, differences, makeTree, type Tree, treeOf } from './_tree.ts'

const LARGE_BYTES = 64 * 1024 * 1024
const KILLS = 20
/** What one kill may cost: packs on their way or not yet at their paths, one message of leaves, and what is in the sockets. */
const LOST_BYTES_MAX = 5 * 1024 * 1024
const SEED = Number(process.env.SEED ?? 1)

test.serial(
  `kill -9 of either side, twenty times in one transfer, loses nothing and resumes (SEED=${SEED})`,
  async t => {
    t.timeout(240_000)
    const household = new Household(t)
    const [alice, bob, relay] = await household.relayed(t)
    await Promise.all([alice.stop(), bob.stop()])
    // Where it is sent, so that what is killed is not what waits in buffers.
    setRate(alice, { up: '8MB', down: '8MB' })
    await alice.start()

    const random = randomFrom(SEED)
    const tree: Record<string, Content> = {
      'large/0': randomBytesFrom(10, LARGE_BYTES),
      'large/1': randomBytesFrom(11, LARGE_BYTES),
    }
    let bytes = 2 * LARGE_BYTES
    for (let i = 0; i < 2_000; i++) {
      const content = randomBytesFrom(1_000 + i, 1 + Math.floor(random() * 8_000))
      bytes += content.length
      tree[`small/${i % 40}/${i}`] = content
    }
    makeTree(household.root(alice), tree)
    const expected = treeOf(household.root(alice))
    const before = relay.fromTarget
    await bob.start()

    let saved = 0
    for (let kill = 0; kill < KILLS; kill++) {
      const victim = random() < 0.5 ? alice : bob
      // Every third while the services are still getting together, the others after a random piece of the transfer.
      if (kill % 3 > 0) {
        const goal = relay.fromTarget + Math.floor(random() * 3_000_000)
        await bob.until('has got a piece of it', status => relay.fromTarget >= goal || isWhole(status), 60_000)
      }
      await moment(random() * 300)
      await victim.kill()
      const savedBefore = saved
      saved = savedBytes()
      t.true(saved >= savedBefore, `kill ${kill}: ${savedBefore} bytes were here, ${saved} are`)
      assertWritten(household.root(bob), expected)
      await victim.start()
      // Without the pause that it makes after each failure.
      await bob.call('peer_connect', { name: 'alice' })
    }

    await alice.stop()
    setRate(alice, {})
    await alice.start()
    await bob.call('peer_connect', { name: 'alice' })
    await household.together([alice, bob])
    await household.same(t)
    t.deepEqual(differences(expected, treeOf(household.root(bob)), 'as written', 'bob'), [])
    t.deepEqual(differences(expected, treeOf(household.root(alice)), 'as written', 'alice'), [])
    for (const peer of [alice, bob]) {
      t.like(await peer.arena('docs'), { conflicts: 0, problemCount: 0, needFiles: 0, needBytes: 0 })
      t.deepEqual(household.staged(peer), [])
    }
    const received = relay.fromTarget - before
    t.log(`${(bytes / 1e6).toFixed(0)} MB of content, ${(received / 1e6).toFixed(0)} MB received`)
    t.true(received < bytes + KILLS * LOST_BYTES_MAX, `${received} bytes received for ${bytes} bytes of content`)

    /** Content at its path and what has come of large files: what the next start goes on from. */
    function savedBytes(): number {
      let sum = 0
      for (const one of readdirSync(household.root(bob), { recursive: true, withFileTypes: true })) {
        const isSmallPiece = one.parentPath.includes('.realize') && !one.name.startsWith('b-')
        if (!one.isFile() || isSmallPiece) continue
        const { size, blocks } = statSync(join(one.parentPath, one.name))
        sum += Math.min(size, blocks * 512)
      }
      return sum
    }

    function isWhole({ arenas }: StatusResult): boolean {
      return arenas.some(one => one.files >= 2_002 && one.needFiles === 0)
    }

    function assertWritten(root: string, written: Tree): void {
      // While it comes in: whatever is at a path is exactly what was written.
      for (const [path, line] of treeOf(root)) if (written.get(path) !== line) t.is(line, written.get(path)!, path)
    }
  },
)

test.serial('a connection that is reset in mid-frame again and again resumes where it was', async t => {
  const household = new Household(t)
  const [alice, bob, relay] = await household.relayed(t)
  const before = relay.fromTarget
  relay.cutEvery(3_333_333, 5)
  makeTree(household.root(alice), { large: randomBytesFrom(20, LARGE_BYTES / 2), note: 'text' })
  for (let cut = 1; cut <= 5; cut++) {
    await bob.until('is cut off', status => relay.cuts >= cut && status.peers[0]!.state !== 'connected')
    // Without the pause that it makes after each failure.
    await bob.call('peer_connect', { name: 'alice' })
  }
  await household.together([alice, bob])
  await household.same(t)
  t.is(relay.cuts, 5)
  t.true(relay.fromTarget - before < 1.5 * (LARGE_BYTES / 2), `${relay.fromTarget - before} bytes received`)
  t.deepEqual(household.staged(bob), [])
})

test.serial('kill -9 while both sides edit loses no edit', async t => {
  t.timeout(120_000)
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  const random = randomFrom(SEED + 1)
  const last = new Map<string, string>()
  for (let round = 0; round < 8; round++) {
    for (const peer of [alice, bob])
      for (let i = 0; i < 25; i++) {
        const path = `${peer.name}/${Math.floor(random() * 40)}`
        const text = `round ${round}, ${i}, ${'x'.repeat(Math.floor(random() * 200))}`
        makeTree(household.root(peer), { [path]: text })
        last.set(path, text)
      }
    const victim = random() < 0.5 ? alice : bob
    await moment(random() * 200)
    await victim.kill()
    makeTree(household.root(victim), { [`${victim.name}/while-dead-${round}`]: `round ${round}` })
    last.set(`${victim.name}/while-dead-${round}`, `round ${round}`)
    await victim.start()
  }
  await household.together([alice, bob])
  const tree = await household.same(t)
  for (const [path, text] of last) t.is(readFileSync(join(household.root(bob), path), 'utf8'), text, path)
  t.deepEqual(
    [...tree.keys()].filter(path => path.includes('.conflict-')),
    [],
  )
})

test.serial('any worker thread that dies is started again, and sync goes on', async t => {
  t.timeout(120_000)
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  makeTree(household.root(alice), { note: 'start' })
  await household.same(t)
  const names = (await bob.call('status', {})).actors
    .filter(actor => actor.thread !== null && actor.thread > 0)
    .map(actor => actor.name)
  t.true(
    names.some(name => name.includes('arena')),
    JSON.stringify(names),
  )
  t.true(
    names.some(name => name.includes('peer')),
    JSON.stringify(names),
  )
  const { pid } = bob
  for (const [index, name] of names.entries()) {
    const restarts = (await bob.call('status', {})).actors.find(actor => actor.name === name)!.restarts
    writeFileSync(join(household.root(alice), `before ${index}`), randomBytesFrom(index, 3_000_000))
    await bob.call('debug_kill_thread', { name })
    writeFileSync(join(household.root(bob), `after ${index}`), `after the death of ${name}`)
    await bob.until(`has restarted ${name}`, status =>
      status.actors.some(actor => actor.name === name && actor.restarts > restarts && actor.thread !== null),
    )
    await household.together([alice, bob])
    const tree = await household.same(t)
    t.true(tree.has(`before ${index}`) && tree.has(`after ${index}`), name)
  }
  t.is(bob.pid, pid)
})

/** The folder of the arena's store, below the state folder. */
function storeOf(peer: Peer): string {
  const found = readdirSync(join(peer.home, 'state'), { recursive: true, withFileTypes: true }).find(
    one => one.isDirectory() && one.name === 'docs',
  )
  if (!found) throw new Error(`no store of docs below ${peer.home}/state: ${readdirSync(join(peer.home, 'state'))}`)
  return join(found.parentPath, found.name)
}

test.serial(
  'a store that is deleted is made again from what is on the disk, without loss and without conflicts',
  async t => {
    const household = new Household(t)
    const [alice, bob] = await household.couple()
    const files = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`folder ${i % 5}/${i}`, `text ${i}`]))
    makeTree(household.root(alice), {
      ...files,
      run: { run: '#!/bin/sh\n' },
      link: { link: 'run' },
      'to be deleted': 'x',
    })
    await household.same(t)
    await bob.stop()
    rmSync(storeOf(bob), { recursive: true })
    writeFileSync(join(household.root(bob), 'made while it was away'), 'by bob')
    writeFileSync(join(household.root(alice), 'folder 0/0'), 'edited by alice meanwhile')
    rmSync(join(household.root(alice), 'to be deleted'))
    await bob.start()
    await household.together([alice, bob])
    const tree = await household.same(t)
    t.is(readFileSync(join(household.root(alice), 'made while it was away'), 'utf8'), 'by bob')
    t.is(readFileSync(join(household.root(bob), 'folder 0/0'), 'utf8'), 'edited by alice meanwhile')
    t.false(tree.has('to be deleted'), 'a deleted file came back')
    const copies = [...tree.keys()].filter(path => path.includes('.conflict-'))
    t.true(
      copies.every(path => path.startsWith('folder 0/0.conflict-')),
      copies.join(', '),
    )
  },
)

test.serial('a store that is restored from an older copy loses nothing', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  const files = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`${i}`, `text ${i}`]))
  makeTree(household.root(alice), files)
  await household.same(t)
  await bob.stop()
  const older = join(household.folder, 'older')
  cpSync(storeOf(bob), older, { recursive: true })
  await bob.start()
  await household.together([alice, bob])
  for (let i = 0; i < 10; i++) writeFileSync(join(household.root(bob), `${i}`), `edited by bob ${i}`)
  for (let i = 10; i < 20; i++) rmSync(join(household.root(bob), `${i}`))
  for (let i = 0; i < 10; i++) writeFileSync(join(household.root(bob), `new ${i}`), `new by bob ${i}`)
  await household.same(t)

  await bob.stop()
  const store = storeOf(bob)
  rmSync(store, { recursive: true })
  cpSync(older, store, { recursive: true })
  for (let i = 20; i < 30; i++) writeFileSync(join(household.root(bob), `${i}`), `edited after the restore ${i}`)
  await bob.start()
  await household.together([alice, bob])
  const tree = await household.same(t)
  const texts = new Set([...tree.keys()].map(path => readFileSync(join(household.root(alice), path), 'utf8')))
  for (let i = 0; i < 10; i++) t.true(texts.has(`edited by bob ${i}`) && texts.has(`new by bob ${i}`), `lost ${i}`)
  for (let i = 10; i < 20; i++) t.false(tree.has(`${i}`), `${i} came back`)
  for (let i = 20; i < 30; i++) t.true(texts.has(`edited after the restore ${i}`), `lost ${i}`)
  for (let i = 30; i < 60; i++) t.true(texts.has(`text ${i}`), `lost ${i}`)
  // Sync goes on from there in both directions.
  writeFileSync(join(household.root(bob), 'later'), 'by bob')
  writeFileSync(join(household.root(alice), '40'), 'by alice, later')
  await household.same(t)
  t.is(readFileSync(join(household.root(bob), '40'), 'utf8'), 'by alice, later')
  t.is((await bob.call('ls', { arena: arenaName('docs'), path: 'later' })).entries.length, 1)
})

/** Chooses the moment of a kill; nothing waits for it to be long enough. */
function moment(ms: number): Promise<void> {
  const signal = AbortSignal.timeout(Math.ceil(ms))
  return new Promise(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))
}
