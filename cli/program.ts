/** The commands of `realize`: what they are called, what they take, and how they end. What they do is in commands/. */
import { readFileSync } from 'node:fs'
import { Argument, Command, CommanderError, Option } from 'commander'
import type { Mark } from '../protocol/control.ts'
import { HISTORY_LIMIT_MAX } from '../protocol/control.ts'
import { SyncError, toFailure } from '../protocol/error.ts'
import { escapeText } from '../supervisor/escape.ts'
import { homeOf } from '../supervisor/home.ts'
import { ControlError } from './client.ts'
import * as arenas from './commands/arenas.ts'
import * as files from './commands/files.ts'
import { type LoadtestOptions, loadtest } from './commands/loadtest.ts'
import * as mounts from './commands/mounts.ts'
import * as peers from './commands/peers.ts'
import * as service from './commands/service.ts'
import * as setup from './commands/setup.ts'
import { type Context, contextOf, exitCodeOf, type Surroundings } from './context.ts'
import { parseCount, parseSeconds } from './target.ts'
import { jsonText } from './text.ts'

interface CommonOptions {
  home?: string
  json?: true
}

/** An action that gives a number gives its exit code. */
type Action = (context: Context, command: Command) => Promise<unknown>

/**
 * Runs one command line. Never throws for what a user or a service did: that is a line on stderr (and in JSON mode a
 * document on stdout) and an exit code.
 *
 * @param words what follows the program's name
 */
export async function run(words: readonly string[], surroundings: Surroundings): Promise<number> {
  let outcome = 0
  const program = programOf(surroundings, async (context, work) => {
    try {
      const result = await work(context)
      outcome = typeof result === 'number' ? result : 0
    } catch (error) {
      if (isClosedPipe(error)) return
      await report(error, context.json, surroundings)
      outcome = exitCodeOf(error)
    }
  })
  try {
    await program.parseAsync(words, { from: 'user' })
  } catch (error) {
    if (isClosedPipe(error)) return 0
    if (!(error instanceof CommanderError)) {
      await report(error, words.includes('--json'), surroundings)
      return exitCodeOf(error)
    }
    // Help and version were asked for and printed.
    if (error.exitCode === 0) return 0
    if (words.includes('--json')) {
      const message = error.message.replace(/^error: /, '')
      surroundings.stdout.write(`${jsonText({ error: { code: 'usage', message } })}\n`)
    }
    return 2
  }
  return outcome
}

/** The reader of our output has seen enough (`realize ls photos | head`). */
export function isClosedPipe(error: unknown): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === 'EPIPE'
}

async function report(error: unknown, json: boolean, { stdout, stderr, env }: Surroundings): Promise<void> {
  const { code, message } = toFailure(error)
  const data = error instanceof ControlError ? error.data : { code }
  if (json) stdout.write(`${jsonText({ error: { ...data, message } })}\n`)
  stderr.write(`realize: ${escapeText(message)}\n`)
  if (env.REALIZE_DEBUG && !(error instanceof SyncError))
    stderr.write(`${error instanceof Error ? error.stack : error}\n`)
}

function programOf(
  surroundings: Surroundings,
  attempt: (context: Context, work: (context: Context) => ReturnType<Action>) => Promise<void>,
): Command {
  const program = new Command('realize')
  const { stdout, stderr } = surroundings

  const configure = (command: Command): Command =>
    command
      .exitOverride()
      .configureOutput({
        writeOut: text => stdout.write(text),
        writeErr: text => stderr.write(text.replace(/[^\n\t]+/g, escapeText)),
        getOutHelpWidth: () => stdout.columns ?? 100,
      })
      .showHelpAfterError('(--help shows how)')
      .option('--home <dir>', 'folder of the peer (default: REALIZE_HOME, or the places of this platform)')
      .option('--json', 'answer in JSON: one document, or one a line when following')

  /** Declares a command below another. `usage` is its name and arguments. */
  const add = (parent: Command, usage: string, summary: string, action: Action, examples: readonly string[] = []) => {
    const command = configure(parent.command(usage))
      .summary(summary)
      .description(`${sentence(summary)}.`)
    if (examples.length > 0)
      command.addHelpText('after', `\nExamples:\n${examples.map(line => `  $ ${line}`).join('\n')}\n`)
    command.action(async () => {
      const { home, json } = command.optsWithGlobals<CommonOptions>()
      const { env, platform, homedir, cwd } = surroundings
      const context = contextOf(homeOf({ home, env, platform, homedir, cwd }), json === true, surroundings)
      await attempt(context, context => action(context, command))
    })
    return command
  }
  const group = (name: string, summary: string) =>
    configure(program.command(name))
      .summary(summary)
      .description(`${sentence(summary)}.`)
      .enablePositionalOptions()

  configure(program)
    // A subcommand has a `--version` of its own.
    .enablePositionalOptions()
    .version(softwareVersion(), '-V, --version', 'print the version')
    .description('Keeps folders the same on all your machines. Talks to the service `realized`.')
    .addHelpText(
      'after',
      `
Examples:
  $ realize init --name laptop        make a key and a configuration
  $ realize arena add docs ~/Documents
  $ realize invite                    then, on the other machine: realize join CODE
  $ realize status

Exit codes: 0 done, 1 error, 2 wrong usage, 3 not in consensus or timed out, 10 no service is running.
`,
    )

  // Setting up
  add(
    program,
    'init',
    'create the key and the configuration of this peer; no service needed',
    (context, command) => setup.init(context, command.opts()),
    ['realize init', 'realize init --name laptop --listen 0.0.0.0:9771', 'realize --home /srv/realize init'],
  )
    .option('--name <name>', 'what the others call this peer (default: the name of this machine)')
    .option('--listen <host:port>', 'where to take connections; may be given again', collect)
  add(program, 'id', "print this peer's ID; no service needed", context => setup.id(context), ['realize id'])
  add(
    program,
    'status',
    'show peers, arenas, what is missing and why',
    (context, command) => service.status(context, { watch: command.opts().watch === true }),
    ['realize status', 'realize status --watch', 'realize status --json'],
  ).option('--watch', 'follow the changes')

  // Arenas
  const arena = group('arena', 'share folders')
  add(
    arena,
    'add <name> [path]',
    'share a folder under a name that is the same on all its peers; without a path: nothing real, on demand only',
    (context, command) => {
      const { peer, mark } = command.opts<{ peer?: string[]; mark?: Mark }>()
      const marked = mark === undefined ? {} : { mark }
      return arenas.arenaAdd(context, word(command, 0), command.args[1], { peers: peer ?? [], ...marked })
    },
    [
      'realize arena add documents ~/Documents',
      'realize arena add photos ~/Pictures --peer server --peer nas',
      'realize arena add films',
    ],
  )
    .option('--peer <peer>', 'share with this peer only; may be given again (default: the whole household)', collect)
    .addOption(
      new Option('--mark <mark>', 'what is held here (default: real; without a path: unreal)').choices([...MARKS]),
    )
  add(arena, 'list', 'list the arenas of this peer', context => arenas.arenaList(context))
  add(arena, 'remove <name>', 'stop sharing; the folder and its files stay', (context, command) =>
    arenas.arenaRemove(context, word(command, 0)),
  )
  add(arena, 'pause <name>', 'let an arena rest: nothing is scanned, sent or taken', (context, command) =>
    arenas.arenaPause(context, word(command, 0)),
  )
  add(arena, 'resume <name>', 'go on after a pause, or after a guard has stopped the arena', (context, command) =>
    arenas.arenaResume(context, word(command, 0)),
  )
  add(arena, 'rescan <name>', 'look at the whole folder now', (context, command) =>
    arenas.arenaRescan(context, word(command, 0)),
  )

  // Peers
  const peer = group('peer', 'know other machines')
  add(
    peer,
    'add <name> <id> [addresses...]',
    'take a peer into the household',
    (context, command) => peers.peerAdd(context, word(command, 0), word(command, 1), command.args.slice(2)),
    ['realize peer add server ABCDEFG-…-ABCDEFG server.lan:9771'],
  )
  add(peer, 'list', 'list the peers of the household', context => peers.peerList(context))
  add(peer, 'remove <name>', 'take a peer out of the household', (context, command) =>
    peers.peerRemove(context, word(command, 0)),
  )
  add(peer, 'connect <name>', 'dial a peer now, and end `peer disconnect`', (context, command) =>
    peers.peerConnect(context, word(command, 0)),
  )
  add(peer, 'disconnect <name>', 'stay disconnected from a peer until `peer connect`', (context, command) =>
    peers.peerDisconnect(context, word(command, 0)),
  )
  add(
    program,
    'invite',
    'make a code with which one other machine can join',
    (context, command) => {
      const { arena, expires } = command.opts<{ arena?: string[]; expires?: string }>()
      return peers.invite(context, { arenas: arena ?? [], ...(expires === undefined ? {} : { expires }) })
    },
    ['realize invite', 'realize invite --arena documents --expires 10m'],
  )
    .option('--arena <name>', 'share this arena only; may be given again (default: all)', collect)
    .option('--expires <duration>', 'how long the code is good: 10s to 7d')
  add(
    program,
    'join <code> [path]',
    'join the household of the machine that made the code, and get its arenas',
    (context, command) => peers.join(context, word(command, 0), command.args[1]),
    ['realize join CODE', 'realize join CODE ~/Documents'],
  )

  // Mounts
  add(
    program,
    'mount <dir>',
    'show all arenas as folders of one folder',
    (context, command) => mounts.mount(context, word(command, 0), command.opts().allowOther === true),
    ['realize mount ~/All', 'realize mount /srv/all --allow-other'],
  ).option('--allow-other', 'other users see it, too (without root `user_allow_other` must stand in /etc/fuse.conf)')
  add(
    program,
    'umount <dir>',
    'end a mount; the files stay',
    (context, command) => mounts.umount(context, word(command, 0)),
    ['realize umount ~/All'],
  )

  // Files
  add(
    program,
    'ls <arena[:path]>',
    'list what is in an arena',
    (context, command) => files.ls(context, word(command, 0)),
    ['realize ls documents', 'realize ls documents:letters/2024'],
  )
  const mark = add(
    program,
    'mark <mark> <arena[:path]>',
    'say what is held here of a file, of a folder with all that is in it, or of an arena',
    (context, command) => files.mark(context, word(command, 0) as Mark | 'clear', word(command, 1)),
    [
      'realize mark unreal documents:films',
      'realize mark real documents:films/today',
      'realize mark clear documents:films',
    ],
  )
  mark.addHelpText(
    'after',
    `
  real     ordinary files, kept current
  pinned   on demand, but all of it cached
  unreal   on demand: what is real here is given up once another peer is known to hold it
  clear    no mark of its own: that of the folder above
`,
  )
  add(
    program,
    'evict <arena[:path]>',
    'give up the content of what is marked unreal, now, as far as another peer is known to hold it',
    (context, command) => files.evict(context, word(command, 0)),
    ['realize evict documents:films', 'realize evict documents'],
  )
  add(
    program,
    'cat <arena:path>',
    'write the content of a file to stdout',
    (context, command) => {
      const { offset, length } = command.opts<{ offset: number; length?: number }>()
      return files.cat(context, word(command, 0), { offset, ...(length === undefined ? {} : { length }) })
    },
    ['realize cat documents:notes.txt', 'realize cat documents:film.mkv --offset 1048576 --length 4096'],
  )
    .option('--offset <bytes>', 'where to begin', parseCount, 0)
    .option('--length <bytes>', 'how much; to the end if absent', parseCount)
  add(
    program,
    'fetch <arena[:path]>',
    'cache what is not real here, wholly: it can be read without a peer',
    (context, command) => files.fetch(context, word(command, 0)),
    ['realize fetch photos:2024', 'realize fetch documents'],
  )
  add(program, 'conflicts [arena]', 'list conflicts that nobody has resolved', (context, command) =>
    arenas.conflicts(context, command.args[0]),
  )
  add(
    program,
    'resolve <arena:path>',
    'settle a conflict',
    (context, command) => arenas.resolve(context, word(command, 0), command.opts().keep),
    ['realize resolve documents:notes.txt --keep loser'],
  ).addOption(
    new Option('--keep <which>', 'what stays at the path').choices(['winner', 'loser', 'both']).makeOptionMandatory(),
  )
  add(program, 'versions <arena:path>', 'list what was replaced or deleted here and is kept', (context, command) =>
    files.versions(context, word(command, 0)),
  )
  add(
    program,
    'restore <arena:path>',
    'bring a former version back, or write it to a file elsewhere',
    (context, command) => files.restore(context, word(command, 0), command.opts()),
    ['realize restore documents:notes.txt --version V', 'realize restore documents:notes.txt --version V --to old.txt'],
  )
    .requiredOption('--version <version>', 'as `realize versions` lists it')
    .option('--to <file>', 'a new file for it; the arena stays as it is')
  add(
    program,
    'history [arena[:path]]',
    'show what happened, newest first',
    (context, command) => {
      const { follow, limit } = command.opts<{ follow?: true; limit: number }>()
      return arenas.history(context, command.args[0], { follow: follow === true, limit })
    },
    ['realize history', 'realize history documents:letters --limit 10', 'realize history --follow'],
  )
    .option('--follow', 'show what happens from now on, newest last')
    .option('--limit <number>', `at most so many, up to ${HISTORY_LIMIT_MAX}`, parseLimit, 50)

  // Looking after it
  add(
    program,
    'wait [arena]',
    'wait until all connected peers hold the same',
    (context, command) => {
      const { timeout } = command.opts<{ timeout?: number }>()
      return service.wait(context, {
        ...(command.args[0] === undefined ? {} : { arena: command.args[0] }),
        ...(timeout === undefined ? {} : { timeoutSeconds: timeout }),
      })
    },
    ['realize wait', 'realize wait documents --timeout 60'],
  ).option('--timeout <seconds>', 'give up after this long, with exit code 3', parseSeconds)
  add(program, 'verify <arena>', 'read and hash again all that is real, compare with the peers', (context, command) =>
    service.verify(context, word(command, 0)),
  )
  add(program, 'events', 'print recent events of the service, one JSON document a line', (context, command) =>
    service.events(context, { follow: command.opts().follow === true }),
  ).option('--follow', 'go on with what happens')
  const diag = add(
    program,
    'diag',
    'write a bundle for support: configuration, status, metrics, log; no content, no keys',
    (context, command) => service.diag(context, word(command, 0)),
    ['realize diag realize-diag.tar.gz'],
  )
  diag.addArgument(new Argument('<file>', 'a new file, .tar.gz'))
  add(
    program,
    'loadtest',
    'connect very many simulated peers to a service and measure; a service of its own unless --home is given',
    (context, command) => {
      const options = command.opts<Omit<LoadtestOptions, 'existing'>>()
      const { home } = command.optsWithGlobals<CommonOptions>()
      return loadtest(context, { ...options, existing: home !== undefined })
    },
    ['realize loadtest', 'realize loadtest --peers 1000 --seconds 20 --out load.json', 'realize --home DIR loadtest'],
  )
    .option('--peers <number>', 'simulated peers', parseSome, 200)
    .option('--seconds <seconds>', 'how long edits are made', parseSeconds, 10)
    .option('--edits-per-second <number>', 'files made, at the service and at peers by turns', parseSeconds, 1)
    .option('--edit-bytes <bytes>', 'of each of them', parseCount, 1024)
    .option('--fetch-bytes <bytes>', 'of the file that every peer fetches at the end; 0: none', parseCount, 1024 * 1024)
    .option('--rest-seconds <seconds>', 'how long it rests before what is used at rest is measured', parseSeconds, 6)
    .option('--processes <number>', 'in which the simulated peers live (default: two, or one for 500 peers)', parseSome)
    .option('--out <file>', 'write the result as JSON, too')
  return program
}

const MARKS: readonly Mark[] = ['real', 'pinned', 'unreal']

function word(command: Command, index: number): string {
  return command.args[index] ?? ''
}

function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value]
}

function parseLimit(text: string): number {
  const limit = parseCount(text)
  if (limit < 1 || limit > HISTORY_LIMIT_MAX)
    throw new SyncError('usage', `the limit ${text} is not within 1 and ${HISTORY_LIMIT_MAX}`)
  return limit
}

function parseSome(text: string): number {
  const number = parseCount(text)
  if (number < 1) throw new SyncError('usage', `${text} is less than 1`)
  return number
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/** From the package that this file is part of: dist/cli/ is two folders below it. */
function softwareVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string
  }
  return version
}
