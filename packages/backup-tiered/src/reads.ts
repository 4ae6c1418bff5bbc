/**
 * Knows when nobody reads any more what could be read from a tier at a given moment: reads are counted by the epoch in which they began.
 */
export class Reads {
  #epoch = 0
  readonly #counts = new Map<number, number>()
  #waiting: { readonly epoch: number; readonly resolve: () => void }[] = []

  /** A read begins; give what this returns to `leave`. */
  enter(): number {
    this.#counts.set(this.#epoch, (this.#counts.get(this.#epoch) ?? 0) + 1)
    return this.#epoch
  }

  leave(epoch: number): void {
    const left = this.#counts.get(epoch)! - 1
    if (left > 0) {
      this.#counts.set(epoch, left)
      return
    }
    this.#counts.delete(epoch)
    if (this.#waiting.length === 0) return
    const oldest = Math.min(...this.#counts.keys())
    const over = this.#waiting.filter((waiting) => waiting.epoch < oldest)
    this.#waiting = this.#waiting.filter((waiting) => waiting.epoch >= oldest)
    for (const { resolve } of over) resolve()
  }

  /** Resolves when all reads that have begun are over. */
  over(): Promise<void> {
    if (this.#counts.size === 0) return Promise.resolve()
    const epoch = this.#epoch++
    return new Promise((resolve) => this.#waiting.push({ epoch, resolve }))
  }
}
