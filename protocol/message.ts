/**
 * How every message of Realize is declared: between peers, between actors and on the control socket.
 *
 * A message is a TypeBox object with a literal `type`. `mailbox` groups messages, compiles one validator
 * for each and finds the right one by its tag, so that an invalid message yields its own faults only.
 */
import { type Static, type TObject, type TProperties, type TSchema, Type } from '@sinclair/typebox'
import { type TypeCheck, TypeCompiler } from '@sinclair/typebox/compiler'
import { SyncError } from './error.ts'

/** Declares a message. Unknown fields are ignored by the validator, so that a newer peer can be understood. */
export function message<Tag extends string, Fields extends TProperties>(tag: Tag, fields: Fields) {
  return Type.Object({ type: Type.Literal(tag), ...fields })
}

type AnyMessage = TObject<TProperties>

export interface Mailbox<Schemas extends readonly AnyMessage[]> {
  /** In declaration order. Pinned to the protocol's version by a test. */
  readonly schemas: Schemas
  /** Checks a value from outside. Throws `message_invalid` with the first fault; never changes the value. */
  parse(value: unknown): Static<Schemas[number]>
}

export type MessageOf<Box> = Box extends Mailbox<infer Schemas> ? Static<Schemas[number]> : never

export function mailbox<const Schemas extends readonly AnyMessage[]>(...schemas: Schemas): Mailbox<Schemas> {
  const checks = new Map<string, TypeCheck<AnyMessage>>()
  for (const schema of schemas) checks.set(String(schema.properties.type?.const), TypeCompiler.Compile(schema))
  return {
    schemas,
    parse(value) {
      const tag = typeof value === 'object' && value !== null ? (value as { type?: unknown }).type : undefined
      const check = typeof tag === 'string' ? checks.get(tag) : undefined
      if (!check) throw new SyncError('message_invalid', `unknown message type ${JSON.stringify(tag)?.slice(0, 40)}`)
      if (!check.Check(value)) throw new SyncError('message_invalid', `${tag}: ${firstFault(check, value)}`)
      return value as Static<Schemas[number]>
    },
  }
}

/** The first fault of a value, as `path: what is expected`, shortened. */
export function firstFault(check: TypeCheck<TSchema>, value: unknown): string {
  const fault = check.Errors(value).First()
  return fault ? `${fault.path || '/'}: ${fault.message}`.slice(0, 200) : 'invalid'
}
