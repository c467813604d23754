/**
 * Descriptors that stay open for a while, noted where the death of the thread does not take them (actors/descriptors.ts): what it leaves
 * is closed by whoever saw it end. Without a table they are just descriptors.
 */
import { close } from '../arena/posix-calls.ts'
import { type DescriptorTable, forgetDescriptor, noteDescriptor } from '../descriptors.ts'

let table: DescriptorTable | null = null

/** From now on, in this thread. */
export function keepIn(descriptors: DescriptorTable): void {
  table = descriptors
}

/** The table, for threads of this one. */
export function keptTable(): DescriptorTable | null {
  return table
}

/** Notes a descriptor that was just opened, and gives it back. */
export function kept(fd: number): number {
  if (table !== null) noteDescriptor(table, fd)
  return fd
}

export function closeKept(fd: number): void {
  // Forgotten first: a number that is free again may belong to somebody else.
  if (table !== null) forgetDescriptor(table, fd)
  close(fd)
}
