/** Pages that are remembered as read once. */
const mostRemembered = 2 ** 16

/** Tells which pages are read a second time, within the next 65 536 to 131 072 that are read for the first. */
export class SecondReads {
  #recent = new Set<number>()
  #older = new Set<number>()

  /** Whether a page that is read now was read before. It is then forgotten. */
  isSecond(page: number): boolean {
    if (this.#recent.delete(page) || this.#older.delete(page)) return true
    if (this.#recent.size >= mostRemembered) {
      this.#older = this.#recent
      this.#recent = new Set()
    }
    this.#recent.add(page)
    return false
  }
}
