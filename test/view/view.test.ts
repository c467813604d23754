/** The view without a kernel: requests in, replies out, over files that are given on demand. */
import { constants as osConstants } from 'node:os'
import test from 'ava'
import type { Fields, Layout } from '../../actors/view/fuse-layout.ts'
import { NOTIFY, OPCODES, STRUCTS } from '../../actors/view/fuse-protocol.ts'
import { VIRTUAL_HANDLE, View, type ViewOutlet } from '../../actors/view/view.ts'
import { readContent, viewFault } from '../../actors/view/view-calls.ts'
import { ViewError } from '../../actors/view/view-source.ts'
import { type Cleaning, temporaryFolder } from '../_temp.ts'
import { MemorySource } from './_memory-source.ts'

const { EIO, EINTR, ENOENT, ENOSYS, ENOTTY, EBUSY, EHOSTUNREACH, ESTALE, EBADF, ENFILE } = osConstants.errno
const onLinux = viewFault === null ? test : test.skip

interface Answer {
  errno: number
  body: Uint8Array
}

/** A view over memory, spoken to as the kernel does. */
class Bench {
  readonly source: MemorySource
  readonly view: View
  readonly notices: Uint8Array[] = []
  readonly logged: string[] = []
  readonly backings: string[] = []
  /** Of whoever waits; null: nobody knows. */
  status: string | null = null
  readonly #answers = new Map<number, Answer>()
  readonly #waiting = new Map<number, (answer: Answer) => void>()
  #unique = 2

  constructor(t: Cleaning, options: Partial<ConstructorParameters<typeof View>[3]> = {}) {
    this.source = new MemorySource(temporaryFolder(t))
    const outlet: ViewOutlet = {
      reply: bytes => this.#take(bytes),
      notify: bytes => this.notices.push(bytes),
      negotiated: () => {},
      log: event => this.logged.push(event),
      now: () => 1_700_000_000_000_000_000n,
      openBacking: descriptor => this.backings.push(`open ${descriptor >= 0}`),
      closeBacking: backing => this.backings.push(`close ${backing}`),
      statusOf: () => this.status,
      later: () => () => {},
    }
    this.view = new View(this.source, this.source.lookup(''), outlet, { passthrough: false, ...options })
    t.teardown(() => this.view.close())
  }

  /** Sends a request; `unique` names it. */
  send(opcode: number, node: number, ...parts: Uint8Array[]): { unique: number; answer: Promise<Answer> } {
    const unique = this.#unique
    this.#unique += 2
    this.sendAs(unique, opcode, node, ...parts)
    const early = this.#answers.get(unique)
    const answer = early ? Promise.resolve(early) : new Promise<Answer>(resolve => this.#waiting.set(unique, resolve))
    return { unique, answer }
  }

  sendAs(unique: number, opcode: number, nodeid: number, ...parts: Uint8Array[]): void {
    const bytes = new Uint8Array(Buffer.concat([new Uint8Array(STRUCTS.in_header.bytes), ...parts]))
    const header = { len: bytes.length, opcode, unique, nodeid, uid: 0, gid: 0, pid: 1 }
    STRUCTS.in_header.write(new DataView(bytes.buffer), 0, header)
    this.view.receive(bytes)
  }

  get next(): number {
    return this.#unique
  }

  async ask(opcode: number, node: number, ...parts: Uint8Array[]): Promise<Answer> {
    return this.send(opcode, node, ...parts).answer
  }

  async lookup(name: string): Promise<number> {
    const { body } = await this.ask(OPCODES.LOOKUP, 1, Buffer.from(`${name}\0`))
    return STRUCTS.forget_one.read(viewOf(body), 0).nodeid
  }

  async open(node: number, flags = 0): Promise<{ fh: number; flags: number; errno: number }> {
    const { body, errno } = await this.ask(OPCODES.OPEN, node, struct(STRUCTS.open_in, { flags, open_flags: 0 }))
    if (errno !== 0) return { fh: -1, flags: 0, errno }
    const { fh, open_flags } = STRUCTS.open_out.read(viewOf(body), 0)
    return { fh, flags: open_flags, errno }
  }

  read(node: number, fh: number, offset: number, size: number) {
    const values = { fh, offset, size, read_flags: 0, lock_owner: 0n, flags: 0 }
    return this.send(OPCODES.READ, node, struct(STRUCTS.read_in, values))
  }

  release(node: number, fh: number): Promise<Answer> {
    const values = { fh, flags: 0, release_flags: 0, lock_owner: 0n }
    return this.ask(OPCODES.RELEASE, node, struct(STRUCTS.release_in, values))
  }

  interrupt(unique: number): void {
    this.sendAs(unique + 1, OPCODES.INTERRUPT, 0, struct(STRUCTS.interrupt_in, { unique }))
  }

  #take(bytes: Uint8Array): void {
    const { unique, error, len } = STRUCTS.out_header.read(viewOf(bytes), 0)
    if (len !== bytes.length) throw new Error('a reply that says another length than it has')
    if (this.#answers.has(unique)) throw new Error('two replies to one request')
    const answer = { errno: Math.abs(error), body: bytes.subarray(STRUCTS.out_header.bytes) }
    this.#answers.set(unique, answer)
    this.#waiting.get(unique)?.(answer)
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function struct<F extends Fields>(of: Layout<F>, values: Parameters<Layout<F>['write']>[2]): Uint8Array {
  const bytes = new Uint8Array(of.bytes)
  of.write(viewOf(bytes), 0, values)
  return bytes
}

/** A promise that is settled from outside. */
function gate(): { promise: Promise<void>; open: () => void } {
  let open: () => void = () => {}
  const promise = new Promise<void>(resolve => {
    open = resolve
  })
  return { promise, open }
}

const content = Buffer.from('the content of an unreal file')

onLinux('content on demand is given when it comes, and others are not held up by it', async t => {
  const bench = new Bench(t)
  const { promise, open: give } = gate()
  bench.source.files.set('slow', { content, reading: () => promise })
  bench.source.files.set('fast', { content })
  const [slow, fast] = [await bench.lookup('slow'), await bench.lookup('fast')]
  const [slowFile, fastFile] = [await bench.open(slow), await bench.open(fast)]
  t.true(slowFile.fh >= VIRTUAL_HANDLE)
  const waiting = bench.read(slow, slowFile.fh, 4, 7)
  const quick = await bench.read(fast, fastFile.fh, 0, 3).answer
  t.is(Buffer.from(quick.body).toString(), 'the')
  t.is(bench.view.counts.running, 1)
  give()
  t.is(Buffer.from((await waiting.answer).body).toString(), 'content')
  t.is(bench.view.counts.running, 0)
})

onLinux('who interrupts gets away at once, and the file stays open until its reading has ended', async t => {
  const bench = new Bench(t)
  const { promise, open: give } = gate()
  const aborted = gate()
  bench.source.files.set('slow', {
    content,
    reading: signal => {
      signal.addEventListener('abort', aborted.open)
      return promise
    },
  })
  const node = await bench.lookup('slow')
  const { fh } = await bench.open(node)
  const waiting = bench.read(node, fh, 0, 10)
  bench.interrupt(waiting.unique)
  t.is((await waiting.answer).errno, EINTR)
  await aborted.promise
  t.is((await bench.release(node, fh)).errno, 0)
  t.is(bench.source.closed, 0)
  give()
  await new Promise(resolve => setImmediate(resolve))
  t.is(bench.source.closed, 1)
})

onLinux('an interruption that overtakes its request is not lost', async t => {
  const bench = new Bench(t)
  bench.source.files.set('slow', { content, reading: () => new Promise(() => {}) })
  const node = await bench.lookup('slow')
  const { fh } = await bench.open(node)
  bench.interrupt(bench.next)
  t.is((await bench.read(node, fh, 0, 10).answer).errno, EINTR)
  for (let unique = 1_000_000; unique < 1_001_000; unique += 2) bench.interrupt(unique)
  t.is(bench.view.counts.running, 0)
})

onLinux('an opening that nobody waits for any more leaves nothing open; what is made is made', async t => {
  const bench = new Bench(t)
  const { promise, open: give } = gate()
  bench.source.files.set('file', { content })
  const node = await bench.lookup('file')
  const honest = bench.source.open.bind(bench.source)
  bench.source.open = async (path, how) => {
    await promise
    return honest(path, how)
  }
  const waiting = bench.send(OPCODES.OPEN, node, struct(STRUCTS.open_in, { flags: 0, open_flags: 0 }))
  const looking = bench.send(OPCODES.LOOKUP, 1, Buffer.from('file\0'))
  bench.interrupt(waiting.unique)
  bench.interrupt(looking.unique)
  t.is((await waiting.answer).errno, EINTR)
  t.is((await looking.answer).errno, 0)
  give()
  await new Promise(resolve => setImmediate(resolve))
  t.deepEqual([bench.source.open_, bench.source.closed, bench.view.counts.handles], [0, 1, 0])
})

onLinux('errors of the source reach the program by their name; one without a name is a defect', async t => {
  const bench = new Bench(t)
  const failWith = (error: Error) => () => {
    throw error
  }
  bench.source.files.set('lost', { content, reading: failWith(new ViewError('EHOSTUNREACH', 'no peer')) })
  bench.source.files.set('bug', { content, reading: failWith(new TypeError('a defect')) })
  for (const [name, errno] of [
    ['lost', EHOSTUNREACH],
    ['bug', EIO],
  ] as const) {
    const node = await bench.lookup(name)
    const { fh } = await bench.open(node)
    t.is((await bench.read(node, fh, 0, 10).answer).errno, errno)
  }
  t.deepEqual(bench.logged, ['view_defect'])
  t.is((await bench.ask(OPCODES.LOOKUP, 1, Buffer.from('none\0'))).errno, ENOENT)
  t.is((await bench.ask(OPCODES.IOCTL, 1, new Uint8Array(32))).errno, ENOTTY)
  t.is((await bench.ask(OPCODES.FLUSH, 1, new Uint8Array(24))).errno, ENOSYS)
  t.is((await bench.ask(4711, 1, new Uint8Array(24))).errno, ENOSYS)
  t.is((await bench.ask(OPCODES.GETATTR, 99, new Uint8Array(16))).errno, ESTALE)
  t.is((await bench.read(1, VIRTUAL_HANDLE + 99, 0, 1).answer).errno, EBADF)
})

onLinux('a file that is written becomes real, also for who reads it already', async t => {
  const bench = new Bench(t)
  bench.source.files.set('file', { content })
  const node = await bench.lookup('file')
  const reader = await bench.open(node)
  t.is(Buffer.from((await bench.read(node, reader.fh, 0, 3).answer).body).toString(), 'the')
  const writer = await bench.open(node, 2)
  t.true(writer.fh < VIRTUAL_HANDLE, 'the handle is the descriptor, which the reading threads use')
  const write = { fh: writer.fh, offset: 0, size: 3, write_flags: 0, lock_owner: 0n, flags: 0 }
  const written = await bench.ask(OPCODES.WRITE, node, struct(STRUCTS.write_in, write), Buffer.from('ONE'))
  t.is(viewOf(written.body).getUint32(0, true), 3)
  const bytes = Buffer.alloc(11)
  readContent(writer.fh, bytes, 11, 0)
  t.is(bytes.toString(), 'ONE content')
  t.is(Buffer.from((await bench.read(node, reader.fh, 0, 11).answer).body).toString(), 'ONE content')
  await bench.release(node, writer.fh)
  await bench.release(node, reader.fh)
  t.is(bench.source.open_, 0)
  t.is(bench.view.counts.handles, 0)
})

onLinux('the kernel keeps its cache of a file only while the version is the same', async t => {
  const bench = new Bench(t)
  const KEEP = 2
  bench.source.files.set('file', { content, version: 'v1' })
  const node = await bench.lookup('file')
  const flags: number[] = []
  const look = async () => {
    const { fh, flags: given } = await bench.open(node)
    flags.push(given)
    await bench.release(node, fh)
  }
  await look()
  await look()
  bench.source.files.set('file', { content, version: 'v2' })
  await look()
  await look()
  bench.source.tell({ kind: 'changed', path: 'file', content: true })
  await look()
  t.deepEqual(flags, [0, KEEP, 0, KEEP, 0])
})

onLinux('changes elsewhere are told to the kernel, of what it knows', async t => {
  const bench = new Bench(t)
  bench.source.files.set('file', { content })
  bench.source.tell({ kind: 'changed', path: 'file', content: true })
  t.deepEqual(bench.notices, [])
  const node = await bench.lookup('file')
  bench.source.tell({ kind: 'changed', path: 'file', content: false })
  const inodes = () =>
    bench.notices
      .splice(0)
      .map(bytes =>
        STRUCTS.out_header.read(viewOf(bytes), 0).error === NOTIFY.INVAL_ENTRY
          ? 'name'
          : STRUCTS.notify_inval_inode_out.read(viewOf(bytes), 16).ino,
      )
  t.deepEqual(inodes(), [node])
  bench.source.tell({ kind: 'replaced', path: 'file' })
  t.deepEqual(inodes(), [1, node], 'the same file is not taken from those who are at work with it')
  const honest = bench.source.lookup.bind(bench.source)
  bench.source.lookup = path => ({ ...honest(path), id: path === '' ? honest('').id : 'another' })
  bench.source.tell({ kind: 'replaced', path: 'file' })
  t.deepEqual(inodes(), [1, 'name'])
  bench.source.lookup = honest
  bench.source.tell({ kind: 'replaced', path: 'unknown/file' })
  t.deepEqual(inodes(), [])
  bench.source.tell({ kind: 'everything' })
  t.is(bench.notices.length, 3)
})

onLinux('something else under a known name is not taken for the file that was there', async t => {
  const bench = new Bench(t)
  bench.source.files.set('file', { content })
  const node = await bench.lookup('file')
  const honest = bench.source.lookup.bind(bench.source)
  bench.source.lookup = path => ({ ...honest(path), id: path === '' ? honest('').id : 'another' })
  t.is((await bench.ask(OPCODES.GETATTR, node, new Uint8Array(16))).errno, ESTALE)
  const other = await bench.lookup('file')
  t.not(other, node)
  bench.source.lookup = honest
  t.is((await bench.open(other)).errno, ESTALE)
  t.is(bench.source.open_, 0)
})

onLinux('forgotten nodes are gone, and known folders list with their nodes', async t => {
  const bench = new Bench(t)
  for (let index = 0; index < 50; index++) bench.source.files.set(`file-${index}`, { content })
  const { body } = await bench.ask(OPCODES.OPENDIR, 1, struct(STRUCTS.open_in, { flags: 0, open_flags: 0 }))
  const { fh } = STRUCTS.open_out.read(viewOf(body), 0)
  const list = { fh, offset: 0, size: 100_000, read_flags: 0, lock_owner: 0n, flags: 0 }
  const plus = await bench.ask(OPCODES.READDIRPLUS, 1, struct(STRUCTS.read_in, list))
  t.true(plus.body.length > 50 * 150)
  t.is(bench.view.counts.nodes, 51)
  await bench.ask(OPCODES.READDIR, 1, struct(STRUCTS.read_in, list))
  const forgets = Array.from({ length: 50 }, (_, index) =>
    struct(STRUCTS.forget_one, { nodeid: index + 2, nlookup: 1 }),
  )
  bench.sendAs(3, OPCODES.BATCH_FORGET, 0, struct(STRUCTS.batch_forget_in, { count: 50 }), ...forgets)
  t.is(bench.view.counts.nodes, 1, 'only READDIRPLUS counts as a lookup')
})

onLinux('what waits and what is open has a limit', async t => {
  const bench = new Bench(t, { handlesMax: 10, runningMax: 20 })
  bench.source.files.set('slow', { content, reading: () => new Promise(() => {}) })
  const node = await bench.lookup('slow')
  const { fh } = await bench.open(node)
  for (let count = 1; count < 10; count++) await bench.open(node)
  t.is((await bench.open(node)).errno, ENFILE)
  t.is(bench.source.open_, 10)
  for (let count = 0; count < 20; count++) bench.read(node, fh, 0, 1)
  t.is((await bench.read(node, fh, 0, 1).answer).errno, EBUSY)
  t.is(bench.view.counts.running, 20)
  t.is((await bench.ask(OPCODES.LOOKUP, 1, Buffer.from('slow\0'))).errno, 0, 'others are served')
})

onLinux('a real file is given to the kernel once, for all who have it open, and taken back by the last', async t => {
  const PASSTHROUGH = 128
  const bench = new Bench(t, { passthrough: true })
  const init = { major: 7, minor: 40, max_readahead: 0, flags: 2 ** 30, flags2: 2 ** 5 }
  await bench.ask(OPCODES.INIT, 0, struct(STRUCTS.init_in, init))
  bench.source.files.set('file', { content })
  const node = await bench.lookup('file')
  const unreal = await bench.open(node)
  const mixed = await bench.open(node, 2)
  t.deepEqual(
    [unreal.flags & PASSTHROUGH, mixed.flags & PASSTHROUGH, bench.backings],
    [0, 0, []],
    'all by the cache while anybody is',
  )
  await bench.release(node, unreal.fh)
  await bench.release(node, mixed.fh)
  const [first, second] = [await bench.open(node), await bench.open(node, 2)]
  t.deepEqual([first.flags, second.flags], [PASSTHROUGH, PASSTHROUGH])
  await bench.release(node, first.fh)
  t.deepEqual(bench.backings, ['open true'])
  await bench.release(node, second.fh)
  t.deepEqual(bench.backings, ['open true', 'close 1'])
})
