/**
 * Whose turn it is of several that measure: one at a time, in the order in which they asked. Who asks again after each round so takes
 * turns with the others, and what the machine does meanwhile concerns all of them alike.
 */
export class Turns {
  #last: Promise<void> = Promise.resolve()

  /** Resolves when it is this one's turn, with what ends the turn. */
  async take(): Promise<() => void> {
    const before = this.#last
    let end = () => {}
    this.#last = new Promise((resolve) => {
      end = resolve
    })
    await before
    return end
  }
}
