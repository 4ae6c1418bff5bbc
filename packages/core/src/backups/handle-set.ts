import { firstClearBit, setBits } from '../slots/bits.ts'

const blockHandles = 2 ** 15

interface Block {
  live: number
  /** One bit per handle; absent while all of them are live. */
  bits: Uint32Array | undefined
}

/**
 * A set of handles that are given out in rising order and never again: whole blocks of 32,768 live handles cost one
 * map entry, broken ones a bit per handle, and blocks that are wholly dropped nothing.
 */
export class HandleSet {
  readonly #blocks = new Map<number, Block>()

  add(first: number, count: number): void {
    this.#eachPart(first, count, (number, offset, length) => {
      let block = this.#blocks.get(number)
      if (block === undefined) {
        block = { live: 0, bits: length === blockHandles ? undefined : new Uint32Array(blockHandles / 32) }
        this.#blocks.set(number, block)
      }
      block.live += length
      if (block.live === blockHandles) block.bits = undefined
      else if (block.bits !== undefined) setBits(block.bits, offset, length, true)
    })
  }

  /** Removes these handles, all of which are in the set. */
  delete(first: number, count: number): void {
    this.#eachPart(first, count, (number, offset, length) => {
      const block = this.#blocks.get(number)!
      block.live -= length
      if (block.live === 0) {
        this.#blocks.delete(number)
        return
      }
      block.bits ??= new Uint32Array(blockHandles / 32).fill(0xffffffff)
      setBits(block.bits, offset, length, false)
    })
  }

  /** The first of these handles that is not in the set, or `undefined`. */
  firstMissing(first: number, count: number): number | undefined {
    let missing: number | undefined
    this.#eachPart(first, count, (number, offset, length) => {
      if (missing !== undefined) return
      const block = this.#blocks.get(number)
      if (block === undefined) missing = number * blockHandles + offset
      else if (block.bits !== undefined) {
        const clear = firstClearBit(block.bits, offset, length)
        if (clear >= 0) missing = number * blockHandles + clear
      }
    })
    return missing
  }

  clear(): void {
    this.#blocks.clear()
  }

  #eachPart(
    first: number,
    count: number,
    visit: (block: number, offset: number, length: number) => void,
  ): void {
    let at = first
    while (at < first + count) {
      const number = Math.floor(at / blockHandles)
      const offset = at - number * blockHandles
      const length = Math.min(blockHandles - offset, first + count - at)
      visit(number, offset, length)
      at += length
    }
  }
}
