/** Stores and entries for tests, without the test runner: a writing process of its own uses them, too. */
import { type Entry, NO_STAMP, type Store } from '../../actors/arena/store.ts'
import { openStore } from '../../actors/arena/store-tables.ts'
import type { Tables } from '../../actors/arena/tables.ts'
import type { Version } from '../../actors/arena/version.ts'
import { engine } from '../../actors/hasher/engine.ts'
import type { ArenaName, EntryPath, PeerId, ReplicaId, SessionToken } from '../../protocol/ids.ts'
import type { HistoryEvent } from '../../protocol/status.ts'
import { author } from './_versions.ts'

export const digest = (bytes: Uint8Array) => engine.hash256(0x10, bytes)
export const path = (text: string) => text as EntryPath
export const peerId = (letter: string) => Array.from({ length: 8 }, () => letter.repeat(7)).join('-') as PeerId

let random = 0
export const hexNext = () => (++random).toString(16).padStart(16, '0')

export function openOn(tables: Tables, boot = 'boot'): Store {
  return openStore({
    tables,
    digest,
    newReplica: () => hexNext() as ReplicaId,
    newSession: () => hexNext() as SessionToken,
    boot,
  })
}

export function makeEntry(at: string, known: Version, fields: Partial<Entry> = {}): Entry {
  return {
    path: path(at),
    seq: 0,
    known,
    have: known,
    stamp: NO_STAMP,
    dormant: false,
    origin: null,
    pending: false,
    announced: false,
    former: null,
    ...fields,
  }
}

export function event(at: string): Omit<HistoryEvent, 'number'> {
  return { atMs: 5, arena: 'a' as ArenaName, action: 'created', path: path(at), author: author(0), version: '0badcafe' }
}
