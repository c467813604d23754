/** `realize loadtest` as a person runs it, small: it measures, it ends, and it leaves nothing. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import type { LoadResult } from '../../loadtest/run.ts'
import { within } from '../_deadline.ts'
import { temporaryFolder } from '../_temp.ts'
import { Household } from './_household.ts'

const COMMAND_LINE = fileURLToPath(new URL('../../cli/main.js', import.meta.url))
const PEERS = 12
const SMALL = ['--peers', `${PEERS}`, '--seconds', '2', '--edits-per-second', '2', '--rest-seconds', '0.1']

/** Runs it with its temporary files in a folder of the test's own. */
function loadtest(t: ExecutionContext, ...words: string[]) {
  const folder = temporaryFolder(t)
  const child = spawn(process.execPath, [COMMAND_LINE, '--json', ...words], {
    env: { ...process.env, TMPDIR: folder, REALIZE_HOME: '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', text => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', text => {
    stderr += text
  })
  const ended = async (ms: number) => {
    const [code] = await within(ms, () => `the load test ends; it said: ${stdout}${stderr}`, once(child, 'close'))
    return { code: code as number | null, stdout, stderr }
  }
  return { child, folder, ended }
}

/** Processes whose command line has this text. */
function processesWith(text: string): string[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && name !== `${process.pid}`)
    .filter(pid => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text)
      } catch {
        return false
      }
    })
}

test.serial('a load test connects its peers, carries edits from both sides to all of them, and measures', async t => {
  const out = join(temporaryFolder(t), 'out.json')
  const { folder, ended } = loadtest(t, 'loadtest', ...SMALL, '--fetch-bytes', '300000', '--out', out)
  const { code, stdout, stderr } = await ended(120_000)
  t.is(code, 0, `${stdout}${stderr}`)
  const result = JSON.parse(stdout) as LoadResult
  t.deepEqual(JSON.parse(readFileSync(out, 'utf8')), result)
  t.like(result, { peers: PEERS, processes: 2, consensus: true, errors: {} })
  t.like(result.edits, { atService: 2, atPeers: 2, expected: 4 * PEERS - 2, arrived: 4 * PEERS - 2 })
  t.is(result.fetch?.bytes, PEERS * 300_000)
  const { connect, edits, fetch, service } = result
  const measured = [connect.perSecond, connect.cpuSecondsPerConnection, edits.each?.p99, edits.all?.p50]
  for (const figure of [...measured, fetch?.megabytesPerSecond, service.residentAtEnd]) t.true((figure ?? 0) > 0)
  t.deepEqual(readdirSync(folder), [])
  t.deepEqual(processesWith(folder), [])
})

test.serial('a load test that is interrupted takes everything down', async t => {
  const { child, folder, ended } = loadtest(t, 'loadtest', ...SMALL, '--seconds', '600')
  const started = async () => {
    while (processesWith(folder).length === 0) await new Promise(resolve => setTimeout(resolve, 50))
  }
  await within(60_000, 'its service is started', started())
  child.kill('SIGINT')
  t.is((await ended(60_000)).code, 130)
  t.deepEqual(readdirSync(folder), [])
  t.deepEqual(processesWith(folder), [])
})

test.serial('a load test of a service that runs leaves its household as it was', async t => {
  const household = new Household(t)
  const [alice] = await household.couple()
  const config = readFileSync(alice.configPath, 'utf8')
  const { ended } = loadtest(t, '--home', alice.home, 'loadtest', ...SMALL, '--fetch-bytes', '0')
  const { code, stdout, stderr } = await ended(120_000)
  t.is(code, 0, `${stdout}${stderr}`)
  t.is((JSON.parse(stdout) as LoadResult).edits.arrived, 4 * PEERS - 2)
  t.is(readFileSync(alice.configPath, 'utf8'), config)
  const { peers, arenas } = await alice.call('status', {})
  t.deepEqual([peers.map(peer => peer.name), arenas.map(arena => arena.name)], [['bob'], ['docs']])
  mkdirSync(join(household.root(alice), 'still'))
  await household.same(t)
})
