/** Text that is put together, piece by piece, in memory that is used again: a string of its length is never made. */
export class TextBuffer {
  readonly #encoding: 'utf8' | 'latin1'
  #memory: Buffer
  #length = 0
  /** What was looked at last; the next text is mostly as long. */
  #view: Buffer

  constructor(encoding: 'utf8' | 'latin1', bytes = 1024) {
    this.#encoding = encoding
    this.#memory = Buffer.allocUnsafeSlow(bytes)
    this.#view = this.#memory
  }

  /** Begins anew with a text. */
  set(text: string): this {
    this.#length = 0
    return this.add(text)
  }

  add(text: string): this {
    // UTF-8 takes three bytes for a unit of UTF-16 at most.
    const most = this.#length + text.length * (this.#encoding === 'utf8' ? 3 : 1)
    if (most > this.#memory.byteLength) this.#grow(most)
    this.#length += this.#memory.write(text, this.#length, this.#encoding)
    return this
  }

  /** The text, good until the next `set` or `add`. */
  get bytes(): Buffer {
    if (this.#view.byteLength !== this.#length) this.#view = this.#memory.subarray(0, this.#length)
    return this.#view
  }

  #grow(bytes: number): void {
    const larger = Buffer.allocUnsafeSlow(Math.max(bytes, 2 * this.#memory.byteLength))
    this.#memory.copy(larger, 0, 0, this.#length)
    this.#memory = larger
    this.#view = larger
  }
}
