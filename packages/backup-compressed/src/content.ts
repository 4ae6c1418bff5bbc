import { Buffer } from 'node:buffer'

const wordBytes = 8

/** Whether a page is one 8-byte word all over. */
export function isSameFilled(page: Uint8Array): boolean {
  const last = page.byteLength - 1
  // Nearly all others are found here.
  if (page[0] !== page[wordBytes] || page[last] !== page[last - wordBytes]) return false
  return Buffer.compare(page.subarray(wordBytes), page.subarray(0, page.byteLength - wordBytes)) === 0
}

/** The word that a same-filled page begins with. */
export function wordOf(page: Uint8Array): bigint {
  return new DataView(page.buffer, page.byteOffset, wordBytes).getBigUint64(0)
}

/** Fills a page with a word. */
export function fillWith(page: Uint8Array, word: bigint): void {
  const low = Number(word & 0xffn)
  if (word === BigInt(low) * 0x0101010101010101n) {
    page.fill(low)
    return
  }
  new DataView(page.buffer, page.byteOffset, wordBytes).setBigUint64(0, word)
  for (let done = wordBytes; done < page.byteLength; done *= 2) page.copyWithin(done, 0, done)
}

const samples = 1024
/** Odd, so that records of a regular length are not always looked at in the same field. */
const strideBytes = 61
const counts = new Uint16Array(256)
/** Sum of the squares of the counts: 5116 for random bytes, give or take 90; 8180 for random bytes of seven bits. */
const mostWhenRandom = 5900

/**
 * Whether a unit looks as if it could not be compressed, by how often each byte is among a thousand of it: a microsecond instead of the
 * hundred that compressing in vain takes. What repeats itself with each byte as often as the others looks so, too.
 */
export function looksRandom(pages: readonly Uint8Array[]): boolean {
  counts.fill(0)
  const each = Math.max(1, Math.floor(samples / pages.length))
  for (const page of pages) {
    const stride = Math.min(strideBytes, Math.floor(page.byteLength / each) - 1) | 1
    for (let sample = 0; sample < each; sample++) counts[page[sample * stride]]++
  }
  let squares = 0
  for (const count of counts) squares += count * count
  const taken = each * pages.length
  return squares * (samples / taken) ** 2 < mostWhenRandom
}

const longestInterval = 64

/** Decides which units that look random are tried all the same: all of them at first, and fewer with each that was tried in vain. */
export class Trials {
  #interval = 1
  #passedBy = 0

  isDue(): boolean {
    this.#passedBy++
    if (this.#passedBy < this.#interval) return false
    this.#passedBy = 0
    return true
  }

  /** How a trial ended. */
  ended(hasShrunk: boolean): void {
    this.#interval = hasShrunk ? 1 : Math.min(longestInterval, this.#interval * 2)
  }
}
