import { mix32 } from '../random.ts'

/** Words made from one number, all of them different: a block of this size never repeats within itself. */
export const patternBlockBytes = 4096
const blockWords = patternBlockBytes / 4

/**
 * What a large buffer holds: every 4 KiB are words made from the seed and the place, so that a page of another place, an old
 * one or zeros cannot pass for the right one, and nothing of the content has to be kept to check it.
 */
export class Pattern {
  readonly #seed: number
  readonly #expected: Uint8Array

  /** @param mostBytes the longest piece that is ever checked */
  constructor(seed: number, mostBytes: number) {
    this.#seed = mix32(seed)
    this.#expected = new Uint8Array(mostBytes + 2 * patternBlockBytes)
  }

  /** Writes what a range must hold; `offsetBytes` and the length are multiples of 4 KiB. */
  write(offsetBytes: number, memory: Uint8Array): void {
    const words = new Uint32Array(memory.buffer, memory.byteOffset, memory.byteLength / 4)
    const firstBlock = offsetBytes / patternBlockBytes
    for (let start = 0; start < words.length; start += blockWords) {
      const block = firstBlock + start / blockWords
      // A product of 2^32 and more would lose low bits: the block's number is below 2^32 for 16 TiB.
      let word = mix32(this.#seed ^ Math.imul(block + 1, 0x9e3779b1))
      for (let index = start; index < start + blockWords; index++) {
        words[index] = word
        word = (Math.imul(word, 0x01000193) + 0x3c6ef35f) | 0
      }
    }
  }

  /** How many bytes of a range, which may begin and end anywhere, are not what they must be. */
  countWrong(offsetBytes: number, memory: Uint8Array): number {
    const skipped = offsetBytes % patternBlockBytes
    const blocks = Math.ceil((skipped + memory.byteLength) / patternBlockBytes)
    this.write(offsetBytes - skipped, this.#expected.subarray(0, blocks * patternBlockBytes))
    const expected = this.#expected.subarray(skipped, skipped + memory.byteLength)
    // One comparison of native code for what is right; bytes are looked at only where one is wrong.
    if (Buffer.compare(memory, expected) === 0) return 0
    let wrong = 0
    for (let index = 0; index < memory.byteLength; index++) if (memory[index] !== expected[index]) wrong++
    return wrong
  }
}
