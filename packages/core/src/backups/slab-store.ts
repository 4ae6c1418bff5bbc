import type { SpanCursor } from '../spans.ts'

const largestSlabBytes = 2 * 2 ** 20

interface Slab {
  readonly memory: Uint8Array
  usedPages: number
}

/** Copies between a slab, from `position` on, and `length` bytes of a span. */
type SlabCopy = (slab: Uint8Array, position: number, span: Uint8Array, start: number, length: number) => void

/**
 * Numbered pages in slabs of 2 MiB, or of all pages where these are fewer; a slab whose last page is freed is given to the
 * garbage collector.
 */
export class SlabStore {
  readonly #pageSizeBytes: number
  readonly #slabPages: number
  readonly #slabBytes: number
  readonly #slabs = new Map<number, Slab>()

  /** `capacityPages`: how many pages there are at most. */
  constructor(pageSizeBytes: number, capacityPages: number) {
    this.#pageSizeBytes = pageSizeBytes
    this.#slabPages = Math.min(largestSlabBytes / pageSizeBytes, capacityPages)
    this.#slabBytes = this.#slabPages * pageSizeBytes
  }

  /** Bytes of all slabs. */
  get bytes(): number {
    return this.#slabs.size * this.#slabBytes
  }

  /** What filling `count` pages from `page` on costs: their bytes, and those of slabs that are to be made for them. */
  workBytes(page: number, count: number): number {
    let bytes = count * this.#pageSizeBytes
    this.#eachPart(page, count, (number) => {
      if (!this.#slabs.has(number)) bytes += this.#slabBytes
    })
    return bytes
  }

  /** Fills `count` pages from `page` on, each of them free before. Throws `EFAULT`, and they are free again. */
  write(page: number, count: number, source: SpanCursor): void {
    this.#eachPart(page, count, (number, _, length) => this.#use(number, length))
    try {
      this.#move(page, count, source, (slab, position, span, start, length) => {
        slab.set(
          start === 0 && length === span.byteLength ? span : span.subarray(start, start + length),
          position,
        )
      })
    } catch (failure) {
      this.free(page, count)
      throw failure
    }
  }

  /** Copies `count` pages from `page` on, each of them written before. Throws `EFAULT` when the target is gone. */
  read(page: number, count: number, target: SpanCursor): void {
    this.#move(page, count, target, (slab, position, span, start, length) => {
      span.set(slab.subarray(position, position + length), start)
    })
  }

  /** Fills `span` with its number of pages from `page` on, each of them written before. */
  readInto(span: Uint8Array, page: number): void {
    let done = 0
    while (done < span.byteLength) {
      const at = page + done / this.#pageSizeBytes
      const { memory } = this.#slabs.get(Math.floor(at / this.#slabPages))!
      const position = (at % this.#slabPages) * this.#pageSizeBytes
      const length = Math.min(span.byteLength - done, this.#slabBytes - position)
      span.set(memory.subarray(position, position + length), done)
      done += length
    }
  }

  /** Frees `count` pages from `page` on, each of them written before. */
  free(page: number, count: number): void {
    this.#eachPart(page, count, (number, _, length) => {
      const slab = this.#slabs.get(number)!
      slab.usedPages -= length
      if (slab.usedPages === 0) this.#slabs.delete(number)
    })
  }

  clear(): void {
    this.#slabs.clear()
  }

  #use(number: number, pages: number): void {
    let slab = this.#slabs.get(number)
    if (slab === undefined) {
      slab = { memory: new Uint8Array(this.#slabBytes), usedPages: 0 }
      this.#slabs.set(number, slab)
    }
    slab.usedPages += pages
  }

  #move(page: number, count: number, spans: SpanCursor, copy: SlabCopy): void {
    this.#eachPart(page, count, (number, offset, length) => {
      const slab = this.#slabs.get(number)!.memory
      const position = offset * this.#pageSizeBytes
      spans.each(length * this.#pageSizeBytes, (span, start, bytes, done) => {
        copy(slab, position + done, span, start, bytes)
      })
    })
  }

  #eachPart(
    page: number,
    count: number,
    visit: (slab: number, offset: number, length: number) => void,
  ): void {
    let at = page
    while (at < page + count) {
      const offset = at % this.#slabPages
      const length = Math.min(this.#slabPages - offset, page + count - at)
      visit(Math.floor(at / this.#slabPages), offset, length)
      at += length
    }
  }
}
