import test from 'ava'
import fc from 'fast-check'
import { UnrealFiles } from '../../actors/view/unreal-files.ts'
import type { BlobHash } from '../../protocol/ids.ts'
import type { UnrealFile } from '../../protocol/ports.ts'

const file = (seed: number): UnrealFile => ({
  size: seed,
  mtimeNs: BigInt(seed),
  exec: false,
  hash: String(seed) as BlobHash,
})
const names = (count: number, from = 0): [string, UnrealFile][] =>
  Array.from({ length: count }, (_, index) => [`name-${from + index}`, file(from + index)])

test('a folder answers once all its pages have come, and what is told meanwhile counts', t => {
  const files = new UnrealFiles()
  t.is(files.get('folder', 'a'), undefined)
  t.true(files.begin('folder'))
  t.false(files.begin('folder'), 'it is on its way')
  t.true(files.page('folder', { files: [['a', file(1)]], next: 'a' }))
  files.set('folder', 'a', null)
  files.set('folder', 'z', file(9))
  t.is(files.get('folder', 'z'), undefined)
  t.false(files.page('folder', { files: [['b', file(2)]], next: null }))
  t.is(files.get('folder', 'a'), null)
  t.deepEqual(files.get('folder', 'b'), file(2))
  t.deepEqual(files.names('folder')?.sort(), ['b', 'z'])
  t.is(files.get('other', 'b'), undefined)
  files.clear()
  t.is(files.get('folder', 'b'), undefined)
  t.false(files.page('folder', { files: [], next: null }), 'a page that comes late is of no use')
  t.is(files.size, 0)
})

test('a folder that is too large is not remembered, and is not begun again and again', t => {
  const files = new UnrealFiles({ folderFilesMax: 10 })
  t.true(files.begin('large'))
  t.true(files.page('large', { files: names(8), next: 'name-7' }))
  t.false(files.page('large', { files: names(8, 8), next: 'name-15' }))
  t.is(files.get('large', 'name-1'), undefined)
  t.false(files.begin('large'))
  t.is(files.size, 0)
})

test('never more is remembered than the limit, and what is used stays longest', t => {
  const files = new UnrealFiles({ filesMax: 20, folderFilesMax: 10 })
  const fill = (folder: string) => {
    files.begin(folder)
    files.page(folder, { files: names(8), next: null })
  }
  fill('one')
  fill('two')
  t.not(files.get('one', 'name-1'), undefined)
  fill('three')
  t.is(files.get('two', 'name-1'), undefined)
  t.deepEqual(files.get('one', 'name-1'), file(1))
  t.true(files.size <= 20)
})

test('whatever is told in whatever order, what is remembered is what was told last', t => {
  const told = fc.array(fc.tuple(fc.constantFrom('f', 'g', 'h'), fc.constantFrom('a', 'b', 'c'), fc.option(fc.nat(5))))
  fc.assert(
    fc.property(told, changes => {
      const files = new UnrealFiles({ filesMax: 4, folderFilesMax: 3 })
      const truth = new Map<string, UnrealFile | null>()
      for (const [folder, name, seed] of changes) {
        const value = seed === null ? null : file(seed)
        truth.set(`${folder}/${name}`, value)
        // Asked of the arena, which says what is true at that moment.
        if (files.begin(folder)) {
          const page = [...truth].flatMap(([path, one]): [string, UnrealFile][] =>
            path.startsWith(`${folder}/`) && one !== null ? [[path.slice(2), one]] : [],
          )
          files.page(folder, { files: page, next: null })
        }
        files.set(folder, name, value)
        let counted = 0
        for (const [folder, name] of files.all()) {
          counted++
          if (truth.get(`${folder}/${name}`) === undefined) return false
        }
        if (counted !== files.size || counted > 4) return false
      }
      for (const [path, one] of truth) {
        const known = files.get(path.slice(0, 1), path.slice(2))
        if (known !== undefined && known !== one) return false
      }
      return true
    }),
  )
  t.pass()
})
