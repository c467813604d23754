/**
 * The one place that writes the log: named events with fields (protocol/log.ts) to stderr through pino. Keeps the last
 * lines for the support bundle, and hands each event on to whoever listens.
 */
import pino from 'pino'
import pretty from 'pino-pretty'
import type { ServiceEvent } from '../protocol/control.ts'
import { EVENTS, type LogEvent, type LogFields } from '../protocol/log.ts'
import { escapeText } from './escape.ts'
import { Pace } from './pace.ts'

/** Lines kept for `diag`. */
export const LOG_LINES_MAX = 2_000

/** What others can bring about as often as they like: of each event and peer (or address) so many lines, then one every few seconds. */
const FLOODS = new Set<LogEvent>([
  'peer_opened',
  'peer_closed',
  'peer_refused',
  'invite_refused',
  'blob_invalid',
  'arena_peer_opened',
  'arena_peer_closed',
  'arena_rolled_back',
  'arena_drifted',
])
const FLOOD = { burst: 100, perSecond: 0.2 }
const LEFT_OUT_MAX = 1000

/** Events kept for those who subscribe later. */
const EVENTS_KEPT = 200

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]
export const LOG_FORMATS = ['json', 'pretty'] as const
export type LogFormat = (typeof LOG_FORMATS)[number]

export interface LogOptions {
  level: LogLevel
  format: LogFormat
  colour: boolean
  wallMs(): number
  /** Where lines go; stderr if absent. */
  destination?: { write(line: string): void }
}

export class Log {
  readonly #logger: pino.Logger
  readonly #level: LogLevel
  readonly #wallMs: () => number
  readonly #listeners = new Set<(event: ServiceEvent) => void>()
  readonly #lines = new Ring<string>(LOG_LINES_MAX)
  readonly #events = new Ring<ServiceEvent>(EVENTS_KEPT)
  readonly #pace = new Pace(FLOOD.burst, FLOOD.perSecond)
  /** Lines that were left out, by subject: the next line says how many. */
  readonly #left = new Map<string, number>()

  constructor(options: LogOptions) {
    this.#level = options.level
    this.#wallMs = options.wallMs
    const settings: pino.LoggerOptions = { level: options.level, base: null, messageKey: 'event' }
    // Written at once, on this thread: the last lines before a death are the ones that matter.
    const destination = options.destination ?? pino.destination({ fd: 2, sync: true })
    this.#logger =
      options.format === 'json'
        ? pino({ ...settings, formatters: { level: label => ({ level: label }) } }, destination)
        : pino(settings, prettyStream(options))
  }

  write(event: LogEvent, fields: LogFields = {}): void {
    const level = EVENTS[event]
    const safe: LogFields = {}
    const subject = subjectOf(event, fields)
    if (subject !== undefined) {
      if (!this.#pace.allows(subject, this.#wallMs())) {
        if (this.#left.size < LEFT_OUT_MAX || this.#left.has(subject))
          this.#left.set(subject, (this.#left.get(subject) ?? 0) + 1)
        return
      }
      const leftOut = this.#left.get(subject)
      if (leftOut !== undefined) safe.leftOut = leftOut
      this.#left.delete(subject)
    }
    for (const [key, value] of Object.entries(fields)) {
      if (value !== undefined) safe[key] = typeof value === 'string' ? escapeText(value) : value
    }
    this.#logger[level](safe, event)
    const atMs = this.#wallMs()
    // What nobody wanted in the log is too much for the bundle too.
    if (this.#logger.isLevelEnabled(level) || (this.#level === 'silent' && level !== 'debug')) {
      this.#lines.push(JSON.stringify({ time: new Date(atMs).toISOString(), level, event, ...safe }))
    }
    // Of what is only for debugging, what users did is news to a program all the same.
    if (level === 'debug' && event !== 'arena_history') return
    const news: ServiceEvent = { atMs, level, event, fields: safe }
    this.#events.push(news)
    for (const listener of this.#listeners) listener(news)
  }

  /** The last LOG_LINES_MAX lines as JSON, oldest first. */
  get lines(): string[] {
    return this.#lines.items
  }

  /** The last events that listeners were told, oldest first. */
  get events(): ServiceEvent[] {
    return this.#events.items
  }

  /** Every event of level info and above, and history, whatever the log's own level. Returns what ends it. */
  listen(listener: (event: ServiceEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}

/** Whose allowance of lines this one takes; undefined: it is not limited. Whoever has an address is known by it: names can be made up. */
function subjectOf(event: LogEvent, { address, peer }: LogFields): string | undefined {
  if (!FLOODS.has(event)) return undefined
  const who = typeof address === 'string' ? address.replace(/:\d+$/, '') : peer
  return who === undefined ? undefined : `${event} ${who}`
}

/** The last so many of what was pushed. */
class Ring<Item> {
  readonly #size: number
  readonly #items: Item[] = []
  #oldest = 0

  constructor(size: number) {
    this.#size = size
  }

  push(item: Item): void {
    if (this.#items.length < this.#size) {
      this.#items.push(item)
      return
    }
    this.#items[this.#oldest] = item
    this.#oldest = (this.#oldest + 1) % this.#size
  }

  get items(): Item[] {
    return [...this.#items.slice(this.#oldest), ...this.#items.slice(0, this.#oldest)]
  }
}

function prettyStream(options: LogOptions): NodeJS.WritableStream {
  return pretty({
    colorize: options.colour,
    messageKey: 'event',
    translateTime: 'SYS:HH:MM:ss.l',
    singleLine: true,
    sync: true,
    destination: (options.destination as NodeJS.WritableStream | undefined) ?? 2,
  })
}
