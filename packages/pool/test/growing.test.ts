import { faultyBackup, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type GrowableBuffer, type PagedBuffer, Pool, type PoolOptions } from '../src/index.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'
import { aborted } from './support/setup.ts'

const maxBytes = 2 ** 40

async function growing(
  options: Partial<PoolOptions> = {},
  buffer: { sizeBytes?: number; maxBytes?: number } = {},
) {
  const backup = faultyBackup(memoryBackup({ capacityBytes: 2 ** 26 }))
  const pool = new Pool({ limitBytes: 32 * page, maxOrder: 3, provider: 'resizable', backup, ...options })
  const log = await pool.allocate(buffer.sizeBytes ?? 0, {
    growable: true,
    maxBytes: buffer.maxBytes ?? maxBytes,
    label: 'log',
  })
  return {
    backup,
    pool,
    log,
    async [Symbol.asyncDispose]() {
      backup.heal()
      expect(pool.verify()).toEqual([])
      await pool.close()
      expect(backup.stats().livePages).toBe(0)
    },
  }
}

async function contentOf(buffer: PagedBuffer): Promise<Uint8Array> {
  const bytes = new Uint8Array(buffer.sizeBytes)
  await buffer.read(0, bytes)
  return bytes
}

async function expectContent(buffer: GrowableBuffer, expected: Uint8Array): Promise<void> {
  expect(buffer.lengthBytes).toBe(expected.byteLength)
  expect(firstDifference(await contentOf(buffer), expected)).toBe(-1)
}

/** A source that gives a piece each time it is told to. */
function stepwise() {
  let told = Promise.withResolvers<Uint8Array | undefined | Error>()
  let asked = Promise.withResolvers<void>()
  let isLeft = false
  const tell = async (answer: Uint8Array | undefined | Error) => {
    await asked.promise
    asked = Promise.withResolvers()
    told.resolve(answer)
  }
  async function* source() {
    try {
      for (;;) {
        asked.resolve()
        const answer = await told.promise
        told = Promise.withResolvers()
        if (answer instanceof Error) throw answer
        if (answer === undefined) return
        yield answer
      }
    } finally {
      isLeft = true
    }
  }
  return {
    source: source(),
    give: (bytes: Uint8Array) => tell(bytes),
    end: () => tell(undefined),
    fail: (error: Error) => tell(error),
    /** Until it is asked for the next piece: what it gave is written then. */
    asked: () => asked.promise,
    get isLeft() {
      return isLeft
    },
  }
}

describe('a buffer that grows', () => {
  it('says where appended bytes are, and has them', async () => {
    await using made = await growing()
    const { log } = made
    expect([log.lengthBytes, log.sizeBytes, log.maxBytes]).toEqual([0, 0, maxBytes])
    expect(await log.append('hello ')).toBe(0)
    expect(await log.append(new Blob(['wor', 'ld']))).toBe(6)
    expect(await log.append([33, 'a', new Uint8Array([98])])).toBe(11)
    expect(await log.append(new Blob(['cd']).stream())).toBe(14)
    expect(await log.append('')).toBe(16)
    expect(new TextDecoder().decode(await contentOf(log))).toBe('hello world!abcd')
  })

  it('grows far past the limit, and past the segments of its page table', async () => {
    await using made = await growing({ maxOrder: 0, limitBytes: 64 * page })
    const { log, pool } = made
    const bytes = pattern(9 * 2 ** 20 + 13)
    for (let at = 0; at < bytes.byteLength; at += 2 ** 20) {
      expect(await log.append(bytes.subarray(at, at + 2 ** 20))).toBe(at)
      expect(pool.stats().residentBytes).toBeLessThanOrEqual(pool.limitBytes)
    }
    expect(pool.verify()).toEqual([])
    await expectContent(log, bytes)
  })

  it('begins with zeros when it is not made empty, and with what `from` gives', async () => {
    await using made = await growing({}, { sizeBytes: page + 7 })
    const { log, pool } = made
    expect(await log.append('x')).toBe(page + 7)
    await expectContent(log, Uint8Array.from([...new Uint8Array(page + 7), 120]))
    const upload = await pool.allocate(0, { growable: true, maxBytes: 100, from: new Blob(['abc']).stream() })
    await expectContent(upload, new TextEncoder().encode('abc'))
    const tooMuch = pool.allocate(0, { growable: true, maxBytes: 2, from: 'abc' })
    await expect(tooMuch).rejects.toMatchObject({ code: 'EFBIG' })
    expect(pool.stats().buffers).toBe(2)
  })

  it('ends for all calls where its length is', async () => {
    await using made = await growing()
    const { log, pool } = made
    await log.append(pattern(page + 10))
    const fixed = await pool.allocate(page)
    const one = new Uint8Array(1)
    const calls = [
      () => log.read(page + 10, one),
      () => log.write(page + 10, one),
      () => log.write(page + 9, new Uint8Array(2)),
      () => log.fill(1, { offset: page, length: 11 }),
      () => log.pin({ offset: page + 10, length: 1 }),
      () => log.copyTo(fixed, { offset: page + 10, length: 1 }),
      () => fixed.copyTo(log, { targetOffset: page + 10, length: 1 }),
      () => log.purge({ length: 2 * page }),
      async () => log.readable({ offset: page + 11 }),
      async () => log.typed(Uint8Array, { length: page + 11 }),
      async () => log.advise('willneed', { length: page + 11 }),
    ]
    for (const call of calls) await expect(call()).rejects.toThrow(RangeError)
    expect(log.map().length).toBe(1)
    expect(pool.maps()[0]).toMatchObject({ label: 'log', sizeBytes: page + 10 })
    expect(pool.verify()).toEqual([])
  })

  it('refuses options that make no sense', async () => {
    await using made = await growing()
    const { pool } = made
    const wrong: [unknown, typeof Error][] = [
      [{ growable: true }, TypeError],
      [{ maxBytes: 1 }, TypeError],
      [{ growable: 'yes', maxBytes: 1 }, TypeError],
      [{ growable: true, maxBytes: 1.5 }, RangeError],
      [{ growable: true, maxBytes: 2 ** 50 }, RangeError],
      [{ growable: true, maxBytes: 4 }, RangeError],
    ]
    for (const [options, error] of wrong)
      await expect(pool.allocate(5, options as { growable: true; maxBytes: number })).rejects.toThrow(error)
    // @ts-expect-error A buffer that does not grow has no append.
    expect((await pool.allocate(5)).append).toBe(undefined)
  })

  it('is not saved', async () => {
    await using made = await growing()
    await expect(made.log.save('log')).rejects.toMatchObject({ code: 'ENOTSUP' })
  })

  it('costs next to nothing before it grows, and at most 8 bytes a page and 16 KiB when it has grown', async () => {
    for (const maxOrder of [0, 9]) {
      const backup = memoryBackup()
      await using pool = new Pool({ limitBytes: 2 ** 22, maxOrder, backup, provider: 'resizable' })
      // What is known of chunks does not grow with a buffer; the records that the pool has once are there from now on.
      const other = await pool.allocate(2 ** 23)
      await other.fill(1)
      await other.free()
      const before = pool.stats().metadataBytes
      const log = await pool.allocate(0, {
        growable: true,
        maxBytes: maxOrder === 0 ? 2 ** 40 : 2 ** 44,
        maxOrder,
      })
      expect(pool.stats().metadataBytes - before).toBeLessThan(2048)
      await log.append('x')
      await log.backup()
      const small = pool.stats().metadataBytes
      for (let mebibytes = 0; mebibytes < 20; mebibytes++) await log.append(new Uint8Array(2 ** 20).fill(1))
      await log.backup()
      const pages = log.lengthBytes / page
      expect(pool.stats().metadataBytes - before).toBeLessThan(8 * pages + 16 * 1024)
      await log.truncate(0)
      expect(pool.stats().metadataBytes - before).toBeLessThan(small + 8 * pages)
      await pool.close()
    }
  })
})

describe('appends', () => {
  it('run in the order of the calls, whatever each waits for', async () => {
    await using made = await growing()
    const { log } = made
    const slow = stepwise()
    const settled: number[] = []
    const calls = [
      log.append(slow.source),
      log.append('second'),
      log.append(new Blob(['third'])),
      log.append('!'),
    ]
    calls.forEach((call, index) => void call.then(() => settled.push(index)))
    await slow.give(new TextEncoder().encode('fir'))
    await slow.give(new TextEncoder().encode('st'))
    await slow.asked()
    expect([log.lengthBytes, settled]).toEqual([0, []])
    await slow.end()
    expect(await Promise.all(calls)).toEqual([0, 5, 11, 16])
    expect(settled).toEqual([0, 1, 2, 3])
    expect(new TextDecoder().decode(await contentOf(log))).toBe('firstsecondthird!')
  })

  it('show nothing before all bytes are there, and nothing of what failed', async () => {
    await using made = await growing()
    const { log, pool } = made
    const bytes = pattern(page + 100)
    await log.append(bytes)
    const source = stepwise()
    const call = log.append(source.source)
    const failed = call.catch((error: unknown) => error)
    await source.give(new Uint8Array(20 * page).fill(7))
    await source.asked()
    await expectContent(log, bytes)
    await expect(log.read(page + 100, new Uint8Array(1))).rejects.toThrow(RangeError)
    const error = new Error('connection lost')
    await source.fail(error)
    expect(await failed).toBe(error)
    await expectContent(log, bytes)
    await log.append('x')
    expect(pool.stats().residentBytes + pool.stats().backedUpBytes).toBeLessThanOrEqual(8 * page)
    await expectContent(log, Uint8Array.from([...bytes, 120]))
  })

  it('beyond maxBytes are EFBIG, and change nothing', async () => {
    await using made = await growing({}, { maxBytes: 3 * page })
    const { log } = made
    const bytes = pattern(3 * page)
    await log.append(bytes.subarray(0, 2 * page))
    const tooMuch = [
      new Uint8Array(page + 1),
      new Blob([new Uint8Array(page + 1)]),
      [new Uint8Array(page), 'x'],
      new Blob([new Uint8Array(page + 1)]).stream(),
    ]
    for (const source of tooMuch) {
      await expect(log.append(source)).rejects.toMatchObject({ code: 'EFBIG', buffer: 'log' })
      await expectContent(log, bytes.subarray(0, 2 * page))
    }
    expect(await log.append(bytes.subarray(2 * page))).toBe(2 * page)
    await expect(log.append('x')).rejects.toMatchObject({ code: 'EFBIG' })
    await expectContent(log, bytes)
  })

  it('that are aborted at any point leave what was there', async () => {
    const before = pattern(2 * page + 5, 3)
    const pieces = [pattern(page, 4), pattern(9 * page, 5), pattern(40 * page, 6)]
    let wasThrough = false
    for (let ticks = 0; !wasThrough; ticks = ticks < 40 ? ticks + 1 : Math.ceil(ticks * 1.3)) {
      await using made = await growing({ limitBytes: 16 * page })
      const { log } = made
      await log.append(before)
      const controller = new AbortController()
      const call = log.append(new Blob(pieces as Uint8Array<ArrayBuffer>[]).stream(), {
        signal: controller.signal,
      })
      const next = log.append('next')
      const settled = call.then(
        () => 'done',
        (error: { name: string }) => error.name,
      )
      for (let tick = 0; tick < ticks; tick++) await null
      controller.abort()
      const outcome = await settled
      expect(['done', 'AbortError']).toContain(outcome)
      wasThrough = outcome === 'done' || ticks > 20_000
      const appended = outcome === 'done' ? pieces : []
      const expected = Buffer.concat([before, ...appended, Buffer.from('next')])
      expect(await next).toBe(expected.byteLength - 4)
      await expectContent(log, expected)
    }
  })

  it('in the line are aborted alone, and those behind keep their place', async () => {
    await using made = await growing()
    const { log } = made
    const source = stepwise()
    const controller = new AbortController()
    const first = log.append(source.source)
    const second = log.append('second', { signal: controller.signal })
    const third = log.append('third')
    await source.give(new TextEncoder().encode('first'))
    controller.abort()
    await expect(second).rejects.toMatchObject({ name: 'AbortError', code: 'EINTR' })
    await expect(log.append('x', { signal: aborted() })).rejects.toMatchObject({ code: 'EINTR' })
    await source.asked()
    expect(log.lengthBytes).toBe(0)
    await source.end()
    expect(await Promise.all([first, third])).toEqual([0, 5])
    expect(new TextDecoder().decode(await contentOf(log))).toBe('firstthird')
  })

  it('that the backup fails change nothing, and the next one goes on', async () => {
    await using made = await growing({ limitBytes: 16 * page })
    const { log, backup, pool } = made
    const bytes = pattern(12 * page + 9)
    await log.append(bytes)
    backup.inject({ method: 'backupPages', code: 'EIO' })
    for (let round = 0; round < 3; round++) {
      await expect(log.append(pattern(40 * page), { retryMayFail: true })).rejects.toMatchObject({
        code: 'ENOMEM',
      })
      expect(log.lengthBytes).toBe(bytes.byteLength)
    }
    backup.heal()
    await expectContent(log, bytes)
    expect(await log.append(bytes)).toBe(bytes.byteLength)
    await expectContent(log, Buffer.concat([bytes, bytes]))
    expect(pool.verify()).toEqual([])
  })

  it.each(['free', 'close'] as const)(
    'that wait for their source or their turn are EBADF after %s',
    async (how) => {
      const { log, pool, backup } = await growing()
      await log.append('x')
      const source = stepwise()
      const calls = [log.append(source.source), log.append('next'), log.truncate(0), log.purge()]
      await source.give(pattern(3 * page))
      await source.asked()
      const settled = Promise.allSettled(calls)
      await (how === 'free' ? log.free() : pool.close())
      for (const call of await settled) {
        expect(call).toMatchObject({ status: 'rejected', reason: { code: 'EBADF' } })
      }
      await expect(log.append('x')).rejects.toMatchObject({ code: 'EBADF' })
      await expect(log.truncate(0)).rejects.toMatchObject({ code: 'EBADF' })
      await pool.close()
      expect(backup.stats().livePages).toBe(0)
    },
  )

  it('go on beside writes, reads, backups, another backup and purges of what was there', async () => {
    await using made = await growing({ limitBytes: 64 * page })
    const { log, pool } = made
    const expected = pattern(30 * page + 77)
    await log.append(expected.subarray(0, 3 * page))
    const source = stepwise()
    const call = log.append(source.source)
    const other = memoryBackup()
    const beside = [
      () => log.write(3 * page - 5, expected.subarray(3 * page - 5, 3 * page)),
      () => log.backup(),
      () => log.restore(),
      async () => expectContent(log, expected.subarray(0, 3 * page)),
      () => log.purge({ offset: page, length: 2 * page }),
      () => log.write(page, expected.subarray(page, 3 * page)),
      () => log.restore(),
      () => log.setBackup(other),
      () => log.backup(),
    ]
    for (let at = 3 * page; at < expected.byteLength; at += 3 * page + 1) {
      await source.give(expected.subarray(at, at + 3 * page + 1))
      await source.asked()
      await beside.shift()?.()
      expect(pool.verify()).toEqual([])
    }
    await source.end()
    expect(await call).toBe(3 * page)
    await expectContent(log, expected)
    await log.setBackup(undefined).catch(() => {})
    await log.free()
    expect(other.stats().livePages).toBe(0)
  })

  it('keep their bytes beside a purge of the page in which they begin', async () => {
    await using made = await growing()
    const { log } = made
    await log.append(pattern(page + 10))
    const source = stepwise()
    const call = log.append(source.source)
    await source.give(pattern(page, 9))
    await source.asked()
    const purge = log.purge()
    await source.end()
    expect(await call).toBe(page + 10)
    // The purge has its turn after the append, and gives up what it added as well.
    expect((await purge).pages).toBeGreaterThan(0)
    await expectContent(log, new Uint8Array(2 * page + 10))
  })

  it('keep their bytes beside writes to the end of what was there', async () => {
    await using made = await growing({ maxOrder: 0, limitBytes: 16 * page })
    const { log } = made
    const expected = pattern(9 * page)
    await log.append(new Uint8Array(page + 10))
    const source = stepwise()
    const call = log.append(source.source)
    await source.give(expected.subarray(page + 10))
    await source.asked()
    await log.backup()
    // All of the last page that anybody can reach.
    await log.write(page, expected.subarray(page, page + 10))
    await log.write(0, expected.subarray(0, page))
    await source.end()
    await call
    await expectContent(log, expected)
  })

  it('of a loop that waits for nothing else give the event loop its turn', async () => {
    await using made = await growing({ limitBytes: 2 ** 24, maxOrder: 9 })
    let turns = 0
    let isOver = false
    const count = () => {
      turns++
      if (!isOver) setImmediate(count)
    }
    setImmediate(count)
    const record = new Uint8Array(64)
    for (let index = 0; index < 50_000; index++) await made.log.append(record)
    isOver = true
    expect(turns).toBeGreaterThan(3)
    expect(made.log.lengthBytes).toBe(64 * 50_000)
  })

  it('of its own bytes copy what is there when they are read', async () => {
    await using made = await growing()
    const { log } = made
    const bytes = pattern(5 * page + 3)
    await log.append(bytes)
    await log.append(log.pieces({ pieceBytes: 1000 }))
    await expectContent(log, Buffer.concat([bytes, bytes]))
  })
})

describe('truncate', () => {
  it('gives up what lies beyond, in memory and in the backup', async () => {
    await using made = await growing()
    const { log, pool, backup } = made
    const bytes = pattern(60 * page)
    await log.append(bytes)
    expect(backup.stats().livePages).toBeGreaterThan(0)
    await log.truncate(9 * page + 5)
    expect(pool.verify()).toEqual([])
    expect(pool.stats().residentBytes + pool.stats().backedUpBytes).toBeLessThanOrEqual(16 * page)
    await expectContent(log, bytes.subarray(0, 9 * page + 5))
    await expect(log.truncate(9 * page + 6)).rejects.toThrow(RangeError)
    await expect(log.truncate(-1)).rejects.toThrow(RangeError)
    expect(await log.append('tail')).toBe(9 * page + 5)
    await expectContent(log, Buffer.concat([bytes.subarray(0, 9 * page + 5), Buffer.from('tail')]))
    await log.truncate(0)
    expect(backup.stats().livePages + pool.stats().residentBytes).toBe(0)
    expect(await log.append('new')).toBe(0)
  })

  it('is EBUSY under a pin of what goes, and leaves a pin of what stays alone', async () => {
    await using made = await growing()
    const { log, pool } = made
    const bytes = pattern(28 * page)
    await log.append(bytes)
    const pin = await log.pin({ offset: page, length: 2 * page, write: true })
    for (const length of [0, page, page + 1, 3 * page - 1])
      await expect(log.truncate(length)).rejects.toMatchObject({ code: 'EBUSY', buffer: 'log' })
    await expectContent(log, bytes)
    await log.truncate(3 * page)
    // All but what shares a chunk with the pin is given up.
    expect(pool.stats().residentBytes + pool.stats().backedUpBytes).toBe(8 * page)
    expect(pin.bytes[0]).toBe(bytes[page])
    pin.bytes[0] ^= 255
    bytes[page] ^= 255
    pin.release()
    // What shared the chunk is nowhere to be seen.
    await log.append(new Uint8Array(2 * page))
    await expectContent(log, Buffer.concat([bytes.subarray(0, 3 * page), new Uint8Array(2 * page)]))
    await log.truncate(0)
  })

  it('is EBUSY while a read, a write, a fill or a pin of what goes is under way', async () => {
    await using made = await growing({ limitBytes: 16 * page })
    const { log } = made
    const bytes = pattern(64 * page)
    await log.append(bytes)
    await log.backup()
    const calls: (() => Promise<unknown>)[] = [
      () => log.read(0, new Uint8Array(40 * page)),
      () => log.write(0, bytes.subarray(0, 40 * page)),
      () => log.fill(bytes, { length: 40 * page }),
      async () => (await log.pin({ offset: 38 * page, length: 2 * page })).release(),
    ]
    for (const call of calls) {
      const running = call()
      await expect(log.truncate(39 * page)).rejects.toMatchObject({ code: 'EBUSY' })
      await running
    }
    const reading = log.read(0, new Uint8Array(40 * page))
    await log.truncate(40 * page)
    await reading
    await expectContent(log, bytes.subarray(0, 40 * page))
  })

  it('has its turn among appends', async () => {
    await using made = await growing()
    const { log } = made
    const calls = [log.append(new Blob(['abcdef'])), log.truncate(3), log.append('xyz'), log.truncate(4)]
    expect(await Promise.all(calls)).toEqual([0, undefined, 3, undefined])
    expect(new TextDecoder().decode(await contentOf(log))).toBe('abcx')
    await expect(log.truncate(0, { signal: aborted() })).rejects.toMatchObject({ code: 'EINTR' })
    expect(log.lengthBytes).toBe(4)
  })
})
