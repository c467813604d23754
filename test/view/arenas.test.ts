/** The arenas of a service, mounted: every one a folder, as long as the service runs and after it has started again. */
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import type { StatusResult } from '../../protocol/control.ts'
import { eventually, householdWithMount, mountOn, namesIn, onMount } from './_arenas.ts'

const isThere = (status: StatusResult) => status.mounts.length === 1 && status.mounts[0]!.state === 'mounted'

onMount('every arena is a folder of the mount, as arenas come and go', async t => {
  const { household, at } = householdWithMount(t)
  const peer = await household.peer('alice')
  const docs = await household.share(peer, 'docs')
  fs.writeFileSync(join(docs, 'there'), 'before')
  const mounted = await peer.realize('mount', at)
  t.is(mounted.stderr, '')
  t.is(mounted.stdout, `mounted on ${at}\n`)
  const photos = await household.share(peer, 'photos')
  await eventually('the new arena is there, too', () => String(namesIn(at)) === 'docs,photos')
  t.is(fs.readFileSync(join(at, 'docs/there'), 'utf8'), 'before')
  fs.mkdirSync(join(at, 'photos/2024/summer'), { recursive: true })
  fs.writeFileSync(join(at, 'photos/2024/summer/beach'), 'sand')
  t.is(fs.readFileSync(join(photos, '2024/summer/beach'), 'utf8'), 'sand')
  t.deepEqual(namesIn(join(at, 'docs')), ['there'], 'our own folder is not shown')
  await peer.call('wait', { timeoutSeconds: 30 })
  const { entries } = await peer.call('ls', { arena: 'photos' as never, path: '2024/summer' })
  t.deepEqual(
    entries.map(entry => entry.path as string),
    ['2024/summer/beach'],
  )
  await peer.call('arena_remove', { name: 'docs' as never })
  await eventually('the arena that was removed is gone', () => String(namesIn(at)) === 'photos')
  t.is(namesIn(join(at, 'docs')), 'ENOENT')
  t.is((await peer.realize('umount', at)).code, 0)
  t.deepEqual(namesIn(at), [])
  t.true(fs.existsSync(join(photos, '2024/summer/beach')))
  t.is((await peer.realize('umount', at)).code, 1)
})

onMount(
  'nothing can be made beside the arenas or in place of what is ours, and files are copied between them',
  async t => {
    const { household, at } = householdWithMount(t)
    const peer = await household.peer('alice')
    await household.share(peer, 'docs')
    await household.share(peer, 'photos')
    await mountOn(peer, at)
    const code = (action: () => unknown) => t.throws<NodeJS.ErrnoException>(() => void action())?.code
    t.is(
      code(() => fs.mkdirSync(join(at, 'more'))),
      'EPERM',
    )
    t.is(
      code(() => fs.writeFileSync(join(at, 'file'), '')),
      'EPERM',
    )
    t.is(
      code(() => fs.rmdirSync(join(at, 'docs'))),
      'EPERM',
    )
    t.is(
      code(() => fs.renameSync(join(at, 'docs'), join(at, 'other'))),
      'EPERM',
    )
    t.is(
      code(() => fs.mkdirSync(join(at, 'docs/.realize'))),
      'EPERM',
    )
    t.is(
      code(() => fs.statSync(join(at, 'docs/.Realize'))),
      'ENOENT',
    )
    fs.writeFileSync(join(at, 'docs/file'), 'content')
    t.is(
      code(() => fs.renameSync(join(at, 'docs/file'), join(at, 'photos/file'))),
      'EXDEV',
    )
    t.is(
      code(() => fs.linkSync(join(at, 'docs/file'), join(at, 'photos/file'))),
      'EXDEV',
    )
    fs.copyFileSync(join(at, 'docs/file'), join(at, 'photos/file'))
    t.is(fs.readFileSync(join(at, 'photos/file'), 'utf8'), 'content')
    t.true(fs.statfsSync(at).blocks > 0)
  },
)

onMount('a mount is refused where it would show itself, and so is an arena', async t => {
  const { household, at } = householdWithMount(t)
  const peer = await household.peer('alice')
  const docs = await household.share(peer, 'docs')
  fs.mkdirSync(join(docs, 'below'))
  fs.mkdirSync(join(household.folder, 'full'))
  fs.writeFileSync(join(household.folder, 'full/file'), '')
  fs.symlinkSync(join(docs, 'below'), join(household.folder, 'link'))
  for (const place of [
    docs,
    join(docs, 'below'),
    join(docs, 'new'),
    household.folder,
    join(household.folder, 'link'),
  ]) {
    const refused = await peer.realize('mount', place)
    t.is(refused.code, 2, place)
    t.regex(refused.stderr, /must not be inside each other/)
  }
  t.false(fs.existsSync(join(docs, 'new')))
  t.regex((await peer.realize('mount', join(household.folder, 'full'))).stderr, /is not empty/)
  t.deepEqual((await peer.call('status', {})).mounts, [])
  await mountOn(peer, at)
  t.regex((await peer.realize('mount', at)).stderr, /mounted on .* already/)
  for (const path of [join(at, 'docs/inner'), join(at, 'docs'), at]) {
    const refused = await peer.realize('arena', 'add', 'more', path)
    t.is(refused.code, 1, path)
    t.regex(refused.stderr, /must not be inside each other/)
  }
  t.deepEqual(fs.readdirSync(docs).sort(), ['.realize', 'below'])
})

onMount('a mount ends with the service and is there again after it has started, also after a kill', async t => {
  const { household, at } = householdWithMount(t)
  const peer = await household.peer('alice')
  const docs = await household.share(peer)
  fs.writeFileSync(join(docs, 'file'), 'content')
  await mountOn(peer, at)
  t.is(fs.readFileSync(join(at, 'docs/file'), 'utf8'), 'content')
  const fd = fs.openSync(join(at, 'docs/file'), 'r+')
  const { code, ms } = await peer.stop()
  t.is(code, 0)
  t.true(ms < 10_000, `${ms} ms`)
  t.deepEqual(namesIn(at), [])
  fs.closeSync(fd)
  await peer.start()
  t.is(fs.readFileSync(join(at, 'docs/file'), 'utf8'), 'content')
  await peer.kill()
  t.is(namesIn(at), 'ENOTCONN')
  await peer.start()
  t.is(fs.readFileSync(join(at, 'docs/file'), 'utf8'), 'content')
  t.true(isThere(await peer.call('status', {})))
  await peer.call('umount', { path: at })
  await peer.stop()
  await peer.start()
  t.deepEqual((await peer.call('status', {})).mounts, [])
})

onMount('the death of the view’s thread harms nothing else, and the mount is healed', async t => {
  const { household, at } = householdWithMount(t)
  const peer = await household.peer('alice')
  const docs = await household.share(peer)
  await mountOn(peer, at)
  fs.writeFileSync(join(at, 'docs/file'), 'content')
  const open = fs.openSync(join(at, 'docs/file'), 'r+')
  const descriptors = () => fs.readdirSync(`/proc/${peer.pid}/fd`).length
  const { actors } = await peer.call('status', {})
  const { name } = actors.find(actor => actor.name.startsWith('view-'))!
  const before = descriptors()
  await peer.call('debug_kill_thread', { name })
  await peer.until('it is mounted again', status => isThere(status) && restarts(status, name) === 1)
  t.is(fs.readFileSync(join(at, 'docs/file'), 'utf8'), 'content')
  fs.closeSync(open)
  fs.writeFileSync(join(at, 'docs/file'), 'again')
  t.is(fs.readFileSync(join(docs, 'file'), 'utf8'), 'again')
  await eventually('no descriptor is left behind', () => descriptors() <= before)
  t.deepEqual(
    (await peer.call('status', {})).actors.filter(actor => actor.restarts > 0).map(actor => actor.name),
    [name],
  )
})

onMount('an arena’s thread that dies is waited for, and what is real is served meanwhile', async t => {
  const { household, at } = householdWithMount(t)
  const peer = await household.peer('alice')
  const docs = await household.share(peer)
  await mountOn(peer, at)
  fs.writeFileSync(join(at, 'docs/file'), 'content')
  for (let round = 1; round <= 3; round++) {
    await peer.call('debug_kill_thread', { name: 'arena-docs' })
    t.is(fs.readFileSync(join(at, 'docs/file'), 'utf8'), 'content')
    fs.writeFileSync(join(at, `docs/new-${round}`), 'new')
    t.is(namesIn(join(at, 'docs')).length, 1 + round)
    await peer.until('the arena is back', status => restarts(status, 'arena-docs') === round)
  }
  t.is(fs.readFileSync(join(docs, 'new-3'), 'utf8'), 'new')
})

onMount('who takes the mount away ends it', async t => {
  const { household, at } = householdWithMount(t)
  const peer = await household.peer('alice')
  await household.share(peer)
  await mountOn(peer, at)
  t.is(spawnSync('umount', [at]).status ?? spawnSync('fusermount3', ['-u', at]).status, 0)
  await peer.until('the mount is forgotten', status => status.mounts.length === 0)
  await peer.stop()
  await peer.start()
  t.deepEqual((await peer.call('status', {})).mounts, [])
})

function restarts(status: StatusResult, name: string): number {
  return status.actors.find(actor => actor.name === name)?.restarts ?? 0
}
