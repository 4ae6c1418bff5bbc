/**
 * Notices thrashing: much of what is restored was evicted a moment ago (refaults), and would have stayed with twice the
 * memory. Judged anew whenever half as many pages as the limit were evicted.
 */
export class Refaults {
  #evicted = 0
  #restored = 0
  #refaulted = 0
  #thrashing = false

  /** Whether more than half of what is restored are refaults. */
  get thrashing(): boolean {
    return this.#thrashing
  }

  noteEviction(pages: number): void {
    this.#evicted += pages
  }

  noteRestore(pages: number, isRefault: boolean, limitPages: number): void {
    this.#restored += pages
    if (isRefault) this.#refaulted += pages
    if (this.#evicted >= limitPages / 2) this.#judge()
  }

  #judge(): void {
    this.#thrashing = this.#refaulted * 2 > this.#restored
    this.#evicted = 0
    this.#restored = 0
    this.#refaulted = 0
  }
}
