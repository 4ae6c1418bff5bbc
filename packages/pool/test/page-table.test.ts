import { describe, expect, it } from 'vitest'
import { PageTable } from '../src/table/page-table.ts'
import { Random } from './support/random.ts'

/** What a page holds, in words: empty, a chunk, or a handle. */
function describePages(table: PageTable): string[] {
  const pages: string[] = []
  for (let page = 0; page < table.pageCount; page += table.foundPages) {
    table.look(page, table.pageCount)
    for (let index = 0; index < table.foundPages; index++) {
      if (table.found === 'chunk') pages.push(`c${table.foundChunk}`)
      else pages.push(table.found === 'handle' ? `h${table.foundHandle + index}` : '-')
    }
  }
  return pages
}

describe('the page table', () => {
  it('T12: tells empty, a chunk and a handle apart, with one entry for a whole block', () => {
    const table = new PageTable(20, 8)
    table.setChunk(0, 8, 4)
    table.setHandles(8, 8, 100)
    expect(describePages(table)).toEqual([
      ...new Array(8).fill('c4'),
      ...Array.from({ length: 8 }, (_, index) => `h${100 + index}`),
      ...new Array(4).fill('-'),
    ])
    table.look(11, 20)
    expect([table.found, table.foundHandle, table.foundPages]).toEqual(['handle', 103, 5])
    expect([table.chunkAt(7), table.chunkAt(8), table.chunkAt(19)]).toEqual([4, 0, 0])
    expect([table.residentPages, table.storedPages]).toEqual([8, 8])
  })

  it('T12: holds the largest handles exactly', () => {
    const table = new PageTable(8, 8)
    const last = 2 ** 52 - 1
    table.setHandles(0, 8, last - 7)
    table.look(7, 8)
    expect(table.foundHandle).toBe(last)
    table.setEmpty(0, 1)
    table.look(7, 8)
    expect(table.foundHandle).toBe(last)
  })

  it.each([1, 8, 32])(
    'takes a handle for each page where they are scattered, in blocks of %i pages',
    (blockPages) => {
      const handles = [7, 0, 0, 90, 12, 13, 0, 1, ...Array<number>(12).fill(0), 5]
      const table = new PageTable(24, blockPages)
      table.fillHandles(0, Float64Array.from(handles.slice(0, 16)))
      table.fillHandles(16, Float64Array.from([...handles.slice(16), 0, 0, 0, 0, 0]))
      const expected = [...handles, 0, 0, 0].map((handle) => (handle === 0 ? '-' : `h${handle}`))
      expect(describePages(table)).toEqual(expected)
      expect(table.storedPages).toBe(6)
      for (let page = 0; page < 24; page++) table.setEmpty(page, 1)
      expect(describePages(table)).toEqual(Array(24).fill('-'))
      expect(table.storedPages).toBe(0)
    },
  )

  it('is one entry again when a block that was split is stored with adjacent handles', () => {
    const table = new PageTable(8, 8)
    table.setChunk(0, 4, 4)
    table.setChunk(4, 4, 5)
    const split = table.metadataBytes
    table.setHandles(0, 4, 50)
    table.setHandles(4, 4, 54)
    expect(table.metadataBytes).toBeLessThan(split)
    table.look(0, 8)
    expect(table.foundPages).toBe(8)
  })

  it('costs nothing before it is used, and next to nothing for whole blocks', () => {
    const table = new PageTable(2 ** 28, 512)
    expect(table.metadataBytes).toBe(0)
    for (let page = 0; page < 2 ** 28; page += 512) table.setHandles(page, 512, 1 + page)
    expect(table.metadataBytes / 2 ** 28).toBeLessThan(0.02)
    expect(table.storedPages).toBe(2 ** 28)
  })

  it('skips blocks that are empty, and whole segments that never were used', () => {
    const table = new PageTable(2 ** 28, 512)
    expect(table.skipEmptyBlocks(0, 2 ** 28)).toBe(2 ** 28)
    table.setHandles(2 ** 27 + 512 + 7, 1, 1)
    expect(table.skipEmptyBlocks(512, 2 ** 28)).toBe(2 ** 27 + 512)
    expect(table.skipEmptyBlocks(512, 2 ** 27 + 100)).toBe(2 ** 27 + 100)
    expect(table.skipEmptyBlocks(2 ** 27 + 512, 2 ** 28)).toBe(2 ** 27 + 512)
    expect(table.skipEmptyBlocks(2 ** 27 + 1024, 2 ** 28)).toBe(2 ** 28)
    expect(table.skipEmptyBlocks(2 ** 28, 2 ** 28)).toBe(2 ** 28)
    // Inside a block nothing is skipped.
    expect(table.skipEmptyBlocks(3, 2 ** 28)).toBe(3)
  })

  it('I11: is right after any history, and so are its counters', () => {
    for (let seed = 1; seed <= 30; seed++) {
      const random = new Random(seed)
      const pageCount = 1 + random.below(70)
      const blockPages = 1 << random.below(5)
      const table = new PageTable(pageCount, blockPages)
      const expected: string[] = new Array(pageCount).fill('-')
      for (let step = 0; step < 200; step++) {
        const page = random.below(pageCount)
        const room = Math.min(table.blockEnd(page) - page, pageCount - page)
        const count = random.below(3) === 0 ? room : 1 + random.below(room)
        const value = 4 + random.below(1000)
        const kind = random.below(3)
        if (kind === 0) table.setEmpty(page, count)
        else if (kind === 1) table.setChunk(page, count, value)
        else table.setHandles(page, count, value)
        for (let index = 0; index < count; index++) {
          expected[page + index] = kind === 0 ? '-' : kind === 1 ? `c${value}` : `h${value + index}`
        }
        expect(describePages(table), `seed ${seed} step ${step}`).toEqual(expected)
        for (let start = 0; start < pageCount; start += blockPages) {
          const used = expected.findIndex((entry, index) => index >= start && entry !== '-')
          const block = used < 0 ? pageCount : used - (used % blockPages)
          expect(table.skipEmptyBlocks(start, pageCount)).toBe(block)
        }
        expect(table.residentPages).toBe(expected.filter((entry) => entry[0] === 'c').length)
        expect(table.storedPages).toBe(expected.filter((entry) => entry[0] === 'h').length)
      }
    }
  })
})
