/** What becomes of an actor that died: a pure function of its policy, its past failures and the time. */

export interface RestartPolicy {
  restart: 'always' | 'never'
  /** A past failure counts half after this time. */
  failureHalfLifeMs: number
  /** More (decayed) failures than this, and the actor is shown as failed and rests for `pauseMs`. */
  failuresMax: number
  /** Wait before the second restart; doubled with each further failure, never above `pauseMs`. The first is at once. */
  backoffMs: number
  pauseMs: number
}

export interface FailureHistory {
  /** Failures, decayed to `lastMs`. */
  failures: number
  lastMs: number
}

export const noFailures: FailureHistory = { failures: 0, lastMs: 0 }

export type Decision =
  | { action: 'drop' }
  /** `resting`: it failed too often; until it is started again it counts as failed. */
  | { action: 'start'; afterMs: number; resting: boolean; history: FailureHistory }

/** @param nowMs monotonic, not before `history.lastMs` */
export function decide(policy: RestartPolicy, history: FailureHistory, nowMs: number): Decision {
  if (policy.restart === 'never') return { action: 'drop' }
  const sinceMs = Math.max(0, nowMs - history.lastMs)
  const failures = history.failures * 0.5 ** (sinceMs / policy.failureHalfLifeMs) + 1
  if (failures > policy.failuresMax) {
    // A clean slate afterwards, less one: a rest that did not help is followed by the next one sooner.
    const left = Math.max(0, policy.failuresMax - 1)
    return { action: 'start', afterMs: policy.pauseMs, resting: true, history: { failures: left, lastMs: nowMs } }
  }
  const doublings = Math.ceil(failures - 1)
  const afterMs = doublings === 0 ? 0 : Math.min(policy.pauseMs, policy.backoffMs * 2 ** (doublings - 1))
  return { action: 'start', afterMs, resting: false, history: { failures, lastMs: nowMs } }
}
