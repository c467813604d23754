/**
 * Errors as a table. Inside one thread an error is a `SyncError`; across a thread, a socket or the wire it
 * is a `Failure`, because `postMessage` keeps neither the class nor the fields of an Error.
 */

/**
 * `retry` says who may succeed if it is tried again: the `same` peer after a pause, an `other` peer at once,
 * or `never`. `exit` is the exit code of a command that ends with it (see docs/cli.md).
 */
export const ERRORS = {
  message_invalid: { retry: 'never', exit: 1 },
  frame_invalid: { retry: 'never', exit: 1 },
  limit_exceeded: { retry: 'never', exit: 1 },
  version_unsupported: { retry: 'never', exit: 1 },
  peer_unknown: { retry: 'never', exit: 1 },
  peer_closed: { retry: 'same', exit: 1 },
  peer_silent: { retry: 'same', exit: 1 },
  not_allowed: { retry: 'never', exit: 1 },
  blob_missing: { retry: 'other', exit: 1 },
  blob_changed: { retry: 'other', exit: 1 },
  /** The one asked has the blob in part, and not this part. */
  leaf_missing: { retry: 'other', exit: 1 },
  leaf_invalid: { retry: 'other', exit: 1 },
  /** Content is not here, and no peer that is connected gives it: EHOSTUNREACH. */
  unreachable: { retry: 'same', exit: 1 },
  arena_unknown: { retry: 'never', exit: 1 },
  arena_unavailable: { retry: 'same', exit: 1 },
  path_invalid: { retry: 'never', exit: 1 },
  not_found: { retry: 'never', exit: 1 },
  disk_failed: { retry: 'same', exit: 1 },
  config_invalid: { retry: 'never', exit: 1 },
  already_exists: { retry: 'never', exit: 1 },
  invite_invalid: { retry: 'never', exit: 1 },
  busy: { retry: 'same', exit: 1 },
  usage: { retry: 'never', exit: 2 },
  timed_out: { retry: 'same', exit: 3 },
  no_service: { retry: 'same', exit: 10 },
  internal: { retry: 'same', exit: 1 },
} as const satisfies Record<string, { retry: 'same' | 'other' | 'never'; exit: number }>

export type ErrorCode = keyof typeof ERRORS

/** An error as data. */
export interface Failure {
  code: ErrorCode
  message: string
}

export class SyncError extends Error {
  override readonly name = 'SyncError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}

/** Any thrown value as data; what is not a SyncError becomes `internal`. */
export function toFailure(error: unknown): Failure {
  if (error instanceof SyncError) return { code: error.code, message: error.message }
  return { code: 'internal', message: error instanceof Error ? error.message : String(error) }
}

export function fromFailure(failure: Failure): SyncError {
  return new SyncError(failure.code in ERRORS ? failure.code : 'internal', failure.message)
}
