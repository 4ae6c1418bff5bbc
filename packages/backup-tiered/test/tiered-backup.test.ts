import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { type Backup, type FaultPlan, faultyBackup, type HandleRun, memoryBackup } from '@spillway/core'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { type TieredBackup, type TieredBackupOptions, tieredBackup } from '../src/index.ts'

const pageBytes = 4096

const opened: TieredBackup[] = []
afterEach(async () => {
  for (const backup of opened.splice(0)) await backup.close()
})

function tiered(options: TieredBackupOptions): TieredBackup {
  const backup = tieredBackup(options)
  opened.push(backup)
  return backup
}

function memory(pages: number, name = 'memory'): Backup {
  return memoryBackup({ capacityBytes: pages * pageBytes, name })
}

/** Faults that begin and end when the test says so. */
function switchable(inner: Backup, ...methods: ('backupPages' | 'copyPages' | 'drop')[]) {
  const plan: FaultPlan = { faults: methods.map((method) => ({ method, code: 'EIO' })) }
  const broken = faultyBackup(inner, plan)
  let isBroken = false
  const backup: Backup = {
    name: inner.name,
    capabilities: inner.capabilities,
    backupPages: (spans, options) => (isBroken ? broken : inner).backupPages(spans, options),
    copyPages: (handles, spans, options) => (isBroken ? broken : inner).copyPages(handles, spans, options),
    drop: (handles) => (isBroken ? broken : inner).drop(handles),
    bytesAvailable: () => inner.bytesAvailable(),
    reserve: (bytes) => inner.reserve(bytes),
    stats: () => inner.stats(),
    close: () => inner.close(),
    [Symbol.asyncDispose]: () => inner.close(),
  }
  return {
    backup,
    fail: (fails: boolean) => {
      isBroken = fails
    },
  }
}

/** Calls of one method stop before they begin until they are let through. */
function gated(inner: Backup, method: 'backupPages' | 'copyPages') {
  const waiting: (() => void)[] = []
  let isClosed = false
  const pass = async () => {
    if (isClosed) await new Promise<void>((resolve) => waiting.push(resolve))
  }
  const { backup } = switchable(inner)
  const copyPages: Backup['copyPages'] = async (handles, spans, options) => {
    if (method === 'copyPages') await pass()
    return await inner.copyPages(handles, spans, options)
  }
  const backupPages: Backup['backupPages'] = async (spans, options) => {
    if (method === 'backupPages') await pass()
    return await inner.backupPages(spans, options)
  }
  return {
    backup: { ...backup, copyPages, backupPages },
    close: () => {
      isClosed = true
    },
    open: () => {
      isClosed = false
      for (const resolve of waiting.splice(0)) resolve()
    },
    letThrough: (index: number) => {
      for (const resolve of waiting.splice(index, 1)) resolve()
    },
    get waiting() {
      return waiting.length
    },
  }
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let turns = 0; !holds(); turns++) {
    if (turns > 10_000) throw new Error(`never: ${what}`)
    // The mover pauses for half a second when it failed: more turns than anybody would count.
    await (turns < 1_000 ? turn() : sleep(1))
  }
}

/** Pages that each say which they are. */
function pagesOf(count: number, from = 0): Uint8Array {
  const bytes = new Uint8Array(count * pageBytes)
  const words = new Uint32Array(bytes.buffer)
  for (let page = 0; page < count; page++) words.fill(1 + from + page, page * 1024, page * 1024 + 1024)
  return bytes
}

async function store(backup: Backup, count: number, from = 0): Promise<HandleRun> {
  const { handles, error } = await backup.backupPages([pagesOf(count, from)])
  expect(error).toBeUndefined()
  expect(handles).toHaveLength(1)
  return handles[0]
}

async function expectPages(backup: Backup, run: HandleRun, from = 0): Promise<void> {
  const bytes = new Uint8Array(run.count * pageBytes)
  expect(await backup.copyPages([run], [bytes])).toEqual({ copied: run.count })
  expect(Buffer.compare(bytes, pagesOf(run.count, from))).toBe(0)
}

const livePages = (backup: TieredBackup) => backup.stats().tiers.map((tier) => tier.livePages)

describe('moving on', () => {
  it('moves the oldest pages of a tier above its high mark on, until it is at its low one', async () => {
    const backup = tiered({
      tiers: [{ backup: memory(100), highMark: 0.9, lowMark: 0.5 }, memory(1000)],
    })
    const run = await store(backup, 96)
    await until('moved', () => backup.stats().tiers[0].livePages === 50)
    const { tiers, movedBytes, stagingBytes } = backup.stats()
    expect(tiers[1]).toMatchObject({ livePages: 46, movedInPages: 46, movedOutPages: 0 })
    expect(tiers[0]).toMatchObject({ movedInPages: 0, movedOutPages: 46 })
    expect(movedBytes).toBe(46 * pageBytes)
    expect(stagingBytes).toBe(4 * 2 ** 20)
    await expectPages(backup, run)
    // The oldest are those that were stored first.
    expect(backup.stats().tiers.map(({ hits }) => hits)).toEqual([50, 46])
    await backup.copyPages([{ first: run.first, count: 46 }], [new Uint8Array(46 * pageBytes)])
    expect(backup.stats().tiers.map(({ hits }) => hits)).toEqual([50, 92])
  })

  it('takes marks above 1 as bytes', async () => {
    const backup = tiered({
      tiers: [{ backup: memory(1000), highMark: 64 * pageBytes, lowMark: 10 * pageBytes }, memory(1000)],
    })
    await store(backup, 65)
    await until('moved', () => backup.stats().tiers[0].livePages === 10)
    expect(livePages(backup)).toEqual([10, 55])
  })

  it('goes on in the next tier where one is full, and cascades over three', async () => {
    const tiers = [memory(40, 'one'), memory(40, 'two'), memory(1000, 'three')]
    const backup = tiered({ tiers })
    const run = await store(backup, 100)
    await until('moved', () => livePages(backup)[0] <= 32 && livePages(backup)[1] <= 36)
    await expectPages(backup, run)
    await backup.drop([run])
    await until('dropped', () => tiers.every((tier) => tier.stats().livePages === 0))
  })

  it('moves no more in a second than it may: one page, where that is more', async () => {
    const backup = tiered({
      tiers: [{ backup: memory(100), highMark: 0.1, lowMark: 0 }, memory(1000)],
      moveBytesPerSecond: 1,
    })
    await store(backup, 80)
    await until('moved', () => backup.stats().movedBytes > 0)
    for (let turns = 0; turns < 50; turns++) await turn()
    expect(backup.stats()).toMatchObject({ movedBytes: pageBytes, stagingBytes: pageBytes })
  })

  it('keeps the old copy for a read that uses it, and drops it then', async () => {
    const inner = memory(100)
    const fast = gated(inner, 'copyPages')
    const backup = tiered({ tiers: [{ backup: fast.backup, highMark: 0.5, lowMark: 0 }, memory(1000)] })
    const run = await store(backup, 40)
    const bytes = new Uint8Array(40 * pageBytes)
    fast.close()
    const read = backup.copyPages([run], [bytes])
    await until('reading', () => fast.waiting === 1)
    const later = await store(backup, 30, 40)
    await until('read for the move', () => fast.waiting === 2)
    fast.letThrough(1)
    await until('moved', () => backup.stats().tiers[0].livePages === 0)
    for (let turns = 0; turns < 5; turns++) await turn()
    expect(inner.stats().livePages).toBe(70)
    fast.open()
    expect(await read).toEqual({ copied: 40 })
    expect(Buffer.compare(bytes, pagesOf(40))).toBe(0)
    await until('dropped', () => inner.stats().livePages === 0)
    await expectPages(backup, run)
    await expectPages(backup, later, 40)
  })

  it('drops both copies of a page that is dropped while it moves', async () => {
    const inner = memory(100)
    const slowInner = memory(1000)
    const slow = gated(slowInner, 'backupPages')
    const backup = tiered({ tiers: [{ backup: inner, highMark: 0.5, lowMark: 0 }, slow.backup] })
    slow.close()
    const run = await store(backup, 64)
    await until('moving', () => slow.waiting === 1)
    await backup.drop([{ first: run.first, count: 20 }])
    await backup.drop([{ first: run.first + 30, count: 1 }])
    slow.open()
    await until('moved', () => backup.stats().tiers[1].livePages === 43 && inner.stats().livePages === 0)
    expect(slowInner.stats().livePages).toBe(43)
    await expectPages(backup, { first: run.first + 20, count: 10 }, 20)
    await expectPages(backup, { first: run.first + 31, count: 33 }, 31)
  })

  it('lets a store wait for the room of a move, and settles it when it is aborted', async () => {
    const slow = gated(memory(64), 'backupPages')
    const backup = tiered({ tiers: [{ backup: memory(100), highMark: 0.5, lowMark: 0.4 }, slow.backup] })
    slow.close()
    await store(backup, 100)
    await until('moving', () => slow.waiting === 1)
    const controller = new AbortController()
    const full = backup.backupPages([pagesOf(10, 100)], { signal: controller.signal })
    // The first look finds that the fast tier is full; the slow one does not answer.
    await until('stored', () => slow.waiting === 2)
    controller.abort()
    slow.open()
    const { handles, error } = await full
    expect(error === undefined || error).toSatisfy((told) => told === true || told.code === 'EINTR')
    expect(handles.reduce((pages, { count }) => pages + count, 0) === 10).toBe(error === undefined)
  })
})

describe('promotion', () => {
  const options = () => [{ backup: memory(100), highMark: 0.5, lowMark: 0.2 }, memory(1000)]

  it("moves a page that is read a second time from a slower tier to the first: 'second'", async () => {
    const backup = tiered({ tiers: options(), promote: 'second' })
    const run = await store(backup, 90)
    await until('moved', () => livePages(backup)[0] === 20)
    const page = { first: run.first + 3, count: 1 }
    await expectPages(backup, page, 3)
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(livePages(backup)).toEqual([20, 70])
    await expectPages(backup, page, 3)
    await until('promoted', () => livePages(backup)[0] === 21)
    const { hits } = backup.stats().tiers[0]
    await expectPages(backup, page, 3)
    expect(backup.stats().tiers[0]).toMatchObject({ hits: hits + 1, movedInPages: 1 })
    await expectPages(backup, run)
  })

  it("leaves pages where they are: 'never'", async () => {
    const backup = tiered({ tiers: options() })
    const run = await store(backup, 90)
    await until('moved', () => livePages(backup)[0] === 20)
    for (let reads = 0; reads < 3; reads++) await expectPages(backup, { first: run.first, count: 1 })
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(livePages(backup)).toEqual([20, 70])
  })
})

describe('tiers that fail', () => {
  it('passes by a tier that refuses to store, tells no room of it, and comes back to it', async () => {
    const fast = switchable(memory(100), 'backupPages')
    const backup = tiered({ tiers: [fast.backup, memory(50)] })
    fast.fail(true)
    const run = await store(backup, 20)
    expect(backup.stats().tiers[0]).toMatchObject({ livePages: 0, errors: 1, isPassedBy: true })
    expect(await backup.bytesAvailable()).toBe(30 * pageBytes)
    fast.fail(false)
    await until('it is asked again', () => !backup.stats().tiers[0].isPassedBy)
    await store(backup, 20, 20)
    expect(livePages(backup)).toEqual([20, 20])
    await expectPages(backup, run)
  })

  it('says EIO for pages in a tier that cannot be read, serves the others, and has them when it can', async () => {
    const slow = switchable(memory(100), 'copyPages')
    const backup = tiered({ tiers: [memory(10), slow.backup], moveBytesPerSecond: 1 })
    const run = await store(backup, 20)
    slow.fail(true)
    await expectPages(backup, { first: run.first + 1, count: 9 }, 1)
    const bytes = new Uint8Array(20 * pageBytes)
    const { copied, error } = await backup.copyPages([run], [bytes])
    expect(copied).toBe(10)
    expect(error).toMatchObject({ code: 'EIO', backup: 'tiered', page: 10 })
    expect(backup.stats().tiers[1].errors).toBe(1)
    slow.fail(false)
    await expectPages(backup, run)
  })

  it('tries pages again that a tier would not drop, when another did; and rejects when the first would not', async () => {
    const inner = memory(100)
    const slow = switchable(inner, 'drop')
    const backup = tiered({ tiers: [memory(10), slow.backup], moveBytesPerSecond: 1 })
    const run = await store(backup, 30)
    slow.fail(true)
    const inSlow = { first: run.first + 20, count: 10 }
    await expect(backup.drop([inSlow])).rejects.toMatchObject({ code: 'EIO', backup: 'tiered' })
    await expectPages(backup, inSlow, 20)
    await backup.drop([{ first: run.first, count: 20 }])
    expect(backup.stats().tiers[1]).toMatchObject({ livePages: 10, refusedPages: 10 })
    slow.fail(false)
    await until('dropped', () => inner.stats().livePages === 10)
    await expectPages(backup, inSlow, 20)
  })

  it('moves nothing while there is no memory to move by, and moves the same pages when there is', async () => {
    let refusals = 0
    const refusing: ProxyHandler<Uint8ArrayConstructor> = {
      construct: (real, args, made) => {
        if (args[0] !== 4 * 2 ** 20) return Reflect.construct(real, args, made)
        refusals++
        throw new RangeError('Array buffer allocation failed')
      },
    }
    const backup = tiered({ tiers: [{ backup: memory(100), highMark: 0.9, lowMark: 0.5 }, memory(1000)] })
    vi.stubGlobal('Uint8Array', new Proxy(Uint8Array, refusing))
    let run: HandleRun
    try {
      run = await store(backup, 96)
      await until('refused', () => refusals > 0)
    } finally {
      vi.unstubAllGlobals()
    }
    expect(livePages(backup)).toEqual([96, 0])
    await until('moved', () => backup.stats().tiers[0].livePages === 50)
    await expectPages(backup, run)
  })

  it('stops a store at the page whose memory is gone, and loses none that was stored', async () => {
    const tiers = [memory(4, 'fast'), memory(100, 'slow')]
    const slow = gated(tiers[1], 'backupPages')
    const backup = tiered({ tiers: [{ backup: tiers[0], highMark: 1 }, slow.backup] })
    slow.close()
    const bytes = pagesOf(8)
    const stored = backup.backupPages([bytes])
    await until('storing', () => slow.waiting === 1)
    structuredClone(bytes, { transfer: [bytes.buffer as ArrayBuffer] })
    slow.open()
    const { handles, error } = await stored
    expect(handles).toMatchObject([{ count: 4 }])
    expect(error).toBeDefined()
    await backup.drop(handles)
    expect(tiers.map((tier) => tier.stats().livePages)).toEqual([0, 0])
  })
})

describe('reservations', () => {
  it('are in one tier where it has the room, else in several, and draw from each', async () => {
    const tiers = [memory(10, 'one'), memory(30, 'two')]
    const backup = tiered({ tiers, moveBytesPerSecond: 1 })
    const small = await backup.reserve(25 * pageBytes)
    expect(await tiers[0].bytesAvailable()).toBe(10 * pageBytes)
    await small.release()
    const split = await backup.reserve(35 * pageBytes)
    expect(split.bytes).toBe(35 * pageBytes)
    expect(await backup.bytesAvailable()).toBe(5 * pageBytes)
    const { handles, error } = await backup.backupPages([pagesOf(35)], { reservation: split })
    expect({ error, bytes: split.bytes }).toEqual({ error: undefined, bytes: 0 })
    await split.release()
    await expect(backup.reserve(6 * pageBytes)).rejects.toMatchObject({ code: 'ENOSPC', backup: 'tiered' })
    expect(await backup.bytesAvailable()).toBe(5 * pageBytes)
    await expectPages(backup, handles[0])
  })
})

describe('bad input', () => {
  const other = () => memoryBackup({ capacityBytes: 2 ** 20, pageSizeBytes: 8192 })
  const one = memory(4)
  const cases: [string, TieredBackupOptions, RegExp][] = [
    ['no tiers', { tiers: [] }, /at least one tier/],
    ['nothing', { tiers: undefined as never }, /at least one tier/],
    ['a tier that is none', { tiers: [{} as never] }, /made of a backup/],
    ['an undefined tier', { tiers: [undefined as never] }, /tier 0/],
    ['other page sizes', { tiers: [memory(4), other()] }, /tier 1 has pages of 8192 bytes/],
    ['one twice', { tiers: [one, memory(4), one] }, /tier 2 is memory, which is another tier already/],
    [
      'marks out of order',
      { tiers: [{ backup: memory(4), highMark: 0.5, lowMark: 0.6 }, one] },
      /lowMark of tier 0/,
    ],
    [
      'marks of two kinds',
      { tiers: [{ backup: memory(4), highMark: 4096, lowMark: 0.6 }, one] },
      /of its kind/,
    ],
    [
      'a mark that is none',
      { tiers: [{ backup: memory(4), highMark: Number.NaN }, one] },
      /highMark of tier 0/,
    ],
    ['marks of the last', { tiers: [memory(4), { backup: one, highMark: 0.5 }] }, /tier 1 is the last/],
    ['no rate', { tiers: [one], moveBytesPerSecond: 0 }, /moveBytesPerSecond is 0/],
    ['promotion', { tiers: [one], promote: 'first' as never }, /promote is first/],
    ['an unknown option', { tiers: [one], mark: 1 } as never, /mark/],
    ['an empty name', { tiers: [one], name: '' }, /name/],
  ]
  for (const [what, options, message] of cases) {
    it(`is refused with what would be right: ${what}`, () => {
      expect(() => tieredBackup(options)).toThrow(message)
    })
  }

  it('says EBADF for a tier that was closed', async () => {
    const inner = memory(4)
    const backup = tiered({ tiers: [inner] })
    await inner.close()
    expect((await backup.backupPages([pagesOf(1)])).error).toMatchObject({ code: 'EBADF' })
  })
})

it('keeps at most two bytes for a page in whole chunks', async () => {
  const backup = tiered({ tiers: [{ backup: memory(2 ** 13), highMark: 1 }, memory(4)] })
  for (let chunk = 0; chunk < 128; chunk++) await store(backup, 64, chunk)
  expect(backup.stats().metadataBytes / 2 ** 13).toBeLessThan(2)
})
