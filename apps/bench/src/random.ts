/** A small seeded generator (splitmix32): the same seed gives the same run on every machine. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** An integer from 0 to 2^32 − 1. */
  nextInteger(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0
    return mix32(this.#state)
  }

  /** A number from 0 to 1, 1 excluded. */
  next(): number {
    return this.nextInteger() / 2 ** 32
  }

  /** An integer from 0 to `count` − 1. */
  below(count: number): number {
    return Math.floor(this.next() * count)
  }
}

/** Scrambles 32 bits so that neighbours become strangers. */
export function mix32(value: number): number {
  let mixed = value >>> 0
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad)
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
  return (mixed ^ (mixed >>> 15)) >>> 0
}

/** The integers from 0 to `count` − 1 in random order. */
export function shuffledIndexes(count: number, random: Random): Uint32Array {
  const indexes = Uint32Array.from({ length: count }, (_, index) => index)
  for (let last = count - 1; last > 0; last--) {
    const other = random.below(last + 1)
    const held = indexes[last]
    indexes[last] = indexes[other]
    indexes[other] = held
  }
  return indexes
}

/**
 * Draws ranks from 0 to `count` − 1 with probability proportional to 1 / (rank + 1)^skew, by binary search in the
 * cumulative table.
 */
export class ZipfRanks {
  readonly #cumulative: Float64Array

  constructor(count: number, skew: number) {
    this.#cumulative = new Float64Array(count)
    let total = 0
    for (let rank = 0; rank < count; rank++) {
      total += (rank + 1) ** -skew
      this.#cumulative[rank] = total
    }
  }

  draw(random: Random): number {
    const wanted = random.next() * this.#cumulative[this.#cumulative.length - 1]
    let low = 0
    let high = this.#cumulative.length - 1
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#cumulative[middle] < wanted) low = middle + 1
      else high = middle
    }
    return low
  }
}
