import test from 'ava'
import fc from 'fast-check'
import { Bucket } from '../../actors/peer/bucket.ts'
import { parseAddress } from '../../actors/peer/connection.ts'
import { Outbox, QUEUE_BYTES_MAX } from '../../actors/peer/outbox.ts'
import * as machine from '../../actors/peer/peer.ts'
import { type Channel, pairProof, proofsEqual, proven } from '../../actors/peer/verify.ts'
import { SyncError } from '../../protocol/error.ts'
import type { ArenaName, BlobHash } from '../../protocol/ids.ts'
import { ARENAS_MAX, LEAF_BYTES, REQUESTS_MAX, ROLLING_BYTES, SIGNATURE_BLOCKS_MAX } from '../../protocol/limits.ts'
import { peerIdOf } from '../../protocol/peer-id.ts'
import type { WireMessage } from '../../protocol/wire.ts'

const alice = peerIdOf(new Uint8Array(32).fill(1))
const bob = peerIdOf(new Uint8Array(32).fill(2))
const docs = 'docs' as ArenaName
const hash = 'ab'.repeat(32) as BlobHash
const self = { id: alice, name: 'alice', software: 'test', addresses: [] }
const hello = {
  type: 'hello' as const,
  versions: { min: 1, max: 1 },
  name: 'bob',
  software: '',
  purpose: 'sync' as const,
  addresses: [],
}

/** A connection that alice accepted from bob, open at 0 ms. */
function opened(versions = hello.versions): machine.Peer {
  const purpose = { is: 'accept' as const, address: 'loopback', household: new Set([bob]), invites: [] }
  const peer = machine.openPeer(self, purpose, machine.DEADLINES, 0)
  drain(machine.secured(peer, bob, new Uint8Array(32), 0))
  drain(heard(peer, { ...hello, versions }))
  return peer
}

function heard(peer: machine.Peer, message: WireMessage, payload?: Uint8Array): Iterable<machine.PeerOutput> {
  return machine.heard(peer, message, payload, 0)
}

function drain(outputs: Iterable<machine.PeerOutput>): machine.PeerOutput[] {
  return [...outputs]
}

function codeOf(work: () => unknown): string | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    return error instanceof SyncError ? error.code : String(error)
  }
}

const order = { id: 1, hash, size: 10 * LEAF_BYTES + 5, from: 3, count: 8, urgent: false }

test('a versions table: who must be updated is the same on both sides', t => {
  const check = (theirs: { min: number; max: number }, ours: { min: number; max: number }) => {
    try {
      machine.checkVersions({ versions: theirs, name: 'bob' }, 'alice', ours)
      return 'fine'
    } catch (error) {
      return /update Realize on '(\w+)'/.exec((error as Error).message)?.[1] ?? (error as SyncError).code
    }
  }
  t.is(check({ min: 1, max: 3 }, { min: 3, max: 5 }), 'fine')
  t.is(check({ min: 1, max: 2 }, { min: 3, max: 5 }), 'bob')
  t.is(check({ min: 6, max: 9 }, { min: 3, max: 5 }), 'alice')
  t.is(check({ min: 6, max: 2 }, { min: 3, max: 5 }), 'message_invalid')
})

test('nothing but hello and close may come first, and hello once', t => {
  const purpose = { is: 'accept' as const, address: 'loopback', household: new Set([bob]), invites: [] }
  const peer = machine.openPeer(self, purpose, machine.DEADLINES, 0)
  drain(machine.secured(peer, bob, new Uint8Array(32), 0))
  t.is(
    codeOf(() => drain(heard(peer, { type: 'ping', id: 1 }))),
    'message_invalid',
  )
  drain(heard(peer, hello))
  t.is(
    codeOf(() => drain(heard(peer, hello))),
    'message_invalid',
  )
  t.deepEqual(drain(heard(peer, { type: 'ping', id: 7 })), [{ to: 'wire', header: { type: 'pong', id: 7 } }])
})

test('silence: a ping after 30 s in either direction, not again at once, closed after 90 s', t => {
  const peer = opened()
  t.deepEqual(drain(machine.tick(peer, 29_999)), [])
  t.is(drain(machine.tick(peer, 30_000)).length, 1)
  t.is(drain(machine.tick(peer, 31_000)).length, 0)
  t.is(drain(machine.tick(peer, 41_000)).length, 1)
  t.is(
    codeOf(() => drain(machine.tick(peer, 90_000))),
    'peer_silent',
  )
  peer.heardMs = 100_000
  t.is(drain(machine.tick(peer, 100_001)).length, 1, 'we hear them, but have said nothing for long')
})

test('each state before open has its deadline', t => {
  const peer = machine.openPeer(self, { is: 'dial', peer: bob, address: 'b:1', pair: null }, machine.DEADLINES, 0)
  t.is(
    codeOf(() => drain(machine.tick(peer, 9_999))),
    undefined,
  )
  t.is(
    codeOf(() => drain(machine.tick(peer, 10_000))),
    'timed_out',
  )
  machine.connected(peer, 5000)
  t.is(
    codeOf(() => drain(machine.tick(peer, 14_999))),
    undefined,
  )
  t.is(
    codeOf(() => drain(machine.tick(peer, 15_000))),
    'timed_out',
  )
})

test('leaves must come in order and in size', t => {
  const ask = () => {
    const peer = opened()
    drain(machine.attach(peer, docs))
    const asked = machine.download(peer, docs, order)
    drain(asked!.outputs)
    return (from: number, count: number, bytes: number) =>
      drain(heard(peer, { type: 'leaves', arena: docs, id: asked!.request, from, count }, new Uint8Array(bytes)))
  }
  const right = ask()
  t.like(right(3, 7, 7 * LEAF_BYTES)[0], { to: 'download', last: false })
  t.like(right(10, 1, 5)[0], { to: 'download', last: true })
  t.is(
    codeOf(() => right(11, 1, 5)),
    'message_invalid',
    'the request is over',
  )
  t.is(
    codeOf(() => ask()(4, 1, LEAF_BYTES)),
    'message_invalid',
    'a gap',
  )
  t.is(
    codeOf(() => ask()(3, 9, 8 * LEAF_BYTES)),
    'message_invalid',
    'too many',
  )
  t.is(
    codeOf(() => ask()(3, 2, LEAF_BYTES)),
    'message_invalid',
    'too short',
  )
  t.is(
    codeOf(() => ask()(3, 8, 8 * LEAF_BYTES)),
    'message_invalid',
    'longer than the blob',
  )
})

test('an answer must be of the kind and the arena that was asked', t => {
  const peer = opened()
  drain(machine.attach(peer, docs))
  drain(machine.say(peer, docs, { type: 'fetch_tree', arena: docs, id: 5, hash, group: null }, undefined))
  t.is(
    codeOf(() => drain(heard(peer, { type: 'pack', arena: docs, id: 1, sizes: [] }))),
    'message_invalid',
  )
  t.is(
    codeOf(() => drain(heard(peer, { type: 'tree', arena: 'other' as ArenaName, id: 1 }))),
    'message_invalid',
  )
  t.like(drain(heard(peer, { type: 'tree', arena: docs, id: 1 }, new Uint8Array(32)))[0], {
    to: 'arena',
    header: { id: 5 },
  })
})

test('what an older peer cannot read is answered here in its place, and never sent', t => {
  const fetchNodes = { type: 'fetch_nodes' as const, arena: docs, id: 5, hash, level: 0, from: 0, count: 1 }
  const fetchAnchors = {
    type: 'fetch_anchors' as const,
    arena: docs,
    id: 6,
    hash,
    runs: [[0, 1]] as [number, number][],
  }
  const fetchDelta = { type: 'fetch_delta' as const, arena: docs, id: 7, hash, from: 0, count: 1, block: 512 }
  for (const header of [fetchNodes, fetchAnchors, fetchDelta]) {
    const old = opened()
    drain(machine.attach(old, docs))
    const [refused, ...none] = drain(machine.say(old, docs, header, undefined))
    t.deepEqual(none, [])
    t.like(refused, { to: 'arena', header: { type: 'fetch_failed', id: header.id, code: 'version_unsupported' } })
    const young = opened({ min: 1, max: 9 })
    drain(machine.attach(young, docs))
    const [sent] = drain(machine.say(young, docs, header, new Uint8Array(8)))
    t.like(sent, { to: 'wire_arena', header: { type: header.type, id: 1 } })
    t.is(sent?.to === 'wire_arena' && sent.payload?.length, 8)
  }
})

test('a signature has its form, and its payload reaches the arena', t => {
  const peer = opened()
  drain(machine.attach(peer, docs))
  const ask = (bytes: number, id = 1) =>
    drain(
      heard(
        peer,
        { type: 'fetch_delta', arena: docs, id, hash, from: 0, count: 1, block: 512 },
        bytes ? new Uint8Array(bytes) : undefined,
      ),
    )
  for (const bytes of [0, 7, ROLLING_BYTES + 1, (SIGNATURE_BLOCKS_MAX + 1) * ROLLING_BYTES])
    t.is(
      codeOf(() => ask(bytes)),
      'message_invalid',
      `${bytes} bytes`,
    )
  const [asked] = ask(SIGNATURE_BLOCKS_MAX * ROLLING_BYTES)
  t.is(asked?.to === 'arena' && asked.payload?.length, SIGNATURE_BLOCKS_MAX * ROLLING_BYTES)
  t.is(
    codeOf(() =>
      drain(heard(peer, { type: 'fetch_anchors', arena: docs, id: 2, hash, runs: [[0, 1]] }, new Uint8Array(8))),
    ),
    'message_invalid',
  )
})

test('open requests are limited: theirs by closing, ours by waiting, over all arenas together', t => {
  const peer = opened()
  const other = 'other' as ArenaName
  drain(machine.attach(peer, docs))
  drain(machine.attach(peer, other))
  for (let id = 1; id <= REQUESTS_MAX; id++)
    drain(heard(peer, { type: 'fetch_tree', arena: id % 2 ? docs : other, id, hash, group: null }))
  t.is(
    codeOf(() => drain(heard(peer, { type: 'fetch_tree', arena: docs, id: 1, hash, group: null }))),
    'message_invalid',
  )
  t.is(
    codeOf(() => drain(heard(peer, { type: 'fetch_tree', arena: docs, id: 999, hash, group: null }))),
    'limit_exceeded',
  )
  drain(
    machine.say(peer, docs, { type: 'fetch_failed', arena: docs, id: 1, code: 'blob_missing', reason: '' }, undefined),
  )
  drain(heard(peer, { type: 'fetch_tree', arena: docs, id: 1, hash, group: null }))

  let sent = 0
  for (let id = 1; id <= REQUESTS_MAX + 5; id++)
    sent += drain(machine.download(peer, id % 2 ? docs : other, { ...order, id })!.outputs).length
  t.is(sent, REQUESTS_MAX)
  const failed = drain(heard(peer, { type: 'fetch_failed', arena: docs, id: 1, code: 'blob_missing', reason: '' }))
  t.deepEqual(
    failed.map(output => output.to),
    ['download_failed', 'wire_arena'],
  )
})

test('an arena that detaches refuses what it owed and says that it is gone, once', t => {
  const peer = opened()
  drain(machine.attach(peer, docs))
  drain(heard(peer, { type: 'fetch_tree', arena: docs, id: 4, hash, group: null }))
  const out = drain(machine.detach(peer, docs)).map(output =>
    output.to === 'wire_arena' ? output.header.type : output.to,
  )
  t.deepEqual(out, ['fetch_failed'], 'no arena_close from who never said arena_open')
  t.deepEqual(drain(machine.detach(peer, docs)), [])
  t.deepEqual(
    drain(machine.say(peer, docs, { type: 'arena_close', arena: docs, code: 'busy', reason: '' }, undefined)),
    [],
  )
})

test('arena_close is never answered, and what opens arenas that are not here is limited', t => {
  const peer = opened()
  t.deepEqual(drain(heard(peer, { type: 'arena_close', arena: docs, code: 'busy', reason: '' })), [])
  const opening = (name: string) =>
    ({
      type: 'arena_open',
      arena: name,
      replica: '0'.repeat(16),
      session: '0'.repeat(16),
      seq: 0,
      conflicts: 'newest',
      read: null,
      again: false,
    }) as WireMessage
  for (let i = 0; i < ARENAS_MAX; i++) drain(heard(peer, opening(`a${i}`)))
  t.is(
    codeOf(() => drain(heard(peer, opening('one-more')))),
    'limit_exceeded',
  )
})

test('a proof holds for its side, secret, keys and channel only', t => {
  const secret = '11'.repeat(16)
  const channel: Channel = { joiner: alice, inviter: bob, exporter: new Uint8Array(32).fill(3) }
  const proof = pairProof('join', secret, channel)
  t.true(proofsEqual(proof, pairProof('join', secret, channel)))
  const others = [
    pairProof('invite', secret, channel),
    pairProof('join', '22'.repeat(16), channel),
    pairProof('join', secret, { ...channel, joiner: bob, inviter: alice }),
    pairProof('join', secret, { ...channel, exporter: new Uint8Array(32) }),
  ]
  for (const other of others) t.false(proofsEqual(proof, other))
  const invites = [{ invite: 'aa'.repeat(8), secret }]
  t.is(proven({ invite: 'aa'.repeat(8), proof }, invites, channel), invites[0])
  t.is(proven({ invite: 'bb'.repeat(8), proof }, invites, channel), undefined)
  const zeros = pairProof('join', '00'.repeat(16), channel)
  t.is(
    proven({ invite: 'bb'.repeat(8), proof: zeros }, invites, channel),
    undefined,
    'the stand-in for an unknown invite opens nothing',
  )
})

test('a bucket lets its rate pass, within five per cent, whatever the sizes', t => {
  fc.assert(
    fc.property(
      fc.integer({ min: 10_000, max: 100_000_000 }),
      fc.array(fc.integer({ min: 1, max: 1024 * 1024 }), { minLength: 1 }),
      (rate, sizes) => {
        const bucket = new Bucket(rate, 0)
        let nowMs = 0
        let bytes = 0
        let last = 0
        for (let i = 0; nowMs < 20_000 || bytes < 40 * 1024 * 1024; i++) {
          nowMs += bucket.waitMs(nowMs)
          last = sizes[i % sizes.length] as number
          bucket.take(last, nowMs)
          bytes += last
          if (i > 100_000) return
        }
        // What was taken last is still owed.
        const paid = bytes - last
        const seconds = nowMs / 1000
        t.true(paid <= rate * seconds * 1.05 && bytes >= rate * seconds * 0.95, `${paid / seconds} of ${rate}`)
      },
    ),
    { numRuns: 30 },
  )
})

test('a rate can be changed and lifted while there is debt', t => {
  const bucket = new Bucket(1000, 0)
  bucket.take(2000, 0)
  t.is(bucket.waitMs(0), 2000)
  bucket.set(4000, 1000)
  t.is(bucket.waitMs(1000), 250)
  bucket.set(0, 1000)
  t.is(bucket.waitMs(1000), 0)
})

test('the order of writing: ourselves, small messages, urgent uploads, then large messages and bulk uploads by turns', t => {
  const small = (name: string) => [Buffer.from(name)]
  const large = (name: string) => [Buffer.from(name), Buffer.alloc(10)]
  const outbox = new Outbox<{ urgent: boolean; name: string }>()
  const [urgent, bulk, second] = [
    { urgent: true, name: 'urgent' },
    { urgent: false, name: 'bulk' },
    { urgent: false, name: 'second' },
  ]
  for (const upload of [bulk, second, urgent]) outbox.addUpload(upload)
  outbox.push(small('small'))
  outbox.push(large('large 1'))
  outbox.push(large('large 2'))
  outbox.push(small('after'))
  outbox.pushControl(small('ping'))
  const next = (rate: boolean) => {
    const taken = outbox.next(rate)
    return taken && ('message' in taken ? String(taken.message[0]) : taken.upload.name)
  }
  t.deepEqual([next(false), next(false), next(false)], ['ping', 'small', undefined])
  t.deepEqual([next(true), next(true)], ['urgent', 'urgent'])
  outbox.removeUpload(urgent)
  const order = [next(true), next(true), next(true), next(true), next(true), next(true)]
  t.deepEqual(order, ['large 1', 'bulk', 'large 2', 'after', 'second', 'bulk'])
  outbox.removeUpload(bulk)
  outbox.removeUpload(second)
  t.is(next(true), undefined)
  t.false(outbox.hasBulk)
})

test('what somebody waits for is written before all other messages, and is bound by the rate like them', t => {
  const outbox = new Outbox<{ urgent: boolean; name: string }>()
  const upload = { urgent: true, name: 'upload' }
  outbox.push([Buffer.from('pack'), Buffer.alloc(10)])
  outbox.push([Buffer.from('request')])
  outbox.addUpload(upload)
  outbox.push([Buffer.from('tree'), Buffer.alloc(10)], true)
  outbox.push([Buffer.from('urgent request')], true)
  const next = (rate: boolean) => {
    const taken = outbox.next(rate)
    return taken && ('message' in taken ? String(taken.message[0]) : taken.upload.name)
  }
  t.is(next(false), undefined)
  t.deepEqual([next(true), next(true), next(true)], ['tree', 'urgent request', 'upload'])
  outbox.removeUpload(upload)
  t.deepEqual([next(true), next(true)], ['pack', 'request'])
  t.false(outbox.hasBulk)
})

test('what waits to be written is limited, tiny messages too', t => {
  const outbox = new Outbox<{ urgent: boolean }>()
  const many = Math.ceil(QUEUE_BYTES_MAX / 201)
  t.is(
    codeOf(() => Array.from({ length: many + 1 }, () => outbox.pushControl([Buffer.from('x')]))),
    'limit_exceeded',
  )
})

test('addresses are host:port, IPv6 in brackets', t => {
  t.deepEqual(parseAddress('server.lan:9771'), { host: 'server.lan', port: 9771 })
  t.deepEqual(parseAddress('[fe80::1%eth0]:1'), { host: 'fe80::1%eth0', port: 1 })
  for (const wrong of ['', 'host', 'host:0', 'host:65536', '::1:80', 'a b:1', 'host:'])
    t.is(
      codeOf(() => parseAddress(wrong)),
      'config_invalid',
      wrong,
    )
})
