/** What every command is given, and the ways in which all of them speak and end. */
import { ERRORS, SyncError } from '../protocol/error.ts'
import type { Home } from '../supervisor/home.ts'
import { homeFlag } from '../supervisor/home.ts'
import { type ControlClient, connectControl } from './client.ts'
import type { View } from './show.ts'
import { jsonText, painter } from './text.ts'

/** Where a command writes and reads: the process's, or a test's. */
export interface Surroundings {
  env: Readonly<Record<string, string | undefined>>
  platform: NodeJS.Platform
  homedir: string
  hostname: string
  cwd: string
  stdout: NodeJS.WriteStream
  stderr: NodeJS.WriteStream
  nowMs(): number
}

export interface Context {
  home: Home
  json: boolean
  surroundings: Surroundings
  view(): View
  /** Lines for people, to stdout. */
  print(...lines: string[]): Promise<void>
  /** One JSON document on a line, to stdout. */
  printJson(value: unknown): Promise<void>
  /** Bytes to stdout, as fast as they are taken there. */
  write(bytes: Uint8Array | string): Promise<void>
  /** The document in JSON mode, the lines otherwise. */
  answer(value: unknown, lines: () => readonly string[]): Promise<void>
  /** A line beside the answer, to stderr. */
  note(line: string): void
}

export function contextOf(home: Home, json: boolean, surroundings: Surroundings): Context {
  const { stdout, stderr, env } = surroundings
  // https://no-color.org: any value but the empty one.
  const colours = stdout.isTTY === true && !env.NO_COLOR && env.TERM !== 'dumb'
  const paint = painter(colours)
  const write = (bytes: Uint8Array | string) =>
    new Promise<void>((resolve, reject) => {
      stdout.write(bytes, error => (error ? reject(error) : resolve()))
    })
  const context: Context = {
    home,
    json,
    surroundings,
    view: () => ({ paint, nowMs: surroundings.nowMs() }),
    write,
    async print(...lines) {
      if (lines.length > 0) await write(`${lines.join('\n')}\n`)
    },
    printJson: value => write(`${jsonText(value)}\n`),
    answer: (value, lines) => (json ? context.printJson(value) : context.print(...lines())),
    note: line => stderr.write(`${line}\n`),
  }
  return context
}

/** Asks the service of this home, and leaves it in any case. Throws `no_service` with what to do. */
export async function withService<T>(context: Context, ask: (client: ControlClient) => Promise<T>): Promise<T> {
  const client = await connect(context)
  try {
    return await ask(client)
  } finally {
    client.close()
  }
}

async function connect({ home }: Context): Promise<ControlClient> {
  try {
    return await connectControl(home.socket)
  } catch (error) {
    if (!(error instanceof SyncError) || error.code !== 'no_service') throw error
    throw new SyncError(
      'no_service',
      `no service is running on ${home.name}: start it with \`realized${homeFlag(home)}\``,
      { cause: error },
    )
  }
}

/**
 * Follows a subscription until the service ends it, which throws, or `take` says 'enough'. Notifications are handled one
 * after the other.
 */
export async function follow(
  client: ControlClient,
  params: Parameters<ControlClient['subscribe']>[0],
  take: (notification: Parameters<Parameters<ControlClient['subscribe']>[1]>[0]) => Promise<'enough' | undefined>,
): Promise<void> {
  let last = Promise.resolve()
  const enough = new Promise<void>((resolve, reject) => {
    const begin = client.subscribe(params, notification => {
      last = last.then(async () => {
        if ((await take(notification)) === 'enough') resolve()
      })
      last.catch(reject)
    })
    begin.catch(reject)
    client.closed.then(reason => {
      last.then(() => (reason ? reject(reason) : resolve()), reject)
    })
  })
  await enough
}

export function exitCodeOf(error: unknown): number {
  return error instanceof SyncError ? ERRORS[error.code].exit : 1
}
