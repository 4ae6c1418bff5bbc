const blockBits = 2 ** 18

/** One bit per slot, in blocks of 32 KiB that come with the first bit set in them. */
export class SlotBits {
  readonly #blocks: (Uint32Array | undefined)[] = []
  /** By block, how many bits are set: so that a search skips those where none is. */
  readonly #blockCounts: number[] = []
  #count = 0

  /** How many bits are set. */
  get count(): number {
    return this.#count
  }

  has(slot: number): boolean {
    const block = this.#blocks[Math.floor(slot / blockBits)]
    return block !== undefined && (block[(slot % blockBits) >>> 5] & (1 << (slot & 31))) !== 0
  }

  /** How many of these bits are set. */
  countIn(firstSlot: number, count: number): number {
    let found = 0
    this.#eachWord(firstSlot, count, false, (block, word, mask) => {
      found += ones(block[word] & mask)
    })
    return found
  }

  set(firstSlot: number, count: number): void {
    this.#eachWord(firstSlot, count, true, (block, word, mask, number) => {
      this.#add(number, ones(mask & ~block[word]))
      block[word] |= mask
    })
  }

  clear(firstSlot: number, count: number): void {
    this.#eachWord(firstSlot, count, false, (block, word, mask, number) => {
      this.#add(number, -ones(mask & block[word]))
      block[word] &= ~mask
    })
  }

  reset(): void {
    this.#blocks.length = 0
    this.#blockCounts.length = 0
    this.#count = 0
  }

  /** The first slots from `from` on that are set, up to `most` adjacent ones; `undefined` when none is from there on. */
  runFrom(from: number, most: number): { first: number; count: number } | undefined {
    const first = this.#nextSet(from)
    if (first < 0) return undefined
    let count = 1
    while (count < most && this.has(first + count)) count++
    return { first, count }
  }

  #nextSet(from: number): number {
    let slot = from
    for (let number = Math.floor(from / blockBits); number < this.#blocks.length; number++) {
      slot = Math.max(slot, number * blockBits)
      const block = this.#blocks[number]
      if (block === undefined || (this.#blockCounts[number] ?? 0) === 0) continue
      for (let word = (slot % blockBits) >>> 5; word < block.length; word++) {
        const bits = word === (slot % blockBits) >>> 5 ? block[word] & (-1 << (slot & 31)) : block[word]
        if (bits !== 0) return number * blockBits + word * 32 + 31 - Math.clz32(bits & -bits)
      }
    }
    return -1
  }

  #add(block: number, bits: number): void {
    this.#blockCounts[block] = (this.#blockCounts[block] ?? 0) + bits
    this.#count += bits
  }

  #eachWord(
    firstSlot: number,
    count: number,
    create: boolean,
    visit: (block: Uint32Array, word: number, mask: number, number: number) => void,
  ): void {
    const end = firstSlot + count
    for (let slot = firstSlot; slot < end; ) {
      const number = Math.floor(slot / blockBits)
      const inBlock = slot - number * blockBits
      const length = Math.min(32 - (inBlock & 31), end - slot)
      const mask = (length === 32 ? -1 : (1 << length) - 1) << (inBlock & 31)
      if (create && this.#blocks[number] === undefined) this.#blocks[number] = new Uint32Array(blockBits / 32)
      const block = this.#blocks[number]
      if (block !== undefined) visit(block, inBlock >>> 5, mask, number)
      slot += length
    }
  }
}

function ones(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555)
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333)
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
