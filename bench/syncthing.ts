/**
 * Syncthing, as favourable as its settings allow on one machine: two instances that know each other's address; no
 * discovery, relays, NAT, upgrades or reports; its shortest watcher delay; told to scan as soon as there is something.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, type Service, startService, until } from './process.ts'
import { direct, type Expected, type Tool } from './tool.ts'

const FOLDER = 'bench'
const KEY = 'realize-bench-loopback-only-key0'
const START_MS_MAX = 60_000
const CARRY_MS_MAX = 1_800_000
/** Between two questions for its state: small beside what it takes, large enough not to disturb it. */
const ASK_MS = 50

interface Instance {
  home: string
  root: string
  id: string
  syncPort: number
  restPort: number
}

/** The part of /rest/db/status that is read here. */
interface FolderStatus {
  state: string
  localFiles: number
  localBytes: number
  globalFiles: number
  globalBytes: number
  needTotalItems: number
}

export const syncthing: Tool = {
  name: 'syncthing',
  continuous: true,
  aptPackage: 'syncthing',
  version() {
    return execFileSync('syncthing', ['--version'], { encoding: 'utf8' }).split(' (')[0] ?? ''
  },

  async openPair(folder, detour = direct) {
    const a = await makeInstance(folder, 'a', join(folder, 'root-a'))
    const b = await makeInstance(folder, 'b', join(folder, 'root-b'))
    const way = await detour(a.syncPort)
    // Only B dials: what passes is on one connection, and that goes by the detour.
    configure(a, { [a.id]: a.syncPort, [b.id]: null })
    configure(b, { [a.id]: way, [b.id]: b.syncPort })
    const services = [launch(a), launch(b)]
    const close = async (): Promise<void> => {
      await Promise.all(services.map(service => service.stop()))
    }
    try {
      await Promise.all([listening(a), listening(b)])
      await until(
        'the two instances are connected',
        START_MS_MAX,
        ASK_MS,
        async () => (await connected(a, b)) && (await connected(b, a)),
      )
      await until(
        'they rest',
        START_MS_MAX,
        ASK_MS,
        async () => (await statusOf(a)).state === 'idle' && (await statusOf(b)).state === 'idle',
      )
    } catch (error) {
      await close()
      throw error
    }
    return {
      a: a.root,
      b: b.root,
      pids: { a: [services[0]?.pid ?? 0], b: [services[1]?.pid ?? 0] },
      async carry(expected) {
        await rest(a, 'POST', `/rest/db/scan?folder=${FOLDER}`)
        await until('Syncthing has everything', CARRY_MS_MAX, ASK_MS, async () => holds(await statusOf(b), expected))
        return { durable: true }
      },
      close,
    }
  },

  async openAlone(folder, root) {
    const instance = await makeInstance(folder, 'alone', root)
    configure(instance, { [instance.id]: instance.syncPort })
    let service: Service | undefined
    return {
      async start() {
        service = launch(instance)
        await listening(instance)
        return service.pid
      },
      async settled(expected) {
        await until('Syncthing knows everything', CARRY_MS_MAX, ASK_MS * 10, async () =>
          holds(await statusOf(instance), expected),
        )
      },
      async rescan() {
        await rest(instance, 'POST', `/rest/db/scan?folder=${FOLDER}`)
      },
      async stop() {
        await service?.stop()
      },
    }
  },
}

function holds(status: FolderStatus, expected: Expected): boolean {
  return (
    status.state === 'idle' &&
    status.needTotalItems === 0 &&
    status.globalFiles === expected.files &&
    status.localFiles === expected.files &&
    status.globalBytes === status.localBytes
  )
}

async function makeInstance(folder: string, name: string, root: string): Promise<Instance> {
  const home = join(folder, `home-${name}`)
  mkdirSync(join(root, '.stfolder'), { recursive: true })
  execFileSync('syncthing', ['generate', '--home', home, '--no-default-folder', '--skip-port-probing'], {
    stdio: 'ignore',
  })
  const id = execFileSync('syncthing', ['--device-id', '--home', home], { encoding: 'utf8' }).trim()
  return { home, root, id, syncPort: await freePort(), restPort: await freePort() }
}

/** Replaces the generated config. `ports`: of each device, null if it is not to be dialled. What is not said here keeps Syncthing's own default. */
function configure(instance: Instance, ports: Record<string, number | null>): void {
  const devices = Object.entries(ports).map(
    ([id, port]) =>
      `<device id="${id}" name="${id.slice(0, 7)}" compression="metadata"><address>${port === null ? 'dynamic' : `tcp://127.0.0.1:${port}`}</address></device>`,
  )
  writeFileSync(
    join(instance.home, 'config.xml'),
    `<configuration version="35">
  <folder id="${FOLDER}" label="${FOLDER}" path="${instance.root}" type="sendreceive" rescanIntervalS="3600" fsWatcherEnabled="true" fsWatcherDelayS="1" ignorePerms="false" autoNormalize="true">
    ${Object.keys(ports)
      .map(id => `<device id="${id}"></device>`)
      .join('')}
    <minDiskFree unit="%">0</minDiskFree>
  </folder>
  ${devices.join('\n  ')}
  <gui enabled="true" tls="false"><address>127.0.0.1:${instance.restPort}</address><apikey>${KEY}</apikey></gui>
  <options>
    <listenAddress>tcp://127.0.0.1:${instance.syncPort}</listenAddress>
    <globalAnnounceEnabled>false</globalAnnounceEnabled>
    <localAnnounceEnabled>false</localAnnounceEnabled>
    <relaysEnabled>false</relaysEnabled>
    <natEnabled>false</natEnabled>
    <startBrowser>false</startBrowser>
    <urAccepted>-1</urAccepted>
    <autoUpgradeIntervalH>0</autoUpgradeIntervalH>
    <crashReportingEnabled>false</crashReportingEnabled>
    <reconnectionIntervalS>5</reconnectionIntervalS>
    <setLowPriority>false</setLowPriority>
  </options>
</configuration>
`,
  )
}

function launch(instance: Instance): Service {
  return startService(
    'syncthing',
    ['serve', '--home', instance.home, '--no-browser', '--no-restart', '--no-upgrade', '--skip-port-probing'],
    join(instance.home, 'log.txt'),
  )
}

async function listening(instance: Instance): Promise<void> {
  await until('Syncthing answers', START_MS_MAX, ASK_MS, () =>
    rest(instance, 'GET', '/rest/system/ping').then(
      () => true,
      () => false,
    ),
  )
}

async function connected(from: Instance, to: Instance): Promise<boolean> {
  const answer = (await rest(from, 'GET', '/rest/system/connections')) as {
    connections: Record<string, { connected: boolean }>
  }
  return answer.connections[to.id]?.connected === true
}

async function statusOf(instance: Instance): Promise<FolderStatus> {
  return (await rest(instance, 'GET', `/rest/db/status?folder=${FOLDER}`)) as FolderStatus
}

async function rest(instance: Instance, method: 'GET' | 'POST', path: string): Promise<unknown> {
  const answer = await fetch(`http://127.0.0.1:${instance.restPort}${path}`, { method, headers: { 'X-API-Key': KEY } })
  const text = await answer.text()
  if (!answer.ok) throw new Error(`Syncthing answers ${answer.status} to ${path}: ${text.slice(0, 200)}`)
  return text === '' ? null : (JSON.parse(text) as unknown)
}
