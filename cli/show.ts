/** What commands show to people, as lines. Pure. */
import type {
  EvictResult,
  ListedArena,
  MountStatus,
  PeerStatus,
  StatusResult,
  VerifyResult,
} from '../protocol/control.ts'
import type {
  ArenaStatus,
  FetchOutcome,
  HistoryEvent,
  ListedConflict,
  ListedEntry,
  ListedVersion,
} from '../protocol/status.ts'
import { escapeText } from '../supervisor/escape.ts'
import { type Cell, type Colour, count, type Paint, safe, sizeText, spanText, table, timeText } from './text.ts'

export interface View {
  paint: Paint
  nowMs: number
}

/** Lines of one arena's causes or problems before the rest is only counted. */
const REASONS_SHOWN = 10

export function statusLines(status: StatusResult, view: View): string[] {
  const { peer } = status
  const lines = [
    safe`${peer.name}  ${peer.id}`,
    view.paint('dim', safe`realized ${peer.version}, up ${spanText(peer.uptime * 1000)}`),
    '',
    view.paint('bold', 'Peers'),
    ...(status.peers.length === 0
      ? ['  none yet: `realize invite` here and `realize join CODE` on another machine']
      : peerLines(status.peers, view, '  ')),
    '',
    view.paint('bold', 'Arenas'),
  ]
  if (status.arenas.length === 0) lines.push('  none yet: `realize arena add NAME PATH`')
  const heads = table(status.arenas.map(arenaRow), view.paint, '  ')
  for (const [i, arena] of status.arenas.entries()) lines.push(heads[i] as string, ...arenaDetails(arena, view))
  if (status.mounts.length > 0) lines.push('', view.paint('bold', 'Mounts'), ...mountLines(status.mounts, view))
  const failing = status.actors.filter(actor => actor.lastError !== null)
  if (failing.length > 0) {
    const rows = failing.map((actor): Cell[] => [
      actor.name,
      count(actor.restarts, 'restart'),
      { text: actor.lastError ?? '', colour: 'red' },
    ])
    lines.push('', view.paint('bold', 'Parts that failed'), ...table(rows, view.paint, '  '))
  }
  return lines
}

function mountLines(mounts: readonly MountStatus[], view: View): string[] {
  const colours: Record<MountStatus['state'], Colour> = { mounted: 'green', mounting: 'yellow', failed: 'red' }
  const rows = mounts.map((mount): Cell[] => [
    mount.path,
    { text: mount.state, colour: colours[mount.state] },
    mount.allowOther ? 'for all users' : '',
    mount.error ?? '',
  ])
  return table(rows, view.paint, '  ')
}

export function peerLines(peers: readonly PeerStatus[], view: View, indent = ''): string[] {
  const colours: Record<PeerStatus['state'], Colour> = {
    connected: 'green',
    connecting: 'yellow',
    disconnected: 'red',
    paused: 'dim',
  }
  const rows = peers.map((peer): Cell[] => [
    peer.name,
    { text: peer.state, colour: colours[peer.state] },
    peer.since === null ? '' : spanText(view.nowMs - peer.since),
    peer.address ?? '',
    peer.state === 'connected'
      ? `up ${sizeText(peer.rates.up)}/s, down ${sizeText(peer.rates.down)}/s`
      : (peer.error ?? ''),
  ])
  return table(rows, view.paint, indent)
}

function arenaRow(arena: ArenaStatus): Cell[] {
  const state: Cell = arena.consensus
    ? { text: arena.state === 'idle' ? 'in consensus' : arena.state, colour: 'green' }
    : {
        text: arena.state === 'idle' ? 'not in consensus' : arena.state,
        colour: arena.state === 'failed' || arena.state === 'guarded' ? 'red' : 'yellow',
      }
  return [
    arena.name,
    state,
    { text: count(arena.files, 'file'), right: true },
    { text: sizeText(arena.bytes), right: true },
    arena.path ?? '(nothing real here)',
  ]
}

function arenaDetails(arena: ArenaStatus, view: View): string[] {
  const lines: string[] = []
  if (arena.reason !== null) lines.push(view.paint('red', escapeText(arena.reason)))
  const unreal = arena.bytes - arena.realBytes - arena.needBytes
  if (unreal > 0 || arena.cachedBytes > 0)
    lines.push(`on this disk: ${sizeText(arena.realBytes)} real, ${sizeText(arena.cachedBytes)} cached`)
  if (arena.needFiles > 0) lines.push(`to come: ${count(arena.needFiles, 'file')}, ${sizeText(arena.needBytes)}`)
  if (arena.scan) lines.push(`scanning: ${count(arena.scan.done, 'entry', 'entries')} so far`)
  // What the reason says is not said again.
  const causes = arena.consensus ? [] : arena.missing.filter(cause => cause !== arena.reason)
  lines.push(
    ...shortened(
      causes.map(cause => safe`missing: ${cause}`),
      causes.length,
    ),
  )
  for (const peer of arena.peers) if (peer.reason !== null) lines.push(safe`${peer.name}: ${peer.reason}`)
  if (arena.conflicts > 0)
    lines.push(
      view.paint('yellow', safe`${count(arena.conflicts, 'conflict')}: see \`realize conflicts ${arena.name}\``),
    )
  lines.push(
    ...shortened(
      arena.problems.map(problem =>
        view.paint(problem.note ? 'dim' : 'yellow', safe`${problem.path}: ${problem.reason}`),
      ),
      arena.problemCount,
    ),
  )
  return lines.map(line => `      ${line}`)
}

function shortened(lines: readonly string[], total: number): string[] {
  const shown = lines.slice(0, REASONS_SHOWN)
  const more = Math.max(total, lines.length) - shown.length
  return more > 0 ? [...shown, `and ${more.toLocaleString('en-US')} more (\`--json\` shows all that are kept)`] : shown
}

export function listedArenaLines(arenas: readonly ListedArena[], view: View): string[] {
  const rows = arenas.map((arena): Cell[] => [
    arena.name,
    arena.state,
    arena.mark,
    arena.peers === null ? 'all peers' : arena.peers.length === 0 ? 'no peers' : arena.peers.join(', '),
    arena.path ?? '(nothing real here)',
    { text: arena.reason ?? '', colour: 'red' },
  ])
  return table(rows, view.paint)
}

/** @param folder what was listed: its entries are shown by their names, anything else by its path */
export function entryLines(entries: readonly ListedEntry[], folder: string | undefined, view: View): string[] {
  const prefix = folder === undefined ? '' : `${folder}/`
  const rows = entries.map((entry): Cell[] => {
    const name = entry.path.startsWith(prefix) ? entry.path.slice(prefix.length) : entry.path
    const file = entry.type === 'file'
    return [
      entry.type === 'dir' ? 'dir' : entry.type === 'symlink' ? 'link' : entry.exec ? 'exec' : 'file',
      { text: file ? sizeText(entry.size) : '', right: true },
      file ? timeText(entry.mtimeMs, view.nowMs) : '',
      entry.mark,
      { text: file ? hereText(entry) : '', right: true },
      {
        text: (entry.holders ?? []).map(({ name, held }) => (held === 'real' ? name : `(${name})`)).join(', '),
        colour: 'dim',
      },
      name + (entry.type === 'dir' ? '/' : entry.target === undefined ? '' : ` -> ${entry.target}`),
      { text: entry.problem ?? '', colour: 'yellow' },
    ]
  })
  return table(rows, view.paint)
}

/** How much of a file is on this disk. */
function hereText(entry: ListedEntry): string {
  if (entry.here >= entry.size) return 'here'
  return entry.here === 0 ? 'not here' : `${Math.floor((entry.here / entry.size) * 100)}% here`
}

export function evictLines({ files, bytes, cachedBytes, kept, reasons }: EvictResult, view: View): string[] {
  const cached = cachedBytes > 0 ? `, and ${sizeText(cachedBytes)} from the cache` : ''
  const lines = [`gave up ${count(files, 'file')}, ${sizeText(bytes)}${cached}`]
  if (kept > 0) lines.push(view.paint('yellow', `${count(kept, 'file')} stayed`))
  const shown = reasons.map(({ path, reason }) => safe`${path}: ${reason}`)
  return [...lines, ...shortened(shown, kept)]
}

export function conflictLines(conflicts: readonly (ListedConflict & { arena: string })[], view: View): string[] {
  const rows = conflicts.map((conflict): Cell[] => [
    `${conflict.arena}:${conflict.path}`,
    { text: sizeText(conflict.size), right: true },
    timeText(conflict.mtimeMs, view.nowMs),
    `by ${conflict.author}`,
    `kept as ${conflict.copy}`,
  ])
  return table(rows, view.paint)
}

export function versionLines(versions: readonly ListedVersion[], view: View): string[] {
  const rows = versions.map((version): Cell[] => [
    version.version,
    { text: sizeText(version.size), right: true },
    `changed ${timeText(version.mtimeMs, view.nowMs)}`,
    `replaced ${timeText(version.keptMs, view.nowMs)}`,
    version.path,
  ])
  return table(rows, view.paint)
}

export function historyLines(events: readonly HistoryEvent[], view: View): string[] {
  const rows = events.map((event): Cell[] => [
    { text: clock(event.atMs), colour: 'dim' },
    event.action,
    `${event.arena}:${event.path}${event.other === undefined ? '' : event.action === 'renamed' ? ` (was ${event.other})` : ` (kept as ${event.other})`}`,
    event.size === undefined ? '' : sizeText(event.size),
    `by ${event.author}`,
  ])
  return table(rows, view.paint)
}

/** Local time, to the second. */
function clock(atMs: number): string {
  const date = new Date(atMs)
  if (Number.isNaN(date.getTime())) return '?'
  const two = (number: number) => String(number).padStart(2, '0')
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
}

export function verifyLines(result: VerifyResult, names: ReadonlyMap<string, string>, view: View): string[] {
  const lines = [`read ${count(result.files, 'file')}, ${sizeText(result.bytes)}`]
  for (const problem of result.bad) lines.push(view.paint('red', safe`bad: ${problem.path}: ${problem.reason}`))
  for (const peer of result.peers) {
    const name = names.get(peer.id) ?? peer.id
    lines.push(
      peer.equal
        ? view.paint('green', safe`${name} has the same`)
        : view.paint('yellow', safe`${name} differs: \`realize wait\` says what is missing`),
    )
  }
  if (result.bad.length === 0) lines.push(view.paint('green', 'all files are as they should be'))
  return lines
}

/** What is still to be done in these arenas, on one line. */
export function needText(arenas: readonly ArenaStatus[]): string {
  const files = arenas.reduce((sum, arena) => sum + arena.needFiles, 0)
  const bytes = arenas.reduce((sum, arena) => sum + arena.needBytes, 0)
  if (files > 0) return `${count(files, 'file')}, ${sizeText(bytes)} to come`
  const causes = arenas.filter(arena => !arena.consensus).flatMap(arena => arena.missing)
  return causes[0] === undefined ? 'looking at the disk' : escapeText(causes[0])
}

export function fetchLines({ files, bytes, problems, problemCount }: FetchOutcome): string[] {
  const lines = problems.map(({ path, reason }) => safe`not fetched: ${path}: ${reason}`)
  if (problemCount > problems.length) lines.push(`… and ${problemCount - problems.length} more`)
  if (files === 0) return ['all of it is real here: nothing is to be fetched']
  if (problemCount > 0) return [...lines, `${problemCount} of ${count(files, 'file')} could not be fetched`]
  return [`${count(files, 'file')} can be read here without a peer: ${sizeText(bytes)}`]
}
