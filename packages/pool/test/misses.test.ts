import { AsyncLocalStorage, createHook } from 'node:async_hooks'
import { type Backup, type BackupResult, type HandleRun, memoryBackup } from '@spillway/core'
import { afterEach, describe, expect, it } from 'vitest'
import { machineOf } from '../src/api/pool.ts'
import { type PagedBuffer, Pool, type PoolOptions } from '../src/index.ts'
import { page, pattern } from './support/bytes.ts'
import { returned } from './support/setup.ts'

type Done = (copied: number, error?: Error) => void

/** Keeps pages in a map and starts copies as it is told, so that a test sees and controls each of them. */
class CopyingBackup implements Backup {
  readonly name = 'copying'
  readonly capabilities = memoryBackup().capabilities
  readonly started: { first: number; count: number; end: (copied?: number, error?: Error) => void }[] = []
  /** What `startCopy` does: copy before it returns, later when the test says so, or whatever a function does. */
  mode: 'at once' | 'later' | ((first: number, span: Uint8Array, done: Done) => boolean) = 'at once'
  copyPagesCalls = 0
  readonly #pages = new Map<number, Uint8Array>()
  #next = 1

  async backupPages(spans: readonly Uint8Array[]): Promise<BackupResult> {
    const first = this.#next
    for (const span of spans) {
      for (let at = 0; at < span.byteLength; at += page)
        this.#pages.set(this.#next++, span.slice(at, at + page))
    }
    return { handles: [{ first, count: this.#next - first }] }
  }

  async copyPages(handles: readonly HandleRun[], spans: readonly Uint8Array[]) {
    this.copyPagesCalls++
    const all = handles.flatMap(({ first, count }) =>
      Array.from({ length: count }, (_, index) => first + index),
    )
    let copied = 0
    for (const span of spans) {
      for (let at = 0; at < span.byteLength; at += page) span.set(this.#pages.get(all[copied++]!)!, at)
    }
    return { copied }
  }

  startCopy(first: number, span: Uint8Array, done: Done): boolean {
    if (typeof this.mode === 'function') return this.mode(first, span, done)
    const count = span.byteLength / page
    const end = (copied = count, error?: Error) => {
      this.copy(first, span, copied)
      if (error === undefined) done(copied)
      else done(copied, error)
    }
    this.started.push({ first, count, end })
    if (this.mode === 'at once') end()
    return true
  }

  copy(first: number, span: Uint8Array, count: number): void {
    for (let index = 0; index < count; index++) span.set(this.#pages.get(first + index)!, index * page)
  }

  async drop(handles: readonly HandleRun[]): Promise<void> {
    for (const { first, count } of handles) {
      for (let handle = first; handle < first + count; handle++) this.#pages.delete(handle)
    }
  }

  async bytesAvailable(): Promise<number> {
    return 2 ** 40
  }

  async reserve(): Promise<never> {
    throw new Error('nothing to reserve')
  }

  stats() {
    return { ...memoryBackup().stats(), livePages: this.#pages.size }
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}
}

const pools: Pool[] = []
afterEach(async () => {
  for (const pool of pools.splice(0)) await pool.close()
})

/** A buffer of single pages, all stored and none in memory. */
async function storedPages(count: number, options: Partial<PoolOptions> = {}) {
  const backup = new CopyingBackup()
  const pool = new Pool({ limitBytes: 64 * page, maxOrder: 0, provider: 'resizable', backup, ...options })
  pools.push(pool)
  const buffer = await pool.allocate(count * page, { label: 'subject' })
  const bytes = pattern(count * page)
  await buffer.write(0, bytes)
  await buffer.backup()
  return {
    backup,
    pool,
    buffer,
    bytes,
    at: (index: number) => bytes.subarray(index * page, (index + 1) * page),
  }
}

const pageOf = (index: number) => ({ offset: index * page, length: page })
const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve))

describe('a miss of one chunk', () => {
  /** Says of code that it runs for the call which is counted. */
  const counted = new AsyncLocalStorage<true>()

  /**
   * Promises that come into being in files of the library while a call is begun and settles, for that call: what the pool does
   * beside it, a timer of an earlier call for one, is not counted, however late it comes.
   */
  async function promisesOf(call: () => Promise<unknown>): Promise<number> {
    let count = 0
    const hook = createHook({
      init(_, type) {
        if (type !== 'PROMISE' || counted.getStore() === undefined) return
        if (/\/packages\/[a-z0-9-]+\/src\//.test(String(new Error().stack))) count++
      },
    })
    hook.enable()
    try {
      await counted.run(true, call)
    } finally {
      hook.disable()
    }
    return count
  }

  it('is counted by the promises of its own call', async () => {
    const { pool, buffer } = await storedPages(8)
    const reading = async () => {
      await buffer.read(page, new Uint8Array(page))
      // Long enough for the pool to give idle memory back.
      counted.exit(() => void pool.shrink(page))
      await new Promise((resolve) => setTimeout(resolve, 150))
    }
    expect(await promisesOf(reading)).toBe(1)
    expect(await promisesOf(() => pool.shrink(page))).toBeGreaterThan(1)
  })

  const calls: readonly [string, (buffer: PagedBuffer, index: number) => Promise<unknown>][] = [
    ['pin', (buffer, index) => buffer.pin(pageOf(index)).then((pin) => pin.release())],
    ['read', (buffer, index) => buffer.read(index * page, new Uint8Array(page))],
    ['read of a part', (buffer, index) => buffer.read(index * page + 5, new Uint8Array(7))],
    ['write of a part', (buffer, index) => buffer.write(index * page + 5, new Uint8Array(7))],
    ['write', (buffer, index) => buffer.write(index * page, new Uint8Array(page))],
  ]

  it.each(calls)('makes one promise: %s', async (_, call) => {
    const { buffer, backup } = await storedPages(8)
    for (const mode of ['at once', 'later'] as const) {
      backup.mode = mode
      backup.started.length = 0
      const counting = promisesOf(() => call(buffer, mode === 'later' ? 2 : 1))
      await nextTurn()
      if (mode === 'later') for (const { end } of backup.started) counted.run(true, end)
      expect(await counting).toBe(1)
    }
  })

  it('makes one promise where memory is full of clean pages, too', async () => {
    const { buffer, at } = await storedPages(100)
    for (let index = 0; index < 64; index++) await buffer.read(index * page, new Uint8Array(page))
    const into = new Uint8Array(page)
    expect(await promisesOf(() => buffer.read(70 * page, into))).toBe(1)
    expect(into).toEqual(at(70))
  })

  it('makes one promise where nothing is stored and the memory held other bytes, and gives zeros', async () => {
    const { pool } = await storedPages(64)
    const empty = await pool.allocate(8 * page)
    const found = new Uint8Array(page).fill(1)
    // What the backup freed a moment ago is taken, with the bytes that it held.
    expect(await promisesOf(() => empty.write(5, new Uint8Array(1)))).toBe(1)
    await empty.read(0, found)
    expect(found).toEqual(new Uint8Array(page))
  })

  it('is joined by all that want the same chunk: one copy, and each has what it wants', async () => {
    const { buffer, backup, at } = await storedPages(8)
    backup.mode = 'later'
    const into = new Uint8Array(page)
    const pinning = Array.from({ length: 50 }, () => buffer.pin(pageOf(3)))
    const others = [buffer.read(3 * page, into), buffer.write(3 * page, new Uint8Array([1, 2, 3]))]
    await nextTurn()
    expect(backup.started).toHaveLength(1)
    backup.started[0]!.end()
    const pins = await Promise.all(pinning)
    await Promise.all(others)
    expect(into.subarray(3)).toEqual(at(3).subarray(3))
    expect(pins.map((pin) => pin.bytes[0])).toEqual(pins.map(() => 1))
    expect([backup.started.length, backup.copyPagesCalls]).toEqual([1, 0])
    for (const pin of pins) pin.release()
  })

  it('goes on for the others when its first caller aborts, who is told at once', async () => {
    const { buffer, backup, pool, at } = await storedPages(8)
    backup.mode = 'later'
    const controller = new AbortController()
    const into = new Uint8Array(page)
    const aborted = buffer.pin({ ...pageOf(3), signal: controller.signal })
    const other = buffer.read(3 * page, into)
    controller.abort()
    await expect(aborted).rejects.toMatchObject({ code: 'EINTR', buffer: 'subject' })
    expect(backup.started).toHaveLength(1)
    backup.started[0]!.end()
    await other
    expect(into).toEqual(at(3))
    expect(pool.verify()).toEqual([])
  })

  it('keeps its memory charged and out of reach until its copy is done, also when nobody waits for it any more', async () => {
    const { buffer, backup, pool, at } = await storedPages(8)
    backup.mode = 'later'
    const controller = new AbortController()
    const aborted = buffer.read(3 * page, new Uint8Array(page), { signal: controller.signal })
    controller.abort()
    await expect(aborted).rejects.toMatchObject({ code: 'EINTR' })
    expect(pool.stats().inUseBytes).toBe(page)
    await returned(pool)
    expect(await pool.shrink(64 * page)).toBe(0)
    const { limit, residents } = machineOf(pool)
    const { operations } = residents
    expect([limit.chargedPages, operations.count]).toEqual([1, 1])
    backup.started[0]!.end()
    const into = new Uint8Array(page)
    await buffer.read(3 * page, into)
    expect(into).toEqual(at(3))
    expect([backup.started.length, operations.count]).toEqual([1, 0])
  })

  it('waits with freeing, closing and purging for a copy that nobody waits for', async () => {
    for (const end of ['free', 'purge'] as const) {
      const { buffer, backup, pool } = await storedPages(8)
      backup.mode = 'later'
      const controller = new AbortController()
      const aborted = buffer.read(0, new Uint8Array(page), { signal: controller.signal })
      controller.abort()
      await aborted.catch(() => {})
      let ended = false
      const ending = buffer[end]().then(() => {
        ended = true
      })
      await nextTurn()
      await nextTurn()
      expect([ended, pool.stats().inUseBytes]).toEqual([false, page])
      backup.started[0]!.end()
      await ending
      expect([pool.stats().inUseBytes, pool.verify()]).toEqual([0, []])
    }
  })

  it('gives the event loop its turns where copies are done at once', async () => {
    const { buffer } = await storedPages(64 * 40, { limitBytes: 64 * page })
    let turns = 0
    let isGoing = true
    const count = () => {
      turns++
      if (isGoing) setImmediate(count)
    }
    setImmediate(count)
    for (let index = 0; index < 64 * 40; index++) (await buffer.pin(pageOf(index))).release()
    isGoing = false
    expect(turns).toBeGreaterThan(2)
  })

  it('takes no stack for thousands that are done at once', async () => {
    const { buffer, at } = await storedPages(5000, { limitBytes: 16 * page })
    const reads = Array.from({ length: 5000 }, async (_, index) => {
      const into = new Uint8Array(page)
      await buffer.read(index * page, into)
      return into
    })
    const all = await Promise.all(reads)
    expect(all.every((bytes, index) => Buffer.compare(bytes, at(index)) === 0)).toBe(true)
  })
})

describe('a miss beside a batch that is being evicted', () => {
  it('waits for its memory, and costs no clean chunk beside', async () => {
    await using backup = memoryBackup()
    const { promise: mayStore, resolve: store } = Promise.withResolvers<void>()
    let holds = false
    const storePages = backup.backupPages.bind(backup)
    backup.backupPages = async (...given) => {
      if (holds) await mayStore
      return storePages(...given)
    }
    await using pool = new Pool({
      limitBytes: 8 * page,
      maxOrder: 0,
      idleBytes: 0,
      background: false,
      backup,
    })
    const filled = async (pages: number) => {
      const buffer = await pool.allocate(pages * page)
      await buffer.write(0, pattern(pages * page))
      return buffer
    }
    const clean = await filled(5)
    await clean.backup()
    await clean.restore()
    await filled(1)
    const given = await filled(2)
    const wanting = await pool.allocate(4 * page)
    // Only the dirty page can leave for the first one that is missing: it is being stored from now on.
    const [pin, other] = [await clean.pin(), await given.pin()]
    holds = true
    const first = wanting.pin({ offset: 0, length: page })
    await new Promise((resolve) => setImmediate(resolve))
    pin.release()
    other.release()
    await given.free()
    const pins = [await first, await wanting.pin({ offset: page, length: page })]
    expect(machineOf(pool).reclaim.isEvicting).toBe(true)
    const last = wanting.pin({ offset: 2 * page, length: page })
    await new Promise((resolve) => setImmediate(resolve))
    expect(clean.residentBytes).toBe(5 * page)
    store()
    pins.push(await last)
    expect(clean.residentBytes).toBe(5 * page)
    for (const each of pins) each.release()
  })
})

describe('a backup that starts copies in a wrong way', () => {
  const endsWith = (copied: number) => (_first: number, _span: Uint8Array, done: Done) => {
    done(copied)
    return true
  }

  const wrong: readonly [string, (backup: CopyingBackup) => CopyingBackup['mode'], object][] = [
    [
      'is done twice before it returns',
      (backup) => (first, span, done) => {
        backup.copy(first, span, 1)
        done(1)
        done(1)
        return true
      },
      { code: 'EIO' },
    ],
    ['copies more pages than there are', () => endsWith(2), { code: 'EIO' }],
    ['copies a part of a page', () => endsWith(0.5), { code: 'EIO' }],
    ['copies fewer and does not say why', () => endsWith(0), { code: 'EIO' }],
    [
      'throws',
      () => () => {
        throw new RangeError('misuse')
      },
      { message: 'misuse' },
    ],
  ]

  it.each(wrong)('%s: the read fails, and the next one has the page', async (_, make, error) => {
    const { buffer, backup, pool, at } = await storedPages(4)
    backup.mode = make(backup)
    const into = new Uint8Array(page)
    await expect(buffer.read(page, into)).rejects.toMatchObject(error)
    expect(pool.verify()).toEqual([])
    backup.mode = 'at once'
    await buffer.read(page, into)
    expect(into).toEqual(at(1))
  })

  it('is done again later: the page is delivered once, and a warning says so', async () => {
    const { buffer, backup, pool, at } = await storedPages(4)
    backup.mode = 'later'
    const warnings: string[] = []
    const listen = (warning: Error & { code?: string }) => warnings.push(warning.code ?? '')
    process.on('warning', listen)
    const into = new Uint8Array(page)
    const reading = buffer.read(page, into)
    await nextTurn()
    backup.started[0]!.end()
    backup.started[0]!.end()
    await reading
    await nextTurn()
    process.off('warning', listen)
    expect(into).toEqual(at(1))
    expect(warnings).toContain('SPILLWAY_BACKUP_BROKEN')
    expect(pool.verify()).toEqual([])
  })

  it('refuses to start: the pages come through copyPages', async () => {
    const { buffer, backup, at } = await storedPages(4)
    backup.mode = () => false
    const into = new Uint8Array(page)
    await buffer.read(page, into)
    expect(into).toEqual(at(1))
    expect(backup.copyPagesCalls).toBe(1)
  })

  it('stops half way: what came stays, and the next copy goes on after it', async () => {
    const { buffer, backup, bytes } = await storedPages(8, { maxOrder: 3 })
    backup.mode = 'later'
    const into = new Uint8Array(8 * page)
    const reading = buffer.read(0, into)
    await nextTurn()
    backup.started[0]!.end(3, Object.assign(new Error('worn out'), { code: 'EIO' }))
    await expect(reading).rejects.toMatchObject({ code: 'EIO', page: 3 })
    backup.mode = 'at once'
    await buffer.read(0, into)
    expect(into).toEqual(bytes)
    expect(backup.started.map(({ count }) => count)).toEqual([8, 5])
  })
})
