import { type Backup, type FaultyBackup, faultyBackup, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type PagedBuffer, Pool, type PoolOptions } from '../src/index.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'

const limitPages = 32
const chunkBytes = 8 * page

interface Full {
  readonly pool: Pool
  readonly backup: FaultyBackup
  readonly buffer: PagedBuffer
  /** What was written before the backup was full. */
  readonly bytes: Uint8Array
}

/** A pool whose backup is full, and whose memory is full of what the backup does not take. */
async function full(options: Partial<PoolOptions> & { backup?: Backup } = {}): Promise<Full> {
  const { backup: inner = memoryBackup({ capacityBytes: 64 * page }), ...poolOptions } = options
  const backup = faultyBackup(inner)
  const pool = new Pool({
    limitBytes: limitPages * page,
    maxOrder: 3,
    provider: 'resizable',
    backup,
    background: false,
    ...poolOptions,
  })
  const buffer = await pool.allocate(256 * page, { label: 'subject' })
  const content = pattern(256 * page)
  let written = 0
  for (let failure: unknown; failure === undefined; ) {
    const piece = content.subarray(written, written + chunkBytes)
    failure = await buffer.write(written, piece).then(
      () => undefined,
      (error) => error,
    )
    if (failure === undefined) written += chunkBytes
    else expect(failure).toMatchObject({ code: 'ENOMEM', cause: { code: 'ENOSPC' } })
  }
  expect(written).toBeGreaterThanOrEqual(64 * page)
  return { pool, backup, buffer, bytes: content.subarray(0, written) }
}

async function close({ pool, backup }: Full): Promise<void> {
  expect(pool.verify()).toEqual([])
  backup.heal()
  await pool.close()
  expect(backup.stats().livePages).toBe(0)
  await backup.close()
}

async function read(buffer: PagedBuffer, offset: number, length: number, signal?: AbortSignal) {
  const found = new Uint8Array(length)
  await buffer.read(offset, found, { signal })
  return found
}

/** Makes the next copy of a backup wait: `began` resolves when it does, `goOn` lets it go on. */
function holdCopy(backup: FaultyBackup) {
  const began = Promise.withResolvers<void>()
  const held = Promise.withResolvers<void>()
  const copyPages = backup.copyPages.bind(backup)
  backup.copyPages = async (handles, spans, options) => {
    backup.copyPages = copyPages
    began.resolve()
    await held.promise
    return copyPages(handles, spans, options)
  }
  return { began: began.promise, goOn: () => held.resolve() }
}

describe('reads while memory is full of pages that no backup takes', () => {
  for (const whenFull of ['wait', 'fail'] as const) {
    it(`a full backup keeps nothing from being read, whenFull '${whenFull}'`, async () => {
      const setting = await full({ whenFull })
      const { pool, buffer, bytes } = setting
      for (let at = 0; at < bytes.byteLength; at += page) {
        const found = await read(buffer, at, page)
        expect(firstDifference(found, bytes.subarray(at, at + page)), `page ${at / page}`).toBe(-1)
      }
      expect(pool.stats().residentBytes).toBeLessThanOrEqual(limitPages * page)
      await close(setting)
    })
  }

  it('a read of any offset and length is right, also one of more than the limit, and of what was never written', async () => {
    const setting = await full()
    const { buffer, bytes } = setting
    for (const [offset, length] of [
      [1, 1],
      [page - 1, 2],
      [3 * page + 17, 21 * page],
      [5, bytes.byteLength - 9],
    ] as const) {
      const found = await read(buffer, offset, length)
      expect(firstDifference(found, bytes.subarray(offset, offset + length)), `${offset}`).toBe(-1)
    }
    const found = await read(buffer, bytes.byteLength - 10, 10 + 3 * page)
    expect(firstDifference(found.subarray(0, 10), bytes.subarray(-10))).toBe(-1)
    expect(found.subarray(10).every((byte) => byte === 0)).toBe(true)
    await close(setting)
  })

  it('copyTo, pieces and readable read on, too', async () => {
    const setting = await full()
    const { pool, buffer, bytes } = setting
    const pieces = []
    for await (const piece of buffer.pieces({ length: 40 * page })) pieces.push(new Uint8Array(piece))
    expect(firstDifference(Buffer.concat(pieces), bytes.subarray(0, 40 * page))).toBe(-1)
    const streamed = await new Response(buffer.readable({ length: 40 * page })).arrayBuffer()
    expect(firstDifference(new Uint8Array(streamed), bytes.subarray(0, 40 * page))).toBe(-1)
    expect(pool.verify()).toEqual([])
    await close(setting)
  })

  it('while the backup is left alone after a failure, reads neither wait nor ask it to store', async () => {
    const setting = await full()
    const { pool, backup, buffer, bytes } = setting
    // The first failures make the pause long; the read is one of many within it.
    for (let attempt = 0; attempt < 6; attempt++) await buffer.write(bytes.byteLength, bytes).catch(() => {})
    const stores = backup.callsOf('backupPages')
    const { waits } = pool.stats()
    await read(buffer, 0, page)
    expect(backup.callsOf('backupPages')).toBe(stores)
    expect(pool.stats().waits).toBe(waits)
    await close(setting)
  })

  it('when there is room again, what is read is in memory again', async () => {
    const setting = await full()
    const { backup, buffer, bytes, pool } = setting
    await read(buffer, 0, page)
    await pool.setLimit(2 * limitPages * page)
    await read(buffer, 0, page)
    const copies = backup.callsOf('copyPages')
    expect(firstDifference(await read(buffer, 0, page), bytes.subarray(0, page))).toBe(-1)
    expect(backup.callsOf('copyPages')).toBe(copies)
    await close(setting)
  })

  it('a page that the backup cannot give costs itself and no other', async () => {
    const setting = await full()
    const { backup, buffer, bytes } = setting
    backup.inject({ method: 'copyPages', times: 1, stop: 3, code: 'EBADMSG' })
    backup.inject({ method: 'copyPages', times: 1, stop: 0, code: 'EBADMSG' })
    const error = await read(buffer, 0, 8 * page).catch((failure) => failure)
    expect(error).toMatchObject({ code: 'EBADMSG', buffer: 'subject', page: 3, backup: 'memory' })
    expect(firstDifference(await read(buffer, 0, 8 * page), bytes.subarray(0, 8 * page))).toBe(-1)
    await close(setting)
  })

  it('content that is discarded while it is copied is read as zeros', async () => {
    const setting = await full()
    const { backup, buffer } = setting
    const held = holdCopy(backup)
    const reading = read(buffer, 0, 2 * page)
    await held.began
    await buffer.purge()
    held.goOn()
    expect((await reading).every((byte) => byte === 0)).toBe(true)
    await close(setting)
  })

  it('what is written while an older copy is under way is what the read gives', async () => {
    const setting = await full()
    const { pool, backup, buffer } = setting
    const held = holdCopy(backup)
    const reading = read(buffer, 0, 2 * page)
    await held.began
    await pool.setLimit(2 * limitPages * page)
    const newer = pattern(chunkBytes, 77)
    await buffer.write(0, newer)
    held.goOn()
    expect(firstDifference(await reading, newer.subarray(0, 2 * page))).toBe(-1)
    await close(setting)
  })

  it('a copy from a backup that was exchanged meanwhile is not believed', async () => {
    const setting = await full()
    const { pool, backup, buffer, bytes } = setting
    const held = holdCopy(backup)
    const reading = read(buffer, 0, 2 * page)
    await held.began
    await pool.setLimit(8 * limitPages * page)
    await buffer.restore()
    const other = memoryBackup()
    await buffer.setBackup(other)
    await buffer.backup()
    held.goOn()
    expect(firstDifference(await reading, bytes.subarray(0, 2 * page))).toBe(-1)
    expect(firstDifference(await read(buffer, 0, bytes.byteLength), bytes)).toBe(-1)
    await close(setting)
    await other.close()
  })

  it('an abort ends a read that waits for a copy of another, and free one that copies', async () => {
    const setting = await full()
    const { backup, buffer } = setting
    const held = holdCopy(backup)
    const reading = read(buffer, 0, 2 * page)
    await held.began
    const control = new AbortController()
    const waiting = read(buffer, 8 * page, page, control.signal)
    control.abort(new Error('no longer needed'))
    await expect(waiting).rejects.toMatchObject({ code: 'EINTR', name: 'AbortError' })
    const freed = buffer.free()
    held.goOn()
    await Promise.allSettled([reading])
    await freed
    await close(setting)
  })

  it('ten thousand reads at once take one small buffer', async () => {
    const setting = await full()
    const { buffer, bytes, pool } = setting
    const before = pool.stats().metadataBytes
    const found = new Uint8Array(page)
    const reads = Array.from({ length: 10_000 }, (_, index) => {
      const offset = (index % (bytes.byteLength / page)) * page
      const into = new Uint8Array(16)
      return buffer.read(offset, into).then(() => {
        found.set(into)
        return firstDifference(into, bytes.subarray(offset, offset + 16))
      })
    })
    expect(new Set(await Promise.all(reads))).toEqual(new Set([-1]))
    // Beside 64 bytes that the buffer's operations may take.
    expect(pool.stats().metadataBytes - before).toBeLessThanOrEqual(64 * 1024 + 64)
    await close(setting)
  })

  it('a backup that has no memory to copy with is told of, and not asked for ever', async () => {
    const setting = await full()
    const { pool, backup, buffer, bytes } = setting
    backup.inject({ method: 'copyPages', stop: 0, code: 'ENOMEM' })
    const refused = { code: 'ENOMEM', backup: 'memory' }
    await expect(read(buffer, 0, 2 * page)).rejects.toMatchObject(refused)
    // The same with memory for it, so with a chunk that waits for its bytes.
    await pool.setLimit(2 * limitPages * page)
    for (let time = 0; time < 2; time++)
      await expect(read(buffer, 8 * page, 8 * page)).rejects.toMatchObject(refused)
    backup.heal()
    expect(firstDifference(await read(buffer, 0, bytes.byteLength), bytes)).toBe(-1)
    await close(setting)
  })

  it('a pin needs memory, and says what the backup said', async () => {
    const setting = await full({ whenFull: 'fail' })
    const refused = { code: 'ENOMEM', cause: { code: 'ENOSPC' } }
    await expect(setting.buffer.pin({ length: page })).rejects.toMatchObject(refused)
    await close(setting)
  })

  it('backups that fail, or are read-only, keep nothing from being read either', async () => {
    for (const code of ['EROFS', 'EIO', 'EACCES'] as const) {
      const backup = faultyBackup(memoryBackup())
      const pool = new Pool({ limitBytes: limitPages * page, maxOrder: 3, provider: 'resizable', backup })
      const stored = await pool.allocate(64 * page)
      const bytes = pattern(64 * page)
      await stored.write(0, bytes)
      await stored.backup()
      const dirty = await pool.allocate(limitPages * page)
      backup.inject({ method: 'backupPages', code })
      await dirty.write(0, pattern(limitPages * page, 2))
      expect(firstDifference(await read(stored, 0, 64 * page), bytes), code).toBe(-1)
      expect(pool.verify()).toEqual([])
      backup.heal()
      await pool.close()
      await backup.close()
    }
  })
})
