/** Programs of every day go through a mount in which nothing is here: all is found, read, changed, and the same everywhere afterwards. */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { temporaryFolder } from '../_temp.ts'
import { arenaName } from '../system/_household.ts'
import { onMount } from '../view/_arenas.ts'
import { buildWorld, same, shell, smallPath, smallText } from './_world.ts'

const MIB = 1024 * 1024
const LIMIT_MS = 240_000
const FILES = 2000
const VIDEO_BYTES = 256 * MIB

onMount('thousands of files and a video that are not here: found, listed, read, copied, moved and deleted', async t => {
  t.timeout(LIMIT_MS)
  const world = await buildWorld(t, temporaryFolder(t), { files: FILES, videoBytes: VIDEO_BYTES }, LIMIT_MS)
  const { household, guest, there, alsoThere, docs } = world
  const inMount = (command: string) => shell(command, docs, household.folder, LIMIT_MS)
  const inRoot = (command: string) => shell(command, there, household.folder, LIMIT_MS)
  const asThere = async (command: string) => t.is(await inMount(command), await inRoot(command), command)
  t.is((await guest.arena('docs')).path, null)

  await asThere('find . -path ./.realize -prune -o -type f -printf "%p %s %m %T@\\n" | sort')
  await asThere('ls -lR year-1* | grep -c ^-')
  t.is((await inMount('find . -type f | wc -l')).trim(), String(FILES + 1))
  t.is((await inMount('du -a . | wc -l')).trim(), (await inMount('find . | wc -l')).trim())
  t.is((await guest.arena('docs')).cachedBytes, 0, 'looking fetches nothing')

  const part = Buffer.alloc(300 * 1024)
  const fd = fs.openSync(join(docs, 'video'), 'r')
  t.is(fs.readSync(fd, part, 0, part.length, VIDEO_BYTES / 2 + MIB), part.length)
  fs.closeSync(fd)
  t.true(part.equals(world.middle.subarray(MIB, MIB + part.length)))
  const { cachedBytes } = await guest.untilArena('has cached it', 'docs', status => status.cachedBytes > 0)
  t.true(cachedBytes < 8 * MIB, `${cachedBytes} bytes of a video for ${part.length}`)

  await asThere('grep -rh ^needle year-00 | sort')
  await asThere('cat year-01/*/file-21')
  for (const copy of [
    'cp -r year-02 $OUT/copy',
    'rsync -a year-03 $OUT/copy/',
    'tar -cf - year-04 | tar -xf - -C $OUT/copy',
  ])
    await inMount(copy)
  for (const [year, copied] of [
    ['year-02', 'copy/'],
    ['year-03', 'copy/year-03'],
    ['year-04', 'copy/year-04'],
  ])
    await inRoot(`diff -r ${year} $OUT/${copied} --exclude=year-*`)
  const { problemCount } = await guest.call('fetch', { arena: arenaName('docs'), path: 'year-05' })
  t.is(problemCount, 0)
  t.is((await guest.arena('docs')).realBytes, 0, 'reading makes nothing real')

  await inMount('rsync -a $OUT/copy/year-03/ in-03/ && cp -r year-05 in-05 && mv year-06 moved-06 && rm -r year-07')
  await household.settled(household.peers, 'docs', LIMIT_MS / 1000)
  t.false(fs.existsSync(join(there, 'year-07')))
  t.is(fs.readFileSync(join(there, smallPath(6).replace('year-', 'moved-')), 'utf8'), smallText(6))
  await inRoot('diff -r year-03 in-03 && diff -r year-05 in-05')
  await same(t, docs, there, alsoThere)
  t.deepEqual((await guest.call('conflicts', { arena: arenaName('docs') })).conflicts, [])
})
