/** Position of the lowest bit that is set; `word` is not 0. */
export function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word)
}

/** Position of the highest bit that is set; `word` is not 0. */
export function highestBit(word: number): number {
  return 31 - Math.clz32(word)
}

/** How many bits of a word are set. */
export function countOnes(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555)
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333)
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}

/** Sets or clears `count` bits from bit `from` on. */
export function setBits(bits: Uint32Array, from: number, count: number, value: boolean): void {
  const end = from + count
  let index = from
  while (index < end) {
    const word = index >>> 5
    const offset = index & 31
    const length = Math.min(32 - offset, end - index)
    const mask = (length === 32 ? 0xffffffff : (1 << length) - 1) << offset
    bits[word] = value ? bits[word] | mask : bits[word] & ~mask
    index += length
  }
}

/** The first bit from `from` on, within `count` bits, that is set; −1 when none is. */
export function firstSetBit(bits: Uint32Array, from: number, count: number): number {
  return firstBit(bits, from, count, 0)
}

/** The first bit from `from` on, within `count` bits, that is not set; −1 when all are. */
export function firstClearBit(bits: Uint32Array, from: number, count: number): number {
  return firstBit(bits, from, count, -1)
}

/** The first bit that is set once each word was flipped by `flip`. */
function firstBit(bits: Uint32Array, from: number, count: number, flip: number): number {
  const end = from + count
  let index = from
  while (index < end) {
    const rest = (bits[index >>> 5] ^ flip) >>> (index & 31)
    if (rest !== 0) {
      const found = index + lowestBit(rest)
      return found < end ? found : -1
    }
    index = (index | 31) + 1
  }
  return -1
}
