import { firstSetBit, lowestBit, setBits } from './bits.ts'

/** Slots that share one block of bookkeeping. */
export const regionSlots = 4096
const regionWords = regionSlots / 32
/** Size of that block. */
export const regionBytes = regionSlots * 3 + regionWords * 4

/** What `Region.find` found: reused, so that a search allocates nothing. */
export interface FoundRun {
  slot: number
  count: number
}

/**
 * Bookkeeping of 4096 neighbouring slots of which at least one is in use. One buffer of 12,800 bytes:
 *
 *   generations, low 16 bits    8192 B     0 in both: not live
 *   generations, high 8 bits    4096 B
 *   free bits                    512 B     1: may be handed out
 *
 * A slot that is neither live nor free is retired: its handle is stale, its bytes are not to be reused yet.
 */
export class Region {
  /** Slots that may be handed out. */
  freeCount = 0
  /** No free run is longer than this. */
  longestAtMost = 0
  readonly #low: Uint16Array
  readonly #high: Uint8Array
  readonly #free: Uint32Array
  // No word below this one has a free bit: filling a region from its start does not look at its start again.
  #firstFreeWord = 0

  constructor() {
    const memory = new ArrayBuffer(regionBytes)
    this.#low = new Uint16Array(memory, 0, regionSlots)
    this.#free = new Uint32Array(memory, regionSlots * 2, regionWords)
    this.#high = new Uint8Array(memory, regionSlots * 2 + regionWords * 4, regionSlots)
  }

  /** Makes the first `slots` slots free and all others unusable. Nothing is live. */
  reset(slots: number): void {
    this.#free.fill(0)
    this.freeCount = 0
    this.longestAtMost = 0
    this.#firstFreeWord = 0
    this.markFree(0, slots)
  }

  /** The first of these slots that is not of this generation, or −1. */
  firstNotOf(generation: number, slot: number, count: number): number {
    const low = generation & 0xffff
    const high = generation >>> 16
    const lows = this.#low
    const highs = this.#high
    for (let index = slot; index < slot + count; index++) {
      if (lows[index] !== low || highs[index] !== high) return index
    }
    return -1
  }

  /** Writes the generation of these slots; 0 makes them not live. */
  setGeneration(generation: number, slot: number, count: number): void {
    this.#low.fill(generation & 0xffff, slot, slot + count)
    this.#high.fill(generation >>> 16, slot, slot + count)
  }

  generationOf(slot: number): number {
    return this.#high[slot] * 0x10000 + this.#low[slot]
  }

  markFree(slot: number, count: number): void {
    setBits(this.#free, slot, count, true)
    this.freeCount += count
    // The run may have joined one neighbour on each side, neither longer than the longest.
    this.longestAtMost = Math.min(this.freeCount, 2 * this.longestAtMost + count)
    this.#firstFreeWord = Math.min(this.#firstFreeWord, slot >>> 5)
  }

  markUsed(slot: number, count: number): void {
    setBits(this.#free, slot, count, false)
    this.freeCount -= count
    this.longestAtMost = Math.min(this.longestAtMost, this.freeCount)
  }

  /** Whether none of these slots is live or free. */
  isRetired(slot: number, count: number): boolean {
    return firstSetBit(this.#free, slot, count) < 0 && this.firstNotOf(0, slot, count) < 0
  }

  /** The first free run of at least `wanted` slots, else the longest there is. Returns how many words it read. */
  find(wanted: number, found: FoundRun): number {
    found.count = 0
    // No run is longer than the longest: with one of that length in hand the rest need not be read.
    const enough = Math.min(wanted, this.longestAtMost)
    let start = 0
    let length = 0
    let sawFree = false
    const firstWord = this.#firstFreeWord
    for (let word = firstWord; word < regionWords; word++) {
      const bits = this.#free[word]
      if (bits !== 0 && !sawFree) {
        sawFree = true
        this.#firstFreeWord = word
      }
      // Walk the runs of ones in this word; a run that touches its end goes on in the next.
      let position = 0
      while (position < 32) {
        const rest = bits >>> position
        if (rest === 0) {
          length = 0
          break
        }
        const gap = lowestBit(rest)
        if (gap > 0) length = 0
        // Zeros were shifted in from above, so that the run ends with the word unless it is all of it.
        const used = ~(rest >>> gap)
        const run = used === 0 ? 32 : lowestBit(used)
        if (length === 0) start = word * 32 + position + gap
        length += run
        position += gap + run
        if (length > found.count) {
          found.slot = start
          found.count = length
          if (length >= enough) return word - firstWord + 1
        }
      }
    }
    this.longestAtMost = found.count
    return regionWords - firstWord
  }
}
