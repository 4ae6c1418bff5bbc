import { describe, expect, it } from 'vitest'
import {
  checksum,
  decodeImage,
  encodeImage,
  encodeImageBlock,
  HandleRuns,
  imageBlockPages,
  MemoryMedium,
  memoryBackup,
  PageHolds,
  type PageImage,
} from '../src/index.ts'

const page = 4096

function imageOf(pages: number, runs: PageImage['runs'], label = 'a label ä'): PageImage {
  return { pageSizeBytes: page, sizeBytes: pages * page - 7, label, runs }
}

describe('the image of a buffer', () => {
  it('is the same when it is read again, whatever its runs', () => {
    const runs = [
      { page: 0, handle: 2 ** 52 - 9, count: 3 },
      { page: 5, handle: 1, count: 600 },
      { page: 605, handle: 77, count: 1 },
      { page: 4 * imageBlockPages - 1, handle: 2 ** 40, count: 2 },
    ]
    const image = imageOf(5 * imageBlockPages, runs)
    expect(decodeImage(encodeImage(image))).toEqual(image)
    expect(decodeImage(encodeImage(imageOf(1, [])))).toEqual(imageOf(1, []))
    expect(encodeImage(image)[3]).toHaveLength(0)
  })

  it('changes only the blocks whose pages changed', () => {
    const before = encodeImage(imageOf(2000, [{ page: 0, handle: 5, count: 2000 }]))
    const after = encodeImage(
      imageOf(2000, [
        { page: 0, handle: 5, count: 700 },
        { page: 700, handle: 9000, count: 1 },
        { page: 701, handle: 706, count: 1299 },
      ]),
    )
    const changed = before.flatMap((block, index) => (Buffer.from(block).equals(after[index]) ? [] : [index]))
    expect(changed).toEqual([2])
  })

  it('is EBADMSG with any bit of any block flipped, a block missing, or out of place', () => {
    const body = encodeImage(imageOf(1200, [{ page: 3, handle: 900, count: 1100 }]))
    for (const [index, block] of body.entries()) {
      for (let bit = 0; bit < block.byteLength * 8; bit++) {
        const damaged = block.slice()
        damaged[bit >> 3] ^= 1 << (bit & 7)
        expect(() => decodeImage(body.with(index, damaged))).toThrow(
          expect.objectContaining({ code: 'EBADMSG' }),
        )
      }
      for (let length = 1; length < block.byteLength; length++) {
        expect(() => decodeImage(body.with(index, block.slice(0, length)))).toThrow(
          expect.objectContaining({ code: 'EBADMSG' }),
        )
      }
    }
    const swapped = body.with(1, body[2]).with(2, body[1])
    for (const wrong of [[], body.slice(0, 3), [...body, body[3]], swapped]) {
      expect(() => decodeImage(wrong)).toThrow(expect.objectContaining({ code: 'EBADMSG' }))
    }
  })

  it('takes a few kilobytes a block at most, one where handles lie close, and the same pages come back', () => {
    for (const [far, mostBytes] of [
      [2 ** 51, 4200],
      [2 ** 46, 3200],
    ] as const) {
      const runs = Array.from({ length: imageBlockPages }, (_, page) => ({
        page,
        handle: page % 2 === 0 ? far + page : 1 + page,
        count: 1,
      }))
      expect(encodeImageBlock(1, runs).byteLength).toBeLessThan(mostBytes)
      expect(decodeImage(encodeImage(imageOf(imageBlockPages, runs))).runs).toEqual(runs)
      const odd = runs.filter(({ page }) => page % 3 > 0)
      expect(decodeImage(encodeImage(imageOf(imageBlockPages, odd))).runs).toEqual(odd)
    }
  })
})

describe('runs of handles', () => {
  it('are the same in little memory, of single pages and of longer runs', () => {
    for (const runs of [
      [],
      [
        { first: 2 ** 52, count: 1 },
        { first: 3, count: 1 },
      ],
      [
        { first: 9, count: 1 },
        { first: 2 ** 40, count: 700 },
      ],
    ]) {
      const packed = HandleRuns.of(runs)
      expect([...packed]).toEqual(runs)
      expect(packed.handleCount).toBe(runs.reduce((sum, { count }) => sum + count, 0))
      expect(HandleRuns.of(packed)).toBe(packed)
    }
    expect(HandleRuns.of([{ first: 3, count: 1 }]).counts).toBeUndefined()
  })
})

describe('a checksum', () => {
  it('is CRC-32C, whatever the length (RFC 3720)', () => {
    const sum = (bytes: Uint8Array) => checksum(bytes) >>> 0
    expect(sum(new TextEncoder().encode('123456789'))).toBe(0xe3069283)
    expect(sum(new Uint8Array(32))).toBe(0x8a9136aa)
    expect(sum(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43)
    expect(sum(Uint8Array.from({ length: 32 }, (_, index) => index))).toBe(0x46dd794e)
  })
})

describe('holds', () => {
  it('are counted alone for holders and images, beside a list that is plain', () => {
    const holds = new PageHolds((handle) => handle % 1000)
    const run = (first: number, count: number) => [{ first: 5000 + first, count }]
    holds.hold(run(0, 10))
    holds.keep(HandleRuns.of(run(4, 3)))
    expect(holds.drop(run(0, 10))).toEqual({ released: [...run(0, 4), ...run(7, 3)] })
    expect(holds.pagesOnlyOfImages).toBe(3)
    expect(holds.drop(run(4, 1))).toEqual({ released: [], stale: 5004 })
    holds.hold(run(5, 1))
    expect(holds.pagesOnlyOfImages).toBe(2)
    expect(holds.unkeep(HandleRuns.of(run(4, 3)))).toEqual([...run(4, 1), ...run(6, 1)])
    expect(holds.pagesOnlyOfImages).toBe(0)
    expect(holds.drop([...run(5, 1), ...run(5, 1)])).toEqual({ released: [], stale: 5005 })
    expect(holds.drop(run(5, 1))).toEqual({ released: run(5, 1) })
  })
})

describe('a memory medium', () => {
  it('has one backup at a time, and of the size that it was made for', async () => {
    const medium = new MemoryMedium()
    const backup = memoryBackup({ medium, capacityBytes: 16 * page })
    expect(() => memoryBackup({ medium })).toThrow(expect.objectContaining({ code: 'EBUSY' }))
    await backup.close()
    expect(() => memoryBackup({ medium })).toThrow(expect.objectContaining({ code: 'EINVAL' }))
    await using again = memoryBackup({ medium, capacityBytes: 16 * page })
    expect(again.capabilities.persistent).toBe(true)
    expect(() => memoryBackup({ medium: {} as MemoryMedium })).toThrow(TypeError)
  })

  it('keeps the pages of runs that come from an iterator', async () => {
    await using backup = memoryBackup({ medium: new MemoryMedium() })
    const { handles } = await backup.backupPages([new Uint8Array(3 * page)])
    await backup.images!.save('a', {
      body: [{ index: 0, bytes: Uint8Array.of(1) }],
      keeps: [handles.values()],
    })
    await backup.drop(handles)
    expect(backup.stats()).toMatchObject({ livePages: 3, images: { onlyPages: 3 } })
  })

  it('is what images need: a memory backup alone has none', async () => {
    await using backup = memoryBackup()
    expect(backup.images).toBeUndefined()
    expect(backup.capabilities.persistent).toBe(false)
  })

  it('gives its memory back when nothing names it any more', async () => {
    const medium = new MemoryMedium()
    const backup = memoryBackup({ medium })
    await backup.backupPages([new Uint8Array(100 * page)])
    await backup.close()
    await using again = memoryBackup({ medium })
    expect(again.stats()).toMatchObject({ mediumBytes: 0, livePages: 0, images: { count: 0, onlyPages: 0 } })
  })
})
