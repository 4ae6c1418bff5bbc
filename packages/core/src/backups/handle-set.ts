import { setBits } from '../slots/bits.ts'
import { BitBlocks, blockBits } from './bit-blocks.ts'

/**
 * A set of handles that are given out in rising order and never again, in blocks of 2048:
 *
 *   a number for each block ─▶ 0         none is live
 *                          ├─▶ whole     all are
 *                          └─▶ broken    some are: the bits of block so-and-so
 *
 * A bit beside each number says that it is `whole`: for 2^28 live handles these bits are 16 KiB, which stay in the processor's
 * cache, so that one of many handles is found as fast as one of a few. A million pages wholly live cost 2 KiB,
 * broken blocks a bit for each handle, dropped ones next to nothing.
 */
export class HandleSet {
  /** The block of the least handle that can ever be in the set. */
  readonly #firstBlock: number
  /** Numbers of 16,384 blocks each, where any of them is not 0; how many are not, and which are `whole`. */
  readonly #segments: (Int32Array | undefined)[] = []
  readonly #used: number[] = []
  readonly #whole: Uint32Array[] = []
  readonly #bits = new BitBlocks()

  /** `least` is the least handle that will ever be added. */
  constructor(least: number) {
    this.#firstBlock = Math.floor(least / blockBits)
  }

  /** Adds handles, none of which is in the set. */
  add(first: number, count: number): void {
    for (let at = first, end = first + count; at < end; at = nextBlock(at)) {
      const offset = at % blockBits
      const length = Math.min(blockBits - offset, end - at)
      const place = this.#placeOf(at)
      let broken = this.#numberAt(place)
      if (broken === 0) {
        if (length === blockBits) {
          this.#setNumber(place, whole)
          continue
        }
        broken = this.#bits.take(false)
        this.#setNumber(place, broken)
      }
      if (this.#bits.set(broken, offset, length, true) < blockBits) continue
      this.#bits.give(broken)
      this.#setNumber(place, whole)
    }
  }

  /** Removes these handles, all of which are in the set. */
  delete(first: number, count: number): void {
    for (let at = first, end = first + count; at < end; at = nextBlock(at)) {
      const offset = at % blockBits
      const length = Math.min(blockBits - offset, end - at)
      const place = this.#placeOf(at)
      let broken = this.#numberAt(place)
      if (broken === whole) {
        if (length === blockBits) {
          this.#setNumber(place, 0)
          continue
        }
        broken = this.#bits.take(true)
        this.#setNumber(place, broken)
      }
      if (this.#bits.set(broken, offset, length, false) > 0) continue
      this.#bits.give(broken)
      this.#setNumber(place, 0)
    }
  }

  /** The first of these handles that is not in the set, or `undefined`. */
  firstMissing(first: number, count: number): number | undefined {
    for (let at = first, end = first + count; at < end; at = nextBlock(at)) {
      const place = this.#placeOf(at)
      if (this.#isWhole(place)) continue
      const number = this.#numberAt(place)
      if (number === 0) return at
      const offset = at % blockBits
      const missing = this.#bits.firstClear(number, offset, Math.min(blockBits - offset, end - at))
      if (missing >= 0) return at - offset + missing
    }
    return undefined
  }

  clear(): void {
    this.#segments.length = 0
    this.#used.length = 0
    this.#whole.length = 0
    this.#bits.clear()
  }

  /** The block of a handle, counted from the first. */
  #placeOf(handle: number): number {
    return Math.floor(handle / blockBits) - this.#firstBlock
  }

  #isWhole(place: number): boolean {
    if (place < 0) return false
    const bits = this.#whole[Math.floor(place / segmentBlocks)]
    const bit = place % segmentBlocks
    return bits !== undefined && ((bits[bit >>> 5] >>> (bit & 31)) & 1) === 1
  }

  #numberAt(place: number): number {
    if (place < 0) return 0
    const segment = this.#segments[Math.floor(place / segmentBlocks)]
    return segment === undefined ? 0 : segment[place % segmentBlocks]
  }

  #setNumber(place: number, number: number): void {
    const index = Math.floor(place / segmentBlocks)
    while (this.#segments.length <= index) {
      this.#segments.push(undefined)
      this.#used.push(0)
      this.#whole.push(new Uint32Array(segmentBlocks / 32))
    }
    let segment = this.#segments[index]
    if (segment === undefined) {
      segment = new Int32Array(segmentBlocks)
      this.#segments[index] = segment
    }
    const at = place % segmentBlocks
    const before = segment[at]
    segment[at] = number
    setBits(this.#whole[index], at, 1, number === whole)
    if (before === 0) this.#used[index]++
    else if (number === 0 && --this.#used[index] === 0) this.#segments[index] = undefined
  }
}

const whole = -1
const segmentBlocks = 2 ** 14

/** The first handle of the block after this one's. */
function nextBlock(handle: number): number {
  return (Math.floor(handle / blockBits) + 1) * blockBits
}
