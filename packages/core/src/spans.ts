import { SpillwayError } from './errors.ts'

/** Moves `lengthBytes` from `startBytes` of a span on; `doneBytes` were moved before, by the same call. */
export type SpanVisit = (span: Uint8Array, startBytes: number, lengthBytes: number, doneBytes: number) => void

/**
 * Walks over spans as if they were one piece of memory, from the first byte on. Each step throws `EFAULT` when the memory is
 * gone: whoever gave the spans detached or shrank it during the call.
 */
export class SpanCursor {
  readonly #spans: readonly Uint8Array[]
  #index = 0
  #offset = 0

  constructor(spans: readonly Uint8Array[]) {
    this.#spans = spans
  }

  /**
   * Visits the next `bytes` bytes span by span, without a view of each. When `visit` throws, they are next again.
   */
  each(bytes: number, visit: SpanVisit): void {
    const index = this.#index
    const offset = this.#offset
    try {
      for (let done = 0; done < bytes; ) {
        const span = this.#spans[this.#index]
        const start = this.#offset
        const length = this.#advance(bytes - done)
        visit(span, start, length, done)
        done += length
      }
    } catch (failure) {
      this.#index = index
      this.#offset = offset
      throw failure
    }
  }

  /** The next piece of at most `bytes` bytes that lies in one span. */
  next(bytes: number): Uint8Array {
    const span = this.#spans[this.#index]
    const start = this.#offset
    const length = this.#advance(bytes)
    return length === span.byteLength ? span : span.subarray(start, start + length)
  }

  /** The next `bytes` bytes, as pieces of spans in order. */
  take(bytes: number): Uint8Array[] {
    if (bytes === 0) return []
    // A list that begins with its first item has room for one, and not for seventeen.
    const pieces = [this.next(bytes)]
    for (let left = bytes - pieces[0].byteLength; left > 0; ) {
      const piece = this.next(left)
      pieces.push(piece)
      left -= piece.byteLength
    }
    return pieces
  }

  /** Goes on within one span by at most `bytes`; returns by how many. */
  #advance(bytes: number): number {
    const span = this.#spans[this.#index]
    const left = span === undefined ? 0 : span.byteLength - this.#offset
    if (left <= 0) throw new SpillwayError('EFAULT', 'the memory was detached or resized during the call')
    const length = Math.min(left, bytes)
    this.#offset += length
    if (this.#offset === span.byteLength) {
      this.#index++
      this.#offset = 0
    }
    return length
  }
}

/** The pages of the spans one by one, in order: for backends whose medium takes single pages. */
export function splitIntoPages(spans: readonly Uint8Array[], pageSizeBytes: number): Uint8Array[] {
  const pages: Uint8Array[] = []
  for (const span of spans) {
    for (let offset = 0; offset < span.byteLength; offset += pageSizeBytes) {
      pages.push(span.subarray(offset, offset + pageSizeBytes))
    }
  }
  return pages
}
