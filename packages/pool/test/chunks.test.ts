import { isDeepStrictEqual } from 'node:util'
import { describe, expect, it } from 'vitest'
import { firstChunk } from '../src/table/chunk-records.ts'
import {
  Chunks,
  cleanList,
  dirty,
  dirtyList,
  pageOut,
  scattered,
  unevictableList,
} from '../src/table/chunks.ts'
import { Random } from './support/random.ts'

describe('the records of chunks', () => {
  it('keep what they are told, through thousands of chunks that come and go', () => {
    const chunks = new Chunks()
    const random = new Random(7)
    const owners = new Map<number, { owner: number; firstPage: number; order: number; frame: number }>()
    for (let step = 0; step < 40_000; step++) {
      if (owners.size > 0 && random.below(4) === 0) {
        const chunk = [...owners.keys()][random.below(owners.size)]!
        chunks.remove(chunk)
        owners.delete(chunk)
        continue
      }
      const known = {
        owner: 1 + random.below(2 ** 31 - 1),
        firstPage: random.below(2 ** 32),
        order: random.below(15),
        frame: random.below(2 ** 31),
      }
      const chunk = chunks.add(known.owner, known.firstPage, {
        order: known.order,
        frame: known.frame,
        flags: dirty,
      })
      if (owners.has(chunk)) expect.fail(`chunk ${chunk} is there already`)
      owners.set(chunk, known)
    }
    expect(chunks.count).toBe(owners.size)
    let pages = 0
    for (const [chunk, known] of owners) {
      const found = {
        owner: chunks.ownerOf(chunk),
        firstPage: chunks.firstPageOf(chunk),
        order: chunks.orderOf(chunk),
        frame: chunks.frameOf(chunk),
      }
      const state = [
        chunks.flagsOf(chunk),
        chunks.listOf(chunk),
        chunks.storedAt(chunk),
        chunks.restoredOf(chunk),
      ]
      const isRight = chunks.isPinned(chunk) && chunks.endPageOf(chunk) === known.firstPage + 2 ** known.order
      if (!isRight || String(state) !== String([dirty, unevictableList, 0, 0]))
        expect.fail(`chunk ${chunk}: ${state}`)
      if (!isDeepStrictEqual(found, known)) expect(found).toEqual(known)
      pages += 2 ** known.order
    }
    expect(chunks.listPages[unevictableList]).toBe(pages)
  })

  it('take 20 bytes a chunk, and 8 more where its pages are stored too', () => {
    const chunks = new Chunks()
    const count = 5 * 2 ** 14
    for (let page = 0; page < count; page++) chunks.add(1, page, { order: 0, frame: page, flags: 0 })
    expect(chunks.metadataBytes / count).toBeLessThan(20.1)
    for (let chunk = firstChunk; chunk < chunks.end; chunk++) chunks.setStoredAt(chunk, chunk)
    expect(chunks.metadataBytes / count).toBeLessThan(28.2)
    expect(chunks.countStored()).toBe(count)
  })

  it('of a small pool take little', () => {
    const chunks = new Chunks()
    for (let index = 0; index < 128; index++)
      chunks.setStoredAt(chunks.add(1, index * 512, { order: 9, frame: index, flags: 0 }), 1)
    expect(chunks.metadataBytes).toBeLessThan(12 * 1024)
  })

  it('show the uses of many of them, round and round, of those that are wanted only', () => {
    const chunks = new Chunks()
    for (let page = 0; page < 40_000; page++) {
      const flags = page % 7 === 0 ? pageOut : 0
      const chunk = chunks.add(1, page, { order: 0, frame: page, flags })
      chunks.setUses(chunk, chunk + 1)
      if (page % 3 > 0) chunks.moveTo(chunk, page % 3 === 1 ? cleanList : dirtyList)
    }
    const { end } = chunks
    const wanted = { lists: (1 << cleanList) | (1 << dirtyList), without: pageOut }
    for (const [first, count] of [
      [0, 5],
      [16_380, 40],
      [end - 3, 300],
      [end - 1, end],
      [17, 0],
    ] as const) {
      const found = new Int32Array(count)
      chunks.copyUses(first, count, wanted, found)
      const right = Int32Array.from({ length: count }, (_, index) => {
        const chunk = (first + index) % end
        const isListed = chunks.listOf(chunk) === cleanList || chunks.listOf(chunk) === dirtyList
        return isListed && !chunks.has(chunk, pageOut) ? chunk + 1 : 0
      })
      if (!isDeepStrictEqual(found, right)) expect(found).toEqual(right)
    }
  })

  it('count as many pins as there are', () => {
    const chunks = new Chunks()
    const chunk = chunks.add(1, 0, { order: 3, frame: 0, flags: dirty })
    const pins = 100_000
    let pagesOfOthers = 0
    for (let pin = 1; pin < pins; pin++) pagesOfOthers += chunks.addPin(chunk, unevictableList)
    for (let pin = 1; pin < pins; pin++) pagesOfOthers += chunks.removePin(chunk)
    expect(pagesOfOthers).toBe(0)
    expect([chunks.flagsOf(chunk), chunks.orderOf(chunk)]).toEqual([dirty, 3])
    expect(chunks.removePin(chunk)).toBe(8)
    expect(chunks.isPinned(chunk)).toBe(false)
    expect(chunks.addPin(chunk, unevictableList)).toBe(8)
  })

  it('say how many pages are stored, in handles of either kind', () => {
    const chunks = new Chunks()
    const one = chunks.add(1, 0, { order: 2, frame: 0, flags: 0 })
    const other = chunks.add(1, 4, { order: 2, frame: 4, flags: 0 })
    chunks.setStoredAt(one, 10)
    chunks.setStoredAt(other, 20)
    expect(chunks.countStored()).toBe(8)
    chunks.scatter(one)[2] = 0
    expect(chunks.storedAt(one)).toBe(scattered)
    expect([0, 1, 2, 3].map((index) => chunks.storedHandle(one, index))).toEqual([10, 11, 0, 13])
    expect(chunks.countStored()).toBe(7)
    chunks.remove(one)
    expect(chunks.countStored()).toBe(4)
    chunks.setStoredAt(other, 0)
    expect(chunks.countStored()).toBe(0)
  })
})

describe('the lists of chunks', () => {
  it('have every chunk once, and count its pages [I10]', () => {
    const chunks = new Chunks()
    const random = new Random(11)
    const expected = new Map<number, number>()
    const pages = [0, 0, 0]
    for (let index = 0; index < 600; index++) {
      const chunk = chunks.add(1, index * 8, { order: index % 4, frame: index * 8, flags: 0 })
      expected.set(chunk, unevictableList)
      pages[unevictableList]! += 1 << (index % 4)
    }
    const made = [...expected.keys()]
    for (let step = 0; step < 5000; step++) {
      const chunk = made[random.below(made.length)]!
      const list = random.below(3)
      pages[expected.get(chunk)!]! -= chunks.pageCount(chunk)
      pages[list]! += chunks.pageCount(chunk)
      chunks.moveTo(chunk, list)
      expected.set(chunk, list)
    }
    for (const [chunk, list] of expected) expect(chunks.listOf(chunk)).toBe(list)
    expect([...chunks.listPages]).toEqual([...pages, 0])
    for (const chunk of made) chunks.remove(chunk)
    expect([...chunks.listPages]).toEqual([0, 0, 0, 0])
  })
})
