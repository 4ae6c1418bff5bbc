import { type FaultyBackup, faultyBackup, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { budgetOf } from '../src/api/memory-budget.ts'
import { MemoryBudget, type PagedBuffer, Pool, type PoolOptions } from '../src/index.ts'
import { page, pattern } from './support/bytes.ts'
import { FakeProvider } from './support/fake-provider.ts'

/** Pools of one budget of 32 pages, over memory that counts what is out of all of them together. */
function several(
  names: readonly string[],
  options: { limitPages?: number; exact?: boolean; pools?: Partial<PoolOptions>[] } = {},
) {
  const budget = new MemoryBudget({ limitBytes: (options.limitPages ?? 32) * page, name: 'shared' })
  const provider = new CountingProvider(() => budget.limitBytes / page, options.exact === true)
  const backups: FaultyBackup[] = []
  const pools = names.map((name, index) => {
    const backup = faultyBackup(memoryBackup(), { seed: 1 })
    backups.push(backup)
    const pool = options.pools?.[index]
    return new Pool({ budget, backup, name, maxOrder: 0, idleBytes: 0, provider, background: false, ...pool })
  })
  return {
    budget,
    provider,
    backups,
    pools,
    async filled(index: number, pages: number): Promise<PagedBuffer> {
      const buffer = await pools[index]!.allocate(pages * page, { label: `of ${names[index]}` })
      await buffer.write(0, pattern(pages * page, index + 1))
      return buffer
    },
    resident: () => pools.map((pool) => pool.stats().inUseBytes / page),
    async [Symbol.asyncDispose]() {
      for (const backup of backups) backup.heal()
      for (const pool of pools) expect(pool.verify()).toEqual([])
      await Promise.all(pools.map((pool) => pool.close()))
      expect(budget.stats()).toMatchObject({ residentBytes: 0, chargedBytes: 0, waiters: 0, pools: [] })
      expect(provider.blocks.size).toBe(0)
    },
  }
}

/** Fails when more is taken from it than the limit, at any moment and by whichever pools. */
class CountingProvider extends FakeProvider {
  mostOut = 0
  readonly #limitPages: () => number

  /** `exact`: blocks that are out may have pages without memory, so there is nothing to count. */
  constructor(limitPages: () => number, exact: boolean) {
    super({ capabilities: { pageExactRelease: exact } })
    this.#limitPages = limitPages
  }

  override get(...parameters: Parameters<FakeProvider['get']>) {
    const block = super.get(...parameters)
    this.mostOut = Math.max(this.mostOut, this.pagesOut)
    if (!this.capabilities.pageExactRelease && this.pagesOut > this.#limitPages())
      throw new Error(`${this.pagesOut} pages are out`)
    return block
  }
}

async function caught(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => undefined,
    (error: unknown) => error,
  )
}

const turns = async (count = 20) => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}

describe('a budget of several pools', () => {
  it('is never exceeded by all of them together, and no byte is lost [T57, I11]', async () => {
    await using subject = several(['a', 'b', 'c'])
    const buffers = await Promise.all([0, 1, 2].map((index) => subject.filled(index, 24)))
    for (let round = 0; round < 4; round++) {
      await Promise.all(
        buffers.map(async (buffer, index) => {
          const found = new Uint8Array(24 * page)
          await buffer.read(0, found)
          expect(Buffer.compare(found, pattern(24 * page, index + 1))).toBe(0)
          await buffer.write(0, found)
        }),
      )
      const { residentBytes, limitBytes } = subject.budget.stats()
      expect(residentBytes).toBeLessThanOrEqual(limitBytes)
    }
    expect(subject.provider.mostOut).toBe(32)
  })

  it('lets one pool have all that the others do not use [T60]', async () => {
    await using subject = several(['a', 'b'])
    await subject.filled(0, 30)
    expect(subject.resident()).toEqual([30, 0])
    expect(subject.backups[0]!.stats().livePages).toBe(0)
  })

  it('takes from the pool that is furthest above its share first [T60]', async () => {
    await using subject = several(['a', 'b', 'c'], { pools: [{}, {}, { weight: 2 }] })
    expect(subject.budget.stats().pools.map(({ shareBytes }) => shareBytes / page)).toEqual([8, 8, 16])
    await subject.filled(0, 20)
    await subject.filled(1, 12)
    await subject.filled(2, 4)
    expect(subject.resident()).toEqual([16, 12, 4])
    await subject.filled(2, 12)
    // From then on each has its share, and makes room from itself.
    expect(subject.resident()).toEqual([8, 8, 16])
    await subject.filled(2, 12)
    expect(subject.resident()).toEqual([8, 8, 16])
  })

  it('lets a pool that only reads grow to its share, at the cost of one above [T60]', async () => {
    await using subject = several(['a', 'b'])
    const reader = await subject.filled(1, 24)
    await reader.backup()
    await subject.filled(0, 40)
    const clean = subject.pools[0]!
    const other = await clean.allocate(32 * page)
    await other.write(0, pattern(32 * page))
    await other.backup()
    await other.restore()
    for (let at = 0; at < 24; at++) await reader.read(at * page, new Uint8Array(page))
    expect(subject.resident()).toEqual([16, 16])
  })

  it('never takes what a pool has as its minimum, and its low mark only when nothing else is left', async () => {
    await using subject = several(['a', 'b'], {
      pools: [{ minBytes: 4 * page, lowBytes: 10 * page }, { weight: 7 }],
    })
    await subject.filled(0, 12)
    const large = await subject.filled(1, 20)
    expect(subject.resident()).toEqual([12, 20])
    const pin = await large.pin()
    const more = await subject.pools[1]!.allocate(12 * page, { label: 'more' })
    await more.write(0, pattern(2 * page))
    expect(subject.resident()).toEqual([10, 22])
    // Nothing else is left: down to the minimum, and not one page more.
    const second = await more.pin({ length: 8 * page })
    expect(subject.resident()).toEqual([4, 28])
    const refused = await caught(more.pin({ length: 9 * page, signal: AbortSignal.timeout(20) }))
    expect(refused).toMatchObject({ code: 'EINTR' })
    expect(subject.resident()[0]).toBe(4)
    pin.release()
    second.release()
  })

  it('counts the minimum of a pool into its share', async () => {
    await using subject = several(['a', 'b'], { pools: [{ minBytes: 16 * page }, {}] })
    expect(subject.budget.stats().pools.map(({ shareBytes }) => shareBytes / page)).toEqual([24, 8])
    await subject.filled(0, 20)
    await subject.filled(1, 12)
    await subject.filled(1, 4)
    expect(subject.resident()).toEqual([20, 12])
  })

  it('serves claims in the order in which they come, whatever their pools [T57]', async () => {
    await using subject = several(['a', 'b'])
    const held = await subject.filled(0, 32)
    const pin = await held.pin()
    const served: string[] = []
    const claims: Promise<unknown>[] = []
    for (const [index, label] of [
      [1, 'first'],
      [0, 'second'],
      [1, 'third'],
      [0, 'fourth'],
    ] as const) {
      const buffer = await subject.pools[index]!.allocate(4 * page, { label })
      claims.push(
        buffer.pin().then((got) => {
          served.push(label)
          return got
        }),
      )
    }
    await turns()
    expect(subject.budget.stats().waiters).toBe(4)
    pin.release()
    for (const got of (await Promise.all(claims)) as { release(): void }[]) got.release()
    expect(served).toEqual(['first', 'second', 'third', 'fourth'])
  })

  it('lets no claim of one pool overtake one of another, though there is room for it [T57]', async () => {
    await using subject = several(['a', 'b'])
    const pin = await (await subject.filled(0, 28)).pin()
    const large = await subject.pools[1]!.allocate(8 * page)
    const small = await subject.pools[0]!.allocate(page)
    const served: string[] = []
    const first = large.pin().then((got) => served.push('large') && got)
    const second = small.pin().then((got) => served.push('small') && got)
    await turns()
    expect(subject.budget.stats().waiters).toBe(2)
    pin.release()
    for (const got of await Promise.all([first, second])) (got as { release(): void }).release()
    expect(served).toEqual(['large', 'small'])
  })

  it('gives a pool below its share memory after at most one batch of each pool above its own [T60]', async () => {
    await using subject = several(['a', 'b', 'c'], { limitPages: 96 })
    await subject.filled(0, 48)
    await subject.filled(1, 48)
    const calls = () => subject.backups.map((backup) => backup.callsOf('backupPages'))
    const before = calls()
    const buffer = await subject.pools[2]!.allocate(16 * page)
    await buffer.write(0, pattern(page))
    const after = calls()
    expect(after.map((count, index) => count - before[index]!).every((count) => count <= 1)).toBe(true)
  })

  it('holds up no other pool when one waits for its own limit', async () => {
    await using subject = several(['a', 'b'], { pools: [{ limitBytes: 8 * page }] })
    const first = await subject.filled(0, 8)
    const pin = await first.pin()
    const second = await subject.pools[0]!.allocate(8 * page)
    const waiting = second.pin({ length: 4 * page })
    await turns()
    expect(subject.budget.stats().waiters).toBe(1)
    await subject.filled(1, 24)
    expect(subject.resident()).toEqual([8, 24])
    pin.release()
    ;(await waiting).release()
    expect(subject.pools[0]!.stats().inUseBytes).toBeLessThanOrEqual(8 * page)
  })

  it('has idle memory of one pool that serves another before anything is evicted [T15]', async () => {
    await using subject = several(['a', 'b'], { pools: [{ idleBytes: 16 * page }] })
    const buffer = await subject.filled(0, 16)
    await buffer.free()
    expect(subject.pools[0]!.stats().idleBytes).toBe(16 * page)
    await subject.filled(1, 32)
    expect(subject.resident()).toEqual([0, 32])
    expect(subject.pools[1]!.stats().evictedDirtyPages).toBe(0)
  })

  it('has what a backup of one pool freed a moment ago serve the others, and within the limit', async () => {
    const other = new FakeProvider()
    await using subject = several(['a', 'b', 'c'], { exact: true, pools: [{}, {}, { provider: other }] })
    const { budget, pools, provider } = subject
    const first = await subject.filled(0, 32)
    await first.backup()
    expect(pools[0]!.stats().retainedBytes).toBe(32 * page)
    // The same memory: nothing is asked of the system.
    const { pagesOut } = provider
    const second = await subject.filled(1, 20)
    expect([provider.pagesOut, pools[0]!.stats().retainedBytes]).toEqual([pagesOut, 12 * page])
    // Other memory: what is retained goes for it, as much as it takes.
    await subject.filled(2, 4)
    expect([pools[0]!.stats().retainedBytes, budget.stats().residentBytes]).toEqual([8 * page, 32 * page])
    await second.backup()
    await budget.setLimit(16 * page)
    expect(budget.stats().residentBytes).toBeLessThanOrEqual(16 * page)
    await pools[1]!.close()
    expect(pools[0]!.stats().retainedBytes).toBe(0)
  })

  it('passes over a pool that fails to store, and is refused when none can give, with what each says', async () => {
    await using subject = several(['a', 'b', 'c'])
    const pinned = await subject.filled(1, 6)
    await subject.filled(0, 20)
    await subject.filled(2, 6)
    subject.backups[0]!.inject({ method: 'backupPages', code: 'EIO' })
    const pin = await pinned.pin()
    const fourth = await subject.pools[2]!.allocate(16 * page, { label: 'wanting' })
    await fourth.write(0, pattern(4 * page))
    // From itself: the one above its share fails.
    expect(subject.resident()).toEqual([20, 6, 6])
    const refused = await caught(fourth.pin({ length: 12 * page }))
    expect(refused).toMatchObject({ code: 'ENOMEM', cause: { code: 'EIO' } })
    expect((refused as Error).message).toMatch(
      /pool a: its backup failed: .*; pool b: \d+ bytes cannot leave, pinned: buffer of b \(1 pins\); pool c: it has nothing to give; mend the backup, or release pins, or raise/,
    )
    pin.release()
  })
})

describe('a pool at its minimum', () => {
  it('keeps no claim of another waiting for a backup that nobody asks to store anything', async () => {
    await using subject = several(['a', 'b'], {
      pools: [
        { whenFull: 'fail', backup: undefined },
        { minBytes: 8 * page, whenFull: 'fail' },
      ],
    })
    const [claiming, least] = subject.pools
    await subject.filled(1, 8)
    subject.backups[1]!.inject({ method: 'backupPages', code: 'ETIMEDOUT' })
    expect(await least!.shrink(page)).toBe(0)
    subject.backups[1]!.heal()
    // Nothing of the other pool can leave: it has no backup.
    const kept = await claiming!.allocate(32 * page, { label: 'kept' })
    await kept.write(0, pattern(24 * page))
    expect(subject.resident()).toEqual([24, 8])
    expect(await caught(kept.write(24 * page, pattern(page)))).toMatchObject({ code: 'ENOMEM' })
    expect(subject.resident()).toEqual([24, 8])
  })
})

describe('pools that wait for each other', () => {
  it('are told who holds what when nothing can go on', async () => {
    await using subject = several(['a', 'b'])
    const one = await subject.filled(0, 16)
    const other = await subject.filled(1, 16)
    budgetOf(subject.budget).reclaim.stallWarning.delayMs = 1
    const warned = new Promise<Error & { code?: string }>((resolve) => process.once('warning', resolve))
    // Each task holds all that its pool has, and waits for more, which only the other could give up.
    const pins = [await one.pin(), await other.pin()]
    const leave = new AbortController()
    const { signal } = leave
    const more = await Promise.all(
      subject.pools.map((pool, index) => pool.allocate(page, { label: `more of ${index}` })),
    )
    const waiting = more.map((buffer) => caught(buffer.pin({ signal })))
    const warning = await warned
    expect(warning.code).toBe('SPILLWAY_WAITING_FOR_PINS')
    expect(warning.message).toBe(
      'budget shared: buffer more of 0 of pool a waits for memory, and all that could be evicted is pinned: buffer of a (1 pins) of pool a, buffer of b (1 pins) of pool b',
    )
    leave.abort()
    await Promise.all(waiting)
    for (const pin of pins) pin.release()
  })

  it("are refused with who holds what, with whenFull 'fail'", async () => {
    await using subject = several(['a', 'b'], { pools: [{ whenFull: 'fail' }, { whenFull: 'fail' }] })
    const pins = [await (await subject.filled(0, 16)).pin(), await (await subject.filled(1, 16)).pin()]
    for (const pool of subject.pools) {
      const refused = await caught((await pool.allocate(page, { label: 'more' })).pin())
      expect(refused).toMatchObject({ code: 'ENOMEM', buffer: 'more' })
      expect((refused as Error).message).toMatch(
        /pool a: 65536 bytes cannot leave, pinned: buffer of a \(1 pins\); pool b: 65536 .*buffer of b \(1 pins\); release pins, or/,
      )
    }
    for (const pin of pins) pin.release()
  })

  it('do not, when each wants more than half at once: one is served after the other', async () => {
    await using subject = several(['a', 'b'])
    const buffers = [await subject.filled(0, 24), await subject.filled(1, 24)]
    await Promise.all(
      buffers.map(async (buffer) => {
        for (let round = 0; round < 10; round++) {
          const pin = await buffer.pin()
          await turns(1)
          pin.release()
        }
      }),
    )
  })
})

describe('a budget whose pools come and go', () => {
  it('serves a pool that waits when another closes, and refuses the claims of the one that closes', async () => {
    await using subject = several(['a', 'b', 'c'])
    const held = await subject.filled(0, 32)
    const pin = await held.pin()
    const [, second, third] = subject.pools as [Pool, Pool, Pool]
    const ending = caught((await second.allocate(page, { label: 'ends' })).pin())
    const waiting = (await third.allocate(8 * page)).pin()
    await turns()
    await second.close()
    expect(await ending).toMatchObject({ code: 'EBADF' })
    expect(subject.budget.stats().pools.map(({ name }) => name)).toEqual(['a', 'c'])
    pin.release()
    await subject.pools[0]!.close()
    ;(await waiting).release()
  })

  it('has a lower limit when all pools have made room, and a higher one at once', async () => {
    await using subject = several(['a', 'b'], { exact: true })
    await subject.filled(0, 24)
    await subject.filled(1, 8)
    await subject.budget.setLimit(16 * page)
    expect(subject.budget.limitBytes).toBe(16 * page)
    expect(subject.resident()).toEqual([8, 8])
    await subject.budget.setLimit(64 * page)
    await subject.filled(1, 40)
    expect(subject.budget.stats().residentBytes).toBe(56 * page)
    const pin = await (await subject.filled(0, 20)).pin()
    await expect(subject.budget.setLimit(8 * page, { signal: AbortSignal.timeout(5) })).rejects.toMatchObject(
      {
        code: 'EINTR',
      },
    )
    expect(subject.budget.limitBytes).toBe(64 * page)
    pin.release()
  })

  it('has a pool sink its own limit without taking anything from others', async () => {
    await using subject = several(['a', 'b'], { pools: [{ limitBytes: 24 * page }] })
    await subject.filled(0, 20)
    await subject.filled(1, 12)
    expect(subject.pools[0]!.limitBytes).toBe(24 * page)
    await subject.pools[0]!.setLimit(8 * page)
    expect(subject.pools[0]!.limitBytes).toBe(8 * page)
    expect(subject.resident()).toEqual([8, 12])
    expect(subject.backups[1]!.stats().livePages).toBe(0)
  })

  it('has a pool that may have all of it sink to a limit of its own, which holds from then on', async () => {
    await using subject = several(['a', 'b'])
    const [pool] = subject.pools as [Pool]
    const buffer = await subject.filled(0, 24)
    await subject.filled(1, 8)
    const pin = await buffer.pin({ length: 16 * page })
    // A change that fails leaves it as it was: it may have all of the budget, however large that becomes.
    for (const failing of [AbortSignal.abort(), AbortSignal.timeout(5)])
      await expect(pool.setLimit(8 * page, { signal: failing })).rejects.toMatchObject({ code: 'EINTR' })
    await subject.budget.setLimit(64 * page)
    expect(pool.limitBytes).toBe(64 * page)
    pin.release()
    await Promise.all([
      expect(pool.setLimit(8 * page)).rejects.toMatchObject({ code: 'EINTR' }),
      pool.setLimit(12 * page),
    ])
    expect(pool.limitBytes).toBe(12 * page)
    expect(subject.resident()[0]).toBeLessThanOrEqual(12)
    for (let at = 0; at < 24; at++) await buffer.write(at * page, new Uint8Array(page).fill(1))
    expect(subject.resident()[0]).toBeLessThanOrEqual(12)
    expect(pool.verify()).toEqual([])
  })

  it('keeps no more idle memory than was set last', async () => {
    await using subject = several(['a'], { pools: [{ idleBytes: 32 * page }] })
    const pool = subject.pools[0]!
    const buffer = await subject.filled(0, 24)
    await buffer.free()
    expect(pool.stats().idleBytes).toBe(24 * page)
    await pool.setIdleBytes(4 * page)
    expect(pool.stats().idleBytes).toBe(4 * page)
    await expect(pool.setIdleBytes(-1)).rejects.toThrow(RangeError)
  })
})

describe('what a budget refuses', () => {
  const budget = new MemoryBudget({ limitBytes: 32 * page })
  const make = (options: Partial<PoolOptions>) => () => new Pool({ budget, maxOrder: 0, ...options })

  it('minima that do not fit into it: EDQUOT, when a pool comes and when it sinks', async () => {
    await using pool = make({ minBytes: 20 * page })()
    expect(make({ minBytes: 13 * page })).toThrow(expect.objectContaining({ code: 'EDQUOT' }))
    await expect(budget.setLimit(19 * page)).rejects.toMatchObject({ code: 'EDQUOT' })
    await using second = make({ minBytes: 12 * page })()
    expect([pool.limitBytes, second.limitBytes]).toEqual([32 * page, 32 * page])
  })

  it('a pool limit above its own: EDQUOT, when a pool comes and later', async () => {
    expect(make({ limitBytes: 33 * page })).toThrow(expect.objectContaining({ code: 'EDQUOT' }))
    await using pool = make({ limitBytes: 32 * page })()
    await expect(pool.setLimit(33 * page)).rejects.toMatchObject({ code: 'EDQUOT' })
    expect(make({ limitBytes: 'auto' })).toThrow(RangeError)
  })

  it('to be sent to another thread: DataCloneError, and what is no budget of this thread: EINVAL', () => {
    expect(() => structuredClone(budget)).toThrow(expect.objectContaining({ name: 'DataCloneError' }))
    expect(make({ budget: { ...budget } as MemoryBudget })).toThrow(
      expect.objectContaining({ code: 'EINVAL' }),
    )
    expect(make({ budget: null as unknown as MemoryBudget })).toThrow(
      expect.objectContaining({ code: 'EINVAL' }),
    )
  })

  it('memories of whole blocks beside others: ENOSYS before there is a buffer', async () => {
    const own = new MemoryBudget({ limitBytes: 32 * page })
    await using whole = new Pool({ budget: own, maxOrder: 2, provider: 'resizable' })
    await using same = new Pool({ budget: own, maxOrder: 1, provider: 'resizable' })
    await using other = new Pool({ budget: own, maxOrder: 2, provider: new FakeProvider() })
    await (await whole.allocate(page)).free()
    await (await same.allocate(page)).free()
    await expect(other.allocate(page)).rejects.toMatchObject({ code: 'ENOSYS' })
    await expect(same.setProvider(new FakeProvider())).rejects.toMatchObject({ code: 'EBUSY' })
  })

  it('numbers that are none: RangeError', () => {
    expect(make({ weight: 0 })).toThrow(/weight is 0/)
    expect(make({ minBytes: -1 })).toThrow(RangeError)
    expect(make({ lowBytes: 0.5 })).toThrow(RangeError)
    expect(make({ maxOrder: 6 })).toThrow(/at least one chunk/)
    expect(() => new MemoryBudget({ limitBytes: Number.NaN })).toThrow(RangeError)
    expect(() => new MemoryBudget({ limitBytes: 'auto', fraction: 1.5 })).toThrow(/fraction is 1.5/)
    expect(() => new MemoryBudget({ limitBytes: 1, fraction: 0.5 })).toThrow(/for limitBytes 'auto'/)
    expect(() => new MemoryBudget({} as never)).toThrow(
      "limitBytes is undefined; it must be a whole number of bytes, or 'auto'",
    )
    for (const open of [
      () => new MemoryBudget({ limitBytes: 'Auto' as never }),
      () => new Pool({ limitBytes: 'Auto' as never }),
    ])
      expect(open).toThrow("limitBytes is 'Auto'; it must be a whole number of bytes, or 'auto'")
  })
})
