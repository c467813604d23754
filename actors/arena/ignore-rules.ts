/**
 * Which paths this peer leaves alone: gitignore rules from the configuration (from the root) and from `.realizeignore` files
 * in the tree (each from its folder). An ignored path is neither scanned nor applied; what peers say of it is still known.
 */
import ignore, { type Ignore } from 'ignore'
import type { EntryPath } from '../../protocol/ids.ts'
import { ancestorsOf, nameOf, parentOf } from '../../protocol/path.ts'
import type { Entry } from './store.ts'

export const IGNORE_FILE = '.realizeignore'
/** Bytes of one rule file that are read; the rest is not. */
export const IGNORE_FILE_BYTES_MAX = 256 * 1024
/** Characters of one rule that is heeded: no path is longer, and what is compiled from it stays small. */
const RULE_LENGTH_MAX = 4096
/**
 * What the rules of one file say of exactly this path. `test` of the library asks for the folders above it, too, and knows
 * nothing of a deeper file that takes one of them back in; and it keeps an answer for each path for ever. Of a version of the library
 * without this part `test` is good enough.
 */
interface RulesOfOneFile {
  readonly _rules?: { test?(path: string, mode: 'regex'): { ignored: boolean; unignored: boolean } }
}

function verdictOf(rules: Ignore, path: string): { ignored: boolean; unignored: boolean } {
  const own = (rules as RulesOfOneFile)._rules
  return own?.test ? own.test(path, 'regex') : rules.test(path)
}

/** Two names that differ in case are two names. */
const OPTIONS = { ignorecase: false }

export class IgnoreRules {
  readonly #folders = new Map<EntryPath | '', Ignore>()
  #configured: Ignore | null = null

  constructor(patterns: readonly string[]) {
    this.configure(patterns)
  }

  /** Replaces the rules of the configuration. */
  configure(patterns: readonly string[]): void {
    this.#configured = patterns.length > 0 ? ignore(OPTIONS).add(patterns.filter(heeded)) : null
  }

  /** Sets or takes away (null) the rules of one folder's `.realizeignore`; true if that changed anything. */
  setFolder(folder: EntryPath | undefined, text: string | null): boolean {
    const key = folder ?? ''
    if (text === null || text.trim() === '') return this.#folders.delete(key)
    this.#folders.set(key, ignore(OPTIONS).add(text.split('\n').filter(heeded).join('\n')))
    return true
  }

  get empty(): boolean {
    return this.#configured === null && this.#folders.size === 0
  }

  /** Whether the path or a folder above it is ignored. The deepest rule file that speaks of a path has the last word. */
  ignores(path: EntryPath, folder: boolean): boolean {
    if (this.empty) return false
    for (const ancestor of ancestorsOf(path)) if (this.#itself(ancestor, true)) return true
    return this.#itself(path, folder)
  }

  /**
   * Whether an entry is ignored: as what is known of it or, where that is its end, as what it was here. What rules say of folders
   * holds for a folder that has gone, too.
   */
  ignoresEntry({ path, known, have }: Pick<Entry, 'path' | 'known' | 'have'>): boolean {
    const content = known.content.type === 'gone' ? have?.content : known.content
    return this.ignores(path, content?.type === 'dir')
  }

  /** The same for a path whose folder is known not to be ignored: what a walk asks. */
  ignoresChild(path: EntryPath, folder: boolean): boolean {
    return !this.empty && this.#itself(path, folder)
  }

  #itself(path: EntryPath, folder: boolean): boolean {
    if (nameOf(path) === IGNORE_FILE) return false
    const full = folder ? `${path}/` : path
    let ignored = this.#configured !== null && verdictOf(this.#configured, full).ignored
    const chain: (EntryPath | '')[] = ['', ...ancestorsOf(path)]
    for (const base of chain) {
      const rules = this.#folders.get(base)
      if (!rules) continue
      const verdict = verdictOf(rules, base === '' ? full : full.slice(base.length + 1))
      if (verdict.ignored) ignored = true
      else if (verdict.unignored) ignored = false
    }
    return ignored
  }
}

function heeded(rule: string): boolean {
  return rule.length <= RULE_LENGTH_MAX
}

export function isIgnoreFile(path: EntryPath): boolean {
  return nameOf(path) === IGNORE_FILE
}

export function folderOfIgnoreFile(path: EntryPath): EntryPath | undefined {
  return parentOf(path)
}
