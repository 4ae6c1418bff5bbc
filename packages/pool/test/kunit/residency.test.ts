import { describe, expect, it } from 'vitest'
import type { PagedBuffer } from '../../src/index.ts'
import { expectFilled, subjectPool } from '../ledger/support/pools.ts'
import { page } from '../support/bytes.ts'
import { aborted } from '../support/setup.ts'

/** The kernel's cases for buffer objects: reserving is pinning, and the LRU is the order in which chunks are evicted. */
const resident = (buffers: PagedBuffer[]) => buffers.map((buffer) => buffer.residentBytes / page)

describe('pins and the order of eviction', () => {
  it('ttm_bo_unreserve_basic, T66: a released buffer is the last to be evicted', async () => {
    await using subject = subjectPool()
    const buffers = [await subject.filled(8, 1), await subject.filled(8, 2), await subject.filled(8, 3)]
    ;(await buffers[0]!.pin()).release()
    await subject.pool.shrink(16 * page)
    expect(resident(buffers)).toEqual([8, 0, 0])
  })

  it('ttm_bo_unreserve_pinned, T66: what is still pinned stays on the unevictable list', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    const pins = [await buffer.pin(), await buffer.pin()]
    pins[0]!.release()
    expect(subject.pool.dump().lists).toMatchObject({ unevictable: 8, dirty: 0 })
    pins[1]!.release()
    expect(subject.pool.dump().lists).toMatchObject({ unevictable: 0, dirty: 8 })
  })

  it('ttm_bo_unreserve_bulk, T66: the chunks of a pin move together, and keep their order among themselves', async () => {
    await using subject = subjectPool()
    const wide = await subject.filled(24, 1)
    const other = await subject.filled(8, 2)
    ;(await wide.pin()).release()
    await subject.pool.shrink(8 * page)
    expect(resident([wide, other])).toEqual([24, 0])
    for (const gone of [0, 8, 16]) {
      // Releasing the probe makes its chunk the last to go, so a chunk is probed only when it must be gone.
      await subject.pool.shrink(8 * page)
      expect(wide.tryPin({ offset: gone * page, length: page })).toBeUndefined()
    }
    expect(resident([wide, other])).toEqual([0, 0])
  })

  it('ttm_bo_fini_basic, T50: freeing gives everything up once', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    await buffer.free()
    expect(subject.pool.stats()).toMatchObject({ buffers: 0, inUseBytes: 0 })
  })

  it('ttm_bo_put_basic, T50: freeing is refused while somebody holds it, and works after the last release', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    const pin = await buffer.pin()
    await expect(buffer.free()).rejects.toMatchObject({ code: 'EBUSY' })
    await expect(subject.pool.close()).rejects.toMatchObject({ code: 'EBUSY' })
    pin.release()
    await buffer.free()
    expect(subject.pool.stats().buffers).toBe(0)
  })

  it('ttm_bo_fini_shared_resv, T50: freed in the middle of a restore, it ends when the restore lets go', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(16)
    await buffer.backup()
    subject.backup.inject({ method: 'copyPages', times: 1, delayMs: 5 })
    const restoring = buffer.restore()
    const freeing = buffer.free()
    await Promise.allSettled([restoring])
    await freeing
    expect(subject.pool.stats()).toMatchObject({ buffers: 0, inUseBytes: 0, backedUpBytes: 0 })
    expect(subject.backup.stats().livePages).toBe(0)
  })

  it('ttm_bo_pin_basic: three pins are three', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    const pins = [await buffer.pin(), await buffer.pin(), await buffer.pin()]
    expect(subject.pool.dump().buffers[0]!.pins).toBe(3)
    expect(subject.pool.stats().pins).toBe(3)
    for (const pin of pins) pin.release()
    expect(subject.pool.stats()).toMatchObject({ pins: 0, pinnedBytes: 0 })
  })

  it('ttm_bo_pin_unpin_resource, T66: pinning takes off the list, releasing puts back, at the warm end', async () => {
    await using subject = subjectPool()
    const buffers = [await subject.filled(8, 1), await subject.filled(8, 2)]
    const pin = await buffers[0]!.pin()
    expect(subject.pool.dump().lists).toMatchObject({ unevictable: 8, dirty: 8 })
    pin.release()
    expect(subject.pool.dump().lists).toMatchObject({ unevictable: 0, dirty: 16 })
    await subject.pool.shrink(8 * page)
    expect(resident(buffers)).toEqual([8, 0])
  })
})

describe('taking without waiting', () => {
  it('ttm_bo_reserve_optimistic_no_ticket: what nobody holds is pinned at once', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    using pin = buffer.tryPin({ write: true })
    expect(pin?.bytes.byteLength).toBe(8 * page)
  })

  it('ttm_bo_reserve_locked_no_sleep, T79: what is on its way is not waited for', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    await buffer.backup()
    subject.backup.inject({ method: 'copyPages', times: 1, delayMs: 5 })
    const reading = buffer.read(0, new Uint8Array(1))
    await Promise.resolve()
    expect(buffer.tryPin()).toBeUndefined()
    await reading
    using pin = buffer.tryPin()
    expect(pin).toBeDefined()
  })

  it('ttm_bo_reserve_no_wait_ticket, T79: what is being stored can be read at once, and written only later', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    subject.backup.inject({ method: 'backupPages', times: 1, delayMs: 5 })
    const storing = buffer.backup()
    await new Promise((resolve) => setTimeout(resolve, 2))
    expect(buffer.tryPin({ write: true })).toBeUndefined()
    const reader = buffer.tryPin()
    expect(reader).toBeDefined()
    expect(await storing).toMatchObject({ pages: 0 })
    reader!.release()
    await expectFilled(buffer)
  })

  it('ttm_bo_reserve_double_resv: who holds a range may pin it again, for writing too', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    using one = await buffer.pin({ write: true })
    using two = await buffer.pin({ write: true })
    expect(two.bytes.byteOffset).toBe(one.bytes.byteOffset)
  })

  it('ttm_bo_reserve_deadlock: two who want each other’s memory both get it, one after the other', async () => {
    await using subject = subjectPool({ limitBytes: 16 * page })
    const one = await subject.filled(16, 1)
    const two = await subject.filled(16, 2)
    const rounds = Array.from({ length: 10 }, (_, round) => {
      return (round % 2 === 0 ? one : two).pin({ write: round % 3 === 0 }).then(async (pin) => {
        await Promise.resolve()
        pin.release()
      })
    })
    await Promise.all(rounds)
    await expectFilled(one, 1)
    await expectFilled(two, 2)
  })

  it('ttm_bo_reserve_interrupted, T6: an abort ends the wait, and nothing is held', async () => {
    await using subject = subjectPool({ limitBytes: 8 * page })
    const holder = await subject.filled(8)
    const pin = await holder.pin()
    const waiting = await subject.pool.allocate(8 * page)
    const controller = new AbortController()
    const pinning = waiting.pin({ signal: controller.signal })
    controller.abort(new Error('enough'))
    await expect(pinning).rejects.toMatchObject({ code: 'EINTR', cause: new Error('enough') })
    await expect(waiting.pin({ signal: aborted() })).rejects.toMatchObject({ code: 'EINTR' })
    expect(subject.pool.stats()).toMatchObject({ pins: 1, waiters: 0 })
    pin.release()
  })
})
