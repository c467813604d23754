/** `ls`, `mark`, `cat`, `fetch`, `versions`, `restore`. */
import { CONTROL_READ_BYTES_MAX, type ControlParams, type Mark } from '../../protocol/control.ts'
import { SyncError } from '../../protocol/error.ts'
import { FILE_BYTES_MAX } from '../../protocol/limits.ts'
import type { ArenaStatus } from '../../protocol/status.ts'
import type { ControlClient } from '../client.ts'
import { type Context, withService } from '../context.ts'
import { whileShowing } from '../progress.ts'
import { saveNew } from '../save.ts'
import { entryLines, evictLines, fetchLines, versionLines } from '../show.ts'
import { parseFileTarget, parseTarget } from '../target.ts'
import { count, safe, sizeText } from '../text.ts'

/** `cat --json` holds the content in one document. */
const CAT_JSON_BYTES_MAX = 64 * 1024 * 1024

export async function ls(context: Context, target: string): Promise<void> {
  const { arena, path } = parseTarget(target)
  await withService(context, async client => {
    const result = await client.call('ls', { arena, holders: true, ...(path === undefined ? {} : { path }) })
    await context.answer(result, () => entryLines(result.entries, path, context.view()))
  })
}

export async function mark(context: Context, word: Mark | 'clear', target: string): Promise<void> {
  if (!MARKS.includes(word)) throw new SyncError('usage', `'${word}' is no mark: ${MARKS.join(', ')}`)
  const { arena, path } = parseTarget(target)
  await withService(context, async client => {
    const result = await client.call('mark', { arena, mark: word, ...(path === undefined ? {} : { path }) })
    const what = path === undefined ? arena : `${arena}:${path}`
    await context.answer(result, () => [
      word === 'clear' ? safe`${what} has no mark of its own` : safe`${what} is marked ${word}`,
    ])
  })
}
/** Ends with 1 if something stays. */
export async function evict(context: Context, target: string): Promise<number> {
  const { arena, path } = parseTarget(target)
  return withService(context, async client => {
    const result = await client.call('evict', { arena, ...(path === undefined ? {} : { path }) })
    await context.answer(result, () => evictLines(result, context.view()))
    return result.kept > 0 ? 1 : 0
  })
}

const MARKS: readonly string[] = ['real', 'pinned', 'unreal', 'clear']

export async function cat(context: Context, target: string, range: { offset: number; length?: number }): Promise<void> {
  const { arena, path } = parseFileTarget(target)
  await withService(context, async client => {
    const parts = contentOf(client, { arena, path }, range.offset, range.length)
    if (!context.json) {
      for await (const { bytes } of parts) await context.write(bytes)
      return
    }
    const all: Buffer[] = []
    let size = 0
    let held = 0
    for await (const part of parts) {
      held += part.bytes.length
      if (held > CAT_JSON_BYTES_MAX)
        throw new SyncError(
          'limit_exceeded',
          `more than ${sizeText(CAT_JSON_BYTES_MAX)}: use --offset and --length, or leave --json out`,
        )
      all.push(part.bytes)
      size = part.size
    }
    await context.printJson({ arena, path, offset: range.offset, size, data: Buffer.concat(all).toString('base64') })
  })
}

/** Ends with 1 if something could not be cached. */
export async function fetch(context: Context, text: string): Promise<number> {
  const { arena, path } = parseTarget(text)
  const describe = (arenas: readonly ArenaStatus[]) => {
    const fetching = arenas[0]?.fetching
    if (!fetching) return { done: 0, total: 0, text: 'looking what is to be fetched' }
    const { files, filesDone, bytes, bytesDone } = fetching
    return {
      done: bytesDone,
      total: bytes,
      text: `${filesDone} of ${count(files, 'file')}, ${sizeText(bytesDone)} of ${sizeText(bytes)}`,
    }
  }
  return withService(context, async client => {
    const params = { arena, ...(path === undefined ? {} : { path }) }
    const result = await whileShowing(context, [arena], describe, () => client.call('fetch', params))
    await context.answer(result, () => fetchLines(result))
    return result.problemCount > 0 ? 1 : 0
  })
}

export async function versions(context: Context, target: string): Promise<void> {
  const { arena, path } = parseFileTarget(target)
  await withService(context, async client => {
    const result = await client.call('versions', { arena, path })
    await context.answer(result, () =>
      result.versions.length === 0
        ? [safe`no former version of ${arena}:${path} is kept here`]
        : [
            ...versionLines(result.versions, context.view()),
            '`realize restore ARENA:PATH --version V` brings one back, `--to FILE` puts it elsewhere',
          ],
    )
  })
}

export async function restore(
  context: Context,
  target: string,
  options: { version: string; to?: string },
): Promise<void> {
  const { arena, path } = parseFileTarget(target)
  const { version, to } = options
  await withService(context, async client => {
    if (to === undefined) {
      const result = await client.call('restore', { arena, path, version })
      return context.answer(result, () => [safe`${arena}:${path} is as it was in version ${version}`])
    }
    let bytes = 0
    await saveNew(to, 0o666, async file => {
      for await (const part of contentOf(client, { arena, path, version }, 0, undefined)) {
        await file.writeFile(part.bytes)
        bytes += part.bytes.length
      }
    })
    return context.answer({ file: to, bytes }, () => [safe`wrote ${to}: ${sizeText(bytes)}`])
  })
}

/** Content from `offset` on, in parts; undefined length: to its end. Throws `blob_changed` if its size changes meanwhile. */
async function* contentOf(
  client: ControlClient,
  what: Pick<ControlParams<'read'>, 'arena' | 'path' | 'version'>,
  offset: number,
  length: number | undefined,
): AsyncIterable<{ bytes: Buffer; size: number }> {
  let position = offset
  let left = length ?? Number.POSITIVE_INFINITY
  let size: number | undefined
  do {
    const length = Math.min(left, CONTROL_READ_BYTES_MAX)
    // What is not here comes while the part before it is on its way to us.
    const ahead = what.version === undefined ? Math.min(left - length, FILE_BYTES_MAX) : 0
    const part = await client.call('read', { ...what, offset: position, length, ...(ahead > 0 && { ahead }) })
    if (size !== undefined && size !== part.size)
      throw new SyncError('blob_changed', `${what.arena}:${what.path} was changed while it was read: try again`)
    size = part.size
    const bytes = Buffer.from(part.data, 'base64')
    if (bytes.length === 0 && !part.eof && left > 0)
      throw new SyncError('internal', `the service gave nothing at ${position} of ${what.arena}:${what.path}`)
    yield { bytes, size }
    position += bytes.length
    left -= bytes.length
    if (part.eof) return
  } while (left > 0)
}
