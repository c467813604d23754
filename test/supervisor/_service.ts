/** Services within the test's own process: real peer threads, real sockets, arenas without files. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { type ControlClient, connectControl } from '../../cli/client.ts'
import type { StatusResult } from '../../protocol/control.ts'
import type { LogEvent, LogFields } from '../../protocol/log.ts'
import { systemClock } from '../../supervisor/clock.ts'
import { answer } from '../../supervisor/commands.ts'
import { defaultConfig } from '../../supervisor/config.ts'
import { homeOf } from '../../supervisor/home.ts'
import { generateIdentity, type Identity } from '../../supervisor/identity.ts'
import { Log } from '../../supervisor/log.ts'
import { admit } from '../../supervisor/pairing.ts'
import { Supervisor } from '../../supervisor/supervisor.ts'
import { tempFolder } from './_temp.ts'

export interface Service {
  supervisor: Supervisor
  identity: Identity
  folder: string
  client: ControlClient
  config(): string
  write(text: string): void
  /** Resolves when an event of this name (and with these fields) has been logged, in the past or later, `count` times in all. */
  logged(event: LogEvent, fields?: LogFields, count?: number): Promise<void>
  /** Resolves when the status is as the test wants it. */
  until(holds: (status: StatusResult) => boolean): Promise<StatusResult>
}

export interface ServiceOptions {
  name: string
  listen?: string[]
  arena?: string | null
  identity?: Identity
}

export async function startService(t: ExecutionContext, options: ServiceOptions): Promise<Service> {
  const folder = tempFolder(t)
  const home = homeOf({ home: folder, env: {}, platform: process.platform, homedir: folder })
  const identity = options.identity ?? generateIdentity()
  const arena = options.arena === undefined ? 'docs' : options.arena
  const path = join(folder, arena ?? 'none')
  if (arena !== null) mkdirSync(path)
  writeFileSync(
    home.config,
    defaultConfig({
      name: options.name,
      listen: options.listen ?? ['127.0.0.1:0'],
      arena: arena === null ? null : { name: arena, path },
    }),
  )
  const seen: { event: LogEvent; fields: LogFields }[] = []
  const waiting = new Set<() => void>()
  const log = new Log({
    level: 'debug',
    format: 'json',
    colour: false,
    wallMs: systemClock.wallMs,
    destination: { write: keep },
  })
  function keep(line: string): void {
    const { event, ...fields } = JSON.parse(line) as { event: LogEvent } & LogFields
    seen.push({ event, fields: fields as LogFields })
    for (const look of [...waiting]) look()
  }
  const supervisor = new Supervisor({
    home,
    identity,
    version: '0.0.0',
    homedir: folder,
    clock: systemClock,
    log,
    randomBytes,
    entries: { arena: new URL('./_fake-arena-worker.js', import.meta.url) },
    answer,
    pairing: service => (invite, peer, name, addresses) => admit(service, invite, peer, name, addresses),
  })
  t.teardown(() => supervisor.stop())
  await supervisor.start()
  const client = await connectControl(home.socket)
  t.teardown(() => client.close())
  t.teardown(() => {
    if (!t.passed) t.log(`${options.name}:\n${log.lines.slice(-40).join('\n')}`)
  })
  return {
    supervisor,
    identity,
    folder,
    client,
    config: () => readFileSync(home.config, 'utf8'),
    write: text => writeFileSync(home.config, text),
    logged: (event, fields = {}, count = 1) =>
      new Promise(resolve => {
        const look = () => {
          const found = seen.filter(
            one => one.event === event && Object.entries(fields).every(([key, value]) => one.fields[key] === value),
          )
          if (found.length < count) return
          waiting.delete(look)
          resolve()
        }
        waiting.add(look)
        look()
      }),
    until: holds =>
      new Promise(resolve => {
        const look = () => {
          const { status } = supervisor
          if (!holds(status)) return
          end()
          resolve(status)
        }
        const end = supervisor.bell.onChanged(look)
        look()
      }),
  }
}

/** Pairs two services by a code; resolves when both are connected. */
export async function pair(inviter: Service, joiner: Service): Promise<void> {
  const { code } = await inviter.client.call('invite', {})
  await joiner.client.call('join', { code })
  await connected(inviter, joiner)
}

export async function connected(...services: Service[]): Promise<void> {
  const all = (status: StatusResult) =>
    status.peers.length > 0 && status.peers.every(peer => peer.state === 'connected')
  await Promise.all(services.map(service => service.until(all)))
}
