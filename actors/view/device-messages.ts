/** What the view's thread and the threads that read its device say to each other. */
import type { DescriptorTable } from '../descriptors.ts'

/** What the thread is told, once there is a device. */
export interface DeviceLoopStart {
  device: number
  waker: number
  /** By FLAGS: what the view's thread says by setting 1. */
  flags: Int32Array
  /** Where what is opened here is noted, if anywhere. */
  descriptors: DescriptorTable | null
}

export const FLAGS = {
  /** The loop shall end. */
  stopped: 0,
  /** The view's thread reads the device itself. */
  near: 1,
} as const

/** What it says: that it is ready to be told, a request, or `null` when the mount is gone. */
export type DeviceLoopMessage = 'ready' | Uint8Array | null
