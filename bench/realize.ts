/** Realize as its users run it: the built service, two homes, driven through the control socket like the command line does. */
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type ControlClient, connectControl } from '../cli/client.ts'
import type { ArenaName } from '../protocol/ids.ts'
import type { ArenaStatus } from '../protocol/status.ts'
import { freePort, pause, startService, until } from './process.ts'
import { direct, type Tool } from './tool.ts'

export const ARENA = 'bench' as ArenaName
const START_MS_MAX = 60_000
const CARRY_SECONDS_MAX = 1_800
const ASK_MS = 50

const program = (name: string): string => fileURLToPath(new URL(`../${name}/main.js`, import.meta.url))

export interface Instance {
  home: string
  root: string
  id: string
  port: number
}

export interface Running {
  pid: number
  control: ControlClient
  stop(): Promise<void>
}

export const realize: Tool = {
  name: 'realize',
  continuous: true,
  aptPackage: null,
  version() {
    return `realize ${execFileSync(process.execPath, [program('cli'), '--version'], { encoding: 'utf8' }).trim()}`
  },

  async openPair(folder, detour = direct) {
    const a = await makeInstance(folder, 'a', join(folder, 'root-a'))
    const b = await makeInstance(folder, 'b', join(folder, 'root-b'))
    const services: Running[] = []
    const close = async (): Promise<void> => {
      await Promise.all(services.map(service => service.stop()))
    }
    try {
      const atA = await launch(a)
      services.push(atA)
      const atB = await launch(b)
      services.push(atB)
      await atA.control.call('peer_add', { name: 'b', id: b.id, addresses: [] })
      await atB.control.call('peer_add', { name: 'a', id: a.id, addresses: [`127.0.0.1:${await detour(a.port)}`] })
      await atA.control.call('arena_add', { name: ARENA, path: a.root })
      await atB.control.call('arena_add', { name: ARENA, path: b.root })
      await until('the two services are connected', START_MS_MAX, ASK_MS, async () =>
        (await Promise.all(services.map(service => statusOf(service)))).every(
          status => status?.peers.length === 1 && status.peers[0]?.reason === null,
        ),
      )
      await atB.control.call('wait', { arena: ARENA, timeoutSeconds: 60 })
      return {
        a: a.root,
        b: b.root,
        pids: { a: [atA.pid], b: [atB.pid] },
        async carry(expected) {
          await atB.control.call('wait', { arena: ARENA, timeoutSeconds: CARRY_SECONDS_MAX })
          const status = await statusOf(atB)
          if (status?.files !== expected.files)
            throw new Error(`it reports consensus with ${status?.files} files, not ${expected.files}`)
          return { durable: true }
        },
        close,
      }
    } catch (error) {
      await close()
      throw error
    }
  },

  async openAlone(folder, root) {
    const instance = await makeInstance(folder, 'alone', root)
    let service: Running | undefined
    let added = false
    return {
      async start() {
        service = await launch(instance)
        if (!added) await service.control.call('arena_add', { name: ARENA, path: root })
        added = true
        return service.pid
      },
      async settled(expected) {
        const running = service
        if (!running) throw new Error('the service has not been started')
        await until('Realize knows everything', CARRY_SECONDS_MAX * 1000, ASK_MS * 10, async () => {
          const status = await statusOf(running)
          return status?.state === 'idle' && status.files === expected.files && status.consensus
        })
      },
      async rescan() {
        await service?.control.call('wait', { arena: ARENA, timeoutSeconds: CARRY_SECONDS_MAX })
      },
      async stop() {
        await service?.stop()
      },
    }
  },
}

/** A home with its key and configuration, and an empty root. */
export async function makeInstance(folder: string, name: string, root: string): Promise<Instance> {
  const home = join(folder, name)
  const port = await freePort()
  mkdirSync(root, { recursive: true })
  const command = [program('cli'), '--home', home, '--json', 'init', '--name', name, '--listen', `127.0.0.1:${port}`]
  const answer = JSON.parse(execFileSync(process.execPath, command, { encoding: 'utf8' })) as { id: string }
  return { home, root, id: answer.id, port }
}

/** Starts its service and resolves once that listens. */
export async function launch(instance: Instance): Promise<Running> {
  const service = startService(
    process.execPath,
    [program('supervisor'), '--home', instance.home, '--log-format', 'json'],
    join(instance.home, 'log.txt'),
  )
  try {
    await service.line('ready')
    const control = await connectControl(join(instance.home, 'control.sock'))
    return {
      pid: service.pid,
      control,
      async stop() {
        control.close()
        await service.stop()
      },
    }
  } catch (error) {
    await service.stop()
    throw error
  }
}

export async function statusOf(service: Running): Promise<ArenaStatus | undefined> {
  const status = await service.control.call('status', {})
  const arena = status.arenas.find(candidate => candidate.name === ARENA)
  if (arena?.state === 'failed') throw new Error(`the arena has failed: ${arena.reason}`)
  if (!arena) await pause(ASK_MS)
  return arena
}
