import { describe, expect, it } from 'vitest'
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
      const calls = subject.backup.callsOf('backupPages')
      const failed = await buffer.backup({ atomic: true })
      // Whoever has something to store meets the failure, and is as it was.
      expect(failed.error !== undefined).toBe(subject.backup.callsOf('backupPages') > calls)
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
