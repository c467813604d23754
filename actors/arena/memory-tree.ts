/** The inodes that a disk in memory is made of. Names are in folders, content and times in inodes, as on a real one. */

export interface Inode {
  ino: bigint
  mtimeNs: bigint
  ctimeNs: bigint
  mode: number
  links: number
}
export interface FileNode extends Inode {
  type: 'file'
  /** Never changed in place: a snapshot shares it. */
  bytes: Uint8Array
  /** Programs that have it open for writing. */
  writers: number
}
export interface FolderNode extends Inode {
  type: 'dir'
  children: Map<string, TreeNode>
}
export interface LinkNode extends Inode {
  type: 'symlink'
  target: string
}
export type TreeNode = FileNode | FolderNode | LinkNode

/** A copy with the same inodes and hard links; contents are shared, as nothing changes them in place. */
export function copyTree(root: FolderNode): FolderNode {
  const copies = new Map<TreeNode, TreeNode>()
  const copyOf = (node: TreeNode): TreeNode => {
    const known = copies.get(node)
    if (known !== undefined) return known
    const copy = node.type === 'file' ? { ...node, writers: 0 } : { ...node }
    copies.set(node, copy)
    if (copy.type === 'dir') copy.children = new Map([...copy.children].map(([name, child]) => [name, copyOf(child)]))
    return copy
  }
  return copyOf(root) as FolderNode
}
