/** Names and reasons that come from others and are printed: no terminal, page or log obeys them. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Stage, until } from './_stage.ts'

/** Clears the screen, sets a title, links, runs backwards, begins lines, closes tags. */
const NASTY = '\u001b[2J\u001b]0;title\u0007\u009b31m\u202egnp.exe\u2028<script>alert(1)</script>\r\n{"level":"info"}'

test('terminal escapes and HTML in every name that is printed stay text', async t => {
  const stage = await Stage.open(t)
  const { alice } = stage
  const { mallory, reader } = await stage.guest({ name: `mallory${NASTY}`.slice(0, 64) })
  const name = `a${NASTY}b.txt`
  mallory.feed(reader, [
    mallory.file(name, 'first'),
    mallory.entry(`link${NASTY}`, { type: 'symlink', target: `to${NASTY}` }),
    mallory.entry(`never${NASTY}`, { type: 'file', size: 10, mtime: '1', exec: false, hash: 'ab'.repeat(32) }),
  ])
  await until('the file is there', 30_000, () => existsSync(join(stage.root, name)))
  // A conflict on it, and reasons in its words.
  mallory.feed(reader, [mallory.file(name, 'second', { vector: [['0'.repeat(16), 5]], g: 5 })])
  await alice.untilArena('has a conflict', 'docs', status => status.conflicts > 0)
  mallory.say({ type: 'arena_close', arena: 'docs', code: 'busy', reason: NASTY })
  await alice.untilArena('knows the reason', 'docs', status => status.peers.some(peer => peer.reason === NASTY))
  const printed: [string, string][] = []
  for (const args of [
    ['ls', 'docs'],
    ['status'],
    ['conflicts'],
    ['history', 'docs'],
    ['versions', `docs:${name}`],
    ['events'],
    ['--json', 'status'],
    ['--json', 'history', 'docs'],
    ['--json', 'events'],
  ]) {
    const { stdout, stderr } = await alice.realize(...args)
    printed.push([args.join(' '), stdout + stderr])
  }
  mallory.say({ type: 'close', code: 'not_allowed', reason: NASTY })
  await alice.until('shows why', status => status.peers.some(peer => peer.error?.includes('title') === true))
  const { stdout, stderr } = await alice.realize('status')
  printed.push(
    ['status after it left', stdout + stderr],
    ['log', alice.lines.filter(line => !line.startsWith('*')).join('\n')],
  )
  for (const [what, text] of printed) {
    t.notRegex(text, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2028\u2029\u2066-\u2069]/, what)
  }
  t.true(
    printed.some(([, text]) => text.includes('\\u{1b}[2J')),
    'they are shown as what they are',
  )
  for (const [what, text] of printed) {
    if (what !== 'log' && !what.startsWith('--json')) continue
    for (const line of text.split('\n').filter(Boolean)) {
      if (line === 'ready') continue
      t.notThrows(() => JSON.parse(line), `${what}: each line is one document: ${line.slice(0, 100)}`)
    }
  }
  await mallory.leave()
})
