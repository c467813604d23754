/**
 * Thread that reads the FUSE device. Content of real files it reads and writes itself – their handle is a descriptor of this
 * process – so that it crosses no thread; every other request goes to the view's thread, which also writes the reply.
 *
 * Several of these wait for the same device. It ends when the device says that the mount is gone, or when it is woken to stop.
 */
import { fstatSync } from 'node:fs'
import { constants } from 'node:os'
import { parentPort } from 'node:worker_threads'
import { type DeviceLoopMessage, type DeviceLoopStart, FLAGS } from './device-messages.ts'
import {
  isForeignAttribute,
  OPCODES,
  OUT_HEADER_BYTES,
  REQUEST_BYTES_MAX,
  STRUCTS,
  TRANSFER_BYTES_MAX,
  WRITE_CONTENT_AT,
  WRITE_KILL_SUIDGID,
} from './fuse-protocol.ts'
import { replyError, sizeBody, writeReplyHeader } from './fuse-reply.ts'
import { opcodeOf } from './fuse-request.ts'
import { closeKept, keepIn, kept } from './kept.ts'
import { createWaiter, readContent, readDevice, readSoon, waitDevice, writeContent, writeDevice } from './view-calls.ts'

/** A thread that is terminated notices after this long, as waiting does not end by itself. */
const WAIT_MS = 1000
/** So long the device is left to the view's thread while that reads it. */
const LEFT_MS = 2
/** Handles below are descriptors. */
const DESCRIPTOR_END = 2 ** 31
const SET_ID_BITS = 0o6000
const READS_ON_BYTES = 512 * 1024
/** Where who reads large parts of a descriptor goes on; of so many. */
const NEXT_MAX = 1000
const nextOf = new Map<number, number>()

const { EAGAIN, EINTR, ENOENT, ENODEV, EOPNOTSUPP } = constants.errno

const port = parentPort
if (port === null) throw new Error('this file is the entry of a thread')

const request = new Uint8Array(REQUEST_BYTES_MAX)
const requestView = new DataView(request.buffer)
const requestText = Buffer.from(request.buffer)
const answer = new Uint8Array(OUT_HEADER_BYTES + TRANSFER_BYTES_MAX)
const answerContent = answer.subarray(OUT_HEADER_BYTES)
const written = new Uint8Array(OUT_HEADER_BYTES + 8)
const clearsIds = process.geteuid?.() === 0

const { offsets: header } = STRUCTS.in_header
const { offsets: read } = STRUCTS.read_in
const { offsets: write } = STRUCTS.write_in
const BODY_AT = STRUCTS.in_header.bytes
const ATTRIBUTE_NAME_AT = BODY_AT + STRUCTS.getxattr_in.bytes

let device = -1

// The last thing that this thread hears: from then on it waits for the device, and ends with it.
port.once('message', (start: DeviceLoopStart) => {
  device = start.device
  if (start.descriptors !== null) keepIn(start.descriptors)
  const waiter = kept(createWaiter(device, start.waker))
  loop(waiter, start.flags)
  closeKept(waiter)
})
port.postMessage('ready' satisfies DeviceLoopMessage)

function loop(waiter: number, flags: Int32Array): void {
  while (Atomics.load(flags, FLAGS.stopped) === 0) {
    waitDevice(waiter, WAIT_MS)
    if (Atomics.load(flags, FLAGS.near) === 1) Atomics.wait(flags, FLAGS.near, 1, LEFT_MS)
    // Others may have been quicker; ENOENT: the request was interrupted before it was read.
    for (;;) {
      const length = readDevice(device, request)
      if (length === -EINTR || length === -ENOENT) continue
      if (length === -EAGAIN) break
      if (length < 0) {
        // ENODEV: unmounted. ECONNABORTED: somebody cut it.
        port?.postMessage(null satisfies DeviceLoopMessage)
        return
      }
      if (!serve(length)) port?.postMessage(request.slice(0, length) satisfies DeviceLoopMessage)
      if (Atomics.load(flags, FLAGS.stopped) !== 0) return
    }
  }
}

/** Answers READ and WRITE of a descriptor, and what is always answered alike; false for every other request. */
function serve(length: number): boolean {
  const opcode = opcodeOf(requestView)
  if (opcode === OPCODES.GETXATTR) {
    const end = request.indexOf(0, ATTRIBUTE_NAME_AT)
    if (end < 0 || end >= length || !isForeignAttribute(requestText.toString('latin1', ATTRIBUTE_NAME_AT, end)))
      return false
    send(replyError(unique(), EOPNOTSUPP), OUT_HEADER_BYTES)
    return true
  }
  if (opcode === OPCODES.READ) {
    const descriptor = number(BODY_AT + read.fh)
    if (descriptor >= DESCRIPTOR_END) return false
    const size = Math.min(requestView.getUint32(BODY_AT + read.size, true), TRANSFER_BYTES_MAX)
    const offset = number(BODY_AT + read.offset)
    // For who reads on the disk is at work on the next part while this one is copied.
    if (size >= READS_ON_BYTES) {
      if (nextOf.get(descriptor) === offset) readSoon(descriptor, offset + size, size)
      if (nextOf.size >= NEXT_MAX) nextOf.clear()
      nextOf.set(descriptor, offset + size)
    }
    const count = readContent(descriptor, answerContent, size, offset)
    if (count < 0) send(replyError(unique(), -count), OUT_HEADER_BYTES)
    else {
      writeReplyHeader(answer, unique(), OUT_HEADER_BYTES + count)
      send(answer, OUT_HEADER_BYTES + count)
    }
    return true
  }
  if (opcode === OPCODES.WRITE) {
    const descriptor = number(BODY_AT + write.fh)
    if (descriptor >= DESCRIPTOR_END) return false
    if (mustClearIds(descriptor)) return false
    const size = Math.min(requestView.getUint32(BODY_AT + write.size, true), length - WRITE_CONTENT_AT)
    const content = request.subarray(WRITE_CONTENT_AT, WRITE_CONTENT_AT + size)
    const count = writeContent(descriptor, content, number(BODY_AT + write.offset))
    if (count < 0) send(replyError(unique(), -count), OUT_HEADER_BYTES)
    else {
      writeReplyHeader(written, unique(), written.length)
      written.set(sizeBody(count), OUT_HEADER_BYTES)
      send(written, written.length)
    }
    return true
  }
  return false
}

/** Whether a write takes rights away from a program, which the view does. Asked for every write of an ordinary user. */
function mustClearIds(descriptor: number): boolean {
  if (!clearsIds || !(requestView.getUint32(BODY_AT + write.write_flags, true) & WRITE_KILL_SUIDGID)) return false
  return (fstatSync(descriptor).mode & SET_ID_BITS) !== 0
}

function unique(): number {
  return number(header.unique)
}

function number(at: number): number {
  return requestView.getUint32(at, true) + requestView.getUint32(at + 4, true) * 2 ** 32
}

/** An error means that the request was given up (ENOENT), or the mount (ENODEV), which the next read says. */
function send(bytes: Uint8Array, length: number): void {
  const errno = writeDevice(device, bytes, length)
  if (errno === 0 || errno === ENOENT || errno === ENODEV) return
  // EINVAL would be our own mistake; the program still must not hang.
  writeDevice(device, replyError(unique(), constants.errno.EIO), OUT_HEADER_BYTES)
}
