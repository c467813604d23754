/** Names of things, as brands: a string becomes one only through its schema or the function that makes it. */
import { type TSchema, type TUnsafe, Type } from '@sinclair/typebox'

export type Brand<Base, Name extends string> = Base & { readonly __brand: Name }

function brand<T>(schema: TSchema): TUnsafe<T> {
  return Type.Unsafe<T>(schema)
}

/** An Ed25519 public key as text with a check: 8 groups of 7 letters and digits (A–Z, 2–7), joined by `-`. See supervisor/identity.ts. */
export type PeerId = Brand<string, 'PeerId'>
export const PeerId = brand<PeerId>(Type.String({ pattern: '^[A-Z2-7]{7}(-[A-Z2-7]{7}){7}$' }))

/** The first group of a peer's ID: who made a version, in conflict names and history. */
export type Author = Brand<string, 'Author'>
export const Author = brand<Author>(Type.String({ pattern: '^[A-Z2-7]{7}$' }))

/** One incarnation of a peer's store of one arena: 16 hex digits, random. */
export type ReplicaId = Brand<string, 'ReplicaId'>
export const ReplicaId = brand<ReplicaId>(Type.String({ pattern: '^[0-9a-f]{16}$' }))

/** One opening of a store: 16 hex digits, random. */
export type SessionToken = Brand<string, 'SessionToken'>
export const SessionToken = brand<SessionToken>(Type.String({ pattern: '^[0-9a-f]{16}$' }))

/** Root of a BLAKE2b-256 Merkle tree, 64 hex digits, lower case. See docs/merkle.md. */
export type BlobHash = Brand<string, 'BlobHash'>
export const BlobHash = brand<BlobHash>(Type.String({ pattern: '^[0-9a-f]{64}$' }))

/** Letters, digits, `.`, `_`, `-`; at most 64; the same on all peers of the arena. */
export type ArenaName = Brand<string, 'ArenaName'>
export const ArenaName = brand<ArenaName>(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' }))

/** A path below an arena's root, `/` between names, no leading slash. Only `checkPath` (protocol/path.ts) makes one from outside. */
export type EntryPath = Brand<string, 'EntryPath'>
export const EntryPath = brand<EntryPath>(Type.String({ minLength: 1, maxLength: 1900 }))

/** Whole nanoseconds since 1970 as decimal text: JSON numbers lose the last digits. */
export const MtimeText = Type.String({ pattern: '^-?[0-9]{1,19}$' })
