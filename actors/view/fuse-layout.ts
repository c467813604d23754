/**
 * Fixed layouts of C structs: one description gives the size, a reader and a writer. Little-endian, as every platform on which
 * Node runs on Linux is. A field is aligned to its own size, as C does it; padding is written as zeros.
 */

/**
 * What a field is: unsigned 16 or 32 bits, signed 32 or 64, unsigned 64. Those of 64 bits are numbers where their meaning keeps
 * them below 2⁵³ (beyond it they are rounded), and `big`, a bigint, where they do not.
 */
export type FieldType = 'u16' | 'u32' | 'i32' | 'u64' | 'i64' | 'big'
export type Fields = Readonly<Record<string, FieldType>>
export type Values<F extends Fields> = { -readonly [Name in keyof F]: F[Name] extends 'big' ? bigint : number }

const BYTES = { u16: 2, u32: 4, i32: 4, u64: 8, i64: 8, big: 8 } as const

export interface Layout<F extends Fields> {
  /** Size of the struct in bytes. */
  readonly bytes: number
  readonly offsets: Readonly<Record<keyof F & string, number>>
  read(view: DataView, at: number): Values<F>
  write(view: DataView, at: number, values: Values<F>): void
}

/** A struct with these fields, in this order. `bytes`: its size where it ends with padding or unused fields. */
export function layout<const F extends Fields>(fields: F, bytes = 0): Layout<F> {
  const offsets: Record<string, number> = {}
  const list: { name: string; type: FieldType; offset: number }[] = []
  let end = 0
  for (const [name, type] of Object.entries(fields)) {
    const offset = Math.ceil(end / BYTES[type]) * BYTES[type]
    offsets[name] = offset
    list.push({ name, type, offset })
    end = offset + BYTES[type]
  }
  return {
    bytes: Math.max(end, bytes),
    offsets: offsets as Layout<F>['offsets'],
    read(view, at) {
      const values: Record<string, number | bigint> = {}
      for (const { name, type, offset } of list) values[name] = readField(view, at + offset, type)
      return values as Values<F>
    },
    write(view, at, values) {
      for (const { name, type, offset } of list)
        writeField(view, at + offset, type, (values as Record<string, number | bigint>)[name] as number | bigint)
    },
  }
}

function readField(view: DataView, at: number, type: FieldType): number | bigint {
  switch (type) {
    case 'u16':
      return view.getUint16(at, true)
    case 'u32':
      return view.getUint32(at, true)
    case 'i32':
      return view.getInt32(at, true)
    case 'u64':
      return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000
    case 'i64':
      return view.getUint32(at, true) + view.getInt32(at + 4, true) * 0x1_0000_0000
    case 'big':
      return view.getBigUint64(at, true)
  }
}

function writeField(view: DataView, at: number, type: FieldType, value: number | bigint): void {
  switch (type) {
    case 'u16':
      return view.setUint16(at, Number(value), true)
    case 'u32':
      return view.setUint32(at, Number(value), true)
    case 'i32':
      return view.setInt32(at, Number(value), true)
    case 'u64':
    case 'i64':
      // Two halves: several times faster than by way of a bigint. Both hold for negative numbers too.
      view.setUint32(at, Number(value) >>> 0, true)
      return view.setInt32(at + 4, Math.floor(Number(value) / 0x1_0000_0000), true)
    case 'big':
      return view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true)
  }
}
