/** A file that has become a folder, of which the watcher tells in any order, and not of everything. */
import test from 'ava'
import { randomFrom } from '../system/_random.ts'
import { makePair, settle, turn } from './_pair.ts'

test('a file that its user has replaced by a folder is no conflict, whatever is heard of first', t => {
  for (let seed = 1; seed <= 100; seed++) {
    const random = randomFrom(seed)
    const { world, a, b } = makePair()
    for (const folder of ['x', 'y', 'y/b']) a.mkdir(folder)
    for (const file of ['x/b', 'x/f', 'y/b/d', 'y/e']) a.write(file, `content of ${file}`)
    settle(world)
    // As one exchange of two folders.
    a.disk.rename('x', 'z')
    a.disk.rename('y', 'x')
    a.disk.rename('z', 'y')
    const heard = ['x', 'y', 'x/b', 'x/b/d', 'y/b', 'x/e', 'y/e', 'y/f', 'x/f', 'y/b/d'].sort(() => random() - 0.5)
    for (const path of heard.slice(Math.floor(random() * 10))) {
      a.arena.touched([path])
      for (let turns = Math.floor(random() * 6); turns > 0; turns--) turn(world)
      if (random() < 0.3) settle(world)
    }
    a.run('rescan')
    settle(world)
    t.deepEqual(Object.keys(b.tree()).sort(), ['x', 'x/b', 'x/b/d', 'x/e', 'y', 'y/b', 'y/f'], `seed ${seed}`)
    t.deepEqual(b.tree(), a.tree(), `seed ${seed}`)
  }
})
