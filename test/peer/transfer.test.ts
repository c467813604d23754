import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { createDescriptorTable, noteDescriptor } from '../../actors/descriptors.ts'
import { hashLeaves } from '../../actors/hasher/merkle.ts'
import { writeLeaves } from '../../actors/peer/leaf-writer.ts'
import { giveBuffer, MESSAGE_BYTES, takeBuffer } from '../../actors/peer/message-buffers.ts'
import { Download } from '../../actors/peer/transfer.ts'
import { type LeafWriter, WriterThread, type Written, writerHere } from '../../actors/peer/writer-thread.ts'
import { createGate } from '../../actors/write-gate.ts'
import type { Failure } from '../../protocol/error.ts'
import { LEAF_BYTES, LEAVES_PER_MESSAGE } from '../../protocol/limits.ts'
import type { LeavesToWrite } from '../../protocol/ports.ts'
import { openFile, openFilesIn } from './_threads.ts'

const MESSAGES = 3
const SIZE = MESSAGES * MESSAGE_BYTES - 1000

/** A download of three messages into an empty file. */
function begin(writer: LeafWriter) {
  const folder = mkdtempSync(join(tmpdir(), 'realize-transfer-'))
  const path = join(folder, 'to')
  writeFileSync(path, '')
  const content = randomBytes(SIZE)
  const leaves = hashLeaves(content)
  const table = createDescriptorTable()
  const fd = openFile(path, 'r+')
  noteDescriptor(table, fd)
  const order = { fd, size: SIZE, from: 0, count: leaves.length / 32, leaves }
  const download = new Download(order, table, writer)
  const store = (message: number, payload = content.subarray(message * MESSAGE_BYTES, (message + 1) * MESSAGE_BYTES)) =>
    new Promise<Failure | null>(resolve =>
      download.store(message * LEAVES_PER_MESSAGE, payload, message === MESSAGES - 1, resolve),
    )
  return {
    download,
    content,
    store,
    folder,
    written: () => readFileSync(path),
    openFiles: () => openFilesIn(folder),
    end: () => rmSync(folder, { recursive: true }),
  }
}

/** Does nothing until it is told to. */
class SlowWriter implements LeafWriter {
  readonly unwrittenBytes = 0
  readonly #orders: { leaves: LeavesToWrite; written: Written }[] = []

  write(leaves: LeavesToWrite, written: Written): void {
    this.#orders.push({ leaves, written })
  }

  writeOne(): void {
    const order = this.#orders.shift()
    if (order) writerHere.write(order.leaves, order.written)
  }
}

/** A writer whose thread has come, with what was written before it had. */
async function readyWriter(t: ExecutionContext): Promise<WriterThread> {
  const writer = new WriterThread(createGate())
  const { download, store, end } = begin(writer)
  t.is(await store(0), null, 'before its thread has come it writes all the same')
  while (!writer.ready) await setImmediate()
  await new Promise<void>(resolve => download.close(resolve))
  end()
  return writer
}

test('the thread of the writer writes what fits its hash, and a download ends with its descriptor closed', async t => {
  const { download, store, content, written, openFiles, end } = begin(await readyWriter(t))
  t.deepEqual(await Promise.all([store(0), store(1), store(2)]), [null, null, null])
  t.is(openFiles(), 1)
  await new Promise<void>(resolve => download.close(resolve))
  t.is(openFiles(), 0)
  t.true(written().equals(content))
  end()
})

test('after leaves that do not fit their hash nothing more of a download is written', async t => {
  const { download, store, content, written, end } = begin(await readyWriter(t))
  const wrong = Buffer.from(content.subarray(MESSAGE_BYTES, 2 * MESSAGE_BYTES))
  wrong[LEAF_BYTES + 7]! ^= 1
  const failures = await Promise.all([store(0), store(1, wrong), store(2)])
  t.deepEqual(
    failures.map(failure => failure?.code),
    [undefined, 'leaf_invalid', 'peer_closed'],
  )
  t.true(written().equals(content.subarray(0, MESSAGE_BYTES)))
  await new Promise<void>(resolve => download.close(resolve))
  end()
})

test('a download that is given up writes nothing more, and has ended only when what was under way has', t => {
  const writer = new SlowWriter()
  const { download, store, written, openFiles, end } = begin(writer)
  void store(0)
  void store(1)
  let closed = false
  download.close(() => {
    closed = true
  })
  writer.writeOne()
  t.false(closed)
  t.is(openFiles(), 1, 'a number that is free could be another file by now')
  writer.writeOne()
  t.true(closed)
  t.is(openFiles(), 0)
  t.is(written().length, 0)
  end()
})

test('what a writer that dies was to write has failed, and the next is written without it', async t => {
  // Says that it is ready, and dies of its first order.
  const broken = `import { parentPort } from 'node:worker_threads'
    parentPort.on('message', () => { throw new Error('no such luck') })
    parentPort.postMessage({ type: 'ready' })`
  const writer = new WriterThread(
    createGate(),
    undefined,
    new URL(`data:text/javascript,${encodeURIComponent(broken)}`),
  )
  const { download, store, content, written, end } = begin(writer)
  t.is(await store(0), null)
  while (!writer.ready) await setImmediate()
  const failures = await Promise.all([store(1), store(2)])
  t.deepEqual(
    failures.map(failure => failure?.code),
    ['disk_failed', 'disk_failed'],
  )
  t.regex(failures[0]?.message ?? '', /no such luck/)
  t.false(writer.ready)
  t.deepEqual(await Promise.all([store(1), store(2)]), [null, null])
  t.true(written().equals(content))
  await new Promise<void>(resolve => download.close(resolve))
  end()
})

test('a disk that refuses fails the download with what it said', async t => {
  const { download, content, folder, end } = begin(writerHere)
  const fd = openFile(join(folder, 'to'), 'r')
  const table = createDescriptorTable()
  const readOnly = new Download({ fd, size: SIZE, from: 0, count: 8, leaves: hashLeaves(content) }, table, writerHere)
  const failure = await new Promise<Failure | null>(resolve =>
    readOnly.store(0, content.subarray(0, MESSAGE_BYTES), false, resolve),
  )
  t.is(failure?.code, 'disk_failed')
  t.regex(failure?.message ?? '', /EBADF/)
  for (const one of [readOnly, download]) one.close(() => {})
  end()
})

test('what has left memory early is on the disk as it was sent', t => {
  const folder = mkdtempSync(join(tmpdir(), 'realize-transfer-'))
  const path = join(folder, 'to')
  const pieces = Array.from({ length: 10 }, () => randomBytes(8 * MESSAGE_BYTES))
  const size = pieces.length * 8 * MESSAGE_BYTES
  writeFileSync(path, '')
  truncateSync(path, size)
  const table = createDescriptorTable()
  pieces.forEach((piece, index) => {
    const from = index * 64
    const order = { fd: openFile(path, 'r+'), size, from, count: 64, leaves: hashLeaves(piece) }
    const download = new Download(order, table, {
      unwrittenBytes: 0,
      write: (leaves, written) => written(writeLeaves(leaves)),
    })
    for (let message = 0; message < 8; message++) {
      const payload = piece.subarray(message * MESSAGE_BYTES, (message + 1) * MESSAGE_BYTES)
      download.store(from + message * LEAVES_PER_MESSAGE, payload, message === 7, failure => t.is(failure, null))
    }
    download.close(() => {})
  })
  t.true(readFileSync(path).equals(Buffer.concat(pieces)))
  rmSync(folder, { recursive: true })
})

test('buffers of messages are used again, at their full length', t => {
  const first = takeBuffer(1000)
  t.is(first.length, 1000)
  giveBuffer(first)
  const second = takeBuffer(MESSAGE_BYTES)
  t.is(second.length, MESSAGE_BYTES)
  t.is(second.buffer, first.buffer)
  giveBuffer(new Uint8Array(MESSAGE_BYTES))
  t.not(takeBuffer(1).buffer, second.buffer, 'what another allocated is not taken')
})
