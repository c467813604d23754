/**
 * What the benchmark needs of a tool that carries files, whatever the tool is. Each tool has a file of its own; the cases
 * know only this.
 */
import type { Meter } from './meter.ts'

export const TOOL_NAMES = ['realize', 'syncthing', 'rsync', 'cp'] as const
export type ToolName = (typeof TOOL_NAMES)[number]

/** What a case is about to have carried: the number of regular files below a root, and their bytes. */
export interface Expected {
  files: number
  bytes: number
}

/** A way around to a port of loopback, on which what passes is counted. @returns the port to dial instead */
export type Detour = (port: number) => Promise<number>

export const direct: Detour = port => Promise.resolve(port)

export interface Tool {
  readonly name: ToolName
  /** Whether it watches its folder and carries what changes, without being started for it. */
  readonly continuous: boolean
  /** The package that has it, for apt-get; null: it is always there. */
  readonly aptPackage: string | null
  /** One line, as the tool says it; throws with the reason if the tool is not installed. */
  version(): string
  /** Two ends with empty roots, connected and quiet. Everything lies below `folder`, which is empty. B dials A, by the detour if there is one. */
  openPair(folder: string, detour?: Detour): Promise<Pair>
  /** One end without a peer, over a root that is full already. Only of a continuous tool. */
  openAlone(folder: string, root: string): Promise<Alone>
}

export interface Pair {
  /** The roots. */
  readonly a: string
  readonly b: string
  /** Processes that run now; for a tool that runs on demand the end may have none yet. */
  readonly pids: { a: number[]; b: number[] }
  /**
   * Resolves once everything below `a` is below `b` as well, as far as the tool itself can tell, and durable if the tool
   * makes it so. Called right after the files appeared below `a`. A tool that runs on demand meters its own processes.
   */
  carry(expected: Expected, meter: Meter): Promise<Carried>
  close(): Promise<void>
}

export interface Carried {
  /** Whether the tool itself has made the files durable before it said that it is done. */
  durable: boolean
}

export interface Alone {
  /** Starts the service on what it has stored so far and resolves with its process once it listens. */
  start(): Promise<number>
  /** Resolves once it knows all the files and rests. */
  settled(expected: Expected): Promise<void>
  /** Resolves once it has looked at the whole folder anew. */
  rescan(): Promise<void>
  stop(): Promise<void>
}
