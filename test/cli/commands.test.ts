import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createGunzip } from 'node:zlib'
import test from 'ava'
import { extract } from 'tar-stream'
import { connectControl } from '../../cli/client.ts'
import { CONTROL_READ_BYTES_MAX, type ServiceEvent } from '../../protocol/control.ts'
import { SyncError } from '../../protocol/error.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import type { HistoryEvent } from '../../protocol/status.ts'
import { parseConfig } from '../../supervisor/config.ts'
import { within } from '../_deadline.ts'
import { temporaryFolder } from '../_temp.ts'
import {
  type Answers,
  arenaName,
  fakeService,
  Refusal,
  runCli,
  SERVER_ID,
  sampleArena,
  sampleStatus,
  startCli,
} from './_fake-service.ts'

const path = (text: string) => text as EntryPath

// How a command ends

test('without a service a command ends with 10 and says how to start one', async t => {
  const home = temporaryFolder(t)
  const { code, stdout, stderr } = await runCli(t, home, ['status'])
  t.is(code, 10)
  t.is(stdout, '')
  t.is(stderr, `realize: no service is running on ${home}: start it with \`realized --home ${home}\`\n`)
})

test('a socket file that a dead service left behind is no service', async t => {
  const home = temporaryFolder(t)
  const script = `require('net').createServer().listen(${JSON.stringify(join(home, 'control.sock'))}, () => console.log('up'))`
  const dying = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] })
  await once(dying.stdout, 'data')
  dying.kill('SIGKILL')
  await once(dying, 'close')
  t.true(readdirSync(home).includes('control.sock'))
  t.is((await runCli(t, home, ['id'])).code, 1)
  t.is((await runCli(t, home, ['status'])).code, 10)
})

const wrong = test.macro<[string[], RegExp]>({
  async exec(t, words, message) {
    const { code, stdout, stderr } = await runCli(t, temporaryFolder(t), words)
    t.is(code, 2)
    t.is(stdout, '')
    t.regex(stderr, message)
  },
  title: (_, words) => `wrong usage ends with 2: realize ${words.join(' ')}`,
})
test(wrong, [], /Usage: realize/)
test(wrong, ['frobnicate'], /unknown command 'frobnicate'/)
test(wrong, ['statsu'], /Did you mean status/)
test(wrong, ['status', '--colour'], /unknown option '--colour'/)
test(wrong, ['ls'], /missing required argument/)
test(wrong, ['ls', '../etc'], /no name of an arena/)
test(wrong, ['ls', 'docs:a/../b'], /contains '\.\.'/)
test(wrong, ['cat', 'docs'], /write docs:PATH/)
test(wrong, ['cat', 'docs:a', '--offset', '-1'], /not a whole number/)
test(wrong, ['resolve', 'docs:a'], /--keep/)
test(wrong, ['resolve', 'docs:a', '--keep', 'mine'], /winner, loser, both/)
test(wrong, ['restore', 'docs:a'], /--version/)
test(wrong, ['arena', 'add', 'docs', '--mark', 'real'], /needs a folder: give a PATH/)
test(wrong, ['arena', 'add', 'docs', '/tmp/x', '--mark', 'reel'], /real, pinned, unreal/)
test(wrong, ['mark', 'reel', 'docs:a'], /'reel' is no mark: real, pinned, unreal, clear/)
test(wrong, ['mark', 'real'], /missing required argument/)
test(wrong, ['peer', 'add', 'nas', 'NOT-AN-ID'], /./)
test(wrong, ['peer', 'add', 'nas', SERVER_ID, 'nas:99999'], /no valid port/)
test(wrong, ['history', '--limit', '0'], /not within 1 and 1000/)
test(wrong, ['wait', '--timeout', 'soon'], /not a number of seconds/)
test(wrong, ['invite', '--expires', '1y'], /not within 10s and 7d/)

test('wrong usage in JSON mode is a document too', async t => {
  const { code, stdout } = await runCli(t, temporaryFolder(t), ['ls', '--json'])
  t.is(code, 2)
  t.is(JSON.parse(stdout).error.code, 'usage')
})

test('an error of the service is one line on stderr, and in JSON mode a document on stdout', async t => {
  const { home } = await fakeService(t, {
    ls() {
      throw new SyncError('arena_unknown', 'there is no arena docs')
    },
  })
  const plain = await runCli(t, home, ['ls', 'docs'])
  t.deepEqual(plain, { code: 1, signal: null, stdout: '', stderr: 'realize: there is no arena docs\n' })
  const json = await runCli(t, home, ['ls', 'docs', '--json'])
  t.is(json.code, 1)
  t.deepEqual(JSON.parse(json.stdout), { error: { code: 'arena_unknown', message: 'there is no arena docs' } })
  t.is(json.stderr, plain.stderr)
})

test('wait that times out ends with 3 and says what is missing', async t => {
  const { home, requests } = await fakeService(t, {
    wait() {
      throw new Refusal('timed_out', 'not in consensus after 1.5 s', [
        'nas: 3 entries to take',
        'a\u001b[2Jb: no space',
      ])
    },
  })
  const plain = await runCli(t, home, ['wait', 'docs', '--timeout', '1.5'])
  t.is(plain.code, 3)
  t.is(
    plain.stderr,
    'missing: nas: 3 entries to take\nmissing: a\\u{1b}[2Jb: no space\nrealize: not in consensus after 1.5 s\n',
  )
  t.deepEqual(requests.find(request => request.method === 'wait')?.params, { arena: 'docs', timeoutSeconds: 1.5 })
  const json = await runCli(t, home, ['wait', '--json'])
  t.is(json.code, 3)
  t.deepEqual(JSON.parse(json.stdout).error.missing, ['nas: 3 entries to take', 'a\u001b[2Jb: no space'])
})

// What is asked

const asks = test.macro<[string[], string, unknown]>({
  async exec(t, words, method, params) {
    const answers: Answers = {
      arena_add: ({ name, path }) => ({ name, path }),
      arena_list: () => ({ arenas: [] }),
      peer_add: ({ name }) => ({ name, id: SERVER_ID }),
      peer_list: () => ({ peers: [] }),
      invite: () => ({ code: 'CODE', expiresAtMs: 0 }),
      join: () => ({ peer: { name: 'nas', id: SERVER_ID }, arenas: [] }),
      ls: () => ({ entries: [] }),
      conflicts: () => ({ conflicts: [] }),
      versions: () => ({ versions: [] }),
      read: () => ({ data: '', eof: true, size: 0 }),
      history: () => ({ events: [] }),
      wait: () => ({ consensus: true }),
      fetch: () => ({ files: 0, bytes: 0, problems: [], problemCount: 0 }),
      verify: () => ({ files: 0, bytes: 0, bad: [], root: '', peers: [] }),
    }
    for (const json of [false, true]) {
      const { home, requests } = await fakeService(t, answers)
      const outcome = await runCli(t, home, [...words, ...(json ? ['--json'] : [])])
      t.is(outcome.code, 0, outcome.stderr)
      const asked = requests.find(request => request.method === method)
      t.deepEqual(asked?.params, typeof params === 'function' ? params(home) : params)
      if (json) t.notThrows(() => JSON.parse(outcome.stdout))
    }
  },
  title: (_, words, method) => `realize ${words.join(' ')} asks ${method}`,
})
test(asks, ['arena', 'add', 'docs', '/srv/docs'], 'arena_add', { name: 'docs', path: '/srv/docs' })
test(asks, ['arena', 'add', 'docs', 'here', '--peer', 'nas', '--peer', 'two'], 'arena_add', (home: string) => ({
  name: 'docs',
  path: join(home, 'here'),
  peers: ['nas', 'two'],
}))
test(asks, ['arena', 'list'], 'arena_list', {})
test(asks, ['arena', 'remove', 'docs'], 'arena_remove', { name: 'docs' })
test(asks, ['arena', 'pause', 'docs'], 'arena_pause', { name: 'docs' })
test(asks, ['arena', 'resume', 'docs'], 'arena_resume', { name: 'docs' })
test(asks, ['arena', 'rescan', 'docs'], 'rescan', { arena: 'docs' })
test(asks, ['peer', 'add', 'nas', SERVER_ID.toLowerCase(), 'nas.lan', '[::1]:9'], 'peer_add', {
  name: 'nas',
  id: SERVER_ID,
  addresses: ['nas.lan:9771', '[::1]:9'],
})
test(asks, ['peer', 'list'], 'peer_list', {})
test(asks, ['peer', 'remove', 'nas'], 'peer_remove', { name: 'nas' })
test(asks, ['peer', 'connect', 'nas'], 'peer_connect', { name: 'nas' })
test(asks, ['peer', 'disconnect', 'nas'], 'peer_disconnect', { name: 'nas' })
test(asks, ['invite'], 'invite', {})
test(asks, ['invite', '--arena', 'docs', '--expires', '10m'], 'invite', { arenas: ['docs'], expiresSeconds: 600 })
test(asks, ['join', 'CODE'], 'join', { code: 'CODE' })
test(asks, ['join', 'CODE', 'x'], 'join', (home: string) => ({ code: 'CODE', path: join(home, 'x') }))
test(asks, ['ls', 'docs'], 'ls', { arena: 'docs', holders: true })
test(asks, ['ls', 'docs:/a b/c:d/'], 'ls', { arena: 'docs', holders: true, path: 'a b/c:d' })
test(asks, ['conflicts', 'docs'], 'conflicts', { arena: 'docs' })
test(asks, ['resolve', 'docs:a', '--keep', 'loser'], 'resolve', { arena: 'docs', path: 'a', keep: 'loser' })
test(asks, ['versions', 'docs:a'], 'versions', { arena: 'docs', path: 'a' })
test(asks, ['restore', 'docs:a', '--version', '7'], 'restore', { arena: 'docs', path: 'a', version: '7' })
test(asks, ['history', 'docs:a', '--limit', '5'], 'history', { arena: 'docs', path: 'a', limit: 5 })
test(asks, ['cat', 'docs:a', '--offset', '5', '--length', '7'], 'read', {
  arena: 'docs',
  path: 'a',
  offset: 5,
  length: 7,
})
test(asks, ['fetch', 'docs:a/'], 'fetch', { arena: 'docs', path: 'a' })
test(asks, ['wait'], 'wait', {})
test(asks, ['verify', 'docs'], 'verify', { arena: 'docs' })

// Setting up

test('init makes a private key and a configuration that is valid, and id prints the same ID', async t => {
  const folder = temporaryFolder(t)
  const first = await runCli(t, folder, ['init', '--name', 'Ada "the" laptop', '--listen', '127.0.0.1:0', '--json'])
  t.is(first.code, 0, first.stderr)
  const { id, config, key } = JSON.parse(first.stdout)
  t.is(statSync(key).mode & 0o777, 0o600)
  const parsed = parseConfig(readFileSync(config, 'utf8'), 'config.toml', { homedir: '/home/ada' })
  t.deepEqual(parsed.peer, { name: 'Ada "the" laptop', listen: [{ host: '127.0.0.1', port: 0 }] })
  t.is((await runCli(t, folder, ['id'])).stdout, `${id}\n`)
  const second = await runCli(t, folder, ['init'])
  t.is(second.code, 1)
  t.regex(second.stderr, /exist/)
  t.is((await runCli(t, folder, ['id'])).stdout, `${id}\n`)
})

test('init refuses a name that no configuration may have, and writes nothing', async t => {
  const home = temporaryFolder(t)
  const { code } = await runCli(t, home, ['init', '--name', 'a\u0007b'])
  t.is(code, 2)
  t.deepEqual(readdirSync(home), [])
})

test('id without a key says how to make one', async t => {
  const { code, stderr } = await runCli(t, temporaryFolder(t), ['id'])
  t.is(code, 1)
  t.regex(stderr, /realize --home \S+ init/)
})

// What is shown

test('status says what is missing and why, and escapes what comes from elsewhere', async t => {
  const status = sampleStatus({
    peers: [
      {
        name: 'n\u001b[31mas',
        id: SERVER_ID,
        state: 'disconnected',
        address: 'nas:9771',
        since: Date.now() - 7_200_000,
        error: 'refused \u202eevil',
        rates: { up: 0, down: 0 },
      },
    ],
    arenas: [
      sampleArena({
        state: 'syncing',
        consensus: false,
        missing: ['nas: 12 entries to take'],
        needFiles: 2,
        needBytes: 3 * 1024 * 1024,
        conflicts: 1,
        problems: [{ path: 'a\nb', reason: 'permission denied' }],
        problemCount: 5,
      }),
      sampleArena({ name: arenaName('photos'), state: 'guarded', reason: 'all files are gone', consensus: false }),
      sampleArena({ name: arenaName('films'), bytes: 4_294_967_296, realBytes: 2048, cachedBytes: 1024 * 1024 }),
    ],
    actors: [{ name: 'arena:docs', thread: 3, restarts: 2, mailbox: 0, lastError: 'boom' }],
  })
  const { home } = await fakeService(t, { status: () => status })
  const plain = await runCli(t, home, ['status'])
  t.is(plain.code, 0)
  for (const text of [
    'n\\u{1b}[31mas',
    'refused \\u{202e}evil',
    'missing: nas: 12 entries to take',
    'to come: 2 files, 3.0 MiB',
    '1 conflict: see `realize conflicts docs`',
    'a\\u{a}b: permission denied',
    'and 4 more',
    'all files are gone',
    'on this disk: 2.0 KiB real, 1.0 MiB cached',
    'boom',
    '2 h',
  ])
    t.true(plain.stdout.includes(text), `${text} in\n${plain.stdout}`)
  t.is(plain.stdout.split('on this disk').length, 2, 'nothing is said of it where all is real')
  t.notRegex(plain.stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/)
  const json = await runCli(t, home, ['--json', 'status'])
  t.deepEqual(JSON.parse(json.stdout), status)
  t.is(json.stdout.trim().split('\n').length, 1)
  t.notRegex(json.stdout, /\u202e/)
})

test('ls escapes names and shows folders, links and problems', async t => {
  const entry = { size: 1536, mtimeMs: Date.now() - 60_000, exec: false, mark: 'real', here: 1536 } as const
  const { home } = await fakeService(t, {
    ls: () => ({
      entries: [
        { ...entry, type: 'file', path: path('sub/a\u001b]0;x\u0007') },
        { ...entry, type: 'dir', path: path('sub/folder') },
        { ...entry, type: 'symlink', path: path('sub/link'), target: '../\u009bx' },
        { ...entry, type: 'file', path: path('sub/half'), here: 768, problem: 'no space' },
        {
          ...entry,
          type: 'file',
          path: path('sub/far'),
          mark: 'unreal',
          here: 0,
          holders: [
            { name: 'nas', held: 'real' },
            { name: 'desk', held: 'cached' },
          ],
        },
      ],
    }),
  })
  const { stdout } = await runCli(t, home, ['ls', 'docs:sub'])
  const lines = stdout.trimEnd().split('\n')
  t.regex(lines[0] as string, /^file +1\.5 KiB +1 min ago +real +here +a\\u\{1b\}\]0;x\\u\{7\}$/)
  t.regex(lines[1] as string, /^dir .* folder\/$/)
  t.regex(lines[2] as string, /^link .* link -> \.\.\/\\u\{9b\}x$/)
  t.regex(lines[3] as string, /50% here +half +no space$/)
  t.regex(lines[4] as string, /unreal +not here +nas, \(desk\) +far *$/)
})

test('a mark is given to a path, or to an arena, and taken away', async t => {
  const asked: unknown[] = []
  const { home } = await fakeService(t, {
    mark(params) {
      asked.push(params)
      return {}
    },
  })
  t.is((await runCli(t, home, ['mark', 'unreal', 'docs:films/'])).stdout, 'docs:films is marked unreal\n')
  t.is((await runCli(t, home, ['mark', 'pinned', 'docs'])).stdout, 'docs is marked pinned\n')
  t.is((await runCli(t, home, ['mark', 'clear', 'docs:films'])).stdout, 'docs:films has no mark of its own\n')
  t.deepEqual(asked, [
    { arena: 'docs', path: 'films', mark: 'unreal' },
    { arena: 'docs', mark: 'pinned' },
    { arena: 'docs', path: 'films', mark: 'clear' },
  ])
})

test('evict says what was given up and what stayed, and why', async t => {
  const { home } = await fakeService(t, {
    evict: ({ path: at }) => ({
      files: 2,
      bytes: 2048,
      cachedBytes: at === undefined ? 0 : 1024,
      kept: at === undefined ? 1 : 0,
      reasons: at === undefined ? [{ path: 'a\u001b', reason: 'no other connected peer holds it' }] : [],
    }),
  })
  const all = await runCli(t, home, ['evict', 'docs'])
  t.is(all.code, 1)
  t.is(all.stdout, 'gave up 2 files, 2.0 KiB\n1 file stayed\na\\u{1b}: no other connected peer holds it\n')
  const some = await runCli(t, home, ['evict', 'docs:films'])
  t.is(some.code, 0)
  t.is(some.stdout, 'gave up 2 files, 2.0 KiB, and 1.0 KiB from the cache\n')
})

test('an arena can be added without a folder, or with a mark', async t => {
  const asked: unknown[] = []
  const { home } = await fakeService(t, {
    arena_add(params) {
      asked.push(params)
      return { name: params.name, path: params.path }
    },
  })
  t.regex((await runCli(t, home, ['arena', 'add', 'films'])).stdout, /^films is here on demand, shared with/)
  await runCli(t, home, ['arena', 'add', 'docs', '/tmp/x', '--mark', 'unreal'])
  t.deepEqual(asked, [
    { name: 'films', path: null },
    { name: 'docs', path: '/tmp/x', mark: 'unreal' },
  ])
})

test('an error message of the service is escaped', async t => {
  const { home } = await fakeService(t, {
    rescan() {
      throw new SyncError('disk_failed', 'bad \u001b[2J\nname')
    },
  })
  t.is((await runCli(t, home, ['arena', 'rescan', 'docs'])).stderr, 'realize: bad \\u{1b}[2J\\u{a}name\n')
})

test('conflicts of all arenas are listed with their arena', async t => {
  const { home } = await fakeService(t, {
    arena_list: () => ({
      arenas: ['docs', 'photos'].map(name => ({
        name: arenaName(name),
        path: null,
        peers: null,
        mark: 'real',
        state: 'idle',
        reason: null,
      })),
    }),
    conflicts: ({ arena }) => ({
      conflicts: [{ path: path(`${arena}.txt`), copy: path(`${arena}.c.txt`), size: 1, mtimeMs: 0, author: 'ABCDEFG' }],
    }),
  })
  const { stdout } = await runCli(t, home, ['conflicts'])
  t.regex(stdout, /docs:docs\.txt .* kept as docs\.c\.txt\nphotos:photos\.txt/)
  const json = JSON.parse((await runCli(t, home, ['conflicts', '--json'])).stdout)
  t.deepEqual(
    json.conflicts.map((conflict: { arena: string }) => conflict.arena),
    ['docs', 'photos'],
  )
})

test('verify ends with 1 for bad content and with 3 for a peer that differs', async t => {
  const result = { files: 2, bytes: 10, bad: [] as { path: string; reason: string }[], root: '', peers: [] as never[] }
  const peers = [
    {
      name: 'nas',
      id: SERVER_ID,
      state: 'connected' as const,
      address: null,
      since: null,
      error: null,
      rates: { up: 0, down: 0 },
    },
  ]
  const bad = await fakeService(t, {
    peer_list: () => ({ peers }),
    verify: () => ({ ...result, bad: [{ path: 'a', reason: 'its content has changed silently' }] }),
  })
  const first = await runCli(t, bad.home, ['verify', 'docs'])
  t.is(first.code, 1)
  t.regex(first.stdout, /bad: a: its content has changed silently/)
  const differing = await fakeService(t, {
    peer_list: () => ({ peers }),
    verify: () => ({ ...result, peers: [{ id: SERVER_ID, root: '', equal: false }] }),
  })
  const second = await runCli(t, differing.home, ['verify', 'docs'])
  t.is(second.code, 3)
  t.regex(second.stdout, /nas differs/)
})

test('fetch ends with 1 and says what could not be fetched and why', async t => {
  const { home } = await fakeService(t, {
    fetch: () => ({ files: 3, bytes: 10, problems: [{ path: 'a', reason: 'no peer is connected' }], problemCount: 1 }),
  })
  const outcome = await runCli(t, home, ['fetch', 'docs'])
  t.is(outcome.code, 1)
  t.regex(outcome.stdout, /not fetched: a: no peer is connected/)
  t.regex(outcome.stdout, /1 of 3 files could not be fetched/)
})

// Content

const CONTENT = Buffer.from(
  Uint8Array.from({ length: 2 * CONTROL_READ_BYTES_MAX + 12_345 }, (_, i) => (i * 7 + (i >> 9)) % 256),
)
const reading: Answers = {
  read: ({ offset, length }) => {
    const bytes = CONTENT.subarray(offset, offset + length)
    return { data: bytes.toString('base64'), eof: offset + bytes.length >= CONTENT.length, size: CONTENT.length }
  },
}

async function catOf(t: Parameters<typeof startCli>[0], home: string, words: string[]): Promise<Buffer> {
  const child = startCli(t, home, ['cat', 'docs:a', ...words])
  const parts: Buffer[] = []
  child.stdout.on('data', (bytes: Buffer) => parts.push(bytes))
  await once(child, 'close')
  return Buffer.concat(parts)
}

test('cat writes the bytes as they are, whole or a part', async t => {
  const { home } = await fakeService(t, reading)
  t.true((await catOf(t, home, [])).equals(CONTENT))
  t.true((await catOf(t, home, ['--offset', '100', '--length', '1048580'])).equals(CONTENT.subarray(100, 1_048_680)))
  t.true((await catOf(t, home, ['--offset', '2109490'])).equals(CONTENT.subarray(2_109_490)))
  const json = JSON.parse((await catOf(t, home, ['--json', '--length', '3'])).toString())
  t.deepEqual(json, {
    arena: 'docs',
    path: 'a',
    offset: 0,
    size: CONTENT.length,
    data: CONTENT.subarray(0, 3).toString('base64'),
  })
})

test('a file that changes its size while it is read is an error', async t => {
  let size = 3 * CONTROL_READ_BYTES_MAX
  const { home } = await fakeService(t, {
    read: ({ length }) => ({ data: Buffer.alloc(length).toString('base64'), eof: false, size: size-- }),
  })
  const { code, stderr } = await runCli(t, home, ['cat', 'docs:a'])
  t.is(code, 1)
  t.regex(stderr, /changed while it was read/)
})

test('a reader that stops early is no error', async t => {
  const { home } = await fakeService(t, {
    read: ({ length }) => ({ data: Buffer.alloc(length).toString('base64'), eof: false, size: 2 ** 40 }),
  })
  const child = startCli(t, home, ['cat', 'docs:a'])
  let stderr = ''
  child.stderr.on('data', bytes => {
    stderr += bytes
  })
  await once(child.stdout, 'data')
  child.stdout.destroy()
  const [code] = await within(20_000, 'cat did not end', once(child, 'close'))
  t.is(code, 0)
  t.is(stderr, '')
})

test('restore --to writes a new file, and never over one that is there', async t => {
  const { home, requests } = await fakeService(t, reading)
  const first = await runCli(t, home, ['restore', 'docs:a', '--version', 'v1', '--to', 'out.bin'])
  t.is(first.code, 0, first.stderr)
  t.true(readFileSync(join(home, 'out.bin')).equals(CONTENT))
  t.deepEqual(requests[0]?.params, {
    arena: 'docs',
    path: 'a',
    version: 'v1',
    offset: 0,
    length: CONTROL_READ_BYTES_MAX,
  })
  writeFileSync(join(home, 'mine'), 'mine')
  const second = await runCli(t, home, ['restore', 'docs:a', '--version', 'v1', '--to', 'mine'])
  t.is(second.code, 1)
  t.regex(second.stderr, /exists/)
  t.is(readFileSync(join(home, 'mine'), 'utf8'), 'mine')
  t.deepEqual(readdirSync(home).sort(), ['control.sock', 'mine', 'out.bin'])
})

test('restore --to that fails leaves nothing behind', async t => {
  const { home } = await fakeService(t, {
    read() {
      throw new SyncError('not_found', 'there is no such version')
    },
  })
  const { code } = await runCli(t, home, ['restore', 'docs:a', '--version', 'v1', '--to', 'out.bin'])
  t.is(code, 1)
  t.deepEqual(readdirSync(home), ['control.sock'])
})

test('diag writes a bundle of what the service gives', async t => {
  const { home } = await fakeService(t, {
    diag: () => ({
      config: '[peer]\n',
      status: sampleStatus(),
      metrics: 'x 1\n',
      logs: ['{"a":1}', '{"b":2}'],
      versions: { realize: '0.1.0' },
    }),
  })
  const { code, stderr } = await runCli(t, home, ['diag', 'bundle.tar.gz'])
  t.is(code, 0, stderr)
  const files = new Map<string, string>()
  const tar = createReadStream(join(home, 'bundle.tar.gz')).pipe(createGunzip()).pipe(extract())
  for await (const entry of tar) {
    const parts: Buffer[] = []
    for await (const bytes of entry) parts.push(bytes as Buffer)
    files.set(entry.header.name, Buffer.concat(parts).toString())
  }
  t.is(files.get('realize-diag/config.toml'), '[peer]\n')
  t.is(files.get('realize-diag/log.ndjson'), '{"a":1}\n{"b":2}\n')
  t.deepEqual(JSON.parse(files.get('realize-diag/status.json') ?? ''), sampleStatus())
  t.is(files.size, 5)
})

// Following

const event = (number: number): HistoryEvent => ({
  number,
  atMs: 1_700_000_000_000 + number,
  arena: arenaName('docs'),
  action: 'edited',
  path: path(number % 2 === 0 ? 'a/even' : 'b/odd'),
  author: 'ABCDEFG',
  version: '0badcafe',
})

test('history --follow shows what comes, of the path alone, until the service stops', async t => {
  const { home, requests } = await fakeService(t, {
    subscribe: (_, caller) => {
      caller.notify({ jsonrpc: '2.0', method: 'history', params: { events: [event(1), event(2)] } })
      caller.notify({ jsonrpc: '2.0', method: 'history', params: { events: [event(3)] } })
      caller.notify({ jsonrpc: '2.0', method: 'history', params: { events: [event(4)] } })
      setImmediate(caller.hangUp)
      return {}
    },
  })
  const { code, stdout } = await runCli(t, home, ['history', 'docs:a', '--follow', '--json'])
  t.is(code, 10)
  const lines = stdout
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
  t.deepEqual(lines.slice(0, 2), [event(2), event(4)])
  t.is(lines[2].error.code, 'no_service')
  t.deepEqual(requests[0]?.params, { what: 'history', arena: 'docs' })
})

test('status --watch follows, and an interrupt ends it quietly with 130', async t => {
  const { home } = await fakeService(t, {
    subscribe: (_, caller) => {
      caller.notify({ jsonrpc: '2.0', method: 'status', params: sampleStatus() })
      return {}
    },
  })
  const child = startCli(t, home, ['status', '--watch', '--json'])
  let stderr = ''
  child.stderr.on('data', bytes => {
    stderr += bytes
  })
  const [first] = await within(120_000, 'no status came', once(child.stdout, 'data'))
  t.deepEqual(JSON.parse(String(first)), sampleStatus())
  child.kill('SIGINT')
  const [code] = await within(120_000, 'it did not end', once(child, 'close'))
  t.is(code, 130)
  t.is(stderr, '')
})

test('events without --follow prints what there is and ends', async t => {
  const past: ServiceEvent[] = [{ atMs: 1, level: 'info', event: 'service_ready', fields: { name: 'x\u001b' } }]
  const { home } = await fakeService(t, {
    subscribe: (_, caller) => {
      caller.notify({ jsonrpc: '2.0', method: 'event', params: { events: past } })
      return {}
    },
  })
  const { code, stdout } = await runCli(t, home, ['events'])
  t.is(code, 0)
  t.deepEqual(JSON.parse(stdout), past[0])
})

test('progress is a plain line on stderr where there is no terminal, and nothing in JSON mode', async t => {
  const answers: Answers = {
    subscribe: (_, caller) => {
      caller.notify({
        jsonrpc: '2.0',
        method: 'status',
        params: sampleStatus({ arenas: [sampleArena({ consensus: false, needFiles: 2, needBytes: 2048 })] }),
      })
      return {}
    },
    // The call comes after the subscription was answered, and so after its first notification.
    wait: () => ({ consensus: true }),
  }
  const { home } = await fakeService(t, answers)
  const plain = await runCli(t, home, ['wait'])
  t.deepEqual(plain, { code: 0, signal: null, stdout: 'in consensus\n', stderr: '2 files, 2.0 KiB to come\n' })
  const json = await runCli(t, home, ['wait', '--json'])
  t.deepEqual(json, { code: 0, signal: null, stdout: '{"consensus":true}\n', stderr: '' })
})

// The client

test('a service that goes away ends the calls that wait for it', async t => {
  const { socket } = await fakeService(t, {
    verify: (_, caller) => {
      caller.hangUp()
      return new Promise(() => {})
    },
  })
  const client = await connectControl(socket)
  await t.throwsAsync(client.call('verify', { arena: arenaName('docs') }), { code: 'no_service' })
  const reason = await client.closed
  t.is(reason?.code, 'no_service')
  await t.throwsAsync(client.call('status', {}), { code: 'no_service' })
})

test('calls on one connection are answered each with its own result', async t => {
  const { socket } = await fakeService(t, {
    read: ({ offset }) =>
      new Promise(resolve => {
        const answer = { data: '', eof: true, size: offset }
        // The first question is answered last.
        if (offset === 0) setImmediate(() => setImmediate(() => resolve(answer)))
        else resolve(answer)
      }),
  })
  const client = await connectControl(socket)
  const ask = (offset: number) => client.call('read', { arena: arenaName('docs'), path: 'a', offset, length: 1 })
  const results = await Promise.all([0, 1, 2].map(ask))
  t.deepEqual(
    results.map(result => result.size),
    [0, 1, 2],
  )
  client.close()
  t.is(await client.closed, null)
})

test('parameters that the schema refuses are wrong usage, not a crash', async t => {
  const { home } = await fakeService(t)
  const { code, stderr } = await runCli(t, home, ['peer', 'remove', 'a\u0007b'])
  t.is(code, 2)
  t.regex(stderr, /peer_remove/)
})
