import { appendFileSync, cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { compareTrees, makeBigFile, makeFiles } from '../../bench/input.ts'

test('a run counts only if what arrived is what was sent, byte by byte', t => {
  const folder = mkdtempSync(join(tmpdir(), 'realize-bench-input-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const [ours, theirs] = [join(folder, 'ours'), join(folder, 'theirs')]
  const small = makeFiles(join(ours, 'small'), 230, 0, 50)
  const big = makeBigFile(join(ours, 'big'), 5_000_000)
  cpSync(ours, theirs, { recursive: true })
  t.deepEqual(compareTrees(ours, theirs), { files: 231, bytes: small.bytes + big.bytes })

  const file = join(theirs, 'big', 'big.bin')
  appendFileSync(file, 'x')
  t.throws(() => compareTrees(ours, theirs), { message: /other size/ })
  rmSync(file)
  t.throws(() => compareTrees(ours, theirs), { message: /has not arrived/ })
  writeFileSync(file, Buffer.alloc(5_000_000))
  t.throws(() => compareTrees(ours, theirs), { message: /other content/ })
  cpSync(join(ours, 'big', 'big.bin'), file)
  writeFileSync(join(theirs, 'stray'), '')
  t.throws(() => compareTrees(ours, theirs), { message: /came from nowhere/ })
})
