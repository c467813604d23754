/** What an arena answers to mounted views, and what becomes of a user's changes of files that are not on the disk. */
import { isDeepStrictEqual } from 'node:util'
import test from 'ava'
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import { LEASE_MS } from '../../protocol/limits.ts'
import type { FromView, PathFacts, ToView, UnrealFile, UnrealNames, ViewQuestion } from '../../protocol/ports.ts'
import { connect, disconnect, makePair, type Peer, pass, settle, turn, type World } from './_pair.ts'

/** A view of one arena, as the view's thread has it. */
class TestView {
  readonly said: ToView[] = []
  readonly #desk: { receive(message: FromView): void; close(): void }
  readonly #peer: Peer
  #id = 0

  constructor(peer: Peer) {
    this.#peer = peer
    this.#desk = peer.arena.openView(message => void this.said.push(structuredClone(message)))
  }

  tell(message: FromView): void {
    this.#desk.receive(message)
    this.#peer.arena.step()
  }

  /** Asks; what gives the answer, undefined until then. */
  asking(question: ViewQuestion): () => unknown {
    const id = ++this.#id
    this.tell({ ...question, id } as FromView)
    return () => {
      const found = this.said.find(one => (one.type === 'answer' || one.type === 'failed') && one.id === id)
      return found?.type === 'failed' ? found.code : found?.type === 'answer' ? { is: found.result } : undefined
    }
  }

  /** An answer that comes at once, or the code of the failure. */
  ask(question: ViewQuestion): unknown {
    const answer = this.asking(question)()
    return typeof answer === 'object' && answer !== null && 'is' in answer ? answer.is : answer
  }

  look(path: string): UnrealFile | null {
    return this.ask({ type: 'look', path: path as EntryPath }) as UnrealFile | null
  }

  close(): void {
    this.#desk.close()
  }
}

const at = (path: string) => path as EntryPath

/** A holds files for real, B only knows of them and has a view. */
function partial(files: Record<string, string>): { world: World; a: Peer; b: Peer; view: TestView } {
  const { world, a, b } = makePair()
  b.configure({ mark: 'unreal' })
  for (const [path, text] of Object.entries(files)) {
    for (let slash = path.indexOf('/'); slash > 0; slash = path.indexOf('/', slash + 1))
      if (!a.has(path.slice(0, slash))) a.mkdir(path.slice(0, slash))
    a.write(path, text)
  }
  settle(world)
  return { world, a, b, view: new TestView(b) }
}

function hashOf(view: TestView, path: string): BlobHash {
  return view.look(path)?.hash as BlobHash
}

test('a folder is listed in pages, without what is on the disk, below, ignored, or gone', t => {
  const files: Record<string, string> = { 'folder/sub/deep': 'x', 'folder/sub.txt': 'x', other: 'x' }
  for (let index = 0; index < 2500; index++) files[`folder/${index}`] = String(index)
  const { world, a, b, view } = partial(files)
  a.remove('folder/7')
  b.configure({ ignore: ['9*'] })
  settle(world)
  const names: string[] = []
  let pages = 0
  for (let after: string | null = null; ; pages++) {
    const page = view.ask({ type: 'list', folder: at('folder'), after }) as UnrealNames
    names.push(...page.files.map(([name]) => name))
    if (page.next === null) break
    after = page.next
  }
  t.true(pages >= 2)
  const expected = Object.keys(files)
    .filter(path => path !== 'folder/7' && path.startsWith('folder/') && !path.startsWith('folder/sub/'))
    .map(path => path.slice('folder/'.length))
    .filter(name => !name.startsWith('9'))
  t.deepEqual(names.sort(), expected.sort())
  t.deepEqual(
    (view.ask({ type: 'list', folder: '', after: null }) as UnrealNames).files.map(([name]) => name),
    ['other'],
  )
  t.is(view.ask({ type: 'below', folder: at('folder') }), 'movable')
  t.is(view.ask({ type: 'below', folder: at('none') }), 'none')
  t.is(view.look('folder/7'), null)
  t.is(view.look('folder'), null)
  t.is(view.look('folder/5')?.size, 1)
})

test('what changes is told before it is answered for', t => {
  const { world, a, view } = partial({ file: 'one' })
  const before = view.said.length
  a.write('file', 'other')
  settle(world)
  const told = view.said.slice(before).flatMap(message => (message.type === 'changed' ? (message.changes ?? []) : []))
  t.is(told.at(-1)?.path as string, 'file')
  t.is(told.at(-1)?.unreal?.size, 5)
  view.close()
  const closed = view.said.length
  a.write('file', 'more')
  settle(world)
  t.is(view.said.length, closed)
})

test('a deletion through a view is based on what is known; an edit elsewhere that it did not know of wins', t => {
  const { world, a, b, view } = partial({ kept: 'one', edited: 'one' })
  t.is(view.ask({ type: 'remove', path: at('kept'), hash: 'f'.repeat(64) as BlobHash }), 'ESTALE')
  disconnect(a, b)
  for (const path of ['kept', 'edited'])
    t.is(view.ask({ type: 'remove', path: at(path), hash: hashOf(view, path) }), null)
  t.is(view.look('kept'), null)
  a.write('edited', 'two')
  connect(a, b)
  settle(world)
  t.deepEqual(a.tree(), { edited: 'two' })
  t.is(view.look('edited')?.size, 3)
  t.deepEqual(
    a.kept('kept').map(kept => a.keptText(kept.id)),
    ['one'],
    'who had it keeps a version',
  )
  t.deepEqual(b.tree(), {})
})

test('many deletions are written down together, and what is made in their place in that moment replaces them', t => {
  const files: Record<string, string> = {}
  for (let index = 0; index < 300; index++) files[`file-${index}`] = 'text'
  const { world, a, b, view } = partial(files)
  const { seq } = b.store.state()
  const { count } = b.store.state()
  for (const path of Object.keys(files)) {
    t.is(view.ask({ type: 'remove', path: at(path), hash: hashOf(view, path) }), null)
    t.is(view.look(path), null)
  }
  t.is(b.store.state().seq, seq, 'not one by one')
  b.symlink('new', 'file-7')
  settle(world)
  t.deepEqual(a.tree(), { 'file-7': '→ new' })
  t.is(b.store.state().count, count + 300)
  t.deepEqual(a.conflicts(), [])
})

test('what is deleted through a view is deleted also if the view or the arena ends then', t => {
  const { world, a, b, view } = partial({ one: '1', two: '2' })
  view.ask({ type: 'remove', path: at('one'), hash: hashOf(view, 'one') })
  view.close()
  settle(world)
  t.deepEqual(a.tree(), { two: '2' })
  t.is(b.entry('one')?.known.content.type, 'gone')
})

test('a new name through a view moves what others have, and what it replaces is deleted', t => {
  const { world, a, b, view } = partial({ one: '1', two: '2', 'folder/three': '3' })
  b.mkdir('made')
  t.is(b.entry('made'), undefined, 'the folder is not known yet')
  const renamed = view.asking({ type: 'rename', path: at('one'), hash: hashOf(view, 'one'), to: at('made/one') })
  settle(world)
  t.deepEqual(renamed(), { is: null })
  const two = hashOf(view, 'two')
  t.is(view.ask({ type: 'rename', path: at('two'), hash: two, to: at('folder/three') }), null)
  t.is(view.ask({ type: 'rename', path: at('two'), hash: two, to: at('x') }), 'ESTALE')
  settle(world)
  t.deepEqual(a.tree(), { folder: '/', 'folder/three': '2', made: '/', 'made/one': '1' })
  t.deepEqual(b.tree(), { folder: '/', made: '/' })
  const [three, one] = [hashOf(view, 'folder/three'), hashOf(view, 'made/one')]
  t.is(view.ask({ type: 'rename', path: at('made/one'), hash: one, to: at('none/one') }), 'ENOENT')
  b.run('mark', { path: 'here', mark: 'real' })
  b.write('here', 'real')
  settle(world)
  t.is(view.ask({ type: 'rename', path: at('folder/three'), hash: three, to: at('here') }), 'EXDEV')
  t.is(view.ask({ type: 'retouch', path: at('made/one'), hash: one, mtimeNs: 5n, exec: true }), null)
  settle(world)
  t.is(a.disk.stat(at('made/one'))?.mtimeNs, 5n)
  t.true(a.disk.stat(at('made/one'))?.exec)
  t.deepEqual(a.conflicts(), [])
})

test('what is not on the disk follows a folder also to where another folder was until just now', t => {
  const { world, a, b, view } = partial({ 'a/b/b': 'file', 'a/c': 'other' })
  const answered = (asked: () => unknown) => {
    for (let turns = 0; asked() === undefined && turns < 10_000; turns++) if (!turn(world)) world.nowMs += 1
    return asked()
  }
  b.disk.rename('a', 'c')
  view.tell({ type: 'touched', paths: [at('a'), at('c')] })
  t.deepEqual(answered(view.asking({ type: 'rename_below', folder: at('a'), to: at('c') })), { is: null })
  // The file comes to a path that was a folder's.
  b.disk.rename('c/b', 'a')
  view.tell({ type: 'touched', paths: [at('c/b'), at('a')] })
  t.deepEqual(answered(view.asking({ type: 'rename_below', folder: at('c/b'), to: at('a') })), { is: null })
  t.is(view.look('a/b')?.size, 4)
  settle(world)
  t.deepEqual(a.tree(), { a: '/', 'a/b': 'file', c: '/', 'c/c': 'other' })
  t.deepEqual(a.conflicts(), [])
})

test('what is not on the disk follows a folder that was renamed there, into every folder below it', t => {
  const files: Record<string, string> = { beside: 'x' }
  for (let index = 0; index < 2300; index++) files[`old/${index % 7}/${index}`] = String(index)
  const { world, a, b, view } = partial(files)
  for (const path of ['old/own', 'new/own']) b.run('mark', { path, mark: 'real' })
  b.write('old/own', 'real')
  settle(world)
  const made: string[] = []
  b.disk.fault = (operation, path) => {
    if (operation === 'makeFolder') made.push(path)
    return null
  }
  b.rename('old', 'new')
  const moved = view.asking({ type: 'rename_below', folder: at('old'), to: at('new') })
  settle(world)
  t.deepEqual(made, [], 'no folder is made again for what is about to leave it')
  t.deepEqual(moved(), { is: null })
  const expected: Record<string, string> = { beside: 'x', 'new': '/', 'new/own': 'real' }
  for (let index = 0; index < 7; index++) expected[`new/${index}`] = '/'
  t.deepEqual(
    Object.keys(b.tree()).sort(),
    Object.keys(expected)
      .filter(path => path !== 'beside')
      .sort(),
  )
  for (let index = 0; index < 2300; index++) expected[`new/${index % 7}/${index}`] = String(index)
  t.deepEqual(a.tree(), expected)
  t.is(view.look('new/3/3')?.size, 1)
  t.is(view.look('old/3/3'), null)
  t.deepEqual(a.conflicts(), [])
  b.configure({ paused: true })
  t.is(view.ask({ type: 'below', folder: at('new') }), 'fixed')
})

/** B's user saves over an unreal file, as a view does it. */
function saveOver(b: Peer, view: TestView, path: string, text: string): void {
  view.ask({ type: 'seen', path: at(path), hash: hashOf(view, path) })
  b.disk.writeFile(path, Buffer.from(text))
  view.ask({ type: 'placed', path: at(path) })
}

test('what is saved over an unreal file that the user saw is its successor; one that just appears is not', t => {
  const { world, a, b, view } = partial({ seen: 'old', found: 'old' })
  saveOver(b, view, 'seen', 'new')
  t.is(view.look('seen'), null, 'it is not there any more')
  b.write('found', 'new')
  settle(world)
  t.is(a.read('seen'), 'new')
  t.deepEqual(
    a.conflicts().map(conflict => conflict.path as string),
    ['found'],
  )
})

test('the very same that is put in place of an unreal file makes it real, or what it was before it is known anew', t => {
  const { world, a, b, view } = partial({ same: 'text', older: 'text' })
  const mtimes = { same: view.look('same')?.mtimeNs as bigint, older: view.look('older')?.mtimeNs as bigint }
  const root = a.state.root
  disconnect(a, b)
  for (const path of ['same', 'older'] as const) {
    view.ask({ type: 'seen', path: at(path), hash: hashOf(view, path) })
    b.disk.writeFile(path, Buffer.from('text'))
    b.disk.touch(path, mtimes[path])
  }
  view.ask({ type: 'placed', path: at('same') })
  settle(world)
  t.is(b.entry('same')?.have, b.entry('same')?.known)
  t.is(b.state.root, root, 'it is no change')
  a.write('older', 'newer')
  connect(a, b)
  view.ask({ type: 'placed', path: at('older') })
  settle(world)
  t.is(a.read('older'), 'newer')
  t.deepEqual(a.conflicts(), [])
})

test('what is saved over an unreal file while somebody else edits it becomes a conflict, and both are kept', t => {
  const { world, a, b, view } = partial({ file: 'old' })
  disconnect(a, b)
  saveOver(b, view, 'file', 'mine')
  settle(world)
  a.write('file', 'theirs')
  settle(world)
  connect(a, b)
  settle(world)
  t.is(a.conflicts().length, 1)
  t.deepEqual(Object.values(a.tree()).sort(), ['mine', 'theirs'])
})

test('a folder that is moved away has nothing left in it when a file is made in its place, also not what was just saved over or deleted', t => {
  for (const type of ['file', 'symlink'] as const) {
    const { world, a, b, view } = partial({ 'folder/over': 'old', 'folder/gone': 'old', 'folder/stays': 'unreal' })
    saveOver(b, view, 'folder/over', 'new')
    view.ask({ type: 'remove', path: at('folder/gone'), hash: hashOf(view, 'folder/gone') })
    b.disk.rename('folder', 'moved')
    view.tell({ type: 'touched', paths: [at('folder'), at('moved')] })
    const moved = view.asking({ type: 'rename_below', folder: at('folder'), to: at('moved') })
    for (let turns = 0; moved() === undefined; turns++) {
      if (turns > 1000) return t.fail('the unreal files do not follow')
      if (!turn(world)) world.nowMs += 1
    }
    if (type === 'file') b.disk.writeFile('folder', Buffer.from('a file'))
    else b.disk.symlink('moved', 'folder')
    view.tell({ type: 'touched', paths: [at('folder')] })
    // With other marks all is looked at, also whether folders are there for what lives.
    for (let ms = 0; ms < 300; ms += 5) {
      b.run('mark', { path: 'other', mark: ms % 10 === 0 ? 'real' : 'clear' })
      pass(world, 5)
    }
    settle(world)
    t.deepEqual(a.conflicts(), [], type)
    const folder = type === 'file' ? 'a file' : '→ moved'
    t.deepEqual(a.tree(), { folder, moved: '/', 'moved/over': 'new', 'moved/stays': 'unreal' }, type)
    t.false(Object.keys(b.tree()).some(path => path.includes('conflict')))
    view.close()
  }
})

test('what took the place of an unreal file and went again before it was looked at is a deletion', t => {
  const { world, a, b, view } = partial({ file: 'old' })
  view.ask({ type: 'seen', path: at('file'), hash: hashOf(view, 'file') })
  b.disk.writeFile('file', Buffer.from('new'))
  b.disk.remove('file')
  view.ask({ type: 'placed', path: at('file') })
  settle(world)
  t.deepEqual(a.tree(), {})
})

test("a file in whose place something is to be put is there until it was, and is nobody else's to change meanwhile", t => {
  const { world, a, b, view } = partial({ file: 'old' })
  const other = new TestView(b)
  const waiting: (() => unknown)[] = []
  const toldGone = { changes: [{ path: 'file', unreal: null }] }
  const hash = hashOf(view, 'file')
  view.ask({ type: 'seen', path: at('file'), hash })
  for (const one of [view, other]) {
    t.is(one.look('file')?.hash, hash)
    waiting.push(one.asking({ type: 'seen', path: at('file'), hash }))
    waiting.push(one.asking({ type: 'remove', path: at('file'), hash }))
  }
  t.deepEqual(
    waiting.map(answer => answer()),
    [undefined, undefined, undefined, undefined],
  )
  b.disk.writeFile('file', Buffer.from('new'))
  view.ask({ type: 'placed', path: at('file') })
  t.deepEqual(
    waiting.map(answer => answer()),
    ['ESTALE', 'ESTALE', 'ESTALE', 'ESTALE'],
  )
  t.is(other.look('file'), null)
  t.true(other.said.some(({ type, ...said }) => type === 'changed' && isDeepStrictEqual(said, toldGone)))
  settle(world)
  t.deepEqual(a.tree(), { file: 'new' })
  t.deepEqual(a.conflicts(), [])
  other.close()
})

test('a file that did not come to take the place of an unreal one leaves it as it was', t => {
  const { world, a, b, view } = partial({ one: '1', two: '2' })
  for (const path of ['one', 'two']) view.ask({ type: 'seen', path: at(path), hash: hashOf(view, path) })
  view.tell({ type: 'unseen', path: at('one') })
  t.is(view.look('one')?.size, 1)
  view.close()
  settle(world)
  const again = new TestView(b)
  t.is(again.look('two')?.size, 1)
  t.deepEqual(a.tree(), { one: '1', two: '2' })
  again.close()
})

test('a file becomes real when it is wanted, and at once it is said if nobody can give it', t => {
  const { world, a, b, view } = partial({ one: '1', two: '2' })
  const made = view.asking({ type: 'make_real', path: at('one') })
  t.is(made(), undefined)
  settle(world)
  t.deepEqual(made(), { is: null })
  t.true(b.history.length > 0)
  t.is(view.ask({ type: 'make_real', path: at('none') }), null)
  disconnect(a, b)
  t.is(view.ask({ type: 'make_real', path: at('two') }), 'EHOSTUNREACH')
  connect(a, b)
  const waiting = view.asking({ type: 'make_real', path: at('two') })
  disconnect(a, b)
  b.arena.step()
  t.is(waiting(), 'EHOSTUNREACH')
  connect(a, b)
  settle(world)
  t.is(view.look('two')?.size, 1, 'it is not wanted any more')
})

test('a peer that has not what it announced is asked once more before a program is told; a full disk is told at once', t => {
  const { world, b, view } = partial({ passing: '1', nowhere: '2', full: '3' })
  // As from one that is just moving the file.
  world.tamper = ({ type, ...rest }) => {
    const header = 'header' in rest ? rest.header : null
    if (type === 'send' && header?.type === 'pack') header.sizes.fill(-1)
  }
  const nowhere = view.asking({ type: 'make_real', path: at('nowhere') })
  const passing = view.asking({ type: 'make_real', path: at('passing') })
  pass(world, 100)
  t.is(passing(), undefined)
  t.is(nowhere(), undefined)
  world.tamper = null
  pass(world, 300)
  t.deepEqual([passing(), nowhere()], [{ is: null }, { is: null }])
  world.tamper = ({ type, ...rest }) => {
    const header = 'header' in rest ? rest.header : null
    if (type === 'send' && header?.type === 'pack') header.sizes.fill(-1)
  }
  const full = view.asking({ type: 'make_real', path: at('full') })
  pass(world, 1000)
  t.is(full(), 'EHOSTUNREACH')
  world.tamper = null
  b.disk.fault = operation => (operation.startsWith('stage') ? 'ENOSPC' : null)
  const noRoom = view.asking({ type: 'make_real', path: at('full') })
  pass(world, 1000)
  t.is(noRoom(), 'ENOSPC')
  b.disk.fault = null
  const made = view.asking({ type: 'make_real', path: at('full') })
  pass(world, 1000)
  t.deepEqual(made(), { is: null }, 'what is over hinders no more')
})

test('what is between two names at the peer that has it can be read, and is not dropped from its version store', t => {
  const big = 'x'.repeat(300_000)
  const { world, a, b, view } = partial({ small: 'small', big })
  // There the folder cannot be made for now; the old names go all the same.
  a.disk.fault = (operation, path) => (operation === 'makeFolder' && path === 'folder' ? 'EACCES' : null)
  b.mkdir('folder')
  pass(world, 200)
  for (const name of ['small', 'big']) {
    const renamed = view.asking({ type: 'rename', path: at(name), hash: hashOf(view, name), to: at(`folder/${name}`) })
    pass(world, 500)
    t.deepEqual(renamed(), { is: null })
  }
  pass(world, 3000)
  t.deepEqual(a.tree(), {})
  t.is(a.kept().length, 2)
  const read = (name: string, offset: number) => {
    const { hash, size } = view.look(`folder/${name}`) as UnrealFile
    const answer = view.asking({ type: 'read', path: at(`folder/${name}`), hash, size, offset, length: 5 })
    pass(world, 1000)
    return answer()
  }
  t.deepEqual(read('small', 0), { is: new Uint8Array(Buffer.from('small')) })
  t.deepEqual(read('big', 200_000), { is: new Uint8Array(Buffer.from('xxxxx')) })
  a.configure({ versions: { keepMs: 0, bytesMax: 0 } })
  pass(world, 2 * 3_600_000)
  t.is(a.kept().length, 2)
  a.disk.fault = null
  pass(world, 120_000)
  settle(world)
  t.deepEqual(a.tree(), { folder: '/', 'folder/big': big, 'folder/small': 'small' })
  pass(world, 2 * 3_600_000)
  t.is(a.kept().length, 0)
})

test('nothing leaves a folder while it is renamed through a view: it would not come along', t => {
  const { world, a, b, view } = partial({})
  b.configure({ mark: 'real' })
  a.mkdir('folder')
  a.write('folder/file', 'content')
  settle(world)
  pass(world, 3 * LEASE_MS)
  b.configure({ mark: 'unreal' })
  view.tell({ type: 'moving', folder: at('folder') })
  t.is(view.ask({ type: 'below', folder: at('folder') }), 'none')
  pass(world, 5 * LEASE_MS)
  t.true(b.has('folder/file'))
  b.disk.rename('folder', 'moved')
  view.tell({ type: 'touched', paths: [at('folder'), at('moved')] })
  view.tell({ type: 'moved', folder: at('folder') })
  settle(world, 10 * LEASE_MS)
  t.deepEqual(a.tree(), { moved: '/', 'moved/file': 'content' })
  t.deepEqual(b.tree(), { moved: '/' })
})

test('in an arena that is paused nothing is waited for without end', t => {
  const { world, a, b, view } = partial({ file: 'content', 'folder/file': 'content' })
  b.configure({ paused: true })
  b.disk.mkdir('made')
  view.tell({ type: 'touched', paths: [at('made')] })
  const renamed = view.asking({ type: 'rename', path: at('file'), hash: hashOf(view, 'file'), to: at('made/file') })
  b.disk.rename('folder', 'moved')
  view.tell({ type: 'touched', paths: [at('folder'), at('moved')] })
  const moved = view.asking({ type: 'rename_below', folder: at('folder'), to: at('moved') })
  // Both ask for an answer now and then, as an arena that has other things to do gives it.
  for (let ms = 0; ms < 15_000; ms += 500) {
    world.nowMs += 500
    b.arena.tick()
  }
  t.is(renamed(), 'EXDEV')
  t.deepEqual(moved(), { is: null })
  b.configure({ paused: false })
  settle(world)
  t.is(a.read('file'), 'content')
})

test('who reads what is deleted or replaced in a view reads it to its end', t => {
  const big = 'x'.repeat(300_000)
  const { world, a, b, view } = partial({ gone: big, over: `${big}2` })
  const opened = ['gone', 'over'].map(name => {
    const { hash, size } = view.look(name) as UnrealFile
    view.tell({ type: 'opened', is: { content: hash, size, path: at(name) } })
    return { name, hash, size }
  })
  view.ask({ type: 'remove', path: at('gone'), hash: hashOf(view, 'gone') })
  saveOver(b, view, 'over', 'other')
  settle(world)
  t.deepEqual(a.tree(), { over: 'other' })
  disconnect(a, b)
  for (const { name, hash, size } of opened) {
    t.is(b.cache.bytesOf({ hash, size }), size, name)
    const read = view.asking({ type: 'read', path: at(name), hash, size, offset: size - 5, length: 5 })
    t.not(read(), 'EHOSTUNREACH', name)
  }
  for (const { name, hash, size } of opened) view.tell({ type: 'closed', is: { content: hash, size, path: at(name) } })
  connect(a, b)
  settle(world)
  // Some time later nobody gets it any more.
  const gone = opened[0] as (typeof opened)[0]
  b.cache.release(gone.hash)
  pass(world, 11 * 60_000)
  const late = view.asking({ type: 'read', path: at('gone'), hash: gone.hash, size: gone.size, offset: 0, length: 5 })
  pass(world, 1000)
  t.is(late(), 'EHOSTUNREACH')
})

test('versions are kept within their limits also where content was given up', t => {
  const { world, a, b, view } = partial({ file: 'first', other: 'x' })
  b.configure({ mark: 'real' })
  settle(world)
  pass(world, 3 * LEASE_MS)
  a.write('file', 'second')
  settle(world)
  t.is(b.kept().length, 1)
  b.configure({ mark: 'unreal' })
  settle(world)
  pass(world, 3 * LEASE_MS)
  t.deepEqual(b.tree(), {})
  b.configure({ versions: { keepMs: 1000, bytesMax: 1000 } })
  pass(world, 2 * 3_600_000)
  t.is(b.kept().length, 0)
  t.is(view.look('file')?.size, 6)
})

test('who has closed a view gets no answers', t => {
  const { world, b, view } = partial({ one: '1' })
  const waiting = view.asking({ type: 'make_real', path: at('one') })
  const reading = view.asking({
    type: 'read',
    path: at('one'),
    hash: hashOf(view, 'one'),
    size: 1,
    offset: 0,
    length: 1,
  })
  view.close()
  settle(world)
  t.is(waiting(), undefined)
  t.is(reading(), undefined)
  t.deepEqual(b.tree(), {}, 'it is not wanted any more')
})

test('facts tell of a path what people may want to know', t => {
  const { world, a, b, view } = partial({ one: '1', 'folder/two': '2' })
  const facts = (path: string) => view.ask({ type: 'facts', path: at(path) }) as PathFacts
  const asked = view.asking({ type: 'facts', path: at('one') })
  settle(world)
  const { is } = asked() as { is: PathFacts }
  t.deepEqual({ ...is, version: '' }, { mark: 'unreal', status: 'unreal', version: '', peers: ['A'] })
  t.regex(is.version, /^[0-9a-f]{8}$/)
  t.is(facts('folder').status, 'real')
  disconnect(a, b)
  t.deepEqual(facts('one').peers, [])
  t.is(facts('none') as unknown, 'ENODATA')
})

const readsAll = test.macro((t, fromCache: boolean) => {
  const files: Record<string, string> = { 'one/below/deep': 'not read', alone: 'alone' }
  for (const folder of ['one', 'two', 'three'])
    for (let index = 0; index < 200; index++) files[`${folder}/${index}`] = `${folder} ${index}`
  const { world, b, view } = partial(files)
  if (fromCache) b.cacheFiles.where = () => ({ path: '/memory-cache/file', ino: 1n, birthtimeNs: 1n }) as never
  const requests = () => world.delivered.filter(({ header }) => header.type.startsWith('fetch_')).length
  const read = (path: string) => {
    const file = view.look(path)
    if (file === null) throw new Error(`${path} is not there`)
    const { hash, size } = file
    // As a view does it: what is cached wholly it reads by itself.
    if (view.ask({ type: 'cached', path: at(path), hash, size }) !== null) return t.true(fromCache)
    const answer = view.asking({ type: 'read', path: at(path), hash, size, offset: 0, length: size })
    settle(world)
    if (fromCache) t.like(answer(), { is: { ino: 1n } }, path)
    else t.deepEqual(answer(), { is: new Uint8Array(Buffer.from(files[path] as string)) }, path)
  }
  // In an order that is not that of their names.
  const before = requests()
  for (let index = 0; index < 200; index++) read(`one/${(index * 37) % 200}`)
  const first = requests() - before
  t.true(first > 3 && first < 60, `${first} requests for 200 files`)
  for (let index = 0; index < 200; index++) read(`two/${index}`)
  const second = requests() - before - first
  t.true(second < 15, `${second} requests for the next 200 files`)
  // What is not read is not had in advance for ever: a few here and there bring no others.
  const cached = requests()
  for (const path of ['three/5', 'alone']) read(path)
  t.true(requests() - cached <= 3)
})
const READS_ALL =
  'who reads the small files of a folder one after the other, in whatever order, has the others in advance; also in the next folder'
test(READS_ALL, readsAll, false)
test(`${READS_ALL} – where a view reads the cache by itself`, readsAll, true)

test('two files of a folder bring no others', t => {
  const files: Record<string, string> = {}
  for (let index = 0; index < 50; index++) files[`folder/${index}`] = `content ${index}`
  const { world, b, view } = partial(files)
  let bytes = 0
  for (const path of ['folder/7', 'folder/30', 'folder/7']) {
    const { hash, size } = view.look(path) as UnrealFile
    view.ask({ type: 'read', path: at(path), hash, size, offset: 0, length: size })
    settle(world)
    if (path !== 'folder/7' || bytes === 0) bytes += size
  }
  t.is(b.cache.bytes, bytes)
})

test('what another view says of a path is not what was to be put there: it was not, and the file stays', t => {
  const { world, a, b, view } = partial({ file: 'old' })
  const other = new TestView(b)
  const hash = hashOf(view, 'file')
  t.is(view.ask({ type: 'seen', path: at('file'), hash }), null)
  // Somebody else's handle of what was there is closed now.
  other.tell({ type: 'touched', paths: [at('file')] })
  pass(world, 500)
  view.tell({ type: 'unseen', path: at('file') })
  settle(world)
  t.deepEqual(a.tree(), { file: 'old' })
  other.close()
})

test('a file in whose place nothing came is there for every view, whatever was said of its path meanwhile', t => {
  const { b, view } = partial({ file: 'old' })
  const other = new TestView(b)
  const hash = hashOf(view, 'file')
  t.is(view.ask({ type: 'seen', path: at('file'), hash }), null)
  other.tell({ type: 'touched', paths: [at('file')] })
  view.tell({ type: 'unseen', path: at('file') })
  const told = view.said.flatMap(message => (message.type === 'changed' ? (message.changes ?? []) : []))
  t.is(told.at(-1)?.unreal?.hash ?? (told.length === 0 ? hash : null), hash)
  t.is(view.look('file')?.hash, hash)
  other.close()
})

test('a folder that is renamed while files below are made real comes wholly, at whatever moment', t => {
  const turnUntil = (world: World, holds: () => boolean) => {
    for (let turns = 0; !holds(); turns++) {
      if (turns > 5000) throw new Error('it does not come to an end')
      if (!turn(world)) world.nowMs += 1
    }
  }
  const names = Array.from({ length: 6 }, (_, index) => `f${index}`)
  for (let moment = 0; moment < 120; moment++) {
    const { world, a, b, view } = partial(Object.fromEntries(names.map(name => [`d/${name}`, `content of ${name}`])))
    for (const name of names.slice(2)) view.asking({ type: 'make_real', path: at(`d/${name}`) })
    for (let turns = 0; turns < moment; turns++) if (!turn(world)) world.nowMs += 1
    view.tell({ type: 'moving', folder: at('d') })
    const below = view.asking({ type: 'below', folder: at('d') })
    turnUntil(world, () => below() !== undefined)
    b.disk.rename('d', 'e')
    view.tell({ type: 'touched', paths: [at('d'), at('e')] })
    const moved = view.asking({ type: 'rename_below', folder: at('d'), to: at('e') })
    turnUntil(world, () => moved() !== undefined)
    view.tell({ type: 'moved', folder: at('d') })
    settle(world)
    t.deepEqual(Object.keys(a.tree()).sort(), ['e', ...names.map(name => `e/${name}`)], `after ${moment} turns`)
    view.close()
  }
})

test('what is not on the disk can be moved into a folder that others deleted and that still holds something', t => {
  const { world, a, b, view } = partial({ file: 'content', 'folder/old': 'old' })
  disconnect(a, b)
  a.remove('folder/old')
  a.remove('folder')
  b.write('folder/new', 'new')
  settle(world)
  connect(a, b)
  settle(world)
  t.true(b.entry('folder')?.dormant, 'as this test has it')
  t.is(view.ask({ type: 'rename', path: at('file'), hash: hashOf(view, 'file'), to: at('folder/file') }), null)
  settle(world)
  t.deepEqual(a.tree(), { folder: '/', 'folder/file': 'content', 'folder/new': 'new' })
  t.deepEqual(a.conflicts(), [])
})
