import { lowestBit } from './bits.ts'

/**
 * A set of small integers that finds its least member in a handful of steps.
 *
 *   level 2   1                                    a bit says: the word below it is not zero
 *   level 1   1 0 1 0 …
 *   level 0   01101… 00000… 10000… 00000… …        a bit says: this number is in the set
 *
 * Levels grow with the largest number ever added; 32 numbers cost 1 word and a thirty-second of the level above.
 */
export class BitTree {
  readonly #levels: Uint32Array[] = [new Uint32Array(1)]
  #inspectedWords = 0

  /** Words read so far by all calls: what a test counts instead of time. */
  get inspectedWords(): number {
    return this.#inspectedWords
  }

  get isEmpty(): boolean {
    return this.#levels[this.#levels.length - 1][0] === 0
  }

  has(member: number): boolean {
    const word = Math.floor(member / 32)
    return word < this.#levels[0].length && (this.#levels[0][word] & (1 << (member % 32))) !== 0
  }

  add(member: number): void {
    this.#growTo(member)
    let index = member
    for (const level of this.#levels) {
      const word = Math.floor(index / 32)
      const before = level[word]
      level[word] = before | (1 << (index % 32))
      this.#inspectedWords++
      if (before !== 0) return
      index = word
    }
  }

  delete(member: number): void {
    if (!this.has(member)) return
    let index = member
    for (const level of this.#levels) {
      const word = Math.floor(index / 32)
      level[word] &= ~(1 << (index % 32))
      this.#inspectedWords++
      if (level[word] !== 0) return
      index = word
    }
  }

  /** The least member, or −1 when the set is empty. */
  least(): number {
    if (this.isEmpty) return -1
    let index = 0
    for (let level = this.#levels.length - 1; level >= 0; level--) {
      index = index * 32 + lowestBit(this.#levels[level][index])
      this.#inspectedWords++
    }
    return index
  }

  #growTo(member: number): void {
    let words = Math.floor(member / 32) + 1
    for (let level = 0; ; level++) {
      const bits = this.#levels[level]
      if (words > bits.length) {
        const larger = new Uint32Array(2 ** Math.ceil(Math.log2(words)))
        larger.set(bits)
        this.#levels[level] = larger
      }
      if (this.#levels[level].length === 1) return
      if (level + 1 === this.#levels.length) {
        this.#levels.push(Uint32Array.of(this.#levels[level][0] === 0 ? 0 : 1))
      }
      words = Math.ceil(this.#levels[level].length / 32)
    }
  }
}
