import { describe, expect, it } from 'vitest'
import { Pool } from '../src/index.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'
import { FakeProvider } from './support/fake-provider.ts'
import { aborted, returned, setup } from './support/setup.ts'

const code = (error: unknown) => (error as { code?: string } | undefined)?.code

/** A limit under which the whole buffer is restored in one call to the backup. */
const oneCall = 128 * page

describe('restore', () => {
  it('T13, T40: brings all back, leaves no handle in the table, and keeps the stored copies of what is only read', async () => {
    await using subject = await setup()
    const { buffer, backup, pool } = subject
    await buffer.backup()
    expect(await buffer.restore()).toEqual({ pages: 21 })
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([21 * page, 0])
    expect(pool.stats().keptBytes).toBe(21 * page)
    expect(await buffer.restore()).toEqual({ pages: 0 })
    // The second eviction stores nothing.
    expect(await buffer.backup()).toEqual({ pages: 21 })
    expect(backup.stats().backedUpPages).toBe(21)
    await subject.check()
  })

  it('T3: a page that is written to gives up its stored copy, the others keep theirs', async () => {
    await using subject = await setup()
    const { buffer, backup, pool } = subject
    await buffer.backup()
    await buffer.restore()
    await buffer.write(9 * page, pattern(1, 9))
    subject.bytes.set(pattern(1, 9), 9 * page)
    await pool.settled()
    expect(backup.stats().livePages).toBe(13)
    await buffer.backup()
    expect(backup.stats().backedUpPages).toBe(29)
    await subject.check()
  })

  it('T42, T43, T44: fails at every page, goes on, and copies no page in twice', async () => {
    for (let stop = 0; stop < 21; stop++) {
      const faults = [{ method: 'copyPages', calls: [1], stop, code: 'EIO' }] as const
      await using subject = await setup({ faults, limitBytes: oneCall })
      const { buffer, backup, pool } = subject
      await buffer.backup()
      const first = await buffer.restore()
      expect(first.error).toMatchObject({ code: 'EIO', buffer: 'subject', backup: 'memory', page: stop })
      expect(first.pages).toBe(stop)
      expect(pool.verify()).toEqual([])
      expect((await buffer.restore()).error).toBeUndefined()
      expect(backup.stats().copiedPages).toBe(21)
      await subject.check()
    }
  })

  it('T43, T47: fails once for every page and loses nothing', async () => {
    await using subject = await setup()
    const { buffer, backup } = subject
    await buffer.backup()
    let rounds = 0
    for (;;) {
      backup.inject({ method: 'copyPages', times: 1, stop: 1, code: rounds % 2 === 0 ? 'EIO' : 'ENOMEM' })
      const { error } = await buffer.restore()
      rounds++
      if (error === undefined) break
      expect(rounds).toBeLessThan(60)
    }
    expect(backup.stats().copiedPages).toBe(21)
    backup.heal()
    await subject.check()
  })

  it('B13: interrupted in the last chunk and resumed, the buffer goes through another whole cycle', async () => {
    const faults = [{ method: 'copyPages', times: 1, stop: 18, code: 'ETIMEDOUT' }] as const
    await using subject = await setup({ faults, limitBytes: oneCall })
    const { buffer } = subject
    await buffer.backup()
    expect(code((await buffer.restore()).error)).toBe('ETIMEDOUT')
    expect((await buffer.restore()).error).toBeUndefined()
    for (let cycle = 0; cycle < 2; cycle++) {
      expect(await buffer.backup()).toEqual({ pages: 21 })
      expect(await buffer.restore()).toEqual({ pages: 21 })
      await subject.check()
    }
  })

  it('T41: a chunk of stored, empty and resident pages comes back right', async () => {
    await using subject = await setup({ pages: 1 })
    const { pool, backup } = subject
    const mixed = await pool.allocate(8 * page, { label: 'mixed', maxOrder: 3 })
    const bytes = new Uint8Array(8 * page)
    mixed.advise('random')
    for (const index of [1, 2, 5, 6]) {
      await mixed.write(index * page, pattern(page, index))
      bytes.set(pattern(page, index), index * page)
      if (index === 2) await mixed.backup()
    }
    mixed.advise('normal')
    backup.inject({ method: 'backupPages', times: 1, stop: 1, code: 'EIO' })
    await mixed.backup()
    expect(pool.verify()).toEqual([])
    const found = new Uint8Array(8 * page)
    await mixed.read(0, found)
    expect(firstDifference(found, bytes)).toBe(-1)
    await mixed.free()
  })

  it('T41, T42: counts every page that comes, also behind pages that were never written', async () => {
    await using subject = await setup({ pages: 1 })
    const sparse = await subject.pool.allocate(16 * page, { maxOrder: 3 })
    sparse.advise('random')
    for (const index of [0, 1, 3, 6, 9, 15]) await sparse.write(index * page, pattern(page, index))
    await sparse.backup()
    sparse.advise('normal')
    const told: number[] = []
    const { pages, error } = await sparse.restore({ onProgress: ({ pages }) => told.push(pages) })
    expect([pages, error]).toEqual([6, undefined])
    expect(told.at(-1)).toBe(6)
    await sparse.free()
  })

  it('T43, I1: a write that fails over a chunk which is restored in part leaves bytes that stay what they are', async () => {
    await using subject = await setup({ pages: 8 })
    const { buffer, backup, bytes } = subject
    await buffer.backup()
    backup.inject({ method: 'copyPages', times: 1, stop: 5, code: 'EIO' })
    expect((await buffer.restore()).pages).toBe(5)
    const stop = () => {
      throw new Error('enough')
    }
    await expect(buffer.fill(9, { onProgress: stop })).rejects.toThrow('enough')
    const found = new Uint8Array(8 * page)
    await buffer.read(0, found)
    expect(found.every((byte, index) => byte === 9 || byte === bytes[index])).toBe(true)
    // What is in memory and what is stored do not differ.
    bytes.set(found)
    await buffer.backup()
    await subject.check()
  })

  it('T46, I7: never takes more memory than the buffer has', async () => {
    const provider = new FakeProvider()
    await using subject = await setup({ provider, idleBytes: 0 })
    await subject.buffer.backup()
    await returned(subject.pool)
    expect(provider.pagesOut).toBe(0)
    let peak = 0
    const get = provider.get.bind(provider)
    provider.get = (order, request) => {
      const block = get(order, request)
      peak = Math.max(peak, subject.pool.stats().residentBytes / page)
      return block
    }
    await subject.buffer.restore()
    expect(peak).toBeLessThanOrEqual(21 + 8)
    expect(subject.pool.stats().residentBytes).toBe(21 * page)
  })

  it('T6, B19e: an aborted restore is a partial one, and the reason is the cause', async () => {
    await using subject = await setup()
    await subject.buffer.backup()
    const reason = new Error('no longer needed')
    const { pages, error } = await subject.buffer.restore({ signal: aborted(reason) })
    expect(pages).toBe(0)
    expect(error).toMatchObject({ code: 'EINTR', cause: reason })
    await subject.check()
  })

  it('T45, B11: retryMayFail reaches the backup', async () => {
    await using subject = await setup({ limitBytes: oneCall })
    const { backup, buffer } = subject
    const asked: unknown[] = []
    const original = backup.copyPages.bind(backup)
    backup.copyPages = (handles, spans, options) => {
      asked.push(options?.retryMayFail)
      return original(handles, spans, options)
    }
    await buffer.backup()
    await buffer.restore({ retryMayFail: true })
    expect(asked).toEqual([true])
  })

  it('T21: at a lower order when no higher one can be had', async () => {
    const provider = new FakeProvider()
    await using subject = await setup({ provider, idleBytes: 0 })
    await subject.buffer.backup()
    await returned(subject.pool)
    provider.refuse = (order) => order > 1
    await subject.buffer.restore()
    using pin = await subject.buffer.pin()
    expect(Math.max(...pin.spans.map((span) => span.byteLength / page))).toBe(2)
    provider.refuse = () => false
  })

  it('T25, T40: no memory at all changes nothing, and the next call succeeds', async () => {
    const provider = new FakeProvider()
    await using subject = await setup({ provider, idleBytes: 0 })
    await subject.buffer.backup()
    await returned(subject.pool)
    provider.refuse = () => true
    expect(code((await subject.buffer.restore()).error)).toBe('ENOMEM')
    expect(subject.pool.verify()).toEqual([])
    expect(subject.pool.stats().residentBytes).toBe(0)
    provider.refuse = () => false
    await subject.check()
  })

  it('T40: a buffer larger than the limit cannot be resident as a whole', async () => {
    await using subject = await setup({ pages: 100 })
    await expect(subject.buffer.restore()).rejects.toMatchObject({ code: 'ENOMEM', buffer: 'subject' })
    await subject.check()
  })

  it('T86: every access restores by itself, and a failure says where', async () => {
    await using subject = await setup()
    const { buffer, backup, pool } = subject
    await buffer.backup()
    backup.inject({ method: 'copyPages', times: 2, code: 'EBADMSG' })
    await expect(buffer.read(0, new Uint8Array(10))).rejects.toMatchObject({
      code: 'EBADMSG',
      buffer: 'subject',
      page: 0,
    })
    await expect(buffer.pin({ length: 1 })).rejects.toMatchObject({ code: 'EBADMSG' })
    expect(pool.stats()).toMatchObject({ pins: 0, pinnedBytes: 0 })
    await subject.check()
  })

  it('concurrent accesses of one chunk share one restore', async () => {
    await using subject = await setup({ pages: 8 })
    const { buffer, backup } = subject
    await buffer.backup()
    backup.inject({ method: 'copyPages', times: 1, delayMs: 5 })
    const reads = Array.from({ length: 5 }, async (_, index) => {
      const found = new Uint8Array(10)
      await buffer.read(index * page, found)
      expect(found).toEqual(subject.bytes.subarray(index * page, index * page + 10))
    })
    await Promise.all(reads)
    expect(backup.stats().copiedPages).toBe(8)
  })

  it('a write of whole chunks does not restore what it overwrites', async () => {
    await using subject = await setup()
    const { buffer, backup } = subject
    await buffer.backup()
    const fresh = pattern(17 * page + 5, 99)
    await buffer.write(page * 4 - 5, fresh)
    subject.bytes.set(fresh, page * 4 - 5)
    // Only the first chunk was needed for what it keeps.
    expect(backup.stats().copiedPages).toBe(8)
    await subject.check()
  })
})

describe('freeing', () => {
  it('T49, T50, B19: in any state of a restore leaves no page, no handle and no memory', async () => {
    for (let stop = 0; stop <= 21; stop++) {
      await using subject = await setup({ faults: [{ method: 'copyPages', times: 1, stop, code: 'EIO' }] })
      await subject.buffer.backup()
      await subject.buffer.restore()
      await subject.buffer.free()
      expect(subject.backup.stats().livePages).toBe(0)
      expect(subject.pool.stats()).toMatchObject({ inUseBytes: 0, backedUpBytes: 0, buffers: 0 })
    }
  })

  it('T50: a restore ends when its buffer is freed, and does not bring in the rest first', async () => {
    await using subject = await setup({ pages: 64, background: false })
    const { buffer, backup } = subject
    await buffer.backup()
    let freeing: Promise<void> | undefined
    const restoring = buffer.restore({ onProgress: () => (freeing ??= buffer.free()) })
    await expect(restoring).rejects.toMatchObject({ code: 'EBADF' })
    await freeing
    expect(backup.stats().copiedPages).toBeLessThan(64)
  })

  it('T50: ends a call of its buffer that waits for memory, which somebody else has pinned', async () => {
    await using pool = new Pool({
      limitBytes: 8 * page,
      maxOrder: 3,
      provider: 'resizable',
      whenFull: 'wait',
    })
    const other = await pool.allocate(8 * page)
    using _pin = await other.pin()
    const buffer = await pool.allocate(page)
    const reading = buffer.write(0, pattern(page))
    await new Promise(setImmediate)
    const freed = buffer.free()
    await expect(reading).rejects.toMatchObject({ code: 'EBADF' })
    await freed
  })

  it('resolves when the backup has dropped what was stored [T50]', async () => {
    await using subject = await setup({ faults: [{ method: 'drop', delayMs: 5 }] })
    const other = await subject.pool.allocate(8 * page)
    await other.write(0, pattern(8 * page))
    await other.backup()
    expect(subject.backup.stats().livePages).toBe(8)
    await other.free()
    expect(subject.backup.stats().livePages).toBe(0)
  })

  it('T49: never touched, resident, partly backed up, purged', async () => {
    await using subject = await setup()
    const { pool, backup } = subject
    const states = [
      async () => pool.allocate(20 * page),
      async () => {
        const buffer = await pool.allocate(20 * page)
        await buffer.write(0, pattern(20 * page))
        return buffer
      },
      async () => {
        const buffer = await pool.allocate(20 * page)
        await buffer.write(0, pattern(20 * page))
        backup.inject({ method: 'backupPages', times: 1, stop: 11, code: 'ENOSPC' })
        await buffer.backup()
        return buffer
      },
      async () => {
        const buffer = await pool.allocate(20 * page)
        await buffer.write(0, pattern(20 * page))
        await buffer.purge()
        return buffer
      },
    ]
    for (const make of states) await (await make()).free()
    expect(pool.stats()).toMatchObject({ buffers: 1, backedUpBytes: 0 })
    await subject.check()
  })

  it('T19, T50: close waits for a buffer that is being freed already', async () => {
    const subject = await setup({ faults: [{ method: 'copyPages', delayMs: 10 }] })
    const { buffer, pool, backup } = subject
    await buffer.backup()
    const order: string[] = []
    const reading = buffer.read(0, new Uint8Array(page)).then(() => order.push('read'))
    const freeing = buffer.free().then(() => order.push('freed'))
    await pool.close().then(() => order.push('closed'))
    await Promise.all([reading, freeing])
    expect(order).toEqual(['read', 'freed', 'closed'])
    expect(pool.stats()).toMatchObject({ residentBytes: 0, buffers: 0, backedUpBytes: 0, dropFailures: 0 })
    expect(backup.stats().livePages).toBe(0)
    await backup.close()
    expect(backup.stats().leakedPages).toBe(0)
  })

  it('T19, T50: close waits for a running backup and a running restore', async () => {
    for (const method of ['backupPages', 'copyPages'] as const) {
      await using subject = await setup({ faults: [{ method, delayMs: 10 }] })
      const { buffer, pool, backup } = subject
      if (method === 'copyPages') await buffer.backup()
      const running = method === 'copyPages' ? buffer.restore() : buffer.backup()
      const closing = pool.close()
      await running.catch(() => {})
      await closing
      expect(pool.stats()).toMatchObject({ residentBytes: 0, buffers: 0, backedUpBytes: 0 })
      expect(backup.stats().livePages).toBe(0)
      await expect(buffer.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'EBADF' })
    }
  })

  it('I12: a second close does nothing, and everything after it says so', async () => {
    const pool = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider: 'resizable' })
    await pool.allocate(page)
    await pool.close()
    await pool.close()
    await expect(pool.allocate(page)).rejects.toMatchObject({ code: 'EBADF' })
    await expect(pool.shrink(1)).rejects.toMatchObject({ code: 'EBADF' })
  })
})
