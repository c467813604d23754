/** Temporary folders for tests: on a real disk, gone when the test has ended. */
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** What a test gives: a place to say what must be undone, also when it fails. */
export interface Cleaning {
  teardown(undo: () => unknown): void
}

/** A new empty folder, by its real path. Short, because sockets in it have a limit of about 100 bytes. */
export function temporaryFolder(t: Cleaning): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'realize-')))
  t.teardown(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))
  return folder
}
