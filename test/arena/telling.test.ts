/** What of the found changes can be told now, case by case; and whatever is found, nothing is lost or told that would mean something else. */
import test from 'ava'
import fc from 'fast-check'
import type { Entry } from '../../actors/arena/store.ts'
import { type Change, HeldBack, hasBelow, type Surroundings, tellable } from '../../actors/arena/telling.ts'
import type { Content } from '../../actors/arena/version.ts'
import { ancestorsOf } from '../../protocol/path.ts'
import { makeEntry, path } from './_store-entries.ts'
import { file, gone, version } from './_versions.ts'

const FOLDER: Content = { type: 'dir' }

function change(at: string, content: Content, names: { from?: string; to?: string } = {}): Change {
  const { from, to } = names
  return {
    path: path(at),
    content,
    stamp: null,
    leaves: null,
    ...(from !== undefined && { from: path(from) }),
    ...(to !== undefined && { to: path(to) }),
  }
}

interface Household {
  /** What this disk is known to show. */
  shows?: Record<string, Content>
  /** What is on the disk now. */
  disk?: Record<string, 'file' | 'dir' | 'symlink' | 'other' | undefined>
  /** What the user saw at paths that showed nothing here. */
  saw?: Record<string, Content>
  unsettled?: string[]
  /** Missing, and not yet told as gone. */
  missing?: string[]
}

function around({ shows = {}, disk = {}, saw = {}, unsettled = [], missing = [] }: Household): Surroundings {
  const entries = new Map<string, Entry>(
    Object.entries(shows).map(([at, content]) => [at, makeEntry(at, version(content, { 1: 1 }, 1))]),
  )
  return {
    entry: at => entries.get(at),
    typeNow: at => (at in disk ? disk[at] : null),
    isGone: at => disk[at] === undefined && !(at in disk),
    seen: at => {
      const content = saw[at]
      return content === undefined ? null : version(content, { 1: 1 }, 1)
    },
    unsettled: at => unsettled.includes(at),
    settledBelow: (at, from) => !hasBelow(missing.map(path), at, from),
  }
}

interface Case extends Household {
  found: Change[]
  told?: string[]
  held?: string[]
  again?: string[]
}

const paths = (changes: readonly Change[]) => changes.map(one => one.path as string)

const cases: Record<string, Case> = {
  'a file that is there is told': { found: [change('f', file('a'))], disk: { f: 'file' }, told: ['f'] },
  'a file that has gone since is looked at anew': { found: [change('f', file('a'))], again: ['f'] },
  'a file that is a folder by now is looked at anew': {
    found: [change('f', file('a'))],
    disk: { f: 'dir' },
    again: ['f'],
  },
  'what cannot be looked at is looked at anew': {
    found: [change('f', file('a'))],
    disk: { f: undefined },
    again: ['f'],
  },
  'a deletion needs nothing on the disk': { found: [change('f', gone)], shows: { f: file('a') }, told: ['f'] },
  'a path at which a step of ours is under way waits': {
    found: [change('f', file('a')), change('g', file('b'))],
    disk: { f: 'file', g: 'file' },
    unsettled: ['f'],
    told: ['g'],
    held: ['f'],
  },
  'both halves of a rename are told together': {
    found: [change('new', file('a'), { from: 'old' }), change('old', gone, { to: 'new' })],
    shows: { old: file('a') },
    disk: { new: 'file' },
    told: ['new', 'old'],
  },
  'an old name does not end by itself while the new one has to wait': {
    found: [change('new', file('a'), { from: 'old' }), change('old', gone, { to: 'new' })],
    shows: { old: file('a') },
    disk: { new: 'file' },
    unsettled: ['new'],
    held: ['new'],
    again: ['old'],
  },
  'an old name ends by itself when the new one is known to show the same': {
    found: [change('old', gone, { to: 'new' })],
    shows: { old: file('a'), new: file('a') },
    told: ['old'],
  },
  'an old name that shows something again does not end': {
    found: [change('new', file('a'), { from: 'old' }), change('old', gone, { to: 'new' })],
    shows: { old: file('a') },
    disk: { new: 'file', old: 'file' },
    told: ['new'],
    again: ['old'],
  },
  'an old name does not end by itself when the new one shows something else': {
    found: [change('old', gone, { to: 'new' })],
    shows: { old: file('a'), new: file('b') },
    again: ['old'],
  },
  'a file in the place of a folder waits for what was in the folder': {
    found: [change('place', file('a'))],
    shows: { place: FOLDER, 'place/inside': file('b') },
    disk: { place: 'file' },
    missing: ['place/inside'],
    held: ['place'],
  },
  'a file in the place of the folder that it was in does not wait for itself': {
    found: [change('place', file('b'), { from: 'place/inside' })],
    shows: { place: FOLDER, 'place/inside': file('b') },
    disk: { place: 'file' },
    missing: ['place/inside'],
    told: ['place'],
  },
  'a file in the place of an empty folder is told': {
    found: [change('place', file('a'))],
    shows: { place: FOLDER },
    disk: { place: 'file' },
    told: ['place'],
  },
  'a folder in the place of a file is told with the first file in it': {
    found: [change('place/inside', file('b'))],
    shows: { place: file('a') },
    disk: { place: 'dir', 'place/inside': 'file' },
    told: ['place', 'place/inside'],
  },
  'a folder in the place of a file is told once': {
    found: [change('place', FOLDER), change('place/inside', file('b')), change('place/other', file('c'))],
    shows: { place: file('a') },
    disk: { place: 'dir', 'place/inside': 'file', 'place/other': 'file' },
    told: ['place', 'place/inside', 'place/other'],
  },
  'what is in a folder in the place of a file waits with the folder': {
    found: [change('place', FOLDER), change('place/inside', file('b'))],
    shows: { place: file('a') },
    disk: { place: 'dir', 'place/inside': 'file' },
    unsettled: ['place'],
    held: ['place/inside', 'place'],
  },
  'what is below a path that a user saw as a file waits until that can be told as a folder': {
    found: [change('place/inside', file('b'))],
    saw: { place: file('a') },
    disk: { place: 'file', 'place/inside': 'file' },
    held: ['place/inside'],
  },
  'what was below a path is told as gone, whatever the path is': {
    found: [change('place/inside', gone)],
    shows: { place: file('a') },
    unsettled: ['place'],
    told: ['place/inside'],
  },
}

for (const [title, { found, told = [], held = [], again = [], ...rest }] of Object.entries(cases)) {
  test(title, t => {
    const result = tellable(found, around(rest))
    t.deepEqual({ told: paths(result.told), held: paths(result.held), again: [...result.again] }, {
      told,
      held,
      again,
    } as Record<string, string[]>)
  })
}

test('a former name is not missed while the new one waits, unless a folder on its way is waited for', t => {
  const held = new HeldBack()
  held.add(path('new'), path('old'))
  held.add(path('place'))
  held.add(path('out'), path('place/deep/inside'))
  t.deepEqual([...held.formerNames()], ['old'])
  t.deepEqual(
    held.takeReady(at => at === 'place'),
    ['place'],
  )
  t.deepEqual([...held.formerNames()].sort(), ['old', 'place/deep/inside'])
  t.is(held.size, 2)
})

test('whatever is found: each change is told, held or looked at anew; nothing is told below what shows a file', t => {
  const names = ['a', 'b', 'a/x', 'b/x', 'a/x/y']
  const content = fc.constantFrom<Content>(file('a'), file('b'), FOLDER, gone)
  const household = fc.record({
    shows: fc.dictionary(fc.constantFrom(...names), content),
    disk: fc.dictionary(fc.constantFrom(...names), fc.constantFrom<'file' | 'dir'>('file', 'dir')),
    saw: fc.dictionary(fc.constantFrom(...names), content),
    unsettled: fc.subarray(names),
    missing: fc.subarray(names),
  })
  const found = fc.uniqueArray(
    fc.record({
      at: fc.constantFrom(...names),
      content,
      from: fc.option(fc.constantFrom(...names), { nil: undefined }),
    }),
    { selector: one => one.at, maxLength: names.length },
  )
  fc.assert(
    fc.property(household, found, (household, some) => {
      const disk: Household['disk'] = {}
      for (const [at, type] of Object.entries(household.disk))
        for (const one of [...ancestorsOf(path(at)), path(at)])
          if (one !== at) disk[one] = 'dir'
          else disk[one] ??= type
      const changes = some
        .filter(({ at, content }) => content.type !== 'gone' || disk[at] === undefined)
        .map(({ at, content, from }) => change(at, content, from === undefined ? {} : { from }))
      const there = around({ ...household, disk } as Household)
      const { told, held, again } = tellable(changes, there)
      const sorted = [...paths(told.filter(one => changes.includes(one))), ...paths(held), ...again]
      t.deepEqual(sorted.sort(), paths(changes).sort())
      const says = new Map(told.map(one => [one.path, one.content.type]))
      for (const one of told) {
        t.false(there.unsettled(one.path))
        if (one.content.type === 'gone') continue
        t.is(there.typeNow(one.path), one.content.type)
        for (const folder of ancestorsOf(one.path)) {
          const shown = there.seen(folder) ?? there.entry(folder)?.have ?? null
          const leaf = shown !== null && (shown.content.type === 'file' || shown.content.type === 'symlink')
          if (leaf) t.is(says.get(folder), 'dir', `${folder} above ${one.path}`)
        }
      }
    }),
    { numRuns: 5000 },
  )
})
