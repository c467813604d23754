import test from 'ava'
import fc from 'fast-check'
import { type Node, NodeTable } from '../../actors/view/node-table.ts'

function reach(table: NodeTable, parent: Node, name: string, id: string): Node {
  const node = table.reach(parent, name, id)
  if (node === null) throw new Error('a folder inside itself')
  return node
}

test('a node has a number, a path, and ends when it was forgotten as often as it was given', t => {
  const table = new NodeTable('root')
  const folder = reach(table, table.root, 'folder', 'F')
  const file = reach(table, folder, 'file', 'A')
  t.deepEqual([table.root.number, folder.number, file.number], [1, 2, 3])
  t.is(table.pathOf(file), 'folder/file')
  t.is(table.find('folder/file'), file)
  table.give(file)
  table.give(file)
  t.is(table.forget(3, 1), null)
  t.is(table.forget(3, 1), file)
  t.is(table.get(3), undefined)
  t.is(table.find('folder/file'), undefined)
  const again = reach(table, folder, 'file', 'A')
  t.is(again.number, 4, 'numbers are not used again')
  t.is(table.forget(1, 99), null, 'the root stays')
})

test('a folder that moves takes what is in it along; what it replaces loses its name', t => {
  const table = new NodeTable('root')
  const folder = reach(table, table.root, 'one', 'F')
  const file = reach(table, folder, 'file', 'A')
  const other = reach(table, table.root, 'two', 'B')
  table.move(table.root, 'one', table.root, 'two', false)
  t.is(table.pathOf(file), 'two/file')
  t.is(table.pathOf(other), null)
  const third = reach(table, table.root, 'three', 'C')
  table.move(table.root, 'three', folder, 'file', true)
  t.is(table.pathOf(third), 'two/file')
  t.is(table.pathOf(file), 'three')
})

test('hard links are one node under several names', t => {
  const table = new NodeTable('root')
  const file = reach(table, table.root, 'a', 'A')
  t.is(reach(table, table.root, 'b', 'A'), file)
  table.move(table.root, 'a', table.root, 'b', false)
  t.deepEqual([table.find('a'), table.find('b')], [file, file], 'rename of two names of one file does nothing')
  table.detach(table.root, 'b')
  t.is(table.pathOf(file), 'a')
  table.detach(table.root, 'a')
  t.is(table.pathOf(file), null)
})

test('what was renamed behind the view is found under its new name, and a loop is refused', t => {
  const table = new NodeTable('root')
  const folder = reach(table, table.root, 'old', 'F')
  const below = reach(table, folder, 'below', 'G')
  reach(table, table.root, 'new', 'F')
  t.is(table.pathOf(below), 'new/below')
  t.is(table.find('old'), undefined)
  t.is(table.reach(below, 'x', 'F'), null)
  t.is(table.reach(below, 'x', 'root'), null)
  t.is(table.pathOf(below), 'new/below')
})

test('whatever happens, paths lead to the nodes that have them', t => {
  const step = fc.record({
    kind: fc.constantFrom('reach', 'detach', 'move', 'exchange', 'forget'),
    from: fc.nat({ max: 12 }),
    to: fc.nat({ max: 12 }),
    name: fc.constantFrom('a', 'b', 'c'),
    newName: fc.constantFrom('a', 'b', 'c'),
    id: fc.nat({ max: 12 }),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), steps => {
      const table = new NodeTable('root')
      const inside = (node: Node, folder: Node): boolean => {
        for (let at: Node | undefined = node; at !== undefined; at = at.places[0]?.parent)
          if (at === folder) return true
        return false
      }
      for (const { kind, from, to, name, newName, id } of steps) {
        const nodes = [...table.all()].filter(node => table.pathOf(node) !== null)
        const source = nodes[from % nodes.length] as Node
        const target = nodes[to % nodes.length] as Node
        const [moved, replaced] = [source.children.get(name), target.children.get(newName)]
        if (kind === 'reach') {
          const reached = table.reach(source, name, String(id))
          if (reached !== null) table.give(reached)
        } else if (kind === 'detach') table.detach(source, name)
        else if (kind === 'forget') table.forget(source.number, source.lookups)
        else {
          // The kernel refuses to move a folder into itself.
          if (moved !== undefined && inside(target, moved)) continue
          if (kind === 'exchange' && replaced !== undefined && inside(source, replaced)) continue
          table.move(source, name, target, newName, kind === 'exchange')
        }
        for (const node of table.all()) {
          const path = table.pathOf(node)
          if (path !== null) t.is(table.find(path), node)
          for (const [child, below] of node.children)
            t.true(below.places.some(place => place.parent === node && place.name === child))
          for (const place of node.places) t.is(place.parent.children.get(place.name), node)
        }
      }
    }),
    { numRuns: 200 },
  )
})
