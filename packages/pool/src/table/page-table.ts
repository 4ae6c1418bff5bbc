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
 * Block entries lie in segments that come into being, and grow, as they are written: a buffer of 1 TiB costs nothing until
 * it is used, and 4 MiB when all of it is backed up in whole chunks. A buffer of one block, of which there may be very many,
 * has its entry in a field.
 */
export class PageTable {
  pageCount: number
  /** The order of a block: `maxOrder` of the buffer. */
  readonly blockOrder: number
  /** Pages that a chunk holds. */
  residentPages = 0
  /** Pages that only a backup holds. */
  storedPages = 0
  /** What `look` found. */
  found: 'empty' | 'chunk' | 'handle' = 'empty'
  /** How many pages, from the one looked at, `found` is true for: to the chunk's end, the run's end or the limit. */
  foundPages = 0
  /** The chunk or the handle of the page looked at. */
  #foundNumber = 0
  /** The entry of the only block there is; undefined while it is empty, so that small numbers stay in the field itself. */
  #onlyEntry: number | undefined = undefined
  /** Of more blocks than one, once one of them was written. */
  #segments: (Float64Array | undefined)[] | undefined = undefined
  #leaves: Leaves | undefined = undefined

  /** `pageCount` is at most 2^32, `blockPages` a power of two. */
  constructor(pageCount: number, blockPages: number) {
    this.pageCount = pageCount
    this.blockOrder = 31 - Math.clz32(blockPages)
  }

  /** There are pages up to `pageCount` from now on. Those that were the last are whole blocks, so that these stay what they are. */
  reach(pageCount: number): void {
    if (pageCount <= this.pageCount) return
    this.pageCount = pageCount
    const entry = this.#onlyEntry
    if (entry === undefined || pageCount <= this.blockPages) return
    this.#onlyEntry = undefined
    this.#setEntry(0, entry)
  }

  /** Pages of a block: 2^maxOrder of the buffer. The last block may be shorter. */
  get blockPages(): number {
    return 1 << this.blockOrder
  }

  /** The chunk that `look` found. */
  get foundChunk(): number {
    return this.#foundNumber
  }

  /** The handle that `look` found. */
  get foundHandle(): number {
    return this.#foundNumber
  }

  /** Bytes of segments and leaves, for the statistics. */
  get metadataBytes(): number {
    let bytes = this.#leaves?.bytes ?? 0
    for (const segment of this.#segments ?? []) bytes += 8 + bytesOf(segment)
    return bytes
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
    const { blockOrder } = this
    let entry = this.#entry(page >>> blockOrder)
    if (entry < 0) entry = this.#leaves!.entries[-1 - entry]![page & ((1 << blockOrder) - 1)]!
    // Entries of chunks are even and below 2^31, so integers will do; other entries are odd, or 0.
    const word = entry | 0
    return word === entry && word > 0 && (word & 1) === 0 ? (word >>> 1) - 1 : 0
  }

  /** Finds out about `page` and the pages after it, up to `end`; the answer is in `found…`. */
  look(page: number, end: number): void {
    const block = page >>> this.blockOrder
    const start = block * this.blockPages
    const stop = Math.min(end, start + this.blockPages, this.pageCount)
    const entry = this.#entry(block)
    if (entry >= 0) {
      this.#take(entry, page - start)
      this.foundPages = stop - page
      return
    }
    const leaf = this.#leaves!.entries[-1 - entry]!
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
    let block = page >>> this.blockOrder
    const segments = this.#segments
    if (segments === undefined) return this.#onlyEntry === undefined ? end : page
    while (block < last) {
      const index = block >>> segmentBits
      if (index >= segments.length) return end
      const segment = segments[index]
      if (segment === undefined || (block & inSegment) >= segment.length) block = (index + 1) * segmentBlocks
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

  /** Enters a handle for each page from `firstPage` on, all of which are empty; where it is 0 the page stays so. */
  fillHandles(firstPage: number, handles: Float64Array): void {
    const { blockOrder, blockPages } = this
    for (let index = 0; index < handles.length; ) {
      const page = firstPage + index
      const length = Math.min(handles.length - index, blockPages - (page & (blockPages - 1)))
      if (blockOrder === 0) {
        const handle = handles[index]!
        if (handle !== 0) {
          this.#setEntry(page, handleEntry(handle))
          this.storedPages++
        }
      } else {
        this.#fillLeaf(page, handles.subarray(index, index + length))
      }
      index += length
    }
  }

  #fillLeaf(page: number, handles: Float64Array): void {
    let leaf: Float64Array | undefined
    const start = page & (this.blockPages - 1)
    let pages = 0
    for (let index = 0; index < handles.length; index++) {
      const handle = handles[index]!
      if (handle === 0) continue
      leaf ??= this.#leafToFill(page)
      leaf[start + index] = handleEntry(handle)
      pages++
    }
    this.storedPages += pages
  }

  #leafToFill(page: number): Float64Array {
    const id = this.#leafOf(page >>> this.blockOrder, 0)
    return this.#leaves!.entries[id]!
  }

  setEmpty(firstPage: number, pages: number): void {
    this.#set(firstPage, pages, emptyEntry, 0)
  }

  #take(entry: number, index: number): void {
    if (entry === emptyEntry) {
      this.found = 'empty'
    } else if (isPageEntry(entry)) {
      this.found = 'chunk'
      this.#foundNumber = entry / 2 - 1
    } else {
      this.found = 'handle'
      this.#foundNumber = (entry - 1) / 2 + index
    }
  }

  /** All pages lie in one block. */
  #set(firstPage: number, pages: number, entry: number, step: number): void {
    const block = firstPage >>> this.blockOrder
    const start = block * this.blockPages
    this.#count(firstPage, pages, -1)
    if (pages === this.blockLength(firstPage)) {
      this.#dropLeaf(block)
      this.#setEntry(block, entry)
      this.#countEntry(entry, pages)
      return
    }
    const id = this.#leafOf(block, pages)
    const leaves = this.#leaves!
    const leaf = leaves.entries[id]!
    let value = entry
    for (let index = firstPage - start; index < firstPage - start + pages; index++) {
      leaf[index] = value
      value += step
    }
    this.#countEntry(entry, pages)
    if (entry !== emptyEntry && isPageEntry(entry)) leaves.residentPages[id]! += pages
    else if (leaves.residentPages[id] === 0) this.#collapse(block, id)
  }

  /** Takes the pages' old entries out of the counters. */
  #count(firstPage: number, pages: number, sign: -1): void {
    const end = firstPage + pages
    for (let page = firstPage; page < end; page += this.foundPages) {
      this.look(page, end)
      if (this.found === 'chunk') {
        this.residentPages += sign * this.foundPages
        const entry = this.#entry(page >>> this.blockOrder)
        if (entry < 0) this.#leaves!.residentPages[-1 - entry]! += sign * this.foundPages
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
    const residentPages = isPageEntry(entry) ? leaf.length - pagesBeingSet : 0
    let id = 0
    if (this.#leaves === undefined) this.#leaves = new Leaves(leaf, residentPages)
    else id = this.#leaves.add(leaf, residentPages)
    this.#setEntry(block, -1 - id)
    return id
  }

  /** Turns a leaf without chunks back into a huge entry where all its pages are alike. */
  #collapse(block: number, id: number): void {
    const leaf = this.#leaves!.entries[id]!
    const first = leaf[0]!
    const step = first === emptyEntry ? 0 : 2
    // Pages mostly change in rising order, so the last one tells most often.
    if (leaf[leaf.length - 1] !== first + (leaf.length - 1) * step) return
    for (let index = 1; index < leaf.length; index++) if (leaf[index] !== first + index * step) return
    this.#dropLeaf(block)
    this.#setEntry(block, first)
  }

  #dropLeaf(block: number): void {
    const entry = this.#entry(block)
    if (entry >= 0) return
    if (this.#leaves!.drop(-1 - entry) === 0) this.#leaves = undefined
  }

  #entry(block: number): number {
    const segments = this.#segments
    if (segments === undefined) return this.#onlyEntry ?? emptyEntry
    const segment = segments[block >>> segmentBits]
    const index = block & inSegment
    return segment === undefined || index >= segment.length ? emptyEntry : segment[index]!
  }

  #setEntry(block: number, entry: number): void {
    const blocks = Math.ceil(this.pageCount / this.blockPages)
    if (blocks <= 1) {
      this.#onlyEntry = entry === emptyEntry ? undefined : entry
      return
    }
    const index = block & inSegment
    let segment = this.#segments?.[block >>> segmentBits]
    if (segment === undefined || index >= segment.length) {
      if (entry === emptyEntry) return
      segment = this.#growSegment(block, blocks)
    }
    segment[index] = entry
  }

  /** The segment of a block, long enough for it. It grows in small steps: what is not reached yet costs next to nothing. */
  #growSegment(block: number, blocks: number): Float64Array {
    const index = block >>> segmentBits
    this.#segments ??= []
    while (this.#segments.length <= index) this.#segments.push(undefined)
    const steps = Math.ceil(((block & inSegment) + 1) / segmentStep)
    const segment = new Float64Array(Math.min(steps * segmentStep, blocks - index * segmentBlocks))
    const before = this.#segments[index]
    if (before !== undefined) segment.set(before)
    this.#segments[index] = segment
    return segment
  }

  #blockStart(page: number): number {
    return page - (page % this.blockPages)
  }
}

/** The leaves of a table, by id. */
class Leaves {
  readonly entries: (Float64Array | undefined)[]
  /** Pages of each that chunks hold. */
  readonly residentPages: number[]
  bytes: number
  readonly #free: number[] = []

  /** With one leaf, as most tables of one block have it. */
  constructor(leaf: Float64Array, residentPages: number) {
    this.entries = [leaf]
    this.residentPages = [residentPages]
    this.bytes = leavesBytes + bytesOf(leaf)
  }

  add(leaf: Float64Array, residentPages: number): number {
    const id = this.#free.pop() ?? this.entries.length
    this.entries[id] = leaf
    this.residentPages[id] = residentPages
    this.bytes += bytesOf(leaf)
    return id
  }

  /** Says how many are left. */
  drop(id: number): number {
    this.bytes -= bytesOf(this.entries[id])
    this.entries[id] = undefined
    this.#free.push(id)
    return this.entries.length - this.#free.length
  }
}

/** A typed array is two objects more than its numbers. */
const typedArrayBytes = 208
const leavesBytes = 208

function bytesOf(numbers: Float64Array | undefined): number {
  return numbers === undefined ? 0 : numbers.byteLength + typedArrayBytes
}

/** What everybody may ask of a page table; only the resident set changes it. */
export type PageTableReader = Pick<
  PageTable,
  'blockEnd' | 'blockLength' | 'chunkAt' | 'look' | 'skipEmptyBlocks'
> &
  Readonly<
    Pick<
      PageTable,
      | 'blockOrder'
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
const segmentStep = 64
