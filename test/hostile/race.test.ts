/**
 * The race for a way out of the root: somebody on this machine swaps a folder with a symlink to a place outside, without pause, while
 * what a peer sends is put into that folder.
 */
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { DiskError } from '../../actors/arena/disk.ts'
import { openDisk } from '../../actors/arena/disk-open.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { within } from '../_deadline.ts'
import { temporaryFolder } from '../_temp.ts'
import { Stage, until } from './_stage.ts'

/** Exchanges two names in a tight loop, in one step each; counts how often into the first of two shared integers until the second is set. */
const SWAPPER = `
  const koffi = require('koffi')
  const { workerData } = require('node:worker_threads')
  const { a, b, shared } = workerData
  const rename = koffi.load(null).func('int renameat2(int from, const char *path, int to, const char *name, unsigned int flags)')
  while (Atomics.load(shared, 1) === 0) if (rename(-100, a, -100, b, 2) === 0) Atomics.add(shared, 0, 1)
`

interface Swapper {
  readonly swaps: number
  stop(): Promise<void>
}

function swap(a: string, b: string): Swapper {
  const shared = new Int32Array(new SharedArrayBuffer(8))
  const worker = new Worker(SWAPPER, { eval: true, workerData: { a, b, shared } })
  const ended = new Promise<void>((resolve, reject) => {
    worker.once('exit', () => resolve())
    worker.once('error', reject)
  })
  return {
    get swaps() {
      return Atomics.load(shared, 0)
    },
    async stop() {
      Atomics.store(shared, 1, 1)
      await within(10_000, 'the swapper ends', ended)
    },
  }
}

/** Everything in a folder, with what a write or a look through it would change. */
function pictureOf(folder: string): string[] {
  const { mtimeNs, ctimeNs } = statSync(folder, { bigint: true })
  return [
    `${mtimeNs} ${ctimeNs}`,
    ...readdirSync(folder).map(name => {
      const place = join(folder, name)
      const stat = statSync(place, { bigint: true })
      return `${name} ${stat.mtimeNs} ${stat.ctimeNs} ${stat.mode} ${readFileSync(place, 'utf8')}`
    }),
  ]
}

const TRIES = 10_000

test.serial(
  'ten thousand times each step of the disk meets a folder that is just being swapped for a symlink',
  async t => {
    const folder = temporaryFolder(t)
    const root = join(folder, 'root')
    const outside = join(folder, 'outside')
    mkdirSync(join(root, 'dir'), { recursive: true })
    mkdirSync(outside)
    writeFileSync(join(outside, 'file'), 'untouched')
    symlinkSync(outside, join(root, 'link'))
    const disk = openDisk(root)
    t.teardown(() => disk.dispose())
    const before = pictureOf(outside)
    const swapper = swap(join(root, 'dir'), join(root, 'link'))
    await until('it swaps', 20_000, () => swapper.swaps > 0)
    const path = 'dir/file' as EntryPath
    let [went, stopped] = [0, 0]
    const attempt = (step: () => void) => {
      try {
        step()
        went++
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
        stopped++
      }
    }
    for (let tried = 0; tried < TRIES; tried++) {
      const slot = `s-${tried}`
      disk.stageFile(slot, Buffer.from('from a peer'), 1n, true)
      attempt(() => disk.place(slot, path, null))
      const stat = (() => {
        try {
          return disk.stat(path)
        } catch {
          return null
        }
      })()
      if (stat?.type === 'file') {
        attempt(() => disk.setMeta(path, stat, BigInt(tried), tried % 2 === 0))
        attempt(() => disk.place(slot, path, stat))
        attempt(() => disk.takeOut(path, slot, stat))
      }
      attempt(() => disk.makeFolder('dir/sub' as EntryPath))
      attempt(() => disk.removeFolder('dir/sub' as EntryPath))
      disk.stageRemove(slot)
    }
    await swapper.stop()
    t.log(`${TRIES} rounds, ${went} steps done, ${stopped} refused, ${swapper.swaps} swaps`)
    t.true(went > 100, 'some went into the folder')
    t.true(stopped > 100, 'some met the link')
    t.true(swapper.swaps > TRIES / 10)
    t.deepEqual(pictureOf(outside), before)
  },
)

test.serial(
  'a thousand files of a hostile peer are put below a folder that is being swapped, and none gets out',
  async t => {
    const stage = await Stage.open(t)
    const outside = join(stage.household.folder, 'outside')
    mkdirSync(outside)
    writeFileSync(join(outside, 'file-1'), 'untouched')
    mkdirSync(join(stage.root, 'dir'))
    // Beside the root, on the same disk: the swap itself is what alice sees.
    const link = join(stage.household.folder, 'link')
    symlinkSync(outside, link)
    const { mallory, reader } = await stage.guest()
    const before = pictureOf(outside)
    const swapper = swap(join(stage.root, 'dir'), link)
    await until('it swaps', 20_000, () => swapper.swaps > 0)
    let asked = 0
    mallory.onRequest = request => {
      if (request.type === 'fetch_blobs') asked += (request.hashes as string[]).length
      return false
    }
    const files = 1000
    for (let file = 0; file < files; file += 500) {
      const entries = Array.from({ length: 500 }, (_, i) => mallory.file(`dir/file-${file + i}`, `number ${file + i}`))
      if (!mallory.feed(reader, entries)) await mallory.drained()
    }
    await until(
      () => `content was asked for ${asked} times`,
      60_000,
      () => asked >= files / 2,
    )
    await mallory.acknowledged(mallory.fed)
    const swaps = swapper.swaps
    await swapper.stop()
    await mallory.leave()
    t.log(`${asked} times content was brought, ${swaps} swaps`)
    t.true(swaps > 1000)
    t.deepEqual(pictureOf(outside), before)
    t.true(stage.alice.isRunning)
    await stage.undisturbed()
  },
)
