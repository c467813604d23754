/** What the processes of the services say of themselves from outside: their log lines, descriptors and memory. */
import { readdirSync, readFileSync } from 'node:fs'

/** Lines that a service prints when something happened that nobody had thought of. */
const UNTHOUGHT = [/^\s+at .+:\d+:\d+\)?$/, /unhandled/i, /uncaught/i, /warning:/i, /assert/i, /MDB_/, /segmentation/i]

/** Whether a line of a service's output must not be there; `strained`: threads may die, as they were killed or starved. */
export function isAlarming(line: string, strained: boolean): boolean {
  if (line.startsWith('* ') || line === 'ready' || line === '') return false
  let said: { event?: string; actor?: string; reason?: string }
  try {
    said = JSON.parse(line)
  } catch {
    // In place of a log: a message about why it cannot start, of one line, or something that Node says.
    return true
  }
  if (said.actor === 'supervisor') return true
  if (said.event === 'actor_failed' || said.event === 'actor_given_up' || said.event === 'arena_failed')
    return !strained
  return UNTHOUGHT.some(form => form.test(said.reason ?? ''))
}

export interface Usage {
  readonly descriptors: number
  readonly rssBytes: number
}

export function usageOf(pid: number): Usage {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return {
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    rssBytes: Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024,
  }
}
