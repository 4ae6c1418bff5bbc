import { faultyBackup, MemoryMedium, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type PagedBuffer, Pool } from '../src/index.ts'
import { page, pattern } from './support/bytes.ts'
import { Random } from './support/random.ts'
import { expectContent, type SavedSetup, savedSetup } from './support/saved.ts'

async function purge({ buffer, bytes }: SavedSetup, first: number, count: number): Promise<void> {
  bytes.fill(0, first * page, (first + count) * page)
  await buffer.purge({ offset: first * page, length: count * page })
}

describe('an image of a buffer', () => {
  it('has the content, size and label when another process loads it, and is read page by page', async () => {
    await using subject = await savedSetup()
    await subject.buffer.save()
    expect(subject.pool.stats().dirtyBytes).toBe(0)
    expect(subject.buffer.residentBytes).toBeGreaterThan(0)
    await subject.expectAfterRestart({ subject: subject.bytes })
  })

  it('of a buffer that was never written to is one of zeros', async () => {
    await using subject = await savedSetup()
    await using empty = await subject.pool.allocate(3 * page, { label: 'empty' })
    await using none = await subject.pool.allocate(0, { label: 'none' })
    await empty.save()
    await none.save()
    await subject.expectImage('empty', new Uint8Array(3 * page))
    await subject.expectImage('none', new Uint8Array(0))
  })

  it.each([0, 2, 9])(
    'has pages whose handles are scattered, and empty ones between, in chunks up to order %i',
    async (maxOrder) => {
      const medium = new MemoryMedium()
      const pages = 1200
      const content = new Uint8Array(pages * page)
      {
        await using backup = memoryBackup({ medium })
        await using pool = new Pool({ limitBytes: 600 * page, backup })
        await using buffer = await pool.allocate(pages * page, { maxOrder: 0, label: 'scattered' })
        for (const parity of [0, 1]) {
          for (let at = parity; at < pages - 100; at += 2) {
            if (at % 7 === 3) continue
            content.set(pattern(page, at + 1), at * page)
            await buffer.write(at * page, content.subarray(at * page, (at + 1) * page))
          }
          await buffer.backup()
        }
        await buffer.save()
      }
      await using backup = memoryBackup({ medium })
      await using pool = new Pool({ limitBytes: 600 * page, backup })
      const buffer = await pool.load('scattered', { maxOrder })
      await expectContent(buffer, content)
      await buffer.write(5 * page, pattern(page, 5000))
      content.set(pattern(page, 5000), 5 * page)
      await buffer.save('scattered')
      await expectContent(buffer, content)
      await buffer.free()
      await backup.images!.remove('scattered')
      expect(backup.stats().livePages).toBe(0)
    },
  )

  it('is as the buffer was at the call: what is written, purged or stored later is not in it', async () => {
    await using subject = await savedSetup()
    const { buffer, bytes } = subject
    const before = bytes.slice()
    const saved = buffer.save('earlier')
    const work = [
      subject.write(0, pattern(3 * page + 5, 70)),
      subject.write(9 * page + 1, pattern(page, 71)),
      subject.write(17 * page, pattern(page, 72)),
      subject.write(25 * page, pattern(2 * page, 73)),
      subject.write(32 * page, pattern(4 * page, 74)),
    ]
    await Promise.all(work)
    await buffer.backup()
    bytes.fill(0, 10 * page, 22 * page)
    await buffer.purge({ offset: 10 * page, length: 12 * page })
    await subject.write(11 * page, pattern(page, 75))
    await saved
    await expectContent(buffer, bytes)
    await subject.expectImage('earlier', before)
    await buffer.save('now')
    await subject.expectAfterRestart({ earlier: before, now: bytes })
  })

  const changes: readonly [string, (subject: SavedSetup) => Promise<unknown>][] = [
    ['a chunk that was clean is written to', ({ write }) => write(8 * page, pattern(page, 99))],
    ['a chunk that was clean is purged', (subject) => purge(subject, 8, 8)],
    ['a part of a chunk that was clean is purged', (subject) => purge(subject, 9, 3)],
    ['pages that were only stored are purged', (subject) => purge(subject, 16, 8)],
  ]
  it.each(changes)('has what was there at the call when nothing but %s meanwhile', async (_, change) => {
    await using subject = await savedSetup()
    const before = subject.bytes.slice()
    const saved = subject.buffer.save('before')
    await change(subject)
    await saved
    await expectContent(subject.buffer, subject.bytes)
    await subject.expectImage('before', before)
  })

  it('goes on with what has changed since the last one, and writes no more than that', async () => {
    const medium = new MemoryMedium()
    const inner = memoryBackup({ medium })
    const saves: number[][] = []
    const images = inner.images!
    const backup = Object.assign(Object.create(inner), {
      images: {
        ...images,
        save: (name: string, content: Parameters<typeof images.save>[1]) => {
          saves.push(content.body.map(({ index }) => index))
          return images.save(name, content)
        },
      },
    })
    for (const method of ['backupPages', 'copyPages', 'drop', 'bytesAvailable', 'stats', 'close', 'reserve'])
      backup[method] = (inner as never as Record<string, () => void>)[method]!.bind(inner)
    backup.startCopy = undefined
    Object.defineProperty(backup, 'capabilities', { value: inner.capabilities })
    Object.defineProperty(backup, 'name', { value: inner.name })
    const pool = new Pool({ limitBytes: 8192 * page, backup, provider: 'resizable' })
    const buffer = await pool.allocate(4000 * page, { label: 'a' })
    const bytes = pattern(4000 * page, 8)
    await buffer.write(0, bytes)
    await buffer.save()
    await buffer.save()
    bytes[1500 * page] ^= 1
    await buffer.write(1500 * page, bytes.subarray(1500 * page, 1500 * page + 1))
    await buffer.save()
    await buffer.purge({ offset: 3999 * page, length: page })
    bytes.fill(0, 3999 * page)
    await buffer.save()
    expect(saves).toEqual([[0, 1, 2, 3, 4, 5, 6, 7, 8], [], [3], [8]])
    await buffer.save('b')
    await buffer.save('a')
    expect(saves.slice(4).map((blocks) => blocks.length)).toEqual([9, 9])
    await buffer.free()
    const loaded = await pool.load('a')
    await expectContent(loaded, bytes)
    bytes[0] ^= 1
    await loaded.write(0, bytes.subarray(0, 1))
    await loaded.save()
    expect(saves.at(-1)).toEqual([1])
    await pool.close()
    await inner.close()
    await using again = memoryBackup({ medium })
    await using next = new Pool({ limitBytes: 8192 * page, backup: again, provider: 'resizable' })
    await expectContent(await next.load('a'), bytes)
  })

  it('can be taken again and again while the one before is on its way, each of its own moment', async () => {
    await using subject = await savedSetup()
    const moments: Uint8Array[] = []
    const saves: Promise<void>[] = []
    for (let round = 0; round < 6; round++) {
      await subject.write(((round * 7) % 40) * page, pattern(3 * page, 80 + round))
      moments.push(subject.bytes.slice())
      saves.push(subject.buffer.save(round % 2 === 0 ? 'even' : 'odd'))
    }
    await Promise.all(saves)
    await subject.expectAfterRestart({ even: moments[4]!, odd: moments[5]! })
  })

  it('waits for the one that is on its way, also when one in between was aborted', async () => {
    await using subject = await savedSetup({ faults: [{ method: 'save', delayMs: 20 }] })
    const { buffer } = subject
    const first = buffer.save('a')
    await subject.write(0, pattern(page, 1))
    const controller = new AbortController()
    const second = buffer.save('a', { signal: controller.signal })
    controller.abort()
    await subject.write(0, pattern(page, 2))
    const third = buffer.save('a')
    await expect(second).rejects.toMatchObject({ code: 'EINTR' })
    await Promise.all([first, third])
    await subject.expectAfterRestart({ a: subject.bytes })
  })

  it('that could not be saved leaves the old one, and the next save has everything', async () => {
    for (const method of ['backupPages', 'save'] as const) {
      for (let stop = 0; stop < 24; stop += method === 'save' ? 24 : 1) {
        await using subject = await savedSetup()
        await subject.buffer.save()
        const old = subject.bytes.slice()
        await subject.write(2 * page, pattern(20 * page, 90))
        await subject.write(26 * page, pattern(3 * page, 91))
        subject.backup.inject({ method: 'backupPages', times: 1 })
        subject.backup.heal()
        subject.backup.inject({ method, code: 'EIO', stop, times: 1 })
        const isStopped = stop < 23 + 7
        const saved = subject.buffer.save()
        const late = subject.write(4 * page, pattern(page, 92))
        if (isStopped)
          await expect(saved, `${method} ${stop}`).rejects.toMatchObject({ code: 'EIO', buffer: 'subject' })
        await late
        await subject.expectImage('subject', old)
        await expectContent(subject.buffer, subject.bytes)
        await subject.buffer.save()
        await subject.expectAfterRestart({ subject: subject.bytes })
      }
    }
  })

  it('is saved although reclaim stores and evicts meanwhile, and fails at times', async () => {
    await using subject = await savedSetup({ limitBytes: 40 * page })
    const other = await subject.pool.allocate(200 * page)
    for (let round = 0; round < 12; round++) {
      const filler = other.write(0, pattern(200 * page, round))
      await subject.write((round % 30) * page, pattern(9 * page, 100 + round))
      if (round % 3 === 0)
        subject.backup.inject({ method: 'backupPages', code: 'EAGAIN', stop: round, times: 2 })
      const moment = subject.bytes.slice()
      const saved = subject.buffer.save().then(
        () => true,
        () => false,
      )
      await subject.write(((round * 5) % 40) * page, pattern(3 * page, 120 + round))
      if (!(await saved)) await subject.buffer.save().catch(() => {})
      else await subject.expectImage('subject', moment)
      await filler
      await expectContent(subject.buffer, subject.bytes)
      expect(subject.pool.verify()).toEqual([])
    }
    await other.free()
  })
})

const beside: Record<string, (subject: SavedSetup) => Promise<unknown> | undefined> = {
  write: ({ write }) => write(3 * page, pattern(30 * page, 40)),
  read: ({ buffer }) => buffer.read(0, new Uint8Array(buffer.sizeBytes)),
  fill: ({ buffer, bytes }) => {
    bytes.fill(7, 5 * page, 20 * page)
    return buffer.fill(7, { offset: 5 * page, length: 15 * page })
  },
  'pin to write': async ({ buffer, bytes }) => {
    using pin = await buffer.pin({ offset: 0, length: 8 * page, write: true })
    for (const span of pin.spans) span.fill(9)
    bytes.fill(9, 0, 8 * page)
  },
  'pin to read': async ({ buffer }) => {
    using _pin = await buffer.pin({ offset: 8 * page, length: 16 * page })
  },
  backup: ({ buffer }) => buffer.backup(),
  'atomic backup': ({ buffer }) => buffer.backup({ atomic: true }),
  restore: ({ buffer }) => buffer.restore(),
  purge: ({ buffer, bytes }) => {
    bytes.fill(0, 4 * page, 37 * page)
    return buffer.purge({ offset: 4 * page, length: 33 * page })
  },
  setLimit: ({ pool }) => pool.setLimit(16 * page),
  shrink: ({ pool }) => pool.shrink(48 * page),
  'advise dontneed': async ({ buffer, pool }) => {
    buffer.advise('dontneed')
    await pool.shrink(20 * page)
  },
  'advise willneed': async ({ buffer }) => buffer.advise('willneed'),
  'advise purgeable': async ({ buffer }) => {
    buffer.advise('purgeable')
    buffer.advise('normal')
  },
  copyTo: async ({ buffer, bytes }) => {
    bytes.copyWithin(20 * page, 0, 9 * page)
    await buffer.copyTo(buffer, { offset: 0, length: 9 * page, targetOffset: 20 * page })
  },
  setBackup: ({ buffer, backup }) => buffer.setBackup(backup).catch(() => {}),
  'save of the same': ({ buffer }) => buffer.save(),
  'save of another name': ({ buffer }) => buffer.save('other'),
  load: async ({ buffer, pool }) => {
    await buffer.save('loaded')
    await (await pool.load('loaded', { label: 'loaded' })).free()
  },
  'remove of its image': ({ backup }) => backup.images!.remove('image').catch(() => {}),
  free: ({ buffer }) => buffer.free(),
  'close of the pool': ({ pool }) => pool.close(),
}

describe('a save', () => {
  for (const [name, call] of Object.entries(beside)) {
    for (const isFirst of [true, false]) {
      it(`that is made ${isFirst ? 'before' : 'while'} ${name} has its moment, and both are right`, async () => {
        await using subject = await savedSetup()
        const before = subject.bytes.slice()
        let saved: Promise<void>
        if (isFirst) {
          saved = subject.buffer.save('image')
          await call(subject)
        } else {
          const work = call(subject)
          saved = subject.buffer.freed ? Promise.resolve() : subject.buffer.save('image').catch(() => {})
          await work
        }
        await saved
        if (isFirst && !name.startsWith('close') && !name.startsWith('remove'))
          await subject.expectImage('image', before)
        if (!subject.buffer.freed) {
          await expectContent(subject.buffer, subject.bytes)
          await subject.buffer.save('image', { replace: true })
          await subject.expectImage('image', subject.bytes)
          expect(subject.pool.verify()).toEqual([])
        }
      })
    }
  }

  it('is waited for by close, and is whole then', async () => {
    await using subject = await savedSetup()
    const saved = subject.buffer.save('a')
    await subject.pool.close()
    await saved
    await subject.expectAfterRestart({ a: subject.bytes })
  })

  it('of a buffer that is pinned to be written to is EBUSY, with its label, and of one pinned to be read works', async () => {
    await using subject = await savedSetup()
    const { buffer } = subject
    using reading = await buffer.pin({ offset: 0, length: 12 * page })
    await buffer.save('a')
    const writing = await buffer.pin({ offset: 30 * page, length: page, write: true })
    await expect(buffer.save('a')).rejects.toMatchObject({
      code: 'EBUSY',
      buffer: 'subject',
      message: expect.stringContaining(`bytes ${30 * page} to ${31 * page}`),
    })
    writing.release()
    await buffer.save('a')
    expect(reading.spans.length).toBeGreaterThan(0)
    await subject.expectImage('a', subject.bytes)
  })

  it('that waits for pins has its moment when the last is released, and new pins come after it', async () => {
    await using subject = await savedSetup()
    const { buffer, bytes } = subject
    const pins = [
      await buffer.pin({ offset: 0, length: page, write: true }),
      await buffer.pin({ offset: 20 * page, length: page, write: true }),
    ]
    const saved = buffer.save('a', { pins: 'wait' })
    expect(buffer.tryPin({ offset: 8 * page, length: page, write: true })).toBeUndefined()
    const late = buffer.pin({ offset: 0, length: page, write: true })
    const aborted = buffer.pin({ offset: 0, length: page, write: true, signal: AbortSignal.timeout(5) })
    await expect(aborted).rejects.toMatchObject({ code: 'EINTR' })
    using reading = await buffer.pin({ offset: 0, length: page })
    pins[0]!.spans[0]!.fill(1)
    bytes.fill(1, 0, page)
    pins[0]!.release()
    await subject.write(9 * page, pattern(page, 30))
    pins[1]!.spans[0]!.fill(2)
    bytes.fill(2, 20 * page, 21 * page)
    const moment = bytes.slice()
    pins[1]!.release()
    const pin = await late
    pin.spans[0]!.fill(3)
    pin.release()
    await saved
    expect(reading.spans[0]![0]).toBe(3)
    await subject.expectImage('a', moment)
  })

  it('that waits for pins ends when it is aborted, and lets new pins in', async () => {
    await using subject = await savedSetup()
    const { buffer } = subject
    using first = await buffer.pin({ offset: 0, length: page, write: true })
    const controller = new AbortController()
    const saved = buffer.save('a', { pins: 'wait', signal: controller.signal })
    const late = buffer.pin({ offset: page, length: page, write: true })
    controller.abort(new Error('no more'))
    await expect(saved).rejects.toMatchObject({ code: 'EINTR', cause: { message: 'no more' } })
    using second = await late
    expect([first.released, second.released]).toEqual([false, false])
    expect(await subject.backup.images!.names()).toEqual([])
  })

  it('is aborted until it is handed over, and not any more then', async () => {
    for (let turns = 0; turns < 12; turns++) {
      await using subject = await savedSetup({ delayMs: 0 })
      await subject.buffer.save('a')
      const old = subject.bytes.slice()
      await subject.write(0, pattern(40 * page, 31))
      const controller = new AbortController()
      const saved = subject.buffer.save('a', { signal: controller.signal })
      for (let turn = 0; turn < turns; turn++) await Promise.resolve()
      controller.abort()
      const isSaved = await saved.then(
        () => true,
        (error) => {
          expect(error).toMatchObject({ code: 'EINTR', name: 'AbortError' })
          return false
        },
      )
      await subject.expectImage('a', isSaved ? subject.bytes : old)
      await expectContent(subject.buffer, subject.bytes)
    }
    await using subject = await savedSetup()
    await expect(subject.buffer.save('a', { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'EINTR',
    })
  })

  it('does not take a name that is another’s, unless it is told to', async () => {
    await using subject = await savedSetup()
    const { pool, buffer, backup } = subject
    await using other = await pool.allocate(page, { label: 'subject' })
    await other.save()
    await expect(buffer.save()).rejects.toMatchObject({ code: 'EEXIST', buffer: 'subject' })
    await subject.expectImage('subject', new Uint8Array(page))
    await buffer.save(undefined, { replace: true })
    await buffer.save()
    await expect(other.save()).rejects.toMatchObject({ code: 'EEXIST' })
    await other.save('subject', { replace: true })
    await buffer.save('subject', { replace: true })
    await backup.images!.remove('subject')
    await buffer.save()
    await subject.expectImage('subject', subject.bytes)
    await using loaded = await pool.load('subject')
    await loaded.save()
    await expect(buffer.save()).rejects.toMatchObject({ code: 'EEXIST' })
  })

  it('that makes no sense is refused, and nothing is saved', async () => {
    await using subject = await savedSetup()
    const { pool, buffer, backup } = subject
    await using unnamed = await pool.allocate(page)
    await expect(unnamed.save()).rejects.toThrow(TypeError)
    await expect(buffer.save('a\n')).rejects.toThrow(TypeError)
    await expect(buffer.save(7 as never)).rejects.toThrow(TypeError)
    await expect(buffer.save('')).rejects.toThrow(RangeError)
    await expect(buffer.save('a', { overwrite: true } as never)).rejects.toThrow(TypeError)
    await expect(buffer.save('a', { replace: 1 } as never)).rejects.toThrow(TypeError)
    await expect(buffer.save('a', { pins: 'no' } as never)).rejects.toThrow(TypeError)
    buffer.advise('purgeable')
    await expect(buffer.save('a')).rejects.toMatchObject({ code: 'EINVAL', buffer: 'subject' })
    buffer.advise('normal')
    await using plain = memoryBackup()
    await using nowhere = await pool.allocate(page, { label: 'x', backup: plain })
    await expect(nowhere.save()).rejects.toMatchObject({ code: 'ENOTSUP' })
    await using alone = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider: 'resizable' })
    await using without = await alone.allocate(page, { label: 'y' })
    await expect(without.save()).rejects.toMatchObject({ code: 'ENOTSUP' })
    await unnamed.free()
    await expect(unnamed.save('a')).rejects.toMatchObject({ code: 'EBADF' })
    expect(await backup.images!.names()).toEqual([])
  })

  it('on a full backup is ENOSPC, the old image stays, and it goes on when there is room', async () => {
    await using subject = await savedSetup({ capacityPages: 60 })
    await subject.buffer.save('a')
    const old = subject.bytes.slice()
    await subject.write(0, pattern(44 * page, 50))
    await expect(subject.buffer.save('a')).rejects.toMatchObject({ code: 'ENOSPC' })
    await expectContent(subject.buffer, subject.bytes)
    await subject.expectImage('a', old)
    await subject.backup.images!.remove('a')
    await subject.buffer.save('a')
    await subject.expectImage('a', subject.bytes)
  })

  it('beside any other calls, at random, is what the buffer was at its moment', async () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = new Random(seed)
      await using subject = await savedSetup({
        limitBytes: (20 + random.below(40)) * page,
        delayMs: random.below(2),
      })
      const { buffer, bytes, pool } = subject
      const images: Record<string, Uint8Array> = {}
      let work: Promise<unknown>[] = []
      let reads: Promise<unknown> | undefined
      for (let step = 0; step < 40; step++) {
        const first = random.below(40)
        const count = 1 + random.below(40 - first)
        const dice = random.below(8)
        if (dice < 4) await subject.write(first * page + random.below(page), pattern(count * page, step))
        else if (dice === 4) work.push(buffer.backup())
        else if (dice === 5) {
          // A purge does not take what a read holds.
          await reads
          bytes.fill(0, first * page, (first + count) * page)
          await buffer.purge({ offset: first * page, length: count * page })
        } else if (dice === 6) {
          work.push(pool.shrink(count * page))
          reads = buffer.read(first * page, new Uint8Array(count * page))
        }
        const name = `image ${random.below(3)}`
        if (random.below(3) > 0) continue
        images[name] = bytes.slice()
        work.push(buffer.save(name))
        if (random.below(3) > 0) continue
        await Promise.all([...work, reads])
        work = []
        expect(pool.verify(), `seed ${seed}`).toEqual([])
      }
      await Promise.all([...work, reads])
      await expectContent(buffer, bytes)
      await subject.expectAfterRestart(images)
    }
  })
})

describe('a load', () => {
  it('gives a buffer of its own each time, and one may be changed, saved and freed without the others', async () => {
    await using subject = await savedSetup()
    await subject.buffer.save('a')
    const [one, two] = await Promise.all([subject.pool.load('a'), subject.pool.load('a', { label: 'two' })])
    expect([one!.label, two!.label, one!.sizeBytes]).toEqual(['subject', 'two', subject.buffer.sizeBytes])
    await one!.write(0, pattern(20 * page, 60))
    await two!.write(page, pattern(page, 61))
    await two!.save()
    await one!.free()
    await expectContent(subject.buffer, subject.bytes)
    await subject.expectImage('a', subject.bytes)
    const changed = subject.bytes.slice()
    changed.set(pattern(page, 61), page)
    await two!.free()
    await subject.expectAfterRestart({ a: subject.bytes, two: changed })
  })

  it('that cannot be is refused, and holds nothing', async () => {
    await using subject = await savedSetup()
    const { pool, backup } = subject
    await subject.buffer.save('a')
    await subject.buffer.free()
    const { livePages } = backup.stats()
    await expect(pool.load('b')).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(pool.load('a', { maxOrder: 4 })).rejects.toThrow(RangeError)
    await expect(pool.load('a', { names: 1 } as never)).rejects.toThrow(TypeError)
    await expect(pool.load(7 as never)).rejects.toThrow(TypeError)
    await expect(pool.load('a', { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'EINTR' })
    await using plain = memoryBackup()
    await expect(pool.load('a', { backup: plain })).rejects.toMatchObject({ code: 'ENOTSUP' })
    await using alone = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider: 'resizable' })
    await expect(alone.load('a')).rejects.toMatchObject({ code: 'ENOTSUP' })
    await using large = new Pool({
      limitBytes: 64 * page,
      maxOrder: 1,
      pageSizeBytes: 8192,
      provider: 'resizable',
    })
    await expect(large.load('a', { backup })).rejects.toThrow(RangeError)
    const closing = expect(pool.load('a')).rejects.toMatchObject({ code: 'EBADF' })
    await pool.close()
    await closing
    await expect(pool.load('a')).rejects.toMatchObject({ code: 'EBADF' })
    expect(backup.stats()).toMatchObject({ livePages, images: { count: 1, onlyPages: livePages } })
  })

  it('that is aborted while the image is on its way ends at once, and what comes later is given back', async () => {
    await using subject = await savedSetup()
    const { pool, backup } = subject
    await subject.buffer.save('a')
    await subject.buffer.free()
    const { livePages } = backup.stats()
    const { promise, resolve } = Promise.withResolvers<void>()
    let loaded: Promise<unknown> | undefined
    const images = {
      ...backup.images!,
      load: async (image: string) => {
        await promise
        const answer = backup.images!.load(image)
        loaded = answer
        return answer
      },
    }
    const slow = new Proxy(backup, {
      get(target, key) {
        const value = key === 'images' ? images : Reflect.get(target, key)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
    const controller = new AbortController()
    const loading = pool.load('a', { backup: slow, signal: controller.signal })
    await new Promise(setImmediate)
    controller.abort()
    await expect(loading).rejects.toMatchObject({ code: 'EINTR', name: 'AbortError' })
    resolve()
    await new Promise(setImmediate)
    await loaded
    await new Promise(setImmediate)
    expect(backup.stats()).toMatchObject({ livePages, images: { count: 1, onlyPages: livePages } })
  })

  it('of a damaged image, or one of another kind, is EBADMSG, EINVAL or ENOTSUP, and holds nothing', async () => {
    await using subject = await savedSetup()
    const { pool, backup } = subject
    const images = backup.images!
    await subject.buffer.save('a')
    await subject.buffer.free()
    const { livePages } = backup.stats()
    const { body, keeps } = await images.load('a')
    await backup.drop(keeps.flatMap((runs) => [...runs]))
    const blocks = body.map((bytes, index) => ({ index, bytes }))
    const flipped = body[1]!.slice()
    flipped[5]! ^= 1
    const broken = {
      flipped: { body: [blocks[0]!, { index: 1, bytes: flipped }], keeps },
      strange: { body: [{ index: 0, bytes: pattern(100) }], keeps: [[]] },
      short: { body: [blocks[0]!], keeps: [[]] },
      'does not keep its pages': { body: blocks, keeps: keeps.map(() => []) },
      'keeps pages in its head': { body: blocks, keeps: [[...keeps[1]!], ...keeps.slice(1)] },
      'keeps others': { body: [blocks[0]!, { index: 1, bytes: new Uint8Array(0) }], keeps },
    }
    for (const [name, content] of Object.entries(broken)) {
      await images.save(name, content)
      await expect(pool.load(name), name).rejects.toMatchObject({ code: 'EBADMSG', backup: 'memory' })
      await images.remove(name)
    }
    expect(backup.stats()).toMatchObject({ livePages, images: { count: 1, onlyPages: livePages } })
    expect(pool.verify()).toEqual([])
  })

  it('is as good as the buffer that was saved, restored page by page under a small limit', async () => {
    const medium = new MemoryMedium()
    const bytes = pattern(300 * page, 13)
    {
      await using backup = memoryBackup({ medium })
      await using pool = new Pool({ limitBytes: 32 * page, maxOrder: 2, provider: 'resizable', backup })
      const buffer = await pool.allocate(bytes.byteLength, { label: 'large' })
      await buffer.write(0, bytes)
      await buffer.save()
    }
    await using backup = faultyBackup(memoryBackup({ medium }))
    await using pool = new Pool({ limitBytes: 32 * page, maxOrder: 3, provider: 'resizable', backup })
    const loaded: PagedBuffer = await pool.load('large', { maxOrder: 0 })
    expect(loaded.backedUpBytes).toBe(300 * page)
    expect(backup.stats().copiedPages).toBe(0)
    await expectContent(loaded, bytes)
    await loaded.write(100 * page, pattern(150 * page, 14))
    bytes.set(pattern(150 * page, 14), 100 * page)
    await loaded.save()
    await loaded.free()
    await expectContent(await pool.load('large'), bytes)
  })
})
