/**
 * What is known of every chunk, 24 bytes each, without an object per chunk:
 *
 *   word  0 next      1 previous      2 state          3 frame      4 first page      5 owner
 *                                       │
 *                                       └─ flags (bits 0–8) · list (9–10) · order (11–15) · pins (16–30)
 *
 * Records lie side by side in segments of 512, so that one cache line or two tell all of a chunk, and so that more chunks
 * take one more segment: nothing is ever copied to grow. What few chunks have is elsewhere: the handle that a chunk's pages
 * are stored under as well, in segments that come into being with the first; and rare things in maps.
 */
export class ChunkRecords {
  /** Stored pages of resident chunks whose handles are adjacent. */
  keptAdjacentPages = 0
  readonly #segments: Int32Array[] = []
  readonly #kept: (Float64Array | undefined)[] = []
  #keptSegments = 0
  /** Records that were ever used, and the first of those that are free; they are linked by their `next`. */
  #used = 0
  #free = none
  /** Pins beyond what fits into a record. */
  readonly #morePins = new Map<number, number>()
  /** Of chunks that are filling or partial, where it is not 0. */
  readonly #restored = new Map<number, number>()

  /** Bytes of the segments, for the statistics. */
  get metadataBytes(): number {
    return segmentChunks * (this.#segments.length * recordWords * 4 + this.#keptSegments * 8)
  }

  /** Numbers from 0 to before this one may be chunks. */
  get end(): number {
    return this.#used
  }

  nextOf(chunk: number): number {
    return this.#segments[chunk >>> segmentBits]![(chunk & inSegment) * recordWords]!
  }

  previousOf(chunk: number): number {
    return this.#segments[chunk >>> segmentBits]![(chunk & inSegment) * recordWords + previousWord]!
  }

  frameOf(chunk: number): number {
    return this.#segments[chunk >>> segmentBits]![(chunk & inSegment) * recordWords + frameWord]!
  }

  /** First page within the buffer. */
  firstPageOf(chunk: number): number {
    return this.#segments[chunk >>> segmentBits]![(chunk & inSegment) * recordWords + firstPageWord]! >>> 0
  }

  /** The page of the buffer that comes after the chunk. */
  endPageOf(chunk: number): number {
    const words = this.#segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords
    return (words[at + firstPageWord]! >>> 0) + (1 << ((words[at + stateWord]! >>> orderShift) & orderMask))
  }

  /** Id of the buffer it belongs to; 0 when there is no such chunk. */
  ownerOf(chunk: number): number {
    return this.#segments[chunk >>> segmentBits]![(chunk & inSegment) * recordWords + ownerWord]!
  }

  orderOf(chunk: number): number {
    return (this.#stateOf(chunk) >>> orderShift) & orderMask
  }

  pageCount(chunk: number): number {
    return 1 << ((this.#stateOf(chunk) >>> orderShift) & orderMask)
  }

  /** The list it is on. */
  listOf(chunk: number): number {
    return (this.#stateOf(chunk) >>> listShift) & listMask
  }

  flagsOf(chunk: number): number {
    return this.#stateOf(chunk) & flagMask
  }

  /** Whether the chunk has one of these flags. */
  has(chunk: number, flags: number): boolean {
    return (this.#stateOf(chunk) & flags) !== 0
  }

  setFlags(chunk: number, flags: number): void {
    this.#segments[chunk >>> segmentBits]![(chunk & inSegment) * recordWords + stateWord]! |= flags
  }

  clearFlags(chunk: number, flags: number): void {
    this.#segments[chunk >>> segmentBits]![(chunk & inSegment) * recordWords + stateWord]! &= ~flags
  }

  /** Whether pins or running operations hold the chunk. */
  isPinned(chunk: number): boolean {
    return this.#stateOf(chunk) >= onePin
  }

  /** Counts a pin; returns whether it is the chunk's first. */
  addPin(chunk: number): boolean {
    const words = this.#segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords + stateWord
    const state = words[at]!
    if (state >= mostPins) {
      this.#morePins.set(chunk, (this.#morePins.get(chunk) ?? 0) + 1)
      return false
    }
    words[at] = state + onePin
    return state < onePin
  }

  /** Counts a pin less; returns whether it was the chunk's last. */
  removePin(chunk: number): boolean {
    const words = this.#segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords + stateWord
    const state = words[at]!
    if (state >= mostPins) {
      const more = this.#morePins.get(chunk)
      if (more !== undefined) {
        if (more === 1) this.#morePins.delete(chunk)
        else this.#morePins.set(chunk, more - 1)
        return false
      }
    }
    words[at] = state - onePin
    return state - onePin < onePin
  }

  /** First handle of the stored pages of a chunk that is not dirty; 0 when none is stored, or `scattered`. */
  keptOf(chunk: number): number {
    const kept = this.#kept[chunk >>> segmentBits]
    return kept === undefined ? 0 : kept[chunk & inSegment]!
  }

  setKept(chunk: number, handle: number): void {
    let kept = this.#kept[chunk >>> segmentBits]
    if (kept === undefined) {
      if (handle === 0) return
      kept = new Float64Array(segmentChunks)
      this.#kept[chunk >>> segmentBits] = kept
      this.#keptSegments++
    }
    if (kept[chunk & inSegment]! > 0) this.keptAdjacentPages -= this.pageCount(chunk)
    if (handle > 0) this.keptAdjacentPages += this.pageCount(chunk)
    kept[chunk & inSegment] = handle
  }

  /** Pages that hold their bytes already, of a chunk that is filling or partial. */
  restoredOf(chunk: number): number {
    return this.#restored.size === 0 ? 0 : (this.#restored.get(chunk) ?? 0)
  }

  setRestored(chunk: number, pages: number): void {
    if (pages > 0) this.#restored.set(chunk, pages)
    else if (this.#restored.size > 0) this.#restored.delete(chunk)
  }

  protected setNext(chunk: number, next: number): void {
    this.#segments[chunk >>> segmentBits]![(chunk & inSegment) * recordWords] = next
  }

  protected setPrevious(chunk: number, previous: number): void {
    this.#segments[chunk >>> segmentBits]![(chunk & inSegment) * recordWords + previousWord] = previous
  }

  protected setList(chunk: number, list: number): void {
    const words = this.#segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords + stateWord
    words[at] = (words[at]! & ~(listMask << listShift)) | (list << listShift)
  }

  /** A record for a chunk without pins, on no list yet. */
  protected take(owner: number, firstPage: number, order: number, frame: number, flags: number): number {
    let chunk = this.#free
    if (chunk !== none) {
      this.#free = this.nextOf(chunk)
    } else {
      chunk = this.#used++
      if ((chunk & inSegment) === 0) {
        this.#segments.push(new Int32Array(segmentChunks * recordWords))
        this.#kept.push(undefined)
      }
    }
    const words = this.#segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords
    words[at + stateWord] = flags | (order << orderShift)
    words[at + frameWord] = frame
    words[at + firstPageWord] = firstPage
    words[at + ownerWord] = owner
    return chunk
  }

  /** Forgets a chunk that is on no list. */
  protected drop(chunk: number): void {
    this.setKept(chunk, 0)
    this.setRestored(chunk, 0)
    this.#morePins.delete(chunk)
    const words = this.#segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords
    words[at + ownerWord] = 0
    words[at] = this.#free
    this.#free = chunk
  }

  #stateOf(chunk: number): number {
    return this.#segments[chunk >>> segmentBits]![(chunk & inSegment) * recordWords + stateWord]!
  }
}

const segmentBits = 9
const segmentChunks = 1 << segmentBits
const inSegment = segmentChunks - 1

const previousWord = 1
const stateWord = 2
const frameWord = 3
const firstPageWord = 4
const ownerWord = 5
const recordWords = 6

const flagMask = (1 << 9) - 1
const listShift = 9
const listMask = 3
const orderShift = 11
const orderMask = 31
const onePin = 1 << 16
/** As many as the record can count: states with so many are the greatest. */
const mostPins = 0x7fff << 16

/** Ends the list of free records. */
const none = -1
