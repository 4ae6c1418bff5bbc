import { memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type Advice, Pool, type PoolOptions } from '../src/index.ts'
import { RecordingProvider } from './exhaustive/support/recording-provider.ts'
import { page } from './support/bytes.ts'
import { aborted, returned, setup } from './support/setup.ts'

const make = (options: object) => new Pool(options as PoolOptions)
const base = { limitBytes: 64 * page, maxOrder: 3, provider: 'resizable' }

describe('bad options of a pool', () => {
  const cases: [string, object, RegExp][] = [
    ['no limit', {}, /limitBytes is undefined; it must be a whole number of bytes/],
    ['a negative limit', { limitBytes: -1 }, /limitBytes is -1/],
    ['a fractional limit', { limitBytes: 1e7 + 0.5 }, /limitBytes is 10000000.5/],
    ['a limit that is no number', { limitBytes: Number.NaN }, /limitBytes is NaN/],
    [
      'a limit smaller than a chunk',
      { limitBytes: 2 ** 20 },
      /limitBytes is 1048576; .* one chunk of 2097152 bytes .* lower maxOrder/,
    ],
    [
      'a page size that is no power of two',
      { ...base, pageSizeBytes: 5000 },
      /pageSizeBytes is 5000; it must be a power of two/,
    ],
    ['a fractional order', { ...base, maxOrder: 1.5 }, /maxOrder is 1.5; it must be an integer from 0 to 18/],
    ['an order too high', { ...base, maxOrder: 40 }, /maxOrder is 40/],
    ['an unknown option', { ...base, limit: 5 }, /Pool has no option "limit"; it knows limitBytes/],
    ['an unknown whenFull', { ...base, whenFull: 'panic' }, /whenFull is panic; it can be wait, fail/],
    ['an unknown split', { ...base, split: 'never' }, /split is never; it can be native, always/],
    ['an unknown provider', { ...base, provider: 'malloc' }, /provider is malloc; it can be mmap, resizable/],
    ['a provider that is none', { ...base, provider: {} }, /a page provider needs probe, get, put/],
    ['a negative idle size', { ...base, idleBytes: -5 }, /idleBytes is -5/],
    [
      'a beneficial order that is none',
      { ...base, beneficialOrder: 9 },
      /beneficialOrder is 9; it must be an integer from 0 to 3/,
    ],
  ]
  for (const [what, options, message] of cases) {
    it(`refuses ${what}`, () => expect(() => make(options)).toThrow(message))
  }

  it('refuses to be made without options', () => {
    expect(() => make(undefined as unknown as object)).toThrow(TypeError)
  })
})

describe('bad calls', () => {
  it('T52: sizes that are no whole number of bytes, and options nobody knows', async () => {
    await using pool = make(base)
    for (const size of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 60]) {
      await expect(pool.allocate(size)).rejects.toThrow(RangeError)
    }
    await expect(pool.allocate(page, { sizeBytes: 1 } as object)).rejects.toThrow(
      /allocate has no option "sizeBytes"/,
    )
    await expect(pool.allocate(page, { maxOrder: 4 })).rejects.toThrow(
      /maxOrder is 4; it must be an integer from 0 to 3/,
    )
    await expect(pool.allocate(page, { caching: 'hot' } as object)).rejects.toThrow(/caching is hot/)
    await expect(pool.allocate(page, { caching: 'uncached' })).rejects.toMatchObject({ code: 'ENOSYS' })
    await expect(pool.allocate(page, { deviceMapped: true })).rejects.toMatchObject({ code: 'ENOSYS' })
    // KUnit ttm_tt_init_misaligned: a size that is no multiple of the page is rounded up for memory, not for the user.
    const odd = await pool.allocate(page + 1)
    expect(odd.sizeBytes).toBe(page + 1)
    await odd.write(page, new Uint8Array([5]))
    await expect(odd.write(page + 1, new Uint8Array(1))).rejects.toThrow(RangeError)
    const none = await pool.allocate(0)
    await none.read(0, new Uint8Array(0))
    await none.write(0, new Uint8Array(0))
    expect(await none.restore()).toEqual({ pages: 0 })
    using pin = await none.pin()
    expect(pin.bytes.byteLength).toBe(0)
  })

  it('ranges outside of the buffer, and offsets that are no whole numbers', async () => {
    await using subject = await setup()
    const { buffer } = subject
    for (const offset of [-1, 0.5, Number.NaN, 21 * page]) {
      await expect(buffer.read(offset, new Uint8Array(1))).rejects.toThrow(RangeError)
      await expect(buffer.write(offset, new Uint8Array(1))).rejects.toThrow(RangeError)
      await expect(buffer.pin({ offset, length: 1 })).rejects.toThrow(RangeError)
      await expect(buffer.fill(0, { offset, length: 1 })).rejects.toThrow(RangeError)
      expect(() => buffer.pieces({ offset, length: 1 })).toThrow(RangeError)
    }
    await expect(buffer.pin({ length: -1 })).rejects.toThrow(RangeError)
    await expect(buffer.read(20 * page, new Uint8Array(page + 1))).rejects.toThrow(
      /bytes 81920 to 86017 are outside of buffer subject, which has 86016/,
    )
    await expect(buffer.read(0, [] as unknown as Uint8Array)).rejects.toThrow(/into is not a Uint8Array/)
    await expect(buffer.write(0, 5 as unknown as Uint8Array)).rejects.toThrow(
      /the source of write is no ArrayBufferView/,
    )
    await expect(buffer.fill(256)).rejects.toThrow(/value is 256/)
    await expect(buffer.copyTo({} as never)).rejects.toThrow(/not a PagedBuffer/)
    await expect(buffer.copyTo(buffer, { targetOffset: page })).rejects.toThrow(RangeError)
    expect(() => buffer.pieces({ pieceBytes: 0 })).toThrow(RangeError)
    expect(() => buffer.advise('panic' as Advice)).toThrow(/advice is panic/)
  })

  it('options that nobody knows', async () => {
    await using subject = await setup()
    const { buffer, pool } = subject
    const wrong = { sginal: 1 } as object
    await expect(buffer.read(0, new Uint8Array(1), wrong)).rejects.toThrow(/read has no option "sginal"/)
    await expect(buffer.write(0, new Uint8Array(1), wrong)).rejects.toThrow(/write has no option/)
    await expect(buffer.pin(wrong)).rejects.toThrow(/pin has no option/)
    await expect(buffer.backup(wrong)).rejects.toThrow(/backup has no option/)
    await expect(buffer.restore(wrong)).rejects.toThrow(/restore has no option/)
    await expect(pool.setLimit(64 * page, wrong)).rejects.toThrow(/setLimit has no option/)
  })

  it('options that are none, and values of another type: the message names what was given', async () => {
    await using subject = await setup()
    const { buffer, pool } = subject
    const into = new Uint8Array(1)
    const given = (options: unknown) => options as object
    await expect(buffer.read(0, into, given(null))).rejects.toThrow(
      /read takes an object of options; .* null/,
    )
    for (const wrong of [5, 0, null, 'all']) {
      const refused = new RegExp(`pin takes an object of options; it was given "?${wrong}`)
      await expect(buffer.pin(given(wrong))).rejects.toThrow(refused)
      expect(() => buffer.tryPin(given(wrong))).toThrow(refused)
    }
    expect(pool.stats().pins).toBe(0)
    await expect(pool.allocate(1, given('cached'))).rejects.toThrow(
      /allocate takes an object of options; .* "cached"/,
    )
    await expect(buffer.read(0, into, given({ signal: 5 }))).rejects.toThrow(
      /signal is 5; it must be an AbortSignal/,
    )
    await expect(buffer.pin(given({ signal: {} }))).rejects.toThrow(/signal is \[object Object\]/)
    await expect(buffer.write(0, into, given({ retryMayFail: 1 }))).rejects.toThrow(/retryMayFail is 1/)
    await expect(buffer.backup(given({ onProgress: 'log' }))).rejects.toThrow(
      /onProgress is "log"; it must be a function/,
    )
    expect(buffer.residentBytes).toBe(21 * page)
    await expect(pool.allocate('5' as never)).rejects.toThrow(/sizeBytes is "5"; it must be a whole number/)
    await expect(pool.allocate(5n as never)).rejects.toThrow(/sizeBytes is 5n/)
  })

  it('ranges that begin after the end say so, whatever their length', async () => {
    await using subject = await setup()
    const { buffer } = subject
    const outside = /offset 90000 is outside of buffer subject, which has 86016 bytes/
    await expect(buffer.pin({ offset: 90000 })).rejects.toThrow(outside)
    await expect(buffer.fill(0, { offset: 90000 })).rejects.toThrow(outside)
    await expect(buffer.purge({ offset: 90000 })).rejects.toThrow(outside)
    expect(() => buffer.advise('willneed', { offset: 90000 })).toThrow(outside)
    await expect(buffer.pin({ offset: 1, length: Number.NaN })).rejects.toThrow(/length is NaN/)
    await expect(buffer.pin({ offset: '1' as never, length: 1 })).rejects.toThrow(/offset is "1"/)
    await expect(buffer.copyTo(buffer, { targetOffset: Number.NaN })).rejects.toThrow(/targetOffset is NaN/)
    await expect(buffer.copyTo(buffer, { targetOffset: page })).rejects.toThrow(
      /bytes 4096 to 90112 are outside of buffer subject/,
    )
  })

  it('T55: what is no backup, or one with another page size', async () => {
    const needs = /a backup needs backupPages, copyPages, drop, bytesAvailable/
    for (const given of [{}, null, 'file', 5]) {
      expect(() => make({ ...base, backup: given })).toThrow(needs)
    }
    await using subject = await setup()
    const { pool, buffer } = subject
    await expect(buffer.setBackup({} as never)).rejects.toThrow(needs)
    await expect(pool.allocate(page, { backup: null as never })).rejects.toThrow(needs)
    const methods = { backupPages() {}, copyPages() {}, drop() {}, bytesAvailable() {}, name: 'half' }
    expect(() => make({ ...base, backup: methods })).toThrow(/backup half has no capabilities/)
    const wide = memoryBackup({ pageSizeBytes: 8192, name: 'wide' })
    const differs = /backup wide has pages of 8192 bytes; the pool's have 4096/
    await expect(pool.allocate(page, { backup: wide })).rejects.toThrow(differs)
    await expect(buffer.setBackup(wide)).rejects.toThrow(differs)
    await subject.check()
    await wide.close()
  })

  it('a promise in place of a backup: the message says to await it', () => {
    const needs = /a backup needs backupPages, .*; this is a promise: await it/
    expect(() => make({ ...base, backup: Promise.resolve(memoryBackup()) })).toThrow(needs)
  })

  it('sizes beyond the largest buffer: the message names that', async () => {
    await using pool = make(base)
    const most = /a buffer has at most 17592186044416 bytes, 4294967296 pages of 4096/
    for (const size of [2 ** 60, Number.POSITIVE_INFINITY, 2 ** 44 + 1]) {
      await expect(pool.allocate(size)).rejects.toThrow(most)
      await expect(pool.allocate(0, { growable: true, maxBytes: size })).rejects.toThrow(most)
    }
    await expect(pool.allocate(Number.NaN)).rejects.toThrow(/sizeBytes is NaN; it must be a whole number/)
  })

  it('what does not fit into a buffer that grows: the message says what adds bytes', async () => {
    await using pool = make(base)
    const log = await pool.allocate(2, { growable: true, maxBytes: page, label: 'log' })
    const hint = /buffer log.*; append adds bytes to it/
    await expect(log.write(50, 'x')).rejects.toThrow(hint)
    await expect(log.write(1, 'xyz')).rejects.toThrow(hint)
    await expect(log.write(1, new Blob(['xyz']))).rejects.toThrow(hint)
    const writer = log.writable().getWriter()
    writer.closed.catch(() => {})
    await expect(writer.write('xyz')).rejects.toThrow(hint)
    const other = await pool.allocate(10, { label: 'other' })
    await expect(other.copyTo(log)).rejects.toThrow(hint)
    await expect(other.write(9, 'xyz')).rejects.toThrow(/which has 10 bytes$/)
  })

  it('what is no source of bytes: the message says what was called, and what to take of a Response', async () => {
    await using pool = make(base)
    const log = await pool.allocate(0, { growable: true, maxBytes: page })
    await expect(log.append(5 as never)).rejects.toThrow(
      /the source of append is no ArrayBufferView.*of bytes$/,
    )
    await expect(log.append(new Response('bytes') as never)).rejects.toThrow(
      /the source of append .*; give its body/,
    )
    await log.append(new Response('bytes').body!)
    expect(log.lengthBytes).toBe(5)
  })

  it('what is no class of typed arrays', async () => {
    await using subject = await setup()
    using pin = await subject.buffer.pin({ length: 8 })
    for (const wrong of ['f64', undefined, Date, {}]) {
      const refused = /typed takes a class of typed arrays, such as Float64Array; it was given/
      expect(() => pin.typed(wrong as never)).toThrow(refused)
      expect(() => subject.buffer.typed(wrong as never)).toThrow(refused)
    }
    expect(pin.typed(Float64Array)).toHaveLength(1)
  })

  it('images of a backup that holds none: the message says which does', async () => {
    await using subject = await setup()
    const hint =
      /which holds no images; openFileBackup\({ path, persistent: true }\) opens a backup that holds/
    await expect(subject.buffer.save()).rejects.toThrow(hint)
    await expect(subject.pool.load('subject')).rejects.toThrow(/ENOTSUP: .*holds no images; openFileBackup/)
  })

  it('a copy into a buffer that is freed', async () => {
    await using subject = await setup()
    const target = await subject.pool.allocate(page, { label: 'gone' })
    await target.free()
    await expect(subject.buffer.copyTo(target)).rejects.toMatchObject({ code: 'EBADF', buffer: 'gone' })
  })

  it('use after free, double free, free while pinned', async () => {
    await using subject = await setup()
    const buffer = await subject.pool.allocate(page, { label: 'short lived' })
    const pin = await buffer.pin()
    await expect(buffer.free()).rejects.toMatchObject({ code: 'EBUSY', buffer: 'short lived' })
    await expect(buffer.purge()).rejects.toMatchObject({ code: 'EBUSY' })
    await expect(subject.pool.close()).rejects.toMatchObject({
      code: 'EBUSY',
      message: expect.stringContaining('buffer short lived (1 pins)'),
    })
    pin.release()
    await buffer.free()
    expect(buffer.freed).toBe(true)
    const ended = { code: 'EBADF', buffer: 'short lived' }
    await expect(buffer.free()).rejects.toMatchObject(ended)
    await expect(buffer.read(0, new Uint8Array(1))).rejects.toMatchObject(ended)
    await expect(buffer.write(0, new Uint8Array(1))).rejects.toMatchObject(ended)
    await expect(buffer.pin()).rejects.toMatchObject(ended)
    await expect(buffer.backup()).rejects.toMatchObject(ended)
    await expect(buffer.restore()).rejects.toMatchObject(ended)
    await expect(buffer.purge()).rejects.toMatchObject(ended)
    expect(() => buffer.advise('normal')).toThrow(/is freed/)
    await buffer[Symbol.asyncDispose]()
  })

  it('double release, and use of a pin after its release', async () => {
    await using subject = await setup()
    const pin = await subject.buffer.pin({ length: 10 })
    pin.release()
    expect(pin.released).toBe(true)
    expect(() => pin.release()).toThrow(/EBADF/)
    expect(() => pin.spans).toThrow(/EBADF/)
    expect(() => pin.bytes).toThrow(/EBADF/)
    pin[Symbol.dispose]()
    const wide = await subject.buffer.pin()
    expect(() => wide.bytes).toThrow(/EINVAL: the range is in 4 pieces/)
    wide.release()
    expect(subject.pool.stats().pins).toBe(0)
  })

  it('a signal that is aborted already stops every call before it begins', async () => {
    await using subject = await setup()
    const { buffer } = subject
    await buffer.backup()
    const signal = aborted()
    await expect(buffer.read(0, new Uint8Array(1), { signal })).rejects.toMatchObject({ code: 'EINTR' })
    await expect(buffer.write(0, new Uint8Array(1), { signal })).rejects.toMatchObject({ code: 'EINTR' })
    await expect(buffer.fill(1, { signal })).rejects.toMatchObject({ code: 'EINTR' })
    await expect(buffer.pin({ signal })).rejects.toMatchObject({ code: 'EINTR' })
    await subject.check()
  })

  it('memory of the caller that is detached while a write waits never passes for written', async () => {
    const backup = memoryBackup()
    const pool = new Pool({ limitBytes: 8 * 2 ** 20, backup, provider: 'resizable' })
    const buffer = await pool.allocate(6 * 2 ** 20)
    const bytes = new Uint8Array(6 * 2 ** 20).fill(9)
    const writing = buffer.write(0, bytes)
    structuredClone(bytes, { transfer: [bytes.buffer] })
    await expect(writing).rejects.toThrow(/detached or resized/)
    expect(pool.verify()).toEqual([])
    const found = new Uint8Array(6 * 2 ** 20)
    await buffer.read(0, found)
    expect(found.every((byte) => byte === 0 || byte === 9)).toBe(true)
    await pool.close()
    await backup.close()
  })

  it('calls from within a page provider are refused, those about the pool are answered, and later ones are served', async () => {
    const provider = new RecordingProvider()
    const backup = memoryBackup()
    const pool = new Pool({ limitBytes: 32 * page, maxOrder: 2, idleBytes: 0, provider, backup })
    const options = { caching: 'write-combined', deviceMapped: true } as const
    const buffer = await pool.allocate(8 * page, { label: 'subject', ...options })
    const other = await pool.allocate(8 * page, { label: 'other' })
    await other.fill(7)
    const held = await other.pin({ length: page })
    const hooks = ['get', 'put', 'release', 'setCaching', 'map', 'unmap'] as const
    const entered = new Set<string>()
    const later: Promise<unknown>[] = []
    const refused = {
      code: 'EINVAL',
      message: expect.stringMatching(/page provider .* calls the pool that is/),
    }
    for (const hook of hooks) {
      const original = provider[hook].bind(provider) as (...given: unknown[]) => unknown
      Object.assign(provider, {
        [hook](...given: unknown[]) {
          entered.add(hook)
          expect(pool.stats().pins).toBe(1)
          expect(String(pool.dump())).toContain('other')
          for (const call of [() => other.tryPin(), () => held.release(), () => other.advise('purgeable')]) {
            expect(call).toThrow(expect.objectContaining(refused))
          }
          for (const call of [
            () => other.read(0, new Uint8Array(1)),
            () => other.pin(),
            () => other.free(),
            () => pool.shrink(page),
            () => pool.setLimit(64 * page),
            () => pool.allocate(page),
            () => pool.close(),
          ]) {
            later.push(expect(call()).rejects.toMatchObject(refused))
          }
          queueMicrotask(() => later.push(other.read(0, new Uint8Array(1))))
          return original(...given)
        },
      })
    }
    const pin = await buffer.pin({ write: true, length: 7 * page })
    pin.release()
    await buffer.backup()
    await returned(pool)
    await buffer.read(0, new Uint8Array(8 * page))
    await Promise.all(later)
    for (const hook of hooks) if (hook !== 'release') expect(entered).toContain(hook)
    expect(held.released).toBe(false)
    expect(pool.verify()).toEqual([])
    held.release()
    for (const hook of hooks) Reflect.deleteProperty(provider, hook)
    await pool.close()
    expect([provider.pagesOut, provider.violations]).toEqual([0, []])
    await backup.close()
  })

  it('calls from within a progress callback', async () => {
    await using subject = await setup()
    const { buffer, pool } = subject
    const inner: Promise<unknown>[] = []
    await buffer.backup({
      onProgress: () => {
        inner.push(buffer.read(0, new Uint8Array(page)), buffer.backup(), pool.shrink(page))
        pool.stats()
      },
    })
    await Promise.all(inner)
    await subject.check()
  })
})
