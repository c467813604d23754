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
const BYTES = 20_000
const UPDATES = 1_000

test.serial('a file that is updated a thousand times from elsewhere is never missing, short or mixed', async t => {
  const household = new Household(t)
  const [alice, bob] = await household.couple()
  const [source, shown] = [join(household.root(alice), 'clock'), join(household.root(bob), 'clock')]
  const letters = 'abcdefghijklmnopqrstuvwxyz'
  writeFileSync(source, Buffer.alloc(BYTES, letters[0]))
  await household.settled()

  const reader = spawn(process.execPath, [READER, shown, String(BYTES)], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => reader.kill('SIGKILL'))
  const lines = createInterface({ input: reader.stdout })
  const [first] = (await within(10_000, 'the reader starts', once(lines, 'line'))) as [string]
  t.is(first, 'reading')

  const watcher = watch(household.root(bob))
  t.teardown(() => watcher.close())
  for (let update = 1; update <= UPDATES; update++) {
    const content = Buffer.alloc(BYTES, letters[update % letters.length])
    // By turns in the two ways in which programs save: over the file by a rename, and into the file.
    if (update % 4 === 0) writeFileSync(source, content)
    else {
      writeFileSync(`${source}.new`, content)
      renameSync(`${source}.new`, source)
    }
    const arrived = async (): Promise<void> => {
      while (readFileSync(shown)[0] !== content[0]) await once(watcher, 'change')
    }
    await within(20_000, `update ${update} is shown`, arrived())
  }

  const told = once(lines, 'line') as Promise<[string]>
  reader.stdin.end()
  const seen = JSON.parse((await within(10_000, 'the reader tells', told))[0]) as Seen
  t.deepEqual(seen.faults, [])
  t.true(seen.reads > UPDATES, `${seen.reads} reads`)
  t.true(seen.changes > UPDATES / 4, `${seen.changes} changes seen`)
  await household.same(t)
})
