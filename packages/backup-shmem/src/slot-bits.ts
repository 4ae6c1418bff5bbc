/** A run of neighbouring slots. */
export interface SlotRun {
  first: number
  count: number
}

/**
 * One bit per slot, written and searched by runs. Memory grows with the highest slot ever set: a capacity of a
 * terabyte costs nothing until it is used.
 */
export class SlotBits {
  #words = new Uint32Array(64)

  /** Bytes of bookkeeping held now. */
  get metadataBytes(): number {
    return this.#words.byteLength
  }

  set(first: number, count: number): void {
    const lastWord = Math.floor((first + count - 1) / 32)
    if (lastWord >= this.#words.length) {
      const larger = new Uint32Array(2 ** Math.ceil(Math.log2(lastWord + 1)))
      larger.set(this.#words)
      this.#words = larger
    }
    this.#write(first, count, true)
  }

  clear(first: number, count: number): void {
    const end = Math.min(first + count, this.#words.length * 32)
    if (end > first) this.#write(first, end - first, false)
  }

  /** Whether all these slots are set. */
  hasAll(first: number, count: number): boolean {
    return this.endOfSet(first, first + count) === first + count
  }

  /** The first slot from `first` on that is set; `end` when there is none before it. */
  endOfClear(first: number, end: number): number {
    return this.#find(first, end, 0)
  }

  /** The first slot from `first` on that is clear; `end` when there is none before it. */
  endOfSet(first: number, end: number): number {
    return this.#find(first, end, 0xffffffff)
  }

  /**
   * The last run of set slots that begins at or after `floor` and ends at or before `end`, cut at both; `undefined`
   * when no slot between them is set.
   */
  lastRun(floor: number, end: number): SlotRun | undefined {
    const words = this.#words
    const last = lastBit(words, 0, floor, Math.min(end, words.length * 32) - 1)
    if (last < floor) return undefined
    const first = Math.max(floor, lastBit(words, 0xffffffff, floor, last) + 1)
    return { first, count: last - first + 1 }
  }

  // The first slot whose bit differs from those of `same`, which is all zeros or all ones.
  #find(first: number, end: number, same: number): number {
    const words = this.#words
    let slot = first
    while (slot < end) {
      const index = Math.floor(slot / 32)
      if (index >= words.length) return same === 0 ? end : slot
      const different = ((words[index] ^ same) >>> (slot % 32)) >>> 0
      if (different !== 0) return Math.min(end, slot + 31 - Math.clz32(different & -different))
      slot = (index + 1) * 32
    }
    return end
  }

  #write(first: number, count: number, value: boolean): void {
    const words = this.#words
    const end = first + count
    let slot = first
    while (slot < end) {
      const index = Math.floor(slot / 32)
      const offset = slot % 32
      const length = Math.min(32 - offset, end - slot)
      if (length === 32) {
        const wholeWords = Math.floor((end - slot) / 32)
        words.fill(value ? 0xffffffff : 0, index, index + wholeWords)
        slot += wholeWords * 32
        continue
      }
      const mask = ((1 << length) - 1) << offset
      words[index] = value ? words[index] | mask : words[index] & ~mask
      slot += length
    }
  }
}

/** The last slot from `last` down whose bit differs from those of `same`; less than `floor` when there is none. */
function lastBit(words: Uint32Array, same: number, floor: number, last: number): number {
  let slot = last
  while (slot >= floor) {
    // No bitwise arithmetic on slots: there may be more than 2^31 of them.
    const index = Math.floor(slot / 32)
    const different = (words[index] ^ same) & (0xffffffff >>> (31 - (slot % 32)))
    if (different !== 0) return index * 32 + 31 - Math.clz32(different)
    slot = index * 32 - 1
  }
  return slot
}
