/**
 * What a view's thread knows of an arena's unreal files, so that a name costs no question: folders that were listed whole, kept
 * up to date by what the arena tells. Bounded; the folders that were not used for longest go first. Pure.
 */
import type { UnrealFile, UnrealNames } from '../../protocol/ports.ts'

/** Files remembered in all, and in one folder: of a larger one each name is asked. */
export const FILES_MAX = 100_000
export const FOLDER_FILES_MAX = 20_000

interface Listed {
  readonly files: Map<string, UnrealFile>
  /** All pages have come. */
  whole: boolean
}

export class UnrealFiles {
  readonly #folders = new Map<string, Listed>()
  /** Too large to be kept. */
  readonly #large = new Set<string>()
  readonly #filesMax: number
  readonly #folderFilesMax: number
  #size = 0

  constructor(limits: { filesMax?: number; folderFilesMax?: number } = {}) {
    this.#filesMax = limits.filesMax ?? FILES_MAX
    this.#folderFilesMax = limits.folderFilesMax ?? FOLDER_FILES_MAX
  }

  /** How many files are remembered. */
  get size(): number {
    return this.#size
  }

  /** null: there is none of that name. Undefined: that is not known here. */
  get(folder: string, name: string): UnrealFile | null | undefined {
    const listed = this.#used(folder)
    return listed?.whole ? (listed.files.get(name) ?? null) : undefined
  }

  /** Undefined: not known here. */
  names(folder: string): string[] | undefined {
    const listed = this.#used(folder)
    return listed?.whole ? [...listed.files.keys()] : undefined
  }

  /** Begins a folder, whose pages are to follow; false if it is known, on its way, or too large. */
  begin(folder: string): boolean {
    if (this.#folders.has(folder) || this.#large.has(folder)) return false
    this.#folders.set(folder, { files: new Map(), whole: false })
    return true
  }

  /** Takes a page; true if the next one is wanted. */
  page(folder: string, { files, next }: UnrealNames): boolean {
    const listed = this.#folders.get(folder)
    if (listed === undefined) return false
    for (const [name, file] of files) this.#set(listed, name, file)
    if (listed.files.size > this.#folderFilesMax) {
      this.drop(folder)
      this.#large.add(folder)
      return false
    }
    listed.whole = next === null
    this.#shrink(folder)
    return next !== null && this.#folders.has(folder)
  }

  /** What the arena tells, also of a folder that is still being listed. */
  set(folder: string, name: string, file: UnrealFile | null): void {
    const listed = this.#folders.get(folder)
    if (listed === undefined) return
    if (file !== null) this.#set(listed, name, file)
    else if (listed.files.delete(name)) this.#size--
    if (listed.files.size > this.#folderFilesMax) this.drop(folder)
    else this.#shrink(folder)
  }

  drop(folder: string): void {
    this.#size -= this.#folders.get(folder)?.files.size ?? 0
    this.#folders.delete(folder)
  }

  /** A folder, and all that is below it. */
  dropBelow(folder: string): void {
    for (const known of [...this.#folders.keys(), ...this.#large]) {
      if (known !== folder && !known.startsWith(`${folder}/`)) continue
      this.drop(known)
      this.#large.delete(known)
    }
  }

  clear(): void {
    this.#folders.clear()
    this.#large.clear()
    this.#size = 0
  }

  /** All files that are remembered, by folder and name. */
  *all(): Iterable<[folder: string, name: string]> {
    for (const [folder, { files }] of this.#folders) for (const name of files.keys()) yield [folder, name]
  }

  #used(folder: string): Listed | undefined {
    const listed = this.#folders.get(folder)
    if (listed === undefined) return undefined
    this.#folders.delete(folder)
    this.#folders.set(folder, listed)
    return listed
  }

  #set(listed: Listed, name: string, file: UnrealFile): void {
    if (!listed.files.has(name)) this.#size++
    listed.files.set(name, file)
  }

  #shrink(keep: string): void {
    for (const folder of this.#folders.keys()) {
      if (this.#size <= this.#filesMax) return
      if (folder !== keep) this.drop(folder)
    }
  }
}
