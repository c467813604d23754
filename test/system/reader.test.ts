/** At every instant a path has its old content or its new one: a reader in a tight loop is the witness. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, renameSync, watch, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { within } from '../_deadline.ts'
import { Household } from './_household.ts'
import type { Seen } from './_reader.ts'

const READER = fileURLToPath(new URL('./_reader.js', import.meta.url))
const LETTERS = 'abcdefghijklmnopqrstuvwxyz'
const BYTES = 20_000
const FILES = 10
const ROUNDS = 100

test.serial('files that are updated a thousand times from elsewhere are never missing, short or mixed', async t => {
  t.timeout(120_000)
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  const names = Array.from({ length: FILES }, (_, i) => `clock ${i}`)
  for (const name of names) writeFileSync(join(household.root(alice), name), Buffer.alloc(BYTES, LETTERS[0]))
  await household.settled()

  const shown = names.map(name => join(household.root(bob), name))
  const reader = spawn(process.execPath, [READER, String(BYTES), ...shown], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => reader.kill('SIGKILL'))
  const lines = createInterface({ input: reader.stdout })
  const [first] = (await within(10_000, 'the reader starts', once(lines, 'line'))) as [string]
  t.is(first, 'reading')

  const watcher = watch(household.root(bob))
  t.teardown(() => watcher.close())
  for (let round = 1; round <= ROUNDS; round++) {
    const content = Buffer.alloc(BYTES, LETTERS[round % LETTERS.length])
    for (const [index, name] of names.entries()) save(join(household.root(alice), name), content, index % 4 === 0)
    const arrived = async (): Promise<void> => {
      while (shown.some(file => readFileSync(file)[0] !== content[0])) await once(watcher, 'change')
    }
    await within(20_000, `round ${round} is shown`, arrived())
  }

  const told = once(lines, 'line') as Promise<[string]>
  reader.stdin.end()
  const seen = JSON.parse((await within(10_000, 'the reader tells', told))[0]) as Seen
  t.deepEqual(seen.faults, [])
  t.true(seen.reads > FILES * ROUNDS, `${seen.reads} reads`)
  t.true(seen.changes > (FILES * ROUNDS) / 4, `${seen.changes} changes seen`)
  await household.same(t)
})

/** By one of the two ways in which programs save: into the file, or over it by a rename. */
function save(file: string, content: Buffer, inPlace: boolean): void {
  if (inPlace) return writeFileSync(file, content)
  writeFileSync(`${file}.new`, content)
  renameSync(`${file}.new`, file)
}
