/** Two IDs that are valid. */
import { createHash } from 'node:crypto'
import { peerIdOf } from '../../protocol/peer-id.ts'

const idOf = (seed: string) => peerIdOf(createHash('sha256').update(seed).digest())

export const ID_A = idOf('a')
export const ID_B = idOf('b')
