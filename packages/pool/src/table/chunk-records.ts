/** Lists that chunks are on. */
export const listCount = 4

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
  /** Pages on each list. */
  readonly listPages = new Int32Array(listCount)
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

  constructor() {
    // The first records are the heads of the lists, so that no chunk has the number of one.
    for (let list = 0; list < listCount; list++) {
      const head = this.#take(0, 0, 0, 0, 0)
      const words = this.#segments[0]!
      words[head * recordWords] = head
      words[head * recordWords + previousWord] = head
    }
  }

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

  /** The same, or 0 when the chunk has one of these flags. */
  endPageUnless(chunk: number, flags: number): number {
    const words = this.#segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords
    const state = words[at + stateWord]!
    if ((state & flags) !== 0) return 0
    return (words[at + firstPageWord]! >>> 0) + (1 << ((state >>> orderShift) & orderMask))
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

  /** Counts a pin. The chunk's first takes it to the warm end of a list; returns its pages then, else 0. */
  addPin(chunk: number, list: number): number {
    const words = this.#segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords
    const state = words[at + stateWord]!
    if (state < onePin) {
      this.#move(chunk, words, at, state + onePin, list)
      return 1 << ((state >>> orderShift) & orderMask)
    }
    if (state < mostPins) words[at + stateWord] = state + onePin
    else this.#morePins.set(chunk, (this.#morePins.get(chunk) ?? 0) + 1)
    return 0
  }

  /** Counts a pin less. Returns the chunk's pages when that was its last, else 0. */
  removePin(chunk: number): number {
    const words = this.#segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords + stateWord
    const state = words[at]!
    const more = state < mostPins ? undefined : this.#morePins.get(chunk)
    if (more === undefined) {
      const left = state - onePin
      words[at] = left
      return left < onePin ? 1 << ((left >>> orderShift) & orderMask) : 0
    }
    if (more === 1) this.#morePins.delete(chunk)
    else this.#morePins.set(chunk, more - 1)
    return 0
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

  /** Moves a chunk to the warm end of a list. */
  moveTo(chunk: number, list: number): void {
    const words = this.#segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords
    this.#move(chunk, words, at, words[at + stateWord]!, list)
  }

  /** Moves a chunk to the cold end of a list. */
  moveToCold(chunk: number, list: number): void {
    this.#unlink(chunk)
    this.#link(chunk, list, this.nextOf(list))
  }

  /** Moves a chunk just before another, on the other's list: its share of the other's age. */
  moveBefore(chunk: number, other: number): void {
    this.#unlink(chunk)
    this.#link(chunk, this.listOf(other), other)
  }

  /** The step of every pin and of every release: each word is read once and written once. */
  #move(chunk: number, words: Int32Array, at: number, state: number, list: number): void {
    const segments = this.#segments
    const after = words[at]!
    const before = words[at + previousWord]!
    segments[before >>> segmentBits]![(before & inSegment) * recordWords] = after
    segments[after >>> segmentBits]![(after & inSegment) * recordWords + previousWord] = before
    const heads = segments[0]!
    const last = heads[list * recordWords + previousWord]!
    heads[list * recordWords + previousWord] = chunk
    segments[last >>> segmentBits]![(last & inSegment) * recordWords] = chunk
    words[at] = list
    words[at + previousWord] = last
    words[at + stateWord] = (state & ~(listMask << listShift)) | (list << listShift)
    const { listPages } = this
    const pages = 1 << ((state >>> orderShift) & orderMask)
    listPages[(state >>> listShift) & listMask]! -= pages
    listPages[list]! += pages
  }

  #link(chunk: number, list: number, before: number): void {
    const segments = this.#segments
    const words = segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords
    const wordsBefore = segments[before >>> segmentBits]!
    const previousAt = (before & inSegment) * recordWords + previousWord
    const last = wordsBefore[previousAt]!
    wordsBefore[previousAt] = chunk
    segments[last >>> segmentBits]![(last & inSegment) * recordWords] = chunk
    words[at] = before
    words[at + previousWord] = last
    const state = (words[at + stateWord]! & ~(listMask << listShift)) | (list << listShift)
    words[at + stateWord] = state
    this.listPages[list]! += 1 << ((state >>> orderShift) & orderMask)
  }

  #unlink(chunk: number): void {
    const segments = this.#segments
    const words = segments[chunk >>> segmentBits]!
    const at = (chunk & inSegment) * recordWords
    const after = words[at]!
    const before = words[at + previousWord]!
    const state = words[at + stateWord]!
    segments[before >>> segmentBits]![(before & inSegment) * recordWords] = after
    segments[after >>> segmentBits]![(after & inSegment) * recordWords + previousWord] = before
    this.listPages[(state >>> listShift) & listMask]! -= 1 << ((state >>> orderShift) & orderMask)
  }

  /** A record for a chunk without pins, at the warm end of a list. */
  protected take(
    owner: number,
    firstPage: number,
    order: number,
    frame: number,
    flags: number,
    list: number,
  ): number {
    const chunk = this.#take(owner, firstPage, order, frame, flags)
    this.#link(chunk, list, list)
    return chunk
  }

  #take(owner: number, firstPage: number, order: number, frame: number, flags: number): number {
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

  /** Forgets a chunk. */
  protected drop(chunk: number): void {
    this.#unlink(chunk)
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
