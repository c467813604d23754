import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { ArenaName } from '../../protocol/ids.ts'
import { INVITE_LIFE_MS, INVITES_MAX, Invites } from '../../supervisor/invites.ts'
import { tempFolder } from './_temp.ts'

function setUp(t: ExecutionContext) {
  const path = join(tempFolder(t), 'invites.json')
  const clock = { ms: 1_000_000 }
  return { path, clock, open: () => new Invites({ path, wallMs: () => clock.ms, randomBytes }) }
}

test('an invitation can be used once, also by a service that was started again', t => {
  const { open } = setUp(t)
  const made = open().create(['docs' as ArenaName], undefined)
  const again = open()
  t.deepEqual(again.attempts(), [{ invite: made.invite, secret: made.secret }])
  t.deepEqual(again.take(made.invite), made)
  t.is(again.take(made.invite), undefined)
  t.deepEqual(open().attempts(), [])
})

test('an invitation ends after an hour', t => {
  const { open, clock } = setUp(t)
  const invites = open()
  const made = invites.create(null)
  clock.ms += INVITE_LIFE_MS - 1
  t.is(invites.attempts().length, 1)
  clock.ms += 1
  t.deepEqual(invites.attempts(), [])
  t.is(invites.take(made.invite), undefined)
})

test('no more than sixteen are open at a time', t => {
  const { open, clock } = setUp(t)
  const invites = open()
  for (let i = 0; i < INVITES_MAX; i++) invites.create(null)
  t.like(
    t.throws(() => invites.create(null)),
    { code: 'limit_exceeded' },
  )
  clock.ms += INVITE_LIFE_MS
  t.notThrows(() => invites.create(null))
})

test('the file of secrets is for its user alone', t => {
  const { open, path } = setUp(t)
  open().create(null)
  t.is(statSync(path).mode & 0o777, 0o600)
  t.is((JSON.parse(readFileSync(path, 'utf8')) as unknown[]).length, 1)
})

test('a file that makes no sense is taken away, and its codes are void', t => {
  const { open, path } = setUp(t)
  for (const text of ['{', '[{"invite":"../.."}]', 'null']) {
    writeFileSync(path, text)
    t.deepEqual(open().attempts(), [])
    t.false(existsSync(path))
  }
})
