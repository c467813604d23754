import { spawnSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { type Fields, type FieldType, type Layout, layout } from '../../actors/view/fuse-layout.ts'
import {
  INIT_FLAGS,
  NAME_BYTES_MAX,
  NOTIFY,
  negotiate,
  OPCODES,
  STRUCTS,
  TRANSFER_BYTES_MAX,
} from '../../actors/view/fuse-protocol.ts'
import {
  type Attributes,
  attrBody,
  createBody,
  entryBody,
  ListingBody,
  type NodeEntry,
  nanosecondsOf,
  notifyDeleted,
  notifyInvalidEntry,
  notifyInvalidInode,
  notifyStore,
  readAttributes,
  reply,
  replyError,
  secondsOf,
} from '../../actors/view/fuse-reply.ts'
import { checkedName, readRequest } from '../../actors/view/fuse-request.ts'
import { temporaryFolder } from '../_temp.ts'

const HEADER = '/usr/include/linux/fuse.h'
const noCompiler = !existsSync(HEADER) || spawnSync('cc', ['--version']).status !== 0

/** Fields that older headers call otherwise or lack. */
const NEWER: Readonly<Record<string, readonly string[]>> = { init_out: ['max_stack_depth'], open_out: ['backing_id'] }

;(noCompiler ? test.skip : test)('layouts and numbers are those of the kernel’s header', t => {
  const asked: { text: string; ours: number }[] = []
  for (const [name, struct] of Object.entries<Layout<Fields>>(STRUCTS)) {
    const type = `struct fuse_${name}`
    asked.push({ text: `sizeof(${type})`, ours: struct.bytes })
    for (const [field, offset] of Object.entries(struct.offsets))
      if (!NEWER[name]?.includes(field)) asked.push({ text: `offsetof(${type}, ${field})`, ours: offset })
  }
  for (const [name, ours] of Object.entries(OPCODES)) asked.push({ text: `FUSE_${name}`, ours })
  for (const [name, ours] of Object.entries(NOTIFY)) asked.push({ text: `FUSE_NOTIFY_${name}`, ours })
  for (const [name, ours] of Object.entries(INIT_FLAGS))
    if (name !== 'PASSTHROUGH') asked.push({ text: `FUSE_${name}`, ours })
  const folder = temporaryFolder(t)
  const lines = asked.map(({ text }) => `printf("%lld\\n", (long long)(${text}));`)
  const source = `#include <stddef.h>\n#include <stdio.h>\n#include <linux/fuse.h>\nint main(void) {\n${lines.join('\n')}\n}\n`
  writeFileSync(join(folder, 'layout.c'), source)
  const compiled = spawnSync('cc', ['-o', join(folder, 'layout'), join(folder, 'layout.c')])
  t.is(compiled.status, 0, compiled.stderr.toString())
  const theirs = spawnSync(join(folder, 'layout')).stdout.toString().trim().split('\n').map(Number)
  t.deepEqual(
    asked.map(({ text, ours }) => `${text} = ${ours}`),
    asked.map(({ text }, index) => `${text} = ${theirs[index]}`),
  )
})

const VALUES: Record<FieldType, fc.Arbitrary<number | bigint>> = {
  u16: fc.integer({ min: 0, max: 0xffff }),
  u32: fc.integer({ min: 0, max: 0xffff_ffff }),
  i32: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  u64: fc.maxSafeNat(),
  i64: fc.maxSafeInteger(),
  big: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
}

test('what a layout writes it reads back, whatever its fields', t => {
  const types = fc.array(fc.constantFrom<FieldType>('u16', 'u32', 'i32', 'u64', 'i64', 'big'), { minLength: 1 })
  fc.assert(
    fc.property(
      types.chain(list => fc.tuple(fc.constant(list), fc.tuple(...list.map(type => VALUES[type])))),
      ([list, values]) => {
        const struct = layout(Object.fromEntries(list.map((type, index) => [`f${index}`, type])))
        const wanted = Object.fromEntries(values.map((value, index) => [`f${index}`, value]))
        const view = new DataView(new ArrayBuffer(struct.bytes + 16))
        struct.write(view, 8, wanted as never)
        t.deepEqual(struct.read(view, 8), wanted as never)
      },
    ),
  )
})

/** A request as the kernel writes it: header, struct, and what follows. */
function request(opcode: number, parts: readonly Uint8Array[]): Uint8Array {
  const body = Buffer.concat(parts)
  const bytes = new Uint8Array(STRUCTS.in_header.bytes + body.length)
  const header = { len: bytes.length, opcode, unique: 77, nodeid: 5, uid: 1000, gid: 100, pid: 4242 }
  STRUCTS.in_header.write(new DataView(bytes.buffer), 0, header)
  bytes.set(body, STRUCTS.in_header.bytes)
  return bytes
}

function struct<F extends Fields>(of: Layout<F>, values: Parameters<Layout<F>['write']>[2]): Uint8Array {
  const bytes = new Uint8Array(of.bytes)
  of.write(new DataView(bytes.buffer), 0, values)
  return bytes
}

const text = (value: string) => Buffer.from(`${value}\0`)
const who = { unique: 77, node: 5, uid: 1000, gid: 100, pid: 4242 }
const namesOf = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 60 })
  .filter(name => !/[/\0]/.test(name) && name !== '.' && name !== '..' && Buffer.byteLength(name) <= NAME_BYTES_MAX)
const safe = fc.maxSafeNat()
const u32 = fc.integer({ min: 0, max: 0xffff_ffff })

test('requests are read as they were written', t => {
  fc.assert(
    fc.property(namesOf, namesOf, safe, u32, fc.uint8Array({ maxLength: 200 }), (name, other, big, small, content) => {
      const same = (opcode: number, parts: Uint8Array[], expected: object) =>
        t.deepEqual(readRequest(request(opcode, parts)) as object, { ...who, ...expected })
      same(OPCODES.LOOKUP, [text(name)], { op: 'LOOKUP', name })
      same(OPCODES.UNLINK, [text(name)], { op: 'UNLINK', name })
      same(OPCODES.SYMLINK, [text(name), text(other)], { op: 'SYMLINK', name, target: other })
      same(OPCODES.MKDIR, [struct(STRUCTS.mkdir_in, { mode: small, umask: 0 }), text(name)], {
        op: 'MKDIR',
        mode: small,
        name,
      })
      same(OPCODES.RENAME, [struct(STRUCTS.rename_in, { newdir: big }), text(name), text(other)], {
        op: 'RENAME',
        newParent: big,
        flags: 0,
        name,
        newName: other,
      })
      same(OPCODES.RENAME2, [struct(STRUCTS.rename2_in, { newdir: big, flags: 2 }), text(name), text(other)], {
        op: 'RENAME',
        newParent: big,
        flags: 2,
        name,
        newName: other,
      })
      same(OPCODES.LINK, [struct(STRUCTS.link_in, { oldnodeid: big }), text(name)], { op: 'LINK', oldNode: big, name })
      const create = struct(STRUCTS.create_in, { flags: small, mode: 0o644, umask: 0, open_flags: 1 })
      same(OPCODES.CREATE, [create, text(name)], { op: 'CREATE', flags: small, mode: 0o644, openFlags: 1, name })
      const io = { fh: big, offset: big, size: content.length, lock_owner: 9n, flags: 0 }
      same(OPCODES.READ, [struct(STRUCTS.read_in, { ...io, read_flags: 0 })], {
        op: 'READ',
        fh: big,
        offset: big,
        size: content.length,
      })
      const written = readRequest(
        request(OPCODES.WRITE, [struct(STRUCTS.write_in, { ...io, write_flags: 4 }), content]),
      )
      t.like(written, { op: 'WRITE', fh: big, offset: big, writeFlags: 4 })
      if (written.op === 'WRITE') t.deepEqual(Buffer.from(written.content), Buffer.from(content))
      const set = readRequest(
        request(OPCODES.SETXATTR, [
          struct(layout({ size: 'u32', flags: 'u32' }), { size: content.length, flags: 1 }),
          text('user.x'),
          content,
        ]),
      )
      t.like(set, { op: 'SETXATTR', name: 'user.x', flags: 1 })
      if (set.op === 'SETXATTR') t.deepEqual(Buffer.from(set.value), Buffer.from(content))
      const attributes = {
        valid: small,
        fh: big,
        size: big,
        lock_owner: 3n,
        atime: 0 - big,
        mtime: big,
        ctime: 0,
        atimensec: 1,
        mtimensec: 999_999_999,
        ctimensec: 0,
        mode: 0o100644,
        unused4: 0,
        uid: small,
        gid: 7,
      }
      same(OPCODES.SETATTR, [struct(STRUCTS.setattr_in, attributes)], { op: 'SETATTR', ...attributes })
      same(OPCODES.FORGET, [struct(STRUCTS.forget_in, { nlookup: big })], { op: 'FORGET', count: big })
    }),
    { numRuns: 60 },
  )
})

test('requests of many nodes, of none, and of a newer kernel are read', t => {
  const forgets = [1, 2, 3].map(nodeid => struct(STRUCTS.forget_one, { nodeid, nlookup: nodeid * 10 }))
  t.deepEqual(readRequest(request(OPCODES.BATCH_FORGET, [struct(STRUCTS.batch_forget_in, { count: 3 }), ...forgets])), {
    ...who,
    op: 'BATCH_FORGET',
    forgets: [
      { node: 1, count: 10 },
      { node: 2, count: 20 },
      { node: 3, count: 30 },
    ],
  })
  t.deepEqual(
    readRequest(request(OPCODES.GETATTR, [struct(STRUCTS.getattr_in, { getattr_flags: 0, dummy: 0, fh: 3 })])),
    {
      ...who,
      op: 'GETATTR',
      fh: null,
    },
  )
  t.deepEqual(readRequest(request(OPCODES.STATFS, [])), { ...who, op: 'STATFS' })
  t.deepEqual(readRequest(request(999, [new Uint8Array(64)])), { ...who, op: 'unknown', opcode: 999 })
})

test('names that would mean something else are not names', t => {
  const bytes = (value: string) => Buffer.from(value)
  t.deepEqual(checkedName(bytes('')), { fault: 'EINVAL' })
  for (const name of ['.', '..', 'a/b', '/', 'a\0b']) t.deepEqual(checkedName(bytes(name)), { fault: 'EINVAL' })
  t.deepEqual(checkedName(Buffer.from([0x61, 0xff])), { fault: 'EILSEQ' })
  t.deepEqual(checkedName(Buffer.from([0xed, 0xa0, 0x80])), { fault: 'EILSEQ' }, 'half of a surrogate pair')
  t.deepEqual(checkedName(Buffer.alloc(256, 0x61)), { fault: 'ENAMETOOLONG' })
  t.is(checkedName(Buffer.alloc(255, 0x61)), 'a'.repeat(255))
  t.is(checkedName(bytes('\ufeff...')), '\ufeff...')
})

const arbitraryNs = fc.bigInt({ min: -(10n ** 19n), max: 10n ** 19n })
const attributesOf: fc.Arbitrary<Attributes> = fc.record({
  ino: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  size: safe,
  blocks: safe,
  atimeNs: arbitraryNs,
  mtimeNs: arbitraryNs,
  ctimeNs: arbitraryNs,
  mode: u32,
  links: u32,
  uid: u32,
  gid: u32,
  rdev: u32,
})

test('attributes and times come back as they were given', t => {
  fc.assert(
    fc.property(attributesOf, fc.integer({ min: 0, max: 10_000_000 }), (attributes, validMs) => {
      const body = attrBody(attributes, validMs)
      const view = new DataView(body.buffer)
      t.deepEqual(readAttributes(view, 16), attributes)
      t.is(Number(view.getBigUint64(0, true)) * 1000 + view.getUint32(8, true) / 1e6, validMs)
      const entry = entryBody({ node: 3, generation: 0, attributes, validMs })
      t.deepEqual(readAttributes(new DataView(entry.buffer), 40), attributes)
    }),
  )
  fc.assert(
    fc.property(arbitraryNs, ns => {
      const [seconds, nanoseconds] = secondsOf(ns)
      t.true(nanoseconds >= 0 && nanoseconds < 1e9)
      t.is(nanosecondsOf(seconds, nanoseconds), ns)
    }),
  )
})

const attributes: Attributes = {
  ino: 7n,
  size: 1,
  blocks: 1,
  atimeNs: 0n,
  mtimeNs: 0n,
  ctimeNs: 0n,
  mode: 0o100644,
  links: 1,
  uid: 0,
  gid: 0,
  rdev: 0,
}
const entry: NodeEntry = { node: 9, generation: 0, attributes, validMs: 1000 }

test('a listing holds as many names as fit, each aligned to 8 bytes', t => {
  for (const plus of [false, true])
    fc.assert(
      fc.property(fc.array(namesOf, { maxLength: 60 }), fc.integer({ min: 0, max: 4096 }), (names, size) => {
        const body = new ListingBody(size, plus)
        let added = 0
        for (const name of names) {
          const bytes = Buffer.from(name)
          if (!body.fits(bytes.length)) break
          body.add(bytes, ++added, entry)
        }
        t.true(body.body.length <= size)
        const view = new DataView(body.body.buffer, 0, body.body.length)
        const seen: string[] = []
        for (let at = 0; at < body.body.length; ) {
          const start = at + (plus ? 128 : 0)
          const { namelen, off, type, ino } = STRUCTS.dirent.read(view, start)
          t.deepEqual({ off, type, ino }, { off: seen.length + 1, type: 8, ino: 7n })
          seen.push(Buffer.from(body.body.subarray(start + 24, start + 24 + namelen)).toString())
          at = start + Math.ceil((24 + namelen) / 8) * 8
        }
        t.deepEqual(seen, names.slice(0, added))
      }),
      { numRuns: 40 },
    )
})

test('replies carry length, request and error', t => {
  const header = (bytes: Uint8Array) => STRUCTS.out_header.read(new DataView(bytes.buffer, bytes.byteOffset), 0)
  t.deepEqual(header(reply(5)), { len: 16, error: 0, unique: 5 })
  t.deepEqual(header(reply(2 ** 40, new Uint8Array(10))), { len: 26, error: 0, unique: 2 ** 40 })
  t.deepEqual(header(replyError(5, 2)), { len: 16, error: -2, unique: 5 })
  t.is(createBody(entry, { fh: 4, flags: 2, backing: 0 }).length, 128 + 16)
})

test('notifications have no request, their code, and names that end with NUL', t => {
  const read = (bytes: Uint8Array) => ({ view: new DataView(bytes.buffer), rest: Buffer.from(bytes.subarray(16)) })
  const gone = read(notifyInvalidEntry(3, 'né'))
  t.deepEqual(STRUCTS.out_header.read(gone.view, 0), { len: 16 + 16 + 4, error: NOTIFY.INVAL_ENTRY, unique: 0 })
  t.deepEqual(STRUCTS.notify_inval_entry_out.read(gone.view, 16), { parent: 3, namelen: 3, flags: 0 })
  t.is(gone.rest.toString('utf8', 16), 'né\0')
  const inode = read(notifyInvalidInode(4, false))
  t.deepEqual(STRUCTS.notify_inval_inode_out.read(inode.view, 16), { ino: 4, off: -1, len: 0 })
  t.deepEqual(STRUCTS.notify_inval_inode_out.read(read(notifyInvalidInode(4, true)).view, 16), {
    ino: 4,
    off: 0,
    len: 0,
  })
  const removed = read(notifyDeleted(3, 4, 'x'))
  t.deepEqual(STRUCTS.notify_delete_out.read(removed.view, 16), { parent: 3, child: 4, namelen: 1 })
  const stored = read(notifyStore(3, 4096, new Uint8Array([1, 2])))
  t.deepEqual(STRUCTS.notify_store_out.read(stored.view, 16), { nodeid: 3, offset: 4096, size: 2 })
  t.deepEqual([...stored.rest.subarray(24)], [1, 2])
})

test('what the kernel does not offer is not asked for, and an old kernel is refused', t => {
  const init = { major: 7, minor: 45, max_readahead: 2 ** 20, flags: 0xffff_ffff, flags2: 0xffff_ffff }
  const answer = (offered: Partial<typeof init>, passthrough: boolean) => {
    const result = negotiate({ ...init, ...offered }, { passthrough })
    if (result === null) throw new Error('refused')
    const out = STRUCTS.init_out.read(new DataView(result.body.buffer), 0)
    return { ...out, all: out.flags2 * 2 ** 32 + out.flags, passthrough: result.passthrough }
  }
  const all = Object.values(INIT_FLAGS).reduce((sum, flag) => sum + flag, 0)
  const limits = { major: 7, minor: 40, max_write: TRANSFER_BYTES_MAX, max_pages: 256 }
  t.like(answer({}, true), { ...limits, all, passthrough: true, max_stack_depth: 1 })
  t.like(answer({}, false), { ...limits, all: all - INIT_FLAGS.PASSTHROUGH, passthrough: false })
  t.like(answer({ flags: 1, flags2: 0 }, true), { all: 1, passthrough: false })
  t.like(answer({ flags2: 0, minor: 31 }, true), { minor: 31, passthrough: false })
  t.is(negotiate({ ...init, minor: 27 }, { passthrough: true }), null)
})
