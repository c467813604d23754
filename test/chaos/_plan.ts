/**
 * What a round does, as data: which user does what and which fault strikes where, and when. A function of the seed and the
 * round's number alone; what comes of it is not, because time is real.
 */
import { randomFrom } from '../system/_random.ts'

/** Peers by number: alice, bob and carol. */
export const PEERS = 3

interface Moment {
  /** Since the round began. */
  readonly atMs: number
  readonly peer: number
}

/** `pick` and `other`, 0 to 1, choose among what is on that disk at that moment; an act that cannot be done does nothing. */
export type Act =
  | { readonly do: 'create'; readonly path: string; readonly size: number }
  | {
      readonly do: 'overwrite' | 'append' | 'patch' | 'same_stamp' | 'rewrite'
      readonly pick: number
      readonly size: number
    }
  | { readonly do: 'truncate'; readonly pick: number; readonly part: number }
  | {
      readonly do: 'save'
      readonly pick: number
      readonly how: 'rename' | 'backup' | 'recreate'
      readonly size: number
    }
  /** A program that keeps the file open and writes piece after piece. */
  | {
      readonly do: 'hold'
      readonly path: string
      readonly size: number
      readonly pieces: number
      readonly pauseMs: number
    }
  | { readonly do: 'touch'; readonly pick: number; readonly mtimeMs: number }
  | { readonly do: 'chmod' | 'delete' | 'recase' | 'read'; readonly pick: number }
  | { readonly do: 'rename' | 'copy' | 'link'; readonly pick: number; readonly path: string }
  /** Into a folder that is there. */
  | { readonly do: 'move'; readonly pick: number; readonly other: number }
  | { readonly do: 'swap'; readonly pick: number; readonly other: number }
  | { readonly do: 'become'; readonly pick: number; readonly type: 'file' | 'dir' | 'symlink' }
  | { readonly do: 'mkdir' | 'symlink' | 'twins'; readonly path: string }
  | { readonly do: 'sparse'; readonly path: string; readonly size: number }
  | { readonly do: 'unpack'; readonly path: string; readonly count: number }
  | { readonly do: 'invalid_name' }
  /** Rules of the whole arena, or none. */
  | { readonly do: 'ignore'; readonly rules: readonly string[] }
  | { readonly do: 'ignored'; readonly path: string }
  /** Named folders, so that two peers can do it crosswise. */
  | { readonly do: 'rename_path'; readonly from: string; readonly to: string }

/** Each lasts `forMs` and is over by itself; what is still going on when the round ends is healed. */
export type Fault =
  /** kill -9; `early`: once more while the service is starting. */
  | { readonly do: 'kill'; readonly forMs: number; readonly early: number | null }
  | { readonly do: 'term' | 'pause'; readonly forMs: number }
  | { readonly do: 'kill_thread'; readonly pick: number }
  | { readonly do: 'second_service' }
  | { readonly do: 'cut' | 'stall' | 'stall_one_way' | 'refuse'; readonly other: number; readonly forMs: number }
  | { readonly do: 'slow'; readonly other: number; readonly forMs: number; readonly bytesPerSecond: number }
  | { readonly do: 'reset'; readonly other: number; readonly bytes: number; readonly times: number }
  | { readonly do: 'lose_store' | 'backup_store' | 'restore_store'; readonly forMs: number }
  | { readonly do: 'clock'; readonly offsetSeconds: number }
  | { readonly do: 'few_files'; readonly forMs: number; readonly spare: number }
  | { readonly do: 'no_access'; readonly pick: number; readonly mode: number; readonly forMs: number }
  | { readonly do: 'full_disk'; readonly forMs: number; readonly spareBytes: number }
  | { readonly do: 'unmount'; readonly forMs: number; readonly running: boolean }
  /** What a peer wants of a path (none: of everything). */
  | { readonly do: 'mark'; readonly path: string; readonly mark: 'real' | 'pinned' | 'unreal' }
  /** Content below a path (none: all) is to be given up now, or to be cached. */
  | { readonly do: 'evict' | 'fetch'; readonly path: string }
  | { readonly do: 'cache_limit'; readonly bytes: number }
  /** The thread of the mount dies. */
  | { readonly do: 'kill_view' }

export type Step = Moment &
  ({ readonly is: 'act'; readonly act: Act } | { readonly is: 'fault'; readonly fault: Fault })

export interface Round {
  readonly seed: number
  readonly number: number
  /** The user of the peer that has a mount works through it. */
  readonly mounted: boolean
  /** In the end of the round everything is wanted real again. */
  readonly real: boolean
  readonly steps: readonly Step[]
}

/** The peer that has a mount. Its service is not made to stand still: its user's programs would, and with them more than that. */
export const MOUNT_PEER = 1
/** The peer whose root is a small disk of its own. */
export const SMALL_DISK_PEER = 2

const NAMES = ['a', 'b', 'c', 'd.txt', 'e', 'notes.md']
const LONG = 'n'.repeat(255)
const ODD_NAMES = [
  'with space',
  ' ',
  `quo'te"s`,
  'new\nline',
  '100%25%s',
  '-rf',
  LONG,
  `${'é'.repeat(127)}x`,
  'Case',
  'case',
  'caf\u00e9',
  'cafe\u0301',
  'back\\slash',
  'tab\there',
  '\u202egpj.exe',
  '🙂🙂',
  'nul',
  '.hidden',
  '~backup~',
  '*?[a]{b}',
  'a.conflict-20260101-000000-aaaaaaa',
  Array.from({ length: 30 }, (_, index) => `deep${index}`).join('/'),
]
const IGNORABLE = ['scratch/', '*.ignored', 'a', 'e/', 'notes.md']
const MARKS = ['unreal', 'unreal', 'unreal', 'pinned', 'real'] as const
const YEAR_SECONDS = 365 * 86_400
const FAULT_KINDS: readonly Fault['do'][] = [
  'kill',
  'kill',
  'kill',
  'kill',
  'term',
  'term',
  'pause',
  'pause',
  'kill_thread',
  'kill_thread',
  'second_service',
  'cut',
  'cut',
  'stall',
  'stall_one_way',
  'refuse',
  'slow',
  'slow',
  'reset',
  'reset',
  'lose_store',
  'backup_store',
  'backup_store',
  'restore_store',
  'restore_store',
  'clock',
  'few_files',
  'no_access',
  'full_disk',
  'full_disk',
  'unmount',
  'evict',
  'evict',
  'fetch',
  'cache_limit',
  'kill_view',
]

export function planRound(seed: number, number: number): Round {
  const random = randomFrom(seed * 1_000_003 + number * 7_919 + 1)
  const below = (limit: number) => Math.floor(random() * limit)
  const pickOf = <Item>(list: readonly Item[]): Item => list[below(list.length)] as Item
  const steps: Step[] = []

  const lengthMs = pickOf([3_000, 6_000, 9_000, 12_000])
  const acts = pickOf([20, 60, 120])
  const faults = pickOf([1, 3, 5, 8])
  const depth = pickOf([1, 2, 3])
  const oddness = pickOf([0.02, 0.1, 0.3])

  const name = () => (random() < oddness ? pickOf(ODD_NAMES) : pickOf(NAMES))
  const path = () => Array.from({ length: 1 + below(depth) }, name).join('/')
  const size = () => {
    const roll = random()
    if (roll < 0.05) return 0
    if (roll < 0.7) return 1 + below(3_000)
    if (roll < 0.93) return 10_000 + below(300_000)
    return 1_000_000 + below(3_000_000)
  }
  const atMs = () => Math.round(random() * lengthMs)

  for (let index = 0; index < acts; index++) {
    const at = { atMs: atMs(), peer: below(PEERS) }
    if (random() < 0.03) {
      // Crossed: a into b here, b into a there.
      const [left, right] = pickOf([
        ['a', 'b'],
        ['c', 'e'],
        ['b', 'c'],
      ] as const)
      const cross = (from: string, to: string): Act => ({ do: 'rename_path', from, to: `${to}/${from}` })
      steps.push({ ...at, is: 'act', act: cross(left, right) })
      steps.push({ ...at, peer: (at.peer + 1 + below(PEERS - 1)) % PEERS, is: 'act', act: cross(right, left) })
    } else steps.push({ ...at, is: 'act', act: act() })
  }
  for (let marks = below(4); marks > 0; marks--) {
    const fault = { do: 'mark', path: random() < 0.6 ? '' : pickOf(NAMES), mark: pickOf(MARKS) } as const
    // Early, so that there is time for something to come of it.
    steps.push({ atMs: Math.round(random() * 1_000), peer: below(PEERS), is: 'fault', fault })
  }
  for (let index = 0; index < faults; index++) {
    const fault = makeFault(pickOf(FAULT_KINDS))
    const small = fault.do === 'full_disk' || fault.do === 'unmount'
    const peer = small ? SMALL_DISK_PEER : fault.do === 'kill_view' ? MOUNT_PEER : below(PEERS)
    steps.push({ atMs: atMs(), peer, is: 'fault', fault })
  }
  steps.sort((a, b) => a.atMs - b.atMs)
  return { seed, number, mounted: random() < 0.7, real: number % 3 === 0, steps }

  function act(): Act {
    const roll = below(100)
    const pick = random()
    if (roll < 16) return { do: 'create', path: path(), size: size() }
    if (roll < 23) return { do: 'overwrite', pick, size: size() }
    if (roll < 26) return { do: 'append', pick, size: 1 + below(5_000) }
    if (roll < 28) return { do: 'patch', pick, size: 1 + below(200) }
    if (roll < 31) return { do: 'same_stamp', pick, size: 0 }
    if (roll < 33) return { do: 'rewrite', pick, size: size() }
    if (roll < 35) return { do: 'truncate', pick, part: random() < 0.3 ? 0 : random() }
    if (roll < 43) return { do: 'save', pick, how: pickOf(['rename', 'rename', 'backup', 'recreate']), size: size() }
    if (roll < 46) {
      const pauseMs = pickOf([0, 20, 150, 600])
      return { do: 'hold', path: path(), size: pickOf([100, 20_000, 400_000]), pieces: 2 + below(6), pauseMs }
    }
    if (roll < 49) return { do: 'touch', pick, mtimeMs: Date.UTC(1985, 0, 1) + below(2 ** 31) * 500 }
    if (roll < 52) return { do: 'chmod', pick }
    if (roll < 62) return { do: 'delete', pick }
    if (roll < 64) return { do: 'recase', pick }
    if (roll < 71) return { do: 'rename', pick, path: path() }
    if (roll < 76) return { do: 'move', pick, other: random() }
    if (roll < 79) return { do: 'copy', pick, path: path() }
    if (roll < 81) return { do: 'link', pick, path: path() }
    if (roll < 84) return { do: 'swap', pick, other: random() }
    if (roll < 88) return { do: 'become', pick, type: pickOf(['file', 'dir', 'symlink'] as const) }
    if (roll < 90) return { do: 'mkdir', path: path() }
    if (roll < 92) return { do: 'symlink', path: path() }
    if (roll < 93) return { do: 'twins', path: path() }
    if (roll < 94) return { do: 'sparse', path: path(), size: 500_000 + below(3_000_000) }
    if (roll < 96) return { do: 'unpack', path: path(), count: 5 + below(40) }
    if (roll < 97) return random() < 0.2 ? { do: 'invalid_name' } : { do: 'read', pick }
    if (roll < 98) {
      const rules = random() < 0.4 ? [] : [pickOf(IGNORABLE), pickOf(IGNORABLE)]
      return { do: 'ignore', rules }
    }
    return { do: 'ignored', path: `${path()}/${pickOf(['scratch/x', 'y.ignored'])}` }
  }

  function makeFault(kind: Fault['do']): Fault {
    const forMs = pickOf([100, 500, 1_500, 4_000])
    const other = 1 + below(PEERS - 1)
    switch (kind) {
      case 'kill':
        return { do: kind, forMs, early: random() < 0.3 ? below(700) : null }
      case 'term':
      case 'pause':
      case 'lose_store':
      case 'backup_store':
      case 'restore_store':
        return { do: kind, forMs }
      case 'kill_thread':
        return { do: kind, pick: random() }
      case 'second_service':
        return { do: kind }
      case 'cut':
      case 'stall':
      case 'stall_one_way':
      case 'refuse':
        return { do: kind, other, forMs }
      case 'slow':
        return { do: kind, other, forMs: 2 * forMs, bytesPerSecond: pickOf([2_000, 50_000, 500_000]) }
      case 'reset':
        return { do: kind, other, bytes: 500 + below(200_000), times: 1 + below(5) }
      case 'clock':
        return { do: kind, offsetSeconds: pickOf([-YEAR_SECONDS, YEAR_SECONDS, -5, 3_600, 0]) }
      case 'few_files':
        return { do: kind, forMs, spare: below(12) }
      case 'no_access':
        return { do: kind, pick: random(), mode: pickOf([0, 0o444, 0o555]), forMs: 2 * forMs }
      case 'full_disk':
        return { do: kind, forMs: 2 * forMs, spareBytes: pickOf([0, 0, 8_192, 300_000]) }
      case 'mark':
        return { do: kind, path: '', mark: 'unreal' }
      case 'evict':
      case 'fetch':
        return { do: kind, path: random() < 0.7 ? '' : pickOf(NAMES) }
      case 'cache_limit':
        return { do: kind, bytes: pickOf([0, 300_000, 2_000_000, 1_000_000_000]) }
      case 'kill_view':
        return { do: kind }
      case 'unmount':
        return { do: kind, forMs, running: random() < 0.5 }
      default:
        return kind satisfies never
    }
  }
}
