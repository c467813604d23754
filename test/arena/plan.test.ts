/** The table of cases of docs/reconciliation.md: what must be done so that the disk shows what is known. */
import test from 'ava'
import { loses, needsCopy, type Work, workFor } from '../../actors/arena/plan.ts'
import { type Entry, NO_STAMP } from '../../actors/arena/store.ts'
import type { Content, Version } from '../../actors/arena/version.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { file, gone, hash, version } from './_versions.ts'

const dir: Content = { type: 'dir' }
const link: Content = { type: 'symlink', target: 'x' }
const otherLink: Content = { type: 'symlink', target: 'y' }

function entry(known: Version, have: Version | null, dormant = false): Entry {
  return {
    path: 'p' as EntryPath,
    seq: 1,
    known,
    have,
    stamp: have === null ? null : NO_STAMP,
    dormant,
    origin: null,
    pending: known !== have,
    announced: false,
    former: null,
  }
}

/** `known` includes `have`. */
function after(have: Content | null, known: Content, dormant = false): Entry {
  return entry(version(known, { 1: 2 }, 2), have && version(have, { 1: 1 }, 1), dormant)
}

/** Neither includes the other, and `known` has won. */
function against(have: Content, known: Content): Entry {
  return entry(version(known, { 2: 2 }, 3), version(have, { 1: 1 }, 1))
}

const work = test.macro({
  exec(t, what: Entry, expected: Work, copied?: boolean) {
    t.deepEqual(workFor(what, 'keep-both', true), expected)
    t.deepEqual(workFor(what, 'newest', true), expected)
    t.is(needsCopy(what), copied ?? false)
  },
  title: title => `work: ${title}`,
})

const a = file('a')
const b = file('b')
const aLater = file('a', { mtimeNs: 2_000_000_000n })
const aRuns = file('a', { exec: true })

test('what is here already', work, entry(version(a, { 1: 1 }, 1), null), { do: 'file', content: a })
test('a file over nothing', work, after(null, a), { do: 'file', content: a })
test('a file over what was deleted', work, after(gone, a), { do: 'file', content: a })
test('a file over its older version', work, after(a, b), { do: 'file', content: b })
test('a file over a link', work, after(link, a), { do: 'file', content: a })
test('a file over a folder', work, after(dir, a), { do: 'file', content: a })
test('the same bytes, later', work, after(a, aLater), { do: 'meta', content: aLater })
test('the same bytes, to be run', work, after(a, aRuns), { do: 'meta', content: aRuns })
test('the same file under another version', work, after(a, a), { do: 'nothing' })
test('a folder over nothing', work, after(null, dir), { do: 'folder', over: false })
test('a folder over a file', work, after(a, dir), { do: 'folder', over: true })
test('a folder over a link', work, after(link, dir), { do: 'folder', over: true })
test('a folder over a folder', work, after(dir, dir), { do: 'nothing' })
test('a link over nothing', work, after(null, link), { do: 'link', content: { type: 'symlink', target: 'x' } })
test('a link over another', work, after(otherLink, link), { do: 'link', content: { type: 'symlink', target: 'x' } })
test('a link over the same', work, after(link, link), { do: 'nothing' })
test('a deletion of a file', work, after(a, gone), { do: 'remove' })
test('a deletion of a link', work, after(link, gone), { do: 'remove' })
test('a deletion of a folder', work, after(dir, gone), { do: 'remove_folder' })
test('a deletion of nothing', work, after(null, gone), { do: 'nothing' })
test('a deletion of what is gone', work, after(gone, gone), { do: 'nothing' })
test('a deletion of a folder that only holds something', work, after(null, gone, true), { do: 'remove_folder' })

test('a file that won over another', work, against(a, b), { do: 'file', content: b }, true)
test('a file that won over its like that could be run', work, against(aRuns, a), { do: 'file', content: a }, true)
test('a file that won over a link', work, against(link, a), { do: 'file', content: a }, true)
test('a file that won over a folder', work, against(dir, a), { do: 'file', content: a })
test('a folder that won over a file', work, against(a, dir), { do: 'folder', over: true }, true)
test('a folder that won over a folder', work, against(dir, dir), { do: 'nothing' })
test(
  'a link that won over another',
  work,
  against(otherLink, link),
  { do: 'link', content: { type: 'symlink', target: 'x' } },
  true,
)
test('a deletion that won over a file', work, against(a, gone), { do: 'remove' }, true)
test('a file that won over a deletion', work, against(gone, a), { do: 'file', content: a })
test('the same bytes that won with another time', work, against(a, aLater), { do: 'meta', content: aLater })
test(
  'one vector for two contents',
  work,
  entry(version(b, { 1: 1 }, 1), version(a, { 1: 1 }, 1)),
  { do: 'file', content: b },
  true,
)

test('an entry that agrees needs no work', t => {
  const known = version(a, { 1: 1 }, 1)
  t.deepEqual(workFor(entry(known, known), 'keep-both', true), { do: 'nothing' })
  t.false(loses(entry(known, known)))
})

test('under `local` what won over our own is left where it is; what includes it is applied', t => {
  t.deepEqual(workFor(against(a, b), 'local', true), { do: 'leave' })
  t.deepEqual(workFor(against(a, gone), 'local', true), { do: 'leave' })
  t.deepEqual(workFor(against(link, dir), 'local', true), { do: 'leave' })
  t.deepEqual(workFor(after(a, b), 'local', true), { do: 'file', content: b })
  t.deepEqual(workFor(after(a, gone), 'local', true), { do: 'remove' })
})

test('content that a deletion remembers, from a store without history, goes to the version store and not to a copy', t => {
  const deletion = version({ type: 'gone', deleted: hash('a') }, { 2: 2 }, 1.5)
  const found = (content: Content, g: number) => entry(deletion, version(content, { 1: 1 }, g))
  t.true(loses(found(a, 0)))
  t.false(needsCopy(found(a, 0)))
  t.true(needsCopy(found(b, 0)), 'other content is nobody’s deletion')
  t.true(needsCopy(found(a, 1)), 'a user wrote it again')
})

const unwanted = test.macro({
  exec(t, what: Entry, expected: Work) {
    t.deepEqual(workFor(what, 'keep-both', false), expected)
    t.deepEqual(workFor(what, 'newest', false), expected)
  },
  title: title => `work where nothing is wanted real: ${title}`,
})

test('not wanted: a file over nothing', unwanted, after(null, a), { do: 'unreal', content: a })
test('not wanted: a file over what was deleted', unwanted, after(gone, a), { do: 'unreal', content: a })
test('a file over its older version, which is shown', unwanted, after(a, b), { do: 'file', content: b })
test('not wanted: the same bytes, later', unwanted, after(a, aLater), { do: 'meta', content: aLater })
test('not wanted: a file over a link', unwanted, after(link, a), { do: 'file', content: a })
test('not wanted: a file over a folder', unwanted, after(dir, a), { do: 'file', content: a })
test('a file over a folder that only holds something', unwanted, after(gone, a, true), { do: 'file', content: a })
test('a folder', unwanted, after(null, dir), { do: 'folder', over: false })
test('a link', unwanted, after(null, link), { do: 'link', content: link })
test('a deletion', unwanted, after(a, gone), { do: 'remove' })
test('a deletion of what is not shown', unwanted, after(null, gone), { do: 'nothing' })
