/** Hands an accepted connection from the thread that listens to the one that will own it: descriptors belong to the process, sockets to a thread. */
import type { Socket } from 'node:net'
import koffi from 'koffi'
import { SyncError } from '../../protocol/error.ts'

const F_DUPFD_CLOEXEC = process.platform === 'darwin' ? 67 : 1030
let duplicate: ((fd: number, command: number, type: string, least: number) => number) | undefined

/**
 * Duplicates the socket's descriptor and destroys the socket. The connection stays up; bytes that were not read are read by the
 * new owner. The socket must not have been read from (`pauseOnConnect`).
 *
 * @returns a descriptor that the caller owns. Throws `peer_closed` if the connection is gone, `limit_exceeded` if no descriptor is free
 */
export function handOver(socket: Socket): number {
  // Node tells a socket's descriptor only by its handle.
  const fd = (socket as unknown as { _handle: { fd: number } | null })._handle?.fd ?? -1
  try {
    if (fd < 0) throw new SyncError('peer_closed', 'the connection is gone already')
    duplicate ??= koffi.load(null).func('int fcntl(int, int, ...)')
    const copy = duplicate(fd, F_DUPFD_CLOEXEC, 'int', 0)
    if (copy < 0) throw new SyncError('limit_exceeded', 'no descriptor is free for another connection')
    return copy
  } finally {
    socket.destroy()
  }
}
