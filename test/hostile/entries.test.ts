/** What a peer with a valid key can say about files: names that lead astray, versions that cannot be, numbers out of range. */
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { COUNT_MAX, GENERATION_MAX, VECTOR_MAX } from '../../protocol/limits.ts'
import { arenaName } from '../system/_household.ts'
import type { Header, Hostile } from './_hostile.ts'
import { Stage, until } from './_stage.ts'

const cleanings: (() => unknown)[] = []
let stage: Stage

test.before(async () => {
  stage = await Stage.open({ teardown: undo => cleanings.unshift(undo) })
})
test.after.always(async () => {
  for (const undo of cleanings) await undo()
})

/** Each of these entries, sent alone, ends the connection with this code, and nothing of it reaches the disk or the index. */
const breaches: [string, string, (mallory: Hostile) => Header][] = [
  ['`..` in a path', 'path_invalid', mallory => mallory.file('../outside', 'x')],
  ['`..` in the middle of a path', 'path_invalid', mallory => mallory.file('a/../../outside', 'x')],
  ['`.` in a path', 'path_invalid', mallory => mallory.file('./x', 'x')],
  ['an absolute path', 'path_invalid', mallory => mallory.file('/etc/hostile', 'x')],
  ['an empty name', 'path_invalid', mallory => mallory.file('a//b', 'x')],
  ['a slash at the end', 'path_invalid', mallory => mallory.file('a/', 'x')],
  ['a NUL in a path', 'path_invalid', mallory => mallory.file('a\0b', 'x')],
  ['half a character', 'path_invalid', mallory => mallory.file('a\ud800b', 'x')],
  ['an empty path', 'message_invalid', mallory => mallory.file('', 'x')],
  ['a name of 256 bytes', 'path_invalid', mallory => mallory.file('x'.repeat(256), 'x')],
  ['a name of 256 bytes in fewer characters', 'path_invalid', mallory => mallory.file('ü'.repeat(128), 'x')],
  ['a path 10,000 folders deep', 'message_invalid', mallory => mallory.file(`${'d/'.repeat(10_000)}x`, 'x')],
  ['a path 257 folders deep', 'path_invalid', mallory => mallory.file(`${'d/'.repeat(256)}x`, 'x')],
  [
    'a path of 1,901 bytes',
    'path_invalid',
    mallory => mallory.file(`${`${'ü'.repeat(100)}/`.repeat(9)}${'ü'.repeat(46)}`, 'x'),
  ],
  ['our own folder', 'path_invalid', mallory => mallory.file('.realize/marker', 'x')],
  [
    'our own folder as a link',
    'path_invalid',
    mallory => mallory.entry('.realize', { type: 'symlink', target: '/tmp' }),
  ],
  ['our own folder in capitals', 'path_invalid', mallory => mallory.file('.REALIZE/staging/x', 'x')],
  ['our own folder with a joiner in it', 'path_invalid', mallory => mallory.file('.reali\u200cze/x', 'x')],
  ['our own folder with a shaping mark in it', 'path_invalid', mallory => mallory.file('.reali\u206aze/x', 'x')],
  ['our own folder in wide letters', 'path_invalid', mallory => mallory.file('\uff0erealize/x', 'x')],
  ['our own folder with a dot that Windows drops', 'path_invalid', mallory => mallory.file('.realize./x', 'x')],
  ['our own folder with a space that Windows drops', 'path_invalid', mallory => mallory.file('.realize /x', 'x')],
  ['our own folder as a stream of NTFS', 'path_invalid', mallory => mallory.file('.realize::$INDEX_ALLOCATION/x', 'x')],
  ['our own folder by its short name', 'path_invalid', mallory => mallory.file('REALIZ~1/x', 'x')],
  ['an mtime of 10¹⁸ seconds', 'message_invalid', mallory => mallory.file('t', 'x', { mtime: `${10 ** 18}000000000` })],
  ['an mtime of −10¹⁸', 'message_invalid', mallory => mallory.file('t', 'x', { mtime: '-1000000000000000000000' })],
  [
    'an mtime of −9·10¹⁸ nanoseconds',
    'message_invalid',
    mallory => mallory.file('t', 'x', { mtime: '-9000000000000000000' }),
  ],
  ['an mtime that is no number', 'message_invalid', mallory => mallory.file('t', 'x', { mtime: '0x10' })],
  ['a size of −1', 'message_invalid', mallory => mallory.file('t', 'x', { size: -1 })],
  ['a size of 2⁵³', 'message_invalid', mallory => mallory.file('t', 'x', { size: 2 ** 53 })],
  ['a size that is no whole number', 'message_invalid', mallory => mallory.file('t', 'x', { size: 1.5 })],
  ['a file without a hash', 'message_invalid', mallory => mallory.file('t', 'x', { hash: undefined })],
  ['a hash that is none', 'message_invalid', mallory => mallory.file('t', 'x', { hash: 'G'.repeat(64) })],
  ['a link without a target', 'message_invalid', mallory => mallory.entry('l', { type: 'symlink' })],
  [
    'a link with a NUL in its target',
    'message_invalid',
    mallory => mallory.entry('l', { type: 'symlink', target: 'a\0' }),
  ],
  ['a type that we do not know', 'message_invalid', mallory => mallory.entry('l', { type: 'device' })],
  ['a version of 10⁶ replicas', 'limit_exceeded', mallory => mallory.file('v', 'x', { vector: replicas(1_000_000) })],
  [
    'a version of a replica more than may be',
    'message_invalid',
    mallory => mallory.file('v', 'x', { vector: replicas(VECTOR_MAX + 1) }),
  ],
  ['a count of 2⁵³', 'message_invalid', mallory => mallory.file('v', 'x', { vector: [[mallory.replica, 2 ** 53]] })],
  [
    'a count over the limit',
    'message_invalid',
    mallory => mallory.file('v', 'x', { vector: [[mallory.replica, COUNT_MAX + 1]] }),
  ],
  ['a count of −1', 'message_invalid', mallory => mallory.file('v', 'x', { vector: [[mallory.replica, -1]] })],
  ['a count of 0', 'message_invalid', mallory => mallory.file('v', 'x', { vector: [[mallory.replica, 0]] })],
  ['a vector out of order', 'message_invalid', mallory => mallory.file('v', 'x', { vector: replicas(3).reverse() })],
  [
    'a replica twice',
    'message_invalid',
    mallory => mallory.file('v', 'x', { vector: [...replicas(1), ...replicas(1)] }),
  ],
  ['a version without a replica', 'message_invalid', mallory => mallory.file('v', 'x', { vector: [] })],
  ['a generation greater than its changes', 'message_invalid', mallory => mallory.file('v', 'x', { g: 1_000_000 })],
  ['a generation over the limit', 'message_invalid', mallory => mallory.file('v', 'x', { g: GENERATION_MAX + 1 })],
  ['a generation of a third', 'message_invalid', mallory => mallory.file('v', 'x', { g: 1 / 3 })],
  ['an author with an escape', 'message_invalid', mallory => mallory.file('v', 'x', { author: '\u001b[2J///' })],
]

function replicas(count: number): [string, number][] {
  return Array.from({ length: count }, (_, i) => [(i + 1).toString(16).padStart(16, '0'), 1])
}

test.serial('an entry that must not be ends the connection with its reason, and leaves nothing', async t => {
  const before = stage.cost()
  const names = readdirSync(stage.root).sort()
  for (const [what, code, entry] of breaches) {
    const { mallory, reader } = await stage.guest()
    mallory.feed(reader, [
      mallory.file('beside', 'not taken either: a batch is taken whole or not at all'),
      entry(mallory),
    ])
    t.is(await mallory.refused(), code, what)
  }
  t.deepEqual(readdirSync(stage.root).sort(), names)
  t.false(existsSync('/etc/hostile'))
  t.false(existsSync(join(stage.root, '..', 'outside')))
  t.true((await stage.alice.call('ls', { arena: arenaName('docs') })).entries.every(entry => entry.path !== 'beside'))
  await stage.unharmed(t, before)
})

test.serial('a backslash is a letter here, and leads nowhere', async t => {
  const { mallory, reader } = await stage.guest()
  mallory.feed(reader, [mallory.file('..\\..\\outside', 'x'), mallory.file('C:\\windows', 'x')])
  await until(
    'both are in the root',
    30_000,
    () => existsSync(join(stage.root, '..\\..\\outside')) && existsSync(join(stage.root, 'C:\\windows')),
  )
  t.deepEqual(
    readdirSync(join(stage.root, '..')).filter(name => name.includes('outside')),
    [],
  )
  await mallory.leave()
})

test.serial('a path through a symlink that it has just sent stays in the root', async t => {
  const outside = join(stage.household.folder, 'outside')
  mkdirSync(outside)
  writeFileSync(join(outside, 'passwd'), 'untouched')
  const { mallory, reader } = await stage.guest()
  // The link first; then, when it is there, a file below it; then both in one batch; then the link after the file.
  mallory.feed(reader, [mallory.entry('x', { type: 'symlink', target: outside })])
  await until('the link is there', 30_000, () => isLink(join(stage.root, 'x')))
  mallory.feed(reader, [mallory.file('x/passwd', 'written through a link')])
  mallory.feed(reader, [
    mallory.entry('y', { type: 'symlink', target: outside }),
    mallory.file('y/passwd', 'written through a link'),
    mallory.file('y/new', 'written through a link'),
  ])
  mallory.feed(reader, [mallory.file('z/passwd', 'first a file')])
  mallory.feed(reader, [mallory.entry('z', { type: 'symlink', target: outside })])
  await mallory.acknowledged(mallory.fed)
  // What lives below makes its path a folder; the link becomes a conflict copy of its own.
  const places = ['x/passwd', 'y/passwd', 'y/new', 'z/passwd'].map(path => join(stage.root, path))
  await until('the files are in folders of the root', 40_000, () =>
    places.every(place => existsSync(place) && !isLink(join(place, '..'))),
  )
  t.deepEqual(readdirSync(outside), ['passwd'])
  t.is(readFileSync(join(outside, 'passwd'), 'utf8'), 'untouched')
  await mallory.leave()
  await stage.undisturbed()
})

test.serial('entries that lie in wait for others are told to nobody, and nobody is disconnected for them', async t => {
  const { alice, bob } = stage
  const { mallory, reader } = await stage.guest()
  // As many replicas as may be: who edits it makes one more. As long a link and as many escapes as may be: a batch of them is large.
  const crowded = mallory.file('crowded', 'as sent', { vector: replicas(VECTOR_MAX), g: 1 })
  mallory.feed(reader, [crowded])
  const long = `${'\u0001'.repeat(200)}/`.repeat(9)
  for (let batch = 0; batch < 4; batch++) {
    mallory.feed(
      reader,
      Array.from({ length: 50 }, (_, i) =>
        mallory.entry(`${long}${batch}-${i}`, { type: 'symlink', target: '\u0002'.repeat(4000) }),
      ),
    )
  }
  await mallory.acknowledged(mallory.fed)
  const place = join(stage.root, 'crowded')
  const there = join(stage.household.root(bob), 'crowded')
  await until('it is at both', 30_000, () => existsSync(place) && existsSync(there))
  await mallory.leave()
  writeFileSync(place, 'edited by alice')
  await alice.untilArena('says that it cannot be told', 'docs', arena =>
    arena.problems.some(problem => problem.path === 'crowded' && problem.reason.includes('not told to peers')),
  )
  await stage.undisturbed()
  t.is(readFileSync(there, 'utf8'), 'as sent')
  t.is((await bob.call('status', {})).peers[0]?.state, 'connected')
  t.false(alice.lines.some(line => line.includes('peer_refused') && line.includes('bob')))
  // The way out that the problem names.
  renameSync(place, `${place}-renamed`)
  await until('the renamed one travels', 30_000, () => existsSync(`${there}-renamed`))
})

test.serial('a count of our own that we have not made is no reason to lose what a user writes next', async t => {
  const { mallory, reader } = await stage.guest()
  mallory.feed(reader, [mallory.file('ours', 'mallory, in our name', { vector: [[reader, COUNT_MAX - 1]], g: 1 })])
  // Alice begins anew under another name, and then the count is of somebody who will never count again.
  const again = await mallory.hears('arena_open', one => one.replica !== reader)
  await stage.logged('arena_replica_fresh')
  mallory.sayOpen('docs', { knows: again.session, again: true })
  mallory.feed(
    again.replica as string,
    [mallory.file('ours', 'mallory, in our name', { vector: [[reader, COUNT_MAX - 1]], g: 1 })],
    { from: 0, to: 2 },
  )
  const place = join(stage.root, 'ours')
  await until('it is there', 30_000, () => existsSync(place))
  writeFileSync(place, 'what alice wrote')
  const there = join(stage.household.root(stage.bob), 'ours')
  await until(
    'her edit is at bob',
    30_000,
    () => existsSync(there) && readFileSync(there, 'utf8') === 'what alice wrote',
  )
  t.is(readFileSync(place, 'utf8'), 'what alice wrote')
  await mallory.leave()
})

test.serial('who makes this store begin anew again and again is shown the door', async t => {
  const { mallory, reader } = await stage.guest()
  for (let replica: string = reader, round = 0; round < 20; round++) {
    mallory.say({ type: 'rolled_back', arena: 'docs', replica })
    const next = await Promise.race([mallory.hears('arena_open', one => one.replica !== replica), mallory.ended])
    if (next === null || !('replica' in next)) break
    replica = next.replica as string
  }
  t.is(await mallory.refused(), 'limit_exceeded')
  t.true((await stage.undisturbed()) >= 0)
})

function isLink(place: string): boolean {
  return lstatSync(place, { throwIfNoEntry: false })?.isSymbolicLink() ?? false
}
