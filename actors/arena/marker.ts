/**
 * The marker in an arena's root: which folder it is, and how often content was given up in it. A store that was put back from before
 * that takes what is missing for deleted, unless it sees by the marker that it is older than the folder. Pure.
 */

/** @param givenUp 0: never */
export function markerWith(id: string, givenUp: number): string {
  return givenUp === 0 ? id : `${id} ${givenUp}`
}

/** Which folder it is. */
export function markerId(marker: string): string {
  return marker.split(' ')[0] as string
}

/** How often content was given up in it. */
export function givenUpIn(marker: string): number {
  const number = Number(marker.split(' ')[1] ?? 0)
  return Number.isSafeInteger(number) && number > 0 ? number : 0
}
