import { describe, expect, it } from 'vitest'
import {
  type Backup,
  type FaultPlan,
  faultyBackup,
  kernelFaults,
  MemoryMedium,
  memoryBackup,
  nullBackup,
  type RandomFaults,
  seededRandom,
} from '../src/index.ts'

const pages = (count: number): Uint8Array => new Uint8Array(count * 4096)

/** The same calls on each backup; what came out of each. */
async function outcomes(plan: FaultPlan): Promise<string[]> {
  await using backup = faultyBackup(memoryBackup(), plan)
  const seen: string[] = []
  for (let call = 0; call < 40; call++) {
    const { handles, error } = await backup.backupPages([pages(1 + (call % 7))])
    seen.push(`${handles[0]?.count ?? 0} ${(error as { code?: string } | undefined)?.code}`)
    if (handles.length > 0) await backup.drop(handles).catch((failure) => seen.push(failure.code))
  }
  return seen
}

describe('faultyBackup', () => {
  it('T44: the kernel’s fault stops a backup half way, rounded up, one page included', async () => {
    await using backup = faultyBackup(nullBackup(), kernelFaults)
    for (const [asked, stored] of [
      [1, 1],
      [2, 1],
      [3, 2],
      [8, 4],
      [513, 257],
    ]) {
      const { handles, error } = await backup.backupPages([pages(asked)])
      expect(handles[0].count).toBe(stored)
      expect(error === undefined).toBe(asked === stored)
    }
  })

  it('T44: interrupts only a copy that can be interrupted', async () => {
    await using backup = faultyBackup(nullBackup(), { faults: [{ method: 'copyPages', code: 'EINTR' }] })
    const { handles } = await backup.backupPages([pages(2)])
    expect(await backup.copyPages(handles, [pages(2)])).toEqual({ copied: 2 })
    const { signal } = new AbortController()
    const interrupted = await backup.copyPages(handles, [pages(2)], { signal })
    expect(interrupted).toMatchObject({ copied: 0, error: { code: 'EINTR', retryable: true } })
  })

  it('T44, T11: runs out of memory inside a chunk', async () => {
    await using backup = faultyBackup(nullBackup(), {
      faults: [
        { method: 'backupPages', calls: [1], stop: 'first of chunk', code: 'ENOMEM' },
        { method: 'backupPages', calls: [2], stop: 'half of chunk', code: 'ENOMEM' },
        { method: 'backupPages', calls: [3], stop: 'half of chunk', code: 'ENOMEM' },
      ],
    })
    const spans = [pages(1), pages(5), pages(9)]
    expect((await backup.backupPages(spans)).handles[0].count).toBe(2)
    expect((await backup.backupPages(spans)).handles[0].count).toBe(4)
    // Where no chunk has an inside there is no fault.
    expect((await backup.backupPages([pages(1)])).error).toBeUndefined()
  })

  it('gives the same faults for the same seed, and tells the seed', async () => {
    const random = { rate: 0.5 }
    const first = await outcomes({ seed: 42, random })
    expect(await outcomes({ seed: 42, random })).toEqual(first)
    expect(await outcomes({ seed: 43, random })).not.toEqual(first)
    expect(first.some((outcome) => outcome.includes('EIO'))).toBe(true)
    await using unseeded = faultyBackup(memoryBackup(), { random: { rate: 1, codes: ['EIO'] } })
    expect(Number.isSafeInteger(unseeded.seed)).toBe(true)
    const { error } = await unseeded.backupPages([pages(1)])
    expect(error?.message).toContain(`seed ${unseeded.seed}`)
  })

  it('fails page k of call n with its code, and passes the other calls on', async () => {
    await using backup = faultyBackup(memoryBackup(), {
      faults: [{ method: 'backupPages', calls: [2], stop: 3, code: 'EDQUOT' }],
    })
    const results = []
    for (let call = 0; call < 3; call++) results.push(await backup.backupPages([pages(5)]))
    expect(results.map(({ handles }) => handles[0].count)).toEqual([5, 3, 5])
    expect(results.map(({ error }) => error !== undefined)).toEqual([false, true, false])
    expect(results[1].error).toMatchObject({ code: 'EDQUOT', page: 3, backup: 'memory' })
    expect(backup.stats().backedUpPages).toBe(13)
  })

  it('fails what does not move pages before it does anything, and close after it closed', async () => {
    const inner = memoryBackup()
    const backup = faultyBackup(inner, {
      faults: [
        { method: 'drop', code: 'EIO', times: 1 },
        { method: 'bytesAvailable', code: 'EAGAIN', times: 1 },
        { method: 'reserve', code: 'ENOSPC', times: 1 },
        { method: 'close', code: 'EIO' },
      ],
    })
    const { handles } = await backup.backupPages([pages(1)])
    await expect(backup.drop(handles)).rejects.toMatchObject({ code: 'EIO' })
    await backup.drop(handles)
    await expect(backup.bytesAvailable()).rejects.toMatchObject({ code: 'EAGAIN', retryable: true })
    expect(await backup.bytesAvailable()).toBe(2 ** 30)
    await expect(backup.reserve(4096)).rejects.toMatchObject({ code: 'ENOSPC' })
    expect((await backup.reserve(4096)).bytes).toBe(4096)
    await expect(backup.close()).rejects.toMatchObject({ code: 'EIO' })
    await expect(backup.close()).rejects.toMatchObject({ code: 'EIO' })
    await expect(inner.bytesAvailable()).rejects.toMatchObject({ code: 'EBADF' })
  })

  it('fails calls of images before they do anything', async () => {
    const backup = faultyBackup(memoryBackup({ medium: new MemoryMedium() }), {
      faults: (['save', 'load', 'remove'] as const).map((method) => ({ method, code: 'EIO', times: 1 })),
    })
    const images = backup.images!
    const content = { body: [{ index: 0, bytes: Uint8Array.of(1) }], keeps: [[]] }
    await expect(images.save('a', content)).rejects.toMatchObject({ code: 'EIO' })
    expect(await images.names()).toEqual([])
    const revision = await images.save('a', content)
    await expect(images.load('a')).rejects.toMatchObject({ code: 'EIO' })
    await expect(images.remove('a')).rejects.toMatchObject({ code: 'EIO' })
    expect((await images.load('a')).revision).toBe(revision)
    await backup.close()
  })

  it('waits as planned, and close waits for it', async () => {
    const waits: number[] = []
    let go = (): void => {}
    const inner = memoryBackup()
    const backup = faultyBackup(inner, {
      faults: [{ method: 'backupPages', delayMs: 30, times: 1 }],
      wait(delayMs) {
        waits.push(delayMs)
        return new Promise((resolve) => {
          go = resolve
        })
      },
    })
    const call = backup.backupPages([pages(1)])
    const closing = backup.close()
    expect(inner.stats().backedUpPages).toBe(0)
    go()
    expect((await call).error).toBeUndefined()
    await closing
    expect(waits).toEqual([30])
    await using real = faultyBackup(memoryBackup(), { faults: [{ method: 'drop', delayMs: 1 }] })
    await real.drop((await real.backupPages([pages(1)])).handles)
    expect(real.stats().livePages).toBe(0)
  })

  it('records the calls it saw, up to a number', async () => {
    await using backup = faultyBackup(memoryBackup(), {
      maxRecordedCalls: 2,
      faults: [{ method: 'backupPages', every: 2, stop: 1, code: 'EIO' }],
    })
    for (let call = 0; call < 3; call++) await backup.backupPages([pages(2)])
    const common = { method: 'backupPages', pages: 2, delayMs: 0 }
    expect(backup.calls).toEqual([
      { ...common, call: 2, code: 'EIO', stoppedAfter: 1 },
      { ...common, call: 3, code: undefined, stoppedAfter: undefined },
    ])
    expect(backup.callsOf('backupPages')).toBe(3)
    expect(backup.callsOf('drop')).toBe(0)
  })

  it('takes more faults on its way, and heals', async () => {
    await using backup = faultyBackup(memoryBackup(), { random: { rate: 1, codes: ['EIO'] } })
    expect((await backup.backupPages([pages(1)])).error).toBeDefined()
    backup.heal()
    expect((await backup.backupPages([pages(1)])).error).toBeUndefined()
    backup.inject({ method: 'backupPages', code: 'ENOSPC', times: 2 })
    expect((await backup.backupPages([pages(1)])).error).toMatchObject({ code: 'ENOSPC' })
    expect((await backup.backupPages([pages(1)])).error).toMatchObject({ code: 'ENOSPC' })
    expect((await backup.backupPages([pages(1)])).error).toBeUndefined()
  })

  it('an abort or a refusal of the backup inside goes before the fault', async () => {
    await using backup = faultyBackup(memoryBackup(), { faults: [{ method: 'backupPages', code: 'EIO' }] })
    const aborted = await backup.backupPages([pages(2)], { signal: AbortSignal.abort('why') })
    expect(aborted.error).toMatchObject({ code: 'EINTR', cause: 'why' })
    await expect(backup.backupPages([pages(1)], { nonsense: 1 } as never)).rejects.toThrow(TypeError)
    await expect(backup.backupPages([new Uint8Array(5)])).rejects.toThrow(RangeError)
  })

  it('refuses plans that make no sense, and names what is wrong', () => {
    const bad: [FaultPlan | object, RegExp][] = [
      [{ fault: [] }, /"fault"/],
      [{ seed: -1 }, /seed is -1/],
      [{ faults: [{ method: 'copy' }] }, /method copy/],
      [{ faults: [{ method: 'drop', code: 'EBROKEN' }] }, /EBROKEN/],
      [{ faults: [{ method: 'drop', calls: [0] }] }, /calls is 0/],
      [{ faults: [{ method: 'drop', every: 0.5 }] }, /every is 0.5/],
      [{ faults: [{ method: 'drop', times: 0 }] }, /times is 0/],
      [{ faults: [{ method: 'backupPages', stop: 'quarter' }] }, /stop is quarter/],
      [{ faults: [{ method: 'backupPages', stop: -1 }] }, /stop is -1/],
      [{ faults: [{ method: 'drop', delayMs: Number.NaN }] }, /delayMs is NaN/],
      [{ faults: [{ method: 'drop', when: 5 }] }, /"when"/],
      [{ random: { rate: 2 } }, /rate is 2/],
      [{ random: { rate: 1, methods: ['all'] } }, /method all/],
    ]
    for (const [plan, message] of bad)
      expect(() => faultyBackup(memoryBackup(), plan as FaultPlan)).toThrow(message)
    expect(() => faultyBackup(memoryBackup()).inject({ method: 'copy' } as never)).toThrow(TypeError)
  })
})

describe('seededRandom', () => {
  it('gives evenly spread numbers that depend on the seed alone', () => {
    const random = seededRandom(7)
    const numbers = Array.from({ length: 4000 }, random)
    const again = seededRandom(7)
    expect(numbers.every((number) => number === again() && number >= 0 && number < 1)).toBe(true)
    for (let decile = 0; decile < 10; decile++) {
      const count = numbers.filter((number) => Math.floor(number * 10) === decile).length
      expect(count).toBeGreaterThan(320)
      expect(count).toBeLessThan(480)
    }
  })
})

/** Starts a copy; what `startCopy` answered, and what `done` was told. */
function started(backup: Backup, first: number, count: number) {
  const told: { copied: number; code: unknown }[] = []
  const began = backup.startCopy?.(first, pages(count), (copied, error) => {
    told.push({ copied, code: (error as { code?: unknown } | undefined)?.code })
  })
  return { began, told }
}

describe('faultyBackup and copies that are started', () => {
  it('stops a started copy after the pages before the fault, which were really moved', async () => {
    const inner = memoryBackup()
    await using backup = faultyBackup(inner)
    const [{ first }] = (await backup.backupPages([pages(8)])).handles
    for (let stop = 0; stop < 8; stop++) {
      backup.inject({ method: 'copyPages', stop, code: 'EIO', times: 1 })
      const before = inner.stats().copiedPages
      expect(started(backup, first, 8)).toEqual({ began: true, told: [{ copied: stop, code: 'EIO' }] })
      expect(inner.stats().copiedPages - before).toBe(stop)
      expect(backup.calls.at(-1)).toMatchObject({ method: 'copyPages', code: 'EIO', stoppedAfter: stop })
    }
    expect(started(backup, first, 8)).toEqual({ began: true, told: [{ copied: 8, code: undefined }] })
    expect(backup.callsOf('copyPages')).toBe(9)
  })

  it('hands what it drew for a copy that it did not start to the call that follows', async () => {
    const inner: Backup = memoryBackup()
    const refusing = new Proxy(inner, {
      get(target, property) {
        if (property === 'startCopy') return () => false
        const value = target[property as keyof Backup]
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
    await using backup = faultyBackup(refusing, {
      faults: [{ method: 'copyPages', calls: [1, 3], stop: 1, code: 'EIO' }],
    })
    const handles = (await backup.backupPages([pages(2), pages(2)])).handles
    const [{ first }] = handles
    const other = first + 2
    expect(started(backup, first, 2)).toEqual({ began: false, told: [] })
    expect(started(backup, other, 2)).toEqual({ began: false, told: [] })
    const copy = (handle: number) => backup.copyPages([{ first: handle, count: 2 }], [pages(2)])
    expect(await copy(other)).toEqual({ copied: 2 })
    expect(await copy(first)).toMatchObject({ copied: 1, error: { code: 'EIO' } })
    expect(backup.callsOf('copyPages')).toBe(2)
    expect(backup.calls.slice(1).map(({ call, code }) => [call, code])).toEqual([
      [2, undefined],
      [1, 'EIO'],
    ])
    // Nothing is left of it: the next call draws for itself.
    expect(await copy(first)).toMatchObject({ copied: 1, error: { code: 'EIO' } })
  })

  it('does not start a copy that it delays or interrupts', async () => {
    await using backup = faultyBackup(memoryBackup(), {
      faults: [
        { method: 'copyPages', calls: [1], delayMs: 1 },
        { method: 'copyPages', calls: [2], code: 'EINTR' },
      ],
    })
    const { handles } = await backup.backupPages([pages(1)])
    const [{ first }] = handles
    expect(started(backup, first, 1)).toEqual({ began: false, told: [] })
    expect(await backup.copyPages(handles, [pages(1)])).toEqual({ copied: 1 })
    expect(backup.calls.at(-1)).toMatchObject({ delayMs: 1 })
    expect(started(backup, first, 1)).toEqual({ began: false, told: [] })
    const { signal } = new AbortController()
    const interrupted = await backup.copyPages(handles, [pages(1)], { signal })
    expect(interrupted).toMatchObject({ copied: 0, error: { code: 'EINTR' } })
  })

  it('meets the same faults whether copies are started or called, from the same seed', async () => {
    const told = async (starts: boolean): Promise<unknown[]> => {
      const random: RandomFaults = { rate: 0.4, methods: ['copyPages'], codes: ['EIO', 'ETIMEDOUT'] }
      await using backup = faultyBackup(memoryBackup(), { seed: 7, random })
      const seen: unknown[] = []
      const [{ first }] = (await backup.backupPages([pages(4)])).handles
      for (let call = 0; call < 12; call++) {
        if (starts) seen.push(...started(backup, first, 4).told)
        else {
          const { copied, error } = await backup.copyPages([{ first, count: 4 }], [pages(4)])
          seen.push({ copied, code: (error as { code?: unknown } | undefined)?.code })
        }
      }
      return seen
    }
    expect(await told(true)).toEqual(await told(false))
  })
})
