/** An arena that lends as its name says, borrows what `borrow` tells it to, and counts for `asked` how often it was asked to lend. */
import { parentPort, workerData } from 'node:worker_threads'
import type { ArenaCommand, ArenaReport, ArenaSettings } from '../../protocol/ports.ts'

const { settings } = workerData as { settings: ArenaSettings }
let asked = 0
const file = { path: `/${settings.name}`, size: 1, mtimeNs: 0n, ino: 1n }

function report(message: ArenaReport): void {
  parentPort?.postMessage(message)
}

function lend(id: number): void {
  asked++
  if (settings.name === 'mute') return
  if (settings.name === 'dying') throw new Error('died of a question')
  report({ type: 'reply', id, result: settings.name === 'empty' ? null : file })
}

parentPort?.on('message', (command: ArenaCommand) => {
  if (command.type === 'control') {
    const { id, method, params } = command
    report(
      method === 'asked' ? { type: 'reply', id, result: asked } : ({ type: 'borrow', id, ...params } as ArenaReport),
    )
  }
  if (command.type === 'lent') report({ type: 'reply', id: command.id, result: command.file?.path ?? null })
  if (command.type === 'lend') lend(command.id)
  if (command.type !== 'stop') return
  report({ type: 'stopped' })
  parentPort?.close()
})
report({ type: 'ready' })
