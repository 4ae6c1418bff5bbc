import { afterInput } from '@spillway/core'
/**
 * Hands out the event loop's time to copies and checksums. Many requests may complete in one turn of the loop, and the
 * work that follows each would add up: so each turn has a budget in bytes, and work beyond it waits for the next, in
 * the order of arrival.
 */
export class WorkSlices {
  readonly #budgetBytes: number
  readonly #waiting: { bytes: number; start: () => void }[] = []
  #spentBytes = 0
  #scheduled = false

  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes
  }

  /** `undefined`: go on at once. Otherwise a promise for the moment when these bytes may be worked on. */
  enter(bytes: number): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#fits(bytes)) {
      this.#spentBytes += bytes
      // Little work may be counted over several turns: that saves the loop a round for each small page.
      if (this.#spentBytes > this.#budgetBytes / 8) this.#schedule()
      return undefined
    }
    this.#schedule()
    return new Promise((start) => this.#waiting.push({ bytes, start }))
  }

  /** As `enter`, but never at once: what was asked of the ring before gets on its way first. */
  enterLater(bytes: number): Promise<void> {
    this.#schedule()
    return new Promise((start) => this.#waiting.push({ bytes, start }))
  }

  #fits(bytes: number): boolean {
    return this.#spentBytes === 0 || this.#spentBytes + bytes <= this.#budgetBytes
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    afterInput(() => this.#nextTurn())
  }

  #nextTurn(): void {
    this.#scheduled = false
    this.#spentBytes = 0
    while (this.#waiting.length > 0 && this.#fits(this.#waiting[0].bytes)) {
      const { bytes, start } = this.#waiting.shift()!
      this.#spentBytes += bytes
      start()
    }
    if (this.#spentBytes > 0) this.#schedule()
  }
}

/** One budget for the process, since there is one event loop: about half a millisecond of checksums. */
export const workSlices = new WorkSlices(2 * 1024 * 1024)
