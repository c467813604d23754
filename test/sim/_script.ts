/** What a simulation does, as data: made from a seed, shrunk when it fails, kept as JSON, replayed. */
import type { Mark } from '../../protocol/control.ts'
import { randomFrom } from '../system/_random.ts'

export interface Script {
  /** Delays, losses and orders of the world. */
  readonly seed: number
  readonly peers: number
  /** In a line and a star what the ends learn, those between them relay; the first is the star's middle. */
  readonly topology: 'mesh' | 'line' | 'star'
  /** Part of the watcher's words that are lost, 0 to 1. */
  readonly loss: number
  /** Part of the arena's changes of the disk that a user gets ahead of by a moment, 0 to 1. */
  readonly race: number
  /** Longest way of a message, milliseconds. */
  readonly latencyMs: number
  /** Part of the batches of a feed that come twice, 0 to 1. */
  readonly twice?: number
  /** Steps of the file systems' clocks, nanoseconds: mtimes are rounded down to them; a kernel's tick (4 ms) holds for ctimes, too. */
  readonly grainNs?: number
  /** By default `keep-both`. */
  readonly conflicts?: 'keep-both' | 'newest'
  /** Peers that go on showing their own (policy `local`, with `keep-both`), one bit each. */
  readonly local?: number
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
      readonly how: 'rename' | 'backup' | 'recreate' | 'in_place' | 'linked'
      readonly text: string
      readonly size: number
    }
  | { readonly do: 'touch'; readonly pick: number; readonly mtimeMs: number }
  /** Other content of the same size, with the mtime set back. */
  | { readonly do: 'sneak'; readonly pick: number; readonly text: string }
  /** Zeros, with something at the end unless `text` is empty. */
  | { readonly do: 'sparse'; readonly path: string; readonly text: string; readonly size: number }
  | { readonly do: 'chmod' | 'delete' | 'rewrite'; readonly pick: number }
  | { readonly do: 'move'; readonly from: string; readonly path: string }
  /** A rule file in a folder (none: the root); no rules: it goes. */
  | { readonly do: 'ignore'; readonly path: string; readonly rules: readonly string[]; readonly text: string }
  /** What this peer wants of a path and what is below it (none: of everything); `clear`: as the folder above. */
  | { readonly do: 'mark'; readonly path: string; readonly mark: Mark | 'clear' }
  /** Content below a path (none: all) is to be given up now. */
  | { readonly do: 'evict'; readonly path: string }
  /** Somebody reads a part of a file that is not real here: which of them, and which part, 0 to 1. */
  | { readonly do: 'read'; readonly pick: number; readonly from: number; readonly part: number }
  /** Cached files are taken away, torn, or put back as they once were. */
  | { readonly do: 'lose_cache'; readonly how: 'gone' | 'torn' | 'short'; readonly pick: number }
  /** A file that is not real here, through a mount: which of them, and what it becomes. */
  | {
      readonly do: 'view'
      readonly how: 'delete' | 'touch' | 'rename' | 'save' | 'save_over' | 'brief' | 'edit' | 'folder'
      readonly pick: number
      readonly path: string
      readonly text: string
      readonly size: number
    }
  /** The view's thread dies. */
  | { readonly do: 'kill_view' }
  /** A name that is not valid UTF-8. */
  | { readonly do: 'invalid'; readonly text: string }
  | { readonly do: 'rename' | 'copy' | 'link'; readonly pick: number; readonly path: string }
  | { readonly do: 'swap'; readonly pick: number; readonly other: number }
  /** A folder that holds something gets a name that nothing has; `path` is where it goes if that is free. */
  | { readonly do: 'move_folder'; readonly pick: number; readonly path: string }
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
  /** What goes from this peer to the other one stands still. */
  | { readonly do: 'stall'; readonly other: number; readonly downMs: number }
  | { readonly do: 'full'; readonly downMs: number }
  /** Calls of the disk fail, this part of them. */
  | { readonly do: 'errors'; readonly code: string; readonly part: number; readonly downMs: number }
  /** The volume with the root goes; with `down` while the service is not running. */
  | { readonly do: 'unmount'; readonly shows: 'nothing' | 'empty'; readonly down: boolean; readonly downMs: number }
  /** The service is stopped in order, and the machine started again. */
  | { readonly do: 'reboot'; readonly downMs: number }
  | { readonly do: 'clock'; readonly jumpMs: number }
  | { readonly do: 'overflow' }
  | { readonly do: 'pause'; readonly downMs: number }

export type Step = Moment & Action

/** How far a kernel's clock for files goes at once: 4 ms at 250 Hz. */
export const TICK_NS = 4_000_000

/** `rules`: users write rule files, and some peers go on showing their own. `marks`: not everybody wants everything real. */
export const FAULTS = ['none', 'cut', 'kill', 'store', 'power', 'disk', 'all', 'rules', 'marks'] as const
export type Faults = (typeof FAULTS)[number]
/** `mixed`: each seed takes one of the classes. */
export const WANTED = [...FAULTS, 'mixed'] as const
export type Wanted = (typeof WANTED)[number]

const MIXED = FAULTS.filter(faults => faults !== 'rules')

export function classOf(wanted: Wanted, seed: number): Faults {
  return wanted === 'mixed' ? (MIXED[seed % MIXED.length] as Faults) : wanted
}

export interface ScriptOptions {
  readonly seed: number
  /** 0: two to five, by the seed. */
  readonly peers: number
  readonly operations: number
  readonly faults: Faults
}

const NAMES = ['a', 'b', 'c', 'd.txt', 'x', 'y']
/** Some disks would merge these. */
const TWINS = ['a', 'A', '\u00e9', 'e\u0301', 'Ss', '\u00df']
const ODD = [
  'with space',
  `"quoted' name`,
  'new\nline',
  '%41',
  '-rf',
  '.hidden',
  'a~',
  'n'.repeat(255),
  `${'\u{1f600}'.repeat(60)}.txt`,
  'a.conflict-20260101-000000-AAAAAAA',
  '\\back',
  'tab\t*?[x]',
]
const YEAR_MS = 365 * 24 * 3600 * 1000

export function makeScript({ seed, peers: wanted, operations, faults }: ScriptOptions): Script {
  const random = randomFrom(seed * 7919 + 13)
  const below = (limit: number) => Math.floor(random() * limit)
  const pickOf = <T>(list: readonly T[]): T => list[below(list.length)] as T
  const peers = wanted > 0 ? wanted : pickOf([2, 2, 3, 3, 3, 4, 5])
  const pool = pickOf([NAMES, NAMES, NAMES, TWINS, ODD])
  const few = pickOf([1, 2, 3, 4, 6])
  const first = pool === ODD ? below(pool.length - few) : 0
  const names = pool.slice(first, first + few)
  const rules = faults === 'rules'
  const marks = faults === 'marks'
  const depth = pickOf([1, 2, 2, 3])
  const tempo = pickOf([5, 50, 300, 2000])
  const phases = pickOf([1, 1, 2, 3])
  // Half of them without what excuses a write from being shown.
  const harsh = marks && random() < 0.5
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
    if (roll < 35) return { do: 'append', pick, text: text(), size: 10 }
    if (roll < 36) return { do: 'sneak', pick, text: text() }
    if (roll < 38) return { do: 'hold', pick, text: text(), size: 30 }
    if (roll < 40) return { do: 'truncate', pick, part: random() < 0.3 ? 0 : random() }
    if (roll < 47)
      return {
        do: 'save',
        pick,
        how: pickOf(['rename', 'backup', 'recreate', 'in_place', 'linked']),
        text: text(),
        size: size(),
      }
    if (roll < 50) return { do: 'touch', pick, mtimeMs: Date.UTC(2020, 0, 1) + below(2 ** 31) }
    if (roll < 53) return { do: 'chmod', pick }
    if (roll < 65) return { do: 'delete', pick }
    if (roll < 67) return { do: 'rewrite', pick }
    if (roll < 75) return { do: random() < 0.4 ? 'move_folder' : 'rename', pick, path: path() }
    if (roll < 77) return { do: 'move', from: path(), path: path() }
    if (roll < 80) return { do: 'copy', pick, path: path() }
    if (roll < 81) return { do: 'link', pick, path: path() }
    if (roll < 84) return { do: 'swap', pick, other: random() }
    if (roll < 88) return { do: 'mkdir', path: path() }
    if (roll < 92) return { do: 'symlink', path: path(), text: text() }
    if (roll < 98) return { do: 'become', pick, type: pickOf(['file', 'dir', 'symlink']), text: text() }
    switch (below(5)) {
      case 0:
        return { do: 'bulk', path: path(), text: text(), count: 18 }
      case 1:
        return { do: 'sparse', path: path(), text: random() < 0.5 ? text() : '', size: pickOf([0, 1, 500, 300_000]) }
      case 2:
        return { do: 'invalid', text: text() }
      default:
        return { do: 'overflow' }
    }
  }

  function ruleAction(): Action {
    const rule = () => pickOf(['', '', '/', '!']) + pickOf([...names, '*', '*.txt']) + pickOf(['', '', '/'])
    return {
      do: 'ignore',
      path: random() < 0.7 ? '' : path(),
      rules: Array.from({ length: below(3) }, rule),
      text: text(),
    }
  }

  function markAction(): Action {
    const at = random() < 0.4 ? '' : path()
    if (random() < 0.25) return { do: 'evict', path: at }
    if (random() < 0.4) return { do: 'read', pick: below(1000), from: random(), part: random() }
    if (random() < 0.1) return { do: 'lose_cache', how: pickOf(['gone', 'torn', 'short'] as const), pick: below(1000) }
    return { do: 'mark', path: at, mark: pickOf(['unreal', 'unreal', 'unreal', 'real', 'clear', 'pinned'] as const) }
  }

  function viewAction(): Action {
    const how = pickOf(['delete', 'touch', 'rename', 'rename', 'save', 'save_over', 'brief', 'edit', 'folder'] as const)
    return { do: 'view', how, pick: random(), path: path(), text: text(), size: size() }
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
      cut: ['cut', 'partition', 'stall'],
      kill: ['kill', 'kill', 'cut'],
      store: ['lose_store', 'backup', 'restore_store', 'kill', 'cut'],
      power: ['power', 'power', 'kill', 'cut'],
      disk: ['full', 'kill', 'pause', 'clock', 'errors', 'errors', 'unmount', 'reboot'],
      rules: ['cut', 'kill', 'lose_store'],
      marks: harsh
        ? ['kill', 'power', 'backup', 'restore_store', 'lose_store', 'errors', 'pause', 'cut']
        : ['cut', 'kill', 'kill', 'pause', 'kill_view'],
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
        'stall',
        'errors',
        'unmount',
        'reboot',
      ],
    }
    const kind = pickOf(kinds[faults])
    switch (kind) {
      case 'cut':
        return { do: 'cut', other: below(peers), downMs }
      case 'partition':
        return { do: 'partition', mask: below(2 ** peers), downMs }
      case 'stall':
        return { do: 'stall', other: below(peers), downMs }
      case 'errors':
        return {
          do: 'errors',
          code: pickOf(['EIO', 'EACCES', 'ENOSPC', 'EMFILE']),
          part: pickOf([0.02, 0.2, 1]),
          downMs,
        }
      case 'unmount':
        return { do: 'unmount', shows: pickOf(['nothing', 'empty']), down: random() < 0.5, downMs }
      case 'reboot':
        return { do: 'reboot', downMs }
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
      case 'kill_view':
        return { do: 'kill_view' }
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
      const marked = marks && random() < 0.15
      const viewed = marks && !marked && random() < 0.15
      const action = marked
        ? markAction()
        : viewed
          ? viewAction()
          : rules && random() < 0.08
            ? ruleAction()
            : userAction()
      steps.push({ phase, atMs: Math.round(atMs), peer, ...action })
      if (action.do === 'move' && random() < 0.5) {
        // The same way back, at another peer, before it has heard of it.
        steps.push({
          phase,
          atMs: Math.round(atMs),
          peer: below(peers),
          do: 'move',
          from: action.path,
          path: action.from,
        })
      }
      if (faults !== 'none' && random() < 0.12)
        steps.push({ phase, atMs: Math.round(atMs), peer: below(peers), ...faultAction() })
      // The machine that was just written to, before that is durable.
      if (faults === 'power' && random() < 0.1)
        steps.push({ phase, atMs: Math.round(atMs) + pickOf([0, 20, 150, 900]), peer, ...powerLoss() })
      atMs += random() < 0.2 ? below(4_000) : below(2 * tempo)
      // Time enough for content to be given up.
      if (marks && random() < 0.05) atMs += 25_000
    }
  }
  const drawn = pickOf<Script['topology']>(['mesh', 'mesh', 'mesh', 'line', 'star'])
  // Who only knows of a file does not pass its content on.
  const topology = marks ? 'mesh' : drawn
  return {
    seed,
    peers,
    topology,
    loss: pickOf([0, 0.05, 0.3]),
    race: pickOf([0, 0.1, 0.5, 1]),
    latencyMs: pickOf([2, 30, 400]),
    twice: pickOf([0, 0, 0.1]),
    grainNs: pickOf([1, 1, 1, TICK_NS, 2_000_000_000]),
    ...pickOf<Pick<Script, 'conflicts' | 'local'>>([
      ...Array<object>(10).fill({}),
      { conflicts: 'newest' },
      { conflicts: 'newest' },
      // Who shows its own does not hold the other's: what would come through it cannot.
      faults === 'rules' && topology === 'mesh' ? { local: below(2 ** peers) } : {},
    ]),
    steps,
  }
}
