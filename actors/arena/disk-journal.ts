/**
 * What a disk in memory has not made durable yet, and what of it a power loss leaves.
 *
 * The model is that of a journalling file system that promises nothing beyond its syncs. A rename is one step: both names change
 * or neither. Steps that have a name or an inode in common keep their order; any others may survive without those before them. Content
 * goes its own ways: a file whose name survived may be empty, cut short, full of zeros, or made of its old and its new
 * content. What a completed sync covered stays.
 */
import { copyTree, type FileNode, type FolderNode, type TreeNode } from './memory-tree.ts'

/** What is in a folder under a name after a step; null: nothing any more. */
export interface NameChange {
  readonly folder: FolderNode
  readonly name: string
  readonly node: TreeNode | null
  /** What was there. */
  readonly before: TreeNode | null
}

type Step =
  | {
      readonly is: 'names'
      readonly changes: readonly (NameChange & { readonly ctimeNs: bigint })[]
    }
  | {
      readonly is: 'state'
      readonly node: FileNode
      readonly bytes: Uint8Array
      readonly mtimeNs: bigint
      readonly ctimeNs: bigint
      readonly mode: number
    }

export interface PowerLoss {
  /** Which steps since the last sync survive: none, the first of them, any that do not need another that did not, or all. */
  readonly steps: 'none' | 'first' | 'some' | 'all'
  /** Part, 0 to 1, of the files with new content that are torn. */
  readonly torn: number
  /** 0 to 1. */
  readonly chance: () => number
}

/** A file that shows what nobody wrote. */
export interface TornFile {
  readonly ino: bigint
  /** What was written. */
  readonly whole: Uint8Array
  readonly bytes: Uint8Array
}

export class Journal {
  #steps: Step[] = []
  /** Steps that are durable and gone. */
  #base = 0
  #open: NameChange[] | null = null

  /** All names that change inside are one step. */
  together(work: () => void): void {
    if (this.#open !== null) return work()
    this.#open = []
    try {
      work()
    } finally {
      const changes = this.#open
      this.#open = null
      this.#add(changes)
    }
  }

  name(change: NameChange): void {
    if (this.#open !== null) this.#open.push(change)
    else this.#add([change])
  }

  #add(changes: readonly NameChange[]): void {
    if (changes.length === 0) return
    this.#steps.push({
      is: 'names',
      changes: changes.map(change => ({ ...change, ctimeNs: (change.node ?? change.before)?.ctimeNs ?? 0n })),
    })
  }

  /** Content or metadata of a file are these now. */
  state(node: FileNode): void {
    const { bytes, mtimeNs, ctimeNs, mode } = node
    this.#steps.push({ is: 'state', node, bytes, mtimeNs, ctimeNs, mode })
  }

  /** A place in the journal: what came before it can be made durable later. */
  get position(): number {
    return this.#base + this.#steps.length
  }

  /** Everything before a position is durable. */
  durable(position: number): void {
    this.#steps.splice(0, Math.max(0, position - this.#base))
    this.#base = Math.max(this.#base, position)
  }

  clear(): void {
    this.durable(this.position)
  }

  /** What the disk shows after the power went, from what was durable. */
  after(durable: FolderNode, loss: PowerLoss): { root: FolderNode; torn: TornFile[] } {
    const root = copyTree(durable)
    const nodes = nodesOf(root)
    const before = new Map([...nodes].map(([ino, node]) => [ino, node.type === 'file' ? node.bytes : null]))
    const nodeOf = (node: TreeNode): TreeNode => {
      const known = nodes.get(node.ino)
      if (known !== undefined) return known
      // A new inode whose content has not reached the disk.
      const made: TreeNode =
        node.type === 'dir'
          ? { ...node, children: new Map() }
          : node.type === 'file'
            ? { ...node, bytes: new Uint8Array(0), writers: 0 }
            : { ...node }
      nodes.set(node.ino, made)
      return made
    }
    for (const step of survivors(this.#steps, loss)) {
      if (step.is === 'state') {
        const { bytes, mtimeNs, ctimeNs, mode } = step
        Object.assign(nodeOf(step.node), { bytes, mtimeNs, ctimeNs, mode })
        continue
      }
      for (const { folder, name, node, ctimeNs } of step.changes) {
        const { children } = nodeOf(folder) as FolderNode
        if (node === null) children.delete(name)
        else {
          const moved = nodeOf(node)
          children.set(name, moved)
          if (ctimeNs > moved.ctimeNs) moved.ctimeNs = ctimeNs
        }
      }
    }
    const torn: TornFile[] = []
    const shown = nodesOf(root)
    for (const [ino, node] of shown) {
      if (node.type !== 'file') continue
      const old = before.get(ino) ?? new Uint8Array(0)
      if (node.bytes === old || loss.torn <= 0 || loss.chance() >= loss.torn) continue
      const whole = node.bytes
      node.bytes = tear(old, whole, loss.chance)
      torn.push({ ino, whole, bytes: node.bytes })
    }
    countLinks(root, shown)
    return { root, torn }
  }
}

function survivors(steps: readonly Step[], { steps: which, chance }: PowerLoss): readonly Step[] {
  switch (which) {
    case 'none':
      return []
    case 'all':
      return steps
    case 'first':
      return steps.slice(0, Math.floor(chance() * (steps.length + 1)))
    case 'some': {
      const part = [0.2, 0.5, 0.9][Math.floor(chance() * 3)] as number
      const lost = new Set<string>()
      return steps.filter(step => {
        const { touches, needs } = keysOf(step)
        if (chance() < part && ![...touches, ...needs].some(key => lost.has(key))) return true
        for (const key of touches) lost.add(key)
        return false
      })
    }
    default:
      which satisfies never
      return []
  }
}

/** What a step changes, and what else must have come about before it. */
function keysOf(step: Step): { touches: string[]; needs: string[] } {
  if (step.is === 'state') return { touches: [`state ${step.node.ino}`], needs: [] }
  const touches: string[] = []
  const needs: string[] = []
  for (const { folder, name, node, before } of step.changes) {
    touches.push(`name ${folder.ino} ${name}`, `in ${folder.ino}`)
    for (const inode of [node, before]) if (inode !== null) touches.push(`inode ${inode.ino}`)
    // A folder is there before what is in it, and empty before it goes.
    needs.push(`inode ${folder.ino}`)
    if (before?.type === 'dir') needs.push(`in ${before.ino}`)
  }
  // Names in one folder do not wait for each other.
  return { touches, needs: needs.filter(key => !touches.includes(key)) }
}

function tear(old: Uint8Array, whole: Uint8Array, chance: () => number): Uint8Array {
  const cut = Math.floor(chance() * whole.length)
  const torn = new Uint8Array(whole.length)
  switch (Math.floor(chance() * 5)) {
    case 0:
      return torn
    case 1:
      return whole.slice(0, cut)
    case 2:
      torn.set(whole.subarray(0, cut))
      return torn
    case 3:
      torn.set(old.subarray(0, whole.length))
      torn.set(whole.subarray(0, cut))
      return torn
    default:
      torn.set(whole)
      torn.set(old.subarray(0, cut))
      return torn
  }
}

function nodesOf(root: FolderNode, found = new Map<bigint, TreeNode>()): Map<bigint, TreeNode> {
  found.set(root.ino, root)
  for (const child of root.children.values()) {
    if (child.type === 'dir') nodesOf(child, found)
    else found.set(child.ino, child)
  }
  return found
}

function countLinks(folder: FolderNode, nodes: ReadonlyMap<bigint, TreeNode>): void {
  for (const node of nodes.values()) node.links = 0
  for (const node of nodes.values()) {
    if (node.type === 'dir') for (const child of node.children.values()) child.links++
  }
  folder.links = 0
}
