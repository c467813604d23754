/** `loadtest`: how a service does with very many peers. */
import { closeSync, openSync, writeFileSync } from 'node:fs'
import type { LoadResult, Spread } from '../../loadtest/run.ts'
import { SyncError } from '../../protocol/error.ts'
import type { Context } from '../context.ts'
import { onInterrupt } from '../interrupt.ts'
import { progressOf } from '../progress.ts'
import { count, safe, sizeText } from '../text.ts'

/** Simulated peers of one process: enough not to count what the processes cost, few enough for one thread to follow. */
const PEERS_PER_PROCESS = 500

export interface LoadtestOptions {
  peers: number
  seconds: number
  editsPerSecond: number
  editBytes: number
  fetchBytes: number
  restSeconds: number
  processes?: number
  out?: string
  /** Whether `--home` was said: then the service that runs there is tested. */
  existing: boolean
}

/** The exit code is 1 if not everything went as it should. */
export async function loadtest(context: Context, options: LoadtestOptions): Promise<number> {
  // TLS, certificates and hashing: not for every command.
  const { runLoad } = await import('../../loadtest/run.ts')
  const { out } = options
  // Found out before minutes of work, not after.
  if (out !== undefined) checkWritable(out)
  const progress = progressOf(context)
  const interrupted = new AbortController()
  const release = onInterrupt(() => interrupted.abort())
  try {
    const result = await runLoad({
      ...options,
      processes: options.processes ?? Math.max(2, Math.ceil(options.peers / PEERS_PER_PROCESS)),
      home: options.existing ? context.home : null,
      progress: (done, total, text) => progress.show(done, total, text),
      signal: interrupted.signal,
    })
    if (out !== undefined) writeFileSync(out, `${JSON.stringify(result, null, 2)}\n`)
    progress.stop()
    await context.answer(result, () => linesOf(result))
    const { expected, arrived } = result.edits
    return result.consensus && arrived === expected && Object.keys(result.errors).length === 0 ? 0 : 1
  } catch (error) {
    if (interrupted.signal.aborted) return 130
    throw error
  } finally {
    progress.stop()
    release()
  }
}

function checkWritable(path: string): void {
  try {
    closeSync(openSync(path, 'a'))
  } catch (error) {
    throw new SyncError('usage', `${path} cannot be written (${(error as NodeJS.ErrnoException).code})`)
  }
}

function linesOf({ peers, connect, edits, fetch, service, consensus, errors }: LoadResult): string[] {
  const ms = ({ p50, p99, max }: Spread) =>
    `p50 ${p50.toFixed(0)} ms, p99 ${p99.toFixed(0)} ms, most ${max.toFixed(0)} ms`
  const lines = [
    `connected     ${count(peers, 'peer')} in ${connect.seconds.toFixed(1)} s, ${connect.perSecond.toFixed(0)} a second; each ${ms(connect.each)}; ${count(connect.attemptsRefused, 'attempt')} refused`,
    `edits         ${edits.atService} at the service, ${edits.atPeers} at peers; ${edits.arrived} of ${edits.expected} contents arrived`,
  ]
  if (edits.each && edits.all) lines.push(`  at a peer   ${ms(edits.each)}`, `  at all      ${ms(edits.all)}`)
  if (fetch)
    lines.push(
      `fetch         ${sizeText(fetch.bytes)} in ${fetch.seconds.toFixed(1)} s: ${fetch.megabytesPerSecond.toFixed(0)} MB/s`,
    )
  lines.push(
    `memory        ${sizeText(service.residentBefore)} before, ${sizeText(service.residentConnected)} connected, ${sizeText(service.residentAtEnd)} at the end; at rest ${sizeText(service.residentPerConnection)} a connection`,
    `processor     ${(connect.cpuSecondsPerConnection * 1000).toFixed(1)} ms a connection, ${edits.cpuSecondsPerEdit === null ? '–' : (edits.cpuSecondsPerEdit * 1000).toFixed(0)} ms an edit, ${service.cpuPercentAtRest.toFixed(1)} % at rest`,
    consensus ? 'consensus     yes' : 'consensus     no',
  )
  for (const [what, times] of Object.entries(errors)) lines.push(safe`error         ${times} × ${what}`)
  return lines
}
