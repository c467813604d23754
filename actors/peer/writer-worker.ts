/** Thread entry of the writer of a connections' thread (WriterOrder, WriterReport): verifies and writes one message after the other. */
import { parentPort } from 'node:worker_threads'
import type { WriterOrder, WriterReport } from '../../protocol/ports.ts'
import { writeLeaves } from './leaf-writer.ts'

if (!parentPort) throw new Error('writer-worker.ts is the entry of a worker thread')
const port = parentPort

function report(message: WriterReport): void {
  port.postMessage(message)
}

port.on('message', ({ id, leaves }: WriterOrder) => {
  report({ type: 'written', id, failure: writeLeaves(leaves) })
})
report({ type: 'ready' })
