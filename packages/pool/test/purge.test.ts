import { describe, expect, it } from 'vitest'
import { firstDifference, page } from './support/bytes.ts'
import { type Setup, setup } from './support/setup.ts'

/** Chunks of 8 pages; the range begins and ends in the middle of one. */
const first = 5
const end = 27
const pages = 40

async function expectPurged({ buffer, pool, bytes }: Setup): Promise<void> {
  const expected = bytes.slice().fill(0, first * page, end * page)
  const found = new Uint8Array(bytes.byteLength)
  await buffer.read(0, found)
  expect(firstDifference(found, expected)).toBe(-1)
  expect(pool.verify()).toEqual([])
  bytes.set(expected)
}

describe('T36: purge of a range', () => {
  const range = { offset: first * page, length: (end - first) * page }
  const states: [string, (subject: Setup) => Promise<void>, { stored: number; resident: number }][] = [
    ['in memory and not stored', async () => {}, { stored: 0, resident: 24 }],
    ['stored only', async ({ buffer }) => void (await buffer.backup()), { stored: 18, resident: 0 }],
    [
      'in memory and stored',
      async ({ buffer }) => {
        await buffer.backup()
        await buffer.restore()
      },
      { stored: 18, resident: 24 },
    ],
    [
      'stopped half way while it came in',
      async ({ buffer, backup }) => {
        await buffer.backup()
        backup.inject({ method: 'copyPages', times: 1, stop: 7, code: 'EIO' })
        await buffer.restore()
      },
      { stored: 18, resident: 0 },
    ],
  ]
  for (const [state, prepare, after] of states) {
    it(`${state}: its pages are zeros and not stored, the others are untouched`, async () => {
      await using subject = await setup({ pages, background: false })
      const { buffer, backup } = subject
      await prepare(subject)
      expect(await buffer.purge(range)).toEqual({ pages: end - first })
      expect(backup.stats().livePages).toBe(after.stored)
      expect(buffer.residentBytes).toBe(after.resident * page)
      await expectPurged(subject)
      // And through the backup once more.
      await buffer.backup()
      await expectPurged(subject)
      await buffer.purge({ offset: 32 * page })
      await buffer.purge({ length: 32 * page })
      expect(backup.stats().livePages).toBe(0)
    })
  }

  it('gives up a chunk whose parts are given up one after the other', async () => {
    await using subject = await setup({ pages: 16, background: false })
    const { buffer, backup } = subject
    await buffer.backup()
    await buffer.restore()
    for (let at = 0; at < 16; at += 4) await buffer.purge({ offset: at * page, length: 4 * page })
    expect(backup.stats().livePages).toBe(0)
    expect(buffer.residentBytes).toBe(0)
    subject.bytes.fill(0)
    await subject.check()
  })

  it('gives up a chunk that is not stored when its parts were given up one after the other', async () => {
    await using subject = await setup({ pages: 16, background: false })
    const { buffer, pool } = subject
    // What is written between them is kept.
    await buffer.purge({ length: 4 * page })
    await buffer.write(2 * page, Uint8Array.of(7))
    await buffer.purge({ offset: 4 * page })
    const found = new Uint8Array(16 * page)
    await buffer.read(0, found)
    expect(found.indexOf(7)).toBe(2 * page)
    expect(found.reduce((sum, byte) => sum + byte, 0)).toBe(7)
    await buffer.purge({ offset: 6 * page })
    await buffer.purge({ length: 6 * page })
    expect(buffer.residentBytes).toBe(0)
    subject.bytes.fill(0)
    await subject.check()
    expect(pool.verify()).toEqual([])
  })

  it('can be written to again', async () => {
    await using subject = await setup({ pages: 16, background: false })
    const { buffer, bytes } = subject
    await buffer.backup()
    await buffer.restore()
    await buffer.purge({ offset: 2 * page, length: 3 * page })
    bytes.fill(0, 2 * page, 5 * page)
    await buffer.write(3 * page, new Uint8Array(page).fill(7))
    bytes.fill(7, 3 * page, 4 * page)
    await buffer.backup()
    await subject.check()
  })

  it('is refused while a chunk of it is pinned, and not because of pins elsewhere', async () => {
    await using subject = await setup({ pages: 32, background: false })
    const { buffer } = subject
    {
      using pin = await buffer.pin({ offset: 0, length: page })
      await expect(buffer.purge({ offset: 2 * page, length: page })).rejects.toMatchObject({
        code: 'EBUSY',
        page: 2,
      })
      expect(await buffer.purge({ offset: 8 * page, length: 8 * page })).toEqual({ pages: 8 })
      expect(firstDifference(pin.bytes, subject.bytes.subarray(0, page))).toBe(-1)
    }
    subject.bytes.fill(0, 8 * page, 16 * page)
    await subject.check()
  })

  it('must be whole pages of the buffer; its end may be the buffer’s', async () => {
    await using subject = await setup({ pages: 16 })
    const { buffer, pool } = subject
    for (const bad of [
      { offset: 1 },
      { length: page - 1 },
      { offset: page, length: 16 * page },
      { offset: -page },
    ]) {
      await expect(buffer.purge(bad)).rejects.toBeInstanceOf(RangeError)
    }
    await expect(buffer.purge({ ofset: 0 } as object)).rejects.toBeInstanceOf(TypeError)
    await subject.check()
    const odd = await pool.allocate(3 * page + 5)
    await odd.write(0, new Uint8Array(3 * page + 5).fill(9))
    expect(await odd.purge({ offset: 2 * page })).toEqual({ pages: 2 })
    const found = new Uint8Array(page + 5)
    await odd.read(2 * page, found)
    expect(found.every((byte) => byte === 0)).toBe(true)
    await odd.free()
  })
})
