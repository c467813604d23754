/**
 * The nodes that the kernel knows: which number stands for which file, and under which names it has been seen. Pure.
 *
 * A node lives from the first time that it is given to the kernel until the kernel has forgotten it as often as it was given
 * (FORGET). How many there are is the kernel's decision: it forgets under memory pressure. A number is never used again, so
 * every generation is 0.
 *
 * Names are what was last seen, not more: somebody may rename files behind the view. So what is found under a name is always
 * compared with the node's `id`.
 */
import { ROOT_NODE } from './fuse-protocol.ts'

export interface Node {
  readonly number: number
  /** The source's word for which file it is. */
  readonly id: string
  /** How often it was given to the kernel and not forgotten. */
  lookups: number
  /** Names under which it was seen, the first being the one that is used. Empty for the root, and once it is unlinked. */
  readonly places: Place[]
  /** Nodes seen in this folder. */
  readonly children: Map<string, Node>
  /** Version of the content that the kernel may still have in its cache; null: unknown, or in doubt. */
  cached: string | null
}

interface Place {
  readonly parent: Node
  readonly name: string
}

export class NodeTable {
  readonly #nodes = new Map<number, Node>()
  readonly #byId = new Map<string, Node>()
  #next = ROOT_NODE
  readonly root: Node

  constructor(rootId: string) {
    this.root = this.#create(rootId)
  }

  get size(): number {
    return this.#nodes.size
  }

  get(number: number): Node | undefined {
    return this.#nodes.get(number)
  }

  all(): IterableIterator<Node> {
    return this.#nodes.values()
  }

  /**
   * The node for what was just found under a name. Whatever was known there before loses the name. null: what was found is a
   * folder that the name is in, so what is known of the tree is out of date (or a part of it is mounted inside itself).
   */
  reach(parent: Node, name: string, id: string): Node | null {
    const known = parent.children.get(name)
    if (known?.id === id) return known
    if (known !== undefined) this.detach(parent, name)
    const node = this.#byId.get(id) ?? this.#create(id)
    for (let at: Node | undefined = parent; at !== undefined; at = at.places[0]?.parent) if (at === node) return null
    // A folder has one name only: it was moved behind our back.
    if (node.children.size > 0) for (const place of [...node.places]) this.detach(place.parent, place.name)
    this.#attach(node, parent, name)
    return node
  }

  /** Given to the kernel once more. */
  give(node: Node): void {
    node.lookups++
  }

  /** Forgotten by the kernel so many times. Returns the node if that was the end of it. */
  forget(number: number, count: number): Node | null {
    const node = this.#nodes.get(number)
    if (node === undefined || node === this.root) return null
    node.lookups = Math.max(0, node.lookups - count)
    if (node.lookups > 0) return null
    this.#nodes.delete(number)
    if (this.#byId.get(node.id) === node) this.#byId.delete(node.id)
    for (const place of [...node.places]) this.detach(place.parent, place.name)
    for (const name of [...node.children.keys()]) this.detach(node, name)
    return node
  }

  /** What is found under its names from now on has a number of its own; who knows this one goes on with it. */
  retire(node: Node): void {
    if (this.#byId.get(node.id) === node) this.#byId.delete(node.id)
    for (const place of [...node.places]) this.detach(place.parent, place.name)
  }

  /** Drops a node that was made by `reach` but not given after all. */
  dropUngiven(node: Node): void {
    if (node.lookups === 0) this.forget(node.number, 0)
  }

  /** Nothing is known under this name any more. */
  detach(parent: Node, name: string): void {
    const node = parent.children.get(name)
    if (node === undefined) return
    parent.children.delete(name)
    const index = node.places.findIndex(place => place.parent === parent && place.name === name)
    node.places.splice(index, 1)
  }

  /** After a rename that has happened; with `exchange` what was at the target takes the source's name. */
  move(from: Node, name: string, to: Node, newName: string, exchange: boolean): void {
    const moved = from.children.get(name)
    const replaced = to.children.get(newName)
    // Two names of one file: rename(2) does nothing then.
    if (moved !== undefined && moved === replaced) return
    this.detach(from, name)
    this.detach(to, newName)
    if (moved !== undefined) this.#attach(moved, to, newName)
    if (exchange && replaced !== undefined) this.#attach(replaced, from, name)
  }

  /** Path of a node from the root; '' for the root, null if no name of it is known. */
  pathOf(node: Node): string | null {
    const names: string[] = []
    for (let at = node; at !== this.root; ) {
      const place = at.places[0]
      if (place === undefined) return null
      names.push(place.name)
      at = place.parent
    }
    return names.reverse().join('/')
  }

  /** The node under a path, if the kernel knows it. */
  find(path: string): Node | undefined {
    let node: Node | undefined = this.root
    if (path !== '') for (const name of path.split('/')) node = node?.children.get(name)
    return node
  }

  #create(id: string): Node {
    const node = { number: this.#next++, id, lookups: 0, places: [], children: new Map(), cached: null }
    this.#nodes.set(node.number, node)
    this.#byId.set(id, node)
    return node
  }

  #attach(node: Node, parent: Node, name: string): void {
    node.places.unshift({ parent, name })
    parent.children.set(name, node)
  }
}
