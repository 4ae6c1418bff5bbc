import { createHash, randomFillSync } from 'node:crypto'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { KeySpace } from '../src/keys.ts'
import { attach } from '../src/ownership/attach.ts'
import type { Head } from '../src/ownership/head.ts'
import { encodeManifest } from '../src/ownership/manifest.ts'
import { decodeManifest } from '../src/ownership/manifest-decoding.ts'
import { appendPage, pageChecksum, pageSeed, segmentSeed, ZeroAdvance } from '../src/segments/checksum.ts'
import { PageBits } from '../src/segments/page-bits.ts'
import { footerBytes, maxFooterBytes, readFooter, writeFooter } from '../src/segments/segment-format.ts'
import { type Root, type SegmentObject, SegmentTable, segmentObject } from '../src/segments/segment-table.ts'
import type { S3Service } from '../src/service/service.ts'

describe('checksums', () => {
  it('the CRC-32 of a whole object follows from the seeded ones of its pages', () => {
    for (const size of [4096, 16384]) {
      const zeros = new ZeroAdvance(size)
      const body = randomFillSync(Buffer.alloc(size * 9))
      let running = 0
      for (let slot = 0; slot < 9; slot++) {
        const checksum = pageChecksum(body.subarray(slot * size, (slot + 1) * size), 12345, slot)
        running = appendPage(running, checksum, pageSeed(12345, slot), zeros)
      }
      expect(running).toBe(crc32(body))
    }
  })

  it('binds a page to key, slot and generation: the same bytes elsewhere do not match', () => {
    const page = randomFillSync(Buffer.alloc(4096))
    const here = pageChecksum(page, segmentSeed('s-1', 7, 1), 3)
    expect(pageChecksum(page, segmentSeed('s-1', 7, 1), 3)).toBe(here)
    expect(pageChecksum(page, segmentSeed('s-1', 7, 1), 4)).not.toBe(here)
    expect(pageChecksum(page, segmentSeed('s-1', 8, 1), 3)).not.toBe(here)
    expect(pageChecksum(page, segmentSeed('s-2', 7, 1), 3)).not.toBe(here)
    expect(pageChecksum(page, segmentSeed('s-1', 7, 2), 3)).not.toBe(here)
    expect(pageChecksum(Buffer.alloc(4096), segmentSeed('s-1', 7, 1), 3)).not.toBe(here)
  })
})

describe('segment footers', () => {
  const footer = {
    number: 2 ** 30 + 5,
    generation: 0xdeadbeef,
    pageSizeBytes: 4096,
    checksums: Uint32Array.from([1, 2, 0xffffffff, 4, 5]),
    roots: [
      { number: 9, pages: 2, places: Uint32Array.from([3, 8]) },
      { number: 2 ** 30 + 1, pages: 3, places: Uint32Array.from([0, 1, 2047]) },
    ],
  }

  function written(): Buffer {
    const target = Buffer.alloc(footerBytes(5, footer.roots))
    expect(writeFooter(target, 's-abc', footer)).toBe(target.length)
    expect(target.length).toBeLessThanOrEqual(maxFooterBytes(5))
    return target
  }

  it('come back as they were, from the end of whatever was read', () => {
    const tail = Buffer.concat([randomFillSync(Buffer.alloc(100)), written()])
    expect(readFooter(tail, 's-abc', footer.number)).toEqual(footer)
  })

  it('are EBADMSG with any bit flipped, and under another epoch or number', () => {
    const good = written()
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bad = Buffer.from(good)
      bad[bit >> 3] ^= 1 << (bit & 7)
      // The last four bytes are padding behind the checksum.
      if (bit >= (good.length - 4) * 8) continue
      expect(() => readFooter(bad, 's-abc', footer.number), `bit ${bit}`).toThrow('EBADMSG')
    }
    expect(() => readFooter(good, 's-abd', footer.number)).toThrow('EBADMSG')
    expect(() => readFooter(good, 's-abc', footer.number + 1)).toThrow('EBADMSG')
    expect(() => readFooter(good.subarray(1), 's-abc', footer.number)).toThrow('EBADMSG')
    expect(() => readFooter(Buffer.alloc(0), 's-abc', 1)).toThrow('EBADMSG')
  })
})

describe('manifests', () => {
  const about = { epoch: 'store-00000001', pageSizeBytes: 4096, nextNumber: 103, underway: [99] }

  function table(): SegmentTable {
    const filled = new SegmentTable(() => {})
    filled.addWritten(segmentObject('store-00000001', 100, 1, 40, 40 * 4096, new Uint32Array(40)))
    filled.addWritten(segmentObject('store-00000001', 101, 1, 33, 33 * 4096, new Uint32Array(33)))
    filled.drop([{ first: 100 * 2 ** 21 + 3, count: 30 }])
    const root = filled.roots.get(100)!
    const moved = segmentObject('store-00000001', 102, 1, 10, 10 * 4096, new Uint32Array(10))
    filled.addObject(moved)
    filled.moveRoot(root, moved, 0, root.live.copy())
    return filled
  }

  it('bring a table back', async () => {
    const before = table()
    const { roots, objects, nextNumber, underway } = await decodeManifest(
      (await encodeManifest(before, about)).body,
      'm',
    )
    expect(nextNumber).toBe(103)
    expect([...underway]).toEqual([99])
    const after = new SegmentTable(() => {})
    for (const object of objects) after.addObject(object)
    for (const root of roots) after.addRoot(root)
    expect(after.allBut([])).toEqual(before.allBut([]))
    const extents = (of: SegmentTable) => {
      const found: unknown[] = []
      for (const run of of.allBut([])) {
        of.forEachExtent(run, (object, slot, pages) => found.push([object.number, slot, pages]))
      }
      return found
    }
    expect(extents(after)).toEqual(extents(before))
  })

  it('come with the sums of their bytes, also without any page', async () => {
    for (const described of [table(), new SegmentTable(() => {})]) {
      const { body, checksum, sha256 } = await encodeManifest(described, about)
      expect(checksum).toBe(crc32(body))
      expect(sha256).toBe(createHash('sha256').update(body).digest('hex'))
      expect((await decodeManifest(body, 'm')).roots).toHaveLength(described.roots.size)
    }
  })

  it('of many segments are encoded in turns, and show each root where it was or not at all', async () => {
    const many = new SegmentTable(() => {})
    const numbers = Array.from({ length: 5000 }, (_, index) => index + 1)
    for (const number of numbers) {
      many.addWritten(segmentObject('store-00000001', number, 1, 40, 40 * 4096, new Uint32Array(40)))
    }
    const nextNumber = 5001
    let turns = 0
    let encoded = false
    const changed = new Set<number>()
    const changeAtEveryTurn = () => {
      if (encoded) return
      turns++
      // Two are compacted into one, one is dropped, a new one is written.
      const [first, second, dropped] = [turns * 3, 5000 - turns * 3, turns * 3 + 1]
      const copy = segmentObject(
        'store-00000001',
        nextNumber + 2 * turns,
        1,
        80,
        80 * 4096,
        new Uint32Array(80),
      )
      many.addObject(copy)
      for (const [place, number] of [first, second].entries()) {
        const root = many.roots.get(number)!
        many.moveRoot(root, copy, place * 40, root.live.copy())
        changed.add(number)
      }
      many.drop([{ first: dropped * 2 ** 21, count: 40 }])
      changed.add(dropped)
      const written = nextNumber + 2 * turns + 1
      many.addWritten(segmentObject('store-00000001', written, 1, 40, 40 * 4096, new Uint32Array(40)))
      setImmediate(changeAtEveryTurn)
    }
    setImmediate(changeAtEveryTurn)
    const { body } = await encodeManifest(many, { ...about, nextNumber, underway: [] })
    encoded = true
    expect(turns).toBeGreaterThan(9)
    const found = new Map((await decodeManifest(body, 'm')).roots.map((root) => [root.number, root]))
    for (const number of numbers) {
      const root = found.get(number)
      if (root === undefined) expect(changed, `root ${number}`).toContain(number)
      else expect([root.object.number, root.base, root.livePages]).toEqual([number, 0, 40])
      found.delete(number)
    }
    expect([...found.keys()]).toEqual([])
  })

  it('of many segments are decoded in turns, and attached to in turns', async () => {
    const count = 6000
    const many = new SegmentTable(() => {})
    const epoch = 'store-00000001'
    for (let number = 1; number <= count; number++) {
      many.addWritten(segmentObject(epoch, number, 1, 40, 40 * 4096, new Uint32Array(40)))
    }
    // One root has moved, so that it has survivors and no object of its own.
    many.moveRoot(many.roots.get(7)!, many.roots.get(8)!.object, 40, many.roots.get(7)!.live.copy())
    const { body } = await encodeManifest(many, { ...about, epoch, nextNumber: count + 1, underway: [] })
    let turns = 0
    let sinceTurn = 0
    let mostInTurn = 0
    let isOver = false
    const turn = () => {
      turns++
      mostInTurn = Math.max(mostInTurn, sinceTurn)
      sinceTurn = 0
      if (!isOver) setImmediate(turn)
    }
    setImmediate(turn)
    const decoded = await decodeManifest(body, 'm')
    expect(turns).toBeGreaterThan((2 * count) / 1000)
    expect(decoded.roots).toHaveLength(count)
    expect(decoded.roots[6]).toMatchObject({ number: 7, base: 40, livePages: 40 })

    class CountingTable extends SegmentTable {
      override addObject(object: SegmentObject): void {
        sinceTurn++
        super.addObject(object)
      }
      override addRoot(root: Root): void {
        sinceTurn++
        super.addRoot(root)
      }
    }
    const keys = new KeySpace('p/')
    const segments = [...many.objects].map(({ number }) => ({
      key: keys.segment(epoch, number),
      bytes: 40 * 4100,
      lastModified: 0,
    }))
    const service = {
      read: async () => ({ body, lastModified: 0 }),
      list: async function* (prefix: string) {
        if (prefix === keys.storesPrefix) yield* segments
      },
    } as unknown as S3Service
    const table = new CountingTable(() => {})
    const head = { manifest: keys.manifestName(epoch, 1), parent: null, emptiedBelow: 0 } as Head
    const settings = { pageSizeBytes: about.pageSizeBytes, name: 's3' }
    const { highestNumber } = await attach(head, { settings, table, service, keys, remove: () => {} })
    isOver = true
    expect(highestNumber).toBe(count)
    expect([table.roots.size, table.livePages]).toEqual([count, many.livePages])
    expect(mostInTurn).toBeGreaterThan(0)
    expect(mostInTurn).toBeLessThanOrEqual(512)
  })

  it('are EBADMSG when cut or changed', async () => {
    const good = (await encodeManifest(table(), about)).body
    for (let length = 0; length < good.length; length += 7) {
      await expect(decodeManifest(good.subarray(0, length), 'm')).rejects.toThrow('EBADMSG')
    }
    for (let byte = 0; byte < good.length; byte += 5) {
      const bad = Buffer.from(good)
      bad[byte] ^= 16
      await expect(decodeManifest(bad, 'm')).rejects.toThrow('EBADMSG')
    }
  })
})

describe('sets of pages', () => {
  it('do what a plain set does, whatever the runs', () => {
    const run = fc.record({ set: fc.boolean(), first: fc.nat(199), count: fc.integer({ min: 1, max: 120 }) })
    fc.assert(
      fc.property(fc.array(run, { maxLength: 30 }), (runs) => {
        const bits = new PageBits(320)
        const model = new Set<number>()
        for (const { set, first, count } of runs) {
          if (set) bits.setRun(first, count)
          else bits.clearRun(first, count)
          for (let page = first; page < first + count; page++) {
            if (set) model.add(page)
            else model.delete(page)
          }
        }
        const pages = [...model].sort((left, right) => left - right)
        expect(bits.count()).toBe(model.size)
        const found: number[] = []
        bits.forEachRun((first, count) => {
          for (let page = first; page < first + count; page++) found.push(page)
        })
        expect(found).toEqual(pages)
        for (const page of [0, 31, 32, 63, 64, 150, 319]) {
          expect(bits.rank(page)).toBe(pages.filter((other) => other < page).length)
          expect(bits.has(page)).toBe(model.has(page))
        }
        let missing = 10
        while (model.has(missing)) missing++
        expect(bits.firstMissing(10, 400)).toBe(missing)
      }),
    )
  })
})
