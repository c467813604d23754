import type { NetworkInterfaceInfo } from 'node:os'
import test from 'ava'
import { ownAddresses } from '../../supervisor/own-addresses.ts'

const address = (family: 'IPv4' | 'IPv6', text: string, internal = false): NetworkInterfaceInfo =>
  ({ address: text, family, internal, netmask: '', mac: '', cidr: null, scopeid: 0 }) as NetworkInterfaceInfo

const loopback = { lo: [address('IPv4', '127.0.0.1', true), address('IPv6', '::1', true)] }
const machine = {
  ...loopback,
  eth0: [address('IPv4', '192.0.2.7'), address('IPv6', '2001:db8::7'), address('IPv6', 'fe80::1')],
}

test('a wildcard is every outer address of its family, and none that is link-local', t => {
  t.deepEqual(ownAddresses([{ host: '0.0.0.0', port: 9771 }], machine), ['192.0.2.7:9771'])
  t.deepEqual(ownAddresses([{ host: '::', port: 9771 }], machine), ['192.0.2.7:9771', '[2001:db8::7]:9771'])
})

test('loopback is told only where it is listened on, or nothing else is there', t => {
  t.deepEqual(ownAddresses([{ host: '127.0.0.1', port: 5 }], machine), ['127.0.0.1:5'])
  t.deepEqual(ownAddresses([{ host: '0.0.0.0', port: 5 }], loopback), ['127.0.0.1:5'])
})

test('nothing is told where nothing is listened on', t => {
  t.deepEqual(ownAddresses([], machine), [])
})
