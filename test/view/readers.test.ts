/**
 * Programs that read a mounted file while another peer replaces its content again and again: each time the old content or the new, whole;
 * what is open or mapped stays what it was. A content that is nowhere any more cannot be read, and that is said.
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { arenaName } from '../system/_household.ts'
import { eventually, onMount, partialWorld } from './_arenas.ts'
import { cannotCompile } from './_compiled.ts'
import { mappedProgram, versionBytes, versionSize, type Watched, watch } from './_mapped.ts'

const ROUNDS = Number(process.env.VIEW_ROUNDS ?? 16)
const KINDS = ['opened', 'held', 'mapped'] as const

/** `here`: what the one peer wants of the file that the other one replaces. */
async function readers(t: ExecutionContext, here: 'real' | 'unreal'): Promise<void> {
  const w = await partialWorld(t, root => fs.writeFileSync(join(root, 'file'), versionBytes(0)))
  const file = join(w.docs, 'file')
  if (here === 'real') {
    await w.laptop.call('mark', { arena: arenaName('docs'), mark: 'real' })
    await w.household.settled()
  }
  const program = mappedProgram(t)
  const ends: (() => Promise<Watched>)[] = []
  for (const how of KINDS) ends.push(await watch(t, program, how, file))
  for (let round = 1; round <= ROUNDS; round++) {
    if (round % 2 === 0) fs.writeFileSync(join(w.there, 'file'), versionBytes(round))
    else {
      // As an editor does it: never half a file on the disk.
      fs.writeFileSync(join(w.household.folder, 'next'), versionBytes(round))
      fs.renameSync(join(w.household.folder, 'next'), join(w.there, 'file'))
    }
    await eventually(`version ${round} is seen`, () => fs.statSync(file).size === versionSize(round))
    // Some are replaced again before anybody has read them.
    if (round % 4 !== 0) await eventually(`version ${round} is read`, () => isVersion(file, round))
    t.is(fs.existsSync(join(w.here, 'file')), here === 'real')
  }
  await w.household.settled()
  t.true(fs.readFileSync(file).equals(versionBytes(ROUNDS)))
  for (const [index, end] of ends.entries()) {
    const watched = await end()
    t.deepEqual(watched.faults, [], KINDS[index])
    t.true(watched.changes > 1, `'${KINDS[index]}' has seen more than one version: ${JSON.stringify(watched)}`)
    if (here === 'real') t.is(watched.unreachable, 0, KINDS[index])
    t.log(KINDS[index], JSON.stringify(watched))
  }
}

/** False also if nobody can give it now. */
function isVersion(file: string, version: number): boolean {
  try {
    return fs.readFileSync(file).equals(versionBytes(version))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EHOSTUNREACH') return false
    throw error
  }
}

for (const here of ['real', 'unreal'] as const) {
  const title = `who reads ${here === 'real' ? 'a real' : 'an unreal'} file that is replaced elsewhere gets one version, never a mix`
  onMount(title, async t => readers(t, here), cannotCompile)
}
