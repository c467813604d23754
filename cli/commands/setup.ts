/** `init` and `id`: what works without a service. */
import { existsSync, mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { SyncError } from '../../protocol/error.ts'
import { defaultConfig, formatAddress, parseAddress, parseConfig, readConfig } from '../../supervisor/config.ts'
import { freePeerName } from '../../supervisor/config-edit.ts'
import { writeFileAtomic } from '../../supervisor/config-write.ts'
import { homeFlag } from '../../supervisor/home.ts'
import type { Context } from '../context.ts'
import { safe } from '../text.ts'

/** Creates what is missing of key and configuration. Throws `already_exists` if both are there. */
export async function init(context: Context, options: { name?: string; listen?: string[] }): Promise<void> {
  const { home, surroundings } = context
  // The certificates behind it take a while to load: not for every command.
  const { createKey, readKey } = await import('../../supervisor/identity.ts')
  if (existsSync(home.config) && existsSync(home.key))
    throw new SyncError(
      'already_exists',
      `${home.config} and its key exist: \`realize${homeFlag(home)} id\` shows the ID`,
    )
  let { name } = options
  if (existsSync(home.config)) {
    if (name !== undefined || options.listen !== undefined)
      throw new SyncError('already_exists', `${home.config} exists: change name and listen there`)
    name = readConfig(home.config).peer.name
  } else {
    name ??= freePeerName(surroundings.hostname.split('.')[0] ?? '', [])
    const text = defaultConfig({ name, ...(options.listen ? { listen: options.listen.map(listenText) } : {}) })
    // Also finds a name that no configuration may have, before there is a file.
    try {
      parseConfig(text, 'config.toml', { homedir: surroundings.homedir })
    } catch {
      throw new SyncError('usage', `'${name}' cannot be a name: 1 to 64 characters without control characters`)
    }
    mkdirSync(dirname(home.config), { recursive: true, mode: 0o700 })
    writeFileAtomic(home.config, text, 0o600)
  }
  if (!existsSync(home.key)) mkdirSync(dirname(home.key), { recursive: true, mode: 0o700 })
  const { id } = existsSync(home.key) ? readKey(home.key) : createKey(home.key)
  await context.answer({ id, name, config: home.config, key: home.key }, () => [
    id,
    '',
    safe`This peer is called ${name}. Its configuration: ${home.config}`,
    safe`Start it with \`realized${homeFlag(home)}\`, then share a folder: \`realize${homeFlag(home)} arena add NAME PATH\``,
  ])
}

function listenText(text: string): string {
  try {
    return formatAddress(parseAddress(text, 0))
  } catch (error) {
    throw new SyncError('usage', (error as Error).message, { cause: error })
  }
}

export async function id(context: Context): Promise<void> {
  const { home } = context
  const { readKey } = await import('../../supervisor/identity.ts')
  if (!existsSync(home.key))
    throw new SyncError('not_found', `there is no key ${home.key}: \`realize${homeFlag(home)} init\` makes one`)
  const identity = readKey(home.key)
  await context.answer({ id: identity.id }, () => [identity.id])
}
