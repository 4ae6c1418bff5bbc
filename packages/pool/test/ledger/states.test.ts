import { memoryBackup } from '@spillway/core'
import { describe, expect, it, vi } from 'vitest'
import type { PagedBuffer, Pool } from '../../src/index.ts'
import { firstDifference, page, pattern } from '../support/bytes.ts'
import { code, expectFilled, expectZeros, type Subject, subjectPool } from './support/pools.ts'

/** Under this limit a buffer of 21 pages, in chunks of 8, 8, 4 and 1, is restored in one call to the backup. */
const limitBytes = 128 * page
const pages = 21

interface State {
  readonly name: string
  make(subject: Subject): Promise<PagedBuffer>
  /** Pages that each operation moves from this state. */
  readonly backup: number
  readonly restore: number
  readonly purge: number
  readonly content: 'bytes' | 'zeros'
}

const states: readonly State[] = [
  {
    name: 'never touched',
    make: ({ pool }) => pool.allocate(pages * page),
    backup: 0,
    restore: 0,
    purge: 0,
    content: 'zeros',
  },
  {
    name: 'resident',
    make: ({ filled }) => filled(pages),
    backup: 21,
    restore: 0,
    purge: 21,
    content: 'bytes',
  },
  {
    name: 'backed up',
    async make({ filled }) {
      const buffer = await filled(pages)
      expect(await buffer.backup()).toEqual({ pages: 21 })
      return buffer
    },
    backup: 0,
    restore: 21,
    purge: 21,
    content: 'bytes',
  },
  {
    name: 'backed up in part',
    async make({ filled, backup }) {
      const buffer = await filled(pages)
      backup.inject({ method: 'backupPages', times: 1, stop: 11, code: 'ENOMEM' })
      expect((await buffer.backup()).pages).toBe(11)
      return buffer
    },
    backup: 10,
    restore: 11,
    purge: 21,
    content: 'bytes',
  },
  {
    name: 'restored in part',
    async make({ filled, backup }) {
      const buffer = await filled(pages)
      await buffer.backup()
      backup.inject({ method: 'copyPages', times: 1, stop: 11, code: 'ETIMEDOUT' })
      expect((await buffer.restore()).pages).toBe(11)
      return buffer
    },
    // All memory that it has leaves again, without I/O: the stored copies were kept.
    backup: 21,
    restore: 10,
    purge: 21,
    content: 'bytes',
  },
  {
    name: 'purged',
    async make({ filled }) {
      const buffer = await filled(pages)
      await buffer.purge()
      return buffer
    },
    backup: 0,
    restore: 0,
    purge: 0,
    content: 'zeros',
  },
]

/** All pages are somewhere, each in one place, and the content is what it was. */
async function expectWhole(subject: Subject, buffer: PagedBuffer, content: State['content']): Promise<void> {
  expect(subject.pool.verify()).toEqual([])
  expect(buffer.residentBytes + buffer.backedUpBytes).toBeLessThanOrEqual(pages * page)
  if (content === 'bytes') await expectFilled(buffer)
  else await expectZeros(buffer)
}

for (const state of states) {
  describe(`T51, I8: a buffer that is ${state.name}`, () => {
    it('T37, T39: can be backed up', async () => {
      await using subject = subjectPool({ limitBytes })
      const buffer = await state.make(subject)
      expect(await buffer.backup()).toEqual({ pages: state.backup })
      expect(buffer.residentBytes).toBe(0)
      expect(await buffer.backup()).toEqual({ pages: 0 })
      await expectWhole(subject, buffer, state.content)
    })

    it('T63: can be backed up all or nothing', async () => {
      await using subject = subjectPool({ limitBytes })
      const buffer = await state.make(subject)
      subject.backup.inject({ method: 'backupPages', times: 1, stop: 1, code: 'EIO' })
      const before = buffer.residentBytes
      const failed = await buffer.backup({ atomic: true })
      if (failed.error !== undefined) expect([failed.pages, buffer.residentBytes]).toEqual([0, before])
      subject.backup.heal()
      expect((await buffer.backup({ atomic: true })).error).toBeUndefined()
      expect(buffer.residentBytes).toBe(0)
      await expectWhole(subject, buffer, state.content)
    })

    it('T27, T40: can be restored', async () => {
      await using subject = subjectPool({ limitBytes })
      const buffer = await state.make(subject)
      const wasPurged = buffer.purged
      const { pages: restored, error } = await buffer.restore()
      expect([restored, code(error)]).toEqual([state.restore, wasPurged ? 'ENOENT' : undefined])
      expect(buffer.backedUpBytes).toBe(0)
      expect(await buffer.restore()).toEqual({ pages: 0 })
      await expectWhole(subject, buffer, state.content)
    })

    it('T36, T54, I12: can be purged, once and again', async () => {
      await using subject = subjectPool({ limitBytes })
      const buffer = await state.make(subject)
      expect(await buffer.purge()).toEqual({ pages: state.purge })
      expect(await buffer.purge()).toEqual({ pages: 0 })
      expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([0, 0])
      expect(subject.backup.stats().livePages).toBe(0)
      await expectWhole(subject, buffer, 'zeros')
    })

    it('T49, T50: can be freed, and nothing is left', async () => {
      await using subject = subjectPool({ limitBytes })
      const buffer = await state.make(subject)
      await buffer.free()
      expect(subject.backup.stats().livePages).toBe(0)
      expect(subject.pool.stats()).toMatchObject({ inUseBytes: 0, backedUpBytes: 0, chunks: 0, buffers: 0 })
    })

    it('T60: can be shrunk away', async () => {
      await using subject = subjectPool({ limitBytes })
      const buffer = await state.make(subject)
      await subject.pool.shrink(limitBytes)
      expect(buffer.residentBytes).toBe(0)
      await expectWhole(subject, buffer, state.content)
    })

    it('T86: is brought in by every kind of access, and by nothing else', async () => {
      const target = new Uint8Array(pages * page)
      const accesses: ((buffer: PagedBuffer, pool: Pool) => Promise<void>)[] = [
        (buffer) => buffer.read(0, target),
        async (buffer) => {
          using pin = await buffer.pin()
          let done = 0
          for (const span of pin.spans) {
            target.set(span, done)
            done += span.byteLength
          }
        },
        async (buffer) => {
          let done = 0
          for await (const piece of buffer.pieces({ pieceBytes: 3 * page + 5 })) {
            target.set(piece, done)
            done += piece.byteLength
          }
        },
        async (buffer, pool) => {
          await using copy = await pool.allocate(pages * page)
          await buffer.copyTo(copy)
          await copy.read(0, target)
        },
        async (buffer) => {
          let done = 0
          for await (const piece of buffer.readable()) {
            target.set(piece, done)
            done += piece.byteLength
          }
        },
      ]
      for (const access of accesses) {
        await using subject = subjectPool({ limitBytes })
        const buffer = await state.make(subject)
        const before = buffer.residentBytes
        subject.pool.stats()
        subject.pool.dump()
        subject.pool.verify()
        expect(buffer.residentBytes).toBe(before)
        target.fill(0xee)
        await access(buffer, subject.pool)
        const expected = state.content === 'bytes' ? pattern(pages * page) : new Uint8Array(pages * page)
        expect(firstDifference(target, expected)).toBe(-1)
      }
    })

    it('B6, T86: keeps its other bytes when one is written', async () => {
      await using subject = subjectPool({ limitBytes })
      const buffer = await state.make(subject)
      const expected = state.content === 'bytes' ? pattern(pages * page) : new Uint8Array(pages * page)
      for (const offset of [0, 9 * page + 17, 20 * page + 4095]) {
        await buffer.write(offset, new Uint8Array([42]))
        expected[offset] = 42
      }
      const found = new Uint8Array(pages * page)
      await buffer.read(0, found)
      expect(firstDifference(found, expected)).toBe(-1)
    })
  })
}

describe('a backup that stops', () => {
  it('B19i, T37: a partial backup is tried again, and again, until all is stored', async () => {
    await using subject = subjectPool({ limitBytes })
    const { backup } = subject
    const buffer = await subject.filled(pages)
    backup.inject({ method: 'backupPages', stop: 2, code: 'ENOSPC' })
    let stored = 0
    for (let rounds = 0; stored < pages; rounds++) {
      const result = await buffer.backup()
      expect(result.pages).toBeGreaterThan(0)
      stored += result.pages
      expect(backup.stats().livePages).toBe(stored)
      expect(subject.pool.verify()).toEqual([])
      expect(rounds).toBeLessThan(pages)
    }
    expect([stored, buffer.residentBytes]).toEqual([pages, 0])
    backup.heal()
    await expectFilled(buffer)
  })
})

describe('content that is given up', () => {
  it('T48, B19d: pages that are overwritten whole give up their stored copies', async () => {
    await using subject = subjectPool({ limitBytes })
    const buffer = await subject.filled(pages)
    await buffer.backup()
    await buffer.write(0, pattern(pages * page, 2))
    await subject.pool.settled()
    expect(subject.backup.stats().livePages).toBe(0)
    await expectFilled(buffer, 2)
  })

  it('T48, T77, B19d: advised purgeable while it is backed up, it is still all there until it is purged, and then no handle is left', async () => {
    await using subject = subjectPool({ limitBytes: 32 * page })
    const buffer = await subject.filled(pages)
    await buffer.backup()
    buffer.advise('purgeable')
    await expectFilled(buffer)
    expect(await subject.pool.shrink(32 * page)).toBeGreaterThan(0)
    expect(buffer.purged).toBe(true)
    await subject.pool.settled()
    expect(subject.backup.stats().livePages).toBe(0)
    await expectZeros(buffer)
    expect(code((await buffer.restore()).error)).toBe('ENOENT')
  })
})

describe('buffers and their backups', () => {
  it('B19a, T55: options that are refused leave nothing behind', async () => {
    await using subject = subjectPool()
    const wrong = memoryBackup({ pageSizeBytes: 8192 })
    const { pool } = subject
    await expect(pool.allocate(page, { backup: wrong })).rejects.toThrow(RangeError)
    await expect(pool.allocate(page, { maxOrder: 99 })).rejects.toThrow(RangeError)
    await expect(pool.allocate(page, { caching: 'odd' as 'cached' })).rejects.toThrow(TypeError)
    expect(pool.stats().buffers).toBe(0)
    expect(pool.dump().backups).toEqual([])
    expect(wrong.stats()).toMatchObject({ livePages: 0, backedUpPages: 0 })
    await wrong.close()
  })

  it('T55, T85: a backup that was closed too early is EBADF, never zeros, and the buffer can still be freed', async () => {
    const own = memoryBackup({ name: 'own' })
    await using subject = subjectPool()
    const buffer = await subject.filled(pages, 1, { backup: own })
    await buffer.backup()
    await own.close()
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    expect(own.stats().leakedPages).toBe(pages)
    expect(code((await buffer.restore()).error)).toBe('EBADF')
    await expect(buffer.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'EBADF' })
    await buffer.free()
    expect(warned.mock.calls).toMatchObject([[expect.any(String), { code: 'SPILLWAY_DROP_FAILED' }]])
    warned.mockRestore()
  })

  it('T53: each stage of bringing a page in may fail, and leaves the gauges as they were', async () => {
    await using subject = subjectPool({ limitBytes, idleBytes: 0 })
    const { pool, provider, backup } = subject
    const buffer = await subject.filled(pages, 1, { caching: 'uncached', deviceMapped: true })
    await buffer.backup()
    const before = pool.stats()
    const gauges = ({
      residentBytes,
      inUseBytes,
      dirtyBytes,
      pinnedBytes,
      pins,
      waiters,
    }: typeof before) => ({
      residentBytes,
      inUseBytes,
      dirtyBytes,
      pinnedBytes,
      pins,
      waiters,
    })
    provider.refuse = () => true
    await expect(buffer.pin()).rejects.toMatchObject({ code: 'ENOMEM' })
    provider.refuse = () => false
    expect(gauges(pool.stats())).toEqual(gauges(before))
    provider.failCaching = true
    await expect(buffer.pin()).rejects.toThrow('caching refused')
    provider.failCaching = false
    expect(gauges(pool.stats())).toEqual(gauges(before))
    backup.inject({ method: 'copyPages', times: 1, stop: 0, code: 'EIO' })
    await expect(buffer.pin()).rejects.toMatchObject({ code: 'EIO' })
    provider.mapsUntilFailure = 1
    await expect(buffer.pin()).rejects.toMatchObject({ code: 'EFAULT' })
    provider.mapsUntilFailure = Number.POSITIVE_INFINITY
    expect(pool.stats()).toMatchObject({ pins: 0, pinnedBytes: 0, waiters: 0 })
    expect(pool.verify()).toEqual([])
    await expectFilled(buffer)
  })
})
