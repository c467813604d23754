/**
 * A mounted view: device, reading threads and the view itself, bound together in the thread that calls. That thread must be free
 * to answer: whoever uses the mount from it with synchronous calls waits for himself.
 *
 * A crash harms nobody else: when the thread ends, however it ends, its device is closed, programs get ENOTCONN, and the next
 * mount on the place takes the stale one away.
 */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, readFileSync, write } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import { type DeviceLoopMessage, type DeviceLoopStart, FLAGS } from './device-messages.ts'
import { checkApart, type MountOptions, mayGiveFiles, mountView, readFurtherAhead, unmountView } from './fuse-device.ts'
import { closeKept, kept, keptTable } from './kept.ts'
import { NearReader } from './near-reader.ts'
import { View, type ViewOutlet } from './view.ts'
import { closeBacking, createWaker, openBacking, readDevice, wake, writeDevice } from './view-calls.ts'
import { ViewError, type ViewSource } from './view-source.ts'

/** Threads that read the device: two keep it busy while one of them copies content. */
const READERS = 2
/** How far the kernel reads ahead of who reads on: as much as one request brings. */
const READ_AHEAD_BYTES = 1024 * 1024
/** How long closing waits for what is mapped to be written, and for notifications under way. */
const FLUSH_MS = 5000
const NOTICES_MS = 2000

export interface ViewOptions extends Partial<MountOptions> {
  mountpoint: string
  source: ViewSource
  /** Whether the kernel may read and write real files by itself where it can (Linux 6.9, as root). Default: yes. */
  passthrough?: boolean
  log?: ViewOutlet['log']
}

export interface OpenView {
  /** How much is open and known. */
  readonly counts: View['counts']
  /** Whether the kernel reads and writes real files by itself. */
  readonly passthrough: boolean
  /** Settles when the mount is gone, whoever took it away; with an error if a reading thread died. The source is closed then. */
  readonly ended: Promise<Error | null>
  /** Unmounts and ends all of it. Programs that still have something open get ENOTCONN. */
  close(): Promise<void>
}

/** Mounts a source. Resolves once the kernel and the view have agreed; the source belongs to the view from then on. */
export async function openView(options: ViewOptions): Promise<OpenView> {
  const { mountpoint, source } = options
  if (source.root !== null) checkApart(mountpoint, source.root)
  const root = await source.lookup('')
  const mount = { allowOther: options.allowOther ?? false, ...(options.by === undefined ? {} : { by: options.by }) }
  const readers = await startReaders()
  const device = await mountView(mountpoint, mount).catch(async error => {
    await Promise.all(readers.map(reader => reader.worker.terminate()))
    throw error
  })
  const waker = kept(createWaker())
  const flags = new Int32Array(new SharedArrayBuffer(4 * Object.keys(FLAGS).length))
  const agreed = deferred<boolean>()
  const ended = deferred<Error | null>()
  const notices = new NoticeWriter(device)
  const outlet: ViewOutlet = {
    reply: bytes => writeDevice(device, bytes, bytes.length),
    notify: bytes => notices.add(bytes),
    negotiated: result => {
      if (result === null) agreed.reject(new ViewError('EPROTO', 'this kernel is older than Linux 4.20'))
      else agreed.resolve(result.passthrough)
    },
    log: options.log ?? (() => {}),
    now: () => BigInt(Date.now()) * 1_000_000n,
    openBacking: descriptor => openBacking(device, descriptor),
    closeBacking: backing => closeBacking(device, backing),
    statusOf,
    later: (waitMs, action) => {
      const timer = setTimeout(action, waitMs)
      return () => clearTimeout(timer)
    },
  }
  const view = new View(source, root, outlet, { passthrough: (options.passthrough ?? true) && mayGiveFiles() })
  const near = new NearReader({
    read: bytes => readDevice(device, bytes),
    receive: bytes => view.receive(bytes),
    now: () => performance.now(),
    nextTurn: action => setImmediate(action),
    looking: on => {
      Atomics.store(flags, FLAGS.near, on ? 1 : 0)
      if (!on) Atomics.notify(flags, FLAGS.near)
    },
  })
  let ending: Promise<void> | null = null
  let mounted = true

  /** Ends everything, once, whoever asks first. */
  const end = (reason: Error | null): Promise<void> => {
    ending ??= (async () => {
      if (mounted) {
        await flush(mountpoint)
        await tryUnmount(mountpoint, outlet)
      }
      near.stop()
      // A notification may wait for a lock that a request holds: so those are answered first.
      view.stop()
      await Promise.race([notices.close(), wait(NOTICES_MS, null, { ref: false })])
      Atomics.store(flags, FLAGS.stopped, 1)
      wake(waker)
      await Promise.all(readers.map(reader => reader.gone))
      // Only now: the reading threads use the descriptors of open files.
      view.close()
      closeSync(device)
      closeKept(waker)
      source.close()
      agreed.reject(reason ?? new ViewError('ENODEV', 'unmounted'))
      ended.resolve(reason)
    })()
    return ending
  }
  for (const { worker, gone } of readers) {
    worker.on('message', (message: Exclude<DeviceLoopMessage, 'ready'>) => {
      if (message !== null) {
        view.receive(message)
        return near.came()
      }
      mounted = false
      void end(null)
    })
    worker.postMessage({ device, waker, flags, descriptors: keptTable() } satisfies DeviceLoopStart)
    worker.on('error', error => void end(error instanceof Error ? error : new Error(String(error))))
    void gone.then(() => end(null))
  }
  try {
    const passthrough = await agreed.promise
    readFurtherAhead(mountpoint, READ_AHEAD_BYTES)
    return {
      get counts() {
        return view.counts
      },
      passthrough,
      ended: ended.promise,
      close: () => end(null),
    }
  } catch (error) {
    await end(error instanceof Error ? error : new Error(String(error)))
    throw error
  }
}

function statusOf(pid: number): string | null {
  try {
    return readFileSync(`/proc/${pid}/status`, 'latin1')
  } catch {
    return null
  }
}

interface Deferred<Value> {
  promise: Promise<Value>
  resolve(value: Value): void
  reject(error: Error): void
}

function deferred<Value>(): Deferred<Value> {
  const parts: Partial<Deferred<Value>> = {}
  const promise = new Promise<Value>((resolve, reject) => Object.assign(parts, { resolve, reject }))
  // A rejection that nobody waits for any more is none.
  promise.catch(() => {})
  return { ...(parts as Deferred<Value>), promise }
}

/** What programs wrote into mapped files and the kernel still has. By a program, as calls from here would wait for our answers. */
async function flush(mountpoint: string): Promise<void> {
  try {
    await promisify(execFile)('sync', ['-f', mountpoint], { timeout: FLUSH_MS })
  } catch {
    // The mount is gone, or it takes too long: closing must come to an end.
  }
}

async function tryUnmount(mountpoint: string, outlet: ViewOutlet): Promise<void> {
  try {
    await unmountView(mountpoint)
  } catch (error) {
    // Closing the device cuts it all the same; the place stays stale until it is used again.
    outlet.log('view_defect', { operation: 'unmount', error: error instanceof Error ? error.message : String(error) })
  }
}

interface Reader {
  worker: Worker
  gone: Promise<void>
}

/**
 * The reading threads, ready before there is anything to read: a thread that is terminated while it still loads koffi – because this
 * one dies – takes the whole process with it.
 */
function startReaders(): Promise<Reader[]> {
  // Run from the compiled output or, in development, from the sources: with this file's own ending.
  const entry = new URL(`./device-loop${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url)
  return Promise.all(
    Array.from({ length: READERS }, async () => {
      const worker = new Worker(entry, { name: 'view reader' })
      const gone = new Promise<void>(resolve => worker.once('exit', () => resolve()))
      await once(worker, 'message')
      return { worker, gone }
    }),
  )
}

/** Notifications, one after another, from Node's thread pool: the kernel may let each wait for a lock. */
class NoticeWriter {
  readonly #device: number
  /** By their bytes: what is said already and not yet written is not said twice, so there are no more than known names. */
  readonly #waiting = new Map<string, Uint8Array>()
  #writing: Promise<void> | null = null

  constructor(device: number) {
    this.#device = device
  }

  add(bytes: Uint8Array): void {
    this.#waiting.set(Buffer.from(bytes).toString('latin1'), bytes)
    this.#writing ??= this.#drain()
  }

  /** Drops what waits; resolves when nothing is being written. */
  async close(): Promise<void> {
    this.#waiting.clear()
    await this.#writing
  }

  async #drain(): Promise<void> {
    for (const [key, bytes] of this.#waiting) {
      this.#waiting.delete(key)
      // ENOENT: the kernel does not know it any more. ENODEV: unmounted. Neither is of interest here.
      await new Promise<void>(resolve => write(this.#device, bytes, () => resolve()))
    }
    this.#writing = null
  }
}
