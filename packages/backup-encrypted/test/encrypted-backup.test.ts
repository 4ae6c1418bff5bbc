import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFileBackup } from '@spillway/backup-file'
import { type Backup, defineBackup, faultyBackup, memoryBackup, nullBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { flip, followHandles, pagesOf, tamperedBackup } from '../../core/test/support/tampered-backup.ts'
import { encryptedBackup } from '../src/index.ts'

const pageBytes = 4096
const contentOf = (seed: number, pages = 1) => {
  const bytes = new Uint8Array(pages * pageBytes)
  for (let at = 0; at < bytes.byteLength; at++) bytes[at] = (seed * 31 + at * 7 + (at >> 8)) & 255
  return bytes
}

async function store(backup: Backup, bytes: Uint8Array): Promise<number> {
  const { handles, error } = await backup.backupPages([bytes])
  if (error !== undefined) throw error
  return handles[0].first
}

async function read(backup: Backup, first: number, count = 1) {
  const into = new Uint8Array(count * pageBytes).fill(0xa5)
  const result = await backup.copyPages([{ first, count }], [into])
  return { into, ...result }
}

/** An encrypted backup, somebody between it and its memory, and which handle is which. */
function tampered() {
  const medium = tamperedBackup(memoryBackup())
  const backup = encryptedBackup(medium)
  return { medium, backup, innerHandle: followHandles(backup, medium) }
}

describe('what lies on the medium', () => {
  it('has none of the words that were stored, and no page twice', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'spillway-encrypted-'))
    const path = join(folder, 'pages')
    await using backup = encryptedBackup(await openFileBackup({ path, capacityBytes: 2 ** 20 }))
    const canaries = ['the quick brown fox', 'CANARY-9f31', 'secret=hunter2', '\u0000'.repeat(64)]
    const page = Buffer.alloc(pageBytes)
    for (const [index, canary] of canaries.entries()) page.write(canary, index * 512, 'latin1')
    const handle = await store(backup, new Uint8Array(Buffer.concat(Array.from({ length: 32 }, () => page))))
    const file = readFileSync(path)
    expect(file.byteLength).toBeGreaterThanOrEqual(32 * pageBytes)
    for (const canary of canaries.slice(0, 3)) {
      for (let from = 0; from + 8 <= canary.length; from++) {
        expect(file.includes(canary.slice(from, from + 8), 0, 'latin1')).toBe(false)
      }
    }
    // Those of the file's own are all zeros.
    const seen = pagesOf(file, pageBytes)
      .map((bytes) => Buffer.from(bytes))
      .filter((bytes) => bytes.some((byte) => byte !== 0))
    expect(seen.length).toBeGreaterThanOrEqual(32)
    expect(new Set(seen.map((bytes) => bytes.toString('latin1'))).size).toBe(seen.length)
    expect(Buffer.from((await read(backup, handle)).into).equals(page)).toBe(true)
    rmSync(folder, { recursive: true })
  })

  it('differs from opening to opening, for the same key and the same page', async () => {
    const key = new Uint8Array(randomBytes(32))
    const before = key.slice()
    const sealed: Buffer[] = []
    for (let opening = 0; opening < 2; opening++) {
      const medium = tamperedBackup(memoryBackup())
      await using backup = encryptedBackup(medium, { key })
      await store(backup, contentOf(1))
      sealed.push(Buffer.from(medium.bytesOf.get(medium.stored[0]) as Uint8Array))
    }
    expect(sealed[0].equals(sealed[1])).toBe(false)
    expect(key).toEqual(before)
  })
})

describe('what was changed on the medium', () => {
  it('is EBADMSG when pages are swapped, and when an older page is put back', async () => {
    const { medium, backup, innerHandle } = tampered()
    const [one, other] = [await store(backup, contentOf(1)), await store(backup, contentOf(2))]
    const sealed = [one, other].map((handle) => medium.bytesOf.get(innerHandle(handle)) as Uint8Array)
    const old = await store(backup, contentOf(3))
    const oldBytes = (medium.bytesOf.get(innerHandle(old)) as Uint8Array).slice()
    await backup.drop([{ first: old, count: 1 }])
    const renewed = await store(backup, contentOf(4))
    medium.tampers.set(innerHandle(one), (page) => page.set(sealed[1]))
    medium.tampers.set(innerHandle(renewed), (page) => page.set(oldBytes))
    for (const handle of [one, renewed]) {
      const { copied, error, into } = await read(backup, handle)
      expect(copied).toBe(0)
      expect(error).toMatchObject({ code: 'EBADMSG', handle, page: 0, backup: backup.name })
      expect(into.every((byte) => byte === 0)).toBe(true)
    }
    expect(backup.stats().damagedPages).toBe(2)
    expect((await read(backup, other)).into).toEqual(contentOf(2))
    await backup.close()
  })

  it('is not called damaged when the second read, which the signal reaches, fails', async () => {
    const faulty = faultyBackup(memoryBackup())
    const medium = tamperedBackup(faulty)
    const { copyPages } = medium
    const signals: (AbortSignal | undefined)[] = []
    medium.copyPages = (handles, spans, options) => {
      signals.push(options?.signal)
      return copyPages(handles, spans, options)
    }
    const backup = encryptedBackup(medium)
    const innerHandle = followHandles(backup, medium)
    const handle = await store(backup, contentOf(1, 3))
    let times = 0
    medium.tampers.set(innerHandle(handle + 1), (page) => {
      if (times++ > 0) return
      flip(page)
      faulty.inject({ method: 'copyPages', code: 'EIO', times: 1 })
    })
    const into = new Uint8Array(3 * pageBytes)
    const { signal } = new AbortController()
    const result = await backup.copyPages([{ first: handle, count: 3 }], [into], { signal })
    expect(result).toMatchObject({
      copied: 1,
      error: { code: 'EIO', page: 1, handle: handle + 1, backup: backup.name },
    })
    expect(signals).toEqual([signal, signal])
    expect(backup.stats()).toMatchObject({ tagMismatches: 1, damagedPages: 0 })
    expect((await read(backup, handle, 3)).into).toEqual(contentOf(1, 3))
    await backup.close()
  })

  it('is read a second time, and is good when only the way was bad', async () => {
    const { medium, backup, innerHandle } = tampered()
    const handle = await store(backup, contentOf(1, 3))
    let times = 0
    medium.tampers.set(innerHandle(handle + 1), (page) => {
      if (times++ % 2 === 0) flip(page)
    })
    expect(await read(backup, handle, 3)).toMatchObject({ copied: 3, into: contentOf(1, 3) })
    const span = new Uint8Array(3 * pageBytes)
    const told = await new Promise((resolve) => {
      expect(backup.startCopy?.(handle, span, (...result) => resolve(result))).toBe(true)
    })
    expect(told).toEqual([3, undefined])
    expect(span).toEqual(contentOf(1, 3))
    expect(backup.stats()).toMatchObject({ tagMismatches: 1, damagedPages: 0 })
    await backup.close()
  })

  it('stays damaged until it is dropped, also when the medium heals', async () => {
    const { medium, backup, innerHandle } = tampered()
    const handle = await store(backup, contentOf(1))
    medium.tampers.set(innerHandle(handle), flip)
    expect((await read(backup, handle)).error).toMatchObject({ code: 'EBADMSG' })
    medium.tampers.clear()
    expect((await read(backup, handle)).error).toMatchObject({ code: 'EBADMSG' })
    await backup.drop([{ first: handle, count: 1 }])
    expect(backup.stats().damagedPages).toBe(0)
    await backup.close()
  })
})

describe('what the inner backup says', () => {
  it('is told with this backup’s name, page and handle, and the inner error as cause', async () => {
    const faulty = faultyBackup(memoryBackup())
    await using backup = encryptedBackup(faulty)
    const handle = await store(backup, contentOf(1, 8))
    faulty.inject({ method: 'copyPages', stop: 3, code: 'EIO', times: 1 })
    const { copied, error } = await read(backup, handle, 8)
    expect(copied).toBe(3)
    expect(error).toMatchObject({ code: 'EIO', page: 3, handle: handle + 3, backup: backup.name })
    expect(error?.cause).toMatchObject({ backup: 'memory' })
    faulty.inject({ method: 'drop', code: 'EIO', times: 1 })
    await expect(backup.drop([{ first: handle, count: 8 }])).rejects.toMatchObject({ code: 'EIO' })
    expect(await read(backup, handle, 8)).toMatchObject({ copied: 8, into: contentOf(1, 8) })
  })

  it('is EIO where it lost a page, because this backup’s handle is not stale', async () => {
    const medium = tamperedBackup(memoryBackup())
    await using backup = encryptedBackup(medium)
    const handle = await store(backup, contentOf(1))
    await medium.drop([{ first: medium.stored[0], count: 1 }])
    expect((await read(backup, handle)).error).toMatchObject({ code: 'EIO', handle })
  })

  it('is EBADF when somebody else closed it', async () => {
    const inner = memoryBackup()
    const backup = encryptedBackup(inner)
    await inner.close()
    const { handles, error } = await backup.backupPages([contentOf(1)])
    expect(handles).toEqual([])
    expect(error).toMatchObject({ code: 'EBADF', backup: 'memory' })
    await expect(backup.bytesAvailable()).rejects.toMatchObject({ code: 'EBADF' })
    await backup.close()
  })

  it('keeps reservations of the inner backup, and refuses those of others', async () => {
    await using other = memoryBackup()
    await using backup = encryptedBackup(memoryBackup({ capacityBytes: 8 * pageBytes }))
    const reservation = await backup.reserve(4 * pageBytes)
    expect(await backup.bytesAvailable()).toBe(4 * pageBytes)
    await backup.backupPages([contentOf(1, 3)], { reservation })
    expect(reservation.bytes).toBe(pageBytes)
    const foreign = await other.reserve(pageBytes)
    await expect(backup.backupPages([contentOf(1)], { reservation: foreign })).rejects.toBeInstanceOf(
      TypeError,
    )
  })
})

describe('calls under way', () => {
  it('wait for staging memory in turn, and an abort ends the wait', async () => {
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    const medium = tamperedBackup(memoryBackup())
    const storeInside = medium.backupPages.bind(medium)
    medium.backupPages = async (spans, options) => {
      await held
      return storeInside(spans, options)
    }
    await using backup = encryptedBackup(medium)
    const inFlight = Array.from({ length: 6 }, (_, seed) => backup.backupPages([contentOf(seed)]))
    const controller = new AbortController()
    const aborted = backup.backupPages([contentOf(9)], { signal: controller.signal })
    await new Promise(setImmediate)
    controller.abort('enough')
    expect(await aborted).toMatchObject({ handles: [], error: { code: 'EINTR', cause: 'enough' } })
    release()
    for (const [seed, call] of inFlight.entries()) {
      const { handles } = await call
      expect((await read(backup, handles[0].first)).into).toEqual(contentOf(seed))
    }
    expect(backup.stats().stagingBytes).toBeLessThanOrEqual(32 * 2 ** 20)
  })

  it('are EFAULT when their memory is detached on the way, and the backup goes on', async () => {
    await using backup = encryptedBackup(memoryBackup())
    await store(backup, contentOf(1))
    const span = contentOf(2, 512)
    const call = backup.backupPages([span])
    structuredClone(span.buffer, { transfer: [span.buffer] })
    const { handles, error } = await call
    expect(error).toMatchObject({ code: 'EFAULT' })
    expect(handles).toEqual([])
    expect((await read(backup, await store(backup, contentOf(3)))).into).toEqual(contentOf(3))
  })

  it('keep one store of a number: what the medium refused is sealed anew under another', async () => {
    const faulty = faultyBackup(memoryBackup())
    await using backup = encryptedBackup(faulty)
    faulty.inject({ method: 'backupPages', stop: 2, code: 'ENOSPC', times: 1 })
    const first = await backup.backupPages([contentOf(1, 4)])
    expect(first).toMatchObject({ handles: [{ count: 2 }], error: { code: 'ENOSPC' } })
    const again = await store(backup, contentOf(1, 4).subarray(2 * pageBytes))
    expect(again).toBeGreaterThanOrEqual(first.handles[0].first + 4)
    expect((await read(backup, again, 2)).into).toEqual(contentOf(1, 4).subarray(2 * pageBytes))
    expect((await read(backup, first.handles[0].first, 2)).into).toEqual(
      contentOf(1, 4).subarray(0, 2 * pageBytes),
    )
  })
})

describe('bookkeeping', () => {
  it('takes at most 18 bytes for a page in whole chunks, and shrinks with what is dropped', async () => {
    await using backup = encryptedBackup(memoryBackup())
    const chunk = new Uint8Array(512 * pageBytes)
    const handles: number[] = []
    for (let batch = 0; batch < 32; batch++) handles.push(await store(backup, chunk))
    const pages = 32 * 512
    expect(backup.stats().metadataBytes / pages).toBeLessThanOrEqual(18)
    // One page of each 512 stays: it does not hold the tags of the others.
    for (const first of handles) await backup.drop([{ first: first + 1, count: 511 }])
    expect(backup.stats().metadataBytes / 32).toBeLessThan(1200)
    for (const first of handles) expect((await read(backup, first)).copied).toBe(1)
    for (const first of handles) await backup.drop([{ first, count: 1 }])
    expect(backup.stats().metadataBytes).toBe(0)
  })
})

describe('encryptedBackup refuses', () => {
  const inner = memoryBackup()
  const persistent = defineBackup({
    name: 'archive',
    medium: 'test',
    pageSizeBytes: 4096,
    persistent: true,
    numbered: { capacityBytes: 4096, store() {}, copy() {}, drop() {} },
  })

  it.each<[string, unknown, unknown, ErrorConstructor, RegExp]>([
    ['no backup', undefined, {}, TypeError, /made of a backup/],
    ['what is no backup', {}, {}, TypeError, /made of a backup/],
    ['a backup that keeps nothing', nullBackup(), {}, TypeError, /keeps nothing/],
    ['a persistent backup', persistent, {}, TypeError, /persistent/],
    ['an unknown option', inner, { keys: 1 }, TypeError, /no option "keys"/],
    ['a key that is a string', inner, { key: 'k'.repeat(32) }, TypeError, /Uint8Array of 32 bytes/],
    ['a short key', inner, { key: new Uint8Array(31) }, RangeError, /31 bytes/],
    ['a long key', inner, { key: new Uint8Array(33) }, RangeError, /33 bytes/],
    ['an empty name', inner, { name: '' }, TypeError, /name/],
    ['options that are none', inner, null, TypeError, /object of options/],
  ])('%s', (_, given, options, kind, message) => {
    const make = () => encryptedBackup(given as Backup, options as object)
    expect(make).toThrow(kind)
    expect(make).toThrow(message)
  })

  it('nothing of a key’s content goes into an error', () => {
    expect(() => encryptedBackup(inner, { key: 'sesame' as never })).not.toThrow(/sesame/)
  })
})
