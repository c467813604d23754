import test from 'ava'
import fc from 'fast-check'
import { childrenOf } from '../../actors/arena/children.ts'
import { compareNames } from '../../actors/arena/order.ts'
import { MemoryTables } from '../../actors/arena/tables-memory.ts'
import { makeEntry, openOn, path } from './_store-entries.ts'
import { file, version } from './_versions.ts'

const name = fc.constantFrom('a', 'a!', 'b', 'ab', 'é', 'z')
const paths = fc.uniqueArray(
  fc.array(name, { minLength: 1, maxLength: 3 }).map(names => names.join('/')),
  { maxLength: 60 },
)
const known = (at: string, number: number) =>
  version(at.length % 2 === 0 ? { type: 'dir' } : file('a'), { 0: number + 1 }, 1)

test('whatever lies in and below a folder, each name in it comes once, in order, with its entry if it has one', t => {
  fc.assert(
    fc.property(paths, fc.constantFrom(undefined, 'a', 'b'), fc.option(name), (all, folder, after) => {
      const store = openOn(new MemoryTables())
      store.transact(writer => {
        for (const [number, at] of all.entries()) writer.putEntry(makeEntry(at, known(at, number)), true)
      })
      const start = folder === undefined ? '' : `${folder}/`
      const below = all.filter(at => at.startsWith(start)).map(at => at.slice(start.length))
      const names = [...new Set(below.map(at => at.split('/')[0] as string))].sort(compareNames)
      const found = [...childrenOf(store, folder === undefined ? undefined : path(folder), after)]
      t.deepEqual(
        found.map(child => [child.name, child.entry?.path]),
        names
          .filter(one => after === null || compareNames(one, after) > 0)
          .map(one => [one, below.includes(one) ? path(start + one) : undefined]),
      )
    }),
    { numRuns: 300 },
  )
})

test('folders of many files are gone through whole', t => {
  const store = openOn(new MemoryTables())
  store.transact(writer => {
    for (let number = 0; number < 700; number++) {
      writer.putEntry(makeEntry(`f${number}`, version(file('a'), { 0: number + 1 }, 1)), true)
      for (let below = 0; number % 100 === 0 && below < 40; below++)
        writer.putEntry(makeEntry(`d${number}/${below}`, version(file('b'), { 1: below + 1 }, 1)), true)
    }
  })
  t.is(new Set(Array.from(childrenOf(store, undefined), child => child.name)).size, 707)
  t.is([...childrenOf(store, undefined)].length, 707)
  t.is([...childrenOf(store, path('d100'))].length, 40)
})
