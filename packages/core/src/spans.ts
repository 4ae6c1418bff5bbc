/** Walks over spans as if they were one piece of memory. */
export class SpanCursor {
  readonly #spans: readonly Uint8Array[]
  #index = 0
  #offset = 0

  constructor(spans: readonly Uint8Array[]) {
    this.#spans = spans
  }

  /** The next piece of at most `bytes` bytes that lies in one span; the spans hold at least one more byte. */
  next(bytes: number): Uint8Array {
    const span = this.#spans[this.#index]
    const piece = span.subarray(this.#offset, Math.min(span.byteLength, this.#offset + bytes))
    this.#offset += piece.byteLength
    if (this.#offset === span.byteLength) {
      this.#index++
      this.#offset = 0
    }
    return piece
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
