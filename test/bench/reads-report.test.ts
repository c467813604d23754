import test from 'ava'
import { isMet, joined, type ReadsResults, type Row, toMarkdown } from '../../bench/reads-report.ts'

const speed: Row = {
  section: 'Content',
  name: 'read',
  unit: 'MB/s',
  aim: { part: 0.8 },
  base: [100, 1000, 200],
  measured: [150, 10, 170],
}
const time: Row = { ...speed, name: 'looked at', unit: 'µs', aim: { most: 100 }, base: [10], measured: [101] }
const shown: Row = { ...speed, name: 'shown only', unit: 'ms', aim: null, base: [10], measured: [20] }

const results: ReadsResults = {
  date: '2025-01-02',
  machine: {
    processor: 'P',
    processors: 2,
    memoryBytes: 8e9,
    kernel: '6.1',
    fileSystem: 'ext4',
    node: '20.20.0',
    loadBefore: 0.1,
    note: null,
  },
  rounds: 3,
  megabytes: 512,
  entries: 10_000,
  fio: null,
  settings: [
    { name: 'as root', passthrough: true, rows: [speed, time, shown] },
    { name: 'as an ordinary user', passthrough: false, rows: [{ ...speed, measured: [200] }] },
  ],
}

test('each row has its aim, the medians, and whether the aim is met, for each who mounted', t => {
  const text = toMarkdown(results)
  t.true(text.includes('| read | ≥ 80 % | 150 of 200 MB/s (75 %) | **no** | 200 of 200 MB/s (100 %) | yes |'), text)
  t.true(text.includes('| looked at | ≤ 100 µs | 101 of 10.0 µs (10 %) | **no** | – | |'), text)
  t.true(text.includes('| shown only |  | 20.0 of 10.0 ms (50 %) |  | – | |'), text)
  t.true(text.includes('fio is not installed'))
  t.false(text.includes('busy'))
})

test('an aim is met at its limit, and what has none is neither', t => {
  t.true(isMet({ ...speed, base: [100], measured: [80] }))
  t.false(isMet({ ...speed, base: [100], measured: [79] }))
  t.true(isMet({ ...time, measured: [100] }))
  t.is(isMet(shown), null)
})

test('several measurements become one, the later one counts, and the busiest machine is told of', t => {
  const again: ReadsResults = {
    ...results,
    machine: { ...results.machine, loadBefore: 3 },
    settings: [{ name: 'as root', passthrough: true, rows: [{ ...speed, measured: [500] }] }],
  }
  const both = joined([again, { ...results, settings: results.settings.slice(1) }, again], 'noted')
  t.deepEqual(
    both.settings.map(({ name, rows }) => [name, rows.map(row => row.measured)]),
    [
      ['as root', [[500]]],
      ['as an ordinary user', [[200]]],
    ],
  )
  t.is(both.machine.loadBefore, 3)
  t.true(toMarkdown(both).includes('busy'))
  t.true(toMarkdown(both).includes('noted'))
  t.throws(() => joined([], undefined))
})
