/**
 * The mounted views: a thread for each, kept in a file of the state folder so that they are there again after a restart. A thread
 * that dies is started again and mounts anew; a mount that somebody else takes away is forgotten.
 */
import { mkdirSync, readFileSync, realpathSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { type Static, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { ActorStatus, MountStatus } from '../protocol/control.ts'
import { SyncError, toFailure } from '../protocol/error.ts'
import type { ArenaName } from '../protocol/ids.ts'
import type { LogEvent, LogFields } from '../protocol/log.ts'
import type { ViewCommand, ViewReport, ViewSettings } from '../protocol/ports.ts'
import { ActorThread } from './actor-thread.ts'
import type { Clock } from './clock.ts'
import { writeFileAtomic } from './config-write.ts'
import type { RestartPolicy } from './restart.ts'

export const MOUNTS_MAX = 16
/** A mount that has said nothing by then has failed. */
const MOUNT_MS = 30_000
/** How long a mount may take to write what is left and to end; then its thread is ended. */
const STOP_MS = 7_000

const MountFile = Type.Array(
  Type.Object({ mountpoint: Type.String({ minLength: 1, maxLength: 4096 }), allowOther: Type.Boolean() }),
  { maxItems: MOUNTS_MAX },
)

export interface MountsOptions {
  entry: URL
  policy: RestartPolicy
  clock: Clock
  /** Where mounts are remembered. */
  path: string
  /** Folders in which, on which and above which nothing may be mounted. */
  kept(): string[]
  arenas(): ArenaName[]
  /** Gives an arena its end of the port to a view. False if its thread is not there now. */
  attach(arena: ArenaName, port: MessagePort): boolean
  changed(): void
  log(event: LogEvent, fields: LogFields): void
  count(name: string, amount: number, of?: string): void
}

interface Mount {
  readonly settings: ViewSettings
  readonly thread: ActorThread<ViewCommand, ViewReport>
  passthrough: boolean | null
  error: string | null
  /** Waits for its first word. */
  heard: ((error: string | null) => void) | null
}

export class Mounts {
  readonly #options: MountsOptions
  readonly #mounts = new Map<string, Mount>()
  #remembered: ViewSettings[]

  /** Reads the file. One that cannot be understood is as good as none: mounts can be made again. */
  constructor(options: MountsOptions) {
    this.#options = options
    this.#remembered = read(options.path)
  }

  get statuses(): MountStatus[] {
    return [...this.#mounts.values()].map(statusOf)
  }

  get actors(): ActorStatus[] {
    return [...this.#mounts.values()].map(({ thread }) => ({
      name: thread.name,
      thread: thread.threadId,
      restarts: thread.restarts,
      mailbox: thread.mailbox,
      lastError: thread.lastError,
    }))
  }

  /** Makes the remembered mounts again; resolves when each is there or has failed, which others do not suffer from. */
  async restore(): Promise<void> {
    await Promise.all(
      this.#remembered.map(async settings => {
        try {
          this.#checkApart(settings.mountpoint)
          await this.#begun(settings)
        } catch (error) {
          this.#options.log('view_failed', { mountpoint: settings.mountpoint, reason: toFailure(error).message })
        }
      }),
    )
  }

  /** Mounts on a folder. Throws `already_exists`, `usage`, `limit_exceeded`, or `disk_failed` with what the system said. */
  async mount(path: string, allowOther: boolean): Promise<MountStatus> {
    const mountpoint = this.#canonical(path)
    const known = this.#mounts.get(mountpoint)
    if (known) throw new SyncError('already_exists', `the arenas are mounted on '${mountpoint}' already`)
    if (this.#mounts.size >= MOUNTS_MAX) throw new SyncError('limit_exceeded', `there are ${MOUNTS_MAX} mounts already`)
    this.#checkApart(mountpoint)
    makeFolder(mountpoint)
    const mount = await this.#begun({ mountpoint, allowOther }).catch(async error => {
      await this.#end(mountpoint)
      throw error
    })
    this.#remember()
    return statusOf(mount)
  }

  /** Throws `not_found`. */
  async umount(path: string): Promise<void> {
    const mountpoint = this.#canonical(path)
    if (!this.#mounts.has(mountpoint))
      throw new SyncError(
        'not_found',
        `nothing of ours is mounted on '${mountpoint}': \`realize status\` shows the mounts`,
      )
    await this.#end(mountpoint)
    this.#remember()
  }

  /** Which arenas there are has changed. */
  arenasChanged(): void {
    for (const { thread } of this.#mounts.values()) thread.post({ type: 'arenas', names: this.#options.arenas() })
  }

  /** An arena's thread runs (again). */
  arenaStarted(arena: ArenaName): void {
    for (const { thread } of this.#mounts.values()) {
      // It may be a new one.
      thread.post({ type: 'arenas', names: this.#options.arenas() })
      this.#attach(thread, arena)
    }
  }

  /** Throws `config_invalid` if one of these folders is on, in or above a mount: its arena would wait for itself. */
  checkRoots(roots: readonly string[]): void {
    for (const mountpoint of this.#mounts.keys()) {
      for (const root of roots) {
        if (overlap(this.#canonical(root), mountpoint))
          throw new SyncError(
            'config_invalid',
            `the folder ${root} and the mount on '${mountpoint}' must not be inside each other`,
          )
      }
    }
  }

  /** False if there is no thread of this name. */
  async kill(threadName: string): Promise<boolean> {
    const mount = [...this.#mounts.values()].find(one => one.thread.name === threadName)
    if (!mount) return false
    await mount.thread.kill()
    return true
  }

  /** Ends all; they stay remembered. False if a thread could not be ended. */
  async stop(): Promise<boolean> {
    const ended = await Promise.all([...this.#mounts.keys()].map(mountpoint => this.#end(mountpoint)))
    return ended.every(Boolean)
  }

  #canonical(path: string): string {
    return canonical(path, place => [...this.#mounts.keys()].some(mountpoint => inside(place, mountpoint)))
  }

  #checkApart(mountpoint: string): void {
    for (const folder of this.#options.kept()) {
      if (overlap(this.#canonical(folder), mountpoint))
        throw new SyncError('usage', `'${mountpoint}' and the folder ${folder} must not be inside each other`)
    }
  }

  /** Starts a thread and waits for its first word. Throws `disk_failed`. */
  async #begun(settings: ViewSettings): Promise<Mount> {
    const mount = this.#begin(settings)
    const error = await new Promise<string | null>(resolve => {
      const timer = setTimeout(() => resolve('it does not answer'), MOUNT_MS)
      mount.heard = error => {
        clearTimeout(timer)
        mount.heard = null
        resolve(error)
      }
    })
    if (error !== null) throw new SyncError('disk_failed', `cannot mount on '${settings.mountpoint}': ${error}`)
    return mount
  }

  #begin(settings: ViewSettings): Mount {
    const { entry, policy, clock, log } = this.#options
    const thread: Mount['thread'] = new ActorThread<ViewCommand, ViewReport>({
      name: `view-${settings.mountpoint}`,
      entry,
      policy,
      clock,
      // The device must end with the thread: programs get an error then, and do not hang.
      closesOwn: true,
      workerData: (_gate, descriptors) => ({ settings, descriptors }),
      started: () => {
        const arenas = this.#options.arenas()
        thread.post({ type: 'arenas', names: arenas })
        for (const arena of arenas) this.#attach(thread, arena)
        this.#options.changed()
      },
      receive: report => this.#receive(mount, report),
      died: failure => {
        this.#options.count('actor_restarts', 1, thread.name)
        mount.passthrough = null
        mount.error = failure.message
        mount.heard?.(failure.message)
        this.#options.changed()
      },
      log,
    })
    const mount: Mount = { settings, thread, passthrough: null, error: null, heard: null }
    this.#mounts.set(settings.mountpoint, mount)
    thread.start()
    return mount
  }

  #attach(thread: Mount['thread'], arena: ArenaName): void {
    const { port1, port2 } = new MessageChannel()
    if (!this.#options.attach(arena, port1)) return port1.close()
    // The arena sees its end close where this one does not arrive.
    if (!thread.post({ type: 'attach', arena, port: port2 }, [port2])) port2.close()
  }

  #receive(mount: Mount, report: ViewReport): void {
    const { mountpoint } = mount.settings
    switch (report.type) {
      case 'mounted':
        mount.passthrough = report.passthrough
        mount.error = null
        this.#options.log('view_mounted', { mountpoint, passthrough: report.passthrough })
        mount.heard?.(null)
        return this.#options.changed()
      case 'log':
        return this.#options.log(report.event, report.fields)
      case 'ended':
        this.#options.log('view_ended', { mountpoint, reason: report.reason })
        if (report.reason === null) {
          // Somebody has taken it away, and means it.
          if (this.#mounts.get(mountpoint) === mount) void this.#end(mountpoint).then(() => this.#remember())
          return
        }
        mount.passthrough = null
        mount.error = report.reason
        mount.heard?.(report.reason)
        return this.#options.changed()
      default:
        report satisfies never
    }
  }

  async #end(mountpoint: string): Promise<boolean> {
    const mount = this.#mounts.get(mountpoint)
    this.#mounts.delete(mountpoint)
    const ended = (await mount?.thread.stop({ type: 'stop' }, STOP_MS)) ?? true
    this.#options.changed()
    return ended
  }

  #remember(): void {
    this.#remembered = [...this.#mounts.values()].map(mount => mount.settings)
    writeFileAtomic(this.#options.path, `${JSON.stringify(this.#remembered, null, 2)}\n`)
  }
}

function statusOf({ settings, passthrough, error }: Mount): MountStatus {
  return {
    path: settings.mountpoint,
    state: error !== null ? 'failed' : passthrough === null ? 'mounting' : 'mounted',
    error,
    allowOther: settings.allowOther,
    passthrough,
  }
}

function read(path: string): Static<typeof MountFile> {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    return Value.Check(MountFile, value) ? value : []
  } catch {
    return []
  }
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true })
  } catch (error) {
    // A stale mount cannot be looked at, and is taken away by the one that comes.
    const code = error instanceof Error && 'code' in error ? error.code : ''
    if (code !== 'EEXIST' && code !== 'ENOTCONN') throw new SyncError('disk_failed', toFailure(error).message)
  }
}

/**
 * An absolute path without symlinks, as far as it exists. What is in a mount is not looked at: it may be stale, and a look from this
 * thread would keep an arena waiting that is only being started here.
 */
function canonical(path: string, mounted: (path: string) => boolean): string {
  const full = resolve(path)
  const parent = dirname(full)
  if (parent === full) return full
  const inReal = join(canonical(parent, mounted), basename(full))
  if (mounted(inReal)) return inReal
  try {
    return realpathSync(inReal)
  } catch {
    return inReal
  }
}

function inside(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder === '/' ? '/' : `${folder}/`)
}

function overlap(one: string, other: string): boolean {
  return inside(one, other) || inside(other, one)
}
