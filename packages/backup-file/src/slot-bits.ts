const blockBits = 2 ** 18

/** One bit per slot, in blocks of 32 KiB that come with the first bit set in them. */
export class SlotBits {
  readonly #blocks: (Uint32Array | undefined)[] = []
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
    this.#eachWord(firstSlot, count, true, (block, word, mask) => {
      this.#count += ones(mask & ~block[word])
      block[word] |= mask
    })
  }

  clear(firstSlot: number, count: number): void {
    this.#eachWord(firstSlot, count, false, (block, word, mask) => {
      this.#count -= ones(mask & block[word])
      block[word] &= ~mask
    })
  }

  reset(): void {
    this.#blocks.length = 0
    this.#count = 0
  }

  #eachWord(
    firstSlot: number,
    count: number,
    create: boolean,
    visit: (block: Uint32Array, word: number, mask: number) => void,
  ): void {
    const end = firstSlot + count
    for (let slot = firstSlot; slot < end; ) {
      const number = Math.floor(slot / blockBits)
      const inBlock = slot - number * blockBits
      const length = Math.min(32 - (inBlock & 31), end - slot)
      const mask = (length === 32 ? -1 : (1 << length) - 1) << (inBlock & 31)
      if (create && this.#blocks[number] === undefined) this.#blocks[number] = new Uint32Array(blockBits / 32)
      const block = this.#blocks[number]
      if (block !== undefined) visit(block, inBlock >>> 5, mask)
      slot += length
    }
  }
}

function ones(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555)
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333)
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
