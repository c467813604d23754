/**
 * Thread entry of a view over a plain folder. Says `mounted` or `failed`, closes on the message `close`, and ends with the mount.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { openFolderSource } from './folder-source.ts'
import { openView } from './session.ts'

export interface FolderViewData {
  mountpoint: string
  root: string
  validMs?: number
  allowOther?: boolean
  by?: 'call' | 'helper'
  passthrough?: boolean
}

export type FolderViewMessage =
  | { type: 'mounted'; passthrough: boolean }
  | { type: 'failed'; code: string; message: string }

const { root, validMs, ...options } = workerData as FolderViewData
const say = (message: FolderViewMessage) => parentPort?.postMessage(message)

try {
  const view = await openView({ ...options, source: openFolderSource(root, validMs === undefined ? {} : { validMs }) })
  parentPort?.on('message', () => void view.close())
  say({ type: 'mounted', passthrough: view.passthrough })
  await view.ended
} catch (error) {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'EIO'
  say({ type: 'failed', code, message: error instanceof Error ? error.message : String(error) })
}
parentPort?.close()
