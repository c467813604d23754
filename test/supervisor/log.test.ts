import test from 'ava'
import { LOG_LINES_MAX, Log, type LogFormat, type LogLevel } from '../../supervisor/log.ts'

function logOf(level: LogLevel, format: LogFormat = 'json') {
  const lines: string[] = []
  const log = new Log({
    level,
    format,
    colour: false,
    wallMs: () => 1000,
    destination: { write: line => lines.push(line) },
  })
  return { log, lines }
}

test('a line is the name of the event, its level and its fields', t => {
  const { log, lines } = logOf('info')
  log.write('peer_opened', { peer: 'anna', address: undefined })
  log.write('peer_dialing', { peer: 'anna' })
  t.is(lines.length, 1)
  t.like(JSON.parse(lines[0] ?? ''), { level: 'info', event: 'peer_opened', peer: 'anna' })
})

test('names that would command a terminal are escaped', t => {
  const { log, lines } = logOf('info')
  log.write('peer_opened', { peer: '\u001b[2Jhello\u202e\n' })
  t.like(JSON.parse(lines[0] ?? ''), { peer: '\\u{1b}[2Jhello\\u{202e}\\u{a}' })
})

test('the last lines are kept, oldest first, and no more of them', t => {
  const { log } = logOf('info')
  for (let i = 0; i < LOG_LINES_MAX + 10; i++) log.write('peer_opened', { i })
  const kept = log.lines.map(line => (JSON.parse(line) as { i: number }).i)
  t.is(kept.length, LOG_LINES_MAX)
  t.is(kept[0], 10)
  t.is(kept.at(-1), LOG_LINES_MAX + 9)
})

test('listeners hear of what happened whatever is logged, but not of what is for debugging', t => {
  const { log, lines } = logOf('silent')
  const heard: string[] = []
  const end = log.listen(({ event }) => heard.push(event))
  log.write('peer_opened')
  log.write('peer_dialing')
  log.write('arena_history', { arena: 'docs' })
  end()
  log.write('peer_closed')
  t.deepEqual(heard, ['peer_opened', 'arena_history'])
  t.deepEqual(lines, [])
  t.deepEqual(log.events.map(({ event }) => event) as string[], ['peer_opened', 'arena_history', 'peer_closed'])
})

test('what a peer brings about again and again is logged now and then, with the number of lines left out', t => {
  const lines: string[] = []
  let nowMs = 0
  const log = new Log({
    level: 'info',
    format: 'json',
    colour: false,
    wallMs: () => nowMs,
    destination: { write: line => lines.push(line) },
  })
  for (let i = 0; i < 10_000; i++) log.write('peer_refused', { peer: `made up ${i}`, address: `10.0.0.1:${i}` })
  t.is(lines.length, 100)
  log.write('peer_refused', { peer: 'another', address: '10.0.0.2:1' })
  t.is(lines.length, 101, 'others are heard meanwhile')
  nowMs = 60_000
  log.write('peer_refused', { peer: 'made up', address: '10.0.0.1:1' })
  t.like(JSON.parse(lines.at(-1) ?? ''), { event: 'peer_refused', leftOut: 9900 })
})
