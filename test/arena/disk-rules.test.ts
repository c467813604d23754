/** The exchange of a slot and a path, step by step, with a user who acts between the steps. */
import test from 'ava'
import { DiskError, type DiskStat } from '../../actors/arena/disk.ts'
import { exchangeExpected, isExpected, withExec } from '../../actors/arena/disk-rules.ts'

function file(ino: bigint): DiskStat {
  return { type: 'file', size: 1, mtimeNs: 1n, ctimeNs: 1n, ino, exec: false, links: 1 }
}

/** Two places; before the nth exchange the user replaces what is at the path, or removes it (null). */
function race(edits: (DiskStat | null | undefined)[], atPath: DiskStat = file(1n)) {
  const state = { path: atPath as DiskStat | null, slot: file(9n) as DiskStat | null, strays: [] as bigint[] }
  let turn = 0
  const steps = {
    slot: () => state.slot,
    exchange: () => {
      const edit = edits[turn++]
      if (edit !== undefined) state.path = edit
      if (state.path === null) return false
      ;[state.path, state.slot] = [state.slot, state.path]
      return true
    },
    stray: () => {
      if (state.slot !== null) state.strays.push(state.slot.ino)
      state.slot = null
    },
  }
  return { state, steps }
}

test('nobody interferes: the former content is in the slot', t => {
  const { state, steps } = race([])
  t.is(exchangeExpected(file(1n), 'p', steps), 'placed')
  t.deepEqual([state.path?.ino, state.slot?.ino, state.strays], [9n, 1n, []])
})

test('an edit just before the exchange goes back to its place', t => {
  const { state, steps } = race([file(2n)])
  t.is(exchangeExpected(file(1n), 'p', steps), 'unexpected')
  t.deepEqual([state.path?.ino, state.slot?.ino, state.strays], [2n, 9n, []])
})

test('a removal just before the exchange stays a removal', t => {
  const { state, steps } = race([null])
  t.is(exchangeExpected(file(1n), 'p', steps), 'unexpected')
  t.deepEqual([state.path, state.slot?.ino], [null, 9n])
})

test('of two edits the newer is in place and the older in the version store', t => {
  const { state, steps } = race([file(2n), file(3n)])
  const error = t.throws(() => exchangeExpected(file(1n), 'p', steps), { instanceOf: DiskError })
  t.is((error as DiskError).code, 'ESTALE')
  t.deepEqual([state.path?.ino, state.slot, state.strays], [3n, null, [2n]])
})

test('a newer edit that got the inode of the staged file is not taken for it', t => {
  const { state, steps } = race([file(2n), { ...file(9n), mtimeNs: 5n }])
  t.throws(() => exchangeExpected(file(1n), 'p', steps), { instanceOf: DiskError })
  t.deepEqual([state.path?.mtimeNs, state.slot, state.strays], [5n, null, [2n]])
})

test('an edit and then a removal: the path stays free and the edit is in the version store', t => {
  const { state, steps } = race([file(2n), null])
  t.throws(() => exchangeExpected(file(1n), 'p', steps), { instanceOf: DiskError })
  t.deepEqual([state.path, state.strays], [null, [2n]])
})

test('a file is expected by type, size, time and inode; a folder by its inode', t => {
  t.true(isExpected({ ...file(1n), ctimeNs: 5n, links: 2, exec: true }, file(1n)))
  for (const other of [{ size: 2 }, { mtimeNs: 2n }, { ino: 2n }, { type: 'symlink' as const }])
    t.false(isExpected({ ...file(1n), ...other }, file(1n)))
  t.false(isExpected(null, file(1n)))
  const folder: DiskStat = { ...file(1n), type: 'dir' }
  t.true(isExpected({ ...folder, mtimeNs: 7n, size: 7 }, folder))
})

test('execute bits follow the read bits', t => {
  t.is(withExec(0o640, true), 0o750)
  t.is(withExec(0o600, true), 0o700)
  t.is(withExec(0o755, false), 0o644)
})
