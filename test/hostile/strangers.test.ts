/** What somebody without a valid key can do: bytes, half handshakes, other keys, guesses at codes. Established peers go on. */
import { execFileSync, spawn } from 'node:child_process'
import { createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect as connectTcp, type Socket } from 'node:net'
import { join } from 'node:path'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import test from 'ava'
import { DEADLINES } from '../../actors/peer/peer.ts'
import { HANDSHAKES_PER_STRANGER_MAX } from '../../supervisor/admission.ts'
import { certificate, generateIdentity } from '../../supervisor/identity.ts'
import { decodeInvite } from '../../supervisor/invite-code.ts'
import { within } from '../_deadline.ts'
import { arenaName } from '../system/_household.ts'
import { Hostile } from './_hostile.ts'
import { Stage, until } from './_stage.ts'

/** Addresses of strangers: bob is at 127.0.0.1. */
const STRANGE = '127.0.0.2'
const cleanings: (() => unknown)[] = []
const sockets = new Set<Socket>()
let stage: Stage

test.before(async () => {
  stage = await Stage.open({ teardown: undo => cleanings.unshift(undo) })
})
test.afterEach.always(() => {
  for (const socket of sockets) socket.destroy()
  sockets.clear()
})
test.after.always(async () => {
  for (const undo of cleanings) await undo()
})

function tcp(from = STRANGE): Socket {
  const socket = connectTcp({ port: stage.alice.port!, host: '127.0.0.1', localAddress: from })
  sockets.add(socket)
  return socket.on('error', () => {})
}

const closed = (socket: Socket, ms = 30_000) =>
  within(ms, 'the connection is cut', new Promise<void>(resolve => socket.once('close', () => resolve()).resume()))

test.serial(
  'hundreds of half-open connections: eight of an address wait, the others are cut at once, and all in the end',
  async t => {
    const before = stage.cost()
    const open = Array.from({ length: 300 }, () => tcp())
    // How long the service had each: its own time counts, not that which the system takes to carry 300 first packets.
    const held: number[] = []
    for (const socket of open) {
      let sinceMs = performance.now()
      socket.once('connect', () => {
        sinceMs = performance.now()
      })
      socket.once('close', () => held.push(performance.now() - sinceMs))
    }
    const cut = Promise.all(open.map(socket => closed(socket, 60_000)))
    await until('all but eight are cut', 60_000, () => open.length - held.length <= HANDSHAKES_PER_STRANGER_MAX)
    const ms = await stage.undisturbed()
    t.log(`an edit took ${Math.round(ms)} ms with 300 connections that say nothing`)
    // Handshakes that are dribbled a byte at a time hold no longer than those that say nothing.
    const dribbling = setInterval(() => {
      for (const socket of open) if (!socket.destroyed) socket.write(Buffer.from([0x16]))
    }, 500)
    await cut
    clearInterval(dribbling)
    // The others were cut at once, long before their time was over.
    const waited = held.filter(heldMs => heldMs > DEADLINES.secureMs / 2).length
    t.log(`${waited} of ${held.length} waited`)
    // Who came late may have got a place that one of the first had left.
    t.true(waited <= 2 * HANDSHAKES_PER_STRANGER_MAX, `${waited} waited`)
    t.true(Math.max(...held) < 2 * DEADLINES.secureMs, `${Math.max(...held)} ms`)
    await stage.unharmed(t, before)
  },
)

test.serial('garbage instead of TLS is cut, in whatever number', async t => {
  const before = stage.cost()
  for (let round = 0; round < 10; round++) {
    const open = Array.from({ length: 10 }, () => tcp(`127.0.1.${round + 1}`))
    const cut = Promise.all(open.map(socket => closed(socket)))
    for (const socket of open) socket.end(randomBytes(5000))
    await cut
  }
  await stage.unharmed(t, before)
})

test.serial('a flood of connects from one address leaves an established peer its time', async t => {
  const before = stage.cost()
  let made = 0
  let flooding = true
  const flood = async (from: string) => {
    while (flooding) {
      const socket = tcp(from)
      await Promise.race([once(socket, 'close').catch(() => {}), once(socket, 'connect').catch(() => {})])
      socket.destroy()
      sockets.delete(socket)
      made++
    }
  }
  const floods = Array.from({ length: 8 }, (_, i) => flood(`127.0.2.${i + 1}`))
  const times = [await stage.undisturbed(), await stage.undisturbed(), await stage.undisturbed()]
  flooding = false
  await Promise.all(floods)
  t.log(`${made} connects; edits took ${times.map(Math.round).join(', ')} ms meanwhile`)
  t.true(made > 100)
  const metrics = await stage.alice.call('metrics', {})
  t.regex(metrics.text, /realize_connections_refused_total\S* [1-9]/, 'what is refused is counted')
  await stage.unharmed(t, before)
})

test.serial('an unknown key is told so and closed; TLS before 1.3 and another protocol get nowhere', async t => {
  const before = stage.cost()
  const stranger = await Hostile.connect(stage.alice.port!, { greet: false, from: '127.0.3.1' })
  t.is(await stranger.refused(), 'peer_unknown')
  await stage.logged('peer_refused', { code: 'peer_unknown', address: '127.0.3.1' })
  const key = stage.identity.key
  const cert = await certificate(key)
  for (const options of [
    { maxVersion: 'TLSv1.2', minVersion: 'TLSv1.2' },
    { ALPNProtocols: ['http/1.1'] },
    { ALPNProtocols: [] },
    { key: undefined, cert: undefined },
  ] as const) {
    const socket = connectTls({
      port: stage.alice.port!,
      host: '127.0.0.1',
      localAddress: '127.0.3.2',
      key,
      cert,
      rejectUnauthorized: false,
      ALPNProtocols: ['realize/1'],
      ...options,
    } as ConnectionOptions & { localAddress: string })
    let heard = ''
    socket.on('error', () => {})
    socket.on('data', chunk => {
      heard += chunk.toString('latin1')
    })
    await closed(socket)
    t.false(heard.includes('"hello"'), JSON.stringify(options))
    t.false(heard.includes('arena_open'), JSON.stringify(options))
  }
  await stage.unharmed(t, before)
})

test.serial("a certificate with another's public key is worth nothing without the private key", async t => {
  const { folder } = stage.household
  // Self-made: the subject's key is mallory's, whom alice knows; the signature and the private key at hand are another's.
  const forger = generateKeyPairSync('ed25519').privateKey
  const files = {
    forger: join(folder, 'forger.pem'),
    victim: join(folder, 'victim.pub.pem'),
    cert: join(folder, 'forged.pem'),
  }
  writeFileSync(files.forger, forger.export({ type: 'pkcs8', format: 'pem' }))
  writeFileSync(files.victim, createPublicKey(stage.identity.key).export({ type: 'spki', format: 'pem' }))
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  openssl(
    'req',
    '-x509',
    '-new',
    '-key',
    files.forger,
    '-subj',
    '/CN=realize',
    '-days',
    '30',
    '-out',
    `${files.cert}.ca`,
  )
  openssl('req', '-new', '-key', files.forger, '-subj', '/CN=realize', '-out', `${files.cert}.req`)
  openssl(
    'x509',
    '-req',
    '-in',
    `${files.cert}.req`,
    '-force_pubkey',
    files.victim,
    '-CA',
    `${files.cert}.ca`,
    '-CAkey',
    files.forger,
    '-CAcreateserial',
    '-days',
    '30',
    '-out',
    files.cert,
  )
  t.true(readFileSync(files.cert, 'utf8').includes('CERTIFICATE'))
  // TLS libraries refuse to use a certificate with a key that is not its own; so does the handshake.
  t.throws(() =>
    connectTls({ port: stage.alice.port!, cert: readFileSync(files.cert), key: readFileSync(files.forger) }),
  )
  const client = spawn(
    'openssl',
    [
      's_client',
      '-connect',
      `127.0.0.1:${stage.alice.port}`,
      '-alpn',
      'realize/1',
      '-cert',
      files.cert,
      '-key',
      files.forger,
      '-quiet',
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let said = ''
  client.stdout.on('data', chunk => {
    said += chunk
  })
  const [code] = await within(20_000, 'openssl ends', once(client, 'close'))
  t.not(code, 0)
  t.false(said.includes('hello'))
  const peers = (await stage.alice.call('status', {})).peers
  t.not(peers.find(peer => peer.name === 'mallory')?.state, 'connected')
  await stage.undisturbed()
})

test.serial('codes cannot be guessed, used twice or used on another channel', async t => {
  const before = stage.cost()
  const { alice } = stage
  const { code } = await alice.call('invite', { arenas: [arenaName('docs')] })
  const { invite } = decodeInvite(code, Date.now())
  const tries = 40
  const refusals = await Promise.all(
    Array.from({ length: 8 }, async (_, worker) => {
      const codes: (string | null)[] = []
      for (let i = 0; i < tries / 8; i++) {
        const stranger = await Hostile.connect(alice.port!, { from: `127.0.4.${worker + 1}`, purpose: 'pair' })
        stranger.say({ type: 'pair_request', invite, proof: randomBytes(32).toString('hex') })
        codes.push(await stranger.refused())
      }
      return codes
    }),
  )
  t.deepEqual([...new Set(refusals.flat())], ['invite_invalid'])
  await stage.logged('invite_refused', { address: '127.0.4.' })
  // It is not used up by that, and honest use works; then it is void for everybody.
  const carol = await stage.household.peer('carol')
  await carol.call('join', { code, path: stage.household.root(carol) })
  const late = generateIdentity()
  const stranger = await Hostile.connect(alice.port!, { identity: late, greet: false, from: '127.0.4.20' })
  t.is(await stranger.refused(), 'peer_unknown', 'with no code open nobody may even try')
  t.is((await alice.call('status', {})).peers.length, 3)
  await carol.stop()
  await stage.unharmed(t, before)
})
