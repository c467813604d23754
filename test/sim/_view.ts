/**
 * A person at a mounted view of one simulated arena, who works with files that the disk does not show: asks the arena as
 * actors/view/arena-folder.ts does, and tells the ledger what was replaced and deleted.
 */
import { DiskError } from '../../actors/arena/disk.ts'
import type { MemoryDisk } from '../../actors/arena/disk-memory.ts'
import { isUnshown } from '../../actors/arena/plan.ts'
import type { Store } from '../../actors/arena/store.ts'
import type { FileContent } from '../../actors/arena/version.ts'
import type { BlobHash, EntryPath } from '../../protocol/ids.ts'
import type { FromView, ToView, ViewQuestion } from '../../protocol/ports.ts'
import { contentKey, type Ledger } from './_ledger.ts'
import type { Action } from './_script.ts'
import { content, type User } from './_user.ts'

export type ViewAction = Extract<Action, { do: 'view' }>

export interface ViewSurroundings {
  readonly disk: MemoryDisk
  readonly ledger: Ledger
  readonly user: User
  readonly store: () => Store | null
  /** Says something to the arena, a moment later; `arriving` is called just before it hears that. */
  readonly tell: (message: FromView, arriving?: () => void) => void
  /** Goes on after a pause, as a user does. */
  readonly later: (waitMs: number, work: () => void) => void
  /** What the ledger calls a content, if some disk shows it now. */
  readonly keyOf: (hash: BlobHash) => string | null
  readonly count: (what: string) => void
}

/** How long a program has a file open. */
const OPEN_MS = 300

export class ViewUser {
  readonly #at: ViewSurroundings
  readonly #asked = new Map<number, (answer: { result: unknown } | { code: string }) => void>()
  #id = 0

  constructor(surroundings: ViewSurroundings) {
    this.#at = surroundings
  }

  /** The arena's thread or the view has ended: nothing is answered any more. */
  reset(): void {
    this.#asked.clear()
  }

  heard(message: ToView): void {
    if (message.type !== 'answer' && message.type !== 'failed') return
    const done = this.#asked.get(message.id)
    this.#asked.delete(message.id)
    done?.(message.type === 'answer' ? { result: message.result } : { code: message.code })
  }

  act({ how, pick, path: to, text, size }: ViewAction): void {
    const files = this.#unreal()
    const file = files[Math.floor(pick * files.length)]
    if (file === undefined) return
    const { path } = file
    const { hash } = file.content
    const key = this.#at.keyOf(hash)
    // What nobody shows now a judge cannot name.
    if (key === null) return
    this.#at.count(`view ${how}`)
    const { ledger, user, disk } = this.#at
    switch (how) {
      case 'delete':
        // The arena may tell of it before its answer is here.
        return this.#ask(
          { type: 'remove', path, hash },
          () => ledger.ended(key),
          () => {},
          () => user.removed(path),
        )
      case 'touch':
        return this.#ask({ type: 'retouch', path, hash, mtimeNs: BigInt(size) * 1_000_000_000n, exec: null }, () => {})
      case 'rename':
        user.makeFolders(to)
        return this.#rename(path, hash, to as EntryPath, key)
      case 'save':
        return this.#replace(path, hash, key, () => user.write(path, content(text, size)))
      case 'brief':
        return this.#replace(path, hash, key, () => {
          user.write(path, content(text, size))
          this.#at.later(5, () => {
            user.remove(path)
            this.#at.tell({ type: 'touched', paths: [path] })
          })
        })
      case 'save_over': {
        const temporary = `${path}~view` as EntryPath
        user.write(temporary, content(text, size))
        return this.#at.later(3, () => {
          const saved = contentKey(disk, temporary)
          if (saved !== null) this.#replace(path, hash, key, () => user.rename(temporary, path), [temporary])
        })
      }
      case 'edit':
        return this.#makeReal(path, () => {
          const is = { file: disk.stat(path)?.ino ?? 0n }
          this.#at.tell({ type: 'opened', is })
          const release = disk.holdForWriting(path)
          user.append(path, content(text, size))
          this.#at.tell({ type: 'touched', paths: [path] })
          this.#at.later(OPEN_MS, () => {
            release()
            this.#at.tell({ type: 'closed', is })
          })
        })
      case 'folder':
        return this.#moveFolder(path, to as EntryPath)
      default:
        how satisfies never
    }
  }

  /** Files that the view shows and the disk does not. */
  #unreal(): { path: EntryPath; content: FileContent }[] {
    const { disk } = this.#at
    return (this.#at.store()?.page(null, 10_000, null) ?? []).flatMap(entry => {
      const { path, known } = entry
      if (known.content.type !== 'file' || !isUnshown(entry) || disk.stat(path) !== null) return []
      return [{ path, content: known.content }]
    })
  }

  #ask(
    question: ViewQuestion,
    done: (result: unknown) => void,
    failed: (code: string) => void = () => {},
    arriving?: () => void,
  ): void {
    const id = ++this.#id
    this.#asked.set(id, answer => {
      this.#at.later(0, () => {
        try {
          if ('code' in answer) failed(answer.code)
          else done(answer.result)
        } catch (error) {
          if (!(error instanceof DiskError)) throw error
        }
      })
    })
    this.#at.tell({ ...question, id }, arriving)
  }

  #makeReal(path: EntryPath, then: () => void): void {
    const { disk } = this.#at
    this.#ask({ type: 'make_real', path }, () => {
      if (disk.stat(path)?.type === 'file') then()
    })
  }

  /** Something takes the place of a file that the user knows. */
  #replace(path: EntryPath, hash: BlobHash, key: string, put: () => void, more: EntryPath[] = []): void {
    const { disk, ledger, tell } = this.#at
    this.#ask({ type: 'seen', path, hash }, () => {
      if (disk.stat(path) === null) put()
      if (disk.stat(path) === null) return tell({ type: 'unseen', path })
      ledger.ended(key)
      this.#ask({ type: 'placed', path }, () => {})
      if (more.length > 0) tell({ type: 'touched', paths: more })
    })
  }

  #rename(path: EntryPath, hash: BlobHash, to: EntryPath, key: string): void {
    const { disk, ledger, user, tell } = this.#at
    if (path === to) return
    let replaced: string | null = null
    const look = () => {
      ledger.renamedUnseen.set(to, { hash, key })
      const there = this.#at.store()?.entry(to)?.known.content
      replaced = there?.type === 'file' ? this.#at.keyOf(there.hash) : null
    }
    const renamed = () => {
      if (replaced !== key) ledger.ended(replaced)
    }
    const asItself = (code: string) => {
      if (code !== 'EXDEV') return
      this.#makeReal(path, () => {
        if (disk.stat(to)?.type === 'dir') return
        user.rename(path, to)
        tell({ type: 'touched', paths: [path, to] })
      })
    }
    this.#ask({ type: 'rename', path, hash, to }, renamed, asItself, look)
  }

  /** The folder at the top, with what is not on the disk. */
  #moveFolder(path: EntryPath, to: EntryPath): void {
    const { disk, user, tell } = this.#at
    const slash = path.indexOf('/')
    const folder = path.slice(0, slash) as EntryPath
    if (slash < 0 || `${to}/`.startsWith(`${folder}/`)) return
    const moved = () => tell({ type: 'moved', folder })
    tell({ type: 'moving', folder })
    this.#ask(
      { type: 'below', folder },
      below => {
        try {
          if (below === 'fixed' || disk.stat(to) !== null || disk.stat(folder)?.type !== 'dir') return
          // A name that an unreal file has is taken.
          if (this.#unreal().some(file => file.path === to)) return
          user.makeFolders(to)
          user.rename(folder, to)
          tell({ type: 'touched', paths: [folder, to] })
          if (below !== 'movable') return
          for (const { path, content } of this.#unreal()) {
            const key = path.startsWith(`${folder}/`) ? this.#at.keyOf(content.hash) : null
            if (key === null) continue
            this.#at.ledger.renamedUnseen.set(`${to}${path.slice(folder.length)}`, { hash: content.hash, key })
          }
          this.#ask({ type: 'rename_below', folder, to }, () => {})
        } finally {
          moved()
        }
      },
      moved,
    )
  }
}
