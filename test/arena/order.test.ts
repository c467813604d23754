import test from 'ava'
import fc from 'fast-check'
import { compareNames, compareTree, isBelow } from '../../actors/arena/order.ts'
import { treeKey } from '../../actors/arena/tree-keys.ts'
import type { EntryPath } from '../../protocol/ids.ts'

const path = (text: string) => text as EntryPath

const nameArbitrary = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 6 })
  .map(name => name.replaceAll('/', '-').replaceAll('\0', '-'))
/** Names that are alike, where orders differ most. */
const closeArbitrary = fc.string({
  unit: fc.constantFrom('a', 'b', '!', '.', '\u0001', '\ud7ff', '\ue000', '\uffff', '😀', 'é'),
  minLength: 1,
  maxLength: 3,
})
const pathArbitrary = fc
  .array(fc.oneof(nameArbitrary, closeArbitrary), { minLength: 1, maxLength: 4 })
  .map(names => path(names.join('/')))

test('the order of paths is the byte order of their keys in the store', t => {
  fc.assert(
    fc.property(
      pathArbitrary,
      pathArbitrary,
      (a, b) => Math.sign(compareTree(a, b)) === Buffer.compare(treeKey(a), treeKey(b)),
    ),
    { numRuns: 5000 },
  )
  t.pass()
})

test('a folder comes before what is in it, and that before its next sibling', t => {
  const sorted = ['a', 'a/b', 'a/b/c', 'a/z', 'a!', 'a-b', 'a.b', 'aa', 'b'].map(path)
  t.deepEqual(sorted.toReversed().sort(compareTree), sorted)
  t.deepEqual(['b', 'a!', 'a'].sort(compareNames), ['a', 'a!', 'b'])
})

test('below means in the folder or deeper, not beside it with a longer name', t => {
  t.true(isBelow(path('a/b'), path('a')))
  t.true(isBelow(path('a/b/c'), path('a')))
  t.false(isBelow(path('ab'), path('a')))
  t.false(isBelow(path('a'), path('a')))
  t.false(isBelow(path('a'), path('a/b')))
})
