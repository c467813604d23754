import test from 'ava'
import fc from 'fast-check'
import { lineReader } from '../../cli/client.ts'
import { parseTarget } from '../../cli/target.ts'
import { jsonText, painter, safe, sizeText, table, timeText } from '../../cli/text.ts'

const plain = painter(false)
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/

test('nothing that a terminal might obey passes into a line', t => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      t.notRegex(safe`a ${text} b`, UNSAFE)
      for (const line of table([[text, text]], plain)) t.notRegex(line, UNSAFE)
    }),
  )
  t.is(safe`a ${'\u001b[31m'} ${'\u202e'}`, 'a \\u{1b}[31m \\u{202e}')
})

test('JSON text reads back as the same value and holds nothing that a terminal might obey', t => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      t.deepEqual(JSON.parse(jsonText({ text })), { text })
      t.notRegex(jsonText({ text }), UNSAFE)
    }),
  )
})

test('lines come out the same however the bytes are cut', t => {
  const line = fc.string({ unit: 'grapheme', minLength: 1 }).filter(text => !text.includes('\n') && text.trim() !== '')
  fc.assert(
    fc.property(fc.array(line), fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1 }), (lines, cuts) => {
      const bytes = Buffer.from(lines.map(text => `${text}\n`).join(''))
      const read = lineReader(10_000)
      const found: string[] = []
      let from = 0
      for (let i = 0; from < bytes.length; i++) {
        const length = cuts[i % cuts.length] as number
        found.push(...read(bytes.subarray(from, from + length)))
        from += length
      }
      t.deepEqual(found, lines)
    }),
  )
})

test('a line without an end is given up at the limit', t => {
  const read = lineReader(10)
  read(Buffer.from('12345'))
  t.throws(() => read(Buffer.from('678901')), { code: 'limit_exceeded' })
})

test('sizes are written in powers of 1024', t => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [102_400, '100 KiB'],
    [1_048_575, '1.0 MiB'],
    [5e9, '4.7 GiB'],
    [2 ** 53, '8.0 PiB'],
  ]
  for (const [bytes, text] of cases) t.is(sizeText(bytes), text)
})

test('times are told from now', t => {
  const now = 1_700_000_000_000
  const cases: [number, string][] = [
    [now - 1000, 'now'],
    [now - 59_000, '59 s ago'],
    [now - 180_000, '3 min ago'],
    [now - 5 * 3_600_000, '5 h ago'],
    [now - 3 * 86_400_000, '3 d ago'],
    [now + 600_500, 'in 10 min'],
    [now - 365 * 86_400_000, '2022-11-14'],
    [Number.MAX_VALUE * -1, '?'],
  ]
  for (const [at, text] of cases) t.is(timeText(at, now), text)
})

test('columns are aligned by what is seen, not by colour codes or escapes', t => {
  const rows = [
    [{ text: 'a', colour: 'red' as const }, { text: '1', right: true }, 'x'],
    ['bcd', { text: '100', right: true }, ''],
  ]
  t.deepEqual(table(rows, plain), ['a      1  x', 'bcd  100'])
  t.deepEqual(table(rows, painter(true)), ['\u001b[31ma\u001b[0m      1  x', 'bcd  100'])
})

test('a place in an arena is its name, then a colon and a path', t => {
  const cases: [string, string, string | undefined][] = [
    ['docs', 'docs', undefined],
    ['docs:', 'docs', undefined],
    ['docs:/', 'docs', undefined],
    ['docs:.', 'docs', undefined],
    ['docs:a/b', 'docs', 'a/b'],
    ['docs:./a/', 'docs', 'a'],
    ['docs:a:b', 'docs', 'a:b'],
    ['docs:-rf', 'docs', '-rf'],
    ['docs:.hidden', 'docs', '.hidden'],
  ]
  for (const [text, arena, path] of cases) t.deepEqual(parseTarget(text) as unknown, { arena, path })
  for (const text of ['', ':a', 'a/b', 'docs:a//b', 'docs:..', 'docs:a/./b', 'docs:.realize/x', 'docs:\u0000'])
    t.throws(() => parseTarget(text), { code: 'usage' }, text)
})
