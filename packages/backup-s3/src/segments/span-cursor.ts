/** Cuts spans into pieces, in order. */
export class SpanCursor {
  readonly #spans: readonly Uint8Array[]
  #span = 0
  #offset = 0

  constructor(spans: readonly Uint8Array[]) {
    this.#spans = spans
  }

  take(bytes: number): Uint8Array[] {
    const pieces: Uint8Array[] = []
    for (let left = bytes; left > 0; ) {
      const span = this.#spans[this.#span]
      const piece = span.subarray(this.#offset, Math.min(this.#offset + left, span.byteLength))
      pieces.push(piece)
      left -= piece.byteLength
      this.#offset += piece.byteLength
      if (this.#offset === span.byteLength) {
        this.#span++
        this.#offset = 0
      }
    }
    return pieces
  }
}
