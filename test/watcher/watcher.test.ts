/** Real folders, real events; every test waits for what it wants to hear. */
import { execFile } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { hasInotify, subscribeInotify } from '../../actors/watcher/inotify.ts'
import { subscribeParcel } from '../../actors/watcher/parcel.ts'
import { type SourceEvents, type Subscribe, watchFault } from '../../actors/watcher/source.ts'
import { type WatchOptions, watchRoot } from '../../actors/watcher/watcher.ts'

/** What a watcher said, and a way to wait for it. */
class Ear {
  readonly paths: string[] = []
  readonly faults: (string | null)[] = []
  everything = 0
  #waiting: (() => void)[] = []

  readonly on = {
    touched: (paths: string[] | null) => {
      if (paths === null) this.everything++
      else this.paths.push(...paths)
      this.#heard()
    },
    fault: (reason: string | null) => {
      this.faults.push(reason)
      this.#heard()
    },
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>(resolve => this.#waiting.push(resolve))
  }

  path(path: string): Promise<void> {
    return this.until(() => this.paths.includes(path))
  }

  forget(): void {
    this.paths.length = 0
  }

  #heard(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }
}

interface Watched {
  root: string
  ear: Ear
}

async function listen(t: ExecutionContext, options: Partial<WatchOptions> = {}): Promise<Watched> {
  const root = fs.mkdtempSync(join(tmpdir(), 'realize-watch-'))
  fs.mkdirSync(join(root, '.realize/staging'), { recursive: true })
  fs.mkdirSync(join(root, 'folder/below'), { recursive: true })
  const ear = new Ear()
  const watcher = watchRoot(root, { ignored: [], retryMs: 20, ...options }, ear.on)
  t.teardown(async () => {
    await watcher.stop()
    fs.rmSync(root, { recursive: true, force: true })
  })
  await ear.until(() => ear.everything > 0)
  t.deepEqual(ear.faults, [null])
  return { root, ear }
}

const sources: [string, Subscribe][] = [['parcel', subscribeParcel]]
if (hasInotify) sources.push(['inotify', subscribeInotify])

test('inotify is there on Linux', t => {
  t.is(hasInotify, process.platform === 'linux')
})

for (const [kind, subscribe] of sources) {
  test(`${kind}: files that are created, changed, renamed and removed are told by their paths`, async t => {
    const { root, ear } = await listen(t, { subscribe })
    for (const path of ['file', 'folder/file', 'folder/below/new\nline é']) {
      fs.writeFileSync(join(root, path), 'x')
      await ear.path(path)
      ear.forget()
      fs.appendFileSync(join(root, path), 'y')
      await ear.path(path)
      ear.forget()
      fs.renameSync(join(root, path), join(root, 'moved'))
      await ear.path(path)
      await ear.path('moved')
      ear.forget()
      fs.unlinkSync(join(root, 'moved'))
      await ear.path('moved')
    }
  })

  test(`${kind}: our own folder and ignored ones are not told`, async t => {
    const { root, ear } = await listen(t, { subscribe, ignored: ['folder/below'] })
    fs.writeFileSync(join(root, '.realize/staging/slot'), 'x')
    fs.writeFileSync(join(root, 'folder/below/file'), 'x')
    fs.renameSync(join(root, '.realize/staging/slot'), join(root, 'last'))
    await ear.path('last')
    t.deepEqual(
      ear.paths.filter(path => path.startsWith('.realize') || path.startsWith('folder/below')),
      [],
    )
  })

  test(`${kind}: a new folder is told, and what is made in it later`, async t => {
    const { root, ear } = await listen(t, { subscribe })
    fs.mkdirSync(join(root, 'new'))
    await ear.path('new')
    fs.writeFileSync(join(root, 'new/file'), 'x')
    await ear.path('new/file')
    t.pass()
  })

  test(`${kind}: a root that goes away is a fault, and one that comes back is watched again`, async t => {
    const { root, ear } = await listen(t, { subscribe })
    fs.rmSync(root, { recursive: true })
    await ear.until(() => ear.faults.length > 1)
    t.regex(ear.faults[1] ?? '', /missing/)
    const before = ear.everything
    fs.mkdirSync(root)
    await ear.until(() => ear.faults.at(-1) === null && ear.everything > before)
    fs.writeFileSync(join(root, 'file'), 'x')
    await ear.path('file')
  })

  test(`${kind}: a root that is missing or a file is a fault that says so`, async t => {
    const folder = fs.mkdtempSync(join(tmpdir(), 'realize-watch-'))
    fs.writeFileSync(join(folder, 'file'), '')
    for (const [name, reason] of [
      ['none', /missing/],
      ['file', /not a folder|cannot be watched/],
    ] as const) {
      const ear = new Ear()
      const watcher = watchRoot(join(folder, name), { ignored: [], retryMs: 10, retryMsMax: 20, subscribe }, ear.on)
      await ear.until(() => ear.faults.length >= 3)
      t.true(
        ear.faults.every(fault => reason.test(fault ?? '')),
        String(ear.faults),
      )
      await watcher.stop()
    }
    fs.rmSync(folder, { recursive: true })
  })

  test(`${kind}: nothing is told after stop`, async t => {
    const root = fs.mkdtempSync(join(tmpdir(), 'realize-watch-'))
    const ear = new Ear()
    const watcher = watchRoot(root, { ignored: [], subscribe }, ear.on)
    await ear.until(() => ear.everything > 0)
    await watcher.stop()
    // Another one hears what this one must not.
    const other = new Ear()
    const witness = watchRoot(root, { ignored: [], subscribe }, other.on)
    await other.until(() => other.everything > 0)
    fs.writeFileSync(join(root, 'file'), 'x')
    await other.path('file')
    t.deepEqual(ear.paths, [])
    await witness.stop()
    fs.rmSync(root, { recursive: true })
  })
}

const inotifyTest = hasInotify ? test : test.skip

inotifyTest('below a folder that was renamed, or made many levels at once, everything is heard', async t => {
  const { root, ear } = await listen(t)
  fs.mkdirSync(join(root, 'a/b/c/d'), { recursive: true })
  await ear.path('a')
  fs.writeFileSync(join(root, 'a/b/c/d/file'), 'x')
  await ear.path('a/b/c/d/file')
  fs.renameSync(join(root, 'a'), join(root, 'z'))
  await ear.path('z')
  ear.forget()
  fs.writeFileSync(join(root, 'z/b/c/d/file'), 'y')
  await ear.path('z/b/c/d/file')
  t.false(ear.paths.some(path => path.startsWith('a/')))
  fs.mkdirSync(join(root, 'a'))
  fs.renameSync(join(root, 'z/b/c'), join(root, 'a/c'))
  // It came into a folder so new that only that one is told.
  await ear.path('a')
  await ear.path('z/b/c')
  fs.writeFileSync(join(root, 'a/c/d/file'), 'z')
  await ear.path('a/c/d/file')
})

inotifyTest('a folder that is moved out of the root is not heard any more', async t => {
  const { root, ear } = await listen(t)
  const outside = fs.mkdtempSync(join(tmpdir(), 'realize-watch-'))
  fs.renameSync(join(root, 'folder'), join(outside, 'folder'))
  await ear.path('folder')
  ear.forget()
  fs.writeFileSync(join(outside, 'folder/below/file'), 'x')
  fs.writeFileSync(join(root, 'last'), 'x')
  await ear.path('last')
  t.deepEqual([...new Set(ear.paths)], ['last'])
  fs.rmSync(outside, { recursive: true })
})

inotifyTest('a symlink to a folder is told and not entered', async t => {
  const { root, ear } = await listen(t)
  const outside = fs.mkdtempSync(join(tmpdir(), 'realize-watch-'))
  fs.symlinkSync(outside, join(root, 'link'))
  await ear.path('link')
  fs.writeFileSync(join(outside, 'file'), 'x')
  fs.writeFileSync(join(root, 'last'), 'x')
  await ear.path('last')
  t.false(ear.paths.some(path => path.startsWith('link/')))
  fs.rmSync(outside, { recursive: true })
})

inotifyTest('two watchers of one tree both hear, and one goes on when the other stops', async t => {
  const { root, ear } = await listen(t)
  const inner = new Ear()
  const watcher = watchRoot(join(root, 'folder'), { ignored: [] }, inner.on)
  await inner.until(() => inner.everything > 0)
  fs.writeFileSync(join(root, 'folder/below/one'), 'x')
  await Promise.all([ear.path('folder/below/one'), inner.path('below/one')])
  await watcher.stop()
  fs.writeFileSync(join(root, 'folder/below/two'), 'x')
  await ear.path('folder/below/two')
  t.false(inner.paths.includes('below/two'))
})

// Serial: all share one queue, and what the others wait for could be among what is dropped.
const overflowTest = hasInotify ? test.serial : test.skip
overflowTest('when the kernel dropped events everything is looked at, and watched anew', async t => {
  const { root, ear } = await listen(t)
  const events = Number(fs.readFileSync('/proc/sys/fs/inotify/max_queued_events', 'utf8'))
  const before = ear.everything
  // Two names in turn, as equal events in a row are merged; all without giving the reader a turn.
  for (let n = 0; n <= events; n++) fs.chmodSync(join(root, n % 2 === 0 ? 'folder' : 'folder/below'), 0o755)
  fs.mkdirSync(join(root, 'unseen/below'), { recursive: true })
  await ear.until(() => ear.everything > before)
  fs.writeFileSync(join(root, 'unseen/below/file'), 'x')
  await ear.path('unseen/below/file')
  t.pass()
})

test('a source that has run out of watches is a fault that says what to do, and is tried again less and less often', async t => {
  const ear = new Ear()
  const attempts: number[] = []
  const subscribe: Subscribe = () => {
    attempts.push(performance.now())
    return Promise.reject(new Error(watchFault('ENOSPC', '/root')))
  }
  const watcher = watchRoot('/root', { ignored: [], subscribe, retryMs: 5, retryMsMax: 20 }, ear.on)
  await ear.until(() => ear.faults.length >= 4)
  await watcher.stop()
  t.regex(ear.faults[0] ?? '', /max_user_watches/)
  const pauses = attempts.slice(1).map((at, index) => at - (attempts[index] as number))
  t.true((pauses[0] ?? 0) >= 4 && (pauses[1] ?? 0) >= 9 && (pauses[2] ?? 0) >= 19, String(pauses))
})

test('a source that is lost is stopped and begun again', async t => {
  const ear = new Ear()
  let source: SourceEvents | undefined
  let stops = 0
  const subscribe: Subscribe = async (_root, ignored, on) => {
    t.deepEqual(ignored, ['.realize', 'skip'])
    source = on
    return {
      stop: async () => {
        stops++
      },
    }
  }
  const watcher = watchRoot('/root', { ignored: ['skip'], subscribe, retryMs: 1 }, ear.on)
  await ear.until(() => ear.faults.length === 1)
  source?.lost('gone')
  await ear.until(() => ear.faults.length === 3)
  t.deepEqual(ear.faults, [null, 'gone', null])
  t.is(stops, 1)
  await watcher.stop()
  t.is(stops, 2)
})

inotifyTest('a process that forgets to stop its watcher can still exit', async t => {
  const root = fs.mkdtempSync(join(tmpdir(), 'realize-watch-'))
  const module = new URL('../../actors/watcher/watcher.js', import.meta.url).href
  const code = `
    const { watchRoot } = await import(${JSON.stringify(module)})
    watchRoot(${JSON.stringify(root)}, { ignored: [] }, { fault() {}, touched() { setImmediate(() => process.exit(7)) } })
  `
  const error = await t.throwsAsync(
    promisify(execFile)(process.execPath, ['--input-type=module', '-e', code], { timeout: 20_000 }),
  )
  t.is((error as { code?: unknown }).code, 7)
  fs.rmSync(root, { recursive: true })
})
