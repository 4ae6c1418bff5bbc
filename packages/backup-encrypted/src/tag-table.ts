import { tagBytes } from './page-cipher.ts'

/**
 * The tags of live pages, by number, in blocks of 512:
 *
 *   whole    places for all 512: 16 bytes for each page, and 0.6 for the block
 *   packed   once less than a quarter is live: only the tags that are, with their places in order
 */
export class TagTable {
  readonly #blocks = new Map<number, Block>()
  #bytes = 0

  get metadataBytes(): number {
    return this.#bytes
  }

  set(number: number, tag: Uint8Array): void {
    const index = Math.floor(number / blockTags)
    const offset = number % blockTags
    let block = this.#blocks.get(index)
    if (block === undefined) block = this.#put(index, wholeBlock())
    else if (block.places !== undefined) block = this.#put(index, unpacked(block))
    block.tags.set(tag, offset * tagBytes)
    if (isLive(block, offset)) return
    block.live[offset >>> 5] |= 1 << (offset & 31)
    block.count++
  }

  /** Puts the tag of a number into `tag`; false when it has none. */
  read(number: number, tag: Uint8Array): boolean {
    const block = this.#blocks.get(Math.floor(number / blockTags))
    const offset = number % blockTags
    if (block === undefined || !isLive(block, offset)) return false
    const place = block.places === undefined ? offset : placeOf(block.places, offset)
    for (let at = 0; at < tagBytes; at++) tag[at] = block.tags[place * tagBytes + at]
    return true
  }

  delete(first: number, count: number): void {
    for (let number = first; number < first + count; number++) this.#deleteOne(number)
  }

  clear(): void {
    this.#blocks.clear()
    this.#bytes = 0
  }

  #deleteOne(number: number): void {
    const index = Math.floor(number / blockTags)
    const block = this.#blocks.get(index)
    const offset = number % blockTags
    if (block === undefined || !isLive(block, offset)) return
    block.live[offset >>> 5] &= ~(1 << (offset & 31))
    block.count--
    if (block.count === 0) {
      this.#bytes -= bytesOf(block)
      this.#blocks.delete(index)
    } else if (block.count * 4 <= block.tags.byteLength / tagBytes) {
      this.#put(index, packed(block))
    }
  }

  #put(index: number, block: Block): Block {
    const before = this.#blocks.get(index)
    if (before !== undefined) this.#bytes -= bytesOf(before)
    this.#bytes += bytesOf(block)
    this.#blocks.set(index, block)
    return block
  }
}

interface Block {
  /** A bit for each number that is live. */
  readonly live: Uint32Array
  count: number
  readonly tags: Uint8Array
  /** Of which numbers the tags are, in order; without it, of all. */
  readonly places: Uint16Array | undefined
}

const blockTags = 512

function wholeBlock(): Block {
  return {
    live: new Uint32Array(blockTags / 32),
    count: 0,
    tags: new Uint8Array(blockTags * tagBytes),
    places: undefined,
  }
}

function packed(block: Block): Block {
  const tags = new Uint8Array(block.count * tagBytes)
  const places = new Uint16Array(block.count)
  let count = 0
  const keep = (offset: number, place: number) => {
    if (!isLive(block, offset)) return
    places[count] = offset
    tags.set(block.tags.subarray(place * tagBytes, (place + 1) * tagBytes), count * tagBytes)
    count++
  }
  if (block.places === undefined) for (let offset = 0; offset < blockTags; offset++) keep(offset, offset)
  else for (const [place, offset] of block.places.entries()) keep(offset, place)
  return { live: block.live, count, tags, places }
}

function unpacked(block: Block): Block {
  const whole = wholeBlock()
  for (const [place, offset] of block.places!.entries()) {
    whole.tags.set(block.tags.subarray(place * tagBytes, (place + 1) * tagBytes), offset * tagBytes)
  }
  return { ...whole, live: block.live, count: block.count }
}

function isLive({ live }: Block, offset: number): boolean {
  return ((live[offset >>> 5] >>> (offset & 31)) & 1) === 1
}

/** Where in sorted `places` an offset is that is in it. */
function placeOf(places: Uint16Array, offset: number): number {
  let low = 0
  let high = places.length - 1
  while (low < high) {
    const middle = (low + high) >>> 1
    if (places[middle] < offset) low = middle + 1
    else high = middle
  }
  return low
}

/** Its arrays, and some 300 bytes for the objects around them. */
function bytesOf({ live, tags, places }: Block): number {
  return live.byteLength + tags.byteLength + (places?.byteLength ?? 0) + 300
}
