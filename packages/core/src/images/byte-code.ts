/** Numbers from 0 to 2^53 − 1 and bytes, one after the other, in memory that grows. */
export class ByteWriter {
  #bytes = new Uint8Array(256)
  #length = 0

  get length(): number {
    return this.#length
  }

  /** A copy of what was written so far. */
  get bytes(): Uint8Array {
    return this.#bytes.slice(0, this.#length)
  }

  /** Seven bits a byte, the lowest first; the highest bit says that more follow. */
  number(value: number): void {
    this.#need(8)
    let rest = value
    while (rest >= 0x80) {
      this.#bytes[this.#length++] = (rest % 0x80) + 0x80
      rest = Math.floor(rest / 0x80)
    }
    this.#bytes[this.#length++] = rest
  }

  /** A number that may be negative; small ones of both signs are short. */
  difference(value: number): void {
    this.number(value < 0 ? -value * 2 - 1 : value * 2)
  }

  /** 32 bits, signed or not. */
  word(value: number): void {
    this.#need(4)
    for (let shift = 0; shift < 32; shift += 8) this.#bytes[this.#length++] = (value >>> shift) & 0xff
  }

  text(value: string): void {
    const bytes = new TextEncoder().encode(value)
    this.number(bytes.byteLength)
    this.raw(bytes)
  }

  raw(bytes: Uint8Array): void {
    this.#need(bytes.byteLength)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.byteLength
  }

  #need(more: number): void {
    if (this.#length + more <= this.#bytes.byteLength) return
    const larger = new Uint8Array(Math.max(this.#length + more, this.#bytes.byteLength * 2))
    larger.set(this.#bytes.subarray(0, this.#length))
    this.#bytes = larger
  }
}

/** Reads what `ByteWriter` wrote. Throws `RangeError` where the bytes end too early or are no number. */
export class ByteReader {
  readonly #bytes: Uint8Array
  #at: number

  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = bytes
    this.#at = at
  }

  get left(): number {
    return this.#bytes.byteLength - this.#at
  }

  number(): number {
    let value = 0
    for (let factor = 1; ; factor *= 0x80) {
      const byte = this.#next()
      value += (byte & 0x7f) * factor
      if (value > Number.MAX_SAFE_INTEGER) throw new RangeError('a number is too large')
      if (byte < 0x80) return value
    }
  }

  difference(): number {
    const value = this.number()
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2
  }

  word(): number {
    let value = 0
    for (let shift = 0; shift < 32; shift += 8) value |= this.#next() << shift
    return value
  }

  text(): string {
    return new TextDecoder('utf-8', { fatal: true }).decode(this.raw(this.number()))
  }

  /** A view of the next bytes. */
  raw(length: number): Uint8Array {
    if (length > this.left) throw new RangeError('the bytes end too early')
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  #next(): number {
    if (this.#at >= this.#bytes.byteLength) throw new RangeError('the bytes end too early')
    return this.#bytes[this.#at++]
  }
}

const table = new Int32Array(256)
for (let byte = 0; byte < 256; byte++) {
  let sum = byte
  for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0x82f63b78 : 0)
  table[byte] = sum
}

/** CRC-32C of the bytes (RFC 3720), begun with `start`: another start gives another sum of the same bytes. Signed. */
export function checksum(bytes: Uint8Array, start = 0): number {
  let sum = ~start
  for (let index = 0; index < bytes.byteLength; index++)
    sum = table[(sum ^ bytes[index]) & 0xff] ^ (sum >>> 8)
  return ~sum
}
