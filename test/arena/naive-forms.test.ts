/**
 * Each rule of docs/reconciliation.md beside the form that one would write first. A script runs with both: the naive form must
 * fail, so that nobody simplifies a rule back to it, and the rule must hold.
 */
import test from 'ava'
import { openStore } from '../../actors/arena/store-tables.ts'
import { MemoryTables } from '../../actors/arena/tables-memory.ts'
import {
  type Content,
  changeVersion,
  compareVectors,
  type FileContent,
  includes,
  joinVectors,
  living,
  type Meeting,
  meet,
  sameContent,
  type Vector,
  type Version,
} from '../../actors/arena/version.ts'
import type { EntryPath, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import { makePair, Peer, settle, turn } from './_pair.ts'
import { digest, makeEntry, path } from './_store-entries.ts'
import { author, exchange, file, gone, replica } from './_versions.ts'

/** `holds` says for one form whether the promise is kept. */
function rule(title: string, holds: (form: 'rule' | 'naive') => boolean): void {
  test(title, t => {
    t.true(holds('rule'), 'the rule must hold')
    t.false(holds('naive'), 'the naive form must fail: else the example is none')
  })
}

const counts = new Map<number, number>()

/** A user's change at a peer, on top of `base`. */
function change(peer: number, base: Version | null, content: Content): Version {
  const count = (counts.get(peer) ?? 0) + 1
  counts.set(peer, count)
  return changeVersion({
    content,
    base,
    known: base,
    replica: replica(peer),
    count,
    author: author(peer),
    firstScan: false,
    policy: 'keep-both',
    nowMs: 0,
  })
}

const A = 1
const B = 2
const C = 3

// R1

rule('R1, a change is based on what the disk shows: based on what was only heard of, it silently kills that', form => {
  const first = change(A, null, file('1'))
  const second = change(A, first, file('2'))
  // b has heard of the second, and still shows the first, which its user edits.
  const peer = { have: first, known: second }
  const edit = change(B, form === 'naive' ? peer.known : peer.have, file('3'))
  // At a, which shows the second: is it kept if it loses?
  const { known, conflict } = meet(second, edit)
  return known === second || conflict
})

// R2

/** The meeting of two versions with another order of winners. */
function meetBy(greater: (a: Version, b: Version) => boolean): typeof meet {
  return (ours, theirs): Meeting => {
    if (ours === null) return { known: theirs, outcome: 'theirs', conflict: false }
    const order = compareVectors(ours.vector, theirs.vector)
    if (order === 'same' || order === 'newer') return { known: ours, outcome: 'ours', conflict: false }
    if (order === 'older' || greater(theirs, ours))
      return { known: theirs, outcome: 'theirs', conflict: order === 'concurrent' }
    return { known: ours, outcome: 'ours', conflict: true }
  }
}
const hashOf = ({ content }: Version) => (content.type === 'file' ? content.hash : '')
const mtimeNsOf = ({ content }: Version) => (content.type === 'file' ? content.mtimeNs : 0n)
const byHash = meetBy((a, b) => hashOf(a) > hashOf(b))
const byMtime = meetBy((a, b) => mtimeNsOf(a) > mtimeNsOf(b))

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]]
  return items.flatMap((item, index) => permutations(items.toSpliced(index, 1)).map(rest => [item, ...rest]))
}

/** Whatever the order in which a peer hears of all versions, it does not end with one that its own author had replaced. */
function nobodyShowsWhatWasReplaced(versions: readonly Version[], meeting: typeof meet): boolean {
  return permutations(versions).every(order => {
    const known = order.reduce<Version | null>((best, next) => meeting(best, next).known, null)
    return versions.every(other => compareVectors(other.vector, (known as Version).vector) !== 'newer')
  })
}

for (const [name, naive, contents] of [
  ['by hash alone', byHash, [file('9'), file('1'), file('5')]],
  [
    'by mtime alone, with a clock that was a year ahead,',
    byMtime,
    [file('1', { mtimeNs: 9n }), file('2', { mtimeNs: 1n }), file('3', { mtimeNs: 5n })],
  ],
] as const) {
  rule(`R2, the winner’s order extends causality: ${name} a peer shows what its own user had replaced`, form => {
    const old = change(A, null, contents[0] as FileContent)
    const edited = change(A, old, contents[1] as FileContent)
    const other = change(C, null, contents[2] as FileContent)
    return nobodyShowsWhatWasReplaced([old, edited, other], form === 'naive' ? naive : meet)
  })
}

rule('R2, the winner’s order extends causality: by hash alone a loser comes back when the winner is deleted', form => {
  const meeting = form === 'naive' ? byHash : meet
  const loser = change(A, null, file('1'))
  const winner = change(B, null, file('2'))
  const deletion = change(B, winner, gone)
  // One hears of the loser last, as from a peer that was away.
  const known = exchange(
    [
      [loser, winner, deletion],
      [winner, deletion, loser],
    ],
    meeting,
  )
  return known.every(version => !living(version))
})

rule(
  'R2, vectors are merged only where the content is the same: merged with the winner, a vector comes to name two contents',
  form => {
    const merging: typeof meet = (ours, theirs) => {
      const meeting = byHash(ours, theirs)
      if (ours === null || !meeting.conflict) return meeting
      return { ...meeting, known: { ...meeting.known, vector: joinVectors(ours.vector, theirs.vector) } }
    }
    const meeting = form === 'naive' ? merging : meet
    const other = change(A, null, file('5'))
    const old = change(B, null, file('9'))
    const edited = change(B, old, file('1'))
    const known = permutations([other, old, edited]).map(
      order => order.reduce<Version | null>((best, next) => meeting(best, next).known, null) as Version,
    )
    return known.every(a =>
      known.every(b => compareVectors(a.vector, b.vector) !== 'same' || sameContent(a.content, b.content)),
    )
  },
)

// R3

interface Shown {
  entry: { known: Version; have: Version }
  disk: Content
  copies: Content[]
  intent: { from: Version; to: Version } | null
}

/** Replaces the loser by the winner, and is killed when the winner is in place and nothing is concluded. */
function replaceAndDie(loser: Version, winner: Version, writesIntent: boolean): Shown {
  return {
    entry: { known: winner, have: loser },
    disk: winner.content,
    copies: [],
    intent: writesIntent ? { from: loser, to: winner } : null,
  }
}

/** The start after that: intents first, then the scan. */
function startAgain(shown: Shown): void {
  const { intent, entry } = shown
  if (intent) {
    if (!includes(intent.to.vector, intent.from.vector)) shown.copies.push(intent.from.content)
    shown.entry = { ...entry, have: intent.to }
  }
  if (sameContent(shown.disk, shown.entry.have.content)) return
  const edit = change(B, shown.entry.have, shown.disk)
  shown.entry = { known: meet(shown.entry.known, edit).known, have: edit }
}

function killedWhileReplacing(form: 'rule' | 'naive'): { shown: Shown; loser: Version; winner: Version } {
  const base = change(A, null, file('1'))
  const loser = change(B, base, file('2'))
  const winner = change(A, change(A, base, file('3')), file('4'))
  const shown = replaceAndDie(loser, winner, form === 'rule')
  startAgain(shown)
  return { shown, loser, winner }
}

rule(
  'R3, what is about to be done is written down: killed between placing and concluding, the loser has no copy',
  form => {
    const { shown, loser } = killedWhileReplacing(form)
    return shown.copies.some(content => sameContent(content, loser.content))
  },
)

rule(
  'R3, what is about to be done is written down: without that, what we placed looks like an edit and outlives its deletion',
  form => {
    const base = change(A, null, file('1'))
    const loser = change(B, change(B, base, file('2')), file('3'))
    const winner = change(A, change(A, base, file('5')), file('9'))
    const deletion = change(A, winner, gone)
    const shown = replaceAndDie(loser, winner, form === 'rule')
    startAgain(shown)
    return !living(meet(shown.entry.known, deletion).known)
  },
)

// R4

interface Tree {
  known: Map<string, Version>
  /** Folders that stand on the disk. */
  folders: Set<string>
}

/** A living child makes its folder; a folder that stands without a version is a local change, or dormant. */
function live(peer: number, tree: Tree, dormancy: boolean): void {
  const child = living(tree.known.get('folder/new'))
  const folder = tree.known.get('folder') ?? null
  if (living(folder) || child) tree.folders.add('folder')
  if (!living(folder) && !child && dormancy) tree.folders.delete('folder')
  if (!dormancy && tree.folders.has('folder') && !living(folder))
    tree.known.set('folder', change(peer, folder, { type: 'dir' }))
}

function tell(from: Tree, to: Tree): void {
  for (const [at, version] of from.known) to.known.set(at, meet(to.known.get(at) ?? null, version).known)
}

rule(
  'R4, a folder that is deleted and only holds something is dormant: announced as found, it comes back for ever',
  form => {
    const made = change(A, null, { type: 'dir' })
    const a: Tree = { known: new Map([['folder', made]]), folders: new Set(['folder']) }
    const b: Tree = { known: new Map([['folder', made]]), folders: new Set(['folder']) }
    const meetAll = () => {
      for (let round = 0; round < 3; round++) {
        tell(a, b)
        tell(b, a)
        live(A, a, form === 'rule')
        live(B, b, form === 'rule')
      }
    }
    // a deletes the folder, b puts a file into it; later the file is deleted.
    a.known.set('folder', change(A, made, gone))
    a.folders.delete('folder')
    const child = change(B, null, file('1'))
    b.known.set('folder/new', child)
    meetAll()
    b.known.set('folder/new', change(B, child, gone))
    meetAll()
    return !a.folders.has('folder') && !b.folders.has('folder')
  },
)

// R6

type Listing = ReadonlyMap<string, Version>

/** What a peer makes of another's whole list: with tombstones, or by "it has seen my version and does not list it". */
function readList(ours: Map<string, Version>, theirs: Listing, seen: Vector, infer: boolean): void {
  for (const [at, version] of theirs) ours.set(at, meet(ours.get(at) ?? null, version).known)
  if (!infer) return
  for (const [at, version] of ours) if (!theirs.has(at) && includes(seen, version.vector)) ours.delete(at)
}

rule(
  'R6, a deletion is a tombstone: inferred from vectors, conflict copies are deleted by those who only saw the loser',
  form => {
    const base = change(A, null, file('1'))
    const loser = change(B, base, file('2'))
    const winner = change(A, change(A, base, file('3')), file('4'))
    // b has made the copy, with the loser's own vector; a has heard of the loser, and not yet of the copy.
    const b = new Map([
      ['f', winner],
      ['f.conflict', loser],
    ])
    const seenByA = joinVectors(winner.vector, loser.vector)
    readList(b, new Map([['f', winner]]), seenByA, form === 'naive')
    return b.has('f.conflict')
  },
)

// R7

rule(
  'R7, a cursor carries the session it was read in: by number alone, a rolled-back store’s new changes are skipped',
  form => {
    const tables = new MemoryTables()
    let random = 0
    const hex = () => (++random).toString(16).padStart(16, '0')
    const open = (on: MemoryTables) =>
      openStore({
        tables: on,
        digest,
        newReplica: () => hex() as ReplicaId,
        newSession: () => hex() as SessionToken,
        boot: '',
      })
    const write = (store: ReturnType<typeof open>, ...paths: string[]) =>
      store.transact(writer => {
        for (const at of paths) writer.putEntry(makeEntry(at, change(A, null, file('1'))), true)
      })
    open(tables)
    const source = open(tables)
    write(source, 'old')
    const backup = tables.snapshot()
    const { sessions } = source.state()
    write(source, 'lost')
    const cursor = { session: sessions.at(-1)?.token as SessionToken, seq: source.state().seq }
    // The store goes back, is opened in a session whose change nobody has read, and has as many as before.
    const restored = open(backup)
    write(restored, 'new')
    const state = restored.state()
    const index = state.sessions.findIndex(({ token }) => token === cursor.session)
    const lastOfSession = state.sessions[index + 1]?.firstSeq ?? state.seq
    const trusted = form === 'naive' ? cursor.seq <= state.seq : index >= 0 && cursor.seq <= lastOfSession
    return restored.feed(trusted ? cursor.seq : 0, 10).some(entry => entry.path === path('new'))
  },
)

test('R7, the same with real arenas: what a rolled-back store wrote before it met its reader arrives', t => {
  const { world, a, b } = makePair()
  a.write('old', '1')
  settle(world)
  const backup = a.tables.snapshot()
  a.write('lost', '2')
  settle(world)
  const read = b.store.peer(a.id)?.read?.seq as number
  a.stop()
  a.tables = backup
  a.disk.remove('lost')
  a.write('new', '3')
  const links = world.links.splice(0)
  a.start()
  settle(world)
  t.true(a.store.state().seq >= read, 'by number alone there is nothing to see')
  t.true(a.store.feed(read, 10).every(entry => entry.path !== ('new' as EntryPath)))
  world.links.push(...links)
  a.restart()
  settle(world)
  t.true(b instanceof Peer && b.has('new'))
  t.deepEqual(b.tree(), a.tree())
})

test('R7, the same for a store that does not even know the session that was read: nothing but its number would tell', t => {
  const { world, a, b } = makePair()
  a.write('old', '1')
  settle(world)
  const backup = a.tables.snapshot()
  // What is read next is read in a session that the backup has never had.
  a.restart()
  settle(world)
  a.write('lost', '2')
  // b hears of it, and a never hears that it did: else what it had acknowledged of b's feed would tell, too.
  const back = world.links.find(({ from }) => from === b)
  for (let turns = 0; b.entry('lost') === undefined && turns < 10_000; turns++) {
    turn(world)
    if (back) back.queue.length = 0
    world.nowMs++
  }
  const read = b.store.peer(a.id)?.read?.seq as number
  a.stop()
  a.tables = backup
  a.disk.remove('lost')
  a.write('new', '3')
  const links = world.links.splice(0)
  a.start()
  settle(world)
  t.true(a.store.state().sessions.length > 1 && a.store.state().seq >= 2)
  for (let more = 0; a.store.state().seq < read; more++) {
    a.write(`more ${more}`, `${more}`)
    settle(world)
  }
  t.true(a.store.feed(read, 10).every(entry => entry.path !== ('new' as EntryPath)))
  world.links.push(...links)
  a.restart()
  settle(world)
  t.true(b.has('new'))
  t.deepEqual(b.tree(), a.tree())
  t.false([...a.logged, ...b.logged].includes('arena_drifted'), 'it was found in time')
})
