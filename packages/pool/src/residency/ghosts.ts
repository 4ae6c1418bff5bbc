/** What is remembered of a chunk: when it was last used, and how often it is. */
export interface Remembered {
  /** Of the last use; only its low ten bits are kept. */
  generation: number
  interval: number
  uses: number
}

/**
 * Remembers chunks that were evicted, 4 bytes each, in a table of sets: a new one takes the place of the oldest of its set.
 *
 *   entry   tag (14 bits) · uses (2) · interval (6, quarters of an octave) · generation (10)
 *
 * The tag is a part of a hash of buffer and page, so once in two thousand times a chunk passes for another that was evicted:
 * a guess is wrong then, and nothing else.
 */
export class Ghosts {
  #entries = new Uint32Array(0)
  #sets = 0
  /** What `take` found. */
  readonly found: Remembered = { generation: 0, interval: 0, uses: 0 }

  get metadataBytes(): number {
    return this.#entries.byteLength
  }

  /** Has room for so many chunks from now on, or more; forgets all where it grows. */
  grow(count: number): void {
    if (count <= this.#entries.length) return
    this.#sets = Math.ceil(count / ways)
    this.#entries = new Uint32Array(this.#sets * ways)
  }

  /** Remembers a chunk of a buffer by its first page. */
  remember(buffer: number, firstPage: number, { generation, interval, uses }: Remembered): void {
    if (this.#sets === 0) return
    const hash = hashOf(buffer, firstPage)
    const first = this.#setOf(hash)
    let [place, oldest] = [first, -1]
    for (let at = first; at < first + ways; at++) {
      const entry = this.#entries[at]!
      const age = entry === 0 ? generationMask + 1 : (generation - entry) & generationMask
      if (age <= oldest) continue
      oldest = age
      place = at
    }
    this.#entries[place] =
      (tagOf(hash) << tagShift) |
      (Math.min(uses, usesMask) << usesShift) |
      ((interval >>> 2) << intervalShift) |
      (generation & generationMask)
  }

  /** Finds a chunk and forgets it. What was known of it is in `found`; its last use is taken to be 1023 generations ago at most. */
  take(buffer: number, firstPage: number, now: number): boolean {
    if (this.#sets === 0) return false
    const hash = hashOf(buffer, firstPage)
    const first = this.#setOf(hash)
    const tag = tagOf(hash)
    for (let at = first; at < first + ways; at++) {
      const entry = this.#entries[at]!
      if (entry >>> tagShift !== tag) continue
      this.#entries[at] = 0
      this.found.generation = now - ((now - entry) & generationMask)
      this.found.interval = ((entry >>> intervalShift) & intervalMask) << 2
      this.found.uses = (entry >>> usesShift) & usesMask
      return true
    }
    return false
  }

  /** Its first entry. From the high bits of a hash; the tag is its low ones. */
  #setOf(hash: number): number {
    return Math.floor((hash / 2 ** 32) * this.#sets) * ways
  }
}

const ways = 8
const generationMask = 1023
const intervalShift = 10
const intervalMask = 63
const usesShift = 16
const usesMask = 3
const tagShift = 18

function hashOf(buffer: number, firstPage: number): number {
  let hash = Math.imul(buffer, 0x9e3779b1) ^ Math.imul(firstPage, 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 16), 0x21f0aaad)
  hash = Math.imul(hash ^ (hash >>> 15), 0x735a2d97)
  return (hash ^ (hash >>> 15)) >>> 0
}

/** Never 0: an entry that is 0 is none. */
function tagOf(hash: number): number {
  return hash & 0x3fff || 1
}
