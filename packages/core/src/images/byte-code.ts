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

  /** Numbers that lie close to each other, as they are read by `ByteReader.column`: mostly 6 bytes each, and all at their places. */
  column(values: Float64Array): void {
    const least = values.reduce((least, value) => Math.min(least, value), Number.MAX_SAFE_INTEGER)
    const greatest = values.reduce((greatest, value) => Math.max(greatest, value), 0)
    const highBytes = greatest - least < 2 ** 48 ? 2 : 4
    this.number(least)
    this.number(highBytes)
    const lengthBytes = values.length * (4 + highBytes)
    this.#need(lengthBytes)
    const view = new DataView(this.#bytes.buffer, this.#length, lengthBytes)
    for (const [index, value] of values.entries()) {
      const high = Math.floor((value - least) / 2 ** 32)
      const highAt = values.length * 4 + index * highBytes
      view.setUint32(index * 4, (value - least) % 2 ** 32, true)
      if (highBytes === 2) view.setUint16(highAt, high, true)
      else view.setUint32(highAt, high, true)
    }
    this.#length += lengthBytes
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

  /** So many numbers that `ByteWriter.column` wrote. */
  column(count: number): Float64Array {
    const least = this.number()
    const highBytes = this.number()
    if (highBytes !== 2 && highBytes !== 4) throw new RangeError(`a column of ${highBytes} high bytes`)
    const lows = viewOf(this.raw(count * 4))
    const highs = viewOf(this.raw(count * highBytes))
    const values = new Float64Array(count)
    for (let index = 0; index < count; index++) values[index] = least + lows.getUint32(index * 4, true)
    if (highBytes === 2) {
      for (let index = 0; index < count; index++) values[index] += highs.getUint16(index * 2, true) * 2 ** 32
    } else {
      for (let index = 0; index < count; index++) values[index] += highs.getUint32(index * 4, true) * 2 ** 32
    }
    return values
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

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** `tables[256 × k + byte]`: what a byte does to the sum when k more bytes follow it. */
const tables = new Int32Array(8 * 256)
for (let byte = 0; byte < 256; byte++) {
  let sum = byte
  for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0x82f63b78 : 0)
  tables[byte] = sum
}
for (let entry = 256; entry < tables.length; entry++) {
  const before = tables[entry - 256]
  tables[entry] = tables[before & 0xff] ^ (before >>> 8)
}

/** CRC-32C of the bytes (RFC 3720), eight at a time; begun with `start`: another start gives another sum of the same bytes. Signed. */
export function checksum(bytes: Uint8Array, start = 0): number {
  const view = viewOf(bytes)
  const end = bytes.byteLength
  let sum = ~start
  let at = 0
  for (; at + 8 <= end; at += 8) {
    const low = sum ^ view.getInt32(at, true)
    const high = view.getInt32(at + 4, true)
    sum =
      tables[1792 + (low & 0xff)] ^
      tables[1536 + ((low >>> 8) & 0xff)] ^
      tables[1280 + ((low >>> 16) & 0xff)] ^
      tables[1024 + (low >>> 24)] ^
      tables[768 + (high & 0xff)] ^
      tables[512 + ((high >>> 8) & 0xff)] ^
      tables[256 + ((high >>> 16) & 0xff)] ^
      tables[high >>> 24]
  }
  for (; at < end; at++) sum = tables[(sum ^ bytes[at]) & 0xff] ^ (sum >>> 8)
  return ~sum
}
