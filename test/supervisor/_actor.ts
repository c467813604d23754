/** An actor for tests: answers, says nothing, or dies, as it is told. */
import { parentPort } from 'node:worker_threads'

type Told =
  | { type: 'echo'; id: number; text: string }
  | { type: 'silent'; id: number }
  | { type: 'die' }
  | { type: 'stop' }

parentPort?.on('message', (told: Told) => {
  switch (told.type) {
    case 'echo':
      return parentPort?.postMessage({ type: 'reply', id: told.id, result: told.text })
    case 'silent':
      return
    case 'die':
      throw new Error('told to die')
    case 'stop':
      return process.exit(0)
    default:
      told satisfies never
  }
})
parentPort?.postMessage({ type: 'ready' })
