import { firstClearBit, setBits } from '../slots/bits.ts'

/** Bits in a block. */
export const blockBits = 2 ** 13

/**
 * Blocks of 8192 bits that come and go, side by side in a few large arrays: finding one bit among millions of them looks at
 * one place in memory. A block is known by its number, 1 or more, and knows how many of its bits are set.
 */
export class BitBlocks {
  readonly #arrays: Uint32Array[] = []
  /** Blocks that were ever used, that are in use, and the first that is free again: each has the next in its first word. */
  #taken = 0
  #used = 0
  #free = 0

  /** A block all of whose bits are set, or none. */
  take(value: boolean): number {
    let block = this.#free
    if (block === 0) {
      if (this.#taken % arrayBlocks === 0) this.#arrays.push(new Uint32Array(arrayBlocks * blockWords))
      block = ++this.#taken
    } else {
      this.#free = this.#array(block)[startOf(block)]
    }
    this.#used++
    const start = startOf(block)
    this.#array(block).fill(value ? 0xffffffff : 0, start + 1, start + blockWords)
    this.#array(block)[start] = value ? blockBits : 0
    return block
  }

  give(block: number): void {
    if (--this.#used === 0) {
      this.clear()
      return
    }
    this.#array(block)[startOf(block)] = this.#free
    this.#free = block
  }

  /** Changes bits, none of which has that value yet; returns how many of the block are set then. */
  set(block: number, offset: number, count: number, value: boolean): number {
    const array = this.#array(block)
    const start = startOf(block)
    setBits(array, (start + 1) * 32 + offset, count, value)
    array[start] += value ? count : -count
    return array[start]
  }

  /** The first of these bits that is not set, or −1. */
  firstClear(block: number, offset: number, count: number): number {
    const base = (startOf(block) + 1) * 32
    const found = firstClearBit(this.#array(block), base + offset, count)
    return found < 0 ? -1 : found - base
  }

  clear(): void {
    this.#arrays.length = 0
    this.#taken = 0
    this.#used = 0
    this.#free = 0
  }

  #array(block: number): Uint32Array {
    return this.#arrays[Math.floor((block - 1) / arrayBlocks)]
  }
}

/** One array is 257 KiB. */
const arrayBlocks = 256
/** How many bits are set, and the bits. */
const blockWords = 1 + blockBits / 32

function startOf(block: number): number {
  return ((block - 1) % arrayBlocks) * blockWords
}
