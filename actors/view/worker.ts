/**
 * Thread entry of a mount: a view over all arenas. Says `mounted`, and `ended` as its last word; a mount that cannot be made or
 * kept ends the thread with its error, so that the supervisor begins again.
 */
import { parentPort, workerData } from 'node:worker_threads'
import type { ViewCommand, ViewReport, ViewSettings } from '../../protocol/ports.ts'
import type { DescriptorTable } from '../descriptors.ts'
import { ArenasSource } from './arenas-source.ts'
import { keepIn } from './kept.ts'
import { type OpenView, openView } from './session.ts'

const { settings, descriptors } = workerData as { settings: ViewSettings; descriptors: DescriptorTable }
const port = parentPort
if (port === null) throw new Error('this file is the entry of a thread')

keepIn(descriptors)
const source = new ArenasSource()
let view: OpenView | null = null
let stopping = false

function report(message: ViewReport): void {
  port?.postMessage(message)
}

port.on('message', (command: ViewCommand) => {
  switch (command.type) {
    case 'arenas':
      return source.setArenas(command.names)
    case 'attach':
      return source.attach(command.arena, command.port)
    case 'stop':
      stopping = true
      return void view?.close()
    default:
      command satisfies never
  }
})

async function run(): Promise<void> {
  const { mountpoint, allowOther } = settings
  const log = (event: 'view_defect' | 'view_full', fields: Record<string, unknown>) =>
    report({ type: 'log', event, fields: { mountpoint, ...(fields as Record<string, string | number>) } })
  view = await openView({ mountpoint, allowOther, source, log })
  report({ type: 'mounted', passthrough: view.passthrough })
  if (stopping) void view.close()
  const failure = await view.ended
  if (failure !== null) throw failure
}

try {
  await run()
  report({ type: 'ended', reason: null })
} catch (error) {
  report({ type: 'ended', reason: error instanceof Error ? error.message : String(error) })
  if (!stopping) throw error
} finally {
  source.close()
  port.close()
}
