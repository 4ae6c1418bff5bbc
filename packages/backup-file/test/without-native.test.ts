import { expect, it, vi } from 'vitest'
import { openFileBackup } from '../src/index.ts'
import { expectHeld, pattern, store } from './pages.ts'
import { scratchDirectory } from './places.ts'

vi.mock('@spillway/native', () => {
  throw new Error('not installed')
})

const directory = scratchDirectory()

it('works without @spillway/native, and says what it goes without', async () => {
  await using backup = await openFileBackup({ directory, keepFreeBytes: 0 })
  expect(backup.stats()).toMatchObject({
    io: { engine: 'threads', reason: expect.stringContaining('@spillway/native cannot be loaded') },
    direct: { used: true },
    holes: { used: false, reason: expect.stringContaining('@spillway/native cannot be loaded') },
  })
  expect(backup.capabilities.reserves).toBe(false)
  await expect(backup.reserve(4096)).rejects.toMatchObject({ code: 'ENOSYS' })
  const bytes = pattern(1000, 1)
  await expectHeld(backup, await store(backup, bytes), bytes)
})

it('sends resizable memory directly, and ordinary memory through staging', async () => {
  await using backup = await openFileBackup({ directory, keepFreeBytes: 0 })
  const bytes = pattern(512, 2)
  const aligned = new Uint8Array(new ArrayBuffer(bytes.byteLength, { maxByteLength: bytes.byteLength }))
  aligned.set(bytes)
  const handles = await store(backup, aligned)
  expect(backup.stats()).toMatchObject({ directBytes: bytes.byteLength, stagedBytes: 0 })
  await expectHeld(backup, handles, bytes)
  expect(backup.stats()).toMatchObject({ directBytes: bytes.byteLength, stagedBytes: bytes.byteLength })
  expect(backup.stats().stagingBytes).toBeLessThanOrEqual(8 * 2 ** 20)
})

it("refuses io 'uring' with ENOSYS and says why", async () => {
  await expect(openFileBackup({ directory, io: 'uring' })).rejects.toMatchObject({
    code: 'ENOSYS',
    message: expect.stringContaining('cannot be loaded'),
  })
})
