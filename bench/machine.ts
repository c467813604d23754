/** What this machine is, for reports. */
import { execFileSync } from 'node:child_process'
import { cpus, release, totalmem } from 'node:os'
import type { Machine } from './report.ts'

/** @param folder where the files are */
export function machineOf(folder: string, loadBefore: number): Omit<Machine, 'note'> {
  const [, fileSystem] = execFileSync('df', ['--output=fstype', folder], { encoding: 'utf8' }).split('\n')
  return {
    processor: cpus()[0]?.model.trim() ?? 'unknown processor',
    processors: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
    fileSystem: fileSystem?.trim() ?? 'unknown file system',
    node: process.versions.node,
    loadBefore,
  }
}
