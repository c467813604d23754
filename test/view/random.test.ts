/**
 * The same random operations in a mounted folder and in a plain one: every answer, every error and in the end every file must be
 * the same. `VIEW_OPERATIONS=100000` for a long run, `SEED=25` to play one again.
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { close, openRoot } from '../../actors/arena/posix-calls.ts'
import { cannotMount, type Mounted, mounted } from './_mount.ts'
import { generator, operation, outcome, type Side, same, tree } from './_operations.ts'

const OPERATIONS = Number(process.env.VIEW_OPERATIONS ?? 4000)
const SEED = Number(process.env.SEED ?? 7)

async function compare(t: ExecutionContext, m: Mounted): Promise<void> {
  // On the same kind of file system as the served folder.
  const plain = fs.mkdtempSync(join(m.root, '../plain-'))
  t.teardown(() => fs.rmSync(plain, { recursive: true, force: true }))
  const sides = [plain, m.at].map(at => ({ at, folder: openRoot(at), open: [] as (number | null)[] })) as [Side, Side]
  t.teardown(() => {
    for (const { folder, open } of sides) {
      close(folder)
      for (const fd of open) if (fd != null) fs.closeSync(fd)
    }
  })
  const random = generator(SEED)
  const done: string[] = []
  for (let step = 0; step < OPERATIONS; step++) {
    const next = operation(random)
    done.push(next.name)
    const [expected, seen] = [outcome(next, sides[0]), outcome(next, sides[1])]
    if (!same(expected, seen)) {
      t.log(`SEED=${SEED}, after: ${done.slice(-30).join(', ')}`)
      t.deepEqual(seen, expected, `step ${step}: ${next.name}`)
      return
    }
    if (step % 500 === 499) await new Promise(resolve => setImmediate(resolve))
  }
  t.deepEqual(tree(m.at), tree(plain))
  t.deepEqual(tree(m.root), tree(plain))
}

for (const passthrough of process.geteuid?.() === 0 ? [false, true] : [false]) {
  const title = `${OPERATIONS} random operations do there what they do on a disk (SEED=${SEED}${passthrough ? ', files given to the kernel' : ''})`
  if (cannotMount !== null) test.skip(`${title} (skipped: ${cannotMount})`, t => t.fail())
  else
    test.serial(title, async t => {
      t.timeout(3_600_000)
      await compare(t, await mounted(t, { passthrough }))
    })
}
