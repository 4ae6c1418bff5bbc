import {
  type FaultPlan,
  type FaultyBackup,
  faultyBackup,
  MemoryMedium,
  memoryBackup,
  pace,
} from '@spillway/core'
import { afterEach, describe, expect, it } from 'vitest'
import { type PagedBuffer, Pool, type PoolOptions } from '../src/index.ts'

const pageBytes = 4096

const opened: Pool[] = []
afterEach(async () => {
  for (const pool of opened.splice(0)) await pool.close()
})

function open(limitPages: number, maxOrder: number, options: Partial<PoolOptions> = {}) {
  const backup = memoryBackup({ capacityBytes: 2 ** 24 })
  const pool = new Pool({
    limitBytes: limitPages * pageBytes,
    maxOrder,
    backup,
    background: false,
    ...options,
  })
  opened.push(pool)
  return { pool, backup }
}

describe('chunks of zeros', () => {
  it('are backed up without any I/O, and read as zeros', async () => {
    const { pool, backup } = open(64, 4)
    const buffer = await pool.allocate(64 * pageBytes)
    await buffer.write(0, new Uint8Array(64 * pageBytes))
    expect(await buffer.backup()).toEqual({ pages: 64 })
    expect(backup.stats()).toMatchObject({ backedUpPages: 0, livePages: 0 })
    expect(buffer.residentBytes).toBe(0)
    const bytes = new Uint8Array(64 * pageBytes).fill(1)
    await buffer.read(0, bytes)
    expect(bytes.every((byte) => byte === 0)).toBe(true)
    expect(backup.stats().copiedPages).toBe(0)
    expect(pool.verify()).toEqual([])
  })

  it('become empty where they lie between others, which are stored', async () => {
    const { pool, backup } = open(64, 4)
    const buffer = await pool.allocate(64 * pageBytes)
    const content = new Uint8Array(64 * pageBytes)
    content.fill(7, 0, 16 * pageBytes)
    // The last byte of a chunk is all that is not zero.
    content[48 * pageBytes - 1] = 1
    await buffer.write(0, content)
    expect(await buffer.backup()).toEqual({ pages: 64 })
    expect(backup.stats().backedUpPages).toBe(32)
    const bytes = new Uint8Array(content.byteLength)
    await buffer.read(0, bytes)
    expect(Buffer.compare(bytes, content)).toBe(0)
    expect(pool.verify()).toEqual([])
  })

  it('are evicted without any I/O when others need the memory', async () => {
    const { pool, backup } = open(32, 2)
    const buffer = await pool.allocate(32 * pageBytes)
    await buffer.write(0, new Uint8Array(32 * pageBytes))
    const other = await pool.allocate(16 * pageBytes)
    await other.write(0, new Uint8Array(16 * pageBytes).fill(1))
    expect(backup.stats().backedUpPages).toBe(0)
    await buffer.write(0, Uint8Array.of(5))
    const first = new Uint8Array(2)
    await buffer.read(0, first)
    expect([...first]).toEqual([5, 0])
    expect(pool.verify()).toEqual([])
  })

  it('take no room: a backup that is full has enough', async () => {
    const backup = memoryBackup({ capacityBytes: pageBytes })
    const pool = new Pool({ limitBytes: 16 * pageBytes, maxOrder: 2, backup, background: false })
    opened.push(pool)
    const buffer = await pool.allocate(256 * pageBytes)
    await buffer.write(0, new Uint8Array(256 * pageBytes))
    expect((await buffer.backup()).error).toBeUndefined()
    expect(pool.verify()).toEqual([])
  })

  it('become empty as pieces of a chunk that was split, and only the others are stored', async () => {
    const backup = memoryBackup({ capacityBytes: 48 * pageBytes })
    const { handles } = await backup.backupPages([new Uint8Array(40 * pageBytes)])
    const pool = new Pool({ limitBytes: 64 * pageBytes, maxOrder: 6, backup, background: false })
    opened.push(pool)
    const buffer = await pool.allocate(64 * pageBytes)
    const content = new Uint8Array(64 * pageBytes)
    content.fill(7, 0, 8 * pageBytes).fill(9, 47 * pageBytes, 50 * pageBytes)
    await buffer.write(0, content)
    // The backup is full behind the first eight pages: the chunk is split there, into pieces of 8, 16 and 32 pages.
    expect(await buffer.backup()).toMatchObject({ pages: 8, error: { code: 'ENOSPC' } })
    await backup.drop(handles)
    expect(await buffer.backup()).toEqual({ pages: 56 })
    expect(backup.stats()).toMatchObject({ livePages: 8 + 32, backedUpPages: 40 + 8 + 32 })
    const bytes = new Uint8Array(content.byteLength)
    await buffer.read(0, bytes)
    expect(Buffer.compare(bytes, content)).toBe(0)
    expect(pool.verify()).toEqual([])
  })

  it('leave all together or not at all in an atomic backup', async () => {
    const { pool, backup } = open(64, 4)
    const buffer = await pool.allocate(64 * pageBytes)
    const content = new Uint8Array(64 * pageBytes).fill(3, 32 * pageBytes)
    await buffer.write(0, content)
    const controller = new AbortController()
    const backingUp = buffer.backup({ atomic: true, signal: controller.signal })
    controller.abort()
    expect(await backingUp).toMatchObject({ pages: 0, error: { code: 'EINTR' } })
    expect(buffer.residentBytes).toBe(64 * pageBytes)
    expect(await buffer.backup({ atomic: true })).toEqual({ pages: 64 })
    expect(backup.stats().livePages).toBe(32)
    const bytes = new Uint8Array(content.byteLength)
    await buffer.read(0, bytes)
    expect(Buffer.compare(bytes, content)).toBe(0)
  })
})

describe('runs of pages of zeros within a piece of a chunk that was split', () => {
  it.each<[string, Runs]>([
    ['in its middle', [[73, 93]]],
    ['at its beginning', [[64, 80]]],
    ['at its end', [[112, 128]]],
    [
      'twice',
      [
        [66, 82],
        [83, 120],
      ],
    ],
    [
      'in two pieces',
      [
        [33, 60],
        [70, 99],
      ],
    ],
  ])('become empty, and the others are stored: %s', async (_, runs) => {
    const subject = await splitSubject()
    const zeroPages = await subject.clear(runs)
    expect(await subject.buffer.backup()).toEqual({ pages: 120 })
    expect(subject.backup.stats().livePages).toBe(128 - zeroPages)
    expect(subject.buffer.residentBytes).toBe(0)
    await subject.expectContent()
  })

  it('are stored where they are shorter than 16 pages', async () => {
    const subject = await splitSubject()
    await subject.clear([
      [64, 79],
      [81, 96],
      [113, 128],
    ])
    expect(await subject.buffer.backup()).toEqual({ pages: 120 })
    expect(subject.backup.stats().livePages).toBe(128)
    expect(subject.pool.stats().splitChunks).toBe(1)
    await subject.expectContent()
  })

  it('are stored in a chunk that is whole: it is not looked into', async () => {
    const { pool, backup } = open(128, 6)
    const buffer = await pool.allocate(64 * pageBytes)
    await buffer.write(0, new Uint8Array(64 * pageBytes).fill(1, 0, pageBytes))
    expect(await buffer.backup()).toEqual({ pages: 64 })
    expect(backup.stats().livePages).toBe(64)
  })

  it('become empty in any chunk whose pages are handed over one by one', async () => {
    const { pool, backup } = open(128, 6, { split: 'always' })
    const buffer = await pool.allocate(64 * pageBytes)
    const content = new Uint8Array(64 * pageBytes).fill(1, 0, 5 * pageBytes).fill(2, 40 * pageBytes)
    await buffer.write(0, content)
    expect(await buffer.backup()).toEqual({ pages: 64 })
    expect(backup.stats().livePages).toBe(64 - 35)
    await expectContent(buffer, content)
  })

  it('become empty when they are evicted for others', async () => {
    const subject = await splitSubject()
    const zeroPages = await subject.clear([[67, 127]])
    const { pool, backup } = subject
    const other = await pool.allocate(pool.limitBytes)
    const pin = await other.pin({ write: true })
    expect(backup.stats().livePages).toBe(128 - zeroPages)
    pin.release()
    await other.free()
    await subject.expectContent()
  })

  it('leave all together or not at all in an atomic backup, to which the pieces belong', async () => {
    const gate = Promise.withResolvers<void>()
    const subject = await splitSubject({ wait: () => gate.promise })
    const { buffer, backup, faulty } = subject
    const zeroPages = await subject.clear([
      [33, 60],
      [70, 99],
    ])
    faulty.inject({ method: 'backupPages', delayMs: 1 })
    const controller = new AbortController()
    const aborted = buffer.backup({ atomic: true, signal: controller.signal })
    while (faulty.callsOf('backupPages') < 2) await turn()
    controller.abort()
    gate.resolve()
    expect(await aborted).toMatchObject({ pages: 0, error: { code: 'EINTR' } })
    expect(buffer.residentBytes).toBe(120 * pageBytes)
    expect(backup.stats().livePages).toBe(8)
    expect(await buffer.backup({ atomic: true })).toEqual({ pages: 120 })
    expect(backup.stats().livePages).toBe(128 - zeroPages)
    await subject.expectContent()
  })

  it('are as they were, or have left, when storing the others fails at any page', async () => {
    for (let page = 0; page < 120 - 37; page++) {
      const subject = await splitSubject()
      await subject.clear([
        [33, 50],
        [70, 90],
      ])
      const { buffer, pool, faulty } = subject
      faulty.inject({ method: 'backupPages', stop: page, code: 'EIO', times: 1 })
      const { pages, error } = await buffer.backup()
      expect(error).toMatchObject({ code: 'EIO' })
      expect(buffer.residentBytes).toBe((120 - pages) * pageBytes)
      expect(pool.verify()).toEqual([])
      expect((await buffer.backup()).error).toBeUndefined()
      expect(buffer.residentBytes).toBe(0)
      await subject.expectContent()
    }
  })

  it('stay while somebody pins them, and leave with the next backup', async () => {
    const gate = Promise.withResolvers<void>()
    const subject = await splitSubject({ wait: () => gate.promise })
    const { buffer, backup, faulty } = subject
    const zeroPages = await subject.clear([[70, 99]])
    faulty.inject({ method: 'backupPages', delayMs: 1 })
    const backingUp = buffer.backup()
    while (faulty.callsOf('backupPages') < 2) await turn()
    const pin = await buffer.pin({ offset: 64 * pageBytes, length: 64 * pageBytes })
    gate.resolve()
    expect((await backingUp).pages).toBe(56)
    expect(buffer.residentBytes).toBe(64 * pageBytes)
    pin.release()
    expect((await buffer.backup()).error).toBeUndefined()
    expect(buffer.residentBytes).toBe(0)
    expect(backup.stats().livePages).toBe(128 - zeroPages)
    await subject.expectContent()
  })

  it('are not looked for in a chunk that somebody pins meanwhile: it is stored whole', async () => {
    const { pool, backup, faulty } = openFaulty({}, { maxOrder: 7, split: 'always' })
    const buffer = await pool.allocate(128 * pageBytes)
    const content = new Uint8Array(128 * pageBytes).fill(7, 0, 99 * pageBytes)
    await buffer.write(0, content)
    const isMarked = useUpTheTurn(faulty)
    const backingUp = buffer.backup()
    await isMarked
    const pin = await buffer.pin()
    await backingUp
    expect(buffer.residentBytes).toBe(128 * pageBytes)
    pin.release()
    expect(await buffer.backup()).toEqual({ pages: 128 })
    expect(backup.stats().livePages).toBe(128)
    await expectContent(buffer, content)
  })
})

describe('a save that begins while zeros are on their way out', () => {
  it('does not wait for chunks that have become empty', async () => {
    const gate = Promise.withResolvers<void>()
    const { pool, faulty } = openFaulty({ wait: () => gate.promise }, { maxOrder: 4 })
    const buffer = await pool.allocate(64 * pageBytes, { label: 'saved' })
    const content = new Uint8Array(64 * pageBytes).fill(3, 0, 32 * pageBytes)
    await buffer.write(0, content)
    faulty.inject({ method: 'backupPages', delayMs: 1 })
    const backingUp = buffer.backup()
    while (faulty.callsOf('backupPages') < 1) await turn()
    const saving = buffer.save('image')
    gate.resolve()
    await Promise.all([saving, backingUp])
    await expectContent(await pool.load('image'), content)
    await expectContent(buffer, content)
  })

  it('waits for the pieces of a chunk that is split at them', async () => {
    const { pool, backup, faulty } = openFaulty({}, { maxOrder: 7, split: 'always' })
    const buffer = await pool.allocate(128 * pageBytes, { label: 'saved' })
    const content = new Uint8Array(128 * pageBytes).fill(7, 0, 40 * pageBytes).fill(8, 70 * pageBytes)
    await buffer.write(0, content)
    faulty.inject({ method: 'backupPages', delayMs: 5 })
    const isMarked = useUpTheTurn(faulty)
    const backingUp = buffer.backup()
    await isMarked
    const saving = buffer.save('image')
    await Promise.all([saving, backingUp])
    expect(backup.stats().livePages).toBe(128 - 30)
    await expectContent(await pool.load('image'), content)
    await expectContent(buffer, content)
  })
})

type Runs = readonly (readonly [first: number, end: number])[]

function openFaulty(plan: FaultPlan, options: Partial<PoolOptions>) {
  const backup = memoryBackup({ capacityBytes: 256 * pageBytes, medium: new MemoryMedium() })
  const faulty = faultyBackup(backup, plan)
  const pool = new Pool({
    limitBytes: 128 * pageBytes,
    backup: faulty,
    background: false,
    debug: true,
    ...options,
  })
  opened.push(pool)
  return { pool, backup, faulty }
}

/** A buffer of a chunk of 128 pages that was split: eight pages are stored, the others are pieces of 8, 16, 32 and 64 pages. */
async function splitSubject(plan: FaultPlan = {}) {
  const { pool, backup, faulty } = openFaulty(plan, { maxOrder: 7 })
  const buffer = await pool.allocate(128 * pageBytes)
  const content = new Uint8Array(128 * pageBytes).fill(7)
  await buffer.write(0, content)
  faulty.inject({ method: 'backupPages', stop: 8, code: 'EIO', times: 1 })
  expect(await buffer.backup()).toMatchObject({ pages: 8, error: { code: 'EIO' } })
  return {
    pool,
    backup,
    faulty,
    buffer,
    content,
    /** Writes zeros; resolves to how many pages of them. */
    async clear(runs: Runs): Promise<number> {
      let pages = 0
      for (const [first, end] of runs) {
        content.fill(0, first * pageBytes, end * pageBytes)
        await buffer.write(first * pageBytes, content.subarray(first * pageBytes, end * pageBytes))
        pages += end - first
      }
      return pages
    },
    async expectContent(): Promise<void> {
      await expectContent(buffer, content)
      expect(pool.verify()).toEqual([])
    },
  }
}

async function expectContent(buffer: PagedBuffer, content: Uint8Array): Promise<void> {
  const found = new Uint8Array(content.byteLength).fill(9)
  await buffer.read(0, found)
  expect(Buffer.compare(found, content)).toBe(0)
}

/**
 * Before the next backup marks anything, so much work is done in this turn of the event loop that what takes long waits for the
 * next one. Resolves when it waits.
 */
function useUpTheTurn(faulty: FaultyBackup): Promise<void> {
  return new Promise((resolve) => {
    const bytesAvailable = faulty.bytesAvailable.bind(faulty)
    faulty.bytesAvailable = async () => {
      const available = await bytesAvailable()
      while (pace(2 ** 18) !== undefined) await turn()
      for (const start = performance.now(); performance.now() - start < 2; );
      void microtasks().then(resolve)
      return available
    }
  })
}

async function microtasks(): Promise<void> {
  for (let count = 0; count < 50; count++) await undefined
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
