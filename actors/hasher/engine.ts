/**
 * BLAKE2b-256, from the fastest engine that loads here. libsodium where its native module does (about 1 GB/s), else plain
 * JavaScript, twenty times slower and the oracle of the tests. Both give the same bytes.
 */
import { createRequire } from 'node:module'
import { blake2b } from '@noble/hashes/blake2.js'

export interface Blake2b {
  /** BLAKE2b-256 of one prefix byte followed by the parts, none of which is copied. Returns 32 new bytes. */
  hash256(prefix: number, ...parts: Uint8Array[]): Uint8Array
}

export const HASH_BYTES = 32

/** What we use of sodium-native, which comes without types. */
interface Sodium {
  crypto_generichash_batch(output: Uint8Array, batch: readonly Uint8Array[]): void
}

const PREFIXES = Array.from({ length: 256 }, (_, value) => Uint8Array.of(value))

function prefixBytes(prefix: number): Uint8Array {
  const bytes = PREFIXES[prefix]
  if (bytes === undefined) throw new RangeError(`a prefix is one byte, not ${prefix}`)
  return bytes
}

/** Plain JavaScript. */
export const nobleEngine: Blake2b = {
  hash256(prefix, ...parts) {
    const state = blake2b.create({ dkLen: HASH_BYTES }).update(prefixBytes(prefix))
    for (const part of parts) state.update(part)
    return state.digest()
  },
}

/** libsodium, or null where its native module does not load. */
export function loadSodiumEngine(): Blake2b | null {
  try {
    const sodium = createRequire(import.meta.url)('sodium-native') as Sodium
    const engine: Blake2b = {
      hash256(prefix, ...parts) {
        const output = new Uint8Array(HASH_BYTES)
        sodium.crypto_generichash_batch(output, [prefixBytes(prefix), ...parts])
        return output
      },
    }
    engine.hash256(0)
    return engine
  } catch {
    return null
  }
}

export const engine: Blake2b = loadSodiumEngine() ?? nobleEngine
