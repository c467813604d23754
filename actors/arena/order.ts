/** Tree order of paths: a folder before what is in it, and that before its next sibling; the order of the store's keys. */
import type { EntryPath } from '../../protocol/ids.ts'

/** Compares as the UTF-8 bytes would, with `/` below every other character. */
export function compareTree(a: EntryPath, b: EntryPath): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x !== y) return weight(x) - weight(y)
  }
  return a.length - b.length
}

export function compareNames(a: string, b: string): number {
  return compareTree(a as EntryPath, b as EntryPath)
}

/** UTF-16 puts surrogates below U+E000..U+FFFF, UTF-8 above. */
function weight(unit: number): number {
  if (unit === 0x2f) return 0
  return unit >= 0xe000 ? unit - 0x800 : unit >= 0xd800 ? unit + 0x2000 : unit
}

export function isBelow(path: EntryPath, folder: EntryPath): boolean {
  return path.length > folder.length && path.startsWith(folder) && path[folder.length] === '/'
}

/** Sorts after all that is in the folder but names that begin with the very last character. */
export function lastBelow(folder: EntryPath): EntryPath {
  return `${folder}/\u{10ffff}` as EntryPath
}
