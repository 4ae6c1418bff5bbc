import { faultyBackup, memoryBackup, type SpillwayError } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type PagedBuffer, Pool } from '../src/index.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'
import { aborted } from './support/setup.ts'

/** Room for four chunks of eight pages. */
const limitBytes = 32 * page

async function chunkBuffers(pool: Pool, count: number): Promise<PagedBuffer[]> {
  const buffers: PagedBuffer[] = []
  for (let index = 0; index < count; index++) {
    const buffer = await pool.allocate(8 * page, { label: `b${index}` })
    await buffer.write(0, pattern(8 * page, index + 1))
    buffers.push(buffer)
  }
  return buffers
}

function make(options: Partial<ConstructorParameters<typeof Pool>[0]> = {}) {
  const backup = faultyBackup(memoryBackup())
  const pool = new Pool({ limitBytes, maxOrder: 3, provider: 'resizable', backup, ...options })
  return { pool, backup }
}

const resident = (buffers: PagedBuffer[]) => buffers.map((buffer) => buffer.residentBytes / page)

describe('the limit', () => {
  it('T57, T59: every resident page counts, and there is never one more', async () => {
    const { pool } = make()
    const buffers = await chunkBuffers(pool, 10)
    expect(pool.stats().residentBytes).toBeLessThanOrEqual(limitBytes)
    for (const [index, buffer] of buffers.entries()) {
      const found = new Uint8Array(8 * page)
      await buffer.read(0, found)
      expect(firstDifference(found, pattern(8 * page, index + 1))).toBe(-1)
      expect(pool.stats().residentBytes).toBeLessThanOrEqual(limitBytes)
    }
    await pool.close()
  })

  it('T60, KUnit ttm_bo_validate_happy_evict: the least recently used leaves, the others stay', async () => {
    const { pool } = make()
    const buffers = await chunkBuffers(pool, 4)
    await buffers[0]!.read(0, new Uint8Array(1))
    await buffers[1]!.read(0, new Uint8Array(1))
    buffers.push(...(await chunkBuffers(pool, 1)))
    expect(resident(buffers)).toEqual([8, 8, 0, 8, 8])
    await pool.close()
  })

  it('T66, KUnit ttm_bo_validate_allowed_only_evict: what is pinned is passed over', async () => {
    const { pool } = make()
    const buffers = await chunkBuffers(pool, 4)
    const pin = await buffers[0]!.pin()
    buffers.push(...(await chunkBuffers(pool, 1)))
    expect(resident(buffers)).toEqual([8, 0, 8, 8, 8])
    expect(pool.dump().lists.unevictable).toBe(8)
    pin.release()
    expect(pool.dump().lists.unevictable).toBe(0)
    await pool.close()
  })

  it('KUnit ttm_bo_multiple_pin_one_unpin: two pins and one release leave it pinned', async () => {
    const { pool } = make()
    const [buffer] = await chunkBuffers(pool, 1)
    const pins = [await buffer!.pin(), await buffer!.pin()]
    pins[0]!.release()
    expect(await pool.shrink(limitBytes)).toBe(0)
    pins[1]!.release()
    expect(await pool.shrink(limitBytes)).toBe(8 * page)
    await pool.close()
  })

  it('KUnit ttm_bo_validate_all_pinned_evict: all pinned is ENOMEM that names who pins what', async () => {
    const { pool } = make({ whenFull: 'fail' })
    const buffers = await chunkBuffers(pool, 4)
    const pins = await Promise.all(buffers.map((buffer) => buffer.pin()))
    const other = await pool.allocate(page, { label: 'other' })
    await expect(other.write(0, new Uint8Array(1))).rejects.toMatchObject({
      code: 'ENOMEM',
      message: expect.stringMatching(/b0 \(1 pins\).*b3 \(1 pins\)/),
    })
    expect(pool.stats()).toMatchObject({ waiters: 0, refusals: 1 })
    expect(pool.verify()).toEqual([])
    for (const pin of pins) pin.release()
    await other.write(0, new Uint8Array(1))
    await pool.close()
  })

  it('T57: with "wait" a claim waits for a pin to be released', async () => {
    const { pool } = make()
    const buffers = await chunkBuffers(pool, 4)
    const pins = await Promise.all(buffers.map((buffer) => buffer.pin()))
    const other = await pool.allocate(page, { label: 'other' })
    let done = false
    const writing = other.write(0, new Uint8Array([7])).then(() => {
      done = true
    })
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(done).toBe(false)
    expect(pool.stats().waiters).toBe(1)
    pins[2]!.release()
    await writing
    expect(resident(buffers)).toEqual([8, 8, 0, 8])
    for (const index of [0, 1, 3]) pins[index]!.release()
    await pool.close()
  })

  it('a claim that waits can be aborted, and holds nothing', async () => {
    const { pool } = make()
    const buffers = await chunkBuffers(pool, 4)
    const pins = await Promise.all(buffers.map((buffer) => buffer.pin()))
    const other = await pool.allocate(page)
    const controller = new AbortController()
    const writing = other.write(0, new Uint8Array(1), { signal: controller.signal })
    await Promise.resolve()
    controller.abort(new Error('tired'))
    await expect(writing).rejects.toMatchObject({ code: 'EINTR', cause: new Error('tired') })
    await expect(other.pin({ signal: aborted() })).rejects.toMatchObject({ code: 'EINTR' })
    expect(pool.stats().waiters).toBe(0)
    expect(pool.verify()).toEqual([])
    for (const pin of pins) pin.release()
    await pool.close()
  })

  it('a range that could never be resident is ENOMEM at once', async () => {
    const { pool } = make()
    const big = await pool.allocate(40 * page, { label: 'big' })
    await expect(big.pin()).rejects.toMatchObject({ code: 'ENOMEM', buffer: 'big', retryable: false })
    // Reading and writing go piece by piece.
    await big.write(0, pattern(40 * page))
    await pool.close()
  })

  it('claims are served in order, and large ones are not overtaken', async () => {
    const { pool } = make()
    const buffers = await chunkBuffers(pool, 4)
    const pins = await Promise.all(buffers.map((buffer) => buffer.pin()))
    const large = await pool.allocate(16 * page, { label: 'large' })
    const small = await pool.allocate(page, { label: 'small' })
    const order: string[] = []
    const claims = [
      large.pin({ write: true }).then((pin) => {
        order.push('large')
        pin.release()
      }),
      small.write(0, new Uint8Array(1)).then(() => order.push('small')),
    ]
    await Promise.resolve()
    for (const pin of pins) {
      pin.release()
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    await Promise.all(claims)
    expect(order).toEqual(['large', 'small'])
    await pool.close()
  })

  it('T57, I9: a small claim for which there would be room does not overtake a large one that waits', async () => {
    const { pool } = make()
    const buffers = await chunkBuffers(pool, 3)
    const pins = await Promise.all(buffers.map((buffer) => buffer.pin()))
    const large = await pool.allocate(16 * page, { label: 'large' })
    const small = await pool.allocate(page, { label: 'small' })
    const order: string[] = []
    const first = large.pin({ write: true }).then((pin) => {
      order.push('large')
      pin.release()
    })
    await new Promise((resolve) => setImmediate(resolve))
    expect(pool.stats()).toMatchObject({ waiters: 1, inUseBytes: 24 * page })
    const second = small.write(0, new Uint8Array(1)).then(() => order.push('small'))
    await new Promise((resolve) => setImmediate(resolve))
    expect([order, pool.stats().waiters]).toEqual([[], 2])
    pins[0]!.release()
    await Promise.all([first, second])
    expect(order).toEqual(['large', 'small'])
    for (const pin of pins.slice(1)) pin.release()
    await pool.close()
  })

  it('T57, I11: claims of one range that are served together hold all of it, and give back what they did not need', async () => {
    const { pool, backup } = make({ background: false })
    const wanted = await pool.allocate(8 * page)
    await wanted.write(0, pattern(8 * page, 9))
    await wanted.backup()
    await chunkBuffers(pool, 4)
    backup.inject({ method: 'backupPages', delayMs: 2 })
    const pins = await Promise.all([wanted.pin(), wanted.pin(), wanted.pin()])
    for (const pin of pins) {
      expect(pin.spans).toHaveLength(1)
      expect(firstDifference(pin.bytes, pattern(8 * page, 9))).toBe(-1)
    }
    expect(pool.verify()).toEqual([])
    pins[0]!.release()
    pins[1]!.release()
    expect(pool.stats()).toMatchObject({ pins: 1, pinnedBytes: 8 * page })
    pins[2]!.release()
    await pool.close()
  })

  it('pins of several overlapping ranges under a tight limit do not wait for each other', async () => {
    const { pool } = make()
    const buffers = await chunkBuffers(pool, 8)
    const wide = await pool.allocate(24 * page)
    await Promise.all(
      Array.from({ length: 30 }, async (_, index) => {
        const buffer = index % 3 === 0 ? wide : buffers[index % 8]!
        const pin = await buffer.pin({ write: index % 2 === 0 })
        await new Promise((resolve) => setTimeout(resolve, index % 4))
        pin.release()
      }),
    )
    expect(pool.verify()).toEqual([])
    await pool.close()
  })

  it('setLimit: an abort ends a lower limit that waits behind another, whichever microtask it comes in [T28]', async () => {
    for (let ticks = 0; ticks < 40; ticks++) {
      const { pool } = make({ whenFull: 'wait' })
      // Pinned beyond the lower limit: it waits until it is aborted.
      const pins = []
      for (const buffer of await chunkBuffers(pool, 2)) pins.push(await buffer.pin())
      const controller = new AbortController()
      const higher = pool.setLimit(64 * page)
      const lower = pool.setLimit(8 * page, { signal: controller.signal }).then(
        () => 'kept',
        (error: { code: string }) => error.code,
      )
      for (let tick = 0; tick < ticks; tick++) await undefined
      controller.abort()
      for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
      const told = await Promise.race([lower, Promise.resolve('waits for ever')])
      expect(told, `after ${ticks} microtasks`).toBe('EINTR')
      await higher
      expect(pool.limitBytes).toBe(64 * page)
      for (const pin of pins) pin.release()
      await pool.close()
    }
  })

  it('setLimit: a lower limit is kept when the promise resolves; a higher one at once', async () => {
    const { pool } = make()
    const buffers = await chunkBuffers(pool, 4)
    await pool.setLimit(16 * page)
    expect(pool.stats().limitBytes).toBe(16 * page)
    expect(pool.stats().residentBytes).toBeLessThanOrEqual(16 * page)
    const pins = await Promise.all([buffers[0]!.pin(), buffers[1]!.pin()])
    await expect(pool.setLimit(8 * page, { signal: AbortSignal.timeout(5) })).rejects.toMatchObject({
      code: 'EINTR',
    })
    expect(pool.stats().limitBytes).toBe(16 * page)
    for (const pin of pins) pin.release()
    await expect(pool.setLimit(7 * page)).rejects.toThrow(RangeError)
    await pool.setLimit(64 * page)
    for (const buffer of buffers) await buffer.read(0, new Uint8Array(8 * page))
    expect(pool.stats().inUseBytes).toBe(32 * page)
    expect(pool.verify()).toEqual([])
    await pool.close()
  })
})

describe('a claim that is refused', () => {
  const twoPages = new Uint8Array(2 * page)
  const refused = async (pool: Pool, label: string) => {
    const wanting = await pool.allocate(2 * page, { label })
    return (await wanting.write(0, twoPages).catch((error: unknown) => error)) as SpillwayError
  }

  it('is told how many bytes its limit has, who pins how many, and what to do; it may have room later', async () => {
    const { pool } = make({ whenFull: 'fail' })
    const pins = await Promise.all((await chunkBuffers(pool, 4)).map((buffer) => buffer.pin()))
    const error = await refused(pool, 'orders')
    expect(error).toMatchObject({ code: 'ENOMEM', buffer: 'orders', retryable: true })
    expect(error.message).toMatch(
      /buffer orders within the limit of 32 pages \(131072 bytes\); 131072 bytes cannot leave, pinned: .*; release pins, or raise the limit$/,
    )
    for (const pin of pins) pin.release()
    await pool.close()
  })

  it('is not worth repeating when all memory is in buffers without a backup', async () => {
    const pool = new Pool({ limitBytes: 32 * page, maxOrder: 3, provider: 'resizable' })
    await chunkBuffers(pool, 4)
    const error = await refused(pool, 'orders')
    expect(error).toMatchObject({ code: 'ENOMEM', retryable: false })
    expect(error.message).toMatch(
      /32 pages \(131072 bytes\) are in buffers that have no backup; free buffers or give them a backup, or raise/,
    )
    await pool.close()
  })

  it('is not worth repeating when the backup is closed', async () => {
    const { pool, backup } = make({ whenFull: 'fail', background: false })
    await chunkBuffers(pool, 4)
    await backup.close()
    const error = await refused(pool, 'orders')
    expect(error).toMatchObject({ code: 'ENOMEM', retryable: false, cause: { code: 'EBADF' } })
    expect(error.message).toMatch(/is closed; close a backup after its pools, or/)
    await pool.close()
  })
})

describe('a limit that cannot sink', () => {
  it('is told how many bytes it has, and what keeps it there', async () => {
    const { pool } = make({ whenFull: 'fail' })
    const pins = await Promise.all((await chunkBuffers(pool, 4)).map((buffer) => buffer.pin()))
    await expect(pool.setLimit(8 * page)).rejects.toThrow(
      /ENOMEM: the limit stays at 32 pages \(131072 bytes\); 131072 bytes cannot leave, pinned: .*; release pins$/,
    )
    for (const pin of pins) pin.release()
    await pool.close()
  })
})

describe('a range that is larger than the limit', () => {
  it('is refused for good, also when what is missing of it would fit', async () => {
    const { pool } = make({ whenFull: 'wait' })
    const buffer = await pool.allocate(40 * page)
    await buffer.write(0, pattern(16 * page))
    await expect(buffer.pin()).rejects.toMatchObject({
      code: 'ENOMEM',
      retryable: false,
      message: expect.stringMatching(
        /needs 40 pages \(163840 bytes\) at once; the limit is 32 pages \(131072 bytes\); take it in parts, or raise/,
      ),
    })
    expect(buffer.residentBytes).toBe(16 * page)
    await pool.close()
  })
})

describe('reclaim', () => {
  it('finds what may leave wherever it is among what may not', async () => {
    const { pool } = make({ limitBytes: 1024 * page, maxOrder: 0, background: false })
    const add = async (pages: number) => {
      const buffer = await pool.allocate(pages * page)
      await buffer.write(0, pattern(pages * page))
      return buffer
    }
    // More chunks than are looked at together.
    const held = await add(700)
    const pin = await held.pin()
    const leaving = await add(324)
    await add(100)
    expect(held.residentBytes).toBe(700 * page)
    expect(leaving.residentBytes).toBeLessThan(324 * page)
    pin.release()
    await pool.close()
  })

  it('stores chunks that are larger than the batch which the backup handles best', async () => {
    const backup = memoryBackup()
    Object.defineProperty(backup, 'capabilities', {
      value: { ...backup.capabilities, preferredBatchPages: 2 },
    })
    const { pool } = make({ backup })
    const buffers = await chunkBuffers(pool, 6)
    for (const [index, buffer] of buffers.entries()) {
      const found = new Uint8Array(8 * page)
      await buffer.read(0, found)
      expect(firstDifference(found, pattern(8 * page, index + 1))).toBe(-1)
    }
    await pool.close()
  })

  it('T73, T77: what is purgeable goes first and is never stored', async () => {
    const { pool, backup } = make()
    const buffers = await chunkBuffers(pool, 4)
    buffers[3]!.advise('purgeable')
    await chunkBuffers(pool, 1)
    expect(resident(buffers)).toEqual([8, 8, 8, 0])
    expect(buffers[3]!.purged).toBe(true)
    expect(backup.stats().backedUpPages).toBe(0)
    expect(pool.stats().purgedPages).toBe(8)
    const found = new Uint8Array(page).fill(1)
    await buffers[3]!.read(0, found)
    expect(found).toEqual(new Uint8Array(page))
    await pool.close()
  })

  it('clean chunks go before dirty ones, without I/O', async () => {
    // The background would store a dirty one meanwhile.
    const { pool, backup } = make({ background: false })
    const buffers = await chunkBuffers(pool, 4)
    await buffers[3]!.backup()
    await buffers[3]!.restore()
    await chunkBuffers(pool, 1)
    expect(resident(buffers)).toEqual([8, 8, 8, 0])
    expect(backup.stats().backedUpPages).toBe(8)
    expect(pool.stats()).toMatchObject({ evictedCleanPages: 8 })
    await pool.close()
  })

  it('T75: direct reclaim frees what is needed and no more than a batch', async () => {
    const { pool } = make({ limitBytes: 64 * page })
    const buffers = await chunkBuffers(pool, 8)
    const other = await pool.allocate(page)
    await other.write(0, new Uint8Array(1))
    expect(resident(buffers).filter((pages) => pages === 0)).toHaveLength(1)
    await pool.close()
  })

  it('B12, I9, I10: a failing backup keeps the order, is not asked again at once, and is back when it heals', async () => {
    const { pool, backup } = make({ whenFull: 'fail' })
    const buffers = await chunkBuffers(pool, 4)
    const other = await pool.allocate(8 * page, { label: 'other' })
    backup.inject({ method: 'backupPages', code: 'EIO' })
    const calls = () => backup.callsOf('backupPages')
    await expect(other.write(0, pattern(page))).rejects.toMatchObject({
      code: 'ENOMEM',
      cause: { code: 'EIO' },
    })
    const asked = calls()
    for (let index = 0; index < 20; index++) {
      await expect(other.write(0, pattern(page))).rejects.toMatchObject({ code: 'ENOMEM' })
    }
    expect(calls() - asked).toBeLessThan(10)
    expect(pool.verify()).toEqual([])
    expect(resident(buffers)).toEqual([8, 8, 8, 8])
    backup.heal()
    await new Promise((resolve) => setTimeout(resolve, 1100))
    await other.write(0, pattern(8 * page))
    // The coldest went, as before the failures.
    expect(resident(buffers)).toEqual([0, 8, 8, 8])
    await pool.close()
  })

  it('waits through failures that pass', async () => {
    const { pool, backup } = make()
    await chunkBuffers(pool, 4)
    backup.inject({ method: 'backupPages', times: 2, code: 'EAGAIN' })
    const other = await pool.allocate(8 * page)
    await other.write(0, pattern(8 * page))
    expect(pool.stats().backupFailures).toBe(2)
    await pool.close()
  })

  it('T22, T45: with retryMayFail a call waits for no failure to pass, not even behind one that does', async () => {
    const backup = faultyBackup(memoryBackup())
    const asked: (boolean | undefined)[] = []
    const store = backup.backupPages.bind(backup)
    backup.backupPages = (spans, options) => {
      asked.push(options?.retryMayFail)
      return store(spans, options)
    }
    const pool = new Pool({ limitBytes, maxOrder: 3, provider: 'resizable', backup, background: false })
    const buffers = await chunkBuffers(pool, 4)
    const stored = await pool.allocate(8 * page)
    await stored.write(0, pattern(8 * page, 9))
    await stored.backup()
    await buffers[0]!.write(0, pattern(8 * page, 1))
    asked.length = 0
    backup.inject({ method: 'backupPages', code: 'EAGAIN' })
    const other = await pool.allocate(8 * page)
    const refused = { code: 'ENOMEM', cause: { code: 'EAGAIN' } }
    const options = { retryMayFail: true }
    await expect(other.write(0, pattern(page), options)).rejects.toMatchObject(refused)
    // Once, or again where the processor was away for longer than the back-off.
    expect(new Set(asked)).toEqual(new Set([true]))
    await expect(other.pin({ write: true, ...options })).rejects.toMatchObject(refused)
    const patient = other.write(0, pattern(8 * page, 5))
    await expect(stored.pin({ length: page, ...options })).rejects.toMatchObject(refused)
    expect(pool.stats()).toMatchObject({ waiters: 1, refusals: 3 })
    // A read needs no memory for it.
    const bypassed = new Uint8Array(page)
    await stored.read(0, bypassed, options)
    expect(firstDifference(bypassed, pattern(8 * page, 9).subarray(0, page))).toBe(-1)
    expect(pool.stats().waiters).toBe(1)
    backup.heal()
    await patient
    const found = new Uint8Array(8 * page)
    await stored.read(0, found, options)
    expect(firstDifference(found, pattern(8 * page, 9))).toBe(-1)
    expect(pool.verify()).toEqual([])
    await pool.close()
  })

  it('a full backup bounds only what is not in memory: copies of resident pages are given up', async () => {
    const backup = memoryBackup({ capacityBytes: 16 * page })
    const pool = new Pool({ limitBytes, maxOrder: 3, provider: 'resizable', backup, whenFull: 'fail' })
    const buffers = await chunkBuffers(pool, 5)
    expect(backup.stats().livePages).toBe(8)
    for (let round = 0; round < 3; round++) {
      for (const [index, buffer] of buffers.entries()) {
        const found = new Uint8Array(8 * page)
        await buffer.read(0, found)
        expect(firstDifference(found, pattern(8 * page, index + 1))).toBe(-1)
        expect(pool.verify()).toEqual([])
      }
    }
    await chunkBuffers(pool, 1)
    const seventh = await pool.allocate(8 * page)
    await expect(seventh.write(0, pattern(8 * page))).rejects.toMatchObject({
      code: 'ENOMEM',
      cause: { code: 'ENOSPC' },
    })
    await pool.close()
    await backup.close()
  })

  it('T61, I9: with nothing to evict it ends at once', async () => {
    const pool = new Pool({ limitBytes, maxOrder: 3, provider: 'resizable' })
    await chunkBuffers(pool, 4)
    const other = await pool.allocate(page)
    await expect(other.write(0, new Uint8Array(1))).rejects.toMatchObject({
      code: 'ENOMEM',
      message: expect.stringContaining('no backup'),
    })
    expect(await pool.shrink(limitBytes)).toBe(0)
    await pool.close()
  })

  it('chunks that were only read as zeros are evicted without a backup', async () => {
    const pool = new Pool({ limitBytes, maxOrder: 3, provider: 'resizable' })
    const buffer = await pool.allocate(80 * page)
    for (let index = 0; index < 80; index += 8) {
      using pin = await buffer.pin({ offset: index * page, length: page })
      expect(pin.bytes[0]).toBe(0)
    }
    await pool.close()
  })

  it('T65: shrinking again and again ends, with all memory given up', async () => {
    const { pool } = make()
    const buffers = await chunkBuffers(pool, 8)
    let steps = 0
    while ((await pool.shrink(5 * page)) > 0) steps++
    expect(steps).toBeLessThan(20)
    expect(pool.stats().residentBytes).toBe(0)
    expect(resident(buffers)).toEqual(new Array(8).fill(0))
    await pool.close()
  })

  it('what is being stored for a claim that gives up stays in memory, clean [T28]', async () => {
    const { pool, backup } = make({ idleBytes: 0, background: false })
    const buffers = await chunkBuffers(pool, 4)
    backup.inject({ method: 'backupPages', times: 1, delayMs: 5 })
    const other = await pool.allocate(8 * page)
    const controller = new AbortController()
    const writing = other.write(0, pattern(8 * page), { signal: controller.signal })
    await new Promise((resolve) => setTimeout(resolve, 1))
    controller.abort()
    await expect(writing).rejects.toMatchObject({ code: 'EINTR' })
    await pool.settled()
    expect(resident(buffers)).toEqual(new Array(4).fill(8))
    expect(pool.stats()).toMatchObject({ idleBytes: 0, dirtyBytes: 24 * page })
    await pool.close()
  })

  it('a pin that comes while a chunk is written back keeps it, clean, in memory', async () => {
    const { pool, backup } = make()
    const [buffer] = await chunkBuffers(pool, 1)
    backup.inject({ method: 'backupPages', times: 1, delayMs: 10 })
    const running = buffer!.backup()
    await new Promise((resolve) => setTimeout(resolve, 2))
    const reading = await buffer!.pin()
    const writing = buffer!.pin({ write: true })
    expect((await running).pages).toBe(0)
    const pin = await writing
    pin.bytes[0] = 42
    pin.release()
    reading.release()
    await pool.settled()
    expect(backup.stats().livePages).toBe(0)
    const found = new Uint8Array(1)
    await buffer!.backup()
    await buffer!.read(0, found)
    expect(found[0]).toBe(42)
    await pool.close()
  })
})
