import test from 'ava'
import fc from 'fast-check'
import {
  changeVersion,
  compareVectors,
  compareWinners,
  countOf,
  includes,
  joinVectors,
  type LocalChange,
  meet,
  plausible,
  sameContent,
  type Version,
  withCount,
} from '../../actors/arena/version.ts'
import {
  author,
  exchange,
  file,
  gone,
  hash,
  historyArbitrary,
  replica,
  vector,
  vectorArbitrary,
  version,
} from './_versions.ts'

const MIRROR = { same: 'same', newer: 'older', older: 'newer', concurrent: 'concurrent' } as const

function change(fields: Partial<LocalChange>): Version {
  return changeVersion({
    content: file('a'),
    base: null,
    known: null,
    replica: replica(1),
    count: 1,
    author: author(0),
    firstScan: false,
    policy: 'keep-both',
    nowMs: 0,
    ...fields,
  })
}

test('a change outdoes earlier ones of its replica that its disk has lost, in whatever order peers hear of them', t => {
  const lost = version(file('lost'), { 1: 2 }, 2)
  const other = version(file('other'), { 2: 7 }, 1)
  const torn = version(file('torn'), {}, 0)
  for (const content of [file('new'), { type: 'gone', deleted: null }] as const) {
    const made = change({ content, base: torn, known: lost, count: 6 })
    t.true(includes(made.vector, lost.vector))
    t.true(made.g > lost.g)
    const orders = [
      [lost, other, made],
      [other, made, lost],
      [made, lost, other],
      [other, lost, made],
    ]
    for (const order of orders) {
      const best = order.reduce<Version | null>((known, next) => meet(known, next).known, null)
      t.deepEqual(best?.content, content)
    }
  }
  // What others made is no reason to outweigh it.
  t.is(change({ base: torn, known: other, count: 6 }).g, 1)
})

// Vectors

test('vectors are compared by what they include', t => {
  t.is(compareVectors(vector({}), vector({})), 'same')
  t.is(compareVectors(vector({ 1: 1 }), vector({})), 'newer')
  t.is(compareVectors(vector({ 1: 2 }), vector({ 1: 3 })), 'older')
  t.is(compareVectors(vector({ 1: 2, 3: 1 }), vector({ 1: 2 })), 'newer')
  t.is(compareVectors(vector({ 1: 2, 2: 1 }), vector({ 1: 1, 2: 2 })), 'concurrent')
  t.is(compareVectors(vector({ 1: 1 }), vector({ 2: 1 })), 'concurrent')
})

test('comparing vectors is a partial order: reflexive, mirrored, antisymmetric, transitive', t => {
  fc.assert(
    fc.property(vectorArbitrary, vectorArbitrary, vectorArbitrary, (a, b, c) => {
      const order = compareVectors(a, b)
      if (compareVectors(a, a) !== 'same' || compareVectors(b, a) !== MIRROR[order]) return false
      if (order === 'same' && JSON.stringify(a) !== JSON.stringify(b)) return false
      return !(includes(a, b) && includes(b, c)) || includes(a, c)
    }),
  )
  t.pass()
})

test('joining vectors is commutative, associative, idempotent, and the least that includes both', t => {
  fc.assert(
    fc.property(vectorArbitrary, vectorArbitrary, vectorArbitrary, (a, b, c) => {
      const join = joinVectors(a, b)
      const equal = (x: typeof a, y: typeof a) => compareVectors(x, y) === 'same'
      return (
        equal(join, joinVectors(b, a)) &&
        equal(joinVectors(join, c), joinVectors(a, joinVectors(b, c))) &&
        equal(joinVectors(a, a), a) &&
        includes(join, a) &&
        includes(join, b) &&
        (!(includes(c, a) && includes(c, b)) || includes(c, join))
      )
    }),
  )
  t.pass()
})

test('a count is set, replaced and taken out, and the vector stays sorted', t => {
  t.deepEqual(withCount(vector({ 2: 1 }), replica(1), 5), vector({ 1: 5, 2: 1 }))
  t.deepEqual(withCount(vector({ 1: 1, 2: 1 }), replica(1), 7), vector({ 1: 7, 2: 1 }))
  t.deepEqual(withCount(vector({ 1: 1, 2: 1 }), replica(1), 0), vector({ 2: 1 }))
  t.is(countOf(vector({ 1: 3 }), replica(1)), 3)
  t.is(countOf(vector({ 1: 3 }), replica(2)), 0)
})

// Local changes

test('an edit is one generation above its base, a deletion half of one, a touch none', t => {
  const base = version(file('a'), { 1: 3 }, 4)
  t.is(change({ base, content: file('b'), count: 9 }).g, 5)
  t.is(change({ base, content: gone, count: 9 }).g, 4.5)
  t.is(change({ base, content: file('a', { mtimeNs: 5n }), count: 9 }).g, 4)
  t.is(change({ base, content: file('a', { exec: true }), count: 9 }).g, 5)
  t.is(change({ base: version(gone, { 1: 1 }, 4.5), content: file('a'), count: 9 }).g, 5)
})

test('a new file is of the first generation, one that a first scan finds of none', t => {
  t.is(change({}).g, 1)
  t.is(change({ firstScan: true }).g, 0)
})

test('a change is based on what the disk showed, with the own count set and nothing else', t => {
  const base = version(file('a'), { 2: 7 }, 1)
  t.deepEqual(change({ base, content: file('b'), count: 4 }).vector, vector({ 1: 4, 2: 7 }))
  t.deepEqual(change({ count: 4 }).vector, vector({ 1: 4 }))
})

test('under `newest` the stamp is the mtime, and never less than what it replaces', t => {
  const at = (ms: number) => file('b', { mtimeNs: BigInt(ms) * 1_000_000n })
  const base = version(file('a'), { 1: 1 }, 5_000)
  t.is(change({ policy: 'newest', base, content: at(9_000) }).g, 9_000)
  t.is(change({ policy: 'newest', base, content: at(1_000) }).g, 5_001)
  t.is(change({ policy: 'newest', base, content: gone, nowMs: 7_000 }).g, 7_000)
  t.is(change({ policy: 'newest', content: at(-5) }).g, 0)
})

// The winner

test('every version outweighs what it was based on', t => {
  fc.assert(
    fc.property(historyArbitrary, history =>
      history.every(({ made, base }) => {
        if (base === null) return true
        if (compareVectors(made.vector, base.vector) !== 'newer') return false
        return sameContent(made.content, base.content) ? made.g >= base.g : compareWinners(made, base) > 0
      }),
    ),
    { numRuns: 500 },
  )
  t.pass()
})

test('the order of winners is total, symmetric and transitive', t => {
  fc.assert(
    fc.property(historyArbitrary, history => {
      const versions = history.map(({ made }) => made)
      for (const a of versions) {
        for (const b of versions) {
          if (Math.sign(compareWinners(a, b)) !== -Math.sign(compareWinners(b, a))) return false
          if (compareWinners(a, b) === 0 && a !== b && compareVectors(a.vector, b.vector) !== 'same') return false
          for (const c of versions)
            if (compareWinners(a, b) > 0 && compareWinners(b, c) > 0 && compareWinners(a, c) <= 0) return false
        }
      }
      return true
    }),
    { numRuns: 100 },
  )
  t.pass()
})

test('of one generation a folder wins over a file, that over a link, that over nothing', t => {
  const ranked = [{ type: 'dir' } as const, file('a'), { type: 'symlink', target: 'z' } as const, gone]
  for (let i = 0; i + 1 < ranked.length; i++) {
    const [greater, less] = [ranked[i], ranked[i + 1]]
    if (greater && less) t.true(compareWinners(version(greater, { 1: 1 }, 1), version(less, { 2: 1 }, 1)) > 0)
  }
  t.true(compareWinners(version(gone, { 1: 1 }, 1.5), version({ type: 'dir' }, { 2: 1 }, 1)) > 0)
})

// Meeting

test('what is included is replaced without a word, and what includes stays', t => {
  const base = version(file('a'), { 1: 1 }, 1)
  const edit = version(file('b'), { 1: 2 }, 2)
  t.deepEqual(meet(base, edit), { known: edit, outcome: 'theirs', conflict: false })
  t.deepEqual(meet(edit, base), { known: edit, outcome: 'ours', conflict: false })
  t.deepEqual(meet(null, edit), { known: edit, outcome: 'theirs', conflict: false })
  t.deepEqual(meet(edit, { ...edit }), { known: edit, outcome: 'same', conflict: false })
})

test('vectors are merged only where the content is the same', t => {
  const a = version(file('a', { mtimeNs: 1n }), { 1: 1 }, 3)
  const b = version(file('a', { mtimeNs: 2n }), { 2: 1 }, 1, 1)
  const { known, outcome, conflict } = meet(a, b)
  t.deepEqual([outcome, conflict], ['merged', false])
  t.deepEqual(known, { content: file('a', { mtimeNs: 2n }), vector: vector({ 1: 1, 2: 1 }), g: 3, author: author(1) })
  const other = version(file('b'), { 2: 1 }, 1)
  t.deepEqual(meet(a, other), { known: a, outcome: 'ours', conflict: true })
  t.deepEqual(meet(other, a), { known: a, outcome: 'theirs', conflict: true })
})

test('one vector with two contents is a conflict that all decide alike', t => {
  const a = version(file('a'), { 1: 2 }, 2)
  const b = version(file('b'), { 1: 2 }, 2)
  t.deepEqual(meet(a, b), { known: b, outcome: 'theirs', conflict: true })
  t.deepEqual(meet(b, a), { known: b, outcome: 'ours', conflict: true })
})

test('peers that hear of the same versions in any order, and tell each other, know the same', t => {
  fc.assert(
    fc.property(
      historyArbitrary.filter(history => history.length > 1),
      fc.infiniteStream(fc.nat()),
      (history, random) => {
        const versions = history.map(({ made }) => made)
        const orders = [versions, versions.toReversed(), shuffled(versions, random), shuffled(versions, random)]
        const [first, ...others] = exchange(orders)
        for (const other of others) t.deepEqual(other, first)
        // What they had heard of before is no news.
        for (const old of versions) t.is(meet(first as Version, old).known, first as Version)
      },
    ),
    { numRuns: 2000 },
  )
})

test('tombstones of one vector come to remember the same hash', t => {
  const remembering = (letter: string, counts: Record<number, number>, g: number) =>
    version({ type: 'gone', deleted: hash(letter) }, counts, g)
  const [first, second, third] = [
    remembering('f', { 1: 1 }, 1.5),
    remembering('a', { 1: 3 }, 3.5),
    remembering('b', { 2: 1 }, 1.5),
  ]
  const known = exchange([
    [first, third, second],
    [first, second, third],
  ])
  t.deepEqual(known[0], known[1])
})

test('a generation that its vector cannot have earned is not plausible', t => {
  t.true(plausible(version(file('a'), { 1: 2 }, 2), 'keep-both'))
  t.true(plausible(version(gone, { 1: 1 }, 1.5), 'keep-both'))
  t.false(plausible(version(file('a'), { 1: 2 }, 3), 'keep-both'))
  t.false(plausible(version(file('a'), {}, 0), 'keep-both'))
  t.true(plausible(version(file('a'), { 1: 2 }, 1_750_000_000_000), 'newest'))
})

test('every version that peers make is plausible', t => {
  fc.assert(fc.property(historyArbitrary, history => history.every(({ made }) => plausible(made, 'keep-both'))))
  t.pass()
})

function shuffled<T>(items: readonly T[], random: Iterator<number>): T[] {
  const rest = [...items]
  const result: T[] = []
  while (rest.length > 0) result.push(...rest.splice((random.next().value as number) % rest.length, 1))
  return result
}
