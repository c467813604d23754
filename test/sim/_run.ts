/** Runs a script to its end and judges what came of it; shrinks one that fails. */

import { conflictOrigin } from '../../actors/arena/conflict-name.ts'
import type { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import { folderOfIgnoreFile, IgnoreRules, isIgnoreFile } from '../../actors/arena/ignore-rules.ts'
import { givesUp, isUnshown } from '../../actors/arena/plan.ts'
import { RULES, type Rules } from '../../actors/arena/rules.ts'
import type { Entry } from '../../actors/arena/store.ts'
import { hashSmall } from '../../actors/hasher/merkle.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { contentKey, contentsOf, pathsOf, treeOf } from './_ledger.ts'
import { SimulationFailure } from './_parts.ts'
import type { Script, Step } from './_script.ts'
import { type Peer, World } from './_world.ts'

/** Simulated time in which a healed household must agree. */
const SETTLE_MAX_MS = 20 * 60_000
/** Everybody has looked at its whole disk since it was healed. */
const SETTLE_MIN_MS = 65_000
/** By then the watcher has told what a user did, if it tells, and an editor has done what it does after a save. */
const UNSEEN_MS = 5_000
/** Three scans, and every back-off at its longest. */
const QUIET_MS = 200_000

export interface Outcome {
  readonly failure: SimulationFailure | null
  readonly trace: string
  readonly counts: ReadonlyMap<string, number>
  /** Conflict copies at the end, and those of them whose content users had replaced. */
  readonly copies: number
  readonly superfluous: number
}

/** `traced`: with a hash of the course. Without it is faster, and takes the same course. */
export function run(
  script: Script,
  print: ((line: string) => void) | null = null,
  traced = true,
  rules: Rules = RULES,
): Outcome {
  const world = new World(script, rules)
  world.print = print
  world.traced = traced || print !== null
  let failure: SimulationFailure | null = null
  try {
    course(world)
  } catch (error) {
    if (error instanceof SimulationFailure) failure = error
    else if (error instanceof Unanswerable) world.count('unanswerable')
    else failure = new SimulationFailure('crash', String((error as Error).stack))
  }
  const { copies, superfluous } = failure ? { copies: 0, superfluous: 0 } : countCopies(world)
  return { failure, trace: world.traceHash(), counts: world.counts, copies, superfluous }
}

function course(world: World): void {
  for (const peer of world.peers) world.at(world.chance() * 500, () => world.start(peer))
  const phases = Math.max(0, ...world.script.steps.map(step => step.phase)) + 1
  let absent = new Set<string>()
  for (let phase = 0; phase < phases; phase++) {
    world.trouble()
    const steps = world.script.steps.filter(step => step.phase === phase)
    const baseMs = world.nowMs
    for (const step of steps) world.schedule(step, baseMs)
    world.runUntil(baseMs + Math.max(0, ...steps.map(step => step.atMs)) + 1_000)
    world.heal()
    settle(world)
    check(world, absent)
    absent = absentContents(world)
    if (phase === phases - 1) quiet(world)
  }
}

function settle(world: World): void {
  const startMs = world.nowMs
  let asked = false
  for (;;) {
    world.runUntil(world.nowMs + 5_000)
    world.resume()
    const agreed = world.peers.every(peer => peer.arena?.status().consensus)
    // Who says that all is the same says so of the disks, too.
    if (agreed && !asked && !world.linked && !isGivingUp(world) && world.nowMs - world.userMs > UNSEEN_MS) {
      asked = true
      const wrong = differences(world)
      if (wrong.length > 0) throw new SimulationFailure('I13 not honest', wrong.join(' | '))
    }
    if (agreed && world.nowMs - startMs >= SETTLE_MIN_MS && !isGivingUp(world)) {
      const hanging = world.hangingReads(READ_MS_MAX)
      if (hanging > 0) throw new SimulationFailure('a read hangs', `${hanging} of them`)
      return
    }
    if (world.nowMs - startMs > SETTLE_MAX_MS) {
      if (wantsWhatNobodyHas(world) || isIgnoredInTheWay(world)) throw new Unanswerable()
      throw new SimulationFailure('no consensus', missing(world))
    }
  }
}

/** A read of a peer that is silent for ever is given up after 15 s; what it asks others after that takes as long again at most. */
const READ_MS_MAX = 60_000

/** Content is on its way out at this moment. */
function isGivingUp({ peers }: World): boolean {
  return peers.some(({ store }) => store?.intents().some(givesUp) ?? false)
}

/** There can be no consensus, and there is none: as when a store was lost with the only words of some content after its user had replaced it. */
class Unanswerable extends Error {}

/** A rule speaks of folders of a name, and others have a file of it: a person must decide. */
function isIgnoredInTheWay({ peers }: World): boolean {
  return peers.some(peer => peer.arena?.status().missing.some(reason => reason.includes('in its place is ignored')))
}

function wantsWhatNobodyHas(world: World): boolean {
  const held = new Set(world.peers.flatMap(peer => pathsOf(peer.disk).map(path => blobOf(peer, path))))
  return world.peers.some(({ store }) =>
    (store?.pendingPage(null, 1000) ?? []).some(path => {
      const content = store?.entry(path)?.known.content
      return content?.type === 'file' && content.size > 0 && !held.has(content.hash)
    }),
  )
}

function blobOf({ disk }: Peer, path: string): string | null {
  return disk.stat(path as EntryPath)?.type === 'file' ? hashSmall(disk.readFile(path)) : null
}

function missing(world: World): string {
  return world.peers.map(peer => `${peer.name}: ${peer.arena?.status().missing.join('; ') ?? 'down'}`).join(' | ')
}

/** What peers show that must be the same and is not. */
function differences(world: World): string[] {
  const first = world.peers[0] as Peer
  const tree = syncedTree(world, first)
  for (const peer of world.peers) {
    const other = syncedTree(world, peer)
    const paths = [...new Set([...tree.keys(), ...other.keys()])].sort()
    const wrong = paths.filter(path => tree.get(path) !== other.get(path) && !own(first, path) && !own(peer, path))
    if (wrong.length > 0) {
      return wrong.slice(0, 5).map(path => `${path}: ${first.name} ${tree.get(path)}, ${peer.name} ${other.get(path)}`)
    }
  }
  return []
}

/** Without what this peer ignores, and the folders that it only keeps for that. */
function syncedTree(world: World, peer: Peer): Map<string, string> {
  const { disk, store } = peer
  const tree = treeOf(disk)
  if (world.marking) addUnreal(world, peer, tree)
  if (!world.ignoring) return tree
  const rules = rulesOf(disk)
  for (const [path, what] of tree) if (rules.ignores(path as EntryPath, what === 'dir')) tree.delete(path)
  const paths = [...tree.keys()]
  for (const path of paths) {
    if (!store?.entry(path as EntryPath)?.dormant || tree.get(path) !== 'dir') continue
    if (!paths.some(other => other.startsWith(`${path}/`) && tree.get(other) !== 'dir')) tree.delete(path)
  }
  return tree
}

/** What this peer only knows of, as if it showed it. */
function addUnreal({ peers }: World, peer: Peer, tree: Map<string, string>): void {
  const unreal = unrealOf(peer)
  if (unreal.length === 0) return
  const keys = new Map<string | null, string | null>()
  for (const { disk } of peers) {
    for (const path of pathsOf(disk))
      if (disk.stat(path as EntryPath)?.type === 'file')
        keys.set(hashSmall(disk.readFile(path)), contentKey(disk, path))
  }
  for (const { path, known } of unreal) {
    const { content } = known
    if (content.type === 'file')
      tree.set(path, `file ${keys.get(content.hash)} ${content.exec ? 'x' : '-'} ${content.mtimeNs}`)
  }
}

/** Files that this peer only knows of, and wants nothing else. */
function unrealOf({ store, marks }: Peer): Entry[] {
  const entries = store?.page(null, 10_000, null) ?? []
  return entries.filter(entry => isUnshown(entry) && !entry.pending && !marks.wantsReal(entry.path))
}

/**
 * I7: each living file is an ordinary one somewhere. After a power loss, or with a store that was put back, it may be lost for good; and a
 * name that was given through a mount to what its holder's user knowingly replaced meanwhile is one without content (docs/guarantees.md).
 */
function checkShown(world: World): void {
  if (!world.marking || world.script.steps.some(step => EXCUSES.has(step.do))) return
  for (const { path, known } of unrealOf(world.peers[0] as Peer)) {
    const { content } = known
    if (content.type !== 'file') continue
    const renamed = world.ledger.renamedUnseen.get(path)
    if (renamed?.hash === content.hash && !world.ledger.required.has(renamed.key)) continue
    if (
      !world.peers.some(
        ({ disk }) => disk.stat(path)?.type === 'file' && hashSmall(disk.readFile(path)) === content.hash,
      )
    )
      throw new SimulationFailure('I7 shown nowhere', path)
  }
}

function rulesOf(disk: MemoryDisk): IgnoreRules {
  const rules = new IgnoreRules([])
  for (const path of pathsOf(disk)) {
    if (!isIgnoreFile(path as EntryPath) || disk.stat(path as EntryPath)?.type !== 'file') continue
    rules.setFolder(folderOfIgnoreFile(path as EntryPath), Buffer.from(disk.readFile(path)).toString())
  }
  return rules
}

/** A path where this peer goes on showing its own (policy `local`). */
function own({ store, marks }: Peer, path: string): boolean {
  const entry = store?.entry(path as EntryPath)
  if (entry && isUnshown(entry) && !marks.wantsReal(entry.path)) return false
  return entry !== undefined && !entry.pending && entry.have !== entry.known
}

function check(world: World, absent: ReadonlySet<string>): void {
  const first = world.peers[0] as Peer
  const wrong = differences(world)
  if (wrong.length > 0) throw new SimulationFailure('I2 different trees', wrong.join(' | '))
  for (const peer of world.peers) {
    if (peer.arena?.status().root !== first.arena?.status().root)
      throw new SimulationFailure('I2 different roots', peer.name)
    checkStore(world, peer)
    const reason = peer.guards.find(guard => !excused(world, guard))
    if (reason !== undefined) throw new SimulationFailure('I9 stopped without need', `${peer.name}: ${reason}`)
  }
  const held = new Set(
    world.peers.flatMap(({ disk, store }) => {
      // What no row speaks of, nobody can restore.
      const rows = new Set(store?.kept(null, 100_000).map(kept => kept.id))
      return [...contentsOf(disk, kept => rows.has(kept))]
    }),
  )
  // What is ignored is where it was written, and nowhere else.
  checkShown(world)
  const showing = world.ignoring || world.marking ? world.peers : [first]
  const shown = new Set(showing.flatMap(({ disk }) => [...contentsShown(disk)]))
  const plain = world.script.race === 0 && !world.script.steps.some(step => EXCUSES.has(step.do))
  for (const [key, { peer, path, atMs }] of world.ledger.required) {
    const what = `${path} that ${world.peers[peer]?.name} wrote at ${atMs.toFixed(1)} (${key})`
    if (!held.has(key)) throw new SimulationFailure('I1 lost write', what)
    if (plain && !shown.has(key) && !world.ledger.overSame.has(key))
      throw new SimulationFailure('I1 hidden write', what)
  }
  for (const path of treeOf(first.disk).keys()) {
    const key = contentKey(first.disk, path)
    if (key === null || key === 'empty') continue
    if (!world.ledger.written.has(key)) throw new SimulationFailure('I5 invented content', `${path} (${key})`)
    if (absent.has(key) && !world.ledger.required.has(key) && !world.ledger.returned.has(key))
      throw new SimulationFailure('I4 resurrection', `${path} (${key})`)
  }
}

/**
 * After these, or races in the moment of a change, a write that nobody has replaced may be in a version store alone. Else it stands at
 * a path: its own or a conflict copy's. To write the same once more (`rewrite`, a copy of a file to its own path) is no edit, and loses to
 * others' changes; so does a file that was moved over its equal, of the same mtime: two users who each keep another of two equal names
 * have deleted both.
 */
const EXCUSES = new Set<Step['do']>(['power', 'lose_store', 'restore_store', 'full', 'rewrite', 'errors', 'unmount'])

function contentsShown(disk: Peer['disk']): Set<string | null> {
  return new Set(pathsOf(disk).map(path => contentKey(disk, path)))
}

/** A disk that fails, is full or is not there is a reason to stop. */
function excused({ script }: World, guard: string): boolean {
  const reasons = script.steps.flatMap(step => {
    if (step.do === 'full') return ['ENOSPC', 'full']
    if (step.do === 'errors') return ['cannot be used', 'EIO', 'EACCES', 'EMFILE', 'ENOSPC']
    return step.do === 'unmount' ? ['is gone', 'is not the one'] : []
  })
  return reasons.some(reason => guard.includes(reason))
}

/** The store says what the disk shows, and nothing is left half done. */
function checkStore(world: World, peer: Peer): void {
  const { disk, store, name } = peer
  if (!store) return
  const rules = world.ignoring ? rulesOf(disk) : null
  const staged = disk.stageList().filter(slot => !slot.startsWith('b-'))
  if (staged.length > 0) throw new SimulationFailure('I12 left in staging', `${name}: ${staged.join(' ')}`)
  if (store.intents().length > 0) throw new SimulationFailure('I12 intents left', name)
  for (const path of pathsOf(disk)) {
    const entry = store.entry(path as EntryPath)
    const type = disk.stat(path as EntryPath)?.type
    // A folder that only holds something alive.
    if (entry?.dormant && type === 'dir' && (rules || store.hasLivingBelow(entry.path))) continue
    if (rules?.ignores(path as EntryPath, type === 'dir') || own(peer, path)) continue
    if (entry?.known.content.type !== type) {
      throw new SimulationFailure(
        'I13 store and disk',
        `${name}: ${path} is a ${type}, known as ${entry?.known.content.type}`,
      )
    }
  }
  for (const entry of store.page(null, 10_000, null)) {
    if (rules?.ignores(entry.path, entry.known.content.type === 'dir') || own(peer, entry.path)) continue
    if (world.marking && isUnshown(entry) && !entry.pending && !peer.marks.wantsReal(entry.path)) continue
    if (entry.known.content.type !== 'gone' && disk.stat(entry.path) === null) {
      throw new SimulationFailure(
        'I13 store and disk',
        `${name}: ${entry.path} is known as ${entry.known.content.type} and not there`,
      )
    }
  }
}

/** What has been written and is at no path now: it must not come back by itself. */
function absentContents({ peers, ledger }: World): Set<string> {
  const present = new Set(peers.flatMap(({ disk }) => [...contentsShown(disk)]))
  return new Set([...ledger.written.keys()].filter(key => !present.has(key)))
}

/** I3: after agreement nothing happens any more. */
function quiet(world: World): void {
  const before = world.peers.map(peer => ({ seq: peer.store?.state().seq, changes: peer.disk.changes }))
  const entries = world.feedEntries
  world.runUntil(world.nowMs + QUIET_MS)
  world.peers.forEach((peer, index) => {
    const { seq, changes } = before[index] as (typeof before)[number]
    if (peer.store?.state().seq !== seq) throw new SimulationFailure('I3 not quiet', `${peer.name} announces`)
    // What nobody held for certain may be given up now.
    if (peer.disk.changes !== changes && !world.marking)
      throw new SimulationFailure('I3 not quiet', `${peer.name} writes to its disk`)
    const open = peer.disk.openFiles - world.heldByConnections(peer)
    if (open > 0) throw new SimulationFailure('I12 descriptors left', `${peer.name}: ${open}`)
  })
  if (world.feedEntries !== entries)
    throw new SimulationFailure('I3 not quiet', `${world.feedEntries - entries} feed entries`)
}

function countCopies(world: World): { copies: number; superfluous: number } {
  const { disk } = world.peers[0] as Peer
  const copies = pathsOf(disk).filter(path => conflictOrigin(path as EntryPath) !== undefined)
  const superfluous = copies.filter(path => !world.ledger.required.has(contentKey(disk, path) ?? ''))
  return { copies: copies.length, superfluous: superfluous.length }
}

/** Leaves out steps as long as it fails in the same way. */
export function shrink(script: Script, kind: string, triesMax = 150, rules: Rules = RULES): Script {
  let best = script
  let tries = 0
  const fails = (steps: readonly Step[]) => {
    tries++
    return run({ ...best, steps }, null, false, rules).failure?.kind === kind
  }
  for (let size = Math.ceil(best.steps.length / 2); size >= 1; ) {
    let smaller = false
    for (let at = 0; at < best.steps.length && tries < triesMax; ) {
      const steps = [...best.steps.slice(0, at), ...best.steps.slice(at + size)]
      if (steps.length < best.steps.length && fails(steps)) {
        best = { ...best, steps }
        smaller = true
      } else at += size
    }
    if (tries >= triesMax) break
    if (size === 1 && !smaller) break
    size = size === 1 ? 1 : Math.ceil(size / 2)
  }
  return best
}
