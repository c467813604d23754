/** What a simulation does, as data: made from a seed, shrunk when it fails, kept as JSON, replayed. */
import { randomFrom } from '../system/_random.ts'

export interface Script {
  /** Delays, losses and orders of the world. */
  readonly seed: number
  readonly peers: number
  /** A line has no short cuts: what the ends learn, those between them relay. */
  readonly topology: 'mesh' | 'line'
  /** Part of the watcher's words that are lost, 0 to 1. */
  readonly loss: number
  /** Part of the arena's changes of the disk that a user gets ahead of by a moment, 0 to 1. */
  readonly race: number
  /** Longest way of a message, milliseconds. */
  readonly latencyMs: number
  readonly steps: readonly Step[]
  /** Of a saved script: what it had shown. */
  readonly found?: string
}

/** When and by whom. After each phase the world heals, settles and is checked. */
interface Moment {
  readonly phase: number
  readonly atMs: number
  readonly peer: number
}

/** `pick`, 0 to 1, chooses among what is on the disk at that moment; a step that cannot be done does nothing. */
export type Action =
  | { readonly do: 'write'; readonly path: string; readonly text: string; readonly size: number }
  | { readonly do: 'edit' | 'append' | 'hold'; readonly pick: number; readonly text: string; readonly size: number }
  | { readonly do: 'truncate'; readonly pick: number; readonly part: number }
  | {
      readonly do: 'save'
      readonly pick: number
      readonly how: 'rename' | 'backup' | 'recreate'
      readonly text: string
      readonly size: number
    }
  | { readonly do: 'touch'; readonly pick: number; readonly mtimeMs: number }
  | { readonly do: 'chmod' | 'delete' | 'rewrite'; readonly pick: number }
  | { readonly do: 'rename' | 'copy' | 'link'; readonly pick: number; readonly path: string }
  | { readonly do: 'swap'; readonly pick: number; readonly other: number }
  | { readonly do: 'mkdir'; readonly path: string }
  | { readonly do: 'symlink'; readonly path: string; readonly text: string }
  | { readonly do: 'become'; readonly pick: number; readonly type: 'file' | 'dir' | 'symlink'; readonly text: string }
  | { readonly do: 'bulk'; readonly path: string; readonly text: string; readonly count: number }
  /** The process ends, at once or inside its next `after` changes of disk or store, and starts again. */
  | { readonly do: 'kill'; readonly after: number; readonly downMs: number }
  /**
   * The machine goes down. `disk`: what it had written was durable; `store` 0 to 1: how much of what was not yet flushed survives.
   * `left`: what else of the steps since the last sync, with `torn`, 0 to 1, the part of new content that is torn.
   */
  | {
      readonly do: 'power'
      readonly after: number
      readonly disk: boolean
      readonly store: number
      readonly left?: 'first' | 'some' | 'all'
      readonly torn?: number
      readonly downMs: number
    }
  | { readonly do: 'backup' }
  | { readonly do: 'lose_store' | 'restore_store'; readonly downMs: number }
  | { readonly do: 'cut'; readonly other: number; readonly downMs: number }
  | { readonly do: 'partition'; readonly mask: number; readonly downMs: number }
  | { readonly do: 'full'; readonly downMs: number }
  | { readonly do: 'clock'; readonly jumpMs: number }
  | { readonly do: 'overflow' }
  | { readonly do: 'pause'; readonly downMs: number }

export type Step = Moment & Action

export const FAULTS = ['none', 'cut', 'kill', 'store', 'power', 'disk', 'all'] as const
export type Faults = (typeof FAULTS)[number]
/** `mixed`: each seed takes one of the classes. */
export const WANTED = [...FAULTS, 'mixed'] as const
export type Wanted = (typeof WANTED)[number]

export function classOf(wanted: Wanted, seed: number): Faults {
  return wanted === 'mixed' ? (FAULTS[seed % FAULTS.length] as Faults) : wanted
}

export interface ScriptOptions {
  readonly seed: number
  /** 0: two to five, by the seed. */
  readonly peers: number
  readonly operations: number
  readonly faults: Faults
}

const NAMES = ['a', 'b', 'c', 'd.txt', 'x', 'y']
const YEAR_MS = 365 * 24 * 3600 * 1000

export function makeScript({ seed, peers: wanted, operations, faults }: ScriptOptions): Script {
  const random = randomFrom(seed * 7919 + 13)
  const below = (limit: number) => Math.floor(random() * limit)
  const pickOf = <T>(list: readonly T[]): T => list[below(list.length)] as T
  const peers = wanted > 0 ? wanted : pickOf([2, 2, 3, 3, 3, 4, 5])
  const names = NAMES.slice(0, pickOf([1, 2, 3, 4, 6]))
  const depth = pickOf([1, 2, 2, 3])
  const tempo = pickOf([5, 50, 300, 2000])
  const phases = pickOf([1, 1, 2, 3])
  const steps: Step[] = []
  let number = 0

  const path = () => Array.from({ length: 1 + below(depth) }, () => pickOf(names)).join('/')
  const text = () => `${(++number).toString(36)}.`
  const size = () => (random() < 0.02 ? 128 * 1024 + below(200_000) : pickOf([5, 20, 20, 200, 900]))

  function userAction(): Action {
    const roll = below(100)
    const pick = random()
    if (roll < 20) return { do: 'write', path: path(), text: text(), size: size() }
    if (roll < 32) return { do: 'edit', pick, text: text(), size: size() }
    if (roll < 36) return { do: 'append', pick, text: text(), size: 10 }
    if (roll < 38) return { do: 'hold', pick, text: text(), size: 30 }
    if (roll < 40) return { do: 'truncate', pick, part: random() < 0.3 ? 0 : random() }
    if (roll < 47)
      return { do: 'save', pick, how: pickOf(['rename', 'backup', 'recreate']), text: text(), size: size() }
    if (roll < 50) return { do: 'touch', pick, mtimeMs: Date.UTC(2020, 0, 1) + below(2 ** 31) }
    if (roll < 53) return { do: 'chmod', pick }
    if (roll < 65) return { do: 'delete', pick }
    if (roll < 67) return { do: 'rewrite', pick }
    if (roll < 77) return { do: 'rename', pick, path: path() }
    if (roll < 80) return { do: 'copy', pick, path: path() }
    if (roll < 81) return { do: 'link', pick, path: path() }
    if (roll < 84) return { do: 'swap', pick, other: random() }
    if (roll < 88) return { do: 'mkdir', path: path() }
    if (roll < 92) return { do: 'symlink', path: path(), text: text() }
    if (roll < 98) return { do: 'become', pick, type: pickOf(['file', 'dir', 'symlink']), text: text() }
    return random() < 0.3 ? { do: 'bulk', path: path(), text: text(), count: 18 } : { do: 'overflow' }
  }

  function powerLoss(): Action {
    return {
      do: 'power',
      after: random() < 0.3 ? 0 : 1 + below(12),
      disk: random() < 0.15,
      store: pickOf([0, 1, random()]),
      ...(random() < 0.7 && { left: pickOf(['first', 'some', 'all'] as const), torn: pickOf([0, 0.5, 1]) }),
      downMs: pickOf([50, 500, 5_000, 30_000]),
    }
  }

  function faultAction(): Action {
    const downMs = pickOf([50, 500, 5_000, 30_000])
    const after = random() < 0.3 ? 0 : 1 + below(12)
    const kinds: Record<Faults, readonly string[]> = {
      none: ['overflow'],
      cut: ['cut', 'partition'],
      kill: ['kill', 'kill', 'cut'],
      store: ['lose_store', 'backup', 'restore_store', 'kill', 'cut'],
      power: ['power', 'power', 'kill', 'cut'],
      disk: ['full', 'kill', 'pause', 'clock'],
      all: [
        'cut',
        'partition',
        'kill',
        'kill',
        'lose_store',
        'backup',
        'restore_store',
        'power',
        'full',
        'clock',
        'pause',
      ],
    }
    const kind = pickOf(kinds[faults])
    switch (kind) {
      case 'cut':
        return { do: 'cut', other: below(peers), downMs }
      case 'partition':
        return { do: 'partition', mask: below(2 ** peers), downMs }
      case 'kill':
        return { do: 'kill', after, downMs }
      case 'power':
        return powerLoss()
      case 'lose_store':
      case 'restore_store':
        return { do: kind, downMs }
      case 'backup':
        return { do: 'backup' }
      case 'full':
        return { do: 'full', downMs }
      case 'pause':
        return { do: 'pause', downMs }
      case 'clock':
        return { do: 'clock', jumpMs: pickOf([-YEAR_MS, YEAR_MS, -5_000, 3_600_000]) }
      default:
        return { do: 'overflow' }
    }
  }

  for (let phase = 0; phase < phases; phase++) {
    let atMs = pickOf([0, 100, 3_000])
    for (let index = 0; index < Math.ceil(operations / phases); index++) {
      const peer = below(peers)
      steps.push({ phase, atMs: Math.round(atMs), peer, ...userAction() })
      if (faults !== 'none' && random() < 0.12)
        steps.push({ phase, atMs: Math.round(atMs), peer: below(peers), ...faultAction() })
      // The machine that was just written to, before that is durable.
      if (faults === 'power' && random() < 0.1)
        steps.push({ phase, atMs: Math.round(atMs) + pickOf([0, 20, 150, 900]), peer, ...powerLoss() })
      atMs += random() < 0.2 ? below(4_000) : below(2 * tempo)
    }
  }
  return {
    seed,
    peers,
    topology: random() < 0.3 ? 'line' : 'mesh',
    loss: pickOf([0, 0.05, 0.3]),
    race: pickOf([0, 0.1, 0.5, 1]),
    latencyMs: pickOf([2, 30, 400]),
    steps,
  }
}
