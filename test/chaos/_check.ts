/**
 * What the disks show when everybody has come to rest, and whether that is what must be. Looks at files only; what a peer
 * ignores, and what has a name that cannot be synced, is each peer's own.
 */
import { closeSync, constants, lstatSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { IGNORE_FILE, IgnoreRules } from '../../actors/arena/ignore-rules.ts'
import type { EntryPath } from '../../protocol/ids.ts'
import { OWN_FOLDER } from '../../protocol/path.ts'
import { differences, type Tree } from '../system/_tree.ts'
import { EMPTY, keyOfFile, keyOfLink, type Ledger } from './_ledger.ts'

export class Violation extends Error {
  /** An invariant and what is wrong with it, in a few words. */
  readonly kind: string
  constructor(kind: string, detail: string) {
    super(`${kind}: ${detail}`)
    this.kind = kind
  }
}

interface Shown {
  readonly type: 'file' | 'dir' | 'symlink' | 'other'
  /** One line: all that must be the same on every peer. */
  readonly line: string
  readonly key: string | null
  readonly bytes: number
  /** Changes with every change of the disk. */
  readonly stamp: string
}

/** All of one peer's root. */
export interface Sight {
  readonly peer: string
  readonly synced: ReadonlyMap<string, Shown>
  /** Ignored or with an impossible name, and all below. */
  readonly own: ReadonlyMap<string, Shown>
  /** Names that are not UTF-8. */
  readonly invalid: readonly string[]
  /** Content of the version store. */
  readonly kept: ReadonlySet<string>
  readonly keptBytes: number
  readonly staged: readonly string[]
  /** Changes with every change of anything above. */
  readonly stamps: string
}

/** What a file held when it had this stamp. */
export type Keys = Map<string, string>

export function look(peer: string, root: string, keys: Keys): Sight {
  const rules = new IgnoreRules([])
  const synced = new Map<string, Shown>()
  const own = new Map<string, Shown>()
  const invalid: string[] = []
  const walk = (folder: Buffer, prefix: string, isOwn: boolean): void => {
    const items = readdirSync(folder, { encoding: 'buffer' }).sort(Buffer.compare)
    if (items.some(name => name.toString() === IGNORE_FILE)) {
      const place = Buffer.concat([folder, Buffer.from(`/${IGNORE_FILE}`)])
      const text = lstatSync(place).isFile() ? readFileSync(place, 'utf8') : null
      if (!isOwn) rules.setFolder(prefix === '' ? undefined : (prefix.slice(0, -1) as EntryPath), text)
    }
    for (const bytes of items) {
      const name = bytes.toString()
      if (prefix === '' && name === OWN_FOLDER) continue
      const path = prefix + name
      const place = Buffer.concat([folder, Buffer.from('/'), bytes])
      const shown = show(place, keys)
      const impossible = !Buffer.from(name).equals(bytes)
      if (impossible) invalid.push(path)
      const mine = isOwn || impossible || rules.ignoresChild(path as EntryPath, shown.type === 'dir')
      const into = mine || shown.type === 'other' ? own : synced
      into.set(path, shown)
      if (shown.type === 'dir') walk(place, `${path}/`, mine)
    }
  }
  walk(Buffer.from(root), '', false)
  // A folder that only holds what is one's own is not the others' concern.
  const living = new Set<string>()
  const holding = new Set<string>()
  for (const path of synced.keys()) for (const folder of above(path)) living.add(folder)
  for (const path of own.keys()) for (const folder of above(path)) holding.add(folder)
  for (const folder of [...holding].sort().reverse()) {
    const shown = synced.get(folder)
    if (!shown || [...synced.keys()].some(path => path.startsWith(`${folder}/`))) continue
    synced.delete(folder)
    own.set(folder, shown)
  }

  const versions = join(root, OWN_FOLDER, 'versions')
  const kept = names(versions).map(name => show(Buffer.from(join(versions, name)), keys))
  const staged = names(join(root, OWN_FOLDER, 'staging'))
  const stamps = JSON.stringify([
    [...synced].map(([path, shown]) => [path, shown.stamp]),
    [...own].map(([path, shown]) => [path, shown.stamp]),
    kept.map(shown => shown.stamp),
    staged,
  ])
  return {
    peer,
    synced,
    own,
    invalid,
    kept: new Set(kept.flatMap(shown => (shown.key === null ? [] : [shown.key]))),
    keptBytes: kept.reduce((sum, shown) => sum + shown.bytes, 0),
    staged,
    stamps,
  }
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder).sort()
  } catch {
    return []
  }
}

function above(path: string): string[] {
  const folders: string[] = []
  for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1))
    folders.push(path.slice(0, slash))
  return folders
}

function show(place: Buffer, keys: Keys): Shown {
  const stat = lstatSync(place, { bigint: true })
  const stamp = `${stat.dev} ${stat.ino} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs} ${stat.mode}`
  if (stat.isDirectory()) return { type: 'dir', line: 'folder', key: null, bytes: 0, stamp: `${stat.ino} ${stat.mode}` }
  if (stat.isSymbolicLink()) {
    const key = keyOfLink(readlinkSync(place))
    return { type: 'symlink', line: key, key, bytes: 0, stamp }
  }
  if (!stat.isFile()) return { type: 'other', line: 'something else', key: null, bytes: 0, stamp }
  let key = keys.get(stamp)
  if (key === undefined) {
    const fd = openSync(place, constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      key = keyOfFile(fd)
    } finally {
      closeSync(fd)
    }
    keys.set(stamp, key)
  }
  const exec = (stat.mode & 0o111n) === 0n ? 'plain' : 'executable'
  return {
    type: 'file',
    line: `${exec} file, ${stat.size} bytes, ${key}, mtime ${stat.mtimeNs}`,
    key,
    bytes: Number(stat.size),
    stamp,
  }
}

/** I2 (and I11 with it): what is not the same everywhere. */
export function checkEqual(sights: readonly Sight[]): void {
  const theirs = new Set(sights.flatMap(sight => [...sight.own.keys()]))
  const treeOf = (sight: Sight): Tree =>
    new Map([...sight.synced].filter(([path]) => !theirs.has(path)).map(([path, shown]) => [path, shown.line]))
  const [first, ...others] = sights as [Sight, ...Sight[]]
  for (const other of others) {
    const wrong = differences(treeOf(first), treeOf(other), first.peer, other.peer)
    if (wrong.length > 0) throw new Violation('I2 different trees', wrong.join('\n'))
  }
}

/** The same where not everybody shows everything: who shows a path shows what the others do, and only files are left out. */
export function checkShown(sights: readonly Sight[]): void {
  const shown = new Map<string, { line: string; peer: string }>()
  for (const { peer, synced } of sights) {
    for (const [path, { line, type }] of synced) {
      const known = shown.get(path)
      if (known !== undefined && known.line !== line)
        throw new Violation('I2 different trees', `${path}: ${known.peer}: ${known.line}; ${peer}: ${line}`)
      shown.set(path, { line, peer })
      if (type !== 'file' && sights.some(other => !other.synced.has(path) && !other.own.has(path)))
        throw new Violation('I2 different trees', `${path}, a ${type} of ${peer}, is not everywhere`)
    }
  }
}

/** I7, I8: what somebody showed, somebody shows. */
export function checkNothingLeft(before: readonly Sight[], after: readonly Sight[]): void {
  for (const { peer, synced } of before)
    for (const [path, { line }] of synced)
      if (!after.some(sight => sight.synced.get(path)?.line === line))
        throw new Violation('I7 last copy', `${path}, which ${peer} had, is at nobody's: ${line}`)
}

/** What programs got when they read files. */
export function checkReads(ledger: Ledger): void {
  for (const { by, key } of ledger.reads.splice(0))
    if (key !== EMPTY && !ledger.written.has(key))
      throw new Violation('I5 wrong read', `${by.peer} read from ${JSON.stringify(by.path)} what nobody wrote (${key})`)
}

/** I1, I4, I5. */
export function checkContents(sights: readonly Sight[], ledger: Ledger): void {
  const held = new Set<string>()
  for (const { synced, own, kept } of sights) {
    for (const shown of [...synced.values(), ...own.values()]) if (shown.key !== null) held.add(shown.key)
    for (const key of kept) held.add(key)
  }
  for (const [key, { peer, path, round, atMs }] of ledger.required) {
    if (held.has(key)) continue
    const when = new Date(atMs).toISOString()
    throw new Violation(
      'I1 lost write',
      `${JSON.stringify(path)} that ${peer} wrote in round ${round} at ${when} (${key})`,
    )
  }
  for (const { peer, synced } of sights) {
    for (const [path, { key }] of synced) {
      if (key === null || key === EMPTY) continue
      const where = `${JSON.stringify(path)} at ${peer} (${key})`
      if (!ledger.written.has(key)) throw new Violation('I5 invented content', where)
      if (ledger.absent.has(key) && !ledger.required.has(key)) throw new Violation('I4 resurrection', where)
    }
  }
}

/** What is at no synced path of anybody now. */
export function absentFrom(sights: readonly Sight[], ledger: Ledger): ReadonlySet<string> {
  const present = new Set(
    sights.flatMap(({ synced, own }) => [...synced.values(), ...own.values()].map(({ key }) => key)),
  )
  return new Set([...ledger.written.keys()].filter(key => !present.has(key)))
}
