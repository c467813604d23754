/** What a peer with a valid key can do with bytes: lengths, frames without end, floods, deafness. */
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { hashLeaves, hashSmall, rootOf } from '../../actors/hasher/merkle.ts'
import { Stage, until } from './_stage.ts'

const cleanings: (() => unknown)[] = []
let stage: Stage

test.before(async () => {
  stage = await Stage.open({ teardown: undo => cleanings.unshift(undo) })
})
test.after.always(async () => {
  for (const undo of cleanings) await undo()
})

function lengths(header: number, payload: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32BE(header >>> 0, 0)
  bytes.writeUInt32BE(payload >>> 0, 4)
  return bytes
}

/** Lengths are unsigned and 32 bits wide: −1 is the greatest of them, and 2⁵³ cannot be said: its low or its high half is. */
const wrongLengths: [string, Buffer, string][] = [
  ['a header of −1 bytes', lengths(-1, 0), 'limit_exceeded'],
  ['a payload of −1 bytes', lengths(2, -1), 'limit_exceeded'],
  ['a header of 0 bytes', lengths(0, 0), 'frame_invalid'],
  ['a header of 2³¹−1 bytes', lengths(2 ** 31 - 1, 0), 'limit_exceeded'],
  ['a payload of 2³¹−1 bytes', lengths(2, 2 ** 31 - 1), 'limit_exceeded'],
  ['a length of 2⁵³, its high half first', lengths(2 ** 21, 0), 'frame_invalid'],
  ['a length of 2⁵³ in little endian', lengths(0, 0x2000), 'frame_invalid'],
  ['one byte more than a header may have', lengths(2 * 1024 * 1024 + 1, 0), 'limit_exceeded'],
]

test.serial('a length that cannot be is refused before anything is allocated for it', async t => {
  const before = stage.cost()
  for (const [what, bytes, code] of wrongLengths) {
    const mallory = await stage.mallory()
    mallory.socket.write(bytes)
    // 2⁵³ begins with a header of 2 MiB, which is allowed: it is refused for what it holds.
    if (bytes.readUInt32BE(0) === 2 ** 21) mallory.socket.write(Buffer.alloc(2 ** 21))
    t.is(await mallory.refused(), code, what)
  }
  await stage.unharmed(t, before)
})

test.serial('a header and a frame that never end hold no more than they may hold', async t => {
  const before = stage.cost()
  const ping = Buffer.from(JSON.stringify({ type: 'ping', id: 1 }))
  // One connection stays of each peer: the next one takes the place of the one before.
  for (const beginning of [lengths(2 * 1024 * 1024, 0), Buffer.concat([lengths(ping.length, 2 * 1024 * 1024), ping])]) {
    const mallory = await stage.mallory()
    mallory.socket.write(beginning)
    for (let part = 0; part < 15; part++) mallory.socket.write(Buffer.alloc(128 * 1024, ' '))
    await stage.undisturbed()
    t.true(stage.cost().rssMiB - before.rssMiB < 60)
    await mallory.leave()
  }
  await stage.unharmed(t, before)
})

test.serial('ten thousand requests at once are a breach: the sixty-fifth closes the connection', async t => {
  const before = stage.cost()
  const { mallory } = await stage.guest()
  const hash = 'ab'.repeat(32)
  const frames: Buffer[] = []
  for (let id = 1; id <= 10_000; id++) {
    const json = JSON.stringify({ type: 'fetch_leaves', arena: 'docs', id, hash, from: 0, count: 64, urgent: true })
    frames.push(lengths(json.length, 0), Buffer.from(json))
  }
  mallory.socket.write(Buffer.concat(frames))
  t.is(await mallory.refused(), 'limit_exceeded')
  await stage.logged('peer_refused', { code: 'limit_exceeded', reason: 'more than 64 requests at once' })
  await stage.unharmed(t, before)
})

test.serial('who asks for much and reads nothing is cut when 64 MiB of answers wait', async t => {
  const before = stage.cost()
  const pieces = 64
  const bytes = randomBytes(100_000)
  const hashes: string[] = []
  for (let piece = 0; piece < pieces; piece++) {
    bytes.writeUInt32BE(piece)
    hashes.push(hashSmall(bytes))
    writeFileSync(join(stage.root, `piece-${piece}`), bytes)
  }
  await stage.household.settled([stage.alice, stage.bob])
  const { mallory } = await stage.guest()
  mallory.socket.pause()
  // Each answer is a pack of nearly 2 MiB, 64 of them may be open.
  for (let id = 1; id <= 64; id++)
    mallory.say({ type: 'fetch_blobs', arena: 'docs', id, hashes: hashes.slice(id % 30, (id % 30) + 21) })
  await stage.logged('peer_refused', { code: 'limit_exceeded', reason: 'goes on asking and does not read' })
  t.true(stage.cost().rssMiB - before.rssMiB < 300)
  await mallory.leave()
  await stage.unharmed(t, before, 200)
})

test.serial('a flood of pings that nobody reads the answers of ends with the connection', async t => {
  const before = stage.cost()
  const mallory = await stage.mallory()
  mallory.socket.pause()
  const json = JSON.stringify({ type: 'ping', id: 1 })
  const pings = Buffer.concat(Array.from({ length: 2000 }, () => [lengths(json.length, 0), Buffer.from(json)]).flat())
  for (let sent = 0; sent < 400_000 && !mallory.socket.destroyed; sent += 2000) {
    mallory.socket.write(pings)
    await mallory.drained()
  }
  await stage.logged('peer_refused', { code: 'limit_exceeded', reason: 'goes on asking and does not read' })
  await mallory.leave()
  await stage.unharmed(t, before, 200)
})

test.serial(
  'a flood of messages waits at the sender: alice takes what she gets through, and stays as large as she was',
  async t => {
    const before = stage.cost()
    const { mallory, reader } = await stage.guest()
    // Unchanged entries in batches without end, and nobody waits for an acknowledgement.
    const entries = Array.from({ length: 500 }, (_, i) =>
      mallory.entry(`flood/${i}/${'x'.repeat(200)}`, { type: 'gone' }),
    )
    let most = 0
    let sent = 0
    for (let batch = 0; batch < 150; batch++) {
      if (!mallory.feed(reader, entries)) await mallory.drained()
      sent += entries.length
      most = Math.max(most, stage.cost().rssMiB)
    }
    const ms = await stage.undisturbed()
    await mallory.acknowledged(mallory.fed)
    t.log(`${sent} entries, ${most} MiB at most, an edit took ${Math.round(ms)} ms meanwhile`)
    t.true(most - before.rssMiB < 200, `memory grew from ${before.rssMiB} to ${most} MiB`)
    await mallory.leave()
    await stage.unharmed(t, before)
  },
)

test.serial('a killed connection thread leaves no descriptor behind', async t => {
  const content = randomBytes(12 * 1024 * 1024)
  writeFileSync(join(stage.root, 'large'), content)
  await stage.household.settled([stage.alice, stage.bob])
  const before = stage.cost()
  const leaves = hashLeaves(content)
  for (let round = 0; round < 2; round++) {
    const { mallory } = await stage.guest()
    mallory.socket.pause()
    // Each of these keeps the file open until it has been sent, which it cannot be.
    for (let id = 1; id <= 40; id++)
      mallory.say({
        type: 'fetch_leaves',
        arena: 'docs',
        id,
        hash: rootOf(content.length, leaves),
        from: 0,
        count: 64,
        urgent: false,
      })
    await until('the file is open many times', 10_000, () => stage.cost().descriptors > before.descriptors + 30)
    for (const name of ['peer-1', 'peer-2']) await stage.alice.call('debug_kill_thread', { name })
    await mallory.leave()
    await stage.household.together([stage.alice, stage.bob])
    await stage.descriptorsBack(before)
  }
  await stage.undisturbed()
  t.pass()
})
