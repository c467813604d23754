import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { parse, stringify } from 'smol-toml'
import { SyncError } from '../../protocol/error.ts'
import { parseConfig } from '../../supervisor/config.ts'
import {
  addArena,
  addPeer,
  addPeerToArena,
  freePeerName,
  removeArena,
  removePeer,
  setArenaKey,
  setPeerKey,
} from '../../supervisor/config-edit.ts'
import { writeFileAtomic } from '../../supervisor/config-write.ts'
import { temporaryFolder } from '../_temp.ts'
import { ID_A, ID_B } from './_peers.ts'

const TEXT = `# Realize
[peer] # me
name = "laptop"   # the name

# My server, do not remove
[[peers]]
name = "server"
id = "${ID_A}"
addresses = [
  "server.lan:9771", # home
]

# Documents.
[[arenas]]
name = "documents"
path = "~/Documents"
peers = ["server"] # just one
# ignores:
ignore = ["*.tmp"]

# end of file
`

test('a new peer stands behind the last one and before the words about what follows', t => {
  const edited = addPeer(TEXT, { name: 'nas', id: ID_B, addresses: ['nas:1'] })
  t.is(
    edited,
    TEXT.replace(
      ']\n\n# Documents.',
      `]\n\n[[peers]]\nname = "nas"\nid = "${ID_B}"\naddresses = ["nas:1"]\n\n# Documents.`,
    ),
  )
})

test('a first peer and a first arena stand at the end', t => {
  const peer = '[peer]\nname = "a"\n\n# [[peers]]\n# name = "example"\n'
  const edited = addArena(addPeer(peer, { name: 'nas', id: ID_B, addresses: [] }), { name: 'docs', path: '/d' })
  t.is(
    edited,
    `${peer}\n[[peers]]\nname = "nas"\nid = "${ID_B}"\naddresses = []\n\n[[arenas]]\nname = "docs"\npath = "/d"\n`,
  )
})

test('removing the last peer of an arena shares it with nobody, not with everybody', t => {
  const config = parseConfig(removePeer(TEXT, 'server'), 'config.toml', { homedir: '/home/ada' })
  t.deepEqual(config.peers, [])
  t.deepEqual(config.arenas[0]?.peers, [])
})

test('keys of an arena are set in its block, and gone when they are the default', t => {
  const paused = setArenaKey(TEXT, 'documents', 'paused', true)
  t.is(paused, TEXT.replace('ignore = ["*.tmp"]\n', 'ignore = ["*.tmp"]\npaused = true\n'))
  t.is(setArenaKey(paused, 'documents', 'paused', false), TEXT)
  t.is(setArenaKey(paused, 'documents', 'paused', true), paused)
  t.true(setArenaKey(TEXT, 'documents', 'mark', 'pinned').includes('\nmark = "pinned"\n\n# end of file'))
  t.false('peers' in ((parse(setArenaKey(TEXT, 'documents', 'peers', null)).arenas as object[])[0] as object))
})

test('a peer is added to an arena that names its peers, and to no other', t => {
  const two = addPeer(TEXT, { name: 'nas', id: ID_B, addresses: [] })
  t.is(addPeerToArena(two, 'documents', 'nas'), two.replace('["server"] # just', '["server", "nas"] # just'))
  const open = setArenaKey(two, 'documents', 'peers', null)
  t.is(addPeerToArena(open, 'documents', 'nas'), open)
})

test('what is not there and what is there twice is told', t => {
  t.throws(() => removePeer(TEXT, 'x'), { code: 'peer_unknown' })
  t.throws(() => setPeerKey(TEXT, 'x', 'paused', true), { code: 'peer_unknown' })
  t.throws(() => removeArena(TEXT, 'x'), { code: 'arena_unknown' })
  t.throws(() => setArenaKey(TEXT, 'x', 'paused', true), { code: 'arena_unknown' })
  t.throws(() => addPeer(TEXT, { name: 'server', id: ID_B, addresses: [] }), { code: 'already_exists' })
  t.throws(() => addArena(TEXT, { name: 'Documents', path: '/x' }), { code: 'already_exists' })
})

test('other ways of writing the same are edited too: inline tables, dotted keys, sub-tables, CRLF', t => {
  const inline = `peers = [{ name = "server", id = "${ID_A}" }] # mine\n[peer]\nname = "a"\n`
  const one = addPeer(inline, { name: 'nas', id: ID_B, addresses: [] })
  t.true(one.includes('# mine'))
  t.is((parse(one).peers as object[]).length, 2)
  const nested = `[peer]\nname = "a"\n[[arenas]]\nname = "x"\n[arenas.guard] # g\ndeletes = "1%"\n[[arenas]]\nname = "y"\n`
  const two = setArenaKey(nested, 'x', 'paused', true)
  t.deepEqual(parse(two).arenas as unknown, [{ name: 'x', guard: { deletes: '1%' }, paused: true }, { name: 'y' }])
  const three = addArena(nested, { name: 'z', path: '/z' })
  t.deepEqual(
    (parse(three).arenas as { name: string }[]).map(arena => arena.name),
    ['x', 'y', 'z'],
  )
  const crlf = addPeer(TEXT.replaceAll('\n', '\r\n'), { name: 'nas', id: ID_B, addresses: [] })
  t.notRegex(crlf, /[^\r]\n/)
})

test('an edit of what is not valid TOML is refused', t => {
  t.throws(() => addPeer('[peer', { name: 'a', id: ID_A, addresses: [] }), { code: 'config_invalid' })
})

test('a claimed name becomes one that a configuration takes and nobody has', t => {
  t.is(freePeerName('  Ada’s laptop ', []), 'Ada’s laptop')
  t.is(freePeerName('nas', ['nas', 'nas-2']), 'nas-3')
  t.is(freePeerName('\u0000\u202e\ud800', ['x']), '\ufffd')
  t.is(freePeerName('\u0000', []), 'peer')
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 100 }), fc.boolean(), (claimed, again) => {
      const first = freePeerName(claimed, [])
      const name = again ? freePeerName(claimed, [first]) : first
      const text = addPeer('[peer]\nname = "a"\n', { name, id: ID_A, addresses: [] })
      t.is(parseConfig(text, 'config.toml', { homedir: '/' }).peers[0]?.name, name)
    }),
  )
})

// A law: after any edits the document is what was asked for, and comments of what stays are where they were.

type Edit =
  | {
      do: 'addPeer' | 'removePeer' | 'pausePeer' | 'addArena' | 'removeArena' | 'pause' | 'resume' | 'mark'
      which: number
    }
  | { do: 'share'; which: number; peer: number }

const edits = fc.array(
  fc.oneof(
    fc.record({
      do: fc.constantFrom<'addPeer'>(
        ...([
          'addPeer',
          'removePeer',
          'pausePeer',
          'addArena',
          'removeArena',
          'pause',
          'resume',
          'mark',
        ] as 'addPeer'[]),
      ),
      which: fc.nat(5),
    }),
    fc.record({ do: fc.constant('share' as const), which: fc.nat(5), peer: fc.nat(5) }),
  ),
  { maxLength: 12 },
) as fc.Arbitrary<Edit[]>

interface Layout {
  blank: boolean
  inside: boolean
  trailing: boolean
}
const layouts = fc.array(fc.record({ blank: fc.boolean(), inside: fc.boolean(), trailing: fc.boolean() }), {
  minLength: 5,
  maxLength: 5,
})

/** Two peers and three arenas; each has a comment of its own, some set off by a blank line, inside, or behind a value. */
function document(layout: readonly Layout[]): string {
  const block = (i: number, head: string, name: string, rows: string[]) => {
    const { blank, inside, trailing } = layout[i] as Layout
    return [
      '',
      `# about ${name}`,
      ...(blank ? [''] : []),
      head,
      `name = "${name}"${trailing ? ` # name ${name}` : ''}`,
      ...(inside ? [`# inside ${name}`] : []),
      ...rows,
    ]
  }
  return [
    '# top',
    '[peer]',
    'name = "me" # my name',
    ...block(0, '[[peers]]', 'p0', [`id = "${ID_A}"`]),
    ...block(1, '[[peers]]', 'p1', [`id = "${ID_B}"`, 'rate.up = "1MB" # slow']),
    ...block(2, '[[arenas]]', 'a0', ['path = "/a0"', 'peers = ["p0", "p1"] # both']),
    ...block(3, '[[arenas]]', 'a1', ['path = "/a1"', 'ignore = [', '  "x", # an x', ']']),
    ...block(4, '[[arenas]]', 'a2', ['path = "/a2"', 'peers = ["p1"]', 'versions = { keep = "1d" }']),
    '',
    '# the end',
    '',
  ].join('\n')
}

test('after any edits the document says what was asked for, and other comments stay in their order', t => {
  fc.assert(
    fc.property(layouts, edits, (layout, edits) => {
      let text = document(layout)
      const before = text
      const removed = new Set<string>()
      type Names = { name: string; peers?: string[]; paused?: boolean; mark?: string }
      const model = parse(text) as unknown as { peers?: Names[]; arenas?: Names[] }
      for (const edit of edits) {
        const peer = `p${edit.which}`
        const arena = `a${edit.which}`
        const peers = model.peers ?? []
        const arenas = model.arenas ?? []
        const known = arenas.find(({ name }) => name === arena)
        const knownPeer = peers.find(({ name }) => name === peer)
        if (edit.do === 'addPeer' && !knownPeer) {
          text = addPeer(text, { name: peer, id: 'X', addresses: ['x:1'] })
          model.peers = [...peers, { name: peer, id: 'X', addresses: ['x:1'] } as Names]
        } else if (edit.do === 'removePeer' && knownPeer) {
          text = removePeer(text, peer)
          model.peers = peers.filter(({ name }) => name !== peer)
          for (const arena of arenas) if (arena.peers) arena.peers = arena.peers.filter(name => name !== peer)
          removed.add(peer)
        } else if (edit.do === 'pausePeer' && knownPeer) {
          text = setPeerKey(text, peer, 'paused', true)
          knownPeer.paused = true
        } else if (edit.do === 'addArena' && !known) {
          text = addArena(text, { name: arena, path: `/${arena}`, peers: [] })
          model.arenas = [...arenas, { name: arena, path: `/${arena}`, peers: [] } as Names]
        } else if (edit.do === 'removeArena' && known) {
          text = removeArena(text, arena)
          model.arenas = arenas.filter(({ name }) => name !== arena)
          removed.add(arena)
        } else if (edit.do === 'pause' && known) {
          text = setArenaKey(text, arena, 'paused', true)
          known.paused = true
        } else if (edit.do === 'resume' && known) {
          text = setArenaKey(text, arena, 'paused', false)
          delete known.paused
        } else if (edit.do === 'mark' && known) {
          text = setArenaKey(text, arena, 'mark', 'pinned')
          known.mark = 'pinned'
        } else if (edit.do === 'share' && known) {
          text = addPeerToArena(text, arena, `p${edit.peer}`)
          if (known.peers && !known.peers.includes(`p${edit.peer}`)) known.peers.push(`p${edit.peer}`)
        }
      }
      if (model.peers?.length === 0) delete model.peers
      if (model.arenas?.length === 0) delete model.arenas
      t.deepEqual(parse(text) as unknown, model as unknown)
      const kept = commentsOf(before).filter(comment => ![...removed].some(name => belongsTo(comment, name)))
      const after = commentsOf(text)
      t.deepEqual(
        after.filter(comment => kept.includes(comment)),
        kept,
      )
    }),
    { numRuns: 300 },
  )
})

test('an edit of any TOML does what was asked for and nothing else, or is refused', t => {
  const text = fc.string({ maxLength: 12 }).filter(word => word.isWellFormed())
  const scalar = fc.oneof(text, fc.integer({ min: -1e6, max: 1e6 }), fc.boolean(), fc.date({ noInvalidDate: true }))
  const keys = fc.oneof(fc.constantFrom('name', 'peers', 'path', 'paused', 'a.b', 'ü', ' '), text)
  const table = fc.dictionary(
    keys,
    fc.oneof(scalar, fc.array(text, { maxLength: 3 }), fc.dictionary(keys, scalar, { maxKeys: 2 })),
    {
      maxKeys: 4,
      noNullPrototype: true,
    },
  )
  const named = fc
    .array(table, { maxLength: 3 })
    .map(tables => tables.map((one, index) => ({ ...one, name: `n${index}` })))
  const documents = fc
    .record({ other: table, peers: named, arenas: named, comment: fc.constantFrom('', '# a word\n', '\n# é\n\n') })
    .map(({ other, peers, arenas, comment }) => ({
      text: `${comment}\n${stringify({ ...other, peers, arenas })}\n${comment}`,
    }))
  const edits: ((text: string) => string)[] = [
    before => addPeer(before, { name: 'new "one"', id: ID_A, addresses: ['a:1'] }),
    before => removePeer(before, 'n0'),
    before => addArena(before, { name: 'new', path: null, peers: ['n0'] }),
    before => removeArena(before, 'n1'),
    before => setArenaKey(before, 'n0', 'paused', true),
    before => setArenaKey(before, 'n0', 'peers', null),
    before => setPeerKey(before, 'n1', 'paused', true),
  ]
  let taken = 0
  fc.assert(
    fc.property(documents, fc.constantFrom(...edits), ({ text: before }, edit) => {
      let after: string
      try {
        after = edit(before)
      } catch (error) {
        t.true(error instanceof SyncError, String(error))
        return
      }
      taken++
      const rest = (document: Record<string, unknown>) => {
        const { peers: _, arenas: __, ...others } = document
        return structuredClone(others)
      }
      t.deepEqual(rest(parse(after)), rest(parse(before)))
      t.deepEqual(
        commentsOf(after).filter(comment => comment === '# a word' || comment === '# é'),
        commentsOf(before).filter(comment => comment === '# a word' || comment === '# é'),
      )
    }),
    { numRuns: 400 },
  )
  t.true(taken > 30, `only ${taken} were not refused`)
})

function commentsOf(text: string): string[] {
  return [...text.matchAll(/#.*/g)].map(match => match[0])
}

/** Comments that may go with what they are about. */
function belongsTo(comment: string, name: string): boolean {
  const rows: Record<string, string[]> = { p1: ['# slow'], a0: ['# both'], a1: ['# an x'] }
  return comment.endsWith(` ${name}`) || (rows[name] ?? []).includes(comment)
}

// The file

test('a file is replaced whole, keeps its mode, and leaves nothing behind', t => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'config.toml')
  writeFileAtomic(path, 'one')
  t.is(statSync(path).mode & 0o777, 0o600)
  chmodSync(path, 0o640)
  writeFileAtomic(path, 'two')
  t.is(readFileSync(path, 'utf8'), 'two')
  t.is(statSync(path).mode & 0o777, 0o640)
  t.deepEqual(readdirSync(folder), ['config.toml'])
})

test('a configuration that is a symlink stays one', t => {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'dotfiles'))
  writeFileSync(join(folder, 'dotfiles', 'realize.toml'), 'one')
  symlinkSync(join('dotfiles', 'realize.toml'), join(folder, 'config.toml'))
  writeFileAtomic(join(folder, 'config.toml'), 'two')
  t.true(lstatSync(join(folder, 'config.toml')).isSymbolicLink())
  t.is(readFileSync(join(folder, 'dotfiles', 'realize.toml'), 'utf8'), 'two')
})

test('a folder that is not there is an error, and nothing is written', t => {
  const folder = temporaryFolder(t)
  t.throws(() => writeFileAtomic(join(folder, 'none', 'config.toml'), 'x'), { code: 'ENOENT' })
  t.deepEqual(readdirSync(folder), [])
})
