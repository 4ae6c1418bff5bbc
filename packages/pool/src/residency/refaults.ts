/**
 * Notices thrashing: chunks that are restored soon after reclaim evicted them (refaults). Evictions are remembered in a
 * table of fixed size, the later over the earlier, with the number of pages that were evicted before them; a chunk that is
 * back before as many pages as the limit were evicted would have stayed with twice the memory.
 */
export class Refaults {
  readonly #keys = new Float64Array(entryCount)
  readonly #clocks = new Float64Array(entryCount)
  /** Pages evicted so far: the clock. */
  #evicted = 0
  #restored = 0
  #refaulted = 0
  #windowStart = 0
  #thrashing = false

  /** Whether more than half of what is restored was evicted a moment ago. */
  get thrashing(): boolean {
    return this.#thrashing
  }

  noteEviction(buffer: number, firstPage: number, pages: number): void {
    this.#evicted += pages
    const slot = slotOf(buffer, firstPage)
    this.#keys[slot] = keyOf(buffer, firstPage)
    this.#clocks[slot] = this.#evicted
  }

  /** Returns whether the restore is a refault. */
  noteRestore(buffer: number, firstPage: number, pages: number, limitPages: number): boolean {
    const slot = slotOf(buffer, firstPage)
    const isRefault =
      this.#keys[slot] === keyOf(buffer, firstPage) && this.#evicted - this.#clocks[slot]! < limitPages
    this.#restored += pages
    if (isRefault) {
      this.#keys[slot] = 0
      this.#refaulted += pages
    }
    if (this.#evicted - this.#windowStart >= limitPages / 2) this.#judge()
    return isRefault
  }

  #judge(): void {
    this.#thrashing = this.#restored > 0 && this.#refaulted * 2 > this.#restored
    this.#windowStart = this.#evicted
    this.#restored = 0
    this.#refaulted = 0
  }
}

const entryBits = 12
const entryCount = 1 << entryBits

function keyOf(buffer: number, firstPage: number): number {
  return buffer * 2 ** 32 + firstPage
}

function slotOf(buffer: number, firstPage: number): number {
  // The high bits: first pages are multiples of chunk sizes, so the low ones of the product are all alike.
  return (Math.imul(buffer, 0x9e3779b1) ^ Math.imul(firstPage, 0x85ebca6b)) >>> (32 - entryBits)
}
