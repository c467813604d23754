import test from 'ava'
import { Identities } from '../../actors/view/identities.ts'
import type { SourceEntry } from '../../actors/view/view-source.ts'
import type { BlobHash } from '../../protocol/ids.ts'
import type { UnrealFile } from '../../protocol/ports.ts'

const unreal = (hash: string, size = 5, mtimeNs = 7n): UnrealFile => ({
  size,
  mtimeNs,
  exec: false,
  hash: hash as BlobHash,
})

function real(id: string, size = 5, mtimeNs = 7n, ino = 12n): SourceEntry {
  const attributes = { ino, size, blocks: 8, atimeNs: 0n, mtimeNs, ctimeNs: 9n, mode: 0o100644, links: 1 }
  return { id, attributes: { ...attributes, uid: 0, gid: 0, rdev: 0 }, version: null }
}

test('an unreal file stays the same until its content changes, also under another name', t => {
  const identities = new Identities('docs')
  const first = identities.unreal('a', unreal('one'))
  t.is(identities.unreal('a', unreal('one', 5, 8n)).id, first.id)
  identities.moved('a', 'b')
  t.is(identities.unreal('b', unreal('one')).id, first.id)
  const other = identities.unreal('b', unreal('two'))
  t.not(other.id, first.id)
  t.not(other.ino, first.ino)
  t.not(identities.unreal('a', unreal('one')).id, first.id, 'a file that comes to the former path is another one')
})

test('a file that becomes real keeps its id and inode number, whatever it is called then', t => {
  const identities = new Identities('docs')
  const { id, ino } = identities.unreal('a', unreal('one'))
  const found = identities.real('a', real('8:12:1'))
  t.is(found.id, id)
  t.is(found.attributes.ino, ino)
  const renamed = identities.real('elsewhere', real('8:12:1', 99))
  t.is(renamed.id, id)
  t.not(identities.unreal('a', unreal('one')).id, id)
})

test('a file whose content is given up stays the same, and when it comes back, too', t => {
  const identities = new Identities('docs')
  const shown = identities.real('a', real('8:12:1'))
  identities.leaves('a', unreal('one'), shown)
  t.is(identities.real('a', real('8:12:1')).id, shown.id, 'it is still on the disk')
  const { id, ino } = identities.unreal('a', unreal('one'))
  t.is(id, shown.id)
  t.is(ino, shown.attributes.ino)
  const back = identities.real('a', real('8:99:1', 5, 7n, 99n))
  t.is(back.id, shown.id)
  t.is(back.attributes.ino, shown.attributes.ino)
  identities.leaves('a', unreal('one'), back)
  t.is(identities.unreal('a', unreal('one')).id, shown.id)
  identities.leaves('b', unreal('one', 6), identities.real('b', real('8:13:1')))
  t.not(identities.unreal('b', unreal('one', 6)).id, '8:13:1', 'another file has this name already')
})

test('another file in the place of an unreal one is another file', t => {
  const identities = new Identities('docs')
  const { id } = identities.unreal('a', unreal('one'))
  t.is(identities.real('a', real('8:13:1', 6)).id, '8:13:1')
  t.is(identities.real('a', real('8:14:1', 5, 8n)).id, '8:14:1')
  identities.forget('a')
  t.is(identities.real('a', real('8:15:1')).id, '8:15:1')
  t.not(id, identities.unreal('a', unreal('one')).id)
})

test('inode numbers differ between arenas and between real and unreal files, and fit into 52 bits', t => {
  const [docs, photos] = [new Identities('docs'), new Identities('photos')]
  const seen = new Set([
    docs.real('a', real('1')).attributes.ino,
    photos.real('a', real('1')).attributes.ino,
    docs.unreal('a', unreal('one')).ino,
    docs.unreal('b', unreal('one')).ino,
    photos.unreal('a', unreal('one')).ino,
  ])
  t.is(seen.size, 5)
  for (const ino of seen) t.true(ino > 0n && ino < 1n << 52n)
})

test('no more is remembered than the limit', t => {
  const identities = new Identities('docs', 10)
  const first = identities.unreal('0', unreal('one'))
  for (let index = 1; index < 11; index++) identities.unreal(String(index), unreal('one'))
  t.not(identities.unreal('0', unreal('one')).id, first.id)
})
