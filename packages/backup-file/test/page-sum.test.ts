import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { openPageSums, pageSum as pageSumAt } from '../src/page-sum.ts'

const page = (pageBytes = 4096) => fc.uint8Array({ minLength: pageBytes, maxLength: pageBytes, size: 'max' })

function pageSum(page: Uint8Array): number {
  return pageSumAt(page, 0, page.byteLength)
}

/** The same in words of JavaScript. */
function expectedSum(bytes: Uint8Array): number {
  const primes = [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d]
  const rotate = (word: number) => (word << 13) | (word >>> 19)
  const round = (column: number, word: number) =>
    Math.imul(rotate((column + Math.imul(word, primes[1])) | 0), primes[0])
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
  const columns = Array.from({ length: 32 }, (_, index) => Math.imul(index + 1, primes[2]))
  words.forEach((word, index) => {
    columns[index % 32] = round(columns[index % 32], word)
  })
  for (const distance of [16, 8, 4]) {
    for (let index = 0; index < distance; index++) {
      columns[index] = round(columns[index], columns[index + distance])
    }
  }
  let sum = primes[2]
  for (let index = 0; index < 4; index++) sum = round(sum, columns[index])
  sum = Math.imul(sum ^ (sum >>> 15), primes[1])
  sum = Math.imul(sum ^ (sum >>> 13), primes[2])
  return sum ^ (sum >>> 16)
}

beforeAll(() => openPageSums())

describe('sums of pages', () => {
  it('are what the same rounds give in JavaScript, for the smallest and the largest page', () => {
    fc.assert(
      fc.property(page(), (bytes) => {
        expect(pageSum(bytes)).toBe(expectedSum(bytes))
      }),
      { numRuns: 20 },
    )
    const largest = Uint8Array.from({ length: 2 * 1024 * 1024 }, (_, index) => index * 7 + (index >> 8))
    expect(pageSum(largest)).toBe(expectedSum(largest))
  })

  it('are those of each page where many lie in one piece of memory, whatever kind it is of', () => {
    const count = 7
    for (const memory of [
      new ArrayBuffer(8192 + count * 4096),
      new ArrayBuffer(8192 + count * 4096, { maxByteLength: 2 ** 20 }),
      new SharedArrayBuffer(8192 + count * 4096),
    ]) {
      const pages = new Uint8Array(memory, 4096, count * 4096)
      for (let index = 0; index < pages.length; index++) pages[index] = index * 131 + (index >> 7) * 7
      for (let page = 0; page < count; page++) {
        const offsetBytes = page * 4096
        const alone = expectedSum(pages.slice(offsetBytes, offsetBytes + 4096))
        expect(pageSumAt(pages, offsetBytes, 4096)).toBe(alone)
      }
    }
  })

  it('are refused for memory that is gone', () => {
    const pages = new Uint8Array(8192)
    pages.buffer.transfer()
    for (const offsetBytes of [0, 4096]) expect(() => pageSumAt(pages, offsetBytes, 4096)).toThrow()
    expect(() => pageSumAt(new Uint8Array(8191), 4096, 4096)).toThrow(TypeError)
  })

  it('change with every single bit', () => {
    const bytes = Uint8Array.from({ length: 4096 }, (_, index) => index * 31 + (index >> 3))
    const sum = pageSum(bytes)
    const sums = new Set([sum])
    for (let bit = 0; bit < 4096 * 8; bit++) {
      bytes[bit >> 3] ^= 1 << (bit & 7)
      sums.add(pageSum(bytes))
      bytes[bit >> 3] ^= 1 << (bit & 7)
    }
    expect(pageSum(bytes)).toBe(sum)
    // None is the sum of the undamaged page; a few of the others may agree by chance.
    expect(sums.size).toBeGreaterThan(4096 * 8 - 10)
  })

  it('change when a page is zeroed, torn, rotated, or has words or columns exchanged', () => {
    fc.assert(
      fc.property(
        page(),
        fc.integer({ min: 1, max: 1023 }),
        fc.integer({ min: 1, max: 1023 }),
        (bytes, one, two) => {
          const words = new Uint32Array(bytes.slice().buffer)
          const sum = pageSum(bytes)
          const seenIfOther = (damaged: Uint32Array) => {
            const isSame = damaged.every((word, index) => word === words[index])
            expect(pageSum(new Uint8Array(damaged.buffer)) === sum).toBe(isSame)
          }
          seenIfOther(words.map((word, index) => (index < one ? word : 0)))
          seenIfOther(words.map((_, index) => words[(index + one) % 1024]))
          seenIfOther(
            words.map((word, index) => words[index === one ? two : index === two ? one : index] ?? word),
          )
          const columns = (index: number) => (index % 32 === one % 32 ? two % 32 : index % 32)
          seenIfOther(words.map((_, index) => words[index - (index % 32) + columns(index)]))
        },
      ),
      { numRuns: 50 },
    )
    expect(pageSum(new Uint8Array(4096))).not.toBe(0)
  })

  it('of pages with few different bytes differ from one another', () => {
    const sums = new Set<number>()
    for (let value = 0; value < 256; value++) sums.add(pageSum(new Uint8Array(4096).fill(value)))
    for (let word = 0; word < 1024; word++) {
      const counted = new Uint32Array(1024)
      counted[word] = 1
      sums.add(pageSum(new Uint8Array(counted.buffer)))
    }
    expect(sums.size).toBe(256 + 1024)
  })
})
