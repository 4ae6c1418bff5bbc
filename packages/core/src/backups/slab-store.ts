import type { SpanCursor } from '../spans.ts'

const slabBytes = 2 * 2 ** 20

interface Slab {
  readonly memory: Uint8Array
  usedPages: number
}

/** Numbered pages in slabs of 2 MiB; a slab whose last page is freed is given to the garbage collector. */
export class SlabStore {
  readonly #pageSizeBytes: number
  readonly #slabPages: number
  readonly #slabs = new Map<number, Slab>()

  constructor(pageSizeBytes: number) {
    this.#pageSizeBytes = pageSizeBytes
    this.#slabPages = slabBytes / pageSizeBytes
  }

  /** Bytes of all slabs. */
  get bytes(): number {
    return this.#slabs.size * slabBytes
  }

  /** Fills `count` pages from `page` on, each of them free before. */
  write(page: number, count: number, source: SpanCursor): void {
    this.#eachPart(page, count, (number, offset, length) => {
      let slab = this.#slabs.get(number)
      if (slab === undefined) {
        slab = { memory: new Uint8Array(slabBytes), usedPages: 0 }
        this.#slabs.set(number, slab)
      }
      slab.usedPages += length
      let position = offset * this.#pageSizeBytes
      const end = position + length * this.#pageSizeBytes
      while (position < end) {
        const piece = source.next(end - position)
        slab.memory.set(piece, position)
        position += piece.byteLength
      }
    })
  }

  /** Copies `count` pages from `page` on, each of them written before. */
  read(page: number, count: number, target: SpanCursor): void {
    this.#eachPart(page, count, (number, offset, length) => {
      const { memory } = this.#slabs.get(number)!
      let position = offset * this.#pageSizeBytes
      const end = position + length * this.#pageSizeBytes
      while (position < end) {
        const piece = target.next(end - position)
        piece.set(memory.subarray(position, position + piece.byteLength))
        position += piece.byteLength
      }
    })
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
