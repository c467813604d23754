/**
 * The defects, as data: what each takes away from the engine, and where one may hope to find it. The text to replace must
 * be in its file exactly once, so the list is kept up as the code changes.
 */
import type { Faults } from '../_script.ts'

export interface Edit {
  /** From the project's folder. */
  readonly file: string
  readonly search: string
  readonly replace: string
}

export interface Mutant {
  readonly name: string
  /** One sentence, for the table of docs/guarantees.md. */
  readonly takenAway: string
  readonly edits: readonly Edit[]
  /** Classes of the simulator's faults that can show it, the likeliest first; none: the simulator cannot. */
  readonly faults: readonly Faults[]
  /** Test files that must find what the simulator does not. */
  readonly tests?: readonly string[]
  /** Why nothing need find it: the promise holds without it, by another rule. */
  readonly survives?: string
}

const APPLY = 'actors/arena/apply.ts'
const ARENA = 'actors/arena/arena.ts'
const FEED = 'actors/arena/feed.ts'
const DELETION_GUARD = 'actors/arena/deletion-guard.ts'
const FETCH = 'actors/arena/fetch.ts'
const GIVE_UP = 'actors/arena/give-up.ts'
const LEASE = 'actors/arena/lease.ts'
const LOCAL = 'actors/arena/local.ts'
const RULES = 'actors/arena/rules.ts'
const STEPS = 'actors/arena/steps.ts'
const STORE = 'actors/arena/store-tables.ts'
const TAKE_CHANGE = 'actors/arena/take-change.ts'
const VERSION = 'actors/arena/version.ts'
const WALK = 'actors/arena/walk.ts'

export const MUTANTS: readonly Mutant[] = [
  // Versions and winners

  {
    name: 'change-on-known',
    takenAway: 'A local change is based on what the disk shows (R1): it is based on what was only heard of',
    edits: [
      {
        file: TAKE_CHANGE,
        search: 'base: entry && suspect ? entry.former : (seen ?? rules.base(entry)),',
        replace: 'base: entry && suspect ? entry.former : (entry?.known ?? base),',
      },
    ],
    faults: ['cut', 'all'],
  },
  {
    name: 'last-comer-wins',
    takenAway: 'All peers choose the same winner (R2): who comes last wins',
    edits: [
      { file: VERSION, search: 'const theyWin = compareWinners(theirs, ours) > 0', replace: 'const theyWin = true' },
    ],
    faults: ['none', 'cut'],
    tests: ['test/arena/version.test.ts'],
  },
  {
    name: 'winner-without-generation',
    takenAway: 'The winner’s order extends causality (R2): the generation is left out',
    edits: [{ file: VERSION, search: '    a.g - b.g ||\n', replace: '' }],
    faults: ['cut', 'all'],
    tests: ['test/arena/version.test.ts'],
  },
  {
    name: 'vectors-of-other-content-merged',
    takenAway: 'Vectors are merged only where the content is the same (R2): the winner takes the loser’s in',
    edits: [
      {
        file: VERSION,
        search: "return { known: theyWin ? theirs : ours, outcome: theyWin ? 'theirs' : 'ours', conflict: true }",
        replace:
          "const won = theyWin ? theirs : ours\n  return { known: { ...won, vector: joinVectors(ours.vector, theirs.vector) }, outcome: theyWin ? 'theirs' : 'ours', conflict: true }",
      },
    ],
    faults: ['cut', 'all'],
  },
  {
    name: 'copy-named-after-winner',
    takenAway: 'A conflict copy is named after the loser (R3): after the winner',
    edits: [
      {
        file: APPLY,
        search: '{ path: this.#freeName(task.path, shown), version: shown }',
        replace: '{ path: this.#freeName(task.path, known), version: shown }',
      },
    ],
    faults: ['cut', 'all'],
    tests: ['test/arena/arena-pair.test.ts'],
  },
  {
    name: 'no-copy-of-the-loser',
    takenAway: 'Who replaces what the new version does not include keeps a copy beside (R3): only in the version store',
    edits: [
      {
        file: APPLY,
        search: 'const copy = kept && shown && needsCopy(entry) ?',
        replace: 'const copy = kept && shown && needsCopy(entry) && kept.size < 0 ?',
      },
    ],
    faults: ['cut', 'all'],
  },

  // Kills

  {
    name: 'no-intent',
    takenAway: 'What is about to be done is written down (R3): nothing is',
    edits: [{ file: APPLY, search: '        if (rules.intends) writer.putIntent(step)\n', replace: '' }],
    faults: ['kill', 'all'],
    tests: ['test/arena/arena-crash.test.ts'],
  },
  {
    name: 'intents-forgotten',
    takenAway: 'After a kill the steps that were begun are finished or taken back: they are forgotten',
    edits: [
      {
        file: APPLY,
        search: '    this.#steps.settle(powerLost)\n    if (powerLost)',
        replace:
          '    store.transact(writer => { for (const { path } of store.intents()) writer.removeIntent(path) })\n    if (powerLost)',
      },
      {
        file: APPLY,
        search: '  recover(powerLost: boolean): void {\n    const { disk } = this.#context',
        replace: '  recover(powerLost: boolean): void {\n    const { disk, store } = this.#context',
      },
    ],
    faults: ['kill', 'all'],
    tests: ['test/arena/arena-crash.test.ts'],
  },
  {
    name: 'cursor-before-entries',
    takenAway: 'Entries and the cursor that brought them are one transaction: the cursor is written first, by itself',
    edits: [
      {
        file: FEED,
        search: '    store.transact(writer => {\n      entries.forEach(',
        replace:
          '    store.transact(writer => writer.putPeer(peer, { acknowledged: before?.acknowledged ?? null, read: cursor }))\n    store.transact(writer => {\n      entries.forEach(',
      },
    ],
    faults: ['kill', 'power', 'all'],
    tests: ['test/arena/arena-crash.test.ts'],
  },

  // Power

  {
    name: 'no-sync-before-placing',
    takenAway: 'Staged content is made durable before it gets its name (R5): it is placed at once',
    edits: [
      {
        file: APPLY,
        search: 'if (!rules.syncsFirst || !tasks.some(task => task.slot !== null)) return this.#endBatch(tasks)',
        replace: 'if (tasks.length > 0) return this.#endBatch(tasks)',
      },
    ],
    faults: ['power', 'all'],
  },
  {
    name: 'durable-without-sync',
    takenAway: 'An entry counts as durable after a sync that began after it (R5): it counts so at once',
    edits: [
      {
        file: ARENA,
        search: '  #announced(): void {\n    this.#unsynced = true\n',
        replace:
          '  #announced(): void {\n    this.#unsynced = true\n    const { store: all } = this.#context\n    if (!this.#suspecting) all.transact(writer => writer.setState({ durableSeq: all.state().seq }))\n',
      },
    ],
    faults: ['power', 'all'],
  },
  {
    name: 'volatile-is-trusted',
    takenAway: 'After the machine went down what was volatile is looked at with suspicion (R5): it is trusted',
    edits: [
      {
        file: ARENA,
        search: '    if (boot === this.#parts.boot) return\n',
        replace: '    if (boot !== null) return\n',
      },
    ],
    faults: ['power', 'all'],
  },
  {
    name: 'acknowledged-before-durable',
    takenAway: 'A batch is acknowledged once it is durable: at once',
    edits: [
      {
        file: FEED,
        search: '    this.#context.store.flushed(() => {\n      if (this.sessions.get(peer) !== session',
        replace: '    ;((done: () => void) => done())(() => {\n      if (this.sessions.get(peer) !== session',
      },
    ],
    faults: ['power', 'all'],
  },
  {
    name: 'fresh-replica-named-too-soon',
    takenAway: 'A fresh replica is durable before anybody hears of it (R7): it is named at once',
    edits: [
      {
        file: FEED,
        search: '    this.#context.store.flushed(() => {\n      if (this.#afresh !== afresh) return',
        replace: '    ;((done: () => void) => done())(() => {\n      if (this.#afresh !== afresh) return',
      },
    ],
    faults: ['power', 'all'],
  },

  // Stores that are lost or go back

  {
    name: 'cursor-without-session',
    takenAway: 'A cursor names the session of the store that it read (R7): a number alone is believed',
    edits: [
      {
        file: RULES,
        search: '    if (index < 0) return false\n    const next',
        replace: '    if (index < 0) return read.seq <= state.seq\n    const next',
      },
    ],
    faults: ['store', 'all'],
    tests: ['test/arena/naive-forms.test.ts', 'test/arena/arena-pair.test.ts'],
  },
  {
    name: 'counts-used-twice',
    takenAway: 'A store that went back counts on under a new name (R7): under the old one',
    edits: [
      {
        file: FEED,
        search: '    const replica = random() as ReplicaId\n    const affected',
        replace: '    const replica = old\n    const affected',
      },
    ],
    faults: ['store', 'all'],
  },
  {
    name: 'no-echo',
    takenAway: 'A peer that opens is told again what had come from it: it is not',
    edits: [
      {
        file: FEED,
        search: 'if (entry.origin === session.id && entry.seq > session.echoUpTo) continue',
        replace: 'if (entry.origin === session.id) continue',
      },
    ],
    faults: ['store', 'all'],
  },
  {
    name: 'rollback-of-reader-unnoticed',
    takenAway: 'A reader that asks for less than it had acknowledged was rolled back (R7): it is simply served',
    edits: [
      { file: FEED, search: '      from < before.seq\n    ) {', replace: '      from < before.seq - 1e9\n    ) {' },
    ],
    faults: ['store', 'power', 'all'],
    survives: 'the cursors that its peers have of it tell the same, unless it had announced nothing since',
  },

  // Deletions and folders

  {
    name: 'tombstone-dropped',
    takenAway: 'Tombstones are kept (R6): dropped as soon as this disk shows nothing',
    edits: [
      {
        file: STORE,
        search: "        tables.put('entries', key, packEntry(numbered))\n        remember(entry.path, numbered)\n",
        replace:
          "        if (entry.known.content.type === 'gone' && !entry.pending && !entry.dormant) {\n          if (before) tables.remove('entries', key)\n          if (announce) tables.remove('feed', numberKey(seq))\n          remember(entry.path, null)\n        } else {\n          tables.put('entries', key, packEntry(numbered))\n          remember(entry.path, numbered)\n        }\n",
      },
    ],
    faults: ['cut', 'all'],
  },
  {
    name: 'deletion-wins-over-edit',
    takenAway: 'A deletion is the lesser half-step (R2): it outweighs an edit of the same base',
    edits: [
      {
        file: VERSION,
        search: "if (content.type === 'gone') return Math.floor(base.g) + 0.5",
        replace: "if (content.type === 'gone') return Math.floor(base.g) + 1.5",
      },
    ],
    faults: ['cut', 'all'],
    tests: ['test/arena/version.test.ts'],
  },
  {
    name: 'folder-removed-with-its-content',
    takenAway: 'A folder is removed when it is empty: with all that is in it',
    edits: [
      {
        file: STEPS,
        search: '    // It holds what is not ours to remove, or not yet removed.\n',
        replace:
          "    ;(disk as unknown as { remove(path: string): void }).remove(entry.path)\n    if (disk.stat(entry.path) === null) return 'done'\n",
      },
    ],
    faults: ['none', 'cut', 'all'],
    tests: ['test/arena/arena-pair.test.ts'],
  },
  {
    name: 'dormant-folder-announced',
    takenAway: 'A folder that only holds something is no local change (R4): it is announced as new',
    edits: [
      {
        file: TAKE_CHANGE,
        search: "  if (content.type === 'dir' && entry?.dormant) return 'nothing'\n",
        replace: '',
      },
      { file: WALK, search: 'return !entry.dormant && !showsFolder(entry)', replace: 'return !showsFolder(entry)' },
    ],
    faults: ['cut', 'all'],
    tests: ['test/arena/arena-pair.test.ts'],
  },
  {
    name: 'deletion-believed-at-once',
    takenAway: 'A deletion is believed when the path is still missing a moment later: it is not looked at again',
    edits: [
      {
        file: LOCAL,
        search:
          "      if (stat === null || this.rules.ignores(path, stat.type === 'dir')) gone.push(path)\n      else if",
        replace: '      gone.push(path)\n      if (stat === null) continue\n      if',
      },
    ],
    faults: ['none', 'cut', 'all'],
    tests: ['test/arena/arena-pair.test.ts'],
  },
  {
    name: 'ignored-is-deleted',
    takenAway: 'What is ignored here is left alone (I8): it is taken for deleted',
    edits: [
      {
        file: WALK,
        search: '      if (known) yield* missing(known)\n',
        replace: "      if (known) yield { is: 'missing', path, entry: known }\n",
      },
      {
        file: LOCAL,
        search: '      if (entry && this.#ignoresShown(entry)) continue\n',
        replace: '',
      },
    ],
    faults: ['rules'],
    tests: ['test/arena/arena-pair.test.ts'],
  },

  {
    name: 'any-root-is-taken',
    takenAway: 'The root is the folder that was synced, by its marker (I9): whatever folder is there is scanned',
    edits: [
      {
        file: ARENA,
        search: '    if (marker === known) return true\n',
        replace: '    if (marker !== undefined) return true\n',
      },
    ],
    faults: ['disk'],
    tests: ['test/arena/arena-pair.test.ts'],
  },
  {
    name: 'any-number-of-deletions',
    takenAway: 'Too many deletions at once stop the arena (I9): they are believed',
    edits: [
      {
        file: DELETION_GUARD,
        search: '    if (this.#allowed || part >= 1) return null\n',
        replace: '    if (part >= 0) return null\n',
      },
    ],
    faults: [],
    tests: ['test/arena/arena-pair.test.ts'],
  },
  {
    name: 'deletions-told-while-stopped',
    takenAway: 'A stopped arena tells of no deletion (I9): what is found missing after that is judged, and told',
    edits: [
      {
        file: LOCAL,
        search: '    if (!this.#events.working()) return this.#missNothing()\n',
        replace: '',
      },
    ],
    faults: [],
    tests: ['test/arena/arena-pair.test.ts'],
  },

  // The last moment

  {
    name: 'disk-not-checked-again',
    takenAway: 'What is on the disk is checked in the moment of the change: whatever is there is replaced',
    edits: [
      {
        file: 'actors/arena/disk-rules.ts',
        search: 'export function isExpected(',
        replace:
          'export function isExpected(found: DiskStat | null, { type }: DiskStat): boolean {\n  return found?.type === type\n}\nexport function isReallyExpected(',
      },
    ],
    faults: ['none', 'all'],
    tests: ['test/arena/disk.test.ts', 'test/arena/arena-pair.test.ts'],
  },
  {
    name: 'unsettled-is-replaced',
    takenAway: 'A path that waits to be looked at is not worked on: it is',
    edits: [
      {
        file: LOCAL,
        search: '  unsettled(path: EntryPath): boolean {\n    return (',
        replace: '  unsettled(path: EntryPath): boolean {\n    return path.length === 0 && (',
      },
    ],
    faults: ['none', 'all'],
    survives: 'what is there is checked in the moment of the change; this only spares the work',
  },
  {
    name: 'mtime-and-size-are-evidence',
    takenAway: 'A file is recognised by size, mtime, ctime and inode: by size and mtime',
    edits: [
      {
        file: WALK,
        search:
          '    stamp.size === stat.size &&\n    stamp.mtimeNs === stat.mtimeNs &&\n    stamp.ctimeNs === stat.ctimeNs &&\n    stamp.ino === stat.ino\n',
        replace: '    stamp.size === stat.size && stamp.mtimeNs === stat.mtimeNs\n',
      },
    ],
    faults: ['none', 'all'],
    tests: ['test/arena/arena-pair.test.ts', 'test/system/everyday.test.ts'],
  },
  {
    name: 'replaced-content-thrown-away',
    takenAway: 'What is replaced or deleted for a peer is kept in the version store: it is thrown away',
    edits: [
      {
        file: STEPS,
        search: 'if (slot !== null && disk.stageStat(slot) !== null) disk.keep(slot, kept.id)',
        replace: 'if (slot !== null && disk.stageStat(slot) !== null) disk.stageRemove(slot)',
      },
    ],
    faults: ['cut', 'all'],
    tests: ['test/arena/arena-pair.test.ts'],
  },
  {
    name: 'newer-word-overheard',
    takenAway: 'What became known while a step was done stays pending: it is taken for done',
    edits: [
      {
        file: STEPS,
        search:
          '    const agrees = sameContent(known.content, to.content) && mtimeOf(known.content) === mtimeOf(to.content)\n    writer.putEntry(',
        replace: '    const agrees = true\n    writer.putEntry(',
      },
    ],
    faults: ['none', 'all'],
    survives: 'a step is begun and concluded in one turn of the arena, in which nothing else can become known',
  },

  // Content

  {
    name: 'packs-not-verified',
    takenAway: 'Small content is hashed when it comes: it is believed',
    edits: [
      {
        file: FETCH,
        search: 'bytes.length !== want.size || hashSmall(bytes) !== hash',
        replace: 'bytes.length !== want.size',
      },
    ],
    faults: ['none'],
    tests: ['test/arena/arena-pair.test.ts'],
  },
  {
    name: 'leaves-not-verified',
    takenAway: 'What an interrupted transfer left is checked leaf by leaf: it is believed',
    edits: [
      {
        file: FETCH,
        search: 'return Buffer.compare(leafHash(bytes), this.#hashAt(download.tree, leaf)) === 0',
        replace: 'return bytes.length >= 0',
      },
    ],
    faults: ['kill', 'all'],
    tests: ['test/arena/arena-pair.test.ts'],
  },
  {
    name: 'copied-file-not-checked',
    takenAway: 'A file that is copied from here is the one that was hashed: it is not looked at',
    edits: [
      {
        file: APPLY,
        search: 'if (!source.stamp || !same(source.stamp, before) || !same(source.stamp, after)) {',
        replace: 'if (!source.stamp) {',
      },
    ],
    faults: ['none', 'all'],
  },

  // Honest words

  {
    name: 'consensus-while-pending',
    takenAway: 'Consensus means that nothing is pending (I13): what is pending is not asked about',
    edits: [
      {
        file: ARENA,
        search: '    if (totals.pending > 0) {\n      missing.push(',
        replace: '    if (totals.pending > 1e9) {\n      missing.push(',
      },
      {
        file: ARENA,
        search: 'return { scanning, pending: context.store.state().totals.pending }',
        replace: 'return { scanning, pending: 0 }',
      },
    ],
    faults: ['none', 'disk'],
  },

  // Content that is given up

  {
    name: 'given-up-unasked',
    takenAway: 'Content is given up when a peer has promised to keep it: it is, whatever the peer says',
    edits: [
      { file: GIVE_UP, search: "answer?.answers[index] === 'granted'", replace: 'answer !== null || index >= 0' },
    ],
    faults: ['marks'],
    tests: ['test/arena/give-up.test.ts'],
  },
  {
    name: 'leaver-grants',
    takenAway: 'Who is about to leave a file promises it to nobody: it does',
    edits: [{ file: LEASE, search: "if (this.#leaving.has(file.path)) return 'leaving'", replace: '' }],
    faults: [],
    tests: ['test/arena/lease.test.ts'],
  },
  {
    name: 'promise-forgotten-by-start',
    takenAway: 'After a start nothing is left for a while: it is, at once',
    edits: [{ file: LEASE, search: 'if (nowMs < this.#restsUntilMs || ', replace: 'if (' }],
    faults: [],
    tests: ['test/arena/lease.test.ts'],
  },
  {
    name: 'given-up-not-written-down',
    takenAway: 'What is given up is written down before it is taken out: it is not',
    edits: [{ file: GIVE_UP, search: 'writer.putIntent(file.intent)', replace: '' }],
    faults: ['marks'],
    tests: ['test/arena/give-up.test.ts'],
  },
  {
    name: 'put-back-store-not-noticed',
    takenAway: 'A store that was put back from before content was given up takes nothing for deleted: it does',
    edits: [
      {
        file: ARENA,
        search: 'if (inRoot <= this.#context.store.state().givenUp) return',
        replace: 'if (inRoot >= 0) return',
      },
    ],
    faults: ['marks'],
    tests: ['test/arena/give-up.test.ts'],
  },
  {
    name: 'last-name-not-rescued',
    takenAway: 'Content that leaves a path comes first to another that is only known: it does not',
    edits: [
      {
        file: APPLY,
        search: 'if (this.#local.unsettled(path) || this.#rescueFirst(entry)) return',
        replace: 'if (this.#local.unsettled(path)) return',
      },
    ],
    faults: [],
    tests: ['test/arena/unreal.test.ts'],
  },
]
