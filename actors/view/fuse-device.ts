/**
 * Mounting and unmounting: by the system call as root, else by `fusermount3`, the helper with root's rights of the package fuse3,
 * which sends the device's descriptor over a socket (as go-fuse does it: hanwen/go-fuse, fuse/mount_linux.go).
 *
 * A mount whose program died is *stale*: every access to it fails with ENOTCONN, "Transport endpoint is not connected". It is
 * recognised and taken away before a new one takes its place.
 */
import { execFile, spawnSync } from 'node:child_process'
import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, resolve } from 'node:path'
import { promisify } from 'node:util'
import { close } from '../arena/posix-calls.ts'
import { detachMount, mountDevice, receiveDescriptor, socketPair, takePlace, viewFault } from './view-calls.ts'
import { ViewError } from './view-source.ts'

const DEVICE = '/dev/fuse'
const HELPER = 'fusermount3'
const HELPER_TIMEOUT_MS = 30_000
/** Type of the file system as /proc/mounts shows it. */
export const MOUNT_TYPE = 'fuse.realize'

export interface MountOptions {
  /** Whether other users see it too. Without root, `user_allow_other` must stand in /etc/fuse.conf. */
  allowOther: boolean
  /** `call`: mount(2), as root; `helper`: fusermount3. Default: by who we are. */
  by?: 'call' | 'helper'
}

/** Why nothing can be mounted here, as a sentence; or null. */
export function mountFault(): string | null {
  if (viewFault !== null) return `the view needs Linux and koffi: ${viewFault}`
  try {
    // Also for the helper, which opens it with the rights of the user: systems give it to all (mode 0666), containers often to nobody.
    closeSync(openSync(DEVICE, constants.O_RDWR))
  } catch (error) {
    return `${DEVICE} cannot be opened: ${error instanceof Error ? error.message : String(error)}`
  }
  if (isRoot()) return null
  if (mayNotGainRights())
    return `${HELPER} cannot get the rights that it needs, as this service was started with NoNewPrivileges: see docs/install.md`
  return spawnSync(HELPER, ['--version']).status === 0 ? null : `${HELPER} (package fuse3) is not installed`
}

/** Whether programs that it starts run with no more rights than it has, as a systemd unit can ask for. */
function mayNotGainRights(): boolean {
  return /^NoNewPrivs:\s*1$/m.test(readFileSync('/proc/self/status', 'utf8'))
}

/** Whether the kernel takes files from this process, to read and write them by itself: it asks for CAP_SYS_ADMIN. */
export function mayGiveFiles(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  return effective !== undefined && (BigInt(`0x${effective}`) & CAP_SYS_ADMIN) !== 0n
}
// Linux: include/uapi/linux/capability.h
const CAP_SYS_ADMIN = 1n << 21n

function isRoot(): boolean {
  return process.geteuid?.() === 0
}

/**
 * Mounts on an existing, empty folder, after a stale mount on it was taken away. Returns the device's descriptor, which ends with
 * the thread that called, so that a thread that dies leaves programs with an error and not hanging.
 *
 * Throws ViewError: ENOTDIR, ENOTEMPTY, EBUSY (there is a living mount), EPERM, and what the helper says.
 */
export async function mountView(mountpoint: string, options: MountOptions): Promise<number> {
  const fault = mountFault()
  if (fault !== null) throw new ViewError('ENODEV', fault)
  await unmountStale(mountpoint)
  if (!statSync(mountpoint).isDirectory()) throw new ViewError('ENOTDIR', `'${mountpoint}' is not a folder`)
  if (isMountpoint(mountpoint)) throw new ViewError('EBUSY', `something is mounted on '${mountpoint}'`)
  if (readdirSync(mountpoint).length > 0) throw new ViewError('ENOTEMPTY', `'${mountpoint}' is not empty`)
  const byCall = (options.by ?? (isRoot() ? 'call' : 'helper')) === 'call'
  // Node closes what it opened in a thread when the thread ends: so the helper's descriptor takes the place of one of Node's.
  const device = openSync(byCall ? DEVICE : '/dev/null', constants.O_RDWR | constants.O_NONBLOCK)
  try {
    if (byCall) mountDevice(mountpoint, MOUNT_TYPE, mountData(device, options))
    else takePlace(mountByHelper(mountpoint, options), device)
    return device
  } catch (error) {
    closeSync(device)
    throw error
  }
}

function mountData(device: number, { allowOther }: MountOptions): string {
  const who = `rootmode=40000,user_id=${process.geteuid?.() ?? 0},group_id=${process.getegid?.() ?? 0}`
  return `fd=${device},${who},default_permissions${allowOther ? ',allow_other' : ''}`
}

function mountByHelper(mountpoint: string, { allowOther }: MountOptions): number {
  const [ours, theirs] = socketPair()
  let said: string
  try {
    const options = `default_permissions,nosuid,nodev,fsname=realize,subtype=realize${allowOther ? ',allow_other' : ''}`
    const result = spawnSync(HELPER, ['-o', options, '--', mountpoint], {
      env: { ...process.env, _FUSE_COMMFD: '3' },
      stdio: ['ignore', 'ignore', 'pipe', theirs],
      timeout: HELPER_TIMEOUT_MS,
    })
    said = result.error?.message ?? result.stderr.toString().trim()
  } finally {
    close(theirs)
  }
  try {
    const device = receiveDescriptor(ours)
    if (device !== null) return device
    throw new ViewError('EPERM', said === '' ? `${HELPER} did not mount '${mountpoint}'` : said)
  } finally {
    close(ours)
  }
}

/** Takes a mount away at once; programs that have something open in it keep it until its device is closed. */
export async function unmountView(mountpoint: string): Promise<void> {
  if (isRoot()) return detachMount(mountpoint)
  // Not the synchronous form: the kernel may have questions before the helper has ended.
  await promisify(execFile)(HELPER, ['-u', '-z', '--', mountpoint], { timeout: HELPER_TIMEOUT_MS })
}

/** Whether a mount is there whose program has died. */
export function isStale(mountpoint: string): boolean {
  try {
    statSync(mountpoint)
    return false
  } catch (error) {
    return error instanceof Error && 'code' in error && (error.code === 'ENOTCONN' || error.code === 'ECONNABORTED')
  }
}

/** Takes stale mounts away, one above the other; whether there were any. */
export async function unmountStale(mountpoint: string): Promise<boolean> {
  let found = false
  while (isStale(mountpoint)) {
    await unmountView(mountpoint)
    found = true
  }
  return found
}

function isMountpoint(mountpoint: string): boolean {
  return mountpoints().includes(realpathSync(mountpoint))
}

/** Where something is mounted, as this process sees it. */
export function mountpoints(): string[] {
  return mounts().map(({ at }) => at)
}

/** Device numbers as `0:45`. Spaces and the like stand as octal numbers in the table. */
function mounts(): { at: string; device: string }[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map(line => {
      const [, , device = '', , path = ''] = line.split(' ')
      const at = path.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
      return { at, device }
    })
}

/**
 * How far the kernel reads ahead in a mount, bytes: by itself 128 KiB, so that each request brings no more. Only root can say so; for others,
 * and where /sys may not be written to, it stays as it is. Must not touch the mount itself, which may be served by this thread.
 */
export function readFurtherAhead(mountpoint: string, bytes: number): void {
  try {
    const whole = resolve(mountpoint)
    const at = realpathSync(dirname(whole))
    const path = at === '/' ? `/${basename(whole)}` : `${at}/${basename(whole)}`
    const device = mounts().findLast(mount => mount.at === path)?.device
    if (device !== undefined) writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, String(bytes / 1024))
  } catch {}
}

/**
 * Refuses a mount that would show itself: on the served folder, in it, or above it. A request to such a place would wait for its
 * own answer.
 */
export function checkApart(mountpoint: string, root: string): void {
  const [above, below] = [realpathSync(root), isStale(mountpoint) ? resolve(mountpoint) : realpathSync(mountpoint)]
  const inside = (path: string, folder: string) =>
    path === folder || path.startsWith(folder === '/' ? '/' : `${folder}/`)
  if (inside(below, above) || inside(above, below))
    throw new ViewError('EINVAL', `'${mountpoint}' and the folder '${root}' must not be inside each other`)
}
