/** What goes wrong at the start or on the command line is said in one clear line, with the right exit code. */

import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Household } from './_household.ts'
import { type Outcome, type Peer, run, SERVICE } from './_peer.ts'
import { makeTree } from './_tree.ts'

/** One line on stderr that says `what`, no stack trace, and this exit code. */
function oneClearLine(t: ExecutionContext, outcome: Outcome, code: number, ...what: (RegExp | string)[]): void {
  const lines = outcome.stderr.split('\n').filter(line => line.trim() !== '')
  t.is(outcome.code, code, `${outcome.stderr}${outcome.stdout}`)
  t.is(lines.length, 1, outcome.stderr)
  t.false(outcome.stderr.includes('    at '), outcome.stderr)
  for (const one of what) {
    if (typeof one === 'string') t.true(outcome.stderr.includes(one), `${outcome.stderr} does not say ${one}`)
    else t.regex(outcome.stderr, one)
  }
}

function service(peer: Peer): Promise<Outcome> {
  return run(SERVICE, ['--home', peer.home, '--log-level', 'error'], 20_000)
}

test.serial('a configuration that is no TOML is refused with its file and line', async t => {
  const household = new Household(t)
  const peer = await household.peer('alice', { start: false })
  writeFileSync(peer.configPath, '[peer]\nname = "alice\n')
  oneClearLine(t, await service(peer), 1, /config\.toml:2/)
})

test.serial('an unknown key in the configuration is refused with its name and line', async t => {
  const household = new Household(t)
  const peer = await household.peer('alice', { start: false })
  writeFileSync(peer.configPath, '[peer]\nname = "alice"\ncolour = "red"\n')
  oneClearLine(t, await service(peer), 1, 'colour', /config\.toml:3/)
})

test.serial('a configuration that cannot be read is refused with the reason', async t => {
  const household = new Household(t)
  const peer = await household.peer('alice', { start: false })
  rmSync(peer.configPath)
  mkdirSync(peer.configPath)
  oneClearLine(t, await service(peer), 1, 'config.toml')
})

test.serial('a port that is taken is named, with what to change', async t => {
  const household = new Household(t)
  const peer = await household.peer('alice', { start: false })
  const server = createServer().listen(peer.port ?? 0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  oneClearLine(t, await service(peer), 1, String(peer.port), /taken|in use/, 'listen')
})

test.serial('a second service on one home is refused, and the first runs on', async t => {
  const household = new Household(t)
  const peer = await household.peer('alice')
  oneClearLine(t, await service(peer), 1, /already/, peer.home)
  t.is((await peer.call('status', {})).peer.name, 'alice')
})

test.serial('a socket that a killed service left behind hinders nobody', async t => {
  const household = new Household(t)
  const peer = await household.peer('alice')
  await peer.kill()
  oneClearLine(t, await peer.realize('status'), 10, /no service/)
  await peer.start()
  t.is((await peer.realize('status')).code, 0)
})

test.serial('a command without a service ends with 10 and says how to start one', async t => {
  const household = new Household(t)
  const peer = await household.peer('alice', { start: false })
  for (const command of [['status'], ['wait'], ['ls', 'docs'], ['invite'], ['conflicts']])
    oneClearLine(t, await peer.realize(...command), 10, /no service/, 'realized')
  t.is((await peer.realize('id')).code, 0)
})

test.serial('a code that is mistyped, cut short or nonsense is refused', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.all('alice', 'bob')
  await household.share(alice!)
  const { code } = await alice!.call('invite', {})
  const middle = Math.floor(code.length / 2)
  const typo = code.slice(0, middle) + (code[middle] === '2' ? '3' : '2') + code.slice(middle + 1)
  for (const wrong of [typo, code.slice(0, -3), 'hello', 'rz1-'])
    oneClearLine(t, await bob!.realize('join', wrong, household.root(bob!)), 1, /code/)
  t.deepEqual((await bob!.call('peer_list', {})).peers, [])
  t.is((await alice!.call('peer_list', {})).peers.length, 0)
})

test.serial('wrong usage ends with 2', async t => {
  const household = new Household(t)
  const peer = await household.peer('alice')
  for (const command of [
    ['nonsense'],
    ['ls'],
    ['wait', '--timeout', 'soon'],
    ['resolve', 'docs:a', '--keep', 'everything'],
    ['--colour'],
  ]) {
    const outcome = await peer.realize(...command)
    t.is(outcome.code, 2, `${command.join(' ')}: ${outcome.stderr}`)
    t.false(outcome.stderr.includes('    at '))
  }
})

test.serial('names that are not known are refused by name', async t => {
  const household = new Household(t)
  const peer = await household.peer('alice')
  await household.share(peer)
  oneClearLine(t, await peer.realize('ls', 'nowhere'), 1, 'nowhere')
  oneClearLine(t, await peer.realize('arena', 'remove', 'nowhere'), 1, 'nowhere')
  oneClearLine(t, await peer.realize('peer', 'remove', 'nobody'), 1, 'nobody')
  oneClearLine(t, await peer.realize('cat', 'docs:nothing'), 1, 'nothing')
  oneClearLine(t, await peer.realize('resolve', 'docs:nothing', '--keep', 'winner'), 1, 'nothing')
  oneClearLine(t, await peer.realize('versions', 'docs:../outside'), 2, /\.\./)
})

test.serial('a root that is a file: the arena says why, the service and its other arenas run', async t => {
  const household = new Household(t)
  const peer = await household.peer('alice', { start: false })
  const roots = { file: join(household.folder, 'file'), good: join(household.folder, 'good') }
  writeFileSync(roots.file, 'a file')
  makeTree(roots.good, { note: 'text' })
  const arenas = Object.entries(roots).map(([name, path]) => `[[arenas]]\nname = "${name}"\npath = "${path}"\n`)
  peer.editConfig(text => `${text}\n${arenas.join('\n')}`)
  await peer.start()
  const wrong = await peer.untilArena('says why', 'file', one => one.state === 'failed' || one.state === 'guarded')
  t.true(wrong.reason!.includes(roots.file))
  t.false(wrong.reason!.includes('    at '))
  t.is((await peer.untilArena('works', 'good', one => one.state === 'idle' && one.files === 1)).reason, null)
  t.is((await peer.realize('wait', 'good', '--timeout', '20')).code, 0)
  const waited = await peer.realize('wait', 'file', '--timeout', '1')
  t.is(waited.code, 3, waited.stderr)
  t.true(waited.stderr.includes('not a folder'), waited.stderr)
})

test.serial(
  'a bad reload is rejected with its error and keeps the old configuration; a good one adds an arena',
  async t => {
    const household = new Household(t)
    const [alice, bob] = await household.couple()
    alice.editConfig(
      text => `${text}\n[[arenas]]\nname = "more"\npath = "${join(household.folder, 'more')}"\nnonsense = 1\n`,
    )
    const events = await alice.connect()
    t.teardown(() => events.close())
    const rejected = new Promise<void>(resolve => {
      void events.subscribe({ what: 'events' }, notification => {
        if (notification.method === 'event' && notification.params.events.some(one => one.event === 'config_rejected'))
          resolve()
      })
    })
    alice.signal('SIGHUP')
    await rejected
    t.deepEqual(
      (await alice.call('arena_list', {})).arenas.map(one => one.name as string).filter(name => name === 'more'),
      [],
    )
    makeTree(household.root(alice), { note: 'sync goes on' })
    t.true((await household.same(t, [alice, bob])).has('note'))

    makeTree(join(household.folder, 'more'), { inside: 'text' })
    alice.editConfig(text => text.replace('nonsense = 1\n', ''))
    alice.signal('SIGHUP')
    await alice.untilArena('has the new arena', 'more', one => one.state === 'idle' && one.files === 1)
    t.is((await alice.call('peer_list', {})).peers[0]!.state, 'connected')
  },
)
