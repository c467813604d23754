/** A disk in memory as the hasher pool's tasks see it. */
import type { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import type { Files } from '../../actors/hasher/patch.ts'
import type { EntryPath } from '../../protocol/ids.ts'

const ROOT = '/memory/'

export function memoryFiles(disk: MemoryDisk): Files {
  return {
    open(file) {
      const path = file.path.slice(ROOT.length) as EntryPath
      const stat = disk.stat(path)
      if (stat?.type !== 'file') return null
      if (stat.size !== file.size || stat.mtimeNs !== file.mtimeNs || stat.ino !== file.ino) return null
      const { fd } = disk.open(path)
      return {
        size: file.size,
        read(at, into) {
          const bytes = disk.readFd(fd, at, into.length)
          into.set(bytes)
          return bytes.length
        },
        close: () => disk.close(fd),
      }
    },
    slot({ path, ino }) {
      const slot = path.slice(path.lastIndexOf('/') + 1)
      const isThere = () => disk.stageStat(slot)?.ino === ino
      if (!isThere()) return null
      const fd = disk.stageOpen(slot, 0)
      return {
        write(at, bytes) {
          if (!isThere()) return false
          disk.writeFd(fd, at, bytes)
          return true
        },
        close: () => disk.close(fd),
      }
    },
  }
}
