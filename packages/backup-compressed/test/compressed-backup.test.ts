import { type Backup, defineBackup, delay, faultyBackup, memoryBackup, nullBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type Codec, type CompressedBackup, compressedBackup, zlibCodec } from '../src/index.ts'
import { contentOf, pageBytes } from './content.ts'

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

async function start(backup: Backup, first: number, count: number) {
  const into = new Uint8Array(count * pageBytes).fill(0xa5)
  const told = await new Promise<[number, Error | undefined] | undefined>((resolve) => {
    const began = backup.startCopy?.(first, into, (copied, error) => resolve([copied, error]))
    if (began !== true) resolve(undefined)
  })
  return { into, told }
}

const innerPages = (backup: CompressedBackup) => backup.stats().inner.livePages

describe('the codec', () => {
  it('is zstd of the program where native code is there, which also reads long units that node:zlib compressed', async () => {
    await using backup = compressedBackup(memoryBackup())
    const half = contentOf('half', 40, 512)
    expect((await read(backup, await store(backup, half), 512)).into).toEqual(half)
    expect(backup.stats().codec).toBe('zstd (native)')
    const inner = memoryBackup({ pageSizeBytes: 2 ** 18 })
    await using long = compressedBackup(inner)
    const into = new Uint8Array(half.byteLength)
    const { handles } = await long.backupPages([half])
    await long.copyPages(handles, [into])
    expect(into).toEqual(half)
  })

  it('gives back what it holds when its backup is collected without close', async () => {
    let closed = 0
    const codec = { ...zlibCodec(), close: () => closed++ }
    const forget = async () =>
      void (await store(compressedBackup(memoryBackup(), { codec }), contentOf('half', 42, 64)))
    await forget()
    for (let round = 0; round < 500 && closed === 0; round++) {
      globalThis.gc!()
      await delay(10)
    }
    expect(closed).toBe(1)
  })

  it('is zstd of node:zlib where it is asked for', async () => {
    await using backup = compressedBackup(memoryBackup(), { codec: zlibCodec() })
    const half = contentOf('half', 41, 64)
    expect((await read(backup, await store(backup, half), 64)).into).toEqual(half)
    expect(backup.stats().codec).toBe('zstd (node:zlib)')
  })
})

describe('space', () => {
  it('of half-zero pages is little more than half, and of same-filled pages none', async () => {
    await using backup = compressedBackup(memoryBackup())
    const half = contentOf('half', 1, 512)
    const handle = await store(backup, half)
    expect(innerPages(backup)).toBeLessThanOrEqual(264)
    const filled = await store(backup, contentOf('zeros', 1, 512))
    const words = await store(backup, contentOf('word', 2, 64))
    expect(innerPages(backup)).toBeLessThanOrEqual(264)
    expect(backup.stats().sameFilledPages).toBe(576)
    expect((await read(backup, handle, 512)).into).toEqual(half)
    expect((await read(backup, filled, 512)).into).toEqual(contentOf('zeros', 1, 512))
    expect((await read(backup, words, 64)).into).toEqual(contentOf('word', 2, 64))
    await backup.drop([
      { first: filled, count: 512 },
      { first: words, count: 64 },
      { first: handle, count: 512 },
    ])
    expect(backup.stats()).toMatchObject({ sameFilledPages: 0, livePages: 0, inner: { livePages: 0 } })
  })

  it('of random pages is theirs, and the codec is hardly asked once it was so for a while', async () => {
    let asked = 0
    const codec = { ...zlibCodec(), compress: () => ++asked && 0 }
    await using backup = compressedBackup(memoryBackup(), { codec })
    const bytes = contentOf('random', 3, 512)
    const handle = await store(backup, bytes)
    expect(innerPages(backup)).toBe(512)
    const atFirst = asked
    for (let batch = 0; batch < 8; batch++) await store(backup, bytes)
    expect(asked - atFirst).toBeLessThanOrEqual(8)
    expect(Buffer.compare((await read(backup, handle, 512)).into, bytes)).toBe(0)
  })

  it('is saved for what looks random and repeats itself, also after much that is random', async () => {
    await using backup = compressedBackup(memoryBackup())
    const random = await store(backup, contentOf('random', 20, 1024))
    const bytes = new Uint8Array(4096 * pageBytes).map((_, index) => index >> 6)
    const handle = await store(backup, bytes)
    expect(innerPages(backup)).toBeLessThan(1024 + 4096 / 2)
    expect(Buffer.compare((await read(backup, handle, 4096)).into, bytes)).toBe(0)
    await backup.drop([{ first: random, count: 1024 }])
  })

  it('is saved for every fourth unit that can be compressed, among random ones', async () => {
    await using backup = compressedBackup(memoryBackup())
    const bytes = contentOf('random', 4, 512)
    for (let unit = 0; unit < 32; unit += 4) bytes.set(contentOf('half', unit, 16), unit * 16 * pageBytes)
    const handle = await store(backup, bytes)
    // 8 units of 16 pages, half of each: 64 pages could be saved.
    expect(512 - innerPages(backup)).toBeGreaterThanOrEqual(0.8 * 64)
    expect(Buffer.compare((await read(backup, handle, 512)).into, bytes)).toBe(0)
  })

  it('comes back after random drops: at most 1.25 of what fresh units take, once as much was moved as is told', async () => {
    await using backup = compressedBackup(memoryBackup(), { compactionBytesPerSecond: 2 ** 40 })
    const bytes = contentOf('half', 5, 2048)
    const handle = await store(backup, bytes)
    const kept: number[] = []
    const dropped: number[] = []
    for (let page = 0; page < 2048; page++) ((page * 7919) % 10 < 7 ? dropped : kept).push(page)
    await backup.drop(dropped.map((page) => ({ first: handle + page, count: 1 })))
    const fresh = kept.length / 2
    for (let waits = 0; innerPages(backup) > 1.25 * fresh && waits < 500; waits++) await delay(10)
    expect(innerPages(backup)).toBeLessThanOrEqual(1.25 * fresh)
    // Each pack was read once and stored once.
    expect(backup.stats().compactedBytes).toBeLessThanOrEqual(1.5 * 1024 * pageBytes)
    for (const page of kept) {
      const expected = bytes.subarray(page * pageBytes, (page + 1) * pageBytes)
      expect((await read(backup, handle + page)).into).toEqual(expected)
    }
  })

  it('comes back where the inner backup is full, without any free page', async () => {
    const inner = memoryBackup({ capacityBytes: 128 * pageBytes })
    await using backup = compressedBackup(inner)
    const bytes = contentOf('half', 6, 224)
    const handle = await store(backup, bytes)
    const room = (await backup.bytesAvailable()) / pageBytes
    const rest = await store(backup, contentOf('random', 7, room))
    expect(await backup.bytesAvailable()).toBe(0)
    const dropped = Array.from({ length: 112 }, (_, index) => ({ first: handle + 2 * index, count: 1 }))
    await backup.drop(dropped)
    const more = contentOf('random', 8, 40)
    const moreHandle = await store(backup, more)
    expect((await read(backup, moreHandle, 40)).into).toEqual(more)
    expect((await read(backup, rest, room)).into).toEqual(contentOf('random', 7, room))
    for (let page = 1; page < 224; page += 2) {
      expect((await read(backup, handle + page)).into).toEqual(
        bytes.subarray(page * pageBytes, (page + 1) * pageBytes),
      )
    }
  })
})

describe('reading', () => {
  it('starts copies of a page in a unit, of raw pages and of same-filled ones', async () => {
    await using backup = compressedBackup(memoryBackup())
    const bytes = new Uint8Array([
      ...contentOf('half', 9, 16),
      ...contentOf('random', 9, 16),
      ...contentOf('zeros', 9, 16),
    ])
    const handle = await store(backup, bytes)
    for (const [page, count] of [
      [3, 1],
      [0, 16],
      [5, 4],
      [20, 1],
      [16, 16],
      [40, 1],
      [32, 16],
    ]) {
      const { told, into } = await start(backup, handle + page, count)
      expect(told).toEqual([count, undefined])
      expect(into).toEqual(bytes.subarray(page * pageBytes, (page + count) * pageBytes))
    }
    // What lies in several places is for copyPages.
    expect((await start(backup, handle + 15, 2)).told).toBeUndefined()
    expect((await read(backup, handle + 8, 32)).into).toEqual(bytes.subarray(8 * pageBytes, 40 * pageBytes))
  })

  it('says which page the inner backup failed for, and gives those before it', async () => {
    const inner = faultyBackup(memoryBackup())
    await using backup = compressedBackup(inner)
    const handle = await store(backup, contentOf('half', 10, 64))
    inner.inject({ method: 'copyPages', stop: 10, code: 'EIO', times: 1 })
    const { copied, error, into } = await read(backup, handle, 64)
    // Ten pages of the inner backup hold one unit of some eight and a half.
    expect(copied).toBe(16)
    expect(error).toMatchObject({ code: 'EIO', page: 16, handle: handle + 16, backup: backup.name })
    expect(into.subarray(0, 16 * pageBytes)).toEqual(contentOf('half', 10, 64).subarray(0, 16 * pageBytes))
    expect((await read(backup, handle, 64)).into).toEqual(contentOf('half', 10, 64))
  })
})

describe('a codec that is not what it should be', () => {
  const lying = (change: Partial<Record<keyof Codec, unknown>>): Codec =>
    ({ ...zlibCodec(), name: 'tried', ...change }) as Codec
  const bytes = contentOf('half', 11, 16)

  it.each<[string, unknown]>([
    [
      'throws',
      () => {
        throw new Error('out of order')
      },
    ],
    [
      'rejects',
      async () => {
        throw new Error('out of order')
      },
    ],
    ['says more bytes than have room', () => 2 ** 30],
    ['says a part of a byte', () => 0.5],
    ['says nothing', () => undefined],
    ['says less than none', () => -1],
  ])('that %s when it compresses is EIO, and nothing is stored', async (_, compress) => {
    await using backup = compressedBackup(memoryBackup(), { codec: lying({ compress }) })
    const { handles, error } = await backup.backupPages([bytes])
    expect(handles).toEqual([])
    expect(error).toMatchObject({ code: 'EIO', message: expect.stringContaining('codec tried') })
    expect(backup.stats()).toMatchObject({ livePages: 0, inner: { livePages: 0 } })
    // Too few to be compressed.
    const random = contentOf('random', 12, 3)
    expect((await read(backup, await store(backup, random), 3)).into).toEqual(random)
  })

  it.each<[string, unknown]>([
    [
      'throws',
      () => {
        throw new Error('out of order')
      },
    ],
    ['gives too little', (_: Uint8Array, target: Uint8Array) => target.byteLength - 1],
    ['returns a promise', async (_: Uint8Array, target: Uint8Array) => target.byteLength],
    [
      'returns a promise that fails',
      async () => {
        throw new Error('out of order')
      },
    ],
  ])('that %s when it decompresses is EBADMSG, and other pages are good', async (_, decompress) => {
    await using backup = compressedBackup(memoryBackup(), { codec: lying({ decompress }) })
    const handle = await store(backup, bytes)
    const random = await store(backup, contentOf('random', 13, 4))
    const { copied, error } = await read(backup, handle + 2, 1)
    expect(copied).toBe(0)
    expect(error).toMatchObject({ code: 'EBADMSG', handle: handle + 2 })
    const { told } = await start(backup, handle + 2, 1)
    expect(told).toEqual([0, expect.objectContaining({ code: 'EBADMSG' })])
    expect((await read(backup, random, 4)).into).toEqual(contentOf('random', 13, 4))
    await backup.drop([{ first: handle, count: 16 }])
    expect(backup.stats().inner.livePages).toBe(4)
  })

  it('that gives a promise to compress is waited for, and one that does not shrink is not used', async () => {
    const codec = lying({ compress: async () => 0 })
    await using backup = compressedBackup(memoryBackup(), { codec })
    const handle = await store(backup, bytes)
    expect(innerPages(backup)).toBe(16)
    expect((await read(backup, handle, 16)).into).toEqual(bytes)
  })
})

describe('bookkeeping', () => {
  it('takes at most 2 bytes for a page in whole chunks', async () => {
    await using backup = compressedBackup(memoryBackup())
    const chunk = contentOf('half', 14, 512)
    for (let batch = 0; batch < 16; batch++) await store(backup, chunk)
    expect(backup.stats().metadataBytes / (16 * 512)).toBeLessThanOrEqual(2)
  })
})

describe('compressedBackup refuses', () => {
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
    ['a promise of one', Promise.resolve({}), {}, TypeError, /it was given a promise: await it/],
    ['a backup that keeps nothing', nullBackup(), {}, TypeError, /keeps nothing/],
    ['a persistent backup', persistent, {}, TypeError, /persistent/],
    ['an unknown option', inner, { level: 1 }, TypeError, /no option "level"/],
    ['a codec that is none', inner, { codec: { name: 'x' } }, TypeError, /codec/],
    ['units of half a page', inner, { unitBytes: 6144 }, RangeError, /unitBytes is 6144/],
    ['units of no page', inner, { unitBytes: 0 }, RangeError, /unitBytes is 0/],
    ['units that are too large', inner, { unitBytes: 33 * 4096 }, RangeError, /at most 32 pages/],
    ['a rate of nothing', inner, { compactionBytesPerSecond: 0 }, RangeError, /compactionBytesPerSecond/],
    ['an empty name', inner, { name: '' }, TypeError, /name/],
  ])('%s', (_, given, options, kind, message) => {
    const make = () => compressedBackup(given as Backup, options as object)
    expect(make).toThrow(kind)
    expect(make).toThrow(message)
  })

  it('calls once somebody else closed the inner backup: EBADF that names it', async () => {
    const closed = memoryBackup({ name: 'gone' })
    const backup = compressedBackup(closed)
    await closed.close()
    for (const kind of ['random', 'half'] as const) {
      const { handles, error } = await backup.backupPages([contentOf(kind, 15, 8)])
      expect(handles).toEqual([])
      expect(error).toMatchObject({ code: 'EBADF' })
    }
    await backup.close()
  })
})
