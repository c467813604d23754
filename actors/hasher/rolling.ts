/**
 * The rolling hash by which shifted content is found, and the search with it. One hash of a window of bytes is
 *
 * ```
 * h = Σ (byteᵢ + 1) · Mⁿ⁻¹⁻ⁱ  mod 2⁶⁴        i from 0 to n − 1, n the length of the window, a power of two, 512 or more
 * ```
 *
 * Moving on by one byte is a multiplication and two additions. Equal windows have equal hashes; that unequal ones differ is only
 * likely, and content can be made for which they do not: whoever uses a hit verifies what he gets from it (the leaves' Merkle hashes).
 *
 * It runs in WebAssembly, which has the 64-bit multiplication that JavaScript lacks: 0.5 GB/s on a busy machine with a table of 8,192
 * hashes, where a loop in JavaScript did 0.1. The module is assembled here, at the first use.
 */
import { ROLLING_BYTES } from '../../protocol/limits.ts'
import {
  assemble,
  block,
  branch,
  branchIf,
  type Code,
  call,
  type Func,
  get,
  giveBack,
  i32,
  i64,
  loop,
  set,
  types,
  when,
} from './wasm.ts'

/** Hashes that can be searched for at once. */
export const SOUGHT_MAX = 32_768
/** Bytes that can be searched at once. */
export const SEARCH_BYTES_MAX = 4 * 1024 * 1024 + 512 * 1024

/** Odd, with well mixed bits: that of Knuth's MMIX generator. */
const M = 6364136223846793005n
const power = (exponent: bigint) => BigInt.asUintN(64, M ** exponent)

// The memory: a cell for results, a bit for each of the highest bits that some sought hash has, the table, the bytes
const RESULT_AT = 0
const FILTER_AT = 64
const FILTER_BITS_MAX = 21
const KEYS_AT = FILTER_AT + 2 ** (FILTER_BITS_MAX - 3)
const TABLE_MAX = 2 * SOUGHT_MAX
const VALUES_AT = KEYS_AT + TABLE_MAX * ROLLING_BYTES
const DATA_AT = VALUES_AT + TABLE_MAX * 4
/** Read ahead, and not used, by the last step. */
const SLACK = 64
const PAGE = 65_536
const PAGES = Math.ceil((DATA_AT + SEARCH_BYTES_MAX + SLACK) / PAGE)

/** A slot of the table whose hash is not sought any more. */
const DEAD = 0xffffffff

/** Functions by their number in the module. */
const HASH = 0

const ONE = i64.const(1n)

/** hash(at, length) → the hash of these bytes; a length that 4 divides. */
function hashFunction(): Func {
  const [at, length, h, end] = [0, 1, 2, 3].map(get) as [Code, Code, Code, Code]
  const byte = (offset: number) => i64.add(i64.load8(offset, at), ONE)
  return {
    params: [types.i32, types.i32],
    result: types.i64,
    locals: [types.i64, types.i32],
    body: [
      set(3, i32.add(at, length)),
      block(
        loop(
          branchIf(1, i32.geSigned(at, end)),
          // Four bytes a round: one multiplication waits for the last round, the others do not.
          set(
            2,
            i64.add(
              i64.mul(h, i64.const(power(4n))),
              i64.add(
                i64.add(i64.mul(byte(0), i64.const(power(3n))), i64.mul(byte(1), i64.const(power(2n)))),
                i64.add(i64.mul(byte(2), i64.const(M)), byte(3)),
              ),
            ),
          ),
          set(0, i32.add(at, i32.const(4))),
          branch(0),
        ),
      ),
      h,
    ],
  }
}

/** sign(at, length, to): writes the hash of these bytes to memory. */
function signFunction(): Func {
  return {
    name: 'sign',
    params: [types.i32, types.i32, types.i32],
    result: null,
    locals: [],
    body: [i64.store(0, get(2), call(HASH, get(0), get(1)))],
  }
}

/**
 * search(at, end, window, filterShift, tableShift, tableMask) → the first position from `at` and before `end` whose window has a hash of the table, with
 * its value in the result cell; −1: none.
 */
function searchFunction(): Func {
  const names = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18].map(get)
  const [at, end, window, filterShift, tableShift, tableMask, h, out, plus, until, slot] = names as Code[] as [
    Code,
    Code,
    Code,
    Code,
    Code,
    Code,
    Code,
    Code,
    Code,
    Code,
    Code,
  ]
  const H = 6
  const OUT = 7
  const PLUS = 8
  const UNTIL = 9
  const SLOT = 10
  /** Locals of a round of four: what is added with each step (11–14), and the hashes after each (15–18). */
  const step = (number: number) => get(10 + number)
  const after = (number: number) => get(14 + number)
  const added = (offset: number) =>
    i64.sub(i64.add(i64.load8(offset, i32.add(at, window)), plus), i64.mul(i64.load8(offset, at), out))
  /** Not zero if the bit for this hash is set. */
  const filtered = (hash: Code): Code => {
    const bit = i32.wrap(i64.shr(hash, i64.extend(filterShift)))
    return i32.and(i32.shr(i32.load8(FILTER_AT, i32.shr(bit, i32.const(3))), i32.and(bit, i32.const(7))), i32.const(1))
  }
  const times = (value: Code, exponent: bigint) => i64.mul(value, i64.const(power(exponent)))
  return {
    name: 'search',
    params: [types.i32, types.i32, types.i32, types.i32, types.i32, types.i32],
    result: types.i32,
    locals: [
      types.i64, // H
      types.i64, // OUT: M to the power of the window, by which what goes out is multiplied
      types.i64, // PLUS: 1 − OUT, as each byte counts one more
      types.i32, // UNTIL: one by one up to here
      types.i32, // SLOT
      ...Array.from({ length: 8 }, () => types.i64),
    ],
    body: [
      set(OUT, i64.const(M)),
      set(SLOT, window),
      block(
        loop(
          branchIf(1, i32.eq(get(SLOT), i32.const(1))),
          set(OUT, i64.mul(out, out)),
          set(SLOT, i32.shr(slot, i32.const(1))),
          branch(0),
        ),
      ),
      set(PLUS, i64.sub(ONE, out)),
      set(H, call(HASH, at, window)),
      set(UNTIL, at),
      loop(
        when(i32.geSigned(at, end), giveBack(i32.const(-1))),
        block(
          // By fours, as long as none of them may be sought. Each hash follows from the last round's alone, so that they are computed side by side.
          branchIf(0, i32.gtSigned(until, at)),
          branchIf(0, i32.gtSigned(i32.add(at, i32.const(4)), end)),
          set(11, added(0)),
          set(12, i64.add(times(step(1), 1n), added(1))),
          set(13, i64.add(times(step(2), 1n), added(2))),
          set(14, i64.add(times(step(3), 1n), added(3))),
          set(15, i64.add(times(h, 1n), step(1))),
          set(16, i64.add(times(h, 2n), step(2))),
          set(17, i64.add(times(h, 3n), step(3))),
          set(18, i64.add(times(h, 4n), step(4))),
          set(UNTIL, i32.add(at, i32.const(4))),
          branchIf(0, i32.or(i32.or(filtered(h), filtered(after(1))), i32.or(filtered(after(2)), filtered(after(3))))),
          set(H, after(4)),
          set(0, until),
          branch(1),
        ),
        when(
          filtered(h),
          set(SLOT, i32.and(i32.wrap(i64.shr(h, i64.extend(tableShift))), tableMask)),
          block(
            loop(
              branchIf(1, i32.eqz(i32.load(VALUES_AT, i32.shl(slot, i32.const(2))))),
              when(
                i32.and(
                  i64.eq(i64.load(KEYS_AT, i32.shl(slot, i32.const(3))), h),
                  i32.gtSigned(i32.load(VALUES_AT, i32.shl(slot, i32.const(2))), i32.const(0)),
                ),
                i32.store(0, i32.const(RESULT_AT), i32.load(VALUES_AT, i32.shl(slot, i32.const(2)))),
                giveBack(at),
              ),
              set(SLOT, i32.and(i32.add(slot, i32.const(1)), tableMask)),
              branch(0),
            ),
          ),
        ),
        set(H, i64.add(i64.mul(h, i64.const(M)), added(0))),
        set(0, i32.add(at, i32.const(1))),
        branch(0),
      ),
      i32.const(-1),
    ],
  }
}

/** What we use of WebAssembly, whose types come with those of browsers only. */
interface Engine {
  Module: new (bytes: Uint8Array) => object
  Instance: new (module: object) => { exports: Exports }
}
interface Exports {
  memory: { buffer: ArrayBuffer }
  sign(at: number, length: number, to: number): void
  search(at: number, end: number, window: number, filterShift: number, tableShift: number, tableMask: number): number
}

let loaded: Rolling | undefined

/** The one of this thread: it is its memory that costs. */
export function rolling(): Rolling {
  loaded ??= new Rolling()
  return loaded
}

export interface Hit {
  /** Where in the bytes. */
  readonly at: number
  /** Which of the sought hashes, by its number; of equal ones the first. */
  readonly number: number
}

/** Bytes to be searched, and hashes to be found in them. */
export class Rolling {
  /** Put the bytes here first. */
  readonly data: Buffer
  readonly #exports: Exports
  readonly #filter: Uint8Array
  /** Each hash as two words, the lower one first. */
  readonly #keys: Uint32Array
  readonly #values: Uint32Array
  readonly #result: Uint32Array
  #filterBits = 0
  #tableBits = 0

  constructor() {
    const { Module, Instance } = (globalThis as unknown as { WebAssembly: Engine }).WebAssembly
    const code = assemble([hashFunction(), signFunction(), searchFunction()], PAGES)
    this.#exports = new Instance(new Module(code)).exports
    const { buffer } = this.#exports.memory
    this.data = Buffer.from(buffer, DATA_AT, SEARCH_BYTES_MAX)
    this.#filter = new Uint8Array(buffer, FILTER_AT, 2 ** (FILTER_BITS_MAX - 3))
    this.#keys = new Uint32Array(buffer, KEYS_AT, TABLE_MAX * 2)
    this.#values = new Uint32Array(buffer, VALUES_AT, TABLE_MAX)
    this.#result = new Uint32Array(buffer, RESULT_AT, 2)
  }

  /** Writes the hash of `length` bytes of `data` to `to`. */
  sign(at: number, length: number, to: Uint8Array, toAt: number): void {
    this.#exports.sign(DATA_AT + at, length, RESULT_AT)
    for (let byte = 0; byte < ROLLING_BYTES; byte++)
      to[toAt + byte] = ((this.#result[byte >> 2] as number) >>> (8 * (byte & 3))) & 0xff
  }

  /** Sets what is sought: hashes one after the other, at most SOUGHT_MAX. */
  seek(hashes: Uint8Array): void {
    const count = Math.floor(hashes.length / ROLLING_BYTES)
    if (count > SOUGHT_MAX) throw new RangeError(`${count} hashes are too many to be sought at once`)
    const bits = Math.ceil(Math.log2(Math.max(count, 1)))
    this.#filterBits = Math.min(FILTER_BITS_MAX, Math.max(13, bits + 6))
    this.#tableBits = Math.max(8, bits + 1)
    this.#filter.fill(0, 0, 2 ** (this.#filterBits - 3))
    this.#values.fill(0, 0, 2 ** this.#tableBits)
    const view = new DataView(hashes.buffer, hashes.byteOffset, hashes.byteLength)
    for (let number = 0; number < count; number++) {
      const low = view.getUint32(number * ROLLING_BYTES, true)
      const high = view.getUint32(number * ROLLING_BYTES + 4, true)
      const bit = high >>> (32 - this.#filterBits)
      this.#filter[bit >> 3]! |= 1 << (bit & 7)
      const slot = this.#slot(low, high)
      // The first of equal ones stays.
      if (this.#values[slot] !== 0) continue
      this.#keys[2 * slot] = low
      this.#keys[2 * slot + 1] = high
      this.#values[slot] = number + 1
    }
  }

  /** The slot of this hash, or the free one where it belongs. */
  #slot(low: number, high: number): number {
    const mask = 2 ** this.#tableBits - 1
    let slot = high >>> (32 - this.#tableBits)
    while (this.#values[slot] !== 0 && (this.#keys[2 * slot] !== low || this.#keys[2 * slot + 1] !== high))
      slot = (slot + 1) & mask
    return slot
  }

  /** This hash, one of those given to `seek`, is not sought any more. */
  drop(hash: Uint8Array): void {
    const view = new DataView(hash.buffer, hash.byteOffset, ROLLING_BYTES)
    const slot = this.#slot(view.getUint32(0, true), view.getUint32(4, true))
    if (this.#values[slot] !== 0) this.#values[slot] = DEAD
  }

  /** The first position of `data` from `from` and before `end` at which a window with a sought hash begins. All windows must lie within `data`. */
  next(from: number, end: number, window: number): Hit | null {
    if (from >= end) return null
    const at = this.#exports.search(
      DATA_AT + from,
      DATA_AT + end,
      window,
      64 - this.#filterBits,
      64 - this.#tableBits,
      2 ** this.#tableBits - 1,
    )
    return at < 0 ? null : { at: at - DATA_AT, number: (this.#result[0] as number) - 1 }
  }
}
