import { firstClearBit, firstSetBit, setBits } from './bits.ts'

const wordSlots = 32

/** Memory for the generations of so many slots, a multiple of 32, by word. */
export function generationsBytes(slots: number): number {
  return (slots / wordSlots) * 8
}

/**
 * The generation of each of some slots, 0 for one that is not live. Runs are mostly long, so that few words of 32 slots
 * ever see two generations at a time:
 *
 *   by word    a bit for each slot that is live, and one generation for all of them      0.25 bytes a slot
 *     └─▶ two generations meet in a word
 *   by slot    the low 16 bits of each generation and its high 8 bits                    3 bytes a slot more
 */
export class SlotGenerations {
  readonly #slots: number
  readonly #live: Uint32Array
  readonly #ofWord: Int32Array
  #low: Uint16Array | undefined
  #high: Uint8Array | undefined

  /**
   * @param slots a multiple of 32
   * @param memory has `generationsBytes(slots)` zeros for it, from `offsetBytes` on
   */
  constructor(slots: number, memory: ArrayBuffer, offsetBytes: number) {
    const words = slots / wordSlots
    this.#slots = slots
    this.#live = new Uint32Array(memory, offsetBytes, words)
    this.#ofWord = new Int32Array(memory, offsetBytes + words * 4, words)
  }

  /** Bytes beyond those it was made with. */
  get moreBytes(): number {
    return this.#low === undefined ? 0 : this.#slots * 3
  }

  /** No slot is live any more: back to a generation by word. */
  clear(): void {
    this.#live.fill(0)
    this.#low = undefined
    this.#high = undefined
  }

  of(slot: number): number {
    if (this.#low !== undefined) return this.#high![slot] * 0x10000 + this.#low[slot]
    const word = slot >>> 5
    return (this.#live[word] & (1 << (slot & 31))) === 0 ? 0 : this.#ofWord[word]
  }

  /** The first of these slots that is not of this generation, or −1. */
  firstNotOf(generation: number, slot: number, count: number): number {
    if (this.#low !== undefined) return this.#firstSlotNotOf(generation, slot, count)
    if (generation === 0) return firstSetBit(this.#live, slot, count)
    const end = slot + count
    for (let from = slot; from < end; ) {
      const word = from >>> 5
      const to = Math.min(end, (word + 1) * wordSlots)
      const dead = firstClearBit(this.#live, from, to - from)
      if (this.#ofWord[word] !== generation) return from
      if (dead >= 0) return dead
      from = to
    }
    return -1
  }

  set(generation: number, slot: number, count: number): void {
    if (this.#low === undefined && !this.#setByWord(generation, slot, count)) this.#goBySlot()
    if (this.#low === undefined) return
    this.#low.fill(generation & 0xffff, slot, slot + count)
    this.#high!.fill(generation >>> 16, slot, slot + count)
  }

  /** The same for one slot that is not live, and a generation that is not 0. */
  setOne(generation: number, slot: number): void {
    if (this.#low === undefined) {
      const word = slot >>> 5
      const live = this.#live[word]
      if (live === 0 || this.#ofWord[word] === generation) {
        this.#live[word] = live | (1 << (slot & 31))
        this.#ofWord[word] = generation
        return
      }
      this.#goBySlot()
    }
    this.#low![slot] = generation & 0xffff
    this.#high![slot] = generation >>> 16
  }

  /** False when another generation is live in one of the words; some of the slots may be set then. */
  #setByWord(generation: number, slot: number, count: number): boolean {
    if (generation === 0) {
      setBits(this.#live, slot, count, false)
      return true
    }
    const end = slot + count
    for (let from = slot; from < end; ) {
      const word = from >>> 5
      const to = Math.min(end, (word + 1) * wordSlots)
      setBits(this.#live, from, to - from, false)
      if (this.#live[word] !== 0 && this.#ofWord[word] !== generation) return false
      setBits(this.#live, from, to - from, true)
      this.#ofWord[word] = generation
      from = to
    }
    return true
  }

  #goBySlot(): void {
    const low = new Uint16Array(this.#slots)
    const high = new Uint8Array(this.#slots)
    for (let slot = 0; slot < this.#slots; slot++) {
      const generation = this.of(slot)
      low[slot] = generation & 0xffff
      high[slot] = generation >>> 16
    }
    this.#low = low
    this.#high = high
  }

  #firstSlotNotOf(generation: number, slot: number, count: number): number {
    const low = generation & 0xffff
    const high = generation >>> 16
    const lows = this.#low!
    const highs = this.#high!
    for (let index = slot; index < slot + count; index++) {
      if (lows[index] !== low || highs[index] !== high) return index
    }
    return -1
  }
}
