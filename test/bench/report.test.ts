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
    note: null,
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

test('the report says what is aimed at and whether it is met, where it was measured', t => {
  const measured = (name: 'small' | 'edit', tool: 'realize' | 'syncthing', figures: Record<string, number>) => ({
    name,
    title: name,
    tools: [{ tool, excluded: null, runs: [figures], failures: [] }],
  })
  const small = measured('small', 'realize', { durable_s: 1.25 })
  small.tools.push(...measured('small', 'syncthing', { durable_s: 9.6 }).tools)
  const text = toMarkdown({ ...results, cases: [small, measured('edit', 'realize', { p50_ms: 19, p95_ms: 61 })] })
  const aims = text.split('\n').filter(line => line.startsWith('| small |') || line.startsWith('| edit |'))
  t.deepEqual(aims, [
    '| small | durable (s) | 1.30 | 1.25 | yes |',
    '| small | durable (s) | 1/8 of syncthing: 1.20 | 1.25 | **no** |',
    '| edit | p50 (ms) | 20.0 | 19.0 | yes |',
    '| edit | p95 (ms) | 60.0 | 61.0 | **no** |',
  ])
  t.false(toMarkdown({ ...results, settings: { ...results.settings, scale: 0.5 } }).includes('aimed'))
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
