/**
 * A free list: what was put in last comes out first, since it is warm. Four bytes each, in segments of 1024 that come and go, so
 * that a list of millions neither copies itself to grow nor keeps room for the most it ever had.
 */
export class FrameStack {
  /** How many there are, those at the bottom not counted. */
  #count = 0
  readonly #segments: Int32Array[] = []
  /** The segment that the next one goes into, or the last one came out of. */
  #top: Int32Array = new Int32Array(0)
  /** What was put to the bottom: hardly ever anything. */
  readonly #bottom: number[] = []

  get length(): number {
    return this.#count + this.#bottom.length
  }

  /** Puts in an integer from 0 to 2^31 − 1. */
  push(value: number): void {
    const at = this.#count++ & inSegment
    if (at === 0) this.#addSegment()
    this.#top[at] = value
  }

  /** Takes out the last one; −1 when there is none. */
  pop(): number {
    if (this.#count === 0) return this.#bottom.pop() ?? -1
    const at = --this.#count & inSegment
    const value = this.#top[at]!
    if (at === 0) this.#removeSegment()
    return value
  }

  /** Puts one where it comes out after all others. */
  putLast(value: number): void {
    this.#bottom.unshift(value)
  }

  #addSegment(): void {
    const used = this.#count >>> segmentBits
    if (used === this.#segments.length) this.#segments.push(new Int32Array(segmentLength))
    this.#top = this.#segments[used]!
  }

  /** The segment that was emptied stays, for what is put in next; the one above it goes. */
  #removeSegment(): void {
    const used = this.#count >>> segmentBits
    if (this.#segments.length > used + 1) this.#segments.pop()
    if (used > 0) this.#top = this.#segments[used - 1]!
  }
}

const segmentBits = 10
const segmentLength = 1 << segmentBits
const inSegment = segmentLength - 1
