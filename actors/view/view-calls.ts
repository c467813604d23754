/**
 * System calls of the view, through koffi: those on the FUSE device and on mounts, and those on files that neither Node nor the
 * arena's `posix-calls.ts` offers. Each throws DiskError with the errno name, but for those whose doc comment says otherwise.
 *
 * Layouts of `struct statx` and `struct epoll_event` and the numbers here are those of x86-64, arm64, riscv64 and loong64, the
 * platforms that `posix-calls.ts` serves too.
 */
import { fdatasync, constants as fsConstants, fsync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants as osConstants } from 'node:os'
import { DiskError } from '../arena/disk.ts'
import { close, posixFault } from '../arena/posix-calls.ts'
import type { Attributes } from './fuse-reply.ts'

const O_CLOEXEC = 0x80000
const O_PATH = 0x200000
const AT_SYMLINK_NOFOLLOW = 0x100
const AT_EMPTY_PATH = 0x1000
const STATX_BASIC_STATS_AND_BTIME = 0xfff
const UTIME_OMIT = 0x3ffffffe
const UTIME_NOW = 0x3fffffff
const EPOLL_CTL_ADD = 1
const EPOLLIN = 1
const EPOLLEXCLUSIVE = 1 << 28
const EFD_FLAGS = 0x80800
const MS_NOSUID = 2
const MS_NODEV = 4
const MNT_DETACH = 2
const AF_UNIX = 1
const SOCK_STREAM = 1
const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const FIONBIO = 0x5421
const BACKING_OPEN = 0x4010e501
const BACKING_CLOSE = 0x4004e502

/** Opens anything, a symlink itself too, only to look at it or to name it by `/proc/self/fd`. */
export const LOOK = O_PATH | fsConstants.O_NOFOLLOW | O_CLOEXEC

type Koffi = typeof import('koffi')
type Call<Arguments extends unknown[]> = import('koffi').KoffiFunc<(...values: Arguments) => number>

function bind(koffi: Koffi) {
  const libc = koffi.load(null)
  return {
    read: libc.func('int64_t read(int fd, _Out_ void *bytes, size_t length)') as Call<[number, Uint8Array, number]>,
    write: libc.func('int64_t write(int fd, const void *bytes, size_t length)') as Call<[number, Uint8Array, number]>,
    pread: libc.func('int64_t pread(int fd, _Out_ void *bytes, size_t length, int64_t offset)') as Call<
      [number, Uint8Array, number, number]
    >,
    fadvise: libc.func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)') as Call<
      [number, number, number, number]
    >,
    pwrite: libc.func('int64_t pwrite(int fd, const void *bytes, size_t length, int64_t offset)') as Call<
      [number, Uint8Array, number, number]
    >,
    openat: libc.func('int openat(int folder, const char *path, int flags, unsigned int mode)') as Call<
      [number, string, number, number]
    >,
    statx: libc.func('int statx(int folder, const char *path, int flags, unsigned int mask, _Out_ void *stat)') as Call<
      [number, string, number, number, Uint8Array]
    >,
    fchownat: libc.func(
      'int fchownat(int folder, const char *path, unsigned int uid, unsigned int gid, int flags)',
    ) as Call<[number, string, number, number, number]>,
    utimensat: libc.func('int utimensat(int folder, const char *path, const void *times, int flags)') as Call<
      [number, string, Uint8Array, number]
    >,
    mknodat: libc.func('int mknodat(int folder, const char *path, unsigned int mode, uint64_t rdev)') as Call<
      [number, string, number, number]
    >,
    fallocate: libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)') as Call<
      [number, number, number, number]
    >,
    lseek: libc.func('int64_t lseek(int fd, int64_t offset, int whence)') as Call<[number, number, number]>,
    copyFileRange: libc.func(
      'int64_t copy_file_range(int from, void *fromOffset, int to, void *toOffset, size_t length, unsigned int flags)',
    ) as Call<[number, Uint8Array, number, Uint8Array, number, number]>,
    lsetxattr: libc.func(
      'int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)',
    ) as Call<[string, string, Uint8Array, number, number]>,
    lgetxattr: libc.func(
      'int64_t lgetxattr(const char *path, const char *name, _Out_ void *value, size_t size)',
    ) as Call<[string, string, Uint8Array, number]>,
    llistxattr: libc.func('int64_t llistxattr(const char *path, _Out_ void *list, size_t size)') as Call<
      [string, Uint8Array, number]
    >,
    lremovexattr: libc.func('int lremovexattr(const char *path, const char *name)') as Call<[string, string]>,
    epollCreate: libc.func('int epoll_create1(int flags)') as Call<[number]>,
    epollCtl: libc.func('int epoll_ctl(int epoll, int operation, int fd, void *event)') as Call<
      [number, number, number, Uint8Array]
    >,
    epollWait: libc.func('int epoll_wait(int epoll, _Out_ void *events, int count, int timeout)') as Call<
      [number, Uint8Array, number, number]
    >,
    eventfd: libc.func('int eventfd(unsigned int count, int flags)') as Call<[number, number]>,
    mount: libc.func(
      'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
    ) as Call<[string, string, string, number, string]>,
    umount2: libc.func('int umount2(const char *target, int flags)') as Call<[string, number]>,
    socketpair: libc.func('int socketpair(int domain, int type, int protocol, _Out_ int *pair)') as Call<
      [number, number, number, Int32Array]
    >,
    recvmsg: libc.func('int64_t recvmsg(int socket, void *message, int flags)') as Call<[number, Uint8Array, number]>,
    dup3: libc.func('int dup3(int from, int to, int flags)') as Call<[number, number, number]>,
    ioctl: libc.func('int ioctl(int fd, unsigned long request, void *argument)') as Call<[number, number, Uint8Array]>,
    address: (bytes: Uint8Array) => BigInt(koffi.address(bytes)),
    errno: () => koffi.errno(),
  }
}

/** Why there can be no view here, or null. */
export let viewFault: string | null = posixFault

let call!: ReturnType<typeof bind>
try {
  if (posixFault === null) call = bind(createRequire(import.meta.url)('koffi') as Koffi)
} catch (error) {
  viewFault = error instanceof Error ? error.message : String(error)
}

const ERRNO_NAMES = new Map<number, string>()
for (const [name, value] of Object.entries(osConstants.errno))
  if (!ERRNO_NAMES.has(value) || name === 'EAGAIN' || name === 'EOPNOTSUPP') ERRNO_NAMES.set(value, name)

function lastError(): string {
  const errno = call.errno()
  return ERRNO_NAMES.get(errno) ?? `errno ${errno}`
}

function fail(what: string): never {
  const code = lastError()
  throw new DiskError(code, `${code}: ${what}`)
}

function check(result: number, what: string): number {
  return result >= 0 ? result : fail(what)
}

// The device

/** Bytes read from a descriptor, or the errno, negated. */
export function readDevice(fd: number, bytes: Uint8Array): number {
  const count = call.read(fd, bytes, bytes.length)
  return count >= 0 ? count : -call.errno()
}

/** 0, or the errno. A reply is one write, or the kernel does not take it. */
export function writeDevice(fd: number, bytes: Uint8Array, length: number): number {
  return call.write(fd, bytes, length) >= 0 ? 0 : call.errno()
}

/** Bytes read at an offset (fewer only at the end of the file), or the errno, negated. */
export function readContent(fd: number, bytes: Uint8Array, length: number, offset: number): number {
  let done = 0
  while (done < length) {
    const count = call.pread(fd, done === 0 ? bytes : bytes.subarray(done), length - done, offset + done)
    if (count === 0) break
    if (count > 0) done += count
    else if (call.errno() !== osConstants.errno.EINTR) return done > 0 ? done : -call.errno()
  }
  return done
}

/** The disk begins to read a part that will be asked for next. */
export function readSoon(fd: number, offset: number, length: number): void {
  call.fadvise(fd, offset, length, WILLNEED)
}
// Linux: posix_fadvise(2)
const WILLNEED = 3

/** Bytes written at an offset (fewer where the disk is full), or the errno, negated. */
export function writeContent(fd: number, bytes: Uint8Array, offset: number): number {
  let done = 0
  while (done < bytes.length) {
    const count = call.pwrite(fd, done === 0 ? bytes : bytes.subarray(done), bytes.length - done, offset + done)
    if (count > 0) done += count
    else if (call.errno() !== osConstants.errno.EINTR) return done > 0 ? done : -call.errno()
  }
  return done
}

/** What wakes every thread that waits with `waitDevice`, once written with `wake`. */
export function createWaker(): number {
  return check(call.eventfd(0, EFD_FLAGS), 'cannot make an eventfd')
}

export function wake(waker: number): void {
  const one = new Uint8Array(8)
  one[0] = 1
  call.write(waker, one, 8)
}

/**
 * An epoll descriptor for the device and the waker. Exclusive: of several threads that wait, one wakes for a request; ordinary
 * polling would wake them all for each.
 */
export function createWaiter(device: number, waker: number): number {
  const epoll = check(call.epollCreate(O_CLOEXEC), 'cannot make an epoll descriptor')
  check(call.epollCtl(epoll, EPOLL_CTL_ADD, device, epollEvent(EPOLLIN | EPOLLEXCLUSIVE)), 'cannot wait for the device')
  check(call.epollCtl(epoll, EPOLL_CTL_ADD, waker, epollEvent(EPOLLIN)), 'cannot wait for the waker')
  return epoll
}

function epollEvent(events: number): Uint8Array {
  const bytes = new Uint8Array(16)
  new DataView(bytes.buffer).setUint32(0, events, true)
  return bytes
}

const events = new Uint8Array(64)

/** Waits until there is something to read, or `timeoutMs` is over. */
export function waitDevice(epoll: number, timeoutMs: number): void {
  call.epollWait(epoll, events, 2, timeoutMs)
}

/** Registers a file with the kernel, for requests that it answers itself. Needs CAP_SYS_ADMIN. Returns its number, 0 if refused. */
export function openBacking(device: number, fd: number): number {
  const map = new Uint8Array(16)
  new DataView(map.buffer).setInt32(0, fd, true)
  return Math.max(0, call.ioctl(device, BACKING_OPEN, map))
}

export function closeBacking(device: number, backing: number): void {
  const id = new Uint8Array(4)
  new DataView(id.buffer).setUint32(0, backing, true)
  call.ioctl(device, BACKING_CLOSE, id)
}

// Mounts

export function mountDevice(mountpoint: string, type: string, data: string): void {
  check(call.mount('realize', mountpoint, type, MS_NOSUID | MS_NODEV, data), `cannot mount on '${mountpoint}'`)
}

/**
 * Takes the mount out of the tree at once; what is open in it stays so until it is closed. In Node's thread pool: the kernel
 * writes what is left of mapped files first, and waits for our answers.
 */
export function detachMount(mountpoint: string): Promise<void> {
  return new Promise((resolve, reject) => {
    call.umount2.async(mountpoint, MNT_DETACH, (error: unknown, result: number) => {
      if (error === null && result === 0) resolve()
      else reject(asyncError(`cannot unmount '${mountpoint}'`))
    })
  })
}

/** Two connected sockets. */
export function socketPair(): [number, number] {
  const pair = new Int32Array(2)
  check(call.socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 'cannot make a pair of sockets')
  return [pair[0] as number, pair[1] as number]
}

/**
 * The descriptor that was sent over a socket with SCM_RIGHTS, or null if the other side closed it without sending one. Layouts
 * of `struct msghdr`, `iovec` and `cmsghdr` are those of Linux with 64 bits.
 */
export function receiveDescriptor(socket: number): number | null {
  const byte = Buffer.alloc(8)
  const vector = Buffer.alloc(16)
  const control = Buffer.alloc(24)
  const message = Buffer.alloc(56)
  vector.writeBigUInt64LE(call.address(byte), 0)
  vector.writeBigUInt64LE(1n, 8)
  message.writeBigUInt64LE(call.address(vector), 16)
  message.writeBigUInt64LE(1n, 24)
  message.writeBigUInt64LE(call.address(control), 32)
  message.writeBigUInt64LE(BigInt(control.length), 40)
  const MSG_CMSG_CLOEXEC = 0x40000000
  if (check(call.recvmsg(socket, message, MSG_CMSG_CLOEXEC), 'cannot receive the descriptor') === 0) return null
  if (control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) return null
  return control.readInt32LE(16)
}

/** Makes `to`, an open descriptor, another one for what `from` is, and closes `from`. Reads of it no longer block. */
export function takePlace(from: number, to: number): void {
  const yes = new Uint8Array(4)
  yes[0] = 1
  check(call.ioctl(from, FIONBIO, yes), 'cannot make the device non-blocking')
  replaceDescriptor(from, to)
}

/** Makes an open descriptor another one for what `from` is, in one step, also for threads that are just reading it; and closes `from`. */
export function replaceDescriptor(from: number, to: number): void {
  try {
    check(call.dup3(from, to, O_CLOEXEC), 'cannot duplicate a descriptor')
  } finally {
    close(from)
  }
}

// Files

const statBuffer = Buffer.alloc(256)
const statView = new DataView(statBuffer.buffer, statBuffer.byteOffset, statBuffer.length)

/** What there is to know of a file: its attributes, and a text that no other file of this machine ever has. */
export interface FileStat {
  attributes: Attributes
  /** Device, inode and time of birth, as inode numbers are used again. */
  id: string
}

/** A file in an open folder, a symlink itself if it is one; null if there is nothing of that name. */
export function lookIn(folder: number, name: string): FileStat | null {
  if (call.statx(folder, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS_AND_BTIME, statBuffer) === 0) return readStat()
  return lastError() === 'ENOENT' ? null : fail(`cannot look at '${name}'`)
}

/** An open file; also one that was opened with LOOK. */
export function lookAt(fd: number): FileStat {
  check(call.statx(fd, '', AT_EMPTY_PATH, STATX_BASIC_STATS_AND_BTIME, statBuffer), 'cannot look at an open file')
  return readStat()
}

function readStat(): FileStat {
  const ino = statView.getBigUint64(32, true)
  const attributes = {
    ino,
    size: Number(statView.getBigUint64(40, true)),
    blocks: Number(statView.getBigUint64(48, true)),
    atimeNs: readTime(64),
    mtimeNs: readTime(112),
    ctimeNs: readTime(96),
    mode: statView.getUint16(28, true),
    links: statView.getUint32(16, true),
    uid: statView.getUint32(20, true),
    gid: statView.getUint32(24, true),
    rdev: encodeDevice(statView.getUint32(128, true), statView.getUint32(132, true)),
  }
  const device = encodeDevice(statView.getUint32(136, true), statView.getUint32(140, true))
  return { attributes, id: `${device}:${ino}:${statView.getBigInt64(80, true)}.${statView.getUint32(88, true)}` }
}

function readTime(offset: number): bigint {
  return statView.getBigInt64(offset, true) * 1_000_000_000n + BigInt(statView.getUint32(offset + 8, true))
}

/** As the kernel packs a device's numbers into 32 bits (`new_encode_dev`). */
function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0
}

/** openat with flags as they are; `folder` is an open folder, and the name one component. */
export function openIn(folder: number, name: string, flags: number, mode: number): number {
  return check(call.openat(folder, name, flags | fsConstants.O_NOFOLLOW | O_CLOEXEC, mode), `cannot open '${name}'`)
}

/** Opens what a path leads to, through symlinks: for paths by /proc/self/fd. */
export function openFollowing(path: string, flags: number): number {
  return check(call.openat(-1, path, flags | O_CLOEXEC, 0), 'cannot open a file again')
}

/** @param uid, gid −1 for what shall stay */
export function ownIn(folder: number, name: string, uid: number, gid: number): void {
  const flags = name === '' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW
  check(call.fchownat(folder, name, uid >>> 0, gid >>> 0, flags), `cannot give '${name}' to another owner`)
}

/** A time to set: nanoseconds since 1970, the time of the call, or left as it is. */
export type TimeChange = bigint | 'now' | null

/** By name in a folder, a symlink itself if it is one; with the empty name what is open, also with LOOK. */
export function setTimesIn(folder: number, name: string, atime: TimeChange, mtime: TimeChange): void {
  const times = Buffer.alloc(32)
  writeTime(times, 0, atime)
  writeTime(times, 16, mtime)
  const flags = name === '' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW
  check(call.utimensat(folder, name, times, flags), `cannot set the times of '${name}'`)
}

function writeTime(times: Buffer, at: number, change: TimeChange): void {
  if (typeof change === 'bigint') {
    const nanoseconds = ((change % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
    times.writeBigInt64LE((change - nanoseconds) / 1_000_000_000n, at)
    times.writeBigInt64LE(nanoseconds, at + 8)
  } else times.writeBigInt64LE(BigInt(change === 'now' ? UTIME_NOW : UTIME_OMIT), at + 8)
}

/** @param rdev as `encodeDevice` gives it: for what has no numbers, 0 */
export function makeNodeIn(folder: number, name: string, mode: number, rdev: number): void {
  check(call.mknodat(folder, name, mode, rdev), `cannot make '${name}'`)
}

/** Where the data or the hole from an offset on is (SEEK_DATA 3, SEEK_HOLE 4). ENXIO: none up to the end. */
export function seek(fd: number, offset: number, whence: number): number {
  return check(call.lseek(fd, offset, whence), 'cannot seek')
}

/** fsync or fdatasync, in Node's thread pool. */
export function syncContent(fd: number, dataOnly: boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const sync = dataOnly ? fdatasync : fsync
    sync(fd, error => (error === null ? resolve() : reject(error)))
  })
}

/** fallocate, in Node's thread pool. */
export function allocate(fd: number, mode: number, offset: number, length: number): Promise<void> {
  return new Promise((resolve, reject) => {
    call.fallocate.async(fd, mode, offset, length, (error: unknown, result: number) => {
      if (error === null && result >= 0) resolve()
      else reject(asyncError('cannot allocate'))
    })
  })
}

/** copy_file_range, in Node's thread pool; returns how many bytes were copied, 0 at the end of the file. */
export function copyRange(from: number, fromAt: number, to: number, toAt: number, length: number): Promise<number> {
  const fromOffset = Buffer.alloc(8)
  const toOffset = Buffer.alloc(8)
  fromOffset.writeBigInt64LE(BigInt(fromAt))
  toOffset.writeBigInt64LE(BigInt(toAt))
  return new Promise((resolve, reject) => {
    call.copyFileRange.async(from, fromOffset, to, toOffset, length, 0, (error: unknown, result: number) => {
      if (error === null && result >= 0) resolve(result)
      else reject(asyncError('cannot copy'))
    })
  })
}

/** koffi hands the errno of an asynchronous call over to the thread that made it. */
function asyncError(what: string): DiskError {
  const code = lastError()
  return new DiskError(code in osConstants.errno ? code : 'EIO', `${code}: ${what}`)
}

// Extended attributes. The path is one by /proc/self/fd, the last component of it not followed.

const ATTRIBUTE_BYTES_MAX = 64 * 1024
const attributeBuffer = Buffer.alloc(ATTRIBUTE_BYTES_MAX)

export function setAttribute(path: string, name: string, value: Uint8Array, flags: number): void {
  check(call.lsetxattr(path, name, value, value.length, flags), `cannot set the attribute '${name}'`)
}

export function getAttribute(path: string, name: string): Uint8Array {
  const count = call.lgetxattr(path, name, attributeBuffer, ATTRIBUTE_BYTES_MAX)
  return Uint8Array.prototype.slice.call(attributeBuffer, 0, check(count, `cannot read the attribute '${name}'`))
}

export function listAttributes(path: string): string[] {
  const count = check(call.llistxattr(path, attributeBuffer, ATTRIBUTE_BYTES_MAX), 'cannot list the attributes')
  return attributeBuffer.toString('utf8', 0, count).split('\0').slice(0, -1)
}

export function removeAttribute(path: string, name: string): void {
  check(call.lremovexattr(path, name), `cannot remove the attribute '${name}'`)
}
