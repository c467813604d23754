/** Hashing real files in real threads. */
import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import test from 'ava'
import { hashLeaves } from '../../actors/hasher/merkle.ts'
import { createHasherPool, type HasherPool } from '../../actors/hasher/pool.ts'
import hashAll from '../../actors/hasher/worker.ts'
import { LEAF_BYTES } from '../../protocol/limits.ts'
import type { HashTask } from '../../protocol/ports.ts'

function makeFolder(t: { teardown(clean: () => void): void }): string {
  const folder = fs.mkdtempSync(join(tmpdir(), 'realize-hash-'))
  t.teardown(() => fs.rmSync(folder, { recursive: true, force: true }))
  return folder
}

function makePool(t: { teardown(clean: () => Promise<void>): void }, worker?: URL): HasherPool {
  const pool = worker === undefined ? createHasherPool(2) : createHasherPool(2, worker)
  t.teardown(() => pool.close())
  return pool
}

/** The whole file, unless it is said otherwise. */
function taskOf(path: string, change: Partial<HashTask> = {}): HashTask {
  const { size, mtimeNs, ino } = fs.lstatSync(path, { bigint: true })
  return { path, from: 0, count: Math.ceil(Number(size) / LEAF_BYTES), size: Number(size), mtimeNs, ino, ...change }
}

test('files are hashed, in the order of the tasks, whole and in parts', async t => {
  const folder = makeFolder(t)
  const content = Buffer.alloc(20 * LEAF_BYTES + 77, 'some content ')
  const path = join(folder, 'file')
  fs.writeFileSync(path, content)
  fs.writeFileSync(join(folder, 'empty'), '')
  const small = Array.from({ length: 200 }, (_, n) => join(folder, `small-${n}`))
  for (const name of small) fs.writeFileSync(name, name)
  const tasks = [
    taskOf(path),
    taskOf(path, { from: 3, count: 2 }),
    taskOf(path, { from: 20, count: 100 }),
    taskOf(path, { from: 50, count: 1 }),
    taskOf(join(folder, 'empty')),
    ...small.map(name => taskOf(name)),
  ]
  const results = await makePool(t).run(tasks)
  const expected = [
    hashLeaves(content),
    hashLeaves(content.subarray(3 * LEAF_BYTES, 5 * LEAF_BYTES)),
    hashLeaves(content.subarray(20 * LEAF_BYTES)),
    new Uint8Array(0),
    new Uint8Array(0),
    ...small.map(name => hashLeaves(Buffer.from(name))),
  ]
  t.deepEqual(
    results,
    expected.map(leaves => ({ leaves })),
  )
})

test('a file that is not what the task says is changed', t => {
  const folder = makeFolder(t)
  const path = join(folder, 'file')
  fs.writeFileSync(path, 'content')
  fs.symlinkSync('file', join(folder, 'link'))
  fs.mkdirSync(join(folder, 'folder'))
  execFileSync('mkfifo', [join(folder, 'pipe')])
  const task = taskOf(path)
  const others = [
    { size: 8 },
    { mtimeNs: task.mtimeNs + 1n },
    { ino: task.ino + 1n },
    { path: join(folder, 'none') },
    { path: join(folder, 'link') },
    { path: join(folder, 'folder') },
    { path: join(folder, 'pipe') },
    { path: join(path, 'below') },
  ]
  t.deepEqual(
    hashAll(others.map(other => ({ ...task, ...other }))),
    others.map(() => ({ changed: true })),
  )
})

test('a file that changes while it is hashed is changed, or hashed as it was', async t => {
  const folder = makeFolder(t)
  const path = join(folder, 'file')
  const content = Buffer.alloc(256 * LEAF_BYTES, 1)
  fs.writeFileSync(path, content)
  const task = taskOf(path)
  const pool = makePool(t)
  const [first] = await pool.run([task])
  const running = pool.run([task])
  const fd = fs.openSync(path, 'r+')
  let done = false
  const result = running.then(results => {
    done = true
    return results[0]
  })
  // Writes as long as it is being hashed; the last leaf first, so that nothing but the stat can tell.
  for (let at = content.length - 1; !done && at > 0; at -= LEAF_BYTES) {
    fs.writeSync(fd, Buffer.of(2), 0, 1, at)
    await new Promise(resolve => setImmediate(resolve))
  }
  fs.closeSync(fd)
  const found = await result
  t.deepEqual(found, found !== undefined && 'leaves' in found ? first : { changed: true })
  t.deepEqual(await pool.run([task]), [{ changed: true }])
})

test('a file that cannot be read is a failure, and the others are hashed', async t => {
  const folder = makeFolder(t)
  fs.writeFileSync(join(folder, 'file'), 'x')
  const task = taskOf(join(folder, 'file'))
  const results = await makePool(t).run([{ ...task, path: `${folder}/${'x'.repeat(300)}` }, task])
  t.like(results[0], { failure: { code: 'disk_failed' } })
  t.deepEqual(results[1], { leaves: hashLeaves(Buffer.from('x')) })
})

test('a batch whose thread dies is tried once more, then failed, and the pool goes on', async t => {
  const folder = makeFolder(t)
  const file = join(folder, 'worker.mjs')
  // Dies for a task of size 13, each time after saying so in a file.
  fs.writeFileSync(
    file,
    `import { appendFileSync } from 'node:fs'
     export default tasks => {
       if (tasks[0].size === 13) { appendFileSync(${JSON.stringify(join(folder, 'deaths'))}, 'x'); process.exit(1) }
       return tasks.map(() => ({ leaves: new Uint8Array(0) }))
     }`,
  )
  const pool = makePool(t, pathToFileURL(file))
  const task: HashTask = { path: '', from: 0, count: 0, size: 13, mtimeNs: 0n, ino: 0n }
  const [dead] = await pool.run([task])
  t.like(dead, { failure: { code: 'internal' } })
  t.is(fs.readFileSync(join(folder, 'deaths'), 'utf8'), 'xx')
  t.deepEqual(await pool.run([{ ...task, size: 1 }]), [{ leaves: new Uint8Array(0) }])
})

test('work whose threads cannot start is failed, and done once they can', async t => {
  const folder = makeFolder(t)
  const file = join(folder, 'worker.mjs')
  const broken = join(folder, 'broken')
  fs.writeFileSync(broken, '')
  fs.writeFileSync(
    file,
    `import { existsSync } from 'node:fs'
     if (existsSync(${JSON.stringify(broken)})) throw new Error('no descriptors')
     export default tasks => tasks.map(() => ({ leaves: new Uint8Array(0) }))`,
  )
  const pool = makePool(t, pathToFileURL(file))
  const task: HashTask = { path: '', from: 0, count: 64, size: 1, mtimeNs: 0n, ino: 0n }
  const results = await pool.run([task, task, task, task])
  t.is(results.length, 4)
  for (const result of results) t.like(result, { failure: { code: 'internal' } })
  fs.rmSync(broken)
  t.deepEqual(await pool.run([task]), [{ leaves: new Uint8Array(0) }])
})

test('a pool that is closed rejects what it had not finished, and an empty list is nothing to do', async t => {
  const pool = createHasherPool(1)
  t.deepEqual(await pool.run([]), [])
  await pool.close()
  await t.throwsAsync(pool.run([{ path: '', from: 0, count: 1, size: 1, mtimeNs: 0n, ino: 0n }]))
})
