/** `status`, `wait`, `verify`, `events`, `diag`: the service as a whole. */
import type { FileHandle } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { pack } from 'tar-stream'
import { ControlError } from '../client.ts'
import { type Context, follow, withService } from '../context.ts'
import { consensusProgress, whileShowing } from '../progress.ts'
import { saveNew } from '../save.ts'
import { statusLines, verifyLines } from '../show.ts'
import { parseArenaName } from '../target.ts'
import { count, safe } from '../text.ts'

export async function status(context: Context, options: { watch: boolean }): Promise<void> {
  await withService(context, async client => {
    if (!options.watch) {
      const status = await client.call('status', {})
      return context.answer(status, () => statusLines(status, context.view()))
    }
    const terminal = context.surroundings.stdout.isTTY === true
    await follow(client, { what: 'status' }, async notification => {
      if (notification.method !== 'status') return
      const status = notification.params
      if (context.json) await context.printJson(status)
      // From the top of a cleared screen; elsewhere one after the other.
      else await context.print(...(terminal ? ['\u001b[2J\u001b[H'] : []), ...statusLines(status, context.view()), '')
    })
  })
}

export async function wait(context: Context, options: { arena?: string; timeoutSeconds?: number }): Promise<void> {
  const arena = options.arena === undefined ? undefined : parseArenaName(options.arena)
  await withService(context, async client => {
    const params = {
      ...(arena === undefined ? {} : { arena }),
      ...(options.timeoutSeconds === undefined ? {} : { timeoutSeconds: options.timeoutSeconds }),
    }
    try {
      const result = await whileShowing(context, arena === undefined ? undefined : [arena], consensusProgress(), () =>
        client.call('wait', params),
      )
      await context.answer(result, () => [arena === undefined ? 'in consensus' : safe`${arena} is in consensus`])
    } catch (error) {
      if (error instanceof ControlError && !context.json)
        for (const cause of error.data.missing ?? []) context.note(safe`missing: ${cause}`)
      throw error
    }
  })
}

/** The exit code is 1 if something is bad, 3 if a peer's root differs. */
export async function verify(context: Context, name: string): Promise<number> {
  const arena = parseArenaName(name)
  return withService(context, async client => {
    const { peers } = await client.call('peer_list', {})
    const describe = (arenas: readonly { files: number; scan: { done: number } | null }[]) => {
      const done = arenas[0]?.scan?.done ?? 0
      const total = arenas[0]?.files ?? 0
      return { done: Math.min(done, total), total, text: `reading ${count(total, 'file')}` }
    }
    const result = await whileShowing(context, [arena], describe, () => client.call('verify', { arena }))
    const names = new Map<string, string>(peers.map(peer => [peer.id, peer.name]))
    await context.answer(result, () => verifyLines(result, names, context.view()))
    if (result.bad.length > 0) return 1
    return result.peers.every(peer => peer.equal) ? 0 : 3
  })
}

/** NDJSON in every mode: it is for programs. */
export async function events(context: Context, options: { follow: boolean }): Promise<void> {
  await withService(context, client =>
    follow(client, { what: 'events' }, async notification => {
      if (notification.method !== 'event') return
      for (const event of notification.params.events) await context.printJson(event)
      return options.follow ? undefined : 'enough'
    }),
  )
}

export async function diag(context: Context, path: string): Promise<void> {
  const bundle = await withService(context, client => client.call('diag', {}))
  const files: Record<string, string> = {
    'config.toml': bundle.config,
    'status.json': `${JSON.stringify(bundle.status, null, 2)}\n`,
    'metrics.txt': bundle.metrics,
    'log.ndjson': bundle.logs.map(line => `${line}\n`).join(''),
    'versions.json': `${JSON.stringify(bundle.versions, null, 2)}\n`,
  }
  await saveNew(path, 0o600, file => writeBundle(file, files, context.surroundings.nowMs()))
  await context.answer({ file: path, contains: Object.keys(files) }, () => [
    safe`wrote ${path}: ${Object.keys(files).join(', ')}. It holds names of files, no content and no keys: look before you send it.`,
  ])
}

async function writeBundle(file: FileHandle, files: Record<string, string>, nowMs: number): Promise<void> {
  const archive = pack()
  for (const [name, text] of Object.entries(files))
    archive.entry({ name: `realize-diag/${name}`, mode: 0o600, mtime: new Date(nowMs) }, text)
  archive.finalize()
  await pipeline(Readable.from(archive), createGzip(), async chunks => {
    for await (const chunk of chunks) await file.writeFile(chunk as Buffer)
  })
}
