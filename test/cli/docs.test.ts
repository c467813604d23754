import { readFileSync, writeFileSync } from 'node:fs'
import test from 'ava'
import { controlMethods, isControlMethod, PeerName, parseParams } from '../../protocol/control.ts'
import { temporaryFolder } from '../_temp.ts'
import { MARK, methodReference } from './_control-docs.ts'
import { runCli } from './_fake-service.ts'

const manualUrl = (name: string) => new URL(`../../../docs/${name}`, import.meta.url)

test('the manual of the control socket has the schemas as they are (UPDATE_DOCS=1 writes them)', t => {
  const manual = readFileSync(manualUrl('control.md'), 'utf8')
  const story = manual.slice(0, manual.indexOf(MARK))
  if (process.env.UPDATE_DOCS) writeFileSync(manualUrl('control.md'), story + methodReference())
  t.is(readFileSync(manualUrl('control.md'), 'utf8'), story + methodReference())
  for (const name of Object.keys(controlMethods))
    t.true(story.includes(`\`${name}\``), `the story does not tell of ${name}`)
})

test('the manual of the command line has every command', async t => {
  const manual = readFileSync(manualUrl('cli.md'), 'utf8')
  const home = temporaryFolder(t)
  const commandsOf = async (words: string[]) => {
    const { stdout } = await runCli(t, home, [...words, '--help'])
    return [...stdout.matchAll(/^ {2}([a-z]+) (?:\[options\]|\[command\])/gm)].map(match => match[1] as string)
  }
  const found: string[] = []
  for (const name of await commandsOf([])) {
    if (name === 'help') continue
    if (name === 'arena' || name === 'peer') {
      for (const inner of await commandsOf([name])) if (inner !== 'help') found.push(`${name} ${inner}`)
    } else found.push(name)
  }
  t.is(found.length, 33)
  for (const name of found) t.regex(manual, new RegExp(`^\\| \`${name}[ \`]`, 'm'), `docs/cli.md lacks ${name}`)
})

test('parameters are closed, bounded and named by their method when refused', t => {
  t.true(isControlMethod('status'))
  t.false(isControlMethod('constructor'))
  t.deepEqual(parseParams('status', undefined), {})
  t.throws(() => parseParams('status', { x: 1 }), { code: 'message_invalid', message: /^status: \/x/ })
  t.throws(() => parseParams('status', []), { code: 'message_invalid' })
  t.throws(() => parseParams('ls', { arena: '../x' }), { code: 'message_invalid', message: /^ls: \/arena/ })
  t.throws(() => parseParams('ls', { arena: 'x', path: 'y'.repeat(2000) }), { code: 'message_invalid' })
  t.throws(() => parseParams('read', { arena: 'x', path: 'y', offset: -1, length: 1 }), { code: 'message_invalid' })
  t.throws(() => parseParams('read', { arena: 'x', path: 'y', offset: 0, length: 2 ** 30 }), {
    code: 'message_invalid',
  })
  t.throws(() => parseParams('history', { arena: 'x', limit: 1e9 }), { code: 'message_invalid' })
})

test('a name of a peer may be in any script, and has nothing that cannot be seen', t => {
  const pattern = new RegExp(PeerName.pattern as string)
  for (const name of ['nas', 'Ada’s laptop', '書斎', '💻 one', 'x'.repeat(64)]) t.regex(name, pattern)
  for (const name of ['', 'a\nb', 'a\u0000', '\u202eabc', 'a\u200bb', '\ud800', 'a\udc00']) t.notRegex(name, pattern)
})
