import { describe, expect, it } from 'vitest'
import { type HandleRun, memoryBackup, nullBackup, yieldToEventLoop } from '../src/index.ts'

const pages = (count: number): Uint8Array => new Uint8Array(count * 4096)

/**
 * What is really held. A collection frees ArrayBuffers on a thread of its own, after it has returned: the second one waits
 * for what the first found. With one, 4 KiB of garbage for each call (bits of a block that then was full) counted at times.
 */
function memoryAfterCollection(): NodeJS.MemoryUsage {
  const { gc } = globalThis as { gc?: () => void }
  if (gc === undefined) throw new Error('run with --expose-gc')
  gc()
  gc()
  return process.memoryUsage()
}

describe('memoryBackup', () => {
  it('gives slabs back when the last of their pages is dropped', async () => {
    await using backup = memoryBackup({ capacityBytes: 64 * 2 ** 20 })
    const { handles } = await backup.backupPages([pages(4096)])
    expect(backup.stats().mediumBytes).toBe(16 * 2 ** 20)
    const [{ first }] = handles
    await backup.drop([{ first: first + 1, count: 4095 }])
    expect(backup.stats().mediumBytes).toBe(2 * 2 ** 20)
    await backup.drop([{ first, count: 1 }])
    expect(backup.stats().mediumBytes).toBe(0)
  })

  it('takes no more memory than its capacity, however small that is', async () => {
    await using backup = memoryBackup({ capacityBytes: 3 * 4096 })
    const { handles } = await backup.backupPages([pages(3).fill(7)])
    expect(backup.stats().mediumBytes).toBe(3 * 4096)
    const found = pages(3)
    await backup.copyPages(handles, [found])
    expect(found).toEqual(pages(3).fill(7))
  })

  it('lets the event loop have its turn during a long call', async () => {
    await using backup = memoryBackup()
    let turns = 0
    const count = (): void => {
      turns++
      pending = setImmediate(count)
    }
    let pending = setImmediate(count)
    const { handles } = await backup.backupPages([pages(32768)])
    const duringBackup = turns
    await backup.copyPages(handles, [pages(32768)])
    clearImmediate(pending)
    expect(duringBackup).toBeGreaterThanOrEqual(2)
    expect(turns - duringBackup).toBeGreaterThanOrEqual(2)
  })

  it('gives what an aborted call had not used back to its reservation', async () => {
    const [all, reserved] = [65536, 32768]
    await using backup = memoryBackup({ capacityBytes: all * 4096 })
    const reservation = await backup.reserve(reserved * 4096)
    const controller = new AbortController()
    await yieldToEventLoop()
    const call = backup.backupPages([pages(reserved)], { reservation, signal: controller.signal })
    controller.abort()
    const { handles, error } = await call
    // The first slice of a turn is done at once; 128 MiB take more than one turn.
    const [{ count }] = handles
    expect(count).toBeGreaterThanOrEqual(256)
    expect(count).toBeLessThan(reserved)
    expect(error).toMatchObject({ code: 'EINTR', page: count })
    expect(reservation.bytes).toBe((reserved - count) * 4096)
    expect(await backup.bytesAvailable()).toBe((all - reserved) * 4096)
    await reservation.release()
    expect(await backup.bytesAvailable()).toBe((all - count) * 4096)
  })

  it('says EFAULT, and what came before, when the memory is detached during a call', async () => {
    await using backup = memoryBackup()
    const detached = () => {
      const span = pages(32768)
      queueMicrotask(() => structuredClone(span.buffer, { transfer: [span.buffer as ArrayBuffer] }))
      return span
    }
    const stored = await backup.backupPages([pages(32768)])
    for (const call of [backup.backupPages([detached()]), backup.copyPages(stored.handles, [detached()])]) {
      const { error, ...result } = await call
      const done =
        'copied' in result ? result.copied : result.handles.reduce((sum, { count }) => sum + count, 0)
      expect(error).toMatchObject({ code: 'EFAULT', page: done, backup: 'memory' })
      expect(done).toBeLessThan(32768)
    }
    const { backedUpPages, livePages, mediumBytes } = backup.stats()
    expect(livePages).toBe(backedUpPages)
    expect(mediumBytes).toBe(Math.ceil(livePages / 512) * 2 ** 21)
  })
})

describe('nullBackup', () => {
  it('costs next to nothing for 1 TiB, and still knows every handle', async () => {
    await using backup = nullBackup()
    // Memory that is never touched takes no memory.
    const span = new Uint8Array(2 ** 30)
    const before = memoryAfterCollection()
    const runs: HandleRun[] = []
    for (let gibibyte = 0; gibibyte < 1024; gibibyte++) {
      runs.push(...(await backup.backupPages([span])).handles)
    }
    const after = memoryAfterCollection()
    expect(backup.stats().livePages).toBe(2 ** 28)
    expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(2 ** 20)
    expect(after.heapUsed - before.heapUsed).toBeLessThan(16 * 2 ** 20)
    await backup.drop([{ first: runs[500].first + 5, count: 1 }])
    await expect(backup.drop(runs)).rejects.toMatchObject({ code: 'ESTALE', handle: runs[500].first + 5 })
    expect(backup.stats().livePages).toBe(2 ** 28 - 1)
    await expect(backup.copyPages([runs[500]], [span])).rejects.toMatchObject({ code: 'ESTALE' })
    await backup.drop([...runs.slice(0, 500), ...runs.slice(501)])
    expect(backup.stats().livePages).toBe(2 ** 18 - 1)
  })

  it('says that it keeps nothing, and leaves the memory of a copy as it is', async () => {
    await using backup = nullBackup()
    expect(backup.capabilities.stores).toBe(false)
    const { handles } = await backup.backupPages([pages(1).fill(1)])
    const into = pages(1).fill(7)
    expect(await backup.copyPages(handles, [into])).toEqual({ copied: 1 })
    expect(into.every((byte) => byte === 7)).toBe(true)
  })
})
