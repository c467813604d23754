import test from 'ava'
import fc from 'fast-check'
import { SyncError } from '../../protocol/error.ts'
import { encodeFrame, FRAME_LIMITS, type Frame, FrameReader, GREETING_LIMITS } from '../../protocol/frame.ts'
import { GREETING_BYTES_MAX, HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX } from '../../protocol/limits.ts'

function readAll(reader: FrameReader): Frame[] {
  const frames: Frame[] = []
  for (let frame = reader.next(); frame; frame = reader.next()) frames.push(frame)
  return frames
}

function lengths(header: number, payload: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32BE(header, 0)
  bytes.writeUInt32BE(payload, 4)
  return bytes
}

const frameOf = fc.record({
  header: fc.dictionary(fc.string(), fc.jsonValue()),
  payload: fc.option(fc.uint8Array({ minLength: 1, maxLength: 300 }), { nil: undefined }),
})

test('what is encoded is read again, however the bytes are cut', t => {
  fc.assert(
    fc.property(
      fc.array(frameOf, { maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
      (frames, cuts) => {
        const bytes = Buffer.concat(frames.flatMap(frame => encodeFrame(frame.header, frame.payload)))
        const reader = new FrameReader(FRAME_LIMITS)
        const read: Frame[] = []
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const end = at + (cuts[i % cuts.length] as number)
          reader.push(bytes.subarray(at, end))
          read.push(...readAll(reader))
          at = end
        }
        t.is(read.length, frames.length)
        for (const [i, frame] of frames.entries()) {
          t.deepEqual(read[i]?.header, JSON.parse(JSON.stringify(frame.header)))
          t.deepEqual(read[i]?.payload && [...read[i].payload], frame.payload && [...frame.payload])
        }
        t.is(reader.heldBytes, 0)
      },
    ),
  )
})

test('all chunks pushed at once give the same frames', t => {
  const reader = new FrameReader(FRAME_LIMITS)
  for (const byte of Buffer.concat([1, 2, 3].flatMap(n => encodeFrame({ n }, Uint8Array.of(n)))))
    reader.push(Uint8Array.of(byte))
  t.deepEqual(
    readAll(reader).map(frame => frame.header),
    [{ n: 1 }, { n: 2 }, { n: 3 }],
  )
})

test('arbitrary bytes end in frames or a SyncError, and never hold more than the limits', t => {
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .tuple(fc.nat(0xffffffff), fc.nat(0xffffffff))
      .map(([header, payload]) => new Uint8Array(lengths(header, payload))),
  )
  fc.assert(
    fc.property(fc.array(hostile, { maxLength: 8 }), chunks => {
      const reader = new FrameReader(GREETING_LIMITS)
      const pushed = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
      try {
        for (const chunk of chunks) {
          reader.push(chunk)
          readAll(reader)
          t.true(reader.heldBytes <= pushed + GREETING_BYTES_MAX)
        }
      } catch (error) {
        t.true(error instanceof SyncError)
        t.throws(() => reader.next(), { is: error as Error }, 'it stays broken')
      }
    }),
  )
})

test('lengths are refused before anything of that length is there', t => {
  const refused = (bytes: Buffer, limits = FRAME_LIMITS) => {
    const reader = new FrameReader(limits)
    reader.push(bytes)
    const error = t.throws(() => reader.next(), { instanceOf: SyncError })
    t.true(reader.heldBytes <= 8)
    return error?.code
  }
  t.is(refused(lengths(0, 5)), 'frame_invalid')
  t.is(refused(lengths(HEADER_BYTES_MAX + 1, 0)), 'limit_exceeded')
  t.is(refused(lengths(0xffffffff, 0)), 'limit_exceeded')
  t.is(refused(lengths(2, PAYLOAD_BYTES_MAX + 1)), 'limit_exceeded')
  t.is(refused(lengths(GREETING_BYTES_MAX, 1), GREETING_LIMITS), 'limit_exceeded')
})

test('the limits of a greeting can be widened between two frames of one chunk', t => {
  const reader = new FrameReader(GREETING_LIMITS)
  reader.push(
    Buffer.concat([...encodeFrame({ type: 'hello' }), ...encodeFrame({ type: 'large' }, new Uint8Array(100_000))]),
  )
  t.deepEqual(reader.next()?.header, { type: 'hello' })
  reader.limits = FRAME_LIMITS
  t.is(reader.next()?.payload?.length, 100_000)
})

test('a header must be JSON in UTF-8', t => {
  for (const bytes of [Buffer.from('{'), Buffer.from([0x22, 0xff, 0x22])]) {
    const reader = new FrameReader(FRAME_LIMITS)
    reader.push(Buffer.concat([lengths(bytes.length, 0), bytes]))
    t.is(t.throws(() => reader.next(), { instanceOf: SyncError })?.code, 'frame_invalid')
  }
})

test('a payload has a buffer of its own, or the one that the reader was told of', t => {
  const given = new Uint8Array(1000)
  const asked: unknown[] = []
  const reader = new FrameReader(FRAME_LIMITS, (header, bytes) => {
    asked.push({ header, bytes })
    return asked.length === 2 ? given : undefined
  })
  const push = (byte: number) => {
    for (const part of encodeFrame({ byte }, new Uint8Array(1000).fill(byte))) reader.push(part)
    return reader.next()?.payload as Uint8Array
  }
  const first = push(1)
  t.is(first.buffer.byteLength, 1000)
  t.is(push(2), given)
  const third = push(3)
  t.not(third.buffer, first.buffer)
  t.deepEqual(
    [first, given, third].map(payload => payload.every(byte => byte === payload[0]) && payload[0]),
    [1, 2, 3],
  )
  t.deepEqual(
    asked,
    [1, 2, 3].map(byte => ({ header: { byte }, bytes: 1000 })),
  )
})

test('what every receiver would refuse is not encoded, and a payload is not copied', t => {
  t.is(
    t.throws(() => encodeFrame({}, new Uint8Array(PAYLOAD_BYTES_MAX + 1)), { instanceOf: SyncError })?.code,
    'limit_exceeded',
  )
  const payload = new Uint8Array(10)
  t.is(encodeFrame({ a: 'ü' }, payload)[1], payload)
})

test.serial('nothing of a length that is only claimed is ever allocated beyond the limits', t => {
  const allocate = Buffer.allocUnsafeSlow
  let largest = 0
  let total = 0
  Buffer.allocUnsafeSlow = bytes => {
    largest = Math.max(largest, bytes)
    total += bytes
    return allocate(bytes)
  }
  t.teardown(() => {
    Buffer.allocUnsafeSlow = allocate
  })
  const word = fc.oneof(fc.nat(0xffffffff), fc.nat(2 * GREETING_BYTES_MAX), fc.nat(40))
  const claim = fc
    .tuple(word, word, fc.uint8Array({ maxLength: 60 }))
    .map(([header, payload, rest]) => Buffer.concat([lengths(header, payload), rest]))
  fc.assert(
    fc.property(fc.array(claim, { maxLength: 6 }), fc.integer({ min: 1, max: 30 }), (claims, cut) => {
      const bytes = Buffer.concat(claims)
      const reader = new FrameReader(GREETING_LIMITS)
      largest = 0
      total = 0
      try {
        for (let at = 0; at < bytes.length; at += cut) {
          reader.push(bytes.subarray(at, at + cut))
          readAll(reader)
        }
      } catch (error) {
        t.true(error instanceof SyncError)
      }
      t.true(largest <= GREETING_BYTES_MAX, `${largest} bytes at once`)
      // What was given out was sent; beyond that one frame may be open.
      t.true(total <= bytes.length + GREETING_BYTES_MAX, `${total} bytes for ${bytes.length}`)
    }),
    { numRuns: 500 },
  )
})
