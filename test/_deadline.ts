/** A deadline for what a test waits for, so that it fails with a sentence and not by the runner's patience. */
import { once } from 'node:events'

/** The promise's own outcome, or an error that says what did not happen within `ms`. */
export async function within<T>(ms: number, what: string | (() => string), promise: Promise<T>): Promise<T> {
  const controller = new AbortController()
  const late = AbortSignal.any([AbortSignal.timeout(ms), controller.signal])
  const expired = once(late, 'abort').then((): never => {
    throw new Error(`not within ${ms} ms: ${typeof what === 'string' ? what : what()}`)
  })
  expired.catch(() => {})
  try {
    return await Promise.race([promise, expired])
  } finally {
    controller.abort()
  }
}
