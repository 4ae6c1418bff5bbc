/** Entries in a row, in an array that is used as a ring: 8 bytes each. */
export class ChunkQueue {
  #entries = new Float64Array(leastLength)
  #first = 0
  length = 0

  get metadataBytes(): number {
    return this.#entries.byteLength
  }

  /** Adds an entry behind all others. */
  push(entry: number): void {
    if (this.length === this.#entries.length) this.#grow()
    this.#entries[(this.#first + this.length++) & (this.#entries.length - 1)] = entry
  }

  /** Adds an entry before all others. */
  unshift(entry: number): void {
    if (this.length === this.#entries.length) this.#grow()
    this.#first = (this.#first - 1) & (this.#entries.length - 1)
    this.#entries[this.#first] = entry
    this.length++
  }

  /** Takes the first entry; there is one. */
  shift(): number {
    const entry = this.#entries[this.#first]!
    this.#first = (this.#first + 1) & (this.#entries.length - 1)
    if (--this.length === 0 && this.#entries.length > mostIdleLength)
      this.#entries = new Float64Array(leastLength)
    return entry
  }

  #grow(): void {
    const entries = new Float64Array(this.#entries.length * 2)
    for (let index = 0; index < this.length; index++)
      entries[index] = this.#entries[(this.#first + index) & (this.#entries.length - 1)]!
    this.#entries = entries
    this.#first = 0
  }
}

/** A power of two, like all lengths. */
const leastLength = 16
const mostIdleLength = 4096
