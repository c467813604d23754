import { readFileSync } from 'node:fs'
import type { TObject, TSchema } from '@sinclair/typebox'
import test from 'ava'
import fc from 'fast-check'
import {
  ConfigFile,
  defaultConfig,
  formatAddress,
  parseAddress,
  parseConfig,
  parseDuration,
  parsePart,
  parseSize,
  quote,
} from '../../supervisor/config.ts'
import { ID_A, ID_B } from './_peers.ts'

const context = { homedir: '/home/ada', own: ['/home/ada/.local/state/realize'] }
const read = (text: string) => parseConfig(text, 'config.toml', context)

const FULL = `
[peer]
name = "laptop"
listen = ["0.0.0.0:9771", "[::]:0"]

[[peers]]
name = "server"
id = "${ID_A.toLowerCase().replaceAll('-', ' ')}"
addresses = ["server.lan", "[fe80::1]:9"]
rate = { up = "10MB", down = "1.5MiB" }
paused = true

[[arenas]]
name = "documents"
path = "~/Documents/"
peers = ["server"]
mark = "real"
ignore = ["*.tmp", ".git/"]
conflicts = "newest"
versions = { keep = "30d", max = "5GB" }
cache = { max = "10%", leave = "5GB" }
guard = { deletes = "25%" }
rescan = "1h"
`

test('a full configuration is read into absolute paths, milliseconds and bytes', t => {
  t.deepEqual(read(FULL) as unknown, {
    peer: {
      name: 'laptop',
      listen: [
        { host: '0.0.0.0', port: 9771 },
        { host: '::', port: 0 },
      ],
    },
    peers: [
      {
        name: 'server',
        id: ID_A,
        addresses: ['server.lan:9771', '[fe80::1]:9'],
        rate: { up: 10_000_000, down: 1_572_864 },
        paused: true,
      },
    ],
    arenas: [
      {
        name: 'documents',
        path: '/home/ada/Documents',
        peers: ['server'],
        mark: 'real',
        ignore: ['*.tmp', '.git/'],
        conflicts: 'newest',
        versions: { keepMs: 30 * 86_400_000, bytesMax: 5_000_000_000 },
        cache: { max: { part: 0.1 }, leave: { bytes: 5_000_000_000 } },
        guard: { deletes: 0.25 },
        rescanMs: 3_600_000,
        paused: false,
      },
    ],
  })
})

test('what is left out has its default', t => {
  const config = read(
    `[peer]\nname = "a"\n[[peers]]\nname = "b"\nid = "${ID_B}"\n[[arenas]]\nname = "c"\nversions.keep = "1d"`,
  )
  t.deepEqual(config as unknown, {
    peer: { name: 'a', listen: [{ host: '0.0.0.0', port: 9771 }] },
    peers: [{ name: 'b', id: ID_B, addresses: [], rate: { up: 0, down: 0 }, paused: false }],
    arenas: [
      {
        name: 'c',
        path: null,
        peers: null,
        mark: 'unreal',
        ignore: [],
        conflicts: 'keep-both',
        versions: { keepMs: 86_400_000, bytesMax: 5_000_000_000 },
        cache: { max: { part: 0.1 }, leave: { bytes: 5_000_000_000 } },
        guard: { deletes: 0.5 },
        rescanMs: 3_600_000,
        paused: false,
      },
    ],
  })
})

test('a configuration is frozen all the way down', t => {
  const config = read(FULL)
  t.true(Object.isFrozen(config.arenas[0]?.versions))
  t.throws(() => {
    config.peer.listen.push({ host: 'x', port: 1 })
  })
})

const PEER = '[peer]\nname = "a"\n'
const SERVER = `[[peers]]\nname = "server"\nid = "${ID_A}"\n`
const refused = test.macro<[string, string]>({
  exec(t, text, message) {
    t.throws(() => read(text), { code: 'config_invalid', message })
  },
  title: (_, __, message) => `refused: ${message}`,
})
test(refused, `${PEER}[[arenas]]\nname = "c"\ncolour = 1`, `config.toml:5: unknown key 'colour' in [[arenas]] 'c'`)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\nversions = { kep = "1d" }`,
  `config.toml:5: unknown key 'kep' in [[arenas]] versions; did you mean 'keep'?`,
)
test(
  refused,
  `${PEER}\n[[arenas]]\nname = "c"\n\n[arenas.guard]\n# why\ndeltes = "1%"`,
  `config.toml:9: unknown key 'deltes' in [[arenas]] guard; did you mean 'deletes'?`,
)
test(refused, `${PEER}[[arena]]\nname = "c"`, `config.toml:3: unknown key 'arena' in the file; did you mean 'arenas'?`)
test(refused, `${PEER}lisen = []`, `config.toml:3: unknown key 'lisen' in [peer]; did you mean 'listen'?`)
test(refused, `${PEER}__proto__ = 1`, `config.toml:3: unknown key '__proto__' in [peer]`)
test(refused, '', `config.toml: 'peer' is missing in the file`)
test(refused, '[peer]\nlisten = []', `config.toml:1: 'name' is missing in [peer]`)
test(
  refused,
  '[peer]\nname = 3',
  `config.toml:2: 'name' in [peer]: expected 1 to 64 characters without control characters`,
)
test(refused, `${PEER}listen = "0.0.0.0:1"`, `config.toml:3: 'listen' in [peer]: expected array`)
test(
  refused,
  `${PEER}listen = ["a:1",\n"b:c"]`,
  `config.toml:4: 'listen': 'b:c' is not an address such as "server.lan:9771" or "[::1]:9771"`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\nmark = "reel"`,
  `config.toml:5: 'mark' in [[arenas]]: expected one of "real", "pinned", "unreal"`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\nmark = "real"`,
  `config.toml:5: 'mark' in [[arenas]] 'c': without a path nothing is real`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\nversions = "30d"`,
  `config.toml:5: 'versions' in [[arenas]]: expected a table, such as { keep = "30d" }`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c/d"`,
  `config.toml:4: 'name' in [[arenas]]: expected letters, digits, ".", "_" and "-", at most 64, not beginning with a sign`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\nrescan = "1 fortnight"`,
  `config.toml:5: 'rescan': '1 fortnight' is not a duration such as "30s", "1h" or "30d"`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\nrescan = "25d"`,
  `config.toml:5: 'rescan': '25d' is not within 1s and 24d`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\nguard.deletes = "101%"`,
  `config.toml:5: 'deletes': '101%' is not a part such as "50%"`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\ncache = {\n max = "5 apples" }`,
  `config.toml:6: 'max': '5 apples' is not a size such as "10MB" or "1.5GiB"`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\npath = "Documents"`,
  `config.toml:5: 'path': 'Documents' is not an absolute path and does not begin with "~/"`,
)
test(refused, `${PEER}${SERVER}rate = { up = "1B" }`, `config.toml:6: 'up': '1B' is too small: at least 1000 bytes`)
test(refused, `${PEER}${SERVER}${SERVER}`, `config.toml:7: two peers are called 'server'`)
test(
  refused,
  `${PEER}${SERVER}${SERVER.replace('"server"', '"twin"')}`,
  `config.toml:8: the peers 'server' and 'twin' have the same id`,
)
test(
  refused,
  `${PEER}${SERVER}[[arenas]]\nname = "c"\npeers = [\n  "server",\n  "sever",\n]`,
  `config.toml:10: arena 'c' names the peer 'sever', and no [[peers]] is called so; did you mean 'server'?`,
)
test(refused, `${PEER}[[arenas]]\nname = "c"\n[[arenas]]\nname = "c"`, `config.toml:6: two arenas are called 'c'`)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\n[[arenas]]\nname = "C"`,
  `config.toml:6: the arenas 'c' and 'C' differ only in upper and lower case`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\npath = "/a/b"\n[[arenas]]\nname = "d"\npath = "/a/x/../b/c"`,
  `config.toml:8: the folders of the arenas 'c' and 'd' are one in the other`,
)
test(
  refused,
  `${PEER}[[arenas]]\nname = "c"\npath = "~"`,
  `config.toml:5: arena 'c' and Realize's own folder /home/ada/.local/state/realize are one in the other`,
)

test('a fault of the TOML is told with its line', t => {
  t.throws(() => read('[peer]\nname = "a"\nlisten = [\n\n[[peers]]'), {
    code: 'config_invalid',
    message: /^config\.toml:\d+: not valid TOML: /,
  })
  t.throws(() => read('[peer]\nname = "a"\nname = "b"'), { message: /^config\.toml:3: not valid TOML: / })
})

test('folders beside each other with a common beginning are not one in the other', t => {
  t.notThrows(() => read(`${PEER}[[arenas]]\nname = "c"\npath = "/a/b"\n[[arenas]]\nname = "d"\npath = "/a/bc"`))
})

test('any unknown key anywhere is refused by name', t => {
  const key = fc.stringMatching(/^[a-z]{1,12}$/)
  const known = new Set(['peer', 'peers', 'arenas', ...['peer', 'peers', 'arenas'].flatMap(name => keysOf(name))])
  fc.assert(
    fc.property(key, fc.constantFrom('', '[peer]', '[[peers]]', '[[arenas]]'), (key, head) => {
      fc.pre(!known.has(key))
      const text =
        head === '' ? `${key} = 1\n${PEER}` : head === '[peer]' ? `${PEER}${key} = 1` : `${PEER}${head}\n${key} = 1`
      const error = t.throws(() => read(text), { code: 'config_invalid' })
      t.true(error?.message.includes(`unknown key '${key}'`), error?.message)
    }),
  )
})

function keysOf(name: string): string[] {
  const schema = ConfigFile.properties[name as keyof typeof ConfigFile.properties] as TSchema
  return Object.keys(((schema.items ?? schema) as TObject).properties)
}

test('sizes, durations and parts have units and limits', t => {
  t.is(parseSize('10MB'), 10_000_000)
  t.is(parseSize('10 mib'), 10_485_760)
  t.is(parseSize('0B'), 0)
  t.is(parseDuration('90m', { minimum: '1s', maximum: '2h' }), 5_400_000)
  t.is(parseDuration('1.5h', { minimum: '1s', maximum: '2h' }), 5_400_000)
  t.is(parsePart('12.5%'), 0.125)
  for (const text of ['', '10', 'MB', '-1MB', '1e3MB', '1MB2', '9999TB9', '99999999999TB', 'NaNB', '1ZB'])
    t.throws(() => parseSize(text), { instanceOf: RangeError }, text)
  for (const text of ['', '1', 'h', '1H', '3h', '0.5s', '-1h'])
    t.throws(() => parseDuration(text, { minimum: '1s', maximum: '2h' }), { instanceOf: RangeError }, text)
  for (const text of ['', '%', '5', '100.1%', '-5%', '1e1%'])
    t.throws(() => parsePart(text), { instanceOf: RangeError }, text)
})

test('an address reads back as it was written', t => {
  for (const text of ['a:1', '10.0.0.1:65535', '[::1]:9771', '[fe80::1%eth0]:5'])
    t.is(formatAddress(parseAddress(text)), text)
  for (const text of ['', ':1', 'a:', 'a:0', 'a:65536', '::1', 'a b:1', 'http://a:1', 'a:1:2'])
    t.throws(() => parseAddress(text), { instanceOf: RangeError }, text)
})

test('the configuration of a first start is valid, whatever the names are', t => {
  const name = fc.string({ unit: 'binary', minLength: 1, maxLength: 40 })
  fc.assert(
    fc.property(name, text => {
      t.notRegex(quote(text), /[\u0000-\u001f\u007f]/)
    }),
  )
  const text = defaultConfig({ name: 'Ada "x" \\ y', arena: { name: 'realize', path: '/home/ada/Rea"lize' } })
  const config = read(text)
  t.is(config.peer.name, 'Ada "x" \\ y')
  t.is(config.arenas[0]?.path, '/home/ada/Rea"lize')
  t.deepEqual(read(defaultConfig({ name: 'a' })).arenas, [])
})

test('the manual has every key with its default and what it is for', t => {
  const manual = readFileSync(new URL('../../../docs/config.md', import.meta.url), 'utf8')
  const rows: string[] = []
  const walk = (schema: TSchema, name: string) => {
    const table = (schema.items ?? schema) as TObject
    const prefix = schema.type === 'array' ? `[[${name}]]` : `[${name}]`
    for (const [key, inner] of Object.entries(table.properties)) row(`${prefix} ${key}`, inner, table)
  }
  const row = (name: string, schema: TSchema, table: TObject) => {
    if (schema.type === 'object') {
      for (const [key, inner] of Object.entries((schema as TObject).properties))
        row(`${name}.${key}`, inner, schema as TObject)
      return
    }
    const optional = !table.required?.includes(name.split(/[ .]/).at(-1) as string)
    const fallback =
      schema.default === undefined ? (optional ? '' : 'required') : `\`${JSON.stringify(schema.default)}\``
    rows.push(`| \`${name}\` | ${fallback} | ${schema.description} |`)
  }
  for (const [name, schema] of Object.entries(ConfigFile.properties)) walk(schema, name)
  for (const row of rows) t.true(manual.includes(row), `docs/config.md lacks this line:\n${row}`)
})
