/** Where a new chunk lies: 2^order pages from `frame` on, and what is true of it from the start. */
export interface ChunkMemory {
  readonly order: number
  readonly frame: number
  readonly flags: number
}

/** Lists that chunks are on; the first numbers are those of their heads, so no chunk has one of them. */
export const listCount = 4
/** The number of the first chunk there can be. */
export const firstChunk = listCount

/**
 * What is known of every chunk, 24 bytes each, without an object per chunk:
 *
 *   record   next · previous · state · first page           looked at by every access: four to a cache line
 *                                │
 *                                └─ flags (bits 0–8) · list (9–10) · order (11–15) · pins (16–30)
 *   place    frame · owner                                  looked at when memory is handed out or leaves
 *
 * They lie in segments. The last of them doubles until it is as large as the others, then there is one more: so small pools
 * stay small, and a large one never copies all it knows in order to grow.
 */
export class ChunkRecords {
  /** Pages on each list. */
  readonly listPages = new Int32Array(listCount)
  readonly #records: Int32Array[] = []
  readonly #places: Int32Array[] = []
  /** Records that there is room for, and that were ever used. */
  #capacity = 0
  #used = 0
  /** The first record that is free again; each tells the next. */
  #free = none
  /** By chunk: pins beyond what its record can count. */
  readonly #morePins = new Map<number, number>()

  constructor() {
    for (let head = 0; head < listCount; head++) {
      const records = this.#segment(this.#take(0, 0, { order: 0, frame: 0, flags: 0 }))
      records[head * recordWords] = head
      records[head * recordWords + previousWord] = head
    }
  }

  /** Bytes of all segments. */
  get recordBytes(): number {
    return this.#capacity * (recordWords + placeWords) * 4
  }

  /** Chunks have numbers below this. */
  get end(): number {
    return this.#used
  }

  nextOf(chunk: number): number {
    return this.#segment(chunk)[(chunk & inSegment) * recordWords]!
  }

  previousOf(chunk: number): number {
    return this.#segment(chunk)[(chunk & inSegment) * recordWords + previousWord]!
  }

  frameOf(chunk: number): number {
    return this.#places[chunk >>> segmentBits]![(chunk & inSegment) * placeWords]!
  }

  /** Id of the buffer it belongs to; 0 when there is no such chunk. */
  ownerOf(chunk: number): number {
    return this.#places[chunk >>> segmentBits]![(chunk & inSegment) * placeWords + ownerWord]!
  }

  /** First page within the buffer. */
  firstPageOf(chunk: number): number {
    return this.#segment(chunk)[(chunk & inSegment) * recordWords + firstPageWord]! >>> 0
  }

  /** The page of the buffer that comes after the chunk. */
  endPageOf(chunk: number): number {
    return this.endPageUnless(chunk, 0)
  }

  /** The same, or 0 when the chunk has one of these flags. */
  endPageUnless(chunk: number, flags: number): number {
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
    const state = records[at + stateWord]!
    if ((state & flags) !== 0) return 0
    return (records[at + firstPageWord]! >>> 0) + pagesOf(state)
  }

  orderOf(chunk: number): number {
    return (this.#stateOf(chunk) >>> orderShift) & orderMask
  }

  pageCount(chunk: number): number {
    return pagesOf(this.#stateOf(chunk))
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
    this.#segment(chunk)[(chunk & inSegment) * recordWords + stateWord]! |= flags
  }

  clearFlags(chunk: number, flags: number): void {
    this.#segment(chunk)[(chunk & inSegment) * recordWords + stateWord]! &= ~flags
  }

  /** Whether pins or running operations hold the chunk. */
  isPinned(chunk: number): boolean {
    return this.#stateOf(chunk) >= onePin
  }

  /** Pins of a chunk, and holds of running operations. */
  pinsOf(chunk: number): number {
    return (this.#stateOf(chunk) >>> pinShift) + (this.#morePins.get(chunk) ?? 0)
  }

  /** Counts a pin. The chunk's first takes it to the warm end of a list; returns its pages then, else 0. */
  addPin(chunk: number, list: number): number {
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
    const state = records[at + stateWord]!
    if (state < onePin) {
      this.#move(chunk, at, state + onePin, list)
      return pagesOf(state)
    }
    if (state < mostPins) records[at + stateWord] = state + onePin
    else this.#morePins.set(chunk, (this.#morePins.get(chunk) ?? 0) + 1)
    return 0
  }

  /** Counts a pin less. Returns the chunk's pages when that was its last, else 0. */
  removePin(chunk: number): number {
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords + stateWord
    const state = records[at]!
    const more = state < mostPins ? undefined : this.#morePins.get(chunk)
    if (more === undefined) {
      records[at] = state - onePin
      return state - onePin < onePin ? pagesOf(state) : 0
    }
    if (more === 1) this.#morePins.delete(chunk)
    else this.#morePins.set(chunk, more - 1)
    return 0
  }

  /** Moves a chunk to the warm end of a list. */
  moveTo(chunk: number, list: number): void {
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
    this.#move(chunk, at, records[at + stateWord]!, list)
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

  /** A new chunk that nobody holds, at the warm end of a list. */
  protected insert(owner: number, firstPage: number, memory: ChunkMemory, list: number): number {
    const chunk = this.#take(owner, firstPage, memory)
    this.#link(chunk, list, list)
    return chunk
  }

  /** Forgets a chunk. */
  protected delete(chunk: number): void {
    this.#unlink(chunk)
    this.#morePins.delete(chunk)
    this.#places[chunk >>> segmentBits]![(chunk & inSegment) * placeWords + ownerWord] = 0
    this.#segment(chunk)[(chunk & inSegment) * recordWords] = this.#free
    this.#free = chunk
  }

  /** The step of every pin and every release: what a record says is read once and written once. */
  #move(chunk: number, at: number, state: number, list: number): void {
    const records = this.#segment(chunk)
    const after = records[at]!
    const before = records[at + previousWord]!
    this.#segment(before)[(before & inSegment) * recordWords] = after
    this.#segment(after)[(after & inSegment) * recordWords + previousWord] = before
    const heads = this.#records[0]!
    const last = heads[list * recordWords + previousWord]!
    heads[list * recordWords + previousWord] = chunk
    this.#segment(last)[(last & inSegment) * recordWords] = chunk
    records[at] = list
    records[at + previousWord] = last
    records[at + stateWord] = (state & ~(listMask << listShift)) | (list << listShift)
    this.listPages[(state >>> listShift) & listMask]! -= pagesOf(state)
    this.listPages[list]! += pagesOf(state)
  }

  #link(chunk: number, list: number, before: number): void {
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
    const last = this.previousOf(before)
    this.#segment(before)[(before & inSegment) * recordWords + previousWord] = chunk
    this.#segment(last)[(last & inSegment) * recordWords] = chunk
    records[at] = before
    records[at + previousWord] = last
    const state = records[at + stateWord]!
    records[at + stateWord] = (state & ~(listMask << listShift)) | (list << listShift)
    this.listPages[list]! += pagesOf(state)
  }

  #unlink(chunk: number): void {
    const after = this.nextOf(chunk)
    const before = this.previousOf(chunk)
    this.#segment(before)[(before & inSegment) * recordWords] = after
    this.#segment(after)[(after & inSegment) * recordWords + previousWord] = before
    this.listPages[this.listOf(chunk)]! -= this.pageCount(chunk)
  }

  #take(owner: number, firstPage: number, { order, frame, flags }: ChunkMemory): number {
    let chunk = this.#free
    if (chunk === none) {
      if (this.#used === this.#capacity) this.#grow()
      chunk = this.#used++
    } else {
      this.#free = this.nextOf(chunk)
    }
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
    records[at + stateWord] = flags | (order << orderShift)
    records[at + firstPageWord] = firstPage
    const places = this.#places[chunk >>> segmentBits]!
    const placeAt = (chunk & inSegment) * placeWords
    places[placeAt] = frame
    places[placeAt + ownerWord] = owner
    return chunk
  }

  #grow(): void {
    const before = this.#capacity & inSegment
    const chunks = before === 0 ? leastChunks : before * 2
    const records = new Int32Array(chunks * recordWords)
    const places = new Int32Array(chunks * placeWords)
    if (before > 0) {
      records.set(this.#records.pop()!)
      places.set(this.#places.pop()!)
    }
    this.#records.push(records)
    this.#places.push(places)
    this.#capacity += chunks - before
  }

  #segment(chunk: number): Int32Array {
    return this.#records[chunk >>> segmentBits]!
  }

  #stateOf(chunk: number): number {
    return this.#segment(chunk)[(chunk & inSegment) * recordWords + stateWord]!
  }
}

function pagesOf(state: number): number {
  return 1 << ((state >>> orderShift) & orderMask)
}

// With segments of 384 KiB, chunks at random are found as fast as in one array: few segments, whose own whereabouts stay in
// the processor's cache. The last begins with 1.5 KiB.
const segmentBits = 14
const segmentChunks = 1 << segmentBits
const inSegment = segmentChunks - 1
const leastChunks = 64

const previousWord = 1
const stateWord = 2
const firstPageWord = 3
const recordWords = 4

const ownerWord = 1
const placeWords = 2

const flagMask = (1 << 9) - 1
const listShift = 9
const listMask = 3
const orderShift = 11
const orderMask = 31
const pinShift = 16
const onePin = 1 << pinShift
/** As many as a record can count: no state is greater. */
const mostPins = 0x7fff << 16

/** Ends the list of free records. */
const none = -1
