/** Mounts for tests of volumes. Only root may mount, and many containers allow it to nobody: then `mounts` says why not. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { type Cleaning, temporaryFolder } from '../_temp.ts'

/** Runs `mount` or `umount`. Throws what it said if it failed. */
function call(program: 'mount' | 'umount', ...args: string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`)
}

/** Why nothing can be mounted here, or null. */
export function mountFault(): string | null {
  if (process.platform !== 'linux') return 'mounts are tested on Linux only'
  const folder = temporaryFolder(NOW)
  try {
    mountMemory(folder, '1m')
    unmount(folder)
    return null
  } catch (error) {
    return (error as Error).message
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
const NOW: Cleaning = { teardown: () => {} }

/** A small disk in memory. */
export function mountMemory(folder: string, size: string): void {
  call('mount', '-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', folder)
}

/** Shows one folder at another, as a volume would be shown. */
export function mountFolder(from: string, at: string): void {
  call('mount', '--bind', from, at)
}

/** Changes options of what is mounted, as `ro` or `size=64m`. */
export function remount(folder: string, options: string): void {
  call('mount', '-o', `remount,${options}`, folder)
}

/** Takes it away at once, also from under those who use it. */
export function unmount(folder: string): void {
  call('umount', '--lazy', folder)
}

/** A folder that is unmounted, if need be, at the end of the test. */
export function mountPoint(t: ExecutionContext, folder: string, name: string): string {
  const point = join(folder, name)
  mkdirSync(point)
  t.teardown(() => {
    spawnSync('umount', ['--lazy', point])
  })
  return point
}
