import { readFileSync } from 'node:fs'
import { memoryBackup, nullBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { Pool } from '../src/index.ts'
import { mebibyte, page, pattern } from './support/bytes.ts'
import { returned } from './support/setup.ts'

/** Resident memory of this process, from the kernel. */
function residentBytes(): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024
}

for (const provider of ['mmap', 'resizable'] as const) {
  describe(`real memory from ${provider}`, () => {
    it('is back with the system after a backup, and at once after a purge and a close', async () => {
      await using backup = nullBackup()
      const pool = new Pool({ limitBytes: 64 * mebibyte, backup, provider })
      const buffer = await pool.allocate(48 * mebibyte)
      const fill = async () => {
        await buffer.fill(1)
        return residentBytes()
      }
      let full = await fill()
      await buffer.backup()
      await returned(pool)
      expect(full - residentBytes()).toBeGreaterThan(40 * mebibyte)
      await buffer.purge()
      full = await fill()
      await buffer.purge()
      expect(full - residentBytes()).toBeGreaterThan(40 * mebibyte)
      full = await fill()
      await pool.close()
      expect(full - residentBytes()).toBeGreaterThan(40 * mebibyte)
    })

    it('stays near the limit while ten times as much passes through', async () => {
      await using backup = nullBackup()
      await using pool = new Pool({ limitBytes: 16 * mebibyte, backup, provider })
      const buffer = await pool.allocate(160 * mebibyte)
      const bytes = pattern(mebibyte)
      globalThis.gc?.()
      const before = residentBytes()
      let peak = 0
      for (let offset = 0; offset < buffer.sizeBytes; offset += mebibyte) {
        await buffer.write(offset, bytes)
        peak = Math.max(peak, residentBytes())
      }
      expect(peak - before).toBeLessThan((16 + 32) * mebibyte)
    })

    it('I6, T16: never shows the bytes of another buffer', async () => {
      await using backup = memoryBackup({ capacityBytes: 64 * mebibyte })
      await using pool = new Pool({ limitBytes: 4 * mebibyte, backup, provider, idleBytes: 4 * mebibyte })
      const secret = await pool.allocate(8 * mebibyte)
      await secret.fill(0xaa)
      for (const size of [2 * mebibyte, mebibyte + page, 3 * page]) {
        const fresh = await pool.allocate(size)
        // One byte makes the chunks; the rest of them must be zeros, also what follows the last byte of the buffer.
        await fresh.write(size - 1, new Uint8Array([1]))
        const found = new Uint8Array(size)
        await fresh.read(0, found)
        expect(found.subarray(0, size - 1).every((byte) => byte === 0)).toBe(true)
        using pin = await fresh.pin()
        expect(pin.spans.every((span) => span.every((byte) => byte !== 0xaa))).toBe(true)
        pin.release()
        await fresh.free()
        await secret.write(0, new Uint8Array(8 * mebibyte).fill(0xaa))
      }
    })
  })
}

describe('page-exact release', () => {
  it('T33: with mmap, single pages leave the process', async () => {
    // Room for all but the last pages: the backup stops inside the chunk.
    await using backup = memoryBackup({ capacityBytes: 500 * page })
    await using pool = new Pool({ limitBytes: 8 * mebibyte, backup, provider: 'mmap' })
    const buffer = await pool.allocate(2 * mebibyte)
    await buffer.fill(1)
    expect((await buffer.backup()).pages).toBe(500)
    expect(pool.stats()).toMatchObject({ residentBytes: 12 * page, strandedBytes: 0, splitChunks: 1 })
  })
})
