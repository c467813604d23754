/** What a peer with a valid key can do with content: ask for what is not its own, send what does not fit, send nothing. */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { hashLeaves, hashSmall, rootOf } from '../../actors/hasher/merkle.ts'
import { FILE_BYTES_MAX, LEAF_BYTES } from '../../protocol/limits.ts'
import { arenaName } from '../system/_household.ts'
import { Stage, until } from './_stage.ts'

const cleanings: (() => unknown)[] = []
let stage: Stage

test.before(async () => {
  stage = await Stage.open({ teardown: undo => cleanings.unshift(undo) })
})
test.after.always(async () => {
  for (const undo of cleanings) await undo()
})

test.serial('content of an arena that is not shared with it is not to be had, by whatever way it asks', async t => {
  const { alice } = stage
  const secret = randomBytes(1000)
  const root = join(stage.household.folder, 'private')
  mkdirSync(root)
  writeFileSync(join(root, 'secret'), secret)
  alice.editConfig(text => `${text}\n[[arenas]]\nname = "private"\npath = "${root}"\npeers = ["bob"]\n`)
  await alice.call('config_reload', {})
  await alice.untilArena('has looked', 'private', status => status.files === 1)
  const { mallory } = await stage.guest()
  const hash = hashSmall(secret)
  mallory.say({ type: 'fetch_blobs', arena: 'private', id: 1, hashes: [hash] })
  t.like(await mallory.hears('fetch_failed', one => one.id === 1), { code: 'arena_unknown' })
  mallory.say({ type: 'fetch_blobs', arena: 'docs', id: 2, hashes: [hash] })
  t.like(await mallory.hears('pack', one => one.id === 2), { sizes: [-1] })
  mallory.say({ type: 'fetch_leaves', arena: 'docs', id: 3, hash, from: 0, count: 1, urgent: true })
  t.like(await mallory.hears('fetch_failed', one => one.id === 3), { code: 'blob_missing' })
  mallory.say({ type: 'fetch_tree', arena: 'docs', id: 4, hash, group: null })
  t.like(await mallory.hears('fetch_failed', one => one.id === 4), { code: 'blob_missing' })
  // To say that it has the arena opens nothing, and neither does a feed.
  mallory.sayOpen('private')
  mallory.say({ type: 'arena_probe', arena: 'private', probe: 1 })
  t.like(await mallory.hears('arena_close', one => one.arena === 'private'), { code: 'arena_unknown' })
  // Nor does an entry of its own with that hash: it is asked for the content, it does not get it.
  const reader = mallory.heard.find(one => one.type === 'arena_open')?.replica as string
  mallory.feed(reader, [mallory.entry('mine', { type: 'file', size: 1000, mtime: '1', exec: false, hash })])
  mallory.say({ type: 'fetch_blobs', arena: 'docs', id: 5, hashes: [hash] })
  t.like(await mallory.hears('pack', one => one.id === 5), { sizes: [-1] })
  t.true(mallory.heard.every(one => one.type !== 'arena_open' || one.arena === 'docs'))
  mallory.feed(reader, [mallory.entry('mine', { type: 'gone', vector: [[mallory.replica, 2]], g: 2 })])
  await mallory.acknowledged(2)
  await mallory.leave()
  await alice.call('arena_remove', { name: arenaName('private') })
})

test.serial('content of an arena that is not shared with it is not to be had by announcing it', async t => {
  const { alice, household } = stage
  const secret = randomBytes(LEAF_BYTES * 20)
  const leaves = hashLeaves(secret)
  const hash = rootOf(secret.length, leaves)
  const root = join(household.folder, 'vault')
  mkdirSync(root)
  writeFileSync(join(root, 'secret'), secret)
  alice.editConfig(text => `${text}\n[[arenas]]\nname = "vault"\npath = "${root}"\npeers = ["bob"]\n`)
  await alice.call('config_reload', {})
  await alice.untilArena('has looked', 'vault', status => status.files === 1)
  // It knows all hashes, and lacks only the content.
  const { mallory, reader } = await stage.guest()
  mallory.onRequest = ({ type, arena, id }) => {
    if (type === 'fetch_tree') mallory.say({ type: 'tree', arena, id }, leaves)
    else if (type === 'fetch_leaves')
      mallory.say({ type: 'fetch_failed', arena, id, code: 'blob_missing', reason: 'not here' })
    return type === 'fetch_tree' || type === 'fetch_leaves'
  }
  const entry = (path: string) =>
    mallory.entry(path, { type: 'file', size: secret.length, mtime: '1', exec: false, hash })
  mallory.feed(reader, [entry('announced')])
  await alice.untilArena('cannot have it', 'docs', status =>
    status.problems.some(one => one.path === 'announced' && one.reason === 'none of the connected peers has it now'),
  )
  t.false(existsSync(join(stage.root, 'announced')))
  mallory.say({ type: 'fetch_tree', arena: 'docs', id: 6, hash, group: null })
  t.like(await mallory.hears('fetch_failed', one => one.id === 6), { code: 'blob_missing' })
  mallory.say({ type: 'fetch_leaves', arena: 'docs', id: 7, hash, from: 0, count: 1, urgent: true })
  t.like(await mallory.hears('fetch_failed', one => one.id === 7), { code: 'blob_missing' })
  // Once the arena is shared with it, its word is enough: nothing else kept the content from it.
  alice.editConfig(text =>
    text.replace(`path = "${root}"\npeers = ["bob"]`, `path = "${root}"\npeers = ["bob", "mallory"]`),
  )
  await alice.call('config_reload', {})
  mallory.feed(reader, [entry('allowed')])
  const allowed = join(stage.root, 'allowed')
  await until('the content is borrowed', 30_000, () => existsSync(allowed))
  t.true(readFileSync(allowed).equals(secret))
  await mallory.leave()
  await alice.call('arena_remove', { name: arenaName('vault') })
  await stage.undisturbed()
})

test.serial('an arena that is taken from a peer is closed to it at once', async t => {
  const { alice } = stage
  const { mallory } = await stage.guest()
  alice.editConfig(text => text.replace('name = "docs"', 'name = "docs"\npeers = ["bob"]'))
  await alice.call('config_reload', {})
  await mallory.refused()
  const again = await stage.mallory()
  again.sayOpen('docs')
  again.say({ type: 'arena_probe', arena: 'docs', probe: 1 })
  t.like(await again.hears('arena_close'), { code: 'arena_unknown' })
  await again.leave()
  alice.editConfig(text => text.replace('name = "docs"\npeers = ["bob"]', 'name = "docs"'))
  await alice.call('config_reload', {})
  await stage.undisturbed()
})

test.serial('content that does not fit its hash is refused, whole or in leaves, and never reaches a path', async t => {
  const before = stage.cost()
  const { mallory, reader } = await stage.guest()
  const small = Buffer.from('what was announced')
  const large = randomBytes(LEAF_BYTES * 20)
  const leaves = hashLeaves(large)
  mallory.onRequest = request => {
    const { type, arena, id } = request
    if (type === 'fetch_blobs') {
      const wrong = (request.hashes as string[]).map(() => Buffer.alloc(small.length, 'x'))
      mallory.say({ type: 'pack', arena, id, sizes: wrong.map(one => one.length) }, Buffer.concat(wrong))
    } else if (type === 'fetch_tree') mallory.say({ type: 'tree', arena, id }, leaves)
    else {
      const from = request.from as number
      mallory.say({ type: 'leaves', arena, id, from, count: 1 }, Buffer.alloc(LEAF_BYTES, 1))
    }
    return true
  }
  mallory.feed(reader, [
    mallory.entry('small', { type: 'file', size: small.length, mtime: '1', exec: false, hash: hashSmall(small) }),
    mallory.entry('large', {
      type: 'file',
      size: large.length,
      mtime: '1',
      exec: false,
      hash: rootOf(large.length, leaves),
    }),
  ])
  await stage.logged('blob_invalid', { hash: hashSmall(small) })
  await stage.logged('blob_invalid', { reason: 'does not fit its hash' })
  const status = await stage.alice.untilArena('says why', 'docs', arena =>
    ['small', 'large'].every(path => arena.problems.some(problem => problem.path === path)),
  )
  for (const path of ['small', 'large']) {
    t.is(status.problems.find(problem => problem.path === path)?.reason, 'none of the connected peers has it now')
    t.false(existsSync(join(stage.root, path)))
  }
  await mallory.leave()
  await stage.unharmed(t, before)
})

test.serial('answers that are too short, too long or too many are refused', async t => {
  const before = stage.cost()
  const large = randomBytes(LEAF_BYTES * 20)
  const leaves = hashLeaves(large)
  const hash = rootOf(large.length, leaves)
  const answers: [string, string | null, (arena: string, id: number) => [Record<string, unknown>, Uint8Array]][] = [
    [
      'a leaf that is short',
      'message_invalid',
      (arena, id) => [{ type: 'leaves', arena, id, from: 0, count: 1 }, large.subarray(0, 1000)],
    ],
    [
      'leaves that are long',
      'message_invalid',
      (arena, id) => [{ type: 'leaves', arena, id, from: 0, count: 1 }, large.subarray(0, LEAF_BYTES + 1)],
    ],
    [
      'leaves out of order',
      'message_invalid',
      (arena, id) => [{ type: 'leaves', arena, id, from: 1, count: 1 }, large.subarray(LEAF_BYTES, 2 * LEAF_BYTES)],
    ],
    [
      'leaves beyond the end',
      'message_invalid',
      (arena, id) => [{ type: 'leaves', arena, id, from: 19, count: 8 }, large.subarray(0, LEAF_BYTES * 8)],
    ],
    [
      'more leaves than a message may have',
      'message_invalid',
      (arena, id) => [{ type: 'leaves', arena, id, from: 0, count: 9 }, large.subarray(0, LEAF_BYTES * 9)],
    ],
    [
      'a pack for leaves',
      'message_invalid',
      (arena, id) => [{ type: 'pack', arena, id, sizes: [5] }, large.subarray(0, 5)],
    ],
    [
      'a payload over the limit',
      'limit_exceeded',
      (arena, id) => [{ type: 'leaves', arena, id, from: 0, count: 8 }, Buffer.alloc(2 * 1024 * 1024 + 1)],
    ],
  ]
  for (const [what, code, answer] of answers) {
    const { mallory, reader } = await stage.guest()
    mallory.onRequest = request => {
      const { type, arena, id } = request
      if (type === 'fetch_tree') mallory.say({ type: 'tree', arena, id }, leaves)
      else if (type === 'fetch_leaves') mallory.say(...answer(arena as string, id as number))
      return true
    }
    mallory.feed(reader, [mallory.entry('odd', { type: 'file', size: large.length, mtime: '1', exec: false, hash })])
    t.is(await mallory.refused(), code, what)
  }
  t.false(existsSync(join(stage.root, 'odd')))
  await stage.unharmed(t, before)
})

test.serial(
  'sizes that do not fit cost nothing: a tree that is too small, a pack that lies, a file of two tebibytes',
  async t => {
    const before = stage.cost()
    const { mallory, reader } = await stage.guest()
    const hash = randomBytes(32).toString('hex')
    const asked = new Set<string>()
    mallory.onRequest = request => {
      const { type, arena, id } = request
      asked.add(type)
      if (type === 'fetch_tree') mallory.say({ type: 'tree', arena, id }, Buffer.alloc(32 * 4096, 7))
      // The sizes say more than the payload holds.
      else if (type === 'fetch_blobs')
        mallory.say(
          { type: 'pack', arena, id, sizes: (request.hashes as string[]).map(() => 131_072) },
          Buffer.alloc(10),
        )
      return true
    }
    mallory.feed(reader, [
      mallory.entry('huge', { type: 'file', size: FILE_BYTES_MAX, mtime: '1', exec: false, hash }),
      mallory.entry('tiny', { type: 'file', size: 100_000, mtime: '1', exec: false, hash: hash.replace(/./, 'a') }),
    ])
    await stage.alice.untilArena('says why', 'docs', arena =>
      ['huge', 'tiny'].every(path => arena.problems.some(problem => problem.path === path)),
    )
    t.true(asked.has('fetch_blobs') && asked.has('fetch_tree'))
    t.false(existsSync(join(stage.root, 'huge')))
    t.false(existsSync(join(stage.root, 'tiny')))
    // More than a file may have is no entry.
    mallory.feed(reader, [
      mallory.entry('vast', { type: 'file', size: FILE_BYTES_MAX + 1, mtime: '1', exec: false, hash }),
    ])
    t.is(await mallory.refused(), 'message_invalid')
    await stage.unharmed(t, before, 250)
  },
)

test.serial('one leaf that thousands of files share is asked for once', async t => {
  const before = stage.cost()
  const { mallory, reader } = await stage.guest()
  const content = Buffer.from('the same in each of them')
  const files = 3_000
  let asked = 0
  mallory.onRequest = request => {
    if (request.type === 'fetch_blobs') asked += (request.hashes as string[]).length
    return false
  }
  let most = 0
  for (let file = 0; file < files; file += 1000) {
    const entries = Array.from({ length: 1000 }, (_, i) => mallory.file(`shared/${file + i}`, content))
    if (!mallory.feed(reader, entries)) await mallory.drained()
    most = Math.max(most, stage.cost().rssMiB)
  }
  const there = () => (existsSync(join(stage.root, 'shared')) ? readdirSync(join(stage.root, 'shared')).length : 0)
  await until(
    () => `all are there: ${there()}`,
    90_000,
    () => there() === files,
  )
  t.is(readFileSync(join(stage.root, 'shared/777'), 'utf8'), content.toString())
  t.is(statSync(join(stage.root, 'shared/777')).nlink, 1, 'they are files of their own')
  t.true(asked < 50, `asked ${asked} times`)
  t.true(most - before.rssMiB < 250, `${most} MiB`)
  await mallory.leave()
  await stage.unharmed(t, before, 250)
})

test.serial('who announces thousands of files and never answers keeps nobody else from being answered', async t => {
  const before = stage.cost()
  const { mallory, reader } = await stage.guest()
  let asked = 0
  mallory.onRequest = () => {
    asked++
    return true
  }
  const more = { type: 'file', size: 10, mtime: '1', exec: false }
  for (let batch = 0; batch < 5; batch++) {
    mallory.feed(
      reader,
      Array.from({ length: 1000 }, (_, i) =>
        mallory.entry(`a-promise/${batch}-${i}`, { ...more, hash: randomBytes(32).toString('hex') }),
      ),
    )
  }
  await mallory.acknowledged(mallory.fed)
  await until('it is asked', 20_000, () => asked >= 4)
  const ms = await stage.undisturbed()
  t.log(`an edit took ${Math.round(ms)} ms with 5,000 promises open`)
  await mallory.leave()
  await stage.undisturbed()
  await stage.unharmed(t, before)
})

test.serial('who announces thousands of files and has none of them keeps nobody else from being answered', async t => {
  const before = stage.cost()
  const { mallory, reader } = await stage.guest()
  const more = { type: 'file', size: 10, mtime: '1', exec: false }
  for (let batch = 0; batch < 5; batch++) {
    mallory.feed(
      reader,
      Array.from({ length: 1000 }, (_, i) =>
        mallory.entry(`b-promise/${batch}-${i}`, { ...more, hash: randomBytes(32).toString('hex') }),
      ),
    )
  }
  await mallory.acknowledged(mallory.fed)
  await stage.alice.untilArena('says why', 'docs', arena => arena.problemCount > 1000)
  const ms = await stage.undisturbed()
  t.log(`an edit took ${Math.round(ms)} ms with 5,000 empty promises`)
  await mallory.leave()
  await stage.unharmed(t, before)
})
