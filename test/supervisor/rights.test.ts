import test from 'ava'
import type { PeerId } from '../../protocol/ids.ts'
import { defaultConfig, parseConfig } from '../../supervisor/config.ts'
import { addArena, addPeer } from '../../supervisor/config-edit.ts'
import { generateIdentity } from '../../supervisor/identity.ts'
import { arenasOf, rightsChanged } from '../../supervisor/rights.ts'

const anna = generateIdentity().id
const bert = generateIdentity().id

function configOf(arenas: { name: string; peers: string[] | null }[], peers: Record<string, PeerId>) {
  let text = defaultConfig({ name: 'here', arena: null })
  for (const [name, id] of Object.entries(peers)) text = addPeer(text, { name, id, addresses: [] })
  for (const { name, peers } of arenas) text = addArena(text, { name, path: `/srv/${name}`, peers })
  return parseConfig(text, 'config.toml', { homedir: '/home/me' })
}

test('an arena without a list is for the whole household, one with a list for those on it', t => {
  const config = configOf(
    [
      { name: 'all', peers: null },
      { name: 'some', peers: ['anna'] },
      { name: 'none', peers: [] },
    ],
    { anna, bert },
  )
  t.deepEqual(arenasOf(config, anna) as string[], ['all', 'some'])
  t.deepEqual(arenasOf(config, bert) as string[], ['all'])
})

test('what a peer gained and lost is told for peers that stay', t => {
  const before = configOf(
    [
      { name: 'one', peers: ['anna'] },
      { name: 'two', peers: null },
    ],
    { anna },
  )
  const after = configOf(
    [
      { name: 'one', peers: [] },
      { name: 'two', peers: null },
      { name: 'three', peers: null },
    ],
    {
      anna,
      bert,
    },
  )
  t.deepEqual(rightsChanged(before, after) as unknown, [{ peer: anna, gained: ['three'], lost: ['one'] }])
  t.deepEqual(rightsChanged(after, after), [])
})
