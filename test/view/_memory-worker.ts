/**
 * Thread entry of a view over files on demand: `fast` is given at once, `slow` when the test says `give`, `lost` by nobody. Tells
 * the test `asked` when a read of `slow` has arrived.
 */
import { parentPort, workerData } from 'node:worker_threads'
import type { FolderViewData } from '../../actors/view/folder-worker.ts'
import { openView } from '../../actors/view/session.ts'
import { ViewError } from '../../actors/view/view-source.ts'
import { MemorySource } from './_memory-source.ts'

/** Size of each file, so that the test knows what to expect: byte n is n % 251. */
export const MEMORY_BYTES = 300_000

export function memoryContent(): Uint8Array {
  return Uint8Array.from({ length: MEMORY_BYTES }, (_, index) => index % 251)
}

async function run(): Promise<void> {
  const { mountpoint, root } = workerData as FolderViewData
  const source = new MemorySource(root)
  const given = new Set<() => void>()
  source.files.set('fast', { content: memoryContent() })
  source.files.set('slow', {
    content: memoryContent(),
    reading: () => {
      parentPort?.postMessage('asked')
      return new Promise(resolve => given.add(resolve))
    },
  })
  source.files.set('lost', {
    content: memoryContent(),
    reading: () => {
      throw new ViewError('EHOSTUNREACH', 'no peer has it')
    },
  })
  const view = await openView({ mountpoint, source })
  parentPort?.on('message', (message: string) => {
    if (message === 'close') return void view.close()
    if (message === 'give') for (const give of given) give()
    if (message.startsWith('remove ')) {
      source.files.delete(message.slice(7))
      source.tell({ kind: 'replaced', path: message.slice(7) })
    }
    if (message.startsWith('change ')) {
      source.files.set(message.slice(7), { content: new Uint8Array(5).fill(65) })
      source.tell({ kind: 'changed', path: message.slice(7), content: true })
    }
  })
  parentPort?.postMessage({ type: 'mounted', passthrough: view.passthrough })
  await view.ended
  parentPort?.close()
}

if (parentPort !== null) void run()
