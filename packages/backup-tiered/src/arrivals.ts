import type { HandleRun } from '@spillway/core'

const blockRuns = 256
const mostRunPages = 1024

/**
 * Pages in the order in which they came to a tier. Pages that have left since stay in it until they are come across: with each block
 * that is filled, two others are swept of runs without any page that is still here. So it has room for about twice the runs that are.
 *
 *   take ◀── block 0 │ block 1 │ … │ block n ◀── add
 */
export class Arrivals {
  readonly #isHere: (run: HandleRun) => boolean
  readonly #blocks: HandleRun[][] = []
  #nextToSweep = 0
  #runs = 0

  /** `isHere`: whether any page of a run is still in the tier. */
  constructor(isHere: (run: HandleRun) => boolean) {
    this.#isHere = isHere
  }

  get isEmpty(): boolean {
    return this.#runs === 0
  }

  get metadataBytes(): number {
    return this.#runs * 56
  }

  add(run: HandleRun): void {
    let block = this.#blocks.at(-1)
    const last = block?.at(-1)
    if (block !== undefined && last !== undefined && isNext(last, run)) {
      block[block.length - 1] = { first: last.first, count: last.count + run.count }
      return
    }
    if (block === undefined || block.length >= blockRuns) {
      block = []
      this.#blocks.push(block)
      this.#sweep()
      this.#sweep()
    }
    block.push(run)
    this.#runs++
  }

  /** Takes at most so many adjacent pages that came first, of which some may have left. Undefined when there are none. */
  take(mostPages: number): HandleRun | undefined {
    const [block] = this.#blocks
    if (block === undefined) return undefined
    const { first, count } = block[0]
    if (count > mostPages) {
      block[0] = { first: first + mostPages, count: count - mostPages }
      return { first, count: mostPages }
    }
    block.shift()
    this.#runs--
    if (block.length === 0) this.#blocks.shift()
    return { first, count }
  }

  /** Looks through one block; what is left of it joins the one before where that has room. */
  #sweep(): void {
    // The last block is still being filled.
    if (this.#nextToSweep >= this.#blocks.length - 1) this.#nextToSweep = 0
    if (this.#blocks.length < 2) return
    const block = this.#blocks[this.#nextToSweep]
    const here = block.filter(this.#isHere)
    this.#runs -= block.length - here.length
    const before = this.#blocks[this.#nextToSweep - 1]
    if (before !== undefined && before.length + here.length <= blockRuns) {
      before.push(...here)
      this.#blocks.splice(this.#nextToSweep, 1)
    } else if (here.length === 0) {
      this.#blocks.splice(this.#nextToSweep, 1)
    } else {
      this.#blocks[this.#nextToSweep++] = here
    }
  }
}

function isNext(last: HandleRun, run: HandleRun): boolean {
  return last.first + last.count === run.first && last.count + run.count <= mostRunPages
}
