/** What a command does when a person interrupts it and it has something to take down first. */

let polite: (() => void) | undefined

/** @returns takes it back */
export function onInterrupt(end: () => void): () => void {
  polite = end
  return () => {
    if (polite === end) polite = undefined
  }
}

/** Asks the command to end by itself. False if it has nothing to take down, or has been asked before: then the process may simply end. */
export function interrupt(): boolean {
  const end = polite
  polite = undefined
  end?.()
  return end !== undefined
}
