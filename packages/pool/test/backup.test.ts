import { type ErrorCode, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { machineOf } from '../src/api/pool.ts'
import { Pool } from '../src/index.ts'
import { page, pattern } from './support/bytes.ts'
import { FakeProvider } from './support/fake-provider.ts'
import { aborted, returned, setup } from './support/setup.ts'

const code = (error: unknown) => (error as { code?: string } | undefined)?.code

describe('backup', () => {
  it('T55: a backup is not replaced while a restore that stopped half way has pages in it only', async () => {
    await using other = memoryBackup({ name: 'other' })
    await using subject = await setup({ pages: 8 })
    const { buffer, backup } = subject
    await buffer.backup()
    backup.inject({ method: 'copyPages', times: 1, stop: 3, code: 'EIO' })
    expect((await buffer.restore()).pages).toBe(3)
    // All of it is in one chunk of memory, and five of its pages are not there yet.
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([8 * page, 0])
    await expect(buffer.setBackup(other)).rejects.toMatchObject({ code: 'EBUSY', backup: 'memory' })
    await expect(buffer.setBackup(undefined)).rejects.toMatchObject({ code: 'EBUSY' })
    await subject.check()
    await buffer.setBackup(other)
    expect(backup.stats().livePages).toBe(0)
    await buffer.backup()
    expect(other.stats().livePages).toBe(8)
    await subject.check()
  })

  it('T34: room that is about to be released counts as room', async () => {
    await using subject = await setup({ pages: 8, capacityPages: 8 })
    const { buffer, backup } = subject
    await buffer.backup()
    await buffer.read(0, new Uint8Array(1))
    backup.inject({ method: 'drop', times: 1, delayMs: 5 })
    // What is stored of it is out of date, and is still being dropped when the next call begins.
    await buffer.write(0, subject.bytes)
    expect(await buffer.backup()).toEqual({ pages: 8 })
    await subject.check()
  })

  it('T63, I9: two calls that store all or nothing of one buffer do not wait for each other', async () => {
    await using subject = await setup({ pages: 24 })
    const { buffer, backup, bytes } = subject
    await buffer.backup()
    await buffer.restore()
    await buffer.write(8 * page, bytes.subarray(8 * page))
    backup.inject({ method: 'backupPages', times: 3, delayMs: 5 })
    const first = buffer.backup({ atomic: true })
    await new Promise((resolve) => setTimeout(resolve, 2))
    // The first call has passed this chunk already.
    await buffer.write(0, bytes.subarray(0, 8 * page))
    const second = buffer.backup({ atomic: true })
    const results = await Promise.all([first, second])
    expect(results.map(({ error }) => error)).toEqual([undefined, undefined])
    expect([results[0]!.pages + results[1]!.pages, buffer.residentBytes]).toEqual([24, 0])
    expect(backup.stats().livePages).toBe(24)
    await subject.check()
  })

  it('T63: what was reserved for a call that stored nothing is room again', async () => {
    await using subject = await setup({ pages: 24, capacityPages: 30 })
    const { buffer, backup } = subject
    expect(backup.capabilities.reserves).toBe(true)
    backup.inject({ method: 'backupPages', times: 1, stop: 11, code: 'EIO' })
    expect((await buffer.backup({ atomic: true })).pages).toBe(0)
    expect(await backup.bytesAvailable()).toBe(30 * page)
    expect((await buffer.backup({ atomic: true })).pages).toBe(24)
    expect(await backup.bytesAvailable()).toBe(6 * page)
    await subject.check()
  })

  it('I3, T38: what was stored of a chunk that is pinned meanwhile is given up when its backup stops inside it', async () => {
    await using subject = await setup({ pages: 8 })
    const { buffer, backup, pool } = subject
    backup.inject({ method: 'backupPages', times: 1, delayMs: 5, stop: 3, code: 'EIO' })
    const storing = buffer.backup()
    await new Promise((resolve) => setTimeout(resolve, 1))
    const pin = await buffer.pin()
    const { pages, error } = await storing
    expect([pages, error === undefined]).toEqual([0, false])
    await pool.settled()
    expect(backup.stats().livePages).toBe(0)
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([8 * page, 0])
    expect(pool.verify()).toEqual([])
    pin.release()
    expect((await buffer.backup()).pages).toBe(8)
    await subject.check()
  })

  it('T13, T39: leaves a handle for each page that was there, and nothing for pages that were never touched', async () => {
    await using subject = await setup()
    const { pool, backup } = subject
    const sparse = await pool.allocate(24 * page)
    await sparse.write(9 * page, pattern(page))
    expect(await sparse.backup()).toEqual({ pages: 8 })
    expect(sparse.residentBytes).toBe(0)
    expect(sparse.backedUpBytes).toBe(8 * page)
    expect(await subject.buffer.backup()).toEqual({ pages: 21 })
    expect(backup.stats().livePages).toBe(29)
    await sparse.free()
    expect(backup.stats().livePages).toBe(21)
    await subject.check()
  })

  it('T32, T56: of a buffer without pages is 0 pages, and so is the second backup', async () => {
    await using subject = await setup()
    const empty = await subject.pool.allocate(50 * page)
    expect(await empty.backup()).toEqual({ pages: 0 })
    await subject.buffer.backup()
    expect(await subject.buffer.backup()).toEqual({ pages: 0 })
    await empty.free()
  })

  it('T33: gives memory to the system within a moment, not to the free lists', async () => {
    const provider = new FakeProvider()
    await using subject = await setup({ provider, idleBytes: 64 * page })
    await subject.buffer.backup()
    const { inUseBytes, idleBytes, retainedBytes, residentBytes } = subject.pool.stats()
    expect([inUseBytes, idleBytes]).toEqual([0, 0])
    expect(residentBytes).toBe(retainedBytes)
    await returned(subject.pool)
    expect(subject.pool.stats()).toMatchObject({ residentBytes: 0, idleBytes: 0 })
    expect(provider.pagesOut).toBe(0)
  })

  it('keeps the memory that it frees for a moment: a restore at once takes none from the system', async () => {
    const provider = new FakeProvider()
    await using subject = await setup({ provider, idleBytes: 0 })
    const { buffer, pool } = subject
    await buffer.backup()
    const { pagesOut } = provider
    expect(pool.stats().retainedBytes).toBe(21 * page)
    provider.refuse = () => true
    expect(await buffer.restore()).toEqual({ pages: 21 })
    provider.refuse = () => false
    expect(provider.pagesOut).toBe(pagesOut)
    expect(pool.stats()).toMatchObject({ retainedBytes: 0, residentBytes: 21 * page })
    await buffer.backup()
    // Who asks for memory to go has all of it go at once.
    expect(await pool.shrink(21 * page)).toBe(21 * page)
    expect(pool.stats()).toMatchObject({ retainedBytes: 0, residentBytes: 0 })
    await subject.check()
  })

  it('counts what it frees within the limit until it has gone', async () => {
    const provider = new FakeProvider()
    await using subject = await setup({ pages: 32, limitBytes: 32 * page, provider, idleBytes: 0 })
    const { buffer, pool } = subject
    await buffer.backup()
    expect(pool.stats().retainedBytes).toBe(32 * page)
    let peakBytes = 0
    const get = provider.get.bind(provider)
    provider.get = (order, request) => {
      const block = get(order, request)
      peakBytes = Math.max(peakBytes, pool.stats().residentBytes)
      return block
    }
    const other = await pool.allocate(32 * page, { maxOrder: 0 })
    await other.fill(2)
    expect(peakBytes).toBeLessThanOrEqual(32 * page)
    expect(pool.stats().residentBytes).toBe(32 * page)
    await other.free()
    await subject.check()
  })

  it('T33: with split "always" the backup gets pages one by one', async () => {
    await using subject = await setup({ split: 'always' })
    const lengths: number[] = []
    const { backup } = subject
    const original = backup.backupPages.bind(backup)
    backup.backupPages = (spans, options) => {
      lengths.push(...spans.map((span) => span.byteLength / page))
      return original(spans, options)
    }
    expect(await subject.buffer.backup()).toEqual({ pages: 21 })
    expect(lengths).toEqual(new Array(21).fill(1))
    await subject.check()
  })

  it('T38: hands chunks over whole and gets them back whole', async () => {
    await using subject = await setup()
    const lengths: number[] = []
    const { backup, buffer } = subject
    const original = backup.backupPages.bind(backup)
    backup.backupPages = (spans, options) => {
      lengths.push(...spans.map((span) => span.byteLength / page))
      return original(spans, options)
    }
    await buffer.backup()
    expect(lengths).toEqual([8, 8, 4, 1])
    await buffer.restore()
    using pin = await buffer.pin()
    expect(pin.spans.map((span) => span.byteLength / page)).toEqual([8, 8, 4, 1])
    expect(subject.pool.stats().splitChunks).toBe(0)
  })

  it('T32, T37, T38: stops at any page, keeps the rest usable, and the next call goes on', async () => {
    for (let stop = 0; stop <= 21; stop++) {
      await using subject = await setup({ faults: [{ method: 'backupPages', times: 1, stop, code: 'EIO' }] })
      const { buffer, backup, pool } = subject
      const first = await buffer.backup()
      expect(first.pages).toBe(Math.min(stop, 21))
      if (stop < 21) {
        expect(first.error).toMatchObject({ code: 'EIO', buffer: 'subject', page: stop, backup: 'memory' })
      }
      expect(backup.stats().livePages).toBe(stop)
      expect(buffer.residentBytes).toBe((21 - stop) * page)
      expect(pool.verify()).toEqual([])
      await subject.check()
      await buffer.backup()
      expect(buffer.residentBytes).toBe(0)
      await subject.check()
    }
  })

  it('T34: refuses before it does anything when the backup is full, when there is none, when pages may not leave', async () => {
    await using subject = await setup({ capacityPages: 8, pages: 8 })
    const { buffer, pool } = subject
    await buffer.backup()
    const other = await pool.allocate(8 * page, { label: 'other' })
    await other.write(0, pattern(8 * page))
    await expect(other.backup()).rejects.toMatchObject({ code: 'EBUSY', buffer: 'other', backup: 'memory' })
    expect(other.residentBytes).toBe(8 * page)
    // T36: purge works without room.
    expect(await other.purge()).toEqual({ pages: 8 })
    await other.free()

    const provider = new FakeProvider({ capabilities: { swappable: false } })
    await using fixed = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider, backup: subject.backup })
    const stuck = await fixed.allocate(8 * page)
    await stuck.write(0, pattern(page))
    await expect(stuck.backup()).rejects.toMatchObject({ code: 'EBUSY' })
    await expect(stuck.purge()).rejects.toMatchObject({ code: 'EBUSY' })

    await using alone = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider: 'resizable' })
    const lonely = await alone.allocate(page)
    await expect(lonely.backup()).rejects.toMatchObject({ code: 'EINVAL' })
  })

  it.each([false, true])(
    'T34: a page that came while the call waited may not leave either, atomic %s',
    async (atomic) => {
      const subject = await setup({ pages: 16 })
      const { buffer, pool, backup, bytes } = subject
      await buffer.backup()
      await buffer.write(0, bytes.subarray(0, 8 * page))
      const held = Promise.withResolvers<void>()
      const { backupPages } = backup
      backup.backupPages = async (spans, options) => {
        await held.promise
        return backupPages.call(backup, spans, options)
      }
      const first = buffer.backup()
      // Waits for what the first call stores.
      const second = buffer.backup({ atomic })
      await new Promise(setImmediate)
      await pool.setProvider(new FakeProvider({ capabilities: { swappable: false } }))
      await buffer.write(8 * page, bytes.subarray(8 * page))
      held.resolve()
      expect(await first).toEqual({ pages: 8 })
      expect(await second).toMatchObject({ pages: 0, error: { code: 'EBUSY', page: 8 } })
      expect(buffer.residentBytes).toBe(8 * page)
      await subject.check()
      await subject[Symbol.asyncDispose]()
      expect(machineOf(pool).residents.unevictablePages).toBe(0)
    },
  )

  it('T34, T38: a chunk that was stopped inside leaves no count of pages that may not leave', async () => {
    const provider = new FakeProvider({ capabilities: { swappable: false } })
    await using subject = await setup({ pages: 8, provider })
    const { pageOut, residents } = machineOf(subject.pool)
    const buffer = residents.buffers.values().next().value!
    subject.backup.inject({ method: 'backupPages', times: 1, stop: 3, code: 'EIO' })
    const result = await pageOut.run(buffer.store!, [buffer.table.chunkAt(0)], { destination: 'system' })
    expect(result).toMatchObject({ evictedPages: 3, error: { code: 'EIO' } })
    expect(residents.unevictablePages).toBe(5)
    await subject.check()
  })

  it('T36: purge gives up memory and stored pages, and what is gone reads as zeros', async () => {
    await using subject = await setup()
    const { buffer, backup, pool } = subject
    await buffer.backup()
    await buffer.read(0, new Uint8Array(8 * page))
    expect(await buffer.purge()).toEqual({ pages: 21 })
    expect(buffer.purged).toBe(true)
    expect(backup.stats().livePages).toBe(0)
    await returned(pool)
    expect(pool.stats()).toMatchObject({ residentBytes: 0, purgedPages: 21 })
    subject.bytes.fill(0)
    await subject.check()
  })

  it('T48: restoring what was purged says so, once', async () => {
    await using subject = await setup()
    await subject.buffer.purge()
    expect(code((await subject.buffer.restore()).error)).toBe('ENOENT')
    expect(await subject.buffer.restore()).toEqual({ pages: 0 })
    subject.bytes.fill(0)
  })

  it('T7: passes writeback on', async () => {
    await using subject = await setup()
    const { backup, buffer } = subject
    const asked: unknown[] = []
    const original = backup.backupPages.bind(backup)
    backup.backupPages = (spans, options) => {
      asked.push(options?.writeback)
      return original(spans, options)
    }
    await buffer.backup({ writeback: true })
    expect(asked).toEqual([true])
  })

  it('T6: an aborted backup is a partial one', async () => {
    await using subject = await setup()
    const reason = new Error('no longer needed')
    const { pages, error } = await subject.buffer.backup({ signal: aborted(reason) })
    expect(pages).toBe(0)
    expect(error).toMatchObject({ code: 'EINTR', cause: reason })
    await subject.check()
  })

  it('T62, T67: pinned pages stay and are told of; the others leave', async () => {
    await using subject = await setup()
    const pin = await subject.buffer.pin({ offset: 8 * page, length: page })
    const { pages, error } = await subject.buffer.backup()
    expect(pages).toBe(13)
    expect(error).toMatchObject({ code: 'EBUSY', page: 8 })
    expect(subject.buffer.residentBytes).toBe(8 * page)
    pin.release()
    await subject.check()
  })

  it('tells how far it is', async () => {
    await using subject = await setup()
    const seen: number[] = []
    await subject.buffer.backup({ onProgress: ({ pages, totalPages }) => seen.push(pages, totalPages) })
    expect(seen.slice(-2)).toEqual([21, 21])
    const failing = await subject.buffer.restore({
      onProgress: () => {
        throw new Error('my own mistake')
      },
    })
    expect(failing.error).toMatchObject({ message: 'my own mistake' })
    await subject.check()
  })
})

describe('backup, all or nothing', () => {
  const codes: ErrorCode[] = ['ENOSPC', 'EIO']
  it('T63, T64: a failure at any page leaves all in memory and nothing in the backup', async () => {
    for (const failure of codes) {
      for (let stop = 0; stop < 21; stop++) {
        await using subject = await setup({
          faults: [{ method: 'backupPages', times: 1, stop, code: failure }],
        })
        const { buffer, backup, pool } = subject
        const { pages, error } = await buffer.backup({ atomic: true })
        expect(pages).toBe(0)
        expect(error).toMatchObject({ code: failure })
        expect(buffer.residentBytes).toBe(21 * page)
        expect(backup.stats().livePages).toBe(0)
        expect(pool.verify()).toEqual([])
        expect(await buffer.backup({ atomic: true })).toEqual({ pages: 21 })
        await subject.check()
      }
    }
  })

  it('T63: is not begun when the backup says that there is no room for all', async () => {
    await using subject = await setup({ capacityPages: 20 })
    const { buffer, backup } = subject
    const { pages, error } = await buffer.backup({ atomic: true })
    expect(pages).toBe(0)
    expect(error).toMatchObject({ code: 'ENOSPC', buffer: 'subject', backup: 'memory' })
    expect(backup.callsOf('backupPages')).toBe(0)
    expect((await buffer.backup()).pages).toBe(20)
    await subject.check()
  })

  it('T63: a pin anywhere refuses it', async () => {
    await using subject = await setup()
    const pin = await subject.buffer.pin({ offset: 20 * page })
    const { pages, error } = await subject.buffer.backup({ atomic: true })
    expect([pages, code(error)]).toEqual([0, 'EBUSY'])
    pin.release()
  })

  it('T63: chunks that were clean already stay until all is stored', async () => {
    await using subject = await setup()
    const { buffer, backup } = subject
    await buffer.backup()
    await buffer.read(0, new Uint8Array(16 * page))
    await buffer.write(0, pattern(page, 3))
    subject.bytes.set(pattern(page, 3))
    backup.inject({ method: 'backupPages', times: 1, code: 'EIO' })
    const resident = buffer.residentBytes
    expect(code((await buffer.backup({ atomic: true })).error)).toBe('EIO')
    expect(buffer.residentBytes).toBe(resident)
    expect((await buffer.backup({ atomic: true })).error).toBeUndefined()
    expect(buffer.residentBytes).toBe(0)
    await subject.check()
  })
})

describe('a backup that breaks its contract', () => {
  it('T2: too many handles, too few without an error, a rejection: pages stay where they are', async () => {
    await using subject = await setup()
    const { backup, buffer } = subject
    const original = backup.backupPages.bind(backup)
    backup.backupPages = async () => ({ handles: [{ first: 1, count: 50 }] })
    expect((await buffer.backup()).error).toMatchObject({ code: 'EIO' })
    backup.backupPages = async () => ({ handles: [] })
    expect((await buffer.backup()).error).toMatchObject({ code: 'EIO' })
    backup.backupPages = async () => ({ handles: [{ first: 0, count: 1 }] })
    expect((await buffer.backup()).error).toBeInstanceOf(RangeError)
    backup.backupPages = () => Promise.reject(new Error('unheard of'))
    expect((await buffer.backup()).error).toMatchObject({ message: 'unheard of' })
    backup.backupPages = original
    await subject.check()
  })
})

describe('buffers with backups of their own', () => {
  it('T83, T85: each goes to its own, and a backup is shared without harm', async () => {
    await using one = memoryBackup({ name: 'one' })
    await using two = memoryBackup({ name: 'two' })
    await using pool = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider: 'resizable', backup: one })
    await using other = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider: 'resizable', backup: one })
    const buffers = [
      await pool.allocate(8 * page),
      await pool.allocate(8 * page, { backup: two }),
      await other.allocate(8 * page),
    ]
    for (const [index, buffer] of buffers.entries()) {
      await buffer.write(0, pattern(8 * page, index + 1))
      await buffer.backup()
    }
    expect([one.stats().livePages, two.stats().livePages]).toEqual([16, 8])
    await buffers[2]!.free()
    expect([one.stats().livePages, two.stats().livePages]).toEqual([8, 8])
    for (const [index, buffer] of buffers.slice(0, 2).entries()) {
      const found = new Uint8Array(8 * page)
      await buffer.read(0, found)
      expect(found).toEqual(pattern(8 * page, index + 1))
      await buffer.free()
    }
  })

  it('T55, T85: a buffer gets another backup when no page is only in the one it has', async () => {
    await using other = memoryBackup({ name: 'other' })
    await using subject = await setup()
    const { buffer, backup, pool } = subject
    await buffer.backup()
    await expect(buffer.setBackup(other)).rejects.toMatchObject({
      code: 'EBUSY',
      buffer: 'subject',
      backup: 'memory',
    })
    backup.inject({ method: 'copyPages', times: 1, stop: 3, code: 'EIO' })
    await buffer.restore()
    await expect(buffer.setBackup(other)).rejects.toMatchObject({ code: 'EBUSY' })
    await buffer.restore()
    await buffer.setBackup(other)
    expect(backup.stats().livePages).toBe(0)
    expect(pool.verify()).toEqual([])
    await buffer.backup()
    expect(other.stats().livePages).toBe(21)
    await subject.check()
    await buffer.restore()
    await buffer.setBackup(undefined)
    await expect(buffer.backup()).rejects.toMatchObject({ code: 'EINVAL' })
    await expect(buffer.setBackup(memoryBackup({ pageSizeBytes: 8192 }))).rejects.toThrow(RangeError)
    await subject.check()
  })

  it('T55, T85: a backup with another page size is refused, and handles are never left behind', async () => {
    await using wrong = memoryBackup({ pageSizeBytes: 8192 })
    await using pool = new Pool({
      limitBytes: 64 * page,
      maxOrder: 3,
      provider: 'resizable',
      pageSizeBytes: 4096,
    })
    await expect(pool.allocate(page, { backup: wrong })).rejects.toThrow(/8192 bytes; the pool's have 4096/)
    expect(() => new Pool({ limitBytes: 64 * page, pageSizeBytes: 4096, backup: wrong })).toThrow(RangeError)
  })
})
