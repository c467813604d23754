/** Random scripts over three arenas, shrunk by fast-check: they agree in the end, and nothing that was written is lost. */
import test from 'ava'
import fc from 'fast-check'
import type { EntryPath } from '../../protocol/ids.ts'
import {
  assertAgree,
  connect,
  connectAll,
  disconnect,
  makeHousehold,
  type Peer,
  pass,
  settle,
  type World,
} from './_pair.ts'

const RUNS = 150
const PATHS = ['f', 'd', 'd/f', 'd/e', 'd/e/f', 'g']

type Step =
  | Change
  | { do: 'join' | 'part'; at: number; with: number }
  | { do: 'restart'; at: number }
  | { do: 'settle' }
  | { do: 'pass'; ms: number }

type Change =
  | { do: 'write' | 'delete' | 'mkdir' | 'link' | 'touch'; at: number; path: number }
  | { do: 'rename'; at: number; path: number; to: number }

const at = fc.nat(2)
const path = fc.nat(PATHS.length - 1)
const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('write' as const), at, path }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('delete' as const, 'mkdir', 'link', 'touch'), at, path }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('rename' as const), at, path, to: path }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('join' as const, 'part'), at, with: at }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const), at }) },
  { weight: 2, arbitrary: fc.constant({ do: 'settle' as const }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 300 }) }) },
)

/** Does what a user can; what the disk refuses is not done. Returns the content that was written. */
function act(world: World, step: Step, number: number): string | null {
  const { peers } = world
  if (step.do === 'settle') settle(world)
  else if (step.do === 'pass') pass(world, step.ms)
  else {
    const peer = peers[step.at] as Peer
    if (step.do === 'restart') peer.restart()
    else if (step.do === 'join' || step.do === 'part') {
      const other = peers[step.with] as Peer
      if (other !== peer) (step.do === 'join' ? connect : disconnect)(peer, other)
    } else if ('path' in step) return change(peer, step, number)
  }
  return null
}

function change(peer: Peer, step: Change, number: number): string | null {
  const where = PATHS[step.path] as EntryPath
  const folder = where.includes('/') ? (where.slice(0, where.lastIndexOf('/')) as EntryPath) : null
  if (folder !== null && peer.disk.stat(folder)?.type !== 'dir') return null
  const type = peer.disk.stat(where)?.type
  switch (step.do) {
    case 'write':
      if (type === 'dir' || type === 'symlink') return null
      peer.write(where, `content ${number} of ${peer.name}`)
      return `content ${number} of ${peer.name}`
    case 'delete':
      peer.remove(where)
      break
    case 'mkdir':
      if (type === undefined) peer.mkdir(where)
      break
    case 'link':
      if (type === undefined) peer.symlink(`target ${number}`, where)
      break
    case 'touch':
      if (type === 'file') peer.disk.touch(where, BigInt(number) * 1_000_000_000n)
      peer.touch(where)
      break
    case 'rename': {
      const to = PATHS[step.to] as string
      const into = to.includes('/') ? (to.slice(0, to.lastIndexOf('/')) as EntryPath) : null
      if (type === undefined || peer.has(to) || to.startsWith(`${where}/`)) return null
      if (into !== null && peer.disk.stat(into)?.type !== 'dir') return null
      peer.rename(where, to)
    }
  }
  return null
}

test('whatever three people do, in the end all show the same, and what nobody replaced is there', t => {
  fc.assert(
    fc.property(fc.array(stepArbitrary, { minLength: 4, maxLength: 40 }), steps => {
      const { world, peers } = makeHousehold(3, { guardDeletes: 1 })
      settle(world)
      const written = new Set<string>()
      const overwritten = new Set<string>()
      steps.forEach((step, number) => {
        // What a user writes over, or deletes, on a disk that shows it, the user has replaced.
        const peer = 'path' in step ? (peers[step.at] as Peer) : null
        const before = peer === null ? null : peer.tree()
        const text = act(world, step, number)
        if (text !== null) written.add(text)
        if (peer === null || before === null) return
        const after = new Set(Object.values(peer.tree()))
        for (const content of Object.values(before)) if (!after.has(content)) overwritten.add(content)
      })
      connectAll(world)
      settle(world)
      pass(world, 200_000)
      assertAgree(t, world)
      const shown = new Set(Object.values((peers[0] as Peer).tree()))
      for (const content of written) {
        if (!overwritten.has(content)) t.true(shown.has(content), `${content} is lost`)
      }
    }),
    { numRuns: RUNS },
  )
})
