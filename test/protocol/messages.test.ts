/** What comes from outside, by property: what fits its schema is taken as it is, and anything else is one kind of error. */
import type { TSchema } from '@sinclair/typebox'
import { KindGuard } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import test from 'ava'
import fc from 'fast-check'
import { controlMethods, isControlMethod, parseParams } from '../../protocol/control.ts'
import { SyncError } from '../../protocol/error.ts'
import { wire } from '../../protocol/wire.ts'

/** Values that fit a schema, of the forms that our schemas have. */
function fitting(schema: TSchema): fc.Arbitrary<unknown> {
  if (KindGuard.IsLiteral(schema)) return fc.constant(schema.const)
  if (KindGuard.IsNull(schema)) return fc.constant(null)
  if (KindGuard.IsBoolean(schema)) return fc.boolean()
  if (KindGuard.IsUnion(schema)) return fc.oneof(...schema.anyOf.map(fitting))
  if (KindGuard.IsInteger(schema))
    return fc.maxSafeInteger().map(n => {
      const least = schema.minimum ?? 0
      const greatest = Math.min(schema.maximum ?? Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
      return least + (Math.abs(n) % (greatest - least + 1 || 1))
    })
  if (KindGuard.IsNumber(schema)) return fc.integer({ min: 0, max: 1_000 }).map(n => n * (schema.multipleOf ?? 1))
  if (KindGuard.IsArray(schema))
    return fc.array(fitting(schema.items), {
      minLength: schema.minItems ?? 0,
      maxLength: Math.min(schema.maxItems ?? 3, (schema.minItems ?? 0) + 3),
    })
  if (KindGuard.IsTuple(schema)) return fc.tuple(...(schema.items ?? []).map(fitting))
  if (KindGuard.IsObject(schema)) {
    const required = new Set(schema.required ?? [])
    const fields = Object.fromEntries(Object.entries(schema.properties).map(([key, value]) => [key, fitting(value)]))
    return fc.record(fields, { requiredKeys: [...required] as never[] })
  }
  if (typeof schema.pattern === 'string') return fc.stringMatching(new RegExp(schema.pattern))
  return fc.string({ minLength: schema.minLength ?? 0, maxLength: Math.min(schema.maxLength ?? 20, 20) })
}

/** Somewhere in a value something else. */
const wrong = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    -1,
    0.5,
    2 ** 53,
    Number.MAX_VALUE,
    '',
    '\0',
    [],
    {},
    true,
    '__proto__',
    'x'.repeat(10_000),
  ),
  fc.jsonValue(),
)

function mutated(value: unknown, at: number, by: unknown): unknown {
  const copy = structuredClone(value)
  const places: (() => void)[] = []
  const visit = (node: unknown) => {
    if (typeof node !== 'object' || node === null) return
    const table = node as Record<string, unknown>
    for (const key of Object.keys(table)) {
      places.push(() => {
        table[key] = by
      })
      places.push(() => delete table[key])
      visit(table[key])
    }
  }
  visit(copy)
  places[at % Math.max(1, places.length)]?.()
  return copy
}

/** The error that a border may throw. */
function outcome(parse: () => unknown): 'taken' | string {
  try {
    parse()
    return 'taken'
  } catch (error) {
    if (!(error instanceof SyncError)) throw error
    return error.code
  }
}

for (const schema of wire.schemas) {
  const type = String(schema.properties.type.const)
  test(`whatever a peer sends as '${type}' is taken as it is or refused`, t => {
    fc.assert(
      fc.property(fitting(schema), fc.nat(200), wrong, (message, at, by) => {
        const sent = JSON.parse(JSON.stringify(message)) as unknown
        t.deepEqual(wire.parse(structuredClone(sent)), sent)
        t.deepEqual(wire.parse({ ...(sent as object), ofANewerPeer: [1, { deep: true }] }) as unknown, {
          ...(sent as object),
          ofANewerPeer: [1, { deep: true }],
        })
        const changed = mutated(sent, at, by)
        const result = outcome(() => wire.parse(changed))
        const type = (changed as { type?: unknown }).type
        const fits = wire.schemas.some(other => other.properties.type.const === type && Value.Check(other, changed))
        t.is(result, fits ? 'taken' : 'message_invalid', JSON.stringify(changed).slice(0, 300))
      }),
      { numRuns: 60 },
    )
  })
}

test('any JSON at all is a message or message_invalid', t => {
  fc.assert(
    fc.property(fc.jsonValue(), value => {
      t.true(['taken', 'message_invalid'].includes(outcome(() => wire.parse(value))))
    }),
    { numRuns: 500 },
  )
})

test('whatever is asked on the control socket is taken as it is or refused', t => {
  const asked = Object.keys(controlMethods).filter(isControlMethod)
  fc.assert(
    fc.property(fc.constantFrom(...asked), fc.nat(200), wrong, (name, at, by) => {
      const [params] = fc.sample(fitting(controlMethods[name].params), { numRuns: 1, seed: at })
      const sent = JSON.parse(JSON.stringify(params)) as unknown
      t.is(
        outcome(() => parseParams(name, sent)),
        'taken',
        `${name} ${JSON.stringify(sent)}`,
      )
      const result = outcome(() => parseParams(name, mutated(sent, at, by)))
      t.true(['taken', 'message_invalid', 'usage', 'path_invalid'].includes(result), result)
    }),
    { numRuns: 400 },
  )
})
