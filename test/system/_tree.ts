/** Trees on disk: made from a plain description, read back whole, and compared with a difference that can be read. */
import { createHash } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'

/** What a path holds: a file's text or bytes, an executable, a link, or (null) an empty folder. */
export type Content = string | Uint8Array | { run: string } | { link: string } | null

/** Makes files, links and folders below a root; parents come by themselves. */
export function makeTree(root: string, tree: Record<string, Content>): void {
  for (const [path, content] of Object.entries(tree)) {
    const place = join(root, path)
    mkdirSync(dirname(place), { recursive: true })
    if (content === null) mkdirSync(place, { recursive: true })
    else if (typeof content === 'string' || content instanceof Uint8Array) writeFileSync(place, content)
    else if ('link' in content) symlinkSync(content.link, place)
    else {
      writeFileSync(place, content.run)
      chmodSync(place, 0o755)
    }
  }
}

/** One path of a tree, as one line: all that must be the same on every peer. */
export type Tree = Map<string, string>

/** Everything below a root, but for our own folder at its top. A file: size, hash, executable or not, mtime to the nanosecond. */
export function treeOf(root: string): Tree {
  const tree: Tree = new Map()
  const buffer = Buffer.allocUnsafe(1024 * 1024)
  const walk = (folder: string, prefix: string): void => {
    for (const name of readdirSync(folder).sort()) {
      if (prefix === '' && name === '.realize') continue
      const place = join(folder, name)
      const path = prefix + name
      const stat = lstatSync(place, { bigint: true })
      if (stat.isDirectory()) {
        tree.set(path, 'folder')
        walk(place, `${path}/`)
      } else if (stat.isSymbolicLink()) tree.set(path, `link to ${JSON.stringify(readlinkSync(place))}`)
      else {
        const exec = (stat.mode & 0o111n) !== 0n ? 'executable' : 'plain'
        tree.set(path, `${exec} file, ${stat.size} bytes, ${hashOf(place, buffer)}, mtime ${stat.mtimeNs}`)
      }
    }
  }
  walk(root, '')
  return tree
}

function hashOf(place: string, buffer: Buffer): string {
  const hash = createHash('sha256')
  const fd = openSync(place, 'r')
  try {
    for (let read = readSync(fd, buffer); read > 0; read = readSync(fd, buffer)) hash.update(buffer.subarray(0, read))
  } finally {
    closeSync(fd)
  }
  return hash.digest('hex').slice(0, 16)
}

const SHOWN_MAX = 20

/** One line for each path that is not the same in both, the first of them. Empty: the trees are equal. */
export function differences(left: Tree, right: Tree, leftName = 'left', rightName = 'right'): string[] {
  const lines: string[] = []
  for (const path of [...new Set([...left.keys(), ...right.keys()])].sort()) {
    const [ours, theirs] = [left.get(path) ?? 'nothing', right.get(path) ?? 'nothing']
    if (ours !== theirs) lines.push(`${JSON.stringify(path)}: ${leftName}: ${ours}; ${rightName}: ${theirs}`)
  }
  return lines.length <= SHOWN_MAX ? lines : [...lines.slice(0, SHOWN_MAX), `and ${lines.length - SHOWN_MAX} more`]
}
