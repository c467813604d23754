import { closeSync, fstatSync, openSync, readdirSync } from 'node:fs'
import test from 'ava'
import { createDescriptorTable, forgetDescriptor, noteDescriptor, sweepDescriptors } from '../../actors/descriptors.ts'
import { temporaryFolder } from '../_temp.ts'

test('what a dead thread had noted is closed, what it had forgotten is not', t => {
  const table = createDescriptorTable()
  const folder = temporaryFolder(t)
  const [left, closed] = [openSync(folder, 'r'), openSync(folder, 'r')]
  t.true(noteDescriptor(table, left))
  t.true(noteDescriptor(table, closed))
  forgetDescriptor(table, closed)
  t.is(sweepDescriptors(table), 1)
  t.throws(() => fstatSync(left), { code: 'EBADF' })
  t.notThrows(() => closeSync(closed))
})

test('what is noted after the end stays with the one who noted it', t => {
  const table = createDescriptorTable()
  t.is(sweepDescriptors(table), 0)
  t.false(noteDescriptor(table, 77))
  t.is(sweepDescriptors(table), 0)
})

test('a table takes as many as it has places, and gives each place again', t => {
  const table = createDescriptorTable()
  for (let round = 0; round < 2; round++) {
    for (let fd = 0; fd < table.length + 5; fd++) t.true(noteDescriptor(table, fd))
    for (let fd = 0; fd < table.length + 5; fd++) forgetDescriptor(table, fd)
  }
  t.true(table.every(place => place === 0))
  t.true(readdirSync('/proc/self/fd').length > 2, 'and none of them was closed')
})
