import test from 'ava'
import { Metrics } from '../../supervisor/metrics.ts'

const arena = {
  name: 'docs',
  files: 7,
  bytes: 0,
  realBytes: 0,
  needFiles: 0,
  needBytes: 0,
  conflicts: 0,
  problemCount: 0,
  consensus: true,
}
const make = () =>
  new Metrics(() => ({ uptimeSeconds: 5, peers: 2, peersConnected: 1, handshakes: 0, arenas: [arena] }))

test('gauges show the figures of the moment, counters what was counted', async t => {
  const metrics = make()
  metrics.count('peer_bytes_up', 10, 'anna')
  metrics.count('peer_bytes_up', 5, 'anna')
  const text = await metrics.text()
  t.true(text.includes('realize_peers_connected 1'))
  t.true(text.includes('realize_arena_files{arena="docs"} 7'))
  t.true(text.includes('realize_peer_bytes_up_total{of="anna"} 15'))
  t.true(text.includes('# TYPE realize_actor_restarts_total counter'))
})

test('what is no amount or no name is not counted', async t => {
  const metrics = make()
  metrics.count('peer_bytes_up', Number.NaN)
  metrics.count('peer_bytes_up', -1)
  metrics.count('x y', 1)
  for (let i = 0; i < 500; i++) metrics.count(`name_${i}`, 1)
  const text = await metrics.text()
  t.false(text.includes('x y'))
  t.true(text.includes('realize_name_1_total'))
  t.false(text.includes('realize_name_499_total'))
})
