/** Content for tests of deltas: random but repeatable, and edited at random. */
import fc from 'fast-check'

/** Bytes that look random, from a seed (xorshift32). */
export function noise(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length)
  let state = (seed * 2_654_435_761 + 1) >>> 0 || 1
  for (let at = 0; at < length; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[at] = state >>> 24
  }
  return bytes
}

export type Edit =
  | { do: 'insert'; at: number; bytes: Uint8Array }
  | { do: 'remove'; at: number; length: number }
  | { do: 'overwrite'; at: number; bytes: Uint8Array }
  | { do: 'move' | 'copy'; at: number; length: number; to: number }

/** Places are parts of the content, 0 to 1. */
export function edits(lengthMax: number): fc.Arbitrary<Edit[]> {
  const at = fc.double({ min: 0, max: 1, noNaN: true })
  const length = fc.integer({ min: 1, max: lengthMax })
  const bytes = fc.tuple(length, fc.nat()).map(([size, seed]) => noise(size, seed))
  return fc.array(
    fc.oneof(
      fc.record({ do: fc.constant('insert' as const), at, bytes }),
      fc.record({ do: fc.constant('overwrite' as const), at, bytes }),
      fc.record({ do: fc.constant('remove' as const), at, length }),
      fc.record({ do: fc.constantFrom('move' as const, 'copy' as const), at, length, to: at }),
    ),
    { maxLength: 5 },
  )
}

export function edited(content: Uint8Array, list: readonly Edit[]): Uint8Array {
  return list.reduce((bytes, edit) => editedOnce(bytes, edit), content)
}

function editedOnce(bytes: Uint8Array, edit: Edit): Uint8Array {
  const at = Math.floor(edit.at * bytes.length)
  switch (edit.do) {
    case 'insert':
      return splice(bytes, at, 0, edit.bytes)
    case 'overwrite':
      return splice(bytes, at, edit.bytes.length, edit.bytes)
    case 'remove':
      return splice(bytes, at, edit.length, new Uint8Array(0))
    default: {
      const part = bytes.slice(at, at + edit.length)
      const rest = edit.do === 'move' ? splice(bytes, at, edit.length, new Uint8Array(0)) : bytes
      return splice(rest, Math.floor(edit.to * rest.length), 0, part)
    }
  }
}

function splice(bytes: Uint8Array, at: number, removed: number, added: Uint8Array): Uint8Array {
  return Uint8Array.from(Buffer.concat([bytes.subarray(0, at), added, bytes.subarray(at + removed)]))
}
