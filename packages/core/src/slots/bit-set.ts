import { countOnes, highestBit, lowestBit } from './bits.ts'

/** A run of neighbouring numbers. */
export interface BitRun {
  readonly first: number
  readonly count: number
}

/** Bits in a block. */
const blockBits = 2 ** 16
const leastWords = 16

/**
 * A set of numbers from 0 to 2^40, one bit each, written and searched by runs.
 *
 *   blocks   ├ 65,536 bits ┤├ none set: no memory ┤├ short: as long as its highest bit needs ┤
 *
 * Memory grows with what was ever set, so that a large capacity costs nothing until it is used. Each block knows how many
 * of its bits are set: a search steps over blocks where all are, or none is.
 */
export class BitSet {
  readonly #blocks: (Uint32Array | undefined)[] = []
  readonly #counts: number[] = []
  #count = 0
  #words = 0

  /** How many numbers are in the set. */
  get count(): number {
    return this.#count
  }

  /** Bytes of bookkeeping held now. */
  get metadataBytes(): number {
    return this.#words * 4 + this.#blocks.length * 16
  }

  has(number: number): boolean {
    const words = this.#blocks[Math.floor(number / blockBits)]
    const bit = number % blockBits
    return words !== undefined && bit >>> 5 < words.length && (words[bit >>> 5] & (1 << (bit & 31))) !== 0
  }

  /** Whether all of these numbers are in the set. */
  hasAll(first: number, count: number): boolean {
    return this.endOfSet(first, first + count) === first + count
  }

  /** How many of these numbers are in the set. */
  countIn(first: number, count: number): number {
    let found = 0
    this.#eachBlock(first, count, (block, from, to) => {
      const words = this.#blocks[block]
      if (words === undefined) return
      const end = Math.min(to, words.length * 32)
      for (let bit = from; bit < end; bit = (bit | 31) + 1) {
        found += countOnes(words[bit >>> 5] & maskOf(bit, end))
      }
    })
    return found
  }

  set(first: number, count: number): void {
    this.#eachBlock(first, count, (block, from, to) => {
      const words = this.#withRoomFor(block, to)
      let added = 0
      for (let bit = from; bit < to; bit = (bit | 31) + 1) {
        const mask = maskOf(bit, to)
        added += countOnes(mask & ~words[bit >>> 5])
        words[bit >>> 5] |= mask
      }
      this.#counts[block] += added
      this.#count += added
    })
  }

  clear(first: number, count: number): void {
    const most = this.#blocks.length * blockBits - first
    this.#eachBlock(first, Math.min(count, most), (block, from, to) => {
      const words = this.#blocks[block]
      if (words === undefined) return
      const end = Math.min(to, words.length * 32)
      let removed = 0
      for (let bit = from; bit < end; bit = (bit | 31) + 1) {
        const mask = maskOf(bit, end)
        removed += countOnes(mask & words[bit >>> 5])
        words[bit >>> 5] &= ~mask
      }
      this.#counts[block] -= removed
      this.#count -= removed
    })
  }

  /** Empties the set and gives its memory back. */
  reset(): void {
    this.#blocks.length = 0
    this.#counts.length = 0
    this.#count = 0
    this.#words = 0
  }

  /** The first number from `first` on that is in the set; `end` when there is none before it. */
  endOfClear(first: number, end: number): number {
    return this.#findFirst(first, end, true)
  }

  /** The first number from `first` on that is not in the set; `end` when there is none before it. */
  endOfSet(first: number, end: number): number {
    return this.#findFirst(first, end, false)
  }

  /** The first numbers from `from` on that are in the set, up to `most` adjacent ones; `undefined` when none is. */
  runFrom(from: number, most: number): BitRun | undefined {
    const end = this.#blocks.length * blockBits
    const first = this.endOfClear(from, end)
    if (first >= end) return undefined
    return { first, count: this.endOfSet(first, first + most) - first }
  }

  /**
   * The last run of numbers in the set that begins at or after `floor` and ends at or before `end`, cut at both;
   * `undefined` when none between them is in the set.
   */
  lastRun(floor: number, end: number): BitRun | undefined {
    const last = this.#findLast(floor, end - 1, true)
    if (last < floor) return undefined
    const first = this.#findLast(floor, last, false) + 1
    return { first, count: last - first + 1 }
  }

  /** The first number from `first` on, below `end`, that is or is not in the set, as `wanted` says; else `end`. */
  #findFirst(first: number, end: number, wanted: boolean): number {
    let number = first
    while (number < end) {
      const block = Math.floor(number / blockBits)
      if (block >= this.#blocks.length) return wanted ? end : number
      const start = block * blockBits
      const stop = Math.min(blockBits, end - start)
      const found = this.#firstInBlock(block, number - start, stop, wanted)
      if (found < stop) return start + found
      number = start + stop
    }
    return end
  }

  /** The same within a block: what it finds, or any number from `stop` on. */
  #firstInBlock(block: number, offset: number, stop: number, wanted: boolean): number {
    const uniform = this.#uniformValue(block)
    if (uniform !== undefined) return uniform === wanted ? offset : stop
    const words = this.#blocks[block]!
    const end = Math.min(stop, words.length * 32)
    const flip = wanted ? 0 : -1
    for (let bit = offset; bit < end; bit = (bit | 31) + 1) {
      const rest = (words[bit >>> 5] ^ flip) & (-1 << (bit & 31))
      if (rest !== 0) return (bit & ~31) + lowestBit(rest)
    }
    // Beyond the words of a short block nothing is set.
    return wanted ? stop : Math.max(offset, end)
  }

  /** The last number from `last` down to `floor` that is or is not in the set, as `wanted` says; else `floor − 1`. */
  #findLast(floor: number, last: number, wanted: boolean): number {
    let number = wanted ? Math.min(last, this.#blocks.length * blockBits - 1) : last
    while (number >= floor) {
      const offset = number % blockBits
      const start = number - offset
      const lowest = Math.max(0, floor - start)
      const found = this.#lastInBlock(start / blockBits, offset, lowest, wanted)
      if (found >= lowest) return start + found
      number = start + lowest - 1
    }
    return floor - 1
  }

  /** The same within a block: what it finds, or any number below `lowest`. */
  #lastInBlock(block: number, offset: number, lowest: number, wanted: boolean): number {
    const uniform = this.#uniformValue(block)
    if (uniform !== undefined) return uniform === wanted ? offset : -1
    const words = this.#blocks[block]!
    const end = words.length * 32
    if (offset >= end && !wanted) return offset
    const flip = wanted ? 0 : -1
    for (let bit = Math.min(offset, end - 1); bit >= lowest; bit = (bit & ~31) - 1) {
      const rest = (words[bit >>> 5] ^ flip) & (-1 >>> (31 - (bit & 31)))
      if (rest !== 0) return (bit & ~31) + highestBit(rest)
    }
    return -1
  }

  /** What all bits of a block are, or `undefined` when they differ. */
  #uniformValue(block: number): boolean | undefined {
    const count = this.#counts[block] ?? 0
    if (count === 0) return false
    return count === blockBits ? true : undefined
  }

  #withRoomFor(block: number, bits: number): Uint32Array {
    const words = this.#blocks[block]
    const wanted = Math.ceil(bits / 32)
    if (words !== undefined && words.length >= wanted) return words
    const larger = new Uint32Array(Math.max(leastWords, 2 ** Math.ceil(Math.log2(wanted))))
    if (words !== undefined) larger.set(words)
    this.#words += larger.length - (words?.length ?? 0)
    this.#blocks[block] = larger
    this.#counts[block] ??= 0
    return larger
  }

  /** Cuts a run at the ends of blocks. Bits are told within their block, since there may be more than 2^31 numbers. */
  #eachBlock(first: number, count: number, visit: (block: number, from: number, to: number) => void): void {
    const end = first + count
    for (let number = first; number < end; ) {
      const block = Math.floor(number / blockBits)
      const from = number - block * blockBits
      const to = Math.min(blockBits, end - block * blockBits)
      visit(block, from, to)
      number += to - from
    }
  }
}

/** Bits of the word of `bit` that belong to bits from it to `end − 1`. */
function maskOf(bit: number, end: number): number {
  const low = -1 << (bit & 31)
  const inWord = end - (bit & ~31)
  return inWord >= 32 ? low : low & ((1 << inWord) - 1)
}
