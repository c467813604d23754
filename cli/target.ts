/** Arguments that name a place in an arena. Pure. */
import { SyncError } from '../protocol/error.ts'
import { ArenaName, type EntryPath } from '../protocol/ids.ts'
import { checkPath, pathFault } from '../protocol/path.ts'

export interface Target {
  arena: ArenaName
  /** undefined: the arena itself. */
  path: EntryPath | undefined
}

const arenaPattern = new RegExp(ArenaName.pattern as string)

/** ARENA or ARENA:PATH; slashes around the path do not matter. Throws `usage`. */
export function parseTarget(text: string): Target {
  const colon = text.indexOf(':')
  const arena = parseArenaName(colon < 0 ? text : text.slice(0, colon))
  const path = colon < 0 ? '' : text.slice(colon + 1).replace(/^(?:\.?\/+)+|\/+$/g, '')
  if (path === '' || path === '.') return { arena, path: undefined }
  const fault = pathFault(path)
  if (fault !== undefined) throw new SyncError('usage', `'${text}': ${fault}`)
  return { arena, path: checkPath(path) }
}

/** ARENA:PATH. Throws `usage`. */
export function parseFileTarget(text: string): Target & { path: EntryPath } {
  const { arena, path } = parseTarget(text)
  if (path === undefined) throw new SyncError('usage', `'${text}' names no path in the arena: write ${arena}:PATH`)
  return { arena, path }
}

/** Throws `usage`. */
export function parseArenaName(text: string): ArenaName {
  if (!arenaPattern.test(text))
    throw new SyncError('usage', `'${text}' is no name of an arena: letters, digits, '.', '_' and '-', at most 64`)
  return text as ArenaName
}

/** A whole number of bytes. Throws `usage`. */
export function parseCount(text: string): number {
  const number = Number(text)
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(number))
    throw new SyncError('usage', `'${text}' is not a whole number`)
  return number
}

/** Seconds, with a fraction if need be. Throws `usage`. */
export function parseSeconds(text: string): number {
  if (!/^\d{1,9}(\.\d{1,3})?$/.test(text)) throw new SyncError('usage', `'${text}' is not a number of seconds`)
  return Number(text)
}
