/** Sets of page numbers, one bit each, with whole runs set, cleared and tested at once. */
export class PageBits {
  readonly words: Uint32Array

  constructor(pages: number, words = new Uint32Array(Math.ceil(pages / 32))) {
    this.words = words
  }

  static full(pages: number): PageBits {
    const bits = new PageBits(pages)
    bits.setRun(0, pages)
    return bits
  }

  copy(): PageBits {
    return new PageBits(0, this.words.slice())
  }

  has(page: number): boolean {
    return page < this.words.length * 32 && (this.words[page >>> 5] & (1 << (page & 31))) !== 0
  }

  /** The first page of the run that is not in the set; −1 when all are. */
  firstMissing(first: number, count: number): number {
    const end = first + count
    for (let page = first; page < end; ) {
      const mask = runMask(page, end)
      const word = page < this.words.length * 32 ? this.words[page >>> 5] : 0
      const missing = mask & ~word
      if (missing !== 0) return (page & ~31) + (31 - Math.clz32(missing & -missing))
      page = (page & ~31) + 32
    }
    return -1
  }

  setRun(first: number, count: number): void {
    const end = first + count
    for (let page = first; page < end; page = (page & ~31) + 32) this.words[page >>> 5] |= runMask(page, end)
  }

  clearRun(first: number, count: number): void {
    const end = first + count
    for (let page = first; page < end; page = (page & ~31) + 32) this.words[page >>> 5] &= ~runMask(page, end)
  }

  /** How many pages of the set lie below `page`. */
  rank(page: number): number {
    let rank = 0
    const last = page >>> 5
    for (let index = 0; index < last; index++) rank += bitCount(this.words[index])
    return rank + bitCount(this.words[last] & ((1 << (page & 31)) - 1))
  }

  count(): number {
    let count = 0
    for (const word of this.words) count += bitCount(word)
    return count
  }

  /** Takes those out that are in `other`. */
  subtract(other: PageBits): void {
    const words = Math.min(this.words.length, other.words.length)
    for (let index = 0; index < words; index++) this.words[index] &= ~other.words[index]
  }

  /** Calls `visit` with every run of adjacent pages, in order. */
  forEachRun(visit: (first: number, count: number) => void): void {
    const end = this.words.length * 32
    let first = -1
    for (let page = 0; page < end; page++) {
      const word = this.words[page >>> 5]
      if (first < 0 && (page & 31) === 0 && word === 0) {
        page += 31
      } else if ((word & (1 << (page & 31))) !== 0) {
        if (first < 0) first = page
      } else if (first >= 0) {
        visit(first, page - first)
        first = -1
      }
    }
    if (first >= 0) visit(first, end - first)
  }
}

/** Bits of the word of `page` that belong to pages from `page` to `end − 1`. */
function runMask(page: number, end: number): number {
  const low = -1 << (page & 31)
  const inWord = end - (page & ~31)
  return inWord >= 32 ? low : low & ((1 << inWord) - 1)
}

function bitCount(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555)
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333)
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
