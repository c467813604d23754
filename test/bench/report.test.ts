import test from 'ava'
import { type Results, toMarkdown, toSvg } from '../../bench/report.ts'

const results: Results = {
  date: '2025-01-02',
  machine: {
    processor: 'P',
    processors: 2,
    memoryBytes: 8e9,
    kernel: '6.1',
    fileSystem: 'ext4',
    node: '20.20.0',
    loadBefore: 0.1,
  },
  settings: { rounds: 3, scale: 1, edits: 100, idleSeconds: 30 },
  tools: [
    { name: 'realize', version: 'realize 0.1.0', missing: null },
    { name: 'rsync', version: 'rsync 3', missing: null },
    { name: 'syncthing', version: null, missing: 'it is not installed' },
  ],
  cases: [
    {
      name: 'small',
      title: 'Files & <more>',
      tools: [
        { tool: 'realize', excluded: null, runs: [{ durable_s: 2 }, { durable_s: 4 }, { durable_s: 3 }], failures: [] },
        { tool: 'rsync', excluded: null, runs: [{ durable_s: 1.5, copied_s: 1 }], failures: ['it stopped'] },
      ],
    },
    {
      name: 'edit',
      title: 'Edits',
      tools: [
        { tool: 'realize', excluded: null, runs: [], failures: ['too late'] },
        { tool: 'rsync', excluded: 'does not watch its folder', runs: [], failures: [] },
      ],
    },
  ],
}

test('the report shows medians and how the others stand to ours', t => {
  const text = toMarkdown(results)
  t.true(text.includes('| realize | 3.00 | – | 1.00 |'), text)
  t.true(text.includes('| rsync | 1.50 | 1.00 | 0.50 |'), text)
})

test('the report says what is not there, and why', t => {
  const text = toMarkdown(results)
  t.true(text.includes('syncthing: not measured, it is not installed'))
  t.true(text.includes('rsync failed in a round: it stopped'))
  t.true(text.includes('realize failed in a round: too late'))
  t.true(text.includes('rsync: does not watch its folder.'))
})

test('figures of a busy machine are called a hint', t => {
  t.false(toMarkdown(results).includes('busy'))
  t.true(
    toMarkdown({ ...results, machine: { ...results.machine, loadBefore: 1.5 } }).includes(
      'busy with other things (load 1.5',
    ),
  )
})

test('the chart is well-formed and leaves out a case without figures', t => {
  const chart = toSvg(results)
  t.true(chart.includes('Files &amp; &lt;more&gt;'))
  t.false(chart.includes('Edits'))
  t.is(chart.match(/<rect /g)?.length, 3)
})
