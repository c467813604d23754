/** The program itself, as a process. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { connectControl } from '../../cli/client.ts'
import { defaultConfig } from '../../supervisor/config.ts'
import { tempFolder } from './_temp.ts'

const program = fileURLToPath(new URL('../../supervisor/main.js', import.meta.url))

interface Run {
  child: ChildProcess
  /** Resolves with the exit code. */
  exit: Promise<number | null>
  /** Resolves when the line has been printed on stdout; rejects if the process ends without it. */
  printed(line: string): Promise<void>
  errors(): string
}

function run(t: ExecutionContext, ...args: string[]): Run {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let errors = ''
  child.stderr.on('data', chunk => {
    errors += chunk
  })
  const lines: string[] = []
  const output = createInterface({ input: child.stdout })
  output.on('line', line => lines.push(line))
  const exit = once(child, 'close').then(([code]) => code as number | null)
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exit
  })
  return {
    child,
    exit,
    errors: () => errors,
    printed: wanted =>
      new Promise((resolve, reject) => {
        const look = () => {
          if (lines.includes(wanted)) resolve()
        }
        output.on('line', look)
        look()
        void exit.then(code => reject(new Error(`ended with ${code}: ${errors}`)))
      }),
  }
}

function homeWith(t: ExecutionContext, listen: string[]) {
  const folder = tempFolder(t)
  writeFileSync(join(folder, 'config.toml'), defaultConfig({ name: 'anna', listen, arena: null }))
  return folder
}

test('a first start makes key and configuration, is ready, and ends cleanly when told to', async t => {
  const home = tempFolder(t)
  // The usual port may be taken on the machine that tests.
  const first = run(t, '--home', home, '--log-level', 'debug')
  const outcome = await Promise.race([
    first.printed('ready').then(() => 'ready'),
    first.exit.then(() => 'ended'),
  ]).catch(() => 'ended')
  if (outcome === 'ended' && first.errors().includes('is taken')) return t.pass()
  t.is(outcome, 'ready')
  t.is(statSync(join(home, 'key.pem')).mode & 0o777, 0o600)
  t.is(statSync(join(home, 'control.sock')).mode & 0o777, 0o600)
  t.true(existsSync(join(home, 'Realize')))
  t.true(readFileSync(join(home, 'config.toml'), 'utf8').includes('[[arenas]]'))
  t.true(first.errors().includes('config_created'))
  first.child.kill('SIGTERM')
  t.is(await first.exit, 0)
  t.false(existsSync(join(home, 'control.sock')))
})

test('a second service on one home is refused, also when both start at the same moment, and a killed one hinders no next one', async t => {
  const home = homeWith(t, [])
  const both = [run(t, '--home', home), run(t, '--home', home)]
  const { code, loser, winner } = await Promise.race(
    both.map(async (one, i) => {
      const code = await one.exit
      return { code, loser: one, winner: both[1 - i] }
    }),
  )
  t.is(code, 1)
  t.regex(loser.errors(), /^realized: a service is already running on this home \(.*\)\n$/)
  await winner?.printed('ready')
  winner?.child.kill('SIGKILL')
  await winner?.exit
  const next = run(t, '--home', home)
  await next.printed('ready')
  t.true(existsSync(join(home, 'control.sock')))
})

test('what makes a start impossible is one line that says what to do', async t => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.teardown(() => taken.close())
  const address = taken.address()
  const port = typeof address === 'object' ? address?.port : 0
  const home = homeWith(t, [`127.0.0.1:${port}`])
  const first = run(t, '--home', home, '--log-level', 'silent')
  t.is(await first.exit, 1)
  t.regex(
    first.errors(),
    new RegExp(`^realized: port ${port} on 127.0.0.1 is taken: .*change \`listen\` in .*config.toml\n$`),
  )

  writeFileSync(join(home, 'config.toml'), '[peer]\nname = "anna"\ncolour = 1\n')
  const second = run(t, '--home', home, '--log-level', 'silent')
  t.is(await second.exit, 1)
  t.regex(second.errors(), /^realized: .*config\.toml:3: unknown key 'colour'.*\n$/)

  chmodSync(join(home, 'key.pem'), 0o644)
  const third = run(t, '--home', home, '--log-level', 'silent')
  t.is(await third.exit, 1)
  t.regex(third.errors(), /^realized: others may read the key .*\n$/)
})

test('a wrong option is wrong usage', async t => {
  const { exit, errors } = run(t, '--colour')
  t.is(await exit, 2)
  t.regex(errors(), /unknown option/)
})

test('a reload by signal follows a good configuration and rejects a bad one', async t => {
  const home = homeWith(t, [])
  const config = join(home, 'config.toml')
  const before = readFileSync(config, 'utf8')
  const { child, printed } = run(t, '--home', home)
  await printed('ready')
  const client = await connectControl(join(home, 'control.sock'))
  t.teardown(() => client.close())
  const heard = new Map<string, () => void>()
  const event = (name: string) => new Promise<void>(resolve => heard.set(name, resolve))
  await client.subscribe({ what: 'events' }, notification => {
    if (notification.method !== 'event') return
    for (const one of notification.params.events) heard.get(one.event)?.()
  })
  writeFileSync(config, `${before}\n[[arenas]]\n`)
  const rejected = event('config_rejected')
  child.kill('SIGHUP')
  await rejected
  writeFileSync(config, before.replace('anna', 'bert'))
  const loaded = event('config_loaded')
  child.kill('SIGHUP')
  await loaded
  t.is((await client.call('id', {})).name, 'bert')
})
