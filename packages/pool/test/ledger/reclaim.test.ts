import { type ErrorCode, faultyBackup, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { machineOf } from '../../src/api/pool.ts'
import type { PagedBuffer } from '../../src/index.ts'
import { page, pattern } from '../support/bytes.ts'
import { aborted, returned } from '../support/setup.ts'
import { code, expectFilled, expectZeros, subjectPool } from './support/pools.ts'

const resident = (buffers: PagedBuffer[]) => buffers.map((buffer) => buffer.residentBytes / page)
const turn = (delayMs = 0) => new Promise((resolve) => setTimeout(resolve, delayMs))

describe('what reclaim takes, and in which order', () => {
  it('T71: pages move between the lists as they are written, stored, marked, pinned and freed', async () => {
    await using subject = subjectPool()
    const { pool } = subject
    const lists = () => Object.values(pool.dump().lists)
    const [one, two] = [await subject.filled(8, 1), await subject.filled(16, 2)]
    expect(pool.dump().lists).toEqual({ unevictable: 0, dirty: 24, clean: 0, purgeable: 0 })
    await one.backup()
    await one.restore()
    expect(pool.dump().lists).toEqual({ unevictable: 0, dirty: 16, clean: 8, purgeable: 0 })
    two.advise('purgeable')
    expect(pool.dump().lists).toEqual({ unevictable: 0, dirty: 0, clean: 8, purgeable: 16 })
    const pin = await two.pin({ offset: 8 * page })
    expect(pool.dump().lists).toEqual({ unevictable: 8, dirty: 0, clean: 8, purgeable: 8 })
    two.advise('normal')
    pin.release()
    expect(pool.dump().lists).toEqual({ unevictable: 0, dirty: 16, clean: 8, purgeable: 0 })
    subject.backup.inject({ method: 'backupPages', times: 1, stop: 3, code: 'EIO' })
    await two.backup()
    expect(pool.dump().lists).toEqual({ unevictable: 0, dirty: 13, clean: 8, purgeable: 0 })
    await one.free()
    await two.free()
    expect(lists()).toEqual([0, 0, 0, 0])
  })

  it('T72: with a backup that is full, only what is purgeable or stored already can be had', async () => {
    await using subject = subjectPool({ capacityPages: 8, idleBytes: 0 })
    const { pool } = subject
    const buffers = [await subject.filled(8, 1), await subject.filled(8, 2), await subject.filled(8, 3)]
    await buffers[0]!.backup()
    await returned(pool)
    buffers[1]!.advise('purgeable')
    expect(await pool.shrink(64 * page)).toBe(8 * page)
    expect(resident(buffers)).toEqual([0, 0, 8])
    expect(await pool.shrink(64 * page)).toBe(0)
    await expectFilled(buffers[0]!, 1)
    await expectFilled(buffers[2]!, 3)
  })

  it('T75, B7: purgeable, then clean, then dirty; each only while more is needed', async () => {
    await using subject = subjectPool({ idleBytes: 0 })
    const { pool, backup } = subject
    const buffers = [await subject.filled(8, 1), await subject.filled(8, 2), await subject.filled(8, 3)]
    await buffers[1]!.backup()
    await buffers[1]!.restore()
    buffers[2]!.advise('purgeable')
    const calls = backup.callsOf('backupPages')
    await pool.shrink(8 * page)
    expect(resident(buffers)).toEqual([8, 8, 0])
    await pool.shrink(8 * page)
    expect(resident(buffers)).toEqual([8, 0, 0])
    expect(backup.callsOf('backupPages')).toBe(calls)
    await pool.shrink(8 * page)
    expect(resident(buffers)).toEqual([0, 0, 0])
    expect(backup.callsOf('backupPages')).toBe(calls + 1)
  })

  it('T70, T79, I9: what is held or on its way is passed over without waiting, and a round over only such ends', async () => {
    await using subject = subjectPool({ idleBytes: 0 })
    const { pool, backup } = subject
    const buffers = [await subject.filled(8, 1), await subject.filled(8, 2)]
    const pin = await buffers[0]!.pin()
    backup.inject({ method: 'backupPages', times: 1, delayMs: 10 })
    const storing = buffers[1]!.backup()
    await turn(1)
    const calls = backup.callsOf('backupPages')
    expect(await pool.shrink(64 * page)).toBe(0)
    expect(backup.callsOf('backupPages')).toBe(calls)
    expect((await storing).pages).toBe(8)
    pin.release()
  })

  it('T74: reclaim never asks for stable storage, neither for a claim nor in the background nor when it shrinks', async () => {
    await using subject = subjectPool({ limitBytes: 32 * page, background: true })
    const { pool, backup } = subject
    const asked: unknown[] = []
    const { backupPages } = backup
    backup.backupPages = (spans, options) => {
      asked.push(options?.writeback === true)
      return backupPages.call(backup, spans, options)
    }
    const buffers: PagedBuffer[] = []
    for (let seed = 0; seed < 8; seed++) buffers.push(await subject.filled(8, seed))
    await pool.settled()
    await pool.shrink(16 * page)
    expect(asked.length).toBeGreaterThan(3)
    expect(new Set(asked)).toEqual(new Set([false]))
    await buffers[0]!.fill(1)
    await buffers[0]!.backup({ writeback: true })
    expect(asked.at(-1)).toBe(true)
  })

  it('T71, T74: what is stored in the background stays the coldest, in the order that it had', async () => {
    await using subject = subjectPool({ idleBytes: 0 })
    const { pool } = subject
    const buffers = [await subject.filled(8, 1), await subject.filled(8, 2), await subject.filled(8, 3)]
    // Nothing is wanted: that ends, and stores nothing.
    expect(await machineOf(pool).reclaim.clean(0)).toBe(0)
    expect(await machineOf(pool).reclaim.clean(-3)).toBe(0)
    expect(await machineOf(pool).reclaim.clean(16)).toBe(16)
    expect(pool.dump().lists).toEqual({ unevictable: 0, dirty: 8, clean: 16, purgeable: 0 })
    await pool.shrink(8 * page)
    expect(resident(buffers)).toEqual([0, 8, 8])
    await pool.shrink(8 * page)
    expect(resident(buffers)).toEqual([0, 0, 8])
    for (const [index, buffer] of buffers.entries()) await expectFilled(buffer, index + 1)
  })

  it('T74: nothing is stored in the background at the price of a copy that is stored already', async () => {
    await using subject = subjectPool({ capacityPages: 8, idleBytes: 0 })
    const { pool } = subject
    const buffers = [await subject.filled(8, 1), await subject.filled(8, 2)]
    await buffers[0]!.backup()
    await buffers[0]!.restore()
    expect(await machineOf(pool).reclaim.clean(8)).toBe(0)
    expect(pool.stats()).toMatchObject({ keptBytes: 8 * page, dirtyBytes: 8 * page })
    // A claim may pay that price.
    expect(await pool.shrink(16 * page)).toBeGreaterThan(0)
    for (const [index, buffer] of buffers.entries()) await expectFilled(buffer, index + 1)
  })

  it('B19g: stops when it has what was asked for, and tells what it gave although a later batch failed', async () => {
    await using subject = subjectPool({ idleBytes: 0 })
    const { pool, backup } = subject
    const buffers = [await subject.filled(8, 1), await subject.filled(8, 2), await subject.filled(8, 3)]
    expect(await pool.shrink(1)).toBe(8 * page)
    expect(resident(buffers)).toEqual([0, 8, 8])
    backup.inject({ method: 'backupPages', times: 1, stop: 11, code: 'EIO' })
    expect(await pool.shrink(16 * page)).toBe(11 * page)
    expect(resident(buffers)).toEqual([0, 0, 5])
  })
})

describe('a batch', () => {
  it('is none when nothing is wanted any more, and takes nothing from what is to leave', async () => {
    await using subject = subjectPool({ limitBytes: 32 * page })
    const buffer = await subject.filled(32)
    const { reclaim, residents } = machineOf(subject.pool)
    residents.order.pickCold(8)
    const { coldDirtyPages } = residents.order
    expect(coldDirtyPages).toBeGreaterThan(0)
    expect(reclaim.pickBatch(0)).toBeUndefined()
    expect(reclaim.pickBatch(-1)).toBeUndefined()
    expect(residents.order.coldDirtyPages).toBe(coldDirtyPages)
    await subject.filled(32, 2)
    await expectFilled(buffer)
  })
})

describe('backups that fail', () => {
  it('T60: a backup that fails does not keep reclaim from the buffers of another', async () => {
    const broken = faultyBackup(memoryBackup({ name: 'broken' }))
    await using subject = subjectPool({ limitBytes: 16 * page, whenFull: 'fail' })
    const first = await subject.filled(8, 1, { backup: broken })
    const second = await subject.filled(8, 2)
    broken.inject({ method: 'backupPages', code: 'EIO' })
    const third = await subject.pool.allocate(8 * page)
    const write = async () => {
      for (let tries = 0; ; tries++) {
        const failure = await third.write(0, pattern(8 * page, 3)).catch((thrown: unknown) => thrown)
        if (failure === undefined) return
        expect([code(failure), tries]).toEqual(['ENOMEM', 0])
      }
    }
    await write()
    expect(resident([first, second, third])).toEqual([8, 0, 8])
    broken.heal()
    await expectFilled(second, 2)
    await first.free()
    await broken.close()
  })

  it('T57, I9: a claim that counts on somebody’s backup is looked at again when that fails', async () => {
    await using subject = subjectPool({ limitBytes: 8 * page })
    const victim = await subject.filled(8, 1)
    subject.backup.inject({ method: 'backupPages', times: 1, delayMs: 5, code: 'EIO' })
    const storing = victim.backup()
    await turn(1)
    const next = await subject.pool.allocate(8 * page)
    const writing = next.write(0, pattern(8 * page, 2))
    expect(code((await storing).error)).toBe('EIO')
    await writing
    await expectFilled(next, 2)
    await expectFilled(victim, 1)
  })

  it('T69: the code of a backup’s failure is passed on, with the place, and the failure is the cause', async () => {
    const codes: ErrorCode[] = ['ENOSPC', 'EIO', 'ENOMEM', 'EAGAIN', 'ETIMEDOUT', 'EACCES', 'EDQUOT']
    for (const failure of codes) {
      await using subject = subjectPool()
      const buffer = await subject.filled(8, 1, { label: 'mine' })
      subject.backup.inject({ method: 'backupPages', times: 1, stop: 3, code: failure })
      expect(await buffer.backup()).toMatchObject({
        pages: 3,
        error: { code: failure, buffer: 'mine', page: 3, backup: 'memory', cause: { code: failure } },
      })
    }
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    const pin = await buffer.pin()
    expect((await buffer.backup()).error).toMatchObject({ code: 'EBUSY' })
    pin.release()
    const reason = new Error('stop')
    expect((await buffer.backup({ signal: aborted(reason) })).error).toMatchObject({
      code: 'EINTR',
      cause: reason,
    })
  })

  it('a backup that fails and has the oldest chunks does not keep those of another from leaving [T60]', async () => {
    const broken = faultyBackup(memoryBackup({ name: 'broken' }))
    await using subject = subjectPool({ limitBytes: 32 * page, whenFull: 'fail' })
    const first = await subject.filled(8, 1, { backup: broken })
    const second = await subject.filled(24, 2)
    broken.inject({ method: 'backupPages', code: 'EIO' })
    const third = await subject.filled(16, 3)
    expect(resident([first, second, third])).toEqual([8, 8, 16])
    expect(subject.pool.stats().refusals).toBe(0)
    broken.heal()
    await expectFilled(second, 2)
    await first.free()
    await broken.close()
  })

  it('buffers that were freed with all that used their backup refuse no claim of others [T57]', async () => {
    await using subject = subjectPool({ limitBytes: 64 * page, whenFull: 'fail' })
    for (const name of ['one', 'two', 'three']) {
      const other = memoryBackup({ name })
      const gone = await subject.filled(64, 1, { backup: other })
      // Its chunks are the next to leave, and then there are none.
      gone.advise('dontneed')
      await gone.free()
      await other.close()
    }
    const stays = await subject.filled(64, 2)
    await subject.filled(8, 3)
    expect(subject.pool.stats().refusals).toBe(0)
    await expectFilled(stays, 2)
  })

  it('T78: a backup that is not available for now is asked again later, and what needs no backup is had meanwhile', async () => {
    await using subject = subjectPool({ limitBytes: 16 * page })
    const { backup } = subject
    let available = false
    const { backupPages } = backup
    let refused = 0
    backup.backupPages = (spans, options) => {
      if (available) return backupPages.call(backup, spans, options)
      refused++
      return Promise.resolve({ handles: [], error: Object.assign(new Error('asleep'), { code: 'EAGAIN' }) })
    }
    const dirty = await subject.filled(8, 1)
    const spare = await subject.filled(8, 2)
    spare.advise('purgeable')
    const first = await subject.filled(8, 3)
    expect([refused, ...resident([dirty, spare, first])]).toEqual([0, 8, 0, 8])
    const second = await subject.pool.allocate(8 * page)
    const writing = second.write(0, pattern(8 * page, 4))
    await turn(5)
    expect(refused).toBeGreaterThan(0)
    available = true
    await writing
    await expectFilled(dirty, 1)
    await expectFilled(second, 4)
  })

  it('B19f: two buffers that pass the gate of a nearly full backup share what there is, and neither loses a page', async () => {
    await using subject = subjectPool({ capacityPages: 12 })
    const [one, two] = [await subject.filled(8, 1), await subject.filled(8, 2)]
    const results = await Promise.all([one.backup(), two.backup()])
    expect(results[0]!.pages + results[1]!.pages).toBe(12)
    expect(results.map(({ error }) => code(error))).toContain('ENOSPC')
    expect(subject.backup.stats().livePages).toBe(12)
    await expectFilled(one, 1)
    await expectFilled(two, 2)
  })

  it('B5: a chunk that was being stored is let go of exactly once, however the call ended', async () => {
    const endings = ['stored', 'partly', 'not at all', 'rejected', 'aborted'] as const
    for (const ending of endings) {
      for (const atomic of [false, true]) {
        await using subject = subjectPool({ limitBytes: 128 * page })
        const { backup } = subject
        const buffer = await subject.filled(21)
        const controller = new AbortController()
        const { backupPages } = backup
        if (ending === 'partly') backup.inject({ method: 'backupPages', times: 1, stop: 11, code: 'EIO' })
        if (ending === 'not at all') backup.inject({ method: 'backupPages', times: 1, code: 'EIO' })
        if (ending === 'rejected') backup.backupPages = () => Promise.reject(new Error('unheard of'))
        if (ending === 'aborted') backup.inject({ method: 'backupPages', times: 1, stop: 2, code: 'EINTR' })
        await buffer.backup({ writeback: true, atomic, signal: controller.signal })
        backup.backupPages = backupPages
        expect(subject.pool.verify(), ending).toEqual([])
        // A chunk that were still marked would keep this from ending, and one marked twice would be found by verify.
        await buffer.fill(3, { offset: 5 * page, length: 1 })
        await buffer.write(5 * page, pattern(21 * page).subarray(5 * page, 5 * page + 1))
        await expectFilled(buffer)
      }
    }
  })
})

describe('code of others that is called', () => {
  it('T9: a backup may call back into its pool: nothing is locked while it runs', async () => {
    await using subject = subjectPool({ limitBytes: 32 * page })
    const { pool, backup } = subject
    const other = await subject.filled(8, 2)
    const buffer = await subject.filled(16, 1)
    const { backupPages, copyPages, drop } = backup
    const reenter = async () => {
      const pin = other.tryPin()
      expect(pin).toBeDefined()
      pin!.release()
      await expectFilled(other, 2)
      expect(pool.stats().pins).toBe(0)
      expect(pool.verify()).toEqual([])
    }
    backup.backupPages = async (spans, options) => {
      await reenter()
      await (await pool.allocate(page)).free()
      return backupPages.call(backup, spans, options)
    }
    backup.copyPages = async (handles, spans, options) => {
      await reenter()
      return copyPages.call(backup, handles, spans, options)
    }
    backup.drop = async (handles) => {
      await reenter()
      return drop.call(backup, handles)
    }
    expect((await buffer.backup()).pages).toBe(16)
    await expectFilled(buffer)
    await buffer.fill(1)
    await pool.settled()
    Object.assign(backup, { backupPages, copyPages, drop })
  })

  it('B9: what a call of the backup changed in the buffer is looked at afresh', async () => {
    await using subject = subjectPool({ limitBytes: 16 * page })
    const { backup } = subject
    const gone = await subject.filled(16, 1)
    await gone.backup()
    const victim = await subject.filled(16, 2)
    const { backupPages } = backup
    let purging: Promise<unknown> | undefined
    backup.backupPages = (spans, options) => {
      // The claim for `gone` has caused this call; its stored pages go while it waits.
      purging = gone.purge()
      return backupPages.call(backup, spans, options)
    }
    const found = new Uint8Array(16 * page).fill(0xee)
    await gone.read(0, found)
    backup.backupPages = backupPages
    expect(purging).toBeDefined()
    await purging
    expect(found.every((byte) => byte === 0)).toBe(true)
    await expectZeros(gone)
    await expectFilled(victim, 2)
  })

  it('B9, T55: a backup that is given while a chunk is on its way is known to the pool, whatever ended meanwhile', async () => {
    const other = memoryBackup({ name: 'other' })
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    const passing = await subject.filled(8, 2)
    subject.backup.inject({ method: 'backupPages', times: 1, delayMs: 5, code: 'EIO' })
    const storing = buffer.backup()
    await turn(1)
    const replacing = buffer.setBackup(other)
    await passing.free()
    await storing
    await replacing
    expect(subject.pool.dump().backups.map(({ name, buffers }) => [name, buffers])).toEqual([['other', 1]])
    expect((await buffer.backup()).pages).toBe(8)
    expect(other.stats().livePages).toBe(8)
    await expectFilled(buffer)
    await buffer.free()
    await other.close()
  })

  it('T19: closing while a shrink is under way waits for it, and all memory is back', async () => {
    await using subject = subjectPool()
    const { pool, provider, backup } = subject
    for (let seed = 0; seed < 4; seed++) await subject.filled(16, seed)
    backup.inject({ method: 'backupPages', times: 1, delayMs: 5 })
    const shrinking = pool.shrink(64 * page)
    await turn(1)
    await pool.close()
    expect(provider.pagesOut).toBe(0)
    await shrinking
    expect(pool.stats()).toMatchObject({ residentBytes: 0, buffers: 0 })
    expect(backup.stats().livePages).toBe(0)
  })
})
