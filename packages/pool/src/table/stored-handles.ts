/** `kept` of a chunk whose stored pages have handles that are not adjacent: they are in `pages`. */
export const scattered = -1

/**
 * Under which handles the pages of chunks in memory are stored as well, 8 bytes a chunk: in segments that come into being
 * with the first such chunk of theirs, so that a pool which stores nothing pays nothing.
 */
export class StoredHandles {
  /** By chunk, where handles are `scattered`: the handle of each page, 0 for a page of zeros that was never stored. */
  readonly pages = new Map<number, Float64Array>()
  readonly #segments: (Float64Array | undefined)[] = []
  #segmentBytes = 0
  /** Pages of chunks whose handles are adjacent. */
  #adjacentPages = 0

  get metadataBytes(): number {
    let bytes = this.#segmentBytes
    for (const handles of this.pages.values()) bytes += handles.byteLength
    return bytes
  }

  /** The first handle of a chunk's pages; 0 when none is stored, or `scattered`. */
  of(chunk: number): number {
    const segment = this.#segments[chunk >>> segmentBits]
    return segment === undefined ? 0 : segment[chunk & inSegment]!
  }

  /** Changes it, for a chunk of so many pages. */
  set(chunk: number, handle: number, pageCount: number): void {
    const index = chunk >>> segmentBits
    let segment = this.#segments[index]
    if (segment === undefined) {
      if (handle === 0) return
      segment = new Float64Array(segmentChunks)
      while (this.#segments.length <= index) this.#segments.push(undefined)
      this.#segments[index] = segment
      this.#segmentBytes += segment.byteLength
    }
    if (segment[chunk & inSegment]! > 0) this.#adjacentPages -= pageCount
    if (handle > 0) this.#adjacentPages += pageCount
    segment[chunk & inSegment] = handle
  }

  /** Stored pages of all chunks. */
  countPages(): number {
    let count = this.#adjacentPages
    for (const handles of this.pages.values()) for (const handle of handles) if (handle !== 0) count++
    return count
  }
}

const segmentBits = 9
const segmentChunks = 1 << segmentBits
const inSegment = segmentChunks - 1
