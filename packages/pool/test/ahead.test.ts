import { faultyBackup, memoryBackup, SystemMemoryReader } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import {
  AutoLimit,
  firstLimit,
  type MemoryReading,
  memoryReading,
  nextLimit,
} from '../src/ground/auto-limit.ts'
import { Pool } from '../src/index.ts'
import { Refaults } from '../src/residency/refaults.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'
import { setup } from './support/setup.ts'

describe('the background reclaimer', () => {
  it('T74, T75: stores cold pages below the low mark up to the high mark, and leaves them in memory', async () => {
    const backup = faultyBackup(memoryBackup())
    const pool = new Pool({ limitBytes: 128 * page, maxOrder: 3, provider: 'resizable', backup })
    const buffer = await pool.allocate(128 * page)
    const bytes = pattern(128 * page)
    await buffer.write(0, bytes)
    await pool.settled()
    const { keptBytes, inUseBytes, dirtyBytes } = pool.stats()
    expect(inUseBytes).toBe(128 * page)
    expect(keptBytes).toBe(8 * page)
    expect(dirtyBytes).toBe(120 * page)
    expect(pool.verify()).toEqual([])
    // The next claim needs no I/O.
    const other = await pool.allocate(8 * page)
    const calls = backup.callsOf('backupPages')
    using pin = other.tryPin({ length: 1 }) ?? (await other.pin({ length: 1 }))
    expect(pin.bytes[0]).toBe(0)
    expect(backup.callsOf('backupPages')).toBe(calls)
    expect(pool.stats().evictedCleanPages).toBe(8)
    const found = new Uint8Array(128 * page)
    pin.release()
    await buffer.read(0, found)
    expect(firstDifference(found, bytes)).toBe(-1)
    await pool.close()
  })

  it('T74: does nothing with background false, and does not spin on a backup that fails', async () => {
    for (const background of [false, true]) {
      const backup = faultyBackup(memoryBackup(), { faults: [{ method: 'backupPages', code: 'EIO' }] })
      const pool = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider: 'resizable', backup, background })
      const buffer = await pool.allocate(64 * page)
      await buffer.write(0, pattern(64 * page))
      for (let index = 0; index < 50; index++) await buffer.read(index * page, new Uint8Array(page))
      await pool.settled()
      const calls = backup.callsOf('backupPages')
      expect(calls > 0).toBe(background)
      expect(calls).toBeLessThan(4)
      backup.heal()
      await pool.close()
    }
  })

  it('notices thrashing: what is restored was evicted a moment ago', () => {
    const refaults = new Refaults()
    for (let chunk = 0; chunk < 8; chunk++) {
      refaults.noteEviction(512)
      refaults.noteRestore(512, chunk % 4 !== 0, 8 * 512)
    }
    expect(refaults.thrashing).toBe(true)
    for (let chunk = 0; chunk < 8; chunk++) {
      refaults.noteEviction(512)
      refaults.noteRestore(512, chunk % 4 === 0, 8 * 512)
    }
    expect(refaults.thrashing).toBe(false)
  })

  it('counts restores of what reclaim has just evicted', async () => {
    await using subject = await setup({ pages: 80, background: false })
    const { buffer, pool } = subject
    for (let round = 0; round < 3; round++) await buffer.read(0, new Uint8Array(80 * page))
    expect(pool.stats().refaultedPages).toBeGreaterThan(0)
    await subject.check()
  })

  it('counts no restore of what a backup took out of memory', async () => {
    await using subject = await setup({ background: false })
    await subject.buffer.backup()
    expect((await subject.buffer.restore()).pages).toBe(21)
    expect(subject.pool.stats().refaultedPages).toBe(0)
  })
})

describe('readahead', () => {
  it('brings in what a sequential reader will want next', async () => {
    await using subject = await setup({ pages: 64, limitBytes: 256 * page })
    const { buffer, pool } = subject
    await buffer.backup()
    const found = new Uint8Array(2 * page)
    for (let at = 0; at < 6; at += 2) await buffer.read(at * page, found)
    await buffer.read(6 * page, found)
    await pool.settled()
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(pool.stats().readaheads).toBeGreaterThan(0)
    using pin = buffer.tryPin({ offset: 8 * page, length: page })!
    expect(firstDifference(pin.bytes, subject.bytes.subarray(8 * page, 9 * page))).toBe(-1)
  })

  it('does nothing for random access, and never waits for memory', async () => {
    await using subject = await setup({ pages: 64, limitBytes: 256 * page })
    const { buffer, pool } = subject
    await buffer.backup()
    buffer.advise('random')
    for (let at = 0; at < 20; at++) await buffer.read(at * page, new Uint8Array(page))
    expect(pool.stats().readaheads).toBe(0)
    buffer.advise('sequential')
    const all = await pool.allocate(200 * page)
    const pin = await all.pin({ write: true })
    await buffer.read(20 * page, new Uint8Array(page))
    expect(pool.stats().waiters).toBe(0)
    pin.release()
    await all.free()
    await subject.check()
  })

  it('a failing readahead harms nobody', async () => {
    await using subject = await setup({ pages: 64, limitBytes: 256 * page })
    const { buffer, backup, pool } = subject
    await buffer.backup()
    await buffer.read(0, new Uint8Array(page))
    buffer.advise('sequential')
    backup.inject({ method: 'copyPages', times: 1, stop: 3, code: 'EIO' })
    await buffer.read(page, new Uint8Array(page))
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(pool.stats().restoreFailures).toBe(1)
    await subject.check()
  })

  it('advise: willneed restores, dontneed makes the range the next to go', async () => {
    await using subject = await setup({ background: false })
    const { buffer, pool } = subject
    await buffer.backup()
    buffer.advise('willneed', { length: 16 * page })
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(buffer.residentBytes).toBe(16 * page)
    await buffer.read(16 * page, new Uint8Array(page))
    buffer.advise('dontneed', { offset: 8 * page, length: 8 * page })
    await pool.shrink(8 * page)
    expect(buffer.tryPin({ offset: 8 * page, length: 1 })).toBeUndefined()
    const first = buffer.tryPin({ offset: 0, length: 1 })
    expect(first).toBeDefined()
    first?.release()
    await subject.check()
  })
})

const readSystem = (read: (path: string) => string | undefined, machineBytes: number, freeBytes: number) =>
  memoryReading(new SystemMemoryReader(read).read(), machineBytes, freeBytes)

describe('the automatic limit', () => {
  const gibibyte = 2 ** 30
  const calm: MemoryReading = {
    totalBytes: 8 * gibibyte,
    availableBytes: 6 * gibibyte,
    pressurePercent: 0,
    tightest: 'the machine',
  }

  it('T58: begins with half of the memory', () => {
    expect(firstLimit(calm)).toBe(4 * gibibyte)
    const pool = new Pool({ limitBytes: 'auto' })
    expect(pool.limitBytes).toBeGreaterThan(2 ** 21)
  })

  it('sinks under pressure and when memory is scarce, rises when it is plenty, and stays in between', () => {
    const limit = 2 * gibibyte
    expect(nextLimit(limit, { ...calm, pressurePercent: 20 })).toBe(Math.floor(limit * 0.9))
    expect(nextLimit(limit, { ...calm, availableBytes: gibibyte / 8 })).toBe(Math.floor(limit * 0.9))
    expect(nextLimit(limit, calm)).toBe(Math.ceil(limit * 1.05))
    expect(nextLimit(limit, { ...calm, pressurePercent: 5 })).toBe(limit)
    expect(nextLimit(4 * gibibyte, calm)).toBe(4 * gibibyte)
    expect(nextLimit(gibibyte / 2, { ...calm, pressurePercent: 90 })).toBe(gibibyte / 2)
    expect(nextLimit(4 * gibibyte, { ...calm, totalBytes: 2 * gibibyte })).toBe(gibibyte)
  })

  it('reads cgroups of both versions, the machine, and pressure', () => {
    const files: Record<string, string> = {
      '/proc/self/cgroup': '0::/app\n',
      '/sys/fs/cgroup/app/memory.max': `${gibibyte}\n`,
      '/sys/fs/cgroup/app/memory.current': `${gibibyte / 4}\n`,
      '/sys/fs/cgroup/app/memory.pressure':
        'some avg10=12.50 avg60=3.00 avg300=1.00 total=5\nfull avg10=0.00\n',
      '/proc/meminfo': 'MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\n',
    }
    const read = (path: string) => files[path]
    expect(readSystem(read, 8 * gibibyte, gibibyte)).toEqual({
      totalBytes: gibibyte,
      availableBytes: (gibibyte * 3) / 4,
      pressurePercent: 12.5,
      tightest: 'the control group /sys/fs/cgroup/app',
    })
    files['/sys/fs/cgroup/app/memory.max'] = 'max\n'
    expect(readSystem(read, 8 * gibibyte, gibibyte)).toMatchObject({
      totalBytes: 8 * gibibyte,
      availableBytes: 6 * gibibyte,
    })
    const old: Record<string, string> = {
      '/proc/self/cgroup': '5:memory:/job\n',
      '/sys/fs/cgroup/memory/job/memory.limit_in_bytes': String(gibibyte),
      '/sys/fs/cgroup/memory/job/memory.usage_in_bytes': String(gibibyte / 2),
    }
    expect(readSystem((path) => old[path], 8 * gibibyte, gibibyte)).toEqual({
      totalBytes: gibibyte,
      availableBytes: gibibyte / 2,
      pressurePercent: undefined,
      tightest: 'the control group /sys/fs/cgroup/memory/job',
    })
    expect(readSystem(() => undefined, 8 * gibibyte, gibibyte)).toEqual({
      totalBytes: 8 * gibibyte,
      availableBytes: gibibyte,
      pressurePercent: undefined,
      tightest: 'the machine',
    })
  })

  it('sees limits of the groups above, and what throttles as well', () => {
    const files: Record<string, string> = {
      '/proc/self/cgroup': '0::/pods/pod/app\n',
      '/sys/fs/cgroup/pods/pod/app/memory.max': 'max\n',
      '/sys/fs/cgroup/pods/pod/memory.max': `${gibibyte}\n`,
      '/sys/fs/cgroup/pods/pod/memory.high': `${gibibyte / 2}\n`,
      '/sys/fs/cgroup/pods/pod/memory.current': `${gibibyte / 4}\n`,
      '/proc/meminfo': 'MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\n',
    }
    const reading = readSystem((path) => files[path], 8 * gibibyte, gibibyte)
    expect(reading).toMatchObject({ totalBytes: gibibyte / 2, availableBytes: gibibyte / 4 })
    const old: Record<string, string> = {
      '/proc/self/cgroup': '5:memory:/slice/leaf\n',
      '/sys/fs/cgroup/memory/slice/leaf/memory.limit_in_bytes': '9223372036854771712',
      '/sys/fs/cgroup/memory/slice/leaf/memory.stat': `hierarchical_memory_limit ${gibibyte / 2}\n`,
      '/sys/fs/cgroup/memory/slice/leaf/memory.usage_in_bytes': String(gibibyte / 4),
    }
    expect(readSystem((path) => old[path], 8 * gibibyte, gibibyte)).toMatchObject({
      totalBytes: gibibyte / 2,
      availableBytes: gibibyte / 4,
    })
  })

  it('counts clean cached files as available, and pages of memfds and tmpfs as used', () => {
    const files: Record<string, string> = {
      '/proc/self/cgroup': '0::/app\n',
      '/sys/fs/cgroup/app/memory.max': `${gibibyte}\n`,
      '/sys/fs/cgroup/app/memory.current': `${gibibyte}\n`,
      '/sys/fs/cgroup/app/memory.stat': `inactive_file ${gibibyte / 2}\nactive_file ${gibibyte / 4}\nfile_dirty ${gibibyte / 4}\nshmem ${gibibyte / 4}\n`,
    }
    const reading = readSystem((path) => files[path], 8 * gibibyte, gibibyte)
    expect(reading).toMatchObject({ totalBytes: gibibyte, availableBytes: gibibyte / 2 })
    expect(nextLimit(gibibyte / 2, reading)).toBe(gibibyte / 2)
  })

  it('follows the readings, and tries again when the limit cannot sink', async () => {
    let reading = { ...calm, pressurePercent: 50 }
    const limits: number[] = []
    let refuse = true
    const auto = new AutoLimit(() => reading, 4 * gibibyte, {
      leastBytes: () => 2 ** 21,
      async setLimit(bytes) {
        if (refuse) throw new Error('all is pinned')
        limits.push(bytes)
      },
      title: 'pool',
    })
    await auto.step()
    refuse = false
    await auto.step()
    await auto.step()
    reading = calm as typeof reading
    await auto.step()
    expect(limits.map((limit) => Math.round((limit / gibibyte) * 1000))).toEqual([3600, 3240, 3402])
    auto.stop()
  })
})
