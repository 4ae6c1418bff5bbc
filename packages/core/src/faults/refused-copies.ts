import type { DrawnFault } from './fault-source.ts'

/** What was drawn for a call, and which call of its method it was for, from 1. */
export interface Drawn {
  readonly fault: DrawnFault | undefined
  readonly call: number
}

/** Beyond so many, those whose `copyPages` never came are forgotten, oldest first. */
const mostRemembered = 1024

/** Draws of copies that could not be started, kept by the first handle for the `copyPages` that follows. */
export class RefusedCopies {
  readonly #draws = new Map<number, Drawn>()

  put(firstHandle: number, drawn: Drawn): void {
    this.#draws.delete(firstHandle)
    this.#draws.set(firstHandle, drawn)
    if (this.#draws.size <= mostRemembered) return
    const [oldest] = this.#draws.keys()
    this.#draws.delete(oldest)
  }

  /** Takes out what was drawn for a copy that begins with this handle. */
  take(firstHandle: number | undefined): Drawn | undefined {
    if (firstHandle === undefined) return undefined
    const drawn = this.#draws.get(firstHandle)
    if (drawn !== undefined) this.#draws.delete(firstHandle)
    return drawn
  }
}
