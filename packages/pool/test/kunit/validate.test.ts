import { type Backup, type BackupPagesOptions, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type PagedBuffer, Pool } from '../../src/index.ts'
import { expectFilled, expectZeros, subjectPool } from '../ledger/support/pools.ts'
import { firstDifference, page, pattern } from '../support/bytes.ts'
import { returned } from '../support/setup.ts'

/** The kernel's cases for validating a buffer object: here, making a range resident, with whatever has to leave for it. */
const resident = (buffers: PagedBuffer[]) => buffers.map((buffer) => buffer.residentBytes / page)

describe('making a buffer resident', () => {
  it('ttm_bo_init_reserved_sys_man, T52: a new buffer has no memory', async () => {
    await using subject = subjectPool()
    const buffer = await subject.pool.allocate(8 * page)
    expect(buffer.residentBytes).toBe(0)
    expect(buffer.tryPin()).toBeUndefined()
  })

  it('ttm_bo_init_reserved_resv: buffers of one pool are independent of each other’s pins', async () => {
    await using subject = subjectPool()
    const [one, two] = [await subject.filled(8, 1), await subject.filled(8, 2)]
    using pin = await one.pin({ write: true })
    expect(pin.length).toBe(8 * page)
    expect((await two.backup()).pages).toBe(8)
  })

  it('ttm_bo_validate_basic, T53: a pinned range is resident, zeroed, and nothing else is', async () => {
    await using subject = subjectPool()
    const buffer = await subject.pool.allocate(24 * page)
    using pin = await buffer.pin({ offset: 8 * page, length: page })
    expect(pin.bytes.every((byte) => byte === 0)).toBe(true)
    expect(buffer.residentBytes).toBe(8 * page)
  })

  it('ttm_bo_validate_pinned, T62: what is pinned is not moved', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    using pin = await buffer.pin()
    expect((await buffer.backup()).error).toMatchObject({ code: 'EBUSY', buffer: buffer.label, page: 0 })
    await expect(buffer.purge()).rejects.toMatchObject({ code: 'EBUSY' })
    expect(await subject.pool.shrink(64 * page)).toBe(0)
    expect(firstDifference(pin.bytes, pattern(8 * page))).toBe(-1)
  })

  for (const touched of [true, false]) {
    const kind = touched ? 'with memory' : 'never touched'
    it(`ttm_bo_validate_no_placement_signaled, T36: purged ${kind}: no memory, zeros, and nothing was stored`, async () => {
      await using subject = subjectPool()
      const buffer = touched ? await subject.filled(8) : await subject.pool.allocate(8 * page)
      expect(await buffer.purge()).toEqual({ pages: touched ? 8 : 0 })
      expect([buffer.residentBytes, buffer.backedUpBytes, buffer.freed]).toEqual([0, 0, false])
      expect(subject.backup.stats().backedUpPages).toBe(0)
      await expectZeros(buffer)
    })
  }

  it('ttm_bo_validate_no_placement_not_signaled, T36: purged while it is being restored: it waits, then all is gone', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(16)
    await buffer.backup()
    subject.backup.inject({ method: 'copyPages', times: 1, delayMs: 5 })
    const reading = buffer.read(0, new Uint8Array(8 * page))
    await buffer.purge()
    await reading
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([0, 0])
    await expectZeros(buffer)
  })

  it('ttm_bo_validate_same_placement: what is resident already is not moved', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    const requests = subject.provider.requests.length
    ;(await buffer.pin({ write: true })).release()
    expect(await buffer.restore()).toEqual({ pages: 0 })
    expect(subject.provider.requests.length).toBe(requests)
    expect(subject.backup.calls).toEqual([])
  })

  it('ttm_bo_validate_invalid_placement: a range outside of the buffer is refused at the call', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    for (const options of [
      { offset: 8 * page, length: 1 },
      { offset: -1 },
      { offset: 0.5 },
      { length: Number.NaN },
    ]) {
      await expect(buffer.pin(options)).rejects.toThrow(RangeError)
    }
    expect(subject.pool.stats().pins).toBe(0)
  })

  it('ttm_bo_validate_failed_alloc, T21: no memory at any order is ENOMEM, and nothing changed', async () => {
    await using subject = subjectPool({ idleBytes: 0 })
    const buffer = await subject.filled(8)
    await buffer.backup()
    await returned(subject.pool)
    subject.provider.refuse = () => true
    await expect(buffer.pin()).rejects.toMatchObject({ code: 'ENOMEM', buffer: buffer.label })
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([0, 8 * page])
    subject.provider.refuse = () => false
    await expectFilled(buffer)
  })
})

describe('what has to leave', () => {
  it('ttm_bo_validate_swapout, T60: shrinking by a buffer’s pages gives exactly those, and they are stored', async () => {
    await using subject = subjectPool({ idleBytes: 0, limitBytes: 24 * page })
    const buffer = await subject.filled(11)
    expect(await subject.pool.shrink(11 * page)).toBe(11 * page)
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([0, 11 * page])
    await expectFilled(buffer)
  })

  it('ttm_bo_validate_deleted_evict, T76: memory of a freed buffer serves first, and is never stored', async () => {
    await using subject = subjectPool({ limitBytes: 32 * page })
    const kept = await subject.filled(16, 1)
    const gone = await subject.filled(16, 2)
    const freeing = gone.free()
    const wanted = await subject.filled(16, 3)
    await freeing
    expect(resident([kept, wanted])).toEqual([16, 16])
    expect(subject.backup.stats().backedUpPages).toBe(0)
  })

  it('ttm_bo_validate_evict_gutting, T77: a victim whose content is not needed is purged', async () => {
    await using subject = subjectPool({ limitBytes: 16 * page })
    const victim = await subject.filled(16, 1)
    victim.advise('purgeable')
    await subject.filled(16, 2)
    expect([victim.residentBytes, victim.backedUpBytes, victim.purged]).toEqual([0, 0, true])
    expect(subject.backup.stats().backedUpPages).toBe(0)
    await expectZeros(victim)
  })

  it('ttm_bo_validate_busy_placement: what can be had without storing anything is had first', async () => {
    await using subject = subjectPool({ limitBytes: 16 * page })
    const dirty = await subject.filled(8, 1)
    const clean = await subject.filled(8, 2)
    await clean.backup()
    await clean.restore()
    await subject.filled(8, 3)
    expect(resident([dirty, clean])).toEqual([8, 0])
    expect(subject.backup.stats().backedUpPages).toBe(8)
  })

  it('ttm_bo_validate_move_fence_signaled: memory is handed on only when its pages are stored', async () => {
    await using subject = subjectPool({ limitBytes: 8 * page })
    const victim = await subject.filled(8, 1)
    subject.backup.inject({ method: 'backupPages', times: 1, delayMs: 10 })
    const next = await subject.pool.allocate(8 * page)
    const writing = next.write(0, pattern(8 * page, 2))
    await new Promise((resolve) => setTimeout(resolve, 2))
    expect(resident([victim, next])).toEqual([8, 0])
    await writing
    await expectFilled(victim, 1)
    await expectFilled(next, 2)
  })

  it('ttm_bo_validate_move_fence_not_signaled: who does not want to wait gets nothing, and nothing leaves for it', async () => {
    await using subject = subjectPool({ limitBytes: 8 * page })
    const victim = await subject.filled(8, 1)
    const other = await subject.pool.allocate(8 * page)
    expect(other.tryPin()).toBeUndefined()
    other.advise('willneed')
    await subject.pool.settled()
    expect(resident([victim, other])).toEqual([8, 0])
    expect(subject.backup.calls).toEqual([])
  })

  it('ttm_bo_validate_busy_domain_evict: victims that are leaving already are waited for', async () => {
    await using subject = subjectPool({ limitBytes: 16 * page, whenFull: 'fail' })
    const victims = [await subject.filled(8, 1), await subject.filled(8, 2)]
    subject.backup.inject({ method: 'backupPages', times: 2, delayMs: 5 })
    const leaving = Promise.all(victims.map((victim) => victim.backup()))
    await new Promise((resolve) => setTimeout(resolve, 1))
    const next = await subject.filled(16, 3)
    await leaving
    await expectFilled(next, 3)
    for (const [index, victim] of victims.entries()) await expectFilled(victim, index + 1)
  })

  it('ttm_bo_validate_recrusive_evict: a backup that keeps its pages in another pool, which has to evict for it', async () => {
    await using bottom = memoryBackup({ name: 'bottom' })
    await using lower = new Pool({
      limitBytes: 16 * page,
      maxOrder: 3,
      provider: 'resizable',
      backup: bottom,
    })
    const shelf = await lower.allocate(256 * page)
    await using middle = onShelf(shelf)
    await using upper = new Pool({
      limitBytes: 16 * page,
      maxOrder: 3,
      provider: 'resizable',
      backup: middle,
    })
    const buffers: PagedBuffer[] = []
    for (let seed = 0; seed < 6; seed++) {
      const buffer = await upper.allocate(11 * page)
      await buffer.write(0, pattern(11 * page, seed))
      buffers.push(buffer)
    }
    expect(bottom.stats().backedUpPages).toBeGreaterThan(0)
    for (const [seed, buffer] of buffers.entries()) await expectFilled(buffer, seed)
    expect([...upper.verify(), ...lower.verify()]).toEqual([])
  })
})

/** A backup whose bytes lie in a buffer of another pool. */
function onShelf(shelf: PagedBuffer): Backup {
  const inner = memoryBackup({ name: 'middle' })
  const slots = new Map<number, number>()
  let next = 0
  const { backupPages, copyPages } = inner
  // All bytes take the way through the shelf.
  Object.assign(inner, { startCopy: undefined })
  inner.backupPages = async (spans: readonly Uint8Array[], options?: BackupPagesOptions) => {
    const first = next
    for (const span of spans) {
      await shelf.write(next * page, span)
      next += span.byteLength / page
    }
    // The backup inside only hands out handles: what it keeps is not what is read back.
    const result = await backupPages.call(
      inner,
      spans.map((span) => new Uint8Array(span.byteLength)),
      options,
    )
    let slot = first
    for (const run of result.handles) {
      for (let index = 0; index < run.count; index++) slots.set(run.first + index, slot++)
    }
    return result
  }
  inner.copyPages = async (handles, spans, options) => {
    const result = await copyPages.call(inner, handles, spans, options)
    const wanted = handles.flatMap((run) =>
      Array.from({ length: run.count }, (_, index) => run.first + index),
    )
    for (const span of spans) {
      for (let offset = 0; offset < span.byteLength; offset += page) {
        await shelf.read(slots.get(wanted.shift()!)! * page, span.subarray(offset, offset + page))
      }
    }
    return result
  }
  return inner
}
