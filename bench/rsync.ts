/**
 * The tools that run on demand. rsync fetches from a daemon on loopback; `cp -r` is the machine's own limit: no network,
 * no checks. Neither makes anything durable by itself, so the case adds a `sync` and shows both times.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { freePort, runHeld, startService, until } from './process.ts'
import { direct, type Tool } from './tool.ts'

export const rsync: Tool = {
  name: 'rsync',
  continuous: false,
  aptPackage: 'rsync',
  version() {
    return execFileSync('rsync', ['--version'], { encoding: 'utf8' }).split('\n')[0] ?? ''
  },
  async openPair(folder, detour = direct) {
    const [a, b] = makeRoots(folder)
    const port = await freePort()
    const config = join(folder, 'rsyncd.conf')
    const owner = process.getuid?.() === 0 ? 'uid = 0\ngid = 0\n' : ''
    writeFileSync(
      config,
      `address = 127.0.0.1\nport = ${port}\nuse chroot = false\n${owner}[input]\npath = ${a}\nread only = true\n`,
    )
    const daemon = startService('rsync', ['--daemon', '--no-detach', '--config', config], join(folder, 'rsyncd.log'))
    await until('the rsync daemon listens', 10_000, 20, () => answers(port))
    const way = await detour(port)
    return {
      a,
      b,
      pids: { a: [daemon.pid], b: [] },
      async carry(_expected, meter) {
        const client = await runHeld('rsync', ['-a', '--delete', `rsync://127.0.0.1:${way}/input/`, `${b}/`])
        meter.watch('b', client.pid)
        await client.done
        meter.finish('b')
        await client.release()
        return { durable: false }
      },
      close: () => daemon.stop(),
    }
  },
  openAlone: () => Promise.reject(new Error('rsync does not watch')),
}

export const cp: Tool = {
  name: 'cp',
  continuous: false,
  aptPackage: null,
  version() {
    return execFileSync('cp', ['--version'], { encoding: 'utf8' }).split('\n')[0] ?? ''
  },
  async openPair(folder) {
    const [a, b] = makeRoots(folder)
    return {
      a,
      b,
      pids: { a: [], b: [] },
      async carry(_expected, meter) {
        const copy = await runHeld('cp', ['-r', '--reflink=never', `${a}/.`, `${b}/`])
        meter.watch('b', copy.pid)
        await copy.done
        meter.finish('b')
        await copy.release()
        return { durable: false }
      },
      close: () => Promise.resolve(),
    }
  },
  openAlone: () => Promise.reject(new Error('cp does not watch')),
}

function makeRoots(folder: string): [string, string] {
  const roots: [string, string] = [join(folder, 'a'), join(folder, 'b')]
  for (const root of roots) mkdirSync(root)
  return roots
}

function answers(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
