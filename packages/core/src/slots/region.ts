import { firstClearBit, firstSetBit, lowestBit, setBits } from './bits.ts'
import { generationsBytes, SlotGenerations } from './slot-generations.ts'

/** Slots that share one block of bookkeeping. */
export const regionSlots = 4096
const regionWords = regionSlots / 32
/** One block of memory: free bits, and generations as long as they are simple. */
const leastBytes = regionWords * 4 + generationsBytes(regionSlots)

/** What `Region.find` found: reused, so that a search allocates nothing. */
export interface FoundRun {
  slot: number
  count: number
}

/**
 * Bookkeeping of 4096 neighbouring slots of which at least one is in use:
 *
 *   free bits      512 B                                           1: may be handed out
 *   generations    1 KiB, and 12 KiB more when short runs lie in it     0: not live
 *
 * A slot that is neither live nor free is retired: its handle is stale, its bytes are not to be reused yet.
 */
export class Region {
  /** Slots that may be handed out. */
  freeCount = 0
  /** No free run is longer than this. */
  longestAtMost = 0
  readonly #generations: SlotGenerations
  readonly #free: Uint32Array
  // No word below this one has a free bit: filling a region from its start does not look at its start again.
  #firstFreeWord = 0

  constructor() {
    const memory = new ArrayBuffer(leastBytes)
    this.#free = new Uint32Array(memory, 0, regionWords)
    this.#generations = new SlotGenerations(regionSlots, memory, regionWords * 4)
  }

  get bytes(): number {
    return leastBytes + this.#generations.moreBytes
  }

  /** Makes the first `slots` slots free and all others unusable. Nothing is live. */
  reset(slots: number): void {
    this.#generations.clear()
    this.#free.fill(0)
    this.freeCount = 0
    this.longestAtMost = 0
    this.#firstFreeWord = 0
    this.markFree(0, slots)
  }

  /** The first of these slots that is not of this generation, or −1. */
  firstNotOf(generation: number, slot: number, count: number): number {
    return this.#generations.firstNotOf(generation, slot, count)
  }

  /** Writes the generation of these slots; 0 makes them not live. */
  setGeneration(generation: number, slot: number, count: number): void {
    this.#generations.set(generation, slot, count)
  }

  /** The first live slot from this one on; `regionSlots` when there is none. */
  nextLive(slot: number): number {
    const found = slot < regionSlots ? this.firstNotOf(0, slot, regionSlots - slot) : -1
    return found < 0 ? regionSlots : found
  }

  generationOf(slot: number): number {
    return this.#generations.of(slot)
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

  /** Makes a free slot live; false when it is not free. */
  takeOne(slot: number, generation: number): boolean {
    const bit = 1 << (slot & 31)
    if ((this.#free[slot >>> 5] & bit) === 0) return false
    this.#free[slot >>> 5] &= ~bit
    this.freeCount--
    if (this.longestAtMost > this.freeCount) this.longestAtMost = this.freeCount
    this.#generations.setOne(generation, slot)
    return true
  }

  /** Whether none of these slots is live or free. */
  isRetired(slot: number, count: number): boolean {
    return firstSetBit(this.#free, slot, count) < 0 && this.firstNotOf(0, slot, count) < 0
  }

  /** How many slots from `slot` on are free, at most `most`. */
  freeFrom(slot: number, most: number): number {
    const taken = firstClearBit(this.#free, slot, most)
    return taken < 0 ? most : taken - slot
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
