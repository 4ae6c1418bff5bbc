import type { Chunks } from '../table/chunks.ts'

/**
 * What running calls hold while they wait for something: they let go by themselves, and so differ from pins of the application.
 * The one claim that waits for memory and holds on to what is resident of its range can be told to let go of that; it looks
 * again when it is served.
 */
export class OperationHolds {
  readonly #chunks: Chunks
  readonly #held = new Set<readonly number[]>()
  readonly #letGo = new Map<readonly number[], () => void>()

  constructor(chunks: Chunks) {
    this.#chunks = chunks
  }

  /** A call holds these chunks, and those that are added, until `end`. */
  begin(held: readonly number[]): void {
    this.#held.add(held)
  }

  /** The call is over, or what it holds is the application's from now on. */
  end(held: readonly number[]): void {
    if (this.#held.size > 0) this.#held.delete(held)
  }

  /** While a claim waits, `letGo` releases what it holds. */
  waits(held: readonly number[], letGo: () => void): void {
    this.#letGo.set(held, letGo)
  }

  goesOn(held: readonly number[]): void {
    this.#letGo.delete(held)
  }

  /** Has claims that wait let go of a chunk; says whether one did. */
  release(chunk: number): boolean {
    for (const [held, letGo] of this.#letGo) {
      if (!held.includes(chunk)) continue
      letGo()
      return true
    }
    return false
  }

  /** Whether the application has pinned a chunk, whoever else holds it. */
  isPinnedByApplication(chunk: number): boolean {
    let operations = 0
    for (const held of this.#held) if (held.includes(chunk)) operations++
    return this.#chunks.pinsOf(chunk) > operations
  }
}
