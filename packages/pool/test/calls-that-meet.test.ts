import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { type Backup, faultyBackup, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type PagedBuffer, Pool, type PoolOptions } from '../src/index.ts'
import { ResizableProvider } from '../src/providers/resizable.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'
import { FakeProvider } from './support/fake-provider.ts'
import { setup } from './support/setup.ts'

/* Any calls may overlap: what one has decided before it waits may be otherwise when it goes on. */

const turn = (delayMs = 0) => new Promise((resolve) => setTimeout(resolve, delayMs))
const codeOf = (failure: unknown) => (failure as { code?: string }).code

function smallPool(limitPages: number, options: Partial<PoolOptions> = {}): Pool {
  return new Pool({
    limitBytes: limitPages * page,
    maxOrder: 0,
    provider: 'resizable',
    background: false,
    ...options,
  })
}

async function filled(pool: Pool, pages: number, backup?: Backup): Promise<PagedBuffer> {
  const buffer = await pool.allocate(pages * page, { backup })
  await buffer.write(0, pattern(pages * page))
  return buffer
}

async function contentOf(buffer: PagedBuffer): Promise<Uint8Array> {
  const found = new Uint8Array(buffer.sizeBytes)
  await buffer.read(0, found)
  return found
}

describe('an atomic backup that waits for another', () => {
  it('ends when it is aborted, and the next one waits on', async () => {
    const backup = faultyBackup(memoryBackup(), { faults: [{ method: 'backupPages', delayMs: 20 }] })
    const pool = smallPool(64)
    const buffer = await filled(pool, 4, backup)
    const order: string[] = []
    const controller = new AbortController()
    const store = async (name: string, signal?: AbortSignal) => {
      const { error } = await buffer.backup({ atomic: true, signal })
      order.push(error === undefined ? name : `${name} ${codeOf(error)}`)
    }
    const calls = [store('first'), store('second', controller.signal), store('third')]
    await turn()
    controller.abort()
    await Promise.all(calls)
    expect(order).toEqual(['second EINTR', 'first', 'third'])
    expect(await contentOf(buffer)).toEqual(pattern(4 * page))
    await pool.close()
  })
})

describe('backup beside setBackup', () => {
  for (const atomic of [false, true]) {
    for (const ticks of [0, 1, 2, 3, 5, 8, 13]) {
      it(`stores the pages where the buffer looks for them, ${atomic ? 'atomic, ' : ''}${ticks} ticks later`, async () => {
        const [first, second] = [memoryBackup({ name: 'first' }), memoryBackup({ name: 'second' })]
        const pool = smallPool(64)
        const other = await filled(pool, 1, second)
        await other.backup()
        const buffer = await filled(pool, 20, first)
        const storing = buffer.backup({ atomic })
        for (let tick = 0; tick < ticks; tick++) await undefined
        await Promise.allSettled([storing, buffer.setBackup(second)])
        expect(await contentOf(buffer)).toEqual(pattern(20 * page))
        expect(pool.verify()).toEqual([])
        await pool.close()
        expect(first.stats().livePages + second.stats().livePages).toBe(0)
      })

      it(`stores nothing in a backup that is taken away, ${atomic ? 'atomic, ' : ''}${ticks} ticks later`, async () => {
        const backup = memoryBackup()
        const pool = smallPool(64)
        const buffer = await filled(pool, 20, backup)
        const storing = buffer.backup({ atomic })
        for (let tick = 0; tick < ticks; tick++) await undefined
        await Promise.allSettled([storing, buffer.setBackup(undefined)])
        expect(await contentOf(buffer)).toEqual(pattern(20 * page))
        await pool.close()
      })
    }
  }

  it('gives back a reservation that was made in the former backup', async () => {
    const [first, second] = [memoryBackup({ capacityBytes: 32 * page }), memoryBackup()]
    const slow = faultyBackup(first, { seed: 1 })
    slow.inject({ method: 'reserve', delayMs: 5, times: 1 })
    const pool = smallPool(64)
    const buffer = await filled(pool, 20, slow)
    const storing = buffer.backup({ atomic: true })
    await turn(1)
    await buffer.setBackup(second)
    expect(await storing).toEqual({ pages: 20 })
    expect(second.stats().livePages).toBe(20)
    expect(await first.bytesAvailable()).toBe(32 * page)
    expect(await contentOf(buffer)).toEqual(pattern(20 * page))
    await pool.close()
  })
})

describe('setBackup', () => {
  it('has chunks that were about to be stored in the former backup stored in the new one', async () => {
    await using former = memoryBackup()
    await using latter = memoryBackup()
    const pool = smallPool(32, { maxOrder: 3 })
    const buffers: PagedBuffer[] = []
    for (let count = 0; count < 5; count++) buffers.push(await filled(pool, 8, former))
    const inMemory = buffers.filter(({ backedUpBytes }) => backedUpBytes === 0)
    expect(inMemory).toHaveLength(4)
    for (const buffer of inMemory) await buffer.setBackup(latter)
    for (let count = 0; count < 4; count++) buffers.push(await filled(pool, 8, former))
    expect(latter.stats().livePages).toBeGreaterThan(0)
    for (const buffer of buffers) expect(firstDifference(await contentOf(buffer), pattern(8 * page))).toBe(-1)
    expect(pool.verify()).toEqual([])
    await pool.close()
  })

  it('wakes a claim that waits, when it gives the pages in memory a place to go', async () => {
    const pool = smallPool(4)
    const cold = await filled(pool, 3)
    const small = await pool.allocate(page)
    const pin = await small.pin({ write: true })
    const third = await pool.allocate(page)
    const writing = third.write(0, new Uint8Array(page))
    await turn()
    await cold.setBackup(memoryBackup())
    await writing
    pin.release()
    await pool.close()
  })
})

describe('two reads of a chunk whose copy fails', () => {
  it('fail once: the one that waited for the other copies the rest and has its bytes', async () => {
    await using subject = await setup({ pages: 8 })
    const { buffer, backup, bytes } = subject
    await buffer.backup()
    backup.inject({ method: 'copyPages', times: 1, stop: 3, code: 'ETIMEDOUT', delayMs: 1 })
    const found = new Uint8Array(page)
    const first = buffer.read(6 * page, new Uint8Array(page))
    const second = buffer.read(6 * page, found)
    await expect(first).rejects.toMatchObject({ code: 'ETIMEDOUT' })
    await second
    expect(firstDifference(found, bytes.subarray(6 * page, 7 * page))).toBe(-1)
    await subject.check()
  })
})

describe('a read beside a write of a whole chunk', () => {
  it('waits until all slices of it are written', async () => {
    const pool = smallPool(1024, { maxOrder: 9 })
    const bytes = pattern(512 * page)
    const buffer = await pool.allocate(bytes.byteLength)
    const writing = buffer.write(0, bytes)
    const found = new Uint8Array(page)
    const reading = buffer.read(511 * page, found)
    await Promise.all([writing, reading])
    expect(firstDifference(found, bytes.subarray(511 * page))).toBe(-1)
    await pool.close()
  })
})

describe('purge beside a claim that waits', () => {
  it('takes a page that the first claim holds, and the claim goes on without it', async () => {
    const pool = smallPool(4)
    const full = await filled(pool, 2)
    const other = await pool.allocate(page)
    const pin = await other.pin({ write: true })
    const buffer = await pool.allocate(2 * page)
    await buffer.write(0, pattern(page))
    const claim = buffer.pin().then(
      () => 'pinned',
      (failure) => codeOf(failure),
    )
    await turn(1)
    expect(await buffer.purge({ offset: 0, length: page })).toEqual({ pages: 1 })
    pin.release()
    // Nothing can leave: it is refused, and does not wait for a purge that waits for it.
    expect(await claim).toBe('ENOMEM')
    await full.purge()
    const both = await buffer.pin()
    expect(both.spans).toHaveLength(2)
    both.release()
    await pool.close()
  })

  it('blames the page that is pinned, and waits for calls that hold others', async () => {
    await using subject = await setup({ pages: 21, maxOrder: 3 })
    const { buffer, backup } = subject
    await buffer.backup()
    const pin = await buffer.pin({ offset: 20 * page, length: page })
    backup.inject({ method: 'copyPages', delayMs: 10, times: 1 })
    const reading = buffer.read(0, new Uint8Array(8 * page))
    await turn(1)
    // A call holds these pages, and the application others.
    expect(await buffer.purge({ offset: 0, length: 16 * page })).toEqual({ pages: 16 })
    await reading
    await expect(buffer.purge({ offset: 16 * page, length: 5 * page })).rejects.toMatchObject({
      code: 'EBUSY',
      page: 20,
    })
    pin.release()
  })
})

describe('setLimit beside another that waits', () => {
  async function pinned() {
    const pool = smallPool(16, { backup: memoryBackup() })
    const buffer = await pool.allocate(16 * page)
    const pin = await buffer.pin({ write: true })
    return { pool, buffer, pin }
  }

  it('raises the limit at once, and ends the one that waits', async () => {
    const { pool, pin } = await pinned()
    const lower = pool.setLimit(8 * page)
    const evenLower = pool.setLimit(4 * page)
    const ended = Promise.allSettled([lower, evenLower])
    await turn()
    await pool.setLimit(64 * page)
    for (const outcome of await ended) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'EINTR' } })
    }
    expect(pool.limitBytes).toBe(64 * page)
    pin.release()
    await turn(5)
    expect(pool.limitBytes).toBe(64 * page)
    await pool.close()
  })

  it('is aborted at once while it waits behind it', async () => {
    const { pool, pin } = await pinned()
    const lower = pool.setLimit(8 * page)
    const controller = new AbortController()
    const behind = pool.setLimit(4 * page, { signal: controller.signal })
    await turn()
    controller.abort()
    await expect(behind).rejects.toMatchObject({ code: 'EINTR' })
    pin.release()
    await lower
    expect(pool.limitBytes).toBe(8 * page)
    await pool.close()
  })

  it('sinks further than it in turn', async () => {
    const { pool, pin } = await pinned()
    const both = [pool.setLimit(8 * page), pool.setLimit(4 * page)]
    await turn()
    pin.release()
    await Promise.all(both)
    expect(pool.limitBytes).toBe(4 * page)
    expect(pool.verify()).toEqual([])
    await pool.close()
  })

  it('does not tell of a lower limit before it is kept', async () => {
    const pool = smallPool(64, { idleBytes: 64 * page, provider: new ResizableProvider() })
    const buffer = await filled(pool, 60)
    await buffer.purge()
    const other = await filled(pool, 40)
    await other.free()
    const before = pool.stats()
    expect(before.residentBytes).toBeGreaterThan(16 * page)
    const sinking = pool.setLimit(16 * page)
    for (let tick = 0; pool.limitBytes > 16 * page; tick++) {
      const { residentBytes, limitBytes } = pool.stats()
      expect(residentBytes).toBeLessThanOrEqual(limitBytes)
      if (tick > 1000) throw new Error('the limit never sinks')
      await (tick % 2 === 0 ? undefined : turn())
    }
    expect(pool.stats().residentBytes).toBeLessThanOrEqual(16 * page)
    await sinking
    await pool.close()
  })
})

describe('a callback', () => {
  it('that frees the buffer as it is told of a wait ends the call, and the buffer', async () => {
    const pool = smallPool(4, { name: 'told' })
    const full = await filled(pool, 3)
    const pin = await full.pin()
    const buffer = await pool.allocate(4 * page)
    let freed: Promise<void> | undefined
    const listener = () => {
      freed ??= buffer.free()
    }
    subscribe('spillway:pool:wait', listener)
    try {
      await expect(buffer.write(0, pattern(4 * page))).rejects.toMatchObject({ code: 'EBADF' })
      await freed
    } finally {
      unsubscribe('spillway:pool:wait', listener)
    }
    pin.release()
    await pool.close()
  })

  it('that throws of progress ends a restore at once', async () => {
    await using subject = await setup({ pages: 21, maxOrder: 0 })
    const { buffer } = subject
    await buffer.backup()
    let told = 0
    const onProgress = () => {
      told++
      throw new Error('mine')
    }
    const { pages, error } = await buffer.restore({ onProgress })
    expect([told, error?.message]).toEqual([1, 'mine'])
    expect(pages).toBeLessThan(21)
    await subject.check()
  })

  it('that throws of progress leaves a chunk as it was that was being filled', async () => {
    const pool = smallPool(32, { maxOrder: 3 })
    const buffer = await pool.allocate(8 * page)
    const filling = buffer.fill(7, {
      onProgress: () => {
        throw new Error('enough')
      },
    })
    await expect(filling).rejects.toThrow('enough')
    expect(await contentOf(buffer)).toEqual(new Uint8Array(8 * page))
    await pool.close()
  })

  it('that throws of progress leaves all in memory when the backup is atomic', async () => {
    await using subject = await setup({ pages: 21, maxOrder: 0 })
    const { buffer, backup } = subject
    let told = 0
    const onProgress = () => {
      told++
      throw new Error('mine')
    }
    const { pages, error } = await buffer.backup({ atomic: true, onProgress })
    expect([told, pages, error?.message]).toEqual([1, 0, 'mine'])
    expect(buffer.residentBytes).toBe(21 * page)
    expect(backup.stats().livePages).toBe(0)
    await subject.check()
  })
})

describe('restore after a purge', () => {
  it('tells of the purge with the next call when another failure was told first', async () => {
    await using subject = await setup({ pages: 8 })
    const { buffer, bytes, backup } = subject
    await buffer.backup()
    await buffer.purge({ offset: 0, length: page })
    bytes.fill(0, 0, page)
    expect((await buffer.restore({ signal: AbortSignal.abort() })).error).toMatchObject({ code: 'EINTR' })
    expect(buffer.purged).toBe(true)
    backup.inject({ method: 'copyPages', times: 1, stop: 0, code: 'EIO' })
    expect((await buffer.restore()).error).toMatchObject({ code: 'EIO' })
    expect(buffer.purged).toBe(true)
    expect((await buffer.restore()).error).toMatchObject({ code: 'ENOENT' })
    expect(buffer.purged).toBe(false)
    expect(await buffer.restore()).toEqual({ pages: 0 })
  })
})

describe('providers that are set while others are looked for', () => {
  it('allocates only what the provider can that serves then', async () => {
    const able = new FakeProvider({ name: 'able' })
    const unable = new ResizableProvider()
    let probed: (works: boolean) => void = () => {}
    able.probe = (() => new Promise((resolve) => (probed = resolve))) as never
    const pool = smallPool(16, { provider: able })
    const allocating = pool.allocate(page, { caching: 'write-combined' }).catch(codeOf)
    const setting = pool.setProvider(unable).catch(codeOf)
    await turn()
    probed(true)
    const [buffer, refused] = await Promise.all([allocating, setting])
    // One of the two had to be refused.
    expect([buffer === 'ENOSYS', refused === 'ENOSYS'].filter(Boolean)).toHaveLength(1)
    if (buffer !== 'ENOSYS') await (buffer as PagedBuffer).write(0, new Uint8Array(1))
    await pool.close()
  })

  it('keeps the one that was set last, however long the former is probed', async () => {
    const [slow, fast] = [new FakeProvider({ name: 'slow' }), new FakeProvider({ name: 'fast' })]
    slow.probe = (() => turn(10).then(() => true)) as never
    const pool = smallPool(16)
    const first = pool.setProvider(slow)
    await pool.setProvider(fast)
    await first
    expect(pool.dump().provider).toBe('fast')
    await pool.close()
  })

  it('is refused, and made no more, when the pool is closed meanwhile', async () => {
    const slow = new FakeProvider({ name: 'slow' })
    slow.probe = (() => turn(10).then(() => true)) as never
    const pool = smallPool(16)
    const setting = pool.setProvider(slow).catch(codeOf)
    await pool.close()
    expect(await setting).toBe('EBADF')
  })
})

describe('a close that is refused', () => {
  it('disturbs no call that is made in the same tick', async () => {
    const pool = smallPool(16)
    const buffer = await pool.allocate(page)
    const pin = await buffer.pin()
    const closing = pool.close()
    const allocating = pool.allocate(page)
    await expect(closing).rejects.toMatchObject({ code: 'EBUSY' })
    await (await allocating).free()
    pin.release()
    await pool.close()
  })
})

describe('memory that the application takes away', () => {
  it('cannot be resized or transferred by the usual methods', async () => {
    const pool = smallPool(16)
    const buffer = await filled(pool, 1)
    const pin = await buffer.pin()
    const memory = pin.bytes.buffer as ArrayBuffer
    expect(() => memory.resize(0)).toThrow(/belongs to a pool/)
    expect(() => memory.transfer()).toThrow(/belongs to a pool/)
    pin.release()
    await pool.close()
  })

  it('is an error for those who read, write, store or restore it, and for nobody else', async () => {
    const backup = memoryBackup()
    const pool = smallPool(16, { backup, maxOrder: 2 })
    const buffer = await filled(pool, 4)
    const other = await filled(pool, 4)
    const pin = await buffer.pin()
    ArrayBuffer.prototype.resize.call(pin.bytes.buffer as ArrayBuffer, 0)
    pin.release()
    await expect(buffer.read(0, new Uint8Array(4 * page))).rejects.toMatchObject({ code: 'EFAULT' })
    await expect(buffer.read(0, new Uint8Array(2 ** 21))).rejects.toThrow(RangeError)
    await expect(buffer.write(0, new Uint8Array(4 * page))).rejects.toMatchObject({ code: 'EFAULT' })
    expect((await buffer.backup()).error).toMatchObject({ code: 'EFAULT' })
    expect((await buffer.backup({ atomic: true })).error).toMatchObject({ code: 'EFAULT' })
    // Room is made beside it.
    const large = await filled(pool, 12)
    expect(await contentOf(other)).toEqual(pattern(4 * page))
    expect(await contentOf(large)).toEqual(pattern(12 * page))
    await buffer.purge()
    expect(await contentOf(buffer)).toEqual(new Uint8Array(4 * page))
    expect(pool.verify()).toEqual([])
    await pool.close()
  })

  it('shows no bytes of another buffer when some of the memory for a new one was taken away', async () => {
    const pool = smallPool(32, { idleBytes: 32 * page, maxOrder: 3 })
    const taken = await filled(pool, 8)
    const other = await filled(pool, 8)
    const pin = await taken.pin()
    const memory = pin.bytes.buffer as ArrayBuffer
    pin.release()
    // What is freed last is taken first.
    await taken.free()
    await other.free()
    ArrayBuffer.prototype.resize.call(memory, 0)
    const buffer = await pool.allocate(16 * page)
    await expect(buffer.pin()).rejects.toMatchObject({ code: 'EFAULT' })
    const found = pattern(8 * page)
    await buffer.read(0, found)
    expect(firstDifference(found, new Uint8Array(8 * page))).toBe(-1)
    expect(pool.verify()).toEqual([])
    await pool.close()
  })
})

describe('a provider of small blocks under a large maxOrder', () => {
  it('serves as many blocks as there is room for, and has all of them back', async () => {
    let blocks = 0
    const provider = {
      name: 'single pages',
      capabilities: { swappable: true, movable: true, shareable: false, pageExactRelease: false },
      probe: () => true,
      get: (order: number, { lengthBytes }: { lengthBytes: number }) => {
        if (order > 0) return undefined
        blocks++
        return { bytes: new Uint8Array(lengthBytes) }
      },
      put: () => {
        blocks--
      },
    }
    const pages = 9000
    const pool = new Pool({
      limitBytes: 2 ** 30,
      maxOrder: 18,
      idleBytes: 2 ** 29,
      provider,
      background: false,
    })
    const buffer = await pool.allocate(pages * page, { maxOrder: 0 })
    for (let index = 0; index < pages; index++) await buffer.write(index * page, pattern(16, index))
    const found = new Uint8Array(16)
    for (let index = 0; index < pages; index += 7) {
      await buffer.read(index * page, found)
      expect(found).toEqual(pattern(16, index))
    }
    expect(pool.verify()).toEqual([])
    await buffer.free()
    await pool.close()
    expect(blocks).toBe(0)
  })
})
