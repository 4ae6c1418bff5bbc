import { memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type ByteSource, Pool } from '../src/index.ts'
import { page } from './support/bytes.ts'
import { setup } from './support/setup.ts'

async function text(buffer: { read(offset: number, into: Uint8Array): Promise<void> }, length: number) {
  const bytes = new Uint8Array(length)
  await buffer.read(0, bytes)
  return new TextDecoder().decode(bytes)
}

async function* later(...items: (string | number | Uint8Array)[]) {
  for (const item of items) {
    await null
    yield item
  }
}

const hello = new TextEncoder().encode('hello')
/** The bytes of `hello` in every form. */
const sources: [name: string, make: () => ByteSource][] = [
  ['a string', () => 'hello'],
  ['a DataView', () => new DataView(Uint8Array.from([0, ...hello, 0]).buffer, 1, 5)],
  ['an Int16Array', () => new Int16Array(Uint8Array.from([...hello, 0]).buffer)],
  ['an ArrayBuffer', () => hello.slice().buffer],
  [
    'a SharedArrayBuffer',
    () => {
      const shared = new SharedArrayBuffer(5)
      new Uint8Array(shared).set(hello)
      return shared
    },
  ],
  ['a Blob', () => new Blob(['he', hello.subarray(2)])],
  ['an array of numbers', () => [...hello]],
  ['an array of pieces', () => ['he', hello.subarray(2, 3), new Blob(['lo'])]],
  ['an async generator', () => later('h', 101, 108, hello.subarray(3))],
  ['a ReadableStream', () => new Blob(['hello']).stream()],
]

describe('sources of bytes', () => {
  it.each(sources)('write and allocate take %s', async (_, make) => {
    await using pool = new Pool({ limitBytes: 2 ** 21, maxOrder: 0, backup: memoryBackup() })
    const buffer = await pool.allocate(3 * page)
    await buffer.write(0, make())
    expect(await text(buffer, 5)).toBe('hello')
    const filled = await pool.allocate(3 * page, { from: make() })
    expect(await text(filled, 5)).toBe('hello')
    expect(pool.stats().buffers).toBe(2)
  })

  it.each(sources)('fill repeats %s over a range', async (_, make) => {
    await using pool = new Pool({ limitBytes: 2 ** 22, maxOrder: 0 })
    const buffer = await pool.allocate(2 ** 21)
    await buffer.fill(make(), { offset: 0, length: 2 ** 20 + 13 })
    const bytes = new Uint8Array(2 ** 21)
    await buffer.read(0, bytes)
    const period = bytes[5] === 0 ? 6 : 5
    const wrong = bytes.findIndex((byte, at) => byte !== (at < 2 ** 20 + 13 ? (hello[at % period] ?? 0) : 0))
    expect(wrong).toBe(-1)
  })

  it('are refused before anything is written when they tell that they do not fit', async () => {
    await using subject = await setup({ pages: 4 })
    await expect(subject.buffer.write(0, new Blob([new Uint8Array(5 * page)]))).rejects.toThrow(RangeError)
    await expect(subject.buffer.write(4 * page - 1, 'ab')).rejects.toThrow(RangeError)
    await subject.check()
  })

  it('that turn out too long, or fail, leave what was written before, and end their iterable', async () => {
    await using pool = new Pool({ limitBytes: 2 ** 21, maxOrder: 0 })
    const buffer = await pool.allocate(page)
    let ended = false
    async function* tooLong() {
      try {
        for (;;) yield new Uint8Array(1000).fill(7)
      } finally {
        ended = true
      }
    }
    await expect(buffer.write(0, tooLong())).rejects.toThrow(RangeError)
    expect(ended).toBe(true)
    const bytes = new Uint8Array(page)
    await buffer.read(0, bytes)
    expect(bytes.lastIndexOf(7)).toBe(3999)
    const lost = new Error('the line is cut')
    async function* failing() {
      yield 'ab'
      throw lost
    }
    await expect(buffer.write(0, failing())).rejects.toBe(lost)
    expect(await text(buffer, 2)).toBe('ab')
    await expect(pool.allocate(1, { from: failing() })).rejects.toThrow(RangeError)
    await expect(pool.allocate(9, { from: failing() })).rejects.toBe(lost)
    expect(pool.stats().buffers).toBe(1)
  })

  it('that never go on are left by an abort, with the name AbortError [T6]', async () => {
    await using pool = new Pool({ limitBytes: 2 ** 21, maxOrder: 0 })
    const buffer = await pool.allocate(page)
    const controller = new AbortController()
    const reason = new Error('enough')
    const stuck: AsyncIterable<string> = {
      [Symbol.asyncIterator]: () => ({ next: () => new Promise<IteratorResult<string>>(() => {}) }),
    }
    const { signal } = controller
    const calls = [
      buffer.write(0, stuck, { signal }),
      buffer.fill(stuck, { signal }),
      pool.allocate(page, { from: stuck, signal }),
    ]
    controller.abort(reason)
    for (const outcome of await Promise.allSettled(calls)) {
      expect(outcome).toMatchObject({
        status: 'rejected',
        reason: { name: 'AbortError', code: 'EINTR', cause: reason },
      })
    }
    expect(pool.stats().buffers).toBe(1)
  })

  it('that answer at once are left by an abort, too, and what they say to that does not matter', async () => {
    await using pool = new Pool({ limitBytes: 2 ** 21, maxOrder: 0 })
    const buffer = await pool.allocate(page)
    const reason = new Error('enough')
    const endless = (controller: AbortController): Iterable<Uint8Array> => {
      let left = 1_000_000
      setImmediate(() => controller.abort(reason))
      return {
        [Symbol.iterator]: () => ({
          next: () => ({ value: new Uint8Array(0), done: left-- === 0 }),
          return: () => {
            throw new Error('too late')
          },
        }),
      }
    }
    for (const call of ['write', 'fill'] as const) {
      const controller = new AbortController()
      const source = endless(controller)
      const { signal } = controller
      const left = call === 'write' ? buffer.write(0, source, { signal }) : buffer.fill(source, { signal })
      await expect(left).rejects.toMatchObject({ code: 'EINTR', cause: reason })
    }
  })

  it('that are none are a TypeError, and bytes that are none a RangeError', async () => {
    await using pool = new Pool({ limitBytes: 2 ** 21, maxOrder: 0 })
    const buffer = await pool.allocate(page)
    for (const wrong of [undefined, null, 5, {}, Symbol.iterator, [[1]], [undefined]]) {
      await expect(buffer.write(0, wrong as never)).rejects.toThrow(TypeError)
    }
    for (const wrong of [[256], [-1], [1.5]]) {
      await expect(buffer.write(0, wrong)).rejects.toThrow(RangeError)
      await expect(buffer.fill(wrong)).rejects.toThrow(RangeError)
    }
    for (const empty of ['', [], new Blob([])]) await expect(buffer.fill(empty)).rejects.toThrow(RangeError)
  })

  it('and targets that are detached are EFAULT', async () => {
    await using pool = new Pool({ limitBytes: 2 ** 21, maxOrder: 0 })
    const buffer = await pool.allocate(page)
    const bytes = new Uint8Array(10)
    const view = new DataView(new ArrayBuffer(8))
    structuredClone([bytes, view], { transfer: [bytes.buffer, view.buffer] })
    for (const call of [
      buffer.read(0, bytes),
      buffer.write(0, bytes),
      buffer.write(0, view),
      buffer.fill(bytes),
    ]) {
      await expect(call).rejects.toMatchObject({
        code: 'EFAULT',
        message: expect.stringContaining('detached'),
      })
    }
  })

  it('that are detached while a read or a write waits for memory are EFAULT, and the buffer is as it was', async () => {
    await using pool = new Pool({ limitBytes: 4 * page, maxOrder: 0, backup: memoryBackup() })
    const buffer = await pool.allocate(8 * page, { from: 'a' })
    const pin = await buffer.pin({ offset: page, length: 4 * page, write: true })
    const into = new Uint8Array(10)
    const from = new Uint8Array(10).fill(9)
    const calls = Promise.allSettled([buffer.read(0, into), buffer.write(0, from)])
    structuredClone([into, from], { transfer: [into.buffer, from.buffer] })
    pin.release()
    for (const outcome of await calls) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'EFAULT' } })
    }
    expect(await text(buffer, 1)).toBe('a')
  })
})

describe('streams and values', () => {
  it('writable tells how many bytes it wrote, also when it fails', async () => {
    await using pool = new Pool({ limitBytes: 2 ** 21, maxOrder: 0 })
    const buffer = await pool.allocate(10)
    const stream = buffer.writable({ offset: 2 })
    expect(stream.bytesWritten).toBe(0)
    const writer = stream.getWriter()
    await writer.write('abc')
    await writer.write(Uint8Array.of(1, 2))
    expect(stream.bytesWritten).toBe(5)
    await expect(writer.write(new Uint8Array(4))).rejects.toThrow(RangeError)
    expect(stream.bytesWritten).toBe(5)
  })

  it('typed gives the values of a range over the borders of chunks, a chunk at most at a time', async () => {
    await using pool = new Pool({ limitBytes: 8 * page, maxOrder: 0, backup: memoryBackup() })
    const values = Float64Array.from({ length: 5 * (page / 8) }, (_, index) => index / 3)
    const buffer = await pool.allocate(6 * page)
    await buffer.write(4, values)
    const found: number[] = []
    for await (const part of buffer.typed(Float64Array, { offset: 4, length: values.byteLength })) {
      expect(part).toBeInstanceOf(Float64Array)
      expect(part.byteLength).toBeLessThanOrEqual(buffer.chunkBytes)
      found.push(...part)
    }
    expect(found).toEqual([...values])
    expect(() => buffer.typed(Float64Array, { length: 12 })).toThrow(RangeError)
    expect(() => buffer.typed(Float64Array, { pieceBytes: 12 })).toThrow(RangeError)
  })
})
