/** How far long work is: a bar on a terminal, now and then a plain line elsewhere, nothing in JSON mode. On stderr. */
import { Presets, SingleBar } from 'cli-progress'
import type { RpcNotification } from '../protocol/control.ts'
import type { ArenaStatus } from '../protocol/status.ts'
import { connectControl } from './client.ts'
import type { Context } from './context.ts'
import { needText } from './show.ts'

/** Milliseconds between two plain lines. */
const LINE_EVERY_MS = 5000

export interface Progress {
  /** `done` of `total`, in any unit, with what is going on. */
  show(done: number, total: number, text: string): void
  /** Takes the bar away. May be called more than once. */
  stop(): void
}

/** The bar on the screen, if any: taken away also when a person interrupts. */
let onScreen: Progress | undefined

export function stopProgress(): void {
  onScreen?.stop()
}

export function progressOf(context: Context): Progress {
  const { stderr } = context.surroundings
  if (context.json) return { show() {}, stop() {} }
  return stderr.isTTY === true ? barOn(stderr) : linesOf(context)
}

function barOn(stream: NodeJS.WriteStream): Progress {
  const bar = new SingleBar(
    { stream, clearOnComplete: true, hideCursor: true, format: '{bar} {percentage}%  {text}', etaBuffer: 1 },
    Presets.shades_classic,
  )
  let started = false
  let stopped = false
  const progress: Progress = {
    show(done, total, text) {
      if (stopped) return
      if (!started) bar.start(Math.max(total, 1), 0, { text })
      started = true
      bar.setTotal(Math.max(total, 1))
      bar.update(done, { text })
    },
    stop() {
      if (started && !stopped) bar.stop()
      stopped = true
      if (onScreen === progress) onScreen = undefined
    },
  }
  onScreen = progress
  return progress
}

function linesOf(context: Context): Progress {
  let shownMs = Number.NEGATIVE_INFINITY
  let shown = ''
  return {
    show(_done, _total, text) {
      const nowMs = context.surroundings.nowMs()
      if (text === shown || nowMs - shownMs < LINE_EVERY_MS) return
      shown = text
      shownMs = nowMs
      context.note(text)
    },
    stop() {},
  }
}

/**
 * Shows how arenas come to consensus, from a connection of its own, while `work` is under way.
 *
 * @param names of arenas; undefined: all
 */
export async function whileShowing<T>(
  context: Context,
  names: readonly string[] | undefined,
  describe: (arenas: readonly ArenaStatus[]) => { done: number; total: number; text: string },
  work: () => Promise<T>,
): Promise<T> {
  if (context.json) return work()
  const progress = progressOf(context)
  const client = await connectControl(context.home.socket)
  try {
    await client.subscribe({ what: 'status' }, notification => {
      const arenas = arenasIn(notification, names)
      const { done, total, text } = describe(arenas)
      progress.show(done, total, text)
    })
    return await work()
  } finally {
    progress.stop()
    client.close()
  }
}

export function arenasIn(notification: RpcNotification, names: readonly string[] | undefined): ArenaStatus[] {
  if (notification.method !== 'status') return []
  return notification.params.arenas.filter(arena => names === undefined || names.includes(arena.name))
}

/** A description of the way to consensus: all of what was ever seen as missing is the whole. */
export function consensusProgress(): (arenas: readonly ArenaStatus[]) => { done: number; total: number; text: string } {
  let most = 0
  return arenas => {
    const need = arenas.reduce((sum, arena) => sum + arena.needBytes, 0)
    most = Math.max(most, need)
    return { done: most - need, total: most, text: needText(arenas) }
  }
}
