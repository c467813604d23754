/** What `subscribe` gives: first what there is, then each change, for as long as the client is there. */
import { type ControlParams, type ServiceEvent, SUBSCRIBED_PAST_MAX } from '../protocol/control.ts'
import type { ArenaName } from '../protocol/ids.ts'
import type { HistoryEvent } from '../protocol/status.ts'
import type { Session } from './control.ts'
import type { Supervisor } from './supervisor.ts'

/** Status is sent at most this often. */
const STATUS_EVERY_MS = 250
/** While something flows, rates are told this often: they change by themselves. */
const RATES_EVERY_MS = 1_000
/** How long an arena has to tell its past. */
const PAST_MS = 10_000

/** Throws `arena_unknown`. */
export async function subscribe(
  supervisor: Supervisor,
  { what, arena }: ControlParams<'subscribe'>,
  session: Session,
): Promise<void> {
  if (arena !== undefined) supervisor.arenas.status(arena)
  const ends = { status: subscribeStatus, history: subscribeHistory, events: subscribeEvents }[what](
    supervisor,
    arena,
    session,
  )
  session.gone.addEventListener('abort', ends)
  if (session.gone.aborted) ends()
}

type End = () => void

function subscribeStatus(supervisor: Supervisor, arena: ArenaName | undefined, session: Session): End {
  let timer: NodeJS.Timeout | undefined
  let last = ''
  const send = () => {
    timer = undefined
    const status = supervisor.status
    if (arena !== undefined) status.arenas = status.arenas.filter(one => one.name === arena)
    // The time since the start is no news.
    const text = JSON.stringify({ ...status, peer: { ...status.peer, uptime: 0 } })
    if (text !== last) session.notify({ jsonrpc: '2.0', method: 'status', params: status })
    last = text
    if (status.peers.some(({ rates }) => rates.up + rates.down > 0)) timer = setTimeout(send, RATES_EVERY_MS)
  }
  let soon = false
  const changed = () => {
    if (soon) return
    soon = true
    setTimeout(() => {
      soon = false
      clearTimeout(timer)
      if (!session.gone.aborted) send()
    }, STATUS_EVERY_MS)
  }
  send()
  const end = supervisor.bell.onChanged(changed)
  return () => {
    end()
    clearTimeout(timer)
  }
}

function subscribeHistory(supervisor: Supervisor, arena: ArenaName | undefined, session: Session): End {
  const send = (events: HistoryEvent[]) => {
    session.notify({ jsonrpc: '2.0', method: 'history', params: { events } })
  }
  // What happens while the past is being asked for waits until that has been told.
  let waiting: HistoryEvent[] | undefined = []
  const end = supervisor.bell.onHistory(event => {
    if (arena !== undefined && event.arena !== arena) return
    if (waiting) waiting.push(event)
    else send([event])
  })
  void past(supervisor, arena === undefined ? supervisor.arenas.names : [arena]).then(events => {
    const told = new Map(events.map(event => [event.arena, event.number]))
    const since = (waiting ?? []).filter(event => event.number > (told.get(event.arena) ?? 0))
    waiting = undefined
    send([...events, ...since])
  })
  return end
}

/** The last events of these arenas, oldest first. What an arena does not tell in time is left out. */
async function past(supervisor: Supervisor, arenas: readonly ArenaName[]): Promise<HistoryEvent[]> {
  const answers = await Promise.allSettled(
    arenas.map(name => supervisor.arenas.ask(name, 'history', { limit: SUBSCRIBED_PAST_MAX }, PAST_MS)),
  )
  return answers
    .flatMap(answer => (answer.status === 'fulfilled' ? (answer.value as { events: HistoryEvent[] }).events : []))
    .sort((a, b) => a.atMs - b.atMs || a.number - b.number)
    .slice(-SUBSCRIBED_PAST_MAX)
}

function subscribeEvents(supervisor: Supervisor, arena: ArenaName | undefined, session: Session): End {
  const wanted = (event: ServiceEvent) => arena === undefined || event.fields.arena === arena
  const send = (events: ServiceEvent[]) => {
    session.notify({ jsonrpc: '2.0', method: 'event', params: { events } })
  }
  send(supervisor.logbook.events.filter(wanted).slice(-SUBSCRIBED_PAST_MAX))
  return supervisor.logbook.listen(event => {
    if (wanted(event)) send([event])
  })
}
