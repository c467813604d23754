/** Mounted views for tests, each in a thread of its own: the test may then use the mount with synchronous calls. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { FolderViewData, FolderViewMessage } from '../../actors/view/folder-worker.ts'
import { mountFault } from '../../actors/view/fuse-device.ts'
import { within } from '../_deadline.ts'
import { type Cleaning, temporaryFolder } from '../_temp.ts'

const MOUNT_MS = 30_000

/** Why a view cannot be mounted here, or null. */
export const cannotMount: string | null = mountFault() ?? triedFault()

/** A container may have the device and still not allow a mount: so one is tried. */
function triedFault(): string | null {
  if (process.geteuid?.() !== 0) return null
  const place = mkdtempSync(join(tmpdir(), 'realize-'))
  try {
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', 'none', place])
    if (status !== 0) return `mounts are not allowed: ${String(stderr).trim()}`
    spawnSync('umount', [place])
    return null
  } finally {
    rmdirSync(place)
  }
}

/** A folder in memory, where there is one: what is tested is the view, not how long a busy disk takes for an fsync. */
function memoryFolder(t: Cleaning): string | null {
  if (!existsSync('/dev/shm')) return null
  const folder = mkdtempSync('/dev/shm/realize-')
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export interface Mounted {
  /** The folder that is served. */
  root: string
  /** Where it is seen. */
  at: string
  passthrough: boolean
  worker: Worker
  close(): Promise<void>
}

export interface MountedOptions extends Partial<FolderViewData> {
  /** Another thread entry than that of a plain folder. */
  entry?: URL
}

/** Mounts a new empty folder, until the test's end. */
export async function mounted(t: Cleaning, options: MountedOptions = {}): Promise<Mounted> {
  const folder = temporaryFolder(t)
  const root = options.root ?? join(memoryFolder(t) ?? folder, 'root')
  const at = options.mountpoint ?? join(folder, 'view')
  mkdirSync(root, { recursive: true })
  if (options.mountpoint === undefined) mkdirSync(at, { recursive: true })
  const { entry = new URL('../../actors/view/folder-worker.js', import.meta.url), ...rest } = options
  const workerData: FolderViewData = { validMs: 1000, ...rest, mountpoint: at, root }
  const worker = new Worker(entry, { workerData })
  const gone = new Promise<void>(resolve => worker.once('exit', () => resolve()))
  const close = async () => {
    worker.postMessage('close')
    await within(MOUNT_MS, 'the view ends', gone)
  }
  t.teardown(close)
  const said = await within(
    MOUNT_MS,
    'the view is mounted',
    new Promise<FolderViewMessage>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    }),
  )
  if (said.type === 'failed') throw Object.assign(new Error(said.message), { code: said.code })
  return { root, at, passthrough: said.passthrough, worker, close }
}
