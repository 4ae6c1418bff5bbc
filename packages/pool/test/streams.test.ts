import { describe, expect, it } from 'vitest'
import { type BytesProgress, Pool } from '../src/index.ts'
import { firstDifference, page } from './support/bytes.ts'
import { setup } from './support/setup.ts'

describe('copies, iteration and streams', () => {
  it('fill writes one value over a range', async () => {
    await using subject = await setup()
    await subject.buffer.fill(9, { offset: 100, length: 10 * page })
    subject.bytes.fill(9, 100, 100 + 10 * page)
    await subject.check()
    await subject.buffer.fill(3)
    subject.bytes.fill(3)
    await subject.check()
  })

  it('copyTo copies between buffers, and within one although the ranges overlap', async () => {
    await using subject = await setup({ pages: 80 })
    const { buffer, pool, bytes } = subject
    const other = await pool.allocate(100 * page)
    await buffer.copyTo(other, { offset: 5, length: 70 * page, targetOffset: 77 })
    const found = new Uint8Array(70 * page)
    await other.read(77, found)
    expect(firstDifference(found, bytes.subarray(5, 5 + 70 * page))).toBe(-1)
    await buffer.copyTo(buffer, { offset: 0, length: 60 * page, targetOffset: 1000 })
    bytes.copyWithin(1000, 0, 60 * page)
    await subject.check()
    await buffer.copyTo(buffer, { offset: 5000, length: 60 * page, targetOffset: 10 })
    bytes.copyWithin(10, 5000, 5000 + 60 * page)
    await subject.check()
    await other.free()
  })

  it('copyTo takes ranges that overlap from the right end, also where they are copied in several pieces', async () => {
    await using subject = await setup({ pages: 900, limitBytes: 256 * page })
    const { buffer, bytes } = subject
    await buffer.copyTo(buffer, { offset: 5, length: 800 * page, targetOffset: 50 * page })
    bytes.copyWithin(50 * page, 5, 5 + 800 * page)
    await subject.check()
    await buffer.copyTo(buffer, { offset: 60 * page, length: 800 * page, targetOffset: 7 })
    bytes.copyWithin(7, 60 * page, 860 * page)
    await subject.check()
  })

  it('copyTo and fill tell how far they are, and end when the one who is told throws', async () => {
    await using subject = await setup({ pages: 80, limitBytes: 2048 * page })
    const { pool, buffer, bytes } = subject
    const large = await pool.allocate(700 * page)
    const told: number[] = []
    const onProgress = ({ bytes, totalBytes }: BytesProgress) => told.push(bytes / totalBytes)
    await large.fill(7, { offset: page, length: 600 * page, onProgress })
    expect(told.length).toBeGreaterThan(2)
    expect(told).toEqual([...told].sort((one, other) => one - other))
    expect(told.at(-1)).toBe(1)
    told.length = 0
    await large.copyTo(large, { offset: page, length: 600 * page, targetOffset: 50 * page, onProgress })
    expect(told).toHaveLength(3)
    expect(told.at(-1)).toBe(1)
    const stop = () => {
      throw new Error('enough')
    }
    await expect(buffer.fill(9, { onProgress: stop })).rejects.toThrow('enough')
    await expect(buffer.copyTo(large, { onProgress: stop })).rejects.toThrow('enough')
    expect(pool.verify()).toEqual([])
    const found = new Uint8Array(80 * page)
    await buffer.read(0, found)
    expect(found.every((byte, index) => byte === 9 || byte === bytes[index])).toBe(true)
    await buffer.write(0, bytes)
    await large.free()
  })

  it('T22, T45: retryMayFail of fill, copyTo, pieces and streams reaches the backup and the claims', async () => {
    await using subject = await setup({ pages: 64, background: false })
    const { pool, buffer, backup } = subject
    const other = await pool.allocate(16 * page)
    const asked: (boolean | undefined)[] = []
    const { backupPages, copyPages } = backup
    backup.backupPages = (spans, options) => {
      asked.push(options?.retryMayFail)
      return backupPages.call(backup, spans, options)
    }
    backup.copyPages = (handles, spans, options) => {
      asked.push(options?.retryMayFail)
      return copyPages.call(backup, handles, spans, options)
    }
    const retryMayFail = true
    const writes = [
      () => other.fill(1, { length: page, retryMayFail }),
      () => buffer.copyTo(other, { offset: 8 * page, length: page, retryMayFail }),
      () => other.writable({ retryMayFail }).getWriter().write(new Uint8Array(page)),
    ]
    const reads = [
      () => buffer.pieces({ length: page, retryMayFail }).next(),
      () => buffer.readable({ length: page, retryMayFail }).getReader().read(),
    ]
    for (const [index, call] of [...writes, ...reads].entries()) {
      // All memory is dirty and another's, and the backup is busy for now: whoever is patient would wait.
      await buffer.backup()
      await other.backup()
      const full = await pool.allocate(64 * page)
      await full.write(0, new Uint8Array(64 * page).fill(1))
      asked.length = 0
      backup.inject({ method: 'backupPages', code: 'EAGAIN' })
      // A read needs no memory.
      if (index >= writes.length) await call()
      else
        await expect(call(), String(index)).rejects.toMatchObject({
          code: 'ENOMEM',
          cause: { code: 'EAGAIN' },
        })
      backup.heal()
      await full.free()
      await call()
      expect(new Set(asked), String(index)).toEqual(new Set([true]))
    }
    Object.assign(backup, { backupPages, copyPages })
    await other.free()
  })

  it('pieces and for await give all bytes in order', async () => {
    await using subject = await setup({ pages: 80 })
    const parts: Uint8Array[] = []
    for await (const piece of subject.buffer) parts.push(piece)
    expect(firstDifference(Buffer.concat(parts), subject.bytes)).toBe(-1)
    parts.length = 0
    for await (const piece of subject.buffer.pieces({ offset: 10, length: 1000, pieceBytes: 300 }))
      parts.push(piece)
    expect(parts.map((part) => part.length)).toEqual([300, 300, 300, 100])
    expect(firstDifference(Buffer.concat(parts), subject.bytes.subarray(10, 1010))).toBe(-1)
  })

  it('a pin gives numbers of any type where memory is contiguous', async () => {
    await using subject = await setup()
    {
      using pin = await subject.buffer.pin({ offset: 16, length: 80, write: true })
      pin.typed(Float64Array)[1] = 0.5
      expect(pin.typed(BigInt64Array)).toHaveLength(10)
    }
    subject.bytes.set(new Uint8Array(Float64Array.of(0.5).buffer), 24)
    await subject.check()
    using odd = await subject.buffer.pin({ offset: 3, length: 8 })
    expect(() => odd.typed(Float64Array)).toThrow(
      /offset 3 and length 8 must be multiples of 8 for Float64Array/,
    )
  })

  it('a readable stream pipes into a writable one', async () => {
    await using subject = await setup({ pages: 80 })
    const { buffer, pool, bytes } = subject
    const target = await pool.allocate(80 * page + 5)
    await buffer.readable({ pieceBytes: 5000 }).pipeTo(target.writable({ offset: 5 }))
    const found = new Uint8Array(80 * page)
    await target.read(5, found)
    expect(firstDifference(found, bytes)).toBe(-1)
    await target.free()
  })

  it('a writable stream refuses more than fits', async () => {
    await using subject = await setup()
    const writer = subject.buffer.writable({ offset: 20 * page }).getWriter()
    await expect(writer.write(new Uint8Array(page + 1))).rejects.toThrow(RangeError)
  })

  it('an iteration that is left early, and a stream that is cancelled, leave nothing behind', async () => {
    await using subject = await setup()
    for await (const piece of subject.buffer.pieces({ pieceBytes: 10 })) {
      expect(piece.length).toBe(10)
      break
    }
    const reader = subject.buffer.readable({ pieceBytes: 10 }).getReader()
    await reader.read()
    await reader.cancel()
    expect(subject.pool.stats()).toMatchObject({ pins: 0, pinnedBytes: 0 })
  })
})

describe('memory of copies and streams', () => {
  it('copies through the same staging memory again and again', async () => {
    const pool = new Pool({ limitBytes: 2 ** 23, provider: 'resizable' })
    const buffer = await pool.allocate(2 ** 22)
    await buffer.fill(7)
    const stages = new Set<ArrayBufferLike>()
    const read = buffer.read.bind(buffer)
    buffer.read = (offset, into, options) => {
      stages.add(into.buffer)
      return read(offset, into, options)
    }
    for (let time = 0; time < 5; time++)
      await buffer.copyTo(buffer, { length: 2 ** 21, targetOffset: 2 ** 21 })
    expect(stages.size).toBe(1)
    await pool.close()
  })

  it('fills the memory that a reader brings', async () => {
    const pool = new Pool({ limitBytes: 2 ** 20, maxOrder: 0, provider: 'resizable' })
    const bytes = new Uint8Array(10_000).map((_, index) => index % 251)
    const buffer = await pool.allocate(bytes.byteLength)
    await buffer.write(0, bytes)
    const reader = (buffer.readable() as ReadableStream).getReader({ mode: 'byob' })
    let view = new Uint8Array(3000)
    const found: number[] = []
    for (;;) {
      const { value, done } = await reader.read(view)
      if (done) break
      found.push(...value)
      view = new Uint8Array(value.buffer)
      expect(view.byteLength).toBe(3000)
    }
    expect(Uint8Array.from(found)).toEqual(bytes)
    await pool.close()
  })
})
