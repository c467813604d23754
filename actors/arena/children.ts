/** What is directly in a folder, by the store's entries: what is below its folders is passed over, not looked at. */
import type { EntryPath } from '../../protocol/ids.ts'
import { joinPath } from '../../protocol/path.ts'
import { lastBelow } from './order.ts'
import type { Entry, Store } from './store.ts'

/** Entries read at once: few while folders break off a page, more where there are files only. */
const PAGE_FIRST = 16
const PAGE_MAX = 256

export interface Child {
  readonly name: string
  /** null: no version speaks of it, but of something below it. */
  readonly entry: Entry | null
}

/** Each name once, in the store's order, from the one after `after` on. What changes meanwhile is seen or not. */
export function* childrenOf(
  store: Pick<Store, 'page'>,
  folder: EntryPath | undefined,
  after: string | null = null,
): Generator<Child> {
  const start = folder === undefined ? 0 : folder.length + 1
  let last = after
  for (let limit = PAGE_FIRST; ; ) {
    const page: Entry[] = store.page(last === null ? null : lastBelow(joinPath(folder, last)), limit, folder ?? null)
    let whole = true
    for (const entry of page) {
      const slash = entry.path.indexOf('/', start)
      const name = slash < 0 ? entry.path.slice(start) : entry.path.slice(start, slash)
      if (name !== last) yield { name, entry: slash < 0 ? entry : null }
      last = name
      whole = slash < 0 && entry.known.content.type !== 'dir'
      if (!whole) break
    }
    if (whole && page.length < limit) return
    limit = whole ? Math.min(limit * 2, PAGE_MAX) : PAGE_FIRST
  }
}
