/** One arena in a view, against an arena that speaks when the test says so: what programs find while words are on their way. */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { ArenaFolder } from '../../actors/view/arena-folder.ts'
import { viewFault } from '../../actors/view/view-calls.ts'
import type { SourceEntry } from '../../actors/view/view-source.ts'
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import type { FromView, ToView, UnrealFile, ViewAnswers, ViewQuestion } from '../../protocol/ports.ts'
import { within } from '../_deadline.ts'
import { temporaryFolder } from '../_temp.ts'

const onLinux = viewFault === null ? test : test.skip
const SAID_MS = 10_000
const at = (path: string) => path as EntryPath
const unreal: UnrealFile = { size: 3, mtimeNs: 5n, exec: false, hash: 'a'.repeat(64) as BlobHash }
const newer: UnrealFile = { ...unreal, hash: 'b'.repeat(64) as BlobHash }
const emptying = { read: false, write: true, append: false, truncate: true }
const never = new AbortController().signal
const owner = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }

type Asked = Extract<FromView, { id: number }> & ViewQuestion

/** The arena's side of the port. */
class Arena {
  readonly root: string
  readonly folder: ArenaFolder
  readonly #port: MessagePort
  readonly #asked: Asked[] = []
  #wake = () => {}
  /** What is answered at once: a result, or the code of a failure. Undefined: the test answers. */
  answers: (asked: Asked) => { is: ViewAnswers[keyof ViewAnswers] } | { code: string } | undefined = () => undefined

  constructor(t: ExecutionContext) {
    this.root = temporaryFolder(t)
    this.folder = new ArenaFolder('docs', { replaced: () => {} })
    const { port1, port2 } = new MessageChannel()
    this.#port = port2
    port2.on('message', (message: FromView) => {
      if (!('id' in message) || message.type === 'abandon') return
      this.#asked.push(message)
      const answer = this.answers(message)
      if (answer !== undefined) this.answer(message, answer)
      this.#wake()
    })
    this.folder.attach(port1)
    this.say({ type: 'root', root: this.root, reason: null })
    t.teardown(() => {
      this.folder.close()
      port2.close()
    })
  }

  say(message: ToView): void {
    this.#port.postMessage(message)
  }

  answer({ id }: Asked, answer: { is: ViewAnswers[keyof ViewAnswers] } | { code: string }): void {
    if ('code' in answer) this.say({ type: 'failed', id, code: answer.code, message: 'no' })
    else this.say({ type: 'answer', id, result: answer.is } as ToView)
  }

  changed(path: string, file: UnrealFile | null): void {
    this.say({ type: 'changed', changes: [{ path: at(path), unreal: file }] })
  }

  /** The first question of a kind, or one of those after it. */
  async asked(type: Asked['type'], index = 0): Promise<Asked> {
    const found = () => this.#asked.filter(asked => asked.type === type)[index]
    const wait = async () => {
      while (found() === undefined)
        await new Promise<void>(resolve => {
          this.#wake = resolve
        })
    }
    await within(SAID_MS, `asks ${type}`, wait())
    return found() as Asked
  }
}

async function ready(t: ExecutionContext): Promise<Arena> {
  const arena = new Arena(t)
  await arena.folder.whenReady()
  return arena
}

/** One unreal file of this name in the root, as long as nothing else is said of it. */
function has(name: string, file: () => UnrealFile): Arena['answers'] {
  return ({ type }) => {
    if (type === 'look') return { is: file() }
    return type === 'list' ? { is: { files: [[name, file()]], next: null } } : undefined
  }
}

async function outcome(action: () => unknown): Promise<unknown> {
  try {
    await action()
    return 'done'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code
  }
}

onLinux('an opening that nobody waits for any more empties nothing, also if it comes late', async t => {
  const arena = await ready(t)
  fs.writeFileSync(join(arena.root, 'file'), 'content')
  const interruption = new AbortController()
  interruption.abort()
  t.is(await outcome(() => arena.folder.open('file', emptying, interruption.signal)), 'EINTR')
  t.is(fs.readFileSync(join(arena.root, 'file'), 'utf8'), 'content')
  // Nor does it take the place of an unreal file.
  arena.answers = has('unreal', () => unreal)
  const later = new AbortController()
  const opening = outcome(() => arena.folder.open('unreal', emptying, later.signal))
  const seen = await arena.asked('seen')
  later.abort()
  arena.answer(seen, { is: null })
  t.is(await opening, 'EINTR')
  t.false(fs.existsSync(join(arena.root, 'unreal')))
})

onLinux(
  'what took the place of an unreal file and is deleted stays deleted, whatever the arena said before',
  async t => {
    const arena = await ready(t)
    const opening = Promise.resolve(arena.folder.open('f', emptying, never))
    const list = await arena.asked('list')
    arena.answer(await arena.asked('look'), { is: unreal })
    arena.answer(await arena.asked('seen'), { is: null })
    arena.answer(list, { is: { files: [['f', unreal]], next: null } })
    ;(await opening).close()
    const placed = await arena.asked('placed')
    arena.changed('f', unreal)
    await arena.folder.remove('f')
    const found = outcome(() => arena.folder.lookup('f'))
    if ((await Promise.race([found, new Promise(resolve => setTimeout(resolve, 50, null))])) === null)
      arena.answer(await arena.asked('look', 1), { is: unreal })
    t.is(await found, 'ENOENT')
    // From then on its words count again.
    arena.answer(placed, { is: null })
    arena.changed('f', newer)
    arena.answers = has('f', () => newer)
    await new Promise(resolve => setTimeout(resolve, 20))
    t.is((await arena.folder.lookup('f')).version, newer.hash)
  },
)

onLinux('who looks while something takes the place of an unreal file finds what is there', async t => {
  const arena = await ready(t)
  const opening = Promise.resolve(arena.folder.open('f', emptying, never))
  arena.answer(await arena.asked('look'), { is: unreal })
  const seen = await arena.asked('seen')
  const looking = Promise.resolve(arena.folder.lookup('f'))
  const look = await arena.asked('look', 1)
  arena.answer(seen, { is: null })
  arena.answer(look, { is: unreal })
  ;(await opening).close()
  t.is((await looking).attributes.size, 0)
})

onLinux('a file that is just given up, or just comes, is in every listing, and its folder is not empty', async t => {
  const arena = await ready(t)
  const nothing: Arena['answers'] = ({ type }) => (type === 'list' ? { is: { files: [], next: null } } : undefined)
  arena.answers = nothing
  fs.mkdirSync(join(arena.root, 'd'))
  fs.writeFileSync(join(arena.root, 'd/f'), 'abc')
  const given = await arena.folder.openFolder('d')
  t.deepEqual([...(await given.names())], ['f'])
  arena.changed('d/f', unreal)
  fs.rmSync(join(arena.root, 'd/f'))
  t.deepEqual([...(await given.names())], ['f'])
  t.is(await outcome(() => arena.folder.removeFolder('d')), 'ENOTEMPTY')
  given.close()
  fs.mkdirSync(join(arena.root, 'e'))
  arena.answers = asked => {
    // It is placed just before the arena is asked, which does not know it as an unreal one then.
    if (asked.type === 'list') fs.writeFileSync(join(arena.root, 'e/f'), 'abc')
    return nothing(asked)
  }
  const coming = await arena.folder.openFolder('e')
  t.deepEqual([...(await coming.names())], ['f'])
  coming.close()
})

onLinux('the times of an unreal file are set also if another version comes just then', async t => {
  const arena = await ready(t)
  let asked = 0
  const known = has('f', () => (asked === 0 ? unreal : newer))
  arena.answers = question => {
    if (question.type !== 'retouch') return known(question)
    if (asked++ > 0) return { is: null }
    arena.changed('f', newer)
    return { code: 'ESTALE' }
  }
  const { version } = (await arena.folder.change('f', null, { mtime: 7n })) as SourceEntry
  t.is(version, newer.hash)
  t.is(asked, 2)
})

onLinux('a file that a peer deletes while it is opened is made by who would make it', async t => {
  const arena = await ready(t)
  const known = has('f', () => unreal)
  arena.answers = question => {
    if (question.type !== 'seen') return known(question)
    arena.changed('f', null)
    return { code: 'ESTALE' }
  }
  const made = await arena.folder.create('f', { ...emptying, exclusive: false }, 0o100644, owner)
  made.close()
  t.true(fs.existsSync(join(arena.root, 'f')))
  t.is(await outcome(() => arena.folder.open('g', emptying, never)), 'ENOENT')
})

onLinux('who opens an unreal file to read it while somebody puts another in its place reads that one', async t => {
  const arena = await ready(t)
  const known = has('f', () => unreal)
  arena.answers = question => (question.type === 'cached' ? undefined : known(question))
  const opening = Promise.resolve(
    arena.folder.open('f', { ...emptying, read: true, write: false, truncate: false }, never),
  )
  const cached = await arena.asked('cached')
  fs.writeFileSync(join(arena.root, 'f'), 'another')
  arena.answer(cached, { is: null })
  const opened = await opening
  t.is(opened.entry.attributes.size, 7)
  t.not(opened.descriptor, null)
  opened.close()
})

onLinux('a file gets a second name also if it comes and goes while it is made real', async t => {
  const arena = await ready(t)
  const known = has('f', () => unreal)
  let asked = 0
  arena.answers = question => {
    if (question.type === 'look') return { is: question.path === 'f' ? unreal : null }
    if (question.type !== 'make_real') return known(question)
    // The first time it could not be said, the second time it has gone again at once.
    if (asked++ === 0) return { code: 'ENOENT' }
    if (asked === 3) fs.writeFileSync(join(arena.root, 'f'), 'abc')
    return { is: null }
  }
  await arena.folder.link('f', 'g')
  t.is(asked, 3)
  t.is(fs.readFileSync(join(arena.root, 'g'), 'utf8'), 'abc')
  arena.answers = ({ type }) => {
    if (type === 'list') return { is: { files: [], next: null } }
    return { is: null }
  }
  t.is(await outcome(() => arena.folder.link('none', 'h')), 'ENOENT')
})
