/**
 * As much of an assembler for WebAssembly as rolling.ts needs: each function gives the bytes of one expression or statement,
 * from the bytes of its operands, so that code reads as nested calls. Pure.
 *
 * @see https://webassembly.github.io/spec/core/binary/ for the numbers
 */

export type Code = readonly number[]

const I32 = 0x7f
const I64 = 0x7e
export type ValueType = typeof I32 | typeof I64
/** Block without a result. */
const VOID = 0x40

/** Unsigned LEB128. */
function unsigned(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  while (rest >= 0x80) {
    bytes.push((rest & 0x7f) | 0x80)
    rest = Math.floor(rest / 0x80)
  }
  bytes.push(rest)
  return bytes
}

/** Signed LEB128. */
function signed(value: bigint): number[] {
  const bytes: number[] = []
  for (let rest = value; ; rest >>= 7n) {
    const low = Number(rest & 0x7fn)
    const last = (rest >> 7n === 0n && low < 0x40) || (rest >> 7n === -1n && low >= 0x40)
    bytes.push(last ? low : low | 0x80)
    if (last) return bytes
  }
}

const operation =
  (opcode: number) =>
  (...operands: Code[]): Code => [...operands.flat(), opcode]

/** Loads and stores: the address is the first operand; `offset` is added to it. Unaligned is allowed. */
const access =
  (opcode: number) =>
  (offset: number, ...operands: Code[]): Code => [...operands.flat(), opcode, 0, ...unsigned(offset)]

export const i32 = {
  const: (value: number): Code => [0x41, ...signed(BigInt(value))],
  add: operation(0x6a),
  sub: operation(0x6b),
  and: operation(0x71),
  or: operation(0x72),
  shl: operation(0x74),
  shr: operation(0x76),
  eq: operation(0x46),
  geSigned: operation(0x4e),
  gtSigned: operation(0x4a),
  eqz: operation(0x45),
  load: access(0x28),
  load8: access(0x2d),
  store: access(0x36),
  wrap: operation(0xa7),
}

export const i64 = {
  const: (value: bigint): Code => [0x42, ...signed(BigInt.asIntN(64, value))],
  add: operation(0x7c),
  sub: operation(0x7d),
  mul: operation(0x7e),
  shr: operation(0x88),
  eq: operation(0x51),
  load: access(0x29),
  load8: access(0x31),
  store: access(0x37),
  extend: operation(0xad),
}

export const get = (local: number): Code => [0x20, ...unsigned(local)]
export const set = (local: number, value: Code): Code => [...value, 0x21, ...unsigned(local)]
export const call = (func: number, ...operands: Code[]): Code => [...operands.flat(), 0x10, ...unsigned(func)]
export const giveBack = (value: Code): Code => [...value, 0x0f]
export const when = (condition: Code, ...then: Code[]): Code => [...condition, 0x04, VOID, ...then.flat(), 0x0b]
/** Leaves the enclosing `block`, or begins the enclosing `loop` again, that is `depth` levels out. `when` is a level, too. */
export const branch = (depth: number): Code => [0x0c, ...unsigned(depth)]
export const branchIf = (depth: number, condition: Code): Code => [...condition, 0x0d, ...unsigned(depth)]
export const block = (...body: Code[]): Code => [0x02, VOID, ...body.flat(), 0x0b]
/** Ends at its end; goes round by `branch` to it. */
export const loop = (...body: Code[]): Code => [0x03, VOID, ...body.flat(), 0x0b]

export const types: { i32: ValueType; i64: ValueType } = { i32: I32, i64: I64 }

export interface Func {
  /** Absent: not exported. */
  name?: string
  params: readonly ValueType[]
  result: ValueType | null
  /** Numbered after the parameters. */
  locals: readonly ValueType[]
  body: readonly Code[]
}

/** A module with one exported memory, `memory`, and these functions, which call each other by their number here. */
export function assemble(functions: readonly Func[], memoryPages: number): Uint8Array<ArrayBuffer> {
  const vector = (items: readonly Code[]): Code => [...unsigned(items.length), ...items.flat()]
  const section = (id: number, items: readonly Code[]): Code => {
    const content = vector(items)
    return [id, ...unsigned(content.length), ...content]
  }
  const text = (name: string): Code => [...unsigned(name.length), ...Buffer.from(name)]
  const signatures = functions.map(({ params, result }) => [
    0x60,
    ...vector(params.map(type => [type])),
    ...vector(result === null ? [] : [[result]]),
  ])
  const exported = functions.flatMap(({ name }, number) =>
    name === undefined ? [] : [[...text(name), 0x00, ...unsigned(number)]],
  )
  const bodies = functions.map(({ locals, body }) => {
    const code = [...vector(locals.map(type => [1, type])), ...body.flat(), 0x0b]
    return [...unsigned(code.length), ...code]
  })
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, signatures),
    ...section(
      3,
      functions.map((_, number) => unsigned(number)),
    ),
    ...section(5, [[0x00, ...unsigned(memoryPages)]]),
    ...section(7, [[...text('memory'), 0x02, 0x00], ...exported]),
    ...section(10, bodies),
  ])
}
