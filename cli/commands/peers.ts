/** `peer …`, `invite`, `join`. */
import { resolve } from 'node:path'
import { SyncError } from '../../protocol/error.ts'
import { parsePeerId } from '../../protocol/peer-id.ts'
import { formatAddress, parseAddress, parseDuration } from '../../supervisor/config.ts'
import { type Context, follow, withService } from '../context.ts'
import { arenasIn, consensusProgress, progressOf } from '../progress.ts'
import { peerLines } from '../show.ts'
import { parseArenaName } from '../target.ts'
import { safe, timeText } from '../text.ts'

export async function peerAdd(context: Context, name: string, idText: string, addresses: string[]): Promise<void> {
  const params = {
    name,
    id: asUsage(() => parsePeerId(idText)),
    addresses: addresses.map(text => asUsage(() => formatAddress(parseAddress(text)))),
  }
  await withService(context, async client => {
    const result = await client.call('peer_add', params)
    await context.answer(result, () => [
      safe`${result.name} is in the household; that machine must add this one too (\`realize id\` prints its ID)`,
    ])
  })
}

export async function peerList(context: Context): Promise<void> {
  await withService(context, async client => {
    const result = await client.call('peer_list', {})
    await context.answer(result, () =>
      result.peers.length === 0
        ? ['no peers yet: `realize invite` here and `realize join CODE` on another machine']
        : peerLines(result.peers, context.view()),
    )
  })
}

export async function peerRemove(context: Context, name: string): Promise<void> {
  await withService(context, async client => {
    const result = await client.call('peer_remove', { name })
    await context.answer(result, () => [safe`${name} is not in the household any more; what it holds stays there`])
  })
}

export async function peerConnect(context: Context, name: string): Promise<void> {
  await withService(context, async client => {
    const result = await client.call('peer_connect', { name })
    await context.answer(result, () => [safe`connecting with ${name}: \`realize peer list\` shows how it goes`])
  })
}

export async function peerDisconnect(context: Context, name: string): Promise<void> {
  await withService(context, async client => {
    const result = await client.call('peer_disconnect', { name })
    await context.answer(result, () => [safe`disconnected from ${name}, until \`realize peer connect ${name}\``])
  })
}

export async function invite(context: Context, options: { arenas: string[]; expires?: string }): Promise<void> {
  const arenas = options.arenas.map(parseArenaName)
  const { expires } = options
  const expiresMs =
    expires === undefined ? undefined : asUsage(() => parseDuration(expires, { minimum: '10s', maximum: '7d' }))
  await withService(context, async client => {
    const result = await client.call('invite', {
      ...(arenas.length > 0 ? { arenas } : {}),
      ...(expiresMs === undefined ? {} : { expiresSeconds: Math.ceil(expiresMs / 1000) }),
    })
    await context.answer(result, () => [
      safe`${result.code}`,
      '',
      safe`On the other machine: realize join CODE [PATH]. Good for one machine, ends ${timeText(result.expiresAtMs, context.view().nowMs)}.`,
    ])
  })
}

export async function join(context: Context, code: string, path: string | undefined): Promise<void> {
  await withService(context, async client => {
    const result = await client.call('join', {
      code,
      ...(path === undefined ? {} : { path: resolve(context.surroundings.cwd, path) }),
    })
    await context.answer(result, () => [
      safe`joined ${result.peer.name} (${result.peer.id})`,
      ...result.arenas.map(arena => safe`  ${arena.name} is in ${arena.path}`),
      ...(result.arenas.length === 0 ? ['  no arenas are shared yet'] : []),
    ])
    // A person who looks on sees the first content come; everybody else has `wait` for it.
    if (context.json || context.surroundings.stderr.isTTY !== true || result.arenas.length === 0) return
    context.note('Getting the content. Ctrl-C leaves this view only.')
    const progress = progressOf(context)
    const describe = consensusProgress()
    const names = result.arenas.map(arena => arena.name)
    try {
      await follow(client, { what: 'status' }, async notification => {
        if (notification.method !== 'status') return
        const arenas = arenasIn(notification, names)
        const connected = arenas.length > 0 && arenas.every(arena => arena.peers.length > 0)
        if (connected && arenas.every(arena => arena.consensus)) return 'enough'
        const { done, total, text } = describe(arenas)
        progress.show(done, total, text)
        return
      })
    } finally {
      progress.stop()
    }
    await context.print('in consensus')
  })
}

/** A fault of what was typed. */
function asUsage<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof RangeError) && !(error instanceof SyncError)) throw error
    throw new SyncError('usage', error.message, { cause: error })
  }
}
