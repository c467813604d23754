/** Real services with their arenas mounted, for tests in a process of its own: it may use the mount with synchronous calls. */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { within } from '../_deadline.ts'
import { temporaryFolder } from '../_temp.ts'
import { Household } from '../system/_household.ts'
import type { Peer } from '../system/_peer.ts'

const EVENTUALLY_MS = 30_000

/** A household, and a place for a mount that is free again at the end of the test, whatever has become of the services. */
export function householdWithMount(t: ExecutionContext): { household: Household; at: string } {
  const folder = temporaryFolder(t)
  const at = join(folder, 'view')
  // Run after the services have been killed: what is mounted is stale then.
  t.teardown(() => {
    spawnSync('umount', ['--lazy', at])
  })
  return { household: new Household(t, folder), at }
}

export async function mountOn(peer: Peer, at: string): Promise<void> {
  await peer.call('mount', { path: at })
}

/** Looks until it holds: where a file is to come from elsewhere, or the kernel may believe what it knew for a second. */
export async function eventually(what: string, holds: () => boolean): Promise<void> {
  const looking = async () => {
    while (!holds()) await new Promise(resolve => setTimeout(resolve, 10))
  }
  await within(EVENTUALLY_MS, what, looking())
}

/** Names of a folder, or the code of the error. */
export function namesIn(folder: string): string[] | string {
  try {
    return readdirSync(folder).sort()
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error)
  }
}

export function isMounted(at: string): boolean {
  return existsSync(at) && spawnSync('mountpoint', ['-q', at]).status === 0
}
