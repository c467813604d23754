/** Where others can dial this peer, from where it listens and which interfaces the machine has. Pure. */
import type { NetworkInterfaceInfo } from 'node:os'
import { ADDRESSES_MAX } from '../protocol/control.ts'
import { formatAddress, type ListenAddress } from './config.ts'

/**
 * host:port, at most ADDRESSES_MAX. A wildcard becomes the addresses of the machine; loopback only where nothing
 * else is there. Link-local addresses are left out: they mean nothing without the name of an interface.
 */
export function ownAddresses(
  listening: readonly ListenAddress[],
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]>,
): string[] {
  const found = Object.values(interfaces).flatMap(addresses => addresses ?? [])
  const outer = found.filter(one => !one.internal && !/^fe[89ab]/i.test(one.address))
  const texts = new Set<string>()
  for (const { host, port } of listening) {
    const four = host === '0.0.0.0' || host === '::'
    const six = host === '::'
    if (!four && !six) {
      texts.add(formatAddress({ host, port }))
      continue
    }
    const fitting = outer.filter(one => (one.family === 'IPv4' ? four : six))
    for (const one of fitting) texts.add(formatAddress({ host: one.address, port }))
    if (fitting.length === 0) texts.add(formatAddress({ host: '127.0.0.1', port }))
  }
  return [...texts].slice(0, ADDRESSES_MAX)
}
