/** Where a new chunk lies: 2^order pages from `frame` on, and what is true of it from the start. */
export interface ChunkMemory {
  readonly order: number
  readonly frame: number
  readonly flags: number
}

/** Chunks that are on one of some lists, a bit for each list, and have none of some flags. */
export interface WantedChunks {
  readonly lists: number
  readonly without: number
}

/** Lists that a chunk can be on. They only count: their order is the matter of who evicts. */
export const listCount = 4
/** The number of the first chunk there can be. */
export const firstChunk = 1

/**
 * What is known of every chunk, 20 bytes each, without an object per chunk:
 *
 *   state · first page · uses · frame · owner
 *     │                   └─ kept for the order of eviction, which alone knows what it means
 *     └─ flags (bits 0–8) · list (9–10) · order (11–15) · pins (16–30)
 *
 * They lie in segments. The last of them doubles until it is as large as the others, then there is one more: so small pools
 * stay small, and a large one never copies all it knows in order to grow.
 */
export class ChunkRecords {
  /** Pages on each list. */
  readonly listPages = new Int32Array(listCount)
  readonly #segments: Int32Array[] = []
  /** Records that there is room for, and that were ever used. */
  #capacity = 0
  #used = 0
  /** The first record that is free again; each tells the next. */
  #free = none
  /** By chunk: pins beyond what its record can count. */
  readonly #morePins = new Map<number, number>()

  constructor() {
    // No chunk has the number 0.
    while (this.#used < firstChunk) this.#take(0, 0, { order: 0, frame: 0, flags: 0 })
  }

  /** Bytes of all segments. */
  get recordBytes(): number {
    return this.#capacity * recordWords * 4
  }

  /** Chunks have numbers below this. */
  get end(): number {
    return this.#used
  }

  /** What the order of eviction knows of its uses; it stays when the chunk is gone, for the next one of this number. */
  usesOf(chunk: number): number {
    return this.#segment(chunk)[(chunk & inSegment) * recordWords + usesWord]!
  }

  setUses(chunk: number, uses: number): void {
    this.#segment(chunk)[(chunk & inSegment) * recordWords + usesWord] = uses
  }

  /**
   * The same of `count` chunks from `first` on, the first chunks after the last, into an array; 0 for each that is not wanted. So looking at
   * many chunks costs little more than reading their records.
   */
  copyUses(first: number, count: number, wanted: WantedChunks, into: Int32Array): void {
    let chunk = first
    for (let at = 0; at < count; ) {
      if (chunk === this.#used) chunk = 0
      const records = this.#segment(chunk)
      const end = Math.min(this.#used, chunk + count - at, (chunk | inSegment) + 1)
      let word = (chunk & inSegment) * recordWords
      for (; chunk < end; chunk++, at++, word += recordWords) {
        into[at] = isWanted(records[word]!, wanted) ? records[word + usesWord]! : 0
      }
    }
  }

  frameOf(chunk: number): number {
    return this.#segment(chunk)[(chunk & inSegment) * recordWords + frameWord]!
  }

  /** Id of the buffer it belongs to; 0 when there is no such chunk. */
  ownerOf(chunk: number): number {
    return this.#segment(chunk)[(chunk & inSegment) * recordWords + ownerWord]!
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
    const state = records[at]!
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

  /** The same, or −1 when the chunk has one of these flags. */
  listUnless(chunk: number, flags: number): number {
    const state = this.#stateOf(chunk)
    return (state & flags) !== 0 ? -1 : (state >>> listShift) & listMask
  }

  flagsOf(chunk: number): number {
    return this.#stateOf(chunk) & flagMask
  }

  /** Whether the chunk has one of these flags. */
  has(chunk: number, flags: number): boolean {
    return (this.#stateOf(chunk) & flags) !== 0
  }

  setFlags(chunk: number, flags: number): void {
    this.#segment(chunk)[(chunk & inSegment) * recordWords]! |= flags
  }

  clearFlags(chunk: number, flags: number): void {
    this.#segment(chunk)[(chunk & inSegment) * recordWords]! &= ~flags
  }

  /** Whether pins or running operations hold the chunk. */
  isPinned(chunk: number): boolean {
    return this.#stateOf(chunk) >= onePin
  }

  /** Pins of a chunk, and holds of running operations. */
  pinsOf(chunk: number): number {
    return (this.#stateOf(chunk) >>> pinShift) + (this.#morePins.get(chunk) ?? 0)
  }

  /** Counts a pin. The chunk's first takes it to a list; returns its pages then, else 0. */
  addPin(chunk: number, list: number): number {
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
    const state = records[at]!
    if (state < onePin) {
      records[at] = this.#listed(state, list) + onePin
      return pagesOf(state)
    }
    if (state < mostPins) records[at] = state + onePin
    else this.#morePins.set(chunk, (this.#morePins.get(chunk) ?? 0) + 1)
    return 0
  }

  /** Counts a pin less. Returns the chunk's pages when that was its last, else 0. */
  removePin(chunk: number): number {
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
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

  /** Moves a chunk to a list. */
  moveTo(chunk: number, list: number): void {
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
    records[at] = this.#listed(records[at]!, list)
  }

  /** A new chunk that nobody holds, on a list. */
  protected insert(owner: number, firstPage: number, memory: ChunkMemory, list: number): number {
    const chunk = this.#take(owner, firstPage, memory)
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
    records[at]! |= list << listShift
    this.listPages[list]! += pagesOf(records[at]!)
    return chunk
  }

  /** Forgets a chunk. */
  protected delete(chunk: number): void {
    this.listPages[this.listOf(chunk)]! -= this.pageCount(chunk)
    this.#morePins.delete(chunk)
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
    records[at + ownerWord] = 0
    records[at + firstPageWord] = this.#free
    this.#free = chunk
  }

  /** The state of a chunk that was on one list and is on another now. */
  #listed(state: number, list: number): number {
    const pages = pagesOf(state)
    this.listPages[(state >>> listShift) & listMask]! -= pages
    this.listPages[list]! += pages
    return (state & ~(listMask << listShift)) | (list << listShift)
  }

  #take(owner: number, firstPage: number, { order, frame, flags }: ChunkMemory): number {
    let chunk = this.#free
    if (chunk === none) {
      if (this.#used === this.#capacity) this.#grow()
      chunk = this.#used++
    } else {
      this.#free = this.#segment(chunk)[(chunk & inSegment) * recordWords + firstPageWord]!
    }
    const records = this.#segment(chunk)
    const at = (chunk & inSegment) * recordWords
    records[at] = flags | (order << orderShift)
    records[at + firstPageWord] = firstPage
    records[at + frameWord] = frame
    records[at + ownerWord] = owner
    return chunk
  }

  #grow(): void {
    const before = this.#capacity & inSegment
    const chunks = before === 0 ? leastChunks : before * 2
    const records = new Int32Array(chunks * recordWords)
    if (before > 0) records.set(this.#segments.pop()!)
    this.#segments.push(records)
    this.#capacity += chunks - before
  }

  #segment(chunk: number): Int32Array {
    return this.#segments[chunk >>> segmentBits]!
  }

  #stateOf(chunk: number): number {
    return this.#segment(chunk)[(chunk & inSegment) * recordWords]!
  }
}

function isWanted(state: number, { lists, without }: WantedChunks): boolean {
  return (state & without) === 0 && ((lists >>> ((state >>> listShift) & listMask)) & 1) !== 0
}

function pagesOf(state: number): number {
  return 1 << ((state >>> orderShift) & orderMask)
}

// With segments of 320 KiB, chunks at random are found as fast as in one array: few segments, whose own whereabouts stay in
// the processor's cache. The last begins with 1.25 KiB.
const segmentBits = 14
const segmentChunks = 1 << segmentBits
const inSegment = segmentChunks - 1
const leastChunks = 64

// The state is the first.
const firstPageWord = 1
const usesWord = 2
const frameWord = 3
const ownerWord = 4
const recordWords = 5

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
