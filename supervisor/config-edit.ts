/**
 * Changes to config.toml that keep its comments and order: text in, text out, and nothing else.
 *
 * Every edit says what document it intends. What comes out is read again and compared with that, so that a slip of the
 * editing can be an error, but never a configuration that nobody asked for.
 */
import { isDeepStrictEqual } from 'node:util'
import { patch } from '@decimalturn/toml-patch'
import { parse } from 'smol-toml'
import type { Mark } from '../protocol/control.ts'
import { SyncError } from '../protocol/error.ts'
import { parseToml, quote } from './config.ts'
import { blocksOf, type InlineArray, type TomlBlock } from './config-lines.ts'

type Table = Record<string, unknown>
/** What commands write. */
type Plain = string | boolean | string[]

export interface NewPeer {
  name: string
  id: string
  addresses: readonly string[]
}

export interface NewArena {
  name: string
  /** As it is to stand in the file; null: nothing real here. */
  path: string | null
  /** null: the whole household. */
  peers?: readonly string[] | null
  mark?: Mark
  conflicts?: 'keep-both' | 'newest' | 'local'
}

/** Settings that commands change. `peers` null: the whole household. */
export interface ArenaKeys {
  paused: boolean
  /** null: what it is if nothing is said. */
  mark: Mark | null
  peers: readonly string[] | null
}

/** Throws `already_exists`. */
export function addPeer(text: string, peer: NewPeer): string {
  const document = read(text)
  const peers = tables(document, 'peers')
  if (peers.some(other => other.name === peer.name))
    throw new SyncError('already_exists', `there is a peer called '${peer.name}' already: choose another name`)
  return append(text, 'peers', { name: peer.name, id: peer.id, addresses: [...peer.addresses] })
}

/** Also takes the peer off the arenas that name it. Throws `peer_unknown`. */
export function removePeer(text: string, name: string): string {
  const document = read(text)
  const peers = tables(document, 'peers')
  if (!peers.some(peer => peer.name === name)) throw unknownPeer(name)
  let edited = text
  for (const [i, arena] of tables(document, 'arenas').entries()) {
    const named = arena.peers
    // A list that becomes empty stays: without it the arena would be shared with everybody.
    if (Array.isArray(named) && named.includes(name)) {
      edited = set(
        edited,
        'arenas',
        i,
        'peers',
        named.filter(other => other !== name),
      )
    }
  }
  return remove(edited, 'peers', peer => peer.name === name)
}

/** Throws `peer_unknown`. */
export function setPeerKey(text: string, name: string, key: 'paused', value: boolean): string {
  const index = tables(read(text), 'peers').findIndex(peer => peer.name === name)
  if (index < 0) throw unknownPeer(name)
  return set(text, 'peers', index, key, value || undefined)
}

/** Throws `already_exists`. */
export function addArena(text: string, arena: NewArena): string {
  const arenas = tables(read(text), 'arenas')
  if (arenas.some(other => String(other.name).toLowerCase() === arena.name.toLowerCase()))
    throw new SyncError('already_exists', `there is an arena called '${arena.name}' already`)
  return append(text, 'arenas', {
    name: arena.name,
    ...(arena.path === null ? {} : { path: arena.path }),
    ...(arena.peers ? { peers: [...arena.peers] } : {}),
    ...(arena.mark === undefined ? {} : { mark: arena.mark }),
    ...(arena.conflicts === undefined ? {} : { conflicts: arena.conflicts }),
  })
}

/** Throws `arena_unknown`. */
export function removeArena(text: string, name: string): string {
  arenaIndex(read(text), name)
  return remove(text, 'arenas', arena => arena.name === name)
}

/** Sets a key of an arena; a value that is the default takes it away. Throws `arena_unknown`. */
export function setArenaKey<Key extends keyof ArenaKeys>(
  text: string,
  name: string,
  key: Key,
  value: ArenaKeys[Key],
): string {
  const setting: ArenaKeys[keyof ArenaKeys] = value
  const plain =
    setting === false || setting === null
      ? undefined
      : typeof setting === 'string' || setting === true
        ? setting
        : [...setting]
  return set(text, 'arenas', arenaIndex(read(text), name), key, plain)
}

/** Shares an arena with one more peer; one that is shared with the whole household stays so. Throws `arena_unknown`. */
export function addPeerToArena(text: string, arena: string, peer: string): string {
  const document = read(text)
  const named = at(document, 'arenas', arenaIndex(document, arena)).peers
  if (!Array.isArray(named) || named.includes(peer)) return text
  return setArenaKey(text, arena, 'peers', [...named, peer])
}

/**
 * A name for a peer that says itself what it is called: without what a configuration refuses, and unlike those taken.
 *
 * @param claimed from outside, anything
 */
export function freePeerName(claimed: string, taken: readonly string[]): string {
  let clean = ''
  for (const character of claimed.normalize('NFC').toWellFormed().trim()) {
    // Controls, marks of direction, lines: all that a name may not have, and what nobody could see.
    if (!/[\p{C}\p{Zl}\p{Zp}]/u.test(character) && clean.length + character.length <= 48) clean += character
  }
  clean = clean.trim()
  const base = clean === '' ? 'peer' : clean
  for (let i = 1; ; i++) {
    const name = i === 1 ? base : `${base}-${i}`
    if (!taken.includes(name)) return name
  }
}

// How

function read(text: string): Table {
  return parseToml(text, 'config.toml')
}

function tables(document: Table, key: string): Table[] {
  const value = document[key] ?? []
  if (!Array.isArray(value) || value.some(item => typeof item !== 'object' || item === null))
    throw new SyncError('config_invalid', `config.toml: '${key}' is not a list of tables`)
  return value
}

function at(document: Table, key: string, index: number): Table {
  return tables(document, key)[index] as Table
}

function arenaIndex(document: Table, name: string): number {
  const index = tables(document, 'arenas').findIndex(arena => arena.name === name)
  if (index < 0) throw new SyncError('arena_unknown', `there is no arena '${name}': \`realize arena list\` shows them`)
  return index
}

function unknownPeer(name: string): SyncError {
  return new SyncError('peer_unknown', `there is no peer '${name}': \`realize peer list\` shows them`)
}

/** A new block behind the last of its kind, or at the end. */
function append(text: string, key: 'peers' | 'arenas', table: Record<string, Plain>): string {
  const intended = read(text)
  intended[key] = [...tables(intended, key), table]
  const blocks = layout(text)
  const list = blocks.find(block => block.kind === 'row' && block.rows[0]?.key.value[0] === key)?.rows[0]
  if (list) {
    if (list.value.type !== 'InlineArray') throw unable()
    const rows = Object.entries(table).map(([name, value]) => row(name, value))
    return verified(withItem(text, list.value, `{ ${rows.join(', ')} }`), intended)
  }
  const block = [`[[${key}]]`, ...Object.entries(table).map(([name, value]) => row(name, value))]
  const lines = split(text)
  const same = blocks.findLast(block => block.path[0] === key)
  if (same) lines.all.splice(same.lastLine, 0, '', ...block)
  else {
    while (lines.all.at(-1)?.trim() === '') lines.all.pop()
    if (lines.all.length > 0) lines.all.push('')
    lines.all.push(...block, '')
  }
  return verified(lines.join(), intended)
}

/** Sets (or, with undefined, takes away) one key of one table of a list. */
function set(text: string, key: 'peers' | 'arenas', index: number, name: string, value: Plain | undefined): string {
  const intended = read(text)
  const table = at(intended, key, index)
  const before = table[name]
  if (isDeepStrictEqual(before, value)) return text
  if (value === undefined) delete table[name]
  else table[name] = value
  const block = layout(text).find(block => block.kind === 'element' && isDeepStrictEqual(block.path, [key, index]))
  // Another way of writing it: a list of inline tables.
  if (!block) return verified(patchedWithin(text, key, intended), intended)
  const lines = split(text)
  const old = block.rows.find(row => isDeepStrictEqual(row.key.value, [name]))
  if (value === undefined) {
    if (!old) throw unable()
    lines.all.splice(old.loc.start.line - 1, old.loc.end.line - old.loc.start.line + 1)
    return verified(lines.join(), intended)
  }
  if (!old) {
    lines.all.splice(block.lastLine, 0, indentOf(lines.all, block) + row(name, value))
    return verified(lines.join(), intended)
  }
  if (Array.isArray(value) && Array.isArray(before) && old.value.type === 'InlineArray') {
    const added = value.slice(before.length)
    if (added.length === 1 && isDeepStrictEqual(value.slice(0, before.length), before))
      return verified(withItem(text, old.value, quote(added[0] as string)), intended)
  }
  const { start, end } = old.value.loc
  return verified(replaced(text, start, end, plainText(value)), intended)
}

/** Takes a block away, with its sub-tables and the comment right above it. Other comments stay. */
function remove(text: string, key: 'peers' | 'arenas', doomed: (table: Table) => boolean): string {
  const intended = read(text)
  const index = tables(intended, key).findIndex(doomed)
  const rest = tables(intended, key).filter(table => !doomed(table))
  if (rest.length === 0) delete intended[key]
  else intended[key] = rest
  const blocks = layout(text).filter(block => block.kind !== 'row' && block.path[0] === key && block.path[1] === index)
  if (blocks.length === 0) return verified(patchedWithin(text, key, intended), intended)
  const lines = split(text)
  for (const block of blocks.reverse()) {
    let first = block.firstLine - 1
    while (/^[ \t]*#/.test(lines.all[first - 1] ?? '')) first--
    let last = block.lastLine
    // One of the two empty lines around it goes too.
    if (lines.all[last]?.trim() === '' && (first === 0 || lines.all[first - 1]?.trim() === '')) last++
    lines.all.splice(first, last - first)
  }
  return verified(lines.join(), intended)
}

/** `patch`, for forms that are rarely used; refused if it would touch any line but those of the list itself. */
function patchedWithin(text: string, key: 'peers' | 'arenas', intended: Table): string {
  const list = layout(text).find(block => block.kind === 'row' && block.rows[0]?.key.value[0] === key)
  if (!list) throw unable()
  const lines = split(text)
  const before = lines.all.slice(0, list.firstLine - 1)
  const after = lines.all.slice(list.lastLine)
  const patched = patch(text, intended)
  const outcome = split(patched).all
  const same =
    isDeepStrictEqual(outcome.slice(0, before.length), before) &&
    isDeepStrictEqual(after.length === 0 ? [] : outcome.slice(-after.length), after)
  if (!same) throw unable()
  return patched
}

function layout(text: string): TomlBlock[] {
  const blocks = blocksOf(text)
  if (!blocks) throw unable()
  return blocks
}

/** The edited text, if it says what was intended. */
function verified(text: string, intended: Table): string {
  let outcome: unknown
  try {
    outcome = parse(text)
  } catch (error) {
    throw unable(error)
  }
  // Cloned, because the parser's tables have no prototype and those made here do.
  if (!isDeepStrictEqual(structuredClone(outcome), structuredClone(intended))) throw unable()
  return text
}

function unable(cause?: unknown): SyncError {
  return new SyncError(
    'config_invalid',
    'config.toml is written in a way that cannot be edited safely: change it by hand and reload',
    { cause },
  )
}

// Text

interface Position {
  /** From 1. */
  line: number
  column: number
}

/** One more item behind the last of an inline list. */
function withItem(text: string, list: InlineArray, item: string): string {
  const last = list.items.at(-1)?.item
  if (!last) return replaced(text, list.loc.start, list.loc.end, `[${item}]`)
  return replaced(text, last.loc.end, last.loc.end, `, ${item}`)
}

function replaced(text: string, start: Position, end: Position, by: string): string {
  const lines = text.split('\n')
  const offset = ({ line, column }: Position) =>
    lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0) + column
  return text.slice(0, offset(start)) + by + text.slice(offset(end))
}

function row(key: string, value: Plain): string {
  return `${key} = ${plainText(value)}`
}

function plainText(value: Plain): string {
  if (Array.isArray(value)) return `[${value.map(quote).join(', ')}]`
  return typeof value === 'string' ? quote(value) : String(value)
}

/** Lines without their ends, and how to put them together again as they were. */
function split(text: string): { all: string[]; join(): string } {
  const newline = text.includes('\r\n') ? '\r\n' : '\n'
  const all = text.split(/\r?\n/)
  return { all, join: () => all.join(newline) }
}

function indentOf(lines: readonly string[], block: TomlBlock): string {
  const first = block.rows[0]
  return first ? (/^[ \t]*/.exec(lines[first.loc.start.line - 1] ?? '')?.[0] ?? '') : ''
}
