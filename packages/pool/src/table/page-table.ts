import { emptyEntry, handleEntry, isPageEntry, pageEntry } from '@spillway/core'

/**
 * Where each page of a buffer is, in two levels like a processor's page table:
 *
 *   block entry (one per 2^maxOrder pages)
 *     0            all pages empty
 *     even         one chunk holds all pages of the block            (a huge entry)
 *     odd          all pages are stored, with adjacent handles       (a huge entry)
 *     negative     −1 − leaf: each page has an entry of its own, in a leaf
 *
 * Block entries lie in segments that come into being when they are first written: a buffer of 1 TiB costs nothing until
 * it is used, and 4 MiB when all of it is backed up in whole chunks.
 */
export class PageTable {
  readonly pageCount: number
  /** Pages of a block: 2^maxOrder of the buffer. The last block may be shorter. */
  readonly blockPages: number
  /** Pages that a chunk holds. */
  residentPages = 0
  /** Pages that only a backup holds. */
  storedPages = 0
  /** Bytes of segments and leaves, for the statistics. */
  metadataBytes = 0

  /** What `look` found. */
  found: 'empty' | 'chunk' | 'handle' = 'empty'
  /** How many pages, from the one looked at, `found` is true for: to the chunk's end, the run's end or the limit. */
  foundPages = 0
  /** The chunk, or the handle of the page looked at. */
  foundChunk = 0
  foundHandle = 0

  readonly #blockOrder: number
  readonly #segments: (Float64Array | undefined)[]
  readonly #leaves: (Float64Array | undefined)[] = []
  readonly #leafResident: number[] = []
  readonly #freeLeaves: number[] = []

  /** `pageCount` is at most 2^32, `blockPages` a power of two. */
  constructor(pageCount: number, blockPages: number) {
    this.#blockOrder = Math.log2(blockPages)
    this.pageCount = pageCount
    this.blockPages = blockPages
    this.#segments = new Array(Math.ceil(Math.ceil(pageCount / blockPages) / segmentBlocks)).fill(undefined)
  }

  /** Pages of the block that `page` lies in. */
  blockLength(page: number): number {
    const first = this.#blockStart(page)
    return Math.min(this.blockPages, this.pageCount - first)
  }

  /** First page after the block that `page` lies in. */
  blockEnd(page: number): number {
    return Math.min(this.#blockStart(page) + this.blockPages, this.pageCount)
  }

  /** The chunk that holds `page`, or 0. Allocates nothing: this is the path of every access. */
  chunkAt(page: number): number {
    const block = page >>> this.#blockOrder
    let entry = this.#entry(block)
    if (entry < 0) entry = this.#leaves[-1 - entry]![page & (this.blockPages - 1)]!
    // Entries of chunks are even and below 2^31, so integers will do; other entries are odd, or 0.
    const word = entry | 0
    return word === entry && word > 0 && (word & 1) === 0 ? (word >>> 1) - 1 : 0
  }

  /** Finds out about `page` and the pages after it, up to `end`; the answer is in `found…`. */
  look(page: number, end: number): void {
    const block = page >>> this.#blockOrder
    const start = block * this.blockPages
    const stop = Math.min(end, start + this.blockPages, this.pageCount)
    const entry = this.#entry(block)
    if (entry >= 0) {
      this.#take(entry, page - start)
      this.foundPages = stop - page
      return
    }
    const leaf = this.#leaves[-1 - entry]!
    const first = leaf[page - start]!
    this.#take(first, 0)
    const step = this.found === 'handle' ? 2 : 0
    let index = page - start + 1
    for (let expected = first + step; index < stop - start && leaf[index] === expected; index++)
      expected += step
    this.foundPages = start + index - page
  }

  /** The first page of the first block from `page`, where a block begins, on that is not all empty; `end` when there is none. */
  skipEmptyBlocks(page: number, end: number): number {
    if (page >= end || page % this.blockPages !== 0) return page
    const last = Math.ceil(end / this.blockPages)
    let block = page >>> this.#blockOrder
    while (block < last) {
      const index = block >>> segmentBits
      const segment = this.#segments[index]
      if (segment === undefined) block = (index + 1) * segmentBlocks
      else if (segment[block & inSegment] === emptyEntry) block++
      else break
    }
    return Math.min(end, block * this.blockPages)
  }

  /** Enters a chunk for its pages. */
  setChunk(firstPage: number, pages: number, chunk: number): void {
    this.#set(firstPage, pages, pageEntry(chunk + 1), 0)
  }

  /** Enters adjacent handles for pages. */
  setHandles(firstPage: number, pages: number, handle: number): void {
    this.#set(firstPage, pages, handleEntry(handle), 2)
  }

  setEmpty(firstPage: number, pages: number): void {
    this.#set(firstPage, pages, emptyEntry, 0)
  }

  #take(entry: number, index: number): void {
    if (entry === emptyEntry) {
      this.found = 'empty'
    } else if (isPageEntry(entry)) {
      this.found = 'chunk'
      this.foundChunk = entry / 2 - 1
    } else {
      this.found = 'handle'
      this.foundHandle = (entry - 1) / 2 + index
    }
  }

  /** All pages lie in one block. */
  #set(firstPage: number, pages: number, entry: number, step: number): void {
    const block = firstPage >>> this.#blockOrder
    const start = block * this.blockPages
    this.#count(firstPage, pages, -1)
    if (pages === this.blockLength(firstPage)) {
      this.#dropLeaf(block)
      this.#setEntry(block, entry)
      this.#countEntry(entry, pages)
      return
    }
    const id = this.#leafOf(block, pages)
    const leaf = this.#leaves[id]!
    let value = entry
    for (let index = firstPage - start; index < firstPage - start + pages; index++) {
      leaf[index] = value
      value += step
    }
    this.#countEntry(entry, pages)
    if (entry !== emptyEntry && isPageEntry(entry)) this.#leafResident[id]! += pages
    else if (this.#leafResident[id] === 0) this.#collapse(block, id)
  }

  /** Takes the pages' old entries out of the counters. */
  #count(firstPage: number, pages: number, sign: -1): void {
    const end = firstPage + pages
    for (let page = firstPage; page < end; page += this.foundPages) {
      this.look(page, end)
      if (this.found === 'chunk') {
        this.residentPages += sign * this.foundPages
        const entry = this.#entry(page >>> this.#blockOrder)
        if (entry < 0) this.#leafResident[-1 - entry]! += sign * this.foundPages
      } else if (this.found === 'handle') {
        this.storedPages += sign * this.foundPages
      }
    }
  }

  #countEntry(entry: number, pages: number): void {
    if (entry === emptyEntry) return
    if (isPageEntry(entry)) this.residentPages += pages
    else this.storedPages += pages
  }

  /** The block's leaf, made from its huge entry when there is none yet. */
  #leafOf(block: number, pagesBeingSet: number): number {
    const entry = this.#entry(block)
    if (entry < 0) return -1 - entry
    const start = block * this.blockPages
    const leaf = new Float64Array(this.blockLength(start))
    const step = entry !== emptyEntry && !isPageEntry(entry) ? 2 : 0
    for (let index = 0; index < leaf.length; index++) leaf[index] = entry + index * step
    const id = this.#freeLeaves.pop() ?? this.#leaves.length
    this.#leaves[id] = leaf
    this.metadataBytes += leaf.byteLength
    this.#leafResident[id] = isPageEntry(entry) ? leaf.length - pagesBeingSet : 0
    this.#setEntry(block, -1 - id)
    return id
  }

  /** Turns a leaf without chunks back into a huge entry where all its pages are alike. */
  #collapse(block: number, id: number): void {
    const leaf = this.#leaves[id]!
    const first = leaf[0]!
    const step = first === emptyEntry ? 0 : 2
    for (let index = 1; index < leaf.length; index++) if (leaf[index] !== first + index * step) return
    this.#dropLeaf(block)
    this.#setEntry(block, first)
  }

  #dropLeaf(block: number): void {
    const entry = this.#entry(block)
    if (entry >= 0) return
    this.metadataBytes -= this.#leaves[-1 - entry]!.byteLength
    this.#leaves[-1 - entry] = undefined
    this.#freeLeaves.push(-1 - entry)
  }

  #entry(block: number): number {
    const segment = this.#segments[block >>> segmentBits]
    return segment === undefined ? emptyEntry : segment[block & inSegment]!
  }

  #setEntry(block: number, entry: number): void {
    const index = block >>> segmentBits
    let segment = this.#segments[index]
    if (segment === undefined) {
      if (entry === emptyEntry) return
      const blocks = Math.ceil(this.pageCount / this.blockPages)
      segment = new Float64Array(Math.min(segmentBlocks, blocks - index * segmentBlocks))
      this.#segments[index] = segment
      this.metadataBytes += segment.byteLength
    }
    segment[block & inSegment] = entry
  }

  #blockStart(page: number): number {
    return page - (page % this.blockPages)
  }
}

/** What everybody may ask of a page table; only the resident set changes it. */
export type PageTableReader = Pick<
  PageTable,
  'blockEnd' | 'blockLength' | 'chunkAt' | 'look' | 'skipEmptyBlocks'
> &
  Readonly<
    Pick<
      PageTable,
      | 'blockPages'
      | 'found'
      | 'foundChunk'
      | 'foundHandle'
      | 'foundPages'
      | 'metadataBytes'
      | 'pageCount'
      | 'residentPages'
      | 'storedPages'
    >
  >

// Few and large, so that their own whereabouts stay in the processor's cache: an entry of a buffer of 1 TiB is one miss.
const segmentBits = 12
const segmentBlocks = 1 << segmentBits
const inSegment = segmentBlocks - 1
