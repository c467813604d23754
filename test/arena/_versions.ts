/** Versions for tests: short words for contents and replicas, and histories that peers could really have made. */
import fc from 'fast-check'
import {
  type Content,
  changeVersion,
  type FileContent,
  meet,
  sameContent,
  type Vector,
  type Version,
} from '../../actors/arena/version.ts'
import type { Author, BlobHash, ReplicaId } from '../../protocol/ids.ts'

/** `replica(1)` is 1111…; so they sort by their number. */
export function replica(digit: number): ReplicaId {
  return digit.toString(16).repeat(16) as ReplicaId
}

export function author(index: number): Author {
  return String.fromCharCode(65 + index).repeat(7) as Author
}

/** A hash from a letter a–f or a digit. */
export function hash(letter: string): BlobHash {
  return letter.repeat(64) as BlobHash
}

export function file(letter: string, fields: Partial<FileContent> = {}): FileContent {
  return { type: 'file', size: 1, mtimeNs: 1_000_000_000n, exec: false, hash: hash(letter), ...fields }
}

export const gone: Content = { type: 'gone', deleted: null }

export function version(content: Content, counts: Record<number, number>, g: number, by = 0): Version {
  return { content, vector: vector(counts), g, author: author(by) }
}

export function vector(counts: Record<number, number>): Vector {
  return Object.entries(counts).map(([digit, count]) => [replica(Number(digit)), count] as const)
}

export const vectorArbitrary: fc.Arbitrary<Vector> = fc
  .dictionary(fc.constantFrom('1', '2', '3', '4'), fc.integer({ min: 1, max: 4 }))
  .map(counts => vector(Object.fromEntries(Object.entries(counts).sort())))

/** What happens to one path: somebody changes it, or hears of somebody else's version. */
type Event = { at: number; do: 'change'; content: Content } | { at: number; do: 'hear'; from: number }

const PEERS = 3

const contentArbitrary: fc.Arbitrary<Content> = fc.oneof(
  fc
    .record({ letter: fc.constantFrom('a', 'b', 'c'), mtime: fc.integer({ min: 1, max: 3 }) })
    .map(({ letter, mtime }) => file(letter, { mtimeNs: BigInt(mtime) })),
  fc.constant<Content>({ type: 'dir' }),
  fc.constantFrom('x', 'y').map((target): Content => ({ type: 'symlink', target })),
  fc.constant<Content>(gone),
)

const eventArbitrary: fc.Arbitrary<Event> = fc.oneof(
  fc.record({ at: fc.nat(PEERS - 1), do: fc.constant('change' as const), content: contentArbitrary }),
  fc.record({ at: fc.nat(PEERS - 1), do: fc.constant('hear' as const), from: fc.nat(PEERS - 1) }),
)

export interface Made {
  readonly made: Version
  readonly base: Version | null
}

/** Every version that three peers made in some order of changes and hearsay, each with what it was based on. */
export const historyArbitrary: fc.Arbitrary<Made[]> = fc
  .array(eventArbitrary, { minLength: 2, maxLength: 24 })
  .map(events => {
    const shown: (Version | null)[] = Array.from({ length: PEERS }, () => null)
    const counts = Array.from({ length: PEERS }, () => 0)
    const history: Made[] = []
    for (const event of events) {
      const base = shown[event.at] ?? null
      if (event.do === 'hear') {
        const theirs = shown[event.from]
        if (theirs) shown[event.at] = meet(base, theirs).known
        continue
      }
      let { content } = event
      if (content.type === 'gone') {
        if (base === null || base.content.type === 'gone') continue
        content = { type: 'gone', deleted: base.content.type === 'file' ? base.content.hash : null }
      }
      const count = (counts[event.at] as number) + 1
      counts[event.at] = count
      const idle = base !== null && sameContent(base.content, content) && content.type !== 'file'
      if (idle) continue
      const made = changeVersion({
        content,
        base,
        known: base,
        replica: replica(event.at + 1),
        count,
        author: author(event.at),
        firstScan: false,
        policy: 'keep-both',
        nowMs: 0,
      })
      shown[event.at] = made
      history.push({ made, base })
    }
    return history
  })

/** Peers that each heard of the versions in an order of their own tell each other all they know, until nobody learns. */
export function exchange(orders: readonly (readonly Version[])[], meeting = meet): Version[] {
  const known = orders.map(
    order => order.reduce<Version | null>((best, next) => meeting(best, next).known, null) as Version,
  )
  for (let round = 0; round < 50; round++) {
    let learnt = false
    for (let i = 0; i < known.length; i++) {
      for (const theirs of [...known]) {
        const { known: best } = meeting(known[i] as Version, theirs)
        if (best === known[i]) continue
        known[i] = best
        learnt = true
      }
    }
    if (!learnt) return known
  }
  throw new Error('peers go on telling each other news for ever')
}
