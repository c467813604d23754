/** A user at a mounted view, in a thread of their own: a program that waits there for content waits without the run of chaos. */
import assert from 'node:assert/strict'
import { parentPort, workerData } from 'node:worker_threads'
import type { Act } from './_plan.ts'
import { User } from './_user.ts'

export type MountOrder =
  | { readonly do: 'begin'; readonly round: number; readonly seed: number }
  | { readonly do: 'act'; readonly act: Act }
  | { readonly do: 'tidy'; readonly pathsMax: number; readonly bytesMax: number }
  | { readonly do: 'clear'; readonly path: string }
  /** Answered once all that was ordered before has been done. */
  | { readonly do: 'rest' }

export type MountReport =
  | { readonly is: 'acted'; readonly words: Parameters<User['told']['acted']> }
  | { readonly is: 'passed'; readonly words: Parameters<User['told']['passed']> }
  | { readonly is: 'read'; readonly words: Parameters<User['told']['read']> }
  | { readonly is: 'rested'; readonly deleted: number; readonly undone: number }

const port = parentPort
assert(port !== null, 'this runs in a thread')
const say = (report: MountReport) => port.postMessage(report)
const { name, root, below } = workerData as { name: string; root: string; below: string }
const user = new User(
  name,
  root,
  {
    acted: (...words) => say({ is: 'acted', words }),
    passed: (...words) => say({ is: 'passed', words }),
    read: (...words) => say({ is: 'read', words }),
  },
  below,
)

port.on('message', (order: MountOrder) => {
  switch (order.do) {
    case 'begin':
      return user.begin(order.round, order.seed)
    case 'act':
      return user.act(order.act)
    case 'tidy':
      return user.tidy(order.pathsMax, order.bytesMax)
    case 'clear':
      return user.clear(order.path)
    case 'rest':
      user.rest().then(
        () => say({ is: 'rested', deleted: user.deleted, undone: user.undone }),
        error => {
          throw error
        },
      )
      return
    default:
      order satisfies never
  }
})
