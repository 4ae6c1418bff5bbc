import { memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { Pool } from '../src/index.ts'
import { firstDifference, mebibyte, page, pattern } from './support/bytes.ts'
import { returned } from './support/setup.ts'

for (const provider of ['mmap', 'resizable'] as const) {
  describe(`a pool on ${provider} memory`, () => {
    it('reads back what was written, at any offset and length', async () => {
      await using backup = memoryBackup()
      await using pool = new Pool({ limitBytes: 8 * mebibyte, backup, provider })
      const buffer = await pool.allocate(5 * mebibyte + 123)
      const bytes = pattern(3 * mebibyte + 77)
      await buffer.write(1000, bytes)
      const found = new Uint8Array(bytes.length + 2000)
      await buffer.read(0, found)
      const expected = new Uint8Array(found.length)
      expected.set(bytes, 1000)
      expect(firstDifference(found, expected)).toBe(-1)
      await buffer.free()
      expect(pool.stats()).toMatchObject({ inUseBytes: 0, pinnedBytes: 0, dirtyBytes: 0, buffers: 0 })
    })

    it('keeps a buffer four times the limit, and never more memory than the limit', async () => {
      await using backup = memoryBackup()
      await using pool = new Pool({ limitBytes: 4 * mebibyte, backup, provider })
      const buffer = await pool.allocate(16 * mebibyte)
      const bytes = pattern(16 * mebibyte, 7)
      await buffer.write(0, bytes)
      expect(pool.stats().residentBytes).toBeLessThanOrEqual(4 * mebibyte)
      const found = new Uint8Array(16 * mebibyte)
      await buffer.read(0, found)
      expect(firstDifference(found, bytes)).toBe(-1)
      for (let index = 0; index < 200; index++) {
        const offset = Math.floor((index * 7919 * page) % (16 * mebibyte - 3 * page))
        const part = new Uint8Array(2 * page + 5)
        await buffer.read(offset + 3, part)
        expect(firstDifference(part, bytes.subarray(offset + 3, offset + 3 + part.length))).toBe(-1)
        expect(pool.stats().residentBytes).toBeLessThanOrEqual(4 * mebibyte)
      }
      await buffer.free()
      expect(backup.stats().livePages).toBe(0)
    })

    it('backs up, restores and purges a whole buffer', async () => {
      await using backup = memoryBackup()
      await using pool = new Pool({ limitBytes: 8 * mebibyte, backup, provider })
      const buffer = await pool.allocate(3 * mebibyte + page)
      const bytes = pattern(3 * mebibyte + page)
      await buffer.write(0, bytes)
      expect(await buffer.backup()).toEqual({ pages: 769 })
      expect(buffer.residentBytes).toBe(0)
      await returned(pool)
      expect(pool.stats()).toMatchObject({ residentBytes: 0, backedUpBytes: 769 * page })
      expect(await buffer.backup()).toEqual({ pages: 0 })
      expect(await buffer.restore()).toEqual({ pages: 769 })
      const pin = await buffer.pin()
      expect(pin.spans.map((span) => span.length / page)).toEqual([512, 256, 1])
      let offset = 0
      for (const span of pin.spans) {
        expect(firstDifference(span, bytes.subarray(offset, offset + span.length))).toBe(-1)
        offset += span.length
      }
      pin.release()
      expect(await buffer.backup()).toEqual({ pages: 769 })
      expect(backup.stats().backedUpPages).toBe(769)
      expect(await buffer.purge()).toEqual({ pages: 769 })
      expect(backup.stats().livePages).toBe(0)
      const found = new Uint8Array(10)
      await buffer.read(page, found)
      expect(found).toEqual(new Uint8Array(10))
    })
  })
}
