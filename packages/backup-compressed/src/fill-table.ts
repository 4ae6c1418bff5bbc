import { RunMap } from '@spillway/core'

/**
 * Same-filled pages by number, each with its word. Neighbours with the same word cost together what one costs: their
 * targets, `word × 2^32 + number mod 2^32`, rise with their numbers.
 */
export class FillTable {
  readonly #runs = new RunMap()
  readonly #ids = new Map<bigint, number>()
  readonly #words: bigint[] = []
  readonly #counts: number[] = []
  readonly #unused: number[] = []
  #pages = 0

  get pages(): number {
    return this.#pages
  }

  get metadataBytes(): number {
    return this.#runs.metadataBytes + this.#words.length * 100
  }

  /** False when there are too many different words already. */
  set(number: number, word: bigint): boolean {
    let id = this.#ids.get(word)
    if (id === undefined) {
      if (this.#ids.size >= mostWords) return false
      id = this.#unused.pop() ?? this.#words.length
      this.#ids.set(word, id)
      this.#words[id] = word
      this.#counts[id] = 0
    }
    this.#runs.set(number, 1, id * stride + (number % stride))
    this.#counts[id]++
    this.#pages++
    return true
  }

  /** The word of a page, or `undefined` when it is not same-filled. */
  wordOf(number: number): bigint | undefined {
    const target = this.#runs.targetOf(number)
    return target === undefined ? undefined : this.#words[Math.floor(target / stride)]
  }

  delete(number: number): void {
    const target = this.#runs.targetOf(number)
    if (target === undefined) return
    this.#runs.delete(number, 1)
    this.#pages--
    const id = Math.floor(target / stride)
    if (--this.#counts[id] > 0) return
    this.#ids.delete(this.#words[id])
    this.#unused.push(id)
  }
}

const stride = 2 ** 32
const mostWords = 2 ** 16
