/** `arena …`, `conflicts`, `resolve`, `history`. */
import { resolve as resolvePath } from 'node:path'
import type { Mark } from '../../protocol/control.ts'
import { SyncError } from '../../protocol/error.ts'
import type { ArenaName } from '../../protocol/ids.ts'
import type { HistoryEvent, ListedConflict } from '../../protocol/status.ts'
import type { ControlClient } from '../client.ts'
import { type Context, follow, withService } from '../context.ts'
import { conflictLines, historyLines, listedArenaLines } from '../show.ts'
import { parseArenaName, parseFileTarget, parseTarget } from '../target.ts'
import { safe } from '../text.ts'

export async function arenaAdd(
  context: Context,
  name: string,
  path: string | undefined,
  options: { peers: string[]; mark?: Mark },
): Promise<void> {
  const arena = parseArenaName(name)
  if (path === undefined && options.mark === 'real')
    throw new SyncError('usage', 'what is to be real needs a folder: give a PATH')
  const root = path === undefined ? null : resolvePath(context.surroundings.cwd, path)
  await withService(context, async client => {
    const result = await client.call('arena_add', {
      name: arena,
      path: root,
      ...(options.peers.length > 0 ? { peers: options.peers } : {}),
      ...(options.mark === undefined ? {} : { mark: options.mark }),
    })
    const others = options.peers.length > 0 ? options.peers.join(', ') : 'the whole household'
    await context.answer(result, () => [
      root === null
        ? safe`${result.name} is here on demand, shared with ${others}`
        : safe`${result.name} shares ${result.path ?? root} with ${others}`,
    ])
  })
}

export async function arenaList(context: Context): Promise<void> {
  await withService(context, async client => {
    const result = await client.call('arena_list', {})
    await context.answer(result, () =>
      result.arenas.length === 0
        ? ['no arenas yet: `realize arena add NAME PATH`']
        : listedArenaLines(result.arenas, context.view()),
    )
  })
}

export async function arenaRemove(context: Context, name: string): Promise<void> {
  const arena = parseArenaName(name)
  await withService(context, async client => {
    const result = await client.call('arena_remove', { name: arena })
    await context.answer(result, () => [safe`${arena} is not shared any more; its folder and files stay`])
  })
}

export async function arenaPause(context: Context, name: string): Promise<void> {
  const arena = parseArenaName(name)
  await withService(context, async client => {
    const result = await client.call('arena_pause', { name: arena })
    await context.answer(result, () => [safe`${arena} is paused: \`realize arena resume ${arena}\` goes on`])
  })
}

export async function arenaResume(context: Context, name: string): Promise<void> {
  const arena = parseArenaName(name)
  await withService(context, async client => {
    const result = await client.call('arena_resume', { name: arena })
    await context.answer(result, () => [safe`${arena} goes on`])
  })
}

export async function arenaRescan(context: Context, name: string): Promise<void> {
  const arena = parseArenaName(name)
  await withService(context, async client => {
    const result = await client.call('rescan', { arena })
    await context.answer(result, () => [safe`${arena} looks at its whole folder`])
  })
}

export async function conflicts(context: Context, name: string | undefined): Promise<void> {
  await withService(context, async client => {
    const found: (ListedConflict & { arena: ArenaName })[] = []
    for (const arena of await arenasOf(client, name)) {
      const { conflicts } = await client.call('conflicts', { arena })
      found.push(...conflicts.map(conflict => ({ arena, ...conflict })))
    }
    await context.answer({ conflicts: found }, () =>
      found.length === 0
        ? ['no conflicts']
        : [
            ...conflictLines(found, context.view()),
            '`realize resolve ARENA:PATH --keep winner|loser|both` settles one',
          ],
    )
  })
}

export async function resolve(context: Context, target: string, keep: 'winner' | 'loser' | 'both'): Promise<void> {
  const { arena, path } = parseFileTarget(target)
  await withService(context, async client => {
    const result = await client.call('resolve', { arena, path, keep })
    await context.answer(result, () => [safe`${arena}:${path} is resolved (kept: ${keep})`])
  })
}

export async function history(
  context: Context,
  target: string | undefined,
  options: { follow: boolean; limit: number },
): Promise<void> {
  const { arena, path } = target === undefined ? { arena: undefined, path: undefined } : parseTarget(target)
  await withService(context, async client => {
    if (options.follow) {
      await follow(client, { what: 'history', ...(arena === undefined ? {} : { arena }) }, async notification => {
        if (notification.method !== 'history') return
        const events = notification.params.events.filter(event => concerns(event, path))
        if (context.json) for (const event of events) await context.printJson(event)
        else await context.print(...historyLines(events, context.view()))
      })
      return
    }
    const found: HistoryEvent[] = []
    for (const name of await arenasOf(client, arena)) {
      const { events } = await client.call('history', {
        arena: name,
        limit: options.limit,
        ...(path === undefined ? {} : { path }),
      })
      found.push(...events)
    }
    const newest = found.sort((a, b) => b.atMs - a.atMs || b.number - a.number).slice(0, options.limit)
    await context.answer({ events: newest }, () =>
      newest.length === 0 ? ['nothing has happened yet'] : historyLines(newest, context.view()),
    )
  })
}

/** Whether an event is about a path or something below it. */
function concerns(event: HistoryEvent, path: string | undefined): boolean {
  if (path === undefined) return true
  return [event.path, event.other].some(other => other === path || other?.startsWith(`${path}/`))
}

async function arenasOf(client: ControlClient, name: string | undefined): Promise<ArenaName[]> {
  if (name !== undefined) return [parseArenaName(name)]
  const { arenas } = await client.call('arena_list', {})
  return arenas.map(arena => arena.name)
}
