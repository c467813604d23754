/** What this machine lets us do to services: which faults can strike here, and why others cannot. */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { mountFault } from '../system/_mount.ts'
import { cannotMount } from '../view/_mount.ts'
import type { Fault } from './_plan.ts'

/** Root may read and write everything; people's services may not. */
const FEWER_RIGHTS = ['setpriv', '--bounding-set', '-dac_override,-dac_read_search']
const FAKETIME_FOLDERS = ['/usr/lib', '/usr/local/lib']
const FAKETIME = 'faketime/libfaketimeMT.so.1'

export class Surroundings {
  /** Words before a service's command line. */
  readonly fewerRights: string[]
  readonly #obeysModes: boolean
  /** A small disk can be mounted. */
  readonly mounts: boolean
  readonly #mountFault: string | null
  readonly #faketime: string | null
  readonly #prlimit: boolean

  /** Tries things out in `folder`. */
  constructor(folder: string) {
    const isRoot = process.getuid?.() === 0
    this.fewerRights = isRoot && obeysModes(folder) ? FEWER_RIGHTS : []
    this.#obeysModes = !isRoot || this.fewerRights.length > 0
    this.#mountFault = mountFault()
    this.mounts = this.#mountFault === null
    this.#faketime = faketimeLibrary()
    this.#prlimit = spawnSync('prlimit', ['--version'], { stdio: 'ignore' }).status === 0
  }

  /** Why this fault cannot strike here; null if it can. */
  missing(kind: Fault['do']): string | null {
    switch (kind) {
      case 'clock':
        return this.#faketime === null ? 'libfaketime is not installed' : null
      case 'few_files':
        return this.#prlimit ? null : 'prlimit is not installed'
      case 'no_access':
        return this.#obeysModes ? null : 'a service cannot be started with fewer rights than root'
      case 'full_disk':
      case 'unmount':
        return this.#mountFault
      case 'kill_view':
        return cannotMount
      default:
        return null
    }
  }

  /** Arenas can be mounted. */
  readonly views = cannotMount === null

  /** Environment of a service whose wall clock is wrong by so much. */
  clock(offsetSeconds: number): Record<string, string> {
    if (offsetSeconds === 0 || this.#faketime === null) return {}
    return {
      LD_PRELOAD: this.#faketime,
      FAKETIME: `${offsetSeconds > 0 ? '+' : ''}${offsetSeconds}s`,
      // Only the wall clock is wrong: neither how time goes by, nor what the file system says.
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
      NO_FAKE_STAT: '1',
      FAKE_UTIME: '0',
    }
  }
}

/** Whether a service started in this way gets EACCES. */
function obeysModes(folder: string): boolean {
  const closed = join(folder, 'closed')
  mkdirSync(closed)
  chmodSync(closed, 0)
  const [program, ...words] = FEWER_RIGHTS as [string, ...string[]]
  const { status } = spawnSync(program, [...words, 'ls', closed], { stdio: 'ignore' })
  rmdirSync(closed)
  return status === 2
}

function faketimeLibrary(): string | null {
  for (const folder of FAKETIME_FOLDERS) {
    const inside = existsSync(folder) ? readdirSync(folder) : []
    for (const place of [folder, ...inside.map(name => join(folder, name))]) {
      const library = join(place, FAKETIME)
      if (existsSync(library)) return library
    }
  }
  return null
}
