/**
 * Open invitations: single use, with an end, few at a time, kept in a file of mode 0600 so that they survive a restart. What
 * a code looks like is in invite-code.ts; how the secret is proved, in the connection.
 */
import { readFileSync, rmSync } from 'node:fs'
import { type Static, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { SyncError } from '../protocol/error.ts'
import { ArenaName } from '../protocol/ids.ts'
import { ARENAS_MAX } from '../protocol/limits.ts'
import type { PairAttempt } from '../protocol/ports.ts'
import { writeFileAtomic } from './config-write.ts'

export const INVITES_MAX = 16
export const INVITE_LIFE_MS = 60 * 60_000
const FILE_BYTES_MAX = 1024 * 1024

const Invite = Type.Object({
  invite: Type.String({ pattern: '^[0-9a-f]{16}$' }),
  secret: Type.String({ pattern: '^[0-9a-f]{32}$' }),
  /** What is shared; null: every arena there is when it is used. */
  arenas: Type.Union([Type.Array(ArenaName, { maxItems: ARENAS_MAX }), Type.Null()]),
  expiresAtMs: Type.Integer(),
})
export type Invite = Static<typeof Invite>
const InviteFile = Type.Array(Invite, { maxItems: INVITES_MAX })

export interface InvitesOptions {
  path: string
  wallMs(): number
  /** So many random bytes. */
  randomBytes(count: number): Buffer
}

export class Invites {
  readonly #options: InvitesOptions
  #open: Invite[]

  /** Reads the file. One that cannot be understood is taken away: its codes are void, nothing worse. */
  constructor(options: InvitesOptions) {
    this.#options = options
    this.#open = read(options.path)
  }

  /** Throws `limit_exceeded` with INVITES_MAX open. */
  create(arenas: ArenaName[] | null, lifeMs = INVITE_LIFE_MS): Invite {
    this.#dropExpired()
    if (this.#open.length >= INVITES_MAX) {
      throw new SyncError(
        'limit_exceeded',
        `${INVITES_MAX} invitations are open already: wait until one has been used or has expired`,
      )
    }
    const invite: Invite = {
      invite: this.#options.randomBytes(8).toString('hex'),
      secret: this.#options.randomBytes(16).toString('hex'),
      arenas,
      expiresAtMs: this.#options.wallMs() + lifeMs,
    }
    this.#open.push(invite)
    this.#write()
    return invite
  }

  /** What a connection needs to know to check a proof. */
  attempts(): PairAttempt[] {
    this.#dropExpired()
    return this.#open.map(({ invite, secret }) => ({ invite, secret }))
  }

  /** Uses an invitation up, durably, before anything is given for it. Undefined: used already, or expired. */
  take(invite: string): Invite | undefined {
    this.#dropExpired()
    const found = this.#open.find(one => one.invite === invite)
    if (!found) return undefined
    this.#open = this.#open.filter(one => one !== found)
    this.#write()
    return found
  }

  #dropExpired(): void {
    const nowMs = this.#options.wallMs()
    const open = this.#open.filter(one => one.expiresAtMs > nowMs)
    if (open.length === this.#open.length) return
    this.#open = open
    this.#write()
  }

  #write(): void {
    writeFileAtomic(this.#options.path, `${JSON.stringify(this.#open, null, 2)}\n`)
  }
}

function read(path: string): Invite[] {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
  try {
    const value: unknown = text.length <= FILE_BYTES_MAX ? JSON.parse(text) : null
    if (Value.Check(InviteFile, value)) return value
  } catch {
    // Not JSON: as void as JSON of another form.
  }
  rmSync(path, { force: true })
  return []
}
