/** Which mark holds for a path: by examples, and against the obvious way of finding it. */
import test from 'ava'
import fc from 'fast-check'
import { Marks } from '../../actors/arena/marks.ts'
import type { Mark } from '../../protocol/control.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { ancestorsOf } from '../../protocol/path.ts'
import { path } from './_store-entries.ts'

const mark = fc.constantFrom<Mark>('real', 'pinned', 'unreal')
const anyPath = fc
  .array(fc.constantFrom('a', 'b', 'ab', 'é'), { minLength: 1, maxLength: 5 })
  .map(names => path(names.join('/')))
const settings = fc.array(fc.tuple(anyPath, fc.option(mark)), { maxLength: 12 })

/** The nearest of the path and the folders above it that has a mark. */
function nearest(fallback: Mark, marks: ReadonlyMap<EntryPath, Mark>, of: EntryPath): Mark {
  const marked = [...ancestorsOf(of), of].findLast(at => marks.has(at))
  return marked === undefined ? fallback : (marks.get(marked) as Mark)
}

test('a path has the mark of the nearest marked path above it, else the arena’s', t => {
  fc.assert(
    fc.property(mark, settings, anyPath, (fallback, sets, asked) => {
      const marks = new Marks(fallback)
      const model = new Map<EntryPath, Mark>()
      for (const [at, one] of sets) {
        marks.set(at, one)
        if (one === null) model.delete(at)
        else model.set(at, one)
      }
      t.is(marks.of(asked), nearest(fallback, model, asked))
      t.is(marks.own(asked), model.get(asked))
      t.is(marks.size, model.size)
      t.is(marks.wantsReal(asked), nearest(fallback, model, asked) === 'real')
      t.is(marks.allReal, fallback === 'real' && [...model.values()].every(one => one === 'real'))
      const below = [...model].some(([at, one]) => one !== 'real' && at.startsWith(`${asked}/`))
      t.is(marks.mayBeUnreal(asked), below || nearest(fallback, model, asked) !== 'real')
      t.deepEqual(new Marks(fallback, model), marks)
    }),
  )
})

test('a name that begins like a marked one has nothing of its mark', t => {
  const marks = new Marks('real', [[path('films'), 'unreal']])
  t.is(marks.of(path('films/a')), 'unreal')
  t.is(marks.of(path('films2/a')), 'real')
  t.is(marks.of(path('film')), 'real')
})

test('rule files are wanted real wherever they are: what they say holds for the disk', t => {
  const marks = new Marks('unreal')
  t.true(marks.wantsReal(path('.realizeignore')))
  t.true(marks.wantsReal(path('a/.realizeignore')))
  t.false(marks.wantsReal(path('a/realizeignore')))
})
