import { firstClearBit, setBits } from '../slots/bits.ts'

/** Bits in a block. */
export const blockBits = 2 ** 11

/**
 * Blocks of 2048 bits that come and go, side by side in a few large arrays: finding one bit among millions of them looks at
 * one place in memory. A block is known by its number, 1 or more, and knows how many of its bits are set.
 */
export class BitBlocks {
  readonly #bits: Uint32Array[] = []
  /** Bits that are set in each block, or the free block after this one. */
  readonly #counts: Int32Array[] = []
  /** Blocks that were ever used, that are in use, and the first that is free again. */
  #taken = 0
  #used = 0
  #free = 0

  /** A block all of whose bits are set, or none. */
  take(value: boolean): number {
    let block = this.#free
    if (block > 0) {
      this.#free = this.#countsOf(block)[block % arrayBlocks]
    } else {
      block = ++this.#taken
      if (Math.floor(block / arrayBlocks) >= this.#bits.length) {
        this.#bits.push(new Uint32Array(arrayBlocks * blockWords))
        this.#counts.push(new Int32Array(arrayBlocks))
      }
    }
    this.#used++
    const start = (block % arrayBlocks) * blockWords
    this.#bitsOf(block).fill(value ? 0xffffffff : 0, start, start + blockWords)
    this.#countsOf(block)[block % arrayBlocks] = value ? blockBits : 0
    return block
  }

  give(block: number): void {
    if (--this.#used === 0) {
      this.clear()
      return
    }
    this.#countsOf(block)[block % arrayBlocks] = this.#free
    this.#free = block
  }

  /** Changes bits, none of which has that value yet; returns how many of the block are set then. */
  set(block: number, offset: number, count: number, value: boolean): number {
    const place = block % arrayBlocks
    setBits(this.#bitsOf(block), place * blockBits + offset, count, value)
    const counts = this.#countsOf(block)
    counts[place] += value ? count : -count
    return counts[place]
  }

  /** The first of these bits that is not set, or −1. */
  firstClear(block: number, offset: number, count: number): number {
    const start = (block % arrayBlocks) * blockBits
    const found = firstClearBit(this.#bitsOf(block), start + offset, count)
    return found < 0 ? -1 : found - start
  }

  clear(): void {
    this.#bits.length = 0
    this.#counts.length = 0
    this.#taken = 0
    this.#used = 0
    this.#free = 0
  }

  #bitsOf(block: number): Uint32Array {
    return this.#bits[Math.floor(block / arrayBlocks)]
  }

  #countsOf(block: number): Int32Array {
    return this.#counts[Math.floor(block / arrayBlocks)]
  }
}

const blockWords = blockBits / 32
/** So that an array of bits has 256 KiB. */
const arrayBlocks = 1024
