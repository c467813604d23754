/** Process entry: some hundreds of simulated peers, as the load test orders them over the channel of `fork`. Ends with that channel. */
import type { Answer, Found, Order } from './messages.ts'
import { readEdit } from './messages.ts'
import { SimulatedPeer } from './simulated-peer.ts'

/** Peers of this process that dial at the same time. */
const DIALLING_MAX = 32
const TICK_MS = 1_000
const PROGRESS_MS = 100
/** Different errors that are told apart. */
const ERRORS_MAX = 20

const peers = new Map<number, SimulatedPeer>()
const found: Found = { refused: 0, connectMs: [], editMs: {}, errors: {} }
let waiting: (() => void)[] = []
let dialling = 0
let open = 0
let arrivals = 0
let bytes = 0

function answer(message: Answer): void {
  process.send?.(message)
}

function wrong(what: string): void {
  const known = what in found.errors || Object.keys(found.errors).length < ERRORS_MAX
  const name = known ? what : 'others'
  found.errors[name] = (found.errors[name] ?? 0) + 1
}

function arrived(size: number, content: Uint8Array): void {
  bytes += size
  const edit = readEdit(content)
  if (!edit) return
  arrivals++
  found.editMs[edit.number] ??= []
  found.editMs[edit.number]?.push(edit.ms)
}

function opened(ms: number): void {
  found.connectMs.push(ms)
  dialling--
  waiting.shift()?.()
}

async function make(first: number, count: number): Promise<void> {
  const events = {
    opened,
    refused: () => {
      found.refused++
    },
    arrived,
    wrong,
  }
  for (let number = first; number < first + count; number++) peers.set(number, await SimulatedPeer.make(number, events))
  answer({ type: 'made', ids: [...peers.values()].map(peer => peer.id) })
}

function connect(order: Extract<Order, { type: 'connect' }>): void {
  const begin = (peer: SimulatedPeer) => {
    dialling++
    peer.connect(order)
  }
  for (const peer of peers.values()) {
    if (dialling < DIALLING_MAX) begin(peer)
    else waiting.push(() => begin(peer))
  }
}

function obey(order: Order): void {
  switch (order.type) {
    case 'make':
      void make(order.first, order.count)
      return
    case 'connect':
      connect(order)
      return
    case 'edit':
      peers.get(order.peer)?.edit(order.number, order.bytes)
      return
    case 'report':
      answer({ type: 'found', found })
      return
    case 'end':
      waiting = []
      for (const peer of peers.values()) peer.end()
      clearInterval(ticking)
      clearInterval(telling)
      process.disconnect()
      return
    default:
      order satisfies never
  }
}

const ticking = setInterval(() => {
  for (const peer of peers.values()) peer.tick()
}, TICK_MS)
const telling = setInterval(() => {
  open = 0
  let missing = 0
  for (const peer of peers.values()) {
    if (peer.open) open++
    missing += peer.missing
  }
  answer({ type: 'progress', progress: { open, arrivals, bytes, missing } })
}, PROGRESS_MS)

// The terminal's Ctrl-C reaches every process: the one that started this says when it is over.
process.on('SIGINT', () => {})
process.on('disconnect', () => {
  // Farewells take a moment; nothing hangs on them.
  setTimeout(() => process.exit(0), 500)
})
process.on('message', obey)
