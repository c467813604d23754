/**
 * How the leaf hashes of a blob are learnt from a peer: what to ask, and whether an answer fits what is known already. Of a blob
 * whose older version is here only what differs is asked for: groups, then branches of 64 leaves, then leaves. Pure.
 */
import type { BlobHash } from '../../protocol/ids.ts'
import { GROUP_LEAVES } from '../../protocol/limits.ts'
import { groupCount, HASH_BYTES, leafCount, nameOver, nodesOver, rootOfGroups, topOf } from '../hasher/merkle.ts'

/** Branches are nodes of this level. */
const BRANCH_LEVEL = 6
const BRANCH_LEAVES = 2 ** BRANCH_LEVEL

/** One question. `leaves`: leaf hashes [from, from + count), by `fetch_tree` where they are a whole group. */
export type TreeAsk =
  | { readonly is: 'groups' }
  | { readonly is: 'group'; readonly group: number }
  | { readonly is: 'branches'; readonly group: number; readonly from: number; readonly count: number }
  | {
      readonly is: 'leaves'
      readonly group: number
      readonly from: number
      readonly count: number
      readonly branches: Uint8Array
    }

/** The field `level` of `fetch_nodes` for each question that is one. */
export const NODES_LEVEL = { branches: BRANCH_LEVEL, leaves: 0 } as const

export class TreeFetch {
  /** Leaf hashes; complete when `done`. */
  readonly tree: Uint8Array
  readonly #size: number
  readonly #hash: BlobHash
  readonly #leaves: number
  /** Leaf hashes of the older version, as far as it goes. */
  readonly #older: Uint8Array | null
  /** Nodes of the groups; null for a blob of one group, or while they are not known. */
  #groups: Uint8Array | null = null
  #plan: TreeAsk[]
  #open = 0

  constructor(size: number, hash: BlobHash, older: Uint8Array | null) {
    this.#size = size
    this.#hash = hash
    this.#leaves = leafCount(size)
    this.#older = older
    this.tree = new Uint8Array(this.#leaves * HASH_BYTES)
    this.#plan = this.#leaves > GROUP_LEAVES ? [{ is: 'groups' }] : [this.#askGroup(0)]
  }

  get done(): boolean {
    return this.#open === 0 && this.#plan.length === 0
  }

  /** The next question; `answer` or `again` follows for each. */
  next(): TreeAsk | undefined {
    const ask = this.#plan.shift()
    if (ask) this.#open++
    return ask
  }

  /** The question got no answer: it is asked again, or what it was about in the old way. */
  again(ask: TreeAsk, oldWay: boolean): void {
    this.#open--
    const plain = oldWay && 'group' in ask && ask.is !== 'group'
    if (!plain) this.#plan.unshift(ask)
    else if (!this.#plan.some(other => other.is === 'group' && other.group === ask.group))
      this.#plan.unshift({ is: 'group', group: ask.group })
  }

  /** False if the answer is not right: then nothing has changed, and `again` follows. */
  answer(ask: TreeAsk, payload: Uint8Array): boolean {
    if (!this.#fits(ask, payload)) return false
    this.#open--
    switch (ask.is) {
      case 'groups':
        this.#groups = payload
        for (let group = 0; group < groupCount(this.#size); group++)
          if (!this.#sameAsOlder(group * GROUP_LEAVES, GROUP_LEAVES, this.#groupNode(group)))
            this.#plan.push(this.#askGroup(group))
        break
      case 'group':
        this.#put(ask.group * GROUP_LEAVES, payload)
        break
      case 'branches':
        this.#askLeaves(ask, payload)
        break
      case 'leaves':
        this.#put(ask.from, payload)
        break
      default:
        ask satisfies never
    }
    return true
  }

  #groupLeaves(group: number): number {
    return Math.min(GROUP_LEAVES, this.#leaves - group * GROUP_LEAVES)
  }

  #askGroup(group: number): TreeAsk {
    const first = group * GROUP_LEAVES
    const plain = this.#older === null || this.#older.length <= first * HASH_BYTES
    if (plain || this.#groupLeaves(group) <= BRANCH_LEAVES) return { is: 'group', group }
    return {
      is: 'branches',
      group,
      from: first / BRANCH_LEAVES,
      count: Math.ceil(this.#groupLeaves(group) / BRANCH_LEAVES),
    }
  }

  /** Runs of branches that are not the same in the older version. */
  #askLeaves({ group, from }: Extract<TreeAsk, { is: 'branches' }>, nodes: Uint8Array): void {
    const count = nodes.length / HASH_BYTES
    let start = 0
    const ask = (end: number) => {
      const first = (from + start) * BRANCH_LEAVES
      const leaves = Math.min(this.#leaves, (from + end) * BRANCH_LEAVES) - first
      const branches = nodes.subarray(start * HASH_BYTES, end * HASH_BYTES)
      if (leaves > 0) this.#plan.push({ is: 'leaves', group, from: first, count: leaves, branches })
    }
    for (let branch = 0; branch < count; branch++) {
      if (!this.#sameAsOlder((from + branch) * BRANCH_LEAVES, BRANCH_LEAVES, nodeAt(nodes, branch))) continue
      if (branch > start) ask(branch)
      start = branch + 1
    }
    if (count > start) ask(count)
  }

  /** Takes the leaf hashes below a node from the older version if they give it. */
  #sameAsOlder(first: number, width: number, node: Uint8Array): boolean {
    const count = Math.min(width, this.#leaves - first)
    const older = this.#older?.subarray(first * HASH_BYTES, (first + count) * HASH_BYTES)
    if (older?.length !== count * HASH_BYTES || !equal(topOf(older), node)) return false
    this.#put(first, older)
    return true
  }

  #put(first: number, hashes: Uint8Array): void {
    this.tree.set(hashes, first * HASH_BYTES)
  }

  #groupNode(group: number): Uint8Array {
    return nodeAt(this.#groups ?? new Uint8Array(0), group)
  }

  #fits(ask: TreeAsk, payload: Uint8Array): boolean {
    switch (ask.is) {
      case 'groups':
        return (
          payload.length === groupCount(this.#size) * HASH_BYTES && rootOfGroups(this.#size, payload) === this.#hash
        )
      case 'group':
        return payload.length === this.#groupLeaves(ask.group) * HASH_BYTES && this.#tops(ask.group, payload)
      case 'branches':
        return payload.length === ask.count * HASH_BYTES && this.#tops(ask.group, payload)
      case 'leaves':
        return payload.length === ask.count * HASH_BYTES && equal(nodesOver(payload, BRANCH_LEAVES), ask.branches)
    }
  }

  /** Whether these nodes, all of a level in one group, lead to what is known of it. */
  #tops(group: number, nodes: Uint8Array): boolean {
    if (this.#groups === null) return nameOver(this.#size, nodes) === this.#hash
    return equal(topOf(nodes), this.#groupNode(group))
  }
}

function nodeAt(nodes: Uint8Array, index: number): Uint8Array {
  return nodes.subarray(index * HASH_BYTES, (index + 1) * HASH_BYTES)
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
