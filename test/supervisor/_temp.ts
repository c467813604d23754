/** Temporary folders and small waits for the tests of the supervisor. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'

/** A folder that goes when the test ends. */
export function tempFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'realize-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A promise and what settles it. */
export function signal<Value = void>(): { promise: Promise<Value>; resolve(value: Value): void } {
  let resolve: (value: Value) => void = () => {}
  const promise = new Promise<Value>(settle => {
    resolve = settle
  })
  return { promise, resolve }
}
