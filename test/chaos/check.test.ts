/** The judge of the chaos run: each of its checks can fail, and plans can be repeated. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { temporaryFolder } from '../_temp.ts'
import { type Content, makeTree } from '../system/_tree.ts'
import { absentFrom, checkContents, checkEqual, look, type Sight, Violation } from './_check.ts'
import { keyOfBytes, Ledger } from './_ledger.ts'
import { planRound } from './_plan.ts'
import { isAlarming } from './_services.ts'

const AT = { peer: 'alice', path: 'f', round: 1, atMs: 0 }
const key = (text: string) => keyOfBytes(Buffer.from(text))

function sights(t: ExecutionContext, ...trees: Record<string, Content>[]): Sight[] {
  return trees.map((tree, index) => {
    const root = join(temporaryFolder(t), 'root')
    mkdirSync(root)
    makeTree(root, tree)
    return look(`peer ${index}`, root, new Map())
  })
}

function ledgerOf(...texts: string[]): Ledger {
  const ledger = new Ledger(() => {})
  for (const text of texts) ledger.acted(AT, 'create', null, key(text))
  return ledger
}

function broken(t: ExecutionContext, work: () => void, kind: string): void {
  t.is(t.throws(work, { instanceOf: Violation })?.kind, kind)
}

test('a plan is the same each time, another one for each round, and all acts and faults have their turn', t => {
  t.deepEqual(planRound(3, 4), planRound(3, 4))
  t.notDeepEqual(planRound(3, 4), planRound(3, 5))
  const kinds = new Set<string>()
  for (let round = 1; round <= 100; round++)
    for (const step of planRound(1, round).steps) kinds.add(step.is === 'act' ? step.act.do : step.fault.do)
  t.is(kinds.size, 29 + 24, [...kinds].sort().join(' '))
})

test('a write that nobody replaced must be somewhere: at a path, or in a version store', t => {
  const ledger = ledgerOf('kept', 'shown')
  const versions = { '.realize/versions/1': 'kept' }
  t.notThrows(() => checkContents(sights(t, { f: 'shown' }, { f: 'shown', ...versions }), ledger))
  broken(t, () => checkContents(sights(t, { f: 'shown' }, { f: 'shown' }), ledger), 'I1 lost write')
  ledger.acted(AT, 'overwrite', key('kept'), key('shown'))
  t.notThrows(() => checkContents(sights(t, { f: 'shown' }, { f: 'shown' }), ledger))
})

test('content that nobody wrote, and content that comes back, are found', t => {
  const ledger = ledgerOf('first')
  broken(t, () => checkContents(sights(t, { f: 'first', g: 'fir' }), ledger), 'I5 invented content')
  ledger.acted(AT, 'delete', key('first'), null)
  t.notThrows(() => checkContents(sights(t, { f: 'first' }), ledger))
  ledger.absent = absentFrom(sights(t, {}), ledger)
  broken(t, () => checkContents(sights(t, { f: 'first' }), ledger), 'I4 resurrection')
})

test('trees that differ are found, but for what each has for itself', t => {
  broken(t, () => checkEqual(sights(t, { f: 'x' }, { f: 'y' })), 'I2 different trees')
  broken(t, () => checkEqual(sights(t, { f: 'x' }, {})), 'I2 different trees')
  broken(t, () => checkEqual(sights(t, { folder: null }, {})), 'I2 different trees')
  const [first] = sights(t, { '.realizeignore': '*.log\n', 'a/b/x.log': '1', 'c/y.log': '2', 'c/z': '3' })
  t.deepEqual([...first!.synced.keys()].sort(), ['.realizeignore', 'c', 'c/z'])
  t.deepEqual([...first!.own.keys()].sort(), ['a', 'a/b', 'a/b/x.log', 'c/y.log'])
})

test('a name that is not UTF-8 is one’s own', t => {
  const root = temporaryFolder(t)
  writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0x61, 0xff])]), 'x')
  const sight = look('peer', root, new Map())
  t.deepEqual([sight.invalid.length, sight.own.size, sight.synced.size], [1, 1, 0])
})

test('what a service must not print is told from its log', t => {
  for (const line of [
    'ready',
    '{"level":"warn","event":"entry_conflict","path":"a"}',
    '{"level":"info","event":"peer_closed","reason":"the service stops"}',
  ])
    t.false(isAlarming(line, false), line)
  for (const line of [
    '    at Object.read (node:internal/fs:83:15)',
    '(node:12) MaxListenersExceededWarning: Possible EventEmitter memory leak detected',
    '{"level":"error","event":"actor_failed","actor":"supervisor","reason":"Error: x"}',
    '{"level":"error","event":"actor_failed","actor":"arena-docs","reason":"assertion failed"}',
  ])
    t.true(isAlarming(line, false), line)
  t.false(isAlarming('{"level":"error","event":"actor_failed","actor":"arena-docs","reason":"killed"}', true))
})
